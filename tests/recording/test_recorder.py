"""The recorder: its files, its promises, its refusals."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import Recorder, SessionError, StreamInfo
from labtree.errors import AlreadyExistsError, RecordingWarning, UnknownNameError
from labtree.recording import journal
from labtree.recording.models import check_stream_name
from support.examples import examples


def info(**about):
    return StreamInfo(**{"n_channels": 2, "fs": 10, "dtype": "int16", **about})


def rows(first, count, channels=2, fs=10):
    at = np.arange(first, first + count)
    data = (at[:, None] * 10 + np.arange(channels)).astype("int16")
    return data, at / fs


@pytest.fixture
def recorder(tmp_path):
    with Recorder(tmp_path, class_names=["rest", "fist"]) as made:
        made.init_stream("emg", info())
        yield made


def read(path):
    tree = labtree.open_session(path)
    dataset = tree.session.streams["emg"]
    return dataset["data"].values, dataset["time"].values


# --- layout ---------------------------------------------------------------------------


def test_folder_name_and_finished_layout(tmp_path):
    with Recorder(tmp_path / "new" / "base", app_name="app", class_names=["rest"]) as recorder:
        recorder.init_stream("emg", info(channel_names=["a", "b"], units="uV"))
        recorder.append("emg", *rows(0, 25))
        recorder.add_label(0, timestamp=0.5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}", recorder.path.name)
    found = sorted(
        p.relative_to(recorder.path).as_posix() for p in recorder.path.rglob("*") if p.is_file()
    )
    assert found == [
        *(f"emg.zarr/c/{i}/0" for i in range(3)),
        "emg.zarr/zarr.json",
        *(f"emg_arrivals.zarr/c/{i}" for i in range(3)),
        "emg_arrivals.zarr/zarr.json",
        *(f"emg_timestamps.zarr/c/{i}" for i in range(3)),
        "emg_timestamps.zarr/zarr.json",
        "labels.json",
        "meta.json",
        "zarr.json",
    ]


def test_arrays_are_what_the_peer_reads(recorder):
    recorder.append("emg", *rows(0, 25))
    recorder.close()
    metadata = json.loads((recorder.path / "emg.zarr" / "zarr.json").read_text())
    assert metadata["shape"] == [25, 2]
    assert metadata["data_type"] == "int16"
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [10, 2]
    assert metadata["chunk_key_encoding"] == {
        "name": "default",
        "configuration": {"separator": "/"},
    }
    assert metadata["fill_value"] == 0
    assert metadata["codecs"] == [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {
            "name": "blosc",
            "configuration": {
                "typesize": 2,
                "cname": "zstd",
                "clevel": 1,
                "shuffle": "bitshuffle",
                "blocksize": 0,
            },
        },
    ]
    times = json.loads((recorder.path / "emg_timestamps.zarr" / "zarr.json").read_text())
    assert times["shape"] == [25]
    assert times["chunk_grid"]["configuration"]["chunk_shape"] == [10]
    assert times["data_type"] == "float64"
    data, stamps = rows(0, 25)
    # The peer opens each array by its path, with zarr.
    opened = zarr.open_array(str(recorder.path / "emg.zarr"), mode="r")
    np.testing.assert_array_equal(opened[:], data)
    opened = zarr.open_array(str(recorder.path / "emg_timestamps.zarr"), mode="r")
    np.testing.assert_array_equal(opened[:], stamps)


def test_meta_is_what_the_peer_reads(recorder):
    recorder.add_label(1, timestamp=0.25)
    recorder.add_label(-1, timestamp=0.75)
    recorder.close()
    meta = json.loads((recorder.path / "meta.json").read_text())
    assert meta["app_name"] == "labtree"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", meta["created"])
    assert meta["class_names"] == ["rest", "fist"]
    about = meta["streams"]["emg"]
    assert (about["n_channels"], about["fs"], about["dtype"]) == (2, 10.0, "int16")
    assert json.loads((recorder.path / "labels.json").read_text()) == [
        {"timestamp": 0.25, "class_index": 1},
        {"timestamp": 0.75, "class_index": -1},
    ]


def test_plain_xarray_opens_the_folder(recorder):
    data, times = rows(0, 25)
    recorder.append("emg", data, times)
    recorder.init_stream("kin", info(n_channels=3, fs=5, dtype="float32"))
    recorder.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(recorder.path, chunks=None)
    np.testing.assert_array_equal(dataset["emg.zarr"], data)
    np.testing.assert_array_equal(dataset["emg_timestamps.zarr"], times)
    assert dataset["emg.zarr"].dims == ("emg_time", "emg_channel")
    assert dataset["kin.zarr"].shape == (0, 3)


def test_every_chunk_is_stored_even_of_zeros(recorder):
    recorder.append("emg", np.zeros((30, 2), "int16"), np.zeros(30))
    recorder.close()
    assert len(list((recorder.path / "emg.zarr" / "c").iterdir())) == 3
    assert len(list((recorder.path / "emg_timestamps.zarr" / "c").iterdir())) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, _ = read(recorder.path)
    assert data.shape == (30, 2)


def test_meta_stands_from_the_first_moment(tmp_path):
    recorder = Recorder(tmp_path, name="first", extras={"mvc": np.float32(0.5)})
    meta = json.loads((recorder.path / "meta.json").read_text())
    assert meta["labtree"]["state"] == "recording"
    assert meta["extras"] == {"mvc": 0.5}
    recorder.init_stream("emg", info())
    assert "emg" in json.loads((recorder.path / "meta.json").read_text())["streams"]
    recorder.save_meta("other", ["a"], extras={"x": [1, None]})
    recorder.close()
    meta = json.loads((recorder.path / "meta.json").read_text())
    assert (meta["app_name"], meta["class_names"], meta["name"]) == ("other", ["a"], "first")
    assert meta["labtree"]["state"] == "finished"


def test_clock_offset_leads_to_wall_clock_time(tmp_path):
    recorder = Recorder(tmp_path, clock=lambda: time.time() - 1000)
    recorder.close()
    own = json.loads((recorder.path / "meta.json").read_text())["labtree"]
    assert own["clock_to_unix_s"] == pytest.approx(1000, abs=0.01)


def test_label_without_time_uses_the_clock(tmp_path):
    with Recorder(tmp_path, clock=lambda: 12.5) as recorder:
        assert recorder.add_label(np.int64(3)).timestamp == 12.5
    assert labtree.open_session(recorder.path).session.labels["class_index"].tolist() == [3]


# --- samples --------------------------------------------------------------------------


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.integers(0, 37), max_size=12), st.integers(100, 3000))
def test_any_packets_come_back(tmp_path_factory, sizes, segment):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_BYTES", segment)
        recorder = Recorder(tmp_path_factory.mktemp("any"))
        recorder.init_stream("emg", info())
        first = 0
        for size in sizes:
            recorder.append("emg", *rows(first, size))
            first += size
        recorder.close()
    expected, stamps = rows(0, first)
    data, times = read(recorder.path)
    np.testing.assert_array_equal(data, expected)
    np.testing.assert_array_equal(times, stamps)
    assert not (recorder.path / "journal").exists()


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64"]
)
def test_every_dtype_keeps_its_extremes(tmp_path, dtype):
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind == "i" else np.finfo(kind)
    values = np.array([[limits.min], [limits.max], [0]], kind)
    if kind.kind == "f":
        values = np.vstack([values, [[np.nan]], [[-0.0]], [[np.inf]]]).astype(kind)
    with Recorder(tmp_path) as recorder:
        recorder.init_stream("emg", StreamInfo(n_channels=1, fs=2, dtype=kind))
        recorder.append("emg", values, np.arange(len(values)))
    data, _ = read(recorder.path)
    assert data.dtype == kind
    assert data.tobytes() == values.tobytes()


def test_views_lists_and_narrower_types_are_taken(recorder):
    wide = np.arange(40, dtype="int16").reshape(4, 10)
    recorder.append("emg", wide[:, ::5], [0, 1, 2, 3])
    recorder.append("emg", wide.astype("int8")[:, :2], np.arange(4, 8, dtype="int32"))
    recorder.append("emg", wide.astype(">i2")[:, 2:4], np.arange(8.0, 12).astype(">f8"))
    recorder.close()
    data, times = read(recorder.path)
    np.testing.assert_array_equal(data, np.vstack([wide[:, ::5], wide[:, :2], wide[:, 2:4]]))
    np.testing.assert_array_equal(times, np.arange(12.0))


def test_stream_without_a_rate(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.init_stream("emg", StreamInfo(n_channels=1, fs=0, dtype="int32"))
        for moment in (0.5, 0.5, 700.25):
            recorder.append("emg", np.array([[7]], "int32"), [moment])
    data, times = read(recorder.path)
    assert times.tolist() == [0.5, 0.5, 700.25]
    assert data.ravel().tolist() == [7, 7, 7]


def test_a_packet_longer_than_a_chunk_and_a_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 500)
    with Recorder(tmp_path) as recorder:
        recorder.init_stream("emg", info())
        recorder.append("emg", *rows(0, 3))
        recorder.append("emg", *rows(3, 1000))
        recorder.append("emg", *rows(1003, 4))
    np.testing.assert_array_equal(read(recorder.path)[0], rows(0, 1007)[0])


def test_journal_does_not_grow_with_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4000)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info())
    for first in range(0, 20_000, 10):
        recorder.append("emg", *rows(first, 10, fs=10_000))
    folder = recorder.path / "journal" / "streams" / "emg"
    for _ in range(6000):
        if len(list(folder.iterdir())) <= 20:  # of 60, each of 4 kB or a packet more
            break
        time.sleep(0.01)
    assert len(list(folder.iterdir())) <= 20
    recorder.close()
    assert len(read(recorder.path)[0]) == 20_000


@pytest.mark.parametrize("sync", ["disk", 0.005])
def test_sync_to_disk(tmp_path, monkeypatch, sync):
    calls = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(fd), real(fd)))
    recorder = Recorder(tmp_path, sync=sync)
    recorder.init_stream("emg", info())
    calls.clear()
    recorder.append("emg", *rows(0, 5))
    if sync == "disk":
        assert len(calls) == 1
    for _ in range(12_000):
        if calls:
            break
        time.sleep(0.005)
    assert calls
    recorder.add_label(1, timestamp=0.0)
    recorder.close()
    assert len(read(recorder.path)[0]) == 5


def test_os_sync_never_waits_for_the_disk_in_append(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: pytest.fail("waited for the disk"))
        recorder.append("emg", *rows(0, 5))
    recorder.close()


@pytest.mark.parametrize("sync", ["never", 0, -1, math.inf, math.nan, True, None])
def test_bad_sync(tmp_path, sync):
    with pytest.raises(SessionError, match='sync is "os", "disk" or a number'):
        Recorder(tmp_path, sync=sync)
    assert list(tmp_path.iterdir()) == []


def test_eight_threads_one_stream_each(tmp_path):
    recorder = Recorder(tmp_path)
    problems = []

    def work(number):
        try:
            name = f"s{number}"
            recorder.init_stream(name, info(fs=50))
            for first in range(0, 1000, 10):
                data, times = rows(first, 10, fs=50)
                recorder.append(name, data + number, times)
                if first % 100 == 0:
                    recorder.add_label(number, timestamp=first / 50)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    assert problems == []
    tree = labtree.open_session(recorder.path)
    assert sorted(tree.session.streams) == [f"s{number}" for number in range(8)]
    for number in range(8):
        dataset = tree.session.streams[f"s{number}"]
        np.testing.assert_array_equal(dataset["data"].values, rows(0, 1000)[0] + number)
    assert tree.session.labels["class_index"].value_counts().tolist() == [10] * 8


def test_threads_on_one_stream_lose_nothing(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info(fs=50))

    def work(number):
        for _ in range(200):
            recorder.append("emg", np.full((3, 2), number, "int16"), np.zeros(3))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    data, _ = read(recorder.path)
    assert np.bincount(data[:, 0]).tolist() == [600] * 8
    assert (data.reshape(-1, 3, 2) == data.reshape(-1, 3, 2)[:, :1, :1]).all()


def test_two_recordings_in_the_same_second(tmp_path):
    made = [Recorder(tmp_path) for _ in range(5)]
    for recorder in made:
        recorder.close()
    assert len({recorder.path for recorder in made}) == 5


def test_a_taken_folder_is_never_recorded_over(tmp_path, monkeypatch):
    from labtree.recording import recorder as module

    class Always:
        hex = "0" * 32

    monkeypatch.setattr(module, "uuid4", Always)
    first = Recorder(tmp_path)
    first.init_stream("emg", info())
    first.append("emg", *rows(0, 5))
    try:
        second = Recorder(tmp_path)
    except AlreadyExistsError:
        pass
    else:  # the second went over
        assert second.path != first.path
        second.close()
    first.close()
    assert len(read(first.path)[0]) == 5


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "times", "message"),
    [
        (
            np.zeros(2, "i2"),
            [0.0],
            r"expected data \(n, 2\) and timestamps \(n,\), found \(2,\)",
        ),
        (np.zeros((1, 3), "i2"), [0.0], r"found \(1, 3\) and \(1,\)"),
        (np.zeros((10, 2), "i2"), np.zeros(5), r"found \(10, 2\) and \(5,\)"),
        (np.zeros((1, 2), "i2"), 0.0, r"and \(\)"),
        (np.zeros((1, 2), "f4"), [0.0], r"holds int16, float32 would lose values; write data"),
        (np.zeros((1, 2), "i4"), [0.0], "int32 would lose values"),
        (np.zeros((1, 2), "c8"), [0.0], "complex64 would lose values"),
        (np.array([["a", "b"]]), [0.0], "would lose values"),
        (np.zeros((1, 2), "i2"), ["x"], "timestamps are float64 seconds, found <U1"),
        (np.zeros((1, 2), "i2"), [1j], "timestamps are float64 seconds"),
        (
            np.ma.zeros((1, 2), "i2"),
            [0.0],
            "a recording cannot keep the mask of a masked array",
        ),
        (
            np.zeros((1, 2), "i2"),
            np.ma.zeros(1),
            "a recording cannot keep the mask of a masked array",
        ),
        (
            np.zeros((1, 2), "i2"),
            np.array([2**53 + 1]),
            "timestamps hold 9007199254740993, which float64 would change",
        ),
    ],
)
def test_bad_samples_are_refused_and_nothing_is_written(recorder, data, times, message):
    recorder.append("emg", np.ones((2, 2), "i2"), [0.0, 1.0])
    with pytest.raises(SessionError, match=message) as caught:
        recorder.append("emg", data, times)
    assert isinstance(caught.value, ValueError)
    assert "'emg'" in str(caught.value)
    recorder.append("emg", np.ones((1, 2), "i2"), [1.0])
    recorder.close()
    assert read(recorder.path)[1].tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([3.0, np.nan], "timestamp 1 is nan, expected finite"),
        ([np.nan], "timestamp 0 is nan"),
        ([np.inf], "timestamp 0 is inf"),
        ([-np.inf, 3], "timestamp 0 is -inf"),
        ([3.0, 2.5], "timestamp 1 is 2.5 s, before 3 s"),
        ([0.5], 'timestamp 0 is 0.5 s, before 1 s.*on_backward="keep"'),
    ],
)
def test_odd_time_stamps_are_refused_where_that_is_asked_for(tmp_path, times, message):
    recorder = Recorder(tmp_path, on_backward="raise")
    recorder.init_stream("emg", info())
    recorder.append("emg", np.ones((2, 2), "i2"), [0.0, 1.0])
    with pytest.raises(SessionError, match=message):
        recorder.append("emg", np.zeros((len(times), 2), "i2"), times)
    recorder.append("emg", np.ones((1, 2), "i2"), [1.0])
    recorder.close()
    assert read(recorder.path)[1].tolist() == [0.0, 1.0, 1.0]
    assert not (recorder.path / "emg_arrivals.zarr").exists()


def test_on_backward_is_checked(tmp_path):
    with pytest.raises(SessionError, match=r"one of .keep., .raise., found 'drop'"):
        Recorder(tmp_path, on_backward="drop")


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_are_kept_exactly_or_refused(tmp_path, dtype):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=10, dtype="float64"))
    exact = np.array([[2**53], [2**60], [0]], dtype)
    recorder.append("emg", exact, [0.0, 0.1, 0.2])
    for value in (2**53 + 1, 2**63 - 1):
        with pytest.raises(SessionError, match=f"samples hold {value}, which float64 would"):
            recorder.append("emg", np.array([[value]], dtype), [0.3])
    recorder.close()
    assert read(recorder.path)[0].astype(object).tolist() == exact.astype(object).tolist()


def test_a_packet_beyond_what_a_segment_holds_is_refused(recorder, monkeypatch):
    from labtree.recording import recorder as module

    monkeypatch.setattr(module, "MOST_PACKET_BYTES", 30)
    with pytest.raises(SessionError, match="a packet of 40 bytes; append it in parts of at mo"):
        recorder.append("emg", *rows(0, 10))


def test_unknown_stream_lists_the_known(recorder):
    with pytest.raises(
        UnknownNameError, match=r"no stream 'eeg'.*\['emg'\].*init_stream\('eeg'"
    ) as caught:
        recorder.append("eeg", np.zeros((1, 2)), [0.0])
    assert isinstance(caught.value, KeyError)


def test_a_stream_is_begun_once(recorder):
    recorder.append("emg", *rows(0, 5))
    with pytest.raises(AlreadyExistsError, match="'emg' exists already"):
        recorder.init_stream("emg", info())
    recorder.close()
    assert len(read(recorder.path)[0]) == 5


def test_closed_recorder(recorder):
    recorder.close()
    recorder.close()
    for call in (
        lambda: recorder.append("emg", *rows(0, 1)),
        lambda: recorder.append("emg", *rows(0, 0)),
        lambda: recorder.append("other", *rows(0, 1)),
        lambda: recorder.add_label(0, 0.0),
        lambda: recorder.init_stream("kin", info()),
        lambda: recorder.save_meta("x"),
    ):
        with pytest.raises(SessionError, match=r"is closed; make a new one: labtree.Recorder"):
            call()


@pytest.mark.parametrize(
    ("index", "timestamp"),
    [
        (1.5, 0.0),
        ("a", 0.0),
        (True, 0.0),
        (None, 0.0),
        (0, math.nan),
        (0, math.inf),
        (2**63, 0.0),
        (0, "x"),
    ],
)
def test_bad_labels(recorder, index, timestamp):
    with pytest.raises(SessionError, match=r"label \("):
        recorder.add_label(index, timestamp)
    recorder.add_label(1, 0.0)
    recorder.close()
    assert labtree.open_session(recorder.path).session.labels["class_index"].tolist() == [1]


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../evil", "a/b", "a\\b", "/abs", "C:x", "a\x00b", "a\nb",
        ".hidden", "emg_timestamps",
        "EMG_Timestamps", "con", "NUL.txt", "com1", "trailing.", " lead", "trail ",
        'quo"te', "a*b", "x" * 101,
        "\ud800", "EMG",
    ],
)  # fmt: skip
def test_unsafe_stream_names(recorder, tmp_path, name):
    with pytest.raises(SessionError, match="stream name"):
        recorder.init_stream(name, info())
    recorder.close()
    assert list(labtree.open_session(recorder.path).session.streams) == ["emg"]
    assert [path.name for path in tmp_path.iterdir()] == [recorder.path.name]


def test_names_that_differ_only_in_unicode_form(recorder):
    recorder.init_stream("r\u00fccken", info())
    with pytest.raises(SessionError, match="is taken"):
        recorder.init_stream("ru\u0308cken", info())


@settings(max_examples=examples(150), deadline=None)
@given(st.text(max_size=30))
def test_a_name_that_is_taken_is_one_path_component(name):
    try:
        check_stream_name(name)
    except SessionError:
        return
    assert Path(f"base/{name}.zarr").resolve().parent == Path("base").resolve()


@pytest.mark.parametrize(
    "name", ["emg 1", "hånd", "a.b", "日本", "labels", "journal", "a-b_c(1)"]
)
def test_odd_but_safe_names(tmp_path, name):
    with Recorder(tmp_path) as recorder:
        recorder.init_stream(name, info())
        recorder.append(name, *rows(0, 12))
    tree = labtree.open_session(recorder.path)
    np.testing.assert_array_equal(tree.session.streams[name]["data"].values, rows(0, 12)[0])


@pytest.mark.parametrize(
    "about",
    [
        {"n_channels": 0}, {"n_channels": True}, {"n_channels": 1.5}, {"fs": -1},
        {"fs": math.nan}, {"fs": math.inf},
        {"dtype": "uint16"}, {"dtype": "complex64"}, {"dtype": "nonsense"},
        {"channel_names": ["a"]},
        {"channel_names": ["a", "a"]}, {"color": 1},
    ],
)  # fmt: skip
def test_bad_stream_info(about):
    with pytest.raises(ValueError):
        info(**about)


def test_stream_info_must_be_one(recorder):
    with pytest.raises(
        SessionError, match=r"expected StreamInfo\(n_channels=..., fs=..., dtype=...\)"
    ):
        recorder.init_stream("kin", {"n_channels": 2})


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"a": {1: 2}}, r"extras\['a'\]: a key is a str, found 1"),
        ({"a": [object()]}, r"extras\['a'\]\[0\]: expected str, number"),
        ({"a": math.nan}, r"extras\['a'\]: JSON cannot hold nan"),
        ({"a": "\ud800"}, "JSON cannot hold"),
    ],
)
def test_extras_that_json_cannot_hold(tmp_path, extras, message):
    with pytest.raises(SessionError, match=message):
        Recorder(tmp_path, extras=extras)
    assert list(tmp_path.iterdir()) == []
    with Recorder(tmp_path, extras={"keep": 1}) as recorder:
        with pytest.raises(SessionError, match=message):
            recorder.save_meta(extras=extras)
        meta = json.loads((recorder.path / "meta.json").read_text())
        assert meta["extras"] == {"keep": 1}


def test_class_names_must_be_a_list(tmp_path):
    with pytest.raises(SessionError, match="class_names is a list of str, found 'rest'"):
        Recorder(tmp_path, class_names="rest")


def test_base_path_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="is a file, expected a folder"):
        Recorder(tmp_path / "file")


# --- the end --------------------------------------------------------------------------


def test_an_error_in_the_block_keeps_the_samples(tmp_path):
    def record():
        with Recorder(tmp_path) as recorder:
            recorder.init_stream("emg", info())
            recorder.append("emg", *rows(0, 15))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record()
    (path,) = tmp_path.iterdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(path)[0]) == 15


def test_labels_after_save_meta_are_kept(recorder):
    recorder.save_meta()
    recorder.add_label(1, timestamp=0.0)
    recorder.close()
    assert len(labtree.open_session(recorder.path).session.labels) == 1


def test_discard(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info())
    recorder.append("emg", *rows(0, 15))
    recorder.discard()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SessionError, match="is discarded"):
        recorder.append("emg", *rows(15, 1))
    with pytest.raises(SessionError, match="is discarded already"):
        recorder.discard()
    with pytest.raises(SessionError, match="is discarded already"):
        recorder.pack_to_zip()
    recorder.close()


def test_discard_after_close(recorder):
    recorder.close()
    recorder.discard()
    assert not recorder.path.exists()


def test_repr_says_what_is_recorded(recorder):
    recorder.append("emg", *rows(0, 7))
    assert "emg (7)" in repr(recorder)
    recorder.close()
    assert "closed" in repr(recorder)


def test_another_process_sees_a_consistent_prefix_and_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 3000)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info())
    seen = []
    stop = threading.Event()

    def look():
        while not stop.is_set():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                tree = labtree.open_session(recorder.path)
            dataset = tree.session.streams["emg"]
            data, times = dataset["data"].values, dataset["time"].values
            assert len(data) == len(times)
            np.testing.assert_array_equal(data, rows(0, len(data), fs=10_000)[0])
            seen.append((len(data), len(tree.session.labels)))

    problems = []

    def guarded():
        try:
            look()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    for first in range(0, 6000, 3):
        recorder.append("emg", *rows(first, 3, fs=10_000))
        if first % 600 == 0:
            recorder.add_label(first, timestamp=first / 10_000)
    while len(seen) < 5 and not problems:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert problems == []
    assert seen == sorted(seen)
    assert seen[-1][0] > 0
    tree = labtree.open_session(recorder.path)
    assert tree.attrs["recording_state"] == "recording"
    assert tree.session.streams["emg"].sizes["time"] == 6000
    recorder.close()
    # What was opened while it was recorded can still be read.
    np.testing.assert_array_equal(tree.session.streams["emg"]["data"].values, rows(0, 6000)[0])


def test_another_process_opens_what_is_being_recorded(recorder):
    recorder.append("emg", *rows(0, 25))
    recorder.add_label(1, timestamp=0.5)
    code = (
        "import sys, labtree; tree = labtree.open_session(sys.argv[1]);"
        "print(tree.attrs['recording_state'], len(tree.session.labels),"
        " tree['streams/emg/data'].values.sum())"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(recorder.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["recording", "1", str(rows(0, 25)[0].sum())], done.stderr
    recorder.append("emg", *rows(25, 5))


def test_recover_leaves_a_live_recording_alone(recorder):
    recorder.append("emg", *rows(0, 5))
    with pytest.raises(OSError, match="is still being recorded"):
        labtree.recording.recover(recorder.path)
    recorder.append("emg", *rows(5, 5))
    recorder.close()
    assert len(read(recorder.path)[0]) == 10
    assert labtree.recording.recover(recorder.path) == []


def test_failing_background_sync_is_told_at_the_next_append(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, sync=0.01)
    recorder.init_stream("emg", info())
    recorder.append("emg", *rows(0, 5))

    def broken(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "sync_file", broken)
        while recorder._background.sync_error is None:
            time.sleep(0.005)
        with pytest.raises(OSError, match="cannot be synced to the disk: Input/output error"):
            recorder.append("emg", *rows(5, 5))
    recorder._background.sync_error = None
    recorder.append("emg", *rows(5, 5))
    recorder.close()
    assert len(read(recorder.path)[0]) == 10


def test_warnings_are_of_one_kind():
    assert issubclass(RecordingWarning, UserWarning)


def test_an_interrupted_append_leaves_no_half_packet(recorder, monkeypatch):
    """The packet is written, then the interrupt comes, before anything else is done."""
    recorder.append("emg", *rows(0, 5))
    real = journal.JournalWriter._write

    def interrupted(self, content):
        real(self, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal.JournalWriter, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorder.append("emg", *rows(5, 5))
    recorder.append("emg", *rows(5, 3))
    recorder.append("emg", *rows(8, 7))
    recorder.close()
    np.testing.assert_array_equal(read(recorder.path)[0], rows(0, 15)[0])


def test_a_huge_packet_is_several_records_and_one_packet(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_RECORD_BYTES", 100)
    monkeypatch.setattr(journal, "_JOINED_BYTES", 50)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info(fs=50))
    recorder.append("emg", *rows(0, 200))
    real = journal.JournalWriter._write_record
    calls = []

    def fails_late(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(journal.JournalWriter, "_write_record", fails_late)
        with pytest.raises(OSError, match="No space left"):
            recorder.append("emg", *rows(200, 200))
    recorder.append("emg", *rows(200, 20))
    recorder.close()
    np.testing.assert_array_equal(read(recorder.path)[0], rows(0, 220)[0])


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_end_its_parent_s_recording(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.init_stream("emg", info())
        recorder.append("emg", *rows(0, 5))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                recorder.__exit__(None, None, None)
                for call in (recorder.close, lambda: recorder.append("emg", *rows(5, 1))):
                    with pytest.raises(SessionError, match="belongs to process"):
                        call()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        recorder.append("emg", *rows(5, 5))
    assert len(read(recorder.path)[0]) == 10


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_lock_that_its_parent_held(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.init_stream("emg", info())
        lock = recorder._streams["emg"].lock
        lock.acquire()  # as another thread that appends holds it
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(30)
                with pytest.raises(SessionError, match="belongs to process"):
                    recorder.append("emg", *rows(5, 1))
                status = 0
            finally:
                os._exit(status)
        lock.release()
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="needs fork")
def test_a_child_that_outlives_its_recorder_does_not_keep_it_from_being_finished(tmp_path):
    code = """
import os, sys
import numpy as np
from labtree import Recorder, StreamInfo
recorder = Recorder(sys.argv[1])
recorder.init_stream("emg", StreamInfo(n_channels=2, fs=10, dtype="int16"))
recorder.append("emg", np.zeros((5, 2), "int16"), np.arange(5) / 10)
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print(recorder.path, flush=True)
os._exit(1)
"""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        folder = Path(parent.stdout.readline().strip())
        assert parent.wait() == 1
        assert labtree.recover(folder) == []
        assert labtree.open_session(folder).attrs["recording_state"] == "finished"


def test_odd_time_stamps_of_a_packet_that_is_not_written_do_not_count(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info())
    recorder.append("emg", rows(0, 2)[0], [0.0, 1.0])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal.JournalWriter, "append", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"), pytest.warns(RecordingWarning):
                recorder.append("emg", rows(2, 2)[0], [0.5, np.nan])
    with pytest.warns(RecordingWarning):
        recorder.append("emg", rows(2, 2)[0], [0.5, np.nan])
    recorder.close()
    meta = json.loads((recorder.path / "meta.json").read_text())
    expected = {"backward": 1, "not_finite": 1, "first_sample": 2}
    assert meta["labtree"]["time_stamps"] == {"emg": expected}


def test_a_stream_that_could_not_be_made_can_be_made_again(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    real = recorder._show
    answers = iter([OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), None])

    def show():
        if error := next(answers, None):
            raise error
        real()

    monkeypatch.setattr(recorder, "_show", show)
    with pytest.raises(OSError, match="'emg' cannot be made: No space"):
        recorder.init_stream("emg", info())
    assert json.loads((recorder.path / "meta.json").read_text())["streams"] == {}
    recorder.init_stream("emg", info())
    recorder.append("emg", *rows(0, 5))
    recorder.close()
    assert len(read(recorder.path)[0]) == 5


def test_a_journal_that_another_program_changed_does_not_keep_close_waiting(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", info())
    (segment,) = (recorder.path / "journal" / "streams" / "emg").iterdir()
    recorder.append("emg", *rows(0, 5))
    os.truncate(segment, 50)  # in its header
    recorder.append("emg", *rows(5, 5000))
    told = []

    def close():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            recorder.close()
        told.extend(str(each.message) for each in caught)

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    assert any("are damaged" in text and "journal-damaged" in text for text in told)
    data, _ = read(recorder.path)
    np.testing.assert_array_equal(data, rows(5, 5000)[0])


def test_a_label_by_another_clock_is_a_warning(tmp_path):
    with Recorder(tmp_path, clock=lambda: 5000.0) as recorder:
        recorder.init_stream("emg", info())
        recorder.add_label(0)
        recorder.append("emg", np.zeros((1, 2), "i2"), [1.7e9])
        with pytest.warns(
            RecordingWarning, match=r"the streams are at 1.7e\+09 s; write add_label"
        ):
            recorder.add_label(1)
        recorder.add_label(2, timestamp=1.7e9)
    assert len(labtree.open_session(recorder.path).session.labels) == 3


def test_a_recorder_may_be_closed_when_the_interpreter_ends(tmp_path):
    script = """
import atexit, sys, numpy as np, labtree
recorder = labtree.Recorder(sys.argv[1])
recorder.init_stream("emg", labtree.StreamInfo(n_channels=2, fs=10, dtype="int16"))
recorder.append("emg", np.ones((35, 2), "i2"), np.arange(35) / 10)
recorder.add_label(1, timestamp=1.0)
atexit.register(recorder.close)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.iterdir()
    assert not (folder / "journal").exists()
    np.testing.assert_array_equal(read(folder)[0], np.ones((35, 2)))
