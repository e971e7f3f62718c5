"""An application that limits its clients, asked by one of them until it has had enough.

It needs `pip install pyrate-limiter httpx starlette`.
"""

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pyrate_limiter import Duration, Limiter, Rate
from pyrate_limiter.extras.asgi import Limit, RateLimitMiddleware


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"this is {request.url.path}")


app = Starlette(routes=[Route("/", page), Route("/login", page), Route("/health", page)])
app.add_middleware(
    RateLimitMiddleware,
    limits=[
        Limit(Limiter.per_key(Rate(1, Duration.MINUTE)), name="login", paths=["/login"]),
        Limit(Limiter.per_key(Rate(3, Duration.MINUTE)), name="all"),
    ],
    exempt=["/health"],
)


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/login", "/login", "/", "/", "/", "/health"):
            answer = await client.get(path)
            left = answer.headers.get("RateLimit", "not limited")
            print(f"{path:<8} {answer.status_code}  {left}")


if __name__ == "__main__":
    asyncio.run(main())
