"""Locks that end with the process that holds them, however it ends: of a file for some work, of a folder while it is filled."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from predilect.disk import telling

__all__ = ["claimed", "hold", "holding"]

# The locks of this process: its number (a forked one has none of them), and device and inode of the file. Opening a file that is
# locked and closing it again would give its lock back, so that the table is asked first, by one thread at a time.
_held: dict[tuple[int, int, int], str] = {}
_asking = threading.Lock()


def hold(path: Path) -> int | None:
    """Lock a file for this process until it ends, however it ends; the file stays.

    The lock is a POSIX one, which the processes that this one starts do not inherit: a loader that outlives its killed parent
    for a moment holds nothing. A file system that knows no locks gives none. Held once, it is held for all threads of the
    process, and holding it again costs nothing.

    Args:
        path: The lock file; made if need be.

    Returns:
        None if the lock is ours, else the number of the process that holds it (0 if it has not said); our own number if another
        thread holds it by `holding`.

    Raises:
        DiskError: If the file cannot be made.
    """
    with telling(path), _asking:
        key = _key(path)
        if key in _held:
            return None if _held[key] == "process" else os.getpid()
        descriptor, holder = _locked(path)
        if holder is None:  # else never closed: closing would give the lock back
            _held[_key(descriptor)] = "process"
        else:
            os.close(descriptor)
    return holder


@contextmanager
def holding(path: Path) -> Iterator[int | None]:
    """Lock a file while the block runs, against other processes and against other blocks in threads of this one.

    The file stays, unless the block removes it. Where this process holds it by `hold`, it stays held when the block ends.

    Args:
        path: The lock file; made if need be.

    Yields:
        As `hold` returns it: None if the lock is ours, else the number of the process that holds it.

    Raises:
        DiskError: If the file cannot be made.
    """
    descriptor = holder = None
    with telling(path), _asking:
        key = _key(path)
        if key in _held:
            holder = None if _held[key] == "process" else os.getpid()
        else:
            descriptor, holder = _locked(path)
            key = _key(descriptor)
            if holder is None:
                _held[key] = "block"
    try:
        yield holder
    finally:
        if descriptor is not None:
            with _asking:
                if holder is None:
                    del _held[key]
                os.close(descriptor)


@contextmanager
def claimed(folder: Path) -> Iterator[bool | None]:
    """Lock a folder while the block runs, by `flock`, which threads of one process keep from each other too.

    On a network file system the lock may count on this machine only.

    Yields:
        True if it is ours, False if somebody else has it or the folder is gone, None where folders cannot be locked.
    """
    descriptor, ours = None, None
    with suppress(OSError):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except (FileNotFoundError, BlockingIOError):
            ours = False
    try:
        yield ours
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _key(file: Path | int) -> tuple[int, int, int]:
    try:
        state = os.stat(file)  # noqa: PTH116 - of a path or of an open file
    except FileNotFoundError:
        return os.getpid(), 0, 0
    return os.getpid(), state.st_dev, state.st_ino


def _locked(path: Path) -> tuple[int, int | None]:
    """Open a file and lock it, and write our number into it: the open file, and what `hold` returns."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.read(descriptor, 20)
                return descriptor, int(holder) if holder.isdigit() else 0
        if _key(descriptor) == _key(path):
            break
        os.close(descriptor)  # whoever held it removed it between our opening and our locking
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor, None
