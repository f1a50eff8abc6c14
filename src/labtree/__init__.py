"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The functions are loaded when they are first used, so
that the import itself stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from labtree.accessors import workspace as _workspace  # noqa: F401, registers .ws
from labtree.errors import (
    CheckpointError,
    ConfigurationError,
    FormatError,
    ItemNotFoundError,
    LabtreeError,
    SessionError,
    WorkspaceError,
)

if TYPE_CHECKING:
    from labtree.workspace.active import active_workspace, use_workspace
    from labtree.workspace.files import load_item, load_workspace, open_workspace
    from labtree.workspace.manager import WorkspaceManager, get_workspace_manager
    from labtree.workspace.verbs import create_workspace

__version__ = "0.1.0"

# Public name -> the module that defines it; a name equal to its module is that module.
_HOMES: dict[str, str] = {
    "WorkspaceManager": "labtree.workspace.manager",
    "active_workspace": "labtree.workspace.active",
    "create_workspace": "labtree.workspace.verbs",
    "get_workspace_manager": "labtree.workspace.manager",
    "load_item": "labtree.workspace.files",
    "load_workspace": "labtree.workspace.files",
    "open_workspace": "labtree.workspace.files",
    "use_workspace": "labtree.workspace.active",
}

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "FormatError",
    "ItemNotFoundError",
    "LabtreeError",
    "SessionError",
    "WorkspaceError",
    "WorkspaceManager",
    "__version__",
    "active_workspace",
    "create_workspace",
    "get_workspace_manager",
    "load_item",
    "load_workspace",
    "open_workspace",
    "use_workspace",
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
