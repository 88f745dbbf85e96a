"""Writing files and folders so that a reader finds either the old one whole or the new one whole, whatever happens meanwhile.

What is being written lies in a folder ``.writing-<random>`` beside its place, whose name no reader looks for. A process that was
killed leaves it behind; it is removed when the same folder is written again, or the run that it lies in is resumed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from polars.exceptions import PolarsError
from safetensors import SafetensorError

from predilect.errors import DiskError, PredilectError

__all__ = [
    "checksum",
    "hold",
    "is_sealed",
    "read_json",
    "remove_leftovers",
    "replacing",
    "replacing_folder",
    "seal",
    "write_json",
    "write_text",
]

_WRITING = ".writing-"
_SEAL = "sha256"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room and start the command again, nothing is left half-written"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "; choose a place that may be written to"),
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; when the block ends well the file there takes the place of `path`, else it is removed.

    Args:
        path: The file to write; its folder is made if need be.

    Yields:
        A path of the same name on the same disk, for the block to write.

    Raises:
        DiskError: If the folder cannot be written to or the disk is full.
    """
    with _telling(path), _beside(path) as folder:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # some libraries make files that only their owner may read
        temporary.replace(path)


@contextmanager
def replacing_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder; when the block ends well it takes the place of `path`, else it is removed.

    On Linux an old folder and the new one are exchanged in one step, so that `path` is one of them at every moment. Elsewhere the
    old one is renamed first: a kill between the two renames leaves no `path`, but both folders in ``.writing-<random>`` beside it.

    Args:
        path: The folder to make.
        replace: Whether an existing folder may be replaced; otherwise only an absent or empty one.

    Yields:
        An empty folder for the block to fill.

    Raises:
        PredilectError: If `path` exists and may not be replaced.
        DiskError: If it cannot be written, or the disk is full.
    """
    if path.exists() and not (path.is_dir() and (replace or not any(path.iterdir()))):
        raise PredilectError(f"{path} already exists; choose another folder or remove it")
    target = path.resolve()  # a link stays, and what it leads to is replaced
    with _telling(path), _beside(target) as folder:
        _remove_abandoned(target)
        temporary = folder / target.name
        temporary.mkdir()
        try:
            yield temporary
        except DiskError as error:
            if not error.path.is_relative_to(temporary):
                raise
            # The user knows the file by the place that it would have had.
            raise DiskError(path / error.path.relative_to(temporary), error.reason) from error
        if replace and target.exists():
            _exchange(temporary, target)
        else:
            temporary.replace(target)  # fails if somebody has filled it meanwhile


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing anywhere below a folder in which no process is at work."""
    for leftover in [*folder.rglob(f"{_WRITING}*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def hold(path: Path) -> int | None:
    """Lock a file for this process until it ends, however it ends; the file stays.

    The lock is a POSIX one, which the processes that this one starts do not inherit: a loader that outlives its killed parent
    for a moment holds nothing. A file system that knows no locks gives none.

    Args:
        path: The lock file; made if need be.

    Returns:
        None if the lock is ours, else the number of the process that holds it (0 if it has not said).

    Raises:
        DiskError: If the file cannot be made.
    """
    with _telling(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.read(descriptor, 20)
                os.close(descriptor)
                return int(holder) if holder.isdigit() else 0
        # Never closed: closing would give the lock back.
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; NaN is refused, since an undefined number is null in every file of ours.

    Raises:
        ValueError: If a number is not finite.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, error: type[PredilectError]) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        error: What to raise, by the kind of the file.

    Raises:
        PredilectError: Of the given kind, if the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
        raise error(f"{path} cannot be read: {cause}") from cause
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its own content, so that an edit is noticed; layout and order of keys may change.

    Returns:
        The object with one more key ``sha256``: of the rest as JSON with sorted keys, without blanks, not escaped, in UTF-8.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return {**value, _SEAL: hashlib.sha256(text.encode()).hexdigest()}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object carries the checksum of its content, as `seal` gave it."""
    return seal({key: item for key, item in value.items() if key != _SEAL}) == value


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn what the operating system says into one sentence on `path`."""
    try:
        yield
    except (OSError, PolarsError, SafetensorError) as error:
        # Libraries written in Rust wrap the system's answer in a message of their own, which ends in its number.
        wrapped = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else None
        if number is None and wrapped is not None:
            number = int(wrapped[1])
        if number is None and not isinstance(error, OSError):
            raise
        reason = str(error) if number is None else os.strerror(number) + _REMEDIES.get(number, "")
        raise DiskError(path, reason) from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder beside `path` that is gone in the end, with whatever a library has put there on its own account."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_WRITING, dir=path.parent))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system locks folders
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of their writing of the folder `path`, but for an old one that is the only one."""
    old = _aside(path)
    for folder in path.parent.glob(f"{_WRITING}*"):
        with suppress(OSError):  # of a process that lives, or none of ours to remove
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                names = {item.name for item in folder.iterdir()}
                if names & {path.name, old.name} and (path.exists() or old.name not in names):
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def _exchange(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of the folder `path`, and that one in the place of `new`."""
    if sys.platform == "linux" and _exchanged_at_once(new, path):
        return
    old = _aside(new)
    path.replace(old)
    try:
        new.replace(path)
    finally:
        if not path.exists():
            old.replace(path)


def _exchanged_at_once(new: Path, path: Path) -> bool:
    """Whether the file system could exchange two names in one step (renameat2 of Linux, which Python does not offer)."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        return False
    if renameat2(here, os.fsencode(new), here, os.fsencode(path), ctypes.c_uint(exchange)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
