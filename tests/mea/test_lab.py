import threading

import pytest

import labtree
from labtree import ConfigurationError, MissingFileError
from labtree.mea import lab_paths, use_lab
from labtree.mea.lab import from_lab


@pytest.fixture(autouse=True)
def no_lab(monkeypatch):
    """Nothing said before, and the same after."""
    monkeypatch.delenv("LABTREE_MEA_LAB", raising=False)
    use_lab()
    yield
    use_lab()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lab" / "stimuli").mkdir(parents=True)
    for name in ("playlist.csv", "movie_length.csv"):
        (tmp_path / "lab" / name).write_text("")
    return tmp_path / "lab"


def test_a_folder_a_file_or_each_path(folder, tmp_path):
    use_lab(folder)
    stimuli = folder / "stimuli"
    whole = {
        "playlist_file_path": folder / "playlist.csv",
        "movie_length_file_path": folder / "movie_length.csv",
        "config_dir": stimuli,
        "stimuli_dir": stimuli,
    }
    assert lab_paths() == whole
    toml = tmp_path / "lab.toml"
    toml.write_text('stimuli_dir = "lab/stimuli"\nplaylist_file_path = "lab/playlist.csv"\n')
    use_lab(toml)
    assert lab_paths() == {n: whole[n] for n in ("stimuli_dir", "playlist_file_path")}
    use_lab(toml, config_dir=tmp_path)
    assert lab_paths()["config_dir"] == tmp_path
    use_lab(playlist_file_path=folder / "playlist.csv")
    assert list(lab_paths()) == ["playlist_file_path"]


def test_relative_paths_hold_wherever_one_goes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_lab("lab", config_dir="lab/stimuli")
    monkeypatch.chdir(folder)
    assert lab_paths()["config_dir"] == folder / "stimuli"
    assert lab_paths()["stimuli_dir"] == folder / "stimuli"


def test_the_environment_counts_last(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LABTREE_MEA_LAB", str(folder))
    assert lab_paths()["config_dir"] == folder / "stimuli"
    with use_lab(config_dir=tmp_path):
        assert lab_paths()["config_dir"] == tmp_path
        assert lab_paths()["stimuli_dir"] == folder / "stimuli"
    assert lab_paths()["config_dir"] == folder / "stimuli"
    monkeypatch.setenv("LABTREE_MEA_LAB", str(tmp_path / "gone"))
    with pytest.raises(MissingFileError, match="gone: there is no such folder or TOML file"):
        lab_paths()


def test_a_block_ends_and_is_of_its_thread(folder, tmp_path):
    use_lab(config_dir=tmp_path)
    seen = []
    with use_lab(config_dir=folder):
        assert lab_paths()["config_dir"] == folder
        thread = threading.Thread(target=lambda: seen.append(lab_paths()["config_dir"]))
        thread.start()
        thread.join()
        with use_lab(stimuli_dir=folder):
            assert list(lab_paths()) == ["stimuli_dir"]
        assert lab_paths()["config_dir"] == folder
    assert seen == [tmp_path]
    assert lab_paths() == {"config_dir": tmp_path}


def test_blocks_that_begin_in_another_order_leave_nothing_behind(folder, tmp_path):
    first, second = use_lab(config_dir=folder), use_lab(stimuli_dir=folder)
    with first, second:
        assert list(lab_paths()) == ["stimuli_dir"]
    assert lab_paths() == {}


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(MissingFileError, match=r"config_dir='.*none': there is no such"):
        use_lab(config_dir=tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        use_lab(tmp_path / "none.toml")
    toml = tmp_path / "lab.toml"
    for text, match in (
        ("stimuli = [", "is not TOML"),
        (
            'stimuli = "lab"',
            "stimuli is no path of a lab; expected lines such as playlist_file",
        ),
        ("stimuli_dir = 3", "stimuli_dir is no path of a lab"),
        ("\xff", "is not TOML"),
    ):
        toml.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigurationError, match=match):
            use_lab(toml)
    toml.write_text('stimuli_dir = "gone"')
    with pytest.raises(MissingFileError, match="stimuli_dir: there is nothing at"):
        use_lab(toml)
    assert lab_paths() == {}


def test_a_folder_without_anything_of_a_lab_is_none(tmp_path):
    (tmp_path / "movies").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds none of playlist\.csv, movie_length"):
        labtree.mea.use_lab(tmp_path)
    (tmp_path / "stimuli").mkdir()
    with labtree.mea.use_lab(tmp_path):
        assert labtree.mea.lab_paths()["stimuli_dir"] == tmp_path / "stimuli"


def test_the_error_without_a_lab_says_the_line_to_write():
    with pytest.raises(ConfigurationError) as caught:
        from_lab("playlist_file_path", "movie_length_file_path")({"playlist_file_path": None})
    text = str(caught.value)
    assert "needs playlist_file_path and movie_length_file_path" in text
    assert "labtree.mea.use_lab(playlist_file_path=..., movie_length_file_path=...)" in text
    assert "LABTREE_MEA_LAB" in text
    assert from_lab("config_dir")({"config_dir": "here"}) == {}


def test_a_batch_in_other_processes_knows_the_lab(recording, arguments, tmp_path):
    steps = [
        labtree.mea.load_recording,
        (
            labtree.mea.add_section_time,
            {k: v for k, v in arguments.items() if not k.endswith("_file_path")},
        ),
        labtree.mea.section_spike_times,
    ]
    with use_lab(recording.playlist_path.parent):
        table = labtree.mea.run_batch(
            [(recording.cmcr_path, recording.cmtr_path)], steps, tmp_path, workers=2
        )
    assert table["error"].tolist() == [""]
    saved = labtree.load_session(table["path"][0])
    assert "section_spike_times" in saved.session.completed_steps
