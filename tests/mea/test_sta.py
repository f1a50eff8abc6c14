import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import ConfigurationError, FormatError
from labtree.mea import sta, sta_kernel
from support.examples import examples


def brute_force(movie, counts, cover_range):
    """Window after window, as the definition says."""
    first, last = cover_range
    n_frames = len(movie)
    average = np.full((len(counts), last - first, *movie.shape[1:]), np.nan)
    used = np.zeros(len(counts), int)
    for unit, row in enumerate(counts):
        windows = []
        for frame in range(n_frames):
            if frame + first >= 0 and frame + last <= n_frames:
                windows += [movie[frame + first : frame + last].astype(float)] * row[frame]
        used[unit] = len(windows)
        if windows:
            average[unit] = np.mean(windows, axis=0)
    return average, used


@settings(max_examples=examples(60), deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 300),
    st.sampled_from([(-12, 0), (-1, 0), (-5, 4), (2, 7), (-9, -3), (0, 1), (-60, 0)]),
    st.sampled_from(["u1", "?", "i2", "f4", "f8", "u2", ">i4", ">f4"]),
    st.sampled_from([None, True, False]),
)
def test_against_brute_force(seed, n_frames, cover_range, dtype, sparse):
    random = np.random.default_rng(seed)
    movie = (random.random((n_frames, 2, 3)) * 200).astype(dtype)
    counts = random.poisson(0.2, (3, n_frames))
    counts[1] = 0
    expected, used = brute_force(movie, counts, cover_range)
    with pytest.MonkeyPatch.context() as patch:
        if sparse is not None:
            patch.setattr(sta_kernel, "_prefers_sparse", lambda *_: sparse)
        average, n_spikes, z = sta_kernel.spike_triggered_average(movie, counts, cover_range)
    assert z is None
    assert n_spikes.tolist() == used.tolist()
    assert average.dtype == np.float32
    if np.dtype(dtype).kind == "f":
        np.testing.assert_allclose(average, expected, atol=1e-4)
    else:  # exact sums: the same float32 to the last bit
        np.testing.assert_array_equal(average, expected.astype(np.float32))


def test_integer_sums_are_exact_where_they_are_large():
    random = np.random.default_rng(0)
    movie = random.integers(60_000, 65_536, (500, 4), dtype=np.uint16)
    counts = random.integers(0, 50, (2, 491))
    for sparse in (True, False):
        prepared = sta_kernel._prepare(counts, 10, len(movie), sparse)
        found = sta_kernel._sums(movie, prepared, 10)
        expected = np.array(
            [
                [row @ movie[lag : lag + 491].astype(np.int64) for lag in range(10)]
                for row in counts
            ]
        )
        np.testing.assert_array_equal(found, expected)


def test_both_ways_agree_and_the_cheaper_one_is_chosen():
    few, many = np.zeros((5, 4000), int), np.ones((5, 4000), int)
    few[:, 7] = 1
    assert sta_kernel._prefers_sparse(few, 60, 4059)
    assert not sta_kernel._prefers_sparse(many, 60, 4059)


def test_tiles_of_pixels_change_nothing(monkeypatch):
    random = np.random.default_rng(1)
    movie = random.integers(0, 256, (200, 5, 7), dtype=np.uint8)
    counts = random.poisson(0.3, (3, 200))
    whole, *_ = sta_kernel.spike_triggered_average(movie, counts, (-20, 0))
    for name in ("TILE_BYTES", "SLAB_BYTES"):
        monkeypatch.setattr(sta_kernel, name, 1000)
        tiled, *_ = sta_kernel.spike_triggered_average(movie, counts, (-20, 0))
        np.testing.assert_array_equal(whole, tiled)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_threads_change_nothing(monkeypatch, n_workers):
    random = np.random.default_rng(1)
    movie = random.random((200, 5, 7))
    counts = random.poisson(0.3, (3, 200))
    monkeypatch.setattr(sta_kernel, "TILE_BYTES", 1000)
    monkeypatch.setattr(sta_kernel, "_workers", lambda: contextlib.nullcontext(n_workers))
    found, _, z = sta_kernel.spike_triggered_average(
        movie, counts, (-20, 0), permutations=3, subtract_mean=True
    )
    expected, _ = brute_force(movie - movie.mean(axis=0), counts, (-20, 0))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isfinite(z).all()
    movie[7, 4, 6] = np.inf
    with pytest.raises(ConfigurationError, match="frame 7 holds NaN"):
        sta_kernel.spike_triggered_average(movie, counts, (-20, 0))


def test_mean_subtraction():
    random = np.random.default_rng(2)
    movie = random.integers(0, 256, (300, 3, 3), dtype=np.uint8)
    counts = random.poisson(0.3, (2, 300))
    plain, *_ = sta_kernel.spike_triggered_average(movie, counts, (-10, 0))
    less, *_ = sta_kernel.spike_triggered_average(movie, counts, (-10, 0), subtract_mean=True)
    np.testing.assert_allclose(
        plain - less, np.broadcast_to(movie.mean(0), less.shape), rtol=1e-4
    )


def test_z_score_against_brute_force():
    random = np.random.default_rng(3)
    movie = random.integers(0, 2, (150, 2, 2), dtype=np.uint8)
    counts = random.poisson(0.4, (2, 150))
    average, _, z = sta_kernel.spike_triggered_average(
        movie, counts, (-6, 0), permutations=40, seed=5
    )
    shifted = counts[:, 6:]
    turns = np.random.default_rng(5).integers(1, shifted.shape[1], size=(40, 2))
    others = []
    for turn in turns:
        rotated = np.zeros_like(counts)
        rotated[:, 6:] = [np.roll(row, t) for row, t in zip(shifted, turn, strict=True)]
        others.append(brute_force(movie, rotated, (-6, 0))[0])
    expected = (average - np.mean(others, axis=0)) / np.std(others, axis=0)
    np.testing.assert_allclose(z, expected, rtol=1e-3, atol=1e-4)


def test_z_score_is_nan_where_the_movie_never_changes():
    movie = np.full((100, 1, 2), 7, np.uint8)
    movie[::2, 0, 1] = 9
    counts = np.random.default_rng(0).poisson(0.5, (1, 100))
    _, _, z = sta_kernel.spike_triggered_average(movie, counts, (-3, 0), permutations=20)
    assert np.isnan(z[..., 0]).all()
    assert np.isfinite(z[..., 1]).all()


def test_wrong_movies_and_ranges_are_errors():
    counts = np.ones((1, 5), int)
    for movie in (np.zeros((5, 2), complex), np.array(["a"] * 5)):
        with pytest.raises(ConfigurationError, match="numeric array"):
            sta_kernel.spike_triggered_average(movie, counts, (-1, 0))
    movie = np.zeros((5, 2))
    movie[3, 1] = np.nan
    with pytest.raises(ConfigurationError, match="frame 3 holds NaN"):
        sta_kernel.spike_triggered_average(movie, counts, (-1, 0))
    for wrong in ((0, 0), 12, (-12, 0, 1)):
        with pytest.raises(ConfigurationError, match=r"cover_range must be .* got"):
            sta_kernel.spike_triggered_average(np.zeros((5, 2)), counts, wrong)
    with pytest.raises(ConfigurationError, match="permutations must be a whole number"):
        sta_kernel.spike_triggered_average(np.zeros((5, 2)), counts, permutations=-1)
    with pytest.raises(ValueError, match="counts of 5 frames for a movie of 6"):
        sta_kernel.spike_triggered_average(np.zeros((6, 2)), counts, (-1, 0))


def test_a_window_longer_than_the_movie_has_no_valid_spike():
    average, n_spikes, _ = sta_kernel.spike_triggered_average(
        np.zeros((5, 2)), np.ones((1, 5), int), (-60, 0)
    )
    assert n_spikes.tolist() == [0]
    assert np.isnan(average).all()
    assert average.shape == (1, 60, 2)


# --- the step


def brute_force_counts(truth, unit, movie):
    """Spikes of all trials of all presentations, by frame of the movie."""
    from .test_movies import brute_force_trials

    counts = np.zeros(len(truth.movies[movie]), int)
    total = 0
    trials = brute_force_trials(truth, unit, movie)
    per_presentation = len(trials) // len(truth.movie_starts[movie])
    for index, start in enumerate(truth.movie_starts[movie]):
        part = trials[index * per_presentation : (index + 1) * per_presentation]
        for spike in sorted({t for trial in part for t in trial}):
            frame = np.flatnonzero(truth.frames <= spike)[-1] - start
            total += 1
            if 0 <= frame < len(counts):
                counts[frame] += 1
    return counts, total


def test_compute_sta_against_brute_force(recording, sectioned):
    labtree.mea.compute_sta((-12, 0), recording.stimuli_dir, session=sectioned)
    made = sectioned["features/sta_noise_small"].to_dataset()
    movie = recording.movies["noise_small"]
    assert dict(made["sta"].sizes) == {"unit": 4, "lag": 12, "y": 6, "x": 6}
    assert made["lag"].values.tolist() == list(range(-12, 0))
    for unit in recording.spikes:
        counts, total = brute_force_counts(recording, unit, "noise_small")
        expected, used = brute_force(movie, counts[None], (-12, 0))
        row = made.sel(unit=unit)
        np.testing.assert_array_equal(row["sta"], expected[0].astype(np.float32))
        assert int(row["n_spikes"]) == used[0]
        assert int(row["n_spikes_excluded"]) == total - used[0]
    assert made.attrs["n_presentations"] == 2
    assert made.attrs["cover_range"] == [-12, 0]


def test_the_planted_receptive_field_is_recovered(recording, sectioned):
    labtree.mea.compute_sta(
        (-12, 0), recording.stimuli_dir, session=sectioned, subtract_mean=True, permutations=30
    )
    made = sectioned["features/sta_noise_small"].to_dataset()
    for unit, field in recording.fields.items():
        found = made["sta"].sel(unit=unit).values
        own = np.corrcoef(found.ravel(), field.ravel())[0, 1]
        others = [
            np.corrcoef(found.ravel(), f.ravel())[0, 1]
            for name, f in recording.fields.items()
            if name != unit
        ]
        assert own > 0.6
        assert own > max(others) + 0.3
        z = made["z_score"].sel(unit=unit).values
        peak = np.unravel_index(np.abs(field).argmax(), field.shape)
        assert abs(z[peak]) > 5


def test_a_unit_without_a_spike_in_the_movie_is_nan(recording, loaded, arguments):
    loaded.session.add_units({"unit_900": {"spike_times": np.array([0, 5])}})
    labtree.mea.add_section_time(session=loaded, **arguments)
    labtree.mea.section_spike_times(session=loaded, config_dir=recording.stimuli_dir)
    labtree.mea.compute_sta((-5, 0), recording.stimuli_dir, session=loaded)
    row = loaded["features/sta_noise_small"].sel(unit="unit_900")
    assert np.isnan(row["sta"]).all()
    assert int(row["n_spikes"]) == 0


@pytest.mark.parametrize(
    ("cover", "pad_s"),
    [
        ((-12, 0), (0.2, 0.2)),
        ((-20, -8), (0.0, 0.2)),
        ((2, 6), (0.2, 0.0)),
        ((-3, 4), (0.2, 0.2)),
    ],
)
def test_a_spike_counts_if_all_its_averaged_frames_lie_in_the_movie(
    recording, loaded, arguments, cover, pad_s
):
    from .test_movies import brute_force_trials

    labtree.mea.add_section_time(session=loaded, **arguments)
    labtree.mea.section_spike_times(
        session=loaded, config_dir=recording.stimuli_dir, pad_margin=pad_s
    )
    labtree.mea.compute_sta(cover, recording.stimuli_dir, session=loaded)
    made = loaded["features/sta_noise_small"]
    movie = recording.movies["noise_small"].astype(float)
    pad = [round(s * recording.rate) for s in pad_s]
    outside = 0
    for unit in recording.spikes:
        windows, total = [], 0
        trials = brute_force_trials(recording, unit, "noise_small", pad)
        for start, trial in zip(recording.movie_starts["noise_small"], trials, strict=True):
            for spike in trial:  # padding brings in no spike twice
                frame = int(np.flatnonzero(recording.frames <= spike)[-1]) - start
                total += 1
                if frame + cover[0] >= 0 and frame + cover[1] <= len(movie):
                    windows.append(movie[frame + cover[0] : frame + cover[1]])
                    outside += not 0 <= frame < len(movie)
        row = made.sel(unit=unit)
        np.testing.assert_allclose(row["sta"], np.mean(windows, axis=0), atol=1e-4)
        assert int(row["n_spikes"]) == len(windows)
        assert int(row["n_spikes_excluded"]) == total - len(windows)
    assert (outside > 0) == (cover[1] <= 0 or cover[0] > 0)
    assert made["lag"].values.tolist() == list(range(*cover))


def test_which_movie(recording, sectioned, tmp_path):
    np.save(tmp_path / "step_small.npy", np.zeros((120, 2, 2), np.uint8))
    labtree.mea.compute_sta((-2, 0), tmp_path, session=sectioned, movie_name="step_small")
    assert "sta_step_small" in sectioned["features"].children
    with pytest.raises(KeyError, match="no movie 'x'; there are: 'noise_small'"):
        labtree.mea.compute_sta((-2, 0), tmp_path, session=sectioned, movie_name="x")
    node = sectioned["stimulus/section_time"]

    def rename(*movies):
        node.dataset = node.to_dataset().assign_coords(movie=("section", np.array(movies)))

    rename("a", "b", "a", "b")
    with pytest.raises(ConfigurationError, match=r"found 0 .*movie_name='a'"):
        labtree.mea.compute_sta((-2, 0), tmp_path, session=sectioned)
    rename("noise1", "noise2", "noise1", "noise2")
    with pytest.raises(ConfigurationError, match=r"found 2 .*movie_name='noise1'"):
        labtree.mea.compute_sta((-2, 0), tmp_path, session=sectioned)


def test_missing_and_wrong_movie_files(recording, sectioned, tmp_path):
    def run():
        labtree.mea.compute_sta((-2, 0), tmp_path, session=sectioned)

    path = tmp_path / "noise_small.npy"
    with pytest.raises(ConfigurationError, match="needs stimuli_dir"):
        labtree.mea.compute_sta((-2, 0), session=sectioned)
    with pytest.raises(ConfigurationError, match="no such movie"):
        run()
    path.write_bytes(b"junk")
    with pytest.raises(FormatError, match=r"not a numeric .npy"):
        run()
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"not a numeric .npy"):
        run()
    np.save(path, np.zeros(5))
    with pytest.raises(FormatError, match="expected a numeric movie"):
        run()
    with path.open("wb") as handle:
        np.savez(handle, a=np.zeros(3))
    with pytest.raises(FormatError, match="archive"):
        run()
    np.save(path, np.zeros((300, 2, 2)))
    with pytest.raises(
        ConfigurationError, match="300 frames, but the movie was shown for 1500"
    ):
        run()
    assert "features" not in sectioned.children
    np.save(path, np.zeros((1499, 2, 2)))
    run()
    assert "1499 frames" in sectioned.session.warnings[0]


def test_the_movie_is_mapped_not_read(recording):
    movie = sta.open_movie(recording.stimuli_dir / "noise_small.npy")
    assert isinstance(movie, np.memmap)
    assert movie.shape == (1500, 6, 6)
