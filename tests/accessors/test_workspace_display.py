"""What ``tree.ws`` and ``ds.ws`` show: the content, and what can be called; no data."""

import re
from html.parser import HTMLParser

import numpy as np
import xarray as xr

import labtree
from labtree.msw import trials_to_frame
from labtree.testing import make_trials
from support import displays

HOSTILE = "<script>alert('x')</script>&\"><img src=x onerror=y>"
ALLOWED = {
    "style", "div", "b", "span", "details", "summary", "table", "tr", "td", "pre", "tbody",
}  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") for name, _ in attrs)
        self.found.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def hostile():
    tree = labtree.create_workspace(HOSTILE)
    dataset = xr.Dataset({HOSTILE: (HOSTILE + "d", [1.0])})
    tree.ws.store(HOSTILE, HOSTILE, dataset, note=HOSTILE)
    tree.ws.store(HOSTILE, "text", HOSTILE)
    tree.ws.store(HOSTILE, "dict", {HOSTILE: HOSTILE})
    tree["hand/made"] = xr.Dataset({"x": ("t", [1.0])}, attrs={"labtree_kind": HOSTILE})
    return tree


def test_hostile_names_and_notes_are_escaped(tmp_path):
    tree = hostile()
    path = tree.ws.save(tmp_path / "a<b>&")
    for each in (tree, labtree.load_workspace(path)):
        page = Tags(each.ws._repr_html_())
        assert page.found <= ALLOWED
        assert page.open == []
        assert HOSTILE in "".join(page.text)
    objects = tree[next(iter(tree.children))].children
    for node in objects.values():
        page = Tags(displays.without_xarrays_own(node.to_dataset().ws._repr_html_()))
        assert page.found <= ALLOWED
        assert page.open == []


def test_the_text_tells_content_and_methods():
    tree = labtree.create_workspace("pilot")
    tree.ws.store("rec1", "rates", np.zeros((2, 3)), note="per unit")
    text = repr(tree.ws)
    assert text.startswith("<labtree workspace 'pilot'> 1 namespace, 1 item, 48 B, ")
    assert "rec1/ (1 item)" in text
    assert "rates  per unit  ndarray  2 × 3 float64  48 B" in text
    assert "per unit" in text
    for verb in (
        "store",
        "get",
        "list_keys",
        "rename",
        "add_note",
        "delete",
        "merge_from",
        "save",
    ):
        assert f".{verb}(" in text
        assert f".{verb}(" in tree.ws._repr_html_()


def test_every_method_that_is_shown_is_there():
    import re

    tree = labtree.create_workspace()
    dataset = xr.Dataset({"x": ("t", [1.0])})
    for accessor in (tree.ws, dataset.ws):
        names = set(re.findall(r"(?<![\w.])\.([a-z_]+)", repr(accessor)))
        assert names
        for name in names:
            assert hasattr(accessor, name)


def test_long_workspaces_are_counted_not_listed():
    tree = labtree.create_workspace()
    for i in range(30):
        tree.ws.store("rec1", f"k{i}", i)
        tree.ws.store(f"n{i}", "k", i)
    text = repr(tree.ws)
    assert "… 18 more" in text
    assert "… 19 more namespaces" in text
    assert "60 items" in text
    assert len(text.splitlines()) < 60
    assert "… 18 more" in tree.ws._repr_html_()


def test_an_empty_workspace_and_an_empty_namespace():
    tree = labtree.create_workspace()
    assert "0 namespaces, 0 items" in repr(tree.ws)
    tree["empty"] = xr.DataTree()
    assert "empty/ (0 items)" in repr(tree.ws)
    assert Tags(tree.ws._repr_html_()).open == []


def test_lazy_and_path_are_told(tmp_path):
    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec1", "a", 1)
    path = tree.ws.save(tmp_path / "study")
    assert f"lazy, {path}" in repr(tree.ws)
    tree.ws.close()
    assert "rec1" in repr(tree.ws)


def test_objects():
    dataset = xr.Dataset({"x": (("u", "t"), np.zeros((2, 3)))})
    assert repr(dataset.ws).startswith("<labtree dataset> 2 u × 3 t: x, 48 B\n")
    assert "<labtree dataarray> 2 u × 3 t, float64, 48 B" in repr(dataset["x"].ws)
    assert dataset.ws.kind == "dataset"
    assert dataset["x"].ws.kind == "dataarray"
    assert dataset["x"].ws.summary() == {
        "dims": ["u", "t"],
        "shape": [2, 3],
        "dtype": "float64",
    }
    assert dataset.ws.validate() is None


def test_names_of_sessions_are_shown_whole_and_trial_tables_in_words():
    tree = labtree.create_workspace("pilot")
    session = "m01__20260514_143022_123456__probabilistic_switching"
    tree.ws.store("day", session, trials_to_frame(make_trials(30)))
    tree.ws.store(f"session__{session}__session_probabilistic_switching", "a", 1)
    for text in (repr(tree.ws), tree.ws._repr_html_()):
        assert session in text
        assert f"session__{session}__session_probabilistic_switching/" in text
        assert re.search(r"3\d trials × \d\d columns", text)
        assert "_row" not in text
    assert f"day/{session}'" in repr(tree[f"day/{session}"].ws)
