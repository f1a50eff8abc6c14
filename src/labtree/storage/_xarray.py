"""All that labtree uses of xarray beyond its public names, in one place.

The links between the nodes of trees are in :mod:`labtree.storage.nodes`.
``tests/storage/test_xarray_private.py`` says what is expected of each.
"""

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
    "data_of",
    "explicit_indexing_adapter",
    "is_in_memory",
]


def data_of(variable: Variable | xr.DataArray) -> Any:
    """Return what holds a variable's values, without reading them."""
    return variable.variable._data if isinstance(variable, xr.DataArray) else variable._data


def is_in_memory(variable: Variable | xr.DataArray) -> bool:
    """Return whether a variable's values are in memory: neither lazy nor chunked."""
    data: Any = variable.variable if isinstance(variable, xr.DataArray) else variable
    return bool(data._in_memory) and not hasattr(data._data, "__dask_graph__")
