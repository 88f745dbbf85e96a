"""A HEIC file made by code, so that reading one can be tested without an encoder: HEVC whose blocks are plain samples (PCM).

By ITU-T H.265 (syntax 7.3, arithmetic coding 9.3.4) and ISO/IEC 23008-12 (the boxes).
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

BLOCK = 16

# Least probable ranges of the states that the one coded flag runs through, for ranges of 448 and more (table 9-52, last column).
_LEAST = [240, 227, 216, 205, 195, 185, 175, 166, 158, 150, 142, 135, 128, 122, 116, 110, 104, 99, 94, 89]


class Bits:
    def __init__(self) -> None:
        self.bits: list[int] = []

    def fixed(self, value: int, n: int) -> None:
        self.bits += [value >> (n - 1 - k) & 1 for k in range(n)]

    def flags(self, *values: int) -> None:
        self.bits += values

    def golomb(self, *values: int) -> None:
        for value in values:
            length = (value + 1).bit_length()
            self.fixed(value + 1, 2 * length - 1)

    def align(self) -> None:
        self.bits += [0] * (-len(self.bits) % 8)

    def close(self) -> bytes:
        self.flags(1)
        self.align()
        return self.data()

    def data(self) -> bytes:
        return np.packbits(self.bits).tobytes()


class Arithmetic:
    """The arithmetic encoder, between two blocks of plain samples."""

    def __init__(self, out: Bits) -> None:
        self.out, self.low, self.range, self.first, self.outstanding = out, 0, 510, True, 0

    def likely(self, state: int) -> None:
        self.range -= _LEAST[min(state, len(_LEAST) - 1)]
        self._renormalise()

    def terminate(self, value: int) -> None:
        self.range -= 2
        if value:
            self.low += self.range
            self.range = 2
            self._renormalise()
            self._put(self.low >> 9 & 1)
            self.out.fixed((self.low >> 7 & 3) | 1, 2)
        else:
            self._renormalise()

    def _renormalise(self) -> None:
        while self.range < 256:
            if self.low < 256:
                self._put(0)
            elif self.low >= 512:
                self.low -= 512
                self._put(1)
            else:
                self.low -= 256
                self.outstanding += 1
            self.range, self.low = self.range << 1, self.low << 1

    def _put(self, bit: int) -> None:
        if self.first:
            self.first = False
        else:
            self.out.flags(bit)
        self.out.flags(*[1 - bit] * self.outstanding)
        self.outstanding = 0


def _profile(bits: Bits) -> None:
    bits.fixed(0b000_00001, 8)
    bits.fixed(0x6000_0000, 32)
    bits.fixed(0b1001, 4)
    bits.fixed(0, 44)
    bits.fixed(93, 8)


def _unit(kind: int, payload: bytes) -> bytes:
    guarded, zeros = bytearray(), 0
    for byte in payload:
        if zeros == 2 and byte <= 3:
            guarded.append(3)
            zeros = 0
        guarded.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes((kind << 1, 1)) + bytes(guarded)


def _parameters(width: int, height: int) -> list[tuple[int, bytes]]:
    video, sequence, picture = Bits(), Bits(), Bits()
    video.fixed(0b0000_11_000000_000_1, 16)
    video.fixed(0xFFFF, 16)
    _profile(video)
    video.flags(1)
    video.golomb(0, 0, 0)
    video.fixed(0, 6)
    video.golomb(0)
    video.flags(0, 0)
    sequence.fixed(0b0000_000_1, 8)
    _profile(sequence)
    sequence.golomb(0, 1, width, height)
    sequence.flags(0)
    sequence.golomb(0, 0, 0)
    sequence.flags(1)
    sequence.golomb(0, 0, 0, 1, 0, 0, 2, 0, 0)
    sequence.flags(0, 0, 0, 1)
    sequence.fixed(0x77, 8)
    sequence.golomb(1, 0)
    sequence.flags(1)
    sequence.golomb(0)
    sequence.flags(0, 0, 0, 0, 0)
    picture.golomb(0, 0)
    picture.flags(0, 0, 0, 0, 0, 0, 0)
    picture.golomb(0, 0, 0)
    picture.flags(0, 0, 0)
    picture.golomb(0, 0)
    picture.flags(0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0)
    picture.golomb(0)
    picture.flags(0, 0)
    return [(kind, _unit(kind, bits.close())) for kind, bits in ((32, video), (33, sequence), (34, picture))]


def _slice(planes: list[np.ndarray]) -> bytes:
    bits = Bits()
    bits.flags(1, 0)
    bits.golomb(0, 2, 0)
    bits.flags(1)
    bits.align()
    rows, columns = planes[0].shape[0] // BLOCK, planes[0].shape[1] // BLOCK
    coder = Arithmetic(bits)
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        coder.likely(number)  # one block, not divided
        coder.terminate(1)  # plain samples follow
        bits.align()
        for plane in planes:
            side = plane.shape[0] // rows
            block = plane[row * side : (row + 1) * side, column * side : (column + 1) * side]
            bits.bits += np.unpackbits(block.astype(np.uint8).ravel()).tolist()
        coder = Arithmetic(bits)
        coder.terminate(int(number == rows * columns - 1))
    bits.align()
    return _unit(19, bits.data())


def _box(kind: bytes, payload: bytes, version: int | None = None, flags: int = 0) -> bytes:
    head = b"" if version is None else bytes((version,)) + flags.to_bytes(3)
    return (8 + len(head) + len(payload)).to_bytes(4) + kind + head + payload


def heic(image: Image.Image, *, quarter_turns: int = 0, exif: bytes = b"", profile: bytes = b"") -> bytes:
    """An RGB image, its sides multiples of 16, as HEIC; to be turned anticlockwise by so many quarters when it is shown."""
    luma, *chroma = (np.asarray(band) for band in image.convert("YCbCr").split())
    halved = [np.asarray(Image.fromarray(band).reduce(2)) for band in chroma]
    units = _parameters(*image.size)
    arrays = b"".join(bytes((0x80 | kind, 0, 1)) + len(unit).to_bytes(2) + unit for kind, unit in units)
    config = struct.pack(">BBLHLBHBBBBHBB", 1, 1, 0x6000_0000, 0x9000, 0, 93, 0xF000, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0x0F, 3) + arrays
    coded = _slice([luma, *halved])
    items = [(b"hvc1", len(coded).to_bytes(4) + coded)]
    if exif:
        items.append((b"Exif", (0).to_bytes(4) + exif))
    properties = [_box(b"hvcC", config), _box(b"ispe", struct.pack(">LL", *image.size), 0)]
    colours = struct.pack(">4sHHHB", b"nclx", 1, 13, 6, 0x80)  # full range, as in JPEG
    properties.append(_box(b"colr", colours))
    if profile:
        properties.append(_box(b"colr", b"prof" + profile))
    if quarter_turns:
        properties.append(_box(b"irot", bytes((quarter_turns,))))
    listed = bytes((*range(0x81, 0x81 + 2), *range(3, len(properties) + 1)))
    entries = b"".join(_box(b"infe", struct.pack(">HH4sx", k + 1, 0, kind), 2, k) for k, (kind, _) in enumerate(items))
    parts = [
        _box(b"hdlr", struct.pack(">L4s12xx", 0, b"pict"), 0),
        _box(b"pitm", struct.pack(">H", 1), 0),
        _box(b"iinf", struct.pack(">H", len(items)) + entries, 0),
        _box(b"iprp", _box(b"ipco", b"".join(properties)) + _box(b"ipma", struct.pack(">LHB", 1, 1, len(listed)) + listed, 0)),
    ]
    if exif:
        parts.append(_box(b"iref", _box(b"cdsc", struct.pack(">HHH", 2, 1, 1)), 0))
    kind = _box(b"ftyp", b"heic\x00\x00\x00\x00mif1heic")
    length = sum(map(len, parts)) + 12 + (12 + 4 + 14 * len(items)) + 4
    at = len(kind) + length + 4
    table = struct.pack(">BBH", 0x44, 0, len(items))
    for number, (_, content) in enumerate(items):
        table += struct.pack(">HHHLL", number + 1, 0, 1, at, len(content))
        at += len(content)
    meta = _box(b"meta", b"".join(parts) + _box(b"iloc", table, 0), 0)
    assert len(meta) + 8 == length + 4
    return kind + meta + _box(b"mdat", b"".join(content for _, content in items))
