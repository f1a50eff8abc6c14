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
from labtree.workspace.items import describe_item, item_path, real_name
from labtree.workspace.state import changes, state_of

_CALLS = (
    ".store(namespace, key, obj, note=None)", ".get(namespace, key)", "[namespace, key]",
    ".list_namespaces()", ".list_keys()", ".get_info(namespace, key)", ".describe()",
    ".rename(namespace, old, new)", ".add_note(namespace, key, note)",
    ".delete(namespace, key)", ".merge_from(other)", ".find(pattern)", ".is_saved",
    ".changes", ".save(path)", ".compact()", ".close()",
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
                [
                    item_cells(node, describe_item(node)) if i < SHOWN else ()
                    for i, node in enumerate(nodes)
                ],
                ("name", "note", "kind", "fact", "muted size"),
                plural(len(nodes), "item"),
                is_open=items <= 2 * SHOWN,
            )
            for name, nodes in groups[:SHOWN]
        ]
        sections += [Section(name, ()) for name, _ in groups[SHOWN:]]
        name = root.attrs.get("labtree_name")
        created = age(root.attrs.get("labtree_created_at"))
    about = [plural(len(groups), "namespace"), plural(items, "item"), format_bytes(nbytes)]
    about += ["lazy"] * (state.is_lazy and not state.is_durable)
    about += ['open with mode="a"'] * (state.is_durable and not state.is_closed)
    about += [truncate(state.location, 400)] if state.location is not None else []
    about += ["closed"] * state.is_closed
    about += [f"{plural(len(unsaved), 'change')} not saved"] if unsaved else []
    about += [f"created {created}"] if created else []
    title = f"labtree workspace {truncate(name, 80)!r}" if name else "labtree workspace"
    return Panel(title, ", ".join(about), sections, _CALLS, "namespace")


def item_panel(node: xr.DataTree) -> Panel:
    """Return what an item of a workspace is, and what can be done with it."""
    item = describe_item(node)
    _, note, kind, facts, nbytes = item_cells(node, item)
    created = age(item["created_at"])
    about = [facts, nbytes, f"stored {created}" if created else ""]
    about += [f"note: {truncate(note, 200)}"] if note else []
    name = truncate(item_path(node), 240)
    dataset = node.to_dataset(inherit=False)
    about_text = ", ".join(filter(None, about))
    return Panel(
        f"labtree {truncate(kind, 80)} {name!r}", about_text, calls=_ITEM_CALLS, whole=dataset
    )


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
    summary = {"type": registry.kind_of(obj), **registry.summary(obj)}
    main = _main(obj)
    facts = [item_facts(summary, _sizes(obj, main), _unit(main)), format_bytes(obj.nbytes)]
    functions = [f"labtree.spikes.{call}" for call in registry.functions_for(obj)]
    return Panel(
        f"labtree {truncate(summary['type'], 80)}",
        ", ".join(filter(None, facts)),
        calls=(*_OBJECT_CALLS, *functions),
        whole=obj,
    )


def _sizes(obj: xr.Dataset | xr.DataArray, main: xr.Variable | None) -> dict[str, int]:
    """Return the sizes of dimensions, in the order of the values; those of spikes last."""
    dims = [*(main.dims if main is not None else ()), *obj.sizes]
    dims.sort(key=lambda dim: dim == "spike")
    return {str(dim): obj.sizes[dim] for dim in dict.fromkeys(dims)}


def _main(obj: xr.Dataset | xr.DataArray) -> xr.Variable | None:
    """Return the array that an object is about; None where it has several."""
    if isinstance(obj, xr.DataArray):
        return obj.variable
    names = list(obj.data_vars)
    known = [name for name in ("rate", "matrix", "data", "row_size") if name in names]
    return obj.variables[known[0]] if known else None


def _unit(main: xr.Variable | None) -> str:
    return "" if main is None else truncate(main.attrs.get("units", ""), 24)


def item_facts(info: dict[str, Any], sizes: dict[str, int], unit: str = "") -> str:
    """Return in words how large an item is and what is in it.

    Parameters
    ----------
    info
        The item's description.
    sizes
        The sizes of its dimensions, by name.
    unit
        Of its values.
    """
    kind = info.get("type")
    if "length_ms" in info:
        length = info["length_ms"]
        facts = [plural(size, dim) for dim, size in sizes.items()]
        return ", ".join([*facts, duration(length / 1000)] if length else facts)
    if kind == "trials":
        rows, columns = info["shape"]
        return f"{plural(rows, 'trial')} × {plural(columns, 'column')}"
    if kind == "dataframe":
        columns = ", ".join(map(str, info["columns"][:SHOWN]))
        return f"{plural(info['shape'][0], 'row')}: {truncate(columns, 60)}"
    if kind == "dataset":
        names = ", ".join(map(str, info["variables"][:SHOWN]))
        shape = " × ".join(_extent(dim, size) for dim, size in sizes.items())
        return ": ".join(filter(None, [shape, truncate(names, 60)]))
    if kind == "dataarray" or ("shape" in info and "dtype" not in info and sizes):
        shape = " × ".join(_extent(dim, size) for dim, size in sizes.items())
        return ", ".join(filter(None, [shape, str(info.get("dtype", "")), unit]))
    if "shape" in info:
        return shape_and_dtype(info["shape"], info.get("dtype", ""))
    if "keys" in info:
        return truncate(", ".join(map(str, info["keys"][:SHOWN])), 60)
    if "value" in info:
        return truncate(info["value"])
    skipped = {"type", "created_at", "note"}
    return ", ".join(
        f"{name}: {truncate(value)}" for name, value in info.items() if name not in skipped
    )


def _extent(dim: str, size: int) -> str:
    """Return how long a dimension is in words, such as "20 units"."""
    noun = "time point" if dim == "time" else dim.removesuffix("_i").removesuffix("_j")
    return (
        plural(size, noun)
        if noun.replace(" ", "").isalpha() and len(noun) > 2
        else f"{size:,} {dim}"
    )


def item_cells(node: xr.DataTree, info: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Return name, note, kind, shape in words, and size of an item with its description."""
    dataset = node.to_dataset(inherit=False)
    main = _main(dataset)
    return (
        real_name(node),
        str(info.get("note", "")),
        str(info["type"]),
        item_facts(info, _sizes(dataset, main), _unit(main)),
        # What a dict or a number takes stands in attributes, and is not counted.
        format_bytes(dataset.nbytes) if dataset.nbytes else "",
    )


def _nbytes(node: xr.DataTree) -> int:
    return sum(variable.nbytes for variable in node.variables.values())
