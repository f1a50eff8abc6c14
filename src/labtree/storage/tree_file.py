"""Save a tree onto the file that it came from: only what changed is written.

The groups of HDF5 are changed in place through a :class:`~labtree.storage.redo_log.RedoLog`,
so that a crash leaves the old or the new state. The catalogue gets a record of what changed,
and a whole one when the chain of changes has grown long.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from labtree.errors import ClosedError, FormatError, LabtreeError
from labtree.storage import json_values
from labtree.storage.arrays import Chunks, Column, StoredArray, array_of_column, lazy
from labtree.storage.catalogue import catalogue_text, merged
from labtree.storage.group_changes import change_groups
from labtree.storage.hdf5_end import Record as EndRecord
from labtree.storage.hdf5_end import read_chain
from labtree.storage.interrupts import deferred_interrupts
from labtree.storage.marks import Marks, iterate_nodes, mark_node, paths_below
from labtree.storage.marks import Path as NodePath
from labtree.storage.netcdf_writer import NetCDFWriter
from labtree.storage.nodes import own_variables
from labtree.storage.records import NodeRecord, shift_inline, variable_records, with_inline
from labtree.storage.redo_log import RedoLog, Transaction
from labtree.storage.sources import FileSource
from labtree.storage.tree_changes import Changes, find_changes
from labtree.storage.writing import Written

_MOST_LINKS = 500
_MOST_DEAD = 1 << 20  # bytes, in a file of any size


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
        self._process = os.getpid()
        # Held by each change: what is written after a close could go to another file, which
        # was given the number of this one.
        self._lock = threading.RLock()
        self.log = RedoLog(path)
        self._collected = weakref.finalize(self, _close, self.log, self._process, 0.0)
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

    def find(
        self,
        tree: xr.DataTree,
        marks: Marks,
        places: Collection[NodePath] | None = None,
    ) -> Changes:
        """Return what of a tree differs from the file; as :func:`find_changes`."""
        with self._lock:
            if self._open_log().last.transaction != self._transaction:
                self._read()  # an interrupt came at its end
            return find_changes(self.records, self._names_below, tree, marks, places)

    def _open_log(self) -> RedoLog:
        if self.is_closed:
            raise ClosedError(f"{self.path} was closed by another thread; open it again")
        return self.log

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
        with self._lock, self._open_log().transaction() as change:
            if changes:
                with _as_format_errors(self.path), change.hdf5() as file:
                    writer = NetCDFWriter(change, file, header["next_dimension"])
                    written = change_groups(writer, changes, self.records)
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

    @property
    def is_usable(self) -> bool:
        """Whether it is open, and in this process: a fork must not write into it."""
        return not self.is_closed and self._process == os.getpid()

    def close(self, patience_s: float = 1.0) -> bool:
        """Release the file; wait for readers to do so where a change has to wait for them.

        Returns
        -------
        bool
            Whether everything is in its place. It is durable in any case, and the next who
            opens the file for changes puts it there.
        """
        if self._process != os.getpid():  # where a thread of the parent may hold the lock
            return True
        with self._lock:
            if self.is_closed:
                return True
            self.is_closed = True
            try:
                return self.log.close(patience_s)
            finally:
                self._collected.detach()

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
            for each in (path, *paths_below(self._names_below, path)):
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
            for path in (top, *paths_below(self._names_below, top)):
                record = self.records.pop(path, None)
                self._live -= 0 if record is None else _live_bytes(record)
                self._names_below.pop(path, None)
            self._names_below.get(top[:-1], {}).pop(top[-1], None)
        for path, record in fresh.items():
            if path in self.records:
                self._live -= _live_bytes(self.records[path])
            record = shift_inline(record, len(self._values))
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
        for known in variable_records(record):
            variable = variables[known.name]
            if isinstance(variable, xr.IndexVariable):
                continue
            blobs = [
                array_of_column(source, column, "/".join([*path, column.name]))
                for column in known.columns
            ]
            variable.data = lazy(StoredArray(known.spec, blobs))


def _close(log: RedoLog, process: int, patience_s: float) -> bool:
    # A fork must not release its parent's lock.
    return process != os.getpid() or log.close(patience_s)


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


def _with_values(
    record: NodeRecord, source: bytes | bytearray, values: bytearray
) -> NodeRecord:
    """Return a record whose copies of index coordinates were put after `values`."""

    def place(start: int, size: int) -> int:
        values.extend(source[start : start + size])
        return len(values) - size

    return with_inline(record, place)


def _live_bytes(record: NodeRecord) -> int:
    """Return about how many bytes a node takes in the file."""
    columns = [column for each in variable_records(record) for column in each.columns]
    return 2500 + sum(1000 + _stored_bytes(column) for column in columns)


def _stored_bytes(column: Column) -> int:
    if column.chunks is None:
        return column.nbytes
    return sum(size for _, size in Chunks(*column.chunks).places)
