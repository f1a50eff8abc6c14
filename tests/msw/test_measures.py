"""Measures against brute force over the nested trials; clocks; alignment."""

import copy
import json
import math
import pickle
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import clocks
from labtree.errors import (
    DamageWarning,
    DataError,
    RecordingWarning,
    TrialTableError,
    UnknownNameError,
)
from labtree.msw import align_trials, concat_trials, decode_barcodes, trials_to_frame
from labtree.msw.alignment import barcode_durations
from labtree.testing.msw import barcode_levels, make_trials, make_ttl_edges
from support.examples import examples

NAN = float("nan")


def table(n: int = 60, **more: Any) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    trials = make_trials(n, **more)
    return trials, trials_to_frame(trials)


def equal(series: pd.Series, expected: list[float]) -> None:
    np.testing.assert_allclose(
        series.to_numpy(float), np.array(expected, float), rtol=0, atol=1e-9
    )


# --- dtypes -----------------------------------------------------------------------------


def test_dtypes() -> None:
    infos: list[dict[str, Any]] = [
        {
            "b": True,
            "bh": True,
            "i": 1,
            "ih": 1,
            "f": 1.5,
            "n": None,
            "s": "x",
            "m": 1,
            "l": [1],
        },
        {"b": False, "i": 2, "ih": NAN, "f": NAN, "n": None, "s": None, "m": "x", "l": None},
        {"b": True, "bh": None, "i": 3, "f": 2, "n": NAN, "s": "y", "m": 2.5, "l": [2, 3]},
    ]
    df = trials_to_frame([{"info": info} for info in infos])
    dtypes = df.dtypes.astype(str).to_dict()
    assert dtypes["b"] == "bool"
    assert dtypes["bh"] == "boolean"
    assert dtypes["i"] == "int64"
    assert dtypes["ih"] == "Int64"
    assert dtypes["f"] == "float64"
    assert dtypes["n"] == "float64"
    assert df["s"].tolist()[::2] == ["x", "y"]
    assert df["s"].isna().tolist() == [False, True, False]
    assert df["m"].tolist() == [1, "x", 2.5]
    assert df["l"].tolist() == [[1], None, [2, 3]]
    assert df["trial"].tolist() == [0, 1, 2]
    # An integer that a float cannot hold is not rounded.
    mixed = trials_to_frame([{"info": {"x": 2**60 + 1}}, {"info": {"x": 0.5}}])
    assert mixed["x"].tolist() == [2**60 + 1, 0.5]
    assert trials_to_frame([]).columns.tolist() == ["trial"]


# --- states and events ------------------------------------------------------------------


@pytest.mark.parametrize("written", ["trial", "session"])
@pytest.mark.parametrize("wanted", ["trial", "session"])
def test_states_and_events_in_either_clock(written: Any, wanted: Any) -> None:
    relative, _ = table(40)
    _, df = table(40, clock=written)
    states, events = [], []
    for number, trial in enumerate(relative):
        shift = trial["Trial start timestamp"] if wanted == "session" else 0.0
        rows = [
            (number, name, a + shift, b + shift)
            for name, visits in trial["States timestamps"].items()
            for a, b in visits
            if a == a
        ]
        states += sorted(rows, key=lambda row: row[2])
        marks = [
            (number, name, t + shift)
            for name, times in trial["Events timestamps"].items()
            for t in times
        ]
        events += sorted(marks, key=lambda row: row[2])
    found = df.msw.states(wanted)
    assert found["trial"].tolist() == [row[0] for row in states]
    np.testing.assert_allclose(found["start"], [row[2] for row in states], atol=2e-4)
    np.testing.assert_allclose(found["end"], [row[3] for row in states], atol=2e-4)
    # Of two states with one start, either may come first.
    assert sorted(zip(found["trial"], found["state"], strict=True)) == sorted(
        (row[0], row[1]) for row in states
    )
    found = df.msw.events(wanted)
    np.testing.assert_allclose(found["time"], [row[2] for row in events], atol=2e-4)
    assert sorted(zip(found["trial"], found["event"], strict=True)) == sorted(
        (row[0], row[1]) for row in events
    )


def several() -> pd.DataFrame:
    rows = [
        {"a": [(0.0, 1.0), (2.0, 3.0)], "b": [(1.0, 2.0), (3.0, 4.5)], "never": [(NAN, NAN)]},
        {"a": [(NAN, NAN)], "b": [(0.5, 1.0)]},
        {"b": [(0.0, 0.5)], "a": [(0.5, NAN)]},
        {},
    ]
    return trials_to_frame(
        [
            {"Trial start timestamp": 10.0 * i, "States timestamps": row}
            for i, row in enumerate(rows)
        ]
    )


def test_several_visits() -> None:
    df = several()
    states = df.msw.states()
    assert states["state"].astype(str).tolist() == ["a", "b", "a", "b", "b", "b", "a"]
    assert states["visit"].tolist() == [0, 0, 1, 1, 0, 0, 0]
    equal(df.msw.state_time("a"), [0, NAN, 0.5, NAN])
    equal(df.msw.state_time("a", "end"), [1, NAN, NAN, NAN])
    equal(df.msw.state_time("a", visit=1), [2, NAN, NAN, NAN])
    equal(df.msw.state_time("b", "end", visit=-1), [4.5, 1, 0.5, NAN])
    equal(df.msw.state_time("b", visit=-2), [1, NAN, NAN, NAN])
    equal(df.msw.state_time("b", visit=7), [NAN] * 4)
    equal(df.msw.state_time("b", clock="session"), [1, 10.5, 20, NAN])
    assert df.msw.visited("a").tolist() == [True, False, True, False]
    assert df.msw.visited("never").tolist() == [False] * 4
    equal(df.msw.latency("a", "b"), [1, NAN, NAN, NAN])
    equal(df.msw.latency("b", "a"), [1, NAN, 0.5, NAN])
    equal(df.msw.latency("a", "a"), [0, NAN, 0, NAN])


def test_rows_keep_their_states_whatever_is_done_to_them() -> None:
    df = several()
    whole = df.msw.state_time("b")
    for part in (
        df[df["trial"] > 0],
        df.iloc[::-1],
        df.sort_values("Trial start timestamp", ascending=False),
        df.iloc[[2, 2, 0]],
        df[df["trial"] == 99],
        df.reset_index(drop=True),
        df.iloc[1:].reset_index(drop=True),
        df.assign(x=1).drop(columns="Trial start timestamp"),
        df.copy(),
        copy.deepcopy(df),
        pickle.loads(pickle.dumps(df.iloc[1:])),
        pd.concat([df.iloc[2:], df.iloc[:1]]),
        pd.concat([pickle.loads(pickle.dumps(df.iloc[2:])), df.iloc[:1]]),
        df.groupby("trial").head(1),
    ):
        equal(part.msw.state_time("b"), [whole[trial] for trial in part["trial"]])
        counts = part.msw.states().groupby("trial").size()
        times = part["trial"].value_counts()
        for trial, count in counts.items():
            assert count == times[trial] * (df.msw.states()["trial"] == trial).sum()


def test_a_merge_drops_the_states_and_says_how_to_keep_them() -> None:
    df = several()
    merged = df.merge(pd.DataFrame({"trial": [2, 0], "extra": [1, 2]}), on="trial")
    with pytest.raises(TrialTableError, match=r"write table\.attrs = session\.df\.attrs"):
        merged.msw.states()
    merged.attrs = df.attrs
    equal(merged.msw.state_time("b"), df.msw.state_time("b")[merged["trial"]].tolist())


def test_attrs_stay_json_and_parquet_works(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    df = several()
    df.to_parquet(tmp_path / "a.parquet")
    again = pd.read_parquet(tmp_path / "a.parquet")
    with pytest.raises(TrialTableError, match="no states and events"):
        again.msw.states()


def test_a_table_whose_states_stayed_behind_is_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    _, df = table(40)
    df[["trial", "trial_type", "choice", "rewarded"]].to_parquet(tmp_path / "a.parquet")
    again = pd.read_parquet(tmp_path / "a.parquet")
    expected = df.msw.summary()
    assert again.msw.summary()["n_choices"] == expected["n_choices"]
    assert again.msw.validate() == []
    tree = labtree.create_workspace()
    again.ws.store("day", "table", into=tree)
    pd.testing.assert_frame_equal(tree.ws["day", "table"], again)


def test_rows_of_no_trial_have_no_states() -> None:
    _, df = table(40)
    means = df.msw.task.groupby("block_number").mean(numeric_only=True)
    with pytest.raises(TrialTableError, match=r"'trial' holds 14\.8214, which is no trial's"):
        means.msw.state_time("side_ready")
    with pytest.raises(TrialTableError, match=r"'trial' holds nan.* in 2 rows"):
        df.reindex(range(-1, 41)).msw.states()
    floats = df.astype({"trial": float})
    equal(floats.msw.state_time("side_ready"), df.msw.state_time("side_ready").tolist())


def test_joining_tables_of_sessions() -> None:
    one, two = several(), several()
    lost = pd.concat([one, two])
    with pytest.raises(TrialTableError, match=r"concat_trials\(\{name: df"):
        lost.msw.states()
    both = concat_trials({"x": one, "y": two.iloc[1:]})
    assert both["session"].tolist() == ["x"] * 4 + ["y"] * 3
    assert both["trial"].tolist() == [0, 1, 2, 3, 5, 6, 7]
    expected = [*one.msw.state_time("b"), *two.msw.state_time("b")[1:]]
    equal(both.msw.state_time("b"), expected)
    with pytest.raises(TrialTableError, match="has a column 'session'"):
        concat_trials({"x": both})
    with pytest.raises(TrialTableError, match="'x' is not a trial table"):
        concat_trials({"x": lost})


def test_joined_tables_keep_what_was_added_to_them() -> None:
    one, two = several(), several()
    one[2024] = [1.5, 2.5, 3.5, 4.5]
    for dtype in ("int8", "int32", "uint64", "bool", "float32", "category"):
        one[dtype] = pd.Series(np.arange(4)).astype(dtype)
    both = concat_trials({"x": one, "y": two})
    equal(both[2024], [1.5, 2.5, 3.5, 4.5, *[NAN] * 4])
    added = both[["int8", "int32", "uint64", "bool", "float32", "category"]]
    assert list(map(str, added.dtypes)) == [
        "Int8", "Int32", "UInt64", "boolean", "float32", "category"
    ]  # fmt: skip
    assert added[4:].isna().all(axis=None)
    pd.testing.assert_frame_equal(
        added[:4].astype(one.dtypes[added.columns]), one[added.columns]
    )
    two[["int8", "float32"]] = 2**40, 0.1
    mixed = concat_trials({"x": one, "y": two})
    assert mixed["int8"].tolist() == [0, 1, 2, 3, *[2**40] * 4]
    assert mixed["float32"].tolist() == [0, 1, 2, 3, *[0.1] * 4]
    assert [mixed["int8"].dtype, mixed["float32"].dtype] == [np.int64, np.float64]


def test_values_of_numpy_are_values() -> None:
    trial = {
        "Trial start timestamp": np.float32(0.5),
        "States timestamps": {
            "a": [(np.float64(0), np.float32(1))],
            "b": np.array([[1.0, 2.0], [3.0, 4.0]]),
        },
        "Events timestamps": {"Port1In": np.array([0.25]), "Tup": [np.int64(1)]},
        "info": {"choice": np.int64(1), "rewarded": np.bool_(True)},
    }
    plain = json.loads(json.dumps(trial, default=lambda value: value.tolist()))
    found, expected = trials_to_frame([trial]), trials_to_frame([plain])
    pd.testing.assert_frame_equal(found, expected)
    for part in ("states", "events"):
        pd.testing.assert_frame_equal(getattr(found.msw, part)(), getattr(expected.msw, part)())
    assert len(found.msw.states()) == 3


def test_states_that_are_no_times_are_told() -> None:
    trials = [{"States timestamps": {"a": [(0.0, 1.0)]}}, {"States timestamps": {"a": "b"}}]
    with pytest.warns(DamageWarning, match="trial 1: its 'States timestamps' are not valid"):
        df = trials_to_frame(trials)
    assert df.msw.states()["trial"].tolist() == [0]


def test_starts_in_whole_seconds_say_what_states_count_from() -> None:
    trials: list[dict[str, Any]] = [
        {
            "Trial start timestamp": start,
            "States timestamps": {"a": [(float(start), start + 1.0)]},
        }
        for start in (0, 10, 20)
    ]
    for more in ([], [{"info": {}}]):
        df = trials_to_frame(trials + more)[:3]
        equal(df.msw.state_time("a"), [0, 0, 0])
        equal(df.msw.state_time("a", clock="session"), [0, 10, 20])


def test_errors_of_names_and_clocks() -> None:
    df = several()
    with pytest.raises(
        UnknownNameError, match="no state 'c'; there are: 'a', 'b', 'never'"
    ) as caught:
        df.msw.state_time("c")
    assert isinstance(caught.value, KeyError)
    for call in (lambda: df.msw.visited("c"), lambda: df.msw.latency("a", "c")):
        with pytest.raises(KeyError, match="there are"):
            call()
    with pytest.raises(ValueError, match="edge must be one of 'start', 'end'"):
        df.msw.state_time("a", "middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clock must be one of 'trial', 'session', 'ephys'"):
        df.msw.states("wall")
    with pytest.raises(ValueError, match=r"df\.msw\.align"):
        df.msw.state_time("a", clock="ephys")
    with pytest.raises(ValueError, match=r"column 'trial'.*is gone"):
        df.drop(columns="trial").msw.states()
    with pytest.raises(ValueError, match="and the session has the trials 0 to"):
        df.assign(trial=[0, 1, 2, 9]).msw.states()
    with pytest.raises(KeyError, match="no column 'choice'; there are: 'trial'"):
        df.msw.blocks() if "choice" in df else df.msw.rolling("choice", 3)
    with pytest.raises(KeyError, match="Trial start timestamp"):
        df.drop(columns="Trial start timestamp").msw.states("session")


def test_columns_of_texts_are_said() -> None:
    table = pd.DataFrame({"choice": ["L", "R", None], "rewarded": [True, False, None]})
    for measure in (table.msw.outcome, table.msw.win_stay_lose_shift):
        with pytest.raises(
            TrialTableError, match=r"column 'choice' does not hold numbers .*map"
        ):
            measure()


def test_trials_are_a_list_of_dicts() -> None:
    for wrong, found in (({"info": {}}, "found a str"), ([[1]], "found a list")):
        with pytest.raises(TrialTableError, match=f"a list of trials, each a dict, {found}"):
            trials_to_frame(wrong)  # type: ignore[arg-type]


def test_the_accessor_holds_nothing() -> None:
    df = several()
    accessor = df.msw
    assert vars(accessor) == {"_frame": df} or accessor._frame is df
    assert hasattr(pd.DataFrame(), "msw")
    assert "none go with this table" in repr(pd.DataFrame({"a": [1]}).msw)
    text = repr(table(30)[1].msw)
    for word in ("28 of the task, 2 barcodes", "side_ready", "Port1In", "blocks()"):
        assert word in text
    assert "<table>" in table(30)[1].msw._repr_html_()
    assert labtree.msw.trials_to_frame is trials_to_frame


# --- behavior --------------------------------------------------------------------------


def test_rows_by_kind() -> None:
    _, df = table(60)
    assert df.msw.barcodes["trial"].tolist() == [0, 20, 40]
    assert len(df.msw.task) == 57
    assert len(several().msw.task) == 4
    assert len(several().msw.barcodes) == 0


def test_reaction_time() -> None:
    trials, df = table(80)
    expected = []
    for trial in trials:
        choice = trial["info"].get("choice", NAN)
        visits = trial["States timestamps"].get("side_ready", [(NAN, NAN)])
        expected.append(visits[-1][1] - visits[-1][0] if choice == choice else NAN)
    assert np.isnan(expected).sum() > 4
    equal(df.msw.reaction_time(), expected)
    twice = trials_to_frame(
        [{"info": {"choice": 1}, "States timestamps": {"side_ready": [(0.0, 2.0), (3.0, 3.5)]}}]
    )
    equal(twice.msw.reaction_time(), [0.5])


def test_outcomes() -> None:
    trials, df = table(80)
    expected = []
    for trial in trials:
        info = trial["info"]
        if info["trial_type"] != "task":
            expected.append(None)
        elif info["choice"] != info["choice"]:
            expected.append("no_response")
        else:
            expected.append("rewarded" if info["rewarded"] else "unrewarded")
    found = df.msw.outcome()
    assert [None if pd.isna(v) else v for v in found] == expected
    assert {"no_response", "rewarded", "unrewarded", None} == set(expected)
    _, sequence = table(30, task="sequence")
    assert sequence.msw.outcome().equals(sequence["outcome"])


def task_infos(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        trial["info"] | {"row": i}
        for i, trial in enumerate(trials)
        if trial["info"]["trial_type"] == "task"
    ]


def test_blocks() -> None:
    trials, df = table(200)
    infos = task_infos(trials)
    found = df.msw.blocks()
    numbers = sorted({info["block_number"] for info in infos})
    assert len(numbers) > 4
    assert found["block_number"].tolist() == numbers
    for number, row in zip(numbers, found.to_dict("records"), strict=True):
        part = [info for info in infos if info["block_number"] == number]
        choices = [info["choice"] for info in part if info["choice"] == info["choice"]]
        assert row["n_trials"] == len(part)
        assert row["n_choices"] == len(choices)
        assert (row["first_trial"], row["last_trial"]) == (part[0]["row"], part[-1]["row"])
        assert row["block_type_values"] == part[0]["block_type_values"]
        assert math.isclose(row["right_fraction"], np.mean([c == 1 for c in choices]))
        assert math.isclose(row["rewarded_fraction"], np.mean([i["rewarded"] for i in part]))


def brute_win_stay(infos: list[dict[str, Any]]) -> tuple[list[bool], list[bool]]:
    wins, losses = [], []
    for before, after in pairwise(infos):
        if before["choice"] != before["choice"] or after["choice"] != after["choice"]:
            continue
        same = before["choice"] == after["choice"]
        (wins if before["rewarded"] else losses).append(same)
    return wins, losses


def test_win_stay_lose_shift() -> None:
    trials, df = table(300, learning=0.5)
    wins, losses = brute_win_stay(task_infos(trials))
    found = df.msw.win_stay_lose_shift()
    assert found["n_wins"] == len(wins)
    assert found["n_losses"] == len(losses)
    assert 0 < found["win_stay"] < 1
    assert found["win_stay"] == np.mean(wins)
    assert found["lose_shift"] == np.mean([not same for same in losses])
    # A pair across two sessions is none.
    both = concat_trials({"a": df, "b": df}).msw.win_stay_lose_shift()
    assert both["n_wins"] == 2 * len(wins)
    assert both["n_losses"] == 2 * len(losses)
    # Also where the pair would count: both ends of this part have a choice.
    part = df.msw.task
    part = part[part["choice"].notna()]
    one = part.msw.win_stay_lose_shift()
    two = concat_trials({"a": part, "b": part}).msw.win_stay_lose_shift()
    for name in ("n_wins", "n_losses"):
        assert two[name] == 2 * one[name]
    assert df.iloc[:1].msw.win_stay_lose_shift().isna().sum() == 2


@given(
    st.lists(st.none() | st.floats(-5, 5) | st.integers(-3, 3), max_size=15), st.integers(1, 5)
)
@settings(max_examples=examples(100), deadline=None)
def test_rolling(values: list[Any], n: int) -> None:
    df = trials_to_frame([{"info": {"x": value}} for value in values] or [{"info": {}}])
    if not values:
        df["x"] = NAN
        values = [None]
    kept: list[float] = []
    expected = []
    for value in values:
        if value is None:
            expected.append(NAN)
            continue
        kept.append(value)
        expected.append(np.mean(kept[-n:]) if len(kept) >= n else NAN)
    equal(df.msw.rolling("x", n), expected)


def test_rolling_errors() -> None:
    _, df = table(10)
    for n in (0, 2.5):
        with pytest.raises(TrialTableError, match="n must be a whole number from 1 on"):
            df.msw.rolling("rewarded", n)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected numbers"):
        df.msw.rolling("trial_type", 3)
    assert df.msw.rolling("rewarded", 3).notna().sum() == 7


def test_switch_curve() -> None:
    trials, df = table(400, learning=0.7)
    infos = task_infos(trials)
    better = [1 if i["block_type_values"][1] > i["block_type_values"][0] else -1 for i in infos]
    block = [info["block_number"] for info in infos]
    before, after = 5, 30
    counts = {offset: [0, 0] for offset in range(-before, after)}
    for k in range(1, len(infos)):
        if better[k] == better[k - 1]:
            continue
        for offset in range(-before, after):
            j = k + offset
            if not 0 <= j < len(infos):
                continue
            if block[j] != (block[k] if offset >= 0 else block[k - 1]):
                continue
            choice = infos[j]["choice"]
            if choice == choice:
                counts[offset][0] += 1
                counts[offset][1] += choice == better[k]
    found = df.msw.switch_curve(before, after)
    assert found.index.tolist() == list(counts)
    assert found["n"].tolist() == [n for n, _ in counts.values()]
    for n, hits, fraction in zip(
        found["n"],
        [hits for _, hits in counts.values()],
        found["new_side_fraction"],
        strict=True,
    ):
        assert math.isclose(fraction, hits / n) if n else np.isnan(fraction)
    assert found["n"].min() < found["n"].max()
    assert df.iloc[:0].msw.switch_curve()["n"].sum() == 0


def test_pokes() -> None:
    rows = [
        {
            "Port1In": [0.5, 2.0, 4.0],
            "Port1Out": [0.7, 2.5],
            "Port12In": [1.0],
            "Port12Out": [0.2, 1.5],
            "Tup": [9.0],
        },
        {"Port1In": [1.0, 2.0], "Port1Out": [2.5]},
    ]
    df = trials_to_frame([{"Events timestamps": row} for row in rows])
    found = df.msw.pokes()
    assert found[["trial", "port", "start"]].to_numpy().tolist() == [
        [0, 1, 0.5],
        [0, 12, 1.0],
        [0, 1, 2.0],
        [0, 1, 4.0],
        [1, 1, 1.0],
        [1, 1, 2.0],
    ]
    np.testing.assert_array_equal(found["end"], [0.7, 1.5, 2.5, NAN, NAN, 2.5])


def test_sequences() -> None:
    trials, df = table(40, task="sequence")
    expected = [
        (i, step["from"], step["to"], step["dt"])
        for i, trial in enumerate(trials)
        for step in trial["info"].get("transition_times", [])
    ]
    assert df.msw.transitions().to_numpy().tolist() == [list(row) for row in expected]
    summary = df.msw.summary()
    assert summary["n_task"] == 38
    total = summary.get("n_correct", 0) + summary["n_incorrect"] + summary["n_no_response"]
    assert total == 38


def test_summary() -> None:
    trials, df = table(100)
    infos = task_infos(trials)
    found = df.msw.summary()
    choices = [info["choice"] for info in infos if info["choice"] == info["choice"]]
    assert found["n_rows"] == 100
    assert found["n_barcodes"] == 5
    assert found["n_choices"] == len(choices)
    assert found["n_no_response"] == 95 - len(choices)
    assert found["rewarded_fraction"] == np.mean([info["rewarded"] for info in infos])
    assert found["median_reaction_time_s"] == df.msw.reaction_time().median()
    assert found["n_blocks"] == len(df.msw.blocks())
    assert len(pd.DataFrame().msw.summary()) == 3


def test_wall_time() -> None:
    trials, df = table(60)
    wall = df.msw.wall_time()
    for i in (0, 20, 40):
        told = trials[i]["info"]["barcode_wall_time"]
        assert abs(wall[i].timestamp() - told) < 2e-3
    assert str(wall.dt.tz) == "UTC"
    with pytest.raises(ValueError, match="has no barcode, which would state the wall time"):
        df.msw.task.msw.wall_time()


def test_validation_of_trials() -> None:
    _, df = table(40)
    assert df.msw.validate() == []
    odd = df.copy()
    odd.loc[3, "Trial end timestamp"] = 0.0
    odd.loc[20, "barcode_value"] = 5
    odd.loc[30, "Trial start timestamp"] = 1.0
    told = " ".join(odd.msw.validate())
    assert "1 trials end before they start (rows 3)" in told
    assert "have states that outlast them" in told
    assert "1 trials have a barcode that is not their wall time (rows 20)" in told
    assert "start before the last one did (rows 30)" in told
    backward = trials_to_frame(
        [
            {
                "Trial start timestamp": 0.0,
                "Trial end timestamp": 9.0,
                "States timestamps": {"a": [(2.0, 1.0)]},
            }
        ]
    )
    assert "end before they start" in backward.msw.validate()[0]


# --- alignment --------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**37 - 1), max_size=6), st.floats(0.97, 1.03))
@settings(max_examples=examples(60), deadline=None)
def test_barcodes_are_read_back(values: list[int], slope: float) -> None:
    times, states, starts = [], [], []
    clock = 5.0
    for value in values:
        starts.append(clock * slope)
        edges = clock + np.concatenate([[0], np.cumsum(barcode_durations(value))])
        for edge, level in zip(edges, [*barcode_levels(value), 0], strict=True):
            times.append(edge * slope)
            states.append(level)
        clock = edges[-1] + 0.2
    found = decode_barcodes(times, states)
    if abs(slope - 1) < 1e-3:
        assert found["value"].tolist() == values
        np.testing.assert_allclose(found["time"], starts)
    else:
        # So wrong a clock may hide barcodes, but never changes one.
        assert set(found["value"]) <= set(values)


def test_long_runs_of_one_bit_and_noise() -> None:
    # Runs of equal bits leave gaps of more than half a second within a barcode.
    for value in (0, 2**37 - 1, 1, 2**36, 2**18):
        levels = np.array([*barcode_levels(value), 0])
        edges = 1 + np.concatenate([[0], np.cumsum(barcode_durations(value))])
        random = np.random.default_rng(value % 97)
        jitter = edges + random.normal(0, 2e-4, len(edges))
        assert decode_barcodes(jitter, levels)["value"].tolist() == [value]
        # Other pulses before and after, and edges in another order.
        times = np.concatenate([jitter, [0.2, 0.3, 9.0, 9.4, 9.6]])
        states = np.concatenate([levels, [1, 0, 1, 0, 1]])
        order = random.permutation(len(times))
        assert decode_barcodes(times[order], states[order])["value"].tolist() == [value]
        # A glitch within makes it unreadable rather than wrong.
        times = np.concatenate([jitter, [1.2, 1.203]])
        assert len(decode_barcodes(times, np.concatenate([levels, [1, 0]]))) <= 1
        assert set(decode_barcodes(times, np.concatenate([levels, [1, 0]]))["value"]) <= {value}
    # A pulse in the middle of a bit, where it would be read, gives no barcode.
    levels = np.array([*barcode_levels(0), 0])
    edges = 1 + np.concatenate([[0], np.cumsum(barcode_durations(0))])
    times = np.concatenate([edges, [1.046, 1.049]])
    assert len(decode_barcodes(times, np.concatenate([levels, [1, 0]]))) == 0
    with pytest.raises(ValueError, match="one per edge"):
        decode_barcodes([1.0], [])
    with pytest.raises(ValueError, match="37 bits"):
        barcode_durations(2**37)


def test_alignment_of_a_session() -> None:
    trials = make_trials(400, barcode_every=10)
    df = trials_to_frame(trials)
    slope, intercept = 1.00002, 12.5
    edges = make_ttl_edges(trials, slope=slope, intercept=intercept, jitter_s=1e-4)
    aligned, clock = align_trials(df, edges, line=4)
    assert clock.attrs["n_used"] == clock.sizes["anchor"] == 40
    starts = df["Trial start timestamp"] * slope + intercept
    np.testing.assert_allclose(aligned["trial_start_ephys"], starts, atol=2e-4)
    np.testing.assert_allclose(
        aligned.msw.state_time("final", clock="ephys"),
        df.msw.state_time("final", clock="session") * slope + intercept,
        atol=2e-4,
    )
    assert 2e-5 < clock.attrs["rms_s"] < 3e-4
    assert aligned["barcode_residual"].notna().sum() == 40
    np.testing.assert_allclose(
        aligned["barcode_residual"].dropna(), clock["residual_s"], atol=1e-12
    )
    assert (aligned["n_barcodes_matched"] == 40).all()
    assert (aligned["alignment_slope"] == aligned["alignment_slope"][0]).all()
    np.testing.assert_allclose(
        clocks.convert(clock, df["Trial start timestamp"]), aligned["trial_start_ephys"]
    )
    assert df.msw.align(edges, line=4).equals(aligned)
    states = aligned.msw.states("ephys")
    session = df.msw.states("session")
    np.testing.assert_allclose(states["start"], session["start"] * slope + intercept, atol=2e-4)


def barcode_starts(edges: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the number of the barcode that each edge belongs to."""
    return np.cumsum(np.diff(edges["timestamp"], prepend=-99) > 1.5)


@pytest.mark.parametrize("wrong", [1, 5, 15])
def test_wrong_anchors_do_not_move_the_clock(wrong: int) -> None:
    trials = make_trials(400, barcode_every=10)
    edges = make_ttl_edges(trials, slope=1.00002, intercept=12.5)
    random = np.random.default_rng(3)
    late = dict.fromkeys(range(1, 41), 0.0)
    late |= {int(n): random.uniform(5, 15) for n in random.choice(40, wrong, replace=False) + 1}
    number = pd.Series(barcode_starts(edges))
    moved = edges.assign(timestamp=edges["timestamp"] + number.map(late).to_numpy())
    aligned, clock = align_trials(trials_to_frame(trials), moved)
    np.testing.assert_allclose(aligned["alignment_slope"], 1.00002, atol=1e-8)
    np.testing.assert_allclose(aligned["alignment_intercept"], 12.5, atol=1e-5)
    assert (clock["segment_of_anchor"] == -1).sum() == wrong
    assert aligned["barcode_residual"].notna().sum() == 40 - wrong
    assert (aligned["n_barcodes_matched"] == 40 - wrong).all()


def test_a_clock_that_jumps_is_followed_and_told() -> None:
    trials = make_trials(400, barcode_every=10)
    df = trials_to_frame(trials)
    edges = make_ttl_edges(trials, slope=1.00002, intercept=12.5)
    later = barcode_starts(edges) > 24
    moved = edges.assign(timestamp=edges["timestamp"] + 7.0 * later)
    with pytest.warns(RecordingWarning, match="the clock jumps") as caught:
        aligned, clock = align_trials(df, moved)
    assert any("they become NaN" in str(warning.message) for warning in caught)
    assert clock.attrs["n_jumps"] == 1
    row = np.arange(400)
    # The last barcode before the pause is that of row 230, the first after it of row 240.
    unknown = (row > 230) & (row < 240)
    wanted = df["Trial start timestamp"] * 1.00002 + 12.5 + 7.0 * (row >= 240)
    found = aligned["trial_start_ephys"].to_numpy()
    assert np.isnan(found).tolist() == unknown.tolist()
    np.testing.assert_allclose(found[~unknown], wanted[~unknown], atol=1e-5)
    ends = aligned.msw.state_time("final", "end", clock="ephys").to_numpy()
    ours = df.msw.state_time("final", "end", clock="session") * 1.00002 + 12.5
    known = ~unknown & ours.notna().to_numpy()
    np.testing.assert_allclose(ends[known], (ours + 7.0 * (row >= 240))[known], atol=1e-5)


def test_a_value_that_was_seen_twice() -> None:
    trials = make_trials(40, barcode_every=10)
    for trial in trials[20:31:10]:
        trial["info"]["barcode_value"] = 77
    aligned, clock = align_trials(trials_to_frame(trials), make_ttl_edges(trials))
    np.testing.assert_allclose(aligned["alignment_slope"], 1.00002, atol=1e-9)
    assert aligned["barcode_residual"].notna().sum() == 4
    assert clock.sizes["anchor"] == 6


def test_alignment_errors() -> None:
    trials = make_trials(60)
    df = trials_to_frame(trials)
    edges = make_ttl_edges(trials)
    with pytest.raises(DataError, match=r"no barcode stands .* is 'timestamp' in seconds"):
        df.msw.align(edges.assign(timestamp=edges["timestamp"] * 1000), line=4)
    with pytest.raises(
        TrialTableError, match="no edges on line 9; write line=, there are edges on: 4"
    ):
        align_trials(df, edges, line=9)
    with pytest.raises(KeyError, match="'line'"):
        align_trials(df, edges.drop(columns="line"), line=4)
    with pytest.raises(TrialTableError, match="sent no barcode"):
        align_trials(df.msw.task, edges, line=4)
    with pytest.raises(DataError, match="it the right line"):
        align_trials(df, edges.iloc[:3], line=4)
    many = make_trials(400, barcode_every=10)
    edges_of_many = make_ttl_edges(many)
    random = np.random.default_rng(0)
    late = pd.Series(barcode_starts(edges_of_many)).map(
        dict(enumerate(random.uniform(0, 1e4, 41)))
    )
    scattered = edges_of_many.assign(timestamp=edges_of_many["timestamp"] + late.to_numpy())
    with pytest.raises(DataError, match="half"):
        align_trials(trials_to_frame(many), scattered)
    two = pd.concat([edges, edges.assign(line=7)])
    with pytest.raises(TrialTableError, match="there are edges on: 4, 7"):
        align_trials(df, two)
    pd.testing.assert_frame_equal(align_trials(df, edges)[0], align_trials(df, two, line=4)[0])
    renamed = edges.rename(columns={"timestamp": "timestamps"})
    pd.testing.assert_frame_equal(
        align_trials(df, renamed, line=4)[0],
        align_trials(
            df, edges.rename(columns={"timestamp": "t"}), line=4, timestamp_column="t"
        )[0],
    )


def test_a_repeated_index_is_no_trouble() -> None:
    trials = make_trials(60)
    df = trials_to_frame(trials)
    df.index = [0] * len(df)
    aligned = df.msw.align(make_ttl_edges(trials), line=4)
    assert aligned["barcode_ephys_time"].notna().to_numpy().nonzero()[0].tolist() == [0, 20, 40]
    assert df.msw.outcome().isna().sum() == 3
    assert len(df.msw.blocks()) >= 1
    assert df.msw.reaction_time().notna().sum() > 40
    assert df.msw.validate() == []


@pytest.mark.parametrize("named", [True, False], ids=["named", "joined by pandas"])
def test_measures_of_joined_sessions_do_not_reach_over_their_borders(named: bool) -> None:
    tables = [table(40, seed=seed)[1] for seed in (1, 2, 3)]
    if named:
        joined = concat_trials({str(i): df for i, df in enumerate(tables)})
    else:
        joined = pd.concat(tables, ignore_index=True)
    each = [df.msw.win_stay_lose_shift() for df in tables]
    both = joined.msw.win_stay_lose_shift()
    assert both["n_wins"] == sum(one["n_wins"] for one in each)
    assert both["n_losses"] == sum(one["n_losses"] for one in each)
    curve = sum(df.msw.switch_curve()["n"] for df in tables)
    assert joined.msw.switch_curve()["n"].tolist() == curve.tolist()
    rolled = np.concatenate([df.msw.rolling("rewarded", 5).to_numpy() for df in tables])
    np.testing.assert_array_equal(joined.msw.rolling("rewarded", 5).to_numpy(), rolled)
    assert len(joined.msw.blocks()) == sum(len(df.msw.blocks()) for df in tables)
    lengths = [df.msw.summary()["duration_s"] for df in tables]
    assert joined.msw.summary()["duration_s"] == pytest.approx(sum(lengths))


def test_each_session_of_a_joined_table_has_a_clock_of_its_own() -> None:
    trials = [make_trials(60, start=datetime(2026, 5, day, 14, 30)) for day in (14, 17)]
    tables = {str(len(each)): trials_to_frame(each) for each in (trials[0], trials[1][:50])}
    joined = concat_trials(tables)
    expected = [time for df in tables.values() for time in df.msw.wall_time()]
    assert joined.msw.wall_time().tolist() == expected
    task = tables["50"].msw.task
    without = concat_trials({"a": tables["60"], "b": task})
    assert without.msw.wall_time().notna().tolist() == [True] * 60 + [False] * len(task)
    with pytest.raises(TrialTableError, match=r"2 sessions.*align each session\.df"):
        joined.msw.align(make_ttl_edges(trials[0]), line=4)


def test_a_table_of_ones_own_is_told_what_to_write():
    own = pd.DataFrame({"go_time": [0.1, 0.5], "choice_time": [0.3, 0.8], "correct": [1, 0]})
    with pytest.raises(
        TrialTableError, match=r"write table\['choice_time'\] - table\['go_time'\]$"
    ):
        own.msw.reaction_time()
    with pytest.raises(
        UnknownNameError, match=r"write table.rename\(columns=\{...: 'choice'\}\)$"
    ):
        own.msw.win_stay_lose_shift()
    with pytest.raises(
        TrialTableError, match=r"events is list; write a DataFrame of the edges"
    ):
        own.msw.align([1.0, 2.0])


def test_states_of_the_task_are_named_before_those_of_barcodes():
    _, df = table(30)
    with pytest.raises(UnknownNameError, match=r"no state 'go'; there are: '(?!barcode)"):
        df.msw.state_time("go")
