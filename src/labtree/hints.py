"""What a file is that somebody opens with the function for another, and the line to write."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from labtree.errors import FormatError, MissingDependencyError, MissingFileError

__all__ = ["takes"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_REFUSALS = (FormatError, MissingFileError, MissingDependencyError)


def takes(
    what: str, *formats: str
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a function that opens files say what a file of another format is.

    Where the function refuses its first argument, and that is a file or folder of another
    format, the error says what it is and the line that opens it.

    Parameters
    ----------
    what : str
        What the function takes, such as ``"a workspace"``.
    formats : str
        The same by the names of `labtree.opening.FORMATS`.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        first = function.__code__.co_varnames[0]

        @functools.wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except _REFUSALS as error:
                if getattr(error, "names_function", False):
                    raise
                path = args[0] if args else kwargs.get(first)
                instead = _instead(path, what, formats)
                if instead is None:
                    raise
                raise _same_kind(error, instead) from None

        return checked

    return decorate


def _instead(path: Any, what: str, formats: tuple[str, ...]) -> str | None:
    # What recognizes files stands above what reads them; it is asked only where one refuses.
    from labtree.opening import instead

    return instead(path, what, formats)


def _same_kind(error: Exception, message: str) -> Exception:
    return FormatError(message) if isinstance(error, ImportError) else type(error)(message)
