"""The zarr.json of groups and arrays, as version 3 of the zarr specification has it."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from labtree.storage import codecs
from labtree.storage.attributes import RESERVED
from labtree.storage.names import encode_name, is_legal

#: The name of what a group or an array says of itself.
METADATA = "zarr.json"
# Characters that some file system has no place for, beside those of encode_name.
_FOREIGN = frozenset('<>:"\\|?*')
_NATIVE = {("f", 2, "u"), ("c", 8, "f"), ("c", 16, "f")}
# Names that Windows keeps for devices, whatever their suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_KINDS = {"i": "int", "u": "uint", "f": "float", "c": "complex"}

_COMPRESSIONS: dict[str, dict[str, Any]] = {
    "gzip": {"name": "gzip", "configuration": {"level": 4}},
    "zstd": {"name": "zstd", "configuration": {"level": 3, "checksum": False}},
}


def dump(value: Any) -> bytes:
    """Return a value as JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def file_names(names: Any) -> dict[str, str]:
    """Return the name in the store of each name of a group's members.

    Those that a file system, or zarr itself, has no place for are percent-encoded. Two
    that differ in case only are told apart by a number.

    Examples
    --------
    >>> file_names(["rate", "a:b", "zarr.json", "Rate"])
    {'rate': 'rate', 'a:b': 'a%3Ab', 'zarr.json': '%7Aarr.json', 'Rate': 'Rate%~1'}
    """
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        # A name that holds a percent sign is a node's, encoded already.
        encoded = name if is_legal(name) else encode_name(name)
        encoded = "".join(
            f"%{ord(character):02X}"
            if character in _FOREIGN or (i == len(encoded) - 1 and character == ".")
            else character
            for i, character in enumerate(encoded)
        )
        is_taken = encoded.casefold() == METADATA
        if encoded.startswith("__") or is_taken or _DEVICES.match(encoded):
            encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
        if len(encoded.encode()) > 220:  # with what is added it stays below 255 bytes
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            encoded = f"{encoded.encode()[:180].decode(errors='ignore')}%~{digest}"
        unique, count = encoded, 0
        while unique.casefold() in taken:
            count += 1
            unique = f"{encoded}%~{count}"
        taken.add(unique.casefold())
        given[name] = unique
    return given


def stored_as(spec: codecs.Spec | None, dtype: np.dtype[Any]) -> tuple[str, bool]:
    """Return zarr's name of the type of a plain array, and whether its last dimension goes.

    zarr has types for bool, float16, complex and texts, whose bytes are those of the plain
    array that a codec makes.

    Parameters
    ----------
    spec
        As :func:`labtree.storage.codecs.encode` gave it.
    dtype
        Of the plain array.
    """
    if spec is not None and spec["codec"] == "view" and isinstance(spec["dtype"], str):
        logical = np.dtype(spec["dtype"])
        if logical.kind == "b":
            return "bool", False
        if (logical.kind, logical.itemsize, dtype.kind) in _NATIVE:
            return f"{_KINDS[logical.kind]}{8 * logical.itemsize}", logical.kind == "c"
    if spec is not None and (spec["codec"] == "utf8" or spec.get("form") == "padded"):
        return "string", True
    if dtype.kind == "S":
        return "uint8", False
    return f"{_KINDS[dtype.kind]}{8 * dtype.itemsize}", False


def array_metadata(
    data_type: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dims: tuple[str, ...],
    attributes: dict[str, Any],
    separator: str,
    compression: str | None,
) -> dict[str, Any]:
    """Return the zarr.json of an array.

    Parameters
    ----------
    data_type, dtype
        zarr's name of the type, and the dtype of the plain array.
    shape, chunks, dims, attributes
        Of the array as zarr sees it.
    separator
        What stands between the numbers of a chunk's key.
    compression
        None, ``"gzip"`` or ``"zstd"``.
    """
    codecs: list[dict[str, Any]] = [{"name": "vlen-utf8"}]
    if data_type != "string":
        codecs = [{"name": "bytes"}]
        if dtype.itemsize > 1:
            big = dtype.newbyteorder("=") != dtype and np.little_endian
            codecs[0]["configuration"] = {"endian": "big" if big else "little"}
    if compression is not None:
        codecs.append(_COMPRESSIONS[compression])
    codecs.append({"name": "crc32c"})
    fill: Any = 0
    if data_type == "string":
        fill = ""
    elif data_type == "bool":
        fill = False
    elif data_type.startswith("float"):
        fill = "NaN"
    elif data_type.startswith("complex"):
        fill = ["NaN", "NaN"]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def shown_attributes(
    attrs: Mapping[Any, Any], encoded: Any, taken: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return attributes as JSON that others read, and exact beside them where that differs.

    Parameters
    ----------
    attrs
        As they are.
    encoded
        What :func:`labtree.storage.json_values.encode` made of them.
    taken
        Names that the object's own encoding uses.
    """
    shown: dict[str, Any] = {}
    complete = True
    for name, value in attrs.items():
        if type(name) is not str or name in RESERVED or name in taken or name[:1] == "$":
            complete = False
            continue
        plain = _plain(value)
        is_same = _is_native(value)
        complete = complete and is_same
        if is_same or plain is not None:
            shown[name] = plain
    if not complete:
        shown["labtree_attrs"] = encoded
    return shown


def _is_native(value: Any) -> bool:
    """Return whether JSON gives back the very same value."""
    kind = type(value)
    if kind in (str, bool, int, type(None)):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(_is_native, value))
    return kind is dict and all(
        type(key) is str and _is_native(item) for key, item in value.items()
    )


def _plain(value: Any) -> Any:
    """Return what JSON can show of a value, or None."""
    if _is_native(value):
        return value
    if isinstance(value, (np.bool_, np.number, np.ndarray)) and value.dtype.kind in "biufU":
        value = value.tolist()
    elif type(value) is tuple:
        value = list(value)
    return value if _is_native(value) else None
