"""Read an NWB file into a workspace: units, tables and series, large arrays lazily."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from labtree.errors import FormatError, missing_file
from labtree.formats import is_nwb, takes
from labtree.interop.common import left_out
from labtree.interop.nwb.imported_objects import (
    Extent,
    array_of,
    extents,
    facts_of,
    plain_value,
    series_dataset,
    table_frame,
    table_item,
    units_dataset,
    waveforms_dataset,
)
from labtree.interop.nwb.links import check_hdf5_links, check_zarr_links
from labtree.interop.nwb.own_items import Place, nested, own_item, text_of
from labtree.interop.nwb.tables import unused
from labtree.interop.workspaces import Item, finish_import, store_items
from labtree.optional import require
from labtree.workspace.operations import create_workspace

_GROUPS = (
    "intervals", "events", "acquisition", "stimulus", "stimulus_template", "analysis",
    "scratch",
)  # fmt: skip
_FACTS = (
    "session_description", "identifier", "session_start_time", "timestamps_reference_time",
    "session_id", "experimenter", "experiment_description", "institution", "lab", "keywords",
    "notes", "pharmacology", "protocol", "related_publications", "slices", "source_script",
    "source_script_file_name", "was_generated_by", "data_collection", "surgery", "virus",
    "stimulus_notes",
)  # fmt: skip


@takes("an NWB file", "nwb")
def import_nwb(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read an NWB file, HDF5 or zarr, into a workspace.

    Parameters
    ----------
    path : path-like
        A file, or a folder in NWB's zarr layout (which needs the library hdmf-zarr).

    Returns
    -------
    DataTree
        A workspace. The namespace with the name of the file, without its ending, has
        ``units`` (a ``spike_data`` in ms with every column of the table), ``electrodes``,
        ``trials`` and other intervals as DataFrames with times in s, and each series of
        acquisition and stimulus under its name. Each processing module is a namespace.
        Series are Datasets with the variable ``data``, as stored, and ``time`` in s; the
        attributes ``units``, ``conversion`` and ``offset`` of ``data`` convert to physical
        values. Arrays above 1 MiB stay in the file until they are indexed; ``close()`` of
        the tree closes it. Facts of session and subject are attributes of the root.

    Raises
    ------
    MissingFileError
        A FileNotFoundError, if there is no such file.
    FormatError
        A ValueError, if pynwb cannot read the file.
    MissingDependencyError
        A ModuleNotFoundError, if pynwb, or hdmf-zarr for zarr, is not installed.

    Warns
    -----
    LossWarning
        If a part could not be read; the list stays in ``tree.attrs["nwb_problems"]``.

    Notes
    -----
    ``obs_intervals`` of the units define the length of the recording. In a file without
    them, it ends with the series or the table of intervals that ends last, or else with the
    last spike. The attribute ``length_from`` of the units says what was used.

    Times of spikes are multiplied by 1000, which may round the last bit. Where a file
    comes from :func:`labtree.export_nwb`, its items come back under their own namespaces
    and keys, with their notes.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.import_nwb("sub-1_ses-2.nwb")  # doctest: +SKIP
    >>> tree.ws["sub-1_ses-2", "units"]  # doctest: +SKIP
    >>> tree["sub-1_ses-2/ElectricalSeries"].data[:1000]  # doctest: +SKIP
    """
    source = Path(path)
    if not source.exists():
        raise missing_file(f"there is no file {source}", source)
    if not (source.is_file() or source.is_dir()):
        raise FormatError(f"{source} is neither a file nor a folder")
    with _quiet():
        io = _open(source)
        try:
            file = io.read()
        except Exception as error:  # a damaged file fails anywhere in hdmf
            io.close()
            raise FormatError(
                f"{source} cannot be read as NWB: {error or type(error).__name__}"
            ) from error
        tree = create_workspace(source.stem)
        reader = _Reader(source, file)
        try:
            reader.read()
            problems = reader.problems + store_items(tree, list(reader.items.values()))
        except BaseException:
            io.close()
            raise
    tree.attrs.update(reader.facts)
    tree.set_close(io.close)
    text = f"{source}: not everything could be read"
    finish_import(tree, source, problems, text, attribute="nwb_problems")
    return tree


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence pynwb's warnings about cached namespaces and old versions of the format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(path: Path) -> Any:
    if path.is_dir():
        if not is_nwb(path):
            raise FormatError(f"{path} is a folder, and no NWB file in zarr")
        zarr = require("hdmf_zarr", purpose="reading NWB files in zarr", extra="nwb-zarr")
        check_zarr_links(path)
        reader: Callable[..., Any] = zarr.NWBZarrIO
        where: Any = str(path)
    else:
        pynwb = require("pynwb", purpose="reading NWB files", extra="nwb")
        with path.open("rb") as file:
            start = file.read(8)
        if start != b"\x89HDF\r\n\x1a\n":
            raise FormatError(f"{path} is a file that begins with {start!r}, not an NWB file")
        check_hdf5_links(path)
        reader, where = pynwb.NWBHDF5IO, path
    try:
        return reader(where, mode="r", load_namespaces=True)
    except Exception as error:
        raise FormatError(f"{path} cannot be read as NWB: {error}") from error


class _Reader:
    """Collects the items of one file; what cannot be read is listed."""

    def __init__(self, path: Path, file: Any) -> None:
        self.file, self.name = file, path.stem
        self.problems: list[str] = []
        self.items: dict[str, Item] = {}
        self.skipped: set[str] = set()
        self.taken: dict[str, set[str]] = {}
        self.facts: dict[str, Any] = {}
        self.extents: list[Extent] | None = None
        self.places: dict[str, Place] = {}
        self.metadata: dict[tuple[str, str], Any] = {}

    def read(self) -> None:
        """Read everything."""
        file = self.file
        self.facts = {
            name: value
            for name in _FACTS
            if (value := plain_value(getattr(file, name, None))) is not None
        }
        if file.subject is not None:
            self.facts["subject"] = facts_of(file.subject)
        if len(file.lab_meta_data):
            self.facts["lab_meta_data"] = {
                each.name: facts_of(each) for each in file.lab_meta_data.values()
            }
        own = self.name
        self._own_tables()
        if file.units is not None:
            self._add_units("/units", own, file.units)
        if file.electrodes is not None:
            where = "/general/extracellular_ephys/electrodes"
            self._add(where, own, "electrodes", table_frame, file.electrodes)
        for kind in ("devices", "electrode_groups", "imaging_planes", "icephys_electrodes"):
            found = getattr(file, kind, None)
            if found:
                facts = {each.name: facts_of(each) for each in found.values()}
                self._add(f"/general/{kind}", own, kind, dict, facts)
        for name in ("trials", "epochs", "invalid_times"):
            table = getattr(file, name)
            if table is not None:
                self._add(f"/intervals/{name}", own, name, table_frame, table)
        for group in _GROUPS:
            namespace = group if group in ("analysis", "scratch") else own
            for each in (getattr(file, group, None) or {}).values():
                self._container(f"/{group}/{each.name}", namespace, each)
        for module in file.processing.values():
            namespace = module.name if module.name != own else f"{module.name}_processing"
            for each in module.data_interfaces.values():
                where = f"/processing/{module.name}/{each.name}"
                self._container(where, namespace, each)
        for name in ("sweep_table", "intracellular_recordings"):
            table = getattr(file, name, None)
            if table is not None:
                self._add(f"/general/{name}", own, name, table_frame, table)

    def _add(
        self, where: str, namespace: str, key: str, read: Callable[[Any], Any], source: Any
    ) -> None:
        if where in self.items or where in self.skipped:
            return
        place = self.places.get(where)
        try:
            if place is None:
                obj = read(source)
            else:
                leaves = self.metadata.get((place.namespace, place.key))
                obj = own_item(source, where, place, nested(leaves) if leaves else None)
        except Exception as error:  # a damaged file fails anywhere in hdmf and h5py
            self.problems.append(left_out(where, error))
            return
        taken = self.taken.setdefault(namespace, set())
        parent = where.split("/")[-2]
        unique = unused(f"{parent}_{key}" if key in taken else key, taken)
        item = Item(namespace, unique, obj, source=where)
        if place is not None:
            item = Item(place.namespace, place.key, obj, place.created_at, place.note, where)
        self.items[where] = item

    def _container(self, where: str, namespace: str, obj: Any) -> None:
        kinds = [each.__name__ for each in type(obj).__mro__]
        if "TimeSeries" in kinds:
            self._add(where, namespace, obj.name, lambda each: series_dataset(each, where), obj)
        elif "Units" in kinds:
            self._add_units(where, namespace, obj)
        elif "DynamicTable" in kinds:
            self._add(where, namespace, obj.name, table_item, obj)
        elif "ScratchData" in kinds or "Image" in kinds:
            self._add(where, namespace, obj.name, array_of, obj)
        else:
            inner = [child for child in obj.children if child.name != obj.name]
            if not inner:
                self._add(where, namespace, obj.name, facts_of, obj)
            for child in inner:
                self._container(f"{where}/{child.name}", namespace, child)

    def _add_units(self, where: str, namespace: str, table: Any) -> None:
        self._add(where, namespace, table.name, self._units, table)
        if {"waveforms", "spike_times"} <= set(table.colnames):
            key = f"{table.name}_waveforms"
            self._add(f"{where}/waveforms", namespace, key, waveforms_dataset, table)

    def _units(self, table: Any) -> xr.Dataset | pd.DataFrame:
        if "spike_times" not in table.colnames:
            return table_frame(table)
        if self.extents is None:
            self.extents = extents(self.file)
        dataset, problem = units_dataset(table, self.extents)
        if problem:
            self.problems.append(f"units {table.name!r}: {problem}")
        return dataset

    def _own_tables(self) -> None:
        """Read where labtree's export put what, and what it knew of each item."""
        module = self.file.processing.get("labtree") if self.file.processing else None
        found = {} if module is None else module.data_interfaces
        table, metadata = found.get("workspace"), found.get("metadata")
        if table is None or "nwb_path" not in getattr(table, "colnames", ()):
            return
        where = "/processing/labtree/"
        text = (self.file.scratch or {}).get("labtree_types")
        types = {} if text is None else json.loads(text_of(text.data))
        self.skipped.add("/scratch/labtree_types")
        row: Any
        for row in table_frame(table).itertuples():
            self.places[str(row.nwb_path)] = Place(
                namespace=str(row.item_namespace),
                key=str(row.item_key),
                kind=str(row.kind),
                note=str(row.note) or None,
                created_at=float(row.stored_at),
                offset_ms=float(row.clock_offset_ms),
                types=types.get(str(row.nwb_path), {}),
            )
        self.skipped.add(where + "workspace")
        if metadata is not None:
            self.skipped.add(where + "metadata")
            for row in table_frame(metadata).itertuples():
                place = str(row.item_namespace), str(row.item_key)
                leaves = self.metadata.setdefault(place, [])
                leaves.append((json.loads(row.metadata_path), json.loads(row.metadata_value)))
