"""What ``.session`` shows of a recording or of one stream: facts only; no sample is read."""

from numbers import Real

import xarray as xr

from labtree.display import (
    Panel,
    Section,
    age,
    duration,
    format_bytes,
    plural,
    truncate,
    variables_section,
)
from labtree.recording.session import class_names, streams
from labtree.recording.session_streams import is_stream, with_channels

_CALLS = (
    ".streams", ".labels", ".class_names", ".stream_info(name)", ".continuous(name)",
    ".trials(name)", ".windows(name, window_ms, hop_ms)",
    ".aligned_windows(name, others, window_ms, hop_ms)",
    ".target_windows(name, target, window_ms, hop_ms)",
    ".peri_event(name, times, pre_s, post_s)",
    ".plot()", ".close()",
)  # fmt: skip
_STREAM_CALLS = (
    ".windows(window_ms, hop_ms, labels=None)", ".trials(labels)",
    ".peri_event(times, pre_s, post_s)",
)  # fmt: skip
_FACTS = ("session_path", "name", "app_name", "created", "recording_state")


def recording_panel(tree: xr.DataTree) -> Panel:
    """Return what a session tree holds: its streams, labels, classes and repairs."""
    facts = [
        (key.removeprefix("session_"), truncate(tree.attrs[key], 400))
        for key in _FACTS
        if key in tree.attrs
    ]
    created = age(tree.attrs.get("created"))
    rows = [
        (name, *_stream_cells(dataset), format_bytes(dataset.nbytes))
        for name, dataset in streams(tree).items()
    ]
    columns = ("name", "fact", "fact", "muted", "", "", "muted size")
    sections = [Section("", facts, ("muted", "text"))] if facts else []
    sections.append(Section("streams", rows, columns, str(len(rows))))
    if "labels" in tree.children:
        labels = tree.children["labels"].to_dataset()
        about = str(labels.sizes.get("label", 0))
        sections.append(variables_section(labels.variables, "labels", about, is_open=False))
    if names := class_names(tree):
        classes = list(enumerate(names))
        about = str(len(names))
        sections.append(
            Section("classes", classes, ("muted", "name"), about, is_open=False, is_list=True)
        )
    if repairs := tree.attrs.get("repairs", []):
        lines = [(text,) for text in repairs]
        sections.append(Section("repairs", lines, ("text",), str(len(lines))))
    about = plural(len(rows), "stream") + (f", recorded {created}" if created else "")
    return Panel("labtree session", about, sections, _CALLS)


def nothing_panel(tree: xr.DataTree) -> Panel:
    """Return what a tree is that is no session, and how one comes by a session."""
    calls: tuple[str, ...] = (
        "labtree.open_session(path)", "labtree.create_session(dataset_id)",
        "labtree.load_session(path)", "labtree.Recorder(base_path)",
    )  # fmt: skip
    attrs = tree.root.attrs
    groups = [str(name) for name in tree.children]
    if "labtree_workspace_id" in attrs:
        name = truncate(attrs.get("labtree_name", ""), 80)
        what = f"this tree is a labtree workspace{f' {name!r}' if name else ''}: write tree.ws"
        calls = ("tree.ws", 'tree["namespace/key"]')
    elif groups:
        listed = truncate(", ".join(groups[:8]), 200)
        what = (
            f"this tree has the groups {listed}, and none of streams, labels, units or trials"
        )
    else:
        what = "this tree is empty" if not tree.data_vars else "this tree has no groups"
    return Panel("no labtree session", what, calls=calls)


def stream_panel(dataset: xr.Dataset) -> Panel:
    """Return what one stream's Dataset holds, or what a Dataset lacks to be one."""
    variables = [variables_section(dataset.variables)]
    stream = with_channels(dataset)
    if not is_stream(stream):
        what = "a stream has data (time, channel), time (time) in s, and the attribute fs in Hz"
        return Panel("no labtree stream", what, variables)
    about = ", ".join(filter(None, _stream_cells(stream)))
    return Panel("labtree stream", about, variables, _STREAM_CALLS)


def _stream_cells(dataset: xr.Dataset) -> tuple[str, str, str, str, str]:
    """Return shape, rate, length, type and unit of a stream; only sizes if it is none."""
    data = dataset.get("data")
    if data is None or len(data.shape) != 2:
        return (truncate(dict(dataset.sizes), 60), "", "", "", "")
    fs = dataset.attrs.get("fs")
    fs = fs if isinstance(fs, Real) else None
    samples, channels = data.shape
    return (
        f"{plural(samples, 'sample')} × {plural(channels, 'channel')}",
        f"{fs:g} Hz" if fs else "no rate",
        f"about {duration(samples / fs)}" if fs else "",
        str(data.dtype),
        truncate(data.attrs.get("units", ""), 24),
    )
