"""What describes a stream and a label, checked when it is made."""

import operator
import re
import unicodedata
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from labtree.errors import FormatError, SessionError

_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(10)
}
_MOST_CHUNK_BYTES = 2**24
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


def _dtype_name(value: Any) -> Any:
    try:
        return np.dtype(value).name
    except TypeError:
        return value


def _whole_number(value: Any) -> Any:
    # numpy integers count as integers; True and 1.0 do not.
    if type(value) is int:
        return value
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"expected an integer, found {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"expected an integer, found {value!r}") from None


class StreamInfo(BaseModel):
    """One stream of samples: how many channels, how fast, of what type.

    Attributes
    ----------
    n_channels : int
        Number of channels, at least 1.
    fs : float
        Declared sampling rate in Hz; 0 for a stream without a rate (markers, events).
    dtype : str
        One of float16, float32, float64, int8, int16, int32, int64 (a numpy dtype will do).
    channel_names : tuple of str, optional
        One name per channel, all different.
    units : str, optional
        Unit of the samples, such as ``"uV"``.

    Examples
    --------
    >>> from labtree import StreamInfo
    >>> StreamInfo(n_channels=2, fs=2048, dtype="int16", units="uV").fs
    2048.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_channels: Annotated[int, BeforeValidator(_whole_number), Field(ge=1)]
    fs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    dtype: Annotated[
        Literal["float16", "float32", "float64", "int8", "int16", "int32", "int64"],
        BeforeValidator(_dtype_name),
    ] = "float32"
    channel_names: tuple[str, ...] | None = None
    units: str | None = None

    @field_validator("channel_names")
    @classmethod
    def _one_name_per_channel(cls, names: tuple[str, ...] | None, info: Any) -> Any:
        count = info.data.get("n_channels")
        if names is not None and count is not None:
            if len(names) != count:
                raise ValueError(f"expected {count} channel names, found {len(names)}: {names}")
            if len(set(names)) != count:
                raise ValueError(f"channel names must all differ, found {names}")
        return names


class LabelEvent(BaseModel):
    """A class that holds from a moment on.

    Attributes
    ----------
    timestamp : float
        Moment in seconds on the clock of the streams.
    class_index : int
        The class that starts here; negative ends the class before and starts none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    timestamp: Annotated[float, Field(allow_inf_nan=False)]
    class_index: Annotated[int, BeforeValidator(_whole_number), Field(ge=-(2**63), lt=2**63)]


def problems_of(error: ValidationError) -> str:
    """Return which fields of a model are wrong, and how, in a line."""
    return "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())


def declared_stream(about: Any, where: str) -> StreamInfo:
    """Return the stream that meta.json, or the array at ``where``, describes."""
    known = {key: about.get(key) for key in StreamInfo.model_fields}
    try:
        return StreamInfo.model_validate(known)
    except ValidationError as error:
        raise FormatError(
            f"{where}: no stream is described by {known}: {problems_of(error)}"
        ) from error


def chunk_rows(info: StreamInfo) -> int:
    """Return the samples per zarr chunk: one second, or less where that is more than 16 MiB.

    Of a stream below 1 Hz it is 1024.
    """
    second = int(info.fs) if info.fs >= 1 else 1024
    return max(
        1, min(second, _MOST_CHUNK_BYTES // (info.n_channels * np.dtype(info.dtype).itemsize))
    )


def check_stream_name(name: str, taken: tuple[str, ...] = ()) -> None:
    """Refuse a stream name that is unsafe or reserved as a file name on any system.

    Raises
    ------
    SessionError
        If ``name`` is empty, hidden, longer than 100 bytes, holds a character that some
        file system refuses, ends with ``_timestamps`` or ``_arrivals`` (where times are
        kept), or differs from a ``taken`` name only in case or Unicode form.
    """
    if not isinstance(name, str):
        raise SessionError(f"a stream name is a str, found {name!r}")
    problem = None
    if not name or name != name.strip() or name[0] == "." or name[-1] == ".":
        problem = "is empty, hidden, or has a space or dot at an end"
    elif _UNSAFE.search(name):
        problem = 'has a control character or one of <>:"/\\|?*'
    elif len(name.encode(errors="surrogatepass")) > 100:
        problem = "is longer than 100 bytes"
    elif any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        problem = "has a lone surrogate"
    elif ending := [end for end in ("_timestamps", "_arrivals") if folded(name).endswith(end)]:
        problem = f"ends with {ending[0]!r}, where the times of a stream are kept"
    elif name.split(".")[0].casefold() in _WINDOWS_DEVICES:
        problem = "is a device on Windows"
    elif same := [other for other in taken if folded(other) == folded(name)]:
        problem = f"is taken: the recording has {same[0]!r}"
    if problem:
        raise SessionError(f"stream name {name!r} {problem}; write a name such as 'emg'")


def folded(name: str) -> str:
    """Return ``name`` as a file system that ignores case and Unicode form sees it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
