"""Electrical images: what each spike looks like on the whole sensor array."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, FormatError, unknown_name
from labtree.mea.electrical_image_kernel import compiled
from labtree.mea.mcs_files import SensorData, Sweep, open_mea, sensor_data
from labtree.mea.recording import load, samples_from_us, source_paths, start_session
from labtree.optional import require
from labtree.pipeline.sessions import add_warning, mark_step_complete, units_of
from labtree.pipeline.steps import step
from labtree.pipeline.units import put_feature
from labtree.storage import ragged
from labtree.storage.arguments import integer, positive


def high_pass(cutoff_hz: float, order: int, rate: float) -> np.ndarray:
    """Return the second-order sections of a Butterworth high-pass filter.

    Raises
    ------
    ConfigurationError
        If the cutoff is not between 0 and half the rate, or if the order is not 1 to 8.
    """
    if not 0 < cutoff_hz < rate / 2:
        raise ConfigurationError(
            f"cutoff_hz must lie between 0 and {rate / 2:g} (half the rate), got {cutoff_hz!r}"
        )
    integer("filter_order", order, 1, 8, ConfigurationError)
    signal = require("scipy.signal", purpose="the high-pass filter", extra="mea")
    return np.asarray(signal.butter(order, cutoff_hz, "high", fs=rate, output="sos"))


def _settling(sos: np.ndarray) -> int:
    """Return the samples after which the filter has forgotten its start, to 1e-8."""
    signal = require("scipy.signal", purpose="the high-pass filter", extra="mea")
    _, poles, _ = signal.sos2zpk(sos)
    slowest = float(np.abs(poles[poles != 0]).max(initial=0.5))
    return int(np.ceil(np.log(1e-8) / np.log(slowest)))


class Segment(NamedTuple):
    """A part of a recording without gaps.

    Attributes
    ----------
    start : int
        Its first frame in the recording.
    n_frames : int
    read : callable
        ``read(start, stop)`` gives counts (frame, row, column), from its own start.
    """

    start: int
    n_frames: int
    read: Callable[[int, int], np.ndarray]


def segments_of(sensors: SensorData) -> list[Segment]:
    """Return the parts of a sensor array's data without gaps; sweeps that join are one."""
    parts: list[list[Sweep]] = []
    for sweep in sensors.sweeps:
        joins = parts and parts[-1][-1].start + len(parts[-1][-1].dataset) == sweep.start
        if joins:
            parts[-1].append(sweep)
        else:
            parts.append([sweep])
    return [
        Segment(
            part[0].start,
            sum(len(sweep.dataset) for sweep in part),
            functools.partial(_read_joined, part),
        )
        for part in parts
    ]


def _read_joined(sweeps: list[Sweep], start: int, stop: int) -> np.ndarray:
    """Read frames of sweeps that follow each other, counted from the first one's start."""
    pieces = []
    for sweep in sweeps:
        first = sweep.start - sweeps[0].start
        low, high = max(start - first, 0), min(stop - first, len(sweep.dataset))
        if low < high or sweep is sweeps[0]:  # of an empty range its shape
            pieces.append(sweep.dataset[low : max(high, low)])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def electrical_images(
    segments: list[Segment],
    spikes: np.ndarray,
    row_size: np.ndarray,
    *,
    pre: int,
    post: int,
    sos: np.ndarray | None,
    chunk_frames: int,
    until: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Average the sensor array around each unit's spikes, chunk by chunk.

    Each chunk is filtered (zero phase, forwards and backwards) with as much of its
    surroundings as the filter takes to settle, and windows may span chunks, so the
    result does not depend on the size of the chunks.

    Parameters
    ----------
    segments : list of Segment
        In order of time. Windows that reach out of one are left out.
    spikes : int array (spike,)
        Frames of the spikes, sorted within each unit, unit after unit.
    row_size : int array (unit,)
    pre, post : int
        The window is ``[spike - pre, spike + post)``.
    sos : array (section, 6) or None
        Filter; without one each sensor's mean over the recording until ``until`` is
        subtracted.
    chunk_frames : int
    until : int, optional
        Frame up to which spikes are used.

    Returns
    -------
    images : array of float32 (unit, window, row, column)
        Counts; NaN for a unit none of whose windows lies in the recording.
    n_used : int64 array (unit,)
    """
    n_units, shape = len(row_size), segments[0].read(0, 0).shape[1:]
    n_sensors = int(np.prod(shape))
    sums = np.zeros((n_units, pre + post, n_sensors))
    mean = np.zeros(n_sensors)
    n_used = np.zeros(n_units, np.int64)
    n_averaged = 0
    unit = ragged.row_of_sample(row_size)
    for segment in segments:
        own = spikes - segment.start
        end = (
            segment.n_frames if until is None else min(until - segment.start, segment.n_frames)
        )
        if end <= 0:
            continue
        whole = (own - pre >= 0) & (own + post <= segment.n_frames) & (own < end)
        n_used += np.bincount(unit[whole], minlength=n_units)
        n_averaged += end
        mean += _add_segment(
            segment, own[whole], unit[whole], sums,
            pre=pre, post=post, sos=sos, chunk_frames=max(int(chunk_frames), 1), until=end,
        )  # fmt: skip
    images = np.empty((n_units, pre + post, n_sensors), np.float32)
    for row, (total, count) in enumerate(zip(sums, n_used, strict=True)):
        images[row] = np.nan if count == 0 else total / count - mean / max(n_averaged, 1)
    return images.reshape(n_units, pre + post, *shape), n_used


def _add_segment(
    segment: Segment,
    spikes: np.ndarray,
    unit: np.ndarray,
    sums: np.ndarray,
    *,
    pre: int,
    post: int,
    sos: np.ndarray | None,
    chunk_frames: int,
    until: int,
) -> np.ndarray:
    """Add the windows of one segment to the sums; return the sum of its unfiltered frames."""
    from tqdm import tqdm

    accumulate = compiled()
    n_units, n_frames = len(sums), segment.n_frames
    if sos is None:
        sections, zi, edge, overlap = np.zeros((0, 6)), np.zeros((0, 2)), 0, 0
    else:
        signal = require("scipy.signal", purpose="the high-pass filter", extra="mea")
        sections, zi = np.ascontiguousarray(sos, np.float64), signal.sosfilt_zi(sos)
        # the extension that scipy.signal.sosfiltfilt uses by default
        zeros = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
        edge = 3 * int(2 * len(sections) + 1 - zeros)
        overlap = _settling(sections)
    n_sensors = sums.shape[2]
    mean = np.zeros(n_sensors)
    for begin in tqdm(range(0, until, chunk_frames), desc="electrical image", disable=None):
        end = min(begin + chunk_frames, until)
        own = (spikes >= begin) & (spikes < end)
        if sos is not None and not own.any():
            continue
        start, stop = max(begin - pre - overlap, 0), min(end + post + overlap, n_frames)
        if stop - start <= edge:
            raise ConfigurationError(
                f"a recording of {n_frames} frames is too short for this filter, which needs "
                f"more than {edge}; pass skip_highpass=True"
            )
        counts = segment.read(start, stop).reshape(stop - start, n_sensors)
        if sos is None:
            mean += counts[begin - start : end - start].sum(axis=0, dtype=np.float64)
        offsets = ragged.row_offsets(np.bincount(unit[own], minlength=n_units))
        accumulate(counts, sections, zi, edge, spikes[own] - pre - start, offsets, sums)
    return mean


def _selected(units: xr.Dataset, unit_ids: Iterable[str | int] | None) -> list[int]:
    names = [str(unit) for unit in units["unit"].values]
    if unit_ids is None:
        return list(range(len(names)))
    rows = []
    for given in unit_ids:
        text = str(given)
        name = f"unit_{int(text):03d}" if text.isdigit() else text
        if name not in names:
            raise unknown_name("unit", given, names)
        rows.append(names.index(name))
    return rows


@step(starts=start_session)
def load_recording_with_eimage_sta(
    session: xr.DataTree,
    cmcr_path: str | Path | None = None,
    cmtr_path: str | Path | None = None,
    dataset_id: str | None = None,
    *,
    output_dir: str | Path = "artifacts",
    duration_s: float = 120.0,
    spike_limit: int = 10000,
    unit_ids: Iterable[str | int] | None = None,
    window_range: tuple[int, int] = (-10, 40),
    cutoff_hz: float = 100.0,
    filter_order: int = 2,
    skip_highpass: bool = False,
    chunk_duration_s: float = 1.0,
    load_unit_meta: bool = True,
    acquisition_rate: float | None = None,
) -> xr.DataTree:
    """Load a recording and the electrical image of each unit's spikes.

    All that :func:`labtree.mea.load_recording` loads, and ``features/eimage_sta`` with
    ``eimage_sta`` (unit, window_sample, y, x; float32 counts,
    :func:`labtree.mea.to_physical` scales them), ``n_spikes`` and
    ``n_spikes_excluded`` (unit).

    Parameters
    ----------
    session : DataTree
    cmcr_path, cmtr_path, dataset_id, output_dir
        As for ``load_recording``; both files are needed.
    duration_s : float
        Spikes from this much of the recording are used.
    spike_limit : int
        At most this many spikes per unit, the first ones.
    unit_ids : iterable of str or int, optional
        Units such as ``"unit_001"`` or ``1``; all of them by default.
    window_range : (int, int)
        Sensor samples around the spike, the last one excluded.
    cutoff_hz, filter_order
        Butterworth high-pass, applied forwards and backwards (zero phase).
    skip_highpass : bool
        Subtract each sensor's mean instead.
    chunk_duration_s : float
        How much is in memory at a time; the result does not depend on it.
    load_unit_meta : bool
        Whether the sorter's matrices (``roi_sta``, ``unmixing``) are loaded too.
    acquisition_rate : float, optional
        As for ``load_recording``. The images are cut on the sensors' own clock, which
        comes from the file.

    Returns
    -------
    DataTree
        The session that was given; without ``session=`` a :class:`labtree.StepResult`,
        whose ``hdf5_path`` is what :func:`labtree.load_session` takes.

    Raises
    ------
    ConfigurationError
        If a file is missing, or a parameter is out of range.
    FormatError
        If a file is not what it should be.

    Examples
    --------
    >>> import tempfile
    >>> import labtree
    >>> from labtree.testing.mea import write_recording
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_recording(folder, n_units=2, movie_frames={"noise_a": 60}, repeats=1)
    ...     session = labtree.create_session("rec1")
    ...     session = labtree.mea.load_recording_with_eimage_sta(
    ...         files.cmcr_path, files.cmtr_path, session=session)
    >>> session["features/eimage_sta"]["eimage_sta"].shape
    (2, 50, 9, 9)
    """
    paths = source_paths(session, dataset_id, cmcr_path, cmtr_path)
    if set(paths) != {"cmcr_path", "cmtr_path"}:
        raise ConfigurationError(
            "load_recording_with_eimage_sta needs cmcr_path (the sensors) and cmtr_path (the "
            "units)"
        )
    pre, post = -int(window_range[0]), int(window_range[1])
    if pre < 0 or post < 0 or pre + post == 0:
        raise ConfigurationError(
            f"window_range must be (0 or less, 0 or more) samples, got {window_range!r}"
        )
    duration_s = positive("duration_s", duration_s, ConfigurationError)
    chunk_duration_s = positive("chunk_duration_s", chunk_duration_s, ConfigurationError)
    spike_limit = int(positive("spike_limit", spike_limit, ConfigurationError))
    sorted_units = load(session, paths, acquisition_rate, with_matrices=load_unit_meta)
    units = units_of(session)
    rows = _selected(units, unit_ids)
    with open_mea(paths["cmcr_path"]) as source:
        sensors = sensor_data(source)
        if sensors.other_regions:
            add_warning(
                session,
                f"{paths['cmcr_path'].name}: electrical images are of the first region only; "
                f"not read: {', '.join(sensors.other_regions)}",
            )
        until = round(duration_s * sensors.rate)
        # from µs to frames of the sensors at once: the analog channels have another clock
        trains = [samples_from_us(sorted_units[row].spikes_us, sensors.rate) for row in rows]
        trains = [train[train < until][:spike_limit] for train in trains]
        row_size = np.array([len(train) for train in trains], np.int64)
        for sweep in sensors.sweeps:
            if sweep.dataset.dtype.kind not in "iuf":
                raise FormatError(
                    f"{paths['cmcr_path']}: {sweep.name} is of type {sweep.dataset.dtype}"
                )
        images, n_used = electrical_images(
            segments_of(sensors),
            np.concatenate(trains) if trains else np.zeros(0, np.int64),
            row_size,
            pre=pre,
            post=post,
            sos=None if skip_highpass else high_pass(cutoff_hz, filter_order, sensors.rate),
            chunk_frames=round(chunk_duration_s * sensors.rate),
            until=until,
        )
    dims = ("unit", "window_sample", "y", "x")
    attrs: dict[str, Any] = {"units": "count"}
    coords: dict[str, Any] = {
        "unit": units["unit"].values[rows],
        "window_sample": ("window_sample", np.arange(-pre, post), {"units": "sample"}),
        "y": ("y", sensors.top + np.arange(images.shape[2])),
        "x": ("x", sensors.left + np.arange(images.shape[3])),
    }
    if sensors.conversion_factor is not None and sensors.exponent is not None:
        attrs |= {"exponent": sensors.exponent, "physical_unit": sensors.unit}
        coords["conversion_factor"] = (("y", "x"), sensors.conversion_factor)
    made = xr.Dataset(
        {
            "eimage_sta": (dims, images, attrs),
            "n_spikes": ("unit", n_used),
            "n_spikes_excluded": ("unit", row_size - n_used),
        },
        coords=coords,
    )
    put_feature(
        session, "eimage_sta", made,
        cutoff_hz=float(cutoff_hz), filter_order=int(filter_order), pre_samples=pre,
        post_samples=post, spike_limit=spike_limit, duration_s=duration_s,
        skip_highpass=bool(skip_highpass), sampling_rate=sensors.rate,
        window_range=[-pre, post],
    )  # fmt: skip
    mark_step_complete(session, "load_recording")  # all that it does is done
    return session
