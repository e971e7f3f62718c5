"""The servers that some rows need: started for the run, unless the environment names another."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.registry import Row

_EXTRAS = {"sqlite": "filelock", "postgres": "postgres", "redis": "redis"}

_BESIDE = {"asgi": ("fastapi-limiter>=0.2", "slowapi>=0.1.9")}

POSTGRES_DSN = "PYRATE_TEST_POSTGRES_DSN"
REDIS_URL = "PYRATE_TEST_REDIS_URL"


def extras(rows: Iterable[Row]) -> str:
    """The extras of both libraries that the rows need."""
    kinds = {row.name.partition("-")[0] for row in rows}
    return ",".join(extra for kind, extra in _EXTRAS.items() if kind in kinds)


def beside(rows: Iterable[Row]) -> list[str]:
    """The packages that the rows measure beside the published library."""
    kinds = {row.name.partition("-")[0] for row in rows}
    return [package for kind in sorted(kinds) for package in _BESIDE.get(kind, ())]


@contextmanager
def running(rows: Iterable[Row]) -> Iterator[None]:
    """Have the servers that the rows need."""
    kinds = {row.name.partition("-")[0] for row in rows}
    with ExitStack() as servers:
        for kind, (variable, start) in _SERVERS.items():
            if kind in kinds and not os.environ.get(variable):
                servers.enter_context(start())
        yield


@contextmanager
def _postgres() -> Iterator[None]:
    from tests.support.postgres_server import PostgresServer

    server = PostgresServer(fsync="on")
    os.environ[POSTGRES_DSN] = server.dsn
    try:
        yield
    finally:
        del os.environ[POSTGRES_DSN]
        server.close()


@contextmanager
def _redis() -> Iterator[None]:
    from tests.support.redis_servers import RedisServer

    server = RedisServer()
    os.environ[REDIS_URL] = f"redis://127.0.0.1:{server.port}"
    try:
        yield
    finally:
        del os.environ[REDIS_URL]
        server.close()


_SERVERS = {"postgres": (POSTGRES_DSN, _postgres), "redis": (REDIS_URL, _redis)}
