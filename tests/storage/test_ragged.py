"""Ragged arrays against lists of lists."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.storage import ragged
from support.examples import examples

rows_strategy = st.lists(st.lists(st.integers(-50, 50), max_size=5), max_size=7)


def flat(rows):
    return (
        np.array([value for row in rows for value in row], dtype=np.int64),
        np.array([len(row) for row in rows], dtype=np.int64),
    )


def as_lists(samples, row_size):
    return [row.tolist() for row in ragged.split_rows(samples, row_size)]


@settings(deadline=None, max_examples=examples(60))
@given(rows_strategy)
def test_split_gives_the_rows_back(rows):
    assert as_lists(*flat(rows)) == rows


def test_split_copies_nothing():
    samples = np.arange(5)
    first, second = ragged.split_rows(samples, [2, 3])
    assert np.shares_memory(first, samples)
    assert np.shares_memory(second, samples)


@settings(deadline=None, max_examples=examples(60))
@given(rows_strategy)
def test_row_of_sample(rows):
    expected = [number for number, row in enumerate(rows) for _ in row]
    assert ragged.row_of_sample(flat(rows)[1]).tolist() == expected


@settings(deadline=None, max_examples=examples(60))
@given(rows_strategy, st.data())
def test_positions_of_rows_in_any_order(rows, data):
    samples, row_size = flat(rows)
    order = data.draw(
        st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([])
    )
    taken = samples[ragged.positions_of_rows(row_size, order)].tolist()
    assert taken == [value for row in order for value in rows[row]]


def test_neighboring_rows_are_read_as_a_slice():
    assert ragged.positions_of_rows([3, 1, 2], [1, 2]) == slice(3, 6)
    assert ragged.positions_of_rows([3, 1, 2], []) == slice(0, 0)
    assert not isinstance(ragged.positions_of_rows([3, 1, 2], [2, 1]), slice)


@settings(deadline=None, max_examples=examples(60))
@given(rows_strategy)
def test_sorted_is_said_of_rows_alone(rows):
    samples, row_size = flat(rows)
    assert ragged.rows_are_sorted(samples, row_size) == all(row == sorted(row) for row in rows)


@settings(deadline=None, max_examples=examples(60))
@given(rows_strategy)
def test_sort_rows(rows):
    samples, row_size = flat(rows)
    before = samples.copy()
    assert as_lists(ragged.sort_rows(samples, row_size), row_size) == [sorted(r) for r in rows]
    assert np.array_equal(samples, before)


@settings(deadline=None, max_examples=examples(60))
@given(rows_strategy)
def test_count_in_rows(rows):
    samples, row_size = flat(rows)
    expected = [sum(value > 0 for value in row) for row in rows]
    assert ragged.count_in_rows(np.flatnonzero(samples > 0), row_size).tolist() == expected


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(0, 5), st.data())
def test_concatenate_rows(n_rows, data):
    row = st.lists(st.integers(0, 99), max_size=4)
    parts = data.draw(
        st.lists(st.lists(row, min_size=n_rows, max_size=n_rows), min_size=1, max_size=4)
    )
    samples, row_size = ragged.concatenate_rows([flat(part) for part in parts])
    expected = [[v for part in parts for v in part[at]] for at in range(n_rows)]
    assert as_lists(samples, row_size) == expected


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_isel_along_two_dimensions_of_rows(n_outer, n_inner, data):
    row = st.lists(st.integers(0, 99), max_size=3)
    n_rows = n_outer * n_inner
    rows = data.draw(st.lists(row, min_size=n_rows, max_size=n_rows))
    samples, row_size = flat(rows)
    ds = xr.Dataset(
        {
            "x": ("sample", samples),
            "n": (
                ("outer", "inner"),
                row_size.reshape(n_outer, n_inner),
                {"sample_dimension": "sample"},
            ),
        }
    )
    inner = data.draw(st.lists(st.integers(0, n_inner - 1), max_size=5))
    part = ragged.isel(ds, {"inner": np.array(inner, np.int64)})
    assert ragged.problems(part) == []
    expected = [rows[outer * n_inner + at] for outer in range(n_outer) for at in inner]
    assert as_lists(part.x.values, part.n.values) == expected


def test_isel_leaves_other_datasets_to_xarray():
    ds = xr.Dataset({"x": ("row", [1, 2, 3])})
    assert ragged.isel(ds, {"row": [2, 0]}).identical(ds.isel(row=[2, 0]))


@pytest.mark.parametrize(
    ("counts", "dim", "words"),
    [
        ([2, 2], "sample", "counts 4 samples in 2 rows, but dimension 'sample' holds 3"),
        ([4, -1], "sample", "negative"),
        ([1.5, 1.5], "sample", "whole numbers, found dtype float64"),
        ([2, 1], "elsewhere", "a dimension that is not there"),
    ],
)
def test_problems_in_words(counts, dim, words):
    ds = xr.Dataset(
        {"x": ("sample", [1, 2, 3]), "n": ("row", counts, {"sample_dimension": dim})}
    )
    (found,) = ragged.problems(ds)
    assert words in found


@given(
    st.lists(st.lists(st.integers(-5, 60), max_size=6), max_size=5),
    st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60)), max_size=6),
)
def test_ranges_of_spikes_are_those_of_a_loop(rows, spans):
    rows = [sorted(row) for row in rows]
    samples = np.array([value for row in rows for value in row], np.int64)
    starts = np.array([start for start, _ in spans], np.int64)
    stops = np.array([stop for _, stop in spans], np.int64)
    first, last = ragged.spike_ranges(samples, [len(row) for row in rows], starts, stops)
    assert first.shape == last.shape == (len(rows), len(spans))
    for i, row in enumerate(rows):
        for k, (start, stop) in enumerate(spans):
            expected = [value for value in row if start <= value < stop]
            assert samples[first[i, k] : last[i, k]].tolist() == expected
