import pytest

from tests.doubles import World
from tests.kinds import ends


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def made(tmp_path):
    """What makes buckets of each kind, and closes them and their servers' clients at the end."""
    with ends(tmp_path) as made:
        yield made


@pytest.fixture
def make(made):
    """Makes an empty bucket of a kind of `tests.kinds.KINDS`, from rates."""
    return made.make
