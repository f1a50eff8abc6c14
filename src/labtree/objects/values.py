"""Python values, nested as they come: dict, list, tuple, set, text, numbers, None.

The structure is one JSON text in the attribute ``labtree_structure``. Arrays in it, and
objects that are kinds of their own, are variables of the dataset that are named after
their place: ``{"fit": {"residuals": array}}`` becomes the variable ``fit.residuals``.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

from labtree.objects.numpy_arrays import array_to_dataset, dataset_to_array
from labtree.objects.registry import Kind, add_kind, decode, encode_part, raw_or
from labtree.storage import json_values
from labtree.storage.missing import ANCILLARY
from labtree.storage.names import encode_name


def value_to_dataset(value: Any, path: str) -> xr.Dataset:
    """Return a nested value as a dataset.

    Parameters
    ----------
    value
        Of the types that :func:`labtree.storage.json_values.encode` keeps.
    path
        How to name it in an error.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly, with its path.
    """
    parts: dict[str, tuple[str, xr.Dataset]] = {}
    used: set[str] = set()  # names of variables and dimensions of the parts

    def put(part: Any, where: str) -> str:
        is_array = type(part) is np.ndarray
        kind, dataset = (
            ("ndarray", array_to_dataset(part, where)) if is_array else encode_part(part, where)
        )
        name = _part_name(where.removeprefix(path), parts, dataset, used)
        if is_array and "mask" in dataset:
            dataset["data"].attrs[ANCILLARY] = f"{name}.mask"
        parts[name] = kind, dataset
        used.update(_renamed(name, dataset).values())
        return name

    structure = json.dumps(json_values.encode(value, path, put), separators=(",", ":"))
    dataset = _joined({name: part for name, (_, part) in parts.items()})
    dataset.attrs = {"labtree_structure": structure}
    if parts:
        dataset.attrs["labtree_parts"] = {
            name: {"kind": kind, "attrs": dict(part.attrs), "names": _renamed(name, part)}
            for name, (kind, part) in parts.items()
        }
    return dataset


def _part_name(where: str, taken: dict[str, Any], part: xr.Dataset, used: set[str]) -> str:
    """Return ``fit.residuals.0`` for ``['fit']['residuals'][0]``, or what is free of it.

    Nothing that the part brings may be called like what another part brought.
    """
    words = [word.strip("'\"") for word in where.replace("]", "").split("[") if word]
    name = base = encode_name(".".join(words) or "value")[:120]
    count = 2
    while (
        name in taken
        or any(other.startswith(f"{name}.") for other in taken)
        or not used.isdisjoint(_renamed(name, part).values())
    ):
        name, count = f"{base}_{count}", count + 1
    return name


def _renamed(name: str, part: xr.Dataset) -> dict[str, str]:
    """Return what the variables and dimensions of a part are called in the whole."""
    labels = dict.fromkeys((*part.variables, *part.dims))
    return {str(label): name if label == "data" else f"{name}.{label}" for label in labels}


def _joined(parts: dict[str, xr.Dataset]) -> xr.Dataset:
    renamed = [part.rename(_renamed(name, part)) for name, part in parts.items()]
    plain = all(not part.coords for part in renamed)
    if plain:  # as nearly always; xarray's merge would compare all with all
        return xr.Dataset({key: v for part in renamed for key, v in part.variables.items()})
    return xr.merge(renamed, join="exact", compat="identical", combine_attrs="override")


def dataset_to_value(dataset: xr.Dataset) -> Any:
    """Return the value that :func:`value_to_dataset` was given."""
    parts = dataset.attrs.get("labtree_parts", {})

    def get(name: str) -> Any:
        about = parts[name]
        names = {new: old for old, new in about["names"].items()}
        part = dataset.drop_vars([v for v in dataset.variables if v not in names])
        part = part.rename(
            {new: old for new, old in names.items() if new in part or new in part.dims}
        )
        part.attrs = about["attrs"]
        if about["kind"] == "ndarray":
            return dataset_to_array(part)
        return decode(about["kind"], part)

    return json_values.decode(json_values.parse(dataset.attrs["labtree_structure"]), get)


def _value_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the length of a container, or a short text of the value."""
    structure = json_values.parse(dataset.attrs["labtree_structure"])
    if isinstance(structure, dict):
        tag = next(iter(structure), "")
        if len(structure) == 1 and tag[:1] == "$":
            content = structure[tag]
            if tag in _SIZED:
                return {"length": len(content)}
            return {"value": str(json_values.decode(structure))[:60]}
        return {"keys": list(structure)}
    if isinstance(structure, list):
        return {"length": len(structure)}
    text = structure if isinstance(structure, str) else repr(structure)
    return {"value": text if len(text) <= 60 else text[:59] + "…"}


_SIZED = {"$tuple", "$set", "$frozenset", "$dict"}


def _add_value_kind(name: str, *classes: type) -> None:
    add_kind(Kind(name, raw_or(value_to_dataset), dataset_to_value, _value_summary), *classes)


for _class in (dict, list, tuple, set, frozenset, str, bytes, int, float, complex, bool):
    _add_value_kind(_class.__name__, _class)
_add_value_kind("none", type(None))
_add_value_kind("value")
