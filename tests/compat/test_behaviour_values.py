"""Duration, Rate, RateItem, Decision and the rules for lists of rates."""

import copy
import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import (
    Decision,
    Duration,
    InMemoryBucket,
    Rate,
    RateItem,
    id_generator,
    validate_rate_list,
)
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.utils import enforce_rate_list

UNITS = [(unit.name, unit.value) for unit in Duration]


def test_durations_are_milliseconds():
    assert UNITS == [
        ("SECOND", 1_000),
        ("MINUTE", 60_000),
        ("HOUR", 3_600_000),
        ("DAY", 86_400_000),
        ("WEEK", 604_800_000),
    ]


def test_duration_times_a_number_is_whole_milliseconds():
    assert Duration.SECOND * 5 == 5 * Duration.SECOND == 5_000
    assert Duration.SECOND * 1.5 == 1.5 * Duration.SECOND == 1_500
    assert isinstance(Duration.SECOND * 1.5, int)


def test_duration_plus_a_number_or_duration_is_whole_milliseconds():
    assert Duration.SECOND + 5 == 5 + Duration.SECOND == 1_005
    assert Duration.SECOND + Duration.MINUTE == 61_000
    assert isinstance(Duration.SECOND + Duration.MINUTE, int)


@pytest.mark.parametrize("unit", list(Duration))
def test_int_of_a_duration_is_its_milliseconds(unit):
    assert int(unit) == unit.value


def test_duration_equals_numbers_and_durations_of_as_many_milliseconds():
    assert Duration.SECOND == 1_000
    assert Duration.SECOND == Duration.SECOND
    assert Duration.SECOND != Duration.MINUTE
    assert Duration.SECOND != 1_001


@pytest.mark.parametrize("other", ["1000", None, 1000.5, object(), [1000]])
def test_duration_equals_nothing_else(other):
    assert (other == Duration.SECOND) is False


def test_duration_hashes_like_what_it_equals():
    assert hash(Duration.MINUTE) == hash(60_000)
    assert {Duration.MINUTE: "a"}[60_000] == "a"


@pytest.mark.parametrize("other", ["x", None, object()])
def test_arithmetic_with_something_else_is_a_type_error(other):
    with pytest.raises(TypeError):
        Duration.SECOND * other
    with pytest.raises(TypeError):
        Duration.SECOND + other


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (300, "300ms"),
        (999, "999ms"),
        (1_000, "1.0s"),
        (1_300, "1.3s"),
        (60_000, "1.0m"),
        (1_470_000, "24.5m"),
        (5_400_000, "1.5h"),
        (302_400_000, "3.5d"),
        (2_116_800_000, "3.5w"),
        (Duration.HOUR, "1.0h"),
    ],
)
def test_readable_uses_the_largest_unit_that_fits(milliseconds, text):
    assert Duration.readable(milliseconds) == text


def test_rate_takes_its_interval_as_milliseconds_or_duration():
    assert Rate(10, Duration.MINUTE).interval == Rate(10, 60_000).interval == 60_000


def test_burst_is_the_limit_unless_given():
    assert Rate(10, 1_000).burst == 10
    assert Rate(10, 1_000, burst=3).burst == 3
    assert Rate(10, 1_000, 30).burst == 30


def test_text_of_a_rate():
    assert str(Rate(1000, 1000)) == "limit=1000/1.0s"
    assert repr(Rate(1000, 1000)) == "limit=1000/1000"


def test_text_of_a_rate_names_the_burst_where_it_differs():
    assert str(Rate(1000, 1000, burst=5)) == "limit=1000/1.0s, burst=5"
    assert repr(Rate(1000, 1000, burst=5)) == "limit=1000/1000, burst=5"


def test_equal_rates_are_equal_and_hash_alike():
    assert Rate(5, Duration.SECOND) == Rate(5, 1000)
    assert len({Rate(5, 1000), Rate(5, Duration.SECOND), Rate(5, 1000, burst=5)}) == 1
    assert Rate(5, 1000) != Rate(5, 1000, burst=6)
    assert Rate(5, 1000) != "limit=5/1000"


@pytest.mark.parametrize("field", ["limit", "interval", "burst"])
def test_a_rate_cannot_be_changed(field):
    rate = Rate(5, 1000)
    with pytest.raises(AttributeError, match="Rate is a value"):
        setattr(rate, field, 7)
    with pytest.raises(AttributeError, match="Rate is a value"):
        delattr(rate, field)


@pytest.mark.parametrize(
    "values", [(0, 1000), (-1, 1000), (5, 0), (5, -1), (5, 1000, 0), (5, 1000, -3)]
)
def test_a_rate_below_one_is_refused(values):
    with pytest.raises(ValueError, match=r"must be >= 1, got"):
        Rate(*values)


@pytest.mark.parametrize(
    "values", [("a", 1000), (None, 1000), (1.5, 1000), (5, "x"), (5, None), (5, 1000, "b")]
)
def test_a_rate_of_something_else_is_a_type_error(values):
    with pytest.raises(TypeError, match="must be a whole number"):
        Rate(*values)


def test_rate_item_is_mutable_and_reads_well():
    item = RateItem("foo", 1234, weight=3)
    assert str(item) == "RateItem(name=foo, weight=3, timestamp=1234)"
    item.name, item.timestamp, item.weight = "bar", 5, 1
    assert (item.name, item.timestamp, item.weight) == ("bar", 5, 1)
    assert RateItem("foo", 1).weight == 1


def test_changing_an_item_after_put_changes_nothing_that_was_admitted():
    bucket = InMemoryBucket([Rate(5, 1000)])
    item = RateItem("foo", 100)
    bucket.put(item)
    item.name, item.timestamp, item.weight = "bar", 10**9, 99
    kept = bucket.peek(0)
    assert (kept.name, kept.timestamp, kept.weight, bucket.count()) == ("foo", 100, 1, 1)


def test_decision_is_allowed_where_no_rate_fails():
    assert Decision().allowed is True
    assert Decision(Rate(1, 1), 5).allowed is False
    assert Decision(failing_rate=None, retry_after_ms=None) == ADMITTED


def test_decision_is_true_like_its_verdict():
    assert Decision()
    assert not Decision(Rate(1, 1))


def test_decision_is_a_value():
    rate = Rate(1, 1000)
    assert Decision(rate, 5) == Decision(Rate(1, 1000), 5)
    assert hash(Decision(rate, 5)) == hash(Decision(Rate(1, 1000), 5))
    assert Decision(rate, 5) != Decision(rate, 6)
    assert Decision(rate, 5) != "no"


@pytest.mark.parametrize("field", ["failing_rate", "retry_after_ms", "wait_ms", "new"])
def test_a_decision_is_frozen(field):
    with pytest.raises(AttributeError, match="Decision is a value"):
        setattr(Decision(), field, 1)
    with pytest.raises(AttributeError, match="Decision is a value"):
        delattr(Decision(), field)


def test_text_of_a_decision_says_what_is_known():
    assert repr(Decision()) == "Decision(failing_rate=None, retry_after_ms=None)"
    full = Decision(None, None, 7, 3, 900)
    assert repr(full) == (
        "Decision(failing_rate=None, retry_after_ms=None, wait_ms=7, remaining=3, "
        "reset_after_ms=900)"
    )


@pytest.mark.parametrize(
    "value", [Rate(3, 1000, burst=2), Decision(Rate(1, 5), 3, 2, 1, 0), Duration.WEEK]
)
def test_values_survive_pickle_and_copy(value):
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.copy(value) == copy.deepcopy(value) == value


def test_rate_item_survives_pickle():
    item = pickle.loads(pickle.dumps(RateItem("é", 5, 3)))
    assert str(item) == "RateItem(name=é, weight=3, timestamp=5)"


@pytest.mark.parametrize(
    "rates",
    [
        [Rate(1, 1000)],
        [Rate(1, 1000), Rate(2, 2000)],
        [Rate(10, 1000), Rate(100, 60_000), Rate(101, 3_600_000)],
    ],
)
def test_a_list_in_which_each_rate_matters_is_valid(rates):
    assert validate_rate_list(rates) is True


@pytest.mark.parametrize(
    "rates",
    [
        [],
        [Rate(1, 1000), Rate(2, 1000)],
        [Rate(2, 2000), Rate(1, 1000)],
        [Rate(2, 1000), Rate(2, 2000)],
        [Rate(2, 1000), Rate(1, 2000)],
        [Rate(1, 1000), Rate(3, 2000)],
    ],
    ids=["empty", "same interval", "unordered", "same limit", "lower limit", "denser"],
)
def test_a_list_in_which_a_rate_cannot_matter_is_invalid(rates):
    assert validate_rate_list(rates) is False
    with pytest.raises(ValueError, match="Invalid rate list"):
        enforce_rate_list(rates)


@given(
    st.lists(
        st.builds(Rate, st.integers(1, 10**15), st.integers(1, 10**12)), min_size=1, max_size=4
    )
)
def test_a_list_is_valid_when_every_pair_of_neighbours_is(rates):
    pairs = pairwise(rates)
    rising = all(
        a.interval < b.interval
        and a.limit < b.limit
        and a.limit * b.interval >= b.limit * a.interval
        for a, b in pairs
    )
    assert validate_rate_list(rates) is rising


@pytest.mark.parametrize("size", [0, 1, 7, 10, 33])
def test_id_generator_gives_so_many_characters(size):
    assert len(id_generator(size)) == size
    assert len(id_generator()) == 10


def test_ids_differ():
    assert len({id_generator() for _ in range(1000)}) == 1000
