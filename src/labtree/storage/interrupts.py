"""Ctrl-C in the middle of what must not stop there."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType
from typing import Any


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


@contextlib.contextmanager
def interrupts_kept_by(
    kind: type, keep: Callable[[Any, BaseException], None]
) -> Iterator[None]:
    """Let a Ctrl-C raise nothing in methods that C code calls, through which nothing may pass.

    Parameters
    ----------
    kind
        The class of the methods.
    keep
        Called with the object and what the Ctrl-C raised in a method of it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    methods = [each for each in vars(kind).values() if isinstance(each, FunctionType)]
    codes = {each.__code__ for each in methods}
    kept: list[BaseException] = []

    def handle(number: int, frame: FrameType | None) -> None:
        inside = frame
        while inside is not None and inside.f_code not in codes:
            inside = inside.f_back
        try:
            handler(number, frame)
        except BaseException as error:
            if inside is None:
                raise
            error.__traceback__ = None  # which holds the frames of those who call the C code
            keep(inside.f_locals["self"], error)
            kept.append(error)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if kept:  # after the object was asked for the last time
        raise kept[0]
