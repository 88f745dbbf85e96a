"""Where the lesions of an eruption lie on a body."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predilect.atlas.painting.bodies import BODIES
from predilect.atlas.painting.canvas import Field, coordinates
from predilect.atlas.painting.drawing import Drawing
from predilect.atlas.painting.marks import MARKS
from predilect.atlas.painting.shapes import Body
from predilect.randomness import stream

__all__ = ["Plan", "measure", "place"]

_SIDE, _REACH = 56, 1.0  # the grid on which room is looked for
_TRIES = 80
_APART = 0.12  # the middles of different lesions from the focus, in scene units


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """The eruption of a drawing.

    Attributes:
        focus: (u, v) of its middle, in scene units.
        marks: For each raw term that is drawn, (K, 3) rows of u, v and radius in scene units.
    """

    focus: tuple[float, float]
    marks: dict[str, NDArray[np.float64]]


def measure(drawing: Drawing, u: Field, v: Field) -> Body:
    """The body of a drawing at the given scene coordinates."""
    return BODIES[drawing.site](u, v, stream(drawing.scene_seed, "anatomy"), drawing.kind)


def place(drawing: Drawing) -> Plan:
    """Choose the middle of the eruption and strew the lesions around it, on bare skin only; a function of the scene's seed."""
    u, v = coordinates(_SIDE, _REACH)
    body = measure(drawing, u, v)
    room = np.where(body.bare, body.depth, -1)
    rng = stream(drawing.scene_seed, "focus")
    middles = (room > 0.12) & (np.hypot(u, v) < 0.62)
    hairy = middles & (body.hair > 0.2)
    if "alopecia" in drawing.lesions and hairy.any():
        middles = hairy
    row, column = rng.choice(np.argwhere(middles))
    focus = (float(u[row, column]), float(v[row, column]))
    marks: dict[str, NDArray[np.float64]] = {}
    for order, term in enumerate(MARKS):
        if term in drawing.lesions:
            own = stream(drawing.scene_seed, "place", order)
            bearing = own.uniform(0, 2 * math.pi)
            centers = np.array([[focus[0] + _APART * math.cos(bearing), focus[1] + _APART * math.sin(bearing)]])
            if term == "scale" and "plaque" in marks:  # scale sits on a plaque where there is one
                centers = marks["plaque"][:, :2]
            marks[term] = _strew(term, centers, room, own)
    return Plan(focus, marks)


def _strew(term: str, centers: NDArray[np.float64], room: Field, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rows of (u, v, radius): the first at a centre, the others around the centres, none far off the skin or upon another."""
    kind = MARKS[term]
    wanted = int(rng.integers(kind.count[0], kind.count[1] + 1))
    radii = rng.uniform(*kind.radius, _TRIES) * rng.uniform(0.85, 1.15)
    points = centers[rng.integers(len(centers), size=_TRIES)] + rng.normal(0, kind.spread, (_TRIES, 2))
    points[: len(centers)] = centers
    cells = np.rint((points + _REACH) / (2 * _REACH) * (_SIDE - 1)).astype(np.int64)
    inside = ((cells >= 0) & (cells < _SIDE)).all(axis=1)
    cells = cells.clip(0, _SIDE - 1)
    fits = inside & (room[cells[:, 1], cells[:, 0]] > 0.5 * np.minimum(radii, 0.12))
    chosen = [0]
    for k in np.flatnonzero(fits).tolist():
        if len(chosen) >= wanted:
            break
        gaps = np.hypot(*(points[chosen] - points[k]).T) - 1.05 * (radii[chosen] + radii[k])
        if gaps.min() > 0:
            chosen.append(k)
    return np.column_stack([points[chosen], radii[chosen]])
