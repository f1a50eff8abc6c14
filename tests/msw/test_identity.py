"""What a session is: by the names of its files, wherever its folder was moved."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from labtree import FormatError
from labtree.errors import DamageWarning
from labtree.msw import (
    MswSession,
    load_acquisition,
    load_session,
    load_subject,
    load_trial_data,
    parse_acquisition_basename,
    parse_container_name,
    parse_session_basename,
    save_trial_data,
    validate_session,
)
from labtree.testing.msw import ERAS, make_trials, write_session

DT = "20260619_120000_000000"


def write(folder: Path, name: str, process: str = "task: gonogo", n: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_trial_data(make_trials(n), folder / f"{name}.msw.df.jsonl")
    (folder / f"{name}.msw.session.yaml").write_text(
        f"msw_format_version: 2\nprocess: {{msw_version: '2.15', {process}}}\n"
        "task_settings: {a: 1}\n"
    )
    return folder


def identity(session: MswSession) -> tuple[str, str, str, str, str | None]:
    return (
        session.subject,
        session.task,
        session.datetime_str,
        session.acq_type,
        session.namespace_version,
    )


@pytest.mark.parametrize("era", ERAS)
def test_a_renamed_folder_changes_nothing(tmp_path: Path, era: Any) -> None:
    folder = write_session(tmp_path, era, trials=make_trials(10))
    before = load_session(folder)
    moved = tmp_path / "tuesday"
    shutil.copytree(folder, moved)
    after = load_session(moved)
    assert after.basename == before.basename == folder.name
    assert identity(after) == identity(before)
    parts = parse_session_basename(folder.name)
    assert identity(before)[1:] == (
        "probabilistic_switching", parts["datetime_str"], "msw", parts["namespace_version"],
    )  # fmt: skip
    assert after.is_complete == before.is_complete
    (found,) = load_subject(moved.parent / "tuesday", task="probabilistic_switching")
    assert found.task == "probabilistic_switching"


def test_settings_do_not_say_who_or_when(tmp_path: Path) -> None:
    name = f"m01__{DT}__gonogo"
    other = "20200101_000000_000000"
    stated = (
        f"task: other, subject: m99, datetime: '{other}', session_basename: m99__{other}__x"
    )
    session = load_session(write(tmp_path / "x", name, stated))
    assert identity(session) == ("m01", "gonogo", DT, "msw", "v1")
    warnings_ = validate_session(tmp_path / "x").warnings
    assert any("subject 'm01', the settings 'm99'" in text for text in warnings_)
    assert any("task 'gonogo', the settings 'other'" in text for text in warnings_)


@pytest.mark.parametrize(
    ("process", "task"),
    [("task: gonogo", "gonogo"), ("task_name: gonogo", "gonogo"), ("setup: rig1", "msw")],
)
def test_a_name_without_a_task_gets_that_of_the_settings(
    tmp_path: Path, process: str, task: str
) -> None:
    session = load_session(write(tmp_path / "x", f"m01__{DT}__msw__v1", process))
    assert (session.task, session.acq_type) == (task, "msw")


def test_rigs_of_2026_wrote_the_task_for_the_type(tmp_path: Path) -> None:
    name = f"m01__{DT}__sequence__v1"
    session = load_session(write(tmp_path / name, name, "task: sequence, acq_type: sequence"))
    assert (session.acq_type, session.task) == ("msw", "sequence")


def test_a_name_that_does_not_parse_says_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / f"m01__{DT}__gonogo", "notes", "task: gonogo, subject: m01")
    session = load_session(folder)
    assert session.basename == "notes"
    assert identity(session) == ("", "", "", "", None)
    result = validate_session(folder)
    assert result.passed
    assert any("'notes', which its files are named by" in text for text in result.warnings)


def test_the_session_yaml_names_the_session_before_any_other_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", f"m01__{DT}__gonogo")
    (folder / "a__20200101_000000__b.msw.events.jsonl").write_text("{}\n")
    assert load_session(folder).basename == f"m01__{DT}__gonogo"
    next(folder.glob("*.yaml")).unlink()
    assert load_session(folder).basename == "a__20200101_000000__b"
    # Without a marked file, only the folder has a name.
    plain = tmp_path / f"m02__{DT}__gonogo"
    plain.mkdir()
    (plain / "x_task_settings.py").write_text("A = 1\n")
    assert load_session(plain).subject == "m02"


def test_a_container_is_noted_where_a_session_lies_in_one(tmp_path: Path) -> None:
    name = f"m01__{DT}__msw__gonogo__v1"
    container = tmp_path / "m01" / f"m01__{DT}__training"
    folder = write(container / name, name)
    alone = write(
        tmp_path / "m01" / name.replace("gonogo", "other"), name.replace("gonogo", "x")
    )
    session = load_session(folder)
    assert (session.acquisition_name, session.acquisition_dir) == (None, None)
    assert session.session_type == "training"
    (session,) = load_acquisition(container)
    assert (session.acquisition_name, session.acquisition_dir) == (container.name, container)
    found = {s.session_dir: s.acquisition_dir for s in load_subject(tmp_path / "m01")}
    assert found == {folder: container, alone: None}
    assert {s.acquisition_dir for s in load_subject(tmp_path)} == {container, None}
    assert load_acquisition(folder)[0].acquisition_dir is None
    # Containers of 2025 had the task where a type would stand.
    old = write(tmp_path / f"m01__{DT}__session_gonogo" / name, name)
    assert load_session(old).session_type == ""


def test_the_message_shows_the_whole_name() -> None:
    for parse, name in (
        (parse_session_basename, "s__20261314_143022_123456__t"),
        (parse_acquisition_basename, "s__20260230_143022__t"),
        (parse_container_name, "s__20261314_143022_123456"),
    ):
        with pytest.raises(FormatError, match="no such moment as 2026-") as caught:
            parse(name)  # type: ignore[operator]
        assert repr(name) in str(caught.value)


# --- what is found below a subject ------------------------------------------------------


def load_quietly(base: Path, **filters: Any) -> tuple[list[str], str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_subject(base, **filters)
    return [s.basename for s in found], " ".join(str(warning.message) for warning in caught)


def test_filters_ask_the_settings_where_a_name_has_no_task(tmp_path: Path) -> None:
    names = [f"m01__2026051{i}_143022_123456__msw__v1" for i in range(4)]
    for name, process in zip(
        names, ("task: gonogo", "task: other", "a: 1", "b: 2"), strict=True
    ):
        write(tmp_path / name, name, process)
    (tmp_path / names[3] / f"{names[3]}.msw.session.yaml").write_text("a: [")
    found, told = load_quietly(tmp_path, task="gonogo")
    assert found == names[:1]
    assert not told
    assert load_quietly(tmp_path, task="msw")[0] == names[2:]
    # A name that says another task is not opened.
    named = f"m01__{DT}__sequence"
    write(tmp_path / named, named)
    (tmp_path / named / f"{named}.msw.session.yaml").write_bytes(b"\xff")
    assert load_quietly(tmp_path, task="gonogo") == (names[:1], "")


def test_folders_in_which_nothing_can_be_read_are_named(tmp_path: Path) -> None:
    good = f"m01__{DT}__gonogo"
    write(tmp_path / good, good)
    links = tmp_path / "m01__20260516_143022_123456__gonogo"
    write(links, links.name)
    renamed = tmp_path / "fetched later"
    write(renamed, "m01__20260518_143022_123456__gonogo")
    for folder in (links, renamed):
        for path in list(folder.iterdir()):
            path.unlink()
            path.symlink_to("../.git/annex/objects/" + path.name)
    (tmp_path / "m01__20260517_143022_123456__gonogo").mkdir()
    (tmp_path / f"m01__{DT}__video_flir").mkdir()
    (tmp_path / "figures").mkdir()
    found, told = load_quietly(tmp_path)
    assert found == [good]
    assert "3 of 4 sessions not loaded" in told
    assert "links to files that are not here; fetch them" in told
    assert "20260517_143022_123456__gonogo: no session" in told
    assert "video_flir" not in told
    assert "figures" not in told
    # What the filters exclude by name is not missed.
    assert "20260516" not in load_quietly(tmp_path, task="sequence")[1]
    with pytest.raises(FormatError, match="links to files that are not here"):
        load_session(links)
    # None at all is a list with what failed, not an error that hides it.
    shutil.rmtree(tmp_path / good)
    with pytest.warns(DamageWarning, match="3 of 3 sessions not loaded"):
        assert load_subject(tmp_path) == []


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = f"m01__{DT}__gonogo"
    write(tmp_path / good, good)
    closed = tmp_path / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("labtree.msw.session_folders.os.scandir", refuse)
    found, told = load_quietly(tmp_path)
    assert found == [good]
    assert f"{closed}: cannot be listed: Permission denied" in told


def test_a_trial_file_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", f"m01__{DT}__gonogo")
    path = next(folder.glob("*.jsonl"))
    target = tmp_path / ".git" / "annex" / "objects" / "content"
    target.parent.mkdir(parents=True)
    path.rename(target)
    path.symlink_to(target)
    assert load_session(folder).n_trials == 3
    target.unlink()
    with pytest.warns(DamageWarning, match=rf"{path.name}: links to files that are not here"):
        session = load_session(folder)
    assert session.df is None
    assert session.settings_task == {"a": 1}
    assert not validate_session(folder).passed


def test_annexed_files_of_a_manifest_are_read(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "subprotocols", trials=make_trials(10))
    for i, path in enumerate(sorted(folder.glob("*.jsonl"))):
        target = tmp_path / ".git" / "annex" / "objects" / str(i)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        path.symlink_to(os.path.relpath(target, folder))
    assert load_session(folder).n_trials == 10


@pytest.mark.parametrize("era", ERAS)
def test_hidden_twins_cost_nothing(tmp_path: Path, era: Any) -> None:
    folder = write_session(tmp_path, era, trials=make_trials(20))
    before = validate_session(folder)
    for path in list(folder.iterdir()):
        twin = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + b"\0" * 4000
        path.with_name("._" + path.name).write_bytes(twin)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_session(folder).n_trials == 20
    assert validate_session(folder) == before
    assert before.passed


# --- files that a crash or a person left odd ---------------------------------------------


@pytest.mark.parametrize("n_nul", [1, 4096])
def test_nul_bytes_at_the_end_are_named_and_cost_nothing(tmp_path: Path, n_nul: int) -> None:
    folder = write_session(tmp_path, trials=make_trials(5))
    path = next(folder.glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + bytes(n_nul))
    told = rf"ends in {n_nul} NUL bytes"
    with pytest.warns(DamageWarning, match=told):
        assert load_session(folder).n_trials == 5
    with pytest.warns(DamageWarning, match=told):
        assert len(load_trial_data(path)) == 5
    result = validate_session(folder)
    assert result.passed
    assert any(f"{n_nul} NUL bytes" in text for text in result.warnings)


def test_files_that_were_joined_are_read_as_one(tmp_path: Path) -> None:
    folder = write_session(tmp_path, trials=make_trials(20), with_log=False)
    path = next(folder.glob("*.jsonl"))
    path.write_bytes(path.read_bytes() * 3)
    with pytest.warns(
        DamageWarning, match="a header again on line 22; 43, so files were joined"
    ):
        session = load_session(folder)
    assert session.df["trial"].tolist() == list(range(60))
    assert "_msw_version" not in session.df
    with pytest.warns(DamageWarning, match="files were joined here"):
        assert len(load_trial_data(path)) == 60
    # A trial that has the key among others is a trial.
    path.write_bytes(path.read_bytes() + b'{"_msw_version": "1.0.0", "info": {"a": 1}}\n')
    with pytest.warns(DamageWarning):
        assert load_session(folder).n_trials == 61
    # A newer major version cannot be read wherever it begins.
    path.write_bytes(path.read_bytes() + b'{"_msw_version": "2.0.0"}\n')
    with pytest.raises(FormatError, match=r"version '2\.0\.0'"):
        load_trial_data(path)


@pytest.mark.parametrize("when", [1.8e19, float("inf"), -2e7])
@pytest.mark.parametrize("what", ["start", "state", "event"])
def test_times_that_no_session_has_fail_validation(
    tmp_path: Path, when: float, what: str
) -> None:
    trials = make_trials(6, barcode_every=0)
    if what == "start":
        trials[3]["Trial start timestamp"] = when
    elif what == "state":
        trials[3]["States timestamps"]["final"] = [(0.5, when)]
    else:
        trials[3]["Events timestamps"]["Tup"] = [when]
    folder = write_session(tmp_path, trials=trials, with_log=False)
    result = validate_session(folder)
    assert not result.passed
    names = {"start": "Trial start timestamp", "state": "state 'final'", "event": "event 'Tup'"}
    assert any(f"1 times of {names[what]} are more than 1e+07 s" in t for t in result.issues)
    assert any("more than 1e+07 s" in text for text in load_session(folder).df.msw.validate())


def test_separate_settings_have_the_keys_of_real_files(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "separate_json", trials=make_trials(5))
    process = json.loads(next(folder.glob("*.process.json")).read_text())
    assert not {"task", "session_basename", "datetime"} & process.keys()
    moved = folder.rename(tmp_path / "renamed")
    (session,) = load_subject(moved, subject="m01", since="2026-05-14")
    assert (session.task, session.datetime_str) == (
        "probabilistic_switching",
        "20260514_143022",
    )
