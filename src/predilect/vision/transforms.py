"""Photographs to network inputs: the paper's scale jittering in training, centre or ten crops in testing.

Resizing and cropping are one resampling of the region that is kept, so a crop never pays for pixels outside it; arrays stay uint8
until they are on the device, where `normalise` makes them floats.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from predilect.recipe import Preprocessing

__all__ = ["central_square", "decode", "normalise", "train_crop", "views"]


def decode(data: bytes | memoryview, shorter_side: int) -> Image.Image:
    """Decode a packed JPEG, at reduced scale where all of `shorter_side` is kept.

    Args:
        data: An upright RGB JPEG.
        shorter_side: The length, in pixels, that the shorter side will be resized to at least.
    """
    image = Image.open(io.BytesIO(data))
    scale = shorter_side / min(image.size)
    if scale < 1:  # libjpeg can leave out whole octaves of detail; PIL picks the smallest scale that is still large enough
        image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
    return image.convert("RGB")


def train_crop(data: bytes | memoryview, preprocessing: Preprocessing, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Scale jittering, a random crop and a random mirror, as in the paper's Implementation section; beyond it turns and light.

    Args:
        data: An upright RGB JPEG.
        preprocessing: Gives `jitter`, `crop`, `flip`, `turn` and `light`.
        rng: The sample's own generator; three numbers are drawn from it, and more for what else the preprocessing asks for.

    Returns:
        (3, crop, crop) uint8, RGB.
    """
    side = int(rng.integers(preprocessing.jitter[0], preprocessing.jitter[1], endpoint=True))
    image = decode(data, side)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left = int(rng.integers(0, width - preprocessing.crop, endpoint=True))
    top = int(rng.integers(0, height - preprocessing.crop, endpoint=True))
    pixels = _resized(image, (width, height), (left, top), preprocessing.crop)
    if preprocessing.flip and rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    if preprocessing.turn:
        pixels = np.rot90(pixels, int(rng.integers(4)), axes=(1, 2))
    if preprocessing.light > 0:
        pixels = _relit(pixels, *rng.uniform(1 - preprocessing.light, 1 + preprocessing.light, size=2))
    return np.ascontiguousarray(pixels)


def central_square(data: bytes | memoryview, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The part of a photograph that testing looks at: shorter side scaled to `test_side`, central square.

    Args:
        data: An upright RGB JPEG.
        preprocessing: Gives `test_side`.

    Returns:
        (3, test_side, test_side) uint8, RGB.
    """
    side = preprocessing.test_side
    image = decode(data, side)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return np.ascontiguousarray(_resized(image, (width, height), ((width - side) // 2, (height - side) // 2), side))


def views(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The crops of `central_square` that a network sees in testing.

    Args:
        images: (B, 3, test_side, test_side) uint8.
        preprocessing: Gives `views` and `crop`.

    Returns:
        (V, B, 3, crop, crop) uint8: V = 1 for the centre, 10 for Krizhevsky's crops in the order of torchvision's ``TenCrop``.
    """
    if preprocessing.views == "center":
        center: Tensor = tv.center_crop(images, [preprocessing.crop])
        return center[None]
    return torch.stack(tv.ten_crop(images, [preprocessing.crop]))


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images to the floats that the backbone's weights expect, channels last.

    Args:
        images: (B, 3, H, W) uint8.
        mean: Per channel, of an image in [0, 1].
        std: Per channel.

    Returns:
        (B, 3, H, W) float32.
    """
    shift = torch.tensor(mean, device=images.device).mul(255)[:, None, None]
    scale = torch.tensor(std, device=images.device).mul(255)[:, None, None]
    return images.to(torch.float32, memory_format=torch.channels_last).sub(shift).div(scale)


def _relit(pixels: NDArray[np.uint8], brightness: float, contrast: float) -> NDArray[np.uint8]:
    """Brightness, and contrast around the mean of all channels, through one table for red, green and blue alike."""
    mean = float(pixels.mean())
    values = ((np.arange(256) - mean) * contrast + mean) * brightness
    table: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return table[pixels]


def _resized(image: Image.Image, size: tuple[int, int], corner: tuple[int, int], side: int) -> NDArray[np.uint8]:
    """The side x side square at `corner` of the image resized to `size`, as (3, side, side)."""
    across, down = image.width / size[0], image.height / size[1]
    box = (
        corner[0] * across,
        corner[1] * down,
        min(image.width, (corner[0] + side) * across),
        min(image.height, (corner[1] + side) * down),
    )
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)
