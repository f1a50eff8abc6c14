"""Files of Multi Channel Systems' CMOS-MEA system (CMCR, CMTR) as lazy trees.

For browsing; :func:`labtree.mea.load_recording` makes a session of both files.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from labtree.errors import FormatError
from labtree.mea.mcs_files import (
    MeaFile,
    Sweep,
    file_attributes,
    find,
    numbers_in,
    open_mea,
    recording_duration_us,
    sensor_data,
    sweeps_of,
)
from labtree.mea.mcs_units import read_units
from labtree.storage.lazy import LazyArray, as_lazy, positions


class _DatasetOfRecording(LazyArray):
    """A dataset of a recording, whose file is opened for each read and closed again."""

    def __init__(self, path: Path, name: str, dataset: h5py.Dataset):
        self.path, self.name = path, name
        self.dtype: np.dtype[Any] = dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        bounds, cuts = [], []
        for part, size in zip(key, self.shape, strict=True):
            places = positions(part, size)
            low = int(places.min(initial=size))
            bounds.append(slice(low, int(places.max(initial=low - 1)) + 1))
            cuts.append(places - low if np.ndim(part) or isinstance(part, slice) else 0)
        with open_mea(self.path) as source:
            dataset: Any = find(source, self.name)
            values: np.ndarray = np.asarray(dataset[tuple(bounds)])
        for axis, cut in reversed(list(enumerate(cuts))):
            values = values[(*(slice(None),) * axis, cut, ...)]
        return values


def open_mcs(path: str | Path) -> xr.DataTree:
    """Open a CMCR or CMTR file as a tree.

    Parameters
    ----------
    path
        The file; links out of it are followed only inside its folder.

    Returns
    -------
    xarray.DataTree
        Of a CMCR ``analog`` with ``data (channel, sample)`` and ``sensors`` with ``data
        (frame, row, column)``, both counts and lazy, their rate in the attribute
        ``sampling_rate`` (Hz); of several sweeps ``data_1``, ``data_2`` and so on. Of a
        CMTR ``units`` with ``spike_times(spike)`` in µs, ``row_size(unit)``,
        ``sensor_id``, ``row`` and ``column``; only peaks that the spike sorter includes.

    Raises
    ------
    FormatError
        If it holds neither.
    """
    path = Path(path).absolute()
    nodes: dict[str, xr.Dataset] = {}
    with open_mea(path) as source:
        attrs = file_attributes(source)
        duration = recording_duration_us(source)
        if duration is not None:
            attrs["recording_duration_s"] = duration / 1e6
        nodes["/"] = xr.Dataset(attrs=attrs)
        if "Spike Sorter" in source.file:
            nodes["/units"] = _units(source)
        elif "Acquisition" in source.file:
            nodes |= _acquisition(source, path)
    if len(nodes) == 1:
        raise FormatError(f"{path} has neither 'Acquisition' nor 'Spike Sorter'")
    return xr.DataTree.from_dict(nodes)


def _acquisition(source: MeaFile, path: Path) -> dict[str, xr.Dataset]:
    nodes = {}
    folder = "Acquisition/Analog Data"
    group = find(source, folder)
    names = [] if group is None else [n for n in group if n.startswith("ChannelData")]
    if names:
        sweeps = sweeps_of(source, folder, sorted(names, key=numbers_in), 1, None)
        analog = xr.Dataset(_sweeps(path, source, sweeps, ("channel", "sample"), 1))
        meta = find(source, f"{folder}/ChannelMeta")
        if meta is not None and len(meta):
            analog.attrs["sampling_rate"] = 1e6 / float(meta[0]["Tick"])
        nodes["/analog"] = analog
    if find(source, "Acquisition/Sensor Data") is not None:
        sensors = sensor_data(source)
        dims = ("frame", "row", "column")
        node = xr.Dataset(_sweeps(path, source, sensors.sweeps, dims, 0))
        node.attrs = {"sampling_rate": sensors.rate, "unit": sensors.unit}
        if sensors.exponent is not None:
            node.attrs["exponent"] = sensors.exponent
        if sensors.conversion_factor is not None:
            node["conversion_factor"] = (("row", "column"), sensors.conversion_factor)
        nodes["/sensors"] = node
    return nodes


def _sweeps(
    path: Path, source: MeaFile, sweeps: list[Sweep], dims: tuple[str, ...], axis: int
) -> dict[str, xr.Variable]:
    """Return one variable for each sweep: ``data``, or ``data_1``, ``data_2``, ..."""
    made = {}
    for number, sweep in enumerate(sweeps, start=1):
        end = f"_{number}" if len(sweeps) > 1 else ""
        own = (*dims[:axis], f"{dims[axis]}{end}", *dims[axis + 1 :])
        variable = _variable(path, str(sweep.dataset.name), source, own)
        if end:
            variable.attrs["first_sample"] = sweep.start
        made[f"data{end}"] = variable
    return made


def _variable(path: Path, name: str, source: MeaFile, dims: tuple[str, ...]) -> xr.Variable:
    array = _DatasetOfRecording(path, name, find(source, name))
    return xr.Variable(dims, as_lazy(array), {"units": "counts"})


def _units(source: MeaFile) -> xr.Dataset:
    units = read_units(source)
    trains = [unit.spikes_us for unit in units]
    times = np.concatenate(trains) if trains else np.empty(0, np.int64)
    sizes = np.array([len(train) for train in trains], np.int64)
    return xr.Dataset(
        {
            "spike_times": ("spike", times, {"units": "us"}),
            "row_size": ("unit", sizes, {"sample_dimension": "spike"}),
        },
        coords={
            "unit": [f"unit_{unit.number:03d}" for unit in units],
            "sensor_id": ("unit", [unit.sensor_id for unit in units]),
            "row": ("unit", [unit.row for unit in units]),
            "column": ("unit", [unit.column for unit in units]),
        },
    )
