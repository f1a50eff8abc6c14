"""Time stamps that jitter, repeat, go backward, start again or are missing."""

import warnings

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree import Recorder, SessionError, StreamInfo, dejitter, drop_log
from labtree.errors import RecordingWarning
from labtree.recording.session import labels_to_dataset, stream_dataset

FS = 100.0


def record(base, packets, **options):
    """Record packets of time stamps; the only channel counts the samples."""
    recorder = Recorder(base, **options)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=FS, dtype="int32"))
    row = 0
    for times in packets:
        data = np.arange(row, row + len(times), dtype="int32")[:, None]
        recorder.append("emg", data, np.asarray(times, float))
        row += len(times)
    return recorder


def packets_of(times, size=10):
    return [times[first : first + size] for first in range(0, len(times), size)]


BAD = {
    "a step back": np.r_[np.arange(300), np.arange(100, 300)] / FS,
    "a restart": np.r_[5000 + np.arange(300), np.arange(300)] / FS,
    "not a number": np.where(np.arange(300) % 50 == 7, np.nan, np.arange(300) / FS),
    "nothing but nan": np.full(100, np.nan),
    "infinite": np.r_[np.arange(50), [np.inf], np.arange(51, 100)] / FS,
    "down all the way": -np.arange(200) / FS,
    "nan at both ends": np.r_[[np.nan], np.arange(1, 99), [np.nan]] / FS,
}


@pytest.mark.parametrize("kind", BAD)
def test_every_sample_of_every_clock_is_kept(tmp_path, kind):
    times = BAD[kind]
    with pytest.warns(RecordingWarning, match="time stamps are recorded unchanged") as told:
        recorder = record(tmp_path, packets_of(times))
    recorder.close()
    assert len(told) == 1
    assert told[0].filename == __file__
    tree = labtree.open_session(recorder.path)
    stream = tree.session.streams["emg"]
    np.testing.assert_array_equal(stream["time"], times)
    np.testing.assert_array_equal(stream["data"][:, 0], np.arange(len(times)))
    # A stamp is backward if it is before the last one that was finite.
    known = times[np.isfinite(times)]
    backward = int((np.diff(known) < 0).sum())
    lacking = int((~np.isfinite(times)).sum())
    assert stream.attrs.get("backward_time_stamps", 0) == backward
    assert stream.attrs.get("not_finite_time_stamps", 0) == lacking


@pytest.mark.parametrize("kind", BAD)
def test_recover_counts_what_the_recorder_would_have_counted(tmp_path, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        closed, dead = (record(tmp_path, packets_of(BAD[kind])) for _ in range(2))
    closed.close()
    dead._stop()
    dead._release()
    assert labtree.recover(dead.path) == []
    one, other = (labtree.open_session(recorder.path) for recorder in (closed, dead))
    assert one["streams/emg"].attrs == other["streams/emg"].attrs


def test_arrivals_are_those_of_the_packets(tmp_path):
    ticks = iter(range(10_000))
    recorder = record(tmp_path, [], clock=lambda: float(next(ticks)))
    before = next(ticks)
    for first in range(0, 250, 50):
        recorder.append("emg", np.zeros((50, 1), "int32"), (first + np.arange(50)) / FS)
    live = labtree.open_session(recorder.path)["streams/emg/arrival"].values
    recorder.close()
    found = labtree.open_session(recorder.path)["streams/emg/arrival"].values
    np.testing.assert_array_equal(found, before + 1 + np.repeat(np.arange(5), 50))
    np.testing.assert_array_equal(live, found)


def test_windows_of_a_clock_that_steps_back_hold_no_other_stretch(tmp_path):
    times = BAD["a step back"]
    with pytest.warns(RecordingWarning, match="goes backward, from 2.99 s"):
        recorder = record(tmp_path, packets_of(times))
    recorder.add_label(0, timestamp=0.0)
    recorder.close()
    windows = labtree.labeled_windows(recorder.path, "emg", 200, 100)
    assert windows.sizes["window"] > 0
    steps = np.diff(windows.values[:, 0], axis=1)
    np.testing.assert_array_equal(steps, 1)
    stamps = times[windows.values[:, 0]]
    np.testing.assert_allclose(np.diff(stamps, axis=1), 1 / FS)


# --- reading ------------------------------------------------------------------------------


def make_tree(times, fs=FS, labels=((0.0, 0),), **attributes):
    times = np.asarray(times, float)
    data = np.arange(len(times), dtype="int32")[:, None]
    tree = xr.DataTree(xr.Dataset(attrs={"session_path": "memory", **attributes}))
    tree.children = {
        "streams": xr.DataTree(
            children={"emg": xr.DataTree(stream_dataset(data, times, fs=fs))}
        ),
        "labels": xr.DataTree(labels_to_dataset(list(labels), None)),
    }
    return tree


def test_stamps_that_stand_still_for_longer_than_a_window_are_left_out_by_name():
    times = np.floor(np.arange(200_000) / FS / 3) * 3
    tree = make_tree(times, labels=[(0.0, 0), (1000.0, 1)])
    with pytest.warns(
        RecordingWarning, match=r"stand still for up to 300 samples.*float32 cannot hold Unix"
    ):
        windows = tree.session.windows("emg", 200, 100)
    assert windows.sizes["window"] == 0
    true = 1.7e9 + np.arange(60_000) / FS
    with pytest.raises(SessionError, match=r"stand still for up to .* samples \(float32"):
        make_tree(np.float32(true)).session.windows("emg", 200, 100)
    assert set(drop_log(windows)["reason"]) == {
        "time stamps stand still for longer than a window"
    }


def test_packets_that_are_stamped_once_have_windows():
    times = np.repeat(np.arange(0, 1000, 10) / FS, 10)
    windows = make_tree(times).session.windows("emg", 200, 100)
    assert windows.sizes["window"] == 99
    # One packet that stands still for longer than a window costs the windows that meet it.
    times[300:330] = times[300]
    log = drop_log(make_tree(times).session.windows("emg", 200, 100))
    expected = [k / 10 for k in range(99) if k * 10 < 330 and k * 10 + 20 > 300]
    found = log[log.reason.str.contains("stand still")]["start_time"]
    assert len(found) == len(expected)


def test_bursts_name_the_gap_that_makes_them_right():
    times = np.concatenate([100 + k * 0.036 + np.arange(9) * 1e-5 for k in range(500)])
    tree = make_tree(times, 250.0, [(100.0, 0)])
    with pytest.raises(SessionError, match=r"come in bursts; write gap_s=0\.072"):
        tree.session.windows("emg", 200, 50)
    assert tree.session.windows("emg", 200, 50, gap_s=0.072).sizes["window"] > 300


def test_a_wrong_rate_is_refused_around_events_and_told_elsewhere():
    tree = make_tree(100 + np.arange(3000) / 93.24, labels=[(105.0, 0)])
    with pytest.raises(SessionError, match=r"declares 100 Hz, its time stamps tell 93.24 Hz"):
        tree.session.peri_event("emg", [110.0], 0.5, 1.0)
    with pytest.warns(RecordingWarning, match="declares 100 Hz"):
        found = tree.session.peri_event("emg", [110.0], 0.5, 1.0, on_mismatch="warn")
    assert found.sizes["event"] == 1
    for call in (tree.session.continuous, tree.session.trials):
        with pytest.warns(RecordingWarning, match="memory: the stream declares 100 Hz"):
            call("emg")


def test_no_finite_time_stamp_is_the_reason_that_is_given():
    log = drop_log(make_tree(np.full(100, np.nan)).session.windows("emg", 200, 100))
    assert log["reason"].tolist() == ["session left out: no time stamp of the stream is finite"]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ((), "the session has no labels"),
        (((1.0, -1),), "no label of the session starts a class"),
    ],
)
def test_sessions_without_a_class_are_in_the_drop_log(labels, reason):
    good = make_tree(np.arange(500) / FS)
    bare = make_tree(np.arange(500) / FS, labels=labels, session_path="bare")
    bare.attrs["session_path"] = "bare"
    windows = labtree.labeled_windows([good, bare], "emg", 200, 100)
    assert drop_log(windows)[["session", "reason"]].values.tolist() == [
        ["bare", f"session left out: {reason}"]
    ]


def test_conditioning_that_differs_is_a_mismatch():
    filtered, raw = (
        make_tree(np.arange(500) / FS, extras=f'{{"conditioning": {{"emg": {value}}}}}')
        for value in ('{"notch_hz": 50}', "null")
    )
    with pytest.raises(SessionError, match="has conditioning None, the first session"):
        labtree.labeled_windows([filtered, raw], "emg", 200, 100)
    windows = labtree.labeled_windows([filtered, filtered], "emg", 200, 100)
    assert windows.attrs["conditioning"] == '{"notch_hz": 50}'


def test_iterating_ends_with_one_warning_that_sums_up():
    gap = make_tree(np.r_[np.arange(200), 1000 + np.arange(200)] / FS)
    bare = make_tree(np.arange(300) / FS, labels=())
    bare.attrs["session_path"] = "bare"
    with pytest.warns(RecordingWarning) as told:
        found = list(labtree.iter_labeled_windows([gap, bare], "emg", 200, 100))
    assert len(told) == 1
    text = str(told[0].message)
    assert "1 x gap (memory)" in text
    assert "1 x session left out: the session has no labels (bare)" in text
    assert len(found) == labtree.labeled_windows([gap, bare], "emg", 200, 100).sizes["window"]


# --- dejitter -----------------------------------------------------------------------------


def stamps(seed, *, fs=250.0, n=5000, rate_error=2e-4, jitter_s=0.0, packet=1, lost=()):
    """Return true times of the samples that arrived, and their stamps."""
    rng = np.random.default_rng(seed)
    true = 100 + np.arange(n) / (fs * (1 + rate_error))
    keep = np.ones(n, bool)
    for start, count in lost:
        keep[start : start + count] = False
    late = np.repeat(rng.exponential(jitter_s, -(-n // packet)), packet)[:n] if jitter_s else 0
    return (
        true[keep],
        (true + late)[keep],
        np.flatnonzero(np.diff(np.flatnonzero(keep)) > 1) + 1,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("jitter_s", "packet", "error_s"), [(0.0, 1, 1e-9), (0.001, 1, 4e-4), (0.01, 10, 4e-3)]
)
def test_a_clean_clock_is_near_the_true_one(seed, jitter_s, packet, error_s):
    true, recorded, _ = stamps(seed, jitter_s=jitter_s, packet=packet)
    clean = dejitter(make_tree(recorded, 250.0).session.streams["emg"])
    assert clean.attrs["stretches"] == 1
    away = clean["time"].values - true
    assert np.abs(away - away.mean()).max() < error_s
    assert away.mean() == pytest.approx(jitter_s, rel=0.2, abs=1e-9)
    np.testing.assert_allclose(clean["residual"], recorded - clean["time"].values)
    assert clean.attrs["jitter_rms_s"] == pytest.approx(
        np.std(recorded - true), rel=0.1, abs=1e-9
    )


@pytest.mark.parametrize("jitter_s", [0.0, 0.001])
@pytest.mark.parametrize("lost", [[(1000, 200)], [(1000, 25), (3000, 400)], [(2000, 5)]])
def test_losses_of_less_than_a_second_stay_gaps(lost, jitter_s):
    true, recorded, gaps = stamps(1, jitter_s=jitter_s, lost=lost)
    clean = dejitter(make_tree(recorded, 250.0).session.streams["emg"])
    assert clean.attrs["stretches"] == len(lost) + 1
    steps = np.diff(clean["time"].values)
    np.testing.assert_array_equal(np.flatnonzero(steps > 1.5 / 250) + 1, gaps)
    away = clean["time"].values - true - jitter_s
    assert np.abs(away).max() < 1e-3


@pytest.mark.parametrize("jitter_s", [0.0, 5e-5])
def test_two_breaks_within_a_second_are_both_found(jitter_s):
    """The stamps behind the second say nothing of where the line before the first was."""
    fs, n = 1000.0, 3000
    true = 100 + np.arange(n) / fs
    true[327:] += 0.0498
    true[457:] += 0.102
    late = np.random.default_rng(0).uniform(0, jitter_s, n) if jitter_s else 0
    clean = dejitter(make_tree(true + late, fs).session.streams["emg"])
    assert clean.attrs["stretches"] == 3
    assert np.abs(clean["time"].values - true).max() < 2 * jitter_s + 1e-9


def test_bursts_become_an_even_clock():
    times = np.concatenate([100 + k * 0.036 + np.arange(9) * 1e-5 for k in range(500)])
    tree = make_tree(times, 250.0, [(100.0, 0)])
    clean = dejitter(tree.session.streams["emg"])
    np.testing.assert_allclose(np.diff(clean["time"]), 0.004, rtol=1e-3)
    assert clean.session.windows(200, 50).sizes["window"] > 300


def test_samples_without_a_stamp_get_the_time_of_their_place():
    times = np.arange(1000) / FS
    lacking = np.where(np.arange(1000) % 7 == 0, np.nan, times)
    clean = dejitter(make_tree(lacking).session.streams["emg"])
    np.testing.assert_allclose(clean["time"], times, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(clean["residual"]), np.isnan(lacking))


def test_both_sides_of_a_restart_keep_their_own_time():
    times = BAD["a restart"]
    clean = dejitter(make_tree(times).session.streams["emg"])
    assert clean.attrs["stretches"] == 2
    np.testing.assert_allclose(clean["time"], times, atol=1e-9)


def test_a_given_gap_is_the_only_one():
    times = np.r_[np.arange(200), 230 + np.arange(200), 600 + np.arange(200)] / FS
    stream = make_tree(times).session.streams["emg"]
    assert dejitter(stream, gap_s=1.0).attrs["stretches"] == 2
    assert dejitter(stream).attrs["stretches"] == 3


def test_samples_stay_lazy(tmp_path):
    recorder = record(tmp_path, packets_of(np.arange(500) / FS))
    recorder.close()
    tree = labtree.open_session(recorder.path)
    clean = dejitter(tree.session.streams["emg"])
    assert not clean["data"].variable._in_memory
    np.testing.assert_array_equal(clean["data"][:, 0], np.arange(500))


def test_what_has_no_clean_clock():
    with pytest.raises(
        SessionError, match=r"without a sampling rate .* tree.session.streams\['emg'\], found"
    ):
        dejitter(make_tree([1.0, 2.0], 0.0).session.streams["emg"])
    with pytest.raises(SessionError, match="no time stamp of the stream is finite"):
        dejitter(make_tree([np.nan, np.nan]).session.streams["emg"])
    with pytest.raises(SessionError, match="gap_s must be a number of seconds above 0"):
        dejitter(make_tree([1.0, 2.0]).session.streams["emg"], gap_s=-1)
