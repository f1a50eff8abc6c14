"""Processes that are forked while a file is locked, or while a thread saves."""

import os
import signal
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pytest

import labtree
from labtree.storage import locks
from labtree.storage.locks import (
    WriterLock,
    folder_lock,
    hold_file_lock,
    is_locked,
    release_file_lock,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


def forked(work) -> int:
    """Run `work` in a forked process, which ends with status 0 if it raises nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends a process that waits for ever
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Sleeper:
    """A forked process that lives until it is told to end."""

    def __init__(self):
        reading, self._writing = os.pipe()
        lives, told = os.pipe()

        def work():
            os.close(self._writing)
            os.write(told, b"x")
            os.read(reading, 1)

        self.child = forked(work)
        os.read(lives, 1)
        for each in (reading, lives, told):
            os.close(each)

    def end(self):
        os.close(self._writing)
        assert status_of(self.child) == 0


def test_a_folder_is_free_although_a_forked_process_lives_on(tmp_path):
    with folder_lock(tmp_path):
        sleeper = Sleeper()
    try:
        descriptor = os.open(tmp_path, os.O_RDONLY)
        assert locks.try_lock(descriptor)
        os.close(descriptor)
    finally:
        sleeper.end()


def test_a_forked_process_neither_holds_nor_releases_locks(tmp_path):
    held = hold_file_lock(tmp_path / ".held")
    writer = WriterLock(tmp_path / "study.h5")

    def work():
        assert held.closed
        assert not writer.is_held
        writer.release()

    assert status_of(forked(work)) == 0
    assert is_locked(tmp_path / ".held")
    assert is_locked(tmp_path / ".study.h5.lock")
    assert writer.is_held
    writer.release()
    release_file_lock(held)
    assert not list(tmp_path.iterdir())


def test_the_locks_of_a_killed_process_are_free_although_its_children_live(tmp_path):
    reading, writing = os.pipe()

    def work():
        lock = WriterLock(tmp_path / "study.h5")
        file = hold_file_lock(tmp_path / ".held")
        forked(lambda: (os.close(writing), os.read(reading, 1)))
        os.kill(os.getpid(), signal.SIGKILL)
        lock.release(), file.close()

    assert status_of(forked(work)) == -signal.SIGKILL
    assert not is_locked(tmp_path / ".study.h5.lock")
    assert not is_locked(tmp_path / ".held")
    os.close(writing)
    os.close(reading)


def test_a_process_that_is_forked_while_a_thread_saves_can_read(tmp_path):
    began, may_go_on = threading.Event(), threading.Event()

    def block(values):
        began.set()
        assert may_go_on.wait(60)
        return values

    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec", "first", np.arange(3))
    tree.ws.save(tmp_path / "study")
    tree.ws.store("rec", "slow", np.arange(3))
    tree["rec/slow"] = (
        tree["rec/slow"]
        .to_dataset()
        .assign(data=("x", da.from_array(np.arange(5.0)).map_blocks(block, meta=np.ones(0))))
    )

    def work():
        assert tree.ws["rec", "first"].tolist() == [0, 1, 2]
        assert tree.ws.list_keys() == {"rec": ["first", "slow"]}
        tree.ws.store("rec", "own", 1)
        tree.ws.delete("rec", "slow")
        tree.ws.save(tmp_path / "own")
        assert labtree.load_workspace(tmp_path / "own").ws["rec", "own"] == 1

    with ThreadPoolExecutor(2) as pool, dask.config.set(scheduler="threads"):
        saved = pool.submit(tree.ws.save)
        assert began.wait(30)
        try:
            assert status_of(forked(work)) == 0
        finally:
            may_go_on.set()
        saved.result()
    assert labtree.load_workspace(tmp_path / "study")["rec/slow/data"].values.tolist() == [
        0, 1, 2, 3, 4
    ]  # fmt: skip
    tree.ws.close()


def test_a_forked_process_cannot_save_into_a_file_that_is_open_for_changes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.0)
    with labtree.open_workspace(tmp_path / "study", mode="a") as tree:
        tree.ws.store("rec", "first", np.arange(3))

        def work():
            tree.attrs["note"] = "of the fork"
            with pytest.raises(labtree.BusyFileError):
                tree.ws.save()

        assert status_of(forked(work)) == 0
        tree.ws.store("rec", "second", 2)
    loaded = labtree.load_workspace(tmp_path / "study")
    assert loaded.ws.list_keys("rec") == ["first", "second"]
    assert "note" not in loaded.attrs
