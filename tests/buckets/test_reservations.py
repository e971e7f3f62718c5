"""What reservations leave behind, and what they cost."""

import copy
import pickle
import sqlite3

import pytest

from pyrate_limiter import (
    Decision,
    FixedWindow,
    InMemoryBucket,
    MultiprocessBucket,
    Rate,
    RateItem,
    Reservation,
    SQLiteBucket,
    StateBucket,
)
from pyrate_limiter.testing import ManualClock

T = 1_000_000
MINUTE = 60_000


def with_clock(bucket):
    bucket._clock = ManualClock(T)
    return bucket, bucket._clock


def reservations_kept(bucket):
    if isinstance(bucket, StateBucket):
        queue = bucket.store.dump()[3]
        return 0 if queue is None else len(queue[2])
    return len(bucket._pending or ())


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_a_reservation_that_nobody_confirms_keeps_no_object_for_the_units_after_it(make):
    bucket, clock = with_clock(make([Rate(2, 10)]))
    assert bucket.put(RateItem("a", T, 2))
    assert bucket.reserve(RateItem("gone", T), 1000, 0).wait_ms
    admitted = 0
    for _ in range(400):
        clock.advance(5)
        admitted += bucket.put(RateItem("a", clock.ms))
    assert admitted > 200
    assert reservations_kept(bucket) == 1
    clock.advance(2 * MINUTE)
    assert bucket.reserve(RateItem("b", clock.ms, 2), 1000, 0).wait_ms == 0
    assert bucket.reserve(RateItem("b", clock.ms, 2), 1000, 0).wait_ms
    assert reservations_kept(bucket) == 1


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_a_bucket_is_idle_again_after_somebody_has_waited_at_it(make):
    bucket, clock = with_clock(make([Rate(1, 10)]))
    assert bucket.put(RateItem("a", T))
    reservation = bucket.reserve(RateItem("b", T), 1000, 0)
    clock.advance(reservation.wait_ms)
    assert bucket.confirm(reservation, clock.ms).wait_ms == 0
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
        assert bucket.reserve(RateItem("a", T), 1 << 40, 0).allowed
    assert bucket.looks <= 2000


def test_the_room_of_many_that_were_cancelled_is_used_in_order():
    bucket, _ = with_clock(InMemoryBucket([Rate(1, 10)]))
    made = [bucket.reserve(RateItem("a", T), 1 << 40, 0) for _ in range(100)]
    for reservation in made[20:80]:
        assert bucket.cancel(reservation)
    again = [RateItem("b", T) for _ in range(60)]
    assert all(bucket.reserve(item, 1 << 40, 0).allowed for item in again)
    assert [item.timestamp for item in again] == [one.item.timestamp for one in made[20:80]]


def test_several_reservations_are_one_transaction_in_sqlite(tmp_path):
    rates = [Rate(2, 1000)]
    path = str(tmp_path / "limits.db")
    with SQLiteBucket.init_from_file(rates, db_path=path) as bucket:
        other = sqlite3.connect(path)
        assert bucket.put(RateItem("a", bucket.now(), 2))
        before = other.execute("PRAGMA data_version").fetchone()
        committed = []
        bucket._db._commit = _counting(bucket._db._commit, committed)
        items = [RateItem("a", bucket.now()) for _ in range(5)]
        assert len(bucket.reserve_several(items, 1 << 40, 0)) == 5
        assert len(committed) == 1
        assert other.execute("PRAGMA data_version").fetchone() != before
        assert bucket.count() == 7
        other.close()


def test_several_reservations_are_one_commit_in_shared_memory():
    with MultiprocessBucket.init([Rate(2, 1000)]) as bucket:
        assert bucket.put(RateItem("a", bucket.now(), 2))
        before = bucket.items.file.commits
        items = [RateItem("a", bucket.now()) for _ in range(5)]
        assert len(bucket.reserve_several(items, 1 << 40, 0)) == 5
        assert bucket.items.file.commits == before + 1


def _counting(call, calls):
    def count():
        calls.append(call)
        return call()

    return count


@pytest.mark.parametrize(
    "make", [InMemoryBucket, MultiprocessBucket.init, SQLiteBucket.init_from_file]
)
def test_newcomers_are_told_of_the_reservations_that_a_late_one_did_not_have_to_mind(make):
    bucket = make([Rate(3, 10)], algorithm=FixedWindow())
    with bucket:
        clock = bucket._clock = ManualClock(26)
        (late,) = bucket.reserve_several([RateItem("late", 26, 2)], 20, 0, 34)
        clock.advance(14)
        assert bucket.put(RateItem("a", 40, 2))
        assert bucket.reserve(RateItem("later", 40, 2), 20, 0).wait_ms == 10
        assert bucket.confirm(late, 40).retry_after_ms == 10  # where `later` would have to wait
        assert not bucket.put(RateItem("a", 40, 4))
        assert bucket.waiting(RateItem("a", 40, 2)) == 20


# The value ----------------------------------------------------------------------------------------


def test_a_reservation_is_a_value():
    one, two = (
        Reservation(RateItem("a", T, 2), 1500, handle, 3, 9) for handle in ("here", "there")
    )
    assert one == two  # by what the bucket finds the units is its own affair
    assert hash(one) == hash(two)
    assert one != Reservation(RateItem("a", T, 1), 1500, "x", 3, 9)
    assert one != Decision(None, None, 1500, 3, 9)
    assert Decision(None, None, 1500, 3, 9) != one
    assert bool(one) is one.allowed is True
    assert one.wait == 1.5
    with pytest.raises(AttributeError, match="handle"):
        one.handle = "elsewhere"
    assert repr(one) == "Reservation(RateItem(name=a, weight=2, timestamp=1000000), wait_ms=1500)"


def test_a_reservation_can_be_copied_and_pickled():
    one = Reservation(RateItem("a", T, 2), 1500, ["token"], 3, 9)
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert other == one
        assert (other.handle, other.remaining, other.reset_after_ms) == (["token"], 3, 9)


def test_a_part_and_a_later_moment_are_of_the_same_units():
    one = Reservation(RateItem("a", T, 5), 1500, ["token"], 3, 9)
    part = one.part(2)
    assert (part.item.name, part.item.timestamp, part.item.weight) == ("a", T, 2)
    assert one.item.weight == 5
    assert part.handle is one.handle
    assert one.with_wait(1500) is one
    now = one.with_wait()
    assert (now.wait_ms, now.item, now.handle, now.remaining) == (0, one.item, one.handle, None)
