"""Trees in zarr stores: exact, all or nothing, readable by others, and hostile ones refused."""

import asyncio
import base64
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.errors import ConfigurationError, DamageWarning, FormatError, WorkspaceError
from labtree.storage.arrays import stored_array
from labtree.storage.hdf5_end import crc32c
from labtree.storage.verifying import accept_values
from labtree.storage.zarr.locations import Folder, is_zarr, location_of
from labtree.storage.zarr.metadata import file_names, shown_attributes
from labtree.storage.zarr.trees import (
    open_zarr_tree,
    read_node,
    save_zarr_tree,
)
from labtree.storage.zarr.verifying import verify_store
from support.exactness import assert_same
from support.examples import examples
from support.kills import die_at_call

ARRAYS = {
    "f8": np.linspace(0, 1, 12).reshape(3, 4),
    "nan": np.array([np.nan, -0.0, np.inf, -np.inf]),
    "payload": np.array([0x7FF8000000000123], np.uint64).view("f8"),
    "i1": np.arange(-3, 3, dtype="i1"),
    "u8": np.array([0, 2**64 - 1], "u8"),
    "big_f4": np.arange(5, dtype=">f4"),
    "big_c16": np.arange(5, dtype=">c16"),
    "f2": np.arange(4, dtype="f2"),
    "bool": np.array([[True, False], [False, True]]),
    "bits": np.array([0, 1, 2, 255], np.uint8).view(bool),
    "c8": np.array([1 + 2j, complex(np.nan, -0.0)], "c8"),
    "c16": np.array([[1 + 2j]]),
    "M_ns": np.array(["2020-01-01T00:00:00.123456789", "NaT"], "M8[ns]"),
    "M_D": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "m_us": np.array([1, 2, "NaT"], "m8[us]"),
    "U": np.array([["aé", "b"], ["", "x\0y"]]),
    "U_ascii": np.array(["abc", "d"]),
    "U_wide": np.array(["a"], "U50"),
    "U_big": np.array(["aé"], ">U3"),
    "U_lone": np.array(["\ud800"]),
    "U_scalar": np.array("héé"),
    "U_none": np.zeros((0, 2), "U3"),
    "S": np.array([b"ab", b"c\xff"]),
    "O_texts": np.array(["aaa", "é" * 3, "", "🧠"], dtype=object),
    "O_mixed": np.array(["a", None, 1.5, (1, 2)], dtype=object),
    "O_joined": np.array(["x" * 100_000, "y"], dtype=object),
    "T": np.array(["a", "bb"], dtype=np.dtypes.StringDType()),
    "longdouble": np.arange(3, dtype="g") / 3,
    "clongdouble": np.arange(3, dtype="G") / 3,
    "structured": np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i2"), ("b", "f8")]),
    "V": np.frombuffer(b"abcdef", "V3"),
    "S0": np.zeros(2, "S0"),
    "scalar": np.array(3.5),
    "big_scalar": np.array(3.5, ">f4"),
    "complex_scalar": np.array(1 + 2j, ">c8"),
    "empty": np.zeros((0, 3)),
    "no_columns": np.zeros((3, 0), "i4"),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(20)[::3],
}


def everything():
    root = xr.Dataset(attrs={"version": 3, "note": "a\nb 🧠", "nested": {"a": [1, None, True]}})
    arrays = {
        f"/arrays/{name}": xr.Dataset({"data": ([f"d{i}" for i in range(array.ndim)], array)})
        for name, array in ARRAYS.items()
    }
    levels = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["p", "q"])
    coordinates = {
        "/coords/plain": xr.Dataset(
            {"v": (("t", "u"), np.arange(6.0).reshape(2, 3), {"units": "mV"})},
            coords={
                "t": ("t", [0.5, 1.0], {"units": "s", "long": (1, 2)}),
                "u": ["a", "b", "c"],
                "label": ("u", [1, 2, 3]),
                "at": 5,
            },
            attrs={"k": np.float32(1.5), "z": float("nan"), 1: 2, "coordinates": "mine"},
        ),
        "/coords/bare": xr.Dataset(coords=xr.Coordinates({"t": ("t", [3, 1])}, indexes={})),
        "/coords/multi": xr.Dataset({"v": ("x", [1, 2])}).assign_coords(
            xr.Coordinates.from_pandas_multiindex(levels, "x")
        ),
        "/coords/times": xr.Dataset(
            {"v": ("time", [1.0, 2.0])},
            coords={"time": np.array(["2020-01-01", "2021-01-01"], "M8[s]")},
        ),
    }
    names = {
        f"/names/{name}": xr.Dataset({"data": ("x", [number])})
        for number, name in enumerate(
            ["zarr.json", "c", "a b", "é🧠", "X", "x", "__x", "q?*<>", "50%", "CON", "n" * 255]
        )
    }
    deep = {"/deep/a/b/c": xr.Dataset({"x": 1}), "/deep/empty": xr.Dataset()}
    return xr.DataTree.from_dict({"/": root, **arrays, **coordinates, **names, **deep})


def test_everything_comes_back_to_the_last_bit(tmp_path):
    tree = everything()
    save_zarr_tree(tree, tmp_path / "a.zarr")
    assert_same(open_zarr_tree(tmp_path / "a.zarr"), tree)
    again = open_zarr_tree(str(tmp_path / "a.zarr"))
    save_zarr_tree(again, tmp_path / "b.zarr")  # copied raw
    assert_same(open_zarr_tree(tmp_path / "b.zarr"), tree)


def test_a_tree_can_replace_the_store_that_it_reads_from(tmp_path):
    tree = everything()
    save_zarr_tree(tree, tmp_path / "a.zarr")
    lazy = open_zarr_tree(tmp_path / "a.zarr")
    save_zarr_tree(lazy, tmp_path / "a.zarr")
    assert_same(lazy, tree)  # it reads the new one from now on
    save_zarr_tree(lazy, tmp_path / "a.zarr")
    assert_same(open_zarr_tree(tmp_path / "a.zarr"), tree)


def test_nothing_else_is_left(tmp_path):
    for number in range(3):
        save_zarr_tree(small(number), tmp_path / "a.zarr")
    names = sorted(entry.name for entry in (tmp_path / "a.zarr").iterdir())
    assert names == [*(f"n{i}" for i in range(6)), "zarr.json"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_arrays_come_back_to_the_last_bit(tmp_path, compression):
    tree = everything()
    tree["zeros"] = xr.DataTree(dataset=xr.Dataset({"x": ("t", np.zeros(100_000))}))
    save_zarr_tree(tree, tmp_path / "a.zarr", compression)
    assert_same(open_zarr_tree(tmp_path / "a.zarr"), tree)
    assert sum(p.stat().st_size for p in (tmp_path / "a.zarr/zeros").rglob("c.*")) < 10_000
    with pytest.raises(ConfigurationError, match="gzip"):
        save_zarr_tree(tree, tmp_path / "b.zarr", "lzma")


def test_large_arrays_lie_in_many_chunks(tmp_path):
    rng = np.random.default_rng(1)
    dataset = xr.Dataset(
        {
            "wide": (("channel", "time"), rng.random((3, 500_001), np.float32)),
            "pairs": (("sample",), rng.random(700_001) + 1j),
            "names": (("n",), rng.integers(0, 10**12, 400_000).astype("U13")),
        }
    )
    tree = xr.DataTree.from_dict({"/a": dataset})
    save_zarr_tree(tree, tmp_path / "a.zarr")
    lazy = open_zarr_tree(tmp_path / "a.zarr")
    assert_same(lazy.copy(), tree)
    part = lazy["a"].to_dataset().isel(time=slice(400_000, 499_999, 7), channel=[2, 0])
    assert_same(part.load(), dataset.isel(time=slice(400_000, 499_999, 7), channel=[2, 0]))
    sizes = [path.stat().st_size for path in tmp_path.rglob("c.*")]
    assert len(sizes) > 6
    assert max(sizes) < 12 << 20


def test_dask_arrays_are_written_block_by_block(tmp_path):
    da = pytest.importorskip("dask.array")
    values = np.random.default_rng(2).random((50, 40))
    tree = xr.DataTree.from_dict(
        {
            "/regular": xr.Dataset({"x": (("a", "b"), da.from_array(values, chunks=(20, 15)))}),
            "/odd": xr.Dataset(
                {"x": (("a", "b"), da.from_array(values, chunks=((10, 30, 10), (40,))))}
            ),
            "/complex": xr.Dataset({"x": ("a", da.from_array(values[:, 0] + 1j, chunks=20))}),
            "/words": xr.Dataset(
                {"x": ("a", da.from_array(values[:, 0].astype("U6"), chunks=20))}
            ),
            "/empty": xr.Dataset({"x": (("a", "b"), da.zeros((0, 3), chunks=(1, 2)))}),
        }
    )
    save_zarr_tree(tree, tmp_path / "a.zarr")
    assert_same(open_zarr_tree(tmp_path / "a.zarr"), tree.compute())
    (chunk,) = tmp_path.glob("a.zarr/regular/x/c.0.0")
    assert chunk.stat().st_size == 20 * 15 * 8 + 4  # and its sum


# What others read


def test_xarray_opens_every_node_without_labtree(tmp_path):
    save_zarr_tree(everything(), tmp_path / "a.zarr")
    plain = xr.open_datatree(tmp_path / "a.zarr", engine="zarr", decode_timedelta=True)
    expected = everything()
    assert set(plain.children) == set(expected.children)
    for node in plain.subtree:
        node.to_dataset().load()
    arrays = plain["arrays"]
    for name in ("f8", "i1", "u8", "big_f4", "f2", "bool", "c8", "c16", "scalar", "M_ns"):
        found = arrays[name]["data"].values
        assert np.array_equal(found, ARRAYS[name], equal_nan=ARRAYS[name].dtype.kind in "fcM")
    for name in ("U", "U_ascii", "U_scalar", "O_texts", "T"):
        assert arrays[name]["data"].values.tolist() == ARRAYS[name].tolist()
    ordinary = plain["coords/plain"].to_dataset()
    assert list(ordinary.indexes) == ["t", "u"]
    assert ordinary["v"].attrs == {"units": "mV"}
    dask = pytest.importorskip("dask")
    assert dask
    one = xr.open_zarr(tmp_path / "a.zarr", group="arrays/f8")
    assert np.array_equal(one["data"].values, ARRAYS["f8"])


def test_zarr_itself_reads_it_consolidated_once(tmp_path):
    zarr = pytest.importorskip("zarr")
    save_zarr_tree(everything(), tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_consolidated(tmp_path / "a.zarr", mode="r")
    array = root["coords/plain/v"]
    assert array.metadata.dimension_names == ("t", "u")
    assert array[:].tolist() == [[0, 1, 2], [3, 4, 5]]
    marker = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())
    metadata = marker["consolidated_metadata"]["metadata"]
    for path, expected in metadata.items():
        alone = json.loads((tmp_path / "a.zarr" / path / "zarr.json").read_bytes())
        assert {**expected, **alone} == expected


def test_attributes_that_json_has_stand_as_they_are():
    attrs = {"a": 1, "b": [1, {"c": None}], "d": "é🧠", "e": 2**70}
    assert shown_attributes(attrs, attrs) == attrs
    odd = {"a": np.float32(0.5), "b": (1, 2), "c": {1}, "d": float("inf"), 1: 2}
    shown = shown_attributes(odd, "exact")
    assert shown == {"a": 0.5, "b": [1, 2], "labtree_attrs": "exact"}
    assert shown_attributes({"_FillValue": 0.0}, "exact") == {"labtree_attrs": "exact"}


def test_names_are_told_apart_where_file_systems_do_not():
    names = file_names(["Rate", "rate", "RATE", "a/b", "a:b", "zarr.json", "c", "C", "x."])
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(folded)
    assert "zarr.json" not in folded
    for name in names.values():
        assert not set(name) & set('<>:"\\|?*/')
        assert not name.endswith(".")
    long = file_names(["é" * 127 + "a", "é" * 127 + "b"])
    assert len(set(long.values())) == 2
    assert all(len(name.encode()) <= 255 for name in long.values())


# All or nothing


def small(number):
    return xr.DataTree.from_dict(
        {f"/n{i}": xr.Dataset({"x": ("t", np.full(50, number))}) for i in range(6)}
    )


def version_of(path):
    tree = open_zarr_tree(path)
    numbers = {int(value) for node in tree.leaves for value in node["x"].values}
    assert len(tree.children) == 6
    (number,) = numbers
    return number


def test_a_failing_item_leaves_the_old_store_and_no_rest(tmp_path):
    save_zarr_tree(small(1), tmp_path / "a.zarr")
    before = sorted(tmp_path.rglob("*"))
    bad = small(2)
    bad["n5"].attrs["odd"] = object()
    with pytest.raises(TypeError, match=r"n5.*odd.*object") as caught:
        save_zarr_tree(bad, tmp_path / "a.zarr")
    assert "while writing /n5" in caught.value.__notes__[0]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(TypeError):
        save_zarr_tree(bad, tmp_path / "new.zarr")
    assert not (tmp_path / "new.zarr").exists()


def test_a_full_disk_leaves_the_old_store(tmp_path, monkeypatch):
    save_zarr_tree(small(1), tmp_path / "a.zarr")
    from zarr.storage import LocalStore

    write = LocalStore.set
    for allowed in (0, 1, 10, 18):
        left = [allowed]

        async def limited(self, key, value, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            await write(self, key, value)

        monkeypatch.setattr(LocalStore, "set", limited)
        with pytest.raises(OSError, match="No space left"):
            save_zarr_tree(small(2), tmp_path / "a.zarr")
        monkeypatch.undo()
        assert version_of(tmp_path / "a.zarr") == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(0), path)
    kept, at, code = 0, 1, 1
    while code != 0:  # until the child ends by itself, as it was given more calls than it makes
        child = os.fork()
        if child == 0:
            try:
                die_at_call(at)
                save_zarr_tree(small(at), path)
                sys.setprofile(None)
                os._exit(0)
            finally:
                os._exit(2)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        found = version_of(path)
        assert found in (kept, at)
        kept, last, at = found, at, at + 1 + at // 5
    assert kept == last > 30
    save_zarr_tree(small(0), path)  # which removes what the dead left
    assert version_of(path) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def _save(path, number):
    save_zarr_tree(small(number), path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_save_at_once_end_with_one_of_theirs_whole(tmp_path):
    path = tmp_path / "a.zarr"
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
            workers = [context.Process(target=_save, args=(path, i)) for i in range(4)]
            for worker in workers:
                worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert version_of(path) in range(4)
    save_zarr_tree(small(9), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_readers_see_the_old_or_the_new_while_it_is_saved(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(0), path)
    done = threading.Event()
    seen, errors = set(), []

    def read():
        while not done.is_set():
            try:
                opened = open_zarr_tree(path)
                numbers = {int(node["x"].values[0]) for node in opened.leaves}
                assert len(numbers) == 1
                seen.update(numbers)
            except FormatError as error:
                # It was replaced between opening and reading: that is said.
                if "saved again" not in str(error):
                    errors.append(error)
            except BaseException as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 500):  # on a busy machine readers come to it late
        save_zarr_tree(small(number), path)
        if number >= 4 and len(seen) > 1:
            break
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert len(seen) > 1


def test_a_store_of_others_is_not_opened(tmp_path):
    import zarr

    zarr.create_group(tmp_path / "a.zarr", attributes={"mine": 1})
    with pytest.raises(FormatError, match=r"none of labtree.*xarray\.open_datatree"):
        open_zarr_tree(tmp_path / "a.zarr")
    zarr.create_group(tmp_path / "b.zarr", zarr_format=2)
    with pytest.raises(FormatError, match=r"zarr store of version 2.*engine='zarr'"):
        open_zarr_tree(tmp_path / "b.zarr")
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(FormatError, match="is a folder, but no zarr store"):
        open_zarr_tree(tmp_path / "c.zarr")


# What other programs changed


def test_what_others_added_and_changed_is_seen(tmp_path):

    path = tmp_path / "a.zarr"
    tree = everything()
    save_zarr_tree(tree, path)
    group = zarr.open_group(path, mode="a")
    group["coords"].create_array("added", data=np.arange(3), dimension_names=["q"])
    group["coords/plain/v"].attrs["units"] = "uV"
    found = open_zarr_tree(path)
    assert found["coords/added"].values.tolist() == [0, 1, 2]
    assert found["coords/plain/v"].attrs == {"units": "uV"}
    expected = everything()
    expected["coords"]["added"] = ("q", np.arange(3))
    expected["coords/plain/v"].attrs["units"] = "uV"
    found, expected = found.load(), expected.load()
    for node in expected.subtree:
        if "names" not in node.path and node.path != "/coords":
            assert_same(
                found[node.path].to_dataset(inherit=False), node.to_dataset(inherit=False)
            )


def test_without_a_catalogue_the_metadata_tell_all(tmp_path):

    path = tmp_path / "a.zarr"
    save_zarr_tree(everything(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata are no standard yet
        zarr.consolidate_metadata(path)
    root = json.loads((path / "zarr.json").read_bytes())
    assert "labtree_catalogue" not in root["consolidated_metadata"]
    found = open_zarr_tree(path).load()
    for node in everything().subtree:
        same = node.to_dataset(inherit=False).load()
        other = found[node.path].to_dataset(inherit=False)
        assert set(other.variables) == set(same.variables)
        assert list(other.indexes) == list(same.indexes)
        assert_same(dict(other.attrs), dict(same.attrs))
        for name, variable in same.variables.items():
            assert_same(xr.DataArray(other.variables[name]), xr.DataArray(variable))


# What is damaged or hostile


def rewrite(path, change):
    """Change the records of a store as an attacker could, its checksums too."""
    root = json.loads((path / "zarr.json").read_bytes())
    found = root["consolidated_metadata"]["labtree_catalogue"]
    lines = [json.loads(line) for line in found["text"].split("\n")]
    change(lines)
    found["text"] = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    found["crc32c"] = crc32c(found["text"].encode() + base64.b64decode(found["values"]))
    (path / "zarr.json").write_bytes(json.dumps(root).encode())


def column(lines):
    return lines[2]["variables"][0][4][0]


HOSTILE = {
    "out of the folder": lambda lines: column(lines).__setitem__(0, "../../secret"),
    "absolute": lambda lines: column(lines).__setitem__(0, "//etc/passwd"),
    "up": lambda lines: column(lines).__setitem__(0, ".."),
    "object dtype": lambda lines: column(lines).__setitem__(1, "|O"),
    "no dtype": lambda lines: column(lines).__setitem__(1, "zzz"),
    "huge": lambda lines: column(lines).__setitem__(2, [1 << 60]),
    "text for a shape": lambda lines: column(lines).__setitem__(2, "abc"),
    "other type": lambda lines: column(lines).__setitem__(3, "string"),
    "no columns": lambda lines: lines[2]["variables"][0].__setitem__(4, []),
    "no path": lambda lines: lines[2].pop("path"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_stores_are_refused(tmp_path, what):
    path = tmp_path / "a.zarr"
    (tmp_path / "secret").write_bytes(np.zeros(50).tobytes())
    save_zarr_tree(small(1), path)
    rewrite(path, HOSTILE[what])
    try:
        found = open_zarr_tree(path).load()
    except FormatError:
        return
    # What the catalogue lists is not there: the metadata were read instead.
    assert_same(found, small(1))


def test_an_older_or_newer_version_is_named(tmp_path):
    path = tmp_path / "a.zarr/zarr.json"
    save_zarr_tree(small(1), tmp_path / "a.zarr")
    root = json.loads(path.read_bytes())
    root["attributes"]["labtree_file_format"] = 7
    path.write_bytes(json.dumps(root).encode())
    with pytest.raises(FormatError, match="version 7"):
        open_zarr_tree(tmp_path / "a.zarr")
    root["attributes"] = {"labtree": {"generation": "saved-1", "version": 1}}
    path.write_bytes(json.dumps(root).encode())
    with pytest.raises(FormatError, match="version 1"):
        open_zarr_tree(tmp_path / "a.zarr")


def test_a_damaged_catalogue_is_said_and_costs_nothing(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(everything(), path)
    root = json.loads((path / "zarr.json").read_bytes())
    catalogue = root["consolidated_metadata"]["labtree_catalogue"]
    whole = catalogue["text"]
    for bad in (whole[:-1], whole[:100] + "?" + whole[101:], "", None, whole + "x"):
        catalogue["text"] = bad
        (path / "zarr.json").write_bytes(json.dumps(root).encode())
        with pytest.warns(DamageWarning, match="the catalogue in zarr.json is damaged"):
            found = open_zarr_tree(path)
        assert_same(found.load(), everything())


def test_a_missing_or_damaged_chunk_is_an_error(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(1), path)
    chunk = path / "n3/x/c.0"
    data = chunk.read_bytes()
    for at in range(0, len(data), 37):
        chunk.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(FormatError, match=r"n3/x.* is damaged.*load_item"):
            open_zarr_tree(path)["n3/x"][3].load()
    for cut in (0, 3, len(data) - 8):
        chunk.write_bytes(data[:cut])
        with pytest.raises(FormatError, match=r"n3/x.*damaged"):
            open_zarr_tree(path)["n3/x"].load()
    chunk.unlink()
    with pytest.raises(FormatError, match=r"n3/x.*missing"):
        open_zarr_tree(path)["n3/x"][3].load()
    assert open_zarr_tree(path)["n4/x"].values.tolist() == [1] * 50


def test_verify_counts_what_it_could_check_and_names_what_is_wrong(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(1), path)
    count = len(list(path.glob("*/*/zarr.json")))
    assert verify_store(path) == ([], count, 0)
    zarr.open_group(path)["n3"].create_array("other", data=np.arange(3))
    assert verify_store(path) == ([], count, 1)
    chunk = path / "n3/x/c.0"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    (path / "n4/x/c.0").unlink()
    problems = verify_store(path).problems
    assert len(problems) == 2
    assert f"{path}: n3/x: " in problems[0]
    assert f"{path}: n4/x: 1 of 1 chunks are not there" in problems[1]
    with pytest.raises(FormatError, match="nothing to accept"):
        accept_values(path, "n3")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"attributes":3}', b'{"attributes":{}}'])
def test_a_root_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/zarr.json").write_bytes(text)
    with pytest.raises(FormatError, match=r"none of labtree|is damaged"):
        open_zarr_tree(tmp_path / "a.zarr")


def test_a_store_that_was_saved_anew_is_opened_again(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(1), path)
    lazy = open_zarr_tree(path)
    lazy["n0"].load()
    save_zarr_tree(small(2), path)
    assert lazy["n0/x"].values.tolist() == [1] * 50
    with pytest.raises(FormatError, match=r"saved again.*open it again"):
        lazy["n1"].load()


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no zarr store .*none\.zarr"):
        open_zarr_tree(tmp_path / "none.zarr")
    with pytest.raises(FileNotFoundError, match="mkdir"):
        save_zarr_tree(small(1), tmp_path / "no/a.zarr")
    (tmp_path / "file.zarr").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="is a file"):
        save_zarr_tree(small(1), tmp_path / "file.zarr")
    with pytest.raises(FileNotFoundError):
        open_zarr_tree(tmp_path / "file.zarr")


@settings(max_examples=examples(80), deadline=None)
@given(st.data())
def test_any_part_is_what_numpy_gives(tmp_path_factory, data):
    name = data.draw(st.sampled_from(list(PARTS)))
    stored = stored_array(parts(tmp_path_factory)[name]["v"].variable)
    expected = PARTS[name]
    dtype = expected.dtype
    key = tuple(data.draw(keys(size)) for size in expected.shape)
    for axis, part in reversed(list(enumerate(key))):
        expected = expected[(slice(None),) * axis + (part,)]
    found = stored.read(key)
    assert found.dtype == dtype
    assert np.shape(found) == np.shape(expected)
    assert np.array_equal(found, expected)


PARTS = {
    "numbers": np.arange(7 * 5 * 3, dtype=">i4").reshape(7, 5, 3),
    "complex": np.arange(20).reshape(4, 5) * (1 + 2j),
    "words": np.array([[f"é{i}" * (i % 3) for i in range(4)]] * 3),
    "bytes": np.array([b"abc", b"d", b"", b"ef\xff"]),
    "flags": np.arange(9) % 2 == 0,
}


def parts(factory, made=[]):  # noqa: B006, one store for all examples
    if not made:
        path = factory.mktemp("parts") / "a.zarr"
        tree = {
            f"/{name}": xr.Dataset({"v": ([f"d{i}" for i in range(array.ndim)], array)})
            for name, array in PARTS.items()
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("labtree.storage.zarr.writing.chunk_shape", small_chunks)
            save_zarr_tree(xr.DataTree.from_dict(tree), path)
        made.append(open_zarr_tree(path))
    return made[0]


def small_chunks(shape, itemsize):
    return tuple(min(2, max(1, size)) for size in shape)


def keys(size):
    """Ints, slices of any step, and lists with repeats and negative numbers."""
    some = st.integers(-size, size - 1)
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.integers(1, 3) | st.integers(-3, -1)
    lists = st.lists(some, max_size=5).map(lambda items: np.array(items, np.int64))
    return st.one_of(some, st.builds(slice, bound, bound, step), lists)


def test_one_node_reads_nothing_of_the_others(tmp_path):
    tree = xr.DataTree.from_dict(
        {f"/r{i}": xr.Dataset({"x": ("t", np.full(9, i))}) for i in range(9)}
    )
    save_zarr_tree(tree, tmp_path / "a.zarr")
    for other in (tmp_path / "a.zarr").glob("r[!3]/x/c.0"):
        other.write_bytes(b"damaged")
    place = Folder(tmp_path / "a.zarr")
    assert_same(read_node(place, ["r3"]).load(), tree["r3"].to_dataset())
    assert read_node(place, ["r99"]) is None


@pytest.mark.parametrize("nested", [False, True])
def test_one_node_of_any_name(tmp_path, nested):
    names = ["a", "A", "a%", 'b"', "b\\", '"],', "ü", "zarr.json", ".c", "a b", '\n{"path":["']
    above = "/x" if nested else ""
    tree = xr.DataTree.from_dict({above: xr.Dataset(attrs={"labtree_catalogue": {"text": 1}})})
    for i, name in enumerate(names):
        child = xr.DataTree(xr.Dataset({"x": i}, attrs={"name": name}))
        tree[above or "/"].children = {**tree[above or "/"].children, name: child}
    save_zarr_tree(tree, tmp_path / "a.zarr")
    place = Folder(tmp_path / "a.zarr")
    for name in names:
        found = read_node(place, ["x", name] if nested else [name])
        assert_same(found.load(), tree[above or "/"].children[name].to_dataset())


def test_one_node_is_left_to_the_whole_where_others_changed_it(tmp_path):
    tree = xr.DataTree.from_dict({"/a": xr.Dataset({"x": ("t", [1, 2])}), "/b": xr.Dataset()})
    path = tmp_path / "a.zarr"

    def one(change):
        save_zarr_tree(tree, path)
        assert read_node(Folder(path), ["a"]) is not None
        change()
        return read_node(Folder(path), ["a"])

    def consolidate():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other programs may not know it
            zarr.consolidate_metadata(path)

    def edit_root(old, new):
        content = (path / "zarr.json").read_text()
        assert old in content
        (path / "zarr.json").write_text(content.replace(old, new, 1))

    assert one(lambda: shutil.rmtree(path / "a")) is None
    assert one(lambda: shutil.rmtree(path / "a" / "x")) is None
    assert one(lambda: zarr.open_group(path / "a").create_group("more")) is None
    assert one(consolidate) is None
    assert one(lambda: edit_root('"shape":[2]', '"shape":[3]')) is None
    assert one(lambda: edit_root('"crc32c":', '"crc32c":1')) is None
    assert one(lambda: edit_root('{"zarr_format"', '{"x":1,"zarr_format"')) is not None
    assert one(lambda: shutil.rmtree(path / "b")) is not None


# Names


def test_what_is_a_zarr_store():
    for where in ("a.zarr", "a.zarr/", "s3://b/x", "memory://x", "https://host/x.zarr"):
        assert is_zarr(where)
    for where in ("a", "a.h5", "C:\\x.h5", None, 3, b"a.zarr"):
        assert not is_zarr(where)
    with pytest.raises(WorkspaceError, match=r"s3://b/x"):
        location_of("s3://b/x.h5")


def test_names_that_windows_reserves_are_encoded():
    for name in ("con", "NUL", "com1", "LPT9.txt", "aux.zarr"):
        (encoded,) = file_names([name]).values()
        assert encoded == f"%{ord(name[0]):02X}{name[1:]}"
    for name in ("console", "nully", "com", "com10"):
        assert file_names([name]) == {name: name}


def test_a_chunk_that_damaged_metadata_look_for_elsewhere_is_no_fill_value(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(xr.DataTree.from_dict({"/a": xr.Dataset({"v": ("x", [1.0, 2.0])})}), path)
    metadata = path / "a/v/zarr.json"
    text = metadata.read_text()
    assert text.count('"separator":"."') == 1
    metadata.write_text(text.replace('"separator":"."', '"separator":"/"'))
    with open_zarr_tree(path) as tree, pytest.raises(FormatError, match=r"a/v/c/0 is missing"):
        tree["a/v"].load()


def test_an_interrupt_while_zarr_writes_leaves_nothing_behind(tmp_path, monkeypatch):
    """zarr's own thread goes on after it, and must not make the folder again."""
    gone, done = threading.Event(), threading.Event()
    put = zarr.storage.LocalStore.set

    async def slow(self, key, value):
        if "zarr.json" in key:
            return await put(self, key, value)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.to_thread(gone.wait, 0.3)  # until the save is over, if it does not wait
        try:
            return await put(self, key, value)
        finally:
            done.set()

    monkeypatch.setattr(zarr.storage.LocalStore, "set", slow)
    tree = xr.DataTree(xr.Dataset({"x": ("t", np.arange(5.0))}))
    with pytest.raises(KeyboardInterrupt):
        save_zarr_tree(tree, tmp_path / "t.zarr")
    gone.set()
    assert done.wait(30)
    assert not list(tmp_path.iterdir())
