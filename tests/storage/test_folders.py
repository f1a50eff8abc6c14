"""Folders are replaced whole, whatever the system can and whenever the power goes."""

import os
import shutil
import signal

import pytest

from labtree.storage import folders
from labtree.storage.folders import (
    complete_replacement,
    replace_folder,
    sync_tree,
    temporary_folder,
)
from support import power_loss


def save(path, content):
    with temporary_folder(path) as temporary:
        for name in ("a", "b"):
            (temporary / name).mkdir()
            (temporary / name / "data").write_text(content * 700)
        sync_tree(temporary)
        replace_folder(temporary, path)


def read(path):
    texts = {file.read_text() for file in path.rglob("data")}
    assert len(list(path.rglob("data"))) == 2
    (text,) = texts
    return text[0]


@pytest.fixture(params=[True, False], ids=["exchange", "renames"])
def way(request, monkeypatch):
    if request.param:
        if folders._exchanger() is None:
            pytest.skip("this system cannot exchange two names")
    else:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    return request.param


def test_the_new_folder_stands_where_the_old_one_stood(tmp_path, way):
    path = tmp_path / "data.zarr"
    for content in "abc":
        save(path, content)
        assert read(path) == content
        assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_the_old_folder_or_the_usual(tmp_path, way):
    path = tmp_path / "data.zarr"
    mask = os.umask(0o027)
    try:
        save(path, "a")
        assert path.stat().st_mode & 0o777 == 0o750
    finally:
        os.umask(mask)
    path.chmod(0o700)
    save(path, "b")
    assert path.stat().st_mode & 0o777 == 0o700


def fail_in(folder):
    (folder / "x").write_text("half")
    raise KeyError


def test_a_fault_leaves_the_old_folder_and_nothing_else(tmp_path, way):
    path = tmp_path / "data.zarr"
    save(path, "a")
    with pytest.raises(KeyError), temporary_folder(path) as temporary:
        fail_in(temporary)
    assert read(path) == "a"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_dead_process_left_is_removed(tmp_path):
    path = tmp_path / "data.zarr"
    with temporary_folder(path) as temporary:
        host = temporary.name.rsplit(".", 4)[1]
    dead = tmp_path / f".data.zarr.{host}.99999999.00000000.labtree-tmp"
    dead.mkdir()
    (dead / "x").write_text("half")
    save(path, "a")
    assert list(tmp_path.iterdir()) == [path]


def test_a_power_cut_leaves_the_old_folder_or_the_new(tmp_path, way):
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = recorded(folder)
    assert list(wrong(disk, tmp_path, 1, 250)) == []


def test_each_sync_that_is_taken_away_is_missed(tmp_path, way):
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = recorded(folder, "ab")
    for sync in disk.syncs:
        assert any(wrong(disk, tmp_path, 2, 3000, without=sync, within=25)), sync


def recorded(folder, contents="abc"):
    with power_loss.record(folder) as disk:
        for content in contents:
            disk.begin(content)
            save(folder / "data.zarr", content)
            disk.acknowledge(content)
    return disk


def wrong(disk, tmp_path, seed, count, **options):
    """Yield what is neither the acknowledged state nor the next after a power cut."""
    for crash in disk.crashes(seed, count, **options):
        shutil.rmtree(tmp_path / "crash", ignore_errors=True)
        path = crash.write(tmp_path / "crash") / "data.zarr"
        complete_replacement(path)
        try:
            found = read(path) if path.exists() else None
        except Exception as error:
            found = repr(error)
        expected = [crash.acknowledged]
        expected += [] if crash.attempted is None else [crash.attempted]
        if found not in expected:
            yield crash.after, found


def test_an_interrupt_while_a_temporary_folder_is_removed_leaves_nothing(tmp_path, monkeypatch):
    remove = shutil.rmtree

    def interrupted(path, **options):
        signal.raise_signal(signal.SIGINT)
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path / "t") as temporary:
        (temporary / "x").touch()
    assert not list(tmp_path.iterdir())
