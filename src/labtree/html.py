"""The strings that every repr and notebook display is made of: tables that fold, ages, sizes.

Whatever is passed in may be hostile: it comes out shortened, on one line, and escaped.
Nothing here knows what labtree holds.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import islice
from numbers import Real
from typing import Any

__all__ = [
    "SHOWN", "age", "arrays", "count", "fold", "listed", "methods", "page", "preformatted",
    "seconds_of", "shape_of", "short", "size", "table",
]  # fmt: skip

#: More is counted, not listed: a repr is read by a person.
SHOWN = 12
# Colours are the page's own, so that it is right in the dark as well. What is right to left
# stays in its own box.
_STYLE = (
    "<style>.labtree{font-size:13px;line-height:1.45;overflow-x:auto}"
    ".labtree table{border-collapse:collapse;margin:0 0 .4em 1em;font-size:inherit;"
    "color:inherit}"
    ".labtree td{text-align:left;padding:1px 12px 1px 0;vertical-align:top;"
    "white-space:nowrap;background:none;border:none}"
    ".labtree td.name{font-weight:bold;white-space:normal;min-width:6em;"
    "overflow-wrap:anywhere}"
    ".labtree td.text{white-space:normal;min-width:9em;overflow-wrap:anywhere}"
    ".labtree .muted{opacity:.65}.labtree .note{font-style:italic}"
    ".labtree b,.labtree span,.labtree td{unicode-bidi:isolate}"
    ".labtree summary{cursor:pointer;overflow-wrap:anywhere}"
    ".labtree div.head{overflow-wrap:anywhere}"
    ".labtree pre{white-space:pre-wrap;margin:.2em 0 0 1em;background:none;color:inherit}"
    "</style>"
)
_LENGTHS = {"text": 400, "text note": 120}
_AGES = (
    (60, 60, "minute"), (3600, 24, "hour"), (86400, 60, "day"), (30.44 * 86400, 24, "month"),
)  # fmt: skip


def short(value: Any, length: int = 40) -> str:
    r"""Return a value on one line, cut; what does not print is told as Python tells it.

    Examples
    --------
    >>> print(short("a\nb"), short(["a", "b"]), short("abcdef", 4))
    a\nb a, b abc…
    """
    items = value if isinstance(value, list | tuple) else None
    text = str(value) if items is None else ", ".join(map(str, islice(items, length)))
    is_cut = len(text) > length or (items is not None and len(items) > length)
    text = text[: length - 1] if is_cut else text
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
        )
    return text + "…" if is_cut else text


def listed(values: Iterable[Any], length: int = 40) -> list[str]:
    """Return the first of some values, shortened, and how many more there are."""
    names = list(values)
    more = [f"… {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [short(name, length) for name in names[:SHOWN]] + more


def size(nbytes: float) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> size(999), size(1500), size(2.5e12)
    ('999 B', '1.5 kB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            whole = unit == "B" or nbytes >= 100
            return f"{nbytes:.0f} {unit}" if whole else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def count(number: int, what: str) -> str:
    """Return a number and its noun.

    Examples
    --------
    >>> count(1, "item"), count(2, "item")
    ('1 item', '2 items')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def shape_of(shape: Iterable[int], dtype: Any) -> str:
    """Return a shape and a dtype; no data are looked at.

    Examples
    --------
    >>> shape_of((2, 3), "int16"), shape_of((), "bool")
    ('2 × 3 int16', 'scalar bool')
    """
    return f"{' × '.join(map(str, shape)) or 'scalar'} {dtype}".strip()


def seconds_of(when: Any) -> float | None:
    """Return a time, in POSIX seconds or ISO 8601, in POSIX seconds; None if it is neither.

    ISO times without a zone are local ones.
    """
    try:
        seconds = datetime.fromisoformat(when).timestamp() if isinstance(when, str) else when
        return float(seconds) if isinstance(seconds, Real) and math.isfinite(seconds) else None
    except (ValueError, OverflowError, OSError):
        return None


def age(when: Any, now: float | None = None) -> str:
    """Return how long ago a time was; "" of what is no time, or in the future.

    Examples
    --------
    >>> age(0, now=30), age(0, now=3 * 86400), age(0, now=3e9)
    ('just now', '3 days ago', '95 years ago')
    """
    seconds = seconds_of(when)
    if seconds is None:
        return ""
    passed = (time.time() if now is None else now) - seconds
    if passed < 60:  # clocks of two machines may differ by a little
        return "just now" if passed > -60 else ""
    for each, most, what in _AGES:
        if passed < each * most:
            return f"{count(int(passed / each), what)} ago"
    return f"{int(passed / (365.25 * 86400))} years ago"


def table(rows: Iterable[Sequence[Any]], classes: Sequence[str]) -> str:
    """Return a small table of the first rows; more are counted.

    Parameters
    ----------
    rows
        Cells as they are: they are shortened and escaped here.
    classes
        What each column is: ``name``, ``muted``, ``text``, ``note``, or nothing.
    """
    found = list(rows)
    lines = []
    for row in found[:SHOWN]:
        cells = (
            f'<td class="{kind}">{escape(short(cell, _LENGTHS.get(kind, 60)))}</td>'
            for cell, kind in zip(row, classes, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if len(found) > SHOWN:
        lines.append(f'<tr><td class="muted">… {len(found) - SHOWN} more</td></tr>')
    return f"<table>{''.join(lines)}</table>"


def fold(title: str, about: str, body: str, *, is_open: bool) -> str:
    """Return what unfolds at a click; `body` is HTML."""
    head = f'<span>{escape(short(title, 80))}</span> <span class="muted">{escape(about)}</span>'
    return f"<details{' open' * is_open}><summary>{head}</summary>{body}</details>"


def arrays(variables: Mapping[Any, Any]) -> str:
    """Return a table of what arrays are: name, shape, dtype, unit, size; none is read."""
    rows = (
        (
            name,
            shape_of(variable.shape, variable.dtype),
            short(variable.attrs.get("units", ""), 24),
            size(variable.nbytes),
        )
        for name, variable in variables.items()
    )
    return table(rows, ("name", "", "", "muted"))


def preformatted(text: str) -> str:
    """Return lines of text as they stand."""
    return f"<pre>{escape(text)}</pre>"


def methods(calls: str) -> str:
    """Return the calls that can be made, folded."""
    return fold("methods", "", preformatted(calls), is_open=False)


def page(title: str, about: str, *parts: str) -> str:
    """Return a display: its head, and the parts, which are HTML."""
    head = f'<b>{escape(title)}</b> <span class="muted">{escape(about)}</span>'
    return f'{_STYLE}<div class="labtree"><div class="head">{head}</div>{"".join(parts)}</div>'
