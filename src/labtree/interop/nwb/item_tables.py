"""The tables of an export that say where each item went, and what is known of it."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import xarray as xr

from labtree.interop.nwb.exact_columns import plain_json
from labtree.interop.nwb.exported_items import ExportedItem

_ITEMS = {
    "item_namespace": "Namespace of the item",
    "item_key": "Key of the item",
    "kind": "Kind of the item",
    "note": "Note of the item",
    "stored_at": "When the item was stored, in seconds since 1970",
    "nwb_path": "Where the item is in this file",
    "clock_offset_ms": "What to add to the times in this file, in ms",
}
_METADATA = {
    "item_namespace": "Namespace of the item",
    "item_key": "Key of the item",
    "metadata_key": "Where the value stands, keys and positions joined by '/'",
    "metadata_path": "The same keys and positions, as JSON",
    "metadata_value": "The value, as JSON",
}


class Row(NamedTuple):
    """An item, where in the file it went, and what restores it exactly."""

    item: ExportedItem
    nwb_path: str
    about: dict[str, Any]


def _filled(table: Any, columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> Any:
    for name, description in columns.items():
        table.add_column(name=name, description=description)
    for row in rows:
        table.add_row(**dict(zip(columns, row, strict=True)))
    return table


def table_of_items(new: Callable[..., Any], rows: list[Row], offset_ms: float) -> Any:
    """Return the table of all items; `new` makes a DynamicTable."""
    table = new(
        name="workspace",
        description=f"Items of the workspace; times are counted from {offset_ms} ms",
    )
    return _filled(
        table,
        _ITEMS,
        (
            (
                item.namespace, item.key, item.kind, item.note or "", float(item.created_at),
                nwb_path, float(offset_ms),
            )
            for item, nwb_path, _ in rows
        ),
    )  # fmt: skip


def table_of_metadata(
    new: Callable[..., Any],
    items: list[ExportedItem],
    lost: Callable[[ExportedItem, str], None],
) -> Any:
    """Return the table of all items' metadata, or None if they have none.

    Parameters
    ----------
    new : callable
        Makes a DynamicTable.
    items : list of ExportedItem
    lost : callable
        Takes an item and what is lost of it.
    """
    rows = []
    for item in items:
        if not isinstance(item.obj, xr.Dataset):
            continue
        for where, value in _leaves(item.obj.attrs.get("metadata", {})):
            losses: list[str] = []
            text = plain_json(value, losses)
            key = "/".join(map(str, where))
            for loss in losses:
                lost(item, f", metadata {key!r}: {loss}")
            path = json.dumps([part if isinstance(part, int) else str(part) for part in where])
            rows.append((item.namespace, item.key, key, path, text))
    if not rows:
        return None
    return _filled(
        new(name="metadata", description="What is known of each item"), _METADATA, rows
    )


def _leaves(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict) and value:
        inner: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(v, dict | list) for v in value):
        inner = list(enumerate(value))
    else:
        if where:
            yield where, value
        return
    for key, part in inner:
        yield from _leaves(part, (*where, key))
