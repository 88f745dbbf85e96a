"""Whether two photographs are one photograph: they are laid over each other, and the detail of their skin is compared.

Close-ups of different lesions resemble each other in everything that is large: a dark spot in the middle of plain skin. What
only copies share is the detail, the hairs and furrows and grain, and sharing shows only where the two are laid over each other
to a fraction of a pixel. So a crop is undone first, then detail is compared with the local contrast evened out, lest one dark spot
decide.

Different photographs share detail too where something was laid over both: the round field of a dermatoscope, a bar over the eyes, a
frame, a ruler, a printed name. Therefore what is black, white or of one colour is left out with its edges, and the rest must agree
also without any quarter of the picture and without the strip along any side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

__all__ = ["BARE", "BLACK", "Pose", "halved", "resemblance", "resemblance_at_half", "resemblance_in_full"]

Pixels = NDArray[np.float32]
Pose = NDArray[np.float32]
"""(B, 4) scale and shift in y, then in x, in halves of the side, with which a second picture is read to lie over a first."""

_LARGEST_SCALE = 1.18  # either picture may lack an eighth of the other's height or width
_LARGEST_SHIFT = 0.2  # of half the side
_STEP = 0.08  # of half the side, at most, in one iteration
_COARSE = ((2, 1.0), (1, 0.7))  # reduction of the grid, and blur on it in pixels
_FINE = ((1, 0.7),)
_ITERATIONS = 3

_DETAIL = 1.5  # pixels; what a Gaussian of this width takes away is detail
_NEIGHBOURHOOD = 4.0  # pixels over which contrast is evened out
_FAINT = 6.0  # grey levels; detail fainter than this counts for less, since compression makes such by itself

BARE = 0.08
"""Share of a picture that must be left to be compared, once what is black, white or of one colour is left out."""

BLACK = 20
"""Luminance below which nothing of the skin is seen."""

_WHITE = 246
_ONE_COLOUR = 2  # grey levels by which compression lets a painted area vary
_PAINTED = 5  # pixels, height and width of the least such area
_EDGE = 6  # pixels beside such an area that show its edge, as far as detail and the evening out reach
_EDGE_AT_HALF = 4

_TILES = 8  # along each side
_LENIENCY = 1.5  # so many times the correlation of the rest: a copy's detail may lie mostly in the part that is left out
_NO_DETAIL = 1e-3  # sum of squares of evened detail, over a part: rounding alone


def _parts_left() -> NDArray[np.float64]:
    """(64, 14) which tiles count: all, all but the strip along a side, all but a quarter, at nine places."""
    along = np.arange(_TILES)
    strips = [along < 3, along >= _TILES - 3]
    windows = [(along >= start) & (along < start + _TILES // 2) for start in (0, 2, 4)]
    everywhere = np.ones(_TILES, dtype=np.bool_)
    removed = [np.outer(~everywhere, everywhere)]
    removed += [np.outer(*pair) for strip in strips for pair in ((strip, everywhere), (everywhere, strip))]
    removed += [np.outer(y, x) for y in windows for x in windows]
    return np.stack([~part for part in removed], axis=-1).reshape(_TILES**2, -1).astype(np.float64)


_LEFT = _parts_left()


def resemblance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compare pairs of pictures in their detail, whatever small part of one the other lacks.

    A scale and a shift along each axis, and a gain and an offset in brightness, are fitted by least squares (Lucas and Kanade,
    1981; coarse to fine). Then the correlation of the detail is taken where the pictures overlap: what a Gaussian blur takes
    away, divided by its local strength. What is black, white or of one colour is not compared. The correlation is also taken
    without each of nine quarters of the picture and without the three eighths along each side; it counts at most 1.5 times the
    least of these, so that something printed on both pictures does not make them one. This is done at half and at full resolution,
    and the smaller figure counts: 1 for equal pictures, near 0 for different ones however alike they look from afar.

    Args:
        first: (B, S, S) luminances; S is a multiple of 16.
        second: (B, S, S).

    Returns:
        (B,) in [-1, 1]; 0 where a picture has no detail at all, or less than `BARE` of it is left to compare.
    """
    half, pose = resemblance_at_half(halved(first), halved(second))
    return np.minimum(half, resemblance_in_full(first, second, pose))


def resemblance_at_half(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[NDArray[np.float64], Pose]:
    """The first half of `resemblance`, which rules most pairs out at a fraction of the cost.

    Args:
        first: (B, S / 2, S / 2) luminances, such as `halved` returns.
        second: (B, S / 2, S / 2).

    Returns:
        (B,) correlations of the detail, and (B, 4) how the second lies over the first.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    pose = _fitted(np.tile(np.array([1, 0, 1, 0], dtype=np.float32), (len(a), 1)), a, b, _COARSE)
    return _compared(a, b, pose, _EDGE_AT_HALF), pose


def resemblance_in_full(first: NDArray[np.uint8], second: NDArray[np.uint8], pose: Pose) -> NDArray[np.float64]:
    """The second half of `resemblance`: (B,) correlations of the detail of (B, S, S) luminances, from a pose found at half size."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    return _compared(a, b, _fitted(pose, a, b, _FINE), _EDGE)


def halved(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, S, S) luminances at half their height and width."""
    return np.rint(_reduced(pictures.astype(np.float32), 2)).astype(np.uint8)


def _of_skin(pictures: Pixels, edge: int) -> NDArray[np.bool_]:
    """Where (B, S, S) luminances may show skin: not so near to black or white, or to areas of one colour as bars and drapes are."""
    window = (1, _PAINTED, _PAINTED)
    plain = maximum_filter(pictures, window) - minimum_filter(pictures, window) <= _ONE_COLOUR
    hidden = maximum_filter(plain, window) | (pictures < BLACK) | (pictures > _WHITE)
    skin: NDArray[np.bool_] = ~maximum_filter(hidden, (1, 2 * edge + 1, 2 * edge + 1))
    return skin


def _compared(a: Pixels, b: Pixels, pose: Pose, edge: int) -> NDArray[np.float64]:
    y, x, inside = _places(pose, b.shape[1])
    skin = [_of_skin(each, edge).astype(np.float32) for each in (a, b)]
    inside = inside * skin[0] * (_read(skin[1], y, x) > 0.5)
    return _agreement(_detail(a), _detail(_read(b, y, x)), inside)


def _fitted(pose: Pose, a: Pixels, b: Pixels, levels: Sequence[tuple[int, float]]) -> Pose:
    """A better pose."""
    for reduction, blur in levels:
        small_a, small_b = (gaussian_filter(_reduced(each, reduction), (0, blur, blur)) for each in (a, b))
        half = np.float32((small_a.shape[1] - 1) / 2)
        slopes = [np.gradient(small_b, axis=axis) * half for axis in (1, 2)]
        for _ in range(_ITERATIONS):
            pose = _stepped(pose, small_a, small_b, slopes)
    return pose


def _stepped(pose: Pose, a: Pixels, b: Pixels, slopes: list[Pixels]) -> Pose:
    """One Gauss-Newton step: gain and offset of brightness, and the change of the pose, by linear least squares."""
    y, x, inside = _places(pose, a.shape[1])
    warped, slope_y, slope_x = (_read(each, y, x) for each in (b, *slopes))
    side = _coordinates(a.shape[1])
    columns = (warped, np.ones_like(warped), slope_y * side[:, None], slope_y, slope_x * side, slope_x)
    matrix = np.stack([column * inside for column in columns], axis=-1).reshape(len(a), -1, len(columns))
    target = (a * inside).reshape(len(a), -1, 1)
    normal = matrix.transpose(0, 2, 1) @ matrix
    ridge = 1e-5 * np.trace(normal, axis1=1, axis2=2) / len(columns) + 1e-6
    normal += ridge[:, None, None] * np.eye(len(columns), dtype=np.float32)
    found = np.linalg.solve(normal, matrix.transpose(0, 2, 1) @ target)[..., 0]  # (B, 6)
    gain = np.maximum(found[:, :1], 0.2)
    pose = pose + np.clip(found[:, 2:] / gain, -_STEP, _STEP)
    pose[:, ::2] = np.clip(pose[:, ::2], 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    pose[:, 1::2] = np.clip(pose[:, 1::2], -_LARGEST_SHIFT, _LARGEST_SHIFT)
    return pose


def _detail(pictures: Pixels) -> Pixels:
    detail = pictures - gaussian_filter(pictures, (0, _DETAIL, _DETAIL))
    power = gaussian_filter(detail * detail, (0, _NEIGHBOURHOOD, _NEIGHBOURHOOD))
    evened: Pixels = detail / np.sqrt(power + _FAINT**2)
    return evened


def _agreement(a: Pixels, b: Pixels, inside: Pixels) -> NDArray[np.float64]:
    """(B,) the correlation, at most what `_LENIENCY` makes of that of each part in `_LEFT`; 0 where less than `BARE` is inside."""
    n, *sums = (_in_parts(each * inside) for each in (np.ones_like(a), a, b, a * b, a * a, b * b))
    share = 1 / np.maximum(n, 1)
    product, *powers = (sums[k] - sums[i] * sums[j] * share for k, i, j in ((2, 0, 1), (3, 0, 0), (4, 1, 1)))
    strength = np.sqrt(np.maximum(powers[0], 0) * np.maximum(powers[1], 0))
    found = np.divide(product, strength, out=np.zeros_like(product), where=strength > _NO_DETAIL)
    agreed = np.minimum(found[:, 0], _LENIENCY * found[:, 1:].min(axis=1))
    least: NDArray[np.float64] = np.where(n[:, 0] >= BARE * a[0].size, agreed, 0)
    return least


def _in_parts(values: Pixels) -> NDArray[np.float64]:
    """(B, 14) sums over the `_LEFT` parts of (B, S, S) values."""
    n, side, _ = values.shape
    tiles = values.reshape(n, _TILES, side // _TILES, _TILES, side // _TILES).sum(axis=(2, 4), dtype=np.float64)
    sums: NDArray[np.float64] = tiles.reshape(n, -1) @ _LEFT
    return sums


def _places(pose: Pose, side: int) -> tuple[Pixels, Pixels, Pixels]:
    """(B, S, 1) rows and (B, 1, S) columns to read at, in pixels, and (B, S, S) 1 where both lie within the picture."""
    places = [pose[:, k, None] * _coordinates(side) + pose[:, k + 1, None] for k in (0, 2)]  # (B, S), -1 to 1
    within = [np.abs(place) <= 1 for place in places]
    y, x = ((place + 1) * np.float32((side - 1) / 2) for place in places)
    return y[:, :, None], x[:, None, :], (within[0][:, :, None] & within[1][:, None, :]).astype(np.float32)


def _read(pictures: Pixels, y: Pixels, x: Pixels) -> Pixels:
    """Bilinear: first between rows, then between columns, since rows and columns are read independently."""
    last = pictures.shape[1] - 1
    for axis, place in ((1, y), (2, x)):
        clipped = np.clip(place, 0, last)
        below = np.minimum(clipped.astype(np.intp), last - 1)
        share = clipped - below
        lower, upper = (np.take_along_axis(pictures, at, axis=axis) for at in (below, below + 1))
        pictures = lower + share.astype(np.float32) * (upper - lower)
    return pictures


def _reduced(pictures: Pixels, factor: int) -> Pixels:
    n, side, _ = pictures.shape
    reduced: Pixels = pictures.reshape(n, side // factor, factor, side // factor, factor).mean(axis=(2, 4))
    return reduced


def _coordinates(side: int) -> Pixels:
    return np.linspace(-1, 1, side, dtype=np.float32)
