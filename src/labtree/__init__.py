"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The functions are loaded when they are first used, so
that the import itself stays quick.
"""

from importlib import import_module
from typing import Any

import labtree.accessors.session  # noqa: F401  (registers .session)
from labtree.errors import (
    CheckpointError,
    ConfigurationError,
    FormatError,
    LabtreeError,
    SessionError,
    WorkspaceError,
)

__version__ = "0.1.0"

# Public name -> the module that defines it; a name equal to its module is that module.
_HOMES: dict[str, str] = {
    "LabelEvent": "labtree.recording.models",
    "Recorder": "labtree.recording.recorder",
    "StreamInfo": "labtree.recording.models",
    "aligned_windows": "labtree.recording.aligned",
    "batches": "labtree.recording.window_arrays",
    "iter_aligned_windows": "labtree.recording.aligned",
    "iter_labeled_windows": "labtree.recording.windows",
    "iter_target_windows": "labtree.recording.targets",
    "labeled_windows": "labtree.recording.windows",
    "open_session": "labtree.recording.session",
    "recording": "labtree.recording",
    "split_sessions_by_stream": "labtree.recording.session",
    "target_windows": "labtree.recording.targets",
}

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "FormatError",
    "LabtreeError",
    "SessionError",
    "WorkspaceError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'labtree' has no attribute {name!r}")
    module = import_module(home)
    value = module if home == f"labtree.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
