"""Arrays of every numpy dtype as plain arrays that netCDF-4 has a type for.

netCDF-4 has integers, float32, float64 and characters. The other dtypes are
written as these, and a *spec*, a small dict, says what they are:

=============================== ============================================== =========
dtype                           written as                                     codec
=============================== ============================================== =========
bool                            int8                                           view
float16                         float32 (its bits as uint16 where NaNs differ) view
complex                         floats with a last dimension of 2              view
datetime64, timedelta64         int64 counts                                   view
structured, void, long double   uint8 with a last dimension of the item's size view
fixed bytes ``S``               characters with a last dimension               view
fixed text ``U``                UTF-8 characters with a last dimension         utf8
``U`` with lone surrogates      uint32 code points with a last dimension       view
object, ``StringDType``         UTF-8 characters, padded or end to end         text
=============================== ============================================== =========

What is not plain is little-endian in a file, whatever the dtype's byte order. Texts may
be missing: None, NaN or pandas.NA, one of these in an array; booleans beside the texts
say where. Elements of other object arrays are written as JSON (see
:mod:`labtree.storage.json_values`), one text an element.
"""

import json
import struct
from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import FormatError
from labtree.storage import dtypes, json_values
from labtree.storage.unsupported import refused_together, unsupported

Spec = dict[str, Any]

_MISSING: dict[str, Any] = {"None": None, "NaN": float("nan"), "NA": pd.NA}
_NAN = struct.pack("<d", float("nan"))


def plain(dtype: np.dtype[Any]) -> bool:
    """Return whether netCDF-4 has the dtype itself.

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
        if not getattr(dtype, "coerce", True):
            raise unsupported(array, path, "a StringDType that takes nothing but texts")
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
    raise _unknown(codec)


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
    if spec is not None and not _fits(spec, arrays):
        first = arrays[0]
        raise FormatError(
            f"{first.dtype} of shape {tuple(first.shape)} is not what {json.dumps(spec)} reads"
        )


def _fits(spec: Spec, arrays: list[Any]) -> bool:
    """Return whether plain arrays are what a spec decodes."""
    codec, first = spec.get("codec"), arrays[0]
    kind, shape = first.dtype.newbyteorder("="), tuple(first.shape)
    is_text = kind == np.dtype("S1") and len(shape) > 0
    if codec == "view":
        dtype = dtypes.dtype_from_json(spec["dtype"])
        carrier, extra = _stored_layout(dtype) if dtype.itemsize else (np.dtype(np.uint8), ())
        is_carrier = kind == carrier.newbyteorder("=") or (
            _is_half(dtype) and kind == np.uint16
        )
        is_simple = not dtype.hasobject and dtype.subdtype is None
        return is_carrier and is_simple and shape[len(shape) - len(extra) :] == extra
    if codec == "utf8":
        dtype = np.dtype(spec["dtype"])
        return is_text and dtype.kind == "U" and dtype.itemsize <= 4 * shape[-1]
    if codec != "text":
        raise _unknown(codec)
    if spec["form"] == "padded":
        fits, shape = is_text, shape[:-1]
    else:
        second = arrays[1]
        fits = kind == np.int64 and second.dtype == np.uint8 and len(second.shape) == 1
    if has_mask(spec):
        mask = arrays[-1]
        fits = fits and spec["missing"] in _MISSING and len(arrays) > 1
        fits = fits and (mask.dtype, tuple(mask.shape)) == (np.int8, shape)
    return fits


def _unknown(codec: object) -> FormatError:
    return FormatError(f"unknown codec {codec!r}; known are 'view', 'utf8' and 'text'")


def view_spec(dtype: np.dtype[Any]) -> tuple[Spec | None, np.dtype[Any], tuple[int, ...]]:
    """Return how an array is written block by block: its spec, plain dtype, and last size.

    Examples
    --------
    >>> view_spec(np.dtype("c8"))
    ({'codec': 'view', 'dtype': '<c8'}, dtype('float32'), (2,))
    """
    if plain(dtype):
        return None, dtype, ()
    carrier, sizes = _stored_layout(dtype)
    if _is_half(dtype):  # no block knows whether a NaN of another needs its bits
        carrier = np.dtype("<u2")
    return {"codec": "view", "dtype": dtypes.dtype_to_json(dtype)}, carrier, sizes


def encode_block(block: np.ndarray) -> np.ndarray:
    """Return a block of an array as :func:`view_spec` says it is written."""
    if _is_half(block.dtype):
        return _half_bits(block)
    return block if plain(block.dtype) else _encode_view(block)[1][0]


def last_dimension(spec: Spec | None, shape: tuple[int, ...]) -> str | None:
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
    if not dtype.itemsize or not _stored_layout(dtype)[1]:
        return None
    what = {"c": "complex", "S": "chars", "U": "points"}.get(dtype.kind, "bytes")
    return f"labtree_{what}_{shape[-1]}"


def companions(spec: Spec | None) -> list[str]:
    """Return what the arrays after the first are: "text", the characters; "missing", a mask."""
    if spec is None:
        return []
    found = ["text"] if spec.get("form") == "joined" else []
    return [*found, "missing"] if has_mask(spec) else found


def has_mask(spec: Spec | None) -> bool:
    """Return whether the last of the plain arrays says which elements are missing."""
    return spec is not None and spec.get("missing") is not None


def _is_half(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" and dtype.itemsize == 2


def _half_bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.astype("<f2", copy=False)).view("<u2")


def _stored_layout(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the plain dtype that a dtype is written as, and how many make one element."""
    if plain(dtype):
        return dtype, ()
    if dtype.kind == "b":
        return np.dtype(np.int8), ()
    if dtype.kind in "mM":
        return np.dtype("<i8"), ()
    if _is_half(dtype):
        return np.dtype("<f4"), ()
    if dtype.kind == "c" and dtype.itemsize in (8, 16):
        return np.dtype(f"<f{dtype.itemsize // 2}"), (2,)
    if dtype.kind == "S":
        return np.dtype("S1"), (dtype.itemsize,)
    if dtype.kind == "U":
        return np.dtype("<u4"), (dtype.itemsize // 4,)
    return np.dtype(np.uint8), (dtype.itemsize,)


def _encode_view(array: np.ndarray) -> tuple[Spec, list[np.ndarray]]:
    dtype = array.dtype
    spec = {"codec": "view", "dtype": dtypes.dtype_to_json(dtype)}
    if dtype.itemsize == 0:  # np.dtype("S0") and the like hold nothing but their shape
        return spec, [np.zeros(array.shape, np.uint8)]
    if _is_half(dtype):
        with np.errstate(invalid="ignore"):  # signaling NaNs
            single = array.astype("<f4")
            same = np.array_equal(_half_bits(single.astype("<f2")), _half_bits(array))
        return spec, [single if same else _half_bits(array)]
    carrier, extra = _stored_layout(dtype)
    if dtype.kind in "mMcU":
        array = array.astype(dtype.newbyteorder("<"), copy=False)
    elif carrier == np.uint8:
        array = _without_padding(array)
    flat = np.ascontiguousarray(array).reshape(-1)
    return spec, [flat.view(carrier).reshape(array.shape + extra)]


def _without_padding(array: np.ndarray) -> np.ndarray:
    """Return an array with zeros for the bytes of its elements that are no value."""
    dtype = array.dtype
    if dtype.names is not None:
        clean = np.zeros(array.shape, dtype)
        for name in dtype.names:
            clean[name] = _without_padding(array[name])
        return clean
    if dtype.type not in (np.longdouble, np.clongdouble) or np.finfo(np.longdouble).nmant != 63:
        return array
    clean = np.array(array, copy=True, order="C")
    raw = clean.reshape(-1).view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
    if dtype.isnative:
        raw[:, 10:] = 0
    else:
        raw[:, :-10] = 0
    return clean


def _decode_view(raw: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.itemsize == 0:
        return np.zeros(raw.shape, dtype)
    if plain(dtype):
        return raw.astype(dtype, copy=False)
    if _is_half(dtype):
        with np.errstate(all="ignore"):
            half = raw.astype("<f2") if raw.dtype.kind == "f" else raw.astype("<u2").view("<f2")
        return half.astype(dtype, copy=False)
    carrier, extra = _stored_layout(dtype)
    shape = raw.shape[: raw.ndim - len(extra)]
    little = dtype.newbyteorder("<") if dtype.kind in "mMcU" else dtype
    flat = np.ascontiguousarray(raw.astype(carrier, copy=False)).reshape(-1)
    return flat.view(little).reshape(shape).astype(dtype, copy=False)


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
    masks: list[np.ndarray] = []
    spec = {"codec": "text", "dtype": dtype, "elements": "str"}
    kinds = set(map(type, flat))
    missing = None if kinds <= {str} else _kind_of_missing(flat, kinds)
    if kinds <= {str}:
        texts = flat
    elif missing is not None:
        texts = [item if type(item) is str else "" for item in flat]
        holes = [type(item) is not str for item in flat]
        masks = [np.array(holes, np.int8).reshape(array.shape)]
        spec["missing"] = missing
    else:
        spec["elements"] = "json"
        with refused_together() as attempt:
            texts = [
                attempt(json_values.dumps, item, f"{path}.flat[{i}]")
                for i, item in enumerate(flat)
            ]
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
        return spec | {"form": "padded"}, [raw, *masks]
    joined = np.frombuffer(b"".join(data), np.uint8)
    return spec | {"form": "joined"}, [sizes.reshape(array.shape), joined, *masks]


def _kind_of_missing(flat: list[Any], kinds: set[type[Any]]) -> str | None:
    """Return what stands for missing texts, or None if other objects are there too."""
    others = kinds - {str}
    if len(others) != 1:
        return None
    if others == {type(None)}:
        return "None"
    if others == {type(pd.NA)}:
        return "NA"
    if others == {float}:
        numbers = (item for item in flat if type(item) is float)
        return "NaN" if all(struct.pack("<d", item) == _NAN for item in numbers) else None
    return None


def _decode_text(spec: Spec, arrays: list[np.ndarray]) -> np.ndarray:
    if spec["form"] == "padded":
        raw = arrays[0]
        shape = raw.shape[:-1]
        flat = np.ascontiguousarray(raw).reshape(-1).view(f"S{raw.shape[-1]}")
        data = flat.tolist() if flat.size else []
    else:
        sizes, joined = arrays[:2]
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
    if has_mask(spec):
        result[arrays[-1].reshape(-1) != 0] = _MISSING[spec["missing"]]
    shaped: np.ndarray = result.reshape(shape)
    if spec["dtype"] == "StringDType":
        return shaped.astype(np.dtypes.StringDType())
    return shaped
