"""Spikes around events against a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree

times = st.floats(0, 10, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 10_000), max_size=8), min_size=1, max_size=4),
    st.lists(times, min_size=1, max_size=5),
    st.floats(0, 2),
    st.floats(0.01, 2),
)
def test_against_a_loop(trains, events, pre, post):
    ds = labtree.spike_data(trains, length=10_000)
    stack = labtree.peri_event_spikes(ds, events, pre, post)
    place = 0
    flat = stack["spike_times"].values
    for row, event in enumerate(events):
        low, high = event * 1000 - pre * 1000, event * 1000 + post * 1000
        for unit, train in enumerate(trains):
            expected = [t - event * 1000 for t in sorted(train) if low <= t < high]
            count = stack["row_size"].values[row, unit]
            assert count == len(expected)
            np.testing.assert_allclose(flat[place : place + count], expected, atol=1e-9)
            place += count
    assert place == flat.size
    assert stack.attrs["start_time"] == -pre * 1000
    stack.ws.validate()


def test_events_at_nan_are_left_out_and_units_keep_their_attributes():
    ds = labtree.spike_data([[100.0]], length=1000, neuron_attributes=[{"depth": 7}])
    stack = labtree.peri_event_spikes(ds, [np.nan, 0.1, np.inf], 0.1, 0.1)
    assert stack["event"].values.tolist() == [1]
    assert stack["depth"].values.tolist() == [7]
    assert stack["slice_start"].values.tolist() == [0]


@pytest.mark.parametrize(
    ("events", "pre", "post", "words"),
    [
        ([np.nan], 1, 1, "none of 1 event times is a finite number"),
        ([], 1, 1, "none of 0 event times"),
        ([1.0], 0, 0, "the window from -0 s to 0 s around an event is empty"),
        ([1.0], 1, -1, "is empty"),
    ],
)
def test_errors_say_what_is_wrong(events, pre, post, words):
    ds = labtree.spike_data([[100.0]], length=1000)
    with pytest.raises(ValueError, match=words):
        labtree.peri_event_spikes(ds, events, pre, post)


def test_units_of_a_session_around_events():
    session = labtree.create_session("s")
    session.session.add_units(
        {"u1": {"spike_times": np.array([2000, 4200])}, "u2": {"spike_times": np.array([4000])}}
    )
    with pytest.raises(labtree.SessionError, match="acquisition_rate"):
        session.session.peri_event("units", [0.2], 0.1, 0.1)
    session.session.add_metadata({"acquisition_rate": 20_000.0})
    stack = session.session.peri_event("units", [0.2], 0.05, 0.05)
    assert stack["row_size"].values.tolist() == [[1, 1]]
    np.testing.assert_allclose(stack["spike_times"].values, [10, 0], atol=1e-9)
    assert stack["unit_id"].values.tolist() == ["u1", "u2"]
