"""A state shared by the processes of one host."""

from __future__ import annotations

from contextlib import nullcontext
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.process_lock import lock_seconds
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.buckets.multiprocess import lock as shared_lock
from pyrate_limiter.buckets.multiprocess.file import DATA, SharedFile, pack, unpack
from pyrate_limiter.buckets.multiprocess.list_proxy import SharedItems
from pyrate_limiter.buckets.multiprocess.manager_list import reaching
from pyrate_limiter.buckets.multiprocess.session import Session
from pyrate_limiter.buckets.state.in_memory import InMemoryStateStore
from pyrate_limiter.errors import NotShared, SharedStorageBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.managers import SyncManager

    from typing_extensions import Self

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.multiprocess.session import Medium
    from pyrate_limiter.buckets.state.record import Numbers
    from pyrate_limiter.buckets.state.rules import StateRules
    from pyrate_limiter.buckets.state.store import Undo

T = TypeVar("T")


class MultiprocessStateStore(InMemoryStateStore):
    """One state that processes share: hand it to child processes, or pickle it.

    Args:
        values: the list that is shared: a manager's, or that of another store. It reads as the
            state's numbers, followed by the reservations on it, or its hold, where there are some.
        lock: what guards it in all processes, a ``multiprocessing.RLock()`` for example.

    Raises:
        NotShared: ``values`` is no ``ListProxy``.
    """

    __module__ = "pyrate_limiter.buckets.state_bucket"

    if not TYPE_CHECKING:
        __slots__ = ("_manager", "_values", "before", "lock")

    blocks = True

    _lock: Session
    _manager: SyncManager

    def __init__(self, values: ListProxy[Any], lock: object) -> None:
        if not isinstance(values, ListProxy):
            raise NotShared("values", values)
        super().__init__()
        self._values = values
        self.lock = lock
        self.before: Numbers = self.dump()
        """What is stored, as far as is known here."""
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

    def transact(
        self,
        rules: StateRules,
        use: Callable[[StateRules], T],
        within_ms: int | None = None,
        instead: Callable[[Decision], T] | None = None,
        undo: Undo[T] | None = None,
    ) -> T:
        """See `RecordStore.transact`. The reservations of other processes count as well."""
        del undo
        if within_ms is not None:
            self._lock.allow(lock_seconds(within_ms, within_ms))
        try:
            with self._lock:
                self._full = None
                return use(rules.on(self))
        except SharedStorageBusy:
            if within_ms is None or instead is None:
                raise
            return instead(Decision(rules.rates[0], 0))

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """False: other processes may be about to use it."""
        del algorithm, rates, now
        return False

    def close(self) -> None:
        """Give up the shared memory, in the process that made it; others may go on with theirs.

        A helper process that `init` has started is ended.
        """
        if hasattr(self, "_manager"):
            self._manager.shutdown()
        if isinstance(self._values, SharedItems):
            self._values.file.remove()

    def __reduce__(self) -> tuple[object, ...]:
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
        numbers = _changed(replica)
        if numbers is not None:
            file = self._file
            data = pack(numbers)
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
        rest = (replica._latest, 0, None, None)
        if values and isinstance(values[-1], tuple):
            rest = values.pop()
        latest, ahead, queue, hold = rest
        _load(replica, (latest, ahead, tuple(values) or None, queue, hold))

    def push(self, replica: MultiprocessStateStore) -> None:
        """See `Medium`."""
        numbers = _changed(replica)
        if numbers is not None:
            with reaching(self._values):
                self._values[:] = _listed(numbers, whole=numbers[1] != 0)


def _changed(replica: MultiprocessStateStore) -> Numbers | None:
    """What is to be stored, if anything is: that the time has gone on need not be known."""
    before, numbers = replica.before, replica.dump()
    same = numbers[2] == before[2] and numbers[1:] == before[1:]
    if same and (numbers[3] is None or numbers == before):
        return None
    replica.before = numbers
    return numbers


def _load(replica: MultiprocessStateStore, numbers: Numbers | None) -> None:
    replica._full = None
    if numbers is None:
        replica._clear()
        numbers = replica.dump()
    else:
        replica.load(numbers)
    replica.before = numbers


def _numbers(file: SharedFile, header: list[int]) -> Numbers | None:
    start, end = header[:2]
    numbers: Numbers | None = unpack(file.read(start, end)) if end else None
    return numbers


def _listed(numbers: Numbers, *, whole: bool = False) -> list[object]:
    """The state's numbers, and behind them the rest, where somebody waits or it is to be whole."""
    latest, ahead, state, queue, hold = numbers
    plain = queue is None and hold is None and not whole
    return [*(state or ()), *(() if plain else ((latest, ahead, queue, hold),))]


def stored_numbers(file: SharedFile) -> Callable[[], Sequence[object]]:
    """Reads what is stored in the values of `MultiprocessStateStore.init`."""

    def look() -> Sequence[object]:
        with file.lock:
            numbers = _numbers(file, file.header())
        return [] if numbers is None else _listed(numbers)

    return look
