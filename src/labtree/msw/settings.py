"""Settings files, read as data: YAML, JSON, and Python files of literals. Nothing runs."""

import ast
import json
from pathlib import Path
from typing import Any

from labtree.errors import FormatError

__all__ = ["read_json", "read_python_literals", "read_yaml"]

# A file whose parts repeat each other may unfold to far more than its own size.
_MAX_NODES = 2_000_000
_MAX_DEPTH = 100
_TAG = "tag:yaml.org,2002:"


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
        Dates stay the text that they are written as.
    notes : list of str
        The tags that were not followed; what they stood on is kept as plain data.

    Raises
    ------
    FormatError
        Not YAML, not a mapping, or far larger inside than outside.
    """
    try:
        import yaml
    except ImportError:
        raise ImportError('reading YAML needs PyYAML: pip install "labtree[msw]"') from None

    notes: list[str] = []
    text = _text(path)
    loader = _loader()(text)
    loader.labtree_notes = notes
    try:
        _refuse_depth(path, text)
        content = loader.get_single_data()
    except FormatError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        problem = " ".join(str(error).split())[:300]
        raise FormatError(f"{path}: not YAML that can be read ({problem})") from None
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
            raise FormatError(f"{path}: nested deeper than {_MAX_DEPTH} levels")


_LOADER: Any = None


def _loader() -> Any:
    """Give the loader: safe, in C where that is built, with dates left as text."""
    global _LOADER
    if _LOADER is not None:
        return _LOADER
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        labtree_notes: list[str]

        def construct_document(self, node: Any) -> Any:
            return self.construct_plain(node, {})

        def construct_plain(self, node: Any, made: dict[int, Any]) -> Any:
            # PyYAML's own way, which defers each collection, takes three times as long.
            if node.tag in scalars:
                return scalars[node.tag](self, node)
            if id(node) in made:
                return made[id(node)]
            if node.tag == f"{_TAG}map" and isinstance(node, yaml.MappingNode):
                mapping: dict[Any, Any] = {}
                made[id(node)] = mapping
                self.flatten_mapping(node)
                for key, value in node.value:
                    mapping[self.construct_plain(key, made)] = self.construct_plain(value, made)
                return mapping
            if node.tag == f"{_TAG}seq" and isinstance(node, yaml.SequenceNode):
                sequence: list[Any] = []
                made[id(node)] = sequence
                sequence.extend([self.construct_plain(item, made) for item in node.value])
                return sequence
            return self.construct_object(node, deep=True)

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            # Merge keys repeat what they merge: a few lines could ask for millions of keys.
            if len(node.value) > 10_000:
                raise ValueError("more than 10000 keys in one mapping")

    scalars = {
        f"{_TAG}{name}": base.yaml_constructors[f"{_TAG}{name}"]
        for name in ("str", "int", "float", "bool", "null")
    }
    Loader.yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] != f"{_TAG}timestamp"]
        for first, rules in base.yaml_implicit_resolvers.items()
    }

    def unknown(loader: Any, node: Any) -> Any:
        tag = node.tag.replace(_TAG, "!!")
        loader.labtree_notes.append(f"line {node.start_mark.line + 1}: tag {tag} not followed")
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return f"<{tag} {node.value}>" if node.value else f"<{tag}>"

    def plain_tuple(loader: Any, node: Any) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return unknown(loader, node)
        return tuple(loader.construct_sequence(node, deep=True))

    Loader.yaml_constructors = {
        tag: make
        for tag, make in base.yaml_constructors.items()
        if tag is not None
        and tag.rpartition(":")[2] not in ("timestamp", "binary", "set", "omap", "pairs")
    }
    Loader.add_constructor(f"{_TAG}python/tuple", plain_tuple)
    Loader.add_constructor(None, unknown)
    _LOADER = Loader
    return Loader


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose root is an object.

    Raises
    ------
    FormatError
        Not JSON, or not an object.
    """
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON that can be read ({error})") from None
    return _mapping(path, content)


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
        The UPPERCASE names whose value is not a literal.

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
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        names = [t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper()]
        if not names:
            continue
        try:
            literal = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            notes.append(
                f"{path}: line {node.lineno}: {', '.join(names)} is no literal, and is left out"
            )
        else:
            values.update(dict.fromkeys(names, literal))
    return values, notes


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not text in UTF-8 ({error})") from None


def _mapping(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise FormatError(f"{path}: expected a mapping of names to values, found {found}")
    _measure(path, content)
    return content


def _measure(path: Path, content: Any) -> None:
    """Refuse what is nested too deeply, or unfolds to too much (an alias bomb)."""
    count = 0
    pile: list[tuple[Any, int]] = [(content, 0)]
    while pile:
        value, depth = pile.pop()
        count += 1
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise FormatError(
                f"{path}: unfolds to more than {_MAX_NODES} values or {_MAX_DEPTH} levels; "
                "not a settings file"
            )
        if isinstance(value, dict):
            pile += [(key, depth + 1) for key in value if isinstance(key, tuple)]
            pile += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            pile += [(item, depth + 1) for item in value]
