"""InMemoryBucket, StateBucket and its store, asked by hand with explicit timestamps."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import (
    GCRA,
    AbstractBucket,
    FixedWindow,
    InMemoryBucket,
    InMemoryStateStore,
    MonotonicClock,
    Rate,
    RateItem,
    SlidingWindowLog,
    StateBucket,
    TokenBucket,
    WallClock,
)
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.testing import ManualClock

YEAR_MS = 365 * 24 * 3600 * 1000
BIG = 10**15


def put(bucket, timestamp, weight=1, name="x"):
    return bucket.put(RateItem(name, timestamp, weight))


def admitted(bucket, stamps, weight=1):
    return [put(bucket, stamp, weight) for stamp in stamps]


class TestBothInMemory:
    @pytest.fixture(params=[InMemoryBucket, StateBucket])
    def kind(self, request):
        return request.param

    def test_put_says_whether_the_item_was_admitted(self, kind):
        bucket = kind([Rate(2, 1000)])
        assert admitted(bucket, [0, 0, 0]) == [True, True, False]

    def test_all_units_fit_or_none_is_taken(self, kind):
        bucket = kind([Rate(5, 1000)])
        bucket._clock = type("Still", (MonotonicClock,), {"now": lambda self: 0})()
        assert admitted(bucket, [0], 3) == [True]
        assert admitted(bucket, [0], 3) == [False]
        assert bucket.count() == 3
        assert admitted(bucket, [0], 2) == [True]

    def test_failing_rate_is_the_rate_that_denied(self, kind):
        rates = [Rate(1, 1000), Rate(2, 10_000)]
        bucket = kind(rates)
        put(bucket, 0)
        put(bucket, 0)
        assert bucket.failing_rate == rates[0]

    def test_failing_rate_is_none_after_every_admit(self, kind):
        bucket = kind([Rate(1, 1000)])
        admitted(bucket, [0, 0])
        put(bucket, 5000)
        assert bucket.failing_rate is None

    def test_weight_zero_always_passes_stores_nothing_and_clears_failing_rate(self, kind):
        bucket = kind([Rate(1, 1000)])
        admitted(bucket, [0, 0])
        before = bucket.count()
        assert put(bucket, 0, 0) is True
        assert bucket.failing_rate is None
        assert bucket.count() == before

    def test_weight_over_the_limit_is_refused_and_can_never_fit(self, kind):
        bucket = kind([Rate(3, 1000)])
        item = RateItem("x", 0, 4)
        assert bucket.put(item) is False
        assert bucket.waiting(item) == -1
        assert bucket.put_decision(item).retry_after_ms is None

    def test_put_decision_carries_rate_and_wait(self, kind):
        bucket = kind([Rate(1, 1000)])
        assert bucket.put_decision(RateItem("x", 0)) is ADMITTED
        refused = bucket.put_decision(RateItem("x", 0))
        assert refused.failing_rate == Rate(1, 1000)
        assert refused.retry_after_ms == (1001 if kind is InMemoryBucket else 1000)

    def test_waiting_is_zero_when_nothing_failed(self, kind):
        bucket = kind([Rate(1, 1000)])
        item = RateItem("x", 0)
        bucket.put(item)
        assert bucket.waiting(item) == 0

    def test_waiting_is_the_time_until_the_weight_fits(self, kind):
        bucket = kind([Rate(2, 1000)])
        admitted(bucket, [0, 0])
        item = RateItem("x", 300)
        assert bucket.put(item) is False
        wait = bucket.waiting(item)
        assert put(bucket, 300 + wait - 1) is False
        assert put(bucket, 300 + wait) is True

    def test_waiting_counts_from_the_items_own_timestamp_and_is_never_negative(self, kind):
        bucket = kind([Rate(1, 1000)])
        admitted(bucket, [0, 0])
        assert bucket.waiting(RateItem("x", 100)) == bucket.waiting(RateItem("x", 0)) - 100
        assert bucket.waiting(RateItem("x", 99_999)) == 0

    def test_waiting_is_recomputed_for_another_weight(self, kind):
        bucket = kind([Rate(4, 1000)])
        admitted(bucket, [0, 0, 0, 100])
        assert put(bucket, 110) is False
        light = bucket.waiting(RateItem("x", 110, 1))
        heavy = bucket.waiting(RateItem("x", 110, 4))
        assert light < heavy
        assert bucket.waiting(RateItem("x", 110, 5)) == -1

    def test_flush_empties_and_clears_failing_rate(self, kind):
        bucket = kind([Rate(1, 1000)])
        admitted(bucket, [0, 0])
        bucket.flush()
        assert (bucket.count(), bucket.failing_rate) == (0, None)
        assert put(bucket, 0) is True

    def test_rates_are_sorted_by_interval(self, kind):
        bucket = kind([Rate(20, 5000), Rate(10, 1000)])
        assert [rate.interval for rate in bucket.rates] == [1000, 5000]
        bucket.rates = [Rate(30, 9000), Rate(10, 1000)]
        assert [rate.interval for rate in bucket.rates] == [1000, 9000]

    @pytest.mark.parametrize("rates", [[], [Rate(2, 1000), Rate(1, 5000)]])
    def test_bad_rates_are_refused_where_they_are_assigned(self, kind, rates):
        with pytest.raises(ValueError, match="Invalid rate list"):
            kind(rates)
        bucket = kind([Rate(1, 1000)])
        with pytest.raises(ValueError, match="Invalid rate list"):
            bucket.rates = rates
        assert bucket.rates == [Rate(1, 1000)]

    def test_assigned_rates_hold_from_then_on(self, kind):
        bucket = kind([Rate(1, 1000)])
        bucket.rates = [Rate(2, 1000)]
        assert admitted(bucket, [0, 0, 0]) == [True, True, False]

    def test_assigned_rates_end_a_refusal(self, kind):
        bucket = kind([Rate(1, 1000)])
        admitted(bucket, [0, 0])
        bucket.rates = [Rate(10, 2000)]
        assert put(bucket, 0) is True

    def test_close_may_be_called_again_and_with_closes(self, kind):
        with kind([Rate(1, 1000)]) as bucket:
            assert put(bucket, 0)
        bucket.close()
        bucket.close()

    def test_is_sync_without_cross_process_lock_on_a_monotonic_clock(self, kind):
        bucket = kind([Rate(1, 1000)])
        assert bucket.is_async is False
        assert bucket.limiter_lock() is None
        assert abs(bucket.now() - MonotonicClock().now()) < 1000

    def test_clock_may_be_replaced(self, kind):
        bucket = kind([Rate(1, 1000)])
        bucket._clock = WallClock()
        assert bucket.now() > 1_500_000_000_000

    def test_survives_pickle_with_what_it_holds(self, kind):
        bucket = kind([Rate(2, 1000)])
        put(bucket, 0, name="a")
        again = pickle.loads(pickle.dumps(bucket))
        assert again.rates == bucket.rates
        assert admitted(again, [0, 0]) == [True, False]
        assert put(bucket, 0) is True

    def test_wrong_policy_is_refused(self, kind):
        wrong = GCRA() if kind is InMemoryBucket else FixedWindow()
        with pytest.raises(TypeError, match=f"{kind.__name__} needs a"):
            kind([Rate(1, 1000)], wrong)

    def test_policy_in_use_is_readable(self, kind):
        policy = FixedWindow() if kind is InMemoryBucket else TokenBucket()
        assert kind([Rate(1, 1000)], algorithm=policy)._algorithm is policy

    @pytest.mark.parametrize("name", ["", "é", "日本語", "\0", "a\nb", "🦊" * 500, "'; DROP--"])
    def test_any_name_is_a_name(self, kind, name):
        bucket = kind([Rate(1, 1000)])
        assert put(bucket, 0, name=name) is True
        assert put(bucket, 0, name=name) is False

    @pytest.mark.parametrize("weight", [1.5, "1", None])
    def test_a_weight_that_is_no_whole_number_is_refused(self, kind, weight):
        with pytest.raises(TypeError, match="weight must be a whole number"):
            put(kind([Rate(5, 1000)]), 0, weight)

    def test_a_negative_weight_is_refused(self, kind):
        with pytest.raises(ValueError, match="weight must be >= 0"):
            put(kind([Rate(5, 1000)]), 0, -1)

    @pytest.mark.parametrize("stamp", [1 << 62, -(1 << 62), "1", None])
    def test_a_timestamp_that_cannot_be_stored_is_refused(self, kind, stamp):
        with pytest.raises(ValueError, match="timestamp must be a number"):
            put(kind([Rate(5, 1000)]), stamp)

    def test_equal_timestamps_share_the_limit(self, kind):
        assert sum(admitted(kind([Rate(7, 1000)]), [42] * 20)) == 7

    def test_a_jump_by_a_year_frees_everything(self, kind):
        bucket = kind([Rate(2, 1000)])
        admitted(bucket, [0, 0])
        assert admitted(bucket, [YEAR_MS] * 3) == [True, True, False]

    def test_an_older_stamp_that_arrives_second_is_not_refused_for_being_late(self, kind):
        bucket = kind([Rate(2, 1000)])
        assert admitted(bucket, [500, 480]) == [True, True]

    def test_an_older_stamp_does_not_make_room(self, kind):
        bucket = kind([Rate(2, 1000)])
        admitted(bucket, [500, 500])
        assert put(bucket, 480) is False

    @pytest.mark.parametrize("back", [3_600_000, YEAR_MS])
    def test_a_clock_that_steps_back_refuses_nobody_until_it_has_caught_up(self, kind, back):
        bucket, start = kind([Rate(10, 1000)]), 2 * YEAR_MS
        clock = bucket._clock = ManualClock(start)
        admitted(bucket, [start] * 10)
        got = 0
        for step in range(0, 5000, 10):
            clock.set(start - back + step)
            got += put(bucket, clock.ms)
        assert got >= 40
        assert got <= 60

    @pytest.mark.parametrize("back", [3_600_000, YEAR_MS])
    def test_a_clock_that_steps_back_lets_at_most_one_further_limit_through(self, kind, back):
        bucket, start = kind([Rate(10, 1000)]), 2 * YEAR_MS
        clock = bucket._clock = ManualClock(start)
        admitted(bucket, [start] * 10)
        clock.set(start - back)
        assert sum(admitted(bucket, [start - back] * 50)) <= 10

    def test_enormous_limits_hold(self, kind):
        bucket = kind([Rate(BIG, 1000)])
        assert put(bucket, 0, BIG - 1) is True
        assert put(bucket, 0, 2) is False
        assert put(bucket, 0, 1) is True
        assert put(bucket, 0, 1) is False

    def test_enormous_weights_are_counted(self, kind):
        bucket = kind([Rate(BIG, 3_600_000)])
        now = bucket.now()
        bucket._clock = type("Still", (MonotonicClock,), {"now": lambda self: now})()
        put(bucket, now, BIG)
        assert bucket.count() == BIG


@given(st.text(max_size=20), st.integers(1, 5))
def test_names_are_given_back_as_they_were(name, weight):
    bucket = InMemoryBucket([Rate(10, 1000)])
    put(bucket, 5, weight, name)
    assert {item.name for item in bucket.items} == {name}


class TestInMemoryBucket:
    def test_a_unit_exactly_one_interval_old_still_counts(self):
        bucket = InMemoryBucket([Rate(1, 1000)])
        assert admitted(bucket, [0, 1000, 1001]) == [True, False, True]

    def test_every_rate_holds(self):
        bucket = InMemoryBucket([Rate(2, 100), Rate(3, 1000)])
        assert admitted(bucket, [0, 0, 101, 202, 500, 1001]) == [1, 1, 1, 0, 0, 1]

    def test_count_includes_what_has_expired_and_was_not_leaked(self):
        bucket = InMemoryBucket([Rate(100, 3000)])
        admitted(bucket, [0] * 100)
        assert sum(admitted(bucket, [3001] * 100)) == 100
        assert bucket.count() == 200

    def test_leak_drops_what_no_window_sees_and_says_how_many(self):
        bucket = InMemoryBucket([Rate(2, 100), Rate(10, 1000)])
        admitted(bucket, [0, 0, 500])
        assert bucket.leak(1000) == 0
        assert bucket.leak(1001) == 2
        assert bucket.leak(1001) == 0
        assert bucket.count() == 1

    def test_leak_without_a_time_uses_the_buckets_clock(self):
        bucket = InMemoryBucket([Rate(5, 1000)])
        put(bucket, bucket.now() - 5000)
        put(bucket, bucket.now())
        assert bucket.leak() == 1

    def test_peek_is_the_unit_so_many_places_from_the_newest(self):
        bucket = InMemoryBucket([Rate(10, 1000)])
        put(bucket, 1, 2, "a")
        put(bucket, 5, 1, "b")
        units = [bucket.peek(place) for place in range(3)]
        assert [(unit.name, unit.timestamp, unit.weight) for unit in units] == [
            ("b", 5, 1),
            ("a", 1, 1),
            ("a", 1, 1),
        ]
        assert bucket.peek(3) is None
        assert bucket.peek(-1) is None

    def test_items_are_the_units_oldest_first(self):
        bucket = InMemoryBucket([Rate(10, 1000)])
        put(bucket, 1, 2, "a")
        put(bucket, 5, 1, "b")
        items = bucket.items
        assert len(items) == 3
        assert [item.name for item in items] == ["a", "a", "b"]
        assert [item.timestamp for item in items[1:]] == [1, 5]
        assert items[-1].name == "b"
        assert all(isinstance(item, RateItem) and item.weight == 1 for item in items)
        with pytest.raises(IndexError):
            items[3]

    def test_items_read_as_a_sequence(self):
        bucket = InMemoryBucket([Rate(10, 1000)])
        assert list(bucket.items) == []
        assert not bucket.items
        put(bucket, 1, 1, "a")
        assert repr(bucket.items) == "[RateItem(name=a, weight=1, timestamp=1)]"

    def test_leak_keeps_names_with_their_units(self):
        bucket = InMemoryBucket([Rate(10, 1000)])
        for stamp, name in [(0, "a"), (400, "b"), (800, "c"), (1200, "c")]:
            put(bucket, stamp, 2, name)
        bucket.leak(1500)
        assert [item.name for item in bucket.items] == ["c"] * 4

    def test_fixed_window_frees_all_at_the_boundary(self):
        bucket = InMemoryBucket([Rate(2, 1000)], FixedWindow())
        assert admitted(bucket, [900, 999, 999, 1000, 1001, 1999]) == [1, 1, 0, 1, 1, 0]

    def test_fixed_window_waits_for_the_boundary(self):
        bucket = InMemoryBucket([Rate(1, 1000)], FixedWindow())
        put(bucket, 1200)
        decision = bucket.put_decision(RateItem("x", 1300))
        assert decision.retry_after_ms == 700

    def test_default_policy_is_the_sliding_window(self):
        assert isinstance(InMemoryBucket([Rate(1, 1000)])._algorithm, SlidingWindowLog)

    def test_a_thousand_weights_are_admitted_as_one(self):
        bucket = InMemoryBucket([Rate(10_000, 1000)])
        assert put(bucket, 0, 10_000) is True
        assert put(bucket, 1000) is False
        assert bucket.waiting(RateItem("x", 1000, 10_000)) == 1


class TestStateBucket:
    def test_defaults_are_gcra_on_memory_and_the_stores_clock(self):
        bucket = StateBucket([Rate(1, 1000)])
        assert isinstance(bucket._algorithm, GCRA)
        assert isinstance(bucket.store, InMemoryStateStore)
        assert bucket._clock is bucket.store.default_clock

    def test_store_and_clock_may_be_chosen(self):
        store, clock = InMemoryStateStore(), WallClock()
        bucket = StateBucket([Rate(1, 1000)], TokenBucket(), store, clock)
        assert (bucket.store, bucket._clock) == (store, clock)

    def test_a_burst_and_then_one_per_emission(self):
        bucket = StateBucket([Rate(10, 1000, burst=2)])
        assert admitted(bucket, [0, 0, 0, 99, 100, 100]) == [1, 1, 0, 0, 1, 0]

    def test_peek_is_none_and_leak_is_zero(self):
        bucket = StateBucket([Rate(1, 1000)])
        put(bucket, 0)
        assert bucket.peek(0) is None
        assert bucket.leak(10**9) == bucket.leak() == 0

    def test_count_is_units_owed_now(self, world):
        bucket = world.on(StateBucket([Rate(10, 1000)]))
        put(bucket, world.ms, 4)
        assert bucket.count() == 4
        world.advance(150)
        assert bucket.count() == 3
        world.advance(1000)
        assert bucket.count() == 0

    def test_store_checks_reads_and_resets(self):
        store, rates, policy = InMemoryStateStore(), [Rate(2, 1000)], GCRA()
        assert store.read(policy, rates) == (0,)
        assert store.check(policy, rates, 1000, 2) is ADMITTED
        assert store.check(policy, rates, 1000, 1).retry_after_ms == 500
        assert store.read(policy, rates) == (2_000_000,)
        store.reset()
        assert store.read(policy, rates) == (0,)
        store.close()
        store.close()

    def test_buckets_on_one_store_share_its_state(self):
        store = InMemoryStateStore()
        first, second = (StateBucket([Rate(1, 1000)], store=store) for _ in range(2))
        assert (put(first, 0), put(second, 0)) == (True, False)

    def test_store_survives_pickle(self):
        store, rates, policy = InMemoryStateStore(), [Rate(2, 1000)], GCRA()
        store.check(policy, rates, 1000, 2)
        assert pickle.loads(pickle.dumps(store)).read(policy, rates) == (2_000_000,)


def test_an_abstract_bucket_is_a_context_with_unknown_nature():
    assert AbstractBucket.is_async is None
    assert AbstractBucket.failing_rate is None


@given(
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 4)), max_size=60),
    st.integers(1, 5),
    st.integers(100, 1500),
)
def test_never_more_than_the_limit_in_any_window(calls, limit, interval):
    bucket, now, passed = InMemoryBucket([Rate(limit, interval)]), 0, []
    for pause, weight in calls:
        now += pause
        live = sum(when >= now - interval for when in passed)
        assert put(bucket, now, weight) is (live + weight <= limit or weight == 0)
        if bucket.failing_rate is None:
            passed += [now] * weight
