"""Names and values in a session's tree, which a file has to keep."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import SessionError, unknown_name
from labtree.objects.unit_attributes import REAL_NAME
from labtree.pipeline import dimensions
from labtree.storage import json_values
from labtree.storage._xarray import data_of
from labtree.storage.arrays import memory_array
from labtree.storage.names import check_name, decode_name, encode_name
from labtree.storage.unsupported import unsupported


def stored_name(name: object, what: str) -> tuple[str, dict[str, str]]:
    """Return the name of the group that holds a name, and attributes for it.

    ``a/b`` becomes ``a%2Fb``; of a name that is too long for a file the attribute
    ``labtree_name`` keeps the whole.

    Raises
    ------
    InvalidNameError
        If it is empty, or holds what no file keeps.
    """
    text = check_name(name, what)
    encoded = encode_name(text)
    return encoded, {} if decode_name(encoded) == text else {REAL_NAME: text}


def variable_name(name: object, what: str) -> tuple[str, dict[str, str]]:
    """Return the name of the variable that holds a name, and attributes for it.

    A Dataset in a tree holds any name without a slash. A percent sign is encoded, because
    encoded names are recognized by it.

    Raises
    ------
    InvalidNameError
        If it is empty, or holds what no file keeps.
    """
    text = check_name(name, what)
    return stored_name(text, what) if "/" in text or "%" in text else (text, {})


def real_name(stored: object, attrs: Mapping[Any, Any]) -> str:
    """Return the name that :func:`variable_name` was given, or that of a group."""
    return str(attrs.get(REAL_NAME, decode_name(str(stored))))


def put_node(parent: xr.DataTree, name: object, what: str, dataset: xr.Dataset) -> None:
    """Put a Dataset into the child of any name, in place of what is there.

    Raises
    ------
    InvalidNameError
        If the name is empty or holds what no file keeps.
    """
    encoded, attrs = stored_name(name, what)
    parent[encoded] = xr.DataTree(dataset.assign_attrs(attrs))


def named_children(session: xr.DataTree, group: str) -> dict[str, xr.DataTree]:
    """Return the nodes of a group of the session by their real names."""
    nodes = session.children[group].children if group in session.children else {}
    return {real_name(stored, node.attrs): node for stored, node in nodes.items()}


def named_dataset(session: xr.DataTree, group: str, name: str, what: str) -> xr.Dataset:
    """Return the Dataset of a real name in a group of the session.

    Raises
    ------
    UnknownNameError
        If there is no such `what`; the message lists those there are.
    """
    nodes = named_children(session, group)
    if name not in nodes:
        raise unknown_name(what, name, nodes)
    return nodes[name].to_dataset(inherit=False)


def child_group(
    session: xr.DataTree, name: str, attrs: Mapping[str, str] | None = None
) -> xr.DataTree:
    """Return the group of a name below a node, made if it is not there."""
    if name not in session.children:
        session[name] = xr.DataTree(xr.Dataset(attrs=attrs))
    return session.children[name]


def own_copy(values: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Return values that the caller cannot change afterwards and that a file keeps.

    Raises
    ------
    UnsupportedTypeError
        If a file cannot keep one of them exactly; the message names it.
    """
    memo: dict[int, Any] = {}  # what is shared stays shared
    return {
        check_name(name, what): _own(value, f"{what}[{name!r}]", memo)
        for name, value in values.items()
    }


def _own(value: Any, where: str, memo: dict[int, Any]) -> Any:
    if isinstance(value, xr.Dataset):
        made = value.copy()
        for name, variable in made.variables.items():
            _check_variable(variable, f"{where}[{name!r}]")
            data = data_of(variable)
            if isinstance(data, np.ndarray):
                variable.data = data.copy()
            variable.attrs = copy.deepcopy(variable.attrs)
        check_value(dict(made.attrs), f"{where}.attrs")
        made.attrs = copy.deepcopy(made.attrs)
        return made
    if isinstance(value, xr.DataArray):
        dataset = _own(value.to_dataset(name="data"), where, memo)
        return dataset["data"].rename(value.name)
    check_value(value, where)
    return copy.deepcopy(value, memo)


def check_value(value: Any, where: str) -> None:
    """Refuse a value that a file cannot keep exactly, naming the part.

    Raises
    ------
    UnsupportedTypeError
    """
    json_values.encode(value, where, sink=_check_part)


def _check_part(value: Any, where: str) -> str:
    """Refuse what has no exact form; arrays have one, and are not written out for this."""
    if type(value) is not np.ndarray:
        raise unsupported(value, where)
    if value.dtype.hasobject:
        json_values.encode(value, where)
    return where


def _check_variable(variable: xr.Variable, where: str) -> None:
    data = data_of(variable)
    if isinstance(data, np.ndarray):
        if data.dtype.hasobject:
            memory_array(data, where)  # encodes each object
    elif not hasattr(data, "array") and not type(data).__module__.startswith("dask."):
        raise unsupported(data, where)
    check_value(dict(variable.attrs), f"{where}.attrs")


def _put(dataset: xr.Dataset, name: str, value: Any) -> xr.Dataset:
    """Return a dataset with an array as a variable, and everything else as an attribute."""
    variable, attrs = variable_name(name, "name")
    before = dataset.variables.get(variable)
    dataset = dataset.drop_vars(variable, errors="ignore").assign_attrs()
    dataset.attrs.pop(name, None)
    try:
        if isinstance(value, xr.DataArray):
            value = value.drop_vars(set(value.coords) - set(value.dims))
            if before is not None:
                dataset = _without_unused(dataset, set(before.dims) & set(value.coords))
            # Assigned alone, values without a partner in the index would become NaN.
            dataset, value = xr.align(dataset, value, join="exact", copy=False)
            dataset[variable] = value
        elif isinstance(value, np.ndarray) and value.ndim and not value.dtype.hasobject:
            dims = dimensions(name, variable, value.ndim)
            if any(
                dataset.sizes.get(d, n) != n for d, n in zip(dims, value.shape, strict=True)
            ):
                dims = tuple(f"{variable}_dim{axis}" for axis in range(value.ndim))
            dataset[variable] = (dims, value)
        else:
            dataset.attrs[name] = value
            attrs = {}
    except ValueError as error:
        raise SessionError(
            f"{name!r} does not fit beside what is there already: {error}. Give its dimensions "
            f"names of their own: array.rename(time='{name}_time')"
        ) from error
    if attrs:
        dataset[variable].attrs.update(attrs)
    return dataset


def _without_unused(dataset: xr.Dataset, dims: set[Any]) -> xr.Dataset:
    """Return a dataset without the indexes of some dimensions that no variable has any more."""
    used = {dim for name, v in dataset.variables.items() for dim in v.dims if dim != name}
    return dataset.drop_vars([dim for dim in dims - used if dim in dataset.coords])


def _put_all(node: xr.DataTree, values: Mapping[str, Any]) -> xr.Dataset:
    """Return what a node holds, with all of some values; the node stays as it is."""
    dataset = node.to_dataset(inherit=False)
    for name, value in values.items():
        dataset = _put(dataset, name, value)
    return dataset


def _child_or_new(node: xr.DataTree, name: str, attrs: Mapping[str, str]) -> xr.DataTree:
    return (
        node.children[name] if name in node.children else xr.DataTree(xr.Dataset(attrs=attrs))
    )


def add_metadata(session: xr.DataTree, metadata: Mapping[str, Any]) -> None:
    """Add to the session's metadata copies of arrays as variables, of the rest as attributes.

    Raises
    ------
    UnsupportedTypeError
        If a file cannot keep a value exactly; nothing is added then.
    SessionError
        If the values of a DataArray lie elsewhere on a dimension that is there already;
        nothing is added then.
    """
    values = own_copy(metadata, "metadata")
    made = _put_all(_child_or_new(session, "metadata", {}), values)
    if values:
        child_group(session, "metadata").dataset = made


def add_stimulus(session: xr.DataTree, stimulus: Mapping[str, Any]) -> None:
    """Add copies to the session's stimulus; a mapping becomes, or joins, a group of its name.

    Raises
    ------
    UnsupportedTypeError, SessionError
        As :func:`add_metadata`; nothing is added then.
    """
    groups = {
        name: own_copy(value, f"stimulus[{name!r}]")
        for name, value in stimulus.items()
        if isinstance(value, Mapping) and not isinstance(value, xr.Dataset)
    }
    rest = {name: value for name, value in stimulus.items() if name not in groups}
    owned = own_copy(rest, "stimulus")
    datasets = {name: value for name, value in owned.items() if isinstance(value, xr.Dataset)}
    node = _child_or_new(session, "stimulus", {})
    names = {name: stored_name(name, "stimulus") for name in groups}
    made = {
        name: _put_all(_child_or_new(node, *names[name]), members)
        for name, members in groups.items()
    }
    whole = _put_all(node, {name: v for name, v in owned.items() if name not in datasets})
    node = child_group(session, "stimulus")
    node.dataset = whole
    for name, dataset in made.items():
        child_group(node, *names[name]).dataset = dataset
    for name, dataset in datasets.items():
        put_node(node, name, "stimulus", dataset)
