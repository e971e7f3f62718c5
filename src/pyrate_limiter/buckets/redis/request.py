"""What a Redis bucket asks of its server: steps of a script, in one call of it."""

from __future__ import annotations

import hashlib
import math
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter._core.files import text_of
from pyrate_limiter.abstracts.algorithm import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.redis.protocols import Reply

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


class Head(NamedTuple):
    """What a call begins with, and has in common with those whose steps may follow in it."""

    script: Script
    key: str
    words: tuple[object, ...]  # in `ARGV`, before the steps

    def at(self, stamp: object, clock: object) -> Head:
        """The same, to be judged by a stamp of a clock that says this, not by the server's."""
        return Head(self.script, self.key, (f"{stamp} {clock}{str(self.words[0])[3:]}",))


class Step(NamedTuple):
    """One step of a script, sent as a line of these words; the script says what they mean."""

    kind: str
    weight: int
    first: int | str
    second: int
    label: str  # "name:id" in a log, an id in a state


class Outcome(NamedTuple):
    """What a script answers to a step; of some kinds it means something else, as is said there."""

    now: int  # the time by which all steps of the call were judged, in ms
    verdict: int  # the number of the rate that refuses, from 1 on; 0: admitted
    wait: int  # ms until it fits, -1 for never
    slack: int  # ms between the earliest moment and the one given
    remaining: int
    reset_after_ms: int

    def decision(self, rates: Sequence[Rate]) -> Decision:
        """The verdict on somebody who does not wait."""
        failing, wait = (rates[self.verdict - 1], self.wait) if self.verdict else (None, -1)
        retry_after_ms = wait if wait >= 0 else None
        return Decision(failing, retry_after_ms, 0, self.remaining, self.reset_after_ms)


# Of a line of numbers: the time, and all others for each step. Of a user's script, what it likes.
Answer = list[int]
_NUMBERS = len(Outcome._fields) - 1


def outcome_of(answer: Answer) -> Outcome:
    """What an answer says of its only step."""
    return tuple.__new__(Outcome, answer)  # as `Outcome._make` does, in half the time


def outcomes_of(answer: Answer) -> list[Outcome]:
    """What an answer says of each step."""
    if len(answer) == 1 + _NUMBERS:
        return [outcome_of(answer)]
    places = range(1, len(answer), _NUMBERS)
    return [Outcome(answer[0], *answer[place : place + _NUMBERS]) for place in places]


class Request:
    """One call of a script.

    Args:
        head: what it begins with.
        steps: what comes after that.
        limit: seconds that the call may take; None is no limit.
        undo: what undoes a step by its outcome, if anything; it is sent if nobody waits for the
            answer any more when it comes.
        shared: whether steps of others may follow in the same call.

    Attributes:
        asked: when it was given to the client, on the monotonic clock; None while it is not, also
            because the client's pool has no connection left.
        gone: nobody waits for its answer any more.
    """

    __slots__ = ("_undo", "asked", "gone", "head", "limit", "shared", "steps")

    def __init__(
        self,
        head: Head,
        steps: list[Step],
        limit: float | None,
        undo: Callable[[Step, Outcome], Step | None] | None = None,
        shared: bool = True,
    ) -> None:
        self.head: Head = head
        self.steps: list[Step] = steps
        self.limit: float | None = limit
        self._undo = undo
        self.shared: bool = shared
        self.asked: float | None = None
        self.gone: bool = False

    @property
    def group(self) -> Hashable:
        """What the requests have in common that may go in one call."""
        return self.head if self.shared else (self.head, id(self))

    def undone(self, answer: Answer) -> Request | None:
        """What undoes it, if anything, when its answer came and nobody waits for it any more."""
        if self._undo is None:
            return None
        steps = [self._undo(*each) for each in zip(self.steps, outcomes_of(answer))]
        undoing = [step for step in steps if step is not None]
        return Request(self.head, undoing, None) if undoing else None


def fitting(requests: list[Request]) -> int:
    """How many of the shared requests, from the first on, one call of a script may have."""
    steps = units = work = 0
    searched = math.inf  # from this weight on, room in front of others was searched for
    for number, request in enumerate(requests):
        for kind, weight, *_ in request.steps:
            steps, units = steps + 1, units + weight
            work += weight + _WORK.get(kind, _STEP_WORK)
            if kind in _TAKE_OUT:
                searched = math.inf
            elif weight and weight < searched:
                work, searched = work + _SEARCH_WORK, weight
        if number and (steps > MOST_STEPS or units > MOST_UNITS or work > _MOST_WORK):
            return number
    return len(requests)


def words_of(requests: Sequence[Request]) -> list[object]:
    """The key and what follows it in a call for requests of one group, which is made now."""
    _, key, words = requests[0].head
    sent, now = [key, *words], time.monotonic()
    for request in requests:
        request.asked = now
        for kind, weight, first, second, label in request.steps:
            line = f"{kind} {weight} {first} {second} {label}"
            # In UTF-8, whatever the encoding of the client.
            sent.append(line if line.isascii() else line.encode())
    return sent


def answer_of(reply: Reply) -> Answer:
    """A reply as a list, also where it is a line of numbers, which is faster to read."""
    return reply if isinstance(reply, list) else list(map(int, reply.split()))


def parts_of(answer: Answer, requests: list[Request]) -> list[Answer]:
    """The answer to a shared call as what each request would have got alone."""
    if len(requests) == 1:
        return [answer]
    parts, at = [], 1
    for request in requests:
        end = at + _NUMBERS * len(request.steps)
        parts.append([answer[0], *answer[at:end]])
        at = end
    return parts
