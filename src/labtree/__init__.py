"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The functions are loaded when they are first used, so
that the import itself stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from labtree.accessors import msw as _msw  # noqa: F401, registers .msw
from labtree.accessors import session as _session  # noqa: F401, registers .session
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
    "LabelEvent": "labtree.recording.models",
    "Recorder": "labtree.recording.recorder",
    "SaveState": "labtree.pipeline.sessions",
    "StepResult": "labtree.pipeline.steps",
    "StreamInfo": "labtree.recording.models",
    "WorkspaceManager": "labtree.workspace.manager",
    "active_workspace": "labtree.workspace.active",
    "aligned_windows": "labtree.recording.aligned",
    "batches": "labtree.recording.window_arrays",
    "binned_spike_counts": "labtree.objects.spike_trains",
    "concatenate_time": "labtree.objects.spike_trains",
    "concatenate_units": "labtree.objects.spike_trains",
    "create_session": "labtree.pipeline.sessions",
    "create_workspace": "labtree.workspace.verbs",
    "export_nwb": "labtree.interop.nwb",
    "export_spikelab": "labtree.interop.spikelab_export",
    "from_neo": "labtree.interop.neo",
    "from_pynapple": "labtree.interop.pynapple",
    "from_spikelab": "labtree.interop.spikelab_objects",
    "get_workspace_manager": "labtree.workspace.manager",
    "import_spikelab": "labtree.interop.spikelab",
    "iter_aligned_windows": "labtree.recording.aligned",
    "iter_labeled_windows": "labtree.recording.windows",
    "iter_target_windows": "labtree.recording.targets",
    "labeled_windows": "labtree.recording.windows",
    "load_item": "labtree.workspace.files",
    "load_session": "labtree.pipeline.checkpoints",
    "load_workspace": "labtree.workspace.files",
    "matrix_values": "labtree.objects.pairwise",
    "mea": "labtree.mea",
    "msw": "labtree.msw",
    "open": "labtree.opening",
    "open_session": "labtree.opening",
    "open_workspace": "labtree.workspace.files",
    "pairwise_matrix": "labtree.objects.pairwise",
    "pairwise_stack": "labtree.objects.pairwise",
    "rate_data": "labtree.objects.rate_data",
    "rate_slice_stack": "labtree.objects.rate_slice_stack",
    "select_time": "labtree.objects.spike_trains",
    "select_units": "labtree.objects.spike_trains",
    "slices_of": "labtree.objects.spike_slice_stack",
    "spike_counts": "labtree.objects.spike_trains",
    "spike_data": "labtree.objects.spike_data",
    "spike_slice_stack": "labtree.objects.spike_slice_stack",
    "split_sessions_by_stream": "labtree.recording.session",
    "step": "labtree.pipeline.steps",
    "target_windows": "labtree.recording.targets",
    "to_neo": "labtree.interop.neo",
    "to_pynapple": "labtree.interop.pynapple",
    "trains": "labtree.objects.spike_trains",
    "unit_attributes": "labtree.objects.unit_attributes",
    "unit_train": "labtree.objects.spike_trains",
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
