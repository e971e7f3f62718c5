"""The steps that the server takes by itself: the text of their functions, and how to call them."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b, sha256

from pyrate_limiter._core.files import text_of
from pyrate_limiter.buckets.postgres.literals import block
from pyrate_limiter.buckets.postgres.lookback import NO_NOTE, furthest

# Each argument costs its parsing, each access to an array its preparation: the parameters that a
# plain acquisition uses once or never share an array.
_ONE = (
    *("p_lock bigint", "p_name text", "p_weight bigint", "p_token bigint"),
    *("p_options bigint[]", "p_rates bigint[]"),
)
PARAMETERS = {
    "reserve": _ONE,
    "reserve_several": (
        *("p_lock bigint", "p_names text[]", "p_weights bigint[]", "p_tokens bigint[]"),
        *("p_options bigint[]", "p_rates bigint[]"),
    ),
    "confirm": _ONE,
    "cancel": _ONE,
}
"""The parameters of each step's function."""
_RESERVE = (
    *("durable", "unusual", "now", "clock", "patience", "buffer", "store", "look", "again"),
    *("lock_ms", "expires", "fixed", "since", "not_before", "swept"),
)
OPTIONS = {
    "reserve": _RESERVE,
    "reserve_several": _RESERVE,
    "confirm": ("durable", "now", "patience", "fixed", "lock_ms"),
    "cancel": ("durable", "expires", "since", "until", "lock_ms"),
}
"""What the numbers in ``p_options`` of each step are; the SQL calls them ``p_now`` and so on."""
NONE = -(1 << 62)
"""Stands for NULL in ``p_options``: a server may be set up to read no NULL in an array's text."""
MOST_ROWS = 1000
"""An acquisition has so many rows for programs on 4.5.1 at the most."""
CONFIG = ("enable_seqscan=off", "search_path=pg_catalog, pg_temp")
"""What each function sets for itself: nothing of anybody else's is looked up by its name alone."""
_FLAGS = {"durable", "unusual", "store", "look", "again", "fixed"}
_NULLABLE = {"now", "clock", "buffer", "not_before"}
_RATES = ("limits", "intervals", "pads")
_PARTS = (
    "adopt",
    "held",
    "between",
    "windows",
    "leaves",
    "counts",
    "clean",
    "sweep",
    "renumber",
    "take_out",
)
_NUMBERED = "units IS DISTINCT FROM 0"
_BOUND = (
    "v_bound := v_now - greatest(p_intervals[array_length(p_rates, 2)], "
    f"{furthest('@table@', 'v_read')});"
)
_RETURN = re.compile(r"RETURN (ARRAY\[.*?\]::bigint\[\]);", re.DOTALL)


@lru_cache(maxsize=256)
def body(step: str, table: str, keyed: bool) -> str:
    """The PL/pgSQL of one step on one table, which is given as it stands in SQL."""

    def parameter(match: re.Match[str]) -> str:
        name = match[1]
        if name in _RATES:
            return f"p_rates[{_RATES.index(name) + 1}]"
        if name not in options:
            return match[0]
        number = f"p_options[{options.index(name) + 1}]"
        if name in _NULLABLE:
            return f"nullif({number}, {NONE})"
        return f"({number} <> 0)" if name in _FLAGS else number

    options = OPTIONS["reserve" if step == "plain" else step]
    text = _read(step)
    for part in _PARTS:
        if f"@{part}@" in text:
            text = text.replace(f"@{part}@", _part(part, keyed))
    text = text.replace("@bound@", _BOUND).replace("@no_note@", NO_NOTE)
    text = re.sub(r"\bp_(\w+)", parameter, text)
    for name in ("unusual", "not_before"):
        text = text.replace(f"@{name}@", str(_RESERVE.index(name) + 1))
    text = text.replace("@renumber@", _read("renumber").rstrip())
    mine = ("AND name = p_name" if step == "plain" else "AND key = p_lock") if keyed else ""
    text = text.replace("@key@", "p_lock" if keyed else "NULL")
    return _named(text, table, mine)


def _part(name: str, keyed: bool) -> str:
    if name == "adopt" and keyed:
        return ""  # 4.5.1 limits no names by themselves
    return _read("clean_keyed" if name == "clean" and keyed else name).rstrip()


def _named(text: str, table: str, mine: str) -> str:
    text = text.replace("@hold@", held_row(mine))
    text = text.replace("@numbered@", _NUMBERED).replace("@mine@", mine)
    return text.replace("@most_rows@", str(MOST_ROWS)).replace("@table@", table)


def held_row(mine: str) -> str:
    """The condition that finds what is held, see `postgres_holds`, of the rows ``mine`` picks."""
    return f"seq IS NULL AND {_NUMBERED} AND units IS NULL AND at_ms IS NOT NULL {mine}"


@lru_cache(maxsize=32)
def _read(name: str) -> str:
    return text_of("buckets", "postgres", "sql", f"{name}.sql")


def renumbering(table: str, first: int, mine: str) -> str:
    """The statement that numbers the units from a moment on, of those that ``mine`` picks."""
    return _named(_read("renumber").replace("v_first", str(first)), table, mine)


def function_names(name: str, keyed: bool) -> dict[str, str]:
    """Each step's function. Another version of its text has another name."""
    return {
        step: f"pyrate_limiter_{step}_"
        + blake2b(f"{name}\0{body(step, name, keyed)}".encode(), digest_size=8).hexdigest()
        for step in OPTIONS
    }


def source(step: str, schema: str, name: str, table: str, keyed: bool) -> str:
    """The text of the function as it is made."""
    text = body(step, table, keyed)
    if step != "reserve_several":  # a table may be called like the word that is replaced
        return text
    return text.replace("@reserve@", f"{schema}.{function_names(name, keyed)['reserve']}")


def digest(text: str) -> str:
    """What tells a function's text from any other."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def definition(step: str, schema: str, name: str, table: str, keyed: bool) -> str:
    """The statement that makes the function."""
    settings = " ".join("SET " + setting.replace("=", " = ") for setting in CONFIG)
    return (
        f"CREATE FUNCTION {schema}.{function_names(name, keyed)[step]} "
        f"({', '.join(PARAMETERS[step])}) RETURNS bigint[] LANGUAGE plpgsql {settings} "
        f"AS {block(source(step, schema, name, table, keyed))};"
    )


def call(step: str, function: str) -> str:
    """SQL that takes the step, with a ``%s`` for each parameter.

    They are cast, so that no other function of that name can be meant.
    """
    kinds = (parameter.split()[1] for parameter in PARAMETERS[step])
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
