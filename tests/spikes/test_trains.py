"""Verbs on trains against Python's lists."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import spikes
from labtree.objects import spike_data as room
from labtree.testing.spikes import (
    synthetic_pairwise_matrix,
    synthetic_rate_data,
    synthetic_rate_slice_stack,
    synthetic_spike_data,
    synthetic_spike_slice_stack,
)
from support.examples import examples

times = st.integers(0, 100).map(float)
trains_strategy = st.lists(st.lists(times, max_size=6).map(sorted), min_size=1, max_size=5)


def lists(ds):
    return [train.tolist() for train in labtree.spikes.spike_trains(ds)]


@given(trains_strategy)
def test_unit_train(trains):
    ds = labtree.spike_data(trains)
    for unit in range(-len(trains), len(trains)):
        assert labtree.spikes.unit_train(ds, unit).tolist() == trains[unit]
    for outside in (len(trains), -len(trains) - 1):
        with pytest.raises(ValueError, match=f"there is no unit {outside}"):
            labtree.spikes.unit_train(ds, outside)


@given(trains_strategy, st.data())
def test_select_units_in_any_order(trains, data):
    ds = labtree.spike_data(trains, length=100)
    units = data.draw(st.lists(st.integers(-len(trains), len(trains) - 1), max_size=6))
    part = labtree.spikes.select_units(ds, units)
    room.validate(part)
    assert lists(part) == [trains[unit] for unit in units]
    mask = data.draw(st.lists(st.booleans(), min_size=len(trains), max_size=len(trains)))
    masked = labtree.spikes.select_units(ds, np.array(mask))
    assert lists(masked) == [t for t, keep in zip(trains, mask, strict=True) if keep]


def test_select_units_takes_what_numpy_takes():
    ds = synthetic_spike_data(6)
    expected = [2, 3, 4]
    for units in (
        slice(2, 5),
        expected,
        np.array(expected),
        (ds.channel.isin([1, 2])) & (ds.row_size >= 0),
    ):
        part = labtree.spikes.select_units(ds, units)
        assert lists(part)[0] == lists(ds)[2]
    one = labtree.spikes.select_units(ds, 3)
    assert one.sizes["unit"] == 1
    assert lists(one) == [lists(ds)[3]]
    assert one.channel.values.tolist() == [1]


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ([9], "there is no unit 9: the Dataset holds 6 units"),
        ([-7], "there is no unit -7"),
        ([True, False], "a mask needs one value for each of 6 units, found 2"),
        ([1.5], "units must be positions or a mask"),
        ("a", "units must be positions or a mask"),
        ([[1]], "units must be positions or a mask"),
    ],
)
def test_select_units_says_what_is_wrong(units, words):
    with pytest.raises(ValueError, match=words):
        labtree.spikes.select_units(synthetic_spike_data(6), units)


def test_select_units_of_the_other_kinds():
    units = [3, 0]
    rates = labtree.spikes.select_units(synthetic_rate_data(5), units)
    assert np.array_equal(rates.rate, synthetic_rate_data(5).rate[units])
    stack = labtree.spikes.select_units(synthetic_rate_slice_stack(5), units)
    assert stack.rate.shape == (2, 50, 10)
    slices = synthetic_spike_slice_stack(5, 4)
    part = labtree.spikes.select_units(slices, units)
    whole = [lists(one) for one in labtree.spikes.slices_of(slices)]
    assert [lists(one) for one in labtree.spikes.slices_of(part)] == [
        [w[3], w[0]] for w in whole
    ]
    matrix = labtree.spikes.select_units(synthetic_pairwise_matrix(5), units)
    assert matrix.matrix.shape == (2, 2)
    assert matrix.label_j.values.tolist() == ["u3", "u0"]
    for ds in (rates, stack, part, matrix):
        ds.ws.validate()
    with pytest.raises(ValueError, match="expected 'unit'"):
        labtree.spikes.select_units(matrix.drop_dims(["unit_i", "unit_j"]), [0])


@given(trains_strategy, st.integers(0, 100), st.integers(0, 100))
def test_select_time(trains, first, second):
    start, stop = sorted((first, second))
    ds = labtree.spike_data(trains, length=100)
    part = labtree.spikes.select_time(ds, start, stop)
    room.validate(part)
    expected = [
        [t for t in train if start <= t and (t < stop or stop == 100 == t)] for train in trains
    ]
    assert lists(part) == expected
    assert (part.attrs["start_time"], part.attrs["length"]) == (start, stop - start)


@given(trains_strategy, st.lists(st.integers(1, 99), max_size=4, unique=True).map(sorted))
def test_stretches_that_follow_each_other_lose_and_double_nothing(trains, cuts):
    ds = labtree.spike_data(trains, length=100)
    edges = [0, *cuts, 100]
    parts = [labtree.spikes.select_time(ds, start, stop) for start, stop in pairwise(edges)]
    assert labtree.spikes.concatenate_time(parts).identical(
        labtree.spike_data(trains, length=100, start_time=0)
    )


def test_select_time_takes_raw_data_along():
    ds = labtree.spike_data(
        [[1.0, 9.0]], length=10, raw_data=np.arange(10)[np.newaxis], raw_time=1.0
    )
    part = labtree.spikes.select_time(ds, 4, 8)
    assert part.raw_time.values.tolist() == [4, 5, 6, 7]
    assert part.raw_data.values.tolist() == [[4, 5, 6, 7]]


def test_select_time_of_rates():
    ds = labtree.rate_data([[1, 2, 3, 4]], [0, 10, 20, 30])
    assert labtree.spikes.select_time(ds, 10, 30).rate.values.tolist() == [[2, 3]]
    assert labtree.spikes.select_time(ds, 10, 31).rate.values.tolist() == [[2, 3, 4]]
    assert (
        labtree.spikes.select_time(labtree.rate_data(np.empty((1, 0)), []), 0, 1).sizes["time"]
        == 0
    )


@pytest.mark.parametrize(
    ("start", "stop", "words"),
    [
        (5, 4, "stop_ms must not come before start_ms, found start_ms 5, stop_ms 4"),
        (float("nan"), 4, "stop_ms must not come before start_ms"),
        (-1, 4, "from -1 to 4 ms is not inside the recording, from 0.0 to 1000.0 ms"),
        (0, 1001, "is not inside the recording"),
    ],
)
def test_select_time_says_what_is_wrong(start, stop, words):
    with pytest.raises(ValueError, match=words):
        labtree.spikes.select_time(synthetic_spike_data(3), start, stop)


@settings(max_examples=examples(50))
@given(st.integers(0, 4), st.data())
def test_concatenate_time(n_units, data):
    units = st.lists(
        st.lists(times, max_size=4).map(sorted), min_size=n_units, max_size=n_units
    )
    parts = data.draw(st.lists(units, min_size=1, max_size=4))
    gap = data.draw(st.sampled_from([0.0, 7.0]))
    start = data.draw(st.sampled_from([0.0, -20.0]))
    joined = labtree.spikes.concatenate_time(
        [labtree.spike_data(part, length=200, start_time=start) for part in parts], gap_ms=gap
    )
    expected = [
        [
            time + number * (200 + gap)
            for number, part in enumerate(parts)
            for time in part[unit]
        ]
        for unit in range(n_units)
    ]
    assert lists(joined) == expected
    assert joined.attrs["start_time"] == start
    assert joined.attrs["length"] == 200 * len(parts) + gap * (len(parts) - 1)


def test_concatenate_time_keeps_whole_numbers_whole():
    part = labtree.spike_data([np.array([1, 2], "i4")], length=5)
    joined = labtree.spikes.concatenate_time([part, part])
    assert joined.spike_times.dtype.kind == "i"
    assert lists(joined) == [[1, 2, 6, 7]]
    single = labtree.spike_data([np.array([0.1], "f4")], length=5)
    assert labtree.spikes.concatenate_time([single, single]).spike_times.dtype == np.float64
    assert labtree.spikes.concatenate_time([single]).spike_times.dtype == np.float32


def test_concatenate_time_with_raw_data_and_metadata():
    def part(**more):
        return labtree.spike_data(
            [[1.0]], length=5, raw_data=[[1, 2]], raw_time=[0.0, 1.0], **more
        )

    joined = labtree.spikes.concatenate_time([part(metadata={"a": 1}), part(metadata={"a": 2})])
    assert joined.raw_time.values.tolist() == [0, 1, 5, 6]
    assert joined.raw_data.values.tolist() == [[1, 2, 1, 2]]
    assert joined.attrs["metadata"] == {"parts": [{"a": 1}, {"a": 2}]}
    same = labtree.spikes.concatenate_time([part(metadata={"a": 1}), part(metadata={"a": 1})])
    assert same.attrs["metadata"] == {"a": 1}
    with pytest.raises(ValueError, match="in all parts or in none"):
        labtree.spikes.concatenate_time([part(), labtree.spike_data([[1.0]], length=5)])
    other = labtree.spike_data([[1.0]], length=5, raw_data=[[1], [2]], raw_time=[0.0])
    with pytest.raises(ValueError, match="different channels"):
        labtree.spikes.concatenate_time([part(), other])


def test_concatenate_time_needs_the_same_units():
    with pytest.raises(ValueError, match="part 0 has 2 units, part 1 has 3"):
        labtree.spikes.concatenate_time([synthetic_spike_data(2), synthetic_spike_data(3)])
    one, two = (
        labtree.spike_data([[1.0]], neuron_attributes=[{"channel": channel}])
        for channel in (1, 2)
    )
    with pytest.raises(ValueError, match="attributes of the units of part 0 and part 1 differ"):
        labtree.spikes.concatenate_time([one, two])
    with pytest.raises(ValueError, match="at least one Dataset"):
        labtree.spikes.concatenate_time([])


@given(trains_strategy, trains_strategy)
def test_concatenate_units(first, second):
    one = labtree.spike_data(first, length=100, neuron_attributes=[{"a": 1}] * len(first))
    two = labtree.spike_data(second, length=100, neuron_attributes=[{"b": "x"}] * len(second))
    joined = labtree.spikes.concatenate_units([one, two])
    assert lists(joined) == first + second
    assert labtree.spikes.unit_attributes(joined) == [{"a": 1}] * len(first) + [
        {"b": "x"}
    ] * len(second)


def test_concatenate_units_says_what_differs():
    one = labtree.spike_data([[1.0]], length=10)
    with pytest.raises(
        ValueError, match=r"part 0 has length 10.0 ms, part 1 has 5.0 ms: cut both"
    ):
        labtree.spikes.concatenate_units([one, labtree.spike_data([[1.0]], length=5)])
    with pytest.raises(ValueError, match="start_time"):
        labtree.spikes.concatenate_units(
            [one, labtree.spike_data([[1.0]], length=10, start_time=1)]
        )
    raw = [
        labtree.spike_data([[1.0]], length=10, raw_data=[[value]], raw_time=[0.0])
        for value in (1, 2)
    ]
    with pytest.raises(ValueError, match="different raw_data"):
        labtree.spikes.concatenate_units(raw)
    assert labtree.spikes.concatenate_units([raw[0], one, raw[0]]).raw_data.values.tolist() == [
        [1]
    ]


@pytest.mark.parametrize(
    "verb",
    [
        lambda ds: labtree.spikes.firing_rates(ds),
        lambda ds: labtree.spikes.binned_counts(ds, 1),
        lambda ds: labtree.spikes.smoothed_rates(ds, 1, 1),
        lambda ds: labtree.spikes.population_rate(ds, 1),
        lambda ds: labtree.spikes.isi_statistics(ds),
        lambda ds: labtree.spikes.bursts(ds),
        lambda ds: labtree.spikes.sttc(ds),
        lambda ds: labtree.spikes.correlograms(ds),
        lambda ds: labtree.spikes.peri_event(ds, [1], 0, 1),
        lambda ds: labtree.spikes.peri_event_counts(ds, [1], 0, 1, 1),
        lambda ds: labtree.spikes.psth(ds, [1], 0, 1, 1),
        lambda ds: labtree.spikes.latencies(ds, [1], 1),
        lambda ds: labtree.spikes.surrogates(ds, "shift", seed=0),
        lambda ds: labtree.spikes.curate(ds),
        lambda ds: labtree.spikes.to_session_units(ds, 1),
        lambda ds: labtree.spikes.spike_trains(ds),
        lambda ds: labtree.spikes.unit_train(ds, 0),
        lambda ds: labtree.spikes.spike_counts(ds),
        lambda ds: labtree.spikes.select_time(ds, 0, 1),
        lambda ds: labtree.spikes.concatenate_time([ds]),
        lambda ds: labtree.spikes.concatenate_units([ds]),
    ],
)
def test_verbs_say_which_kind_they_take(verb):
    with pytest.raises(
        ValueError, match=r"takes a Dataset of kind spike_data.*'rate_slice_stack'"
    ):
        verb(synthetic_rate_slice_stack(3))


SPIKES = labtree.spike_data([[1.0, 5.0, 9.0], [2.0], [3.0, 4.0, 6.0, 7.0]], length=10)
VERBS = {
    "spike_counts": spikes.spike_counts,
    "firing_rates": spikes.firing_rates,
    "isi_statistics": spikes.isi_statistics,
    "binned_counts": lambda ds: spikes.binned_counts(ds, 1),
    "smoothed_rates": lambda ds: spikes.smoothed_rates(ds, 1, 2),
    "sttc": spikes.sttc,
    "correlograms": lambda ds: spikes.correlograms(ds, 1, 5),
    "peri_event": lambda ds: spikes.peri_event(ds, [5], 1, 1),
    "peri_event_counts": lambda ds: spikes.peri_event_counts(ds, [5], 1, 1, 1),
    "psth": lambda ds: spikes.psth(ds, [5], 1, 1, 1),
    "latencies": lambda ds: spikes.latencies(ds, [2], 5),
    "population_rate": lambda ds: spikes.population_rate(ds, 1),
    "bursts": spikes.bursts,
    "surrogates": lambda ds: spikes.surrogates(ds, "shift", seed=1),
    "curate": spikes.curate,
    "spike_trains": spikes.spike_trains,
    "unit_train": lambda ds: spikes.unit_train(ds, 0),
    "select_units": lambda ds: spikes.select_units(ds, [0]),
    "select_time": lambda ds: spikes.select_time(ds, 0, 5),
    "concatenate_time": lambda ds: spikes.concatenate_time([ds, SPIKES.isel(unit=[0, 1, 2])]),
    "concatenate_units": lambda ds: spikes.concatenate_units([ds, SPIKES]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "units", [[1], [0, 2], np.array([False, True, True]), [2, 1, 0]], ids=str
)
def test_units_whose_spikes_were_left_behind_are_refused_by_every_verb(verb, units):
    VERBS[verb](SPIKES)
    with pytest.raises(labtree.LabtreeError, match="select_units"):
        VERBS[verb](SPIKES.isel(unit=units))
