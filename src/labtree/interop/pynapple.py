"""Spike trains, rates and epochs to and from pynapple's objects.

pynapple counts in seconds and rounds to nanoseconds; times in ms come back as they went
as far as they have no more than six decimals. Its metadata mark a missing value by NaN, so
that whole numbers and truth values become floats where units lack them.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, LossWarning, warn
from labtree.objects import rate_data, spike_data
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import unit_attributes
from labtree.optional import require
from labtree.spikes.trains import spike_trains
from labtree.storage.dtypes import object_array
from labtree.storage.ragged import split_rows

__all__ = ["from_pynapple", "to_pynapple"]

_DECIMALS_MS = 6
_TAKEN = {"rate", "index", "rates"}
_SUPPORT = "time_support"
_VALUE = "value"


def to_pynapple(obj: xr.Dataset | pd.DataFrame) -> Any:
    """Return a pynapple object.

    Parameters
    ----------
    obj : Dataset or DataFrame
        From :func:`labtree.spike_data` or :func:`labtree.rate_data`; or a table of epochs
        with the columns start_time and stop_time in s.

    Returns
    -------
    pynapple.TsGroup, pynapple.TsdFrame or pynapple.IntervalSet
        Attributes of the units become its metadata. Where ``unit_id`` holds whole
        numbers, they are the keys of a TsGroup, and in any case the columns of a
        TsdFrame. The epochs that :func:`from_pynapple` kept are its time support.

    Raises
    ------
    DataError
        A ValueError, if this is another kind, or a recording of no duration.

    Warns
    -----
    LossWarning
        If the Dataset has what pynapple has no place for.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0], [3.0]], length=5)
    >>> labtree.to_pynapple(ds)  # doctest: +SKIP
    """
    nap = require("pynapple", purpose="conversion to pynapple", extra="pynapple")
    if isinstance(obj, pd.DataFrame):
        return _interval_set(nap, obj)
    ds = obj
    kind = ds.attrs.get(KIND_ATTRIBUTE)
    if kind not in (spike_data.KIND, rate_data.KIND):
        raise DataError(
            "to_pynapple takes spike_data, rate_data or a table of epochs, found "
            f"{kind or type(obj).__name__!r}"
        )
    ids = ds["unit_id"].values if "unit_id" in ds.coords else np.arange(ds.sizes["unit"])
    whole = ids.dtype.kind in "iu" and np.unique(ids).size == ids.size
    if kind == rate_data.KIND:
        if "units" in ds["rate"].attrs:
            _lost("the unit of the rates", f'from_pynapple(obj, unit="{ds["rate"].units}")')
        epochs = ds.attrs.get(_SUPPORT)
        support = None if epochs is None else _intervals(nap, epochs)
        return nap.TsdFrame(
            t=ds["time"].values.astype(float),
            d=ds["rate"].values.T,
            time_units="ms",
            columns=ids,
            metadata=_metadata(ds, {"unit_id"}, ids),
            time_support=support,
        )
    start, length = ds.attrs["start_time"], ds.attrs["length"]
    if not length > 0:
        raise DataError(
            "pynapple has no recording of no duration: give spike_data(..., length=...)"
        )
    metadata = dict(ds.attrs.get("metadata", {}))
    epochs = metadata.pop(_SUPPORT, None)
    support = _intervals(nap, [[start, start + length]] if epochs is None else epochs)
    if metadata:
        _lost("'metadata'", "keep the Dataset beside it")
    if "raw_data" in ds:
        _lost("'raw_data'", "keep the Dataset beside it")
    others = [
        str(name)
        for name, variable in ds.variables.items()
        if variable.dims[:1] == ("spike",) and name not in ("spike_times", _VALUE)
    ]
    for name in others:
        _lost(f"{name!r} of the spikes", "keep the Dataset beside it")
    trains = spike_trains(ds)
    values: list[Any] = [None] * len(trains)
    if _VALUE in ds and ds[_VALUE].dims == ("spike",):
        values = split_rows(ds[_VALUE].values, ds["row_size"].values)
    keys = [int(value) for value in ids] if whole else list(range(len(trains)))
    members = {}
    for key, train, value in zip(keys, trains, values, strict=True):
        about = {"t": train.astype(float), "time_units": "ms", "time_support": support}
        members[key] = nap.Ts(**about) if value is None else nap.Tsd(d=value, **about)
    taken = {"unit_id"} if whole else set()
    table = _metadata(ds, taken, np.asarray(keys))
    return nap.TsGroup(members, time_support=support, metadata=table)


def from_pynapple(obj: Any, *, unit: str | None = None) -> xr.Dataset | pd.DataFrame:
    """Return a pynapple object as labtree's.

    Parameters
    ----------
    obj : TsGroup, Ts, Tsd, TsdFrame or IntervalSet
        Recognized by its attributes.
    unit : {"Hz", "kHz", None}
        Unit of the rates of a Tsd or TsdFrame.

    Returns
    -------
    Dataset or DataFrame
        Of spike trains for a TsGroup or Ts, of rates for a Tsd or TsdFrame, and for an
        IntervalSet a table with start_time and stop_time in s. Keys of a TsGroup and
        columns of a TsdFrame are ``unit_id``, unless they count from 0; metadata become
        attributes of the units, values of a Tsd in a TsGroup the variable ``value`` along
        ``spike``. Where the time support is not one stretch over all, it is kept in ms: of
        spikes as ``metadata["time_support"]``, of rates as the attribute
        ``time_support``.

    Raises
    ------
    DataError
        A ValueError, if this is none of them.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0], [3.0]], length=5)
    >>> labtree.from_pynapple(labtree.to_pynapple(ds)).identical(ds)  # doctest: +SKIP
    True
    """
    support = getattr(obj, "time_support", None)
    if hasattr(obj, "start") and hasattr(obj, "end") and hasattr(obj, "tot_length"):
        return _frame(obj)
    if support is not None and hasattr(obj, "keys") and not hasattr(obj, "t"):
        return _spikes(obj, [obj[key] for key in list(obj.keys())], list(obj.keys()))
    values = getattr(obj, "d", None)
    if support is not None and hasattr(obj, "t") and values is None:
        return _spikes(obj, [obj], [0])
    if support is None or values is None or np.ndim(values) > 2:
        raise DataError(
            "from_pynapple takes a TsGroup, Ts, Tsd, TsdFrame or IntervalSet, found "
            f"{type(obj).__name__}"
        )
    rates, times = np.asarray(values), _milliseconds(obj.t)
    ds = rate_data.rate_data(
        rates[np.newaxis] if rates.ndim == 1 else rates.T,
        times,
        unit=unit,
        neuron_attributes=_records(obj) if rates.ndim == 2 else None,
    )
    if rates.ndim == 2:
        ds = _with_ids(ds, list(obj.columns))
    epochs = _milliseconds(support.values)
    ends = [[times[0], times[-1]]] if times.size else []
    if not np.array_equal(epochs, ends):
        ds.attrs[_SUPPORT] = epochs.tolist()
    return ds


def _spikes(obj: Any, members: list[Any], keys: list[Any]) -> xr.Dataset:
    epochs = _milliseconds(obj.time_support.values)
    start, stop = (epochs[0, 0].item(), epochs[-1, 1].item()) if len(epochs) else (0.0, 0.0)
    ds = spike_data.spike_data(
        [_milliseconds(member.t) for member in members],
        start_time=start,
        length=stop - start,
        neuron_attributes=_records(obj),
        metadata={_SUPPORT: epochs} if len(epochs) > 1 else None,
    )
    values = [getattr(member, "d", None) for member in members]
    if members and all(value is not None for value in values):
        ds[_VALUE] = ("spike", np.concatenate([np.asarray(value) for value in values]))
    elif any(value is not None for value in values):
        warn(
            "left out: the values of some members, as others have none; convert these apart",
            LossWarning,
        )
    return _with_ids(ds, keys)


def _with_ids(ds: xr.Dataset, keys: list[Any]) -> xr.Dataset:
    if keys == list(range(len(keys))) or "unit_id" in ds.coords:
        return ds
    return ds.assign_coords(unit_id=("unit", np.asarray(keys)))


def _intervals(nap: Any, epochs: Any) -> Any:
    pairs = np.asarray(epochs, np.float64).reshape(-1, 2)
    return nap.IntervalSet(pairs[:, 0], pairs[:, 1], time_units="ms")


def _interval_set(nap: Any, frame: pd.DataFrame) -> Any:
    if not {"start_time", "stop_time"} <= set(frame.columns):
        raise DataError(
            "a table of epochs needs the columns start_time and stop_time in s, found "
            f"{', '.join(map(str, frame.columns))}"
        )
    others = frame.drop(columns=["start_time", "stop_time"]).reset_index(drop=True)
    found = nap.IntervalSet(frame["start_time"].to_numpy(), frame["stop_time"].to_numpy())
    if len(found) != len(frame):
        _lost("epochs that overlap or run backwards: it joins or drops them", "sort them apart")
        return found
    if len(others.columns):
        found.set_info({str(name): others[name].to_numpy() for name in others})
    return found


def _frame(obj: Any) -> pd.DataFrame:
    columns = {"start_time": np.asarray(obj.start), "stop_time": np.asarray(obj.end)}
    table = getattr(obj, "metadata", None)
    if table is not None:
        columns |= {str(name): table[name].to_numpy() for name in table.columns}
    return pd.DataFrame(columns)


def _milliseconds(seconds: Any) -> NDArray[np.float64]:
    return np.round(np.asarray(seconds, dtype=np.float64) * 1000, _DECIMALS_MS)


def _metadata(ds: xr.Dataset, taken: set[str], index: Any) -> pd.DataFrame | None:
    records = unit_attributes(ds)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        if name in taken:
            continue
        values = [record.get(name) for record in records]
        if name in _TAKEN:
            _lost(f"the attribute {name!r} of the units", "rename it first")
            continue
        if any(isinstance(value, np.ndarray | list | tuple | dict) for value in values):
            columns[name] = object_array(values)
            continue
        columns[name] = values
    return pd.DataFrame(columns, index=index) if columns else None


def _records(obj: Any) -> list[dict[str, Any]] | None:
    table = getattr(obj, "metadata", None)
    if table is None or not len(table.columns):
        return None
    columns = {name: table[name].tolist() for name in table.columns if name not in _TAKEN}
    return [
        {str(name): values[row] for name, values in columns.items() if _is_there(values[row])}
        for row in range(len(table))
    ]


def _is_there(value: Any) -> bool:
    return bool(np.ndim(value) or isinstance(value, list | tuple | dict) or not pd.isna(value))


def _lost(what: str, remedy: str) -> None:
    warn(f"pynapple has no place for {what}: {remedy}", LossWarning)
