"""Small helpers that programs import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._core.rate_list import (
    RateList,
    enforce_rate_list,
    sorted_rates,
    validate_rate_list,
)
from pyrate_limiter._core.rates import Rate
from pyrate_limiter._older import places

if TYPE_CHECKING:
    import sqlite3
else:  # a checker would take every name for known
    __getattr__ = resolver(__name__, places(__name__))

__all__ = [
    "Rate",
    "RateList",
    "dedicated_sqlite_clock_connection",
    "enforce_rate_list",
    "id_generator",
    "sorted_rates",
    "validate_rate_list",
]


def id_generator(size: int = 10) -> str:
    """A random identifier of ``size`` hexadecimal digits."""
    import secrets

    return secrets.token_hex((size + 1) // 2)[:size]


def dedicated_sqlite_clock_connection() -> sqlite3.Connection:
    """A connection to an empty database in memory, for asking SQLite for the time."""
    import sqlite3

    return sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
