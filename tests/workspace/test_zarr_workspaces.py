"""Workspaces in zarr stores: as in files, in a folder and in an object store; with dask."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.errors import FormatError, ItemNotFoundError, WorkspaceError
from labtree.storage.zarr import writing
from labtree.storage.zarr.trees import save_zarr_tree
from labtree.testing import spikes
from support.exactness import assert_same
from support.s3_server import bucket, server  # noqa: F401, fixtures

OBJECTS = {
    "array": np.arange(6.0).reshape(2, 3),
    "masked": np.ma.MaskedArray([1, 2, 3], [False, True, False]),
    "dates": np.array(["2020-01-01", "NaT"], "M8[ms]"),
    "words": np.array(["aé", ""]),
    "objects": np.array(["a", None, 3], dtype=object),
    "dataset": xr.Dataset(
        {"v": (("t", "u"), np.arange(6.0).reshape(2, 3), {"z": float("nan")})},
        coords={"t": [0.5, 1.0], "u": ["a", "b", "c"], "w": ("u", [1, 2, 3])},
        attrs={"labels": (1, "two"), 3: None},
    ),
    "dataarray": xr.DataArray(np.arange(3), dims="x", name="counts", coords={"x": [3, 1, 2]}),
    "frame": pd.DataFrame(
        {
            "a": [1, 2],
            "b": ["x", None],
            "c": pd.Categorical(["u", "v"]),
            "d": pd.array([1, None], "Int64"),
        },
        index=pd.Index(["r", "s"], name="row name"),
    ),
    "series": pd.Series([1.0, np.nan], name="q"),
    "nested": {"a": (1, 2.0, {3}), "n": None, "x": float("inf"), "arr": np.arange(3)},
    "number": 2**80,
    "text": "🧠\0",
    "nothing": None,
    "a/b": 1,
    ".": 2,
    "zarr.json": 3,
    "C": 4,
    "c": 5,
    "🧠 spikes": 6,
    "n" * 300: 7,
}


def workspace():
    tree = labtree.create_workspace("pilot")
    for key, obj in OBJECTS.items():
        tree.ws.store("rec 1/ä", key, obj, note="a note" if key == "array" else None)
    for name in ("spike_data", "rate_data", "spike_slice_stack", "rate_slice_stack"):
        tree.ws.store("kinds", name, getattr(spikes, f"synthetic_{name}")())
    tree.ws.store("kinds", "matrix", spikes.synthetic_pairwise_matrix())
    tree.ws.store("kinds", "stack", spikes.synthetic_pairwise_stack())
    return tree


def few():
    """Return a workspace of some items, for what does not depend on their kinds."""
    tree = labtree.create_workspace("few")
    for key in ("array", "frame", "dataset", "number"):
        tree.ws.store("rec 1/ä", key, OBJECTS[key])
    tree.ws.store("kinds", "rate_data", spikes.synthetic_rate_data())
    return tree


@pytest.fixture(params=["folder", "s3"])
def where(request, tmp_path):
    """Give a place for a workspace: a folder, and an object store."""
    if request.param == "folder":
        return str(tmp_path / "study.zarr")
    return f"{request.getfixturevalue('bucket')}/lab/study.zarr"


def test_everything_that_a_workspace_stores_comes_back(where):
    tree = workspace()
    assert str(tree.ws.save(where)) == where
    assert str(tree.ws.path) == where
    assert_same(labtree.load_workspace(where), tree)
    with labtree.open_workspace(where) as lazy:
        assert lazy.ws.is_lazy
        assert lazy.ws.list_keys() == tree.ws.list_keys()
        assert lazy.ws.describe() == tree.ws.describe()
        for key, obj in OBJECTS.items():
            assert_same(lazy.ws["rec 1/ä", key], obj, key)
            assert_same(labtree.load_item(where, "rec 1/ä", key), obj, key)
        for key in tree.ws.list_keys("kinds"):
            assert_same(labtree.load_item(where, "kinds", key), tree.ws["kinds", key], key)


def test_a_workspace_of_more_than_is_written_at_once(where, monkeypatch):
    monkeypatch.setattr(writing, "_AT_ONCE", 1000)
    tree = workspace()
    blocks = xr.Dataset({"x": (("a", "b"), np.arange(600.0).reshape(3, 200))}).chunk(b=50)
    tree.ws.store("rec 1/ä", "blocks", blocks)
    tree.ws.save(where)
    assert_same(labtree.load_workspace(where), tree.compute())


def test_an_opened_workspace_is_changed_and_saved_where_it_was(where):
    few().ws.save(where)
    lazy = labtree.open_workspace(where)
    lazy.ws.store("new", "k", np.arange(5))
    lazy.ws.rename("rec 1/ä", "array", "renamed")
    lazy.ws.delete("kinds")
    lazy.ws.add_note("new", "k", "mine")
    assert str(lazy.ws.save()) == where
    expected = few()
    loaded = labtree.load_workspace(where)
    assert loaded.ws.list_namespaces() == ["rec 1/ä", "new"]
    assert_same(loaded.ws["rec 1/ä", "renamed"], OBJECTS["array"])
    assert_same(loaded.ws["rec 1/ä", "frame"], expected.ws["rec 1/ä", "frame"])
    assert loaded.ws.get_info("new", "k")["note"] == "mine"
    for key in lazy.ws.list_keys("rec 1/ä"):  # it reads from the new generation now
        assert_same(lazy.ws["rec 1/ä", key], loaded.ws["rec 1/ä", key], key)


def test_between_files_and_stores_nothing_changes(where, tmp_path):
    tree = workspace()
    tree.ws.save(tmp_path / "a.h5")
    from_file = labtree.open_workspace(tmp_path / "a.h5")
    from_file.ws.save(where)
    from_store = labtree.open_workspace(where)
    assert_same(from_store.copy(), tree)
    from_store.ws.save(tmp_path / "b.h5")
    assert from_store.ws.path == tmp_path / "b.h5"
    assert_same(labtree.load_workspace(tmp_path / "b.h5"), tree)
    from_store.ws.store("n", "k", 1)
    assert from_store.ws.save() == tmp_path / "b.h5"
    other = labtree.create_workspace()
    assert other.ws.merge_from(from_store)["merged"] == len(OBJECTS) + 7


def test_a_store_that_somebody_else_saved_is_not_replaced(where):
    mine = few()
    mine.ws.save(where)
    theirs = labtree.load_workspace(where)
    theirs.ws.store("theirs", "k", 1)
    theirs.ws.save()
    mine.ws.store("mine", "k", 2)
    with pytest.raises(WorkspaceError, match=r"another process.*merge_from"):
        mine.ws.save()
    assert labtree.load_item(where, "theirs", "k") == 1
    mine.ws.merge_from(labtree.open_workspace(where))
    fresh = labtree.create_workspace()
    fresh.ws.merge_from(mine)
    fresh.ws.save(where)  # said outright, it is replaced
    assert labtree.load_workspace(where).ws.list_namespaces()[-2:] == ["mine", "theirs"]


def test_a_lazy_tree_says_that_its_store_was_saved_anew(tmp_path):
    where = tmp_path / "study.zarr"
    few().ws.save(where)
    old = labtree.open_workspace(where)
    few().ws.save(where)
    with pytest.raises(FormatError, match="saved again"):
        _ = old.ws["rec 1/ä", "array"]


def test_errors_name_the_place(where):
    with pytest.raises(FileNotFoundError, match=r"study\.zarr"):
        labtree.open_workspace(where)
    tree = few()
    tree.ws.save(where)
    with pytest.raises(ItemNotFoundError, match="no key 'nope'"):
        labtree.load_item(where, "kinds", "nope")
    with pytest.raises(ItemNotFoundError, match="no namespace 'nope'"):
        labtree.load_item(where, "nope", "nope")
    save_zarr_tree(xr.DataTree(xr.Dataset({"x": 1})), where)
    with pytest.raises(FormatError, match=r"no workspace|not a workspace"):
        labtree.open_workspace(where)


def test_a_failing_save_leaves_what_was_there(where):
    tree = few()
    tree.ws.save(where)
    tree["kinds/bad"] = xr.DataTree(xr.Dataset(attrs={"x": object()}))
    with pytest.raises(TypeError, match="object"):
        tree.ws.save()
    tree.ws.delete("kinds", "bad")
    assert_same(labtree.load_workspace(where), tree)


def test_the_manager_takes_stores_too(where):
    manager = labtree.WorkspaceManager()
    workspace_id = manager.create_workspace("pilot")
    manager.get_workspace(workspace_id).ws.store("a", "b", np.arange(3))
    manager.save_workspace(workspace_id, where)
    other = labtree.WorkspaceManager()
    assert other.load_workspace(where) == workspace_id


def test_a_lazy_tree_travels_to_another_process(where):
    tree = few()
    tree.ws.save(where)
    lazy = labtree.open_workspace(where)
    data = pickle.dumps(lazy)
    assert_same(pickle.loads(data).ws["rec 1/ä", "frame"], OBJECTS["frame"])


def test_its_repr_shows_where_it_is(where):
    tree = few()
    tree.ws.save(where)
    assert where in repr(labtree.open_workspace(where).ws)


# Only an object store


def test_a_storage_of_icechunk_is_a_place_as_well(bucket):  # noqa: F811
    import icechunk

    tree = few()
    storage = icechunk.s3_storage(
        bucket=bucket.removeprefix("s3://"),
        prefix="by/hand",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region="us-east-1",
        allow_http=True,
        force_path_style=True,
        from_env=True,
    )
    tree.ws.save(storage)
    assert_same(labtree.load_workspace(storage), tree)
    assert_same(labtree.load_workspace(f"{bucket}/by/hand"), tree)


def test_others_read_it_from_the_repository(bucket):  # noqa: F811
    from labtree.storage.zarr.transactions import open_repository

    few().ws.save(f"{bucket}/study")
    repository, _, _ = open_repository(f"{bucket}/study")
    store = repository.readonly_session("main").store
    plain = xr.open_datatree(store, engine="zarr")
    expected = spikes.synthetic_rate_data()
    for name in expected.data_vars:
        assert np.array_equal(plain["kinds/rate_data"][name].values, expected[name].values)


def test_an_opened_workspace_stays_as_it_was(bucket):  # noqa: F811
    url = f"{bucket}/study"
    few().ws.save(url)
    opened = labtree.open_workspace(url)
    newer = labtree.load_workspace(url)
    newer.ws.delete("kinds")
    newer.ws.save()
    assert_same(opened.ws["kinds", "rate_data"], few().ws["kinds", "rate_data"])
    assert labtree.open_workspace(url).ws.list_namespaces() == ["rec 1/ä"]


def test_two_who_save_at_once_lose_nothing_unsaid(bucket, monkeypatch):  # noqa: F811
    """While one workspace is written another save is committed."""
    from labtree.storage.zarr import trees

    url = f"{bucket}/study"
    first = labtree.create_workspace()
    first.ws.store("a", "first", 1)
    first.ws.save(url)
    second = labtree.load_workspace(url)
    second.ws.store("a", "second", 2)
    write, came = trees.write_nodes, []

    def interrupted(*arguments, **options):
        written = write(*arguments, **options)
        if not came:
            came.append(True)
            first.ws.store("a", "third", 3)
            first.ws.save(url)
        return written

    monkeypatch.setattr(trees, "write_nodes", interrupted)
    with pytest.raises(WorkspaceError, match="another process"):
        second.ws.save()
    assert labtree.load_workspace(url).ws.list_keys("a") == ["first", "third"]


def test_a_bucket_that_is_not_there_is_an_error(server, bucket):  # noqa: F811
    with pytest.raises((FileNotFoundError, OSError), match="no-such-bucket"):
        few().ws.save("s3://no-such-bucket/study.zarr")


# dask


def recordings(rng):
    tree = labtree.create_workspace()
    for i in range(2):
        dataset = xr.Dataset(
            {
                "voltage": (("channel", "time"), rng.standard_normal((8, 20_000))),
                "pair": ("time", rng.standard_normal(20_000) + 1j),
                "label": ("time", rng.integers(0, 9, 20_000).astype("U1")),
            },
            coords={"time": np.arange(20_000) / 1000.0},
        )
        tree.ws.store(f"rec{i}", "raw", dataset)
    return tree


def measured(tree, chunks):
    """Return what an analysis computes of all recordings, through dask if chunked."""
    results = {}
    for namespace in tree.ws.list_namespaces():
        dataset = tree[f"{namespace}/raw"].to_dataset()
        dataset = dataset.chunk(chunks) if chunks else dataset
        results[namespace] = xr.Dataset(
            {
                "envelope": abs(dataset["voltage"]).max("channel"),
                "windows": dataset["voltage"]
                .isel(time=slice(3, 15_000, 777))
                .drop_vars("time")
                .rename(time="w"),
                "pair": dataset["pair"] * 2,
                "label": dataset["label"]
                .isel(time=slice(9_000, None))
                .drop_vars("time")
                .rename(time="l"),
            }
        )
    return results


@pytest.mark.parametrize("name", ["study.h5", "study.zarr", "s3"])
def test_a_cluster_of_two_processes_computes_the_same(request, tmp_path, cluster, name):
    import dask

    path = tmp_path / name
    if name == "s3":
        path = f"{request.getfixturevalue('bucket')}/study.zarr"
        cluster.run(_take_environment, _aws())
    recordings(np.random.default_rng(5)).ws.save(path)
    with labtree.open_workspace(path) as tree:
        expected = {key: value.load() for key, value in measured(tree, None).items()}
        lazy = measured(tree, {"time": 7000})
        (actual,) = dask.compute(lazy)
        for key, value in expected.items():
            assert_same(actual[key], value, key)
        workers = cluster.run(_process)
        assert len(set(workers.values())) == 2


@pytest.mark.parametrize("name", ["study.h5", "study.zarr", "s3"])
def test_what_a_cluster_computes_is_saved_by_it(request, tmp_path, cluster, name):
    where = tmp_path / name
    if name == "s3":
        where = f"{request.getfixturevalue('bucket')}/study.zarr"
    source = tmp_path / "source.zarr"
    recordings(np.random.default_rng(6)).ws.save(source)
    with labtree.open_workspace(source) as tree:
        lazy, serial = measured(tree, {"time": 7000}), measured(tree, None)
        results = labtree.create_workspace()
        for key, dataset in lazy.items():
            results[f"{key}/measured"] = xr.DataTree(dataset)
        results.ws.save(where)
        with labtree.open_workspace(where) as saved:
            for key, dataset in serial.items():
                found = saved.ws[key, "measured"]
                for variable in dataset.variables:
                    assert np.array_equal(found[variable].values, dataset[variable].values)


def _aws():
    import os

    return {key: value for key, value in os.environ.items() if key.startswith("AWS_")}


def _take_environment(values):
    import os

    os.environ.update(values)


def _process():
    import os

    return os.getpid()


# Many small items


def test_many_items_open_in_one_read(tmp_path, monkeypatch):
    from labtree.storage.zarr.locations import Folder

    tree = labtree.create_workspace()
    for i in range(200):
        tree.ws.store(f"rec{i}", "rates", np.full(10, i))
    tree.ws.save(tmp_path / "many.zarr")
    reads = []
    read = Folder.read

    def counted(self, key):
        reads.append(key)
        return read(self, key)

    monkeypatch.setattr(Folder, "read", counted)
    lazy = labtree.open_workspace(tmp_path / "many.zarr")
    lazy.ws.describe(), repr(lazy.ws), lazy.ws._repr_html_()
    assert reads == ["zarr.json"]
    assert lazy.ws["rec7", "rates"][0] == 7


def test_the_path_may_be_any_that_python_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", 1)
    for path in ("x.zarr", Path("x.zarr"), f"{tmp_path}/x.zarr/"):
        tree.ws.save(path)
        assert labtree.load_item(path, "a", "b") == 1
    (tmp_path / "x.zarr").rename(tmp_path / "bare")
    assert labtree.load_item("bare", "a", "b") == 1
    assert labtree.open_workspace(tmp_path / "bare").ws.list_keys("a") == ["b"]
    (tmp_path / "bare").rename(tmp_path / "x.zarr")
    monkeypatch.chdir("/")
    tree.ws.store("a", "c", 2)
    assert tree.ws.save() == tmp_path / "x.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labtree.load_item(tmp_path / "x.zarr", "a", "c") == 2
