"""What each provider's responses say about how long to hold on."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter.errors import OutOfRange, WrongType
from pyrate_limiter.http import (
    ANTHROPIC,
    GITHUB,
    OPENAI,
    SHOPIFY,
    STANDARD,
    X_RATELIMIT_DATE,
    X_RATELIMIT_EPOCH,
    X_RATELIMIT_SECONDS,
    Feedback,
    Profile,
    Quota,
)

NOW = 1_445_412_480.0  # 2015-10-21T07:28:00Z
PROFILES = [
    STANDARD,
    OPENAI,
    ANTHROPIC,
    GITHUB,
    SHOPIFY,
    X_RATELIMIT_EPOCH,
    X_RATELIMIT_SECONDS,
    X_RATELIMIT_DATE,
]
each_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


@each_profile
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_of_a_refusal_is_obeyed_by_all(profile, status):
    assert profile.hold(status, {"Retry-After": "7"}, NOW) == 7
    assert profile.hold(status, {"retry-after-ms": "1500", "Retry-After": "2"}, NOW) == 1.5


@each_profile
@pytest.mark.parametrize("status", [200, 301, 500])
def test_retry_after_of_anything_else_is_not(profile, status):
    assert profile.hold(status, {"Retry-After": "7"}, NOW) is None


@each_profile
def test_a_response_that_says_nothing_holds_nothing(profile):
    assert profile.hold(200, {}, NOW) is None
    assert profile.hold(503, {}, NOW) is None
    assert profile.hold(429, {}, NOW) == (60 if profile is GITHUB else None)


HELD = [
    (STANDARD, 200, {"RateLimit": '"a";r=0;t=5, "b";r=3;t=9, "c";r=0;t=4'}, 5),
    (STANDARD, 200, {"RateLimit": '"a";r=1;t=5'}, None),
    (STANDARD, 200, {"RateLimit": '"a";r=0'}, None),
    (STANDARD, 200, {"RateLimit": "limit=10, remaining=0, reset=8"}, 8),
    (STANDARD, 429, {"RateLimit": '"a";r=0;t=50', "Retry-After": "3"}, 3),
    (STANDARD, 429, {"RateLimit": '"a";r=0;t=50', "Retry-After": "soon"}, 50),
    (STANDARD, 503, {"RateLimit": '"a";r=0;t=50'}, None),
    (
        STANDARD,
        200,
        {
            "RateLimit-Limit": "10, 10;w=60",
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": "42",
        },
        42,
    ),
    (
        OPENAI,
        200,
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m0s",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        1,
    ),
    (
        OPENAI,
        200,
        {
            "x-ratelimit-limit-tokens": "-1",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "0",
        },
        None,
    ),
    (OPENAI, 200, {"x-ratelimit-remaining-requests": "-1"}, None),
    (
        OPENAI,
        200,
        {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "10",
        },
        5,
    ),
    (
        ANTHROPIC,
        200,
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2015-10-21T07:29:00Z",
        },
        60 / 50,
    ),
    (
        ANTHROPIC,
        200,
        {
            "anthropic-priority-input-tokens-limit": "10",
            "anthropic-priority-input-tokens-remaining": "0",
            "anthropic-priority-input-tokens-reset": "2015-10-21T07:28:30Z",
        },
        3,
    ),
    (GITHUB, 200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1445412490"}, 10),
    (GITHUB, 403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1445412490"}, 10),
    (GITHUB, 403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, 0),
    (GITHUB, 403, {"x-ratelimit-remaining": "9", "x-ratelimit-reset": "1445412490"}, None),
    (GITHUB, 403, {"Retry-After": "5"}, 5),
    (GITHUB, 429, {"x-ratelimit-remaining": "9", "x-ratelimit-reset": "1445412490"}, 60),
    (SHOPIFY, 200, {"X-Shopify-Shop-Api-Call-Limit": "40/40"}, 0.5),
    (SHOPIFY, 200, {"X-Shopify-Shop-Api-Call-Limit": "80/80"}, 0.25),
    (SHOPIFY, 200, {"X-Shopify-Shop-Api-Call-Limit": "32/40"}, None),
    (SHOPIFY, 200, {"X-Shopify-Shop-Api-Call-Limit": "40/0"}, None),
    (SHOPIFY, 200, {"X-Shopify-Shop-Api-Call-Limit": "many"}, None),
    (SHOPIFY, 429, {"Retry-After": "2.0"}, 2),
    (
        X_RATELIMIT_EPOCH,
        200,
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1445412480.75"},
        0.75,
    ),
    (X_RATELIMIT_SECONDS, 200, {"X-RateLimit-Remaining": "0.0", "X-RateLimit-Reset": "300"}, 300),
    (
        X_RATELIMIT_DATE,
        200,
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2015-10-21T07:28:09Z"},
        9,
    ),
]


@pytest.mark.parametrize(("profile", "status", "headers", "seconds"), HELD)
def test_a_quota_of_which_nothing_is_left_holds_until_more_is_there(
    profile, status, headers, seconds
):
    held = profile.hold(status, headers, NOW)
    assert held == (seconds if seconds is None else pytest.approx(seconds))


def test_what_a_provider_states_is_read_as_quotas():
    anthropic = {
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "7000",
        "anthropic-ratelimit-output-tokens-reset": "2015-10-21T07:28:30Z",
    }
    assert ANTHROPIC.quotas(anthropic, NOW) == [
        Quota("output-tokens", 7000, all_after=30, limit=8000)
    ]
    github = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": "4999",
        "x-ratelimit-reset": "1445412490",
        "x-ratelimit-resource": "search",
    }
    assert GITHUB.quotas(github, NOW) == [Quota("search", 4999, more_after=10, limit=5000)]


@each_profile
def test_a_profile_pickles(profile):
    assert pickle.loads(pickle.dumps(profile)).hold(429, {"Retry-After": "7"}, NOW) == 7


@each_profile
def test_fields_from_a_cache_say_nothing(profile):
    assert profile.hold(429, {"Retry-After": "7", "Age": "30"}, NOW) is None
    assert profile.hold(429, {"Retry-After": "7", "Age": "0"}, NOW) == 7


def test_moments_are_counted_from_the_servers_own_date():
    headers = {
        "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1445412495",
    }
    assert X_RATELIMIT_EPOCH.hold(200, headers) == 15
    headers = {"Date": "?", "Retry-After": "Wed, 21 Oct 2015 07:28:15 GMT"}
    assert X_RATELIMIT_EPOCH.hold(429, headers) == 0  # long ago, by the clock here


names = st.sampled_from(sorted({name for _, _, headers, _ in HELD for name in headers}))


@each_profile
@given(headers=st.dictionaries(names, st.text(max_size=20) | st.from_regex(r"-?[0-9.:/Tsm]+")))
def test_whatever_the_fields_say_it_is_a_wait_or_nothing(profile, headers):
    for status in (200, 403, 429, 503):
        held = profile.hold(status, headers, NOW)
        assert held is None or 0 <= held < float("inf")


def test_feedback_is_clamped_and_ends_at_random_moments():
    assert Feedback(jitter=0).seconds(429, {"Retry-After": "999999999"}) == 60
    assert Feedback(longest=5, jitter=0).seconds(429, {"Retry-After": "7"}) == 5
    assert Feedback().seconds(200, {}) == 0
    ends = {Feedback(jitter=0.5).seconds(429, {"Retry-After": "10"}) for _ in range(20)}
    assert len(ends) > 1
    assert all(10 <= end <= 15 for end in ends)


def test_what_the_feedback_argument_means():
    assert Feedback.of(None) is Feedback.of(False) is None
    assert Feedback.of(True).profile is STANDARD
    assert Feedback.of(GITHUB).profile is GITHUB
    mine = Feedback(Profile("mine", lambda fields, now: []), longest=3)
    assert Feedback.of(mine) is mine
    with pytest.raises(WrongType, match="'github'"):
        Feedback.of("github")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"profile": "x"}, WrongType),
        ({"longest": "60"}, WrongType),
        ({"longest": -1}, OutOfRange),
        ({"jitter": float("nan")}, OutOfRange),
    ],
)
def test_feedback_that_makes_no_sense_is_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        Feedback(**arguments)
