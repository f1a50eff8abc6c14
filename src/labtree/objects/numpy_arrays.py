"""numpy arrays, masked ones too, as datasets with one variable, ``data``."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.objects.registry import Kind, add_kind, raw_or
from labtree.storage._xarray import Variable
from labtree.storage.arrays import memory_array
from labtree.storage.dataset_checks import check_layout
from labtree.storage.missing import ANCILLARY
from labtree.storage.unsupported import unsupported


def array_variable(dims: tuple[str, ...], array: np.ndarray, path: str = "obj") -> Variable:
    """Return a Variable whose values are a copy of `array`, whatever its dtype.

    xarray changes some arrays that it is given: dates of other units than s, ms, us and
    ns or of the other byte order, and objects that are dates or texts. Those are kept as
    their bytes and decoded when they are read.
    """
    check_layout(array.dtype, array.ndim, path)
    if array.dtype.kind in "biufcUSV" or (
        array.dtype.kind in "mM"
        and array.dtype.isnative
        and np.datetime_data(array.dtype) in _XARRAY_UNITS
    ):
        return Variable(dims, np.array(array, order="C", subok=False))
    return Variable(dims, memory_array(array, path))


_XARRAY_UNITS = {("s", 1), ("ms", 1), ("us", 1), ("ns", 1)}


def array_to_dataset(array: np.ndarray, path: str = "obj") -> xr.Dataset:
    """Return a numpy array as a dataset.

    Parameters
    ----------
    array
        Of any dtype and shape; a MaskedArray becomes the variables ``data`` and ``mask``.
    path
        How to name it in an error.

    Raises
    ------
    TypeError
        If it is of another subclass, or holds objects that cannot be kept exactly.
    """
    if type(array) not in (np.ndarray, np.ma.MaskedArray):
        raise unsupported(array, path)
    dims = tuple(f"dim_{axis}" for axis in range(array.ndim))
    if not isinstance(array, np.ma.MaskedArray):
        return xr.Dataset({"data": array_variable(dims, array, path)})
    data: np.ndarray = array.data
    if type(data) is not np.ndarray:
        raise unsupported(data, path)
    variables = {"data": array_variable(dims, data, path)}
    if array.mask is not np.ma.nomask:
        variables["mask"] = array_variable(dims, np.asarray(array.mask), path)
        variables["data"].attrs[ANCILLARY] = "mask"
    # The fill value only where one was chosen, which has the array's dtype: asking for it
    # makes numpy's default, which need not fit, and would be cut or refused if it were set.
    fill = getattr(array, "_fill_value", None)
    if fill is not None and fill.dtype != array.dtype:
        fill = None
    about = {"fill_value": fill, "hard": bool(array.hardmask)}
    return xr.Dataset(variables, attrs={"labtree_masked": about})


def dataset_to_array(dataset: xr.Dataset) -> np.ndarray:
    """Return the array that :func:`array_to_dataset` was given."""
    data: np.ndarray = dataset.variables["data"].data
    about = dataset.attrs.get("labtree_masked")
    if about is None:
        return data
    mask: Any = np.ma.nomask
    if "mask" in dataset.variables:
        mask = dataset.variables["mask"].data
    array = np.ma.MaskedArray(data, mask=mask, hard_mask=about["hard"], copy=False)
    if about["fill_value"] is not None:
        array.fill_value = about["fill_value"]
    return array


def _array_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return shape and dtype."""
    variable = dataset.variables["data"]
    return {"shape": list(variable.shape), "dtype": str(variable.dtype)}


add_kind(
    Kind("ndarray", raw_or(array_to_dataset), dataset_to_array, _array_summary),
    np.ndarray,
    np.ma.MaskedArray,
)
