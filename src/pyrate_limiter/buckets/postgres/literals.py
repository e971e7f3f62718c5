"""Values in SQL, and out of it again."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter._core.validation import pad_ms
from pyrate_limiter.abstracts.algorithm import SlidingWindowLog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm

NONE = -(1 << 62)
"""Stands for NULL among numbers: a server may be set up to read no NULL in an array's text."""
NEVER = 1 << 62
"""After every moment that there is, in ms."""
CLOCK = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The server's clock, in SQL."""
LONGEST_KEY = 255
"""Characters of a name that has room in an index."""
_NUL = "\N{SYMBOL FOR NULL}"
_as_it_is = re.compile(r"[ -#%&(-\[\]-~]*").fullmatch  # ASCII without ' $ \


class Limits(NamedTuple):
    """What limits a bucket."""

    rates: RateList
    algorithm: LogAlgorithm
    sql: str  # limits, intervals, and by how many ms a waiter keeps clear of the edge
    fixed: bool  # whether units are numbered in the order of their time, whoever is late

    @classmethod
    def of(cls, rates: RateList, algorithm: LogAlgorithm) -> Limits:
        """Those of these rates, as a policy sees to them."""
        limits = [rate.limit for rate in rates]
        intervals = [rate.interval for rate in rates]
        rows = limits, intervals, map(pad_ms, intervals)
        sql = f"'{{{','.join(map(_array, rows))}}}'"
        return cls(rates, algorithm, sql, type(algorithm) is not SlidingWindowLog)


def literal(text: str) -> str:
    """A string in SQL, whatever characters it has. See `stored` for those that have no place."""
    text = str(text)
    if _as_it_is(text):
        return f"'{text}'"
    text = stored(text).replace("\\", "\\\\").replace("'", "''")
    return f"E'{text}'".replace("$", "\\x24")  # a dollar could end what it is quoted in


def block(text: str) -> str:
    """A program in SQL, quoted as it stands, by what does not occur in it."""
    tag = "$pyrate_limiter$"
    while (text + tag).index(tag) < len(text):  # a table may be called so
        tag = f"{tag[:-1]}_$"
    return f"{tag}{text}{tag}"


def short(name: str) -> str:
    """The name, or what stands for it in an index, where there is no room for a long one."""
    if len(name) <= LONGEST_KEY:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
    return f"{name[: LONGEST_KEY - 65]}#{digest}"


def stored(text: str) -> str:
    """The text with a symbol for NUL, and with escapes for halves of surrogate pairs."""
    text = text.replace("\0", _NUL)
    return text.encode("utf-8", "backslashreplace").decode()


def restored(text: str) -> str:
    """The text that was `stored`."""
    return text.replace(_NUL, "\0")


def numbers(array: str) -> list[int | None]:
    """The numbers of an array in SQL's own writing."""
    return [None if word == "NULL" else int(word) for word in array[1:-1].split(",")]


def lock_key(table: str, name: str | None = None) -> str:
    """The advisory lock of a bucket, which is 64 bits of a hash."""
    whole = table if name is None else f"{table}\0{name}"
    digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return str(int.from_bytes(digest, "big", signed=True))


def unique() -> int:
    """A number that nobody else has, and that SQL has room for."""
    return int.from_bytes(os.urandom(8), "big") >> 1


def texts(values: Iterable[str]) -> str:
    """Strings in SQL, as an array."""
    return f"ARRAY[{','.join(map(literal, values))}]"


def integers(values: Iterable[int]) -> str:
    """Numbers in SQL, as an array."""
    return f"'{_array(map(int, values))}'"


def _array(numbers: Iterable[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"
