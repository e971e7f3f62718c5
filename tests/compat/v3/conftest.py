import pytest

from tests.doubles import World


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch)
    monkeypatch.setattr("pyrate_limiter.compat.v3.acquisition.monotonic", world.monotonic)
    return world
