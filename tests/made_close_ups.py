"""Made close-ups of skin, what people do to photographs, frames that lie over many of them, and a small atlas with copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from predilect.atlas.build import build_atlas
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import SOURCES
from predilect.labels.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_toml(
    'schema_version = 1\nname = "t"\ndrop_below = 1\n[lesion]\nunknown_terms = "keep"\nmachine = ["scale"]\n[site]\nunknown_terms = "keep"\n',
    "t",
)


@cache
def skin(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """A made close-up: a dark spot amid plain skin, alike from afar whatever the seed, with grain and furrows of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    spot = np.exp(-(((y - rng.normal(0, 0.05)) / 0.25) ** 2 + ((x - rng.normal(0, 0.05)) / 0.25) ** 2) * rng.uniform(0.8, 1.2))
    furrows = gaussian_filter(rng.normal(size=(height, width)), 2.5)
    grey = 190 + 18 * x * rng.uniform(-1, 1) - 110 * spot + 9 * furrows / furrows.std() + rng.normal(0, 2, (height, width))
    return Image.fromarray(np.stack([grey, 0.8 * grey, 0.7 * grey], axis=2).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG", **({"quality": 92} | options))
    return target.getvalue()


def cropped(image: Image.Image, part: float, left: float = 0.7, top: float = 0.2) -> Image.Image:
    width, height = image.size
    x, y = left * part * width, top * part * height
    return image.crop((round(x), round(y), round(x + (1 - part) * width), round(y + (1 - part) * height)))


def brightened(image: Image.Image, gain: float) -> Image.Image:
    return image.point(lambda value: min(255, round(gain * value)))


ALTERED: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 30": lambda image: encoded(image, quality=30),
    "quality 60": lambda image: encoded(image, quality=60),
    "quality 95": lambda image: encoded(image, quality=95),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)),
    "2 % cut off": lambda image: encoded(cropped(image, 0.02)),
    "5 % cut off": lambda image: encoded(cropped(image, 0.05)),
    "5 % of another corner": lambda image: encoded(cropped(image, 0.05, 0, 1)),
    "15 % brighter": lambda image: encoded(brightened(image, 1.15)),
    "15 % darker": lambda image: encoded(brightened(image, 0.85)),
    "grey": lambda image: encoded(image.convert("L")),
    "5 % cut off, darker, quality 50": lambda image: encoded(brightened(cropped(image, 0.05), 0.88), quality=50),
    "mirrored": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "turned right": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_270)),
    "turned left": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_90)),
    "upside down": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_180)),
}


FRAMES: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "a round field": lambda draw, _: field(draw, 14, 14, (0, 0, 0)),
    "a round field, moved": lambda draw, seed: field(draw, 10 + seed % 5, 10 + seed % 4, (0, 0, 0)),
    "a round field in blue": lambda draw, _: field(draw, 14, 14, (40, 80, 160)),
    "a black bar": lambda draw, _: draw.rectangle((20, 100, 268, 140), fill=(0, 0, 0)),
    "a white bar": lambda draw, _: draw.rectangle((20, 100, 268, 140), fill=(255, 255, 255)),
    "a letterbox": lambda draw, _: [draw.rectangle((0, top, 288, top + 40), fill=(0, 0, 0)) for top in (0, 248)],
    "a drape": lambda draw, _: draw.polygon([(0, 0), (288, 0), (288, 60), (70, 80), (50, 288), (0, 288)], fill=(70, 110, 170)),
    "a ruler": lambda draw, _: ruler(draw),
}


def field(draw: ImageDraw.ImageDraw, left: int, top: int, colour: tuple[int, int, int]) -> None:
    outside = Image.new("1", (288, 288), 1)
    ImageDraw.Draw(outside).ellipse((left, top, left + 260, top + 260), fill=0)
    draw.bitmap((0, 0), outside, fill=colour)


def ruler(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 238, 288, 288), fill=(235, 235, 228))
    for k in range(32):
        draw.line((9 * k, 238, 9 * k, 262 if k % 5 == 0 else 251), fill=(30, 30, 30), width=2)


def framed(name: str, seed: int) -> Image.Image:
    image = skin(seed, 288, 288).copy()
    FRAMES[name](ImageDraw.Draw(image), seed)
    return image


def made_clinic(folder: Path) -> Atlas:
    """Eight photographs of two sources: a copy under another label and patient, equal pixels under other bytes, a rejected row."""
    root = folder / "photographs"
    root.mkdir()
    images = [skin(seed) for seed in range(8)]
    images[5] = cropped(images[0], 0.04)
    for k, image in enumerate(images):
        image.save(root / f"p{k}.jpg", quality=92)
    images[1].save(root / "p6.jpg", quality=92, progressive=True)
    (root / "p8.jpg").write_bytes(b"no image")
    Image.new("RGB", (200, 150), (120, 90, 80)).save(root / "p7.jpg")
    lines = [
        "p0.jpg,crust,arm,A,ann,40,female,I,fitzpatrick",
        "p1.jpg,crust;scale,arm,A,ann,40,female,I,fitzpatrick",
        "p2.jpg,scale,face,A,ben,,male,,",
        "p3.jpg,none,,A,ben,,male,,",
        "p4.jpg,,face,B,ben,60,,,",
        "p5.jpg,scale,arm,B,cat,61,,,",
        "p6.jpg,crust;scale,arm,A,ann,40,female,I,fitzpatrick",
        "p7.jpg,crust,arm,B,,,,,",
        "p8.jpg,crust,arm,B,,,,,",
    ]
    header = "file_name,lesions,site,source,patient_id,age,sex,skin_tone,skin_tone_scale"
    (root / "metadata.csv").write_text("\n".join([header, *lines]) + "\n")
    return build_atlas(SOURCES["imagefolder"](root), TAXONOMY, folder / "clinic", max_rejected=1)


def damage(atlas: Atlas, *image_ids: str) -> None:
    """Change a byte amid each of some packed images, as a failing disk does."""
    path = atlas.path / "images.arrow"
    content = bytearray(path.read_bytes())
    with atlas.images() as images:
        for image_id in image_ids:
            data = bytes(images[images.image_ids.tolist().index(image_id)])
            content[content.index(data) + len(data) // 2] ^= 0xFF
    path.write_bytes(content)
