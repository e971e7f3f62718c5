"""What importing costs."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.library import median
from benchmarks.registry import Answer, Target, row

if TYPE_CHECKING:
    from benchmarks.library import Library

PACKAGE = "import pyrate_limiter"
FIRST_LIMITER = "from pyrate_limiter import Limiter, Rate; Limiter(Rate(10, 1000))"

# The resident size where the system tells it, else the largest one so far.
_MEMORY = """
def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
import resource, sys
resident()
before = resident()
{statement}
print(resident() - before)
"""


def _python(code: str) -> str:
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _milliseconds(statement: str, runs: int = 11) -> float:
    found: dict[str, list[float]] = {"pass": [], statement: []}
    for _ in range(runs):
        for code, times in found.items():
            start = time.perf_counter()
            _python(code)
            times.append((time.perf_counter() - start) * 1000)
    return median(found[statement]) - median(found["pass"])


def _megabytes(statement: str) -> float:
    code = _MEMORY.format(statement=statement)
    return median([int(_python(code)) for _ in range(5)]) / 1e6


@row("import-time", "import pyrate_limiter, above a bare interpreter", "ms", Target(times=5))
def import_time(_: Library) -> Answer:
    return Answer(_milliseconds(PACKAGE))


@row("import-memory", "the same, memory", "MB", Target(times=5, at_most=5))
def import_memory(_: Library) -> Answer:
    return Answer(_megabytes(PACKAGE))


@row("first-limiter-time", "import and make one limiter in memory", "ms")
def first_limiter_time(_: Library) -> Answer:
    return Answer(_milliseconds(FIRST_LIMITER))


@row("first-limiter-memory", "the same, memory", "MB")
def first_limiter_memory(_: Library) -> Answer:
    return Answer(_megabytes(FIRST_LIMITER))
