"""Limits for any ASGI application: Starlette, FastAPI, Quart, Django. No package is needed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from pyrate_limiter._core.driver import run_async
from pyrate_limiter.extras._address import by_address, by_header, by_path
from pyrate_limiter.extras._limit import Limit
from pyrate_limiter.extras._limits import Middleware
from pyrate_limiter.extras._request import WebRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pyrate_limiter.algorithms.decision import Decision
    from pyrate_limiter.extras._limits import Answer, Fields

    App = ASGIApp

__all__ = [
    "Limit",
    "RateLimitMiddleware",
    "WebRequest",
    "by_address",
    "by_header",
    "by_path",
]

_KEPT_BYTES = 65_536  # of a body that arrives while its request waits
POLICY_VIOLATION = 1008


class RateLimitMiddleware(Middleware["App"]):
    """Answers requests beyond the limits with 429, and tells all clients where they stand.

    It limits HTTP requests and the handshakes of websockets. A bucket that blocks is asked in a
    worker thread. A request whose client leaves while it waits gives back what it had reserved.

    Args:
        app: the application.
        limits: a `Limit`, a `Limiter` for a limit by address, or several of them.
        exempt: patterns of paths that are not limited: a path, or the beginning of paths followed
            by ``*``.
        plain: whether refusals are a plain text, not an ``application/problem+json``.
        legacy: whether answers have the older ``X-RateLimit`` fields as well.

    Raises:
        WrongType: an argument is nothing of the above.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        client = Client(receive)
        answer = await run_async(self._limits.ask(AsgiRequest(scope), client.acquire))
        if client.has_left:
            return
        receive = client.replayed
        if answer is None:
            await self.app(scope, receive, send)
        elif answer.status:
            await _refuse(scope, receive, send, answer)
        else:
            await self.app(scope, receive, stating(send, answer.fields))


class AsgiRequest(WebRequest):
    """A request by its ASGI scope."""

    __slots__ = ()

    @property
    def method(self) -> str:
        """See `WebRequest.method`; that of a websocket's handshake is GET."""
        method: str = self.raw.get("method", "GET")
        return method

    @property
    def path(self) -> str:
        path: str = self.raw["path"]
        return path

    @property
    def peer(self) -> str | None:
        client = self.raw.get("client")
        return client[0] if client else None

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode("latin-1")
        found = [value for key, value in self.raw["headers"] if key.lower() == wanted]
        return b", ".join(found).decode("latin-1") if found else None


class Client:
    """Who sends a request. What arrives while it waits is kept for the application."""

    __slots__ = ("_kept", "_receive", "has_left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self.has_left: bool = False

    @property
    def replayed(self) -> Receive:
        """What the application receives from, once no limit waits any more."""
        return self.receive if self._kept else self._receive

    async def receive(self) -> Message:
        """The next message, of those that were kept or from the client."""
        return self._kept.pop(0) if self._kept else await self._receive()

    async def acquire(self, limit: Limit, name: str, weight: int) -> Decision:
        """Ask a limiter; where there is a wait, look out for a client that leaves."""
        acquire = limit.limiter.acquire_async
        decision = await acquire(name, weight, blocking=False)
        wait, retry = limit.wait, decision.retry_after_ms
        if decision or not wait or retry is None or retry > wait * 1000:
            return decision
        waiting = asyncio.ensure_future(acquire(name, weight, timeout=wait))
        leaving = asyncio.ensure_future(self._until_it_leaves())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            self.has_left = not waiting.done()
        finally:
            for task in (waiting, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
        if not self.has_left:
            return waiting.result()
        leaving.result()  # what receiving raised
        return decision

    async def _until_it_leaves(self) -> None:
        kept = 0
        while kept <= _KEPT_BYTES:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] in {"http.disconnect", "websocket.disconnect"}:
                return
            kept += len(message.get("body") or b"")
        await asyncio.get_running_loop().create_future()  # a body that large is left to the app


def _encoded(fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(_field_name(name), value.encode()) for name, value in fields]


@lru_cache(maxsize=64)  # of the few that there are
def _field_name(name: str) -> bytes:
    return name.lower().encode()


def stating(send: Send, fields: Fields) -> Send:
    """``send`` that adds the fields to the headers of the application's answer."""

    async def send_with_fields(message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.accept"}:
            # The application may send the same message again for another client.
            message = {**message, "headers": [*message.get("headers", ()), *_encoded(fields)]}
        await send(message)

    return send_with_fields


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # the client's wish to connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        kind = "websocket.http.response"
    headers = _encoded(answer.headers)
    body = b"" if scope.get("method") == "HEAD" else answer.body
    await send({"type": f"{kind}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
