"""Saving: two files that agree, whole, and nobody else's."""

import json
import os
import stat
import uuid
from pathlib import Path

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.storage import files as storage_files
from labtree.workspace.stores import Hdf5Store
from support.exactness import assert_same


@pytest.fixture(params=[False, True], ids=["memory", "lazy"])
def tree(request):
    made = labtree.create_workspace("pilot", lazy=request.param)
    made.ws.store("rec1", "rates", xr.Dataset({"r": (("unit", "time"), np.ones((2, 3)))}))
    made.ws.store("rec1", "depth", np.arange(3, dtype="i2"), note="in µm")
    yield made
    made.ws.close()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("as_type", [str, Path])
@pytest.mark.parametrize("name", ["study", "study.h5", "study.v2", "a b.é"])
def test_paths_of_any_sort(tmp_path, tree, name, as_type):
    given = as_type(tmp_path / name)
    file = tmp_path / (name if name.endswith(".h5") else name + ".h5")
    assert tree.ws.save(given) == file
    assert tree.ws.path == file
    assert files(tmp_path) == sorted([file.name, file.with_suffix(".json").name])
    for path in (given, file, str(file)):
        assert labtree.load_workspace(path).ws.list_namespaces() == ["rec1"]
        with labtree.open_workspace(path) as opened:
            assert opened.ws.path == file
        assert labtree.load_item(path, "rec1", "depth").tolist() == [0, 1, 2]


def test_relative_paths(tmp_path, tree, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tree.ws.save("study") == tmp_path / "study.h5"
    monkeypatch.chdir("/")
    tree.ws.add_note("rec1", "rates", "later")
    assert tree.ws.save() == tmp_path / "study.h5"
    assert labtree.load_workspace(tmp_path / "study").ws.get_info("rec1", "rates")["note"]


def test_the_file_of_a_save_goes_before_a_neighbor_without_suffix(tmp_path, tree):
    (tmp_path / "study").write_bytes(b"something else")
    tree.ws.save(tmp_path / "study")
    assert labtree.load_workspace(tmp_path / "study").ws.list_namespaces() == ["rec1"]


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_a_path_that_names_no_file(tree, name):
    for call in (tree.ws.save, labtree.open_workspace, labtree.load_workspace):
        with pytest.raises(labtree.WorkspaceError, match="names no file; write a name such as"):
            call(name)


def test_without_a_path_it_goes_where_it_came_from(tmp_path, tree):
    with pytest.raises(
        labtree.WorkspaceError, match=r"has no file yet; .*ws\.save\('study\.h5'\)"
    ):
        tree.ws.save()
    first, second = tree.ws.save(tmp_path / "one"), tree.ws.save(tmp_path / "two")
    tree.ws.store("rec2", "x", 1)
    assert tree.ws.save() == second
    assert labtree.load_workspace(first).ws.list_namespaces() == ["rec1"]
    for read in (labtree.load_workspace, labtree.open_workspace):
        back = read(second)
        back.ws.store("rec3", "y", 2)
        assert back.ws.save() == second
        back.ws.close()
    assert labtree.load_workspace(second).ws.list_namespaces() == ["rec1", "rec2", "rec3"]


def test_the_index_has_spikelabs_keys(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert list(index) == ["workspace_id", "name", "created_at", "index"]
    assert uuid.UUID(index["workspace_id"]).version == 4
    assert index["workspace_id"] == tree.ws.workspace_id
    assert index["name"] == "pilot"
    assert index["created_at"] == tree.ws.created_at
    assert index["index"] == tree.ws.describe()
    assert index["index"]["rec1"]["depth"]["note"] == "in µm"
    loaded = labtree.load_workspace(path)
    for what in ("workspace_id", "name", "created_at"):
        assert getattr(loaded.ws, what) == index[what]
    assert loaded.ws.describe() == index["index"]


def test_other_programs_read_the_same(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    with xr.open_datatree(path, engine="h5netcdf") as plain:
        assert plain["rec1/rates"].sizes == {"unit": 2, "time": 3}
        assert plain["rec1/rates/r"].values.tolist() == [[1, 1, 1], [1, 1, 1]]
        assert plain["rec1/depth/data"].dtype == "int16"
        assert plain["rec1/depth"].attrs["labtree_note"] == "in µm"
        assert plain.attrs["labtree_workspace_id"] == tree.ws.workspace_id
    with netCDF4.Dataset(path) as file:
        variable = file["rec1/rates/r"]
        assert variable.dimensions == ("unit", "time")
        assert variable[:].tolist() == [[1, 1, 1], [1, 1, 1]]
        assert list(file.groups) == ["rec1"]
        assert file["rec1"]["depth"].getncattr("labtree_note") == "in µm"
    with h5netcdf.File(path) as file:
        assert file["rec1/depth/data"].dimensions == ("dim_0",)
        assert file["rec1/depth/data"][:].tolist() == [0, 1, 2]


def test_an_index_that_disagrees_is_written_anew(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    listing = path.with_suffix(".json")
    good = listing.read_bytes()
    changed = json.loads(good)
    changed["index"]["rec1"].pop("depth")
    listing.write_text(json.dumps(changed))
    with pytest.warns(
        UserWarning, match=r"study.json does not say what .* written again"
    ) as seen:
        labtree.open_workspace(path).ws.close()
    assert len(seen) == 1
    assert listing.read_bytes() == good
    labtree.open_workspace(path).ws.close()
    listing.unlink()
    labtree.open_workspace(path).ws.close()
    assert not listing.exists()


def test_a_foreign_json_is_not_touched(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    for foreign in (b"[1, 2]", b'{"a": 1}', b"not json \xff", b"[1]\n[2]\n"):
        path.with_suffix(".json").write_bytes(foreign)
        with pytest.warns(UserWarning, match="it was left as it is"):
            labtree.open_workspace(path).ws.close()
        with pytest.raises(
            labtree.WorkspaceError, match=r"study.json exists and is not the index"
        ):
            tree.ws.save(path)
        with pytest.raises(labtree.WorkspaceError, match="is not the index"):
            tree.ws.save(tmp_path / "study")
        assert path.with_suffix(".json").read_bytes() == foreign


def test_a_foreign_h5_is_not_touched(tmp_path, tree):
    file = tmp_path / "recording.h5"
    with h5py.File(file, "w") as h5:
        h5["raw"] = np.arange(1000)
    contents = [file.read_bytes(), b"", b"some text", b"\x89HDF\r\n\x1a\n cut short"]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(
            labtree.WorkspaceError, match=r"is no labtree workspace; nothing was"
        ):
            tree.ws.save(tmp_path / "recording")
        assert file.read_bytes() == content
    assert files(tmp_path) == ["recording.h5"]
    assert tree.ws.path is None


def test_another_workspace_is_replaced_and_one_without_catalogue_too(tmp_path, tree):
    other = labtree.create_workspace()
    other.ws.store("z", "z", 1)
    path = other.ws.save(tmp_path / "study")
    with h5py.File(path, "a") as h5:
        h5.attrs["touched"] = 1
    tree.ws.save(path, overwrite=True)
    assert labtree.load_workspace(path).ws.list_namespaces() == ["rec1"]


def test_a_missing_folder(tmp_path, tree):
    with pytest.raises(
        FileNotFoundError, match=r"folder .*missing does not exist; make it with"
    ):
        tree.ws.save(tmp_path / "missing" / "study")
    assert files(tmp_path) == []


def test_a_folder_in_the_way(tmp_path, tree):
    (tmp_path / "study.h5").mkdir()
    with pytest.raises(
        labtree.AlreadyExistsError, match=r"study\.h5 is a folder; give the name of a file"
    ):
        tree.ws.save(tmp_path / "study")
    (tmp_path / "other").mkdir()
    with pytest.raises(labtree.AlreadyExistsError, match=r"write '.*other.h5' beside it"):
        tree.ws.save(tmp_path / "other")
    tree.ws.save(tmp_path / "other.h5")
    (tmp_path / "third.json").mkdir()
    with pytest.raises((labtree.WorkspaceError, OSError)):
        tree.ws.save(tmp_path / "third")
    assert files(tmp_path) == ["other", "other.h5", "other.json", "study.h5", "third.json"]


def as_nobody(call):
    """Run in a child that is not root, whom the system lets write everywhere."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            call()
            text = "nothing was raised"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def open_to_all(folder):
    while folder != folder.parent:
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
        folder = folder.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_folder_and_a_file_that_are_read_only(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    before = path.read_bytes()
    open_to_all(tmp_path)
    path.with_suffix(".json").chmod(0o644)  # whatever the umask
    path.chmod(0o444)
    tmp_path.chmod(0o777)
    text = as_nobody(lambda: tree.ws.save(path))
    assert text.startswith("NotWritableError: ")
    assert "is protected against writing" in text
    path.chmod(0o666)
    tmp_path.chmod(0o555)
    text = as_nobody(lambda: tree.ws.save(path))
    assert text.startswith("NotWritableError: ")
    assert as_nobody(lambda: labtree.load_workspace(path)) == "nothing was raised"
    tmp_path.chmod(0o755)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["study.h5", "study.json"]


def test_an_index_beside_a_file_in_a_read_only_folder_is_left(tmp_path, tree, monkeypatch):
    path = tree.ws.save(tmp_path / "study")
    text = path.with_suffix(".json").read_text(encoding="utf-8").replace("pilot", "other")
    path.with_suffix(".json").write_text(text, encoding="utf-8")

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("labtree.workspace.listing.replace_file", refuse)
    with pytest.warns(UserWarning, match="it was left as it is: .*read-only"):
        labtree.open_workspace(path).ws.close()


def test_permissions_stay(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    path.chmod(0o600)
    tree.ws.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path, tree):
    (tmp_path / "disk").mkdir()
    path = tree.ws.save(tmp_path / "disk" / "study")
    (tmp_path / "study.h5").symlink_to(path)
    opened = labtree.open_workspace(tmp_path / "study")
    opened.ws.store("rec2", "x", 1)
    opened.ws.save()
    opened.ws.close()
    assert (tmp_path / "study.h5").is_symlink()
    assert labtree.load_workspace(path).ws.list_namespaces() == ["rec1", "rec2"]
    with pytest.raises(labtree.WorkspaceError, match="was changed by another process"):
        tree.ws.save(tmp_path / "study.h5")


def test_a_failing_item_fails_the_save_with_its_path(tmp_path, tree):
    path = tree.ws.save(tmp_path / "study")
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    tree["rec2/wrong"] = xr.Dataset({"v": ("t", np.array([object()], object))})
    with pytest.raises(TypeError, match="/rec2/wrong/v"):
        tree.ws.save()
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before
    assert files(tmp_path) == ["study.h5", "study.json"]
    tree.ws.delete("rec2")
    tree.ws.save()


@pytest.mark.parametrize(
    ("in_place", "failing"),
    [(True, step) for step in range(3)] + [(False, step) for step in range(5)],
)
def test_a_save_that_is_stopped_at_any_step_leaves_one_whole_file(
    tmp_path, tree, monkeypatch, in_place, failing
):
    path = tree.ws.save(tmp_path / "study")
    tree.ws.add_note("rec1", "rates", "new")
    if not in_place:
        monkeypatch.setattr(Hdf5Store, "save_changes", lambda *_, **__: False)
    count = iter(range(100))

    def stop(call):
        def wrapped(*args, **kwargs):
            if next(count) == failing:
                raise KeyboardInterrupt
            return call(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "fsync", stop(os.fsync))
    monkeypatch.setattr(Path, "replace", stop(Path.replace))
    monkeypatch.setattr(storage_files, "sync_folder", stop(storage_files.sync_folder))
    interrupted = False
    try:
        tree.ws.save()
    except KeyboardInterrupt:
        interrupted = True
    monkeypatch.undo()
    assert interrupted
    assert files(tmp_path) == ["study.h5", "study.json"]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        loaded = labtree.load_workspace(path)
    assert loaded.ws.get_info("rec1", "rates").get("note") in (None, "new")
    assert_same(loaded.ws.get("rec1", "depth"), np.arange(3, dtype="i2"))


def test_saving_again_after_an_interrupt(tmp_path, tree, monkeypatch):
    path = tree.ws.save(tmp_path / "study")
    tree.ws.add_note("rec1", "rates", "new")
    original = Path.replace
    monkeypatch.setattr(
        Path,
        "replace",
        lambda self, target: (
            (_ for _ in ()).throw(KeyboardInterrupt)
            if str(target).endswith(".json")
            else original(self, target)
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        tree.ws.save()
    monkeypatch.undo()
    tree.ws.save()
    assert labtree.load_workspace(path).ws.get_info("rec1", "rates")["note"] == "new"


def test_user_made_nodes_survive(tmp_path, tree):
    plain = xr.Dataset({"x": ("t", [1.0, 2.0])}, coords={"t": [10, 20]}, attrs={"fs": 5})
    tree["rec9/mine"] = plain
    tree["rec9/deep/er/still"] = plain
    tree["rec9/whole"] = xr.DataArray([1, 2, 3], dims="channel")
    tree.attrs["lab"] = "ours"
    assert tree.ws.list_keys("rec9") == ["mine", "deep"]
    assert tree.ws.get_info("rec9", "mine")["type"] == "dataset"
    path = tree.ws.save(tmp_path / "study")
    assert tree.ws.get_info("rec9", "mine")["created_at"] is not None
    for back in (labtree.load_workspace(path), labtree.open_workspace(path)):
        assert_same(back.ws.get("rec9", "mine"), plain)
        assert_same(back["rec9/deep/er/still"].to_dataset(), plain)
        assert back["rec9/whole"].values.tolist() == [1, 2, 3]
        assert back.attrs["lab"] == "ours"
        assert back.ws.describe() == tree.ws.describe()
        deep = back.ws.get("rec9", "deep")
        assert isinstance(deep, xr.DataTree)
        assert_same(deep["er/still"].to_dataset(), plain)
        back.ws.close()
    deep = labtree.load_item(path, "rec9", "deep")
    assert_same(deep["er/still"].to_dataset(), plain)
    assert_same(labtree.load_item(path, "rec9", "mine"), plain)


def test_coordinates_of_a_namespace_belong_to_its_items(tmp_path, tree):
    item = xr.Dataset({"x": ("t", [1.0, 2.0])}, coords={"t": [10, 20]})
    tree["rec9"] = xr.Dataset(coords={"t": [10, 20], "other": [1, 2, 3]})
    tree.ws.store("rec9", "a", item)
    path = tree.ws.save(tmp_path / "study")
    for given in (
        tree.ws.get("rec9", "a"),
        labtree.load_workspace(path).ws.get("rec9", "a"),
        labtree.load_item(path, "rec9", "a"),
    ):
        assert given.identical(item)
    merged = labtree.create_workspace()
    merged.ws.merge_from(tree)
    assert merged.ws.get("rec9", "a").identical(item)
    before = tree.ws.describe()
    with pytest.raises(ValueError, match="not aligned"):
        tree.ws.store("rec9", "b", xr.Dataset({"x": ("t", [1.0])}))
    for clash in ("t", "other"):
        with pytest.raises(labtree.InvalidNameError, match="choose another name"):
            tree.ws.store("rec9", clash, 1)
        with pytest.raises(labtree.InvalidNameError, match="has a variable"):
            tree.ws.rename("rec9", "a", clash)
    assert tree.ws.describe() == before
    assert tree.ws.get("rec9", "a").identical(item)


def test_a_root_that_refuses_a_namespace_keeps_none(tree):
    tree.coords["t"] = [1, 2, 3]
    with pytest.raises(ValueError, match="not aligned"):
        tree.ws.store("new", "a", xr.Dataset({"x": ("t", [1.0])}))
    assert tree.ws.list_namespaces() == ["rec1"]


def test_a_note_set_by_hand_does_not_stop_a_save(tmp_path, tree):
    tree["rec1/rates"].attrs["labtree_note"] = np.int64(3)
    tree["rec1/depth"].attrs["labtree_created_at"] = "yesterday"
    path = tree.ws.save(tmp_path / "study")
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["index"]
    assert index["rec1"]["rates"]["note"] == "3"
    assert index["rec1"]["depth"]["created_at"] is None


def test_a_workspace_is_saved_compressed_and_stays_so(tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("rec", "zeros", np.zeros(200_000))
    path = tree.ws.save(tmp_path / "small", compression="gzip")
    assert path.stat().st_size < 100_000
    opened = labtree.open_workspace(path)
    opened.ws.store("rec", "more", np.ones(3))
    opened.ws.save()
    assert path.stat().st_size < 100_000
    assert_same(labtree.load_item(path, "rec", "zeros"), np.zeros(200_000))
    opened.ws.close()
    store = tree.ws.save(tmp_path / "a.zarr", compression="gzip")
    assert sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) < 100_000
    assert_same(labtree.load_item(store, "rec", "zeros"), np.zeros(200_000))


@pytest.mark.parametrize(("ending", "is_lazy"), [("h5", False), ("zarr", True)])
def test_what_was_loaded_is_saved_elsewhere_with_its_compression(tmp_path, ending, is_lazy):
    first, items = labtree.create_workspace(), {"zeros": np.zeros(200_000)}
    items["dates"] = np.full(200_000, "2020-01-01", "M8[s]")
    depth = ("x", np.zeros(200_000))
    items["dataset"] = xr.Dataset({"v": depth}, {"depth": depth})
    for key, value in items.items():
        first.ws.store("rec", key, value)
    first.ws.save(tmp_path / f"first.{ending}", compression="gzip")
    loaded = labtree.load_workspace(tmp_path / f"first.{ending}")
    merged = labtree.create_workspace(lazy=is_lazy)
    merged.ws.store("rec", "plain", np.zeros(30_000))
    merged.ws.merge_from(loaded)
    for tree, most in ((loaded, 100_000), (merged, 340_000)):
        for name in ("again.h5", "again.zarr"):
            path = tree.ws.save(tmp_path / name, overwrite=True)
            files = [path] if path.is_file() else path.rglob("*")
            assert most - 100_000 <= sum(each.stat().st_size for each in files) < most
            for key, value in items.items():
                assert_same(labtree.load_item(path, "rec", key), value)
    merged.ws.close()
