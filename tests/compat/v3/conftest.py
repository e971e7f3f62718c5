import pytest


@pytest.fixture
def world(world, monkeypatch):
    monkeypatch.setattr("pyrate_limiter.compat.v3.limiter.monotonic", world.monotonic)
    return world
