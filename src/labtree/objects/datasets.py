"""Datasets and DataArrays as datasets that a tree and a file can hold."""

from collections.abc import Hashable
from typing import Any

import xarray as xr

from labtree.storage.names import encode_name
from labtree.storage.records import check_dataset

__all__ = [
    "dataarray_summary",
    "dataarray_to_dataset",
    "dataset_summary",
    "dataset_to_dataarray",
    "keep_dataset",
    "return_dataset",
]


def keep_dataset(dataset: xr.Dataset, path: str = "obj") -> xr.Dataset:
    """Return a copy of a dataset that a tree can hold, its labels made names.

    Labels that are no str, or that hold ``/``, are encoded; the attribute
    ``labtree_names`` says what they were.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly, with its path.
    """
    names = _tree_names((*dataset.variables, *dataset.dims))
    copy = dataset.copy(deep=True).drop_encoding()
    if names:
        copy = copy.rename(names)
        copy.attrs["labtree_names"] = {name: label for label, name in names.items()}
    check_dataset(copy, path)
    return copy


def return_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset that :func:`keep_dataset` was given."""
    copy = dataset.copy()
    names = copy.attrs.pop("labtree_names", None)
    return copy.rename(names) if names else copy


def _tree_names(labels: tuple[Hashable, ...]) -> dict[Hashable, str]:
    names: dict[Hashable, str] = {}
    for label in dict.fromkeys(labels):
        if type(label) is str and label and "/" not in label:
            continue
        name = base = (
            encode_name(label) if isinstance(label, str) and label else f"label {label!r}"
        )
        count = 2
        while name in labels or name in names.values():
            name, count = f"{base} {count}", count + 1
        names[label] = name.replace("/", "%2F")
    return names


def dataset_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the sizes of the dimensions and the names of the variables."""
    return {
        "sizes": {str(dim): size for dim, size in dataset.sizes.items()},
        "variables": [str(name) for name in dataset.data_vars],
    }


def dataarray_to_dataset(array: xr.DataArray, path: str = "obj") -> xr.Dataset:
    """Return a DataArray as a dataset whose variable ``data`` holds its values."""
    name = "data"
    while name in array.coords or name in array.dims:
        name += "_"
    coords = array.coords.to_dataset()
    dataset = coords.assign({name: array.variable})
    dataset.attrs = {"labtree_array": {"variable": name, "name": array.name}}
    return keep_dataset(dataset, path)


def dataset_to_dataarray(dataset: xr.Dataset) -> xr.DataArray:
    """Return the DataArray that :func:`dataarray_to_dataset` was given."""
    copy = return_dataset(dataset)
    about = copy.attrs["labtree_array"]
    array: xr.DataArray = copy[about["variable"]]
    return array.rename(about["name"])


def dataarray_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return dimensions, shape and dtype."""
    variable = dataset.variables[dataset.attrs["labtree_array"]["variable"]]
    dims = [str(dim) for dim in variable.dims]
    return {"dims": dims, "shape": list(variable.shape), "dtype": str(variable.dtype)}
