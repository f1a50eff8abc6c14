"""Streams that windows are cut from: opened, compared, and what of them is left out."""

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import LabtreeError, RecordingWarning, SessionError, warn
from labtree.recording.session import labels_frame, open_recording
from labtree.recording.session import stream as stream_of_tree
from labtree.recording.timeline import Timeline
from labtree.storage.arguments import one_of, positive
from labtree.storage.lazy import LazyArray, as_lazy

Policy = Literal["raise", "warn", "drop"]
POLICIES = get_args(Policy)
Sessions = str | Path | xr.DataTree | Iterable[str | Path | xr.DataTree]

_log = logging.getLogger("labtree.recording")


@dataclass
class StreamOfSession:
    """One stream of one session, ready to have windows cut out of it."""

    session: str
    dataset: xr.Dataset
    timeline: Timeline
    labels: pd.DataFrame
    class_names: list[str]
    tree: xr.DataTree | None = None
    conditioning: str | None = None

    @property
    def fs(self) -> float:
        """Declared rate in Hz."""
        return self.timeline.fs

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.session or "the stream"

    def labels_by_time(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the time (s) and the class of each label, in order of time."""
        labels = self.labels.sort_values("timestamp", kind="stable")
        return labels["timestamp"].to_numpy(float), labels["class_index"].to_numpy(np.int64)


@dataclass
class DropLog:
    """What was left out, and why; reported according to the caller's policy."""

    rows: list[tuple[str, float, int, str]] = field(default_factory=list)

    def add(self, session: str, start_time: float, class_index: int, reason: str) -> None:
        """Note one window, label or session."""
        self.rows.append((session, start_time, class_index, reason))

    def add_all(
        self,
        stream: "StreamOfSession",
        starts: np.ndarray,
        reasons: np.ndarray,
        classes: np.ndarray | None = None,
    ) -> None:
        """Note the windows, by their first rows, that have a reason other than ""."""
        for at in np.flatnonzero(reasons != ""):
            moment = float(stream.timeline.times[starts[at]])
            index = -1 if classes is None else int(classes[at])
            self.add(stream.session, moment, index, str(reasons[at]))

    def text(self) -> str:
        """Return JSON of session, start_time, class_index and reason, for `drop_log`."""
        columns = ["session", "start_time", "class_index", "reason"]
        frame = pd.DataFrame(self.rows, columns=columns)
        return frame.to_json(orient="split", index=False, double_precision=15)


class _OneChannel(LazyArray):
    """The samples of one channel as the column of a matrix, read when they are indexed."""

    def __init__(self, variable: xr.Variable):
        self.variable, self.shape, self.dtype = variable, (*variable.shape, 1), variable.dtype

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the part that `key` selects."""
        rows, channels = key
        values: np.ndarray = self.variable[rows].values[..., np.newaxis][..., channels]
        return values


def is_stream(dataset: xr.Dataset) -> bool:
    """Whether windows can be cut out of a Dataset: samples over time and channel."""
    return all(
        name in dataset.variables and dataset[name].dims == dims
        for name, dims in (("data", ("time", "channel")), ("time", ("time",)))
    )


def with_channels(dataset: xr.Dataset) -> xr.Dataset:
    """Return series of other programs as streams: ``data`` over time and channel.

    One value for each time is one channel; a second dimension of another name, such as
    ``axis``, is called ``channel``.
    """
    data = dataset.variables.get("data")
    if data is None or data.dims[:1] != ("time",) or "channel" in dataset.variables:
        return dataset
    if data.ndim == 1:
        column = xr.Variable(("time", "channel"), as_lazy(_OneChannel(data)), data.attrs)
        return dataset.assign(data=column)
    if data.ndim == 2 and data.dims[1] != "channel" and "channel" not in dataset.dims:
        return dataset.rename({data.dims[1]: "channel"})
    return dataset


def stream_of_dataset(
    dataset: xr.Dataset,
    labels: pd.DataFrame | None = None,
    class_names: Sequence[str] = (),
    *,
    session: str = "",
    gap_s: float | None = None,
    tree: xr.DataTree | None = None,
    conditioning: str | None = None,
) -> StreamOfSession:
    """Return a stream's Dataset ready to be cut; its time stamps are read here."""
    where = session or "the stream"
    dataset = with_channels(dataset)
    if not is_stream(dataset):
        raise SessionError(
            f"{where}: expected a stream's Dataset with data (time, channel) and time (time),"
            f" found {dict(dataset.sizes)} with {list(dataset.variables)}; write"
            ' xr.Dataset({"data": (("time", "channel"), samples)}, {"time": seconds},'
            ' {"fs": rate_hz})'
        )
    if "fs" not in dataset.attrs:
        steps = np.diff(np.asarray(dataset["time"].values[:10_000], float))
        step = float(np.median(steps)) if steps.size else 0.0
        rate = f"{1 / step:.6g}  # Hz, as the time stamps have it" if step > 0 else "...  # Hz"
        raise SessionError(f'{where}: no sampling rate; write ds.attrs["fs"] = {rate}')
    if gap_s is not None:
        gap_s = positive("gap_s", gap_s, SessionError)
    if labels is not None and not isinstance(labels, pd.DataFrame):
        raise SessionError(
            f"labels are a DataFrame, found {type(labels).__name__}; write"
            ' pd.DataFrame({"timestamp": seconds, "class_index": numbers})'
        )
    if labels is not None and not {"timestamp", "class_index"} <= set(labels.columns):
        raise SessionError(
            f"labels have the columns {list(labels.columns)}; expected timestamp (s) and"
            " class_index, a number from 0 on; write pandas.DataFrame({"
            '"timestamp": seconds, "class_index": pandas.factorize(names)[0]})'
        )
    if labels is not None:
        _check_labels(labels)
    times = np.asarray(dataset["time"].values, float)
    return StreamOfSession(
        session,
        dataset,
        Timeline(times, float(dataset.attrs["fs"]), gap_s),
        pd.DataFrame({"timestamp": [], "class_index": []}) if labels is None else labels,
        list(class_names),
        tree,
        conditioning,
    )


def _check_labels(labels: pd.DataFrame) -> None:
    """Refuse classes and times that would be cast to other ones."""
    classes, times = labels["class_index"], labels["timestamp"]
    if times.dtype.kind in "mM":
        raise SessionError(
            f"timestamp has the dtype {times.dtype}, expected seconds on the stream's clock;"
            " write labels.assign(timestamp=(labels['timestamp'] - start).dt.total_seconds())"
        )
    if classes.dtype.kind in "iu" and not classes.hasnans:
        return
    numbers = pd.to_numeric(classes.astype(object), errors="coerce")
    whole = numbers.to_numpy(np.float64, na_value=np.nan) % 1 == 0
    if not whole.all():
        found = classes.tolist()[int(whole.argmin())]
        raise SessionError(
            f"class_index holds {found!r}, expected whole numbers; of names write"
            " numbers, class_names = pandas.factorize(labels['class_index']),"
            " and labels=labels.assign(class_index=numbers), class_names=class_names"
        )


def _conditioning(tree: xr.DataTree, name: str) -> str | None:
    """Return, as JSON, what a recording says was done to a stream before it was recorded."""
    try:
        extras = json.loads(tree.attrs.get("extras", "{}"))
        found = extras.get("conditioning", {}).get(name)
    except (AttributeError, TypeError, ValueError):
        return None
    return None if found is None else json.dumps(found, sort_keys=True)


def stream_of_session(
    tree: xr.DataTree,
    name: str,
    gap_s: float | None = None,
    *,
    labels: pd.DataFrame | None = None,
    session: str | None = None,
    own: xr.DataTree | None = None,
) -> StreamOfSession:
    """Return one stream of an open session ready to be cut.

    ``labels`` are those of the session, if they were read already; ``session`` is what it
    is called; ``own`` is the tree where it is to be closed with the windows.
    """
    return stream_of_dataset(
        stream_of_tree(tree, name),
        labels_frame(tree) if labels is None else labels,
        tree.attrs.get("class_names", []),
        session=str(tree.attrs.get("session_path", "")) if session is None else session,
        gap_s=gap_s,
        tree=own,
        conditioning=_conditioning(tree, name),
    )


@contextlib.contextmanager
def streams_for_windows(
    sessions: Sessions,
    stream_names: Sequence[str],
    *,
    gap_s: float | None,
    on_gap: Policy,
    on_mismatch: Policy,
    dtype: Any = None,
) -> Iterator[tuple[list[list[StreamOfSession]], DropLog]]:
    """Open streams in every session, all alike, with a log of what cannot take part.

    Gives the streams of the first name, those of the second, and so on, in the order of
    the sessions. Those of the first name are cut, and need a rate. On an error the sessions
    that were opened here are closed.

    Raises
    ------
    SessionError
        With ``on_mismatch="raise"``: a message that names every session which does not
        open, has no such stream, has another rate than it declares, or differs from the
        first in channels, rate, type, units or classes.
    """
    one_of("on_gap", on_gap, POLICIES, SessionError)
    one_of("on_mismatch", on_mismatch, POLICIES, SessionError)
    if isinstance(sessions, np.ndarray | xr.DataArray | xr.Dataset):
        raise SessionError(
            f"sessions are paths or open trees, found {type(sessions).__name__}; write"
            " labtree.session(xr.Dataset({'data': (('time', 'channel'), samples)},"
            " {'time': seconds}, {'fs': rate_hz})).windows(window_ms, hop_ms, labels=labels)"
        )
    single = isinstance(sessions, str | Path | xr.DataTree)
    listed: list[Any] = [sessions] if single else list(sessions)  # type: ignore[arg-type]
    together: list[list[StreamOfSession]] = []
    problems: list[tuple[str, Exception]] = []
    drops = DropLog()
    try:
        for item in listed:
            own = None
            is_tree = isinstance(item, xr.DataTree)
            where = str(item.attrs.get("session_path", "")) if is_tree else str(item)
            try:
                tree = item if is_tree else (own := open_recording(item))
                labels, streams = labels_frame(tree), []
                for number, name in enumerate(stream_names):
                    stream = stream_of_session(
                        tree, name, gap_s, labels=labels, session=where, own=own
                    )
                    problem = rate_problem(stream, name, needed=number == 0)
                    if problem is None and together:
                        wanted = dtype if number == 0 else None
                        problem = _difference(together[0][number], stream, wanted)
                    if problem:
                        place = where or "the session"
                        raise SessionError(f"{place}: stream {name!r} {problem}")
                    streams.append(stream)
                together.append(streams)
            except (LabtreeError, OSError) as error:
                if own is not None:
                    own.close()
                problems.append((where, error))
        if problems:
            _report_sessions(problems, len(listed), on_mismatch, drops)
        if not together:
            raise SessionError(
                "no session is left to cut windows from; the warnings say why each was left"
                ' out, and on_mismatch="raise" makes them an error'
                if problems
                else "no session is left to cut windows from: the list of paths is empty"
            )
        yield [list(group) for group in zip(*together, strict=True)], drops
    except BaseException:
        session_closer(streams[0] for streams in together)()
        raise


def _report_sessions(
    problems: list[tuple[str, Exception]], count: int, policy: Policy, drops: DropLog
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
        warn(text, RecordingWarning)
    _log.warning(text)
    for name, error in problems:
        drops.add(name, float("nan"), -1, f"session left out: {error}")


def rate_problem(stream: StreamOfSession, stream_name: str, *, needed: bool) -> str | None:
    """Return what is wrong with a stream's rate, or None; ``needed``: it must have one."""
    if stream.fs <= 0 and needed:
        return (
            "has no sampling rate, so there are no windows of it; cut around its times with"
            f" tree.session.peri_event(other, tree.session.streams[{stream_name!r}].time, ...)"
        )
    return stream.timeline.rate_problem()


def _difference(first: StreamOfSession, other: StreamOfSession, dtype: Any) -> str | None:
    """Return in what a session differs from the first one, or None."""
    expected, found = _facts(first), _facts(other)
    if dtype is not None:
        del expected["dtype"]
    shared = min(len(first.class_names), len(other.class_names))
    expected["class names"] = first.class_names[:shared]
    found["class names"] = other.class_names[:shared]
    for what, value in expected.items():
        optional = what in ("channel names", "units") and None in (value, found[what])
        if value != found[what] and not optional:
            return f"has {what} {found[what]}, the first session {first.session} has {value}"
    return None


def _facts(stream: StreamOfSession) -> dict[str, Any]:
    """Return in what the streams of several sessions must be alike."""
    dataset, data = stream.dataset, stream.dataset["data"]
    named = "channel" in dataset.coords
    return {
        "channels": dataset.sizes["channel"],
        "Hz": stream.fs,
        "channel names": dataset["channel"].values.tolist() if named else None,
        "units": data.attrs.get("units"),
        "conditioning": stream.conditioning,
        "dtype": data.dtype.name,
    }


def close_trees(trees: Iterable[xr.DataTree]) -> None:
    """Close sessions."""
    for tree in trees:
        tree.close()


def session_closer(streams: Iterable[StreamOfSession]) -> partial[None]:
    """Return what closes the sessions that were opened for these streams; it can be pickled."""
    return partial(close_trees, [stream.tree for stream in streams if stream.tree is not None])


def drop_log(windows: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return what was left out of some windows, and why.

    Parameters
    ----------
    windows
        What `labeled_windows`, `aligned_windows` or `peri_event` gave.

    Returns
    -------
    DataFrame
        One row per window, label or session left out: session, start_time (s, NaN where
        there is none), class_index (-1 where there is none), reason. Of windows around
        events one per event: event (the index of a trial table, or the position),
        event_time (in s of a stream, in ms of spikes), reason.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50)
    >>> len(labtree.drop_log(windows))
    0
    """
    if "drop_log" not in windows.attrs:
        raise SessionError('these windows have no drop log: attrs["drop_log"] is missing')
    content = json.loads(windows.attrs["drop_log"])
    frame = pd.DataFrame(content["data"], columns=content["columns"])
    dtypes = {"start_time": float, "event_time": float, "class_index": int}
    return frame.astype({name: dtypes[name] for name in frame if name in dtypes})
