"""Windows with other streams, with targets, after labels and around events."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import SessionError
from labtree.errors import RecordingWarning, UnknownNameError
from labtree.recording import drop_log
from labtree.recording.session import labels_to_dataset, stream_dataset
from labtree.recording.targets import PHASES
from support.examples import examples


def make_tree(streams, labels=(), class_names=None):
    """A session in memory, of streams {name: (data, times, fs, channel_names)}."""
    attributes = {"session_path": "memory"}
    if class_names:
        attributes["class_names"] = class_names
    tree = xr.DataTree(xr.Dataset(attrs=attributes))
    tree.children = {
        "streams": xr.DataTree(
            children={
                name: xr.DataTree(
                    stream_dataset(
                        np.asarray(data), np.asarray(times, float), fs=fs, channel_names=names
                    )
                )
                for name, (data, times, fs, names) in streams.items()
            }
        ),
        "labels": xr.DataTree(labels_to_dataset(list(labels), class_names)),
    }
    return tree


def ramp(n, channels=2, dtype="float32"):
    return (np.arange(n)[:, None] * 3 + np.arange(channels)).astype(dtype)


# --- aligned --------------------------------------------------------------------------


def brute_force(data, times, fs, others, window_ms, hop_ms, count):
    """MyoGestic's aligned windows: one argmin per window and stream."""
    win, hop = int(window_ms * fs / 1000), max(1, int(hop_ms * fs / 1000))
    windows, means = [], [[] for _ in others]
    for start in range(0, len(times) - win + 1, hop):
        middle = times[start + win // 2]
        windows.append(data[start : start + win].T)
        for part, (other, other_times) in zip(means, others, strict=True):
            at = int(np.argmin(np.abs(other_times - middle)))
            low, high = max(0, at - count // 2), min(len(other), at + count - count // 2)
            part.append(other[low:high].astype(np.float32).mean(axis=0))
    return windows, means


@settings(max_examples=examples(60), deadline=None)
@given(
    fs=st.sampled_from([100.0, 128.0, 1000.0]),
    n=st.integers(60, 300),
    slow=st.sampled_from([10.0, 31.0, 50.0]),
    window_ms=st.integers(30, 300),
    hop_ms=st.integers(5, 200),
    count=st.integers(1, 6),
    shift=st.floats(-0.3, 0.3),
)
def test_aligned_windows_of_clean_data_are_the_peer_s(
    fs, n, slow, window_ms, hop_ms, count, shift
):
    data, times = ramp(n), 5 + np.arange(n) / fs
    m = int(n / fs * slow) + 2
    other_times = 5 + (np.arange(m) + shift) / slow
    other = np.random.default_rng(m).standard_normal((m, 3)).astype("float32")
    tree = make_tree({"emg": (data, times, fs, None), "kin": (other, other_times, slow, None)})
    found = tree.session.aligned_windows("emg", "kin", window_ms, hop_ms, count)
    windows, (means,) = brute_force(
        data, times, fs, [(other, other_times)], window_ms, hop_ms, count
    )
    assert found.sizes["window"] == len(windows)
    if windows:
        np.testing.assert_array_equal(found["emg"].values, np.stack(windows))
        assert found["kin"].dtype == np.float32
        np.testing.assert_allclose(found["kin"].values, np.stack(means), rtol=1e-5, atol=1e-6)
        if count == 1:
            np.testing.assert_array_equal(found["kin"].values, np.stack(means))


@pytest.fixture
def two():
    kin, force = ramp(50, 3), ramp(100, 1, "int32")
    return make_tree(
        {
            "emg": (ramp(1000), np.arange(1000) / 100, 100.0, None),
            "kin": (kin, np.arange(50) / 5, 5.0, ["x", "y", "z"]),
            "force": (force, np.arange(100) / 10, 10.0, None),
        }
    )


def test_several_streams_and_their_coordinates(two):
    found = two.session.aligned_windows("emg", ["kin", "force"], 200, 100)
    assert set(found.data_vars) == {"emg", "kin", "force"}
    assert found["emg"].dims == ("window", "channel", "time")
    assert found["kin_channel"].values.tolist() == ["x", "y", "z"]
    assert found["force"].dtype == np.float64  # float32 would lose an int32
    np.testing.assert_allclose(found["midpoint"] - found["start_time"], 0.1)
    assert found.sel(kin_channel="y")["kin"].sizes == {"window": found.sizes["window"]}
    assert found.sizes["window"] == 99
    assert drop_log(found).empty


def test_the_primary_stream_stays_lazy(peer, monkeypatch):
    from labtree.recording.chunks import ArrayReader

    session = peer().stream("emg", ramp(1000), np.arange(1000) / 100, 100)
    session.stream("kin", ramp(50), np.arange(50) / 5, 5)
    path = session.zip()
    reads = set()
    real = ArrayReader._decode
    monkeypatch.setattr(
        ArrayReader, "_decode", lambda s, i, out: (reads.add(s.name), real(s, i, out))[1]
    )
    found = labtree.aligned_windows([path, path], "emg", "kin", 200, 100)
    assert reads == {"emg_timestamps.zarr", "kin.zarr", "kin_timestamps.zarr"}
    assert found["emg"].shape == (198, 2, 20)
    assert "emg.zarr" not in reads
    one = next(labtree.iter_aligned_windows(path, "emg", "kin", 200, 100))
    assert one["emg"].dims == ("channel", "time")
    assert one["kin"].dims == ("kin_channel",)
    assert len(list(labtree.iter_aligned_windows(path, "emg", "kin", 200, 100))) == 99
    found.close()
    with pytest.raises(SessionError, match="is closed"):
        found["emg"].load()


def test_a_stream_that_ends_early_is_not_held_for_ever(two):
    two["streams/kin"] = xr.DataTree(two["streams/kin"].to_dataset().isel(time=slice(0, 6)))
    found = two.session.aligned_windows("emg", "kin", 200, 100)
    assert found["midpoint"].max() <= 1.0 + 1.5 / 5
    log = drop_log(found)
    assert set(log["reason"]) == {"no unbroken 'kin' at its midpoint"}
    assert len(log) + found.sizes["window"] == 99
    wide = two.session.aligned_windows("emg", "kin", 200, 100, tolerance_s=100)
    assert wide.sizes["window"] == 99


def test_gaps_of_either_stream(two):
    emg, kin = two["streams/emg"].to_dataset(), two["streams/kin"].to_dataset()
    keep = np.r_[0:500, 700:1000]
    two["streams/emg"] = xr.DataTree(emg.isel(time=keep))
    found = two.session.aligned_windows("emg", "kin", 200, 100)
    assert set(drop_log(found)["reason"]) == {"gap"}
    two["streams/emg"] = xr.DataTree(emg)
    two["streams/kin"] = xr.DataTree(kin.isel(time=np.r_[0:20, 30:50]))
    found = two.session.aligned_windows("emg", "kin", 200, 100, 3)
    middle = found["midpoint"].values
    # Samples 3.8 and 6.0 are the edges; a mean over three would reach over the gap there.
    assert not ((middle > 3.7) & (middle < 6.1)).any()
    two["streams/emg"] = xr.DataTree(emg.isel(time=keep))
    with pytest.raises(SessionError, match="hold a gap"):
        two.session.aligned_windows("emg", "kin", 200, 100, on_gap="raise")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["emg"], "windows have a coordinate or a stream"),
        (["kin", "kin"], "windows have a coordinate or a stream"),
        ([], "at least one stream"),
        (["time"], "windows have a coordinate or a stream"),
    ],
)
def test_names_that_cannot_be_aligned(two, names, message):
    with pytest.raises(SessionError, match=message):
        two.session.aligned_windows("emg", names, 200, 100)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_bad_counts(two, count):
    with pytest.raises(
        SessionError, match="n_alignment_samples must be a whole number from 1 on"
    ):
        two.session.aligned_windows("emg", "kin", 200, 100, count)


def test_streams_without_a_rate_need_a_tolerance(two):
    two["streams/kin"] = xr.DataTree(two["streams/kin"].to_dataset().assign_attrs(fs=0.0))
    with pytest.raises(SessionError, match="aligned with tolerance_s"):
        two.session.aligned_windows("emg", "kin", 200, 100)
    assert (
        two.session.aligned_windows("emg", "kin", 200, 100, tolerance_s=0.11).sizes["window"]
        == 99
    )
    assert (
        two.session.aligned_windows("emg", "kin", 200, 100, tolerance_s=0.01).sizes["window"]
        == 49
    )
    with pytest.raises(UnknownNameError):
        two.session.aligned_windows("emg", "nothing", 200, 100)


def test_an_empty_other_stream(two):
    two["streams/kin"] = xr.DataTree(two["streams/kin"].to_dataset().isel(time=slice(0, 0)))
    with pytest.warns(RecordingWarning, match="all of 99 windows are left out"):
        found = two.session.aligned_windows("emg", "kin", 200, 100)
    assert found.sizes["window"] == 0
    assert len(drop_log(found)) == 99


# --- targets --------------------------------------------------------------------------


def target_tree(values, phases, times, fs=10.0, names=("target_pct", "phase"), emg=1000):
    data = np.column_stack([values, phases]).astype("float32")
    return make_tree(
        {
            "emg": (ramp(emg), np.arange(emg) / 100, 100.0, None),
            "target": (data, times, fs, None if names is None else list(names)),
        }
    )


def brute_target(values, phases, times, fs, moment):
    """(target, phase) at a moment, or None: the rules of target windows, one by one."""
    if not times[0] <= moment <= times[-1]:
        return None
    held = int(np.flatnonzero(times <= moment)[-1])
    if moment == times[held]:
        value = values[held]
    else:
        if times[held + 1] - moment > 3 / fs:
            return None
        value = values[held]
        if phases[held] == phases[held + 1]:
            value = np.interp(moment, times[held : held + 2], values[held : held + 2])
    return None if phases[held] in (5, 6) else (value, phases[held])


@pytest.mark.filterwarnings("ignore::labtree.RecordingWarning")
@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 6)), min_size=2, max_size=60),
    st.floats(-2, 3),
    st.integers(0, 50),
)
def test_targets_by_brute_force(points, start, hole):
    values, phases = np.array(points, float).T
    times = start + np.arange(len(values)) / 10
    times[hole:] += 0.9
    tree = target_tree(values, phases, times, emg=500)
    # A rate from so few samples says nothing, and the hole may be the half of them.
    windows = tree.session.target_windows("emg", "target", 200, 70)
    expected = {}
    for first in range(0, 500 - 19, 7):
        end = (np.arange(500) / 100)[first + 19]
        found = brute_target(values, phases, times, 10.0, end)
        if found is not None:
            expected[first / 100] = found
    np.testing.assert_allclose(windows["start_time"], list(expected))
    np.testing.assert_allclose(
        windows["target_pct"], [v for v, _ in expected.values()], atol=1e-5
    )
    np.testing.assert_array_equal(windows["phase"], [p for _, p in expected.values()])
    assert len(drop_log(windows)) + len(windows) == len(range(0, 500 - 19, 7))


def test_target_windows_and_why_they_go():
    phases = np.repeat([0, 1, 2, 5, 6], 20)
    values = np.interp(np.arange(100), [0, 20, 40, 60], [0, 0, 50, 50])
    tree = target_tree(values, phases, np.arange(100) / 10)
    windows = tree.session.target_windows("emg", "target", 200, 100)
    assert set(windows["phase_name"].values) == {"rest", "ramp_up", "hold"}
    assert set(drop_log(windows)["reason"]) == {
        "phase done",
        "phase idle",
        "outside the target stream",
    }
    assert len(tree.session.target_windows("emg", "target", 200, 100, PHASES)) == 98
    assert windows.dims == ("window", "channel", "time")
    ends = windows["start_time"] + 0.19
    ramp_up = windows["phase_name"] == "ramp_up"
    np.testing.assert_allclose(
        windows["target_pct"][ramp_up][:-1], (ends[ramp_up][:-1] - 2) * 25, atol=1e-4
    )
    with pytest.raises(SessionError, match=r"no phase 'sleep'; there are: 'rest', 'ramp_up'"):
        tree.session.target_windows("emg", "target", 200, 100, ["sleep"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.isel(time=slice(0, 0)), "has no samples"),
        (lambda ds: ds.isel(channel=[0]), "has 1 channel"),
        (lambda ds: ds.assign_coords(channel=["a", "b"]), r"has channels \['a', 'b'\]"),
        (lambda ds: ds.assign_attrs(fs=0.0), "has no sampling rate"),
    ],
)
def test_what_is_no_target(change, message):
    tree = target_tree(np.zeros(100), np.zeros(100), np.arange(100) / 10)
    tree["streams/target"] = xr.DataTree(change(tree["streams/target"].to_dataset()))
    with pytest.raises(SessionError, match=message):
        tree.session.target_windows("emg", "target", 200, 100)
    with pytest.raises(UnknownNameError):
        tree.session.target_windows("emg", "none", 200, 100)


def test_iterating_target_windows():
    tree = target_tree(np.arange(100), np.zeros(100), np.arange(100) / 10, names=None)
    with pytest.warns(RecordingWarning, match="1 x outside the target stream"):
        found = list(labtree.iter_target_windows(tree, "emg", "target", 200, 100))
    assert len(found) == 98
    assert found[0]["target_pct"].item() == pytest.approx(1.9, abs=1e-5)


# --- trials ---------------------------------------------------------------------------


@pytest.fixture
def session():
    return make_tree(
        {"emg": (ramp(1000, dtype="int16"), np.arange(1000) / 100, 100.0, None)},
        [(1.0, 1), (3.0, -1), (4.0, 0), (6.0, 7), (9.5, 1), (20.0, 1)],
        ["rest", "fist"],
    )


def spans(trials):
    return [
        (t["time"].values[0], t["time"].values[-1]) if t.sizes["time"] else None for t in trials
    ]


def test_trials_until_the_next_label(session):
    trials = session.session.trials("emg")
    assert spans(trials) == [(1.0, 2.99), (4.0, 5.99), (6.0, 9.49), (9.5, 9.98), None]
    assert [t["class_name"].item() for t in trials] == ["fist", "rest", "7", "fist", "fist"]
    assert [t["class_index"].item() for t in trials] == [1, 0, 7, 1, 1]
    assert [t["label_time"].item() for t in trials] == [1.0, 4.0, 6.0, 9.5, 20.0]
    assert trials[0].dtype == np.int16
    assert trials[0].dims == ("time", "channel")
    np.testing.assert_array_equal(trials[0].values, ramp(1000, dtype="int16")[100:300])


def test_trials_of_a_fixed_length_each(session):
    trials = session.session.trials("emg", pre_s=0.5, post_s=1.0)
    assert spans(trials) == [(0.5, 1.99), (3.5, 4.99), (5.5, 6.99), (9.0, 9.99), None]


def test_trials_with_a_start_before_the_stream(session):
    (first, *_) = session.session.trials("emg", pre_s=5)
    assert spans([first]) == [(0.0, 2.99)]


def test_trials_tell_their_gaps(session):
    dataset = session["streams/emg"].to_dataset()
    session["streams/emg"] = xr.DataTree(dataset.isel(time=np.r_[0:150, 160:1000]))
    trials = session.session.trials("emg")
    assert [t.attrs["gaps"] for t in trials] == [1, 0, 0, 0, 0]


def test_trials_of_a_stream_by_itself(session):
    dataset = session.session.streams["emg"]
    alone = dataset.session.trials(session.session.labels, class_names=["rest", "fist"])
    for one, other in zip(alone, session.session.trials("emg"), strict=True):
        xr.testing.assert_identical(one, other)


@pytest.mark.parametrize("seconds", [-1, np.nan, np.inf])
def test_bad_seconds(session, seconds):
    with pytest.raises(SessionError, match="pre_s must be a number of seconds from 0 on"):
        session.session.trials("emg", pre_s=seconds)
    with pytest.raises(SessionError, match="post_s must be a number of seconds"):
        session.session.peri_event("emg", [1.0], 0, seconds)


# --- around events --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::labtree.RecordingWarning")
@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.floats(-2, 12), min_size=1, max_size=10),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_peri_event_by_brute_force(moments, before, after):
    tree = make_tree({"emg": (ramp(1000), np.arange(1000) / 100, 100.0, None)})
    times = np.arange(1000) / 100
    if before + after == 0:
        with pytest.raises(SessionError, match="hold no sample"):
            tree.session.peri_event("emg", moments, 0, 0)
        return
    found = tree.session.peri_event("emg", moments, before / 100, after / 100)
    expected = {}
    for position, moment in enumerate(moments):
        at = int(np.argmin(np.abs(times - moment)))
        if -0.01 <= moment <= 10.0 and at - before >= 0 and at + after <= 1000:
            expected[position] = ramp(1000)[at - before : at + after].T
    assert found["event"].values.tolist() == list(expected)
    if expected:
        np.testing.assert_array_equal(found.values, np.stack(list(expected.values())))
    np.testing.assert_allclose(found["time"], np.arange(-before, after) / 100)
    assert len(drop_log(found)) == len(moments) - len(expected)
    assert found.dims == ("event", "channel", "time")


def test_peri_event_takes_what_holds_times(session):
    import pandas as pd

    for times in (
        [5.0, 6.0],
        np.array([5.0, 6.0]),
        pd.Series([5.0, 6.0]),
        xr.DataArray([5.0, 6.0]),
        5.0,
    ):
        found = session.session.peri_event("emg", times, 0.1, 0.1)
        assert found["event_time"].values[0] == 5.0
    alone = session.session.streams["emg"].session.peri_event([5.0], 0.1, 0.1)
    np.testing.assert_array_equal(alone.values, found.values)
    assert len(list(labtree.batches(found, 1))) == 1


def test_peri_event_in_and_across_a_gap(session):
    dataset = session["streams/emg"].to_dataset()
    session["streams/emg"] = xr.DataTree(dataset.isel(time=np.r_[0:500, 600:1000]))
    found = session.session.peri_event("emg", [2.0, 4.95, 5.5, 6.02, 8.0, np.nan], 0.1, 0.1)
    assert found["event"].values.tolist() == [0, 4]
    log = drop_log(found)
    assert sorted(log["reason"]) == [
        "gap",
        "gap",
        "no sample at this time",
        "time is not finite",
    ]
    found = session.session.peri_event("emg", [5.5, 6.0], 0.0, 0.1)
    assert found["event"].values.tolist() == [1]
    with pytest.raises(SessionError, match="hold a gap"):
        session.session.peri_event("emg", [4.95, 8.0, 8.0], 0.1, 0.1, on_gap="raise")
    with pytest.warns(RecordingWarning, match="hold a gap"):
        session.session.peri_event("emg", [4.95, 8.0, 8.0], 0.1, 0.1, on_gap="warn")
    assert (
        session.session.peri_event("emg", [5.5], 0.1, 0.1, gap_s=2.0, on_mismatch="drop").sizes[
            "event"
        ]
        == 1
    )


def test_peri_event_needs_a_rate_and_samples(session):
    session["streams/emg"] = xr.DataTree(
        session["streams/emg"].to_dataset().assign_attrs(fs=0.0)
    )
    with pytest.raises(SessionError, match="without a sampling rate"):
        session.session.peri_event("emg", [5.0], 0.1, 0.1)
    session["streams/emg"] = xr.DataTree(
        session["streams/emg"].to_dataset().assign_attrs(fs=100.0).isel(time=slice(0, 0))
    )
    assert session.session.peri_event("emg", [5.0], 0.1, 0.1).sizes["event"] == 0
