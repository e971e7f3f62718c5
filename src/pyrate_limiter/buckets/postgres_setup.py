"""The table with its indexes and functions: found, or made, from many processes at once."""

from __future__ import annotations

import re
import time
import zlib
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from pyrate_limiter._files import text_of
from pyrate_limiter.buckets.postgres_link import driver
from pyrate_limiter.buckets.postgres_text import literal

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.buckets.postgres_link import Link

# Each argument costs its parsing, each access to an array its preparation: the parameters that a
# plain acquisition uses once or never share an array.
_PARAMETERS = (
    *("p_lock bigint", "p_name text", "p_weight bigint", "p_token bigint"),
    *("p_terms bigint[]", "p_rates bigint[]"),
)
TERMS = {
    "claim": (
        *("durable", "unusual", "now", "clock", "patience", "buffer", "store", "look", "again"),
        *("lock_ms", "expires", "fixed"),
    ),
    "settle": ("durable", "now", "slack", "patience", "fixed"),
    "release": ("durable", "moment", "expires"),
}
"""What the numbers in ``p_terms`` of each step are; the SQL calls them ``p_now`` and so on."""
_FLAGS = {"durable", "unusual", "store", "look", "again", "fixed"}
_RATES = ("limits", "intervals", "pads")
_COLUMNS = ("at_ms", "seq", "claimed_ms", "token")
_RETURN = re.compile(r"RETURN (ARRAY\[.*?\]::bigint\[\]);", re.DOTALL)
_TRIES = 20
_PROBE = """
    SELECT n.nspname,
      (SELECT string_agg(attname, E'\\n') FROM pg_attribute
        WHERE attrelid = c.oid AND NOT attisdropped),
      (SELECT string_agg(relname, E'\\n') FROM pg_index JOIN pg_class ON oid = indexrelid
        WHERE indrelid = c.oid),
      (SELECT string_agg(proname, E'\\n') FROM pg_proc
        WHERE pronamespace = n.oid AND proname IN ({functions})),
      floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass({table})
    """


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def advisory_lock_id(table: str) -> int:
    """The advisory lock under which a table is created, the same as in 4.5.1."""
    return zlib.crc32(table.encode()) & 0x7FFFFFFF


@lru_cache(maxsize=256)
def _body(step: str, table: str, keyed: bool) -> str:
    """The PL/pgSQL of one step on one table, which is given as it stands in SQL."""

    def parameter(match: re.Match[str]) -> str:
        name = match[1]
        if name in _RATES:
            return f"p_rates[{_RATES.index(name) + 1}]"
        if name not in terms:
            return match[0]
        number = f"p_terms[{terms.index(name) + 1}]"
        return f"({number} <> 0)" if name in _FLAGS else number

    terms = TERMS["claim" if step == "plain" else step]
    text = _read(step)
    for part in ("adopt", "clean", "renumber"):
        name = f"{part}_keyed" if part == "clean" and keyed else part
        text = text.replace(f"@{part}@", _read(name).rstrip())
    text = re.sub(r"\bp_(\w+)", parameter, text)
    return text.replace("@mine@", "AND name = p_name" if keyed else "").replace("@table@", table)


@lru_cache(maxsize=16)
def _read(name: str) -> str:
    return text_of("buckets", "sql", f"postgres_{name}.sql")


def renumbering(table: str, first: int, name: str | None) -> str:
    """The statement that numbers the units from a moment on; of one name, or of the whole table."""
    text = _read("renumber").replace("v_first", str(first)).replace("@table@", table)
    return text.replace("@mine@", "" if name is None else f"AND name = {name}")


def _anonymous(step: str, table: str, keyed: bool) -> str:
    """The same step for a role that may not create functions: its parameters are declared in it."""
    declared = " ".join(f"{parameter} := %s;" for parameter in _PARAMETERS)
    text = _body(step, table, keyed).replace("%", "%%")
    text = text.replace("DECLARE", f"DECLARE {declared}", 1)
    text = _RETURN.sub(
        r"PERFORM set_config('pyrate_limiter.answer', (\1)::text, true); RETURN;", text
    )
    return (
        f"DO $pyrate_limiter${text}$pyrate_limiter$; "
        "SELECT current_setting('pyrate_limiter.answer')::bigint[]"
    )


class Place:
    """Where a bucket's units are.

    Attributes:
        table: the table with its schema, as it stands in SQL.
        functions: the function of each step; empty where the role may not create them.
        calls: SQL that takes each step, with a ``%s`` for each parameter.
        has_columns: whether the table has more than the columns of 4.5.1.
        missing: columns, indexes and functions that would have to be made.
    """

    __slots__ = ("calls", "functions", "has_columns", "missing", "schema", "table")

    def __init__(self, schema: str, name: str, keyed: bool, found: list[set[str]]) -> None:
        self.schema: str = quoted(schema)
        self.table: str = f"{self.schema}.{quoted(name)}"
        columns, indexes, functions = found
        self.has_columns: bool = columns.issuperset(_COLUMNS)
        wanted = _functions(name, keyed)
        self.missing: tuple[list[str], list[str], list[str]] = (
            [column for column in _COLUMNS if column not in columns],
            [label for label in _indexes(name, keyed) if label not in indexes],
            [step for step, function in wanted.items() if function not in functions],
        )
        usable = self.has_columns and not self.missing[2]
        self.functions: dict[str, str] = {}
        if usable:
            self.functions = {step: f"{self.schema}.{wanted[step]}" for step in wanted}
        self.calls: dict[str, str] = {step: self._call(step, keyed) for step in TERMS}

    def _call(self, step: str, keyed: bool) -> str:
        if self.functions:
            name = self.functions[step].replace("%", "%%")
            return f"SELECT {name}({', '.join('%s' for _ in _PARAMETERS)})"
        plain = step == "claim" and not self.has_columns
        return _anonymous("plain" if plain else step, self.table, keyed)


def find_or_make(
    link: Link, name: str, keyed: bool, seconds: float | None = None
) -> Program[Place]:
    """Find the table with all that belongs to it, or make what is missing and may be made.

    A step of it takes so many ``seconds`` at the most.
    """
    errors = driver().errors
    # Others make the same at the same time; 4.5.1 does not wait for its turn.
    races = (
        errors.UniqueViolation,
        errors.DuplicateTable,
        errors.DuplicateObject,
        errors.DuplicateFunction,
    )
    refused = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)
    tries_left = _TRIES
    while True:
        place = yield from _find(link, name, keyed, seconds)
        if place is not None and not any(place.missing):
            return place
        tries_left -= 1
        try:
            yield from link.query(_statements(name, keyed, place), seconds)
        except races:
            if not tries_left:
                raise
        except refused:
            place = (yield from _find(link, name, keyed, seconds)) or place
            if place is None:
                raise
            return place


def _find(link: Link, name: str, keyed: bool, seconds: float | None) -> Program[Place | None]:
    probe = _PROBE.format(
        functions=", ".join(map(literal, _functions(name, keyed).values())),
        table=literal(quoted(name)),
    )
    sent = time.monotonic()
    row = yield from link.query(probe, seconds)
    if row is None:
        return None
    link.learn(sent, int(row[4]))
    return Place(row[0], name, keyed, [set((found or "").split("\n")) for found in row[1:4]])


def _functions(name: str, keyed: bool) -> dict[str, str]:
    """Each step's function. Another version of its text has another name."""
    return {
        step: f"pyrate_limiter_{step}_"
        + blake2b(_body(step, name, keyed).encode(), digest_size=8).hexdigest()
        for step in TERMS
    }


def _indexes(name: str, keyed: bool) -> dict[str, str]:
    key, kind = ("name, ", "keyed_") if keyed else ("", "")
    indexes = {
        f"timestampindex_{name.removeprefix('ratelimit___')}": "(item_timestamp)",
        _index("token", name): "(token) WHERE claimed_ms IS NOT NULL",
        _index("time", name): "(at_ms, seq)",
        _index(f"{kind}seq", name): f"({key}seq)",
        _index(f"{kind}time", name): f"({key}at_ms, seq)",
    }
    # An identifier has at most 63 bytes; the server cuts off what is longer.
    return {
        label.encode()[:63].decode("utf-8", "ignore"): columns for label, columns in indexes.items()
    }


def _statements(name: str, keyed: bool, place: Place | None) -> str:
    made = [f"BEGIN; SELECT pg_advisory_xact_lock({advisory_lock_id(name)});"]
    if place is None:
        made.append(
            f"CREATE TABLE IF NOT EXISTS {quoted(name)} "
            "(name VARCHAR, weight SMALLINT, item_timestamp TIMESTAMP, "
            "at_ms BIGINT, seq BIGINT, claimed_ms BIGINT, token BIGINT);"
        )
    else:
        columns, indexes, functions = place.missing
        if columns:
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} BIGINT" for column in columns)
            made.append(f"ALTER TABLE {place.table} {added};")
        wanted = _indexes(name, keyed)
        made += [
            f"CREATE INDEX IF NOT EXISTS {quoted(label)} ON {place.table} {wanted[label]};"
            for label in indexes
        ]
        parameters = ", ".join(_PARAMETERS)
        made += [
            f"CREATE FUNCTION {place.schema}.{_functions(name, keyed)[step]} ({parameters}) "
            "RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off "
            f"AS $pyrate_limiter${_body(step, place.table, keyed)}$pyrate_limiter$;"
            for step in functions
        ]
    return " ".join([*made, "COMMIT"])


def _index(kind: str, name: str) -> str:
    return f"pyrate_limiter_{kind}_{blake2b(name.encode(), digest_size=8).hexdigest()}"
