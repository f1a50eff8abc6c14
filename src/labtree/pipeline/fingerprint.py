"""Fingerprints of what a session holds, to tell whether anything has changed.

Every variable and every attribute of every node is an item with a checksum of its
content. The checksums serve to notice changes (32-bit CRC over the bytes plus type,
shape and dimensions), not to resist an adversary.
"""

import datetime
import hashlib
import pickle
import secrets
import zlib
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["digest", "fingerprint_items", "fingerprint_value", "node_of", "nodes_of"]


_EXACT_REPR = (
    str, bytes, bool, int, float, complex, PurePath, datetime.date, datetime.timedelta,
)  # fmt: skip


def digest(items: Mapping[str, str]) -> str:
    """Return one short hash of many items."""
    text = "\n".join(f"{key}\t{items[key]}" for key in sorted(items))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _array(data: np.ndarray[Any, Any]) -> str:
    if data.dtype.hasobject:
        text = "\n".join(fingerprint_value(one) for one in data.ravel().tolist())
        code = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    else:
        flat = np.ascontiguousarray(data).reshape(-1)
        code = zlib.crc32(flat.view(np.uint8).data) if flat.nbytes else 0
    return f"{data.dtype.descr if data.dtype.names else data.dtype.str}{data.shape}{code:08x}"


def fingerprint_value(value: Any) -> str:
    """Return a text that differs whenever the value or its type differs.

    Examples
    --------
    >>> fingerprint_value(1) == fingerprint_value(1.0)
    False
    >>> fingerprint_value({"a": 1, "b": [2]}) == fingerprint_value({"b": [2], "a": 1})
    True
    """
    if isinstance(value, Mapping):
        parts = sorted(
            f"{fingerprint_value(k)}={fingerprint_value(v)}" for k, v in value.items()
        )
        return "{" + ",".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "[" + ",".join(map(fingerprint_value, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "set[" + ",".join(sorted(map(fingerprint_value, value))) + "]"
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value).__name__ + _array(np.asarray(value))
    if isinstance(value, (xr.Dataset, xr.DataArray)):
        dataset = value.to_dataset(name="data") if isinstance(value, xr.DataArray) else value
        return digest(fingerprint_items(xr.DataTree(dataset)))
    if value is None or isinstance(value, _EXACT_REPR):
        return f"{type(value).__name__}:{value!r}"
    try:  # a repr may leave things out, as a long DataFrame's does
        stored = pickle.dumps(value, protocol=4)
    except Exception:  # whatever cannot be told apart counts as new each time
        stored = secrets.token_bytes(16)
    return f"{type(value).__name__}:{hashlib.sha256(stored).hexdigest()[:32]}"


def _variable(variable: xr.Variable, memo: dict[int, str]) -> str:
    attributes = fingerprint_value(variable.attrs) if variable.attrs else ""
    if isinstance(variable, xr.IndexVariable):
        content = _array(np.asarray(variable.values))
    elif isinstance(variable._data, np.ndarray):
        known = memo.get(id(variable._data))
        content = memo[id(variable._data)] = known or _array(variable._data)
    else:  # not in memory: its source stands for it, it is not read for this
        source = getattr(variable._data, "name", "lazy")
        content = f"{variable.dtype.str}{variable.shape}{source}"
    return f"{variable.dims}{content}{attributes}"


def fingerprint_items(
    tree: xr.DataTree,
    *,
    ignore_root: Iterable[str] = (),
    memo: dict[int, str] | None = None,
) -> dict[str, str]:
    """Return a checksum for every variable (``node:name``) and attribute (``node@name``).

    Parameters
    ----------
    tree : DataTree
    ignore_root : iterable of str
        Attributes of the root that do not count.
    memo : dict of int to str, optional
        Checksums by ``id`` of arrays that are known not to have changed; filled in.
    """
    ignored = set(ignore_root)
    memo = {} if memo is None else memo
    items: dict[str, str] = {}
    for node in tree.subtree:
        path = node.relative_to(tree) if node is not tree else "."
        dataset = node.to_dataset(inherit=False)
        items[path] = "node"
        for name, variable in dataset.variables.items():
            items[f"{path}:{name}"] = _variable(variable, memo)
        for name, value in dataset.attrs.items():
            if node is not tree or name not in ignored:
                items[f"{path}@{name}"] = digest({"": fingerprint_value(value)})
    return items


def node_of(item: str) -> str:
    """Return the node that an item belongs to."""
    cut = min((i for i in (item.find(":"), item.find("@")) if i >= 0), default=len(item))
    return item[:cut]


def nodes_of(items: Mapping[str, str], ignored: Iterable[str] = ()) -> dict[str, str]:
    """Return one hash per node over its items, without the ignored ones."""
    skip = set(ignored)
    grouped: dict[str, dict[str, str]] = {}
    for item, value in items.items():
        if item not in skip:
            grouped.setdefault(node_of(item), {})[item] = value
    return {node: digest(members) for node, members in grouped.items()}
