"""Speed of Murine Shift Work sessions, beside stdlib json and pandas doing the same.

As a test: small sizes, and both ways must give the same values. As a program: the sizes of
docs/performance/msw.md (``python tests/benchmarks/test_msw.py``).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from labtree.msw import (
    TrialWriter,
    load_session,
    load_subject,
    load_trial_data,
    save_trial_data,
    trials_to_frame,
)
from labtree.testing.msw import make_trials, write_session

Trial = dict[str, Any]


# --- the baseline: what older tools do, from the description of the formats -------------


def decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"__tuple__"}:
            return tuple(decode(item) for item in value["__tuple__"])
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def plain_load(path: Path) -> list[Trial]:
    trials = []
    with path.open() as file:
        for line in file:
            if line.strip():
                trial = decode(json.loads(line))
                if "_msw_version" not in trial:
                    trials.append(trial)
    return trials


def plain_frame(trials: list[Trial]) -> pd.DataFrame:
    frame = pd.DataFrame(trials)
    for name in ("info", "States timestamps", "Events timestamps"):
        frame = frame.join(pd.DataFrame(frame.pop(name).tolist()))
    return frame


def plain_session(folder: Path) -> tuple[pd.DataFrame, Any]:
    settings = None
    for _ in range(3):
        with next(folder.glob("*.msw.session.yaml")).open() as file:
            settings = yaml.load(file, yaml.SafeLoader)
    return plain_frame(plain_load(next(folder.glob("*.jsonl")))), settings


def encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"__tuple__": [encode(item) for item in value]}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    return value


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def plain_save(trials: list[Trial], path: Path) -> None:
    with path.open("w") as file:
        file.write('{"_msw_version": "1.0.0"}\n')
        for trial in trials:
            file.write(json.dumps(rounded(encode(trial))) + "\n")


def plain_append(trials: list[Trial], path: Path) -> None:
    """Write the whole file anew for each trial, safely, as older writers do."""
    for n in range(1, len(trials) + 1):
        temporary = path.with_suffix(".tmp")
        plain_save(trials[:n], temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def append(trials: list[Trial], path: Path) -> None:
    with TrialWriter(path) as writer:
        for trial in trials:
            writer.append(trial)


# --- as a test --------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["probabilistic_switching", "sequence"])
def test_the_quick_way_gives_the_values_of_the_plain_way(tmp_path: Path, task: Any) -> None:
    folder = write_session(tmp_path, trials=make_trials(60, task=task))
    session, (plain, settings) = load_session(folder), plain_session(folder)
    assert session.settings_task == settings["task_settings"]
    assert session.df is not None
    flat = session.df
    for name in flat.columns.drop("trial"):
        ours = [None if isinstance(v, float) and v != v else v for v in flat[name]]
        ours = [None if v is pd.NA else v for v in ours]
        theirs = [None if isinstance(v, float) and v != v else v for v in plain[name]]
        assert ours == theirs, name
    states = session.df.msw.states()
    for name, part in states.groupby("state", observed=True):
        assert part["start"].tolist() == [
            visit[0]
            for cell in plain[name]
            if isinstance(cell, list)
            for visit in cell
            if visit[0] == visit[0]
        ]


def test_the_writers_give_the_same_file(tmp_path: Path) -> None:
    trials = make_trials(20)
    plain_append(trials, tmp_path / "plain.jsonl")
    append(trials, tmp_path / "ours.jsonl")
    save_trial_data(trials, tmp_path / "saved.jsonl")
    plain = (tmp_path / "plain.jsonl").read_bytes()
    assert (tmp_path / "ours.jsonl").read_bytes() == plain
    assert (tmp_path / "saved.jsonl").read_bytes() == plain
    assert repr(load_trial_data(tmp_path / "ours.jsonl")) == repr(
        plain_load(tmp_path / "plain.jsonl")
    )


# --- as a program -----------------------------------------------------------------------


def measure(
    ours: Callable[[], object], plain: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Give the median CPU seconds of both, in turns of some calls each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for function, into in zip((ours, plain), times, strict=True):
            if repeats > 1:
                # What one leaves behind in the collector and the caches is not the other's.
                function()
            for _ in range(repeats):
                start = time.process_time()
                function()
                into.append(time.process_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def tell(work: str, ours: float, plain: float) -> None:
    print(f"| {work} | {plain * 1e3:.1f} | {ours * 1e3:.1f} | {plain / ours:.1f} |", flush=True)


def main(large: int = 50_000) -> None:
    print("| work | plain (ms) | labtree (ms) | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for task, n in (("sequence", 22), ("sequence", 65), ("probabilistic_switching", 65)):
            trials = make_trials(n, task=task)  # type: ignore[arg-type]
            folder = write_session(base / f"{task}{n}", trials=trials, task=task)
            load_session(folder)
            tell(
                f"load_session, {task}, {n} trials",
                *measure(
                    lambda f=folder: load_session(f), lambda f=folder: plain_session(f), 10
                ),
            )
        for task in ("sequence", "probabilistic_switching"):
            for n in sorted({5_000, large}):
                trials = make_trials(n, task=task, barcode_every=100)  # type: ignore[arg-type]
                path = base / f"{task}.{n}.jsonl"
                save_trial_data(trials, path)
                size = path.stat().st_size / 1e6
                folder = base / f"{task}{n}" / "m01__20260514_143022__t"
                folder.mkdir(parents=True)
                path.rename(folder / "m01__20260514_143022__t.msw.jsonl")
                path = folder / "m01__20260514_143022__t.msw.jsonl"
                repeats = 2 if n <= 5_000 else 1
                tell(
                    f"table of {n} trials, {task}, {size:.1f} MB",
                    *measure(
                        lambda f=folder: load_session(f),
                        lambda p=path: plain_frame(plain_load(p)),
                        repeats,
                    ),
                )
                if n == 5_000:
                    tell(
                        f"load_trial_data, {n} trials, {task}",
                        *measure(
                            lambda p=path: load_trial_data(p), lambda p=path: plain_load(p), 2
                        ),
                    )
                    tell(
                        f"trials_to_frame, {n} trials, {task}",
                        *measure(
                            lambda t=trials: trials_to_frame(t),
                            lambda t=trials: plain_frame(t),
                            2,
                        ),
                    )
                    tell(
                        f"save_trial_data, {n} trials, {task}",
                        *measure(
                            lambda t=trials: save_trial_data(t, base / "a.jsonl"),
                            lambda t=trials: plain_save(t, base / "b.jsonl"),
                            2,
                        ),
                    )
        trials = make_trials(200)
        tell(
            "write 200 trials, one by one, durable",
            *measure(
                lambda: (
                    (base / "c.jsonl").unlink(missing_ok=True),
                    append(trials, base / "c.jsonl"),
                ),
                lambda: plain_append(trials, base / "d.jsonl"),
                1,
            ),
        )
        for i in range(200):
            write_session(
                base / "many",
                trials=make_trials(65, task="sequence", seed=i),
                task="sequence",
                datetime_str=f"20260514_{i // 60:02}{i % 60:02}00_000000",
                with_log=False,
            )
        folders = sorted((base / "many" / "m01").glob("*/*"))
        tell(
            "load_subject, 200 sessions",
            *measure(
                lambda: load_subject(base / "many" / "m01"),
                lambda: [plain_session(folder) for folder in folders],
                1,
            ),
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
