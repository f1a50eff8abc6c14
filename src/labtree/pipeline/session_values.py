"""Names and values in a session's tree, which a file has to keep."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import unknown_name
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


def _put(node: xr.DataTree, name: str, value: Any) -> None:
    """Put an array into a variable and everything else into an attribute of a node."""
    dataset = node.to_dataset(inherit=False)
    variable, attrs = variable_name(name, "name")
    dataset = dataset.drop_vars(variable, errors="ignore")
    dataset.attrs.pop(name, None)
    if isinstance(value, xr.DataArray):
        dataset[variable] = value.drop_vars(set(value.coords) - set(value.dims))
    elif isinstance(value, np.ndarray) and value.ndim and not value.dtype.hasobject:
        dims = dimensions(name, variable, value.ndim)
        if any(dataset.sizes.get(d, n) != n for d, n in zip(dims, value.shape, strict=True)):
            dims = tuple(f"{variable}_dim{axis}" for axis in range(value.ndim))
        dataset[variable] = (dims, value)
    else:
        dataset.attrs[name] = value
        attrs = {}
    if attrs:
        dataset[variable].attrs.update(attrs)
    node.dataset = dataset


def add_metadata(session: xr.DataTree, metadata: Mapping[str, Any]) -> None:
    """Add to the session's metadata copies of arrays as variables, of the rest as attributes.

    Raises
    ------
    UnsupportedTypeError
        If a file cannot keep a value exactly; nothing is added then.
    """
    for name, value in own_copy(metadata, "metadata").items():
        _put(child_group(session, "metadata"), name, value)


def add_stimulus(session: xr.DataTree, stimulus: Mapping[str, Any]) -> None:
    """Add copies to the session's stimulus; a mapping becomes, or joins, a group of its name.

    Raises
    ------
    UnsupportedTypeError
        If a file cannot keep a value exactly; nothing is added then.
    """
    groups = {
        name: own_copy(value, f"stimulus[{name!r}]")
        for name, value in stimulus.items()
        if isinstance(value, Mapping) and not isinstance(value, xr.Dataset)
    }
    rest = {name: value for name, value in stimulus.items() if name not in groups}
    owned = own_copy(rest, "stimulus")
    node = child_group(session, "stimulus")
    for name, members in groups.items():
        child = child_group(node, *stored_name(name, "stimulus"))
        for key, member in members.items():
            _put(child, key, member)
    for name, value in owned.items():
        if isinstance(value, xr.Dataset):
            put_node(node, name, "stimulus", value)
        else:
            _put(node, name, value)
