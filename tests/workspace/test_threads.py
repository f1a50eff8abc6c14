"""Threads that store, read, note, rename and save at once; and many items."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.workspace import stores
from support.exactness import assert_same


def run(*works):
    """Run all at once; raise the first error."""
    start = threading.Barrier(len(works))

    def begin(work):
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(begin, work) for work in works]]


@pytest.fixture(params=["memory", "lazy", "opened"])
def tree(request, tmp_path):
    made = labtree.create_workspace(lazy=request.param == "lazy")
    if request.param == "opened":
        made.ws.store("start", "a", np.arange(1000))
        made = labtree.open_workspace(made.ws.save(tmp_path / "start"))
    yield made
    made.ws.close()


def test_eight_threads_store_read_and_save(tree, tmp_path):
    stop = threading.Event()

    def value(number, i):
        return np.full(200 + i % 7 * 500, number * 1000 + i)

    def store(number):
        def work():
            for i in range(60):
                key = f"k{i % 10}"
                tree.ws.store(f"rec{number}", key, value(number, i), note=str(i))
                assert_same(tree.ws.get(f"rec{number}", key), value(number, i))
                if i % 10 == 9:
                    assert tree.ws.rename(f"rec{number}", key, f"r{i}")
                    assert tree.ws.add_note(f"rec{number}", f"r{i}", "renamed")
                if i % 20 == 19:
                    assert tree.ws.delete(f"rec{number}", "k0")
            return True

        return work

    def read():
        count = 0
        while not stop.is_set() or not count:
            for namespace, keys in tree.ws.describe().items():
                for key in keys:
                    found = tree.ws.get(namespace, key)
                    assert (
                        found is None or namespace == "start" or len(set(found.tolist())) == 1
                    )
                    count += 1
            repr(tree.ws), tree.ws._repr_html_(), tree.ws.list_keys()
        return count

    def save():
        count = 0
        while not stop.is_set() or not count:
            path = tree.ws.save(tmp_path / "during")
            loaded = labtree.load_workspace(path)
            for namespace, keys in loaded.ws.list_keys().items():
                for key in keys:
                    loaded.ws.get(namespace, key)
            count += 1
        return count

    def stores():
        try:
            return run(*(store(number) for number in range(4)))
        finally:
            stop.set()

    results = run(stores, read, read, read, save)
    assert results[0] == [True] * 4
    assert min(results[1:]) > 0
    final = labtree.load_workspace(tree.ws.save(tmp_path / "final"))
    for each in (tree, final):
        for number in range(4):
            assert_same(each.ws.get(f"rec{number}", "k8"), value(number, 58))
            assert_same(each.ws.get(f"rec{number}", "r59"), value(number, 59))
            assert len(each.ws.list_keys(f"rec{number}")) == 9 - 1 + 6 + 0


def test_threads_store_into_one_namespace(tree):
    def work(number):
        def store():
            for i in range(100):
                tree.ws.store("rec1", f"{number}-{i}", number * i)

        return store

    run(*(work(number) for number in range(8)))
    assert len(tree.ws.list_keys("rec1")) == 800
    for number in range(8):
        assert tree.ws.get("rec1", f"{number}-99") == number * 99
        keys = [key for key in tree.ws.list_keys("rec1") if key.startswith(f"{number}-")]
        assert keys == [f"{number}-{i}" for i in range(100)]


def test_workspaces_that_merge_each_other_do_not_wait_for_ever():
    first, second = labtree.create_workspace(), labtree.create_workspace(lazy=True)
    for i in range(50):
        first.ws.store("a", f"k{i}", i)
        second.ws.store("b", f"k{i}", i)

    def merge(into, source):
        return lambda: [into.ws.merge_from(source, overwrite=True) for _ in range(10)]

    run(merge(first, second), merge(second, first))
    assert first.ws.list_keys("b") == second.ws.list_keys("b")
    second.ws.close()


def test_threads_read_one_opened_array(tmp_path):
    array = np.random.default_rng(0).random((500, 100))
    tree = labtree.create_workspace()
    tree.ws.store("rec1", "a", array)
    with labtree.open_workspace(tree.ws.save(tmp_path / "study")) as opened:

        def work(number):
            def read():
                for i in range(number, 500, 8):
                    assert_same(opened["rec1/a/data"][i].values, array[i])

            return read

        run(*(work(number) for number in range(8)))


@pytest.mark.parametrize("lazy", [False, True])
def test_ten_thousand_items(tmp_path, lazy):
    tree = labtree.create_workspace(lazy=lazy)
    value = xr.Dataset({"x": ("t", [1, 2])})
    saves = []

    def store():
        for i in range(10_000):
            tree.ws.store(f"rec{i % 4}", f"k{i}", i if i % 997 else value * i)

    def save():
        path = tree.ws.save(tmp_path / "during")
        with labtree.open_workspace(path) as opened:
            saves.append(sum(map(len, opened.ws.list_keys().values())))

    def saves_beside():
        while len(saves) < 3:
            save()

    run(store, saves_beside)
    assert saves == sorted(saves)
    path = tree.ws.save(tmp_path / "all")
    tree.ws.close()
    with labtree.open_workspace(path) as opened:
        keys = opened.ws.list_keys()
        for number in range(4):
            assert keys[f"rec{number}"] == [f"k{i}" for i in range(number, 10_000, 4)]
        for i in range(0, 10_000, 997):
            assert opened.ws.get(f"rec{i % 4}", f"k{i}")["x"].values.tolist() == [i, 2 * i]
        assert opened.ws.get("rec1", "k1") == 1
        assert len(repr(opened.ws)) < 10_000
        assert opened.ws.rename("rec0", "k0", "first")
        assert opened.ws.delete("rec1")
    assert labtree.load_item(path, "rec3", "k9999") == 9999


def lacking(path):
    """Save a workspace; put a link to nothing into it, as another program may do."""
    tree = labtree.create_workspace()
    tree.ws.store("rec", "good", np.arange(5))
    tree.ws.store("rec", "other", np.arange(3))
    tree.ws.save(path)
    with h5py.File(path, "a") as file:
        file["rec/good/link"] = h5py.SoftLink("/nowhere")
    return path


def test_what_one_thread_could_not_read_is_not_told_to_another(tmp_path, monkeypatch):
    """Else the one that lacks parts of its file would remove them in a save."""
    bad, good = lacking(tmp_path / "bad.h5"), tmp_path / "good.h5"
    tree = labtree.create_workspace()
    tree.ws.store("rec", "x", 1)
    tree.ws.save(good)
    with h5py.File(good, "a") as file:
        file["rec/x"].attrs["theirs"] = 1
    began, may_go_on = threading.Event(), threading.Event()
    read = stores.read_tree

    def in_turn(source, *args):
        if source.name == str(bad):
            began.set()
            assert may_go_on.wait(30)
            return read(source, *args)
        try:
            return read(source, *args)
        finally:
            may_go_on.set()
            assert done.wait(30)

    done = threading.Event()
    monkeypatch.setattr(stores, "read_tree", in_turn)
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore", labtree.DamageWarning)
        first = pool.submit(labtree.open_workspace, bad)
        assert began.wait(30)
        second = pool.submit(labtree.open_workspace, good)
        lacks = first.result()
        done.set()
        whole = second.result()
    lacks.ws.store("rec", "more", 1)
    with pytest.raises(labtree.WorkspaceError, match="has damaged parts that were left out"):
        lacks.ws.save()
    whole.ws.store("rec", "more", 1)
    whole.ws.save()
    lacks.close()
    whole.close()


def test_threads_that_read_items_leave_the_filters_of_warnings_as_they_were(
    tmp_path, monkeypatch
):
    path = lacking(tmp_path / "study.h5")
    first_is_in, second_is_in = threading.Event(), threading.Event()
    read = stores.read_tree

    def in_turn(*args):
        if not first_is_in.is_set():
            first_is_in.set()
            assert second_is_in.wait(30)
        else:
            second_is_in.set()
            assert first.result() == 1
        return read(*args)

    with h5py.File(path, "a") as file:
        file["rec/other"].attrs["theirs"] = 1
    monkeypatch.setattr(stores, "read_tree", in_turn)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: len([labtree.load_item(path, "rec", "other")]))
        assert first_is_in.wait(30)
        second = pool.submit(labtree.load_item, path, "rec", "other")
        assert_same(second.result(), np.arange(3))
    assert warnings.filters == before


def test_threads_that_save_leave_the_mask_of_permissions_as_it_was(tmp_path, monkeypatch):
    """A new folder may be read by those who may read any new folder."""
    os.umask(mask := os.umask(0o022))
    tree = labtree.create_workspace()
    tree.ws.store("rec", "x", 1)
    masks = []
    monkeypatch.setattr(os, "umask", lambda new: masks.append(new) or mask)
    path = tree.ws.save(tmp_path / "study.zarr")
    assert masks == []
    (tmp_path / "plain").mkdir()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
