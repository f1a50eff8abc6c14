"""Attributes of HDF5 objects: native where netCDF has the type, exact in every case.

A str, an int of 64 bits, a float and a one-dimensional numeric array of two or more
values are netCDF attributes and come back as they were. As soon as one attribute of
an object is anything else, all of them also stand, in order and exact, as JSON in the
attribute ``labtree_attrs``; what netCDF can show of them is written natively as well,
and a native value that another program has changed is the one that counts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from h5py import h5, h5a, h5p, h5s, h5t

from labtree.storage import codecs, json_values
from labtree.storage.names import is_legal

__all__ = ["EXACT", "RESERVED", "read_attributes", "write_attributes", "write_native"]

#: The attribute that holds all attributes of an object as JSON.
EXACT = "labtree_attrs"

#: Names that HDF5 and netCDF-4 use themselves; an attribute of that name goes to JSON only.
RESERVED = frozenset(
    {
        "CLASS",
        "NAME",
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "DIMENSION_LABELS",
        "_Netcdf4Dimid",
        "_Netcdf4Coordinates",
        "_nc3_strict",
        "_NCProperties",
        "_FillValue",
        EXACT,
        "labtree_codec",
        "labtree_layout",
    }
)

_SCALAR = h5s.create(h5s.SCALAR)
_TEXT_TYPES: dict[int, Any] = {}
_FLOAT = h5t.IEEE_F64LE
_INT = h5t.STD_I64LE


def _text_type(size: int) -> Any:
    kind = _TEXT_TYPES.get(size)
    if kind is None:
        kind = h5t.TypeID.copy(h5t.C_S1)
        kind.set_size(size)
        kind.set_cset(h5t.CSET_UTF8)
        kind.set_strpad(h5t.STR_NULLTERM)
        if size < 256:
            _TEXT_TYPES[size] = kind
    return kind


def write_native(owner: Any, name: str, value: Any) -> None:
    """Write a value that :func:`native` accepts as one attribute of an open object."""
    kind, key = type(value), name.encode()
    if kind is str:
        data = value.encode()
        dtype = _text_type(len(data) or 1)
        h5a.create(owner, key, dtype, _SCALAR).write(np.array(data or b"\0"), mtype=dtype)
    elif kind is float:
        h5a.create(owner, key, _FLOAT, _SCALAR).write(np.array(value), mtype=_FLOAT)
    elif kind is int:
        h5a.create(owner, key, _INT, _SCALAR).write(np.array(value, np.int64), mtype=_INT)
    else:
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        dtype = h5t.py_create(array.dtype, logical=True)
        space = h5s.create_simple(array.shape) if array.ndim else _SCALAR
        h5a.create(owner, key, dtype, space).write(array, mtype=dtype)


def _is_exact(value: Any) -> bool:
    """Say whether the native attribute gives back the very same Python value."""
    kind = type(value)
    if kind is str:
        return _is_text(value)
    if kind is int:
        return bool(-(2**63) <= value < 2**63)
    if kind is np.ndarray:
        return value.ndim == 1 and value.size > 1 and codecs.plain(value.dtype)
    return kind is float


def _is_text(value: str) -> bool:
    if value.isascii():
        return "\0" not in value
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _mirror(value: Any) -> Any:
    """Return what netCDF can show of a value, or None."""
    if _is_exact(value):
        return value
    if type(value) is bool or isinstance(value, np.bool_):
        return np.int8(value)
    if isinstance(value, np.number) and codecs.plain(value.dtype):
        return value
    if isinstance(value, np.ndarray) and value.ndim <= 1 and value.size:
        return value if codecs.plain(value.dtype) else None
    if type(value) in (list, tuple) and value:
        kinds = {type(item) for item in value}
        if kinds <= {int, float} and all(_is_exact(item) for item in value):
            return np.array(value)
    return None


def write_attributes(
    owner: Any, attrs: Mapping[Any, Any], path: str, taken: frozenset[str] = frozenset()
) -> None:
    """Write the attributes of a group or variable.

    Parameters
    ----------
    owner
        The open h5py object id.
    attrs
        Attributes of any kind that :func:`labtree.storage.json_values.encode` keeps.
    path
        How to name the object in an error.
    taken
        Names that the object's own encoding uses; such an attribute goes to JSON only.
    """
    complete = True
    for name, value in attrs.items():
        if type(name) is not str or name in RESERVED or name in taken:
            complete = False
            continue
        complete = complete and _is_exact(value)
        mirror = _mirror(value) if name and is_legal(name) else None
        if mirror is None:
            complete = False
        else:
            write_native(owner, name, mirror)
    if not complete:
        write_native(owner, EXACT, json_values.dumps(dict(attrs), f"{path}.attrs"))


def read_attributes(owner: Any, taken: frozenset[str] = frozenset()) -> dict[Any, Any]:
    """Return the attributes of an open object, exact where labtree wrote them."""
    found: dict[Any, Any] = {}
    kept: dict[Any, Any] | None = None
    for name in _names(owner):
        if name == EXACT:
            kept = json_values.loads(read_native(owner, name))
        elif (name not in RESERVED or name == "_FillValue") and name not in taken:
            value = read_native(owner, name)
            if value is not None:
                found[name] = value
    if kept is None:
        return found
    merged = {}
    for name, value in kept.items():
        hidden = type(name) is not str or name in RESERVED or name in taken
        mirror = None if hidden or not name or not is_legal(name) else _mirror(value)
        if mirror is None:
            merged[name] = found.pop(name, value)
        elif name in found:
            native = found.pop(name)
            merged[name] = value if _same(native, mirror) else native
    return merged | found


def _same(native: Any, mirror: Any) -> bool:
    a, b = np.asarray(native), np.asarray(mirror)
    if a.dtype.kind in "US" or b.dtype.kind in "US":
        return bool(a.dtype.kind == b.dtype.kind and np.array_equal(a, b))
    return a.size == b.size and bool(
        np.array_equal(a.reshape(-1), b.reshape(-1), equal_nan=a.dtype.kind == "f")
    )


def _names(owner: Any) -> list[str]:
    plist = owner.get_create_plist()
    tracked = bool(plist.get_attr_creation_order() & h5p.CRT_ORDER_TRACKED)
    kind = h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME
    return [
        h5a.open(owner, index=i, index_type=kind).name.decode(errors="surrogateescape")
        for i in range(h5a.get_num_attrs(owner))
    ]


def read_native(owner: Any, name: str) -> Any:
    """Return one attribute as a Python or numpy value; None for what netCDF does not have."""
    attribute = h5a.open(owner, name.encode(errors="surrogateescape"))
    dtype, shape = attribute.dtype, attribute.shape
    if attribute.get_space().get_simple_extent_type() == h5s.NULL:
        return "" if attribute.get_type().get_class() == h5t.STRING else None
    if attribute.get_type().get_class() == h5t.STRING:
        return _read_text(attribute)
    if dtype.kind not in "iuf":
        return None
    value = np.empty(shape, dtype)
    attribute.read(value)
    if shape == ():
        if dtype == np.int64:
            return int(value)
        return float(value) if dtype == np.float64 else value[()]
    return value.reshape(-1)[0] if value.size == 1 else value


def _read_text(attribute: Any) -> Any:
    kind = attribute.get_type()
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value, mtype=None if kind.is_variable_str() else kind)
    texts = [
        item.decode(errors="replace") if isinstance(item, bytes) else str(item)
        for item in value.reshape(-1).tolist()
    ]
    return texts[0] if len(texts) == 1 else texts
