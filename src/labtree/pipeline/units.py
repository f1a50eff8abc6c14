"""Units and features of a session: whole arrays for all units.

``session["units"]`` has the dimensions ``unit`` and ``spike``: ``row_size(unit)`` counts
the spikes of each unit, ``spike_times(spike)`` holds their sample numbers, unit after
unit (CF contiguous ragged array). ``session["features/<name>"]`` is one Dataset along
``unit`` for each feature.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError
from labtree.pipeline.per_unit import (
    UNSTACKED,
    common_dtype,
    decode_rows,
    encode_rows,
    unit_index,
)
from labtree.pipeline.sections import add_trials, put_sections
from labtree.pipeline.session_values import (
    child_group,
    named_children,
    named_dataset,
    own_copy,
    put_node,
    real_name,
    variable_name,
)
from labtree.pipeline.sessions import units_of
from labtree.storage import ragged
from labtree.storage._xarray import data_of
from labtree.storage.missing import ANCILLARY, masks_of

SECTIONED = "spike_times_sectioned"


def unit_spikes(session: xr.DataTree, unit_id: str) -> xr.DataArray:
    """Return one unit's spike times in samples."""
    units = units_of(session)
    row, offsets = unit_index(units, unit_id), ragged.row_offsets(units["row_size"].values)
    part = units["spike_times"].isel(spike=slice(int(offsets[row]), int(offsets[row + 1])))
    return part.assign_coords(unit=unit_id)


def _train(unit: str, values: Any) -> np.ndarray:
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
    ``spike`` too. The rest goes as :func:`labtree.pipeline.per_unit.encode_rows` says.

    Raises
    ------
    SessionError
        If spike times are not sorted integers, or if the units disagree on a type.
    """
    like = xr.Dataset() if like is None else like
    trains = {unit: _train(unit, row.get("spike_times", ())) for unit, row in rows.items()}
    counts = np.array([len(train) for train in trains.values()], np.int64)
    along = _names_along_spikes(rows, counts, like)
    rest = {
        unit: {k: v for k, v in row.items() if k != "spike_times" and k not in along}
        for unit, row in rows.items()
    }
    dataset = encode_rows(rest, like)
    flat = np.concatenate(list(trains.values())) if trains else np.zeros(0, np.int64)
    dataset["row_size"] = ("unit", counts, {ragged.SAMPLE_DIMENSION: "spike"})
    dataset["spike_times"] = ("spike", flat, {"units": "sample"})
    for name in along:
        parts = [row[name] for row in rows.values()]
        stored, attrs = variable_name(name, "value of a unit")
        whole = np.concatenate(parts).astype(common_dtype(name, parts))
        dataset[stored] = ("spike", whole, attrs)
    for key, variable in dataset.variables.items():
        if variable.dims == ("spike",) and key in like:
            variable.attrs.update(like[key].attrs)
    return dataset


def _names_along_spikes(
    rows: Mapping[str, Mapping[str, Any]], counts: np.ndarray, like: xr.Dataset
) -> list[str]:
    """Return the names of arrays that have one value for each spike, in every unit."""
    known = {
        real_name(name, variable.attrs)
        for name, variable in like.variables.items()
        if variable.dims == ("spike",)
    }
    differ = len(set(counts.tolist())) > 1  # else the lengths say nothing
    return [
        name
        for name in next(iter(rows.values()), ())
        if name != "spike_times"
        and (differ or name in known)
        and all(
            isinstance(row.get(name), np.ndarray) and row[name].shape == (count,)
            for row, count in zip(rows.values(), counts.tolist(), strict=True)
        )
    ]


def _arrays_and_copies(values: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Return values of a unit as they can be kept; arrays are copied when they are stacked."""
    plain = {str(k): v.values if isinstance(v, xr.DataArray) else v for k, v in values.items()}
    arrays = {k: v for k, v in plain.items() if type(v) is np.ndarray and not v.dtype.hasobject}
    others = own_copy({k: v for k, v in plain.items() if k not in arrays}, what)
    return {name: arrays.get(name, others.get(name)) for name in plain}


def add_units(session: xr.DataTree, units: Mapping[str, Mapping[str, Any]]) -> None:
    """Add units, or replace values of units that are there, as ``session.add_units`` does.

    The values are copied. An exception leaves the session as it was. ``full_spike_times``
    beside ``trials_spike_times`` are checked against them.

    Raises
    ------
    SessionError
        As :func:`encode_units`; if trials are no slices of the spikes.
    UnsupportedTypeError
        If a file cannot keep a value exactly; the message names it.
    """
    for unit in units:
        if not isinstance(unit, str) or not unit:
            raise SessionError(f"a unit's id must be a non-empty string, got {unit!r}")
        if not isinstance(units[unit], Mapping):
            raise SessionError(
                f"unit {unit!r} must be a dict of its arrays, got "
                f"{type(units[unit]).__name__}; "
                f"write add_units({{{unit!r}: {{'spike_times': samples}}}})"
            )
    old = units_of(session) if "units" in session.children else None
    rows = decode_rows(old) if old is not None else {}
    trials: dict[str, dict[str, Any]] = {}
    for unit, values in units.items():
        kept = {k: v for k, v in values.items() if k not in ("features", SECTIONED)}
        rows[unit] = {**rows.get(unit, {}), **_arrays_and_copies(kept, f"units[{unit!r}]")}
        for movie, sectioned in values.get(SECTIONED, {}).items():
            trials.setdefault(movie, {})[unit] = sectioned
    # made first, so that an error leaves the session alone
    encoded = encode_units(rows, old)
    sections = add_trials(session, encoded, trials)
    made = _with_features(session, encoded, units)
    session["units"] = xr.DataTree(encoded)
    for name, node in feature_nodes(made).items():
        _set_feature(session, name, node.to_dataset(inherit=False))
    for movie, dataset in sections.items():
        put_sections(session, movie, dataset)


def _with_features(
    session: xr.DataTree, encoded: xr.Dataset, units: Mapping[str, Mapping[str, Any]]
) -> xr.DataTree:
    """Return a tree of the units with the features that some of them bring, added to copies."""
    made = xr.DataTree(children={"units": xr.DataTree(encoded)})
    known = feature_nodes(session)
    for unit, values in units.items():
        for name, feature in values.get("features", {}).items():
            if name in known and name not in feature_nodes(made):
                own = known[name].to_dataset(inherit=False).copy(deep=True)
                _set_feature(made, name, own)
            whole = isinstance(feature, Mapping) and "data" in feature
            data = feature["data"] if whole else feature
            notes = feature.get("metadata") if whole else None
            add_feature(made, unit, name, data, notes)
    return made


def feature_nodes(session: xr.DataTree) -> dict[str, xr.DataTree]:
    """Return the nodes of features by name."""
    return named_children(session, "features")


def put_feature(
    session: xr.DataTree, name: str, data: xr.DataArray | xr.Dataset, **attrs: Any
) -> None:
    """Put a whole feature, an array or Dataset along ``unit``, into the session."""
    if isinstance(data, xr.DataArray):
        stored, attrs_of_name = variable_name(name, "feature")
        data = data.assign_attrs(attrs_of_name).to_dataset(name=stored)
    if "unit" not in data.dims:
        raise SessionError(
            f"feature {name!r} has the dimensions {tuple(data.dims)}, without 'unit'; "
            "return an array over unit"
        )
    put_node(child_group(session, "features"), name, "feature", data.assign_attrs(attrs))


def _replace_in_place(
    dataset: xr.Dataset, row: int, values: Mapping[str, Any]
) -> xr.Dataset | None:
    """Write one unit's arrays into whole arrays that fit them; None if they do not fit."""
    masks = masks_of(dataset.variables)
    if set(dataset.data_vars) - set(masks.values()) != set(values):
        return None
    for name, value in values.items():
        variable = dataset.variables[name]
        if not (
            isinstance(value, np.ndarray)
            and isinstance(data_of(variable), np.ndarray)
            and variable.dims[0] == "unit"
            and variable.shape[1:] == value.shape
            and variable.dtype == value.dtype
        ):
            return None
    done = dataset.copy()
    for name, value in values.items():
        array = done.variables[name].values
        if not array.flags.writeable:  # inside a step the session's arrays are protected
            array = array.copy()
            done.variables[name].data = array
        array[row] = value
        if name in masks:
            missing = done.variables[masks[name]].values.copy()
            missing[row] = False
            if missing.any():
                done.variables[masks[name]].data = missing
            else:
                done = done.drop_vars(masks[name])
                del done.variables[name].attrs[ANCILLARY]
    return done


def add_feature(
    session: xr.DataTree,
    unit_id: str,
    name: str,
    data: Any,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Add one unit's feature, as ``session.add_feature`` does.

    It lands in the array that all units share; the metadata are kept as they are, per unit,
    in the attribute ``metadata`` of the feature.

    Raises
    ------
    SessionError
        If the data cannot be one array together with the other units'.
    UnknownNameError
        If the unit is unknown.
    UnsupportedTypeError
        If a file cannot keep a value exactly; the message names it.
    """
    units = units_of(session)
    row = unit_index(units, unit_id)
    where = f"feature {name!r} of unit {unit_id!r}"
    values = _arrays_and_copies(data if isinstance(data, Mapping) else {name: data}, where)
    notes = dict(own_copy(metadata or {}, f"metadata of {where}"))
    node = feature_nodes(session).get(name)
    old = None if node is None else node.to_dataset(inherit=False)
    ids = units["unit"].values.tolist()
    done = None
    if old is not None and old["unit"].values.tolist() == ids:
        arrays = {variable_name(key, "value")[0]: value for key, value in values.items()}
        done = _replace_in_place(old, row, arrays)
    if done is None:
        known = {} if old is None else decode_rows(old)
        # the units of `units` lead; no values are dropped if the feature knows more
        rows: dict[str, dict[str, Any]] = {unit: {} for unit in ids}
        done = encode_rows({**rows, **known, unit_id: values}, old)
    every = {} if old is None else old.attrs.get("metadata", {})
    done.attrs = {**done.attrs, "metadata": {**every, unit_id: notes}}
    _set_feature(session, name, done)


def _set_feature(session: xr.DataTree, name: str, dataset: xr.Dataset) -> None:
    """Put a feature into its node, made if it is not there."""
    node = feature_nodes(session).get(name)
    if node is None:
        put_node(child_group(session, "features"), name, "feature", dataset)
    else:
        node.dataset = dataset


def feature(session: xr.DataTree, unit_id: str, name: str) -> dict[str, Any]:
    """Return one unit's feature as ``{"data": ..., "metadata": ...}``."""
    dataset = named_dataset(session, "features", name, "feature")
    row = unit_index(dataset, unit_id)
    if UNSTACKED not in dataset.attrs and not ragged.count_variables(dataset):
        dataset = dataset.isel(unit=[row])
    values = copy.deepcopy(decode_rows(dataset)[unit_id])  # not views of all units' arrays
    data = values[name] if set(values) == {name} else values
    metadata = dataset.attrs.get("metadata")
    if isinstance(metadata, Mapping) and unit_id in metadata:
        return {"data": data, "metadata": copy.deepcopy(dict(metadata[unit_id]))}
    plain = {k: v for k, v in dataset.attrs.items() if k not in ("metadata", UNSTACKED)}
    return {"data": data, "metadata": copy.deepcopy(plain)}
