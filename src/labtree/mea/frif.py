"""Firing rate in each frame interval (FRIF)."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError
from labtree.mea.registry import register_feature
from labtree.mea.sections import frame_times
from labtree.pipeline.units import units_of

__all__ = ["frame_interval_rates", "frif"]

Array = np.ndarray[Any, Any]


def frame_interval_rates(
    spike_times: Array, row_size: Array, frames: Array, rate: float
) -> Array:
    """Return each unit's spikes per second in each interval between two frames.

    Parameters
    ----------
    spike_times : int array (spike,)
        Samples, sorted within each unit, unit after unit.
    row_size : int array (unit,)
    frames : int array (frame,)
        Samples, strictly increasing; the same clock as the spikes'.
    rate : float
        Hz.

    Returns
    -------
    array of float32 (unit, frame - 1)
        Hz. A spike at a frame's own sample belongs to the interval that it begins.

    Examples
    --------
    >>> spikes, frames = np.array([10, 19, 20]), np.array([10, 20, 40])
    >>> frame_interval_rates(spikes, np.array([3]), frames, 100.0)
    array([[20.,  5.]], dtype=float32)
    """
    n_intervals = max(len(frames) - 1, 0)
    out = np.zeros((len(row_size), n_intervals), np.float32)
    if not n_intervals:
        return out
    per_spike = (rate / np.diff(frames)).astype(np.float64)
    ends = np.cumsum(row_size)
    for row, (end, count) in enumerate(zip(ends, row_size, strict=True)):
        train = spike_times[end - count : end]
        if len(train) * 8 < n_intervals:  # few spikes: find the interval of each
            interval = np.searchsorted(frames, train, side="right") - 1
            interval = interval[(interval >= 0) & (interval < n_intervals)]
            counts = np.bincount(interval, minlength=n_intervals)
        else:  # many spikes: find each frame among them
            counts = np.diff(np.searchsorted(train, frames, side="left"))
        out[row] = counts * per_spike
    return out


@register_feature("frif", version="2.0.0", requires=["load_recording"])
def frif(session: xr.DataTree) -> xr.DataArray:
    """Return the firing rate in each frame interval, Hz, along (unit, frame_interval).

    The coordinate ``frame_interval`` is the time at which each interval begins, in s.
    """
    units, frames = units_of(session), frame_times(session)
    rate = float(session["metadata"].attrs["acquisition_rate"])
    if len(frames) < 2:
        raise ConfigurationError("frif needs at least two frames")
    rates = frame_interval_rates(
        units["spike_times"].values, units["row_size"].values, frames, rate
    )
    return xr.DataArray(
        rates,
        dims=("unit", "frame_interval"),
        coords={
            "unit": units["unit"].values,
            "frame_interval": ("frame_interval", frames[:-1] / rate, {"units": "s"}),
        },
        attrs={"units": "Hz"},
    )
