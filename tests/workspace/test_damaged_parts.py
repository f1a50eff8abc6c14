"""One damaged part costs that part: the rest can be browsed, read and saved elsewhere."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree import cli
from labtree.storage.catalogue import catalogue_of, write_catalogue
from support.exactness import assert_same

TIME = np.arange(20_000.0) / 3.0


def damaged(tmp_path, values: np.ndarray):
    """Save a workspace of three items and flip a byte of an array; return its path."""
    tree = labtree.create_workspace("study")
    for key in ("first", "second"):
        shift = 0.0 if key == "first" else 0.5
        data = xr.Dataset({"x": ("time", TIME * 2 + shift)}, coords={"time": TIME + shift})
        tree.ws.store("rec", key, data)
    tree.ws.store("rec", "third", np.arange(5))
    path = tree.ws.save(tmp_path / "study")
    content = bytearray(path.read_bytes())
    place = content.index(values.tobytes()[:4000])
    content[place + 1000] ^= 0xFF
    path.write_bytes(content)
    return path


def test_a_damaged_coordinate_is_left_without_index_and_named(tmp_path):
    path = damaged(tmp_path, TIME)
    with pytest.warns(labtree.DamageWarning, match=r"rec/first/time is damaged.*load_item"):
        tree = labtree.open_workspace(path)
    with tree:
        assert tree.ws.list_keys() == {"rec": ["first", "second", "third"]}
        assert "first" in repr(tree.ws)
        assert tree["rec/first"].x.values.tolist() == (TIME * 2).tolist()
        assert tree.ws["rec", "second"].time.values.tolist() == (TIME + 0.5).tolist()
        with pytest.raises(labtree.FormatError, match="rec/first/time is damaged"):
            tree.ws.get("rec", "first")
        with pytest.raises(labtree.FormatError, match=r"skip_damaged=True"):
            tree.ws.save(tmp_path / "copy")
        with pytest.raises(labtree.WorkspaceError, match="save to another path"):
            tree.ws.save(path, skip_damaged=True)
        assert not (tmp_path / "copy.h5").exists()
        with pytest.warns(labtree.DamageWarning, match="1 item cannot be read and left out"):
            tree.ws.save(tmp_path / "copy", skip_damaged=True)
        assert tree.ws.changes == ["rec/first: not saved yet"]
    copy = labtree.load_workspace(tmp_path / "copy")
    assert copy.ws.list_keys("rec") == ["second", "third"]
    assert_same(labtree.load_item(path, "rec", "second"), copy.ws["rec", "second"])
    with pytest.raises(labtree.FormatError, match="rec/first/time is damaged"):
        labtree.load_workspace(path)


def test_a_damaged_array_costs_its_item(tmp_path):
    path = damaged(tmp_path, TIME * 2)
    with labtree.open_workspace(path) as tree:
        with pytest.raises(labtree.FormatError, match="rec/first/x is damaged"):
            tree.ws.get("rec", "first")
        assert tree.ws["rec", "third"].tolist() == [0, 1, 2, 3, 4]
        with pytest.warns(labtree.DamageWarning, match="rec/first"):
            tree.ws.save(tmp_path / "copy.zarr", skip_damaged=True)
    copy = labtree.load_workspace(tmp_path / "copy.zarr")
    assert copy.ws.list_keys("rec") == ["second", "third"]


def test_parts_that_were_left_out_at_opening_are_not_removed_by_a_save(tmp_path):
    tree = labtree.create_workspace("study")
    tree.ws.store("rec", "good", np.arange(5))
    path = tree.ws.save(tmp_path / "study")
    with h5py.File(path, "a") as file:  # by another program, and then damaged
        file["rec/good/link"] = h5py.SoftLink("/nowhere")
    before = path.read_bytes()
    with pytest.warns(labtree.DamageWarning, match="link"):
        opened = labtree.open_workspace(path)
    with opened:
        opened.ws.store("rec", "new", 1)
        with pytest.raises(labtree.WorkspaceError, match="were left out when it was opened"):
            opened.ws.save()
        assert path.read_bytes() == before
        opened.ws.save(tmp_path / "other")
        opened.ws.save(path, overwrite=True)
    assert labtree.load_workspace(path).ws.list_keys("rec") == ["good", "new"]


FORGED = {
    "kind": lambda record: record["attrs"].update(labtree_kind=["ndarray"]),
    "variable": lambda record: record["variables"].__setitem__(0, 5),
    "name": lambda record: record["variables"][0].__setitem__(0, "/"),
    "dimension": lambda record: record["variables"][0].__setitem__(1, [7]),
    "codec": lambda record: record["variables"][0].__setitem__(2, True),
    "column": lambda record: record["variables"][0].__setitem__(4, "x"),
    "dtype": lambda record: record["variables"][0][4][0].__setitem__(1, None),
    "shape": lambda record: record["variables"][0][4][0].__setitem__(2, {}),
    "path": lambda record: record.update(path=[["rec"], 5]),
}


@pytest.mark.parametrize("part", FORGED)
def test_a_hostile_catalogue_is_an_error_that_names_the_file(tmp_path, capsys, part):
    tree = labtree.create_workspace("study")
    tree.ws.store("rec", "rates", np.arange(5))
    path = tree.ws.save(tmp_path / "study")
    with path.open("rb") as file:
        found = catalogue_of(file.fileno(), path)
    head, *records = map(json.loads, found.text.splitlines())
    FORGED[part](records[-1])
    write_catalogue(path, head, records, found.values)
    if part == "kind":  # of a kind that is not registered here the dataset is there
        assert labtree.load_item(path, "rec", "rates").data.values.tolist() == [*range(5)]
        return
    with pytest.raises(labtree.LabtreeError) as error:
        labtree.load_item(path, "rec", "rates")
    assert str(path) in str(error.value) or isinstance(error.value, KeyError)
    assert cli.main(["verify", str(path)]) == 1
    assert "--traceback" not in capsys.readouterr().err
