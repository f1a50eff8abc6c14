"""What each verb of ``tree.ws`` does, returns, warns of and refuses."""

import json
import re
import time
import uuid
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from support.exactness import assert_same


@pytest.fixture(params=["memory", "lazy", "opened"])
def tree(request, tmp_path):
    """An empty workspace of each sort; all verbs do the same in all of them."""
    made = labtree.create_workspace("pilot", lazy=request.param == "lazy")
    if request.param != "opened":
        yield made
        made.ws.close()
        return
    with labtree.open_workspace(made.ws.save(tmp_path / "study")) as opened:
        yield opened


def test_a_new_workspace_has_an_identity():
    before = time.time()
    tree = labtree.create_workspace("pilot")
    assert uuid.UUID(tree.ws.workspace_id).version == 4
    assert str(uuid.UUID(tree.ws.workspace_id)) == tree.ws.workspace_id
    assert before <= tree.ws.created_at <= time.time()
    assert tree.ws.name == "pilot"
    assert tree.ws.path is None
    assert not tree.ws.is_lazy
    assert labtree.create_workspace().ws.name is None
    assert labtree.create_workspace(lazy=True).ws.is_lazy
    assert labtree.create_workspace().ws.workspace_id != tree.ws.workspace_id


def test_the_name_of_a_workspace_is_a_str():
    with pytest.raises(TypeError, match="name of a workspace is a str, not int"):
        labtree.create_workspace(7)


def test_identity_is_that_of_the_root_from_every_node(tree):
    tree.ws.store("rec1", "a", 1)
    below = tree["rec1/a"]
    assert below.ws.workspace_id == tree.ws.workspace_id
    below.ws.store("rec2", "b", 2)
    assert tree.ws.list_keys() == {"rec1": ["a"], "rec2": ["b"]}


def test_store_returns_none_and_get_gives_it_back(tree):
    assert tree.ws.store("rec1", "rates", np.arange(3.0)) is None
    assert_same(tree.ws.get("rec1", "rates"), np.arange(3.0))
    assert_same(tree.ws["rec1", "rates"], np.arange(3.0))
    assert ("rec1", "rates") in tree.ws
    assert ("rec1", "other") not in tree.ws


def test_what_is_not_there(tree):
    tree.ws.store("rec1", "a", 1)
    assert tree.ws.get("rec1", "b") is None
    assert tree.ws.get("rec2", "a") is None
    assert tree.ws.get_info("rec1", "b") is None
    assert tree.ws.get_info("rec2", "a") is None
    assert tree.ws.list_keys("rec2") == []
    key = "no key 'b' in namespace 'rec1'; there are: 'a'"
    namespace = "no namespace 'rec2' in this workspace; there are: 'rec1'. Did you mean 'rec1'"
    for verb, place, what in (
        (tree.ws.rename, ("rec1", "b", "c"), key),
        (tree.ws.rename, ("rec2", "a", "c"), namespace),
        (tree.ws.add_note, ("rec1", "b", "note"), key),
        (tree.ws.add_note, ("rec2", "a", "note"), namespace),
        (tree.ws.delete, ("rec1", "b"), key),
        (tree.ws.delete, ("rec2",), namespace),
        (tree.ws.delete, ("rec2", "a"), namespace),
    ):
        with pytest.warns(labtree.LabtreeWarning, match=re.escape(what)):
            assert verb(*place) is False
    assert tree.ws.list_keys() == {"rec1": ["a"]}


def test_a_stored_none_is_there(tree):
    tree.ws.store("rec1", "nothing", None)
    assert tree.ws.get("rec1", "nothing") is None
    assert tree.ws["rec1", "nothing"] is None
    assert tree.ws.get_info("rec1", "nothing")["type"] == "none"


def test_a_missing_item_is_a_key_error_that_lists_what_is_there(tree):
    tree.ws.store("rec1", "rates", 1)
    tree.ws.store("rec1", "spikes", 1)
    with pytest.raises(KeyError) as error:
        tree.ws["rec1", "rate"]
    assert str(error.value) == (
        "no key 'rate' in namespace 'rec1'; there are: 'rates', 'spikes'. Did you mean 'rates'?"
    )
    with pytest.raises(labtree.ItemNotFoundError) as error:
        tree.ws["rec2", "rates"]
    assert str(error.value) == (
        "no namespace 'rec2' in this workspace; there are: 'rec1'. Did you mean 'rec1'?"
    )
    tree.ws.delete("rec1")
    with pytest.raises(labtree.LabtreeError, match="there are none"):
        tree.ws["rec1", "rates"]


def test_a_long_list_of_what_is_there_is_cut():
    tree = labtree.create_workspace()
    for i in range(30):
        tree.ws.store("rec1", f"k{i}", i)
    with pytest.raises(KeyError, match=r"'k19' and 10 more$"):
        tree.ws["rec1", "x"]


@pytest.mark.parametrize("place", ["rec1", ("rec1",), ("a", "b", "c"), 3])
def test_a_place_is_two_names(tree, place):
    with pytest.raises(TypeError, match=r"write tree.ws\[namespace, key\], with two names"):
        tree.ws[place]


def test_insertion_order_is_kept(tree):
    for namespace in ("z", "a", "m"):
        for key in ("3", "1", "2"):
            tree.ws.store(namespace, key, key)
    assert tree.ws.list_namespaces() == ["z", "a", "m"]
    assert tree.ws.list_keys() == {n: ["3", "1", "2"] for n in ("z", "a", "m")}
    assert tree.ws.list_keys("a") == ["3", "1", "2"]
    assert list(tree.ws.describe()) == ["z", "a", "m"]
    assert list(tree.children) == ["z", "a", "m"]


def test_overwriting_refreshes_the_entry(tree):
    tree.ws.store("rec1", "a", 1, note="old")
    tree.ws.store("rec1", "b", 2)
    first = tree.ws.get_info("rec1", "a")
    time.sleep(0.002)
    tree.ws.store("rec1", "a", np.arange(4))
    second = tree.ws.get_info("rec1", "a")
    assert second["created_at"] > first["created_at"]
    assert "note" not in second
    assert (second["type"], second["shape"]) == ("ndarray", [4])
    assert tree.ws.list_keys("rec1") == ["a", "b"]
    tree.ws.store("rec1", "a", 3, note="new")
    assert tree.ws.get_info("rec1", "a")["note"] == "new"


def test_stored_and_given_values_are_copies(tree):
    array = np.arange(3.0)
    nested = {"list": [1, 2], "array": np.zeros(2)}
    dataset = xr.Dataset({"x": ("t", np.arange(3.0))}, attrs={"list": [1]})
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    for key, value in {"a": array, "n": nested, "d": dataset, "f": frame}.items():
        tree.ws.store("rec1", key, value)
    array[0] = nested["array"][0] = dataset["x"][0] = frame.loc[0, "a"] = 99
    nested["list"].append(3)
    dataset.attrs["list"].append(2)

    def check():
        assert_same(tree.ws.get("rec1", "a"), np.arange(3.0))
        assert_same(tree.ws.get("rec1", "n"), {"list": [1, 2], "array": np.zeros(2)})
        assert_same(
            tree.ws.get("rec1", "d"),
            xr.Dataset({"x": ("t", np.arange(3.0))}, attrs={"list": [1]}),
        )
        assert_same(tree.ws.get("rec1", "f"), pd.DataFrame({"a": [1.0, 2.0]}))

    check()
    tree.ws.get("rec1", "a")[0] = 5
    tree.ws.get("rec1", "n")["list"].append(5)
    given = tree.ws.get("rec1", "d")
    given["x"][0] = 5
    given.attrs["list"].append(5)
    table = tree.ws.get("rec1", "f")
    table.loc[0, "a"] = 5
    check()


def test_the_tree_itself_is_live():
    tree = labtree.create_workspace()
    tree.ws.store("rec1", "d", xr.Dataset({"x": ("t", np.arange(3.0))}))
    tree["rec1/d"]["x"][0] = 7
    assert tree.ws.get("rec1", "d")["x"].values.tolist() == [7, 1, 2]


def test_get_info_and_describe_are_copies_in_json(tree):
    tree.ws.store("rec1", "a", np.zeros((2, 3), "i2"), note="hello")
    tree.ws.store("rec1", "d", xr.Dataset({"x": (("u", "t"), np.zeros((2, 3)))}))
    tree.ws.store("rec1", "n", {"x": 1})
    info = tree.ws.get_info("rec1", "a")
    assert info == {
        "type": "ndarray",
        "shape": [2, 3],
        "dtype": "int16",
        "created_at": info["created_at"],
        "note": "hello",
    }
    assert type(info["created_at"]) is float
    described = tree.ws.describe()
    assert described["rec1"]["a"] == info
    assert described["rec1"]["d"]["sizes"] == {"u": 2, "t": 3}
    assert json.loads(json.dumps(described)) == described
    info["shape"].append(9)
    info["note"] = "changed"
    described["rec1"]["a"]["shape"].append(9)
    described["rec1"].pop("d")
    described["new"] = {}
    again = tree.ws.describe()
    assert again["rec1"]["a"]["shape"] == [2, 3]
    assert again["rec1"]["a"]["note"] == "hello"
    assert list(again) == ["rec1"]
    assert list(again["rec1"]) == ["a", "d", "n"]
    tree.ws.list_namespaces().append("x")
    tree.ws.list_keys("rec1").append("x")
    tree.ws.list_keys()["rec1"].append("x")
    assert tree.ws.list_keys() == {"rec1": ["a", "d", "n"]}


def test_rename(tree):
    tree.ws.store("rec1", "a", 1, note="mine")
    tree.ws.store("rec1", "b", 2)
    info = tree.ws.get_info("rec1", "a")
    assert tree.ws.rename("rec1", "a", "c") is True
    assert tree.ws.get("rec1", "a") is None
    assert tree.ws.get("rec1", "c") == 1
    assert tree.ws.get_info("rec1", "c") == info
    assert sorted(tree.ws.list_keys("rec1")) == ["b", "c"]


def test_rename_onto_itself_changes_nothing(tree):
    tree.ws.store("rec1", "a", 1, note="mine")
    tree.ws.store("rec1", "b", 2)
    before = tree.ws.describe()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tree.ws.rename("rec1", "a", "a") is True
        assert tree.ws.rename("rec1", "a", "a", overwrite=True) is True
    assert tree.ws.describe() == before
    assert tree.ws.list_keys("rec1") == ["a", "b"]
    assert tree.ws.get("rec1", "a") == 1


def test_rename_onto_another_key(tree):
    tree.ws.store("rec1", "a", 1)
    tree.ws.store("rec1", "b", 2)
    before = tree.ws.describe()
    with pytest.warns(UserWarning, match="key 'b' is taken in namespace 'rec1'") as caught:
        assert tree.ws.rename("rec1", "a", "b") is False
    assert "overwrite=True" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert tree.ws.describe() == before
    assert tree.ws.rename("rec1", "a", "b", overwrite=True) is True
    assert tree.ws.list_keys("rec1") == ["b"]
    assert tree.ws.get("rec1", "b") == 1


def test_notes(tree):
    tree.ws.store("rec1", "a", 1)
    assert "note" not in tree.ws.get_info("rec1", "a")
    assert tree.ws.add_note("rec1", "a", "first") is True
    assert tree.ws.add_note("rec1", "a", "second") is True
    assert tree.ws.get_info("rec1", "a")["note"] == "second"
    assert tree.ws.get("rec1", "a") == 1
    for wrong in (np.int64(3), 3, None, b"note"):
        with pytest.raises(TypeError, match="a note is a str, not"):
            tree.ws.add_note("rec1", "a", wrong)
    with pytest.raises(TypeError, match="a note is a str, not int"):
        tree.ws.store("rec1", "b", 1, note=3)
    assert tree.ws.list_keys("rec1") == ["a"]


def test_delete(tree):
    for key in "abc":
        tree.ws.store("rec1", key, key)
    tree.ws.store("rec2", "a", 1)
    assert tree.ws.delete("rec1", "b") is True
    assert tree.ws.list_keys() == {"rec1": ["a", "c"], "rec2": ["a"]}
    assert tree.ws.delete("rec1") is True
    assert tree.ws.list_namespaces() == ["rec2"]
    assert tree.ws.delete("rec2", "a") is True
    assert tree.ws.list_namespaces() == []
    assert tree.ws.describe() == {}
    assert list(tree.children) == []


def test_the_last_key_takes_its_namespace_along_through_a_save(tmp_path, tree):
    tree.ws.store("rec1", "a", 1)
    tree.ws.delete("rec1", "a")
    path = tree.ws.save(tmp_path / "again")
    assert labtree.load_workspace(path).ws.list_namespaces() == []


def test_a_failed_store_changes_nothing(tree):
    tree.ws.store("rec1", "a", [1], note="kept")
    before = tree.ws.describe()
    for value in (
        object(),
        {"x": [1, {"y": object()}]},
        np.array([object()], object),
        lambda: 0,
    ):
        with pytest.raises(TypeError, match=r"^rec1/a"):
            tree.ws.store("rec1", "a", value)
        with pytest.raises(TypeError, match="rec9"):
            tree.ws.store("rec9", "b", value)
    assert tree.ws.describe() == before
    assert tree.ws.get("rec1", "a") == [1]


def test_the_error_names_the_part(tree):
    with pytest.raises(TypeError) as error:
        tree.ws.store("rec1", "fit", {"a": [1, {"b": open}]})
    assert str(error.value).startswith("rec1/fit['a'][1]['b']: cannot keep")


def test_a_tree_that_is_no_workspace_becomes_one_when_stored_into():
    tree = xr.DataTree()
    assert tree.ws.workspace_id is None
    assert tree.ws.created_at is None
    assert tree.ws.list_namespaces() == []
    tree.ws.store("rec1", "a", 1)
    assert uuid.UUID(tree.ws.workspace_id).version == 4
    assert tree.ws.get("rec1", "a") == 1


def test_comparison_namespace():
    tree = labtree.create_workspace()
    assert tree.ws.comparison_namespace("a", "b") == "C_a_b"
    assert tree.ws.comparison_namespace("a") == "C_a"
    with pytest.raises(ValueError, match="name the namespaces that are compared"):
        tree.ws.comparison_namespace()


def test_users_attributes_survive(tree):
    attrs = {"note": "mine", "created_at": "yesterday", "kind": 3, "name": "x"}
    dataset = xr.Dataset({"x": ("t", [1.0])}, attrs=attrs)
    tree.ws.store("rec1", "d", dataset, note="ours")
    assert_same(tree.ws.get("rec1", "d"), dataset)
    assert tree.ws.get_info("rec1", "d")["note"] == "ours"


def test_an_item_out_of_a_tree_can_be_stored_again(tree):
    tree.ws.store("rec1", "a", np.arange(3), note="old")
    tree.ws.store("rec1", "b", tree["rec1/a"].to_dataset())
    assert_same(tree.ws.get("rec1", "b"), np.arange(3))
    assert "note" not in tree.ws.get_info("rec1", "b")


def test_an_item_changed_through_xarray_so_that_it_is_none_any_more(tree, tmp_path):
    tree.ws.store("rec1", "a", np.arange(3.0))
    tree.ws.store("rec1", "b", 1)
    tree["rec1/a"] = tree["rec1/a"].to_dataset().rename(data="x")
    assert tree.ws.get_info("rec1", "a")["variables"] == ["x"]
    assert "rec1" in repr(tree.ws)
    with pytest.raises(
        labtree.FormatError, match="rec1/a: what is stored is no ndarray"
    ) as error:
        tree.ws.get("rec1", "a")
    assert "tree['rec1/a'].to_dataset() gives the dataset" in str(error.value)
    path = tree.ws.save(tmp_path / "changed")
    with pytest.raises(labtree.FormatError, match="rec1/a: what is stored is no ndarray"):
        labtree.load_item(path, "rec1", "a")
    assert labtree.load_item(path, "rec1", "b") == 1
    assert labtree.load_workspace(path)["rec1/a/x"].values.tolist() == [0, 1, 2]
