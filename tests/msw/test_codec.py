"""The trial file: bytes as the rigs write them, exact both ways, damage counted."""

import copy
import json
import math
import os
import sys
import threading
import warnings
from collections import OrderedDict, namedtuple
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.errors import BusyFileError, DamageWarning, FormatError, TrialDataError
from labtree.msw import TrialWriter, load_trial_data, save_trial_data, trials_to_frame
from labtree.msw.trial_file import read_trial_frame
from labtree.msw.trial_lines import decode_line, encode_trial
from labtree.msw.trial_times import NAN_PLACEHOLDER
from labtree.storage.folders import make_folders
from labtree.testing.msw import make_trials
from support import power_loss
from support.examples import examples

HEADER = b'{"_msw_version": "1.0.0"}\n'
NAN = float("nan")


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are the same, types and NaN included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return bool(a == b)


# --- bytes ------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((0.0, 0.12345), '{"__tuple__": [0.0, 0.1235]}'),
        (((1,), []), '{"__tuple__": [{"__tuple__": [1]}, []]}'),
        (Point(1, 2.00004), '{"__tuple__": [1, 2.0]}'),
        (NAN, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (None, "null"),
        (True, "true"),
        (-0.00001, "-0.0"),
        (1e22, "1e+22"),
        (1.23456e-7, "0.0"),
        ('µ\n"\\', '"\\u00b5\\n\\"\\\\"'),
        ("\ud800", '"\\ud800"'),
        (2**70, str(2**70)),
        ([], "[]"),
        ({}, "{}"),
        ({"b": 1, "a": [1.0, "x"]}, '{"b": 1, "a": [1.0, "x"]}'),
        (np.float64(0.12345), "0.1234"),
        (np.float64(2.67495), "2.675"),
        (np.float64(-0.00005), "-0.0"),
        (np.float32(0.12345), "0.1235"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (np.bool_(False), "false"),
        (np.str_("x"), '"x"'),
        # Arrays round as numpy does, and float32 shows what it is.
        (np.array([0.12345, NAN]), "[0.1234, NaN]"),
        (np.array([0.1235], np.float32), "[0.12349999696016312]"),
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        (np.array([True]), "[true]"),
        (np.array(["a"]), '["a"]'),
        (np.array(1.5), "1.5"),
        (OrderedDict(a=1), '{"a": 1}'),
    ],
)
def test_bytes(value: Any, text: str) -> None:
    assert encode_trial({"k": value}) == f'{{"k": {text}}}\n'.encode()


def test_file_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.msw.df.jsonl"
    save_trial_data([{"a": 1}, {}], path)
    assert path.read_bytes() == HEADER + b'{"a": 1}\n{}\n'
    save_trial_data([], path)
    assert path.read_bytes() == HEADER
    assert load_trial_data(path) == []


def test_full_precision() -> None:
    assert encode_trial({"k": (0.1234567890123, np.float64(1 / 3))}, None) == (
        b'{"k": {"__tuple__": [0.1234567890123, 0.3333333333333333]}}\n'
    )
    assert encode_trial({"k": np.array([1 / 3])}, None) == b'{"k": [0.3333333333333333]}\n'


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1: 2}, "key 1 is a int"),
        ({None: 2}, "key None"),
        ({True: 2}, "key True"),
        ({1.5: 2}, "key 1.5"),
        ({(1, 2): 2}, "tuple"),
        ({np.int64(1): 2}, "int64"),
        # Were saved, and came back as tuples or not at all.
        ({"__tuple__": 5}, "come back as a tuple"),
        ({"__tuple__": "ab"}, "come back as a tuple"),
        ({"__tuple__": [1]}, "come back as a tuple"),
        ({1, 2}, "builtins.set"),
        (b"x", "builtins.bytes"),
        (datetime(2026, 1, 1), "datetime"),
        (pd.Timestamp("2026-01-01"), "Timestamp"),
        (pd.NA, "NAType"),
        (pd.NaT, "NaTType"),
        (Path("x"), "Path"),
        (Decimal("1"), "Decimal"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (pd.Series([1]), "Series"),
        # Lost what is masked, rounding, or the unit.
        (np.ma.masked_array([1.0], [True]), "masked"),
        (np.array([0.123456, "x"], object), "dtype object"),
        (np.array([(1.0,)], [("a", float)]), "dtype"),
        (np.array(["2026-01-01"], "M8[ns]"), "datetime64"),
        (np.array([1j]), "complex128"),
        (np.array([b"x"]), "dtype"),
        (object(), "object"),
    ],
)
def test_refused(value: Any, told: str) -> None:
    with pytest.raises(TrialDataError, match=told) as caught:
        encode_trial({"info": {"deep": [value]}}, where="trial 3")
    assert "trial 3['info']['deep'][0]" in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_refused_trials() -> None:
    with pytest.raises(TrialDataError, match="marks the header"):
        encode_trial({"_msw_version": "1.0.0", "a": 1})
    with pytest.raises(TrialDataError, match="expected a dict, found a list"):
        encode_trial([])  # type: ignore[arg-type]
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(TrialDataError, match="within itself"):
        encode_trial({"a": itself})


def test_a_refused_trial_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    save_trial_data([{"a": 1}], path)
    before = path.read_bytes()
    with pytest.raises(TrialDataError, match=r"a\.jsonl: trial 1\['b'\]"):
        save_trial_data([{"a": 2}, {"b": {1}}], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    with pytest.raises(TrialDataError, match=r"save_trial_data\(trials, path\)"):
        save_trial_data(path, [{}])  # type: ignore[arg-type]


def test_a_new_file_is_as_readable_as_any(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_trial_data([], tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- there and back ---------------------------------------------------------------------

numbers = st.floats() | st.just(-9e99) | st.integers() | st.integers(-(2**80), 2**80)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8)
words = st.sampled_from(
    ["NaN", "null", "a NaN b", "x\\NaN", '"NaN"', "-9e99", "__tuple__", "é"]
)
keys = st.text(max_size=5).filter(lambda key: key != "_msw_version") | words
values = st.recursive(
    scalars | words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3).filter(lambda d: d.keys() != {"__tuple__"})
    ),
    max_leaves=8,
)
visits: Any = (
    st.just(NAN)
    | st.none()
    | values
    | st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=2)
    | st.just([(NAN, NAN)])
)
trials = st.fixed_dictionaries(
    {},
    optional={
        "Trial start timestamp": st.floats(0, 100),
        "info": st.dictionaries(keys, values, max_size=4).filter(
            lambda d: d.keys() != {"__tuple__"}
        )
        | st.just(NAN)
        | values,
        "States timestamps": st.dictionaries(st.sampled_from("abc"), visits, max_size=3),
        "Events timestamps": st.dictionaries(
            st.sampled_from("xyz"), st.lists(st.floats(0, 9), max_size=3), max_size=3
        ),
        "odd": values,
    },
)


plain = st.dictionaries(keys, values, max_size=4).filter(lambda d: d.keys() != {"__tuple__"})


@given(st.lists(plain, max_size=4))
def test_full_precision_is_exact_both_ways(tmp_path_factory: Any, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    save_trial_data(rows, path, decimals=None)
    assert same(load_trial_data(path), rows)


@pytest.mark.filterwarnings("ignore:.*are not valid")
@settings(max_examples=examples(300), deadline=None)
@given(st.lists(trials, max_size=5))
def test_the_quick_parser_gives_what_the_exact_one_gives(
    tmp_path_factory: Any, rows: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    save_trial_data(rows, path, decimals=None)
    quick, _ = read_trial_frame(path)
    exact = trials_to_frame(load_trial_data(path))
    assert list(quick.columns) == list(exact.columns)
    for name in exact:
        assert quick[name].dtype == exact[name].dtype, name
        pairs = zip(quick[name].tolist(), exact[name].tolist(), strict=True)
        assert all(a is b is pd.NA or same(a, b) for a, b in pairs), name
    if rows:
        pd.testing.assert_frame_equal(quick.msw.states(), exact.msw.states())
        pd.testing.assert_frame_equal(quick.msw.events(), exact.msw.events())


def test_nan_null_and_the_letters_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(HEADER + b'{"a": NaN, "b": null, "c": "NaN null", "d": [NaN, null]}\n')
    (trial,) = load_trial_data(path)
    assert same(trial, {"a": NAN, "b": None, "c": "NaN null", "d": [NAN, None]})
    frame, findings = read_trial_frame(path)
    assert not findings.damage + findings.remarks
    assert frame["c"].tolist() == ["NaN null"]
    assert same(frame["d"].tolist(), [[NAN, None]])


@pytest.mark.parametrize(
    "row",
    [
        {"info": {"a": -9e99, "b": "NaN"}},
        {"info": {"a": [-9e99], "b": ["NaN"]}},
        {"info": {"a": -9e99, "NaN": 1}},
        {"info": {"a": [-9e99, {"NaN": 1}]}},
        {"States timestamps": {"NaN": [(0.0, -9e99)]}},
        {"Events timestamps": {"NaN": [-9e99]}},
        {"info": {"a": '"', "b": ["NaN", '"', -9e99]}},
        {"info": {"a": NAN_PLACEHOLDER}, "States timestamps": {"s": [(0.0, NAN_PLACEHOLDER)]}},
        {"info": {"a": [NAN_PLACEHOLDER, str(NAN_PLACEHOLDER)], str(NAN_PLACEHOLDER): 1}},
    ],
)
def test_the_number_that_stands_for_nan_is_no_nan(tmp_path: Path, row: Any) -> None:
    path = tmp_path / "a.jsonl"
    save_trial_data([row], path, decimals=None)
    quick, exact = read_trial_frame(path)[0], trials_to_frame([row])
    assert repr(quick.to_dict("list")) == repr(exact.to_dict("list"))
    assert repr(quick.msw.states().to_dict("list")) == repr(exact.msw.states().to_dict("list"))
    assert repr(quick.msw.events().to_dict("list")) == repr(exact.msw.events().to_dict("list"))
    text = repr((exact.to_dict("list"), exact.msw.states(), exact.msw.events()))
    assert "nan" not in text.lower().replace("'nan'", "").replace(" nan", "")


def test_large_integers_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    big = 2**64 + 1
    save_trial_data([{"a": big, "b": [big], "c": 2**63}], path)
    frame, _ = read_trial_frame(path)
    assert frame["a"].tolist() == [big]
    assert frame["b"].tolist() == [[big]]
    assert frame["c"].tolist() == [2**63]


# --- reading what is damaged ------------------------------------------------------------


def write(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(HEADER + b"\n".join(lines) + end)
    return path


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b'{"a": 1, "b": [', "line 3"),
        (b"5", "found a int"),
        (b"null", "found a NoneType"),
        (b'"_msw_version"', "found a str"),
        (b"[" * 100_000, "line 3"),
        (b"\0\0\0\0", "line 3"),
        (b"\xff\xfe", "line 3"),
        (b"{'a': 1}", "line 3"),
    ],
)
def test_a_damaged_line_costs_only_itself(tmp_path: Path, bad: bytes, told: str) -> None:
    path = write(tmp_path / "a.jsonl", b'{"a": 1}', bad, b'{"a": 3}')
    with pytest.warns(DamageWarning, match="1 of 3 trials cannot be read") as caught:
        assert load_trial_data(path) == [{"a": 1}, {"a": 3}]
    assert told in str(caught[0].message)
    frame, findings = read_trial_frame(path)
    assert frame["a"].tolist() == [1, 3]
    assert told in findings.damage[0]


def test_a_cut_last_line_costs_that_trial(tmp_path: Path) -> None:
    rows = make_trials(30)
    path = tmp_path / "a.jsonl"
    save_trial_data(rows, path)
    whole = path.read_bytes()
    for cut in (1, 5, 100, 400):
        path.write_bytes(whole[:-cut])
        if cut == 1:
            # Only the newline is gone, which loses nothing.
            assert len(load_trial_data(path)) == 30
            continue
        with pytest.warns(DamageWarning, match="1 of 30"):
            assert len(load_trial_data(path)) == 29


def test_odd_but_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for data in (
        b'{"a": 1}\n',  # no header
        HEADER + b'\n\n{"a": 1}\n  \n',
        b"\xef\xbb\xbf" + HEADER + b'{"a": 1}\n',  # a byte order mark
        HEADER.replace(b"\n", b"\r\n") + b'{"a": 1}\r\n',
        HEADER + b'{"a": 2, "a": 1}\n',  # the last of two keys wins
    ):
        path.write_bytes(data)
        assert load_trial_data(path) == [{"a": 1}], data
        assert read_trial_frame(path)[0]["a"].tolist() == [1], data
    # A trial that has the header's key among others is a trial; it was dropped.
    path.write_bytes(b'{"_msw_version": "1.0.0", "a": 1}\n{"a": 2}\n')
    assert len(load_trial_data(path)) == 2


def test_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"_msw_version": "1.2.0"}\n{"a": 1}\n')
    with pytest.warns(DamageWarning, match=r"'1\.2\.0'.*'1\.0\.0'"):
        assert load_trial_data(path) == [{"a": 1}]
    for version in ('"2.0.0"', "2", "null"):
        path.write_bytes(b'{"_msw_version": %s}\n{"a": 1}\n' % version.encode())
        with pytest.raises(FormatError, match=r"reads '1\.0\.0'"):
            load_trial_data(path)
        with pytest.raises(FormatError, match=r"reads '1\.0\.0'"):
            TrialWriter(path)


def test_what_is_no_trial_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(os.urandom(300))
    with pytest.raises(FormatError, match="is a trial"):
        load_trial_data(path)


# --- the writer -------------------------------------------------------------------------


def test_the_writer_writes_what_save_writes(tmp_path: Path) -> None:
    rows = make_trials(25)
    with TrialWriter(tmp_path / "a.jsonl") as writer:
        for number, row in enumerate(rows, 1):
            writer.append(row)
            # Whoever opens the file now sees every trial so far.
            assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == number + 1
    save_trial_data(rows, tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_the_writer_continues(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for i in range(3):
        with TrialWriter(path) as writer:
            writer.append({"i": i})
    assert [t["i"] for t in load_trial_data(path)] == [0, 1, 2]
    assert path.read_bytes().count(b"_msw_version") == 1


def test_the_writer_keeps_a_cut_line_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"i": 0}', b'{"i": ', end=b"")
    with TrialWriter(path) as writer:
        writer.append({"i": 2})
    assert b'\n{"i": \n{"i": 2}\n' in path.read_bytes()
    with pytest.warns(DamageWarning, match="1 of 3"):
        assert [t["i"] for t in load_trial_data(path)] == [0, 2]


def test_the_writer_refuses_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    writer = TrialWriter(path)
    writer.append({"i": 0})
    with pytest.raises(TrialDataError, match="this trial"):
        writer.append({"i": {1, 2}})
    writer.append({"i": 1})
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.append({})
    assert [t["i"] for t in load_trial_data(path)] == [0, 1]


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    with (
        TrialWriter(tmp_path / "a.jsonl"),
        pytest.raises(BusyFileError, match="another writer"),
    ):
        TrialWriter(tmp_path / "a.jsonl")
    TrialWriter(tmp_path / "a.jsonl").close()


def test_a_full_disk_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    real = os.write
    room = 100

    def full(file: int, data: Any) -> int:
        if len(data) > room:
            return real(file, bytes(data)[:room])
        raise OSError(28, "No space left on device")

    with TrialWriter(path) as writer:
        writer.append({"i": 0})
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            writer.append({"text": "x" * 150})
        monkeypatch.setattr(os, "write", real)
        writer.append({"i": 1})
    assert load_trial_data(path) == [{"i": 0}, {"i": 1}]


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with TrialWriter(path) as writer:

        def work(k: int) -> None:
            for i in range(25):
                writer.append({"k": k, "i": i, "pad": "x" * 50})

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = load_trial_data(path)
    assert sorted((r["k"], r["i"]) for r in rows) == [
        (k, i) for k in range(4) for i in range(25)
    ]


def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    import random
    import signal
    import time

    pick = random.Random(0)
    for run in range(40):
        path = tmp_path / f"{run}.jsonl"
        seen, tell = os.pipe()
        child = os.fork()
        if child == 0:
            writer = TrialWriter(path)
            for i in range(100_000):
                writer.append({"i": i, "pad": "x" * 300})
                os.write(tell, b".")
            os._exit(0)
        os.close(tell)
        os.read(seen, 1)
        time.sleep(pick.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged = 1 + len(os.read(seen, 1_000_000))
        os.close(seen)
        lines = path.read_bytes().split(b"\n")[1:-1]
        assert len(lines) >= acknowledged
        assert [json.loads(line)["i"] for line in lines] == list(range(len(lines)))


# --- values that older writers change ----------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        np.array([1e305]),
        np.array([1.0, -1.79e308]),
        np.array([3e38], np.float32),
        np.array([60000], np.float16),
        np.float64(1e305),
    ],
)
def test_no_finite_number_becomes_infinite(tmp_path: Path, value: Any) -> None:
    with pytest.raises(
        TrialDataError, match=r"trial\['k'\]: .* becomes infinite when numpy rounds"
    ):
        encode_trial({"k": value})
    # Kept exact, there is nothing to overflow; and Python's own rounding does not scale.
    path = tmp_path / "a.jsonl"
    save_trial_data([{"k": value}], path, decimals=None)
    (trial,) = load_trial_data(path)
    assert np.array_equal(trial["k"], value.astype(np.float64))
    assert encode_trial({"k": 1e305}) == b'{"k": 1e+305}\n'
    infinite = np.array([np.inf, -np.inf, np.nan])
    assert encode_trial({"k": infinite}) == b'{"k": [Infinity, -Infinity, NaN]}\n'


@pytest.mark.parametrize(
    "value",
    [
        "a\ud800\udfffb",
        {"a\ud800\udfffb": 1},
        np.array(["a\ud800\udfffb"]),
        [("\udbff\udc00",)],
    ],
)
def test_surrogates_that_would_meet_are_refused(value: Any) -> None:
    with pytest.raises(TrialDataError, match="two lone surrogates side by side"):
        encode_trial({"k": value})


def test_extended_floats_are_refused_where_they_would_change() -> None:
    assert encode_trial({"k": np.longdouble(0.5)}) == b'{"k": 0.5}\n'
    third = np.longdouble(1) / 3
    if float(third) != third:
        with pytest.raises(TrialDataError, match="longdouble cannot be kept"):
            encode_trial({"k": third}, None)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.recursive(
        st.text(st.characters(codec=None))
        | st.floats()
        | st.integers()
        | st.booleans()
        | st.none(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_any_value_comes_back_or_is_refused(value: Any) -> None:
    try:
        line = encode_trial({"k": value}, None)
    except TrialDataError:
        return
    assert repr(decode_line(line)) == repr({"k": value})


@settings(max_examples=examples(200), deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0, 2, 4]))
def test_rounding_is_python_s_for_floats_and_numpy_s_for_its_own(
    number: float, digits: int
) -> None:
    def written(value: Any) -> str | None:
        try:
            return encode_trial({"k": value}, digits).decode()[6:-2]
        except TrialDataError:
            return None

    with np.errstate(over="ignore"):
        scaled = float(np.float64(number).round(digits))
    wanted = repr(scaled) if np.isfinite(scaled) else None
    assert written(number) == repr(round(number, digits))
    assert written(np.float64(number)) == wanted
    assert written(np.array([number])) == (None if wanted is None else f"[{wanted}]")


# --- power cuts --------------------------------------------------------------------------


def test_missing_folders_are_made(tmp_path: Path) -> None:
    for name, write_to in (
        ("saved", lambda path: save_trial_data([{"a": 1}], path)),
        ("appended", lambda path: TrialWriter(path).close()),
    ):
        path = tmp_path / name / "deep" / "x.msw.df.jsonl"
        write_to(path)
        assert path.read_bytes().startswith(HEADER)


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    path.chmod(0o640)
    save_trial_data([{"a": 1}], path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


def without(disk: power_loss.Disk, missed: int) -> power_loss.Disk:
    """Return the record of a program that forgot a sync."""
    other = copy.copy(disk)
    other.events = [event for i, event in enumerate(disk.events) if i != missed]
    return other


def read_after(crash: power_loss.Crash, folder: Path) -> list[Any] | None:
    path = crash.write(folder) / "new" / "a.msw.df.jsonl"
    if not path.exists():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return [trial["n"] for trial in load_trial_data(path) if "n" in trial]
        except FormatError:
            return None


def appended(base: Path) -> power_loss.Disk:
    base.mkdir()
    with power_loss.record(base) as disk:
        writer = TrialWriter(base / "new" / "a.msw.df.jsonl")
        for number in range(6):
            disk.begin(number)
            writer.append({"n": number, "notes": "x" * 300})
            disk.acknowledge(number)
        writer.close()
    return disk


def saved(base: Path) -> power_loss.Disk:
    (base / "new").mkdir(parents=True)
    with power_loss.record(base) as disk:
        for number in range(3):
            disk.begin(number)
            trials = [{"n": n, "notes": "x" * 700} for n in range(number + 1)]
            save_trial_data(trials, base / "new" / "a.msw.df.jsonl")
            disk.acknowledge(number)
    return disk


@pytest.mark.skipif(sys.platform != "linux", reason="watches a folder through /proc")
@pytest.mark.parametrize("write_trials", [appended, saved])
def test_trials_outlive_a_power_cut(tmp_path: Path, write_trials: Any) -> None:
    disk = write_trials(tmp_path / "watched")

    def is_whole(crash: power_loss.Crash, name: str) -> bool:
        found = read_after(crash, tmp_path / name) or []
        known = -1 if crash.acknowledged is None else crash.acknowledged
        return found in (list(range(known + 1)), list(range(known + 2)))

    for i, crash in enumerate(disk.crashes(0, 200)):
        assert is_whole(crash, f"a{i}"), crash
    for missed in disk.syncs:
        crashes = enumerate(without(disk, missed).crashes(1, 300))
        lost = [crash for i, crash in crashes if not is_whole(crash, f"{missed}-{i}")]
        assert lost, disk.events[missed]


@pytest.mark.skipif(sys.platform != "linux", reason="watches a folder through /proc")
def test_folders_outlive_a_power_cut(tmp_path: Path) -> None:
    base = tmp_path / "watched"
    base.mkdir()
    made = ["subject", "subject/container", "subject/container/session"]
    with power_loss.record(base) as disk:
        for number, name in enumerate(made):
            disk.begin(number)
            make_folders(base / name)
            disk.acknowledge(number)

    def is_there(crash: power_loss.Crash) -> bool:
        known = -1 if crash.acknowledged is None else crash.acknowledged
        return set(made[: known + 1]) <= crash.files.keys()

    assert len(disk.syncs) == 3
    assert all(map(is_there, disk.crashes(0, 200)))
    for missed in disk.syncs:
        assert not all(map(is_there, without(disk, missed).crashes(1, 300))), disk.events[
            missed
        ]
