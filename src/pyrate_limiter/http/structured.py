"""Lists of items with parameters, as RFC 9651 writes them into a field."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter.errors import InvalidField

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    Bare: TypeAlias = "str | int | float | bytes | bool"

_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}(?![0-9])|[0-9]{1,15}(?![0-9.]))")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_BOOLEAN = re.compile(r"\?([01])")
_DATE = re.compile(r"@(-?[0-9]{1,15})")
_KEY = re.compile(r" *([a-z*][a-z0-9_.*-]*)")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_LARGEST = 999_999_999_999_999


class Item(NamedTuple):
    """A value and its parameters. A token is read as a text; a date as its number."""

    value: Bare
    parameters: dict[str, Bare]


def parse_list(text: str) -> list[Item]:
    """Read a list of items; an empty text is an empty list.

    Raises:
        InvalidField: it is malformed, or has inner lists.
    """
    text = text.strip(" ")
    items: list[Item] = []
    position = 0
    while position < len(text):
        if items:
            comma = _COMMA.match(text, position)
            if comma is None or comma.end() == len(text):
                raise _malformed(text, position)
            position = comma.end()
        value, position = _bare(text, position)
        parameters: dict[str, Bare] = {}
        while text.startswith(";", position):
            key, setting, position = _parameter(text, position)
            parameters[key] = setting
        items.append(Item(value, parameters))
    return items


def format_list(items: Iterable[tuple[str, Iterable[tuple[str, int | str | bytes | None]]]]) -> str:
    """Write strings with parameters as a list. A parameter that is None is left out.

    Raises:
        InvalidField: a text is not printable ASCII, or a number has more than 15 digits.
    """
    return ", ".join(
        _format(value)
        + "".join(f";{key}={_format(found)}" for key, found in parameters if found is not None)
        for value, parameters in items
    )


def _parameter(text: str, position: int) -> tuple[str, Bare, int]:
    key = _KEY.match(text, position + 1)
    if key is None:
        raise _malformed(text, position)
    if not text.startswith("=", key.end()):
        return key[1], True, key.end()
    value, position = _bare(text, key.end() + 1)
    return key[1], value, position


def _bare(text: str, position: int) -> tuple[Bare, int]:
    if found := _STRING.match(text, position):
        return re.sub(r"\\(.)", r"\1", found[1]), found.end()
    if found := _NUMBER.match(text, position):
        number = found[0]
        return float(number) if "." in number else int(number), found.end()
    if found := _TOKEN.match(text, position):
        return found[0], found.end()
    if found := _BYTES.match(text, position):
        try:
            return base64.b64decode(found[1] + "=" * (-len(found[1]) % 4)), found.end()
        except binascii.Error as error:
            raise _malformed(text, position) from error
    if found := _BOOLEAN.match(text, position):
        return found[1] == "1", found.end()
    if found := _DATE.match(text, position):
        return int(found[1]), found.end()
    raise _malformed(text, position)


@lru_cache(maxsize=256)  # a program has few names, and writes them into each answer
def format_text(text: str) -> str:
    """Write a text as a String.

    Raises:
        InvalidField: it is not printable ASCII.
    """
    if not (text.isascii() and text.isprintable()):
        raise InvalidField(text, "texts in fields are printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def format_bytes(value: bytes) -> str:
    """Write bytes as a Byte Sequence."""
    return f":{base64.b64encode(value).decode()}:"


def _format(value: int | str | bytes) -> str:
    if isinstance(value, bytes):
        return format_bytes(value)
    if isinstance(value, str):
        return format_text(value)
    if not -_LARGEST <= value <= _LARGEST:
        raise InvalidField(value, "numbers in fields have up to 15 digits")
    return str(int(value))


def _malformed(text: str, position: int) -> InvalidField:
    return InvalidField(text, f"malformed at character {position}")
