"""Files are the old ones or the new ones; what dead processes left is removed."""

import os
import re
import resource
import signal
import socket
import stat
import threading
import time

import numpy as np
import pytest
import xarray as xr

from labtree.errors import BusyFileError, FormatError, MissingFileError
from labtree.storage import open_tree, save_tree
from labtree.storage.files import (
    read_file,
    replace_file,
    retry_while_busy,
    sync_folder,
    temporary_path,
    with_suffix_h5,
    write_file,
)
from support.exactness import assert_same
from support.examples import examples


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def _tree(value: float, size: int = 1000) -> xr.DataTree:
    return xr.DataTree.from_dict({"/a": xr.Dataset({"v": ("x", np.full(size, float(value)))})})


def test_only_what_the_dead_left_of_the_same_file_is_removed(tmp_path):
    host = re.sub("[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    path = tmp_path / "t.h5"
    left = {
        "dead": f".t.h5.{host}.{dead}.0123abcd.labtree-tmp",
        "alive": f".t.h5.{host}.{os.getpid()}.0123abcd.labtree-tmp",
        "other file": f".u.h5.{host}.{dead}.0123abcd.labtree-tmp",
        "other host, new": f".t.h5.elsewhere.{dead}.0123abcd.labtree-tmp",
        "other host, old": f".t.h5.elsewhere.{dead}.1123abcd.labtree-tmp",
        "the user's": ".t.h5.labtree-tmp",
    }
    for name in left.values():
        (tmp_path / name).write_bytes(b"x")
    old = time.time() - 100_000
    os.utime(tmp_path / left["other host, old"], (old, old))
    save_tree(_tree(1), path)
    kept = [left[k] for k in ("alive", "other file", "other host, new", "the user's")]
    assert _names(tmp_path) == sorted([*kept, "t.h5"])


def test_a_temporary_file_is_gone_whatever_happens(tmp_path):

    def fail():
        with temporary_path(tmp_path / "t.h5") as temporary:
            temporary.write_bytes(b"x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _names(tmp_path) == []
    with temporary_path(tmp_path / ("x" * 250)) as temporary:
        temporary.write_bytes(b"")  # not too long for a file system
    with temporary_path(tmp_path / ("ä" * 127 + "b")) as temporary:
        temporary.write_bytes(b"")  # which counts bytes, not letters


def test_a_tree_is_saved_onto_the_file_that_it_reads_from(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(1), path)
    tree = open_tree(path)
    tree["a"]["w"] = ("x", np.arange(1000))
    for _ in range(3):
        save_tree(tree, path)
        assert_same(tree["a/v"].values[:5], np.full(5, 1.0))
        again = open_tree(path)
        assert_same(again["a"].to_dataset().load(), tree["a"].to_dataset().load())
        again.close()
    tree.close()
    assert _names(tmp_path) == ["t.h5"]


def test_a_tree_goes_on_reading_the_file_that_another_replaced(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(1), path)
    tree = open_tree(path)
    save_tree(_tree(2), path)
    assert float(tree["a/v"][0]) == 1
    with open_tree(path) as new:
        assert float(new["a/v"][0]) == 2
    tree.close()


def test_savers_and_readers_at_once_see_whole_files(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(0), path)
    problems, stop = [], threading.Event()

    def save(value):
        try:
            for _ in range(examples(20)):
                save_tree(_tree(value), path)
        except BaseException as error:
            problems.append(error)

    def read():
        try:
            while not stop.is_set():
                with open_tree(path) as tree:
                    assert len(set(tree["a/v"].values.tolist())) == 1
        except BaseException as error:
            problems.append(error)

    savers = [threading.Thread(target=save, args=(i,)) for i in range(3)]
    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in (*savers, *readers):
        thread.start()
    for thread in savers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not problems
    assert _names(tmp_path) == ["t.h5"]


@pytest.mark.parametrize("part", ["data", "attribute"])
def test_a_part_that_cannot_be_kept_fails_the_save(tmp_path, part):
    path = tmp_path / "t.h5"
    save_tree(_tree(1), path)
    old = path.read_bytes()
    bad = xr.Dataset({"v": ("x", np.array([object()], object))})
    if part == "attribute":
        bad = xr.Dataset({"v": ("x", [1], {"f": print})})
    tree = xr.DataTree.from_dict({"/fine": xr.Dataset({"v": 1}), "/ns/bad": bad})
    with pytest.raises(TypeError, match=r"/ns/bad/v.*cannot keep") as caught:
        save_tree(tree, path)
    assert caught.value.__notes__ == ["while writing /ns/bad"]
    assert path.read_bytes() == old
    assert _names(tmp_path) == ["t.h5"]


# --- modes, limits, and what is no file ------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_replaced_file_keeps_its_mode_and_its_content_is_never_public(tmp_path, mode):
    path = tmp_path / "t.bin"
    path.write_bytes(b"old")
    path.chmod(mode)
    with temporary_path(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_bytes(b"new")
        replace_file(temporary, path)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    write_file(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert _names(tmp_path) == ["t.bin"]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_is_as_readable_as_the_mask_says(tmp_path, mask, durable):
    before = os.umask(mask)
    try:
        with temporary_path(tmp_path / "a") as temporary:
            replace_file(temporary, tmp_path / "a", durable=durable)
        write_file(tmp_path / "b", b"x", durable=durable)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert modes == {0o666 & ~mask}
    assert _names(tmp_path) == ["a", "b"]


def test_a_file_that_could_not_be_written_stands_as_it_was(tmp_path):
    path = tmp_path / "t.bin"
    write_file(path, b"old")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            write_file(path, b"x" * 5000)
        except BaseException as error:
            os.write(write, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 100) == b"OSError"
    os.close(read)
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["t.bin"]


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    assert read_file(path, 5) == b"12345"
    assert read_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(FormatError, match=r"a\.bin: it has 5 bytes; expected at most 4"):
        read_file(path, 4)
    with pytest.raises(MissingFileError, match=r"b\.bin: there is no such file"):
        read_file(tmp_path / "b.bin", 4)
    with pytest.raises(MissingFileError, match="no such file"):
        read_file(path / "below", 4)
    with pytest.raises(MissingFileError, match="there can be no such file"):
        read_file(tmp_path / "nul\0", 4)
    # a regular file whose size is 0 and whose content is not
    with pytest.raises(FormatError, match="it has more than 3 bytes"):
        read_file(type(path)("/proc/self/status"), 3)


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(FormatError, match=f"{name}: expected a file, found a pipe"):
            read_file(tmp_path / name, 100)
    with pytest.raises(FormatError, match="expected a file, found a folder"):
        read_file(tmp_path, 100)


def test_a_busy_file_is_tried_again_and_then_named(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: pauses.append(seconds))
    pauses: list[float] = []
    left = [BlockingIOError(11, "Resource temporarily unavailable", "x.h5")] * 2

    def call():
        if left:
            raise left.pop()
        return "done"

    assert retry_while_busy(call) == "done"
    assert len(pauses) == 2

    def held():
        raise OSError("unable to lock file, errno = 11")

    with pytest.raises(BusyFileError, match="another program holds this file") as caught:
        retry_while_busy(held)
    assert isinstance(caught.value, OSError)
    assert sum(pauses[2:]) == pytest.approx(1.0)

    def missing():
        raise FileNotFoundError(2, "No such file", "x.h5")

    pauses.clear()
    with pytest.raises(FileNotFoundError):
        retry_while_busy(missing)
    assert not pauses


def test_a_folder_that_cannot_be_synced_is_no_error(monkeypatch, tmp_path):
    def refuse(descriptor):
        raise OSError(number, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    number = 22
    sync_folder(tmp_path)
    number = 5
    with pytest.raises(OSError, match="refused"):
        sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("given", "name"),
    [("a", "a.h5"), ("a.h5", "a.h5"), ("a.H5", "a.H5"), ("a.b", "a.b.h5"), ("a.nc", "a.nc")],
)
def test_hdf5_files_end_in_h5(given, name):
    assert with_suffix_h5(f"folder/{given}").as_posix() == f"folder/{name}"
