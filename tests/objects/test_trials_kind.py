"""Trial tables in workspaces: the DataFrame, its states and its events."""

import numpy as np
import pandas as pd
import pytest

import labtree
from labtree.msw import concat_trials
from labtree.testing.msw import make_trials, write_session
from support.exactness import assert_same


@pytest.fixture
def frame(tmp_path):
    return labtree.msw.load_session(write_session(tmp_path, trials=make_trials(45))).df


@pytest.mark.parametrize("lazy", [False, True])
def test_a_trial_table_comes_back_with_states_and_events(frame, tmp_path, lazy):
    frame.attrs["rig"] = {"box": (1, 2)}
    tree = labtree.create_workspace(lazy=lazy)
    tree.ws.store("mouse1", "trials", frame, note="a day")
    tree.ws.store("mouse1", "nested", {"table": frame, "n": 45})
    path = tree.ws.save(tmp_path / "study")
    for found in (
        tree.ws["mouse1", "trials"],
        labtree.load_item(path, "mouse1", "trials"),
        labtree.load_workspace(path).ws["mouse1", "nested"]["table"],
    ):
        assert list(found.attrs) == list(frame.attrs)
        assert found.attrs["rig"] == {"box": (1, 2)}
        pd.testing.assert_frame_equal(found.msw.states(), frame.msw.states())
        pd.testing.assert_frame_equal(found.msw.events(), frame.msw.events())
        plain, expected = found.copy(), frame.copy()
        plain.attrs, expected.attrs = {}, {}
        assert_same(plain, expected)
    assert tree.ws.get_info("mouse1", "trials")["type"] == "trials"
    assert tree.ws.get_info("mouse1", "trials")["shape"] == list(frame.shape)


def test_parts_of_it_and_several_sessions(frame, tmp_path):
    tree = labtree.create_workspace()
    task = frame.msw.task
    tree.ws.store("mouse1", "task", task)
    both = concat_trials({"monday": frame, "tuesday": frame})
    tree.ws.store("mouse1", "both", both)
    found = tree.ws["mouse1", "task"]
    np.testing.assert_array_equal(found.msw.reaction_time(), task.msw.reaction_time())
    again = tree.ws["mouse1", "both"]
    pd.testing.assert_frame_equal(again.msw.states(), both.msw.states())
