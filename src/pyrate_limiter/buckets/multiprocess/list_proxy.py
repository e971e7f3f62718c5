"""A ``ListProxy`` without a manager: to its readers it is the list that a file stands for.

Programs written for 4.5.1 rely on the class. The methods that are replaced are those by which, as
the documentation of ``multiprocessing`` says, a proxy reaches what it stands for: ``_callmethod``
and ``_getvalue``.
"""

from __future__ import annotations

from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any

from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrate_limiter.buckets.multiprocess.file import SharedFile

    _Proxy = ListProxy[Any]
else:
    _Proxy = ListProxy  # the class takes no parameter at run time

_READING = frozenset(
    (
        "__add__",
        "__contains__",
        "__getitem__",
        "__len__",
        "__mul__",
        "__reversed__",
        "__rmul__",
        "copy",
        "count",
        "index",
    )
)
_DIRECT = frozenset(("__getitem__", "__len__"))  # the others want a whole list


class SharedItems(_Proxy):
    """What `MultiprocessBucket.init` and `MultiprocessStateStore.init` share between processes.

    It reads as a list of what is stored at the moment. Only its bucket or store changes it.
    """

    def __init__(
        self, file: SharedFile, reader: Callable[[SharedFile], Callable[[], Sequence[object]]]
    ) -> None:
        # Not the base's: there is no server to connect to.
        self.file = file
        self._reader = reader
        self._look: Callable[[], Sequence[Any]] | None = None

    def _now(self) -> Sequence[Any]:
        if self._look is None:
            self._look = self._reader(self.file)
        return self._look()

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = None) -> Any:
        if methodname not in _READING:
            raise WrongType(f"the list on which {methodname} was called", self, "a manager's")
        stored = self._now()
        if methodname == "__reversed__":
            return reversed(stored)
        if methodname not in _DIRECT:
            stored = list(stored)
        return getattr(stored, methodname)(*args, **(kwds or {}))

    def _getvalue(self) -> list[Any]:
        return list(self._now())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.file.path}>"

    def __str__(self) -> str:
        return str(self._getvalue())

    def __deepcopy__(self, memo: object) -> list[Any]:
        return self._getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self._reader)
