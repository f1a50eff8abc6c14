"""The simulated power cut finds what a careless writer loses and spares a careful one."""

import os

import pytest

from support import power_loss


def _write(path, content, *, sync):
    with path.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(folder, value):
    _write(folder / "new", value, sync=True)
    (folder / "new").replace(folder / "data")
    _sync_folder(folder)


def _problems(disk, tmp_path, **options):
    """Return how many of the crashes show neither the acknowledged nor the next value."""
    count = 0
    for crash in disk.crashes(1, 300, **options):
        found = crash.files.get("data")
        count += found not in {crash.acknowledged, crash.attempted}
    return count


@pytest.fixture
def recorded(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    values = [bytes([65 + i]) * 3000 for i in range(4)]
    with power_loss.record(folder) as disk:
        for value in values:
            disk.begin(value)
            _replace(folder, value)
            disk.acknowledge(value)
    return disk


def test_a_careful_writer_shows_the_old_or_the_new_value(recorded, tmp_path):
    assert _problems(recorded, tmp_path) == 0


def test_each_sync_that_is_taken_away_is_missed(recorded, tmp_path):
    assert len(recorded.syncs) == 8
    for event in recorded.syncs:
        assert _problems(recorded, tmp_path, without=event) > 0, recorded.events[event].kind


def test_writing_over_a_file_in_place_is_found(tmp_path):
    with power_loss.record(tmp_path) as disk:
        for value in (b"a" * 3000, b"b" * 3000):
            disk.begin(value)
            _write(tmp_path / "data", value, sync=True)
            _sync_folder(tmp_path)
            disk.acknowledge(value)
    assert _problems(disk, tmp_path) > 0


def test_a_state_is_written_as_files_and_folders(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    with power_loss.record(folder) as disk:
        (folder / "inner").mkdir()
        _sync_folder(folder)
        _write(folder / "inner" / "data", b"x" * 2000, sync=True)
        _sync_folder(folder / "inner")
        disk.acknowledge("all")
        (folder / "inner" / "data").unlink()
    states = {
        (crash.acknowledged, (crash.write(tmp_path / str(i)) / "inner" / "data").exists())
        for i, crash in enumerate(disk.crashes(2, 100))
    }
    assert ("all", True) in states
    assert ("all", False) in states  # the unlink may have reached the disk
    assert (None, True) in states
