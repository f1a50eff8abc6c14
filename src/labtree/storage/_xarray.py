"""All that labtree uses of xarray beyond its public names, in one place.

The links between the nodes of trees are in :mod:`labtree.storage.nodes`.
``tests/storage/test_xarray_private.py`` says what is expected of each.
"""

from collections.abc import Iterable
from typing import Any

import xarray as xr
from xarray import Variable
from xarray.backends.file_manager import DummyFileManager
from xarray.core.indexing import (
    BasicIndexer,
    CopyOnWriteArray,
    ExplicitIndexer,
    ExplicitlyIndexed,
    IndexingSupport,
    LazilyIndexedArray,
    OuterIndexer,
    explicit_indexing_adapter,
)

__all__ = [
    "BasicIndexer",
    "CopyOnWriteArray",
    "DummyFileManager",
    "ExplicitIndexer",
    "ExplicitlyIndexed",
    "IndexingSupport",
    "LazilyIndexedArray",
    "OuterIndexer",
    "Variable",
    "attrs_of",
    "data_of",
    "dims_of",
    "explicit_indexing_adapter",
    "is_in_memory",
    "lazy_data_of",
]


def data_of(variable: Variable | xr.DataArray) -> Any:
    """Return what holds a variable's values, without reading them."""
    return variable.variable._data if isinstance(variable, xr.DataArray) else variable._data


def attrs_of(variables: Iterable[Variable]) -> list[dict[Any, Any]]:
    """Return the attributes of variables, and make no dictionaries where there are none."""
    return [variable._attrs or _NOTHING for variable in variables]


_NOTHING: dict[Any, Any] = {}


def dims_of(variables: Iterable[Variable]) -> list[tuple[Any, ...]]:
    """Return the dimensions of variables."""
    return [variable._dims for variable in variables]


def lazy_data_of(variables: Iterable[Variable]) -> list[Any]:
    """Return what each of some variables reads its values from; None for those in memory."""
    return [getattr(variable._data, "array", None) for variable in variables]


def is_in_memory(variable: Variable | xr.DataArray) -> bool:
    """Return whether a variable's values are in memory: neither lazy nor chunked."""
    data: Any = variable.variable if isinstance(variable, xr.DataArray) else variable
    return bool(data._in_memory) and not hasattr(data._data, "__dask_graph__")
