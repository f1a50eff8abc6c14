"""Ctrl-C in a verb leaves the workspace as it was before, or as it is afterwards."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import labtree
from support.examples import THOROUGH
from support.interrupts import each_interrupt

# Of all lines of a verb, and of a save.
MOST_OF_A_VERB = None if THOROUGH else 60
MOST_OF_A_SAVE = None if THOROUGH else 30
MOST_IN_MODE_A = None if THOROUGH else 8
Items = dict[tuple[str, str], object]


def content(tree: xr.DataTree) -> Items:
    """Return all items with their values and notes, and check that the tree holds together."""
    for node in tree.subtree:
        for name, child in node.children.items():
            assert child.parent is node
            assert child.name == name
    return {
        (namespace, key): (
            np.asarray(tree.ws.get(namespace, key)).tolist(),
            tree.ws.get_info(namespace, key).get("note"),
        )
        for namespace, keys in tree.ws.list_keys().items()
        for key in keys
    }


def in_memory() -> xr.DataTree:
    tree = labtree.create_workspace("study")
    fill(tree)
    return tree


def fill(tree: xr.DataTree) -> None:
    tree.ws.store("a", "one", np.arange(5), note="first")
    tree.ws.store("a", "two", np.arange(3))
    tree.ws.store("b", "only", np.arange(2.0))


def lazy() -> xr.DataTree:
    tree = labtree.create_workspace("study", lazy=True)
    fill(tree)
    return tree


def with_coordinates_above() -> xr.DataTree:
    """Return a workspace whose namespace has a coordinate of its own, which its items share."""
    tree = in_memory()
    tree["c"] = xr.DataTree(xr.Dataset(coords={"time": np.arange(3)}))
    tree.ws.store("c", "one", xr.DataArray(np.arange(3), dims="time"))
    tree.ws.store("c", "two", xr.DataArray(np.ones(3), dims="time"))
    return tree


def other() -> xr.DataTree:
    tree = labtree.create_workspace("other")
    tree.ws.store("a", "one", np.zeros(2))
    tree.ws.store("a", "three", np.ones(1))
    tree.ws.store("new", "x", np.ones(4), note="n")
    return tree


VERBS = {
    "store": lambda tree: tree.ws.store("a", "three", np.ones(4), note="n"),
    "store over an item": lambda tree: tree.ws.store("a", "one", np.ones(4)),
    "store into a new namespace": lambda tree: tree.ws.store("new", "x", [1, {"y": 2}]),
    "rename": lambda tree: tree.ws.rename("a", "one", "x/y"),
    "rename over an item": lambda tree: tree.ws.rename("a", "one", "two", overwrite=True),
    "add_note": lambda tree: tree.ws.add_note("a", "one", "second"),
    "delete": lambda tree: tree.ws.delete("a", "one"),
    "delete the last key": lambda tree: tree.ws.delete("b", "only"),
    "delete a namespace": lambda tree: tree.ws.delete("a"),
    "merge_from": lambda tree: tree.ws.merge_from(other(), overwrite=True),
    "get": lambda tree: tree.ws.get("a", "one"),
}


@pytest.mark.parametrize("make", [in_memory, lazy, with_coordinates_above])
@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupt_in_a_verb_leaves_the_state_before_or_after_it(verb: str, make) -> None:
    tree = make()
    before = content(tree)
    VERBS[verb](tree)
    after = content(tree)
    tried = 0
    for line, tree in each_interrupt(make, VERBS[verb], most=MOST_OF_A_VERB):
        assert content(tree) in (before, after), f"line {line}"
        VERBS[verb](tree)  # it is usable
        tried += 1
    assert tried > 5


ON_THE_DISK = VERBS | {
    "compact": lambda tree: tree.ws.compact(),
    "save": lambda tree: tree.ws.save(),
    "close": lambda tree: tree.ws.close(),
}


@pytest.mark.parametrize("verb", ON_THE_DISK)
def test_an_interrupt_in_mode_a_leaves_the_same_in_memory_and_on_the_disk(tmp_path, verb):
    path = tmp_path / "study.h5"
    call = ON_THE_DISK[verb]

    def make() -> xr.DataTree:
        clean(tmp_path)
        tree = labtree.open_workspace(path, mode="a")
        fill(tree)
        return tree

    tree = make()
    before = content(tree)
    call(tree)
    after = content(labtree.load_workspace(path))
    tree.ws.close()
    for line, tree in each_interrupt(make, call, most=MOST_IN_MODE_A):
        found = content(labtree.load_workspace(path))
        assert found in (before, after), f"line {line}"
        if verb != "close":
            assert content(tree) == found, f"line {line}"
            call(tree)  # it is usable
            found = content(tree)
        tree.ws.close()
        assert content(labtree.load_workspace(path)) == found, f"line {line}"


@pytest.mark.parametrize(
    "verb",
    [lambda tree: tree.ws.rename("c", "one", "x"), lambda tree: tree.ws.delete("c", "one")],
)
def test_verbs_below_coordinates_of_a_namespace_are_whole_too(verb) -> None:
    tree = with_coordinates_above()
    before = content(tree)
    verb(tree)
    after = content(tree)
    for line, tree in each_interrupt(with_coordinates_above, verb, most=MOST_OF_A_VERB):
        assert content(tree) in (before, after), f"line {line}"


@pytest.mark.parametrize("name", ["study.h5", "study.zarr"])
@pytest.mark.parametrize("kind", ["memory", "lazy", "opened"])
def test_an_interrupt_in_a_save_leaves_the_file_before_or_after_it(tmp_path, kind, name):
    """The workspace can be read, and saved again, as well."""
    path = tmp_path / name
    counter = iter(range(10**6))

    def make() -> xr.DataTree:
        clean(tmp_path)
        tree = lazy() if kind == "lazy" else in_memory()
        tree.ws.save(path)
        if kind == "opened":
            tree = labtree.open_workspace(path)
        tree.ws.store("new", "x", np.full(3, next(counter)))
        return tree

    def save(tree: xr.DataTree) -> None:
        tree.ws.save()

    for point, tree in each_interrupt(make, save, most=MOST_OF_A_SAVE):
        here = content(tree)
        before = {place: item for place, item in here.items() if place[0] != "new"}
        assert content(labtree.load_workspace(path)) in (before, here), f"point {point}"
        assert tree.ws.is_saved in (True, False)
        tree.ws.save()
        assert content(tree) == content(labtree.load_workspace(path)) == here, f"point {point}"
        assert tree.ws.is_saved


def clean(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.fixture(autouse=True)
def _names_that_are_gone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a verb that is called again
        yield
