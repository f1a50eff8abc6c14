"""What ``df.msw`` shows of itself: what it sees in this table, and what can be called."""

import numpy as np
import pandas as pd

from labtree import html
from labtree.html import SHOWN, listed
from labtree.msw.access import is_of_type, tables_of
from labtree.msw.trial_table import ATTRIBUTE, IntArray, Ragged, TrialTables, gather

__all__ = ["describe", "describe_html"]

_TIMES = (
    "states()", "events()", "state_time(name, edge, clock)", "visited(name)", "latency(a, b)",
    "pokes()", "wall_time()", "align(events, line=...)",
)  # fmt: skip
_ALSO = 'to_xarray(), plot("overview" | "states" | "switch_curve")'
_NO_TIMES = "none go with this table (labtree.msw.concat_trials keeps them)"


def _head(frame: pd.DataFrame) -> str:
    n_task = int(is_of_type(frame, "task").sum())
    n_barcodes = int(is_of_type(frame, "barcode").sum())
    return f"{len(frame)} rows: {n_task} of the task, {n_barcodes} barcodes"


def _times(frame: pd.DataFrame) -> dict[str, list[tuple[str, int | str]]]:
    """Return the session's states and events by name, and how many these rows have."""
    held = frame.attrs.get(ATTRIBUTE)
    if not isinstance(held, TrialTables) or "trial" not in frame:
        return {}
    try:
        trials = tables_of(frame)[1]
    except (TypeError, ValueError):  # "trial" numbers other trials; the calls say so
        trials = None
    return {
        "states": _counted(held.states, trials),
        "events": _counted(held.events, trials),
    }


def _counted(ragged: Ragged, trials: IntArray | None) -> list[tuple[str, int | str]]:
    numbers: dict[int, int] = {}
    if trials is not None:
        codes = ragged.codes[gather(ragged, trials)[1]]
        found, counts = np.unique(codes, return_counts=True)
        numbers = dict(zip(found.tolist(), counts.tolist(), strict=True))
    # The many segments of a barcode would hide the task's own states.
    return [
        (name, "" if trials is None else numbers.get(code, 0))
        for code, name in enumerate(ragged.names)
        if not name.startswith("barcode_")
    ]


def _calls(frame: pd.DataFrame) -> dict[str, str]:
    has = set(frame.columns)
    measures = ["outcome()", "rolling(field, n)", "summary()", "validate()"]
    if {"choice", "rewarded"} <= has:
        measures += ["reaction_time()", "win_stay_lose_shift()"]
    if "block_number" in has:
        measures += ["blocks()", "switch_curve()"]
    if "transition_times" in has:
        measures += ["transitions()"]
    times = {"times": ", ".join(_TIMES)} if _times(frame) else {}
    return times | {
        "measures": ", ".join(measures),
        "rows": "task, barcodes",
        "also": _ALSO,
    }


def describe(frame: pd.DataFrame) -> str:
    """Give the text."""
    sections = {
        title: ", ".join(listed(name for name, _ in names)) or "none"
        for title, names in _times(frame).items()
    } or {"states": _NO_TIMES}
    sections |= _calls(frame)
    lines = (f"  {title + ':':<10}{text}" for title, text in sections.items())
    return "\n".join([f"<df.msw> {_head(frame)}", *lines])


def describe_html(frame: pd.DataFrame) -> str:
    """Give the text for notebooks: columns, states and events unfold."""
    columns = html.table(frame.dtypes.items(), ("name", ""))
    parts = [html.fold("columns", f"({frame.shape[1]})", columns, is_open=False)]
    times = _times(frame)
    for title, names in times.items():
        body = html.table(names, ("name", "muted"))
        parts.append(html.fold(title, f"({len(names)})", body, is_open=len(names) <= SHOWN))
    if not times:
        parts.append(html.preformatted(f"states: {_NO_TIMES}"))
    calls = html.table(_calls(frame).items(), ("", "text"))
    parts.append(html.fold("methods", "", calls, is_open=False))
    size = html.size(frame.memory_usage(deep=False).sum())
    return html.page("df.msw", f"{_head(frame)}, {size}", *parts)
