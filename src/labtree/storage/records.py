"""Datasets as records: what stands in a catalogue about one node of a tree.

A record is JSON: ``{"path": [...], "attrs": {...}, "layout": {...}, "variables":
[...]}``. Each variable is ``[name, dims, spec, attrs, columns]`` and each column, one
dataset of the file, ``[name, dtype, shape, offset, crc, place]``: where its bytes
begin, their checksum, and where in the catalogue its values stand as well (index
coordinates). `layout` says what netCDF cannot: which coordinates have no index, which
belong to a MultiIndex, and names that had to be encoded.
"""

from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
import xarray as xr
from xarray.indexes import PandasIndex

from labtree.errors import DamageWarning, FormatError, LabtreeError, UnsupportedTypeError, warn
from labtree.storage import codecs, json_values
from labtree.storage._xarray import ExplicitlyIndexed, Variable, data_of
from labtree.storage.arrays import COMPRESSION, StoredArray, lazy
from labtree.storage.blocks import is_dask
from labtree.storage.unsupported import refused_together, with_article

__all__ = [
    "DatasetBuilder",
    "NodeRecord",
    "check_dataset",
    "check_layout",
    "dataset_layout",
    "kept_variables",
    "node_record",
    "variable_values",
]


class NodeRecord(TypedDict):
    """What a catalogue says about one node; `variables` are lists of five, as above."""

    path: list[str]
    attrs: Any
    variables: list[list[Any]]
    layout: NotRequired[dict[str, Any]]
    shared: NotRequired[dict[str, int]]


def node_record(
    path: list[str], attrs: Any, layout: dict[str, Any], variables: list[list[Any]]
) -> NodeRecord:
    """Return the record of a node; its layout is left out where it says nothing."""
    if not any(layout.values()):
        return {"path": path, "attrs": attrs, "variables": variables}
    return {"path": path, "attrs": attrs, "layout": layout, "variables": variables}


#: HDF5 arrays have no more dimensions; some values take one of their own.
_MOST_DIMENSIONS = 31


def variable_values(variable: Variable, path: str) -> np.ndarray:
    """Return the values of a variable as the numpy array that it holds.

    Raises
    ------
    TypeError
        If it holds another kind of array, such as one with units.
    """
    _check_array(variable, path)
    values = variable.data
    if type(values) is not np.ndarray:
        raise _foreign_array(values, path)
    return values


def check_layout(dtype: np.dtype[Any], ndim: int, path: str) -> None:
    """Raise an error for arrays that no file holds: of too many dimensions, of objects."""
    if ndim > _MOST_DIMENSIONS:
        raise UnsupportedTypeError(
            f"{path}: cannot keep an array of {ndim} dimensions, HDF5 has at most "
            f"{_MOST_DIMENSIONS} for all kinds of values; write x.reshape(-1), and x.shape "
            "beside it"
        )
    if dtype.kind == "V" and dtype.hasobject:
        raise UnsupportedTypeError(
            f"{path}: cannot keep a structured array with objects, {dtype}, exactly; write "
            "{name: x[name] for name in x.dtype.names}"
        )


def _check_array(variable: Variable, path: str) -> None:
    """Raise an error unless a variable holds an array that can be written; reads nothing."""
    if not isinstance(variable.dtype, np.dtype):
        raise UnsupportedTypeError(
            f"{path}: netCDF has no type for pandas' {variable.dtype} array of "
            f"{variable.ndim} dimensions; write .astype(object)"
        )
    check_layout(variable.dtype, variable.ndim, path)
    data = data_of(variable)
    if type(data) is np.ndarray or isinstance(data, ExplicitlyIndexed):
        return
    if not is_dask(variable):
        raise _foreign_array(data, path)
    if any(isinstance(size, float) for size in data.shape):  # NaN where it is not known
        raise UnsupportedTypeError(
            f"{path}: its dask blocks have unknown sizes; write x.compute(), or "
            "x.data.compute_chunk_sizes()"
        )
    if type(data._meta) is not np.ndarray:
        raise _foreign_array(data._meta, path, "in the blocks of a dask array")


def _foreign_array(values: Any, path: str, where: str = "") -> UnsupportedTypeError:
    """Return the error for an array that xarray holds and netCDF does not."""
    name = f"{type(values).__module__}.{type(values).__qualname__}"
    line = ".as_numpy()"
    if hasattr(values, "magnitude") and hasattr(values, "units"):
        name += f" in {str(values.units)!r}"
        pint = type(values).__module__.partition(".")[0] == "pint"
        line = (
            ".pint.dequantify(), which puts the units into the attributes"
            if pint
            else ".as_numpy(), and the units into attrs['units']"
        )
    return UnsupportedTypeError(
        f"{path}: cannot keep {with_article(name)}{f' {where}' if where else ''} exactly; "
        f"write {line}"
    )


def kept_variables(dataset: xr.Dataset) -> dict[str, Variable]:
    """Return the variables that are written: all but the tuples that a MultiIndex shows."""
    indexes = dataset.xindexes.values() if dataset.coords else ()
    tuples = {index.dim for index in indexes if isinstance(index, _MULTI)}
    return {
        name: variable  # type: ignore[misc]
        for name, variable in dataset.variables.items()
        if name not in tuples
    }


_MULTI = xr.indexes.PandasMultiIndex


def dataset_layout(dataset: xr.Dataset, path: str) -> dict[str, Any]:
    """Return what netCDF does not say about a dataset's coordinates.

    Raises
    ------
    TypeError
        If a coordinate has an index that cannot be made again from its values.
    """
    layout: dict[str, Any] = {}
    if not dataset.coords:
        return layout
    indexed: set[Any] = set()
    for index, variables in dataset.xindexes.group_by_index():
        if isinstance(index, _MULTI):
            levels = [name for name in variables if name != index.dim]
            layout.setdefault("multiindexes", {})[index.dim] = levels
        elif type(index) is not PandasIndex or set(variables) != {index.dim}:
            raise UnsupportedTypeError(
                f"{path}: cannot keep the index {type(index).__name__} of "
                f"{sorted(map(str, variables))}; write .drop_indexes({list(variables)!r})"
            )
        indexed.update(variables)
    coords = [name for name in dataset.coords if name not in indexed]
    coords = [name for name in coords if name not in layout.get("multiindexes", {})]
    if coords:
        layout["coords"] = coords
    return layout


def check_dataset(dataset: xr.Dataset, path: str) -> None:
    """Raise an error that names every part of a dataset that a file cannot keep.

    Raises
    ------
    TypeError
        For values, attributes, names and indexes that cannot be kept exactly.
    """
    multi = {index.dim for index in dataset.xindexes.values() if isinstance(index, _MULTI)}
    with refused_together() as attempt:
        attempt(json_values.encode, dict(dataset.attrs), f"{path}.attrs")
        attempt(dataset_layout, dataset, path)
        for name in dict.fromkeys((*dataset.variables, *dataset.dims)):
            attempt(_check_name, name, path)
        for name, variable in dataset.variables.items():
            where = f"{path}[{name!r}]"
            if variable.attrs:
                attempt(json_values.encode, dict(variable.attrs), f"{where}.attrs")
            if name not in multi:
                attempt(_check_variable, variable, where)


def _check_name(name: Any, path: str) -> None:
    if type(name) is not str or not name:
        raise UnsupportedTypeError(
            f"{path}: names of variables and dimensions are str, not {name!r}; write "
            f"ds.rename({{{name!r}: ...}})"
        )


def _check_variable(variable: Variable, path: str) -> None:
    _check_array(variable, path)
    if variable.dtype.hasobject or variable.dtype.kind == "T":
        here = variable.compute() if is_dask(variable) else variable
        codecs.encode(variable_values(here, path), path)


class DatasetBuilder:
    """Makes datasets from records; datasets of one shape after another are quick.

    Parameters
    ----------
    column
        Gives the plain array for a column: ``(path, column) -> ContiguousArray``.
    values
        The catalogue's copy of small index coordinates.
    """

    def __init__(self, column: Callable[[list[str], list[Any]], Any], values: bytes = b""):
        self._column = column
        self._values = memoryview(values)
        self._templates: dict[Any, xr.Dataset | None] = {}

    def build(self, record: NodeRecord) -> xr.Dataset:
        """Return the dataset of a record; nothing is read but index coordinates.

        Raises
        ------
        FormatError
            If the record contradicts itself or the file.
        """
        try:
            return self._build(record)
        except (LabtreeError, OSError):
            raise
        except Exception as error:
            where = record.get("path") if isinstance(record, dict) else record
            raise FormatError(
                f"the record of {where!r} contradicts itself: {error!r}"
            ) from error

    def _build(self, record: NodeRecord) -> xr.Dataset:
        path, layout = record["path"], record.get("layout") or {}
        arrays, attrs, compressed = {}, {}, {}
        dims: dict[str, tuple[str, ...]] = {}
        for name, axes, spec, attributes, columns in record["variables"]:
            if not all(isinstance(each, str) for each in (name, *axes)) or "/" in name:
                raise FormatError(f"no variable has the name or the dimensions {[name, *axes]}")
            blobs = [self._column(path, column) for column in columns]
            arrays[name] = StoredArray(spec, blobs)
            dims[name] = tuple(axes)
            if len(dims[name]) != len(arrays[name].shape):
                raise FormatError(f"{'/'.join(path)}/{name}: dimensions and shape disagree")
            compression = getattr(blobs[0], "compression", None)
            if compression is not None:
                compressed[name] = {COMPRESSION: compression.name}
            if attributes:
                attrs[name] = json_values.decode(attributes)
            place = columns[0][5] if len(columns[0]) > 5 else None
            if place is not None and len(columns) == 1:
                arrays[name] = _inline(self._values, place, spec, columns[0])
        plain_data = not layout and not any(axes[:1] == (name,) for name, axes in dims.items())
        if plain_data:
            dataset = self._from_template(arrays, dims)
        else:
            dataset = _with_coordinates(arrays, dims, layout)
        dataset.attrs = json_values.decode(record["attrs"])
        for name, attributes in attrs.items():
            dataset.variables[name].attrs = attributes
        for name, encoding in compressed.items():
            dataset.variables[name].encoding = encoding
        return dataset

    def _from_template(self, arrays: dict[str, Any], dims: dict[str, Any]) -> xr.Dataset:
        key = tuple((name, dims[name], array.shape) for name, array in arrays.items())
        template = self._templates.get(key)
        data = {name: lazy(array) for name, array in arrays.items()}
        if template is None:
            variables = {name: Variable(dims[name], array) for name, array in data.items()}
            dataset = xr.Dataset(variables)
            if key not in self._templates:  # often there is no second one
                self._templates[key] = None
                return dataset
            template = self._templates[key] = dataset
        return template.copy(data=data)


def _inline(values: memoryview, place: int, spec: Any, column: list[Any]) -> Any:
    dtype, shape = np.dtype(column[1]), tuple(column[2])
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.frombuffer(values[place : place + size], dtype).reshape(shape)
    return codecs.decode(spec, [raw.copy()])


def _with_coordinates(
    arrays: dict[str, Any], dims: dict[str, Any], layout: dict[str, Any]
) -> xr.Dataset:
    # Another program may have deleted or renamed a level; the others are then coordinates.
    multiindexes = {
        dim: names
        for dim, names in layout.get("multiindexes", {}).items()
        if all(dims.get(name) == (dim,) for name in names)
    }
    levels = {level for names in multiindexes.values() for level in names}
    unindexed = set(layout.get("coords", ()))
    data: dict[str, Variable] = {}
    indexed: dict[str, Variable] = {}
    bare: dict[str, Variable] = {}
    for name, array in arrays.items():
        is_index = dims[name] == (name,) and name not in unindexed
        values = _index_values(array) if is_index or name in levels else None
        if values is not None:
            indexed[name] = Variable(dims[name], values)
            continue
        if is_index or name in levels:  # damaged: what needs its values fails, nothing else
            unindexed.add(name)
        wrapped = lazy(array) if isinstance(array, StoredArray) else array
        (bare if name in unindexed else data)[name] = Variable(dims[name], wrapped)
    for dim, names in list(multiindexes.items()):
        if not indexed.keys() >= set(names):  # the levels that can be read stay coordinates
            del multiindexes[dim]
            bare |= {name: indexed.pop(name) for name in names if name in indexed}
    levels = {level for names in multiindexes.values() for level in names}
    coords = xr.Coordinates(
        {name: variable for name, variable in indexed.items() if name not in levels}
    )
    dataset = xr.Dataset(coords=coords)
    for dim, names in multiindexes.items():
        index = pd.MultiIndex.from_arrays([indexed[name].values for name in names], names=names)
        shown = {name: indexed[name].dtype for name in names}
        own = _MULTI(index, dim, level_coords_dtype=shown)
        dataset = dataset.assign_coords(xr.Coordinates.from_xindex(own))
    if bare:
        dataset = dataset.assign_coords(xr.Coordinates(bare, indexes={}))
    dataset = dataset.assign(data) if data else dataset
    return _in_order(dataset, list(arrays), multiindexes)


def _index_values(array: Any) -> np.ndarray | None:
    """Return the values of an index, or None and a warning where they are damaged."""
    if not isinstance(array, StoredArray):
        values: np.ndarray = array
        return values
    try:
        return array.read_whole()
    except FormatError as error:
        warn(
            f"{error}. This coordinate is left without an index; all else can be read, of a "
            "workspace also item by item: labtree.load_item(path, namespace, key)",
            DamageWarning,
        )
        return None


def _in_order(
    dataset: xr.Dataset, names: list[str], multiindexes: dict[str, list[str]]
) -> xr.Dataset:
    """Return a dataset with its variables as they were; a MultiIndex is before its levels."""
    dims = {levels[0]: dim for dim, levels in multiindexes.items()}
    order = [part for name in names for part in (dims.get(name), name) if part is not None]
    return dataset if order == list(dataset.variables) else dataset[order]
