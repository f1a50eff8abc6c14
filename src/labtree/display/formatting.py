"""Numbers, sizes, times and names as short words on one line; colors of figures."""

import math
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from numbers import Real
from typing import Any

# Colors of figures that people with any color vision tell apart (Okabe and Ito 2008).
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")

_AGES = (
    (60, 60, "minute"), (3600, 24, "hour"), (86400, 60, "day"), (30.44 * 86400, 24, "month"),
)  # fmt: skip


def printable(text: str) -> str:
    r"""Return a text in which everything that does not print is escaped.

    Examples
    --------
    >>> print(printable("a\nb\x1b[31m"))
    a\nb\x1b[31m
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def truncate(value: Any, length: int = 40) -> str:
    r"""Return a value as text on one line, of at most ``length`` characters.

    Examples
    --------
    >>> print(truncate("a\nb"), truncate(["a", "b"]), truncate("abcdef", 4))
    a\nb a, b abc…
    """
    items = value if isinstance(value, list | tuple) else None
    text = str(value) if items is None else ", ".join(map(str, islice(items, length)))
    is_cut = len(text) > length or (items is not None and len(items) > length)
    text = printable(text[: length - 1] if is_cut else text)
    return text + "…" if is_cut else text


def truncate_list(values: Iterable[Any], length: int = 40, shown: int = 12) -> list[str]:
    """Return the first of some values, each truncated, and how many more there are."""
    names = list(values)
    more = [f"… {len(names) - shown} more"] if len(names) > shown else []
    return [truncate(name, length) for name in names[:shown]] + more


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows as lines with their columns aligned; empty columns are left out.

    Examples
    --------
    >>> aligned([("rates", "", "2 × 3"), ("text", "", "")])
    ['rates  2 × 3', 'text']
    """
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    )
    return [line.rstrip() for line in lines]


def format_bytes(nbytes: float) -> str:
    """Return a number of bytes with a unit.

    Examples
    --------
    >>> format_bytes(999), format_bytes(1500), format_bytes(2.5e12)
    ('999 B', '1.5 kB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            whole = unit == "B" or nbytes >= 100
            return f"{nbytes:.0f} {unit}" if whole else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun.

    Examples
    --------
    >>> plural(1, "item"), plural(2000, "item"), plural(3, "series")
    ('1 item', '2,000 items', '3 series')
    """
    return f"{number:,} {noun}" if number == 1 or noun.endswith("s") else f"{number:,} {noun}s"


def shape_and_dtype(shape: Iterable[int], dtype: Any) -> str:
    """Return a shape and a dtype.

    Examples
    --------
    >>> shape_and_dtype((2, 3), "int16"), shape_and_dtype((), "bool")
    ('2 × 3 int16', 'scalar bool')
    """
    return f"{' × '.join(map(str, shape)) or 'scalar'} {dtype}".strip()


def duration(seconds: Any) -> str:
    """Return a length of time; "" of what is no finite number.

    Examples
    --------
    >>> duration(0.25), duration(8), duration(600), duration(5400)
    ('0.25 s', '8 s', '10 min', '1 h 30 min')
    """
    if not isinstance(seconds, Real) or not math.isfinite(seconds):
        return ""
    number = float(seconds)
    if number < 120:
        return f"{number:.3g} s"
    if number < 3600:
        return f"{number / 60:.3g} min"
    hours, minutes = divmod(round(number / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def posix_seconds(when: Any) -> float | None:
    """Return a time, in POSIX seconds or ISO 8601, in POSIX seconds; None if it is neither.

    ISO times without a zone are local ones.
    """
    try:
        seconds = datetime.fromisoformat(when).timestamp() if isinstance(when, str) else when
        return float(seconds) if isinstance(seconds, Real) and math.isfinite(seconds) else None
    except (ValueError, OverflowError, OSError):
        return None


def date(when: Any) -> str:
    """Return a time as local date and minute; "" of what is no time."""
    seconds = posix_seconds(when)
    try:
        return (
            "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
        )
    except (ValueError, OverflowError, OSError):  # no calendar reaches so far
        return ""


def age(when: Any, now: float | None = None) -> str:
    """Return how long ago a time was; "" of what is no time, or in the future.

    Examples
    --------
    >>> age(0, now=30), age(0, now=3 * 86400), age(0, now=3e9)
    ('just now', '3 days ago', '95 years ago')
    """
    seconds = posix_seconds(when)
    if seconds is None:
        return ""
    passed = (time.time() if now is None else now) - seconds
    if passed < 60:  # clocks of two machines may differ by a little
        return "just now" if passed > -60 else ""
    for each, most, what in _AGES:
        if passed < each * most:
            return f"{plural(int(passed / each), what)} ago"
    return f"{int(passed / (365.25 * 86400))} years ago"
