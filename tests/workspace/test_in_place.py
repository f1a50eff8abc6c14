"""Saves onto a workspace's own file, and mode "a": what changed is added, others read it."""

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import labtree
from labtree.workspace import stores
from support.exactness import assert_same
from support.examples import examples
from support.interrupts import each_interrupt

NAMESPACES = st.sampled_from(["a", "b"])
KEYS = st.sampled_from(["one", "two", "ä"])
Model = dict[str, dict[str, tuple[float, str | None]]]


def seen_by_labtree(path: Path) -> Model:
    with labtree.open_workspace(path) as tree:
        return content(tree)


def content(tree) -> Model:
    found: Model = {}
    for namespace, key in tree.ws:
        note = tree.ws.get_info(namespace, key).get("note")
        found.setdefault(namespace, {})[key] = (float(tree.ws[namespace, key].max()), note)
    return found


def note_of(attrs) -> str | None:
    note = dict(attrs).get("labtree_note")
    return None if note is None else np.asarray(note).astype(str).item()


def seen_by_h5py(path: Path) -> Model:
    with h5py.File(path) as file:
        return {
            ns: {k: (float(g["data"][()].max()), note_of(g.attrs)) for k, g in group.items()}
            for ns, group in file.items()
        }


def seen_by_h5netcdf(path: Path) -> Model:
    with h5netcdf.File(path) as file:
        return {
            ns: {
                k: (float(g.variables["data"][...].max()), note_of(g.attrs))
                for k, g in group.groups.items()
            }
            for ns, group in file.groups.items()
        }


def seen_by_netcdf4(path: Path) -> Model:
    with netCDF4.Dataset(path) as file:
        return {
            ns: {
                k: (float(g["data"][...].max()), note_of(g.__dict__))
                for k, g in group.groups.items()
            }
            for ns, group in file.groups.items()
        }


READERS = [seen_by_labtree, seen_by_h5py, seen_by_h5netcdf, seen_by_netcdf4]


class InPlace(RuleBasedStateMachine):
    """A workspace against a dict of dicts; its file is read by others after each verb."""

    @initialize(sort=st.sampled_from(["a", "a", "opened", "memory"]))
    def begin(self, sort: str) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("labtree.storage.marks._BATCH", 2)  # of so few nodes, too
        self.patch.setattr("labtree.storage.marks._FEW", 2)
        self.folder = Path(tempfile.mkdtemp())
        self.path, self.sort = self.folder / "study.h5", sort
        self.model: Model = {}
        self.number = 0
        if sort != "a":
            labtree.create_workspace("study").ws.save(self.path)
        self.open()

    def open(self) -> None:
        if self.sort == "memory":
            self.tree = labtree.load_workspace(self.path)
        else:
            self.tree = labtree.open_workspace(self.path, "a" if self.sort == "a" else "r")

    def verb_is_done(self) -> None:
        if self.sort != "a":
            self.tree.ws.save()
        assert self.tree.ws.is_saved
        reader = READERS[self.number % len(READERS)]
        assert reader(self.path) == self.model

    @rule(namespace=NAMESPACES, key=KEYS, note=st.sampled_from([None, "n"]))
    def store(self, namespace, key, note) -> None:
        self.number += 1
        value = np.full(3 + self.number % 5, float(self.number))
        self.tree.ws.store(namespace, key, value, note=note)
        self.model.setdefault(namespace, {})[key] = (float(self.number), note)
        self.verb_is_done()

    @rule(namespace=NAMESPACES, key=KEYS, new=KEYS)
    def rename(self, namespace, key, new) -> None:
        keys = self.model.get(namespace, {})
        if key in keys:
            self.tree.ws.rename(namespace, key, new, overwrite=True)
            keys[new] = keys.pop(key)
            self.verb_is_done()

    @rule(namespace=NAMESPACES, key=KEYS, text=st.text("ab", min_size=1, max_size=90))
    def add_note(self, namespace, key, text) -> None:
        if key in self.model.get(namespace, {}):
            self.tree.ws.add_note(namespace, key, text)
            self.model[namespace][key] = (self.model[namespace][key][0], text)
            self.verb_is_done()

    @rule(namespace=NAMESPACES, key=st.one_of(st.none(), KEYS))
    def delete(self, namespace, key) -> None:
        keys = self.model.get(namespace, {})
        if not keys or (key is not None and key not in keys):
            return
        self.tree.ws.delete(namespace, key)
        if key is not None:
            del keys[key]
        if key is None or not keys:
            del self.model[namespace]
        self.verb_is_done()

    @rule(namespace=NAMESPACES, key=KEYS)
    def merge(self, namespace, key) -> None:
        self.number += 1
        other = labtree.create_workspace("other")
        other.ws.store(namespace, key, np.full(2, float(self.number)))
        other.ws.store("merged", "m", np.full(2, float(self.number)))
        self.tree.ws.merge_from(other, overwrite=True)
        for ns, name in ((namespace, key), ("merged", "m")):
            self.model.setdefault(ns, {})[name] = (float(self.number), None)
        self.verb_is_done()

    @rule(namespace=NAMESPACES, key=KEYS)
    def change_in_place(self, namespace, key) -> None:
        if key in self.model.get(namespace, {}):
            self.number += 1
            node = self.tree[f"{namespace}/{key}"]
            node.load()
            node.variables["data"].values[:] = self.number
            self.model[namespace][key] = (float(self.number), self.model[namespace][key][1])
            self.tree.ws.save()
            self.verb_is_done()

    @rule()
    def compact(self) -> None:
        self.tree.ws.compact()
        self.verb_is_done()

    @rule()
    def reopen(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # all is saved, and the index is right
            self.tree.ws.close()
            self.open()
        index = json.loads(self.path.with_suffix(".json").read_text())["index"]
        assert {ns: set(keys) for ns, keys in index.items()} == {
            ns: set(keys) for ns, keys in self.model.items()
        }

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert content(self.tree) == self.model

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.tree.ws.close()
            assert sorted(each.name for each in self.folder.iterdir()) == [
                "study.h5",
                "study.json",
            ]
            shutil.rmtree(self.folder, ignore_errors=True)
            self.patch.undo()


TestInPlace = InPlace.TestCase
TestInPlace.settings = settings(
    max_examples=examples(20), stateful_step_count=20, deadline=None
)


@pytest.fixture
def path(tmp_path):
    tree = labtree.create_workspace("study")
    tree.ws.store("rec1", "rates", np.arange(20_000.0))
    tree.ws.store("rec1", "depth", np.arange(3), note="by eye")
    return tree.ws.save(tmp_path / "study")


def test_a_save_adds_what_changed_and_leaves_the_rest_where_it_was(path):
    before = path.read_bytes()
    with labtree.open_workspace(path) as tree:
        tree.ws.store("rec1", "new", np.arange(5))
        tree.ws.save()
        assert tree.ws.is_saved
        added = path.stat().st_size - len(before)
        assert 0 < added < 12_000
        tree.ws.save()
        assert path.stat().st_size - len(before) == added
    after = path.read_bytes()
    changed = sum(a != b for a, b in zip(before, after, strict=False))
    assert changed < 3000


def test_mode_a_makes_the_file_and_its_index(tmp_path):
    with labtree.open_workspace(tmp_path / "new", mode="a") as tree:
        assert (tmp_path / "new.h5").is_file()
        tree.ws.store("rec1", "x", {"a": [1, 2.5, None]}, note="n")
        assert labtree.load_item(tmp_path / "new", "rec1", "x") == {"a": [1, 2.5, None]}
        assert tree.ws.is_lazy
        assert tree.ws.path == tmp_path / "new.h5"
        assert 'mode="a"' in repr(tree.ws)
    assert json.loads((tmp_path / "new.json").read_text())["index"]["rec1"]["x"]["note"] == "n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new.h5", "new.json"]


def test_an_unknown_mode(path):
    with pytest.raises(labtree.WorkspaceError, match=r"'r'.*'a'|'a'.*'r'"):
        labtree.open_workspace(path, mode="w")


def test_mode_a_is_for_h5_files(tmp_path):
    with pytest.raises(labtree.WorkspaceError, match=r"labtree\.store_shared"):
        labtree.open_workspace(tmp_path / "study.zarr", mode="a")


def test_the_second_to_open_it_for_changes_is_told_what_to_do(path, monkeypatch):
    monkeypatch.setattr("labtree.storage.locks._PATIENCE_S", 0.05)
    with labtree.open_workspace(path, mode="a") as tree:
        for call in (
            lambda: labtree.open_workspace(path, mode="a"),
            lambda: labtree.create_workspace().ws.save(path, overwrite=True),
        ):
            with pytest.raises(labtree.BusyFileError, match=r'mode="a"; close that, or wait'):
                call()
        tree.ws.store("rec1", "kept", 1)
        with labtree.open_workspace(path) as reader:  # reading needs no waiting
            assert reader.ws["rec1", "kept"] == 1
    with labtree.open_workspace(path, mode="a") as tree:
        assert tree.ws["rec1", "kept"] == 1


def test_a_verb_that_fails_leaves_the_workspace_as_it_was(path, monkeypatch):
    verbs = {
        "store": lambda t: t.ws.store("rec1", "depth", np.ones(4)),
        "store into a new namespace": lambda t: t.ws.store("rec2", "x", 1),
        "rename": lambda t: t.ws.rename("rec1", "depth", "rates", overwrite=True),
        "add_note": lambda t: t.ws.add_note("rec1", "depth", "later"),
        "delete": lambda t: t.ws.delete("rec1", "depth"),
        "delete a namespace": lambda t: t.ws.delete("rec1"),
        "merge_from": lambda t: t.ws.merge_from(labtree.open_workspace(path), overwrite=True),
    }
    with labtree.open_workspace(path, mode="a") as tree:
        before, described = path.read_bytes(), tree.ws.describe()
        for name, verb in verbs.items():
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", _full)
                with pytest.raises(OSError, match="disk is full"):
                    verb(tree)
            assert tree.ws.describe() == described, name
            assert tree.ws.is_saved, name
            assert path.read_bytes() == before, name
            assert_same(tree.ws["rec1", "depth"], np.arange(3))
        for verb in (verbs["rename"], verbs["store into a new namespace"]):
            verb(tree)
    assert labtree.load_workspace(path).ws.list_keys() == {"rec1": ["rates"], "rec2": ["x"]}


def _full(_):
    raise OSError(28, "the disk is full")


@pytest.mark.parametrize(
    "verb",
    [
        lambda tree: tree.ws.store("b", "new", np.full(3, 7.0), note="n"),
        lambda tree: tree.ws.rename("a", "one", "two", overwrite=True),
        lambda tree: tree.ws.add_note("a", "one", "later"),
        lambda tree: tree.ws.delete("a", "one"),
    ],
    ids=["store", "rename", "add_note", "delete"],
)
def test_an_interrupt_leaves_memory_and_file_before_or_after_a_verb(tmp_path, verb):
    opened = []

    def make():
        for tree in opened:
            tree.ws.close()
        opened.clear()
        path = tmp_path / "study.h5"
        path.unlink(missing_ok=True)
        tree = labtree.open_workspace(path, mode="a")
        for number, key in enumerate(("one", "two")):
            tree.ws.store("a", key, np.full(3, float(number)))
        opened.append(tree)
        return tree

    tree = make()
    before = content(tree)
    verb(tree)
    after = content(tree)
    for line, tree in each_interrupt(make, verb, most=examples(32)):
        here = content(tree)
        assert here in (before, after), f"line {line}"
        assert seen_by_labtree(tmp_path / "study.h5") == here, f"line {line}"
        assert tree.ws.is_saved, f"line {line}"
        tree.ws.store("c", "more", np.full(3, 9.0))  # it goes on
        assert seen_by_labtree(tmp_path / "study.h5") == content(tree), f"line {line}"
    make()
    opened.pop().ws.close()


def test_plain_changes_are_saved_when_mode_a_is_closed(path):
    with labtree.open_workspace(path, mode="a") as tree:
        tree["rec1/depth"].attrs["by"] = "me"
        tree["rec1/depth"]["extra"] = xr.DataArray(np.arange(2), dims="q")
        assert tree.ws.changes == ["rec1/depth: changed"]
        tree.ws.store("rec1", "other", 1)
        assert tree.ws.changes == ["rec1/depth: changed"]
    found = labtree.load_workspace(path)["rec1/depth"]
    assert found.attrs["by"] == "me"
    assert found["extra"].values.tolist() == [0, 1]


def test_values_that_were_changed_inside_an_array_are_saved(path):
    for how in (labtree.load_workspace, labtree.open_workspace):
        tree = how(path)
        tree["rec1/rates"].load()
        tree["rec1/rates"].variables["data"].values[7] -= 1
        tree.ws.save()
        expected = tree["rec1/rates"]["data"].values[7]
        assert labtree.load_item(path, "rec1", "rates")[7] == expected
        tree.ws.close()
    assert expected == 5


def test_a_reader_of_hdf5_delays_the_structure_but_not_what_is_acknowledged(path):
    with labtree.open_workspace(path, mode="a") as tree:
        with h5py.File(path) as reader:
            listed = list(reader["rec1"])
            for i in range(3):
                tree.ws.store("rec1", f"k{i}", i)
            assert list(reader["rec1"]) == listed
            assert labtree.load_item(path, "rec1", "k2") == 2
        tree.ws.store("rec1", "k3", 3)
        with h5py.File(path) as reader:
            assert {"k0", "k1", "k2", "k3"} <= set(reader["rec1"])


def test_what_is_saved_between_the_look_at_the_file_and_the_lock_is_not_lost(path, monkeypatch):
    """A reader keeps HDF5's part of the file as it is, so that only the records tell."""
    mine = labtree.open_workspace(path)
    mine.ws.store("rec1", "first", 1)
    mine.ws.save()
    others = labtree.open_workspace(path)
    others.ws.store("rec1", "theirs", 2)
    mine.ws.store("rec1", "mine", 3)
    lock = stores.writer_lock

    def after_the_other(*args):
        monkeypatch.setattr(stores, "writer_lock", lock)
        others.ws.save()
        return lock(*args)

    with h5py.File(path):
        monkeypatch.setattr(stores, "writer_lock", after_the_other)
        with pytest.raises(labtree.WorkspaceError, match="was changed by another process"):
            mine.ws.save()
        assert labtree.load_item(path, "rec1", "theirs") == 2
    mine.ws.save(path.with_name("mine"))
    mine.ws.close()
    others.ws.close()
    assert labtree.load_workspace(path).ws["rec1", "theirs"] == 2
    with h5py.File(path) as reader:
        assert "theirs" in reader["rec1"]


def test_what_another_program_did_to_the_file_is_not_overwritten(path):
    tree = labtree.open_workspace(path)
    tree.ws.store("rec1", "mine", 1)
    with netCDF4.Dataset(path, "a") as file:
        file.groups["rec1"].groups["depth"].setncattr("theirs", 5)
    with pytest.raises(labtree.WorkspaceError, match="was changed by another process"):
        tree.ws.save()
    tree.ws.save(path.with_name("mine"))
    tree.ws.close()
    with labtree.open_workspace(path) as again:
        assert again["rec1/depth"].attrs["theirs"] == 5
        again.ws.store("rec1", "new", 2)
        again.ws.save()
        again.ws.store("rec1", "newer", 3)
        again.ws.save()
    loaded = labtree.load_workspace(path)
    assert loaded["rec1/depth"].attrs["theirs"] == 5
    assert loaded.ws["rec1", "newer"] == 3


def test_a_file_that_is_replaced_under_mode_a_is_left_alone(path):
    tree = labtree.open_workspace(path, mode="a")
    other = labtree.create_workspace("other").ws.save(path.with_name("other"))
    shutil.copy(other, path.with_name("copy.h5"))
    path.with_name("copy.h5").replace(path)
    there = path.read_bytes()
    with pytest.raises(labtree.WorkspaceError, match="while it was open here"):
        tree.ws.store("rec1", "x", 1)
    assert path.read_bytes() == there
    assert tree.ws.list_keys("rec1") == ["rates", "depth"]
    with pytest.raises(labtree.WorkspaceError, match="was changed by another"):
        tree.ws.close()
    assert path.read_bytes() == there


@pytest.mark.parametrize("mode", ["r", "a"])
def test_compact_gives_back_what_no_item_uses_any_more(path, mode):
    reader = labtree.open_workspace(path)
    with labtree.open_workspace(path, mode=mode) as tree:
        for i in range(3):
            tree.ws.store("rec1", "rates", np.full(20_000, float(i)))
            tree.ws.save()
        tree.ws.add_note("rec1", "depth", "later")
        size = path.stat().st_size
        assert tree.ws.compact() == size - path.stat().st_size > 3 * 160_000
        assert tree.ws.is_saved
        assert tree.ws["rec1", "rates"].max() == 2
        tree.ws.store("rec1", "more", 1)
        tree.ws.save()
    assert_same(reader.ws["rec1", "rates"], np.arange(20_000.0))  # of the file that it opened
    reader.close()
    loaded = labtree.load_workspace(path)
    assert loaded.ws.get_info("rec1", "depth")["note"] == "later"
    assert loaded.ws["rec1", "rates"].max() == 2


def test_compact_needs_a_file():
    with pytest.raises(labtree.WorkspaceError, match="has no file yet"):
        labtree.create_workspace().ws.compact()


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_file_that_is_half_dead_is_written_anew(path, mode):
    with labtree.open_workspace(path, mode=mode) as tree:
        for i in range(8):
            tree.ws.store("rec1", "rates", np.full(100_000, float(i)))
            if mode == "r":
                tree.ws.save()
    assert path.stat().st_size < 3_500_000
    assert labtree.load_item(path, "rec1", "rates").max() == 7


def test_a_copy_of_the_file_is_a_workspace_of_its_own(path):
    with labtree.open_workspace(path, mode="a") as tree:
        tree.ws.store("rec1", "x", 1)
        saved = tree.ws.save(path.with_name("elsewhere"))
        assert tree.ws.path == path
        tree.ws.store("rec1", "y", 2)
    assert "y" not in labtree.load_workspace(saved).ws.list_keys("rec1")
    copied = path.with_name("copied.h5")
    shutil.copy(path, copied)
    with labtree.open_workspace(copied, mode="a") as tree:
        tree.ws.store("rec1", "z", 3)
    assert labtree.load_workspace(copied).ws.list_keys("rec1")[-1] == "z"
    assert "z" not in labtree.load_workspace(path).ws.list_keys("rec1")


def test_lazy_arrays_and_their_pickles_outlive_saves(path):
    import pickle

    with labtree.open_workspace(path) as reader:
        pickled = pickle.dumps(reader["rec1/rates"].to_dataset())
        with labtree.open_workspace(path, mode="a") as tree:
            tree.ws.store("rec1", "rates", np.zeros(5))
        assert_same(pickle.loads(pickled)["data"].values, np.arange(20_000.0))
        assert_same(reader.ws["rec1", "rates"], np.arange(20_000.0))


def test_mode_a_puts_large_and_odd_items_into_the_file_and_out_of_memory(tmp_path):
    dask = pytest.importorskip("dask.array")
    values = xr.Dataset(
        {
            "x": (("t", "c"), dask.arange(12, chunks=5).reshape(6, 2)),
            "s": ("t", list("abcdef")),
        },
        coords={"t": np.arange(6) * 0.5, "label": ("t", list("uvwxyz"))},
    )
    with labtree.open_workspace(tmp_path / "study", mode="a") as tree:
        tree.ws.store("a", "x", values)
        node = tree["a/x"]
        assert "t" in node.indexes
        assert not isinstance(node.variables["x"]._data, np.ndarray)
        assert_same(tree.ws["a", "x"], values.compute())
        assert tree.ws.is_saved
        values["s"][:] = "changed"
        assert tree.ws["a", "x"]["s"].values.tolist() == list("abcdef")


def test_a_file_that_cannot_be_changed_in_place_is_written_whole(path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Unable to synchronously open object")  # as h5py says it, without errno

    with labtree.open_workspace(path) as tree:
        tree.ws.store("rec1", "new", 1)
        with monkeypatch.context() as patch:
            patch.setattr("labtree.storage.tree_file.change_groups", refuse)
            tree.ws.save()
        tree.ws.store("rec1", "newer", 2)
        tree.ws.save()
    assert labtree.load_workspace(path).ws.list_keys("rec1") == [
        "rates", "depth", "new", "newer",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["r", "a", "new"])
def test_an_index_that_cannot_be_written_is_a_warning_and_the_data_are_saved(
    tmp_path, monkeypatch, mode
):
    path = tmp_path / "study.h5"
    if mode == "new":
        tree = labtree.create_workspace("study")
        tree.ws.store("rec1", "y", 2)
    else:
        first = labtree.create_workspace("study")
        first.ws.store("rec1", "x", 1)
        first.ws.save(path)
        tree = labtree.open_workspace(path, **({"mode": "a"} if mode == "a" else {}))
    from labtree.workspace import stores

    replace_file = stores.replace_file

    def refuse(temporary, target, **options):
        if target.suffix == ".json":
            raise OSError(5, "Input/output error", str(target))
        replace_file(temporary, target, **options)

    line = r"was saved in .*study.h5, but its index .*study.json could not be written"
    with monkeypatch.context() as patch, pytest.warns(labtree.LabtreeWarning, match=line):  # noqa: PT031
        patch.setattr(stores, "replace_file", refuse)
        tree.ws.store("rec1", "y", 2)
        tree.ws.save(path)
        if mode == "a":
            tree.close()
    assert labtree.load_item(path, "rec1", "y") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in mode "r" the index on the disk is not the file's
        if mode == "a":
            tree = labtree.open_workspace(path, mode="a")
        tree.ws.save(path)
        tree.close()
    assert "y" in json.loads(path.with_suffix(".json").read_text())["index"]["rec1"]
    with labtree.open_workspace(path) as opened:
        assert opened.ws["rec1", "y"] == 2
