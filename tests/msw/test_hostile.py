"""Hostile pickles, YAML and Python; and thousands of random damages. Nothing may run."""

import contextlib
import os
import pickle
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from labtree.errors import FormatError, LabtreeError, UnsafePickleError
from labtree.msw import load_session, load_subject, validate_session
from labtree.msw.pickles import read_frame_pickle
from labtree.msw.settings import read_json, read_python_literals, read_yaml
from labtree.testing.msw import ERAS, make_trials, write_session
from support.examples import examples

# --- pickles ----------------------------------------------------------------------------


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "f": [1.5, float("nan"), -0.0],
            "f4": np.array([1, 2, 3], ">f4"),
            "i": [1, 2, 2**62],
            "u": np.array([1, 2, 255], np.uint8),
            "b": [True, False, True],
            "s": ["x", "é", None],
            "cells": [{"a": [(0.0, float("nan"))]}, None, (1, "x", [True])],
            "np": [np.float64(1.5), np.int64(2), np.arange(3)],
            "Int": pd.array([1, None, 3], dtype="Int64"),
            "bool": pd.array([True, None, False], dtype="boolean"),
            "Float": pd.array([1.5, None, 2.5], dtype="Float64"),
            "string": pd.array(["a", None, "c"], dtype="string"),
        }
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("storage", ["python", None])
def test_pickled_frames(tmp_path: Path, protocol: int, storage: str | None) -> None:
    path = tmp_path / "a.pkl"
    storage = storage or pd.get_option("mode.string_storage")
    with pd.option_context("mode.string_storage", storage):
        whole = frame()
        path.write_bytes(pickle.dumps(whole, protocol))
        found = read_frame_pickle(path)
    assert list(found.columns) == list(whole.columns)
    for name in ("f", "f4", "i", "u", "b", "Int", "bool", "Float"):
        pd.testing.assert_series_equal(found[name], whole[name])
    assert found["s"].tolist()[:2] == ["x", "é"]
    assert found["s"].isna().tolist() == [False, False, True]
    assert found["string"].isna().tolist() == [False, True, False]
    assert repr(found["cells"].tolist()) == repr(whole["cells"].tolist())
    assert found["np"].tolist() == [1.5, 2, [0, 1, 2]]


def test_an_empty_frame_and_a_filtered_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    pd.DataFrame({"a": []}).to_pickle(path)
    assert list(read_frame_pickle(path).columns) == ["a"]
    frame().drop(columns="f4").iloc[[2, 0]].to_pickle(path)
    assert read_frame_pickle(path)["i"].tolist() == [2**62, 1]


class Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class Setter:
    """Asks the unpickler to set attributes of something that it names."""

    def __init__(self, target: Any, state: Any) -> None:
        self.target, self.state = target, state

    def __reduce__(self) -> Any:
        return getattr, (self.target, "__class__"), self.state


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Call(os.system, "true"), "posix.system"),
        (Call(subprocess.Popen, ["true"]), "subprocess.Popen"),
        (Call(eval, "1"), "builtins.eval"),
        (Call(exec, "1"), "builtins.exec"),
        (Call(getattr, 1, "real"), "builtins.getattr"),
        (Call(__import__, "os"), "builtins.__import__"),
        (Call(open, "x", "w"), "io.open"),
        (Call(np.load, "x"), "numpy.load"),
        (Call(pd.read_pickle, "x"), "pandas.read_pickle"),
        (Call(pd.DataFrame.to_csv, 1, "x"), "NDFrame.to_csv"),
        (Call(time.sleep, 99), "time.sleep"),
        (Setter(np.dtype, {"x": 1}), "builtins.getattr"),
        (pd.Categorical(["a"]), "Categorical"),
        (pd.Series([1]), "Series"),
    ],
)
def test_what_no_frame_needs_is_refused_by_name(
    tmp_path: Path, payload: Any, name: str
) -> None:
    path = tmp_path / "a.pkl"
    for wrapped in (payload, {"a": [payload]}, pd.DataFrame({"a": [payload, 1]})):
        path.write_bytes(pickle.dumps(wrapped))
        with pytest.raises(UnsafePickleError, match=name.rpartition(".")[2]) as caught:
            read_frame_pickle(path)
        assert "nothing of it was run" in str(caught.value)
        assert str(path) in str(caught.value)


def nest(depth: int, width: int) -> Any:
    value: Any = [1.0]
    for _ in range(depth):
        value = [value] * width
    return value


def cycle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def as_frame(value: Any) -> bytes:
    """Pickle a frame of one cell (pandas would itself unfold a list of many)."""
    cells = np.empty(1, object)
    cells[0] = value
    return pickle.dumps(pd.DataFrame({"a": cells}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        b"\x80\x04.",
        b"\x80\x04N.",
        pickle.dumps([1]),
        pickle.dumps({"_mgr": 1}),
        # An index into the memo that would make it clear 16 GB.
        b"\x80\x04Nr\xff\xff\xff\x7f.",
        b"Np4294967295\n.",
        # Attributes set on the names themselves.
        b"cpandas\nDataFrame\n}(X\x01\x00\x00\x00aNub.",
        b"cnumpy._core.multiarray\n_reconstruct\n(N}(X\x0c\x00\x00\x00__defaults__Nutb.",
        b"cpandas\nDataFrame\n.",
        b"cpandas\nDataFrame\n)\x81.",
        b"cpandas\nDataFrame\n)\x81}(X\x04\x00\x00\x00_mgrNub.",
        b"\x80\x04P1\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"(" * 10_000 + b".",
        b"]" + b"]a" * 10_000 + b".",
    ],
)
def test_other_things_are_errors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.pkl"):
        read_frame_pickle(path)


@pytest.mark.parametrize("cell", [nest(30, 10), nest(200, 1), cycle()])
def test_cells_that_unfold_without_end(tmp_path: Path, cell: Any) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(as_frame(cell))
    start = time.process_time()
    with pytest.raises(FormatError, match=r"unfolds|deeply"):
        read_frame_pickle(path)
    assert time.process_time() - start < 20


def test_hostile_shapes(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    good = pickle.dumps(pd.DataFrame({"a": np.arange(3.0)}), 4)
    # Arrays that claim other shapes than their bytes have, wherever the 3 stands.
    for place in [i for i, byte in enumerate(good) if byte == 3]:
        for other in (2, 4, 200):
            path.write_bytes(good[:place] + bytes([other]) + good[place + 1 :])
            with contextlib.suppress(FormatError):
                assert len(read_frame_pickle(path)) <= 4


def test_a_pickle_leaves_pandas_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    before = {name: getattr(pd.DataFrame, name) for name in ("__len__", "to_csv", "__init__")}
    path.write_bytes(
        b"cpandas\nDataFrame\n(N}(X\x07\x00\x00\x00__len__cpandas\nDataFrame\nutb."
    )
    with pytest.raises(FormatError):
        read_frame_pickle(path)
    assert {name: getattr(pd.DataFrame, name) for name in before} == before


# --- settings ---------------------------------------------------------------------------


def test_yaml_values(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "date: 2026-05-14 14:30:22\nday: 2026-05-14\ntuple: !!python/tuple [1, [2]]\n"
        "shared: &x [1]\nagain: *x\n1: one\nnan: .nan\nnone: null\ntext: 'µ'\n"
        "base: &b {a: 1}\nmore: {<<: *b, c: 2}\n",
        encoding="utf-8",
    )
    content, notes = read_yaml(path)
    assert not notes
    # Dates stay text: a date would not survive JSON, and a rig's time has no zone.
    assert content["date"] == "2026-05-14 14:30:22"
    assert content["day"] == "2026-05-14"
    assert content["tuple"] == (1, [2])
    assert content["again"] == [1]
    assert content[1] == "one"
    assert content["more"] == {"a": 1, "c": 2}
    assert content["nan"] != content["nan"]


def test_yaml_tags_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    witness = tmp_path / "ran"
    path.write_text(
        f"a: !!python/object/apply:os.system ['touch {witness}']\n"
        "b: !!python/name:os.system\nc: !!python/object:os.x {y: 1}\nd: !own text\n"
        f"e: !!python/object/new:subprocess.Popen [['touch', '{witness}']]\nf: !!set {{x, y}}\n"
    )
    content, notes = read_yaml(path)
    assert not witness.exists()
    # What a tag stood on is kept as plain data, and told.
    assert content["a"] == [f"touch {witness}"]
    assert content["b"] == "<!!python/name:os.system>"
    assert content["c"] == {"y": 1}
    assert content["d"] == "<!own text>"
    assert len(notes) == 6
    assert f"{path}: line 1: tag !!python/object/apply:os.system not followed" in notes


levels = "\n".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(12))
merges = "\n".join(
    f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 9)}]}}" for i in range(12)
)


def test_a_bomb_is_counted_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for bomb in (f"a0: &a0 [x]\n{levels}", f"a0: &a0 {{k: 1}}\n{merges}"):
        path.write_text(bomb)
        with pytest.raises(FormatError, match="unfolds to more than 2000000 values"):
            read_yaml(path)
    # Nine levels of nine, 2.4 million copies; a level less is a file like any other.
    few = "\n".join(levels.split("\n")[:5])
    path.write_text(f"a0: &a0 [x]\n{few}")
    content, _ = read_yaml(path)
    assert content["a5"][8] is content["a4"]
    # A chain of aliases is as deep as brackets are.
    chain = "\n".join(f"a{i + 1}: &a{i + 1} [*a{i}]" for i in range(200))
    path.write_text(f"a0: &a0 [x]\n{chain}")
    with pytest.raises(FormatError, match="100 levels"):
        read_yaml(path)


def test_merge_keys_give_way_to_own_keys_and_to_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "one: &one {a: 1, b: 1, c: 1}\ntwo: &two {b: 2, d: 2}\n"
        "list: {<<: [*two, *one], c: 3}\nkeys: {c: 3, <<: *two, <<: *one}\n"
        "chain: &chain {<<: *one, a: 0}\nend: {<<: *chain}\n"
        "plain: {a: <<, b: =, =: c}\n"
    )
    content, notes = read_yaml(path)
    assert content["list"] == content["keys"] == {"a": 1, "b": 2, "c": 3, "d": 2}
    assert content["end"] == {"a": 0, "b": 1, "c": 1}
    assert content["plain"] == {"a": "<<", "b": "=", "=": "c"}
    assert not notes
    for text in ("a: {<<: 1}", "a: {<<: [x]}", "a: &a {<<: *a}"):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"a\.yaml"):
            read_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        f"a0: &a0 [x]\n{levels}",
        f"a0: &a0 {{k1: 1, k2: 2}}\n{merges}",
        "a: &a [*a]",
        "a: &a {b: *a}",
        # These overflow the stack of PyYAML's C code, and end the interpreter.
        "a: " + "[" * 100_000,
        "a: " + "[" * 100_000 + "]" * 100_000,
        "a: " + "{a: " * 100_000 + "}" * 100_000,
        "- " * 100_000 + "x",
        "? " * 100_000,
        "a: " + "- " * 30_000,
        "".join(" " * i + "a:\n" for i in range(2000)),
        "? [a]\n: b",
        "a: !!int x",
        "a: !!bool x",
        "a: !!float [1]",
        "a: *nothing",
        "%YAML 9.9\n--- a",
        "a\0b: 1",
        "--- {a: 1}\n--- {b: 1}",
    ],
)
def test_yaml_bombs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(FormatError, match=r"a\.yaml"):
        read_yaml(path)
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "text",
    [
        "A = (" * 3000,
        "A = " + "-" * 200_000 + "1",
        "A = " + "a." * 200_000 + "b",
        "A = 'x' * 10**9",
        "A = [0] * 10**9",
        "A = 10 ** 10 ** 10",
        "A = f'{1}'",
        "A\0 = 1",
        "A = __import__('os').system('true')",
        "A = (lambda: 1)()",
        "A = [x for x in range(10**9)]",
        "if True:\n    A = 1",
        "def f(): A = 1",
        "import os as A",
        "A: int",
        "A += 1",
        "A, B = 1, 2",
        "A.b = 1",
        "A = 1\n  B = 2",
    ],
)
def test_python_is_not_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a_task_settings.py"
    path.write_text(text)
    with contextlib.suppress(FormatError):
        assert read_python_literals(path)[0] == {}


def test_settings_that_are_set_by_more_than_a_literal_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a_task_settings.py"
    path.write_text(
        "A = [1]\nA += [2]\nB, C = 3, 4\nif A:\n    D = 5\nE = {}\nE['x'] = 1\n"
        "F: int\nG = 6\ndef f():\n    H = 7\nlower, _ = 1, 2\n"
    )
    values, notes = read_python_literals(path)
    assert values == {"A": [1], "E": {}, "G": 6}
    told = [note.removeprefix(f"{path}: ").partition(" set by")[0] for note in notes]
    assert told == ["line 2: A", "line 3: B, C", "line 4: D", "line 7: E"]


def test_json_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("{", "[]", "null", "", "[" * 100_000, '{"a": 1} x', "\xff"):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(FormatError, match=r"a\.json"):
            read_json(path)
    path.write_text('\ufeff{"a": NaN}', encoding="utf-8")
    assert list(read_json(path)) == ["a"]


# --- random damage ----------------------------------------------------------------------


def damage(data: bytes, pick: random.Random) -> bytes:
    if not data:
        return data
    kind = pick.choice(["cut", "flip", "delete", "swap", "zero", "double"])
    a, b = sorted((pick.randrange(len(data)), pick.randrange(len(data))))
    if kind == "cut":
        return data[:a]
    if kind == "flip":
        flipped = bytearray(data)
        for _ in range(pick.randint(1, 20)):
            flipped[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
        return bytes(flipped)
    if kind == "delete":
        return data[:a] + data[b:]
    if kind == "zero":
        return data[:a] + b"\0" * (b - a) + data[b:]
    if kind == "double":
        return data[:b] + data[a:]
    middle = (a + b) // 2
    return data[:a] + data[middle:b] + data[a:middle] + data[b:]


RUNNING = {"exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"}


def test_many_damages(tmp_path: Path) -> None:
    """Any damage gives a session or a labtree error, soon, and runs nothing."""
    forbidden: list[str] = []

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if watching and event in RUNNING:
            forbidden.append(f"{event} {args[:1]}")

    watching = False
    sys.addaudithook(audit)
    sources = [
        write_session(
            tmp_path / era, era, trials=make_trials(12, task=task, barcode_every=6), task=task
        )
        for era in ERAS
        for task in ("sequence", "probabilistic_switching")
        if task == "sequence" or era == "2025"
    ]
    contents = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in sources]
    for folder in sources:
        # Whatever is imported when it is first used is imported now.
        load_session(folder).df.msw.to_xarray()
    pick = random.Random(1)
    outcomes = {"loaded": 0, "refused": 0}
    longest = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for round_number in range(examples(2000)):
            which = pick.randrange(len(sources))
            folder, files = sources[which], contents[which]
            names = pick.sample(sorted(files), pick.choice([1, 1, 1, len(files)]))
            for name in names:
                (folder / name).write_bytes(damage(files[name], pick))
            if pick.random() < 0.1:
                (folder / pick.choice(sorted(files))).unlink()
            start = time.process_time()
            watching = True
            try:
                session = load_session(folder)
                if session.df is not None and round_number % 10 == 0:
                    session.df.msw.states()
                    session.df.msw.to_xarray()
                outcomes["loaded"] += 1
            except LabtreeError:
                outcomes["refused"] += 1
            watching = False
            longest = max(longest, time.process_time() - start)
            for name in {*names, *files}:
                (folder / name).write_bytes(files[name])
    assert not forbidden
    assert longest < 10
    # Most damage leaves something to load.
    assert outcomes["loaded"] > 20 * outcomes["refused"]


def test_damage_never_stops_a_subject(tmp_path: Path) -> None:
    pick = random.Random(2)
    folders = [
        write_session(
            tmp_path, trials=make_trials(6), datetime_str=f"20260514_1430{i:02}_000000"
        )
        for i in range(20)
    ]
    for folder in folders[::2]:
        for path in folder.iterdir():
            path.write_bytes(damage(path.read_bytes(), pick))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sessions = load_subject(tmp_path / "m01")
        assert len(sessions) + len(sessions.failed) == 20
        assert {s.session_dir for s in sessions} >= set(folders[1::2])
        for folder in folders:
            validate_session(folder)
