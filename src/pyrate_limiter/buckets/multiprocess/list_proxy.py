"""A ``ListProxy`` without a manager: to its readers it is the list that a file stands for.

Programs written for 4.5.1 rely on the class. The methods that are replaced are those by which, as
the documentation of ``multiprocessing`` says, a proxy reaches what it stands for: ``_callmethod``
and ``_getvalue``.
"""

from __future__ import annotations

import multiprocessing
import weakref
from abc import abstractmethod
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.multiprocess.file import SharedFile, is_supported
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.managers import SyncManager

    from pyrate_limiter.buckets.multiprocess.session import Lock

    AnyList = ListProxy[Any]  # of units, or of the numbers of a state
else:
    AnyList = ListProxy  # the class takes no parameter at run time

_READING = {*dir(tuple), "__reversed__", "copy"}  # what a tuple can changes nothing
_DIRECT = {"__getitem__", "__len__"}  # the others want a whole list


class SharedItems(AnyList):
    """What `MultiprocessBucket.init` and `MultiprocessStateStore.init` share between processes.

    It reads as a list of what is stored at the moment. Only its bucket or store changes it.
    """

    def __init__(self, file: SharedFile) -> None:
        # Not the base's: there is no server to connect to.
        self.file = file

    @abstractmethod
    def _now(self) -> Sequence[object]:
        """What is stored at the moment."""

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
        return type(self), (self.file,)


_helpers: weakref.WeakKeyDictionary[AnyList, SyncManager] = weakref.WeakKeyDictionary()


def new_list(kind: type[SharedItems]) -> tuple[AnyList, Lock]:
    """A list, and what guards it. A helper process serves it where there are no record locks."""
    if is_supported():
        file = SharedFile.create()
        return kind(file), file.lock
    manager = multiprocessing.Manager()
    items = manager.list()
    _helpers[items] = manager
    return items, multiprocessing.RLock()


def give_up(items: AnyList) -> None:
    """Remove what `new_list` has made, in the process that made it; others may go on with it."""
    if items in _helpers:
        _helpers[items].shutdown()
    if isinstance(items, SharedItems):
        items.file.remove()
