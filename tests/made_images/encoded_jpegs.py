"""JPEG files that are encoded anew."""

from __future__ import annotations

import re

from PIL import Image

from made_images.making import (
    CUT,
    MARK,
    SIZE,
    UPRIGHT,
    Made,
    after_start,
    array,
    case,
    jpeg,
    oriented,
    picture,
    plain_case,
    scan_starts,
    segment,
    swapped,
)

for number in range(2, 9):

    def _turned(value: int = number) -> Made:
        return Made(jpeg(exif=oriented(value)), pixels=UPRIGHT[value](array(picture())))

    plain_case(f"jpeg-orientation-{number}", _turned)


@case("jpeg-grey")
def _() -> Made:
    return Made(jpeg(picture().convert("L"), comment=MARK), pixels=array(picture().convert("L")))


@case("jpeg-grey-with-profile-of-colours")
def _() -> Made:
    return Made(jpeg(picture().convert("L"), icc_profile=swapped()), pixels=array(picture().convert("L")))


@case("jpeg-cmyk")
def _() -> Made:
    return Made(jpeg(picture().convert("CMYK"), comment=MARK), pixels=array(picture()))


@case("jpeg-ycck")
def _() -> Made:
    ink = picture().convert("CMYK").split()
    coded = Image.merge("RGB", ink[:3]).convert("YCbCr").split()
    data = jpeg(Image.merge("CMYK", [*(band.point(lambda v: 255 - v) for band in coded), ink[3]]))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return Made(data[:at] + b"\x02" + data[at + 1 :], pixels=array(picture()))


@case("jpeg-profile-that-swaps-colours")
def _() -> Made:
    return Made(jpeg(icc_profile=swapped()), pixels=array(picture())[:, :, ::-1], tolerance=12)


@case("jpeg-bytes-between-segments")
def _() -> Made:
    data = jpeg()
    at = data.index(b"\xff\xdb")
    return Made(data[:at] + MARK + data[at:], pixels=array(picture()))


@case("jpeg-segment-of-an-extension")
def _() -> Made:
    return Made(after_start(jpeg(), segment(0xF5, MARK)), said="cannot be decoded")


@case("jpeg-bytes-behind-the-coded-data")
def _() -> Made:
    return Made(jpeg()[:-2] + MARK + b"\xff\xd9", pixels=array(picture()))


@case("jpeg-bytes-behind-the-coded-data-progressive")
def _() -> Made:
    return Made(jpeg(progressive=True)[:-2] + MARK + b"\xff\xd9", pixels=array(picture()))


def _before_scan(data: bytes, *segments: bytes, scan: int = 0) -> bytes:
    at = scan_starts(data)[scan]
    return data[:at] + b"".join(segments) + data[at:]


def _scan_stop(data: bytes, scan: int) -> int:
    """Where the coded data of a scan ends."""
    return re.compile(rb"\xff[^\x00\xd0-\xd7]").search(data, scan_starts(data)[scan] + 2).start()


_QUANTISED, _CODES = 0xDB, 0xC4
_VALUES = MARK + bytes(range(1, 65 - len(MARK)))  # of a table of quantisation, as text
_LENGTHS = bytes((0, 0, 0, 0, 0, len(MARK), *[0] * 10))  # of a table of Huffman codes with as many codes of six bits


for label, between in {
    "unused-quantisation": segment(_QUANTISED, b"\x03" + _VALUES),
    "unused-deep-quantisation": segment(_QUANTISED, b"\x13" + b"\x01" * 64 + _VALUES),
    "unused-codes": segment(_CODES, b"\x13" + _LENGTHS + MARK),
    "number-of-lines": segment(0xDC, MARK),
}.items():

    def _in_a_segment(planted: bytes = between) -> Made:
        return Made(_before_scan(jpeg(), planted), pixels=array(picture()))

    plain_case(f"jpeg-text-in-{label}", _in_a_segment)


@case("jpeg-text-in-a-table-that-is-replaced")
def _() -> Made:
    return Made(after_start(jpeg(), segment(_QUANTISED, b"\x00" + _VALUES)), pixels=array(picture()))


@case("jpeg-text-in-a-table-that-comes-too-late")
def _() -> Made:
    data = jpeg(progressive=True)
    return Made(_before_scan(data, segment(_QUANTISED, b"\x00" + _VALUES), scan=3), pixels=array(picture()))


@case("jpeg-text-behind-the-first-scan")
def _() -> Made:
    data = jpeg(progressive=True)
    at = _scan_stop(data, 0)
    return Made(data[:at] + MARK + data[at:], pixels=array(picture()))


@case("jpeg-text-before-a-restart-mark")
def _() -> Made:
    data = jpeg(restart_marker_blocks=3)
    at = data.index(b"\xff\xd1", scan_starts(data)[0])
    return Made(data[:at] + MARK + data[at:], pixels=array(picture()))


@case("jpeg-text-in-an-adobe-segment")
def _() -> Made:
    plain = segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x01")
    return Made(after_start(jpeg(), segment(0xEE, b"Adobe" + MARK[:6] + b"\x01")), copied=after_start(jpeg(), plain))


@case("jpeg-colours-and-a-jfif-segment-too-short-to-count")
def _() -> Made:
    data = jpeg(keep_rgb=True)  # the components are called R, G and B, which counts where nothing else is said
    bare = data.replace(segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00"), b"")
    assert b"Adobe" not in bare
    assert b"JFIF" not in bare
    short = segment(0xE0, b"JFIF\x00\x01\x01")
    return Made(after_start(bare, short), copied=bare)


@case("jpeg-without-end-mark")
def _() -> Made:
    return Made(jpeg()[:-2], said=CUT)


@case("jpeg-large")
def _() -> Made:
    large = picture(3, (2000, 1500))
    return Made(jpeg(large, subsampling=2, comment=MARK), pixels=array(large.resize((683, 512), Image.Resampling.BOX)))


@case("jpeg-large-progressive-turned")
def _() -> Made:
    large = picture(3, (2000, 1500))
    pixels = UPRIGHT[6](array(large.resize((683, 512), Image.Resampling.BOX)))
    return Made(jpeg(large, progressive=True, exif=oriented(6)), pixels=pixels)


@case("jpeg-ending-in-mid-grey")
def _() -> Made:
    grey = picture()
    grey.paste((128, 128, 128), (0, 24, *SIZE))
    return Made(jpeg(grey), pixels=array(grey))
