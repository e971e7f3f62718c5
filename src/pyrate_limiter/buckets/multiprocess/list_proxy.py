"""A ``ListProxy`` without a manager: to its readers it is the list that a file stands for.

Programs written for 4.5.1 rely on the class. The methods that are replaced are those by which, as
the documentation of ``multiprocessing`` says, a proxy reaches what it stands for: ``_callmethod``
and ``_getvalue``.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.multiprocess.file import SharedFile
from pyrate_limiter.buckets.multiprocess.lock import is_supported
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.managers import SyncManager

    from pyrate_limiter.buckets.multiprocess.session import Lock

    AnyList = ListProxy[Any]  # of units, or of the numbers of a state
    Reader = Callable[[SharedFile], Callable[[], Sequence[object]]]
else:
    AnyList = ListProxy  # the class takes no parameter at run time

_READING = {*dir(tuple), "__reversed__", "copy"}  # what a tuple can changes nothing
_DIRECT = {"__getitem__", "__len__"}  # the others want a whole list


class SharedItems(AnyList):
    """What `MultiprocessBucket.init` and `MultiprocessStateStore.init` share between processes.

    It reads as a list of what is stored at the moment. Only its bucket or store changes it.
    """

    def __init__(self, file: SharedFile, reader: Reader) -> None:
        # Not the base's: there is no server to connect to.
        self.file = file
        self._reader = reader
        self._look: Callable[[], Sequence[object]] | None = None

    def _now(self) -> Sequence[object]:
        if self._look is None:
            self._look = self._reader(self.file)
        return self._look()

    def _callmethod(
        self,
        methodname: str,
        args: tuple[object, ...] = (),
        kwds: Mapping[str, object] | None = None,
    ) -> Any:  # as the method of a list does
        if methodname not in _READING:
            raise WrongType(f"the list on which {methodname} was called", self, "a manager's")
        stored = self._now() if methodname in _DIRECT else list(self._now())
        return getattr(stored, methodname)(*args, **(kwds or {}))

    def _getvalue(self) -> list[object]:
        return list(self._now())

    def __iter__(self) -> Iterator[object]:
        return iter(self._now())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.file.path}>"

    def __str__(self) -> str:
        return str(self._getvalue())

    def __deepcopy__(self, memo: object) -> list[object]:
        return self._getvalue()

    def __reduce__(self) -> tuple[Any, ...]:  # the base's are four values
        return type(self), (self.file, self._reader)


def new_list(reader: Reader) -> tuple[AnyList, Lock, SyncManager | None]:
    """A list, what guards it, and the helper process that serves it, if there has to be one."""
    if is_supported():
        file = SharedFile.create()
        return SharedItems(file, reader), file.lock, None
    manager = multiprocessing.Manager()
    return manager.list(), multiprocessing.RLock(), manager


def give_up(items: AnyList, manager: SyncManager | None) -> None:
    """Remove what `new_list` has made, in the process that made it; others may go on with it."""
    if manager is not None:
        manager.shutdown()
    if isinstance(items, SharedItems):
        items.file.remove()
