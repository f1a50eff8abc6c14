"""The kinds of objects that can be stored, and how to add one.

A kind says how an object becomes a dataset and back. The dataset is what stands in the
tree and in the file; its attribute ``labtree_kind`` names the kind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import FormatError, LabtreeError
from labtree.objects import arrays, datasets, frames, spike_kinds, trials, values
from labtree.storage import json_values
from labtree.storage.arrays import load_variables
from labtree.storage.records import check_dataset

__all__ = [
    "KIND",
    "Kind",
    "decode",
    "encode",
    "is_known",
    "kind_named",
    "kind_names",
    "register_kind",
]

#: The attribute that names the kind of a dataset.
KIND = "labtree_kind"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Parameters
    ----------
    name
        As in the attribute ``labtree_kind``.
    to_dataset
        Object and path to dataset; raises TypeError or ValueError with the path of what
        cannot be kept.
    from_dataset
        The dataset back to an equal object.
    summary
        What a list of items shows of it, JSON values; reads no data.
    validate
        Raises ValueError where a dataset of the kind does not hold together.
    plot
        Draws the dataset with matplotlib.
    is_dataset
        Whether the object is the dataset itself, with its kind in its attributes.
    """

    name: str
    to_dataset: Callable[[Any, str], xr.Dataset]
    from_dataset: Callable[[xr.Dataset], Any]
    summary: Callable[[xr.Dataset], dict[str, Any]]
    validate: Callable[[xr.Dataset], None] | None = None
    plot: Callable[..., Any] | None = None
    is_dataset: bool = False


_KINDS: dict[str, Kind] = {}
_TYPES: dict[type, str] = {
    xr.Dataset: "dataset",
    xr.DataArray: "dataarray",
    pd.DataFrame: "dataframe",
    pd.Series: "series",
    np.ndarray: "ndarray",
    np.ma.MaskedArray: "ndarray",
}
_VALUES: dict[type, str] = {
    dict: "dict",
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    str: "str",
    bytes: "bytes",
    int: "int",
    float: "float",
    complex: "complex",
    bool: "bool",
    type(None): "none",
}


def register_kind(kind: Kind) -> None:
    """Let workspaces store a new kind of dataset: one with its name in ``labtree_kind``.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if kind.name in _KINDS:
        raise ValueError(f"there is a kind {kind.name!r} already")
    _KINDS[kind.name] = kind


def kind_named(name: str | None) -> Kind:
    """Return a kind by its name; a dataset that names none, or an unknown one, is a dataset."""
    return _KINDS.get(name or "dataset", _KINDS["dataset"])


def is_known(name: str) -> bool:
    """Say whether there is a kind of that name."""
    return name in _KINDS


def kind_names() -> list[str]:
    """Return the names of all kinds."""
    return list(_KINDS)


def encode(obj: Any, path: str = "obj") -> tuple[str, xr.Dataset]:
    """Return the kind of an object, and the dataset that stands for it.

    Raises
    ------
    TypeError
        If it, or a part of it, cannot be kept exactly; the message has the path.
    """
    if isinstance(obj, xr.Dataset):
        name = str(obj.attrs.get(KIND, "dataset"))
    elif type(obj) is pd.DataFrame and trials.ATTRIBUTE in obj.attrs:
        name = "trials"
    else:
        name = _TYPES.get(type(obj)) or _VALUES.get(type(obj)) or "value"
    if isinstance(obj, (xr.DataTree, pd.Index)) or (
        name == "value" and isinstance(obj, tuple(_TYPES))
    ):
        raise json_values.unsupported(obj, path)
    kind = kind_named(name)
    dataset = kind.to_dataset(obj, path)
    dataset.attrs[KIND] = name
    return name, dataset


def _encode_part(obj: Any, path: str) -> tuple[str, xr.Dataset]:
    """Encode an object inside a nested value, if it is a kind of its own."""
    if type(obj) in _TYPES or isinstance(obj, xr.Dataset):
        return encode(obj, path)
    raise json_values.unsupported(obj, path)


def decode(name: str | None, dataset: xr.Dataset) -> Any:
    """Return the object that a dataset stands for: in memory, a copy that shares nothing.

    Raises
    ------
    FormatError
        If the dataset was damaged, or changed so that it stands for none.
    """
    copy = dataset.copy(deep=True)  # of what is in memory; the rest is read, once
    load_variables(copy.variables.values())
    try:
        return kind_named(name).from_dataset(copy)
    except (LabtreeError, OSError, MemoryError):
        raise
    except Exception as error:
        raise FormatError(
            f"what is stored is no {name or 'dataset'} any more: {error!r}"
        ) from error


def _encode_raw(dataset: xr.Dataset, path: str) -> xr.Dataset:
    check_dataset(dataset, path)
    return dataset.copy(deep=True).drop_encoding()


def _either(
    build: Callable[[Any, str], xr.Dataset],
) -> Callable[[Any, str], xr.Dataset]:
    """Take an object, or the dataset that already stands for one (out of a tree)."""
    return lambda obj, path: (
        _encode_raw(obj, path) if isinstance(obj, xr.Dataset) else build(obj, path)
    )


def _plain_dataset(dataset: xr.Dataset) -> xr.Dataset:
    copy = datasets.return_dataset(dataset)
    if copy.attrs.get(KIND) == "dataset":
        del copy.attrs[KIND]
    return copy


def _register_general_kinds() -> None:
    register_kind(
        Kind("dataset", datasets.keep_dataset, _plain_dataset, datasets.dataset_summary)
    )
    own: list[tuple[str, Any, Any, Any]] = [
        (
            "dataarray",
            datasets.dataarray_to_dataset,
            datasets.dataset_to_dataarray,
            datasets.dataarray_summary,
        ),
        ("dataframe", frames.frame_to_dataset, frames.dataset_to_frame, frames.frame_summary),
        ("series", frames.series_to_dataset, frames.dataset_to_series, frames.series_summary),
        ("ndarray", arrays.array_to_dataset, arrays.dataset_to_array, arrays.array_summary),
    ]
    for name, build, read, summary in own:
        register_kind(Kind(name, _either(build), read, summary))
    register_kind(Kind("trials", _either(_build_trials), _read_trials, trials.trials_summary))
    for name in (*_VALUES.values(), "value"):
        register_kind(Kind(name, _either(_build_value), _read_value, values.value_summary))


def _register_spike_kinds() -> None:
    for name, functions in spike_kinds.KINDS.items():
        register_kind(
            Kind(
                name,
                _keep_valid(functions.validate),
                datasets.return_dataset,
                functions.summary,
                functions.validate,
                functions.plot,
                is_dataset=True,
            )
        )


def _keep_valid(validate: Callable[[xr.Dataset], None]) -> Callable[[Any, str], xr.Dataset]:
    def keep(dataset: xr.Dataset, path: str) -> xr.Dataset:
        validate(dataset)
        return datasets.keep_dataset(dataset, path)

    return keep


def _build_value(obj: Any, path: str) -> xr.Dataset:
    return values.value_to_dataset(obj, path, _encode_part)


def _build_trials(obj: Any, path: str) -> xr.Dataset:
    return trials.trials_to_dataset(obj, path, _build_value)


def _read_trials(dataset: xr.Dataset) -> Any:
    return trials.dataset_to_trials(dataset, _read_value)


def _read_value(dataset: xr.Dataset) -> Any:
    return values.dataset_to_value(dataset, decode)


_register_general_kinds()
_register_spike_kinds()
