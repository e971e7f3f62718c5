"""The servers that some rows need: started for the run, unless the environment names another."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.registry import Row

_EXTRAS = {"sqlite": "filelock", "postgres": "postgres", "redis": "redis"}

POSTGRES_DSN = "PYRATE_TEST_POSTGRES_DSN"


def extras(rows: Iterable[Row]) -> str:
    """The extras of both libraries that the rows need."""
    kinds = {row.name.partition("-")[0] for row in rows}
    return ",".join(extra for kind, extra in _EXTRAS.items() if kind in kinds)


@contextmanager
def running(rows: Iterable[Row]) -> Iterator[None]:
    """Have the servers that the rows need."""
    if not _needs_postgres(rows) or os.environ.get(POSTGRES_DSN):
        yield
        return
    from tests.postgres_server import PostgresServer

    server = PostgresServer(fsync="on")
    os.environ[POSTGRES_DSN] = server.dsn
    try:
        yield
    finally:
        del os.environ[POSTGRES_DSN]
        server.close()


def _needs_postgres(rows: Iterable[Row]) -> bool:
    return any(row.name.startswith("postgres") for row in rows)
