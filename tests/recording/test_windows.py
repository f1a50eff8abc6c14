"""Windows against a brute force of MyoGestic's rules, and on data that are not clean."""

import itertools
import logging
import pickle
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import labtree
from labtree import SessionError
from labtree.errors import MissingFileError, RecordingWarning, UnknownNameError
from labtree.recording import drop_log, torch_dataset
from labtree.recording.session import labels_to_dataset, stream_dataset
from labtree.recording.timeline import Timeline
from labtree.recording.windows import window_samples
from support.examples import examples


def make_tree(data, times, fs, labels=(), class_names=None, **about):
    """A session in memory."""
    attributes = {"session_path": "memory"}
    if class_names is not None:
        attributes["class_names"] = class_names
    tree = xr.DataTree(xr.Dataset(attrs=attributes))
    dataset = stream_dataset(np.asarray(data), np.asarray(times, float), fs=fs, **about)
    tree.children = {
        "streams": xr.DataTree(children={"emg": xr.DataTree(dataset)}),
        "labels": xr.DataTree(labels_to_dataset(list(labels), class_names)),
    }
    return tree


def ramp(n, channels=2, dtype="int32"):
    return (np.arange(n)[:, None] * channels + np.arange(channels)).astype(dtype)


def brute_force(data, times, fs, labels, window_ms, hop_ms, classes):
    """MyoGestic's labeled windows, as its rules are written down: one argmin per label."""
    win, hop = int(window_ms * fs / 1000), max(1, int(hop_ms * fs / 1000))
    found = []
    for position, (moment, index) in enumerate(labels):
        start = int(np.argmin(np.abs(times - moment)))
        end = len(times)
        if position + 1 < len(labels):
            end = int(np.argmin(np.abs(times - labels[position + 1][0])))
        if index < 0 or (classes is not None and index not in classes):
            continue
        found += [
            (data[first : first + win].T, times[first], index)
            for first in range(start, end - win + 1, hop)
        ]
    return found


def same(windows, expected):
    assert len(windows) == len(expected)
    if expected:
        np.testing.assert_array_equal(windows.values, np.stack([w for w, _, _ in expected]))
        np.testing.assert_array_equal(windows["start_time"], [t for _, t, _ in expected])
        np.testing.assert_array_equal(windows["class_index"], [i for _, _, i in expected])


# --- clean data: the peer's windows -----------------------------------------------------


@settings(max_examples=examples(150), deadline=None)
@given(
    fs=st.sampled_from([50.0, 100.0, 128.0, 1000.0, 2048.0, 60.0, 44.1]),
    n=st.integers(30, 400),
    start=st.sampled_from([0.0, 84121.25, -3.5]),
    window_ms=st.integers(20, 400),
    hop_ms=st.integers(1, 300),
    labels=st.lists(st.tuples(st.floats(-0.1, 1.1), st.integers(-2, 4)), max_size=8),
    classes=st.one_of(st.none(), st.sets(st.integers(0, 4))),
    jitter=st.booleans(),
)
def test_windows_of_clean_data_are_the_peer_s(
    fs, n, start, window_ms, hop_ms, labels, classes, jitter
):
    win = int(window_ms * fs / 1000)
    assume(win >= 2)
    rng = np.random.default_rng(n)
    times = start + (np.arange(n) + (rng.uniform(-0.2, 0.2, n) if jitter else 0)) / fs
    labels = sorted(
        ((start + share * n / fs, index) for share, index in labels), key=lambda p: p[0]
    )
    data = ramp(n)
    tree = make_tree(data, times, fs, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no label has the class", RecordingWarning)
        warnings.filterwarnings("ignore", ".* labels are after the end", RecordingWarning)
        windows = tree.session.windows("emg", window_ms, hop_ms, classes)
    same(windows, brute_force(data, times, fs, labels, window_ms, hop_ms, classes))
    assert windows.dtype == data.dtype
    assert windows.dims == ("window", "channel", "time")


def test_a_tie_belongs_to_the_first_sample():
    times = np.arange(10) / 4  # exact in binary, so a label between two is a true tie
    data = ramp(10)
    labels = [(0.125, 0), (1.125, 1)]
    tree = make_tree(data, times, 4.0, labels)
    same(
        tree.session.windows("emg", 500, 250),
        brute_force(data, times, 4.0, labels, 500, 250, None),
    )
    assert tree.session.windows("emg", 500, 250)["start_time"][0] == 0.0


@pytest.mark.parametrize(
    "fs",
    [50, 60, 100, 128, 200, 250, 256, 500, 512, 1000, 1024, 2000, 2048, 4096, 10000, 10240],
)
def test_window_lengths_round_down_without_an_error(fs):
    for milliseconds in range(1, 1001):
        assert window_samples(milliseconds, float(fs)) == milliseconds * fs // 1000


def test_290_ms_at_100_hz_are_29_samples():
    assert (
        make_tree(ramp(100), np.arange(100) / 100, 100).session.windows("emg", 290, 10).shape[2]
        == 29
    )


def test_no_classes_and_no_labels_give_no_windows():
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 1)])
    assert tree.session.windows("emg", 100, 50, set()).shape == (0, 2, 10)
    with pytest.warns(RecordingWarning, match="no label has the class 3; there are: 1 '1'"):
        assert tree.session.windows("emg", 100, 50, {3}).values.shape == (0, 2, 10)
    assert (
        make_tree(ramp(100), np.arange(100) / 100, 100).session.windows("emg", 100, 50).shape[0]
        == 0
    )


def test_coordinates():
    tree = make_tree(
        ramp(100), 5 + np.arange(100) / 100, 100, [(5.0, 1), (5.5, 4)], ["rest", "fist"],
        channel_names=["a", "b"], units="mV",
    )  # fmt: skip
    windows = tree.session.windows("emg", 100, 100)
    np.testing.assert_allclose(windows["time"], np.arange(10) / 100)
    assert windows["start_time"].values.tolist() == [5 + k / 10 for k in range(10)]
    assert windows["class_index"].values.tolist() == [1] * 5 + [4] * 5
    assert windows["class_name"].values.tolist() == ["fist"] * 5 + ["4"] * 5
    assert set(windows["session"].values) == {"memory"}
    assert windows["channel"].values.tolist() == ["a", "b"]
    assert windows.attrs["units"] == "mV"


def test_dtype_is_the_stream_s_unless_asked():
    data = np.array([[16777217], [1]] * 20, "int32")
    tree = make_tree(data, np.arange(40) / 100, 100, [(0.0, 0)])
    assert tree.session.windows("emg", 50, 50).values[0, 0, 0] == 16777217
    narrow = tree.session.windows("emg", 50, 50, dtype="float32")
    assert narrow.dtype == np.float32
    assert narrow.values.dtype == np.float32
    assert narrow.values[0, 0, 0] == 16777216


@pytest.mark.parametrize(
    ("window_ms", "hop_ms", "message"),
    [
        (5, 10, "a window takes at least 10 ms, a hop more than 0"),
        *(
            (bad, 10, "window_ms must be a number of milliseconds above 0")
            for bad in (0, -1, "100")
        ),
        *(
            (100, bad, "hop_ms must be a number of milliseconds above 0")
            for bad in (0, -1, None)
        ),
        *(
            (bad, 10, "window_ms must be a number")
            for bad in (float("nan"), float("inf"), True)
        ),
        *((100, bad, "hop_ms must be a number") for bad in (float("nan"), float("inf"))),
    ],
)
def test_windows_without_a_sample_are_an_error(window_ms, hop_ms, message):
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 1)])
    with pytest.raises(SessionError, match=message):
        tree.session.windows("emg", window_ms, hop_ms)


@pytest.mark.parametrize(
    "key",
    [
        np.s_[:], np.s_[3], np.s_[-1], np.s_[2:5], np.s_[::-1], np.s_[[4, 0, 4]], np.s_[:,
        1], np.s_[:, :, 3],
        np.s_[2, 1, 4], np.s_[[1, 5], [1, 0]], np.s_[:, ::-1, 2:5], np.s_[[]], np.s_[::3,
        0, ::2],
    ],
)  # fmt: skip
def test_indexing_is_numpy_s(key):
    data, times = ramp(200, 3), np.arange(200) / 100
    labels = [(0.0, 0), (0.9, 1)]
    tree = make_tree(data, times, 100, labels)
    windows = tree.session.windows("emg", 100, 70)
    expected = np.stack([w for w, _, _ in brute_force(data, times, 100, labels, 100, 70, None)])
    if isinstance(key, tuple) and sum(isinstance(part, list) for part in key) > 1:
        first, second = key
        expected = expected[first][:, second]  # xarray indexes each dimension by itself
    else:
        expected = expected[key]
    np.testing.assert_array_equal(windows[key].values, expected)


# --- several sessions -------------------------------------------------------------------


def recorded(
    peer,
    shift=0,
    n=300,
    fs=100,
    channels=3,
    dtype="int16",
    labels=((50.0, 0), (51.5, 1)),
    **about,
):
    session = peer()
    session.stream(
        "emg",
        ramp(n, channels, dtype) + np.dtype(dtype).type(shift + 1),
        50 + np.arange(n) / fs,
        fs,
        **about,
    )
    for label in labels:
        session.label(*label)
    return session


def test_windows_of_many_sessions_are_one_array(peer):
    paths = [recorded(peer, 0).zip(), recorded(peer, 1000).write()]
    windows = labtree.labeled_windows(paths, "emg", 200, 100)
    each = [labtree.labeled_windows(path, "emg", 200, 100) for path in paths]
    np.testing.assert_array_equal(
        windows.values, np.concatenate([part.values for part in each])
    )
    assert list(dict.fromkeys(windows["session"].values)) == [str(path) for path in paths]
    order = np.random.default_rng(0).permutation(len(windows))
    np.testing.assert_array_equal(windows[order].values, windows.values[order])


def test_it_reads_nothing_before_and_only_its_chunks_after(peer, monkeypatch):
    from labtree.recording.chunks import ArrayReader

    path = recorded(peer).write()
    reads = []
    real = ArrayReader._decode

    def counted(self, index, out):
        reads.append((self.name, index))
        real(self, index, out)

    monkeypatch.setattr(ArrayReader, "_decode", counted)
    windows = labtree.labeled_windows(path, "emg", 200, 200, classes={1})
    repr(windows), windows._repr_html_(), windows.isel(window=slice(1, 3))
    assert {name for name, _ in reads} == {"emg_timestamps.zarr"}
    reads.clear()
    np.asarray(windows[0])
    assert reads == [("emg.zarr", 1)]
    reads.clear()
    np.asarray(windows)
    assert sorted(set(reads)) == [("emg.zarr", 2)]  # chunk 1 is still at hand
    assert len(reads) == 1


def test_dask_backed(peer):
    import dask.array

    paths = [recorded(peer, 0).write(), recorded(peer, 1000).zip()]
    plain = labtree.labeled_windows(paths, "emg", 200, 100)
    chunked = labtree.labeled_windows(paths, "emg", 200, 100, chunks={"window": 4})
    assert isinstance(chunked.data, dask.array.Array)
    assert chunked.data.chunks[0][0] == 4
    assert isinstance(chunked["class_name"].data, np.ndarray)
    np.testing.assert_array_equal(chunked.compute().values, plain.values)
    assert (chunked.mean("time") - plain.mean("time")).max() == 0
    other = labtree.labeled_windows(paths[::-1], "emg", 200, 100, chunks={"window": 4})
    np.testing.assert_array_equal(
        other[0].values, labtree.labeled_windows(paths[1], "emg", 200, 100)[0].values
    )


def test_pickle(peer):
    windows = labtree.labeled_windows([recorded(peer).zip()], "emg", 200, 100)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(windows)).values, windows.values)
    again = pickle.loads(pickle.dumps(windows[3:6]))
    np.testing.assert_array_equal(again.values, windows[3:6].values)


def test_close_lets_go(peer):
    windows = labtree.labeled_windows(recorded(peer).zip(), "emg", 200, 100)
    windows.close()
    with pytest.raises(SessionError, match="is closed"):
        np.asarray(windows)


def test_iterator_gives_windows_that_share_nothing(peer):
    path = recorded(peer).write()
    expected = labtree.labeled_windows(path, "emg", 200, 50).values
    found = []
    for window in labtree.iter_labeled_windows(path, "emg", 200, 50):
        found.append(window.values.copy())
        window[:] = -1
        assert window.dims == ("channel", "time")
        assert "drop_log" not in window.attrs
    np.testing.assert_array_equal(np.stack(found), expected)


def test_iterator_checks_at_the_call():
    with pytest.raises(MissingFileError):
        labtree.iter_labeled_windows("none", "emg", 200, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fs": 50, "n": 150}, "has Hz 50.0, the first session .* has 100.0"),
        ({"channels": 2}, "has channels 2, the first session .* has 3"),
        ({"dtype": "int32"}, "has dtype int32, the first session .* has int16"),
        ({"units": "mV"}, "has units mV, the first session .* has uV"),
        ({"channel_names": ["x", "b", "c"]}, r"has channel names \['x', 'b', 'c'\]"),
    ],
)
def test_sessions_that_differ(peer, change, message):
    same_way = {"units": "uV", "channel_names": ["a", "b", "c"]}
    first = recorded(peer, **same_way).write()
    about = {**same_way, **change}
    if about.get("channels") == 2:
        about["channel_names"] = ["a", "b"]
    other = recorded(peer, **about).write()
    with pytest.raises(SessionError, match=message) as caught:
        labtree.labeled_windows([first, other, first], "emg", 200, 50)
    assert str(other) in str(caught.value)
    assert "1 of 3 sessions cannot take part" in str(caught.value)
    with pytest.warns(RecordingWarning, match="1 of 3 sessions are left out"):
        windows = labtree.labeled_windows(
            [first, other, first], "emg", 200, 50, on_mismatch="warn"
        )
    assert set(windows["session"].values) == {str(first)}


def test_sessions_whose_classes_mean_something_else(peer):
    first = recorded(peer).write(class_names=["rest", "fist"])
    more = recorded(peer).write(class_names=["rest", "fist", "pinch"])
    none = recorded(peer).write()
    other = recorded(peer).write(class_names=["rest", "pinch"])
    windows = labtree.labeled_windows([first, more, none], "emg", 200, 50)
    assert set(windows["class_name"].values) == {"rest", "fist", "0", "1"}
    with pytest.raises(SessionError, match=r"class names \['rest', 'pinch'\]"):
        labtree.labeled_windows([first, other], "emg", 200, 50)


def test_dtype_makes_types_alike(peer):
    paths = [recorded(peer).write(), recorded(peer, dtype="int32").write()]
    assert labtree.labeled_windows(paths, "emg", 200, 50, dtype="float32").dtype == np.float32


def test_every_session_that_fails_is_named(peer, tmp_path, caplog):
    good = recorded(peer).write()
    lacking = peer().stream("kin", ramp(100), np.arange(100) / 100, 100).write()
    paths = [good, tmp_path / "none", lacking]
    with pytest.raises(
        SessionError, match=r"(?s)2 of 3 sessions.*none.*no stream 'emg'"
    ) as caught:
        labtree.labeled_windows(paths, "emg", 200, 50)
    assert 'write on_mismatch="warn"' in str(caught.value)
    with caplog.at_level(logging.WARNING, "labtree.recording"), warnings.catch_warnings():
        warnings.simplefilter("error")
        windows = labtree.labeled_windows(paths, "emg", 200, 50, on_mismatch="drop")
    assert "2 of 3 sessions are left out" in caplog.text
    log = drop_log(windows)
    assert log["session"].tolist() == [str(tmp_path / "none"), str(lacking)]
    assert "no stream 'emg'" in log["reason"][1]
    with pytest.raises(SessionError, match="no session is left"):
        labtree.labeled_windows([lacking], "emg", 200, 50, on_mismatch="drop")
    with pytest.raises(SessionError, match="no session is left"):
        labtree.labeled_windows([], "emg", 200, 50)
    with pytest.raises(UnknownNameError):
        labtree.labeled_windows(lacking, "emg", 200, 50)


@pytest.mark.parametrize("name", ["on_gap", "on_mismatch"])
def test_policies_are_checked(peer, name):
    with pytest.raises(
        SessionError, match=f"{name} must be one of 'raise', 'warn', 'drop', found 'maybe'"
    ):
        labtree.labeled_windows(recorded(peer).write(), "emg", 200, 50, **{name: "maybe"})


# --- data that are not clean ------------------------------------------------------------


def gap_tree(labels=((0.0, 1),), gap=10.0):
    times = np.arange(400) / 100
    times[150:] += gap
    return make_tree(ramp(400), times, 100, labels), times


def test_windows_across_a_gap_are_left_out_and_told():
    tree, times = gap_tree()
    windows = tree.session.windows("emg", 200, 100)
    everything = brute_force(ramp(400), times, 100, [(0.0, 1)], 200, 100, None)
    expected = [
        part
        for part in everything
        if part[1] + 0.195 <= times[149] + 0.01 or part[1] >= times[150]
    ]
    same(windows, expected)
    log = drop_log(windows)
    assert log["reason"].tolist() == ["gap"] * (len(everything) - len(expected))
    np.testing.assert_allclose(log["start_time"], [1.4])
    assert log["class_index"].tolist() == [1]
    assert windows.attrs["dropped"] == 1
    same(tree.session.windows("emg", 200, 100, on_gap="drop"), expected)


def test_on_gap():
    tree, _ = gap_tree()
    with pytest.raises(
        SessionError,
        match=r'memory: 1 of 39 windows hold a gap.*starts at 1.4 s; write on_gap="drop"',
    ):
        tree.session.windows("emg", 200, 100, on_gap="raise")
    with pytest.warns(RecordingWarning, match="1 of 39 windows hold a gap"):
        tree.session.windows("emg", 200, 100, on_gap="warn")


def test_no_window_spans_more_than_it_says():
    rng = np.random.default_rng(3)
    times = np.cumsum(np.where(rng.random(2000) < 0.02, rng.uniform(0.02, 3, 2000), 0.01))
    tree = make_tree(ramp(2000), times, 100, [(times[0], 0), (times[900], 1)])
    windows = tree.session.windows("emg", 200, 10)
    first = windows.values[:, 0, 0] // 2
    spans = times[first + 19] - times[first]
    np.testing.assert_allclose(spans, 0.19)
    log = drop_log(windows)
    assert len(log) + len(windows) == len(range(0, 900 - 19)) + len(range(900, 2000 - 19))


def test_one_lost_sample_is_a_gap_and_gap_s_says_otherwise():
    times = np.delete(np.arange(301) / 100, 155)
    tree = make_tree(ramp(300), times, 100, [(0.0, 0)])
    assert len(drop_log(tree.session.windows("emg", 100, 100))) == 1
    assert len(drop_log(tree.session.windows("emg", 100, 100, gap_s=0.05))) == 0


def test_a_label_in_a_gap_begins_behind_it():
    tree, times = gap_tree([(0.0, 0), (3.0, 1)])
    windows = tree.session.windows("emg", 100, 100)
    np.testing.assert_array_equal(
        windows["class_index"], np.where(windows["start_time"] < 1.5, 0, 1)
    )
    assert windows["start_time"].values[15] == times[150]
    assert len(drop_log(windows)) == 0


def test_labels_are_put_in_order():
    times = np.arange(1000) / 100
    tree = make_tree(ramp(1000), times, 100, [(0.0, 0), (5.0, 1), (3.0, 2)])
    windows = tree.session.windows("emg", 500, 500)
    expected = [0 if t < 3 else 2 if t < 5 else 1 for t in windows["start_time"].values]
    assert windows["class_index"].values.tolist() == expected
    assert set(expected) == {0, 1, 2}


def test_a_label_without_a_time_is_an_error():
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 0), (np.nan, 1)])
    with pytest.raises(labtree.FormatError, match="label 1 has the time nan or inf"):
        tree.session.windows("emg", 100, 100)


def test_one_nan_time_costs_only_its_own_windows():
    times = np.arange(400) / 100
    labels = [(0.0, 0), (2.0, 1)]
    clean = brute_force(ramp(400), times, 100, labels, 100, 100, None)
    times = times.copy()
    times[155] = np.nan
    windows = make_tree(ramp(400), times, 100, labels).session.windows("emg", 100, 100)
    same(windows, [part for part in clean if part[1] != 1.5])
    assert drop_log(windows)["reason"].tolist() == ["time stamp not finite or out of order"]


@pytest.mark.parametrize("values", [[np.nan] * 100, [np.inf] * 100, []])
def test_no_usable_time_at_all(values):
    tree = make_tree(ramp(len(values)), values, 100, [(0.0, 0)])
    windows = tree.session.windows("emg", 100, 100)
    assert len(windows) == 0
    assert len(drop_log(windows)) >= 1


def test_time_that_runs_backward_for_a_while():
    """The clock goes back by 1 s: what then repeats is out, the rest is right."""
    times = np.arange(1000) / 100
    times[400:] -= 1
    tree = make_tree(ramp(1000), times, 100, [(0.0, 0), (3.5, 1), (5.0, 2)])
    windows = tree.session.windows("emg", 100, 100)
    first = windows.values[:, 0, 0] // 2
    assert (first + 9 < 400).sum() + (first >= 500).sum() == len(first)
    moments = times[first]
    np.testing.assert_array_equal(
        windows["class_index"], np.select([moments < 3.5, moments < 5], [0, 1], 2)
    )
    assert set(drop_log(windows)["reason"]) == {"time stamp not finite or out of order"}


def test_one_stamp_far_ahead_costs_only_its_own_windows():
    times = np.arange(400) / 100
    times[155] = 1e9
    windows = make_tree(ramp(400), times, 100, [(0.0, 0)]).session.windows("emg", 100, 100)
    assert len(windows) == 39
    assert len(drop_log(windows)) == 1


def test_packets_that_share_a_stamp_are_no_gaps():
    for stamped in ("first", "last"):
        times = np.arange(640) // 32 * 32 / 100 + (0 if stamped == "first" else 0.31)
        tree = make_tree(ramp(640), times, 100, [(0.0, 0)])
        windows = tree.session.windows("emg", 500, 100)
        assert len(windows) == len(range(0, 640 - 49, 10))
        times[320:] += 0.4
        windows = make_tree(ramp(640), times, 100, [(0.0, 0)]).session.windows("emg", 500, 100)
        first = windows.values[:, 0, 0] // 2
        assert not ((first < 320) & (first + 49 >= 320)).any()


def test_chunks_without_dask_say_how_to_install_it(monkeypatch):
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 1)])
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r'pip install "labtree\[dask\]"'):
        tree.session.windows("emg", 100, 100, chunks={"window": 4})


def test_time_stamps_in_milliseconds_are_said():
    tree = make_tree(ramp(4000), np.arange(4000) / 2, 2000, [(0.0, 0)])
    with pytest.raises(SessionError, match=r"milliseconds\? Write seconds, time / 1000"):
        tree.session.windows("emg", 200, 50)


@pytest.mark.parametrize("true_fs", [960, 1900, 1979, 2021, 4000])
def test_a_rate_that_is_not_the_declared_one(true_fs):
    tree = make_tree(ramp(4000), np.arange(4000) / true_fs, 2000, [(0.0, 0)])
    with pytest.raises(
        SessionError, match=rf"stream 'emg' declares 2000 Hz, its time stamps tell {true_fs} Hz"
    ):
        tree.session.windows("emg", 200, 50)


@pytest.mark.parametrize("true_fs", [1981, 1999, 2019])
def test_a_rate_that_is_nearly_the_declared_one(true_fs):
    tree = make_tree(ramp(4000), np.arange(4000) / true_fs, 2000, [(0.0, 0)])
    assert len(tree.session.windows("emg", 200, 50)) == len(range(0, 4000 - 399, 100))


def test_gaps_do_not_pass_for_a_wrong_rate():
    times = np.arange(3000) / 100 + 7 * (np.arange(3000) // 100)
    windows = make_tree(ramp(3000), times, 100, [(0.0, 0)]).session.windows("emg", 100, 100)
    assert len(windows) == 300


def test_a_stream_without_a_rate_has_no_windows():
    tree = make_tree(ramp(10), np.arange(10), 0)
    with pytest.raises(SessionError, match="has no sampling rate, so there are no windows"):
        tree.session.windows("emg", 100, 100)


def test_a_label_shorter_than_a_window_and_one_behind_the_end_are_told():
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 0), (0.05, 1), (5.0, 2)])
    windows = tree.session.windows("emg", 100, 100)
    assert set(windows["class_index"].values) == {1}
    log = drop_log(windows)
    assert log["reason"].tolist() == [
        "label is after the stream's end",
        "label holds 5 samples, fewer than the 10 of a window",
    ]
    assert log["class_index"].tolist() == [2, 0]


def test_labels_that_are_all_behind_the_end_are_asked_about():
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(50.0, 1), (500.0, 0), (600.0, -1)])
    with pytest.warns(
        RecordingWarning, match=r"all 2 labels are after the end .* milliseconds"
    ):
        windows = tree.session.windows("emg", 100, 100)
    assert windows.sizes["window"] == 0


def test_losing_most_windows_is_a_warning_that_helps():
    rng = np.random.default_rng(0)
    times = np.sort(np.arange(1000) / 100 + rng.uniform(0, 0.02, 1000))
    tree = make_tree(ramp(1000), times, 100, [(0.0, 0)])
    with pytest.warns(RecordingWarning, match="gap_s says how long a step may be"):
        tree.session.windows("emg", 500, 100)
    assert len(tree.session.windows("emg", 500, 100, gap_s=0.05)) == 96


@settings(max_examples=examples(200), deadline=None)
@given(
    # Multiples of 1/1024, so that distances are exact and a tie is a tie.
    st.lists(
        st.one_of(
            st.integers(0, 3000).map(lambda k: k / 1024), st.sampled_from([np.nan, np.inf])
        ),
        max_size=30,
    ),
    st.lists(st.integers(-500, 4000).map(lambda k: k / 1024), min_size=1, max_size=5),
)
def test_locate_is_the_nearest_usable_sample(values, moments):
    times = np.array(values, float)
    timeline = Timeline(times, 10.0, gap_s=100.0)
    usable = np.setdiff1d(np.arange(len(times)), timeline.unusable)
    assert (np.diff(times[usable]) >= 0).all()
    assert np.isfinite(times[usable]).all()
    at = timeline.locate(np.array(moments))
    for moment, found in zip(moments, at, strict=True):
        if len(usable):
            assert found == usable[np.argmin(np.abs(times[usable] - moment))]
        else:
            assert found == 0


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(st.sampled_from([0.1, 0.1, 0.1, 0.1, 0.3, -0.23, np.nan]), max_size=40),
    st.integers(1, 6),
)
def test_breaks_by_brute_force(steps, length):
    times = np.concatenate([[0.0], np.cumsum(np.nan_to_num(steps, nan=0.1))])
    times[1:][np.isnan(steps)] = np.nan
    timeline = Timeline(times, 10.0)
    starts = np.arange(0, len(times) - length + 1)
    unusable, gap = timeline.breaks(starts, length)
    bad = set(timeline.unusable.tolist())
    good = [i for i in range(len(times)) if i not in bad]
    cuts = {b for a, b in itertools.pairwise(good) if times[b] - times[a] > 0.15 + 1e-9}
    for start in starts:
        inside = range(start, start + length)
        assert unusable[start] == any(i in bad for i in inside)
        broken = unusable[start] or any(i in cuts for i in inside if i > start)
        assert (unusable[start] or gap[start]) == broken


# --- batches ----------------------------------------------------------------------------


def test_batches(peer):
    windows = labtree.labeled_windows(recorded(peer).write(), "emg", 200, 50)
    parts = list(labtree.batches(windows, 7))
    assert [len(part) for part in parts[:-1]] == [7] * (len(windows) // 7)
    assert all(isinstance(part.data, np.ndarray) for part in parts)
    np.testing.assert_array_equal(
        np.concatenate([part.values for part in parts]), windows.values
    )
    assert parts[0]["class_name"].dims == ("window",)
    assert list(labtree.batches(windows[:0], 7)) == []


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "3"])
def test_bad_batches(peer, size):
    windows = labtree.labeled_windows(recorded(peer).write(), "emg", 200, 50)
    with pytest.raises(SessionError, match="size must be a whole number from 1 on"):
        labtree.batches(windows, size)
    with pytest.raises(SessionError, match="expected windows"):
        labtree.batches(windows[0], 3)


def test_batches_train_a_classifier(tmp_path):
    sklearn = pytest.importorskip("sklearn.linear_model")
    from labtree.testing.recordings import record_emg

    path = record_emg(tmp_path, (0, 1, 2, 0, 1, 2), seed=1)
    windows = labtree.labeled_windows(path, "emg", 200, 100)
    features = np.concatenate(
        [np.log1p(part.values.astype(float).std(-1)) for part in labtree.batches(windows, 16)]
    )
    model = sklearn.LogisticRegression().fit(features[::2], windows["class_name"].values[::2])
    assert model.score(features[1::2], windows["class_name"].values[1::2]) > 0.9


def test_torch_dataset(peer):
    torch = pytest.importorskip("torch")
    windows = labtree.labeled_windows(recorded(peer).write(), "emg", 200, 50)
    dataset = torch_dataset(windows)
    assert len(dataset) == len(windows)
    samples, index = dataset[3]
    np.testing.assert_array_equal(samples.numpy(), windows[3].values)
    assert index == windows["class_index"][3]
    loader = torch.utils.data.DataLoader(dataset, batch_size=5)
    np.testing.assert_array_equal(torch.cat([x for x, _ in loader]).numpy(), windows.values)


def test_torch_dataset_says_what_it_needs(peer, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    windows = labtree.labeled_windows(recorded(peer).write(), "emg", 200, 50)
    with pytest.raises(ImportError, match=r"needed for torch_dataset\. .*: pip install torch"):
        torch_dataset(windows)


def test_drop_log_of_something_else():
    with pytest.raises(SessionError, match="have no drop log"):
        drop_log(xr.DataArray([1]))


def test_drop_log_survives_netcdf(peer, tmp_path):
    tree, _ = gap_tree()
    windows = tree.session.windows("emg", 200, 100)
    windows.to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    again = xr.load_dataarray(tmp_path / "w.nc", engine="h5netcdf")
    pd.testing.assert_frame_equal(drop_log(again), drop_log(windows))
    np.testing.assert_array_equal(again.values, windows.values)


# --- one stream's Dataset ---------------------------------------------------------------


def test_a_stream_by_itself():
    tree = make_tree(ramp(300), np.arange(300) / 100, 100, [(0.0, 0), (1.5, 1)], ["a", "b"])
    dataset = tree.session.streams["emg"]
    whole = dataset.session.windows(100, 50)
    np.testing.assert_array_equal(whole.values[:, 0, 0], np.arange(0, 291, 5) * 2)
    assert set(whole["class_index"].values) == {-1}
    labeled = dataset.session.windows(
        100, 50, {1}, labels=tree.session.labels, class_names=["a", "b"]
    )
    assert "session" not in labeled.coords
    xr.testing.assert_equal(
        labeled.compute(),
        tree.session.windows("emg", 100, 50, {1}).drop_vars("session").compute(),
    )
    with pytest.raises(SessionError, match="give labels=tree"):
        dataset.session.windows(100, 50, {1})
    assert "windows(window_ms, hop_ms" in repr(dataset.session)
    assert "<pre>" in dataset.session._repr_html_()


def test_a_changed_stream_is_what_is_cut():
    tree = make_tree(ramp(300), np.arange(300) / 100, 100, [(0.0, 0)])
    plain = tree.session.windows("emg", 100, 50).values
    tree["streams/emg"] = xr.DataTree(
        tree["streams/emg"].to_dataset().assign(data=lambda ds: ds["data"] * 2)
    )
    np.testing.assert_array_equal(tree.session.windows("emg", 100, 50).values, plain * 2)


@pytest.mark.parametrize(
    "dataset",
    [
        xr.Dataset(),
        xr.Dataset({"data": ("time", [1.0])}),
        xr.Dataset({"data": (("time", "channel"), [[1.0]])}),
    ],
)
def test_a_dataset_that_is_no_stream(dataset):
    with pytest.raises(
        SessionError, match=r"expected a stream's Dataset with data \(time, channel\)"
    ):
        dataset.session.windows(100, 50)


def test_a_stream_without_fs():
    dataset = stream_dataset(ramp(10), np.arange(10.0))
    with pytest.raises(SessionError, match=r'no sampling rate; write ds.attrs\["fs"\]'):
        dataset.session.windows(100, 50)


@pytest.mark.parametrize("classes", [3, {"fist"}, [1.5]])
def test_classes_are_integers(classes):
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 1)])
    with pytest.raises(SessionError, match="classes are integers, such as"):
        tree.session.windows("emg", 100, 100, classes)
    assert len(tree.session.windows("emg", 100, 100, np.array([1]))) == 10


@pytest.mark.parametrize("gap_s", [0, -1, np.nan])
def test_gap_s_is_checked(gap_s):
    tree = make_tree(ramp(100), np.arange(100) / 100, 100, [(0.0, 1)])
    with pytest.raises(SessionError, match="gap_s must be a number of seconds above 0"):
        tree.session.windows("emg", 100, 100, gap_s=gap_s)


def test_labels_of_a_stream_need_their_columns():
    dataset = make_tree(ramp(100), np.arange(100) / 100, 100).session.streams["emg"]
    with pytest.raises(
        SessionError, match=r"labels have the columns \['time'\]; expected timestamp"
    ):
        dataset.session.windows(100, 100, labels=pd.DataFrame({"time": [0.0]}))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"class_index": ["rest", "fist"]}, r"class_index holds 'rest'.* pandas.factorize"),
        ({"class_index": pd.Categorical(["rest", "fist"])}, "class_index holds 'rest'"),
        ({"class_index": [0, np.nan]}, "class_index holds nan, expected whole numbers"),
        ({"class_index": pd.array([0, None], "Int64")}, "class_index holds <NA>"),
        ({"class_index": [0, 0.5]}, "class_index holds 0.5"),
        ({"timestamp": pd.to_datetime(["2026-01-01"] * 2)}, "expected seconds on the stream"),
    ],
)
def test_labels_are_not_cast_to_others(more, words):
    dataset = make_tree(ramp(100), np.arange(100) / 100, 100).session.streams["emg"]
    labels = pd.DataFrame({"timestamp": [0.0, 0.5], "class_index": [0.0, 1.0]})
    assert len(dataset.session.windows(100, 100, labels=labels)) == 10
    with pytest.raises(SessionError, match=words):
        dataset.session.windows(100, 100, labels=labels.assign(**more))


def test_windows_of_arrays_of_one_s_own_are_of_no_session():
    stream = xr.Dataset(
        {"data": (("time", "channel"), np.zeros((100, 2)))},
        {"time": np.arange(100) / 100},
        {"fs": 100.0},
    )
    windows = stream.session.windows(100, 50)
    assert "session" not in windows.coords
    assert "session" not in stream.session.peri_event([0.5], 0.1, 0.1).coords
    assert [len(batch) for batch in labtree.batches(windows, 8, shuffle=0)] == [8, 8, 3]


def test_labels_that_are_no_table_are_refused_with_the_line_to_write():
    stream = xr.Dataset(
        {"data": (("time", "channel"), np.zeros((100, 2)))},
        {"time": np.arange(100) / 100},
        {"fs": 100.0},
    )
    with pytest.raises(SessionError, match=r"a DataFrame, found ndarray; write pd.DataFrame"):
        stream.session.windows(100, 50, labels=np.array([0.1, 0.5]))
    with pytest.raises(SessionError, match=r"a DataFrame, found list"):
        stream.session.trials([0.1, 0.5])
