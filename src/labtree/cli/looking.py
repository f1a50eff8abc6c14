"""``labtree ls`` and ``labtree info``: what is in files and folders."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labtree.cli.terminal import (
    WORKSPACE,
    expanded,
    namespace_and_key,
    open_path,
    say,
    size_on_disk,
    table,
    things_in,
)
from labtree.display.formatting import age, date, format_bytes, truncate
from labtree.errors import FormatError
from labtree.formats import Format, find

if TYPE_CHECKING:
    import xarray as xr


def ls(options: argparse.Namespace) -> None:
    """List what is in files and folders."""
    paths = expanded(options.paths)
    parts = {path: _listing(path) for path in paths}
    if len(paths) == 1:
        say(options, *parts[paths[0]])
        return
    text = "\n\n".join(f"{path}:\n{text}" for path, (_, text) in parts.items())
    say(options, {path: value for path, (value, _) in parts.items()}, text)


def _listing(path: str) -> tuple[Any, str]:
    """Return what is in a file or folder, for JSON and as text."""
    things = things_in(path)
    if things is not None:
        return _folder_listing(find(path), things)
    _, tree = open_path(path)
    with tree:
        if WORKSPACE in tree.attrs:
            return _items(tree)
        nodes = {
            node.path: {str(name): _array(array) for name, array in node.variables.items()}
            for node in tree.subtree
        }
        rows = [
            (f"{node.path.rstrip('/')}/{name}", *_array_cells(array))
            for node in tree.subtree
            for name, array in node.variables.items()
        ]
        return nodes, table(rows)


def _folder_listing(folder: Path, things: Iterable[tuple[Path, Format]]) -> tuple[Any, str]:
    value, rows = [], []
    for thing, found in things:
        nbytes, modified = size_on_disk(thing), thing.stat().st_mtime
        name = str(thing.relative_to(folder))
        value.append(
            {"name": name, "format": found.name, "bytes": nbytes, "modified": modified}
        )
        rows.append((name, found.what, format_bytes(nbytes), date(modified)))
    return value, table(rows)


def _items(tree: "xr.DataTree", namespace: str | None = None) -> tuple[dict[str, Any], str]:
    """Return what the items of a workspace, or of one namespace, are: JSON and text."""
    from labtree.workspace.items import describe_item, iterate_items, real_name
    from labtree.workspace.workspace_panel import item_cells

    index: dict[str, Any] = {real_name(group): {} for group in tree.children.values()}
    rows: list[tuple[str, ...]] = []
    for space, key, node in iterate_items(tree):
        if namespace in (None, space):
            about = index[space][key] = describe_item(node)
            _, note, kind, facts, nbytes = item_cells(node, about)
            created = date(about["created_at"])
            rows.append((f"{space}/{key}", kind, facts, nbytes, created, note))
    return index, table(rows)


def _array(array: Any) -> dict[str, Any]:
    dims = [str(dim) for dim in array.dims]
    return {"dims": dims, "shape": list(array.shape), "dtype": str(array.dtype)}


def _array_cells(array: Any) -> tuple[str, ...]:
    sizes = " × ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    unit = truncate(array.attrs.get("units", ""), 24)
    return sizes, str(array.dtype), unit, format_bytes(array.nbytes)


def info(options: argparse.Namespace) -> None:
    """Describe files, or items of a workspace."""
    parts = [_about(path, items) for path, items in _with_items(options.paths)]
    if len(parts) == 1:
        say(options, *parts[0])
        return
    say(options, [value for value, _ in parts], "\n\n".join(text for _, text in parts))


def _with_items(arguments: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return each path with what is asked of it: what is no path is an item of the last."""
    found: list[tuple[str, list[str]]] = []
    for argument in expanded(arguments):
        is_path = "://" in argument or any(
            Path(argument + suffix).expanduser().exists() for suffix in ("", ".h5")
        )
        if is_path or not found:
            found.append((argument, []))
        else:
            found[-1][1].append(argument)
    return found


def _about(path: str, items: list[str]) -> tuple[Any, str]:
    """Return what a file, a folder or items of a workspace are, for JSON and as text."""
    things = things_in(path)
    if things is not None:
        value, text = _folder_listing(find(path), things)
        return value, f"{path} is a folder with\n{text}"
    found, tree = open_path(path)
    with tree:
        if items and WORKSPACE not in tree.attrs:
            raise FormatError(f"{path} is {found.what}; only workspaces have items")
        if items:
            parts = [_item(tree, item) for item in items]
            if len(parts) == 1:
                return parts[0]
            return [value for value, _ in parts], "\n\n".join(text for _, text in parts)
        about: dict[str, Any] = {"format": found.name, "path": str(path)}
        lines = [f"{path} is {found.what}"]
        if "://" not in str(path):
            file = find(path)
            nbytes, modified = size_on_disk(file), file.stat().st_mtime
            about |= {"bytes": nbytes, "modified": modified}
            lines.append(f"{format_bytes(nbytes)} on the disk, changed {_moment(modified)}")
        if WORKSPACE in tree.attrs:
            about |= {
                "workspace_id": tree.ws.workspace_id,
                "name": tree.ws.name,
                "created_at": tree.ws.created_at,
                "namespaces": {name: len(keys) for name, keys in tree.ws.list_keys().items()},
            }
            panels = [tree.ws._panel()]
        else:
            about["groups"] = list(tree.groups)
            panels = tree.session._panels()
        return about, "\n".join([*lines, *(panel.text(with_calls=False) for panel in panels)])


def _moment(when: float) -> str:
    return f"{date(when)} ({age(when)})" if age(when) else date(when)


def _item(tree: "xr.DataTree", item: str) -> tuple[Any, str]:
    """Return what an item, or a namespace, of a workspace is."""
    from labtree.workspace.items import find_item

    if item.rstrip("/") in tree.ws.list_namespaces():
        name = item.rstrip("/")
        index, text = _items(tree, name)
        return index[name], f"{name}/\n{text}"
    namespace, key = namespace_and_key(tree, item)
    info = tree.ws.get_info(namespace, key)
    node = find_item(tree, namespace, key)
    assert node is not None
    facts = dict(info) | {"created_at": _moment(info["created_at"])}
    lines = [f"{name}: {truncate(value, 400)}" for name, value in facts.items()]
    return info, "\n".join([*lines, "", repr(node.to_dataset(inherit=False))])
