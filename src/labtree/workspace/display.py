"""How ``tree.ws`` and ``ds.ws`` show themselves: what is there, and what can be called."""

import time
from typing import Any

import xarray as xr

from labtree import html
from labtree.html import SHOWN, count, shape_of, short, size
from labtree.objects import inspection
from labtree.workspace.items import describe_item, real_name
from labtree.workspace.state import state_of

__all__ = ["object_html", "object_text", "workspace_html", "workspace_text"]

_VERBS = (
    ".store(namespace, key, obj, note=None)  .get(namespace, key)  [namespace, key]\n"
    ".list_namespaces()  .list_keys()  .get_info(namespace, key)  .describe()\n"
    ".rename(namespace, old, new)  .add_note(namespace, key, note)  .delete(namespace, key)\n"
    ".merge_from(other)  .save(path)  .close()"
)
_OBJECT_VERBS = ".store(namespace, key)  .kind  .summary()  .validate()  .plot()"


def _nbytes(node: xr.DataTree) -> int:
    return sum(variable.nbytes for variable in node.variables.values())


def _when(when: Any) -> str:
    seconds = html.seconds_of(when)
    try:
        return (
            "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
        )
    except (ValueError, OverflowError, OSError):  # no calendar reaches so far
        return ""


def _about(info: dict[str, Any]) -> str:
    """Return the part of an item's description that tells its shape."""
    if "shape" in info:
        return shape_of(info["shape"], info.get("dtype", ""))
    if "sizes" in info:
        return ", ".join(f"{dim}: {length}" for dim, length in info["sizes"].items())
    skipped = {"type", "created_at", "note"}
    return ", ".join(
        f"{name}: {short(value)}" for name, value in info.items() if name not in skipped
    )


def _header(root: xr.DataTree) -> tuple[str, str, str]:
    """Return what it is, how much is in it, and how old it is."""
    groups = list(root.children.values())
    items = sum(len(group.children) for group in groups)
    nbytes = sum(_nbytes(node) for group in groups for node in group.children.values())
    state, name = state_of(root), root.attrs.get("labtree_name")
    title = "labtree workspace" + (f" {short(name, 80)!r}" if name else "")
    parts = [count(len(groups), "namespace"), count(items, "item"), size(nbytes)]
    if state.is_lazy:
        parts.append("lazy")
    if state.where is not None:
        parts.append(short(state.where, 400))
    age = html.age(root.attrs.get("labtree_created_at"))
    return title, ", ".join(parts), f"created {age}" if age else ""


def _row(node: xr.DataTree) -> tuple[str, str, str, str, str, str]:
    info = describe_item(node)
    note = str(info.get("note", ""))
    return (
        real_name(node),
        str(info["type"]),
        _about(info),
        size(_nbytes(node)),
        _when(info["created_at"]),
        note,
    )


def workspace_text(tree: xr.DataTree) -> str:
    """Return what a workspace holds as text."""
    root = tree.root
    with state_of(root).lock:
        title, about, age = _header(root)
        lines = [f"<{title}> {about}", *([age] if age else [])]
        groups = list(root.children.values())
        for group in groups[:SHOWN]:
            nodes = list(group.children.values())
            lines.append(f"{short(real_name(group), 80)}/  ({count(len(nodes), 'item')})")
            rows = [[short(cell) for cell in _row(node)] for node in nodes[:SHOWN]]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for *cells, note in rows:
                padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
                lines.append(("    " + "  ".join([*padded, note])).rstrip())
            if len(nodes) > SHOWN:
                lines.append(f"    … {len(nodes) - SHOWN} more")
        if len(groups) > SHOWN:
            lines.append(f"… {count(len(groups) - SHOWN, 'more namespace')}")
    return "\n".join([*lines, "", _VERBS])


def workspace_html(tree: xr.DataTree) -> str:
    """Return what a workspace holds as HTML, collapsible; every name in it is escaped."""
    root = tree.root
    with state_of(root).lock:
        title, *about = _header(root)
        groups = list(root.children.values())
        few = sum(len(group.children) for group in groups) <= 2 * SHOWN
        parts = [_group_html(group, few) for group in groups[:SHOWN]]
    if len(groups) > SHOWN:
        more = count(len(groups) - SHOWN, "more namespace")
        parts.append(f'<div class="muted">… {more}</div>')
    verbs = html.methods(_VERBS)
    return html.page(title, ", ".join(filter(None, about)), *parts, verbs)


def _group_html(group: xr.DataTree, is_open: bool) -> str:
    nodes = list(group.children.values())
    # Rows past those that are shown are only counted.
    rows = [_row(node) if i < SHOWN else () for i, node in enumerate(nodes)]
    body = html.table(rows, ("name", "", "", "", "muted", "text note"))
    about = f"({count(len(nodes), 'item')})"
    return html.fold(real_name(group), about, body, is_open=is_open)


def object_text(obj: xr.Dataset | xr.DataArray) -> str:
    """Return what an object is, and what can be done with it, as text."""
    summary = inspection.summary(obj)
    lines = [f"    {short(name)}: {short(value)}" for name, value in summary.items()]
    head = f"<labtree {short(inspection.kind(obj))}> {size(obj.nbytes)}"
    return "\n".join([head, *lines, "", _OBJECT_VERBS])


def object_html(obj: xr.Dataset | xr.DataArray) -> str:
    """Return what an object is, and what can be done with it, as HTML."""
    rows = html.table(inspection.summary(obj).items(), ("", "text"))
    title = f"labtree {short(inspection.kind(obj), 80)}"
    return html.page(title, size(obj.nbytes), rows, html.preformatted(_OBJECT_VERBS))
