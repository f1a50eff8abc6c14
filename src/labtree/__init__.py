"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The functions are loaded when they are first used, so
that the import itself stays quick.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

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
    "SaveState": "labtree.pipeline.sessions",
    "StepResult": "labtree.pipeline.steps",
    "create_session": "labtree.pipeline.sessions",
    "load_session": "labtree.pipeline.checkpoints",
    "mea": "labtree.mea",
    "step": "labtree.pipeline.steps",
}

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "FormatError",
    "LabtreeError",
    "SaveState",
    "SessionError",
    "StepResult",
    "WorkspaceError",
    "__version__",
    "create_session",
    "load_session",
    "mea",
    "step",
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


if find_spec("labtree.accessors.session") is None:
    import labtree.accessors.pipeline_session  # noqa: F401
