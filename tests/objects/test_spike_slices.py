"""Stacks of spike slices: ragged once, and back to the slices they were made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree.objects import spike_slice_stack as room
from labtree.testing.spikes import synthetic_rate_slice_stack, synthetic_spike_slice_stack
from support.exactness import assert_same
from support.examples import examples

times = st.floats(-10, 20)


@settings(max_examples=examples(60))
@given(st.integers(1, 4), st.integers(0, 4), st.data())
def test_slices_come_back(n_slices, n_units, data):
    trains = st.lists(st.lists(times, max_size=4), min_size=n_units, max_size=n_units)
    slices = [
        labtree.spike_data(
            data.draw(trains), start_time=-10, length=30, metadata={"at": at} if at else None
        )
        for at in range(n_slices)
    ]
    windows = [(100 * at, 100 * at + 30) for at in range(n_slices)]
    ds = labtree.spike_slice_stack(slices, windows)
    assert ds.row_size.shape == (n_slices, n_units)
    for one, other in zip(labtree.spikes.slices_of(ds), slices, strict=True):
        assert_same(one, other)
    assert room.summary(ds) == {"N_slices": n_slices, "N_units": n_units, "length_ms": 30.0}
    assert list(zip(ds.slice_start.values, ds.slice_end.values, strict=True)) == windows


def part(attributes=None, **more):
    given_arguments = {"length": 5} | more
    return labtree.spike_data(
        [[1.0], [2.0, 3.0]], neuron_attributes=attributes, **given_arguments
    )


WINDOWS = [(0, 5), (10, 15)]


def test_attributes_of_the_stack_lie_along_the_units():
    ds = labtree.spike_slice_stack(
        [part()] * 2, WINDOWS, neuron_attributes=[{"id": 1}, {"id": 2}]
    )
    assert ds.id.dims == ("unit",)
    assert labtree.spikes.unit_attributes(ds) == [{"id": 1}, {"id": 2}]


def test_attributes_that_all_slices_share_lie_along_the_units():
    ds = labtree.spike_slice_stack([part([{"id": 1}, {}])] * 2, WINDOWS)
    assert ds.id.dims == ("unit",)
    same = labtree.spike_slice_stack(
        [part([{"id": 1}, {}])] * 2, WINDOWS, neuron_attributes=[{"id": 1}, {}]
    )
    assert same.identical(ds)


def test_attributes_that_differ_lie_along_slices_and_units():
    attributes = [[{"x": 1}, {}], [{"x": 2}, {"y": np.ones(3)}]]
    ds = labtree.spike_slice_stack(
        [part(one) for one in attributes], WINDOWS, neuron_attributes=[{"x": "a"}, {"x": "b"}]
    )
    assert labtree.spikes.unit_attributes(ds) == [{"x": "a"}, {"x": "b"}]
    back = [labtree.spikes.unit_attributes(one) for one in labtree.spikes.slices_of(ds)]
    assert_same(back, attributes)


def test_lengths_and_dtypes_of_slices():
    short = labtree.spike_data([np.array([1], "i4"), np.array([], "i4")], length=4)
    long = labtree.spike_data([[], np.array([5], "i4")], length=6)
    ds = labtree.spike_slice_stack([short, long], WINDOWS)
    assert ds.spike_times.dtype == np.int32
    assert room.summary(ds)["length_ms"] == [4.0, 6.0]
    assert [one.attrs["length"] for one in labtree.spikes.slices_of(ds)] == [4, 6]


def test_raw_data_of_slices():
    slices = [
        part(raw_data=np.arange(2 * n, dtype="f4").reshape(2, n), raw_time=np.arange(n))
        for n in (3, 1)
    ]
    ds = labtree.spike_slice_stack(slices, WINDOWS)
    assert ds.raw_row_size.values.tolist() == [3, 1]
    for one, other in zip(labtree.spikes.slices_of(ds), slices, strict=True):
        assert_same(one, other)
    chosen = labtree.spikes.slices_of(labtree.spikes.select_units(ds, [1]))
    assert chosen[0].raw_data.shape == (2, 3)


@pytest.mark.parametrize(
    ("slices", "windows", "words"),
    [
        ([], [], "slices must hold at least one spike_data"),
        ([[1.0]], [(0, 5)], "slices must hold Datasets from labtree.spike_data, found list"),
        ([part()], WINDOWS, "times has 2 windows for 1 slices"),
        ([part()], [(5, 0)], r"times\[0\] starts at 5 ms, after its end at 0 ms"),
        (
            [part(), labtree.spike_data([[1.0]])],
            WINDOWS,
            "same number of units: slice 0 has 2, slice 1 has 1",
        ),
        (
            [part(), part(start_time=-1)],
            WINDOWS,
            "same start_time: slice 0 has 0.0, slice 1 has -1",
        ),
        ([part(), labtree.spike_data([[1], [2]])], WINDOWS, "need one dtype"),
        ([part(), part(raw_data=[[1]], raw_time=[1])], WINDOWS, "in all slices or in none"),
        (
            [part(raw_data=[[1]], raw_time=[1]), part(raw_data=[[1], [1]], raw_time=[1])],
            WINDOWS,
            "same number of raw channels",
        ),
    ],
)
def test_wrong_slices_are_said(slices, windows, words):
    with pytest.raises(ValueError, match=words):
        labtree.spike_slice_stack(slices, windows)


def test_validate_finds_damage():
    ds = synthetic_spike_slice_stack(3, 4)
    room.validate(ds)
    length = ("slice", [200.0, 200.0, 1.0, 200.0])
    for damaged, words in [
        (ds.isel(unit=[0]), r"write labtree.spikes.select_units"),
        (ds.isel(slice=[0]), "counts"),
        (ds.assign(length=length), "slice 2: unit .* after the end of the recording"),
        (ds.assign_attrs(length=1), "slice 0: unit .* after the end of the recording"),
        (ds.assign_attrs(labtree_kind="x").drop_attrs(deep=False), "attribute 'start_time'"),
        (ds.assign(spike_times=ds.spike_times[::-1]), "must be sorted"),
    ]:
        with pytest.raises(ValueError, match=words):
            room.validate(damaged)


@settings(max_examples=examples(40))
@given(st.lists(st.integers(-4, 3), max_size=6))
def test_select_slices_in_any_order(chosen):
    stack = synthetic_spike_slice_stack(3, 4)
    stack = stack.assign_attrs(slice_metadata=[{"at": at} for at in range(4)])
    whole = labtree.spikes.slices_of(stack)
    part = labtree.spikes.select_slices(stack, chosen)
    found = labtree.spikes.slices_of(part)
    assert len(found) == len(chosen)
    for one, at in zip(found, chosen, strict=True):
        assert_same(one, whole[at])
    assert part.slice_start.values.tolist() == stack.slice_start.values[chosen].tolist()
    if chosen:
        room.validate(part)


def test_select_slices_of_other_kinds_and_by_mask():
    rates = synthetic_rate_slice_stack(2, 3, 4)
    part = labtree.spikes.select_slices(rates, rates.slice_start > 6)
    assert np.array_equal(part.rate, rates.rate[:, :, 2:])
    assert labtree.spikes.select_slices(rates, 1).sizes["slice"] == 1
    with pytest.raises(ValueError, match="there is no slice 4: the Dataset holds 4 slices"):
        labtree.spikes.select_slices(rates, [4])
    with pytest.raises(ValueError, match="expected 'slice'"):
        labtree.spikes.select_slices(part.isel(slice=0), [0])


def test_metadata_of_slices_must_match_them():
    stack = labtree.spike_slice_stack([part(metadata={"a": 1})] * 2, WINDOWS)
    with pytest.raises(ValueError, match=r"write labtree.spikes.select_slices\(ds, ...\)"):
        room.validate(stack.assign_attrs(slice_metadata=[{}]))


def test_windows_may_differ_in_duration():
    first = labtree.spike_data([[1.0], [2.0, 3.0]], length=100.0)
    second = labtree.spike_data([[], [700.0]], length=750.0)
    stack = labtree.spike_slice_stack([first, second], [(0.0, 100.0), (200.0, 950.0)])
    assert (stack.slice_end - stack.slice_start).values.tolist() == [100, 750]
    assert stack.length.values.tolist() == [100, 750]
    assert stack.ws.summary()["length_ms"] == [100, 750]
