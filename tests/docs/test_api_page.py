"""The API page lists every public name, and no other."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import pyrate_limiter
from pyrate_limiter import limiter_factory, testing
from pyrate_limiter._older import places
from pyrate_limiter.buckets.sqlite import errors as sqlite_errors
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
            place, _, last = name.rpartition(".")
            names.setdefault(place or module, []).append(last)
    return names


def own_functions(module):
    return {
        name
        for name in module.__all__
        if callable(getattr(module, name)) and getattr(module, name).__module__ == module.__name__
    }


def own_names(package, *modules):
    """The classes and functions of a package, by the first of its modules that offers them."""
    seen, names = set(), {}
    for place in modules:
        module = import_module(f"{package}.{place}")
        offered = {name: getattr(module, name) for name in module.__all__}
        new = {
            name: thing
            for name, thing in offered.items()
            if (inspect.isclass(thing) or inspect.isfunction(thing))
            and thing.__module__.startswith(f"{package}.")
            and thing.__module__ not in AUTOMATIC
            and thing not in seen
        }
        seen.update(new.values())
        names[module.__name__] = {*new}
    return names


AUTOMATIC = {name for kind, name in DIRECTIVE.findall(PAGE) if kind == "automodule"}
CLIENTS = ("requests_limiter", "httpx_limiter", "aiohttp_limiter")
EXPECTED = {
    # Of the package itself, all but what has a group of its own.
    "pyrate_limiter": {*pyrate_limiter.__all__}
    - {"__version__", "limiter_factory", "PyrateError", "RateLimitExceeded"}
    - places("pyrate_limiter").keys(),
    **own_names("pyrate_limiter.extras", *CLIENTS, "asgi", "wsgi", "fastapi"),
    **own_names("pyrate_limiter.compat", "v3", "v2"),
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
    def family(base):
        return {base}.union(*map(family, base.__subclasses__()))

    assert sqlite_errors.DatabaseLocked in family(PyrateError)
    ours = {error.__module__ for error in family(PyrateError)}
    assert {name for name in ours if name.startswith("pyrate_limiter.")} <= AUTOMATIC
