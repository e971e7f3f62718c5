"""Calls of a server that are left to a worker thread when the caller's time is up."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.worker_threads import in_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    T = TypeVar("T")


def run_within(seconds: float, call: Callable[[], T], too_slow: Callable[[], Exception]) -> T:
    """Run a call in a worker thread, and leave it alone there when the time is up.

    Args:
        seconds: how long to wait.
        call: what to run.
        too_slow: makes the error to raise then.
    """
    job: Future[T] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            job.set_exception(error)
        else:
            job.set_result(result)

    if not in_worker(work):
        work()
    try:
        return job.result(seconds)
    except NotYet:
        if job.done():  # it is the call's own error
            raise
        raise too_slow() from None
