"""Spike trains: what goes in comes out, and what is wrong is said."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import LabtreeError
from labtree.objects import spike_data as room
from labtree.testing.spikes import synthetic_spike_data
from support.examples import examples

finite = st.floats(-1e6, 1e6, allow_nan=False)
trains_strategy = st.lists(st.lists(finite, max_size=6), max_size=6)


@given(trains_strategy)
def test_trains_come_back_sorted(trains):
    start = min((time for train in trains for time in train), default=0.0)
    ds = labtree.spike_data(trains, start_time=start)
    assert [train.tolist() for train in labtree.spikes.spike_trains(ds)] == [
        sorted(t) for t in trains
    ]
    assert ds.row_size.values.tolist() == [len(train) for train in trains]
    assert ds.row_size.attrs["sample_dimension"] == "spike"
    labtree.objects.spike_data.validate(ds)


@given(trains_strategy, finite)
def test_a_default_length_always_holds_its_spikes(trains, start):
    trains = [[time for time in train if time >= start] for train in trains]
    ds = labtree.spike_data(trains, start_time=start)
    last = max((time for train in trains for time in train), default=start)
    assert ds.attrs["length"] == last - start


@given(st.floats(0, 1e6), finite)
def test_both_ends_belong_to_the_recording(length, start):
    ends = [start, start + length]
    ds = labtree.spike_data([ends], start_time=start, length=length)
    assert labtree.spikes.spike_trains(ds)[0].tolist() == ends
    for outside in (math.nextafter(start, -math.inf), start + length * 1.001 + 1):
        with pytest.raises(ValueError, match="unit 0 has a spike at"):
            labtree.spike_data([[outside]], start_time=start, length=length)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_what_is_not_finite_is_refused(sizes, data):
    unit = data.draw(st.integers(0, len(sizes) - 1))
    trains = [[1.0] * size for size in sizes]
    trains[unit].append(data.draw(st.sampled_from([math.nan, math.inf, -math.inf])))
    with pytest.raises(ValueError, match=f"unit {unit} has a spike at .*must be finite"):
        labtree.spike_data(trains, length=10)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", ">f8", ">i4"]
)
def test_the_dtype_of_the_trains_is_kept(dtype):
    ds = labtree.spike_data([np.array([3, 1], dtype), np.array([], dtype)])
    assert ds.spike_times.dtype == np.dtype(dtype)
    assert labtree.spikes.spike_trains(ds)[0].tolist() == [1, 3]
    assert ds.attrs["length"] == 3


def test_an_empty_list_says_nothing_of_the_dtype():
    assert labtree.spike_data([[], np.array([1], "i4")]).spike_times.dtype == np.int32
    assert labtree.spike_data([[], []]).spike_times.dtype == np.float64


def test_dtypes_that_do_not_agree_must_lose_nothing():
    ds = labtree.spike_data([[1, 2], [2.5]])
    assert ds.spike_times.dtype == np.float64
    with pytest.raises(ValueError, match="give all trains in one dtype"):
        labtree.spike_data([np.array([2**53 + 1]), np.array([2.5])])


def test_large_whole_times_stay_exact():
    ds = labtree.spike_data([[2**53 + 1]])
    assert labtree.spikes.spike_trains(ds)[0].tolist() == [2**53 + 1]
    assert ds.attrs["length"] == 2**53 + 1
    with pytest.raises(ValueError, match="after the end of the recording"):
        labtree.spike_data([[2**53 + 1]], length=2**53)


def test_no_train_and_silent_units():
    nothing = labtree.spike_data([])
    assert nothing.sizes["unit"] == nothing.sizes["spike"] == 0
    assert nothing.attrs["length"] == 0
    padded = labtree.spike_data([[1.0]], n_units=3)
    assert [train.tolist() for train in labtree.spikes.spike_trains(padded)] == [[1.0], [], []]


def test_the_input_is_not_touched():
    train = np.array([3.0, 1.0])
    metadata = {"a": 1}
    ds = labtree.spike_data([train], metadata=metadata)
    ds.attrs["metadata"]["b"] = 2
    assert train.tolist() == [3.0, 1.0]
    assert metadata == {"a": 1}


def test_metadata_of_any_nesting():
    metadata = {"a": {"b": (1, None, {"c"}), 3: b"x"}, "n": math.inf, "array": np.arange(3)}
    kept = labtree.spike_data([[1.0]], metadata=metadata).attrs["metadata"]
    assert kept["a"] == metadata["a"]
    assert kept["array"] is metadata["array"]
    assert "metadata" not in labtree.spike_data([[1.0]]).attrs


def test_raw_data_with_times_or_a_rate():
    data = np.arange(8, dtype="f4").reshape(2, 4)
    times = np.array([0, 1, 2, 4])
    ds = labtree.spike_data([[1.0]], raw_data=data, raw_time=times)
    assert ds.raw_data.dtype == np.float32
    assert ds.raw_data.dims == ("raw_channel", "raw_sample")
    assert ds.raw_time.dtype == times.dtype
    rate = labtree.spike_data([[1.0]], raw_data=data, raw_time=2.0)
    assert rate.raw_time.values.tolist() == [0, 0.5, 1, 1.5]
    one = labtree.spike_data([[1.0]], raw_data=data[0], raw_time=times)
    assert one.raw_data.dims == ("raw_sample",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"length": -1}, "length must not be negative, found -1.0 ms"),
        ({"length": math.nan}, "length must be finite, found nan"),
        ({"length": math.inf}, "length must be finite, found inf"),
        ({"length": "10"}, "length must be a number in ms, found '10'"),
        ({"length": True}, "length must be a number in ms"),
        ({"start_time": math.nan}, "start_time must be finite"),
        ({"start_time": None}, "start_time must be a number in ms, found None"),
        ({"start_time": 2}, "unit 1 has a spike at 0.0 ms, before start_time 2.0 ms"),
        ({"length": 0.5}, r"unit 0 has a spike at 1.0 ms, after the end .* at 0.5 ms"),
        ({"n_units": 1}, "n_units is 1, but there are 2 trains"),
        ({"neuron_attributes": [{}]}, "neuron_attributes has 1 items, expected 2"),
        ({"neuron_attributes": [{}, {}, {}]}, "neuron_attributes has 3 items, expected 2"),
        (
            {"neuron_attributes": [{}, 3]},
            "must be a dict of names and values, or None; found int",
        ),
        ({"neuron_attributes": [{1: 2}, {}]}, "names must be strings, found 1"),
        ({"neuron_attributes": {"a": [1]}}, r"each column needs 2 values.*found {'a': 1}"),
        ({"raw_data": [[1]]}, "belong together; only raw_data was given"),
        ({"raw_time": [1]}, "belong together; only raw_time was given"),
        (
            {"raw_data": [[1, 2]], "raw_time": [1]},
            r"each of the 2 samples .* found shape \(1,\)",
        ),
        ({"raw_data": [[1, 2]], "raw_time": 0}, "rate in kHz must be positive, found 0"),
        (
            {"raw_data": [[[1]]], "raw_time": [1]},
            r"shape \(channel, time\) or \(time,\), found",
        ),
        (
            {"raw_data": np.ma.masked_equal([[1, 2]], 1), "raw_time": 1},
            r"raw_data is masked: fill it",
        ),
    ],
)
def test_wrong_arguments_are_said(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        labtree.spike_data([[1.0], [0.0]], **arguments)
    assert isinstance(caught.value, LabtreeError)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([[1.0]], r"unit 1 must be one-dimensional, found shape \(1, 1\)"),
        (3.0, r"unit 1 must be .* shape \(\).* list\(trains.values\(\)\) for a dict"),
        (["a"], "unit 1 must hold real numbers in ms, found dtype <U1"),
        ([1j], "found dtype complex128"),
        ([True], "found dtype bool"),
        (np.array([1], "m8[ms]"), "found dtype timedelta64"),
        (np.ma.masked_equal([1.0, 2.0], 1), r"unit 1 is masked: write train.compressed\(\)"),
    ],
)
def test_wrong_trains_are_said(train, words):
    with pytest.raises(ValueError, match=words):
        labtree.spike_data([[1.0], train])


def test_validate_says_which_verb_was_wrong():
    ds = synthetic_spike_data(4)
    with pytest.raises(
        ValueError, match=r"instead of ds.isel\(unit=...\) write labtree.spikes.select"
    ):
        room.validate(ds.isel(unit=[0, 2]))
    with pytest.raises(ValueError, match="counts"):
        room.validate(ds.isel(spike=slice(3)))
    room.validate(labtree.spikes.select_units(ds, [0, 2]))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda ds: ds.drop_vars("row_size"), "needs the variable 'row_size'"),
        (lambda ds: ds.rename(unit="cell"), r"needs the dimensions \('unit',\)"),
        (lambda ds: ds.assign(spike_times=ds.spike_times[::-1]), "must be sorted"),
        (lambda ds: ds.assign(spike_times=ds.spike_times * np.nan), "must be finite"),
        (lambda ds: ds.assign(spike_times=ds.spike_times.astype(str)), "real numbers"),
        (lambda ds: ds.assign(row_size=ds.row_size.drop_attrs()), "sample_dimension"),
        (lambda ds: ds.assign_attrs(length=-1), "must not be negative"),
        (lambda ds: ds.assign_attrs(length=1), "after the end"),
        (lambda ds: ds.assign_attrs(start_time=None), "start_time must be a number"),
        (lambda ds: ds.assign(raw_data=("raw_sample", [1])), "only one is there"),
        (
            lambda ds: ds.assign(raw_data=("x", [1]), raw_time=("raw_sample", [1])),
            "'raw_data' needs the dimensions",
        ),
        (
            lambda ds: ds.assign(raw_data=("raw_sample", [1]), raw_time=("x", [1])),
            "'raw_time' needs the dimension",
        ),
    ],
)
def test_validate_finds_damage(damage, words):
    with pytest.raises(ValueError, match=words):
        room.validate(damage(synthetic_spike_data(3)))


def test_summary_has_the_keys_of_spikelab():
    ds = labtree.spike_data([[1.0], []], start_time=-5, length=20)
    assert room.summary(ds) == {"N": 2, "length_ms": 20.0, "start_time": -5.0}


@settings(max_examples=examples(25))
@given(trains_strategy)
def test_building_again_changes_nothing(trains):
    start = min((time for train in trains for time in train), default=0.0)
    ds = labtree.spike_data(trains, start_time=start)
    again = labtree.spike_data(
        labtree.spikes.spike_trains(ds), start_time=start, length=ds.attrs["length"]
    )
    assert again.identical(ds)
    assert isinstance(again, xr.Dataset)


def test_trains_in_another_unit_are_refused_and_none_is_dropped():
    in_seconds = xr.DataArray([1.0, 2.0], dims="spike", attrs={"units": "s"})
    with pytest.raises(ValueError, match="the train of unit 1 is in s, expected ms"):
        labtree.spike_data([[1.0], in_seconds])
    ds = labtree.spike_data([in_seconds.assign_attrs(units="ms"), in_seconds.drop_attrs()])
    assert ds.spike_times.values.tolist() == [1, 2, 1, 2]


def test_quantities_are_taken_in_ms_only():
    quantities = pytest.importorskip("quantities", reason="makes quantities")
    with pytest.raises(ValueError, match=r"is in s, expected ms.*from_neo"):
        labtree.spike_data([quantities.Quantity([1.0, 2.0], "s")])
    ds = labtree.spike_data([quantities.Quantity([1.0, 2.0], "ms")])
    assert ds.spike_times.values.tolist() == [1, 2]
