"""Retry-After, RateLimit and RateLimit-Policy, the older triples and the problem body."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter.errors import InvalidField
from pyrate_limiter.http import (
    Quota,
    QuotaPolicy,
    fields_of,
    format_rate_limit,
    format_rate_limit_policy,
    format_retry_after,
    legacy_fields,
    parse_rate_limit,
    parse_rate_limit_policy,
    parse_retry_after,
    problem,
)
from pyrate_limiter.http.fields import go_duration, iso_date

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("2.0", 2),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30),
        ("Wed Oct 21 07:28:30 2015", 30),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("9" * 400, None),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nothing_else(text, seconds):
    assert parse_retry_after(text, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_read_or_ignored(text):
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")]
)
def test_retry_after_is_written_in_whole_seconds_rounded_up(milliseconds, text):
    assert format_retry_after(milliseconds) == text


@pytest.mark.parametrize(
    ("text", "quotas"),
    [
        ('"default";r=50;t=30', [Quota("default", 50, 30)]),
        (
            '"default";r=999;pk=:dHJpYWwxMjEzMjM=:',
            [Quota("default", 999, partition=b"trial121323")],
        ),
        ('"a";r=0, "b";r=5;t=1;unknown="x"', [Quota("a", 0), Quota("b", 5, 1)]),
        ("default;a=7;w=9;c=2", [Quota("default", 7, 9)]),
        ("limit=100, remaining=50, reset=5", [Quota("default", 50, 5, limit=100)]),
        ('"noquota";t=5', []),
        ('"negative";r=-5', []),
        ('"fraction";r=1.5', []),
        ('"true";r', []),
        ('"odd";r=5;t=-1', [Quota("odd", 5)]),
        ("5;r=5", []),
        ('"open;r=5', []),
        ("", []),
    ],
)
def test_rate_limit_is_read_in_every_revision(text, quotas):
    assert parse_rate_limit(text) == quotas


@pytest.mark.parametrize(
    ("text", "policies"),
    [
        (
            '"burst";q=100;w=60,"daily";q=1000;w=86400',
            [QuotaPolicy("burst", 100, 60), QuotaPolicy("daily", 1000, 86400)],
        ),
        (
            '"peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:',
            [QuotaPolicy("peruser", 65535, 10, "content-bytes", base64.b64decode("sdfjLJUOUH=="))],
        ),
        ('"zero";q=0;w=0', [QuotaPolicy("zero", 0)]),
        ('"none";w=5', []),
        ("malformed;;", []),
    ],
)
def test_rate_limit_policy_is_read(text, policies):
    assert parse_rate_limit_policy(text) == policies


def test_what_is_written_is_the_drafts_own_form():
    assert format_rate_limit([Quota("default", 50, 29.2)]) == '"default";r=50;t=30'
    assert format_rate_limit([Quota("a", -1), Quota("b", 0, 0)]) == '"a";r=0, "b";r=0;t=0'
    policies = [QuotaPolicy("burst", 100, 60), QuotaPolicy("up", 9, None, "content-bytes", b"me")]
    assert format_rate_limit_policy(policies) == (
        '"burst";q=100;w=60, "up";q=9;qu="content-bytes";pk=:bWU=:'
    )
    assert parse_rate_limit_policy(format_rate_limit_policy(policies)) == policies


def test_a_name_cannot_bring_in_a_field_of_its_own():
    with pytest.raises(InvalidField, match=r"'a\\r\\nX: y' cannot be in a field"):
        format_rate_limit([Quota("a\r\nX: y", 1)])


def test_the_older_triple_is_written():
    assert legacy_fields(100, -1, 60) == [
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", "60"),
    ]


def test_lines_of_one_field_are_joined_whatever_their_case():
    lines = [(b"RateLimit", b'"a";r=1'), ("ratelimit", '"b";r=2')]
    assert parse_rate_limit(fields_of(lines)["ratelimit"]) == [Quota("a", 1), Quota("b", 2)]
    assert fields_of({"Retry-After": "1"}) == {"retry-after": "1"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("12ms", 0.012),
        ("4m12.172s", 252.172),
        ("1h2m3s", 3723),
        ("7.5µs", 7.5e-6),
        ("5", None),
        ("", None),
        ("1 s", None),
        ("-1s", None),
        (None, None),
    ],
)
def test_durations_as_go_writes_them(text, seconds):
    assert go_duration(text) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2015-10-21T07:28:00Z", NOW),
        ("2015-10-21t07:28:00.5z", NOW + 0.5),
        ("2015-10-21T09:28:00.123456789+02:00", NOW + 0.123456),
        ("2015-10-21T07:28:00", NOW),
        ("yesterday", None),
        (None, None),
    ],
)
def test_dates_of_rfc_3339(text, moment):
    assert iso_date(text) == moment


def test_a_problem_names_the_violated_policies():
    assert json.loads(problem(429, ["daily"])) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests: a quota is exceeded",
        "status": 429,
        "violated-policies": ["daily"],
    }
    assert "temporary-reduced-capacity" in json.loads(problem(503))["type"]
