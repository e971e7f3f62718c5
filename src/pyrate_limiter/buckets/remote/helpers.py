"""Threads that wait for a server in a caller's stead, who may go when its time is up."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    T = TypeVar("T")

_MOST_IDLE = 32

_idle: list[SimpleQueue[Callable[[], object]]] = []


def in_helper(work: Callable[[], object]) -> bool:
    """Have a helper thread do this; False where no thread can be had, as when Python ends."""
    try:
        helper = _idle.pop()
    except IndexError:
        helper = SimpleQueue()
        thread = threading.Thread(
            target=_help, args=(helper,), name="pyrate-limiter server", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return False
    helper.put(work)
    return True


def run_within(seconds: float, call: Callable[[], T], too_slow: Callable[[], Exception]) -> T:
    """Run a call in a helper thread, and leave it alone there when the time is up.

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

    if not in_helper(work):
        work()
    try:
        return job.result(seconds)
    except NotYet:
        if job.done():  # it is the call's own error
            raise
        raise too_slow() from None


def _help(tasks: SimpleQueue[Callable[[], object]]) -> None:
    while True:
        work = tasks.get()
        with suppress(
            Exception
        ):  # what undoes a late answer may fail, if the server has gone again
            work()
        del work
        if len(_idle) >= _MOST_IDLE:
            return
        _idle.append(tasks)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
