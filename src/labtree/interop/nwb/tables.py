"""DataFrames as tables of an NWB file: intervals, events, or plain tables."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labtree.interop.nwb.exact_columns import NwbColumn, for_nwb
from labtree.msw.trial_times import END, START
from labtree.optional import require

PURPOSE = "export to NWB"

_STARTS = ("start_time", START)
_STOPS = ("stop_time", END)
_LATEST_S = 3e7


class FrameTable(NamedTuple):
    """A table for an NWB file, what is needed to read it back, and what is lost."""

    table: Any
    about: dict[str, Any]
    losses: list[str]


class Columns:
    """Gathers the columns of a table."""

    def __init__(self) -> None:
        self.common = hdmf_common()
        self.vectors: list[Any] = []
        self.names: list[str] = []

    def add(
        self, name: str, description: str, data: Any, ends: Any = None, make: Any = None
    ) -> None:
        """Add a column; with `ends` one of lists; `make` is its class, if not VectorData."""
        # pynwb cannot tell the type of an empty list.
        values = data if len(data) else np.empty(np.shape(data) if np.ndim(data) > 1 else 0)
        make = make or self.common.VectorData
        self._add(make(name=name, description=description, data=values), ends)

    def add_region(
        self, name: str, description: str, rows: list[list[int]], table: Any
    ) -> None:
        """Add a column of lists of rows of another table."""
        region = self.common.DynamicTableRegion(
            name=name,
            description=description,
            data=[row for each in rows for row in each],
            table=table,
        )
        self._add(region, np.cumsum([len(each) for each in rows]))

    def _add(self, vector: Any, ends: Any) -> None:
        self.vectors.append(vector)
        self.names.append(vector.name)
        if ends is not None:
            stops = np.asarray(ends, np.int64)
            index = self.common.VectorIndex(
                name=f"{vector.name}_index", data=stops, target=vector
            )
            self.vectors.append(index)


def hdmf_common() -> Any:
    """Return the module of the tables that pynwb is built on."""
    return require("hdmf.common", purpose=PURPOSE, extra="nwb")


def role_of(frame: pd.DataFrame) -> tuple[str, dict[Any, str]]:
    """Return "intervals", "events" or "table", and which columns are NWB's own times."""
    start = next((name for name in _STARTS if name in frame), None)
    stop = next((name for name in _STOPS if name in frame), None)
    if start is not None and stop is not None and _are_times(frame, start, stop):
        return "intervals", {start: "start_time", stop: "stop_time"}
    if "timestamp" in frame and _are_times(frame, "timestamp"):
        return "events", {"timestamp": "timestamp"}
    return "table", {}


def table_of(
    frame: pd.DataFrame,
    *,
    name: str,
    description: str,
    seconds: Callable[[Any], NDArray[np.float64]],
) -> FrameTable:
    """Return a DataFrame as a table of NWB.

    Parameters
    ----------
    frame : DataFrame
    name, description : str
        Of the table.
    seconds : callable
        Puts times in s on the clock of the file.
    """
    pynwb = require("pynwb", purpose=PURPOSE, extra="nwb")
    role, fixed = role_of(frame)
    make = {
        "intervals": pynwb.epoch.TimeIntervals,
        "events": pynwb.event.EventsTable,
        "table": hdmf_common().DynamicTable,
    }[role]
    losses: list[str] = []
    about: dict[str, Any] = {"columns": {}}
    levels = [_plain_label(name, losses) for name in frame.columns.names]
    if levels != [None] * len(levels):
        about["levels"] = levels
    frame, ids = _with_index(frame, about, losses)
    texts = frame.attrs.get("columns")
    texts = texts if isinstance(texts, Mapping) else {}
    taken = reserved_names(make) - {"tags"}
    columns = Columns()
    for at, label in enumerate(frame.columns):
        values, own_label = frame.iloc[:, at], _plain_label(label, losses)
        if label in fixed:
            own = fixed[label]
            times = seconds(values.to_numpy(np.float64))
            about["columns"][own] = {"name": own_label, "dtype": str(values.dtype), "at": at}
            stamps = pynwb.event.TimestampVectorData if own == "timestamp" else None
            columns.add(own, "Time in s", times, make=stamps)
            continue
        column = for_nwb(_array(values))
        found = unused(_column_name(str(label), column), taken)
        about["columns"][found] = {"name": own_label, "at": at, **column.about}
        text = str(texts.get(label) or f"Column {label!r}")
        columns.add(found, text, column.data, column.ends)
        losses += [f", column {label!r}: {loss}" for loss in column.losses]
    more = {"columns": columns.vectors, "colnames": columns.names} if columns.names else {}
    table = make(name=name, description=description, id=ids, **more)
    return FrameTable(table, about, losses)


def reserved_names(table: Any) -> set[str]:
    """Return the names that a column of a class of tables cannot have."""
    return {column["name"] for column in table.__columns__} | set(dir(table))


def nwb_name(name: str) -> str:
    """Return a name without what HDF5 and NWB keep for paths."""
    for mark in ("/", ":", "\0"):
        name = name.replace(mark, "_")
    return name.strip(".") or "_"


def unused(name: str, used: set[str]) -> str:
    """Return a name that is not used yet, and note that it is now."""
    while name in used:
        name += "_"
    used.add(name)
    return name


def _are_times(frame: pd.DataFrame, *names: str) -> bool:
    return all(
        frame.columns.tolist().count(name) == 1 and frame[name].dtype.kind in "iuf"
        for name in names
    )


def _with_index(
    frame: pd.DataFrame, about: dict[str, Any], losses: list[str]
) -> tuple[pd.DataFrame, list[int]]:
    """Return the frame with its index as a column, unless it can be the ids of the rows."""
    index, ids = frame.index, list(range(len(frame)))
    name = _plain_label(index.name, losses)
    about["index"] = None
    if (
        isinstance(index, pd.RangeIndex)
        and index.name is None
        and index.equals(pd.RangeIndex(len(frame)))
    ):
        return frame, ids
    if index.dtype.kind in "iu" and index.is_unique and (index >= 0).all():
        about["index"] = ["id", name, str(index.dtype)]
        return frame, [int(value) for value in index]
    if isinstance(index, pd.MultiIndex):
        losses.append(": the levels of the index become columns")
        return frame.reset_index(allow_duplicates=True), ids
    about["index"] = ["column", name, str(index.dtype)]
    copy = frame.copy()
    copy.insert(0, unused("index", set(map(str, copy.columns))), index)
    return copy, ids


def _plain_label(label: Any, losses: list[str]) -> Any:
    """Return the name of a column or level as JSON holds it; another one as text."""
    plain = label.item() if isinstance(label, np.generic) else label
    if isinstance(plain, tuple):
        return tuple(_plain_label(part, losses) for part in plain)
    if isinstance(plain, str | int | float | None):
        return plain
    losses.append(f": the name {label!r} becomes text")
    return str(label)


def _array(values: pd.Series) -> Any:
    array = values.array
    return array.to_numpy() if isinstance(array, pd.arrays.NumpyExtensionArray) else array


def _column_name(label: str, column: NwbColumn) -> str:
    name = nwb_name(label)
    if name == "tags" and (column.ends is None or not isinstance(column.data, list)):
        return "tags_"
    if name.endswith("_time") and not _in_session(column.data):
        return f"{name}_s"  # NWB takes columns called so for times in the session
    return name


def _in_session(values: Any) -> bool:
    """Return whether numbers can be times in s of one session, rather than dates."""
    if isinstance(values, list) or values.dtype.kind not in "iuf":
        return True
    finite = values[np.isfinite(values)]
    return not finite.size or float(np.abs(finite).max()) < _LATEST_S
