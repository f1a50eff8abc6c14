"""Changes of an HDF5 file in place: each is there whole, or not at all, whatever happens."""

import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5g, h5p, h5s, h5t

from labtree.errors import BusyFileError, FormatError
from labtree.storage.hdf5_end import append_first, read_chain, walk
from labtree.storage.redo_log import RedoLog
from support import power_loss
from support.examples import examples


def new_file(path, items=()):
    """Write a file as labtree does: ordered, no reuse of freed space, a record at its end."""
    with h5py.File(
        path, "w", libver=("v108", "v110"), track_order=True, fs_strategy="none"
    ) as file:
        for name, value in items:
            file.create_dataset(name, data=value)
    append_first(path, b"{}", b"")


class Model:
    """What the file should hold, and verbs that change both."""

    def __init__(self, state=None):
        self.state = dict(state or {})

    def copy(self):
        return Model(self.state)

    def change(self, log, chance):
        verb = chance.choice(["add", "add", "add", "replace", "delete", "rename", "note"])
        names = list(self.state)
        with log.transaction() as change:
            with change.hdf5() as file:
                if verb == "add" or not names:
                    name = f"item{chance.randrange(10**9)}"
                    self._add(change, file, name, chance)
                elif verb == "replace":
                    name = chance.choice(names)
                    file.unlink(name.encode())
                    del self.state[name]
                    self._add(change, file, name, chance)
                elif verb == "delete":
                    name = chance.choice(names)
                    file.unlink(name.encode())
                    del self.state[name]
                elif verb == "rename":
                    name, new = chance.choice(names), f"moved{chance.randrange(10**9)}"
                    file.links.move(name.encode(), file, new.encode())
                    self.state[new] = self.state.pop(name)
                else:
                    name = chance.choice(names)
                    note = "n" * chance.randrange(1, 3000)
                    opened = h5py.Dataset(h5d.open(file, name.encode()))
                    opened.attrs["note"] = note
                    self.state[name] = (self.state[name][0], note)
            text = json.dumps(sorted(self.state)).encode()
            change.commit(text, b"", is_whole=chance.random() < 0.2)

    def _add(self, change, file, name, chance):
        values = np.arange(chance.randrange(1, 2000), dtype=np.int64) + chance.randrange(99)
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5d.FILL_TIME_NEVER)
        space = h5s.create_simple(values.shape)
        made = h5d.create(file, name.encode(), h5t.NATIVE_INT64, space, dcpl=creation)
        h5py.Dataset(made).attrs["note"] = "new"
        change.write_at(made.get_offset(), values)
        self.state[name] = (tuple(values.tolist()), "new")


def read(path):
    """Read what plain h5py finds."""
    with h5py.File(path, "r") as file:
        return {
            name: (tuple(item[()].tolist()), item.attrs["note"]) for name, item in file.items()
        }


def names_of(path):
    """Read what the newest catalogue says."""
    file = os.open(path, os.O_RDONLY)
    try:
        *_, last = walk(file)
        assert read_chain(file, last)[-1] == last
        return json.loads(last.text(file))
    finally:
        os.close(file)


def test_plain_h5py_reads_every_change(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    chance, model = random.Random(1), Model()
    log = RedoLog(path)
    for _ in range(60):
        model.change(log, chance)
        assert read(path) == model.state
        assert names_of(path) == sorted(model.state)
        assert not log.is_pending
    assert log.close()
    assert read(path) == model.state


def test_a_change_costs_the_same_in_a_file_of_any_size(tmp_path):
    grown = []
    for count in (10, 1000):
        path = tmp_path / f"{count}.h5"
        new_file(path, [(f"old{i}", np.arange(3)) for i in range(count)])
        log = RedoLog(path)
        before = path.stat().st_size
        with log.transaction() as change:
            with change.hdf5() as file:
                h5g.create(file, b"new")
            change.commit(b"x" * 100, b"", is_whole=False)
        log.close()
        grown.append(path.stat().st_size - before)
    assert grown[1] < grown[0] + 3000


def test_a_change_that_is_not_committed_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path, [("a", np.arange(5))])
    before = path.read_bytes()
    log = RedoLog(path)
    with log.transaction() as change, change.hdf5() as file:
        h5g.create(file, b"new")
    with pytest.raises(ValueError, match="in the middle"):
        fail_in_the_middle(log)
    assert log.close()
    assert path.read_bytes() == before


def fail_in_the_middle(log):
    with log.transaction() as change, change.hdf5() as file:
        h5g.create(file, b"other")
        raise ValueError("a fault in the middle")


def test_while_a_reader_has_the_file_open_changes_are_pending_and_durable(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path, [("a", np.arange(5))])
    with h5py.File(path, "r+") as file:
        file["a"].attrs["note"] = "old"
    append_first(path, b"{}", b"")
    log, chance, model = RedoLog(path), random.Random(2), Model(read(path))
    old = read(path)
    with h5py.File(path, "r") as reader:
        for _ in range(10):
            model.change(log, chance)
        assert log.is_pending
        assert list(reader) == list(old)
        assert read(path) == old  # HDF5's part is as it was
        assert names_of(path) == sorted(model.state)  # the records are not
        # A program that would write, and cut the records off, is kept away.
        with pytest.raises(OSError, match="open"):
            h5py.File(path, "r+")
        copied = shutil.copy(path, tmp_path / "copy.h5")
        assert not log.close(patience_s=0)
    # The pending changes are put in place by the next who opens the file for changes.
    for each in (path, copied):
        assert RedoLog(tmp_path / each).close()
        assert read(each) == model.state


def test_once_the_reader_is_gone_the_next_change_puts_all_in_place(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    log, chance, model = RedoLog(path), random.Random(3), Model()
    model.change(log, chance)
    with h5py.File(path, "r"):
        model.change(log, chance)
        model.change(log, chance)
    assert log.is_pending
    model.change(log, chance)
    assert not log.is_pending
    assert read(path) == model.state
    log.close()


def test_a_file_that_another_program_changed_is_left_alone(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path, [("a", np.arange(5))])
    log = RedoLog(path)
    with h5py.File(path, "r+") as file:
        file["b"] = 1
    with pytest.raises(FormatError, match="changed, moved or removed by another program"):
        log.transaction()
    log.close()
    with pytest.raises(FormatError, match="another program changed this file"):
        RedoLog(path)
    with h5py.File(path, "r") as file:
        assert list(file) == ["a", "b"]


def test_a_file_that_was_replaced_or_removed_is_noticed(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    log = RedoLog(path)
    new_file(tmp_path / "b.h5")
    (tmp_path / "b.h5").replace(path)
    with pytest.raises(FormatError, match="open it again"):
        log.transaction()
    path.unlink()
    with pytest.raises(FormatError, match="open it again"):
        log.transaction()
    log.close()


def test_a_program_that_writes_keeps_labtree_out(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    code = f"import h5py; f = h5py.File({str(path)!r}, 'r+'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(BusyFileError, match="open for writing in another program"):
            RedoLog(path)
        other.communicate("\n")


def test_what_a_crash_left_of_a_change_is_cut_off(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path, [("a", np.arange(5))])
    whole = path.read_bytes()
    for tail in (b"garbage", b"labtree+" + bytes(30), bytes(5000)):
        path.write_bytes(whole + tail)
        assert RedoLog(path).close()
        assert path.read_bytes() == whole


def test_each_byte_of_the_records_is_checked(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    log, model = RedoLog(path), Model()
    model.change(log, random.Random(4))
    log.close()
    whole = path.read_bytes()
    place = h5py_end(path)
    for at in range(place, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        file = os.open(path, os.O_RDONLY)
        try:
            is_padding = at - place in range(108, 112)
            assert is_padding or not is_whole(file), at
        finally:
            os.close(file)
    for size in range(place + 1, len(whole)):
        path.write_bytes(whole[:size])
        file = os.open(path, os.O_RDONLY)
        assert not is_whole(file), size
        os.close(file)


def is_whole(file):
    """Return whether all records of a file can be read; the others are told as damage."""
    try:
        for record in walk(file):
            record.redo(file), record.values(file), record.text(file)
    except FormatError as error:
        assert "damaged" in str(error) or "version" in str(error)  # noqa: PT017
        return False
    return True


def h5py_end(path):
    with h5py.File(path, "r") as file:
        assert file["/"]
    return int.from_bytes(path.read_bytes()[28:36], "little")


@pytest.mark.parametrize("with_reader", [False, True])
def test_a_power_cut_leaves_an_acknowledged_state_or_the_next(tmp_path, with_reader):
    for seed in range(examples(20)):
        disk = recorded(tmp_path / f"disk{seed}", seed, steps=10, with_reader=with_reader)
        assert (
            list(wrong(disk, tmp_path, seed, examples(200), is_applied=not with_reader)) == []
        )


def test_each_sync_that_is_taken_away_is_missed(tmp_path):
    disk = recorded(tmp_path / "disk", 7, steps=4, with_reader=False)
    assert len(disk.syncs) == 8
    for event in disk.syncs:
        assert any(wrong(disk, tmp_path, 1, 3000, is_applied=True, without=event)), event


def test_the_sync_before_the_superblock_of_several_changes_is_missed(tmp_path):
    disk = recorded(tmp_path / "disk", 7, steps=8, with_reader=True)
    before = [event for event in disk.syncs if {event - 1, event + 1} <= set(disk.syncs)]
    assert before
    found = (wrong(disk, tmp_path, 1, 300, is_applied=False, without=e) for e in before)
    assert any(map(any, found))


def recorded(folder, seed, *, steps, with_reader):
    """Change a file on a disk whose power may fail; the model's state is acknowledged."""
    folder.mkdir()
    path, probe = folder / "a.h5", folder.with_suffix(".h5")
    new_file(path)
    chance, model = random.Random(seed), Model()
    with power_loss.record(folder) as disk:
        log = RedoLog(path)
        for step in range(steps):
            reader = h5py.File(path, "r") if with_reader and step % 4 in (1, 2) else None
            following, seed = model.copy(), chance.random()
            # What will be saved is known only afterwards: try it on a copy.
            shutil.copy(path, probe)
            trial = RedoLog(probe)
            following.change(trial, random.Random(seed))
            trial.close()
            disk.begin(dict(following.state))
            model.change(log, random.Random(seed))
            assert model.state == following.state
            disk.acknowledge(dict(model.state))
            if reader is not None:
                reader.close()
        log.close()
    return disk


def wrong(disk, folder, seed, count, *, is_applied, without=None):
    """Yield what is neither the acknowledged state nor the next after a power cut.

    Where no reader was in the way, a change that returned stands where HDF5 looks for it, so
    plain h5py must find it before labtree repairs anything.
    """
    for crash in disk.crashes(seed, count, without=without):
        shutil.rmtree(folder / "crash", ignore_errors=True)
        path = crash.write(folder / "crash") / "a.h5"
        acknowledged = crash.acknowledged or {}
        found = []
        if is_applied and crash.attempted is None:
            found.append(safely_read(path))
        try:
            RedoLog(path).close()
        except Exception as error:
            found.append(repr(error))
        found.append(safely_read(path))
        allowed = [acknowledged] if crash.attempted is None else [acknowledged, crash.attempted]
        if any(state not in allowed for state in found):
            yield crash.after, [s if isinstance(s, str) else sorted(s) for s in found]


def safely_read(path):
    try:
        return read(path)
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_call_leaves_the_old_state_or_the_new(tmp_path, number):
    # In a process of its own: what HDF5 could not close crashes the interpreter at its end.
    code = (
        "from pathlib import Path; from storage import test_redo_log as tests; "
        f"print(tests.faults_of_the_disk(Path({str(tmp_path)!r}), {number}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout) > 40


def faults_of_the_disk(folder, number):
    """Let the disk fail from each call of several changes on; return how many calls."""
    count = 0
    for seed in (1, 2, 3, 4, 6):  # a note, and an item renamed, added, deleted and replaced
        at = 0
        while fails_at(at, number, seed, folder):
            at += 1
            count += 1
    return count


def fails_at(at, number, seed, folder):
    """Let the disk fail from a call on; return whether there were that many calls."""
    path = folder / f"{seed}-{at}.h5"
    new_file(path)
    chance, model = random.Random(seed), Model()
    log = RedoLog(path)
    for _ in range(3):
        model.change(log, chance)
    old, following = dict(model.state), model.copy()
    with failing_disk(at, number) as calls:
        try:
            following.change(log, chance)
            expected = following.state
        except OSError as error:
            if error.errno != number:
                raise
            expected = old
    model = Model(expected)
    model.change(log, chance)  # it works again on a disk that does
    log.close()
    RedoLog(path).close()
    assert read(path) == model.state
    return len(calls) > at


@contextlib.contextmanager
def failing_disk(at, number):
    """Let reads, writes and syncs fail from a call on: a disk that is full stays full."""
    calls = []

    def failing(original):
        def call(*args):
            calls.append(original.__name__)
            if len(calls) > at:
                raise OSError(number, os.strerror(number))
            return original(*args)

        return call

    names = ["pwrite", "fsync"] + ["pread"] * (number == errno.EIO)
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, failing(getattr(os, name)))
        yield calls


def test_an_interrupt_at_any_line_leaves_the_old_state_or_the_new(tmp_path):
    at = 0
    while interrupted_at(at, tmp_path):
        at += 3
    assert at > 100


def interrupted_at(at, tmp_path):
    """Interrupt a change at a line; return whether there were that many lines."""
    path = tmp_path / f"{at}.h5"
    new_file(path)
    model, log, lines = Model(), RedoLog(path), []
    model.change(log, random.Random(8))
    old, following = dict(model.state), model.copy()

    def trace(frame, event, argument):
        # HDF5 calls the overlay, where a real interrupt is deferred.
        is_called = type(frame.f_locals.get("self")).__name__ == "_Overlay"
        if frame.f_code.co_filename != RedoLog.__init__.__code__.co_filename or is_called:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == at:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        following.change(log, random.Random(9))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    last = log.last.transaction
    log.close()
    RedoLog(path).close()
    assert read(path) == (following.state if last == 2 else old)
    return len(lines) >= at


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _interrupts():
    """Let SIGINT raise KeyboardInterrupt, also in a process that was started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_a_real_interrupt_leaves_the_old_state_or_the_new(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    log, model, chance = RedoLog(path), Model(), random.Random(11)
    stopped = 0
    for _ in range(80):
        following, transaction = model.copy(), log.last.transaction
        pause = chance.uniform(1e-4, 6e-3)
        stop = threading.Thread(target=lambda: (time.sleep(pause), interrupt()))  # noqa: B023
        is_done = False
        try:
            stop.start()
            following.change(log, chance)
            is_done = True
            stop.join()
        except KeyboardInterrupt:
            stopped += not is_done
        stop.join()
        if log.last.transaction > transaction:
            model = following
    log.close()
    RedoLog(path).close()
    assert sorted(read(path)) == sorted(model.state)
    assert stopped > 0


def test_locks_of_readers_are_not_kept_after_a_change(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    log = RedoLog(path)
    Model().change(log, random.Random(1))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    log.close()


@contextlib.contextmanager
def broken_disk():
    """Let no sync succeed, and after the first of them no truncate."""
    with pytest.MonkeyPatch.context() as patch:

        def fails(*_):
            patch.setattr(os, "ftruncate", fails)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "fsync", fails)
        yield


def test_a_change_that_the_disk_neither_took_nor_let_be_cut_off_is_gone_later(tmp_path):
    path = tmp_path / "a.h5"
    new_file(path)
    log, model, chance = RedoLog(path), Model(), random.Random(12)
    model.change(log, chance)
    last, following = log.last, model.copy()
    with broken_disk():
        with pytest.raises(OSError, match="Input/output"):
            following.change(log, chance)
        assert log.has_failed
        with pytest.raises(OSError, match="Input/output"):
            log.settle()
    assert log.has_failed
    log.settle()
    assert log.last == last
    model.change(log, chance)
    log.close()
    assert read(path) == model.state
    assert names_of(path) == sorted(model.state)


def test_what_another_process_took_for_committed_is_not_cut_off(tmp_path):
    """A change that failed here was found whole there, and changed further."""
    path = tmp_path / "a.h5"
    new_file(path)
    log, following, chance = RedoLog(path), Model(), random.Random(12)
    with broken_disk(), pytest.raises(OSError, match="Input/output"):
        following.change(log, chance)
    fcntl.flock(log.fileno(), fcntl.LOCK_UN)  # as where the system has no locks
    other = RedoLog(path)
    following.change(other, chance)
    other.close()
    log.settle()
    assert log.last.transaction == 2
    log.close()
    assert read(path) == following.state


def test_a_power_cut_in_the_repair_after_a_kill_leaves_the_old_state_or_the_new(tmp_path):
    """Killed before the sync: the change is whole in memory, and nothing of it on the disk."""
    for seed in range(examples(12)):
        folder = tmp_path / f"disk{seed}"
        folder.mkdir()
        path = folder / "a.h5"
        new_file(path)
        log, model, chance = RedoLog(path), Model(), random.Random(seed)
        for _ in range(3):
            model.change(log, chance)
        log.close()
        following = model.copy()
        trial = RedoLog(Path(shutil.copy(path, tmp_path / "trial.h5")))
        following.change(trial, random.Random(1000 + seed))
        trial.close()
        with power_loss.record(folder, dict(model.state)) as disk:
            disk.begin(following.state)
            child = os.fork()
            if child == 0:
                log = RedoLog(path)
                os.fsync = lambda _: os._exit(0)
                model.change(log, random.Random(1000 + seed))
            os.waitpid(child, 0)
            RedoLog(path).close()
            assert read(path) == following.state
            disk.acknowledge(following.state)
        assert list(wrong(disk, tmp_path, seed, examples(300), is_applied=True)) == []
        if seed == 0:
            # That of the records and the last one; the one between is for several changes.
            for event in (disk.syncs[0], disk.syncs[-1]):
                found = wrong(disk, tmp_path, 1, 400, is_applied=True, without=event)
                assert any(found), event
