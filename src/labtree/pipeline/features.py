"""Features of a session: one Dataset per feature, for all units at once."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError, unknown_name
from labtree.pipeline.rows import decode_rows, encode_rows
from labtree.pipeline.units import unit_index, units_of

__all__ = ["add_feature", "feature", "put_feature"]


def put_feature(
    session: xr.DataTree, name: str, data: xr.DataArray | xr.Dataset, **attrs: Any
) -> None:
    """Put a whole feature, an array or Dataset along ``unit``, into the session."""
    if not name or "/" in name or name in (".", ".."):
        raise SessionError(f"a feature cannot be called {name!r}")
    dataset = data.to_dataset(name=name) if isinstance(data, xr.DataArray) else data
    if "unit" not in dataset.dims:
        raise SessionError(
            f"feature {name!r} has the dimensions {tuple(dataset.dims)}, without 'unit'; "
            "return an array over unit"
        )
    session[f"features/{name}"] = xr.DataTree(dataset.assign_attrs(attrs))


def _replace_in_place(
    dataset: xr.Dataset, row: int, values: Mapping[str, Any]
) -> xr.Dataset | None:
    """Write one unit's arrays into whole arrays that fit them; None if they do not fit."""
    plain = [n for n in dataset.data_vars if not str(n).endswith("_missing")]
    if set(plain) != set(values):
        return None
    for name, value in values.items():
        variable = dataset.variables[name]
        if not (
            isinstance(value, np.ndarray)
            and isinstance(variable._data, np.ndarray)
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
        missing = f"{name}_missing"
        if missing in done.variables:
            mask = done.variables[missing].values.copy()
            mask[row] = False
            if mask.any():
                done.variables[missing].data = mask
            else:
                done = done.drop_vars(missing)
    return done


def add_feature(
    session: xr.DataTree,
    unit_id: str,
    name: str,
    data: Any,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Add one unit's feature; it lands in the array that all units share.

    Parameters
    ----------
    session : DataTree
    unit_id, name : str
    data : array, scalar or mapping of them
    metadata : mapping, optional
        Kept as it is, per unit, in the attribute ``metadata`` of the feature.

    Raises
    ------
    SessionError
        (also a KeyError) if the unit is unknown; if the data cannot be one array
        together with the other units'.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> session.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
    >>> add_feature(session, "unit_001", "burst", {"index": 0.5}, {"version": "1"})
    >>> session["features/burst"].sel(unit="unit_001")["index"].item()
    0.5
    """
    units = units_of(session)
    row = unit_index(units, unit_id)
    if not name or "/" in name or name in (".", ".."):
        raise SessionError(f"a feature cannot be called {name!r}")
    values = dict(data) if isinstance(data, Mapping) else {name: data}
    values = {str(k): v.values if isinstance(v, xr.DataArray) else v for k, v in values.items()}
    node = session.children["features"].children.get(name) if "features" in session else None
    old = node.to_dataset(inherit=False) if node is not None else None
    ids = [str(unit) for unit in units["unit"].values]
    done = None
    if old is not None and list(old["unit"].values) == ids:
        done = _replace_in_place(old, row, values)
    if done is None:
        known = decode_rows(old) if old is not None else {}
        rows = {unit: known.get(unit, {}) for unit in ids}
        rows[unit_id] = values
        # the units of `units` lead; no values are dropped if the feature knows more
        done = encode_rows({**rows, **{u: r for u, r in known.items() if u not in rows}}, old)
    notes = dict(old.attrs.get("metadata", {})) if old is not None else {}
    notes[unit_id] = dict(metadata or {})
    done.attrs = {**done.attrs, "metadata": notes}
    if node is None:
        session[f"features/{name}"] = xr.DataTree(done)
    else:
        node.dataset = done


def feature(session: xr.DataTree, unit_id: str, name: str) -> dict[str, Any]:
    """Return one unit's feature as ``{"data": ..., "metadata": ...}``."""
    nodes = session.children["features"].children if "features" in session.children else {}
    if name not in nodes:
        raise unknown_name("feature", name, nodes)
    dataset = nodes[name].to_dataset(inherit=False)
    row = unit_index(dataset, unit_id)
    values = decode_rows(dataset.isel(unit=[row]) if not _ragged(dataset) else dataset)[unit_id]
    data = values[name] if set(values) == {name} else values
    metadata = dataset.attrs.get("metadata")
    if isinstance(metadata, Mapping) and unit_id in metadata:
        return {"data": data, "metadata": dict(metadata[unit_id])}
    plain = {k: v for k, v in dataset.attrs.items() if k not in ("metadata", "by_unit")}
    return {"data": data, "metadata": plain}


def _ragged(dataset: xr.Dataset) -> bool:
    return "by_unit" in dataset.attrs or any(
        "sample_dimension" in variable.attrs for variable in dataset.variables.values()
    )
