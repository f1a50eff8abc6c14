"""Recordings: a recorder that loses nothing, sessions as lazy trees, windows of them."""

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
    SessionSplit as SessionSplit,
    open_recording as open_recording,
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
