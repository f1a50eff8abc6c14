"""Recordings that end badly: killed, on a full disk, with torn and damaged journals."""

import errno
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

import labtree
from labtree import Recorder, StreamInfo
from labtree.errors import MissingFileError, RecordingWarning, RecordingWriteError
from labtree.recording import chunks, compaction, journal, recover
from support.examples import examples
from support.journals import records_of

STREAMS = {
    "emg": (3, 640.0, "int16"),
    "kin": (1, 128.0, "float32"),
    "marker": (1, 0.0, "int32"),
}


def samples(name, first, count):
    """Samples that tell their row, so that a lost or doubled one shows."""
    channels, fs, dtype = STREAMS[name]
    at = np.arange(first, first + count)
    data = ((at[:, None] * 7 + np.arange(channels)) % 30_000).astype(dtype)
    return data, at / (fs or 50.0)


def open_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        return labtree.open_session(path)


def check(path, acknowledged, labels):
    """Everything acknowledged is there, and what is there is right."""
    tree = open_quietly(path)
    for name, rows in acknowledged.items():
        dataset = tree.session.streams[name]
        data, times = dataset["data"].values, dataset["time"].values
        assert len(data) == len(times) >= rows, (name, len(data), rows)
        expected, stamps = samples(name, 0, len(data))
        np.testing.assert_array_equal(data, expected)
        np.testing.assert_array_equal(times, stamps)
    found = tree.session.labels
    assert len(found) >= labels
    assert found["class_index"].tolist() == list(range(len(found)))
    return {name: dataset.sizes["time"] for name, dataset in tree.session.streams.items()}


# --- kill -9 --------------------------------------------------------------------------


def record_until_killed(base, pipe, seed):
    """Record as fast as it goes; say through the pipe what has been acknowledged."""
    rng = random.Random(seed)
    # Small segments, so that they are removed while the recording goes on.
    journal.SEGMENT_BYTES = rng.choice([2000, 20_000, 10**8])
    recorder = Recorder(base)
    for name, (channels, fs, dtype) in STREAMS.items():
        recorder.init_stream(name, StreamInfo(n_channels=channels, fs=fs, dtype=dtype))
    os.write(pipe, b"ready 0\n")
    rows = dict.fromkeys(STREAMS, 0)
    labels = 0
    while True:
        name = rng.choice(list(STREAMS))
        count = rng.choice([1, 5, 32, 100])
        recorder.append(name, *samples(name, rows[name], count))
        rows[name] += count
        os.write(pipe, f"{name} {rows[name]}\n".encode())
        if rng.random() < 0.1:
            recorder.add_label(labels, timestamp=labels / 10)
            labels += 1
            os.write(pipe, f"label {labels}\n".encode())
        if rng.random() < 0.002:
            recorder.close()  # also killed while it finishes
            os._exit(0)


def kill_once(base, seed):
    base.mkdir()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            record_until_killed(base, write_end, seed)
        finally:
            os._exit(1)
    os.close(write_end)
    said = b""
    while b"\n" not in said:
        said += os.read(read_end, 1000)
    deadline = time.monotonic() + random.Random(seed).uniform(0, 0.025)
    os.set_blocking(read_end, False)

    def drain():
        heard = b""
        while True:
            try:
                more = os.read(read_end, 1 << 16)
            except BlockingIOError:
                return heard
            if not more:
                return heard
            heard += more

    while time.monotonic() < deadline:
        said += drain()
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said += drain()
    os.close(read_end)
    acknowledged, labels = dict.fromkeys(STREAMS, 0), 0
    for line in said.decode().splitlines():
        what, number = line.split()
        if what == "label":
            labels = int(number)
        elif what in acknowledged:
            acknowledged[what] = int(number)
    (folder,) = base.iterdir()
    before = check(folder, acknowledged, labels)
    recover(folder)
    assert not (folder / "journal").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = labtree.open_session(folder)
    assert tree.attrs["recording_state"] == "finished"
    assert check(folder, acknowledged, labels) == before
    return sum(acknowledged.values()), labels


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="needs fork")
def test_kill_9_at_any_moment_loses_nothing(tmp_path):
    count, memory = examples(200), Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    # A killed process does not care what is below the operating system; memory is quicker.
    with tempfile.TemporaryDirectory(dir=memory if usable else tmp_path) as base:
        # A process of its own: it has no threads, so its children can be forked from it.
        done = subprocess.run(
            [sys.executable, __file__, base, str(count)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    recordings, rows, labels = map(int, done.stdout.split())
    assert recordings == count
    assert rows > 50 * count
    assert labels > count / 2


def main(base, count):
    import zarr.codecs  # noqa: F401  (once, rather than in every child)

    rows = labels = 0
    for seed in range(count):
        found = kill_once(base / str(seed), seed)
        rows, labels = rows + found[0], labels + found[1]
    print(count, rows, labels)


# --- what a dead recorder leaves behind -------------------------------------------------


@pytest.fixture
def dead(tmp_path, monkeypatch):
    """A recording whose process is gone: 150 samples, 2 labels, nothing finished."""
    recorder = Recorder(tmp_path, class_names=["a", "b"])
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=64, dtype="int16"))
    for first in range(0, 150, 10):
        recorder.append("emg", *samples("emg", first, 10))
    recorder.add_label(0, timestamp=0.0)
    recorder.add_label(1, timestamp=1.0)
    die(recorder)
    return recorder.path


def die(recorder):
    """Do what the death of a process does: threads end, files are closed, locks go."""
    recorder._stop()
    recorder._release()


def last_segment(folder):
    return sorted((folder / "journal" / "streams" / "emg").iterdir())[-1]


def test_open_says_what_it_found(dead):
    with pytest.warns(
        RecordingWarning,
        match="was not finished; every sample and label is here; 'labtree recover",
    ):
        tree = labtree.open_session(dead)
    assert tree.attrs["recording_state"] == "unfinished"
    assert "was not finished" in repr(tree.session)
    check(dead, {"emg": 150}, 2)


def test_a_dead_recording_is_no_damage(dead):
    with pytest.warns(RecordingWarning):
        labtree.open_session(dead, on_missing="raise")


def test_recover_says_nothing_of_a_clean_end(dead):
    assert recover(dead) == []
    check(dead, {"emg": 150}, 2)
    assert sorted(p.name for p in dead.iterdir()) == [
        "emg.zarr", "emg_arrivals.zarr", "emg_timestamps.zarr", "labels.json", "meta.json",
        "zarr.json",
    ]  # fmt: skip


def test_recover_takes_str(dead):
    assert recover(str(dead)) == []


@pytest.mark.parametrize("cut", [1, 20, 30, 171, 180])
def test_a_torn_packet_is_left_out_and_told(dead, cut):
    size = last_segment(dead).stat().st_size
    os.truncate(last_segment(dead), size - cut)
    whole = 140 if cut < 172 else 130  # a packet is 32 + 10 * (8 + 6) bytes
    with pytest.warns(
        RecordingWarning, match=f"after {whole} belong to an append that did not return"
    ):
        tree = labtree.open_session(dead)
    assert tree.session.streams["emg"].sizes["time"] == whole
    (note,) = recover(dead)
    assert "did not return" in note
    assert not (dead / "journal-damaged").exists()
    check(dead, {"emg": whole}, 2)
    tree = labtree.open_session(dead)
    assert tree.attrs["repairs"] == [note]


@pytest.mark.parametrize("where", [-1, -100, -60])
def test_a_flipped_bit_is_damage_and_the_journal_is_kept(dead, where):
    content = bytearray(last_segment(dead).read_bytes())
    content[where] ^= 4
    last_segment(dead).write_bytes(content)
    with pytest.warns(RecordingWarning, match="are damage"):
        tree = labtree.open_session(dead)
    rows = tree.session.streams["emg"].sizes["time"]
    assert rows in (130, 140)
    with pytest.raises(labtree.FormatError, match="are damage"):
        labtree.open_session(dead, on_missing="raise")
    notes = recover(dead)
    assert "is kept as" in notes[-1]
    kept = dead / "journal-damaged" / "streams" / "emg" / last_segment_name(dead)
    assert kept.read_bytes() == content
    check(dead, {"emg": rows}, 2)


def last_segment_name(folder):
    return sorted((folder / "journal-damaged" / "streams" / "emg").iterdir())[-1].name


def test_zeros_behind_the_journal_after_a_power_cut(dead):
    with last_segment(dead).open("ab") as file:
        file.write(bytes(4096))
    notes = recover(dead)
    assert any("4096 bytes" in note for note in notes)
    check(dead, {"emg": 150}, 2)


def test_every_prefix_of_a_journal_opens(dead):
    segment = last_segment(dead)
    content = segment.read_bytes()
    for size in {
        *range(120),
        *range(120, len(content), 71),
        *range(len(content) - 170, len(content)),
    }:
        segment.write_bytes(content[:size])
        tree = open_quietly(dead)
        rows = tree.session.streams["emg"].sizes["time"]
        np.testing.assert_array_equal(
            tree["streams/emg/data"].values, samples("emg", 0, rows)[0]
        )
    # Two whole chunks were in zarr already.
    segment.write_bytes(content[:3])
    assert open_quietly(dead)["streams/emg"].sizes["time"] == 128


def test_a_missing_segment_is_told_and_what_follows_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 100)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=1000, dtype="int16"))
    for first in range(0, 50, 10):
        recorder.append("emg", *samples("emg", first, 10))
    die(recorder)
    segments = sorted((recorder.path / "journal" / "streams" / "emg").iterdir())
    segments[2].unlink()
    with pytest.warns(
        RecordingWarning,
        match="sample 20 to 30 are lost; the samples after them are kept and follow directly",
    ):
        tree = labtree.open_session(recorder.path)
    expected = np.delete(np.arange(50), np.s_[20:30])
    recover(recorder.path)
    for opened in (tree, labtree.open_session(recorder.path)):
        dataset = opened["streams/emg"]
        np.testing.assert_array_equal(dataset["data"], samples("emg", 0, 50)[0][expected])
        np.testing.assert_array_equal(dataset["time"], samples("emg", 0, 50)[1][expected])
    assert (recorder.path / "journal-damaged" / "streams" / "emg" / segments[3].name).exists()


def test_a_journal_of_a_newer_version(dead):
    content = bytearray(last_segment(dead).read_bytes())
    content[7] = 9
    last_segment(dead).write_bytes(content)
    with pytest.raises(
        labtree.FormatError, match="written in format version 9; this labtree reads version 2 "
    ):
        labtree.open_session(dead)
    with pytest.raises(labtree.FormatError, match="written in format version 9"):
        recover(dead)
    assert last_segment(dead).read_bytes() == content


@pytest.mark.parametrize("name", [None, "crc32"])
def test_a_journal_whose_records_have_another_checksum(dead, name):
    """That of version 2, which does not name it, and of machines without a fast CRC-32C."""
    for path in (dead / "journal").rglob("*.journal"):
        content = bytearray(path.read_bytes())
        _, length, _ = struct.unpack_from("<8sII", content)
        about = json.loads(content[16 : 16 + length])
        assert about.pop("checksum") == "crc32c"
        width = 8 + about["n_channels"] * np.dtype(about["dtype"]).itemsize
        header = json.dumps(about | ({} if name is None else {"checksum": name})).encode()
        magic = b"LTJRNL\x00" + bytes([2 if name is None else 3])
        written = struct.pack("<8sII", magic, len(header), zlib.crc32(header)) + header
        at = 16 + length
        while at < len(content):
            start, stop = content[at : at + 24], at + 32 + content[at + 4] * width
            payload = content[at + 32 : stop]
            start += struct.pack("<I", zlib.crc32(payload))
            written += start + struct.pack("<I", zlib.crc32(start)) + payload
            at = stop
        path.write_bytes(written)
    check(dead, {"emg": 150}, 2)
    assert recover(dead) == []
    check(dead, {"emg": 150}, 2)


def test_without_a_fast_crc32c_zlib_s_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_CHECKSUM", "crc32")
    monkeypatch.setattr(journal, "_JOINED_BYTES", 100)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=64, dtype="int16"))
    for first, count in ((0, 5), (5, 40), (45, 105)):
        recorder.append("emg", *samples("emg", first, count))
    die(recorder)
    assert recover(recorder.path) == []
    check(recorder.path, {"emg": 150}, 0)


def test_something_else_in_the_place_of_a_segment(dead):
    last_segment(dead).write_bytes(b"something else entirely, long enough")
    name = last_segment(dead).name
    with pytest.warns(RecordingWarning, match=f"36 bytes in {name} after 0 are damage"):
        labtree.open_session(dead)
    in_chunks = json.loads((dead / "emg.zarr" / "zarr.json").read_text())["shape"][0]
    notes = recover(dead)
    assert any("36 bytes" in note for note in notes)
    (kept,) = (dead / "journal-damaged").rglob(f"emg/{name}")
    assert kept.read_bytes() == b"something else entirely, long enough"
    assert labtree.open_session(dead).session.streams["emg"].sizes["time"] == in_chunks


def test_chunks_count_where_the_journal_is_damaged_from_its_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_UNSYNCED", 1)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=1, fs=10, dtype="int16"))
    recorder.append("emg", np.arange(35, dtype="int16")[:, None], np.arange(35) / 10)
    recorder._stop()
    recorder._release()
    (segment,) = (recorder.path / "journal" / "streams" / "emg").iterdir()
    segment.write_bytes(b"\x8b" * segment.stat().st_size)
    notes = recover(recorder.path)
    assert "stream 'emg', sample 0 to 30 are taken from the chunks" in notes
    stream = labtree.open_session(recorder.path).session.streams["emg"]
    assert stream["data"].values[:, 0].tolist() == list(range(30))
    np.testing.assert_array_equal(stream["time"], np.arange(30) / 10)
    assert (recorder.path / "journal-damaged").is_dir()


def test_a_journal_that_lacks_a_folder(dead):
    import shutil

    shutil.rmtree(dead / "journal" / "labels")
    with pytest.raises(labtree.FormatError, match=r"damaged, .*labels is missing"):
        labtree.open_session(dead)
    notes = recover(dead)
    assert notes[0] == "the journal of the labels is missing"
    assert (dead / "journal-damaged" / "streams" / "emg").is_dir()
    check(dead, {"emg": 150}, 0)
    assert recover(dead) == []


def test_recover_interrupted_at_every_write(dead, tmp_path_factory, monkeypatch):
    """Stop `recover` before each of its calls that change the disk; run it again."""
    import shutil

    from labtree.recording import repair

    class Stop(BaseException):
        pass

    names = ["replace", "unlink", "rename", "mkdir"]
    for stop_at in range(1, 60):
        folder = tmp_path_factory.mktemp("again") / dead.name
        shutil.copytree(dead, folder)
        calls = 0
        with monkeypatch.context() as patch:
            for name in names:
                real = getattr(Path, name)

                def counted(self, *args, real=real, stop_at=stop_at, **options):
                    nonlocal calls
                    calls += 1
                    if calls == stop_at:
                        raise Stop
                    return real(self, *args, **options)

                patch.setattr(Path, name, counted)
            try:
                repair.recover(folder)
                finished = True
            except Stop:
                finished = False
        check(folder, {"emg": 150}, 2)
        recover(folder)
        check(folder, {"emg": 150}, 2)
        assert not (folder / "journal").exists()
        if finished:
            break
    assert finished
    assert stop_at > 8


WAYS_TO_LOSE = {
    "kept": lambda path: None,
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "NULs": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "others": lambda path: path.write_bytes((path.parent / "0").read_bytes()),
}


@pytest.fixture(params=[1000, 3100, 10**8], ids="segments of {} bytes".format)
def crashed_long(request, tmp_path, monkeypatch):
    """A recording of which the journal holds the last part only, or (the last one) all."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", request.param)
    recorder = Recorder(tmp_path / "base")
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=64, dtype="int16"))
    rng, rows = random.Random(request.param), 0
    while rows < 480:
        count = rng.randint(1, 30)
        recorder.append("emg", *samples("emg", rows, count))
        rows += count
    die(recorder)
    return recorder.path


def recovered(folder):
    notes = recover(folder)
    assert recover(folder) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = labtree.open_session(folder).session.streams["emg"].load()
    return notes, stream


@pytest.mark.parametrize("what", ["timestamps", "arrivals"])
def test_times_that_the_journal_holds_are_never_lost(crashed_long, tmp_path, what):
    first = min(int(path.stem) for path in crashed_long.glob("journal/streams/emg/*"))
    assert first == 0 or first % 64
    shutil.copytree(crashed_long, tmp_path / "whole")
    _, whole = recovered(tmp_path / "whole")
    name = {"timestamps": "time", "arrivals": "arrival"}[what]
    expected = whole[name].values
    stored = len(list((crashed_long / f"emg_{what}.zarr/c").iterdir()))
    rng = random.Random(first)
    for number in range(examples(40)):
        folder = tmp_path / "damaged" / str(number)
        shutil.copytree(crashed_long, folder)
        array = folder / f"emg_{what}.zarr"
        kept = ["kept"] * rng.choice([0, 3, 30])
        ways = [rng.choice([*WAYS_TO_LOSE, *kept]) for _ in range(stored)]
        contents = []
        for index in reversed(range(stored)):
            WAYS_TO_LOSE[ways[index]](array / "c" / str(index))
            if ways[index] == "cut":
                contents.append((array / "c" / str(index)).read_bytes())
        WAYS_TO_LOSE[rng.choice(["gone", "empty", "cut", "kept"])](array / "zarr.json")
        if what == "timestamps" and rng.random() < 0.2:
            shutil.rmtree(array)
            ways, contents = ["gone"] * stored, []
        if rng.random() < 0.5:
            (folder / "zarr.json").unlink()
        notes, stream = recovered(folder)
        np.testing.assert_array_equal(stream["data"], whole["data"])
        found = stream[name].values
        # What the journal holds is there, and what stood in whole chunks.
        np.testing.assert_array_equal(found[first:], expected[first:])
        lost = 0
        for row in range(first):
            way = ways[row // 64]
            if way == "kept":
                assert found[row] == expected[row]
            elif way != "others":
                assert np.isnan(found[row])
                lost += 1
        if lost:
            assert any("NaN stands for" in note for note in notes)
        if lost and what == "timestamps":
            told = json.loads((folder / "meta.json").read_text())["labtree"]["time_stamps"]
            assert told["emg"]["not_finite"] == lost
        if first:
            left = [path.read_bytes() for path in array.glob("c.*.damaged")]
            rows = [at for at in range(stored) if ways[at] == "cut" and at * 64 < first]
            assert len(left) >= len(rows)
            assert all(content in contents for content in left)


def test_samples_of_a_journal_whose_first_chunk_is_damaged_stay_in_it(crashed_long):
    first = min(int(path.stem) for path in crashed_long.glob("journal/streams/emg/*"))
    chunk = crashed_long / "emg.zarr" / "c" / str(first // 64) / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    streams = "streams/emg/*.journal"
    held = [path.read_bytes() for path in sorted((crashed_long / "journal").glob(streams))]
    notes = recover(crashed_long)
    stream = labtree.open_session(crashed_long).session.streams["emg"]
    rows = stream.sizes["time"]
    behind = -(-first // 64) * 64
    expected = samples("emg", 0, rows)
    np.testing.assert_array_equal(stream["data"][behind:], expected[0][behind:])
    np.testing.assert_array_equal(stream["time"], expected[1])
    if first:
        assert notes[0].startswith(f"stream 'emg', sample {behind - 64} to {behind}: their")
        kept = sorted((crashed_long / "journal-damaged").glob(streams))
        assert [path.read_bytes() for path in kept] == held
    else:
        assert notes == []


def test_a_damaged_record_costs_only_what_the_chunks_lack(crashed_long, tmp_path):
    stored = json.loads((crashed_long / "emg.zarr" / "zarr.json").read_text())["shape"][0]
    records = list(records_of(crashed_long, 3))
    total = records[-1][3]
    across = [record for record in records if record[2] < stored < record[3]]
    assert across or stored == 0
    chosen = [*across, *records[-2:], *random.Random(stored).choices(records, k=examples(24))]
    for number, (path, at, first, stop) in enumerate(chosen):
        folder = tmp_path / str(number)
        shutil.copytree(crashed_long, folder)
        damaged = folder / path.relative_to(crashed_long)
        content = bytearray(path.read_bytes())
        content[at + 40] ^= 1
        damaged.write_bytes(content)
        expected = np.delete(np.arange(total), np.s_[max(first, stored) : max(stop, stored)])
        for _ in range(2):
            recover(folder)
            stream = labtree.open_session(folder).session.streams["emg"]
            np.testing.assert_array_equal(stream["data"], samples("emg", 0, total)[0][expected])
            np.testing.assert_array_equal(stream["time"], samples("emg", 0, total)[1][expected])
            # As if the first run had died before it set the journal aside.
            (folder / "journal-damaged").rename(folder / "journal")


def test_recover_of_nothing(tmp_path):
    with pytest.raises(MissingFileError, match="expected a recording's folder, found none"):
        recover(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="found neither meta"):
        recover(tmp_path)


def test_a_peer_folder_without_meta_is_opened_again(peer):
    data, times = samples("emg", 0, 150)
    session = peer().stream("emg", data, times, 64)
    with pytest.raises(MissingFileError, match=r"found no meta.json; labtree.recover\("):
        labtree.recording.open_recording(session.folder)
    assert recover(session.folder) == [
        "meta.json was missing; it is made again from the arrays",
        "labels.json was missing: the labels are lost",
    ]
    tree = labtree.open_session(session.folder)
    assert tree.session.stream_info("emg").fs == 64
    np.testing.assert_array_equal(tree["streams/emg/data"].values, data)
    assert recover(session.folder) == []


# --- full disk ------------------------------------------------------------------------


class FullDisk:
    """Lets so many bytes through `write`, then says what a full disk says."""

    def __init__(self, monkeypatch, room=10**12):
        self.room = room
        real = Path.open
        disk = self

        class File:
            def __init__(self, file):
                self.file = file

            def write(self, content):
                count = min(len(content), disk.room)
                if count == 0 and len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                disk.room -= count
                return self.file.write(memoryview(content)[:count])

            def __getattr__(self, name):
                return getattr(self.file, name)

            def __enter__(self):
                self.file.__enter__()
                return self

            def __exit__(self, *error):
                return self.file.__exit__(*error)

        def opened(path, mode="r", *args, **options):
            file = real(path, mode, *args, **options)
            return File(file) if any(letter in mode for letter in "wax") else file

        monkeypatch.setattr(Path, "open", opened)


@pytest.fixture
def disk(monkeypatch):
    return FullDisk(monkeypatch)


@pytest.mark.parametrize("room", [0, 1, 23, 24, 60, 500, 3000])
def test_full_disk_refuses_whole_packets_and_goes_on_when_there_is_room(tmp_path, disk, room):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=640, dtype="int16"))
    recorder.append("emg", *samples("emg", 0, 10))
    disk.room = room
    rows = 10 + room // 172 * 10  # 32 + 10 * (8 + 6) bytes a packet
    for first in range(10, rows, 10):
        recorder.append("emg", *samples("emg", first, 10))
    for _ in range(2):
        with pytest.raises(
            RecordingWriteError, match=r"'emg': 10 samples could not be written: No space"
        ) as caught:
            recorder.append("emg", *samples("emg", rows, 10))
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == errno.ENOSPC
        disk.room = 0
    with pytest.raises(RecordingWriteError, match="could not be written: No space"):
        recorder.add_label(0, timestamp=0.0)
    check(recorder.path, {"emg": rows}, 0)
    disk.room = 10**12
    for _ in range(20):
        recorder.append("emg", *samples("emg", rows, 10))
        rows += 10
    recorder.add_label(0, timestamp=0.0)
    recorder.close()
    assert check(recorder.path, {"emg": rows}, 1)["emg"] == rows


def test_full_disk_when_a_segment_begins(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 200)
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=640, dtype="int16"))
    rows = 0
    for room in range(0, 700, 7):
        disk.room = room
        try:
            while True:
                recorder.append("emg", *samples("emg", rows, 10))
                rows += 10
        except RecordingWriteError:
            pass
    assert rows > 100
    check(recorder.path, {"emg": rows}, 0)
    disk.room = 10**12
    recorder.append("emg", *samples("emg", rows, 10))
    recorder.close()
    assert check(recorder.path, {"emg": rows + 10}, 0)["emg"] == rows + 10


def test_full_disk_at_the_end_leaves_a_usable_folder(tmp_path, disk):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=64, dtype="int16"))
    recorder.append("emg", *samples("emg", 0, 150))
    disk.room = 10
    with pytest.raises(
        RecordingWriteError, match=r"every sample is in it, run 'labtree recover"
    ):
        recorder.close()
    check(recorder.path, {"emg": 150}, 0)
    disk.room = 10**12
    archive = recorder.pack_to_zip()
    check(archive, {"emg": 150}, 0)


def test_chunks_that_fail_in_the_background_are_written_later(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.init_stream("emg", StreamInfo(n_channels=3, fs=64, dtype="int16"))
    real = chunks.write_chunk

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    from labtree.recording import compaction

    monkeypatch.setattr(compaction, "write_chunk", broken)
    for first in range(0, 500, 10):
        recorder.append("emg", *samples("emg", first, 10))
    time.sleep(0.05)
    monkeypatch.setattr(compaction, "write_chunk", real)
    for first in range(500, 700, 10):
        recorder.append("emg", *samples("emg", first, 10))
    recorder.close()
    assert check(recorder.path, {"emg": 700}, 0)["emg"] == 700


def test_no_room_for_a_new_stream_leaves_its_name_free(tmp_path, disk):
    recorder = Recorder(tmp_path)
    about = StreamInfo(n_channels=3, fs=64, dtype="int16")
    disk.room = 0
    with pytest.raises(OSError, match="'emg' cannot be made: No space"):
        recorder.init_stream("emg", about)
    disk.room = 10**12
    assert json.loads((recorder.path / "meta.json").read_text())["streams"] == {}
    recorder.init_stream("emg", about)
    recorder.append("emg", *samples("emg", 0, 5))
    recorder.close()
    check(recorder.path, {"emg": 5}, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_real_limit_of_the_operating_system(tmp_path):
    code = """
import resource, sys, numpy as np
from labtree import Recorder, StreamInfo
recorder = Recorder(sys.argv[1])
recorder.init_stream("emg", StreamInfo(n_channels=3, fs=640, dtype="int16"))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
rows = 0
try:
    while True:
        at = np.arange(rows, rows + 10)
        data = ((at[:, None] * 7 + np.arange(3)) % 30_000).astype("int16")
        recorder.append("emg", data, at / 640)
        rows += 10
except OSError as error:
    assert "File too large" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.close()
print(rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert check(folder, {"emg": 1000}, 0)["emg"] == int(done.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))


def test_metadata_of_something_else_are_named(tmp_path):
    """An array's zarr.json in the place of another's, and of meta.json."""
    recorder = Recorder(tmp_path / "sessions")
    recorder.init_stream("emg", StreamInfo(n_channels=2, fs=1000.0, dtype="int16"))
    recorder.append("emg", np.ones((5, 2), "int16"), np.arange(5) / 1000)
    first, second = (shutil.copytree(recorder.path, tmp_path / name) for name in "ab")
    recorder.close()
    shutil.copy(first / "emg_arrivals.zarr/zarr.json", first / "emg.zarr/zarr.json")
    with pytest.raises(labtree.FormatError, match=r"emg.zarr.*found arrays of 1 and 1"):
        labtree.open_session(first)
    shutil.copy(second / "emg.zarr/zarr.json", second / "meta.json")
    with pytest.raises(labtree.FormatError, match=r"meta.json: expected 'streams', found"):
        recover(second)
    (second / "meta.json").unlink()
    assert any("meta.json" in note for note in recover(second))
    assert labtree.open_session(second).session.streams["emg"].sizes["time"] == 5
