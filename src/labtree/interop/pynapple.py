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

from labtree.errors import DataError
from labtree.interop.common import MS_PER_S, warn_of_losses
from labtree.objects import rate_data, spike_data
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import unit_attributes
from labtree.optional import require
from labtree.spikes.trains import spike_trains
from labtree.storage.dtypes import object_array
from labtree.storage.ragged import split_rows

_DECIMALS_MS = 6
_TAKEN = {"rate", "index", "rates"}
_SUPPORT = "time_support"
_VALUE = "value"
_KEEP = ": keep the Dataset beside it"


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
        If pynapple cannot hold something in the Dataset.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0], [3.0]], length=5)
    >>> labtree.to_pynapple(ds)  # doctest: +SKIP
    """
    nap = require("pynapple", purpose="conversion to pynapple", extra="pynapple")
    losses: list[str] = []
    if isinstance(obj, pd.DataFrame):
        made = _interval_set(nap, obj, losses)
    else:
        kind = obj.attrs.get(KIND_ATTRIBUTE) if isinstance(obj, xr.Dataset) else None
        if kind not in (spike_data.KIND, rate_data.KIND):
            raise DataError(
                "to_pynapple takes spike_data, rate_data or a table of epochs, found "
                f"{kind or type(obj).__name__!r}"
            )
        make = _group_of_trains if kind == spike_data.KIND else _frame_of_rates
        made = make(nap, obj, losses)
    warn_of_losses(losses, "pynapple cannot hold all of it")
    return made


def _unit_ids(ds: xr.Dataset) -> NDArray[Any]:
    if "unit_id" in ds.coords:
        return np.asarray(ds["unit_id"].values)
    return np.arange(ds.sizes["unit"])


def _frame_of_rates(nap: Any, ds: xr.Dataset, losses: list[str]) -> Any:
    if "units" in ds["rate"].attrs:
        unit = ds["rate"].attrs["units"]
        losses.append(f'the unit of the rates: from_pynapple(obj, unit="{unit}")')
    epochs, ids = ds.attrs.get(_SUPPORT), _unit_ids(ds)
    losses += _not_held(ds, {"rate", "time"})
    frame = nap.TsdFrame(
        t=ds["time"].values.astype(float),
        d=ds["rate"].values.T,
        time_units="ms",
        columns=ids,
        metadata=_metadata(ds, {"unit_id"}, ids, losses),
        # Of one sample pynapple knows no duration.
        time_support=_intervals(nap, epochs) if epochs is not None and len(epochs) else None,
    )
    if epochs is not None and len(epochs) and len(frame) != ds.sizes["time"]:
        losses.append(f'{ds.sizes["time"] - len(frame)} samples outside of attrs["{_SUPPORT}"]')
    return frame


def _not_held(ds: xr.Dataset, known: set[str]) -> list[str]:
    """Return a line for each variable that is neither known nor an attribute of the units."""
    return [
        f"{str(name)!r}{' of the spikes' if variable.dims[:1] == ('spike',) else ''}{_KEEP}"
        for name, variable in ds.variables.items()
        if name not in known and not (name in ds.coords and variable.dims[:1] == ("unit",))
    ]


def _group_of_trains(nap: Any, ds: xr.Dataset, losses: list[str]) -> Any:
    start, length = ds.attrs["start_time"], ds.attrs["length"]
    if not length > 0:
        raise DataError(
            "pynapple has no recording of no duration: give spike_data(..., length=...)"
        )
    metadata = dict(ds.attrs.get("metadata", {}))
    epochs = metadata.pop(_SUPPORT, None)
    support = _intervals(nap, [[start, start + length]] if epochs is None else epochs)
    if metadata:
        losses.append(f"'metadata'{_KEEP}")
    losses += _not_held(ds, {"spike_times", "row_size", "raw_time", _VALUE})
    trains = spike_trains(ds)
    values: list[Any] = [None] * len(trains)
    if _VALUE in ds and ds[_VALUE].dims == ("spike",):
        values = split_rows(ds[_VALUE].values, ds["row_size"].values)
    ids = _unit_ids(ds)
    are_keys = ids.dtype.kind in "iu" and np.unique(ids).size == ids.size
    keys = ids.tolist() if are_keys else list(range(len(trains)))
    members, n_outside = {}, 0
    for key, train, value in zip(keys, trains, values, strict=True):
        about = {"t": train.astype(float), "time_units": "ms", "time_support": support}
        members[key] = nap.Ts(**about) if value is None else nap.Tsd(d=value, **about)
        n_outside += len(train) - len(members[key])
    if n_outside:
        losses.append(f'{n_outside} spikes outside of metadata["{_SUPPORT}"]')
    table = _metadata(ds, {"unit_id"} if are_keys else set(), np.asarray(keys), losses)
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
    rates, times = np.array(values), _milliseconds(obj.t)
    ds = rate_data.rate_data(
        rates[np.newaxis] if rates.ndim == 1 else rates.T,
        times,
        unit=unit,
        neuron_attributes=_attributes(obj) if rates.ndim == 2 else None,
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
    length = round(stop - start, _DECIMALS_MS)
    if stop > start + length and stop - start > length:  # a last spike would lie outside
        length = stop - start
    ds = spike_data.spike_data(
        [_milliseconds(member.t) for member in members],
        start_time=start,
        length=length,
        neuron_attributes=_attributes(obj),
        metadata={_SUPPORT: epochs} if len(epochs) > 1 else None,
    )
    found = (getattr(member, "d", None) for member in members)
    values = [np.asarray(value) for value in found if value is not None]
    if values and len(values) == len(members):
        ds[_VALUE] = ("spike", np.concatenate(values))
    elif values:
        losses = ["the values of some members, as others have none; convert them alone"]
        warn_of_losses(losses, "left out")
    return _with_ids(ds, keys)


def _with_ids(ds: xr.Dataset, keys: list[Any]) -> xr.Dataset:
    if keys == list(range(len(keys))) or "unit_id" in ds.coords:
        return ds
    return ds.assign_coords(unit_id=("unit", np.asarray(keys)))


def _intervals(nap: Any, epochs: Any) -> Any:
    pairs = np.asarray(epochs, np.float64).reshape(-1, 2)
    return nap.IntervalSet(pairs[:, 0], pairs[:, 1], time_units="ms")


def _interval_set(nap: Any, frame: pd.DataFrame, losses: list[str]) -> Any:
    if not {"start_time", "stop_time"} <= set(frame.columns):
        raise DataError(
            "a table of epochs needs the columns start_time and stop_time in s, found "
            f"{', '.join(map(str, frame.columns))}"
        )
    if not frame["start_time"].is_monotonic_increasing:
        # pynapple would sort starts and ends alone, and leave what belongs to them behind.
        frame = frame.sort_values("start_time", kind="stable")
        losses.append("the order of the epochs, which are sorted by their starts")
    others = frame.drop(columns=["start_time", "stop_time"]).reset_index(drop=True)
    found = nap.IntervalSet(frame["start_time"].to_numpy(), frame["stop_time"].to_numpy())
    if len(found) != len(frame):
        losses.append(
            "epochs that overlap or run backwards: it joins or drops them: sort them apart"
        )
    elif len(others.columns):
        found.set_info({str(name): others[name].to_numpy() for name in others})
    return found


def _frame(obj: Any) -> pd.DataFrame:
    columns = {"start_time": np.asarray(obj.start), "stop_time": np.asarray(obj.end)}
    table = getattr(obj, "metadata", None)
    if table is not None:
        columns |= {str(name): table[name].to_numpy() for name in table.columns}
    return pd.DataFrame(columns)


def _milliseconds(seconds: Any) -> NDArray[np.float64]:
    return np.round(np.asarray(seconds, np.float64) * MS_PER_S, _DECIMALS_MS)


def _metadata(
    ds: xr.Dataset, taken: set[str], index: Any, losses: list[str]
) -> pd.DataFrame | None:
    records = unit_attributes(ds)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        if name in _TAKEN:
            losses.append(f"the attribute {name!r} of the units: rename it first")
        elif name not in taken:
            values = [record.get(name) for record in records]
            nested = any(
                isinstance(value, np.ndarray | list | tuple | dict) for value in values
            )
            columns[name] = object_array(values) if nested else values
    return pd.DataFrame(columns, index=index) if columns else None


def _attributes(obj: Any) -> pd.DataFrame | None:
    """Return what is known of the units, without what all of them lack."""
    table = getattr(obj, "metadata", None)
    if table is None or not len(table.columns):
        return None
    return (
        pd.DataFrame(table)
        .drop(columns=list(_TAKEN), errors="ignore")
        .dropna(axis="columns", how="all")
        .rename(columns=str)
    )
