"""What 4.5.1 does not have: acquire, check, limit; and the lock that holds several."""

import asyncio
import threading

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    RateLimitExceeded,
    StateBucket,
)
from pyrate_limiter.errors import AsyncBucketInSyncCode
from pyrate_limiter.limiter import LockLike, combined_lock
from tests.support.doubles import ListBucket, one

KINDS = [InMemoryBucket, StateBucket, ListBucket]


@pytest.fixture(params=KINDS)
def limiter(request, world):
    return Limiter(world.on(request.param([Rate(2, 1000)])))


@pytest.fixture(params=KINDS)
def async_limiter(request, world):
    return Limiter(world.on(BucketAsyncWrapper(request.param([Rate(2, 1000)]))))


class TestAcquire:
    def test_gives_a_decision_that_is_true_when_allowed(self, limiter):
        decision = limiter.acquire("a")
        assert decision
        assert decision.wait_ms == 0

    def test_a_refusal_says_which_rate_and_how_long(self, limiter):
        limiter.acquire(weight=2)
        refused = limiter.acquire(weight=2, blocking=False)
        assert not refused
        assert refused.failing_rate == Rate(2, 1000)
        assert refused.retry_after_ms in {1000, 1001}

    def test_waits_like_try_acquire(self, limiter, world):
        assert all(limiter.acquire() for _ in range(4))
        assert world.slept

    def test_a_wait_that_exceeds_the_timeout_is_refused_without_sleeping(self, limiter, world):
        limiter.acquire(weight=2)
        refused = limiter.acquire(weight=2, timeout=0.5)
        assert refused.retry_after_ms > 500
        assert world.slept == []

    def test_a_wait_within_the_timeout_is_slept(self, limiter, world):
        limiter.acquire(weight=2)
        assert limiter.acquire(weight=2, timeout=2)
        assert 1 <= sum(world.slept) < 1.2

    def test_what_can_never_fit_has_no_wait(self, limiter, world):
        decision = limiter.acquire(weight=3)
        assert (decision.allowed, decision.retry_after_ms) == (False, None)

    def test_weight_0_is_allowed(self, limiter):
        limiter.acquire(weight=2)
        assert limiter.acquire(weight=0)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"weight": -1}, ValueError),
            ({"weight": 1.5}, TypeError),
            ({"timeout": -2}, ValueError),
            ({"timeout": 1, "blocking": False}, RuntimeError),
        ],
    )
    def test_bad_arguments_are_refused(self, limiter, world, arguments, error):
        with pytest.raises(error):
            limiter.acquire(**arguments)
        with pytest.raises(error):
            world.run(limiter.acquire_async(**arguments))

    def test_async_form_answers_over_sync_and_async_buckets(self, limiter, async_limiter, world):
        for each in (limiter, async_limiter):
            assert world.run(each.acquire_async(weight=2))
            refused = world.run(each.acquire_async(weight=2, timeout=0.1))
            assert refused.retry_after_ms in {1000, 1001}

    def test_sync_form_over_an_async_bucket_is_a_clear_error(self, async_limiter):
        with pytest.raises(AsyncBucketInSyncCode, match="await acquire_async instead"):
            async_limiter.acquire()

    @pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
    def test_tells_what_remains_and_when_all_is_free(self, world, kind):
        limiter = Limiter(world.on(kind([Rate(10, 1000)])))
        decision = limiter.acquire(weight=4)
        assert decision.remaining == 6
        assert decision.reset_after_ms in {400, 1001}

    def test_remaining_is_under_the_tightest_rate(self, world):
        limiter = Limiter(world.on(InMemoryBucket([Rate(5, 100), Rate(6, 1000)])))
        limiter.acquire(weight=5)
        world.advance(101)
        decision = limiter.check()
        assert (decision.remaining, decision.reset_after_ms) == (1, 900)

    @pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
    def test_after_a_wait_it_tells_how_long_that_was_and_how_things_are_now(self, world, kind):
        limiter = Limiter(world.on(kind([Rate(2, 1000)])))
        limiter.acquire(weight=2)
        decision = limiter.acquire(weight=2)
        assert decision.wait_ms == round(sum(world.slept) * 1000)
        assert decision.remaining == 0

    def test_a_fixed_window_resets_at_the_boundary(self, world):
        limiter = Limiter(world.on(InMemoryBucket([Rate(2, 1000)], FixedWindow())))
        decision = limiter.acquire()
        assert decision.reset_after_ms == 1000 - world.ms % 1000


class TestCheck:
    def test_says_what_acquire_would_say_and_takes_nothing(self, limiter):
        for _ in range(5):
            assert limiter.check(weight=2)
        assert limiter.acquire(weight=2)
        refused = limiter.check()
        assert not refused
        assert refused.failing_rate == Rate(2, 1000)
        assert limiter.check(weight=0)

    def test_its_wait_is_true(self, limiter, world):
        limiter.acquire(weight=2)
        wait = limiter.check(weight=2).retry_after_ms
        world.advance(wait - 1)
        assert not limiter.check(weight=2)
        world.advance(1)
        assert limiter.check(weight=2)

    def test_what_can_never_fit_has_no_wait(self, limiter):
        assert limiter.check(weight=3).retry_after_ms is None

    def test_async_form(self, limiter, async_limiter, world):
        for each in (limiter, async_limiter):
            assert world.run(each.check_async())

    def test_sync_form_over_an_async_bucket_is_a_clear_error(self, async_limiter):
        with pytest.raises(AsyncBucketInSyncCode, match="await check_async instead"):
            async_limiter.check()

    def test_a_negative_weight_is_refused(self, limiter, world):
        with pytest.raises(ValueError, match="weight must be >= 0"):
            limiter.check(weight=-1)
        with pytest.raises(ValueError, match="weight must be >= 0"):
            world.run(limiter.check_async(weight=-1))


class TestLimit:
    def test_is_entered_when_admitted_and_gives_the_decision(self, limiter):
        with limiter.limit("a") as decision:
            assert decision.allowed

    def test_waits_unless_there_is_a_timeout(self, limiter, world):
        for _ in range(3):
            with limiter.limit("a"):
                pass
        assert len(world.slept) == 1

    def test_raises_with_name_weight_and_decision(self, limiter, world):
        limiter.acquire(weight=2)
        refusal = pytest.raises(RateLimitExceeded, match="Rate limit exceeded for 'a'")
        with refusal as caught, limiter.limit("a", 2, timeout=0):
            pytest.fail("entered")
        error = caught.value
        assert (error.name, error.weight, error.failing_rate) == ("a", 2, Rate(2, 1000))
        assert error.retry_after_ms == error.decision.retry_after_ms > 0

    def test_can_be_entered_again(self, limiter):
        context = limiter.limit("a")
        for _ in range(3):
            with context:
                pass

    def test_an_error_of_the_body_passes(self, limiter):
        with pytest.raises(KeyError), limiter.limit("a"):
            raise KeyError

    def test_async_form(self, limiter, async_limiter, world):
        async def scenario(each):
            async with each.limit("a", weight=2) as decision:
                assert decision.allowed
            with pytest.raises(RateLimitExceeded):
                async with each.limit("a", weight=2, timeout=0):
                    pytest.fail("entered")

        for each in (limiter, async_limiter):
            world.run(scenario(each))

    def test_sync_form_over_an_async_bucket_is_a_clear_error(self, async_limiter):
        with pytest.raises(AsyncBucketInSyncCode), async_limiter.limit():
            pytest.fail("entered")

    @pytest.mark.parametrize("arguments", [{"weight": -1}, {"timeout": -3}])
    def test_bad_arguments_are_refused_where_they_are_given(self, limiter, arguments):
        with pytest.raises(ValueError, match="must be"):
            limiter.limit(**arguments)


class TestCombinedLock:
    def test_holds_all_and_releases_all(self):
        locks = [threading.Lock(), threading.Lock()]
        with combined_lock(locks, blocking=True):
            assert all(lock.locked() for lock in locks)
        assert not any(lock.locked() for lock in locks)

    def test_takes_a_single_lock_too(self):
        lock = threading.Lock()
        with combined_lock(lock, blocking=True, timeout=1):
            assert lock.locked()
        assert not lock.locked()

    @pytest.mark.parametrize(("blocking", "timeout"), [(False, -1), (True, 0), (True, 0.01)])
    def test_a_lock_that_cannot_be_had_is_a_timeout_and_none_is_held(self, blocking, timeout):
        free, taken = threading.Lock(), threading.Lock()
        taken.acquire()
        refusal = pytest.raises(TimeoutError, match=r"^Timeout while acquiring combined lock\.$")
        with refusal, combined_lock([free, taken], blocking, timeout):
            pytest.fail("entered")
        assert not free.locked()

    def test_releases_in_reverse_also_after_an_error(self):
        order = []

        class Named:
            def __init__(self, name):
                self.name = name

            def acquire(self, blocking=True, timeout=-1):
                order.append(f"+{self.name}")
                return True

            def release(self):
                order.append(f"-{self.name}")

        locks: list[LockLike] = [Named("a"), Named("b")]
        with pytest.raises(KeyError), combined_lock(locks, blocking=True):
            raise KeyError
        assert order == ["+a", "+b", "-b", "-a"]


def test_mixed_sync_and_async_callers_share_one_limit(world):
    limiter = Limiter(world.on(InMemoryBucket(one(2, 1000))))

    async def scenario():
        return [
            limiter.try_acquire(blocking=False),
            await limiter.try_acquire_async(blocking=False),
            limiter.try_acquire(blocking=False),
            await limiter.try_acquire_async(blocking=False),
            *await asyncio.gather(limiter.try_acquire_async(), limiter.try_acquire_async()),
        ]

    assert world.run(scenario()) == [True, True, False, False, True, True]
