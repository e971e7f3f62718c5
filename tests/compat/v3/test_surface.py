"""Every public name of 3.9.0 is there, in `compat.v3` and where it was."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from pyrate_limiter.compat import v3
from tests.compat.test_surface import assert_same_call

SURFACE = json.loads(Path(__file__).with_name("surface.json").read_text(encoding="utf-8"))
# Rewritten in this release, or gone into another: nothing that a program would call.
DETAILS = {"Queries", "PgQueries", "SQLiteQueries", "LuaScript", "Leaker"}

PLACES = [
    pytest.param(module, name, id=f"{module}:{name}")
    for module, names in SURFACE.items()
    for name in names
]
CLASSES = {
    name: entry
    for names in SURFACE.values()
    for name, entry in names.items()
    if "members" in entry and name not in DETAILS
}
MEMBERS = [
    pytest.param(name, member, id=f"{name}.{member}")
    for name, entry in CLASSES.items()
    for member in entry["members"]
    # The one is written out there, and is that of every object here; to the other the clock need
    # not be given.
    if (name, member) not in {("MonotonicClock", "__init__"), ("BucketFactory", "schedule_leak")}
]
FUNCTIONS = {
    (module, name): entry["params"]
    for module, names in SURFACE.items()
    for name, entry in names.items()
    if "params" in entry
}


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_name_is_where_it_was(module, name):
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", SURFACE["pyrate_limiter"])
def test_name_is_in_compat(name):
    assert name in v3.__all__
    assert hasattr(v3, name)


@pytest.mark.parametrize(("name", "member"), MEMBERS)
def test_member_has_its_kind_and_signature(name, member):
    expected = CLASSES[name]["members"][member]
    cls = getattr(v3, name)
    value = inspect.getattr_static(cls, member)
    if expected["kind"] in {"attribute", "property"}:
        return
    assert isinstance(value, classmethod) == (expected["kind"] == "classmethod")
    function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    assert inspect.iscoroutinefunction(function) == (expected["kind"] == "async method")
    assert_same_call(function, expected["params"])


@pytest.mark.parametrize("place", FUNCTIONS, ids=":".join)
def test_function_has_its_signature(place):
    module, name = place
    module = module.replace("pyrate_limiter", "pyrate_limiter.compat.v3", 1)
    found = importlib.import_module(module) if "buckets" not in module else v3
    assert_same_call(getattr(found, name), FUNCTIONS[place])
