"""The files beside the code: scripts for servers, read also where the package is in an archive."""

from __future__ import annotations

from functools import cache


@cache
def text_of(*place: str) -> str:
    """The text of a file of this package, given by the parts of its path within it."""
    from importlib.resources import files

    file = files("pyrate_limiter")
    for part in place:
        file = file / part
    return file.read_text(encoding="utf-8")
