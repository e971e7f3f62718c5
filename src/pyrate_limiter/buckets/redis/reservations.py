"""What a Redis bucket knows of an item that it has stored, or may have stored."""

from __future__ import annotations

import hashlib
import os
import time
from random import Random
from typing import TYPE_CHECKING

from pyrate_limiter._core.validation import check_item
from pyrate_limiter.buckets.redis.request import MOST_UNITS, Step
from pyrate_limiter.buckets.remote.in_doubt import InDoubt
from pyrate_limiter.errors import InvalidTimestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.redis.request import Outcome
    from pyrate_limiter.buckets.remote.fallback import FallbackUnits

PATIENT_MS = 1 << 52  # the largest that Lua counts exactly, and for ever
UNMARKED = "0"

MOST_IN_NAME = 512  # characters: it stands in the name of each unit

_UNASKED_MS = 50  # a waiter goes without asking again where he was told so no longer ago

_STORING = {"reserve", "next", "part", "confirm"}

# One of our own: a program that seeds the common one must not get the same ids again.
_random = Random()  # noqa: S311 - the ids need to be different, not secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


class Stored:
    """The units of an item in Redis, or in the fallback bucket."""

    __slots__ = ("ask", "due", "fallback", "label", "late", "mark", "weight")

    def __init__(self, label: str, weight: int) -> None:
        self.label: str = label  # "name:id", as in the names of the members
        self.weight: int = int(weight)  # the units that it holds; 0 when they were given back
        self.mark: str | None = UNMARKED  # as in the names of the members; None: not known
        # On the monotonic clock: when to go, and from when on it is late.
        self.due: float = 0.0
        self.late: float = 0.0
        self.ask: bool = False
        self.fallback: FallbackUnits | None = None

    def place(self, sent: float, step: Step, outcome: Outcome) -> None:
        """Note the outcome of a step that was sent at ``sent``.

        The server read its clock at some time since then. So the waiter goes when it is due for
        certain, and takes itself for late as soon as it may be.
        """
        wait = outcome.wait
        self.mark, self.ask = mark_of(step, outcome), outcome.slack < 0 or wait > _UNASKED_MS
        self.due = time.monotonic() + wait / 1000 if wait else sent
        self.late = sent + (wait + 1) / 1000


def stored_by(reservation: Reservation) -> Stored | None:
    """What is stored for a reservation; None where its units were given back."""
    stored: Stored | None = reservation.handle
    return stored if stored is not None and (stored.weight or stored.fallback) else None


def label_of(name: str) -> str:
    """A new label for an item of that name."""
    if name.__class__ is not str or len(name) > MOST_IN_NAME or not name.isascii():
        name = safe_name(name)
    return f"{name}:{_random.getrandbits(64):016x}"


def new_id() -> str:
    """Sixteen hexadecimal digits that no other call has."""
    return f"{_random.getrandbits(64):016x}"


def check_in_reach(item: RateItem) -> None:
    """Refuse what cannot be stored, or whose time Lua cannot count exactly.

    Raises:
        InvalidWeight: the weight is negative.
        InvalidTimestamp: the timestamp is no whole number of ms, or out of all bounds.
        WrongType: the weight is no whole number.
    """
    check_item(item)
    if not -PATIENT_MS < item.timestamp < PATIENT_MS:
        raise InvalidTimestamp(item.timestamp)


def text_of(member: object) -> str:
    """A member of the sorted set, whether the client has decoded it or not."""
    return member.decode("utf-8", "surrogateescape") if isinstance(member, bytes) else str(member)


def safe_name(name: object) -> str:
    """What stands for a name in Redis: itself, but for what is no text, no UTF-8, or very long.

    A long one is cut, and a hash of it put in the place of the rest.
    """
    text = str.__str__(name) if isinstance(name, str) else repr(name)
    encoded = text.encode("utf-8", "backslashreplace")
    if len(text) > MOST_IN_NAME:
        return f"{safe_name(text[:64])}#{hashlib.sha256(encoded).hexdigest()}"
    return encoded.decode()


def mark_of(step: Step, outcome: Outcome) -> str:
    """The mark that units have by a step that has stored them."""
    if outcome.wait:
        return f"-{outcome.wait}" if outcome.slack < 0 else f"+{outcome.wait}"
    if step.kind == "confirm" and outcome.slack > 0:
        return f"={str(step.first)[1:]}"
    return UNMARKED


def undoing(step: Step, outcome: Outcome) -> Step | None:
    """The step that gives back what one has stored by its outcome."""
    kind, weight, _, first, label = step
    if outcome.verdict or kind not in _STORING:
        return None
    if kind == "part":
        return Step("cancel", weight, UNMARKED, first, label)
    return Step("cancel", weight, mark_of(step, outcome), 1, label)


class StepsInDoubt(InDoubt[Step]):
    """Steps that drop what calls may have stored whose answers never came."""

    __slots__ = ()

    def add(self, steps: Sequence[Step]) -> None:
        """Have later calls drop what these steps may have stored."""
        for step in steps:
            kind, weight, mark, first, label = step
            if kind == "part":
                self.extend([Step("cancel", weight, UNMARKED, first, label)])
            elif kind in _STORING:
                self.extend([Step("forget", weight, 0, 0, label)])
                if kind == "confirm":  # it may not have run: then they have their mark still
                    self.extend([Step("cancel", weight, mark, 1, label)])
            elif kind == "forget" or (kind == "cancel" and first == 1):
                self.extend([step])

    def some(self) -> list[Step]:
        """Take out what one call may make good."""

        def fits(taken: list[Step], step: Step) -> bool:
            return not taken or sum(each.weight for each in [*taken, step]) <= MOST_UNITS

        return self.take(fits)
