"""Values as JSON that gives back the same values; JSON of others is an error."""

import datetime as dt
import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from labtree.storage import dtypes, json_values
from support import strategies
from support.exactness import assert_same


@given(strategies.values(with_objects=False))
def test_values_come_back(value):
    text = json_values.dumps(value)
    assert text.isascii()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert_same(json_values.loads(text), value)


@given(strategies.dtypes(objects=False))
def test_dtypes_come_back(dtype):
    found = dtypes.dtype_from_json(json.loads(json.dumps(dtypes.dtype_to_json(dtype))))
    assert found == dtype
    assert found.isalignedstruct == dtype.isalignedstruct


def test_titles_and_subarrays_of_dtypes_come_back():
    titled = np.dtype([(("a title", "x"), "f4"), ("y", "i2", (2, 3))])
    found = dtypes.dtype_from_json(dtypes.dtype_to_json(titled))
    assert found == titled
    assert found.fields["x"][2] == "a title"


class _Zone(dt.tzinfo):
    def utcoffset(self, moment):
        return dt.timedelta(hours=1)


def test_what_is_refused_says_where():
    for value, message in [
        ({"a": [object()]}, r"obj\['a'\]\[0\]: cannot keep an object exactly"),
        ({object(): 1}, "cannot keep an object exactly"),
        (
            {"s": pd.Series([1])},
            r"obj\['s'\]: .*Series exactly; store it as an item of its own",
        ),
        (
            [dt.datetime(2024, 1, 1, tzinfo=_Zone())],
            r"cannot keep the time zone .* exactly; write x.astimezone\(zoneinfo",
        ),
        (np.array([(1, None)], [("a", "i4"), ("b", "O")]), "an array of dtype"),
    ]:
        with pytest.raises(TypeError, match=message):
            json_values.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"$unknown":1}',
        '{"$float":"zz"}',
        '{"$float":"00"}',
        '{"$objects":[[1099511627776],[]]}',
        '{"$array":["<f8",[2],"AAAA"]}',
        '{"$array":["O",[1],"AAAAAAAAAAA="]}',
        '{"$Timestamp":[1,"evil",0,null]}',
        '{"$datetime":["now",0,null]}',
        '{"$datetime":["2024-01-01T00:00:00",0,"../../etc/passwd"]}',
        '{"$dict":[[[],1]]}',
        '{"$part":"x"}',
        "{",
    ],
)
def test_what_no_value_was_written_as_is_an_error(text):
    with pytest.raises(Exception, match=r".") as caught:
        json_values.loads(text)
    assert not isinstance(caught.value, (MemoryError, SystemError))


def test_deep_nesting_is_an_error_also_where_the_limit_of_recursion_is_high():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        for text in ("[" * 100_000, '{"a":' * 100_000):
            with pytest.raises(RecursionError, match="more than 5000 levels of JSON"):
                json_values.loads(text)
        assert len(json_values.loads("[" + "[]," * 6000 + "[]]")) == 6001
        assert json_values.loads('["[[", "\\"[", {"a": []}]') == ["[[", '"[', {"a": []}]
    finally:
        sys.setrecursionlimit(before)
