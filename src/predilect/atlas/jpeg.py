"""One image file of any kind -> one upright sRGB JPEG without metadata, as the packed atlas holds it."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

__all__ = ["JPEG_QUALITY", "PreparedImage", "prepare_image"]

JPEG_QUALITY = 95

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # an MPO, as telephones write it, is a JPEG with more behind it
_ORIENTATION = 0x0112

# What Pillow's decoders raise for files that are cut short, damaged, or made to be so.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # square pixels, no thumbnail
# In coded data 0xff is followed by 0x00 or a restart mark; anything else is the next marker.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_SOS, _EOI, _APP0, _APP14, _APP15, _COM = 0xDA, 0xD9, 0xE0, 0xEE, 0xEF, 0xFE


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A JPEG ready to be packed.

    Attributes:
        data: The JPEG's bytes: upright, RGB, no metadata.
        width: In pixels.
        height: In pixels.
        sha256: Of `data`, in hexadecimal.
    """

    data: bytes
    width: int
    height: int
    sha256: str


def prepare_image(path: Path, max_side: int) -> PreparedImage | str:
    """Make the JPEG that is packed for an image file.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB (a profile that cannot be used is ignored, as
    browsers do), transparent parts become white, and a shorter side above `max_side` is scaled down to it. Where none of
    this is needed, the pixels of a JPEG are copied bit for bit, without its metadata; otherwise a fresh JPEG of quality
    `JPEG_QUALITY` without chroma subsampling is made. Of a file with several frames the first is taken.

    Args:
        path: The image file.
        max_side: The largest shorter side in pixels.

    Returns:
        The JPEG, or the reason why the file cannot be used, for a person to read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    if not data:
        return "the file is empty"
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):  # more than 8 bits, on a scale that the file does not tell
                return f"its pixels are of mode {image.mode}, not 8 bits per channel"
            return _copied(image, data, max_side) or _encoded(image, max_side)
    except UnidentifiedImageError:
        return f"it is no image of a known format ({', '.join(_FORMATS)})"
    except _BROKEN as error:
        return f"the image cannot be decoded: {str(error) or type(error).__name__}"


def _copied(image: Image.Image, data: bytes, max_side: int) -> PreparedImage | None:
    """The JPEG as it is but for its metadata; None where it must be encoded anew."""
    plain = image.format in {"JPEG", "MPO"} and image.mode == "RGB" and "icc_profile" not in image.info
    if not plain or min(image.size) > max_side or image.getexif().get(_ORIENTATION, 1) != 1:
        return None
    bare = _without_metadata(data)
    if bare is None:
        return None
    with Image.open(io.BytesIO(bare), formats=("JPEG",)) as copy:
        copy.load()  # a file that is cut short fails here
        return _prepared(bare, copy.size)


def _encoded(image: Image.Image, max_side: int) -> PreparedImage:
    shrink = max_side / min(image.size)
    if shrink < 0.5:
        # The JPEG decoder itself can halve the size several times; at least twice the wanted size is left to the filter.
        image.draft(None, (round(2 * shrink * image.width), round(2 * shrink * image.height)))
    ImageOps.exif_transpose(image, in_place=True)
    image = _in_srgb(image)
    shrink = max_side / min(image.size)
    if shrink < 1:
        size = (max(max_side, round(shrink * image.width)), max(max_side, round(shrink * image.height)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.info = {}  # Pillow would write the comment along
    target = io.BytesIO()
    image.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _prepared(target.getvalue(), image.size)


def _prepared(data: bytes, size: tuple[int, int]) -> PreparedImage:
    return PreparedImage(data, *size, sha256=sha256(data).hexdigest())


def _in_srgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, colours by its profile, on white where it is transparent."""
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    elif image.mode not in {"L", "CMYK"}:
        image = image.convert("RGB")
    if profile:
        try:
            return ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB") or image
        except ImageCms.PyCMSError:
            pass  # damaged, or of another colour space than the pixels: shown as if there were none
    return image.convert("RGB")


def _without_metadata(data: bytes) -> bytes | None:
    """The first image of a JPEG file without its APPn and COM segments; None if its structure is not understood.

    Of those, Adobe's APP14 and the presence of a JFIF segment are kept: they tell a decoder how the colours are coded. The JFIF
    segment is written afresh, for it may hold a thumbnail.
    """
    parts, position, in_scan = [data[:2]], 2, False
    while found := _NEXT_MARKER.search(data, position) if in_scan else _NEXT_MARKER.match(data, position):
        if in_scan:
            parts.append(data[position : found.start()])
        marker = found.group(1)[0]
        if marker == _EOI:
            parts.append(b"\xff\xd9")
            return b"".join(parts)
        start = found.end()
        length = int.from_bytes(data[start : start + 2])
        if length < 2 or start + length > len(data):
            return None
        segment = data[start : start + length]
        if marker == _APP0 and segment[2:7] == b"JFIF\x00":
            parts.append(_JFIF)
        elif marker == _APP14 and segment[2:7] == b"Adobe" and length >= 14:
            parts.append(b"\xff\xee\x00\x0e" + segment[2:14])
        elif not (_APP0 <= marker <= _APP15 or marker == _COM):
            parts.append(bytes((0xFF, marker)) + segment)
        position, in_scan = start + length, marker == _SOS
    return None
