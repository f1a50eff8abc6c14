"""meta.json and labels.json: what a recording says about itself."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from labtree._version import __version__
from labtree.errors import FormatError, SessionError
from labtree.recording.models import StreamInfo
from labtree.storage.versions import check_version

VERSION = 1
# The newest of MyoGestic's own schema numbers whose meaning is known here.
_NEWEST_SCHEMA = 3


def clock_offset(clock: Callable[[], float]) -> float:
    """Return what to add to ``clock`` to get Unix time, in s.

    Of 16 samples the one with the shortest round trip counts.
    """
    best = (float("inf"), 0.0)
    for _ in range(16):
        before = clock()
        wall = time.time()
        after = clock()
        best = min(best, (after - before, wall - (before + after) / 2))
    return best[1]


def exact_json(value: Any, where: str) -> Any:
    """Return ``value`` in JSON's own types, numpy scalars and arrays included.

    Raises
    ------
    SessionError
        If a part of it cannot be kept exactly; the message says which.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise SessionError(f"{where}: a key is a str, found {key!r}")
        return {key: exact_json(part, f"{where}[{key!r}]") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [exact_json(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        try:
            json.dumps(value, allow_nan=False).encode()
            str(value).encode()
        except ValueError as error:
            raise SessionError(f"{where}: JSON cannot hold {value!r} ({error})") from error
        return value
    raise SessionError(
        f"{where}: expected str, number, bool, None, list or dict, found {type(value).__name__}"
    )


def new_meta(
    app_name: str,
    class_names: Sequence[str] | None,
    name: str | None,
    extras: Mapping[str, Any] | None,
    offset: float,
) -> dict[str, Any]:
    """Return the content of meta.json for a recording that starts now."""
    now = datetime.now().astimezone()
    meta = {
        "app_name": app_name,
        "created": now.replace(tzinfo=None).isoformat(timespec="seconds"),
        "streams": {},
        "labtree": own_meta(
            "recording", started=now.astimezone(UTC).isoformat(), clock_to_unix_s=offset
        ),
    }
    return meta | given_meta(class_names=class_names, name=name, extras=extras)


def given_meta(*, class_names: Sequence[str] | None = None, **values: Any) -> dict[str, Any]:
    """Return what a caller says of a recording, in JSON's own types, without what is None."""
    given = {} if class_names is None else {"class_names": check_class_names(class_names)}
    for key, value in values.items():
        if value is not None:
            given[key] = exact_json(value, key)
    return given


def own_meta(state: str, **facts: Any) -> dict[str, Any]:
    """Return what labtree adds to meta.json: the format, its version and the state."""
    return {
        "format": "recording",
        "version": VERSION,
        "written_by": f"labtree {__version__}",
        "state": state,
        **facts,
    }


def check_class_names(names: Sequence[str]) -> list[str]:
    """Return ``names`` as a list of str, or an error that says what is not a str."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise SessionError(f"class_names is a list of str, found {names!r}")
    return [exact_json(name, "class_names") for name in names]


def stream_meta(info: StreamInfo) -> dict[str, Any]:
    """Return what meta.json says about one stream."""
    about = info.model_dump(mode="json", exclude={"units"})
    return {**about, "channel_grids": None, "units": info.units}


def parse_meta(meta: Any, where: str) -> dict[str, Any]:
    """Check what a reader relies on in meta.json; anything may be missing but a dict.

    Raises
    ------
    FormatError
        If it is no JSON object, of a version that is not known here, or the streams are
        not described by a safe name, channels, rate and type.
    """
    if not isinstance(meta, dict):
        raise FormatError(f"{where}: expected a JSON object, found {type(meta).__name__}")
    own = meta.get("labtree")
    if isinstance(own, dict):
        check_version(own.get("version"), VERSION, where)
    schema = meta.get("schema_version", 1)
    if type(schema) is not int or not 1 <= schema <= _NEWEST_SCHEMA:
        raise FormatError(
            f"{where}: schema_version {schema!r}, this labtree reads 1 to {_NEWEST_SCHEMA};"
            " install a newer labtree"
        )
    streams = meta.get("streams", {})
    if not isinstance(streams, dict):
        raise FormatError(f"{where}: expected 'streams' to be a JSON object")
    for name, about in streams.items():
        if not name or name.startswith(".") or any(letter in name for letter in "/\\:\x00"):
            raise FormatError(f"{where}: stream name {name!r} would leave the session")
        if not isinstance(about, dict):
            raise FormatError(f"{where}: stream {name!r} is {about!r}, expected a JSON object")
        for key in ("channel_names", "units", "fs"):
            _check_optional(about.get(key), key, f"{where}: stream {name!r}")
    names = meta.get("class_names")
    if names is not None and not _is_list_of_str(names):
        raise FormatError(f"{where}: class_names is {names!r}, expected a list of str")
    return meta


def _is_list_of_str(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _check_optional(value: Any, key: str, where: str) -> None:
    if key == "channel_names":
        good, expected = _is_list_of_str(value), "a list of str"
    elif key == "units":
        good, expected = isinstance(value, str), "a str"
    else:
        good = isinstance(value, int | float) and 0 <= value < float("inf")
        expected = "a number that is not negative"
    if value is not None and not good:
        raise FormatError(f"{where}: {key} is {value!r}, expected {expected} or null")


def parse_labels(labels: Any, where: str) -> list[tuple[float, int]]:
    """Return (timestamp, class_index) of each label, as MyoGestic reads them.

    What is not a JSON object is passed over; a missing key counts as 0.0 and -1.

    Raises
    ------
    FormatError
        If it is no list, or a value is not a number.
    """
    if not isinstance(labels, list):
        raise FormatError(f"{where}: expected a JSON list, found {type(labels).__name__}")
    found = []
    for position, label in enumerate(labels):
        if not isinstance(label, dict):
            continue
        timestamp, index = label.get("timestamp", 0.0), label.get("class_index", -1)
        good = isinstance(timestamp, int | float) and isinstance(index, int | float)
        if not good or not -(2**63) <= index < 2**63 or int(index) != index:
            raise FormatError(
                f"{where}: label {position} is {label!r}; expected a number as timestamp and"
                " an integer as class_index"
            )
        found.append((float(timestamp), int(index)))
    return found


def whole_labels(content: bytes) -> list[dict[str, Any]]:
    """Return the labels that stand whole in a labels.json that was cut or overwritten."""
    text, at, found = content.decode(errors="replace"), 0, []
    decoder = json.JSONDecoder()
    while (at := text.find("{", at)) >= 0:
        try:
            label, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(label, dict) and {"timestamp", "class_index"} <= label.keys():
            found.append(label)
    return found
