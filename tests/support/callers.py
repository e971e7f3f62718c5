"""Threads or tasks that use a log, a state or names on a server: written once for all of them."""

import asyncio
import inspect
import time
from concurrent.futures import ThreadPoolExecutor

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from pyrate_limiter import (
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from tests.support import postgres_fixtures as postgres

KINDS = ["log", "state", "keys"]


class Callers:
    """Those who call: threads, or tasks of a loop of their own.

    Args:
        is_async: whether they are tasks.
    """

    def __init__(self, is_async):
        self.is_async = is_async
        self._loop = asyncio.new_event_loop() if is_async else None

    def call(self, function):
        """What it returns, or what that gives when awaited."""
        return self._loop.run_until_complete(_awaited(function)) if self.is_async else function()

    def pause(self, seconds):
        """Let what goes on beside the callers go on."""
        self.call(lambda: asyncio.sleep(seconds) if self.is_async else time.sleep(seconds))

    def together(self, functions):
        """What each of them returns or raises, called by callers of their own, all at once."""
        if not self.is_async:
            with ThreadPoolExecutor(len(functions)) as pool:
                return [*pool.map(_outcome, functions)]

        async def main():
            calls = [_awaited(function) for function in functions]
            return await asyncio.gather(*calls, return_exceptions=True)

        return self._loop.run_until_complete(main())

    def end_tasks(self):
        """Cancel what goes on in the loop."""
        if self.is_async:
            self._loop.run_until_complete(_end_of_others())

    def close(self):
        self.end_tasks()
        if self.is_async:
            self._loop.close()


async def _awaited(function):
    value = function()
    return (await value) if inspect.isawaitable(value) else value


async def _end_of_others():
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _outcome(function):
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - it is what the test asks about
        return error


class AtRedis(Callers):
    """Callers over one client.

    Args:
        is_async: see `Callers`.
        url: where the server is.
        most: how many connections there may be.
        naps: seconds between two tries of the driver, which gives up after three naps.
        options: the client's.
    """

    def __init__(self, is_async, url, *, most=None, naps=None, **options):
        super().__init__(is_async)
        kind, retry = (redis.asyncio.Redis, AsyncRetry) if is_async else (redis.Redis, Retry)
        again = retry(NoBackoff(), 0) if naps is None else retry(ConstantBackoff(naps), 3)
        options = {"retry": again, "max_connections": most, **options}
        self.client = self.call(lambda: kind.from_url(url, **options))

    def limiter(self, kind, rate, name, **options):
        """A new limiter of a kind on what is kept under a name."""
        if kind == "keys":
            return Limiter.per_key(rate, bucket=RedisKeys(self.client, f"{name}:", **options))
        if kind == "state":
            store = RedisStateStore(self.client, name, **options)
            return Limiter(StateBucket([rate], store=store))
        made = self.call(lambda: RedisBucket.init([rate], self.client, name, **options))
        return Limiter(made)

    def borrow(self):
        """A connection of the pool, for the application itself."""
        pool = self.client.connection_pool
        name = inspect.signature(pool.get_connection).parameters.get("command_name")
        # Later releases warn of the argument that the first ones want.
        wanted = name is not None and name.default is inspect.Parameter.empty
        return self.call(lambda: pool.get_connection(*["PING"] * wanted))

    def give_back(self, connection):
        self.call(lambda: self.client.connection_pool.release(connection))

    def close(self):
        self.end_tasks()  # a call that hangs has a connection in hand
        self.call(getattr(self.client, "aclose", self.client.close))
        super().close()


class AtPostgres(Callers):
    """Callers over one pool; the arguments are those of `AtRedis`, and the pool's."""

    def __init__(self, is_async, dsn, *, most=2, **options):
        super().__init__(is_async)
        make = postgres.async_pool if is_async else postgres.pool
        self.pool = self.call(lambda: make(dsn, size=most, **options))

    def limiter(self, kind, rate, name, **options):
        """A new limiter of a kind on what is kept under a name."""
        if kind == "keys":
            return Limiter.per_key(rate, bucket=PostgresKeys(self.pool, name, **options))
        if kind == "state":
            store = PostgresStateStore(self.pool, "k", table=f"ratelimit___{name}", **options)
            return Limiter(StateBucket([rate], store=store))
        return Limiter(PostgresBucket(self.pool, name, [rate], **options))

    def borrow(self):
        """A connection of the pool, for the application itself."""
        return self.call(self.pool.getconn)

    def give_back(self, connection):
        self.call(lambda: self.pool.putconn(connection))

    def close(self):
        self.call(self.pool.close)
        super().close()
