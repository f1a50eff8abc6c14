"""Errors for values that cannot be kept exactly, each with the line to write instead."""

import contextlib
import dataclasses
import enum
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import UnsupportedTypeError

#: More parts than this are counted, not listed.
_LISTED = 20

_BY_NAME = {
    "Decimal": "str(x)",
    "Fraction": "str(x)",
    "UUID": "str(x)",
    "ZoneInfo": "x.key",
    "Pattern": "x.pattern",
    "Match": "x.group()",
    "SimpleNamespace": "vars(x)",
    "Namespace": "vars(x)",
    "memoryview": "bytes(x)",
    "Figure": 'x.savefig(buffer, format="png"), and store buffer.getvalue()',
    "Variable": "xr.DataArray(x)",
    "recarray": "x.view(np.ndarray)",
    "COO": "x.todense()",
    "GCXS": "x.todense()",
    "Tensor": "x.detach().cpu().numpy()",
    "Series": "store it as an item of its own",
    "Period": "str(x), or x.to_timestamp()",
    "Interval": "(x.left, x.right)",
    "CategoricalDtype": "x.categories",
    "SparseArray": "x.to_dense()",
    "timezone": "str(x)",
}


def unsupported(value: object, path: str, reason: str | None = None) -> UnsupportedTypeError:
    """Return the error for a value that cannot be kept exactly.

    Parameters
    ----------
    value
        The value that was met.
    path
        Where it was met, such as ``obj['a'][3]``.
    reason
        Why it cannot be kept, where the type alone does not say it.
    """
    what = reason or with_article(_type_name(value))
    message = f"{path}: cannot keep {what} exactly; {advice(value)}"
    return _all_of([UnsupportedTypeError(message)])


def with_article(name: str) -> str:
    """Return the name of a type with its article."""
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def _all_of(errors: Iterable[UnsupportedTypeError]) -> UnsupportedTypeError:
    """Return one error that says what several say; its ``problems`` are their messages."""
    problems = [problem for error in errors for problem in error.problems or (str(error),)]
    message = problems[0] if problems else ""
    if len(problems) > 1:
        more = len(problems) - _LISTED
        lines = [*problems[:_LISTED], *([f"and {more} more"] if more > 0 else [])]
        message = "\n  ".join([f"{len(problems)} parts cannot be kept:", *lines])
    error = UnsupportedTypeError(message)
    error.problems = tuple(problems)
    return error


@contextlib.contextmanager
def refused_together() -> Iterator[Callable[..., Any]]:
    """Raise one error at the end of a block for all that is refused in it.

    Yields
    ------
    callable
        Calls a function with arguments, and returns what it returns, or None where that is
        refused.
    """
    refused: list[UnsupportedTypeError] = []

    def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except UnsupportedTypeError as error:
            refused.append(error)
            return None

    yield attempt
    if refused:
        raise _all_of(refused)


def _type_name(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def converter(value: object) -> str | None:
    """Return labtree's call for an object of another library, of a value x, if there is one."""
    name = f"from_{type(value).__module__.partition('.')[0]}"
    known = hasattr(sys.modules.get("labtree"), name) and not hasattr(value, "magnitude")
    return f"labtree.{name}(x)" if known else None


def advice(value: Any) -> str:
    """Return what to write in the place of a value."""
    line = converter(value) or _line(value)
    if line is None:
        return _PARTS if type(value).__module__ == "builtins" else _REGISTER
    return line if line.startswith(("store ", "write ", "use ")) else f"write {line}"


def arrow_line(dtype: Any) -> str:
    """Return the call that makes an array of pyarrow's one of pandas' own."""
    plain = dtype.numpy_dtype
    zone = getattr(dtype.pyarrow_dtype, "tz", None)
    if plain.kind in "iuf":
        name = plain.name.replace("int", "Int").replace("uI", "UI").replace("float", "Float")
        name = "Float32" if name == "Float16" else name  # which pandas lacks
    elif plain.kind == "M" and zone is not None:
        name = f"datetime64[{np.datetime_data(plain)[0]}, {zone}]"
    elif plain.kind in "Mm":
        name = str(plain)
    else:
        name = {"b": "boolean", "U": "string"}.get(plain.kind, "object")
    return f".astype({name!r})"


_PARTS = "store its content as a number, text, an array, or a list or dict of these"
_REGISTER = "store its parts, or make its class a kind with labtree.register_kind(..., cls=...)"


def _line(value: Any) -> str | None:
    """Return the expression that gives what can be kept of a value called x."""
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if (
        module == "numpy"
        and getattr(value, "dtype", None) is not None
        and hasattr(kind, "flags")
    ):
        if kind.__name__ == "ndarray" and value.dtype.names:
            return "{name: x[name] for name in x.dtype.names}"
        if kind.__name__ == "ndarray":
            return "x.astype(...)"
    known = _BY_NAME.get(kind.__name__)
    if known is not None:
        return known
    if isinstance(value, pd.arrays.ArrowExtensionArray):
        return f"x{arrow_line(value.dtype)}"
    if module == "cftime":
        return "x.isoformat(), or dataset.convert_calendar('standard', use_cftime=False)"
    if module != "xarray" and any(
        base.__module__.startswith("xarray.") for base in kind.__mro__
    ):
        base = next(base for base in kind.__mro__ if base.__module__.startswith("xarray."))
        return f"xr.{base.__name__}(x)"
    if isinstance(value, np.dtype):
        return "x.str"
    if isinstance(value, pd.tseries.offsets.BaseOffset):
        return "x.freqstr"
    if isinstance(value, BaseException):
        return "repr(x)"
    if isinstance(value, type):
        return "x.__qualname__"
    if isinstance(value, enum.Enum):
        return "x.value"
    if dataclasses.is_dataclass(value):
        return "dataclasses.asdict(x), or make its class a kind with labtree.register_kind"
    for attribute, line in (
        ("model_dump", "x.model_dump()"),
        ("__attrs_attrs__", "attrs.asdict(x)"),
        ("_asdict", "x._asdict(), or tuple(x)"),
    ):
        if hasattr(kind, attribute):
            return line
    if module == "scipy" and hasattr(value, "tocsr"):
        return "x.tocsr()"
    if hasattr(value, "magnitude") and hasattr(value, "units"):
        return "x.magnitude, and str(x.units) beside it"
    if hasattr(value, "__dask_graph__"):
        return "xr.DataArray(x)"
    for base in (dict, list, tuple, set, frozenset, str, bytes, bool, int, float, complex):
        if isinstance(value, base) and kind is not base:
            return f"{base.__name__}(x)"
    if hasattr(value, "__array__") and module not in ("pandas", "xarray"):
        return "np.asarray(x)"
    if isinstance(value, Mapping):
        return "dict(x)"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return "store its result, or x.__qualname__"
    if isinstance(value, types.ModuleType):
        return "x.__name__"
    if hasattr(value, "__fspath__"):
        return "os.fspath(x)"
    if hasattr(value, "get_params"):
        return "store its parameters, x.get_params(), and its arrays, out of vars(x)"
    if isinstance(value, Iterator) or kind.__name__ in ("deque", "dict_keys", "dict_values"):
        return "list(x)"
    if hasattr(value, "read") and hasattr(value, "name"):
        return "store its path, x.name"
    return None
