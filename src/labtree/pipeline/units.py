"""Units of a session: one Dataset for all of them, spikes as one ragged array.

``session["units"]`` has the dimensions ``unit`` and ``spike``: ``row_size(unit)`` counts
the spikes of each unit, ``spike_times(spike)`` holds their sample numbers, unit after
unit (CF contiguous ragged array).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError, unknown_name
from labtree.pipeline.rows import decode_rows, encode_rows

__all__ = [
    "add_units",
    "decode_units",
    "encode_units",
    "spike_offsets",
    "spike_trains",
    "unit_index",
    "unit_spikes",
    "units_of",
]

Array = np.ndarray[Any, Any]


def units_of(session: xr.DataTree) -> xr.Dataset:
    """Return the Dataset of units.

    Raises
    ------
    SessionError
        If the session has no units yet.
    """
    if "units" not in session.children:
        raise SessionError(
            f"session {session.attrs.get('dataset_id')!r} has no units yet; load them with "
            "labtree.mea.load_recording(session=session, ...) or add them with "
            "session.session.add_units({...})"
        )
    return session.children["units"].to_dataset(inherit=False)


def unit_index(units: xr.Dataset, unit_id: str) -> int:
    """Return the row of a unit.

    Raises
    ------
    SessionError
        (also a KeyError) if there is no such unit; the message lists those there are.
    """
    index = units.get_index("unit")
    if unit_id not in index:
        raise unknown_name("unit", unit_id, index)
    return int(np.flatnonzero(units["unit"].values == unit_id)[0])


def spike_offsets(units: xr.Dataset) -> Array:
    """Return where each unit's spikes start, int64 (n_units + 1)."""
    return np.concatenate([[0], np.cumsum(units["row_size"].values)]).astype(np.int64)


def spike_trains(units: xr.Dataset) -> dict[str, Array]:
    """Return every unit's spike times in samples, as views of the flat array."""
    trains = np.split(units["spike_times"].values, spike_offsets(units)[1:-1])
    return {str(unit): train for unit, train in zip(units["unit"].values, trains, strict=True)}


def unit_spikes(session: xr.DataTree, unit_id: str) -> xr.DataArray:
    """Return one unit's spike times in samples.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> add_units(session, {"unit_001": {"spike_times": np.array([5, 9])}})
    >>> unit_spikes(session, "unit_001").values
    array([5, 9])
    """
    units = units_of(session)
    row, offsets = unit_index(units, unit_id), spike_offsets(units)
    part = units["spike_times"].isel(spike=slice(int(offsets[row]), int(offsets[row + 1])))
    return part.assign_coords(unit=unit_id)


def _train(unit: str, values: Any) -> Array:
    train = np.atleast_1d(np.asarray(values))
    if train.size == 0:
        return np.zeros(0, np.int64)
    if train.ndim != 1 or train.dtype.kind not in "iu":
        raise SessionError(
            f"spike_times of {unit!r} must be sample numbers, a one-dimensional integer array; "
            f"got {train.dtype} {train.shape}. From seconds: "
            "np.round(seconds * rate).astype(np.int64)"
        )
    if train.dtype.kind == "u" and int(train.max()) > np.iinfo(np.int64).max:
        raise SessionError(f"spike_times of {unit!r} exceed 64-bit signed integers")
    train = train.astype(np.int64)
    if (np.diff(train) < 0).any():
        raise SessionError(
            f"spike_times of {unit!r} are not in order; pass np.sort(spike_times)"
        )
    return train


def encode_units(
    rows: Mapping[str, Mapping[str, Any]], like: xr.Dataset | None = None
) -> xr.Dataset:
    """Return the Dataset of units from a dictionary per unit.

    ``spike_times`` becomes the ragged array; other arrays that are as long as the
    unit's spike train in every unit, while the trains differ in length, lie along
    ``spike`` too. The rest goes as :func:`labtree.pipeline.rows.encode_rows` says.

    Raises
    ------
    SessionError
        If spike times are not sorted integers, or if the units disagree on a type.
    """
    trains = {unit: _train(unit, row.get("spike_times", ())) for unit, row in rows.items()}
    counts = np.array([len(train) for train in trains.values()], np.int64)
    along: list[str] = []
    if rows:
        along = [
            name
            for name in next(iter(rows.values()))
            if name != "spike_times"
            and (
                (
                    like is not None
                    and name in like.variables
                    and like.variables[name].dims == ("spike",)
                )
                or len(set(counts.tolist())) > 1
            )
            and all(
                isinstance(row.get(name), np.ndarray) and row[name].shape == (len(train),)
                for row, train in zip(rows.values(), trains.values(), strict=True)
            )
        ]
    rest = {
        unit: {k: v for k, v in row.items() if k != "spike_times" and k not in along}
        for unit, row in rows.items()
    }
    dataset = encode_rows(rest, like)
    flat = np.concatenate(list(trains.values())) if trains else np.zeros(0, np.int64)
    dataset["row_size"] = ("unit", counts, {"sample_dimension": "spike"})
    dataset["spike_times"] = ("spike", flat, {"units": "sample"})
    for name in along:
        dataset[name] = ("spike", np.concatenate([row[name] for row in rows.values()]))
    if like is not None:
        for name in ["spike_times", *along]:
            dataset[name].attrs.update(like[name].attrs if name in like else {})
    return dataset


def decode_units(units: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return a dictionary per unit; the inverse of :func:`encode_units`."""
    return decode_rows(units)


def add_units(session: xr.DataTree, units: Mapping[str, Mapping[str, Any]]) -> None:
    """Add units, or replace values of units that are there, from dictionaries.

    Parameters
    ----------
    session : DataTree
    units : mapping of unit id to mapping
        ``spike_times`` in samples, any other arrays and scalars, and ``features``
        (name to ``{"data": ..., "metadata": ...}``).

    Raises
    ------
    SessionError
        As :func:`encode_units`; the session is then as it was.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> add_units(session, {"unit_001": {"spike_times": np.array([5, 9]), "row": 3}})
    >>> session["units"].sel(unit="unit_001")["row"].item()
    3
    """
    from labtree.pipeline.features import add_feature

    for unit in units:
        if not isinstance(unit, str) or not unit:
            raise SessionError(f"a unit's id must be a non-empty string, got {unit!r}")
    old = units_of(session) if "units" in session.children else None
    rows = decode_units(old) if old is not None else {}
    for unit, values in units.items():
        plain = {str(k): v for k, v in values.items() if k != "features"}
        rows[unit] = {**rows.get(unit, {}), **plain}
    # encoded first, so that an error leaves the session alone
    encoded = encode_units(rows, old)
    if old is not None and "sections" in session.children:
        before, after = spike_trains(old), spike_trains(encoded)
        moved = [unit for unit in before if not np.array_equal(before[unit], after[unit])]
        if moved:
            raise SessionError(
                f"the spikes of {', '.join(moved[:5])} are divided into trials already, which "
                "would be wrong for other spikes. First: del session['sections']"
            )
    given = {unit: dict(values.get("features", {})) for unit, values in units.items()}
    touched = {name for features in given.values() for name in features}
    nodes = session.children["features"].children if "features" in session.children else {}
    kept = {name: nodes[name].to_dataset().copy(deep=True) for name in touched & set(nodes)}
    session["units"] = xr.DataTree(encoded)
    try:
        for unit, features in given.items():
            for name, feature in features.items():
                whole = isinstance(feature, Mapping) and "data" in feature
                data = feature["data"] if whole else feature
                notes = feature.get("metadata") if whole else None
                add_feature(session, unit, name, data, notes)
    except BaseException:
        _restore(session, old, touched, kept)
        raise


def _restore(
    session: xr.DataTree,
    units: xr.Dataset | None,
    touched: set[str],
    features: Mapping[str, xr.Dataset],
) -> None:
    """Put units and features back as they were before a call that failed."""
    if units is None:
        del session["units"]
    else:
        session["units"] = xr.DataTree(units)
    if "features" in session.children:
        node = session.children["features"]
        for name in touched & set(node.children):
            if name in features:
                node.children[name].dataset = features[name]
            else:
                del node[name]
        if not node.children:
            del session["features"]
