"""What every test shares: the Hypothesis profiles, and the kinds of buckets.

``HYPOTHESIS_PROFILE`` chooses one; without it, ``ci`` where ``CI`` is set, else ``dev``.
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# No deadline and no complaint about slowness: on a busy machine both fail tests that are right.
# Each run draws new examples; print_blob gives the line that replays a failure.
COMMON = {
    "deadline": None,
    "derandomize": False,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}

# A run that a shell has started in the background ignores interrupts, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", max_examples=200, **COMMON)
settings.register_profile("dev", max_examples=50, **COMMON)
settings.register_profile("long", max_examples=5_000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture
def world(monkeypatch):
    from tests.support.doubles import World

    return World(monkeypatch)


@pytest.fixture
def made(tmp_path):
    """What makes buckets of each kind, and closes them and their servers' clients at the end."""
    from tests.support.kinds import ends

    with ends(tmp_path) as made:
        yield made


@pytest.fixture
def make(made):
    """Makes an empty bucket of a kind of `tests.support.kinds.KINDS`, from rates."""
    return made.make
