"""What every test shares: the Hypothesis profiles, the kinds of buckets, and release 4.5.1.

``HYPOTHESIS_PROFILE`` chooses one; without it, ``ci`` where ``CI`` is set, else ``dev``.
"""

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import venv

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

# Coverage takes a lock where a file is first entered, which a forked child may find taken for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=functools.partial(sys.settrace, None))
    os.register_at_fork(after_in_child=functools.partial(threading.settrace, None))

settings.register_profile("ci", max_examples=200, **COMMON)
settings.register_profile("dev", max_examples=50, **COMMON)
settings.register_profile("long", max_examples=5_000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


def pytest_collection_finish():
    """Spare the garbage collector, which many tests run, a look at all that was collected."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def older(tmp_path_factory):
    """The Python of an environment with release 4.5.1, and the drivers that fleets use."""
    folder = tmp_path_factory.mktemp("older")
    venv.create(folder, symlinks=os.name != "nt")
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    packages = ("pyrate-limiter==4.5.1", "filelock", "redis", "psycopg[binary,pool]")
    install = ("--python", python, "install", "-q", "--disable-pip-version-check", *packages)
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, stdout=sys.stderr)
    return python
