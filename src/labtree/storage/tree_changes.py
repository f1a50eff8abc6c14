"""Save a tree onto the file that it came from: only what changed is written.

The groups of HDF5 are changed in place through a :class:`~labtree.storage.redo_log.RedoLog`,
so that a crash leaves the old or the new state. The catalogue gets a record of what changed,
and a whole one when the chain of changes has grown long.
"""

import contextlib
import copy
import json
import math
import os
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from h5py import h5a, h5g

from labtree.errors import FormatError, LabtreeError
from labtree.storage import codecs, json_values
from labtree.storage.arrays import StoredArray, array_of_column, lazy
from labtree.storage.attributes import write_native
from labtree.storage.blobs import checksum
from labtree.storage.blocks import is_dask
from labtree.storage.catalogue import catalogue_text, merged
from labtree.storage.hdf5_end import Record as EndRecord
from labtree.storage.hdf5_end import read_at, read_chain
from labtree.storage.interrupts import deferred_interrupts
from labtree.storage.marks import (
    Mark,
    Marks,
    Suspects,
    are_simple,
    has_same_variables,
    is_certainly_same,
    is_untouched,
    iterate_nodes,
    mark_node,
    same_attributes,
)
from labtree.storage.marks import Path as NodePath
from labtree.storage.names import file_name
from labtree.storage.netcdf_writer import NetCDFWriter
from labtree.storage.nodes import own_variables
from labtree.storage.records import NodeRecord, variable_values
from labtree.storage.redo_log import RedoLog, Transaction
from labtree.storage.sources import FileSource, as_bytes
from labtree.storage.writing import Written, write_dataset, write_group_attributes

__all__ = ["Changes", "TreeFile", "read_from_file"]

_MOST_LINKS = 500
_MOST_DEAD = 1 << 20  # bytes, in a file of any size
_MOVING = "labtree_moving_{}"
# Attributes of the root that belong to the file and not to the dataset in it.
_OF_THE_FILE = frozenset({b"_NCProperties", b"labtree_file_format", b"labtree_file_page"})


@dataclass(slots=True)
class Changes:
    """What has to be done to a file so that it holds a tree.

    Attributes
    ----------
    nodes
        The nodes that are looked at, each before those below it.
    tree
        The root of all nodes; None where only some of them were looked for.
    removed
        Paths that are not in the tree any more.
    moved
        New path and old path of nodes that only stand elsewhere.
    relinked
        The topmost of those.
    written
        Nodes that are new, or whose variables changed.
    described
        Nodes of which only attributes changed.
    reordered
        Nodes whose children stand in another order.
    """

    nodes: dict[NodePath, xr.DataTree] = field(default_factory=dict)
    tree: xr.DataTree | None = None
    removed: list[NodePath] = field(default_factory=list)
    moved: dict[NodePath, NodePath] = field(default_factory=dict)
    relinked: dict[NodePath, NodePath] = field(default_factory=dict)
    written: list[NodePath] = field(default_factory=list)
    described: list[NodePath] = field(default_factory=list)
    reordered: list[NodePath] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.removed or self.moved or self.written or self.described or self.reordered
        )

    @property
    def touched(self) -> set[NodePath]:
        """The paths of all nodes in the tree that are not as they were."""
        return {*self.written, *self.described, *self.moved}

    @property
    def parents(self) -> set[NodePath]:
        """The paths of the nodes that have other children now, or in another order."""
        changed = {path[:-1] for path in (*self.touched, *self.gone) if path}
        return (changed | {*self.reordered}) & self.nodes.keys()

    @property
    def gone(self) -> list[NodePath]:
        """The topmost paths where a node stood that is not there any more, or another one."""
        away = {*self.removed, *self.relinked.values(), *self.relinked}
        return [path for path in away if not _is_in(path[:-1], away)]


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
        self.is_closed = False
        self.process = os.getpid()
        self.log = RedoLog(path)
        self._collected = weakref.finalize(self, _close, self.log, self.process, 0.0)
        self._collected.atexit = False
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
        if type(self.header.get("next_dimension")) is not int:
            raise FormatError(f"{self.path}: the catalogue lacks the number of dimensions")
        self.records: dict[NodePath, NodeRecord] = {
            tuple(record["path"]): record for record in catalogue.records()
        }
        self._names_below: dict[NodePath, dict[str, None]] = {}  # names, in their order
        for path in self.records:
            if path:
                self._names_below.setdefault(path[:-1], {})[path[-1]] = None
        self._live = sum(map(_live_bytes, self.records.values()))
        self._values = bytearray(catalogue.values)
        self._links = len(chain) - 1
        self._whole_size = sum(chain[0].sizes)
        self._changed_size = sum(sum(record.sizes) for record in chain[1:])
        self._transaction = self.log.last.transaction

    def save(self, tree: xr.DataTree, marks: Marks, **about: Any) -> Written | None:
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
        return self.write(self.find(tree, marks), marks, **about)

    def write(
        self,
        changes: Changes,
        marks: Marks,
        committed: Callable[[Written], None] | None = None,
        *,
        whole: bool = False,
        **about: Any,
    ) -> Written | None:
        """Write what :meth:`find` found; durable when it returns.

        Parameters
        ----------
        changes
            What differs.
        marks
            Brought up to date when it is done.
        committed
            Called when it is durable, before the marks are made.
        whole
            Whether the catalogue is written whole, not as what changed.
        **about
            What changes in the header of the catalogue.

        Returns
        -------
        Written or None
            What was written; None where there is nothing to do.
        """
        is_short = not whole or not self._links
        if not changes and is_short and about.items() <= self.header.items():
            return None
        written = Written()
        header = {**self.header, **about}
        with self.log.transaction() as change:
            if changes:
                with _as_format_errors(self.path), change.hdf5() as file:
                    output = _ChangeOutput(change)
                    writer = NetCDFWriter(output, file, header["next_dimension"])
                    self._apply(writer, changes, written)
                    header["next_dimension"] = writer.next_dimension
            fresh = self._new_records(changes, written)
            with deferred_interrupts():  # what is in the file is known here, whatever comes
                self._commit(change, header, fresh, changes, written, whole)
                if committed is not None:
                    committed(written)
                for path in (*changes.removed, *changes.moved.values()):
                    marks.pop(path, None)
                for path in fresh:
                    marks[path] = mark_node(changes.nodes[path])
                if changes.tree is not None:
                    for path in changes.parents:
                        marks.keep_order(path, changes.nodes[path])
        return written

    @property
    def version(self) -> EndRecord:
        """The last record of the file; see :func:`labtree.storage.catalogue.file_version`."""
        return self.log.last

    @property
    def is_mostly_dead(self) -> bool:
        """Whether more than half of the file is unused, so that it is better rewritten."""
        size = self.log.last.end
        return size - self._live - self._whole_size > max(_MOST_DEAD, size // 2)

    def close(self, patience_s: float = 1.0) -> bool:
        """Release the file; wait for readers to do so where a change has to wait for them.

        Returns
        -------
        bool
            Whether everything is in its place. It is durable in any case, and the next who
            opens the file for changes puts it there.
        """
        if self.is_closed:
            return True
        self.is_closed = True
        self._collected.detach()
        return _close(self.log, self.process, patience_s)

    # What differs.

    def find(
        self,
        tree: xr.DataTree,
        marks: Marks,
        places: Collection[NodePath] | None = None,
    ) -> Changes:
        """Return what of a tree differs from the file.

        Parameters
        ----------
        tree
            The root.
        marks
            The nodes as they were when the tree was opened from this file, or saved to it.
        places
            Where to look: at these nodes, those above and those below. Everywhere if not
            given.
        """
        if self.log.last.transaction != self._transaction:  # an interrupt came at its end
            self._read()
        if places is not None:
            suspects, changes = Suspects([*places], [], []), Changes()
        else:
            suspects = marks.suspects(tree)
            if len(marks) != len(self.records):
                suspects = Suspects([()], [], [])
            changes = Changes(tree=tree, reordered=suspects.reordered)
        changes.nodes = suspects.nodes(tree)
        known: dict[NodePath, None] = dict.fromkeys(suspects.single)
        for place in suspects.places:
            known |= dict.fromkeys(place[:depth] for depth in range(len(place) + 1))
            known |= dict.fromkeys(self._below(place))
        return self._find(changes, marks, [path for path in known if path in self.records])

    def _below(self, place: NodePath) -> list[NodePath]:
        """Return the paths of all records below one."""
        found: list[NodePath] = []
        for name in self._names_below.get(place, ()):
            found += [(*place, name), *self._below((*place, name))]
        return found

    def _find(self, changes: Changes, marks: Marks, known: Collection[NodePath]) -> Changes:
        """Compare nodes with the file, which has `known` nodes where they are."""
        nodes = changes.nodes
        was: dict[int, NodePath] = {}
        for path in known:
            mark = marks.get(path)
            if mark is not None and nodes.get(path) is not (before := mark.node()):
                was[id(before)] = path
        origins: dict[NodePath, NodePath | None] = {(): ()}
        for path, node in nodes.items():
            mark = marks.get(path)
            origin: NodePath | None = path
            if path and (mark is None or mark.node() is not node or path not in self.records):
                origin = was.get(id(node))
            above = origins.get(path[:-1], path[:-1])
            if origin and above != origin[:-1] and self._shares(origin):
                origin = None  # its dimensions are in the group that it leaves
            origins[path] = origin
            if origin is None:
                changes.written.append(path)
                continue
            if origin != path:
                changes.moved[path] = origin
                if not (path[-1] == origin[-1] and origins[path[:-1]] == origin[:-1]):
                    changes.relinked[path] = origin
                mark = marks.get(origin)
            difference = self._difference(node, origin, mark)
            if difference == "variables":
                changes.written.append(path)
            elif difference == "attributes":
                changes.described.append(path)
        kept = set(changes.moved.values())
        changes.removed = [p for p in known if p not in nodes and p not in kept]
        return changes

    def _shares(self, path: NodePath) -> bool:
        """Return whether variables of a node may have dimensions of the group above it."""
        shared = self.records[path[:-1]].get("shared", {}) if path else {}
        return bool(shared) and any(
            shared.get(dim) == size
            for _, dims, _, _, columns in self.records[path]["variables"]
            for dim, size in zip(dims, columns[0][2], strict=False)
        )

    def _difference(self, node: xr.DataTree, origin: NodePath, mark: Mark | None) -> str | None:
        """Return what of a node differs from the file: "variables", "attributes" or nothing."""
        if mark is not None and is_certainly_same(mark, node):
            return None
        if mark is None or not has_same_variables(mark, node):
            return "variables"
        known: dict[Any, list[Any]] | None = None
        for name, variable in mark.variables.items():
            attrs = variable.attrs if name in mark.variable_attrs else {}
            if is_untouched(mark, name, variable) and are_simple(attrs):
                continue
            if known is None:
                known = {each: rest for each, *rest in self.records[origin]["variables"]}
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
        if json_values.encode(dict(node.attrs), "attrs") != self.records[origin]["attrs"]:
            return "attributes"
        return None

    # The change of HDF5's groups.

    def _apply(self, writer: NetCDFWriter, changes: Changes, written: Written) -> None:
        root, nodes = writer.file, changes.nodes
        origins = set(changes.moved.values())
        temporary: dict[NodePath, str] = {}
        # The deepest first: what moves out of a group must not go with it.
        for path in sorted(changes.relinked, key=lambda p: -len(changes.relinked[p])):
            origin = changes.relinked[path]
            temporary[path] = _MOVING.format(len(temporary))
            _move(root, _place(origin), [temporary[path]])
        replaced = [p for p in changes.relinked if p in self.records and p not in origins]
        leaves = [
            path
            for path in changes.written
            if path in self.records
            and path not in origins
            and not nodes[path].children
            and path
        ]
        gone = {*changes.removed, *replaced, *leaves}
        for path in gone:
            if not any(path[:depth] in gone for depth in range(1, len(path))):
                _unlink(root, _place(path))
        rewritten, described = set(changes.written), set(changes.described)
        touched, sharing = changes.touched, _Sharing(self.records, changes.moved)
        for path in filter(touched.__contains__, nodes):
            node = nodes[path]
            if path in temporary:
                _move(root, [temporary[path]], _place(path))
                _set_real_name(h5g.open(root, _joined(_place(path))), path)
            if path in rewritten:
                self._write(writer, path, node, written, sharing)
            elif path in described:
                group = root if not path else h5g.open(root, _joined(_place(path)))
                _clear_attributes(group, path)
                _set_real_name(group, path)
                write_group_attributes(group, node.to_dataset(inherit=False), list(path))

    def _write(
        self,
        writer: NetCDFWriter,
        path: NodePath,
        node: xr.DataTree,
        written: Written,
        sharing: "_Sharing",
    ) -> None:
        root, place = writer.file, _place(path)
        shared: dict[str, int] = {}
        if path and not _exists(root, place):
            parent = root if len(place) == 1 else h5g.open(root, _joined(place[:-1]))
            group = writer.group(parent, place[-1])
        else:
            group = root if not path else h5g.open(root, _joined(place))
            shared = sharing.of(path)
            _clear(group, path, {file_name(name).encode() for name in shared})
        _set_real_name(group, path)
        above = {str(n) for each in node.parents for n in each.to_dataset(inherit=False).sizes}
        for depth in range(len(path)):
            above |= sharing.of(path[:depth]).keys()
        dataset = node.to_dataset(inherit=False)
        record = write_dataset(
            writer, group, dataset, list(path), written, frozenset(map(file_name, above))
        )
        if shared:
            record["shared"] = shared
        sharing.made[path] = shared
        written.records.append(record)

    # The catalogue.

    def _new_records(self, changes: Changes, written: Written) -> dict[NodePath, NodeRecord]:
        """Return the new records of the nodes that are not as they were, in their order."""
        made = {tuple(record["path"]): record for record in written.records}
        described, touched = set(changes.described), changes.touched
        fresh: dict[NodePath, NodeRecord] = {}
        for path in filter(touched.__contains__, changes.nodes):
            record = made.get(path)
            if record is None:
                known = self.records[changes.moved.get(path, path)]
                record = {**_with_values(known, self._values, written.values)}
                record["path"] = list(path)
                if path in described:
                    attrs = dict(changes.nodes[path].attrs)
                    record["attrs"] = json_values.encode(attrs, "attrs")
            fresh[path] = record
        return fresh

    def _commit(
        self,
        change: Transaction,
        header: dict[str, Any],
        fresh: dict[NodePath, NodeRecord],
        changes: Changes,
        written: Written,
        whole: bool,
    ) -> None:
        gone = changes.gone
        lines = [{"path": list(path), "removed": True} for path in gone]
        text, values = catalogue_text(header, [*lines, *fresh.values()]), written.values
        is_whole = (
            whole
            or self._links + 1 > _MOST_LINKS
            or self._changed_size + len(text) + len(values)
            > max(self._whole_size // 2, 1 << 16)
            or not self._is_in_order(changes, fresh)
        )
        if is_whole:
            records, values = self._all_records(changes, fresh, written)
            text = catalogue_text(header, records)
        change.commit(text, bytes(values), is_whole=is_whole)
        if is_whole:
            self._read()
            return
        self._follow(gone, fresh)
        self.header = header
        self._values += values
        self._links += 1
        self._changed_size += len(text) + len(values)
        self._transaction = self.log.last.transaction

    def _all_records(
        self, changes: Changes, fresh: dict[NodePath, NodeRecord], written: Written
    ) -> tuple[list[NodeRecord], bytearray]:
        """Return the records of the whole tree, parents first, and their values."""
        all_records = dict(self.records)
        for path in changes.gone:
            for each in (path, *self._below(path)):
                all_records.pop(each, None)
        all_records.update(fresh)
        order = sorted(all_records, key=len)
        if changes.tree is not None:
            order = [path for path, _ in iterate_nodes(changes.tree)]
        values, records = bytearray(), []
        for path in order:
            source = written.values if path in fresh else self._values
            records.append(_with_values(all_records[path], source, values))
        return records, values

    def _follow(self, gone: list[NodePath], fresh: dict[NodePath, NodeRecord]) -> None:
        """Take over what was committed, without reading it back."""
        for top in gone:
            for path in (top, *self._below(top)):
                record = self.records.pop(path, None)
                self._live -= 0 if record is None else _live_bytes(record)
                self._names_below.pop(path, None)
            self._names_below.get(top[:-1], {}).pop(top[-1], None)
        for path, record in fresh.items():
            if path in self.records:
                self._live -= _live_bytes(self.records[path])
            for variable in record["variables"]:
                if variable[4][0][5] is not None:
                    variable[4][0][5] += len(self._values)
            self.records[path] = record
            self._live += _live_bytes(record)
            if path:
                self._names_below.setdefault(path[:-1], {})[path[-1]] = None

    def _is_in_order(self, changes: Changes, fresh: dict[NodePath, NodeRecord]) -> bool:
        """Return whether a reader that merges the change finds the children in their order."""
        if changes.tree is None:
            return True
        gone = set(changes.gone)
        for parent in changes.parents:
            known = self._names_below.get(parent, {})
            names = [name for name in known if (*parent, name) not in gone]
            names += [
                path[-1]
                for path in fresh
                if path and path[:-1] == parent and (path[-1] not in known or path in gone)
            ]
            if names != list(changes.nodes[parent].children):
                return False
        return not changes.reordered


@dataclass(slots=True)
class _Sharing:
    """The dimensions that groups have for those below them, while a file is changed.

    `made` are those of groups that were written.
    """

    records: dict[NodePath, NodeRecord]
    moved: dict[NodePath, NodePath]
    made: dict[NodePath, dict[str, int]] = field(default_factory=dict)

    def of(self, path: NodePath) -> dict[str, int]:
        if path in self.made:
            return self.made[path]
        record = self.records.get(self.moved.get(path, path))
        return {} if record is None else record.get("shared", {})


def read_from_file(changes: Changes, written: Written, source: FileSource) -> None:
    """Let the arrays that were written be read from the file, and leave memory.

    Parameters
    ----------
    changes, written
        What :meth:`TreeFile.write` wrote; no variable of it is anybody else's.
    source
        The file.
    """
    for record in written.records:
        path = record["path"]
        variables = own_variables(changes.nodes[tuple(path)])
        for name, _, spec, _, columns in record["variables"]:
            if isinstance(variables[name], xr.IndexVariable):
                continue
            blobs = [
                array_of_column(source, column, "/".join([*path, column[0]]))
                for column in columns
            ]
            variables[name].data = lazy(StoredArray(spec, blobs))


def _close(log: RedoLog, process: int, patience_s: float) -> bool:
    # A fork must not release its parent's lock.
    return process != os.getpid() or log.close(patience_s)


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


@contextlib.contextmanager
def _as_format_errors(path: Path) -> Iterator[None]:
    """Say of what HDF5 cannot do in a file that the file is to blame; not of a failing disk."""
    try:
        yield
    except LabtreeError:
        raise
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(f"{path} cannot be changed in place: {error}") from error


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


def _with_values(
    record: NodeRecord, source: bytes | bytearray, values: bytearray
) -> NodeRecord:
    """Return a record whose copies of index coordinates were put after `values`."""
    if all(columns[0][5] is None for *_, columns in record["variables"]):
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


def _live_bytes(record: NodeRecord) -> int:
    """Return about how many bytes a node takes in the file."""
    columns = [column for variable in record["variables"] for column in variable[4]]
    return 2500 + sum(map(_stored_bytes, columns))


def _stored_bytes(column: list[Any]) -> int:
    if len(column) > 6 and column[6]:
        return 1000 + int(sum(size for _, size in column[6][2]))
    return 1000 + int(math.prod(column[2]) * np.dtype(column[1]).itemsize)


def _is_in(path: NodePath, places: set[NodePath]) -> bool:
    return any(path[:depth] in places for depth in range(1, len(path) + 1))


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


def _clear(group: Any, path: NodePath, shared: set[bytes]) -> None:
    """Remove the datasets and attributes of a group, but not what the groups below it use."""
    count = group.get_num_objs()
    names = [group.get_objname_by_idx(i) for i in range(count)]
    kinds = [group.get_objtype_by_idx(i) for i in range(count)]
    for name, kind in zip(names, kinds, strict=True):
        if kind != h5g.GROUP and name not in shared:
            group.unlink(name)
    _clear_attributes(group, path)
