import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import ConfigurationError, SessionError
from labtree.mea import movie_trials, playlists
from labtree.mea.light import mean_template
from labtree.pipeline.sections import checked_sections
from labtree.storage.ragged import spike_ranges
from labtree.testing.mea import write_recording
from support.examples import examples


def brute_force_trials(truth, unit, movie, pad=(0, 0)):
    """Every trial of every presentation, straight from what was planted."""
    config = truth.configs[movie]
    made = []
    for start in truth.movie_starts[movie]:
        for n in range(config["group_count"] * config["repeat"]):
            first = start + config["start_frame"] + n * config["trial_length_frame"]
            first += (n // config["repeat"]) * config["group_gap"]
            low = truth.frames[first] - pad[0]
            high = truth.frames[first + config["trial_length_frame"]] + pad[1]
            made.append([t for t in truth.spikes[unit].tolist() if low <= t < high])
    return made


# --- playlists


def test_section_times_are_where_the_movies_were_planted(recording, sectioned):
    table = sectioned["stimulus/section_time"].to_dataset()
    order = list(recording.movies) * 2
    assert table["movie"].values.tolist() == order
    assert table["presentation"].values.tolist() == [0, 0, 1, 1]
    starts = [recording.movie_starts[m][p] for m, p in zip(order, [0, 0, 1, 1], strict=True)]
    assert table["movie_start_frame"].values.tolist() == starts
    lengths = [len(recording.movies[movie]) for movie in order]
    begin = [recording.frames[s - recording.pre_margin] for s in starts]
    end = [
        recording.frames[s + n + 1 + recording.post_margin]
        for s, n in zip(starts, lengths, strict=True)
    ]
    assert table["start"].values.tolist() == begin
    assert table["end"].values.tolist() == end
    assert table["movie_length"].values.tolist() == lengths
    assert sectioned["metadata"].attrs["section_time_playlist"] == recording.playlist_name
    assert sectioned["metadata"].attrs["section_time_repeats"] == 2
    assert sectioned.session.warnings == []


def test_light_template_is_the_mean_over_presentations(sectioned):
    raw = sectioned["stimulus/light_reference"]["raw_ch1"].values.astype(float)
    table = sectioned["stimulus/section_time"].to_dataset()
    for movie in ("noise_small", "step_small"):
        own = np.flatnonzero(table["movie"].values == movie)
        parts = [
            raw[a:b]
            for a, b in zip(table["start"].values[own], table["end"].values[own], strict=True)
        ]
        longest = max(map(len, parts))
        padded = np.full((2, longest), np.nan)
        for row, part in zip(padded, parts, strict=True):
            row[: len(part)] = part
        found = sectioned["stimulus/light_template"][movie].values
        np.testing.assert_array_equal(found, np.nanmean(padded, axis=0).astype(np.float32))


def test_mean_template_of_unequal_spans():
    found = mean_template(np.arange(10.0), np.array([[0, 3], [5, 7]]))
    np.testing.assert_array_equal(found, np.float32([2.5, 3.5, 2.0]))


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
    st.fixed_dictionaries({name: st.integers(1, 40) for name in "abc"}),
    st.integers(1, 3),
    st.integers(0, 20),
    st.integers(0, 25),
    st.integers(0, 25),
    st.integers(0, 30),
)
def test_playlist_sections_against_a_walk_through_the_show(
    movies, lengths, repeats, pad, pre, post, extra
):
    shown = []  # frame by frame, what the display does
    for movie in movies * repeats:
        shown += [None] * pad + [movie] * lengths[movie] + [None] * (pad + 1)
    n_frames = len(shown) + extra
    found = playlists.playlist_sections(
        movies, lengths, n_frames, repeats=repeats, pad_frame=pad,
        pre_margin_frame_num=pre, post_margin_frame_num=post,
    )  # fmt: skip
    count, seen = 0, {}
    for index, movie in enumerate(movies * repeats):
        first = count + pad
        assert shown[first : first + lengths[movie]] == [movie] * lengths[movie]
        assert found["movie"][index] == movie
        assert found["movie_start_frame"][index] == first
        assert found["presentation"][index] == seen.get(movie, 0)
        seen[movie] = seen.get(movie, 0) + 1
        assert found["start_frame"][index] == max(first - pre, 0)
        wanted = first + lengths[movie] + 1 + post
        assert found["end_frame"][index] == min(wanted, n_frames - 1)
        count += 2 * pad + lengths[movie] + 1


def test_a_movie_without_a_length_is_an_error_that_names_it():
    with pytest.raises(ConfigurationError, match=r"lacks 'b'.*It has: 'a'"):
        playlists.playlist_sections(["b", "a"], {"a": 5}, 1000)


def test_a_movie_past_the_recording_is_an_error_that_names_it():
    lengths = {"a": 50, "b": 60}
    with pytest.raises(ConfigurationError, match=r"'b' \(presentation 0\).*recording has 150"):
        playlists.playlist_sections(["a", "b"], lengths, 150, pad_frame=20)
    playlists.playlist_sections(["a", "b"], lengths, 172, pad_frame=20)
    with pytest.raises(ConfigurationError, match=r"'b' \(presentation 0\)"):
        playlists.playlist_sections(["a", "b"], lengths, 171, pad_frame=20)


def test_negative_margins_are_refused():
    with pytest.raises(
        ConfigurationError, match="pre_margin_frame_num must be a number from 0 on"
    ):
        playlists.playlist_sections(["a"], {"a": 5}, 100, pre_margin_frame_num=-1)


def test_a_margin_past_the_recording_is_cut_and_remarked(recording, loaded, arguments):
    labtree.mea.add_section_time(
        session=loaded, **{**arguments, "post_margin_frame_num": 10_000}
    )
    assert "margin after" in loaded.session.warnings[0]
    assert loaded["stimulus/section_time"]["end_frame"].values.max() == (
        loaded["metadata"].sizes["frame"] - 1
    )


def write_csv(path, text):
    path.write_text(text)
    return path


def test_playlists_are_literals_and_never_run(tmp_path):
    hostile = "[__import__('os').mkdir('" + str(tmp_path / "ran") + "')]"
    path = write_csv(tmp_path / "p.csv", f'playlist_name,movie_names\nx,"{hostile}"\n')
    with pytest.raises(ConfigurationError, match="must be a list of names"):
        playlists.read_playlist(path, "x")
    assert not (tmp_path / "ran").exists()
    for wrong in ("", "[]", "['a', 3]", "'a'", "[1", "['']", "(" * 500):
        path = write_csv(tmp_path / "p.csv", f'playlist_name,movie_names\nx,"{wrong}"\n')
        with pytest.raises(ConfigurationError, match="must be a list of names"):
            playlists.read_playlist(path, "x")


def test_playlist_names_lose_their_extension_at_the_first_dot(tmp_path):
    path = write_csv(
        tmp_path / "p.csv", "playlist_name, movie_names\nx,\"['a.b.mp4', 'dir/c.mov', 'd']\"\n"
    )
    assert playlists.read_playlist(path, "x") == ["a", "c", "d"]


def test_unknown_playlists_and_broken_tables_say_what_they_found(tmp_path):
    path = write_csv(tmp_path / "p.csv", "playlist_name,movie_names\nx,\"['a']\"\n")
    with pytest.raises(ConfigurationError, match="no playlist 'y'; there are: 'x'"):
        playlists.read_playlist(path, "y")
    with pytest.raises(ConfigurationError, match="no such file"):
        playlists.read_playlist(tmp_path / "none.csv", "y")
    with pytest.raises(ConfigurationError, match="no column movie_name, movie_length"):
        playlists.read_movie_lengths(path)
    twice = "playlist_name,movie_names\nx,\"['a']\"\ny,['c']\nx,\"['b']\"\n"
    path = write_csv(tmp_path / "p.csv", twice)
    with pytest.raises(ConfigurationError, match="two different playlists are called 'x'"):
        playlists.read_playlist(path, "x")
    assert playlists.read_playlist(path, "y") == ["c"]
    for text in ("x", "1.5", "-3", "0", "", "nan", "inf"):
        path = write_csv(tmp_path / "l.csv", f"movie_name,movie_length\na,{text}\n")
        with pytest.raises(ConfigurationError, match="must be a number of frames"):
            playlists.read_movie_lengths(path)
    path = write_csv(tmp_path / "l.csv", "movie_name,movie_length\na,5\na.mp4,6\n")
    with pytest.raises(ConfigurationError, match="two different lengths"):
        playlists.read_movie_lengths(path)


def test_a_light_reference_that_is_too_short_is_named(loaded, arguments):
    light = loaded["stimulus/light_reference"]
    light.dataset = light.to_dataset().isel(sample=slice(1000))
    with pytest.raises(ConfigurationError, match="raw_ch1 has 1000; they are not of one"):
        labtree.mea.add_section_time(session=loaded, **arguments)


def test_a_failed_step_leaves_the_session_as_it_was(loaded, arguments, tmp_path):
    before = loaded.copy(deep=True)
    short = write_csv(tmp_path / "l.csv", "movie_name,movie_length\nnoise_small,1500\n")
    with pytest.raises(ConfigurationError, match="'step_small'"):
        labtree.mea.add_section_time(
            session=loaded, **{**arguments, "movie_length_file_path": short}
        )
    assert loaded.identical(before)


# --- trials


@pytest.mark.parametrize("pad_s", [(0.0, 0.0), (0.05, 0.1), (0.00001, 0.000029)])
def test_trials_against_brute_force(recording, loaded, arguments, pad_s):
    labtree.mea.add_section_time(session=loaded, **arguments)
    labtree.mea.section_spike_times(
        session=loaded, config_dir=recording.stimuli_dir, pad_margin=pad_s
    )
    pad = [round(s * 20_000) for s in pad_s]
    for movie in recording.movies:
        for unit in recording.spikes:
            expected = brute_force_trials(recording, unit, movie, pad)
            found = loaded.session.trials_spike_times(unit, movie)
            assert list(found) == list(range(len(expected)))
            assert [spikes.tolist() for spikes in found.values()] == expected
            whole = loaded.session.full_spike_times(unit, movie)
            assert whole.tolist() == sorted({t for trial in expected for t in trial})


def test_all_presentations_are_there(sectioned):
    noise = sectioned["sections/noise_small"]
    assert dict(noise.sizes) == {"unit": 4, "presentation": 2, "trial": 1}
    assert sectioned["sections/step_small"].sizes["trial"] == 4
    assert sectioned["sections/step_small"].attrs["n_trials"] == 8


def test_trials_do_not_depend_on_the_margins(recording, loaded, arguments):
    labtree.mea.add_section_time(session=loaded, **{**arguments, "pre_margin_frame_num": 3})
    labtree.mea.section_spike_times(session=loaded, config_dir=recording.stimuli_dir)
    for movie in recording.movies:
        expected = brute_force_trials(recording, "unit_001", movie)
        found = loaded.session.trials_spike_times("unit_001", movie)
        assert [spikes.tolist() for spikes in found.values()] == expected
    assert loaded["stimulus/section_time"].attrs["pre_margin_frame_num"] == 3


def test_trials_are_views_of_the_spikes(sectioned):
    found = sectioned.session.trials_spike_times("unit_001", "step_small")
    whole = sectioned["units"]["spike_times"].values
    assert all(np.shares_memory(spikes, whole) for spikes in found.values() if len(spikes))


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(st.lists(st.integers(-50, 300), max_size=12), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(-60, 400), st.integers(-60, 400)), min_size=1, max_size=6),
)
def test_spike_ranges_against_a_loop(trains, spans):
    trains = [sorted(train) for train in trains]
    flat = np.array([t for train in trains for t in train], np.int64)
    starts, stops = (np.array(side, np.int64) for side in zip(*spans, strict=True))
    first, last = spike_ranges(flat, np.array([len(t) for t in trains]), starts, stops)
    for unit, train in enumerate(trains):
        for index, (low, high) in enumerate(spans):
            found = flat[first[unit, index] : last[unit, index]].tolist()
            assert found == [t for t in train if low <= t < high]


def test_ranges_of_no_spikes():
    empty = np.zeros(0, np.int64)
    first, last = spike_ranges(empty, np.array([0, 0]), np.array([0]), np.array([9]))
    assert first.tolist() == last.tolist() == [[0], [0]]


def test_overlapping_trials_count_each_spike_once_in_the_whole(recording, loaded, arguments):
    labtree.mea.add_section_time(session=loaded, **arguments)
    labtree.mea.section_spike_times(
        session=loaded, config_dir=recording.stimuli_dir, pad_margin=(1.0, 1.0),
        movie_names="step_small",
    )  # fmt: skip
    assert list(loaded["sections"].children) == ["step_small"]
    trial_spikes = loaded.session.trials_spike_times("unit_001", "step_small")
    total = sum(map(len, trial_spikes.values()))
    whole = loaded.session.full_spike_times("unit_001", "step_small")
    assert len(whole) < total
    assert (np.diff(whole) > 0).all()


def test_sectioning_another_movie_keeps_the_first(recording, loaded, arguments):
    labtree.mea.add_section_time(session=loaded, **arguments)
    for movie in ("step_small", "noise_small"):
        labtree.mea.section_spike_times(
            session=loaded, config_dir=recording.stimuli_dir, movie_names=[movie]
        )
    assert set(loaded["sections"].children) == {"step_small", "noise_small"}


def test_what_is_missing_is_named(recording, loaded, arguments, tmp_path):
    with pytest.raises(ConfigurationError, match="needs add_section_time first"):
        labtree.mea.section_spike_times(session=loaded, config_dir=tmp_path)
    labtree.mea.add_section_time(session=loaded, **arguments)
    with pytest.raises(ConfigurationError, match="needs config_dir"):
        labtree.mea.section_spike_times(session=loaded)
    with pytest.raises(ConfigurationError, match=r"noise_small\.json.*no such file"):
        labtree.mea.section_spike_times(session=loaded, config_dir=tmp_path)
    with pytest.raises(KeyError, match="no movie 'x'; there are: 'noise_small', 'step_small'"):
        labtree.mea.section_spike_times(
            session=loaded, config_dir=recording.stimuli_dir, movie_names=["x"]
        )
    for pad in [(-1, 0), (0, np.nan), (1,), 3]:
        with pytest.raises(ConfigurationError, match="pad_margin"):
            labtree.mea.section_spike_times(
                session=loaded, config_dir=recording.stimuli_dir, pad_margin=pad
            )
    assert "sections" not in loaded.children
    with pytest.raises(KeyError, match="no sectioned movie 'x'; there are none"):
        loaded.session.trials_spike_times("unit_001", "x")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"start_frame": -1}, {"trial_length_frame": 0}, {"repeat": 0}, {"repeat": 1.5},
        {"group_count": True}, {"group_gap": -2}, {"start_frame": None},
    ],
)  # fmt: skip
def test_wrong_trial_tables_name_the_value(tmp_path, kwargs):
    good = {"start_frame": 0, "trial_length_frame": 5, "repeat": 2}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"section_kwargs": {**good, **kwargs}}))
    with pytest.raises(ConfigurationError, match=next(iter(kwargs))):
        movie_trials.read_section_config("a", tmp_path)
    for text in ("{", '{"section_kwargs": [1]}', '{"section_kwargs": null}', "[1]"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="section_kwargs"):
            movie_trials.read_section_config("a", tmp_path)


def test_a_trial_past_the_recording_is_an_error(recording, loaded, arguments, tmp_path):
    labtree.mea.add_section_time(session=loaded, **arguments)
    folder = tmp_path / "configs"
    shutil.copytree(recording.stimuli_dir, folder)
    config = {"start_frame": 0, "trial_length_frame": 40, "repeat": 200}
    (folder / "step_small.json").write_text(json.dumps({"section_kwargs": config}))
    with pytest.raises(ConfigurationError, match="movie 'step_small': its last trial ends"):
        labtree.mea.section_spike_times(session=loaded, config_dir=folder)
    config |= {"trial_length_frame": 45, "repeat": 3}  # past the section, in the recording
    (folder / "step_small.json").write_text(json.dumps({"section_kwargs": config}))
    labtree.mea.section_spike_times(session=loaded, config_dir=folder)
    assert "past the movie's section" in loaded.session.warnings[0]


def test_changed_spikes_do_not_go_with_old_sections(sectioned):
    with pytest.raises(SessionError, match="divided into trials already"):
        sectioned.session.add_units({"unit_001": {"spike_times": np.array([1, 2])}})
    before = sectioned.session.trials_spike_times("unit_001", "step_small")
    sectioned.session.add_units({"unit_999": {"spike_times": np.array([1, 2])}})
    after = sectioned.session.trials_spike_times("unit_001", "step_small")
    assert {n: t.tolist() for n, t in after.items()} == {
        n: t.tolist() for n, t in before.items()
    }
    with pytest.raises(KeyError, match="no unit 'unit_999'; there are: 'unit_001'"):
        sectioned.session.trials_spike_times("unit_999", "step_small")
    with pytest.raises(ConfigurationError, match="units have changed"):
        checked_sections(sectioned, "step_small")


def test_movies_at_both_ends_of_a_recording(tmp_path):
    truth = write_recording(
        tmp_path, n_units=2, movie_frames={"noise_a": 60}, repeats=1, pad_frame=0,
        pre_margin=5, sensor_s=0.05,
    )  # fmt: skip
    session = labtree.create_session("r")
    labtree.mea.load_recording(
        session=session, cmcr_path=truth.cmcr_path, cmtr_path=truth.cmtr_path
    )
    labtree.mea.add_section_time(
        session=session, playlist_name="set1", playlist_file_path=truth.playlist_path,
        movie_length_file_path=truth.movie_length_path, pad_frame=0, pre_margin_frame_num=5,
        post_margin_frame_num=50,
    )  # fmt: skip
    labtree.mea.section_spike_times(session=session, config_dir=truth.stimuli_dir)
    found = session.session.trials_spike_times("unit_001", "noise_a")[0]
    assert found.tolist() == brute_force_trials(truth, "unit_001", "noise_a")[0]
