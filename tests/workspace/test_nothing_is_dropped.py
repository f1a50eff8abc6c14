"""A save never drops what it does not know, and what is not saved is told."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr

import labtree


def workspace(*keys: str, name: str = "pilot") -> xr.DataTree:
    tree = labtree.create_workspace(name)
    for key in keys:
        tree.ws.store("rec1", key, np.arange(3))
    return tree


@pytest.fixture(params=["study.h5", "study.zarr"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_a_save_over_another_workspace_names_what_would_be_lost(path):
    workspace("a", "b", "c").ws.save(path)
    tuesday = workspace("c", "d")
    with pytest.raises(labtree.WorkspaceError) as error:
        tuesday.ws.save(path)
    message = str(error.value)
    assert "2 items of it are not in this one: rec1/a, rec1/b. Nothing was written" in message
    assert f"tree.ws.merge_from(labtree.open_workspace({str(path)!r}))" in message
    assert f"tree.ws.save({str(path)!r}, overwrite=True)" in message
    assert labtree.load_workspace(path).ws.list_keys("rec1") == ["a", "b", "c"]
    assert tuesday.ws.path is None


def test_the_lines_of_the_refusal_work(path):
    workspace("a").ws.save(path)
    tree = workspace("b")
    tree.ws.merge_from(labtree.open_workspace(path))
    tree.ws.save(path)
    assert sorted(labtree.load_workspace(path).ws.list_keys("rec1")) == ["a", "b"]
    workspace("z").ws.save(path, overwrite=True)
    assert labtree.load_workspace(path).ws.list_keys("rec1") == ["z"]


def test_the_same_script_twice_is_fine(path):
    for _ in range(2):
        workspace("a", "b").ws.save(path)
    workspace("a", "b", "c").ws.save(path)
    assert labtree.load_workspace(path).ws.list_keys("rec1") == ["a", "b", "c"]


def test_what_this_workspace_had_there_may_go(path):
    workspace("a", "b").ws.save(path)
    with labtree.open_workspace(path) as tree:
        tree.ws.delete("rec1", "a")
        tree.ws.save(path.with_name("other.h5"))
        tree.ws.save(path)
    assert labtree.load_workspace(path).ws.list_keys("rec1") == ["b"]


def test_what_is_no_workspace_is_not_replaced_even_where_asked(tmp_path):
    file = tmp_path / "mine.h5"
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(file, engine="h5netcdf")
    before = file.read_bytes()
    with pytest.raises(labtree.WorkspaceError, match="is no labtree workspace"):
        workspace("a").ws.save(file, overwrite=True)
    assert file.read_bytes() == before


def test_changes_are_listed_and_gone_after_a_save(path):
    tree = workspace()
    assert tree.ws.is_saved
    tree.ws.store("rec1", "a", 1)
    tree.ws.store("rec1", "b", xr.Dataset({"x": ("t", np.arange(3.0))}))
    assert tree.ws.changes == ["rec1/a: not saved yet", "rec1/b: not saved yet"]
    tree.ws.save(path)
    with labtree.open_workspace(path) as opened:
        for each in (tree, opened):
            assert each.ws.changes == []
            assert each.ws.is_saved
            each.ws.store("rec1", "a", 2)
            each.ws.add_note("rec1", "b", "checked")
            each.ws.rename("rec1", "b", "c")
            each.ws.store("rec2", "d", 3)
            assert each.ws.changes == [
                "rec1/a: replaced",
                "rec1/b: renamed to rec1/c",
                "rec1/c: changed",
                "rec2/d: not saved yet",
            ]
            assert "4 changes not saved" in repr(each.ws)
            assert "4 changes not saved" in each.ws._repr_html_()
            each.ws.delete("rec2")
            each.ws.delete("rec1", "c")
            assert each.ws.changes == ["rec1/a: replaced", "rec1/b: deleted"]
        tree.ws.save()
        assert tree.ws.is_saved
        opened.ws.save(path.with_name("other.h5"))


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.attrs.update(units="mV"),
        lambda node: node["x"].attrs.update(units="mV"),
        lambda node: node.update({"x": xr.Variable("t", np.zeros(3))}),
        lambda node: node.coords.update({"t": [1, 2, 4]}),
    ],
)
def test_changes_through_plain_xarray_count(path, change):
    tree = labtree.create_workspace()
    data = xr.Dataset({"x": ("t", np.arange(3.0), {"units": "V"})}, coords={"t": [1, 2, 3]})
    tree.ws.store("rec1", "b", data)
    tree.ws.save(path)
    with labtree.open_workspace(path) as opened:
        for each in (tree, opened):
            change(each["rec1/b"])
            assert each.ws.changes == ["rec1/b: changed"]


def test_reading_is_no_change(path):
    workspace("a", "b").ws.save(path)
    with labtree.open_workspace(path) as tree:
        tree["rec1/a"].to_dataset().load()
        tree["rec1/a"].load()
        repr(tree.ws), tree.ws.get("rec1", "b"), tree["rec1/b"].data.values
        assert tree.ws.changes == []


@pytest.mark.parametrize("close", [lambda tree: tree.close(), lambda tree: tree.ws.close()])
def test_a_workspace_that_is_closed_with_changes_warns(path, close):
    workspace("a").ws.save(path)
    tree = labtree.open_workspace(path)
    tree.ws.store("rec1", "new", 1)
    with pytest.warns(labtree.UnsavedWarning, match=r"1 change that .*rec1/new: not saved yet"):
        close(tree)


def test_the_end_of_a_block_warns_where_the_block_stands(path):
    workspace("a").ws.save(path)
    with (
        pytest.warns(labtree.UnsavedWarning, match=r"tree\.ws\.save\(\) before") as caught,
        labtree.open_workspace(path) as tree,
    ):
        tree.ws.delete("rec1", "a")
    assert caught[0].filename == __file__
    with labtree.open_workspace(path) as tree:
        tree.ws.store("rec1", "b", 1)
        tree.ws.save()


def test_after_closing_nothing_can_be_stored(path):
    workspace("a").ws.save(path)
    tree = labtree.open_workspace(path)
    tree.ws.close()
    for call in (
        lambda: tree.ws.store("rec1", "b", 1),
        lambda: tree.ws.rename("rec1", "a", "b"),
        lambda: tree.ws.add_note("rec1", "a", "x"),
        lambda: tree.ws.delete("rec1", "a"),
        lambda: tree.ws.merge_from(workspace("z")),
    ):
        with pytest.raises(labtree.ClosedError, match=r"labtree\.open_workspace\('.*study"):
            call()
    assert tree.ws.list_keys("rec1") == ["a"]
    assert "closed" in repr(tree.ws)


def test_a_workspace_in_memory_can_be_saved_after_it_was_closed(tmp_path):
    with pytest.warns(labtree.UnsavedWarning, match="was closed"), workspace("a") as tree:
        pass
    tree.ws.store("rec1", "b", 1)
    tree.ws.save(tmp_path / "study")


def test_a_program_that_ends_with_changes_warns(tmp_path):
    script = """
        import labtree
        saved, lost = labtree.create_workspace("saved"), labtree.create_workspace("lost")
        saved.ws.store("a", "b", 1); saved.ws.save("saved")
        lost.ws.store("a", "b", 1)
        """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "'lost' was left at the end of the program with 1 change " in ended.stderr
    assert "'saved'" not in ended.stderr


@pytest.mark.usefixtures("nothing_is_collected")
@pytest.mark.parametrize(
    "content",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: bytes(len(whole)),
        lambda whole: b'{"a":' * 5000,
        lambda whole: json.dumps({"workspace_id": "another", "index": {}}).encode(),
    ],
    ids=["cut", "empty", "zeros", "nested", "another"],
)
def test_an_index_that_is_damaged_or_of_another_stops_nothing(tmp_path, content):
    tree = workspace("a")
    path = tree.ws.save(tmp_path / "study")
    index = tmp_path / "study.json"
    right = index.read_bytes()
    index.write_bytes(content(right))
    with pytest.warns(labtree.DamageWarning, match="written again"):
        labtree.open_workspace(path).close()
    assert index.read_bytes() == right
    index.write_bytes(content(right))
    tree.ws.save()
    assert json.loads(index.read_bytes())["index"].keys() == {"rec1"}


def test_names_of_other_formats_and_folders_say_what_to_write(tmp_path):
    tree = workspace("a")
    (tmp_path / "folder").mkdir()
    for name, line in (
        ("x.nc", "x.h5"),
        ("x.hdf5", "x.h5"),
        ("x.json", "x.h5"),
        ("folder", "folder/study.h5"),
        ("new/", "new.h5"),
    ):
        with pytest.raises(labtree.LabtreeError, match=r"write ") as error:
            tree.ws.save(f"{tmp_path}/{name}")
        assert f"{tmp_path}/{line}" in str(error.value).replace("new/study.h5", "new.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
    assert tree.ws.save(tmp_path / "day.2").name == "day.2.h5"


@pytest.mark.parametrize("name", ["ü" * 120, "x" * 247, "日" * 80])
def test_names_up_to_what_the_file_system_takes(tmp_path, name):
    path = workspace("a").ws.save(tmp_path / name)
    assert labtree.load_workspace(path).ws.list_keys("rec1") == ["a"]


def test_small_verbs():
    tree = workspace("a", "rates")
    tree.ws.store("rec2", "rates", {"x": 1})
    tree.ws.store("x/y", "rates/z", 1)
    assert "rec1" in tree.ws
    assert ("rec1", "a") in tree.ws
    assert ("rec1", "z") not in tree.ws
    assert len(tree.ws) == 4
    assert list(tree.ws) == [
        ("rec1", "a"),
        ("rec1", "rates"),
        ("rec2", "rates"),
        ("x/y", "rates/z"),
    ]
    assert tree.ws.find("rec*/rates") == [("rec1", "rates"), ("rec2", "rates")]
    assert tree.ws.find("rates") == tree.ws.find("rec*/rates")
    assert tree.ws.find("x/y/rates/z") == [("x/y", "rates/z")]
    assert tree.ws.find(kind="dict") == [("rec2", "rates")]
    with pytest.raises(labtree.UnknownNameError, match="Did you mean 'spike_data'"):
        tree.ws.find(kind="spikedata")
    with pytest.raises(TypeError, match=r"write tree\.ws\['rec1', 'a'\], with two names"):
        tree.ws["rec1/a"]
    assert labtree.create_workspace().ws
    with labtree.use_workspace(tree):
        labtree.store("rec3", "table", {"a": (1, 2)}, note="n")
    assert tree.ws["rec3", "table"] == {"a": (1, 2)}
    with pytest.raises(labtree.WorkspaceError, match=r"use_workspace\(tree\)"):
        labtree.store("rec3", "table", 1)


def test_a_node_of_an_item_has_its_kind_summary_and_plot():
    tree = workspace("a")
    tree.ws.store(
        "rec1", "spikes", labtree.spike_data([[1.0, 2.0], [3.0]], length=10), note="n"
    )
    node = tree["rec1/spikes"]
    assert node.ws.kind == "spike_data"
    assert node.ws.summary()["N"] == 2
    node.ws.validate()
    assert node.ws.plot().get_xlabel() == "Time (ms)"
    assert "spike_data 'rec1/spikes'" in repr(node.ws)
    assert "note: n" in node.ws._repr_html_()
    assert tree["rec1/a"].ws.plot() is not None
    for each in (tree, tree["rec1"]):
        with pytest.raises(
            labtree.WorkspaceError, match=r"write tree\['namespace/key'\]\.ws\.plot"
        ):
            each.ws.plot()
    tree.ws.store("rec1", "settings", {"a": 1})
    with pytest.raises(labtree.DataError, match=r"tree\.ws\['rec1', 'settings'\]"):
        tree["rec1/settings"].ws.plot()
