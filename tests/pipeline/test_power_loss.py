"""A pipeline session after a power cut during a save: the one before it, or the new one."""

import json
import shutil
import sys
from itertools import pairwise

import h5py
import numpy as np
import pytest

import labtree
from labtree.errors import LabtreeError
from labtree.storage.tree_file import TreeFile
from support import power_loss
from support.examples import examples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches /proc")


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Record a session that is saved after each of some steps."""
    folder = tmp_path_factory.mktemp("disk")
    session = labtree.create_session("rec1", output_dir=folder / "new" / "day")
    units = {"unit_001": {"spike_times": np.arange(500), "row": 3}}
    with power_loss.record(folder) as recorded:
        for number in range(4):
            if number == 1:
                session.session.add_units(units)
            session.session.add_warning(f"warning {number}")
            session.session.mark_step_complete(f"step {number}")
            recorded.begin(number)
            session.session.save()
            recorded.acknowledge(number)
    return recorded


def found_at(path, *, repair):
    """Return the number of the last step, None without a file, or what is wrong.

    Other programs find a save that was cut off only when labtree has opened it for changes.
    """
    if not path.exists():
        return None
    try:
        session = labtree.load_session(path).session
        steps, warnings, count = session.completed_steps, session.warnings, session.unit_count
        if repair:
            TreeFile(path).close()
    except LabtreeError as error:
        return repr(error)
    number = len(steps) - 1
    if warnings != [f"warning {n}" for n in range(number + 1)] or count != (number > 0):
        return "a mix"
    try:
        with h5py.File(path) as file:
            if count and not np.array_equal(file["units/spike_times"][()], np.arange(500)):
                return "a mix for h5py"
            if len(json.loads(file.attrs["labtree_attrs"])["completed_steps"]) != number + 1:
                return "an older one for h5py"
    except (OSError, KeyError, RuntimeError) as error:
        return repr(error)
    return number


def wrong(folder, crashes):
    """Yield what is neither the acknowledged session nor the next."""
    for crash in crashes:
        shutil.rmtree(folder, ignore_errors=True)
        is_between = crash.attempted is None
        path = crash.write(folder) / "new" / "day" / "rec1.h5"
        found = found_at(path, repair=not is_between)
        if found != crash.acknowledged and (found is None or found != crash.attempted):
            yield crash.after, found


def test_a_power_cut_leaves_the_acknowledged_session_or_the_next(disk, tmp_path):
    assert list(wrong(tmp_path / "after", disk.crashes(1, examples(80)))) == []


def test_each_sync_that_is_taken_away_is_missed(disk, tmp_path):
    ends = [i for i, event in enumerate(disk.events) if event.kind == "acknowledge"]
    syncs = disk.syncs_but_for(".labtree-tmp")
    first = [each for each in syncs if each < ends[1]]  # two folders, the file and its name
    assert len(first) == 4
    assert [len([s for s in syncs if a < s < b]) for a, b in pairwise(ends[1:])] == [2, 2, 2]
    for event in [*first, *syncs[-2:]]:
        crashes = disk.crashes(2, 3000, without=event, within=ends[-1] + 2 - event)
        assert any(wrong(tmp_path / "after", crashes)), disk.events[event]
