"""``.session`` on session trees and on one stream's Dataset."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd
import xarray as xr

from labtree.accessors.pipeline_session import PipelineSessionMethods

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labtree.display import Panel
    from labtree.recording.models import StreamInfo
    from labtree.recording.session_streams import Policy


@xr.register_datatree_accessor("session")
class SessionAccessor(PipelineSessionMethods):
    """The content of a session tree, and what can be done with it.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> tree.session.class_names
    ['rest', 'fist', 'pinch']
    """

    def _panels(self) -> "list[Panel]":
        from labtree.msw.msw_panel import session_panel
        from labtree.msw.session_trees import is_msw_session
        from labtree.pipeline.pipeline_panel import pipeline_panel
        from labtree.pipeline.sessions import is_session
        from labtree.recording.recording_panel import nothing_panel, recording_panel

        panels = [pipeline_panel(self._tree)] if is_session(self._tree) else []
        if is_msw_session(self._tree):
            panels.append(session_panel(self._tree))
        if {"streams", "labels"} & {*self._tree.children}:
            panels.append(recording_panel(self._tree))
        return panels or [nothing_panel(self._tree)]

    def __repr__(self) -> str:
        return "\n\n".join(panel.text() for panel in self._panels())

    def _repr_html_(self) -> str:
        return "".join(panel.html() for panel in self._panels())

    @property
    def streams(self) -> dict[str, xr.Dataset]:
        """The streams by name, each a lazy Dataset of data (time, channel) and time in s."""
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
        """Return what is declared about a stream.

        Parameters
        ----------
        name : str
            The stream.

        Returns
        -------
        StreamInfo
            n_channels, fs (Hz), dtype, channel_names, units.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such stream; the message lists those that there are.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> tree.session.stream_info("emg").n_channels
        8
        """
        from labtree.recording.session import stream_info

        return stream_info(self._tree, name)

    def continuous(self, name: str) -> xr.DataArray:
        """Return all samples of a stream, lazily.

        Parameters
        ----------
        name : str
            The stream.

        Returns
        -------
        DataArray
            (time, channel), with ``time`` in s as an index; nothing is read yet.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such stream.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> tree.session.continuous("emg").dims
        ('time', 'channel')
        """
        from labtree.recording.label_trials import continuous
        from labtree.recording.session_streams import stream_of_session

        return continuous(stream_of_session(self._tree, name))

    def trials(self, name: str, pre_s: float = 0, post_s: float = 0) -> list[xr.DataArray]:
        """Return the samples of a stream label by label, lazily.

        Parameters
        ----------
        name : str
            The stream.
        pre_s, post_s : float
            How far a trial reaches before and after its label, in s. If `post_s` is 0, it
            reaches to the next label, or to the end of the stream.

        Returns
        -------
        list of DataArray
            One (time, channel) for each label of class 0 or more, in the order of time,
            with the scalar coordinates ``label_time`` (s), ``class_index`` and
            ``class_name``.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such stream.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> [str(trial.class_name.values) for trial in tree.session.trials("emg")]
        ['rest', 'fist', 'rest', 'pinch']
        """
        from labtree.recording.label_trials import trials
        from labtree.recording.session_streams import stream_of_session

        return trials(stream_of_session(self._tree, name), pre_s, post_s)

    def windows(
        self,
        name: str,
        window_ms: float,
        hop_ms: float,
        classes: Iterable[int] | None = None,
        *,
        dtype: Any = None,
        chunks: Any = None,
        gap_s: float | None = None,
        on_gap: "Policy" = "drop",
        on_mismatch: "Policy" = "raise",
    ) -> xr.DataArray:
        """Return the labeled windows of a stream as one lazy DataArray.

        Parameters
        ----------
        name : str
            The stream.
        window_ms, hop_ms : float
            Length of a window, and from one to the next, in ms; truncated to samples.
        classes : iterable of int, optional
            Classes to keep; all of them by default.
        dtype : dtype, optional
            Of the result; the stream's own by default.
        chunks : optional
            As in `xarray.DataArray.chunk`; the result is then backed by dask.
        gap_s : float, optional
            Longest step between two samples that is no gap, in s; one and a half sample
            periods by default.
        on_gap : {"drop", "warn", "raise"}
            What happens where a window holds a gap: it is left out and noted in the drop
            log, with a warning, or it is an error.
        on_mismatch : {"drop", "warn", "raise"}
            The same for a stream whose rate is more than 1 % off the declared one.

        Returns
        -------
        DataArray
            (window, channel, time), with ``start_time`` (s), ``class_index``,
            ``class_name`` and ``session`` for each window; `labtree.drop_log` says which
            windows were left out.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such stream.

        See Also
        --------
        labtree.labeled_windows : The same for many sessions.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> tree.session.windows("emg", 200, 50, classes={1}).dims
        ('window', 'channel', 'time')
        """
        from labtree.recording.windows import labeled_windows

        return labeled_windows(
            self._tree,
            name,
            window_ms,
            hop_ms,
            classes,
            dtype=dtype,
            chunks=chunks,
            gap_s=gap_s,
            on_gap=on_gap,
            on_mismatch=on_mismatch,
        )

    def aligned_windows(
        self,
        primary_stream_name: str,
        aligned_stream_names: str | Sequence[str],
        window_ms: float,
        hop_ms: float,
        n_alignment_samples: int = 1,
        *,
        dtype: Any = None,
        chunks: Any = None,
        gap_s: float | None = None,
        tolerance_s: float | None = None,
        on_gap: "Policy" = "drop",
        on_mismatch: "Policy" = "raise",
    ) -> xr.Dataset:
        """Return windows of a whole stream, each with the mean of others at its midpoint.

        Parameters
        ----------
        primary_stream_name : str
            The stream that is cut into windows.
        aligned_stream_names : str or sequence of str
            The others.
        window_ms, hop_ms, dtype, chunks, gap_s, on_gap, on_mismatch
            As in :meth:`windows`.
        n_alignment_samples : int
            How many samples of the others the mean goes over.
        tolerance_s : float, optional
            How far the nearest sample of another stream may be from the midpoint, in s;
            one and a half periods of that stream by default.

        Returns
        -------
        Dataset
            A variable for each stream, under its name: the primary one lazily, (window,
            channel, time); the others (window, <name>_channel). ``midpoint`` is in s.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such stream.

        See Also
        --------
        labtree.aligned_windows : The same for many sessions.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> tree.session.aligned_windows("emg", "force", 200, 50)["force"].dims
        ('window', 'force_channel')
        """
        from labtree.recording.aligned import aligned_windows

        return aligned_windows(
            self._tree,
            primary_stream_name,
            aligned_stream_names,
            window_ms,
            hop_ms,
            n_alignment_samples,
            dtype=dtype,
            chunks=chunks,
            gap_s=gap_s,
            tolerance_s=tolerance_s,
            on_gap=on_gap,
            on_mismatch=on_mismatch,
        )

    def target_windows(
        self,
        name: str,
        target_stream_name: str,
        window_ms: float,
        hop_ms: float,
        phases: Iterable[str] | None = None,
        *,
        dtype: Any = None,
        chunks: Any = None,
        gap_s: float | None = None,
        on_gap: "Policy" = "drop",
        on_mismatch: "Policy" = "raise",
    ) -> xr.DataArray:
        """Return windows of a whole stream with the target at the time of their last sample.

        Parameters
        ----------
        name : str
            The stream that is cut into windows.
        window_ms, hop_ms, dtype, chunks, gap_s, on_gap, on_mismatch
            As in :meth:`windows`.
        target_stream_name : str
            A stream of the channels ``target_pct`` and ``phase``.
        phases : iterable of str, optional
            Phases to keep, of rest, ramp_up, hold, ramp_down, recover, done, idle; all but
            done and idle by default.

        Returns
        -------
        DataArray
            (window, channel, time) as in :meth:`windows`, with ``target_pct``, ``phase``
            and ``phase_name`` for each window.

        Raises
        ------
        SessionError
            (a ValueError) The target stream has no samples, or other channels.

        See Also
        --------
        labtree.target_windows : The same for many sessions.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> tree.session.target_windows("emg", "target", 200, 50)
        Traceback (most recent call last):
        ...
        labtree.errors.UnknownNameError: no stream 'target' in ...
        """
        from labtree.recording.targets import target_windows

        return target_windows(
            self._tree,
            name,
            target_stream_name,
            window_ms,
            hop_ms,
            phases,
            dtype=dtype,
            chunks=chunks,
            gap_s=gap_s,
            on_gap=on_gap,
            on_mismatch=on_mismatch,
        )

    def peri_event(
        self,
        name: str,
        times: Any,
        pre_s: float,
        post_s: float,
        *,
        on: str | None = None,
        edge: Literal["start", "end"] | None = None,
        clock: str | None = None,
        until: Any = None,
        gap_s: float | None = None,
        on_gap: "Policy | None" = None,
        on_mismatch: "Policy | None" = None,
    ) -> Any:
        """Return the samples of a stream, or the spikes of units, around events.

        Parameters
        ----------
        name : str
            The stream; ``"units"`` for the spikes of a pipeline session.
        times : array-like of shape (event,), or DataFrame
            Times in s on the session's clock; or a trial table, with `on`.
        pre_s, post_s : float
            How far a window reaches before and after its event, in s.
        on : str, optional
            Of a trial table: a column of seconds, or a state of ``df.msw``.
        edge : {"start", "end"}, optional
            Whether the beginning or the end of the state counts.
        clock : {"trial", "session", "ephys"}, optional
            What the state's times count from; ``"session"`` by default.
        until : str, (str, "start" or "end"), or array-like of shape (event,), optional
            Where each trial ends: a column of seconds, a state (its start, or the edge
            named beside it), or times in s. Windows then reach to `post_s` after it, and
            shorter ones are padded with NaN.
        gap_s : float, optional
            Of a stream: longest step between two samples that is no gap, in s.
        on_gap : {"drop", "warn", "raise"}, optional
            Of a stream: what happens where a window holds a gap; ``"drop"`` by default.
        on_mismatch : {"raise", "warn", "drop"}, optional
            Of a stream: what happens where the time stamps contradict its rate by more
            than 1 %; ``"raise"`` by default.

        Returns
        -------
        DataArray or Dataset
            Of a stream: (event, channel, time), lazy, with ``time`` in s from the event,
            ``event_time``, the columns of a table, and with `until` ``length`` in s. Of
            units: a `labtree.spike_slice_stack`. Events without a window are named by
            `labtree.drop_log`.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such stream, state or column.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> times = tree.session.labels["timestamp"]
        >>> tree.session.peri_event("emg", times, pre_s=0.0, post_s=1.0).dims
        ('event', 'channel', 'time')
        """
        events = _without_none(on=on, edge=edge, clock=clock, until=until)
        if name == "units" and "units" in self._tree.children:
            from labtree.spikes.session_units import session_peri_event

            return session_peri_event(self._tree, times, pre_s, post_s, **events)
        from labtree.recording.label_trials import peri_event
        from labtree.recording.session_streams import stream_of_session

        stream = stream_of_session(self._tree, name, gap_s=gap_s)
        options = _without_none(on_gap=on_gap, on_mismatch=on_mismatch)
        return peri_event(stream, times, pre_s, post_s, **events, **options)

    def plot(
        self,
        names: str | Sequence[str] | None = None,
        *,
        start_s: float | None = None,
        stop_s: float | None = None,
        max_channels: int = 32,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Draw streams below each other, with the spans of the labels behind them.

        Parameters
        ----------
        names : str or sequence of str, optional
            The streams; all that have samples by default.
        start_s, stop_s : float, optional
            The stretch to show, in s from the first sample; all of it by default.
        max_channels : int
            At most this many channels of each stream are shown, evenly spaced.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            Channels stand one below the other, with a bar beside each stream that shows
            its scale.

        Raises
        ------
        DataError
            (a ValueError) The stretch is empty.
        MissingDependencyError
            (an ImportError) matplotlib is not installed.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> axes = tree.session.plot(["emg"], start_s=1, stop_s=3)
        >>> [float(limit) for limit in axes.get_xlim()]
        [1.0, 3.0]
        """
        from labtree.recording.stream_plots import plot_session

        return plot_session(
            self._tree,
            names,
            start_s=start_s,
            stop_s=stop_s,
            max_channels=max_channels,
            ax=ax,
        )

    def close(self) -> None:
        """Close the session's file; nothing can be read from it any more.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> tree.session.close()
        """
        self._tree.root.close()


@xr.register_dataset_accessor("session")
class StreamAccessor:
    """Windows, trials and samples around events of the Dataset of a stream.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> stream = labtree.open_session(record_emg("sessions")).session.streams["emg"]
    >>> stream.session.windows(200, 50).dims
    ('window', 'channel', 'time')
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def _panel(self) -> "Panel":
        from labtree.recording.recording_panel import stream_panel

        return stream_panel(self._dataset)

    def __repr__(self) -> str:
        return self._panel().text()

    def _repr_html_(self) -> str:
        return self._panel().html()

    def windows(
        self,
        window_ms: float,
        hop_ms: float,
        classes: Iterable[int] | None = None,
        *,
        labels: pd.DataFrame | None = None,
        class_names: Sequence[str] = (),
        dtype: Any = None,
        chunks: Any = None,
        gap_s: float | None = None,
        on_gap: "Policy" = "drop",
    ) -> xr.DataArray:
        """Return windows of the whole stream, or those of labels, lazily.

        Parameters
        ----------
        window_ms, hop_ms : float
            Length of a window, and from one to the next, in ms; truncated to samples.
        classes : iterable of int, optional
            Classes to keep, if there are labels; all of them by default.
        labels : DataFrame, optional
            Columns ``timestamp`` (s) and ``class_index``, as ``tree.session.labels``.
        class_names : sequence of str
            Names of the classes 0, 1, ...
        dtype : dtype, optional
            Of the result; the stream's own by default.
        chunks : optional
            As in `xarray.DataArray.chunk`; the result is then backed by dask.
        gap_s : float, optional
            Longest step between two samples that is no gap, in s.
        on_gap : {"drop", "warn", "raise"}
            What happens where a window holds a gap.

        Returns
        -------
        DataArray
            (window, channel, time), with ``start_time`` in s for each window.

        Raises
        ------
        SessionError
            (a ValueError) The stream has no rate, or one that its time stamps contradict.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> stream = tree.session.streams["emg"]
        >>> stream.session.windows(200, 50, labels=tree.session.labels).dims
        ('window', 'channel', 'time')
        """
        from labtree.recording.windows import stream_windows

        return stream_windows(
            self._dataset,
            window_ms,
            hop_ms,
            classes,
            labels,
            class_names,
            dtype=dtype,
            chunks=chunks,
            gap_s=gap_s,
            on_gap=on_gap,
        )

    def trials(
        self,
        labels: pd.DataFrame,
        pre_s: float = 0,
        post_s: float = 0,
        class_names: Sequence[str] = (),
    ) -> list[xr.DataArray]:
        """Return the samples label by label, lazily.

        Parameters
        ----------
        labels : DataFrame
            Columns ``timestamp`` (s) and ``class_index``, as ``tree.session.labels``.
        pre_s, post_s : float
            How far a trial reaches before and after its label, in s. If `post_s` is 0, it
            reaches to the next label, or to the end of the stream.
        class_names : sequence of str
            Names of the classes 0, 1, ...

        Returns
        -------
        list of DataArray
            One (time, channel) for each label.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> stream = tree.session.streams["emg"]
        >>> len(stream.session.trials(tree.session.labels))
        4
        """
        from labtree.recording.label_trials import trials
        from labtree.recording.session_streams import stream_of_dataset

        return trials(stream_of_dataset(self._dataset, labels, class_names), pre_s, post_s)

    def peri_event(
        self,
        times: Any,
        pre_s: float,
        post_s: float,
        *,
        on: str | None = None,
        edge: Literal["start", "end"] | None = None,
        clock: str | None = None,
        until: Any = None,
        gap_s: float | None = None,
        on_gap: "Policy" = "drop",
    ) -> xr.DataArray:
        """Return the samples around events, lazily.

        Parameters
        ----------
        times : array-like of shape (event,), or DataFrame
            Times in s on the stream's clock; or a trial table, with `on`.
        pre_s, post_s : float
            How far a window reaches before and after its event, in s.
        on, edge, clock, until
            Of a trial table, as in ``tree.session.peri_event``.
        gap_s : float, optional
            Longest step between two samples that is no gap, in s.
        on_gap : {"drop", "warn", "raise"}
            What happens where a window holds a gap.

        Returns
        -------
        DataArray
            (event, channel, time), with ``time`` in s from the event; events without a
            window are named by `labtree.drop_log`.

        Raises
        ------
        SessionError
            (a ValueError) The stream has no rate.

        Examples
        --------
        >>> import labtree
        >>> from labtree.testing.recordings import record_emg
        >>> tree = labtree.open_session(record_emg("sessions"))
        >>> stream = tree.session.streams["emg"]
        >>> times = tree.session.labels["timestamp"]
        >>> stream.session.peri_event(times, pre_s=0.0, post_s=1.0).sizes["time"]
        1000
        """
        from labtree.recording.label_trials import peri_event
        from labtree.recording.session_streams import stream_of_dataset

        events = _without_none(on=on, edge=edge, clock=clock, until=until)
        stream = stream_of_dataset(self._dataset, gap_s=gap_s)
        return peri_event(stream, times, pre_s, post_s, **events, on_gap=on_gap)


# Windows have a coordinate called session, which an accessor of DataArrays would hide.
class SamplesAccessor(StreamAccessor):
    """Windows, trials and samples around events of an array: ``labtree.session(array)``.

    The array is over time, or over time and channel, with the coordinate ``time`` in s and
    the rate in Hz as ``attrs["fs"]``, as ``tree.session.continuous(name)`` gives it.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> emg = labtree.open_session(record_emg("sessions")).session.continuous("emg")
    >>> labtree.session(abs(emg).assign_attrs(fs=emg.fs)).windows(200, 50).dims
    ('window', 'channel', 'time')
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def _dataset(self) -> xr.Dataset:  # type: ignore[override]
        array = self._array
        coords = array.drop_vars("data", errors="ignore").coords
        rate = {key: array.attrs[key] for key in ("fs",) if key in array.attrs}
        return xr.Dataset({"data": array.variable}, coords, rate)


@overload
def session(tree: xr.DataTree) -> SessionAccessor: ...
@overload
def session(tree: xr.Dataset | xr.DataArray) -> StreamAccessor: ...
def session(
    tree: xr.DataTree | xr.Dataset | xr.DataArray,
) -> SessionAccessor | StreamAccessor:
    """Return ``tree.session``, with its type known to editors and type checkers.

    A DataArray has no ``.session``, as windows have a coordinate of that name; this function
    gives its windows, trials and peri_event.

    Parameters
    ----------
    tree : DataTree, Dataset or DataArray
        A session, or one stream of it.

    Returns
    -------
    accessor
        The same as ``tree.session``.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_session("rec1")
    >>> labtree.session(tree).unit_count
    0
    """
    if isinstance(tree, xr.DataArray):
        return SamplesAccessor(tree)
    accessor: SessionAccessor | StreamAccessor = tree.session
    return accessor


def _without_none(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
