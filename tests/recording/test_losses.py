"""Losses in a journal, several at a time, and recoveries of them that are interrupted."""

import json
import random
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

import labtree
from labtree import Recorder, StreamInfo
from labtree.errors import RecordingWarning
from labtree.recording import compaction, journal
from support.examples import examples
from support.journals import records_of

pytestmark = pytest.mark.filterwarnings("ignore::labtree.errors.RecordingWarning")


def samples(first, count):
    """Samples that tell their row."""
    at = np.arange(first, first + count)
    return np.column_stack([at, 7 * at]).astype("int16"), at / 64


@pytest.fixture(params=[200, 10**8], ids="segments of {} bytes".format)
def crashed(request, tmp_path, monkeypatch):
    """A recording of which the journal holds the last part only, or all."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", request.param)
    monkeypatch.setattr(compaction, "_UNSYNCED", 2)
    recorder = Recorder(tmp_path / "base")
    recorder.init_stream("emg", StreamInfo(n_channels=2, fs=64, dtype="int16"))
    rng, rows = random.Random(request.param), 0
    while rows < 400:
        count = rng.randint(1, 30)
        recorder.append("emg", *samples(rows, count))
        rows += count
    recorder.add_label(0, timestamp=1.0)
    recorder._stop()
    recorder._release()
    return recorder.path


def rows_of(folder):
    """Return which rows were recorded are there."""
    stream = labtree.open_session(folder).session.streams["emg"]
    rows = stream["data"].values[:, 0].astype(int)
    expected = samples(0, 500)
    np.testing.assert_array_equal(stream["data"], expected[0][rows])
    np.testing.assert_array_equal(stream["time"], expected[1][rows])
    return rows.tolist()


def lose(folder, rng):
    """Damage some of a recording; return the rows that neither journal nor chunks have."""
    records = list(records_of(folder, 2))
    total = records[-1][3]
    stored = json.loads((folder / "emg.zarr" / "zarr.json").read_text())["shape"][0]
    whole = [set(range(first, stop)) for *_, first, stop in records]
    chunks = {index: set(range(64 * index, 64 * index + 64)) for index in range(stored // 64)}
    for which in rng.sample(range(len(records)), 2):
        path, at, *_ = records[which]
        content = bytearray(path.read_bytes())
        content[at + 40] ^= 1
        path.write_bytes(content)
        whole[which] = set()
    files = sorted({path for path, *_ in records})
    if len(files) > 1 and rng.random() < 0.5:
        gone = rng.choice(files[:-1])
        gone.unlink()
        whole = [
            set() if record[0] == gone else rows
            for record, rows in zip(records, whole, strict=True)
        ]
    # A chunk that the journal's first row lies in, or one before it, cannot be made again.
    first = min(int(path.stem) for path in folder.glob("journal/streams/emg/*.journal"))
    again = [index for index in chunks if 64 * index >= min(first, stored)]
    if again and rng.random() < 0.7:
        index = rng.choice(again)
        (folder / "emg.zarr" / "c" / str(index) / "0").unlink()
        del chunks[index]
    there = set().union(*whole, *chunks.values())
    return [row for row in range(total) if row in there]


class Stop(BaseException):
    """Ends a recovery."""


def recover_until(folder, monkeypatch, stop_at):
    """Recover, but stop before a change of the disk; return whether it came to its end."""
    calls = 0
    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rename", "mkdir"):
            real = getattr(Path, name)

            def counted(self, *args, real=real, **options):
                nonlocal calls
                calls += 1
                if calls == stop_at:
                    raise Stop
                return real(self, *args, **options)

            patch.setattr(Path, name, counted)
        try:
            labtree.recover(folder)
        except Stop:
            return False
    return True


@pytest.mark.parametrize("seed", range(examples(6)))
def test_two_losses_and_an_interruption_at_any_moment_lose_and_double_nothing(
    crashed, tmp_path, monkeypatch, seed
):
    damaged = tmp_path / "damaged" / crashed.name
    shutil.copytree(crashed, damaged)
    expected = lose(damaged, random.Random(seed))
    whole = tmp_path / "whole" / crashed.name
    shutil.copytree(damaged, whole)
    told = labtree.recover(whole)
    assert rows_of(whole) == expected
    assert any("damaged" in note or "lost" in note for note in told)
    rng = random.Random(seed)
    for stop_at in sorted(rng.sample(range(1, 40), 8)):
        folder = tmp_path / f"{stop_at}" / crashed.name
        shutil.copytree(damaged, folder)
        if recover_until(folder, monkeypatch, stop_at):
            assert rows_of(folder) == expected
            continue
        again = set(rows_of(folder))
        assert again <= set(expected)
        labtree.recover(folder)
        assert rows_of(folder) == expected
        assert labtree.recover(folder) == []


@pytest.mark.parametrize("crashed", [200], indirect=True)
def test_a_missing_first_segment_and_an_interruption_double_nothing(crashed):
    segments = sorted(crashed.glob("journal/streams/emg/*.journal"))
    assert len(segments) > 1
    segments[0].unlink()
    labtree.recover(crashed)
    first = rows_of(crashed)
    assert first == sorted(set(first))
    # As if the run had died before it set the journal aside.
    (crashed / "journal-damaged").rename(crashed / "journal")
    assert rows_of(crashed) == first
    notes = labtree.recover(crashed)
    assert any("are lost" in note for note in notes)
    assert rows_of(crashed) == first
    assert (crashed / "journal-damaged").is_dir()


@pytest.mark.parametrize("crashed", [10**8], indirect=True)
def test_rows_after_a_lost_chunk_are_kept_where_the_journal_is_gone(crashed):
    stored = json.loads((crashed / "emg.zarr" / "zarr.json").read_text())["shape"][0]
    (segment,) = (crashed / "journal" / "streams" / "emg").iterdir()
    segment.write_bytes(b"something else entirely, long enough")
    (crashed / "emg.zarr" / "c" / "1" / "0").unlink()
    notes = labtree.recover(crashed)
    assert stored >= 256
    assert rows_of(crashed) == [*range(64), *range(128, stored)]
    assert any("sample 64 to 128 are lost" in note for note in notes)


@pytest.mark.parametrize("part", ["streams/emg", "labels"])
def test_a_flipped_bit_in_the_header_of_a_segment_costs_nothing(crashed, tmp_path, part):
    total = list(records_of(crashed, 2))[-1][3]
    path = sorted((crashed / "journal" / part).iterdir())[-1]
    size = 16 + struct.unpack_from("<8sII", path.read_bytes())[1]
    rng = random.Random(0)
    # Of the version's byte nothing is known: that journal is refused, and stays.
    places = [at for at in range(size) if at != 7]
    for at in {9, 10, 11, *rng.sample(places, examples(8))}:
        folder = tmp_path / str(at) / crashed.name
        shutil.copytree(crashed, folder)
        content = bytearray(path.read_bytes())
        content[at] ^= 1 << rng.randrange(8)
        damaged = folder / path.relative_to(crashed)
        damaged.write_bytes(content)
        with pytest.warns(RecordingWarning, match="are damaged"):
            tree = labtree.open_session(folder)
        assert len(tree.session.labels) == 1
        for _ in range(2):
            assert rows_of(folder) == list(range(total))
            notes = labtree.recover(folder)
        assert notes == []
        assert len(labtree.open_session(folder).session.labels) == 1
        kept = folder / "journal-damaged" / path.relative_to(crashed / "journal")
        assert kept.read_bytes() == content


def test_what_was_repaired_is_told_once_however_often_it_is_run(crashed):
    path = sorted((crashed / "journal" / "streams" / "emg").iterdir())[-1]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    notes = labtree.recover(crashed)
    (crashed / "journal-damaged").rename(crashed / "journal")
    labtree.recover(crashed)
    with warnings.catch_warnings(action="error"):
        assert labtree.open_session(crashed).attrs["repairs"] == notes[:-1]


# --- finished recordings --------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    """A finished recording of 350 samples at 64 Hz, in six chunks, with a second stream."""
    with Recorder(tmp_path / "base", app_name="mine") as recorder:
        recorder.init_stream("emg", StreamInfo(n_channels=2, fs=64, dtype="int16", units="uV"))
        recorder.append("emg", *samples(0, 350))
        recorder.init_stream("kin", StreamInfo(n_channels=2, fs=64, dtype="int16"))
        recorder.append("kin", *samples(0, 70))
        recorder.add_label(0, timestamp=1.0)
    return recorder.path


def test_lost_time_stamps_of_another_program_s_recording_are_told(peer):
    data, times = samples(1, 350)
    folder = peer().stream("emg", data, times, 64).write()
    (folder / "emg.zarr" / "c" / "4" / "0").unlink()  # may be zeros
    assert labtree.recover(folder) == []
    (folder / "emg_timestamps.zarr" / "c" / "2").unlink()
    for _ in range(2):
        (note,) = labtree.recover(folder)
        assert note.startswith(
            "stream 'emg': 128 of 350 samples can be read; the next chunk of"
        )


def test_a_stream_of_a_type_that_no_recorder_writes_has_no_stream_info(peer):
    data, times = samples(1, 10)
    tree = labtree.open_session(peer().stream("u", data.astype("uint16"), times, 64).write())
    with pytest.raises(labtree.FormatError, match=r"stream 'u': no stream .*dtype: Input"):
        tree.session.stream_info("u")
    assert tree.session.streams["u"].data.dtype == "uint16"


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "NULs": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("what", ["timestamps", "arrivals"])
def test_lost_times_of_a_finished_recording_are_nan_and_told(finished, what, way):
    name = {"timestamps": "time", "arrivals": "arrival"}[what]
    before = labtree.open_session(finished).session.streams["emg"].load()
    rows = [*range(64, 192), *range(320, 350)]
    for index in (1, 2, 5):
        DAMAGES[way](finished / f"emg_{what}.zarr" / "c" / str(index))
    cut = [path.read_bytes() for path in sorted((finished / f"emg_{what}.zarr/c").iterdir())]
    notes = labtree.recover(finished)
    assert [note.split(": their")[0].split()[-3:] for note in notes] == (
        [["64", "to", "192"], ["320", "to", "350"]]
        if way != "cut"
        else [["64", "to", "128"], ["128", "to", "192"], ["320", "to", "350"]]
    )
    with warnings.catch_warnings(action="error"):
        tree = labtree.open_session(finished)
    stream = tree.session.streams["emg"].load()
    expected = before[name].values.copy()
    expected[rows] = np.nan
    np.testing.assert_array_equal(stream[name], expected)
    np.testing.assert_array_equal(stream["data"], before["data"])
    assert tree.attrs["repairs"] == notes
    if way == "cut":
        kept = sorted((finished / f"emg_{what}.zarr").glob("c.*.damaged"))
        assert [path.read_bytes() for path in kept] == [cut[index] for index in (1, 2, 5)]
    if what == "timestamps":
        assert stream.attrs["not_finite_time_stamps"] == len(rows)
        clean = labtree.dejitter(stream)
        np.testing.assert_allclose(clean["time"], before["time"], rtol=0, atol=1e-9)
        assert np.flatnonzero(np.isnan(clean["residual"])).tolist() == rows
    assert labtree.recover(finished) == []


def test_a_lost_chunk_of_times_is_told_with_the_line_that_mends_it(finished):
    (finished / "emg_timestamps.zarr" / "c" / "2").unlink()
    with pytest.warns(RecordingWarning, match=r"128 of its 350 .* lacks a part; labtree.recov"):
        labtree.open_session(finished)


@pytest.mark.parametrize("way", ["gone", "empty"])
def test_recover_tells_of_samples_that_nothing_makes_again(finished, way):
    DAMAGES[way](finished / "emg.zarr" / "c" / "2" / "0")
    shutil.rmtree(finished / "kin.zarr")
    meta = (finished / "meta.json").read_bytes()
    for _ in range(2):
        assert labtree.recover(finished) == [
            "stream 'emg': 128 of 350 samples can be read; the next chunk of emg.zarr is"
            " missing or empty, and cannot be made again",
            "stream 'kin': kin.zarr is missing, and cannot be made again",
        ]
    assert (finished / "meta.json").read_bytes() == meta


def test_a_meta_json_of_another_recording_is_told(finished, tmp_path):
    with Recorder(tmp_path / "other") as other:
        other.init_stream("emg", StreamInfo(n_channels=2, fs=32, dtype="int16", units="mV"))
    meta = json.loads((other.path / "meta.json").read_text())
    meta["created"] = "2020-01-02T03:04:05"
    (finished / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(labtree.FormatError, match="created 2020-01-02T03:04:05, the arrays"):
        labtree.open_session(finished, on_missing="raise")
    with pytest.warns(RecordingWarning, match=r"'kin' is left out: meta.json does not name it"):
        labtree.open_session(finished)
    (finished / "meta.json").unlink()
    labtree.recover(finished)
    with warnings.catch_warnings(action="error"):
        tree = labtree.open_session(finished, on_missing="raise")
    assert set(tree.session.streams) == {"emg", "kin"}
    assert tree.session.stream_info("emg").fs == 64
    assert tree.attrs["app_name"] == "mine"


def test_missing_arrivals_are_told(finished):
    shutil.rmtree(finished / "emg_arrivals.zarr")
    with pytest.warns(RecordingWarning, match=r"has no arrivals: emg_arrivals.zarr is missing"):
        tree = labtree.open_session(finished)
    assert tree.session.streams["emg"].sizes["time"] == 350


def test_a_second_damage_of_the_same_file_is_kept_beside_the_first(finished):
    kept = []
    for content in (b'[{"timestamp": 1', b'[{"timestamp": 2'):
        (finished / "labels.json").write_bytes(content)
        kept.append(content)
        labtree.recover(finished)
    names = ["labels.json.damaged", "labels.json.damaged-2"]
    assert [(finished / name).read_bytes() for name in names] == kept


def test_metadata_that_declare_too_many_rows_make_no_file(finished):
    for array in ("emg.zarr", "emg_timestamps.zarr"):
        path = finished / array / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["shape"][0] = 10**15
        path.write_text(json.dumps(metadata))
    before = sorted(finished.rglob("*"))
    (note,) = labtree.recover(finished)
    assert note.startswith("stream 'emg': 384 of 1000000000000000 samples can be read")
    (finished / "labels.json").unlink()
    assert labtree.recover(finished)[-1] == note
    assert sorted(finished.rglob("*")) == before
