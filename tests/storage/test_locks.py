"""Locks keep others out, end with their process, and touch nothing else."""

import os
import threading
import time

import pytest

from labtree.errors import BusyFileError, FormatError, MissingFileError
from labtree.storage.locks import folder_lock, hold_file_lock, is_locked, release_file_lock


def test_the_lock_keeps_others_out(tmp_path):
    order = []

    def other():
        with folder_lock(tmp_path):
            order.append("other")

    with folder_lock(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_a_file_lock_is_held_until_it_is_released(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    assert not is_locked(path)
    held = hold_file_lock(path)
    assert is_locked(path)
    with pytest.raises(BusyFileError, match=r"\.lock is held by another process"):
        hold_file_lock(path)
    monkeypatch.chdir(tmp_path.parent)
    release_file_lock(held)
    assert not path.exists()
    assert not is_locked(path)
    release_file_lock(hold_file_lock(path))


def test_a_lock_under_a_relative_path_is_removed_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    held = hold_file_lock(type(tmp_path)(".lock"))
    monkeypatch.chdir(tmp_path)
    release_file_lock(held)
    assert not list((tmp_path / "a").iterdir())


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / ".lock"
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held = hold_file_lock(path)
            os.write(told, b"x")
            time.sleep(60)
            held.close()
        finally:
            os._exit(0)
    os.close(told)
    os.read(ready, 1)
    try:
        assert is_locked(path)
    finally:
        os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(ready)
    assert not is_locked(path)
    release_file_lock(hold_file_lock(path))


def test_who_waits_for_a_removed_lock_makes_a_new_one(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    first = hold_file_lock(path)

    def release(seconds):
        if not first.closed:
            release_file_lock(first)

    monkeypatch.setattr("time.sleep", release)
    second = hold_file_lock(path)
    assert is_locked(path)
    release_file_lock(second)


def test_a_lock_changes_no_content(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("precious")
    held = hold_file_lock(path)
    assert path.read_text() == "precious"
    held.close()
    assert path.read_text() == "precious"


def test_a_lock_never_goes_through_a_link(tmp_path):
    victim, link = tmp_path / "victim.txt", tmp_path / ".lock"
    victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(FormatError, match=r"\.lock is a link"):
        hold_file_lock(link)
    assert not is_locked(link)
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"\.lock is a link"):
        hold_file_lock(link)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "victim.txt"]
    assert victim.read_text() == "precious"


def test_a_lock_is_a_file_in_a_folder_that_exists(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe is no regular file"):
        hold_file_lock(tmp_path / "pipe")
    assert not is_locked(tmp_path / "pipe")
    with pytest.raises(MissingFileError, match="there is no folder"):
        hold_file_lock(tmp_path / "none" / ".lock")


@pytest.mark.parametrize("seen", [OSError(95, "no locks here")])
def test_a_file_system_without_locks_goes_on_unguarded(tmp_path, monkeypatch, seen):
    def refuse(*args):
        raise seen

    monkeypatch.setattr("fcntl.flock", refuse)
    with folder_lock(tmp_path):
        held = hold_file_lock(tmp_path / ".lock")
    assert not is_locked(tmp_path / ".lock")
    release_file_lock(held)
