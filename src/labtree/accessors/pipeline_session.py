"""What ``tree.session`` can do with the session of a pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

import labtree.mea  # noqa: F401, declares its steps and the dimensions of its arrays

if TYPE_CHECKING:
    import numpy as np

    from labtree.pipeline.sessions import SaveState


class PipelineSessionMethods:
    """Methods of ``tree.session`` for sessions of a pipeline."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    @property
    def completed_steps(self) -> frozenset[str]:
        """Names of the steps that are done."""
        from labtree.pipeline.sessions import completed_steps

        return completed_steps(self._tree)

    @property
    def warnings(self) -> list[str]:
        """Warnings that steps and users left in the session; read-only."""
        from labtree.pipeline.sessions import session_warnings

        return session_warnings(self._tree)

    def add_warning(self, text: str) -> None:
        """Keep a warning in the session, each text once.

        Parameters
        ----------
        text : str
            A sentence for people.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_warning("the light was off")
        >>> tree.session.warnings
        ['the light was off']
        """
        from labtree.pipeline.sessions import add_warning

        add_warning(self._tree, text)

    @property
    def source_files(self) -> Mapping[str, Path]:
        """Files that the session was made from, by name; read-only."""
        from labtree.pipeline.sessions import source_files

        return source_files(self._tree)

    @property
    def save_state(self) -> "SaveState":
        """Whether the session's file holds what is in memory."""
        from labtree.pipeline.sessions import save_state

        return save_state(self._tree)

    @property
    def is_saved(self) -> bool:
        """Whether the session's file holds what is in memory."""
        return self.save_state.name == "SAVED"

    @property
    def is_deferred(self) -> bool:
        """Whether something is in memory only."""
        return self.save_state.name == "DEFERRED"

    @property
    def unit_count(self) -> int:
        """Number of units."""
        from labtree.pipeline.sessions import unit_count

        return unit_count(self._tree)

    @property
    def memory_estimate_gb(self) -> float:
        """Size of all that is in memory, GiB."""
        from labtree.pipeline.sessions import memory_estimate_gb

        return memory_estimate_gb(self._tree)

    @property
    def hdf5_path(self) -> Path | None:
        """File that the session was last saved to or loaded from."""
        from labtree.pipeline.sessions import hdf5_path

        return hdf5_path(self._tree)

    def add_units(self, units: Mapping[str, Mapping[str, Any]]) -> None:
        """Add units, or replace values of units that are there; values are copied.

        Parameters
        ----------
        units : mapping of unit id to mapping
            ``spike_times`` in samples, any other arrays and scalars, ``features`` (name to
            ``{"data": ..., "metadata": ...}``), and ``spike_times_sectioned`` (movie to
            ``{"trials_spike_times": {0: ..., 1: ...}}``), kept as index ranges.

        Raises
        ------
        SessionError
            (a ValueError) Spike times are not sorted samples, or trials are no slices of them.
            The session is unchanged.
        UnsupportedTypeError
            (a TypeError) A file cannot keep a value exactly; the message names it.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
        >>> tree.session.unit_count
        1
        """
        from labtree.pipeline.units import add_units

        add_units(self._tree, units)

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata: arrays as variables, the rest as attributes; values are copied.

        Parameters
        ----------
        metadata : mapping of name to value
            Any names; a DataArray keeps its dimensions.

        Raises
        ------
        UnsupportedTypeError
            (a TypeError) A file cannot keep a value exactly; nothing is added.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_metadata({"acquisition_rate": 20000.0})
        >>> tree["metadata"].attrs["acquisition_rate"]
        20000.0
        """
        from labtree.pipeline.session_values import add_metadata

        add_metadata(self._tree, metadata)

    def add_stimulus(self, stimulus: Mapping[str, Any]) -> None:
        """Add to the stimulus; a mapping becomes, or joins, a group of its name.

        Parameters
        ----------
        stimulus : mapping of name to array, value, Dataset, or mapping of them
            The values are copied.

        Raises
        ------
        UnsupportedTypeError
            (a TypeError) A file cannot keep a value exactly; nothing is added.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_stimulus({"frame_times": {"default": np.array([10, 20])}})
        >>> tree["stimulus/frame_times"]["default"].values
        array([10, 20])
        """
        from labtree.pipeline.session_values import add_stimulus

        add_stimulus(self._tree, stimulus)

    def add_feature(
        self, unit_id: str, name: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Add the feature of one unit to the array of all units.

        Parameters
        ----------
        unit_id : str
            The unit.
        name : str
            The feature.
        data : array, scalar or mapping of them
            Its values; a mapping becomes several variables.
        metadata : mapping, optional
            What is known of it, kept for each unit.

        Raises
        ------
        SessionError
            (a ValueError) The data cannot be one array together with those of other units.
        UnknownNameError
            (a KeyError) There is no such unit.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
        >>> tree.session.add_feature("unit_001", "burst", {"index": 0.5}, {"version": "1"})
        >>> tree["features/burst"].sel(unit="unit_001")["index"].item()
        0.5
        """
        from labtree.pipeline.units import add_feature

        add_feature(self._tree, unit_id, name, data, metadata)

    def feature(self, unit_id: str, name: str) -> dict[str, Any]:
        """Return one unit's feature.

        Parameters
        ----------
        unit_id : str
            The unit.
        name : str
            The feature.

        Returns
        -------
        dict
            ``data`` and ``metadata``, as they were added.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such unit or feature; the message lists those there are.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
        >>> tree.session.add_feature("unit_001", "burst", 0.5, {"version": "1"})
        >>> tree.session.feature("unit_001", "burst")["metadata"]
        {'version': '1'}
        """
        from labtree.pipeline.units import feature

        return feature(self._tree, unit_id, name)

    def spikes(self, unit_id: str) -> xr.DataArray:
        """Return one unit's spike times.

        Parameters
        ----------
        unit_id : str
            The unit.

        Returns
        -------
        DataArray
            (spike), in samples of the recording.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such unit.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
        >>> tree.session.spikes("unit_001").values
        array([5, 9])
        """
        from labtree.pipeline.units import unit_spikes

        return unit_spikes(self._tree, unit_id)

    def full_spike_times(self, unit_id: str, movie_name: str) -> "np.ndarray[Any, Any]":
        """Return one unit's spikes in all trials of a movie, sorted, each once.

        Parameters
        ----------
        unit_id : str
            The unit.
        movie_name : str
            The movie.

        Returns
        -------
        ndarray
            Samples of the recording.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such unit or movie.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> trials = {"trials_spike_times": {0: np.array([5]), 1: np.array([9])}}
        >>> unit = {"spike_times": np.array([5, 9]), "spike_times_sectioned": {"movie": trials}}
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_units({"unit_001": unit})
        >>> tree.session.full_spike_times("unit_001", "movie")
        array([5, 9])
        """
        from labtree.pipeline.sections import full_spike_times

        return full_spike_times(self._tree, unit_id, movie_name)

    def trials_spike_times(
        self, unit_id: str, movie_name: str
    ) -> "dict[int, np.ndarray[Any, Any]]":
        """Return one unit's spikes trial by trial of a movie.

        Parameters
        ----------
        unit_id : str
            The unit.
        movie_name : str
            The movie.

        Returns
        -------
        dict of int to ndarray
            Samples of the recording, by the number of the trial, from 0 through all
            presentations.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such unit or movie.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> trials = {"trials_spike_times": {0: np.array([5]), 1: np.array([9])}}
        >>> unit = {"spike_times": np.array([5, 9]), "spike_times_sectioned": {"movie": trials}}
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_units({"unit_001": unit})
        >>> tree.session.trials_spike_times("unit_001", "movie")
        {0: array([5]), 1: array([9])}
        """
        from labtree.pipeline.sections import trials_spike_times

        return trials_spike_times(self._tree, unit_id, movie_name)

    def mark_step_complete(self, name: str) -> None:
        """Record that a step is done.

        Parameters
        ----------
        name : str
            The step.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.mark_step_complete("load_recording")
        >>> sorted(tree.session.completed_steps)
        ['load_recording']
        """
        from labtree.pipeline.sessions import mark_step_complete

        mark_step_complete(self._tree, name)

    def save(self, output_path: str | Path | None = None, overwrite: bool = True) -> Path:
        """Save the whole session; it is SAVED then, until something in it changes.

        Parameters
        ----------
        output_path : path, optional
            With or without ``.h5``; by default ``{output_dir}/{dataset_id}.h5``. Folders are
            made.
        overwrite : bool
            Whether an existing session may be replaced. It is replaced in one step, once
            the new one is complete.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        SessionExistsError
            (a FileExistsError) The file exists and may not be replaced, or holds something
            else than a session.
        BusyFileError
            (an OSError) Another program holds the file.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.save("rec1").name
        'rec1.h5'
        """
        from labtree.pipeline.checkpoints import save

        return save(self._tree, output_path, overwrite)

    def checkpoint(self, path: str | Path, overwrite: bool = True) -> Path:
        """Write the session to a file, and leave its state as it is.

        Parameters
        ----------
        path : path
            With or without ``.h5``. Folders are made.
        overwrite : bool
            Whether an existing session may be replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        SessionExistsError
            (a FileExistsError) The file exists and may not be replaced, or holds something
            else than a session.
        BusyFileError
            (an OSError) Another program holds the file.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.checkpoint("before").name
        'before.h5'
        >>> tree.session.is_saved
        False
        """
        from labtree.pipeline.checkpoints import checkpoint

        return checkpoint(self._tree, path, overwrite)
