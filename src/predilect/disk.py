"""What the system says of a file or folder that cannot be written, as one sentence for the person at the terminal."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import PolarsError
from safetensors import SafetensorError

from predilect.errors import DiskError

__all__ = ["WRITING", "telling"]

WRITING = ".writing-"
"""How the names begin of the folders that hold what is being written (see `predilect.files`)."""

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room and give the command again, with --resume where it takes that"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "; choose a place that may be written to"),
}


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Tell what goes wrong with writing `path` in the block, and what helps, in one sentence on `path`.

    An error that the system gives of another file is left as it is.

    Raises:
        DiskError: In place of what the operating system, or a library that writes, has raised.
    """
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
        blocking = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocking is not None:
            reason = f"{blocking} is not a folder"
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
        if named.is_relative_to(target.parent) and named.relative_to(target.parent).parts[0].startswith(WRITING):
            return True
    return False
