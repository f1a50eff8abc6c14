"""The workspace that ``ds.ws.store`` writes to."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import xarray as xr

import labtree
from labtree import active_workspace, create_workspace, use_workspace

DS = xr.Dataset({"x": ("t", [1.0])})


@pytest.fixture(autouse=True)
def _none_active():
    use_workspace(None)
    yield
    use_workspace(None)


def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_with_none_active_the_error_has_the_line_to_write():
    assert active_workspace() is None
    with pytest.raises(labtree.WorkspaceError) as error:
        DS.ws.store("rec1", "a")
    assert "labtree.use_workspace(tree)" in str(error.value)
    assert "ds.ws.store(namespace, key, into=tree)" in str(error.value)


def test_a_plain_call_holds_in_all_threads():
    tree = create_workspace()
    shown = repr(use_workspace(tree))
    assert shown == "<labtree use_workspace: until the next call, or in a with block>"
    assert active_workspace() is tree
    assert in_thread(active_workspace) is tree
    DS.ws.store("rec1", "a", note="hello")
    DS["x"].ws.store("rec1", "b")
    assert tree.ws.list_keys("rec1") == ["a", "b"]
    assert tree.ws.get_info("rec1", "a")["note"] == "hello"
    use_workspace(None)
    assert active_workspace() is None


def test_a_block_holds_inside_and_in_its_own_thread_only():
    tree = create_workspace()
    with use_workspace(tree) as entered:
        assert entered is tree
        assert active_workspace() is tree
        assert in_thread(active_workspace) is None
    assert active_workspace() is None


def test_blocks_nest():
    outer, inner = create_workspace("o"), create_workspace("i")
    with use_workspace(outer):
        with use_workspace(inner):
            assert active_workspace() is inner
            with use_workspace(None):
                assert active_workspace() is None
            assert active_workspace() is inner
        assert active_workspace() is outer
    assert active_workspace() is None


def test_a_block_goes_before_a_plain_call_and_none_too():
    everywhere, inside = create_workspace("e"), create_workspace("i")
    use_workspace(everywhere)
    with use_workspace(inside):
        assert active_workspace() is inside
        assert in_thread(active_workspace) is everywhere
    with use_workspace(None):
        assert active_workspace() is None
        with pytest.raises(labtree.WorkspaceError, match="no workspace is active"):
            DS.ws.store("a", "b")
    assert active_workspace() is everywhere


def test_a_plain_call_inside_a_block_counts_after_it():
    block, later = create_workspace("b"), create_workspace("l")
    with use_workspace(block):
        use_workspace(later)
        assert active_workspace() is block
    assert active_workspace() is later


def test_an_error_leaves_the_block():
    with pytest.raises(RuntimeError), use_workspace(create_workspace()):
        raise RuntimeError
    assert active_workspace() is None


def test_one_object_can_be_entered_again():
    tree = create_workspace()
    use = use_workspace(tree)
    assert active_workspace() is tree
    for _ in range(2):
        with use, use:
            assert active_workspace() is tree
        assert active_workspace() is None


def test_blocks_that_begin_at_once_in_two_threads_leave_nothing_behind():
    first, second = use_workspace(create_workspace()), use_workspace(create_workspace())
    with first:
        pass
    with second:
        pass
    assert active_workspace() is None
    first, second = use_workspace(create_workspace()), use_workspace(create_workspace())
    with second, first:
        pass
    assert active_workspace() is None


def test_many_threads_each_see_their_own():
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        tree = create_workspace(str(number))
        for i in range(50):
            with use_workspace(tree):
                DS.ws.store("rec1", f"{i}")
        return len(tree.ws.list_keys("rec1"))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [50] * 8
    assert active_workspace() is None


def test_tasks_each_see_their_own():
    async def work(number):
        tree = create_workspace(str(number))
        with use_workspace(tree):
            await asyncio.sleep(0)
            assert active_workspace() is tree
        return tree

    async def both():
        await asyncio.gather(*(work(i) for i in range(4)))

    asyncio.run(both())
    assert active_workspace() is None


def test_a_replaced_workspace_is_let_go():
    tree = create_workspace()
    gone = weakref.ref(tree)
    use_workspace(tree)
    use_workspace(None)
    del tree
    gc.collect()
    assert gone() is None


def test_into_goes_before_the_active_one():
    active, given = create_workspace(), create_workspace()
    with use_workspace(active):
        DS.ws.store("rec1", "a", into=given)
    assert given.ws.list_keys() == {"rec1": ["a"]}
    assert active.ws.list_keys() == {}


@pytest.mark.parametrize("wrong", [DS, "study.h5", {}])
def test_only_trees_are_workspaces(wrong):
    with pytest.raises(TypeError, match="use_workspace takes a workspace tree, not"):
        use_workspace(wrong)
    with pytest.raises(TypeError, match="into= takes a workspace tree, not"):
        DS.ws.store("a", "b", into=wrong)
    assert active_workspace() is None
