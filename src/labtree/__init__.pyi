"""The public names of labtree: the one list of them."""

from labtree import (
    clocks as clocks,
    errors as errors,
    mea as mea,
    msw as msw,
    recording as recording,
    spikes as spikes,
    testing as testing,
)
from labtree._version import (
    __version__ as __version__,
)
from labtree.accessors.session import (
    session as session,
)
from labtree.accessors.workspace import (
    ws as ws,
)
from labtree.errors import (
    AlreadyExistsError as AlreadyExistsError,
    BusyFileError as BusyFileError,
    CheckpointError as CheckpointError,
    ClosedError as ClosedError,
    ConfigurationError as ConfigurationError,
    DamageWarning as DamageWarning,
    DataError as DataError,
    FileAccessError as FileAccessError,
    FormatError as FormatError,
    InvalidNameError as InvalidNameError,
    ItemNotFoundError as ItemNotFoundError,
    LabtreeError as LabtreeError,
    LabtreeWarning as LabtreeWarning,
    LossWarning as LossWarning,
    MissingDependencyError as MissingDependencyError,
    MissingFileError as MissingFileError,
    NotWritableError as NotWritableError,
    RecordingWarning as RecordingWarning,
    RecordingWriteError as RecordingWriteError,
    SessionError as SessionError,
    SessionExistsError as SessionExistsError,
    TrialDataError as TrialDataError,
    TrialTableError as TrialTableError,
    UnknownNameError as UnknownNameError,
    UnsafePickleError as UnsafePickleError,
    UnsavedWarning as UnsavedWarning,
    UnsupportedTypeError as UnsupportedTypeError,
    WorkspaceError as WorkspaceError,
)
from labtree.interop.mne import (
    from_mne_epochs as from_mne_epochs,
    from_mne_raw as from_mne_raw,
    to_mne_epochs as to_mne_epochs,
    to_mne_raw as to_mne_raw,
)
from labtree.interop.neo import (
    from_neo as from_neo,
    to_neo as to_neo,
)
from labtree.interop.nwb import (
    export_nwb as export_nwb,
    import_nwb as import_nwb,
)
from labtree.interop.phy import (
    import_phy as import_phy,
)
from labtree.interop.pynapple import (
    from_pynapple as from_pynapple,
    to_pynapple as to_pynapple,
)
from labtree.interop.spikeinterface import (
    from_spikeinterface as from_spikeinterface,
)
from labtree.interop.spikelab import (
    export_spikelab as export_spikelab,
    from_spikelab as from_spikelab,
    import_spikelab as import_spikelab,
)
from labtree.interop.xdf import (
    import_xdf as import_xdf,
)
from labtree.objects.pairwise import (
    pairwise_matrix as pairwise_matrix,
    pairwise_stack as pairwise_stack,
)
from labtree.objects.rate_data import (
    rate_data as rate_data,
)
from labtree.objects.rate_slice_stack import (
    rate_slice_stack as rate_slice_stack,
)
from labtree.objects.registry import (
    register_kind as register_kind,
)
from labtree.objects.spike_data import (
    spike_data as spike_data,
)
from labtree.objects.spike_slice_stack import (
    spike_slice_stack as spike_slice_stack,
)
from labtree.opening import (
    load_session as load_session,
    open as open,
    open_session as open_session,
)
from labtree.pipeline.sessions import (
    SaveState as SaveState,
    create_session as create_session,
)
from labtree.pipeline.steps import (
    StepResult as StepResult,
    step as step,
)
from labtree.recording.aligned import (
    aligned_windows as aligned_windows,
    iter_aligned_windows as iter_aligned_windows,
)
from labtree.recording.window_batches import (
    batches as batches,
    torch_dataset as torch_dataset,
)
from labtree.recording.stream_clock import (
    dejitter as dejitter,
)
from labtree.recording.models import (
    LabelEvent as LabelEvent,
    StreamInfo as StreamInfo,
)
from labtree.recording.recorder import (
    Recorder as Recorder,
)
from labtree.recording.repair import (
    recover as recover,
)
from labtree.recording.session import (
    split_sessions_by_stream as split_sessions_by_stream,
)
from labtree.recording.session_streams import (
    drop_log as drop_log,
)
from labtree.recording.targets import (
    iter_target_windows as iter_target_windows,
    target_windows as target_windows,
)
from labtree.recording.windows import (
    iter_labeled_windows as iter_labeled_windows,
    labeled_windows as labeled_windows,
)
from labtree.workspace.active import (
    active_workspace as active_workspace,
    store as store,
    use_workspace as use_workspace,
)
from labtree.workspace.workspace_files import (
    load_item as load_item,
    load_workspace as load_workspace,
    open_workspace as open_workspace,
)
from labtree.workspace.manager import (
    WorkspaceManager as WorkspaceManager,
    get_workspace_manager as get_workspace_manager,
)
from labtree.workspace.shared import (
    delete_shared as delete_shared,
    open_shared as open_shared,
    store_shared as store_shared,
)
from labtree.workspace.operations import (
    create_workspace as create_workspace,
)
