"""Reservations for a line of waiters: several at once, cancelled in part, at the true time."""

import asyncio
import time

import pytest

from pyrate_limiter import (
    FixedWindow,
    PostgresBucket,
    PostgresKeys,
    Rate,
    RateItem,
)
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.postgres import decisions, session, statements
from pyrate_limiter.testing import ManualClock
from tests.support import postgres_fixtures as postgres
from tests.support.postgres_fixtures import FOREVER, HOUR, Own

START = 1_000_000
STEPPED = START - 600_000  # by far more than an interval
pool = postgres.shared_pool


class OwnWindow(FixedWindow):
    """Another one."""


@pytest.fixture
def sent(monkeypatch):
    """What is sent to the server."""
    texts, exchange = [], session.exchange

    def counting(connection, text, deadline):
        texts.append(text)
        return exchange(connection, text, deadline)

    monkeypatch.setattr(session, "exchange", counting)
    return texts


def make(pool, *rates, keyed=False, algorithm=None):
    if keyed:
        bucket = PostgresKeys(pool, postgres.table(), algorithm=algorithm).keyed(rates)
    else:
        bucket = PostgresBucket(pool, postgres.table(), rates, algorithm)
    bucket._clock = ManualClock(START)
    bucket.count()
    return bucket


def items(*weights, name="a"):
    return [RateItem(name, START, weight) for weight in weights]


def stamped(*moments):
    return [RateItem("a", moment, 1) for moment in moments]


def moments(some):
    return [item.timestamp - START for item in some]


@pytest.mark.parametrize("keyed", [False, True])
def test_several_reservations_are_one_round_trip_and_keep_their_order(pool, sent, keyed):
    bucket = make(pool, Rate(2, 100), keyed=keyed)
    line = items(1, 1, 1, 2, 1)
    sent.clear()
    decisions = bucket.reserve_several(line, FOREVER, 0)
    assert len(sent) == 1
    assert [decision.wait_ms for decision in decisions] == [0, 0, 101, 202, 303]
    assert moments(line) == [0, 0, 101, 202, 303]
    assert bucket.count() == 6
    assert bucket.confirm(decisions[2], START + 101).allowed
    assert all(bucket.cancel_several(decisions[3:]))


def test_several_reservations_end_with_the_first_refusal(pool):
    bucket = make(pool, Rate(2, 100))
    line = items(2, 1, 1, 1)
    decisions = bucket.reserve_several(line, 101, 0)
    assert [decision.allowed for decision in decisions] == [True, True, True, False]
    assert decisions[-1].retry_after_ms == 202
    assert bucket.count() == 4
    assert [d.allowed for d in bucket.reserve_several(items(3, 1), FOREVER)] == [False]
    assert [d.allowed for d in bucket.reserve_several(items(0, 1), FOREVER)] == [True]


@pytest.mark.parametrize(
    ("algorithm", "at", "others"), [(None, 151, 0), (FixedWindow(), 150, 200), (Own(), 151, 252)]
)
def test_no_reservation_is_placed_before_the_one_that_the_line_holds(pool, algorithm, at, others):
    bucket = make(pool, Rate(3, 100), algorithm=algorithm)
    held, line = items(2, 2), items(1)
    bucket.reserve_several(held, FOREVER, 50)
    bucket.reserve_several(line, FOREVER, 0, held[1].timestamp)
    assert moments(held + line) == [0, at, at]
    (first,) = items(1)
    # Windows are filled in order, and under a policy of one's own all go behind all others.
    assert bucket.reserve(first, FOREVER, 0).wait_ms == others


@pytest.mark.parametrize("algorithm", [None, FixedWindow(), Own()])
def test_a_line_goes_on_behind_what_it_held_before_the_clock_stepped_back(pool, algorithm):
    bucket = make(pool, Rate(1, 100), algorithm=algorithm)
    held = items(1, 1)
    bucket.reserve_several(held, FOREVER, 0)
    bucket._clock.set(STEPPED)
    line = stamped(STEPPED, STEPPED)
    decisions = bucket.reserve_several(line, 1000, 0, held[1].timestamp)
    assert [decision.allowed for decision in decisions] == [True, True]
    assert STEPPED + 100 < line[0].timestamp < line[1].timestamp <= STEPPED + 400


def test_a_clock_that_steps_back_among_the_reservations_of_a_line_refuses_none_of_them(pool):
    bucket = make(pool, Rate(1, 100), algorithm=Own())  # it reserves for one after the other
    bucket._clock.set(STEPPED)
    line = stamped(START, START, STEPPED, STEPPED)
    decisions = bucket.reserve_several(line, 1000, 0)
    assert [decision.allowed for decision in decisions] == [True] * 4
    assert STEPPED + 100 < line[2].timestamp < line[3].timestamp <= STEPPED + 400


@pytest.mark.parametrize("algorithm", [None, FixedWindow(), Own()])
def test_a_reservation_that_moves_on_after_a_step_of_the_clock_holds_up_nobody(pool, algorithm):
    bucket = make(pool, Rate(1, 100), algorithm=algorithm)
    held = items(1, 1, 1)
    made = bucket.reserve_several(held, FOREVER, 0)
    bucket._clock.set(START + 190)
    assert bucket.confirm(made[1], START + 190).allowed  # late, and in the way of the next
    bucket._clock.set(STEPPED)
    assert bucket.confirm(made[2], STEPPED, 1000).wait_ms <= 100
    decision = bucket.reserve(*stamped(STEPPED), 1000, 0)
    assert decision.allowed
    assert decision.wait_ms <= 400


@pytest.mark.parametrize("algorithm", [None, FixedWindow()])
def test_a_clock_that_steps_ahead_among_the_reservations_of_a_line_fails_none_of_them(
    pool, monkeypatch, algorithm
):
    monkeypatch.setattr(statements, "_LEASE_SECONDS", 1.0)
    bucket = PostgresBucket(pool, postgres.table(), [Rate(5, 60_000)], algorithm)
    name = bucket.table
    # To the server this is the same: time passes after the first has been stored.
    postgres.execute(
        f"CREATE FUNCTION {name}_late() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(1.2); RETURN NEW; END'; "
        f"CREATE TRIGGER late BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_late()"
    )
    line = [RateItem("a", bucket.stamp(), 1) for _ in range(3)]
    decisions = bucket.reserve_several(line, limit_ms=30_000)
    assert [decision.allowed for decision in decisions] == [True]
    assert bucket.count() == 1


@pytest.mark.parametrize("algorithm", [None, FixedWindow(), Own()])
def test_a_refusal_that_is_remembered_names_no_longer_wait_after_a_step_of_the_clock(
    pool, monkeypatch, sent, algorithm
):
    monkeypatch.setattr(decisions, "_REMEMBERED_SECONDS", 60)
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1, 50_000)], algorithm)
    assert bucket.put(RateItem("a", bucket.stamp()))
    while bucket.put(RateItem("a", bucket.stamp())):
        pass  # a window of the clock has begun
    stepped = bucket._session.server_ms(time.monotonic()) - 3_600_000
    bucket._session.learn(time.monotonic(), stepped)
    sent.clear()
    item = RateItem("a", bucket.stamp())
    assert 0 < bucket.reserve(item).retry_after_ms <= 50_001
    assert 0 < bucket.waiting(item) <= 50_001
    assert not sent


def test_one_statement_takes_a_bounded_number_of_units(pool):
    bucket = make(pool, Rate(10_000, 100))
    assert len(bucket.reserve_several(items(*[1] * 100), FOREVER)) == 16
    assert len(bucket.reserve_several(items(200, 200, 200, 200), FOREVER)) == 2
    assert len(bucket.reserve_several(items(5000, 1), FOREVER)) == 1


def test_reservations_of_other_names_are_left_to_another_call(pool):
    bucket = make(pool, Rate(1, 100), keyed=True)
    line = [*items(1, 1), *items(1, name="b")]
    assert len(bucket.reserve_several(line, FOREVER, 0)) == 2


def test_a_policy_of_ones_own_reserves_for_several_one_by_one(pool):
    bucket = make(pool, Rate(2, 100), algorithm=OwnWindow())
    line = items(1, 1, 1, 2, 1)
    decisions = bucket.reserve_several(line, 150, 0)
    assert [decision.allowed for decision in decisions] == [True, True, True, False]
    assert bucket.count() == 3


def test_a_reservation_by_a_policy_of_ones_own_is_found_though_it_was_stored_late(
    pool, monkeypatch
):
    bucket, exchange = (
        PostgresBucket(pool, postgres.table(), [Rate(1, 1000)], Own()),
        session.exchange,
    )
    late = []

    def delaying(connection, text, deadline):
        if "pyrate_limiter_reserve" in text and "string_agg" not in text:
            time.sleep(late.pop() if late else 0)
        return exchange(connection, text, deadline)

    monkeypatch.setattr(session, "exchange", delaying)
    reservation = None
    while reservation is None or not reservation.wait_ms:  # the machine may be busy for so long
        bucket.flush()
        assert bucket.put(RateItem("a", bucket.stamp()))
        late.append(1.1)
        reservation = bucket.reserve(RateItem("a", bucket.stamp()), FOREVER, 0)
    assert bucket.confirm(reservation, bucket.stamp(), FOREVER).allowed
    assert bucket.count() == 2


def test_several_reservations_whose_answer_is_lost_are_not_stored_twice(pool, monkeypatch):
    bucket, exchange, lost = make(pool, Rate(2, 100)), session.exchange, []

    def losing(connection, text, deadline):
        answer = yield from exchange(connection, text, deadline)
        if "_reserve_several_" in text and not lost:
            lost.append(answer)
            postgres.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
            connection.execute("SELECT 1")
        return answer

    monkeypatch.setattr(session, "exchange", losing)
    line = items(1, 1, 1)
    decisions = bucket.reserve_several(line, FOREVER, 0)
    assert lost
    assert [decision.wait_ms for decision in decisions] == [0, 0, 101]
    assert bucket.count() == 3


def test_a_reservation_is_cancelled_in_part(pool):
    bucket = make(pool, Rate(4, 100))
    assert bucket.put(*items(4))
    item, behind = items(4, 1)
    heavy = bucket.reserve(item, FOREVER, 0)
    assert heavy.wait_ms == 101
    assert bucket.reserve(behind, FOREVER, 0).wait_ms == 202
    assert bucket.cancel(heavy.part(3))
    assert bucket.count() == 6
    assert not bucket.cancel(heavy.part(2))
    item.weight = 1
    assert bucket.confirm(heavy, START + 101).allowed
    (light,) = items(3)
    assert bucket.reserve(light, FOREVER, 0).wait_ms == 101
    rows = postgres.execute(f"SELECT count(*) FROM {bucket.table} WHERE weight > 0")
    assert rows == [(9,)]
    assert bucket.cancel(heavy)
    assert not bucket.cancel(heavy)


def test_many_reservations_are_cancelled_in_one_round_trip(pool, sent):
    bucket = make(pool, Rate(1, 100))
    line = items(*[1] * 16)
    made = bucket.reserve_several(line, FOREVER, 0)
    sent.clear()
    assert bucket.cancel_several(made) == [True] * 16
    assert len(sent) == 1
    assert bucket.cancel_several([made[0], Reservation(RateItem("a", START))]) == [False, False]
    assert bucket.count() == 0


def test_cancelling_one_of_many_reservations_touches_few_rows(pool):
    bucket = make(pool, Rate(1, 100))
    line = items(*[1] * 400)
    made = []
    for start in range(0, 400, 16):
        made += bucket.reserve_several(line[start : start + 16], FOREVER, 0)
    before = postgres.execute(f"SELECT ctid FROM {bucket.table} WHERE seq > 100")
    assert bucket.cancel(made[50])
    assert postgres.execute(f"SELECT ctid FROM {bucket.table} WHERE seq > 100") == before
    assert bucket.cancel(made[390])
    assert postgres.execute(f"SELECT max(seq) FROM {bucket.table}") == [(399,)]


@pytest.mark.parametrize("late", [1, 45, 400])
def test_a_late_waiter_is_stored_at_the_true_time_also_within_its_pad(pool, late):
    bucket = make(pool, Rate(1, 1000))
    first, second = items(1, 1)
    assert bucket.put(*items(1))
    reservation = bucket.reserve(first, FOREVER)
    assert reservation.wait_ms == 1051
    assert bucket.confirm(reservation, START + 1051 + late).wait_ms == 0
    bucket._clock.set(START + 1051 + late)
    assert bucket.peek(0).timestamp == START + 1051 + late
    second.timestamp = START + 1051 + late
    assert bucket.reserve(second, FOREVER, 0).wait_ms == 1001


def test_who_comes_after_a_late_waiter_sleeps_on(pool):
    bucket = make(pool, Rate(1, 1000))
    first, second = items(1, 1)
    assert bucket.put(*items(1))
    made = bucket.reserve_several([first, second], FOREVER, 0)
    assert moments([first, second]) == [1001, 2002]
    assert bucket.confirm(made[0], START + 1031).wait_ms == 0
    assert bucket.confirm(made[1], START + 2002, FOREVER).wait_ms == 30
    assert bucket.confirm(made[1], START + 2032, FOREVER).wait_ms == 0


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("late", [0, 20])
def test_reservations_that_are_due_together_are_confirmed_in_one_round_trip(
    pool, sent, keyed, late
):
    bucket = make(pool, Rate(3, 100), keyed=keyed)
    line = items(3, 1, 2, 1)
    made = bucket.reserve_several(line, FOREVER, 0)
    assert moments(line) == [0, 101, 101, 202]
    sent.clear()
    waits = [d.wait_ms for d in bucket.confirm_several(made[1:3], START + 101 + late, FOREVER)]
    assert waits == [0, 0]
    assert len(sent) == 1
    assert [d.wait_ms for d in bucket.confirm_several(made[3:], START + 202, FOREVER)] == [late]


def test_reservations_that_are_gone_are_made_anew_one_by_one(pool):
    bucket = make(pool, Rate(1, 100))
    line = items(1, 1, 1)
    made = bucket.reserve_several(line, FOREVER, 0)
    assert bucket.cancel(made[1])
    bucket._clock.set(START + 101)
    decisions = bucket.confirm_several(made[1:], START + 101, FOREVER)
    assert [decision.allowed for decision in decisions] == [True]
    bucket.flush()
    assert bucket.confirm_several([made[2], made[2]], START + 202, FOREVER)[0].allowed
    assert bucket.count() == 1


def test_room_that_is_given_back_between_reservations_goes_to_whoever_asks_next(pool):
    bucket = make(pool, Rate(10, 1000))
    assert bucket.put(*items(10))
    line = items(*[2] * 10)
    made = bucket.reserve_several(line, FOREVER)
    assert moments(line) == [1051] * 5 + [2102] * 5
    assert bucket.cancel(made[1])
    first, second = items(1, 2)
    assert bucket.reserve(first, FOREVER).wait_ms == 1051
    assert bucket.reserve(second, FOREVER).wait_ms == 3153
    assert bucket.reserve(*items(1), FOREVER).wait_ms == 1051


def test_tasks_reserve_and_cancel_several_at_once():
    async def scenario():
        pool = await postgres.async_pool(size=2)
        bucket = PostgresBucket(pool, postgres.table(), [Rate(2, 100)])
        bucket._clock = ManualClock(START)
        line = items(1, 1, 1, 1)
        decisions = await bucket.reserve_several(line, FOREVER, 0)
        assert [decision.wait_ms for decision in decisions] == [0, 0, 101, 101]
        assert await bucket.cancel_several(decisions[2:]) == [True, True]
        reserving = asyncio.ensure_future(bucket.reserve_several(line[2:], FOREVER, 0))
        await asyncio.sleep(0)
        reserving.cancel()
        await asyncio.wait([reserving])
        assert reserving.cancelled()
        assert await bucket.count() == 2
        await pool.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("algorithm", [None, FixedWindow(), Own()])
def test_a_bucket_that_only_refuses_still_notes_how_far_back_it_looks(pool, algorithm):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)], algorithm)
    while bucket.put(RateItem("a", bucket.stamp())):
        pass  # a window of the clock may just have begun
    bucket._steps.lookback.due = 0
    bucket._full.clear()
    assert not bucket.put(RateItem("a", bucket.stamp()))
    assert bucket._steps.lookback.due
