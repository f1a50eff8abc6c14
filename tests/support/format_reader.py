"""A reader of labtree's files written from docs/file-format.md alone, with h5py and numpy."""

# ruff: noqa: E501
import base64
import datetime as dt
import json
import struct

import h5py
import numpy as np

HIDDEN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_FillValue",
          "_Netcdf4Coordinates", "_NCProperties", "_Encoding", "dtype", "calendar",
          "coordinates", "Conventions")  # fmt: skip
MISSING = {"None": None, "NaN": float("nan"), "NA": "NA"}


def plain(value):
    value = value.decode() if isinstance(value, bytes) else value
    return value.item() if isinstance(value, np.generic) and value.ndim == 0 else value


def decoded(value):
    """Return what the terms of ``labtree_attrs`` stand for."""
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not next(iter(value)).startswith("$"):
        return {key: decoded(each) for key, each in value.items()}
    ((tag, of),) = value.items()
    readers = {
        "$tuple": lambda: tuple(decoded(of)), "$set": lambda: set(decoded(of)),
        "$frozenset": lambda: frozenset(decoded(of)), "$int": lambda: int(of, 16),
        "$dict": lambda: {decoded(key): decoded(each) for key, each in of},
        "$float": lambda: struct.unpack("<d", bytes.fromhex(of))[0],
        "$complex": lambda: complex(*struct.unpack("<2d", bytes.fromhex(of))),
        "$bytes": lambda: base64.b64decode(of), "$date": lambda: dt.date.fromisoformat(of),
        "$scalar": lambda: np.frombuffer(base64.b64decode(of[1]), as_dtype(of[0]))[0],
        "$array": lambda: np.frombuffer(base64.b64decode(of[2]), as_dtype(of[0])).reshape(of[1]),
    }  # fmt: skip
    return readers[tag]()


def as_dtype(of):
    if isinstance(of, str):
        return np.dtype(of)
    if "base" in of:
        return np.dtype((as_dtype(of["base"]), tuple(of["shape"])))
    formats = [as_dtype(each) for each in of["formats"]]
    kept = {key: of[key] for key in ("names", "offsets", "itemsize")}
    return np.dtype({**kept, "formats": formats}, align=of["aligned"])


def values(group, dataset):
    raw, marks = dataset[()], {key: plain(each) for key, each in dataset.attrs.items()}
    named = marks.get("labtree_dtype")
    if named in ("object", "json", "StringDType"):
        if "labtree_text" in marks:
            text, ends = group[marks["labtree_text"]][()].tobytes(), np.cumsum(raw.reshape(-1))
            parts = [text[end - n : end] for end, n in zip(ends, raw.reshape(-1), strict=True)]
            shape = raw.shape
        else:
            shape = raw.shape[:-1]
            parts = (
                raw.reshape(-1, raw.shape[-1]).view(f"S{raw.shape[-1]}").reshape(-1).tolist()
            )
        texts = [part.decode() for part in parts]
        found = [decoded(json.loads(each)) for each in texts] if named == "json" else texts
        result = np.array([*found, None], object)[:-1].reshape(shape)
        if "labtree_missing" in marks:
            mask = group[marks["ancillary_variables"].split()[-1]][()] != 0
            result[mask] = MISSING[marks["labtree_missing"]]
        return result
    if named is None:
        return raw
    dtype = as_dtype(json.loads(named)) if named.startswith("{") else np.dtype(named)
    if dtype.kind == "U" and raw.dtype.kind == "S":
        return np.char.decode(raw.view(f"S{raw.shape[-1]}")[..., 0], "utf-8").astype(dtype)
    if dtype.kind in "bf" and dtype.itemsize <= 8 and raw.dtype.kind != "u":
        return raw.astype(dtype)
    little = dtype.newbyteorder("<") if dtype.kind in "mMcU" else dtype
    extra = raw.ndim - len(dimensions(group, dataset))
    return raw.view(little).reshape(raw.shape[: raw.ndim - extra]).astype(dtype)


def dimensions(group, dataset):
    """Return the names of the dimensions without those of the encoding."""
    if dataset.attrs.get("CLASS") == b"DIMENSION_SCALE":
        numbers = np.atleast_1d(dataset.attrs.get("_Netcdf4Coordinates", []))
        scales = [each for each in group.values() if "_Netcdf4Dimid" in each.attrs]
        found = [s for n in numbers for s in scales if s.attrs["_Netcdf4Dimid"] == n] or [
            dataset
        ]
    else:
        found = [group.file[each[0]] for each in dataset.attrs.get("DIMENSION_LIST", [])]
    return [real(each) for each in found
            if not real(each).startswith(("labtree_chars_", "labtree_complex_", "labtree_points_", "labtree_bytes_"))]  # fmt: skip


def real(item):
    name = item.name.rpartition("/")[2].removeprefix("_nc4_non_coord_")
    return json.loads(item.attrs.get("labtree_real_name", json.dumps(name)))


def attributes(item):
    native = {key: plain(each) for key, each in item.attrs.items()}
    exact = decoded(json.loads(native.get("labtree_attrs", "{}")))
    hints = {"units"} if native.get("labtree_dtype", "")[1:2] in ("m", "M") else set()
    hints |= {"ancillary_variables"} if "labtree_missing" in native else set()
    return {key: each for key, each in native.items()
            if key not in HIDDEN and key not in hints and not key.startswith("labtree_")} | exact  # fmt: skip


def read(group):
    """Return attributes, variables (dimensions, values, attributes) and groups of a group."""
    datasets = [each for each in group.values() if isinstance(each, h5py.Dataset)]
    beside = {plain(each.attrs[key]).split()[-1] for each in datasets
              for key, mark in (("labtree_text", "labtree_text"), ("ancillary_variables", "labtree_missing"))
              if mark in each.attrs}  # fmt: skip
    return {
        "attrs": attributes(group),
        "variables": {
            real(each): (dimensions(group, each), values(group, each), attributes(each))
            for each in datasets
            if "labtree_crc32c" in each.attrs and each.name.rpartition("/")[2] not in beside
        },
        "groups": {real(each): read(each) for each in group.values() if isinstance(each, h5py.Group)},
    }  # fmt: skip
