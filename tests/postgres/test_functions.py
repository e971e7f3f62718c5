"""The text of the server's functions: made from what stands in Python, once."""

import re
from importlib.resources import files

import pytest

from pyrate_limiter.buckets.postgres import functions

SQL = {
    path.name: re.sub("--.*", "", path.read_text(encoding="utf-8"))
    for path in (files("pyrate_limiter") / "buckets" / "postgres" / "sql").iterdir()
}
STEPS = [step for step in functions.STEPS if step != "reserve_several"]  # which calls the first


def test_no_number_stands_in_the_sql_that_python_knows_as_well():
    assert SQL
    for name, text in SQL.items():
        found = {*re.findall(r"(?<![\w.])\d[\d.]*(?!\w)", text)}
        assert found <= {"0", "1", "2", "1000.0"}, name  # the last are the ms of a second


def test_each_number_that_is_filled_in_is_used():
    text = " ".join(SQL.values())
    assert [name for name in functions.NUMBERS if f"@{name}@" not in text] == []


@pytest.mark.parametrize("step", STEPS)
def test_the_server_uses_all_that_it_is_told(step):
    text = functions.body(step, "t", False) + functions.body(step, "t", True)
    places = {name: place for place, (name, _) in enumerate(functions.STEPS[step].told, 1)}
    assert [name for name in places if f"p_options[{places[name]}]" not in text] == []


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("step", [*functions.STEPS, "plain"])
def test_nothing_is_left_to_be_filled_in(step, keyed):
    text = functions.body(step, "t", keyed, "f")
    parameters = {"lock", "name", "weight", "token", "options", "rates"}
    assert {*re.findall(r"\bp_(\w+)", text)} <= {*parameters, "names", "weights", "tokens"}
    assert not re.search(r"@\w*@", text)


def test_a_table_that_is_called_like_what_is_filled_in_keeps_its_name():
    assert '"@clock@ p_now"' in functions.body("cancel", '"@clock@ p_now"', False)
