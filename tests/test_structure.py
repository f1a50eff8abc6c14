"""Modules import in one direction, without circles, and raise labtree's own errors."""

import ast
import inspect
import re
from collections import Counter
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
    event_times clocks
    objects
    formats
    storage
    display
    optional
    errors _version _lazy
"""
LAYER_OF = {name: i for i, line in enumerate(LAYERS.split("\n")) for name in line.split()}
# xarray calls it to open a file, as a user calls labtree.open.
ENTRY_POINTS = {("labtree.interop.xarray_engine", "labtree.opening")}

NOT_PRIVATE = {"_lazy", "_version", "_xarray", "__version__"}
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


def circle(graph):
    """Return modules that import each other, each the next; [] where there are none."""
    done = set()

    def visit(name, above):
        if name in above:
            return [*above[above.index(name) :], name]
        found = []
        if name not in done:
            for below in sorted(set(graph.get(name, ())) - {name}):
                found = found or visit(below, [*above, name])
            done.add(name)
        return found

    return next(filter(None, (visit(name, []) for name in graph)), [])


def test_no_modules_import_each_other():
    graph = {name: set(imported(tree, everywhere=False)) for name, tree in TREES.items()}
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("name", TREES)
def test_imports_point_down(name):
    if room(name) == "":
        return
    for other in imported(TREES[name], everywhere=True):
        if room(other) not in ("", room(name)):
            if (name, other) in ENTRY_POINTS:
                continue
            assert LAYER_OF[room(name)] < LAYER_OF[room(other)], f"{name} imports {other}"


def shared_names(modules):
    """Return the last names that modules of several packages have."""
    packages = {}
    for name in modules:
        # An accessor, and synthetic data, are called like what they are for.
        if name.count(".") > 1 and room(name) not in ("accessors", "testing"):
            packages.setdefault(name.rpartition(".")[2], set()).add(room(name))
    return sorted(name for name, found in packages.items() if len(found) > 1)


def test_modules_of_different_packages_have_different_names():
    assert shared_names(set(TREES) - {f"labtree.{room(name)}" for name in TREES}) == []
    assert shared_names(["labtree.msw.plots", "labtree.mea.plots", "labtree.mea.sta"]) == [
        "plots"
    ]


def bare_errors(tree):
    """Return where a module raises a builtin that has a class of labtree's own."""
    return [
        f"line {node.lineno}: {ast.unparse(node.exc)[:80]}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in BARE
    ]


def own_warnings(tree):
    """Return where a module warns without `labtree.errors.warn`, that finds the line."""
    return [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
    ]


def private_imports(tree):
    """Return the private names that a module imports of another one of labtree."""
    return [
        f"line {node.lineno}: {alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labtree")
        for alias in node.names
        if alias.name[0] == "_" and alias.name not in NOT_PRIVATE
    ]


def public_errors(tree):
    """Return the names of the classes of errors and warnings that a module defines."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and node.name[0] != "_"
        and node.name.endswith(("Error", "Warning"))
    ]


def defined(tree):
    """Return the names that a module defines and no decorator takes."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.decorator_list:
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [each.id for each in node.targets if isinstance(each, ast.Name)]
    return [name for name in found if not name.startswith("__")]


def unused(trees, texts):
    """Return the names that are defined and stand nowhere else."""
    words = Counter(word for text in texts for word in re.findall(r"\w+", text))
    return [
        f"{module}.{name}"
        for module, tree in trees.items()
        for name in defined(tree)
        if words[name] == 1
    ]


def test_every_name_is_used_or_public():
    stubs = SOURCE.rglob("*.pyi")
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCE.rglob("*.py"), *stubs)]
    texts.append("LabtreeBackendEntrypoint")  # of an entry point in pyproject.toml
    assert unused(TREES, texts) == []
    code = "VALUE = 1\ndef f(): return VALUE\nclass Left: ..."
    assert unused({"a": ast.parse(code)}, [code, "f()"]) == ["a.Left"]


@pytest.mark.parametrize("name", TREES)
def test_errors_and_warnings_are_labtrees_own(name):
    assert bare_errors(TREES[name]) == []
    assert name == "labtree.errors" or own_warnings(TREES[name]) == []


@pytest.mark.parametrize("name", TREES)
def test_private_names_stay_in_their_module(name):
    assert private_imports(TREES[name]) == []


def test_each_error_has_one_class():
    found = [error for tree in TREES.values() for error in public_errors(tree)]
    assert sorted(set(found)) == sorted(found)
    assert set(public_errors(TREES["labtree.errors"])) == {
        name
        for name in labtree.errors.__all__
        if inspect.isclass(getattr(labtree.errors, name))
    }


def test_what_these_tests_look_for_would_be_found():
    code = ast.parse(
        "import warnings\n"
        "from labtree.errors import _hidden\n"
        "class NewError(ValueError): ...\n"
        "def f():\n"
        "    warnings.warn('x')\n"
        "    raise ImportError('scipy')\n"
    )
    assert bare_errors(code) == ["line 6: ImportError('scipy')"]
    assert own_warnings(code) == ["line 5"]
    assert private_imports(code) == ["line 2: _hidden"]
    assert public_errors(code) == ["NewError"]


def test_a_circle_and_an_upward_import_would_be_found():
    tree = ast.parse("def f():\n    from labtree.opening import open\nimport labtree.cli")
    assert set(imported(tree, everywhere=False)) == {"labtree.cli"}
    assert set(imported(tree, everywhere=True)) == {"labtree.cli", "labtree.opening"}
    assert LAYER_OF["opening"] < LAYER_OF["accessors"] < LAYER_OF["storage"]
