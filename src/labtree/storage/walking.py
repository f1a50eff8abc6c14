"""One walk over a tree for all writers: its nodes, their variables, the plain arrays of each.

What a file calls the parts, and how arrays and attributes get into it, is the writer's.
"""

import contextlib
import json
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import DataError, UnsupportedTypeError
from labtree.storage import codecs, json_values
from labtree.storage._xarray import Variable, data_of
from labtree.storage.arrays import COMPRESSION, Column, stored_array
from labtree.storage.blocks import BlockArray, is_dask
from labtree.storage.dataset_checks import dataset_layout, kept_variables, variable_values
from labtree.storage.marks import iterate_nodes
from labtree.storage.missing import ANCILLARY, mask_name
from labtree.storage.names import LONGEST, encode_name
from labtree.storage.records import NodeRecord, VariableRecord, node_record
from labtree.storage.value_attributes import cf_attributes, fill_value, marks, without_marks

_NO_CHILDREN: Mapping[str, xr.DataTree] = MappingProxyType({})


class Naming(NamedTuple):
    """What the members and the dimensions of a group are called in a file.

    `members` is given the names of variables and of groups; `dimensions` is given what all
    members are called, and which of them are variables.
    """

    members: Callable[[list[str]], dict[str, str]]
    dimensions: Callable[[list[str], dict[str, str], Container[str]], dict[str, str]]


class PlainArray(NamedTuple):
    """One plain array of a variable.

    `role` is empty for the values, or "text" or "missing"; `own` are the attributes that say
    so; `name` and `dims` are those in the file, without the last dimension that a codec adds;
    `blobs[number]` is what the values were read from unchanged.
    """

    role: str
    own: dict[str, str]
    name: str
    dims: tuple[str, ...]
    values: Any
    blobs: list[Any] | None
    number: int

    @property
    def blob(self) -> Any:
        """What the values were read from unchanged, or None."""
        return None if self.blobs is None else self.blobs[self.number]

    @property
    def is_blocks(self) -> bool:
        """Whether the values are dask's, to be computed block by block."""
        return isinstance(self.values, BlockArray)


class PlainVariable(NamedTuple):
    """A variable as plain arrays and attributes.

    `attrs` are the user's, `coded` the same as JSON; `own` are labtree's and those by which
    other programs know what the values are, and `hidden` the names that these take from the
    user's; `compression` is how the values were compressed in the file that they come from.
    """

    name: str
    path: str
    dims: list[str]
    is_index: bool
    spec: codecs.Spec | None
    arrays: list[PlainArray]
    attrs: dict[Any, Any]
    coded: Any
    own: dict[str, Any]
    hidden: frozenset[str]
    compression: str | None

    @property
    def fill_value(self) -> np.ndarray | None:
        """The user's ``_FillValue`` in the type of the values, if other readers can use it."""
        if self.spec is not None:
            return None
        return fill_value(self.attrs.get("_FillValue"), self.arrays[0].values.dtype)

    def record(self, columns: list[Column]) -> VariableRecord:
        """Return the variable's part of a record."""
        return VariableRecord(self.name, self.dims, self.spec, self.coded, columns)

    def index_values(self, most: int) -> bytes | None:
        """Return the values of an index coordinate of at most so many bytes, or None.

        They stand in the catalogue as well: xarray reads them when it opens a tree.
        """
        if not self.is_index or len(self.arrays) > 1:
            return None
        values = self.arrays[0].values  # never dask's
        return values.tobytes() if values.nbytes <= most else None


@dataclass(slots=True)
class Node:
    """A group as it is written.

    `files` are the names of variables and groups in the file, `dims` those of dimensions.
    """

    path: list[str]
    dataset: xr.Dataset
    attrs: dict[Any, Any]
    coded: Any
    layout: dict[str, Any]
    files: dict[str, str]
    dims: dict[str, str]
    children: Mapping[str, xr.DataTree] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @property
    def where(self) -> str:
        """The path, for errors."""
        return "/" + "/".join(self.path)

    def record(self, variables: Iterable[VariableRecord]) -> NodeRecord:
        """Return the node's record."""
        return node_record(self.path, self.coded, self.layout, variables)

    def variables(self) -> Iterator[PlainVariable]:
        """Yield the variables, one after another as plain arrays.

        Raises
        ------
        TypeError
            If a part cannot be kept exactly; the message has its path.
        """
        dataset = self.dataset
        indexes = dataset.xindexes if dataset.coords else {}
        levels = [
            name for names in self.layout.get("multiindexes", {}).values() for name in names
        ]
        coords = [
            name for name in (*self.layout.get("coords", ()), *levels)
            if name in self.files and " " not in self.files[name]
        ]  # fmt: skip
        for name, variable in kept_variables(dataset).items():
            shown = [] if name in dataset.coords else coords
            yield self._plain(name, variable, name in indexes, [
                self.files[each] for each in shown
                if set(dataset.variables[each].dims) <= set(variable.dims)
            ])  # fmt: skip

    def _plain(
        self, name: str, variable: Variable, is_index: bool, coords: list[str]
    ) -> PlainVariable:
        path = f"{self.where.rstrip('/')}/{name}"
        spec, values, blobs = _plain_arrays(variable, path)
        attrs = without_marks(variable.attrs)
        coded = json_values.encode(attrs, f"{path}.attrs") if attrs else {}
        file = self.files[name]
        for dim in variable.dims:
            if str(dim) not in self.dims:
                raise DataError(
                    f"{path}: {dim!r} is no dimension of its dataset, which has "
                    f"{list(self.dims)}; variable.dims was set in place. Set it back and write "
                    "node.dataset = node.to_dataset().rename_dims({old: new})"
                )
        dims = tuple(self.dims[str(dim)] for dim in variable.dims)
        arrays = [PlainArray("", {}, file, dims, values[0], blobs, 0)]
        own: dict[str, Any] = marks(spec, values[0].dtype)
        if file != name:
            own["labtree_real_name"] = json.dumps(name)
        hints = cf_attributes(spec)
        own |= hints
        for i, role in enumerate(codecs.companions(spec), 1):
            beside = self._free(f"labtree_text_{file}" if role == "text" else mask_name(file))
            its_own, its_dims = {"labtree_beside": file}, dims
            if role == "text":
                own["labtree_text"] = beside
                its_dims = (self._free(f"labtree_bytes_{file}"),)
            else:
                words = attrs.get(ANCILLARY)
                own[ANCILLARY] = f"{words} {beside}" if type(words) is str else beside
                its_own["dtype"] = "bool"
            arrays.append(PlainArray(role, its_own, beside, its_dims, values[i], blobs, i))
        given = attrs.get("coordinates")
        if type(given) is str and given.isascii() and "\0" not in given:
            own["coordinates"] = given
        elif coords:
            own["coordinates"] = " ".join(coords)
        hidden = frozenset({*own, "coordinates"})
        shown = list(map(str, variable.dims))
        return PlainVariable(
            name, path, shown, is_index, spec, arrays, attrs, coded, own, hidden,
            variable.encoding.get(COMPRESSION),
        )  # fmt: skip

    def _free(self, name: str) -> str:
        """Return a name for what stands beside a variable that nothing else has."""
        if len(name.encode()) > LONGEST:
            name = encode_name(name)
        if not self.taken:
            self.taken |= {*self.files.values(), *self.dims.values()}
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def walk(tree: xr.DataTree, naming: Naming) -> Iterator[Node]:
    """Yield the nodes of a tree, parents before children."""
    for path, node in iterate_nodes(tree):
        with noted(path):
            found = node_of(node.to_dataset(inherit=False), list(path), naming, node.children)
        yield found


def node_of(
    dataset: xr.Dataset,
    path: list[str],
    naming: Naming,
    children: Mapping[str, xr.DataTree] = _NO_CHILDREN,
) -> Node:
    """Return one group as it is written.

    Parameters
    ----------
    dataset
        Its variables and attributes.
    path
        Of the group in the tree.
    naming
        What things are called in the file.
    children
        The groups below it.

    Raises
    ------
    TypeError
        If its attributes, names or coordinates cannot be kept exactly.
    """
    where = "/" + "/".join(path)
    variables = kept_variables(dataset)
    for name in (*variables, *dataset.sizes):
        if type(name) is not str or not name:
            raise UnsupportedTypeError(
                f"names of variables and dimensions are str, not {name!r}"
            )
    attrs = dict(dataset.attrs)
    files = naming.members([*variables, *children])
    return Node(
        path,
        dataset,
        attrs,
        json_values.encode(attrs, f"{where}.attrs"),
        dataset_layout(dataset, where),
        files,
        naming.dimensions([str(name) for name in dataset.sizes], files, variables),
        children,
    )


@contextlib.contextmanager
def noted(path: Sequence[str]) -> Iterator[None]:
    """Name a node in the errors that come while it is written."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if path and not getattr(error, "__notes__", None):
            error.add_note(f"while writing /{'/'.join(path)}")
        raise


def _plain_arrays(
    variable: Variable, path: str
) -> tuple[codecs.Spec | None, list[Any], list[Any] | None]:
    """Return the spec, the plain arrays, and what they were read from."""
    if not isinstance(data_of(variable), np.ndarray):
        stored = stored_array(variable)
        if stored is not None and stored.is_plain:
            return stored.spec, [blob.read() for blob in stored.blobs], stored.blobs
        is_sized = not any(math.isnan(size) for size in variable.shape)
        if is_dask(variable) and is_sized and variable.dtype.kind not in "OT":
            spec, blocks = BlockArray.of(variable)
            return spec, [blocks], None
        if is_dask(variable):  # texts have no width that their blocks agree on
            variable = variable.compute()
    spec, arrays = codecs.encode(variable_values(variable, path), path)
    return spec, list(arrays), None
