"""The kinds of objects that can be stored; each registers itself here.

A kind says how an object becomes a dataset and back. The dataset is what stands in the
tree and in the file; its attribute ``labtree_kind`` names the kind. Modules of kinds are
imported when kinds are first asked for, those of other packages (entry points of the
group ``labtree.kinds``) when a kind or a class is not known.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import xarray as xr

from labtree.errors import DataError, FormatError, LabtreeError, LossWarning, warn
from labtree.objects import KIND_MODULES
from labtree.storage import ragged
from labtree.storage._xarray import is_in_memory
from labtree.storage.arrays import load_variables
from labtree.storage.dataset_checks import check_dataset
from labtree.storage.unsupported import unsupported

#: The attribute that names the kind of a dataset.
KIND_ATTRIBUTE = "labtree_kind"


#: Datasets of more bytes are not read only to see whether they could be read back.
_READ_TO_CHECK = 1 << 26


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Parameters
    ----------
    name
        As in the attribute ``labtree_kind``.
    to_dataset
        Object and path to dataset; raises TypeError or ValueError with the path of what
        cannot be kept.
    from_dataset
        The dataset back to an equal object.
    summary
        What a list of items shows of it, JSON values; reads no data.
    validate
        Raises an error if a dataset of the kind is not valid.
    plot
        Draws the dataset with matplotlib.
    is_dataset
        Whether the object is the dataset itself, with its kind in its attributes.
    functions
        Calls of the functions that take it, for its display.
    """

    name: str
    to_dataset: Callable[[Any, str], xr.Dataset]
    from_dataset: Callable[[xr.Dataset], Any]
    summary: Callable[[xr.Dataset], dict[str, Any]]
    validate: Callable[[xr.Dataset], None] | None = None
    plot: Callable[..., Any] | None = None
    is_dataset: bool = False
    functions: tuple[str, ...] = ()


@dataclass
class _Registry:
    """The kinds, by name and by class, and the modules that still have some to add."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    classes: dict[type, list[tuple[Callable[[Any], bool] | None, Kind]]] = field(
        default_factory=dict
    )
    others: list[tuple[Callable[[Any], bool], Kind]] = field(default_factory=list)
    entry_points_loaded: bool = False
    lock: Any = field(default_factory=threading.RLock)


_REGISTRY = _Registry()


def _load() -> _Registry:
    if KIND_MODULES:
        with _REGISTRY.lock:
            while KIND_MODULES:
                name = KIND_MODULES[0]
                import_module(name)
                # Off the list when its kinds are there: other threads wait until then.
                if KIND_MODULES[:1] == [name]:
                    KIND_MODULES.pop(0)
    return _REGISTRY


def _load_entry_points() -> bool:
    """Let other packages register their kinds, once; return whether there was one."""
    registry = _REGISTRY
    with registry.lock:
        if registry.entry_points_loaded:
            return False
        registry.entry_points_loaded = True
        from importlib.metadata import entry_points

        found = entry_points(group="labtree.kinds")
        for entry in found:
            try:
                entry.load()()
            except Exception as error:  # one package must not keep the others from loading
                warn(
                    f"the kinds of {entry.value} (entry point {entry.name!r} of "
                    f"{getattr(entry.dist, 'name', 'a package')}) are not there: {error!r}"
                )
        return bool(found)


def add_kind(kind: Kind, *classes: type, when: Callable[[Any], bool] | None = None) -> None:
    """Add a kind, and the classes of the objects that are of it.

    Parameters
    ----------
    kind
        Its name and functions; the name must be free.
    *classes
        Exactly these, not their subclasses.
    when
        Which objects of the classes, or without classes of any class that no kind has,
        are of it; the kind is then asked before others.

    Raises
    ------
    ValueError
        If the name, or a class, is taken.
    """
    with _REGISTRY.lock:
        if kind.name in _REGISTRY.kinds:
            raise DataError(f"there is a kind {kind.name!r} already; choose another name")
        for cls in classes:
            known = [one.name for test, one in _REGISTRY.classes.get(cls, []) if test is None]
            if known and when is None:
                raise DataError(f"{cls.__qualname__} is of the kind {known[0]!r} already")
        _REGISTRY.kinds[kind.name] = kind
        if when is not None and not classes:
            _REGISTRY.others.append((when, kind))
        for cls in classes:
            _REGISTRY.classes.setdefault(cls, []).insert(0, (when, kind))


def raw_or(build: Callable[[Any, str], xr.Dataset]) -> Callable[[Any, str], xr.Dataset]:
    """Take an object, or the dataset that already stands for one, out of a tree."""

    def to_dataset(obj: Any, path: str) -> xr.Dataset:
        if not isinstance(obj, xr.Dataset):
            return build(obj, path)
        check_dataset(obj, path)
        return obj.copy(deep=True).drop_encoding()

    return to_dataset


def register_kind(
    name: str,
    *,
    cls: type | None = None,
    to_dataset: Callable[[Any], xr.Dataset] | None = None,
    from_dataset: Callable[[xr.Dataset], Any] | None = None,
    validate: Callable[[xr.Dataset], Any] | None = None,
    summary: Callable[[xr.Dataset], dict[str, Any]] | None = None,
    plot: Callable[..., Any] | None = None,
) -> None:
    """Let workspaces store a kind of your own: a layout of Datasets, or a Python class.

    Parameters
    ----------
    name : str
        The value of the attribute ``labtree_kind`` of its Datasets.
    cls : type, optional
        The class of the objects, which needs `to_dataset` and `from_dataset`. Without it
        the objects are Datasets whose ``attrs["labtree_kind"]`` is the name.
    to_dataset : callable, optional
        Object to Dataset.
    from_dataset : callable, optional
        Dataset to an equal object.
    validate : callable, optional
        Takes the Dataset and raises an error if it is not valid. An object of a class is
        refused then; a Dataset is stored as a plain one, with a warning.
    summary : callable, optional
        Dataset to the dict of JSON values that a list of items shows; must read no data.
    plot : callable, optional
        What ``ds.ws.plot(**options)`` calls with the Dataset.

    Raises
    ------
    DataError
        A ValueError, if the name or the class is taken, or a function is missing.

    Examples
    --------
    >>> import labtree, xarray as xr
    >>> class Probe:
    ...     def __init__(self, depths):
    ...         self.depths = depths
    >>> labtree.register_kind(
    ...     "example_probe",
    ...     cls=Probe,
    ...     to_dataset=lambda probe: xr.Dataset({"depth": ("channel", probe.depths)}),
    ...     from_dataset=lambda ds: Probe(ds.depth.values.tolist()),
    ... )
    >>> tree = labtree.create_workspace()
    >>> tree.ws.store("rec1", "probe", Probe([10.0, 20.0]))
    >>> tree.ws["rec1", "probe"].depths
    [10.0, 20.0]
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"the name of a kind is a non-empty str, not {name!r}")
    if cls is not None and (to_dataset is None or from_dataset is None):
        raise DataError(
            f"a kind for the class {cls.__qualname__} needs to_dataset= and from_dataset="
        )
    plain = kind_named("dataset")

    def keep(obj: Any, path: str) -> xr.Dataset:
        is_made = cls is not None and isinstance(obj, xr.Dataset)
        made = obj if to_dataset is None or is_made else to_dataset(obj)
        if not isinstance(made, xr.Dataset):
            raise DataError(
                f"{path}: to_dataset of the kind {name!r} must return a Dataset, found "
                f"{type(made).__name__}"
            )
        if cls is not None and validate is not None:
            validate(made)
        return plain.to_dataset(made, path)

    def give(dataset: xr.Dataset) -> Any:
        kept = plain.from_dataset(dataset)
        if cls is not None:
            kept.attrs.pop(KIND_ATTRIBUTE, None)
        return kept if from_dataset is None else from_dataset(kept)

    add_kind(
        Kind(
            name,
            keep,
            give,
            summary or plain.summary,
            validate,
            plot,
            is_dataset=cls is None,
        ),
        *([] if cls is None else [cls]),
    )


def kind_named(name: str | None) -> Kind:
    """Return a kind by its name; a dataset that names none, or an unknown one, is a dataset."""
    kinds = _load().kinds
    if name and name not in kinds and not _REGISTRY.entry_points_loaded:
        _load_entry_points()
    return kinds.get(name or "dataset", kinds["dataset"])


def is_known(name: str) -> bool:
    """Return whether there is a kind of that name."""
    return name in _load().kinds or (_load_entry_points() and name in _REGISTRY.kinds)


def kind_names() -> list[str]:
    """Return the names of all kinds."""
    return list(_load().kinds)


def _kind_for(obj: Any) -> Kind | None:
    """Return the kind of an object that is no Dataset, by its class; None for none."""
    registry = _load()
    for test, kind in registry.classes.get(type(obj), ()):
        if test is None or test(obj):
            return kind
    return next((kind for test, kind in registry.others if test(obj)), None)


def kind_of(obj: Any) -> str:
    """Return the name of an object's kind, as its class or attribute says."""
    if isinstance(obj, xr.Dataset):
        return str(obj.attrs.get(KIND_ATTRIBUTE, "dataset"))
    kind = _kind_for(obj)
    if kind is None and _load_entry_points():
        kind = _kind_for(obj)
    return "value" if kind is None else kind.name


def encode(obj: Any, path: str = "obj") -> tuple[str, xr.Dataset]:
    """Return the kind of an object, and the dataset that stands for it.

    A Dataset that no longer is what its kind says, because xarray changed it, becomes a
    plain one, with a warning.

    Raises
    ------
    TypeError
        If it, or a part of it, cannot be kept exactly; the message has every path.
    ValueError
        If it is spikes whose rows and spikes have come apart.
    """
    name = kind_of(obj)
    kind = kind_named(name)
    if isinstance(obj, xr.Dataset):
        if not type(obj).__module__.startswith("xarray."):  # a class of another package
            raise unsupported(obj, path)
        wrong = _misfit(kind, obj)
        if wrong is not None:
            warn(
                f"{path}: stored as a plain dataset, because it no longer is of the kind "
                f"{name!r} ({wrong}); write del ds.attrs[{KIND_ATTRIBUTE!r}] to say so",
                LossWarning,
            )
            obj = obj.assign_attrs()
            del obj.attrs[KIND_ATTRIBUTE]
            name, kind = "dataset", kind_named("dataset")
    dataset = kind.to_dataset(obj, path)
    dataset.attrs[KIND_ATTRIBUTE] = name
    return name, dataset


def _misfit(kind: Kind, dataset: xr.Dataset) -> str | None:
    """Return why a dataset is not of its kind; None where it is.

    Raises
    ------
    DataError
        If rows and samples of a ragged array have come apart: what a plain dataset of
        them says would be wrong.
    """
    if kind.is_dataset:
        check = kind.validate
    elif kind.name == "dataset" or (
        dataset.nbytes > _READ_TO_CHECK
        and not all(map(is_in_memory, dataset.variables.values()))
    ):
        check = None
    else:
        check = kind.from_dataset
    if check is None:
        return None
    try:
        check(dataset.copy())
    except Exception as error:  # whatever a kind of another package raises
        if ragged.came_apart(dataset):
            raise
        return str(error) or repr(error)
    return None


def encode_part(obj: Any, path: str) -> tuple[str, xr.Dataset]:
    """Encode an object inside a nested value, if it is a kind of its own."""
    if isinstance(obj, xr.Dataset) or kind_of(obj) != "value":
        return encode(obj, path)
    raise unsupported(obj, path)


def decode(name: str | None, dataset: xr.Dataset) -> Any:
    """Return the object that a dataset stands for: in memory, a copy that shares nothing.

    Raises
    ------
    FormatError
        If the dataset was damaged, or changed so that it stands for none.
    """
    copy = dataset.copy(deep=True)  # of what is in memory; the rest is read, once
    load_variables(copy.variables.values())
    try:
        return kind_named(name).from_dataset(copy)
    except (LabtreeError, OSError, MemoryError):
        raise
    except Exception as error:
        raise FormatError(
            f"what is stored is no {name or 'dataset'} any more: {error!r}"
        ) from error


def summary(obj: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """Return what a list of items shows of an object, JSON values; reads no data."""
    if isinstance(obj, xr.DataArray):
        dims = [str(dim) for dim in obj.dims]
        return {"dims": dims, "shape": list(obj.shape), "dtype": str(obj.dtype)}
    try:
        return kind_named(kind_of(obj)).summary(obj)
    except (LookupError, TypeError, ValueError, AttributeError):
        return kind_named("dataset").summary(obj)  # no longer of its kind


def functions_for(obj: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Return calls of the functions that take an object of this kind, for its display."""
    return () if isinstance(obj, xr.DataArray) else kind_named(kind_of(obj)).functions


def validate(obj: xr.Dataset | xr.DataArray) -> None:
    """Raise an error that says what is wrong with an object.

    Raises
    ------
    ValueError
        If it is not valid for its kind.
    TypeError
        If parts cannot be kept exactly, with their paths.
    """
    if isinstance(obj, xr.DataArray):
        kind_named("dataarray").to_dataset(obj, "ds")
        return
    own = kind_named(kind_of(obj)).validate
    if own is not None:
        own(obj)
    kind_named("dataset").to_dataset(obj, "ds")


def plot(obj: xr.Dataset | xr.DataArray, **options: Any) -> Any:
    """Plot an object in the way of its kind; one that no longer fits its kind as arrays.

    Raises
    ------
    ValueError
        If it holds no array, or several, that could be drawn.
    ModuleNotFoundError
        If matplotlib is missing; the message says how to install it.
    """
    draw: Any = kind_named("dataset").plot
    if isinstance(obj, xr.Dataset):
        kind = kind_named(kind_of(obj))
        if kind.plot is not None and _misfit(kind, obj) is None:
            draw = kind.plot
    return draw(obj, **options)
