"""What claims leave behind, and what they cost."""

import sqlite3

import pytest

from pyrate_limiter import (
    FixedWindow,
    InMemoryBucket,
    MultiprocessBucket,
    Rate,
    RateItem,
    SQLiteBucket,
    StateBucket,
)
from pyrate_limiter.testing import ManualClock

T = 1_000_000
MINUTE = 60_000


def with_clock(bucket):
    bucket._clock = ManualClock(T)
    return bucket, bucket._clock


def claims_kept(bucket):
    if isinstance(bucket, StateBucket):
        queue = bucket.store.dump()[3]
        return 0 if queue is None else len(queue[2])
    return len(bucket._pending or ())


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_a_claim_that_nobody_settles_keeps_no_object_for_the_units_after_it(make):
    bucket, clock = with_clock(make([Rate(2, 10)]))
    assert bucket.put(RateItem("a", T, 2))
    assert bucket.claim(RateItem("gone", T), 1000, 0).wait_ms
    admitted = 0
    for _ in range(400):
        clock.advance(5)
        admitted += bucket.put(RateItem("a", clock.ms))
    assert admitted > 200
    assert claims_kept(bucket) == 1
    clock.advance(2 * MINUTE)
    assert bucket.claim(RateItem("b", clock.ms, 2), 1000, 0).wait_ms == 0
    assert bucket.claim(RateItem("b", clock.ms, 2), 1000, 0).wait_ms
    assert claims_kept(bucket) == 1


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_a_bucket_is_idle_again_after_somebody_has_waited_at_it(make):
    bucket, clock = with_clock(make([Rate(1, 10)]))
    assert bucket.put(RateItem("a", T))
    item = RateItem("b", T)
    clock.advance(bucket.claim(item, 1000, 0).wait_ms)
    assert bucket.settle(item, clock.ms).wait_ms == 0
    assert not bucket.retire(clock.ms)
    clock.advance(11)
    assert bucket.retire(clock.ms)


def test_a_full_queue_is_looked_through_for_room_once():
    class Counting(InMemoryBucket):
        looks = 0

        def _crowded(self, *where):
            self.looks += 1
            return super()._crowded(*where)

    bucket, _ = with_clock(Counting([Rate(1, 10)]))
    for _ in range(1000):
        assert bucket.claim(RateItem("a", T), 1 << 40, 0).allowed
    assert bucket.looks <= 2000


def test_the_room_of_many_that_were_released_is_used_in_order():
    bucket, _ = with_clock(InMemoryBucket([Rate(1, 10)]))
    items = [RateItem("a", T) for _ in range(100)]
    assert all(bucket.claim(item, 1 << 40, 0).allowed for item in items)
    for item in items[20:80]:
        assert bucket.release(item)
    again = [RateItem("b", T) for _ in range(60)]
    assert all(bucket.claim(item, 1 << 40, 0).allowed for item in again)
    assert [item.timestamp for item in again] == [item.timestamp for item in items[20:80]]


def test_several_claims_are_one_transaction_in_sqlite(tmp_path):
    rates = [Rate(2, 1000)]
    path = str(tmp_path / "limits.db")
    with SQLiteBucket.init_from_file(rates, db_path=path) as bucket:
        other = sqlite3.connect(path)
        assert bucket.put(RateItem("a", bucket.now(), 2))
        before = other.execute("PRAGMA data_version").fetchone()
        committed = []
        bucket._db._commit = _counting(bucket._db._commit, committed)
        items = [RateItem("a", bucket.now()) for _ in range(5)]
        assert len(bucket.claim_several(items, 1 << 40, 0)) == 5
        assert len(committed) == 1
        assert other.execute("PRAGMA data_version").fetchone() != before
        assert bucket.count() == 7
        other.close()


def test_several_claims_are_one_commit_in_shared_memory():
    with MultiprocessBucket.init([Rate(2, 1000)]) as bucket:
        assert bucket.put(RateItem("a", bucket.now(), 2))
        before = bucket.items.file.commits
        items = [RateItem("a", bucket.now()) for _ in range(5)]
        assert len(bucket.claim_several(items, 1 << 40, 0)) == 5
        assert bucket.items.file.commits == before + 1


def _counting(call, calls):
    def count():
        calls.append(call)
        return call()

    return count


@pytest.mark.parametrize(
    "make", [InMemoryBucket, MultiprocessBucket.init, SQLiteBucket.init_from_file]
)
def test_newcomers_are_told_of_the_claims_that_a_late_one_did_not_have_to_mind(make):
    bucket = make([Rate(3, 10)], algorithm=FixedWindow())
    with bucket:
        clock = bucket._clock = ManualClock(26)
        late, later = RateItem("late", 26, 2), RateItem("later", 40, 2)
        bucket.claim_several([late], 20, 0, 34)
        clock.advance(14)
        assert bucket.put(RateItem("a", 40, 2))
        assert bucket.claim(later, 20, 0).wait_ms == 10
        assert bucket.settle(late, 40).retry_after_ms == 10  # where `later` would have to wait
        assert not bucket.put(RateItem("a", 40, 4))
        assert bucket.waiting(RateItem("a", 40, 2)) == 20
