"""Settings files, read as data: YAML, JSON, and Python files of literals. Nothing runs."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

from labtree.errors import FormatError, one_line
from labtree.optional import require
from labtree.storage import json_files
from labtree.storage.files import read_file

# A file whose parts repeat each other may unfold to far more than its own size.
_MAX_NODES = 2_000_000
_MAX_DEPTH = 100
_MAX_BYTES = 64 * 2**20
_TAG = "tag:yaml.org,2002:"
_STR, _MERGE = f"{_TAG}str", f"{_TAG}merge"
_TEXTS = ("str", "value", "merge")


def read_yaml(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a YAML file whose root is a mapping.

    Parameters
    ----------
    path : path
        The file; UTF-8.

    Returns
    -------
    content : dict
        Mappings, lists, tuples (``!!python/tuple``), strings, numbers, booleans and None.
        Dates stay the text that they are written as. In a mapping that merges others with
        ``<<``, its own keys win, and then those of the first one merged.
    notes : list of str
        The tags that were not followed; what they stood on is kept as plain data.

    Raises
    ------
    FormatError
        Not YAML, not a mapping, or far larger inside than outside.
    """
    return parse_yaml(_text(path), path)


def parse_yaml(text: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Do as `read_yaml`, of text; `path` is what errors and notes name.

    Raises
    ------
    FormatError
        As there.
    """
    yaml = require("yaml", purpose="reading settings in YAML", extra="msw")
    loader = _loader_class()(text)
    notes: list[str] = []
    try:
        _refuse_depth(path, text)
        root = loader.get_single_node()
        if "*" in text:
            _refuse_bomb(path, root)
        content = None if root is None else _Constructor(path, loader, notes).value(root, 0)
    except FormatError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise FormatError(
            f"{path}: not YAML that can be read ({one_line(error, 300)})"
        ) from None
    finally:
        loader.dispose()
    return _mapping(path, content), [f"{path}: {note}" for note in notes]


def _refuse_depth(path: Path, text: str) -> None:
    """Refuse what is nested so deeply that PyYAML's C code would overflow the stack."""
    import yaml

    # Each level of a block is indented further, and each level of a flow has a bracket.
    brackets = text.count("[") + text.count("{")
    if brackets < 500 and max(map(len, text.split("\n"))) < 250:
        return
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise _too_large(path)


def _refuse_bomb(path: Path, root: Any) -> None:
    """Count the values that a document unfolds to before any of them is made.

    Each alias and each merge key counts as a copy of what it refers to, so that the limit
    holds whatever PyYAML shares or copies.
    """
    # Of a node: how many values it unfolds to, and how many levels.
    counted: dict[int, tuple[int, int]] = {}

    def count(node: Any, depth: int) -> tuple[int, int]:
        if not isinstance(node.value, list):
            return 1, 0
        size, height = counted.get(id(node), (0, 0))
        if not size:
            if depth > _MAX_DEPTH:  # an alias within itself has no end either
                raise _too_large(path)
            parts = node.value
            if parts and isinstance(parts[0], tuple):
                parts = [part for pair in parts for part in pair]
            sizes = [count(part, depth + 1) for part in parts]
            size = 1 + sum(size for size, _ in sizes)
            height = 1 + max((height for _, height in sizes), default=0)
            counted[id(node)] = size, height
        if size > _MAX_NODES or depth + height > _MAX_DEPTH + 1:
            raise _too_large(path)
        return size, height

    if root is not None:
        count(root, 0)


@cache
def _loader_class() -> Any:
    """Return a loader that composes nodes, in C where that is built; dates stay text."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] != f"{_TAG}timestamp"]
        for first, rules in base.yaml_implicit_resolvers.items()
    }
    return Loader


class _Constructor:
    """Makes plain values of composed nodes; an aliased node is made once and shared."""

    def __init__(self, path: Path, loader: Any, notes: list[str]) -> None:
        self.path = path
        self.notes = notes
        self._loader = loader
        self._made: dict[int, Any] = {}
        self._scalars = {
            f"{_TAG}{name}": loader.yaml_constructors[f"{_TAG}{name}"]
            for name in ("int", "float", "bool", "null")
        } | {f"{_TAG}{name}": type(loader).construct_scalar for name in _TEXTS}

    def value(self, node: Any, depth: int) -> Any:
        """Return the value of a node."""
        tag = node.tag
        if tag == _STR and node.id == "scalar":
            return node.value
        if tag in self._scalars:
            return self._scalars[tag](self._loader, node)
        if depth > _MAX_DEPTH:
            raise _too_large(self.path)
        if id(node) not in self._made:
            self._made[id(node)] = self._collection(node, depth + 1)
        return self._made[id(node)]

    def _collection(self, node: Any, depth: int) -> Any:
        is_pairs = node.id == "mapping"
        if node.tag == f"{_TAG}python/tuple" and node.id == "sequence":
            return tuple(self.value(item, depth) for item in node.value)
        if node.tag != f"{_TAG}{'map' if is_pairs else 'seq'}":
            tag = node.tag.replace(_TAG, "!!")
            line = node.start_mark.line + 1
            self.notes.append(f"line {line}: tag {tag} not followed")
            if node.id == "scalar":
                return f"<{tag} {node.value}>" if node.value else f"<{tag}>"
        if is_pairs:
            return self._mapping(node, depth)
        return [self.value(item, depth) for item in node.value]

    def _mapping(self, node: Any, depth: int) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key, value in node.value:
            if key.tag != _MERGE:
                own[self.value(key, depth)] = self.value(value, depth)
                continue
            for source in value.value if value.id == "sequence" else [value]:
                if source.id != "mapping":
                    line = source.start_mark.line + 1
                    raise ValueError(f"line {line}: only mappings can be merged with '<<'")
                for name, item in self.value(source, depth).items():
                    merged.setdefault(name, item)
        return merged | own if merged else own


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose root is an object.

    Raises
    ------
    FormatError
        Not JSON, or not an object.
    """
    content = _mapping(path, json_files.read_json(path))
    _refuse_deep(path, content)
    return content


def read_python_literals(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the literals that a Python file assigns to UPPERCASE names; the file is not run.

    Parameters
    ----------
    path : path
        For example ``..._task_settings.py``.

    Returns
    -------
    values : dict
        Name to literal.
    notes : list of str
        The UPPERCASE names whose value is not a literal, or that are also set otherwise
        than by an assignment of one literal.

    Raises
    ------
    FormatError
        Not Python.
    """
    try:
        tree = ast.parse(_text(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormatError(f"{path}: not Python that can be read ({error})") from None
    values: dict[str, Any] = {}
    notes: list[str] = []
    targets: list[Any]
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        elif isinstance(node, ast.AnnAssign):
            continue
        else:
            targets, value = [node], None
        plain = [target for target in targets if isinstance(target, ast.Name)]
        names = [target.id for target in plain if target.id.isupper()]
        others = [target for target in targets if target not in plain]
        set_otherwise = dict.fromkeys(name for each in others for name in _names_set_in(each))
        if set_otherwise:
            notes.append(
                f"{path}: line {node.lineno}: {', '.join(set_otherwise)} set by more than a "
                "literal, which is not followed"
            )
        if not names or value is None:
            continue
        try:
            literal = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            notes.append(
                f"{path}: line {node.lineno}: {', '.join(names)} is no literal, and is left out"
            )
        else:
            values.update(dict.fromkeys(names, literal))
    _refuse_deep(path, values)
    return values, notes


def _names_set_in(node: ast.AST) -> list[str]:
    """Return the UPPERCASE names that a statement sets at the top of a file, or a part of."""
    found: list[str] = []
    pile: list[ast.AST] = [node]
    while pile:
        part = pile.pop()
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        pile += ast.iter_child_nodes(part)
        if isinstance(part, ast.Name | ast.Subscript) and isinstance(part.ctx, ast.Store):
            name = part.value if isinstance(part, ast.Subscript) else part
            if isinstance(name, ast.Name) and name.id.isupper():
                found.append(name.id)
    return sorted(found)


def _text(path: Path) -> str:
    try:
        return read_file(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not text in UTF-8 ({error})") from None


def _mapping(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise FormatError(f"{path}: expected a mapping of names to values, found {found}")
    return content


def _refuse_deep(path: Path, content: Any) -> None:
    """Refuse what is nested so deeply that what works on it later would overflow the stack."""
    pile: list[tuple[Any, int]] = [(content, 0)]
    while pile:
        value, depth = pile.pop()
        if depth > _MAX_DEPTH:
            raise _too_large(path)
        if isinstance(value, dict):
            pile += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            pile += [(item, depth + 1) for item in value]


def _too_large(path: Path) -> FormatError:
    return FormatError(
        f"{path}: unfolds to more than {_MAX_NODES} values or {_MAX_DEPTH} levels; not a "
        "settings file"
    )
