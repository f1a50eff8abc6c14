import numpy as np
import pandas as pd
import pytest

import labtree
from labtree import ConfigurationError
from labtree.pipeline.batch import read_recordings
from labtree.testing.mea import write_recording

load = labtree.mea.load_recording
extract = labtree.mea.extract_features


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    kwargs = {"n_units": 2, "movie_frames": {"noise_a": 60}, "repeats": 1, "sensor_s": 0.05}
    return [
        write_recording(folder / f"r{i}", name=f"rec{i}", seed=i, **kwargs) for i in range(3)
    ]


@pytest.fixture
def csv(recordings, tmp_path):
    lines = [f"{r.cmcr_path},{r.cmtr_path},id{i}" for i, r in enumerate(recordings)]
    path = tmp_path / "list.csv"
    path.write_text("cmcr_path,cmtr_path,dataset_id\n" + "\n".join(lines) + "\n")
    return path


STEPS = [load, (extract, {"features": ["frif"]})]


def test_a_batch_from_a_csv_and_again(recordings, csv, tmp_path):
    out = tmp_path / "out"
    table = labtree.mea.run_batch(csv, STEPS, out)
    assert table["dataset_id"].tolist() == ["id0", "id1", "id2"]
    assert table["status"].tolist() == ["done"] * 3
    assert table["ran"].tolist() == ["load_recording, extract_features"] * 3
    assert (table["error"] == "").all()
    assert (table["seconds"] > 0).all()
    stamps = [(out / f"id{i}.h5").stat().st_mtime_ns for i in range(3)]
    again = labtree.mea.run_batch(csv, STEPS, out)
    assert again["status"].tolist() == ["unchanged"] * 3
    assert [(out / f"id{i}.h5").stat().st_mtime_ns for i in range(3)] == stamps
    for i, truth in enumerate(recordings):
        session = labtree.load_session(table["path"][i])
        assert session.session.completed_steps == {"load_recording", "extract_features"}
        np.testing.assert_array_equal(
            session.session.spikes("unit_001").values, truth.spikes["unit_001"]
        )
    forced = labtree.mea.run_batch(csv, STEPS, out, force=True)
    assert forced["status"].tolist() == ["done"] * 3


def test_it_goes_past_failures_reports_them_and_is_resumed(recordings, tmp_path):
    broken = tmp_path / "broken.cmtr"
    broken.write_bytes(b"junk")
    rows = [
        (recordings[0].cmcr_path, recordings[0].cmtr_path),
        {"cmcr_path": recordings[1].cmcr_path, "cmtr_path": broken, "dataset_id": "bad"},
        {"cmcr_path": recordings[2].cmcr_path, "dataset_id": "light"},
    ]
    with pytest.warns(UserWarning, match="2 of 3 recordings failed:\n  bad: load_recording"):
        table = labtree.mea.run_batch(rows, STEPS, tmp_path / "out")
    assert table["status"].tolist() == ["done", "failed", "failed"]
    assert "cannot be read" in table["error"][1]
    assert table["error"][2].startswith("extract_features: SessionError")
    assert table["ran"][2] == "load_recording"  # what had been done was saved
    assert "Traceback" in table["traceback"][1]
    rows[1]["cmtr_path"] = recordings[1].cmtr_path
    with pytest.warns(UserWarning, match="1 of 3"):
        table = labtree.mea.run_batch(rows, STEPS, tmp_path / "out")
    assert table["status"].tolist() == ["unchanged", "done", "failed"]


def test_in_parallel_it_is_the_same(recordings, csv, tmp_path):
    one = labtree.mea.run_batch(csv, STEPS, tmp_path / "one")
    two = labtree.mea.run_batch(csv, STEPS, tmp_path / "two", workers=2)
    assert two["status"].tolist() == ["done"] * 3
    for a, b in zip(one["path"], two["path"], strict=True):
        left, right = labtree.load_session(a), labtree.load_session(b)
        for path in ("units", "metadata", "stimulus/light_reference", "features/frif"):
            assert left[path].to_dataset().identical(right[path].to_dataset())


def test_an_interrupted_batch_keeps_what_is_done(csv, tmp_path):
    done = []

    @labtree.step(requires=["load_recording"])
    def stop(session):
        done.append(session.attrs["dataset_id"])
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        labtree.mea.run_batch(csv, [load, stop], tmp_path / "out")
    table = labtree.mea.run_batch(csv, [load, stop], tmp_path / "out")
    assert table["ran"].tolist() == ["", "stop", "load_recording, stop"]


def test_columns_named_like_parameters_go_first(recordings, tmp_path):
    seen = []

    @labtree.step(requires=["load_recording"])
    def note(session, k=0, words=()):
        seen.append((k, words))

    truth = recordings[0]
    text = f"cmcr_path,k,words\n{truth.cmcr_path},3,\"['a', 'b']\"\n"
    path = tmp_path / "list.csv"
    path.write_text(text)
    labtree.mea.run_batch(path, [load, (note, {"k": 9})], tmp_path / "out")
    frame = pd.DataFrame([{"cmcr_path": str(truth.cmcr_path), "dataset_id": "x", "k": 5}])
    labtree.mea.run_batch(frame, [load, (note, {"k": 9, "words": "z"})], tmp_path / "out")
    assert seen == [(3, ["a", "b"]), (5, "z")]


def test_relative_paths_start_at_the_csv(recordings, tmp_path):
    path = recordings[0].cmcr_path.parent / "list.csv"
    path.write_text(f"cmcr_path\n{recordings[0].cmcr_path.name}\n")
    rows = read_recordings(path)
    assert rows == [{"cmcr_path": str(recordings[0].cmcr_path), "dataset_id": "rec0"}]


def test_wrong_lists_and_steps_run_nothing(recordings, tmp_path):
    truth = recordings[0]
    pair = (truth.cmcr_path, truth.cmtr_path)
    run = labtree.mea.run_batch
    out = tmp_path / "out"
    for source, match in (
        (tmp_path / "none.csv", "no such list"),
        ([pair, pair], "two recordings are called rec0"),
        (
            pd.DataFrame({"cmcr": ["a"], "n": [1]}),
            "or dataset_id; found cmcr, n; .* write table",
        ),
        (["abc"], "a recording is a dictionary or a pair"),
        ([{}], "needs cmcr_path, cmtr_path or dataset_id; found nothing"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            run(source, STEPS, out)
    path = tmp_path / "l.csv"
    path.write_text("cmcr_path\na.cmcr,b.cmtr\n")
    with pytest.raises(ConfigurationError, match="Expected 1 fields in line 2, saw 2"):
        run(path, STEPS, out)
    for steps, match in (
        ([], "at least one step"),
        ([print], "is not a step"),
        ([3], "3 is not"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            run([pair], steps, out)

    @labtree.step()
    def local(session):
        pass

    with pytest.raises(ConfigurationError, match="run with workers=1"):
        run([pair], [local], out, workers=2)
    assert not list(out.glob("*.h5"))


def test_cells_of_a_table_may_hold_lists():
    table = pd.DataFrame(
        {"dataset_id": ["a", "b", "c"], "features": [["frif", "sta"], ["frif"], None]}
    )
    assert read_recordings(table) == [
        {"dataset_id": "a", "features": ["frif", "sta"]},
        {"dataset_id": "b", "features": ["frif"]},
        {"dataset_id": "c"},
    ]


def test_names_with_underscores_are_no_numbers_and_columns_have_one_name(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("dataset_id,movie,n\n001,2024_01_02,1_000\n002,noise_1,5\n")
    assert read_recordings(path) == [
        {"dataset_id": "001", "movie": "2024_01_02", "n": "1_000"},
        {"dataset_id": "002", "movie": "noise_1", "n": 5},
    ]
    path.write_text("dataset_id,movie,movie\n001,a,b\n")
    with pytest.raises(labtree.ConfigurationError, match="two columns are called movie"):
        read_recordings(path)
