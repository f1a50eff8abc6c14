"""``.msw`` on DataFrames: the trials of a Murine Shift Work session."""

from typing import TYPE_CHECKING, Literal

import pandas as pd

from labtree.objects import KIND_MODULES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from labtree.msw.trial_queries import Clock


KIND_MODULES.append("labtree.msw.trials_kind")


@pd.api.extensions.register_dataframe_accessor("msw")
class MswAccessor:
    """States, events, measures, alignment and plots of a trial table.

    The table is ``session.df`` of `labtree.msw.load_session`, or rows of it. Returned
    Series have its index, with NaN where a trial has no value.

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
        from labtree.msw.trial_queries import task_trials

        return task_trials(self._frame)

    @property
    def barcodes(self) -> pd.DataFrame:
        """The rows that sent a barcode (``trial_type`` "barcode")."""
        from labtree.msw.trial_queries import barcode_trials

        return barcode_trials(self._frame)

    def states(self, clock: "Clock" = "trial") -> pd.DataFrame:
        """Return every visit to a state, one per row.

        Parameters
        ----------
        clock : {"trial", "session", "ephys"}
            What times count from: the trial's start, the session's, or that of the ephys
            recording (after :meth:`align`), whatever the file itself counts from.

        Returns
        -------
        DataFrame
            ``trial``, ``state`` (categorical), ``visit`` (0 for a state's first in the trial),
            ``start`` and ``end`` (s); in the order of the rows, then of time.

        Raises
        ------
        TrialTableError
            (a ValueError) The table has no states, or no alignment to the ephys clock.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.states().columns.tolist()
        ['trial', 'state', 'visit', 'start', 'end']
        """
        from labtree.msw.trial_queries import state_table

        return state_table(self._frame, clock)

    def events(self, clock: "Clock" = "trial") -> pd.DataFrame:
        """Return every event, one per row.

        Parameters
        ----------
        clock : {"trial", "session", "ephys"}
            What times count from: the trial's start, the session's, or that of the ephys
            recording (after :meth:`align`), whatever the file itself counts from.

        Returns
        -------
        DataFrame
            ``trial``, ``event`` (categorical), ``occurrence`` (0 for an event's first in the
            trial) and ``time`` (s); in the order of the rows, then of time.

        Raises
        ------
        TrialTableError
            (a ValueError) The table has no events, or no alignment to the ephys clock.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.events().columns.tolist()
        ['trial', 'event', 'occurrence', 'time']
        """
        from labtree.msw.trial_queries import event_table

        return event_table(self._frame, clock)

    def state_time(
        self,
        name: str,
        edge: Literal["start", "end"] = "start",
        clock: "Clock" = "trial",
        visit: int = 0,
    ) -> pd.Series:
        """Return when a state began or ended in each trial.

        Parameters
        ----------
        name : str
            The state.
        edge : {"start", "end"}
            Its beginning or its end.
        clock : {"trial", "session", "ephys"}
            What times count from: the trial's start, the session's, or that of the ephys
            recording (after :meth:`align`), whatever the file itself counts from.
        visit : int
            Which visit, if there are several: 0 is the first, -1 the last.

        Returns
        -------
        Series
            Seconds, by the table's index; NaN where the trial has no such visit.

        Raises
        ------
        UnknownNameError
            (a KeyError) No trial of the session has a state of that name; the message lists
            those that there are.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.state_time("side_ready").round(2).head(3).tolist()
        [nan, 0.57, 0.22]
        """
        from labtree.msw.trial_queries import state_time

        return state_time(self._frame, name, edge, clock, visit)

    def visited(self, name: str) -> pd.Series:
        """Return in which trials a state was visited.

        Parameters
        ----------
        name : str
            The state.

        Returns
        -------
        Series of bool
            By the table's index.

        Raises
        ------
        UnknownNameError
            (a KeyError) No trial of the session has a state of that name.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> int(df.msw.visited("side_ready").sum())
        38
        """
        from labtree.msw.trial_queries import visited

        return visited(self._frame, name)

    def latency(self, a: str, b: str) -> pd.Series:
        """Return the time from one state to the next in each trial.

        Parameters
        ----------
        a, b : str
            The states: from the start of the first visit to `a` to the start of the first
            visit to `b` that begins then or later.

        Returns
        -------
        Series
            Seconds, by the table's index; NaN where either is missing.

        Raises
        ------
        UnknownNameError
            (a KeyError) No trial of the session has a state of that name.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.latency("center_ready", "side_ready").round(2).head(3).tolist()
        [nan, 0.57, 0.21]
        """
        from labtree.msw.trial_queries import latency

        return latency(self._frame, a, b)

    def reaction_time(self) -> pd.Series:
        """Return how long ``side_ready`` lasted where a choice was made.

        Returns
        -------
        Series
            Seconds, by the table's index; NaN where ``choice`` is missing (a timeout, or no
            task). Of several visits in a trial the last counts: it ended with the choice.

        Raises
        ------
        UnknownNameError
            (a KeyError) The table has no ``choice``.
        TrialTableError
            (a ValueError) The table has no states.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.reaction_time().round(2).head(3).tolist()
        [nan, nan, 0.33]
        """
        from labtree.msw.measures import reaction_time

        return reaction_time(self._frame)

    def outcome(self) -> pd.Series:
        """Return the outcome of each trial.

        Returns
        -------
        Series of str
            The column ``outcome`` where there is one (correct, incorrect, no_response); else
            "rewarded", "unrewarded", or "no_response" where ``choice`` is missing. Missing in
            rows that are not task trials.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.outcome().value_counts().to_dict()
        {'rewarded': 20, 'unrewarded': 17, 'no_response': 1}
        """
        from labtree.msw.measures import outcome

        return outcome(self._frame)

    def blocks(self) -> pd.DataFrame:
        """Return the blocks, one per row: runs of task trials with one ``block_number``.

        Returns
        -------
        DataFrame
            ``block_number`` and the block's type, as in the trials; ``first_trial`` and
            ``last_trial`` (values of ``trial``), ``n_trials``, ``n_choices``,
            ``right_fraction`` (of the choices) and ``rewarded_fraction`` (of the trials).

        Raises
        ------
        UnknownNameError
            (a KeyError) The table has no ``block_number``.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.blocks()["n_trials"].tolist()
        [28, 10]
        """
        from labtree.msw.measures import blocks

        return blocks(self._frame)

    def win_stay_lose_shift(self) -> pd.Series:
        """Return how often a choice is repeated after a win and changed after a loss.

        Returns
        -------
        Series
            Over pairs of successive task trials that both have a choice: ``win_stay``, the
            fraction of rewarded first trials whose choice was made again; ``lose_shift``, the
            fraction of unrewarded ones whose choice was not; ``n_wins`` and ``n_losses``, how
            many pairs each rests on.

        Raises
        ------
        UnknownNameError
            (a KeyError) The table has no ``choice`` or ``rewarded``.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.win_stay_lose_shift().index.tolist()
        ['win_stay', 'lose_shift', 'n_wins', 'n_losses']
        """
        from labtree.msw.measures import win_stay_lose_shift

        return win_stay_lose_shift(self._frame)

    def switch_curve(self, before: int = 10, after: int = 20) -> pd.DataFrame:
        """Return how the choices follow a switch of the better side.

        Parameters
        ----------
        before, after : int
            Task trials before a switch, and from the switch on.

        Returns
        -------
        DataFrame
            By ``from_switch`` (0 is the first trial of the new block):
            ``new_side_fraction``, of the choices, and ``n``, how many. The better side is
            the larger of ``block_type_values`` [left, right]. Trials count only within the
            blocks next to the switch.

        Raises
        ------
        UnknownNameError
            (a KeyError) The table has no ``choice``, or no blocks.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.switch_curve(before=2, after=3).index.tolist()
        [-2, -1, 0, 1, 2]
        """
        from labtree.msw.measures import switch_curve

        return switch_curve(self._frame, before, after)

    def rolling(self, field: str, n: int) -> pd.Series:
        """Return the mean of a column over the last trials that have a value.

        Parameters
        ----------
        field : str
            The column, numbers or booleans.
        n : int
            How many trials the mean goes over.

        Returns
        -------
        Series
            By the table's index; NaN until there are `n` values of the session, and in rows
            without a value, which do not count.

        Raises
        ------
        UnknownNameError
            (a KeyError) The table has no such column.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.rolling("rewarded", 5).round(2).tail(2).tolist()
        [0.6, 0.6]
        """
        from labtree.msw.measures import rolling

        return rolling(self._frame, field, n)

    def pokes(self, clock: "Clock" = "trial") -> pd.DataFrame:
        """Return the pokes, one per row.

        Parameters
        ----------
        clock : {"trial", "session", "ephys"}
            What times count from: the trial's start, the session's, or that of the ephys
            recording (after :meth:`align`), whatever the file itself counts from.

        Returns
        -------
        DataFrame
            ``trial``, ``port``, ``start`` and ``end`` (s), from the events ``Port<n>In`` and
            ``Port<n>Out``; ``end`` is NaN where the trial has no exit before the next entry.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.pokes().columns.tolist()
        ['trial', 'port', 'start', 'end']
        """
        from labtree.msw.measures import pokes

        return pokes(self._frame, clock)

    def transitions(self) -> pd.DataFrame:
        """Return the steps between ports that the column ``transition_times`` holds.

        Returns
        -------
        DataFrame
            ``trial``, ``from``, ``to`` and ``dt`` (s), one step per row.

        Raises
        ------
        UnknownNameError
            (a KeyError) The table has no ``transition_times``.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40, task="sequence"))
        >>> df.msw.transitions().columns.tolist()
        ['trial', 'from', 'to', 'dt']
        """
        from labtree.msw.measures import transitions

        return transitions(self._frame)

    def wall_time(self) -> pd.Series:
        """Return when each trial began, in UTC, by the barcodes of its session.

        Returns
        -------
        Series of datetime64
            By the table's index; NaT in a session of a joined table that has no barcode.

        Raises
        ------
        TrialTableError
            (a ValueError) No session has a barcode.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> str(df.msw.wall_time().dtype)
        'datetime64[ns, UTC]'
        """
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
        """Return the trials on the clock of an ephys recording, by their barcodes.

        Parameters
        ----------
        events : DataFrame
            Edges: ``line``, ``state`` (above 0: high), ``timestamp`` or ``timestamps`` (s).
        line : int or str, optional
            Which line the barcodes are on; needed if there are edges on several.
        timestamp_column : str, optional
            The name of the times' column, if it is another.
        max_residual_s : float
            A barcode that is further from the clock than this, in s, is not used.

        Returns
        -------
        DataFrame
            The table with ``trial_start_ephys``, ``barcode_ephys_time``,
            ``barcode_residual`` (s), ``alignment_slope``, ``alignment_intercept`` and
            ``n_barcodes_matched``; ``clock="ephys"`` then works.

        Raises
        ------
        TrialTableError
            (a ValueError) The trials sent no barcode, there is no such line, or the table
            joins several sessions.
        DataError
            (a ValueError) Fewer than two barcodes match, or no more than half of them
            lie on one clock.

        Warns
        -----
        RecordingWarning
            The clock jumps; trials within the jump have no ephys time (NaN).

        See Also
        --------
        labtree.msw.align_trials : The same, and the clock with every anchor.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials, make_ttl_edges
        >>> trials = make_trials(200)
        >>> aligned = trials_to_frame(trials).msw.align(make_ttl_edges(trials), line=4)
        >>> int(aligned["n_barcodes_matched"].iloc[0])
        10
        """
        from labtree.msw.alignment import align_trials

        return align_trials(
            self._frame,
            events,
            line=line,
            timestamp_column=timestamp_column,
            max_residual_s=max_residual_s,
        )[0]

    def summary(self) -> pd.Series:
        """Return the session in a few numbers.

        Returns
        -------
        Series
            Rows, choices, outcomes, blocks, times.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.summary().index[:3].tolist()
        ['n_rows', 'n_task', 'n_barcodes']
        """
        from labtree.msw.measures import summary

        return summary(self._frame)

    def validate(self) -> list[str]:
        """Return what is unusual about the trials: their order, times and barcodes.

        Returns
        -------
        list of str
            One sentence for each; empty where nothing is unusual.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.validate()
        []
        """
        from labtree.msw.measures import check_times, check_trials

        return check_times(self._frame) + check_trials(self._frame)

    def to_xarray(self) -> "xr.Dataset":
        """Return the trials as a Dataset that netCDF and zarr can keep.

        Returns
        -------
        Dataset
            Every column is a variable along ``trial`` of a plain numpy dtype; states and
            events are CF contiguous ragged arrays (``state_start(state_visit)``,
            ``state_row_size(trial)`` and so on). `labtree.msw.trials_from_xarray` makes the
            table again.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.to_xarray().sizes["trial"]
        40
        """
        from labtree.msw.session_trees import trials_to_xarray

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
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        MissingDependencyError
            (an ImportError) matplotlib is not installed.

        Examples
        --------
        >>> from labtree.msw import trials_to_frame
        >>> from labtree.testing.msw import make_trials
        >>> df = trials_to_frame(make_trials(40))
        >>> df.msw.plot("states").get_ylabel()
        'task trial'
        """
        from labtree.msw.trial_plots import plot_trials

        return plot_trials(self._frame, kind, ax)

    def __repr__(self) -> str:
        from labtree.msw.msw_panel import trials_panel

        return trials_panel(self._frame).text()

    def _repr_html_(self) -> str:
        from labtree.msw.msw_panel import trials_panel

        return trials_panel(self._frame).html()
