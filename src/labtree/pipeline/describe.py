"""What a pipeline session shows of itself; reads no data."""

from typing import Any

import xarray as xr

from labtree import html
from labtree.html import listed, short
from labtree.pipeline.sessions import is_session, unit_count

__all__ = ["describe", "describe_html"]

_CALLS = (
    "add_units({...})", "add_feature(unit, name, data, metadata)", "add_metadata({...})",
    "add_stimulus({...})", "spikes(unit)", "feature(unit, name)",
    "trials_spike_times(unit, movie)", "full_spike_times(unit, movie)",
    "save()", "checkpoint(path)",
)  # fmt: skip
_NO_SESSION = "not a pipeline session; labtree.create_session('rec1') makes one"


def _below(session: xr.DataTree, name: str) -> dict[str, xr.DataTree]:
    return dict(session.children[name].children) if name in session.children else {}


def _file(session: xr.DataTree) -> str:
    saved = session.attrs.get("labtree_saved")
    return short(saved["path"], 400) if saved else "not saved yet"


def _created(session: xr.DataTree) -> str:
    age = html.age(session.attrs.get("created_at"))
    return f"created {age}" if age else ""


def _lines(session: xr.DataTree) -> list[tuple[str, str]]:
    attrs = session.attrs
    done, movies = attrs.get("completed_steps", ()), _below(session, "sections")
    return [
        ("id", short(attrs.get("dataset_id"), 80)),
        ("created", html.age(attrs.get("created_at")) or "at no known time"),
        ("units", str(unit_count(session))),
        ("steps done", ", ".join(listed(done)) or "none"),
        ("movies", ", ".join(listed(movies)) or "none"),
        ("features", ", ".join(listed(_below(session, "features"))) or "none"),
        ("warnings", str(len(attrs.get("warnings", ())))),
        ("file", _file(session)),
        ("call", ", ".join(_CALLS)),
    ]


def describe(session: xr.DataTree) -> str:
    """Return the session's state and verbs as text."""
    if not is_session(session):
        return f"<.session: {_NO_SESSION}>"
    lines = "\n".join(f"  {name:<11} {text}" for name, text in _lines(session))
    return f"<.session of a pipeline>\n{lines}"


def describe_html(session: xr.DataTree) -> str:
    """Return the session's state and verbs as HTML: units, steps and the rest unfold."""
    if not is_session(session):
        return html.page(".session", _NO_SESSION)
    attrs = session.attrs
    parts = []
    if "units" in session.children:
        body = html.arrays(session.children["units"].to_dataset(inherit=False).variables)
        parts.append(html.fold("units", f"({unit_count(session)})", body, is_open=True))
    parameters = {record["name"]: record["parameters"] for record in attrs.get("steps", ())}
    steps = [
        (name, _parameters(parameters.get(name))) for name in attrs.get("completed_steps", ())
    ]
    parts.append(_fold("steps done", steps, ("name", "text"), is_open=True))
    for name in ("features", "sections"):
        held = [
            (below, ", ".join(map(short, list(node.variables)[: html.SHOWN])), _size(node))
            for below, node in _below(session, name).items()
        ]
        title = {"sections": "movies"}.get(name, name)
        parts.append(_fold(title, held, ("name", "text", "muted")))
    warnings = [(text,) for text in attrs.get("warnings", ())]
    parts.append(_fold("warnings", warnings, ("text",), is_open=True))
    about = [short(attrs.get("dataset_id"), 80), _file(session), _created(session)]
    calls = html.methods("\n".join(f".{call}" for call in _CALLS))
    return html.page("labtree pipeline session", ", ".join(filter(None, about)), *parts, calls)


def _fold(
    title: str, rows: list[Any], classes: tuple[str, ...], *, is_open: bool = False
) -> str:
    if not rows:
        return ""
    return html.fold(title, f"({len(rows)})", html.table(rows, classes), is_open=is_open)


def _parameters(parameters: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in (parameters or {}).items())


def _size(node: xr.DataTree) -> str:
    return html.size(
        sum(each.nbytes for below in node.subtree for each in below.variables.values())
    )
