"""Read the folder that Kilosort writes and Phy curates.

Of ``params.py`` only plain assignments of numbers and texts are read; nothing in it runs.
Arrays of Python objects, which would be pickles, are not read.
"""

import ast
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, FormatError, MissingFileError, missing_file
from labtree.formats import takes
from labtree.interop.common import MS_PER_S, attribute_name
from labtree.interop.lazy_arrays import ClockArray, lazy_or_array
from labtree.interop.workspaces import Item, finish_import, store_items
from labtree.spikes.trains import from_times
from labtree.storage.arguments import positive
from labtree.storage.files import read_file
from labtree.storage.lazy import as_lazy
from labtree.workspace.operations import create_workspace

_MOST_TEXT = 16 * 2**20
# What a folder has besides the spikes, and what is not known without it.
_USUAL = {
    "amplitudes.npy": "amplitudes of the spikes",
    "templates.npy": "templates",
    "channel_map.npy": "numbers of the channels in the recording",
    "channel_positions.npy": "positions of the channels",
}


@takes("a folder of Kilosort or Phy", "phy")
def import_phy(
    folder: str | os.PathLike[str], *, sample_rate_hz: float | None = None
) -> xr.DataTree:
    """Read a folder of Kilosort or Phy into a workspace.

    Parameters
    ----------
    folder : path-like
        With ``spike_times.npy``, ``spike_clusters.npy`` or ``spike_templates.npy``, and
        ``params.py``.
    sample_rate_hz : float, optional
        Of the recording; by default what ``params.py`` says. It is parsed, never run.

    Returns
    -------
    DataTree
        A workspace. The namespace with the name of the folder has ``units``, a
        ``spike_data`` in ms with the clusters as units: ``unit_id``, every column of the
        tables ``cluster_*.tsv``, and ``amplitude(spike)`` and ``template(spike)``. A
        cluster without spikes that a table names is kept. ``templates`` is a Dataset over
        (template, sample, channel), read when it is indexed; ``channels`` a DataFrame with
        the channel's number in the recording, x and y in um and shank; ``params`` a dict.
        Where the recording lies in the same folder, ``recording`` is its Dataset
        ``data(time, channel)`` with ``time`` in s, read when it is indexed.

    Raises
    ------
    MissingFileError
        A FileNotFoundError, if there is no such folder, or the times or clusters of the
        spikes are missing, or the rate is not known.
    FormatError
        A ValueError, if one of these is damaged.

    Warns
    -----
    LossWarning
        If other parts are missing or damaged; the list stays in
        ``tree.attrs["phy_problems"]``.

    Examples
    --------
    >>> import labtree, tempfile, warnings
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder)
    ...     np.save(place / "spike_times.npy", np.array([300, 600, 900]))
    ...     np.save(place / "spike_clusters.npy", np.array([4, 2, 4]))
    ...     _ = (place / "params.py").write_text("sample_rate = 30000.")
    ...     with warnings.catch_warnings():
    ...         warnings.simplefilter("ignore", labtree.LossWarning)
    ...         tree = labtree.import_phy(place)
    ...     units = tree.ws[place.name, "units"]
    >>> units.unit_id.values, labtree.spikes.spike_trains(units)
    (array([2, 4]), [array([20.]), array([10., 30.])])
    """
    place = Path(folder)
    if not place.is_dir():
        raise missing_file(f"there is no folder {place}", place)
    if not (place / "spike_times.npy").exists():
        wanted = place / "spike_times.npy"
        raise missing_file(f"{place}: spike_times.npy is missing", wanted)
    reader = _Reader(place)
    name = place.resolve().name
    items = [Item(name, key, obj, source=key) for key, obj in reader.items(sample_rate_hz)]
    tree = create_workspace(name)
    problems = reader.problems + store_items(tree, items)
    text = f"{place}: some parts are missing or cannot be read"
    finish_import(tree, place, problems, text, attribute="phy_problems")
    return tree


class _Reader:
    """Reads one folder; what is missing or damaged is listed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def items(self, sample_rate_hz: float | None) -> Iterator[tuple[str, Any]]:
        """Give the key and object of all that is there."""
        for name, what in _USUAL.items():
            if not (self.folder / name).is_file():
                self.problems.append(f"{name} is missing: the {what} are not known")
        params = self.params()
        rate = self.rate(params, sample_rate_hz)
        recording = self.recording(params, rate)
        yield "units", self.units(rate, recording)
        others = {
            "templates": self.templates(),
            "channels": self.channels(),
            "recording": recording,
            "params": params or None,
        }
        yield from ((key, obj) for key, obj in others.items() if obj is not None)

    def array(self, name: str, *, required: bool = False) -> Any:
        """Return an array of the folder, mapped into memory; None if it is not there."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError, SyntaxError, KeyError) as error:
            if required:
                raise FormatError(f"{path} cannot be read: {error}") from error
            self.problems.append(f"{name} cannot be read: {error}")
            return None

    def per_spike(self, name: str, count: int) -> NDArray[Any] | None:
        """Return one value for each spike."""
        found = self.array(name)
        if found is None:
            return None
        if found.size != count or found.shape[0] != count:
            self.problems.append(
                f"{name} has the shape {found.shape} for {count} spikes: left out"
            )
            return None
        return np.array(found).reshape(count)

    def params(self) -> dict[str, Any]:
        """Return the assignments of params.py; it is parsed, never run."""
        path = self.folder / "params.py"
        if not path.is_file():
            self.problems.append("params.py is missing: the rate of the samples is not known")
            return {}
        try:
            body = ast.parse(read_file(path, _MOST_TEXT)).body
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
            self.problems.append(f"params.py cannot be read: {error}")
            return {}
        found: dict[str, Any] = {}
        for line in body:
            if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                continue
            name = line.targets[0].id
            try:
                found[name] = ast.literal_eval(line.value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                self.problems.append(
                    f"params.py: {name} = {ast.unparse(line.value)[:60]} is no plain value "
                    "and is not read"
                )
        return found

    def rate(self, params: dict[str, Any], given: float | None) -> float:
        rate = params.get("sample_rate") if given is None else given
        if rate is None:
            raise MissingFileError(
                f"{self.folder}: params.py does not say the rate of the samples: write "
                f"labtree.import_phy({str(self.folder)!r}, sample_rate_hz=30000)"
            )
        try:
            return positive("sample_rate_hz", rate)
        except DataError:
            raise DataError(
                f"{self.folder}: the rate of the samples is {rate!r} Hz, expected one above 0; "
                f"write labtree.import_phy({str(self.folder)!r}, sample_rate_hz=30000)"
            ) from None

    def units(self, rate: float, recording: xr.Dataset | None) -> xr.Dataset:
        samples, clusters = self.spikes()
        times = samples.astype(np.float64) / (rate / MS_PER_S)
        tables = self.tables()
        ids = np.unique(np.concatenate([clusters, np.array(list(tables.index), np.int64)]))
        per_spike = ("amplitude", "template", "position")
        attributes = {
            f"{name}_of_unit" if name in per_spike else attribute_name(name): column
            for name, column in tables.reindex(ids).items()
        }
        start = min(0.0, float(times.min(initial=0.0)))
        end = float(times.max(initial=0.0))
        if recording is not None:
            end = max(end, recording.sizes["time"] / rate * MS_PER_S)
        try:
            units = from_times(
                times, clusters, unit_ids=ids.tolist(), length_ms=end - start, start_ms=start,
                neuron_attributes=attributes,
            )  # fmt: skip
        except DataError as error:
            raise FormatError(f"{self.folder}: {error}") from error
        units = units.assign_attrs(sample_rate_hz=rate)
        order = np.lexsort((times, clusters))
        for source, target in (
            ("amplitudes.npy", "amplitude"),
            ("spike_templates.npy", "template"),
        ):
            values = self.per_spike(source, samples.size)
            if values is not None:
                units[target] = ("spike", values[order])
        positions = self.array("spike_positions.npy")
        if positions is not None and positions.shape == (samples.size, 2):
            places = np.array(positions)[order]
            units["position"] = (("spike", "position_axis"), places, {"units": "um"})
        return units

    def spikes(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return sample and cluster of each spike."""
        found: list[NDArray[Any]] = []
        names = ["spike_times.npy", "spike_clusters.npy"]
        if not (self.folder / names[1]).is_file():
            names[1] = "spike_templates.npy"
        for name in names:
            values = self.array(name, required=True)
            if values is None:
                raise MissingFileError(
                    f"{self.folder}: spike_clusters.npy and spike_templates.npy are missing"
                )
            if values.dtype.kind not in "iu" and not (
                values.dtype.kind == "f" and np.array_equal(values, np.trunc(values))
            ):
                raise FormatError(
                    f"{self.folder / name} holds {values.dtype}, expected whole numbers"
                )
            found.append(np.array(values).ravel())
        samples, clusters = found
        if samples.size != clusters.size:
            raise FormatError(
                f"{self.folder}: spike_times.npy has {samples.size} spikes, {names[1]} "
                f"{clusters.size}"
            )
        return samples, clusters.astype(np.int64)

    def tables(self) -> pd.DataFrame:
        """Return what the tables of clusters say, one row for each cluster."""
        # What Phy gathers in cluster_info is older than the tables of single columns.
        paths = sorted(
            self.folder.glob("cluster_*.[tc]sv"),
            key=lambda path: (path.stem != "cluster_info", path),
        )
        columns: dict[str, pd.Series] = {}
        for path in paths:
            try:
                table = _table(path)
            except (OSError, ValueError) as error:
                self.problems.append(f"{path.name} cannot be read: {error}")
            else:
                # Of a cluster that a table lacks the number is missing, and no number a float.
                whole = {name: "Int64" for name in table if table[name].dtype.kind == "i"}
                table = table.astype(whole)
                columns |= {str(name): table[name] for name in table.columns}
        if not {"group", "KSLabel"} & set(columns):
            self.problems.append(
                "cluster_group.tsv is missing: which clusters are good is not known"
            )
        return pd.DataFrame(columns)

    def templates(self) -> xr.Dataset | None:
        found = self.array("templates.npy")
        if found is None:
            return None
        if found.ndim != 3:
            self.problems.append(f"templates.npy has the shape {found.shape}: left out")
            return None
        dims = ("template", "sample", "channel")
        dataset = xr.Dataset({"templates": xr.Variable(dims, lazy_or_array(found))})
        channels = self.array("templates_ind.npy")
        if channels is None:
            channels = self.array("template_ind.npy")
        # A dense array has one row of channels for all templates.
        if channels is not None and channels.shape == (found.shape[0], found.shape[2]):
            dataset["channel_index"] = (("template", "channel"), np.array(channels))
        return dataset

    def channels(self) -> pd.DataFrame | None:
        columns: dict[str, Any] = {}
        number, places = self.array("channel_map.npy"), self.array("channel_positions.npy")
        shanks = self.array("channel_shanks.npy")
        if number is not None:
            columns["channel"] = np.array(number).ravel()
        if places is not None and places.ndim == 2 and places.shape[1] >= 2:
            columns["x"], columns["y"] = np.array(places[:, 0]), np.array(places[:, 1])
        if shanks is not None:
            columns["shank"] = np.array(shanks).ravel()
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            self.problems.append(
                "channel_map.npy, channel_positions.npy and channel_shanks.npy have "
                f"{sorted(lengths)} channels: left out"
            )
            return None
        return pd.DataFrame(columns) if columns else None

    def recording(self, params: dict[str, Any], rate: float) -> xr.Dataset | None:
        """Return the raw recording, if it lies in the folder."""
        given = params.get("dat_path")
        names = given if isinstance(given, list | tuple) else [given]
        if len(names) != 1 or not isinstance(names[0], str):
            return None
        root = self.folder.resolve()
        try:
            path = (root / names[0]).resolve()
            if not path.is_relative_to(root) or not path.is_file():
                return None
        except (OSError, ValueError, RuntimeError) as error:
            self.problems.append(f"dat_path {names[0]!r}: {error}")
            return None
        count, offset = params.get("n_channels_dat"), params.get("offset", 0)
        try:
            dtype = np.dtype(params.get("dtype", "int16"))
            if dtype.kind not in "iuf" or not isinstance(count, int) or count < 1:
                raise ValueError(f"dtype {dtype}, n_channels_dat {count}")
            rows = (path.stat().st_size - int(offset)) // (count * dtype.itemsize)
            shape = (max(rows, 0), count)
            data: Any = np.memmap(path, dtype, mode="r", offset=int(offset), shape=shape)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            self.problems.append(f"{names[0]} cannot be read: {error}")
            return None
        clock = as_lazy(ClockArray(0.0, rate, shape[0]))
        time = xr.Variable("time", clock, {"units": "s"})
        variable = xr.Variable(("time", "channel"), lazy_or_array(data))
        coords = xr.Coordinates({"time": time}, indexes={})
        return xr.Dataset({"data": variable}, coords, {"fs": rate})


def _table(path: Path) -> pd.DataFrame:
    """Return a table of clusters by their ids."""
    content = io.BytesIO(read_file(path, _MOST_TEXT))
    separator = "\t" if path.suffix == ".tsv" else ","
    table = pd.read_csv(content, sep=separator, keep_default_na=False, na_values=["", "nan"])
    ids = next((name for name in ("cluster_id", "id") if name in table.columns), None)
    if ids is None:
        found = ", ".join(map(str, table.columns[:10]))
        raise ValueError(f"no column cluster_id, found {found}")
    if table[ids].dtype.kind not in "iu" or table[ids].duplicated().any():
        raise ValueError(f"the column {ids} must hold each cluster once")
    return table.set_index(ids)
