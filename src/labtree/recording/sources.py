"""Streams that windows are cut from: opened, compared, and what of them is left out."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import LabtreeError, RecordingWarning, SessionError
from labtree.recording.session import labels_frame, open_session, stream
from labtree.recording.timeline import Timeline

__all__ = [
    "Drops",
    "Policy",
    "Sessions",
    "Source",
    "check_policy",
    "closer",
    "open_sources",
    "rate_problem",
    "session_source",
    "stream_source",
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
    if gap_s is not None and not gap_s > 0:
        raise SessionError(f"gap_s is a number of seconds above 0, found {gap_s!r}")
    if labels is not None and not {"timestamp", "class_index"} <= set(labels.columns):
        raise SessionError(
            f"labels have the columns {list(labels.columns)}; expected timestamp (s) and"
            " class_index"
        )
    times = np.asarray(dataset["time"].values, float)
    return Source(
        session,
        dataset,
        Timeline(times, float(dataset.attrs["fs"]), gap_s),
        pd.DataFrame({"timestamp": [], "class_index": []}) if labels is None else labels,
        list(class_names),
        tree,
    )


def session_source(tree: xr.DataTree, name: str, gap_s: float | None = None) -> Source:
    """Return one stream of an open session as a source of trials and windows."""
    return stream_source(
        stream(tree, name),
        labels_frame(tree),
        tree.attrs.get("class_names", []),
        session=str(tree.attrs.get("session_path", "")),
        gap_s=gap_s,
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
                problem = rate_problem(source, name, needed=number == 0)
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


def rate_problem(source: Source, stream_name: str, *, needed: bool) -> str | None:
    """Return what is wrong with a stream's rate, or None; ``needed``: it must have one."""
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


def close_trees(trees: Iterable[xr.DataTree]) -> None:
    """Close sessions."""
    for tree in trees:
        tree.close()


def closer(sources: Iterable[Source]) -> partial[None]:
    """Return what closes the sessions that were opened for these sources; it can be pickled."""
    return partial(close_trees, [source.tree for source in sources if source.tree is not None])
