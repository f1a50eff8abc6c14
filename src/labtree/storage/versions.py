"""The version that a file states, compared with those that this labtree reads."""

from collections.abc import Collection

from labtree.errors import FormatError


def check_version(found: object, known: object, where: object) -> None:
    """Refuse a file of an unknown format version.

    Parameters
    ----------
    found
        What the file states.
    known
        The version that is read, or all of them, the newest last.
    where
        The file, for the error.

    Raises
    ------
    FormatError
        It names both versions and says what to do.

    Examples
    --------
    >>> check_version(3, 2, "study.h5")
    Traceback (most recent call last):
    ...
    labtree.errors.FormatError: study.h5: written in format version 3; this labtree reads ...
    """
    several = isinstance(known, Collection) and not isinstance(known, str)
    versions = list(known) if isinstance(known, Collection) and several else [known]
    # 1, 1.0 and True are equal in Python, and not the same version.
    if any(type(found) is type(version) and found == version for version in versions):
        return
    newest = versions[-1]
    text = (
        f"{where}: written in format version {found}; this labtree reads version "
        f"{' and '.join(map(str, versions))}"
    )
    if isinstance(found, int) and isinstance(newest, int) and found > newest:
        raise FormatError(f"{text}. Update labtree: pip install --upgrade labtree")
    raise FormatError(f"{text}, and no older or unknown version")
