"""Rates and slices of rates."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import labtree
from labtree.objects import rate_data as rates_room
from labtree.objects import rate_slice_stack as stacks_room
from labtree.testing.spikes import synthetic_rate_data, synthetic_rate_slice_stack

dtypes = st.sampled_from(["f2", "f4", "f8", "i2", "i8", "u1", "?"])


@given(st.integers(0, 4), st.integers(0, 5), dtypes, st.data())
def test_rates_are_kept_to_the_bit(n_units, n_times, dtype, data):
    rates = data.draw(arrays(dtype, (n_units, n_times)))
    times = sorted(
        data.draw(st.lists(st.floats(-1e6, 1e6), min_size=n_times, max_size=n_times))
    )
    ds = labtree.rate_data(rates, times, neuron_attributes=[{"x": 1}] * n_units)
    assert ds.rate.dtype == rates.dtype
    assert ds.rate.values.tobytes() == rates.tobytes()
    assert ds.time.values.tolist() == times
    assert rates_room.summary(ds) == {"shape": [n_units, n_times]}


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u2"])
def test_the_dtype_of_the_times_is_kept(dtype):
    ds = labtree.rate_data([[1.0, 2.0]], np.array([0, 5], dtype))
    assert ds.time.dtype == np.dtype(dtype)
    assert ds.sel(time=5).rate.item() == 2


def test_times_may_repeat():
    assert labtree.rate_data([[1, 2]], [3, 3]).time.values.tolist() == [3, 3]


@pytest.mark.parametrize("unit", ["Hz", "kHz"])
def test_the_unit_is_kept(unit):
    assert labtree.rate_data([[1]], [0], unit=unit).rate.attrs == {"units": unit}


def test_no_unit_is_no_unit():
    assert labtree.rate_data([[1]], [0], unit=None).rate.attrs == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1, 2], [0, 1]), r"rates must have shape \(unit, time\), found \(2,\)"),
        (([[1, 2]], [0]), "rates has 2 columns, times has 1 values"),
        (([[1, 2]], [[0, 1]]), r"times must be one-dimensional, found shape \(1, 2\)"),
        (([[1, 2]], [0, math.nan]), "times must be finite"),
        (([[1, 2]], [0, math.inf]), "times must be finite"),
        (([[1, 2]], [1, 0]), "times must never fall: 1 ms is followed by 0 ms"),
        (([[1, 2]], ["a", "b"]), "times must be real numbers in ms, found dtype <U1"),
        (([[1, 2]], np.array([0, 1], "f2")), "cannot hold times of dtype float16 exactly"),
        (([[1j, 2]], [0, 1]), "rates must hold real numbers, found dtype complex128"),
        (
            (np.ma.masked_equal([[1, 2]], 1), [0, 1]),
            r"rates is masked: fill it, as in rates.fil",
        ),
    ],
)
def test_wrong_rates_are_said(arguments, words):
    with pytest.raises(ValueError, match=words):
        labtree.rate_data(*arguments)


def test_wrong_unit_and_attributes_are_said():
    with pytest.raises(
        ValueError, match=r"unit must be one of \('Hz', 'kHz', None\), found 'mHz'"
    ):
        labtree.rate_data([[1]], [0], unit="mHz")
    with pytest.raises(ValueError, match="neuron_attributes has 2 items, expected 1"):
        labtree.rate_data([[1]], [0], neuron_attributes=[{}, {}])


def test_validate_finds_damage_in_rates():
    ds = synthetic_rate_data(3, 5)
    with pytest.raises(ValueError, match="needs the variable 'time'"):
        rates_room.validate(ds.drop_vars("time"))
    with pytest.raises(ValueError, match="must never fall"):
        rates_room.validate(ds.isel(time=slice(None, None, -1)))
    with pytest.raises(ValueError, match="needs the dimensions"):
        rates_room.validate(ds.transpose("time", "unit"))


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), dtypes, st.data())
def test_slices_of_rates_are_kept_to_the_bit(n_units, n_times, n_slices, dtype, data):
    stack = data.draw(arrays(dtype, (n_units, n_times, n_slices)))
    windows = [(10 * at, 10 * at + 8) for at in range(n_slices)]
    ds = labtree.rate_slice_stack(stack, windows, step_size=2)
    assert ds.rate.dims == ("unit", "time", "slice")
    assert ds.rate.dtype == stack.dtype
    assert ds.rate.values.tobytes() == stack.tobytes()
    assert ds.slice_start.dtype == np.int64
    assert list(zip(ds.slice_start.values, ds.slice_end.values, strict=True)) == windows
    assert ds.time.values.tolist() == [2.0 * at for at in range(n_times)]
    assert stacks_room.summary(ds) == {"shape": [n_units, n_times, n_slices]}


def test_unsorted_windows_stay_with_their_slices():
    ds = labtree.rate_slice_stack(np.arange(2).reshape(1, 1, 2), [(20, 30), (0, 10)])
    assert ds.isel(slice=0).slice_start == 20
    assert ds.isel(slice=0).rate.item() == 0


@pytest.mark.parametrize(
    ("shape", "windows", "words"),
    [
        (
            (2, 3),
            [(0, 1)],
            r"event_stack must have shape \(unit, time, slice\), found \(2, 3\)",
        ),
        ((1, 0, 1), [(0, 1)], "at least one slice and one sample"),
        ((1, 1, 0), [], "at least one slice and one sample"),
        ((1, 1, 2), [(0, 1)], "times has 1 windows for 2 slices"),
        ((1, 1, 2), [(0, 1), (5, 7)], r"equally long: times\[0\] lasts 1 ms, times\[1\] 2 ms"),
        ((1, 1, 1), [(1, 0)], r"times\[0\] starts at 1 ms, after its end at 0 ms"),
        ((1, 1, 1), [(0, math.nan)], "times must be finite"),
        ((1, 1, 1), [(0, 1, 2)], r"one \(start, end\) in ms for each slice, found .* \(1, 3\)"),
        ((1, 1, 1), [("a", "b")], "found an array of shape .* and dtype <U1"),
    ],
)
def test_wrong_slices_of_rates_are_said(shape, windows, words):
    with pytest.raises(ValueError, match=words):
        labtree.rate_slice_stack(np.zeros(shape), windows)


@pytest.mark.parametrize("step", [0, -1, math.nan, math.inf, "1", [1, 2], 1j])
def test_wrong_steps_are_said(step):
    with pytest.raises(ValueError, match="step_size must be a number above 0, found"):
        labtree.rate_slice_stack(np.zeros((1, 1, 1)), [(0, 1)], step_size=step)


def test_durations_may_differ_by_rounding():
    ds = labtree.rate_slice_stack(np.zeros((1, 1, 2)), [(0, 0.1 + 0.2), (0, 0.3)])
    stacks_room.validate(ds)


def test_validate_finds_damage_in_slices():
    ds = synthetic_rate_slice_stack(2, 3, 4)
    stacks_room.validate(ds.isel(slice=[2, 0]))
    for damaged, words in [
        (ds.drop_vars("slice_end"), "needs the coordinates"),
        (ds.isel(slice=[]), "at least one slice"),
        (ds.assign_coords(slice_start=ds.slice_start + 1e6), "after its end"),
        (ds.assign_coords(slice_start=("slice_", [1.0])), "1 windows for 4 slices"),
        (ds.drop_attrs(), "needs the attribute 'step_size'"),
    ]:
        with pytest.raises(ValueError, match=words):
            stacks_room.validate(damaged)
