"""Manifests as today's rigs write them, and the validators of their metadata."""

import copy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree import FormatError, MissingFileError
from labtree.errors import DamageWarning, TrialDataError, UnknownNameError
from labtree.msw import (
    append_acquisition_to_session,
    append_probe_insertion,
    append_subprotocol,
    enumerate_acquisitions,
    finalize_acquisition_in_session,
    finalize_subprotocol,
    init_acquisition_manifest,
    init_session_manifest,
    init_subject_manifest,
    load_acquisition,
    load_session,
    read_manifest,
    read_subject_manifest,
    save_trial_data,
    set_manifest_metadata,
    set_subject_metadata,
    update_subject_manifest,
    validate_container,
    validate_metadata,
    validate_session,
)
from labtree.testing.msw import make_trials
from support import power_loss
from support.examples import examples

DT = "20260514_143022_123456"
NAME = f"m01__{DT}__msw__optotagging__v1"


def test_a_session_as_a_rig_writes_it(tmp_path: Path) -> None:
    container = tmp_path / "m01" / f"m01__{DT}"
    path = init_session_manifest(container, container.name)
    assert list(yaml.safe_load(path.read_text()).items()) == [
        ("msw_manifest_version", 1),
        ("msw_namespace_version", "4.3"),
        ("type", "session"),
        ("session_name", container.name),
        ("acquisitions", []),
    ]
    # A manifest that is there stays as it is.
    init_session_manifest(container, "other")
    append_acquisition_to_session(container, NAME, "2026-05-14T12:30:22+00:00")
    append_acquisition_to_session(container, NAME, "2027-01-01T00:00:00+00:00")
    running = {
        "basename": NAME,
        "started_at": "2026-05-14T12:30:22+00:00",
        "ended_at": None,
        "status": "running",
    }
    assert yaml.safe_load(path.read_text())["acquisitions"] == [running]
    folder = container / NAME
    init_acquisition_manifest(folder, NAME)
    for i, part in enumerate(("ramp1", "ramp2")):
        file = f"{NAME}_{part}.msw.df.jsonl"
        append_subprotocol(folder, part, file, barcode_start=100 + i)
        save_trial_data(make_trials(4 + i), folder / file)
        finalize_subprotocol(folder, part, 200 + i, "complete" if i else "aborted")
    assert yaml.safe_load((folder / "acquisition_manifest.yaml").read_text()) == {
        "msw_manifest_version": 1,
        "msw_namespace_version": "4.3",
        "type": "acquisition",
        "acquisition_name": NAME,
        "subprotocols": [
            {
                "name": part,
                "file": f"{NAME}_{part}.msw.df.jsonl",
                "barcode_start": 100 + i,
                "barcode_end": 200 + i,
                "status": status,
            }
            for i, (part, status) in enumerate((("ramp1", "aborted"), ("ramp2", "complete")))
        ],
    }
    finalize_acquisition_in_session(container, NAME, ended_at="2026-05-14T13:30:22+00:00")
    ended = running | {"ended_at": "2026-05-14T13:30:22+00:00", "status": "complete"}
    assert yaml.safe_load(path.read_text())["acquisitions"] == [ended]
    assert validate_container(container).is_consistent
    (session,) = load_acquisition(container)
    assert session.df["subprotocol"].tolist() == ["ramp1"] * 4 + ["ramp2"] * 5
    assert (session.acquisition_name, session.acquisition_dir) == (container.name, container)
    assert session.subprotocols[1]["barcode_start"] == 101


def test_times_are_utc_seconds_where_none_are_given(tmp_path: Path) -> None:
    append_acquisition_to_session(tmp_path, NAME)
    path = finalize_acquisition_in_session(tmp_path, NAME, "aborted")
    (entry,) = read_manifest(path)["acquisitions"]
    assert entry["status"] == "aborted"
    for key in ("started_at", "ended_at"):
        assert entry[key].endswith("+00:00")
        assert len(entry[key]) == len("2026-05-14T12:30:22+00:00")


def test_a_container_of_a_version_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    save_trial_data(make_trials(5), tmp_path / NAME / f"{NAME}.msw.df.jsonl")
    append_acquisition_to_session(tmp_path, NAME.replace("v1", "v2"))
    path = tmp_path / "session_manifest.yaml"
    path.write_text(path.read_text().replace("manifest_version: 1", "manifest_version: 7"))
    with pytest.warns(DamageWarning, match="manifest version 7, and this labtree reads 1"):
        found = enumerate_acquisitions(tmp_path)
    assert [(item.basename, item.in_manifest) for item in found] == [(NAME, False)]


def test_the_older_key_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "session_manifest.yaml"
    path.write_text("msw_manifest_version: 1\nsessions:\n- basename: x\n")
    append_acquisition_to_session(tmp_path, NAME)
    manifest = read_manifest(path)
    assert [entry["basename"] for entry in manifest["sessions"]] == ["x", NAME]
    assert "acquisitions" not in manifest


def test_what_is_brought_in_from_an_older_system(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    init_acquisition_manifest(
        folder, NAME, {"source": "legacy_matlab", "legacy_subject": "Bob"}
    )
    save_trial_data(make_trials(5), folder / f"{NAME}.msw.df.jsonl")
    session = load_session(folder)
    assert session.artifact_format == "manifest"
    assert session.is_complete
    assert session.metadata == {"source": "legacy_matlab", "legacy_subject": "Bob"}


def test_subjects_and_their_probes(tmp_path: Path) -> None:
    folder = tmp_path / "rat12_a3_left"
    path = init_subject_manifest(folder)
    manifest = read_manifest(path)
    assert manifest.pop("created_at") == manifest.pop("updated_at")
    assert manifest == {
        "msw_manifest_version": 1,
        "msw_namespace_version": "4.3",
        "type": "subject",
        "subject": "rat12_a3_left",
        "subject_fields": {"subject_id": "rat12", "animal_id": "a3", "tag_id": "left"},
    }
    append_probe_insertion(folder, {"probe": "A", "depth_mm": 3.5})
    append_probe_insertion(folder, {"probe": "B", "depth_mm": None})
    set_subject_metadata(folder, {"probes": {"rig": 2}, "diet": {"water": True}})
    set_manifest_metadata(path, {"diet": {"food": [1, 2]}})
    update_subject_manifest(folder, {"sex": "f"})
    manifest = read_manifest(path)
    assert manifest["metadata"] == {
        "probes": {
            "insertions": [{"probe": "A", "depth_mm": 3.5}, {"probe": "B", "depth_mm": None}],
            "rig": 2,
        },
        "diet": {"water": True, "food": [1, 2]},
    }
    assert manifest["sex"] == "f"
    deep = folder / f"rat12_a3_left__{DT}" / f"rat12_a3_left__{DT}__msw__t__v1"
    deep.mkdir(parents=True)
    for place in (folder, deep, deep / "x.msw.df.jsonl"):
        assert read_subject_manifest(place) == manifest
    path.unlink()
    (tmp_path / "subject_manifest.yaml").write_text("subject: of somebody above\n")
    assert read_subject_manifest(deep) is None
    # A name without fields has none in the manifest.
    assert "subject_fields" not in read_manifest(init_subject_manifest(tmp_path / "m01"))


def test_mistakes_are_errors_that_change_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no such manifest"):
        finalize_acquisition_in_session(tmp_path, NAME)
    with pytest.raises(MissingFileError, match="there is no such manifest"):
        finalize_subprotocol(tmp_path, "x")
    path = append_acquisition_to_session(tmp_path, NAME)
    whole = path.read_bytes()
    with pytest.raises(UnknownNameError, match=f"there are: '{NAME}'"):
        finalize_acquisition_in_session(tmp_path, NAME[:-1] + "2")
    with pytest.raises(FormatError, match="not a name"):
        append_acquisition_to_session(tmp_path, "../../etc")
    for file in ("../x.jsonl", "/x.jsonl", "C:\\x.jsonl", "..\\x.jsonl", "", "x.py"):
        with pytest.raises(FormatError, match="cannot be a subprotocol's"):
            append_subprotocol(tmp_path, "a", file)
    for bad in (
        {1: 2},
        {"a": (1, 2)},
        {"a": {"b": {1, 2}}},
        {"a": [Path("x")]},
        {"a": "\ud800"},
    ):
        with pytest.raises(TrialDataError, match=r"session_manifest\.yaml\['metadata'\]"):
            set_manifest_metadata(path, bad)
    assert path.read_bytes() == whole
    assert not (tmp_path / "acquisition_manifest.yaml").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "- 1\n",
        "msw_manifest_version: 2\n",
        "acquisitions: {}\n",
        "acquisitions: [x]\n",
        "",
    ],
)
def test_a_manifest_that_cannot_be_read_is_never_written_over(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "session_manifest.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"session_manifest\.yaml"):
        append_acquisition_to_session(tmp_path, NAME)
    assert path.read_text() == text
    # A tag is left out when it is read, and would be lost by a change.
    path.write_text("acquisitions: []\nx: !mine 3\n")
    with pytest.raises(FormatError, match="would be lost by a change"):
        append_acquisition_to_session(tmp_path, NAME)
    path.write_text("metadata: 3\n")
    with pytest.raises(FormatError, match="'metadata' is no mapping"):
        set_manifest_metadata(path, {"a": 1})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(150), deadline=None)
@given(metadata=st.dictionaries(st.text(), values, max_size=4))
def test_metadata_come_back_as_they_were(
    tmp_path_factory: Any, metadata: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("subject")
    path = init_subject_manifest(folder, "m01")
    try:
        set_manifest_metadata(path, metadata)
    except TrialDataError:
        # YAML has characters that it cannot hold, and these are refused.
        assert "metadata" not in read_manifest(path)
        return
    # repr, because NaN is not equal to itself.
    assert repr(read_manifest(path)["metadata"]) == repr(metadata)


def test_two_programs_that_write_to_one_manifest_lose_nothing(tmp_path: Path) -> None:
    init_subject_manifest(tmp_path, "m01")

    def add(rig: int) -> None:
        for number in range(10):
            append_probe_insertion(tmp_path, {"rig": rig, "number": number})

    threads = [threading.Thread(target=add, args=(rig,)) for rig in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_manifest(tmp_path / "subject_manifest.yaml")["metadata"]["probes"]
    pairs = [(entry["rig"], entry["number"]) for entry in found["insertions"]]
    assert sorted(pairs) == [(rig, number) for rig in range(3) for number in range(10)]


def change_probes(folder: Path) -> power_loss.Disk:
    with power_loss.record(folder) as disk:
        for number in range(3):
            disk.begin(number)
            append_probe_insertion(folder, {"number": number, "notes": "x" * 700})
            disk.acknowledge(number)
    return disk


def probes_after(crash: power_loss.Crash, folder: Path) -> bool:
    crash.write(folder)
    path = folder / "subject_manifest.yaml"
    known = -1 if crash.acknowledged is None else crash.acknowledged
    if not path.exists():
        return known == -1
    try:
        numbers = [e["number"] for e in read_manifest(path)["metadata"]["probes"]["insertions"]]
    except (FormatError, KeyError):
        return False
    return numbers in (list(range(known + 1)), list(range(known + 2)))


def test_what_was_written_outlives_a_power_cut(tmp_path: Path) -> None:
    folder = tmp_path / "m01"
    folder.mkdir()
    disk = change_probes(folder)
    for i, crash in enumerate(disk.crashes(0, 150)):
        assert probes_after(crash, tmp_path / f"after{i}")
    for missed in disk.syncs:
        careless = copy.copy(disk)
        careless.events = [event for i, event in enumerate(disk.events) if i != missed]
        crashes = enumerate(careless.crashes(1, 300))
        places = (probes_after(crash, tmp_path / f"{missed}-{i}") for i, crash in crashes)
        assert not all(places), disk.events[missed].kind


# --- validators -------------------------------------------------------------------------


VALIDATORS = """
class Probes:
    subtree = "probes"
    schema_version = "1"

    def validate(self, content):
        if content == "explode":
            raise RuntimeError("boom")
        return [] if isinstance(content, dict) else [f"expected a mapping, found {content!r}"]


class Halfway:
    subtree = "halfway"


diet = Probes()
diet.subtree = "diet"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package that registers validators."""
    site = tmp_path / "site"
    about = site / "probe_addon-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "probe_addon.py").write_text(VALIDATORS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: probe-addon\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[labtree.msw_validators]\nprobes = probe_addon:Probes\nhalfway = probe_addon:Halfway\n"
        "gone = probe_addon:missing\n[msw.metadata]\ndiet = probe_addon:diet\n"
    )
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("probe_addon", None)


def test_validators_are_found_by_their_entry_points(installed: Path) -> None:
    found = validate_metadata({"probes": 3, "diet": "salad", "other": object()})
    assert found["probes"] == ["expected a mapping, found 3"]
    assert found["diet"] == ["expected a mapping, found 'salad'"]
    assert "other" not in found
    # What cannot be used says so, whether or not there is something to check.
    for metadata in ({}, None, {"probes": {}}):
        found = validate_metadata(metadata)
        assert set(found) == {"gone", "halfway"}
        assert "cannot be loaded: AttributeError" in found["gone"][0]
        assert "lacks subtree, schema_version or validate" in found["halfway"][0]
    (message,) = validate_metadata({"probes": "explode"})["probes"]
    assert "failed: RuntimeError('boom')" in message


def test_validation_of_a_session_asks_them(installed: Path) -> None:
    folder = installed.parent / NAME
    init_acquisition_manifest(folder, NAME, {"source": "legacy_matlab", "probes": [1]})
    save_trial_data(make_trials(5), folder / f"{NAME}.msw.df.jsonl")
    result = validate_session(folder)
    assert result.passed
    assert "metadata.probes: expected a mapping, found [1]" in result.warnings
