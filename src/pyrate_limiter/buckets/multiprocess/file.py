"""A file in memory that several processes map, and its lock. For POSIX systems.

No helper process serves it. The kernel takes its lock away from a process that dies, and what such
a process has left half written is not seen by the others: they read what the last commit names.
"""

from __future__ import annotations

import errno
import marshal
import mmap
import os
import pickle
import struct
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.process_lock import ProcessLock
from pyrate_limiter.errors import SharedStorageLost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

with suppress(ImportError):  # Windows
    import fcntl

_FOLDER = "/dev/shm"  # noqa: S108 - memory; mkstemp makes the name, for this user alone
_PREFIX = "pyrate-limiter-"
_NEW_SECONDS = 60  # for so long a file may exist before anybody has marked it as used
_PACKED = struct.Struct("5q")  # a header
_SLOTS = (8, 24)  # two places for the header, in words: the number of commits says which one holds
DATA = mmap.PAGESIZE  # where the data begins


def is_supported() -> bool:
    """Whether this system has record locks."""
    return "fcntl" in globals()


class SharedLock(ProcessLock):
    """A record lock on a file: it belongs to the process, and the kernel takes it from a dead one.

    A process may have one only for each file: to close a second one would let go of the first. So
    a copy of it is that of the same `SharedFile`.
    """

    def __init__(self, file: SharedFile) -> None:
        super().__init__()
        self.path: str = file.path + ".lock"
        self._file = file
        self._fd = _open(self, self.path)

    def _try(self) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            return False
        return True

    def _free(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Callable[[SharedFile], object], tuple[SharedFile]]:
        return attrgetter("lock"), (self._file,)


class SharedFile:
    """A growing file that processes map into their memory. Its user holds `lock`.

    The process that made it removes it when nothing here refers to it any more; or, where it was
    handed to other processes, when it is closed or the process ends. Those who have it open by then
    go on with it. What a process leaves that was killed is removed when the next file is made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = _open(self, path)
            fcntl.flock(self._fd, fcntl.LOCK_SH)  # it is in use as long as a child has it open, too
            self._map()
            self.lock: SharedLock = SharedLock(self)
        except FileNotFoundError:
            raise SharedStorageLost(path) from None

    @classmethod
    def create(cls) -> SharedFile:
        """Make a new one, in which nothing is committed."""
        folder = _FOLDER if os.access(_FOLDER, os.W_OK) else tempfile.gettempdir()
        _remove_unused(folder)
        fd, path = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        try:
            with os.fdopen(fd):
                _allocate(fd, 2 * DATA)
            Path(path + ".lock").touch(0o600)
            file = open_file(path)
            _made[path] = weakref.finalize(file, _remove, path, os.getpid())
        except BaseException:  # the memory is full, or too many files are open
            _remove(path, os.getpid())
            raise
        return file

    def _map(self) -> None:
        memory = mmap.mmap(self._fd, 0)
        self._memory, self._words = memory, memoryview(memory).cast("q")

    def _remap(self) -> None:
        words, memory = self._words, self._memory
        self._map()  # before the old one goes: another thread may fork at any moment
        words.release()
        memory.close()

    @property
    def commits(self) -> int:
        """How often something was committed."""
        return self._words[0]

    def header(self) -> tuple[int, ...]:
        """The numbers of the last commit: where its data is, as its user knows."""
        return _PACKED.unpack_from(self._words, 8 * _SLOTS[self._words[0] & 1])

    def commit(self, header: Sequence[int]) -> int:
        """Replace the header, five numbers, as a whole; returns the new `commits`."""
        words = self._words
        number = words[0] + 1
        _PACKED.pack_into(words, 8 * _SLOTS[number & 1], *header)
        words[0] = number  # eight aligned bytes: written as a whole or not at all
        return number

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``."""
        if end > len(self._memory):
            self._remap()
        return self._memory[start:end]

    def write(self, start: int, data: bytes) -> None:
        """Put bytes where the last commit names nothing. The file grows as needed."""
        end = start + len(data)
        if end > len(self._memory):
            if end > os.fstat(self._fd).st_size:
                _allocate(self._fd, -(-end // DATA) * DATA)
            self._remap()
        self._memory[start:end] = data

    def remove(self) -> None:
        """Remove the file, if this process made it; whoever has it open goes on with it."""
        removal = _made.get(self.path)
        if removal is not None:
            removal()

    def __reduce__(self) -> tuple[Callable[[str], SharedFile], tuple[str]]:
        removal = _made.get(self.path)
        made = removal.detach() if removal is not None else None
        if made is not None:  # from now on it lasts until the process ends, as this module does
            _made[self.path] = weakref.finalize(open_file, _remove, *made[2])
        return open_file, (self.path,)


def room_beside(start: int, end: int, size: int) -> int:
    """Where so many bytes find room: in front of what goes from ``start`` to ``end``, or behind."""
    return DATA if start >= DATA + size else max(DATA, end)


_files: weakref.WeakValueDictionary[str, SharedFile] = weakref.WeakValueDictionary()
_made: dict[str, weakref.finalize[[str, int], object]] = {}
"""What removes each file that this process, or the one it was forked from, has made."""
_opening = threading.Lock()


def open_file(path: str) -> SharedFile:
    """The file of that path, mapped once in each process.

    Raises:
        SharedStorageLost: the process that made it has closed it, or has ended.
    """
    with _opening:
        file = _files.get(path)
        if file is None:
            file = _files[path] = SharedFile(path)
        return file


def pack(value: Any) -> bytes:  # as `marshal` has it
    """Bytes of plain values; also of names that are no plain strings, at a higher price."""
    try:
        return marshal.dumps(value)
    except ValueError:
        return pickle.dumps(value)


def unpack(data: bytes) -> Any:  # its user knows what was packed
    """What was packed."""
    # Only this user's own processes can write to the file.
    if data[:1] == pickle.PROTO:
        return pickle.loads(data)  # noqa: S301
    return marshal.loads(data)  # noqa: S302


def _open(user: object, path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    weakref.finalize(user, os.close, fd).atexit = False
    return fd


def _allocate(fd: int, size: int) -> None:
    """Grow a file. A write to memory that turns out not to exist would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


def _remove(path: str, maker: int) -> None:
    if maker == os.getpid():  # else it is a forked child
        _made.pop(path, None)
        for name in (path, path + ".lock"):
            Path(name).unlink(missing_ok=True)


def _remove_unused(folder: str) -> None:
    """Remove what is in use by no process any more: the one that made it was killed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX) or entry.name.endswith(".lock"):
                continue
            with suppress(OSError):  # another process may do the same
                age = time.time() - entry.stat(follow_symlinks=False).st_ctime
                if age > _NEW_SECONDS and not _is_used(entry.path):
                    _remove(entry.path, os.getpid())


def _is_used(path: str) -> bool:
    """Whether some process has the file open as its own."""
    with Path(path).open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _after_fork() -> None:
    global _opening  # noqa: PLW0603 - a thread of the parent may have held it
    _opening = threading.Lock()
    for file in list(_files.values()):
        file.lock.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
