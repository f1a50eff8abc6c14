"""What a workspace tree has besides its data: a lock, its file, what is on the disk.

It is attached to the root node; see :mod:`labtree.storage.attached`.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xarray as xr

from labtree.display import plural
from labtree.errors import ClosedError, UnsavedWarning, warn
from labtree.storage.attached import attached, trees_with
from labtree.storage.marks import Mark, Marks, Path, is_same, iterate_nodes, mark_nodes
from labtree.storage.sources import ScratchSource
from labtree.storage.trees import add_source, when_closed

if TYPE_CHECKING:
    from labtree.workspace.stores import Store


_SHOWN = 10


@dataclass(slots=True)
class State:
    """The state of one workspace tree.

    Parameters
    ----------
    is_lazy
        Whether what is stored goes to a scratch file at once.
    is_closed
        Whether its files were released, so that nothing can be stored any more.
    store
        The file, folder or URL that it was opened from or saved to last.
    names
        The names of all that it was opened from or saved to.
    versions
        What those held then (see :meth:`labtree.workspace.stores.Store.version`);
        anything else there was written by somebody else.
    current
        The one of these in which the nodes are as `saved` says.
    incomplete
        The version that was opened, where parts of it could not be read.
    saved
        The nodes as they were then, by their paths.
    is_durable
        Whether it was opened with ``mode="a"``: every change is written to the file at once.
    """

    is_lazy: bool = False
    is_closed: bool = False
    store: "Store | None" = None
    names: set[str] = field(default_factory=set)
    versions: set[Hashable] = field(default_factory=set)
    current: Hashable | None = None
    incomplete: Hashable | None = None
    saved: Marks = field(default_factory=Marks)
    is_durable: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    process: int = field(default_factory=os.getpid)
    _scratch: ScratchSource | None = None

    @property
    def location(self) -> Any:
        """Where it was opened from or saved to last, or None."""
        return None if self.store is None else self.store.location

    def note_version(self, version: Hashable) -> None:
        """Note that the store is in a version that this workspace wrote or read."""
        self.versions.add(version)
        self.current = version

    def scratch(self, root: xr.DataTree) -> ScratchSource:
        """Return the scratch file, made when it is first needed."""
        with self.lock:
            # A forked process reads its parent's file, but must not write into it.
            if self._scratch is None or self._scratch.process != os.getpid():
                scratch = ScratchSource()
                add_source(root, scratch)
                self._scratch = scratch
            return self._scratch


def _renew_locks() -> None:
    """Free the locks in a forked process: the threads that held them are not in it."""
    for _, state in trees_with(State):
        state.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def state_of(root: xr.DataTree) -> State:
    """Return the state of a tree's root; a tree that has none gets an empty one."""
    return attached(root, State)


def check_open(state: State) -> None:
    """Raise an error if the workspace was closed.

    Raises
    ------
    ClosedError
        The message has the line that opens it again.
    """
    if state.is_closed:
        where = state.location
        again = (
            "" if where is None else f"; write tree = labtree.open_workspace({str(where)!r})"
        )
        raise ClosedError(f"the workspace was closed, nothing can be stored in it{again}")


def mark_saved(root: xr.DataTree) -> None:
    """Take what the tree holds now for what is on the disk."""
    state_of(root).saved = mark_nodes(root)


def changes(root: xr.DataTree) -> list[str]:
    """Return what of a workspace is not on the disk, a line each; reads no data.

    Values that were changed in place, inside an array, are not seen here.
    """
    state = state_of(root)
    with state.lock:
        return _changes(root, state.saved)


def _changes(root: xr.DataTree, saved: Marks) -> list[str]:
    now = dict(iterate_nodes(root))
    moved: dict[int, Path] = {}  # nodes of items that stood at another path
    for path, before in saved.items():
        was = before.node()
        if was is not None and path and now.get(path) is not was:
            moved[id(was)] = path
    renamed: set[Path] = set()
    lines: list[str] = []
    mark: Mark | None
    for path, node in now.items():
        mark, name = saved.get(path), "/".join(path)
        if id(node) in moved and len(path) == 2:
            old = moved[id(node)]
            renamed.add(old)
            lines.append(f"{'/'.join(old)}: renamed to {name}")
            mark = saved[old]
        elif mark is None:
            if len(path) >= 2 or (path and node.has_data):
                lines.append(f"{name}: not saved yet")
            continue
        elif mark.node() is not node and path:
            if len(path) >= 2:
                lines.append(f"{name}: replaced")
            continue
        if not is_same(mark, node):
            lines.append(f"{name or 'the workspace itself'}: changed")
    gone = (path for path in saved if path not in now and path not in renamed)
    return lines + [f"{'/'.join(path)}: deleted" for path in gone if len(path) >= 2]


def watch(root: xr.DataTree) -> None:
    """Warn of changes that are not saved when the tree is closed."""
    tree = weakref.ref(root)
    when_closed(root, lambda: _closed(tree()))


def _closed(root: xr.DataTree | None) -> None:
    if root is not None:
        state = state_of(root)
        if not state.is_closed:
            state.is_closed = state.is_lazy  # what is in memory can still be saved
            _warn(root, state, "was closed")


def _warn(root: xr.DataTree, state: State, what: str) -> None:
    if state.process != os.getpid():  # a fork has its parent's workspaces, but not its duties
        return
    lines = changes(root)
    if not lines:
        return
    shown = "; ".join(lines[:_SHOWN]) + ("; ..." if len(lines) > _SHOWN else "")
    name = root.attrs.get("labtree_name")
    called = f"the workspace {name!r}" if name else "a workspace"
    where = f" of {state.location}" if state.location is not None else ""
    line = "tree.ws.save()" if state.store is not None else "tree.ws.save(path)"
    warn(
        f"{called}{where} {what} with {plural(len(lines), 'change')} that "
        f"{'is' if len(lines) == 1 else 'are'} not saved ({shown}); "
        f"write {line} before",
        UnsavedWarning,
    )


@atexit.register
def _warn_at_exit() -> None:
    for root, state in trees_with(State):
        if state.is_durable and not state.is_closed:
            root.close()
        if not state.is_closed and "labtree_workspace_id" in root.attrs:
            _warn(root, state, "was left at the end of the program")
