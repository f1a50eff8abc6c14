"""Trees in zarr stores: exact, all or nothing, readable by others, and hostile ones refused."""

import json
import multiprocessing
import os
import signal
import threading
import time
import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labtree.errors import FormatError, WorkspaceError
from labtree.storage import zarr_places, zarr_trees, zarr_writing
from labtree.storage.zarr_metadata import file_names, shown_attributes
from labtree.storage.zarr_places import FolderPlace, is_place, place_of
from labtree.storage.zarr_trees import open_place, open_zarr_tree, read_node, save_zarr_tree
from support.exactness import assert_same

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
    assert_same(lazy, tree)
    save_zarr_tree(lazy, tmp_path / "a.zarr")
    assert_same(open_zarr_tree(tmp_path / "a.zarr"), tree)


def test_one_generation_is_left_and_nothing_else(tmp_path):
    for number in range(3):
        save_zarr_tree(small(number), tmp_path / "a.zarr")
    names = sorted(entry.name for entry in (tmp_path / "a.zarr").iterdir())
    assert len(names) == 2
    assert zarr_places.is_generation(names[0])
    assert names[1] == "zarr.json"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


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
    (chunk,) = tmp_path.glob("a.zarr/*/regular/x/c.0.0")
    assert chunk.stat().st_size == 20 * 15 * 8


# What others read


def plain_tree(path):
    tree = xr.open_datatree(path, engine="zarr")
    (generation,) = tree.children
    return tree[generation], generation


def test_xarray_opens_every_node_without_labtree(tmp_path):
    save_zarr_tree(everything(), tmp_path / "a.zarr")
    plain, generation = plain_tree(tmp_path / "a.zarr")
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
    one = xr.open_zarr(tmp_path / "a.zarr", group=f"{generation}/arrays/f8")
    assert np.array_equal(one["data"].values, ARRAYS["f8"])


def test_zarr_itself_reads_it_consolidated_once(tmp_path):
    zarr = pytest.importorskip("zarr")
    save_zarr_tree(everything(), tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_consolidated(tmp_path / "a.zarr", mode="r")
    (name,) = root.group_keys()
    array = root[f"{name}/coords/plain/v"]
    assert array.metadata.dimension_names == ("t", "u")
    assert array[:].tolist() == [[0, 1, 2], [3, 4, 5]]
    marker = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())
    metadata = marker["consolidated_metadata"]["metadata"]
    for path, expected in metadata.items():
        assert json.loads((tmp_path / "a.zarr" / path / "zarr.json").read_bytes()) == expected


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
    assert not {"zarr.json", "c"} & set(folded)
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
    write = FolderPlace.write
    for allowed in (0, 1, 10, 19):
        left = [allowed]
        lock = threading.Lock()

        def limited(self, key, data, left=left, lock=lock):
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(28, "No space left on device")
            write(self, key, data)

        monkeypatch.setattr(FolderPlace, "write", limited)
        with pytest.raises(OSError, match="No space left"):
            save_zarr_tree(small(2), tmp_path / "a.zarr")
        monkeypatch.undo()
        assert version_of(tmp_path / "a.zarr") == 1
        assert len(list((tmp_path / "a.zarr").iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(0), path)
    rng = np.random.default_rng(3)
    start = time.perf_counter()
    save_zarr_tree(small(0), path)
    usual = time.perf_counter() - start
    seen = set()
    for number in range(1, 21):
        child = os.fork()
        if child == 0:
            try:
                save_zarr_tree(small(number), path)
            finally:
                os._exit(0)
        if number % 5:  # each fifth is left alone
            time.sleep(rng.uniform(0, 1.3 * usual))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = version_of(path)
        assert found == number or found == max(seen, default=0)
        seen.add(found)
    save_zarr_tree(small(99), path)  # which removes what the dead left
    assert version_of(path) == 99
    assert len(list(path.iterdir())) == 2
    assert len(seen) > 1


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
    assert len(list(path.iterdir())) == 2


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
                if "saved anew" not in str(error):
                    errors.append(error)
            except BaseException as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 5):
        save_zarr_tree(small(number), path)
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert len(seen) > 1


def test_a_store_of_others_is_not_replaced(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.create_group(tmp_path / "a.zarr", attributes={"mine": 1})
    before = (tmp_path / "a.zarr/zarr.json").read_bytes()
    with pytest.raises(WorkspaceError, match="no workspace of labtree"):
        save_zarr_tree(small(1), tmp_path / "a.zarr")
    assert (tmp_path / "a.zarr/zarr.json").read_bytes() == before
    with pytest.raises(FormatError, match="none of labtree"):
        open_zarr_tree(tmp_path / "a.zarr")


def test_a_rest_of_a_generation_that_is_being_written_is_left_alone(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(1), path)
    other = zarr_places.new_generation()
    place = FolderPlace(path)
    with place.writing(other):
        place.write(f"{other}/zarr.json", b"{}")
        save_zarr_tree(small(2), path)
        assert (path / other / "zarr.json").exists()
    save_zarr_tree(small(3), path)
    assert not (path / other).exists()


# What is damaged or hostile


def rewrite(path, change):
    """Change the records of a store as an attacker could, its checksums too."""
    marker = json.loads((path / "zarr.json").read_bytes())
    header = marker["attributes"]["labtree"]
    catalogue = path / header["generation"] / "labtree.catalogue"
    data = catalogue.read_bytes()
    size = header["text"][0]
    lines = [json.loads(line) for line in data[:size].split(b"\n")]
    change(header, lines)
    text = b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines)
    header["text"] = [len(text), zlib.crc32(text)]
    catalogue.write_bytes(text + data[size:])
    (path / "zarr.json").write_bytes(json.dumps(marker).encode())


def column(lines):
    return lines[2]["variables"][0][4][0]


HOSTILE = {
    "out of the folder": lambda header, lines: column(lines).__setitem__(0, "../../secret"),
    "absolute": lambda header, lines: column(lines).__setitem__(0, "//etc/passwd"),
    "up": lambda header, lines: column(lines).__setitem__(0, ".."),
    "backslash": lambda header, lines: column(lines).__setitem__(0, "..\\secret"),
    "object dtype": lambda header, lines: column(lines).__setitem__(1, "|O"),
    "no dtype": lambda header, lines: column(lines).__setitem__(1, "zzz"),
    "other chunks": lambda header, lines: column(lines).__setitem__(3, [7]),
    "no chunks": lambda header, lines: column(lines).__setitem__(3, [0]),
    "huge": lambda header, lines: column(lines).__setitem__(2, [1 << 60]),
    "text for a shape": lambda header, lines: column(lines).__setitem__(2, "abc"),
    "no columns": lambda header, lines: lines[2]["variables"][0].__setitem__(4, []),
    "no path": lambda header, lines: lines[2].pop("path"),
    "orphan": lambda header, lines: lines[2].__setitem__("path", ["x", "y"]),
    "generation": lambda header, lines: header.__setitem__("generation", "../other"),
    "no generation": lambda header, lines: header.pop("generation"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_stores_are_refused(tmp_path, what):
    path = tmp_path / "a.zarr"
    (tmp_path / "secret").write_bytes(np.zeros(50).tobytes())
    save_zarr_tree(small(1), path)
    rewrite(path, HOSTILE[what])
    with pytest.raises(FormatError):
        open_zarr_tree(path).load()


def test_a_newer_version_is_named(tmp_path):
    save_zarr_tree(small(1), tmp_path / "a.zarr")
    rewrite(tmp_path / "a.zarr", lambda header, lines: header.__setitem__("version", 7))
    with pytest.raises(FormatError, match=r"version 7.*up to version 1.*pip install"):
        open_zarr_tree(tmp_path / "a.zarr")


def test_a_missing_or_damaged_catalogue_is_an_error(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(1), path)
    (catalogue,) = path.glob("*/labtree.catalogue")
    data = catalogue.read_bytes()
    for bad in (data[:-1], data[:100] + b"?" + data[101:], b""):
        catalogue.write_bytes(bad)
        with pytest.raises(FormatError, match=r"damaged.*open_datatree"):
            open_zarr_tree(path)
    catalogue.unlink()
    with pytest.raises(FormatError, match="missing"):
        open_zarr_tree(path)


def test_a_missing_or_damaged_chunk_is_an_error(tmp_path):
    path = tmp_path / "a.zarr"
    save_zarr_tree(small(1), path)
    chunk = next(path.glob("*/n3/x/c.0"))
    data = chunk.read_bytes()
    chunk.write_bytes(b"\7" + data[1:])
    tree = open_zarr_tree(path)
    with pytest.raises(FormatError, match=r"n3/x.*damaged"):
        tree["n3/x"].load()
    chunk.write_bytes(data[:-8])
    with pytest.raises(FormatError, match=r"n3/x.*cut short"):
        tree["n3/x"].load()
    chunk.unlink()
    with pytest.raises(FormatError, match=r"n3/x.*missing"):
        tree["n3/x"][3].load()
    assert tree["n4/x"].values.tolist() == [1] * 50


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"attributes":3}', b'{"attributes":{}}'])
def test_a_marker_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/zarr.json").write_bytes(text)
    with pytest.raises(FormatError, match="none of labtree"):
        open_zarr_tree(tmp_path / "a.zarr")


def test_a_marker_that_zarr_wrote_anew_still_counts(tmp_path):
    zarr = pytest.importorskip("zarr")
    save_zarr_tree(small(1), tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr").attrs["mine"] = "x" * 10_000
    assert version_of(tmp_path / "a.zarr") == 1


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


# What it costs


class Counted(FolderPlace):
    def __init__(self, path):
        super().__init__(path)
        self.reads = []

    def read(self, key, start=0, size=None):
        self.reads.append(key)
        return super().read(key, start, size)


def test_opening_is_two_reads_however_much_is_in_it(tmp_path):
    for count in (1, 50):
        tree = xr.DataTree.from_dict(
            {
                f"/r{i}": xr.Dataset({"x": ("t", np.zeros(9))}, coords={"t": np.arange(9.0)})
                for i in range(count)
            }
        )
        save_zarr_tree(tree, tmp_path / f"{count}.zarr")
        place = Counted(tmp_path / f"{count}.zarr")
        opened = open_place(place)
        zarr_trees.read_nodes(opened)
        assert len(place.reads) == 2


def test_one_node_reads_nothing_of_the_others(tmp_path):
    tree = xr.DataTree.from_dict(
        {
            f"/r{i}": xr.Dataset(
                {"x": ("t", np.full(9, i))},
                coords={"t": np.arange(9.0) + i, "u": ["a", f"é{i}"]},
            )
            for i in range(9)
        }
    )
    save_zarr_tree(tree, tmp_path / "a.zarr")
    place = Counted(tmp_path / "a.zarr")
    opened = open_place(place, values=False)
    dataset = read_node(opened, ["r3"])
    assert_same(dataset.load(), tree["r3"].to_dataset())
    assert len(place.reads) == 4
    assert sum("/r" in key for key in place.reads) == 1
    assert read_node(opened, ["r99"]) is None
    (catalogue,) = (tmp_path / "a.zarr").glob("*/labtree.catalogue")
    data = catalogue.read_bytes()
    catalogue.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FormatError, match="damaged"):
        read_node(opened, ["r8"])


def test_memory_stays_a_little_ahead_of_the_disk(tmp_path, monkeypatch):
    under_way, most = [0], [0]
    lock = threading.Lock()
    put = zarr_writing._put_block

    def slow(place, key, block, shape, form):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.001)
        try:
            return put(place, key, block, shape, form)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(zarr_writing, "_put_block", slow)
    save_zarr_tree(small(1), tmp_path / "a.zarr")
    assert 1 <= most[0] <= FolderPlace.workers


# Places


def test_what_is_a_place():
    for where in ("a.zarr", "a.zarr/", "s3://b/x", "memory://x", "https://host/x.zarr"):
        assert is_place(where)
    for where in ("a", "a.h5", "C:\\x.h5", None, 3, b"a.zarr"):
        assert not is_place(where)
    with pytest.raises(WorkspaceError, match=r"s3://b/x\.zarr"):
        place_of("s3://b/x.h5")


def test_without_obstore_the_error_says_how_to_get_it(monkeypatch):
    import sys

    from labtree.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "labtree\[remote\]"'):
        place_of("s3://bucket/study.zarr")
