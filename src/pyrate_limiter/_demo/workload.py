"""Threads and asyncio tasks that keep asking one limiter, and what they were told."""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.limiter import Limiter

_DEMAND = 1.5  # how much more is asked for than fits
_SHORTEST_PAUSE = 0.001  # seconds between two calls of one caller, so that the screen gets its turn
_GRACE = 2.0  # seconds that callers get to come back at the end


class Caller:
    """One thread or task. It writes its own record, others read it."""

    def __init__(self, name: str, *, is_task: bool, random: Random) -> None:
        self.name = name
        self.is_task = is_task
        self.random = random
        self.waiting_since: int | None = None
        self.admitted: list[tuple[int, int]] = []
        """When it asked, and when it was let through, in ns."""


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
        names = [(f"thread {k + 1}", False) for k in range(threads)]
        names += [(f"task {k + 1}", True) for k in range(tasks)]
        self.callers = [
            # One seed gives every caller a seed of its own.
            Caller(
                name,
                is_task=is_task,
                random=Random(None if seed is None else f"{seed} {name}"),  # noqa: S311 - no secret
            )
            for name, is_task in names
        ]
        fits = min(rate.limit * (1 + seconds * 1000 / rate.interval) for rate in rates)
        self._pause = max(_SHORTEST_PAUSE, len(self.callers) * seconds / (_DEMAND * fits))
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.start_ns = self._end_ns = 0

    def __enter__(self) -> Self:
        self.start_ns = time.monotonic_ns()
        self._end_ns = self.start_ns + int(self.seconds * 1e9)
        for caller in self.callers:
            if not caller.is_task:
                self._start(self._run_thread, caller)
        tasks = [caller for caller in self.callers if caller.is_task]
        if tasks:
            self._start(self._run_tasks, tasks)
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

    def _start(self, run: object, argument: object) -> None:
        # Daemons: a thread that sleeps in the limiter must not hold up the end.
        thread = threading.Thread(target=self._guard, args=(run, argument), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, run: object, argument: object) -> None:
        try:
            run(argument)  # type: ignore[operator] # one of the two methods below
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            self.errors.append(error)

    def _rest(self, caller: Caller) -> float:
        return caller.random.expovariate(1 / self._pause)

    def _left(self) -> float:
        return 0.0 if self._over.is_set() else max(0.0, (self._end_ns - time.monotonic_ns()) / 1e9)

    def _run_thread(self, caller: Caller) -> None:
        while not self._over.wait(min(self._rest(caller), self._left())) and self._left():
            asked = caller.waiting_since = time.monotonic_ns()
            admitted = self.limiter.try_acquire(caller.name, timeout=self._left())
            returned = time.monotonic_ns()
            self._note(caller, asked, returned if admitted else None)

    def _run_tasks(self, callers: list[Caller]) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(self._run_task(caller) for caller in callers))

        asyncio.run(all_of_them())

    async def _run_task(self, caller: Caller) -> None:
        while True:
            await asyncio.sleep(min(self._rest(caller), self._left()))
            if not self._left():
                return
            asked = caller.waiting_since = time.monotonic_ns()
            admitted = await self.limiter.try_acquire_async(caller.name, timeout=self._left())
            returned = time.monotonic_ns()
            self._note(caller, asked, returned if admitted else None)

    @staticmethod
    def _note(caller: Caller, asked: int, returned: int | None) -> None:
        if returned is not None:  # otherwise its time was up, and it is shown waiting to the end
            caller.waiting_since = None
            caller.admitted.append((asked, returned))
