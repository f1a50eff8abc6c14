"""Devices, groups and electrodes of an NWB file that is written."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.interop.nwb.exported_items import ExportedItem
from labtree.interop.nwb.tables import nwb_name


def is_table_of_electrodes(item: ExportedItem) -> bool:
    """Return whether an item is a table of electrodes, as an import keeps it."""
    return item.key == "electrodes" and "location" in getattr(item.obj, "columns", ())


class Electrodes:
    """The electrodes of a file: those that an import kept, or else new ones for each series.

    Attributes
    ----------
    kept : ExportedItem or None
        The table that an import kept.
    """

    def __init__(self, file: Any, kept: ExportedItem | None) -> None:
        self.file, self.kept = file, kept
        if kept is None:
            return
        frame = kept.obj
        groups = frame["group"].tolist() if "group" in frame else ["electrodes"] * len(frame)
        names = [str(name) for name in frame.columns if name not in ("group", "group_name")]
        known = {"x", "y", "z", "imp", "location", "filtering", "reference"}
        for name in names:
            if name not in known:
                text = frame.attrs.get("columns", {}).get(name, name)
                self.file.add_electrode_column(nwb_name(name), str(text))
        for at, row in enumerate(frame.to_dict("records")):
            group = self._group(str(groups[at]), str(row["location"]))
            values = {nwb_name(name): row[name] for name in names}
            self.file.add_electrode(group=group, id=int(frame.index[at]), **values)

    def region(self, item: ExportedItem, count: int) -> Any:
        """Return the electrodes of a series; None if the table of electrodes lacks them."""
        ds = item.obj
        ids = ds["channel"].values if "channel" in ds.coords else np.arange(count)
        described = f"Channels of {item.key}"
        if self.kept is not None:
            place = self._rows()
            if ids.dtype.kind not in "iu" or not set(ids.tolist()) <= set(place):
                return None
            rows = [place[int(value)] for value in ids]
            return self.file.create_electrode_table_region(rows, described)
        table = self.file.electrodes
        first = 0 if table is None else len(table)
        if table is None:
            self.file.add_electrode_column("channel_name", "Name of the channel")
        group = self._group(item.key, "unknown")
        for value in ids:
            self.file.add_electrode(group=group, location="unknown", channel_name=str(value))
        rows = list(range(first, first + count))
        return self.file.create_electrode_table_region(rows, described)

    def places(self, ds: xr.Dataset) -> dict[str, list[Any]]:
        """Return electrodes and group of each unit, where the file has these electrodes."""
        places: dict[str, list[Any]] = {}
        if self.kept is None:
            return places
        rows = self._rows()
        if "electrodes" in ds.coords:
            given = [np.asarray(each).ravel().tolist() for each in ds["electrodes"].values]
            if all(set(each) <= set(rows) for each in given):
                places["electrodes"] = [[rows[value] for value in each] for each in given]
        if "electrode_group" in ds.coords:
            groups = self.file.electrode_groups
            names = [str(each) for each in ds["electrode_group"].values]
            if all(name in groups for name in names):
                places["electrode_group"] = [groups[name] for name in names]
        return places

    def _rows(self) -> dict[int, int]:
        return {int(value): at for at, value in enumerate(self.file.electrodes.id[:])}

    def _group(self, name: str, location: str) -> Any:
        name = nwb_name(name)
        if name in self.file.electrode_groups:
            return self.file.electrode_groups[name]
        device = (
            next(iter(self.file.devices.values()))
            if self.file.devices
            else self.file.create_device("device", description="Not known to labtree")
        )
        return self.file.create_electrode_group(
            name, description=f"Electrodes {name}", location=location, device=device
        )
