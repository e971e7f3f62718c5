"""The pools and connections of psycopg, by what is used of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias

    from psycopg import ConnectionInfo
    from psycopg.pq.abc import PGconn

    # A value is the server's text, or None for NULL; which of them can be NULL is up to the SQL.
    Row: TypeAlias = list[Any]
    Rows: TypeAlias = list[Row]
    # What has to be awaited over an asyncio pool, and is there over another: whoever has made the
    # bucket knows which, and could not await the one or use the other if both were named.
    MaybeAwaited: TypeAlias = Any


class Connection(Protocol):
    """A connection, sync or asyncio."""

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""

    @property
    def pgconn(self) -> PGconn:
        """What speaks to the server."""

    @property
    def info(self) -> ConnectionInfo:
        """What is known of the session."""


class Pool(Protocol):
    """A pool of connections; what the methods of an asyncio one return has to be awaited."""

    @property
    def timeout(self) -> float:
        """Seconds that it waits for a connection, if nothing else is said."""

    @property
    def closed(self) -> bool:
        """Whether it gives connections no more."""

    def getconn(self, timeout: float | None = None) -> MaybeAwaited:
        """Borrow a connection."""

    def putconn(self, conn: Any) -> MaybeAwaited:  # of the pool's own kind
        """Give it back."""
