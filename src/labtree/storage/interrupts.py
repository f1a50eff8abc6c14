"""Ctrl-C in the middle of what must not stop there."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let a Ctrl-C that comes meanwhile take effect at the end of the block.

    Outside of the main thread, where Python handles no signals, it does nothing.

    Examples
    --------
    >>> with deferred_interrupts():
    ...     done = "both steps, or none of them"
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pending:
            handler(*pending[0])
