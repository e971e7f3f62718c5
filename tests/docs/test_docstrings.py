"""`help()` answers for everything public: in words of its own, or in those of what it overrides."""

import importlib
import inspect
import pkgutil

import pytest

import pyrate_limiter

MODULES = [
    module.name
    for module in pkgutil.walk_packages(pyrate_limiter.__path__, "pyrate_limiter.")
    if not module.name.endswith("__main__") and "._pyinstaller" not in module.name
]


def public_methods(cls):
    """What the class itself defines; a test of a suite has its name for a promise."""
    for name, value in vars(cls).items():
        if name.startswith(("_", "test_")):
            continue
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        defined = f"{cls.__qualname__}.{name}"
        if inspect.isfunction(function) and function.__qualname__ == defined:
            yield name, value


@pytest.mark.parametrize("name", MODULES)
def test_each_public_class_function_and_method_says_what_it_does(name):
    module = importlib.import_module(name)
    own = [
        thing
        for title, thing in vars(module).items()
        if not title.startswith("_") and getattr(thing, "__module__", None) == name
    ]
    silent = [thing.__qualname__ for thing in own if inspect.isroutine(thing) and not thing.__doc__]
    for cls in filter(inspect.isclass, own):
        silent += [cls.__qualname__] * (not cls.__doc__)
        silent += [
            f"{cls.__qualname__}.{method}"
            for method, value in public_methods(cls)
            if not (inspect.getdoc(value) or inspect.getdoc(getattr(cls, method, None)))
        ]
    assert silent == []
