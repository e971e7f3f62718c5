"""What a Redis bucket asks of its server: one call of a script, or one command."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.files import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import TypeAlias

    # What a call begins with: the script, the key, and what all steps of a kind share.
    Head: TypeAlias = tuple[Any, ...]
    # The time of the server, and `NUMBERS` for each step; a user's script gives what it likes.
    Answer: TypeAlias = list[Any]

NUMBERS = 5  # of the reply to each step
# In one call of a script, for other clients of the server wait for its end.
MOST_STEPS = 250
MOST_UNITS = 2000  # one step alone may have more
_MOST_WORK = 5000  # about as many microseconds
_WORK = {"confirm": 60, "forget": 200}  # of steps that look for more than a usual one
_STEP_WORK = 18
_TAKE_OUT = {"confirm", "cancel", "forget"}
# For room in front of others: once, unless units are taken out or a lighter one comes.
_SEARCH_WORK = 700


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
    def read(cls, *names: str, **constants: int) -> Script:
        """The script in files beside this one, one after the other.

        Args:
            names: the files.
            constants: what stands there as ``@name@``.
        """
        text = "".join(text_of("buckets", "redis", name) for name in names)
        return cls(re.sub("@([a-z_]+)@", lambda found: str(constants[found[1]]), text))


class Request:
    """One call of a script.

    Args:
        head: what it begins with.
        steps: what comes after that.
        limit: seconds that the call may take; None is no limit.
        orphaned: given the request and an answer that nobody waits for any more: what undoes it.
        shared: whether steps of others may follow in the same call.

    Attributes:
        asked: when it was given to the client, on the monotonic clock; None while it is not, also
            because the client's pool has no connection left.
        gone: nobody waits for its answer any more.
    """

    __slots__ = ("_orphaned", "asked", "gone", "head", "limit", "shared", "steps")

    def __init__(
        self,
        head: Head,
        steps: list[str],
        limit: float | None,
        orphaned: Callable[[Request, Answer], Request | None] | None = None,
        shared: bool = True,
    ) -> None:
        self.head: Head = head
        self.steps: list[str] = steps
        self.limit: float | None = limit
        self._orphaned = orphaned
        self.shared: bool = shared
        self.asked: float | None = None
        self.gone: bool = False

    @property
    def key(self) -> str:
        """The key that it is about."""
        key: str = self.head[1]
        return key

    @property
    def group(self) -> Hashable:
        """What the requests have in common that may go in one call."""
        return self.head if self.shared else (self.head, id(self))

    def undone(self, answer: Answer) -> Request | None:
        """What undoes it, if anything, when its answer came and nobody waits for it any more."""
        return None if self._orphaned is None else self._orphaned(self, answer)


def fitting(requests: list[Request]) -> int:
    """How many of the shared requests, from the first on, one call of a script may have."""
    steps = units = work = 0
    searched = math.inf  # from this weight on, room in front of others was searched for
    for number, request in enumerate(requests):
        for step in request.steps:
            kind, size, _ = step.split(" ", 2)
            weight = int(size)
            steps, units = steps + 1, units + weight
            work += weight + _WORK.get(kind, _STEP_WORK)
            if kind in _TAKE_OUT:
                searched = math.inf
            elif weight and weight < searched:
                work, searched = work + _SEARCH_WORK, weight
        if number and (steps > MOST_STEPS or units > MOST_UNITS or work > _MOST_WORK):
            return number
    return len(requests)


def words_of(steps: list[str]) -> list[str | bytes]:
    """Steps as they are sent: in UTF-8, whatever the encoding of the client."""
    if len(steps) == 1 and steps[0].isascii():
        return [steps[0]]
    return [step if step.isascii() else step.encode() for step in steps]


def answer_of(reply: Any) -> Answer:
    """A reply as a list, also where it is a line of numbers, which is faster to read."""
    return reply if isinstance(reply, list) else list(map(int, reply.split()))


def parts_of(numbers: Answer, requests: list[Request]) -> list[Answer]:
    """The reply to a shared call as what each request would have got alone."""
    if len(requests) == 1:
        return [numbers]
    parts, at = [], 1
    for request in requests:
        end = at + NUMBERS * len(request.steps)
        parts.append([numbers[0], *numbers[at:end]])
        at = end
    return parts
