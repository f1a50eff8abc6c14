"""Hypothesis strategies for everything that can be stored, odd cases first.

Needs hypothesis (``pip install "labtree[test]"``). Each public function returns a
strategy; :func:`objects` draws from all of them.

Examples
--------
>>> from hypothesis import given, settings
>>> from support.exactness import assert_same
>>> @settings(max_examples=5, database=None)
... @given(arrays())
... def same_as_its_copy(array):
...     assert_same(array.copy(), array)
>>> same_as_its_copy()
"""

import datetime as dt
import struct
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from hypothesis import strategies as st

__all__ = [
    "arrays",
    "attributes",
    "dataarrays",
    "dataframes",
    "datasets",
    "dtypes",
    "indexes",
    "labels",
    "masked_arrays",
    "names",
    "objects",
    "scalars",
    "series",
    "texts",
    "values",
]

Draw = Callable[[st.SearchStrategy[Any]], Any]

_ODD_NAMES = [
    "a/b",
    ".",
    "..",
    "__x",
    "🧠 spikes",
    "50%",
    "a%2Fb",
    " padded ",
    "-minus",
    "line\nbreak",
    "é",
    "e\u0301",
    "data",
    "row",
    "index",
    "labtree_kind",
    "x" * 300,
    "🧠" * 90,
    "\u2028",
    "CON",
    "name:colon",
]
_ODD_TEXTS = [
    "",
    "\0",
    "a\0b",
    "end\0",
    "\ud800",
    "\udc80",
    "\ud83d\ude00",
    "😀",
    "$tuple",
    "é" * 9,
]
_PLAIN_DTYPES = [
    *("?", "i1", "u1", "<i2", ">i2", "<u4", ">i8", "<i8", "<u8", ">u8"),
    *("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "longdouble", "<c8", ">c8", "<c16", ">c16"),
    *("clongdouble", "V5"),
]
_UNITS = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "25s", "10ms"]
_ZONES = ["UTC", "Europe/Berlin", "America/St_Johns"]


def texts(max_size: int = 8, *, whole: bool = False) -> st.SearchStrategy[str]:
    """Return texts, with NULs and lone surrogates unless `whole`."""
    if whole:
        return st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=max_size
        )
    odd = [text for text in _ODD_TEXTS if len(text) <= max_size]
    return st.sampled_from(odd) | st.text(
        st.characters() | st.sampled_from("\0\ud800\udfff"), max_size=max_size
    )


def names() -> st.SearchStrategy[str]:
    """Return names of namespaces and keys: any text but the empty one."""
    return st.sampled_from(_ODD_NAMES) | texts(whole=True).filter(bool)


def labels() -> st.SearchStrategy[Any]:
    """Return labels of variables and dimensions, some of them no str."""
    simple = st.sampled_from(["x", "y", "time", "unit", "data", "a"])
    return simple | names() | st.sampled_from([3, ("a", 1), 2.5, ("a/b",), "\ud800"])


def _floats() -> st.SearchStrategy[float]:
    return st.floats() | st.binary(min_size=8, max_size=8).map(
        lambda data: float(struct.unpack("<d", data)[0])
    )


def _zones() -> st.SearchStrategy[dt.tzinfo | None]:
    named = st.sampled_from([None, dt.UTC, *map(zoneinfo.ZoneInfo, _ZONES)])
    return named | st.integers(-800, 800).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))


def _datetimes() -> st.SearchStrategy[dt.datetime]:
    return st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.datetimes(),
        _zones(),
        st.integers(0, 1),
    )


def _timestamps() -> st.SearchStrategy[Any]:
    moments = st.builds(
        lambda count, unit: pd.Timestamp(np.datetime64(count, unit)),
        st.integers(-62 * 10**9, 62 * 10**9),  # pandas shows no year before 1
        st.sampled_from(["s", "ms", "us", "ns"]),
    )
    zoned = st.builds(
        lambda moment, zone: moment.tz_localize("UTC").tz_convert(zone),
        moments,
        st.sampled_from([zoneinfo.ZoneInfo(zone) for zone in _ZONES]),
    )
    return moments | zoned


@st.composite
def _numpy_scalars(draw: Draw) -> Any:
    array: np.ndarray = draw(arrays(shapes=st.just((1,))))
    return array[0]


def scalars() -> st.SearchStrategy[Any]:
    """Return single values: of Python, numpy, datetime and pandas."""
    spans = st.builds(
        lambda count, unit: pd.Timedelta(np.timedelta64(count, unit)),
        st.integers(-(2**40), 2**40),
        st.sampled_from(["s", "ms", "us", "ns"]),
    )
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers() | st.sampled_from([2**53 + 1, -(2**63), 2**64, 10**400]),
        _floats(),
        st.builds(complex, _floats(), _floats()),
        texts(),
        st.binary(max_size=6),
        st.binary(max_size=6).map(bytearray),
        _numpy_scalars(),
        _datetimes(),
        st.dates(),
        st.builds(lambda t, f: t.replace(fold=f), st.times(), st.integers(0, 1)),
        st.timedeltas(),
        _timestamps(),
        spans,
        st.sampled_from([pd.NA, pd.NaT]),
        st.builds(slice, st.integers(), st.none() | st.integers(), st.none()),
        st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 5)),
    )


def _hashable() -> st.SearchStrategy[Any]:
    simple = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts(), st.dates()
    )
    return simple | st.binary(max_size=4) | st.tuples(simple, simple) | st.frozensets(simple)


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(texts() | _hashable(), inner, max_size=3),
            st.sets(_hashable(), max_size=3),
            st.frozensets(_hashable(), max_size=3),
        ),
        max_leaves=6,
    )


def values(*, with_objects: bool = True) -> st.SearchStrategy[Any]:
    """Return values nested in dicts, lists, tuples and sets, arrays and tables among them."""
    leaves = scalars() | arrays(shapes=_shapes(2))
    if with_objects:
        leaves |= st.one_of(masked_arrays(), series(), dataframes(), dataarrays(), datasets())
    return _nested(leaves)


def attributes() -> st.SearchStrategy[dict[Any, Any]]:
    """Return attributes of any nesting; some that netCDF has, some that it has not."""
    simple = st.sampled_from(
        [1, 2.5, "Hz", "", float("nan"), True, None, 2**70, [1, 2], (1.5,)]
    )
    known = ["units", "calendar", "coordinates", "_FillValue", "dtype", "CLASS", "NAME", "a/b"]
    keys = st.sampled_from(known) | texts() | st.integers(0, 3)
    some = st.dictionaries(keys, simple | values(with_objects=False), max_size=3)
    return st.just({}) | some


def _shapes(dimensions: int = 3) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 3), max_size=dimensions).map(tuple)


def dtypes(*, objects: bool = True) -> st.SearchStrategy[np.dtype[Any]]:
    """Return dtypes of every kind, structured ones with padding and subarrays."""
    flat = st.one_of(
        st.sampled_from(_PLAIN_DTYPES),
        st.builds(
            "{}8[{}]".format, st.sampled_from([*"mM", ">m", ">M"]), st.sampled_from(_UNITS)
        ),
        st.builds("{}{}".format, st.sampled_from(["S", "U", ">U"]), st.integers(0, 5)),
    ).map(np.dtype)
    sized = flat.filter(lambda kind: kind.itemsize > 0)  # in a field, S0 is no dtype
    whole = st.one_of(flat, flat, _structured(sized | _structured(sized)))
    return (
        whole | st.sampled_from([np.dtype(object), np.dtypes.StringDType()])
        if objects
        else whole
    )


@st.composite
def _structured(draw: Draw, kinds: st.SearchStrategy[np.dtype[Any]]) -> np.dtype[Any]:
    fields = draw(st.lists(st.tuples(kinds, _shapes(1)), min_size=1, max_size=3))
    odd = ["x", "é", "a b"]
    make: Any = np.dtype
    structured: np.dtype[Any] = make(
        [
            (odd[i], kind, shape) if shape else (odd[i], kind)
            for i, (kind, shape) in enumerate(fields)
        ],
        align=draw(st.booleans()),
    )
    return structured


def _fill(draw: Draw, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of random bits, as far as every pattern of bits is a value."""
    count = int(np.prod(shape))
    if dtype.names is not None:
        array = np.zeros(shape, dtype)
        for name in dtype.names:
            part = array[name]
            base = dtype[name].base
            part[...] = _fill(draw, base, part.shape)
        return array
    if dtype.kind in "OT":
        array = np.empty(count, dtype)
        items = scalars() if dtype.kind == "O" and draw(st.booleans()) else texts()
        if dtype.kind == "T":
            items = st.text(max_size=9)
        for i in range(count):
            array[i] = draw(items)
        return array.reshape(shape)
    if dtype.kind == "U":
        wide = texts(max(1, dtype.itemsize // 4), whole=draw(st.booleans()))
        items = draw(st.lists(wide, min_size=count, max_size=count))
        return np.array(items, dtype).reshape(shape)
    size = count * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size)) if size else b""
    if dtype.kind == "b":
        data = bytes(byte & 1 for byte in data)
    array = np.zeros(count, dtype)
    if size:
        array.view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    return array.reshape(shape)


@st.composite
def arrays(
    draw: Draw,
    kinds: st.SearchStrategy[np.dtype[Any]] | None = None,
    shapes: st.SearchStrategy[tuple[int, ...]] | None = None,
) -> np.ndarray:
    """Return arrays of every dtype and memory layout, of no dimension and of no size too."""
    array = _fill(
        draw,
        draw(dtypes() if kinds is None else kinds),
        draw(_shapes() if shapes is None else shapes),
    )
    layout = draw(st.sampled_from(["C", "F", "reversed", "strided"]))
    if layout == "F":
        return np.asfortranarray(array) if array.ndim else array
    if array.ndim and layout == "reversed":
        return array[::-1]
    if array.ndim and layout == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array


@st.composite
def masked_arrays(draw: Draw) -> Any:
    """Return masked arrays with and without mask and fill value, hard and soft."""
    kinds = dtypes(objects=False).filter(
        lambda kind: kind.itemsize > 0 and kind.kind in "biufcMmSU"
    )
    data = draw(arrays(kinds))
    mask: Any = draw(
        st.just(np.ma.nomask) | arrays(st.just(np.dtype(bool)), st.just(data.shape))
    )
    array = np.ma.MaskedArray(data, mask=mask, hard_mask=draw(st.booleans()))
    if draw(st.booleans()) and data.dtype.kind in "iuf":
        array.fill_value = draw(st.integers(0, 99))
    return array


def _column(draw: Draw, rows: int) -> Any:
    """Return the values of a column of one of pandas' dtypes."""
    kind = draw(st.sampled_from(list(_COLUMNS)))
    return _COLUMNS[kind](draw, rows)


def _numpy_column(draw: Draw, rows: int) -> Any:
    flat = st.sampled_from(["?", "i1", "u2", "<i8", "<u8", "<f4", "<f8", "<c16"]).map(np.dtype)
    return _fill(draw, draw(flat), (rows,))


def _object_column(draw: Draw, rows: int) -> Any:
    return _fill(draw, np.dtype(object), (rows,))


def _dates(draw: Draw, rows: int) -> Any:
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    counts = draw(st.lists(st.integers(-(2**33), 2**33), min_size=rows, max_size=rows))
    moments = np.array(counts, np.int64).astype(f"M8[{unit}]")
    if rows and draw(st.booleans()):
        moments[0] = "NaT"
    zone = draw(st.sampled_from([None, *_ZONES]))
    array = pd.DatetimeIndex(moments)
    return (array if zone is None else array.tz_localize("UTC").tz_convert(zone)).array


def _spans(draw: Draw, rows: int) -> Any:
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    counts = draw(st.lists(st.integers(-(2**33), 2**33), min_size=rows, max_size=rows))
    return pd.TimedeltaIndex(np.array(counts, np.int64).astype(f"m8[{unit}]")).array


def _categories(draw: Draw, rows: int) -> Any:
    pool: Any = draw(
        st.sampled_from([["a", "b", "é"], [1, 2, 3], [2.5, -0.0, 9.0], [(1, 2), "x", None][:2]])
    )
    codes = draw(st.lists(st.integers(-1, len(pool) - 1), min_size=rows, max_size=rows))
    dtype = pd.CategoricalDtype(pool, ordered=draw(st.booleans()))
    return pd.Categorical.from_codes(np.array(codes, np.int8), dtype=dtype)


def _nullable(draw: Draw, rows: int) -> Any:
    kinds = ["Int8", "UInt16", "Int64", "UInt64", "Float32", "Float64", "boolean"]
    kind: Any = pd.api.types.pandas_dtype(draw(st.sampled_from(kinds)))
    missing = _fill(draw, np.dtype(bool), (rows,))
    return kind.construct_array_type()(_fill(draw, kind.numpy_dtype, (rows,)), missing)


def _strings(draw: Draw, rows: int) -> Any:
    items: list[Any] = draw(
        st.lists(st.none() | st.text(max_size=5), min_size=rows, max_size=rows)
    )
    make: Any = pd.StringDtype
    return pd.array(
        items, dtype=make("python", na_value=draw(st.sampled_from([pd.NA, np.nan])))
    )


def _periods(draw: Draw, rows: int) -> Any:
    counts = draw(st.lists(st.integers(-9999, 9999), min_size=rows, max_size=rows))
    frequency: Any = draw(st.sampled_from(["D", "M", "Q-DEC", "Y-MAR", "2h", "W-SUN"]))
    dtype: Any = pd.PeriodDtype(frequency)
    return pd.arrays.PeriodArray(np.array(counts, np.int64), dtype=dtype)


def _intervals(draw: Draw, rows: int) -> Any:
    left = np.sort(draw(arrays(st.just(np.dtype("<i4")), st.just((rows,)))).astype(float))
    width = draw(st.sampled_from([1.0, 2.5]))
    closed: Any = draw(st.sampled_from(["left", "right", "both", "neither"]))
    if rows and draw(st.booleans()):
        left[-1] = np.nan
    return pd.arrays.IntervalArray.from_arrays(left, left + width, closed=closed)


_COLUMNS: dict[str, Callable[[Draw, int], Any]] = {
    "numpy": _numpy_column,
    "object": _object_column,
    "dates": _dates,
    "spans": _spans,
    "categories": _categories,
    "nullable": _nullable,
    "strings": _strings,
    "periods": _periods,
    "intervals": _intervals,
}


def _labels_of(draw: Draw, rows: int) -> Any:
    """Return values of which pandas makes an index: all that can be hashed."""
    kind = draw(st.sampled_from([kind for kind in _COLUMNS if kind != "object"]))
    return _COLUMNS[kind](draw, rows)


@st.composite
def indexes(draw: Draw, rows: int | None = None) -> pd.Index:
    """Return indexes of every class: ranges, dates, categories, MultiIndex, duplicates."""
    size = draw(st.integers(0, 4)) if rows is None else rows
    name = draw(st.none() | labels())
    kind = draw(st.sampled_from(["range", "plain", "plain", "multi", "frequency", "repeated"]))
    if kind == "range":
        start, step = draw(st.integers(-9, 9)), draw(st.sampled_from([1, 2, -3]))
        return pd.RangeIndex(start, start + step * size, step, name=name)
    if kind == "frequency":
        step = draw(st.sampled_from(["D", "2h", "MS"]))
        return pd.date_range("2024-03-30", periods=size, freq=step, name=name)
    if kind == "repeated":
        return pd.Index(["same"] * size, name=name)
    if kind == "multi":
        parts = [pd.Index(_labels_of(draw, size)) for _ in range(2)]
        return pd.MultiIndex.from_arrays(parts, names=[name, draw(st.none() | labels())])
    values = _labels_of(draw, size)
    dtype = values.dtype if isinstance(values, np.ndarray) else None
    index: pd.Index = pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)
    return index


@st.composite
def series(draw: Draw) -> pd.Series:
    """Return Series of every dtype, index, name and attrs."""
    rows = draw(st.integers(0, 4))
    column = _column(draw, rows)
    dtype = column.dtype if isinstance(column, np.ndarray) else None
    result = pd.Series(
        column, index=draw(indexes(rows)), dtype=dtype, name=draw(st.none() | labels())
    )
    result.attrs = draw(attributes())
    return result


@st.composite
def dataframes(draw: Draw) -> pd.DataFrame:
    """Return DataFrames with columns of every dtype and labels of every kind."""
    rows, width = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    index = draw(indexes(rows))
    columns = {}
    for i in range(width):
        column = _column(draw, rows)
        dtype = column.dtype if isinstance(column, np.ndarray) else None
        columns[i] = pd.Series(column, index=index, dtype=dtype)
    frame = pd.DataFrame(columns, index=index)
    frame.columns = draw(indexes(width))
    frame.attrs = draw(attributes())
    return frame


def _coordinate(draw: Draw, size: int) -> Any:
    kind = draw(st.sampled_from(["count", "float", "text", "date", "span", "bool", "repeated"]))
    if kind == "count":
        return np.arange(size, dtype=draw(st.sampled_from(["i1", "u2", "i8", "f4"])))
    if kind == "float":
        return np.linspace(0, 1, size, dtype=draw(st.sampled_from(["f4", "f8"])))
    if kind == "text":
        return np.array([f"é{i}" for i in range(size)], draw(st.sampled_from(["U4", object])))
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    if kind == "date":
        return np.arange(size).astype(f"M8[{unit}]")
    if kind == "span":
        return np.arange(size).astype(f"m8[{unit}]")
    return np.ones(size, bool if kind == "bool" else "i4")


def _kept_by_xarray() -> st.SearchStrategy[np.dtype[Any]]:
    """Return dtypes of which xarray keeps the arrays that it is given as they are."""
    dates = st.builds(
        "{}8[{}]".format, st.sampled_from("mM"), st.sampled_from(["s", "ms", "us", "ns"])
    )
    return dtypes(objects=False).filter(lambda kind: kind.kind not in "mM") | dates.map(
        np.dtype
    )


@st.composite
def datasets(draw: Draw) -> xr.Dataset:
    """Return Datasets with coordinates of every kind, odd labels, attributes, no data."""
    sizes = {f"dim{i}": size for i, size in enumerate(draw(_shapes()))}
    dataset = xr.Dataset()
    for dim, size in sizes.items():
        kind = draw(st.sampled_from(["none", "index", "index", "bare", "multi"]))
        if kind == "multi" and size:
            levels = [pd.Index(_coordinate(draw, size)) for _ in range(2)]
            index = pd.MultiIndex.from_arrays(levels, names=[f"{dim}_one", f"{dim}_two"])
            dataset = dataset.assign_coords(xr.Coordinates.from_pandas_multiindex(index, dim))
        elif kind in ("index", "bare"):
            variable = xr.Variable((dim,), _coordinate(draw, size), draw(attributes()))
            coords = xr.Coordinates({dim: variable}, indexes={} if kind == "bare" else None)
            dataset = dataset.assign_coords(coords)
    for i in range(draw(st.integers(0, 3))):
        own = (
            draw(st.lists(st.sampled_from(list(sizes)), max_size=2, unique=True))
            if sizes
            else []
        )
        data = draw(arrays(_kept_by_xarray(), st.just(tuple(sizes[dim] for dim in own))))
        variable = xr.Variable(own, data, draw(attributes()))
        if draw(st.integers(0, 3)) == 0:
            dataset = dataset.assign_coords(xr.Coordinates({f"v{i}": variable}, indexes={}))
        else:
            dataset[f"v{i}"] = variable
    dataset.attrs = draw(attributes())
    old = list(dict.fromkeys((*dataset.variables, *dataset.sizes)))
    new = draw(st.lists(labels(), min_size=len(old), max_size=len(old), unique_by=str))
    # xarray fails on a dimension with a coordinate whose label is no str.
    return dataset.rename(
        {
            a: b if type(b) is str or a not in dataset.indexes else f"{b}"
            for a, b in zip(old, new, strict=True)
        }
    )


@st.composite
def dataarrays(draw: Draw) -> xr.DataArray:
    """Return DataArrays, with the coordinates and labels that :func:`datasets` draws."""
    dataset = draw(datasets())
    dims = tuple(dataset.sizes)
    data = draw(arrays(_kept_by_xarray(), st.just(tuple(dataset.sizes.values()))))
    coords = dataset.coords
    name = draw(st.none() | labels())
    return xr.DataArray(data, coords, dims, name=name, attrs=draw(attributes()))


def objects() -> st.SearchStrategy[Any]:
    """Return objects of every general kind."""
    return st.one_of(
        arrays(), masked_arrays(), series(), dataframes(), dataarrays(), datasets(), values()
    )
