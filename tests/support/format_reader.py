"""A reader of labtree's files written from docs/file-format.md alone, with h5py and numpy.

It reads all kinds but tables. A Dataset comes as its attributes and variables, a variable as
its dimensions, values and attributes. Beside the tables, which stand on
the page, it has 60 lines.
"""

# fmt: off
# ruff: noqa: E401, E501, E731, I001
import json, base64, datetime, re, urllib.parse, h5py, numpy as np

b64, bits, flat = base64.b64decode, bytes.fromhex, np.frombuffer
objects = lambda values, shape: np.array([*values, None], object)[:-1].reshape(shape)
HIDDEN = {*["CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_NCProperties", "_FillValue", "_Encoding", "dtype", "calendar", "coordinates", "Conventions", "labtree_attrs", "labtree_attrs_order", "labtree_crc32c", "labtree_dtype", "labtree_file_format", "labtree_file_page", "labtree_layout", "labtree_missing", "labtree_real_name", "labtree_text"]}
MISSING = {"None": None, "NaN": np.nan, "NA": "NA"}
EXTRA = "labtree_chars_", "labtree_complex_", "labtree_points_", "labtree_bytes_"
TAGS = {
    "$tuple": tuple, "$set": set, "$frozenset": frozenset, "$dict": dict, "$bytes": b64, "$bytearray": b64,
    "$text": lambda x: b64(x).decode(errors="surrogatepass"), "$int": lambda x: int(x, 16),
    "$float": lambda x: flat(bits(x), "<f8").item(), "$complex": lambda x: flat(bits(x), "<c16").item(),
    "$date": datetime.date.fromisoformat, "$datetime": lambda x: datetime.datetime.fromisoformat(x[0]),
    "$slice": lambda x: slice(*x), "$range": lambda x: range(*x), "$timedelta": lambda x: datetime.timedelta(*x),
    "$scalar": lambda x: flat(b64(x[1]), x[0])[0], "$array": lambda x: flat(b64(x[2]), x[0]).reshape(x[1]),
    "$objects": lambda x: objects(x[1], x[0]), "$texts": lambda x: objects(x[1], x[0])}
def load(text, parts=None):
    def hook(value):  # called for the innermost objects first
        if "itemsize" in value:
            return np.dtype({key: value[key] for key in ("names", "formats", "offsets", "itemsize")}, value["aligned"])
        tag, of = next(iter(value.items()), ("", None))
        return parts[of] if tag == "$part" else TAGS[tag](of) if tag in TAGS else (
            np.dtype((of, tuple(value["shape"]))) if tag == "base" else value)
    return json.loads(text, object_hook=hook)
def marks(item):
    return {key: each.decode() if isinstance(each, bytes) else each.item() if isinstance(each, np.generic) else each
            for key, each in item.attrs.items()}
def name_of(item):
    return load(item.attrs.get("labtree_real_name", json.dumps(item.name.split("/")[-1].removeprefix("_nc4_non_coord_"))))
def dims_of(group, data):
    ids = {each.attrs.get("_Netcdf4Dimid"): each for each in group.values()}
    found = [scales[0] for scales in data.dims if len(scales)] or [
        ids[each] for each in data.attrs.get("_Netcdf4Coordinates", [])] or [data][:data.ndim]
    return [name for name in map(name_of, found) if not name.startswith(EXTRA)]
def values_of(group, data, mark):
    raw, named, ndim = data[()], mark.get("labtree_dtype", ""), len(dims_of(group, data))
    texts = raw.view(f"S{raw.shape[-1]}")[..., 0] if raw.dtype == "S1" and raw.ndim > ndim else raw
    if named in ("object", "json", "StringDType"):
        found = texts.reshape(-1).tolist()
        if "labtree_text" in mark:
            joined, ends = group[mark["labtree_text"]][()].tobytes(), np.cumsum(raw)
            found = [joined[end - size:end] for end, size in zip(ends, found, strict=True)]
        found = objects([load(text) if named == "json" else text.decode() for text in found], texts.shape)
        if "labtree_missing" in mark:
            found[group[mark["ancillary_variables"].split()[-1]][()] != 0] = MISSING[mark["labtree_missing"]]
        return found
    dtype = load(named) if named[:1] == "{" else np.dtype(named or raw.dtype)
    if dtype.kind == "U" and raw.dtype == "S1":
        return np.char.decode(texts, "utf-8").astype(dtype)
    if dtype.kind in "biuf" and dtype.itemsize <= 8 and (named != "<f2" or raw.dtype.kind == "f"):
        return raw.astype(dtype)
    return raw.view(dtype.newbyteorder("<") if dtype.kind in "mMcU" else dtype).reshape(raw.shape[:ndim]).astype(dtype)
def attributes(mark):
    times = mark.get("labtree_dtype", "")[1:2] in ("m", "M")
    hidden = HIDDEN | {*["ancillary_variables"] * ("labtree_missing" in mark), *["units"] * times}
    return {key: each for key, each in mark.items() if key not in hidden} | load(mark.get("labtree_attrs", "{}"))
def variables(group):
    found = ((each, marks(each)) for each in group.values() if "labtree_crc32c" in each.attrs)
    return {name_of(each): (dims_of(group, each), values_of(group, each, mark), attributes(mark))
            for each, mark in found if "labtree_beside" not in mark}
def item(about, found):
    if "labtree_structure" in about:
        return load(about["labtree_structure"], {
            name: item({"labtree_kind": part["kind"], **part["attrs"]}, {
                old: found[new] for old, new in part["names"].items() if new in found})
            for name, part in about.get("labtree_parts", {}).items()})
    if about.get("labtree_kind") != "ndarray":
        return about, found
    data, mask = found["data"][1], found.get("mask", (0, False))[1]
    return np.ma.MaskedArray(data, mask) if "labtree_masked" in about else data
def key_of(group):
    return marks(group).get("labtree_key", urllib.parse.unquote(re.sub("^_(?=%)", "", name_of(group))))
def read(path):
    with h5py.File(path) as file:
        return {(key_of(space), key_of(key)): item(attributes(marks(key)), variables(key))
                for space in file.values() for key in space.values() if isinstance(key, h5py.Group)}
