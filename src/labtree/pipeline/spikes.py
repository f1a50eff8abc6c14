"""A session's units as spike data, and their spikes around events."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError
from labtree.objects.spike_data import spike_data
from labtree.objects.spike_events import peri_event_spikes
from labtree.pipeline.units import spike_trains, units_of

__all__ = ["session_spike_data", "spikes_around"]


def session_spike_data(session: xr.DataTree) -> xr.Dataset:
    """Return the units of a session as the kind ``spike_data``, times in ms.

    Parameters
    ----------
    session
        With units whose spike times are samples, and the rate in its metadata.

    Raises
    ------
    SessionError
        If there are no units, or no ``acquisition_rate``.
    """
    units = units_of(session)
    node = session.children.get("metadata")
    rate = None if node is None else node.attrs.get("acquisition_rate")
    if rate is None:
        raise SessionError(
            "the session's spikes are in samples and its metadata have no acquisition_rate; "
            'write session.session.add_metadata({"acquisition_rate": 20_000.0})'
        )
    trains = [
        np.asarray(train) * 1000.0 / float(rate) for train in spike_trains(units).values()
    ]
    attributes = {
        str(name): coord.values
        for name, coord in units.coords.items()
        if coord.dims == ("unit",) and name != "unit"
    }
    attributes["unit_id"] = units["unit"].values
    return spike_data(trains, neuron_attributes=attributes)


def spikes_around(session: xr.DataTree, times: Any, pre_s: float, post_s: float) -> xr.Dataset:
    """Return the spikes of all units around events, as :func:`labtree.peri_event_spikes` does.

    Times are in s from the session's first sample.
    """
    return peri_event_spikes(session_spike_data(session), times, pre_s, post_s)
