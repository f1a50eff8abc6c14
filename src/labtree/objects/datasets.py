"""Datasets, DataArrays and DataTrees as datasets that a tree and a file can hold."""

from collections.abc import Hashable
from typing import Any

import xarray as xr

from labtree.objects.pandas_parts import PANDAS, is_pandas, to_pandas, to_plain
from labtree.objects.plots import plot_plain
from labtree.objects.registry import KIND_ATTRIBUTE, Kind, add_kind, raw_or
from labtree.objects.values import dataset_to_value, value_to_dataset
from labtree.storage.dataset_checks import check_dataset
from labtree.storage.names import encode_name
from labtree.storage.unsupported import refused_together
from labtree.storage.value_attributes import MARKS

_NAMES = "labtree_names"


def keep_dataset(dataset: xr.Dataset, path: str = "obj") -> xr.Dataset:
    """Return a copy of a dataset that a tree can hold: names, indexes and arrays made plain.

    Labels that are no str, or that hold ``/``, are encoded; the attribute
    ``labtree_names`` says what they were. Indexes and arrays of pandas that netCDF has no
    type for become plain variables; ``labtree_pandas`` says what they were.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly; the message has the path of each.
    """
    names = _tree_names((*dataset.variables, *dataset.dims))
    copy = dataset.copy(deep=True).drop_encoding()
    for variable in copy.variables.values():
        if any(mark in variable.attrs for mark in MARKS):
            variable.attrs = {k: v for k, v in variable.attrs.items() if k not in MARKS}
    if names:
        copy = copy.rename(names)
        copy.attrs[_NAMES] = {name: label for label, name in names.items()}
    with refused_together() as attempt:
        plain: xr.Dataset | None = attempt(to_plain, copy, path)
        if plain is None:  # the rest is looked at, too
            plain = copy.drop_vars([name for name in copy.variables if is_pandas(copy, name)])
        attempt(check_dataset, plain, path)
    return plain


def return_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset that :func:`keep_dataset` was given."""
    copy = dataset.copy()
    about = copy.attrs.pop(PANDAS, None)
    names = copy.attrs.pop(_NAMES, None)
    if about:
        copy = to_pandas(copy, about)
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


def _dataarray_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return dimensions, shape and dtype."""
    variable = dataset.variables[dataset.attrs["labtree_array"]["variable"]]
    dims = [str(dim) for dim in variable.dims]
    return {"dims": dims, "shape": list(variable.shape), "dtype": str(variable.dtype)}


def _plain_dataset(dataset: xr.Dataset) -> xr.Dataset:
    copy = return_dataset(dataset)
    if copy.attrs.get(KIND_ATTRIBUTE) == "dataset":
        del copy.attrs[KIND_ATTRIBUTE]
    return copy


def _tree_to_dataset(tree: xr.DataTree, path: str) -> xr.Dataset:
    # What the top inherits from nodes above it would otherwise stay behind with them.
    nodes = {
        node.relative_to(tree): node.to_dataset(inherit=node is tree) for node in tree.subtree
    }
    return value_to_dataset({"name": tree.name, "nodes": nodes}, path)


def _dataset_to_tree(dataset: xr.Dataset) -> xr.DataTree:
    content = dataset_to_value(dataset)
    nodes = {"/" if name == "." else f"/{name}": ds for name, ds in content["nodes"].items()}
    return xr.DataTree.from_dict(nodes, name=content["name"])


def _tree_summary(dataset: xr.Dataset) -> dict[str, Any]:
    parts = dataset.attrs.get("labtree_parts", {})
    return {"nodes": len(parts), "variables": len(dataset.data_vars)}


add_kind(
    Kind("dataset", keep_dataset, _plain_dataset, dataset_summary, plot=plot_plain), xr.Dataset
)
add_kind(
    Kind("dataarray", raw_or(dataarray_to_dataset), dataset_to_dataarray, _dataarray_summary),
    xr.DataArray,
)
add_kind(
    Kind("datatree", raw_or(_tree_to_dataset), _dataset_to_tree, _tree_summary), xr.DataTree
)
