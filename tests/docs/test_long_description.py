"""What a package index shows works there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def description():
    """The description as it is made at build time."""
    return subprocess.run(
        [sys.executable, "-m", "hatch_fancy_pypi_readme", ROOT / "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout


def test_no_link_leads_into_the_source_tree(description):
    assert re.findall(r"\]\((?!https?://)[^)]*\)", description) == []
    assert "docs/extending.md" in description  # the page is named nevertheless


def test_nothing_that_needs_the_source_tree_is_shown(description):
    assert "pip install ." not in description
    assert "<!--" not in description


def test_it_says_how_to_install_and_shows_the_examples(description):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`pip install pyrate-limiter`" in description
    assert description.count("```python") == readme.count("```python")
