"""Every Python block of the README and the documentation runs as it stands."""

import inspect
import re
import warnings
from pathlib import Path

import pytest

import labtree

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    labtree.use_workspace(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            exec(compile(block, f"<{page.name}>", "exec"), namespace)
    labtree.use_workspace(None)


def test_the_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("pip install . && labtree demo\n") == 1
    assert text.count('pip install -e ".[test]" && pytest\n') == 1


def test_pages_link_to_files_that_are_there():
    for page in PAGES:
        for target in re.findall(
            r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")
        ):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"auto(?:function|class):: labtree\.([A-Za-z_]+)$", text, re.M))
    modules = {name for name in dir(labtree) if inspect.ismodule(getattr(labtree, name))}
    errors = {name for name in dir(labtree) if name.endswith(("Error", "Warning"))}
    assert set(dir(labtree)) - modules - errors - {"__version__"} <= listed
    for name in ("errors", "mea", "msw", "spikes"):
        assert f".. automodule:: labtree.{name}\n" in text


def test_no_page_speaks_of_a_house():
    for page in PAGES:
        words = set(re.findall(r"[a-z]+", page.read_text(encoding="utf-8").lower()))
        assert not words & {"house", "rooms", "doors", "cellar", "colour", "labelled"}, (
            page.name
        )
