"""A state shared by the processes of one host."""

from __future__ import annotations

from contextlib import nullcontext
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.process_lock import LAST_SECONDS, has_end, lock_seconds
from pyrate_limiter._core.timeline import NO_CLOCK
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.buckets.memory.state import InMemoryStateStore
from pyrate_limiter.buckets.multiprocess import lock as shared_lock
from pyrate_limiter.buckets.multiprocess.file import DATA, SharedFile, pack, unpack
from pyrate_limiter.buckets.multiprocess.list_proxy import SharedItems
from pyrate_limiter.buckets.multiprocess.manager_list import reaching
from pyrate_limiter.buckets.multiprocess.session import Session
from pyrate_limiter.errors import NotShared, SharedStorageBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.multiprocess.session import Medium


class MultiprocessStateStore(InMemoryStateStore):
    """One state that processes share: hand it to child processes, or pickle it.

    Args:
        values: the list that is shared: a manager's, or that of another store. It reads as the
            state's numbers, followed by the claims on it, or its hold, where there are some.
        lock: what guards it in all processes, a ``multiprocessing.RLock()`` for example.

    Raises:
        NotShared: ``values`` is no ``ListProxy``.
    """

    __module__ = "pyrate_limiter.buckets.state_bucket"

    if not TYPE_CHECKING:
        __slots__ = ("_manager", "_values", "before", "lock")

    blocks = True
    bounds_claims = True

    _manager: Any
    _values: Any
    before: Any
    """What is stored, as far as is known here."""

    def __init__(self, values: ListProxy[Any], lock: Any) -> None:
        if not isinstance(values, ListProxy):
            raise NotShared("values", values)
        super().__init__()
        self._values = values
        self.lock = lock
        self.before = None
        medium: Medium
        medium = _StateFile(values.file) if isinstance(values, SharedItems) else _StateList(values)
        self._lock = Session(self, medium, lock)

    @classmethod
    def init(cls) -> Self:
        """A store in memory of its own, without a helper process.

        It holds three file descriptors. Where the system allows 1024, that is enough for some 300
        of them: a limit for each of many names belongs into one table, see `SQLiteBucket.per_key`.

        Where the system has no record locks (Windows) it is a manager's list, served by a helper
        process, and a lock that a dying process can take with it.
        """
        if not shared_lock.is_supported():
            import multiprocessing

            manager = multiprocessing.Manager()
            store = cls(manager.list(), multiprocessing.RLock())
            store._manager = manager
            return store
        file = SharedFile.create()
        return cls(SharedItems(file, stored_numbers), file.lock)

    def _whole(self) -> AbstractContextManager[None]:
        return nullcontext()  # what was not pushed has not happened

    def take_now(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], clock: AbstractClock, weight: int
    ) -> Rate | bool | None:
        """See `InMemoryStateStore.take_now`.

        False also where another holds the lock under asyncio, and over a manager's list.
        """
        session = self._lock
        if not isinstance(self._values, SharedItems) or not session.enter_at_once():
            return False
        try:
            verdict = super().take_now(algorithm, rates, clock, weight)
        except BaseException as error:
            session.__exit__(type(error), error, None)
            raise
        session.__exit__(None, None, None)
        return verdict

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> Decision:
        """See `StateStore.claim`, and `AbstractBucket.claim_within`."""
        terms = (patience_ms, buffer_ms, None, clock, limit_ms)
        return self.claim_several(algorithm, rates, [item], *terms)[0]

    def claim_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        """See `StateStore.claim_several`."""
        self._lock.allow(lock_seconds(patience_ms, limit_ms))
        try:
            return super().claim_several(
                algorithm, rates, items, patience_ms, buffer_ms, not_before, clock
            )
        except SharedStorageBusy:
            if not has_end(patience_ms, limit_ms):
                raise
            return [Decision(rates[0], 0)]

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision:
        """See `StateStore.settle`. The claim stays where the lock cannot be had in time."""
        self._lock.allow(lock_seconds(patience_ms, busy_seconds=LAST_SECONDS))
        try:
            return super().settle(algorithm, rates, item, now, patience_ms, clock)
        except SharedStorageBusy:
            return Decision(rates[0], 0)

    def release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> bool:
        """See `StateStore.release`. The claim stays where the lock cannot be had in time."""
        self._lock.allow(LAST_SECONDS)
        try:
            return super().release(algorithm, rates, item)
        except SharedStorageBusy:
            return False

    def _note_claims(self) -> None:
        """Nothing: those of other processes count as well."""

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """False: other processes may be about to use it."""
        del algorithm, rates, now
        return False

    def close(self) -> None:
        """Give up the shared memory, in the process that made it; others may go on with theirs.

        A helper process that `init` has started is ended.
        """
        manager = getattr(self, "_manager", None)
        if manager is not None:
            manager.shutdown()
        if isinstance(self._values, SharedItems):
            self._values.file.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._values, self.lock)


class _StateFile:
    """The medium of a state that is shared by a file."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self._commits = -1
        self._header: list[int] = []

    def pull(self, replica: MultiprocessStateStore, fresh: bool) -> None:
        """See `Medium`."""
        commits = self._file.commits
        if commits != self._commits or fresh:
            self._header = self._file.header()
            _load(replica, _numbers(self._file, self._header))
            self._commits = commits

    def push(self, replica: MultiprocessStateStore) -> None:
        """See `Medium`."""
        if _is_changed(replica):
            file = self._file
            replica.before = replica.dump()
            data = pack(replica.before)
            start, end = self._header[:2]
            # In front of the last one, if there is room, else behind it.
            place = DATA if start >= DATA + len(data) else max(DATA, end)
            header = [place, place + len(data), 0, 0, 0, 0]
            file.write(place, data)
            self._commits, self._header = file.commit(header), header


class _StateList:
    """The medium of a state that is shared by a manager's list."""

    def __init__(self, values: ListProxy[Any]) -> None:
        self._values = values

    def pull(self, replica: MultiprocessStateStore, fresh: bool) -> None:
        """See `Medium`."""
        del fresh
        with reaching(self._values):
            values = self._values[:]
        rest = values.pop() if values and isinstance(values[-1], tuple) else None
        state = tuple(values) or None
        if rest is None:
            rest = (replica._latest, 0, None, None)
        latest, ahead, queue, hold = rest
        _load(replica, (latest, ahead, state, queue, hold))

    def push(self, replica: MultiprocessStateStore) -> None:
        """See `Medium`."""
        if _is_changed(replica):
            latest, ahead, state, queue, hold = replica.before = replica.dump()
            plain = queue is None and hold is None and not ahead
            rest = () if plain else ((latest, ahead, queue, hold),)
            with reaching(self._values):
                self._values[:] = [*(state or ()), *rest]


def _is_changed(replica: MultiprocessStateStore) -> bool:
    """Whether there is something to store: that the time has gone on need not be known."""
    _, ahead, state, queue, hold = replica.before
    if queue is None and replica._queue is None:
        changed = replica._state != state or replica._ahead != ahead or replica._hold != hold
        return bool(changed)
    return replica.dump() != replica.before  # type: ignore[no-any-return] # tuples


def _load(replica: MultiprocessStateStore, numbers: tuple[Any, ...] | None) -> None:
    replica._full = None
    if numbers is None:
        replica._clear()
        replica.before = replica.dump()
    else:
        replica.load(numbers)
        replica.before = numbers


def _numbers(file: SharedFile, header: list[int]) -> tuple[Any, ...] | None:
    start, end = header[:2]
    numbers: tuple[Any, ...] | None = unpack(file.read(start, end)) if end else None
    return numbers


def stored_numbers(file: SharedFile) -> Callable[[], Sequence[Any]]:
    """Reads what is stored in the values of `MultiprocessStateStore.init`."""

    def look() -> Sequence[Any]:
        with file.lock:
            numbers = _numbers(file, file.header())
        if numbers is None:
            return []
        latest, ahead, state, queue, hold = numbers
        plain = queue is None and hold is None
        return [*(state or ()), *(() if plain else ((latest, ahead, queue, hold),))]

    return look
