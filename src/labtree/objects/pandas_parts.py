"""Indexes and arrays of pandas in a Dataset as plain variables, and back.

netCDF has types for neither. The attribute ``labtree_pandas`` says what each was (``of``):
a "column" or an "index" of pandas, a "multi" index that its values alone do not give back, a
"range" index, "texts", of whose index only pandas' dtype has to be kept, or dates with a
"frequency".
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from pandas.api.extensions import ExtensionArray
from xarray.indexes import PandasIndex, PandasMultiIndex, RangeIndex

from labtree.objects.columns import (
    Pieces,
    decode_column,
    decode_index,
    decode_string_dtype,
    encode_column,
    encode_frequency,
    encode_index,
    encode_string_dtype,
    set_frequency,
)
from labtree.storage._xarray import data_of
from labtree.storage.unsupported import refused_together

#: Says which variables stand for indexes and arrays of pandas, and how to make them again.
PANDAS = "labtree_pandas"

_Meta = dict[str, Any]
_Made = tuple[_Meta, dict[str, xr.Variable]]


class _Found(NamedTuple):
    """What of pandas a dataset holds."""

    arrays: list[Hashable]
    multi: dict[Hashable, tuple[PandasMultiIndex, list[Hashable]]]
    ranges: dict[Hashable, RangeIndex]
    texts: dict[Hashable, pd.StringDtype]
    frequencies: dict[Hashable, Any]


def is_pandas(dataset: xr.Dataset, name: Hashable) -> bool:
    """Return whether a variable is an array of pandas, or has an index that its values lose."""
    if not isinstance(dataset.variables[name].dtype, np.dtype):
        return True
    index = dataset.xindexes.get(name)
    return (
        isinstance(index, PandasIndex)
        and isinstance(index.index.dtype, pd.StringDtype)
        and index.index.hasnans
    )


def _find(dataset: xr.Dataset) -> _Found:
    arrays = [name for name in dataset.variables if is_pandas(dataset, name)]
    found = _Found(arrays, {}, {}, {}, {})
    for index, variables in dataset.xindexes.group_by_index():
        if isinstance(index, PandasMultiIndex):
            if not _comes_back(index.index):
                found.multi[index.dim] = (index, list(variables))
        elif type(index) is RangeIndex:
            found.ranges[index.dim] = index
        elif isinstance(index, PandasIndex) and isinstance(index.index.dtype, pd.StringDtype):
            # Of an array that is no array of objects, the values say it.
            found.texts.update(
                (name, index.index.dtype)
                for name in variables
                if name not in arrays and dataset.variables[name].dtype == object
            )
        elif isinstance(index, PandasIndex) and index.dim not in arrays:
            frequency = getattr(index.index, "freq", None)
            if frequency is not None:
                found.frequencies[index.dim] = frequency
    return found


def to_plain(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Return a dataset with the arrays and indexes of pandas, and ranges, as plain arrays.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly; the message has the path of each.
    """
    found = _find(dataset)
    if not any(found):
        return dataset
    replaced = {*found.arrays, *found.multi}
    pieces = Pieces(taken=[name for name in dataset.variables if name not in replaced])
    levels = {name for _, names in found.multi.values() for name in names}
    about: dict[str, Any] = {}
    coords: dict[str, xr.Variable] = {}
    data: dict[str, xr.Variable] = {}
    gone: list[Hashable] = []
    with refused_together() as attempt:
        for name in found.arrays:
            # One of more dimensions is refused later, by its dtype.
            if name in levels or dataset.variables[name].ndim != 1:
                continue
            encoded = attempt(_array, dataset, name, pieces, path)
            if encoded is None:
                continue
            about[str(name)], made = encoded
            (coords if name in dataset.coords else data).update(made)
            gone.append(name)
        for dim, (index, names) in found.multi.items():
            meta, made = _encoded(encode_index, index.index, dim, pieces, dim, path)
            attrs = {str(name): dict(dataset.variables[name].attrs) for name in names}
            widths = {  # of texts that xarray shows as numpy's, not as objects
                str(name): dtype.str
                for name, dtype in index.level_coords_dtype.items()
                if isinstance(dtype, np.dtype) and dtype.kind == "U"
            }
            meta |= {"of": "multi", "dim": dim, "coord": True}
            about[str(dim)] = meta | {"all_attrs": attrs, "widths": widths}
            coords |= made
            gone += names
        for dim, ticks in found.ranges.items():
            span = [ticks.start, ticks.stop, ticks.size]
            about[str(_name(ticks))] = {"of": "range", "range": span, "dim": dim, "coord": True}
        for name, dtype in found.texts.items():
            dim = dataset.variables[name].dims[0]
            about[str(name)] = {"of": "texts", "dim": dim} | encode_string_dtype(dtype)
        for name, frequency in found.frequencies.items():
            freq = attempt(encode_frequency, frequency, f"{path}[{name!r}]")
            about[str(name)] = {"of": "frequency", "dim": name, "freq": freq}
    # A variable may be called "order"; none in a tree has an empty name.
    about["" if "order" in about else "order"] = [str(name) for name in dataset.variables]
    plain = dataset.drop_indexes([_name(index) for index in found.ranges.values()]).drop_vars(
        gone
    )
    plain = plain.assign(data).assign_coords(xr.Coordinates(coords, indexes={}))
    plain.attrs[PANDAS] = about
    return plain


def _name(index: RangeIndex) -> Hashable:
    (name,) = index.transform.coord_names
    return name


def _encoded(
    encode: Callable[[Any, str, Pieces, str], _Meta],
    values: Any,
    name: Hashable,
    pieces: Pieces,
    dim: Hashable,
    path: str,
) -> _Made:
    """Return what `encode` says of values, and what it put into the pieces as variables."""
    before = set(pieces)
    meta = encode(values, f"{name}", pieces, f"{path}[{name!r}]")
    return meta, pieces.variables(dim, only=set(pieces) - before)


def _array(dataset: xr.Dataset, name: Hashable, pieces: Pieces, path: str) -> _Made:
    """Return how to make an array of pandas along one dimension, and its pieces."""
    variable = dataset.variables[name]
    (dim,) = variable.dims
    own = dataset.xindexes.get(name)
    if isinstance(own, PandasIndex):
        meta, made = _encoded(encode_index, own.index, name, pieces, dim, path)
        meta["of"] = "index"
    else:
        held = data_of(variable)  # for texts, `variable.data` is an array of objects
        values = held if isinstance(held, ExtensionArray) else variable.data
        column, made = _encoded(encode_column, values, name, pieces, dim, path)
        meta = {"of": "column", "column": column}
    attrs = dict(variable.attrs)
    return meta | {"dim": dim, "attrs": attrs, "coord": name in dataset.coords}, made


def _comes_back(index: pd.MultiIndex) -> bool:
    """Return whether an index with these levels is what its values make."""
    try:
        levels = [index.get_level_values(i) for i in range(index.nlevels)]
        if not all(
            isinstance(level.dtype, np.dtype) or str(level.dtype) == "str" for level in levels
        ):
            return False
        made = pd.MultiIndex.from_arrays(
            [np.asarray(level) for level in levels], names=index.names
        )
    except (TypeError, ValueError):
        return False
    return all(
        mine.equals(theirs) and mine.dtype == theirs.dtype
        for mine, theirs in zip(index.levels, made.levels, strict=True)
    )


def to_pandas(dataset: xr.Dataset, about: dict[str, Any]) -> xr.Dataset:
    """Return a dataset with what :func:`to_plain` made plain."""
    order_key = "" if "" in about else "order"
    order = about[order_key]
    arrays = {str(name): v.values for name, v in dataset.variables.items()}
    metas = {name: meta for name, meta in about.items() if name != order_key}
    used = {piece for meta in metas.values() for piece in _pieces_of(meta)}
    plain = dataset.drop_vars([name for name in used if name in dataset.variables])
    made: Any
    for name, meta in metas.items():
        dim = meta["dim"]
        if meta["of"] == "range":
            start, stop, size = meta["range"]
            index = RangeIndex.linspace(
                start, stop, size, endpoint=False, coord_name=name, dim=dim
            )
            attrs = plain.variables[name].attrs
            plain = plain.drop_vars(name).assign_coords(xr.Coordinates.from_xindex(index))
            plain.variables[name].attrs = attrs
        elif meta["of"] == "texts":
            attrs = plain.variables[name].attrs
            dtype = decode_string_dtype(meta)
            made = pd.Index(plain.variables[name].values, dtype=dtype)
            plain = plain.assign_coords({name: (dim, made, attrs)})
        elif meta["of"] == "frequency":
            plain = _with_frequency(plain, name, meta["freq"])
        elif meta["of"] == "multi":
            made = decode_index(meta, arrays)
            own = PandasMultiIndex(made, dim)
            shown = {name: np.dtype(width) for name, width in meta["widths"].items()}
            own = PandasMultiIndex(made, dim, level_coords_dtype=own.level_coords_dtype | shown)
            plain = plain.assign_coords(xr.Coordinates.from_xindex(own))
            for part, attrs in meta["all_attrs"].items():
                plain.variables[part].attrs = attrs
        elif meta["of"] == "index":
            plain = plain.assign_coords({name: (dim, decode_index(meta, arrays))})
            plain.variables[name].attrs = meta["attrs"]
        else:
            variable = xr.Variable(dim, decode_column(meta["column"], arrays), meta["attrs"])
            if meta["coord"]:
                plain = plain.assign_coords(xr.Coordinates({name: variable}, indexes={}))
            else:
                plain = plain.assign({name: variable})
    known = [name for name in order if name in plain.variables]
    return plain[[*known, *(name for name in plain.variables if name not in order)]]


def _with_frequency(dataset: xr.Dataset, name: str, freq: Any) -> xr.Dataset:
    """Return a dataset whose index has a frequency again, if it still has that index."""
    made = dataset.indexes.get(name)
    if not isinstance(made, pd.DatetimeIndex | pd.TimedeltaIndex):
        return dataset
    made = made.copy()
    try:
        set_frequency(made, freq)
    except ValueError:  # its values were changed in the tree
        return dataset
    return dataset.assign_coords({name: (name, made, dataset.variables[name].attrs)})


def _pieces_of(meta: Any) -> Iterable[str]:
    """Return the names of the pieces that a meta names."""
    if isinstance(meta, dict):
        for key, value in meta.items():
            if key in ("piece", "missing") and isinstance(value, str):
                yield value
            elif key == "codes":
                yield from value
            elif key not in ("attrs", "all_attrs"):
                yield from _pieces_of(value)
    elif isinstance(meta, list):
        for item in meta:
            yield from _pieces_of(item)
