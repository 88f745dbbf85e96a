"""What the modules of made files share: the table of cases, pictures, and the parts of containers."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageCms

MARK = b"Jane Doe, born 1960-04-01, ward 7"
ORIENTATION, GPS, MAKER = 0x0112, 0x8825, 0x010F
SIZE = (72, 52)
ROUGH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
CUT = "cut short"

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


def jpeg_of_passes(n: int, size: tuple[int, int] = SIZE) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are n; the picture stays the same, or nearly so."""
    once = jpeg(Image.new("RGB", size, (170, 130, 110)), progressive=True)
    scan = once.rindex(b"\xff\xda")
    return once[:-2] + once[scan:-2] * (n - once.count(b"\xff\xda")) + b"\xff\xd9"


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


def half_transparent() -> Image.Image:
    image = Image.new("RGBA", (64, 64), (200, 30, 30, 0))
    image.paste((200, 30, 30, 255), (0, 0, 32, 64))
    return image


def half_white() -> np.ndarray:
    pixels = np.full((64, 64, 3), 255)
    pixels[:, :32] = (200, 30, 30)
    return pixels
