"""The clients of the ``redis`` package, by what is used of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeAlias

    # What a command answers, which differs from one to the next; an awaitable of it where the
    # client is async.
    Reply: TypeAlias = Any


class Client(Protocol):
    """A client: standalone, Sentinel master or cluster."""

    # The words are typed otherwise in each release of the driver, and in each kind of client.
    def execute_command(self, *words: Any, **options: object) -> Reply:
        """Have a command executed."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Reply:
        """Run a script by its name."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Reply:
        """Run a script by its text."""

    def pipeline(self, transaction: Any = ...) -> Reply:
        """Several commands in one round trip."""


class AsyncClient(Client, Protocol):
    """A client of ``redis.asyncio``."""

    def aclose(self) -> Awaitable[None]:
        """Close it."""


class SyncClient(Client, Protocol):
    """A client of ``redis``."""

    def close(self) -> None:
        """Close it."""


RedisClient: TypeAlias = "SyncClient | AsyncClient"
