"""The table with its indexes and functions: found, or made, from many processes at once."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.postgres import functions
from pyrate_limiter.buckets.postgres.exchange import driver
from pyrate_limiter.buckets.postgres.literals import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.protocols import Row
    from pyrate_limiter.buckets.postgres.session import Session

_COLUMNS = ("at_ms", "seq", "units", "claimed_ms", "token", "key")
_LONGEST_NAME = 63  # bytes; the server cuts off what is longer
_TRIES = 20
# Operators and functions are looked up along the caller's search path until it is set.
_PROBE = """
    SELECT n.nspname, c.oid, pg_catalog.has_table_privilege(c.oid, 'UPDATE'::pg_catalog.text),
      (SELECT pg_catalog.string_agg(attname::pg_catalog.text, ' '::pg_catalog.text)
        FROM pg_catalog.pg_attribute
        WHERE attrelid = c.oid AND NOT attisdropped AND attname::pg_catalog.text = ANY ({columns})),
      (SELECT pg_catalog.string_agg(i.relname::pg_catalog.text, ' '::pg_catalog.text)
        FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND i.relname::pg_catalog.text LIKE 'pyrate_limiter_%'),
      EXISTS (SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_attribute a
        ON a.attrelid = c.oid AND a.attnum = x.indkey[0] AND a.attname = 'item_timestamp'
        WHERE x.indrelid = c.oid),
      EXISTS (SELECT FROM pg_catalog.pg_class taken
        WHERE taken.relnamespace = n.oid AND taken.relname::pg_catalog.text = {stamp}),
      (SELECT pg_catalog.string_agg(p.proname::pg_catalog.text || ' ' || pg_catalog.encode(
          pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'UTF8')), 'hex'), ' ')
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
          JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
        WHERE p.pronamespace = n.oid AND p.proname::pg_catalog.text = ANY ({functions})
          AND (p.proowner = c.relowner OR o.rolsuper OR o.rolname = current_user)
          AND l.lanname = 'plpgsql' AND NOT p.prosecdef AND p.proconfig = {config}
          AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')),
      pg_catalog.floor(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = {oid}
    """


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def as_the_server_cuts(name: str) -> str:
    """The identifier that the server makes of a name."""
    encoded = name.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace")
    return encoded[:_LONGEST_NAME].decode("utf-8", "ignore")


def advisory_lock_id(table: str) -> int:
    """The advisory lock under which a table is created, the same as in 4.5.1."""
    return zlib.crc32(table.encode()) & 0x7FFFFFFF


class Layout:
    """Where a bucket's units are.

    Attributes:
        schema: the table's schema, as it stands in SQL.
        table: the table with its schema, as it stands in SQL.
        functions: the function of each step; empty where the role may not create them.
        calls: SQL that takes each step, with a ``%s`` for each parameter.
        columns: those of ours that the table has.
        has_columns: whether the table has more than the columns of 4.5.1, and the role may use
            them.
        missing: columns, indexes and functions that would have to be made.
    """

    __slots__ = ("calls", "columns", "functions", "has_columns", "missing", "schema", "table")

    def __init__(self, name: str, keyed: bool, row: Row) -> None:
        schema, oid, may_update, columns, indexes, has_stamp, is_taken, found, _ = row
        self.schema: str = quoted(schema)
        self.table: str = f"{self.schema}.{quoted(name)}"
        self.columns: list[str] = (columns or "").split()
        wanted = _indexes(name, oid, keyed, is_taken=is_taken == "t")
        made = (indexes or "").split()
        if has_stamp == "t":
            del wanted[next(iter(wanted))]
        names = functions.function_names(name, keyed)
        words = (found or "").split()
        trusted = set(zip(words[::2], words[1::2]))
        usable = {
            step
            for step in names
            if (names[step], functions.digest(self._source(step, name, keyed))) in trusted
        }
        self.missing: tuple[list[str], dict[str, str], list[str]] = (
            [column for column in _COLUMNS if column not in self.columns],
            {label: on for label, on in wanted.items() if label not in made},
            [step for step in names if step not in usable],
        )
        self.has_columns: bool = not self.missing[0] and may_update == "t"
        self.functions: dict[str, str] = {}
        if self.has_columns and not self.missing[2]:
            self.functions = {step: f"{self.schema}.{names[step]}" for step in names}
        self.calls: dict[str, str] = {
            step: self._call(step, keyed)
            for step in functions.STEPS
            if self.functions or step != "reserve_several"
        }

    def _source(self, step: str, name: str, keyed: bool) -> str:
        return functions.source(step, self.schema, name, self.table, keyed)

    def _call(self, step: str, keyed: bool) -> str:
        if self.functions:
            return functions.call(step, self.functions[step])
        plain = step == "reserve" and not self.has_columns
        return functions.anonymous("plain" if plain else step, self.table, keyed)


def find_or_make(
    session: Session, name: str, keyed: bool, seconds: float | None = None
) -> Program[Layout]:
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
    raised: Exception | None = None
    for _ in range(_TRIES):
        schema, layout = yield from _find(session, name, keyed, seconds)
        if layout is not None and not any(layout.missing):
            return layout
        try:
            yield from session.query(_statements(name, schema, keyed, layout), seconds)
        except races as error:
            raised = error
        except refused as error:
            raised = error
            break
    _, layout = yield from _find(session, name, keyed, seconds)
    if layout is None and raised is not None:
        raise raised
    if layout is None:
        msg = f"the table {name!r} was made and is not there: is somebody dropping it?"
        raise errors.UndefinedTable(msg)
    return layout  # without what may not be made, or what somebody else has taken the name of


def find_table(
    session: Session, name: str, seconds: float | None
) -> Program[tuple[str, str | None]]:
    """The schema that a table would be made in, and the table's oid, if it is there."""
    unqualified = f"pg_catalog.to_regclass({literal(quoted(name))}::pg_catalog.text)"
    public = f"pg_catalog.to_regclass({literal('public.' + quoted(name))}::pg_catalog.text)"
    schema, oid = yield from session.query(
        "SELECT coalesce(pg_catalog.current_schema()::pg_catalog.text, 'public'), "
        f"coalesce({unqualified}, CASE WHEN pg_catalog.current_schema() IS NULL THEN {public} END)"
        "::pg_catalog.oid",
        seconds,
        own_path=False,
    )
    return schema, oid


def _find(
    session: Session, name: str, keyed: bool, seconds: float | None
) -> Program[tuple[str, Layout | None]]:
    schema, oid = yield from find_table(session, name, seconds)
    if oid is None:
        return schema, None
    names = functions.function_names(name, keyed).values()
    probe = _PROBE.format(
        columns=_texts(_COLUMNS),
        functions=_texts(names),
        config=_texts(functions.CONFIG),
        stamp=literal(_stamp_index(name)),
        oid=oid,
    )
    sent = time.monotonic()
    row = yield from session.query(probe, seconds)
    if not row:
        return schema, None
    session.learn(sent, int(row[-1]))
    return schema, Layout(name, keyed, row)


def _texts(words: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, words))}]::pg_catalog.text[]"


def _stamp_index(name: str) -> str:
    return as_the_server_cuts(f"timestampindex_{name.removeprefix('ratelimit___')}")


def _indexes(name: str, oid: str, keyed: bool, *, is_taken: bool) -> dict[str, str]:
    """What to index, by the index's name; the first one is that of 4.5.1.

    The others are named for the table's number: a table that was renamed keeps its indexes.
    """
    key, kind = ("key, ", "keyed_") if keyed else ("", "")
    stamp = f"pyrate_limiter_stamp_{oid}" if is_taken else _stamp_index(name)
    return {
        stamp: "(item_timestamp)",
        f"pyrate_limiter_token_{oid}": "(token) WHERE claimed_ms IS NOT NULL",
        f"pyrate_limiter_time_{oid}": "(at_ms, seq) WHERE units > 0",
        f"pyrate_limiter_{kind}seq_{oid}": f"({key}seq) WHERE units IS DISTINCT FROM 0",
        f"pyrate_limiter_{kind}time_{oid}": f"({key}at_ms, seq) WHERE units > 0",
    }


def _statements(name: str, schema: str, keyed: bool, layout: Layout | None) -> str:
    made = [f"BEGIN; SELECT pg_advisory_xact_lock({advisory_lock_id(name)});"]
    if layout is None:
        made.append(
            f"CREATE TABLE IF NOT EXISTS {quoted(schema)}.{quoted(name)} "
            "(name VARCHAR, weight SMALLINT, item_timestamp TIMESTAMP, "
            f"{', '.join(f'{column} BIGINT' for column in _COLUMNS)});"
        )
    else:
        columns, indexes, steps = layout.missing
        if columns:
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} BIGINT" for column in columns)
            made.append(f"ALTER TABLE {layout.table} {added};")
        made += [
            f"CREATE INDEX IF NOT EXISTS {quoted(label)} ON {layout.table} {indexes[label]};"
            for label in indexes
        ]
        if not columns and not indexes:  # apart, for somebody else may have taken the name
            made += [
                functions.definition(step, layout.schema, name, layout.table, keyed)
                for step in steps
            ]
    return " ".join([*made, "COMMIT"])
