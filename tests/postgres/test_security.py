"""Roles that may do little, schemas that others may create in, and databases of every kind."""

import asyncio
import contextlib
import enum
import itertools
import time

import psycopg
import pytest
from psycopg import conninfo

from pyrate_limiter import (
    FixedWindow,
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    StateBucket,
)
from tests.support import postgres_fixtures as postgres
from tests.support.callers import KINDS
from tests.support.postgres_fixtures import FOREVER, HOUR, admitted

pool = postgres.shared_pool


def every_judge(pool, rates, table=None):
    """Logs, keys and states, and each way to judge them."""
    table = table or postgres.table()
    yield PostgresBucket(pool, f"{table}_fixed", rates, FixedWindow())
    yield from postgres.every_kind(pool, rates, table)


@contextlib.contextmanager
def as_role(*rights, schema="public", **settings):
    """A role, a pool of its own, and what grants it rights on tables."""
    role = f"role_{postgres.table()}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    for name, value in settings.items():
        postgres.execute(f"ALTER ROLE {role} SET {name} = {value}")
    theirs = conninfo.make_conninfo(postgres.dsn(), user=role, password=role)

    def grant(table):
        for (name,) in postgres.execute(
            f"SELECT tablename FROM pg_tables WHERE tablename ~ '{table}'"
        ):
            postgres.execute(f"GRANT {', '.join(rights)} ON {schema}.{name} TO {role}")

    with postgres.pool(theirs, size=3) as pool:
        yield pool, grant


def limiter_of(pool, kind, name):
    """Of two in an hour, on a table of that name."""
    if kind == "keys":
        return Limiter.per_key(Rate(2, HOUR), bucket=PostgresKeys(pool, name))
    if kind == "state":
        store = PostgresStateStore(pool, "k", table=f"ratelimit___{name}")
        return Limiter(StateBucket([Rate(2, HOUR)], store=store))
    return Limiter(PostgresBucket(pool, name, [Rate(2, HOUR)]))


def admits(limiter, calls):
    return sum(limiter.try_acquire("a", blocking=False) for _ in range(calls))


def waits_in_order(bucket):
    limiter = Limiter(bucket)
    return [limiter.try_acquire("a", timeout=20) for _ in range(4)]


def test_a_role_that_may_select_insert_and_delete_needs_nothing_more(pool):
    table = postgres.table()
    for bucket in every_judge(pool, [Rate(2, 100)], table):
        admitted(bucket, 1)
    with as_role("SELECT", "INSERT", "DELETE") as (theirs, grant):
        grant(table)
        kinds = [*every_judge(theirs, [Rate(2, 100)], table)]
        for bucket in kinds[:4]:
            assert waits_in_order(bucket) == [True] * 4
            began = time.monotonic()
            most = admitted(bucket, 5)
            assert most <= 2 + 2 * ((time.monotonic() - began) // 0.1)
            assert bucket.count()
            bucket.leak()
        # A state is changed in place.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            admitted(kinds[4], 1)


def test_what_a_lesser_role_stores_counts_for_the_others(pool):
    table = postgres.table()
    bucket = PostgresBucket(pool, table, [Rate(3, HOUR)])
    with as_role("SELECT", "INSERT", "DELETE") as (theirs, grant):
        grant(table)
        assert admitted(PostgresBucket(theirs, table, [Rate(3, HOUR)]), 2) == 2
    assert admitted(bucket, 5) == 1


def test_a_role_that_may_not_execute_the_functions_does_without(pool):
    table = postgres.table()
    for bucket in every_judge(pool, [Rate(2, HOUR)], table):
        admitted(bucket, 1)
    for function in functions_of(table):
        postgres.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    with as_role("SELECT", "INSERT", "UPDATE", "DELETE") as (theirs, grant):
        grant(table)
        for bucket in every_judge(theirs, [Rate(2, HOUR)], table):
            assert admitted(bucket, 3) == 1
            item = RateItem("a", bucket.now())
            reservation = bucket.reserve(item, FOREVER, 0)
            assert reservation.wait_ms > 0
            assert bucket.cancel(reservation)


def test_functions_that_are_dropped_or_forbidden_meanwhile_are_done_without(pool):
    table = postgres.table()
    with as_role("SELECT", "INSERT", "UPDATE", "DELETE") as (theirs, grant):
        made = PostgresBucket(pool, table, [Rate(3, HOUR)])
        grant(table)
        bucket = PostgresBucket(theirs, table, [Rate(3, HOUR)])
        assert bucket._steps._layout.functions
        for name in made._steps._layout.functions.values():
            postgres.execute(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
        assert admitted(bucket, 1) == 1
        for name in made._steps._layout.functions.values():
            postgres.execute(f"DROP FUNCTION {name}")
        assert admitted(bucket, 1) == 1
        assert admitted(made, 2) == 1


def test_an_empty_search_path_will_do(pool):
    table = postgres.table()
    with as_role("SELECT", "INSERT", "UPDATE", "DELETE", search_path="''") as (theirs, grant):
        for bucket in every_judge(pool, [Rate(2, HOUR)], table):
            admitted(bucket, 1)
        grant(table)
        for bucket in every_judge(theirs, [Rate(2, HOUR)], table):
            assert admitted(bucket, 3) == 1
            assert bucket.count() == 2
    where = conninfo.make_conninfo(postgres.dsn(), options="-c search_path=")
    with postgres.pool(where, size=1) as ours:
        for bucket in every_judge(ours, [Rate(2, HOUR)]):
            assert admitted(bucket, 3) == 2


TRAPS = """
    CREATE FUNCTION {schema}.to_timestamp(numeric) RETURNS timestamptz LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: to_timestamp'; END$$;
    CREATE FUNCTION {schema}.floor(integer) RETURNS numeric LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: floor'; END$$;
    CREATE FUNCTION {schema}.left(text, bigint) RETURNS text LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: left'; END$$;
    CREATE FUNCTION {schema}.pg_advisory_xact_lock(integer) RETURNS void LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: pg_advisory_xact_lock'; END$$;
    CREATE FUNCTION {schema}.trap(numeric, integer) RETURNS numeric LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: an operator on numeric'; END$$;
    CREATE FUNCTION {schema}.trap(bigint, integer) RETURNS bigint LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: an operator on bigint'; END$$;
    CREATE FUNCTION {schema}.trap(name, text) RETURNS boolean LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: an operator on name'; END$$;
    CREATE FUNCTION {schema}.trap(text, text) RETURNS text LANGUAGE plpgsql AS
      $$BEGIN RAISE 'trapped: an operator on text'; END$$;
    CREATE OPERATOR {schema}.* (FUNCTION = {schema}.trap, LEFTARG = numeric, RIGHTARG = integer);
    CREATE OPERATOR {schema}./ (FUNCTION = {schema}.trap, LEFTARG = numeric, RIGHTARG = integer);
    CREATE OPERATOR {schema}.% (FUNCTION = {schema}.trap, LEFTARG = bigint, RIGHTARG = integer);
    CREATE OPERATOR {schema}.+ (FUNCTION = {schema}.trap, LEFTARG = bigint, RIGHTARG = integer);
    CREATE OPERATOR {schema}.- (FUNCTION = {schema}.trap, LEFTARG = bigint, RIGHTARG = integer);
    CREATE OPERATOR {schema}.= (FUNCTION = {schema}.trap, LEFTARG = name, RIGHTARG = text);
    CREATE OPERATOR {schema}.|| (FUNCTION = {schema}.trap, LEFTARG = text, RIGHTARG = text);
    CREATE DOMAIN {schema}.text AS pg_catalog.text CHECK (false);
    """


@pytest.fixture
def trapped():
    """A schema that somebody else may create in, and a pool whose sessions look there first."""
    schema = f"s_{postgres.table()}"
    postgres.execute(f"CREATE SCHEMA {schema}")
    postgres.execute(TRAPS.format(schema=schema))
    path = f"{schema},pg_catalog,public"
    where = conninfo.make_conninfo(postgres.dsn(), options=f"-c search_path={path}")
    with postgres.pool(where, size=1) as pool:
        with pool.connection() as connection, pytest.raises(psycopg.errors.RaiseException):
            connection.execute("SELECT 1::numeric * 2")
        yield schema, pool


def test_nothing_is_looked_up_along_the_search_path_but_the_table(trapped):
    _, pool = trapped
    for bucket in every_judge(pool, [Rate(2, 100)]):
        assert waits_in_order(bucket) == [True] * 4
        item = RateItem("a" * 300, bucket.now(), 2)
        reservation = bucket.reserve(item, FOREVER)
        assert reservation.allowed
        bucket.cancel(reservation)
        bucket.check(item)
        bucket.count()
        bucket.peek(0)
        bucket.leak()
        bucket.flush()


def functions_of(table):
    """What has been made beside tables whose names contain this."""
    return [
        name
        for (name,) in postgres.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ 'pyrate_limiter' "
            f"AND prosrc ~ '{table}'"
        )
    ]


def test_a_role_without_functions_looks_nothing_up_along_the_search_path(trapped, pool):
    schema, _ = trapped
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    for rights in (["SELECT", "INSERT", "DELETE"], ["SELECT", "INSERT", "UPDATE", "DELETE"]):
        table, path = postgres.table(), f"{schema},pg_catalog,public"
        with as_role(*rights, search_path=path) as (theirs, grant):
            for bucket in every_judge(pool, [Rate(2, 100)], table):
                admitted(bucket, 1)
            for function in functions_of(table):
                postgres.execute(f"DROP FUNCTION {function}")
            grant(table)
            *logs, state = every_judge(theirs, [Rate(2, 100)], table)
            for bucket in logs:
                assert waits_in_order(bucket) == [True] * 4
                assert not bucket._steps._layout.functions
            if "UPDATE" in rights:
                assert waits_in_order(state) == [True] * 4


def test_tasks_of_lesser_roles_look_nothing_up_along_the_search_path_either(trapped, pool):
    schema, _ = trapped
    table = postgres.table()
    for bucket in every_judge(pool, [Rate(2, HOUR)], table):
        admitted(bucket, 1)
    path = f"{schema},pg_catalog,public"
    with as_role("SELECT", "INSERT", "UPDATE", "DELETE", search_path=path) as (theirs, grant):
        postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
        grant(table)

        async def scenario():
            async with await postgres.async_pool(theirs.conninfo) as tasks:
                for bucket in every_judge(tasks, [Rate(2, HOUR)], table):
                    limiter = Limiter(bucket)
                    calls = [limiter.try_acquire_async("a", blocking=False) for _ in range(2)]
                    assert sorted(await asyncio.gather(*calls)) == [False, True]
                    assert await bucket.count() == 2

        asyncio.run(scenario())


def log_of(pool, table, keyed):
    """Of two in an hour, whose functions are there."""
    if not keyed:
        return PostgresBucket(pool, table, [Rate(2, HOUR)])
    bucket = PostgresKeys(pool, table).keyed([Rate(2, HOUR)])
    bucket.count()
    return bucket


@pytest.mark.parametrize("keyed", [False, True])
def test_a_function_that_somebody_else_made_first_is_not_called(keyed):
    schema, table = f"s_{postgres.table()}", postgres.table()
    postgres.execute(f"CREATE SCHEMA {schema}")
    where = conninfo.make_conninfo(postgres.dsn(), options=f"-c search_path={schema}")
    with postgres.pool(where, size=1) as ours:
        names = log_of(ours, table, keyed)._steps._layout.functions
        postgres.execute(f"DROP TABLE {schema}.ratelimit___{table}")
        with as_role("SELECT", schema=schema) as (theirs, _):
            with theirs.connection() as connection:
                (role,) = connection.execute("SELECT current_user").fetchone()
            postgres.execute(f"GRANT CREATE ON SCHEMA {schema} TO {role}")
            for step, name in names.items():
                (text,) = postgres.execute(f"SELECT pg_get_functiondef('{name}'::regproc)")[0]
                postgres.execute(f"DROP FUNCTION {name}")
                with theirs.connection() as connection:
                    if step == "reserve":  # what does something else
                        text = text.replace("BEGIN", "BEGIN RAISE 'trapped';", 1)
                    connection.execute(text)
            bucket = log_of(ours, table, keyed)
            assert not bucket._steps._layout.functions
            assert admitted(bucket, 3) == 2


@pytest.mark.parametrize("keyed", [False, True])
def test_an_overload_of_a_function_of_ours_is_not_called(pool, keyed):
    bucket = log_of(pool, postgres.table(), keyed)
    name = bucket._steps._layout.functions["reserve"]
    for kinds in itertools.islice(
        itertools.product(
            ["bigint", "integer"], ["text", "varchar"], ["bigint", "integer"], ["bigint", "integer"]
        ),
        1,
        None,
    ):
        postgres.execute(
            f"CREATE FUNCTION {name}({', '.join(kinds)}, text, text) RETURNS bigint[] "
            "LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$"
        )
    assert admitted(bucket, 3) == 2


def test_functions_keep_their_names_as_long_as_their_text_stays(pool):
    table = postgres.table()
    names = PostgresBucket(pool, table, [Rate(2, HOUR)])._steps._layout.functions
    assert PostgresBucket(pool, table, [Rate(9, 1000)])._steps._layout.functions == names
    count = "SELECT count(*) FROM pg_proc WHERE proname ~ 'pyrate_limiter' AND prosrc ~ "
    made = postgres.execute(f"{count}'{table}'")
    PostgresBucket(pool, table, [Rate(2, HOUR)], FixedWindow())
    assert postgres.execute(f"{count}'{table}'") == made


@pytest.mark.parametrize(
    "settings", [{"array_nulls": "off"}, {"standard_conforming_strings": "off"}]
)
def test_any_setting_of_the_session_will_do(settings):
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    where = conninfo.make_conninfo(postgres.dsn(), options=options)
    with postgres.pool(where, size=1) as pool:
        for bucket in every_judge(pool, [Rate(2, 100)]):
            assert waits_in_order(bucket) == [True] * 4
            Limiter(bucket).acquire("it's a \\ $1")
            assert Limiter(bucket).check("a").remaining is not None


NAMES = [
    "plain",
    "ü😀",
    "lone\ud800",
    "nul\0x",
    "it's \\ $1 %s",
    "x" * 100_000,
    12345,
    None,
    b"b",
    "",
]


@pytest.fixture(scope="module")
def database():
    """A database without an encoding."""
    name = f"d_{postgres.table()}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with postgres.pool(conninfo.make_conninfo(postgres.dsn(), dbname=name), size=2) as pool:
        yield pool


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_names_of_any_kind_are_limited(request, encoding):
    pool = request.getfixturevalue("pool" if encoding == "UTF8" else "database")
    for name in NAMES:
        for bucket in every_judge(pool, [Rate(2, HOUR)]):
            bucket.flush()
            limiter = Limiter(bucket)
            got = [limiter.try_acquire(name, blocking=False) for _ in range(3)]
            assert got == [True, True, False]
    for name in NAMES[:6]:
        store = PostgresStateStore(pool, name, table=f"states_{postgres.table()}")
        assert admitted(StateBucket([Rate(2, HOUR)], store=store), 3) == 2
    bucket = PostgresBucket(pool, postgres.table(), [Rate(9, HOUR)])
    for name in (NAMES[0], NAMES[1], NAMES[3], NAMES[5]):
        assert bucket.put(RateItem(name, bucket.now()))
        assert bucket.peek(0).name == name


def test_long_names_are_told_apart_by_their_ends(pool):
    keys = PostgresKeys(pool, postgres.table())
    limiter = Limiter.per_key(Rate(1, HOUR), bucket=keys)
    long = "x" * 3000
    answers = [limiter.try_acquire(name, blocking=False) for name in (long, long, long + "y")]
    assert answers == [True, False, True]
    table = f"states_{postgres.table()}"
    for name in (long, long + "y"):
        store = PostgresStateStore(pool, name, table=table)
        assert admitted(StateBucket([Rate(1, HOUR)], store=store), 2) == 1


def test_a_heavy_call_with_a_long_name_is_stored_in_little_room(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1000, HOUR)])
    assert bucket.put(RateItem("".join(map(str, range(20_000))), bucket.now(), 1000))
    size = postgres.execute(f"SELECT pg_total_relation_size('{bucket.table}')")
    assert size[0][0] < 2_000_000
    assert bucket.count() == 1000


def test_a_weight_may_be_any_whole_number(pool):
    class Weight(int, enum.Enum):
        HEAVY = 2

    for bucket in every_judge(pool, [Rate(4, HOUR)]):
        limiter = Limiter(bucket)
        got = [limiter.try_acquire("a", Weight.HEAVY, blocking=False) for _ in range(3)]
        assert got == [True, True, False]


def test_an_enormous_weight_is_a_bounded_number_of_rows(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(10**9, HOUR)])
    assert bucket.put(RateItem("a", bucket.now(), 10**8))
    assert bucket.count() == 10**8
    assert postgres.execute(f"SELECT count(*) FROM {bucket.table} WHERE weight > 0") == [(1000,)]
    assert bucket.peek(0).name == "a"
    assert bucket.leak(bucket.now() + 2 * HOUR) == 10**8
    assert postgres.execute(f"SELECT count(*) FROM {bucket.table} WHERE weight > 0") == [(0,)]


def test_tables_whose_names_begin_alike_are_apart(pool):
    for length in (37, 49, 51):  # with what stands before it, of 63
        for kind in KINDS:
            stem = f"{postgres.table()}{'x' * 60}"[: length - 1]
            limiters = [limiter_of(pool, kind, stem + ending) for ending in "ab"]
            assert [admits(limiter, 3) for limiter in limiters] == [2, 2]


def test_names_that_the_server_cuts_to_one_table_are_one_limit(pool):
    for kind in KINDS:
        name = kind + postgres.table() + "x" * 60
        limiters = [limiter_of(pool, kind, name + ending) for ending in "ab"]
        assert [admits(limiter, 2) for limiter in limiters] == [2, 0]
    buckets = [PostgresBucket(pool, name + ending, [Rate(3, HOUR)]) for ending in "ab"]
    assert buckets[0]._steps.lock("") == buckets[1]._steps.lock("")


def test_a_table_that_was_renamed_to_archive_it_is_made_anew(pool):
    for kind in KINDS:
        table = postgres.table()
        for number in range(3):
            limiter = limiter_of(pool, kind, table)
            assert admits(limiter, 3) == 2
            if kind != "state":
                (bucket,) = limiter.bucket_factory.get_buckets()
                assert bucket._steps._layout.functions
                assert not any(bucket._steps._layout.missing)
            postgres.execute(f"ALTER TABLE ratelimit___{table} RENAME TO archive_{number}_{table}")


@pytest.mark.parametrize(
    "name", ["new\nline", "tab\t", "quote\"'", "nul\0", "lone\ud800", "é" * 10]
)
def test_a_table_may_have_any_name(pool, name):
    for bucket in every_judge(pool, [Rate(2, HOUR)], postgres.table() + name):
        assert admitted(bucket, 3) == 2
        assert admitted(bucket, 1) == 0
