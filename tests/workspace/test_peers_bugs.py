"""What SpikeLab's workspaces were found to get wrong, one test each."""

import gc
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.workspace.state import state_of
from support.exactness import assert_same


@pytest.fixture
def lazy():
    with labtree.create_workspace(lazy=True) as tree:
        yield tree


def test_a_note_that_is_no_text_cannot_split_the_two_files(tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", 1)
    path = tree.ws.save(tmp_path / "x")
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    with pytest.raises(TypeError, match="a note is a str"):
        tree.ws.add_note("a", "b", np.int64(3))
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before


def test_one_bad_item_does_not_fail_the_others(tmp_path):
    tree = labtree.create_workspace()
    for i in range(3):
        tree.ws.store("a", f"k{i}", np.full(1000, i, "i2"))
    path = tree.ws.save(tmp_path / "x")
    data = bytearray(path.read_bytes())
    data[data.find(np.full(1000, 1, "i2").tobytes())] ^= 1
    path.write_bytes(data)
    with labtree.open_workspace(path) as opened:
        for i in (0, 2):
            assert_same(opened.ws.get("a", f"k{i}"), np.full(1000, i, "i2"))


def test_a_lazy_rename_onto_itself_keeps_the_data(lazy):
    lazy.ws.store("a", "k", np.arange(10))
    assert lazy.ws.rename("a", "k", "k", overwrite=True) is True
    assert_same(lazy.ws.get("a", "k"), np.arange(10))


def test_lazy_renames_do_not_grow_the_file(lazy):
    lazy.ws.store("a", "k0", np.zeros(100_000))
    size = state_of(lazy).scratch(lazy).size
    for i in range(5):
        lazy.ws.rename("a", f"k{i}", f"k{i + 1}")
    gc.collect()
    assert state_of(lazy).scratch(lazy).size == size


def test_a_failed_lazy_store_leaves_no_ghost_and_keeps_the_old(lazy):
    lazy.ws.store("a", "k", np.arange(10))
    for key in ("k", "new"):
        with pytest.raises(TypeError):
            lazy.ws.store("a", key, {"x": np.arange(5), "y": object()})
    assert lazy.ws.describe().keys() == {"a"}
    assert lazy.ws.list_keys("a") == ["k"]
    assert_same(lazy.ws.get("a", "k"), np.arange(10))


def test_a_saved_file_opens_lazily(tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("a", "k", np.arange(10))
    with labtree.open_workspace(tree.ws.save(tmp_path / "x")) as opened:
        assert opened.ws.is_lazy
        opened.ws.store("a", "new", np.arange(3))
        assert_same(opened.ws.get("a", "k"), np.arange(10))


def test_deleting_the_last_key_stays_so(tmp_path, lazy):
    lazy.ws.store("a", "k", 1)
    lazy.ws.store("b", "k", 1)
    lazy.ws.delete("a", "k")
    path = lazy.ws.save(tmp_path / "x")
    assert labtree.load_workspace(path).ws.list_namespaces() == ["b"]
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["index"]
    assert list(index) == ["b"]


def test_descriptions_are_no_live_dicts():
    tree = labtree.create_workspace()
    tree.ws.store("a", "k", 1)
    tree.ws.get_info("a", "k")["note"] = "x"
    tree.ws.describe()["a"].clear()
    assert "note" not in tree.ws.get_info("a", "k")
    assert tree.ws.list_keys("a") == ["k"]


def test_a_merge_keeps_created_at(lazy):
    other = labtree.create_workspace()
    other.ws.store("a", "k", 1, note="n")
    info = other.ws.get_info("a", "k")
    lazy.ws.merge_from(other)
    assert lazy.ws.get_info("a", "k") == info


def test_x_h5_is_not_looked_for_at_x_h5_h5(tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("a", "k", 1)
    tree.ws.save(str(tmp_path / "x.h5"))
    assert labtree.load_workspace(str(tmp_path / "x.h5")).ws.get("a", "k") == 1
    assert not (tmp_path / "x.h5.h5").exists()


@pytest.mark.parametrize("name", ["a/b", "__x", ".", "a b"])
def test_names_do_not_vanish(tmp_path, name):
    tree = labtree.create_workspace()
    tree.ws.store(name, name, 1)
    loaded = labtree.load_workspace(tree.ws.save(tmp_path / "x"))
    assert loaded.ws.list_keys() == {name: [name]}


def test_a_name_with_nul_does_not_become_another():
    tree = labtree.create_workspace()
    with pytest.raises(ValueError, match="holds a NUL character"):
        tree.ws.store("a\0b", "k", 1)


@pytest.mark.parametrize(
    "value",
    [
        2**53 + 1,
        2**80,
        np.array([1 + 2j, 3j]),
        np.ma.MaskedArray([1.0, 2.0], mask=[True, False]),
        np.arange(3, dtype="float32"),
        np.arange(3, dtype="int16"),
        np.array([b"a", b"bc"]),
        np.array(["a", "bc"]),
        {"list": [1, 2], "tuple": (1, 2), "text": ["a", ""], "none": None, "nan": float("nan")},
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([None, "a", 1.5], object),
        [True, 5],
        xr.Dataset({"x": ("t", [1.0])}, attrs={"nan": np.nan, "empty": "", "none": None}),
        pd.DataFrame({"label": [("a", 1), ("b", 2)]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_lazy", [False, True])
def test_values_are_not_changed(tmp_path, value, is_lazy):
    with labtree.create_workspace(lazy=is_lazy) as tree:
        tree.ws.store("a", "k", value)
        assert_same(tree.ws.get("a", "k"), value)
        path = tree.ws.save(tmp_path / "x")
        assert_same(labtree.load_item(path, "a", "k"), value)


def test_the_order_is_kept(tmp_path):
    tree = labtree.create_workspace()
    for key in "zamb":
        tree.ws.store("rec", key, {"z": 1, "a": 2, "m": 3})
    loaded = labtree.load_workspace(tree.ws.save(tmp_path / "x"))
    assert loaded.ws.list_keys("rec") == list("zamb")
    assert list(loaded.ws.get("rec", "z")) == ["z", "a", "m"]
