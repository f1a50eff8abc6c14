"""The registry of workspaces by id."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import labtree
from labtree import WorkspaceManager, get_workspace_manager
from support.exactness import assert_same


def test_there_is_one_manager_of_the_process():
    assert get_workspace_manager() is get_workspace_manager()
    assert isinstance(get_workspace_manager(), WorkspaceManager)
    with ThreadPoolExecutor(8) as pool:
        assert len({id(m) for m in pool.map(lambda _: get_workspace_manager(), range(50))}) == 1


def test_create_get_list_delete():
    manager = WorkspaceManager()
    first, second = manager.create_workspace("one"), manager.create_workspace(lazy=True)
    tree = manager.get_workspace(first)
    assert tree.ws.workspace_id == first
    assert manager.get_workspace(second).ws.is_lazy
    assert manager.get_workspace("nonsense") is None
    tree.ws.store("rec1", "a", 1)
    tree.ws.store("rec1", "b", 1)
    tree.ws.store("rec2", "a", 1)
    assert manager.list_workspaces() == [
        {
            "workspace_id": first,
            "name": "one",
            "created_at": tree.ws.created_at,
            "namespace_count": 2,
            "item_count": 3,
        },
        {
            "workspace_id": second,
            "name": None,
            "created_at": manager.get_workspace(second).ws.created_at,
            "namespace_count": 0,
            "item_count": 0,
        },
    ]
    assert manager.delete_workspace(first) is True
    assert manager.delete_workspace(first) is False
    assert [entry["workspace_id"] for entry in manager.list_workspaces()] == [second]
    assert tree.ws.get("rec1", "a") == 1


def test_save_and_load(tmp_path):
    manager = WorkspaceManager()
    first = manager.create_workspace("one")
    manager.get_workspace(first).ws.store("rec1", "a", np.arange(3))
    manager.save_workspace(first, tmp_path / "one")
    with pytest.raises(labtree.WorkspaceError, match="is here already and may have changed"):
        manager.load_workspace(tmp_path / "one")
    assert manager.delete_workspace(first)
    assert manager.load_workspace(str(tmp_path / "one.h5")) == first
    assert_same(manager.get_workspace(first).ws.get("rec1", "a"), np.arange(3))
    assert WorkspaceManager().load_workspace(tmp_path / "one") == first


def test_one_item_comes_with_its_time_and_note(tmp_path):
    source = labtree.create_workspace()
    source.ws.store("rec1", "a", {"x": (1, 2)}, note="hello")
    source.ws.store("rec1", "b", 2)
    info = source.ws.get_info("rec1", "a")
    path = source.ws.save(tmp_path / "one")
    manager = WorkspaceManager()
    for lazy in (False, True):
        target = manager.create_workspace(lazy=lazy)
        assert manager.load_workspace_item(path, "rec1", "a", target) is None
        tree = manager.get_workspace(target)
        assert tree.ws.get_info("rec1", "a") == info
        assert tree.ws.get("rec1", "a") == {"x": (1, 2)}
        assert tree.ws.list_keys() == {"rec1": ["a"]}
        with pytest.raises(
            KeyError, match="no key 'z' in namespace 'rec1'; there are: 'a', 'b'"
        ):
            manager.load_workspace_item(path, "rec1", "z", target)


def test_unknown_ids(tmp_path):
    manager = WorkspaceManager()
    with pytest.raises(KeyError, match="no workspace 'x' here; there is: none"):
        manager.save_workspace("x", tmp_path / "x")
    known = manager.create_workspace()
    with pytest.raises(labtree.ItemNotFoundError, match=f"there is: {known}"):
        manager.load_workspace_item(tmp_path / "x", "a", "b", "x")


def test_threads():
    manager = WorkspaceManager()

    def work(number):
        made = [manager.create_workspace(f"{number}-{i}") for i in range(20)]
        for each in made:
            manager.get_workspace(each).ws.store("a", "b", number)
            manager.list_workspaces()
        return sum(manager.delete_workspace(each) for each in made[::2])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [10] * 8
    assert len(manager.list_workspaces()) == 80
    assert all(entry["item_count"] == 1 for entry in manager.list_workspaces())
