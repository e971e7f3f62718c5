"""Asks releases 2.10.0 and 3.9.0 themselves, each in an environment of its own.

Run from the root: ``python -m tests.compat.old_releases``. It writes the answers beside the
questions, where the tests find them; they do not run it.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASES = {
    "v2": ["pyrate-limiter==2.10.0", "filelock", "redis", "fakeredis[lua]"],
    "v3": ["pyrate-limiter==3.9.0", "filelock"],
}


def outcome(call):
    """What a call returns or raises, as far as it can be written down."""
    try:
        return ["returned", call()]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return ["raised", type(error).__name__, str(error), getattr(error, "meta_info", None)]


class Time:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.ms = 1_000_000
        self.slept = []

    def advance(self, milliseconds):
        self.ms += milliseconds

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.ms += round(seconds * 1000)


def ask(folder):
    """Answer the questions with the release that is installed here."""
    import importlib

    questions = importlib.import_module(f"tests.compat.{folder}.questions")
    library = importlib.import_module("pyrate_limiter")
    answers = {}
    for name, question in questions.QUESTIONS.items():
        time = Time()
        importlib.import_module(questions.SLEEPS_IN).sleep = time.sleep
        answers[name] = question(library, time)
    path = ROOT / "tests" / "compat" / folder / "answers.json"
    path.write_text(written(answers) + "\n", encoding="utf-8")


def written(answers):
    """JSON with a line for each question."""
    lines = (f"{json.dumps(name)}: {json.dumps(answers[name])}" for name in sorted(answers))
    return "{\n" + ",\n".join(lines) + "\n}"


def main():
    """Make the environments, and have each of them answer."""
    for folder, packages in RELEASES.items():
        with tempfile.TemporaryDirectory() as place:
            venv.create(place, with_pip=True)
            python = Path(place) / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
            subprocess.run(
                [python, "-m", "tests.compat.old_releases", folder], check=True, cwd=ROOT
            )


if __name__ == "__main__":
    ask(sys.argv[1]) if len(sys.argv) > 1 else main()
