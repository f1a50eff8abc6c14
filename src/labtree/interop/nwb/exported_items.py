"""What a workspace or session holds that NWB has a place for."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from labtree.msw.trial_times import has_tables
from labtree.objects import pairwise, rate_data, spike_data
from labtree.objects.registry import KIND_ATTRIBUTE, decode
from labtree.spikes import from_session
from labtree.workspace.items import item_dataset, iterate_items


class ExportedItem(NamedTuple):
    """An object to export, and what is noted with it."""

    namespace: str
    key: str
    obj: Any
    kind: str
    note: str | None = None
    created_at: float = 0.0


class Sources(NamedTuple):
    """What a tree holds, and what it says of its session."""

    items: list[ExportedItem]
    others: list[str]
    start: datetime
    description: str
    session_id: str | None
    subject: dict[str, Any]
    is_workspace: bool


def sources_of(tree: xr.DataTree) -> Sources:
    """Return the items of a workspace or session, and what it says of its session."""
    if "labtree_workspace_id" in tree.root.attrs:
        return _workspace(tree.root)
    nodes = tree.children
    found: list[tuple[str, Any]] = []
    if "streams" in nodes:
        for key, node in nodes["streams"].children.items():
            found.append((key, node.to_dataset(inherit=False)))
    if "labels" in nodes:
        found.append(("labels", _label_frame(tree)))
    if "trials" in nodes and "state_row_size" in nodes["trials"].variables:
        from labtree.msw.session_trees import trials_from_xarray

        trials = trials_from_xarray(nodes["trials"].to_dataset(inherit=False))
        found.append(("trials", trials))
    if "units" in nodes and "spike_times" in nodes["units"].variables:
        found.append(("units", from_session(tree)))
    name = str(tree.attrs.get("session_id") or tree.attrs.get("name") or tree.name or "")
    others = sorted(set(nodes) - {"streams", "labels", "trials", "units", "metadata"})
    items = []
    for key, obj in found:
        kind = _kind(obj)
        if kind is None:
            others.append(key)
        else:
            items.append(ExportedItem(name or "session", key, obj, kind))
    offset = tree.attrs.get("clock_to_unix_s")
    stated = tree.attrs.get("session_datetime") or tree.attrs.get("created")
    start = _moment(stated) if offset is None else datetime.fromtimestamp(float(offset), UTC)
    subject = {"subject_id": tree.attrs["subject"]} if "subject" in tree.attrs else {}
    return Sources(
        items,
        others,
        start,
        description=name or "labtree session",
        session_id=name or None,
        subject=subject,
        is_workspace=False,
    )


def _workspace(tree: xr.DataTree) -> Sources:
    items, others = [], []
    for namespace, key, node in iterate_items(tree):
        kind, dataset = item_dataset(node)
        # Series stay in their file; all else is small.
        obj = dataset if kind in (None, "dataset") else decode(kind, dataset)
        info = tree.ws.get_info(namespace, key)
        what = _kind(obj)
        if what:
            created = float(info["created_at"] or 0.0)
            items.append(ExportedItem(namespace, key, obj, what, info.get("note"), created))
        else:
            others.append(f"{namespace}/{key}")
    stated = tree.attrs.get("session_start_time")
    start = _moment(stated) if stated else datetime.fromtimestamp(tree.ws.created_at, UTC)
    description = tree.attrs.get("session_description") or tree.ws.name or "labtree workspace"
    session_id = tree.attrs.get("session_id") or tree.ws.workspace_id
    return Sources(items, others, start, description, session_id, subject={}, is_workspace=True)


def _kind(obj: Any) -> str | None:
    """Return how an object is written; None if NWB cannot hold it."""
    if isinstance(obj, xr.Dataset):
        kind = obj.attrs.get(KIND_ATTRIBUTE)
        if kind in (spike_data.KIND, rate_data.KIND, pairwise.MATRIX, pairwise.STACK):
            return str(kind)
        data = obj.variables.get("data")
        time = obj.coords.variables.get("time")
        if time is None or time.dims != ("time",) or time.dtype.kind not in "iuf":
            return None  # NWB counts in seconds, and has no dates
        if data is not None and data.dims[:1] == ("time",):
            return "series" if data.dtype.kind in "biufUO" else None
        return None
    if isinstance(obj, pd.DataFrame):
        return "trials" if has_tables(obj.attrs) else "table"
    if isinstance(obj, np.ndarray) and not isinstance(obj, np.ma.MaskedArray):
        return "array" if obj.dtype.kind in "biufU" and obj.ndim else None
    return None


def _moment(stated: Any) -> datetime:
    """Return a moment that a session knows; local time where it has no zone."""
    for pattern in ("%Y%m%d_%H%M%S_%f", "%Y%m%d_%H%M%S"):
        try:
            return datetime.strptime(str(stated), pattern).astimezone()
        except ValueError:
            continue
    try:
        found = datetime.fromisoformat(str(stated))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo else found.astimezone()


def _label_frame(tree: xr.DataTree) -> pd.DataFrame:
    """Return the labels of a recording with the time until the next, or the end."""
    labels = tree.children["labels"].to_dataset(inherit=False)
    times = labels["timestamp"].values.astype(np.float64)
    last = times[-1] if times.size else 0.0
    nodes = tree.children["streams"].children.values() if "streams" in tree.children else ()
    for node in nodes:
        if node.sizes["time"]:
            last = max(last, float(node.to_dataset()["time"].values[-1]))
    columns = {"start_time": times, "stop_time": np.append(times[1:], last)[: times.size]}
    for name in ("class_index", "class_name"):
        if name in labels:
            columns[name] = labels[name].values
    return pd.DataFrame(columns)
