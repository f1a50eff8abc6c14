"""Every Python block of the README and the documentation runs as it stands."""

import importlib.util
import inspect
import re
import warnings
from pathlib import Path

import pytest

import labtree

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if not {"notebooks", "_build"} & {*page.parts}]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load_pictures():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of_a_page_run_one_after_the_other(
    page, tmp_path, monkeypatch, capsys, own_kinds
):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    labtree.use_workspace(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            exec(compile(block, f"<{page.name}>", "exec"), namespace)
    labtree.use_workspace(None)
    labtree.mea.use_lab()


def test_the_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("pip install . && labtree demo\n") == 1
    assert text.count('pip install -e ".[test]" && pytest\n') == 1


def test_pages_link_to_files_that_are_there():
    for page in PAGES:
        for target in re.findall(
            r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")
        ):
            built = {"notebooks": ROOT / "notebooks"}.get(target.partition("/")[0])
            place = page.parent / target if built is None else built.parent / target
            assert place.exists(), f"{page.name}: {target}"


def anchors(page):
    """Return the anchors of a page's headings of the first three levels, as MyST makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    names = set()
    for heading in re.findall(r"^#{1,3} (.+)$", text, re.M):
        plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).replace("`", "").lower()
        names.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return names


def test_anchors_in_links_are_headings_of_their_pages():
    notebooks = sorted((ROOT / "notebooks").glob("*.md"))
    seen = 0
    for page in PAGES + notebooks:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", text):
            folder = ROOT if target.startswith("notebooks/") else page.parent
            if page in notebooks and not target.startswith("notebooks/"):
                folder = ROOT / "docs/notebooks"
            place = (folder / target).resolve() if target else page
            assert anchor in anchors(place), f"{page.name}: {target}#{anchor}"
            seen += 1
    assert seen > 30


def test_the_link_check_of_the_built_site_finds_what_is_wrong(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("check_links", ROOT / ".ci/check_links.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    (tmp_path / "a.html").write_text(
        '<h1 id="top">x</h1><a href="b.html#here">b</a><a href="#top">t</a><img src="p.png">'
        '<a href="https://example.org/x">o</a><a href="b.html#gone">g</a><a href="c.html">c</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="a.html">a</a>')
    (tmp_path / "p.png").touch()
    assert check.main(str(tmp_path)) == 2
    out = capsys.readouterr().out
    assert "a.html: b.html#gone: the page has no such anchor" in out
    assert "a.html: c.html: there is no such file" in out
    assert "2 pages, 6 links in the site, 2 wrong" in out


def test_the_reference_has_every_public_name_once():
    pages = (ROOT / "docs/reference").glob("*.md")
    blocks = re.findall(
        r"^```\{names\}\n(.*?)^```$", "".join(p.read_text("utf-8") for p in pages), re.M | re.S
    )
    listed = [line for block in blocks for line in block.split()]
    assert sorted(listed) == sorted(set(listed))
    documented = set()
    for name in listed:
        if not name.endswith(":"):
            package, _, last = name.rpartition(".")
            documented.add(id(getattr(importlib.import_module(package), last)))
    packages = [
        labtree, labtree.recording, labtree.spikes, labtree.mea, labtree.msw, labtree.testing,
    ]  # fmt: skip
    missing = [
        f"{package.__name__}.{name}"
        for package in packages
        for name in dir(package)
        if not inspect.ismodule(getattr(package, name))
        and name != "__version__"
        and id(getattr(package, name)) not in documented
    ]
    for module in (labtree.clocks, labtree.errors):
        missing += [
            f"{module.__name__}.{name}"
            for name in module.__all__
            if id(getattr(module, name)) not in documented
            and (inspect.isclass(getattr(module, name)) or module is labtree.clocks)
        ]
    assert missing == []
    accessors = {name for name in listed if ".accessors." in name}
    assert len(accessors) == 7


@pytest.mark.parametrize(
    "package", ["", ".clocks", ".mea", ".msw", ".recording", ".spikes", ".testing"]
)
def test_public_functions_have_parameters_results_and_examples(package):
    docscrape = pytest.importorskip("numpydoc.docscrape")
    module, seen, lacking = importlib.import_module(f"labtree{package}"), 0, []
    for name in dir(module):
        function = getattr(module, name)
        if name[0] == "_" or not inspect.isfunction(function):
            continue
        seen += 1
        doc, signature = docscrape.FunctionDoc(function), inspect.signature(function)
        said = {word.strip(" *") for each in doc["Parameters"] for word in each.name.split(",")}
        if "session" in signature.parameters and "hdf5_path" in signature.parameters:
            said |= {"hdf5_path", "force"}  # of every step: labtree.step describes them
        lacking += [f"{name}: {each}" for each in signature.parameters if each not in said]
        if not doc["Examples"]:
            lacking.append(f"{name}: Examples")
        if signature.return_annotation not in (None, "None", inspect.Signature.empty) and not (
            doc["Returns"] or doc["Yields"]
        ):
            lacking.append(f"{name}: Returns")
    assert seen
    assert lacking == []


def test_the_landing_page_brings_its_data_and_draws_its_picture(tmp_path, monkeypatch, capsys):
    pictures = load_pictures()
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    pictures.run((ROOT / "docs/index.md").read_text(encoding="utf-8"), pictures.BLOCK)
    assert len(pyplot.gcf().axes) == 2
    pyplot.close("all")
    assert (tmp_path / "around_go.png").is_file()
    assert "around_go" in capsys.readouterr().out
    assert labtree.load_item("pilot", "day1", "around_go").sizes["slice"] == 80


def test_every_picture_is_small_and_made_of_a_notebook():
    pictures = load_pictures()
    made = {f"{name}.png" for name, _ in pictures.PICTURES.values()} | {"landing.png"}
    there = {path.name: path.stat().st_size for path in (ROOT / "docs/_static").glob("*.png")}
    assert set(there) == made
    assert max(there.values()) < 60_000
    for notebook in pictures.PICTURES:
        assert (ROOT / f"notebooks/{notebook}.md").is_file()


def test_no_page_speaks_of_a_house():
    for page in PAGES:
        words = set(re.findall(r"[a-z]+", page.read_text(encoding="utf-8").lower()))
        assert not words & {"house", "rooms", "doors", "cellar", "colour", "labelled"}, (
            page.name
        )


def test_the_citation_has_the_version():
    text = (ROOT / "docs/CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {labtree.__version__}\n" in text


def test_the_page_on_spikelab_has_every_call_of_it():
    spikelab = pytest.importorskip("spikelab")
    page = (ROOT / "docs/spikelab.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[A-Za-z_]\w*", page))
    for name in (
        "AnalysisWorkspace", "WorkspaceManager", "SpikeData", "RateData", "RateSliceStack",
        "SpikeSliceStack", "PairwiseCompMatrix", "PairwiseCompMatrixStack",
    ):  # fmt: skip
        public = {each for each in dir(getattr(spikelab, name)) if each[0] != "_"}
        assert public - named == set(), name


def test_pages_on_other_tools_name_only_what_there_is():
    for page in ("spikelab", "from-hdmea", "from-myogestic", "from-msw-io", "i-want-to"):
        text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
        for name in set(re.findall(r"`@?(labtree(?:\.\w+)+)", text)) - {
            "labtree.msw_validators"
        }:
            value = labtree
            for part in name.split(".")[1:]:
                value = getattr(value, part)
        for name in set(re.findall(r"`s\.(\w+)", text)):
            assert hasattr(labtree.spikes, name), name
