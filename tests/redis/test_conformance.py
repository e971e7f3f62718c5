import fakeredis
import pytest
import redis

from pyrate_limiter import FixedWindow, RedisBucket, RedisStateStore, SlidingWindowLog, StateBucket
from pyrate_limiter.testing import BucketConformance, StateStoreConformance
from tests.support.redis_servers import DEFAULT, async_client, fresh_key, shared_url

WIRES = [
    {"decode_responses": decoded, "protocol": protocol}
    for decoded in (False, True)
    for protocol in (2, 3)
]
OPPOSITES = (WIRES[0], WIRES[3])


@pytest.fixture(autouse=True)
def _a_busy_machine_is_no_error(monkeypatch):
    """A caller who does not wait is not told that the server took too long."""
    for module in ("client", "commands", "state_commands"):
        monkeypatch.setattr(f"pyrate_limiter.buckets.redis.{module}.LAST_MS", 20_000)


def wires(*wires):
    """The options of the clients that a class of tests is run with, one after the other."""

    def fixture(self, request):
        self.options = request.param

    names = [
        f"{'text' if wire['decode_responses'] else 'bytes'}-RESP{wire['protocol']}"
        for wire in wires
    ]
    return pytest.fixture(autouse=True, params=wires, ids=names)(fixture)


class _Client(BucketConformance):
    reserves = True
    holds = True
    server = DEFAULT
    algorithm = SlidingWindowLog
    _wire = wires(*WIRES)


class _Sync(_Client):
    @pytest.fixture(autouse=True)
    def _connect(self, _wire):
        self.client = self.connect()
        yield
        self.client.close()

    def connect(self):
        return redis.Redis.from_url(shared_url(self.server), **self.options)

    def make_bucket(self, rates):
        return RedisBucket.init(rates, self.client, fresh_key(), self.algorithm())


class _Async(_Client):
    async def make_bucket(self, rates):
        client = await async_client(shared_url(self.server), **self.options)
        return await RedisBucket.init(rates, client, fresh_key(), self.algorithm())


class _State(_Sync):
    units = False
    _wire = wires(*OPPOSITES)

    def make_bucket(self, rates):
        return StateBucket(rates, store=RedisStateStore(self.client, fresh_key()))


class _StateAsync(_Client):
    units = False
    _wire = wires(*OPPOSITES)

    async def make_bucket(self, rates):
        client = await async_client(shared_url(self.server), **self.options)
        return StateBucket(rates, store=RedisStateStore(client, fresh_key()))


class _Fake:
    _wire = wires(*OPPOSITES)

    def connect(self):
        return fakeredis.FakeRedis(**self.options)


class TestSync(_Sync):
    pass


class TestAsync(_Async):
    pass


class TestState(_State):
    pass


class TestStateAsync(_StateAsync):
    pass


class TestFake(_Fake, _Sync):
    pass


class TestStateFake(_Fake, _State):
    pass


class _Fixed:
    algorithm = FixedWindow
    _wire = wires(WIRES[0])


class TestSyncFixedWindow(_Fixed, _Sync):
    pass


class TestAsyncFixedWindow(_Fixed, _Async):
    pass


class _Valkey:
    server = "valkey"
    _wire = wires(*OPPOSITES)


class TestValkeySync(_Valkey, _Sync):
    pass


class TestValkeyAsync(_Valkey, _Async):
    pass


class TestValkeyState(_Valkey, _State):
    pass


class TestValkeyStateAsync(_Valkey, _StateAsync):
    pass


class _ServerTime:
    """Without the tests that stamp their items by hand, to the millisecond."""

    manual_clock = False
    _wire = wires(WIRES[0])
    test_check_stores_nothing_and_says_the_same = None
    test_reservations_are_in_the_order_of_arrival = None
    test_a_waiter_whose_reservation_is_gone_reserves_anew = None
    test_a_late_waiter_is_recorded_at_the_true_time = None
    test_a_reservation_keeps_clear_of_the_edge_as_far_as_the_caller_waits = None
    test_a_reservation_has_the_first_moment_that_fits = None
    test_an_item_that_fits_now_goes_now = None
    test_limiter_without_reserving_ahead_waits_as_well = None
    test_nobody_goes_before_those_who_have_reserved = None


class TestServerTime(_ServerTime, _Sync):
    pass


class TestServerTimeAsync(_ServerTime, _Async):
    pass


class TestStateServerTime(_ServerTime, _State):
    pass


class TestStore(StateStoreConformance):
    reserves_several = False

    @pytest.fixture(autouse=True)
    def _connect(self):
        self.client = redis.Redis.from_url(shared_url())
        yield
        self.client.close()

    def make_store(self):
        return RedisStateStore(self.client, fresh_key(), ttl_ms=3_600_000)


class TestAsyncStore(StateStoreConformance):
    reserves_several = False

    async def make_store(self):
        return RedisStateStore(await async_client(shared_url()), fresh_key(), ttl_ms=3_600_000)
