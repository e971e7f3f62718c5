"""What a Redis bucket asks of its server: one call of a script, or one command."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyrate_limiter._files import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = 5  # of the reply to each step
MOST_STEPS = 250  # in one call of a script: other clients of the server wait for its end
MOST_UNITS = 2000  # likewise; one step alone may have more


class Script:
    """A Lua script and the name that Redis knows it by."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, text: str) -> Script:
        """The script of that text."""
        return cls(text)

    @classmethod
    def read(cls, *names: str) -> Script:
        """The script in files beside this one, one after the other."""
        return cls("".join(text_of("buckets", name) for name in names))


class Request:
    """One call of a script.

    Args:
        head: the script, the key, and what all steps of a kind share.
        steps: what comes after that.
        limit: seconds that the call may take; None is no limit.
        orphaned: given the request and an answer that nobody waits for any more: what undoes it.
        shared: whether steps of others may follow in the same call.
    """

    __slots__ = ("_orphaned", "head", "limit", "shared", "steps")

    def __init__(
        self,
        head: tuple[Any, ...],
        steps: list[Any],
        limit: float | None,
        orphaned: Callable[[Request, list[int]], Request | None] | None = None,
        shared: bool = True,
    ) -> None:
        self.head: tuple[Any, ...] = head
        self.steps: list[Any] = steps
        self.limit: float | None = limit
        self._orphaned = orphaned
        self.shared: bool = shared

    def undone(self, answer: list[int]) -> Request | None:
        """What undoes it, if anything, when its answer came and nobody waits for it any more."""
        return None if self._orphaned is None else self._orphaned(self, answer)

    def cost(self) -> int:
        """Its steps; one that settles takes as long as three others."""
        return sum(3 if step.startswith("settle") else 1 for step in self.steps)

    def units(self) -> int:
        """How many units its steps store or drop; of a shared one."""
        return sum(int(step.split(" ", 2)[1]) for step in self.steps)


class Command:
    """A call of one of the client's methods."""

    __slots__ = ("args", "limit", "method", "options")

    def __init__(self, limit: float | None, method: str, *args: Any, **options: Any) -> None:
        self.limit: float | None = limit
        self.method: str = method
        self.args: tuple[Any, ...] = args
        self.options: dict[str, Any] = options

    @property
    def key(self) -> str | None:
        """The key that it is about, if any."""
        return None if self.method == "script_load" else self.args[0]


def fitting(requests: list[Request]) -> int:
    """How many of the shared requests, from the first on, one call of a script may have."""
    steps = units = 0
    for number, request in enumerate(requests):
        steps += request.cost()
        units += request.units()
        if number and (steps > MOST_STEPS or units > MOST_UNITS):
            return number
    return len(requests)


def words_of(steps: list[str]) -> list[Any]:
    """Steps as they are sent: in UTF-8, whatever the encoding of the client."""
    return [step if step.isascii() else step.encode() for step in steps]


def numbers_of(reply: Any) -> list[Any]:
    """A reply as a list, also where it is a line of numbers, which is faster to read."""
    return reply if isinstance(reply, list) else list(map(int, reply.split()))


def parts_of(numbers: list[Any], requests: list[Request]) -> list[list[Any]]:
    """The reply to a shared call as what each request would have got alone."""
    parts, at = [], 1
    for request in requests:
        end = at + NUMBERS * len(request.steps)
        parts.append([numbers[0], *numbers[at:end]])
        at = end
    return parts
