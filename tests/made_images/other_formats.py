"""GIF, WebP, BMP, AVIF and HEIC files."""

from __future__ import annotations

import numpy as np

from made_heic import heic
from made_images.making import (
    CUT,
    MARK,
    ROUGH,
    UPRIGHT,
    Made,
    array,
    case,
    half_transparent,
    half_white,
    oriented,
    picture,
    saved,
    swapped,
)


@case("gif")
def _() -> Made:
    palette = picture().quantize(64)
    return Made(saved(palette, "GIF", comment=MARK), pixels=array(palette))


@case("gif-transparent")
def _() -> Made:
    return Made(saved(half_transparent(), "GIF"), pixels=half_white())


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
    return Made(saved(half_transparent(), "WEBP", lossless=True), pixels=half_white())


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
    return Made(data[: len(data) // 2], said="the image cannot be decoded: could not create decoder object")


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
    return Made(data[: len(data) // 2], said="it looks like an AVIF that is cut short")


HEIC_SIZE = (64, 48)


@case("heic")
def _() -> Made:
    return Made(heic(picture(0, HEIC_SIZE)), pixels=array(picture(0, HEIC_SIZE)))


@case("heic-turned")  # a telephone writes the turn twice, and the one of the container counts
def _() -> Made:
    data = heic(picture(0, HEIC_SIZE), quarter_turns=1, exif=b"Exif\x00\x00" + oriented(8).tobytes().removeprefix(b"Exif\x00\x00"))
    return Made(data, pixels=np.rot90(array(picture(0, HEIC_SIZE))))


@case("heic-profile-that-swaps-colours")
def _() -> Made:
    data = heic(picture(0, HEIC_SIZE), profile=swapped())
    return Made(data, pixels=array(picture(0, HEIC_SIZE))[:, :, ::-1], tolerance=12)


@case("heic-cut")
def _() -> Made:
    data = heic(picture(0, HEIC_SIZE))
    return Made(data[: len(data) // 2], said=CUT)
