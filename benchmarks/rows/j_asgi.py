"""Web applications: what a limit in front of one costs each request."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, median
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.library import Library

    App = Callable[[dict[str, Any], Callable[[], Any], Callable[[Any], Any]], Awaitable[None]]

ROOMY = 10**9
CHUNKS, EACH = 15, 1000


async def empty(scope: dict[str, Any], receive: object, send: Callable[[Any], Any]) -> None:
    """The smallest application."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(app: App) -> int:
    """One request; the status of its answer."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
        "client": ("203.0.113.1", 50_000),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def per_request(app: App) -> float:
    """Microseconds of processor time that a request takes."""
    found = []
    for _ in range(CHUNKS):
        start = time.process_time()
        for _ in range(EACH):
            await ask(app)
        found.append((time.process_time() - start) / EACH * 1e6)
    expect(await ask(app) == 200, "refused with room to spare")
    return median(found)


async def cost(limited: App, bare: App, full: App) -> float:
    """What the limit adds to a request."""
    statuses = [await ask(full) for _ in range(2)]
    expect(statuses == [200, 429], f"one request per hour was answered with {statuses}")
    return await per_request(limited) - await per_request(bare)


@row(
    "asgi-memory",
    "a limit in front of an ASGI app, in memory; beside it fastapi-limiter",
    "us",
    Target(at_most=25),
)
def memory(lib: Library) -> Answer:
    if hasattr(lib.api, "extras"):
        from pyrate_limiter.extras.asgi import RateLimitMiddleware

        def ours(limit: int) -> App:
            limiter = lib.per_key(lib.api.Rate(limit, HOUR_MS))
            return RateLimitMiddleware(empty, limiter)  # type: ignore[arg-type] # an ASGI app

        return Answer(asyncio.run(cost(ours(ROOMY), empty, ours(1))))
    value = asyncio.run(cost(fastapi_limiter(lib, ROOMY), fastapi(), fastapi_limiter(lib, 1)))
    slow = asyncio.run(cost(slowapi(ROOMY), fastapi(), slowapi(1)))
    return Answer(value, detail=f"fastapi-limiter {value:.1f} us, slowapi {slow:.1f} us")


def fastapi(*dependencies: Any) -> Any:
    """An application of FastAPI that answers without its help."""
    from fastapi import FastAPI, Response

    app = FastAPI()

    @app.get("/", dependencies=list(dependencies))
    async def index() -> Any:
        return Response()

    return app


def fastapi_limiter(lib: Library, limit: int) -> Any:
    """The same with the dependency of fastapi-limiter."""
    from fastapi import Depends
    from fastapi_limiter.depends import RateLimiter

    limiter = lib.api.Limiter(lib.api.Rate(limit, HOUR_MS))
    return fastapi(Depends(RateLimiter(limiter=limiter)))


def slowapi(limit: int) -> Any:
    """The same with the middleware of slowapi, which tells clients where they stand."""
    from slowapi import Limiter
    from slowapi.middleware import SlowAPIASGIMiddleware
    from slowapi.util import get_remote_address

    app = fastapi()
    app.state.limiter = Limiter(
        key_func=get_remote_address, default_limits=[f"{limit}/hour"], headers_enabled=True
    )
    app.add_middleware(SlowAPIASGIMiddleware)
    return app
