"""The attributes by which a variable in a file says what its values are.

labtree's own tell the spec of :mod:`labtree.storage.codecs` exactly: :func:`marks` makes
them and :func:`spec_of_marks` reads them. Those of CF are for other readers.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from labtree.errors import FormatError
from labtree.storage import dtypes, json_values
from labtree.storage.codecs import Spec, has_mask

#: Attributes of variables that say what their values are.
MARKS = frozenset(
    {
        "labtree_beside",
        "labtree_crc32c",
        "labtree_dtype",
        "labtree_missing",
        "labtree_real_name",
        "labtree_text",
    }
)

_UNITS = {
    "D": "days",
    "h": "hours",
    "m": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}
_OTHER_UNITS = {
    "Y": "years",
    "M": "months",
    "W": "weeks",
    "ps": "picoseconds",
    "fs": "femtoseconds",
    "as": "attoseconds",
}


def without_marks(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the attributes that are the user's."""
    return {key: value for key, value in attrs.items() if key not in MARKS}


def marks(spec: Spec | None, dtype: np.dtype[Any]) -> dict[str, str]:
    """Return the attributes that say what the values of a variable are.

    Parameters
    ----------
    spec
        As :func:`labtree.storage.codecs.encode` gave it.
    dtype
        Of the first plain array.

    Examples
    --------
    >>> from labtree.storage.codecs import view_spec
    >>> marks(*view_spec(np.dtype("c8"))[:2])
    {'labtree_dtype': '<c8'}
    """
    if spec is None:
        return {} if dtype.isnative or dtype.byteorder == "<" else {"labtree_dtype": dtype.str}
    if spec["codec"] == "text":
        name = "json" if spec["elements"] == "json" else spec["dtype"]
        found = {"labtree_dtype": {"O": "object"}.get(name, name)}
        if has_mask(spec):
            found["labtree_missing"] = spec["missing"]
        return found
    named = spec["dtype"]
    return {"labtree_dtype": named if isinstance(named, str) else json.dumps(named)}


def spec_of_marks(attrs: Mapping[Any, Any], dtype: np.dtype[Any]) -> Spec | None:
    """Return the spec that the attributes of a variable tell; the inverse of :func:`marks`.

    Parameters
    ----------
    attrs
        All attributes of the variable.
    dtype
        As it is stored.

    Raises
    ------
    FormatError
        If they make no sense.
    """
    named = attrs.get("labtree_dtype")
    if named is None:
        return None
    try:
        if named in ("object", "json", "StringDType"):
            spec = {
                "codec": "text",
                "dtype": "StringDType" if named == "StringDType" else "O",
                "elements": "json" if named == "json" else "str",
                "form": "joined" if "labtree_text" in attrs else "padded",
            }
            missing = attrs.get("labtree_missing")
            return spec if missing is None else spec | {"missing": missing}
        known = json_values.parse(named) if named.startswith("{") else named
        if dtypes.dtype_from_json(known).kind == "U" and dtype.kind == "S":
            return {"codec": "utf8", "dtype": known}
    except Exception as error:  # what stands in a damaged attribute can be anything
        raise FormatError(f"labtree_dtype {named!r} is no dtype") from error
    return {"codec": "view", "dtype": known}


def cf_attributes(spec: Spec | None) -> dict[str, Any]:
    """Return the attributes by which other readers know what a variable is."""
    if spec is None:
        return {}
    if spec["codec"] in ("utf8", "text"):
        return {"_Encoding": "utf-8"} if spec.get("form") != "joined" else {}
    dtype = dtypes.dtype_from_json(spec["dtype"])
    if dtype.kind == "b":
        return {"dtype": "bool"}
    if dtype.kind not in "mM":
        return {}
    unit, count = np.datetime_data(dtype)
    shown: dict[str, Any] = {"_FillValue": np.array(np.iinfo(np.int64).min, "<i8")}
    if unit == "generic":
        return shown
    words = _UNITS.get(unit) or _OTHER_UNITS[unit]
    if count != 1:
        words = f"{count} {words}"
    if dtype.kind == "m":
        return {"units": words} | shown
    if words in _UNITS.values():
        return {
            "units": f"{words} since 1970-01-01",
            "calendar": "proleptic_gregorian",
        } | shown
    # CF has no such units; with "since" a reader of CF would fail.
    return {"units": f"{words} after 1970-01-01"} | shown


def fill_value(value: Any, dtype: np.dtype[Any]) -> np.ndarray | None:
    """Return a fill value in the type of its variable, as netCDF wants it, or None."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        return None
    with np.errstate(all="ignore"):
        try:
            cast = np.array(value).astype(dtype)
        except (TypeError, ValueError, OverflowError):
            return None
    return cast if np.array_equal(cast, np.array(value), equal_nan=dtype.kind == "f") else None
