"""What observes a client of redis-py sees every command that the library sends over it."""

import asyncio
import contextlib
import importlib.util
import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest
import redis
import redis.asyncio
from opentelemetry import metrics
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pyrate_limiter import (
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from tests.support.redis_servers import RedisServer

COUNTS_BY_ITSELF = importlib.util.find_spec("redis.observability") is not None  # from 7.2 on
INTRODUCTIONS = {"AUTH", "CLIENT", "HELLO", "SELECT"}  # the driver's own, on a new connection
RATE = Rate(5, 200)


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def sent(server):
    """Tells the names of the commands that the server has been sent since the test began."""
    with redis.Redis(port=server.port, decode_responses=True) as admin:
        admin.flushall()
        admin.script_flush()
        with admin.monitor() as monitor:

            def commands():
                admin.echo("the end")
                names = []
                while True:
                    heard = monitor.next_command()
                    name, *words = heard["command"].upper().split(" ", 2)
                    if name == "ECHO":
                        return Counter(names)
                    if heard["client_type"] != "lua" and name not in INTRODUCTIONS:
                        names.append(f"SCRIPT {words[0]}" if name == "SCRIPT" else name)

            yield commands


def buckets(client):
    yield RedisBucket([RATE], client, "log")
    yield RedisBucket([RATE], client, "timed", call_timeout=20)
    yield RedisBucket([RATE], client, "watched", on_error="allow")
    yield RedisKeys(client, "keys:").for_name([RATE], "a")
    yield StateBucket([RATE], store=RedisStateStore(client, "state"))


def in_one_thread(port, made):
    with made(redis.Redis, port) as client:
        RedisBucket.init([RATE], client, "loaded")
        for bucket in buckets(client):
            limiter = Limiter(bucket)
            assert all(limiter.try_acquire("a") for _ in range(7))  # waits too
            limiter.try_acquire("a", timeout=5)
            item = RateItem("a", bucket.now())
            bucket.put(item)
            bucket.waiting(item)
            bucket.hold(item, 1)
            bucket.count()
            bucket.leak(bucket.now())
            bucket.flush()


def in_threads(port, made):
    with made(redis.Redis, port) as client:
        for bucket in buckets(client):
            limiter = Limiter(bucket)

            def work(limiter=limiter):
                for _ in range(10):
                    limiter.try_acquire("a", blocking=False)

            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def in_tasks(port, made):
    async def main():
        async with made(redis.asyncio.Redis, port) as client:
            await RedisBucket.init([RATE], client, "loaded")
            for bucket in buckets(client):
                limiter = Limiter(bucket)
                tasks = [limiter.try_acquire_async("a", timeout=5) for _ in range(12)]
                assert True in await asyncio.gather(*tasks)
                item = RateItem("a", 0)
                await bucket.put(item)
                await bucket.count()
                await bucket.flush()

    asyncio.run(main())


def in_tasks_with_keys_of_their_own(port, made):
    async def main():
        async with made(redis.asyncio.Redis, port) as client:
            keys = RedisKeys(client, "many:")
            limiters = [Limiter(keys.for_name([RATE], str(n % 10))) for n in range(40)]
            for _ in range(3):
                await asyncio.gather(*(each.try_acquire_async("a") for each in limiters))

    asyncio.run(main())


USES = [in_one_thread, in_threads, in_tasks, in_tasks_with_keys_of_their_own]


def plain(kind, port):
    return kind(port=port)


@contextlib.contextmanager
def tracing():
    """A provider, and what tells the names of its spans, one for each round trip."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, lambda: [span.name for span in exporter.get_finished_spans()]
    provider.shutdown()


@contextlib.contextmanager
def instrumented(provider):
    """All clients are traced."""
    instrumentor = RedisInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def commands_of(spans):
    """What a span of a pipeline is called has the names of all its commands."""
    return Counter(
        command
        for span in spans
        for command in ([span] if span.startswith("SCRIPT") else span.split())
    )


@pytest.mark.parametrize("use", USES)
def test_tracing_of_all_clients_sees_each_command(server, sent, use):
    with tracing() as (provider, spans):
        with instrumented(provider):
            use(server.port, plain)
        assert commands_of(spans()) == sent()


@pytest.mark.parametrize("use", USES)
def test_tracing_of_one_client_sees_each_command(server, sent, use):
    with tracing() as (provider, spans):

        def made(kind, port):
            client = kind(port=port)
            RedisInstrumentor.instrument_client(client, tracer_provider=provider)
            return client

        use(server.port, made)
        assert commands_of(spans()) == sent()


@pytest.mark.parametrize("use", USES[:3])
def test_a_plain_function_in_the_place_of_a_method_sees_each_command(server, sent, use):
    seen = []

    def made(kind, port):
        client = kind(port=port)
        execute = client.execute_command

        def noted(*args, **options):
            seen.append(args[0].upper())
            return execute(*args, **options)

        client.execute_command = noted
        return client

    use(server.port, made)
    assert Counter(seen) == sent()


def counted_beside_tracing(use, port):
    """In a process of its own, for the driver does not stop counting: calls by name, and spans."""
    from redis import observability

    use(
        port, plain
    )  # what the server answers with an error, as for want of a script, is not counted
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    groups = [observability.MetricGroup.COMMAND]
    observability.get_observability_instance().init(observability.OTelConfig(metric_groups=groups))
    with tracing() as (provider, spans), instrumented(provider):
        use(port, plain)
        (resource,) = reader.get_metrics_data().resource_metrics
    (durations,) = (
        metric
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "db.client.operation.duration"
    )
    points = durations.data.data_points
    return {point.attributes["db.operation.name"]: point.count for point in points}, spans()


if COUNTS_BY_ITSELF:

    @pytest.mark.parametrize("use", USES)
    def test_the_metrics_of_the_driver_count_each_round_trip(server, use):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            counted, spans = child.submit(counted_beside_tracing, use, server.port).result()
        is_pipeline = [name.startswith("EVALSHA ") for name in spans]
        assert any(is_pipeline) == (use is in_tasks_with_keys_of_their_own)
        assert counted == Counter(
            "PIPELINE" if pipeline else name for name, pipeline in zip(spans, is_pipeline)
        )
