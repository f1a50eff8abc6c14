"""Where a lab keeps its playlists, movie lengths, trial tables and movies."""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labtree.errors import ConfigurationError, MissingFileError, missing_file
from labtree.storage.scopes import Scope, Setting

VARIABLE = "LABTREE_MEA_LAB"
# Parameters of the steps, and what they are called in a lab's own folder.
_PARAMETERS = {
    "playlist_file_path": "playlist.csv",
    "movie_length_file_path": "movie_length.csv",
    "config_dir": "stimuli",
    "stimuli_dir": "stimuli",
}

Paths = Mapping[str, Path]
_LAB: Setting[Paths] = Setting("labtree_mea_lab", {})


class use_lab(Scope[Paths]):  # noqa: N801, called like a function
    """Set where the lab keeps its files: from now on, or inside a ``with`` block.

    The steps :func:`labtree.mea.add_section_time`, :func:`labtree.mea.section_spike_times`
    and :func:`labtree.mea.compute_sta` take from here what they are not given, and record
    it. A path that is not given here is looked for where the environment variable
    ``LABTREE_MEA_LAB`` points: at a folder or a TOML file like `lab`.

    Parameters
    ----------
    lab : path, optional
        A folder that holds ``playlist.csv``, ``movie_length.csv`` and the folder
        ``stimuli`` (trial tables ``{movie}.json`` and movies ``{movie}.npy``), or a TOML
        file with lines such as ``stimuli_dir = "movies"``, relative to its folder.
    playlist_file_path, movie_length_file_path : path, optional
        CSV files, in place of those of `lab`.
    config_dir, stimuli_dir : path, optional
        Folders of trial tables and of movies, in place of that of `lab`.

    Raises
    ------
    MissingFileError
        If there is no such file or folder, or nothing of a lab in the folder.
    ConfigurationError
        If the TOML file holds anything else.

    Notes
    -----
    A plain call holds in all threads until the next one. A ``with`` block holds in its
    own thread or task only, and before a plain call.

    Examples
    --------
    >>> import tempfile
    >>> import labtree
    >>> with tempfile.TemporaryDirectory() as folder, labtree.mea.use_lab(stimuli_dir=folder):
    ...     list(labtree.mea.lab_paths())
    ['stimuli_dir']
    """

    def __init__(
        self,
        lab: str | Path | None = None,
        *,
        playlist_file_path: str | Path | None = None,
        movie_length_file_path: str | Path | None = None,
        config_dir: str | Path | None = None,
        stimuli_dir: str | Path | None = None,
    ):
        given = {
            "playlist_file_path": playlist_file_path,
            "movie_length_file_path": movie_length_file_path,
            "config_dir": config_dir,
            "stimuli_dir": stimuli_dir,
        }
        named = {
            name: Path(path).absolute() for name, path in given.items() if path is not None
        }
        for name, path in named.items():
            if not path.exists():
                raise missing_file(f"{name}={str(path)!r}: there is no such path", path)
        super().__init__(_LAB, {**(read_lab(lab) if lab is not None else {}), **named})


def read_lab(lab: str | Path) -> dict[str, Path]:
    """Return the paths that a lab's folder or TOML file gives, by parameter.

    Raises
    ------
    MissingFileError
        If there is nothing at `lab` or in it, or at a path that the file names.
    ConfigurationError
        If the file is not TOML, or holds other names than the steps' parameters.
    """
    lab = Path(lab).expanduser().absolute()
    if lab.is_dir():
        own = {name: lab / called for name, called in _PARAMETERS.items()}
        there = {name: path for name, path in own.items() if path.exists()}
        if not there:
            names = ", ".join(dict.fromkeys(_PARAMETERS.values()))
            raise MissingFileError(
                f"{lab} is no lab's folder: it holds none of {names}; name paths one by one: "
                "labtree.mea.use_lab(stimuli_dir=..., playlist_file_path=...)"
            )
        return there
    if not lab.is_file():
        raise missing_file(f"{lab}: there is no such folder or TOML file of a lab", lab)
    try:
        content = tomllib.loads(lab.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{lab} is not TOML ({error})") from error
    wrong = [
        name for name, path in content.items()
        if name not in _PARAMETERS or not isinstance(path, str)
    ]  # fmt: skip
    if wrong:
        raise ConfigurationError(
            f"{lab}: {', '.join(wrong)} is no path of a lab; expected lines such as "
            f'{", ".join(_PARAMETERS)} = "path"'
        )
    found = {name: lab.parent / Path(path).expanduser() for name, path in content.items()}
    for name, path in found.items():
        if not path.exists():
            raise MissingFileError(f"{lab}: {name}: there is nothing at {path}")
    return found


def lab_paths() -> dict[str, Path]:
    """Return where the lab keeps its files, by the steps' parameters.

    What :func:`use_lab` was given goes before the environment variable
    ``LABTREE_MEA_LAB``.

    Returns
    -------
    dict of str to Path
        ``playlist_file_path``, ``movie_length_file_path``, ``config_dir`` and
        ``stimuli_dir``, those that are known.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, use_lab(config_dir=folder):
    ...     list(lab_paths())
    ['config_dir']
    """
    place = os.environ.get(VARIABLE)
    return {**(read_lab(place) if place else {}), **_LAB.get()}


def from_lab(*names: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what fills in parameters of a step that were not given, from the lab's paths.

    Raises
    ------
    ConfigurationError
        (from the function that is returned) if the lab's paths lack one; the message says
        the line to write.
    """

    def fill(arguments: Mapping[str, Any]) -> dict[str, Any]:
        wanted = [name for name in names if arguments.get(name) is None]
        if not wanted:
            return {}
        known = lab_paths()
        lacking = [name for name in wanted if name not in known]
        if lacking:
            given = ", ".join(f"{name}=..." for name in lacking)
            raise ConfigurationError(
                f"this step needs {' and '.join(lacking)}, and no lab says where; write once: "
                f"labtree.mea.use_lab({given}), or set {VARIABLE} to the lab's folder or TOML "
                f"file, or pass {given} to the step"
            )
        return {name: known[name] for name in wanted}

    return fill
