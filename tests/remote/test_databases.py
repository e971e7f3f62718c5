"""Databases, sessions and roles of every kind: logs, states and names, threads and tasks."""

import contextlib

import pytest
from psycopg import conninfo

from pyrate_limiter import Rate
from tests.support import postgres_fixtures as postgres
from tests.support.callers import KINDS, AtPostgres

HOUR = 3_600_000
NAMES = ["plain", "ü😀", "lone\ud800", "nul\0x", "it's \\ $1 %s", "x" * 100_000]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def at(request):
    """Makes callers at the server, with what is said of their sessions."""
    with contextlib.ExitStack() as stack:

        def make(**where):
            callers = AtPostgres(request.param, conninfo.make_conninfo(postgres.dsn(), **where))
            return stack.enter_context(contextlib.closing(callers))

        yield make


@pytest.fixture(scope="module")
def without_encoding():
    """A database that knows bytes alone."""
    name = f"d_{postgres.table()}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    return name


@pytest.fixture
def role():
    """One that may do nothing yet, with its name for a password."""
    name = f"role_{postgres.table()}"
    postgres.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'; GRANT USAGE ON SCHEMA public TO {name}"
    )
    return name


def answers(callers, limiter, name, number):
    asked = [lambda: limiter.try_acquire(name, blocking=False)] * number
    return sorted(callers.together(asked), key=str)


def test_names_of_any_kind_are_limited_in_a_database_without_an_encoding(
    at, kind, without_encoding
):
    callers = at(dbname=without_encoding)
    for name in NAMES:
        limiter = callers.limiter(kind, Rate(2, HOUR), postgres.table())
        assert answers(callers, limiter, name, 3) == [False, True, True]


@pytest.mark.parametrize("setting", ["array_nulls", "standard_conforming_strings"])
def test_any_setting_of_the_session_will_do(at, kind, setting):
    callers = at(options=f"-c {setting}=off")
    limiter = callers.limiter(kind, Rate(2, 100), postgres.table())
    waiters = [lambda: limiter.try_acquire("it's a \\ $1", timeout=40)] * 4
    assert callers.together(waiters) == [True] * 4
    check = limiter.check_async if callers.is_async else limiter.check
    assert callers.call(lambda: check("it's a \\ $1")).remaining is not None


@pytest.mark.parametrize("functions", ["may be executed", "may not"])
def test_a_role_without_a_right_to_create_shares_the_limit_with_the_others(
    at, kind, role, functions
):
    table, rate = postgres.table(), Rate(5, HOUR)
    owner = at()
    theirs = owner.limiter(kind, rate, table)
    assert answers(owner, theirs, "a", 2) == [True, True]
    if functions == "may not":
        postgres.execute(
            "DO $$DECLARE made regprocedure; BEGIN FOR made IN SELECT oid FROM pg_proc "
            f"WHERE proname ~ 'pyrate_limiter' AND prosrc ~ '{table}' LOOP "
            "EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', made); END LOOP; END$$"
        )
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ratelimit___{table} TO {role}")
    callers = at(user=role, password=role)
    limiter = callers.limiter(kind, rate, table)
    assert answers(callers, limiter, "a", 6) == [False] * 3 + [True] * 3
    assert answers(owner, theirs, "a", 1) == [False]


@pytest.mark.parametrize("kind", ["log", "keys"])
def test_an_enormous_weight_is_a_bounded_number_of_rows(at, kind):
    callers, table = at(), postgres.table()
    limiter = callers.limiter(kind, Rate(10**9, HOUR), table)

    def ask(weight):
        return callers.call(lambda: limiter.try_acquire("a", weight, blocking=False))

    assert ask(10**8)
    assert postgres.execute(f"SELECT count(*) FROM ratelimit___{table}")[0][0] <= 1010
    assert not ask(9 * 10**8 + 1)
    assert ask(9 * 10**8)
    assert not ask(1)
    assert postgres.execute(f"SELECT count(*) FROM ratelimit___{table}")[0][0] <= 2010
