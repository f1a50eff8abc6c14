"""Spike trains to and from neo's SpikeTrain, Segment and Block."""

import sys
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.interop.common import warn_of_losses
from labtree.objects import spike_data
from labtree.objects.unit_attributes import attribute_columns, unit_attributes
from labtree.optional import require
from labtree.spikes import spike_trains
from labtree.spikes.trains import require_kind
from labtree.storage.ragged import split_rows

_OWN = {"name", "description", "file_origin", "sampling_rate_hz", "t_start_ms", "t_stop_ms"}
_VOLTAGES = ("V", "mV", "uV", "nV")
_DATES = ("file_datetime", "rec_datetime")
_CONTAINER = ("name", "description", "file_origin", "index", *_DATES)


def to_neo(ds: xr.Dataset) -> Any:
    """Return a neo Block of one Segment, with a SpikeTrain for each unit.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.

    Returns
    -------
    neo.Block
        Attributes of the units become annotations of the SpikeTrains, those called name,
        description and sampling_rate_hz their own fields. What is known of each spike
        becomes array annotations, ``waveforms`` their waveforms. Metadata become the
        annotation ``metadata`` of the Block, but for what :func:`from_neo` put there,
        raw data an IrregularlySampledSignal.

    Raises
    ------
    DataError
        A ValueError, if this is another kind, or neo cannot hold an attribute.

    Warns
    -----
    LossWarning
        If the Dataset has variables that neo has no place for.

    Examples
    --------
    >>> import labtree
    >>> block = labtree.to_neo(labtree.spike_data([[1.0, 2.0]], length=5))  # doctest: +SKIP
    """
    neo = require("neo", purpose="conversion to neo", extra="neo")
    require_kind(ds, "to_neo", spike_data.KIND)
    metadata = dict(ds.attrs.get("metadata", {}))
    block = _container(neo.Block, metadata.pop("neo_block", None), "Block")
    segment = _container(neo.Segment, metadata.pop("neo_segment", None), "Segment")
    block.segments.append(segment)
    for about in metadata.pop("neo_events", []):
        segment.events.append(_marks(neo.Event, about))
    for about in metadata.pop("neo_epochs", []):
        segment.epochs.append(_marks(neo.Epoch, about))
    if metadata:
        _annotate(block, {"metadata": metadata}, "metadata")
    units = {
        name: variable.attrs["units"]
        for name, variable, _ in attribute_columns(ds)
        if "units" in variable.attrs
    }
    per_spike = {
        str(name): (split_rows(v.values, ds["row_size"].values), v.attrs.get("units"))
        for name, v in ds.variables.items()
        if v.dims[:1] == ("spike",) and name != "spike_times"
    }
    for unit, (train, attributes) in enumerate(
        zip(spike_trains(ds), unit_attributes(ds), strict=True)
    ):
        arrays = {name: _with_units(rows[unit], of) for name, (rows, of) in per_spike.items()}
        # A copy: who changes an object of neo does not mean the Dataset.
        spikes = neo.SpikeTrain(
            np.array(train), units="ms", **_own_fields(ds, train, attributes, arrays),
            array_annotations=arrays,
        )  # fmt: skip
        named = {name: _with_units(v, units.get(name)) for name, v in attributes.items()}
        _annotate(spikes, named, f"attributes of unit {unit}")
        segment.spiketrains.append(spikes)
    known = {"spike_times", "row_size", "raw_data", "raw_time", *map(str, per_spike)}
    losses = [
        f"left out: {str(name)!r} of the Dataset"
        for name, variable in ds.variables.items()
        if name not in known and not (name in ds.coords and variable.dims[:1] == ("unit",))
    ]
    warn_of_losses(losses, "neo does not hold all of it")
    if "raw_data" in ds:
        data, stated = np.atleast_2d(ds["raw_data"].values), ds["raw_data"].attrs.get("units")
        segment.irregularlysampledsignals.append(
            neo.IrregularlySampledSignal(
                np.array(ds["raw_time"].values),
                np.array(data.T),
                time_units="ms",
                units=stated if stated in _VOLTAGES else "dimensionless",
            )
        )
    return block


def _own_fields(
    ds: xr.Dataset, train: NDArray[Any], attributes: dict[str, Any], arrays: dict[str, Any]
) -> dict[str, Any]:
    """Take what a SpikeTrain has fields for from the attributes and arrays of a unit."""
    own = {name: attributes.pop(name) for name in _OWN & attributes.keys()}
    start = ds.attrs["start_time"]
    stop = own.get("t_stop_ms", start + ds.attrs["length"])
    # The end may round below the last spike that it was made of.
    fields = {
        "t_start": own.get("t_start_ms", start),
        "t_stop": max(stop, train[-1].item()) if train.size else stop,
    }
    texts = ("name", "description", "file_origin")
    fields |= {name: str(own[name]) for name in texts if name in own}
    if "sampling_rate_hz" in own:
        fields["sampling_rate"] = _with_units(own["sampling_rate_hz"], "Hz")
    if "waveforms" in arrays:
        fields["waveforms"] = arrays.pop("waveforms")
    return fields


def from_neo(obj: Any, *, segment: int | None = None) -> xr.Dataset:
    """Return neo's spike trains as a Dataset.

    Parameters
    ----------
    obj : SpikeTrain, list of SpikeTrain, Segment, or Block
        Recognized by its attributes. Times are converted to ms.
    segment : int, optional
        Which Segment of a Block, counted from 0; not needed for a Block of one.

    Returns
    -------
    Dataset
        Of :func:`labtree.spike_data`, from the first start to the last stop. Names,
        descriptions, sampling rates, own starts and stops, and annotations of the trains
        become attributes of the units; array annotations and waveforms variables along
        ``spike``. A quantity becomes its number, with its unit in the attribute
        ``units``. Names and annotations of Block and Segment, its events and epochs are
        in ``ds.attrs["metadata"]``, under names that start with ``neo_``.

    Raises
    ------
    DataError
        A ValueError, if this is none of them, or a Block without the Segment asked for, or
        with several where none was asked for.

    Warns
    -----
    LossWarning
        If there are signals that are left out, or array annotations or waveforms that not
        all trains have.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0]], length=5)
    >>> labtree.from_neo(labtree.to_neo(ds)).identical(ds)  # doctest: +SKIP
    True
    """
    metadata: dict[str, Any] = {}
    losses: list[str] = []
    raw: dict[str, Any] = {}
    raw_unit: str | None = None
    if hasattr(obj, "segments"):
        if len(getattr(obj, "groups", ())):
            losses.append("left out: the groups of the Block")
        obj = _segment_of_block(obj, segment, metadata)
    elif segment is not None:
        raise DataError(
            f"segment={segment} chooses from a Block, found {type(obj).__name__}; leave it out"
        )
    if hasattr(obj, "spiketrains"):
        _keep_segment(obj, metadata)
        raw, raw_unit = _raw(obj, losses)
        obj = obj.spiketrains
    found = [obj] if hasattr(obj, "magnitude") or not np.iterable(obj) else list(obj)
    for spikes in found:
        is_train = hasattr(spikes, "t_start") and hasattr(spikes, "rescale")
        if not is_train or getattr(spikes, "ndim", 1) != 1:  # signals have two dimensions
            raise DataError(
                "from_neo takes a SpikeTrain, a list of them, a Segment or a Block, found "
                f"{type(spikes).__name__}"
            )
    start = min((_milliseconds(spikes.t_start).item() for spikes in found), default=0.0)
    stop = max((_milliseconds(spikes.t_stop).item() for spikes in found), default=0.0)
    units: dict[str, str] = {}
    ds = spike_data.spike_data(
        [_milliseconds(spikes) for spikes in found],
        start_time=start,
        length=stop - start,
        neuron_attributes=[_attributes(spikes, start, stop, units) for spikes in found],
        metadata=metadata or None,
        **raw,
    )
    for name, variable, _ in attribute_columns(ds):
        if name in units:
            variable.attrs["units"] = units[name]
    if "raw_data" in ds and raw_unit not in (None, "dimensionless"):
        ds["raw_data"].attrs["units"] = raw_unit
    ds = _with_arrays(ds, found, losses)
    warn_of_losses(losses, "neo has more than a Dataset of spike trains holds")
    return ds


def _segment_of_block(block: Any, chosen: int | None, metadata: dict[str, Any]) -> Any:
    """Return the Segment that is meant; put what is known of the Block into the metadata."""
    n = len(block.segments)
    if n == 0 or (chosen is not None and not -n <= chosen < n):
        found = "no Segment" if n == 0 else f"the Segments 0 to {n - 1}"
        asked = "" if chosen is None else f", not {chosen}"
        raise DataError(f"from_neo: the Block has {found}{asked}")
    if chosen is None and n > 1:
        raise DataError(
            f"the Block has {n} Segments, each with a time of its own; convert one with "
            "from_neo(block, segment=0), or store all:\n"
            f"    for i in range({n}):\n"
            "        tree.ws.store('block', f'segment_{i}', labtree.from_neo(block, segment=i))"
        )
    annotations = dict(block.annotations)
    if isinstance(annotations.get("metadata"), Mapping):  # as to_neo puts it there
        metadata.update(annotations.pop("metadata"))
    _keep(metadata, "neo_block", block, annotations)
    return block.segments[chosen or 0]


def _keep_segment(segment: Any, metadata: dict[str, Any]) -> None:
    """Put what is known of a Segment, its events and epochs into the metadata."""
    _keep(metadata, "neo_segment", segment, segment.annotations)
    for what in ("events", "epochs"):
        marks = [_plain_marks(each) for each in getattr(segment, what)]
        if marks:
            metadata[f"neo_{what}"] = marks


def _milliseconds(quantity: Any) -> Any:
    # Values that are in ms already keep their dtype.
    plain = quantity if str(quantity.dimensionality) == "ms" else quantity.rescale("ms")
    return np.asarray(plain.magnitude)


def _attributes(
    spikes: Any, start: float, stop: float, units: dict[str, str]
) -> dict[str, Any]:
    """Return what is known of a train; note the units of quantities."""
    out: dict[str, Any] = {}
    for name in ("name", "description", "file_origin"):
        if getattr(spikes, name, None):
            out[name] = str(getattr(spikes, name))
    rate = getattr(spikes, "sampling_rate", None)
    # neo gives a train without a rate one of 1 Hz.
    if rate is not None and float(rate.rescale("Hz").magnitude) != 1.0:
        out["sampling_rate_hz"] = float(rate.rescale("Hz").magnitude)
    own = _milliseconds(spikes.t_start).item(), _milliseconds(spikes.t_stop).item()
    if own[0] != start:
        out["t_start_ms"] = own[0]
    if own[1] != stop:
        out["t_stop_ms"] = own[1]
    for name, value in spikes.annotations.items():
        if name in _OWN & out.keys():
            name = f"{name}_annotation"
        if hasattr(value, "magnitude"):
            unit = units.setdefault(str(name), str(value.dimensionality))
            try:
                magnitude = np.asarray(value.rescale(unit).magnitude)
            except ValueError as error:
                raise DataError(
                    f"the annotation {name!r} is in {unit} in one train and in "
                    f"{value.dimensionality} in another: give it one unit, or two names"
                ) from error
            value = magnitude.item() if magnitude.ndim == 0 else magnitude
        out[str(name)] = value
    return out


def _with_arrays(ds: xr.Dataset, trains: list[Any], losses: list[str]) -> xr.Dataset:
    """Add array annotations and waveforms, in the order of the sorted spikes."""
    orders = [np.argsort(_milliseconds(spikes), kind="stable") for spikes in trains]
    having: dict[str, list[Any]] = {}
    for spikes in trains:
        arrays = dict(getattr(spikes, "array_annotations", None) or {})
        if getattr(spikes, "waveforms", None) is not None:
            arrays["waveforms"] = spikes.waveforms
        for name, values in arrays.items():
            having.setdefault(str(name), []).append(values)
    variables: dict[str, Any] = {}
    for name, parts in having.items():
        target = f"{name}_of_spike" if name in ds.variables or name in ds.dims else name
        unit = str(parts[0].dimensionality) if hasattr(parts[0], "dimensionality") else None
        try:
            if len(parts) != len(trains):
                raise ValueError("not all trains have them")
            values = [
                np.asarray(part.rescale(unit).magnitude if unit else part)[order]
                for part, order in zip(parts, orders, strict=True)
            ]
            flat = np.concatenate(values)
        except (ValueError, IndexError, AttributeError) as error:
            losses.append(f"left out: the {name} of the spikes: {error}")
            continue
        more = (
            ("waveform_channel", "waveform_sample")
            if name == "waveforms"
            else tuple(f"{target}_{axis}" for axis in range(1, flat.ndim))
        )
        attrs = {} if unit is None else {"units": unit}
        variables[target] = xr.Variable(("spike", *more), flat, attrs)
    return ds.assign(variables)


def _keep(
    metadata: dict[str, Any], what: str, container: Any, annotations: Mapping[str, Any]
) -> None:
    """Put name, dates and annotations of a Block or Segment into the metadata."""
    about = {
        name: _plain(getattr(container, name))
        for name in _CONTAINER
        if getattr(container, name, None) is not None and not callable(getattr(container, name))
    }
    if annotations:
        about["annotations"] = {str(name): _plain(value) for name, value in annotations.items()}
    if about:
        metadata[what] = about


def _plain_marks(marks: Any) -> dict[str, Any]:
    """Return an Event or Epoch as plain values, times in ms."""
    about: dict[str, Any] = {
        "name": marks.name or "",
        "times_ms": _milliseconds(marks.times if hasattr(marks, "times") else marks),
        "labels": [str(label) for label in marks.labels],
    }
    if hasattr(marks, "durations"):
        about["durations_ms"] = _milliseconds(marks.durations)
    if marks.annotations:
        about["annotations"] = {str(k): _plain(v) for k, v in marks.annotations.items()}
    return about


def _marks(make: Any, about: Mapping[str, Any]) -> Any:
    more: dict[str, Any] = {}
    if "durations_ms" in about:
        more["durations"] = _with_units(np.asarray(about["durations_ms"]), "ms")
    times = _with_units(np.asarray(about["times_ms"]), "ms")
    labels = np.array(about["labels"], dtype="U")
    marks = make(times=times, labels=labels, name=about["name"] or None, **more)
    marks.annotate(**about.get("annotations", {}))
    return marks


def _plain(value: Any) -> Any:
    """Return a value that can be stored; a quantity as text."""
    if hasattr(value, "dimensionality"):
        with np.printoptions(threshold=sys.maxsize):  # all of the values of a long one
            return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner) for inner in value)
    return value


def _container(make: Any, about: Any, what: str) -> Any:
    """Make a Block or Segment of what was kept of one in the metadata."""
    kept = about if isinstance(about, Mapping) else {}
    fields = {name: kept[name] for name in _CONTAINER if name in kept}
    fields |= {name: datetime.fromisoformat(kept[name]) for name in _DATES if name in kept}
    made = make(**fields)
    _annotate(made, kept.get("annotations", {}), f"annotations of the {what}")
    return made


def _with_units(value: Any, unit: str | None) -> Any:
    if unit is None:
        return value
    quantities = require("quantities", purpose="conversion to neo", extra="neo")
    try:
        return quantities.Quantity(value, unit)
    except (LookupError, SyntaxError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"neo has no values in {unit!r} ({error}): delete the attribute 'units' of the "
            "variable that states it, as in del ds['depth'].attrs['units']"
        ) from error


def _raw(segment: Any, losses: list[str]) -> tuple[dict[str, Any], str | None]:
    """Return the first irregularly sampled signal, and its unit; list what is left out."""
    signals = list(segment.irregularlysampledsignals)
    if len(segment.analogsignals):
        losses.append("left out: the analogsignals of the Segment")
    if len(getattr(segment, "imagesequences", ())):
        losses.append("left out: the imagesequences of the Segment")
    for what in ("events", "epochs"):
        arrays = {
            name
            for each in getattr(segment, what)
            for name in getattr(each, "array_annotations", None) or ()
        }
        if arrays:
            names = ", ".join(sorted(map(str, arrays)))
            losses.append(f"left out: the array annotations of the {what}: {names}")
    if len(signals) > 1:
        losses.append("left out: the irregularlysampledsignals of the Segment beyond the first")
    if not signals:
        return {}, None
    raw = {
        "raw_data": np.array(np.asarray(signals[0].magnitude).T),
        "raw_time": np.array(_milliseconds(signals[0].times)),
    }
    return raw, str(signals[0].dimensionality)


def _annotate(target: Any, values: Mapping[str, Any], what: str) -> None:
    try:
        target.annotate(**values)
    except ValueError as error:
        raise DataError(f"neo cannot hold the {what}: {error}") from error
