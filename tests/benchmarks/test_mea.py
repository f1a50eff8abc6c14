"""Speed of pipeline sessions and CMOS-MEA steps beside the naive loops they replace.

As a test it runs with small sizes and checks that both ways give the same. The full
sizes: ``python tests/benchmarks/test_mea.py``. The baselines are written from a
description of what a per-unit pipeline does: one HDF5 object per array and unit, a
Python loop over spikes, a window gathered per spike.
"""

import gc
import json
import resource
import sys
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

import labtree
from labtree.mea.electrical_image import Segment, electrical_images, high_pass
from labtree.mea.features import frame_interval_rates
from labtree.mea.sta_kernel import spike_triggered_average


def timed(action, repeat=1):
    """Return the median time of an action, and its last result."""
    times = []
    for _ in range(repeat):
        gc.collect()  # of what earlier work has left
        started = time.perf_counter()
        result = action()
        times.append(time.perf_counter() - started)
    return float(np.median(times)), result


def random_trains(n_units, n_spikes, n_samples, seed=0):
    random = np.random.default_rng(seed)
    return [np.sort(random.integers(0, n_samples, n_spikes)) for _ in range(n_units)]


# --- a session of many units, saved and loaded


def make_session(n_units, n_spikes, n_intervals, folder, n_movies=8, n_trials=5):
    """A session with sections, FRIF and spike-triggered averages of every unit."""
    random = np.random.default_rng(0)
    n_samples = 20_000 * 600
    trains = random_trains(n_units, n_spikes, n_samples)
    session = labtree.create_session("bench", output_dir=folder)
    session.session.add_units(
        {
            f"unit_{i:03d}": {
                "spike_times": train, "waveform": np.zeros(60, np.float32),
                "firing_rate_10hz": np.zeros(6000, np.float32), "row": i % 65,
            }
            for i, train in enumerate(trains)
        }
    )  # fmt: skip
    units = session["units"].to_dataset()
    from labtree.storage.ragged import spike_ranges

    for movie in range(n_movies):
        begin = (movie * n_trials + np.arange(n_trials)) * n_samples // (n_movies * n_trials)
        end = begin + n_samples // 50
        ranges = spike_ranges(units["spike_times"].values, units["row_size"].values, begin, end)
        dims = ("unit", "presentation", "trial")
        offsets = np.concatenate([[0], np.cumsum(units["row_size"].values)])[:-1]
        session[f"sections/movie{movie}"] = xr.DataTree(
            xr.Dataset(
                {
                    "start": (dims, ranges[0][:, None]),
                    "stop": (dims, ranges[1][:, None]),
                    "trial_start": (dims[1:], begin[None]),
                    "trial_end": (dims[1:], end[None]),
                    "first_spike": ("unit", offsets),
                    "n_spikes": ("unit", units["row_size"].values),
                },
                {"unit": units["unit"].values},
            )
        )
    names = units["unit"].values
    rates = random.random((n_units, n_intervals), dtype=np.float32)
    time_axis = np.arange(n_intervals) / 60
    session["features/frif"] = xr.DataTree(
        xr.Dataset(
            {"frif": (("unit", "interval"), rates)}, {"unit": names, "interval": time_axis}
        )
    )
    sta = random.random((n_units, 60, 15, 15), dtype=np.float32)
    session["features/sta_noise"] = xr.DataTree(
        xr.Dataset({"sta": (("unit", "lag", "y", "x"), sta)}, {"unit": names})
    )
    return session


def nested(session):
    """The same content as a dictionary of dictionaries, unit by unit."""
    units = {}
    frif, sta = session["features/frif"], session["features/sta_noise"]
    rates, axis, averages = frif["frif"].values, frif["interval"].values, sta["sta"].values
    source = session["units"].to_dataset()
    ends = np.cumsum(source["row_size"].values)
    trains = np.split(source["spike_times"].values, ends[:-1])
    sections = {name: node.to_dataset() for name, node in session["sections"].children.items()}
    flat = source["spike_times"].values
    for i, unit in enumerate(source["unit"].values):
        sectioned = {}
        for name, section in sections.items():
            spans = zip(
                section["start"].values[i, 0], section["stop"].values[i, 0], strict=True
            )
            trials = {str(n): flat[a:b] for n, (a, b) in enumerate(spans)}
            bounds = [section[k].values[0] for k in ("trial_start", "trial_end")]
            sectioned[name] = {
                "full_spike_times": np.unique(np.concatenate(list(trials.values()))),
                "trials_spike_times": trials,
                "trials_start_end": np.stack(bounds, axis=1),
                "_attrs": {
                    "n_trials": 5,
                    "pad_margin": 0.0,
                    "pre_samples": 0,
                    "post_samples": 0,
                },
            }
        units[str(unit)] = {
            "spike_times": trains[i].astype(np.uint64),
            "waveform": source["waveform"].values[i],
            "firing_rate_10hz": source["firing_rate_10hz"].values[i],
            "features": {
                "frif": {"data": {"FRIF": rates[i], "FRIF_x_axis": axis}, "metadata": {"v": 1}},
                "sta_noise": {"data": averages[i], "metadata": {"n": 1}},
            },
            "spike_times_sectioned": sectioned,
        }
    return {"units": units}


def write_group(group, data):
    for name, value in data.items():
        if isinstance(value, dict):
            write_group(group.create_group(name), value)
        else:
            group.create_dataset(name, data=value)


def read_group(group):
    return {
        name: read_group(member) if isinstance(member, h5py.Group) else member[()]
        for name, member in group.items()
    }


def naive_save(data, path):
    with h5py.File(path, "w") as file:
        write_group(file, data)


def naive_load(path):
    with h5py.File(path) as file:
        return read_group(file)


def compare_session(n_units=500, n_spikes=5000, n_intervals=10_000, repeat=5):
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(n_units, n_spikes, n_intervals, folder)
        data = nested(session)
        path = Path(folder) / "naive.h5"
        save_naive, _ = timed(partial(naive_save, data, path))
        del data
        load_naive, found = timed(lambda: naive_load(path))
        last = f"unit_{n_units - 1:03d}"
        expected = found["units"][last]["spike_times"]
        expected_trials = found["units"][last]["spike_times_sectioned"]["movie3"][
            "trials_spike_times"
        ]
        del found
        ours = Path(folder) / "bench.h5"

        def save_whole():  # a file that is there would only be completed
            ours.unlink(missing_ok=True)
            assert session.session.save() == ours

        save, _ = timed(save_whole, repeat)
        bare, _ = timed(lambda: labtree.storage.save_tree(session, ours), repeat)
        session.session.save()
        load, loaded = timed(lambda: labtree.load_session(ours), repeat)
        np.testing.assert_array_equal(loaded.session.spikes(last).values, expected)
        trials = loaded.session.trials_spike_times(last, "movie3")
        for n, train in expected_trials.items():
            np.testing.assert_array_equal(trials[int(n)], train)
        assert loaded.session.is_saved
        size = f"{ours.stat().st_size / 1e6:.0f} MB, naive {path.stat().st_size / 1e6:.0f} MB"
    return [
        (f"session of {n_units} units, save ({size})", save_naive, save, ""),
        ("  of this, writing alone", save_naive, bare, ""),
        (f"session of {n_units} units, load", load_naive, load, ""),
    ]


# --- loading a recording


def write_units(folder, n_units, n_spikes, seconds):
    """A CMCR and CMTR with cutouts of 60 samples."""
    from labtree.testing.mea import write_recording

    return write_recording(
        folder, n_units=n_units, rate_hz=n_spikes / seconds, cutout=60, sensor_s=0.05,
        repeats=1, movie_frames={"noise_a": int(seconds * 60)}, movie_size=2, gain=0.1,
    )  # fmt: skip


def naive_recording(truth):
    """One row of Peaks after another, the table read again for every question."""
    units = {}
    with h5py.File(truth.cmtr_path) as file:
        sorter = file["Spike Sorter"]
        for name in sorter:
            if not isinstance(sorter[name], h5py.Group):
                continue
            peaks = sorter[name]["Peaks"]
            times = peaks[()]["Timestamp"][peaks[()]["IncludePeak"] == 1]
            amplitudes = peaks[()]["PeakAmplitude"][peaks[()]["IncludePeak"] == 1]
            rows = peaks[()][peaks[()]["IncludePeak"] == 1]
            cutouts = [list(row.item())[3:] for row in rows]
            source = sorter[name]["Source"][()]
            edges = np.arange(0, (-(-truth.duration_us // 100_000) + 1) * 1e5, 1e5)
            units[name] = {
                "spike_times": np.round(times * 20_000 / 1e6).astype(np.uint64),
                "waveform": np.mean(cutouts, axis=0).astype(np.float32),
                "firing_rate_10hz": np.histogram(times, edges)[0] * 10.0,
                "amplitude": amplitudes, "source": source[0],
            }  # fmt: skip
    with h5py.File(truth.cmcr_path) as file:
        data = file["Acquisition/Analog Data/ChannelData 1"]
        light = {f"raw_ch{i + 1}": data[i].astype(np.float32) for i in range(2)}
    for channel in (1, 2):
        raw = light[f"raw_ch{channel}"]
        for factor in (20, 2000):
            light[f"{factor}_{channel}"] = (
                raw[: len(raw) // factor * factor].reshape(-1, factor).mean(axis=1)
            )
    from scipy.signal import find_peaks

    sync = light["raw_ch2"] / np.percentile(light["raw_ch2"], 99.9)
    return units, light, find_peaks(np.diff(sync), height=0.1)[0][4:]


def compare_load_recording(n_units=50, n_spikes=5000, seconds=250.0, repeat=5):
    with tempfile.TemporaryDirectory() as folder:
        truth = write_units(folder, n_units, n_spikes, seconds)
        naive, (units, _, frames) = timed(lambda: naive_recording(truth))

        def ours():
            session = labtree.create_session("r")
            return labtree.mea.load_recording(truth.cmcr_path, truth.cmtr_path, session=session)

        ours()
        fast, session = timed(ours, repeat)

        def cmtr():
            from labtree.mea.mcs_files import open_mea
            from labtree.mea.mcs_units import read_units

            with open_mea(truth.cmtr_path) as source:
                return read_units(source)

        alone, _ = timed(cmtr, repeat)
    for number in (1, n_units):
        row = session["units"].sel(unit=f"unit_{number:03d}")
        np.testing.assert_allclose(
            row["waveform"], units[f"Unit {number}"]["waveform"], rtol=1e-5
        )
        np.testing.assert_array_equal(
            session.session.spikes(f"unit_{number:03d}").values,
            units[f"Unit {number}"]["spike_times"],
        )
    np.testing.assert_array_equal(session["metadata"]["frame_timestamps"], frames)
    return [
        (f"load_recording, {n_units} units x {n_spikes} spikes", naive, fast, ""),
        ("  of this, the units of the CMTR", naive, alone, "baseline: whole load"),
    ]


# --- firing rate per frame interval


def naive_frif(train, frames, rate):
    out = np.zeros(len(frames) - 1, np.float32)
    for i in range(len(frames) - 1):
        count = np.sum((train >= frames[i]) & (train < frames[i + 1]))
        out[i] = count / ((frames[i + 1] - frames[i]) / rate)
    return out


def compare_frif(n_units=500, n_spikes=5000, n_frames=71_900, measured_units=2, repeat=3):
    rate = 20_000.0
    frames = np.rint(np.arange(n_frames) * rate / 60).astype(np.int64)
    trains = random_trains(n_units, n_spikes, int(frames[-1]))
    flat, sizes = np.concatenate(trains), np.full(n_units, n_spikes)
    one, expected = timed(
        lambda: [naive_frif(t, frames, rate) for t in trains[:measured_units]]
    )
    fast, found = timed(lambda: frame_interval_rates(flat, sizes, frames, rate), repeat)
    np.testing.assert_allclose(found[:measured_units], expected, rtol=1e-6)
    note = f"baseline from {measured_units} units x {n_units / measured_units:g}"
    return [
        (
            f"FRIF, {n_units} units x {n_frames} frames",
            one * n_units / measured_units,
            fast,
            note,
        )
    ]


# --- spike-triggered average


def naive_sta(movie, frames, n_lags):
    """All windows of a unit gathered, then their mean."""
    windows = movie[frames[:, None] + np.arange(-n_lags, 0)]
    return windows.mean(axis=0)


def compare_sta(
    n_units=200, n_spikes=2000, n_frames=10_000, side=100, n_lags=60, measured_units=2,
    repeat=3, product=True,
):  # fmt: skip
    random = np.random.default_rng(0)
    movie = random.integers(0, 256, (n_frames, side, side), dtype=np.uint8)
    frames = [np.sort(random.integers(n_lags, n_frames, n_spikes)) for _ in range(n_units)]
    counts = np.array([np.bincount(f, minlength=n_frames) for f in frames])
    one, expected = timed(
        lambda: [naive_sta(movie, f, n_lags) for f in frames[:measured_units]]
    )
    spike_triggered_average(movie[:500, :2, :2], counts[:2, :500], (-n_lags, 0))
    fast, (found, *_) = timed(
        lambda: spike_triggered_average(movie, counts, (-n_lags, 0)), repeat
    )
    np.testing.assert_allclose(found[:measured_units], expected, rtol=1e-3)
    what = f"STA, {n_units} units, {n_frames} frames of {side} x {side}, {n_lags} lags"
    note = f"baseline from {measured_units} units x {n_units / measured_units:g}"
    rows = [(what, one * n_units / measured_units, fast, note)]
    if product:
        left = random.random((n_units * n_lags, n_frames), dtype=np.float32)
        right = movie.reshape(n_frames, -1).astype(np.float32)
        matrix, _ = timed(lambda: left @ right)
        rows.append(("  against one float32 matrix product of that size", matrix, fast, ""))
    return rows


# --- electrical image


def naive_image(counts, trains, n_window=50, pre=10):
    """A filtered copy of the chunk, one window after another added in float64."""
    from scipy import signal

    sos = signal.butter(2, 100 / 10_000, "high", output="sos")
    filtered = signal.sosfiltfilt(sos, counts.astype(np.float32), axis=0)
    sums = [np.zeros((n_window, *counts.shape[1:])) for _ in trains]
    for total, train in zip(sums, trains, strict=True):
        for spike in train:
            if spike >= pre and spike + n_window - pre <= len(filtered):
                total += filtered[spike - pre : spike - pre + n_window]
    return sums


def _peak_mb():
    status = Path("/proc/self/status")
    if status.exists():  # the other figure begins with what the parent process had
        line = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) / 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def _image_job(which, path, trains, seconds, chunk_s, queue):
    """Run one of the two ways on a file, in a process of its own, and tell time and memory."""
    rate = 20_000
    with h5py.File(path) as file:
        data = file["x"]
        electrical_images(  # compiled before the clock runs
            [Segment(0, 200, lambda a, b: np.zeros((b - a, 2, 2), np.int16))], np.array([50]),
            np.array([1]),
            pre=10, post=40, sos=high_pass(100.0, 2, 20_000.0), chunk_frames=200,
        )  # fmt: skip
        before = _peak_mb()
        started = time.perf_counter()
        if which == "naive":
            chunk = int(chunk_s * rate)
            result = None
            for begin in range(0, int(seconds * rate), chunk):
                own = [t[(t >= begin) & (t < begin + chunk)] - begin for t in trains]
                sums = naive_image(data[begin : begin + chunk], own)
                result = (
                    sums
                    if result is None
                    else [a + b for a, b in zip(result, sums, strict=True)]
                )
        else:
            result, _ = electrical_images(
                [Segment(0, len(data), lambda a, b: data[a:b])], np.concatenate(trains),
                np.array([len(t) for t in trains]), pre=10, post=40,
                sos=high_pass(100.0, 2, 20_000.0), chunk_frames=int(chunk_s * rate),
            )  # fmt: skip
        took = time.perf_counter() - started
        probe = np.asarray(result[0])[10].ravel()[:4].tolist()
        queue.put((took, _peak_mb() - before, probe))


def _in_process(*arguments):
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_image_job, args=(*arguments, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def compare_image(n_units=50, n_spikes=2400, seconds=5.0, side=65, measured_s=1.0, chunk_s=1.0):
    rate = 20_000
    random = np.random.default_rng(0)
    trains = random_trains(n_units, n_spikes, int(seconds * rate))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sensors.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset(
                "x", (int(seconds * rate), side, side), np.int16, chunks=(1000, side, side)
            )
            block = random.normal(0, 30, (rate, side, side)).astype(np.int16)
            for begin in range(0, len(data), rate):
                data[begin : begin + rate] = block[: len(data) - begin]
        part = [t[t < measured_s * rate] for t in trains]
        naive, naive_mb, _ = _in_process("naive", path, part, measured_s, chunk_s)
        fast, fast_mb, _ = _in_process("ours", path, trains, seconds, chunk_s)
    scale = seconds / measured_s
    memory = f"memory +{naive_mb:.0f} MB, +{fast_mb:.0f} MB"
    note = f"baseline from {measured_s:g} s x {scale:g}; {memory}"
    what = f"electrical images, {side} x {side} x {seconds:g} s, {n_units} units x {n_spikes}"
    return [(what, naive * scale, fast, note)]


# --- what a step itself costs: finding what it changed, the copy, the record


def compare_step(n_units=500, n_spikes=5000, n_intervals=10_000, repeat=5):
    """Each step's body beside all else that the step does around it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(n_units, n_spikes, n_intervals, folder)
        n_samples, movies = 20_000 * 600, [f"movie{n}" for n in range(8)]
        frames = np.arange(0, n_samples, 333)
        session.session.add_metadata({"acquisition_rate": 20_000.0, "frame_timestamps": frames})
        light = np.random.default_rng(0).integers(0, 1000, n_samples, dtype=np.int32)
        session.session.add_stimulus({"light_reference": {"raw_ch1": light}})
        session.session.mark_step_complete("load_recording")
        length = (len(frames) - 10) // 8 - 361
        table = "\n".join(f"{movie},{length}" for movie in movies)
        (Path(folder) / "movie_length.csv").write_text(f"movie_name,movie_length\n{table}\n")
        text = f'playlist_name,movie_names\nset,"{movies!r}"\n'
        (Path(folder) / "playlist.csv").write_text(text)
        config = {"start_frame": 0, "trial_length_frame": length // 6, "repeat": 5}
        for movie in movies:
            text = json.dumps({"section_kwargs": config})
            (Path(folder) / f"{movie}.json").write_text(text)
        calls = (
            ("add_section_time", {
                "playlist_name": "set",
                "playlist_file_path": Path(folder) / "playlist.csv",
                "movie_length_file_path": Path(folder) / "movie_length.csv",
            }),
            ("section_spike_times", {"config_dir": folder}),
            ("extract_features", {"features": ["frif"]}),
        )  # fmt: skip
        nbytes = sum(node.to_dataset(inherit=False).nbytes for node in session.subtree)
        for name, arguments in calls:
            step = getattr(labtree.mea, name)
            step(session=session, **arguments)
            body, _ = timed(partial(step.__wrapped__, session.copy(), **arguments), repeat)
            whole, _ = timed(partial(step, session=session, force=True, **arguments), repeat)
            what = f"{name}, session of {nbytes / 1e6:.0f} MB: body beside all else"
            rows.append((what, body, max(whole - body, 1e-6), ""))
    return rows


# --- as tests


def test_step_small():
    assert len(compare_step(3, 50, 100, repeat=1)) == 3


def test_session_small():
    assert len(compare_session(5, 50, 100, repeat=1)) == 3


def test_load_recording_small():
    assert compare_load_recording(3, 60, 3.0, repeat=1)


def test_frif_small():
    assert compare_frif(4, 100, 300, repeat=1)


def test_sta_small():
    assert len(compare_sta(3, 60, 400, 4, 10, repeat=1)) == 2


def test_image_small():
    random = np.random.default_rng(0)
    counts = random.normal(0, 30, (4000, 3, 3)).astype(np.int16)
    trains = random_trains(2, 40, 4000)
    sums = naive_image(counts, trains)
    found, used = electrical_images(
        [Segment(0, 4000, lambda a, b: counts[a:b])], np.concatenate(trains),
        np.array([40, 40]), pre=10, post=40, sos=high_pass(100.0, 2, 20_000.0),
        chunk_frames=900,
    )  # fmt: skip
    np.testing.assert_allclose(found[0], sums[0] / used[0], atol=0.01)


def main():
    """Run the full sizes (or those named on the command line) and print a table."""
    wanted = sys.argv[1:] or ["session", "load_recording", "frif", "sta", "image", "step"]
    print(f"| work | baseline s | labtree s | ratio | remarks |\n|{'---|' * 5}")
    for name in wanted:
        for what, naive, ours, note in globals()[f"compare_{name}"]():
            print(
                f"| {what} | {naive:.3g} | {ours:.3g} | {naive / ours:.1f} x | {note} |",
                flush=True,
            )
    if "sta" in wanted:
        for what, naive, ours, note in compare_sta(side=15, product=False):
            print(
                f"| {what} | {naive:.3g} | {ours:.3g} | {naive / ours:.1f} x | {note} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
