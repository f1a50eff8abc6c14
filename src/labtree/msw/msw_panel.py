"""What ``df.msw`` and the tree of a session show of themselves: facts only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from labtree.msw.access import is_of_type, tables_of
from labtree.msw.trial_times import ATTRIBUTE, IntArray, Ragged, TrialTables

if TYPE_CHECKING:
    from labtree.msw.models import MswSession

__all__ = [
    "is_msw_session",
    "list_panel",
    "loaded_session_panel",
    "session_panel",
    "trials_panel",
]

_TIMES = (
    ".states()", ".events()", ".state_time(name, edge, clock)", ".visited(name)",
    ".latency(a, b)", ".pokes()", ".wall_time()", ".align(events, line=None)",
)  # fmt: skip
_FACTS = ("subject", "task", "session_datetime", "session_id", "msw_version")
_NO_TIMES = "none go with this table (labtree.msw.concat_trials keeps them)"


def _head(frame: pd.DataFrame) -> str:
    n_task = int(is_of_type(frame, "task").sum())
    n_barcodes = int(is_of_type(frame, "barcode").sum())
    return f"{plural(len(frame), 'row')}: {n_task} of the task, {plural(n_barcodes, 'barcode')}"


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
        found, counts = np.unique(ragged.take(trials).codes, return_counts=True)
        numbers = dict(zip(found.tolist(), counts.tolist(), strict=True))
    # The many segments of a barcode would hide the task's own states.
    return [
        (name, "" if trials is None else numbers.get(code, 0))
        for code, name in enumerate(ragged.names)
        if not name.startswith("barcode_")
    ]


def _calls(frame: pd.DataFrame) -> list[str]:
    has = set(frame.columns)
    calls = list(_TIMES) if _times(frame) else []
    calls += [".outcome()", ".rolling(field, n)", ".summary()", ".validate()"]
    if {"choice", "rewarded"} <= has:
        calls += [".reaction_time()", ".win_stay_lose_shift()"]
    if "block_number" in has:
        calls += [".blocks()", ".switch_curve()"]
    if "transition_times" in has:
        calls.append(".transitions()")
    return [*calls, ".task", ".barcodes", ".to_xarray()", '.plot("overview")']


def is_msw_session(tree: xr.DataTree) -> bool:
    """Return whether a tree is what ``MswSession.to_tree`` makes."""
    return "metadata" in tree.children and "msw_session" in tree.children["metadata"].attrs


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


def _who(session: "MswSession") -> tuple[str, str, str, str]:
    """Return subject, task, moment and trials of a session, in words."""
    when = session.datetime_str
    when = f"{when[:4]}-{when[4:6]}-{when[6:8]} {when[9:11]}:{when[11:13]}" if when else ""
    trials = "no trials" if session.df is None else _head(session.df)
    return truncate(session.subject), truncate(session.task, 60), when, trials


def list_panel(sessions: "Sequence[MswSession]", failed: Mapping[Path, Exception]) -> Panel:
    """Return what a list of sessions holds, a line for each, and what could not be loaded."""
    # Rows past those that are shown are only counted.
    rows = [_who(session) if i < SHOWN else () for i, session in enumerate(sessions)]
    sections = [Section("", rows, ("name", "", "", "muted"))]
    if failed:
        reasons = [(str(path), str(error)) for path, error in failed.items()]
        sections.append(
            Section("could not be loaded", reasons, ("text", "text"), str(len(failed)))
        )
    calls = ("[0]", ".trials()", ".failed")
    return Panel("labtree mouse sessions", plural(len(sessions), "session"), sections, calls)


def loaded_session_panel(session: "MswSession") -> Panel:
    """Return what a loaded session is: who, which task, when, its trials and settings."""
    facts = [
        ("folder", str(session.session_dir)),
        (
            "recorded by",
            f"msw {session.msw_version}, files of the kind {session.artifact_format}",
        ),
        ("part of", session.acquisition_name or session.host_session_name or ""),
        ("complete", "yes" if session.is_complete else "no: trials or settings are missing"),
    ]
    sections = [Section("", [fact for fact in facts if fact[1]], ("muted", "text"))]
    if session.df is not None:
        columns = list(session.df.dtypes.items())
        about = str(len(columns))
        sections.append(
            Section("columns of df", columns, ("name", "muted"), about, is_open=False)
        )
    for name in ("settings_task", "settings_process", "settings_stage", "settings_ephys"):
        if settings := getattr(session, name):
            rows = [(key, truncate(value, 200)) for key, value in settings.items()]
            sections.append(
                Section(name, rows, ("name", "text"), str(len(rows)), is_open=False)
            )
    about = ", ".join(filter(None, _who(session)[1:]))
    title = " ".join(filter(None, ["labtree mouse session", truncate(session.subject, 40)]))
    calls = (
        ".df",
        ".df.msw",
        ".df.msw.plot()",
        ".to_tree(recording)",
        ".settings_task",
        ".metadata",
    )
    return Panel(title, about, sections, calls)


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
    size = format_bytes(frame.memory_usage(deep=False).sum())
    return Panel("labtree trials", f"{_head(frame)}, {size}", sections, _calls(frame))
