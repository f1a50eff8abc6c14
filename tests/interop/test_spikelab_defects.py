"""What a SpikeLab workspace gets wrong besides values, done with spikes here."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import labtree
from labtree.testing.spikes import synthetic_spike_data
from support.exactness import assert_same

DS = synthetic_spike_data(5)
OTHER = synthetic_spike_data(5, seed=1)


def workspace(lazy=False, **items):
    tree = labtree.create_workspace("mine", lazy=lazy)
    for key, obj in (items or {"k": DS}).items():
        tree.ws.store("n", key, obj)
    return tree


def test_a_note_that_cannot_be_saved_changes_neither_file(tmp_path):
    tree = workspace()
    path = tree.ws.save(tmp_path / "a")
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    with pytest.raises(TypeError, match="note"):
        tree.ws.add_note("n", "k", np.int64(3))
    tree.ws.save()
    with pytest.raises(TypeError, match="n/bad"):
        tree.ws.store("n", "bad", {"model": print})
    assert_same(labtree.load_item(path, "n", "k"), DS)
    assert len(before[1]) == path.with_suffix(".json").stat().st_size


def test_savers_at_once_leave_one_whole_file(tmp_path):
    trees = [workspace(k=synthetic_spike_data(50, seed=seed)) for seed in range(4)]
    refused = []

    def save(tree):
        try:
            tree.ws.save(tmp_path / "a")
        except labtree.WorkspaceError:  # another one was there first, with other items
            refused.append(tree.ws.workspace_id)

    threads = [threading.Thread(target=save, args=(tree,)) for tree in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saved = labtree.load_workspace(tmp_path / "a")
    (same,) = [tree for tree in trees if tree.ws.workspace_id == saved.ws.workspace_id]
    assert_same(saved.ws.get("n", "k"), same.ws.get("n", "k"))
    assert same.ws.workspace_id not in refused
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "a.json"]


@pytest.mark.parametrize("lazy", [False, True])
def test_renaming_to_the_same_key_loses_nothing(lazy):
    tree = workspace(lazy)
    assert tree.ws.rename("n", "k", "k", overwrite=True)
    assert_same(tree.ws.get("n", "k"), DS)


@pytest.mark.parametrize("lazy", [False, True])
def test_renaming_keeps_the_data_where_they_are(lazy, tmp_path):
    tree = workspace(lazy)
    tree.ws.store("n", "large", np.arange(20_000))
    size = tree.ws.save(tmp_path / "a").stat().st_size
    for turn in range(5):
        assert tree.ws.rename("n", f"large{turn or ''}", f"large{turn + 1}")
    assert size <= tree.ws.save().stat().st_size < size + 10_000
    assert_same(tree.ws.get("n", "large5"), np.arange(20_000))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_failed_store_leaves_nothing_and_changes_nothing(lazy):
    tree = workspace(lazy)
    for key in ("k", "new"):
        with pytest.raises(TypeError):
            tree.ws.store("n", key, {"spikes": DS, "bad": print})
        with pytest.raises(ValueError, match="select_units"):
            tree.ws.store("n", key, DS.isel(unit=[0]))
    assert tree.ws.list_keys() == {"n": ["k"]}
    assert_same(tree.ws.get("n", "k"), DS)


@pytest.mark.parametrize("lazy", [False, True])
def test_reading_and_writing_at_once(lazy):
    tree = workspace(lazy)
    failures = []

    def read():
        try:
            for _ in range(20):
                assert tree.ws.get("n", "k").sizes == DS.sizes
                tree.ws.describe()
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for at in range(20):
        tree.ws.store("n", f"new{at}", OTHER)
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(tree.ws.list_keys("n")) == 21


def test_saving_while_storing(tmp_path):
    tree = workspace()
    done = threading.Event()

    def store():
        at = 0
        while not done.is_set() and at < 300:
            tree.ws.store("n", f"k{at}", np.arange(at))
            at += 1

    writer = threading.Thread(target=store)
    writer.start()
    try:
        for _ in range(5):
            tree.ws.save(tmp_path / "a")
    finally:
        done.set()
        writer.join()
    assert_same(labtree.load_item(tmp_path / "a", "n", "k"), DS)


def test_a_saved_file_opens_lazily(tmp_path):
    path = workspace().ws.save(tmp_path / "a")
    opened = labtree.open_workspace(path)
    assert opened.ws.is_lazy
    assert not opened["n/k"].dataset.variables["spike_times"]._in_memory
    opened.ws.close()


def test_an_empty_namespace_does_not_come_back(tmp_path):
    tree = workspace()
    tree.ws.store("other", "k", DS)
    path = tree.ws.save(tmp_path / "a")
    tree.ws.delete("n", "k")
    tree.ws.save()
    assert labtree.load_workspace(path).ws.list_namespaces() == ["other"]


def test_a_lazy_workspace_leaves_no_file_behind(tmp_path):
    lines = (
        "import os, labtree, numpy",
        "tree = labtree.create_workspace(lazy=True)",
        "tree.ws.store('n', 'k', numpy.ones(1000))",
        "os._exit(7)",
    )
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path))
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=os.environ | places, check=False
    )
    assert found.returncode == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["get_info", "describe"])
def test_descriptions_are_copies(call):
    tree = workspace()
    if call == "get_info":
        tree.ws.get_info("n", "k")["N"] = -1
    else:
        tree.ws.describe()["n"]["k"]["N"] = -1
    assert tree.ws.get_info("n", "k")["N"] == 5


def test_merging_keeps_times_and_notes():
    theirs = labtree.create_workspace()
    theirs.ws.store("n", "k", OTHER, note="theirs")
    theirs["n/k"].attrs["labtree_created_at"] = 5.0
    tree = workspace(mine=DS)
    tree.ws.merge_from(theirs)
    info = tree.ws.get_info("n", "k")
    assert (info["created_at"], info["note"]) == (5.0, "theirs")


def test_one_item_comes_with_its_note_and_time(tmp_path):
    tree = workspace()
    tree.ws.add_note("n", "k", "mine")
    path = tree.ws.save(tmp_path / "a")
    manager = labtree.WorkspaceManager()
    identifier = manager.create_workspace("other")
    manager.load_workspace_item(path, "n", "k", identifier)
    info = manager.get_workspace(identifier).ws.get_info("n", "k")
    assert info == tree.ws.get_info("n", "k")


@pytest.mark.parametrize("form", [str, Path])
@pytest.mark.parametrize("name", ["a", "a.h5"])
def test_paths_in_every_form(tmp_path, form, name):
    path = workspace().ws.save(form(tmp_path / name))
    assert path == tmp_path / "a.h5"
    assert_same(labtree.load_workspace(form(tmp_path / name)).ws.get("n", "k"), DS)


def test_a_name_is_not_cut_at_nul():
    tree = workspace()
    for place in (("a\0b", "k"), ("n", "a\0b")):
        with pytest.raises(ValueError, match="NUL"):
            tree.ws.store(*place, DS)
    assert tree.ws.list_keys() == {"n": ["k"]}


def test_storing_one_kind_in_the_place_of_another():
    tree = workspace()
    tree.ws.store("n", "k", labtree.rate_data([[1.0]], [0.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tree.ws.get("n", "k").ws.kind == "rate_data"
