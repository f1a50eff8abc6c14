"""Who opens a file with the function for another is given the line that works."""

import pathlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

import labtree
from labtree.testing import make_trials, record_emg, write_session

LINE = re.compile(r"(?:; write |\n    )([a-z]+\.[^#\n]+\))")
FUNCTIONS = {
    "workspace": [labtree.open_workspace, labtree.load_workspace],
    "recording": [labtree.recording.open_recording, labtree.recover],
    "mouse": [labtree.msw.load_session],
    "pipeline": [labtree.load_session],
    "others": [labtree.import_phy, labtree.import_nwb, labtree.import_spikelab],
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Return a file or folder of each kind, by its name."""
    folder = tmp_path_factory.mktemp("kinds")
    tree = labtree.create_workspace("pilot")
    tree.ws.store("rec1", "rates", np.zeros((2, 3)))
    session = labtree.create_session("rec1", output_dir=folder)
    session.session.add_units({"u1": {"spike_times": np.array([1, 2])}})
    other = xr.Dataset({"a": ("x", [1.0, 2.0])})
    other.to_zarr(folder / "other.zarr", consolidated=False)
    other.to_netcdf(folder / "other.nc", engine="h5netcdf")
    record_emg(folder / "sessions")
    return {
        "workspace": tree.ws.save(folder / "study"),
        "zarr workspace": tree.ws.save(folder / "study.zarr"),
        "recording": next((folder / "sessions").iterdir()),
        "recordings": folder / "sessions",
        "mouse": write_session(folder / "mouse", trials=make_trials(10)),
        "pipeline": session.session.save(),
        "other zarr": folder / "other.zarr",
        "netCDF": folder / "other.nc",
    }


def lines_of(message):
    return LINE.findall(message)


def run(line):
    """Run a line of a message as a user would."""
    return eval(line, {"labtree": labtree, "xarray": xr, "pandas": pd, "numpy": np})


@pytest.mark.parametrize("kind", ["workspace", "zarr workspace", "recording", "recordings",
                                  "mouse", "pipeline", "other zarr", "netCDF"])  # fmt: skip
@pytest.mark.parametrize("takes", FUNCTIONS)
@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated metadata")
def test_the_wrong_function_says_what_it_is_and_the_line_that_works(kinds, kind, takes):
    if kind.endswith(takes):
        return
    for function in FUNCTIONS[takes]:
        with pytest.raises((labtree.FormatError, labtree.MissingFileError)) as error:
            function(kinds[kind])
        message = str(error.value)
        assert message.startswith(f"{kinds[kind]} is a")
        assert ", not a" in message
        (line,) = lines_of(message)
        opened = run(line)
        assert opened is not None
        opened.close() if hasattr(opened, "close") else None


def test_sessions_of_every_kind_open_and_others_name_their_function(kinds):
    for kind in ("recording", "mouse", "pipeline"):
        labtree.open_session(kinds[kind]).close()
    for kind in ("workspace", "netCDF"):
        with pytest.raises(labtree.FormatError, match=", not a session; write ") as error:
            labtree.open_session(kinds[kind])
        (line,) = lines_of(str(error.value))
        run(line).close()


def test_a_folder_of_several_things_lists_them_with_their_lines(kinds):
    folder = kinds["netCDF"].parent
    with pytest.raises(
        labtree.FormatError, match="is a folder; write for what is in it"
    ) as error:
        labtree.open(folder)
    lines = lines_of(str(error.value))
    assert len(lines) == 6
    for line in lines:
        assert run(line) is not None
    assert "# a Murine Shift Work session" in str(error.value)


def test_a_long_folder_is_cut(tmp_path):
    for number in range(14):
        tree = labtree.create_workspace()
        tree.ws.store("a", "b", number)
        tree.ws.save(tmp_path / f"day{number:02}")
    with pytest.raises(labtree.FormatError) as error:
        labtree.open(tmp_path)
    assert len(lines_of(str(error.value))) == 10
    assert str(error.value).endswith("\n    and 4 more")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"x,y\n1,2\n", "a table of text; write pandas.read_csv("),
        ("a.tsv", b"x\ty\n1\t2\n", "a table of text; write pandas.read_csv("),
        ("a.edf", b"0       ", "a recording that MNE reads; write labtree.from_mne_raw("),
        ("a.plx", b"PLEX", "a recording that neo reads; write labtree.from_neo(neo.get_io("),
        ("a.nc", b"CDF\x01", "a netCDF-3 file; write xarray.open_dataset("),
        ("a.pkl", b"\x80\x04K\x01.", "a pickle, which runs code when it is read, and no"),
    ],
)  # fmt: skip
def test_files_of_other_libraries_name_the_call_that_reads_them(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(labtree.FormatError, match=re.escape(f"{path} is {said}")) as error:
        labtree.open(path)
    if "pandas" in said:
        assert run(lines_of(str(error.value))[0]).to_dict("list") == {"x": [1], "y": [2]}


def test_files_of_numpy_and_matlab(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    scipy.io.savemat(tmp_path / "a.mat", {"x": 1})
    for name, line in (("a.npy", "numpy.load"), ("a.mat", "scipy.io.loadmat")):
        with pytest.raises(labtree.FormatError, match=f"; write {line}") as error:
            labtree.open(tmp_path / name)
    assert str(tmp_path / "a.mat") in str(error.value)


def test_nothing_and_damage_keep_their_own_words(tmp_path, kinds):
    with pytest.raises(labtree.MissingFileError, match="there is no workspace file"):
        labtree.open_workspace(tmp_path / "nothing")
    whole = kinds["workspace"].read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(labtree.FormatError) as error:
        labtree.open_workspace(cut)
    assert lines_of(str(error.value)) == []
    Path(tmp_path / "text").write_text("hello")
    with pytest.raises(labtree.FormatError, match="begins with b'hello'"):
        labtree.recording.open_recording(tmp_path / "text")


def test_the_functions_keep_their_help_and_their_types():
    assert labtree.open_workspace.__doc__.startswith("Open")
    assert labtree.recover.__name__ == "recover"


def test_a_namespace_in_brackets_lists_its_keys():
    tree = labtree.create_workspace()
    tree.ws.store("rec1", "rates", 1)
    tree.ws.store("rec1", "spikes", 1)
    with pytest.raises(TypeError, match=r"write tree.ws\['rec1', 'rates'\]") as error:
        tree.ws["rec1"]
    assert "its keys are 'rates', 'spikes'" in str(error.value)


def test_spike_verbs_say_how_their_input_is_made():
    with pytest.raises(
        labtree.DataError, match=r"labtree.spikes.from_times\(times_ms, units\)"
    ):
        labtree.spikes.sttc(xr.Dataset())


def test_a_session_verb_on_a_workspace_says_what_the_tree_is():
    tree = labtree.create_workspace("pilot")
    with pytest.raises(KeyError, match=r"this tree is a labtree workspace: write tree.ws"):
        tree.session.windows("emg", 200, 50)


def test_warnings_point_to_the_line_of_the_user(tmp_path, kinds):
    np.save(tmp_path / "spike_times.npy", np.array([1, 2]))
    np.save(tmp_path / "spike_clusters.npy", np.array([1, 1]))
    (tmp_path / "params.py").write_text("sample_rate = 30000.0\n")
    recording = record_emg(tmp_path / "sessions")
    (recording / "labels.json").write_text('[{"timestamp": 1.0, "class_index": 0}, {"times')
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", 1)
    study = tree.ws.save(tmp_path / "study")
    study.with_suffix(".json").write_text("{")
    for function, path in (
        (labtree.import_phy, tmp_path),
        (labtree.recording.open_recording, recording),
        (labtree.open_workspace, study),
    ):
        with pytest.warns(labtree.LabtreeWarning) as caught:
            opened = function(path)
        opened.close()
        assert {Path(each.filename).name for each in caught} == {Path(__file__).name}


def test_a_path_that_is_not_there_names_what_is_near(kinds, monkeypatch):
    folder = kinds["workspace"].parent
    monkeypatch.chdir(folder)
    for function, given, near in (
        (labtree.open, "stdy.h5", "study.h5"),
        (labtree.open_session, "sesions", "sessions"),
        (labtree.load_session, "rec", "rec1_session.h5"),
        (labtree.open_workspace, "Study2", "study.h5"),
        (labtree.load_workspace, folder / "studi.zarr", folder / "study.zarr"),
        (labtree.recording.open_recording, "session", "sessions"),
        (labtree.msw.load_session, "mose", "mouse"),
        (labtree.msw.load_subject, "mose", "mouse"),
        (labtree.import_nwb, "othr.nc", "other.nc"),
    ):
        with pytest.raises(labtree.MissingFileError) as error:
            function(given)
        expected = sorted(Path().glob("rec1*.h5"))[0] if given == "rec" else near
        assert str(error.value).endswith(f"; did you mean {str(expected)!r}?"), given


def test_a_path_whose_folder_is_not_there_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(labtree.MissingFileError, match=r"; the folder . is empty$"):
        labtree.open("study")
    Path("results").mkdir()
    Path("results/.hidden").touch()
    with pytest.raises(labtree.MissingFileError, match=r"did you mean 'results/day/study'\?$"):
        labtree.open("result/day/study")
    with pytest.raises(
        labtree.MissingFileError,
        match=r"; there is no folder x, and the folder . has results$",
    ):
        labtree.open("x/day/study")


def test_a_folder_that_holds_nothing_of_labtree_is_called_a_folder(tmp_path):
    for function in (labtree.load_session, labtree.open_workspace, labtree.load_workspace):
        with pytest.raises(labtree.FormatError, match=f"^{tmp_path} is a folder; a "):
            function(tmp_path)


def test_a_folder_of_mice_names_the_function_that_loads_them_all(tmp_path):
    folder = write_session(tmp_path / "mice", trials=make_trials(5))
    subject = tmp_path / "mice/m01"
    with pytest.raises(labtree.FormatError, match="a folder of sessions, not a ") as error:
        labtree.msw.load_session(subject)
    assert lines_of(str(error.value)) == [f"labtree.msw.load_subject({str(subject)!r})"]
    with pytest.raises(
        labtree.FormatError, match=r"write labtree.msw.load_acquisition\('"
    ) as error:
        labtree.msw.load_session(folder.parent)
    assert f"or labtree.msw.load_session({str(folder)!r})" in str(error.value)
    write_session(tmp_path / "mice", trials=make_trials(5), subject="m02")
    with pytest.raises(labtree.FormatError) as error:
        labtree.load_session(tmp_path / "mice")
    lines = lines_of(str(error.value))
    assert lines[0] == f"labtree.msw.load_subject({str(tmp_path / 'mice')!r})"
    assert len(run(lines[0])) == 2
    assert len(lines) == 3


def test_a_folder_of_recordings_names_the_line_for_all_of_them(tmp_path):
    for _ in range(2):
        record_emg(tmp_path / "sessions")
    with pytest.raises(labtree.MissingFileError) as error:
        labtree.labeled_windows(tmp_path / "sessions", "emg", 200, 50)
    line = str(error.value).split("\n    ")[1].partition("  #")[0]
    paths = eval(line, {"pathlib": pathlib})
    assert labtree.labeled_windows(paths, "emg", 200, 50).sizes["window"] > 200
    (tmp_path / "sessions/notes.txt").touch()
    with pytest.raises(labtree.MissingFileError) as error:
        labtree.labeled_windows(tmp_path / "sessions", "emg", 200, 50)
    assert "iterdir" not in str(error.value)


def test_what_newcomers_try_first_is_answered_with_a_line(tmp_path):
    samples = np.zeros((20, 4), "f4")
    with pytest.raises(labtree.SessionError, match=r"found ndarray; write labtree.session\("):
        labtree.labeled_windows(samples, "emg", 200, 50)
    stream = xr.Dataset(
        {"data": (("time", "channel"), samples)}, {"time": np.arange(20) / 100}, {"fs": 100}
    )
    cues = pd.DataFrame({"time": [0.0, 0.1], "label": ["rest", "fist"]})
    with pytest.raises(labtree.SessionError, match=r"write (.*)$") as error:
        stream.session.windows(50, 50, labels=cues)
    line = str(error.value).partition("write ")[2]
    labels = eval(line, {"pandas": pd, "seconds": cues["time"], "names": cues["label"]})
    assert stream.session.windows(50, 50, labels=labels).class_index.values.tolist() == [
        0,
        0,
        1,
        1,
    ]
    with pytest.raises(labtree.SessionError, match=r"Write window_ms=200, hop_ms=50$"):
        stream.session.windows(0.2, 0.05)
    with labtree.Recorder(tmp_path, class_names=["rest", "fist"]) as recorder:
        recorder.init_stream("emg", labtree.StreamInfo(n_channels=4, fs=100))
        with pytest.raises(
            labtree.SessionError, match=r"add_label\(class_names.index\('fist'\)"
        ):
            recorder.add_label("fist", 0.0)
        with pytest.raises(labtree.SessionError, match=r"; write data.T$"):
            recorder.append("emg", samples.T, np.arange(20) / 100)
    result = labtree.StepResult("load", tmp_path / "rec1.h5", False, 0.0, ())
    with pytest.raises(labtree.SessionError, match=r"write session = labtree.load_session\("):
        labtree.mea.extract_features(["frif"], session=result)
    with pytest.raises(labtree.DataError, match=r"found StepResult; write labtree.spikes.from"):
        labtree.spikes.from_session(result)
    with pytest.raises(labtree.DataError, match=r"name one: ds\['a'\].ws.plot\(\)"):
        xr.Dataset({"a": ("x", [1.0, 2.0]), "b": ("x", [2.0, 1.0])}).ws.plot(ax=object())
    with pytest.raises(labtree.DataError, match=r"write labtree.from_mne_raw\(mne.io.read_raw"):
        labtree.from_mne_raw(samples)


def test_a_filter_that_no_session_can_pass_names_what_there_is(tmp_path):
    write_session(tmp_path, trials=make_trials(5))
    for what, wrong in (("task", "probabilistic_swiching"), ("subject", "m1")):
        right = {"task": "probabilistic_switching", "subject": "m01"}[what]
        with pytest.raises(
            labtree.UnknownNameError, match=f"no {what} '{wrong}' in these sessions"
        ) as error:
            labtree.msw.load_subject(tmp_path, **{what: wrong})
        assert f"Did you mean '{right}'?" in str(error.value)
        assert len(labtree.msw.load_subject(tmp_path, **{what: right})) == 1
    assert len(labtree.msw.load_subject(tmp_path, since="2030-01-01", subject="m01")) == 0
