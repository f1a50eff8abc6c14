"""What the session accessor says of a tree or a stream; nothing is read for it."""

from numbers import Real

import xarray as xr

from labtree import html
from labtree.html import SHOWN, short

__all__ = ["session_html", "session_report", "stream_html", "stream_report"]

_CALLS = (
    ".streams .labels .class_names .stream_info(name) .continuous(name)"
    " .trials(name) .windows(name, window_ms, hop_ms)"
    " .aligned_windows(name, others, window_ms, hop_ms) .target_windows(name, ...)"
    " .peri_event(name, times, pre_s, post_s) .plot() .close()"
)
_STREAM_CALLS = (
    ".windows(window_ms, hop_ms, labels=...) .trials(labels) .peri_event(times, pre_s, post_s)"
)
_ABOUT = ("session_path", "name", "app_name", "created", "recording_state")


def _about(tree: xr.DataTree) -> list[tuple[str, str]]:
    rows = [
        (key.removeprefix("session_"), short(tree.attrs[key], 400))
        for key in _ABOUT
        if key in tree.attrs
    ]
    age = html.age(tree.attrs.get("created"))
    return [
        (key, f"{text} ({age})" if key == "created" and age else text) for key, text in rows
    ]


def _stream_cells(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return shape, rate, length, type and unit of a stream; sizes only of what is none."""
    data = dataset.get("data")
    if data is None or len(data.shape) != 2:
        return (short(dict(dataset.sizes), 60), "", "", "", "")
    fs = dataset.attrs.get("fs")
    fs = fs if isinstance(fs, Real) else None
    return (
        f"{data.shape[0]} samples x {data.shape[1]} channels",
        f"{fs:g} Hz" if fs else "no rate",
        f"about {data.shape[0] / fs:.6g} s" if fs else "",
        str(data.dtype),
        short(data.attrs.get("units", ""), 24),
    )


def _stream_line(name: str, dataset: xr.Dataset) -> str:
    return f"  {short(name)}: {', '.join(filter(None, _stream_cells(dataset)))}"


def session_report(tree: xr.DataTree) -> str:
    """Return the repr of ``tree.session``."""
    from labtree.recording.session import class_names, streams

    lines = ["<labtree session>", *(f"{key}: {text}" for key, text in _about(tree))]
    found = streams(tree)
    lines.append("streams:" if found else "streams: none")
    lines += [_stream_line(name, dataset) for name, dataset in list(found.items())[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  … {len(found) - SHOWN} more")
    if "labels" in tree.children:
        lines.append(f"labels: {tree.children['labels'].sizes.get('label', 0)}")
    if names := class_names(tree):
        numbered = (f"{i} {short(name)}" for i, name in enumerate(names))
        lines.append(f"classes: {', '.join(html.listed(numbered, 50))}")
    lines += [f"repaired: {text}" for text in html.listed(tree.attrs.get("repairs", []), 400)]
    return "\n".join([*lines, f"call: {_CALLS}"])


def session_html(tree: xr.DataTree) -> str:
    """Return ``tree.session`` as HTML: its streams, labels, classes and repairs unfold."""
    from labtree.recording.session import class_names, streams

    found, names = streams(tree), class_names(tree)
    rows = [
        (name, *_stream_cells(dataset), html.size(dataset.nbytes))
        for name, dataset in found.items()
    ]
    columns = ("name", "", "", "muted", "", "", "muted")
    parts = [
        html.fold("streams", f"({len(found)})", html.table(rows, columns), is_open=True),
    ]
    if "labels" in tree.children:
        labels = tree.children["labels"].to_dataset()
        body = html.arrays(labels.variables)
        about = f"({labels.sizes.get('label', 0)})"
        parts.append(html.fold("labels", about, body, is_open=False))
    if names:
        body = html.table(enumerate(names), ("muted", "name"))
        parts.append(html.fold("classes", f"({len(names)})", body, is_open=False))
    if repairs := tree.attrs.get("repairs", []):
        body = html.table(([text] for text in repairs), ["text"])
        parts.append(html.fold("repairs", f"({len(repairs)})", body, is_open=True))
    parts.append(html.methods(_CALLS))
    about = ", ".join(text for _, text in _about(tree))
    return html.page("labtree session", about, *parts)


def stream_report(dataset: xr.Dataset) -> str:
    """Return the repr of ``dataset.session``."""
    line = _stream_line("data", dataset)
    return "\n".join(["<labtree stream>", line, f"call: {_STREAM_CALLS}"])


def stream_html(dataset: xr.Dataset) -> str:
    """Return ``dataset.session`` as HTML."""
    body = html.arrays(dataset.variables)
    about = ", ".join(filter(None, _stream_cells(dataset)))
    held = html.fold("variables", f"({len(dataset.variables)})", body, is_open=True)
    return html.page("labtree stream", about, held, html.methods(_STREAM_CALLS))
