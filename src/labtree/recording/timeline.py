"""Where a moment falls in a stream, and where its samples do not follow one another.

The rules, for a stream of declared rate ``fs``:

- A sample is usable if its time stamp is finite and in order. Where time runs backward,
  either the samples stamped before an earlier one are out, or those stamped after a later
  one, whichever are fewer. What is not usable takes part in nothing.
- A gap is a step between two neighboring samples of more than ``gap_s``, one and a half
  sample periods unless the caller sets it. Samples that share one time stamp (a packet that
  was stamped once) explain a step of their number of periods.
- A moment belongs to the nearest usable sample, the first one on a tie; a moment in a gap
  belongs to the first sample after it.
- A declared rate is wrong if the measured one differs by more than 1 %, and by more than
  two samples over the whole stream, which jitter at its two ends could make up.
- A time stamp that stands still for longer than a window says nothing of when its samples
  were taken: no window may hold any of them. (A float32 cannot hold Unix time: it stands
  still for 128 s.)
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labtree.errors import SessionError
from labtree.storage.ragged import run_edges

_MOST_RATE_ERROR = 0.01


@dataclass(frozen=True)
class Timeline:
    """The time stamps of one stream, by the rules of this module.

    Parameters
    ----------
    times
        (n,) float64 seconds, as recorded.
    fs
        Declared rate in Hz; 0 means none, and then there are no gaps.
    gap_s
        Longest step that is no gap; None for one and a half periods.
    """

    times: np.ndarray
    fs: float
    gap_s: float | None = None

    @cached_property
    def unusable(self) -> np.ndarray:
        """Indices of samples whose time is not finite or out of order."""
        times = self.times
        if len(times) == 0:
            return np.empty(0, np.int64)
        if np.isfinite(times[[0, -1]]).all() and bool((times[1:] >= times[:-1]).all()):
            return np.empty(0, np.int64)
        finite = np.isfinite(times)
        highest = np.maximum.accumulate(np.where(finite, times, -np.inf))
        lowest = np.minimum.accumulate(np.where(finite, times, np.inf)[::-1])[::-1]
        early, late = finite & (times < highest), finite & (times > lowest)
        return np.flatnonzero(~finite | (early if early.sum() <= late.sum() else late))

    @cached_property
    def _usable(self) -> np.ndarray | None:
        """Indices of the usable samples, or None for all of them."""
        if len(self.unusable) == 0:
            return None
        keep = np.ones(len(self.times), bool)
        keep[self.unusable] = False
        return np.flatnonzero(keep)

    @cached_property
    def _sorted(self) -> np.ndarray:
        return self.times if self._usable is None else self.times[self._usable]

    @cached_property
    def rounding(self) -> float:
        """By how much a difference of two times may be off: they are rounded numbers."""
        ends = self._sorted[[0, -1]] if len(self._sorted) else np.zeros(1)
        return float(4 * np.spacing(np.abs(ends).max()))

    @cached_property
    def gaps(self) -> np.ndarray:
        """Indices of usable samples that do not follow the sample before them."""
        steps = np.diff(self._sorted)
        if self.fs <= 0 or len(steps) == 0:
            return np.empty(0, np.int64)
        period = 1 / self.fs
        most = 1.5 * period if self.gap_s is None else self.gap_s
        most += self.rounding
        at = np.flatnonzero(steps > most)
        if len(at) and bool((steps == 0).any()):
            edges = run_edges(self._sorted)
            run = np.diff(edges)
            position = np.searchsorted(edges[:-1], at + 1)
            longest = np.maximum(run[position - 1], run[position])
            at = at[steps[at] > most + (longest - 1) * period]
        after = at + 1
        return after if self._usable is None else self._usable[after]

    @cached_property
    def longest_run(self) -> int:
        """The most samples in a row that share one time stamp."""
        times = self._sorted
        if not bool((times[1:] == times[:-1]).any()):
            return min(1, len(times))
        return int(np.diff(run_edges(times)).max())

    @cached_property
    def measured_fs(self) -> float:
        """The rate in Hz that the time stamps tell; nan if unknown."""
        times = self._sorted
        if len(times) < 2 or times[-1] == times[0]:
            return float("nan")
        if len(self.gaps) == 0:
            last_run = len(times) - int(np.searchsorted(times, times[-1], "left"))
            return float((len(times) - last_run) / (times[-1] - times[0]))
        # Of hours, a hundred stretches say enough.
        length = 10_000
        if len(times) > 100 * length:
            starts = np.linspace(0, len(times) - length, 100).astype(int)
            parts = [times[start : start + length] for start in starts]
        else:
            parts = [times]
        return self._rate_between_gaps(parts)

    def _rate_between_gaps(self, parts: list[np.ndarray]) -> float:
        """Return the rate without the gaps.

        In stamps that jitter, the long steps belong to the short ones. So two rates are
        taken, one without steps that would be gaps at the usual period, one without steps
        of ten periods; the one nearer to ``fs`` counts.
        """
        steps, counts, behind = [], [], []
        for part in parts:
            edges = run_edges(part)
            runs = np.diff(edges)
            steps.append(np.diff(part[edges[:-1]]))
            counts.append(runs[:-1])
            behind.append(runs[1:])
        step, count = np.concatenate(steps), np.concatenate(counts)
        if len(step) == 0:
            return float("nan")
        usual = float(np.median(step / count))
        rates = []
        for most in (np.maximum(count, np.concatenate(behind)) + 0.5, 10 * count):
            near = step <= most * usual
            rates.append(float(count[near].sum() / step[near].sum()))
        return min(rates, key=lambda rate: abs(rate - self.fs))

    def rate_problem(self) -> str | None:
        """Return what is wrong with the declared rate, or None."""
        if self.fs <= 0 or len(self._sorted) < 3 * self.longest_run + 3:
            return None
        ratio = self.measured_fs / self.fs
        off = abs(ratio - 1)
        if np.isnan(off) or off <= _MOST_RATE_ERROR or off * len(self._sorted) <= 2:
            return None
        problem = (
            f"declares {self.fs:g} Hz, its time stamps tell {self.measured_fs:.6g} Hz"
            f" ({(ratio - 1) * 100:+.1f} %)"
        )
        if self.longest_run > max(self.fs, 100):
            return (
                f"{problem}, and stand still for up to {self.longest_run} samples (float32"
                " cannot hold Unix time)"
            )
        times = self._sorted
        overall = (len(times) - 1) / (times[-1] - times[0]) if times[-1] > times[0] else 0.0
        if self.gap_s is None and abs(overall / self.fs - 1) <= _MOST_RATE_ERROR:
            longest = float(np.median(np.diff(times)[np.diff(times) > 1.5 / self.fs]))
            problem += (
                f" between gaps and {overall:.6g} Hz over all: the stamps come in bursts; write"
                f" gap_s={2 * longest:.2g}, how long a step may be, or use labtree.dejitter"
            )
        elif abs(1000 * ratio - 1) <= _MOST_RATE_ERROR:
            problem += ": are they milliseconds? Write seconds, time / 1000"
        return problem

    def locate(self, moments: np.ndarray) -> np.ndarray:
        """Return the index of the sample that each moment belongs to (0 if there is none).

        A moment before the first or after the last usable sample belongs to that one.
        """
        moments = np.asarray(moments, float)
        if not np.isfinite(moments).all():
            raise SessionError(f"expected finite moments in seconds, found {moments}")
        times = self._sorted
        if len(times) == 0:
            return np.zeros(len(moments), np.int64)
        after = np.searchsorted(times, moments, "left")
        right = np.minimum(after, len(times) - 1)
        left = np.maximum(after - 1, 0)
        nearer = np.abs(times[left] - moments) <= np.abs(times[right] - moments)
        found = np.where(nearer, np.searchsorted(times, times[left], "left"), right)
        if self._usable is not None:
            found, right = self._usable[found], self._usable[right]
        inside = (after > 0) & (after < len(times))
        in_gap = inside & np.isin(right, self.gaps)
        return np.where(in_gap, right, found).astype(np.int64)

    def locate_or_end(self, moments: np.ndarray) -> np.ndarray:
        """Return the index of the sample of each moment; their number for one after the end."""
        after = self.is_after_end(moments)
        return np.where(after, len(self.times), self.locate(moments))

    @property
    def span(self) -> tuple[float, float]:
        """The times of the first and of the last usable sample, in s."""
        return float(self._sorted[0]), float(self._sorted[-1])

    @cached_property
    def has_usable(self) -> bool:
        """Whether any sample has a time."""
        return len(self._sorted) > 0

    @property
    def _period(self) -> float:
        return 1 / self.fs if self.fs > 0 else 0.0

    def is_before_start(self, moments: np.ndarray) -> np.ndarray:
        """Return which moments lie more than a period before the first sample."""
        first = self._sorted[0] if self.has_usable else np.inf
        return np.asarray(moments < first - self._period)

    def is_after_end(self, moments: np.ndarray) -> np.ndarray:
        """Return which moments lie more than a period after the last sample."""
        last = self._sorted[-1] if self.has_usable else -np.inf
        return np.asarray(moments > last + self._period)

    def standing(self, starts: np.ndarray, length: np.ndarray | int) -> np.ndarray:
        """Return which stretches of ``length`` samples meet a stamp that stands longer."""
        if isinstance(length, np.ndarray):
            found = np.zeros(len(starts), bool)
            for one in np.unique(length[length < self.longest_run]).tolist():
                found[length == one] = self.standing(starts[length == one], one)
            return found
        if self.longest_run <= length:
            return np.zeros(len(starts), bool)
        edges = run_edges(self._sorted)
        long = np.diff(edges) > length
        first, last = edges[:-1][long], edges[1:][long] - 1
        if self._usable is not None:
            first, last = self._usable[first], self._usable[last]
        at = np.minimum(np.searchsorted(last, starts, "left"), len(last) - 1)
        return np.asarray((last[at] >= starts) & (first[at] < starts + length))

    def breaks(
        self, starts: np.ndarray, length: np.ndarray | int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which stretches of ``length`` samples hold an unusable one, or a gap."""
        last = starts + length - 1
        unusable = np.searchsorted(self.unusable, last, "right") > np.searchsorted(
            self.unusable, starts, "left"
        )
        gap = np.searchsorted(self.gaps, last, "right") > np.searchsorted(
            self.gaps, starts, "right"
        )
        return unusable, gap
