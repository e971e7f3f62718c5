"""Clocks that step, with the log in Postgres, on stamps of a clock that we own."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from pyrate_limiter import FixedWindow, PostgresBucket, SlidingWindowLog
from tests.buckets.test_clock_steps_model import (
    STEPS,
    SteppingClockMachine,
    SteppingWindowMachine,
)
from tests.support import postgres_fixtures as postgres


class Own(SlidingWindowLog):
    """A policy that runs in this process."""


class _InPostgres:
    pool = None
    algorithm = None

    def make(self, rates):
        bucket = PostgresBucket(self.pool, "steps", rates, self.algorithm)
        bucket.flush()
        return bucket

    @rule(weight=st.integers(1, 2), ms=STEPS, ahead=st.booleans())
    def the_clock_steps_while_somebody_waits(self, weight, ms, ahead):
        super().the_clock_steps_while_somebody_waits(weight, ms, ahead)
        self.put(1)  # whoever wakes does not see that it has stepped; whoever asks does


@pytest.fixture(scope="module", autouse=True)
def pool():
    with postgres.pool() as pool:
        _InPostgres.pool = pool
        yield


class LogMachine(_InPostgres, SteppingClockMachine):
    pass


class OwnMachine(_InPostgres, SteppingClockMachine):
    algorithm = Own()


class WindowMachine(_InPostgres, SteppingWindowMachine):
    algorithm = FixedWindow()


FEW = settings(max_examples=15, stateful_step_count=15)  # each step is a round trip

TestSlidingWindowLog = LogMachine.TestCase
TestSlidingWindowLog.settings = FEW
TestOwnPolicy = OwnMachine.TestCase
TestOwnPolicy.settings = FEW
TestFixedWindow = WindowMachine.TestCase
TestFixedWindow.settings = FEW
