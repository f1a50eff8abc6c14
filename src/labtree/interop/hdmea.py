"""hdmea's saved sessions, checkpoints and immediate files, as pipeline sessions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import (
    FormatError,
    SessionError,
    UnknownNameError,
    damage_as_format_error,
)
from labtree.interop.workspaces import note_origin
from labtree.pipeline.sections import index_trials, put_sections
from labtree.pipeline.session_values import add_metadata, add_stimulus
from labtree.pipeline.sessions import add_warning, create_session, mark_step_complete, units_of
from labtree.pipeline.units import add_units
from labtree.storage.hdf5_files import check_heaps, open_hdf5

Array = np.ndarray[Any, Any]
# hdmea does not store the margins of a section; these are its defaults
PRE_MARGIN, POST_MARGIN = 60, 120


def is_hdmea(path: str | Path) -> bool:
    """Return whether a file is a session that hdmea wrote."""
    try:
        with open_hdf5(path) as file:
            known = {"hdmea_version", "hdmea_pipeline_version", "stage1_completed"}
            return bool(known & set(file.attrs)) and "labtree_format" not in file.attrs
    except Exception:  # what reads it reports the damage
        return False


def _plain(value: Any) -> Any:
    """Return a stored value with bytes decoded and zero-dimensional arrays as scalars."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.kind == "S":
            decoded = [_plain(one) for one in value.ravel().tolist()]
            return decoded[0] if value.ndim == 0 else decoded
        return value[()] if value.ndim == 0 else value
    return value


def _read(group: h5py.Group, path: Path) -> dict[str, Any]:
    """Read a group as nested dictionaries, attributes and datasets side by side."""
    made = {str(name): _plain(value) for name, value in group.attrs.items()}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FormatError(f"{path}: {group.name}/{name} is a link; hdmea writes none")
        member = group[name]
        if isinstance(member, h5py.Group):
            made[name] = _read(member, path)
        else:
            if member.external or member.is_virtual:
                raise FormatError(f"{path}: {member.name} is stored outside of the file")
            made[name] = _plain(member[()])
    return made


def _feature(stored: Any) -> dict[str, Any]:
    """Return a stored feature as data and metadata, from either of hdmea's layouts."""
    if not isinstance(stored, Mapping):
        return {"data": stored, "metadata": {}}
    if "data" in stored and set(stored) <= {"data", "metadata"}:
        return {"data": stored["data"], "metadata": stored.get("metadata", {})}
    arrays = {k: v for k, v in stored.items() if isinstance(v, (np.ndarray, Mapping))}
    return {"data": arrays, "metadata": {k: v for k, v in stored.items() if k not in arrays}}


def _integer_keys(value: Any) -> Any:
    """Restore the integer keys that hdmea turned into strings."""
    if not isinstance(value, Mapping):
        return value
    digits = bool(value) and all(str(key).isdigit() for key in value)
    items = {int(k) if digits else k: _integer_keys(v) for k, v in value.items()}
    return dict(sorted(items.items())) if digits else items


def _section_table(spans: Mapping[str, Array], frames: Array) -> xr.Dataset:
    """Return hdmea's section times, an array per movie, as one table in order of time."""
    sections = pd.DataFrame(
        [
            (int(start), int(end), movie, presentation)
            for movie, sections in spans.items()
            for presentation, (start, end) in enumerate(np.reshape(sections, (-1, 2)))
        ],
        columns=["start", "end", "movie", "presentation"],
    ).sort_values("start", kind="stable")
    start, end = (sections[name].to_numpy(np.int64) for name in ("start", "end"))
    first = np.searchsorted(frames, start, side="right") - 1
    last = np.searchsorted(frames, end, side="right") - 1
    columns = {
        "start": start,
        "end": end,
        "movie": sections["movie"].to_numpy(str),
        "presentation": sections["presentation"].to_numpy(np.int64),
        "movie_start_frame": first + PRE_MARGIN,
        "movie_length": last - first - PRE_MARGIN - POST_MARGIN - 1,
        "start_frame": first,
        "end_frame": last,
    }
    table = xr.Dataset(
        {name: ("section", values) for name, values in columns.items()},
        attrs={"pre_margin_frame_num": PRE_MARGIN, "post_margin_frame_num": POST_MARGIN},
    )
    return table.set_coords(["movie", "presentation"])


def _trials(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return one unit's trials with their notes, which immediate files keep as attributes."""
    names = ("n_trials", "pad_margin", "pre_samples", "post_samples", "trial_repeats")
    notes = {name: stored[name] for name in names if name in stored}
    return {**stored, "_attrs": {**stored.get("_attrs", {}), **notes}}


def _steps(stored: Mapping[str, Any], units: Mapping[str, Any]) -> list[str]:
    """Return the steps that a file says, or shows, to be done."""
    info = stored.get("pipeline", {}).get("session_info", {})
    listed = info.get("completed_steps")
    if listed is not None:
        steps = [listed] if isinstance(listed, str) else list(listed)
    else:  # an immediate file keeps no list
        section_time = stored.get("stimulus", {}).get("section_time")
        sectioned = any("spike_times_sectioned" in unit for unit in units.values())
        shown = {
            "load_recording": bool(stored.get("stage1_completed")),
            "add_section_time": bool(section_time),
            "section_spike_times": sectioned,
            "compute_sta": any(
                name.startswith("sta") or (isinstance(feature, Mapping) and "sta" in feature)
                for unit in units.values()
                for name, feature in unit.get("features", {}).items()
            ),
            "add_cmtr_unit_info": any("unit_meta" in unit for unit in units.values()),
            "extract_features": stored.get("features_extracted") not in (None, "", "[]"),
        }
        steps = [name for name, done in shown.items() if done]
    if "load_recording_with_eimage_sta" in steps and "load_recording" not in steps:
        steps.append("load_recording")
    return steps


def import_hdmea(path: str | Path) -> xr.DataTree:
    """Read a session that hdmea saved, in memory and not yet saved in labtree's form.

    Bytes become text again, trials get their integer numbers back, and what hdmea
    kept per unit becomes whole arrays. Sectioned spikes become index ranges after a
    check that they are the very spikes; where they are not, they are kept as they are
    in the attribute ``by_unit`` of ``units``. The session's warnings say which
    values hdmea is known to compute wrongly.

    Parameters
    ----------
    path : path
        A saved session, a checkpoint, or a file of hdmea's immediate mode.

    Raises
    ------
    FormatError
        If the file is none of these.
    """
    path = Path(path)
    with damage_as_format_error(path), open_hdf5(path) as file:
        check_heaps(path, file)
        stored = _read(file, path)
    if "units" not in stored:
        raise FormatError(f"{path}: no group 'units'; not a session of hdmea")
    units: dict[str, dict[str, Any]] = stored["units"]
    session = create_session(str(stored.get("dataset_id") or path.stem), output_dir=path.parent)
    note_origin(session, path)
    _keep_facts(session, stored, path)
    metadata = {
        # immediate files keep every scalar as an array of one
        key: value[0] if isinstance(value, (np.ndarray, list)) and len(value) == 1 else value
        for key, value in stored.get("metadata", {}).items()
    }
    add_metadata(session, metadata)
    _import_stimulus(session, stored.get("stimulus", {}), metadata)
    _import_units(session, units, path)
    for step in _steps(stored, units):
        mark_step_complete(session, step)
    if any("frif" in unit.get("features", {}) for unit in units.values()):
        add_warning(
            session,
            "frif was computed by hdmea, which mixes microseconds with samples; compute it "
            "again: labtree.mea.extract_features(['frif'], session=session, force=True)",
        )
    if (
        "add_cmtr_unit_info" not in session.attrs["completed_steps"]
        and "row" in session["units"]
    ):
        add_warning(
            session,
            "row, col and global_id come from hdmea's load_recording, which takes them from "
            "the wrong dataset; load the recording again for the units' positions",
        )
    return session


def _keep_facts(session: xr.DataTree, stored: Mapping[str, Any], path: Path) -> None:
    """Keep what a file says of itself, of its pipeline, and of where it comes from."""
    session.attrs["created_at"] = str(stored.get("created_at", session.attrs["created_at"]))
    pipeline = stored.get("pipeline", {})
    info = pipeline.get("session_info", {})
    session.attrs["imported"] = {
        "format": "hdmea",
        "path": str(path.resolve()),
        **{k: v for k, v in stored.items() if not isinstance(v, Mapping)},
        **{k: v for k, v in pipeline.items() if k != "session_info"},
        **{k: v for k, v in info.items() if k not in ("warnings", "completed_steps")},
    }
    remarks = info.get("warnings", [])
    for text in [remarks] if isinstance(remarks, str) else remarks:
        add_warning(session, str(text))
    sources = stored.get("source_files", {})
    if isinstance(sources, str):
        sources = json.loads(sources)
    session.attrs["source_files"] = {str(k): str(v) for k, v in dict(sources).items() if v}


def _import_stimulus(
    session: xr.DataTree, stored: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    stimulus = dict(stored)
    if "frame_time" in stimulus:  # the name in immediate files
        stimulus.setdefault("frame_times", {}).update(stimulus.pop("frame_time"))
    spans = stimulus.pop("section_time", None)
    add_stimulus(session, stimulus)
    frames = metadata.get("frame_timestamps")
    if frames is None:
        frames = stimulus.get("frame_times", {}).get("default")
        if frames is not None:
            add_metadata(session, {"frame_timestamps": frames})
    if spans:
        if frames is None:
            add_stimulus(session, {"section_time": spans})
            add_warning(session, "no frame timestamps; section times were imported as they are")
            return
        table = _section_table(spans, np.asarray(frames).astype(np.int64))
        session["stimulus/section_time"] = xr.DataTree(table)
        add_warning(
            session,
            f"hdmea does not store the margins of sections; {PRE_MARGIN} and {POST_MARGIN} "
            "frames are assumed",
        )


def _import_units(session: xr.DataTree, units: Mapping[str, Any], path: Path) -> None:
    plain = {
        unit: {k: v for k, v in data.items() if k not in ("features", "spike_times_sectioned")}
        for unit, data in units.items()
    }
    sectioned: dict[str, dict[str, Any]] = {}
    for unit, data in units.items():
        for movie, section in data.get("spike_times_sectioned", {}).items():
            sectioned.setdefault(movie, {})[unit] = section
    try:
        add_units(session, plain)
        made = units_of(session)
        for movie, stored in sectioned.items():
            trials = {unit: _trials(section) for unit, section in stored.items()}
            try:
                put_sections(session, movie, index_trials(movie, trials, made))
            except (SessionError, UnknownNameError) as error:
                name = f"spike_times_sectioned/{movie}"
                kept = {unit: {name: _integer_keys(data)} for unit, data in stored.items()}
                add_units(session, kept)
                add_warning(
                    session,
                    f"sectioned spikes of {movie!r} are not slices of the units' spikes; they "
                    f"were kept as they are ({error})",
                )
        add_units(
            session,
            {
                unit: {"features": {n: _feature(f) for n, f in data["features"].items()}}
                for unit, data in units.items()
                if "features" in data
            },
        )
    except (SessionError, UnknownNameError) as error:
        raise FormatError(f"{path}: {error}") from error
