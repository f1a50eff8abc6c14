"""The ``.session`` accessor: a session tree, or one stream's Dataset, and what it can do."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from labtree.accessors.pipeline_session import PipelineSessionMethods

if TYPE_CHECKING:
    from labtree.display import Panel
    from labtree.recording.models import StreamInfo

__all__ = ["SessionAccessor", "StreamAccessor"]


@xr.register_datatree_accessor("session")
class SessionAccessor(PipelineSessionMethods):
    """What a session tree can do; its repr says what is in this one.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> tree.session.class_names
    ['rest', 'fist', 'pinch']
    """

    def _panels(self) -> "list[Panel]":
        from labtree.pipeline.pipeline_panel import pipeline_panel
        from labtree.pipeline.sessions import is_session
        from labtree.recording.recording_panel import recording_panel

        is_pipeline = is_session(self._tree)
        panels = [pipeline_panel(self._tree)] if is_pipeline else []
        if not is_pipeline or "streams" in self._tree.children:
            panels.append(recording_panel(self._tree))
        return panels

    def __repr__(self) -> str:
        return "\n\n".join(panel.text() for panel in self._panels())

    def _repr_html_(self) -> str:
        return "".join(panel.html() for panel in self._panels())

    @property
    def streams(self) -> dict[str, xr.Dataset]:
        """The streams by name, each a lazy Dataset of data (time, channel) and time."""
        from labtree.recording.session import streams

        return streams(self._tree)

    @property
    def labels(self) -> pd.DataFrame:
        """The labels by time: timestamp (s), class_index, class_name."""
        from labtree.recording.session import labels_frame

        return labels_frame(self._tree)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, ...; empty if the session has none."""
        from labtree.recording.session import class_names

        return class_names(self._tree)

    def stream_info(self, name: str) -> "StreamInfo":
        """Return channels, rate, dtype, names and units of a stream."""
        from labtree.recording.session import stream_info

        return stream_info(self._tree, name)

    def continuous(self, name: str) -> xr.DataArray:
        """Return a stream's samples (time, channel), lazy, with ``time`` as an index."""
        from labtree.recording.label_trials import continuous
        from labtree.recording.session import stream

        return continuous(stream(self._tree, name))

    def trials(self, name: str, pre_s: float = 0, post_s: float = 0) -> list[xr.DataArray]:
        """Return one (time, channel) DataArray per label."""
        from labtree.recording.label_trials import trials
        from labtree.recording.session_streams import stream_of_session

        return trials(stream_of_session(self._tree, name), pre_s, post_s)

    def windows(
        self,
        name: str,
        window_ms: float,
        hop_ms: float,
        classes: Iterable[int] | None = None,
        **options: Any,
    ) -> xr.DataArray:
        """Return labelled windows; options as in `labtree.labeled_windows`."""
        from labtree.recording.windows import labeled_windows

        return labeled_windows(self._tree, name, window_ms, hop_ms, classes, **options)

    def aligned_windows(
        self,
        primary_stream_name: str,
        aligned_stream_names: str | Sequence[str],
        window_ms: float,
        hop_ms: float,
        n_alignment_samples: int = 1,
        **options: Any,
    ) -> xr.Dataset:
        """Return windows with other streams; options as in `labtree.aligned_windows`."""
        from labtree.recording.aligned import aligned_windows

        return aligned_windows(
            self._tree,
            primary_stream_name,
            aligned_stream_names,
            window_ms,
            hop_ms,
            n_alignment_samples,
            **options,
        )

    def target_windows(
        self,
        name: str,
        window_ms: float,
        hop_ms: float,
        target_stream_name: str = "target",
        **options: Any,
    ) -> xr.DataArray:
        """Return windows with their targets; options as in `labtree.target_windows`."""
        from labtree.recording.targets import target_windows

        return target_windows(
            self._tree, name, window_ms, hop_ms, target_stream_name, **options
        )

    def peri_event(
        self, name: str, times: Any, pre_s: float, post_s: float, **options: Any
    ) -> Any:
        """Return (event, channel, time) around times; of "units" their spikes, a stack.

        See `labtree.recording.label_trials.peri_event` and `labtree.spikes.peri_event`.
        """
        if name == "units" and "units" in self._tree.children:
            from labtree.spikes.sessions import session_peri_event

            return session_peri_event(self._tree, times, pre_s, post_s, **options)
        from labtree.recording.label_trials import peri_event
        from labtree.recording.session_streams import stream_of_session

        gap_s = options.pop("gap_s", None)
        stream = stream_of_session(self._tree, name, gap_s=gap_s)
        return peri_event(stream, times, pre_s, post_s, **options)

    def plot(self, names: Sequence[str] | None = None, **options: Any) -> Any:
        """Plot streams with the spans of labels; options as in `labtree.recording.plots`."""
        from labtree.recording.plots import plot_session

        return plot_session(self._tree, names, **options)

    def close(self) -> None:
        """Let go of the session's file; nothing is read from it any more."""
        self._tree.root.close()


@xr.register_dataset_accessor("session")
class StreamAccessor:
    """What one stream's Dataset can do: windows, trials, peri_event."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        from labtree.recording.recording_panel import stream_panel

        return stream_panel(self._dataset).text()

    def _repr_html_(self) -> str:
        from labtree.recording.recording_panel import stream_panel

        return stream_panel(self._dataset).html()

    def windows(
        self,
        window_ms: float,
        hop_ms: float,
        classes: Iterable[int] | None = None,
        *,
        labels: pd.DataFrame | None = None,
        class_names: Sequence[str] = (),
        **options: Any,
    ) -> xr.DataArray:
        """Return windows of the whole stream, or of ``labels`` (timestamp, class_index)."""
        from labtree.recording.windows import stream_windows

        return stream_windows(
            self._dataset, window_ms, hop_ms, classes, labels, class_names, **options
        )

    def trials(
        self,
        labels: pd.DataFrame,
        pre_s: float = 0,
        post_s: float = 0,
        class_names: Sequence[str] = (),
    ) -> list[xr.DataArray]:
        """Return one (time, channel) DataArray per label (timestamp, class_index)."""
        from labtree.recording.label_trials import trials
        from labtree.recording.session_streams import stream_of_dataset

        return trials(stream_of_dataset(self._dataset, labels, class_names), pre_s, post_s)

    def peri_event(
        self, times: Any, pre_s: float, post_s: float, **options: Any
    ) -> xr.DataArray:
        """Return (event, channel, time) around times; see `labtree.recording.label_trials`."""
        from labtree.recording.label_trials import peri_event
        from labtree.recording.session_streams import stream_of_dataset

        stream = stream_of_dataset(self._dataset, gap_s=options.pop("gap_s", None))
        return peri_event(stream, times, pre_s, post_s, **options)
