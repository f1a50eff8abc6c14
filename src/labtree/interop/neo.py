"""Spike trains to and from neo's SpikeTrain, Segment and Block."""

import warnings
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import DataError, LossWarning
from labtree.objects import spike_data
from labtree.objects.unit_attributes import unit_attributes
from labtree.optional import require
from labtree.spikes.trains import spike_trains

__all__ = ["from_neo", "to_neo"]


def to_neo(ds: xr.Dataset) -> Any:
    """Make a neo Block of one Segment, with a SpikeTrain for each unit.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.

    Returns
    -------
    neo.Block
        Attributes of the units become annotations of the SpikeTrains, metadata the
        annotation ``metadata`` of the Block, raw data an IrregularlySampledSignal.

    Raises
    ------
    DataError
        A ValueError, if this is another kind, or neo cannot hold an attribute.
    """
    neo = require("neo", purpose="conversion to neo", extra="neo")
    kind = ds.attrs.get("labtree_kind")
    if kind != spike_data.KIND:
        raise DataError(f"to_neo takes spike_data, found {kind!r}")
    start = ds.attrs["start_time"]
    stop = start + ds.attrs["length"]
    block, segment = neo.Block(), neo.Segment()
    block.segments.append(segment)
    if "metadata" in ds.attrs:
        _annotate(block, {"metadata": ds.attrs["metadata"]}, "metadata")
    for unit, (train, attributes) in enumerate(
        zip(spike_trains(ds), unit_attributes(ds), strict=True)
    ):
        # The end may round below the last spike that it was made of.
        last = max(stop, train[-1].item()) if train.size else stop
        spikes = neo.SpikeTrain(train, units="ms", t_start=start, t_stop=last)
        _annotate(spikes, attributes, f"attributes of unit {unit}")
        segment.spiketrains.append(spikes)
    if "raw_data" in ds:
        data = np.atleast_2d(ds["raw_data"].values)
        segment.irregularlysampledsignals.append(
            neo.IrregularlySampledSignal(
                ds["raw_time"].values, data.T, time_units="ms", units="dimensionless"
            )
        )
    return block


def from_neo(obj: Any) -> xr.Dataset:
    """Make a Dataset of neo's spike trains.

    Parameters
    ----------
    obj : SpikeTrain, list of SpikeTrain, Segment, or Block of one Segment
        Told by its attributes. Times are converted to ms.

    Returns
    -------
    Dataset
        Of :func:`labtree.spike_data`, from the first start to the last stop; annotations
        become attributes of the units.

    Raises
    ------
    DataError
        A ValueError, if this is none of them, or a Block of several Segments.

    Warns
    -----
    LossWarning
        If there are signals, events, epochs or waveforms that are left out.
    """
    metadata = None
    if hasattr(obj, "segments"):
        if len(obj.segments) != 1:
            raise DataError(
                f"the Block has {len(obj.segments)} segments: convert one with "
                "from_neo(block.segments[0])"
            )
        metadata = obj.annotations.get("metadata")
        obj = obj.segments[0]
    raw = {}
    if hasattr(obj, "spiketrains"):
        raw = _raw(obj)
        obj = obj.spiketrains
    found = [obj] if hasattr(obj, "magnitude") else list(obj)
    for spikes in found:
        if not hasattr(spikes, "t_start") or not hasattr(spikes, "rescale"):
            raise DataError(
                "from_neo takes a SpikeTrain, a list of them, a Segment or a Block, found "
                f"{type(spikes).__name__}"
            )
        if getattr(spikes, "waveforms", None) is not None:
            _lost("waveforms of a SpikeTrain")
    start = min((_milliseconds(spikes.t_start).item() for spikes in found), default=0.0)
    stop = max((_milliseconds(spikes.t_stop).item() for spikes in found), default=0.0)
    return spike_data.spike_data(
        [_milliseconds(spikes) for spikes in found],
        start_time=start,
        length=stop - start,
        neuron_attributes=[dict(spikes.annotations) for spikes in found],
        metadata=metadata,
        **raw,
    )


def _milliseconds(quantity: Any) -> Any:
    # Values that are in ms already keep their dtype.
    plain = quantity if str(quantity.dimensionality) == "ms" else quantity.rescale("ms")
    return np.asarray(plain.magnitude)


def _raw(segment: Any) -> dict[str, Any]:
    signals = list(segment.irregularlysampledsignals)
    for name in ("analogsignals", "events", "epochs"):
        if len(getattr(segment, name)):
            _lost(f"{name} of the Segment")
    if len(signals) > 1:
        _lost("irregularlysampledsignals of the Segment beyond the first")
    if not signals:
        return {}
    return {
        "raw_data": np.asarray(signals[0].magnitude).T,
        "raw_time": _milliseconds(signals[0].times),
    }


def _annotate(target: Any, values: dict[str, Any], what: str) -> None:
    try:
        target.annotate(**values)
    except ValueError as error:
        raise DataError(f"neo cannot hold the {what}: {error}") from error


def _lost(what: str) -> None:
    warnings.warn(f"left out: the {what}", LossWarning, stacklevel=3)
