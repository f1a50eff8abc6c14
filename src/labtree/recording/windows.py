"""Windows of a stream as DataArrays, lazily: which samples, of which class, and why not.

On clean data they are MyoGestic's, sample for sample: ``int(window_ms * fs / 1000)``
samples, one every ``max(1, int(hop_ms * fs / 1000))``, from the sample nearest to a label
until the one nearest to the next. What happens on other data is said in
`labtree.recording.timeline` and in `labeled_windows`.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import FormatError, LabtreeError, SessionError
from labtree.recording.errors import RecordingWarning
from labtree.recording.session import class_name, labels_frame, open_session, stream
from labtree.recording.timeline import Timeline

__all__ = [
    "Policy",
    "iter_labeled_windows",
    "labeled_windows",
    "session_source",
    "stream_source",
    "stream_windows",
    "window_samples",
]

Policy = Literal["raise", "warn", "drop"]
Sessions = str | Path | xr.DataTree | Iterable[str | Path | xr.DataTree]

_log = logging.getLogger("labtree.recording")


@dataclass
class Source:
    """One stream of one session, ready to have windows cut out of it."""

    session: str
    dataset: xr.Dataset
    timeline: Timeline
    labels: pd.DataFrame
    class_names: list[str]
    tree: xr.DataTree | None = None

    @property
    def fs(self) -> float:
        """Declared rate in Hz."""
        return self.timeline.fs


@dataclass
class Drops:
    """What was left out, and why; reported according to the caller's policy."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, session: str, start_time: float, class_index: int, reason: str) -> None:
        """Note one window, label or session."""
        self.rows.append(
            {
                "session": session,
                "start_time": start_time,
                "class_index": class_index,
                "reason": reason,
            }
        )

    def frame(self) -> pd.DataFrame:
        """Return a DataFrame of session, start_time, class_index, reason."""
        columns = ["session", "start_time", "class_index", "reason"]
        return pd.DataFrame(self.rows, columns=columns)


def check_policy(name: str, value: str) -> None:
    """Refuse a value that is none of raise, warn, drop."""
    if value not in ("raise", "warn", "drop"):
        raise SessionError(f'{name} is "raise", "warn" or "drop", found {value!r}')


def window_samples(milliseconds: float, fs: float) -> int:
    """Return the samples in so many milliseconds: ``int(milliseconds * fs / 1000)``."""
    return int(milliseconds * fs / 1000)


def stream_source(
    dataset: xr.Dataset,
    labels: pd.DataFrame | None = None,
    class_names: Sequence[str] = (),
    *,
    session: str = "",
    gap_s: float | None = None,
    tree: xr.DataTree | None = None,
) -> Source:
    """Return a stream's Dataset as a source of windows; its time stamps are read here."""
    where = session or "the stream"
    for name, dims in (("data", ("time", "channel")), ("time", ("time",))):
        if name not in dataset.variables or dataset[name].dims != dims:
            raise SessionError(
                f"{where}: expected a stream's Dataset with data (time, channel) and time,"
                f" found {dict(dataset.sizes)} with {list(dataset.variables)}"
            )
    if "fs" not in dataset.attrs:
        raise SessionError(f'{where}: no sampling rate; write ds.attrs["fs"] = ... in Hz')
    times = np.asarray(dataset["time"].values, float)
    return Source(
        session,
        dataset,
        Timeline(times, float(dataset.attrs["fs"]), gap_s),
        pd.DataFrame({"timestamp": [], "class_index": []}) if labels is None else labels,
        list(class_names),
        tree,
    )


def open_sources(
    sessions: Sessions,
    stream_names: Sequence[str],
    *,
    gap_s: float | None,
    on_mismatch: Policy,
    drops: Drops,
    dtype: Any = None,
) -> list[list[Source]]:
    """Open streams in every session, all alike; what cannot take part is reported.

    Returns the sources of the first stream, those of the second, and so on, in the order
    of the sessions. The first stream is the one that is cut, and needs a rate.

    Raises
    ------
    SessionError
        With ``on_mismatch="raise"``: a message that names every session which does not
        open, has no such stream, has another rate than it declares, or differs from the
        first in channels, rate, type, units or classes.
    """
    check_policy("on_mismatch", on_mismatch)
    single = isinstance(sessions, str | Path | xr.DataTree)
    listed: list[Any] = [sessions] if single else list(sessions)  # type: ignore[arg-type]
    together: list[list[Source]] = []
    problems: list[tuple[str, Exception]] = []
    for item in listed:
        own = None
        is_tree = isinstance(item, xr.DataTree)
        where = str(item.attrs.get("session_path", "")) if is_tree else str(item)
        try:
            tree = item if is_tree else (own := open_session(item))
            labels, names = labels_frame(tree), tree.attrs.get("class_names", [])
            sources = []
            for number, name in enumerate(stream_names):
                source = stream_source(
                    stream(tree, name), labels, names, session=where, gap_s=gap_s, tree=own
                )
                problem = _rate_problem(source, name, needed=number == 0)
                if problem is None and together:
                    wanted = dtype if number == 0 else None
                    problem = _difference(together[0][number], source, wanted)
                if problem:
                    raise SessionError(f"{where or 'the session'}: stream {name!r} {problem}")
                sources.append(source)
            together.append(sources)
        except (LabtreeError, OSError) as error:
            if own is not None:
                own.close()
            problems.append((where, error))
    if problems:
        _report_sessions(problems, len(listed), on_mismatch, drops)
    if not together:
        raise SessionError("no session is left to cut windows from")
    return [list(group) for group in zip(*together, strict=True)]


def _report_sessions(
    problems: list[tuple[str, Exception]], count: int, policy: Policy, drops: Drops
) -> None:
    if policy == "raise" and count == 1:
        raise problems[0][1]
    lines = "\n".join(f"  {error}" for _, error in problems)
    if policy == "raise":
        raise SessionError(
            f"{len(problems)} of {count} sessions cannot take part:\n{lines}\nLeave them out,"
            ' or write on_mismatch="warn"'
        ) from problems[0][1]
    text = f"{len(problems)} of {count} sessions are left out:\n{lines}"
    if policy == "warn":
        warnings.warn(text, RecordingWarning, stacklevel=4)
    _log.warning(text)
    for name, error in problems:
        drops.add(name, float("nan"), -1, f"session left out: {error}")


def _rate_problem(source: Source, stream_name: str, *, needed: bool) -> str | None:
    if source.fs <= 0 and needed:
        return (
            "has no sampling rate, so there are no windows of it; cut around its times with"
            f" tree.session.peri_event(other, tree.session.streams[{stream_name!r}].time, ...)"
        )
    return source.timeline.rate_problem()


def _difference(first: Source, other: Source, dtype: Any) -> str | None:
    """Return in what a session differs from the first one, or None."""

    def names(source: Source) -> list[str] | None:
        dataset = source.dataset
        return dataset["channel"].values.tolist() if "channel" in dataset.coords else None

    def data(source: Source) -> xr.DataArray:
        return source.dataset["data"]

    pairs = [
        ("channels", first.dataset.sizes["channel"], other.dataset.sizes["channel"]),
        ("Hz", first.fs, other.fs),
        ("channel names", names(first), names(other)),
        ("units", data(first).attrs.get("units"), data(other).attrs.get("units")),
    ]
    if dtype is None:
        pairs.append(("dtype", data(first).dtype.name, data(other).dtype.name))
    shared = min(len(first.class_names), len(other.class_names))
    pairs.append(("class names", first.class_names[:shared], other.class_names[:shared]))
    for what, expected, found in pairs:
        optional = what in ("channel names", "units") and None in (expected, found)
        if expected != found and not optional:
            return f"has {what} {found}, the first session {first.session} has {expected}"
    return None


@dataclass
class WindowIndex:
    """Which windows there are: per window its source, first row and class."""

    source: np.ndarray
    start: np.ndarray
    class_index: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def label_segments(source: Source, drops: Drops) -> list[tuple[int, int, int]]:
    """Return (first row, row behind the last, class) of every label, by time.

    A label that lies behind the stream has no samples, and is noted.
    """
    labels = source.labels.sort_values("timestamp", kind="stable")
    moments = labels["timestamp"].to_numpy(float)
    classes = labels["class_index"].to_numpy(np.int64)
    if not np.isfinite(moments).all():
        raise FormatError(
            f"{source.session}: label {int(np.argmin(np.isfinite(moments)))} has the time"
            " nan or inf; nothing says where its class, or the one before, ends"
        )
    n = len(source.timeline.times)
    at = source.timeline.locate(moments)
    late = source.timeline.is_late(moments)
    ends = np.append(at, n)[1:]
    segments = []
    for start, end, index, moment, behind in zip(at, ends, classes, moments, late, strict=True):
        if index >= 0 and behind:
            drops.add(source.session, moment, int(index), "label is behind the stream's end")
        elif index >= 0:
            segments.append((int(start), int(end), int(index)))
    return segments


def label_starts(
    source: Source, win: int, hop: int, classes: set[int] | None, drops: Drops
) -> tuple[np.ndarray, np.ndarray]:
    """Return first rows and classes of the labelled windows of one source, gaps included."""
    starts, indices = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, end, index in label_segments(source, drops):
        if classes is not None and index not in classes:
            continue
        found = np.arange(first, end - win + 1, hop)
        if len(found) == 0:
            drops.add(
                source.session,
                float(source.timeline.times[first]) if first < end else float("nan"),
                index,
                f"label holds {max(end - first, 0)} samples, fewer than the {win} of a window",
            )
        starts.append(found)
        indices.append(np.full(len(found), index))
    return np.concatenate(starts), np.concatenate(indices)


def drop_broken(
    source: Source,
    starts: np.ndarray,
    classes: np.ndarray,
    win: int,
    on_gap: Policy,
    drops: Drops,
) -> np.ndarray:
    """Return which windows are of one piece; note, warn of or refuse the others."""
    unusable, gap = source.timeline.breaks(starts, win)
    broken = unusable | gap
    if not broken.any():
        return np.ones(len(starts), bool)
    times = source.timeline.times
    count = int(broken.sum())
    text = (
        f"{source.session or 'the stream'}: {count} of {len(starts)} windows hold a gap, or a"
        " sample whose time stamp is not finite or goes backward; the first one starts at"
        f" {times[starts[broken][0]]:.9g} s"
    )
    if on_gap == "raise":
        raise SessionError(f'{text}; write on_gap="drop" to go on without them')
    if on_gap == "warn" or count == len(starts):
        text += "; if the time stamps jitter, gap_s says how long a step may be"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    reasons = np.where(unusable, "time stamp not finite or out of order", "gap")
    for index in np.flatnonzero(broken):
        drops.add(
            source.session,
            float(times[starts[index]]),
            int(classes[index]),
            str(reasons[index]),
        )
    kept: np.ndarray = ~broken
    return kept


def lengths(source: Source, window_ms: float, hop_ms: float) -> tuple[int, int]:
    """Return window and hop in samples; a window without a sample is an error."""
    win, hop = window_samples(window_ms, source.fs), window_samples(hop_ms, source.fs)
    if win < 1 or hop_ms <= 0:
        raise SessionError(
            f"window_ms={window_ms!r}, hop_ms={hop_ms!r} at {source.fs:g} Hz are {win} and"
            f" {hop} samples; a window takes at least {1000 / source.fs:g} ms,"
            " a hop more than 0"
        )
    return win, max(1, hop)


def class_set(classes: Iterable[int] | None) -> set[int] | None:
    """Return the wanted classes as a set, None for all of them."""
    return None if classes is None else {int(index) for index in classes}


def labeled_windows(
    paths: Sessions,
    stream_name: str,
    window_ms: float,
    hop_ms: float,
    classes: Iterable[int] | None = None,
    *,
    dtype: Any = None,
    chunks: Any = None,
    gap_s: float | None = None,
    on_gap: Policy = "drop",
    on_mismatch: Policy = "raise",
) -> xr.DataArray:
    """Return every labelled window of some sessions as one lazy DataArray.

    Labels and time stamps are read now, samples when the result is indexed, and then only
    the chunks that it takes.

    Parameters
    ----------
    paths
        Sessions: paths, or trees that are open.
    stream_name
        The stream.
    window_ms, hop_ms
        Length of a window, and from one to the next, in ms; truncated to whole samples.
    classes
        Classes to keep; None for all, an empty set for none.
    dtype
        Of the result; the stream's own if None.
    chunks
        As in `xarray.DataArray.chunk`, such as ``{"window": 256}``; the result is then
        backed by dask.
    gap_s
        Longest step between two samples that is no gap, in s; one and a half sample
        periods if None.
    on_gap
        What happens to a window that holds a gap, or a sample whose time stamp is not
        finite or goes backward. It is left out in any case: ``"drop"`` says so in the drop
        log, ``"warn"`` also in a warning, ``"raise"`` in an error. That a session has no
        other windows is always a warning.
    on_mismatch
        The same for a session that does not open, lacks the stream, has a rate more than
        1 % off the declared one, or differs from the first session in channels, channel
        names, rate, type, units or class names.

    Returns
    -------
    DataArray
        (window, channel, time), with coordinates ``time`` in s from the window's start,
        and per window ``start_time`` in s on the session's clock, ``class_index``,
        ``class_name`` and ``session``. `labtree.recording.drop_log` tells what is missing.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50, classes={1})
    >>> windows.dims, set(windows.class_name.values.tolist())
    (('window', 'channel', 'time'), {'fist'})
    """
    check_policy("on_gap", on_gap)
    drops = Drops()
    (sources,) = open_sources(
        paths, [stream_name], gap_s=gap_s, on_mismatch=on_mismatch, drops=drops, dtype=dtype
    )
    try:
        return windows_of_sources(
            sources, window_ms, hop_ms, class_set(classes), drops, on_gap, dtype, chunks
        )
    except BaseException:
        close_sources(sources)
        raise


def windows_of_sources(
    sources: list[Source],
    window_ms: float,
    hop_ms: float,
    classes: set[int] | None,
    drops: Drops,
    on_gap: Policy,
    dtype: Any = None,
    chunks: Any = None,
    *,
    whole: bool = False,
) -> xr.DataArray:
    """Return the windows of sources that are alike; ``whole``: of all samples, no labels."""
    from labtree.recording.window_arrays import window_array

    win, hop = lengths(sources[0], window_ms, hop_ms)
    parts = []
    for number, source in enumerate(sources):
        if whole:
            starts = np.arange(0, len(source.timeline.times) - win + 1, hop)
            indices = np.full(len(starts), -1)
        else:
            starts, indices = label_starts(source, win, hop, classes, drops)
        keep = drop_broken(source, starts, indices, win, on_gap, drops)
        parts.append((np.full(int(keep.sum()), number), starts[keep], indices[keep]))
    index = WindowIndex(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return window_array(sources, index, win, drops, dtype, chunks)


def class_coordinate(sources: list[Source], index: WindowIndex) -> np.ndarray:
    """Return the class name of every window."""
    names = np.empty(len(index), object)
    for number, source in enumerate(sources):
        mine = index.source == number
        for value in np.unique(index.class_index[mine]):
            names[mine & (index.class_index == value)] = class_name(
                int(value), source.class_names
            )
    return names


def close_sources(sources: Iterable[Source]) -> None:
    """Close the sessions that were opened for these sources."""
    for source in sources:
        if source.tree is not None:
            source.tree.close()


def iter_labeled_windows(
    paths: Sessions,
    stream_name: str,
    window_ms: float,
    hop_ms: float,
    classes: Iterable[int] | None = None,
    **options: Any,
) -> Iterator[xr.DataArray]:
    """Yield the windows of `labeled_windows` one by one, as (channel, time) in memory.

    Every window has its own samples, so that changing one changes no other.

    Parameters
    ----------
    paths, stream_name, window_ms, hop_ms, classes, **options
        As in `labeled_windows`. What is left out is also logged by ``labtree.recording``.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> path = record_emg("sessions")
    >>> window = next(labtree.iter_labeled_windows(path, "emg", 200, 50))
    >>> window.dims, window.class_name.item()
    (('channel', 'time'), 'rest')
    """
    from labtree.recording.window_arrays import iterate

    windows = labeled_windows(paths, stream_name, window_ms, hop_ms, classes, **options)
    return iterate(windows)


def session_source(tree: xr.DataTree, name: str, gap_s: float | None = None) -> Source:
    """Return one stream of an open session as a source of trials and windows."""
    return stream_source(
        stream(tree, name),
        labels_frame(tree),
        tree.attrs.get("class_names", []),
        session=str(tree.attrs.get("session_path", "")),
        gap_s=gap_s,
    )


def stream_windows(
    dataset: xr.Dataset,
    window_ms: float,
    hop_ms: float,
    classes: Iterable[int] | None = None,
    labels: pd.DataFrame | None = None,
    class_names: Sequence[str] = (),
    *,
    dtype: Any = None,
    chunks: Any = None,
    gap_s: float | None = None,
    on_gap: Policy = "drop",
) -> xr.DataArray:
    """Return windows of one stream's Dataset: of ``labels``, or of all of it without any."""
    check_policy("on_gap", on_gap)
    if labels is None and classes is not None:
        raise SessionError("classes are chosen among labels; give labels=tree.session.labels")
    source = stream_source(dataset, labels, class_names, gap_s=gap_s)
    if problem := _rate_problem(source, "this", needed=True):
        raise SessionError(f"the stream {problem}")
    wanted = class_set(classes)
    return windows_of_sources(
        [source],
        window_ms,
        hop_ms,
        wanted,
        Drops(),
        on_gap,
        dtype,
        chunks,
        whole=labels is None,
    )
