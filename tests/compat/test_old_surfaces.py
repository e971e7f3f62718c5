"""Every public name of 2.10.0 and of 3.9.0 is there, in `compat` and where it was."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from pyrate_limiter.compat import v2, v3
from tests.compat.test_surface import assert_same_call

SURFACES = {
    release: json.loads((Path(__file__).parent / release / "surface.json").read_text("utf-8"))
    for release in ("v2", "v3")
}
# Rewritten since 3.9.0: nothing that a program would call.
DETAILS = {"Queries", "PgQueries", "SQLiteQueries", "LuaScript", "Leaker"}
DIFFERENT = {
    ("v2", "BucketFullException", "__init__"): "one class with 3.x, which says `item`",
    ("v3", "MonotonicClock", "__init__"): "here it is that of every object",
    ("v3", "BucketFactory", "schedule_leak"): "the clock need not be given",
}

PLACES = [
    pytest.param(release, module, name, id=f"{release}:{module}:{name}")
    for release, surface in SURFACES.items()
    for module, names in surface.items()
    for name in names
]
MEMBERS = [
    pytest.param(release, name, member, expected, id=f"{release}:{name}.{member}")
    for release, surface in SURFACES.items()
    for names in surface.values()
    for name, entry in names.items()
    for member, expected in entry.get("members", {}).items()
    if "params" in expected and name not in DETAILS and (release, name, member) not in DIFFERENT
]
FUNCTIONS = [
    pytest.param(release, module, name, entry["params"], id=f"{release}:{module}:{name}")
    for release, surface in SURFACES.items()
    for module, names in surface.items()
    for name, entry in names.items()
    if "params" in entry
]
API = {"v2": v2, "v3": v3}
# Defaults that are written otherwise here: by their place, or on this machine.
HERE = {
    "MemoryQueueBucket": {"default": repr(v2.MemoryQueueBucket)},
    "PosixPath('/tmp/pyrate_limiter.sqlite')": {"default": repr(v2.DEFAULT_DB_PATH)},
}


@pytest.mark.parametrize(("release", "module", "name"), PLACES)
def test_name_is_where_it_was(release, module, name):
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("release", "name"),
    [
        (release, name)
        for release, surface in SURFACES.items()
        for name in surface["pyrate_limiter"]
    ],
)
def test_name_is_in_compat(release, name):
    assert name in API[release].__all__
    assert hasattr(API[release], name)


@pytest.mark.parametrize(("release", "name", "member", "expected"), MEMBERS)
def test_member_has_its_kind_and_signature(release, name, member, expected):
    cls = getattr(API[release], name)
    value = inspect.getattr_static(cls, member)
    assert isinstance(value, classmethod) == (expected["kind"] == "classmethod")
    function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    assert inspect.iscoroutinefunction(function) == (expected["kind"] == "async method")
    parameters = [{**one, **HERE.get(one.get("default"), {})} for one in expected["params"]]
    assert_same_call(function, parameters)


@pytest.mark.parametrize(("release", "module", "name", "expected"), FUNCTIONS)
def test_function_has_its_signature(release, module, name, expected):
    module = module.replace("pyrate_limiter", f"pyrate_limiter.compat.{release}", 1)
    assert_same_call(getattr(importlib.import_module(module), name), expected)
