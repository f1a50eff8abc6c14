"""What a pipeline session shows of itself; reads no data."""

import html

import xarray as xr

from labtree.pipeline.sessions import is_session, unit_count

__all__ = ["describe", "describe_html"]

_CALLS = (
    "add_units({...})", "add_feature(unit, name, data, metadata)", "add_metadata({...})",
    "add_stimulus({...})", "spikes(unit)", "feature(unit, name)",
    "trials_spike_times(unit, movie)", "full_spike_times(unit, movie)",
    "save()", "checkpoint(path)",
)  # fmt: skip


def _lines(session: xr.DataTree) -> list[tuple[str, str]]:
    attrs = session.attrs
    features = session.children["features"].children if "features" in session.children else {}
    movies = session.children["sections"].children if "sections" in session.children else {}
    saved = attrs.get("labtree_saved")
    return [
        ("id", str(attrs.get("dataset_id"))),
        ("units", str(unit_count(session))),
        ("steps done", ", ".join(attrs.get("completed_steps", ())) or "none"),
        ("movies", ", ".join(map(str, movies)) or "none"),
        ("features", ", ".join(map(str, features)) or "none"),
        ("warnings", str(len(attrs.get("warnings", ())))),
        ("file", saved["path"] if saved else "not saved yet"),
        ("call", ", ".join(_CALLS)),
    ]


def describe(session: xr.DataTree) -> str:
    """Return the session's state and verbs as text."""
    if not is_session(session):
        return "<.session: not a pipeline session; labtree.create_session('rec1') makes one>"
    lines = "\n".join(f"  {name:<11} {text}" for name, text in _lines(session))
    return f"<.session of a pipeline>\n{lines}"


def describe_html(session: xr.DataTree) -> str:
    """Return the session's state and verbs as HTML."""
    if not is_session(session):
        return f"<pre>{html.escape(describe(session))}</pre>"
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in _lines(session)
    )
    return f"<table><caption>.session of a pipeline</caption>{rows}</table>"
