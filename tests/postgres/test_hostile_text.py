"""Whatever a name or a table is called: it arrives as it is, and changes nothing else."""

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyrate_limiter import PostgresBucket, PostgresKeys, PostgresStateStore, Rate, RateItem
from pyrate_limiter.algorithms.gcra import GCRA
from pyrate_limiter.buckets.postgres.literals import (
    block,
    literal,
    restored,
    short,
    stored,
    texts,
)
from tests.support import postgres_fixtures as postgres
from tests.support.hostile import PIECES, TEXTS

HOURLY = [Rate(2, 3_600_000)]
OPTIONS = [
    {"standard_conforming_strings": "on"},
    {"standard_conforming_strings": "off", "escape_string_warning": "off"},
    {"standard_conforming_strings": "off", "backslash_quote": "on"},
]
ENCODINGS = {"UTF8": "utf-8", "LATIN1": "latin-1"}  # of a session: what it can say


def options_of(parameters):
    return " ".join(f"-c {name}={value}" for name, value in parameters.items())


@pytest.fixture(scope="module", params=OPTIONS, ids=lambda it: " ".join(it.values()))
def session(request):
    options = options_of(request.param)
    with psycopg.connect(postgres.dsn(), autocommit=True, options=options) as connection:
        yield connection.pgconn


class Session:
    """A pool, and what of a text its sessions can say."""

    def __init__(self, pool, encoding):
        self.pool, self._encoding = pool, encoding

    def sayable(self, name):
        known = stored(name).encode(self._encoding, "ignore").decode(self._encoding)
        return name if known == stored(name) else known


@pytest.fixture(scope="module", params=ENCODINGS)
def client(request):
    with postgres.pool(size=2, kwargs={"client_encoding": request.param}) as made:
        yield Session(made, ENCODINGS[request.param])


def asked(session, text):
    """The one value that a statement answers, and that it was the only one."""
    result = session.exec_(text.encode())
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, (text, result.error_message)
    assert (result.ntuples, result.nfields) == (1, 1)
    return result.get_value(0, 0).decode()


def kept(name):
    """What a text is once it was stored and read."""
    return restored(stored(name))


@given(name=TEXTS)
def test_a_literal_is_the_text_that_was_written(session, name):
    assert asked(session, f"SELECT {literal(name)}") == stored(name)


@given(names=st.lists(TEXTS, min_size=1, max_size=4))
def test_so_is_each_of_an_array(session, names):
    for place, name in enumerate(names, 1):
        assert asked(session, f"SELECT ({texts(names)})[{place}]") == stored(name)


@given(program=TEXTS)
def test_a_program_is_quoted_by_what_does_not_occur_in_it(session, program):
    assert asked(session, f"SELECT {block(stored(program))}") == stored(program)


@given(name=TEXTS)
def test_a_literal_does_not_end_what_it_is_quoted_in(session, name):
    block = f"BEGIN PERFORM set_config('its.name', {literal(name)}, false); END"
    assert session.exec_(f"DO $pyrate_limiter${block}$pyrate_limiter$".encode()).status == 1
    assert asked(session, "SELECT current_setting('its.name')") == stored(name)


@given(one=TEXTS, other=TEXTS)
def test_texts_that_differ_are_stored_differently(one, other):
    readable = [it.replace("\0", "␀").encode("utf-8", "backslashreplace") for it in (one, other)]
    assert (stored(one) == stored(other)) is (readable[0] == readable[1])
    assert (short(one) == short(other)) is (one == other)
    assert len(short(one)) <= 255


@settings(max_examples=settings.default.max_examples // 2)
@given(name=TEXTS, other=TEXTS)
@example(name="😀", other="é")
def test_a_bucket_stores_the_name_and_nothing_else(client, name, other):
    name, other = client.sayable(name), client.sayable(other)
    bucket = PostgresBucket(client.pool, "hostile", HOURLY)
    bucket.flush()
    now = bucket.now()
    assert bucket.put(RateItem(name, now))
    reservation = bucket.reserve(RateItem(other, now))
    assert reservation
    assert [bucket.peek(place).name for place in (1, 0)] == [kept(name), kept(other)]
    assert not bucket.put(RateItem(name, now))
    assert bucket.cancel(reservation)
    assert bucket.count() == 1


@settings(max_examples=settings.default.max_examples // 2)
@given(name=TEXTS, other=TEXTS)
def test_each_name_is_limited_by_itself(client, name, other):
    name, other = client.sayable(name), client.sayable(other)
    bucket = PostgresKeys(client.pool, "hostile_keys").keyed(HOURLY)
    bucket.flush()
    now = bucket.now()
    assert all(bucket.put(RateItem(name, now)) for _ in range(2))
    assert bucket.put(RateItem(other, now)) is (other != name)
    assert not bucket.put(RateItem(name, now))


@settings(max_examples=settings.default.max_examples // 2)
@given(key=TEXTS, other=TEXTS)
def test_each_state_is_found_by_its_key(client, key, other):
    key, other = client.sayable(key), client.sayable(other)
    one, two = (PostgresStateStore(client.pool, it, table="hostile_states") for it in (key, other))
    one.reset()
    two.reset()
    assert one.check(GCRA(), HOURLY, 1_000_000, 2).allowed
    assert two.check(GCRA(), HOURLY, 1_000_000, 2).allowed is (short(key) != short(other))


@settings(max_examples=settings.default.max_examples // 5)
@given(name=st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join))
def test_a_table_may_be_called_anything(client, name):
    pool, name = client.pool, client.sayable(name)
    bucket = PostgresBucket(pool, name, HOURLY)
    bucket.flush()
    try:
        assert [bucket.put(RateItem(name, bucket.now())) for _ in range(3)] == [True, True, False]
        again = PostgresBucket(pool, name, HOURLY).reserve(RateItem(name, bucket.now()))
        assert not again.allowed
        assert bucket.leak(bucket.now() + 10_000_000) == 2
    finally:
        postgres.execute(f"DROP TABLE {bucket._steps._layout.table}")
