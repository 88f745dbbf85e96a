"""The program in which HEIC files are decoded, one after another: a file that crashes the decoder ends it, and nothing else.

`predilect.atlas.heif` runs this file and talks with it over its standard input and output. It imports nothing of the package.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import pi_heif

__all__ = ["ANSWER", "CUT_SHORT", "PIXEL_BYTES", "READY", "REASON_BYTES", "REFUSED", "REQUEST", "SEEN", "TOO_LARGE", "UNKNOWN"]

REQUEST = struct.Struct(">QQ")
"""Before each file: how many pixels are wanted at most, 0 for the header only, and the length of the file that follows."""

ANSWER = struct.Struct(">B8sIIIIQ")
"""What became of it: one of the numbers below, Pillow's mode, width, height, bytes of a line, and the lengths of what follows: the
colour profile, or the reason where there is no picture; and the pixels, none where not so many were wanted."""

READY, SEEN, UNKNOWN, REFUSED, CUT_SHORT, TOO_LARGE = range(6)
"""Before the first file; a picture; no such file; one that cannot be decoded; because something is missing; or for want of memory."""

PIXEL_BYTES = {"L": 1, "I;16": 2, "LA": 2, "La": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}
"""The modes that a picture may have."""

REASON_BYTES = 1000
"""Of a reason, at most."""

_SECONDS, _SECONDS_PER_MEGAPIXEL = 5, 0.25  # of processor time; a telephone's 12 megapixels take less than one
_SPACE, _SPACE_PER_PIXEL, _SPACE_PER_BYTE = 2**31, 32, 4  # address space, of which threads alone reserve a gigabyte

# What pi-heif says that it raises for damaged files, and what its own Python code stumbles over.
_BROKEN = (EOFError, OSError, RuntimeError, SyntaxError, ValueError, LookupError, struct.error)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks; this program ends with its input
    source = sys.stdin.buffer
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries that print must not be taken for an answer
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold the photograph
    try:
        import pi_heif  # noqa: PLC0415 (whoever imports this module for its constants needs no decoder)
    except ImportError as error:
        _tell(sink, REFUSED, str(error))
        return
    # Beside the picture nothing is read that a file can be made to stumble over.
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False
    _tell(sink, READY, "")
    while head := source.read(REQUEST.size):
        max_pixels, length = REQUEST.unpack(head)
        _answer(sink, source.read(length), max_pixels)


def _answer(sink: IO[bytes], data: bytes, max_pixels: int) -> None:
    """Say what a file holds, with its pixels if there are at most so many."""
    damaged, pixels, stride = UNKNOWN, memoryview(b""), 0
    try:
        _limit(len(data), 0)
        picture = _opened(data)
        if (n_pixels := picture.size[0] * picture.size[1]) <= max_pixels:
            damaged = REFUSED
            _limit(len(data), n_pixels)
            pixels, stride = memoryview(picture.data), picture.stride
    except MemoryError:
        _tell(sink, TOO_LARGE, "")
        return
    except _BROKEN as error:
        _tell(sink, CUT_SHORT if damaged == REFUSED and isinstance(error, EOFError) else damaged, str(error))
        return
    profile = picture.info.get("icc_profile") or b""
    sink.write(ANSWER.pack(SEEN, picture.mode.encode(), *picture.size, stride, len(profile), pixels.nbytes))
    sink.write(profile)
    sink.write(pixels)
    sink.flush()


def _opened(data: bytes) -> pi_heif.HeifImage:
    """The primary image of a file, as pi-heif's own plugin for Pillow takes it."""
    import pi_heif  # noqa: PLC0415

    found = pi_heif.open_heif(data, convert_hdr_to_8bit=True, hdr_to_16bit=True, remove_stride=False)
    return found[found.primary_index]


def _tell(sink: IO[bytes], kind: int, reason: str) -> None:
    said = reason.encode(errors="replace")[:REASON_BYTES]
    sink.write(ANSWER.pack(kind, b"", 0, 0, 0, len(said), 0))
    sink.write(said)
    sink.flush()


def _limit(n_bytes: int, n_pixels: int) -> None:
    """Let the system end this process, or refuse it memory, beyond what a photograph of this size can need."""
    if sys.platform == "win32":
        return
    seconds = time.process_time() + _SECONDS + _SECONDS_PER_MEGAPIXEL * n_pixels / 1e6
    space = _SPACE + _SPACE_PER_BYTE * n_bytes + _SPACE_PER_PIXEL * n_pixels
    for kind, value in ((resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_AS, space)):
        most = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):  # not every system keeps every limit
            resource.setrlimit(kind, (value if most == resource.RLIM_INFINITY else min(value, most), most))


if __name__ == "__main__":
    _main()
