"""The answers of 2.10.0 itself, which `old_releases` has written down, are ours too."""

import json
from pathlib import Path

import pytest

import pyrate_limiter
from pyrate_limiter.compat import v2
from tests.compat.old_releases import Time
from tests.compat.v2.questions import QUESTIONS, SLEEPS_IN

pytestmark = pytest.mark.usefixtures("temporary_folder")

ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(f"{SLEEPS_IN}.sleep", time.sleep)
    return time


def test_every_question_was_answered():
    assert set(ANSWERS) == set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_is_that_of_2_10_0(name, time):
    ours = json.loads(json.dumps(QUESTIONS[name](v2, time)))
    assert ours == ANSWERS[name]


# The questions that use nothing that this release has under the same name.
BY_NAME = sorted(set(QUESTIONS) - {"durations", "refused_redis_buckets"})


@pytest.mark.parametrize("name", BY_NAME)
def test_the_answer_is_the_same_through_the_names_at_the_top(name, time):
    ours = json.loads(json.dumps(QUESTIONS[name](pyrate_limiter, time)))
    assert ours == ANSWERS[name]
