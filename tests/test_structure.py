"""Modules import in one direction, without circles, and raise labtree's own errors."""

import ast
from pathlib import Path

import pytest

import labtree

SOURCE = Path(labtree.__file__).parent
# What stands in one line may import what stands in the lines below it, and its own package.
LAYERS = """
    __main__
    cli
    demo
    opening
    accessors testing
    interop
    mea
    pipeline
    workspace
    spikes recording
    msw
    events clocks
    objects
    storage
    display
    optional hints
    errors _version _lazy
"""
LAYER_OF = {name: i for i, line in enumerate(LAYERS.split("\n")) for name in line.split()}
# xarray calls the first to open a file, as a user calls labtree.open; the second asks what a
# file is after a function has refused it.
ENTRY_POINTS = {
    ("labtree.interop.xarray_engine", "labtree.opening"),
    ("labtree.hints", "labtree.opening"),
}
UNFINISHED_IMPORTS: set[tuple[str, str]] = set()

BARE = {
    "BlockingIOError", "FileExistsError", "FileNotFoundError", "ImportError", "KeyError",
    "ModuleNotFoundError", "OSError", "RuntimeError",
}  # fmt: skip


def module_name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
}


def is_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(tree, *, everywhere):
    """Yield what a module imports of labtree, by default without what its functions do."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if is_for_types(node):
            continue
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("labtree")
        ):
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in TREES else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("labtree"))
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += list(ast.iter_child_nodes(node))


def room(name):
    return name.split(".")[1] if "." in name else ""


def test_no_modules_import_each_other():
    graph = {name: set(imported(tree, everywhere=False)) for name, tree in TREES.items()}
    done = set()

    def visit(name, above):
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for below in sorted(graph.get(name, ())):
                if below != name:
                    visit(below, [*above, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("name", TREES)
def test_imports_point_down(name):
    if room(name) == "":
        return
    for other in imported(TREES[name], everywhere=True):
        if room(other) not in ("", room(name)):
            if (name, other) in ENTRY_POINTS:
                continue
            assert LAYER_OF[room(name)] < LAYER_OF[room(other)], f"{name} imports {other}"


@pytest.mark.parametrize("name", TREES)
def test_errors_are_labtrees_own(name):
    found = [
        f"line {node.lineno}: {ast.unparse(node.exc)[:80]}"
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in BARE
    ]
    assert found == []


def test_a_circle_and_an_upward_import_would_be_found():
    tree = ast.parse("def f():\n    from labtree.opening import open\nimport labtree.cli")
    assert set(imported(tree, everywhere=False)) == {"labtree.cli"}
    assert set(imported(tree, everywhere=True)) == {"labtree.cli", "labtree.opening"}
    assert LAYER_OF["opening"] < LAYER_OF["accessors"] < LAYER_OF["storage"]
