"""The helpers of 3.x."""

from __future__ import annotations

import secrets
import string
import tempfile
from bisect import bisect_left
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyrate_limiter import Rate, RateItem, validate_rate_list

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

__all__ = [
    "Rate",
    "RateItem",
    "binary_search",
    "dedicated_sqlite_clock_connection",
    "id_generator",
    "validate_rate_list",
]


_CHARS = string.ascii_uppercase + string.digits + string.ascii_lowercase


def binary_search(items: Sequence[RateItem], value: int) -> int:
    """The index of the first item whose timestamp is ``value`` or more.

    0 if there are no items, -1 if there is no such item.
    """
    index = bisect_left(items, value, key=lambda item: item.timestamp)
    return -1 if items and index == len(items) else index


@contextmanager
def dedicated_sqlite_clock_connection() -> Iterator[sqlite3.Connection]:
    """A connection to a file of its own in the temporary folder, for asking SQLite for the time."""
    import sqlite3

    path = Path(tempfile.gettempdir()) / "pyrate_limiter_clock_only.sqlite"
    with closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as conn:
        yield conn


def id_generator(size: int = 6, chars: Sequence[str] = _CHARS) -> str:
    """A random identifier of ``size`` of these characters."""
    return "".join(secrets.choice(chars) for _ in range(size))
