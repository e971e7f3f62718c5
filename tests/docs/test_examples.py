"""Every Python example of the README and the pages passes mypy --strict, and runs.

But calls of 2.x and 3.x at the top of the package: type checkers know today's arguments alone.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyrate_limiter
from pyrate_limiter.testing import sleeping_advances
from tests.support import postgres_fixtures as postgres
from tests.support.redis_servers import RedisServer

ROOT = Path(__file__).parents[2]
SOURCE = Path(pyrate_limiter.__file__).parents[1]
BLOCK = re.compile(
    r"^(?:<!-- needs: (?P<needs>\w+) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCSTRINGS = doctest.DocTestParser().get_examples(sleeping_advances.__doc__)
EXAMPLES = [
    pytest.param(block["needs"], block["code"], id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
]
OLD_PAGES = ("migration-2-", "migration-3-")
OLD_WORDS = re.compile(r"RequestRate|TimeClock|max_delay=|raise_when_fail=")


def is_typed(example):
    """Whether a checker knows what it calls: not that of an older release at the top."""
    code = example.values[1]
    is_old = example.id.startswith(OLD_PAGES) and OLD_WORDS.search(code)
    return not is_old or "pyrate_limiter.compat" in code


TYPED = [example for example in EXAMPLES if is_typed(example)]
# tests/extras/test_http_docs.py gives these what they need.
ELSEWHERE = {"network"}
RUN = [example for example in EXAMPLES if example.values[0] not in ELSEWHERE]


@pytest.fixture(scope="module")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


def preamble(needs, dsn):
    """What an example takes for given: the address of a database, as a program would have it."""
    return f"dsn = {dsn!r}\n" if needs == "postgres" else ""


def test_there_are_examples():
    assert len(EXAMPLES) > 30
    marked = [page.read_text(encoding="utf-8").count("```python") for page in PAGES]
    assert len(EXAMPLES) == sum(marked)  # none of them is overlooked
    assert len(EXAMPLES) - len(TYPED) < 15


@pytest.mark.timeout(300)
def test_the_examples_pass_strict_type_checks(tmp_path):
    for example in TYPED:
        needs, code = example.values
        name = example.id.replace("-", "_") + ".py"
        (tmp_path / name).write_text(preamble(needs, "") + code, encoding="utf-8")
    docstring = "".join(example.source for example in DOCSTRINGS)
    (tmp_path / "docstring.py").write_text(docstring, encoding="utf-8")
    settings = ("--strict", "--python-version", "3.10", "--config-file=", "--no-error-summary")
    environment = {**os.environ}
    if SOURCE.name != "site-packages":  # mypy looks there by itself, and nowhere else for it
        environment["MYPYPATH"] = str(SOURCE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, "--cache-dir", tmp_path / "cache", tmp_path],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(("needs", "code"), RUN)
def test_the_example_runs(needs, code, tmp_path, request):
    dsn = postgres.dsn() if needs == "postgres" else ""
    if needs == "redis":
        server = request.getfixturevalue("redis_server")
        assert "6379" in code or "Redis()" in code
        code = code.replace("6379", str(server.port)).replace(
            "Redis()", f"Redis(port={server.port})"
        )
    program = tmp_path / "example.py"
    program.write_text(preamble(needs, dsn) + code, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=True,
        timeout=50,
    )


def test_the_example_of_a_docstring_gives_what_it_shows():
    assert DOCSTRINGS
    module = sys.modules[sleeping_advances.__module__]
    assert doctest.testmod(module).failed == 0
