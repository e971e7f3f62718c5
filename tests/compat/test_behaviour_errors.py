"""The family of errors: built-in base types, what they say, and pickling."""

import copy
import pickle
import subprocess
import sys

import pytest

from pyrate_limiter import Decision, PyrateError, Rate, errors

RATE = Rate(1, 1000)
SAMPLES = [
    (errors.WrongType("weight", "x", "a number"), [TypeError]),
    (errors.OutOfRange("max_keys", 0, "1 or more"), [ValueError]),
    (errors.InvalidRate("limit", 0), [ValueError, AssertionError]),
    (errors.InvalidRateText("10/x", 3, "a unit"), [ValueError]),
    (errors.InvalidRateList([RATE, RATE]), [ValueError, AssertionError]),
    (errors.InvalidRateList([], "empty"), [ValueError]),
    (errors.NoRates("a bucket"), [AttributeError]),
    (errors.InvalidLimiterArgument("x"), [TypeError, AssertionError]),
    (errors.InvalidBucket("x", "it"), [TypeError, AssertionError]),
    (errors.InvalidWeight(-1), [ValueError, AssertionError]),
    (errors.InvalidTimestamp("x"), [ValueError]),
    (errors.InvalidTimeout(-2), [ValueError]),
    (errors.InvalidReserveAhead(-2), [ValueError]),
    (errors.TimeoutWithoutBlocking(1), [RuntimeError]),
    (errors.AlgorithmMismatch("x", "Bucket", "a policy"), [TypeError]),
    (errors.RateLimitExceeded("n", 2, Decision(RATE, 30)), [RuntimeError]),
    (errors.RateLimitExceeded("n", 2, Decision(RATE), "never"), [RuntimeError]),
    (errors.AsyncBucketInSyncCode("await it"), [RuntimeError]),
    (errors.BucketRetired(), [RuntimeError]),
    (errors.ReentrantCall("a bucket"), [RuntimeError]),
    (errors.CannotHold("a bucket"), [NotImplementedError, RuntimeError]),
    (errors.CannotHold("a table", "add columns"), [NotImplementedError]),
    (errors.TooManyKeys("n", 5), [RuntimeError]),
    (errors.BucketClosed(), [RuntimeError, AttributeError]),
    (errors.InvalidDatabase("a file lock needs a path"), [ValueError]),
    (errors.NotShared("items", []), [ValueError]),
    (errors.SharedStorageLost("a place"), [ConnectionError, OSError, EOFError]),
    (errors.SharedStorageBusy("a place", 2.0), [TimeoutError, OSError]),
    (errors.MissingDriver("psycopg", "postgres"), [ImportError, ModuleNotFoundError]),
    (errors.NoRedisImplementation("a policy"), [TypeError]),
    (errors.OutOfRange("wait", -1, "0 or more"), [ValueError]),
    (errors.InvalidField("a\n", "it is no field"), [ValueError]),
    (errors.InvalidNetwork("10.0.0.0/99"), [ValueError]),
]
IDS = [type(error).__name__ for error, _ in SAMPLES]


@pytest.mark.parametrize(("error", "kinds"), SAMPLES, ids=IDS)
def test_each_error_is_of_the_family_and_of_the_old_type(error, kinds):
    assert isinstance(error, PyrateError)
    assert all(isinstance(error, kind) for kind in kinds)


@pytest.mark.parametrize(("error", "kinds"), SAMPLES, ids=IDS)
def test_each_error_survives_pickle_and_copy(error, kinds):
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__.keys() == error.__dict__.keys()


def test_every_error_of_the_module_is_sampled_here():
    family = {
        value.__name__
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PyrateError) and value is not PyrateError
    }
    assert family == set(IDS)


@pytest.mark.parametrize(("error", "kinds"), SAMPLES, ids=IDS)
def test_each_error_says_something(error, kinds):
    assert len(str(error)) > 4


def test_rate_limit_exceeded_carries_the_verdict():
    error = errors.RateLimitExceeded("n", 2, Decision(RATE, 30))
    assert (error.name, error.weight, error.decision) == ("n", 2, Decision(RATE, 30))
    assert (error.failing_rate, error.retry_after_ms) == (RATE, 30)
    assert "it fits in 30 ms" in str(error)
    assert "can never fit" in str(errors.RateLimitExceeded("n", 2, Decision(RATE)))


def test_errors_carry_their_data():
    assert errors.InvalidRate("limit", 0).value == 0
    assert errors.InvalidRateText("10/x", 3, "a unit").position == 3
    assert errors.TooManyKeys("n", 5).max_keys == 5
    assert errors.InvalidRateList([RATE]).rates == [RATE]
    assert errors.InvalidTimeout(-2).timeout == -2


NONSENSE = """
from pyrate_limiter import *
from pyrate_limiter.abstracts.bucket import AbstractBucket
import sys
assert not __debug__ or sys.exit("asserts are on")
limiter = Limiter(Rate(1, 1000))
nonsense = [
    (lambda: Rate(0, 1000), ValueError),
    (lambda: Rate(1, 0), ValueError),
    (lambda: Rate(1, 1, 0), ValueError),
    (lambda: Limiter([]), ValueError),
    (lambda: Limiter("x"), TypeError),
    (lambda: Limiter([1]), TypeError),
    (lambda: Limiter(Rate(1, 1), -1), ValueError),
    (lambda: InMemoryBucket([]), ValueError),
    (lambda: InMemoryBucket([Rate(2, 1), Rate(1, 2)]), ValueError),
    (lambda: InMemoryBucket([Rate(2, 1)], GCRA()), TypeError),
    (lambda: StateBucket([Rate(2, 1)], FixedWindow()), TypeError),
    (lambda: BucketAsyncWrapper(1), TypeError),
    (lambda: SingleBucketFactory(1), TypeError),
    (lambda: limiter.try_acquire(weight=-1), ValueError),
    (lambda: limiter.try_acquire(timeout=-3), ValueError),
    (lambda: limiter.try_acquire(blocking=False, timeout=1), RuntimeError),
    (lambda: limiter.check(weight=-1), ValueError),
    (lambda: limiter.limit(weight=-1), ValueError),
    (lambda: limiter.as_decorator(weight=-1), ValueError),
    (lambda: Limiter.per_key(Rate(1, 1), max_keys=0), ValueError),
    (lambda: Rate.parse("x"), ValueError),
]
for number, (call, error) in enumerate(nonsense):
    try:
        call()
    except error:
        continue
    sys.exit(f"accepted: {number}")
print("refused", len(nonsense))
"""


@pytest.mark.parametrize("flags", [["-O"], ["-OO"]])
def test_11_python_without_asserts_still_refuses_nonsense(flags):
    done = subprocess.run(
        [sys.executable, *flags, "-c", NONSENSE], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("refused 21\n", "")


def test_source_has_no_assert():
    import ast
    from pathlib import Path

    import pyrate_limiter

    root = Path(pyrate_limiter.__file__).parent
    for path in root.rglob("*.py"):
        if "testing" in path.parts:
            continue  # there an assert is how a test speaks
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], path
