"""Workspaces that many processes store into at once: nothing is lost, and all is exact."""

import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.errors import FormatError, MissingDependencyError
from labtree.storage.zarr import writing
from labtree.testing import spikes
from labtree.workspace.shared import delete_shared, open_shared, store_shared
from support.exactness import assert_same
from support.s3_server import bucket, server  # noqa: F401, fixtures

from .test_zarr_workspaces import OBJECTS

icechunk = pytest.importorskip("icechunk")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def quiet():
    """Keep icechunk from warning of folders: labtree holds a lock there."""
    icechunk.set_logs_filter("error")
    yield
    icechunk.set_logs_filter(None)


@pytest.fixture(params=["folder", "s3"])
def where(request, tmp_path):
    """Give a place for a shared workspace: a folder, and an object store."""
    if request.param == "folder":
        return str(tmp_path / "study.icechunk")
    return f"{request.getfixturevalue('bucket')}/lab/study"


def test_everything_that_a_workspace_stores_comes_back(where):
    objects = OBJECTS | {
        "spikes": spikes.synthetic_spike_data(),
        "large": np.random.default_rng(0).random((700, 1000)),
        "scalar": np.array(2.5, ">f4"),
    }
    for key, obj in objects.items():
        store_shared(where, "rec 1/ä", key, obj, note="mine" if key == "array" else None)
    tree = open_shared(where)
    assert tree.ws.is_lazy
    assert tree.ws.list_keys() == {"rec 1/ä": list(objects)}  # in the order of storing
    for key, obj in objects.items():
        assert_same(tree.ws["rec 1/ä", key], obj, key)
    assert tree.ws.get_info("rec 1/ä", "array")["note"] == "mine"
    part = tree["rec 1%2Fä/large/data"][100:600:7, 3]
    assert np.array_equal(part.values, objects["large"][100:600:7, 3])


def test_arrays_of_more_than_is_written_at_once(where, monkeypatch):
    monkeypatch.setattr(writing, "_AT_ONCE", 1000)
    values = np.random.default_rng(0).random((3, 200))
    store_shared(where, "rec", "all", values)
    blocks = xr.Dataset({"x": (("a", "b"), values)}).chunk(b=50)
    store_shared(where, "rec", "blocks", blocks)
    store_shared(where, "rec", "several", {str(n): values + n for n in range(4)})
    tree = open_shared(where)
    assert_same(tree.ws["rec", "all"], values)
    assert_same(tree.ws["rec", "blocks"].load(), blocks.compute())
    assert_same(tree.ws["rec", "several"], {str(n): values + n for n in range(4)})


def _store_many(where, worker, count, start):
    icechunk.set_logs_filter("error")
    start.wait()
    for i in range(count):
        store_shared(where, f"own {worker}", f"k{i}", np.full(5, 100 * worker + i))
        store_shared(where, "common", f"k{worker}_{i}", {"worker": worker, "i": i})
        store_shared(where, "common", "contested", (worker, i))


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_processes_that_store_at_once_lose_nothing(request, tmp_path, place):
    """They begin together, with no workspace there, and write one item all at once."""
    workers, count = (3, 3) if place == "folder" else (2, 4)
    where = str(tmp_path / "study.icechunk")
    if place == "s3":
        where = f"{request.getfixturevalue('bucket')}/study"
    start = SPAWN.Event()
    processes = [
        SPAWN.Process(target=_store_many, args=(where, worker, count, start))
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * workers
    tree = open_shared(where)
    assert len(tree.ws.list_keys("common")) == workers * count + 1
    for worker in range(workers):
        for i in range(count):
            assert_same(tree.ws[f"own {worker}", f"k{i}"], np.full(5, 100 * worker + i))
            assert_same(tree.ws["common", f"k{worker}_{i}"], {"worker": worker, "i": i})
    assert tree.ws["common", "contested"][1] == count - 1


def test_who_opened_it_sees_it_as_it_was(where):
    store_shared(where, "a", "b", np.arange(3))
    before = open_shared(where)
    store_shared(where, "a", "b", np.arange(9))
    store_shared(where, "a", "c", 1)
    assert before.ws.list_keys("a") == ["b"]
    assert_same(before.ws["a", "b"], np.arange(3))
    after = open_shared(where)
    assert_same(after.ws["a", "b"], np.arange(9))
    assert after.ws.workspace_id == before.ws.workspace_id


def test_it_is_saved_as_any_workspace(where, tmp_path):
    store_shared(where, "a", "b", OBJECTS["dataset"])
    tree = open_shared(where)
    tree.ws.store("mine", "k", 1)
    assert tree.ws.save(tmp_path / "study.h5") == tmp_path / "study.h5"
    loaded = labtree.load_workspace(tmp_path / "study.h5")
    assert_same(loaded.ws["a", "b"], OBJECTS["dataset"])
    assert open_shared(where).ws.list_namespaces() == ["a"]


def test_it_travels_to_another_process(tmp_path):
    where = tmp_path / "study.icechunk"
    store_shared(where, "a", "b", np.arange(1000.0))
    tree = pickle.loads(pickle.dumps(open_shared(where)))
    assert_same(tree.ws["a", "b"], np.arange(1000.0))


def test_deleting(where):
    store_shared(where, "a/b", "c", 1)
    store_shared(where, "a/b", "d", 2)
    assert delete_shared(where, "a/b", "c") is True
    assert delete_shared(where, "a/b", "c") is False
    assert delete_shared(where, "nope", "c") is False
    assert open_shared(where).ws.list_keys() == {"a/b": ["d"]}
    assert delete_shared(where, "a/b", "d") is True
    assert open_shared(where).ws.list_keys() == {}
    store_shared(where, "a/b", "c", 3)
    assert open_shared(where).ws["a/b", "c"] == 3


def test_what_cannot_be_kept_changes_nothing(tmp_path):
    where = tmp_path / "study.icechunk"
    with pytest.raises(TypeError, match="object"):
        store_shared(where, "a", "b", object())
    assert not where.exists()
    store_shared(where, "a", "b", 1)
    for name in ("", "a\0b", "\ud800"):
        with pytest.raises(ValueError, match=r"character|surrogate"):
            store_shared(where, name, "b", 2)
    with pytest.raises(TypeError, match="note"):
        store_shared(where, "a", "b", 2, note=3)
    assert open_shared(where).ws["a", "b"] == 1


def test_arrays_of_dask_are_computed_and_stored(tmp_path):
    da = pytest.importorskip("dask.array")
    values = np.random.default_rng(0).random((40, 30))
    dataset = xr.Dataset({"x": (("a", "b"), da.from_array(values, chunks=7))})
    store_shared(tmp_path / "s", "a", "b", dataset)
    assert np.array_equal(open_shared(tmp_path / "s").ws["a", "b"]["x"].values, values)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill")
def test_kill_9_while_storing_leaves_the_old_or_the_new(tmp_path):
    where = str(tmp_path / "study.icechunk")
    store_shared(where, "a", "b", np.zeros(200_000))
    seen = []
    for delay in (0.0, 0.1):
        ready = SPAWN.Event()
        process = SPAWN.Process(target=_store_for_ever, args=(where, ready))
        process.start()
        assert ready.wait(300)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        values = open_shared(where).ws["a", "b"]
        assert len(set(values.tolist())) == 1
        seen.append(values[0])
    store_shared(where, "a", "b", 5)  # the lock went with the process
    assert open_shared(where).ws["a", "b"] == 5
    assert max(seen) > 0


def _store_for_ever(where, ready):
    icechunk.set_logs_filter("error")
    for i in range(1, 10**6):
        store_shared(where, "a", "b", np.full(200_000, float(i)))
        ready.set()


def test_a_full_disk_leaves_the_old_object_and_a_retry_works(tmp_path):
    resource = pytest.importorskip("resource")
    where, values = tmp_path / "study.icechunk", np.random.default_rng(0).random(100_000)
    store_shared(where, "a", "b", np.arange(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            store_shared(where, "a", "b", values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value, labtree.LabtreeError)
    assert str(where) in str(caught.value)
    assert_same(open_shared(where).ws["a", "b"], np.arange(3))
    store_shared(where, "a", "b", values)
    assert_same(open_shared(where).ws["a", "b"], values)


def test_a_damaged_chunk_is_an_error(tmp_path):
    where = tmp_path / "study.icechunk"
    store_shared(where, "a", "b", np.random.default_rng(0).random(5000))
    (chunk,) = (where / "chunks").iterdir()
    data = chunk.read_bytes()
    chunk.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(FormatError, match="damaged"):
        _ = open_shared(where).ws["a", "b"]
    chunk.unlink()
    with pytest.raises((FormatError, icechunk.IcechunkError)):
        _ = open_shared(where).ws["a", "b"]


def test_errors_say_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no shared workspace"):
        open_shared(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileNotFoundError, match="no shared workspace"):
        delete_shared(tmp_path / "none", "a", "b")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        store_shared(tmp_path / "no/folder", "a", "b", 1)
    with pytest.raises(labtree.WorkspaceError, match="known are paths"):
        store_shared("ftp://host/study", "a", "b", 1)
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "other")))
    with pytest.raises(FormatError, match="no workspace of labtree"):
        open_shared(tmp_path / "other")


def test_a_repository_of_others_keeps_what_it_has(tmp_path):
    import zarr

    path = tmp_path / "other"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    zarr.create_group(session.store, attributes={"mine": 1})
    session.commit("mine")
    with pytest.raises(labtree.WorkspaceError, match="no workspace of labtree"):
        store_shared(path, "a", "b", 1)
    session = repository.readonly_session("main")
    assert dict(zarr.open_group(session.store, mode="r").attrs) == {"mine": 1}


def test_xarray_reads_an_item_without_labtree(tmp_path):
    path = tmp_path / "study"
    store_shared(path, "rec", "rates", OBJECTS["dataset"])
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
    store = repository.readonly_session("main").store
    plain = xr.open_dataset(store, engine="zarr", group="rec/rates", consolidated=False)
    assert plain["v"].values.tolist() == OBJECTS["dataset"]["v"].values.tolist()
    assert plain["u"].values.tolist() == ["a", "b", "c"]


def test_a_storage_is_a_place_as_well(tmp_path):
    storage = icechunk.in_memory_storage()
    store_shared(storage, "a", "b", 1)
    assert open_shared(storage).ws["a", "b"] == 1


def test_without_icechunk_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "labtree\[icechunk\]"'):
        store_shared(tmp_path / "s", "a", "b", 1)
