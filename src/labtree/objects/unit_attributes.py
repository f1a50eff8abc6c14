"""Attributes of units as coordinates along ``unit``, in their own dtype.

An attribute that some units lack keeps its dtype: the places of the missing values hold
a conspicuous filler (NaN, NaT, an empty string, the lowest integer, None) and a boolean
coordinate ``<name>_missing``, named in the attribute ``ancillary_variables``, says which
they are. So NaN, "" and None remain values that a unit can have.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray

from labtree.errors import DataError
from labtree.storage.missing import ABSENT, filler, mark_missing, masks_of, stack_present

Array: TypeAlias = NDArray[Any]
Attributes: TypeAlias = Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | pd.DataFrame


class Column(NamedTuple):
    """One attribute of all units, and which units lack it (None: no unit does)."""

    values: Array
    missing: NDArray[np.bool_] | None = None


REAL_NAME = "labtree_name"


def attribute_coords(
    attributes: Attributes | None,
    dims: Mapping[str, int],
    taken: Iterable[Hashable],
) -> dict[str, xr.Variable]:
    """Build the coordinates that hold attributes.

    Parameters
    ----------
    attributes : sequence of mappings, or mapping of columns, optional
        One mapping of names to values for each unit (None for a unit without any), or
        for each name one column of values: an array, a masked array, a list in which
        None stands for a missing value, or a pandas Series; or a DataFrame.
    dims : mapping of dimension to size
        Usually ``{"unit": n}``; with more dimensions the units follow in C order.
    taken : iterable of str
        Names that an attribute cannot have in this Dataset. An attribute called so gets
        a trailing underscore; its name is kept in the attribute ``labtree_name``.

    Raises
    ------
    DataError
        If there are more or fewer attributes than units, or a name is not a string.
    """
    if attributes is None:
        return {}
    shape = tuple(dims.values())
    columns = _columns(attributes, math.prod(shape))
    used = {str(name) for name in taken}
    plain = {name for name in columns if name and "/" not in name and name not in used}
    used |= plain
    coords: dict[str, xr.Variable] = {}
    for name, (values, missing) in columns.items():
        coord = name if name in plain else _unused(name.replace("/", "_"), used)
        attrs = {} if coord == name else {REAL_NAME: name}
        extra = tuple(_unused(f"{coord}_{axis}", used) for axis in range(1, values.ndim))
        variable = untouched_variable(
            (*dims, *extra), values.reshape(shape + values.shape[1:]), attrs
        )
        holes = np.zeros(shape, bool) if missing is None else missing.reshape(shape)
        made = mark_missing(coord, variable, holes, used)
        used |= set(made)
        coords |= made
    return coords


def untouched_variable(
    dims: tuple[str, ...], values: Array, attrs: Mapping[str, Any] | None = None
) -> xr.Variable:
    """Make a Variable that holds these very values.

    From an array of objects xarray would otherwise make dates, and of None beside strings
    NaN.
    """
    return xr.Variable(dims, values, attrs, fastpath=True)


def unit_attributes(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Return the attributes of each unit, as they were given.

    Parameters
    ----------
    ds : Dataset
        Any Dataset with a dimension ``unit``.

    Returns
    -------
    list of dict
        One dict for each unit, without the attributes that the unit lacks. Values of
        dtype bool, int64, float64, complex128 and str come as Python's own.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data(
    ...     [[1.0], [2.0]], neuron_attributes=[{"channel": 3}, {"quality": "good"}]
    ... )
    >>> ds.channel.dtype, ds.channel_missing.values
    (dtype('int64'), array([False,  True]))
    >>> labtree.spikes.unit_attributes(ds)
    [{'channel': 3}, {'quality': 'good'}]
    """
    return records(ds, ("unit",))


def attribute_columns(
    ds: xr.Dataset, dims: tuple[str, ...] = ("unit",)
) -> Iterator[tuple[Any, xr.Variable, NDArray[np.bool_] | None]]:
    """Give each attribute along some dimensions: its name, its variable, what is missing.

    What is missing is a mask that is True where a unit lacks the attribute; None: no unit
    does.
    """
    coords = {
        name: coord.variable
        for name, coord in ds.coords.items()
        if coord.dims[: len(dims)] == dims
    }
    masks = masks_of(coords)
    for name, variable in coords.items():
        if name not in masks.values():
            missing = np.asarray(coords[masks[name]].values, bool) if name in masks else None
            yield variable.attrs.get(REAL_NAME, name), variable, missing


def records(ds: xr.Dataset, dims: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the attributes along some dimensions, one dict for each place in C order."""
    count = math.prod(ds.sizes.get(dim, 0) for dim in dims)
    out: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, variable, mask in attribute_columns(ds, dims):
        values = variable.values.reshape(count, *variable.shape[len(dims) :])
        missing = [False] * count if mask is None else mask.ravel().tolist()
        for record, value, is_missing in zip(out, _as_given(values), missing, strict=True):
            if not is_missing:
                record[name] = value
    return out


def column(values: Sequence[Any]) -> Column:
    """Put values of any type into one array, in their own dtype where they share one.

    Parameters
    ----------
    values : sequence
        ``ABSENT`` stands for a missing value.

    Returns
    -------
    Column
        Values of shape (n,), or (n, *shape) for arrays of one shape and dtype; of dtype
        object where the values differ in type or no dtype holds them exactly.

    Examples
    --------
    >>> column([1, ABSENT, 3])
    Column(values=array([                   1, -9223372036854775808,                    3]),
           missing=array([False,  True, False]))
    >>> column([True, 5])
    Column(values=array([True, 5], dtype=object), missing=None)
    """
    present = [value for value in values if value is not ABSENT]
    dtype, shape = _shared_dtype(present)
    return Column(*stack_present(values, dtype, shape))


def masked_column(values: Array, missing: NDArray[np.bool_]) -> Column:
    """Fill the missing rows of an array; a column whose values are known to be exact."""
    if not missing.any():
        return Column(values)
    filled = values.copy()
    filled[missing] = filler(values.dtype)
    return Column(filled, missing)


def alike(first: Any, second: Any) -> bool:
    """Return whether two values are the same in type and content; NaN is like NaN."""
    if not (isinstance(second, type(first)) and isinstance(first, type(second))):
        return False
    if isinstance(first, np.ndarray):
        if first.dtype != second.dtype or first.shape != second.shape:
            return False
        if first.dtype.hasobject:
            return alike(first.ravel().tolist(), second.ravel().tolist())
        return bool(first.tobytes() == second.tobytes())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(alike, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(alike(first[k], second[k]) for k in first)
    both_nan: bool = first != first and second != second
    return both_nan or bool(first == second)


def _columns(attributes: Attributes, n: int) -> dict[str, Column]:
    if isinstance(attributes, Mapping | pd.DataFrame):
        names: list[Any] = list(attributes)
        columns = {name: _given_column(attributes[name], name) for name in names}
        sizes = {name: len(item.values) for name, item in columns.items()}
        wrong = {name: size for name, size in sizes.items() if size != n}
        if wrong:
            raise DataError(
                f"neuron_attributes: each column needs {n} values, one for each unit; found "
                f"{wrong}"
            )
    else:
        columns = _columns_of_records(list(attributes), n)
    strange = [name for name in columns if not isinstance(name, str)]
    if strange:
        raise DataError(
            f"neuron_attributes: names must be strings, found {strange[0]!r}; write str(name)"
        )
    return columns


def _columns_of_records(
    attributes: list[Mapping[str, Any] | None], n: int
) -> dict[str, Column]:
    if len(attributes) != n:
        raise DataError(
            f"neuron_attributes has {len(attributes)} items, expected {n}, one for each unit"
        )
    wrong = [item for item in attributes if not isinstance(item, Mapping | None)]
    if wrong:
        raise DataError(
            "neuron_attributes: each item must be a dict of names and values, or None; "
            f"found {type(wrong[0]).__name__}"
        )
    given = [item or {} for item in attributes]
    names = dict.fromkeys(name for item in given for name in item)
    return {name: column([item.get(name, ABSENT) for item in given]) for name in names}


def _given_column(values: Any, name: Any) -> Column:
    if isinstance(values, Column):
        return values
    if isinstance(values, pd.DataFrame):
        raise DataError(
            f"neuron_attributes: {values.shape[1]} columns are called {name!r}; give each a "
            "name of its own"
        )
    if isinstance(values, xr.DataArray | xr.Variable) and values.ndim:
        return Column(np.asarray(values.values))
    if isinstance(values, str | bytes) or not np.iterable(values):
        raise DataError(
            f"neuron_attributes: {name!r} must be a column with one value for each unit, "
            f"found {values!r}"
        )
    if isinstance(values, pd.Series | pd.Index | ExtensionArray):
        gaps = np.asarray(values.isna())
        if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biufcmM":
            return masked_column(np.asarray(values), gaps)
        pairs = zip(values.tolist(), gaps.tolist(), strict=True)
        return column([ABSENT if gap else value for value, gap in pairs])
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        inner = tuple(range(1, mask.ndim))
        missing = np.asarray(mask.any(axis=inner), dtype=bool)
        if not np.array_equal(missing, mask.all(axis=inner)):
            raise DataError(
                f"neuron_attributes: {name!r}: the array of a unit is missing whole or not at "
                "all"
            )
        return masked_column(values.data, missing)
    if isinstance(values, np.ndarray):
        return Column(values)
    return column([ABSENT if value is None else value for value in values])


def _shared_dtype(present: Sequence[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype and shape that hold all values exactly; object where there is none."""
    types = {type(value) for value in present}
    dtype, shape = None, ()
    if len(types) == 1:
        (kind,) = types
        if kind is np.ndarray:
            forms = {(value.dtype, value.shape) for value in present}
            if len(forms) == 1:
                dtype, shape = forms.pop()
        elif kind is int:
            dtype = _dtype_of_integers(present)
        elif kind in (str, np.str_):
            # A fixed-width string forgets the NULs at its end.
            if not any(value.endswith("\0") for value in present):
                dtype = np.dtype(f"U{max(1, *map(len, present))}")
        elif kind in (bool, float, complex):
            dtype = np.dtype(kind)
        elif issubclass(kind, np.generic) and not issubclass(kind, np.character):
            dtypes = {value.dtype for value in present}
            dtype = dtypes.pop() if len(dtypes) == 1 else None
    if dtype is None or dtype.hasobject:
        return np.dtype(object), ()
    return dtype, shape


def _dtype_of_integers(values: Sequence[int]) -> np.dtype[Any] | None:
    for whole in (np.int64, np.uint64):
        limits = np.iinfo(whole)
        if limits.min <= min(values) and max(values) <= limits.max:
            return np.dtype(whole)
    return None


def _as_given(values: Array) -> Iterable[Any]:
    native = values.dtype in map(np.dtype, (bool, np.int64, float, complex))
    if values.ndim == 1 and (native or values.dtype.kind == "U"):
        return list(values.tolist())
    return values


def _unused(name: str, used: set[str]) -> str:
    while not name or name in used:
        name += "_"
    used.add(name)
    return name
