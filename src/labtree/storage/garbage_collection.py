"""Pauses of Python's garbage collector while it has nothing to find."""

import contextlib
import gc
from collections.abc import Iterator

from labtree.storage.interrupts import deferred_interrupts


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep the collector from searching many new objects, none of which is garbage.

    Examples
    --------
    >>> with without_garbage_collection():
    ...     many = [[number] for number in range(1000)]
    """
    # A Ctrl-C between two of these lines would leave the collector off.
    with deferred_interrupts():
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()
