"""The bytes of a PNG: the chunks that it is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

__all__ = ["has_too_many_chunks", "is_png", "pixels_in_header"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OF_PIXELS = frozenset({b"IDAT", b"fdAT", b"fcTL"})  # the latter of animations, frame by frame
_CHUNKS, _BYTES_A_CHUNK = 10_000, 1024  # a chunk for each of some thousand rows, or larger ones
_OTHERS = 1000  # each may hold a compressed profile that unpacks to a megabyte


def is_png(data: bytes) -> bool:
    """Whether a file says that it is a PNG."""
    return data.startswith(_SIGNATURE)


def has_too_many_chunks(data: bytes) -> bool:
    """Whether a PNG holds more chunks than any encoder writes, over each of which a decoder goes however small it is.

    Args:
        data: A PNG's bytes.
    """
    return _counted(data) is None


def pixels_in_header(data: bytes) -> int | None:
    """Width times height of a PNG whose header says so beyond doubt: it is the first chunk, and the only one of its kind.

    Args:
        data: A PNG's bytes.

    Returns:
        None if there is doubt, if several chunks hold a profile, or if it has too many chunks.
    """
    kinds = _counted(data)
    if kinds is None or data[12:16] != b"IHDR":
        return None
    if kinds[b"IHDR"] > 1 or kinds[b"iCCP"] > 1:  # decoders believe the last header, and unpack every profile
        return None
    return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])


def _counted(data: bytes) -> Counter[bytes] | None:
    """How many chunks of each kind there are; None if they are too many."""
    most = max(_CHUNKS, len(data) // _BYTES_A_CHUNK)
    kinds = Counter(islice(_kinds(data), most + 1))
    n = kinds.total()
    too_many = n > most or n - sum(kinds[kind] for kind in _OF_PIXELS) > _OTHERS
    return None if too_many else kinds


def _kinds(data: bytes) -> Iterator[bytes]:
    """The kind of each chunk up to the end mark."""
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND" and position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        yield kind
        position += 12 + int.from_bytes(data[position : position + 4])
