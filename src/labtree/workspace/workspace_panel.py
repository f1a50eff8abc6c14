"""What ``tree.ws`` and ``ds.ws`` show of themselves: facts only, and no data are read."""

from typing import Any

import pandas as pd
import xarray as xr

from labtree.display import (
    SHOWN,
    Panel,
    Section,
    age,
    duration,
    format_bytes,
    plural,
    shape_and_dtype,
    truncate,
)
from labtree.objects import registry
from labtree.workspace.items import describe_item, real_name
from labtree.workspace.state import changes, state_of

__all__ = ["item_cells", "item_facts", "item_panel", "object_panel", "workspace_panel"]

_CALLS = (
    ".store(namespace, key, obj, note=None)", ".get(namespace, key)", "[namespace, key]",
    ".list_namespaces()", ".list_keys()", ".get_info(namespace, key)", ".describe()",
    ".rename(namespace, old, new)", ".add_note(namespace, key, note)",
    ".delete(namespace, key)", ".merge_from(other)", ".find(pattern)", ".is_saved",
    ".changes", ".save(path)", ".close()",
)  # fmt: skip
_ITEM_CALLS = (".kind", ".summary()", ".validate()", ".plot()")
_OBJECT_CALLS = (".store(namespace, key)", ".kind", ".summary()", ".validate()", ".plot()")


def workspace_panel(tree: xr.DataTree) -> Panel:
    """Return what a workspace holds: its namespaces and their items."""
    root = tree.root
    state = state_of(root)
    with state.lock:
        unsaved = changes(root)
        groups = [
            (real_name(group), list(group.children.values()))
            for group in root.children.values()
        ]
        items = sum(len(nodes) for _, nodes in groups)
        nbytes = sum(_nbytes(node) for _, nodes in groups for node in nodes)
        # Rows past those that are shown are only counted.
        sections = [
            Section(
                f"{name}/",
                [item_cells(node) if i < SHOWN else () for i, node in enumerate(nodes)],
                ("name", "note", "fact", "fact", "muted"),
                plural(len(nodes), "item"),
                is_open=items <= 2 * SHOWN,
            )
            for name, nodes in groups[:SHOWN]
        ]
        sections += [Section(name, ()) for name, _ in groups[SHOWN:]]
        name = root.attrs.get("labtree_name")
        created = age(root.attrs.get("labtree_created_at"))
    about = [plural(len(groups), "namespace"), plural(items, "item"), format_bytes(nbytes)]
    about += ["lazy"] * state.is_lazy
    about += [truncate(state.location, 400)] if state.location is not None else []
    about += ["closed"] * state.is_closed
    about += [f"{plural(len(unsaved), 'change')} not saved"] if unsaved else []
    about += [f"created {created}"] if created else []
    title = f"labtree workspace {truncate(name, 80)!r}" if name else "labtree workspace"
    return Panel(title, ", ".join(about), sections, _CALLS, "namespace")


def item_panel(node: xr.DataTree) -> Panel:
    """Return what an item of a workspace is, and what can be done with it."""
    info = describe_item(node)
    rows = [(name, value) for name, value in info.items() if name not in ("type", "note")]
    about = [format_bytes(_nbytes(node))]
    about += [f"note: {truncate(info['note'], 200)}"] if "note" in info else []
    name = truncate("/".join(map(real_name, (node.parents[0], node))), 80)
    title = f"labtree {truncate(info['type'], 80)} {name!r}"
    return Panel(title, ", ".join(about), [Section("", rows, ("", "text"))], _ITEM_CALLS)


def object_panel(obj: xr.Dataset | xr.DataArray | pd.DataFrame | pd.Series) -> Panel:
    """Return what an object is, and what can be done with it."""
    if isinstance(obj, pd.DataFrame | pd.Series):
        table = obj.to_frame() if isinstance(obj, pd.Series) else obj
        columns = list(table.dtypes.items())
        nbytes = format_bytes(table.memory_usage(deep=False).sum())
        about = f"{plural(len(table), 'row')}, {nbytes}"
        section = Section("columns", columns, ("name", "muted"), str(len(columns)))
        return Panel(
            f"labtree {type(obj).__name__.lower()}", about, [section], _OBJECT_CALLS[:1]
        )
    summary = registry.summary(obj)
    title = f"labtree {truncate(registry.kind_of(obj), 80)}"
    sections = [Section("", list(summary.items()), ("", "text"))]
    about = format_bytes(obj.nbytes)
    if "length_ms" in summary:
        about = f"{item_facts(summary, _sizes(obj.sizes))}, {about}"
    verbs = [f"labtree.spikes.{verb}" for verb in registry.verbs(obj)]
    return Panel(title, about, sections, (*_OBJECT_CALLS, *verbs))


def _sizes(sizes: Any) -> dict[Any, int]:
    """Return the sizes of dimensions, the spikes last."""
    return {dim: sizes[dim] for dim in sorted(sizes, key=lambda dim: dim == "spike")}


def item_facts(info: dict[str, Any], sizes: Any = None) -> str:
    """Return the shape of an item in words, from what `describe_item` tells of it.

    Parameters
    ----------
    info
        The item's description.
    sizes
        The sizes of its dimensions, by name.
    """
    if "shape" in info:
        return shape_and_dtype(info["shape"], info.get("dtype", ""))
    if "sizes" in info:
        return ", ".join(f"{dim}: {length}" for dim, length in info["sizes"].items())
    facts = [plural(length, str(dim)) for dim, length in (sizes or {}).items()]
    if length := info.get("length_ms"):
        facts.append(duration(length / 1000))
    if facts:
        return ", ".join(facts)
    skipped = {"type", "created_at", "note"}
    return ", ".join(
        f"{name}: {truncate(value)}" for name, value in info.items() if name not in skipped
    )


def item_cells(node: xr.DataTree) -> tuple[str, str, str, str, str]:
    """Return name, note, kind, shape in words, and size of an item."""
    info = describe_item(node)
    # Of spikes, how many units and spikes there are says more than the other facts.
    sizes = _sizes(node.sizes) if "length_ms" in info else {}
    return (
        real_name(node),
        str(info.get("note", "")),
        str(info["type"]),
        item_facts(info, sizes),
        # What a dict or a number takes stands in attributes, and is not counted.
        format_bytes(_nbytes(node)) if _nbytes(node) else "",
    )


def _nbytes(node: xr.DataTree) -> int:
    return sum(variable.nbytes for variable in node.variables.values())
