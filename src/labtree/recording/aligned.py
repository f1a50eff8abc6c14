"""Windows of one stream with the means of other streams around their middle."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError
from labtree.recording.session_streams import (
    Policy,
    Sessions,
    session_closer,
    streams_for_windows,
)
from labtree.recording.timeline import Timeline
from labtree.recording.window_batches import iter_in_blocks
from labtree.recording.windows import (
    kept_windows,
    window_and_hop,
    window_array,
    window_index,
)
from labtree.storage.arguments import integer, positive


def _nearby(
    timeline: Timeline, moments: np.ndarray, count: int, tolerance_s: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (first row, row after the last, whether they are near) for each moment."""
    n = len(timeline.times)
    at = timeline.locate(moments)
    first = np.maximum(0, at - count // 2)
    stop = np.minimum(n, at + count - count // 2)
    if timeline.fs <= 0 and tolerance_s is None:
        raise SessionError("a stream without a rate is aligned with tolerance_s=... in s")
    most = 1.5 / timeline.fs if tolerance_s is None else tolerance_s
    if n == 0:
        return first, stop, np.zeros(len(moments), bool)
    # The same slack as for a gap: the last bit of a rounded time decides nothing.
    near = np.abs(timeline.times[at] - moments) <= most + timeline.rounding
    unusable, gap = timeline.breaks(first, stop - first)
    return first, stop, near & ~unusable & ~gap


def _means(data: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the mean of rows ``first`` to ``stop`` for each pair, as float32 or wider."""
    dtype = np.result_type(data.dtype, np.float32)
    if len(first) == 0:
        return np.empty((0, data.shape[1]), dtype)
    length = stop - first
    total = np.zeros((len(first), data.shape[1]), np.float64)
    for step in range(int(length.max())):
        inside = step < length
        total[inside] += data[first[inside] + step]
    means: np.ndarray = (total / length[:, None]).astype(dtype)
    return means


def aligned_windows(
    paths: Sessions,
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
    on_gap: Policy = "drop",
    on_mismatch: Policy = "raise",
) -> xr.Dataset:
    """Return windows of a whole stream, each with the mean of others around its midpoint.

    Labels are not used. The midpoint is the time of sample ``win // 2``; the mean goes over
    the ``n_alignment_samples`` around the sample of the other stream nearest to it, fewer
    at the ends of that stream.

    Parameters
    ----------
    paths, window_ms, hop_ms, dtype, chunks, gap_s, on_gap, on_mismatch
        As in `labeled_windows`.
    primary_stream_name
        The stream that is cut into windows.
    aligned_stream_names
        The others, one or several.
    n_alignment_samples
        Samples of the others that the mean goes over.
    tolerance_s
        A window is left out, and noted in the drop log, if the nearest sample of another
        stream is farther from its midpoint than this; one and a half periods of that stream
        if None. A window whose mean would extend over a gap is left out, too.

    Returns
    -------
    Dataset
        A variable per stream, named so: the primary one lazy, (window, channel, time); the
        others (window, <name>_channel), float32 or, where that would lose something,
        float64. Coordinates as in `labeled_windows`, and ``midpoint`` in s.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.aligned_windows(record_emg("sessions"), "emg", "force", 200, 50)
    >>> windows["force"].dims
    ('window', 'force_channel')
    """
    names = (
        [aligned_stream_names]
        if isinstance(aligned_stream_names, str)
        else list(aligned_stream_names)
    )
    _check_names(primary_stream_name, names)
    n_samples = integer("n_alignment_samples", n_alignment_samples, 1, error=SessionError)
    if tolerance_s is not None:
        tolerance_s = positive("tolerance_s", tolerance_s, SessionError)
    with streams_for_windows(
        paths,
        [primary_stream_name, *names],
        gap_s=gap_s,
        on_gap=on_gap,
        on_mismatch=on_mismatch,
        dtype=dtype,
    ) as ((primary, *others), drops):
        win, hop = window_and_hop(primary[0], window_ms, hop_ms)
        index = window_index(primary, win, hop, on_gap, drops)
        kept, middles = [], []
        means: list[list[np.ndarray]] = [[] for _ in names]
        for number, stream in enumerate(primary):
            starts = index.starts_in(number)
            moments = stream.timeline.times[starts + win // 2]
            reasons, spans = np.full(len(starts), "", object), []
            for name, other in zip(names, others, strict=True):
                first, stop, near = _nearby(
                    other[number].timeline, moments, n_samples, tolerance_s
                )
                reasons[(reasons == "") & ~near] = f"no unbroken {name!r} at its midpoint"
                spans.append((first, stop))
            keep = kept_windows(stream, starts, reasons, drops)
            for part, other, (first, stop) in zip(means, others, spans, strict=True):
                data = other[number].dataset["data"].values
                part.append(_means(data, first[keep], stop[keep]))
            kept.append(keep)
            middles.append(moments[keep])
        index = index.chosen(np.concatenate(kept))
        midpoints = {"midpoint": ("window", np.concatenate(middles), {"units": "s"})}
        windows = window_array(primary, index, win, drops, dtype, chunks, coordinates=midpoints)
    dataset = windows.to_dataset(name=primary_stream_name)
    for name, part, other in zip(names, means, others, strict=True):
        dimension = f"{name}_channel"
        dataset[name] = (
            ("window", dimension),
            np.concatenate(part),
            other[0].dataset["data"].attrs,
        )
        if "channel" in other[0].dataset.coords:
            dataset[dimension] = (dimension, other[0].dataset["channel"].values)
    for key in ("dropped", "drop_log"):
        dataset.attrs[key] = dataset[primary_stream_name].attrs.pop(key)
    dataset.set_close(session_closer(primary))
    return dataset


def _check_names(primary: str, names: list[str]) -> None:
    taken = {"window", "time", "channel", "start_time", "session", "midpoint", primary}
    for name in names:
        if name in taken or f"{name}_channel" in taken:
            raise SessionError(
                f"stream {name!r} cannot be aligned: windows have a coordinate or a stream of"
                " that name; leave it out"
            )
        taken |= {name, f"{name}_channel"}
    if not names:
        raise SessionError("expected the name of at least one stream to align")


def iter_aligned_windows(
    paths: Sessions,
    primary_stream_name: str,
    aligned_stream_names: str | Sequence[str],
    window_ms: float,
    hop_ms: float,
    n_alignment_samples: int = 1,
    **options: Any,
) -> Iterator[xr.Dataset]:
    """Yield the windows of `aligned_windows` one by one, as Datasets in memory.

    Parameters
    ----------
    paths, primary_stream_name, aligned_stream_names, window_ms, hop_ms, **options
    n_alignment_samples
        As in `aligned_windows`.

    Yields
    ------
    Dataset
        One window of each stream, in memory.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> path = record_emg("sessions")
    >>> window = next(labtree.iter_aligned_windows(path, "emg", "force", 200, 50))
    >>> window["emg"].dims
    ('channel', 'time')
    """
    windows = aligned_windows(
        paths,
        primary_stream_name,
        aligned_stream_names,
        window_ms,
        hop_ms,
        n_alignment_samples,
        **options,
    )
    return iter_in_blocks(windows, primary_stream_name)
