"""What labtree wrote in a group of a file that another program changed.

There the attributes that labtree put on variables say what their values are.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import FormatError
from labtree.storage import codecs, json_values
from labtree.storage._xarray import Variable, data_of
from labtree.storage.arrays import Column
from labtree.storage.attributes import CONVENTIONS, merge_attributes
from labtree.storage.blobs import Key, checksum
from labtree.storage.lazy import is_whole
from labtree.storage.netcdf_source import SLACK, GroupStore, NetCDFSource
from labtree.storage.records import DatasetBuilder, VariableRecord, node_record
from labtree.storage.value_attributes import cf_attributes, spec_of_marks


def is_of_labtree(variable: Variable) -> bool:
    """Return whether labtree wrote a variable, which may have been changed since."""
    return "labtree_crc32c" in variable.attrs


def edited_dataset(
    store: GroupStore, raw: Mapping[str, Variable], attrs: dict[str, Any]
) -> xr.Dataset:
    """Return what labtree wrote in a group, lazy; values that were changed cannot be read.

    Parameters
    ----------
    store
        The group.
    raw
        All its variables, undecoded.
    attrs
        Its attributes.
    """
    arrays = {
        name: _EditedArray(variable, store.source, store.path_of(name))
        for name, variable in raw.items()
        if is_of_labtree(variable)
    }
    names = {name: _real_name(name, raw[name].attrs) for name in arrays}
    dims = _dimension_names(store)
    coords: list[str] = []
    variables: list[VariableRecord] = []
    for name in arrays:
        if "labtree_beside" in raw[name].attrs:
            continue
        record, told = _variable_record(name, raw, arrays)
        axes = [dims.get(axis, axis) for axis in record.dims]
        variables.append(record._replace(name=names[name], dims=axes))
        coords += [names.get(word, word) for word in told]
    if "labtree_layout" in attrs:
        layout = json_values.loads(attrs["labtree_layout"])
    else:
        words = str(attrs.get("coordinates", "")).split()
        layout = {"coords": [names.get(word, word) for word in words]}
    known = {each.name for each in variables}
    for levels in layout.get("multiindexes", {}).values():
        known.difference_update(levels)
    coords = [name for name in (*layout.get("coords", []), *coords) if name in known]
    layout["coords"] = list(dict.fromkeys(coords))
    own = merge_attributes(attrs, frozenset({"coordinates", "Conventions"}))
    conventions = attrs.get("Conventions", CONVENTIONS)
    if store.where == "/" and conventions != CONVENTIONS:
        own["Conventions"] = conventions
    builder = DatasetBuilder(lambda _, column: arrays[column.name])
    return builder.build(node_record([], json_values.encode(own), layout, variables))


def _variable_record(
    name: str, raw: Mapping[str, Variable], arrays: Mapping[str, "_EditedArray"]
) -> tuple[VariableRecord, list[str]]:
    """Return what is said about a variable, under names in the file, and its coordinates."""
    attrs = raw[name].attrs
    spec = spec_of_marks(attrs, arrays[name].dtype)
    if spec is not None and spec["codec"] == "utf8":
        arrays[name].widen(np.dtype(spec["dtype"]).itemsize // 4)
    parts = [name]
    hidden: set[str] = {"coordinates", *cf_attributes(spec)}
    if "labtree_text" in attrs:
        parts.append(str(attrs["labtree_text"]))
        hidden.add("labtree_text")
    if codecs.has_mask(spec):
        parts.append(str(attrs["ancillary_variables"]).split()[-1])
        hidden.add("ancillary_variables")
    for part in parts:
        if part not in arrays:
            raise FormatError(f"{part}, which belongs to {name}, is not there any more")
    axes = list(map(str, raw[name].dims))
    if codecs.last_dimension(spec, arrays[name].shape) is not None:
        axes.pop()
    own = merge_attributes(attrs, frozenset(hidden))
    coords = [] if "coordinates" in own else str(attrs.get("coordinates", "")).split()
    if not all(word in raw for word in coords):  # another program wrote it
        own["coordinates"], coords = attrs["coordinates"], []
    columns = [arrays[part].column(part) for part in parts]
    return VariableRecord(name, axes, spec, json_values.encode(own), columns), coords


def _real_name(name: str, attrs: Mapping[str, Any]) -> str:
    named = attrs.get("labtree_real_name")
    return name if named is None else str(json_values.loads(named))


def _dimension_names(store: GroupStore) -> dict[str, str]:
    """Return the real names of dimensions that are called otherwise in the file."""
    found = {}
    for name in store.ds.dimensions:
        group = store.ds._h5group
        while "%" in name and name not in group and group.name != "/":
            group = group.parent
        if "%" in name and name in group and "labtree_real_name" in group[name].attrs:
            found[name] = str(json_values.loads(group[name].attrs["labtree_real_name"]))
    return found


class _EditedArray:
    """A plain array of labtree's in a file that another program changed."""

    def __init__(self, variable: Variable, source: NetCDFSource, name: str):
        self._variable = Variable(variable.dims, data_of(variable))
        self.dtype, self.shape, self.name = variable.dtype, variable.shape, name
        self.crc = int(variable.attrs["labtree_crc32c"])
        self.place = (source, 0)
        self._padding = 0

    def column(self, name: str) -> Column:
        """Return what a record says about it; its place is this object's to know."""
        return Column(name, self.dtype.str, list(self.shape), None, self.crc)

    def widen(self, width: int) -> None:
        """Pad characters to a width: xarray writes no more than the longest text needs."""
        if self.shape and self.shape[-1] < width:
            size = math.prod(self.shape[:-1]) * width
            if size > SLACK:
                raise FormatError(
                    f"{self.place[0].name}: {self.name} declares texts of {size} bytes, which "
                    "are not in the file"
                )
            self._padding = width - self.shape[-1]
            self.shape = (*self.shape[:-1], width)

    def _padded(self, values: np.ndarray) -> np.ndarray:
        if not self._padding:
            return values
        empty = np.zeros((*values.shape[:-1], self._padding), values.dtype)
        return np.concatenate([values, empty], axis=-1)

    def read(self) -> np.ndarray:
        """Return the whole array, checked against its checksum."""
        values = self._padded(np.asarray(self._variable.values))
        if checksum(values) != self.crc:
            source = self.place[0]
            raise FormatError(
                f"{source.name}: the values of {self.name} are not those that labtree wrote: "
                "another program changed them, or they are damaged. To accept them: labtree "
                f"verify --accept {source.name} {self.name.rpartition('/')[0].strip('/')}"
            )
        return values

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        if is_whole(key, self._variable.shape):
            return self.read()
        return self._padded(np.asarray(self._variable[key].values))
