"""Lists of RFC 9651, read and written."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter.errors import InvalidField
from pyrate_limiter.http.structured import Item, format_list, parse_list

VALUES = [
    ('"a \\"b\\" \\\\c"', 'a "b" \\c'),
    ("token/x:*", "token/x:*"),
    ("*a", "*a"),
    ("42", 42),
    ("-0", 0),
    ("999999999999999", 999_999_999_999_999),
    ("4.5", 4.5),
    ("-123456789012.125", -123456789012.125),
    (":aGVsbG8=:", b"hello"),
    (":aGVsbG8:", b"hello"),  # padding may be left out
    ("::", b""),
    ("?1", True),
    ("?0", False),
    ("@1659578233", 1659578233),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_value_is_read_wherever_it_stands(text, value):
    assert parse_list(text) == [Item(value, {})]
    assert parse_list(f'  "x";a={text};  b  ')[0].parameters == {"a": value, "b": True}
    assert [item.value for item in parse_list(f"1 ,\t{text},2")] == [1, value, 2]


def test_an_empty_field_is_an_empty_list():
    assert parse_list("") == parse_list("   ") == []


def test_the_last_parameter_of_a_name_counts():
    assert parse_list("a;x=1;x=2")[0].parameters == {"x": 2}


@pytest.mark.parametrize(
    "text",
    [
        '"open',
        '"bad \\escape"',
        '"ünicode"',
        "1,",
        ",1",
        "1,,2",
        "1 2",
        "1;",
        "1;A=2",
        "1;a=",
        "1;a =2",
        "1.2345",
        "1.",
        "1234567890123456",
        "1234567890123.1",
        "--1",
        "?2",
        ":a:",
        ":not base64!:",
        "@1.5",
        "(1 2)",
        "\t1",
        "\x00",
    ],
)
def test_what_is_malformed_is_refused_with_its_text(text):
    with pytest.raises(InvalidField) as caught:
        parse_list(text)
    assert caught.value.value == text.strip(" ")


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(InvalidField):
        assert all(isinstance(item, Item) for item in parse_list(text))


printable = st.text(st.characters(min_codepoint=32, max_codepoint=126))
settings = st.none() | st.integers(-(10**15) + 1, 10**15 - 1) | printable | st.binary()
lists = st.lists(st.tuples(printable, st.dictionaries(st.sampled_from("qwrt"), settings)))


@given(lists)
def test_what_is_written_is_read_back(items):
    written = format_list((value, parameters.items()) for value, parameters in items)
    assert parse_list(written) == [
        Item(value, {key: found for key, found in parameters.items() if found is not None})
        for value, parameters in items
    ]


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: x=1", "é", "\x7f", "a\tb"])
def test_a_text_that_would_break_out_of_the_field_is_refused(text):
    with pytest.raises(InvalidField, match="printable ASCII"):
        format_list([(text, [])])


def test_a_number_of_more_than_15_digits_is_refused():
    with pytest.raises(InvalidField, match="15 digits"):
        format_list([("a", [("q", 10**15)])])
