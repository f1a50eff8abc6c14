"""One file or folder of every format that labtree opens, for tests of what opens them."""

import zipfile

import numpy as np
import pandas as pd
import xarray as xr

import labtree
from labtree.testing.mea import write_recording
from labtree.testing.msw import ERAS, make_trials, write_session
from labtree.testing.recordings import record_emg
from support.spikelab_files import array, spike_data, spikelab_file


def workspace():
    tree = labtree.create_workspace("study")
    tree.ws.store("rec1", "rates", np.arange(6.0).reshape(2, 3), note="two units")
    tree.ws.store("rec1", "trials", pd.DataFrame({"choice": [0, 1, 1]}))
    tree.ws.store("rec1", "spikes", labtree.spike_data([[1.0, 3.0], [2.0]], length=10))
    return tree


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def phy(folder):
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.array([5, 30, 90], np.uint64))
    np.save(folder / "spike_clusters.npy", np.array([0, 1, 0], np.int32))
    np.save(folder / "spike_templates.npy", np.array([0, 1, 0], np.int32))
    np.save(folder / "amplitudes.npy", np.arange(3, dtype="f4"))
    np.save(folder / "templates.npy", np.arange(16, dtype="f4").reshape(2, 4, 2))
    np.save(folder / "channel_map.npy", np.array([0, 1]))
    np.save(folder / "channel_positions.npy", np.array([[0.0, 20.0], [0.0, 40.0]]))
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n1\tmua\n")
    (folder / "params.py").write_text("sample_rate = 30000.\nn_channels_dat = 4\n")
    return folder


def write_all(folder):
    """Write a file or folder of every format; return them by the format's name."""
    found = {}
    found["workspace"] = workspace().ws.save(folder / "study")
    found["workspace in zarr"] = workspace().ws.save(folder / "study.zarr")
    found["recording"] = record_emg(folder / "sessions")
    found["recording in a zip"] = zipped(found["recording"], folder / "packed.session.zip")
    era = list(ERAS)[-1]
    found["msw"] = write_session(folder / "mouse", era, trials=make_trials(n_trials=5))
    session = labtree.create_session("rec1", output_dir=folder)
    session.session.add_units({"u1": {"spike_times": np.array([1, 2, 3])}})
    found["pipeline"] = session.session.save()
    found["mcs"] = write_recording(folder).cmtr_path
    with spikelab_file(folder / "peer.h5") as file:
        array(file, "rec1/rates", np.arange(3.0))
        spike_data(file, "rec1/spikes", [[1.0, 3.0], [2.0]], length=10.0)
    found["spikelab"] = folder / "peer.h5"
    xr.Dataset({"a": ("x", [1, 2])}).to_netcdf(folder / "plain.nc", engine="h5netcdf")
    found["tree"] = folder / "plain.nc"
    found["phy"] = phy(folder / "sorted")
    return found
