"""A short fingerprint of each photograph, by which candidates for near-duplicates are found among all pairs.

The fingerprint is the low end of the discrete cosine transform of a small luminance picture, as in the perceptual hash of
Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), with the signs of 64 coefficients as bits.
Signs, rather than a comparison with the median, make a mirrored or turned picture's fingerprint a rearrangement of the original's,
so that all eight orientations are searched without decoding anything again. What is black takes on the mean of the rest before,
lest photographs in like black frames all be candidates.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter

from predilect.atlas.alignment import BARE, BLACK, halved

__all__ = [
    "ORIENTATIONS",
    "ORIENTATION_NAMES",
    "SIDE",
    "WORKERS",
    "Fingerprints",
    "Images",
    "fingerprint",
    "oriented",
    "oriented_coefficients",
    "thumbnails",
]

SIDE = 64
"""Height and width of the luminance pictures from which fingerprints are made and on which candidates are confirmed."""

WORKERS = min(os.cpu_count() or 1, 16)
"""Threads that decode or compare; neither holds Python's lock."""

ORIENTATIONS: tuple[tuple[bool, bool, bool], ...] = tuple(
    (transposed, flipped_y, flipped_x) for transposed in (False, True) for flipped_y in (False, True) for flipped_x in (False, True)
)
"""The eight ways to lay a picture on a table: transposed, then flipped top to bottom, then flipped left to right."""

ORIENTATION_NAMES = (
    "upright", "mirrored", "upside down and mirrored", "upside down",
    "transposed", "turned right", "turned left", "transposed upside down",
)  # fmt: skip
"""What the `ORIENTATIONS` are called."""

_FREQUENCIES = 11
_CUT = 0.06  # of each side: between the few per cent that people cut off, so that less and more of it are both near
_BLOCK = 1024

_ROW, _COLUMN = (part.ravel() for part in np.meshgrid(np.arange(_FREQUENCIES), np.arange(_FREQUENCIES), indexing="ij"))
# The 64 lowest but the mean, a set that transposing maps to itself.
_KEPT = (_ROW + _COLUMN > 0) & (_ROW + _COLUMN < _FREQUENCIES) & ~((_ROW == 5) & (_COLUMN == 5))
_ROW, _COLUMN = _ROW[_KEPT], _COLUMN[_KEPT]
# Where each of them goes when rows and columns change places.
_TRANSPOSED = np.argsort(_COLUMN * _FREQUENCIES + _ROW)


class Images(Protocol):
    """Encoded images by row, such as `PackedImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> memoryview: ...


@dataclass(frozen=True, eq=False, slots=True)
class Fingerprints:
    """What is kept of each of N photographs: under two kilobytes.

    Attributes:
        coefficients: (N, 6, 64) float16: of the whole picture first, then of five parts of it that lack `_CUT` of height and width;
            each a unit vector, or zero for a picture without contrast.
        contrast: (N,) standard deviation of the luminance, in grey levels.
        small: (N, S, S) luminances, at half of `SIDE`, for a first look at candidates.
    """

    coefficients: NDArray[np.float16]
    contrast: NDArray[np.float32]
    small: NDArray[np.uint8]

    def take(self, rows: NDArray[np.int64]) -> Fingerprints:
        """Those of some photographs."""
        return Fingerprints(self.coefficients[rows], self.contrast[rows], self.small[rows])


def fingerprint(images: Images, rows: NDArray[np.int64], *, on_progress: Callable[[int, int], None] | None = None) -> Fingerprints:
    """Make the fingerprints of some photographs; cost: linear, nearly all of it decoding, by a thread per processor core.

    Args:
        images: Encoded images.
        rows: (N,) which of them.
        on_progress: Called with (photographs done, N) now and then.
    """
    none = np.zeros((0, SIDE, SIDE), dtype=np.uint8)
    parts = [_of_thumbnails(block) for block in chain([none], _in_blocks(images, rows, on_progress))]
    return Fingerprints(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def thumbnails(images: Images, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode photographs, at least one, as (N, `SIDE`, `SIDE`) luminances, stretched to a square."""
    return np.stack([_thumbnail(images[row]) for row in rows.tolist()])


def oriented(pictures: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Lay (B, S, S) pictures in one of the `ORIENTATIONS`."""
    transposed, flipped_y, flipped_x = ORIENTATIONS[orientation]
    if transposed:
        pictures = pictures.transpose(0, 2, 1)
    return pictures[:, :: -1 if flipped_y else 1, :: -1 if flipped_x else 1]


def oriented_coefficients(coefficients: NDArray[np.float16], orientation: int) -> NDArray[np.float16]:
    """What the (..., 64) coefficients of pictures become when the pictures are laid in one of the `ORIENTATIONS`."""
    transposed, flipped_y, flipped_x = ORIENTATIONS[orientation]
    if transposed:
        coefficients = coefficients[..., _TRANSPOSED]
    odd = (flipped_y * _ROW + flipped_x * _COLUMN) % 2
    return coefficients * (1 - 2 * odd).astype(np.float16)


def _in_blocks(
    images: Images, rows: NDArray[np.int64], on_progress: Callable[[int, int], None] | None
) -> Iterator[NDArray[np.uint8]]:
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="fingerprint") as pool:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK].tolist()
            yield np.stack(list(pool.map(lambda row: _thumbnail(images[row]), block)))
            if on_progress is not None:
                on_progress(start + len(block), len(rows))


def _thumbnail(data: memoryview) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (SIDE, SIDE))  # decoded at a half, a quarter or an eighth of its size, but not below this
        return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def _cosines(start: float, stop: float) -> NDArray[np.float32]:
    """(F, S) the lowest cosines over a part of the side, from `start` to `stop` in [0, 1]; pixels at its ends count by their share."""
    places = (np.arange(16 * SIDE) + 0.5) / (16 * SIDE)
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * (places - start) / (stop - start)) * (
        (places >= start) & (places < stop)
    )
    summed: NDArray[np.float32] = waves.reshape(_FREQUENCIES, SIDE, 16).sum(axis=2).astype(np.float32)
    return summed


_WHOLE, _LEFT, _RIGHT, _MIDDLE = _cosines(0, 1), _cosines(0, 1 - _CUT), _cosines(_CUT, 1), _cosines(_CUT / 2, 1 - _CUT / 2)
_PARTS = ((_WHOLE, _WHOLE), (_LEFT, _LEFT), (_LEFT, _RIGHT), (_RIGHT, _LEFT), (_RIGHT, _RIGHT), (_MIDDLE, _MIDDLE))


def _of_thumbnails(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.uint8]]:
    floats = _unframed(pictures.astype(np.float32))
    raw = np.stack([(y @ floats @ x.T)[:, _ROW, _COLUMN] for y, x in _PARTS], axis=1)  # (B, 6, 64)
    length = np.linalg.norm(raw, axis=2, keepdims=True)
    unit = np.divide(raw, length, out=np.zeros_like(raw), where=length > 0)
    return unit.astype(np.float16), pictures.std(axis=(1, 2), dtype=np.float32), halved(pictures)


def _unframed(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luminances less their mean where they are not black, and 0 elsewhere; of a picture that is black nearly everywhere, all."""
    seen = ~maximum_filter(pictures < BLACK, (1, 3, 3))
    seen |= seen.mean(axis=(1, 2), keepdims=True) < BARE
    mean = pictures.mean(axis=(1, 2), keepdims=True, where=seen)
    return np.where(seen, pictures - mean, np.float32(0))
