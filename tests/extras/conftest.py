import pytest

from tests.extras import http_server


@pytest.fixture
def server():
    with http_server.running() as server:
        yield server
