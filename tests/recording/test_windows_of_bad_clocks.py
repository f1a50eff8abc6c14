"""Every kind of window on every kind of bad clock, against rules written out one by one."""

import itertools
import math
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import labtree
from labtree.errors import RecordingWarning
from labtree.recording import drop_log
from labtree.recording.session import labels_to_dataset, stream_dataset
from labtree.recording.targets import PHASES
from support.examples import examples

# --- the rules, one sample at a time ------------------------------------------------------


class UndecidedError(Exception):
    """It hangs on the last bit of a rounded time, which is not what these tests are about."""


def exceeds(value, limit):
    if abs(value - limit) < 1e-6:
        raise UndecidedError
    return value > limit


class Clock:
    """What the stamps of a stream say, looked at one by one."""

    def __init__(self, times, fs, gap_s=None):
        self.times, self.fs, self.n = [float(t) for t in times], fs, len(times)
        at = self.times
        finite = [i for i in range(self.n) if math.isfinite(at[i])]
        early = {i for i in finite if any(at[j] > at[i] for j in finite if j < i)}
        late = {i for i in finite if any(at[j] < at[i] for j in finite if j > i)}
        out = early if len(early) <= len(late) else late
        self.usable = [i for i in finite if i not in out]
        self.bad = set(range(self.n)) - set(self.usable)
        self.runs = []  # samples that share a stamp
        for i in self.usable:
            if self.runs and at[self.runs[-1][-1]] == at[i]:
                self.runs[-1].append(i)
            else:
                self.runs.append([i])
        self.behind_gaps = set()
        for before, after in itertools.pairwise(self.runs):
            held = (max(len(before), len(after)) - 1) / fs
            allowed = held + (1.5 / fs if gap_s is None else gap_s)
            if exceeds(at[after[0]] - at[before[-1]], allowed):
                self.behind_gaps.add(after[0])

    def row(self, moment):
        """The sample that a moment belongs to."""
        if not self.usable:
            return 0
        before = [i for i in self.usable if self.times[i] < moment]
        behind = [i for i in self.usable if self.times[i] >= moment]
        if before and behind and behind[0] in self.behind_gaps:
            return behind[0]
        away = {i: abs(self.times[i] - moment) for i in self.usable}
        nearest = min(away.values())
        if any(0 < value - nearest < 1e-9 for value in away.values()):
            raise UndecidedError
        return next(i for i in self.usable if away[i] == nearest)

    def is_before(self, moment):
        return not self.usable or exceeds(self.times[self.usable[0]] - moment, 1 / self.fs)

    def is_behind(self, moment):
        return not self.usable or exceeds(moment - self.times[self.usable[-1]], 1 / self.fs)

    def problem(self, start, stop):
        """Why the rows from start to stop are no window, or None."""
        rows = range(start, stop)
        if any(i in self.bad for i in rows):
            return "time stamp not finite or out of order"
        if any(len(r) > stop - start and r[0] < stop and r[-1] >= start for r in self.runs):
            return "time stamps stand still for longer than a window"
        if any(i in self.behind_gaps for i in rows if i > start):
            return "gap"
        return None

    def windows(self, first, end, win, hop):
        """The first rows of the good windows, and what is wrong with the others."""
        found, gone = [], []
        for start in range(first, end - win + 1, hop):
            problem = self.problem(start, start + win)
            if problem is None:
                found.append(start)
            else:
                gone.append(problem)
        return found, gone


# --- clocks -------------------------------------------------------------------------------

FAULTS = ["gap", "step", "back", "restart", "nan", "inf", "ahead", "behind", "stuck", "repeat"]


def spoil(times, fault, at, size, fs):
    if fault == "gap":
        times[at:] += 40 * size / fs + 0.0131
    elif fault == "step":
        times[at:] += (0.3, 0.7, 1.0, 2.0)[size % 4] / fs
    elif fault == "back":
        times[at:] -= (size + 0.013) / fs
    elif fault == "restart" and np.isfinite(times[[0, at]]).all():
        times[at:] -= times[at] - times[0]
    elif fault in ("nan", "inf"):
        times[at : at + size // 6 + 1] = float(fault)
    elif fault in ("ahead", "behind"):
        times[at] += 1e4 if fault == "ahead" else -1e4
    elif fault == "stuck":
        times[at : at + size] = times[at]
    elif fault == "repeat":
        times[at] = times[max(0, at - 1)]


@st.composite
def clocks(draw, most=120, rates=(100.0, 128.0, 31.0), starts=(100.0,)):
    """Time stamps, their rate, and when they begin."""
    fs, n, start = draw(st.sampled_from(rates)), draw(st.integers(0, most)), 0.0
    times = np.arange(n) / fs
    kind = draw(st.sampled_from(["even", "even", "jitter", "first", "last"]))
    if n and kind == "jitter":
        seed = draw(st.integers(0, 1000))
        times = times + np.random.default_rng(seed).uniform(-0.2, 0.2, n) / fs
    elif n and kind in ("first", "last"):  # one stamp for a packet
        size = draw(st.integers(2, 12))
        at = np.arange(n) // size * size
        times = times[at if kind == "first" else np.minimum(at + size - 1, n - 1)]
    for fault in draw(st.lists(st.sampled_from(FAULTS), max_size=4)):
        if n > 1:
            spoil(times, fault, draw(st.integers(0, n - 1)), draw(st.integers(1, 30)), fs)
    start = draw(st.sampled_from(starts))
    return times + start, fs, start


def ramp(n):
    return (np.arange(n)[:, None] * 2 + np.arange(2)).astype("int32")


def tree_of(labels=(), **streams):
    """A session in memory, of streams (data, times, fs, channel names)."""
    datasets = {
        name: stream_dataset(np.asarray(data), times, fs=fs, channel_names=names)
        for name, (data, times, fs, names) in streams.items()
    }
    tree = xr.DataTree(xr.Dataset(attrs={"session_path": "memory"}))
    tree.children = {
        "streams": xr.DataTree(
            children={name: xr.DataTree(dataset) for name, dataset in datasets.items()}
        ),
        "labels": xr.DataTree(labels_to_dataset(list(labels), None)),
    }
    return tree


def call(function, *arguments, **options):
    """What a function gives; a rate that is refused is what other tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        try:
            return function(*arguments, **options)
        except labtree.SessionError as error:
            assume("declares" not in str(error))
            raise


def milliseconds(samples, fs):
    return (samples + 0.5) / fs * 1000


def told(found, gone):
    """Whether the drop log has just these reasons."""
    log = drop_log(found)["reason"]
    assert len(log) == len(gone)
    for reason in set(gone):
        assert log.str.startswith(reason).sum() == gone.count(reason)


def same_rows(values, starts, width):
    assert (values[:, 0, 0] // 2).tolist() == starts if width else len(values) == len(starts)
    for window, start in zip(values, starts, strict=True):
        np.testing.assert_array_equal(window, ramp(start + width)[start:].T)


def edges():
    """64 samples whose times are exact, with a gap, one stamp for six samples, and a NaN."""
    times = np.arange(64) / 128
    times[16:] += 0.5
    times[32:38] = times[32]
    times[48] = np.nan
    return times, 128.0, 0.0


def slow_edges():
    """The same for a slow stream beside it; nothing hangs on the last bit of a time."""
    times = np.arange(16) / 10 - 0.213
    times[5:7] = times[5]
    times[9] = np.nan
    times[12:] += 1
    return times, 10.0, 0.0


shares = st.floats(-0.2, 1.5).map(lambda share: round(share, 4))
anytime = clocks(starts=(0.0, 84121.25, 1.7e9))
slow = clocks(60, rates=(10.0,))
lengths = {"win": st.integers(1, 25), "hop": st.just(1) | st.integers(1, 20)}
# Labels and events in the middle between two samples, on samples, and around both ends.
exact = [row / 64 for row in (-3, 0, 5, 10.5, 15, 30, 80, 84, 94, 95.5, 109, 123, 127, 130)]


# --- windows ------------------------------------------------------------------------------


@settings(max_examples=examples(120), deadline=None)
@given(
    clock=anytime,
    labels=st.lists(st.tuples(shares, st.integers(-1, 2)), max_size=6),
    classes=st.none() | st.sets(st.integers(0, 2)),
    gap=st.sampled_from([None, 3.3]),
    **lengths,
)
@example(edges(), [(share, at % 3) for at, share in enumerate(exact)], None, None, 5, 1)
@example(edges(), [(0.0, 0), (0.75, 1)], None, 3.3, 6, 1)
def test_labeled_windows(clock, labels, classes, gap, win, hop):
    times, fs, begin = clock
    gap_s = None if gap is None else gap / fs
    labels = [(begin + share * max(len(times), 1) / fs, index) for share, index in labels]
    try:
        rules, expected, gone = Clock(times, fs, gap_s), [], []
        ordered = sorted(labels, key=lambda label: label[0])
        if all(index < 0 for _, index in labels) or not rules.usable:
            gone, ordered = ["session left out"], []
        for number, (moment, index) in enumerate(ordered):
            if index < 0:
                continue
            if rules.is_behind(moment):
                gone.append("label is after the stream's end")
                continue
            last = number + 1 == len(ordered)
            end = rules.n if last else rules.row(ordered[number + 1][0])
            start = rules.row(moment)
            if classes is None or index in classes:
                found, reasons = rules.windows(start, end, win, hop)
                expected += [(row, index) for row in found]
                gone += reasons if start + win <= end else ["label holds"]
    except UndecidedError:
        assume(False)
    windows = call(
        tree_of(labels, emg=(ramp(len(times)), times, fs, None)).session.windows,
        "emg",
        milliseconds(win, fs),
        milliseconds(hop, fs),
        classes,
        gap_s=gap_s,
    )
    starts = [start for start, _ in expected]
    assert windows.shape == (len(expected), 2, win)
    same_rows(windows.values, starts, win)
    assert windows.class_index.values.tolist() == [index for _, index in expected]
    np.testing.assert_array_equal(windows.start_time, times[starts])
    told(windows, gone)


@settings(max_examples=examples(120), deadline=None)
@given(
    clock=clocks(),
    other=slow,
    shift=st.sampled_from([0, 0.0317]),
    count=st.integers(1, 5),
    tolerance_s=st.sampled_from([None, None, 0.07, 3.0]),
    **lengths,
)
@example(edges(), slow_edges(), 0, 3, None, 5, 1)
@example(edges(), slow_edges(), 0, 2, 0.07, 6, 1)
def test_aligned_windows(clock, other, shift, count, tolerance_s, win, hop):
    (times, fs, _), (other_times, other_fs, _) = clock, other
    other_times = other_times + shift
    n = len(other_times)
    kin = np.random.default_rng(n).standard_normal((n, 3)).astype("f4")
    most = 1.5 / other_fs if tolerance_s is None else tolerance_s
    try:
        rules, others = Clock(times, fs), Clock(other_times, other_fs)
        starts, gone = rules.windows(0, len(times), win, hop)
        gone += ["session left out"] if len(times) < win else []
        kept, means = [], []
        for start in starts:
            middle = times[start + win // 2]
            at = others.row(middle)
            rows = range(max(0, at - count // 2), min(n, at + count - count // 2))
            good = bool(others.usable) and not exceeds(abs(other_times[at] - middle), most)
            good = good and not any(row in others.bad for row in rows)
            if good and not any(row in others.behind_gaps for row in rows[1:]):
                kept.append(start)
                means.append(kin[rows].astype(float).mean(axis=0))
            else:
                gone.append("no unbroken 'kin' at its midpoint")
    except UndecidedError:
        assume(False)
    tree = tree_of(emg=(ramp(len(times)), times, fs, None), kin=(kin, other_times, 10.0, None))
    windows = call(
        tree.session.aligned_windows,
        "emg",
        "kin",
        milliseconds(win, fs),
        milliseconds(hop, fs),
        count,
        tolerance_s=tolerance_s,
    )
    same_rows(windows["emg"].values, kept, win)
    np.testing.assert_allclose(
        windows["kin"].values, np.reshape(means, (len(kept), 3)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(windows["midpoint"], times[[s + win // 2 for s in kept]])
    told(windows, gone)


@settings(max_examples=examples(120), deadline=None)
@given(clock=clocks(), other=slow, shift=st.sampled_from([0, -0.217]), **lengths)
@example(edges(), slow_edges(), 0, 5, 1)
@example(edges(), ((20 + 13 * np.arange(16)) / 128, 10.0, 0.0), 0, 5, 1)
def test_target_windows(clock, other, shift, win, hop):
    (times, fs, _), (other_times, other_fs, _) = clock, other
    assume(np.isfinite(other_times).any())
    at, n = other_times + shift, len(other_times)
    rng = np.random.default_rng(n)
    targets = rng.integers(0, 100, n).astype("f4")
    phases = np.repeat(rng.integers(0, 7, n), 5)[:n].astype("f4")
    try:
        rules, others = Clock(times, fs), Clock(at, other_fs)
        starts, gone = rules.windows(0, len(times), win, hop)
        gone += ["session left out"] if len(times) < win else []
        kept = []
        for start in starts:
            end = times[start + win - 1]
            known = [row for row in others.usable if at[row] <= end]
            later = [row for row in others.usable if at[row] > end]
            exact = bool(known) and at[known[-1]] == end
            if not known or not (later or exact):
                gone.append("outside the target stream")
                continue
            held = known[-1]
            target = targets[held]
            if not exact and exceeds(at[later[0]] - end, 3 / other_fs):
                gone.append("the next target is too far away")
                continue
            if not exact and phases[later[0]] == phases[held]:
                between = [held, later[0]]
                target = np.interp(end, at[between], targets[between])
            if phases[held] in (5, 6):
                gone.append(f"phase {PHASES[int(phases[held])]}")
                continue
            kept.append((start, target, phases[held]))
    except UndecidedError:
        assume(False)
    follow = np.column_stack([targets, phases])
    tree = tree_of(
        emg=(ramp(len(times)), times, fs, None),
        goal=(follow, at, other_fs, ["target_pct", "phase"]),
    )
    windows = call(
        tree.session.target_windows,
        "emg",
        "goal",
        milliseconds(win, fs),
        milliseconds(hop, fs),
    )
    same_rows(windows.values, [start for start, _, _ in kept], win)
    np.testing.assert_allclose(windows.target_pct, [x for _, x, _ in kept], atol=1e-3)
    assert windows.phase.values.tolist() == [phase for _, _, phase in kept]
    told(windows, gone)


@settings(max_examples=examples(120), deadline=None)
@given(
    clock=anytime,
    events=st.lists(shares | st.just(math.nan), min_size=1, max_size=8),
    before=st.integers(0, 20),
    after=st.integers(0, 20),
    gap=st.sampled_from([None, 3.3]),
)
@example(edges(), exact, 5, 5, None)
@example(edges(), exact, 0, 5, 3.3)
def test_peri_event(clock, events, before, after, gap):
    times, fs, begin = clock
    assume(before + after and np.isfinite(events).any())
    gap_s = None if gap is None else gap / fs
    moments = [begin + share * max(len(times), 1) / fs for share in events]
    kept, gone = {}, {}
    try:
        rules = Clock(times, fs, gap_s)
        for number, moment in enumerate(moments):
            if math.isnan(moment):
                gone[number] = "time is not finite"
                continue
            at = rules.row(moment)
            start, stop = at - before, at + after
            outside = rules.is_before(moment) or rules.is_behind(moment)
            if outside or start < 0 or stop > rules.n:
                gone[number] = "reaches beyond the stream"
            elif exceeds(abs(times[at] - moment), max(gap_s or 0, 1 / fs)):
                gone[number] = "no sample at this time"
            elif problem := rules.problem(start, stop):
                gone[number] = problem
            else:
                kept[number] = start
    except UndecidedError:
        assume(False)
    tree = tree_of(emg=(ramp(len(times)), times, fs, None))
    found = call(tree.session.peri_event, "emg", moments, before / fs, after / fs, gap_s=gap_s)
    assert found.event.values.tolist() == list(kept)
    same_rows(found.values, list(kept.values()), before + after)
    log = drop_log(found)
    assert dict(zip(log["event"], log["reason"], strict=True)) == gone


# --- what is left out is told -------------------------------------------------------------


def test_one_infinite_stamp_of_another_stream_costs_no_window_that_has_a_neighbor():
    times, slow_times = 5 + np.arange(500) / 100, 5 + np.arange(50) / 10
    slow_times[20] = np.inf
    tree = tree_of(
        emg=(ramp(500), times, 100.0, None), kin=(np.ones((50, 1)), slow_times, 10.0, None)
    )
    windows = tree.session.aligned_windows("emg", "kin", 200, 100)
    assert windows.sizes["window"] == 49
    assert drop_log(windows).empty


def test_a_session_of_which_nothing_is_left_is_a_warning():
    times, away = np.arange(500) / 100, 1000 + np.arange(50) / 10
    kin, goal = np.ones((50, 1)), np.zeros((50, 2))
    tree = tree_of(
        emg=(ramp(500), times, 100.0, None),
        kin=(kin, away, 10.0, None),
        goal=(goal, away, 10.0, ["target_pct", "phase"]),
    )
    with pytest.warns(RecordingWarning, match=r"memory: all of 49 windows are left out.*'kin'"):
        assert tree.session.aligned_windows("emg", "kin", 200, 100).sizes["window"] == 0
    with pytest.warns(RecordingWarning, match="left out: outside the target stream"):
        assert tree.session.target_windows("emg", "goal", 200, 100).sizes["window"] == 0


def test_a_target_without_a_finite_time_is_no_target():
    nowhere = np.full(50, np.nan)
    tree = tree_of(
        emg=(ramp(500), np.arange(500) / 100, 100.0, None),
        goal=(np.zeros((50, 2)), nowhere, 10.0, ["target_pct", "phase"]),
    )
    with pytest.raises(labtree.SessionError, match="'goal' has no time stamp that is finite"):
        tree.session.target_windows("emg", "goal", 200, 100)


@pytest.mark.parametrize(
    ("events", "question"),
    [
        ([3000.0, 4100.0], r"from 3000 to 4100; are they milliseconds\? Write times / 1000"),
        ([1.7e9, np.nan], "are they milliseconds .* or of another clock"),
        ([-50.0], "are they milliseconds .* or of another clock"),
    ],
)
def test_no_event_in_the_time_of_the_stream_is_a_warning(events, question):
    tree = tree_of(emg=(ramp(500), 1 + np.arange(500) / 100, 100.0, None))
    with pytest.warns(RecordingWarning, match=rf"from 1 s to 5.99 s, the events.*{question}"):
        found = tree.session.peri_event("emg", events, 0.1, 0.1)
    assert found.sizes["event"] == 0
    assert len(drop_log(found)) == len(events)


def test_one_event_in_the_time_of_the_stream_is_enough():
    tree = tree_of(emg=(ramp(500), 1 + np.arange(500) / 100, 100.0, None))
    found = tree.session.peri_event("emg", [2.0, 4000.0, 1.5, 2.0], 0.1, 0.1)
    assert found.event.values.tolist() == [0, 2, 3]  # in the order given, repeated ones too
    same_rows(found.values, [90, 40, 90], 20)
