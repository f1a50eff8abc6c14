"""The state machine's log, in the order that rigs write it, against its trial file."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.errors import DamageWarning
from labtree.msw import MswSession, load_session, save_trial_data, validate_session
from labtree.msw.log import complete_from_log, count_ended_trials, read_log
from labtree.testing.msw import make_trials, write_log
from support.examples import examples

NAN = float("nan")
NAME = "m01__20260514_143022_123456__gonogo"
STATES, EVENTS = "States timestamps", "Events timestamps"
START, END = "Trial start timestamp", "Trial end timestamp"
Trial = dict[str, Any]


def trial_of(start: float, number: int = 0, *, stopped: bool = False) -> Trial:
    """Return a trial of two visits to one state and none to another, on exact times."""
    states: dict[str, Any] = {
        "wait": [(0.0, 0.25 + number / 1000), (0.5, 0.75)],
        "reward": [(NAN, NAN)],
        "final": [(0.75, 1.0)],
    }
    if stopped:
        states = {"wait": [(NAN, NAN)]}
    return {
        "Bpod start timestamp": 2.5,
        START: start,
        END: start + 1.0,
        STATES: states,
        EVENTS: {} if stopped else {"Tup": [0.5, 1.0], "Port1In": [0.25]},
        "info": {"trial_index": number},
    }


def log_rows(trial: Trial) -> list[str]:
    """Write the rows of one trial, as the corrected description of the format has them."""
    rows = ["TRIAL;pc;;;New trial;"]
    rows += [f"EVENT;pc;{t};;9;{name}" for name, ts in trial[EVENTS].items() for t in ts]
    rows += ["TRANSITION;pc;0.5;;state entered;", "SOFTCODE;pc;;;3;"]
    rows += ["END-TRIAL;pc;;;The trial ended;"]
    rows += [f"INFO;pc;{trial[START]};{trial[END]};TRIAL-BPOD-TIME;1.0"]
    for name, visits in trial[STATES].items():
        rows += [f"STATE;pc;{a};{b};{name};{b - a}" for a, b in visits]
    return rows


HEAD = [
    "__UUID4__;0", "__CREATED-ON__;x", "__DEF-URL__;x", "__DEF-TEXT__;x",
    "__SOFTWARE__;PyBpod API v1.8.2", "__HAS-HEADER__",
    "TYPE;PC-TIME;BPOD-INITIAL-TIME;BPOD-FINAL-TIME;MSG;+INFO",
    *["INFO;pc;;;SESSION-STARTED;x"] * 12,
]  # fmt: skip


def write(
    folder: Path, trials: list[Trial], *, closed: bool = True, prefix: str = NAME
) -> Path:
    path = folder / f"{prefix}.msw.csv"
    rows = HEAD + [row for trial in trials for row in log_rows(trial)]
    rows += ["INFO;pc;;;SESSION-ENDED;x"] * closed
    path.write_text("\n".join(rows) + "\n")
    return path


def session(
    base: Path, trials: list[Trial], logged: list[Trial] | None = None, name: str = NAME
) -> Path:
    folder = base / name
    folder.mkdir(parents=True, exist_ok=True)
    save_trial_data(trials, folder / f"{name}.msw.df.jsonl")
    write(folder, trials if logged is None else logged, prefix=name)
    return folder


def without_index(trial: Trial) -> Trial:
    return {key: value for key, value in trial.items() if key != "info"}


def loaded(folder: Path) -> tuple[MswSession, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_session(folder)
    return found, " ".join(str(warning.message) for warning in caught)


def test_states_belong_to_the_last_trial_row_above_them(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(4)]
    log = read_log(write(tmp_path, trials))
    assert log.n_cut == 0
    for ours, theirs in zip(log.trials, trials, strict=True):
        wanted = {key: theirs[key] for key in (START, END, STATES, EVENTS)}
        # repr, because NaN is not equal to itself.
        assert repr(ours | {EVENTS: None}) == repr(
            {STATES: wanted[STATES], EVENTS: None, START: wanted[START], END: wanted[END]}
        )
        assert ours[EVENTS] == wanted[EVENTS]


def test_a_log_agrees_with_the_trial_file_that_the_generator_makes(tmp_path: Path) -> None:
    for task in ("probabilistic_switching", "sequence"):
        for clock in ("trial", "session"):
            trials = make_trials(40, task=task, clock=clock)  # type: ignore[arg-type]
            write_log(trials, tmp_path / "a.msw.csv")
            log = read_log(tmp_path / "a.msw.csv")
            assert len(log.trials) == count_ended_trials(tmp_path / "a.msw.csv") == 40
            relative = make_trials(40, task=task)  # type: ignore[arg-type]
            for ours, theirs in zip(log.trials, relative, strict=True):
                assert (ours[START], ours[END]) == (theirs[START], theirs[END])
                assert ours[STATES].keys() == theirs[STATES].keys()
                for name, visits in theirs[STATES].items():
                    np.testing.assert_allclose(ours[STATES][name], visits, atol=2e-4)


@pytest.mark.parametrize("lost", [[0], [3], [7], [2, 3], [0, 7], [4, 5, 6, 7]])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_trials_that_only_the_log_has_are_restored_in_place(
    tmp_path: Path, lost: list[int], how: str
) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(8)]
    folder = session(tmp_path, trials)
    whole, told = loaded(folder)
    assert not told
    path = next(folder.glob("*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    for i in reversed(lost):
        lines[i + 1 : i + 2] = [] if how == "gone" else [lines[i + 1][:30] + b"\n"]
    path.write_bytes(b"".join(lines))
    found, told = loaded(folder)
    assert f"{len(lost)} trials restored from the log {NAME}.msw.csv" in told
    assert "cannot be read" not in told
    assert found.df["restored_from_log"].tolist() == [i in lost for i in range(8)]
    assert found.df["Bpod start timestamp"].tolist() == [2.5] * 8
    for name in (START, END):
        assert found.df[name].tolist() == whole.df[name].tolist()
    for ours, theirs in (
        (found.df.msw.states(), whole.df.msw.states()),
        (found.df.msw.events(), whole.df.msw.events()),
    ):
        text = {ours.columns[1]: str}
        pd.testing.assert_frame_equal(ours.astype(text), theirs.astype(text))
    nested = load_session_quietly(folder, nested=True)
    assert nested.df["wait"].tolist() == [
        [(0.0, 0.25 + i / 1000), (0.5, 0.75)] for i in range(8)
    ]


def load_session_quietly(folder: Path, **options: Any) -> MswSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_session(folder, **options)


def test_a_trial_that_was_stopped_at_once_hides_nobody(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i, stopped=i == 6) for i in range(8)]
    folder = session(tmp_path, trials[:7], trials)
    found, told = loaded(folder)
    assert found.n_trials == 8
    assert "1 trials restored" in told
    assert found.df.msw.states()["trial"].value_counts().reindex([5, 6, 7]).tolist()[::2] == [
        3,
        3,
    ]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4])
def test_a_log_that_was_cut_in_its_last_trial_restores_the_others(
    tmp_path: Path, n_rows: int
) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(5)]
    folder = session(tmp_path, trials[:3], trials)
    log = next(folder.glob("*.csv"))
    rows = log.read_text().splitlines()[:-1]
    log.write_text("\n".join(rows[:-n_rows]) + "\n")
    found, told = loaded(folder)
    assert found.n_trials == 4
    assert "the times or states of 1 trials that ended are missing" in told
    log.write_text("\n".join(rows)[:-3])
    assert loaded(folder)[0].n_trials == 4
    # A trial that another one follows is whole, wherever that is cut.
    log.write_text("\n".join([*rows, "TRIAL;pc;;;5;x", "EVENT;pc;0.1;;1;Port1I"]))
    assert loaded(folder)[0].n_trials == 5


def test_a_log_of_another_session_restores_nothing_and_is_told(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(8)]
    for others, why in (
        ([trial_of(3.25 + 2 * i, i) for i in range(9)], "8 of its 8 trials differ"),
        ([trial_of(2.5 + 2 * i, i + 40) for i in range(9)], "8 of its 8 trials differ"),
        ([trial_of(0.5 + i / 10, i) for i in range(9)], "no trial in common"),
    ):
        folder = session(tmp_path, trials, others)
        found, told = loaded(folder)
        assert found.n_trials == 8
        assert "nothing is restored from them" in told
        assert why in told
    # Without a time to match them by, nothing can be restored either.
    plain = [{key: value for key, value in trial.items() if key != START} for trial in trials]
    found, told = loaded(session(tmp_path, plain, [trial_of(0.0)] * 9))
    assert found.n_trials == 8
    assert "8 of its 8 trials differ" in told


def test_one_damaged_trial_in_ten_does_not_make_a_log_foreign(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(12)]
    odd = json.loads(json.dumps(trials))
    for trial in odd:
        trial[STATES] = {k: [tuple(v) for v in vs] for k, vs in trial[STATES].items()}
    odd[3][STATES]["final"] = [(0.5, 99.0)]
    found, told = loaded(session(tmp_path, odd[:11], trials))
    assert found.n_trials == 12
    assert "1 trials restored" in told


def test_trials_after_the_end_of_the_log_stay_behind_it() -> None:
    trials = [without_index(trial_of(2.5 + 2 * i, i)) for i in range(6)]
    done = complete_from_log([trials[0], trials[1], trials[5]], trials[:4])
    assert [trial[START] for trial in done.trials] == [2.5, 4.5, 6.5, 8.5, 12.5]
    assert done.n_restored == 2


@settings(max_examples=examples(80), deadline=None)
@given(
    steps=st.lists(st.integers(1, 30_000), min_size=2, max_size=12),
    kept=st.lists(st.booleans(), min_size=12, max_size=12),
    stopped=st.sets(st.integers(0, 11)),
    in_session=st.booleans(),
    rounded=st.booleans(),
)
def test_what_is_left_and_the_log_give_all_that_was(
    steps: list[int], kept: list[bool], stopped: set[int], in_session: bool, rounded: bool
) -> None:
    starts = np.cumsum(steps) / 1e4 + 0.00003 + 5
    logged = [trial_of(float(s), i, stopped=i in stopped) for i, s in enumerate(starts)]
    filed = []
    for trial in logged:
        shift = trial[START] if in_session else 0.0
        digits = 4 if rounded else 12
        filed.append(
            trial
            | {START: round(trial[START], digits), END: round(trial[END], digits)}
            | {
                STATES: {
                    name: [
                        (round(a + shift, digits), round(b + shift, digits)) for a, b in visits
                    ]
                    for name, visits in trial[STATES].items()
                }
            }
        )
    left = [trial for trial, keep in zip(filed, kept, strict=False) if keep]
    done = complete_from_log(left, [without_index(trial) for trial in logged])
    assert not done.problem
    assert len(done.trials) == len(logged)
    assert done.n_restored == len(logged) - len(left)
    # Where no visit is left, nothing says what the file counts from.
    known = any(trial[STATES].get("final") for trial in left)
    for ours, theirs in zip(done.trials, filed, strict=True):
        assert abs(ours[START] - theirs[START]) <= 1e-4
        if known or "restored_from_log" not in ours:
            for name, visits in theirs[STATES].items():
                np.testing.assert_allclose(ours[STATES][name], visits, atol=2e-4)


def subprotocols(base: Path) -> Path:
    folder = base / NAME
    folder.mkdir(parents=True)
    entries = []
    for part, first, n in (("ramp1", 2.5, 3), ("ramp2", 40.0, 4)):
        trials = [trial_of(first + 2 * i, i) for i in range(n)]
        save_trial_data(trials, folder / f"{NAME}_{part}.msw.df.jsonl")
        write(folder, trials, prefix=f"{NAME}_{part}")
        entries.append(
            f"- {{name: {part}, file: {NAME}_{part}.msw.df.jsonl, status: complete}}\n"
        )
    (folder / "acquisition_manifest.yaml").write_text(
        "msw_manifest_version: 1\nsubprotocols:\n" + "".join(entries)
    )
    (folder / f"{NAME}.msw.session.yaml").write_text(
        "msw_format_version: 2\nprocess: {msw_version: '2'}\ntask_settings: {a: 1}\n"
    )
    return folder


def test_each_subprotocol_has_a_log_of_its_own(tmp_path: Path) -> None:
    folder = subprotocols(tmp_path)
    assert validate_session(folder).passed, validate_session(folder)
    path = folder / f"{NAME}_ramp2.msw.df.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    found, told = loaded(folder)
    assert found.df["subprotocol"].tolist() == ["ramp1"] * 3 + ["ramp2"] * 4
    assert found.df[START].tolist() == [2.5, 4.5, 6.5, 40.0, 42.0, 44.0, 46.0]
    assert "1 trials restored from the log" in told
    # Without its trial file, a subprotocol comes from its log.
    path.unlink()
    found, told = loaded(folder)
    assert found.df["subprotocol"].tolist() == ["ramp1"] * 3 + ["ramp2"] * 4
    assert "4 trials restored from the log, for want of" in told
    # The log of an aborted one has no trial, and is nothing to tell of.
    path.write_bytes(whole)
    write(folder, [], prefix=f"{NAME}_ramp3")
    assert not loaded(folder)[1]
    write(folder, [trial_of(90.0)], prefix=f"{NAME}_ramp3")
    assert "a log of 1 trials that belongs to no trial file here" in loaded(folder)[1]


def test_damaged_logs_cost_nothing_that_the_file_has(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(6)]
    folder = session(tmp_path, trials)
    log = next(folder.glob("*.csv"))
    whole = log.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(0, len(data), 5):
            data[at] ^= 1 << int(random.integers(8))
        log.write_bytes(bytes(data[: random.integers(1, len(data))]))
        found, _ = loaded(folder)
        kept = found.df
        if "restored_from_log" in kept:
            kept = kept[~kept["restored_from_log"]]
        assert kept["trial_index"].tolist() == list(range(6))


def test_times_out_of_all_bounds_match_nothing(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(6)]
    for when in (1e306, float("inf"), float("nan"), -1e300):
        odd = [*trials[:5], trials[5] | {START: when}]
        folder = session(tmp_path, trials[:4], odd)
        found, told = loaded(folder)
        assert found.n_trials == 5
        assert "1 trials restored" in told
        assert "the times or states of 1 trials that ended are missing" in told
        found, _ = loaded(session(tmp_path, odd[:4] + odd[5:], trials))
        assert found.n_trials == 5


def test_a_log_that_cannot_be_read_does_not_cost_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = session(tmp_path, [trial_of(2.5 + 2 * i, i) for i in range(6)])

    def refuse(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("labtree.msw.log.open_regular", refuse)
    found, told = loaded(folder)
    assert found.n_trials == 6
    assert f"{NAME}.msw.csv" in told


@pytest.mark.parametrize("part_bytes", [1, 5, 11, 12, 100, 2**20])
def test_ended_trials_are_counted_wherever_a_part_of_the_log_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr("labtree.msw.log._PART_BYTES", part_bytes)
    rows = ["END-TRIAL;pc;;;The trial ended;", "STATE;END-TRIAL;", "END-TRIAL;", "x", "END-TRI"]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    assert count_ended_trials(path) == 2


def test_the_warning_is_a_damage_warning(tmp_path: Path) -> None:
    trials = [trial_of(2.5 + 2 * i, i) for i in range(4)]
    with pytest.warns(DamageWarning, match="restored from the log"):
        load_session(session(tmp_path, trials[:2], trials))
