"""A recording after a power cut: what was acknowledged is there, and right."""

import shutil
import sys
import warnings

import numpy as np
import pytest

import labtree
from labtree import Recorder, StreamInfo
from labtree.errors import RecordingWarning
from labtree.recording import journal
from support import power_loss
from support.examples import examples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches /proc")


def rows(first, count):
    at = np.arange(first, first + count)
    return np.column_stack([at, 7 * at]).astype("int16"), at / 20


def make_recording(base, disk, *, close=True):
    """Record two streams and labels; each promise is (rows of a, rows of b, labels)."""
    recorder = Recorder(base, sync="disk", class_names=["x"])
    for name in ("a", "b"):
        recorder.init_stream(name, StreamInfo(n_channels=2, fs=20, dtype="int16"))
    done = [0, 0, 0]
    disk.acknowledge(tuple(done))
    for step in range(14):
        which = step % 3
        disk.begin(None)
        if which == 2:
            recorder.add_label(0, timestamp=done[2] / 10)
            done[2] += 1
        else:
            recorder.append("ab"[which], *rows(done[which], 15))
            done[which] += 15
        disk.acknowledge(tuple(done))
    if close:
        disk.begin(None)
        recorder.close()
        disk.acknowledge(tuple(done))
    else:
        recorder._stop()
        recorder._release()


def problem(crash, folder, base="."):
    """Return what is wrong with a recording after a power cut and recover, or None."""
    if crash.acknowledged is None:
        return None
    crash.write(folder)
    recordings = list((folder / base).glob("*"))
    if not recordings:
        return "the recording is gone"
    (recording,) = recordings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        try:
            labtree.recover(recording)
            labtree.recover(recording)
            tree = labtree.open_session(recording)
        except labtree.LabtreeError as error:
            return f"{type(error).__name__}: {error}"
    for name, promised in zip("ab", crash.acknowledged, strict=False):
        stream = tree.session.streams[name]
        data, times = rows(0, stream.sizes["time"])
        if len(times) < promised:
            return f"{len(times)} of {promised} samples of {name}"
        if not np.array_equal(stream["data"], data) or not np.array_equal(
            stream["time"], times
        ):
            return f"samples of {name} are wrong"
    if len(tree.session.labels) < crash.acknowledged[2]:
        return f"{len(tree.session.labels)} of {crash.acknowledged[2]} labels"
    return None


def problems(disk, tmp_path, seed, count, base=".", **options):
    """Give what is wrong after each of `count` power cuts."""
    for crash in disk.crashes(seed, count, **options):
        folder = tmp_path / "after"
        found = problem(crash, folder, base)
        shutil.rmtree(folder, ignore_errors=True)
        if found:
            yield found


@pytest.fixture(params=[400, 10**6], ids=["short segments", "one segment"])
def recorded(request, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", request.param)
    watched = tmp_path / "watched"
    watched.mkdir()
    with power_loss.record(watched) as disk:
        make_recording(watched, disk)
    return disk


def test_what_was_acknowledged_survives_a_power_cut(recorded, tmp_path):
    assert list(problems(recorded, tmp_path, 1, examples(100))) == []


def test_a_power_cut_during_recover_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 400)
    first, watched = tmp_path / "first", tmp_path / "watched"
    first.mkdir()
    with power_loss.record(first) as before:
        make_recording(first, before, close=False)
    shutil.copytree(first, watched)
    with power_loss.record(watched) as disk:
        disk.acknowledge((75, 75, 4))
        (recording,) = watched.iterdir()
        labtree.recover(recording)
        disk.acknowledge((75, 75, 4))
    assert list(problems(disk, tmp_path, 2, examples(60))) == []


def test_an_append_that_does_not_wait_for_the_disk_is_found(tmp_path, monkeypatch):
    watched = tmp_path / "watched"
    watched.mkdir()
    with power_loss.record(watched) as disk:
        make_recording(watched, disk, close=False)
    # The sync of an append, and that of a label: each is missed. Threads that write chunks
    # sync other files meanwhile.
    appended, last = [], None
    for number, event in enumerate(disk.events):
        named = [pair for folder in event.names.values() for pair in folder.items()]
        journals = {file for name, file in named if name.endswith(".journal")}
        if event.kind == "begin":
            last = None
        elif event.kind == "sync" and event.target in journals:
            last = number
        elif event.kind == "acknowledge" and last is not None:
            appended.append(last)
            last = None
    assert len(appended) >= 10
    for number in (appended[3], appended[2]):
        assert next(problems(disk, tmp_path, 3, 400, without=number), None), number


def test_a_recording_in_new_folders_survives_a_power_cut(tmp_path):
    watched, base = tmp_path / "watched", "lab/mouse 1/day"
    watched.mkdir()
    with power_loss.record(watched) as disk:
        make_recording(watched / base, disk)
    assert list(problems(disk, tmp_path, 4, examples(100), base)) == []
    made = [each for each in disk.syncs[:3] if disk.events[each].kind == "sync folder"]
    assert len(made) == 3
    for number in made:
        found = problems(disk, tmp_path, 5, 200, base, without=number, within=10**9)
        assert next(found, None), number


def test_each_sync_that_alone_keeps_a_new_recording_is_missed(tmp_path):
    """What recover makes anew from the journal, meta.json and the stores, need not be safe."""
    watched = tmp_path / "watched"
    watched.mkdir()
    with power_loss.record(watched) as disk:
        make_recording(watched, disk, close=False)
    (first,) = [i for i, event in enumerate(disk.events) if event.kind == "acknowledge"][1:2]
    last = {}  # of each folder, before the first promise
    for number in disk.syncs:
        event = disk.events[number]
        if number < first and event.kind == "sync folder":
            named = [pair for names in event.names.values() for pair in names.items()]
            (name,) = [name for name, folder in named if folder == event.target] or ["base"]
            last[name] = number
    for name in ("base", "journal", "labels", "a", "b"):
        found = problems(disk, tmp_path, 6, 300, without=last[name], within=10**9)
        assert next(found, None), name
