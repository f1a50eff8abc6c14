"""Workspaces that were opened with ``mode="a"``: a change is on the disk when it returns."""

import contextlib
import os
from collections.abc import Collection, Hashable, Iterator

import xarray as xr

from labtree.errors import ClosedError, WorkspaceError
from labtree.storage.marks import Path, node_at
from labtree.storage.nodes import plan_undo, set_together
from labtree.workspace.state import State, mark_saved, state_of
from labtree.workspace.stores import Update


@contextlib.contextmanager
def durable(
    root: xr.DataTree, places: Collection[Path], *, is_new: bool = False
) -> Iterator[None]:
    """Write what the block changes to the workspace's file, or undo it where that fails.

    It does nothing for a workspace that was not opened with ``mode="a"``.

    Parameters
    ----------
    root
        The workspace, whose lock is held.
    places
        The paths of the nodes that the block makes, changes or removes.
    is_new
        Whether the nodes there are made by the block, with variables that nobody else has:
        they are read from the file from then on.
    """
    state = state_of(root)
    if not state.is_durable or state.is_closed:
        yield
        return
    if state.process != os.getpid():
        raise ClosedError(
            f"{state.location} was opened for changes by the process that this one was forked "
            "from; only that one can change it"
        )
    above = dict.fromkeys(place[:depth] for depth in range(3) for place in places)
    nodes = [node for path in above if (node := node_at(root, path)) is not None]
    undo, version = plan_undo(nodes), state.current
    below = [
        (*place, name)
        for place in places
        if len(place) == 1 and place[0] in root.children
        for name in root.children[place[0]].children
    ]
    marks = {path: state.saved[path] for path in (*places, *below) if path in state.saved}
    try:
        yield
        _commit(root, state, places, is_new)
    except BaseException:
        if state.current is version:  # nothing of it is in the file
            set_together(undo)
            state.saved.update(marks)
        raise


def _commit(root: xr.DataTree, state: State, places: Collection[Path], is_new: bool) -> None:
    def check(found: Hashable | None, new: Hashable | None = None) -> None:
        if found != state.current:
            name = str(state.location)
            raise WorkspaceError(
                f"{name} was changed, moved or removed by another program while it was open "
                "here; nothing was written. Save what is here under another name: "
                f"tree.ws.save({name.removesuffix('.h5') + '-kept.h5'!r})"
            )
        if new is not None:
            state.note_version(new)

    assert state.store is not None
    update = Update(root, state.saved, state.current, state.note_version, places, is_new)
    if not state.store.save_changes(update):
        # It cannot be changed in place: all of it is written again.
        check(state.store.version())
        state.store.save(root, check)
        mark_saved(root)
