import gc
import importlib
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from labtree.mea import feature_registry
from labtree.objects import registry
from labtree.storage.hdf5_end import SUPERBLOCK_SIZE, end_of_hdf5
from support.examples import examples

os.environ.setdefault("MPLBACKEND", "agg")

settings.register_profile(
    "labtree",
    deadline=None,  # the machine that runs the tests may be busy
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("labtree")


class _ExamplesInAFolderOfTheirOwn:
    """Examples in docstrings, which lie outside this folder, write into a new folder."""

    @pytest.fixture(autouse=True)
    def _new_folder(self, request, tmp_path_factory, monkeypatch):
        if isinstance(request.node, pytest.DoctestItem):
            monkeypatch.chdir(tmp_path_factory.mktemp("example"))
            forget_new_kinds(monkeypatch)


def pytest_configure(config):
    config.pluginmanager.register(_ExamplesInAFolderOfTheirOwn())


def forget_new_kinds(monkeypatch):
    """Let the kinds and features that a test registers go with it."""
    known = registry._load()
    monkeypatch.setattr(known, "kinds", dict(known.kinds))
    monkeypatch.setattr(known, "classes", {cls: [*v] for cls, v in known.classes.items()})
    importlib.import_module("labtree.mea.features")  # which registers labtree's own
    monkeypatch.setattr(feature_registry, "_FEATURES", dict(feature_registry._FEATURES))


@pytest.fixture
def own_kinds(monkeypatch):
    forget_new_kinds(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_no_garbage():
    """Searching all modules' objects for garbage, at each collection or fork, takes seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def nothing_is_collected():
    """Where a parser is as deep as Python allows, what closes a forgotten file would fail."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """What a test writes need not outlive a power cut; some disks take long to promise that."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # which refuses a closed file as well


@pytest.fixture(autouse=True)
def _writers_wait_for_each_other(monkeypatch):
    """A machine that runs other tests as well may take long for the save that is waited for."""
    monkeypatch.setattr("labtree.storage.locks._PATIENCE_S", 60.0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


@pytest.fixture
def cut_catalogue():
    """Give a function that cuts a file's catalogue off, so that the file is walked."""

    def cut(path: Path) -> None:
        with path.open("rb") as file:
            end = end_of_hdf5(file.read(SUPERBLOCK_SIZE))
        assert path.stat().st_size > end
        os.truncate(path, end)

    return cut


@pytest.fixture(scope="module")
def cluster():
    """Run a cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as running,
        distributed.Client(running) as client,
    ):
        yield client
