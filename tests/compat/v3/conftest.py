import pytest


@pytest.fixture
def world(world, monkeypatch):
    monkeypatch.setattr("pyrate_limiter.compat.v3.acquisition.monotonic", world.monotonic)
    return world
