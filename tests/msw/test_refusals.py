"""What mouse sessions refuse, or leave out, is named with the place and what was expected."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from labtree.errors import (
    DamageWarning,
    FormatError,
    MissingFileError,
    TrialTableError,
    UnknownNameError,
)
from labtree.msw import (
    append_probe_insertion,
    enumerate_acquisitions,
    init_acquisition_manifest,
    init_subject_manifest,
    load_camera_acquisition,
    load_session,
    load_subject,
    load_trial_tables,
    save_trial_tables,
    set_subject_metadata,
    trials_to_frame,
)
from labtree.msw.settings import read_json, read_yaml
from labtree.msw.trial_times import ATTRIBUTE
from labtree.testing.msw import make_trials, write_session

CONTAINER = "m01__20260514_143022_123456"


@pytest.mark.parametrize(
    "load", [load_session, enumerate_acquisitions, load_camera_acquisition]
)
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, load: Any) -> None:
    path = tmp_path / "day.txt"
    path.touch()
    with pytest.raises(MissingFileError, match=r"day\.txt: a file, not a folder"):
        load(path)
    with pytest.raises(MissingFileError, match=r"day\.tx: no such folder.*day\.txt"):
        load(tmp_path / "day.tx")


@pytest.mark.parametrize(
    ("name", "marker", "function"),
    [
        ("subject", None, "load_subject"),
        ("box", "session_manifest.yaml", "load_acquisition"),
        (CONTAINER, None, "load_acquisition"),
    ],
)
def test_a_folder_of_sessions_is_no_session(
    tmp_path: Path, name: str, marker: str | None, function: str
) -> None:
    session = write_session(tmp_path / "made", trials=make_trials(3))
    folder = tmp_path / name
    folder.mkdir()
    session.rename(folder / session.name)
    if marker is not None:
        (folder / marker).write_text("type: session\n")
    with pytest.raises(FormatError, match=f"a folder of sessions.*labtree.msw.{function}"):
        load_session(folder)


@pytest.mark.parametrize("what", ["subject", "task"])
def test_a_subject_or_task_of_no_session_lists_those_that_there_are(
    tmp_path: Path, what: str
) -> None:
    write_session(tmp_path, trials=make_trials(3))
    there = {"subject": "m01", "task": "probabilistic_switching"}[what]
    with pytest.raises(UnknownNameError, match=f"no {what} 'x' in these.*'{there}'"):
        load_subject(tmp_path, **{what: "x"})


def test_a_damaged_manifest_of_a_container_costs_only_the_manifest(tmp_path: Path) -> None:
    folder = write_session(tmp_path, trials=make_trials(3)).parent
    (folder / "session_manifest.yaml").write_text("acquisitions: [")
    with pytest.warns(DamageWarning, match=r"session_manifest\.yaml: not YAML"):
        (found,) = enumerate_acquisitions(folder)
    assert (found.on_disk, found.in_manifest, found.is_complete) == (True, False, True)


def test_a_pickled_table_of_anything_else_is_no_trial_file(tmp_path: Path) -> None:
    folder = tmp_path / "m01__20260514_143022__gonogo"
    folder.mkdir()
    pd.DataFrame({"animal": [1], "weight": [20.5]}).to_pickle(folder / "a.df.pkl")
    (folder / "a_task_settings.py").write_text("X = 1\n")
    with pytest.warns(DamageWarning, match=r"a table, but not of trials.*animal, weight"):
        assert load_session(folder).df is None


def test_settings_that_are_nested_too_deeply(tmp_path: Path) -> None:
    deep = "[" * 150 + "]" * 150
    (tmp_path / "a.yaml").write_text(f"a: {deep}")
    (tmp_path / "a.json").write_text(json.dumps({"a": json.loads(deep)}))
    for read, name in ((read_yaml, "a.yaml"), (read_json, "a.json")):
        with pytest.raises(FormatError, match=f"{name}: unfolds to more than .* 100 levels"):
            read(tmp_path / name)


def test_entries_of_manifests_that_cannot_be(tmp_path: Path) -> None:
    entry = {"name": "warmup", "file": "../warmup.jsonl"}
    with pytest.raises(FormatError, match=r"'\.\./warmup\.jsonl' cannot be a subprotocol's"):
        init_acquisition_manifest(tmp_path / "a", "a", subprotocols=[entry])
    assert not (tmp_path / "a").exists()
    init_subject_manifest(tmp_path, "m01")
    set_subject_metadata(tmp_path, {"probes": "none"})
    with pytest.raises(FormatError, match=r"'metadata\.probes' is no mapping"):
        append_probe_insertion(tmp_path, {"probe": "A"})


def test_block_values_that_are_no_pairs() -> None:
    info = {"trial_type": "task", "choice": 1, "block_type_values": [1, 2, 3]}
    with pytest.raises(TrialTableError, match=r"should be a pair \[left, right\]"):
        trials_to_frame([{"info": info}]).msw.switch_curve()


def test_exported_tables_that_do_not_belong_together(tmp_path: Path) -> None:
    df = trials_to_frame(make_trials(5))
    with pytest.raises(TrialTableError, match="the column 'trial', which says whose"):
        save_trial_tables(df.drop(columns="trial"), tmp_path / "a.csv")
    table, states, _, _ = save_trial_tables(df, tmp_path / "a.csv")
    whole = states.read_text()

    def refused(match: str) -> None:
        with pytest.raises(FormatError, match=match):
            load_trial_tables(table)

    lines = whole.splitlines()
    states.write_text("\n".join([lines[0], "9" + lines[1][1:], *lines[2:]]) + "\n")
    refused("trials that the table does not have")
    name = lines[1].split(",")[1]
    states.write_text(whole.replace(f",{name},", ",elsewhere,", 1))
    refused("names that states of these trials do not have")
    states.write_text(whole)
    text = table.read_text()
    header, first, *rest = text.splitlines()
    at = header.split(",").index("trial")
    cells = first.split(",")
    cells[at] = "-1"
    table.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    refused("does not number trials from 0")


def test_what_a_table_carries_is_itself_when_copied_and_equal_when_pickled() -> None:
    held = trials_to_frame(make_trials(5)).attrs[ATTRIBUTE]
    other = trials_to_frame(make_trials(5)).attrs[ATTRIBUTE]
    assert copy.copy(held) is held
    assert copy.deepcopy(held) is held
    again = pickle.loads(pickle.dumps(held))
    assert again == held
    assert (again != held) is False  # a dict has a comparison of its own for this
    assert held != other
    np.testing.assert_array_equal(again.states.values, held.states.values)
