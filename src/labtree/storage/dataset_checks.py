"""What of a dataset is written to a file, and what no file can keep."""

from typing import Any

import numpy as np
import xarray as xr
from xarray.indexes import PandasIndex, PandasMultiIndex

from labtree.errors import UnsupportedTypeError
from labtree.storage import codecs, json_values
from labtree.storage._xarray import ExplicitlyIndexed, Variable, data_of
from labtree.storage.blocks import is_dask
from labtree.storage.unsupported import refused_together, with_article

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
    tuples = {index.dim for index in indexes if isinstance(index, PandasMultiIndex)}
    return {
        name: variable  # type: ignore[misc]
        for name, variable in dataset.variables.items()
        if name not in tuples
    }


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
        if isinstance(index, PandasMultiIndex):
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
    multi = {
        index.dim for index in dataset.xindexes.values() if isinstance(index, PandasMultiIndex)
    }
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
