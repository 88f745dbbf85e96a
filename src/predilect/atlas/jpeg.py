"""One image file of any kind -> one upright sRGB JPEG without metadata, as the packed atlas holds it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from predilect.atlas.colour import flattened, in_srgb, keeps_colours
from predilect.atlas.decoding import (
    MAX_PIXELS,
    UnreadFileError,
    UnusableImageError,
    file_size,
    one_at_a_time,
    opened,
    orientation,
    read_bytes,
)
from predilect.atlas.jpeg_stream import (
    count_scans,
    decoded,
    ends_too_soon,
    has_several_scans,
    has_spare_bytes,
    holds_more_than_the_picture,
    may_end_too_soon,
    without_metadata,
)
from predilect.atlas.png_stream import has_too_many_chunks, is_png

__all__ = [
    "JPEG_QUALITY",
    "PREPARATION",
    "PreparedImage",
    "encode",
    "prepare_bytes",
    "prepare_image",
    "prepare_image_for_good",
    "reduce_image",
]

JPEG_QUALITY = 95
_SHOWN_QUALITY = 85

PREPARATION = 5
"""Version of what `prepare_image` makes of a file; parts of a packing that another version made are not gone on with."""

# An image is brought to at least so much more than the wanted size by the JPEG decoder itself or by averaging, which are fast; the
# filter does the rest. Against the filter alone the result differs by less (46 dB on average) than encoding it anew does (43 dB).
_MARGIN = 1.15

# Cameras and encoders write up to some twenty; each costs a pass over all blocks, however few bytes it has. A small image may have more.
_SCANS, _SCANNED_PIXELS, _MAX_SCANS = 24, 24 * 2**22, 200

_CUT_SHORT = "the image cannot be decoded: it is cut short"

_DIMMEST = 16  # of 255: a photograph of 16 bits whose brightest sample is below it was not scaled to 16 bits

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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

    EXIF orientation is applied, an embedded colour profile is converted to sRGB (a profile that cannot be used is passed over, as
    browsers do), transparent parts become white, 16-bit samples keep their upper 8 bits, and a shorter side above `max_side` is
    scaled down to it. Where none of this is needed, the pixels of a JPEG are copied bit for bit, without its metadata; otherwise
    a fresh JPEG of quality `JPEG_QUALITY` without chroma subsampling is made. Of a file with several frames the first is taken.

    Args:
        path: The image file.
        max_side: The largest shorter side in pixels.

    Returns:
        The JPEG, or the reason why the file cannot be used, for a person to read; the kind of reason stands before a colon.
    """
    try:
        return prepare_image_for_good(path, max_side)
    except UnreadFileError as error:
        return str(error)


def prepare_image_for_good(path: Path, max_side: int) -> PreparedImage | str:
    """What `prepare_image` gives, but only answers that will still be right tomorrow, as long as the file stays what it is.

    Raises:
        UnreadFileError: If the system could not read the file now: it may not be opened, a disk fails, memory is short.
    """
    try:
        with one_at_a_time(0, file_size(path)):  # before a byte is read
            return prepare_bytes(read_bytes(path), max_side)
    except UnreadFileError:
        raise
    except UnusableImageError as error:
        return str(error)


def prepare_bytes(data: bytes, max_side: int, max_pixels: int = MAX_PIXELS) -> PreparedImage:
    """What `prepare_image` gives, of a file that was never on a disk.

    Args:
        data: The image file's bytes.
        max_side: The largest shorter side in pixels.
        max_pixels: Width times height that is allowed, at most `MAX_PIXELS`.

    Raises:
        UnreadFileError: If memory is short now.
        UnknownFormatError: If the data is no image of a known format.
        UnusableImageError: If it cannot be used for another reason.
    """
    if not data:
        raise UnusableImageError("the file is empty")
    if is_png(data) and has_too_many_chunks(data):  # Pillow goes over them when it opens the file
        raise UnusableImageError("the image is cut into more chunks than a file of its size is, unless it was made to be slow")
    with one_at_a_time(0, len(data)), opened(data, max_pixels) as image:
        if image.format in {"JPEG", "MPO"}:
            _check_passes(data, image.width * image.height)
        return _copied(image, data, max_side) or _encoded(image, data, max_side)


def reduce_image(data: bytes | memoryview, longest_side: int) -> PreparedImage:
    """A small version of a packed JPEG, to be shown beside others; one that is small enough keeps its size.

    Args:
        data: An upright RGB JPEG.
        longest_side: The largest longer side in pixels.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return encode(np.asarray(image.convert("RGB")))


def encode(pixels: NDArray[np.uint8]) -> PreparedImage:
    """(H, W, 3) pixels as a JPEG to be shown, a quarter of the size of one to be learnt from."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=_SHOWN_QUALITY, optimize=True)
    return _prepared(target.getvalue(), (pixels.shape[1], pixels.shape[0]))


def _check_passes(data: bytes, n_pixels: int) -> None:
    allowed = max(_SCANS, min(_MAX_SCANS, _SCANNED_PIXELS // n_pixels))
    if count_scans(data) > allowed and count_scans(without_metadata(data) or data) > allowed:
        raise UnusableImageError(
            f"the image is coded in more than {allowed} passes, as a file of its size is only if it was made to be slow"
        )


def _copied(image: Image.Image, data: bytes, max_side: int) -> PreparedImage | None:
    """The JPEG as it is but for its metadata; None where it must be encoded anew."""
    if image.format not in {"JPEG", "MPO"} or image.mode != "RGB" or min(image.size) > max_side or orientation(image) != 1:
        return None
    profile = image.info.get("icc_profile")
    if profile and not keeps_colours(profile):
        return None
    picture = without_metadata(data)
    if picture is None:
        return None
    step = 1 if has_several_scans(picture) else 8
    samples = decoded(picture, step)
    if (step == 1 or may_end_too_soon(samples)) and ends_too_soon(picture, samples, step):
        raise UnusableImageError(_CUT_SHORT)
    if holds_more_than_the_picture(picture) or has_spare_bytes(picture, samples if step == 8 else decoded(picture, 8)):
        return None
    return _prepared(picture, image.size)


def _encoded(image: Image.Image, data: bytes, max_side: int) -> PreparedImage:
    deep = _is_deep(image)
    width, height = image.size
    shrink = min(1.0, max_side / min(width, height))
    image.draft(None, (round(_MARGIN * shrink * width), round(_MARGIN * shrink * height)))
    n_pixels = width * height if image.info.get("progressive") else image.width * image.height  # such a decoder holds all of it
    with one_at_a_time(n_pixels):
        image.load()
        turn, profile = (
            orientation(image),
            image.info.get("icc_profile"),
        )  # Pillow turns a TIFF itself, and a PNG has them at its end
        if image.format in {"JPEG", "MPO"}:
            _check_end(image, data, step=round(width / image.width))
        flat = flattened(image)
        if deep and max(np.ravel(flat.getextrema())) < _DIMMEST:
            raise UnusableImageError(
                "its 16-bit samples fill less than a sixteenth of their range: they are on a scale that the file does not tell"
            )
        if shrink < 1:
            size = (max(max_side, round(shrink * width)), max(max_side, round(shrink * height)))
            flat = flat.resize(size, Image.Resampling.BICUBIC, reducing_gap=_MARGIN)
    flat = in_srgb(flat, profile)
    if turn in _UPRIGHT:
        flat = flat.transpose(_UPRIGHT[turn])
    flat.info = {}  # Pillow would write the comment along
    target = io.BytesIO()
    flat.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _prepared(target.getvalue(), flat.size)


def _prepared(data: bytes, size: tuple[int, int]) -> PreparedImage:
    return PreparedImage(data, *size, sha256=sha256(data).hexdigest())


def _is_deep(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a sample; of colours Pillow keeps the upper 8, and the mode does not tell."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return image.mode.startswith("I;16") or any(";16" in str(tile.args) for tile in tiles)


def _check_end(image: Image.Image, data: bytes, step: int) -> None:
    samples = np.asarray(image)
    if image.info.get("progressive") or may_end_too_soon(samples):
        picture = without_metadata(data)
        if picture is not None and ends_too_soon(picture, samples, step):
            raise UnusableImageError(_CUT_SHORT)
