"""Saving a tree onto its own file: the file holds what the tree holds, whatever was done."""

import pathlib
import random
import tempfile
import warnings

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labtree.storage.marks import mark_nodes
from labtree.storage.names import file_name
from labtree.storage.nodes import attach_children, detach_child, rename_child
from labtree.storage.tree_file import TreeFile
from labtree.storage.trees import open_tree, save_tree
from support.exactness import assert_same
from support.examples import examples


def dataset(seed):
    """Return one of many datasets: coordinates, texts, missing values, odd types."""
    chance = np.random.default_rng(seed)
    n = int(chance.integers(0, 6))
    made = xr.Dataset(
        {
            "values": (("x", "y"), chance.normal(size=(n, 3))),
            "flags": ("x", chance.random(n) < 0.5),
            "words": ("x", np.array(["a", "bé", ""] * n, object)[:n]),
            "number": ((), int(seed)),
        },
        coords={"x": np.arange(n) * 0.5},
        attrs={"seed": int(seed), "nested": {"a": (1, None)}},
    )
    if seed % 3 == 0:
        made = made.assign_coords(day=("x", pd.date_range("2024-01-01", periods=n).values))
    if seed % 4 == 0:
        made["values"].attrs = {"units": "mV", "odd": [1, "two"]}
    return made


def start(path):
    tree = xr.DataTree(dataset=xr.Dataset(attrs={"name": "root"}))
    attach_children(tree, {"ns": xr.DataTree()})
    attach_children(tree["ns"], {"first": xr.DataTree(dataset=dataset(1))})
    save_tree(tree, path)
    return tree


def groups_of(path):
    """Return the paths of all groups that HDF5 finds."""
    found = set()
    with h5py.File(path) as file:
        file.visititems(lambda name, o: (isinstance(o, h5py.Group) and found.add(name)) or None)
    return found


def groups_for(tree):
    """Return the paths of the groups that the nodes of a tree have in a file."""
    nodes = [node for node in tree.subtree if node is not tree]
    return {"/".join(map(file_name, node.path[1:].split("/"))) for node in nodes}


class Machine(RuleBasedStateMachine):
    """A tree in memory, or opened, that is saved onto its file after any changes."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("labtree.storage.marks._BATCH", 2)  # of so few nodes, too
        self.patch.setattr("labtree.storage.marks._FEW", 2)
        self.patch.setattr("labtree.storage.writing._FEW", 1)
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name) / "a.h5"
        self.tree = start(self.path)
        self.file = TreeFile(self.path)
        self.marks = mark_nodes(self.tree)
        self.saved = self.tree.copy(deep=True)

    def teardown(self):
        self.check_with_others()
        self.tree.close()
        self.file.close()
        self.folder.cleanup()
        self.patch.undo()

    def items(self):
        return [(ns, key) for ns in self.tree.children for key in self.tree[ns].children]

    @rule(ns=st.sampled_from(["ns", "other", "a%b"]), seed=st.integers(0, 40))
    def store(self, ns, seed):
        if ns not in self.tree.children:
            attach_children(self.tree, {ns: xr.DataTree()})
        name = ["one", "two", "%odd", "ünï"][seed % 4]
        attach_children(self.tree[ns], {name: xr.DataTree(dataset=dataset(seed))})

    @precondition(lambda self: self.items())
    @rule(data=st.data())
    def delete(self, data):
        ns, key = data.draw(st.sampled_from(self.items()))
        detach_child(self.tree[ns], key)
        if not self.tree[ns].children:
            detach_child(self.tree, ns)

    @precondition(lambda self: self.items())
    @rule(data=st.data(), new=st.sampled_from(["one", "renamed", "%odd"]))
    def rename(self, data, new):
        ns, key = data.draw(st.sampled_from(self.items()))
        rename_child(self.tree[ns], key, new)

    @precondition(lambda self: self.items())
    @rule(data=st.data())
    def move(self, data):
        ns, key = data.draw(st.sampled_from(self.items()))
        target = self.tree[data.draw(st.sampled_from(list(self.tree.children)))]
        node = detach_child(self.tree[ns], key)
        attach_children(target, {"moved": node})

    @precondition(lambda self: self.items())
    @rule(data=st.data(), text=st.text("ab", max_size=300))
    def note(self, data, text):
        ns, key = data.draw(st.sampled_from(self.items()))
        self.tree[ns][key].attrs["note"] = text

    @precondition(lambda self: self.items())
    @rule(data=st.data())
    def mutate_in_place(self, data):
        ns, key = data.draw(st.sampled_from(self.items()))
        variable = self.tree[ns][key].variables["values"]
        if variable.size:
            variable.values[0, 0] += 1  # loads a lazy one; the tree keeps the values
        self.tree[ns][key].attrs.get("nested", {})["more"] = 1

    @precondition(lambda self: self.items())
    @rule(
        data=st.data(), value=st.sampled_from([0.0, -0.0, False, "0", (0,), [0], np.int64(0)])
    )
    def attribute(self, data, value):
        ns, key = data.draw(st.sampled_from(self.items()))
        node = self.tree[ns][key]
        node.attrs["a"] = value
        node.variables["number"].attrs["a"] = value

    @precondition(lambda self: self.tree.children)
    @rule(data=st.data())
    def another_order(self, data):
        ns = data.draw(st.sampled_from(list(self.tree.children)))
        self.tree[ns].children = dict(reversed([*self.tree[ns].children.items()]))

    @precondition(lambda self: self.items())
    @rule(data=st.data())
    def another_variable(self, data):
        ns, key = data.draw(st.sampled_from(self.items()))
        self.tree[ns][key]["extra"] = ((), 7)

    @rule(value=st.integers(0, 3))
    def root_attribute(self, value):
        self.tree.attrs["value"] = value

    @rule(value=st.integers(0, 3))
    def root_variable(self, value):
        self.tree["scalar"] = ((), value)

    @precondition(lambda self: self.tree.children)
    @rule(data=st.data())
    def namespace_attribute(self, data):
        ns = data.draw(st.sampled_from(list(self.tree.children)))
        self.tree[ns].attrs["about"] = ns

    @precondition(lambda self: self.items())
    @rule(data=st.data(), deep=st.integers(0, 5))
    def nested_tree(self, data, deep):
        ns, key = data.draw(st.sampled_from(self.items()))
        below = xr.DataTree(dataset=xr.Dataset({"z": ("q", np.arange(deep))}))
        attach_children(self.tree[ns][key], {"below": below})

    @rule()
    def save(self):
        self.file.write(self.file.find(self.tree, self.marks), self.marks)
        assert self.marks.keys() == mark_nodes(self.tree).keys()
        self.saved = self.tree.copy(deep=True)
        self.check()

    @precondition(lambda self: True)
    @rule(lazy=st.booleans())
    def reopen(self, lazy):
        self.save()
        self.tree.close()
        self.file.close()
        self.tree = open_tree(self.path)
        if not lazy:
            self.tree.load()
        self.file = TreeFile(self.path)
        self.marks = mark_nodes(self.tree)

    def check(self):
        with open_tree(self.path) as found:
            assert_same(found.load(), self.saved)
        assert not self.file.find(self.tree, self.marks)
        assert groups_of(self.path) == groups_for(self.saved)

    def check_with_others(self):
        with netCDF4.Dataset(self.path) as found:
            assert set(found.groups) == set(map(file_name, self.saved.children))
        with xr.open_datatree(self.path, engine="h5netcdf") as found:
            for node in self.saved.subtree:
                if node.has_data and "%" not in node.path:
                    sizes = dict(found[node.path].sizes)
                    assert sizes.items() >= node.to_dataset(inherit=False).sizes.items()

    @invariant()
    def nothing_is_written_before_a_save(self):
        with open_tree(self.path) as found:
            assert [n.path for n in found.subtree] == [n.path for n in self.saved.subtree]


TestTreeFile = Machine.TestCase
TestTreeFile.settings = settings(
    max_examples=examples(15), stateful_step_count=20, deadline=None
)


@pytest.mark.parametrize("case", ["renamed", "moved out", "swapped", "moved out of its child"])
def test_what_was_removed_below_a_group_that_moves_does_not_come_along(tmp_path, case):
    path = tmp_path / "a.h5"
    names = ["/ns/first/below/deep", "/ns/second/below", "/other"]
    save_tree(xr.DataTree.from_dict({n: xr.Dataset(attrs={"n": n}) for n in names}), path)
    tree = open_tree(path)
    file, marks = TreeFile(path), mark_nodes(tree)
    below = detach_child(tree["ns/first"], "below")
    attach_children(tree["ns/first"], {"below": xr.DataTree(xr.Dataset(attrs={"new": 1}))})
    if case == "renamed":
        rename_child(tree["ns"], "first", "one")
    elif case == "moved out":
        first = detach_child(tree["ns"], "first")
        detach_child(tree, "ns")
        attach_children(tree["other"], {"first": first})
    elif case == "swapped":
        first, second = (detach_child(tree["ns"], name) for name in ("first", "second"))
        attach_children(tree["ns"], {"first": second, "second": first})
    else:
        deep = detach_child(below, "deep")
        first = detach_child(tree["ns"], "first")
        detach_child(first, "below")
        attach_children(tree["ns"], {"deep": deep})
        attach_children(deep, {"first": first})
    file.write(file.find(tree, marks), marks)
    assert groups_of(path) == groups_for(tree)
    with open_tree(path) as found:
        assert_same(found.load(), tree)
    assert not file.find(tree, marks)
    file.close()
    tree.close()


def test_a_save_without_changes_writes_nothing(tmp_path):
    path = tmp_path / "a.h5"
    tree = start(path)
    file = TreeFile(path)
    before = path.read_bytes()
    marks = mark_nodes(tree)
    assert file.write(file.find(tree, marks), marks) is None
    file.close()
    assert path.read_bytes() == before


def test_one_item_costs_the_same_in_a_tree_of_any_size(tmp_path):
    grown = []
    for count in (10, 150):
        path = tmp_path / f"{count}.h5"
        tree = xr.DataTree()
        attach_children(tree, {"ns": xr.DataTree()})
        old = {f"k{i}": xr.DataTree(dataset=dataset(i)) for i in range(count)}
        attach_children(tree["ns"], old)
        save_tree(tree, path)
        tree = open_tree(path)
        file, marks, size = TreeFile(path), mark_nodes(tree), path.stat().st_size
        attach_children(tree["ns"], {"new": xr.DataTree(dataset=dataset(3))})
        file.write(file.find(tree, marks), marks)
        grown.append(path.stat().st_size - size)
        tree.close()
        file.close()
    assert grown[1] < grown[0] + 5000


@pytest.mark.parametrize("seed", range(4))
def test_a_long_chain_of_changes_is_merged(tmp_path, seed, monkeypatch):
    monkeypatch.setattr("labtree.storage.tree_file._MOST_LINKS", 5)
    path = tmp_path / "a.h5"
    tree, chance = start(path), random.Random(seed)
    file, marks = TreeFile(path), mark_nodes(tree)
    for i in range(17):
        new = xr.DataTree(dataset=dataset(chance.randrange(30)))
        attach_children(tree["ns"], {f"k{chance.randrange(6)}": new})
        file.write(file.find(tree, marks), marks, saved_at=i)
        with open_tree(path) as found:
            assert_same(found.load(), tree)
    file.close()
    with h5py.File(path) as found, h5netcdf.File(path) as other:
        assert set(found["ns"]) == set(other["ns"].groups) == set(tree["ns"].children)


def test_readers_that_opened_before_keep_what_they_saw(tmp_path):
    path = tmp_path / "a.h5"
    tree = start(path)
    file, marks = TreeFile(path), mark_nodes(tree)
    reader = open_tree(path)
    kept = tree.copy(deep=True)
    for seed in range(5):
        attach_children(tree["ns"], {"first": xr.DataTree(dataset=dataset(10 + seed))})
        file.write(file.find(tree, marks), marks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(reader.load(), kept)
    reader.close()
    file.close()
