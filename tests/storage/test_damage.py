"""Damaged and hostile files: an error that says so, or right data; no crash, no hang."""

import json
import os
import random
import resource
import struct
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from labtree.errors import DamageWarning, FormatError, LabtreeError
from labtree.storage import open_tree, save_tree
from labtree.storage.catalogue import catalogue_of, write_catalogue
from labtree.storage.hdf5_end import end_of_hdf5
from labtree.storage.records import variable_records
from labtree.storage.trees import column_reader, open_source
from support.children import in_child
from support.exactness import assert_same
from support.examples import examples


def _tree() -> xr.DataTree:
    first = xr.Dataset(
        {
            "v": (("x", "y"), np.arange(6.0).reshape(2, 3), {"units": "Hz"}),
            "text": ("y", np.array(["a", "bé", ""])),
            "objects": ("y", np.array([None, (1, 2), "x"], object)),
        },
        coords={"x": [1.5, 2.5]},
        attrs={"nested": {"a": 1}, "gain": 2.0},
    )
    return xr.DataTree.from_dict({"/ns/first": first, "/ns/second": xr.Dataset({"s": 5})})


def _small() -> xr.DataTree:
    values = {"v": ("x", [1.5, 2.5], {"units": "Hz"}), "t": ("y", np.array(["a", "bé"]))}
    return xr.DataTree.from_dict({"/a": xr.Dataset(values, {"x": [1, 2]}, {"n": (1,)})})


def _read(path) -> xr.DataTree:
    tree = open_tree(path)
    try:
        return tree.map_over_datasets(lambda node: node.load())
    finally:
        tree.close()


def _outcomes(path, versions, expected):
    """Return how many versions of a file gave an error, and which gave other data."""
    errors, wrong = 0, []
    for name, data in versions:
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DamageWarning)
                assert_same(_read(path), expected)
        except (LabtreeError, DamageWarning) as error:
            errors += str(path) in str(error)
        except AssertionError as error:
            wrong.append((name, str(error)))
        except Exception as error:
            wrong.append((name, repr(error)))
    return errors, wrong


def test_a_file_that_is_cut_short_anywhere(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(), path)
    data, expected = path.read_bytes(), _read(path)
    end = end_of_hdf5(data)
    sizes = {*range(0, 60), *range(end - 60, end + 60), *range(60, len(data), 397)}
    lengths = sorted(sizes)
    versions = [(length, data[:length]) for length in lengths]
    errors, wrong = in_child(_outcomes, path, versions, expected)
    assert not wrong
    # At `end` the file is as another program leaves it; behind it the catalogue is cut.
    assert errors == len(lengths) - 1


def test_flipped_bits(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_small(), path)
    data, expected = path.read_bytes(), _read(path)
    rng = random.Random(7)

    def flipped():
        for _ in range(examples(600)):
            place, bit = rng.randrange(len(data)), rng.randrange(8)
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            yield (place, bit), bytes(damaged)

    errors, wrong = in_child(_outcomes, path, flipped(), expected)
    assert not wrong
    assert errors > 0  # those in the arrays


def test_flipped_bits_of_a_file_without_catalogue(tmp_path, cut_catalogue):
    path = tmp_path / "t.h5"
    save_tree(_small(), path)
    cut_catalogue(path)
    data, expected = path.read_bytes(), _read(path)
    rng = random.Random(8)

    def flipped():
        for _ in range(examples(150)):
            damaged = bytearray(data)
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield len(data), bytes(damaged)

    _, wrong = in_child(_outcomes, path, flipped(), expected)
    # No checksum can tell that attributes or names are others; all else is a clear error.
    assert all("attrs" in reason or "expected" in reason for _, reason in wrong), wrong


def test_every_flip_in_an_array_is_noticed(tmp_path):
    path = tmp_path / "t.h5"
    values = np.arange(8.0)
    save_tree(xr.DataTree(xr.Dataset({"v": ("x", values)})), path)
    start = path.read_bytes().index(values.tobytes())
    for place in range(start, start + values.nbytes):
        with path.open("rb+") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 16]))
        tree = open_tree(path)
        for whole in (tree["v"], tree["v"][0:8], tree["v"].chunk(-1)):
            with pytest.raises(FormatError, match=r"t.h5: v is damaged: its bytes do not"):
                whole.compute()
        assert tree["v"][0].shape == ()  # a part is given without the whole being read
        tree.close()
        with path.open("rb+") as file:
            file.seek(place)
            file.write(bytes([byte]))
    assert_same(_read(path)["v"].values, values)


def test_arrays_that_claim_the_same_bytes_are_refused(tmp_path):
    """Two thousand arrays on the same eight megabytes would ask for sixteen gigabytes."""
    path = tmp_path / "t.h5"
    save_tree(xr.DataTree(xr.Dataset({"v": ("x", np.arange(10_000))})), path)
    source, catalogue = open_source(path)
    try:
        (variable,) = variable_records(catalogue.records()[0])
        (column,) = variable.columns
        read = column_reader(source)
        read(["a"], column)
        with pytest.raises(
            FormatError, match=r"t.h5: b/v and the arrays before it claim 160000 bytes"
        ):
            read(["b"], column)
    finally:
        source.close()


FOREIGN = {
    "is an empty file, not a workspace": b"",
    "is a zip archive": b"PK\3\4" + bytes(100),
    "is a netCDF-3 file; open it with xarray.open_dataset": b"CDF\1" + bytes(100),
    "is a JSON file; the workspace is the .h5 file beside it": b'{"a": 1}',
    "is a gzip archive": b"\x1f\x8b" + bytes(9),
    "is not a workspace: it begins with b'hello, w'": b"hello, world",
    "cannot be read .* cut short or damaged": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("message", FOREIGN)
def test_foreign_files(tmp_path, message):
    (tmp_path / "x.h5").write_bytes(FOREIGN[message])
    with pytest.raises(FormatError, match=message):
        open_tree(tmp_path / "x.h5")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.h5"):
        open_tree(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match=r"does not exist; make it with pathlib.Path\("):
        save_tree(_tree(), tmp_path / "no" / "t.h5")
    with pytest.raises(FileExistsError, match="is a folder; give the name of a file"):
        save_tree(_tree(), tmp_path)


def test_a_newer_version_is_named(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(_tree(), path)
    data = bytearray(path.read_bytes())
    end = end_of_hdf5(bytes(data))
    data[end + 8 : end + 12] = struct.pack("<I", 7)
    path.write_bytes(data)
    with pytest.raises(
        FormatError,
        match=r"format version 7; this labtree reads version 2. Update labtree",
    ):
        open_tree(path)


def _with_catalogue(path, change):
    """Write a catalogue that was changed, with checksums that are right."""
    save_tree(_tree(), path)
    with path.open("rb") as file:
        found = catalogue_of(file.fileno(), path)
    lines = found.text.split(b"\n")
    records = [json.loads(line) for line in lines[1:]]
    changed = change(records)
    records = records if changed is None else changed
    write_catalogue(path, json.loads(lines[0]), records, found.values)


def _column(records, name="v"):
    (record,) = [record for record in records if record["path"][-1:] == ["first"]]
    (variable,) = [variable for variable in record["variables"] if variable[0] == name]
    return variable, variable[4][0]


def _set(place, value, name="v"):
    def change(records):
        _column(records, name)[1][place] = value

    return change


def _spec(spec, name="text"):
    def change(records):
        _column(records, name)[0][2] = spec

    return change


HOSTILE = {
    "offset outside": (_set(3, 10**9), "first/v does not fit into the file"),
    "offset negative": (_set(3, -8), "first/v does not fit into the file"),
    "offset no number": (_set(3, "8"), "'8'|does not fit into the file"),
    "shape gigantic": (
        _set(2, [2**40, 2**20]),
        "first/v does not fit into the file: float64 of shape",
    ),
    "shape beyond all": (_set(2, [0, 2**70]), "no array has the shape"),
    "shape negative": (_set(2, [-2, -3]), "first/v does not fit into the file"),
    "shape of others": (_set(2, [3, 2]), "contradicts itself"),
    "shape with a float": (_set(2, [2.0, 3]), "does not fit into the file"),
    "objects": (_set(1, "O"), "'O' is no dtype of a plain array"),
    "no dtype": (_set(1, "zz"), "'zz' is no dtype of a plain array"),
    "fields": (_set(1, "f8,f8"), "'f8,f8' is no dtype of a plain array"),
    "text of gigabytes": (_set(1, "S4000000000"), "is no dtype of a plain array"),
    "codec unknown": (_spec({"codec": "pickle"}), "unknown codec 'pickle'; known are"),
    "codec of objects": (_spec({"codec": "view", "dtype": "O"}), "is not what .* reads"),
    "codec too wide": (_spec({"codec": "utf8", "dtype": "<U400000000"}), "is not what"),
    "codec too wide for bytes": (
        _spec({"codec": "view", "dtype": "V900000000"}),
        "is not what",
    ),
    "codec without a part": (
        _spec({"codec": "text", "dtype": "O", "form": "joined", "elements": "str"}),
        "contradicts itself",
    ),
    "no root": (lambda records: records[1:], "contradicts itself"),
    "no parent": (lambda records: [records[0], records[2]], "contradicts itself"),
    "twice": (lambda records: [*records, records[-1]], "the node 'ns/second' occurs twice"),
    "a slash": (lambda records: records[-1].update(path=["ns", "a/b"]), "the node 'ns/a/b'"),
    "a name that is none": (
        lambda records: records[-1].update(path=["ns", 5]),
        "the node 'ns/5'",
    ),
    "no record": (lambda records: [5], "contradicts itself"),
    "nothing": (lambda records: [], "contradicts itself"),
    "attribute unknown": (
        lambda records: records[0].update(attrs={"a": {"$evil": 1}}),
        r"unknown value '\$evil': written by a newer labtree, or damaged",
    ),
    "attribute array of objects": (
        lambda records: records[0].update(attrs={"a": {"$array": ["O", [1], "AAAAAAAAAAA="]}}),
        "contradicts itself",
    ),
    "attribute gigantic": (
        lambda records: records[0].update(attrs={"a": {"$objects": [[2**40], []]}}),
        "0 objects do not fill an array of shape",
    ),
    "attribute gigantic array": (
        lambda records: records[0].update(attrs={"a": {"$array": ["<f8", [2**40], ""]}}),
        "contradicts itself",
    ),
}


def _attempt(path):
    # What other tests loaded into this process takes addresses as well.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = taken + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _read(path)
        except FormatError as error:
            told.append(str(error))
    told = [str(warning.message) for warning in caught] + told
    return "; ".join(told) or "nothing was wrong"


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_catalogues(tmp_path, case):
    change, message = HOSTILE[case]
    _with_catalogue(tmp_path / "t.h5", change)
    with pytest.raises(FormatError, match=message):
        raise FormatError(in_child(_attempt, tmp_path / "t.h5"))


def test_names_that_look_like_paths_stay_names(tmp_path):
    _with_catalogue(tmp_path / "t.h5", lambda records: records[-1].update(path=["ns", ".."]))
    tree = open_tree(tmp_path / "t.h5")
    assert list(tree.children["ns"].children) == ["first", ".."]
    tree.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.h5"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labtree_attrs", "{"),
        ("labtree_attrs", "[1]"),
        ("labtree_attrs", '{"a":{"$evil":1}}'),
        ("labtree_attrs", "[" * 100_000),
        ("labtree_layout", "5"),
        ("labtree_layout", '{"multiindexes":5}'),
        ("labtree_dtype", "O"),
        ("labtree_dtype", "<U400000000"),
        ("labtree_dtype", "{"),
    ],
)
def test_hostile_attributes(tmp_path, name, value):
    path = tmp_path / "t.h5"
    save_tree(_tree(), path)
    with h5py.File(path, "r+") as file:
        owner = file["ns/first/text"] if name == "labtree_dtype" else file["ns/first"]
        if name in owner.attrs:
            del owner.attrs[name]
        owner.attrs.create(name, value, dtype=h5py.string_dtype())
    message = in_child(_attempt, path)
    assert f"{path}: /ns/first cannot be read and was left out" in message


def test_a_heap_in_which_hdf5_would_search_for_ever_is_refused(tmp_path, cut_catalogue):
    path = tmp_path / "t.h5"
    save_tree(_tree(), path)
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL\1\0\0\0")
    content[heap + 16 : heap + 40] = bytes(24)  # an entry of no size
    path.write_bytes(content)
    assert list(_read(path).children) == ["ns"]  # its catalogue needs no heap
    cut_catalogue(path)
    with pytest.raises(FormatError, match=rf"t.h5: what HDF5 keeps at byte {heap} .* damaged"):
        raise in_child(_raised, path)


def _raised(path):
    try:
        return _read(path)
    except FormatError as error:
        return error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
def test_data_that_come_from_themselves_or_from_a_pipe_are_left_out(tmp_path):
    path = tmp_path / "t.nc"
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        sources = {"self": "self", "one": "two", "two": "one", "fine": "good", "far": "fine"}
        for name, source in sources.items():
            layout = h5py.VirtualLayout((3,), "i8")
            layout[:] = h5py.VirtualSource(".", source, shape=(3,))
            file.create_virtual_dataset(name, layout)
        file.create_dataset("outside", (3,), "i8", external=[("pipe", 0, 24)])
        file["link"] = h5py.ExternalLink("pipe", "/")
    told, values = in_child(_told_and_read, path)
    assert values == {name: [0, 1, 2] for name in ("good", "fine", "far")}
    for name in ("self", "one", "two"):
        assert (
            f"/{name} cannot be read and was left out (it is a virtual dataset that reads it"
            in told
        )
    for name in ("outside", "link"):
        assert f"/{name} cannot be read and was left out" in told


def _told_and_read(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = _read(path)
    told = "; ".join(str(each.message) for each in caught)
    return told, {str(name): each.values.tolist() for name, each in tree.variables.items()}
