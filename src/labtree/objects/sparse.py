"""Sparse arrays of scipy, as the arrays that they are made of."""

import sys
from typing import Any

import numpy as np
import xarray as xr

from labtree.objects.registry import Kind, add_kind, raw_or
from labtree.objects.values import dataset_to_value, value_to_dataset
from labtree.optional import require

#: What each format consists of, beside its shape.
_PARTS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "coords"),
    "dia": ("data", "offsets"),
}


def is_sparse(obj: Any) -> bool:
    """Return whether an object is a sparse array of scipy in a format that is kept."""
    module = sys.modules.get("scipy.sparse")
    return (
        module is not None
        and module.issparse(obj)
        and obj.format in _PARTS
        and type(obj) in (getattr(module, f"{obj.format}_{kind}") for kind in _CLASSES)
    )


_CLASSES = ("array", "matrix")


def _to_dataset(obj: Any, path: str) -> xr.Dataset:
    content = {
        "format": obj.format,
        "class": type(obj).__name__.partition("_")[2],
        "shape": tuple(int(size) for size in obj.shape),
        **{name: getattr(obj, name) for name in _PARTS[obj.format]},
    }
    dataset = value_to_dataset(content, path)
    dataset.attrs["labtree_sparse"] = {
        "format": obj.format,
        "shape": list(content["shape"]),
        "dtype": str(obj.dtype),
        "stored": int(obj.nnz),
    }
    return dataset


def _from_dataset(dataset: xr.Dataset) -> Any:
    scipy_sparse = require("scipy.sparse", purpose="reading sparse arrays", extra="mea")
    content = dataset_to_value(dataset)
    cls = getattr(scipy_sparse, f"{_known(content['format'])}_{content['class']}")
    parts = tuple(content[name] for name in _PARTS[content["format"]])
    if content["format"] == "coo":
        parts = (parts[0], tuple(np.asarray(axis) for axis in parts[1]))
    made = cls(parts, shape=content["shape"])
    for name in _PARTS[content["format"]]:
        setattr(made, name, content[name])  # scipy may have made the indices smaller
    return made


def _known(name: str) -> str:
    if name not in _PARTS:
        raise ValueError(f"unknown sparse format {name!r}")
    return name


def _summary(dataset: xr.Dataset) -> dict[str, Any]:
    return dict(dataset.attrs["labtree_sparse"])


add_kind(Kind("sparse", raw_or(_to_dataset), _from_dataset, _summary), when=is_sparse)
