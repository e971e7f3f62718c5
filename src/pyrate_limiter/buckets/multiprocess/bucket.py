"""The log shared by the processes of one host."""

from __future__ import annotations

from contextlib import nullcontext
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.process_lock import LAST_SECONDS, has_end, lock_seconds
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter.abstracts.algorithm import Decision, LogAlgorithm, SlidingWindowLog
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.log.units_view import UnitsView
from pyrate_limiter.buckets.multiprocess import lock as shared_lock
from pyrate_limiter.buckets.multiprocess.file import SharedFile
from pyrate_limiter.buckets.multiprocess.list_proxy import SharedItems
from pyrate_limiter.buckets.multiprocess.manager_list import LogList
from pyrate_limiter.buckets.multiprocess.replica import LogFile, RecordingLog
from pyrate_limiter.buckets.multiprocess.session import Session
from pyrate_limiter.errors import NotShared, SharedStorageBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.multiprocess.session import Medium

_CHANGED = ("put", "put_decision", "waiting", "reserve", "now", "limiter_lock", "take")


class SharedLogBucket(RecordingLog):
    """What a `MultiprocessBucket` does, whose name is public."""

    blocks: bool = True
    failing_rate: Rate | None

    _lock: Session
    _manager: Any

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        items: ListProxy[Any],
        mp_lock: object,
        algorithm: LogAlgorithm | None = None,
    ) -> None:
        if not isinstance(items, ListProxy):
            raise NotShared("items", items)
        self._records = []
        self._begin_notes()
        super().__init__(rates, algorithm)
        self._share(items, mp_lock)

    def _share(self, items: ListProxy[Any], mp_lock: object) -> None:
        self._items = items
        self.mp_lock = mp_lock
        medium: Medium = LogFile(items.file) if isinstance(items, SharedItems) else LogList(items)
        self._lock = Session(self, medium, mp_lock)

    @classmethod
    def init(cls, rates: Rate | Sequence[Rate], algorithm: LogAlgorithm | None = None) -> Self:
        """A bucket in memory of its own, without a helper process.

        It holds three file descriptors. Where the system allows 1024, that is enough for some 300
        of them: a limit for each of many names belongs into one table, see `SQLiteBucket.per_key`.

        Where the system has no record locks (Windows) it is a manager's list, served by a helper
        process, and a lock that a dying process can take with it.

        Raises:
            InvalidRateList: some rate of the list can never matter.
            AlgorithmMismatch: the algorithm does not work on a log.
            OSError: the memory is full, or too many files are open. Then nothing is left behind.
        """
        cls._checked(rates, algorithm)  # raises before anything is made
        if not shared_lock.is_supported():
            import multiprocessing

            manager = multiprocessing.Manager()
            bucket = cls(rates, manager.list(), multiprocessing.RLock(), algorithm)
            bucket._manager = manager
            return bucket
        file = SharedFile.create()
        return cls(rates, SharedItems(file, stored_units), file.lock, algorithm)

    @property
    def items(self) -> Any:
        """The shared list: the stored units as `RateItem`, oldest first."""
        return self._items

    def limiter_lock(self) -> Any:
        """The lock that all processes share."""
        return self.mp_lock

    def _whole(self) -> AbstractContextManager[None]:
        return nullcontext()  # what was not pushed has not happened

    def _note_reservations(self) -> None:
        """Nothing: those of other processes count as well."""

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; there is none over a manager's list."""
        mine = type(self)
        changed = any(getattr(mine, it) is not getattr(SharedLogBucket, it) for it in _CHANGED)
        stock = type(self._algorithm) is SlidingWindowLog and isinstance(self._items, SharedItems)
        return self.take if stock and not changed else None

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that cannot be said at once: somebody waits, the clock has to be awaited, or
            under asyncio another holds the lock.
        """
        session = self._lock
        if (waited_for and id(self) in waited_for) or not session.enter_at_once():
            return None
        try:
            now = self._clock.now()
            if now.__class__ is not int:
                discard(now)
                verdict = None
            else:
                if now < self._newest:
                    now = self._judged_now(now, self._rates)
                verdict = self._put_now(name, weight, now)
        except BaseException as error:
            session.__exit__(type(error), error, None)
            raise
        session.__exit__(None, None, None)
        return verdict

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Decision:
        del brief
        return self.reserve_several([item], max_wait_ms, buffer_ms, None, limit_ms)[0]

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        self._lock.allow(lock_seconds(max_wait_ms, limit_ms))
        try:
            return super().reserve_several(items, max_wait_ms, buffer_ms, not_before)
        except SharedStorageBusy:
            if not has_end(max_wait_ms, limit_ms):
                raise
            return [Decision(self._rates[0], 0)]

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        """See `AbstractBucket.confirm`. Nothing changes where the lock is not had in time."""
        self._lock.allow(lock_seconds(max_wait_ms, busy_seconds=LAST_SECONDS))
        try:
            return super().confirm(reservation, now, max_wait_ms)
        except SharedStorageBusy:
            return Decision(self._rates[0], 0)

    def cancel(self, reservation: Reservation) -> bool:
        """See `AbstractBucket.cancel`. Nothing changes where the lock is not had in time."""
        self._lock.allow(LAST_SECONDS)
        try:
            return super().cancel(reservation)
        except SharedStorageBusy:
            return False

    def count(self) -> int:
        with self._lock:
            return super().count()

    def retire(self, now: int) -> bool:
        """False: other processes may be about to use it."""
        del now
        return False

    def close(self) -> None:
        """Give up the shared memory, in the process that made it; others may go on with theirs.

        A helper process that `init` has started is ended.
        """
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        manager = getattr(self, "_manager", None)
        if manager is not None:
            manager.shutdown()
        if isinstance(self._items, SharedItems):
            self._items.file.remove()

    def __getstate__(self) -> dict[str, Any]:
        slots = ("_rates", "_algorithm", "_clock")
        own = ("_lock", "_records", "_noted", "_lookbacks", "_note_at", "_manager", "_items")
        rest = {name: value for name, value in self.__dict__.items() if name not in own}
        del rest["mp_lock"]
        state = {name: getattr(self, name) for name in slots}
        return {**state, **rest, "_items": self._items, "mp_lock": self.mp_lock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._records = []
        self._begin_notes()
        self._stepped = 0
        self.failing_rate = None
        self._clear()
        self._share(state.pop("_items"), state.pop("mp_lock"))
        for name, value in state.items():
            setattr(self, name, value)


def stored_units(file: SharedFile) -> Callable[[], Sequence[RateItem]]:
    """Reads what is stored in the items of `MultiprocessBucket.init`."""
    reader = SharedLogBucket(_ANY, SharedItems(file, stored_units), file.lock)

    def look() -> Sequence[RateItem]:
        with reader._lock:
            return UnitsView(reader, reader._lock)

    return look


_ANY = [Rate(1, 1 << 40)]
