"""Calls that are given a time limit, in threads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_HELPERS = 32

_idle: list[SimpleQueue[Any]] = []


def run_within(
    seconds: float,
    call: Callable[[], Any],
    too_slow: Callable[[float], Exception],
    orphaned: Callable[[Any], None],
) -> Any:
    """Run a call in a helper thread, and leave it alone there when the time is up.

    Args:
        seconds: how long to wait.
        call: what to run.
        too_slow: makes the error to raise then.
        orphaned: is given the result where it comes after all, in that thread.
    """
    job: Future[Any] = Future()
    try:
        helper = _idle.pop()
    except IndexError:
        helper = SimpleQueue()
        threading.Thread(
            target=_help, args=(helper,), name="pyrate-limiter redis", daemon=True
        ).start()
    helper.put((job, call))
    try:
        return job.result(seconds)
    except NotYet:
        if job.done():  # it is the call's own error
            raise
        job.add_done_callback(lambda late: None if late.exception() else orphaned(late.result()))
        raise too_slow(seconds) from None


def _help(work: SimpleQueue[Any]) -> None:
    while True:
        job, call = work.get()
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            _finish(job.set_exception, error)
        else:
            _finish(job.set_result, result)
        del job, call
        if len(_idle) >= _IDLE_HELPERS:
            return
        _idle.append(work)


def _finish(settle: Callable[[Any], None], outcome: Any) -> None:
    with suppress(Exception):  # what undoes a late answer may fail, if the server has gone again
        settle(outcome)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
