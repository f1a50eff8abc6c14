"""Arrays of dask are written block by block, and never whole in memory."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import labtree
from labtree.objects import registry
from labtree.storage import open_tree, save_tree
from labtree.storage.blocks import write_blocks
from labtree.storage.scratch import put_dataset
from labtree.storage.sources import ScratchSource
from support.exactness import assert_same
from support.examples import THOROUGH

DTYPES = [
    "f4",
    ">i2",
    "?",
    "f2",
    "c16",
    "M8[ns]",
    "m8[s]",
    "S3",
    "U2",
    "i4,f8",
    "O",
    "longdouble",
]


@given(st.data())
def test_blocks_come_to_their_place(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    dtype = data.draw(st.sampled_from(["i2", "c8", "S3"]))
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    extra = {"i2": (), "c8": (2,), "S3": (3,)}[array.dtype.str.lstrip("<|")]
    written = bytearray(b"\xff" * array.nbytes)

    def write_at(offset, run):
        assert run.tobytes()
        written[offset : offset + run.nbytes] = run.tobytes()

    write_blocks(da.from_array(array, chunks=chunks), shape + extra, write_at)
    assert bytes(written) == array.tobytes()


@pytest.mark.parametrize("where", ["file", "scratch", "memory"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, where, dtype):
    raw = np.arange(60).reshape(6, 10)
    values = raw.astype(dtype) if dtype != "i4,f8" else np.zeros((6, 10), dtype)
    if dtype == "i4,f8":
        values["f0"] = raw
    dataset = xr.Dataset({"v": (("x", "y"), values)}, {"x": np.arange(6)}, {"a": 1})
    chunked = dataset.chunk(x=4, y=3)
    if where == "file":
        save_tree(xr.DataTree(chunked), tmp_path / "t.h5")
        tree = open_tree(tmp_path / "t.h5")
        assert_same(tree.to_dataset().load(), dataset)
        tree.close()
    elif where == "scratch":
        scratch = ScratchSource()
        assert_same(put_dataset(chunked, scratch, "a").load(), dataset)
        scratch.close()
    else:
        kind, encoded = registry.encode(chunked)
        assert encoded["v"].chunks is not None
        assert_same(registry.decode(kind, encoded), dataset)
    assert chunked["v"].chunks is not None


@pytest.mark.parametrize("where", ["file", "scratch"])
@pytest.mark.parametrize("dtype", ["f8", "c16", "?"])
def test_memory_stays_at_a_few_blocks(tmp_path, where, dtype):
    block, count = 200_000, 60
    alive, most, lock = set(), [0], threading.Lock()

    def make(block_info=None):
        place = block_info[None]["array-location"][0][0]
        with lock:
            alive.add(place)
            most[0] = max(most[0], len(alive))
        return np.full(block, place % 7, dtype)

    array = da.map_blocks(make, chunks=((block,) * count,), dtype=dtype)
    dataset = xr.Dataset({"v": ("x", array)})
    scratch = ScratchSource()
    with dask.config.set(scheduler="threads", num_workers=2):
        tracemalloc.start()
        if where == "file":
            save_tree(xr.DataTree(dataset), tmp_path / "t.h5")
        else:
            put = put_dataset(dataset, scratch, "a")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most[0] == count
    assert peak < 12 * block * np.dtype(dtype).itemsize + 2_000_000
    if where == "file":
        tree = open_tree(tmp_path / "t.h5")
        found = tree["v"]
    else:
        tree, found = None, put["v"]
    expected = (np.arange(count) * block % 7).astype(dtype)
    assert_same(found[::block].values, expected)
    assert_same(found[block - 1 :: block].values, expected)
    if tree is not None:
        tree.close()
    scratch.close()


def test_an_error_in_a_block_keeps_the_old_file(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(xr.DataTree(xr.Dataset({"v": 1})), path)
    old = path.read_bytes()

    def fail(block):
        raise RuntimeError("no such luck")

    array = da.zeros((10,), chunks=5).map_blocks(fail, dtype="f8", meta=np.zeros(0))
    with pytest.raises(RuntimeError, match="no such luck"):
        save_tree(xr.DataTree(xr.Dataset({"v": ("x", array)})), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.h5"]
    assert path.read_bytes() == old


def test_a_saved_file_feeds_dask_again(tmp_path):
    values = np.arange(1000.0).reshape(10, 100)
    save_tree(xr.DataTree(xr.Dataset({"v": (("x", "y"), values)})), tmp_path / "t.h5")
    with open_tree(tmp_path / "t.h5") as tree:
        chunked = tree.to_dataset().chunk(x=3)
        assert float(chunked["v"].sum()) == values.sum()
        save_tree(xr.DataTree(chunked * 2), tmp_path / "t.h5")
    with open_tree(tmp_path / "t.h5") as tree:
        assert_same(tree["v"].values, values * 2)


def _failing(block_began, failed, may_go_on):
    """Return an array whose second block fails while the first is written, before the third."""

    def compute(block, block_info=None):
        place = block_info[0]["chunk-location"][0]
        if place == 1:
            block_began.wait(30)
            failed.set()
            raise ZeroDivisionError("the second block")
        if place == 2:
            may_go_on.wait(30)
        return block

    array = da.from_array(np.arange(30.0), chunks=10)
    return array.map_blocks(compute, dtype=float)


def test_nothing_is_written_after_a_failure():
    """What a thread writes later could go to another file, or to another array's place."""
    began, failed, may_go_on = (threading.Event() for _ in range(3))
    at_work, seen = set(), []

    def write_at(offset, run):
        at_work.add(offset)
        seen.append(offset)
        began.set()
        failed.wait(30)
        threading.Event().wait(0.2)  # in which a writer that does not wait comes back
        at_work.discard(offset)

    array = _failing(began, failed, may_go_on)
    with ThreadPoolExecutor(3) as pool, dask.config.set(pool=pool):
        with pytest.raises(ZeroDivisionError, match="the second block"):
            write_blocks(array, (30,), write_at)
        assert seen == [0]
        assert not at_work
        may_go_on.set()
    assert seen == [0]


@pytest.mark.parametrize("name", ["t.h5", "t.zarr"])
def test_a_failed_save_leaves_nothing_to_the_next(tmp_path, name):
    began, failed, may_go_on = (threading.Event() for _ in range(3))
    array = _failing(began, failed, may_go_on)
    tree, path = labtree.create_workspace(), tmp_path / name
    tree.ws.store("rec", "rates", xr.DataArray(array, dims="x"))
    began.set()
    with ThreadPoolExecutor(3) as pool, dask.config.set(pool=pool):
        with pytest.raises(ZeroDivisionError, match="the second block"):
            tree.ws.save(path)
        tree.ws.store("rec", "rates", xr.DataArray(np.ones(30), dims="x"))
        tree.ws.save(path)
        saved = {f: f.read_bytes() for f in [path, *path.rglob("*")] if f.is_file()}
        may_go_on.set()
    assert {f: f.read_bytes() for f in [path, *path.rglob("*")] if f.is_file()} == saved
    assert not list(tmp_path.glob(".*"))
    assert (labtree.load_workspace(path).ws["rec", "rates"] == 1).all()


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        (scheduler, kind)
        for scheduler in ("processes", "executor", "threads", "unknown")
        for kind in ("new", "in place", "lazy")
        # One start of other processes is enough.
        if scheduler != "processes" or kind == "in place" or THOROUGH
    ],
)
def test_blocks_of_any_scheduler_are_written_by_this_process(tmp_path, scheduler, kind):
    """In another process the number of an open file is another file's, or nothing's."""
    values = np.arange(60.0).reshape(12, 5)
    written = xr.DataArray(da.from_array(values, chunks=(3, 5)) * 2, dims=("x", "y"))
    tree = labtree.create_workspace(lazy=kind == "lazy")
    tree.ws.store("rec", "first", 1)
    if kind == "in place":
        tree.ws.save(tmp_path / "t.h5")
    with ThreadPoolExecutor(2) as pool:
        which = {
            "executor": pool,
            "unknown": lambda graph, keys, **options: dask.get(graph, keys),
        }.get(scheduler, scheduler)
        with dask.config.set(scheduler=which, num_workers=2):
            tree.ws.store("rec", "rates", written)
            tree.ws.save(tmp_path / "t.h5")
    assert (labtree.load_workspace(tmp_path / "t.h5").ws["rec", "rates"] == values * 2).all()
    tree.ws.close()
