"""Attributes of HDF5 objects: native where netCDF has the type, exact in every case.

A str, an int of 64 bits, a float and a one-dimensional numeric array of two or more
values are netCDF attributes and come back as they were. All others also stand, exact, in
one JSON object, the attribute ``labtree_attrs``. What netCDF can show of them is written
natively as well, and a native value that another program has changed is the one that
counts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from h5py import h5a, h5s, h5t

from labtree.storage import codecs, json_values
from labtree.storage.names import is_legal
from labtree.storage.value_attributes import MARKS

#: What the root of a file states as its conventions, unless the user states others.
CONVENTIONS = "CF-1.11"
#: The attribute that holds all attributes of an object as JSON.
EXACT = "labtree_attrs"
#: The attribute that lists their names, where the order of the two kinds does not tell it.
ORDER = "labtree_attrs_order"

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
        ORDER,
        "labtree_layout",
        "labtree_file_format",
        "labtree_file_page",
        *MARKS,
    }
)

_SCALAR = h5s.create(h5s.SCALAR)
_TEXT_TYPES: dict[int, Any] = {}


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


def write_attribute(owner: Any, name: bytes, kind: Any, array: np.ndarray) -> None:
    """Write an array, whose type HDF5 calls `kind`, as one attribute of an open object."""
    space = h5s.create_simple(array.shape) if array.ndim else _SCALAR
    h5a.create(owner, name, kind, space).write(array, mtype=kind)


def write_native(owner: Any, name: str, value: Any) -> None:
    """Write a value that netCDF has a type for as one attribute of an open object."""
    kind, key = type(value), name.encode()
    if kind is str:
        data = value.encode()
        write_attribute(owner, key, _text_type(len(data) or 1), np.array(data or b"\0"))
    elif kind is float:
        write_attribute(owner, key, h5t.IEEE_F64LE, np.array(value))
    elif kind is int:
        write_attribute(owner, key, h5t.STD_I64LE, np.array(value, np.int64))
    else:
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        write_attribute(owner, key, h5t.py_create(array.dtype, logical=True), array)


def _is_exact(value: Any) -> bool:
    """Return whether the native attribute gives back the very same Python value."""
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
    exact: dict[Any, Any] = {}
    shown: list[Any] = []
    for name, value in attrs.items():
        hidden = type(name) is not str or name in RESERVED or name in taken
        mirror = None if hidden or not name or not is_legal(name) else _mirror(value)
        if mirror is not None:
            write_native(owner, name, mirror)
            shown.append(name)
        if mirror is None or not _is_exact(value):
            exact[name] = value
    if exact:
        write_native(owner, EXACT, json_values.dumps(exact, f"{path}.attrs"))
        if [*shown, *(name for name in exact if name not in shown)] != list(attrs):
            write_native(owner, ORDER, json_values.dumps(list(attrs)))


def merge_attributes(
    native: Mapping[Any, Any], taken: frozenset[str] = frozenset()
) -> dict[Any, Any]:
    """Return the attributes that labtree was given, from those that are in a file.

    Parameters
    ----------
    native
        As h5netcdf reads them.
    taken
        Names that the object's own encoding uses.

    Raises
    ------
    ValueError, TypeError
        If ``labtree_attrs`` is damaged.
    """
    found = {
        name: _plain_value(value)
        for name, value in native.items()
        if name not in RESERVED and name not in taken
    }
    if EXACT not in native:
        return found
    kept = json_values.loads(native[EXACT])
    for name, value in dict(kept).items():
        mirror = _mirror(value) if name in found else None
        if mirror is None or _same(found[name], mirror):
            found[name] = value
    order = json_values.loads(native[ORDER]) if ORDER in native else []
    return {name: found[name] for name in [*order, *found] if name in found}


def _plain_value(value: Any) -> Any:
    """Return a scalar of the types that Python has as Python's."""
    if isinstance(value, np.ndarray) and value.shape == (1,):
        value = value[0]
    if isinstance(value, (np.int64, np.float64, np.bool_, np.str_)):
        return value.item()
    return value


def _same(native: Any, mirror: Any) -> bool:
    a, b = np.asarray(native), np.asarray(mirror)
    if a.dtype.kind in "US" or b.dtype.kind in "US":
        return bool(a.dtype.kind == b.dtype.kind and np.array_equal(a, b))
    return a.size == b.size and bool(
        np.array_equal(a.reshape(-1), b.reshape(-1), equal_nan=a.dtype.kind == "f")
    )
