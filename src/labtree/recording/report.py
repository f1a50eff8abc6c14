"""What the session accessor says of a tree or a stream; nothing is read for it."""

from html import escape

import xarray as xr

__all__ = ["as_html", "session_report", "stream_report"]


def _stream_line(name: str, dataset: xr.Dataset) -> str:
    data = dataset.get("data")
    if data is None or len(data.shape) != 2:
        return f"  {name}: {dict(dataset.sizes)}"
    fs = dataset.attrs.get("fs")
    rate = f"{fs:g} Hz" if fs else "no rate"
    seconds = f", about {data.shape[0] / fs:.6g} s" if fs else ""
    units = f", {data.attrs['units']}" if "units" in data.attrs else ""
    shape = f"{data.shape[0]} samples x {data.shape[1]} channels"
    return f"  {name}: {shape}, {rate}{seconds}, {data.dtype}{units}"


def session_report(tree: xr.DataTree) -> str:
    """Return the repr of ``tree.session``."""
    from labtree.recording.session import class_names, streams

    keys = ("session_path", "name", "app_name", "created", "recording_state")
    lines = ["<labtree session>"]
    lines += [
        f"{key.removeprefix('session_')}: {tree.attrs[key]}"
        for key in keys
        if key in tree.attrs
    ]
    found = streams(tree)
    lines.append("streams:" if found else "streams: none")
    lines += [_stream_line(name, dataset) for name, dataset in found.items()]
    if "labels" in tree.children:
        lines.append(f"labels: {tree.children['labels'].sizes.get('label', 0)}")
    if names := class_names(tree):
        lines.append(f"classes: {', '.join(f'{i} {name}' for i, name in enumerate(names))}")
    lines += [f"repaired: {text}" for text in tree.attrs.get("repairs", [])]
    lines.append(
        "call: .streams .labels .class_names .stream_info(name) .continuous(name)"
        " .trials(name) .windows(name, window_ms, hop_ms)"
        " .aligned_windows(name, others, window_ms, hop_ms) .target_windows(name, ...)"
        " .peri_event(name, times, pre_s, post_s) .plot() .close()"
    )
    return "\n".join(lines)


def stream_report(dataset: xr.Dataset) -> str:
    """Return the repr of ``dataset.session``."""
    return "\n".join(
        [
            "<labtree stream>",
            _stream_line("data", dataset),
            "call: .windows(window_ms, hop_ms, labels=...) .trials(labels)"
            " .peri_event(times, pre_s, post_s)",
        ]
    )


def as_html(text: str) -> str:
    """Return a repr as HTML."""
    return f"<pre>{escape(text)}</pre>"
