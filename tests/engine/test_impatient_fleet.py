"""Processes full of callers that give up, some of which are killed."""

import json
import random
import time
from collections import Counter

import pytest

from tests.support.impatient_fleet import bucket_at, fleet, places

pytestmark = pytest.mark.alone

LIMIT, INTERVAL = 20, 300


def used_at(kind, where, name):
    """When the stored units were used; what was reserved for nobody is not used."""
    from pyrate_limiter import Rate

    bucket, driver = bucket_at(kind, where, name, [Rate(LIMIT, INTERVAL)])
    with driver, bucket:
        if kind == "redis":
            units = driver.zrange(name, 0, -1, withscores=True)
            return [moment for unit, moment in units if b"-" not in unit]
        stamps = Counter(bucket.peek(place).timestamp for place in range(bucket.count()))
        if kind == "sqlite":  # Postgres counts what is overdue as used
            with bucket._lock:
                stamps -= Counter(dict(bucket._rows(bucket._sql.pending)))
        return sorted(stamps.elements())


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_those_who_are_left_use_the_limit_and_keep_it(kind, tmp_path):
    where, name = places(kind, tmp_path)
    with fleet(5, kind, where, name, LIMIT, INTERVAL, 40, 0.4, 6) as processes:
        for process in processes[:3]:
            time.sleep(random.uniform(0.3, 0.8))
            process.kill()
        killed = time.time()
        answers = [json.loads(process.communicate(timeout=60)[0]) for process in processes[3:]]
    # A killed process leaves a second's worth of units at the most, for a window each.
    free = killed + 1 + INTERVAL / 1000
    went = sorted(moment for answer in answers for moment in answer["went"])
    # What was reserved for a process that was killed is used by nobody, and over by then.
    stamps = [stamp for stamp in used_at(kind, where, name) if stamp > 1000 * free]
    for place, stamp in enumerate(stamps):
        assert sum(1 for other in stamps[place:] if other <= stamp + INTERVAL) <= LIMIT
    used = [moment for moment in went if moment > free]
    assert used
    # On a machine of our own they use all of it; a busy one may stop them for a while.
    assert len(used) >= LIMIT * (went[-1] - free) / (INTERVAL / 1000) / 2
