"""What accessors show of themselves: one panel, as text and as HTML.

Modules give facts (a :class:`Panel`); how they look is decided here, for all of them.
Whatever a panel is made of may be hostile: it is shortened, kept on one line, and escaped.
"""

from labtree.display.formatting import (
    COLORS,
    age,
    duration,
    format_bytes,
    plural,
    printable,
    shape_and_dtype,
    truncate,
    truncate_list,
)
from labtree.display.panel import SHOWN, Panel, Section, variables_section

__all__ = [
    "COLORS",
    "SHOWN",
    "Panel",
    "Section",
    "age",
    "duration",
    "format_bytes",
    "plural",
    "printable",
    "shape_and_dtype",
    "truncate",
    "truncate_list",
    "variables_section",
]
