"""Taking another workspace's items: all or nothing."""

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.storage.sources import FileSource
from support.exactness import assert_same

SORTS = ["memory", "lazy", "opened", "loaded"]


def made(sort, folder, items, name="source"):
    tree = labtree.create_workspace(lazy=sort == "lazy")
    for (namespace, key), (value, note) in items.items():
        tree.ws.store(namespace, key, value, note=note)
    if sort in ("memory", "lazy"):
        return tree
    path = tree.ws.save(folder / name)
    return labtree.open_workspace(path) if sort == "opened" else labtree.load_workspace(path)


ITEMS = {
    ("rec1", "a"): (np.arange(5.0), "first"),
    ("rec1", "b"): ({"x": (1, None)}, None),
    ("rec2", "a"): (xr.Dataset({"x": ("t", [1, 2])}, coords={"t": [5, 6]}), "third"),
    ("rec2", "o"): (np.array(["a", None, 3], object), None),
}


@pytest.mark.parametrize("target", SORTS)
@pytest.mark.parametrize("source", SORTS)
def test_items_come_with_their_times_and_notes(tmp_path, source, target):
    other = made(source, tmp_path, ITEMS)
    tree = made(target, tmp_path, {("rec1", "b"): (7, "mine")}, "target")
    before, theirs = tree.ws.get_info("rec1", "b"), other.ws.describe()
    report = tree.ws.merge_from(other)
    assert report == {"merged": 3, "skipped": 1, "skipped_keys": [("rec1", "b")]}
    assert tree.ws.get_info("rec1", "b") == before
    assert tree.ws.get("rec1", "b") == 7
    other.ws.close()
    del other
    for (namespace, key), (value, _) in ITEMS.items():
        if (namespace, key) != ("rec1", "b"):
            assert tree.ws.get_info(namespace, key) == theirs[namespace][key]
            assert_same(tree.ws.get(namespace, key), value)
    assert tree.ws.list_keys() == {"rec1": ["b", "a"], "rec2": ["a", "o"]}
    loaded = labtree.load_workspace(tree.ws.save(tmp_path / "merged"))
    assert loaded.ws.describe() == tree.ws.describe()
    tree.ws.close()


@pytest.mark.parametrize("target", SORTS)
def test_overwriting_takes_theirs(tmp_path, target):
    other = made("memory", tmp_path, ITEMS)
    tree = made(target, tmp_path, {("rec1", "b"): (7, "mine"), ("rec1", "z"): (8, None)})
    assert tree.ws.merge_from(other, overwrite=True) == {
        "merged": 4,
        "skipped": 0,
        "skipped_keys": [],
    }
    assert tree.ws.get("rec1", "b") == {"x": (1, None)}
    assert tree.ws.get_info("rec1", "b") == other.ws.get_info("rec1", "b")
    assert tree.ws.get("rec1", "z") == 8
    tree.ws.close()


def test_what_was_merged_is_a_copy(tmp_path):
    other = made("memory", tmp_path, ITEMS)
    tree = labtree.create_workspace()
    tree.ws.merge_from(other)
    other["rec2/a"]["x"][0] = 99
    other["rec2/a"].attrs["new"] = 1
    assert tree.ws.get("rec2", "a")["x"].values.tolist() == [1, 2]
    assert "new" not in tree["rec2/a"].attrs
    assert tree.ws.workspace_id != other.ws.workspace_id


def test_a_workspace_merged_into_itself_is_the_same(tmp_path):
    for sort in SORTS:
        tree = made(sort, tmp_path, ITEMS)
        before = tree.ws.describe()
        assert tree.ws.merge_from(tree)["skipped"] == 4
        assert tree.ws.merge_from(tree["rec1"], overwrite=True)["merged"] == 4
        assert tree.ws.describe() == before
        assert_same(tree.ws.get("rec1", "a"), np.arange(5.0))
        tree.ws.close()


@pytest.mark.parametrize("target", ["memory", "lazy", "opened"])
@pytest.mark.parametrize("damaged", range(4))
def test_one_damaged_item_and_nothing_is_merged(tmp_path, damaged, target):
    items = {("rec1", f"k{i}"): (np.full(1000, i, "i4"), None) for i in range(4)}
    path = made("opened", tmp_path, items).ws.path
    data = bytearray(path.read_bytes())
    at = data.find(np.full(1000, damaged, "i4").tobytes())
    assert at > 0
    data[at + 2000] ^= 1
    path.write_bytes(data)
    tree = made(target, tmp_path, {("rec1", "k0"): ("mine", "note")}, "target")
    before = tree.ws.describe()
    with (
        labtree.open_workspace(path) as other,
        pytest.raises(labtree.FormatError, match=f"rec1/k{damaged}/data is damaged"),
    ):
        tree.ws.merge_from(other, overwrite=True)
    assert tree.ws.describe() == before
    assert tree.ws.get("rec1", "k0") == "mine"
    tree.ws.close()


def test_a_closed_source_and_nothing_is_merged(tmp_path):
    other = made("opened", tmp_path, ITEMS)
    other.ws.close()
    tree = labtree.create_workspace()
    with pytest.raises(ValueError, match="was closed; open it again"):
        tree.ws.merge_from(other)
    assert tree.ws.list_namespaces() == []


def test_merging_an_opened_workspace_into_a_lazy_one_reads_each_item_once(
    tmp_path, monkeypatch
):
    items = {("rec1", f"k{i}"): (np.zeros(10_000), None) for i in range(5)}
    other, tree = made("opened", tmp_path, items), labtree.create_workspace(lazy=True)
    read = []
    original = FileSource.read_into
    monkeypatch.setattr(
        FileSource,
        "read_into",
        lambda self, buffer, offset: read.append(len(buffer)) or original(self, buffer, offset),
    )
    tree.ws.merge_from(other)
    assert read == [80_000] * 5
    tree.ws.close()
    other.ws.close()


@pytest.mark.parametrize("wrong", ["study.h5", None, xr.Dataset(), {}])
def test_only_trees_are_merged(wrong):
    with pytest.raises(
        TypeError, match=r"merge_from takes a workspace tree, not .*open_workspace"
    ):
        labtree.create_workspace().ws.merge_from(wrong)


def test_trees_of_other_shapes():
    other = xr.DataTree.from_dict(
        {
            "/stim": xr.Dataset({"wave": ("t", [1.0, 2.0])}, attrs={"fs": 10}),
            "/rec/deep/er": xr.Dataset({"x": ("t", [3.0])}),
            "/rec/deep": xr.Dataset({"y": ("u", [4.0])}),
        }
    )
    for lazy in (False, True):
        tree = labtree.create_workspace(lazy=lazy)
        assert tree.ws.merge_from(other) == {"merged": 1, "skipped": 0, "skipped_keys": []}
        assert tree["stim/wave"].values.tolist() == [1, 2]
        assert tree["stim"].attrs == {"fs": 10}
        assert tree["rec/deep/er/x"].values.tolist() == [3]
        assert tree["rec/deep/y"].values.tolist() == [4]
        again = labtree.create_workspace()
        again.ws.merge_from(tree)
        assert again.ws.merge_from(tree)["skipped"] == 1
        assert again["stim"].equals(other["stim"])
        tree.ws.close()


def test_variables_that_have_no_place_are_refused():
    tree = labtree.create_workspace()
    tree.ws.store("rec", "a", 1)
    with pytest.raises(
        labtree.WorkspaceError, match=r"the root .* variables of its own \('w'\)"
    ):
        tree.ws.merge_from(xr.DataTree(xr.Dataset({"w": 1.0})))
    other = labtree.create_workspace()
    other.ws.store("rec", "b", 2)
    other["rec/w"] = xr.DataArray(1.0)
    with pytest.raises(labtree.WorkspaceError, match="namespace 'rec' of the other tree"):
        tree.ws.merge_from(other)
    assert tree.ws.list_keys() == {"rec": ["a"]}


def test_a_merge_that_xarray_refuses_leaves_everything_as_it_was():
    tree = labtree.create_workspace()
    tree["rec"] = xr.Dataset(coords={"t": [1, 2, 3]})
    tree.ws.store("rec", "a", xr.Dataset({"x": ("t", [1.0, 2.0, 3.0])}))
    tree.ws.store("last", "a", 1)
    other = labtree.create_workspace()
    other.ws.store("fine", "a", 1)
    other.ws.store("last", "b", 1)
    other.ws.store("rec", "b", xr.Dataset({"x": ("t", [1.0])}))
    before = tree.ws.describe()
    with pytest.raises(ValueError, match="not aligned"):
        tree.ws.merge_from(other)
    assert tree.ws.describe() == before
    assert tree.ws.list_keys() == {"rec": ["a"], "last": ["a"]}
    tree.ws.store("last", "c", 1)
    assert tree.ws.list_keys("last") == ["a", "c"]
