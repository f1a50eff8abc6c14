"""How ``tree.ws`` and ``ds.ws`` show themselves: what is there, and what can be called."""

import time
from html import escape
from typing import Any

import xarray as xr

from labtree.objects import inspection
from labtree.workspace.items import describe_item, real_name
from labtree.workspace.state import state_of

__all__ = ["object_html", "object_text", "workspace_html", "workspace_text"]

# More is counted, not listed: a repr is read by a person.
_SHOWN = 12
_VERBS = (
    ".store(namespace, key, obj, note=None)  .get(namespace, key)  [namespace, key]\n"
    ".list_namespaces()  .list_keys()  .get_info(namespace, key)  .describe()\n"
    ".rename(namespace, old, new)  .add_note(namespace, key, note)  .delete(namespace, key)\n"
    ".merge_from(other)  .save(path)  .close()"
)
_OBJECT_VERBS = ".store(namespace, key)  .kind  .summary()  .validate()  .plot()"
_STYLE = (
    "<style>.labtree{font-size:13px;line-height:1.45;overflow-x:auto}"
    ".labtree table{border-collapse:collapse;margin:0 0 .4em 1em;font-size:inherit;"
    "color:inherit}"
    ".labtree td{text-align:left;padding:1px 12px 1px 0;vertical-align:top;"
    "white-space:nowrap;background:none;border:none}"
    ".labtree td.text{white-space:normal;min-width:9em;overflow-wrap:anywhere}"
    ".labtree .muted{opacity:.65}.labtree .note{font-style:italic}"
    ".labtree summary{cursor:pointer;overflow-wrap:anywhere}"
    ".labtree pre{white-space:pre-wrap;margin:.2em 0 0 1em;background:none;color:inherit}"
    "</style>"
)


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return (
                f"{nbytes:.0f} {unit}"
                if unit == "B" or nbytes >= 100
                else f"{nbytes:.1f} {unit}"
            )
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def _nbytes(node: xr.DataTree) -> int:
    return sum(variable.nbytes for variable in node.variables.values())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _when(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _about(info: dict[str, Any]) -> str:
    """Return the part of an item's description that tells its shape."""
    if "shape" in info:
        shape = " × ".join(map(str, info["shape"])) or "scalar"
        return f"{shape} {info.get('dtype', '')}".strip()
    if "sizes" in info:
        return ", ".join(f"{dim}: {size}" for dim, size in info["sizes"].items())
    skipped = {"type", "created_at", "note"}
    return ", ".join(
        f"{name}: {_short(value)}" for name, value in info.items() if name not in skipped
    )


def _short(value: Any, length: int = 40) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def _header(root: xr.DataTree) -> tuple[str, str]:
    groups = list(root.children.values())
    count = sum(len(group.children) for group in groups)
    nbytes = sum(_nbytes(node) for group in groups for node in group.children.values())
    state, name = state_of(root), root.attrs.get("labtree_name")
    title = "labtree workspace" + (f" {name!r}" if name else "")
    parts = [_count(len(groups), "namespace"), _count(count, "item"), _size(nbytes)]
    if state.is_lazy:
        parts.append("lazy")
    if state.where is not None:
        parts.append(str(state.where))
    return title, ", ".join(parts)


def _row(node: xr.DataTree) -> tuple[str, str, str, str, str, str]:
    info = describe_item(node)
    note = str(info.get("note", ""))
    return (
        real_name(node),
        str(info["type"]),
        _about(info),
        _size(_nbytes(node)),
        _when(info["created_at"]),
        note,
    )


def workspace_text(tree: xr.DataTree) -> str:
    """Return what a workspace holds as text."""
    root = tree.root
    with state_of(root).lock:
        title, about = _header(root)
        lines = [f"<{title}> {about}"]
        groups = list(root.children.values())
        for group in groups[:_SHOWN]:
            nodes = list(group.children.values())
            lines.append(f"{real_name(group)}/  ({_count(len(nodes), 'item')})")
            rows = [[_short(cell) for cell in _row(node)] for node in nodes[:_SHOWN]]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for *cells, note in rows:
                padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
                lines.append(("    " + "  ".join([*padded, note])).rstrip())
            if len(nodes) > _SHOWN:
                lines.append(f"    … {len(nodes) - _SHOWN} more")
        if len(groups) > _SHOWN:
            lines.append(f"… {_count(len(groups) - _SHOWN, 'more namespace')}")
    return "\n".join([*lines, "", _VERBS])


def workspace_html(tree: xr.DataTree) -> str:
    """Return what a workspace holds as HTML, collapsible; every name in it is escaped."""
    root = tree.root
    with state_of(root).lock:
        title, about = _header(root)
        groups = list(root.children.values())
        few = sum(len(group.children) for group in groups) <= 2 * _SHOWN
        parts = [_group_html(group, few) for group in groups[:_SHOWN]]
        if len(groups) > _SHOWN:
            more = _count(len(groups) - _SHOWN, "more namespace")
            parts.append(f'<div class="muted">… {more}</div>')
    verbs = f"<details><summary>methods</summary><pre>{escape(_VERBS)}</pre></details>"
    head = f'<b>{escape(title)}</b> <span class="muted">{escape(about)}</span>'
    return f'{_STYLE}<div class="labtree"><div>{head}</div>{"".join(parts)}{verbs}</div>'


def _group_html(group: xr.DataTree, is_open: bool) -> str:
    nodes = list(group.children.values())
    rows = []
    for node in nodes[:_SHOWN]:
        name, kind, about, size, when, note = (escape(_short(cell, 60)) for cell in _row(node))
        rows.append(
            f"<tr><td><b>{name}</b></td><td>{kind}</td><td>{about}</td><td>{size}</td>"
            f'<td class="muted">{when}</td><td class="text note">{note}</td></tr>'
        )
    if len(nodes) > _SHOWN:
        rows.append(f'<tr><td class="muted">… {len(nodes) - _SHOWN} more</td></tr>')
    head = (
        f"{escape(real_name(group))} <span class='muted'>({_count(len(nodes), 'item')})</span>"
    )
    opened = " open" if is_open else ""
    return f"<details{opened}><summary>{head}</summary><table>{''.join(rows)}</table></details>"


def object_text(obj: xr.Dataset | xr.DataArray) -> str:
    """Return what an object is, and what can be done with it, as text."""
    summary = inspection.summary(obj)
    lines = [f"    {name}: {_short(value)}" for name, value in summary.items()]
    head = f"<labtree {inspection.kind(obj)}> {_size(obj.nbytes)}"
    return "\n".join([head, *lines, "", _OBJECT_VERBS])


def object_html(obj: xr.Dataset | xr.DataArray) -> str:
    """Return what an object is, and what can be done with it, as HTML."""
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td class='text'>{escape(_short(value))}</td></tr>"
        for name, value in inspection.summary(obj).items()
    )
    head = f"<b>labtree {escape(inspection.kind(obj))}</b>"
    size = f'<span class="muted">{_size(obj.nbytes)}</span>'
    verbs = f"<pre>{escape(_OBJECT_VERBS)}</pre>"
    return f'{_STYLE}<div class="labtree">{head} {size}<table>{rows}</table>{verbs}</div>'
