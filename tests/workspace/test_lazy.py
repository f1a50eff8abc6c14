"""The lazy workspace: memory is let go, space is used again, nothing is left behind."""

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.storage.sources import ScratchSource
from labtree.workspace.state import state_of
from support.exactness import assert_same

FDS = Path("/proc/self/fd")
MB = 1 << 20
needs_proc = pytest.mark.skipif(not FDS.is_dir(), reason="only Linux lists the open files")


@pytest.fixture
def tree():
    made = labtree.create_workspace(lazy=True)
    yield made
    made.ws.close()


def scratch_size(tree):
    gc.collect()
    return state_of(tree).scratch(tree).size


def test_memory_is_let_go(tree):
    tree.ws.store("warm", "up", np.zeros(10))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(10):
            tree.ws.store("rec1", f"k{i}", np.full(MB, i, "f8"))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < MB < 10 * 8 * MB
    assert scratch_size(tree) >= 80 * MB
    for i in (0, 9):
        assert_same(tree.ws.get("rec1", f"k{i}"), np.full(MB, i, "f8"))


def test_every_kind_of_payload_leaves_memory(tree):
    big = np.arange(MB / 8)
    values = {
        "array": big,
        "dataset": xr.Dataset({"x": ("t", big)}, coords={"u": ("t", big)}),
        "dataarray": xr.DataArray(big, dims="t", attrs={"a": 1}),
        "frame": pd.DataFrame({"a": big, "b": big.astype(int)}),
        "series": pd.Series(big, name="s"),
        "dict": {"a": {"b": big}},
        "objects": np.array(["text" * 10] * 10_000, object),
        "masked": np.ma.MaskedArray(big, mask=big > 5),
        "dates": big.astype("datetime64[h]"),
    }
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for key, value in values.items():
            tree.ws.store("rec1", key, value)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < MB
    for key, value in values.items():
        assert_same(tree.ws.get("rec1", key), value)


def test_rename_note_and_delete_do_not_touch_the_payload(tree, monkeypatch):
    for i in range(4):
        tree.ws.store("rec1", f"k{i}", np.zeros(MB))

    def refuse(*_):
        raise AssertionError("touched the payload")

    for name in ("read_into", "write", "write_at"):
        monkeypatch.setattr(ScratchSource, name, refuse)
    size = scratch_size(tree)
    for i in range(20):
        assert tree.ws.rename("rec1", "k0" if not i else f"n{i - 1}", f"n{i}")
    assert tree.ws.add_note("rec1", "n19", "hello")
    tree.ws.describe(), repr(tree.ws), tree.ws.list_keys(), tree.ws.get_info("rec1", "n19")
    assert scratch_size(tree) == size
    assert tree.ws.delete("rec1", "n19")


def test_space_is_used_again(tree):
    for i in range(4):
        tree.ws.store("rec1", f"k{i}", np.zeros(MB // 8))
    full = scratch_size(tree)
    for i in range(20):
        tree.ws.store("rec1", "k1", np.full(MB // 8, i))
    assert scratch_size(tree) <= full + MB
    tree.ws.delete("rec1", "k0")
    gc.collect()
    tree.ws.store("rec1", "small", np.ones(1000))
    assert scratch_size(tree) <= full + MB
    assert_same(tree.ws.get("rec1", "k1"), np.full(MB // 8, 19))
    assert_same(tree.ws.get("rec1", "k3"), np.zeros(MB // 8))
    tree.ws.delete("rec1")
    assert scratch_size(tree) == 0


def test_space_that_is_still_looked_at_is_not_used_again(tree):
    tree.ws.store("rec1", "a", np.arange(1000))
    view = tree["rec1/a/data"]
    tree.ws.delete("rec1", "a")
    tree.ws.store("rec1", "b", np.zeros(1000))
    assert_same(view.values, np.arange(1000))


def test_a_failed_store_leaves_nothing_and_keeps_the_old(tree):
    tree.ws.store("rec1", "a", np.arange(MB), note="old")
    before, size = tree.ws.describe(), scratch_size(tree)
    wrong = xr.Dataset({"x": ("t", np.zeros(MB)), "y": ("u", np.array([object()], object))})
    for namespace, key in (("rec1", "a"), ("rec1", "b"), ("rec2", "a")):
        with pytest.raises(TypeError, match="cannot keep"):
            tree.ws.store(namespace, key, wrong)
    assert tree.ws.describe() == before
    assert scratch_size(tree) == size
    assert_same(tree.ws.get("rec1", "a"), np.arange(MB))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", range(3))
def test_a_store_that_stops_while_writing(tree, monkeypatch, after, error):
    tree.ws.store("rec1", "a", np.arange(5000), note="old")
    before, size = tree.ws.describe(), scratch_size(tree)
    original, count = ScratchSource.write_at, iter(range(10))

    def stop(self, offset, array):
        if next(count) == after:
            raise error
        original(self, offset, array)

    monkeypatch.setattr(ScratchSource, "write_at", stop)
    value = xr.Dataset({name: (name + "_", np.zeros(9000)) for name in "xyz"})
    for key in ("a", "b"):
        count = iter(range(10))
        with pytest.raises(type(error)):
            tree.ws.store("rec1", key, value)
    monkeypatch.undo()
    assert tree.ws.describe() == before
    assert_same(tree.ws.get("rec1", "a"), np.arange(5000))
    assert scratch_size(tree) == size
    tree.ws.store("rec1", "a", value)
    assert tree.ws.get("rec1", "a").identical(value)


def test_saves_have_no_holes(tree, tmp_path):
    for i in range(20):
        tree.ws.store("rec1", f"k{i}", np.full(10_000, i))
    for i in range(0, 20, 2):
        tree.ws.delete("rec1", f"k{i}")
    path = tree.ws.save(tmp_path / "study")
    assert path.stat().st_size < 10 * 80_000 + 40_000
    memory = labtree.create_workspace()
    memory.ws.merge_from(tree)
    direct = memory.ws.save(tmp_path / "direct")
    assert abs(direct.stat().st_size - path.stat().st_size) < 2000
    tree.ws.delete("rec1", "k1")
    tree.ws.save()
    assert path.stat().st_size < 10 * 80_000 + 40_000
    assert_same(labtree.load_item(path, "rec1", "k19"), np.full(10_000, 19))


def test_a_saved_lazy_workspace_goes_on(tree, tmp_path):
    tree.ws.store("rec1", "a", np.arange(10))
    path = tree.ws.save(tmp_path / "study")
    path.unlink()
    assert_same(tree.ws.get("rec1", "a"), np.arange(10))
    tree.ws.store("rec1", "b", 2)
    tree.ws.save()
    with labtree.open_workspace(path) as opened:
        assert opened.ws.is_lazy
        assert opened.ws.list_keys() == {"rec1": ["a", "b"]}


def test_a_closed_lazy_workspace(tmp_path):
    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec1", "a", np.arange(10))
    tree.ws.close()
    tree.ws.close()
    assert tree.ws.list_keys() == {"rec1": ["a"]}
    for call in (
        lambda: tree.ws.get("rec1", "a"),
        lambda: tree.ws.save(tmp_path / "study"),
        lambda: tree["rec1/a/data"].values,
    ):
        with pytest.raises(
            ValueError, match="the lazy workspace was closed; nothing can be read"
        ):
            call()
    with pytest.raises(
        ValueError, match="the workspace was closed, nothing can be stored in it"
    ):
        tree.ws.store("rec1", "b", np.arange(10))
    assert tree.ws.list_keys() == {"rec1": ["a"]}
    assert list(tmp_path.iterdir()) == []


def test_a_with_block_closes():
    with labtree.create_workspace(lazy=True) as tree:
        tree.ws.store("rec1", "a", np.arange(10))
    with pytest.raises(ValueError, match="was closed"):
        tree.ws.get("rec1", "a")


def open_files():
    links = []
    for entry in FDS.iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return [link for link in links if "deleted" in link]


@needs_proc
def test_the_temporary_file_goes_on_close_and_on_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.collect()
    before = open_files()
    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec1", "a", np.arange(10))
    assert list(tmp_path.iterdir()) == []  # it never has a name
    assert len(open_files()) == len(before) + 1
    tree.ws.close()
    assert open_files() == before
    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec1", "a", np.arange(10))
    gone = weakref.ref(tree)
    assert len(open_files()) == len(before) + 1
    del tree
    gc.collect()
    assert gone() is None
    assert open_files() == before


@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)", "1 / 0"])
def test_the_temporary_file_goes_with_the_process(tmp_path, end):
    code = f"""
import os, labtree, numpy as np
tree = labtree.create_workspace(lazy=True)
tree.ws.store("rec1", "a", np.arange(100000))
tree.ws.save({str(tmp_path / "study")!r})
print("stored", flush=True)
{end}
"""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = str(Path(labtree.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "stored\n"
    assert done.returncode == {"1 / 0": 1, "os.kill(os.getpid(), 9)": -signal.SIGKILL}.get(
        end, 0
    )
    assert list(scratch.iterdir()) == []
    assert len(list(tmp_path.iterdir())) == 3


def test_copies_and_pickles(tree):
    tree.ws.store("rec1", "a", np.arange(1000))
    shallow, deep, pickled = tree.copy(), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))
    for each in (shallow, deep, pickled):
        each.ws.store("rec1", "own", 1)
        each.ws.add_note("rec1", "a", "own")
        each.close()
    assert tree.ws.list_keys() == {"rec1": ["a"]}
    assert "note" not in tree.ws.get_info("rec1", "a")
    assert_same(tree.ws.get("rec1", "a"), np.arange(1000))
    tree.ws.close()
    assert_same(pickled.ws.get("rec1", "a"), np.arange(1000))


def test_a_copy_outlives_its_original():
    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec1", "a", np.arange(1000))
    other = tree.copy()
    del tree
    gc.collect()
    assert_same(other.ws.get("rec1", "a"), np.arange(1000))


def test_dask_arrays_are_computed_block_by_block(tree, tmp_path):
    dask = pytest.importorskip("dask.array")
    sizes = []

    def block(block_info=None):
        shape = block_info[None]["chunk-shape"]
        sizes.append(shape)
        return np.full(shape, block_info[None]["chunk-location"][0], "f8")

    array = dask.map_blocks(block, chunks=((100,) * 50, (1000,)), dtype="f8")
    tracemalloc.start()
    try:
        tree.ws.store("rec1", "a", xr.Dataset({"x": (("t", "c"), array)}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 2
    assert len(sizes) >= 50
    expected = np.repeat(np.arange(50.0), 100)
    assert_same(tree.ws.get("rec1", "a")["x"].values[:, 7], expected)
    path = tree.ws.save(tmp_path / "study")
    with labtree.open_workspace(path) as opened:
        assert_same(opened["rec1/a/x"][:, 3].values, expected)


def test_an_error_in_a_dask_block_leaves_nothing(tree):
    dask = pytest.importorskip("dask.array")

    def fail(block):
        raise ZeroDivisionError

    tree.ws.store("rec1", "a", 1)
    array = dask.zeros((1000, 10), chunks=(100, 10)).map_blocks(
        fail, dtype="f8", meta=np.zeros((0, 0))
    )
    with pytest.raises(ZeroDivisionError):
        tree.ws.store("rec1", "a", xr.Dataset({"x": (("t", "c"), array)}))
    assert tree.ws.get("rec1", "a") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_write_into_its_parents_file(tree, tmp_path):
    for i in range(10):
        tree.ws.store("rec1", f"k{i}", np.full(1000, i))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert_same(tree.ws.get("rec1", "k3"), np.full(1000, 3))
            for i in range(5, 10):
                tree.ws.delete("rec1", f"k{i}")
            gc.collect()
            for i in range(20):
                tree.ws.store("child", f"c{i}", np.full(1000, -1))
            assert_same(tree.ws.get("child", "c7"), np.full(1000, -1))
            tree.ws.save(tmp_path / "child")
            tree.ws.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for i in range(10):
        assert_same(tree.ws.get("rec1", f"k{i}"), np.full(1000, i))
    tree.ws.store("rec1", "more", np.full(1000, 11))
    assert tree.ws.merge_from(labtree.open_workspace(tmp_path / "child"))["skipped"] == 5
    assert_same(tree.ws.get("child", "c19"), np.full(1000, -1))
    assert_same(tree.ws.get("rec1", "more"), np.full(1000, 11))
