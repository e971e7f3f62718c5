"""What the helpers for HTTP clients promise alike, with the real libraries over loopback."""

import asyncio
import importlib
import subprocess
import sys

import aiohttp
import pytest

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, MonotonicAsyncClock, Rate
from pyrate_limiter.errors import (
    AsyncBucketInSyncCode,
    InvalidTimeout,
    MissingDriver,
    RateLimitExceeded,
    WrongType,
)
from tests.extras.clients import (
    aiohttp_async,
    async_kinds,
    done,
    every_kind,
    get,
    status,
    sync_kinds,
)
from tests.extras.limiters import HOUR_MS, Broken, NeverFits, Recording


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
    limiter = Limiter(Rate(1, 1700))

    def patient(client):
        seconds = aiohttp.ClientTimeout(1.5) if kind.open is aiohttp_async else 1.5
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
