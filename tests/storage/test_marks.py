"""What changed in a tree of many nodes is found, and nothing else is looked at closely."""

import gc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.storage.marks import Suspects, mark_nodes
from labtree.storage.nodes import attach_children, detach_child, rename_child
from labtree.storage.tree_file import TreeFile
from labtree.storage.trees import open_tree, save_tree
from support.examples import examples

COUNT = 230  # two batches, and some that are in none


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    tree = xr.DataTree()
    attach_children(tree, {"a": xr.DataTree(), "b": xr.DataTree()})
    for name in ("a", "b"):
        items = {}
        for i in range(COUNT // 2):
            made = xr.Dataset(
                {"v": (("p", "q"), np.arange(6.0).reshape(2, 3)), "w": ("p", [1, 2])},
                coords={"p": [0.5, 1.5]},
                attrs={"number": 1, "zero": 0.0, "text": "t", "size": np.float64(i)},
            )
            made["v"].attrs = {"units": "mV", "gain": 2.0}
            items[f"k{i}"] = xr.DataTree(dataset=made)
        attach_children(tree[name], items)
    path = tmp_path_factory.mktemp("marks") / "a.h5"
    save_tree(tree, path)
    return path


@pytest.fixture
def tree(path):
    with open_tree(path) as tree:
        yield tree


def set_values(node):
    node["v"].values[0, 0] += 1  # of an array that was read for this call only


def load_and_set_values(node):
    node.load()
    node["v"].values[0, 0] += 1


def replace_by_equal_variables(node):
    node.dataset = node.to_dataset().copy(deep=True)


def swap_variables(node):
    node.dataset = node.to_dataset()[["w", "v"]]


def make_a_coordinate(node):
    made = node.to_dataset()
    node._data_variables = {"v": made.variables["v"]}
    node._node_coord_variables = {"w": made.variables["w"], "p": made.variables["p"]}


CHANGES = {
    "another value of an attribute": lambda n: n.attrs.update(number=2),
    "an equal value of another type": lambda n: n.attrs.update(number=True),
    "a zero of another sign": lambda n: n.attrs.update(zero=-0.0),
    "a text of another type": lambda n: n.attrs.update(text=np.str_("t")),
    "an attribute more": lambda n: n.attrs.update(more=1),
    "an attribute less": lambda n: n.attrs.pop("text"),
    "an attribute renamed": lambda n: n.attrs.update(other=n.attrs.pop("text")),
    "attributes replaced": lambda n: setattr(n, "attrs", {}),
    "attributes of a variable": lambda n: n["v"].attrs.update(units="V"),
    "attributes of a variable that had none": lambda n: n["w"].attrs.update(units="V"),
    "attributes of a coordinate": lambda n: n["p"].attrs.update(units="s"),
    "a value in place, lazily": lambda n: n["v"].__setitem__((0, 0), 7),
    "a value in place, in memory": load_and_set_values,
    "a variable replaced": lambda n: n.__setitem__("w", ("p", [1, 2])),
    "a variable less": lambda n: n.__delitem__("w"),
    "a variable more": lambda n: n.__setitem__("extra", ((), 7)),
    "a coordinate more": lambda n: n.coords.update({"extra": ((), 7)}),
    "all variables replaced": replace_by_equal_variables,
    "variables in another order": swap_variables,
    "a variable that becomes a coordinate": make_a_coordinate,
    "the data of a variable": lambda n: setattr(n.variables["w"], "data", np.array([1, 2])),
    "dimensions in place": lambda n: setattr(n.variables["v"], "dims", ("r", "s")),
    "a child": lambda n: attach_children(n, {"below": xr.DataTree()}),
}


@pytest.mark.parametrize("number", [0, 99, 114])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_one_node_is_found_among_many(tree, change, number):
    marks = mark_nodes(tree)
    assert marks.suspects(tree) == Suspects([], [], [])
    change(tree["b"].children[f"k{number}"])
    found = marks.suspects(tree)
    assert {*found.single, *found.places} == {("b", f"k{number}")}


def test_what_only_reads_is_no_change(tree):
    marks = mark_nodes(tree)
    for node in tree.subtree:
        repr(node), node.variables, node.attrs, node.to_dataset(), node.copy()
        for variable in node.variables.values():
            variable.attrs, variable.values, variable[..., 0]
    set_values(tree["a/k0"])
    assert marks.suspects(tree) == Suspects([], [], [])


def test_nodes_that_come_go_move_or_change_places_are_found(tree):
    marks = mark_nodes(tree)
    a, b = tree["a"], tree["b"]
    attach_children(a, {"new": xr.DataTree()})
    assert marks.suspects(tree) == Suspects([("a", "new")], [], [])
    rename_child(a, "k3", "moved")
    detach_child(b, "k5")
    attach_children(b, {"k7": xr.DataTree()})
    found = marks.suspects(tree)
    places = [("a", "new"), ("a", "moved"), ("a", "k3"), ("b", "k7"), ("b", "k5")]
    assert found == Suspects(places, [], [])
    assert list(found.nodes(tree)) == [
        (), ("a",), ("b",), ("a", "new"), ("a", "moved"), ("b", "k7"),
    ]  # fmt: skip


def test_another_order_of_children_is_found(tree):
    marks = mark_nodes(tree)
    tree["b"].children = dict(reversed([*tree["b"].children.items()]))
    assert marks.suspects(tree).reordered == [("b",)]
    marks.keep_order(("b",), tree["b"])
    assert marks.suspects(tree) == Suspects([], [], [])


def test_a_whole_namespace_that_moves_is_looked_at_with_all_that_is_below(tree):
    marks = mark_nodes(tree)
    rename_child(tree, "a", "c")
    tree["c/k1"].attrs["number"] = 3
    found = marks.suspects(tree)
    assert found.places == [("c",), ("a",)]
    assert len(found.nodes(tree)) == 2 + COUNT // 2


def test_another_tree_is_looked_at_whole(tree):
    marks = mark_nodes(tree)
    copy = tree.copy()
    assert marks.suspects(copy) == Suspects([()], [], [])
    assert len(Suspects([()], [], []).nodes(copy)) == COUNT + 3


def test_marks_keep_no_node_and_forget_variables(tree):
    marks = mark_nodes(tree)
    marks.suspects(tree)
    detach_child(tree["a"], "k1")
    gc.collect()
    assert marks["a", "k1"].node() is None
    marks.forget_variables(("a", "k1"))
    assert marks["a", "k1"].variables == {}
    assert marks.suspects(tree) == Suspects([("a", "k1")], [], [])
    del marks["a", "k1"]
    assert marks.suspects(tree) == Suspects([], [], [])
    assert ("a", "k1") not in marks
    assert len(marks) == COUNT + 2


@settings(max_examples=examples(10), deadline=None)
@given(data=st.data())
def test_each_of_many_changes_is_found(path, data):
    with open_tree(path) as tree:
        marks, before = mark_nodes(tree), set()
        for _ in range(2):  # the second time after marks were replaced
            changed = set()
            for _ in range(data.draw(st.integers(1, 4))):
                place = data.draw(st.sampled_from("ab")), f"k{data.draw(st.integers(0, 114))}"
                change = data.draw(st.sampled_from([*CHANGES]))
                if place not in before:
                    CHANGES[change](tree["/".join(place)])
                    changed.add(place)
                    before.add(place)
            found = marks.suspects(tree)
            seen = {*found.single, *found.places}
            assert changed <= seen <= before  # values in memory are compared each time
            fresh = mark_nodes(tree)
            for each in found.nodes(tree):
                marks[each] = fresh[each]


def test_dimensions_that_were_set_in_place_are_refused_at_the_save(path, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with open_tree(copy) as tree:
        file, marks = TreeFile(copy), mark_nodes(tree)
        tree["a/k1"].variables["v"].dims = ("r", "s")
        line = r"a/k1/v: 'r' is no dimension.*\['p', 'q'\].*rename_dims"
        with pytest.raises(ValueError, match=line):
            file.write(file.find(tree, marks), marks)
        assert copy.read_bytes() == path.read_bytes()
        file.close()
