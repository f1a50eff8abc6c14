"""Reading Multi Channel Systems' CMOS-MEA files (CMCR, CMTR) with h5py alone.

Links out of a file are followed only inside its folder, and a dataset that claims to
be far larger than what is stored for it is refused before memory is taken.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from labtree.errors import FormatError

__all__ = [
    "AnalogData", "MeaFile", "SensorData", "attribute", "attributes",
    "open_mea", "read_analog", "recording_duration_us", "sensor_data",
]  # fmt: skip

Array = np.ndarray[Any, Any]
_MAX_LINKS = 16
_MAX_UNSTORED = 2**30  # bytes that a dataset may claim without storing them


@dataclass(frozen=True)
class MeaFile:
    """An open file, its folder, and the files that links in it have opened."""

    file: h5py.File
    path: Path
    stack: ExitStack = field(repr=False)


@contextmanager
def open_mea(path: str | Path) -> Iterator[MeaFile]:
    """Open a CMCR or CMTR file for reading; all that links open is closed with it.

    Raises
    ------
    FileNotFoundError
    FormatError
        If it is not an HDF5 file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(path, "r", locking="best-effort"))
        except OSError as error:
            raise FormatError(
                f"{path} cannot be read as HDF5 ({error}); expected a CMCR or CMTR file"
            ) from error
        yield MeaFile(file, path, stack)


def find(
    source: MeaFile, path: str, start: h5py.Group | None = None
) -> h5py.Group | h5py.Dataset | None:
    """Return what stands at a path, following links inside the folder; None if nothing.

    The path begins at a group, or at the file's root.

    Raises
    ------
    FormatError
        If a link, or the storage of a dataset, leads out of the file's folder.
    """
    return _find(source, source.file if start is None else start, path, _MAX_LINKS)


def _inside(source: MeaFile, name: str) -> Path:
    folder = source.path.resolve().parent
    target = (folder / name).resolve()
    if folder not in target.parents:
        raise FormatError(
            f"{source.path}: a link leads out of its folder, to {name!r}; it is not followed. "
            "Put both files into one folder"
        )
    return target


def _find(
    source: MeaFile, start: h5py.Group, path: str, hops: int
) -> h5py.Group | h5py.Dataset | None:
    if hops == 0:
        raise FormatError(f"{source.path}: links at {path!r} run in a circle")
    node: Any = start.file if path.startswith("/") else start
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for position, part in enumerate(parts):
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(part, getlink=True)
        if link is None:
            return None
        rest = "/".join(parts[position + 1 :])
        if isinstance(link, h5py.ExternalLink):
            target = _inside(source, link.filename)
            if not target.is_file():
                return None
            try:
                other = source.stack.enter_context(
                    h5py.File(target, "r", locking="best-effort")
                )
            except OSError as error:
                raise FormatError(f"{target} cannot be read as HDF5 ({error})") from error
            return _find(source, other, f"/{link.path}/{rest}", hops - 1)
        if isinstance(link, h5py.SoftLink):
            base = "" if link.path.startswith("/") else f"{node.name}/"
            return _find(source, node.file, f"/{base}{link.path}/{rest}", hops - 1)
        node = node[part]
    if isinstance(node, h5py.Dataset):
        _check_storage(source, node)
    return node


def _check_storage(source: MeaFile, dataset: h5py.Dataset) -> None:
    for name, *_ in dataset.external or ():
        _inside(source, name)
    if dataset.is_virtual:
        for part in dataset.virtual_sources():
            if part.file_name != ".":
                _inside(source, part.file_name)
        return
    # not dataset.nbytes: a dtype of many columns is slow to make
    claimed = int(dataset.size or 0) * dataset.id.get_type().get_size()
    stored = int(dataset.id.get_storage_size())
    if claimed > _MAX_UNSTORED and claimed > 1100 * max(stored, 1):
        raise FormatError(
            f"{source.path}: {dataset.name} claims {claimed / 2**30:.1f} GiB but stores "
            f"{stored} bytes; the file is damaged"
        )


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    return value


def attribute(obj: Any, name: str, default: Any = None) -> Any:
    """Return an attribute as a plain value: one-element arrays unwrapped, bytes decoded."""
    if name not in obj.attrs:
        return default
    value = obj.attrs[name]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, np.generic):
        value = value.item()
    return _text(value)


def attributes(obj: Any) -> dict[str, Any]:
    """Return all attributes as plain values."""
    return {str(name): attribute(obj, name) for name in obj.attrs}


def recording_duration_us(source: MeaFile) -> int | None:
    """Return the duration that the file states, in µs (``LB.RecordingDuration``)."""
    value = attribute(source.file, "LB.RecordingDuration")
    return int(value) if value is not None and value > 0 else None


def record(table: Array, row: int) -> dict[str, Any]:
    """Return one row of a compound table as plain values."""
    names = table.dtype.names or ()
    return {
        n: _text(table[n][row].item() if table[n].ndim == 1 else table[n][row]) for n in names
    }


def _rate(source: MeaFile, tick: Any, where: str) -> float:
    if tick is None or not tick > 0:
        raise FormatError(f"{source.path}: Tick in {where} is {tick!r}; expected µs per sample")
    return 1e6 / float(tick)


@dataclass(frozen=True)
class AnalogData:
    """Analog channels of a CMCR: counts, rate in Hz, and the rows of ChannelMeta."""

    counts: Array
    rate: float | None
    channels: list[dict[str, Any]]


def read_analog(source: MeaFile) -> AnalogData | None:
    """Read the analog channels, int32 counts (channel, sample); None if there are none.

    The rate comes from Tick (µs per sample) of ChannelMeta.
    """
    group = find(source, "Acquisition/Analog Data")
    if not isinstance(group, h5py.Group):
        return None
    names = sorted(name for name in group if name.startswith("ChannelData"))
    if not names:
        return None
    data = find(source, f"Acquisition/Analog Data/{names[0]}")
    meta = find(source, "Acquisition/Analog Data/ChannelMeta")
    if not isinstance(data, h5py.Dataset) or data.ndim != 2:
        raise FormatError(f"{source.path}: {names[0]} is not an array (channel, sample)")
    channels: list[dict[str, Any]] = []
    rate = None
    if isinstance(meta, h5py.Dataset):
        table = meta[()]
        channels = [record(table, row) for row in range(len(table))]
        group_id = attribute(data, "GroupID")
        own = [
            c for c in channels if group_id is None or c.get("GroupID", group_id) == group_id
        ]
        channels = own or channels
        ticks = {channel.get("Tick") for channel in channels[: data.shape[0]]}
        if len(ticks) > 1:
            raise FormatError(f"{source.path}: analog channels of different Tick {ticks}")
        rate = _rate(source, ticks.pop(), "Acquisition/Analog Data/ChannelMeta")
    return AnalogData(data[()], rate, channels)


@dataclass(frozen=True)
class SensorData:
    """Sensor array of a CMCR, not read: the dataset, its rate and its calibration."""

    dataset: h5py.Dataset
    rate: float
    top: int
    left: int
    exponent: int | None
    unit: str
    conversion_factor: Array | None


def sensor_data(source: MeaFile) -> SensorData:
    """Find the first region's sensor data (frame, row, column) and what SensorMeta says.

    Raises
    ------
    FormatError
        If there are none, or if they have no rate.
    """
    group = find(source, "Acquisition/Sensor Data")
    names = [n for n in group if n.startswith("SensorData")] if group is not None else []
    data = find(source, f"Acquisition/Sensor Data/{sorted(names)[0]}") if names else None
    meta = find(source, "Acquisition/Sensor Data/SensorMeta")
    if not isinstance(data, h5py.Dataset) or data.ndim != 3:
        raise FormatError(
            f"{source.path}: no Acquisition/Sensor Data/SensorData (frame, row, column)"
        )
    if not isinstance(meta, h5py.Dataset) or not len(meta):
        raise FormatError(f"{source.path}: no Acquisition/Sensor Data/SensorMeta, so no rate")
    table = meta[()]
    region = attribute(data, "RegionID")
    rows = [record(table, row) for row in range(len(table))]
    info = next((row for row in rows if row.get("RegionID") == region), rows[0])
    factors = None
    text = info.get("Conversion Factors") or info.get("ConversionFactors")
    if isinstance(text, str) and text.strip():
        factors = np.array(text.split(), np.float64)
        if factors.size != data.shape[1] * data.shape[2]:
            raise FormatError(
                f"{source.path}: {factors.size} conversion factors for "
                f"{data.shape[1]} x {data.shape[2]} sensors"
            )
        factors = factors.reshape(data.shape[1:])
    return SensorData(
        data,
        _rate(source, info.get("Tick"), "Acquisition/Sensor Data/SensorMeta"),
        int(info.get("RegionTop", 1)),
        int(info.get("RegionLeft", 1)),
        info.get("Exponent"),
        str(info.get("Unit") or "V"),
        factors,
    )
