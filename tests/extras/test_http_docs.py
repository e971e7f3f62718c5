"""The pages on HTTP, and their examples, do as they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["http-clients.md", "web.md"]
BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)


def blocks():
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for number, (needs, code) in enumerate(BLOCK.findall(text), 1):
            yield pytest.param(needs, code, id=f"{page}-{number}")


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("needs", "code"), list(blocks()))
def test_a_block_runs_as_written(needs, code, server):
    if needs == "network":
        code = code.replace("https://api.example.com", server.url)
    run("-c", code)
    assert (needs == "network") == bool(server.arrived)


def test_the_example_of_a_client_runs():
    assert re.fullmatch(
        r"12 requests in \d+\.\d\d s, \d+ of them refused\n", run("examples/http_client.py")
    )


def test_the_example_of_an_application_refuses_whom_it_should():
    lines = [line.split()[:2] for line in run("examples/web.py").splitlines()]
    assert lines == [
        ["/login", "200"],
        ["/login", "429"],
        ["/", "200"],
        ["/", "200"],
        ["/", "429"],
        ["/health", "200"],
    ]
