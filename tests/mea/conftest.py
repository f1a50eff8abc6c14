import pytest

import labtree
from labtree.testing.mea import write_recording


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    """A recording with a noise movie long enough to find receptive fields."""
    return write_recording(
        tmp_path_factory.mktemp("recording"),
        n_units=4,
        rate_hz=40.0,
        movie_frames={"noise_small": 1500, "step_small": 120},
        movie_size=6,
        sensor_s=1.0,
        seed=3,
    )


def section_arguments(truth):
    return {
        "playlist_name": truth.playlist_name,
        "playlist_file_path": truth.playlist_path,
        "movie_length_file_path": truth.movie_length_path,
        "repeats": truth.repeats,
        "pad_frame": truth.pad_frame,
        "pre_margin_frame_num": truth.pre_margin,
        "post_margin_frame_num": truth.post_margin,
    }


@pytest.fixture(scope="session")
def arguments(recording):
    return section_arguments(recording)


@pytest.fixture
def loaded(recording, tmp_path):
    """A session with the recording loaded."""
    session = labtree.create_session(
        cmcr_path=recording.cmcr_path, cmtr_path=recording.cmtr_path, output_dir=tmp_path
    )
    return labtree.mea.load_recording(session=session)


@pytest.fixture
def sectioned(loaded, recording, arguments):
    """A session with the spikes of all movies sectioned."""
    labtree.mea.add_section_time(session=loaded, **arguments)
    return labtree.mea.section_spike_times(session=loaded, config_dir=recording.stimuli_dir)
