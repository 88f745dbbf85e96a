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
import threading
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
    "holding",
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

# The locks of this process: its number (a forked one has none of them), and device and inode of the file. Opening a file that is
# locked and closing it again would give its lock back, so that the table is asked first, by one thread at a time.
_held: dict[tuple[int, int, int], str] = {}
_asking = threading.Lock()

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room and give the command again, with --resume where it takes that"),
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
    """Remove what killed processes were writing anywhere below a folder, and what they left of making it beside it.

    What a living process or another thread is writing at this moment is left alone.
    """
    for leftover in [*folder.rglob(f"{_WRITING}*")]:
        with _claimed(leftover) as claimed:
            if claimed is not False:  # where the file system locks no folders, nobody but the caller is at work here
                shutil.rmtree(leftover, ignore_errors=True)
    _remove_abandoned(folder.resolve())


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
    with _telling(path), _asking:
        key = _lock_key(path)
        if key in _held:
            return None if _held[key] == "process" else os.getpid()
        descriptor, holder = _locked(path)
        if holder is None:  # else never closed: closing would give the lock back
            _held[_lock_key(descriptor)] = "process"
        else:
            os.close(descriptor)
    return holder


@contextmanager
def holding(path: Path) -> Iterator[int | None]:
    """Lock a file while the block runs, against other processes and against other blocks in threads of this one; the file stays.

    Where this process holds the file by `hold`, it stays held when the block ends.

    Args:
        path: The lock file; made if need be.

    Yields:
        As `hold` returns it: None if the lock is ours, else the number of the process that holds it.

    Raises:
        DiskError: If the file cannot be made.
    """
    descriptor = holder = None
    with _telling(path), _asking:
        key = _lock_key(path)
        if key in _held:
            holder = None if _held[key] == "process" else os.getpid()
        else:
            descriptor, holder = _locked(path)
            key = _lock_key(descriptor)
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


def read_json(path: Path, error: type[PredilectError], remedy: str | None = None) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        error: What to raise, by the kind of the file.
        remedy: What the user can do where it is missing or damaged, for the message.

    Raises:
        PredilectError: Of the given kind, if the file is missing or is not a JSON object.
    """
    advice = "" if remedy is None else f"; {remedy}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: there is no such file{advice}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
        raise error(f"{path} cannot be read: {cause}{advice}") from cause
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, found {type(value).__name__}{advice}")
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
    try:
        return seal({key: item for key, item in value.items() if key != _SEAL}) == value
    except ValueError:  # NaN or half a character: `seal` writes no such thing
        return False


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn what the operating system says into one sentence on `path`, unless it says it of a file elsewhere."""
    try:
        yield
    except (OSError, PolarsError, SafetensorError) as error:
        if isinstance(error, OSError) and not _concerns(error.filename, path):
            raise
        # Libraries written in Rust wrap the system's answer in a message of their own, which ends in its number.
        wrapped = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else None
        if number is None and wrapped is not None:
            number = int(wrapped[1])
        if number is None and not isinstance(error, OSError):
            raise
        reason = str(error) if number is None else os.strerror(number) + _REMEDIES.get(number, "")
        raise DiskError(path, reason) from error


def _concerns(name: str | bytes | int | None, path: Path) -> bool:
    """Whether a file that an error names is `path`, leads to it, or is what is being written in its stead."""
    if name is None or isinstance(name, int):  # none, or an open file by its number
        return True
    named = Path(os.fsdecode(name)).absolute()
    named = named.parent.resolve() / named.name
    for target in (path.parent.resolve() / path.name, path.resolve()):
        if target.is_relative_to(named) or named.is_relative_to(target):
            return True
        if named.is_relative_to(target.parent) and named.relative_to(target.parent).parts[0].startswith(_WRITING):
            return True
    return False


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder beside `path` that is gone in the end, with whatever a library has put there on its own account."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_WRITING, dir=path.parent))
        with _claimed(folder) as claimed:
            # Somebody who tidies up may have taken it for a leftover before it was locked: then another one.
            if claimed is False or not folder.exists():
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _claimed(folder: Path) -> Iterator[bool | None]:
    """Lock a folder while the block runs: False if somebody else has it or it is gone, None where folders cannot be locked."""
    descriptor, claimed = None, None
    with suppress(OSError):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claimed = True
        except (FileNotFoundError, BlockingIOError):
            claimed = False
    try:
        yield claimed
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_key(file: Path | int) -> tuple[int, int, int]:
    try:
        state = os.stat(file)  # noqa: PTH116 - of a path or of an open file
    except FileNotFoundError:
        return os.getpid(), 0, 0
    return os.getpid(), state.st_dev, state.st_ino


def _locked(path: Path) -> tuple[int, int | None]:
    """Open a file and lock it, and write our number into it: the open file, and what `hold` returns."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = os.read(descriptor, 20)
            return descriptor, int(holder) if holder.isdigit() else 0
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor, None


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of their writing of the folder `path`, but for an old one that is the only one."""
    old = _aside(path)
    for leftover in path.parent.glob(f"{_WRITING}*"):
        with suppress(OSError), _claimed(leftover) as claimed:  # OSError: none of ours to look into
            if not claimed:
                continue
            names = {item.name for item in leftover.iterdir()}
            # An empty one is what is left when a kill came after the renaming.
            if not names or (names & {path.name, old.name} and (path.exists() or old.name not in names)):
                shutil.rmtree(leftover)


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
