"""What the helpers for HTTP clients promise alike, with the real libraries over loopback."""

import asyncio
import importlib
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import httpx
import httpx2
import pytest

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, MonotonicAsyncClock, Rate
from pyrate_limiter.errors import (
    AsyncBucketInSyncCode,
    InvalidTimeout,
    MissingDriver,
    RateLimitExceeded,
    WrongType,
)
from pyrate_limiter.extras import (
    aiohttp_limiter,
    httpx2_limiter,
    httpx_limiter,
    requests_limiter,
)
from tests.extras.limiters import HOUR_MS, Broken, NeverFits, Recording


@contextmanager
def requests_client(limiter, **options):
    with requests_limiter.RateLimitedRequestsSession(limiter, **options) as session:
        session.trust_env = False
        yield session


@contextmanager
def httpx_client(limiter, **options):
    transport = httpx_limiter.RateLimiterTransport(limiter, **options)
    with httpx.Client(transport=transport, trust_env=False) as client:
        yield client


@contextmanager
def httpx2_client(limiter, **options):
    transport = httpx2_limiter.RateLimiterTransport(limiter, **options)
    with httpx2.Client(transport=transport, trust_env=False) as client:
        yield client


@asynccontextmanager
async def httpx_async(limiter, **options):
    transport = httpx_limiter.AsyncRateLimiterTransport(limiter, **options)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        yield client


@asynccontextmanager
async def httpx2_async(limiter, **options):
    transport = httpx2_limiter.AsyncRateLimiterTransport(limiter, **options)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        yield client


@asynccontextmanager
async def aiohttp_async(limiter, **options):
    if "timeout" in options:
        options["wait_timeout"] = options.pop("timeout")
    async with aiohttp_limiter.RateLimitedSession(limiter, **options) as session:
        yield session


SYNC = {"requests": requests_client, "httpx": httpx_client, "httpx2": httpx2_client}
ASYNC = {"httpx": httpx_async, "httpx2": httpx2_async, "aiohttp": aiohttp_async}
OWN_NAMES = {
    requests_client: "pyrate_limiter.extras.requests_limiter",
    httpx_client: "pyrate_limiter.extras.httpx_limiter",
    httpx2_client: "pyrate_limiter.extras.httpx2_limiter",
    httpx_async: "pyrate_limiter.extras.httpx_limiter",
    httpx2_async: "pyrate_limiter.extras.httpx2_limiter",
    aiohttp_async: "pyrate",
}


def call_sync(open_client, limiter, calls, **options):
    with open_client(limiter, **options) as client:
        return calls(client)


def call_async(open_client, limiter, calls, **options):
    """Run ``calls`` written for a sync client: whatever it returns at the end is awaited."""

    async def run():
        async with open_client(limiter, **options) as client:
            result = None
            for made in calls(client):
                result = done(await made)
            return result

    return asyncio.run(run())


def done(response):
    """The response; aiohttp's has to be given back."""
    if isinstance(response, aiohttp.ClientResponse):
        response.release()
    return response


class Kind:
    """A client of one library, called in one way for both forms."""

    def __init__(self, open_client, run):
        self.open, self.run = open_client, run

    def each(self, limiter, *calls, **options):
        """Make each call in turn; the last one's result."""

        def made(client):
            if self.run is call_async:
                return (call(client) for call in calls)
            return [call(client) for call in calls][-1]

        return self.run(self.open, limiter, made, **options)

    @property
    def own_name(self):
        return OWN_NAMES[self.open]


KINDS = [pytest.param(Kind(client, call_sync), id=f"{name}-sync") for name, client in SYNC.items()]
ASYNC_KINDS = [
    pytest.param(Kind(client, call_async), id=f"{name}-async") for name, client in ASYNC.items()
]
every_kind = pytest.mark.parametrize("kind", [*KINDS, *ASYNC_KINDS])
sync_kinds = pytest.mark.parametrize("kind", KINDS)
async_kinds = pytest.mark.parametrize("kind", ASYNC_KINDS)


def status(response):
    return getattr(response, "status_code", None) or response.status


def get(path):
    return lambda client: client.get(path)


@every_kind
def test_each_request_asks_once_with_the_name_alone(kind, server):
    limiter = Recording()
    response = kind.each(limiter, get(server.url + "/a"), get(server.url + "/b"))
    assert status(response) == 200
    assert server.paths == ["/a", "/b"]
    assert limiter.asked == [((kind.own_name,), {})] * 2


@every_kind
@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "head", "options"])
def test_every_verb_takes_one_unit(kind, server, verb):
    limiter = Recording()
    kind.each(limiter, lambda client: getattr(client, verb)(server.url + "/x"))
    assert [method for method, *_ in server.arrived] == [verb.upper()]
    assert len(limiter.asked) == 1


@every_kind
def test_request_with_a_method_takes_one_unit(kind, server):
    limiter = Recording()
    kind.each(limiter, lambda client: client.request("PUT", server.url + "/x"))
    assert [method for method, *_ in server.arrived] == ["PUT"]
    assert len(limiter.asked) == 1


@every_kind
def test_a_refused_request_is_not_sent(kind, server):
    limiter = Limiter(NeverFits())
    with pytest.raises(RateLimitExceeded, match="not sent") as caught:
        kind.each(limiter, get(server.url))
    assert server.arrived == []
    assert caught.value.name == kind.own_name
    limiter.close()


@every_kind
def test_a_stand_in_that_answers_false_is_obeyed(kind, server):
    class No:
        def try_acquire(self, name):
            return False

        async def try_acquire_async(self, name):
            return False

    with pytest.raises(RateLimitExceeded):
        kind.each(No(), get(server.url))
    assert server.arrived == []


@every_kind
def test_an_error_of_the_limiter_goes_through_and_nothing_is_sent(kind, server):
    limiter = Limiter(Broken())
    with pytest.raises(ConnectionError, match="the store is down"):
        kind.each(limiter, get(server.url))
    assert server.arrived == []
    limiter.close()


@every_kind
def test_a_refused_connection_has_cost_its_unit(kind):
    limiter = Recording()
    with pytest.raises(Exception, match=r"(?i)connect"):
        kind.each(limiter, get("http://127.0.0.1:1/"))
    assert len(limiter.asked) == 1


@every_kind
def test_the_limiter_outlives_its_client(kind, server):
    limiter = Recording()
    for _ in range(2):
        kind.each(limiter, get(server.url))
    assert limiter.buckets()[0].count() == 2


@every_kind
def test_what_a_request_waits_for_the_limiter_does_not_count_for_its_own_timeout(kind, server):
    limiter = Limiter(Rate(1, 1200))

    def patient(client):
        seconds = aiohttp.ClientTimeout(1) if kind.open is aiohttp_async else 1
        return client.get(server.url, timeout=seconds)

    assert status(kind.each(limiter, get(server.url), get(server.url))) == 200
    assert len(server.arrived) == 2


@every_kind
def test_by_host_each_host_has_its_name(kind, server):
    limiter = Recording()
    named = server.url.replace("127.0.0.1", "localhost")
    kind.each(limiter, get(server.url + "/a"), get(named + "/b"), key="host")
    assert limiter.names == ["127.0.0.1", "localhost"]


@every_kind
def test_key_and_weight_by_functions_of_the_request(kind, server):
    limiter = Recording()
    seen = []

    def key(request):
        seen.append((request.method, str(request.url)))
        return str(request.url).rpartition("/")[2]

    kind.each(
        limiter,
        lambda client: client.post(server.url + "/search"),
        get(server.url + "/cheap"),
        key=key,
        weight=lambda request: 5 if request.method == "POST" else 1,
    )
    assert limiter.asked == [(("search",), {"weight": 5}), (("cheap",), {})]
    assert seen == [("POST", server.url + "/search"), ("GET", server.url + "/cheap")]


@every_kind
def test_a_name_of_the_callers(kind, server):
    limiter = Recording()
    kind.each(limiter, get(server.url), name="mine")
    assert limiter.names == ["mine"]


@every_kind
def test_a_timeout_bounds_the_wait_and_the_refusal_says_when_it_fits(kind, server):
    limiter = Recording(limit=1)
    with pytest.raises(RateLimitExceeded) as caught:
        kind.each(limiter, get(server.url), get(server.url), timeout=0)
    assert server.paths == ["/"]
    assert HOUR_MS - 60_000 < caught.value.retry_after_ms <= HOUR_MS + 1


@every_kind
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"key": 7}, WrongType),
        ({"weight": "heavy"}, WrongType),
        ({"timeout": -5}, InvalidTimeout),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_with_its_value(kind, server, options, error):
    with pytest.raises(error, match=str(next(iter(options.values())))):
        kind.each(Recording(), get(server.url), **options)
    assert server.arrived == []


@sync_kinds
def test_a_sync_client_refuses_an_async_limiter_at_once(kind):
    bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, HOUR_MS)]))
    for schedule_leak in (True, False):
        limiter = Limiter(bucket)
        if not schedule_leak:
            limiter.dispose(bucket)
        with pytest.raises(AsyncBucketInSyncCode, match="async client"):
            kind.each(limiter)
        limiter.close()


@sync_kinds
def test_a_sync_client_refuses_a_request_that_would_have_to_be_awaited(kind, server):
    bucket = InMemoryBucket([Rate(1, HOUR_MS)])
    bucket._clock = MonotonicAsyncClock()
    limiter = Limiter(bucket)
    with pytest.raises(AsyncBucketInSyncCode, match="async client"):
        kind.each(limiter, get(server.url))
    assert server.arrived == []
    limiter.close()


@async_kinds
@pytest.mark.parametrize("wrap", [BucketAsyncWrapper, lambda bucket: bucket])
def test_gathered_requests_keep_to_the_rate(kind, server, wrap):
    limiter = Limiter(wrap(InMemoryBucket([Rate(2, 300)])))

    async def run():
        async with kind.open(limiter) as client:
            start = asyncio.get_running_loop().time()
            for response in await asyncio.gather(*(client.get(server.url) for _ in range(5))):
                assert status(done(response)) == 200
            return asyncio.get_running_loop().time() - start

    assert asyncio.run(run()) >= 0.6
    assert len(server.arrived) == 5
    limiter.close()


@async_kinds
def test_a_cancelled_wait_sends_nothing_and_takes_nothing(kind, server):
    limiter = Recording(limit=1)

    async def run():
        limiter.second = asyncio.Event()
        async with kind.open(limiter) as client:
            done(await client.get(server.url + "/first"))
            waiting = asyncio.ensure_future(client.get(server.url + "/second"))
            await limiter.second.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(run())
    assert server.paths == ["/first"]
    assert limiter.buckets()[0].count() == 1


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("requests_limiter", "requests"),
        ("httpx_limiter", "httpx"),
        ("httpx2_limiter", "httpx2"),
        ("aiohttp_limiter", "aiohttp"),
    ],
)
def test_without_its_library_a_module_says_which_extra_to_install(monkeypatch, module, library):
    name = f"pyrate_limiter.extras.{module}"
    monkeypatch.delitem(sys.modules, name)
    for imported in list(sys.modules):
        if imported.partition(".")[0] == library:
            monkeypatch.setitem(sys.modules, imported, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"pip install .pyrate-limiter\[{library}\]"
    ) as e:
        importlib.import_module(name)
    assert isinstance(e.value, MissingDriver)
    assert e.value.name == library


def test_no_extra_is_imported_by_anything_else():
    program = (
        "import pkgutil, sys, importlib, pyrate_limiter\n"
        "for module in pkgutil.walk_packages(pyrate_limiter.__path__, 'pyrate_limiter.'):\n"
        "    if 'extras' not in module.name and '__main__' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "print([m for m in sys.modules if m.startswith('pyrate_limiter.extras.')\n"
        "    or m in ('requests', 'httpx', 'httpx2', 'aiohttp')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
