"""The steps that the server takes by itself: the text of their functions, and how to call them."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, NamedTuple, get_type_hints

from pyrate_limiter._core.files import text_of
from pyrate_limiter._core.timeline import LATEST_MS, ROUNDS
from pyrate_limiter.buckets.postgres import rows
from pyrate_limiter.buckets.postgres.literals import CLOCK, LONGEST_KEY, NONE, block, literal
from pyrate_limiter.buckets.postgres.lookback import NO_NOTE, furthest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _Step(NamedTuple):
    parameters: tuple[str, ...]
    told: Sequence[tuple[str, object]]
    answer: Sequence[str]


# Each argument costs its parsing, each access to an array its preparation: the parameters that a
# plain acquisition uses once or never share an array.
_ONE = (
    *("p_lock bigint", "p_name text", "p_weight bigint", "p_token bigint"),
    *("p_options bigint[]", "p_rates bigint[]"),
)
_SEVERAL = (
    *("p_lock bigint", "p_names text[]", "p_weights bigint[]", "p_tokens bigint[]"),
    *("p_options bigint[]", "p_rates bigint[]"),
)
_ASK = (*get_type_hints(rows.Ask).items(), *get_type_hints(rows.Try).items())
STEPS = {
    "reserve": _Step(_ONE, _ASK, rows.Answer._fields),
    "reserve_several": _Step(_SEVERAL, _ASK, rows.Answer._fields),
    "confirm": _Step(_ONE, (*get_type_hints(rows.ConfirmRequest).items(),), rows.Confirmed._fields),
    "cancel": _Step(_ONE, (*get_type_hints(rows.CancelRequest).items(),), rows.Cancelled._fields),
}
"""Each step's parameters, of which ``p_options`` has the numbers that it is told by their names."""
CONFIG = ("enable_seqscan=off", "search_path=pg_catalog, pg_temp")
"""What each function sets for itself: nothing of anybody else's is looked up by its name alone."""
MOST_ROWS = 1000
"""An acquisition has so many rows for programs on 4.5.1 at the most."""
STORED_MS = "floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint"
"""The moment of a row of 4.5.1."""
NUMBERS = {
    "late_ms": LATEST_MS,
    "rounds": ROUNDS,
    "looks": 64,  # at how many of the newest acquisitions to look for room
    "most_rows": MOST_ROWS,
    "most_weight": (1 << 15) - 1,  # of 4.5.1's column
    "longest_name": LONGEST_KEY,
    "most_behind": 256,  # acquisitions that are numbered anew
    "clean_each": 256,  # units
    "left": 1024,  # expired acquisitions, and how many are deleted at once
    "clean_each_key": 64,  # units
    "most_of_keys": 512,  # acquisitions that are deleted at once
    "stale": rows.STALE,
    "expired": rows.EXPIRED,
    "changed": rows.CHANGED,
}
"""Those that the SQL calls ``@late_ms@`` and so on."""
_RATES = ("limits", "intervals", "pads")
_NUMBERED = "units IS DISTINCT FROM 0"
_TEXTS = {
    "bound": "v_bound := least(p_bound, v_now - greatest(p_intervals[array_length(p_rates, 2)], "
    f"{furthest('@table@', 'v_read')}));",
    "stands": "SELECT at_ms, token FROM @table@ WHERE @hold@",
    "own": "sum(units) FILTER (WHERE token = p_token AND claimed_ms IS NOT NULL)",
    "at": "at_ms",
    "live": "AND units > 0",
    "units": "sum(units)",
    "mine": "",
    "key": "NULL",
    "clock": CLOCK,
    "begun": CLOCK.replace("clock_timestamp", "statement_timestamp"),
    "stored_ms": STORED_MS,
    "no_note": NO_NOTE,
    "numbered": _NUMBERED,
    **{name: str(number) for name, number in NUMBERS.items()},
}
_KEYED = {"mine": "AND key = p_lock", "key": "p_lock"}
_KEYED |= {"clean": "@clean_keyed@", "adopt": ""}  # 4.5.1 limits no names by themselves
# On a table that has only the columns of 4.5.1.
_PLAIN = {"stands": "SELECT WHERE false", "own": "NULL", "at": STORED_MS, "units": "count(*)"}
_PLAIN["live"] = f"AND {NO_NOTE}"
_RETURN = re.compile(r"RETURN (ARRAY\[.*?\]::bigint\[\]);", re.DOTALL)
_PART = re.compile("@(?!table@|reserve@)([a-z_]+)@")
_WORD = re.compile(r"\bp_(\w+)|@(table|reserve)@")


def held_row(mine: str) -> str:
    """The condition that finds what is held, see `holds`, of the rows that ``mine`` picks."""
    return f"seq IS NULL AND {_NUMBERED} AND units IS NULL AND at_ms IS NOT NULL {mine}"


_TEXTS["hold"] = held_row("@mine@")


@lru_cache(maxsize=32)
def _read(name: str) -> str:
    return text_of("buckets", "postgres", "sql", f"{name}.sql").rstrip()


def _filled(
    name: str, words: Mapping[str, str], *, keyed: bool, plain: bool = False, **more: str
) -> str:
    """A file's SQL. What is called ``@part@`` there is another file, or one of the texts.

    ``words`` are what stands for the table and the parameters. Where it is ``plain``, the table has
    only the columns of 4.5.1.
    """
    texts = {**_TEXTS, **more, **(_PLAIN if plain else {}), **(_KEYED if keyed else {})}
    if keyed and plain:
        texts["mine"] = "AND name = p_name"
    text = _read(name)
    while parts := set(_PART.findall(text)):
        for part in parts:
            text = text.replace(f"@{part}@", texts[part] if part in texts else _read(part))
    return _WORD.sub(lambda match: words.get(match[1] or match[2], match[0]), text)


def look(table: str, lock: str, units: rows.Units, bound: int, *, keyed: bool, plain: bool) -> str:
    """The statements that hand out what is held, what is stored from a moment on, and a digest.

    What is stored is times, with all units of them and those that a token marks.
    """
    words = {"table": table, "lock": lock, "bound": str(bound)}
    words |= {"name": literal(units.name), "token": str(units.token)}
    return _filled("look", words, keyed=keyed, plain=plain)


@lru_cache(maxsize=256)
def body(step: str, table: str, keyed: bool, reserve: str = "@reserve@") -> str:
    """The PL/pgSQL of one step on one table, which is given as it stands in SQL.

    ``reserve`` is the function that the step for several calls.
    """
    plain = step == "plain"
    _, told, answer = STEPS["reserve" if plain else step]
    words = {name: f"p_rates[{place}]" for place, name in enumerate(_RATES, 1)}
    for place, (name, kind) in enumerate(told, 1):
        number = words[name] = f"p_options[{place}]"
        if kind is bool:
            words[name] = f"({number} <> 0)"
        elif kind is not int:
            words[name] = f"nullif({number}, {NONE})"
    more = {f"told_{name}": str(place) for place, (name, _) in enumerate(told, 1)}
    more |= {f"answer_{name}": str(place) for place, name in enumerate(answer, 1)}
    more["answer"] = f"ARRAY[{', '.join(f'v_{name}' for name in answer)}]::bigint[]"
    words |= {"table": table, "reserve": reserve}
    return _filled(step, words, keyed=keyed, plain=plain, **more)


def function_names(name: str, keyed: bool) -> dict[str, str]:
    """Each step's function. Another version of its text has another name."""
    return {
        step: f"pyrate_limiter_{step}_"
        + blake2b(f"{name}\0{body(step, name, keyed)}".encode(), digest_size=8).hexdigest()
        for step in STEPS
    }


def source(step: str, schema: str, name: str, table: str, keyed: bool) -> str:
    """The text of the function as it is made."""
    return body(step, table, keyed, f"{schema}.{function_names(name, keyed)['reserve']}")


def digest(text: str) -> str:
    """What tells a function's text from any other."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def definition(step: str, schema: str, name: str, table: str, keyed: bool) -> str:
    """The statement that makes the function."""
    settings = " ".join("SET " + setting.replace("=", " = ") for setting in CONFIG)
    return (
        f"CREATE FUNCTION {schema}.{function_names(name, keyed)[step]} "
        f"({', '.join(STEPS[step].parameters)}) RETURNS bigint[] LANGUAGE plpgsql {settings} "
        f"AS {block(source(step, schema, name, table, keyed))};"
    )


def call(step: str, function: str) -> str:
    """SQL that takes the step, with a ``%s`` for each parameter.

    They are cast, so that no other function of that name can be meant.
    """
    kinds = (parameter.split()[1] for parameter in STEPS[step].parameters)
    casts = ", ".join(f"%s::{kind.replace('text', 'pg_catalog.text')}" for kind in kinds)
    return f"SELECT {function.replace('%', '%%')}({casts})"


def anonymous(step: str, table: str, keyed: bool) -> str:
    """The same step for a role that may not create functions: its parameters are declared in it."""
    declared = " ".join(f"{parameter} := %s;" for parameter in _ONE)
    text = body(step, table, keyed).replace("%", "%%")
    text = text.replace("DECLARE", f"DECLARE {declared}", 1)
    text = _RETURN.sub(
        r"PERFORM set_config('pyrate_limiter.answer', (\1)::text, true); RETURN;", text
    )
    return (
        f"SET LOCAL search_path = pg_catalog, pg_temp; DO {block(text)}; "
        "SELECT current_setting('pyrate_limiter.answer')"
    )
