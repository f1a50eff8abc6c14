"""Python values as JSON that gives back the same value: type, order and bits.

JSON knows strings, numbers, lists and string-keyed dicts. Everything else is
written as a dict with one key that starts with ``$``: ``{"$tuple": [...]}``,
``{"$bytes": "..."}``, ``{"$array": [dtype, shape, bytes]}`` and so on. What has
no such form is refused with the path of the offending part.
"""

import base64
import datetime as dt
import json
import math
import pathlib
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import UnsupportedTypeError
from labtree.storage.dtypes import (
    decode_timezone,
    dtype_from_json,
    dtype_to_json,
    encode_timezone,
    object_array,
)
from labtree.storage.unsupported import refused_together, unsupported

#: Called with each array or unknown object that is met, and its path; gives the name
#: under which it was put elsewhere.
Sink = Callable[[Any, str], str]
Source = Callable[[str], Any]

# Python refuses to write integers of more than 4300 decimal digits (13,000 bits).
_LONG = 4096
# Python's stack holds so many levels of JSON, whatever the limit of recursion.
_MOST_LEVELS = 5000
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
# Two lone surrogates that JSON would read back as one character.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_CONTAINERS: dict[type[Any], str | None] = {
    list: None,
    tuple: "$tuple",
    set: "$set",
    frozenset: "$frozenset",
}


def dumps(value: Any, path: str = "obj") -> str:
    """Return `value` as ASCII JSON text that :func:`loads` gives back unchanged.

    Examples
    --------
    >>> loads(dumps({"window": (0, 2.5), "tags": {"a"}}))
    {'window': (0, 2.5), 'tags': {'a'}}
    """
    return json.dumps(encode(value, path), separators=(",", ":"))


def loads(text: str | bytes) -> Any:
    """Return the value that :func:`dumps` wrote."""
    return decode(parse(text))


def parse(text: str | bytes) -> Any:
    """Return the value of JSON, and a RecursionError where it is nested too deeply.

    Python's own parser crashes where another library has raised the limit of recursion.
    """
    if not isinstance(text, str):
        text = text.decode(json.detect_encoding(text), "surrogatepass")  # as json.loads does
    if text.count("[") + text.count("{") > _MOST_LEVELS:
        depth = 0
        for found in _BRACKETS.finditer(text):
            if found[0] in "[{":
                depth += 1
                if depth > _MOST_LEVELS:
                    raise RecursionError(f"more than {_MOST_LEVELS} levels of JSON")
            elif found[0] in "]}":
                depth -= 1
    return json.loads(text)


def encode(value: Any, path: str = "obj", sink: Sink | None = None) -> Any:
    """Return `value` in terms that JSON holds.

    Parameters
    ----------
    value
        None, bool, int of any size, float, complex, str, bytes, numpy scalars and
        arrays, dates and times, pandas.Timestamp, Timedelta, NaT and NA; and lists,
        tuples, sets, frozensets and dicts of these.
    path
        How to name `value` in an error.
    sink
        Called with each array, and each object that has no form here, and its path; the
        name that it returns is written in its place. Without it arrays are written as
        base64.

    Raises
    ------
    TypeError
        For anything else, subclasses of these types included, with its path.
    """
    try:
        return _encode(value, path, sink)
    except RecursionError:
        raise UnsupportedTypeError(
            f"{path}: cannot keep nesting this deep, or a value that holds itself, exactly; "
            "store its parts as items of their own"
        ) from None


def _encode(value: Any, path: str, sink: Sink | None) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _encode_text(value)
    if kind is int:
        return value if value.bit_length() < _LONG else {"$int": hex(value)}
    if value is None or kind is bool:
        return value
    if kind is float:
        return _encode_float(value)
    if kind is dict:
        return _encode_dict(value, path, sink)
    if kind in _CONTAINERS:
        tag = _CONTAINERS[kind]
        with refused_together() as attempt:
            items = [
                attempt(_encode, item, f"{path}[{i}]", sink) for i, item in enumerate(value)
            ]
        return items if tag is None else {tag: items}
    if kind is np.ndarray:
        return _encode_array(value, path, sink)
    for test, tag, write, _ in _FORMS:
        if test(value):
            try:
                return {tag: write(value)}
            except UnsupportedTypeError as error:  # of its time zone
                raise UnsupportedTypeError(f"{path}: {error}") from None
    if isinstance(value, np.generic) and kind.__module__ == "numpy":
        if value.dtype.kind == "O" or value.dtype.hasobject:
            raise unsupported(value, path)
        return {"$scalar": [dtype_to_json(value.dtype), _base64(np.asarray(value).tobytes())]}
    if sink is not None:
        return {"$part": sink(value, path)}
    raise unsupported(value, path)


def decode(value: Any, source: Source | None = None) -> Any:
    """Return the value that :func:`encode` was given.

    Parameters
    ----------
    value
        What JSON gave back.
    source
        Gives the object for a name that `sink` returned.
    """
    if type(value) is list:
        return [decode(item, source) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        (tag, content), *_ = value.items()
        if tag[:1] == "$":
            return _decode_tagged(tag, content, source)
    return {key: decode(item, source) for key, item in value.items()}


def _decode_tagged(tag: str, content: Any, source: Source | None) -> Any:
    if tag == "$dict":
        return {decode(key, source): decode(item, source) for key, item in content}
    for kind, name in _CONTAINERS.items():
        if tag == name:
            return kind(decode(item, source) for item in content)
    if tag == "$array":
        dtype, shape, data = content
        array = np.frombuffer(base64.b64decode(data), dtype_from_json(dtype))
        return array.reshape(shape).copy()
    if tag in ("$objects", "$texts"):
        shape, items = content
        if math.prod(shape) != len(items):
            raise ValueError(f"{len(items)} objects do not fill an array of shape {shape}")
        array = object_array([decode(item, source) for item in items])
        array = array.astype(np.dtypes.StringDType()) if tag == "$texts" else array
        return array.reshape(shape)
    if tag == "$part" and source is not None:
        return source(content)
    if tag == "$scalar":
        dtype, data = content
        scalar, raw = dtype_from_json(dtype), base64.b64decode(data)
        return np.frombuffer(raw, scalar)[0] if scalar.itemsize else scalar.type()
    if tag in _READERS:
        return _READERS[tag](content)
    raise ValueError(f"unknown value {tag!r}: written by a newer labtree, or damaged")


def _encode_float(value: float) -> Any:
    if math.isfinite(value):
        return value
    return {"$float": struct.pack("<d", value).hex()}


def _encode_text(value: str) -> Any:
    if _PAIR.search(value):
        return {"$text": _base64(value.encode(errors="surrogatepass"))}
    return value


def _is_key(key: Any) -> bool:
    return type(key) is str and key[:1] != "$" and (key.isascii() or not _PAIR.search(key))


def _encode_dict(value: dict[Any, Any], path: str, sink: Sink | None) -> Any:
    plain = all(map(_is_key, value))
    with refused_together() as attempt:
        pairs = [
            [
                key if plain else attempt(_encode, key, f"{path} key {key!r}", None),
                attempt(_encode, item, f"{path}[{key!r}]", sink),
            ]
            for key, item in value.items()
        ]
    return dict(pairs) if plain else {"$dict": pairs}


def _encode_array(array: np.ndarray, path: str, sink: Sink | None) -> Any:
    if sink is not None:
        return {"$part": sink(array, path)}
    if array.dtype.kind == "O":
        with refused_together() as attempt:
            items = [
                attempt(_encode, item, f"{path}.flat[{i}]", None)
                for i, item in enumerate(array.flat)
            ]
        return {"$objects": [list(array.shape), items]}
    if array.dtype.kind == "T" and not hasattr(array.dtype, "na_object"):
        return {"$texts": [list(array.shape), list(map(_encode_text, array.ravel().tolist()))]}
    if array.dtype.hasobject:
        raise unsupported(array, path, f"an array of dtype {array.dtype}")
    data = _base64(np.ascontiguousarray(array).tobytes())
    return {"$array": [dtype_to_json(array.dtype), list(array.shape), data]}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _floats(*values: float) -> str:
    return struct.pack(f"<{len(values)}d", *values).hex()


def _complex(text: str) -> complex:
    return complex(*struct.unpack("<2d", bytes.fromhex(text)))


_PATHS: dict[Any, str] = {
    kind: kind.__name__
    for kind in (
        pathlib.PosixPath,
        pathlib.WindowsPath,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
    )
}


def _decode_path(content: Any) -> pathlib.PurePath:
    name, text = content
    for kind, known in _PATHS.items():
        if known == name:
            try:
                path: pathlib.PurePath = kind(text)
            except NotImplementedError:  # a path of another system
                path = kind.__mro__[2](text)
            return path
    raise ValueError(f"unknown kind of path {name!r}: written by a newer labtree, or damaged")


def _encode_datetime(value: dt.datetime | dt.time) -> Any:
    return [value.replace(tzinfo=None).isoformat(), value.fold, encode_timezone(value.tzinfo)]


def _decode_datetime(kind: type[Any]) -> Callable[[Any], Any]:
    def read(content: Any) -> Any:
        text, fold, zone = content
        return kind.fromisoformat(text).replace(fold=fold, tzinfo=decode_timezone(zone))

    return read


def _encode_timestamp(value: pd.Timestamp) -> Any:
    wall = value.tz_localize(None)
    count = int(wall.to_numpy().astype(np.int64))
    return [count, value.unit, value.fold, encode_timezone(value.tzinfo)]


def _decode_timestamp(content: Any) -> pd.Timestamp:
    count, unit, fold, zone = content
    wall = pd.Timestamp(np.datetime64(count, unit))
    return wall if zone is None else wall.replace(fold=fold, tzinfo=decode_timezone(zone))


def _is(kind: type[Any]) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


# How each remaining type is recognized, named, written and read.
_FORMS: list[tuple[Callable[[Any], bool], str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    (_is(complex), "$complex", lambda value: _floats(value.real, value.imag), _complex),
    (_is(bytes), "$bytes", _base64, base64.b64decode),
    (_is(bytearray), "$bytearray", _base64, lambda text: bytearray(base64.b64decode(text))),
    (lambda value: value is pd.NA, "$NA", lambda value: 0, lambda content: pd.NA),
    (lambda value: value is pd.NaT, "$NaT", lambda value: 0, lambda content: pd.NaT),
    (
        lambda value: type(value) in _PATHS,
        "$path",
        lambda value: [_PATHS[type(value)], _encode_text(str(value))],
        lambda content: _decode_path([content[0], decode(content[1])]),
    ),
    (_is(pd.Timestamp), "$Timestamp", _encode_timestamp, _decode_timestamp),
    (
        _is(pd.Timedelta),
        "$Timedelta",
        lambda value: [int(value.to_numpy().astype(np.int64)), value.unit],
        lambda content: pd.Timedelta(np.timedelta64(*content)),
    ),
    (_is(dt.datetime), "$datetime", _encode_datetime, _decode_datetime(dt.datetime)),
    (_is(dt.time), "$time", _encode_datetime, _decode_datetime(dt.time)),
    (_is(dt.date), "$date", dt.date.isoformat, dt.date.fromisoformat),
    (
        _is(dt.timedelta),
        "$timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda content: dt.timedelta(*content),
    ),
    (
        _is(slice),
        "$slice",
        lambda value: [encode(part) for part in (value.start, value.stop, value.step)],
        lambda content: slice(*(decode(part) for part in content)),
    ),
    (
        _is(range),
        "$range",
        lambda value: [value.start, value.stop, value.step],
        lambda content: range(*content),
    ),
]

# Values of types that JSON has, which it would change: _encode writes these.
_READERS: dict[str, Callable[[Any], Any]] = {
    "$float": lambda text: struct.unpack("<d", bytes.fromhex(text))[0],
    "$text": lambda text: base64.b64decode(text).decode(errors="surrogatepass"),
    "$int": lambda text: int(text, 16),
    **{tag: read for _, tag, _, read in _FORMS},
}
