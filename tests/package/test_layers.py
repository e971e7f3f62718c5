"""No backend knows another, no module imports itself by a detour, no file is long."""

import ast
from pathlib import Path

import pytest

import pyrate_limiter
from tests.support.imports import of_the_library

ROOT = Path(pyrate_limiter.__file__).parent
BACKENDS = {"memory", "sqlite", "multiprocess", "redis", "postgres"}
SHARED = {"log", "state", "remote"}
BELOW = {"_core", "abstracts", "algorithms", "errors", "utils", "clocks", "_older"}
MAY_IMPORT_BESIDE = {
    "log": set(),
    "state": set(),
    "remote": {"log", "state"},
    **dict.fromkeys(BACKENDS, SHARED),
}
MOST_LINES = 350


def modules():
    """Each module of the library by its name without the package's; a package by its own."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imported(path, *, in_functions):
    """The modules that one imports, those for types alone included."""
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if in_functions or not is_function:
            nodes += ast.iter_child_nodes(node)
        for name in of_the_library(node):
            yield name if name in MODULES else name.rpartition(".")[0]


def circles(graph):
    """Its strongly connected components of more than one module (Tarjan's algorithm)."""
    numbers, lowest, stack, found = {}, {}, [], []

    def visit(module):
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in graph[module]:
            if other not in numbers:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == numbers[module]:
            place = stack.index(module)
            found.append({*stack[place:]})
            del stack[place:]

    for module in graph:
        if module not in numbers:
            visit(module)
    return [circle for circle in found if len(circle) > 1]


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": "b", "b": "c", "c": ""}, []),
        ({"a": "b", "b": "ca", "c": ""}, [{"a", "b"}]),
        ({"a": "b", "b": "c", "c": "d", "d": "b", "e": "f", "f": "ea"}, [{*"bcd"}, {*"ef"}]),
    ],
)
def test_a_circle_would_be_found(graph, expected):
    assert circles(graph) == expected


def test_no_module_imports_itself_by_a_detour():
    graph = {
        name: {*imported(path, in_functions=False)} - {name, ""} for name, path in MODULES.items()
    }
    graph[""] = set()  # the face of the package finds its names on first use
    assert circles(graph) == []


def test_no_backend_imports_another():
    wrong = []
    for name, path in MODULES.items():
        room, *_ = [*name.split(".")[1:], ""]
        if not name.startswith("buckets.") or room not in BACKENDS | SHARED:
            continue
        for other in imported(path, in_functions=True):
            top, *beside = other.split(".")
            if top == "buckets":
                target = beside[0] if beside else "the face of buckets"
                allowed = MAY_IMPORT_BESIDE[room] | {room}
                if target not in allowed:
                    wrong.append((name, other))
            elif top not in BELOW:
                wrong.append((name, other))
    assert wrong == []


def test_no_file_is_long():
    sources = [path for kind in ("py", "lua", "sql") for path in ROOT.rglob(f"*.{kind}")]
    long = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert long == set()
