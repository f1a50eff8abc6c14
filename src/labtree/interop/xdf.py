"""XDF files, as LabRecorder writes them, to session trees."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import (
    FormatError,
    RecordingWarning,
    SessionError,
    missing_file,
    unknown_name,
    warn,
)
from labtree.optional import require
from labtree.recording.session import labels_to_dataset, stream_dataset

_BOUNDARY = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")


def _field(about: Any, *path: str) -> Any:
    """Return a value of pyxdf's header, in which everything is a list of one; or None."""
    for key in path:
        if isinstance(about, list):
            about = about[0] if about else None
        if not isinstance(about, dict) or key not in about:
            return None
        about = about[key]
    while isinstance(about, list) and len(about) == 1:
        about = about[0]
    return about


class _Channels(NamedTuple):
    """What a stream says of its channels: one unit for all, or one for each."""

    names: list[str] | None = None
    unit: str | None = None
    units: list[str] | None = None
    remarks: tuple[str, ...] = ()


def _channels(info: Any, count: int, where: str) -> _Channels:
    listed = _field(info, "desc", "channels", "channel")
    listed = listed if isinstance(listed, list) else [] if listed is None else [listed]
    if not listed:
        return _Channels()
    if len(listed) != count:
        remark = f"{where}: {len(listed)} channels are described, {count} are there"
        return _Channels(remarks=(remark,))
    remarks: list[str] = []
    stated = [str(_field(channel, "label") or "") for channel in listed]
    names: list[str] | None = None
    if all(stated):
        names = _unlike(stated)
        if names != stated:
            remarks.append(f"{where}: channel names repeat, later ones get a number: {stated}")
    elif any(stated):
        names = _unlike([name or str(number) for number, name in enumerate(stated)])
        remarks.append(f"{where}: channels lack a name, and get their number: {names}")
    units = [str(_field(channel, "unit") or "") for channel in listed]
    if len(set(units)) == 1:
        return _Channels(names, units[0] or None, None, tuple(remarks))
    remarks.append(
        f"{where}: channels differ in their units, which are in its 'unit' coordinate"
    )
    return _Channels(names, None, units, tuple(remarks))


def _unlike(names: Sequence[str]) -> list[str]:
    """Return names that all differ: later equal ones get a number that no other has."""
    taken, found = set(names), dict[str, None]()
    for name in names:
        new, number = name, 2
        while new in found or (new != name and new in taken):
            new, number = f"{name}_{number}", number + 1
        found[new] = None
    return list(found)


_SIZES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "float32": 4, "double64": 8}
# A clock that is measured over a network is some milliseconds off now and then.
_LEAST_JUMP_S = 0.005


def _content(path: Path) -> memoryview:
    import gzip

    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as stream:
        return memoryview(stream.read())


def _whole_chunks(content: memoryview) -> tuple[list[slice], list[str]]:
    """Return where the whole chunks of a file are, and what is wrong with the others.

    pyxdf goes on after damage, and says so in its log at most; of a chunk that is cut it
    may fill the last sample up with values of the one before.
    """
    notes, found = list[str](), list[slice]()
    sizes: dict[bytes, int | None] = {}  # bytes of a sample of each stream; None: of texts
    at = 4
    while at < len(content):
        width = content[at]
        start = at + 1 + width
        if width in (1, 4, 8) and start + 2 > len(content):
            notes.append("the last chunk lacks bytes of its length or kind")
            break
        length = int.from_bytes(content[at + 1 : start], "little")
        tag = int.from_bytes(content[start : start + 2], "little")
        good = width in (1, 4, 8) and length >= 2 and 1 <= tag <= 6
        if good and start + length > len(content):
            notes.append(f"the last chunk lacks {start + length - len(content)} bytes")
            break
        body = content[start + 2 : start + length]
        if good and tag == 2:
            sizes[bytes(body[:4])] = _sample_size(bytes(body[4:]))
        good &= tag not in (3, 4, 6) or bytes(body[:4]) in sizes
        if good and (tag != 3 or _holds_samples(body, sizes[bytes(body[:4])])):
            found.append(slice(at, start + length))
            at = start + length
            continue
        # A boundary chunk, which LabRecorder writes every ten seconds, says where to go on.
        rest = bytes(content[at:])
        following = rest.find(_BOUNDARY)
        notes.append(f"the bytes from {at} on are damaged")
        if following < 0:
            break
        at += following + len(_BOUNDARY)
    return found, notes


def _sample_size(header: bytes) -> int | None:
    """Return the bytes of the values of one sample of a stream; None if it is of texts."""
    kind = re.search(rb"<channel_format>\s*(\w+)", header)
    count = re.search(rb"<channel_count>\s*(\d+)", header)
    size = _SIZES.get(kind[1].decode()) if kind else None
    return None if size is None or count is None else size * int(count[1])


def _holds_samples(body: memoryview, size: int | None) -> bool:
    """Whether a chunk of samples is as long as its number of samples says."""
    if len(body) < 5 or body[4] not in (1, 4, 8):
        return False
    first = 5 + body[4]
    count = int.from_bytes(body[5:first], "little")
    if size is None:
        return count <= len(body) - first
    stamps = len(body) - first - count * (1 + size)  # of 8 bytes, where there is one
    return 0 <= stamps <= 8 * count and stamps % 8 == 0


def _clock_jump(item: dict[str, Any]) -> str | None:
    """Return what is wrong with the offsets of a stream's clock, through which goes a line."""
    at, offset = (
        np.asarray(item.get(key, []), float) for key in ("clock_times", "clock_values")
    )
    segments = item["info"].get("clock_segments") or []
    if len(at) < 6 or len(segments) > 1 or not (np.diff(at) > 0).all():
        return None  # where the clock starts again pyxdf draws a line for each part
    rate = float(np.median(np.diff(offset) / np.diff(at)))
    level = offset - rate * at
    steps = np.diff(level)
    most = max(_LEAST_JUMP_S, 10 * float(np.median(np.abs(steps))))
    for number in np.argsort(-np.abs(steps)):
        before, behind = level[max(0, number - 4) : number + 1], level[number + 1 :][:5]
        jump = float(np.median(behind) - np.median(before))
        if min(len(before), len(behind)) > 1 and abs(steps[number]) > most < abs(jump):
            return (
                f"its clock jumps by {jump * 1e3:.3g} ms at {at[number + 1]:.9g} s of that"
                " clock, and its times are off around there: a line goes through all offsets."
                " Write synchronize_clocks=False for the times of the device"
            )
    return None


def import_xdf(
    path: str | Path,
    *,
    labels: str | None = None,
    label_channel: int | str = 0,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> xr.DataTree:
    """Return an XDF file as a session tree, in memory.

    Every stream becomes ``streams/<name>``; one of text (markers) has ``data`` of strings.
    Of streams of the same name the later ones get a number. Time stamps are those of the
    file, with the offsets of its clocks; `labtree.dejitter` removes their jitter and keeps
    gaps. A warning and ``attrs["repairs"]`` name damage, samples that the file says it
    should have, and offsets that jump. No sample of a truncated or damaged chunk is used.

    Parameters
    ----------
    path
        The file.
    labels
        Name of a stream whose entries (text or numbers) are the labels, each a class that
        holds from its time on.
    label_channel
        Which channel of that stream: its position or name.
    class_names
        The texts that are classes 0, 1, ...; by default the different texts in order of
        appearance. Any other text ends a class and starts none.
    **options
        For ``pyxdf.load_xdf``. Its own ``dejitter_timestamps=True`` hides losses of less
        than a second.

    Returns
    -------
    DataTree
        As `labtree.open_session` gives it, with ``.session``.

    Raises
    ------
    MissingDependencyError
        (an ImportError) If pyxdf is not installed.
    FormatError
        If pyxdf cannot read the file.

    Warns
    -----
    RecordingWarning
        If the file is damaged or was not closed, a clock jumps, streams or channels share a
        name, or units differ.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.import_xdf("walk.xdf", labels="Markers")  # doctest: +SKIP
    >>> tree.session.streams  # doctest: +SKIP
    """
    pyxdf = require("pyxdf", purpose="XDF files", extra="xdf")
    path = Path(path)
    if not path.is_file():
        raise missing_file(f"{path}: expected an XDF file, found none", path)
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"XDF:" and start[:2] != b"\x1f\x8b":  # pyxdf reads gzip, too
        raise FormatError(f"{path}: expected an XDF file, found one that begins with {start!r}")
    found, header, damage = _load(pyxdf, path, {"dejitter_timestamps": False, **options})
    remarks = list[str]()
    given = [str(_field(item["info"], "name") or "stream").replace("/", "-") for item in found]
    unlike = _unlike(given)
    if given != unlike:
        remarks.append(f"streams share a name, later ones get a number: {unlike}")
    streams: dict[str, xr.Dataset] = {}
    for name, item in zip(unlike, found, strict=True):
        streams[name], notes = _stream(item, f"stream {name!r}")
        remarks += notes
        if options.get("synchronize_clocks", True) and (jump := _clock_jump(item)):
            damage.append(f"stream {name!r}: {jump}")
        if cut := _cut_short(item, streams[name].sizes["time"]):
            damage.append(f"stream {name!r} {cut}")
    if damage or remarks:
        warn(f"{path}: " + "; ".join(damage + remarks), RecordingWarning)
    names, events = _labels(streams, labels, label_channel, class_names, path)
    attributes = {
        "session_path": str(path),
        "created": _field(header, "info", "datetime"),
        "class_names": names,
        "repairs": damage or None,
    }
    return xr.DataTree(
        xr.Dataset(attrs={k: v for k, v in attributes.items() if isinstance(v, str | list)}),
        children={
            "streams": xr.DataTree(
                children={name: xr.DataTree(dataset) for name, dataset in streams.items()}
            ),
            "labels": xr.DataTree(labels_to_dataset(events, names)),
        },
    )


def _load(
    pyxdf: Any, path: Path, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], Any, list[str]]:
    """Return the streams of a file, its header, and how it is damaged."""
    try:
        content = _content(path)
        whole, damage = _whole_chunks(content)
        source: Any = str(path)
        if damage:  # pyxdf gets the rest
            source = io.BytesIO(b"XDF:" + b"".join(content[part] for part in whole))
        del content
        found, header = pyxdf.load_xdf(source, verbose=False, **options)
    except Exception as error:  # pyxdf raises whatever its parsing meets
        raise FormatError(f"{path}: expected an XDF file ({error!r})") from error
    if not found:
        raise FormatError(f"{path}: expected an XDF file with streams, found none")
    return found, header, damage


def _cut_short(item: dict[str, Any], count: int) -> str | None:
    """Return what is wrong with the end of a stream, which says how many samples it has."""
    if not item.get("footer"):
        return (
            "has no end, so its recording was cut off; nothing says how many samples it should"
            " have"
        )
    expected = _field(item["footer"], "info", "sample_count")
    if isinstance(expected, str) and expected.isdecimal() and int(expected) != count:
        return f"has {count} samples, its end says {expected}"
    return None


def _stream(item: dict[str, Any], where: str) -> tuple[xr.Dataset, tuple[str, ...]]:
    info = item["info"]
    times = np.asarray(item["time_stamps"], np.float64)
    series = item["time_series"]
    count = int(_field(info, "channel_count") or 1)
    if isinstance(series, np.ndarray):
        data = series.reshape(len(times), -1) if series.size else series.reshape(0, count)
    else:
        data = np.empty((len(times), count), object)
        for row, texts in enumerate(series):
            data[row] = texts
    channels = _channels(info, data.shape[1], where)
    dataset = stream_dataset(
        data,
        times,
        fs=float(_field(info, "nominal_srate") or 0),
        channel_names=channels.names,
        units=channels.unit,
        where=where,
    )
    if channels.units is not None:
        dataset = dataset.assign_coords(unit=("channel", np.array(channels.units, object)))
    kind = _field(info, "type")
    if isinstance(kind, str):
        dataset = dataset.assign_attrs(type=kind)
    return dataset, channels.remarks


def _labels(
    streams: dict[str, xr.Dataset],
    stream_name: str | None,
    channel: int | str,
    class_names: Sequence[str] | None,
    path: Path,
) -> tuple[list[str] | None, list[tuple[float, int]]]:
    if stream_name is None:
        return (None if class_names is None else list(class_names)), []
    if stream_name not in streams:
        raise unknown_name("stream", stream_name, streams)
    data = streams[stream_name]["data"]
    listed = data["channel"].values.tolist() if "channel" in data.coords else []
    if isinstance(channel, str):
        if channel not in listed:
            raise unknown_name(f"channel of stream {stream_name!r}", channel, listed)
        channel = listed.index(channel)
    if not -data.shape[1] <= channel < data.shape[1]:
        raise SessionError(
            f"{path}: stream {stream_name!r} has {data.shape[1]} channels, no channel {channel}"
        )
    texts = [_text(value) for value in data.values[:, channel]]
    names = list(dict.fromkeys(texts)) if class_names is None else list(class_names)
    number = {name: index for index, name in enumerate(names)}
    moments = streams[stream_name]["time"].values.tolist()
    return names, [
        (moment, number.get(text, -1)) for moment, text in zip(moments, texts, strict=True)
    ]


def _text(value: Any) -> str:
    """Return a label's text; a whole number without a decimal point."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
