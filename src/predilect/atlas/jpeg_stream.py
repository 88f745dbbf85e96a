"""The bytes of a JPEG: which of them are the picture, and whether the picture is all there."""

from __future__ import annotations

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["decoded", "ends_too_soon", "has_several_scans", "has_spare_bytes", "may_end_too_soon", "without_metadata"]

_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # square pixels, no thumbnail
_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_CODED = frozenset({0x00, *range(0xD0, 0xD8)})  # what follows 0xff in coded data; anything else makes a marker
_APP0, _APP14, _APP15, _COM, _SOF0, _SOF2, _JPG, _DAC = 0xE0, 0xEE, 0xEF, 0xFE, 0xC0, 0xC2, 0xC8, 0xCC
_EOI, _SOS, _DQT, _DNL, _DRI = 0xD9, 0xDA, 0xDB, 0xDC, 0xDD
_OF_THE_PICTURE = frozenset({*range(_SOF0, 0xD0), _SOS, _DQT, _DNL, _DRI} - {_JPG})
_ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {_DAC}

# More coded data than any picture lacks, and every restart mark, so that a decoder that waits for one finds it.
_MORE = b"".join(b"\x5a\xc3\x96" * 20 + bytes((0xFF, 0xD0 + k % 8)) for k in range(16))
_TAIL = 8  # bytes


def without_metadata(data: bytes) -> bytes | None:
    """The first image of a JPEG file without its metadata; its coded data is the same bit for bit.

    Kept are the segments that code the picture. Of the others, Adobe's APP14 and the presence of a JFIF segment stay: they tell a
    decoder how the colours are coded. The JFIF segment is written afresh, for it may hold a thumbnail.

    Returns:
        None if the structure is not understood or the end mark is missing.
    """
    parts, position, in_scan = [data[:2]], 2, False
    while found := _MARKER.match(data, _scan_end(data, position) if in_scan else position):
        if in_scan:
            parts.append(data[position : found.start()])
        marker = found.group(1)[0]
        if marker == _EOI:
            parts.append(_END)
            return b"".join(parts)
        start = found.end()
        length = int.from_bytes(data[start : start + 2])
        if length < 2 or start + length > len(data):
            return None
        segment = data[start : start + length]
        if marker in _OF_THE_PICTURE:
            parts.append(bytes((0xFF, marker)) + segment)
        elif marker == _APP0 and segment[2:7] == b"JFIF\x00":
            parts.append(_JFIF)
        elif marker == _APP14 and segment[2:7] == b"Adobe" and length >= 14:
            parts.append(b"\xff\xee\x00\x0e" + segment[2:14])
        elif not (_APP0 <= marker <= _APP15 or marker == _COM):
            return None
        position, in_scan = start + length, marker == _SOS
    return None


def has_several_scans(picture: bytes) -> bool:
    """Whether a JPEG is coded in several passes, as a progressive one is."""
    return picture.count(bytes((0xFF, _SOS))) > 1  # a table may hold these bytes too, which costs time only


def may_end_too_soon(samples: NDArray[np.uint8]) -> bool:
    """Whether the last sample of a picture of one scan is what a decoder puts where coded data is missing: mid-grey."""
    return bool((np.abs(samples[-1, -1].astype(int) - 128) <= 1).all())


def ends_too_soon(picture: bytes, samples: NDArray[np.uint8], step: int) -> bool:
    """Whether a JPEG that has its end mark lacks coded data, as an interrupted copy does that some tool closed.

    A decoder fills what is missing with mid-grey or with the coarse picture of earlier scans, and says nothing. So more coded data
    is put before the end mark: a decoder that had all it needed passes over it, and the picture stays as it is.

    Args:
        picture: A JPEG as `without_metadata` gives it.
        samples: What `decoded` gives for it and `step`.
        step: 1, 2, 4 or 8; in a picture of several scans the finer ones do not show at 8.

    Raises:
        OSError: If the coded data cannot be decoded.
    """
    if _segments(picture, _ARITHMETIC):  # such a coder leaves zeros at the end away, so that more data changes a whole picture too
        return False
    return not _is_refined(picture) or not np.array_equal(samples, decoded(picture[: -len(_END)] + _MORE + _END, step))


def has_spare_bytes(picture: bytes, samples: NDArray[np.uint8]) -> bool:
    """Whether a JPEG stays the same without the last bytes of its coded data, where something else may then hide.

    Args:
        picture: A JPEG as `without_metadata` gives it.
        samples: What `decoded` gives for it at 1/8 of its size, which nearly always shows the difference.
    """
    shorter = picture[: -len(_END) - _TAIL] + _END
    try:
        return np.array_equal(samples, decoded(shorter, 8)) and np.array_equal(decoded(picture, 1), decoded(shorter, 1))
    except (OSError, SyntaxError):  # there were fewer bytes than that
        return False


def decoded(picture: bytes, step: int) -> NDArray[np.uint8]:
    """The (H, W) or (H, W, C) samples of a JPEG at 1/`step` of its size (1, 2, 4 or 8), as they are coded.

    Raises:
        OSError: If it cannot be decoded.
    """
    with Image.open(io.BytesIO(picture), formats=("JPEG",)) as image:
        image.draft(None, (image.width // step, image.height // step))
        return np.asarray(image)


def _scan_end(data: bytes, start: int) -> int:
    """Where coded data that starts at `start` is followed by a marker; the end of the data if it is not."""
    at = data.find(0xFF, start)
    while 0 <= at < len(data) - 1:
        if data[at + 1] not in _CODED:
            return at
        at = data.find(0xFF, at + 2)
    return len(data)


def _segments(picture: bytes, wanted: frozenset[int]) -> list[bytes]:
    """The contents of some kinds of segments, without their length."""
    found, position, in_scan = [], 2, False
    while at := _MARKER.match(picture, _scan_end(picture, position) if in_scan else position):
        marker, start = at.group(1)[0], at.end()
        if marker == _EOI:
            break
        position, in_scan = start + int.from_bytes(picture[start : start + 2]), marker == _SOS
        if marker in wanted:
            found.append(picture[start + 2 : position])
    return found


def _is_refined(picture: bytes) -> bool:
    """Whether the scans of a progressive JPEG, taken together, give every coefficient of every component to its last bit."""
    frames = _segments(picture, frozenset({_SOF2}))
    if not frames:
        return True
    components = {frames[0][6 + 3 * k] for k in range(frames[0][5])}
    done: dict[int, set[int]] = {component: set() for component in components}
    for scan in _segments(picture, frozenset({_SOS})):
        n = scan[0]
        first, last, precision = scan[1 + 2 * n], scan[2 + 2 * n], scan[3 + 2 * n]
        if precision & 15 == 0:
            for k in range(n):
                done.get(scan[1 + 2 * k], set()).update(range(first, last + 1))
    return all(len(given) == 64 for given in done.values())
