"""A demonstration: threads and asyncio tasks share one limiter, and you watch who passes.

It needs no server and changes nothing. The moments at which calls came back are checked: no
window may have seen more than the algorithm allows. Exit status 1 says that one did.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from pyrate_limiter._core.rate_list import sorted_rates
from pyrate_limiter._demo.screen import screen
from pyrate_limiter._demo.windows import bound, explanation, most_in_any_window
from pyrate_limiter._demo.workload import Workload
from pyrate_limiter.abstracts.algorithm import LogAlgorithm, StateAlgorithm
from pyrate_limiter.abstracts.rate import Duration, Rate
from pyrate_limiter.algorithms.fixed_window import FixedWindow
from pyrate_limiter.algorithms.gcra import GCRA, TokenBucket
from pyrate_limiter.algorithms.sliding_window_log import SlidingWindowLog
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.buckets.state.bucket import StateBucket
from pyrate_limiter.errors import PyrateError
from pyrate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter.abstracts.bucket import AbstractBucket

_ALGORITHMS: dict[str, type[LogAlgorithm | StateAlgorithm]] = {
    "sliding-window": SlidingWindowLog,
    "fixed-window": FixedWindow,
    "gcra": GCRA,
    "token-bucket": TokenBucket,
}
_FRAME_SECONDS = 0.1
_MOST_CALLERS = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        rates = _rates(options.rate or ["10/second"], options.burst)
    except PyrateError as error:
        parser.error(str(error))
    algorithm = _ALGORITHMS[options.algorithm]()
    bucket: AbstractBucket
    if isinstance(algorithm, StateAlgorithm):
        bucket = StateBucket(rates, algorithm=algorithm)
    elif options.burst is None:
        bucket = InMemoryBucket(rates, algorithm)
    else:
        parser.error(
            f"argument --burst: {options.algorithm} has no burst; gcra and token-bucket do"
        )
    if options.threads + options.tasks == 0:
        parser.error("arguments --threads, --tasks: nobody is left to ask")
    try:
        return _run(options, bucket, rates, sys.stdout)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyrate_limiter",
        description=(
            "Threads and asyncio tasks share one limiter, and you watch who passes and who waits."
        ),
        epilog="Exit status: 0, or 1 if a limit was exceeded, or 2 for bad arguments.",
    )
    add, callers, default = parser.add_argument, _whole(0, _MOST_CALLERS), "default: %(default)s"
    rate = "such as 10/second or '100 per 15 minutes'; may be repeated (default: 10/second)"
    add("--rate", action="append", metavar="RATE", help=rate)
    burst = "units at once, for gcra and token-bucket"
    add("--burst", type=_whole(1), metavar="N", help=burst)
    add("--algorithm", choices=_ALGORITHMS, default="sliding-window", help=default)
    add("--threads", type=callers, default=3, metavar="N", help=default)
    add("--tasks", type=callers, default=5, metavar="N", help=f"asyncio tasks ({default})")
    add("--seconds", type=_seconds, default=4.5, metavar="S", help=default)
    add("--seed", type=int, metavar="N", help="the same pauses between calls each time")
    return parser


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            bounds = f"{least} or more" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, got {text!r}")
        return value

    number.__name__ = "whole number"  # argparse writes "invalid whole number value"
    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:  # noqa: PLR2004 - a day; this also refuses nan
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 86400, got {text!r}")
    return value


def _rates(texts: Sequence[str], burst: int | None) -> list[Rate]:
    parsed = [rate for text in texts for rate in Rate.parse_list(text)]
    return list(sorted_rates([Rate(rate.limit, rate.interval, burst) for rate in parsed]))


def _run(
    options: argparse.Namespace, bucket: AbstractBucket, rates: list[Rate], out: TextIO
) -> int:
    named = ", ".join(f"{rate.limit} per {Duration.readable(rate.interval)}" for rate in rates)
    out.write(
        f"{options.threads} threads and {options.tasks} asyncio tasks share one limiter for "
        f"{options.seconds:g} s: {named}, {options.algorithm}\n"
    )
    with Limiter(bucket) as limiter:
        workload = Workload(
            limiter,
            rates,
            threads=options.threads,
            tasks=options.tasks,
            seconds=options.seconds,
            seed=options.seed,
        )
        bounds = {rate.interval: bound(rate, options.algorithm) for rate in rates}
        shown = screen(out, workload, bounds, os.environ)
        try:
            with workload:
                while not workload.is_over():
                    shown.update()
                    time.sleep(_FRAME_SECONDS)
        except KeyboardInterrupt:
            out.write("\n")
        shown.finish()
    if workload.errors:
        raise workload.errors[0]
    return _summary(workload, rates, options.algorithm, out)


def _summary(workload: Workload, rates: list[Rate], algorithm: str, out: TextIO) -> int:
    times, is_exceeded, windows = workload.times(), False, []
    for rate in rates:
        passed, most = most_in_any_window(times, rate.interval), bound(rate, algorithm)
        is_exceeded |= passed > most
        beyond = "" if algorithm == "sliding-window" else f", at most {most}"
        interval = Duration.readable(rate.interval)
        windows.append(f"{passed} in {interval} (limit {rate.limit}{beyond})")
    note = explanation(rates, algorithm)
    if note is not None:
        out.write(f"{note}\n")
    verdict = "EXCEEDED" if is_exceeded else "kept"
    fullest = ", ".join(windows)
    out.write(f"{len(times)} admitted; largest number in any window: {fullest}: {verdict}.\n")
    out.flush()
    return int(is_exceeded)


if __name__ == "__main__":
    sys.exit(main())
