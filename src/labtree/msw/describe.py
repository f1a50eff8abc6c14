"""What ``df.msw`` shows of itself: what it sees in this table, and what can be called."""

from html import escape

import pandas as pd

from labtree.msw.access import is_of_type
from labtree.msw.tables import ATTRIBUTE, TrialTables

__all__ = ["describe", "describe_html"]


def _sections(frame: pd.DataFrame) -> tuple[str, dict[str, str]]:
    n_task = int(is_of_type(frame, "task").sum())
    n_barcodes = int(is_of_type(frame, "barcode").sum())
    head = f"{len(frame)} rows: {n_task} of the task, {n_barcodes} barcodes"
    held = frame.attrs.get(ATTRIBUTE)
    sections: dict[str, str] = {}
    if isinstance(held, TrialTables) and "trial" in frame:
        for name, ragged in (("states", held.states), ("events", held.events)):
            # The many segments of a barcode would hide the task's own states.
            names = [n for n in ragged.names if not n.startswith("barcode_")]
            sections[name] = ", ".join(names) or "none"
        calls = (
            "states(), events(), state_time(name, edge, clock), visited(name), latency(a, b)"
        )
        sections["times"] = calls + ", pokes(), wall_time(), align(events, line=...)"
    else:
        sections["states"] = "none go with this table (labtree.msw.concat_trials keeps them)"
    has = set(frame.columns)
    measures = ["outcome()", "rolling(field, n)", "summary()", "validate()"]
    if {"choice", "rewarded"} <= has:
        measures += ["reaction_time()", "win_stay_lose_shift()"]
    if "block_number" in has:
        measures += ["blocks()", "switch_curve()"]
    if "transition_times" in has:
        measures += ["transitions()"]
    sections["measures"] = ", ".join(measures)
    sections["rows"] = "task, barcodes"
    sections["also"] = 'to_xarray(), plot("overview" | "states" | "switch_curve")'
    return head, sections


def describe(frame: pd.DataFrame) -> str:
    """Give the text."""
    head, sections = _sections(frame)
    return "\n".join(
        [f"<df.msw> {head}", *(f"  {k + ':':<10}{v}" for k, v in sections.items())]
    )


def describe_html(frame: pd.DataFrame) -> str:
    """Give the text for notebooks."""
    head, sections = _sections(frame)
    rows = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in sections.items()
    )
    return f"<div><strong>df.msw</strong>: {escape(head)}<table>{rows}</table></div>"
