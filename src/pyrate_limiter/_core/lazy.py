"""Public names that are imported on first use (PEP 562)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def resolver(module: str, places: Mapping[str, str]) -> Callable[[str], object]:
    """A module's ``__getattr__`` that finds each name in the module that ``places`` gives for it.

    The submodules that lead to those are attributes as well, without being imported first.
    """
    children = {place[len(module) + 1 :].partition(".")[0] for place in places.values()}
    places = {**{child: f"{module}.{child}" for child in children}, **places}

    def __getattr__(name: str) -> object:  # noqa: N807 - it becomes the module's own
        try:
            place = places[name]
        except KeyError:
            msg = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(msg) from None
        found = import_module(place)
        value = found if place.endswith("." + name) else getattr(found, name)
        setattr(sys.modules[module], name, value)
        return value

    return __getattr__
