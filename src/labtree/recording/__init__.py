"""Recordings: a recorder that loses nothing, sessions as lazy trees, windows of them."""

from importlib import import_module
from typing import Any

_HOMES = {
    "LabelEvent": "models",
    "Recorder": "recorder",
    "SessionSplit": "session",
    "StreamInfo": "models",
    "aligned_windows": "aligned",
    "batches": "batches",
    "drop_log": "session_streams",
    "iter_aligned_windows": "aligned",
    "iter_labeled_windows": "windows",
    "iter_target_windows": "targets",
    "labeled_windows": "windows",
    "open_recording": "session",
    "recover": "recovery",
    "split_sessions_by_stream": "session",
    "target_windows": "targets",
    "torch_dataset": "batches",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
