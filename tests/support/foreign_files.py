"""Hypothesis strategies for netCDF-4 and HDF5 files as other programs write them."""

from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import xarray as xr
from hypothesis import strategies as st

from labtree.storage.value_attributes import MARKS

__all__ = ["same_trees", "write_with_h5py", "write_with_netcdf4", "write_with_xarray"]

_NAMES = ["x", "time", "rate", "a b", "é", "_y", "data", "labtree_kind", "50%", "rec-1", "v.1"]
_NUMBERS = ["i1", "u1", "<i2", ">i2", "<u4", ">i8", "<i8", "<f4", ">f4", "<f8", ">f8"]
_PLAIN = [*_NUMBERS, "<f2", "?", "<c8", "<c16", "S3", "V4"]


def _values(draw: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    seed = draw(st.integers(0, 1 << 16))
    count = int(np.prod(shape, dtype=int))
    rng = np.random.default_rng(seed)
    if dtype.names:
        values = np.zeros(count, dtype)
        for name in dtype.names:
            values[name] = rng.integers(0, 100, count)
    elif dtype.kind == "S":
        values = np.array([f"{n}" for n in rng.integers(0, 1000, count)], dtype)
    elif dtype.kind == "V":
        values = rng.integers(0, 100, count * dtype.itemsize).astype("u1").view(dtype)
    else:
        values = rng.integers(0, 100, count).astype(dtype)
        if dtype.kind == "f" and count:
            values[draw(st.integers(0, count - 1))] = np.nan
    return values.reshape(shape)


@st.composite
def _attribute_values(draw: Any) -> Any:
    kind = draw(st.integers(0, 9))
    number = draw(st.integers(-5, 5))
    return [
        lambda: draw(st.sampled_from(["", "é", "mV", "a\nb", "x" * 300])),
        lambda: number,
        lambda: float(number),
        lambda: np.array([number, 2], draw(st.sampled_from(_NUMBERS)).replace("u", "i")),
        lambda: np.array([number], "i2"),
        lambda: np.float32(number),
        lambda: np.array(["a", "bé"], object),
        lambda: np.arange(6.0).reshape(2, 3),
        lambda: b"bytes",
        lambda: np.array([b"ab", b"c"]),
    ][kind]()


_CF = [
    {"scale_factor": 0.5, "add_offset": 10.0, "_FillValue": 5},
    {"scale_factor": np.float32(0.5)},
    {"missing_value": 7},
    {"_FillValue": 3},
    {"units": "seconds since 2020-01-01"},
    {"units": "days since 1999-12-31", "calendar": "noleap"},
    {"units": "hours"},
    {"units": "days after 1970-01-01"},
    {"coordinates": "time x"},
    {"coordinates": "nothing"},
    {"_Unsigned": "true", "_FillValue": -1},
    {"dtype": "bool"},
    {"CLASS": "IMAGE"},
    {"labtree_dtype": "<c16", "labtree_crc32c": 5},
    {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "no yes"},
    {"ancillary_variables": "x"},
    {"grid_mapping": "x"},
    {"bounds": "time"},
]


@st.composite
def write_with_h5py(draw: Any, path: Path) -> None:
    """Write an HDF5 file with h5py: types, filters, links, dimension scales, attributes."""
    libver = draw(st.sampled_from(["earliest", "latest", ("v110", "latest")]))
    with h5py.File(path, "w", libver=libver, track_order=draw(st.booleans())) as file:
        _fill_h5py(draw, file, 0)


def _fill_h5py(draw: Any, group: Any, depth: int) -> None:
    names = draw(st.lists(st.sampled_from(_NAMES), max_size=4, unique=True))
    scales: dict[int, list[str]] = {}
    for name in names:
        shape = draw(st.sampled_from([(), (2,), (3,), (2, 3), (3, 2, 2), (0,), (2, 0), (2, 2)]))
        dataset = _h5py_dataset(draw, group, name, shape)
        if dataset.shape and len(shape) == 1 and draw(st.booleans()):
            dataset.make_scale(draw(st.sampled_from(["", name])))
            scales.setdefault(shape[0], []).append(name)
        else:
            for axis, size in enumerate(shape):
                if size in scales and draw(st.integers(0, 3)):
                    scale = group[draw(st.sampled_from(scales[size]))]
                    if scale != dataset:
                        dataset.dims[axis].attach_scale(scale)
        _set_attributes(draw, dataset.attrs, dataset.dtype)
    for name in draw(st.lists(st.sampled_from(_NAMES), max_size=2, unique=True)):
        if name in group:
            continue
        kind = draw(st.integers(0, 5)) if depth < 3 else 4
        if kind < 4:
            _fill_h5py(draw, group.create_group(name), depth + 1)
        elif kind == 4 and names:
            group[name] = h5py.SoftLink(f"{group.name.rstrip('/')}/{names[0]}")
        elif names:
            group[name] = group[names[0]]
    _set_attributes(draw, group.attrs, None)


def _h5py_dataset(draw: Any, group: Any, name: str, shape: tuple[int, ...]) -> Any:
    kind = draw(st.integers(0, 10))
    options: dict[str, Any] = {}
    if shape and 0 not in shape and draw(st.booleans()):
        options = {"chunks": True}
        if draw(st.booleans()):
            options["compression"] = draw(st.sampled_from(["gzip", "lzf"]))
            options["shuffle"] = draw(st.booleans())
            options["fletcher32"] = draw(st.booleans())
        if draw(st.booleans()):
            options["maxshape"] = (None, *shape[1:])
    count = int(np.prod(shape, dtype=int))
    if kind == 0:
        texts = np.array([["a", "bé", ""][i % 3] for i in range(count)], object).reshape(shape)
        encoding = draw(st.sampled_from(["utf-8", "ascii"]))
        dataset = group.create_dataset(name, shape, h5py.string_dtype(encoding))
        if count:
            dataset[...] = texts if shape else texts.item()
        return dataset
    if kind == 1:
        texts = np.array(["é" * (i % 3) for i in range(count)], object).reshape(shape)
        encoded = h5py.string_dtype("utf-8", 6)
        raw = np.array([t.encode() for t in texts.reshape(-1)], "S6").reshape(shape)
        return group.create_dataset(name, data=raw.astype(encoded), **options)
    if kind == 2:
        enum = h5py.enum_dtype({"left": 0, "right": 1}, basetype="i1")
        values = np.array([i % 2 for i in range(count)], "i1").reshape(shape)
        return group.create_dataset(name, shape, enum, values, **options)
    if kind == 3:
        dtype = np.dtype([("a", "<i4"), ("b", ">f8")])
        return group.create_dataset(name, data=_values(draw, dtype, shape), **options)
    if kind == 4:
        ragged = np.empty(count, object)
        for i in range(count):
            ragged[i] = np.arange(i % 3, dtype="i4")
        dtype = h5py.vlen_dtype(np.dtype("i4"))
        dataset = group.create_dataset(name, shape, dtype)
        if count:
            dataset[...] = ragged.reshape(shape) if shape else ragged[0]
        return dataset
    dtype = np.dtype(draw(st.sampled_from(_PLAIN)))
    if kind == 5 and dtype.kind in "iuf" and shape:
        options["fillvalue"] = 4
    return group.create_dataset(name, data=_values(draw, dtype, shape), **options)


def _set_attributes(draw: Any, attrs: Any, dtype: np.dtype[Any] | None) -> None:
    for name in draw(st.lists(st.sampled_from(["n", "é", "title", "a b"]), max_size=2)):
        attrs[name] = draw(_attribute_values())
    if dtype is not None and dtype.kind in "iuf" and draw(st.booleans()):
        for name, value in draw(st.sampled_from(_CF)).items():
            if name == "_FillValue":
                value = np.array(value).astype(dtype)
            attrs[name] = value


@st.composite
def write_with_netcdf4(draw: Any, path: Path) -> None:
    """Write a netCDF-4 file with netCDF4-python: dimensions, types, packing, groups."""
    form = draw(st.sampled_from(["NETCDF4", "NETCDF4", "NETCDF4_CLASSIC"]))
    with netCDF4.Dataset(path, "w", format=form) as file:
        _fill_netcdf4(draw, file, {}, 0, form == "NETCDF4_CLASSIC")


def _fill_netcdf4(
    draw: Any, group: Any, above: dict[str, int], depth: int, classic: bool
) -> None:
    sizes = dict(above)
    for name in draw(st.lists(st.sampled_from(["x", "time", "unit"]), max_size=3, unique=True)):
        if name in above:
            continue  # xarray refuses a tree whose child has another size
        sizes[name] = draw(st.integers(1, 3))
        unlimited = draw(st.integers(0, 3)) == 0 and not classic
        group.createDimension(name, None if unlimited else sizes[name])
    own_type = None if classic or depth else _netcdf4_type(draw, group)
    names = draw(st.lists(st.sampled_from([*_NAMES, "unit"]), max_size=4, unique=True))
    for name in names:
        dims: tuple[str, ...] = ()
        if sizes:
            dims = tuple(
                draw(st.lists(st.sampled_from(sorted(sizes)), max_size=2, unique=True))
            )
        if name in sizes and name not in dims and draw(st.booleans()):
            dims = (name,)
        _netcdf4_variable(draw, group, name, dims, sizes, own_type, classic)
    _set_netcdf4_attributes(draw, group, classic)
    if depth < 2 and not classic:
        for name in draw(st.lists(st.sampled_from(["g", "h 1", "é"]), max_size=2, unique=True)):
            if name not in group.variables:
                _fill_netcdf4(draw, group.createGroup(name), sizes, depth + 1, classic)


def _netcdf4_type(draw: Any, file: Any) -> Any:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return file.createCompoundType(np.dtype([("a", "i4"), ("b", "f8")]), "pair")
    if kind == 1:
        return file.createEnumType("i1", "side", {"left": 0, "right": 1})
    if kind == 2:
        return file.createVLType("i4", "ragged")
    return None


def _netcdf4_variable(
    draw: Any,
    group: Any,
    name: str,
    dims: tuple[str, ...],
    sizes: dict[str, int],
    own_type: Any,
    classic: bool,
) -> None:
    shape = tuple(sizes[dim] for dim in dims)
    count = int(np.prod(shape, dtype=int))
    kind = draw(st.integers(0, 7))
    if kind == 0 and not classic:
        variable = group.createVariable(name, str, dims)
        texts = np.array([["a", "bé", ""][i % 3] for i in range(count)], object)
        variable[...] = texts.reshape(shape) if shape else texts[0]
    elif kind == 1 and own_type is not None:
        variable = group.createVariable(name, own_type, dims)
        if isinstance(own_type, netCDF4.CompoundType):
            variable[...] = _values(draw, own_type.dtype, shape)
        elif isinstance(own_type, netCDF4.EnumType):
            variable[...] = np.array([i % 2 for i in range(count)], "i1").reshape(shape)
        elif shape:
            ragged = np.empty(count, object)
            for i in range(count):
                ragged[i] = np.arange(1 + i % 3, dtype="i4")
            variable[...] = ragged.reshape(shape)
    elif kind == 2:
        if "chars" not in group.dimensions:
            group.createDimension("chars", 4)
        variable = group.createVariable(name, "S1", (*dims, "chars"))
        if draw(st.booleans()):
            variable._Encoding = "utf-8"
            variable[...] = np.array(["é" * (i % 3) for i in range(count)]).reshape(shape)
        else:
            variable[...] = np.full((*shape, 4), b"c")
    else:
        known = ["i1", "i2", "i4", "f4", "f8"]
        known += [] if classic else ["u1", "u2", "u4", "u8", "i8", ">i4", ">f8"]
        dtype = np.dtype(draw(st.sampled_from(known)))
        fill = draw(st.sampled_from([None, 5, False]))
        zlib = bool(dims) and draw(st.booleans())
        endian = "big" if dtype.byteorder == ">" else "native"
        variable = group.createVariable(
            name, dtype, dims, zlib=zlib, fill_value=fill, endian=endian
        )
        variable.set_auto_maskandscale(False)
        if draw(st.integers(0, 4)):
            variable[...] = _values(draw, dtype.newbyteorder("="), shape)
        for key, value in draw(st.sampled_from(_CF)).items() if draw(st.booleans()) else ():
            if key == "_FillValue" or (classic and key.startswith("flag")):
                continue
            variable.setncattr(key, value)
    _set_netcdf4_attributes(draw, variable, classic)


def _set_netcdf4_attributes(draw: Any, owner: Any, classic: bool) -> None:
    for name in draw(st.lists(st.sampled_from(["n", "title", "é"]), max_size=2)):
        value = draw(_attribute_values())
        if isinstance(value, np.ndarray) and (value.ndim != 1 or value.dtype.kind in "SO"):
            value = ["a", "bé"]
        if classic and not isinstance(value, (str, float)):
            continue
        owner.setncattr(name, value)


@st.composite
def write_with_xarray(draw: Any, path: Path, engine: str) -> None:
    """Write a tree with xarray: coordinates, dates, texts, encodings."""
    sizes = {"x": 2, "time": 3, "unit": 1}

    def dataset(kept: dict[str, int]) -> xr.Dataset:
        found: dict[str, Any] = {}
        names = draw(st.lists(st.sampled_from(_NAMES), max_size=4, unique=True))
        for name in names:
            dims = draw(st.lists(st.sampled_from(sorted(kept)), max_size=2, unique=True))
            if name in kept:
                dims = [name]
            shape = tuple(kept[dim] for dim in dims)
            found[name] = xr.Variable(
                dims,
                _xarray_values(draw, shape, name in kept),
                {"units_": "mV"} if draw(st.booleans()) else {},
                _encoding(draw),
            )
        data = xr.Dataset(found)
        coords = [name for name in names if draw(st.booleans())]
        data = data.set_coords(coords)
        for name in draw(st.lists(st.sampled_from(["n", "title"]), max_size=1)):
            value = draw(_attribute_values())
            if not (isinstance(value, np.ndarray) and value.ndim > 1):
                data.attrs[name] = value
        for variable in data.variables.values():
            if variable.dtype.kind not in "if":
                variable.encoding = {}
            elif variable.dtype.kind == "f" and "dtype" in variable.encoding:
                variable.encoding["_FillValue"] = -1
        return data

    nodes = {"/": dataset(sizes) if draw(st.booleans()) else xr.Dataset()}
    for name in ("a", "a/b", "c 1")[: draw(st.integers(0, 3))]:
        nodes[f"/{name}"] = dataset(sizes)
    xr.DataTree.from_dict(nodes).to_netcdf(path, engine=engine)


def _encoding(draw: Any) -> dict[str, Any]:
    return dict(
        draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {"dtype": "i2", "scale_factor": 0.01, "add_offset": 20.0},
                    {"zlib": True},
                    {"dtype": "f4"},
                ]
            )
        )
    )


def _xarray_values(draw: Any, shape: tuple[int, ...], is_index: bool) -> np.ndarray:
    count = int(np.prod(shape, dtype=int))
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return np.array([f"{i}é" for i in range(count)]).reshape(shape)
    if kind == 1:
        return np.array([f"{i}é" for i in range(count)], object).reshape(shape)
    if kind == 2:
        return (np.datetime64("2020-01-01", "ns") + np.arange(count)).reshape(shape)
    if kind == 3:
        return (np.timedelta64(5, "s") + np.arange(count).astype("m8[s]")).reshape(shape)
    if kind == 4 and not is_index:
        return (np.arange(count) % 2 == 0).reshape(shape)
    return (
        np.arange(count).astype(draw(st.sampled_from(["i2", "i8", "f4", "f8"]))).reshape(shape)
    )


def same_trees(found: xr.DataTree, expected: xr.DataTree, *, stored: bool = False) -> None:
    """Raise AssertionError with the place where a tree is not as another one.

    `stored` says that one of them was stored, which keeps no encoding.
    """
    mine = {node.path: node for node in found.subtree}
    theirs = {node.path: node for node in expected.subtree}
    assert list(mine) == list(theirs)
    for path, node in theirs.items():
        one, two = mine[path].to_dataset(inherit=False), node.to_dataset(inherit=False)
        same_datasets(one, two, path, stored=stored)


def same_datasets(one: xr.Dataset, two: xr.Dataset, path: str, *, stored: bool = False) -> None:
    """Raise AssertionError with the place where a dataset is not as another one."""
    assert list(one.variables) == list(two.variables), path
    assert set(one.coords) == set(two.coords), path
    assert set(one.xindexes) == set(two.xindexes), path
    assert dict(one.sizes) == dict(two.sizes), path
    _same_attributes(one.attrs, two.attrs, path, stored)
    if not stored:
        assert _shown(one.encoding) == _shown(two.encoding), path
    for name, variable in two.variables.items():
        where, other = f"{path}/{name}", one.variables[name]
        assert other.dims == variable.dims, where
        if (
            variable.ndim or variable.dtype.kind not in "OSU"
        ):  # of one text only its reading tells
            assert other.dtype == variable.dtype, (where, other.dtype, variable.dtype)
        _same_values(other.values, variable.values, where)
        _same_attributes(other.attrs, variable.attrs, where, stored)
        if not stored:
            assert _shown(other.encoding) == _shown(variable.encoding), where


def _shown(encoding: dict[Any, Any]) -> dict[Any, str]:
    return {key: repr(value) for key, value in encoding.items() if key != "source"}


def _same_attributes(one: Any, two: Any, where: str, stored: bool) -> None:
    if stored:  # what another file says of its own values is dropped
        two = {name: value for name, value in two.items() if name not in MARKS}
    assert list(one) == list(two), (where, list(one), list(two))
    for name, given in two.items():
        other, value = one[name], _as_it_was_meant(given)
        assert type(other) is type(value), (where, name, type(other), type(value))
        if isinstance(value, np.ndarray):
            assert (other.dtype, other.shape) == (value.dtype, value.shape), (where, name)
            assert other.tolist() == value.tolist(), (where, name)
        else:
            assert other == value or (other != other and value != value), (where, name)


def _as_it_was_meant(value: Any) -> Any:
    """Return a text of UTF-8 that netCDF-C marks as ASCII for what it is."""
    if isinstance(value, list):
        return [_as_it_was_meant(each) for each in value]
    if isinstance(value, str) and any("\udc80" <= letter <= "\udcff" for letter in value):
        return value.encode("utf-8", "surrogateescape").decode()
    return value


def _same_values(one: np.ndarray, two: np.ndarray, where: str) -> None:
    if two.dtype.kind == "O" and one.shape == () != two.shape:
        one = one.item()  # the engine takes an array that is one value for many
    assert (one.shape, one.dtype) == (two.shape, two.dtype), where
    if two.dtype.kind == "O":
        for a, b in zip(one.flat, two.flat, strict=True):
            assert type(a) is type(b), (where, a, b)
            if isinstance(b, np.ndarray):
                assert a.dtype == b.dtype, where
            np.testing.assert_array_equal(a, b, where)
    else:
        np.testing.assert_array_equal(one, two, where)
