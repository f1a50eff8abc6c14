"""Comparison to the last bit: types, dtypes, order, names, attributes, NaN payloads."""

import struct
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["assert_same"]


def assert_same(actual: Any, expected: Any, path: str = "obj") -> None:
    """Raise AssertionError with the path of the first difference between two objects.

    Parameters
    ----------
    actual, expected
        Anything that a workspace stores, DataTrees as well.
    path
        How to name the objects in the message.

    Examples
    --------
    >>> assert_same({"a": (1, 2.0)}, {"a": (1, 2)})
    Traceback (most recent call last):
    ...
    AssertionError: obj['a'][1]: int expected, float found
    """
    kind = type(expected)
    if type(actual) is not kind:
        raise AssertionError(f"{path}: {kind.__name__} expected, {type(actual).__name__} found")
    compare = next((test for known, test in _TESTS if isinstance(expected, known)), None)
    if compare is not None:
        compare(actual, expected, path)
    elif kind is float:
        _same(struct.pack("<d", actual), struct.pack("<d", expected), path)
    elif kind is complex:
        assert_same(actual.real, expected.real, f"{path}.real")
        assert_same(actual.imag, expected.imag, f"{path}.imag")
    elif kind in (list, tuple):
        _same(len(actual), len(expected), f"{path} length")
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert_same(a, b, f"{path}[{i}]")
    elif kind in (set, frozenset):
        _same(sorted(map(repr, actual)), sorted(map(repr, expected)), path)
    elif expected is pd.NA or expected is pd.NaT:
        _same(actual is expected, True, path)
    else:
        _same(actual, expected, path)


def _same(actual: Any, expected: Any, path: str) -> None:
    if not bool(actual == expected):
        raise AssertionError(f"{path}: {expected!r} expected, {actual!r} found")


def _dict(actual: Any, expected: Any, path: str) -> None:
    assert_same(list(actual), list(expected), f"{path} keys")
    for key, value in expected.items():
        assert_same(actual[key], value, f"{path}[{key!r}]")


def _array(actual: np.ndarray, expected: np.ndarray, path: str) -> None:
    _same(actual.dtype, expected.dtype, f"{path} dtype")
    _same(actual.shape, expected.shape, f"{path} shape")
    if expected.dtype.kind in "OT":
        for i, (a, b) in enumerate(zip(actual.flat, expected.flat, strict=True)):
            assert_same(a, b, f"{path}.flat[{i}]")
    else:
        _same(actual.tobytes(), expected.tobytes(), f"{path} bytes")


def _masked(actual: Any, expected: Any, path: str) -> None:
    _array(actual.data, expected.data, f"{path}.data")
    _array(np.asarray(actual.mask), np.asarray(expected.mask), f"{path}.mask")
    _array(np.asarray(actual.fill_value), np.asarray(expected.fill_value), f"{path}.fill_value")


def _scalar(actual: np.generic, expected: np.generic, path: str) -> None:
    _same(actual.dtype, expected.dtype, f"{path} dtype")
    _same(actual.tobytes(), expected.tobytes(), path)


def _dataset(actual: xr.Dataset, expected: xr.Dataset, path: str) -> None:
    for part in ("data_vars", "coords"):
        assert_same(
            list(getattr(actual, part)), list(getattr(expected, part)), f"{path}.{part}"
        )
    assert_same(dict(actual.attrs), dict(expected.attrs), f"{path}.attrs")
    indexes = {name: type(index) for name, index in expected.xindexes.items()}
    _same(
        {name: type(index) for name, index in actual.xindexes.items()},
        indexes,
        f"{path}.xindexes",
    )
    for name in expected.variables:
        _variable(actual.variables[name], expected.variables[name], f"{path}[{name!r}]")


def _variable(actual: Any, expected: Any, path: str) -> None:
    _same(actual.dims, expected.dims, f"{path}.dims")
    assert_same(dict(actual.attrs), dict(expected.attrs), f"{path}.attrs")
    _array(np.asarray(actual.data), np.asarray(expected.data), path)


def _dataarray(actual: xr.DataArray, expected: xr.DataArray, path: str) -> None:
    assert_same(actual.name, expected.name, f"{path}.name")
    _variable(actual.variable, expected.variable, path)
    coords = actual.coords.to_dataset(), expected.coords.to_dataset()
    for coord in coords:
        coord.attrs = {}
    _dataset(*coords, f"{path}.coords")


def _tree(actual: xr.DataTree, expected: xr.DataTree, path: str) -> None:
    _dataset(actual.to_dataset(inherit=False), expected.to_dataset(inherit=False), path)
    assert_same(list(actual.children), list(expected.children), f"{path} children")
    for name, child in expected.children.items():
        _tree(actual.children[name], child, f"{path}/{name}")


def _frame(actual: pd.DataFrame, expected: pd.DataFrame, path: str) -> None:
    _same(actual.shape, expected.shape, f"{path} shape")
    _index(actual.index, expected.index, f"{path}.index")
    _index(actual.columns, expected.columns, f"{path}.columns")
    for i in range(expected.shape[1]):
        _column(actual.iloc[:, i], expected.iloc[:, i], f"{path}.iloc[:, {i}]")
    assert_same(dict(actual.attrs), dict(expected.attrs), f"{path}.attrs")
    _same(actual.flags, expected.flags, f"{path}.flags")


def _series(actual: pd.Series, expected: pd.Series, path: str) -> None:
    assert_same(actual.name, expected.name, f"{path}.name")
    _same(len(actual), len(expected), f"{path} length")
    _index(actual.index, expected.index, f"{path}.index")
    _column(actual, expected, path)
    assert_same(dict(actual.attrs), dict(expected.attrs), f"{path}.attrs")
    _same(actual.flags, expected.flags, f"{path}.flags")


def _column(actual: pd.Series, expected: pd.Series, path: str) -> None:
    _same(actual.dtype, expected.dtype, f"{path} dtype")
    if isinstance(expected.dtype, np.dtype):
        _array(actual.to_numpy(), expected.to_numpy(), path)
    else:
        pd.testing.assert_extension_array_equal(actual.array, expected.array, check_exact=True)


def _index(actual: pd.Index, expected: pd.Index, path: str) -> None:
    _same(type(actual), type(expected), path)
    assert_same(list(actual.names), list(expected.names), f"{path}.names")
    pd.testing.assert_index_equal(actual, expected, exact=True)


_TESTS: list[tuple[type, Any]] = [
    (xr.DataTree, _tree),
    (xr.Dataset, _dataset),
    (xr.DataArray, _dataarray),
    (pd.DataFrame, _frame),
    (pd.Series, _series),
    (np.ma.MaskedArray, _masked),
    (np.ndarray, _array),
    (np.generic, _scalar),
    (dict, _dict),
]
