"""A request to a web application, as a limit sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Key = Callable[["WebRequest"], "str | Awaitable[str | None] | None"]


class WebRequest(ABC):
    """What a limit may look at, whatever the framework.

    Attributes:
        raw: the request as the framework has it: an ASGI scope, a WSGI environ, or its own object.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: object) -> None:
        self.raw: Any = raw

    @property
    @abstractmethod
    def method(self) -> str:
        """The method, such as GET."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path, decoded."""

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """The address that the connection comes from; None where it has none."""

    @abstractmethod
    def header(self, name: str) -> str | None:
        """A header; lines of one name are joined by commas."""
