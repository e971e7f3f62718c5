"""The API page lists every public name, and no other."""

import re
from pathlib import Path

import pytest

import pyrate_limiter
from pyrate_limiter import limiter_factory, testing
from pyrate_limiter.buckets import sqlite_errors
from pyrate_limiter.errors import PyrateError

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
DIRECTIVE = re.compile(r"(?m)^\.\. (currentmodule|autoclass|autofunction|automodule):: ([\w.]+)")


def documented():
    """The names on the page by the module that they are imported from."""
    names, module = {}, ""
    for kind, name in DIRECTIVE.findall(PAGE):
        if kind == "currentmodule":
            module = name
        elif kind != "automodule":
            names.setdefault(module, []).append(name)
    return names


def own_functions(module):
    return {
        name
        for name in module.__all__
        if callable(getattr(module, name)) and getattr(module, name).__module__ == module.__name__
    }


EXPECTED = {
    # Of the package itself, all but what has a group of its own.
    "pyrate_limiter": {*pyrate_limiter.__all__}
    - {"__version__", "limiter_factory", "PyrateError", "RateLimitExceeded"},
    "pyrate_limiter.limiter_factory": own_functions(limiter_factory),
    "pyrate_limiter.testing": {*testing.__all__},
}


@pytest.mark.parametrize("module", EXPECTED)
def test_the_page_lists_the_names_of_the_module(module):
    listed = documented()[module]
    assert sorted(listed) == sorted(EXPECTED[module])


def test_the_page_lists_no_other_module():
    assert documented().keys() == EXPECTED.keys()


def test_every_error_is_on_the_page_with_its_module():
    modules = {name for kind, name in DIRECTIVE.findall(PAGE) if kind == "automodule"}

    def family(base):
        return {base}.union(*map(family, base.__subclasses__()))

    assert sqlite_errors.DatabaseLocked in family(PyrateError)
    ours = {error.__module__ for error in family(PyrateError)}
    assert {name for name in ours if name.startswith("pyrate_limiter.")} <= modules
