"""Processes whose clocks disagree, on one key, some of them on release 4.5.1."""

import subprocess
import sys
import threading
import time
import uuid

import pytest
import redis

from pyrate_limiter import Rate, RateItem, RedisBucket
from tests.support.redis_fleet import (
    bucket_on,
    environment_of,
    most_in_a_window,
    overtaken,
    run_fleet,
    spans,
)
from tests.support.redis_servers import DEFAULT, shared_url, sync_client, wait_until

pytestmark = pytest.mark.alone

SHIFTS = (-5000, -700, 0, 5000)
THREADS = {"threads": 8, "calls": 5, "limit": 40, "interval": 400}
TASKS = {"tasks": 200, "calls": 1, "limit": 400, "interval": 500}


@pytest.fixture
def client():
    with sync_client(shared_url()) as client:
        yield client


def four(**given):
    """Four processes whose clocks disagree."""
    return [(sys.executable, {"shift": shift, **given}) for shift in SHIFTS]


def most_by_score(scores, interval):
    """The largest number of units in any window, its edges included."""
    return most_in_a_window([(score, score) for score in sorted(scores)], interval)[0]


class Served:
    """What became of a fleet whose callers wait."""

    def __init__(self, kind, given):
        self.given, key = given, f"fleet:{uuid.uuid4()}"
        with sync_client(shared_url(kind), decode_responses=True) as client:
            # A user with a long interval, without whom the key may expire before it is read.
            keeper = RedisBucket([Rate(1, 3_600_000)], client, key)
            keeper.put(RateItem("keeper", keeper.now() - 60_000))
            self.records = run_fleet(four(url=shared_url(kind), key=key, blocking=True, **given))
            client.zremrangebyrank(key, 0, 0)
            units = client.zrange(key, 0, -1, withscores=True)
        self.scores = {member.rsplit(":", 2)[0]: score for member, score in units}


@pytest.fixture(scope="module", params=["threads", "tasks", "tasks on Valkey"])
def served(request):
    kind = "valkey" if "Valkey" in request.param else DEFAULT
    return Served(kind, THREADS if request.param == "threads" else TASKS)


def test_all_who_wait_are_served_once(served):
    workers = served.given.get("threads") or served.given["tasks"]
    assert len(served.scores) == 4 * workers * served.given["calls"]
    assert served.scores.keys() == served.records.keys()
    assert all(record["outcome"] is True for record in served.records.values())


def test_no_window_of_the_servers_time_has_a_unit_over_the_limit(served):
    given = served.given
    assert most_by_score(served.scores.values(), given["interval"]) <= given["limit"]
    assert most_in_a_window(spans(served.records), given["interval"] / 1000)[0] <= given["limit"]


def test_who_came_first_is_given_the_earlier_moment_across_processes(served):
    # But for room that a late waiter has left behind: he has moved on within his pad.
    early = [latest - due for _, due, latest in overtaken(served.records)]
    assert max(early, default=0) <= served.given["interval"] // 20


def test_nobody_goes_before_the_moment_of_the_unit(served):
    # What is reserved for a waiter of a process may be used by another that stands before it.
    for process in map(str, range(4)):
        mine = [name for name in served.records if name.split(".")[0] == process]
        went = sorted(1000 * served.records[name]["went"] for name in mine)
        moments = sorted(served.scores[name] for name in mine)
        early = [(at, moment) for at, moment in zip(went, moments) if at < moment - 1]
        assert early == []


@pytest.mark.parametrize("workers", [{"threads": 8, "calls": 10}, {"tasks": 200, "calls": 1}])
def test_four_processes_take_all_there_is_and_refuse_nobody_with_room_to_spare(client, workers):
    key = f"fleet:{uuid.uuid4()}"
    given = {"url": shared_url(), "key": key, "limit": 100, "interval": 60_000, **workers}
    records = run_fleet(four(blocking=False, look=True, **given)).values()
    assert sum(record["outcome"] for record in records) == 100
    assert {record["room"] for record in records if not record["outcome"]} == {0}
    assert client.zcard(key) == 100


class Arrivals:
    """The units of a key in the order in which they were stored: names and scores."""

    def __init__(self, client, key):
        self._client, self._key = client, key
        self._end = uuid.uuid4().hex
        self.units = []
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self):
        self._thread.start()
        self._listens.wait()
        return self

    def __exit__(self, *_):
        self._client.echo(self._end)
        self._thread.join()

    def _listen(self):
        # The processes take their time to start.
        patient = sync_client(shared_url(), decode_responses=True, socket_timeout=None)
        with patient as client, client.monitor() as monitor:
            self._listens.set()
            for command in monitor.listen():
                words = command["command"].split()
                if words[0].upper() == "ZADD" and words[1] == self._key:
                    for score, member in zip(words[2::2], words[3::2], strict=True):
                        self.units.append((member.split(":")[0], int(score)))
                elif self._end in words:
                    return


@pytest.mark.parametrize("blocking", [False, True])
def test_a_mixed_fleet_holds_the_limit_together(client, older, blocking):
    key = f"fleet:{uuid.uuid4()}"
    limit, interval, calls = (40, 400, 5) if blocking else (50, 60_000, 10)
    given = {"url": shared_url(), "key": key, "limit": limit, "interval": interval, "threads": 4}
    given |= {"calls": calls, "blocking": blocking, "reserve_ahead": False}
    with Arrivals(client, key) as arrivals:
        records = run_fleet([(python, given) for python in [sys.executable, older] * 2])
    admitted = [name for name, record in records.items() if record["outcome"]]
    assert sorted(name for name, _ in arrivals.units) == sorted(admitted)
    if blocking:
        assert len(admitted) == len(records)
    # 4.5.1 stamps a unit before it asks, and overlooks what was stored meanwhile with a later
    # stamp: the limit holds for all other units, to the unit. They are at the newest end when
    # they come; and only processes of 4.5.1, which have odd numbers, store units behind it.
    newest, in_order = 0, []
    for name, score in arrivals.units:
        if score >= newest:
            newest = score
            in_order.append(score)
        else:
            assert name[0] in "13"
    assert most_by_score(in_order, interval) <= limit
    if not blocking:
        assert len(admitted) >= limit


def test_a_mixed_fleet_holds_the_limit_of_a_state_in_the_format_of_4_5_1(client, older):
    key = f"fleet:{uuid.uuid4()}"
    given = {"url": shared_url(), "key": key, "limit": 50, "burst": 50, "interval": 36_000_000}
    given |= {"threads": 4, "calls": 10, "blocking": False}
    records = run_fleet([(python, given) for python in [sys.executable, older] * 2])
    assert sum(record["outcome"] for record in records.values()) == 50
    assert client.hkeys(key) == [b"tat1"]


@pytest.mark.parametrize("burst", [{}, {"burst": 1}], ids=["log", "gcra"])
def test_calls_of_4_5_1_do_not_end_a_hold(client, older, burst):
    key = f"fleet:{uuid.uuid4()}"
    given = {"limit": 1, "interval": 100, **burst, "key": key}
    bucket = bucket_on(client, given)
    item = RateItem("a", bucket.now())
    assert bucket.hold(item, 60_000) == 60_000
    theirs = {"url": shared_url(), "threads": 1, "calls": 2, "blocking": False}
    run_fleet([(older, {**given, **theirs})])
    if burst:
        wait_until(lambda: not client.exists(key))  # its life is what 4.5.1 has set
    assert bucket.check(item).retry_after_ms > 1000
    assert bucket_on(client, given).put(RateItem("a", bucket.now())) is False
    assert bucket.release_hold(item) is True


def test_a_hold_is_over_when_4_5_1_has_cleaned_up_behind_it(client, older):
    key = f"fleet:{uuid.uuid4()}"
    bucket = RedisBucket([Rate(1, 100)], client, key)
    bucket.hold(RateItem("a", bucket.now()), 60_000)
    code = (
        "import redis; from pyrate_limiter import Rate, RedisBucket\n"
        f"client = redis.Redis.from_url({shared_url()!r})\n"
        f"bucket = RedisBucket.init([Rate(1, 100)], client, {key!r})\n"
        "bucket.leak(bucket.now() + 90_000)\n"
    )
    subprocess.run([older, "-c", code], check=True, env=environment_of(older))
    assert client.zrange(key, 0, -1) == [b"~hold+"]
    assert bucket.count() == 0
    assert bucket.put(RateItem("a", bucket.now())) is True


def test_a_unit_of_a_fast_clock_counts_as_one_of_now(client):
    key = f"fleet:{uuid.uuid4()}"
    bucket = RedisBucket([Rate(3, 300)], client, key)
    bucket.put(RateItem("a", bucket.now() + 3_600_000, 2))
    decision = bucket.reserve(RateItem("a", bucket.now(), 2))
    assert not decision.allowed
    assert decision.retry_after_ms <= 301
    assert bucket.reserve(RateItem("a", bucket.now(), 1)).allowed


def test_reservations_come_back_with_a_clock_that_steps_back(client):
    key = f"fleet:{uuid.uuid4()}"
    ahead = 3_600_000
    bucket = RedisBucket([Rate(2, 300)], client, key)
    now = int(time.time() * 1000)
    client.zadd(key, {f"a:{n}:1": now + ahead for n in range(2)})
    client.zadd(key, {f"a:{n}-301:1": now + ahead + 301 for n in range(2, 4)})
    decision = bucket.reserve(RateItem("a", now, 1))
    assert not decision.allowed
    assert 500 < decision.retry_after_ms <= 602
    assert (
        most_by_score([score for _, score in client.zrange(key, 0, -1, withscores=True)], 300) == 2
    )


def test_programs_with_a_client_for_each_release_find_the_same_units(client):
    key = f"fleet:{uuid.uuid4()}"
    client.zadd(key, {f"a:b:c326e752b8:{n}": 1_795_493_856_746 for n in (1, 2, 3)})
    bucket = RedisBucket([Rate(5, 1000)], client, key)
    assert str(bucket.peek(0)) == "RateItem(name=a:b, weight=1, timestamp=1795493856746)"
    assert bucket.count() == 3
    assert isinstance(client, redis.Redis)
