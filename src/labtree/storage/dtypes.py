"""numpy dtypes and time zones as JSON; arrays of objects."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np

from labtree.errors import UnsupportedTypeError


def object_array(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return values as a one-dimensional array of objects, lists and arrays as they are.

    Examples
    --------
    >>> object_array([[1, 2], [3, 4]])
    array([list([1, 2]), list([3, 4])], dtype=object)
    """
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """Return a numpy dtype as JSON: its string, or the fields of a structured one.

    Examples
    --------
    >>> dtype_to_json(np.dtype(">f4"))
    '>f4'
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_to_json(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    fields: list[Any] = [dict(dtype.fields or {})[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [dtype_to_json(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": bool(dtype.isalignedstruct),
    }


def dtype_from_json(value: Any) -> np.dtype[Any]:
    """Return the dtype that :func:`dtype_to_json` wrote."""
    if isinstance(value, str):
        return np.dtype(value)
    if "base" in value:
        return np.dtype((dtype_from_json(value["base"]), tuple(value["shape"])))
    fields: dict[str, Any] = {
        "names": value["names"],
        "formats": [dtype_from_json(item) for item in value["formats"]],
        "offsets": value["offsets"],
        "itemsize": value["itemsize"],
    }
    if any(title is not None for title in value["titles"]):
        fields["titles"] = value["titles"]
    make: Any = np.dtype  # numpy does not type this form
    structured: np.dtype[Any] = make(fields, align=value["aligned"])
    return structured


def encode_timezone(zone: dt.tzinfo | None) -> Any:
    """Return a zone as JSON: None, "UTC", the key of a ZoneInfo, or an offset in seconds."""
    if zone is None or zone is dt.UTC:
        return None if zone is None else "UTC"
    key = getattr(zone, "key", None)
    if type(zone).__name__ == "ZoneInfo" and key is not None:
        return key
    if type(zone) is dt.timezone:
        return zone.utcoffset(None).total_seconds()
    raise UnsupportedTypeError(
        f"cannot keep the time zone {zone!r} exactly; write "
        "x.astimezone(zoneinfo.ZoneInfo(...)), or .dt.tz_convert(...) for a column"
    )


def decode_timezone(zone: Any) -> dt.tzinfo | None:
    """Return the time zone that :func:`encode_timezone` wrote."""
    if zone is None or zone == "UTC":
        return None if zone is None else dt.UTC
    if isinstance(zone, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(zone)
    return dt.timezone(dt.timedelta(seconds=zone))
