"""The command line: what it prints, its exit codes, its one-line errors."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import labtree
from labtree import cli
from labtree.storage.catalogue import catalogue_of, write_catalogue
from labtree.testing.recordings import record_emg
from support.exactness import assert_same


@pytest.fixture
def study(tmp_path):
    tree = labtree.create_workspace("study")
    tree.ws.store("rec1", "rates", np.arange(6.0).reshape(2, 3), note="two units")
    tree.ws.store("rec1", "a/b", {"threshold": -4.5})
    tree.ws.store("rec2", "rates", np.zeros(4, "f4"))
    return tree.ws.save(tmp_path / "study")


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_ls_lists_items_with_shape_and_note(study, capsys):
    code, out, err = run(capsys, "ls", study)
    assert (code, err) == (0, "")
    lines = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", line) for line in out.splitlines()]
    assert lines == [
        "rec1/rates  ndarray  2 × 3 float64  48 B  DATE  two units",
        "rec1/a/b    dict     threshold            DATE",
        "rec2/rates  ndarray  4 float32      16 B  DATE",
    ]


def test_ls_json_is_what_describe_gives(study, capsys):
    _, out, _ = run(capsys, "ls", "--json", study.with_suffix(""))
    with labtree.open_workspace(study) as tree:
        assert json.loads(out) == tree.ws.describe()


def test_info_of_a_file_and_of_items_whose_names_hold_slashes(study, capsys):
    code, out, _ = run(capsys, "info", study)
    assert code == 0
    assert "labtree workspace 'study'" in out
    _, out, _ = run(capsys, "info", "--json", study)
    about = json.loads(out)
    assert about["name"] == "study"
    assert about["namespaces"] == {"rec1": 2, "rec2": 1}
    assert about["bytes"] == study.stat().st_size
    _, out, _ = run(capsys, "info", study, "rec1/rates")
    assert "shape: 2, 3" in out
    assert "xarray.Dataset" in out
    _, out, _ = run(capsys, "info", "--json", study, "rec1/a/b")
    assert json.loads(out)["type"] == "dict"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("rec1/nothing", "no key 'nothing' in namespace 'rec1'; there are: 'rates', 'a/b'"),
        (
            "rec9/rates",
            "no namespace 'rec9' in this workspace; there are: 'rec1', 'rec2'. "
            "Did you mean 'rec2'?",
        ),
        (
            "rates",
            "no namespace 'rates' (there are: 'rec1', 'rec2'); of an item write NAMESPACE/KEY",
        ),
    ],
)
def test_info_of_what_is_not_there_says_what_is(study, capsys, item, words):
    code, out, err = run(capsys, "info", study, item)
    assert (code, out) == (1, "")
    assert err == f"labtree: {words}\n"


def test_verify_finds_nothing_in_a_good_file_and_the_item_in_a_damaged_one(study, capsys):
    code, out, _ = run(capsys, "verify", study)
    assert code == 0
    assert out.startswith(f"{study}: everything can be read, nothing is wrong; ")
    assert re.search(r"; \d+ arrays checked by their checksums\n$", out)
    data = bytearray(study.read_bytes())
    place = data.index(np.arange(6.0).tobytes())
    data[place + 10] ^= 1
    study.write_bytes(data)
    code, out, _ = run(capsys, "verify", "--json", study)
    assert code == 1
    (problem,) = json.loads(out)["problems"]
    assert problem.startswith("/rec1/rates/data: ")
    assert "checksum" in problem


def test_compact_writes_workspaces_anew_and_nothing_else(study, tmp_path, capsys):
    tree = labtree.open_workspace(study)
    tree.ws.store("rec1", "large", np.arange(50_000.0))
    tree.ws.save()
    tree.ws.delete("rec1", "large")
    tree.ws.save()
    expected = {item: tree.ws.get(*item) for item in tree.ws}
    tree.close()
    before = study.stat().st_size
    assert before > 400_000
    code, out, err = run(capsys, "compact", "--json", study)
    after = study.stat().st_size
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"path": str(study), "before": before, "after": after}]
    assert after < 100_000
    with labtree.load_workspace(study) as tree:
        assert_same({item: tree.ws.get(*item) for item in tree.ws}, expected)
    code, out, _ = run(capsys, "compact", study)
    assert re.fullmatch(r".*study.h5: [\d.]+ kB before, [\d.]+ kB now\n", out)

    code, _, err = run(capsys, "compact", tmp_path / "studie.h5")
    assert code == 1
    assert "no file of a workspace" in err
    assert "study.h5" in err
    assert not (tmp_path / "studie.h5").exists()
    foreign = tmp_path / "foreign.nc"
    foreign.write_bytes(b"CDF\x01")
    code, _, err = run(capsys, "compact", foreign)
    assert code == 1
    assert foreign.read_bytes() == b"CDF\x01"


def test_verify_sees_damage_in_what_only_hdf5_reads(study, capsys):
    data = study.read_bytes()
    place = data.index(b"threshold")  # in the attribute; the catalogue has it once more
    study.write_bytes(data[:place] + b"THRESHOLD" + data[place + 9 :])
    code, out, _ = run(capsys, "verify", study)
    assert code == 1
    assert "metadata checksum" in out


def test_verify_sees_a_catalogue_that_tells_otherwise_than_the_file(study, capsys):
    with study.open("rb") as file:
        found = catalogue_of(file.fileno(), study)
    records = found.records()
    records[2]["attrs"]["labtree_note"] = "another note"
    records[3]["variables"] = []
    write_catalogue(study, found.header, records[:-1], found.values)
    code, out, _ = run(capsys, "verify", study)
    assert code == 1
    assert out.splitlines() == [
        "/rec1/rates: attributes differ between catalogue and file",
        "/rec2/rates: only in the file",
    ]


def test_verify_of_a_file_that_is_cut_short(study, capsys):
    study.write_bytes(study.read_bytes()[:3000])
    code, out, err = run(capsys, "verify", study)
    assert code == 1
    assert "cut short or damaged" in out + err


def test_merge_into_a_new_and_into_an_old_file(study, tmp_path, capsys):
    other = labtree.create_workspace()
    other.ws.store("rec1", "rates", np.ones(2))
    other.ws.store("rec3", "note", "text")
    other.ws.save(tmp_path / "other.h5")
    code, out, _ = run(capsys, "merge", tmp_path / "all", study, tmp_path / "other")
    assert code == 0
    assert "there already: rec1/rates" in out
    merged = labtree.load_workspace(tmp_path / "all")
    assert merged.ws.list_keys() == {
        "rec1": ["rates", "a/b"],
        "rec2": ["rates"],
        "rec3": ["note"],
    }
    assert merged.ws["rec1", "rates"].shape == (2, 3)
    arguments = ("merge", "--overwrite", "--json", tmp_path / "all", tmp_path / "other")
    code, out, _ = run(capsys, *arguments)
    report = json.loads(out)[str(tmp_path / "other")]
    assert report == {"merged": 2, "skipped": 0, "skipped_keys": []}
    assert labtree.load_item(tmp_path / "all", "rec1", "rates").tolist() == [1, 1]


def test_convert_a_workspace_to_zarr_and_back(study, tmp_path, capsys):
    assert run(capsys, "convert", study, tmp_path / "study.zarr")[0] == 0
    code, out, _ = run(
        capsys, "convert", "--json", tmp_path / "study.zarr", tmp_path / "back.h5"
    )
    assert code == 0
    assert json.loads(out)["format"] == "workspace"
    with labtree.open_workspace(study) as old, labtree.open_workspace(tmp_path / "back") as new:
        assert_same(new.ws["rec1", "rates"], old.ws["rec1", "rates"])
        assert new.ws.describe() == old.ws.describe()
        assert new.ws.workspace_id == old.ws.workspace_id
    _, out, _ = run(capsys, "ls", tmp_path / "study.zarr")
    assert out.startswith("rec1/rates  ndarray  2 × 3 float64")


def test_convert_sessions_and_recordings(tmp_path, capsys):
    folder = record_emg(tmp_path / "sessions")
    for name in ("emg.h5", "emg.zarr"):
        assert run(capsys, "convert", folder, tmp_path / name)[0] == 0
        with labtree.open(folder) as old, labtree.open(tmp_path / name) as new:
            for path in ("streams/emg/data", "streams/emg/time", "labels/class_index"):
                assert np.array_equal(new[path].values, old[path].values)
    code, out, _ = run(capsys, "ls", tmp_path / "emg.h5")
    assert code == 0
    assert "/streams/emg/data" in out
    code, out, _ = run(capsys, "info", folder)
    assert code == 0
    assert "a recording of labtree or MyoGestic" in out
    assert "8,000 samples × 8 channels" in out
    code, _, err = run(capsys, "info", folder, "a/b")
    assert code == 1
    assert "only workspaces have items" in err


def test_convert_never_writes_over_what_is_there(study, tmp_path, capsys):
    (tmp_path / "there.h5").write_text("precious")
    code, _, err = run(capsys, "convert", study, tmp_path / "there.h5")
    assert code == 1
    assert "is there already" in err
    assert (tmp_path / "there.h5").read_text() == "precious"
    code, _, err = run(capsys, "convert", study, tmp_path / "x.csv")
    assert code == 1
    assert "ends in .h5 or .zarr" in err


def test_recover_says_what_it_did(tmp_path, capsys):
    folder = record_emg(tmp_path)
    code, out, _ = run(capsys, "recover", folder)
    assert (code, out) == (0, f"{folder}: nothing to repair\n")
    code, _, err = run(capsys, "recover", tmp_path / "missing")
    assert code == 1
    assert err.count("\n") == 1


def test_errors_are_one_line_without_a_traceback(tmp_path, capsys):
    (tmp_path / "text.h5").write_text("no HDF5")
    for arguments in (
        ("ls", tmp_path / "missing"),
        ("ls", tmp_path / "text.h5"),
        ("verify", tmp_path / "text.h5"),
        ("merge", tmp_path / "out", tmp_path / "missing"),
    ):
        code, out, err = run(capsys, *arguments)
        assert code == 1, arguments
        assert out == ""
        assert err.startswith("labtree: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "out.h5").exists()


def test_a_wrong_call_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["no-such-command"])
    assert stop.value.code == 2


def test_a_closed_pipe_is_no_error_to_talk_about(study):
    command = [sys.executable, "-m", "labtree", "ls", str(study)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert error == b""
