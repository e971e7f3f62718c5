import pytest

from tests.doubles import World


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)
