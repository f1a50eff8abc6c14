"""Reading Multi Channel Systems' CMOS-MEA files (CMCR, CMTR) with h5py alone.

Links out of a file are followed only inside its folder, and a dataset that claims to
be far larger than what is stored for it is refused before memory is taken.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeVar, cast

import h5py
import numpy as np

from labtree.errors import FormatError, damage_as_format_error, missing_file
from labtree.storage.hdf5_files import check_heaps

F = TypeVar("F", bound=Callable[..., Any])
_MAX_LINKS = 16
_MAX_UNSTORED = 2**30  # bytes that a dataset may claim without storing them


@dataclass(frozen=True)
class MeaFile:
    """An open file, its folder, and the files that links in it have opened."""

    file: h5py.File
    path: Path
    stack: ExitStack = field(repr=False)


def names_the_file(function: F) -> F:
    """Make errors about damage name the file that the function reads, its first argument.

    Of files that are open together only the one that is read knows that it is damaged.
    """

    @functools.wraps(function)
    def read(source: MeaFile, *args: Any, **kwargs: Any) -> Any:
        with damage_as_format_error(source.path):
            return function(source, *args, **kwargs)

    return cast("F", read)


@contextmanager
def open_mea(path: str | Path) -> Iterator[MeaFile]:
    """Open a CMCR or CMTR file for reading; all that links open is closed with it.

    Raises
    ------
    MissingFileError
    FormatError
        If it is not an HDF5 file; also for what h5py raises in the block.
    """
    path = Path(path)
    if not path.is_file():
        raise missing_file(f"{path}: there is no such file", path)
    with damage_as_format_error(path), ExitStack() as stack:
        yield MeaFile(_open_file(path, stack), path, stack)


def _open_file(path: Path, stack: ExitStack) -> h5py.File:
    try:
        file = stack.enter_context(h5py.File(path, "r", locking="best-effort"))
        check_heaps(path, file)
    except OSError as error:
        raise FormatError(
            f"{path} cannot be read as HDF5 ({error}); expected a CMCR or CMTR file"
        ) from error
    return file


@names_the_file
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
            other = _open_file(target, source.stack)
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


@names_the_file
def file_attributes(source: MeaFile) -> dict[str, Any]:
    """Return all attributes of a file's root as plain values."""
    return {str(name): attribute(source.file, name) for name in source.file.attrs}


@names_the_file
def recording_duration_us(source: MeaFile) -> int | None:
    """Return the duration that the file states, in µs (``LB.RecordingDuration``)."""
    value = attribute(source.file, "LB.RecordingDuration")
    return int(value) if value is not None and value > 0 else None


def record(table: np.ndarray, row: int) -> dict[str, Any]:
    """Return one row of a compound table as plain values."""
    names = table.dtype.names or ()
    return {
        n: _text(table[n][row].item() if table[n].ndim == 1 else table[n][row].copy())
        for n in names
    }


def records(dataset: h5py.Dataset) -> list[dict[str, Any]]:
    """Return all rows of a compound table as plain values."""
    table = np.atleast_1d(dataset[()])
    return [record(table, row) for row in range(len(table))]


def _rate(source: MeaFile, tick: Any, where: str) -> float:
    if tick is None or not tick > 0:
        raise FormatError(f"{source.path}: Tick in {where} is {tick!r}; expected µs per sample")
    return 1e6 / float(tick)


@names_the_file
def linked_recording(source: MeaFile) -> str | None:
    """Return the name of the CMCR file that a CMTR file links to; None if it does not."""
    link = source.file.get("Acquisition", getlink=True)
    return PureWindowsPath(link.filename).name if isinstance(link, h5py.ExternalLink) else None


class Sweep(NamedTuple):
    """One continuous part of a stream: its dataset, and its first sample in the stream."""

    dataset: h5py.Dataset
    start: int

    @property
    def name(self) -> str:
        """The dataset's own name, such as ``ChannelData 2``."""
        return str(self.dataset.name).rpartition("/")[2]


def sweeps_of(
    source: MeaFile, folder: str, datasets: list[str], axis: int, tick: float | None
) -> list[Sweep]:
    """Return the sweeps of a stream in order of time.

    A sweep begins where its attribute ``From`` (µs) says, counted from the first sweep;
    without it, where the one before ends.

    Raises
    ------
    FormatError
        If sweeps overlap, or differ in more than their length.
    """
    sweeps: list[Sweep] = []
    origin = 0.0
    for name in datasets:
        data = find(source, f"{folder}/{name}")
        if not isinstance(data, h5py.Dataset):
            raise FormatError(f"{source.path}: {folder}/{name} is not an array")
        begins = attribute(data, "From")
        if not sweeps:
            origin = float(begins or 0)
            sweeps.append(Sweep(data, 0))
            continue
        last = sweeps[-1]
        end = last.start + last.dataset.shape[axis]
        start = end
        if begins is not None and tick:
            start = round((float(begins) - origin) / tick)
            if abs(start - end) <= 1:  # rounding of From
                start = end
        shapes = [
            [n for at, n in enumerate(one.shape) if at != axis] for one in (data, last.dataset)
        ]
        if start < end or data.ndim != last.dataset.ndim or shapes[0] != shapes[1]:
            raise FormatError(
                f"{source.path}: the sweeps {last.name} {last.dataset.shape} and {name} "
                f"{data.shape} of {folder} overlap or differ in more than their length"
            )
        sweeps.append(Sweep(data, start))
    return sweeps


def numbers_in(name: str) -> tuple[int, ...]:
    """Return the numbers in a dataset's name, such as region and sweep."""
    return tuple(int(part) for part in name.split() if part.isdigit())


@dataclass(frozen=True)
class AnalogData:
    """Analog channels of a CMCR: counts, rate in Hz, and the rows of ChannelMeta.

    Between sweeps that do not follow each other at once the counts hold the last value;
    ``gaps`` are the first sample of each gap and the one after it.
    """

    counts: np.ndarray
    rate: float | None
    channels: list[dict[str, Any]]
    gaps: list[tuple[int, int]] = field(default_factory=list)


@names_the_file
def read_analog(source: MeaFile) -> AnalogData | None:
    """Read the analog channels of all sweeps, counts (channel, sample); None if there are none.

    The rate comes from Tick (µs per sample) of ChannelMeta.
    """
    folder = "Acquisition/Analog Data"
    group = find(source, folder)
    if not isinstance(group, h5py.Group):
        return None
    names = sorted((n for n in group if n.startswith("ChannelData")), key=numbers_in)
    if not names:
        return None
    first = find(source, f"{folder}/{names[0]}")
    if not isinstance(first, h5py.Dataset) or first.ndim != 2:
        raise FormatError(f"{source.path}: {names[0]} is not an array (channel, sample)")
    rate, channels = _channel_meta(source, folder, names)
    sweeps = sweeps_of(source, folder, names, 1, 1e6 / rate if rate else None)
    if len(sweeps) == 1:
        return AnalogData(first[()], rate, channels)
    length = sweeps[-1].start + sweeps[-1].dataset.shape[1]
    stored = sum(int(sweep.dataset.size) for sweep in sweeps)
    claimed = length * first.shape[0]
    if claimed * first.dtype.itemsize > _MAX_UNSTORED and claimed > 100 * stored:
        raise FormatError(
            f"{source.path}: the sweeps of {folder} lie {length} samples apart, but only "
            f"{stored} are stored; From of {sweeps[-1].name} is wrong"
        )
    counts = np.empty((first.shape[0], length), first.dtype)
    gaps = []
    end = 0
    for sweep in sweeps:
        if sweep.start > end:
            counts[:, end : sweep.start] = counts[:, end - 1 : end]
            gaps.append((end, sweep.start))
        end = sweep.start + sweep.dataset.shape[1]
        counts[:, sweep.start : end] = sweep.dataset[()]
    return AnalogData(counts, rate, channels, gaps)


def _channel_meta(
    source: MeaFile, folder: str, names: list[str]
) -> tuple[float | None, list[dict[str, Any]]]:
    """Return the rate of the analog channels in Hz, and the rows of ChannelMeta of the first.

    Raises
    ------
    FormatError
        If channels have different rates.
    """
    meta = find(source, f"{folder}/ChannelMeta")
    if not isinstance(meta, h5py.Dataset):
        return None, []
    rows = records(meta)
    rate = None
    channels: list[dict[str, Any]] = []
    for name in names:
        data = find(source, f"{folder}/{name}")
        group_id = attribute(data, "GroupID", next(iter(numbers_in(name)), None))
        own = [row for row in rows if row.get("GroupID", group_id) == group_id] or rows
        ticks = {row.get("Tick") for row in own[: data.shape[0]]}  # type: ignore[union-attr]
        rates = {_rate(source, tick, f"{folder}/ChannelMeta") for tick in ticks}
        if len(rates | {rate} - {None}) > 1:
            raise FormatError(
                f"{source.path}: analog channels of different Tick, {ticks} in {name}"
            )
        rate = rates.pop()
        channels = channels or own
    return rate, channels


@dataclass(frozen=True)
class SensorData:
    """Sensor array of a CMCR, not read: its sweeps, rate and calibration."""

    sweeps: list[Sweep]
    rate: float
    top: int
    left: int
    exponent: int | None
    unit: str
    conversion_factor: np.ndarray | None
    other_regions: list[str]

    @property
    def n_frames(self) -> int:
        """Frames from the first one to the last, gaps between sweeps included."""
        return int(self.sweeps[-1].start + len(self.sweeps[-1].dataset))


def _sensor_meta(source: MeaFile) -> list[dict[str, Any]]:
    meta = find(source, "Acquisition/Sensor Data/SensorMeta")
    return records(meta) if isinstance(meta, h5py.Dataset) else []


@names_the_file
def sensor_rate(source: MeaFile) -> float | None:
    """Return the rate of the sensors in Hz, from Tick of SensorMeta; None if there is none."""
    rows = _sensor_meta(source)
    if not rows:
        return None
    return _rate(source, rows[0].get("Tick"), "Acquisition/Sensor Data/SensorMeta")


@names_the_file
def sensor_data(source: MeaFile) -> SensorData:
    """Find the first region's sensor data (frame, row, column) and what SensorMeta says.

    Datasets are called ``SensorData <region> <sweep>``.

    Raises
    ------
    FormatError
        If there are none, or if they have no rate.
    """
    folder = "Acquisition/Sensor Data"
    group = find(source, folder)
    names = [n for n in group if n.startswith("SensorData")] if group is not None else []
    names.sort(key=numbers_in)
    own = [name for name in names if numbers_in(name)[:1] == numbers_in(names[0])[:1]]
    data = find(source, f"{folder}/{own[0]}") if own else None
    if not isinstance(data, h5py.Dataset) or data.ndim != 3:
        raise FormatError(f"{source.path}: no {folder}/SensorData (frame, row, column)")
    rows = _sensor_meta(source)
    if not rows:
        raise FormatError(f"{source.path}: no {folder}/SensorMeta, so no rate")
    region = attribute(data, "RegionID")
    matching = [row for row in rows if row.get("RegionID") == region] or rows[:1]
    info = matching[0]
    rates = {_rate(source, row.get("Tick"), f"{folder}/SensorMeta") for row in matching}
    if len(rates) > 1:
        raise FormatError(f"{source.path}: sweeps of the sensors of different Tick, {rates} Hz")
    rate = rates.pop()
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
        sweeps_of(source, folder, own, 0, 1e6 / rate),
        rate,
        int(info.get("RegionTop", 1)),
        int(info.get("RegionLeft", 1)),
        info.get("Exponent"),
        str(info.get("Unit") or "V"),
        factors,
        [name for name in names if name not in own],
    )
