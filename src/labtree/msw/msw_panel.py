"""What ``df.msw`` and the tree of a session show of themselves: facts only."""

import numpy as np
import pandas as pd
import xarray as xr

from labtree.display import (
    SHOWN,
    Panel,
    Section,
    format_bytes,
    plural,
    truncate,
    variables_section,
)
from labtree.msw.trial_queries import is_of_type, tables_of
from labtree.msw.trial_times import ATTRIBUTE, IntArray, Ragged, has_tables

_TIMES = (
    ".states()", ".events()", ".state_time(name, edge, clock)", ".visited(name)",
    ".latency(a, b)", ".pokes()", ".wall_time()", ".align(events, line=None)",
)  # fmt: skip
_FACTS = ("subject", "task", "session_datetime", "session_id", "msw_version")
_NO_TIMES = "none go with this table (labtree.msw.concat_trials keeps them)"


def count_trials(frame: pd.DataFrame) -> str:
    """Return in words how many rows a table has, and of which kind."""
    n_task = int(is_of_type(frame, "task").sum())
    n_barcodes = int(is_of_type(frame, "barcode").sum())
    return f"{plural(len(frame), 'row')}: {n_task} of the task, {plural(n_barcodes, 'barcode')}"


def _times(frame: pd.DataFrame) -> dict[str, list[tuple[str, int | str]]]:
    """Return the session's states and events by name, and how many these rows have."""
    if not has_tables(frame.attrs) or "trial" not in frame:
        return {}
    held = frame.attrs[ATTRIBUTE]
    try:
        trials = tables_of(frame)[1]
    except (TypeError, ValueError):  # "trial" numbers other trials; the calls say so
        trials = None
    return {
        "states": _counted(held.states, trials),
        "events": _counted(held.events, trials),
    }


def _counted(ragged: Ragged, trials: IntArray | None) -> list[tuple[str, int | str]]:
    counts: list[int | str] = [""] * len(ragged.names)
    if trials is not None:
        codes = ragged.take(trials).codes
        counts = np.bincount(codes, minlength=len(ragged.names)).tolist()
    # The many segments of a barcode would hide the task's own states.
    return [
        (name, count)
        for name, count in zip(ragged.names, counts, strict=True)
        if not name.startswith("barcode_")
    ]


def _calls(frame: pd.DataFrame, *, has_times: bool) -> list[str]:
    has = set(frame.columns)
    calls = list(_TIMES) if has_times else []
    calls += [".outcome()", ".rolling(field, n)", ".summary()", ".validate()"]
    if {"choice", "rewarded"} <= has:
        calls += [".reaction_time()", ".win_stay_lose_shift()"]
    if "block_number" in has:
        calls += [".blocks()", ".switch_curve()"]
    if "transition_times" in has:
        calls.append(".transitions()")
    return [*calls, ".task", ".barcodes", ".to_xarray()", '.plot("overview")']


def session_panel(tree: xr.DataTree) -> Panel:
    """Return what the tree of a Murine Shift Work session holds."""
    attrs = tree.children["metadata"].attrs
    facts = [(name, truncate(attrs[name], 400)) for name in _FACTS if attrs.get(name)]
    sections = [Section("", facts, ("muted", "text"))]
    about = "no trials"
    if "trials" in tree.children:
        trials = tree.children["trials"].to_dataset(inherit=False)
        about = plural(trials.sizes.get("trial", 0), "trial")
        sections.append(variables_section(trials.variables, "trials", about, is_open=False))
    calls = ["df = labtree.msw.MswSession.from_tree(tree).df", "df.msw"]
    return Panel("labtree Murine Shift Work session", about, sections, calls)


def trials_panel(frame: pd.DataFrame) -> Panel:
    """Return what ``df.msw`` sees in a table: its rows, columns, states and events."""
    columns = list(frame.dtypes.items())
    sections = [
        Section("columns", columns, ("name", "muted"), str(len(columns)), is_open=False)
    ]
    times = _times(frame)
    for title, names in times.items():
        sections.append(
            Section(
                title,
                names,
                ("name", "muted"),
                str(len(names)),
                is_open=len(names) <= SHOWN,
                is_list=True,
            )
        )
    if not times:
        sections.append(Section("", [("states", _NO_TIMES)], ("", "text")))
    about = f"{count_trials(frame)}, {format_bytes(frame.memory_usage(deep=False).sum())}"
    return Panel("labtree trials", about, sections, _calls(frame, has_times=bool(times)))
