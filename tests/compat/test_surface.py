"""Every public name of 4.5.1 is still there, under the same path and with the same signature."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

SURFACE = json.loads(Path(__file__).with_name("surface-4.5.1.json").read_text(encoding="utf-8"))

# What does not exist yet. Whoever adds a backend takes its lines out, and nothing else changes.
NAMES_TO_COME: set[str] = set()
NO_LONGER_REQUIRED = {"script_hash"}  # RedisBucket knows the script; a caller may still name it

MODULES = list(SURFACE)
NAMES = [
    pytest.param(module, name, id=f"{module}:{name}")
    for module in MODULES
    for name in SURFACE[module]
    if name not in NAMES_TO_COME
]
CLASSES = [
    (module, name)
    for module, name in (param.values for param in NAMES)
    if "members" in SURFACE[module][name]
]
MEMBERS = [
    pytest.param(module, name, member, id=f"{module}:{name}.{member}")
    for module, name in CLASSES
    for member in SURFACE[module][name]["members"]
]
FUNCTIONS = [
    pytest.param(*param.values, id=param.id)
    for param in NAMES
    if "params" in SURFACE[param.values[0]][param.values[1]]
]


def found(module, name):
    return getattr(importlib.import_module(module), name)


def default_matches(default, expected):
    if default is inspect.Parameter.empty:
        return False
    return expected in {repr(default), str(default), f"{type(default).__name__}()"}


def assert_same_call(function, expected):
    """Every old parameter in its old place; what is new comes after, and may be left out."""
    parameters = list(inspect.signature(function).parameters.values())
    ours = {parameter.name: parameter for parameter in parameters}
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    old_places = [old["name"] for old in expected if old["kind"] == "POSITIONAL_OR_KEYWORD"]
    our_places = [parameter.name for parameter in parameters if parameter.kind in positional]
    assert our_places[: len(old_places)] == old_places
    for old in expected:
        parameter = ours.pop(old["name"])
        assert parameter.kind.name == old["kind"]
        if "default" in old:
            assert default_matches(parameter.default, old["default"])
        else:
            was_required = old["name"] not in NO_LONGER_REQUIRED
            assert was_required is (parameter.default is inspect.Parameter.empty)
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    for new in ours.values():
        assert new.kind in variadic or new.default is not inspect.Parameter.empty


@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_imported(module):
    assert importlib.import_module(module).__name__ == module


@pytest.mark.parametrize("module", MODULES)
def test_module_is_an_attribute_of_its_package_without_an_import_of_its_own(module):
    program = f"import pyrate_limiter; assert {module}.__name__ == {module!r}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


@pytest.mark.parametrize("module", ["pyrate_limiter", "pyrate_limiter.buckets"])
def test_dir_of_a_lazy_package_lists_what_4_5_1_had(module):
    old = {name for name in SURFACE[module] if name not in NAMES_TO_COME}
    assert old <= set(dir(importlib.import_module(module)))


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_name_is_of_its_kind(module, name):
    expected = SURFACE[module][name]
    value = found(module, name)
    if expected["kind"] == "class":
        assert inspect.isclass(value)
    elif expected["kind"] == "function":
        assert inspect.isfunction(value)
    elif expected["kind"] == "module":
        assert inspect.ismodule(value)
    elif expected["kind"] != "_GenericAlias":
        assert type(value).__name__ == expected["kind"]
    if "defined_in" in expected:
        assert value is found(expected["defined_in"], name)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_function_has_its_signature(module, name):
    assert_same_call(found(module, name), SURFACE[module][name]["params"])


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_class_has_its_bases(module, name):
    lineage = {base.__name__ for base in found(module, name).__mro__}
    assert set(SURFACE[module][name]["bases"]) <= lineage


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_class_asks_its_subclasses_for_the_same_methods(module, name):
    abstract = getattr(found(module, name), "__abstractmethods__", frozenset())
    assert sorted(abstract) == sorted(SURFACE[module][name]["abstract"])


@pytest.mark.parametrize(("module", "name", "member"), MEMBERS)
def test_member_has_its_kind_and_signature(module, name, member):
    expected = SURFACE[module][name]["members"][member]
    kind = expected["kind"]
    cls = found(module, name)
    value = inspect.getattr_static(cls, member)
    if kind == "attribute":
        read = getattr(cls, member)
        # A slot is a descriptor on the class: its value is there once there is an object.
        if "value" in expected and not inspect.ismemberdescriptor(read):
            assert repr(read) == expected["value"]
    elif kind == "property":
        assert isinstance(value, property) or inspect.ismemberdescriptor(value)
    else:
        assert isinstance(value, staticmethod) == (kind == "staticmethod")
        assert isinstance(value, classmethod) == (kind == "classmethod")
        function = value.__func__ if kind in {"staticmethod", "classmethod"} else value
        if kind == "async method":
            assert inspect.iscoroutinefunction(function)
        assert_same_call(function, expected["params"])
