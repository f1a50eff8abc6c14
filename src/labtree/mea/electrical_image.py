"""Electrical images: what each spike looks like on the whole sensor array."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, FormatError, unknown_name
from labtree.mea.mcs_files import open_mea, sensor_data
from labtree.mea.recording import load, source_paths, start_session
from labtree.optional import require
from labtree.pipeline.sessions import mark_step_complete, units_of
from labtree.pipeline.steps import step
from labtree.pipeline.units import put_feature
from labtree.storage import ragged

__all__ = ["electrical_images", "high_pass", "load_recording_with_eimage_sta"]

Array = np.ndarray[Any, Any]


def high_pass(cutoff_hz: float, order: int, rate: float) -> Array:
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
    if not (isinstance(order, int) and 1 <= order <= 8):
        raise ConfigurationError(f"filter_order must be a whole number, 1 to 8, got {order!r}")
    signal = require("scipy.signal", purpose="the high-pass filter", extra="mea")
    return np.asarray(signal.butter(order, cutoff_hz, "high", fs=rate, output="sos"))


def _settling(sos: Array) -> int:
    """Return the samples after which the filter has forgotten its start, to 1e-8."""
    signal = require("scipy.signal", purpose="the high-pass filter", extra="mea")
    _, poles, _ = signal.sos2zpk(sos)
    slowest = float(np.abs(poles[poles != 0]).max(initial=0.5))
    return int(np.ceil(np.log(1e-8) / np.log(slowest)))


def electrical_images(
    read: Callable[[int, int], Array],
    n_frames: int,
    spikes: Array,
    row_size: Array,
    *,
    pre: int,
    post: int,
    sos: Array | None,
    chunk_frames: int,
    until: int | None = None,
) -> tuple[Array, Array]:
    """Average the sensor array around each unit's spikes, chunk by chunk.

    Each chunk is filtered (zero phase, forwards and backwards) with as much of its
    surroundings as the filter takes to settle, and windows may span chunks, so the
    result does not depend on the size of the chunks.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` gives the counts (frame, row, column).
    n_frames : int
    spikes : int array (spike,)
        Frames of the spikes, sorted within each unit, unit after unit.
    row_size : int array (unit,)
    pre, post : int
        The window is ``[spike - pre, spike + post)``.
    sos : array (section, 6) or None
        Filter; without one each sensor's mean over the recording until ``until`` is
        taken off.
    chunk_frames : int
    until : int, optional
        Frame up to which spikes are used.

    Returns
    -------
    images : array of float32 (unit, window, row, column)
        Counts; NaN for a unit none of whose windows lies in the recording.
    n_used : int64 array (unit,)
    """
    require("numba", purpose="electrical images", extra="mea")
    from tqdm import tqdm

    from labtree.mea.electrical_image_kernel import accumulate

    until = n_frames if until is None else min(until, n_frames)
    unit = np.repeat(np.arange(len(row_size)), row_size)
    whole = (spikes - pre >= 0) & (spikes + post <= n_frames) & (spikes < until)
    spikes, unit = spikes[whole], unit[whole]
    n_used = np.bincount(unit, minlength=len(row_size)).astype(np.int64)
    if sos is None:
        sections, zi, edge, overlap = np.zeros((0, 6)), np.zeros((0, 2)), 0, 0
    else:
        signal = require("scipy.signal", purpose="the high-pass filter", extra="mea")
        sections, zi = np.ascontiguousarray(sos, np.float64), signal.sosfilt_zi(sos)
        # the extension that scipy.signal.sosfiltfilt uses by default
        zeros = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
        edge = 3 * int(2 * len(sections) + 1 - zeros)
        overlap = _settling(sections)
    shape = read(0, 0).shape[1:]
    n_sensors = int(np.prod(shape))
    sums = np.zeros((len(row_size), pre + post, n_sensors))
    mean = np.zeros(n_sensors)
    chunk_frames = max(int(chunk_frames), 1)
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
        counts = read(start, stop).reshape(stop - start, n_sensors)
        if sos is None:
            mean += counts[begin - start : end - start].sum(axis=0, dtype=np.float64)
        offsets = np.concatenate(
            [[0], np.cumsum(np.bincount(unit[own], minlength=len(row_size)))]
        )
        accumulate(counts, sections, zi, edge, spikes[own] - pre - start, offsets, sums)
    images = np.empty((len(row_size), pre + post, n_sensors), np.float32)
    for row, (total, count) in enumerate(zip(sums, n_used, strict=True)):
        images[row] = np.nan if count == 0 else total / count - mean / max(until, 1)
    return images.reshape(len(row_size), pre + post, *shape), n_used


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
        At most so many spikes per unit, the first ones.
    unit_ids : iterable of str or int, optional
        Units such as ``"unit_001"`` or ``1``; all of them by default.
    window_range : (int, int)
        Sensor samples around the spike, the last one excluded.
    cutoff_hz, filter_order
        Butterworth high-pass, applied forwards and backwards (zero phase).
    skip_highpass : bool
        Take off each sensor's mean instead.
    chunk_duration_s : float
        How much is in memory at a time; the result does not depend on it.
    load_unit_meta : bool
        Whether the sorter's matrices (``roi_sta``, ``unmixing``) are loaded too.

    Raises
    ------
    ConfigurationError
        If a file is missing, or a parameter is out of range.
    FormatError
        If a file is not what it should be.
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
    for name, value in (
        ("duration_s", duration_s), ("spike_limit", spike_limit),
        ("chunk_duration_s", chunk_duration_s),
    ):  # fmt: skip
        if not value > 0:
            raise ConfigurationError(f"{name} must be above 0, got {value!r}")
    load(session, paths, None, with_matrices=load_unit_meta)
    units = units_of(session)
    rows = _selected(units, unit_ids)
    offsets = ragged.row_offsets(units["row_size"].values)
    with open_mea(paths["cmcr_path"]) as source:
        sensors = sensor_data(source)
        ratio = sensors.rate / float(session["metadata"].attrs["acquisition_rate"])
        until = round(duration_s * sensors.rate)
        times = units["spike_times"].values
        if ratio != 1:  # sensors and analog channels at different rates
            times = np.rint(times * ratio).astype(np.int64)
        trains = [times[offsets[row] : offsets[row + 1]] for row in rows]
        trains = [train[train < until][: int(spike_limit)] for train in trains]
        row_size = np.array([len(train) for train in trains], np.int64)
        data = sensors.dataset
        if data.dtype.kind not in "iuf":
            raise FormatError(f"{paths['cmcr_path']}: sensor data of type {data.dtype}")
        images, n_used = electrical_images(
            lambda start, stop: data[start:stop],
            len(data),
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
        post_samples=post, spike_limit=int(spike_limit), duration_s=float(duration_s),
        skip_highpass=bool(skip_highpass), sampling_rate=sensors.rate,
        window_range=[-pre, post],
    )  # fmt: skip
    mark_step_complete(session, "load_recording")  # all that it does is done
    return session
