"""The answers of 3.9.0 itself, which `old_releases` has written down, are ours too."""

import json
from pathlib import Path

import pytest

import pyrate_limiter
from pyrate_limiter.compat import v3
from tests.compat.v3.questions import QUESTIONS

pytestmark = pytest.mark.usefixtures("temporary_folder")

ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))


def test_every_question_was_answered():
    assert set(ANSWERS) == set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_is_that_of_3_9_0(name, world):
    ours = json.loads(json.dumps(QUESTIONS[name](v3, world)))
    assert ours == ANSWERS[name]


# Those that use nothing that this release has under the same name, and other arguments for it.
AMBIGUOUS = {
    "a_connection_for_clocks": "today it is a connection, and no context manager",
    "any_list_of_rates": "a list with rates that can never matter is refused today",
    "asynchronous_clocks_and_factories_give_awaitables": "Limiter(factory) waits today",
    "helpers": "id_generator has other characters today",
    "random_calls": "a list with rates that can never matter is refused today",
    "refused_arguments": "try_acquire has a default name today",
}


@pytest.mark.parametrize("name", sorted(set(QUESTIONS) - set(AMBIGUOUS)))
def test_the_answer_is_the_same_through_the_names_at_the_top(name, world):
    ours = json.loads(json.dumps(QUESTIONS[name](pyrate_limiter, world)))
    assert ours == ANSWERS[name]
