"""A state shared by the processes of one host."""

from __future__ import annotations

from contextlib import nullcontext
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.process_lock import lock_seconds
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.buckets.multiprocess.file import pack, room_beside, unpack
from pyrate_limiter.buckets.multiprocess.list_proxy import SharedItems, give_up, new_list
from pyrate_limiter.buckets.multiprocess.session import Medium, Session, Within
from pyrate_limiter.buckets.state.in_memory import InMemoryStateStore
from pyrate_limiter.errors import NotShared, SharedStorageBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.multiprocess.file import SharedFile
    from pyrate_limiter.buckets.multiprocess.list_proxy import AnyList
    from pyrate_limiter.buckets.multiprocess.session import Lock
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
        __slots__ = ("_values", "lock")

    blocks = True

    _lock: Session

    def __init__(self, values: AnyList, lock: Lock) -> None:
        if not isinstance(values, ListProxy):
            raise NotShared("values", values)
        super().__init__()
        self._values = values
        self.lock = lock
        medium: Medium = _StateList(self, values)
        if isinstance(values, SharedItems):
            medium = _StateFile(self, values.file)
        self._lock = Session(self, medium, lock)

    @classmethod
    def init(cls) -> Self:
        """A store in memory of its own, without a helper process.

        It holds three file descriptors. Where the system allows 1024, that is enough for some 300
        of them: a limit for each of many names belongs into one table, see `SQLiteBucket.per_key`.

        Where the system has no record locks (Windows) it is a manager's list, served by a helper
        process, and a lock that a dying process can take with it.
        """
        return cls(*new_list(StoredNumbers))

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
        except BaseException:
            session.leave(False)
            raise
        session.leave(True)
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
        try:
            with Within(self._lock, lock_seconds(within_ms or 0, within_ms)):
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
        give_up(self._values)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._values, self.lock)


class _StateMedium(Medium):
    """What the media of a state have in common: they store it where it is another one."""

    def __init__(self, store: MultiprocessStateStore) -> None:
        self._store = store
        self._known = store.dump()

    def _load(self, numbers: Numbers | None) -> None:
        store = self._store
        store._full = None
        if numbers is None:
            store._clear()
        else:
            store.load(numbers)
        self._known = numbers or store.dump()

    def _news(self) -> Numbers | None:
        """What is to be stored, if anything is: that the time has gone on need not be known."""
        known, numbers = self._known, self._store.dump()
        if numbers[1:] == known[1:] and (numbers[3] is None or numbers == known):
            return None
        self._known = numbers
        return numbers


class _StateFile(_StateMedium):
    """The medium of a state that is shared by a file."""

    def __init__(self, store: MultiprocessStateStore, file: SharedFile) -> None:
        super().__init__(store)
        self._file = file
        self.place: str = file.path
        self._commits = -1

    def pull(self, fresh: bool) -> None:
        commits = self._file.commits
        if commits != self._commits or fresh:
            self._load(_numbers(self._file))
            self._commits = commits

    def push(self) -> None:
        numbers = self._news()
        if numbers is not None:
            file, data = self._file, pack(numbers)
            start, end, *_ = file.header()
            place = room_beside(start, end, len(data))
            file.write(place, data)
            self._commits = file.commit((place, place + len(data), 0, 0, 0))


class _StateList(_StateMedium):
    """The medium of a state that is shared by a manager's list."""

    place = "a manager's list"

    def __init__(self, store: MultiprocessStateStore, values: AnyList) -> None:
        super().__init__(store)
        self._values = values

    def pull(self, fresh: bool) -> None:
        del fresh
        values = self._values[:]
        rest = (self._store._latest, 0, None, None)
        if values and isinstance(values[-1], tuple):
            rest = values.pop()
        latest, ahead, queue, hold = rest
        self._load((latest, ahead, tuple(values) or None, queue, hold))

    def push(self) -> None:
        numbers = self._news()
        if numbers is not None:
            self._values[:] = _listed(numbers, whole=numbers[1] != 0)


def _numbers(file: SharedFile) -> Numbers | None:
    start, end, *_ = file.header()
    numbers: Numbers | None = unpack(file.read(start, end)) if end else None
    return numbers


def _listed(numbers: Numbers, *, whole: bool = False) -> list[object]:
    """The state's numbers, and behind them the rest, where somebody waits or it is to be whole."""
    latest, ahead, state, queue, hold = numbers
    plain = queue is None and hold is None and not whole
    return [*(state or ()), *(() if plain else ((latest, ahead, queue, hold),))]


class StoredNumbers(SharedItems):
    """The values of `MultiprocessStateStore.init`."""

    def _now(self) -> Sequence[object]:
        with self.file.lock:
            numbers = _numbers(self.file)
        return [] if numbers is None else _listed(numbers)
