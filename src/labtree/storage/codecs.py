"""Arrays of every numpy dtype as plain arrays that netCDF-4 has a type for.

netCDF-4 has integers, float32, float64 and characters. The other dtypes are
written as these, with a small JSON *spec* that says what they are:

=============================== ============================================== =========
dtype                           written as                                     codec
=============================== ============================================== =========
bool                            int8                                           view
float16                         uint16, its bits                               view
complex                         floats with a last dimension of 2              view
datetime64, timedelta64         int64 counts                                   view
structured, void, long double   uint8 with a last dimension of the item's size view
fixed bytes ``S``               characters with a last dimension               view
fixed text ``U``                UTF-8 characters with a last dimension         utf8
``U`` with lone surrogates      uint32 code points with a last dimension       view
object, ``StringDType``         UTF-8 characters, padded or end to end         text
=============================== ============================================== =========

Elements of object arrays that are not all str are written as JSON (see
:mod:`labtree.storage.json_values`), one text an element.
"""

import json
from typing import Any

import numpy as np

from labtree.errors import FormatError, UnsupportedTypeError
from labtree.storage import dtypes, json_values
from labtree.storage.unsupported import all_unsupported, unsupported

__all__ = [
    "Spec",
    "check",
    "companion",
    "decode",
    "encode",
    "encode_block",
    "extra_dimension",
    "hints",
    "plain",
    "view_spec",
]

Spec = dict[str, Any]

_CF_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def plain(dtype: np.dtype[Any]) -> bool:
    """Say whether netCDF-4 has the dtype itself.

    Examples
    --------
    >>> plain(np.dtype("i4")), plain(np.dtype("c16")), plain(np.dtype(">f4"))
    (True, False, True)
    """
    return (dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize in (4, 8))) and (
        dtype.isnative or dtype.byteorder in "<>"
    )


def encode(array: np.ndarray, path: str = "obj") -> tuple[Spec | None, list[np.ndarray]]:
    """Return an array as plain arrays, and the spec that :func:`decode` needs.

    Parameters
    ----------
    array
        Of any dtype; C order or not.
    path
        How to name it in an error.

    Returns
    -------
    spec : dict or None
        None where the array is plain already.
    arrays : list of numpy.ndarray
        The first has the array's dimensions and perhaps one more; a second holds texts
        end to end.

    Raises
    ------
    TypeError
        If an object array holds what cannot be kept exactly.
    """
    dtype = array.dtype
    if plain(dtype):
        return None, [array]
    if dtype.kind == "T":
        if hasattr(dtype, "na_object"):
            raise unsupported(array, path, "a StringDType with a missing value of its own")
        return _encode_text(array.astype(object), path, "StringDType")
    if dtype.kind == "O":
        return _encode_text(array, path, "O")
    if dtype.hasobject:
        raise unsupported(array, path, f"an array of dtype {dtype}")
    if dtype.kind == "U":
        return _encode_unicode(array)
    return _encode_view(array)


def decode(spec: Spec | None, arrays: list[np.ndarray]) -> np.ndarray:
    """Return the array that :func:`encode` was given.

    Raises
    ------
    FormatError
        If the codec is not known: the file is from a newer labtree.
    """
    if spec is None:
        return arrays[0]
    codec = spec.get("codec")
    if codec == "view":
        return _decode_view(arrays[0], dtypes.dtype_from_json(spec["dtype"]))
    if codec == "utf8":
        return _decode_unicode(arrays[0], np.dtype(spec["dtype"]))
    if codec == "text":
        return _decode_text(spec, arrays)
    raise FormatError(f"unknown codec {codec!r}; known are 'view', 'utf8' and 'text'")


def check(spec: Spec | None, arrays: list[Any]) -> None:
    """Raise an error where plain arrays are not what a spec decodes.

    Parameters
    ----------
    spec
        As :func:`encode` gave it, out of a file that may be damaged or hostile.
    arrays
        Anything with `dtype` and `shape`.

    Raises
    ------
    FormatError
        If they do not fit, or the spec asks for more memory than they take.
    """
    if spec is None:
        return
    codec, first = spec.get("codec"), arrays[0]
    if codec not in ("view", "utf8", "text"):
        raise FormatError(f"unknown codec {codec!r}; known are 'view', 'utf8' and 'text'")
    characters = np.dtype("S1")
    if codec == "view":
        dtype = dtypes.dtype_from_json(spec["dtype"])
        carrier, extra = _carrier(dtype) if dtype.itemsize else (np.dtype(np.uint8), ())
        fits = first.dtype == carrier and first.shape[len(first.shape) - len(extra) :] == extra
        fits = fits and not dtype.hasobject and dtype.subdtype is None
    elif codec == "utf8":
        dtype = np.dtype(spec["dtype"])
        fits = dtype.kind == "U" and first.dtype == characters and len(first.shape) > 0
        fits = fits and dtype.itemsize <= 4 * first.shape[-1]
    elif spec["form"] == "padded":
        fits = first.dtype == characters and len(first.shape) > 0
    else:
        second = arrays[1]
        fits = (first.dtype, second.dtype) == (np.int64, np.uint8) and len(second.shape) == 1
    if not fits:
        raise FormatError(
            f"{first.dtype} of shape {tuple(first.shape)} is not what {json.dumps(spec)} reads"
        )


def view_spec(dtype: np.dtype[Any]) -> tuple[Spec | None, np.dtype[Any], tuple[int, ...]]:
    """Return how an array is written block by block: its spec, plain dtype, and last size.

    Examples
    --------
    >>> view_spec(np.dtype("c8"))
    ({'codec': 'view', 'dtype': '<c8'}, dtype('float32'), (2,))
    """
    if plain(dtype):
        return None, dtype, ()
    carrier, sizes = _carrier(dtype)
    return {"codec": "view", "dtype": dtypes.dtype_to_json(dtype)}, carrier, sizes


def encode_block(block: np.ndarray) -> np.ndarray:
    """Return a block of an array as :func:`view_spec` says it is written."""
    return block if plain(block.dtype) else _encode_view(block)[1][0]


def extra_dimension(spec: Spec | None, shape: tuple[int, ...]) -> str | None:
    """Return the name of the dimension that the first array has more than the variable.

    Parameters
    ----------
    spec
        As :func:`encode` gave it.
    shape
        Of the first plain array.
    """
    if spec is None or spec.get("form") == "joined":
        return None
    if spec["codec"] in ("utf8", "text"):
        return f"labtree_chars_{shape[-1]}"
    dtype = dtypes.dtype_from_json(spec["dtype"])
    if not dtype.itemsize or not _carrier(dtype)[1]:
        return None
    what = {"c": "complex", "S": "chars", "U": "points"}.get(dtype.kind, "bytes")
    return f"labtree_{what}_{shape[-1]}"


def hints(spec: Spec | None) -> dict[str, str]:
    """Return the attributes by which other readers know what a variable is."""
    if spec is None:
        return {}
    if spec["codec"] in ("utf8", "text"):
        return {"_Encoding": "utf-8"} if spec.get("form") != "joined" else {}
    dtype = dtypes.dtype_from_json(spec["dtype"])
    if dtype.kind == "b":
        return {"dtype": "bool"}
    if dtype.kind == "M":
        unit, count = np.datetime_data(dtype)
        if unit in _CF_UNITS and count == 1:
            units = f"{_CF_UNITS[unit]} since 1970-01-01"
            return {"units": units, "calendar": "proleptic_gregorian"}
    return {}


def companion(spec: Spec | None) -> str | None:
    """Return the prefix of the name of the second array, where there is one."""
    return "labtree_text_" if spec is not None and spec.get("form") == "joined" else None


def _carrier(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the plain dtype for a dtype's bits, and how many make one element."""
    order = dtype.byteorder if dtype.byteorder in "<>" else "="
    if dtype.kind == "b":
        return np.dtype(np.int8), ()
    if dtype.kind in "mM":
        return np.dtype(order + "i8"), ()
    if dtype.kind == "f" and dtype.itemsize == 2:
        return np.dtype(order + "u2"), ()
    if dtype.kind == "c" and dtype.itemsize in (8, 16):
        return np.dtype(f"{order}f{dtype.itemsize // 2}"), (2,)
    if dtype.kind == "S":
        return np.dtype("S1"), (dtype.itemsize,)
    if dtype.kind == "U":
        return np.dtype(order + "u4"), (dtype.itemsize // 4,)
    return np.dtype(np.uint8), (dtype.itemsize,)


def _encode_view(array: np.ndarray) -> tuple[Spec, list[np.ndarray]]:
    dtype = array.dtype
    if dtype.itemsize == 0:  # np.dtype("S0") and the like hold nothing but their shape
        spec = {"codec": "view", "dtype": dtypes.dtype_to_json(dtype)}
        return spec, [np.zeros(array.shape, np.uint8)]
    carrier, extra = _carrier(dtype)
    flat = np.ascontiguousarray(array).reshape(-1)
    raw = flat.view(carrier).reshape(array.shape + extra)
    return {"codec": "view", "dtype": dtypes.dtype_to_json(dtype)}, [raw]


def _decode_view(raw: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.itemsize == 0:
        return np.zeros(raw.shape, dtype)
    extra = _carrier(dtype)[1]
    shape = raw.shape[: raw.ndim - len(extra)]
    return np.ascontiguousarray(raw).reshape(-1).view(dtype).reshape(shape)


def _encode_unicode(array: np.ndarray) -> tuple[Spec, list[np.ndarray]]:
    dtype = array.dtype
    count = dtype.itemsize // 4
    if count == 0:
        return _encode_view(array)
    native = np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False))
    points = native.reshape(-1).view(np.uint32).reshape(array.size, count)
    if not points.size or points.max() < 128:
        data = points.astype(np.uint8).reshape(-1).view("S1")
        width = count
    else:
        try:
            encoded = np.char.encode(native, "utf-8")
        except UnicodeEncodeError:
            return _encode_view(array)
        # At least as wide as the text, so that a reader knows how much memory it asks for.
        width = max(count, encoded.dtype.itemsize)
        data = np.ascontiguousarray(encoded.astype(f"S{width}")).reshape(-1).view("S1")
    return {"codec": "utf8", "dtype": dtype.str}, [data.reshape((*array.shape, width))]


def _decode_unicode(raw: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    shape = raw.shape[:-1]
    chars = np.ascontiguousarray(raw).view(np.uint8)
    count = dtype.itemsize // 4
    if raw.shape[-1] == count and (not chars.size or chars.max() < 128):
        native = chars.astype(np.uint32).reshape(-1).view(f"=U{count}").reshape(shape)
    else:
        texts = chars.reshape(-1).view(f"S{raw.shape[-1]}").reshape(shape)
        native = np.char.decode(texts, "utf-8")
    return native.astype(dtype, copy=False)


def _encode_text(array: np.ndarray, path: str, dtype: str) -> tuple[Spec, list[np.ndarray]]:
    flat = array.reshape(-1).tolist() if array.dtype.kind != "O" else list(array.flat)
    if all(type(item) is str for item in flat):
        elements, texts = "str", flat
    else:
        elements = "json"
        texts, refused = [], []
        for i, item in enumerate(flat):
            try:
                texts.append(json_values.dumps(item, f"{path}.flat[{i}]"))
            except UnsupportedTypeError as error:
                refused.append(error)
        if refused:
            raise all_unsupported(refused)
    spec = {"codec": "text", "dtype": dtype, "elements": elements}
    try:
        data = [text.encode() for text in texts]
        padded = not any(item.endswith(b"\0") for item in data)
    except UnicodeEncodeError:
        data = [text.encode(errors="surrogatepass") for text in texts]
        padded = False
    sizes = np.fromiter(map(len, data), np.int64, len(data))
    width = int(sizes.max(initial=1)) or 1
    if padded and width * len(data) <= 4 * int(sizes.sum()) + (1 << 16):
        raw = np.array(data, f"S{width}").reshape(-1).view("S1").reshape(*array.shape, width)
        return spec | {"form": "padded"}, [raw]
    joined = np.frombuffer(b"".join(data), np.uint8)
    return spec | {"form": "joined"}, [sizes.reshape(array.shape), joined]


def _decode_text(spec: Spec, arrays: list[np.ndarray]) -> np.ndarray:
    if spec["form"] == "padded":
        raw = arrays[0]
        shape = raw.shape[:-1]
        flat = np.ascontiguousarray(raw).reshape(-1).view(f"S{raw.shape[-1]}")
        data = flat.tolist() if flat.size else []
    else:
        sizes, joined = arrays
        shape = sizes.shape
        ends = np.cumsum(sizes.reshape(-1))
        text = joined.tobytes()
        if sizes.size and (sizes.min() < 0 or ends[-1] != len(text)):
            raise FormatError("the lengths of the texts do not add up to their bytes")
        data = [
            text[end - size : end]
            for end, size in zip(ends.tolist(), sizes.reshape(-1).tolist(), strict=True)
        ]
    result = np.empty(len(data), dtype=object)
    if spec["elements"] == "str":
        result[:] = [item.decode(errors="surrogatepass") for item in data]
    else:
        for i, item in enumerate(data):
            result[i] = json_values.decode(json.loads(item))
    shaped: np.ndarray = result.reshape(shape)
    if spec["dtype"] == "StringDType":
        return shaped.astype(np.dtypes.StringDType())
    return shaped
