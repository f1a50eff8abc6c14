"""Spikes around events against a loop over events, units and spikes."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree.msw import trials_to_frame
from labtree.recording import drop_log
from labtree.spikes.trains import first_after
from labtree.testing.msw import make_trials
from support.examples import examples

# Times on a grid of tenths, so that windows and bins often end on a spike.
tenths = st.integers(-100, 1100).map(lambda n: n / 10)
trains_strategy = st.lists(
    st.lists(st.integers(0, 1000).map(lambda n: n / 10), max_size=8).map(sorted),
    min_size=1,
    max_size=4,
)


def spikes(trains, length=100.0, **more):
    return labtree.spike_data(trains, length=length, **more)


def windows_inside(events, pre, post, length=100.0):
    """Give the positions of events whose window does not leave the recording."""
    near = 1e-7
    return [
        at
        for at, event in enumerate(events)
        if math.isfinite(event) and event - pre >= -near and event + post <= length + near
    ]


@pytest.mark.filterwarnings("ignore:.*Are these seconds")
@settings(max_examples=examples(80), deadline=None)
@given(
    trains_strategy,
    st.lists(tenths | st.just(math.nan), min_size=1, max_size=6),
    st.integers(0, 200).map(lambda n: n / 10),
    st.integers(1, 200).map(lambda n: n / 10),
)
def test_peri_event_against_a_loop(trains, events, pre, post):
    kept = windows_inside(events, pre, post)
    if not kept:
        with pytest.raises(ValueError, match=r"no event has|is a finite time"):
            labtree.spikes.peri_event(spikes(trains), events, pre, post)
        return
    stack = labtree.spikes.peri_event(spikes(trains), events, pre, post)
    assert stack.event.values.tolist() == kept
    found = [
        [train.tolist() for train in labtree.spikes.spike_trains(one)]
        for one in labtree.spikes.slices_of(stack)
    ]
    assert found == [
        [[t - events[at] for t in train if -pre <= t - events[at] < post] for train in trains]
        for at in kept
    ]
    assert stack.attrs["start_time"] == -pre
    stack.ws.validate()


@pytest.mark.filterwarnings("ignore:.*Are these seconds")
@settings(max_examples=examples(80), deadline=None)
@given(
    trains_strategy,
    st.lists(tenths, min_size=1, max_size=6),
    st.integers(0, 200).map(lambda n: n / 10),
    st.integers(1, 200).map(lambda n: n / 10),
    st.sampled_from([0.1, 0.3, 1.0, 2.5]),
)
def test_counts_mean_and_error_against_a_loop(trains, events, pre, post, width):
    kept = windows_inside(events, pre, post)
    n_bins = math.floor((pre + post) / width + 1e-9)
    if not kept or not n_bins:
        return
    ds = spikes(trains)
    counts = labtree.spikes.peri_event_counts(ds, events, pre, post, width)
    edges = [-pre + k * width for k in range(n_bins + 1)]
    expected = np.array(
        [
            [
                [
                    sum(edges[k] <= t - events[at] < min(edges[k + 1], post) for t in train)
                    for k in range(n_bins)
                ]
                for train in trains
            ]
            for at in kept
        ]
    )
    assert counts.dims == ("event", "unit", "time")
    assert counts.dtype.kind == "i"
    assert np.array_equal(counts.values, expected)
    assert counts.event.values.tolist() == kept
    assert counts.event_time.values.tolist() == [events[at] for at in kept]
    centers = [(low + high) / 2 for low, high in pairwise(edges)]
    assert counts.time.values == pytest.approx(centers)
    result = labtree.spikes.psth(ds, events, pre, post, width)
    hertz = expected / (width / 1000)
    np.testing.assert_allclose(result.rate, hertz.mean(axis=0))
    if len(kept) > 1:
        error = hertz.std(axis=0, ddof=1) / math.sqrt(len(kept))
        np.testing.assert_allclose(result.sem, error, atol=1e-9)
    else:
        assert np.isnan(result.sem).all()
    assert (result.n_events == len(kept)).all()
    assert result.attrs["drop_log"] == counts.attrs["drop_log"]


@pytest.mark.filterwarnings("ignore:.*Are these seconds")
@settings(max_examples=examples(80), deadline=None)
@given(
    trains_strategy,
    st.lists(tenths | st.just(math.nan), min_size=1, max_size=6),
    st.integers(0, 300).map(lambda n: n / 10),
)
def test_latencies_against_a_loop(trains, events, within):
    inside = [event for event in events if 0 <= event <= 100]
    if not inside:
        with pytest.raises(ValueError, match=r"no event has|is a finite time"):
            labtree.spikes.latencies(spikes(trains), events, within)
        return
    found = labtree.spikes.latencies(spikes(trains), events, within)
    for row, event in enumerate(events):
        for unit, train in enumerate(trains):
            waits = [t - event for t in train if t - event >= 0]
            first = min(waits, default=math.inf)
            expected = first if first <= within else math.nan
            np.testing.assert_equal(float(found[row, unit]), expected)
    assert found.units == "ms"


@given(
    st.lists(st.integers(-50, 50).map(lambda n: n / 10), max_size=9).map(sorted),
    st.lists(st.integers(-50, 50).map(lambda n: n / 10), min_size=1, max_size=5),
    st.integers(-30, 30).map(lambda n: n / 10),
    st.booleans(),
)
def test_a_search_holds_for_differences_of_rounded_times(times, origins, offset, inclusive):
    found = first_after(np.array(times), np.array(origins), offset, inclusive=inclusive)
    for at, origin in zip(found.tolist(), origins, strict=True):
        reached = [t - origin >= offset if inclusive else t - origin > offset for t in times]
        assert at == reached.index(True) if True in reached else at == len(times)


def test_a_window_that_touches_the_ends_of_the_recording_stays():
    ds = spikes([[0.0, 100.0]])
    counts = labtree.spikes.peri_event_counts(ds, [10, 90], 10, 10, 10)
    assert counts.event.values.tolist() == [0, 1]
    # The far edge is open: the spike at the very end is in no bin.
    assert counts.values.tolist() == [[[1, 0]], [[0, 0]]]


def test_windows_that_leave_the_recording_are_dropped_and_named():
    ds = spikes([np.arange(0, 100.0)])
    events = [5.0, 50.0, 95.0, math.nan, 700.0]
    for result in (
        labtree.spikes.peri_event(ds, events, 10, 10),
        labtree.spikes.peri_event_counts(ds, events, 10, 10, 5),
        labtree.spikes.psth(ds, events, 10, 10, 5),
    ):
        log = drop_log(result)
        assert log["event"].tolist() == [0, 2, 3, 4]
        assert log["reason"].tolist() == [
            "the window leaves the recording",
            "the window leaves the recording",
            "time is not finite",
            "the window leaves the recording",
        ]
        np.testing.assert_equal(log["event_time"].to_numpy(), [5, 95, math.nan, 700])


def test_a_recording_may_start_before_zero():
    ds = labtree.spike_data([[-30.0, -10.0]], start_time=-50, length=100)
    stack = labtree.spikes.peri_event(ds, [-20], 20, 20)
    assert stack.spike_times.values.tolist() == [-10, 10]
    assert stack.slice_start.values.tolist() == [-40]


@pytest.mark.parametrize(
    ("events", "pre", "post", "words"),
    [
        ([math.nan], 1, 1, "none of 1 events_ms is a finite time"),
        ([], 1, 1, "none of 0 events_ms is a finite time"),
        ([1.0], 0, 0, r"the window from -0.0 ms to 0.0 ms around an event is empty"),
        ([1.0], 1, -1, "is empty"),
        ([1.0], math.inf, 1, "pre_ms and post_ms must be finite"),
        ([[1.0]], 1, 1, "must be one-dimensional"),
        (["a"], 1, 1, "must be numbers"),
        ([5000.0], 1, 1, r"from 0 to 1000 ms: they lie from 5000 to 5000 ms. Are the times"),
        ([0.2, 0.9], 10, 10, "Are these seconds\\? Write events_ms=1000 \\* times"),
    ],
)
def test_errors_say_what_is_wrong(events, pre, post, words):
    ds = spikes([[100.0]], 1000)
    with pytest.raises(ValueError, match=words):
        labtree.spikes.peri_event(ds, events, pre, post)


def test_latencies_ask_for_events_in_the_recording():
    ds = spikes([[100.0]], 1000)
    with pytest.raises(ValueError, match="no event has"):
        labtree.spikes.latencies(ds, [5000], 10)
    with pytest.raises(
        ValueError, match="within_ms must be a number of milliseconds from 0 on, found -1"
    ):
        labtree.spikes.latencies(ds, [5], -1)


def test_attributes_of_units_stay():
    ds = spikes([[10.0]], neuron_attributes=[{"depth": 7}])
    assert labtree.spikes.peri_event(ds, [50], 5, 5)["depth"].values.tolist() == [7]
    assert labtree.spikes.psth(ds, [50], 5, 5, 1)["depth"].values.tolist() == [7]
    assert labtree.spikes.latencies(ds, [50], 5)["depth"].values.tolist() == [7]


# ------------------------------------------------------------------- trial tables


def trials():
    return pd.DataFrame(
        {
            "go": [0.010, 0.030, np.nan, 0.099],
            "end": [0.015, 0.060, 0.070, 0.100],
            "choice": ["left", "right", "left", None],
            "reward": pd.array([True, None, False, True], dtype="boolean"),
            "block": pd.array([1, 2, None, 4], dtype="Int64"),
            "kind": pd.Categorical(["a", "b", None, "a"], categories=["b", "a"]),
            "delay": [1.5, np.nan, 2.5, 3.5],
        },
        index=pd.Index([11, 12, 13, 14], name="trial"),
    )


def test_the_columns_of_a_trial_table_become_coordinates():
    ds = spikes([[12.0, 31.0, 33.0], [30.0]])
    counts = labtree.spikes.peri_event_counts(ds, trials(), 5, 10, 5, on="go")
    assert counts.event.values.tolist() == [0, 1]
    assert counts.event_time.values.tolist() == [10, 30]
    assert counts.trial.values.tolist() == [11, 12]
    assert counts.choice.values.tolist() == ["left", "right"]
    assert counts.reward.values.tolist() == [True, False]
    assert counts.reward_missing.values.tolist() == [False, True]
    assert counts.reward.attrs["ancillary_variables"] == "reward_missing"
    assert counts.block.values.dtype == np.int64
    assert counts.kind.values.tolist() == ["a", "b"]
    assert counts.kind.attrs == {
        "categories": ["b", "a"],
        "ordered": False,
        "ancillary_variables": "kind_missing",
    }
    np.testing.assert_equal(counts.delay.values, [1.5, np.nan])
    left = counts.groupby("choice").mean("event").sel(choice="left")
    assert left.values.tolist() == [[0, 1, 0], [0, 0, 0]]
    log = drop_log(counts)
    assert log["event"].tolist() == [13, 14]
    tree = labtree.create_workspace()
    tree.ws.store("m", "counts", counts)
    xr.testing.assert_identical(tree.ws["m", "counts"], counts)


def test_a_table_gives_the_same_as_its_column_in_ms():
    ds = spikes([[12.0, 31.0, 33.0], [30.0]])
    table, plain = trials(), trials()["go"].to_numpy() * 1000
    for verb, arguments in (
        (labtree.spikes.peri_event_counts, (5, 10, 5)),
        (labtree.spikes.latencies, (20,)),
    ):
        of_table = verb(ds, table, *arguments, on="go")
        of_times = verb(ds, plain, *arguments)
        assert np.array_equal(of_table.values, of_times.values, equal_nan=True)
    stack = labtree.spikes.peri_event(ds, table, 5, 10, on="go")
    assert stack.choice.dims == ("slice",)
    assert stack.spike_times.equals(labtree.spikes.peri_event(ds, plain, 5, 10).spike_times)


def test_trials_of_unequal_length_are_padded():
    ds = spikes([np.arange(0, 100.0, 5)])
    table = trials()
    counts = labtree.spikes.peri_event_counts(ds, table, 0, 0, 10, on="go", until="end")
    assert counts.length.values == pytest.approx([5, 30, 1])
    assert counts.dims == ("event", "unit", "time")
    np.testing.assert_equal(counts.values[:, 0], [[np.nan] * 3, [2, 2, 2], [np.nan] * 3])
    stack = labtree.spikes.peri_event(ds, table, 0, 0, on="go", until="end")
    assert [one.attrs["length"] for one in labtree.spikes.slices_of(stack)] == pytest.approx(
        [5, 30, 1]
    )
    assert stack.row_size.values.tolist() == [[1], [6], [0]]
    means = labtree.spikes.psth(ds, table, 0, 0, 10, on="go", until="end")
    assert means.n_events.values.tolist() == [1, 1, 1]
    assert means.rate.values.tolist() == [[200, 200, 200]]
    tree = labtree.create_workspace()
    tree.ws.store("m", "stack", stack)


def test_trials_end_where_a_state_does():
    table = trials_to_frame(make_trials(12))
    length = 1000 * float(table.msw.states(clock="session")["end"].max()) + 5000
    ds = spikes([np.arange(0, length, 7.0)], length)
    stack = labtree.spikes.peri_event(
        ds, table, 0, 0, on="side_ready", until=("side_ready", "end")
    )
    start, end = (
        1000 * table.msw.state_time("side_ready", edge=edge, clock="session").to_numpy()
        for edge in ("start", "end")
    )
    assert stack.length.values == pytest.approx((end - start)[stack.event.values])
    with pytest.raises(ValueError, match="edge must be one of 'start', 'end', found 'stop'"):
        labtree.spikes.peri_event(
            ds, table, 0, 0, on="side_ready", until=("side_ready", "stop")
        )
    with pytest.raises(
        ValueError, match="names a part of a trial table, but events_ms is list"
    ):
        labtree.spikes.peri_event(ds, [1000.0], 0, 0, until=("side_ready", "end"))


def test_an_end_before_the_event_is_dropped():
    table = trials().assign(end=[0.001, 0.06, 0.07, np.nan])
    counts = labtree.spikes.peri_event_counts(
        spikes([[1.0]]), table, 0, 0, 10, on="go", until="end"
    )
    assert drop_log(counts)["event"].tolist() == [11, 13, 14]
    assert "before the event" in drop_log(counts)["reason"][0]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "write on=..., the column of seconds or the state"),
        ({"on": "goo"}, KeyError, "no column or state 'goo'.*'go'.*Did you mean 'go'"),
        ({"on": "choice"}, ValueError, "'choice' must hold times as numbers"),
        ({"on": "go", "edge": "end"}, ValueError, "edge= and clock= are for states"),
        ({"on": "go", "until": "nothing"}, KeyError, "no column or state 'nothing'"),
    ],
)
def test_what_a_table_needs_is_said(options, error, words):
    with pytest.raises(error, match=words):
        labtree.spikes.peri_event(spikes([[1.0]]), trials(), 1, 1, **options)


def test_a_name_that_is_taken_is_an_error():
    ds = spikes([[1.0]], neuron_attributes=[{"choice": 1}])
    with pytest.raises(ValueError, match=r"'choice' cannot become a coordinate.*rename"):
        labtree.spikes.peri_event_counts(ds, trials(), 1, 1, 1, on="go")
    table = trials().rename(columns={"delay": "event_time"})
    with pytest.raises(ValueError, match="'event_time' is taken"):
        labtree.spikes.latencies(spikes([[1.0]]), table, 1, on="go")


def test_options_of_tables_are_refused_for_times():
    with pytest.raises(ValueError, match="on= says what to take of a trial table"):
        labtree.spikes.peri_event(spikes([[1.0]]), [10], 1, 1, on="go")


def test_units_of_a_session_around_events():
    session = labtree.create_session("s")
    session.session.add_units(
        {"u1": {"spike_times": np.array([2000, 4200])}, "u2": {"spike_times": np.array([4000])}}
    )
    with pytest.raises(labtree.DataError, match="acquisition_rate"):
        session.session.peri_event("units", [0.2], 0.1, 0.1)
    session.session.add_metadata({"acquisition_rate": 20_000.0, "recording_duration_s": 1.0})
    stack = session.session.peri_event("units", [0.2], 0.05, 0.05)
    assert stack["row_size"].values.tolist() == [[1, 1]]
    np.testing.assert_allclose(stack["spike_times"].values, [10, 0], atol=1e-9)
    assert stack["unit_id"].values.tolist() == ["u1", "u2"]
    trials = pd.DataFrame({"go": [0.2, 0.1], "end": [0.21, 0.3]})
    for until in ("end", trials["end"].to_numpy()):
        stack = session.session.peri_event(
            "units", trials, pre_s=0.05, post_s=0, on="go", until=until
        )
        np.testing.assert_allclose(stack["length"], [60, 250])  # in ms
        assert stack["row_size"].values.tolist() == [[0, 1], [2, 1]]


def session_of_a_unit():
    session = labtree.create_session("s")
    session.session.add_units({"u1": {"spike_times": np.array([2000, 4200])}})
    session.session.add_metadata({"acquisition_rate": 20_000.0, "recording_duration_s": 1.0})
    return session


def test_times_around_units_of_a_session_are_checked_as_others_are():
    session = session_of_a_unit()
    masked = np.ma.array([0.1, 0.2], mask=[True, False])
    stack = session.session.peri_event("units", masked, 0.05, 0.05)
    assert stack["event_time"].values.tolist() == [200.0]
    assert drop_log(stack)["reason"].tolist() == ["time is not finite"]
    for times in ([True], ["go"]):
        with pytest.raises(labtree.DataError, match="times must be numbers"):
            session.session.peri_event("units", times, 0.05, 0.05)


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_durations_are_taken_in_their_own_unit(unit):
    times = pd.Series(pd.to_timedelta([100, 250], unit="ms"))
    ends = times + pd.Timedelta(5, "ms")
    if unit == "ms":
        ds = spikes([[100.0, 210.0]], length=1000)
        stack = labtree.spikes.peri_event(ds, times, 50, 50, until=ends)
    else:
        stack = session_of_a_unit().session.peri_event("units", times, 0.05, 0.05, until=ends)
    np.testing.assert_allclose(stack["event_time"], [100, 250])
    np.testing.assert_allclose(stack["length"], [105, 105])
    np.testing.assert_allclose(stack["spike_times"], [0, -40], atol=1e-9)


def test_columns_of_arrow_become_coordinates():
    pyarrow = pytest.importorskip("pyarrow")
    when = pd.to_datetime(pd.Series(["2026-05-14 14:30", None]))
    table = pd.DataFrame(
        {
            "go": [10.0, 20.0],
            "when": when.astype("timestamp[ns][pyarrow]"),
            "local": when.dt.tz_localize("Europe/Berlin").astype(
                "timestamp[ns, tz=Europe/Berlin][pyarrow]"
            ),
            "wait": pd.to_timedelta(pd.Series([1.5, None]), unit="s").astype(
                "duration[ns][pyarrow]"
            ),
            "ports": pd.Series(
                [[1, 2], None], dtype=pd.ArrowDtype(pyarrow.list_(pyarrow.int64()))
            ),
        }
    )
    stack = labtree.spikes.peri_event(spikes([[10.0]], length=1e5), table, 5, 5, on="go")
    nat = np.datetime64("NaT", "ns")
    np.testing.assert_array_equal(stack["when"], [np.datetime64("2026-05-14T14:30"), nat])
    np.testing.assert_array_equal(stack["local"], [np.datetime64("2026-05-14T12:30"), nat])
    assert stack["local"].attrs["time_zone"] == "Europe/Berlin"
    wait = np.array([1_500_000_000, "NaT"], "m8[ns]")
    np.testing.assert_array_equal(stack["wait"], wait)
    assert stack["ports_missing"].values.tolist() == [False, True]


def test_arrays_in_cells_stay_in_their_cells():
    cells = [np.array([80, 20]), np.array([20, 80]), None]
    for part in (cells[:2], cells):
        table = pd.DataFrame({"go": [10.0, 20.0, 30.0][: len(part)], "values": part})
        stack = labtree.spikes.peri_event(spikes([[10.0]], length=1e5), table, 5, 5, on="go")
        assert stack["values"].dims == ("slice",)
        found = stack["values"].values.tolist()
        assert all(np.array_equal(*pair) for pair in zip(found, part, strict=True))


def test_each_level_of_an_index_is_a_coordinate():
    table = trials()[["go"]].rename_axis(None)
    both = pd.concat([table, table], keys=["a", "b"])
    stack = labtree.spikes.peri_event(spikes([[1.0]]), both, 1, 1, on="go")
    kept = stack["event"].values
    assert stack["level_0"].values.tolist() == [both.index[at][0] for at in kept]
    assert stack["level_1"].values.tolist() == [both.index[at][1] for at in kept]
    named = table.rename_axis("event")
    with pytest.raises(
        ValueError, match=r"write table\.rename_axis\(index=\{'event': \.\.\.\}"
    ):
        labtree.spikes.peri_event(spikes([[1.0]]), named, 1, 1, on="go")


def test_a_state_of_a_trial_table_says_when():
    table = trials_to_frame(make_trials(12))
    length = 1000 * float(table.msw.states(clock="session")["end"].max()) + 5000
    ds = spikes([np.arange(0, length, 7.0)], length)
    for options, state, edge, clock in (
        ({}, "side_ready", "start", "session"),
        ({"edge": "end"}, "side_ready", "end", "session"),
        ({"clock": "trial"}, "side_ready", "start", "trial"),
    ):
        counts = labtree.spikes.peri_event_counts(
            ds, table, 0, 100, 50, on="side_ready", **options
        )
        seconds = table.msw.state_time(state, edge=edge, clock=clock).to_numpy()
        kept = np.flatnonzero(np.isfinite(seconds))
        assert counts.event.values.tolist() == kept.tolist()
        assert counts.event_time.values == pytest.approx(1000 * seconds[kept])
    until = labtree.spikes.peri_event_counts(
        ds,
        table,
        0,
        0,
        50,
        on="side_ready",
        until=(
            table.msw.state_time("side_ready", edge="end", clock="session").to_numpy() * 1000
        ),
    )
    assert (until.length > 0).all()
    with pytest.raises(KeyError, match=r"no column or state 'side_redy'.*'side_ready'"):
        labtree.spikes.latencies(ds, table, 100, on="side_redy")


def test_a_column_of_ms_is_told_from_one_of_seconds():
    table = pd.DataFrame({"onset": [100.0, 500.0]})
    ds = labtree.spike_data([[100.0, 500.0]], length=600)
    for verb in (
        lambda table: labtree.spikes.peri_event(ds, table, 10, 20, on="onset"),
        lambda table: labtree.spikes.latencies(ds, table, 20, on="onset"),
    ):
        with pytest.raises(labtree.DataError, match="'onset' is taken as seconds") as error:
            verb(table)
        line = str(error.value).partition("write ")[2]
        assert verb(eval(line)).event_time.values.tolist() == [100, 500]


def test_mean_waveforms_stay_with_the_spike_trains():
    ds = labtree.spike_data([[100.0, 500.0], []], length=600)
    ds = ds.assign_coords(shape=(("unit", "sample"), np.zeros((2, 5))), depth=("unit", [1, 2]))
    for found in (
        labtree.spikes.peri_event_counts(ds, [100], 10, 20, 10),
        labtree.spikes.latencies(ds, [100], 20),
        labtree.spikes.binned_counts(ds, 10),
        labtree.spikes.psth(ds, [100], 10, 20, 10).rate,
        labtree.spikes.correlograms(ds),
    ):
        assert "shape" not in found.coords
        assert [name for name in found.coords if name.startswith("depth")]
    for found in (
        labtree.spikes.peri_event(ds, [100], 10, 20),
        labtree.spikes.isi_statistics(ds),
        labtree.spikes.smoothed_rates(ds, 10, 10),
    ):
        assert found["shape"].dims == ("unit", "sample")
    labtree.spikes.sttc(ds), labtree.spikes.firing_rates(ds), labtree.spikes.bursts(ds)
    kept, _ = labtree.spikes.curate(ds)
    assert kept.sizes["unit"] == 2


def test_times_that_look_like_seconds_are_asked_about():
    units, trials = labtree.testing.synthetic_responses()
    with pytest.warns(
        labtree.LabtreeWarning, match=r"seconds\? Write events_ms=1000"
    ) as caught:
        labtree.spikes.peri_event(units, trials["go"], 20, 50)
    assert caught[0].filename == __file__
    labtree.spikes.peri_event(units, 1000 * trials["go"], 20, 50)
    labtree.spikes.peri_event(units, trials, 20, 50, on="go")


def test_windows_that_look_like_seconds_are_asked_about():
    units, trials = labtree.testing.synthetic_responses()
    spikes, on = labtree.spikes, {"on": "go"}
    for verb, arguments, line in (
        (spikes.peri_event, (0.2, 0.5), "pre_ms=200, post_ms=500"),
        (spikes.peri_event_counts, (0.2, 0.5, 0.01), "pre_ms=200, post_ms=500, bin_ms=10"),
        (spikes.psth, (0.2, 0.5, 0.01), "pre_ms=200, post_ms=500, bin_ms=10"),
        (spikes.psth, (0.5, 2, 0.02), "pre_ms=500, post_ms=2000, bin_ms=20"),
        (spikes.latencies, (0.05,), "within_ms=50"),
    ):
        with pytest.warns(labtree.LabtreeWarning, match=f"seconds. Write {line}") as caught:
            verb(units, trials, *arguments, **on)
        assert caught[0].filename == __file__
        # The line that the warning says is one that gives no warning.
        verb(units, trials, **eval(f"dict({line})"), **on)


def test_short_windows_in_whole_ms_are_taken_as_they_are():
    units, trials = labtree.testing.synthetic_responses()
    labtree.spikes.psth(units, trials, 1, 1, 1, on="go")
    labtree.spikes.psth(units, trials, 2, 2, 0.5, on="go")
    labtree.spikes.latencies(units, trials, 1.5, on="go")


def test_a_unit_that_is_not_there_is_not_drawn():
    pytest.importorskip("matplotlib")
    units, trials = labtree.testing.synthetic_responses()
    around = labtree.spikes.peri_event(units, trials, 20, 50, on="go")
    with pytest.raises(labtree.DataError, match="there is no unit 30: the Dataset holds 6"):
        around.ws.plot(unit=30)
    with pytest.raises(labtree.DataError, match=r"trains is a dict: write spike_data\(list\("):
        labtree.spike_data({"a": [1.0], "b": [2.0]})
