"""Writing files and folders so that a reader finds either the old one whole or the new one whole, whatever happens meanwhile.

What is being written lies in a folder ``.writing-<random>`` beside its place, whose name no reader looks for. A process that was
killed leaves it behind; whoever writes beside it next removes it, unless it may hold the only whole copy of a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from predilect.disk import WRITING, telling
from predilect.errors import DiskError, PredilectError
from predilect.exchange import aside, exchange, is_mounted
from predilect.locks import claimed

__all__ = [
    "check_place",
    "checksum",
    "is_sealed",
    "read_json",
    "remove_leftovers",
    "replacing",
    "replacing_folder",
    "seal",
    "share_files",
    "try_file",
    "write_json",
    "write_text",
]

_SEAL = "sha256"
_TRIED = 4096  # bytes; a file system gives no less
_SYNCED_AT_ONCE = 16  # a disk answers as many such requests together as fast as one


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; when the block ends well the file there takes the place of `path`, else it is removed.

    Args:
        path: The file to write; its folder is made if need be. Whoever could read it before can do so after.

    Yields:
        A path of the same name on the same disk, for the block to write.

    Raises:
        DiskError: If the folder cannot be written to or the disk is full.
    """
    with telling(path), _beside(path) as folder:
        temporary = folder / path.name
        mode = _mode_of(path, folder)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode)  # some libraries make files that only their owner may read
        temporary.replace(path)


@contextmanager
def replacing_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder; when the block ends well it takes the place of `path`, else it is removed.

    All that the block has written, however it was written, is on the disk before the folder takes its place. On Linux an old folder
    and the new one are exchanged in one step, so that `path` is one of them at every moment. Elsewhere the old one is renamed
    first: a kill between the two renames leaves no `path`, but both folders in ``.writing-<random>`` beside it.

    Args:
        path: The folder to make.
        replace: Whether an existing folder may be replaced; otherwise only an absent or empty one.

    Yields:
        An empty folder for the block to fill.

    Raises:
        PredilectError: If `path` exists and may not be replaced, or cannot be (see `check_place`).
        DiskError: If it cannot be written, or the disk is full.
    """
    if path.exists() and not (path.is_dir() and (replace or not any(path.iterdir()))):
        raise PredilectError(f"{path} already exists; choose another folder or remove it")
    check_place(path)
    target = path.resolve()  # a link stays, and what it leads to is replaced
    with telling(path), _beside(target) as folder:
        temporary = folder / target.name
        temporary.mkdir()
        try:
            yield temporary
        except DiskError as error:
            if not error.path.is_relative_to(temporary):
                raise
            # The user knows the file by the place that it would have had.
            raise DiskError(path / error.path.relative_to(temporary), error.reason) from error
        _sync(temporary)
        if replace and target.exists():
            exchange(temporary, target)
        else:
            temporary.replace(target)  # fails if somebody has filled it meanwhile


def check_place(path: Path) -> None:
    """Refuse, before any work, a place where the system would let no folder be replaced, or only to somebody's harm.

    Raises:
        PredilectError: If this process runs in the folder, which would be taken from under it and the terminal that started it, or
            if a disk is mounted there.
    """
    target = path.resolve()
    if Path.cwd().is_relative_to(target):
        raise PredilectError(
            f"{path} cannot be replaced while the command runs in it; give the command from another folder, or choose another place"
        )
    if is_mounted(target):
        raise PredilectError(f"{path} cannot be replaced, since a disk is mounted there; choose a folder inside it")


def try_file(path: Path) -> None:
    """Try, before any long work, whether a file can be written; one that is there is replaced by a copy of itself.

    Folders that are made for that are removed again.

    Raises:
        DiskError: If it cannot, because its folder may only be read, the disk is full, or the file may not be replaced.
    """
    if path.exists():
        with replacing(path) as temporary:
            shutil.copy2(path, temporary)
        return
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with telling(path), _beside(path) as folder:
            (folder / path.name).write_bytes(bytes(_TRIED))
    finally:
        for made in missing:  # the innermost first
            with suppress(OSError):  # it could not be made, or somebody has put something there meanwhile
                made.rmdir()


def share_files(folder: Path, other: Path, *, but: Collection[str] = ()) -> None:
    """Put what lies in a folder into another one too, where the file system can without copying it; links stay links.

    Whoever changes one of these files afterwards must replace it, since the other folder may hold the very same.

    Args:
        folder: From here all is taken but what is being written there, or was when a process was killed.
        other: A folder; whoever may read `folder` may read it, and nobody else.
        but: Names in `folder` that are left out.

    Raises:
        OSError: If a file cannot be copied.
    """
    for item in folder.iterdir():
        if item.name in but or item.name.startswith(WRITING):
            continue
        target = other / item.name
        if item.is_dir() and not item.is_symlink():
            target.mkdir()
            share_files(item, target)
            continue
        try:
            os.link(item, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(item, target, follow_symlinks=False)
    shutil.copymode(folder, other)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing anywhere below a folder, and what they left of making it beside it.

    What a living process or another thread is writing at this moment is left alone.
    """
    for leftover in [*folder.rglob(f"{WRITING}*")]:
        with claimed(leftover) as ours:
            if ours is not False:  # where the file system locks no folders, nobody but the caller is at work here
                shutil.rmtree(leftover, ignore_errors=True)
    _remove_abandoned(folder.resolve())


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
    except json.JSONDecodeError as cause:
        raise error(f"{path} cannot be read: it is no whole JSON (line {cause.lineno}, column {cause.colno}){advice}") from cause
    except (OSError, ValueError) as cause:  # no text, or a number of thousands of digits
        raise error(f"{path} cannot be read: {cause}{advice}") from cause
    except RecursionError:
        raise error(f"{path} cannot be read: its lists and objects lie too deep in each other{advice}") from None
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
    except (ValueError, RecursionError):  # NaN, half a character, or lists too deep in lists: `seal` writes no such thing
        return False


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder beside `path` that is gone in the end, with whatever a library has put there on its own account."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=WRITING, dir=path.parent))
        with claimed(folder) as ours:
            # Somebody who tidies up may have taken it for a leftover before it was locked: then another one.
            if ours is False or not folder.exists():
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes have left beside `path` of writing files, and of writing it if it is a folder.

    A folder that was to be replaced may lie in what is left as the only whole one: it stays, and so do those of other names.
    """
    old = aside(path)
    for leftover in path.parent.glob(f"{WRITING}*"):
        with suppress(OSError), claimed(leftover) as ours:  # OSError: none of ours to look into
            if not ours:
                continue
            folders = {item.name for item in leftover.iterdir() if item.is_dir()}
            if not folders or (folders & {path.name, old.name} and (path.exists() or old.name not in folders)):
                shutil.rmtree(leftover)


def _sync(folder: Path) -> None:
    """Bring a folder and all that lies in it to the disk, so that after a power cut its new name cannot stand for half of it."""
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        for _ in pool.map(_sync_one, (folder, *folder.rglob("*"))):
            pass


def _sync_one(item: Path) -> None:
    if item.is_symlink() or not (item.is_file() or item.is_dir()):
        return
    descriptor = os.open(item, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if item.is_file():  # not every file system can do so with a folder
            raise
    finally:
        os.close(descriptor)


def _mode_of(path: Path, folder: Path) -> int:
    """Who may read and write a file: as it is, or, of a new one, as the system says of another in a temporary folder.

    Asking for the umask would change it, for all threads.
    """
    if not path.is_file():
        path = folder / ".mode"
        path.touch(0o666)
    return stat.S_IMODE(path.stat().st_mode)
