"""Windows of a stream with the target that the subject was to follow at their end."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError, unknown_name
from labtree.recording.session_streams import (
    Policy,
    Sessions,
    StreamOfSession,
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

# The phases of a force-tracking trial, by their code in a target stream.
PHASES = ("rest", "ramp_up", "hold", "ramp_down", "recover", "done", "idle")
_CHANNELS = ["target_pct", "phase"]
# A target this many of its own periods away says nothing about a window's end.
_FARTHEST_PERIODS = 3


def _target_data(stream: StreamOfSession, name: str) -> np.ndarray:
    """Return (n, 2) target values and phases, or an error that says why it is no target."""
    dataset = stream.dataset
    names = dataset["channel"].values.tolist() if "channel" in dataset.coords else None
    problem = None
    if dataset.sizes["channel"] < 2:
        problem = f"has {dataset.sizes['channel']} channel"
    elif names is not None and names[:2] != _CHANNELS:
        problem = f"has channels {names}"
    elif dataset.sizes["time"] == 0:
        problem = "has no samples"
    elif not stream.timeline.has_usable:
        problem = "has no time stamp that is finite"
    elif stream.fs <= 0:
        problem = "has no sampling rate"
    if problem:
        raise SessionError(
            f"{stream.session}: stream {name!r} {problem}; a target stream has samples of"
            f" {_CHANNELS}, at a rate"
        )
    return np.asarray(dataset["data"][:, :2].values)


def _target_at(
    timeline: Timeline, data: np.ndarray, moments: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (target, phase, problem) at each moment; the problem is "" where there is none."""
    usable = np.ones(len(timeline.times), bool)
    usable[timeline.unusable] = False
    times, data = timeline.times[usable], data[usable].astype(np.float64)
    held = np.clip(np.searchsorted(times, moments, "right") - 1, 0, None)
    following = np.minimum(held + 1, len(times) - 1)
    value, phase = data[held, 0], data[held, 1]
    step = times[following] - times[held]
    between = (step > 0) & (data[following, 1] == phase)
    share = np.divide(moments - times[held], step, out=np.zeros(len(moments)), where=between)
    value = np.where(between, value + share * (data[following, 0] - value), value)
    problem = np.full(len(moments), "", object)
    most = _FARTHEST_PERIODS / timeline.fs
    exact = times[held] == moments
    problem[(times[following] - moments > most) & ~exact] = "the next target is too far away"
    problem[(moments < times[0]) | (moments > times[-1])] = "outside the target stream"
    return value, phase, problem


def target_windows(
    paths: Sessions,
    stream_name: str,
    target_stream_name: str,
    window_ms: float,
    hop_ms: float,
    phases: Iterable[str] | None = None,
    *,
    dtype: Any = None,
    chunks: Any = None,
    gap_s: float | None = None,
    on_gap: Policy = "drop",
    on_mismatch: Policy = "raise",
) -> xr.DataArray:
    """Return windows of a whole stream with the target at the time of their last sample.

    It is the last sample, because a model in use does not know later ones. Within a phase
    the target is interpolated; from the end of one phase to the start of the next it is
    constant. A window is left out, and noted in the drop log, if its end is outside the
    target stream, the next target is more than three target periods away, or its phase is
    not wanted.

    Parameters
    ----------
    paths, stream_name, window_ms, hop_ms, dtype, chunks, gap_s, on_gap, on_mismatch
        As in `labeled_windows`.
    target_stream_name
        A stream of the channels ``target_pct`` and ``phase``.
    phases
        Phases to keep, of rest, ramp_up, hold, ramp_down, recover, done, idle; all but done
        and idle if None.

    Returns
    -------
    DataArray
        (window, channel, time) with coordinates as in `labeled_windows`, and ``target_pct``,
        ``phase`` (code) and ``phase_name`` per window.

    Raises
    ------
    SessionError
        If a session's target stream has no samples, fewer than two channels, or others.

    Examples
    --------
    >>> import numpy as np
    >>> import labtree
    >>> from labtree import Recorder, StreamInfo
    >>> with Recorder("sessions") as recorder:
    ...     recorder.init_stream("emg", StreamInfo(n_channels=2, fs=100, dtype="int16"))
    ...     target = StreamInfo(n_channels=2, fs=10, channel_names=["target_pct", "phase"])
    ...     recorder.init_stream("target", target)
    ...     recorder.append("emg", np.zeros((200, 2), "int16"), np.arange(200) / 100)
    ...     recorder.append("target", np.ones((20, 2), "float32"), np.arange(20) / 10)
    >>> windows = labtree.target_windows(recorder.path, "emg", "target", 200, 50)
    >>> set(windows["phase_name"].values.tolist())
    {'ramp_up'}
    """
    wanted = set(PHASES) - {"done", "idle"} if phases is None else set(phases)
    if unknown := sorted(wanted - set(PHASES)):
        raise unknown_name("phase", unknown[0], PHASES, SessionError)
    with streams_for_windows(
        paths,
        [stream_name, target_stream_name],
        gap_s=gap_s,
        on_gap=on_gap,
        on_mismatch=on_mismatch,
        dtype=dtype,
    ) as ((primary, targets), drops):
        win, hop = window_and_hop(primary[0], window_ms, hop_ms)
        index = window_index(primary, win, hop, on_gap, drops)
        kept, values, codes = [], [], []
        for number, (stream, target) in enumerate(zip(primary, targets, strict=True)):
            data = _target_data(target, target_stream_name)
            starts = index.starts_in(number)
            moments = stream.timeline.times[starts + win - 1]
            value, phase, problem = _target_at(target.timeline, data, moments)
            for code, phase_name in enumerate(PHASES):
                if phase_name not in wanted:
                    problem[(problem == "") & (phase == code)] = f"phase {phase_name}"
            keep = kept_windows(stream, starts, problem, drops)
            kept.append(keep)
            values.append(value[keep])
            codes.append(phase[keep])
        phase = np.concatenate(codes)
        named = [
            PHASES[int(code)] if code in range(len(PHASES)) else str(code) for code in phase
        ]
        return window_array(
            primary,
            index.chosen(np.concatenate(kept)),
            win,
            drops,
            dtype,
            chunks,
            coordinates={
                "target_pct": ("window", np.concatenate(values)),
                "phase": ("window", phase),
                "phase_name": ("window", np.array(named, object)),
            },
        )


def iter_target_windows(
    paths: Sessions,
    stream_name: str,
    target_stream_name: str,
    window_ms: float,
    hop_ms: float,
    phases: Iterable[str] | None = None,
    **options: Any,
) -> Iterator[xr.DataArray]:
    """Yield the windows of `target_windows` one by one, as (channel, time) in memory.

    Parameters
    ----------
    paths, stream_name, target_stream_name, window_ms, hop_ms, phases, **options
        As in `target_windows`. One warning at the end sums up what was left out.

    Yields
    ------
    DataArray
        (channel, time), in memory, with its coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> import labtree
    >>> from labtree import Recorder, StreamInfo
    >>> with Recorder("sessions") as recorder:
    ...     recorder.init_stream("emg", StreamInfo(n_channels=2, fs=100, dtype="int16"))
    ...     target = StreamInfo(n_channels=2, fs=10, channel_names=["target_pct", "phase"])
    ...     recorder.init_stream("target", target)
    ...     recorder.append("emg", np.zeros((200, 2), "int16"), np.arange(200) / 100)
    ...     recorder.append("target", np.ones((20, 2), "float32"), np.arange(20) / 10)
    >>> windows = labtree.iter_target_windows(recorder.path, "emg", "target", 200, 50)
    >>> next(windows).dims
    ('channel', 'time')
    """
    return iter_in_blocks(
        target_windows(
            paths, stream_name, target_stream_name, window_ms, hop_ms, phases, **options
        )
    )
