"""Every command of the command line on every kind of file and folder."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import labtree
from labtree import cli
from labtree.formats import contents, recognize
from support.kinds_of_files import phy, workspace, write_all, zipped

KINDS = [
    "workspace", "workspace in zarr", "recording", "recording in a zip", "msw", "pipeline",
    "mcs", "spikelab", "tree", "phy",
]  # fmt: skip
ESCAPES = "\x1b]0;taken\x07\x1b[31m\x9b31m\u202e"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("kinds"))


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_kinds_are_all_that_are_written(kinds):
    assert list(kinds) == KINDS
    for kind, path in kinds.items():
        assert recognize(path).name == kind.split(" in ")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_ls_lists_what_is_in_it(kinds, kind, capsys):
    code, out, _ = run(capsys, "ls", kinds[kind])
    assert code == 0
    with labtree.open(kinds[kind]) as tree:
        if "labtree_workspace_id" in tree.attrs:
            places = [f"{ns}/{key}" for ns, keys in tree.ws.list_keys().items() for key in keys]
        else:
            places = [
                f"{node.path.rstrip('/')}/{name}"
                for node in tree.subtree
                for name in node.variables
            ]
    assert [line.split("  ")[0] for line in out.splitlines()] == places
    code, out, _ = run(capsys, "ls", "--json", kinds[kind])
    assert code == 0
    assert json.loads(out)


@pytest.mark.parametrize("kind", KINDS)
def test_info_says_what_it_is(kinds, kind, capsys):
    code, out, _ = run(capsys, "info", kinds[kind])
    assert code == 0
    assert out.startswith(f"{kinds[kind]} is {recognize(kinds[kind]).what}\n")
    assert " on the disk, changed 20" in out
    assert "methods" not in out
    _, out, _ = run(capsys, "info", "--json", kinds[kind])
    about = json.loads(out)
    assert about["format"] == kind.split(" in ")[0]
    assert about["bytes"] > 0


def test_info_of_a_mouse_session_and_of_a_recording(kinds, capsys):
    _, out, _ = run(capsys, "info", kinds["msw"])
    for part in ("subject", "m01", "probabilistic_switching", "5 trials"):
        assert part in out
    assert "streams" not in out
    _, out, _ = run(capsys, "info", kinds["recording in a zip"])
    assert "8,000 samples × 8 channels" in out


@pytest.mark.parametrize("kind", KINDS)
def test_verify_reads_all_of_it(kinds, kind, capsys):
    code, out, _ = run(capsys, "verify", kinds[kind])
    assert code == 0
    assert out.startswith(f"{kinds[kind]}: everything can be read, nothing is wrong")
    checked = {
        "workspace": "5 arrays checked by their checksums",
        "tree": "1 of other programs",
    }
    assert checked.get(kind, "") in out
    _, out, _ = run(capsys, "verify", "--json", kinds[kind])
    assert json.loads(out)["problems"] == []


@pytest.mark.parametrize("suffix", ["h5", "zarr"])
@pytest.mark.parametrize("kind", KINDS)
def test_convert_keeps_every_value(kinds, kind, suffix, tmp_path, capsys):
    target = tmp_path / f"converted.{suffix}"
    code, out, _ = run(capsys, "convert", kinds[kind], target)
    assert code == 0
    assert out == f"{kinds[kind]} ({recognize(kinds[kind]).what}) is now {target}\n"
    with labtree.open(kinds[kind]) as old, labtree.open(target) as new:
        if "labtree_workspace_id" in old.attrs:
            assert new.ws.list_keys() == old.ws.list_keys()
        for node in old.subtree:
            for name, variable in node.variables.items():
                np.testing.assert_array_equal(new[node.path].variables[name], variable)
    assert run(capsys, "verify", target)[0] == 0
    code, out, err = run(capsys, "convert", kinds[kind], target)
    assert (code, out) == (1, "")
    assert err == f"labtree: {target} is there already; choose another name\n"


@pytest.mark.parametrize("kind", KINDS)
def test_merge_takes_workspaces_and_says_so_of_others(kinds, kind, tmp_path, capsys):
    out = tmp_path / "all.h5"
    code, said, err = run(capsys, "merge", out, kinds[kind])
    with labtree.open(kinds[kind]) as tree:
        is_workspace = "labtree_workspace_id" in tree.attrs
        if is_workspace:
            assert labtree.load_workspace(out).ws.list_keys() == tree.ws.list_keys()
    assert code == (0 if is_workspace else 1)
    if not is_workspace:
        assert said == ""
        assert "merge takes workspaces only" in err
        assert not out.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_recover_takes_recordings_and_says_so_of_others(kinds, kind, capsys):
    code, out, err = run(capsys, "recover", kinds[kind])
    if kind == "recording":
        assert (code, out) == (0, f"{kinds[kind]}: nothing to repair\n")
    else:
        assert (code, out) == (1, "")
        assert err.endswith("; recover takes folders of recordings only\n")


def test_a_folder_of_many_things(kinds, capsys):
    folder = kinds["workspace"].parent
    code, out, _ = run(capsys, "ls", folder)
    assert code == 0
    lines = out.splitlines()
    for kind, path in kinds.items():
        (line,) = [each for each in lines if each.startswith(f"{path.relative_to(folder)}  ")]
        assert recognize(path).what in line, kind
    assert "study.json" not in out
    _, out, _ = run(capsys, "ls", "--json", folder)
    names = {each["name"]: each["format"] for each in json.loads(out)}
    assert names["study.h5"] == "workspace"
    assert run(capsys, "info", folder)[1].startswith(f"{folder} is a folder with\n")
    code, out, _ = run(capsys, "verify", folder)
    assert code == 0
    assert out.splitlines()[-1] == f"{len(lines)} files, none with problems"
    with pytest.raises(
        labtree.FormatError, match=r"is a folder; write for what is in it:\n    labtree"
    ):
        labtree.open(folder)
    code, out, _ = run(capsys, "recover", folder)
    assert (code, out) == (0, f"{kinds['recording']}: nothing to repair\n")


def test_several_paths_and_patterns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        tree = labtree.create_workspace(name)
        tree.ws.store(name, "x", 1)
        tree.ws.save(tmp_path / name)
    code, out, _ = run(capsys, "ls", "*.h5")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "a.h5:", "a/x", "", "b.h5:", "b/x",
    ]  # fmt: skip
    assert list(json.loads(run(capsys, "ls", "--json", "a.h5", "b")[1])) == ["a.h5", "b"]
    described = json.loads(run(capsys, "info", "--json", "a.h5", "b.h5")[1])
    assert [each["name"] for each in described] == ["a", "b"]
    code, out, _ = run(capsys, "verify", "?.h5")
    assert code == 0
    assert out.splitlines()[-1] == "2 files, none with problems"
    code, out, _ = run(capsys, "convert", "*.h5", "converted", "--to", "zarr")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "converted").iterdir()) == [
        "a.zarr", "b.zarr",
    ]  # fmt: skip
    code, _, err = run(capsys, "convert", "a.h5", "b.h5", "c.h5")
    assert code == 1
    assert err == "labtree: several sources go into a folder, and c.h5 is one file\n"
    code, out, _ = run(capsys, "merge", "all.h5", "converted")
    assert code == 0
    assert labtree.load_workspace("all").ws.list_keys() == {"a": ["x"], "b": ["x"]}
    code, _, err = run(capsys, "ls", "no*.h5")
    assert code == 1
    has = "the folder . has a.h5, a.json, all.h5, all.json, b.h5, ..."
    assert err == f"labtree: there is nothing at no*.h5; {has}\n"


def test_info_of_namespaces_and_items(kinds, capsys):
    path = kinds["workspace"]
    code, out, _ = run(capsys, "info", path, "rec1")
    assert code == 0
    assert out.startswith("rec1/\nrec1/rates   ndarray ")
    assert len(out.splitlines()) == 4
    assert list(json.loads(run(capsys, "info", "--json", path, "rec1")[1])) == [
        "rates", "trials", "spikes",
    ]  # fmt: skip
    code, out, _ = run(capsys, "info", path, "rec1/rates", "rec1/spikes")
    assert code == 0
    assert "shape: 2, 3" in out
    assert "spike_data" in out
    code, _, err = run(capsys, "info", kinds["recording"], "rec1")
    assert code == 1
    assert err.endswith("is a recording of labtree or MyoGestic; only workspaces have items\n")


def test_damage_is_found_in_every_kind(tmp_path, capsys):
    (tmp_path / "whole").mkdir()
    kinds = write_all(tmp_path / "whole")
    # A byte of the data of each, or all of a part.
    study = bytearray(kinds["workspace"].read_bytes())
    study[study.index(np.arange(6.0).tobytes()) + 10] ^= 1
    kinds["workspace"].write_bytes(study)
    chunks = (kinds["recording"] / "emg.zarr/c").rglob("*")
    chunk = next(file for file in chunks if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-9])
    packed = zipped(kinds["recording"], tmp_path / "damaged.session.zip")
    (kinds["phy"] / "spike_clusters.npy").write_bytes(b"x")
    trials = next(kinds["msw"].glob("*.jsonl"), None) or next(kinds["msw"].glob("*.msw.df*"))
    trials.write_bytes(trials.read_bytes()[:-40])
    cut = tmp_path / "cut.h5"
    cut.write_bytes(kinds["pipeline"].read_bytes()[:1000])
    damaged = [kinds[kind] for kind in ("workspace", "recording", "phy", "msw")]
    for path in (*damaged, packed, cut):
        code, out, err = run(capsys, "verify", path)
        assert code == 1, path
        assert "nothing is wrong" not in out, path
        assert (out + err).strip(), path
    code, out, _ = run(capsys, "verify", tmp_path)
    assert code == 1
    assert "cut.h5" in out
    assert f"{kinds['workspace']}: /rec1/rates/data: " in out
    assert "with problems" in out.splitlines()[-1]
    assert "cut short or damaged" in run(capsys, "ls", tmp_path)[1]


def test_export_to_csv_stays_inside_its_folder_whatever_names_say(tmp_path, capsys):
    tree = labtree.create_workspace()
    places = [("..", "k"), (".", "n"), ("n", "."), ("n", ".."), ("a/b", "k")]
    for number, place in enumerate(places):
        tree.ws.store(*place, pd.DataFrame({"a": [number]}))
    source = tree.ws.save(tmp_path / "w")
    target = tmp_path / "out" / "tables"
    target.parent.mkdir()
    assert run(capsys, "export", "csv", source, target)[0] == 0
    written = sorted(path.relative_to(tmp_path / "out") for path in target.rglob("*.csv"))
    assert sorted((tmp_path / "out").rglob("*.csv")) == [tmp_path / "out" / p for p in written]
    found = {int(pd.read_csv(tmp_path / "out" / path)["a"].item()) for path in written}
    assert found == set(range(len(places)))


def test_export_of_tables_to_csv(kinds, tmp_path, capsys):
    code, out, err = run(capsys, "export", "csv", kinds["workspace"], tmp_path / "tables")
    assert code == 0
    assert out == f"wrote {tmp_path / 'tables/rec1/trials.csv'}\n"
    assert "left out what is no table (2 items): rec1/rates, rec1/spikes" in err
    table = pd.read_csv(tmp_path / "tables/rec1/trials.csv", index_col=0)
    assert table["choice"].tolist() == [0, 1, 1]
    target = tmp_path / "one.csv"
    assert run(capsys, "export", "csv", kinds["workspace"], target, "rec1/trials")[0] == 0
    assert target.read_bytes() == (tmp_path / "tables/rec1/trials.csv").read_bytes()
    code, _, err = run(
        capsys, "export", "csv", kinds["workspace"], tmp_path / "x.csv", "rec1/rates"
    )
    assert code == 1
    assert err.startswith("labtree: rec1/rates is no table")
    code, out, _ = run(capsys, "export", "--json", "csv", kinds["msw"], tmp_path / "mouse")
    assert code == 0
    assert [Path(path).name for path in json.loads(out)["written"]] == [
        "trials.csv", "trials.states.csv", "trials.events.csv", "trials.columns.json",
    ]  # fmt: skip
    frame = labtree.msw.load_session(kinds["msw"]).df
    bare = frame[["trial", "choice"]]
    bare.attrs = {key: json.loads(json.dumps(value)) for key, value in frame.attrs.items()}
    tree = labtree.create_workspace()
    tree.ws.store("day", "bare", bare)  # its states stayed behind, as in a parquet file
    source = tree.ws.save(tmp_path / "bare.h5")
    assert run(capsys, "export", "csv", source, tmp_path / "b.csv", "day/bare")[0] == 0
    assert pd.read_csv(tmp_path / "b.csv")["trial"].tolist() == frame["trial"].tolist()
    states = pd.read_csv(tmp_path / "mouse/trials.states.csv")
    assert states["start"].tolist() == frame.msw.states()["start"].tolist()
    again = labtree.msw.load_trial_tables(tmp_path / "mouse/trials.csv")
    pd.testing.assert_frame_equal(again, frame)


def test_export_of_a_recording_to_csv(kinds, tmp_path, capsys):
    assert run(capsys, "export", "csv", kinds["recording"], tmp_path / "emg")[0] == 0
    table = pd.read_csv(tmp_path / "emg/streams/emg.csv", index_col="time")
    with labtree.open(kinds["recording"]) as tree:
        assert table.to_numpy().tolist() == tree["streams/emg/data"].values.tolist()
        assert table.index.tolist() == tree["streams/emg/time"].values.tolist()
        labels = pd.read_csv(tmp_path / "emg/labels.csv", index_col=0)
        assert labels["class_name"].tolist() == tree.session.labels["class_name"].tolist()


def test_export_to_spikelab_and_nwb(kinds, tmp_path, capsys):
    code, _, err = run(
        capsys, "export", "spikelab", kinds["workspace"], tmp_path / "p.h5", "--lossy"
    )
    assert code == 0, err
    assert recognize(tmp_path / "p.h5").name == "spikelab"
    code, _, err = run(capsys, "export", "spikelab", kinds["recording"], tmp_path / "q.h5")
    assert code == 1
    assert "SpikeLab has workspaces only" in err
    pytest.importorskip("pynwb")
    code, _, err = run(capsys, "export", "nwb", kinds["workspace"], tmp_path / "s.nwb")
    assert code == 0, err
    assert recognize(tmp_path / "s.nwb").name == "nwb"
    code, _, err = run(capsys, "export", "nwb", kinds["workspace"], tmp_path / "s.nwb")
    assert code == 1
    assert "is there already" in err


def test_no_control_character_reaches_the_terminal(tmp_path, capsys):
    tree = labtree.create_workspace(ESCAPES)
    tree.ws.store("ns" + ESCAPES, "k" + ESCAPES, np.arange(3.0), note=ESCAPES)
    tree.ws.store("ok", "d", pd.DataFrame({ESCAPES: [ESCAPES]}), note=ESCAPES)
    path = tree.ws.save(tmp_path / "e")
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(3.0).tobytes()) + 9] ^= 1
    (tmp_path / "bad.h5").write_bytes(content)
    for arguments in (
        ("ls", path),
        ("ls", "--json", path),
        ("ls", tmp_path),
        ("info", path),
        ("info", path, "ok/d"),
        ("info", "--json", path, "ok/d"),
        ("info", path, "ns" + ESCAPES),
        ("info", path, ESCAPES),
        ("merge", tmp_path / "m.h5", path, path),
        ("verify", tmp_path / "bad.h5"),
        ("export", "csv", path, tmp_path / "tables"),
        ("ls", tmp_path / ESCAPES.replace("/", "")),
    ):
        _, out, err = run(capsys, *arguments)
        assert out + err
        for character in (out + err).replace("\n", ""):
            assert character.isprintable(), (arguments, character)
    _, out, _ = run(capsys, "ls", "--json", path)
    assert json.loads(out)["ok"]["d"]["note"] == ESCAPES


def test_a_library_that_is_missing_is_one_line(kinds, monkeypatch, capsys):
    for library, command in (
        ("orjson", ("info", kinds["msw"])),
        ("pynwb", ("export", "nwb", kinds["workspace"], kinds["workspace"].parent / "n.nwb")),
    ):
        for name in [name for name in sys.modules if name.split(".")[0] == library]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)
        code, _, err = run(capsys, *command)
        assert code == 1, library
        assert err.startswith("labtree: ")
        assert err.count("\n") == 1
        assert 'pip install "labtree[' in err


def test_an_unforeseen_error_is_one_line_unless_asked_for(kinds, monkeypatch, capsys):
    def fail(path):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("labtree.cli.terminal.find", fail)
    code, _, err = run(capsys, "ls", kinds["workspace"])
    assert code == 1
    assert err == "labtree: RuntimeError: two lines (--traceback shows where)\n"
    with pytest.raises(RuntimeError):
        cli.main(["ls", "--traceback", str(kinds["workspace"])])


def test_help_lists_formats_and_gives_examples(capsys):
    for arguments, words in (
        (["--help"], ["a Murine Shift Work session", "verify", "labtree workspace"]),
        (["ls", "--help"], ["labtree ls study.h5", "--json"]),
        (["export", "--help"], ["labtree export nwb study.h5 study.nwb"]),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert [word for word in words if word not in out] == []


def test_the_index_of_a_workspace_says_which_file_to_open(kinds, capsys):
    code, _, err = run(capsys, "ls", kinds["workspace"].with_suffix(".json"))
    assert code == 1
    assert f"is the index of study.h5; write labtree.open({str(kinds['workspace'])!r})" in err


def test_formats_of_other_packages_are_asked(tmp_path, monkeypatch, capsys):
    class Lines:
        @staticmethod
        def recognizes(path):
            return path.suffix == ".lines"

        @staticmethod
        def open(path):
            return labtree.create_workspace(path.read_text())

    class Entry:
        name = "lines"
        load = staticmethod(lambda: Lines)

    monkeypatch.setattr("labtree.formats.entry_points", lambda group: [Entry])
    path = tmp_path / "a.lines"
    path.write_text("mine")
    with labtree.open(path) as tree:
        assert tree.ws.name == "mine"
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    assert "is a file of the format lines" in out


def test_a_folder_without_anything_is_said(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    for command in ("ls", "info", "verify"):
        code, out, err = run(capsys, command, tmp_path)
        assert (code, out) == (1, "")
        assert err.startswith(f"labtree: {tmp_path} is a folder with notes.txt, and no format")
    assert contents(tmp_path) == []


def test_contents_does_not_follow_links_or_enter_hidden_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    tree = workspace()
    tree.ws.save(tmp_path / "deep/study")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / ".hidden").mkdir()
    tree.ws.save(tmp_path / ".hidden/study")
    assert [path for path, _ in contents(tmp_path)] == [tmp_path / "deep/study.h5"]
    assert phy(tmp_path / "sorted") in [path for path, _ in contents(tmp_path)]


def test_python_m_labtree_runs_commands(kinds):
    run = subprocess.run(
        [sys.executable, "-m", "labtree", "info", str(kinds["workspace"])],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0
    assert "labtree workspace 'study'" in run.stdout


def test_the_commands_of_the_documentation_run(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs/command-line.md"
    commands = re.findall(r"^\$ labtree (.*)$", page.read_text(encoding="utf-8"), re.M)
    assert len(commands) > 10
    monkeypatch.chdir(tmp_path)
    kinds = write_all(tmp_path)
    kinds["msw"].rename(tmp_path / "session")
    shutil.rmtree(tmp_path / "mouse")
    (tmp_path / "session").rename(tmp_path / "mouse")
    for command in commands:
        if not command.startswith("export nwb"):
            code, out, err = run(capsys, *shlex.split(command))
            assert (code, err.count("Traceback")) == (0, 0), (command, err)
            assert out
    assert labtree.load_workspace("all").ws.list_keys()["rec1"] == ["rates", "trials", "spikes"]
