"""Spike trains and rates to and from pynapple's TsGroup, Tsd and TsdFrame.

pynapple counts in seconds and rounds to nanoseconds; times in ms come back as they went
as far as they have no more than six decimals. Its metadata mark a missing value by NaN, so
that whole numbers and truth values become floats where units lack them.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, LossWarning
from labtree.objects import rate_data, spike_data
from labtree.objects.unit_attributes import unit_attributes
from labtree.optional import require
from labtree.spikes.trains import spike_trains

__all__ = ["from_pynapple", "to_pynapple"]

_DECIMALS_MS = 6
_TAKEN = {"rate", "index", "rates"}


def to_pynapple(ds: xr.Dataset) -> Any:
    """Make a pynapple object.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data` or :func:`labtree.rate_data`.

    Returns
    -------
    pynapple.TsGroup or pynapple.TsdFrame
        Attributes of the units, one value for each, become its metadata.

    Raises
    ------
    DataError
        A ValueError, if this is another kind, or a recording of no duration.

    Warns
    -----
    LossWarning
        If the Dataset has what pynapple has no place for.
    """
    nap = require("pynapple", purpose="conversion to pynapple", extra="pynapple")
    kind = ds.attrs.get("labtree_kind")
    if kind not in (spike_data.KIND, rate_data.KIND):
        raise DataError(f"to_pynapple takes spike_data or rate_data, found {kind!r}")
    metadata = _metadata(ds)
    if kind == rate_data.KIND:
        if "units" in ds["rate"].attrs:
            _lost("the unit of the rates", f'from_pynapple(obj, unit="{ds["rate"].units}")')
        return nap.TsdFrame(
            t=ds["time"].values.astype(float),
            d=ds["rate"].values.T,
            time_units="ms",
            metadata=metadata,
        )
    start, length = ds.attrs["start_time"], ds.attrs["length"]
    if not length > 0:
        raise DataError(
            "pynapple has no recording of no duration: give spike_data(..., length=...)"
        )
    for name in ("metadata", "raw_data"):
        if name in ds.attrs or name in ds:
            _lost(f"{name!r}", "keep the Dataset beside it")
    support = nap.IntervalSet(start, start + length, time_units="ms")
    return nap.TsGroup(
        {
            unit: nap.Ts(t=train.astype(float), time_units="ms", time_support=support)
            for unit, train in enumerate(spike_trains(ds))
        },
        time_support=support,
        metadata=metadata,
    )


def from_pynapple(obj: Any, *, unit: str | None = None) -> xr.Dataset:
    """Make a Dataset of a pynapple object.

    Parameters
    ----------
    obj : TsGroup, Tsd or TsdFrame
        Told by its attributes.
    unit : {"Hz", "kHz", None}
        Unit of the rates of a Tsd or TsdFrame.

    Returns
    -------
    Dataset
        Of spike trains for a TsGroup, of rates otherwise. Metadata become attributes of
        the units. Where the time support has gaps, it is kept in ms as
        ``metadata["time_support"]``.

    Raises
    ------
    DataError
        A ValueError, if this is none of them.
    """
    support = getattr(obj, "time_support", None)
    if support is not None and hasattr(obj, "keys") and not hasattr(obj, "t"):
        epochs = _milliseconds(support.values)
        start, stop = epochs[0, 0].item(), epochs[-1, 1].item()
        return spike_data.spike_data(
            [_milliseconds(obj[key].t) for key in obj.keys()],  # noqa: SIM118
            start_time=start,
            length=stop - start,
            neuron_attributes=_records(obj),
            metadata={"time_support": epochs} if len(epochs) > 1 else None,
        )
    values = getattr(obj, "d", None)
    if support is None or values is None or np.ndim(values) > 2:
        raise DataError(
            f"from_pynapple takes a TsGroup, Tsd or TsdFrame, found {type(obj).__name__}"
        )
    rates = np.asarray(values)
    return rate_data.rate_data(
        rates[np.newaxis] if rates.ndim == 1 else rates.T,
        _milliseconds(obj.t),
        unit=unit,
        neuron_attributes=_records(obj) if rates.ndim == 2 else None,
    )


def _milliseconds(seconds: Any) -> NDArray[np.float64]:
    return np.round(np.asarray(seconds, dtype=np.float64) * 1000, _DECIMALS_MS)


def _metadata(ds: xr.Dataset) -> pd.DataFrame | None:
    records = unit_attributes(ds)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if name in _TAKEN or any(isinstance(value, np.ndarray) for value in values):
            _lost(f"the attribute {name!r} of the units", "keep the Dataset beside it")
            continue
        columns[name] = values
    return pd.DataFrame(columns) if columns else None


def _records(obj: Any) -> list[dict[str, Any]] | None:
    table = getattr(obj, "metadata", None)
    if table is None or not len(table.columns):
        return None
    columns = {name: table[name].tolist() for name in table.columns if name not in _TAKEN}
    return [
        {name: values[row] for name, values in columns.items() if not pd.isna(values[row])}
        for row in range(len(table))
    ]


def _lost(what: str, remedy: str) -> None:
    warnings.warn(f"pynapple has no place for {what}: {remedy}", LossWarning, stacklevel=4)
