"""Units of a pipeline session, in samples, as spike data in ms, and back."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import DataError
from labtree.event_times import times_in_ms, until_in_ms
from labtree.objects import spike_data
from labtree.objects.unit_attributes import unit_attributes
from labtree.spikes.events import peri_event
from labtree.spikes.trains import require_kind
from labtree.storage import ragged
from labtree.storage.arguments import positive


def from_session(
    session: xr.DataTree, *, rate_hz: float | None = None, length_ms: float | None = None
) -> xr.Dataset:
    """Return the units of a session as spike trains.

    Parameters
    ----------
    session : DataTree
        With ``session["units"]``, whose spike times are sample numbers.
    rate_hz : float, optional
        Samples per second; by default ``acquisition_rate`` of the session's metadata.
    length_ms : float, optional
        Duration of the recording in ms; by default ``recording_duration_s`` of the
        metadata, or, where there is none, up to the last spike.

    Returns
    -------
    Dataset
        Of the kind ``spike_data``, with times in ms from the first sample. Values that
        the session has for each unit are coordinates, its id is ``unit_id``.

    Raises
    ------
    DataError
        A ValueError, if the session has no units, or the rate is not known.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> session.session.add_units({"u1": {"spike_times": np.array([20, 40])}})
    >>> ds = labtree.spikes.from_session(session, rate_hz=20_000)
    >>> ds.spike_times.values, ds.unit_id.values
    (array([1., 2.]), array(['u1'], dtype='<U2'))
    """
    if not isinstance(session, xr.DataTree):
        raise DataError(
            f"from_session takes a session's tree, found {type(session).__name__}; write "
            "labtree.spikes.from_session(labtree.load_session(path))"
        )
    if "units" not in session.children:
        raise DataError(
            "the session has no units; write session.session.add_units({...}) first"
        )
    units = session.children["units"].to_dataset(inherit=False)
    metadata = session.children.get("metadata", xr.DataTree()).attrs
    rate = metadata.get("acquisition_rate") if rate_hz is None else rate_hz
    if rate is None:
        raise DataError(
            "the session's spikes are in samples and its metadata have no acquisition_rate; "
            'write session.session.add_metadata({"acquisition_rate": 20_000.0}), or rate_hz=...'
        )
    if length_ms is None and "recording_duration_s" in metadata:
        length_ms = 1000 * float(metadata["recording_duration_s"])
    times = units["spike_times"].values * 1000.0 / float(rate)
    known = {
        name: coord.variable
        for name, coord in units.coords.items()
        if coord.dims == ("unit",) and name != "unit"
    }
    plain = spike_data.spike_data(
        ragged.split_rows(times, units["row_size"].values), length=length_ms
    )
    taken = set(map(str, known)) & {*spike_data.RESERVED, "unit_id"}
    if taken:
        first = sorted(taken)[0]
        raise DataError(
            f"values of the units have names that are taken: {sorted(taken)}; write "
            f"session['units'] = session['units'].to_dataset().rename({{{first!r}: ...}})"
        )
    return plain.assign_coords(known | {"unit_id": ("unit", units["unit"].values)})


def to_session_units(ds: xr.Dataset, rate_hz: float) -> dict[str, dict[str, Any]]:
    """Return spike trains as the units of a session, for ``session.session.add_units``.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    rate_hz : float
        Samples per second.

    Returns
    -------
    dict of dict
        For each unit, under its ``unit_id`` or "unit_000" and so on, ``spike_times`` as
        sample numbers, each the nearest to its time, and its attributes.

    Raises
    ------
    DataError
        A ValueError, if the recording starts before 0 ms or two units have one id.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0]])
    >>> labtree.spikes.to_session_units(ds, rate_hz=20_000)
    {'unit_000': {'spike_times': array([20, 40])}}
    """
    require_kind(ds, "to_session_units", spike_data.KIND)
    rate_hz = positive("rate_hz", rate_hz)
    times = ds["spike_times"].values
    if times.size and times.min() < 0:
        raise DataError(
            f"samples count from 0, but there is a spike at {times.min()} ms; cut with "
            "labtree.spikes.select_time(ds, 0, stop_ms)"
        )
    samples = np.rint(np.asarray(times, np.float64) * (rate_hz / 1000)).astype(np.int64)
    trains = ragged.split_rows(samples, ds["row_size"].values)
    attributes = unit_attributes(ds)
    ids = [str(own.pop("unit_id", f"unit_{at:03d}")) for at, own in enumerate(attributes)]
    if len(set(ids)) != len(ids):
        twice = sorted({each for each in ids if ids.count(each) > 1})
        raise DataError(
            f"several units have the unit_id {', '.join(twice[:5])}; a session needs one for "
            'each: write ds.assign_coords(unit_id=("unit", names))'
        )
    return {
        unit: {"spike_times": train, **own}
        for unit, train, own in zip(ids, trains, attributes, strict=True)
    }


def session_peri_event(
    session: xr.DataTree, times: Any, pre_s: float, post_s: float, **options: Any
) -> xr.Dataset:
    """Return the spikes of a session's units around events.

    Parameters
    ----------
    session : DataTree
        As for :func:`labtree.spikes.from_session`.
    times : array-like of shape (event,), or DataFrame
        Times in s from the session's first sample; or a trial table, with ``on=``.
    pre_s, post_s : float
        How far the window reaches before and after the event, in s.
    **options
        ``on``, ``edge``, ``clock`` and ``until`` (in s), as in
        :func:`labtree.spikes.peri_event`.

    Returns
    -------
    Dataset
        Of the kind ``spike_slice_stack``, in ms.
    """
    options["until"] = until_in_ms(options.get("until"))
    if not isinstance(times, pd.DataFrame):
        times = times_in_ms(times, "times")
    ds = from_session(session)
    return peri_event(ds, times, pre_s * 1000, post_s * 1000, **options)
