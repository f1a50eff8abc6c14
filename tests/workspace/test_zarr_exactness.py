"""Whatever a workspace stores comes back from a zarr store to the last bit: odd cases first."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labtree
from support import strategies
from support.exactness import assert_same
from support.examples import examples


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.tuples(strategies.names(), strategies.objects()), max_size=4))
def test_any_objects_under_any_names(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("any")
    tree = labtree.create_workspace()
    for name, obj in items:
        tree.ws.store(name, name, obj)
    tree.ws.save(folder / "study.zarr")
    lazy = labtree.open_workspace(folder / "study.zarr")
    assert lazy.ws.list_keys() == tree.ws.list_keys()
    for name, obj in dict(items).items():
        assert_same(lazy.ws[name, name], obj, name)
        assert_same(labtree.load_item(folder / "study.zarr", name, name), obj, name)
    lazy.ws.save(folder / "again.zarr")
    assert_same(labtree.load_workspace(folder / "again.zarr"), tree)
