"""Folders of every era into sessions; partial and odd ones; many at once."""

import contextlib
import json
import os
import re
import shutil
import warnings
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import BaseModel

from labtree.errors import (
    DamageWarning,
    FormatError,
    MissingFileError,
    TrialTableError,
    UnsafePickleError,
)
from labtree.msw import (
    MswSession,
    concat_trials,
    enumerate_acquisitions,
    load_acquisition,
    load_session,
    load_subject,
    load_trial_data,
    save_trial_data,
    validate_container,
    validate_session,
)
from labtree.testing.msw import ERAS, make_trials, write_log, write_session

DT = "20260514_143022_123456"
PAGE = f"m01__{DT}__gonogo"


@pytest.mark.parametrize("era", ERAS)
def test_every_era_gives_the_same_trials(tmp_path: Path, era: Any) -> None:
    trials = make_trials(40)
    session = load_session(write_session(tmp_path, era, trials=trials))
    formats = dict.fromkeys(("2025", "2026", "subprotocols"), "session_yaml")
    assert session.artifact_format == formats.get(era, era)
    assert session.n_trials == 40
    assert session.is_complete
    assert (session.subject, session.task) == ("m01", "probabilistic_switching")
    assert session.session_type == ""
    expected = {"legacy": "legacy", "manifest": "< 1.0.0", "separate_json": "1.3.0"}
    assert session.msw_version == expected.get(era, "1.14.1")
    reference = load_session(write_session(tmp_path / "ref", trials=trials)).df
    found = session.df.drop(columns="subprotocol", errors="ignore")
    # A pickle is not rounded to four decimals.
    pd.testing.assert_frame_equal(found, reference, atol=1e-4, rtol=0)
    pd.testing.assert_frame_equal(session.df.msw.states(), reference.msw.states())
    pd.testing.assert_frame_equal(session.df.msw.events(), reference.msw.events())
    assert validate_session(session.session_dir).passed


def test_legacy_settings_are_read_not_run(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "legacy")
    path = next(folder.glob("*task_settings.py"))
    witness = tmp_path / "ran"
    path.write_text(
        f"import os\nopen({str(witness)!r}, 'w').write('ran')\n"
        "PROBABILITIES = [(10, 50), (50, 10)]\nX: int = -1\nlower = 3\n"
        "HERE = os.getcwd()\nA = B = {'k': (1,)}\n"
    )
    with pytest.warns(DamageWarning, match="HERE is no literal"):
        session = load_session(folder)
    assert not witness.exists()
    assert session.settings_task == {
        "PROBABILITIES": [(10, 50), (50, 10)],
        "X": -1,
        "A": {"k": (1,)},
        "B": {"k": (1,)},
    }


def test_manifest_subprotocols(tmp_path: Path) -> None:
    session = load_session(write_session(tmp_path, "subprotocols", trials=make_trials(30)))
    assert session.df["subprotocol"].value_counts().to_dict() == {
        "baseline": 15,
        "stimulation": 15,
    }
    assert session.df["trial"].tolist() == list(range(30))
    assert [entry["name"] for entry in session.subprotocols] == ["baseline", "stimulation"]
    brought_in = load_session(write_session(tmp_path / "old", "manifest"))
    assert brought_in.metadata == {"source": "legacy_matlab"}
    assert brought_in.subprotocols == []
    nested = load_session(session.session_dir, nested=True)
    assert nested.df["subprotocol"].tolist() == session.df["subprotocol"].tolist()


def folder_with(base: Path, files: dict[str, str | bytes], name: str = PAGE) -> Path:
    folder = base / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / file).write_bytes(data)
    return folder


LINES = b'{"_msw_version": "1.0.0"}\n{"info": {"choice": 1}}\n{"info": {"choice": -1}}\n'
YAML = "msw_format_version: 2\nprocess: {task: gonogo, subject: m01}\ntask_settings: {A: 1}\n"


# --- partial and odd folders; what the older tools did is told in each test --------------


def test_empty_and_unrelated_folders_are_errors(tmp_path: Path) -> None:
    # Were silently an empty session.
    for files in ({}, {"notes.txt": "x"}, {"holiday.pkl": b""}):
        folder = folder_with(tmp_path, files, f"x{len(files)}{next(iter(files), '')}")
        with pytest.raises(FormatError, match="no session; expected files such as"):
            load_session(folder)
        assert not validate_session(folder).passed


def test_a_pipe_that_is_called_like_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {f"{PAGE}.msw.jsonl": LINES})
    os.mkfifo(folder / f"{PAGE}.msw.session.yaml")
    os.mkfifo(folder / f"{PAGE}.msw.df.jsonl")
    (folder / f"{PAGE}.msw.settings.process.json").mkdir()
    assert load_session(folder).n_trials == 2


def test_a_container_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    folder = write_session(tmp_path)
    with pytest.raises(FormatError, match=r"a folder of sessions.*load_acquisition\("):
        load_session(folder.parent)
    (folder.parent / "session_manifest.yaml").write_text("msw_manifest_version: 1\n")
    with pytest.raises(FormatError, match="a folder of sessions"):
        load_session(folder.parent)


def test_a_missing_folder(tmp_path: Path) -> None:
    # Was an AssertionError with an empty message.
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_session(tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(MissingFileError, match="a file, not a folder"):
        load_session(tmp_path / "file")
    for load in (load_subject, load_acquisition):
        with pytest.raises(MissingFileError):
            load(tmp_path / "x")


def test_no_trials(tmp_path: Path) -> None:
    session = load_session(folder_with(tmp_path, {f"{PAGE}.msw.session.yaml": YAML}))
    assert session.df is None
    assert session.n_trials == 0
    assert not session.is_complete
    empty = folder_with(tmp_path / "2", {f"{PAGE}.msw.jsonl": LINES.split(b"\n")[0] + b"\n"})
    assert load_session(empty).df is None


@pytest.mark.parametrize("ending", [".msw.jsonl", ".msw.df.jsonl", ".df.jsonl"])
def test_trials_without_settings(tmp_path: Path, ending: str) -> None:
    # Were ignored for the first and the last of these names.
    session = load_session(folder_with(tmp_path, {PAGE + ending: LINES}))
    assert session.df["choice"].tolist() == [1, -1]
    assert not session.is_complete
    assert (session.subject, session.task, session.datetime_str) == ("m01", "gonogo", DT)


def test_task_settings_alone(tmp_path: Path) -> None:
    # Were ignored.
    session = load_session(
        folder_with(tmp_path, {f"{PAGE}.msw.settings.task.json": '{"A": 1}'})
    )
    assert session.settings_task == {"A": 1}


def test_null_task_settings_are_incomplete(tmp_path: Path) -> None:
    # Were complete.
    text = YAML.replace("{A: 1}", "null")
    session = load_session(
        folder_with(tmp_path, {f"{PAGE}.msw.session.yaml": text, f"{PAGE}.msw.jsonl": LINES})
    )
    assert session.settings_task is None
    assert not session.is_complete


@pytest.mark.parametrize(
    "broken", ["a: [", "- 1\n- 2\n", "", "\xff".encode("latin1"), "a: b: c", "x: !!int y"]
)
def test_a_broken_yaml_still_gives_the_trials(tmp_path: Path, broken: str | bytes) -> None:
    # Were a ParserError or an AttributeError.
    files = {f"{PAGE}.msw.session.yaml": broken, f"{PAGE}.msw.jsonl": LINES}
    folder = folder_with(tmp_path, files)
    with pytest.warns(DamageWarning, match=r"session\.yaml"):
        session = load_session(folder)
    assert session.n_trials == 2
    assert not session.is_complete
    assert not validate_session(folder).passed


@pytest.mark.parametrize(
    ("version", "told"),
    [("1", "1"), ("99", "99"), ("null", "None"), ("[2]", r"\[2\]")],
)
def test_settings_of_an_unknown_version_are_told(
    tmp_path: Path, version: str, told: str
) -> None:
    # Were ignored silently below 2, and read as if known above.
    text = YAML.replace("msw_format_version: 2", f"msw_format_version: {version}")
    files = {f"{PAGE}.msw.session.yaml": text, f"{PAGE}.msw.jsonl": LINES}
    with pytest.warns(DamageWarning, match=f"format version {told}, and this labtree reads 2"):
        session = load_session(folder_with(tmp_path, files))
    assert session.settings_task is None
    assert session.n_trials == 2


def test_a_version_in_quotes_is_the_version(tmp_path: Path) -> None:
    # Was a TypeError.
    text = YAML.replace(": 2", ": '2'")
    session = load_session(folder_with(tmp_path, {f"{PAGE}.msw.session.yaml": text}))
    assert session.settings_task == {"A": 1}


def test_everything_broken_is_an_error_that_tells_all(tmp_path: Path) -> None:
    files = {f"{PAGE}.msw.session.yaml": "a: [", f"{PAGE}.msw.jsonl": b"\x00\x01garbage"}
    with pytest.raises(FormatError, match=r"(?s)session\.yaml.*msw\.jsonl"):
        load_session(folder_with(tmp_path, files))


def test_corrupt_json_settings(tmp_path: Path) -> None:
    files = {
        f"{PAGE}.msw.settings.process.json": "{",
        f"{PAGE}.msw.settings.task.json": "[1]",
        f"{PAGE}.msw.df.jsonl": LINES,
    }
    with pytest.warns(DamageWarning, match=r"(?s)process\.json.*task\.json.*found a list"):
        session = load_session(folder_with(tmp_path, files))
    assert session.n_trials == 2


def test_json_settings_of_every_name(tmp_path: Path) -> None:
    files = {
        f"{PAGE}.msw.settings.process.json": '{"task": "gonogo", "msw_version": "0.9"}',
        f"{PAGE}.msw.settings": '{"OLD": 1}',
        f"{PAGE}.msw.settings.stage.json": '{"level": 2}',
        f"{PAGE}.msw.settings.camera.json": '{"fps": 30, "f": "<NoJSON:<class \'x\'>>"}',
        f"{PAGE}.msw.df.jsonl": LINES,
    }
    session = load_session(folder_with(tmp_path, files))
    assert session.settings_task == {"OLD": 1}
    assert session.settings_stage == {"level": 2}
    assert session.metadata["settings"]["camera"]["fps"] == 30
    assert session.msw_version == "0.9"
    # The new name wins over the old one, in whatever order they are listed.
    (session.session_dir / f"{PAGE}.msw.settings.task.json").write_text('{"NEW": 1}')
    assert load_session(session.session_dir).settings_task == {"NEW": 1}


def test_extra_files_are_not_taken_for_trials(tmp_path: Path) -> None:
    # The events file could be taken for the trials.
    files = {
        f"{PAGE}.msw.session.yaml": YAML,
        f"{PAGE}.msw.df.jsonl": LINES,
        f"{PAGE}.msw.events.jsonl": b'{"not": "a trial"}\n' * 9,
    }
    assert load_session(folder_with(tmp_path, files)).n_trials == 2


def test_two_trial_files_are_told(tmp_path: Path) -> None:
    files = {f"{PAGE}.msw.df.jsonl": LINES, "other.msw.df.jsonl": LINES * 2}
    with pytest.warns(DamageWarning, match=r"read m01.*, and not other\.msw\.df\.jsonl"):
        assert load_session(folder_with(tmp_path, files)).n_trials == 2


def test_rows_without_parts(tmp_path: Path) -> None:
    # One row without info was a TypeError; without all of it, the table was None.
    rows: list[Any] = [
        {"info": {"choice": 1, "rewarded": True}, "States timestamps": {"a": [(0.0, 1.0)]}},
        {"Trial start timestamp": 3.5},
        {"info": None, "States timestamps": None, "Events timestamps": {"Tup": [0.5]}},
    ]
    folder = folder_with(tmp_path, {})
    save_trial_data(rows, folder / f"{PAGE}.msw.jsonl")
    df = load_session(folder).df
    assert df["choice"].tolist() == [1, pd.NA, pd.NA]
    assert str(df["choice"].dtype) == "Int64"
    assert str(df["rewarded"].dtype) == "boolean"
    assert df.msw.visited("a").tolist() == [True, False, False]
    assert df.msw.events()["trial"].tolist() == [2]
    save_trial_data([{"Trial start timestamp": 1.0}], folder / f"{PAGE}.msw.jsonl")
    assert len(load_session(folder).df) == 1


def test_an_info_key_that_is_taken(tmp_path: Path) -> None:
    # Was a ValueError about overlapping columns.
    rows: list[Any] = [
        {
            "Trial start timestamp": 1.5,
            "trial": "x",
            "info": {"Trial start timestamp": 9, "final": 2, "trial": 7},
            "States timestamps": {"final": [(0.0, 0.5)]},
            "analysis": {"final": 3},
        }
    ]
    folder = folder_with(tmp_path, {})
    save_trial_data(rows, folder / f"{PAGE}.msw.jsonl")
    df = load_session(folder).df
    assert df["Trial start timestamp"].tolist() == [1.5]
    assert df["info.Trial start timestamp"].tolist() == [9]
    assert df["final"].tolist() == [2]
    assert df["analysis.final"].tolist() == [3]
    assert df["trial"].tolist() == [0]
    assert df["trial data.trial"].tolist() == ["x"]
    assert df["info.trial"].tolist() == [7]
    assert df.msw.state_time("final", "end").tolist() == [0.5]
    nested = load_session(folder, nested=True).df
    assert nested["States timestamps.final"].tolist() == [[(0.0, 0.5)]]


def test_states_that_make_no_sense_cost_only_themselves(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"info": {"i": 0}, "States timestamps": {"a": [[0.0, 1.0]], "b": [[1.0, 2.0]]}},
        {
            "info": {"i": 1},
            "States timestamps": {"a": "later"},
            "Events timestamps": {"E": [1]},
        },
        {"info": {"i": 2}, "States timestamps": {"a": [[0.0, 1.0], [2.0, 3.0]], "b": None}},
        {"info": {"i": 3}, "States timestamps": {"a": [0.0, 1.0]}, "Events timestamps": 5},
        {"info": {"i": 4}, "States timestamps": {"a": [[True, 1.0]]}},
    ]
    folder = folder_with(tmp_path, {})
    save_trial_data(rows, folder / f"{PAGE}.msw.jsonl")
    with pytest.warns(DamageWarning, match=r"trial 1: its 'States.*not valid") as caught:
        df = load_session(folder).df
    assert "trial 3: its 'Events timestamps'" in str(caught[0].message)
    assert "trial 4: its 'States timestamps'" in str(caught[0].message)
    states = df.msw.states()
    assert states[states["state"] == "a"]["trial"].tolist() == [0, 2, 2, 3]
    assert df["i"].tolist() == [0, 1, 2, 3, 4]


def test_hosts_and_session_types(tmp_path: Path) -> None:
    text = (
        "msw_format_version: 2\n"
        "process: {task: t, subject: s, session_type: session_old, acq_type: msw}\n"
        "host_acquisition: {acquisition_name: ephys1, port: 3}\n"
        "stage: {level: 1}\nmetadata: {a: 1}\n"
    )
    session = load_session(folder_with(tmp_path, {f"{PAGE}.msw.session.yaml": text}))
    assert session.is_ephys
    assert session.host_session_name == "ephys1"
    assert session.settings_ephys == {"session_name": "ephys1", "port": 3}
    assert session.settings_stage == {"level": 1}
    assert session.session_type == ""
    (session.session_dir / f"{PAGE}.msw.session.yaml").write_text(
        "msw_format_version: 2\nhost_session: {}\ntask_settings: 3\n"
    )
    with pytest.warns(DamageWarning, match="'task_settings' is a int"):
        session = load_session(session.session_dir)
    assert not session.is_ephys
    assert session.host_session_name is None


# --- manifests --------------------------------------------------------------------------


def manifest(*entries: dict[str, Any], **more: Any) -> str:
    content = {"msw_manifest_version": 1, "type": "acquisition", "subprotocols": list(entries)}
    return yaml.safe_dump(content | more)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("../outside.jsonl", "leaves the session's folder"),
        ("a/../../outside.jsonl", "leaves the session's folder"),
        ("..\\outside.jsonl", "leaves the session's folder"),
        ("C:\\outside.jsonl", "leaves the session's folder"),
        ("link.jsonl", "leaves the session's folder"),
        ("part.txt", "neither .jsonl nor .pkl"),
        ("gone.jsonl", "is missing"),
        ("", "is no path"),
        (None, "is no path"),
        (5, "is no path"),
        ("a\0.jsonl", "is no path"),
    ],
)
def test_manifest_paths_stay_inside(tmp_path: Path, file: Any, told: str) -> None:
    (tmp_path / "outside.jsonl").write_bytes(LINES)
    entries = [{"name": "bad", "file": file}, {"name": "good", "file": "part.jsonl"}]
    files = {
        "acquisition_manifest.yaml": manifest(*entries),
        "part.jsonl": LINES,
        "part.txt": LINES,
    }
    folder = folder_with(tmp_path, files)
    (folder / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    with pytest.warns(DamageWarning, match=told):
        session = load_session(folder)
    assert session.df["subprotocol"].tolist() == ["good", "good"]


def test_an_absolute_manifest_path(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(LINES)
    text = manifest({"name": "bad", "file": str(outside)})
    with pytest.warns(DamageWarning, match="leaves the session's folder"):
        session = load_session(folder_with(tmp_path, {"acquisition_manifest.yaml": text}))
    assert session.df is None


def test_manifest_oddities(tmp_path: Path) -> None:
    text = manifest({"name": "x"}, metadata={"a": 1, "b": 1})
    folder = folder_with(tmp_path, {"acquisition_manifest.yaml": text})
    # A subprotocol without a file was a KeyError.
    with pytest.warns(DamageWarning, match="file None is no path"):
        load_session(folder)
    (folder / "session_manifest.yaml").write_text(
        yaml.safe_dump({"msw_manifest_version": 1, "metadata": {"a": 0, "s": 0}})
    )
    (folder / f"{PAGE}.msw.session.yaml").write_text(
        "msw_format_version: 2\nmetadata: {b: 2}\n"
    )
    with pytest.warns(DamageWarning):
        session = load_session(folder)
    # The session wins over the acquisition, and that over the container.
    assert session.metadata == {"a": 1, "b": 2, "s": 0}
    (folder / "acquisition_manifest.yaml").write_text(manifest(msw_manifest_version=7))
    with pytest.warns(DamageWarning, match="manifest version 7, and this labtree reads 1"):
        load_session(folder)
    (folder / "acquisition_manifest.yaml").write_text("subprotocols: {a: 1}\n")
    with pytest.warns(DamageWarning, match="no list of mappings"):
        load_session(folder)


def test_subprotocols_with_different_columns(tmp_path: Path) -> None:
    entries = [{"name": "a", "file": "a.jsonl"}, {"name": "b", "file": "b.jsonl"}]
    folder = folder_with(tmp_path, {"acquisition_manifest.yaml": manifest(*entries)})
    row = {"Trial start timestamp": 1.5, "States timestamps": {"s": [(0.0, 1.0)]}}
    save_trial_data([row | {"info": {"flag": True, "n": 1, "w": "x"}}], folder / "a.jsonl")
    row = {"Trial start timestamp": 2.5, "States timestamps": {"s": [(2.5, 3.0)]}}
    save_trial_data([row | {"info": {"f": 0.5}}, row], folder / "b.jsonl")
    df = load_session(folder).df
    dtypes = df.dtypes.astype(str).to_dict()
    assert (dtypes["flag"], dtypes["n"], dtypes["f"]) == ("boolean", "Int64", "float64")
    assert df["w"].tolist()[0] == "x"
    # One file counts from the trial, the other from the session.
    assert df.msw.state_time("s").tolist() == [0.0, 0.0, 0.0]
    assert df.msw.state_time("s", clock="session").tolist() == [1.5, 2.5, 2.5]


# --- restoring from the log -------------------------------------------------------------


@pytest.mark.parametrize("clock", ["trial", "session"])
@pytest.mark.parametrize("log_clock", ["trial", "session"])
@pytest.mark.parametrize("lost", [5, 29])
def test_a_cut_trial_is_restored_from_the_log(
    tmp_path: Path, clock: Any, log_clock: Any, lost: int
) -> None:
    trials = make_trials(30, clock=clock)
    folder = write_session(tmp_path, trials=trials)
    write_log(make_trials(30, clock=log_clock), next(folder.glob("*.msw.csv")))
    whole = load_session(folder)
    path = next(folder.glob("*.jsonl"))
    lines = path.read_bytes().split(b"\n")
    lines[lost + 1] = lines[lost + 1][:80]
    path.write_bytes(b"\n".join(lines[: lost + 2]) if lost == 29 else b"\n".join(lines))
    with pytest.warns(DamageWarning, match="1 trials restored from the log"):
        session = load_session(folder)
    assert session.n_trials == 30
    assert session.df["restored_from_log"].tolist() == [i == lost for i in range(30)]
    for ours, theirs in (
        (session.df.msw.states(), whole.df.msw.states()),
        (session.df.msw.events(), whole.df.msw.events()),
    ):
        ours, theirs = (
            ours.astype({ours.columns[1]: str}),
            theirs.astype({ours.columns[1]: str}),
        )
        pd.testing.assert_frame_equal(ours, theirs, atol=2e-4)
    for name in ("Trial start timestamp", "Trial end timestamp"):
        np.testing.assert_allclose(session.df[name], whole.df[name], atol=1e-4)
    # What only the trial file knew is missing, not made up.
    assert session.df["trial_index"].isna().tolist() == [i == lost for i in range(30)]


def test_a_log_that_disagrees_restores_nothing(tmp_path: Path) -> None:
    folder = write_session(tmp_path, trials=make_trials(20))
    write_log(make_trials(20, seed=9), next(folder.glob("*.msw.csv")))
    path = next(folder.glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(DamageWarning, match="1 of 20 trials cannot be read"):
        assert load_session(folder).n_trials == 19
    issues = validate_session(folder).issues
    assert any("20 trials that ended, its trial file 19" in text for text in issues)


@pytest.mark.parametrize("clock", ["trial", "session"])
@pytest.mark.parametrize("left", ["nothing", "garbage", "one cut line", "the header"])
def test_a_log_alone_gives_what_it_has(tmp_path: Path, clock: Any, left: str) -> None:
    trials = make_trials(20, clock=clock)
    folder = write_session(tmp_path, trials=trials)
    whole = load_session(folder).df
    path = next(folder.glob("*.jsonl"))
    if left == "nothing":
        path.unlink()
    else:
        path.write_bytes(b"\x01garbage\n" if left == "garbage" else path.read_bytes()[:90])
    if left == "the header":
        path.write_bytes(path.read_bytes()[:26])
    with pytest.warns(DamageWarning, match="20 trials restored from the log, for want of"):
        df = load_session(folder).df
    assert df["restored_from_log"].all()
    ours, theirs = df.msw.states("session"), whole.msw.states("session")
    ours, theirs = ours.astype({"state": str}), theirs.astype({"state": str})
    pd.testing.assert_frame_equal(ours, theirs, atol=2e-4)
    with pytest.warns(DamageWarning):
        assert len(load_session(folder, nested=True).df) == 20


# --- models -----------------------------------------------------------------------------


def test_json_both_ways(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "legacy")
    session = load_session(folder)
    session.settings_task = {
        "tuple": (1, (2.5, None)),
        "nan": float("nan"),
        "inf": -float("inf"),
        1: "integer key",
        "__tuple__": [1],
        "deep": {"__items__": [[1, 2]], "x": {"__tuple__": (1,)}},
    }
    text = session.model_dump_json()
    assert "Bpod" not in text
    again = MswSession.model_validate_json(text)
    assert again.df is None
    assert BaseModel.__repr__(again) == BaseModel.__repr__(session)
    again.df = session.df
    assert again == session
    assert json.loads(json.dumps(MswSession.model_json_schema()))["properties"]["settings_task"]


def test_equality(tmp_path: Path) -> None:
    folder = write_session(tmp_path)
    a, b = load_session(folder), load_session(folder)
    # Was a ValueError.
    assert a == b
    b.df = b.df.iloc[1:]
    assert a != b
    b.df = None
    assert a != b
    assert a != "x"


def test_fields_and_dict(tmp_path: Path) -> None:
    session = load_session(write_session(tmp_path))
    assert session.n_trials == len(session.df) == 100
    assert session.to_dict()["df"] is session.df
    assert session.to_dict()["subject"] == "m01"
    assert session.acquisition_dir is None
    with pytest.raises(ValueError, match="artifact_format"):
        session.artifact_format = "other"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="expected a DataFrame or None, found a list"):
        session.df = []
    with pytest.raises(ValueError, match="extra"):
        MswSession(**session.to_dict(), extra=1)
    renamed = load_session(session.session_dir, acquisition_name="x", acquisition_dir=tmp_path)
    assert (renamed.acquisition_name, renamed.acquisition_dir) == ("x", tmp_path)


# --- many sessions ----------------------------------------------------------------------


def study(base: Path) -> Path:
    for subject in ("m01", "m02"):
        for day in (13, 14, 15):
            for task in ("sequence", "probabilistic_switching"):
                write_session(
                    base,
                    subject=subject,
                    task=task,
                    trials=make_trials(8, task=task, seed=day),  # type: ignore[arg-type]
                    datetime_str=f"202605{day}_143022_00000{len(task) % 2}",
                )
    return base


def test_filters_open_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = study(tmp_path)
    assert len(load_subject(base)) == 12
    sessions = load_subject(base / "m01")
    assert len(sessions) == 6
    assert [s.datetime_str for s in sessions] == sorted(s.datetime_str for s in sessions)
    for path in base.rglob("*.jsonl"):
        if "20260514" not in path.name or "sequence" not in path.name:
            path.write_bytes(b"opened")
    for since, until in (
        ("2026-05-14", "2026-05-14"),
        (date(2026, 5, 14), date(2026, 5, 14)),
        (datetime(2026, 5, 14, 14, 30, 22), "2026-05-14T14:30:23"),
    ):
        found = load_subject(base, task="sequence", subject="m02", since=since, until=until)
        assert [s.subject for s in found] == ["m02"]
        assert not found.failed
    assert len(load_subject(base, until="2026-05-12")) == 0
    assert len(load_subject(base, since="2026-05-14T14:31", until="2026-05-14")) == 0
    with pytest.raises(FormatError, match="write it as '2026-05-14'"):
        load_subject(base, since="14.5.2026")
    for since in ("2026-05-14T14:31+02:00", datetime(2026, 5, 14, 14, 31, tzinfo=UTC)):
        with pytest.raises(
            FormatError, match=r"rig's local time.* '?2026-05-14T14:31'?, without"
        ):
            load_subject(base, since=since)


def test_copies_of_a_file_do_not_take_its_place(tmp_path: Path) -> None:
    folder = write_session(tmp_path, trials=make_trials(20))
    for path in list(folder.iterdir()):
        copy = path.with_name(path.name.replace(".msw.", " (1).msw."))
        copy.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(DamageWarning, match=r"\(1\)\.msw") as caught:
        found = load_session(folder)
    assert found.n_trials == 20
    assert found.is_complete
    assert found.basename == folder.name
    assert re.search(r"read \S+switching\.msw\.jsonl, and not", str(caught[0].message))


def test_links_give_no_session_twice(tmp_path: Path) -> None:
    folder = study(tmp_path) / "m01"
    (folder / "loop").symlink_to(folder)
    (folder / "again").symlink_to(next(folder.glob("*/*")))
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    assert len(load_subject(folder)) == 6


@pytest.mark.parametrize("workers", [1, 4])
def test_failures_are_told_and_cost_nothing_else(tmp_path: Path, workers: int) -> None:
    base = study(tmp_path)
    broken = next((base / "m01").glob("*/*20260514*sequence"))
    for path in broken.iterdir():
        path.write_bytes(b"\x00broken")
    odd = base / "m01" / "odd name"
    shutil.copytree(next((base / "m02").glob("*/*sequence")), odd)
    for path in odd.iterdir():
        path.rename(odd / ("notes.msw." + path.name.partition(".msw.")[2]))
    with pytest.warns(DamageWarning, match="1 of 7 sessions not loaded") as caught:
        sessions = load_subject(base / "m01", workers=workers)
    assert str(broken) in str(caught[0].message)
    assert len(sessions) == 6
    assert list(sessions.failed) == [broken]
    assert isinstance(sessions.failed[broken], FormatError)
    # A name that the filters cannot judge is told, not passed over.
    with pytest.warns(DamageWarning, match="filters cannot be applied"):
        sessions = load_subject(base / "m01", task="sequence", workers=workers)
    assert odd in sessions.failed
    with pytest.raises(FormatError, match="workers=0"):
        load_subject(base / "m02", workers=0)


def test_all_trials_in_one_table(tmp_path: Path) -> None:
    sessions = load_subject(study(tmp_path) / "m01")
    df = sessions.trials()
    assert len(df) == 48
    assert df["trial"].is_unique
    for session in sessions:
        part = df[df["session"] == session.basename]
        ours = part.msw.states().drop(columns="trial")
        theirs = session.df.msw.states().drop(columns="trial")
        for table in (ours, theirs):
            table["state"] = table["state"].astype(str)
        pd.testing.assert_frame_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"write concat_trials\(\{name: session.df, ...\}\)"):
        concat_trials([pd.DataFrame()])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no trial tables"):
        type(sessions)().trials()


def test_a_folder_without_sessions(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for load in (load_subject, load_acquisition):
        with pytest.raises(FormatError, match="no session in it"):
            load(tmp_path)


def test_containers(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "2026")
    container = folder.parent
    (container / f"m01__{DT}__video_flir__v1").mkdir()
    (container / f"m01__{DT}__pxi__v1").mkdir()
    (container / "scratch").mkdir()
    gone = f"m01__{DT}__msw__other__v2"
    entries = [
        {"basename": folder.name, "status": "complete"},
        {"basename": gone, "status": "aborted"},
        {"basename": "../../etc"},
        "text",
    ]
    (container / "session_manifest.yaml").write_text(
        yaml.safe_dump({"msw_manifest_version": 1, "acquisitions": entries})
    )
    with pytest.warns(DamageWarning, match=r"(?s)entry is left out: '\.\./\.\./etc'.*'None'"):
        found = enumerate_acquisitions(container)
    kinds = {item.basename: (item.kind, item.on_disk, item.status) for item in found}
    assert kinds == {
        folder.name: ("session", True, "complete"),
        gone: ("session", False, "aborted"),
        f"m01__{DT}__video_flir__v1": ("camera", True, None),
        f"m01__{DT}__pxi__v1": ("recording", True, None),
    }
    with pytest.warns(DamageWarning):
        report = validate_container(container)
    assert report.in_manifest_not_on_disk == (gone,)
    assert len(report.on_disk_not_in_manifest) == 2
    assert not report.is_consistent
    with pytest.warns(DamageWarning, match="the manifest names it, and it is not there"):
        sessions = load_acquisition(container)
    assert [s.basename for s in sessions] == [folder.name]
    # A session's own folder works too, and so does an older manifest.
    assert len(load_acquisition(folder)) == 1
    (container / "session_manifest.yaml").write_text(
        yaml.safe_dump({"sessions": [{"session_dir": folder.name}]})
    )
    assert [
        i.in_manifest for i in enumerate_acquisitions(container) if i.kind == "session"
    ] == [True]
    with pytest.raises(MissingFileError):
        enumerate_acquisitions(container / "x")


def test_validation_names_what_is_missing_and_what_disagrees(tmp_path: Path) -> None:
    folder = write_session(tmp_path, subject="m01")
    other = folder.with_name(folder.name.replace("m01", "m99"))
    folder.rename(other)
    settings = next(other.glob("*.yaml"))
    settings.write_text(settings.read_text().replace("subject: m01", "subject: m02"))
    result = validate_session(other)
    assert result.passed
    assert any("subject 'm01', the settings 'm02'" in text for text in result.warnings)
    assert any(f"its files are named {folder.name!r}" in text for text in result.warnings)
    assert "trials: 100" in str(result)
    text = settings.read_text()
    settings.write_text(text[: text.index("task_settings")])
    (issue,) = validate_session(other).issues
    assert "settings.task missing; expected the section task_settings" in issue
    settings.unlink()
    issues = validate_session(other).issues
    assert ["settings.task" in issues[0], "settings.process" in issues[1]] == [True, True]
    next(other.glob("*.jsonl")).unlink()
    issues = validate_session(other).issues
    assert any("restored from the log" in issue for issue in issues)
    next(other.glob("*.csv")).unlink()
    settings.write_text(text)
    (issue,) = validate_session(other).issues
    assert "trials missing; expected a *.msw.df.jsonl file" in issue


# --- nested -----------------------------------------------------------------------------


def test_the_nested_layout(tmp_path: Path) -> None:
    trials = make_trials(25)
    folder = write_session(tmp_path, trials=trials)
    df = load_session(folder, nested=True).df
    infos = list(dict.fromkeys(key for trial in trials for key in trial["info"]))
    states = list(dict.fromkeys(key for t in trials for key in t["States timestamps"]))
    events = list(dict.fromkeys(key for t in trials for key in t["Events timestamps"]))
    assert list(df.columns) == [
        "Bpod start timestamp",
        "Trial start timestamp",
        "Trial end timestamp",
        *infos,
        *states,
        *events,
    ]
    rows = load_trial_data(next(folder.glob("*.jsonl")))
    for i, row in enumerate(rows):
        for name, visits in row["States timestamps"].items():
            assert repr(df[name][i]) == repr(visits)
    # An absent state is NaN, and the measures work from this layout too.
    assert df["ttl_on"].isna()[0]
    flat = load_session(folder).df
    for ours, theirs in (
        (df.msw.states("session"), flat.msw.states("session")),
        (df.msw.events(), flat.msw.events()),
    ):
        column = ours.columns[1]
        left, right = ours.astype({column: str}), theirs.astype({column: str})
        pd.testing.assert_frame_equal(left, right)
    assert df.msw.reaction_time().equals(flat.msw.reaction_time())


def test_a_pickle_of_the_nested_layout(tmp_path: Path) -> None:
    trials = make_trials(25)
    reference = load_session(write_session(tmp_path, trials=trials))
    nested = load_session(reference.session_dir, nested=True)
    folder = folder_with(tmp_path / "old", {f"{PAGE}_task_settings.py": "A = 1\n"})
    nested.df.to_pickle(folder / f"{PAGE}.pkl")
    session = load_session(folder)
    assert session.artifact_format == "legacy"
    # In that layout, integers with holes had become floats before they were pickled.
    whole = reference.df.dtypes[reference.df.dtypes == "Int64"].index
    pd.testing.assert_frame_equal(session.df, reference.df.astype(dict.fromkeys(whole, float)))
    ours, theirs = session.df.msw.states(), reference.df.msw.states()
    pd.testing.assert_frame_equal(ours.astype({"state": str}), theirs.astype({"state": str}))


def test_a_hostile_pickle_beside_good_trials_is_never_opened(tmp_path: Path) -> None:
    folder = write_session(tmp_path, with_log=False)
    touch = f"touch {tmp_path / 'ran'}".encode("raw-unicode-escape")
    bomb = b"cposix\nsystem\n(V" + touch + b"\ntR."
    (folder / f"{folder.name}.msw.df.pkl").write_bytes(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_session(folder).n_trials == 100
    next(folder.glob("*.jsonl")).unlink()
    with pytest.warns(DamageWarning, match=r"asks for posix\.system"):
        session = load_session(folder)
    assert session.df is None
    entry = {"name": "x", "file": f"{folder.name}.msw.df.pkl"}
    (folder / "acquisition_manifest.yaml").write_text(manifest(entry))
    with pytest.warns(DamageWarning, match=r"asks for posix\.system"):
        load_session(folder)
    only = folder_with(tmp_path / "only", {f"{PAGE}.msw.df.pkl": bomb})
    with pytest.raises(FormatError, match="nothing of it was run"):
        load_session(only)
    assert not (tmp_path / "ran").exists()
    assert issubclass(UnsafePickleError, FormatError)


def test_text_with_a_lone_surrogate_costs_no_trial(tmp_path: Path) -> None:
    trials = make_trials(4)
    trials[1]["info"]["remark"] = "a\ud800"
    trials[2]["info"]["name\udc00"] = 3
    folder = write_session(tmp_path, trials=trials, with_log=False)
    df = load_session(folder).df
    assert df is not None
    assert df["remark"].tolist()[1] == "a\ud800"
    assert df["remark"].isna().tolist() == [True, False, True, True]
    assert df["name\udc00"].tolist()[2] == 3
    assert len(df.msw.states()) == sum(
        start == start
        for trial in trials
        for visits in trial["States timestamps"].values()
        for start, _ in visits
    )
    # Arrow, where pandas has it, holds no such text, and nested cells have no other column.
    with contextlib.suppress(TrialTableError):
        nested = load_session(folder, nested=True).df
        assert nested is not None
        assert nested["remark"].tolist()[1] == "a\ud800"
