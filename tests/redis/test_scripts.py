"""What the scripts in Lua and the Python beside them both know is written once."""

import re
from collections import Counter

import pytest

from pyrate_limiter._core.files import text_of
from pyrate_limiter.buckets.redis.commands import LOG_CONSTANTS, LOG_SCRIPT
from pyrate_limiter.buckets.redis.state_commands import GCRA_CONSTANTS, GCRA_SCRIPT

UNITS = {1000, 1_000_000}  # what the units of time are to each other, ms and us
SCRIPTS = [
    (("log.lua", "log_steps.lua"), LOG_SCRIPT, LOG_CONSTANTS),
    (("gcra.lua", "gcra_steps.lua"), GCRA_SCRIPT, GCRA_CONSTANTS),
]


def code_of(files):
    text = "".join(text_of("buckets", "redis", name) for name in files)
    return re.sub("--.*", "", text)


@pytest.mark.parametrize(("files", "script", "constants"), SCRIPTS)
def test_every_constant_of_a_script_is_filled_in(files, script, constants):
    assert {*re.findall("@([a-z_]+)@", code_of(files))} == constants.keys()
    assert "@" not in script.text


@pytest.mark.parametrize(("files", "script", "constants"), SCRIPTS)
def test_no_number_stands_twice(files, script, constants):
    del script
    numbers = [int(number) for number in re.findall(r"(?<![\w@.])\d+", code_of(files))]
    counted = Counter(number for number in numbers if number > 16 and number not in UNITS)
    assert [number for number, times in counted.items() if times > 1] == []
    assert counted.keys().isdisjoint(constants.values())
