"""Files are the old ones or the new ones; what dead processes left is removed."""

import os
import re
import socket
import threading
import time

import numpy as np
import pytest
import xarray as xr

from labtree.storage import close_tree, open_tree, save_tree
from labtree.storage.atomic import folder_lock, temporary_path
from support.exactness import assert_same


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
        close_tree(again)
    close_tree(tree)
    assert _names(tmp_path) == ["t.h5"]


def test_a_tree_goes_on_reading_the_file_that_another_replaced(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(1), path)
    tree = open_tree(path)
    save_tree(_tree(2), path)
    assert float(tree["a/v"][0]) == 1
    with open_tree(path) as new:
        assert float(new["a/v"][0]) == 2
    close_tree(tree)


def test_savers_and_readers_at_once_see_whole_files(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(0), path)
    problems, stop = [], threading.Event()

    def save(value):
        try:
            for _ in range(15):
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
