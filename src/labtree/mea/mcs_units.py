"""Sorted units of a CMTR file: their spikes, waveforms and places on the sensor array."""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from labtree.errors import FormatError
from labtree.mea.mcs_files import MeaFile, attribute, find, names_the_file, record, records


class _Tables:
    """Reads compound datasets, many of one type.

    Making numpy's type of many columns is slow, and so is fresh memory for each table.
    """

    def __init__(self) -> None:
        self._known: list[tuple[h5py.h5t.TypeID, np.dtype[Any]]] = []
        self._memory = np.empty(0, np.uint8)

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """Read a table; it is overwritten by the next one."""
        kind = dataset.id.get_type()
        dtype = next((known for stored, known in self._known if stored == kind), None)
        if dtype is None:
            dtype = dataset.dtype
            self._known.append((kind, dtype))
        if dtype.hasobject or dtype.itemsize != kind.get_size():
            return np.asarray(dataset[()])
        size = int(dataset.size or 0) * dtype.itemsize
        if len(self._memory) < size:
            self._memory = np.empty(size + size // 2, np.uint8)
        out: np.ndarray = self._memory[:size].view(dtype).reshape(dataset.shape)
        if out.size:
            dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, out, kind)
        return out


@dataclass(frozen=True)
class SortedUnit:
    """One unit of a CMTR: its spikes only (IncludePeak), in µs and in order of time."""

    number: int
    name: str
    spikes_us: np.ndarray
    amplitudes: np.ndarray
    waveform: np.ndarray | None
    n_excluded: int
    sensor_id: int
    row: int
    column: int
    info: dict[str, Any]
    roi_sta: np.ndarray | None
    unmixing: np.ndarray | None


def _cutouts(peaks: np.ndarray) -> np.ndarray | None:
    """Return the cutout columns "1".."n" as one (peak, sample) view of the table."""
    names = sorted((n for n in peaks.dtype.names or () if n.isdigit()), key=int)
    if not names or not peaks.dtype.fields:
        return None
    if not len(peaks):  # a unit without peaks
        return np.zeros((0, len(names)))
    kinds = [peaks.dtype.fields[name] for name in names]
    step = kinds[0][0].itemsize
    first = kinds[0][1]
    if any(k[0] != kinds[0][0] or k[1] != first + i * step for i, k in enumerate(kinds)):
        return np.stack([peaks[name] for name in names], axis=1)
    view: np.ndarray = np.ndarray(
        (len(peaks), len(names)),
        kinds[0][0],
        buffer=peaks.data,
        offset=first,
        strides=(peaks.strides[0], step),
    )
    return view


def _position(
    source: MeaFile, group: h5py.Group, info: dict[str, Any], table: dict[str, Any]
) -> tuple[int, int, int]:
    """Return sensor id, row and column, 1-based, from the unit's own attributes."""
    found = {
        key: attribute(group, key, info.get(key, table.get(key)))
        for key in ("SensorID", "Row", "Column")
    }
    sensor = found["SensorID"]
    if sensor is None:
        raise FormatError(f"{source.path}: {group.name} has no SensorID")
    # 65 x 65 sensors are numbered down the columns, from 1
    row = found["Row"] if found["Row"] is not None else (sensor - 1) % 65 + 1
    column = found["Column"] if found["Column"] is not None else (sensor - 1) // 65 + 1
    return int(sensor), int(row), int(column)


@names_the_file
def read_units(source: MeaFile, *, with_matrices: bool = False) -> list[SortedUnit]:
    """Read the sorted units of a CMTR, in order of their number, one read per unit.

    Parameters
    ----------
    source : MeaFile
    with_matrices : bool
        Whether RoiSTAs and Unmixing are read too.

    Raises
    ------
    FormatError
        If there is no Spike Sorter, or if a unit lacks its peaks.
    """
    sorter = find(source, "Spike Sorter")
    if not isinstance(sorter, h5py.Group):
        raise FormatError(
            f"{source.path}: no group 'Spike Sorter'; expected a sorted CMTR file"
        )
    tables: dict[int, dict[str, Any]] = {}
    summary = find(source, "Spike Sorter/Units")
    if isinstance(summary, h5py.Dataset) and "UnitID" in (summary.dtype.names or ()):
        tables = {int(row["UnitID"]): row for row in records(summary)}
    names = [n for n in sorter if n.startswith("Unit ") and n[5:].strip().isdigit()]
    reader = _Tables()
    units = [
        _read_unit(source, sorter, name, tables, reader, with_matrices)
        for name in sorted(names, key=lambda n: int(n[5:]))
    ]
    numbers = [unit.number for unit in units]
    if len(set(numbers)) < len(numbers):
        raise FormatError(f"{source.path}: two units have one UnitID among {numbers}")
    return units


def _read_unit(
    source: MeaFile,
    sorter: h5py.Group,
    name: str,
    tables: dict[int, dict[str, Any]],
    reader: _Tables,
    with_matrices: bool,
) -> SortedUnit:
    base = f"Spike Sorter/{name}"
    group = find(source, name, sorter)
    peaks_set = find(source, "Peaks", group) if isinstance(group, h5py.Group) else None
    needed = ("Timestamp", "PeakAmplitude", "IncludePeak")
    if not isinstance(group, h5py.Group) or not isinstance(peaks_set, h5py.Dataset):
        raise FormatError(f"{source.path}: {base}/Peaks is missing")
    peaks = reader.read(peaks_set)
    lacking = [n for n in needed if n not in (peaks.dtype.names or ())]
    if lacking:
        raise FormatError(f"{source.path}: {base}/Peaks lacks the columns {lacking}")
    included = peaks["IncludePeak"] == 1
    cutouts = _cutouts(peaks)
    waveform = None
    if cutouts is not None:
        own = cutouts[included]
        mean = own.mean(axis=0, dtype=np.float64) if len(own) else np.full(own.shape[1], np.nan)
        waveform = np.asarray(mean, np.float32)
    spikes = peaks["Timestamp"][included].astype(np.int64)
    amplitudes = peaks["PeakAmplitude"][included].astype(np.float64)
    if (np.diff(spikes) < 0).any():
        order = np.argsort(spikes, kind="stable")
        spikes, amplitudes = spikes[order], amplitudes[order]
    number = int(attribute(group, "UnitID", int(name[5:])))
    info_set = find(source, "Unit Info", group)
    info = tables.get(number, {})
    if isinstance(info_set, h5py.Dataset):
        table = np.atleast_1d(reader.read(info_set))
        info = record(table, 0) if table.dtype.names and len(table) else info
    sensor, row, column = _position(source, group, info, tables.get(number, {}))
    matrices = [
        part[()] if isinstance(part := find(source, key, group), h5py.Dataset) else None
        for key in (("RoiSTAs", "Unmixing") if with_matrices else ())
    ] or [None, None]
    return SortedUnit(
        number=number,
        name=name,
        spikes_us=spikes,
        amplitudes=amplitudes,
        waveform=waveform,
        n_excluded=int((~included).sum()),
        sensor_id=sensor,
        row=row,
        column=column,
        info=info,
        roi_sta=matrices[0],
        unmixing=matrices[1],
    )
