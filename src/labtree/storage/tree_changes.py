"""Save a tree onto the file that it came from: only what changed is written.

The groups of HDF5 are changed in place through a :class:`~labtree.storage.redo_log.RedoLog`,
so that a crash leaves the old or the new state. The catalogue gets a record of what changed,
and a whole one when the chain of changes has grown long.
"""

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from h5py import h5a, h5g

from labtree.storage import codecs, json_values
from labtree.storage.attributes import write_native
from labtree.storage.blobs import checksum
from labtree.storage.blocks import is_dask
from labtree.storage.catalogue import catalogue_text, merged
from labtree.storage.hdf5_end import read_at, read_chain
from labtree.storage.marks import (
    Mark,
    are_simple,
    has_same_variables,
    is_untouched,
    iterate_nodes,
    mark_node,
    same_attributes,
)
from labtree.storage.marks import Path as NodePath
from labtree.storage.names import file_name
from labtree.storage.netcdf_writer import NetCDFWriter
from labtree.storage.nodes import own_variables
from labtree.storage.records import variable_values
from labtree.storage.redo_log import RedoLog, Transaction
from labtree.storage.sources import as_bytes
from labtree.storage.writing import Written, write_dataset, write_group_attributes

__all__ = ["TreeFile"]

_MOST_LINKS = 500
_MOVING = "labtree_moving_{}"
# Attributes of the root that belong to the file and not to the dataset in it.
_OF_THE_FILE = frozenset({b"_NCProperties", b"labtree_file_format", b"labtree_file_page"})
Record = dict[str, Any]


@dataclass(slots=True)
class _Changes:
    """What has to be done to a file so that it holds a tree."""

    removed: list[NodePath] = field(default_factory=list)
    moved: dict[NodePath, NodePath] = field(default_factory=dict)  # new path -> old path
    relinked: dict[NodePath, NodePath] = field(default_factory=dict)  # the topmost of them
    written: list[NodePath] = field(default_factory=list)
    described: list[NodePath] = field(default_factory=list)  # only attributes changed

    def __bool__(self) -> bool:
        return bool(self.removed or self.moved or self.written or self.described)


class TreeFile:
    """A file of labtree that a tree is saved onto, again and again.

    Parameters
    ----------
    path
        The file. What was committed before a crash is put in its place first.

    Attributes
    ----------
    header
        What stands in the catalogue beside the records.
    records
        The records of all nodes by their paths.

    Raises
    ------
    FormatError
        If the file was changed by another program, or is damaged.
    BusyFileError
        If another program has it open for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = RedoLog(path)
        try:
            self._read()
        except BaseException:
            self.log.close(0)
            raise

    def _read(self) -> None:
        file = self.log.fileno()
        chain = read_chain(file, self.log.last)
        parts = [(record.text(file), record.values(file)) for record in chain]
        catalogue = merged(parts)
        self.header = catalogue.header
        self.records: dict[NodePath, Record] = {
            tuple(record["path"]): record for record in catalogue.records()
        }
        self._values = bytes(catalogue.values)
        self._links = len(chain) - 1
        self._whole_size = sum(chain[0].sizes)
        self._changed_size = sum(sum(record.sizes) for record in chain[1:])
        self._transaction = self.log.last.transaction

    def save(
        self, tree: xr.DataTree, marks: dict[NodePath, Mark], **about: Any
    ) -> Written | None:
        """Write what of a tree differs from the file; durable when it returns.

        Parameters
        ----------
        tree
            The root.
        marks
            The nodes as they were when the tree was opened from this file, or saved to it;
            brought up to date when the save is done.
        **about
            What changes in the header of the catalogue.

        Returns
        -------
        Written or None
            What was written; None where nothing had changed.
        """
        if self.log.last.transaction != self._transaction:  # an interrupt came at its end
            self._read()
        nodes = dict(iterate_nodes(tree))
        changes = self._find(nodes, marks)
        if not changes and all(self.header.get(name) == about[name] for name in about):
            return None
        written = Written()
        header = {**self.header, **about}
        with self.log.transaction() as change:
            records = self.records
            if changes:
                with change.hdf5() as file:
                    output = _ChangeOutput(change)
                    writer = NetCDFWriter(output, file, header["next_dimension"])
                    self._apply(writer, nodes, changes, written)
                    header["next_dimension"] = writer.next_dimension
                records = self._new_records(nodes, changes, written)
            self._commit(change, header, records, changes, written)
        for path in (*changes.removed, *changes.moved.values()):
            marks.pop(path, None)
        for path in (*changes.written, *changes.described, *changes.moved):
            marks[path] = mark_node(nodes[path])
        return written

    def close(self, patience_s: float = 1.0) -> bool:
        """Write a whole catalogue if the chain is long, and let go of the file."""
        return self.log.close(patience_s)

    @property
    def dead_bytes(self) -> int:
        """How many bytes of the file no item uses any more, about."""
        used = len(self._values) + self._whole_size
        for record in self.records.values():
            for _, _, _, _, columns in record["variables"]:
                used += sum(_stored_bytes(column) for column in columns)
            used += 5000  # groups, dimensions and attributes of one item in HDF5
        return max(0, self.log.last.end - used)

    # What differs.

    def _find(
        self, nodes: dict[NodePath, xr.DataTree], marks: dict[NodePath, Mark]
    ) -> _Changes:
        changes = _Changes()
        was: dict[int, NodePath] = {}
        for path, each in marks.items():
            known = each.node()
            if known is not None and path in self.records:
                was[id(known)] = path
        origins = {path: was.get(id(node)) for path, node in nodes.items()}
        origins[()] = ()
        for path, node in nodes.items():
            origin = origins[path]
            if origin is None:
                changes.written.append(path)
                continue
            if origin != path:
                changes.moved[path] = origin
                if not (path[-1] == origin[-1] and origins[path[:-1]] == origin[:-1]):
                    changes.relinked[path] = origin
            mark = marks.get(origin)
            difference = self._difference(node, self.records[origin], mark)
            if difference == "variables":
                changes.written.append(path)
            elif difference == "attributes":
                changes.described.append(path)
        kept = set(changes.moved.values())
        changes.removed = [p for p in self.records if p not in nodes and p not in kept]
        return changes

    def _difference(self, node: xr.DataTree, record: Record, mark: Mark | None) -> str | None:
        """Return what of a node differs from the file: "variables", "attributes" or nothing."""
        if mark is None or not has_same_variables(mark, node):
            return "variables"
        known: dict[Any, list[Any]] | None = None
        for name, variable in own_variables(node).items():
            attrs = variable.attrs if name in mark.variable_attrs else {}
            if is_untouched(mark, name, variable) and are_simple(attrs):
                continue
            if known is None:
                known = {each: rest for each, *rest in record["variables"]}
            if name not in known:  # a MultiIndex shows tuples that are not written
                continue
            _, spec, coded, columns = known[name]
            if not are_simple(attrs):
                now = {key: value for key, value in attrs.items() if key not in codecs.MARKS}
                if json_values.encode(now, "attrs") != coded:
                    return "variables"
            if not is_untouched(mark, name, variable) and not _has_same_values(
                variable, spec, columns
            ):
                return "variables"
        if same_attributes(mark.attrs, node.attrs) and are_simple(node.attrs):
            return None
        if json_values.encode(dict(node.attrs), "attrs") != record["attrs"]:
            return "attributes"
        return None

    # The change of HDF5's groups.

    def _apply(
        self,
        writer: NetCDFWriter,
        nodes: dict[NodePath, xr.DataTree],
        changes: _Changes,
        written: Written,
    ) -> None:
        root = writer.file
        temporary: dict[NodePath, str] = {}
        # The deepest first: what moves out of a group must not go with it.
        for path in sorted(changes.relinked, key=lambda p: -len(changes.relinked[p])):
            origin = changes.relinked[path]
            temporary[path] = _MOVING.format(len(temporary))
            _move(root, _place(origin), [temporary[path]])
        replaced = [
            path
            for path in changes.relinked
            if path in self.records and path not in changes.moved.values()
        ]
        leaves = [
            path
            for path in changes.written
            if path in self.records
            and path not in changes.moved.values()
            and not nodes[path].children
            and path
        ]
        gone = {*changes.removed, *replaced, *leaves}
        for path in gone:
            if not any(path[:depth] in gone for depth in range(1, len(path))):
                _unlink(root, _place(path))
        rewritten, described = set(changes.written), set(changes.described)
        for path, node in nodes.items():
            if path in temporary:
                _move(root, [temporary[path]], _place(path))
                _set_real_name(h5g.open(root, _joined(_place(path))), path)
            if path in rewritten:
                self._write(writer, path, node, written)
            elif path in described:
                group = root if not path else h5g.open(root, _joined(_place(path)))
                _clear_attributes(group, path)
                _set_real_name(group, path)
                write_group_attributes(group, node.to_dataset(inherit=False), list(path))

    def _write(
        self, writer: NetCDFWriter, path: NodePath, node: xr.DataTree, written: Written
    ) -> None:
        root, place = writer.file, _place(path)
        if path and not _exists(root, place):
            parent = root if len(place) == 1 else h5g.open(root, _joined(place[:-1]))
            group = writer.group(parent, place[-1])
        else:
            group = root if not path else h5g.open(root, _joined(place))
            _clear(group, path)
        _set_real_name(group, path)
        above = frozenset(
            file_name(str(name))
            for parent in node.parents
            for name in parent.to_dataset(inherit=False).sizes
        )
        dataset = node.to_dataset(inherit=False)
        written.records.append(
            write_dataset(writer, group, dataset, list(path), written, above)
        )

    # The catalogue.

    def _new_records(
        self, nodes: dict[NodePath, xr.DataTree], changes: _Changes, written: Written
    ) -> dict[NodePath, Record]:
        """Return the records of the tree, those of nodes that were written with old copies."""
        fresh = {tuple(record["path"]): record for record in written.records}
        described = set(changes.described)
        records: dict[NodePath, Record] = {}
        for path, node in nodes.items():
            record = fresh.get(path)
            if record is None:
                record = self.records[changes.moved.get(path, path)]
                if path in changes.moved or path in described:
                    record = copy.deepcopy(record)
                    record["path"] = list(path)
                    record["attrs"] = json_values.encode(dict(node.attrs), "attrs")
            records[path] = record
        return records

    def _commit(
        self,
        change: Transaction,
        header: dict[str, Any],
        records: dict[NodePath, Record],
        changes: _Changes,
        written: Written,
    ) -> None:
        fresh = {id(record) for record in written.records}
        sources = {id(r): bytes(written.values) if id(r) in fresh else self._values
                   for r in records.values()}  # fmt: skip
        touched = {*changes.written, *changes.described, *changes.moved}
        lines: list[Record] = [
            {"path": list(path), "removed": True}
            for path in (*changes.removed, *changes.relinked.values())
        ]
        lines += [
            {"path": list(path), "removed": True}
            for path in changes.relinked
            if path in self.records
        ]
        values = bytearray()
        lines += [
            _with_values(records[path], sources[id(records[path])], values)
            for path in records
            if path in touched
        ]
        text = catalogue_text(header, lines)
        is_whole = (
            self._links + 1 > _MOST_LINKS
            or self._changed_size + len(text) + len(values)
            > max(self._whole_size // 2, 1 << 16)
            or not self._is_in_order(records, changes)
        )
        if is_whole:
            values = bytearray()
            all_lines = [
                _with_values(record, sources[id(record)], values) for record in records.values()
            ]
            text = catalogue_text(header, all_lines)
        change.commit(text, bytes(values), is_whole=is_whole)
        self._read() if is_whole else self._follow(header, records, lines, values, text)

    def _is_in_order(self, records: dict[NodePath, Record], changes: _Changes) -> bool:
        """Return whether a reader that merges the change finds the children in their order."""
        gone = {*changes.removed, *changes.relinked.values(), *changes.relinked}
        after = list(self.records)
        if gone:
            after = [path for path in after if not _is_below(path, gone)]
        touched = {*changes.written, *changes.described, *changes.moved}
        known = set(after)
        after += [path for path in records if path in touched and path not in known]
        parents = {path[:-1] for path in (*touched, *gone) if path}

        def children(paths: list[NodePath]) -> dict[NodePath, list[NodePath]]:
            found: dict[NodePath, list[NodePath]] = {parent: [] for parent in parents}
            for path in paths:
                if path and path[:-1] in found:
                    found[path[:-1]].append(path)
            return found

        return children(after) == children(list(records))

    def _follow(
        self,
        header: dict[str, Any],
        records: dict[NodePath, Record],
        lines: list[Record],
        values: bytearray,
        text: bytes,
    ) -> None:
        """Take over what was committed, without reading it back."""
        start = len(self._values)
        for line in lines:
            if line.get("removed"):
                continue
            for variable in line["variables"]:
                if variable[4][0][5] is not None:
                    variable[4][0][5] += start
            records[tuple(line["path"])] = line
        self.header, self.records = header, records
        self._values += bytes(values)
        self._links += 1
        self._changed_size += len(text) + len(values)
        self._transaction = self.log.last.transaction


class _ChangeOutput:
    """What a `NetCDFWriter` writes arrays through, inside a transaction."""

    def __init__(self, change: Transaction) -> None:
        self._change = change

    def write_at(self, offset: int, array: np.ndarray) -> None:
        self._change.write_at(offset, as_bytes(array))

    def read_at(self, offset: int, size: int) -> bytes:
        return read_at(self._change.fileno(), size, offset)

    def check(self) -> None:
        self._change.check()

    def abandon(self) -> None:
        """Do nothing: the transaction is not committed."""

    def close(self) -> None:
        """Do nothing: the transaction closes the file."""


def _has_same_values(variable: Any, spec: codecs.Spec | None, columns: list[list[Any]]) -> bool:
    """Return whether a variable's values are those that a catalogue's columns describe."""
    if isinstance(variable, xr.IndexVariable):  # cannot be changed in place
        return True
    if is_dask(variable):
        return False
    try:
        now, arrays = codecs.encode(variable_values(variable, "values"), "values")
    except TypeError:
        return False
    return (
        now == spec
        and len(arrays) == len(columns)
        and all(
            array.dtype.str == column[1]
            and list(array.shape) == column[2]
            and checksum(array) == column[4]
            for array, column in zip(arrays, columns, strict=True)
        )
    )


def _with_values(record: Record, source: bytes, values: bytearray) -> Record:
    """Return a record whose copies of index coordinates are moved into `values`."""
    places = [column[0][5] for *_, column in record["variables"]]
    if all(place is None for place in places):
        return record
    record = copy.deepcopy(record)
    for *_, columns in record["variables"]:
        first = columns[0]
        if first[5] is not None:
            size = math.prod(first[2]) * np.dtype(first[1]).itemsize
            data = source[first[5] : first[5] + size]
            first[5] = len(values)
            values += data
    return record


def _stored_bytes(column: list[Any]) -> int:
    if len(column) > 6 and column[6]:
        return int(sum(size for _, size in column[6][2]))
    return int(math.prod(column[2]) * np.dtype(column[1]).itemsize)


def _is_below(path: NodePath, gone: set[NodePath]) -> bool:
    return any(path[:depth] in gone for depth in range(1, len(path) + 1))


# Groups of HDF5.


def _place(path: NodePath) -> list[str]:
    return [file_name(name) for name in path]


def _joined(place: list[str]) -> bytes:
    return "/".join(place).encode()


def _exists(root: Any, place: list[str]) -> bool:
    parent = root if len(place) == 1 else h5g.open(root, _joined(place[:-1]))
    return bool(parent.links.exists(place[-1].encode()))


def _unlink(root: Any, place: list[str]) -> None:
    root.unlink(_joined(place))


def _move(root: Any, old: list[str], new: list[str]) -> None:
    root.links.move(_joined(old), root, _joined(new))


def _set_real_name(group: Any, path: NodePath) -> None:
    if h5a.exists(group, b"labtree_real_name"):
        h5a.delete(group, b"labtree_real_name")
    if path and file_name(path[-1]) != path[-1]:
        write_native(group, "labtree_real_name", json.dumps(path[-1]))


def _attribute_names(owner: Any) -> list[bytes]:
    names: list[bytes] = []
    h5a.iterate(owner, names.append)
    return names


def _clear_attributes(group: Any, path: NodePath) -> None:
    for name in _attribute_names(group):
        if path or name not in _OF_THE_FILE:
            h5a.delete(group, name)


def _clear(group: Any, path: NodePath) -> None:
    """Remove the datasets and attributes of a group, but not the groups below it."""
    count = group.get_num_objs()
    names = [group.get_objname_by_idx(i) for i in range(count)]
    kinds = [group.get_objtype_by_idx(i) for i in range(count)]
    for name, kind in zip(names, kinds, strict=True):
        if kind != h5g.GROUP:
            group.unlink(name)
    _clear_attributes(group, path)
