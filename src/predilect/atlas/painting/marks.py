"""Seventeen kinds of lesion, each painted on the canvas in a window around its middle.

The words are those of dermatology; the looks are a draughtsman's. Each painter takes the canvas, a generator of its own, a
middle in scene units and a radius, and changes colour, relief, gloss and hair there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from predilect.atlas.painting.canvas import BLOOD, PIGMENT, Canvas, Color, Field, Patch, blob, mix, noise, step, turned

__all__ = ["MARKS", "MarkKind"]

Rng = np.random.Generator
Painter = Callable[[Canvas, Rng, float, float, float], None]

_SCALE: Color = (0.92, 0.90, 0.86)
_PUS: Color = (0.93, 0.87, 0.58)
_HONEY: Color = (0.72, 0.49, 0.20)
_SCAB: Color = (0.36, 0.17, 0.11)
_FLESH: Color = (0.56, 0.13, 0.13)
_SLOUGH: Color = (0.80, 0.68, 0.40)
_PLUG: Color = (0.15, 0.11, 0.09)


@dataclass(frozen=True, slots=True)
class MarkKind:
    """How one kind of lesion is strewn and painted.

    Attributes:
        paint: Paints a single one.
        count: Fewest and most in a photograph.
        radius: Smallest and largest, in scene units.
        spread: How far from the middle of the eruption they lie, in scene units (standard deviation).
    """

    paint: Painter
    count: tuple[int, int]
    radius: tuple[float, float]
    spread: float


def _dome(rim: Field) -> Field:
    """A rounded elevation of height 1 over a shape whose rim is at 0."""
    t = np.clip(rim, 0, 1)
    dome: Field = np.sqrt(t * (2 - t))
    return dome


def _halo(canvas: Canvas, patch: Patch, radius: float, share: float) -> None:
    """Redness that fades into the skin around a lesion."""
    distance = np.hypot(patch.du, patch.dv) / radius
    canvas.absorb(patch, share * np.exp(-(distance**2)), BLOOD)


def _part_hair(canvas: Canvas, patch: Patch, share: Field) -> None:
    canvas.hair[patch.at] *= 1 - share


def _papule(canvas: Canvas, rng: Rng, u: float, v: float, r: float, *, redness: float) -> None:
    patch = canvas.patch(u, v, 2.2 * r)
    rim = blob(rng, patch, r, 0.05, 0.15)
    _halo(canvas, patch, 1.5 * r, 0.45 * redness)
    canvas.absorb(patch, redness * rng.uniform(0.8, 1.1) * step(rim, -0.15, 0.35), BLOOD)
    canvas.relief[patch.at] += 0.55 * r * _dome(rim)
    canvas.gloss[patch.at] += 0.25 * step(rim, 0, 0.5)
    _part_hair(canvas, patch, step(rim, -0.8, 0))


def _red_papule(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    _papule(canvas, rng, u, v, r, redness=rng.uniform(0.55, 0.85))


def _plain_papule(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    _papule(canvas, rng, u, v, r, redness=rng.uniform(0.15, 0.35))


def _nodule(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 2 * r)
    rim = blob(rng, patch, r, 0.05, 0.2)
    redness = rng.uniform(0.2, 0.6)
    _halo(canvas, patch, 1.5 * r, 0.4 * redness)
    canvas.absorb(patch, redness * step(rim, -0.1, 0.4), BLOOD)
    canvas.absorb(patch, rng.uniform(0, 0.3) * step(rim, -0.1, 0.4), PIGMENT)
    canvas.relief[patch.at] += 0.75 * r * _dome(rim)
    canvas.gloss[patch.at] += 0.55 * step(rim, 0, 0.3)
    _part_hair(canvas, patch, step(rim, -0.6, 0))


def _spot(canvas: Canvas, rng: Rng, u: float, v: float, r: float, *, blood: float, pigment: float) -> None:
    """A flat spot of colour; what kind of spot, only its hue tells."""
    patch = canvas.patch(u, v, 1.8 * r)
    share = step(blob(rng, patch, r, 0.10, 0.3), -0.15, 0.25)
    canvas.absorb(patch, blood * share, BLOOD)
    canvas.absorb(patch, pigment * share, PIGMENT)
    _part_hair(canvas, patch, 0.6 * share)


def _macule(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    _spot(canvas, rng, u, v, r, blood=rng.uniform(0.05, 0.3), pigment=rng.uniform(0.45, 0.75))


def _purpura(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    _spot(canvas, rng, u, v, r, blood=rng.uniform(0.45, 0.8), pigment=rng.uniform(0.25, 0.45))


def _plaque(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 1.7 * r)
    rim = blob(rng, patch, r, 0.13, 0.35) + 0.03 * noise(rng, 9, patch.shape)
    mottle = 1 + 0.15 * noise(rng, 7, patch.shape)
    canvas.absorb(patch, np.clip(rng.uniform(0.45, 0.8) * step(rim, -0.08, 0.12) * mottle, 0, 1), BLOOD)
    canvas.relief[patch.at] += 0.045 * step(rim, -0.02, 0.14) * (1 + 0.1 * noise(rng, 12, patch.shape))
    _part_hair(canvas, patch, 0.65 * step(rim, -0.2, 0.1))


def _scale(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 1.5 * r)
    rim = blob(rng, patch, r, 0.15, 0.3)
    flakes = step(noise(rng, 13, patch.shape) + 0.5 * noise(rng, 24, patch.shape), 0.0, 0.5) * step(rim, 0, 0.25)
    canvas.cover(patch, rng.uniform(0.55, 0.85) * flakes, _dimmed(canvas, patch, _SCALE))
    canvas.relief[patch.at] += 0.02 * flakes
    _part_hair(canvas, patch, 0.7 * step(rim, -0.1, 0.2))


def _dimmed(canvas: Canvas, patch: Patch, color: Color) -> Color:
    """A colour laid thinly over skin takes on some of its tone."""
    if 0 in patch.shape:
        return color
    skin = canvas.albedo[:, *patch.at].mean(axis=(1, 2))
    return mix(color, skin, 0.25)


def _vesicle(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 2.4 * r)
    rim = blob(rng, patch, r, 0.03, 0.1)
    _halo(canvas, patch, 1.9 * r, rng.uniform(0.35, 0.6))
    inside = step(rim, -0.1, 0.3)
    canvas.cover(patch, rng.uniform(0.25, 0.45) * inside, (0.93, 0.86, 0.78))
    canvas.relief[patch.at] += 0.7 * r * _dome(rim)
    canvas.gloss[patch.at] += 1.1 * inside
    _part_hair(canvas, patch, step(rim, -0.8, 0))


def _pustule(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 2.4 * r)
    rim = blob(rng, patch, r, 0.04, 0.1)
    _halo(canvas, patch, 1.7 * r, rng.uniform(0.5, 0.8))
    canvas.cover(patch, rng.uniform(0.55, 0.9) * step(rim, 0.2, 0.65), _dimmed(canvas, patch, _PUS))
    canvas.relief[patch.at] += 0.6 * r * _dome(rim)
    canvas.gloss[patch.at] += 0.4 * step(rim, 0.1, 0.5)
    _part_hair(canvas, patch, step(rim, -0.8, 0))


def _comedone(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 2 * r)
    rim = blob(rng, patch, r, 0.03, 0.1)
    canvas.relief[patch.at] += 0.35 * r * _dome(rim + 0.5)
    canvas.cover(patch, rng.uniform(0.6, 0.9) * step(rim, 0.0, 0.5), _PLUG)


def _crust(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 2 * r)
    rim = blob(rng, patch, r, 0.22, 0.3) + 0.10 * noise(rng, 9, patch.shape)
    _halo(canvas, patch, 1.3 * r, rng.uniform(0.3, 0.55))
    share = step(rim, 0.0, 0.2)
    old = rng.uniform(0, 0.9)
    canvas.cover(patch, 0.88 * share, mix(_HONEY, _SCAB, old))
    canvas.absorb(patch, np.clip(0.35 * noise(rng, 11, patch.shape), 0, 1) * share, PIGMENT)
    canvas.relief[patch.at] += share * (0.05 + 0.025 * noise(rng, 12, patch.shape))
    canvas.gloss[patch.at] += 0.25 * share
    _part_hair(canvas, patch, step(rim, -0.2, 0))


def _erode(canvas: Canvas, rng: Rng, u: float, v: float, r: float, *, depth: float, slough: float) -> None:
    patch = canvas.patch(u, v, 1.9 * r)
    rim = blob(rng, patch, r, 0.12, 0.3)
    _halo(canvas, patch, 1.35 * r, 0.4)
    floor = step(rim, -0.02, 0.12)
    canvas.cover(patch, 0.85 * floor, _FLESH)
    canvas.cover(patch, slough * floor * step(noise(rng, 6, patch.shape), 0.2, 0.9), _SLOUGH)
    edge = np.exp(-(((rim + 0.06) / 0.10) ** 2))
    canvas.relief[patch.at] += depth * (0.6 * edge - floor) * r
    canvas.gloss[patch.at] += 0.7 * floor
    _part_hair(canvas, patch, step(rim, -0.3, 0))


def _ulcer(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    _erode(canvas, rng, u, v, r, depth=0.28, slough=rng.uniform(0.3, 0.8))


def _erosion(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    _erode(canvas, rng, u, v, 0.75 * r, depth=0.12, slough=0.1)


def _thread(patch: Patch, angle: float, bow: float, half_length: float, width: float) -> Field:
    """1 on a bowed line through the middle of the window, with thinning ends."""
    along, across = turned(patch, angle)
    across = across - bow * (along**2 - half_length**2 / 3)
    taper = step(np.abs(along), half_length, 0.7 * half_length)
    line: Field = np.exp(-((across / width) ** 2)) * taper
    return line


def _telangiectasia(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 1.3 * r)
    flush = step(blob(rng, patch, r, 0.1, 0.2), 0, 0.7)
    canvas.absorb(patch, rng.uniform(0.05, 0.22) * flush, BLOOD)
    main = rng.uniform(0, np.pi)
    vessels = np.zeros(patch.shape, np.float32)
    for _ in range(int(rng.integers(4, 8))):
        du, dv = rng.normal(0, 0.3 * r, 2).tolist()
        aside = Patch(patch.rows, patch.columns, patch.du - du, patch.dv - dv)
        line = _thread(
            aside, main + rng.normal(0, 0.6), rng.normal(0, 0.9) / r, rng.uniform(0.35, 0.75) * r, rng.uniform(0.009, 0.015)
        )
        vessels = np.maximum(vessels, line)
    canvas.absorb(patch, rng.uniform(0.75, 1.0) * vessels, BLOOD)


def _excoriation(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 1.2 * r)
    line = _thread(patch, rng.normal(0.6, 0.22), rng.normal(0, 0.15) / r, r, rng.uniform(0.025, 0.038))
    beads = np.clip(0.75 + 0.5 * noise(rng, 8, patch.shape), 0, 1)
    wide = line**0.3
    canvas.absorb(patch, 0.30 * wide, BLOOD)
    canvas.cover(patch, rng.uniform(0.7, 0.95) * line * beads, (0.48, 0.12, 0.10))
    canvas.relief[patch.at] -= 0.012 * line


def _scar(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 1.2 * r)
    width = rng.uniform(0.038, 0.065)
    line = np.sqrt(_thread(patch, rng.uniform(0, np.pi), rng.normal(0, 0.3) / r, r, width))
    canvas.absorb(patch, rng.uniform(0.0, 0.4) * line, BLOOD)
    canvas.cover(patch, rng.uniform(0.5, 0.8) * line, _dimmed(canvas, patch, (0.95, 0.82, 0.78)))
    canvas.relief[patch.at] += float(rng.choice([-0.02, 0.035])) * line
    canvas.gloss[patch.at] += 0.6 * line
    _part_hair(canvas, patch, line)


def _alopecia(canvas: Canvas, rng: Rng, u: float, v: float, r: float) -> None:
    patch = canvas.patch(u, v, 1.6 * r)
    rim = blob(rng, patch, r, 0.08, 0.25)
    canvas.hair[patch.at] *= 1 - rng.uniform(0.9, 1.0) * step(rim, -0.05, 0.15)
    canvas.gloss[patch.at] += 0.12 * step(rim, 0, 0.3)


MARKS: Mapping[str, MarkKind] = {
    "alopecia": MarkKind(_alopecia, (1, 2), (0.32, 0.52), 0.40),
    "plaque": MarkKind(_plaque, (1, 3), (0.26, 0.46), 0.42),
    "macule": MarkKind(_macule, (3, 11), (0.045, 0.10), 0.38),
    "purpura": MarkKind(_purpura, (4, 14), (0.04, 0.095), 0.38),
    "telangiectasia": MarkKind(_telangiectasia, (2, 5), (0.17, 0.28), 0.30),
    "scar": MarkKind(_scar, (1, 2), (0.28, 0.48), 0.28),
    "ulcer": MarkKind(_ulcer, (1, 2), (0.20, 0.36), 0.25),
    "erosion": MarkKind(_erosion, (1, 3), (0.16, 0.28), 0.28),
    "excoriation": MarkKind(_excoriation, (3, 7), (0.18, 0.36), 0.28),
    "papule": MarkKind(_plain_papule, (4, 12), (0.055, 0.095), 0.36),
    "erythematous papule": MarkKind(_red_papule, (4, 12), (0.055, 0.095), 0.36),
    "nodule": MarkKind(_nodule, (1, 3), (0.13, 0.24), 0.32),
    "comedone": MarkKind(_comedone, (8, 20), (0.026, 0.042), 0.34),
    "vesicle": MarkKind(_vesicle, (6, 14), (0.05, 0.085), 0.22),
    "pustule": MarkKind(_pustule, (4, 11), (0.052, 0.09), 0.34),
    "scale": MarkKind(_scale, (1, 3), (0.24, 0.40), 0.42),
    "crust": MarkKind(_crust, (1, 4), (0.10, 0.20), 0.28),
}
"""How each raw term is drawn, in the order of painting: what lies lowest comes first."""
