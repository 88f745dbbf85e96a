"""The shapes that bodies are made of, and the body as it is handed to the painter.

A shape is given by the depth of each point inside it: the distance to its outline in scene units, positive inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from predilect.atlas.painting.canvas import Color, Field

__all__ = ["Body", "Layer", "Point", "bump", "capsule", "ellipse", "line", "merged", "rounded"]

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layer:
    """Colour that belongs to the body.

    Attributes:
        share: (H, W) in [0, 1].
        color: What is absorbed, or the colour laid over.
        kind: ``absorbed`` by the skin; ``tinted``: laid over it but following its tone, as nails and palms do; ``opaque``: laid
            over skin and lesions alike, as clothes are.
    """

    share: Field
    color: Color
    kind: Literal["absorbed", "tinted", "opaque"] = "absorbed"


@dataclass(frozen=True, slots=True)
class Body:
    """A part of the body, measured at (H, W) points.

    Attributes:
        depth: Distance to the outline in scene units, positive inside.
        relief: Height of the surface, in scene units.
        hair: Density of hair, 0 to 1.
        comb: The two components of the direction in which hair lies, of any length.
        bare: Whether a lesion may be placed: not on eyes, lips, nails and clothes.
        strand: Length of a hair, in scene units.
        layers: Colours, the first one painted first.
    """

    depth: Field
    relief: Field
    hair: Field
    comb: tuple[Field, Field]
    bare: NDArray[np.bool_]
    strand: float = 0.12
    layers: list[Layer] = field(default_factory=list)


def capsule(u: Field, v: Field, ends: tuple[Point, Point], radii: tuple[float, float]) -> Field:
    """Depth inside a rod from one end to the other, whose radius goes from the first to the second."""
    (au, av), (bu, bv) = ends
    du, dv = bu - au, bv - av
    t = np.clip(((u - au) * du + (v - av) * dv) / (du * du + dv * dv), 0, 1)
    return radii[0] + t * (radii[1] - radii[0]) - np.hypot(u - au - t * du, v - av - t * dv)


def ellipse(u: Field, v: Field, center: Point, a: float, b: float) -> Field:
    """Depth inside an ellipse with half-axes `a` along u and `b` along v; only near the rim is it a distance."""
    return (1 - np.hypot((u - center[0]) / a, (v - center[1]) / b)) * min(a, b)


def merged(first: Field, second: Field, softness: float) -> Field:
    """Depth inside the union of two shapes whose inner corner is filled (polynomial smooth maximum)."""
    h = np.maximum(softness - np.abs(first - second), 0) / softness
    depth: Field = np.maximum(first, second) + h * h * softness / 4
    return depth


def rounded(depth: Field, radius: float) -> Field:
    """Relief of a surface that falls away towards its outline over `radius`, as a cylinder does."""
    t = 1 - np.clip(depth / radius, 0, 1)
    return 0.7 * radius * np.sqrt(1 - t * t + 1e-4)


def bump(u: Field, v: Field, center: Point, a: float, b: float) -> Field:
    """A Gaussian bump of height 1 and widths `a` along u and `b` along v."""
    return np.exp(-(((u - center[0]) / a) ** 2) - ((v - center[1]) / b) ** 2)


def line(distance: Field, width: float) -> Field:
    """1 on a line, falling to 0 away from it (a Gaussian of the distance)."""
    return np.exp(-((distance / width) ** 2))
