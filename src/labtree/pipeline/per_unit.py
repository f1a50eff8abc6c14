"""Per-unit dictionaries to and from whole arrays along ``unit``.

The arrays are the session's own form; the dictionaries are how people think of one
unit. A value that some units lack is marked by a boolean ``<name>_missing(unit)``, named
in the attribute ``ancillary_variables``, so no dtype changes and a real NaN stays one.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError, unknown_name
from labtree.pipeline import dimensions
from labtree.pipeline.session_values import real_name, variable_name
from labtree.storage.missing import (
    ABSENT,
    ANCILLARY,
    MISSING,
    mark_missing,
    masks_of,
    stack_present,
)
from labtree.storage.ragged import SAMPLE_DIMENSION, count_variables, split_rows

UNSTACKED = "by_unit"  # attribute for what is neither a scalar nor an array


def unit_index(units: xr.Dataset, unit_id: str) -> int:
    """Return the row of a unit.

    Raises
    ------
    UnknownNameError
        If there is no such unit; the message lists those there are.
    """
    index = units.get_index("unit")
    if unit_id not in index:
        raise unknown_name("unit", unit_id, index)
    return int(np.flatnonzero(units["unit"].values == unit_id)[0])


def common_dtype(name: str, arrays: list[np.ndarray]) -> np.dtype[Any]:
    """Return the dtype that holds arrays of all units.

    Raises
    ------
    SessionError
        If they differ in more than their size.
    """
    kinds = {array.dtype for array in arrays}
    if len(kinds) == 1:
        only: np.dtype[Any] = arrays[0].dtype
        return only
    try:
        common = np.result_type(*kinds)
        safe = len({dtype.kind for dtype in kinds}) == 1
    except TypeError:
        safe = False
    if not safe:
        found = ", ".join(sorted(map(str, kinds)))
        raise SessionError(
            f"units disagree on the type of {name!r} ({found}); give one type to all of them"
        )
    return common


def _scalar_array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise SessionError(f"{name!r} holds {value!r}, which does not fit any array type")
    return array


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, str, bytes, np.generic)) or (
        isinstance(value, np.ndarray) and value.ndim == 0
    )


def _stack(
    name: str, variable: str, values: list[Any], dims: tuple[str, ...] | None
) -> dict[str, xr.Variable]:
    """Return the variables for one name."""
    present = [np.asarray(v) for v in values if v is not ABSENT]
    dtype = common_dtype(name, present)
    shapes = {array.shape for array in present}
    if len(shapes) == 1:
        shape = shapes.pop()
        out, _ = stack_present(values, dtype, shape)
        if dims is None or len(dims) != len(shape):
            dims = dimensions(name, variable, len(shape))
        return {variable: xr.Variable(("unit", *dims), out)}
    if any(len(shape) != 1 for shape in shapes):
        found = ", ".join(sorted(map(str, shapes)))
        raise SessionError(
            f"{name!r} has another shape in every unit ({found}); arrays of more than one "
            "dimension must agree"
        )
    counts = np.array([0 if v is ABSENT else len(v) for v in values], np.int64)
    element = f"{variable}_element"
    return {
        variable: xr.Variable((element,), np.concatenate(present).astype(dtype)),
        f"{variable}_row_size": xr.Variable(("unit",), counts, {SAMPLE_DIMENSION: element}),
    }


def _check_names(names: Collection[str]) -> None:
    """Refuse names that stand for something else in the arrays."""
    for name in names:
        owner = name.removesuffix(MISSING).removesuffix("_row_size")
        if name in ("", "unit", "spike", "row_size") or (owner != name and owner in names):
            raise SessionError(f"no value of a unit can be called {name!r}; the name is taken")


def encode_rows(
    rows: Mapping[str, Mapping[str, Any]], like: xr.Dataset | None = None
) -> xr.Dataset:
    """Return one Dataset along ``unit`` from a dictionary per unit.

    Scalars become one array along ``unit``, arrays of one shape are stacked, arrays of
    one dimension and different lengths become CF contiguous ragged arrays. Anything
    else (dictionaries, lists, None) is kept as it is in the attribute ``by_unit``.

    Parameters
    ----------
    rows : mapping of unit id to mapping of name to value
    like : Dataset, optional
        Names of dimensions, attributes and coordinates are taken over from here.

    Raises
    ------
    SessionError
        If the units disagree on a type, or on the shape of an array of more than one
        dimension.

    Examples
    --------
    >>> ds = encode_rows({"a": {"row": 1}, "b": {"row": 2, "tag": "on"}})
    >>> ds["row"].values.tolist(), ds["tag_missing"].values.tolist()
    ([1, 2], [True, False])
    """
    like = xr.Dataset() if like is None else like
    names = dict.fromkeys(name for row in rows.values() for name in row)
    _check_names(names)
    variables: dict[str, xr.Variable] = {}
    other: dict[str, dict[str, Any]] = {}
    for name in names:
        values = [row.get(name, ABSENT) for row in rows.values()]
        given = {unit: row[name] for unit, row in rows.items() if name in row}
        if all(map(_is_scalar, given.values())):
            values = [v if v is ABSENT else _scalar_array(name, v) for v in values]
        elif not all(
            isinstance(v, np.ndarray) and not v.dtype.hasobject for v in given.values()
        ):
            other[name] = given
            continue
        variable, name_attrs = variable_name(name, "value of a unit")
        known = like.variables.get(variable)
        dims = None if known is None else tuple(str(dim) for dim in known.dims[1:])
        made = _stack(name, variable, values, dims)
        kept = {} if known is None else known.attrs
        own_attrs = {k: v for k, v in kept.items() if k != ANCILLARY} | name_attrs
        made[variable].attrs.update(own_attrs)
        # of a ragged array the counts have a value per unit
        whole = f"{variable}_row_size" if f"{variable}_row_size" in made else variable
        missing = [value is ABSENT for value in values]
        variables |= made | mark_missing(whole, made[whole], missing)
    attrs = {key: value for key, value in like.attrs.items() if key != UNSTACKED}
    if other:
        attrs[UNSTACKED] = other
    variables["unit"] = xr.Variable(("unit",), np.array(list(rows), dtype=str))
    try:
        dataset = xr.Dataset(variables, attrs=attrs)
    except ValueError as error:
        raise SessionError(f"these values do not fit into one Dataset: {error}") from error
    sizes = dataset.sizes
    extra = {
        name: variable
        for name, variable in like.coords.variables.items()
        if name not in dataset.variables
        and all(sizes.get(d) == n for d, n in variable.sizes.items())
        and "unit" not in variable.dims
    }
    return dataset.assign_coords(extra).set_coords(
        [name for name, variable in variables.items() if variable.dims == ("unit",)]
    )


def decode_rows(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return a dictionary per unit; the inverse of :func:`encode_rows`.

    Examples
    --------
    >>> rows = {"a": {"row": 1, "trace": np.arange(2)}, "b": {"trace": np.arange(3)}}
    >>> decode_rows(encode_rows(rows))["b"]["trace"]
    array([0, 1, 2])
    """
    units = [str(unit) for unit in dataset["unit"].values]
    rows: dict[str, dict[str, Any]] = {unit: {} for unit in units}
    ragged = {dim: counts for counts, dim in count_variables(dataset).items()}
    masks = masks_of(dataset.variables)
    for name, variable in dataset.variables.items():
        if name == "unit" or name in ragged.values() or name in masks.values():
            continue
        first = variable.dims[0] if variable.dims else None
        if first in ragged:
            values: Any = split_rows(variable.values, dataset.variables[ragged[first]].values)
        elif first == "unit":
            values = variable.values
        else:
            continue
        whole = ragged.get(first, name)  # of a ragged array the counts have the mask
        missing = np.zeros(len(units), bool)
        if whole in masks:
            missing = dataset.variables[masks[whole]].values
        for unit, value, is_missing in zip(units, values, missing, strict=True):
            if not is_missing:
                rows[unit][real_name(name, variable.attrs)] = value
    for name, by_unit in dataset.attrs.get(UNSTACKED, {}).items():
        for unit, value in by_unit.items():
            rows[unit][name] = value
    return rows
