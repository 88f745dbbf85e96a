"""The canvas that a drawing is painted on, and the brushes that all painters share.

Everything is placed in scene units: the frame of an unzoomed view spans [-1, 1] in both directions, v points down. A canvas
holds relief and colour apart, so that one light falls on skin and lesions alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["BLOOD", "PIGMENT", "Canvas", "Color", "Field", "Patch", "View", "blob", "coordinates", "mix", "noise", "step", "turned"]

Field = NDArray[Any]
"""One number for each point, (H, W); float32, or bool as a mask."""

Color = tuple[float, float, float]
"""Red, green and blue in [0, 1]."""

BLOOD: Color = (0.08, 0.52, 0.46)
"""What share of red, green and blue light a full layer of blood takes away."""

PIGMENT: Color = (0.42, 0.60, 0.70)
"""What share of red, green and blue light a full layer of melanin takes away."""


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera stands.

    Attributes:
        u: Scene coordinate of the middle of the frame, to the right.
        v: The same, downwards.
        zoom: Pixels per scene unit, relative to the whole scene filling the frame.
        angle: Rotation in radians.
        mirrored: Whether left and right are exchanged.
    """

    u: float
    v: float
    zoom: float
    angle: float
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Patch:
    """A window of the canvas around one lesion: pixel ranges, and the distances from its middle in scene units."""

    rows: slice
    columns: slice
    du: Field
    dv: Field

    @property
    def at(self) -> tuple[slice, slice]:
        """Index of the window in the fields of the canvas."""
        return self.rows, self.columns

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.du.shape[0], self.du.shape[1]


class Canvas:
    """A square picture in the making.

    Attributes:
        side: Height and width in pixels.
        u: (S, S) scene coordinate of each pixel, to the right.
        v: (S, S) the same, downwards.
        scale: Pixels per scene unit.
        albedo: (3, S, S) red, green and blue under white light, in [0, 1].
        relief: (S, S) height towards the camera, in scene units.
        gloss: (S, S) how wet or smooth the surface is, 0 (dull) to 1.
        hair: (S, S) density of hair, 0 to 1.
    """

    def __init__(self, side: int, view: View) -> None:
        self.side = side
        self.scale = side / 2 * view.zoom
        c, s = math.cos(view.angle), math.sin(view.angle)
        flip = -1.0 if view.mirrored else 1.0
        self._to_scene = np.array([[flip * c, -flip * s], [s, c]]) / self.scale
        self._to_pixels = np.linalg.inv(self._to_scene)
        self._middle = np.array([view.u, view.v])
        ticks = np.arange(side, dtype=np.float32) + np.float32(0.5 - side / 2)
        m = self._to_scene.astype(np.float32)
        self.u: Field = m[0, 0] * ticks + m[0, 1] * ticks[:, None] + np.float32(view.u)
        self.v: Field = m[1, 0] * ticks + m[1, 1] * ticks[:, None] + np.float32(view.v)
        self.albedo = np.ones((3, side, side), np.float32)
        self.relief: Field = np.zeros((side, side), np.float32)
        self.gloss: Field = np.zeros((side, side), np.float32)
        self.hair: Field = np.zeros((side, side), np.float32)

    def to_pixels(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (..., 2) scene directions into pixel directions."""
        return directions @ self._to_pixels.T

    def patch(self, u: float, v: float, radius: float) -> Patch:
        """The window that holds a disc; empty where the disc lies outside of the frame."""
        x, y = self.to_pixels(np.array([u, v]) - self._middle) + self.side / 2
        reach = radius * self.scale + 1
        rows = slice(max(0, int(y - reach)), max(0, min(self.side, int(y + reach) + 1)))
        columns = slice(max(0, int(x - reach)), max(0, min(self.side, int(x + reach) + 1)))
        return Patch(rows, columns, self.u[rows, columns] - np.float32(u), self.v[rows, columns] - np.float32(v))

    def absorb(self, patch: Patch, share: Field, layer: Color) -> None:
        """Take light away, as blood or pigment in the skin does; `share` in [0, 1] is how much of the layer there is."""
        for plane, taken in zip(self.albedo, layer, strict=True):
            plane[patch.at] *= 1 - taken * share

    def cover(self, patch: Patch, share: Field, color: Color) -> None:
        """Lay an opaque colour over the skin where `share` is 1, and mix where it is less."""
        for plane, laid in zip(self.albedo, color, strict=True):
            plane[patch.at] += share * (laid - plane[patch.at])

    def whole(self) -> Patch:
        """The window that is the whole canvas, measured from the origin of the scene."""
        return Patch(slice(0, self.side), slice(0, self.side), self.u, self.v)


def coordinates(side: int, reach: float) -> tuple[Field, Field]:
    """Scene coordinates (u, v) of an unturned grid of `side` x `side` points over [-reach, reach]."""
    ticks = np.linspace(-reach, reach, side, dtype=np.float32)
    return np.broadcast_to(ticks, (side, side)), np.broadcast_to(ticks[:, None], (side, side))


def mix(first: Color, second: Color | NDArray[np.float32], share: float) -> Color:
    """A colour between two: the first where `share` is 0, the second where it is 1."""
    red, green, blue = ((1 - share) * float(a) + share * float(b) for a, b in zip(first, second, strict=True))
    return red, green, blue


def step(x: Field, low: float, high: float) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high`, or fall where `low` is the larger (Hermite's cubic)."""
    t = (x - low) * (1 / (high - low))
    np.clip(t, 0, 1, out=t)
    smooth: Field = t * t * (3 - 2 * t)
    return smooth


def noise(rng: np.random.Generator, knots: int, shape: tuple[int, int]) -> Field:
    """A smooth random surface of about unit variance with `knots` x `knots` bumps, whatever the resolution."""
    lattice = rng.standard_normal((knots, knots), dtype=np.float32)
    if 0 in shape:
        return np.zeros(shape, np.float32)
    return np.asarray(Image.fromarray(lattice).resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32) * np.float32(1.3)


def blob(rng: np.random.Generator, patch: Patch, radius: float, roughness: float = 0.12, stretch: float = 0.2) -> Field:
    """Distance from the rim of a rounded, irregular shape, in its radii: below 0 outside, 0 at the rim, 1 in the middle.

    Args:
        rng: Decides the shape.
        patch: Where to measure.
        radius: Mean radius in scene units.
        roughness: How far the rim waves in and out, relative to the radius.
        stretch: How far the shape is longer than wide, at most.
    """
    turn, longer = rng.uniform(0, math.pi), 1 + rng.uniform(0, stretch)
    waves = (rng.normal(0, roughness, (2, 4)) / np.arange(2, 6) * 1.4).astype(np.float32)
    along, across = turned(patch, turn)
    spoke = along / longer + np.complex64(1j) * (across * longer)
    distance = np.abs(spoke)
    spoke /= distance + np.float32(1e-6)  # on the unit circle, so its powers are the harmonics of the bearing
    harmonic, swell = spoke, np.ones_like(distance)
    for even, odd in waves.T:
        harmonic = harmonic * spoke
        swell += even * harmonic.real + odd * harmonic.imag
    rim: Field = 1 - swell * distance / radius
    return rim


def turned(patch: Patch, angle: float) -> tuple[Field, Field]:
    """Distances from the middle of a window along a direction and across it, in scene units."""
    c, s = math.cos(angle), math.sin(angle)
    return c * patch.du + s * patch.dv, c * patch.dv - s * patch.du
