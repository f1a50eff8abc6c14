"""Names of any kind, through everything that takes one."""

import json

import h5netcdf
import numpy as np
import pytest
import xarray as xr

import labtree

NAMES = [
    "a/b",
    "/",
    "//",
    "a//b/",
    ".",
    "..",
    "...",
    "__x",
    "__workspace_id__",
    "%2F",
    "%",
    "%~",
    "50% of x",
    "🧠🔬",
    "é",
    "e\u0301",
    "日本語のキー",
    " lead",
    "trail ",
    "a b  c",
    " ",
    "\t",
    "line\nbreak",
    "\x7f",
    "\x01",
    "quote'\"",
    "back\\slash",
    "<b>&amp;</b>",
    "labtree_kind",
    "data",
    "x" * 300,
    "x" * 299 + "y",
    "ü" * 300,
    "%" * 300,
    "/" * 300,
    "CON",
    "-",
    "0",
    "\u200f",
    "\u00a0",
]
BAD = [
    ("", ValueError, "needs at least one character"),
    ("a\0b", ValueError, "holds a NUL character"),
    ("\ud800", ValueError, "holds a lone surrogate"),
    ("x\udfffy", ValueError, "holds a lone surrogate"),
    (3, TypeError, "is a str, not int"),
    (None, TypeError, "is a str, not NoneType"),
    (b"a", TypeError, "is a str, not bytes"),
]


def filled(lazy=False):
    tree = labtree.create_workspace(lazy=lazy)
    for i, name in enumerate(NAMES):
        tree.ws.store(name, "k", i)
        tree.ws.store("all", name, np.array([i]), note=name)
    return tree


def check(tree):
    assert tree.ws.list_namespaces() == [NAMES[0], "all", *NAMES[1:]]
    assert tree.ws.list_keys("all") == NAMES
    for i, name in enumerate(NAMES):
        assert tree.ws.get(name, "k") == i
        assert tree.ws["all", name].tolist() == [i]
        assert tree.ws.get_info("all", name)["note"] == name
        assert ("all", name) in tree.ws


@pytest.mark.parametrize("lazy", [False, True])
def test_names_through_save_open_load_and_load_item(tmp_path, lazy):
    tree = filled(lazy)
    check(tree)
    path = tree.ws.save(tmp_path / "names")
    check(labtree.load_workspace(path))
    with labtree.open_workspace(path) as opened:
        check(opened)
        check(labtree.load_workspace(opened.ws.save(tmp_path / "again")))
    for i, name in enumerate(NAMES):
        assert labtree.load_item(path, name, "k") == i
        assert labtree.load_item(path, "all", name).tolist() == [i]
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["index"]
    assert list(index["all"]) == NAMES
    tree.ws.close()


def test_names_without_the_catalogue(tmp_path):
    path = filled().ws.save(tmp_path / "names")
    with h5netcdf.File(path, "a") as file:
        file.attrs["touched"] = "by another program"
    tree = labtree.load_workspace(path)
    check(tree)
    assert labtree.load_item(path, "a/b", "k") == 0


def test_names_through_merge():
    tree = labtree.create_workspace()
    tree.ws.store("z", "k", 1)
    assert tree.ws.merge_from(filled())["merged"] == 2 * len(NAMES)
    tree.ws.delete("z")
    check(tree)


@pytest.mark.parametrize("lazy", [False, True])
def test_names_through_rename_note_and_delete(tmp_path, lazy):
    tree = labtree.create_workspace(lazy=lazy)
    tree.ws.store("n", "start", 5)
    old = "start"
    for name in NAMES:
        assert tree.ws.rename("n", old, name) is True
        assert tree.ws.list_keys("n") == [name]
        assert tree.ws.add_note("n", name, name) is True
        assert tree.ws.get_info("n", name)["note"] == name
        assert tree.ws["n", name] == 5
        old = name
    loaded = labtree.load_workspace(tree.ws.save(tmp_path / "renamed"))
    assert loaded.ws.list_keys("n") == [NAMES[-1]]
    assert tree.ws.delete("n", NAMES[-1]) is True
    tree.ws.close()


def test_a_long_name_can_become_a_short_one_and_back():
    tree = labtree.create_workspace()
    tree.ws.store("n", "x" * 300, 1)
    tree.ws.rename("n", "x" * 300, "short")
    assert "labtree_key" not in tree["n/short"].attrs
    tree.ws.rename("n", "short", "x" * 300)
    assert tree.ws.list_keys("n") == ["x" * 300]


@pytest.mark.parametrize(("name", "error", "message"), BAD)
def test_names_that_no_file_keeps_are_refused(name, error, message):
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", 1)
    calls = [
        (lambda: tree.ws.store(name, "k", 1), "namespace"),
        (lambda: tree.ws.store("n", name, 1), "key"),
        (lambda: tree.ws.rename("n", "k", name), "key"),
        (lambda: xr.Dataset().ws.store("n", name, into=tree), "key"),
    ]
    for call, what in calls:
        with pytest.raises(error, match=f"{what}.*{message}"):
            call()
    assert tree.ws.list_keys() == {"n": ["k"]}


def test_names_made_by_hand_are_found(tmp_path):
    tree = labtree.create_workspace()
    tree["50%FF/%"] = xr.Dataset({"x": ("t", [3.0])})
    tree["my rec./key %1"] = xr.Dataset({"x": ("t", [1.0])})
    tree[" lead/k"] = xr.Dataset({"x": ("t", [2.0])})
    assert tree.ws.list_keys("my rec.") == ["key %1"]
    assert tree.ws.get(" lead", "k")["x"].item() == 2
    path = tree.ws.save(tmp_path / "hand")
    assert labtree.load_item(path, " lead", "k")["x"].item() == 2
    loaded = labtree.load_workspace(path)
    assert loaded.ws.list_keys("50%FF") == ["%"]
    assert loaded.ws.get("50%FF", "%")["x"].item() == 3
    assert loaded.ws.get("my rec.", "key %1")["x"].item() == 1
    assert list(loaded[" lead"].children) == ["k"]
    assert tree.ws.rename("my rec.", "key %1", "k2") is True
    tree.ws.store("my rec.", "k2", 5)
    assert tree.ws.list_keys("my rec.") == ["k2"]


def test_an_encoded_name_is_not_the_name_that_it_encodes():
    tree = labtree.create_workspace()
    for order in (("/", "%2F", "%252F"), ("%252F", "%2F", "/")):
        for name in order:
            tree.ws.store("n", name, name)
            tree.ws.store(name, "k", name)
        for name in order:
            assert tree.ws.get("n", name) == name
            assert tree.ws.get(name, "k") == name
        for name in order:
            tree.ws.delete("n", name)
            tree.ws.delete(name)
        assert tree.ws.list_keys() == {}
