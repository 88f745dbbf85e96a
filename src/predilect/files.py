"""Writing files and folders so that a reader finds either the old one whole or the new one whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predilect.errors import PredilectError

__all__ = ["checksum", "read_json", "replacing", "replacing_folder", "write_json", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it takes the place of `path`, else it is removed.

    Args:
        path: The file to write; its folder is made if need be.

    Yields:
        A path in the same folder with the same ending, for the block to write.

    Raises:
        PredilectError: If the folder cannot be written to or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise PredilectError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; when the block ends well it takes the place of `path`, else it is removed.

    No folder with something in it can be replaced in one step, so the old one is first renamed. A kill between the two renames
    leaves no `path`, but beside it the old folder whole as ``.<name>-<random>-old`` and the new one whole as ``.<name>-<random>``;
    a later kill leaves the new folder in place and remains of the old one. An error between them puts the old folder back.

    Args:
        path: The folder to make.
        replace: Whether an existing folder may be replaced; otherwise only an absent or empty one.

    Yields:
        An empty folder for the block to fill.

    Raises:
        PredilectError: If `path` exists and may not be replaced, cannot be written to, or the disk is full.
    """
    if path.exists() and not (path.is_dir() and (replace or not any(path.iterdir()))):
        raise PredilectError(f"{path} already exists; choose another folder or remove it")
    target = path.resolve()  # a link stays, and what it leads to is replaced
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        _put(temporary, target)
    except OSError as error:
        raise PredilectError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _put(new: Path, path: Path) -> None:
    """Rename a folder to `path`, and remove the one that stood there."""
    if not path.exists():
        new.replace(path)
        return
    old = new.with_name(f"{new.name}-old")
    path.replace(old)
    try:
        new.replace(path)
    finally:
        if not path.exists():
            old.replace(path)
    shutil.rmtree(old)


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


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
