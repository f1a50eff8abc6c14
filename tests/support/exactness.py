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
        _same(sorted(map(_shown, actual)), sorted(map(_shown, expected)), path)
    elif expected is pd.NA or expected is pd.NaT:
        _same(actual is expected, True, path)
    else:
        _same(actual, expected, path)


def _same(actual: Any, expected: Any, path: str) -> None:
    if not bool(actual == expected):
        raise AssertionError(f"{path}: {expected!r} expected, {actual!r} found")


def _shown(item: Any) -> str:
    """Return a text that is the same for equal items of a set, and differs for 1 and True."""
    if type(item) in (set, frozenset):
        return f"{type(item).__name__}{sorted(map(_shown, item))}"
    if type(item) is tuple:
        return f"tuple{list(map(_shown, item))}"
    return repr(item)


def _dict(actual: Any, expected: Any, path: str) -> None:
    assert_same(list(actual), list(expected), f"{path} keys")
    for key, value in expected.items():
        assert_same(actual[key], value, f"{path}[{key!r}]")


def _array(actual: np.ndarray, expected: np.ndarray, path: str) -> None:
    _same(actual.dtype, expected.dtype, f"{path} dtype")
    _same(actual.dtype.isalignedstruct, expected.dtype.isalignedstruct, f"{path} alignment")
    _same(actual.shape, expected.shape, f"{path} shape")
    if expected.dtype.kind in "OT":
        for i, (a, b) in enumerate(zip(actual.flat, expected.flat, strict=True)):
            assert_same(a, b, f"{path}.flat[{i}]")
    elif expected.dtype.names:  # the bytes between the fields are no values
        for name in expected.dtype.names:
            _array(actual[name], expected[name], f"{path}[{name!r}]")
    else:
        _same(_value_bytes(actual), _value_bytes(expected), f"{path} bytes")


def _value_bytes(array: np.ndarray) -> bytes:
    """Return an array's bytes without the padding of long doubles, which is no value."""
    padded = np.finfo(np.longdouble).nmant == 63 and np.dtype(np.longdouble).itemsize == 16
    if not padded or array.dtype.type not in (np.longdouble, np.clongdouble):
        return array.tobytes()
    parts = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, 16)
    return (parts[:, :10] if array.dtype.isnative else parts[:, 6:]).tobytes()


def _masked(actual: Any, expected: Any, path: str) -> None:
    _array(actual.data, expected.data, f"{path}.data")
    _array(np.asarray(actual.mask), np.asarray(expected.mask), f"{path}.mask")
    _array(np.asarray(actual.fill_value), np.asarray(expected.fill_value), f"{path}.fill_value")


def _scalar(actual: np.generic, expected: np.generic, path: str) -> None:
    _array(np.asarray(actual), np.asarray(expected), path)


def _dataset(actual: xr.Dataset, expected: xr.Dataset, path: str) -> None:
    for part in ("data_vars", "coords"):
        assert_same(
            list(getattr(actual, part)), list(getattr(expected, part)), f"{path}.{part}"
        )
    assert_same(dict(actual.attrs), dict(expected.attrs), f"{path}.attrs")
    _same(dict(actual.sizes), dict(expected.sizes), f"{path}.sizes")
    indexes = {name: type(index) for name, index in expected.xindexes.items()}
    _same(
        {name: type(index) for name, index in actual.xindexes.items()},
        indexes,
        f"{path}.xindexes",
    )
    for name, index in expected.indexes.items():
        _index(actual.indexes[name], index, f"{path}.indexes[{name!r}]")
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
        _extension(actual.array, expected.array, path)


def _extension(actual: Any, expected: Any, path: str) -> None:
    """Compare pandas' own arrays by what they are made of."""
    _same(type(actual), type(expected), path)
    _same(actual.dtype, expected.dtype, f"{path} dtype")
    if isinstance(expected, pd.Categorical):
        _array(actual.codes, expected.codes, f"{path} codes")
        _index(actual.categories, expected.categories, f"{path} categories")
    elif isinstance(expected, pd.arrays.IntervalArray):
        for side in ("left", "right"):
            _index(getattr(actual, side), getattr(expected, side), f"{path}.{side}")
    elif hasattr(expected, "asi8"):
        _array(actual.asi8, expected.asi8, path)
    elif isinstance(expected, _NULLABLE):
        missing = np.asarray(expected.isna())
        _array(np.asarray(actual.isna()), missing, f"{path} missing")
        plain: Any = expected.dtype
        zero = plain.numpy_dtype.type(0)
        bits = [each.to_numpy(zero.dtype, na_value=zero) for each in (actual, expected)]
        _array(bits[0], bits[1], path)
    else:
        _array(np.asarray(actual, object), np.asarray(expected, object), path)


_NULLABLE = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)


def _index(actual: pd.Index, expected: pd.Index, path: str) -> None:
    _same(type(actual), type(expected), path)
    assert_same(list(actual.names), list(expected.names), f"{path}.names")
    _same(len(actual), len(expected), f"{path} length")
    if isinstance(actual, pd.MultiIndex) and isinstance(expected, pd.MultiIndex):
        for i, (a, b) in enumerate(zip(actual.levels, expected.levels, strict=True)):
            _index(a, b, f"{path}.levels[{i}]")
        for i, (c, d) in enumerate(zip(actual.codes, expected.codes, strict=True)):
            _array(np.asarray(c), np.asarray(d), f"{path}.codes[{i}]")
        return
    if isinstance(expected, pd.RangeIndex):
        for part in ("start", "stop", "step"):
            _same(getattr(actual, part), getattr(expected, part), f"{path}.{part}")
    _same(getattr(actual, "freq", None), getattr(expected, "freq", None), f"{path}.freq")
    _column(actual.to_series(), expected.to_series(), path)


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
