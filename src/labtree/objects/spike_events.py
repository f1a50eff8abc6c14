"""Spikes around events: a recording's trains cut out and counted from each event."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import DataError
from labtree.objects import spike_data, spike_slice_stack
from labtree.objects.slice_times import slice_coords
from labtree.storage import ragged

__all__ = ["peri_event_spikes"]


def peri_event_spikes(ds: xr.Dataset, times: Any, pre_s: float, post_s: float) -> xr.Dataset:
    """Cut the spikes around events out of spike trains.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.
    times : array-like of shape (event,)
        In s, on the clock of the recording. Events at NaN are left out.
    pre_s, post_s : float
        Seconds before and after an event; a spike exactly at the end is not taken.

    Returns
    -------
    Dataset
        Of the kind ``spike_slice_stack``: ``row_size(slice, unit)``, ``spike_times(spike)``
        in ms from the event, ``slice_start`` and ``slice_end`` in ms on the recording's
        clock, ``event(slice)``, the position in `times`. Coordinates of units are kept.

    Raises
    ------
    DataError
        A ValueError, if no event is left or the window is empty.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[900.0, 1100.0, 2050.0], [1950.0]], length=3000)
    >>> around = peri_event_spikes(ds, [1.0, 2.0], pre_s=0.2, post_s=0.2)
    >>> around.row_size.values.tolist(), around.spike_times.values.tolist()
    ([[2, 0], [1, 1]], [-100.0, 100.0, 50.0, -50.0])
    """
    spike_data.validate(ds)
    events = np.asarray(getattr(times, "to_numpy", lambda: times)(), np.float64).reshape(-1)
    chosen = np.flatnonzero(np.isfinite(events))
    before, after = float(pre_s) * 1000, float(post_s) * 1000
    if not chosen.size:
        raise DataError(f"none of {events.size} event times is a finite number of seconds")
    if not before + after > 0:
        raise DataError(f"the window from -{pre_s} s to {post_s} s around an event is empty")
    moments = events[chosen] * 1000
    spikes, row_size = ds["spike_times"].values, ds["row_size"].values
    bounds = [
        np.searchsorted(train, (moments - before, moments + after))
        for train in ragged.split_rows(spikes, row_size)
    ]
    first, last = np.array(bounds, np.int64).reshape(-1, 2, chosen.size).transpose(1, 2, 0)
    # Slice after slice, and in it unit after unit: where each row begins in all spikes.
    starts = (first + ragged.row_offsets(row_size)[:-1]).ravel()
    sizes = (last - first).ravel()
    places = np.repeat(starts - ragged.row_offsets(sizes)[:-1], sizes) + np.arange(sizes.sum())
    relative = spikes[places] - np.repeat(moments, (last - first).sum(axis=1))
    coords = slice_coords(np.stack([moments - before, moments + after], axis=1), chosen.size)
    coords["event"] = xr.Variable("slice", chosen)
    coords |= {
        str(name): c.variable for name, c in ds.coords.items() if c.dims[:1] == ("unit",)
    }
    stack = xr.Dataset(
        {
            "spike_times": xr.Variable(
                "spike", np.clip(relative, -before, after), {"units": "ms"}
            ),
            "row_size": xr.Variable(
                ("slice", "unit"), last - first, {ragged.SAMPLE_DIMENSION: "spike"}
            ),
        },
        coords,
        {
            "start_time": -before,
            "length": before + after,
            "labtree_kind": spike_slice_stack.KIND,
        },
    )
    spike_slice_stack.validate(stack)
    return stack
