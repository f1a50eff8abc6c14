# ruff: noqa: RUF043
"""Opening sessions: every version, damage, and files that mean harm."""

import json
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numcodecs import zstd

import labtree
from labtree import FormatError, Recorder, SessionError, StreamInfo
from labtree.errors import (
    AlreadyExistsError,
    MissingFileError,
    RecordingWarning,
    RecordingWriteError,
    UnknownNameError,
)
from labtree.recording import archive, recording_files, split_sessions_by_stream
from labtree.testing.recordings import record_emg

EMG = (np.arange(300)[:, None] * 5 + np.arange(3)).astype("int16") + 1
TIMES = 50 + np.arange(300) / 100
SCHEMA = {
    "2.1.0": {},
    "2.2.0": {"schema_version": 2},
    "2.5.0": {
        "schema_version": 3,
        "control_space": {"format": "alias-address/1", "dofs": {"a": "b"}},
    },
    "2.5.1": {"schema_version": 3, "pose_convention": "standard"},
    "2.6.2": {
        "schema_version": 3,
        "pose_convention": "standard",
        "name": "Prüfling",
        "extras": {"conditioning": {"emg": {"notch_hz": 50}}},
    },
}


def emg_session(peer):
    return peer().stream("emg", EMG, TIMES, 100)


# --- versions -------------------------------------------------------------------------


@pytest.mark.parametrize("version", SCHEMA)
@pytest.mark.parametrize("form", ["write", "zip"])
def test_every_version_opens(peer, version, form):
    named = {
        "channel_names": ["F1", "F2", "E1"],
        "channel_grids": [{"label": "IN", "cells": [[0, None]]}],
    }
    session = peer().stream("emg", EMG, TIMES, 100, **(named if SCHEMA[version] else {}))
    session.stream("empty", np.empty((0, 2)), [], 60)
    session.label(50.5, 1).label(52.0, -1).label(51.0, 0)
    path = getattr(session, form)(class_names=["rest", "fist"], **SCHEMA[version])
    tree = labtree.open_session(path)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG)
    np.testing.assert_array_equal(tree["streams/emg/time"].values, TIMES)
    assert tree["streams/empty/data"].shape == (0, 2)
    assert tree.session.class_names == ["rest", "fist"]
    labels = tree.session.labels
    assert labels["timestamp"].tolist() == [50.5, 51.0, 52.0]
    assert labels["class_name"].tolist() == ["fist", "rest", ""]
    assert tree.attrs["created"] == "2026-01-02T03:04:05"
    for key in ("control_space", "extras"):
        assert json.loads(tree.attrs.get(key, "null")) == SCHEMA[version].get(key)
    for key in ("name", "pose_convention", "schema_version"):
        assert tree.attrs.get(key) == SCHEMA[version].get(key)
    if SCHEMA[version]:
        assert tree["streams/emg/channel"].values.tolist() == ["F1", "F2", "E1"]
        assert tree.session.streams["emg"].sel(channel="E1")["data"][0].item() == 3


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"schema_version": 4}, "schema_version 4, this labtree reads 1 to 3"),
        (
            {"labtree": {"version": 2}},
            "written in format version 2; this labtree reads version 1",
        ),
        ({"streams": []}, "expected 'streams' to be a JSON object"),
        ({"streams": {"../evil": {}}}, "would leave the session"),
        ({"streams": {"a/b": {}}}, "would leave the session"),
        ({"streams": {"..": {}}}, "would leave the session"),
        ({"streams": {"emg": 3}}, "expected a JSON object"),
        ({"class_names": "rest"}, "class_names is 'rest', expected a list of str"),
        ({"streams": {"emg": {"fs": "fast"}}}, "fs is 'fast', expected a number"),
        (
            {"streams": {"emg": {"n_channels": 9}}},
            "declared as 9 channels of int16, its array has 3",
        ),
        (
            {"streams": {"emg": {"dtype": "float32"}}},
            "channels of float32, its array has 3 of int16",
        ),
        ({"streams": {"emg": {"channel_names": ["a"]}}}, "1 channel names for 3 channels"),
        ({"streams": {"emg": {"units": 3}}}, "units is 3, expected a str"),
    ],
)
def test_meta_that_cannot_be_right(peer, meta, message):
    session = emg_session(peer)
    with pytest.raises(FormatError, match=message):
        labtree.open_session(session.write(**meta))


def test_meta_may_lack_almost_everything(peer):
    session = emg_session(peer)
    session.write()
    (session.folder / "meta.json").write_text('{"streams": {"emg": {"fs": 100}}}')
    (session.folder / "labels.json").unlink()
    tree = labtree.open_session(session.folder)
    assert tree.session.labels.empty
    assert tree.session.class_names == []
    assert tree.session.windows("emg", 50, 50).shape == (0, 3, 5)


def test_labels_as_the_peer_reads_them(peer):
    session = emg_session(peer)
    session.labels = [
        "no dict",
        {"timestamp": 51.0},
        {"class_index": 2},
        {"timestamp": 50.5, "class_index": 1.0},
    ]
    labels = labtree.open_session(session.write()).session.labels
    assert labels[["timestamp", "class_index"]].values.tolist() == [
        [0.0, 2],
        [50.5, 1],
        [51.0, -1],
    ]


@pytest.mark.parametrize(
    "label",
    [{"class_index": "x"}, {"class_index": 1.5}, {"timestamp": None}, {"class_index": 2**70}],
)
def test_labels_that_are_no_numbers(peer, label):
    session = emg_session(peer)
    session.labels = [label]
    with pytest.raises(FormatError, match="label 0 is"):
        labtree.open_session(session.write())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_none(peer, content):
    session = emg_session(peer)
    session.write()
    (session.folder / "meta.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"meta.json: expected"):
        labtree.open_session(session.folder)


# --- not a session --------------------------------------------------------------------


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a session, found nothing"):
        labtree.recording.open_recording(tmp_path / "none")
    with pytest.raises(MissingFileError, match="found no meta"):
        labtree.recording.open_recording(tmp_path)


def test_some_other_file(tmp_path):
    (tmp_path / "a.txt").write_text("hello world")
    with pytest.raises(FormatError, match="found a file that begins with b'hello wo'"):
        labtree.recording.open_recording(tmp_path / "a.txt")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n....")
    with pytest.raises(FormatError, match=r"write labtree.load_session\("):
        labtree.recording.open_recording(tmp_path / "a.h5")
    (tmp_path / "a.session.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FormatError, match="expected a zip archive"):
        labtree.recording.open_recording(tmp_path / "a.session.zip")


def test_on_missing_is_checked(peer):
    with pytest.raises(SessionError, match="on_missing must be one of .warn., .raise."):
        labtree.open_session(emg_session(peer).write(), on_missing="ignore")


def test_unknown_stream_lists_the_known(peer):
    tree = labtree.open_session(emg_session(peer).write())
    for call in (
        lambda: tree.session.streams["eeg"],
        lambda: tree.session.continuous("eeg"),
        lambda: tree.session.stream_info("eeg"),
        lambda: tree.session.windows("eeg", 50, 50),
        lambda: tree.session.trials("eeg"),
        lambda: tree.session.peri_event("eeg", [1.0], 0, 1),
    ):
        with pytest.raises(UnknownNameError, match=r"no stream 'eeg' in .*; there are: 'emg'"):
            call()


# --- damage ---------------------------------------------------------------------------


def damaged(peer, name):
    session = emg_session(peer)
    session.write()
    return session.folder, session.folder / name


def test_missing_data_chunk_of_the_peer_may_be_zeros(peer):
    folder, chunk = damaged(peer, "emg.zarr/c/1/0")
    chunk.unlink()
    with pytest.warns(RecordingWarning, match=r"chunk c/1 of emg.zarr missing, read as zeros"):
        tree = labtree.open_session(folder)
    expected = EMG.copy()
    expected[100:200] = 0
    np.testing.assert_array_equal(tree["streams/emg/data"].values, expected)
    with pytest.raises(FormatError, match="chunk c/1 of emg.zarr missing"):
        labtree.open_session(folder, on_missing="raise")


def test_real_zeros_of_the_peer_are_zeros(peer):
    data = EMG.copy()
    data[100:200] = 0
    session = peer().stream("emg", data, TIMES, 100)
    with pytest.warns(RecordingWarning, match="c/1"):
        tree = labtree.open_session(session.write())
    np.testing.assert_array_equal(tree["streams/emg/data"].values, data)


def test_missing_chunk_of_our_own_is_damage(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.init_stream("emg", StreamInfo(n_channels=3, fs=100, dtype="int16"))
        recorder.append("emg", EMG, TIMES)
    (recorder.path / "emg.zarr/c/1/0").unlink()
    with pytest.warns(RecordingWarning, match="is damaged: 100 of its 300 samples can be read"):
        tree = labtree.open_session(recorder.path)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG[:100])
    (recorder.path / "labels.json").unlink()
    with pytest.raises(FormatError, match=r"100 of its 300.*labels.json is missing"):
        labtree.open_session(recorder.path, on_missing="raise")


@pytest.mark.parametrize("chunk", ["emg_timestamps.zarr/c/2", "emg.zarr/c/2/0"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_what_is_behind_the_damage_is_cut_off(peer, chunk, how):
    folder, path = damaged(peer, chunk)
    if how == "empty":
        path.write_bytes(b"")
    elif "timestamps" in chunk:
        path.unlink()
    else:
        return  # a missing data chunk: above
    with pytest.warns(RecordingWarning, match="200 of its 300 samples can be read"):
        tree = labtree.open_session(folder)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG[:200])
    np.testing.assert_array_equal(tree["streams/emg/time"].values, TIMES[:200])


@pytest.mark.parametrize("rows", [(300, 250), (250, 300), (300, 0)])
def test_data_and_times_of_different_length(peer, rows):
    session = emg_session(peer)
    session.write()
    for name, count in zip(("emg.zarr", "emg_timestamps.zarr"), rows, strict=True):
        path = session.folder / name / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["shape"][0] = count
        path.write_text(json.dumps(metadata))
    with pytest.warns(
        RecordingWarning,
        match=f"{rows[0]} samples and {rows[1]} time stamps; the first {min(rows)}",
    ):
        tree = labtree.open_session(session.folder)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG[: min(rows)])
    assert "the first" in tree.attrs["repairs"][0]


def good_frame(rows=100):
    return zstd.compress(np.ones((rows, 3), "int16"), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (good_frame()[:-3], "damaged chunk"),
        (good_frame(50), "expected 600 bytes of samples, found 300"),
        (good_frame(10**6), "expected 600 bytes of samples, found 6000000"),
        (b"not zstd at all", "none that zstd says its size of"),
        (b"\x28\xb5\x2f\xfd", "none that zstd says its size of"),
        (good_frame()[:12] + bytes(20), "damaged chunk"),
        (bytes(5000), "would take 5000 bytes; expected at most 1630"),
    ],
)
def test_a_damaged_chunk_is_an_error_when_it_is_read(peer, content, message):
    folder, path = damaged(peer, "emg.zarr/c/1/0")
    path.write_bytes(content)
    tree = labtree.open_session(folder)
    data = tree["streams/emg/data"]
    np.testing.assert_array_equal(data[:100].values, EMG[:100])
    with pytest.raises(FormatError, match=message):
        np.asarray(data[150:160])
    with pytest.raises(FormatError, match="c/1/0"):
        np.asarray(data)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [300], r"expected \(samples, channels\)"),
        ("shape", [-1, 3], "chunk_shape"),
        ("shape", [300, 3, 1], "expected .rows,. or .rows, channels."),
        ("shape", [2**70, 3], "chunk_shape"),
        ("shape", "x", "shape"),
        (
            "chunk_grid",
            {"name": "regular", "configuration": {"chunk_shape": [0, 3]}},
            "chunk_shape",
        ),
        (
            "chunk_grid",
            {"name": "regular", "configuration": {"chunk_shape": [100, 1]}},
            "some rows of all channels",
        ),
        (
            "chunk_grid",
            {"name": "regular", "configuration": {"chunk_shape": [10**12, 3]}},
            "chunks of at most",
        ),
        ("chunk_grid", None, "expected the metadata of a zarr v3 array"),
        ("data_type", "complex64", "data_type is 'complex64', expected one of"),
        ("data_type", "|O", "data_type"),
        ("zarr_format", 2, "zarr_format is 2, expected 3"),
        ("codecs", [{"name": "bytes"}, {"name": "pickle"}], r"codecs is \['bytes', 'pickle'\]"),
        ("codecs", [{}], "expected the metadata"),
        ("chunk_key_encoding", {"name": "v2"}, "chunk_key_encoding"),
        ("fill_value", 7, "fill_value is 7, expected 0"),
    ],
)
def test_hostile_array_metadata(peer, key, value, message):
    folder, path = damaged(peer, "emg.zarr/zarr.json")
    metadata = json.loads(path.read_text())
    metadata[key] = value
    if key == "shape" and value == [300]:
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [100]
    path.write_text(json.dumps(metadata))
    with pytest.raises(FormatError, match=message):
        labtree.open_session(folder)


def test_more_rows_than_any_disk_holds(peer):
    session = emg_session(peer)
    session.write()
    for name, message in (
        ("emg.zarr", "1000000000000000 samples and 300 time stamps; the first 300 are kept"),
        ("emg_timestamps.zarr", "300 of its 1000000000000000 samples can be read"),
    ):
        path = session.folder / name / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["shape"][0] = 10**15
        path.write_text(json.dumps(metadata))
        with pytest.warns(RecordingWarning, match=message):
            tree = labtree.open_session(session.folder)
        np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG)


def test_big_endian_and_uncompressed_chunks(peer):
    folder, path = damaged(peer, "emg.zarr/zarr.json")
    metadata = json.loads(path.read_text())
    metadata["codecs"] = [{"name": "bytes", "configuration": {"endian": "big"}}]
    path.write_text(json.dumps(metadata))
    for chunk in range(3):
        block = EMG[chunk * 100 : chunk * 100 + 100]
        (folder / f"emg.zarr/c/{chunk}/0").write_bytes(block.astype(">i2").tobytes())
    data = labtree.open_session(folder)["streams/emg/data"]
    assert data.dtype == np.dtype("int16")
    np.testing.assert_array_equal(data.values, EMG)


def test_a_stream_without_its_arrays_is_left_out_and_told(peer):
    session = emg_session(peer).stream("kin", EMG, TIMES, 100)
    session.write()
    import shutil

    shutil.rmtree(session.folder / "kin_timestamps.zarr")
    with pytest.warns(
        RecordingWarning, match="'kin' is left out: kin_timestamps.zarr is missing"
    ):
        tree = labtree.open_session(session.folder)
    assert list(tree.session.streams) == ["emg"]


# --- archives -------------------------------------------------------------------------


def rezip(path, change):
    """Write an archive again with other (name, content, compression) entries."""
    with zipfile.ZipFile(path) as archive:
        entries = [
            (e.filename, archive.read(e), zipfile.ZIP_STORED) for e in archive.infolist()
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w") as archive:
            for name, content, compression in change(entries):
                info = zipfile.ZipInfo(name)
                info.compress_type = compression
                archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "C:\\x", "..\\evil", "a//b", "a/./b"]
)
def test_entries_that_leave_the_archive(peer, name):
    path = rezip(emg_session(peer).zip(), lambda entries: [*entries, (name, b"x", 0)])
    with pytest.raises(FormatError, match="would leave the archive"):
        labtree.open_session(path)


def test_two_entries_of_one_name(peer):
    path = rezip(emg_session(peer).zip(), lambda entries: [*entries, entries[0]])
    with pytest.raises(FormatError, match="two entries are called"):
        labtree.open_session(path)


def test_deflated_entries_and_folder_entries_are_read(peer):
    path = rezip(
        emg_session(peer).zip(),
        lambda entries: [
            ("emg.zarr/", b"", 0),
            *((n, c, zipfile.ZIP_DEFLATED) for n, c, _ in entries),
        ],
    )
    np.testing.assert_array_equal(labtree.open_session(path)["streams/emg/data"].values, EMG)


def test_another_compression_is_refused(peer):
    path = rezip(
        emg_session(peer).zip(),
        lambda entries: [(n, c, zipfile.ZIP_LZMA) for n, c, _ in entries],
    )
    with pytest.raises(FormatError, match="has compression 14; expected stored or deflated"):
        labtree.open_session(path)


def test_a_name_other_than_session_zip_opens(peer, tmp_path):
    path = emg_session(peer).zip().rename(tmp_path / "renamed.zip")
    np.testing.assert_array_equal(labtree.open_session(path)["streams/emg/data"].values, EMG)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (10**6, "is damaged: expected"),
        (200 * 10**6, "would take .* bytes; expected at most 1630"),
    ],
)
def test_zip_bomb_takes_no_memory(peer, size, message):
    """A chunk that says it holds 600 bytes, and holds many more."""
    import tracemalloc

    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(bytes(size)) + bomb.flush()
    session = emg_session(peer)
    path = rezip(
        session.zip(), lambda entries: [(n, c, zipfile.ZIP_STORED) for n, c, _ in entries]
    )
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("emg.zarr/c/1/0")
    content = bytearray(path.read_bytes())
    # Put the bomb at the end of the entries, and let the catalogue point at it.
    at = content.index(b"PK\x01\x02")
    header = struct.pack("<4s22xHH", b"PK\x03\x04", 0, 0)
    catalogue = content[at:]
    place = catalogue.index(b"emg.zarr/c/1/0") - 46
    catalogue[place + 10 : place + 12] = struct.pack("<H", zipfile.ZIP_DEFLATED)
    catalogue[place + 20 : place + 28] = struct.pack("<II", len(packed), entry.file_size)
    catalogue[place + 42 : place + 46] = struct.pack("<I", at)
    end = catalogue.rindex(b"PK\x05\x06")
    catalogue[end + 16 : end + 20] = struct.pack("<I", at + len(header) + len(packed))
    path.write_bytes(bytes(content[:at]) + header + packed + bytes(catalogue))
    data = labtree.open_session(path)["streams/emg/data"]
    np.testing.assert_array_equal(data[:100].values, EMG[:100])
    tracemalloc.start()
    with pytest.raises(FormatError, match=message):
        np.asarray(data[100:200])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_an_entry_that_promises_too_much_is_refused_unread(peer, monkeypatch):
    path = emg_session(peer).zip()
    monkeypatch.setattr(recording_files, "MAX_JSON_BYTES", 100)
    with pytest.raises(FormatError, match="would take .* bytes; expected at most 100"):
        labtree.open_session(path)


def test_a_flipped_bit_in_an_archive_is_an_error(peer):
    path = emg_session(peer).zip()
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("emg.zarr/c/1/0").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 30 + len("emg.zarr/c/1/0") + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="c/1/0 is damaged"):
        np.asarray(labtree.open_session(path)["streams/emg/data"])


def test_a_truncated_archive(peer):
    path = emg_session(peer).zip()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="expected a zip archive"):
        labtree.open_session(path)


def test_an_archive_that_is_replaced_while_it_is_open(peer):
    path = emg_session(peer).zip()
    tree = labtree.open_session(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SessionError, match="has changed since it was opened"):
        np.asarray(tree["streams/emg/data"])


def test_close_releases_and_refuses(peer):
    path = emg_session(peer).zip()
    tree = labtree.open_session(path)
    data = tree["streams/emg/data"]
    tree.session.close()
    path.unlink()
    with pytest.raises(SessionError, match="is closed; open it again"):
        np.asarray(data)
    with labtree.open_session(emg_session(peer).write()) as tree:
        assert tree["streams/emg/data"][0, 0] == 1


def test_nothing_stays_open(peer):
    trees = [labtree.open_session(emg_session(peer).zip()) for _ in range(3)]
    for tree in trees:
        np.asarray(tree["streams/emg/data"])
    held = [fd.resolve() for fd in Path("/proc/self/fd").iterdir()]
    assert len(held) > 2
    assert not any("session.zip" in str(path) for path in held)


# --- packing --------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    recorder = Recorder(tmp_path, name="subject 03 fist", class_names=["a"])
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=100, dtype="int16"))
    recorder.init_stream("empty", StreamInfo(n_channels=1, fs=5))
    recorder.append("emg", EMG[:250], TIMES[:250])
    recorder.add_label(0, timestamp=51.0)
    return recorder


def test_pack(recorded, tmp_path):
    folder = recorded.path
    path = recorded.pack_to_zip()
    assert path == recorded.path
    assert path.name == f"{folder.name}_subject-03-fist.session.zip"
    assert list(tmp_path.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {e.compress_type for e in archive.infolist()} == {zipfile.ZIP_STORED}
        assert not any(e.is_dir() for e in archive.infolist())
        assert {"meta.json", "labels.json", "emg.zarr/c/2/0"} <= set(archive.namelist())
    tree = labtree.open_session(path)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG[:250])
    assert len(tree.session.labels) == 1
    with pytest.raises(SessionError, match="is packed already"):
        recorded.pack_to_zip()


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("a b", "_a-b"),
        ("  ", ""),
        (None, ""),
        ("Prüfling 1/ max", "_Pr-fling-1-max"),
        ("x" * 60, "_" + "x" * 40),
        ("../..", ""),
    ],
)
def test_slugs(name, slug):
    assert archive._slug(name) == slug


def test_pack_without_streams(tmp_path):
    path = Recorder(tmp_path).pack_to_zip()
    assert labtree.open_session(path).session.streams == {}


def still_usable(folder):
    tree = labtree.open_session(folder)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, EMG[:250])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_pack_that_meets_a_full_disk(recorded, monkeypatch):
    folder = recorded.path

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "write", full)
        with pytest.raises(RecordingWriteError, match="cannot be written: No space left"):
            recorded.pack_to_zip()
    still_usable(folder)
    assert recorded.pack_to_zip().exists()


def test_pack_that_is_interrupted(recorded, monkeypatch):
    folder = recorded.path

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorded.pack_to_zip()
    still_usable(folder)


# zipfile closes its archive once more when it is forgotten.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pack_that_is_interrupted_in_the_middle_of_a_file(recorded, monkeypatch):
    folder = recorded.path

    def interrupted(*args, **options):
        kept.append(real(*args, **options))
        raise KeyboardInterrupt

    kept, real = [], zipfile.ZipFile.open
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorded.pack_to_zip()
    still_usable(folder)


@pytest.mark.parametrize("name", ["emg.zarr/c/1/0", "emg_timestamps.zarr/c/2", "labels.json"])
def test_pack_finds_what_was_written_wrongly(recorded, monkeypatch, name):
    folder = recorded.path
    real = zipfile.ZipFile.write

    def wrong(self, path, entry):
        if entry == name:
            self.writestr(entry, b"something else")
        else:
            real(self, path, entry)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "write", wrong)
        with pytest.raises(FormatError, match="differs from the file in"):
            recorded.pack_to_zip()
    still_usable(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [("emg.zarr/c/1/0", "damaged chunk"), ("emg_timestamps.zarr/c/2", "lacks chunks")],
)
def test_a_folder_that_is_damaged_is_not_packed(recorded, name, message):
    recorded.close()
    chunk = recorded.path / name
    before = recorded.path
    if "timestamps" in name:
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(FormatError, match=message):
        recorded.pack_to_zip()
    assert before.is_dir()
    assert recorded.path == before


def test_pack_goes_over_nothing(recorded):
    recorded.close()
    target = recorded.path.with_name(f"{recorded.path.name}_subject-03-fist.session.zip")
    target.write_text("mine")
    with pytest.raises(AlreadyExistsError, match="exists already; move it away"):
        recorded.pack_to_zip()
    assert target.read_text() == "mine"
    assert recorded.path.is_dir()


def test_a_folder_that_cannot_be_removed_is_told(recorded, monkeypatch):
    recorded.close()
    folder = recorded.path

    def refuse(path, *_, **__):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.warns(RecordingWarning, match="is complete, but .* could not be removed"):
        path = recorded.pack_to_zip()
    assert folder.is_dir()
    np.testing.assert_array_equal(
        labtree.open_session(path)["streams/emg/data"].values, EMG[:250]
    )


# --- trees ----------------------------------------------------------------------------


@pytest.fixture
def tree(peer):
    session = emg_session(peer)
    session.label(51.0, 1)
    return labtree.open_session(session.write(class_names=["rest", "fist"]))


def test_the_tree_is_lazy_and_stays_so(tree, monkeypatch):
    from labtree.recording.chunks import ArrayReader

    reads = []
    real = ArrayReader._decode
    monkeypatch.setattr(
        ArrayReader,
        "_decode",
        lambda self, i, out: (reads.append((self.name, i)), real(self, i, out))[1],
    )
    repr(tree), tree._repr_html_(), repr(tree.session), tree.session._repr_html_()
    tree.session.stream_info("emg"), tree.session.labels, tree.copy()
    assert reads == []
    np.asarray(tree["streams/emg/data"][120:130])
    assert reads == [("emg.zarr", 1)]


@pytest.mark.parametrize(
    "key",
    [
        np.s_[:], np.s_[10:250], np.s_[5], np.s_[-1], np.s_[::7], np.s_[::-3],
        np.s_[250:20:-11], np.s_[20:10],
        np.s_[[3, 299, 150, 3]], np.s_[:, 1], np.s_[:, -1], np.s_[10:20, [2, 0]], np.s_[:,
        ::2], np.s_[:, ::-1],
        np.s_[[5, 280], 1], np.s_[7, 1], np.s_[[]], np.s_[:, []], np.s_[::-1, 0],
    ],
)  # fmt: skip
def test_indexing_is_numpy_s(tree, key):
    rows, columns = key if isinstance(key, tuple) else (key, slice(None))
    expected = EMG[rows][..., columns]
    found = tree["streams/emg/data"][key].values
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_vectorised_indexing(tree):
    rows = xr.DataArray([0, 150, 299], dims="point")
    columns = xr.DataArray([2, 0, 1], dims="point")
    found = tree["streams/emg/data"].isel(time=rows, channel=columns)
    np.testing.assert_array_equal(found.values, EMG[[0, 150, 299], [2, 0, 1]])


def test_continuous_selects_by_time(tree):
    array = tree.session.continuous("emg")
    np.testing.assert_array_equal(array.sel(time=slice(51, 51.5)).values, EMG[100:151])
    assert array.attrs["fs"] == 100


def test_trees_go_through_pickle_and_dask(tree):
    again = pickle.loads(pickle.dumps(tree))
    np.testing.assert_array_equal(again["streams/emg/data"].values, EMG)
    chunked = tree["streams/emg"].to_dataset().chunk({"time": 50})
    assert chunked["data"].sum().compute() == EMG.sum()


def test_trees_are_saved_by_xarray(tree, tmp_path):
    tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as again:
        np.testing.assert_array_equal(again["streams/emg/data"].values, EMG)
        assert again["labels/class_name"].values.tolist() == ["fist"]


def test_stream_info(tree):
    assert tree.session.stream_info("emg") == StreamInfo(n_channels=3, fs=100, dtype="int16")


def test_split_sessions_by_stream(peer, tmp_path):
    with_emg = emg_session(peer).zip()
    without = peer().stream("kin", EMG, TIMES, 100).write()
    split = split_sessions_by_stream([with_emg, without, tmp_path / "none"], "emg")
    assert split.with_stream == [with_emg]
    assert split.without_stream == [without]
    ((path, error),) = split.unreadable
    assert path == tmp_path / "none"
    assert isinstance(error, MissingFileError)
    assert split_sessions_by_stream(str(with_emg), "emg").with_stream == [with_emg]


def test_a_chunk_that_goes_after_opening_is_an_error_not_zeros(tmp_path):
    folder = record_emg(tmp_path)
    tree = labtree.open_session(folder)
    (folder / "emg.zarr" / "c" / "3" / "0").unlink()
    assert tree["streams/emg/data"][:3000].values.any()
    with pytest.raises(labtree.FormatError, match=r"c/3/0: the chunk is missing"):
        tree["streams/emg/data"][3000:4000].load()
    with pytest.raises(labtree.FormatError, match="the chunk is missing"):
        pickle.loads(pickle.dumps(tree))["streams/emg/data"].load()
