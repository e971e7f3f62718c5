"""Rates read from text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import Duration, Rate
from pyrate_limiter.errors import InvalidRateText


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/second", Rate(10, 1000)),
        ("100 per 15 minutes", Rate(100, 15 * 60_000)),
        ("5/2s", Rate(5, 2000)),
        ("1/ms", Rate(1, 1)),
        ("3 / 250 milliseconds", Rate(3, 250)),
        ("7/1.5h", Rate(7, 5_400_000)),
        ("  8  PER  Day  ", Rate(8, 86_400_000)),
        ("9/week", Rate(9, Duration.WEEK)),
        ("1000000000000000/s", Rate(10**15, 1000)),
    ],
)
def test_a_rate_is_read(text, rate):
    assert Rate.parse(text) == rate
    assert Rate.parse_list(text) == [rate]


def test_several_rates_are_divided_by_semicolons():
    assert Rate.parse("10/second; 100 per minute ;1000/h") == [
        Rate(10, 1000),
        Rate(100, 60_000),
        Rate(1000, 3_600_000),
    ]


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "whole number"),
        ("second", 0, "whole number"),
        ("-1/s", 0, "whole number"),
        ("  x/s", 2, "whole number"),
        ("10 second", 3, "'/' or 'per'"),
        ("10", 2, "'/' or 'per'"),
        ("10/", 3, "unit of time"),
        ("10/5", 4, "unit of time"),
        ("10/fortnight", 3, "unit of time"),
        ("10/ 5 lightyears", 6, "unit of time"),
        ("10/second now", 10, "the end"),
        ("10/second;", 10, "whole number"),
        ("10/second; 5", 12, "'/' or 'per'"),
        ("10/s;20/x", 8, "unit of time"),
        ("0/second", 0, "limit of 1 or more"),
        ("5/s; 0/m", 5, "limit of 1 or more"),
        ("1/0s", 3, "whole milliseconds"),
        ("1/0.5ms", 5, "whole milliseconds"),
        ("1/1.0001s", 8, "whole milliseconds"),
    ],
)
def test_an_error_says_where_reading_stopped(text, position, expected):
    with pytest.raises(InvalidRateText) as caught:
        Rate.parse(text)
    assert (caught.value.position, caught.value.text) == (position, text)
    assert expected in str(caught.value)
    assert f"at character {position}" in str(caught.value)


def test_the_message_points_at_the_place():
    with pytest.raises(InvalidRateText, match=r"\n  10/x\n     \^$"):
        Rate.parse("10/x")


@pytest.mark.parametrize("text", [None, 10, b"10/s"])
def test_what_is_no_text_is_a_type_error(text):
    with pytest.raises(TypeError, match="text must be a string"):
        Rate.parse(text)


@given(st.text(alphabet="0123456789 /persmhdw.;x", max_size=30))
def test_any_text_is_a_rate_or_says_where_it_is_not(text):
    try:
        rates = Rate.parse_list(text)
    except InvalidRateText as error:
        position, rates = error.position, []
    else:
        position = 0
    assert 0 <= position <= len(text)
    assert all(rate.limit >= 1 and rate.interval >= 1 for rate in rates)


@given(st.integers(1, 10**12), st.integers(1, 10**6), st.sampled_from(list(Duration)))
def test_what_is_written_is_read_back(limit, every, unit):
    text = f"{limit} per {every} {unit.name.lower()}s"
    assert Rate.parse(text) == Rate(limit, unit * every)
