"""A panel: its title, what it is about, sections of rows, and the calls that can be made."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import xarray as xr

from labtree.display.formatting import (
    aligned,
    format_bytes,
    plural,
    printable,
    shape_and_dtype,
    truncate,
    truncate_list,
)

#: More rows and sections are counted, not shown: a repr is read by a person.
SHOWN = 12
_TEXT_WIDTH = 92
_LENGTHS = {"name": 120, "text": 400, "note": 120}
# Colors are the page's own, so that a panel is right in the dark as well. Text that runs
# from right to left stays in its own box.
_STYLE = (
    "<style>.labtree{font-size:13px;line-height:1.45;overflow-x:auto;"
    "container-type:inline-size}"
    ".labtree table{border-collapse:collapse;margin:0 0 .4em 1em;font-size:inherit;"
    "color:inherit}"
    ".labtree td{text-align:left;padding:1px 12px 1px 0;vertical-align:top;"
    "white-space:nowrap;background:none;border:none}"
    ".labtree td.name{font-weight:bold;white-space:normal;min-width:7em;"
    "overflow-wrap:anywhere}"
    ".labtree td.text,.labtree td.note{white-space:normal;min-width:9em;"
    "overflow-wrap:anywhere}"
    ".labtree td.fact{white-space:normal;min-width:5em;overflow-wrap:anywhere}"
    "@container (max-width:560px){.labtree td.size{display:none}"
    ".labtree td.kind{white-space:normal;min-width:6em;overflow-wrap:anywhere}"
    ".labtree td.text,.labtree td.note{min-width:7em}}"
    ".labtree .muted{opacity:.65}.labtree .note{font-style:italic}"
    ".labtree b,.labtree span,.labtree td{unicode-bidi:isolate}"
    ".labtree summary{cursor:pointer;overflow-wrap:anywhere}"
    ".labtree div.head{overflow-wrap:anywhere}.labtree .whole{margin:.3em 0 .3em 1em}"
    ".labtree pre{white-space:pre-wrap;margin:.2em 0 0 1em;background:none;color:inherit}"
    "</style>"
)


@dataclass(frozen=True)
class Section:
    """Rows under a heading.

    Parameters
    ----------
    title
        The heading; rows without one stand alone.
    rows
        Cells as they are: they are shortened and escaped when they are shown. Those after
        the first 12 are only counted.
    columns
        What each column holds: ``name``, ``note``, ``text`` (may be long), ``fact`` (may be
        broken), ``kind`` (broken where there is little room), ``muted size`` (left out
        there), ``muted``, or ``""`` (short).
    about
        What stands after the heading, such as a count.
    is_open
        Whether the rows are seen at once in a notebook.
    is_list
        Whether text shows the rows after the heading, on one line.
    """

    title: str
    rows: Sequence[Sequence[Any]]
    columns: Sequence[str] = ("name",)
    about: str = ""
    is_open: bool = True
    is_list: bool = False

    def text(self) -> list[str]:
        """Return the section as lines."""
        if self.is_list:
            listed = truncate_list((" ".join(map(str, row)) for row in self.rows), 60)
            return [f"{truncate(self.title, 80)}: {', '.join(listed) or 'none'}"]
        indent, lines = "", []
        if self.title:
            indent = "    "
            lines = [f"{truncate(self.title, 120)}{f' ({self.about})' if self.about else ''}"]
        # Names of sessions are long, and what one types; the last column may be long.
        is_name = [kind == "name" for kind in self.columns]
        lengths = [*(_LENGTHS["name"] if name else 40 for name in is_name[:-1]), 400]
        rows = [
            [truncate(cell, length) for cell, length in zip(row, lengths, strict=True)]
            for row in self.rows[:SHOWN]
        ]
        lines += [(indent + line).rstrip() for line in aligned(rows)]
        if len(self.rows) > SHOWN:
            lines.append(f"{indent}… {len(self.rows) - SHOWN} more")
        return lines

    def html(self) -> str:
        """Return the section as HTML; under a title it unfolds at a click."""
        lines = []
        for row in self.rows[:SHOWN]:
            cells = (
                f'<td class="{kind}">{escape(truncate(cell, _LENGTHS.get(kind, 60)))}</td>'
                for cell, kind in zip(row, self.columns, strict=True)
            )
            lines.append(f"<tr>{''.join(cells)}</tr>")
        if len(self.rows) > SHOWN:
            lines.append(f'<tr><td class="muted">… {len(self.rows) - SHOWN} more</td></tr>')
        body = f"<table>{''.join(lines)}</table>" if lines else ""
        about = f"({self.about})" if self.about else ""
        return _fold(self.title, about, body, is_open=self.is_open) if self.title else body


@dataclass(frozen=True)
class Panel:
    """What an accessor shows of itself.

    Parameters
    ----------
    title
        What it is, such as ``"labtree workspace 'pilot'"``.
    about
        What there is in it, in one line.
    sections
        The details, by subject. Those after the first 12 are only counted.
    calls
        What can be called, such as ``".store(namespace, key, obj)"``.
    section_noun
        What a section is, for the count of those that are not shown.
    whole
        An object of xarray whose own page follows.
    """

    title: str
    about: str = ""
    sections: Sequence[Section] = ()
    calls: Sequence[str] = ()
    section_noun: str = "section"
    whole: xr.Dataset | xr.DataArray | None = None

    def text(self, *, with_calls: bool = True) -> str:
        """Return the panel as text.

        Examples
        --------
        >>> rows = [("rates", "2 × 3 float64"), ("text", "str")]
        >>> items = Section("items", rows, columns=("name", "fact"))
        >>> print(Panel("rec1", "2 items", [items], [".get(key)"]).text())
        <rec1> 2 items
        items
            rates  2 × 3 float64
            text   str
        <BLANKLINE>
        methods: .get(key)
        """
        lines = [f"<{truncate(self.title, 280)}> {printable(self.about)}".rstrip()]
        for section in self.sections[:SHOWN]:
            lines += section.text()
        if more := self._more():
            lines.append(more)
        if self.whole is not None:
            # Names may hold what acts on a terminal; xarray shows them as they are.
            lines += [printable(line) for line in repr(self.whole).split("\n")]
        return "\n".join([*lines, *(self._call_lines() if with_calls else ())])

    def html(self) -> str:
        """Return the panel as HTML; every name in it is escaped."""
        head = f"<b>{escape(truncate(self.title, 280))}</b>"
        if self.about:
            head += f' <span class="muted">{escape(printable(self.about))}</span>'
        parts = [section.html() for section in self.sections[:SHOWN]]
        if more := self._more():
            parts.append(f'<div class="muted">{escape(more)}</div>')
        if self.whole is not None:
            whole = "\n".join(map(printable, self.whole._repr_html_().split("\n")))
            parts.append(f'<div class="whole">{whole}</div>')
        if self.calls:
            calls = f"<pre>{escape(_joined(self.calls))}</pre>"
            parts.append(_fold("methods", "", calls, is_open=False))
        return (
            f'{_STYLE}<div class="labtree"><div class="head">{head}</div>{"".join(parts)}</div>'
        )

    def _more(self) -> str:
        left = len(self.sections) - SHOWN
        return f"… {plural(left, f'more {self.section_noun}')}" if left > 0 else ""

    def _call_lines(self) -> list[str]:
        lead = "methods: "
        text = _joined(self.calls, _TEXT_WIDTH - len(lead)).replace(
            "\n", "\n" + " " * len(lead)
        )
        return ["", lead + text] if self.calls else []


def variables_section(
    variables: Mapping[Hashable, xr.Variable] | Mapping[Any, xr.DataArray],
    title: str = "variables",
    about: str = "",
    *,
    is_open: bool = True,
) -> Section:
    """Return what arrays are: name, shape, dtype, units, size; none is read."""
    rows = [
        (
            name,
            shape_and_dtype(variable.shape, variable.dtype),
            truncate(variable.attrs.get("units", ""), 24),
            format_bytes(variable.nbytes),
        )
        for name, variable in variables.items()
    ]
    return Section(
        title, rows, ("name", "", "", "muted size"), about or str(len(rows)), is_open
    )


def _fold(title: str, about: str, body: str, *, is_open: bool) -> str:
    name = escape(truncate(title, 120))
    head = f'<span>{name}</span> <span class="muted">{escape(about)}</span>'
    return f"<details{' open' * is_open}><summary>{head}</summary>{body}</details>"


def _joined(calls: Iterable[str], width: int = _TEXT_WIDTH) -> str:
    """Return calls in lines of at most ``width`` characters; no call is broken."""
    lines = [""]
    for call in calls:
        longer = f"{lines[-1]}  {call}" if lines[-1] else call
        if lines[-1] and len(longer) > width:
            lines.append(call)
        else:
            lines[-1] = longer
    return "\n".join(lines)
