"""What is held in Postgres.

A hold is a row of the bucket that has a time, its end, but neither number nor units, so that no
count finds it. The ``token`` of it is how many ms it was to last. A step that looks for the last
number meets the row that has none first, and pays for a look at it only then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.postgres.functions import held_row
from pyrate_limiter.buckets.postgres.literals import CLOCK, literal
from pyrate_limiter.errors import CannotHold

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.session import Attempt
    from pyrate_limiter.buckets.postgres.statements import Steps


def hold(steps: Steps, name: str, now: int | None, hold_ms: int | None) -> Program[tuple[int, int]]:
    """Hold, or for None end that, whatever the outage policy: nothing stands in for it.

    Returns:
        Whether a hold stood, and in how many ms the one that stands now is over.

    Raises:
        CannotHold: the table has only the columns of 4.5.1.
    """
    layout = yield from steps.layout()
    if not layout.has_columns:
        raise CannotHold(
            layout.table, "a role that may add columns to the table has to use it once"
        )
    table, lock = layout.table, steps.lock(name)
    held = held_row(f"AND key = {lock}" if steps.keyed else "")
    new = "" if hold_ms is None else f"UNION ALL SELECT ms + {hold_ms}, {hold_ms} FROM now "
    kept = "FROM stood" if hold_ms is not None else "FROM stood WHERE false"

    def once(attempt: Attempt) -> Program[tuple[int, int]]:
        sent = time.monotonic()
        *_, answer = yield from attempt.fetch(
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {attempt.bounds(durable=steps.is_durable)}"
            f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE; SELECT pg_advisory_xact_lock({lock}); "
            f"WITH now AS MATERIALIZED (SELECT {CLOCK if now is None else now} AS ms, "
            f"{CLOCK} AS clock), "
            f"old AS (DELETE FROM {table} WHERE {held} RETURNING at_ms, token), "
            "stood AS (SELECT least(at_ms, ms + token) AS until, token AS length FROM old, now "
            "WHERE at_ms > ms), "
            f"held AS (INSERT INTO {table} (name, weight, item_timestamp, at_ms, token, key) "
            f"SELECT {literal(name)}, 0, to_timestamp(until / 1000.0), until, length, "
            f"{lock if steps.keyed else 'NULL'} FROM (SELECT until, length {kept} "
            f"{new}ORDER BY until DESC LIMIT 1) longest, now WHERE until > ms RETURNING at_ms) "
            "SELECT (SELECT count(*) FROM stood), "
            "coalesce((SELECT at_ms FROM held), ms) - ms, clock FROM now; COMMIT"
        )
        stood, left, read = map(int, answer[0])
        steps.session.learn(sent, read)
        return stood, left

    answer: tuple[int, int] = yield from steps.session.transact(once, None)
    return answer
