"""An opened workspace is a normal DataTree that reads what is indexed, when it is."""

import copy
import gc
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.errors import DamageWarning
from labtree.storage.hdf5_end import end_of_hdf5
from labtree.storage.sources import FileSource
from support.exactness import assert_same

FDS = Path("/proc/self/fd")
RATES = xr.Dataset(
    {"rate": (("unit", "time"), np.arange(4000.0).reshape(40, 100))},
    coords={"time": np.arange(100) / 10, "unit": np.arange(40)},
    attrs={"units": "Hz"},
)
ARRAY = np.random.default_rng(0).random((300, 200))
FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]})


@pytest.fixture
def path(tmp_path):
    tree = labtree.create_workspace("pilot")
    tree.ws.store("rec1", "rates", RATES, note="per unit")
    tree.ws.store("rec1", "array", ARRAY)
    tree.ws.store("rec2", "frame", FRAME)
    tree.ws.store("rec2", "dict", {"big": np.zeros(1000), "n": None})
    return tree.ws.save(tmp_path / "study")


@pytest.fixture
def opened(path):
    with labtree.open_workspace(path) as tree:
        yield tree


@pytest.fixture
def reads(monkeypatch):
    """Sizes of all reads of data; opening reads the catalogue by other ways."""
    sizes = []
    original = FileSource.read_into

    def counted(self, buffer, offset):
        sizes.append(len(buffer))
        return original(self, buffer, offset)

    monkeypatch.setattr(FileSource, "read_into", counted)
    return sizes


def test_nothing_is_read_before_it_is_needed(reads, path):
    with labtree.open_workspace(path) as tree:
        assert tree.ws.is_lazy
        tree["rec1/rates"], tree["rec1"]["array"]["data"], tree.children["rec2"]
        tree["rec1/rates"].sizes, tree["rec1/array/data"].dtype, tree["rec1/rates"].attrs
        (
            repr(tree),
            tree._repr_html_(),
            repr(tree["rec1"]),
            repr(tree["rec1/rates"].to_dataset()),
        )
        repr(tree.ws), tree.ws._repr_html_(), tree.ws.describe(), tree.ws.list_keys()
        (
            repr(tree["rec1/rates"].to_dataset().ws),
            tree["rec1/rates"].to_dataset().ws._repr_html_(),
        )
        tree.ws.get_info("rec1", "rates"), tree["rec1/rates"].to_dataset().ws.summary()
        tree.ws.add_note("rec1", "array", "hello")
        tree.ws.rename("rec1", "array", "matrix")
        tree.ws.delete("rec2", "frame")
        assert tree["rec1/rates"]["time"].values[-1] == 9.9
        assert "dim" in repr(tree["rec1/matrix/data"].variable.dims)
        list(tree.subtree), tree.copy(), tree.to_dict(), tree.sel(unit=slice(2, 4))
        tree["rec1/matrix"].isel(dim_0=slice(0, 10))
    assert reads == []


def test_arrays_read_just_what_is_indexed(reads, opened):
    data = opened["rec1/array/data"]
    assert_same(data[7].values, ARRAY[7])
    assert reads == [1600]
    del reads[:]
    assert data[7, 3].item() == ARRAY[7, 3]
    assert reads == [8]
    del reads[:]
    assert_same(data[10:20].values, ARRAY[10:20])
    assert reads == [16_000]
    del reads[:]
    assert_same(data.isel(dim_0=[5, 3, 4]).values, ARRAY[[5, 3, 4]])
    assert reads == [3 * 1600]
    del reads[:]
    rate = opened["rec1/rates"].to_dataset()["rate"].sel(unit=3)
    assert_same(rate.values, RATES["rate"].values[3])
    assert reads == [800]


def test_it_is_a_normal_tree(opened):
    assert opened["rec1/rates"].to_dataset()["rate"].identical(RATES["rate"])
    assert_same(opened["rec1"]["array"].data.values, ARRAY)
    assert_same(opened["rec1"]["array"]["data"].data, ARRAY)
    doubled = opened.map_over_datasets(lambda ds: ds * 2 if "rate" in ds else ds)
    assert_same(doubled["rec1/rates/rate"].values, RATES["rate"].values * 2)
    assert [node.path for node in opened.subtree] == [
        "/",
        "/rec1",
        "/rec2",
        "/rec1/rates",
        "/rec1/array",
        "/rec2/frame",
        "/rec2/dict",
    ]
    assert opened["rec1/rates"].mean("time")["rate"].shape == (40,)
    assert "rec1" in repr(opened)
    assert "rates" in opened._repr_html_()
    assert opened.match("rec2/*").children.keys() == {"rec2"}
    assert opened.filter(lambda node: "rate" in node).children.keys() == {"rec1"}


def test_get_gives_memory(opened, reads):
    for (namespace, key), value in {
        ("rec1", "rates"): RATES,
        ("rec1", "array"): ARRAY,
        ("rec2", "frame"): FRAME,
        ("rec2", "dict"): {"big": np.zeros(1000), "n": None},
    }.items():
        got = opened.ws.get(namespace, key)
        del reads[:]
        assert_same(got, value)
        assert reads == []


def test_load_item_reads_only_its_item(path, reads):
    assert_same(labtree.load_item(path, "rec2", "dict")["big"], np.zeros(1000))
    assert reads == [8000]
    del reads[:]
    assert labtree.load_item(str(path.with_suffix("")), "rec1", "rates").identical(RATES)
    assert sum(reads) == RATES["rate"].nbytes


def test_load_item_that_is_not_there(path):
    with pytest.raises(
        KeyError, match="no key 'x' in namespace 'rec1'; there are: 'rates', 'array'"
    ):
        labtree.load_item(path, "rec1", "x")
    with pytest.raises(labtree.ItemNotFoundError, match="no namespace 'x' in this workspace"):
        labtree.load_item(path, "x", "rates")
    with pytest.raises(ValueError, match="a key needs at least one character"):
        labtree.load_item(path, "rec1", "")


def test_load_item_of_one_damaged_neighbor(path):
    data = bytearray(path.read_bytes())
    data[data.find(ARRAY.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    assert_same(labtree.load_item(path, "rec2", "frame"), FRAME)
    with pytest.raises(labtree.FormatError, match=r"study.h5: rec1/array/data is damaged"):
        labtree.load_item(path, "rec1", "array")
    with pytest.raises(labtree.FormatError, match="rec1/array/data is damaged"):
        labtree.load_workspace(path)
    with labtree.open_workspace(path) as tree:
        assert tree.ws.get("rec1", "rates").identical(RATES)
        with pytest.raises(labtree.FormatError, match="is damaged"):
            tree.ws.get("rec1", "array")


@pytest.mark.parametrize("where", ["same", "other"])
def test_it_is_changed_and_saved_again(path, tmp_path, where):
    target = path if where == "same" else tmp_path / "other.h5"
    with labtree.open_workspace(path) as tree:
        tree.ws.store("rec3", "new", ARRAY * 2)
        tree.ws.store("rec2", "dict", [1])
        tree.ws.delete("rec2", "frame")
        tree.ws.rename("rec1", "array", "matrix")
        tree.ws.add_note("rec1", "matrix", "renamed")
        for _ in range(3):
            assert tree.ws.save(target) == target
            assert tree.ws.path == target
            for tested in (
                tree,
                labtree.load_workspace(target),
                labtree.open_workspace(target),
            ):
                assert tested.ws.list_keys() == {
                    "rec1": ["rates", "matrix"],
                    "rec2": ["dict"],
                    "rec3": ["new"],
                }
                assert_same(tested.ws.get("rec1", "matrix"), ARRAY)
                assert_same(tested.ws.get("rec3", "new"), ARRAY * 2)
                assert tested.ws.get("rec1", "rates").identical(RATES)
                assert tested.ws.get("rec2", "dict") == [1]
                assert tested.ws.get_info("rec1", "matrix")["note"] == "renamed"
    assert labtree.load_workspace(target).ws.get("rec2", "dict") == [1]
    if where == "other":
        assert_same(labtree.load_workspace(path).ws.get("rec2", "frame"), FRAME)


def test_unchanged_items_are_copied_without_decoding(path, tmp_path, monkeypatch):
    from labtree.storage import codecs

    with labtree.open_workspace(path) as tree:

        def refuse(*_):
            raise AssertionError("decoded")

        monkeypatch.setattr(codecs, "decode", refuse)
        tree.ws.save(tmp_path / "copy")
        monkeypatch.undo()
    assert_same(labtree.load_item(tmp_path / "copy", "rec2", "frame"), FRAME)


def test_values_changed_in_place_are_saved(path):
    with labtree.open_workspace(path) as tree:
        tree["rec1/array"]["data"][0, 0] = 99
        tree["rec1/rates"].attrs["units"] = "kHz"
        tree.ws.save()
        assert tree.ws.get("rec1", "array")[0, 0] == 99
    loaded = labtree.load_workspace(path)
    assert loaded.ws.get("rec1", "array")[0, 0] == 99
    assert_same(loaded.ws.get("rec1", "array")[1:], ARRAY[1:])
    assert loaded.ws.get("rec1", "rates").attrs == {"units": "kHz"}


def test_a_part_of_an_array_can_be_stored_and_saved(path):
    with labtree.open_workspace(path) as tree:
        part = tree["rec1/rates"].to_dataset().isel(time=slice(10, 20))
        tree.ws.store("rec1", "part", part)
        tree["rec1/sorted"] = tree["rec1/rates"].to_dataset().isel(unit=[3, 1], time=0)
        tree.ws.save()
    loaded = labtree.load_workspace(path)
    assert loaded.ws.get("rec1", "part")["rate"].identical(RATES["rate"][:, 10:20])
    assert loaded["rec1/sorted/rate"].identical(RATES["rate"][[3, 1], 0])


def test_it_keeps_reading_its_file_after_another_process_replaced_it(path, tmp_path):
    tree = labtree.open_workspace(path)
    other = labtree.load_workspace(path)
    other.ws.store("rec1", "array", ARRAY * 0)
    other.ws.save()
    assert_same(tree.ws.get("rec1", "array"), ARRAY)
    with pytest.raises(labtree.WorkspaceError) as error:
        tree.ws.save()
    message = str(error.value)
    assert message.startswith(f"{path} was changed by another process or program after this")
    assert "nothing was written" in message
    assert "tree.ws.merge_from(labtree.open_workspace(" in message
    tree.ws.merge_from(labtree.open_workspace(path), overwrite=True)
    tree.ws.save(tmp_path / "study-merged")
    assert_same(labtree.load_item(tmp_path / "study-merged", "rec1", "array"), ARRAY * 0)
    tree.ws.close()


def test_saving_again_and_again_holds_one_file(path):
    if not FDS.is_dir():
        pytest.skip("only Linux lists the open files")
    gc.collect()  # which closes what earlier tests left open
    none = len(list(FDS.iterdir()))
    with labtree.open_workspace(path) as tree:
        tree.ws.save()
        before = len(list(FDS.iterdir()))
        for i in range(10):
            tree.ws.add_note("rec1", "array", str(i))
            tree.ws.save()
        assert len(list(FDS.iterdir())) == before
        assert_same(tree.ws.get("rec1", "array"), ARRAY)
    assert len(list(FDS.iterdir())) == none


def test_a_closed_workspace(path):
    tree = labtree.open_workspace(path)
    array = tree["rec1/array/data"]
    tree.ws.close()
    tree.ws.close()
    assert tree.ws.list_keys("rec1") == ["rates", "array"]
    for call in (
        lambda: tree.ws.get("rec1", "array"),
        lambda: array.values,
        lambda: tree.ws.save(),
        lambda: tree["rec1/rates/rate"][0].values,
    ):
        with pytest.raises(ValueError, match=r"study.h5 was closed; open it again"):
            call()
    assert labtree.load_workspace(path).ws.list_keys("rec1") == ["rates", "array"]


def test_a_copy_does_not_close_its_original(path):
    with labtree.open_workspace(path) as tree:
        tree.copy().close()
        copy.deepcopy(tree).close()
        tree["rec1"].copy().close()
        pickle.loads(pickle.dumps(tree)).close()
        assert_same(tree.ws.get("rec1", "array"), ARRAY)


def test_copies_and_pickles(path, tmp_path):
    tree = labtree.open_workspace(path)
    shallow, deep, pickled = tree.copy(), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))
    for each in (shallow, deep, pickled):
        assert each.ws.workspace_id == tree.ws.workspace_id
        assert each.ws.path is None
        assert_same(each.ws.get("rec1", "array"), ARRAY)
        each.ws.store("rec1", "own", 1)
        each.ws.add_note("rec1", "array", "own")
    assert tree.ws.list_keys("rec1") == ["rates", "array"]
    assert "note" not in tree.ws.get_info("rec1", "array")
    assert len(pickle.dumps(tree)) < 50_000 < ARRAY.nbytes
    other = labtree.create_workspace().ws.save(tmp_path / "other")
    path.write_bytes(other.read_bytes() + b"x" * ARRAY.nbytes)
    with pytest.raises(labtree.FormatError, match="changed on disk after it was opened"):
        pickle.loads(pickle.dumps(tree)).ws.get("rec1", "array")
    tree.ws.close()


def test_accessors_after_copy_isel_and_change(opened):
    part = opened["rec1/rates"].to_dataset().isel(unit=slice(0, 2))
    assert part.ws.kind == "dataset"
    assert part.ws.summary()["sizes"] == {"unit": 2, "time": 100}
    assert part.copy().ws.summary() == part.ws.summary()
    part["rate"] = part["rate"].isel(time=0)
    assert part.ws.summary()["sizes"]["unit"] == 2
    part.ws.validate()
    part["new"] = ("z", [1])
    assert part.ws.summary()["variables"] == ["rate", "new"]
    branch = opened["rec1"].copy()
    assert branch.ws.list_namespaces() == ["rates", "array"]
    assert opened.ws is not branch.ws
    opened["rec1/array"].attrs["new"] = 1
    assert opened.ws.get_info("rec1", "array")["shape"] == [300, 200]


def test_a_with_block_closes(path):
    with labtree.open_workspace(path) as tree:
        assert tree.ws.name == "pilot"
    with pytest.raises(ValueError, match="was closed"):
        tree.ws.get("rec1", "array")


def test_missing_files(tmp_path, path):
    for call in (
        labtree.open_workspace,
        labtree.load_workspace,
        lambda p: labtree.load_item(p, "a", "b"),
    ):
        with pytest.raises(
            FileNotFoundError, match=r"no workspace file .*nope.h5.*has study.h5"
        ):
            call(tmp_path / "nope")
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing, and"):
            call(tmp_path / "missing" / "study.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"PK\x03\x04zip", "is a zip archive"),
        (b'{"workspace_id": 1}', "is a JSON file; the workspace is the .h5 file beside it"),
        (b"hello, world", "is not a workspace: it begins with"),
    ],
)
def test_files_that_are_no_hdf5(tmp_path, content, message):
    file = tmp_path / "x.h5"
    file.write_bytes(content)
    for call in (
        labtree.open_workspace,
        labtree.load_workspace,
        lambda p: labtree.load_item(p, "a", "b"),
    ):
        with pytest.raises(labtree.FormatError, match=message) as error:
            call(file)
        assert str(file) in str(error.value)


def test_foreign_hdf5_files(tmp_path):
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(tmp_path / "plain.h5", engine="h5netcdf")
    with pytest.raises(
        labtree.FormatError,
        match=r"a netCDF-4 or HDF5 file, not a workspace of labtree; write labtree.open\(",
    ):
        labtree.open_workspace(tmp_path / "plain")
    import h5py

    with h5py.File(tmp_path / "spikelab.h5", "w") as file:
        file.attrs["__workspace_id__"] = "x"
    for call in (labtree.open_workspace, lambda p: labtree.load_item(p, "a", "b")):
        with pytest.raises(
            labtree.FormatError,
            match=r"a workspace of SpikeLab, not .*; write labtree.import_spikelab\(",
        ):
            call(tmp_path / "spikelab")


def test_a_newer_version(path):
    data = bytearray(path.read_bytes())
    data[end_of_hdf5(bytes(data)) + 8] = 99
    path.write_bytes(data)
    for call in (
        labtree.open_workspace,
        labtree.load_workspace,
        lambda p: labtree.load_item(p, "rec1", "array"),
    ):
        with pytest.raises(labtree.FormatError, match=r"format version 99; .*reads version 2"):
            call(path)


def test_a_file_that_is_cut_short_is_an_error_or_right(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.h5"
    for size in sorted({*range(0, len(whole), 9973), len(whole) - 1, len(whole) - 60}):
        cut.write_bytes(whole[:size])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DamageWarning)
                loaded = labtree.load_workspace(cut)
        except (labtree.FormatError, DamageWarning):
            continue
        assert_same(loaded.ws.get("rec1", "array"), ARRAY)
        assert loaded.ws.list_keys() == {"rec1": ["rates", "array"], "rec2": ["frame", "dict"]}


def test_bytes_that_flip_are_an_error_or_do_no_harm(path, tmp_path):
    """Either the value or an error of ours: all data are under a checksum."""
    whole = path.read_bytes()
    bad = tmp_path / "bad.h5"
    errors = 0
    for at in range(3, len(whole), len(whole) // 150):
        data = bytearray(whole)
        data[at] ^= 0x55
        bad.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DamageWarning)
                loaded = labtree.load_workspace(bad)
            values = {k: loaded.ws.get(*k) for k in (("rec1", "array"), ("rec1", "rates"))}
        except (labtree.FormatError, DamageWarning):
            errors += 1
            continue
        assert_same(values["rec1", "array"], ARRAY)
        assert values["rec1", "rates"].identical(RATES)
    assert errors > 50


def test_loading_a_workspace_lets_go_of_the_file(path):
    tree = labtree.load_workspace(path)
    assert not tree.ws.is_lazy
    assert tree.ws.path == path
    path.unlink()
    assert_same(tree.ws.get("rec1", "array"), ARRAY)
    assert_same(tree.ws.get("rec2", "frame"), FRAME)
    tree.ws.close()
    assert_same(tree.ws.get("rec1", "array"), ARRAY)
    assert tree.ws.save() == path
