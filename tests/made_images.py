"""Odd, damaged and hostile image files, each made by code, with what must become of it.

`CASES` names them; a case is copied (its coded pixels bit for bit), encoded (pixels near the expected ones) or rejected (with a phrase
of the reason). `MARK` is planted as metadata wherever a container has room for some, and must be gone from what is packed.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from made_heic import heic

MARK = b"Jane Doe, born 1960-04-01, ward 7"
ORIENTATION, GPS, MAKER = 0x0112, 0x8825, 0x010F
SIZE = (72, 52)

# How a stored picture must be turned to be upright, by the EXIF standard (TIFF 6.0, Orientation).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@dataclass(frozen=True)
class Made:
    """A file and its fate: `copied` is the JPEG whose pixels must come back, `pixels` what they must be near, `said` the reason."""

    data: bytes
    copied: bytes | None = None
    pixels: np.ndarray | None = None
    said: str | None = None
    tolerance: float = 4.0


CASES: dict[str, Callable[[], Made]] = {}


def case(name: str):
    def keep(make: Callable[[], Made]) -> Callable[[], Made]:
        assert name not in CASES
        CASES[name] = cache(make)
        return make

    return keep


def plain_case(name: str, make: Callable[[], Made]) -> None:
    case(name)(make)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth, in colour, and different in every corner."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(
        size, Image.Resampling.BICUBIC
    )  # saving leaves traces in an image, so a new one each time


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return saved(image or picture(), "JPEG", **{"quality": 95, "subsampling": 0} | options)


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2) + payload


def after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def exif(**tags: int) -> Image.Exif:
    made = Image.Exif()
    made[MAKER] = MARK.decode()
    made.get_ifd(GPS).update({1: "N", 2: (48.0, 12.0, 30.0)})
    for tag, value in tags.items():
        made[int(tag[1:])] = value
    return made


def oriented(value: int) -> Image.Exif:
    return exif(**{f"t{ORIENTATION}": value})


def scan_starts(data: bytes) -> list[int]:
    starts, at = [], data.find(b"\xff\xda")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\xff\xda", at + 2)
    return starts


@cache
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@cache
def swapped() -> bytes:
    """A profile whose red is sRGB's blue."""
    return srgb().replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


def srgb_in_other_words() -> bytes:
    """The same colours under another name, the white point off in the last place."""
    profile = bytearray(srgb().replace("built-in".encode("utf-16-be"), "Camera 7".encode("utf-16-be")))
    at = profile.index(b"XYZ \x00\x00\x00\x00") + 11
    profile[at] ^= 1
    return bytes(profile)


# --- JPEG that is copied ---------------------------------------------------------------------------------------------------------

for label, chosen in {
    "plain": {},
    "quality-50": {"quality": 50},
    "420": {"subsampling": 2},
    "422": {"subsampling": 1},
    "progressive": {"progressive": True},
    "progressive-420": {"progressive": True, "subsampling": 2},
    "rgb": {"keep_rgb": True},
    "restarts": {"restart_marker_blocks": 3},
    "restart-rows": {"restart_marker_rows": 1, "subsampling": 2},
    "optimized": {"optimize": True},
}.items():

    def _copied_case(options: dict[str, object] = chosen) -> Made:
        data = jpeg(**options)
        return Made(data, copied=data)

    plain_case(f"jpeg-{label}", _copied_case)


@case("jpeg-metadata-of-every-kind")
def _() -> Made:
    bare = jpeg()
    data = jpeg(exif=exif(), comment=MARK, xmp=b"<x:xmpmeta>" + MARK + b"</x:xmpmeta>")
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(MARK).to_bytes(4) + MARK
    thumbnail = b"JFXX\x00\x10" + jpeg(picture(9, (32, 24)), comment=MARK)
    kinds = [
        segment(0xE0, thumbnail),
        segment(0xED, iptc),
        *(segment(marker, MARK) for marker in (*range(0xE1, 0xF0), 0xFE) if marker != 0xEE),
    ]
    return Made(after_start(data, *kinds) + b"after the end: " + MARK, copied=bare)


@case("jpeg-comment-before-second-scan")
def _() -> Made:
    data = jpeg(progressive=True)
    at = scan_starts(data)[1]
    comment = segment(0xFE, MARK + b" \xff\xd9 \xff\xda")  # looks like the end of the image, and is not
    return Made(data[:at] + comment + data[at:], copied=data)


@case("jpeg-fill-bytes-before-markers")
def _() -> Made:
    data = jpeg()
    return Made(data.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb"), copied=data)


@case("jpeg-second-image-behind")
def _() -> Made:
    return Made(jpeg() + jpeg(picture(2), comment=MARK), copied=jpeg())


@case("jpeg-mpo")
def _() -> Made:
    target = io.BytesIO()
    picture(1).save(target, "MPO", save_all=True, append_images=[picture(2)])
    return Made(target.getvalue(), copied=saved(picture(1), "JPEG"))


for number in (0, 9, 65535):

    def _odd_orientation(value: int = number) -> Made:
        return Made(jpeg(exif=oriented(value)), copied=jpeg())

    plain_case(f"jpeg-orientation-{number}", _odd_orientation)


@case("jpeg-damaged-exif")
def _() -> Made:
    return Made(after_start(jpeg(), segment(0xE1, b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + MARK)), copied=jpeg())


@case("jpeg-exif-of-another-type")
def _() -> Made:
    entry = struct.pack(">HHHHLL", 1, ORIENTATION, 2, 0, 4, 0x41424300)  # orientation as text
    return Made(
        after_start(jpeg(), segment(0xE1, b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + entry + b"\x00\x00\x00\x00")), copied=jpeg()
    )


@case("jpeg-srgb-profile")
def _() -> Made:
    return Made(jpeg(icc_profile=srgb()), copied=jpeg())


@case("jpeg-srgb-profile-in-other-words")
def _() -> Made:
    assert srgb_in_other_words() != srgb()
    return Made(jpeg(icc_profile=srgb_in_other_words()), copied=jpeg())


@case("jpeg-damaged-profile")
def _() -> Made:
    return Made(jpeg(icc_profile=b"no profile " + MARK), copied=jpeg())


@case("jpeg-profile-of-another-space")
def _() -> Made:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return Made(jpeg(icc_profile=lab), copied=jpeg())


# --- JPEG that is encoded anew ---------------------------------------------------------------------------------------------------

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


# --- JPEG that is rejected -------------------------------------------------------------------------------------------------------

ROUGH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
CUT = "cut short"

for label, chosen in {
    "": {},
    "-420": {"subsampling": 2},
    "-grey": {"grey": True},
    "-cmyk": {"cmyk": True},
    "-progressive": {"progressive": True},
    "-restarts": {"restart_marker_blocks": 7},
    "-turned": {"exif": oriented(6)},
    "-large": {"large": True},
    "-large-progressive": {"large": True, "progressive": True},
}.items():

    def _whole(options: dict[str, object]) -> bytes:
        options = dict(options)
        image = ROUGH.resize((1280, 960)) if options.pop("large", False) else ROUGH
        image = image.convert("L") if options.pop("grey", False) else image
        return jpeg(image.convert("CMYK") if options.pop("cmyk", False) else image, **options)

    def _cut(options: dict[str, object] = chosen) -> Made:
        data = _whole(options)
        return Made(data[: len(data) // 2], said=CUT)

    def _cut_and_closed(options: dict[str, object] = chosen) -> Made:
        data = _whole(options)
        return Made(data[: len(data) * 3 // 5].rstrip(b"\xff") + b"\xff\xd9", said=CUT)

    plain_case(f"jpeg-cut{label}", _cut)
    plain_case(f"jpeg-cut-and-closed{label}", _cut_and_closed)


@case("jpeg-cut-and-closed-at-a-restart")
def _() -> Made:
    data = jpeg(ROUGH, restart_marker_blocks=5)
    return Made(data[: data.index(b"\xff\xd3", len(data) // 2)] + b"\xff\xd9", said=CUT)


@case("jpeg-progressive-without-last-scan")
def _() -> Made:
    data = jpeg(progressive=True)
    return Made(data[: scan_starts(data)[-1]] + b"\xff\xd9", said=CUT)


@case("jpeg-progressive-with-half-of-last-scan")
def _() -> Made:
    data = jpeg(ROUGH, progressive=True)
    return Made(data[: (scan_starts(data)[-1] + len(data)) // 2] + b"\xff\xd9", said=CUT)


@case("jpeg-only-a-header")
def _() -> Made:
    data = jpeg()
    return Made(data[: scan_starts(data)[0]], said="image")


@case("jpeg-first-bytes")
def _() -> Made:
    return Made(jpeg()[:100], said=CUT)


def _resized(width: int, height: int) -> bytes:
    data = jpeg()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


for label, (columns, lines), phrase in (
    ("200-megapixels", (16_320, 12_240), "more than 134 megapixels"),
    ("150-megapixels", (15_000, 10_000), "more than 134 megapixels"),
    ("4000-megapixels", (65_500, 65_500), "more than 134 megapixels"),
    ("of-one-line", (10_000, 1), "too small"),
    ("without-lines", (100, 0), "image"),
    ("strip", (6_000, 16), "strip"),
):
    plain_case(f"jpeg-{label}", lambda size=(columns, lines), said=phrase: Made(_resized(*size), said=said))


@case("jpeg-of-12-bits")
def _() -> Made:
    data = jpeg()
    at = data.index(b"\xff\xc0") + 4
    return Made(data[:at] + b"\x0c" + data[at + 1 :], said="a JPEG with a damaged header or of a rare kind")


# --- PNG -------------------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">L", len(payload)) + kind + payload + struct.pack(">L", zlib.crc32(kind + payload))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_rows(samples: np.ndarray) -> bytes:
    """(H, W, C) unsigned samples as unfiltered lines."""
    return b"".join(b"\x00" + line.astype(f">u{samples.itemsize}").tobytes() for line in samples)


@case("png-metadata-of-every-kind")
def _() -> Made:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", MARK.decode())
    text.add_text("Comment", MARK.decode(), zip=True)
    text.add_itxt("XML:com.adobe.xmp", MARK.decode())
    return Made(saved(picture(), "PNG", pnginfo=text, exif=exif(), dpi=(300, 300)) + MARK, pixels=array(picture()))


@case("png-turned")
def _() -> Made:
    return Made(saved(picture(), "PNG", exif=oriented(6)), pixels=UPRIGHT[6](array(picture())))


@case("png-16-bit-grey")
def _() -> Made:
    grey = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    return Made(png(*SIZE, 16, 0, png_rows(grey[:, :, None])), pixels=array(picture().convert("L")))


@case("png-16-bit-colours")
def _() -> Made:
    return Made(png(*SIZE, 16, 2, png_rows(np.asarray(picture()).astype(np.uint16) * 257)), pixels=array(picture()))


@case("png-16-bit-grey-with-alpha")
def _() -> Made:
    grey = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    samples = np.stack([grey, np.full_like(grey, 65535)], axis=-1)
    return Made(png(*SIZE, 16, 4, png_rows(samples)), pixels=array(picture().convert("L")))


@case("png-16-bit-colours-of-12")
def _() -> Made:
    samples = np.asarray(picture()).astype(np.uint16) * 16  # at most 4,080
    return Made(png(*SIZE, 16, 2, png_rows(samples)), said="a scale that the file does not tell")


for label, kind in {"bilevel": "1", "grey": "L", "grey-alpha": "LA", "palette": "P", "colours-alpha": "RGBA"}.items():
    plain_case(
        f"png-{label}",
        lambda mode=kind: Made(
            saved(picture().convert(mode), "PNG"), pixels=array(picture().convert(mode)), tolerance=20 if mode == "1" else 4
        ),
    )


def _half_transparent() -> Image.Image:
    image = Image.new("RGBA", (64, 64), (200, 30, 30, 0))
    image.paste((200, 30, 30, 255), (0, 0, 32, 64))
    return image


def _half_white() -> np.ndarray:
    pixels = np.full((64, 64, 3), 255)
    pixels[:, :32] = (200, 30, 30)
    return pixels


@case("png-transparent")
def _() -> Made:
    return Made(saved(_half_transparent(), "PNG"), pixels=_half_white())


@case("png-transparent-palette")
def _() -> Made:
    return Made(saved(_half_transparent().quantize(4), "PNG"), pixels=_half_white())


@case("png-transparent-colour")
def _() -> Made:
    plain = Image.new("RGB", (64, 64), (1, 2, 3))
    plain.paste((200, 30, 30), (0, 0, 32, 64))
    return Made(saved(plain, "PNG", transparency=(1, 2, 3)), pixels=_half_white())


@case("png-transparent-grey")
def _() -> Made:
    image = Image.new("LA", (64, 64), (90, 0))
    image.paste((90, 255), (0, 0, 32, 64))
    pixels = np.full((64, 64, 3), 255)
    pixels[:, :32] = 90
    return Made(saved(image, "PNG"), pixels=pixels)


@case("png-profile-that-swaps-colours")
def _() -> Made:
    return Made(saved(picture(), "PNG", icc_profile=swapped()), pixels=array(picture())[:, :, ::-1], tolerance=12)


@case("png-animated")
def _() -> Made:
    return Made(saved(picture(1), "PNG", save_all=True, append_images=[picture(2)]), pixels=array(picture(1)))


@case("png-large")
def _() -> Made:
    large = picture(3, (700, 1700))
    return Made(saved(large, "PNG"), pixels=array(large.resize((512, 1243), Image.Resampling.BOX)))


@case("png-100-megapixels")  # more than Pillow warns of, less than is refused
def _() -> Made:
    return Made(png(10_000, 10_000, 1, 0, (b"\x00" + b"\xff" * 1250) * 10_000), pixels=np.full((512, 512, 3), 255))


for label, size, phrase in (
    ("200-megapixels", (20_000, 10_000), "more than 134 megapixels"),
    ("too-small", (15, 400), "too small"),
    ("strip", (16, 20_000), "strip"),
):
    plain_case(f"png-{label}", lambda size=size, said=phrase: Made(png(*size, 8, 2, b"\x00" * 100), said=said))


@cache
def _bomb() -> bytes:
    return zlib.compress(b"\x00" * 100_000_000, 1)


@case("png-text-bomb")
def _() -> Made:
    return Made(png(*SIZE, 8, 2, b"", chunk(b"zTXt", b"Comment\x00\x00" + _bomb())), said="unreasonable size")


@case("png-international-text-bomb")
def _() -> Made:
    return Made(png(*SIZE, 8, 2, b"", chunk(b"iTXt", b"Comment\x00\x01\x00\x00\x00" + _bomb())), said="unreasonable size")


@case("png-profile-bomb")
def _() -> Made:
    return Made(png(*SIZE, 8, 2, b"", chunk(b"iCCP", b"sRGB\x00\x00" + _bomb())), said="unreasonable size")


@case("png-cut")
def _() -> Made:
    data = saved(ROUGH, "PNG")
    return Made(data[: len(data) // 2], said=CUT)


@case("png-damaged-header")
def _() -> Made:
    data = bytearray(saved(picture(), "PNG"))
    data[18] ^= 1
    return Made(bytes(data), said="image")


@case("png-damaged-pixels")
def _() -> Made:
    data = saved(ROUGH, "PNG")
    at = data.index(b"IDAT") + 40
    return Made(data[:at] + b"\xff" * 64 + data[at + 64 :], said="cannot be decoded")


# --- GIF, WebP, BMP, AVIF --------------------------------------------------------------------------------------------------------


@case("gif")
def _() -> Made:
    palette = picture().quantize(64)
    return Made(saved(palette, "GIF", comment=MARK), pixels=array(palette))


@case("gif-transparent")
def _() -> Made:
    return Made(saved(_half_transparent(), "GIF"), pixels=_half_white())


@case("gif-animated")
def _() -> Made:
    first, second = picture(1).quantize(64), picture(2).quantize(64)
    return Made(saved(first, "GIF", save_all=True, append_images=[second]), pixels=array(first))


@case("gif-huge-screen")
def _() -> Made:
    data = saved(picture().quantize(64), "GIF")
    return Made(data[:6] + b"\xff\xff\xff\xff" + data[10:], said="more than 134 megapixels")


@case("gif-cut")
def _() -> Made:
    data = saved(ROUGH.quantize(64), "GIF")
    return Made(data[: len(data) // 2], said="cannot be decoded")


@case("webp")
def _() -> Made:
    data = saved(picture(), "WEBP", quality=95, exif=oriented(8), xmp=MARK)
    return Made(data, pixels=UPRIGHT[8](array(picture())), tolerance=6)


@case("webp-transparent")
def _() -> Made:
    return Made(saved(_half_transparent(), "WEBP", lossless=True), pixels=_half_white())


@case("webp-animated")
def _() -> Made:
    data = saved(picture(1), "WEBP", save_all=True, append_images=[picture(2)], lossless=True)
    return Made(data, pixels=array(picture(1)))


@case("webp-profile-that-swaps-colours")
def _() -> Made:
    data = saved(picture(), "WEBP", lossless=True, icc_profile=swapped())
    return Made(data, pixels=array(picture())[:, :, ::-1], tolerance=12)


@case("webp-cut")
def _() -> Made:
    data = saved(ROUGH, "WEBP", quality=95)
    return Made(data[: len(data) // 2], said="image")


@case("bmp")
def _() -> Made:
    return Made(saved(picture(), "BMP") + MARK, pixels=array(picture()))


@case("bmp-palette")
def _() -> Made:
    palette = picture().quantize(64)
    return Made(saved(palette, "BMP"), pixels=array(palette))


@case("bmp-cut")
def _() -> Made:
    return Made(saved(picture(), "BMP")[:1000], said=CUT)


@case("avif")
def _() -> Made:
    return Made(saved(picture(), "AVIF", quality=95, exif=oriented(6)), pixels=UPRIGHT[6](array(picture())), tolerance=8)


@case("avif-cut")
def _() -> Made:
    data = saved(ROUGH, "AVIF", quality=90)
    return Made(data[: len(data) // 2], said="image")


# --- HEIC ------------------------------------------------------------------------------------------------------------------------

HEIC_SIZE = (64, 48)


@case("heic")
def _() -> Made:
    return Made(heic(picture(0, HEIC_SIZE)), pixels=array(picture(0, HEIC_SIZE)))


@case("heic-turned")  # a telephone writes the turn twice, and the one of the container counts
def _() -> Made:
    data = heic(picture(0, HEIC_SIZE), quarter_turns=1, exif=b"Exif\x00\x00" + oriented(8).tobytes().removeprefix(b"Exif\x00\x00"))
    return Made(data, pixels=np.rot90(array(picture(0, HEIC_SIZE))))


@case("heic-cut")
def _() -> Made:
    data = heic(picture(0, HEIC_SIZE))
    return Made(data[: len(data) // 2], said="image")


# --- TIFF ------------------------------------------------------------------------------------------------------------------------


def tiff(samples: np.ndarray, *, order: str = "<", photometric: int, **tags: int) -> bytes:
    """(H, W, C) samples as one uncompressed strip; further tags as t<number>=<long>."""
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    height, width, n = samples.shape
    entries = {
        256: width, 257: height, 258: samples.itemsize * 8, 259: 1, 262: photometric, 273: 8, 277: n, 278: height, 279: len(data),
    } | {int(tag[1:]): value for tag, value in tags.items()}  # fmt: skip
    table, more = struct.pack(f"{order}H", len(entries)), b""
    at = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        if tag == 258 and n > 1:
            table += struct.pack(f"{order}HHLL", tag, 3, n, at + len(more))
            more += struct.pack(f"{order}{n}H", *([value] * n))
        elif tag in {258, 259, 262, 277, 274}:
            table += struct.pack(f"{order}HHLHH", tag, 3, 1, value, 0)
        else:
            table += struct.pack(f"{order}HHLL", tag, 4, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8 + len(data))
    return head + data + table + struct.pack(f"{order}L", 0) + more


def _grey16() -> np.ndarray:
    return np.asarray(picture().convert("L")).astype(np.uint16)[:, :, None] * 257


for label, byte_order in {"little": "<", "big": ">"}.items():
    plain_case(
        f"tiff-16-bit-grey-{label}-endian",
        lambda order=byte_order: Made(tiff(_grey16(), order=order, photometric=1), pixels=array(picture().convert("L"))),
    )
    plain_case(
        f"tiff-16-bit-colours-{label}-endian",
        lambda order=byte_order: Made(
            tiff(np.asarray(picture()).astype(np.uint16) * 257, order=order, photometric=2), pixels=array(picture())
        ),
    )


@case("tiff-16-bit-grey-of-12")
def _() -> Made:
    return Made(tiff(_grey16() >> 4, photometric=1), said="a scale that the file does not tell")


for label, kind in {"grey": "L", "palette": "P", "bilevel": "1", "cmyk": "CMYK", "colours-alpha": "RGBA", "ycbcr": "YCbCr"}.items():
    plain_case(
        f"tiff-{label}",
        lambda mode=kind: Made(
            saved(picture().convert(mode), "TIFF"), pixels=array(picture().convert(mode)), tolerance=20 if mode == "1" else 4
        ),
    )

for label in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
    plain_case(
        f"tiff-compressed-{label}",
        lambda name=label: Made(
            saved(picture(), "TIFF", compression=name, **({"quality": 95} if name == "jpeg" else {})), pixels=array(picture())
        ),
    )


@case("tiff-of-two-pages-turned")
def _() -> Made:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ORIENTATION] = 5
    tags[270] = MARK.decode()
    data = saved(picture(1), "TIFF", save_all=True, append_images=[picture(2)], tiffinfo=tags)
    return Made(data, pixels=UPRIGHT[5](array(picture(1))))


@case("tiff-lab")
def _() -> Made:
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(picture(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    return Made(saved(image, "TIFF"), pixels=array(picture()), tolerance=12)


@case("tiff-float")
def _() -> Made:
    return Made(saved(picture().convert("F"), "TIFF"), said="mode F")


@case("tiff-32-bit")
def _() -> Made:
    return Made(saved(picture().convert("I"), "TIFF"), said="mode I")


@case("tiff-preview-first")
def _() -> Made:
    return Made(tiff(np.asarray(picture()), photometric=2, t254=1), said="preview")


@case("tiff-huge")
def _() -> Made:
    return Made(tiff(np.asarray(picture()), photometric=2, t256=2**31 - 1, t257=2**31 - 1), said="image")


@case("tiff-absurd-tag")
def _() -> Made:
    data = tiff(np.asarray(picture()), photometric=2, t700=8)
    at = data.index(struct.pack("<HHL", 700, 4, 1))
    return Made(data[:at] + struct.pack("<HHL", 700, 1, 2**32 - 1) + data[at + 8 :], pixels=array(picture()))


@case("tiff-absurd-strips")
def _() -> Made:
    data = tiff(np.asarray(picture()), photometric=2)
    at = data.index(struct.pack("<HHL", 273, 4, 1))
    return Made(data[:at] + struct.pack("<HHL", 273, 4, 2**31) + data[at + 8 :], said="image")


@case("tiff-table-in-a-circle")
def _() -> Made:
    data = tiff(np.asarray(picture()), photometric=2)
    start = struct.unpack_from("<L", data, 4)[0]
    n = struct.unpack_from("<H", data, start)[0]
    at = start + 2 + 12 * n
    return Made(data[:at] + struct.pack("<L", start) + data[at + 4 :], pixels=array(picture()))


@case("tiff-cut")
def _() -> Made:
    whole = tiff(np.asarray(ROUGH), photometric=2)
    start = struct.unpack_from("<L", whole, 4)[0]
    table = whole[start:]
    half = whole[8:start][:10_000]
    moved = table.replace(struct.pack("<HHLL", 273, 4, 1, 8), struct.pack("<HHLL", 273, 4, 1, 8 + len(table)))
    moved = moved.replace(
        struct.pack("<HHLL", 258, 3, 3, start + len(table) - 6), struct.pack("<HHLL", 258, 3, 3, 8 + len(table) - 6)
    )
    return Made(whole[:4] + struct.pack("<L", 8) + moved + half, said=CUT)


# --- no images -------------------------------------------------------------------------------------------------------------------

for label, content, phrase in (
    ("empty", b"", "the file is empty"),
    ("one-byte", b"\xff", "no image of a known format"),
    ("text", b"see the other folder\n", "no image of a known format"),
    ("web-page", b"\n<!DOCTYPE html><html>404</html>", "looks like a web page"),
    ("pdf", b"%PDF-1.7\n" + bytes(500), "looks like a PDF"),
    ("zip", b"PK\x03\x04" + bytes(500), "looks like a ZIP"),
    ("gzip", b"\x1f\x8b\x08" + bytes(500), "looks like a gzip"),
    ("drawing", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "looks like a drawing"),
    ("dicom", bytes(128) + b"DICM" + bytes(300), "looks like a DICOM"),
    ("photoshop", b"8BPS\x00\x01" + bytes(300), "looks like a Photoshop"),
    ("jpeg-2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(300), "looks like a JPEG 2000"),
    ("sound", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(300), "sound"),
    ("film", b"\x00\x00\x00\x18ftypmp42" + bytes(300), "no image of a known format"),
    ("zeros", bytes(5000), "no image of a known format"),
    ("noise", np.random.default_rng(4).bytes(5000), "no image of a known format"),
    ("damaged-heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(300), "image"),
    ("program", b"\x7fELF\x02\x01\x01" + bytes(500), "no image of a known format"),
):
    plain_case(f"no-image-{label}", lambda data=content, said=phrase: Made(data, said=said))
