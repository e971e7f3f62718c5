"""Every example on the pages about migration runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in DOCS.glob("migration*.md")}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOLD = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)
EXAMPLES = [
    pytest.param(code, id=f"{name}-{number}")
    for name, page in sorted(PAGES.items())
    for number, code in enumerate(BLOCK.findall(page))
]


def test_there_is_a_page_for_each_old_release_and_for_other_libraries():
    assert set(PAGES) == {"migration", "migration-2", "migration-3", "migration-others"}
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert all(f"\n{page}\n" in index for page in PAGES)


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_runs_and_prints_what_it_says(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    verdicts = [text for text in TOLD.findall(code) if text.startswith(("True", "False", "[True"))]
    assert [text for text in verdicts if text not in done.stdout] == []
