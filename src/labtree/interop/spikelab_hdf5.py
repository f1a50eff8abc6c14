"""Pieces of SpikeLab's files: links, attributes, arrays, arrays in JSON.

Attributes and arrays are read through h5py's low-level calls: a file has many small
parts, and an object of h5py for each costs more than the part.
"""

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5s
from numpy.typing import NDArray

from labtree.errors import FormatError

__all__ = [
    "array",
    "attribute",
    "decode_array",
    "encode_array",
    "links",
    "names",
    "optional_array",
    "required_attribute",
    "typed_group",
    "write_array",
]

_LARGE = 64 * 2**20
_MOST_PACKED = 1000


def links(gid: Any) -> list[tuple[bytes, int]]:
    """Give the names and the types of all links of a group."""
    found: list[tuple[bytes, int]] = []
    if gid.get_num_objs():
        gid.links.iterate(lambda name, info: found.append((name, info.type)), info=True)
    return found


def names(gid: Any) -> list[str]:
    """Give the names of all links of a group."""
    return [name.decode("utf-8", "backslashreplace") for name, _ in links(gid)]


def attribute(oid: Any, name: bytes, default: Any = None) -> Any:
    """Read an attribute as Python's own type, an array as an array."""
    if not h5a.exists(oid, name):
        return default
    handle = h5a.open(oid, name)
    dtype = handle.dtype
    value = np.empty(handle.shape, dtype)
    handle.read(value)
    if value.shape:
        return value
    found = value[()]
    if isinstance(found, bytes):
        return found.decode("utf-8")
    return found.item() if isinstance(found, np.generic) and dtype.names is None else found


def required_attribute(oid: Any, name: bytes) -> Any:
    """Read an attribute that must be there."""
    value = attribute(oid, name)
    if value is None:
        raise FormatError(f"the attribute {name.decode()} is missing")
    return value


def array(gid: Any, name: str) -> NDArray[Any]:
    """Read a dataset that must be there."""
    if not gid.links.exists(name.encode()):
        raise FormatError(f"the dataset {name!r} is missing")
    link = gid.links.get_info(name.encode())
    if link.type != h5l.TYPE_HARD:
        raise FormatError(f"the dataset {name!r} is a link to elsewhere, which is not followed")
    return _read(h5d.open(gid, name.encode()))


def optional_array(gid: Any, name: str) -> NDArray[Any] | None:
    """Read a dataset, or give None if it is not there."""
    return array(gid, name) if gid.links.exists(name.encode()) else None


def _read(dataset: Any) -> NDArray[Any]:
    dtype, shape = dataset.dtype, dataset.shape
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > _LARGE and size > _MOST_PACKED * dataset.get_storage_size():
        raise FormatError(
            f"a dataset says that it holds {size} bytes, but hardly any are stored"
        )
    if dtype.kind == "O" and h5py.check_string_dtype(dtype):
        return np.asarray(h5py.Dataset(dataset).asstr()[()], dtype=str)
    if dtype.hasobject:
        return np.asarray(h5py.Dataset(dataset)[()])
    values = np.empty(shape, dtype)
    if values.size:
        dataset.read(h5s.ALL, h5s.ALL, values)
    return values


def decode_array(found: dict[str, Any]) -> Any:
    """Make an array of what SpikeLab writes for one into JSON."""
    if found.get("__ndarray__") is not True:
        return found
    try:
        values = np.array(found["values"], dtype=np.dtype(found["dtype"]))
        return values.reshape(found["shape"])
    except (KeyError, TypeError, ValueError):
        return found


def typed_group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    """Make a group that says its type."""
    group = parent.create_group(name)
    group.attrs["__type__"] = kind
    return group


def write_array(
    group: h5py.Group, name: str, values: NDArray[Any], *, mark: bool = True
) -> None:
    """Write an array; strings as UTF-8 of any length."""
    if values.dtype.kind != "U":
        group[name] = values
        return
    dataset = group.create_dataset(name, values.shape, h5py.string_dtype())
    if values.size:
        dataset[...] = values.astype(object)
    if mark:
        dataset.attrs["__string_array__"] = True


def encode_array(value: Any) -> Any:
    """Give the JSON form of an array or a numpy scalar, for :func:`json.dumps`."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return {
            "__ndarray__": True,
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "values": value.ravel().tolist(),
        }
    raise TypeError(f"SpikeLab cannot store a {type(value).__name__} there")
