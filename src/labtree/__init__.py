"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The functions are loaded when they are first used, so
that the import itself stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from labtree._version import __version__
from labtree.accessors import msw as _msw  # noqa: F401, registers .msw
from labtree.accessors import session as _session  # noqa: F401, registers .session
from labtree.accessors import workspace as _workspace  # noqa: F401, registers .ws
from labtree.errors import (
    AlreadyExistsError,
    BusyFileError,
    CheckpointError,
    ClosedError,
    ConfigurationError,
    DamageWarning,
    DataError,
    FileAccessError,
    FormatError,
    InvalidNameError,
    ItemNotFoundError,
    LabtreeError,
    LossWarning,
    MissingDependencyError,
    MissingFileError,
    RecordingWarning,
    RecordingWriteError,
    SessionError,
    TrialDataError,
    TrialTableError,
    UnknownNameError,
    UnsafePickleError,
    UnsupportedTypeError,
    WorkspaceError,
)

if TYPE_CHECKING:
    from labtree import mea, msw, recording, spikes
    from labtree.interop.neo import from_neo, to_neo
    from labtree.interop.nwb import export_nwb
    from labtree.interop.pynapple import from_pynapple, to_pynapple
    from labtree.interop.spikelab import export_spikelab, from_spikelab, import_spikelab
    from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
    from labtree.objects.rate_data import rate_data
    from labtree.objects.rate_slice_stack import rate_slice_stack
    from labtree.objects.spike_data import spike_data
    from labtree.objects.spike_slice_stack import spike_slice_stack
    from labtree.opening import open as open
    from labtree.opening import open_session
    from labtree.pipeline.checkpoints import load_session
    from labtree.pipeline.sessions import SaveState, create_session
    from labtree.pipeline.steps import StepResult, step
    from labtree.recording.aligned import aligned_windows, iter_aligned_windows
    from labtree.recording.batches import batches
    from labtree.recording.models import LabelEvent, StreamInfo
    from labtree.recording.recorder import Recorder
    from labtree.recording.session import split_sessions_by_stream
    from labtree.recording.targets import iter_target_windows, target_windows
    from labtree.recording.windows import iter_labeled_windows, labeled_windows
    from labtree.workspace.active import active_workspace, use_workspace
    from labtree.workspace.files import load_item, load_workspace, open_workspace
    from labtree.workspace.manager import WorkspaceManager, get_workspace_manager
    from labtree.workspace.verbs import create_workspace

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
    "batches": "labtree.recording.batches",
    "create_session": "labtree.pipeline.sessions",
    "create_workspace": "labtree.workspace.verbs",
    "export_nwb": "labtree.interop.nwb",
    "export_spikelab": "labtree.interop.spikelab",
    "from_neo": "labtree.interop.neo",
    "from_pynapple": "labtree.interop.pynapple",
    "from_spikelab": "labtree.interop.spikelab",
    "get_workspace_manager": "labtree.workspace.manager",
    "import_spikelab": "labtree.interop.spikelab",
    "iter_aligned_windows": "labtree.recording.aligned",
    "iter_labeled_windows": "labtree.recording.windows",
    "iter_target_windows": "labtree.recording.targets",
    "labeled_windows": "labtree.recording.windows",
    "load_item": "labtree.workspace.files",
    "load_session": "labtree.pipeline.checkpoints",
    "load_workspace": "labtree.workspace.files",
    "mea": "labtree.mea",
    "msw": "labtree.msw",
    "open": "labtree.opening",
    "open_session": "labtree.opening",
    "open_workspace": "labtree.workspace.files",
    "pairwise_matrix": "labtree.objects.pairwise",
    "pairwise_stack": "labtree.objects.pairwise",
    "rate_data": "labtree.objects.rate_data",
    "rate_slice_stack": "labtree.objects.rate_slice_stack",
    "recording": "labtree.recording",
    "spike_data": "labtree.objects.spike_data",
    "spike_slice_stack": "labtree.objects.spike_slice_stack",
    "spikes": "labtree.spikes",
    "split_sessions_by_stream": "labtree.recording.session",
    "step": "labtree.pipeline.steps",
    "target_windows": "labtree.recording.targets",
    "to_neo": "labtree.interop.neo",
    "to_pynapple": "labtree.interop.pynapple",
    "use_workspace": "labtree.workspace.active",
}

# Not `open`: "from labtree import *" must not hide the builtin.
__all__ = [
    "AlreadyExistsError",
    "BusyFileError",
    "CheckpointError",
    "ClosedError",
    "ConfigurationError",
    "DamageWarning",
    "DataError",
    "FileAccessError",
    "FormatError",
    "InvalidNameError",
    "ItemNotFoundError",
    "LabelEvent",
    "LabtreeError",
    "LossWarning",
    "MissingDependencyError",
    "MissingFileError",
    "Recorder",
    "RecordingWarning",
    "RecordingWriteError",
    "SaveState",
    "SessionError",
    "StepResult",
    "StreamInfo",
    "TrialDataError",
    "TrialTableError",
    "UnknownNameError",
    "UnsafePickleError",
    "UnsupportedTypeError",
    "WorkspaceError",
    "WorkspaceManager",
    "__version__",
    "active_workspace",
    "aligned_windows",
    "batches",
    "create_session",
    "create_workspace",
    "export_nwb",
    "export_spikelab",
    "from_neo",
    "from_pynapple",
    "from_spikelab",
    "get_workspace_manager",
    "import_spikelab",
    "iter_aligned_windows",
    "iter_labeled_windows",
    "iter_target_windows",
    "labeled_windows",
    "load_item",
    "load_session",
    "load_workspace",
    "mea",
    "msw",
    "open_session",
    "open_workspace",
    "pairwise_matrix",
    "pairwise_stack",
    "rate_data",
    "rate_slice_stack",
    "recording",
    "spike_data",
    "spike_slice_stack",
    "spikes",
    "split_sessions_by_stream",
    "step",
    "target_windows",
    "to_neo",
    "to_pynapple",
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
