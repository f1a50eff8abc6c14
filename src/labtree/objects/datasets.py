"""Datasets, DataArrays and DataTrees as datasets that a tree and a file can hold."""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.indexes import PandasIndex, PandasMultiIndex, RangeIndex

from labtree.errors import UnsupportedTypeError
from labtree.objects.columns import (
    Pieces,
    decode_column,
    decode_index,
    encode_column,
    encode_index,
    string_dtype,
)
from labtree.objects.registry import (
    KIND_ATTRIBUTE,
    Kind,
    add_kind,
    decode,
    encode_part,
    raw_or,
)
from labtree.objects.values import dataset_to_value, value_to_dataset
from labtree.storage.codecs import MARKS
from labtree.storage.names import encode_name
from labtree.storage.records import check_dataset
from labtree.storage.unsupported import all_unsupported

__all__ = [
    "dataarray_to_dataset",
    "dataset_summary",
    "dataset_to_dataarray",
    "keep_dataset",
    "return_dataset",
]

#: Says which variables stand for indexes and arrays of pandas, and how to make them again.
_PANDAS = "labtree_pandas"
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
    refused: list[UnsupportedTypeError] = []
    try:
        copy = _plain_arrays(copy, path)
    except UnsupportedTypeError as error:
        refused.append(error)
        copy = copy.drop_vars([name for name in copy.variables if _is_foreign(copy, name)])
    try:
        check_dataset(copy, path)
    except UnsupportedTypeError as error:
        refused.append(error)
    if refused:
        raise all_unsupported(refused)
    return copy


def return_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset that :func:`keep_dataset` was given."""
    copy = dataset.copy()
    about = copy.attrs.pop(_PANDAS, None)
    names = copy.attrs.pop(_NAMES, None)
    if about:
        copy = _pandas_arrays(copy, about)
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


def _is_foreign(dataset: xr.Dataset, name: Hashable) -> bool:
    """Say whether a variable is an array of pandas, or has an index that its values lose."""
    if not isinstance(dataset.variables[name].dtype, np.dtype):
        return True
    index = dataset.xindexes.get(name)
    return (
        isinstance(index, PandasIndex)
        and isinstance(index.index.dtype, pd.StringDtype)
        and index.index.hasnans
    )


def _plain_arrays(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Return a dataset with the arrays and indexes of pandas, and ranges, as plain arrays."""
    foreign = [name for name in dataset.variables if _is_foreign(dataset, name)]
    multi: dict[Hashable, tuple[PandasMultiIndex, list[Hashable]]] = {}
    ranges: dict[Hashable, RangeIndex] = {}
    for index, variables in dataset.xindexes.group_by_index():
        if isinstance(index, PandasMultiIndex):
            if not _comes_back(index.index):
                multi[index.dim] = (index, list(variables))
        elif type(index) is RangeIndex:
            ranges[index.dim] = index
    texts = {
        name: index.index.dtype
        for name, index in dataset.xindexes.items()
        if isinstance(index, PandasIndex)
        and not isinstance(index, PandasMultiIndex)
        and isinstance(index.index.dtype, pd.StringDtype)
        and name not in foreign
        and dataset.variables[name].dtype == object  # else the values say it
    }
    if not (foreign or multi or ranges or texts):
        return dataset
    order, about = list(dataset.variables), dict[str, Any]()
    in_multi = {name for _, names in multi.values() for name in names}
    refused: list[UnsupportedTypeError] = []
    replaced = {*foreign, *multi}
    pieces = Pieces(taken=[name for name in dataset.variables if name not in replaced])
    coords: dict[str, xr.Variable] = {}
    data: dict[str, xr.Variable] = {}
    gone: list[Hashable] = []
    for name in foreign:
        if name in in_multi:
            continue
        variable = dataset.variables[name]
        before = set(pieces)
        where = f"{path}[{name!r}]"
        try:
            if variable.ndim != 1:
                continue  # refused below, by its dtype
            own = dataset.xindexes.get(name)
            if isinstance(own, PandasIndex):
                meta = encode_index(own.index, f"{name}", pieces, where)
                meta["of"] = "index"
            else:
                meta = encode_column(variable.data, f"{name}", pieces, where)
                meta = {"of": "column", "column": meta}
        except UnsupportedTypeError as error:
            refused.append(error)
            continue
        meta["dim"] = variable.dims[0]
        meta["attrs"] = dict(variable.attrs)
        meta["coord"] = name in dataset.coords
        about[str(name)] = meta
        made = pieces.variables(variable.dims[0], only=set(pieces) - before)
        (coords if meta["coord"] else data).update(made)
        gone.append(name)
    for dim, (index, names) in multi.items():
        before = set(pieces)
        meta = encode_index(index.index, f"{dim}", pieces, f"{path}[{dim!r}]")
        meta |= {"of": "multi", "dim": dim, "coord": True}
        meta["all_attrs"] = {str(n): dict(dataset.variables[n].attrs) for n in names}
        about[str(dim)] = meta
        coords |= pieces.variables(dim, only=set(pieces) - before)
        gone += names
    for dim, index in ranges.items():
        (name,) = index.transform.coord_names
        about[str(name)] = {
            "of": "range",
            "range": [index.start, index.stop, index.size],
            "dim": dim,
            "coord": True,
        }
    for name, dtype in texts.items():
        # The values are texts; that the index has pandas' dtype for them is all that is lost.
        na = "NA" if dtype.na_value is pd.NA else "nan"
        about[str(name)] = {
            "of": "texts",
            "dim": dataset.variables[name].dims[0],
            "storage": dtype.storage,
            "na": na,
        }
    if refused:
        raise all_unsupported(refused)
    plain = dataset.drop_indexes([i.transform.coord_names[0] for i in ranges.values()])
    plain = plain.drop_vars(gone)
    about["order"] = [str(name) for name in order]
    plain = plain.assign(data).assign_coords(xr.Coordinates(coords, indexes={}))
    plain.attrs[_PANDAS] = about
    return plain


def _comes_back(index: pd.MultiIndex) -> bool:
    """Say whether an index with these levels is what its values make."""
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


def _pandas_arrays(dataset: xr.Dataset, about: dict[str, Any]) -> xr.Dataset:
    """Return a dataset with what :func:`_plain_arrays` made plain."""
    order = about["order"]
    arrays = {str(name): v.values for name, v in dataset.variables.items()}
    metas = {name: meta for name, meta in about.items() if name != "order"}
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
            dtype = string_dtype(meta["storage"], meta["na"])
            made = pd.Index(plain.variables[name].values, dtype=dtype)
            plain = plain.assign_coords({name: (dim, made, attrs)})
        elif meta["of"] == "multi":
            made = decode_index(meta, arrays)
            plain = plain.assign_coords(xr.Coordinates.from_pandas_multiindex(made, dim))
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
    return plain[[name for name in order if name in plain.variables]]


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
    nodes = {node.relative_to(tree): node.to_dataset(inherit=False) for node in tree.subtree}
    return value_to_dataset({"name": tree.name, "nodes": nodes}, path, encode_part)


def _dataset_to_tree(dataset: xr.Dataset) -> xr.DataTree:
    content = dataset_to_value(dataset, decode)
    nodes = {"/" if name == "." else f"/{name}": ds for name, ds in content["nodes"].items()}
    return xr.DataTree.from_dict(nodes, name=content["name"])


def _tree_summary(dataset: xr.Dataset) -> dict[str, Any]:
    parts = dataset.attrs.get("labtree_parts", {})
    return {"nodes": len(parts), "variables": len(dataset.data_vars)}


add_kind(Kind("dataset", keep_dataset, _plain_dataset, dataset_summary), xr.Dataset)
add_kind(
    Kind("dataarray", raw_or(dataarray_to_dataset), dataset_to_dataarray, _dataarray_summary),
    xr.DataArray,
)
add_kind(
    Kind("datatree", raw_or(_tree_to_dataset), _dataset_to_tree, _tree_summary), xr.DataTree
)
