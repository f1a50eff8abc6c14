"""Synthetic Murine Shift Work sessions of every era: trials, folders, and the TTL line.

The mouse is simulated: it repeats rewarded choices, and misses some trials, so that the
measures and plots have something to show.
"""

import json
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from labtree.msw.alignment import BARCODE_BITS, barcode_durations
from labtree.msw.session_names import make_acquisition_basename as make_name
from labtree.msw.session_names import make_container_name, make_file_name
from labtree.msw.trial_lines import encode_header, encode_trial
from labtree.msw.trial_times import END, EVENTS, START, STATES, Trial

__all__ = ["ERAS", "make_trials", "make_ttl_edges", "write_log", "write_session"]

Era = Literal["2025", "2026", "subprotocols", "separate_json", "legacy", "manifest"]
ERAS: tuple[Era, ...] = (
    "2025", "2026", "subprotocols", "separate_json", "legacy", "manifest",
)  # fmt: skip
_NAN = float("nan")
# The session's clock runs already when the first trial starts.
_FIRST_START_S = 1.25


def make_trials(
    n_trials: int = 100,
    *,
    task: Literal["probabilistic_switching", "sequence"] = "probabilistic_switching",
    barcode_every: int = 20,
    learning: float = 1.0,
    clock: Literal["trial", "session"] = "trial",
    start: datetime = datetime(2026, 5, 14, 14, 30, 22, 123456),
    seed: int = 0,
) -> list[Trial]:
    """Return synthetic trials, as `labtree.msw.load_trial_data` would.

    Parameters
    ----------
    n_trials : int
        Rows in all.
    task : {"probabilistic_switching", "sequence"}
        Which task's fields and states.
    barcode_every : int
        Every how many trials, from the first, one sends a barcode instead of a task; 0 for
        none.
    learning : float
        From 0, a mouse that guesses, to 1, one that follows the rewards.
    clock : {"trial", "session"}
        What the times of states and events count from.
    start : datetime
        The moment of the first trial, for the barcodes.
    seed : int
        The same seed gives the same trials.

    Returns
    -------
    list of dict
        One for each trial.

    Examples
    --------
    >>> trials = make_trials(3, barcode_every=0)
    >>> sorted(trials[0])[:3]
    ['Bpod start timestamp', 'Events timestamps', 'States timestamps']
    """
    random = np.random.default_rng(seed)
    make = (
        _switching(random, learning) if task == "probabilistic_switching" else _sequence(random)
    )
    began, trials = _FIRST_START_S, []
    for index in range(n_trials):
        if barcode_every and index % barcode_every == 0:
            info, states, events = _barcode(start + timedelta(seconds=began))
        else:
            info, states, events = next(make)
        info["trial_index"] = index
        # The state machine counts in steps of 100 microseconds.
        length = max(end for visits in states.values() for _, end in visits if end == end)
        shift = began if clock == "session" else 0.0
        trials.append(
            {
                "Bpod start timestamp": _FIRST_START_S,
                START: round(began, 6),
                END: round(began + length, 6),
                STATES: {
                    name: [(_tick(a + shift), _tick(b + shift)) for a, b in visits]
                    for name, visits in states.items()
                },
                EVENTS: {
                    name: [_tick(t + shift) for t in times] for name, times in events.items()
                },
                "info": info,
            }
        )
        began += length + random.uniform(0.05, 0.2)
    return trials


def _tick(seconds: float) -> float:
    return round(seconds, 4)


def _barcode(moment: datetime) -> tuple[Trial, dict[str, Any], dict[str, Any]]:
    wall = moment.timestamp()
    value = int(wall * 1000) % 2**BARCODE_BITS
    edges = np.concatenate([[0.0], np.cumsum(barcode_durations(value))])
    names = ["barcode_start", *(f"barcode_seg_{i}" for i in range(1, len(edges) - 1))]
    states = {
        name: [(a, b)]
        for name, a, b in zip(names, edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    }
    states["iti_post_barcode"] = [(float(edges[-1]), float(edges[-1]) + 0.5)]
    info = {"trial_type": "barcode", "barcode_value": value, "barcode_wall_time": wall}
    return info, states, {"Tup": [float(edges[-1]) + 0.5]}


def _switching(random: np.random.Generator, learning: float) -> Any:
    high, block, within, last, average = 1, 0, 0, 0, 0.0
    while True:
        values = [10, 80] if high == 1 else [80, 10]
        follow = random.random() < learning * 0.9
        choice = (last or 1) if follow else int(random.choice([-1, 1]))
        missed = random.random() < 0.05
        rewarded = not missed and random.random() * 100 < values[(choice + 1) // 2]
        if not missed:
            last = choice if rewarded else (-choice if random.random() < learning else choice)
        average = 0.9 * average + 0.1 * rewarded
        reaction = random.gamma(3.0, 0.12)
        side = "right" if choice == 1 else "left"
        waited = random.uniform(0.2, 0.6)
        times = np.cumsum([0.001, 0.001, waited, 5.0 if missed else reaction, 0.05, 0.8])
        on, off, ready, done, poke, out = times.tolist()
        states = {
            "ttl_on": [(0.0, on)],
            "ttl_off": [(on, off)],
            "center_ready": [(off, ready)],
            "side_ready": [(ready, done)],
        }
        for name in ("left", "right"):
            chosen = not missed and name == side
            states[f"choice_{name}"] = [(done, poke)] if chosen else [(_NAN, _NAN)]
            for outcome, paid in (("reward", True), ("neutral", False)):
                states[f"outcome_{name}_{outcome}"] = (
                    [(poke, out)] if chosen and rewarded is paid else [(_NAN, _NAN)]
                )
        states["final"] = [(done if missed else out, (done if missed else out) + 0.1)]
        port = 3 if choice == 1 else 1
        events = {"Tup": [on, off], "Port2In": [ready], "Port2Out": [ready + 0.05]}
        if not missed:
            events |= {f"Port{port}In": [done], f"Port{port}Out": [poke]}
        yield (
            {
                "trial_type": "task",
                "choice": _NAN if missed else choice,
                "rewarded": bool(rewarded),
                "block_number": block,
                "block_trial_number": within,
                "block_type_index": (high + 1) // 2,
                "block_type_values": values,
                "moving_average": round(average, 4),
                "reward_available_left": bool(values[0] == 80),
                "reward_available_right": bool(values[1] == 80),
                "stop_trial": False,
                "initiation_delay_actual": round(waited, 4),
            },
            states,
            events,
        )
        within += 1
        if within >= 20 and average > 0.55:
            block, within, high, average = block + 1, 0, -high, 0.0


def _sequence(random: np.random.Generator) -> Any:
    order = [2, 1, 6, 3, 7]
    while True:
        time = 0.0
        pokes: list[Trial] = []
        states: dict[str, Any] = {}
        events: dict[str, Any] = {}
        correct = random.random() < 0.7
        n_done = len(order) if correct else int(random.integers(0, len(order)))
        for place, port in enumerate(order):
            if place > n_done:
                states[f"wait_poke_{place}"] = [(_NAN, _NAN)]
                states[f"reward_poke_{place}"] = [(_NAN, _NAN)]
                continue
            arrived = time + random.gamma(2.0, 0.2)
            states[f"wait_poke_{place}"] = [(time, arrived)]
            if place == n_done:
                port = int(random.choice([4, 5, 8]))
                states[f"reward_poke_{place}"] = [(_NAN, _NAN)]
            else:
                states[f"reward_poke_{place}"] = [(arrived, arrived + 0.1)]
            pokes.append({"port": port, "time": _tick(arrived)})
            events.setdefault(f"Port{port}In", []).append(arrived)
            events.setdefault(f"Port{port}Out", []).append(arrived + 0.08)
            time = arrived + 0.1
        states["punish"] = [(_NAN, _NAN)] if correct else [(time, time + 1.0)]
        end = time if correct else time + 1.0
        states["exit_seq"] = [(end, end + 0.1)]
        events["Tup"] = [end, end + 0.1]
        yield (
            {
                "trial_type": "task",
                "level": 5,
                "outcome": "correct" if correct else "incorrect" if n_done else "no_response",
                "is_perfect": bool(correct),
                "is_ordered": bool(correct),
                "poke_events": pokes,
                "transition_times": [
                    {"from": a["port"], "to": b["port"], "dt": _tick(b["time"] - a["time"])}
                    for a, b in pairwise(pokes)
                ],
                "sequence_duration_s": _tick(time) if correct else _NAN,
                "reward_count_trial": n_done,
                "liquid_ul_trial": round(1.5 * n_done, 4),
                "perf_buffer_mean": round(float(random.random()), 4),
                "sequence": order,
                "reward_amounts": [1.5] * len(order),
                "led_intensities": [255, 200, 150, 100, 50],
            },
            states,
            events,
        )


def make_ttl_edges(
    trials: list[Trial],
    *,
    slope: float = 1.00002,
    intercept: float = 12.5,
    line: int = 4,
    jitter_s: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the edges that an ephys system would record on the barcode line.

    Parameters
    ----------
    trials : list of dict
        Trials with times counted from the trial's start.
    slope, intercept : float
        The ephys clock: ``slope * session time + intercept``, in seconds.
    line : int
        The line's number.
    jitter_s : float
        Standard deviation of the noise on each edge.
    seed : int
        The same seed gives the same noise.

    Returns
    -------
    pandas.DataFrame
        Columns ``timestamp`` (s), ``line`` and ``state`` (1 rising, 0 falling).

    Examples
    --------
    >>> edges = make_ttl_edges(make_trials(21))
    >>> edges.columns.tolist(), edges.state.head(4).tolist()
    (['timestamp', 'line', 'state'], [1, 0, 1, 0])
    """
    random = np.random.default_rng(seed)
    times, states = [], []
    for trial in trials:
        if trial["info"].get("trial_type") != "barcode":
            continue
        durations = barcode_durations(trial["info"]["barcode_value"])
        levels = barcode_levels(trial["info"]["barcode_value"])
        began = trial[START] + trial[STATES]["barcode_start"][0][0]
        edges = began + np.concatenate([[0.0], np.cumsum(durations)])
        before = 0
        for edge, level in zip(edges, [*levels, 0], strict=True):
            if level != before:
                times.append(slope * edge + intercept + jitter_s * random.standard_normal())
                states.append(level)
            before = level
    return pd.DataFrame(
        {"timestamp": np.array(times, float), "line": line, "state": np.array(states, int)}
    )


def barcode_levels(value: int) -> list[int]:
    """Return the line's level in each of the 43 states of a barcode."""
    return [1, 0, 1, *(value >> bit & 1 for bit in range(BARCODE_BITS)), 0, 1, 0]


def write_log(trials: list[Trial], path: Path, *, closed: bool = True) -> None:
    """Write the state machine's own log (``.msw.csv``) of trials, as the rigs do.

    Parameters
    ----------
    trials : list of dict
        What `make_trials` returns.
    path : path
        The file.
    closed : bool
        Whether it ends as the log of a session that was stopped normally.

    Examples
    --------
    >>> write_log(make_trials(3), Path("m01.msw.csv"))
    >>> Path("m01.msw.csv").read_text(encoding="utf-8").count("END-TRIAL")
    3
    """
    began = datetime(2026, 5, 14, 14, 30, 22)
    rows = [f"{key};{value}" for key, value in _LOG_HEAD.items()]
    rows.append("TYPE;PC-TIME;BPOD-INITIAL-TIME;BPOD-FINAL-TIME;MSG;+INFO")
    rows += [f"INFO;{began};;;{message}" for message in _LOG_ABOUT]
    for trial in trials:
        start, end = trial[START], trial[END]
        pc = (began + timedelta(seconds=start)).isoformat(" ")
        visits = [(a, b, name) for name, pairs in trial[STATES].items() for a, b in pairs]
        visited = sorted(visit for visit in visits if visit[0] == visit[0])
        # Times in a log count from the trial's start, whatever the trial file does.
        first = visited[0][0] if visited else 0.0
        shift = start if abs(first - start) < abs(first) else 0.0
        happened = [
            (t - shift, f"EVENT;{pc};{_text(t - shift)};;{code};{name}")
            for code, (name, times) in enumerate(trial[EVENTS].items())
            for t in times
        ]
        happened += [
            (a - shift, f"TRANSITION;{pc};{_text(a - shift)};;state entered;")
            for a, _, _ in visited[1:]
        ]
        rows.append(f"TRIAL;{pc};;;New trial;")
        rows += [row for _, row in sorted(happened)]
        rows.append(f"END-TRIAL;{pc};;;The trial ended;")
        rows.append(f"INFO;{pc};{start};{end};TRIAL-BPOD-TIME;{_text(end - start)}")
        rows += [
            f"STATE;{pc};{_text(a - shift)};{_text(b - shift)};{name};{_text(b - a)}"
            for a, b, name in visits
        ]
    if closed:
        rows.append(f"INFO;{began};;;SESSION-ENDED;{began}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _text(seconds: float) -> str:
    return str(round(seconds, 6))


_LOG_HEAD = {
    "__UUID4__": "00000000-0000-4000-8000-000000000000",
    "__CREATED-ON__": "2026-05-14 14:30:22",
    "__DEF-URL__": "made up",
    "__DEF-TEXT__": "made up",
    "__SOFTWARE__": "PyBpod API v1.8.2",
    "__HAS-HEADER__": "True",
}
_LOG_ABOUT = [
    "PROTOCOL-NAME;made up", "CREATOR-NAME;made up", "PROJECT-NAME;made up",
    "EXPERIMENT-NAME;made up", "BOARD-NAME;made up", "SETUP-NAME;rig1",
    "BPOD-GUI-VERSION;1", "SUBJECT-NAME;made up", "BPOD-NET-PORT;0", "BPOD-SERIAL-PORT;COM3",
    "BPOD-FIRMWARE-VERSION;22", "SESSION-STARTED;2026-05-14 14:30:22",
]  # fmt: skip


def write_session(
    base: str | Path,
    era: Era = "2025",
    *,
    trials: list[Trial] | None = None,
    subject: str = "m01",
    task: str = "probabilistic_switching",
    datetime_str: str | None = None,
    with_log: bool = True,
) -> Path:
    """Write a session's folder, below ``base/subject``, as the rigs of an era did.

    Parameters
    ----------
    base : path
        The folder of the subjects.
    era : str
        One of `ERAS`: "2025" and "2026" (the layouts of these years), "subprotocols" (that
        of 2026, with two parts and a manifest), "separate_json", "legacy" (a pickle), and
        "manifest" (imported from an older system).
    trials : list of dict, optional
        What `make_trials` gives; a hundred of the default task unless given.
    subject, task, datetime_str
        For the names; the datetime has seconds only in the older eras.
    with_log : bool
        Whether the ``.msw.csv`` log is written, too.

    Returns
    -------
    pathlib.Path
        The session's folder.

    Examples
    --------
    >>> import labtree
    >>> folder = write_session("mice", "2026", trials=make_trials(20))
    >>> labtree.msw.load_session(folder).n_trials
    20
    """
    trials = make_trials() if trials is None else trials
    old = era in ("separate_json", "legacy")
    datetime_str = datetime_str or ("20260514_143022" if old else "20260514_143022_123456")
    if era in ("2025", "separate_json", "legacy"):
        name = make_name(subject, datetime_str, task, is_legacy_acquisition=True)
        container = make_container_name(
            None if era == "2025" else subject, datetime_str, task=task
        )
    else:
        name = make_name(subject, datetime_str, task, "msw", 1)
        container = make_container_name(subject, datetime_str)
    folder = Path(base, subject, container, name)
    folder.mkdir(parents=True)
    settings = _task_settings(len(trials))
    if era in ("2025", "2026", "subprotocols"):
        content = {
            "msw_format_version": 2,
            "process": _process(folder, subject, task, datetime_str),
            "task_settings": settings,
        }
        _write(folder, name, "session.yaml", _to_yaml(content))
    elif era == "separate_json":
        process = _process_of_json(folder, subject, task, datetime_str)
        settings["CALLBACK"] = "<NoJSON:<class 'function'>>"
        _write(folder, name, "settings.process.json", json.dumps(process))
        _write(folder, name, "settings.task.json", json.dumps(settings))
    elif era == "legacy":
        literals = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
        (folder / f"{name}_task_settings.py").write_text(
            f"PROBABILITIES = [(10, 80), (80, 10)]\n{literals}\n"
        )
    entries: list[dict[str, Any]] = []
    if era == "legacy":
        pd.DataFrame(trials).to_pickle(folder / f"{name}.msw.df.pkl")
    elif era == "subprotocols":
        half = len(trials) // 2
        for part, rows in (("baseline", trials[:half]), ("stimulation", trials[half:])):
            file = _write(folder, f"{name}_{part}", "df.jsonl", _lines(rows))
            if with_log:
                write_log(rows, folder / make_file_name(f"{name}_{part}", "csv"))
            barcodes = {"barcode_start": None, "barcode_end": None}
            entries.append({"name": part, "file": file, **barcodes, "status": "complete"})
    else:
        _write(folder, name, "jsonl" if era == "2025" else "df.jsonl", _lines(trials))
    if era in ("subprotocols", "manifest"):
        manifest: dict[str, Any] = {
            "msw_manifest_version": 1,
            "msw_namespace_version": "4.3",
            "type": "acquisition",
            "acquisition_name": name,
            "subprotocols": entries,
        }
        if era == "manifest":
            manifest["metadata"] = {"source": "legacy_matlab"}
        (folder / "acquisition_manifest.yaml").write_text(_to_yaml(manifest))
    if with_log and era != "subprotocols":
        write_log(trials, folder / make_file_name(name, "csv"))
    return folder


def _task_settings(n_trials: int) -> dict[str, Any]:
    return {
        "PROBABILITIES": [[10, 80], [80, 10]],
        "N_TRIALS": n_trials,
        "STAGE": None,
        # As many as a task has, so that reading them takes as long.
        **{f"VALVE_TIME_PORT_{i}": round(0.02 + i / 1000, 4) for i in range(14)},
        **{f"LED_INTENSITY_PORT_{i}": 25 * i for i in range(14)},
        **{f"DELAY_{i}_S": [0.1 * i, 0.2 * i] for i in range(14)},
        **{f"USE_PORT_{i}": i % 2 == 0 for i in range(14)},
        **{f"SOUND_{i}": f"tone_{i}.wav" for i in range(14)},
        "COMMENTS": {"weight_g": 24.5, "notes": "made up"},
    }


def _process(folder: Path, subject: str, task: str, datetime_str: str) -> dict[str, Any]:
    return {
        "msw_version": "1.14.1",
        "git_commit": "0" * 40,
        "task": task,
        "subject": subject,
        "setup": "rig1",
        "serial_port": "COM3",
        "out_path": "D:/data",
        "session_folder": "/".join(folder.parts[-3:]),
        "session_basename": folder.name,
        "datetime": datetime_str,
    }


def _process_of_json(
    folder: Path, subject: str, task: str, datetime_str: str
) -> dict[str, Any]:
    """Return the process settings as rigs wrote them that had a file for each."""
    on_rig = "/".join(["D:/data", *folder.parts[-3:]])
    return {
        "debug": False,
        "input_kwargs": {"printout": "<NoJSON:<class 'function'>>"},
        "msw_version": "1.3.0",
        "out_path": "D:/data",
        "serial_port": "COM3",
        "serial_port_accessible": True,
        "session_paths": {
            "basepath": "D:/data",
            "datetime": datetime_str,
            "session_basename": folder.name,
            "session_basename_behav": folder.name,
            "session_file_path": f"{on_rig}/{folder.name}",
            "session_folder": on_rig,
            "subject": subject,
            "task": task,
        },
        "subject": subject,
        "task_in": task,
        "task_name": task,
    }


def _lines(trials: list[Trial]) -> str:
    return (encode_header() + b"".join(map(encode_trial, trials))).decode()


def _write(folder: Path, name: str, artifact: str, text: str) -> str:
    """Write a file of a session; return its name."""
    file = make_file_name(name, artifact)
    (folder / file).write_bytes(text.encode())
    return file


def _to_yaml(value: object) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False))
