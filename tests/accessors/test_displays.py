"""What ``.ws``, ``.session`` and ``.msw`` show: escaped, short, and nothing read for it."""

import re
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree import display
from labtree.display import Panel, Section
from labtree.testing import make_trials, record_emg, write_session
from support import displays

# The tags and attributes that labtree itself writes; whatever else there is came in a name.
TAGS = {
    "style", "div", "b", "span", "details", "summary", "table", "tr", "td", "pre",
}  # fmt: skip
ATTRIBUTES = {("class", v) for v in (
    "labtree", "head", "muted", "muted size", "kind", "name", "text", "note", "fact", "",
)} | {("open", None)}  # fmt: skip


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.details = [], [], 0
        self.feed(displays.without_xarrays_own(text))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS
        assert set(attrs) <= ATTRIBUTES
        self.open.append(tag)
        self.details += tag == "details"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_of_a_dataset_shows_what_xarrays_own_shows():
    dataset = xr.Dataset(
        {"rate": (("unit", "time"), np.zeros((2, 3)), {"units": "Hz"})},
        {"depth": ("unit", [120, 340], {"units": "um"})},
        {"rig": "left", displays.SCRIPT: "\u202e" + displays.SCRIPT},
    )
    page, text = dataset.ws._repr_html_(), repr(dataset.ws)
    for each in ("rate", "Hz", "depth", "120 340", "um", "rig", "left"):
        assert each in page
        assert each in text or each in ("Hz", "um", "left")
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page + text
    assert page.startswith("<style>")
    assert text.startswith("<labtree dataset> 2 units × 3 time points: rate, ")
    assert page.count("<div") == page.count("</div>")


def test_the_page_of_an_item_says_what_it_is_in_words():
    tree = labtree.create_workspace()
    tree.ws.store("rec1", "rates", labtree.rate_data(np.zeros((2, 600)), np.arange(600)), "x")
    tree.ws.store("rec1", "lfp", xr.DataArray(np.zeros((9, 2)), dims=("time", "channel"),
                                             attrs={"units": "uV"}))  # fmt: skip
    tree.ws.store("rec1", "trials", pd.DataFrame({"choice": [1], "latency": [0.1]}))
    tree.ws.store("rec1", "matrix", labtree.pairwise_matrix(np.eye(3)))
    assert "2 units × 600 time points, Hz, 14.4 kB, stored just now, note: x" in repr(
        tree["rec1/rates"].ws
    )
    shown = repr(tree.ws)
    for words in (
        "9 time points × 2 channels, float64, uV",
        "1 row: choice, latency",
        "3 units × 3 units",
    ):
        assert words in shown


def test_the_session_of_a_tree_that_is_none_says_what_it_is():
    tree = labtree.create_workspace("pilot")
    assert "this tree is a labtree workspace 'pilot': write tree.ws" in repr(tree.session)
    assert "this tree is empty" in repr(xr.DataTree().session)
    other = xr.DataTree(children={"a": xr.DataTree(), "b": xr.DataTree()})
    assert "has the groups a, b, and none of streams, labels" in repr(other.session)
    assert "labtree.open_session(path)" in other.session._repr_html_()


def test_a_tree_of_a_workspace_says_where_to_look():
    tree = labtree.create_workspace("pilot")
    assert "tree.ws lists the items" in repr(tree)
    assert "tree.ws lists the items" in tree._repr_html_()


def test_a_mouse_session_has_a_page(tmp_path):
    session = labtree.msw.load_session(write_session(tmp_path, trials=make_trials(40)))
    text, page = repr(session), session._repr_html_()
    assert str(session) == text
    for each in (
        "labtree mouse session m01", "probabilistic_switching, 2026-05-14 14:30",
        "40 rows: 38 of the task, 2 barcodes", "settings_task", "columns of df",
    ):  # fmt: skip
        assert each in text
        assert each in page
    Page(page)
    assert len(text) < 4_000
    hostile = session.model_copy(update={"subject": displays.SCRIPT, "task": "a\nb"})
    assert "<script" not in "".join(hostile._repr_html_())
    assert "a\\nb" in repr(hostile)
    listed = labtree.msw.SessionList([session] * 30, {tmp_path: ValueError(displays.SCRIPT)})
    assert "30 sessions" in repr(listed)
    assert "… 18 more" in repr(listed)
    assert "m01  probabilistic_switching  2026-05-14 14:30  40 rows" in repr(listed)
    assert "could not be loaded" in listed._repr_html_()
    Page(listed._repr_html_())
    same = labtree.msw.load_session(session.session_dir)
    assert same == session
    assert hostile != session


@pytest.mark.parametrize("name", displays.pages())
def test_hostile_names_stay_text_on_one_line(name):
    text, page = displays.pages()[name]
    shown = "".join(Page(page).text)
    for each in (text, shown):
        assert "\u202e" not in each
        assert "\u2028" not in each
        assert "\x07" not in each
        assert "\r" not in each
        assert "long" * 101 not in each
    assert len(text) < 12_000
    assert len(page) < 60_000
    if name not in ("nothing", "dataset", "stream"):
        assert "one\\ntwo\\r\\nthree" in shown


def test_names_are_shown_as_they_are_where_they_print():
    for name in ("workspace", "recording", "pipeline", "trials"):
        shown = "".join(Page(displays.pages()[name][1]).text)
        assert "<script>document.title=" in shown
        assert "\u05e9\u05dc\u05d5\u05dd" in shown


@pytest.mark.parametrize(
    ("namespaces", "keys"), [(1, 10_000), (500, 1)], ids=["keys", "namespaces"]
)
def test_ten_thousand_items_are_counted_not_listed(namespaces, keys):
    tree = labtree.create_workspace("big")
    node = xr.Dataset({"x": ("t", [1.0])})
    tree.children = {
        f"n{i}": xr.DataTree(children={f"k{j}": xr.DataTree(node) for j in range(keys)})
        for i in range(namespaces)
    }
    text, page = repr(tree.ws), tree.ws._repr_html_()
    assert f"{namespaces * keys:,} items" in text
    assert f"{namespaces * keys:,} items" in page
    assert ("… 488 more namespaces" in page) == (namespaces == 500)
    assert ("… 9988 more" in page) == (keys == 10_000)
    assert Page(page).details == min(namespaces, 12) + 1
    assert len(text) < 15_000
    assert len(page) < 40_000


def test_many_streams_classes_features_and_columns_are_counted():
    tree = displays.recording([f"stream {i}" for i in range(500)])
    assert "… 488 more" in repr(tree.session)
    assert "… 488 more" in tree.session._repr_html_()
    assert len(repr(tree.session)) < 8_000
    assert len(tree.session._repr_html_()) < 20_000
    session = labtree.create_session("rec1")
    session.attrs["warnings"] = [f"warning {i}" for i in range(10_000)]
    session.attrs["completed_steps"] = [f"step {i}" for i in range(10_000)]
    assert "… 9988 more" in repr(session.session)
    assert len(session.session._repr_html_()) < 10_000
    frame = displays.trials()
    wide = frame.assign(**{f"c{i}": 0 for i in range(50)}).copy()
    assert len(wide.msw._repr_html_()) < 10_000


def test_a_recording_tells_streams_units_labels_and_age(tmp_path):
    tree = labtree.open_session(record_emg(tmp_path))
    page = tree.session._repr_html_()
    cells = Page(page).text
    for part in (
        "emg", "8,000 samples × 8 channels", "1000 Hz", "about 8 s", "int16", "uV", "256 kB",
        "force", "N", "streams", "labels", "(4)", "classes", "pinch", "timestamp",
    ):  # fmt: skip
        assert part in cells
    assert "2 streams, recorded just now" in page
    assert "2 streams, recorded just now" in repr(tree.session)
    stream = tree["streams/emg"].to_dataset().session._repr_html_()
    for part in ("data", "8000 × 8 int16", "uV", "time", "8000 float64", "s"):
        assert part in Page(stream).text


def test_nothing_is_read_for_a_display(tmp_path, monkeypatch):
    from labtree.recording.chunks import RowsArray

    tree = labtree.open_session(record_emg(tmp_path))

    def fail(*args, **kwargs):
        raise AssertionError("samples were read")

    monkeypatch.setattr(RowsArray, "__getitem__", fail)
    monkeypatch.setattr(RowsArray, "__array__", fail, raising=False)
    with pytest.raises(AssertionError, match="samples were read"):
        tree["streams/emg/data"].load()
    repr(tree.session), tree.session._repr_html_()
    stream = tree["streams/emg"].to_dataset()
    repr(stream.session), stream.session._repr_html_()


def test_a_pipeline_tells_units_steps_and_file(tmp_path):
    session = labtree.create_session("rec1", output_dir=tmp_path)
    session.session.add_units({"u1": {"spike_times": np.array([1, 2, 3])}})
    session.session.add_feature("u1", "sta", np.zeros(3))
    session.session.mark_step_complete("load")
    page = session.session._repr_html_()
    for part in ("units", "(1)", "spike_times", "3 int64", "24 B", "steps done", "load", "sta"):
        assert part in Page(page).text
    assert "rec1, 1 unit, not saved yet, created just now" in page
    path = session.session.save()
    assert str(path) in session.session._repr_html_()
    session["streams/emg"] = xr.Dataset({"data": (("time", "channel"), np.zeros((2, 1)))})
    both = session.session._repr_html_()
    assert "labtree pipeline session" in both
    assert "2 samples × 1 channel" in both
    assert Page(both).details > Page(page).details


def test_trials_tell_columns_states_and_events():
    frame = displays.trials()
    cells = Page(frame.msw._repr_html_()).text
    visits = frame.msw.states()["state"].value_counts()
    position = cells.index("side_ready")
    assert cells[position + 1] == str(visits["side_ready"])
    for part in ("columns", f"({frame.shape[1]})", "states", "events", "Port1In", "methods"):
        assert part in cells
    assert "40 rows: 38 of the task, 2 barcodes" in "".join(cells)
    part = frame[frame["choice"] == 1]
    cells = Page(part.msw._repr_html_()).text
    for name, number in part.msw.states()["state"].value_counts().items():
        assert cells[cells.index(name) + 1] == str(number)
    assert cells[cells.index("choice_left") + 1] == "0"
    for odd in (-1, 10_000, 0.5, "x"):
        wrong = frame.assign(trial=odd)
        assert "side_ready" in repr(wrong.msw)
        assert "side_ready" in Page(wrong.msw._repr_html_()).text
    assert "none go with this table" in displays.bare().msw._repr_html_()


def test_the_age_of_a_workspace_in_words():
    tree = displays.workspace()
    assert ", created 3 days ago\n" in repr(tree.ws)
    assert ", created 3 days ago</span>" in tree.ws._repr_html_()
    for odd in ("yesterday", None, float("nan"), float("inf"), 1e300, [1], time.time() + 1e6):
        tree.attrs["labtree_created_at"] = odd
        next(iter(tree.children.values()))["rates"].attrs["labtree_created_at"] = odd
        assert "ago\n" not in repr(tree.ws) or odd == 1e300
        Page(tree.ws._repr_html_())


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (-3600, ""),
        (-59, "just now"),
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (86399, "23 hours ago"),
        (86400, "1 day ago"),
        (59 * 86400, "59 days ago"),
        (62 * 86400, "2 months ago"),
        (700 * 86400, "22 months ago"),
        (740 * 86400, "2 years ago"),
    ],
)
def test_ages(passed, words):
    assert display.age(1e9, now=1e9 + passed) == words


def test_ages_of_iso_times():
    assert display.age("2020-01-01T00:00:00+00:00", now=1577836800 + 86400) == "1 day ago"
    for odd in ("", "soon", "9999999", None, True, 1j, "0001-01-01", float("nan")):
        assert isinstance(display.age(odd), str)


def test_every_method_that_is_shown_is_there():
    tree = labtree.create_workspace()
    shown = [tree.ws, xr.Dataset({"x": ("t", [1.0])}).ws, displays.recording().session]
    shown += [displays.pipeline().session, displays.trials().msw, displays.bare().msw]
    shown.append(next(iter(displays.recording()["streams"].children.values())).ds.session)
    for accessor in shown:
        methods = repr(accessor).rsplit("methods: ", 1)[1]
        names = re.findall(r"(?<![\w.])\.([a-z_]+)", methods)
        assert len(names) > 2
        assert [name for name in names if not hasattr(accessor, name)] == []
        page = "".join(Page(accessor._repr_html_()).text)
        assert [call for call in re.findall(r"\S+", methods) if call not in page] == []


def test_columns_line_up_and_empty_ones_are_left_out():
    section = Section("things", [("a", "", 1), ("long", "", "x y")], ("name", "note", ""), "2")
    assert section.text() == ["things (2)", "    a     1", "    long  x y"]
    listed = Section("classes", list(enumerate("abc")), ("muted", "name"), is_list=True)
    assert listed.text() == ["classes: 0 a, 1 b, 2 c"]
    panel = Panel("study", "a\nb", [section] * 14, [".save()"], "thing")
    assert panel.text().startswith("<study> a\\nb\nthings (2)\n")
    assert panel.text().endswith("… 2 more things\n\nmethods: .save()")
    assert "methods" not in panel.text(with_calls=False)
    assert Page(panel.html()).details == 13


def test_calls_are_wrapped_between_calls():
    calls = [f".method_{i}(namespace, key)" for i in range(9)]
    lines = Panel("x", calls=calls).text().splitlines()[2:]
    assert max(map(len, lines)) <= 92
    assert [call for call in calls if not any(call in line for line in lines)] == []


def test_cut_texts_are_no_longer_than_asked():
    assert display.truncate("abcd", 4) == "abcd"
    assert display.truncate("abcde", 4) == "abc…"
    assert display.truncate(range(3)) == "range(0, 3)"
    assert display.truncate(["a"] * 10_000, 10) == "a, a, a, …"
    assert display.truncate_list("abc") == ["a", "b", "c"]
    assert display.truncate_list(map(str, range(13)))[-2:] == ["11", "… 1 more"]
    assert display.format_bytes(0) == "0 B"
    assert display.format_bytes(123_456) == "123 kB"
