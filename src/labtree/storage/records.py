"""Datasets as records: what stands in a catalogue about one node of a tree.

A record is JSON: ``{"path": [...], "attrs": {...}, "layout": {...}, "variables":
[...]}``. Each variable is a list of what a :class:`VariableRecord` has, and each of its
columns, one dataset of the file, of what a :class:`labtree.storage.arrays.Column` has.
`layout` says what netCDF cannot: which coordinates have no index, which belong to a
MultiIndex, and names that had to be encoded.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import pandas as pd
import xarray as xr
from xarray.indexes import PandasMultiIndex

from labtree.errors import DamageWarning, FormatError, LabtreeError, warn
from labtree.storage import codecs, json_values
from labtree.storage._xarray import Variable
from labtree.storage.arrays import COMPRESSION, Column, StoredArray, lazy


class VariableRecord(NamedTuple):
    """What a catalogue says about one variable.

    `spec` is how it is decoded, `attrs` are its attributes as
    :func:`labtree.storage.json_values.encode` makes them, and `columns` its plain arrays.
    """

    name: str
    dims: list[str]
    spec: codecs.Spec | None
    attrs: Any
    columns: list[Column]

    @property
    def inline(self) -> int | None:
        """Where in the catalogue its values stand as well, if they do: of small indexes."""
        return self.columns[0].inline

    def listed(self) -> list[Any]:
        """Return it as it stands in a record."""
        return [*self[:-1], [column.listed() for column in self.columns]]


class NodeRecord(TypedDict):
    """What a catalogue says about one node, as JSON; see :func:`variable_records`."""

    path: list[str]
    attrs: Any
    variables: list[list[Any]]
    layout: NotRequired[dict[str, Any]]
    shared: NotRequired[dict[str, int]]


def node_record(
    path: list[str], attrs: Any, layout: dict[str, Any], variables: Iterable[VariableRecord]
) -> NodeRecord:
    """Return the record of a node; its layout is left out where it says nothing."""
    listed = [variable.listed() for variable in variables]
    if not any(layout.values()):
        return {"path": path, "attrs": attrs, "variables": listed}
    return {"path": path, "attrs": attrs, "layout": layout, "variables": listed}


def variable_records(record: NodeRecord) -> Iterator[VariableRecord]:
    """Yield what a record says about each of its variables."""
    for name, dims, spec, attrs, columns in record["variables"]:
        yield VariableRecord(name, dims, spec, attrs, [Column(*each) for each in columns])


def with_inline(record: NodeRecord, place: Callable[[int, int], int]) -> NodeRecord:
    """Return a record whose copies of values stand elsewhere in the catalogue.

    Parameters
    ----------
    record
        The record, which stays as it is.
    place
        Gives the new place of each copy from the old one and its size in bytes.
    """
    variables = list(variable_records(record))
    if all(variable.inline is None for variable in variables):
        return record
    for i, variable in enumerate(variables):
        if variable.inline is not None:
            first, *others = variable.columns
            moved = first._replace(inline=place(variable.inline, first.nbytes))
            variables[i] = variable._replace(columns=[moved, *others])
    return {**record, "variables": [variable.listed() for variable in variables]}


def shift_inline(record: NodeRecord, distance: int) -> NodeRecord:
    """Return a record whose copies of values stand further on in the catalogue."""
    return with_inline(record, lambda place, _: place + distance)


class DatasetBuilder:
    """Makes datasets from records; datasets of one shape after another are quick.

    Parameters
    ----------
    column
        Gives the plain array for a column of a path's node.
    values
        The catalogue's copy of small index coordinates.
    """

    def __init__(self, column: Callable[[list[str], Column], Any], values: bytes = b""):
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
        arrays: dict[str, Any] = {}
        attrs, compressed = {}, {}
        dims: dict[str, tuple[str, ...]] = {}
        for variable in variable_records(record):
            name, axes, spec, attributes, columns = variable
            if set(map(type, (name, *axes))) != {str} or "/" in name:
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
            inline = columns[0].inline
            if inline is not None and len(columns) == 1:
                arrays[name] = _inline_values(self._values, inline, spec, columns[0])
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


def _inline_values(
    values: memoryview, place: int, spec: codecs.Spec | None, column: Column
) -> np.ndarray:
    """Return the values of an index coordinate from their copy in the catalogue."""
    part = values[place : place + column.nbytes]
    raw = np.frombuffer(part, np.dtype(column.dtype)).reshape(column.shape)
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
        own = PandasMultiIndex(index, dim, level_coords_dtype=shown)
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
