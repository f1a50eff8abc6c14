"""What cannot be kept is refused when it is stored: every path, and what to write instead."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import re
import types
import uuid

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.storage.unsupported import refused_together, unsupported


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    rate: float = 1.0


class Duck:
    """Something with units, as pint and quantities have."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.magnitude, self.units = self.array, "mV"
        self.shape, self.dtype, self.ndim = (
            self.array.shape,
            self.array.dtype,
            self.array.ndim,
        )

    def __array_function__(self, *args):
        raise NotImplementedError

    def __array_ufunc__(self, *args):
        raise NotImplementedError

    def __deepcopy__(self, memo):
        return self

    def __getitem__(self, key):
        return Duck(self.array[key])


def model_class():
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("Model", a=(int, 1))


Named = collections.namedtuple("Named", "a b")
LINES = {
    "x.value": Color.RED,
    "dataclasses.asdict(x)": Settings(),
    "x._asdict(), or tuple(x)": Named(1, 2),
    "dict(x)": types.MappingProxyType({"a": 1}),
    "vars(x)": types.SimpleNamespace(a=1),
    "list(x)": collections.deque([1]),
    "str(x)": decimal.Decimal(1),
    "x.pattern": re.compile("a"),
    "bytes(x)": memoryview(b"a"),
    "np.asarray(x)": np.arange(2).view(type("Kind", (np.ndarray,), {})),
    "x.view(np.ndarray)": np.zeros(1, [("a", "i4")]).view(np.recarray),
    "{name: x[name] for name in x.dtype.names}": np.array([("a", 1)], "O,i4"),
    "x.__qualname__": Settings,
    "x.__name__": types,
    "xr.DataArray(x)": xr.Variable("x", [1]),
    "x.magnitude, and str(x.units)": Duck([1.0]),
    "labtree.register_kind": type("Own", (), {})(),
}


@pytest.mark.parametrize("line", LINES)
def test_the_line_to_write_instead_is_named(line):
    tree = labtree.create_workspace()
    for obj, path in ((LINES[line], "n/k"), ({"a": [0, LINES[line]]}, "n/k['a'][1]")):
        with pytest.raises(labtree.UnsupportedTypeError) as caught:
            tree.ws.store("n", "k", obj)
        assert line in str(caught.value)
        assert str(caught.value).startswith(path)
    assert tree.ws.list_keys() == {}


@pytest.mark.parametrize("value", [fractions.Fraction(1, 2), uuid.UUID(int=1)])
def test_numbers_and_ids_are_written_as_text(value):
    with pytest.raises(TypeError, match=r"write str\(x\)"):
        labtree.create_workspace().ws.store("n", "k", value)


def test_a_model_of_pydantic_names_its_dump():
    with pytest.raises(TypeError, match=r"write x.model_dump\(\)"):
        labtree.create_workspace().ws.store("n", "k", {"m": model_class()()})


@pytest.mark.parametrize(
    "dtype",
    ["int64[pyarrow]", "uint8[pyarrow]", "float[pyarrow]", "halffloat[pyarrow]",
     "bool[pyarrow]",
     "timestamp[us][pyarrow]", "duration[ns][pyarrow]", "list<item: int64>[pyarrow]",
     "Sparse[int]", "Sparse[float]"],
)  # fmt: skip
def test_the_line_for_arrays_of_pandas_gives_what_is_kept(dtype):
    if "pyarrow" in dtype:
        pyarrow = pytest.importorskip("pyarrow")
        named = {
            "halffloat": pyarrow.float16(),
            "list<item: int64>": pyarrow.list_(pyarrow.int64()),
        }
        short = dtype.removesuffix("[pyarrow]")
        dtype = pd.ArrowDtype(named[short]) if short in named else dtype
    values = [[1], [2, 3]] if "list" in str(dtype) else [1, 0]
    series = pd.Series(values, dtype=dtype)
    tree = labtree.create_workspace()
    for obj in (series, series.array, pd.Index(series.array)):
        with pytest.raises(TypeError, match=r"write ") as caught:
            tree.ws.store("n", "k", obj)
        line = str(caught.value).partition("write ")[2]
        made = eval(line if line.startswith("x") else f"x{line}", {"x": obj})
        tree.ws.store("n", "k", made)
        assert list(map(str, tree.ws["n", "k"])) == list(map(str, made))


@pytest.mark.parametrize(
    "value",
    [pd.Period("2000", "M"), pd.Interval(0, 1), pd.offsets.Day(2), pd.CategoricalDtype(["a"]),
     np.dtype("<f4"), datetime.UTC],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_line_for_scalars_of_pandas_gives_what_is_kept(value):
    tree = labtree.create_workspace()
    with pytest.raises(TypeError, match=r"write .*x") as caught:
        tree.ws.store("n", "k", {"a": value})
    line = str(caught.value).partition("write ")[2].partition(", or")[0]
    made = eval(line, {"x": value})
    tree.ws.store("n", "k", {"a": made})


class OwnDataset(xr.Dataset):
    __slots__ = ()


class OwnDataArray(xr.DataArray):
    __slots__ = ()


def test_classes_derived_of_xarrays_are_refused():
    tree = labtree.create_workspace()
    with pytest.raises(
        TypeError, match=r"n/k: cannot keep .*OwnDataset .*write xr.Dataset\(x\)"
    ):
        tree.ws.store("n", "k", OwnDataset({"a": 1}))
    with pytest.raises(TypeError, match=r"n/k\['b'\]: .*write xr.DataArray\(x\)"):
        tree.ws.store("n", "k", {"b": OwnDataArray([1])})
    tree.ws.store("n", "k", xr.Dataset({"a": 1}))
    tree.ws.store("n", "view", tree["n/k"].dataset)  # xarray's own view of a node
    assert tree.ws["n", "view"].identical(tree.ws["n", "k"])


def test_an_index_that_is_refused_is_named_with_the_line_that_drops_it():
    dataset = xr.Dataset({"a": ("x", [1, 2])}, {"y": ("x", [1, 2])}).set_xindex("y")
    with pytest.raises(TypeError, match=r"write .drop_indexes\(\['y'\]\)"):
        labtree.create_workspace().ws.store("n", "k", dataset)


def test_a_time_zone_that_has_no_name_is_named_with_its_path():
    tz = pytest.importorskip("dateutil.tz")
    zoned = pd.Timestamp("2000-01-01", tz=tz.gettz("Europe/Berlin"))
    tree = labtree.create_workspace()
    for obj, path in (({"a": [zoned]}, r"n/k\['a'\]\[0\]: "), (pd.Series([zoned]), "n/k: ")):
        with pytest.raises(TypeError, match=f"^{path}cannot keep the time zone .* write "):
            tree.ws.store("n", "k", obj)


def test_texts_that_only_some_numpy_arrays_may_hold_are_refused():
    strict = np.array(["a"], np.dtypes.StringDType(coerce=False))
    with pytest.raises(TypeError, match=r"write x.astype"):
        labtree.create_workspace().ws.store("n", "k", strict)


def test_every_part_of_a_nested_value_is_named():
    value = {
        "a": [1, print, {"b": Color.RED}],
        "c": np.array([1, object()], dtype=object),
        "d": xr.Dataset({"x": ("y", [1], {"f": print})}, attrs={"g": Settings()}),
        "e": pd.DataFrame({"p": pd.Series([print, 1], dtype=object), "q": [1, 2]}),
    }
    with pytest.raises(labtree.UnsupportedTypeError) as caught:
        labtree.create_workspace().ws.store("n", "k", value)
    text = str(caught.value)
    assert text.startswith("6 parts cannot be kept:\n  ")
    for path in (
        "n/k['a'][1]: ",
        "n/k['a'][2]['b']: ",
        "n/k['c'].flat[1]: ",
        "n/k['d'].attrs['g']: ",
        "n/k['d']['x'].attrs['f']: ",
        "n/k['e']['p'].flat[0]: ",
    ):
        assert path in text
    assert len(caught.value.problems) == 6


def test_many_parts_are_counted_and_twenty_listed():
    with pytest.raises(labtree.UnsupportedTypeError) as caught:
        labtree.create_workspace().ws.store("n", "k", [print] * 50)
    assert "50 parts cannot be kept" in str(caught.value)
    assert str(caught.value).endswith("and 30 more")
    assert str(caught.value).count("n/k[") == 20


def test_one_error_is_itself():
    error = unsupported(print, "here")

    def refuse():
        raise error

    def work():
        with refused_together() as attempt:
            assert attempt(refuse) is None
            assert attempt(len, "two") == 3

    with pytest.raises(labtree.errors.UnsupportedTypeError) as caught:
        work()
    assert str(caught.value) == str(error)
    assert error.problems == caught.value.problems == (str(error),)


def test_every_part_of_a_dataset_is_named():
    dataset = xr.Dataset(
        {
            "duck": ("x", Duck([1.0, 2.0])),
            "objects": ("x", np.array([1, print], dtype=object)),
            "sparse": ("x", pd.arrays.SparseArray([0, 1])),
            "good": ("x", [1, 2]),
        },
        attrs={"model": print},
    )
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", 1)
    with pytest.raises(labtree.UnsupportedTypeError) as caught:
        tree.ws.store("n", "k", dataset)
    text = str(caught.value)
    assert "4 parts cannot be kept" in text
    assert "n/k['duck']: cannot keep a " in text
    assert "in 'mV' exactly; write .as_numpy(), and the units into attrs['units']" in text
    assert "n/k['objects'].flat[1]: " in text
    assert "n/k['sparse']: cannot keep pandas' Sparse" in text
    assert "n/k.attrs['model']: " in text
    assert tree.ws["n", "k"] == 1


def test_pint_names_its_own_verb():
    pint = pytest.importorskip("pint")
    quantity = pint.UnitRegistry().Quantity(np.arange(3.0), "mV")
    with pytest.raises(TypeError, match=r"in 'millivolt' exactly; write .pint.dequantify\(\)"):
        labtree.create_workspace().ws.store("n", "k", xr.DataArray(quantity))


def test_blocks_of_dask_must_have_known_sizes_and_hold_numpy():
    array = pytest.importorskip("dask.array")
    blocks = array.arange(10, chunks=4)
    tree = labtree.create_workspace()
    tree.ws.store("n", "good", xr.Dataset({"v": ("x", blocks)}))
    with pytest.raises(TypeError, match=r"unknown sizes; write x.compute\(\)"):
        tree.ws.store("n", "k", xr.Dataset({"v": ("x", blocks[blocks > 3])}))
    with pytest.raises(TypeError, match=r"write xr.DataArray\(x\)"):
        tree.ws.store("n", "k", {"a": blocks})


@pytest.mark.parametrize(
    "obj",
    [
        np.zeros((1,) * 33),
        xr.DataArray(np.zeros((1,) * 33)),
        {"a": np.zeros((1,) * 33)},
    ],
    ids=["array", "xarray", "nested"],
)
def test_arrays_of_too_many_dimensions_are_refused(obj):
    with pytest.raises(TypeError, match=r"33 dimensions.*write x.reshape\(-1\)"):
        labtree.create_workspace().ws.store("n", "k", obj)


def test_what_is_stored_can_be_saved_with_as_many_dimensions_as_are_allowed(tmp_path):
    for dtype in ("f8", "c16", "U3", "S2", "M8[s]", "?"):
        array = np.zeros((1,) * 31, dtype)
        tree = labtree.create_workspace()
        tree.ws.store("n", "k", array)
        back = labtree.load_item(tree.ws.save(tmp_path / array.dtype.name), "n", "k")
        assert back.dtype == array.dtype
        assert back.shape == array.shape


def test_labels_that_cannot_be_kept_say_how_to_rename_them():
    dataset = xr.Dataset({"a": ("x", [1])}).rename(a=("t", 1))
    labtree.create_workspace().ws.store("n", "k", dataset)  # any label can be encoded


def test_objects_of_other_libraries_name_their_conversion():
    foreign = type("SpikeData", (), {"__module__": "spikelab.spikedata"})()
    tree = labtree.create_workspace()
    with pytest.raises(TypeError, match=r"write labtree.from_spikelab\(x\)$"):
        tree.ws.store("rec1", "spikes", {"units": foreign})
    with pytest.raises(
        ValueError, match=r"found 'SpikeData'; write labtree.from_spikelab\(x\)"
    ):
        labtree.spikes.sttc(foreign)
