"""Where the logs of many names are."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.sqlite.connections import check_table
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.bucket import BucketFactory
    from pyrate_limiter.abstracts.rate import Rate


class SQLiteKeys:
    """A table with a log for each name; see `SQLiteBucket.per_key`."""

    def __init__(self, source: str | os.PathLike[str] | sqlite3.Connection, table: str) -> None:
        if not isinstance(source, (str, os.PathLike, sqlite3.Connection)):
            raise WrongType("source", source, "a path or a sqlite3.Connection")
        check_table(table)
        self.source = source
        self.table = table

    def keyed(self, rates: Rate | Sequence[Rate]) -> BucketFactory:
        """What `Limiter.per_key` asks for."""
        from pyrate_limiter.buckets.sqlite.keyed import SQLiteKeyedFactory

        return SQLiteKeyedFactory(rates, self)
