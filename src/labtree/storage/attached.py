"""What a tree has besides its data: locks, open files and the like, in one table.

Accessors keep no state, and attributes are written to files. So what belongs to a tree
only while it is in memory is kept here by its root node, until the root is collected.
"""

import functools
import os
import threading
import weakref
from typing import Any, TypeVar

import xarray as xr

T = TypeVar("T")
_ATTACHED: dict[int, tuple["weakref.ref[xr.DataTree]", dict[type, Any]]] = {}
_LOCK = threading.RLock()


def _renew_lock() -> None:
    """Free the lock in a forked process: the thread that held it is not in it."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def attached(root: xr.DataTree, kind: type[T]) -> T:
    """Return the object of a class that belongs to a tree; a new one where it has none.

    Parameters
    ----------
    root
        The root of the tree.
    kind
        A class that is called without arguments. The object must not refer to the tree,
        except weakly.
    """
    key = id(root)
    found = _ATTACHED.get(key)
    if found is None or found[0]() is not root:
        with _LOCK:
            found = _ATTACHED.get(key)
            if found is None or found[0]() is not root:
                # The number of a tree that was collected may be another tree's by now.
                found = (weakref.ref(root, functools.partial(_forget, key)), {})
                _ATTACHED[key] = found
    objects = found[1]
    if kind not in objects:
        objects.setdefault(kind, kind())
    return objects[kind]  # type: ignore[no-any-return]


def trees_with(kind: type[T]) -> list[tuple[xr.DataTree, T]]:
    """Return the trees in memory that have an object of a class, with that object."""
    found = [(ref(), objects.get(kind)) for ref, objects in list(_ATTACHED.values())]
    return [(tree, each) for tree, each in found if tree is not None and each is not None]


def _forget(key: int, gone: "weakref.ref[xr.DataTree]") -> None:
    found = _ATTACHED.get(key)
    if found is not None and found[0] is gone:
        del _ATTACHED[key]
