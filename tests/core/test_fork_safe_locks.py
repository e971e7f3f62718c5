"""Locks of objects in memory: one each, free after a fork, and no half of a change stays."""

import gc
import itertools
import os
import random
import signal
import sys
import threading
import time

import pytest

from pyrate_limiter import (
    AbstractClock,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    SlidingWindowLog,
    StateBucket,
)
from pyrate_limiter._core.fork_safe_locks import FrameLock
from pyrate_limiter._core.process_lock import ProcessLock
from pyrate_limiter.errors import ReentrantCall
from pyrate_limiter.testing import ManualClock
from tests.support.doubles import one

HOUR = 3_600_000


@pytest.fixture(params=[InMemoryBucket, StateBucket])
def kind(request):
    return request.param


def lock_of(bucket):
    return bucket.store._lock if isinstance(bucket, StateBucket) else bucket._lock


def in_thread(work, *arguments):
    """What a call gives in another thread, where it must not hang."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(work(*arguments)), daemon=True)
    thread.start()
    thread.join(30)
    assert answers, "it hangs"
    return answers[0]


class Calling(AbstractClock):
    """A clock of the user's, which does something else first."""

    def __init__(self, work):
        self.work = work

    def now(self):
        work, self.work = self.work, None
        if work is not None:
            work()
        return time.monotonic_ns() // 1_000_000


def test_a_clock_may_wait_for_threads_that_use_other_limiters(kind):
    others = [Limiter(kind(one(1000))) for _ in range(40)]
    bucket = kind(one(5))
    bucket._clock = Calling(lambda: [in_thread(other.try_acquire, "a") for other in others])
    assert Limiter(bucket).try_acquire("a", blocking=False) is True


def test_a_policy_may_wait_for_threads_that_use_other_limiters():
    others = [Limiter(Rate(1000, 1000)) for _ in range(40)]

    class Hierarchy(SlidingWindowLog):
        def admit(self, rates, counts, weight):
            assert all(in_thread(other.try_acquire, "a") for other in others)
            return super().admit(rates, counts, weight)

    limiter = Limiter(InMemoryBucket(one(5), algorithm=Hierarchy()))
    assert limiter.try_acquire("a", blocking=False) is True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_free_in_a_forked_child(kind):
    bucket = kind(one(5))
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with lock_of(bucket):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if bucket.put(RateItem("a", bucket.now(), 5)) else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    let_go.set()
    thread.join()
    assert status == 0


# Signal handlers and __del__ ----------------------------------------------------------------------


def interrupted(call, step, visitor):
    """Make a call, and another one at its step of that number, as a signal would; was there one?

    Only where an interpreter may run a handler: at the start of a call, not between two lines.
    """
    seen, before = 0, sys.gettrace()  # that of a coverage tool

    def trace(frame, event, _):
        nonlocal seen
        if event == "call" and "/buckets/" in frame.f_code.co_filename:
            seen += 1
            if seen == step:
                sys.settrace(None)
                visitor()

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen >= step


LONG = [Rate(10**5, HOUR), Rate(10**6, 24 * HOUR)]


@pytest.mark.parametrize("rates", [LONG[:1], LONG])
def test_a_signal_handler_may_use_the_log_that_it_interrupts(rates):
    bucket = InMemoryBucket(rates)
    bucket._clock = clock = ManualClock(1000)
    limiter, got, calls = Limiter(bucket), [], []
    names = itertools.cycle("aab")

    def use(name, answers):
        clock.advance(1)
        answers.append(limiter.try_acquire(name, blocking=False))

    for step in itertools.chain(*[range(1, 12)] * 20):
        interrupted(lambda: use(next(names), calls), step, lambda: use("handler", got))
    assert len(got) > 60
    assert all(got)
    assert all(calls)
    units = list(bucket.items)
    assert bucket.count() == len(units) == len(got) + len(calls)
    stamps = [unit.timestamp for unit in units]
    assert stamps == sorted(stamps)
    assert sum(unit.name == "handler" for unit in units) == len(got)


def test_a_signal_handler_may_use_the_state_that_it_interrupts():
    bucket = StateBucket([Rate(1000, HOUR)])
    bucket._clock = ManualClock(1000)
    limiter, got, calls = Limiter(bucket), [], []

    def use(answers):
        answers.append(limiter.try_acquire("a", blocking=False))

    for step in itertools.chain(*[range(1, 8)] * 10):
        interrupted(lambda: use(calls), step, lambda: use(got))
    assert got
    assert bucket.count() == sum(got) + sum(calls) == len(got) + len(calls)


@pytest.mark.parametrize("method", ["put", "reserve"])
def test_the_last_unit_is_given_once_when_a_signal_handler_wants_it_too(kind, method):
    """Whoever asks from the middle of a step is answered rightly, or with one clear error."""
    for step in itertools.count(1):
        bucket, got = kind([Rate(1, HOUR)]), []

        def use(bucket=bucket, got=got):
            try:
                got.append(Limiter(bucket).try_acquire("b", blocking=False))
            except ReentrantCall:
                got.append(False)

        def call(bucket=bucket, got=got):
            got.append(bool(getattr(bucket, method)(RateItem("a", bucket.now()))))

        was_there = interrupted(call, step, use)
        assert sum(got) == 1
        if not was_there:
            break


def test_a_del_that_the_garbage_collector_runs_may_use_the_limiter(kind):
    bucket = kind([Rate(10**9, HOUR)])
    limiter, got, inside = Limiter(bucket), [], []

    class Node:
        def __init__(self):
            self.me = self

        def __del__(self):
            if not inside:
                inside.append(1)
                got.append(limiter.try_acquire("d", blocking=False))
                inside.clear()

    thresholds = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        for _ in range(3000):
            Node()
            assert limiter.try_acquire("m", blocking=False) is True
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    assert len(got) > 100
    assert all(got)
    if kind is InMemoryBucket:
        assert bucket.count() == 3000 + len(got)


# Exceptions ---------------------------------------------------------------------------------------


class Interruption(BaseException):
    pass


def interrupt(*_):
    raise Interruption


def fill(bucket):
    """Six units of two names, and three reserved."""
    bucket._clock = ManualClock(1003)
    for number in range(6):
        bucket.put(RateItem("ab"[number % 2], 1000 + number // 2, 1))
    return bucket.reserve(RateItem("c", 1002, 3), HOUR)


def shape(bucket):
    if isinstance(bucket, StateBucket):
        return bucket.store.dump()[2:]
    units = [(unit.name, unit.timestamp) for unit in bucket.items]
    return units, bucket._newest, dict(bucket._pending or {})


STEPS = {
    "put": lambda bucket, made: bucket.put(RateItem("b", 1003)),
    "reserve": lambda bucket, made: bucket.reserve(RateItem("b", 1003), HOUR),
    "confirm": lambda bucket, made: bucket.confirm(made, made.item.timestamp + 7, HOUR),
    "cancel": lambda bucket, made: bucket.cancel(made),
    "leak": lambda bucket, made: bucket.leak(2002),
    "flush": lambda bucket, made: bucket.flush(),
    "take": lambda bucket, made: bucket.take("b", 1),
}


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize(
    ("make", "policy"),
    [(InMemoryBucket, None), (InMemoryBucket, FixedWindow()), (StateBucket, None)],
)
def test_an_exception_at_any_call_undoes_the_step_or_comes_after_it(make, policy, method):
    for step in itertools.count(1):
        bucket, twin = make([Rate(8, 1000)], policy), make([Rate(8, 1000)], policy)
        made, made_in_twin = fill(bucket), fill(twin)
        before = shape(bucket)
        STEPS[method](twin, made_in_twin)

        def call(bucket=bucket, made=made):
            STEPS[method](bucket, made)

        try:
            was_there = interrupted(call, step, interrupt)
        except Interruption:
            was_there = True
        assert shape(bucket) in (before, shape(twin))
        assert in_thread(bucket.check, RateItem("z", 1004)) is not None
        if not was_there:
            break


@pytest.fixture
def untraced():
    """Keep a coverage tool out: what strikes in the middle of it leaves its own lock taken."""
    before = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
@pytest.mark.timeout(60, method="thread")  # the signal of the usual method is this test's
@pytest.mark.usefixtures("untraced")
def test_signal_handlers_that_raise_leave_a_bucket_whole(kind):
    bucket = kind([Rate(10**9, HOUR)])
    limiter, chance = Limiter(bucket), random.Random(7)
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(3e-6, 2e-4))
                for number in range(300):
                    limiter.try_acquire("ab"[number % 2], blocking=False)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interruption:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert in_thread(limiter.try_acquire, "z") is True
    if kind is InMemoryBucket:
        assert len(list(bucket.items)) == bucket.count()
        assert bucket.waiting(RateItem("z", bucket.now())) == 0


# Locks of calls -----------------------------------------------------------------------------------


def test_a_lock_does_not_stay_with_a_call_that_is_over():
    lock = FrameLock()

    def interrupted():
        assert lock.acquire(1, sys._getframe())
        raise Interruption

    with pytest.raises(Interruption):
        interrupted()
    assert in_thread(lock.acquire, 30) is True


def test_a_lock_stays_with_a_call_that_goes_on():
    lock = FrameLock()
    assert lock.acquire(1, sys._getframe())
    assert in_thread(lock.acquire, 0.2) is False
    assert lock.acquire(1, sys._getframe())
    lock.release()
    assert lock.is_mine()
    lock.release()
    assert not lock.is_mine()
    with pytest.raises(RuntimeError, match="does not hold"):
        lock.release()
    assert in_thread(lock.acquire, 30) is True


class NotedLock(ProcessLock):
    """Of a process that is alone, and knows whether it has the lock."""

    held = False

    def _try(self):
        self.held = True
        return True

    def _free(self):
        self.held = False


def interrupted_at_line(call, step, visitor):
    """As `interrupted`, at a line of the locks."""
    seen, before = 0, sys.gettrace()

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.endswith(("locks.py", "process_lock.py")):
            return None
        if event == "line":
            seen += 1
            if seen == step:
                sys.settrace(None)
                visitor()
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen >= step


@pytest.mark.parametrize("make", [FrameLock, NotedLock])
def test_a_signal_handler_that_interrupts_the_taking_of_a_lock_has_it_or_is_refused_at_once(make):
    for step in itertools.count(1):
        lock, inside, visits = make(), [], []

        def visit(lock=lock, visits=visits):
            try:
                assert lock.acquire(timeout=60) if make is NotedLock else lock.acquire(60)
            except ReentrantCall:
                visits.append("refused")
            else:
                visits.append(getattr(lock, "held", True))
                lock.release()

        def call(lock=lock, inside=inside):
            assert lock.acquire(timeout=60) if make is NotedLock else lock.acquire(60)
            inside.append(getattr(lock, "held", True))
            lock.release()

        begun = time.monotonic()
        was_there = interrupted_at_line(call, step, visit)
        assert time.monotonic() - begun < 30
        assert inside == [True]
        assert all(visits)
        assert not getattr(lock, "held", False)
        call()
        if not was_there:
            break
    assert step > 10


def test_a_step_that_an_interrupted_call_has_left_is_undone_by_the_next():
    bucket = InMemoryBucket([Rate(5, HOUR)])
    assert bucket.put(RateItem("a", 1000, 2))

    def interrupted_in_a_step_of_a_step():
        bucket._whole().__enter__()
        bucket._whole().__enter__()
        bucket._total += 3
        raise Interruption  # before anything can leave

    with pytest.raises(Interruption):
        interrupted_in_a_step_of_a_step()
    assert in_thread(bucket.put, RateItem("a", 1000, 3)) is True
    assert bucket.count() == 5
