"""Pairwise matrices and stacks: every dtype, masks and labels are kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import labtree
from labtree.objects import pairwise as room
from labtree.testing.spikes import synthetic_pairwise_matrix, synthetic_pairwise_stack
from support.exactness import assert_same

dtypes = st.sampled_from(["f2", "f4", "f8", "c8", "c16", "i1", "i8", "u8", "?"])


@given(st.integers(0, 4), dtypes, st.data())
def test_matrices_are_kept_to_the_bit(n_units, dtype, data):
    matrix = data.draw(arrays(dtype, (n_units, n_units)))
    ds = labtree.pairwise_matrix(matrix)
    assert ds.matrix.dims == ("unit_i", "unit_j")
    assert ds.matrix.dtype == matrix.dtype
    assert labtree.spikes.matrix_values(ds).tobytes() == matrix.tobytes()
    assert room.summary(ds) == {"shape": [n_units, n_units]}


@given(st.integers(0, 3), st.integers(0, 3), dtypes, st.data())
def test_stacks_are_kept_to_the_bit(n_units, n_slices, dtype, data):
    stack = data.draw(arrays(dtype, (n_units, n_units, n_slices)))
    windows = data.draw(st.sampled_from([None, [(at, at + 1) for at in range(n_slices)]]))
    ds = labtree.pairwise_stack(stack, times=windows)
    assert ds.matrix.dims == ("unit_i", "unit_j", "slice")
    assert labtree.spikes.matrix_values(ds).tobytes() == stack.tobytes()
    assert ("slice_start" in ds.coords) == (windows is not None)
    room.validate_stack(ds)


@given(arrays("f8", (3, 3)), arrays("?", (3, 3)), st.sampled_from([None, -1.0]))
def test_masks_are_kept(values, mask, fill_value):
    masked = np.ma.MaskedArray(values, mask, fill_value=fill_value)
    ds = labtree.pairwise_matrix(masked)
    assert ds.matrix_mask.dtype == bool
    back = labtree.spikes.matrix_values(ds)
    assert back.data.tobytes() == values.tobytes()
    assert np.array_equal(back.mask, mask)
    assert np.array_equal(back.fill_value, masked.fill_value)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        ([1, 2], np.int64),
        (["a", "b"], "U1"),
        ([1.5, float("nan")], np.float64),
        ([(1, 2), (3, 4)], object),
        ([(1, "x"), (2, "y")], object),
        ([1, "a"], object),
        ([None, 2], object),
        ([True, False], bool),
        (np.array([1, 2], "u1"), np.uint8),
        (np.array(["a", "b"]), "U1"),
    ],
)
def test_labels_of_any_type_lie_along_both_sides(labels, dtype):
    ds = labtree.pairwise_matrix(np.eye(2), labels=labels)
    for name, dim in (("label_i", "unit_i"), ("label_j", "unit_j")):
        assert ds[name].dims == (dim,)
        assert ds[name].dtype == np.dtype(dtype)
        assert_same(ds[name].values.tolist(), list(np.array(labels).tolist())
                    if isinstance(labels, np.ndarray) else labels)  # fmt: skip


def test_labels_that_are_arrays():
    ds = labtree.pairwise_matrix(np.eye(2), labels=[np.array([1, 2]), np.array([3, 4])])
    assert ds.label_i.dims == ("unit_i", "label_1")


def test_metadata_and_labels_of_a_generator():
    ds = labtree.pairwise_matrix(np.eye(2), labels=(n for n in "ab"), metadata={"a": (1, {2})})
    assert ds.attrs["metadata"] == {"a": (1, {2})}
    assert ds.label_i.values.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: labtree.pairwise_matrix(np.ones((2, 3))), r"must be square.*found \(2, 3\)"),
        (lambda: labtree.pairwise_matrix(np.ones(4)), r"must be square.*found \(4,\)"),
        (
            lambda: labtree.pairwise_matrix(np.eye(2), labels=[1]),
            "labels has 1 items, expected 2",
        ),
        (lambda: labtree.pairwise_matrix([["a"]]), "must hold numbers, found dtype <U1"),
        (lambda: labtree.pairwise_stack(np.eye(2)), r"found \(2, 2\)"),
        (lambda: labtree.pairwise_stack(np.ones((2, 3, 1))), r"found \(2, 3, 1\)"),
        (
            lambda: labtree.pairwise_stack(np.ones((2, 2, 3)), times=[(0, 1)]),
            "times has 1 windows for 3 slices",
        ),
    ],
)
def test_wrong_matrices_are_said(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_validate_finds_damage():
    matrix, stack = synthetic_pairwise_matrix(4), synthetic_pairwise_stack(4)
    for validate, damaged, words in [
        (room.validate_matrix, matrix.isel(unit_i=[0]), r"1 by 4. Select both dimensions"),
        (room.validate_matrix, stack, "needs the dimensions"),
        (room.validate_matrix, matrix.drop_vars("matrix"), "needs the variable 'matrix'"),
        (room.validate_stack, stack.isel(unit_j=[0]), r"Select both dimensions"),
        (room.validate_matrix, matrix.assign(matrix=matrix.matrix.astype(str)), "hold numbers"),
        (
            room.validate_matrix,
            matrix.assign(matrix_mask=("unit_i", [True] * 4)),
            "matrix_mask",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            validate(damaged)
