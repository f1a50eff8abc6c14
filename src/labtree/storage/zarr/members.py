"""What a store holds, from the metadata of its groups and arrays, where no catalogue tells."""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from labtree.errors import FormatError, LabtreeError
from labtree.storage import codecs, json_values
from labtree.storage.arrays import Column
from labtree.storage.attributes import RESERVED
from labtree.storage.blobs import plain_dtype
from labtree.storage.catalogue import Catalogue, catalogue_text
from labtree.storage.records import NodeRecord, VariableRecord, node_record
from labtree.storage.value_attributes import cf_attributes, spec_of_marks
from labtree.storage.zarr.locations import Location, object_names, open_array
from labtree.storage.zarr.metadata import METADATA

#: What is raised where the metadata of a store contradict themselves.
CONTRADICTIONS = (KeyError, IndexError, TypeError, ValueError, AttributeError)


def rebuilt_catalogue(
    location: Location, root: dict[str, Any], left_out: dict[str, str]
) -> tuple[Catalogue, list[NodeRecord]]:
    """Return a catalogue made from the metadata of groups and arrays, and its records."""
    nodes = all_metadata(location, root, left_out)
    members: dict[str, list[str]] = defaultdict(list)
    for key in nodes:
        if key:
            members[key.rpartition("/")[0]].append(key)
    records: list[NodeRecord] = []
    known = (root.get("consolidated_metadata") or {}).get("metadata")
    for key in known if isinstance(known, dict) else ():
        above = key.rpartition("/")[0]
        if key not in nodes and above in nodes:
            left_out.setdefault(
                f"/{key}",
                "it is listed in zarr.json and is not there: another program removed it, or it "
                "was lost",
            )

    def visit(key: str, path: list[str]) -> None:
        own = nodes[key].get("attributes", {})
        layout = own.get("labtree_layout") or {}
        prefix = f"{key}/" if key else ""
        variables = []
        for each in members[key]:
            node = nodes[each]
            if node["node_type"] != "array" or "labtree_beside" in node.get("attributes", {}):
                continue
            try:
                variable = _variable_record(each[len(prefix) :], nodes, prefix, location)
                variables.append(variable)
            except (*CONTRADICTIONS, LabtreeError) as error:
                left_out[f"/{each}"] = str(error) or repr(error)
        records.append(node_record(path, _exact(own, _GROUP_OWN), layout, variables))
        for each in members[key]:
            if nodes[each]["node_type"] == "group":
                made = len(records)
                try:
                    visit(each, [*path, _real_name(each[len(prefix) :], nodes[each])])
                except CONTRADICTIONS as error:
                    del records[made:]
                    left_out[f"/{each}"] = str(error) or repr(error)

    visit("", [])
    text = catalogue_text({"id": None}, records)
    catalogue = Catalogue({"id": None}, text, b"")
    return catalogue, catalogue.records()


def _real_name(file: str, metadata: dict[str, Any]) -> str:
    found = metadata.get("attributes", {}).get("labtree_real_name")
    return file if found is None else str(json.loads(found))


_GROUP_OWN = frozenset(
    {"labtree_layout", "labtree_file_format", "labtree_file_page", "coordinates"}
)


def _exact(attributes: dict[str, Any], own: frozenset[str]) -> Any:
    """Return attributes as a record has them."""
    if "labtree_attrs" in attributes:
        return attributes["labtree_attrs"]
    shown = {k: v for k, v in attributes.items() if k not in own and k not in RESERVED}
    return json_values.encode(shown, "attrs")


def _variable_record(
    file: str, nodes: dict[str, Any], prefix: str, location: Location
) -> VariableRecord:
    metadata = nodes[prefix + file]
    attributes = metadata.get("attributes", {})
    first = _column(prefix, file, metadata, location, attributes)
    spec = spec_of_marks(attributes, plain_dtype(first.dtype))
    columns = [first]
    for role, key in (("text", "labtree_text"), ("missing", "ancillary_variables")):
        if spec is not None and role in codecs.companions(spec):
            other = str(attributes[key]).split()[-1]
            columns.append(_column(prefix, other, nodes[prefix + other], location, {}))
    dims = list(metadata.get("dimension_names") or [])
    shape = tuple(first.shape)
    logical = len(shape) - (codecs.last_dimension(spec, shape) is not None)
    dims = dims[:logical] or [f"dim_{i}" for i in range(logical)]
    hidden = {"coordinates", *cf_attributes(spec)}
    if codecs.has_mask(spec):
        hidden.add("ancillary_variables")
    exact = _exact(attributes, frozenset(hidden))
    return VariableRecord(_real_name(file, metadata), dims, spec, exact, columns)


def _column(
    prefix: str, file: str, metadata: Any, location: Location, attributes: dict[str, Any]
) -> Column:
    """Return the column of an array; what zarr calls text gets the width that it needs."""
    data_type, shape = metadata["data_type"], list(metadata["shape"])
    if not isinstance(data_type, str):
        raise FormatError(f"zarr's type {data_type!r} is not known here")
    named = str(attributes.get("labtree_dtype", ""))
    if data_type == "string":
        texts = np.ravel(np.asarray(open_array(location, prefix + file)[...]))
        widest = max((len(str(text).encode()) for text in texts), default=1)
        if named[1:2] == "U":
            widest = max(widest, int(named[2:]))
        dtype, shape = "|S1", [*shape, widest or 1]
    elif data_type.startswith("complex"):
        dtype, shape = f"<f{int(data_type[7:]) // 16}", [*shape, 2]
    elif data_type in ("bool", "float16"):
        dtype = {"bool": "|i1", "float16": "<f4"}[data_type]
    else:
        kind = np.dtype(data_type)
        if named[1:2] == "S" and kind == np.uint8:
            kind = np.dtype("S1")
        settings = [c.get("configuration") for c in metadata["codecs"] if c["name"] == "bytes"]
        if any(each and each.get("endian") == "big" for each in settings):
            kind = kind.newbyteorder(">")
        dtype = kind.str
    compressed = [c["name"] for c in metadata["codecs"] if c["name"] in ("gzip", "zstd")]
    return Column(file, dtype, shape, data_type, chunks=compressed[0] if compressed else None)


def all_metadata(
    location: Location,
    root: dict[str, Any] | None = None,
    left_out: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the metadata of all groups and arrays, as they stand now, by path.

    Parameters
    ----------
    location
        The store.
    root
        The metadata of its root, where they were read already.
    left_out
        Takes the paths of what zarr cannot open, and why.
    """
    root = json.loads(location.read(METADATA)) if root is None else root
    lost: dict[str, str] = {} if left_out is None else left_out
    store = location.store()
    found: dict[str, Any] = {"": root}
    consolidated = root.get("consolidated_metadata") or {}
    # The order in which they were saved, then what others added.
    order = {key: i for i, key in enumerate(consolidated.get("metadata") or {})}
    try:
        members = _members_at_once(store)
    except Exception:  # of what is damaged zarr can say anything
        members = dict(_members_one_by_one(store, "", lost))
    for key in sorted(members, key=lambda each: (order.get(each, len(order)), each)):
        node = members[key]
        found[key] = node.metadata.to_dict()
        data_type: Any = getattr(node.metadata, "data_type", None)
        if hasattr(data_type, "to_json"):  # zarr 3.1 and newer
            found[key]["data_type"] = data_type.to_json(zarr_format=3)
    return found


def _members_at_once(store: Any) -> dict[str, Any]:
    """Return all groups and arrays below the root; raise for what is none of both."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        group = zarr.open_group(store=store, mode="r", zarr_format=3, use_consolidated=False)
        return dict(group.members(max_depth=None))


def _members_one_by_one(
    store: Any, prefix: str, lost: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    """Give the groups and arrays below a group that can be opened."""
    import zarr

    for name in object_names(store, prefix):
        key = prefix + name
        if name.startswith(".") or name == METADATA:
            continue
        inside = object_names(store, f"{key}/")
        if not inside:
            continue  # a file that somebody put there
        try:
            if METADATA not in inside:
                raise FormatError(f"it has no {METADATA}")
            node = zarr.open(store=store, path=key, mode="r", zarr_format=3)
        except Exception as error:  # of what is damaged zarr can say anything
            lost[f"/{key}"] = str(error) or repr(error)
            continue
        yield key, node
        if isinstance(node, zarr.Group):
            yield from _members_one_by_one(store, f"{key}/", lost)
