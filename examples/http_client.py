"""A client that keeps to a server's rate by itself, so that the server never has to refuse it.

The server here answers 429 to whoever asks more often than it allows. It needs
`pip install pyrate-limiter httpx`.
"""

import time

import httpx

from pyrate_limiter import Limiter, Rate
from pyrate_limiter.extras.httpx_limiter import RateLimiterTransport

ALLOWED = Rate(5, 200)  # requests in any 200 ms, for each host
REQUESTS = 12

server = Limiter.per_key(ALLOWED)


def answer(request: httpx.Request) -> httpx.Response:
    """Stands for a service on the network."""
    admitted = server.try_acquire(request.url.host, blocking=False)
    return httpx.Response(200 if admitted else 429)


def main() -> None:
    # A little less often than the server allows: requests may arrive closer than they were sent.
    limiter = Limiter.per_key(Rate(ALLOWED.limit, ALLOWED.interval + 50))
    transport = RateLimiterTransport(limiter, key="host", transport=httpx.MockTransport(answer))
    begun = time.monotonic()
    with httpx.Client(transport=transport) as client:
        answers = [client.get("https://api.example.com/").status_code for _ in range(REQUESTS)]
    refused = answers.count(429)
    print(f"{REQUESTS} requests in {time.monotonic() - begun:.2f} s, {refused} of them refused")


if __name__ == "__main__":
    main()
