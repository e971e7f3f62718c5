"""What is sent to a step on the server and what it answers: rows of numbers, by their names.

The SQL calls the number ``now`` of the first ``p_now``, and fills in that of the second from
``v_now``; the text of both calls and answers is made from the tuples here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter.buckets.postgres.literals import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable


class Units(NamedTuple):
    """Units of an item; ``token`` marks them."""

    name: str
    weight: int
    token: int


class Ask(NamedTuple):
    """What ``reserve.sql`` is told of somebody's wish.

    Attributes:
        max_wait: ms that the caller is willing to wait.
        limit: ms that it may take; 0 is as long as the pool waits.
        buffer: ms after the earliest moment; None is the failing rate's pad.
        store: whether to store anything.
        look: whether to count what remains.
        not_before: the earliest moment that is wanted, in ms.
        now: when the units are asked for; None is the server's time.
        clock: the reading of another clock than the server's.
        at: where a policy that runs elsewhere has put the units, if one has.
        digest: what it has seen of the log, and is to be unchanged.
        bound: from which moment on it has seen the log.
    """

    max_wait: int
    limit: int
    buffer: int | None = None
    store: bool = True
    look: bool = False
    not_before: int | None = None
    now: int | None = None
    clock: int | None = None
    at: int | None = None
    digest: int = 0
    bound: int | None = None


class Try(NamedTuple):
    """What ``reserve.sql`` is told of a try to fulfil it.

    Attributes:
        max_wait: what is left of that.
        limit: what is left of that.
        unusual: whether it is other than a plain acquisition.
        again: whether an earlier try may have stored it.
        since: the server's ms before which no try was made.
        expires: the server's ms after which nobody waits for an answer.
        swept: what is before that moment has been deleted.
        fixed: whether windows are aligned to the clock.
        durable: whether the commit waits for the disk.
    """

    max_wait: int
    limit: int
    unusual: bool
    again: bool
    since: int
    expires: int
    swept: int
    fixed: bool
    durable: bool


class ConfirmRequest(NamedTuple):
    """What ``confirm.sql`` is told, see `Ask`."""

    now: int | None
    max_wait: int
    at: int | None = None
    digest: int = 0
    bound: int | None = None
    limit: int = 0
    fixed: bool = False
    durable: bool = False


class CancelRequest(NamedTuple):
    """What ``cancel.sql`` is told, see `Ask`.

    Attributes:
        since: the server's ms before which the units are not stored.
        until: the server's ms after which they are not.
        expires: the server's ms after which they do not come to be stored any more.
        kept: how many of those stored together stay, which is the same when it is done again.
    """

    since: int
    until: int
    expires: int = NONE
    kept: int = 0
    limit: int = 0
    durable: bool = False


class Answer(NamedTuple):
    """What ``reserve.sql`` answers.

    Attributes:
        failing: the number of the rate that is short, from 1 on; 0 or None is admitted. Or one of
            the codes below.
        moment: when the units fit, or are stored, in ms; None for never.
        now: when they were asked for.
        remaining: units that would fit in; None where nobody has counted.
        newest: when the last unit is stored.
        swept: what was before that moment has been deleted.
        held: until when nothing is admitted.
        read: the server's clock.
    """

    failing: int | None
    moment: int | None
    now: int
    remaining: int | None
    newest: int | None
    swept: int | None
    held: int | None
    read: int


class Confirmed(NamedTuple):
    """What ``confirm.sql`` answers, see `Answer`; no ``moment`` where the units are not there."""

    failing: int
    moment: int | None
    now: int
    read: int


class Cancelled(NamedTuple):
    """What ``cancel.sql`` answers: how many units it has taken out, or a code; and the clock."""

    units: int
    read: int


STALE = -1
"""A code: the transaction would not see what the lock has waited for."""
EXPIRED = -2
"""A code: the caller has been told by now that there is no answer; or units may still come."""
CHANGED = -3
"""A code: the log is not the one any more that a policy has seen."""


def as_array(row: Iterable[int | None]) -> str:
    """The row as an array in SQL."""
    return f"'{{{_listed(row)}}}'"


def reserve_array(ask: Ask, attempt: Try) -> str:
    """What ``reserve.sql`` is told, as an array in SQL."""
    return f"'{{{_wish(ask)},{_TRY % attempt}}}'"


def _listed(row: Iterable[int | None]) -> str:
    return ",".join([str(NONE if it is None else int(it)) for it in row])


_wish = lru_cache(maxsize=256)(_listed)  # most callers want the same
_TRY = ",".join("%d" for _ in Try._fields)
