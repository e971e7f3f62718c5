"""One measurement in a process of its own: ``python -m benchmarks.worker ROW [--floor]``."""

from __future__ import annotations

import dataclasses
import json
import sys

from benchmarks.library import Library
from benchmarks.registry import WrongAnswer, load_rows


def main(arguments: list[str]) -> None:
    row = load_rows()[arguments[0]]
    try:
        if "--floor" in arguments:
            answer = row.floor() if row.floor is not None else None
        else:
            answer = row.measure(Library())
        result = {} if answer is None else dataclasses.asdict(answer)
    except WrongAnswer as wrong:
        result = {"wrong": str(wrong)}
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
