"""How sharp and how well lit each photograph is, measured on one scale, so that a person may look at the worst."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import laplace

from predilect.atlas.fingerprints import Images

__all__ = ["QUALITY_SCHEMA", "QUALITY_SIDE", "UNIFORM_BELOW", "is_uniform", "measure_quality"]

QUALITY_SIDE = 224
"""The shorter side, in pixels, to which photographs are scaled down before they are measured: the usual input of a network."""

QUALITY_SCHEMA = pl.Schema({"sharpness": pl.Float64(), "contrast": pl.Float64(), "shadow": pl.Float64(), "glare": pl.Float64()})
"""Columns of what `measure_quality` returns."""

UNIFORM_BELOW = 5.0
"""Grey levels; of a smaller `contrast` a photograph is nearly uniform: the plainest skin has more."""

_BLOCK = 512
_BLOWN = 250  # of 255; brighter is white without drawing


def measure_quality(images: Images, *, on_progress: Callable[[int, int], None] | None = None) -> pl.DataFrame:
    """Measure the luminance of each photograph, scaled down to a shorter side of `QUALITY_SIDE`; cost: linear, mostly decoding.

    Args:
        images: N encoded images, such as `PackedImages`.
        on_progress: Called with (photographs done, N) now and then.

    Returns:
        N rows: `sharpness` (variance of the Laplacian in squared grey levels, the measure of Pech-Pacheco et al., "Diatom
        autofocusing in brightfield microscopy", 2000; null for photographs smaller than the scale, which would have to be
        enlarged), `contrast` (standard deviation, grey levels), `shadow` (the luminance in 0..255 that 95 % of the pixels do not
        exceed), `glare` (share of pixels of luminance 250 and more, in [0, 1]).
    """
    rows: list[tuple[float | None, float, float, float]] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16), thread_name_prefix="quality") as pool:
        for start in range(0, len(images), _BLOCK):
            block = range(start, min(start + _BLOCK, len(images)))
            rows.extend(pool.map(lambda row: _measure(images[row]), block))
            if on_progress is not None:
                on_progress(block.stop, len(images))
    return pl.DataFrame(rows, schema=QUALITY_SCHEMA, orient="row")


def is_uniform(square: NDArray[np.uint8]) -> bool:
    """Whether an image is of nearly one colour: no channel varies as much as the luminance must for an audit not to list it.

    Args:
        square: (3, S, S) RGB, such as `vision.transforms.central_square` makes it, S being about `QUALITY_SIDE`.
    """
    return float(square.reshape(3, -1).std(axis=1, dtype=np.float32).max()) < UNIFORM_BELOW


def _measure(data: memoryview) -> tuple[float | None, float, float, float]:
    with Image.open(io.BytesIO(data)) as image:
        whole = min(image.size)
        image.draft("L", (QUALITY_SIDE, QUALITY_SIDE))
        grey = image.convert("L")
    shrink = QUALITY_SIDE / min(grey.size)
    if shrink < 1:
        size = (max(QUALITY_SIDE, round(shrink * grey.width)), max(QUALITY_SIDE, round(shrink * grey.height)))
        grey = grey.resize(size, Image.Resampling.BOX)
    pixels: NDArray[np.float32] = np.asarray(grey, dtype=np.float32)
    sharpness = float(laplace(pixels)[1:-1, 1:-1].var()) if whole >= QUALITY_SIDE else None
    return sharpness, float(pixels.std()), float(np.percentile(pixels, 95)), float((pixels >= _BLOWN).mean())
