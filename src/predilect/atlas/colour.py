"""Pixels of any kind as 8-bit sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

__all__ = ["flattened", "in_srgb", "keeps_colours"]

_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")
# What a colour is moved by in encoding it as a JPEG of quality 95; the profiles that call themselves sRGB differ by 1 or 2 of 255.
_UNSEEN = 2
_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def flattened(image: Image.Image) -> Image.Image:
    """The image with 8 bits, without transparency, in mode L, RGB or CMYK, its colours as they are.

    Transparent parts become white. Samples of 16 bits are taken to fill them, and the upper 8 are kept, as Pillow does where it
    reads 16-bit colours.

    Raises:
        ValueError: If Pillow cannot convert the mode.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, _LAB, _SRGB, outputMode="RGB") or image
    grey = image.mode in {"1", "L", "LA", "La"}
    if image.has_transparency_data:
        premultiplied = {"La": "LA", "RGBa": "RGBA"}
        if image.mode in premultiplied:
            image = image.convert(premultiplied[image.mode])
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if grey:
        return image.convert("RGB").convert("L") if image.mode == "RGBA" else image.convert("L")
    return image if image.mode in {"RGB", "CMYK"} else image.convert("RGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A flattened image in sRGB, mode RGB.

    Args:
        image: In mode L, RGB or CMYK.
        profile: The colour profile (ICC) that its file holds. One that is damaged, or of another colour space than the pixels, is
            passed over, as browsers do.
    """
    if profile:
        space = _space(profile)
        if space == "RGB" and image.mode == "L":  # cameras give grey pictures the profile of their colour pictures
            image = image.convert("RGB")
        conversion = _conversion(profile, image.mode) if _MODES.get(space) == image.mode else None
        if conversion is not None:
            return conversion.apply(image)
    return image.convert("RGB")


def keeps_colours(profile: bytes) -> bool:
    """Whether RGB pixels with this profile can be shown as sRGB as they are: it is sRGB under whatever name, or cannot be used.

    Tried on 9 x 9 x 9 colours.
    """
    conversion = _conversion(profile, "RGB") if _space(profile) == "RGB" else None
    return conversion is None or _is_slight(profile)


@lru_cache(maxsize=32)
def _is_slight(profile: bytes) -> bool:
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    converted = np.asarray(in_srgb(Image.fromarray(colours), profile))
    return bool((np.abs(converted.astype(int) - colours) <= _UNSEEN).all())


@lru_cache(maxsize=32)
def _space(profile: bytes) -> str:
    """The colour space that a profile describes; empty where it is damaged."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, UnicodeDecodeError):  # the name of the space is read as text
        return ""


@lru_cache(maxsize=32)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Made once for the photographs of one camera; without its cache of the last colour, several threads may use it."""
    try:
        return ImageCms.buildTransform(io.BytesIO(profile), _SRGB, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    except ImageCms.PyCMSError:
        return None
