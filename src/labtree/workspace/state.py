"""What a workspace tree has besides its data: a lock, a path, a scratch file.

It is attached to the root node; see :mod:`labtree.storage.attached`.
"""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from labtree.storage.attached import attached
from labtree.storage.sources import ScratchSource
from labtree.storage.trees import add_source

__all__ = ["State", "state_of"]


@dataclass(slots=True)
class State:
    """The state of one workspace tree.

    Parameters
    ----------
    is_lazy
        Whether what is stored goes to a scratch file at once.
    path
        The ``.h5`` file that it was opened from or saved to.
    known
        That file's identity then; another one means that somebody else replaced it.
    place
        The zarr store (folder, URL or obstore store) that it was opened from or saved to,
        if that was later.
    generations
        What those stores held then, by their names.
    """

    is_lazy: bool = False
    path: Path | None = None
    known: tuple[int, int, int, int] | None = None
    place: Any = None
    generations: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _scratch: ScratchSource | None = None

    @property
    def where(self) -> Any:
        """Where it was opened from or saved to last, or None."""
        return self.path if self.place is None else self.place

    def scratch(self, root: xr.DataTree) -> ScratchSource:
        """Return the scratch file, made when it is first needed."""
        with self.lock:
            # A forked process reads its parent's file, but must not write into it.
            if self._scratch is None or self._scratch.process != os.getpid():
                self._scratch = ScratchSource()
                add_source(root, self._scratch)
            return self._scratch


def state_of(root: xr.DataTree) -> State:
    """Return the state of a tree's root; a tree that has none gets an empty one."""
    return attached(root, State)
