"""NWB files that pynwb writes, with a part of every kind."""

import warnings
from datetime import UTC, datetime

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pynwb
    from pynwb import behavior, ecephys, image, misc

START = datetime(2024, 5, 6, 7, 8, 9, 250_000, tzinfo=UTC)
TRAINS = {10: [0.1, 0.2, 0.35], 12: [3.0], 17: [5.0, 5.5]}


def rich_file():
    file = pynwb.NWBFile(
        session_description="A test",
        identifier="id-1",
        session_start_time=START,
        experimenter=["Doe, Jane"],
        lab="A lab",
        keywords=["a", "b"],
        subject=pynwb.file.Subject(
            subject_id="m1", species="Mus musculus", age="P9D", sex="F", description="A mouse"
        ),
    )
    device = file.create_device("probe", description="A probe")
    group = file.create_electrode_group("g0", description="x", location="CA1", device=device)
    file.add_electrode_column("label", "Name of the electrode")
    for number in range(4):
        file.add_electrode(
            x=float(number), y=1.0, location="CA1", group=group, label=f"e{number}"
        )
    region = file.create_electrode_table_region([3, 1, 0], "some")
    file.add_acquisition(
        ecephys.ElectricalSeries(
            name="raw",
            data=np.arange(30, dtype="i2").reshape(10, 3),
            electrodes=region,
            rate=1000.0,
            starting_time=2.0,
            conversion=1e-6,
            offset=0.5,
            channel_conversion=[1.0, 2.0, 3.0],
        )
    )
    file.add_acquisition(
        pynwb.TimeSeries(
            name="long",
            data=np.arange(600_000, dtype="f4").reshape(-1, 2),
            unit="V",
            timestamps=np.arange(300_000) / 30_000,
            description="A long one",
        )
    )
    file.add_acquisition(
        misc.AbstractFeatureSeries(
            name="features",
            feature_units=["m", "s"],
            features=["far", "late"],
            data=np.ones((3, 2)),
            rate=1.0,
        )
    )
    file.add_acquisition(
        image.ImageSeries(
            name="video", external_file=["a.mp4"], format="external", rate=30.0,
            num_samples=5, starting_frame=[0], unit="n/a",
        )
    )  # fmt: skip
    file.add_stimulus(
        pynwb.TimeSeries(name="words", data=["go", "stop"], unit="n/a", timestamps=[1.0, 2.0])
    )
    _add_units(file, group)
    file.add_trial_column("choice", "Side")
    for number in range(3):
        file.add_trial(
            start_time=float(number),
            stop_time=number + 0.5,
            choice="LR"[number % 2],
            tags=["x", "y"][: number % 2 + 1],
            timeseries=[file.acquisition["raw"]],
        )
    file.add_epoch(0.0, 1.0, ["rest"])
    module = file.create_processing_module("behavior", "What it did")
    place = behavior.Position(name="Position")
    place.create_spatial_series(
        name="place", data=np.arange(20.0).reshape(10, 2), rate=10.0, reference_frame="corner"
    )
    module.add(place)
    licks = pynwb.TimeSeries(name="licks", data=np.ones(4), unit="n", timestamps=[1.0, 2, 3, 4])
    module.add(licks)
    events = pynwb.event.EventsTable(name="ttl", description="Pulses")
    events.add_column("annotation", "What it was")
    events.add_row(timestamp=1.5, annotation="start")
    file.add_events_table(events)
    file.add_scratch(np.arange(5), name="numbers", description="Some numbers")
    return file


def plain_file():
    """Return a file that holds units without observed intervals, and nothing else."""
    file = pynwb.NWBFile("A test", "id-2", START)
    for number, train in TRAINS.items():
        file.add_unit(id=number, spike_times=train)
    return file


def _add_units(file, group):
    file.add_unit_column("quality", "How good it is")
    file.add_unit_column("depths", "Ragged", index=True)
    for at, (number, train) in enumerate(TRAINS.items()):
        file.add_unit(
            id=number,
            spike_times=train,
            quality=["good", "mua", "good"][at],
            depths=[0.5] * at,
            electrodes=[at],
            electrode_group=group,
            waveform_mean=np.full((5, 2), float(at)),
            obs_intervals=[[0.0, 6.0]],
            waveforms=[[[1.0, 2.0, 3.0]]] * len(train),
        )


def write(path, file, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(path, "w", **more) as io:
            io.write(file)
    return path
