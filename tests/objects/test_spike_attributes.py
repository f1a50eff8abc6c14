"""Attributes of units: every type and every gap comes back."""

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import labtree
from labtree.objects.unit_attributes import alike, column
from labtree.storage.missing import ABSENT
from support.exactness import assert_same

values = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.none(),
    st.tuples(st.integers(0, 3), st.text(max_size=2)),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)
names = st.one_of(
    st.sampled_from(
        ["channel", "x", "x_missing", "unit", "spike_times", "a/b", "", "x_1", "None"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=4),
)


def with_attributes(attributes, n_units=None):
    n_units = len(attributes) if n_units is None else n_units
    return labtree.spike_data(
        [[float(u)] for u in range(n_units)], neuron_attributes=attributes
    )


@given(st.lists(st.dictionaries(names, values, max_size=4), max_size=5))
def test_attributes_come_back_as_they_were(attributes):
    back = labtree.spikes.unit_attributes(with_attributes(attributes))
    assert all(alike(one, other) for one, other in zip(back, attributes, strict=True))


@given(st.lists(st.dictionaries(names, values, max_size=4), max_size=5), st.data())
def test_attributes_follow_their_units(attributes, data):
    ds = with_attributes(attributes)
    units = data.draw(
        st.lists(st.integers(0, len(attributes) - 1), max_size=5) if attributes else st.just([])
    )
    back = labtree.spikes.unit_attributes(labtree.spikes.select_units(ds, units))
    assert all(alike(one, attributes[at]) for one, at in zip(back, units, strict=True))


@pytest.mark.parametrize(
    ("given_values", "dtype"),
    [
        ([1, 2], np.int64),
        ([2**63, 1], np.uint64),
        ([2**64, 1], object),
        ([1.5, math.nan], np.float64),
        ([True, False], bool),
        (["a", "bc"], "U2"),
        (["a\0", "b"], object),
        ([1j, 2j], complex),
        ([True, 5], object),
        ([1, 2.7], object),
        ([None, 1], object),
        ([np.float32(1), np.float32(2)], np.float32),
        ([np.float32(1), np.float64(2)], object),
        ([np.datetime64(1, "s"), np.datetime64(2, "s")], "M8[s]"),
        ([np.str_("a"), np.str_("b")], "U1"),
        ([np.zeros(2, "f4"), np.ones(2, "f4")], np.float32),
        ([np.zeros(2), np.zeros(3)], object),
        ([[1, 2], [3, 4]], object),
    ],
)
def test_each_type_has_its_dtype(given_values, dtype):
    ds = with_attributes([{"x": value} for value in given_values])
    assert ds.x.dtype == np.dtype(dtype)
    assert "x_missing" not in ds.coords
    back = [record["x"] for record in labtree.spikes.unit_attributes(ds)]
    assert all(np.array_equal(a, b, equal_nan=isinstance(b, float)) for a, b in
               zip(back, given_values, strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("value", "filler"),
    [
        (3, np.iinfo(np.int64).min),
        (np.uint8(3), 255),
        ("good", ""),
        (True, False),
        (None, None),
        ((1, 2), None),
    ],
)
def test_a_missing_value_is_marked_and_keeps_the_dtype(value, filler):
    ds = with_attributes([{"x": value}, {}, None])
    assert ds.x_missing.values.tolist() == [False, True, True]
    assert ds.x.attrs["ancillary_variables"] == "x_missing"
    assert ds.x.values[1] == filler
    assert ds.x.dtype == with_attributes([{"x": value}]).x.dtype
    assert labtree.spikes.unit_attributes(ds) == [{"x": value}, {}, {}]


@pytest.mark.parametrize("value", [math.nan, np.datetime64(1, "s"), 1j])
def test_a_missing_number_is_not_a_number(value):
    ds = with_attributes([{"x": value}, {}])
    assert np.isnat(ds.x.values[1]) if ds.x.dtype.kind == "M" else np.isnan(ds.x.values[1])
    assert [len(record) for record in labtree.spikes.unit_attributes(ds)] == [1, 0]


def test_arrays_for_some_units():
    template = np.arange(6, dtype="i2").reshape(2, 3)
    ds = with_attributes([{"template": template}, {}, {"template": template + 1}])
    assert ds.template.dims == ("unit", "template_1", "template_2")
    assert ds.template.dtype == np.int16
    back = labtree.spikes.unit_attributes(ds)
    assert_same(back[0], {"template": template})
    assert back[1] == {}
    assert_same(back[2], {"template": template + 1})


def test_an_array_of_nan_is_not_a_missing_array():
    ds = with_attributes([{"x": np.full(2, np.nan)}, {"x": np.ones(2)}])
    assert "x_missing" not in ds.coords
    assert np.isnan(labtree.spikes.unit_attributes(ds)[0]["x"]).all()


def test_columns_instead_of_one_dict_a_unit():
    ds = with_attributes(
        {
            "channel": np.array([3, 4], "u2"),
            "depth": np.ma.masked_equal([10.0, 20.0], 20),
            "name": ["a", None],
            "position": np.ma.masked_greater(np.array([[1, 2], [5, 6]]), 4),
        },
        2,
    )
    assert ds.channel.dtype == np.uint16
    records = labtree.spikes.unit_attributes(ds)
    assert records[0]["name"] == "a"
    assert records[0]["depth"] == 10.0
    assert records[0]["position"].tolist() == [1, 2]
    assert set(records[1]) == {"channel"}


def test_a_table_with_a_row_for_each_unit():
    table = pd.DataFrame(
        {
            "channel": pd.array([3, None], "Int64"),
            "depth": [10.0, np.nan],
            "name": ["a", None],
            "good": [True, False],
        },
        index=[7, 9],
    )
    ds = with_attributes(table, 2)
    assert ds.channel.dtype == np.int64
    assert ds.good.dtype == bool
    assert labtree.spikes.unit_attributes(ds) == [
        {"channel": 3, "depth": 10.0, "name": "a", "good": True},
        {"good": False},
    ]
    with pytest.raises(ValueError, match="each column needs 3 values"):
        with_attributes(table, 3)


@pytest.mark.parametrize("values", ["ab", b"ab", 3, np.array(3), None])
def test_a_column_must_be_one(values):
    with pytest.raises(ValueError, match="'x' must be a column with one value for each unit"):
        with_attributes({"x": values}, 2)


def test_columns_for_no_units():
    ds = with_attributes({"x": np.ma.masked_all((0, 2))}, 0)
    assert ds.x.shape == (0, 2)


def test_an_array_cannot_be_missing_in_part():
    with pytest.raises(ValueError, match="missing whole or not at all"):
        with_attributes({"x": np.ma.masked_equal([[1, 2], [3, 4]], 1)}, 2)


def test_names_that_the_dataset_needs_itself():
    ds = with_attributes([{"unit": 1, "spike_times": 2, "a/b": 3, "a_b": 4}])
    assert ds.unit_.item() == 1
    assert ds.spike_times_.attrs["labtree_name"] == "spike_times"
    assert ds.a_b.item() == 4
    assert labtree.spikes.unit_attributes(ds) == [
        {"unit": 1, "spike_times": 2, "a/b": 3, "a_b": 4}
    ]


def test_attributes_given_by_a_generator():
    ds = labtree.spike_data([[1.0]], neuron_attributes=({"x": n} for n in range(1)))
    assert ds.x.item() == 0


def test_column_of_nothing():
    values, missing = column([])
    assert values.shape == (0,)
    assert missing is None
    assert repr(ABSENT) == "<absent>"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        (math.nan, math.nan, True),
        ([1, (2,)], [1, (2,)], True),
        ([1, (2,)], [1, [2]], False),
        ({"a": np.ones(2)}, {"a": np.ones(2)}, True),
        ({"a": np.ones(2)}, {"a": np.ones(2, "f4")}, False),
        ({"a": 1}, {"b": 1}, False),
        (np.array([1, "a"], object), np.array([1, "a"], object), True),
        (np.array([1, None], object), np.array([1, 0], object), False),
    ],
)
def test_alike(first, second, same):
    assert alike(first, second) is same


def test_columns_of_pandas_and_xarray_keep_their_dtype():
    zoned = pd.to_datetime(["2020", "2021"]).tz_localize("UTC")
    columns = {
        "day": pd.Series(pd.to_datetime(["2020-01-02", None])),
        "small": pd.Series(np.array([1, 2], "i2")),
        "single": pd.Series(np.array([1.5, np.nan], "f4")),
        "nullable": pd.array([7, None], "Int16"),
        "index": pd.Index([3, 4], dtype="u1"),
        "depth": xr.DataArray(np.array([0.5, np.nan], "f4"), dims="unit"),
        "zoned": pd.Series(zoned),
    }
    ds = with_attributes(columns, 2)
    found = {name: str(ds[name].dtype) for name in columns}
    assert found == {
        "day": str(columns["day"].dtype), "small": "int16", "single": "float32",
        "nullable": "int64", "index": "uint8", "depth": "float32", "zoned": "object",
    }  # fmt: skip
    first, second = labtree.spikes.unit_attributes(ds)
    assert first["day"] == np.datetime64("2020-01-02")
    assert second.keys() == {"small", "index", "depth", "zoned"}
    assert (second["small"], second["index"], second["zoned"]) == (2, 4, zoned[1])
    assert np.isnan(second["depth"])


def test_columns_of_one_name_are_refused():
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(labtree.LabtreeError, match="2 columns are called 'a'"):
        with_attributes(frame, 2)
