"""Spike trains from flat arrays, from sessions, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labtree

pairs = st.lists(
    st.tuples(st.integers(0, 100).map(float), st.sampled_from([3, 7, 9])), max_size=20
)


@given(pairs, st.booleans())
def test_from_times_against_a_loop(spikes, named):
    times = [time for time, _ in spikes]
    units = [unit for _, unit in spikes]
    ids = [9, 3, 7, 5] if named else sorted(set(units))
    ds = labtree.spikes.from_times(times, units, unit_ids=ids if named else None, length_ms=100)
    expected = [sorted(t for t, unit in spikes if unit == one) for one in ids]
    assert [train.tolist() for train in labtree.spikes.spike_trains(ds)] == expected
    assert ds.unit_id.values.tolist() == ids
    ds.ws.validate()


def test_from_times_takes_names_and_keeps_the_dtype():
    ds = labtree.spikes.from_times(
        np.array([5, 1, 3], np.int32),
        ["b", "a", "b"],
        start_ms=-10,
        length_ms=20,
        neuron_attributes={"depth": [1.5, 2.5]},
    )
    assert ds.unit_id.values.tolist() == ["a", "b"]
    assert ds.spike_times.dtype == np.int32
    assert ds.spike_times.values.tolist() == [1, 3, 5]
    assert ds.attrs["start_time"] == -10
    assert ds.depth.values.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("times", "units", "options", "words"),
    [
        ([1.0], [1, 2], {}, r"found the shapes \(1,\) and \(2,\)"),
        ([[1.0]], [[1]], {}, r"found the shapes .* write .ravel\(\)"),
        ([1.0, 2.0], [4.0, np.nan], {}, r"units holds NaN; .* keep = ~numpy.isnan\(units\)"),
        ([1.0], [4], {"unit_ids": [3]}, r"unit_ids lacks units that have spikes: \[4\]"),
        ([1.0], [3], {"unit_ids": [3, 3]}, "unit_ids names a unit twice"),
        ([np.nan], [3], {}, "times must be finite"),
        ([5.0], [3], {"length_ms": 1}, "after the end of the recording"),
        (np.ma.masked_equal([1.0, 2.0], 2), [1, 1], {}, "times_ms is masked"),
        ([1.0], [3], {"neuron_attributes": {"unit_id": [1]}}, "must not hold 'unit_id'"),
    ],
)
def test_from_times_says_what_is_wrong(times, units, options, words):
    with pytest.raises(ValueError, match=words):
        labtree.spikes.from_times(times, units, **options)


def test_no_spikes_at_all():
    assert labtree.spikes.from_times([], []).sizes["unit"] == 0
    ds = labtree.spikes.from_times([], [], unit_ids=["a"], length_ms=5)
    assert ds.row_size.values.tolist() == [0]


def session(**metadata):
    tree = labtree.create_session("rec1")
    tree.session.add_units(
        {
            "u1": {"spike_times": np.array([20, 41, 1000]), "row": 3},
            "u2": {"spike_times": np.array([], np.int64), "row": 4},
        }
    )
    if metadata:
        tree.session.add_metadata(metadata)
    return tree


def test_units_of_a_session_become_spike_data_and_come_back():
    tree = session(acquisition_rate=20_000.0, recording_duration_s=0.1)
    ds = labtree.spikes.from_session(tree)
    assert ds.spike_times.values == pytest.approx([1, 2.05, 50])
    assert ds.attrs["length"] == 100
    assert ds.row.values.tolist() == [3, 4]
    back = labtree.spikes.to_session_units(ds, 20_000)
    other = labtree.create_session("rec2")
    other.session.add_units(back)
    first, second = (one["units"].to_dataset() for one in (tree, other))
    for name in ("spike_times", "row_size", "row", "unit"):
        assert np.array_equal(first[name], second[name])


@given(
    st.lists(st.integers(0, 10**9), max_size=20).map(sorted),
    st.sampled_from([1.0, 10.0, 20_000.0, 30_000.3]),
)
def test_samples_survive_the_way_to_ms_and_back(samples, rate):
    tree = labtree.create_session("rec1")
    tree.session.add_units({"u": {"spike_times": np.array(samples, np.int64)}})
    ds = labtree.spikes.from_session(tree, rate_hz=rate)
    back = labtree.spikes.to_session_units(ds, rate)
    assert back["u"]["spike_times"].tolist() == samples


def test_what_a_session_lacks_is_said():
    with pytest.raises(ValueError, match="the session has no units"):
        labtree.spikes.from_session(labtree.create_session("x"))
    with pytest.raises(ValueError, match="no acquisition_rate"):
        labtree.spikes.from_session(session())
    assert labtree.spikes.from_session(session(), rate_hz=1000, length_ms=2000).length == 2000
    with pytest.raises(ValueError, match=r"there is a spike at -5.0 ms"):
        labtree.spikes.to_session_units(labtree.spike_data([[-5.0]], start_time=-5), 1000)
    twins = labtree.spike_data([[1.0], [2.0]], neuron_attributes={"unit_id": ["a", "a"]})
    with pytest.raises(ValueError, match="have the unit_id"):
        labtree.spikes.to_session_units(twins, 1000)
    with pytest.raises(ValueError, match="rate_hz must be a number of Hz above 0"):
        labtree.spikes.to_session_units(labtree.spike_data([[1.0]]), 0)


def test_results_can_be_stored_and_come_back():
    ds = labtree.spikes.from_times([1.0, 2.0, 50.0, 60.0], [1, 1, 2, 2], length_ms=100)
    verbs = labtree.spikes
    results = {
        "counts": verbs.spike_counts(ds),
        "rates": verbs.firing_rates(ds),
        "isi": verbs.isi_statistics(ds),
        "binned": verbs.binned_counts(ds, 10),
        "smoothed": verbs.smoothed_rates(ds, 10, 20),
        "sttc": verbs.sttc(ds),
        "ccg": verbs.correlograms(ds, 1, 5),
        "around": verbs.peri_event(ds, [50], 10, 10),
        "tensor": verbs.peri_event_counts(ds, [50], 10, 10, 5),
        "psth": verbs.psth(ds, [40, 50], 10, 10, 5),
        "latencies": verbs.latencies(ds, [50], 10),
        "population": verbs.population_rate(ds, 10, 10),
        "surrogate": verbs.surrogates(ds, "shift", seed=0),
    }
    tree = labtree.create_workspace()
    for name, result in results.items():
        tree.ws.store("rec", name, result)
        assert tree.ws["rec", name].identical(result), name
