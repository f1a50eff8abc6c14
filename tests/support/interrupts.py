"""Ctrl-C at each line that labtree runs, one after the other."""

import functools
import linecache
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import labtree

_SOURCE = str(Path(labtree.__file__).parent)
# HDF5 and the garbage collector call these: no exception can go through their C code.
_BY_C = frozenset({
    "seek", "tell", "readinto", "write", "truncate", "flush", "free", "_forget", "__del__",
})  # fmt: skip


def _traced(call: Callable[[], Any], at_line: Callable[[Any], None]) -> None:
    """Run `call`; `at_line` gets the frame before each line of labtree's.

    Not at the end of a `with` block: no signal comes between its last line and the call
    of ``__exit__``, but an exception of a tracer there would skip that call.
    """
    entered: set[tuple[Any, int]] = set()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_SOURCE) or frame.f_code.co_name in _BY_C:
            return None
        if event == "line":
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
            if line.startswith("with "):
                place = frame, frame.f_lineno
                if place in entered:
                    return trace
                entered.add(place)
            at_line(frame)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)


def points_of(call: Callable[[], Any]) -> list[int]:
    """Return when `call` runs each line of labtree's for the first and for the last time."""
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    count = 0

    def note(frame: Any) -> None:
        nonlocal count
        count += 1
        place = frame.f_code, frame.f_lineno
        first.setdefault(place, count)
        last[place] = count

    _traced(call, note)
    return sorted({*first.values(), *last.values()})


def interrupted_at(point: int, call: Callable[[], Any]) -> bool:
    """Run `call` with Ctrl-C before the n-th line of labtree's; say whether it came so far."""
    count = 0

    def interrupt(frame: Any) -> None:
        nonlocal count
        count += 1
        if count == point:
            signal.raise_signal(signal.SIGINT)  # which code may put off, as a real one

    # A process that was started in the background may ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _traced(call, interrupt)
    except KeyboardInterrupt:
        return True
    finally:
        signal.signal(signal.SIGINT, before)
    return False


def each_interrupt(
    make: Callable[[], Any], verb: Callable[[Any], Any], most: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Give what `make` made, after `verb` was interrupted at each of its lines in turn.

    Of more than `most` lines some are left out, evenly, but none of the last half of `most`,
    where a save begins to count.
    """
    made = make()
    points = points_of(functools.partial(verb, made))
    if most is not None and len(points) > most:
        first, last = points[: -(most // 2)], points[-(most // 2) :]
        points = first[:: -(-len(first) // (most // 2))] + last
    for point in points:
        made = make()
        interrupted_at(point, functools.partial(verb, made))
        yield point, made
