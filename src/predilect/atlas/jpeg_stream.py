"""The bytes of a JPEG: which of them are the picture, and whether the picture is all there."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "count_scans",
    "decoded",
    "ends_too_soon",
    "has_several_scans",
    "has_spare_bytes",
    "holds_more_than_the_picture",
    "may_end_too_soon",
    "pixels_gone_over",
    "without_metadata",
]

_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # square pixels, no thumbnail
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # and how the colours are coded, a byte
_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_BEHIND_CODED = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # in coded data 0xff is followed by 0 or is a restart mark
_MAX_SEGMENTS = 4096  # some ten for each of the most passes that are read, and as many for metadata
_APP0, _APP14, _APP15, _COM, _SOF0, _SOF2, _JPG, _DAC = 0xE0, 0xEE, 0xEF, 0xFE, 0xC0, 0xC2, 0xC8, 0xCC
_DHT, _EOI, _SOS, _DQT, _DNL, _DRI = 0xC4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD
_JFIF_LENGTH, _ADOBE_LENGTH = 16, 14  # with the length itself; shorter ones decoders pass over
_OF_THE_PICTURE = frozenset({*range(_SOF0, 0xD0), _SOS, _DQT, _DNL, _DRI} - {_JPG})
_ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {_DAC}
_FRAMES = frozenset(range(_SOF0, 0xD0)) - {_DHT, _JPG, _DAC}
_ODD = frozenset({_DNL, _DAC}) | _ARITHMETIC
_USUAL_FRAMES, _FRAME_BYTES, _FIRST_SEGMENTS = frozenset({_SOF0, _SOF0 + 1, _SOF2}), 6, 256
_USUAL = _USUAL_FRAMES | {_DHT, _SOS, _DQT, _DRI, *range(_APP0, _APP15 + 1), _COM}  # each with its length behind it
_TEXT = re.compile(rb"[ -~]{20}")  # by chance in one of some ten thousand pictures

# More coded data than any picture lacks, and every restart mark, so that a decoder that waits for one finds it.
_MORE = b"".join(b"\x5a\xc3\x96" * 20 + bytes((0xFF, 0xD0 + k % 8)) for k in range(16))
_TAIL = 8  # bytes


def without_metadata(data: bytes) -> bytes | None:
    """The first image of a JPEG file without its metadata; its coded data is the same bit for bit.

    Kept are the segments that code the picture. Of the others, the colours of Adobe's APP14 and the presence of a JFIF segment
    stay: they tell a decoder how the colours are coded. Both are written afresh, for there is room for a thumbnail and more in
    them.

    Returns:
        None if the structure is not understood, the end mark is missing or there are thousands of segments.
    """
    parts, position, in_scan = [data[:2]], 2, False
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.match(data, _scan_end(data, position) if in_scan else position)
        if found is None:
            return None
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
        elif marker == _APP0 and segment[2:7] == b"JFIF\x00" and length >= _JFIF_LENGTH:
            parts.append(_JFIF)
        elif marker == _APP14 and segment[2:7] == b"Adobe" and length >= _ADOBE_LENGTH:
            parts.append(_ADOBE + segment[13:14])
        elif not (_APP0 <= marker <= _APP15 or marker == _COM):
            return None
        position, in_scan = start + length, marker == _SOS
    return None


def holds_more_than_the_picture(picture: bytes) -> bool:
    """Whether something lies in the segments or the coded data of a JPEG that no decoder needs, as far as it can be told quickly.

    Looked for are tables that are replaced before a scan uses them or that none uses, the number of lines behind the frame (DNL),
    arithmetic coding with its own tables, and text of 20 or more printable ASCII characters in coded data. Decoders check the
    length of all other segments.

    Args:
        picture: A JPEG as `without_metadata` gives it.
    """
    quantised: dict[int, int] = {}  # the table of each component, until a scan has taken it
    waiting: set[tuple[int, int]] = set()  # tables (marker, number) that no scan has used yet
    for marker, content, coded in _walk(picture):
        if marker in _ODD or _TEXT.search(coded):
            return True
        if marker in _FRAMES:
            quantised = dict(zip(content[6::3], content[8::3], strict=False))
        made = [(marker, number) for number in _tables(marker, content)]
        if waiting.intersection(made) or len(set(made)) < len(made):
            return True
        waiting.update(made)
        if marker == _SOS:
            n = content[0]
            for component, tables in zip(content[1 : 2 * n + 1 : 2], content[2 : 2 * n + 1 : 2], strict=True):
                waiting -= _used(tables, first=content[2 * n + 1], last=content[2 * n + 2], refines=content[2 * n + 3] >> 4 > 0)
                waiting.discard((_DQT, quantised.pop(component, -1)))
            waiting.discard((_DRI, 0))
    return bool(waiting)


def count_scans(picture: bytes) -> int:
    """In how many passes a JPEG is coded, or some more: a table may hold the bytes that are counted, too."""
    return picture.count(bytes((0xFF, _SOS)))


def pixels_gone_over(data: bytes) -> int | None:
    """How many pixels a decoder goes over for the first image of a JPEG file, in all its passes together, or some more.

    Read are the headers of the first segments alone, so that it costs little whatever the file is.

    Returns:
        None if the file is none, or is of a rare kind.
    """
    position, kind, frame = 2, 0, b""
    for _ in range(_FIRST_SEGMENTS):
        if data[position : position + 1] != b"\xff" or len(data) < position + 4:
            return None
        marker, start = data[position + 1], position + 2
        if marker not in _USUAL:  # decoders may go on elsewhere than behind its length, and find another frame there
            return None
        position = start + max(2, int.from_bytes(data[start : start + 2]))
        if marker in _USUAL_FRAMES:
            kind, frame = marker, data[start + 2 : position]
        elif marker == _SOS:
            if len(frame) < _FRAME_BYTES:
                return None
            n_pixels = int.from_bytes(frame[1:3]) * int.from_bytes(frame[3:5])
            # Where the first scan holds all components and the JPEG is not progressive, a decoder stops behind it.
            at_once = kind != _SOF2 and data[start + 2 : start + 3] == frame[5:6]
            return n_pixels * (1 if at_once else count_scans(data))
    return None


def has_several_scans(picture: bytes) -> bool:
    """Whether a JPEG is coded in several passes, as a progressive one is; where it is wrong it costs time only."""
    return count_scans(picture) > 1


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
    found = _BEHIND_CODED.search(data, start)
    return len(data) if found is None else found.start()


def _walk(picture: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The marker and the content of each segment, without its length, and the coded data behind it."""
    position = 2
    while (at := _MARKER.match(picture, position)) and (marker := at.group(1)[0]) != _EOI:
        start = at.end()
        end = start + int.from_bytes(picture[start : start + 2])
        position = _scan_end(picture, end) if marker == _SOS else end
        yield marker, picture[start + 2 : end], picture[end:position]


def _segments(picture: bytes, wanted: frozenset[int]) -> list[bytes]:
    """The contents of some kinds of segments, without their length."""
    return [content for marker, content, _ in _walk(picture) if marker in wanted]


def _tables(marker: int, content: bytes) -> Iterator[int]:
    """The numbers of the tables that a segment defines: 0 to 3, for Huffman tables of AC coefficients 16 to 19."""
    if marker == _DRI:
        yield 0
    at = 0
    while marker in {_DQT, _DHT} and at < len(content):
        if marker == _DQT:
            yield content[at] & 15
            at += 129 if content[at] >> 4 else 65
        else:
            yield content[at]
            at += 17 + sum(content[at + 1 : at + 17])


def _used(tables: int, *, first: int, last: int, refines: bool) -> set[tuple[int, int]]:
    """The Huffman tables that a scan of the coefficients `first` to `last` uses for a component."""
    direct = {(_DHT, tables >> 4)} if first == 0 and not refines else set()  # refining DC is done with plain bits
    return direct | ({(_DHT, 16 | tables & 15)} if last > 0 else set())


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
