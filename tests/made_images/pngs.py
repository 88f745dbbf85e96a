"""PNG files."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, PngImagePlugin

from made_images.making import (
    CUT,
    MARK,
    ROUGH,
    SIZE,
    UPRIGHT,
    Made,
    array,
    case,
    exif,
    half_transparent,
    half_white,
    oriented,
    picture,
    plain_case,
    saved,
    swapped,
)


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


@case("png-transparent")
def _() -> Made:
    return Made(saved(half_transparent(), "PNG"), pixels=half_white())


@case("png-transparent-palette")
def _() -> Made:
    return Made(saved(half_transparent().quantize(4), "PNG"), pixels=half_white())


@case("png-transparent-colour")
def _() -> Made:
    plain = Image.new("RGB", (64, 64), (1, 2, 3))
    plain.paste((200, 30, 30), (0, 0, 32, 64))
    return Made(saved(plain, "PNG", transparency=(1, 2, 3)), pixels=half_white())


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
    return Made(bytes(data), said="it looks like a PNG with a damaged header")


@case("png-damaged-pixels")
def _() -> Made:
    data = saved(ROUGH, "PNG")
    at = data.index(b"IDAT") + 40
    return Made(data[:at] + b"\xff" * 64 + data[at + 64 :], said="cannot be decoded")
