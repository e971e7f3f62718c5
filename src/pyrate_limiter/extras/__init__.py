"""Helpers for HTTP clients and web frameworks, one library per module. Nothing else imports them.

A module that needs a library says which extra brings it where that is missing.
"""

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver

_PLACES = {
    module: f"{__name__}.{module}"
    for module in (
        "aiohttp_limiter",
        "asgi",
        "fastapi",
        "httpx2_limiter",
        "httpx_limiter",
        "requests_limiter",
        "wsgi",
    )
}

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, _PLACES)
