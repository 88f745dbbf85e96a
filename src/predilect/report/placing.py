"""Where names stand beside the dots of a scatter plot: near their own, over no other, each joined to its dot by a line where it is far.

No two of these lines cross and none goes through another dot where that can be, for a reader could not tell which name is whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Place", "place_names"]

Floats = NDArray[np.float64]

_NEAR = 5.0  # points between a dot and its name from which a line joins them
_DISTANCES = (2.6, 4.0, 6.0, 9.0, 13.0, 18.0, 24.0, 31.0, 39.0, 48.0, 60.0, 75.0, 92.0)  # points between a dot and its name
_DIRECTIONS = np.deg2rad(np.arange(0, 360, 15))
_TRIALS = 4  # the best of so many is taken
_UNREST = tuple(30.0 * 0.7**k for k in range(11))  # of the first rounds: names also take places that are so much worse, at random
_SWEEPS = 20  # rounds after these, at most
# What counts against a place, in points of distance.
_LONG = 60.0  # that its line is so long, once more
_FAR = 5.0  # that it needs a line
_MISTAKEN = 8.0  # that it needs none and another dot is nearer
_COVERS = 0.1  # each point of a whisker that it covers
_CROSSES = 200.0  # its line across another dot, which a reader could take for its own
_TANGLED = 300.0  # its line across another's: worse than any length
_THROUGH = 80.0  # a line through a name
_ON_TOP = 1e4  # a name over another


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name stands, in points.

    Attributes:
        centre: (2,) its middle.
        end: (2,) the point of it that is nearest to its dot.
        joined: Whether a line from the dot to `end` is needed.
    """

    centre: Floats
    end: Floats
    joined: bool


@dataclass(frozen=True, slots=True)
class _Choices:
    """The K places that one name may take: (K, 2) middles, (K, 4) boxes x0, y0, x1, y1, (K, 2) ends of lines, (K,) costs.

    `joined` (K,) tells which of them need their line.
    """

    dot: Floats
    centres: Floats
    boxes: Floats
    ends: Floats
    costs: Floats
    joined: NDArray[np.bool_]


def place_names(dots: Floats, sizes: Floats, marker: float, whiskers: Floats, frame: Floats) -> list[Place | None]:
    """Find a place for the name of each dot.

    Names look in turn for the best of some three hundred places, again and again, at first restlessly so that none stays where it
    only came first (simulated annealing, Christensen, Marks and Shieber 1995). The same dots give the same places. Work grows with
    the square of the number of dots.

    Args:
        dots: (n, 2) in points, as everything here; those given first keep their names where there is no room for all.
        sizes: (n, 2) width and height of the names.
        marker: Diameter of a dot. No name stands over one.
        whiskers: (m, 4) flat boxes x0, y0, x1, y1 that names should rather not cover.
        frame: (4,) in which names must lie.

    Returns:
        A place for each dot, or None where there is none without covering another name or crossing its line.
    """
    choices = [_choices(k, dots, sizes[k], marker=marker, whiskers=whiskers, frame=frame) for k in range(len(dots))]
    rng = np.random.default_rng(0)
    named = [k for k, each in enumerate(choices) if len(each.costs)]
    taken, _ = min((_settled(choices, named, rng) for _ in range(_TRIALS)), key=lambda found: found[1])
    standing: list[tuple[_Choices, int]] = []
    places: list[Place | None] = [None] * len(dots)
    for k in named:
        each = choices[k]
        free = _free(each, standing)
        if not free.any():
            continue
        others = [(choices[j], taken[j]) for j in named if j > k]
        chosen = taken[k] if free[taken[k]] else int(np.argmin(np.where(free, each.costs + _among(each, others), np.inf)))
        standing.append((each, chosen))
        places[k] = Place(each.centres[chosen], each.ends[chosen], bool(each.joined[chosen]))
    return places


def _choices(k: int, dots: Floats, size: Floats, *, marker: float, whiskers: Floats, frame: Floats) -> _Choices:
    """The places of one name that are inside the frame and over no dot, with what counts against each before other names do."""
    around = np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)], axis=1)
    distances = np.repeat(_DISTANCES, len(around))
    centres = dots[k] + np.tile(around, (len(_DISTANCES), 1)) * (size / 2 + distances[:, None])
    boxes = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
    marks = np.concatenate([dots - marker / 2, dots + marker / 2], axis=1)
    inside = (boxes[:, :2] >= frame[:2]).all(axis=1) & (boxes[:, 2:] <= frame[2:]).all(axis=1)
    free = inside & (_overlap(boxes, marks) <= 0).all(axis=1)
    centres, boxes, marks = centres[free], boxes[free], np.delete(marks, k, axis=0)
    ends = np.clip(dots[k], boxes[:, :2], boxes[:, 2:])
    length = np.hypot(*(ends - dots[k]).T)
    gaps = np.maximum(np.maximum(boxes[:, None, :2] - marks[:, 2:], marks[:, :2] - boxes[:, None, 2:]), 0)
    nearest = np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1, initial=np.inf)
    costs = length + length**2 / _LONG + np.where(length > _NEAR, _FAR, _MISTAKEN * (nearest < length))
    costs = costs + _COVERS * np.clip(_overlap(boxes, whiskers), 0, None).sum(axis=1)
    costs = costs + _CROSSES * _meets(dots[k], ends[:, None], marks).sum(axis=1)
    return _Choices(dots[k], centres, boxes, ends, costs, length > _NEAR)


def _free(each: _Choices, standing: Sequence[tuple[_Choices, int]]) -> NDArray[np.bool_]:
    """(K,) which places of a name cover none that stands, with a line that crosses none of theirs."""
    free = np.ones(len(each.costs), dtype=np.bool_)
    for other, chosen in standing:
        free &= _overlap(each.boxes, other.boxes[chosen][None])[:, 0] <= 0
        if other.joined[chosen]:
            free &= ~(each.joined & _cross(each.dot, each.ends, other.dot, other.ends[chosen]))
    return free


def _settled(choices: Sequence[_Choices], named: Sequence[int], rng: np.random.Generator) -> tuple[dict[int, int], float]:
    """Each name's choice when none wants another one, or rounds are over, and what counts against them all."""
    taken: dict[int, int] = {}

    def against(k: int) -> Floats:
        return choices[k].costs + _among(choices[k], [(choices[j], chosen) for j, chosen in taken.items() if j != k])

    for unrest in (*_UNREST, *[0.0] * _SWEEPS):
        before = dict(taken)
        for k in rng.permutation(named).tolist():
            costs = against(k)
            taken[k] = int(np.argmin(costs + rng.gumbel(0, unrest, len(costs)) if unrest else costs))
        if not unrest and taken == before:
            break
    return taken, sum(float(against(k)[chosen]) for k, chosen in taken.items())


def _among(each: _Choices, others: Sequence[tuple[_Choices, int]]) -> Floats:
    """(K,) what counts against the places of a name, given where others stand."""
    if not others:
        return np.zeros(len(each.costs))
    boxes = np.array([other.boxes[chosen] for other, chosen in others])
    ends = np.array([other.ends[chosen] for other, chosen in others])
    dots = np.array([other.dot for other, _ in others])
    own_ends, own_boxes = each.ends[:, None], each.boxes[:, None]
    against: Floats = (
        _ON_TOP * (_overlap(each.boxes, boxes) > 0)
        + _THROUGH * _meets(each.dot, own_ends, boxes)
        + _THROUGH * _meets(dots, ends, own_boxes)
        + _TANGLED * _cross(each.dot, own_ends, dots, ends)
    ).sum(axis=1)
    return against


def _overlap(boxes: Floats, others: Floats) -> Floats:
    """(n, m): how far each pair of boxes overlaps along its longer overlap; below 0 where the two are apart."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Floats = high - low
    return np.where((shared < 0).any(axis=2), -1.0, shared.max(axis=2, initial=0.0))


def _meets(start: Floats, end: Floats, box: Floats) -> NDArray[np.bool_]:
    """Whether lines from `start` to `end` (..., 2) touch boxes (..., 4); shapes are broadcast."""
    way = end - start
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    one, other = (box[..., :2] - start) / way, (box[..., 2:] - start) / way  # where the line enters and leaves, per axis
    enters, leaves = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
    return np.asarray((enters <= leaves) & (leaves >= 0) & (enters <= 1))


def _cross(a: Floats, b: Floats, c: Floats, d: Floats) -> NDArray[np.bool_]:
    """Whether the lines from a to b and from c to d (..., 2) cross; shapes are broadcast."""

    def side(p: Floats, q: Floats, r: Floats) -> Floats:
        return np.asarray((q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0]))

    return np.asarray((side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0))
