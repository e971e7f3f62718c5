"""The clients of the ``redis`` package, by what is used of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeAlias


class Client(Protocol):
    """A client: standalone, Sentinel master or cluster.

    What its methods return is for the driver to say: a reply, or where it is async an awaitable.
    """

    def execute_command(self, *args: Any, **options: object) -> Any:
        """Have a command executed."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script by its name."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script by its text."""

    def pipeline(self, transaction: Any = ...) -> Any:
        """Several commands in one round trip."""


class AsyncClient(Client, Protocol):
    """A client of ``redis.asyncio``."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close it."""


class SyncClient(Client, Protocol):
    """A client of ``redis``."""

    def close(self) -> None:
        """Close it."""


RedisClient: TypeAlias = "SyncClient | AsyncClient"
