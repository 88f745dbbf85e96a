"""A folder in the place of another: in one step where the system can, and where it would let it."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from pathlib import Path

__all__ = ["aside", "exchange", "is_mounted"]


def is_mounted(folder: Path) -> bool:
    """Whether a file system is mounted at a folder, or another folder of the same one, which `Path.is_mount` does not see."""
    if folder.is_mount():
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return False
    name = re.sub(rb"[ \t\n\\]", lambda sign: b"\\%03o" % ord(sign[0]), os.fsencode(folder))
    return any(mount.split(b" ")[4] == name for mount in mounts)


def exchange(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of the folder `path`, and that one in the place of `new`."""
    if sys.platform == "linux" and _exchanged_at_once(new, path):
        return
    old = aside(new)
    path.replace(old)
    try:
        new.replace(path)
    finally:
        if not path.exists():
            old.replace(path)


def _exchanged_at_once(new: Path, path: Path) -> bool:
    """Whether the file system could exchange two names in one step (renameat2 of Linux, which Python does not offer)."""
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        return False
    if renameat2(here, os.fsencode(new), here, os.fsencode(path), ctypes.c_uint(both)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


def aside(path: Path) -> Path:
    """Where a folder lies while another takes its place, if the system cannot do so in one step."""
    return path.with_name(f"{path.name}.old")
