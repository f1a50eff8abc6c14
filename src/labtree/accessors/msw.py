"""``df.msw``: the trials of a Murine Shift Work session."""

from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["MswAccessor"]

Clock = Literal["trial", "session", "ephys"]


@pd.api.extensions.register_dataframe_accessor("msw")
class MswAccessor:
    """What can be asked of a trial table: states, events, measures, alignment, plots.

    The table is ``session.df`` of `labtree.msw.load_session`, or rows of it. Series that
    come back have its index, with NaN where a trial has no answer.

    Examples
    --------
    >>> from labtree.msw import trials_to_frame
    >>> from labtree.testing.msw import make_trials
    >>> df = trials_to_frame(make_trials(40))
    >>> df.msw.state_time("side_ready").head(2).tolist()
    [nan, 0.5671]
    >>> df[df["choice"] == 1].msw.reaction_time().notna().all()
    np.True_
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    @property
    def task(self) -> pd.DataFrame:
        """The rows in which the task ran (``trial_type`` "task"; all rows without it)."""
        from labtree.msw.access import task_trials

        return task_trials(self._frame)

    @property
    def barcodes(self) -> pd.DataFrame:
        """The rows that sent a barcode (``trial_type`` "barcode")."""
        from labtree.msw.access import barcode_trials

        return barcode_trials(self._frame)

    def states(self, clock: Clock = "trial") -> pd.DataFrame:
        """Give every visit to a state, one a row.

        Parameters
        ----------
        clock : {"trial", "session", "ephys"}
            What times count from: the trial's start, the session's, or the ephys
            recording's (after `align`). Whatever the file itself counts from.

        Returns
        -------
        pandas.DataFrame
            ``trial``, ``state`` (categorical), ``visit`` (0 for a state's first in the trial),
            ``start`` and ``end`` (s); in the order of the rows, then of time.
        """
        from labtree.msw.access import state_table

        return state_table(self._frame, clock)

    def events(self, clock: Clock = "trial") -> pd.DataFrame:
        """Give every event, one a row.

        Parameters
        ----------
        clock : {"trial", "session", "ephys"}
            As in `states`.

        Returns
        -------
        pandas.DataFrame
            ``trial``, ``event`` (categorical), ``occurrence`` (0 for an event's first in the
            trial) and ``time`` (s); in the order of the rows, then of time.
        """
        from labtree.msw.access import event_table

        return event_table(self._frame, clock)

    def state_time(
        self,
        name: str,
        edge: Literal["start", "end"] = "start",
        clock: Clock = "trial",
        visit: int = 0,
    ) -> pd.Series:
        """Give when a state began or ended in each trial.

        Parameters
        ----------
        name : str
            The state.
        edge : {"start", "end"}
            Its beginning or its end.
        clock : {"trial", "session", "ephys"}
            As in `states`; "session" times are what ``tree.session.peri_event`` takes.
        visit : int
            Which visit, if there are several: 0 is the first, -1 the last.

        Returns
        -------
        pandas.Series
            Seconds; NaN where the trial has no such visit.

        Raises
        ------
        KeyError
            No trial of the session has a state of that name; the message lists them.
        """
        from labtree.msw.access import state_time

        return state_time(self._frame, name, edge, clock, visit)

    def visited(self, name: str) -> pd.Series:
        """Tell in which trials a state was visited (bool)."""
        from labtree.msw.access import visited

        return visited(self._frame, name)

    def latency(self, a: str, b: str) -> pd.Series:
        """Give the time from the start of state `a` to the next start of state `b`.

        From the first visit to `a`, to the first visit to `b` that begins then or later,
        in seconds; NaN where either lacks.
        """
        from labtree.msw.access import latency

        return latency(self._frame, a, b)

    def reaction_time(self) -> pd.Series:
        """Give the reaction times: how long ``side_ready`` lasted, where a choice was made.

        Seconds; NaN where ``choice`` is missing (a timeout, or no task). If a trial visits
        ``side_ready`` several times, the last visit counts: it ended with the choice.
        """
        from labtree.msw.measures import reaction_time

        return reaction_time(self._frame)

    def outcome(self) -> pd.Series:
        """Name each trial's outcome.

        The column ``outcome`` where there is one (correct, incorrect, no_response); else
        "rewarded", "unrewarded", or "no_response" where ``choice`` is missing. Missing in
        rows that are no task.
        """
        from labtree.msw.measures import outcome

        return outcome(self._frame)

    def blocks(self) -> pd.DataFrame:
        """Give the blocks, one a row: runs of task trials with one ``block_number``.

        Returns
        -------
        pandas.DataFrame
            ``block_number`` and the block's type, as in the trials; ``first_trial`` and
            ``last_trial`` (values of ``trial``), ``n_trials``, ``n_choices``,
            ``right_fraction`` (of the choices) and ``rewarded_fraction`` (of the trials).
        """
        from labtree.msw.measures import blocks

        return blocks(self._frame)

    def win_stay_lose_shift(self) -> pd.Series:
        """Give how often wins are repeated and losses are left.

        Over pairs of successive task trials in both of which a choice was made:
        ``win_stay``, the fraction of rewarded first trials whose choice was made again, and
        ``lose_shift``, the fraction of unrewarded ones whose choice was not; with
        ``n_wins`` and ``n_losses``, the pairs that each rests on.
        """
        from labtree.msw.measures import win_stay_lose_shift

        return win_stay_lose_shift(self._frame)

    def switch_curve(self, before: int = 10, after: int = 20) -> pd.DataFrame:
        """Give how the choices follow a switch of the better side.

        Parameters
        ----------
        before, after : int
            Task trials before a switch, and from the switch on.

        Returns
        -------
        pandas.DataFrame
            By ``from_switch`` (0 is the first trial of the new block):
            ``new_side_fraction``, of the choices, and ``n``, how many. The better side is
            the larger of ``block_type_values`` [left, right]. Trials count only within the
            blocks next to the switch.
        """
        from labtree.msw.measures import switch_curve

        return switch_curve(self._frame, before, after)

    def rolling(self, field: str, n: int) -> pd.Series:
        """Give the mean of a column over the last `n` trials that have a value.

        NaN until there are `n`, and in the rows without a value, which are passed over.
        """
        from labtree.msw.measures import rolling

        return rolling(self._frame, field, n)

    def pokes(self, clock: Clock = "trial") -> pd.DataFrame:
        """Give the pokes: ``trial``, ``port``, ``start`` and ``end`` (s).

        From the events ``Port<n>In`` and ``Port<n>Out``; ``end`` is NaN where the trial has
        no exit before the next entry.
        """
        from labtree.msw.measures import pokes

        return pokes(self._frame, clock)

    def transitions(self) -> pd.DataFrame:
        """Give the steps between ports that ``transition_times`` tells.

        ``trial``, ``from``, ``to`` and ``dt`` (s), a row a step.
        """
        from labtree.msw.measures import transitions

        return transitions(self._frame)

    def wall_time(self) -> pd.Series:
        """Give when each trial began, in UTC, by the session's barcodes."""
        from labtree.msw.measures import wall_time

        return wall_time(self._frame)

    def align(
        self,
        events: pd.DataFrame,
        *,
        line: int | str | None = None,
        timestamp_column: str | None = None,
        max_residual_s: float = 0.005,
    ) -> pd.DataFrame:
        """Put the trials on an ephys clock by the barcodes on one of its lines.

        Parameters
        ----------
        events : pandas.DataFrame
            Edges: ``line``, ``state`` (above 0: HIGH), ``timestamp`` or ``timestamps`` (s).
        line : int or str, optional
            Which line the barcodes are on; needed if there are edges on several.
        timestamp_column : str, optional
            The name of the times' column, if it is another.
        max_residual_s : float
            A barcode further from the clock than this is not used.

        Returns
        -------
        pandas.DataFrame
            The table with ``trial_start_ephys``, ``barcode_ephys_time``,
            ``barcode_residual`` (s), ``alignment_slope``, ``alignment_intercept`` and
            ``n_barcodes_matched``; ``clock="ephys"`` then works.

        See Also
        --------
        labtree.msw.align_trials : The same, with every anchor of the clock.
        """
        from labtree.msw.measures import align_trials

        return align_trials(
            self._frame,
            events,
            line=line,
            timestamp_column=timestamp_column,
            max_residual_s=max_residual_s,
        )[0]

    def summary(self) -> pd.Series:
        """Give the session in a few numbers: rows, choices, outcomes, blocks, times."""
        from labtree.msw.measures import summary

        return summary(self._frame)

    def validate(self) -> list[str]:
        """Tell what is odd about the trials: their order, their times, their barcodes."""
        from labtree.msw.measures import check_times, check_trials

        return check_times(self._frame) + check_trials(self._frame)

    def to_xarray(self) -> "xr.Dataset":
        """Give the trials as a Dataset that netCDF and zarr can keep.

        Every column is a variable along ``trial`` of a plain numpy dtype: nullable
        integers are float64 with NaN, nullable booleans int8 with ``flag_meanings``
        "missing false true", strings with holes "" and a ``<name>_missing`` variable, lists
        two-dimensional or JSON text. States and events are CF contiguous ragged arrays
        (``state_start(state_visit)``, ``state_row_size(trial)`` and so on).
        `labtree.msw.trials_from_xarray` gives the table back.
        """
        from labtree.msw.trees import trials_to_xarray

        return trials_to_xarray(self._frame)

    def plot(
        self,
        kind: Literal["overview", "states", "switch_curve"] = "overview",
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Draw the session.

        Parameters
        ----------
        kind : {"overview", "states", "switch_curve"}
            Choices, outcomes, rolling performance and block edges; the states, trial by
            trial; or the choices around block switches.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure unless given.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.
        """
        from labtree.msw.plots import plot_trials

        return plot_trials(self._frame, kind, ax)

    def __repr__(self) -> str:
        from labtree.msw.trials_panel import trials_panel

        return trials_panel(self._frame).text()

    def _repr_html_(self) -> str:
        from labtree.msw.trials_panel import trials_panel

        return trials_panel(self._frame).html()
