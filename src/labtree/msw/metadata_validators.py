"""Checks of manifests' metadata that other packages register for their own parts."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

__all__ = ["MetadataValidator", "validate_metadata"]


@runtime_checkable
class MetadataValidator(Protocol):
    """What a package registers to check its own part of manifests' metadata.

    It is named as an entry point of the group ``labtree.msw_validators`` (those of
    ``msw.metadata`` count too), as an object of this shape or a class of such objects.

    Attributes
    ----------
    subtree : str
        The key in ``metadata`` that it checks.
    schema_version : str
        The version of what it knows.
    """

    subtree: str
    schema_version: str

    def validate(self, content: Any) -> list[str]:
        """Return what is wrong with the part, in sentences; nothing is an empty list."""
        ...


_GROUPS = ("labtree.msw_validators", "msw.metadata")


def validate_metadata(metadata: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Check the parts of a metadata tree for which a validator is installed.

    Parameters
    ----------
    metadata : dict or None
        For example ``session.metadata``, or ``read_manifest(path)["metadata"]``.

    Returns
    -------
    dict of str to list of str
        What each validator found, by the key of the part. A validator that fails, or
        cannot be loaded, is reported as well; parts without a validator are not.

    Examples
    --------
    >>> validate_metadata({"diary": "rested"})
    {}
    """
    found: dict[str, list[str]] = {}
    for point in _points():
        validator, problem = _loaded(point)
        if problem:
            found.setdefault(point.name, []).append(problem)
        elif metadata and validator is not None and validator.subtree in metadata:
            try:
                messages = [
                    str(text) for text in validator.validate(metadata[validator.subtree])
                ]
            except Exception as error:
                messages = [f"its validator {point.value!r} failed: {error!r}"]
            if messages:
                found.setdefault(validator.subtree, []).extend(messages)
    return found


def _points() -> list[EntryPoint]:
    """Return the entry points, once each, in the order of their names."""
    points = {(p.name, p.value): p for group in _GROUPS for p in entry_points(group=group)}
    return [points[key] for key in sorted(points)]


@cache
def _loaded(point: EntryPoint) -> tuple[MetadataValidator | None, str]:
    try:
        made = point.load()
        made = made() if isinstance(made, type) else made
    except Exception as error:
        return None, f"its validator {point.value!r} cannot be loaded: {error!r}"
    if not isinstance(made, MetadataValidator) or not isinstance(made.subtree, str):
        return None, (
            f"its validator {point.value!r} lacks subtree, schema_version or validate(content)"
        )
    return made, ""
