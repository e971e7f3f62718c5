"""What can go wrong with a database file. Apart from `errors`, which imports no sqlite3.

What SQLite itself reports (read-only, full, corrupt) passes through as it is.
"""

from __future__ import annotations

import sqlite3

from pyrate_limiter.errors import PyrateError


class DatabaseLocked(PyrateError, sqlite3.OperationalError):
    """Another connection kept the database for longer than the caller was willing to wait.

    Attributes:
        path: the file.
        seconds: how long it was waited for.
    """

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(
            f"database is locked: waited {seconds:.1f} s for {path}; look for a program that keeps "
            "a transaction open on it, or raise the bucket's busy_seconds"
        )
        self.path: str = path
        self.seconds: float = seconds


class DatabaseVanished(PyrateError, sqlite3.OperationalError):
    """The file is gone: what was admitted is unknown.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the database file {path} is gone; put it back, or call flush() to begin with an "
            "empty one"
        )
        self.path = path


class UnusableConnection(PyrateError, sqlite3.ProgrammingError):
    """The connection that was handed in cannot be used there."""
