"""Limits as dependencies of FastAPI, which show up in its OpenAPI document."""

# FastAPI reads the annotations of a dependency at run time: none comes from the future.
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.driver import run_async
from pyrate_limiter.errors import MissingDriver
from pyrate_limiter.extras._address import by_address, by_header, by_path
from pyrate_limiter.extras._limit import Limit
from pyrate_limiter.extras._limits import Answer, Limits
from pyrate_limiter.extras._request import WebRequest
from pyrate_limiter.extras.asgi import POLICY_VIOLATION, AsgiRequest, Client, stating
from pyrate_limiter.http.fields import RATE_LIMIT, RATE_LIMIT_POLICY, RETRY_AFTER
from pyrate_limiter.limiter import Limiter

try:
    from fastapi import FastAPI, HTTPException, Response, WebSocketException, routing
    from fastapi.requests import HTTPConnection
except ModuleNotFoundError as _error:
    raise MissingDriver("fastapi", "fastapi") from _error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from pyrate_limiter.extras._limits import Fields

__all__ = [
    "Limit",
    "RateLimit",
    "RateLimitRefused",
    "WebRequest",
    "by_address",
    "by_header",
    "by_path",
    "install",
]

Json = dict[str, Any]  # what the OpenAPI document is made of
_STATE = "pyrate_limiter"  # where the scope of a connection has what `install` put there


class RateLimitRefused(HTTPException):
    """A request beyond a limit. With `install` the answer is as the middleware's."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, detail="Too many requests", headers=dict(answer.fields))
        self.answer: Answer = answer


class RateLimit:
    """A dependency that refuses requests beyond the limits: ``Depends(RateLimit(limits))``.

    For a route, a router or the whole application; also for websockets. Call `install` once, so
    that every answer tells its client where it stands, and the OpenAPI document says so.

    Args:
        limits: a `Limit`, a `Limiter` for a limit by address, or several of them.
        plain: whether refusals are a plain text, not an ``application/problem+json``.
        legacy: whether answers have the older ``X-RateLimit`` fields as well.

    Raises:
        WrongType: an argument is nothing of the above.
    """

    def __init__(
        self,
        limits: Limit | Limiter | Iterable[Limit | Limiter],
        *,
        plain: bool = False,
        legacy: bool = False,
    ) -> None:
        self._limits = Limits(limits, plain=plain, legacy=legacy)
        self._legacy = legacy

    async def __call__(self, connection: HTTPConnection, response: Response) -> None:
        """Ask the limits.

        Raises:
            RateLimitRefused: one of them refuses.
            WebSocketException: the same for a websocket.
        """
        scope = connection.scope
        state = scope.get(_STATE)
        acquire = None if state is None else state.client.acquire
        answer = await run_async(self._limits.ask(AsgiRequest(scope), acquire))
        if answer is None:
            return
        if answer.status:
            if scope["type"] == "websocket":
                raise WebSocketException(POLICY_VIOLATION, "Too many requests")
            raise RateLimitRefused(answer)
        if state is not None:
            state.fields += answer.fields
            return
        for name, value in answer.fields:
            response.headers.append(name, value)

    @property
    def responses(self) -> dict[int | str, Json]:
        """What ``responses=`` of a route, router or application takes to document a refusal."""
        plain = self._limits.plain
        kind = "text/plain" if plain else "application/problem+json"
        schema = {"type": "string" if plain else "object"}
        headers = {RETRY_AFTER: _header("Seconds until the request would fit.", "integer")}
        return {
            429: {
                "description": "Too many requests",
                "headers": {**headers, **self.headers},
                "content": {kind: {"schema": schema}},
            }
        }

    @property
    def headers(self) -> Json:
        """What OpenAPI says of the headers that tell a client where it stands."""
        found = {
            RATE_LIMIT_POLICY: _header("The limits that hold for the request."),
            RATE_LIMIT: _header("What is left of them (r), and seconds until there is more (t)."),
        }
        if self._legacy:
            for name in ("Limit", "Remaining", "Reset"):
                found[f"X-RateLimit-{name}"] = _header("The same in an older form.", "integer")
        return found


def install(app: FastAPI) -> None:
    """Let every answer of an application carry what its `RateLimit` dependencies say.

    It adds a middleware, which also notices a client that leaves while its request waits; an
    exception handler, which answers refusals; and to the OpenAPI document the refusals and headers
    of each route that has such a dependency.
    """
    app.add_middleware(_Middleware)
    app.add_exception_handler(RateLimitRefused, _refused)
    plain = app.openapi

    def documented() -> Json:
        if app.openapi_schema is None:
            _document(app, plain())
        return app.openapi_schema or {}

    app.openapi = documented  # type: ignore[method-assign] # the way that FastAPI documents


class _State:
    """What the middleware and the dependencies of one connection share."""

    def __init__(self, receive: "Receive") -> None:
        self.client = Client(receive)
        self.fields: Fields = []


class _Middleware:
    """The middleware of `install`."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] in {"http", "websocket"}:
            state = scope[_STATE] = _State(receive)
            # The dependencies add to the fields until the answer begins.
            receive, send = state.client.receive, stating(send, state.fields)
        await self.app(scope, receive, send)


async def _refused(_: object, error: Exception) -> Response:
    answer: Answer = vars(error)["answer"]  # only a `RateLimitRefused` gets here
    fields = dict(answer.fields)
    return Response(answer.body, answer.status, fields, media_type=answer.content_type)


def _document(app: FastAPI, schema: Json) -> None:
    # Since routers are included without being copied, there is a function that finds all routes.
    for route in getattr(routing, "iter_route_contexts", iter)(app.routes):
        limits = list(_dependencies(getattr(route, "dependant", None)))
        path = schema.get("paths", {}).get(getattr(route, "path_format", None), {})
        for method in (getattr(route, "methods", None) or ()) if limits else ():
            operation = path.get(method.lower())
            if operation is not None:
                _document_operation(operation["responses"], limits)


def _document_operation(responses: Json, limits: list[RateLimit]) -> None:
    for limit in limits:
        for status, response in responses.items():
            if status.startswith("2"):
                response["headers"] = {**limit.headers, **response.get("headers", {})}
        for refused, refusal in limit.responses.items():
            responses.setdefault(str(refused), refusal)


def _dependencies(dependant: object) -> Iterator[RateLimit]:
    for dependency in getattr(dependant, "dependencies", ()):
        if isinstance(dependency.call, RateLimit):
            yield dependency.call
        yield from _dependencies(dependency)


def _header(description: str, kind: str = "string") -> Json:
    return {"description": description, "schema": {"type": kind}}
