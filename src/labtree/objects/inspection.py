"""What ``ds.ws`` says about one Dataset or DataArray."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.objects.datasets import dataarray_to_dataset
from labtree.objects.registry import KIND, Kind, kind_named
from labtree.optional import require
from labtree.storage.records import check_dataset

__all__ = ["kind", "plot", "summary", "validate"]


def kind(obj: xr.Dataset | xr.DataArray) -> str:
    """Return the name of an object's kind."""
    if isinstance(obj, xr.DataArray):
        return "dataarray"
    return str(obj.attrs.get(KIND, "dataset"))


def _kind(obj: xr.Dataset | xr.DataArray) -> Kind:
    return kind_named(kind(obj))


def summary(obj: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """Return what a list of items shows of an object, JSON values; reads no data."""
    if isinstance(obj, xr.DataArray):
        dims = [str(dim) for dim in obj.dims]
        return {"dims": dims, "shape": list(obj.shape), "dtype": str(obj.dtype)}
    return _kind(obj).summary(obj)


def validate(obj: xr.Dataset | xr.DataArray) -> None:
    """Raise an error that says what is wrong with an object.

    Raises
    ------
    ValueError
        If it does not hold together as its kind should.
    TypeError
        If a part cannot be kept exactly, with its path.
    """
    own = _kind(obj).validate
    if own is not None and isinstance(obj, xr.Dataset):
        own(obj)
    check_dataset(obj if isinstance(obj, xr.Dataset) else dataarray_to_dataset(obj), "ds")


def plot(obj: xr.Dataset | xr.DataArray, **options: Any) -> Any:
    """Draw an object in the way of its kind.

    Raises
    ------
    ValueError
        If it holds no array, or several, that could be drawn.
    ModuleNotFoundError
        If matplotlib is missing; the message says how to install it.
    """
    own = _kind(obj).plot
    if own is not None:
        return own(obj, **options)
    require("matplotlib", purpose="ds.ws.plot()", extra="plot")
    import matplotlib.pyplot as plt

    array = obj if isinstance(obj, xr.DataArray) else _only_array(obj)

    if options.get("ax") is None and array.ndim in (1, 2):
        options["ax"] = plt.subplots(layout="constrained")[1]
    drawn = array.plot(**options)
    return options.get("ax", drawn)


def _only_array(dataset: xr.Dataset) -> xr.DataArray:
    drawable = [
        name
        for name, variable in dataset.data_vars.items()
        if variable.ndim in (1, 2) and np.issubdtype(variable.dtype, np.number)
    ]
    if len(drawable) != 1:
        raise ValueError(
            f"cannot choose what to draw of a dataset with the arrays {drawable}; name one: "
            "ds['name'].ws.plot()"
        )
    return dataset[drawable[0]]
