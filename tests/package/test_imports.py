"""What importing loads, and who may import whom."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyrate_limiter
from tests.support.imports import of_the_library

ROOT = Path(pyrate_limiter.__file__).parent
HEAVY = ("asyncio", "sqlite3", "multiprocessing", "dataclasses", "logging", "inspect")

# Layer by layer, lowest first: a layer imports itself and what is below. Listed are the parts that
# each one may import at run time.
LEAVES = {"errors", "_version"}
CORE = LEAVES | {"_core"}
MAY_IMPORT = {
    "_core": CORE,
    "clocks": CORE,
    "utils": LEAVES | {"_core"},
    "algorithms": LEAVES | {"_core"},
    "http": LEAVES,
    "abstracts": CORE | {"utils", "algorithms"},
    "buckets": CORE | {"utils", "algorithms", "abstracts"},
    "_engine": CORE | {"utils", "algorithms", "abstracts", "buckets"},
    "keyed": CORE | {"utils", "abstracts", "buckets"},
}
MAY_IMPORT_LIMITER = {
    "limiter_factory",
    "extras",
    "compat",
    "keyed",
    "__main__",
    "_demo",
    "testing",
}


OLD_MODULES = {
    "bucket",
    "constants",
    "exceptions",
    "limit_context_decorator",
    "request_rate",
    "sqlite_bucket",
}


@pytest.mark.parametrize(
    "statement", ["import pyrate_limiter", "from pyrate_limiter import Limiter, Rate"]
)
def test_importing_loads_nothing_heavy(statement):
    program = f"{statement}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT.parent)!r})\n{program}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "statement",
    [
        "import pyrate_limiter",
        "import pyrate_limiter as p; p.Limiter(p.Rate(5, p.Duration.SECOND * 2)).try_acquire()",
        "from pyrate_limiter import limiter_factory as f; f.create_inmemory_limiter().close()",
    ],
)
def test_a_program_for_this_release_loads_nothing_of_compat(statement):
    listing = "[m for m in sys.modules if m.startswith('pyrate_limiter.compat')]"
    program = f"{statement}\nimport sys\nprint({listing})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sorted(pyrate_limiter.__all__))
def test_every_public_name_is_found_and_listed(name):
    assert getattr(pyrate_limiter, name) is not None
    assert name in dir(pyrate_limiter)


@pytest.mark.parametrize("module", [pyrate_limiter, pyrate_limiter.buckets])
def test_an_unknown_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - reading it is what is tested


@functools.cache
def imports():
    """All imports of the library within itself that run: path, part, and part imported."""
    return [
        (path, path.relative_to(ROOT).parts[0].removesuffix(".py"), name.partition(".")[0])
        for path in ROOT.rglob("*.py")
        for node in at_run_time(ast.parse(path.read_text(encoding="utf-8")))
        for name in filter(None, of_the_library(node))
    ]


def at_run_time(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from at_run_time(child)


def test_imports_go_one_way():
    wrong = [
        (str(path.relative_to(ROOT)), target)
        for path, part, target in imports()
        if part in MAY_IMPORT and target not in MAY_IMPORT[part] | {part, "_older"}
    ]
    assert wrong == []


def test_only_one_module_knows_of_compat_beside_the_places_that_modules_had_in_2x_and_3x():
    importers = {part for _, part, target in imports() if target == "compat"}
    assert importers == {"compat", "_older"} | OLD_MODULES


def test_compat_imports_nothing_that_is_private():
    private = [
        (str(path.relative_to(ROOT)), name)
        for path in sorted((ROOT / "compat").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("pyrate_limiter")
        for name in (node.module, *(alias.name for alias in node.names))
        if any(piece.startswith("_") for piece in name.split("."))
    ]
    assert private == []


def test_only_what_stands_above_imports_the_limiter():
    importers = {part for _, part, target in imports() if target == "limiter"}
    assert importers <= MAY_IMPORT_LIMITER | {"limiter"}


def test_errors_import_nothing_else_of_the_library():
    assert {target for _, part, target in imports() if part in LEAVES} == {"_core"}
    assert [target for path, _, target in imports() if path.name == "value_errors.py"] == []


MODULES = [
    ".".join(("pyrate_limiter", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("*.py"))
    if path.name not in {"__init__.py", "__main__.py"}
    and not {"testing", "_pyinstaller"} & {*path.parts}
]
IMPORTS_EACH = """
import importlib, json, sys, traceback
errors = {}
for module in json.load(sys.stdin):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyrate_limiter"]:
        del sys.modules[name]
    try:
        importlib.import_module(module)
    except BaseException:
        errors[module] = traceback.format_exc()
json.dump(errors, sys.stdout)
"""


@pytest.fixture(scope="module")
def errors():
    """By module, the error of importing it where no other of the library has been imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_EACH],
        input=json.dumps(MODULES),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", MODULES)
def test_each_module_can_be_the_first_to_be_imported(errors, module):
    assert errors.get(module) is None
