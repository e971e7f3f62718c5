"""Threads and asyncio tasks that keep asking one limiter, and what they were told."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from random import Random
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.limiter import Limiter

_DEMAND = 1.5  # how much more is asked for than fits
_SHORTEST_PAUSE = 0.001  # seconds between two calls of one caller, so that the screen gets its turn
_GRACE = 2.0  # seconds that callers get to come back at the end


class Caller:
    """One thread or task. It writes its own record, others read it.

    Args:
        name: what it is called on the screen.
        seed: of its pauses, None for other ones each time.
    """

    def __init__(self, name: str, seed: int | None) -> None:
        self.name = name
        self.random = Random(None if seed is None else f"{seed} {name}")  # noqa: S311 - no secret
        self.asked = 0
        self.waiting_since: int | None = None
        self.admitted: list[tuple[int, int]] = []
        """When it asked, and when it was let through, in ns."""

    def ask(self) -> None:
        """Note that it asks now."""
        self.asked = self.waiting_since = time.monotonic_ns()

    def hear(self, admitted: object) -> None:
        """Note the answer. If that is false, its time was up: it is shown waiting to the end."""
        if admitted:
            self.admitted.append((self.asked, time.monotonic_ns()))
            self.waiting_since = None


class Workload:
    """All callers, from the start to the end of the demonstration.

    Args:
        limiter: what they share.
        rates: its rates; the callers ask for more than these let pass.
        threads: how many of them are threads.
        tasks: how many are asyncio tasks.
        seconds: for how long they ask.
        seed: of their pauses, None for other ones each time.
    """

    def __init__(
        self,
        limiter: Limiter,
        rates: Sequence[Rate],
        *,
        threads: int,
        tasks: int,
        seconds: float,
        seed: int | None,
    ) -> None:
        self.limiter = limiter
        self.seconds = seconds
        self._in_threads = [Caller(f"thread {k + 1}", seed) for k in range(threads)]
        self._in_tasks = [Caller(f"task {k + 1}", seed) for k in range(tasks)]
        self.callers = self._in_threads + self._in_tasks
        fits = min(rate.limit * (1 + seconds * 1000 / rate.interval) for rate in rates)
        self._pause = max(_SHORTEST_PAUSE, len(self.callers) * seconds / (_DEMAND * fits))
        self._over = Event()
        self._threads: list[Thread] = []
        self.errors: list[BaseException] = []
        self.start_ns = self._end_ns = 0

    def __enter__(self) -> Self:
        self.start_ns = time.monotonic_ns()
        self._end_ns = self.start_ns + int(self.seconds * 1e9)
        runs: list[Callable[[], None]]
        runs = [partial(self._run_thread, caller) for caller in self._in_threads]
        if self._in_tasks:
            runs.append(lambda: asyncio.run(self._run_tasks()))
        # Daemons: a thread that sleeps in the limiter must not hold up the end.
        self._threads = [Thread(target=self._guard, args=(run,), daemon=True) for run in runs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give those who wait until the end the time to come back; leave the others behind."""
        stopped_early = not self.is_over()
        self._over.set()
        patience = time.monotonic() + (0 if stopped_early else _GRACE)
        for thread in self._threads:
            thread.join(max(0.0, patience - time.monotonic()))

    def is_over(self) -> bool:
        """Whether the time is up, or a caller failed."""
        return bool(self.errors) or time.monotonic_ns() >= self._end_ns

    def elapsed_ns(self) -> int:
        """Since the start."""
        return time.monotonic_ns() - self.start_ns

    def times(self) -> list[int]:
        """When each call came back admitted, in ns."""
        return [returned for caller in self.callers for _, returned in list(caller.admitted)]

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            self.errors.append(error)

    def _left(self) -> float:
        return 0.0 if self._over.is_set() else max(0.0, (self._end_ns - time.monotonic_ns()) / 1e9)

    def _rest(self, caller: Caller) -> float:
        return min(caller.random.expovariate(1 / self._pause), self._left())

    def _run_thread(self, caller: Caller) -> None:
        while not self._over.wait(self._rest(caller)) and self._left():
            caller.ask()
            caller.hear(self.limiter.try_acquire(caller.name, timeout=self._left()))

    async def _run_tasks(self) -> None:
        await asyncio.gather(*map(self._run_task, self._in_tasks))

    async def _run_task(self, caller: Caller) -> None:
        await asyncio.sleep(self._rest(caller))
        while self._left():
            caller.ask()
            caller.hear(await self.limiter.try_acquire_async(caller.name, timeout=self._left()))
            await asyncio.sleep(self._rest(caller))
