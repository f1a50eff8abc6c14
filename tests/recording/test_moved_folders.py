"""Folders and archives that other systems moved, or that a power cut or a person changed."""

import json
import os
import shutil
import signal
import threading
import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr
import zarr

import labtree
from labtree import FormatError, Recorder, StreamInfo
from labtree.errors import MissingFileError, RecordingWarning, RecordingWriteError
from labtree.recording import recorder as recorder_module
from labtree.recording.compaction import Compactor
from labtree.testing.recordings import record_emg
from support.examples import THOROUGH
from support.interrupts import interrupted_at, points_of


@pytest.fixture
def source(tmp_path):
    return record_emg(tmp_path / "source", (0, 1, 0, 2), seed=1)


def quiet(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return labtree.open_session(path)


def same(path, source):
    one, other = quiet(path), quiet(source)
    for name in other.session.streams:
        xr.testing.assert_identical(
            one[f"streams/{name}"].to_dataset().load(),
            other[f"streams/{name}"].to_dataset().load(),
        )
    xr.testing.assert_identical(one["labels"].to_dataset(), other["labels"].to_dataset())


def annex(folder, store, least=0):
    """Replace files by links into a store, as git-annex does."""
    store.mkdir()
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > least]
    for number, path in enumerate(files):
        kept = store / str(number)
        shutil.move(path, kept)
        path.symlink_to(os.path.relpath(kept, path.parent))


@pytest.mark.parametrize("least", [0, 3000])
def test_links_to_files_are_read(source, tmp_path, least):
    folder = tmp_path / "annexed"
    shutil.copytree(source, folder)
    annex(folder, tmp_path / "objects", least)
    same(folder, source)
    assert labtree.recover(folder) == []
    assert any(path.is_symlink() for path in folder.rglob("*"))


def pack_by_hand(source, path, name_of, extra=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                info = zipfile.ZipInfo("x")
                info.filename = name_of(file.relative_to(source).as_posix())
                archive.writestr(info, file.read_bytes())
        for name in extra:
            archive.writestr(name, b"not of the recording")
    return path


@pytest.mark.parametrize(
    "name_of",
    [
        lambda name: name,
        lambda name: f"a folder/{name}",
        lambda name: name.replace("/", "\\"),
        lambda name: f"top\\{name}".replace("/", "\\"),
    ],
    ids=["plain", "in a folder", "back slashes", "both"],
)
def test_archives_that_were_packed_by_hand_open(source, tmp_path, name_of):
    extra = [
        "__MACOSX/._meta.json", ".DS_Store", "Thumbs.db", "a folder/._labels.json",
        "desktop.ini",
    ]  # fmt: skip
    same(pack_by_hand(source, tmp_path / "a.zip", name_of, extra), source)


@pytest.mark.parametrize(
    ("name_of", "extra"),
    [
        (lambda name: f"./{name}", []),
        (lambda name: f"lab/day 1/{name}", []),
        (lambda name: f"top/{name}", ["README.txt", "figures/one.png"]),
    ],
    ids=["dots", "two folders", "foreign entries beside"],
)
def test_the_folder_of_a_recording_is_found_in_an_archive(source, tmp_path, name_of, extra):
    same(pack_by_hand(source, tmp_path / "a.zip", name_of, extra), source)


def test_an_archive_of_two_recordings_is_refused_by_their_names(source, tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for top in ("one", "two"):
            for file in source.rglob("*"):
                archive.write(file, f"{top}/{file.relative_to(source)}")
    with pytest.raises(FormatError, match=r"holds 2 recordings \(one/, two/\)"):
        labtree.open_session(tmp_path / "two.zip")


def test_twins_of_other_file_systems_are_passed_over(source, tmp_path):
    folder = tmp_path / "twins"
    shutil.copytree(source, folder)
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    same(folder, source)


# --- JSON that is gone, empty or cut ------------------------------------------------------


WAYS = {
    "gone": None,
    "empty": lambda whole: b"",
    "NULs": lambda whole: bytes(len(whole)),
    "cut": lambda whole: whole[: len(whole) * 2 // 3],
}


@pytest.mark.parametrize("way", WAYS)
def test_meta_is_made_again_from_the_arrays(tmp_path, way):
    recorder = Recorder(tmp_path, class_names=["rest", "fist"])
    for name, fs in (("emg", 1925.93), ("slow", 0.5), ("marks", 0.0)):
        about = StreamInfo(
            n_channels=2, fs=fs, dtype="int16", units="uV", channel_names=["l", "r"]
        )
        recorder.init_stream(name, about)
        times = np.arange(20) / (fs or 1)
        recorder.append(name, np.arange(40, dtype="int16").reshape(20, 2), times)
    recorder.add_label(1, timestamp=0.001)
    recorder.close()
    expected = labtree.open_session(recorder.path)
    infos = {name: expected.session.stream_info(name) for name in expected.session.streams}
    path = recorder.path / "meta.json"
    whole = path.read_bytes()
    path.unlink() if WAYS[way] is None else path.write_bytes(WAYS[way](whole))
    for call in (labtree.open_session, labtree.open):
        with pytest.raises(
            (MissingFileError, FormatError), match=r"meta.json.*labtree.recover"
        ):
            call(recorder.path)
    (note,) = labtree.recover(recorder.path)
    assert note.startswith("meta.json was ")
    assert note.endswith("it is made again from the arrays")
    assert labtree.recover(recorder.path) == []
    tree = labtree.open_session(recorder.path)
    assert {n: tree.session.stream_info(n) for n in tree.session.streams} == infos
    assert tree.session.class_names == ["rest", "fist"]
    assert tree.session.labels["class_name"].tolist() == ["fist"]
    if way == "cut":
        assert (recorder.path / "meta.json.damaged").read_bytes() == WAYS[way](whole)


@pytest.mark.parametrize("way", WAYS)
def test_whole_labels_of_a_damaged_file_are_kept(source, way):
    path = source / "labels.json"
    whole = path.read_bytes()
    labels = json.loads(whole)
    path.unlink() if WAYS[way] is None else path.write_bytes(WAYS[way](whole))
    kept = 2 if way == "cut" else 0
    with pytest.warns(RecordingWarning, match=r"labels.json is (damaged|missing)"):
        assert len(labtree.open_session(source).session.labels) == kept
    with pytest.raises(FormatError, match=r"labels.json is"):
        labtree.open_session(source, on_missing="raise")
    (note,) = labtree.recover(source)
    assert "labels.json was " in note
    assert json.loads(path.read_text()) == labels[:kept]
    assert labtree.recover(source) == []
    assert note in quiet(source).attrs["repairs"]


def die(recorder):
    recorder._stop()
    recorder._release()


@pytest.fixture
def dead(tmp_path):
    recorder = Recorder(tmp_path, class_names=["a"])
    recorder.init_stream("emg", StreamInfo(n_channels=2, fs=100.0, dtype="int16"))
    for first in range(0, 250, 10):
        data = np.full((10, 2), first // 10, "int16")
        recorder.append("emg", data, (first + np.arange(10)) / 100)
    recorder.add_label(0, timestamp=0.5)
    die(recorder)
    return recorder.path


@pytest.mark.parametrize("own", ["recording", None, 7, ["recording"]])
def test_a_crashed_recording_whose_meta_says_something_else_of_labtree_is_finished(dead, own):
    path = dead / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"labtree": own}))
    notes = labtree.recover(dead)
    assert f"meta.json had {own!r} under 'labtree', and no object" in notes
    written = json.loads(path.read_text())
    assert written["labtree"]["state"] == "finished"
    assert written["streams"] == meta["streams"]
    assert labtree.recover(dead) == []
    assert labtree.open_session(dead)["streams"].children.keys() == meta["streams"].keys()


@pytest.mark.parametrize(
    "own", ["recording", None, 7, ["recording"], {"version": 1, "repairs": "x"}]
)
def test_a_recording_whose_meta_says_something_else_of_labtree_is_read(source, own):
    path = source / "meta.json"
    meta = json.loads(path.read_text())
    expected = quiet(source)["streams/emg/data"].values
    path.write_text(json.dumps(meta | {"labtree": own}))
    is_damage = not isinstance(own, dict)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with labtree.open_session(source) as tree:
            assert np.array_equal(tree["streams/emg/data"].values, expected)
    told = [str(each.message) for each in caught]
    said = f"{source}: meta.json has {own!r} under 'labtree', and no object"
    assert told == ([said] if is_damage else [])
    (source / "labels.json").write_text('[{"timestamp": 1.5, "class_index": 1}, {"times')
    with pytest.raises(FormatError, match=r"labels.json is damaged: 1 complete label"):
        labtree.recording.open_recording(source, on_missing="raise")
    assert "1 complete labels are kept" in labtree.recover(source)[0]


@pytest.mark.parametrize("own", ["recording", None])
def test_a_lost_chunk_is_damage_whatever_meta_says_of_labtree(source, own):
    meta = json.loads((source / "meta.json").read_text())
    (source / "meta.json").write_text(json.dumps(meta | {"labtree": own}))
    (source / "emg.zarr" / "c" / "0" / "0").unlink()
    with pytest.raises(FormatError, match=r"0 of its .* samples can be read"):
        labtree.recording.open_recording(source, on_missing="raise")


def test_a_crashed_recording_without_meta_is_finished(dead):
    (dead / "meta.json").unlink()
    (note,) = labtree.recover(dead)
    assert note == "meta.json was missing; it is made again from the arrays"
    tree = labtree.open_session(dead)
    assert tree.attrs["recording_state"] == "finished"
    assert tree["streams/emg"].sizes["time"] == 250
    assert len(tree.session.labels) == 1
    assert labtree.recover(dead) == []


# --- metadata of arrays that are gone, empty or cut -----------------------------------------


def record_two(base, *, close):
    recorder = Recorder(base, class_names=["a"])
    for name, fs in (("emg", 100.5), ("kin", 20.0)):
        about = StreamInfo(n_channels=2, fs=fs, dtype="int16", units="uV")
        recorder.init_stream(name, about)
    for first in range(0, 450, 10):
        at = first + np.arange(10)
        for name, fs in (("emg", 100.5), ("kin", 20.0)):
            recorder.append(name, np.column_stack([at, -at]).astype("int16"), at / fs)
    recorder.add_label(0, timestamp=0.5)
    recorder.close() if close else die(recorder)
    return recorder.path


def all_of(path):
    tree = labtree.open_session(path)
    streams = {name: ds.load() for name, ds in tree.session.streams.items()}
    infos = {name: tree.session.stream_info(name) for name in streams}
    return streams, infos, tree.session.labels


@pytest.mark.parametrize("state", ["finished", "crashed", "crashed after long"])
@pytest.mark.parametrize("array", ["emg.zarr", "emg_timestamps.zarr", "emg_arrivals.zarr"])
@pytest.mark.parametrize("way", WAYS)
def test_metadata_of_an_array_are_made_again(tmp_path, monkeypatch, state, array, way):
    if state == "crashed after long":  # parts of the journal are gone already
        monkeypatch.setattr("labtree.recording.journal.SEGMENT_BYTES", 1000)
    folder = record_two(tmp_path / "base", close=state == "finished")
    if state == "crashed after long":
        assert not (folder / "journal/streams/emg" / f"{0:020d}.journal").exists()
    shutil.copytree(folder, tmp_path / "whole")
    labtree.recover(tmp_path / "whole")
    expected = all_of(tmp_path / "whole")
    path = folder / array / "zarr.json"
    whole = path.read_bytes()
    path.unlink() if WAYS[way] is None else path.write_bytes(WAYS[way](whole))
    if state == "finished" and (array != "emg_arrivals.zarr" or way != "gone"):
        with pytest.warns(RecordingWarning, match=rf"{array}.*labtree.recover"):
            tree = labtree.open_session(folder)
        # One array costs its stream at most.
        np.testing.assert_array_equal(tree["streams/kin/data"], expected[0]["kin"]["data"])
    notes = labtree.recover(folder)
    assert len(notes) == 1
    assert notes[0].startswith(f"{array}/zarr.json was ")
    assert labtree.recover(folder) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        streams, infos, labels = all_of(folder)
    for name, stream in streams.items():
        xr.testing.assert_identical(stream, expected[0][name])
    assert infos == expected[1]
    assert labels.equals(expected[2])
    assert notes[0] in labtree.open_session(folder).attrs["repairs"]
    with xr.open_zarr(folder) as found:
        np.testing.assert_array_equal(found["emg.zarr"], expected[0]["emg"]["data"])


@pytest.mark.parametrize("array", ["emg.zarr", "emg_timestamps.zarr"])
@pytest.mark.parametrize("beside", [True, False])
def test_metadata_are_made_again_without_those_of_the_root(tmp_path, peer, array, beside):
    at = np.arange(150)
    session = peer().stream("emg", np.column_stack([at, -at]).astype("int16"), at / 50, 50)
    folder = session.write()
    expected = labtree.open_session(folder)["streams/emg"].to_dataset().load()
    (folder / array / "zarr.json").write_bytes(b"")
    if not beside:
        other = {"emg.zarr": "emg_timestamps.zarr", "emg_timestamps.zarr": "emg.zarr"}[array]
        (folder / other / "zarr.json").write_bytes(b"")
    notes = labtree.recover(folder)
    assert len(notes) == 1 if beside else 2
    assert labtree.recover(folder) == []
    xr.testing.assert_identical(quiet(folder)["streams/emg"].to_dataset().load(), expected)


def test_time_stamps_that_are_gone_are_nan_and_told(source):
    expected = labtree.open_session(source)["streams/emg"].to_dataset().load()
    shutil.rmtree(source / "emg_timestamps.zarr")
    (note,) = labtree.recover(source)
    assert note == (
        f"stream 'emg': its {expected.sizes['time']} time stamps are gone; NaN stands for each"
        " of them"
    )
    assert labtree.recover(source) == []
    stream = quiet(source)["streams/emg"]
    assert np.isnan(stream["time"]).all()
    np.testing.assert_array_equal(stream["data"], expected["data"])
    np.testing.assert_array_equal(stream["arrival"], expected["arrival"])


def test_a_damaged_chunk_of_time_stamps_does_not_keep_the_rest_from_being_finished(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("labtree.recording.journal.SEGMENT_BYTES", 1000)
    folder = record_two(tmp_path, close=False)
    path = folder / "emg_timestamps.zarr" / "c" / "0"
    path.write_bytes(path.read_bytes()[:-3])
    (note,) = labtree.recover(folder)
    assert note.startswith("stream 'emg', time stamps 0 to 100: ")
    assert not (folder / "journal").exists()
    assert quiet(folder)["streams/kin"].sizes["time"] == 450


def test_an_array_that_is_gone_does_not_keep_the_other_streams_from_being_finished(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("labtree.recording.journal.SEGMENT_BYTES", 1000)
    folder = record_two(tmp_path, close=False)
    held = {p.name: p.read_bytes() for p in (folder / "journal/streams/emg").iterdir()}
    shutil.rmtree(folder / "emg.zarr")
    notes = labtree.recover(folder)
    assert notes[0] == (
        "stream 'emg' is left as it is, its journal is kept: emg.zarr is missing"
    )
    kept = folder / "journal-damaged" / "streams" / "emg"
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == held
    gone = "stream 'emg': emg.zarr is missing, and cannot be made again"
    assert labtree.recover(folder) == [gone]
    with pytest.warns(RecordingWarning, match=r"'emg' is left out: emg.zarr is missing"):
        tree = labtree.open_session(folder)
    assert tree["streams/kin"].sizes["time"] == 450


def test_the_root_s_metadata_are_made_again(source):
    whole = json.loads((source / "zarr.json").read_text())
    (source / "zarr.json").write_bytes(b"")
    assert labtree.recover(source) == ["zarr.json was empty; it is made again from the arrays"]
    assert json.loads((source / "zarr.json").read_text()) == whole
    assert labtree.recover(source) == []


@pytest.mark.parametrize("name", ["meta.json", "labels.json", "emg.zarr/zarr.json"])
def test_a_link_to_what_was_not_fetched_stays_and_is_named(source, name):
    path = source / name
    path.unlink()
    path.symlink_to("../.git/annex/objects/x")
    with pytest.raises(FormatError, match=r"is a symbolic link.*git annex get"):
        labtree.recover(source)
    assert path.readlink().name == "x"
    with pytest.raises(labtree.LabtreeError, match=r"link|labels.json is missing"):
        labtree.open_session(source, on_missing="raise")


# --- one flipped bit ----------------------------------------------------------------------


def segment_of(folder):
    (path,) = (folder / "journal" / "streams" / "emg").iterdir()
    return path


@pytest.mark.parametrize("seed", range(12))
def test_one_flipped_bit_costs_one_record_at_most(dead, seed):
    path = segment_of(dead)
    content = bytearray(path.read_bytes())
    record = 32 + 10 * (8 + 4)
    head = len(content) - 25 * record
    rng = np.random.default_rng(seed)
    content[head + int(rng.integers(0, 25 * record))] ^= 1 << int(rng.integers(0, 8))
    path.write_bytes(content)
    notes = labtree.recover(dead)
    assert notes
    assert (dead / "journal-damaged" / "streams" / "emg" / path.name).read_bytes() == content
    stream = labtree.open_session(dead)["streams/emg"]
    # What stood in the arrays already is not lost; of the rest one record of ten.
    assert stream.sizes["time"] in (250, 240)
    row = np.rint(stream["time"].values * 100).astype(int)
    np.testing.assert_array_equal(stream["data"][:, 0], row // 10)
    assert len(set(row)) == len(row)


def test_recover_again_after_damage_changes_nothing(dead):
    path = segment_of(dead)
    content = bytearray(path.read_bytes())
    content[-500] ^= 1
    path.write_bytes(content)
    labtree.recover(dead)
    first = labtree.open_session(dead)["streams/emg"].to_dataset().load()
    # As if the first run had died before it set the journal aside.
    (dead / "journal-damaged").rename(dead / "journal")
    labtree.recover(dead)
    xr.testing.assert_identical(
        labtree.open_session(dead)["streams/emg"].to_dataset().load(), first
    )


@pytest.mark.parametrize("content", [b"", b"LTJ", b"hello", bytes(12)])
def test_a_segment_without_a_header_is_told(dead, content):
    (path,) = (dead / "journal" / "labels").iterdir()
    path.write_bytes(content)
    with pytest.warns(RecordingWarning, match="label"):
        labtree.open_session(dead)
    notes = labtree.recover(dead)
    assert any("label" in note and path.name in note for note in notes)
    # What cannot be the beginning of a header is kept.
    assert (dead / "journal-damaged").exists() == (content not in (b"", b"LTJ"))


def test_a_second_damaged_journal_is_kept_beside_the_first(dead):
    (dead / "journal-damaged").mkdir()
    content = bytearray(segment_of(dead).read_bytes())
    content[-5] ^= 1
    segment_of(dead).write_bytes(content)
    notes = labtree.recover(dead)
    assert notes[-1].endswith("journal-damaged-2")


def test_what_is_not_of_the_recording_is_kept(dead):
    (dead / "journal" / "notes.txt").write_text("mine")
    notes = labtree.recover(dead)
    assert "journal/notes.txt does not belong to this recording" in notes
    assert (dead / "journal-damaged" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "O"}, {"dtype": "zz"}, {"n_channels": -1}, {"n_channels": "2"},
        {"n_channels": 2.0}, {"dtype": [["a", "i4"]]}, {"fs": -1}, {"fs": "1"},
        {"checksum": "x"},
    ],
)  # fmt: skip
def test_a_journal_header_of_impossible_values_is_a_format_error(dead, about):
    import struct
    import zlib

    path = segment_of(dead)
    content = path.read_bytes()
    length = struct.unpack_from("<8sII", content)[1]
    header = json.dumps({"dtype": "<i2", "n_channels": 2, "fs": 100.0} | about).encode()
    start = struct.pack("<8sII", b"LTJRNL\x00\x03", len(header), zlib.crc32(header))
    path.write_bytes(start + header + content[16 + length :])
    with pytest.raises(FormatError, match="declares dtype, n_channels and fs"):
        labtree.open_session(dead)
    with pytest.raises(FormatError, match="declares dtype, n_channels and fs"):
        labtree.recover(dead)
    assert (dead / "journal").is_dir()


# --- links, pipes and devices ---------------------------------------------------------------


def test_recover_writes_through_no_link(dead, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    lock = dead / ".recording.lock"
    lock.symlink_to(victim)
    with pytest.raises(FormatError, match="is a link"):
        labtree.recover(dead)
    lock.unlink()
    shutil.rmtree(dead / "emg.zarr" / "c")
    for index in range(3):
        (dead / "emg.zarr" / "c" / str(index)).mkdir(parents=True)
        (dead / "emg.zarr" / "c" / str(index) / "0").symlink_to(victim)
    with pytest.raises(FormatError, match="is a symbolic link; a recording is not written"):
        labtree.recover(dead)
    assert victim.read_text() == "precious"


def test_recover_does_not_write_into_another_recording(dead, source):
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    shutil.rmtree(dead / "emg.zarr")
    (dead / "emg.zarr").symlink_to(source / "emg.zarr")
    with pytest.raises(FormatError, match=r"emg.zarr is a symbolic link"):
        labtree.recover(dead)
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before


def test_packing_writes_through_no_link_and_packs_none(tmp_path):
    recorder = Recorder(tmp_path / "base")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = recorder.path.with_name(f"{recorder.path.name}.session.zip")
    target.symlink_to(victim)
    with pytest.raises(labtree.AlreadyExistsError):
        recorder.pack_to_zip()
    assert victim.read_text() == "precious"
    target.unlink()
    (recorder.path / "more").symlink_to(victim)
    with pytest.raises(FormatError, match="more is a symbolic link"):
        recorder.pack_to_zip()
    assert recorder.path.is_dir()


@pytest.mark.parametrize("name", ["meta.json", "labels.json"])
def test_packing_names_a_file_that_was_taken_away(tmp_path, name):
    recorder = Recorder(tmp_path)
    recorder.close()
    (recorder.path / name).unlink()
    with pytest.raises(labtree.UnknownNameError, match=f"there is no {name} in it"):
        recorder.pack_to_zip()
    assert recorder.path.is_dir()
    assert not list(tmp_path.glob("*.zip"))


@pytest.mark.skipif("not hasattr(os, 'mkfifo')", reason="needs pipes")
@pytest.mark.parametrize("name", ["meta.json", "labels.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_never_read(source, name, kind):
    path = source / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(FormatError, match="a pipe, a device or a socket"):
        labtree.open_session(source)


@pytest.mark.skipif("not hasattr(os, 'mkfifo')", reason="needs pipes")
def test_a_segment_that_is_a_pipe_or_too_large_is_refused(dead):
    path = segment_of(dead)
    os.truncate(path, 60 * 2**30)
    with pytest.raises(FormatError, match="expected at most"):
        labtree.open_session(dead)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FormatError, match="a pipe, a device or a socket"):
        labtree.recover(dead)


# --- closing, working folders, other programs ---------------------------------------------


def test_an_interrupted_close_can_be_closed_again(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=100, dtype="int16"))
    recorder.append("emg", np.ones((150, 1), "int16"), np.arange(150) / 100)
    real = recorder_module.finish

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder_module, "finish", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            recorder.close()
    monkeypatch.setattr(recorder_module, "finish", real)
    recorder.close()
    recorder.close()
    assert quiet(recorder.path)["streams/emg"].sizes["time"] == 150


@pytest.mark.parametrize("then", ["close", "recover"])
def test_a_close_that_was_interrupted_at_any_line_loses_nothing(tmp_path, then):
    def record(number):
        recorder = Recorder(tmp_path / str(number), class_names=["a"])
        recorder.init_stream("emg", StreamInfo(n_channels=2, fs=100.5, dtype="int16"))
        at = np.arange(250)
        recorder.append("emg", np.column_stack([at, -at]).astype("int16"), at / 100.5)
        recorder.add_label(0, timestamp=0.5)
        return recorder

    lines = max(points_of(record(0).close))
    assert lines > 100
    for stop_at in np.linspace(1, lines * 0.95, 400 if THOROUGH else 5).astype(int).tolist():
        recorder = record(stop_at)
        assert interrupted_at(stop_at, recorder.close)
        if then == "close":
            recorder.close()
        else:
            recorder._release()
            labtree.recover(recorder.path)
        tree = quiet(recorder.path)
        assert tree.attrs["recording_state"] == "finished"
        at = np.arange(250)
        np.testing.assert_array_equal(tree["streams/emg/data"], np.column_stack([at, -at]))
        np.testing.assert_array_equal(tree["streams/emg/time"], at / 100.5)
        assert len(tree.session.labels) == 1


def test_a_close_that_the_disk_refused_can_be_closed_again(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=100, dtype="int16"))
    recorder.append("emg", np.ones((150, 1), "int16"), np.arange(150) / 100)
    real = recorder_module.finish

    def refused(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder_module, "finish", refused)
    with pytest.raises(RecordingWriteError, match="No space left"):
        recorder.close()
    monkeypatch.setattr(recorder_module, "finish", real)
    recorder.close()
    assert quiet(recorder.path)["streams/emg"].sizes["time"] == 150


def test_another_working_folder_does_not_move_a_recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("labtree.recording.journal.SEGMENT_BYTES", 500)
    recorder = Recorder("sessions")
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=100, dtype="int16"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for first in range(0, 500, 50):
        recorder.append("emg", np.ones((50, 1), "int16"), (first + np.arange(50)) / 100)
    recorder.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert quiet(recorder.path)["streams/emg"].sizes["time"] == 500


def test_plain_zarr_and_xarray_open_a_recording_from_its_first_moment(tmp_path):
    recorder = Recorder(tmp_path, class_names=["a"])
    with xr.open_zarr(recorder.path) as empty:
        assert dict(empty.sizes) == {}
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=100, dtype="int16"))
    with xr.open_zarr(recorder.path) as none_yet:
        assert none_yet["emg.zarr"].shape == (0, 3)
    data = np.arange(3 * 950, dtype="int16").reshape(950, 3)
    for first in range(0, 950, 50):
        part = slice(first, first + 50)
        recorder.append("emg", data[part], np.arange(first, first + 50) / 100)
    recorder._background.stop()  # what it has to do is done then
    with xr.open_zarr(recorder.path) as found:
        np.testing.assert_array_equal(found["emg.zarr"], data[:900])
        np.testing.assert_array_equal(found["emg_timestamps.zarr"], np.arange(900) / 100)
    group = zarr.open_group(str(recorder.path), mode="r")
    assert group["emg.zarr"].shape == (900, 3)
    die(recorder)  # a crashed one, as far as its chunks go
    with xr.open_zarr(recorder.path) as found:
        np.testing.assert_array_equal(found["emg.zarr"], data[:900])


def test_append_waits_for_the_disk_and_drops_nothing(tmp_path, monkeypatch):
    import threading

    monkeypatch.setattr(recorder_module, "_MOST_BEHIND_BYTES", 1)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=100, dtype="int16"))
    hold = threading.Event()
    stream = recorder._streams["emg"]
    run = stream.compactor.run

    def held():
        hold.wait(20)
        run()

    monkeypatch.setattr(stream.compactor, "run", held)
    wait = Recorder._wait

    def waiting(*arguments):
        threading.Timer(0.05, hold.set).start()
        wait(*arguments)

    monkeypatch.setattr(Recorder, "_wait", waiting)

    def append_all():
        for first in range(0, 3000, 100):
            data = np.arange(first, first + 100, dtype="int16")[:, None]
            recorder.append("emg", data, (first + np.arange(100)) / 100)

    with pytest.warns(RecordingWarning, match="append waits for the disk") as told:
        append_all()
    assert hold.is_set()
    assert len(told) == 1
    recorder.close()
    stream = quiet(recorder.path)["streams/emg"]
    np.testing.assert_array_equal(stream["data"][:, 0], np.arange(3000))


@pytest.mark.parametrize("index", ["Infinity", "-Infinity", "NaN", "1e400", "0.5"])
def test_labels_of_no_class_are_named(source, index):
    labels = f'[{{"timestamp": 0.5, "class_index": {index}}}]'
    (source / "labels.json").write_text(labels)
    with pytest.raises(FormatError, match=r"labels.json: label 0 is .*an integer as class"):
        labtree.open_session(source)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_close_that_is_interrupted_while_it_waits_is_closed_whole(tmp_path, monkeypatch):
    """Python takes a thread for ended when Ctrl-C comes while it is joined."""
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=10, dtype="int16"))
    data = np.arange(500, dtype="int16")[:, None]
    asked, closing, again, finishing, moved = (threading.Event() for _ in range(5))
    move, finish = Compactor.run, recorder_module.finish

    def run(compactor):
        closing.wait()
        asked.set()
        again.wait()
        move(compactor)
        moved.set()

    def interrupt(*_):  # once close has only the background to wait for
        if asked.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    def finish_after(*args):
        finishing.set()
        assert moved.is_set()
        return finish(*args)

    def go_on():
        finishing.wait(0.2)  # which comes too early where close does not wait
        again.set()

    def close_interrupted():
        closing.set()
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        recorder.close()

    monkeypatch.setattr(Compactor, "run", run)
    monkeypatch.setattr(recorder_module, "finish", finish_after)
    recorder.append("emg", data, np.arange(500) / 10)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            close_interrupted()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    helper = threading.Thread(target=go_on)
    helper.start()
    recorder.close()
    helper.join()
    assert np.array_equal(quiet(recorder.path)["streams/emg/data"].values, data)
