"""What ``.session`` shows of a pipeline session: facts only; no data are read."""

from typing import Any

import xarray as xr

from labtree.display import (
    SHOWN,
    Panel,
    Section,
    age,
    format_bytes,
    plural,
    truncate,
    variables_section,
)
from labtree.pipeline.session_values import named_children
from labtree.pipeline.sessions import unit_count

_CALLS = (
    ".add_units({...})", ".add_feature(unit, name, data, metadata)", ".add_metadata({...})",
    ".add_stimulus({...})", ".spikes(unit)", ".feature(unit, name)",
    ".trials_spike_times(unit, movie)", ".full_spike_times(unit, movie)",
    ".mark_step_complete(name)", ".add_warning(text)", ".save()", ".checkpoint(path)",
)  # fmt: skip


def pipeline_panel(session: xr.DataTree) -> Panel:
    """Return what a pipeline session holds: units, steps, features, sections, warnings."""
    attrs = session.attrs
    saved, created = attrs.get("labtree_saved"), age(attrs.get("created_at"))
    about = [
        truncate(attrs.get("dataset_id"), 80),
        plural(unit_count(session), "unit"),
        truncate(saved["path"], 400) if saved else "not saved yet",
        f"created {created}" if created else "",
    ]
    sections = []
    if "units" in session.children:
        units = session.children["units"].to_dataset(inherit=False).variables
        sections.append(variables_section(units, "units", str(unit_count(session))))
    parameters = {record["name"]: record["parameters"] for record in attrs.get("steps", ())}
    steps = [
        (name, _parameters(parameters.get(name))) for name in attrs.get("completed_steps", ())
    ]
    sections += _section("steps done", steps, ("name", "text"))
    for name, title in (("features", "features"), ("sections", "movies")):
        rows = [
            (child, ", ".join(map(truncate, list(node.variables)[:SHOWN])), _nbytes(node))
            for child, node in named_children(session, name).items()
        ]
        sections += _section(title, rows, ("name", "text", "muted size"), is_open=False)
    warnings = [(text,) for text in attrs.get("warnings", ())]
    sections += _section("warnings", warnings, ("text",))
    return Panel("labtree pipeline session", ", ".join(filter(None, about)), sections, _CALLS)


def _section(
    title: str, rows: list[Any], columns: tuple[str, ...], *, is_open: bool = True
) -> list[Section]:
    return [Section(title, rows, columns, str(len(rows)), is_open)] if rows else []


def _parameters(parameters: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in (parameters or {}).items())


def _nbytes(node: xr.DataTree) -> str:
    return format_bytes(
        sum(each.nbytes for below in node.subtree for each in below.variables.values())
    )
