"""Changing the groups of a netCDF-4 file so that they are those of a tree."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from h5py import h5a, h5g

from labtree.storage.attributes import write_native
from labtree.storage.marks import Path as NodePath
from labtree.storage.names import file_name
from labtree.storage.netcdf_writer import NetCDFWriter
from labtree.storage.records import NodeRecord
from labtree.storage.tree_changes import Changes, topmost
from labtree.storage.writing import Written, write_dataset, write_group_attributes

# Attributes of the root that belong to the file and not to the dataset in it.
_OF_THE_FILE = frozenset({b"_NCProperties", b"labtree_file_format", b"labtree_file_page"})


def change_groups(
    writer: NetCDFWriter, changes: Changes, records: Mapping[NodePath, NodeRecord]
) -> Written:
    """Move, remove and write groups; return what was written.

    Parameters
    ----------
    writer
        The open file.
    changes
        What differs from it.
    records
        Of the nodes that it has.
    """
    root, nodes = writer.file, changes.nodes
    origins = set(changes.moved.values())
    temporary: dict[NodePath, str] = {}  # where groups stand meanwhile, by their old paths
    # The deepest first: what moves out of a group must not go with it.
    for origin in sorted(changes.relinked.values(), key=len, reverse=True):
        temporary[origin] = f"labtree_moving_{len(temporary)}"
        root.links.move(_location(origin), root, temporary[origin].encode())
    replaced = [path for path in changes.relinked if path in records and path not in origins]
    leaves = [
        path
        for path in changes.written
        if path and path in records and path not in origins and not nodes[path].children
    ]
    gone = {_place(path, temporary) for path in (*changes.removed, *replaced, *leaves)}
    for place in topmost(gone):
        root.unlink("/".join(place).encode())
    writing = _Writing(writer, changes, records)
    rewritten, described, touched = (
        set(changes.written),
        set(changes.described),
        changes.touched,
    )
    for path in filter(touched.__contains__, nodes):
        if path in changes.relinked:
            name = temporary[changes.relinked[path]]
            root.links.move(name.encode(), root, _location(path))
            _set_real_name(_open(root, path), path)
        if path in rewritten:
            writing.write(path)
        elif path in described:
            group = _open(root, path)
            _clear_attributes(group, path)
            _set_real_name(group, path)
            dataset = nodes[path].to_dataset(inherit=False)
            write_group_attributes(group, dataset, list(path))
    return writing.written


@dataclass(slots=True)
class _Writing:
    """Writes groups of a tree into a file that has others.

    `shared` are the dimensions that groups which were written have for those below them.
    """

    writer: NetCDFWriter
    changes: Changes
    records: Mapping[NodePath, NodeRecord]
    written: Written = field(default_factory=Written)
    shared: dict[NodePath, dict[str, int]] = field(default_factory=dict)

    def write(self, path: NodePath) -> None:
        """Write one group, new or in the place of what is in it."""
        root, node = self.writer.file, self.changes.nodes[path]
        shared: dict[str, int] = {}
        if path and not _exists(root, path):
            group = self.writer.group(_open(root, path[:-1]), file_name(path[-1]))
        else:
            group, shared = _open(root, path), self._shared(path)
            _clear(group, path, {file_name(name).encode() for name in shared})
        _set_real_name(group, path)
        above = {str(n) for each in node.parents for n in each.to_dataset(inherit=False).sizes}
        for depth in range(len(path)):
            above |= self._shared(path[:depth]).keys()
        record = write_dataset(
            self.writer,
            group,
            node.to_dataset(inherit=False),
            list(path),
            self.written,
            frozenset(map(file_name, above)),
        )
        if shared:
            record["shared"] = shared
        self.shared[path] = shared
        self.written.records.append(record)

    def _shared(self, path: NodePath) -> dict[str, int]:
        """Return the dimensions that a group has for those below it."""
        if path in self.shared:
            return self.shared[path]
        record = self.records.get(self.changes.moved.get(path, path))
        return {} if record is None else record.get("shared", {})


def _place(path: NodePath, temporary: Mapping[NodePath, str]) -> tuple[str, ...]:
    """Return where a group of the file stands while others that it may be below are moved."""
    for depth in range(len(path), 0, -1):
        if path[:depth] in temporary:
            return (temporary[path[:depth]], *map(file_name, path[depth:]))
    return tuple(map(file_name, path))


def _location(path: NodePath) -> bytes:
    return "/".join(map(file_name, path)).encode()


def _open(root: Any, path: NodePath) -> Any:
    return h5g.open(root, _location(path)) if path else root


def _exists(root: Any, path: NodePath) -> bool:
    parent = _open(root, path[:-1])  # its links do not keep it open
    return bool(parent.links.exists(file_name(path[-1]).encode()))


def _set_real_name(group: Any, path: NodePath) -> None:
    if h5a.exists(group, b"labtree_real_name"):
        h5a.delete(group, b"labtree_real_name")
    if path and file_name(path[-1]) != path[-1]:
        write_native(group, "labtree_real_name", json.dumps(path[-1]))


def _clear_attributes(group: Any, path: NodePath) -> None:
    names: list[bytes] = []
    h5a.iterate(group, names.append)
    for name in names:
        if path or name not in _OF_THE_FILE:
            h5a.delete(group, name)


def _clear(group: Any, path: NodePath, shared: set[bytes]) -> None:
    """Remove the datasets and attributes of a group, but not what the groups below it use."""
    count = group.get_num_objs()
    names = [group.get_objname_by_idx(i) for i in range(count)]
    kinds = [group.get_objtype_by_idx(i) for i in range(count)]
    for name, kind in zip(names, kinds, strict=True):
        if kind != h5g.GROUP and name not in shared:
            group.unlink(name)
    _clear_attributes(group, path)
