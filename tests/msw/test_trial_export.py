"""Trial tables in CSV and Parquet, with their states and events beside, and back."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree import FormatError, MissingFileError
from labtree.errors import TrialTableError
from labtree.msw import concat_trials, load_trial_tables, save_trial_tables, trials_to_frame
from labtree.testing.msw import make_trials
from support.examples import examples

ENDINGS = [".csv", ".parquet"]


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> str:
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


def check(frame: pd.DataFrame, path: Path) -> None:
    files = save_trial_tables(frame, path)
    assert files[0] == path
    again = load_trial_tables(path)
    pd.testing.assert_frame_equal(again, frame.reset_index(drop=True))
    for ours, theirs in (
        (again.msw.states(), frame.msw.states()),
        (again.msw.events(), frame.msw.events()),
    ):
        pd.testing.assert_frame_equal(ours, theirs, check_categorical=False)
        name = ours.columns[1]
        assert ours[name].astype(str).tolist() == theirs[name].astype(str).tolist()


@pytest.mark.parametrize("task", ["probabilistic_switching", "sequence"])
@pytest.mark.parametrize("clock", ["trial", "session"])
def test_there_and_back(tmp_path: Path, task: Any, clock: Any, ending: str) -> None:
    trials = make_trials(60, task=task, clock=clock)
    frame = trials_to_frame(trials)
    files = save_trial_tables(frame, tmp_path / "new" / f"a{ending}")
    assert [file.name for file in files] == [
        f"a{ending}", f"a.states{ending}", f"a.events{ending}", "a.columns.json",
    ]  # fmt: skip
    again = load_trial_tables(files[0])
    pd.testing.assert_frame_equal(again, frame)
    for which in ("states", "events"):
        ours, theirs = (
            getattr(again.msw, which)("session"),
            getattr(frame.msw, which)("session"),
        )
        column = ours.columns[1]
        pd.testing.assert_frame_equal(ours.astype({column: str}), theirs.astype({column: str}))
    # A state that no trial visited is known by name.
    assert not again.msw.visited("punish" if task == "sequence" else "final").isna().any()
    if clock == "trial":
        check(frame[frame["trial_type"] == "task"].iloc[::-1], tmp_path / f"b{ending}")
        check(frame.iloc[:0], tmp_path / f"c{ending}")


def test_columns_of_other_dtypes_that_were_added(tmp_path: Path, ending: str) -> None:
    frame = trials_to_frame(make_trials(4)).assign(
        share=pd.array([0.1, None, 1.5, 2.5], dtype="Float64"),
        large=pd.array([2**64 - 1, None, 0, 1], dtype="UInt64"),
        single=np.array([0.1, np.nan, 1.5, 2.5], np.float32),
    )
    check(frame, tmp_path / f"a{ending}")
    ordered = frame.assign(side=pd.Categorical(list("abab"), ordered=True))
    with pytest.raises(TrialTableError, match=r"'side' cannot be written: categories"):
        save_trial_tables(ordered, tmp_path / f"b{ending}")


def test_another_program_reads_the_csv(tmp_path: Path) -> None:
    trials = make_trials(30)
    save_trial_tables(trials_to_frame(trials), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "a.states.csv").open(newline="") as file:
        states = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(30))
    assert [row["choice"] for row in rows] == [
        "" if c is None or c != c else str(c) for c in (t["info"].get("choice") for t in trials)
    ]
    wanted = sorted(
        (i, name, a, b)
        for i, trial in enumerate(trials)
        for name, visits in trial["States timestamps"].items()
        for a, b in visits
        if a == a
    )
    found = sorted(
        (int(r["trial"]), r["state"], float(r["start"]), float(r["end"])) for r in states
    )
    assert found == wanted
    values = [json.loads(row["block_type_values"])["cell"] for row in rows]
    assert values == [trial["info"].get("block_type_values") for trial in trials]


def test_columns_of_every_kind_and_sessions_together(tmp_path: Path, ending: str) -> None:
    df = trials_to_frame(make_trials(6))
    df = df.assign(
        when=pd.date_range("2026-05-14", periods=6, tz="UTC"),
        lasted=pd.to_timedelta(np.arange(6) * 1.5, unit="s"),
        small=np.arange(6, dtype=np.float32) / 3,
        big=np.array([2**63, 1, 2, 3, 4, 2**64 - 1], np.uint64),
        far=[np.inf, -np.inf, np.nan, -0.0, 5e-324, 1.7976931348623157e308],
        text=["", None, "a,b", 'say "so"', " ", "µ😀"],
        odd=["a\nb", "c\rd", "\0", None, "NA", ""],
        mixed=[1, "1", None, [1, (2.5, None)], {"a": 1}, True],
    )
    check(df, tmp_path / f"a{ending}")
    check(concat_trials({"x": df, "y": df}), tmp_path / f"b{ending}")
    check(df.rename(columns={"text": "", "odd": 'comma, "quote"'}), tmp_path / f"c{ending}")


@settings(max_examples=examples(60), deadline=None)
@given(
    texts=st.lists(st.none() | st.text(), min_size=1, max_size=5),
    floats=st.lists(st.floats(), min_size=5, max_size=5),
    whole=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5),
    name=st.text(max_size=6),
)
def test_any_text_and_number_comes_back_from_csv(
    tmp_path_factory: Any, texts: Any, floats: Any, whole: Any, name: str
) -> None:
    n = len(texts)
    trials = [
        {"info": {"text": t, "f": f, "i": i}, "States timestamps": {"s": [(0.0, abs(f))]}}
        for t, f, i in zip(texts, floats, whole, strict=False)
    ]
    frame = trials_to_frame(trials[:n])
    if name not in frame:
        frame = frame.rename(columns={"f": name})
    path = tmp_path_factory.mktemp("t") / "a.csv"
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name):
        with pytest.raises(TrialTableError, match="characters that no CSV keeps"):
            save_trial_tables(frame, path)
        return
    check(frame, path)


def test_mistakes_and_damage_are_errors_with_names(tmp_path: Path, ending: str) -> None:
    frame = trials_to_frame(make_trials(10))
    path = tmp_path / f"a{ending}"
    with pytest.raises(FormatError, match=r"ends in \.csv or \.parquet"):
        save_trial_tables(frame, tmp_path / "a.txt")
    with pytest.raises(TrialTableError, match="stands in this table twice"):
        save_trial_tables(frame.iloc[[0, 0]], path)
    with pytest.raises(TrialTableError, match="no states and events with it"):
        save_trial_tables(pd.DataFrame({"a": [1]}), path)
    with pytest.raises(TrialTableError, match=r"the name '\\r' has characters that no CSV"):
        save_trial_tables(frame.rename(columns={"choice": "\r"}), path)
    with pytest.raises(TrialTableError, match="column 'x' cannot be written"):
        save_trial_tables(frame.assign(x=[{1, 2}] * 10), path)
    assert not list(tmp_path.iterdir())
    files = save_trial_tables(frame, path)
    for file in files:
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(MissingFileError, match=file.name):
            load_trial_tables(path)
        for damage in (b"", b"\0" * 50, whole[: len(whole) // 2], b"a,b\n1,2\n"):
            file.write_bytes(damage)
            with pytest.raises(FormatError, match=r"a\..*(csv|parquet|json)"):
                load_trial_tables(path)
        file.write_bytes(whole)
    about = json.loads(files[3].read_text())
    files[3].write_text(json.dumps(about | {"labtree_trial_tables": 2}))
    with pytest.raises(FormatError, match="version 2, and this labtree reads 1"):
        load_trial_tables(path)
    # Files of another table beside this one are not taken for its own.
    save_trial_tables(frame.iloc[:4], tmp_path / f"b{ending}")
    files[1].write_bytes((tmp_path / f"b.states{ending}").read_bytes())
    files[3].write_text(json.dumps(about))
    with pytest.raises(FormatError, match=r"a\.states"):
        load_trial_tables(path)
