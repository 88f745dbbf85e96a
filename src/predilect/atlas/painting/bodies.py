"""Nine parts of the body as shapes: how deep each point lies inside, how the surface rises, where hair grows.

A body is a function of scene coordinates, so the same one can be measured coarsely, to place lesions on it, and finely, to paint
it from any distance. Anatomy is hinted at, no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from predilect.atlas.painting.canvas import BLOOD, PIGMENT, Color, Field, step
from predilect.atlas.painting.shapes import Body, Layer, bump, capsule, ellipse, line, merged, rounded

__all__ = ["BODIES"]

Rng = np.random.Generator

_PALE: Color = (0.90, 0.70, 0.60)
_NAIL: Color = (0.93, 0.78, 0.72)
_BLACK: Color = (0.06, 0.05, 0.05)
_IRISES: tuple[Color, ...] = ((0.26, 0.16, 0.10), (0.33, 0.22, 0.12), (0.30, 0.42, 0.50), (0.32, 0.38, 0.24))
_CLOTHES: tuple[Color, ...] = (
    (0.36, 0.48, 0.60),
    (0.80, 0.80, 0.78),
    (0.30, 0.34, 0.38),
    (0.58, 0.38, 0.40),
    (0.46, 0.56, 0.46),
    (0.72, 0.63, 0.50),
)


def _cloth(inside: Field, rng: Rng) -> Layer:
    """A piece of clothing over the points where `inside`, a distance in scene units, is positive."""
    return Layer(step(inside, -0.01, 0.02), _CLOTHES[int(rng.integers(len(_CLOTHES)))], "opaque")


def _total(fields: list[Field]) -> Field:
    total: Field = np.stack(fields).sum(axis=0)
    return total


def _scalp(u: Field, v: Field, rng: Rng, _kind: str) -> Body:
    depth = 1.35 - np.hypot(u, v - 0.25)
    slant, offset = rng.uniform(-0.5, 0.5), rng.uniform(-0.45, 0.45)
    side = u - offset - slant * v
    if rng.random() < 0.35:  # hair turns around the crown
        cu, cv = rng.uniform(-0.4, 0.4), rng.uniform(-0.5, 0.1)
        comb = (u - cu - 1.1 * (v - cv), v - cv + 1.1 * (u - cu))
        bald = bump(u, v, (cu, cv), 0.12, 0.12)
    else:  # hair falls to both sides of a parting
        comb = (np.tanh(side * 6), np.full_like(v, 0.55))
        bald = line(side, 0.045)
    return Body(depth, rounded(depth, 1.6), 1 - 0.85 * bald, comb, depth > 0, strand=0.42)


def _face(u: Field, v: Field, rng: Rng, _kind: str) -> Body:
    wide, apart = rng.uniform(0.60, 0.68), rng.uniform(0.25, 0.29)
    eye_v, mouth_v = rng.uniform(-0.14, -0.06), rng.uniform(0.46, 0.52)
    mirror = np.abs(u)
    head = merged(ellipse(u, v, (0, -0.20), wide, 0.74), ellipse(u, v, (0, 0.30), 0.82 * wide, 0.60), 0.25)
    skin = np.maximum(head, ellipse(mirror, v, (wide + 0.015, 0.05), 0.075, 0.16))  # ears
    skin = merged(skin, capsule(u, v, ((0, 0.8), (0, 1.7)), (0.34, 0.40)), 0.06)
    cap = ellipse(u, v, (0, -0.24), wide + 0.10, 0.84)
    hairline = -0.62 + rng.uniform(-0.25, 0.35) * mirror**2 / wide**2
    mane = step(cap, 0.0, 0.03) * np.maximum(step(v - hairline, 0.04, -0.06), step(skin, 0.03, -0.02) * step(v, 0.1, -0.02))
    eye = ellipse(mirror, v + 0.5 * (mirror - apart) ** 2, (apart, eye_v), 0.115, 0.05)
    brow = line(v - eye_v + 0.145 - 0.8 * (mirror - apart - 0.02) ** 2, 0.024) * step(np.abs(mirror - apart), 0.17, 0.10)
    lips = ellipse(u, v - 0.25 * u * u, (0, mouth_v), 0.19, 0.062)
    relief = (
        rounded(skin, 0.62)
        + 0.055 * line(u, 0.075) * step(v, -0.2, 0.24) * step(v, 0.33, 0.24)  # nose
        + 0.035 * bump(mirror, v, (0.06, 0.25), 0.05, 0.05)
        - 0.035 * bump(mirror, v, (apart, eye_v), 0.17, 0.10)
        + 0.018 * np.clip(lips / 0.05, 0, 1)
        - 0.02 * line(v - mouth_v - 0.17, 0.05) * step(mirror, 0.2, 0.1)  # chin
        + 0.06 * mane
    )
    layers = [
        Layer(0.24 * bump(mirror, v, (0.36, 0.2), 0.17, 0.15), BLOOD),  # cheeks
        Layer(0.5 * step(lips, -0.012, 0.012), BLOOD),
        Layer(0.6 * line(v - mouth_v - 0.1 * u * u, 0.011) * step(lips, -0.02, 0.01), PIGMENT),
        Layer(0.6 * bump(mirror, v, (0.055, 0.30), 0.028, 0.018), PIGMENT),  # nostrils
        Layer(0.22 * bump(mirror, v, (apart, eye_v - 0.03), 0.15, 0.06) + 0.3 * step(v, 0.78, 0.95), PIGMENT),
        Layer(0.55 * brow, PIGMENT),
        *_eyes(eye, np.hypot(mirror - apart, v - eye_v + 0.004), v < eye_v + 0.012, rng),
    ]
    comb = (np.where(mane > 0, 1.6 * u, np.sign(u)), np.where(mane > 0, v + 0.75, np.float32(0.12)))
    bare = (eye < -0.05) & (lips < -0.03) & (v > hairline + 0.08) & (v < 0.8)
    depth = np.maximum(skin, np.where(v < 0.12, cap, np.float32(-1)))
    return Body(depth, relief, np.maximum(mane, 0.45 * brow), comb, bare & (skin > 0), strand=0.13, layers=layers)


def _eyes(eye: Field, from_pupil: Field, upper: Field, rng: Rng) -> list[Layer]:
    """White, iris, pupil and upper lid, given the depth inside the eye's outline."""
    inside = step(eye, -0.006, 0.008)
    return [
        Layer(inside, (0.93, 0.92, 0.90), "opaque"),
        Layer(inside * step(from_pupil, 0.054, 0.044), _IRISES[int(rng.choice(4, p=[0.45, 0.3, 0.15, 0.1]))], "opaque"),
        Layer(inside * step(from_pupil, 0.026, 0.018), _BLACK, "opaque"),
        Layer(0.75 * line(eye + 0.012, 0.014) * upper, (0.16, 0.10, 0.08), "opaque"),
    ]


def _neck(u: Field, v: Field, rng: Rng, _kind: str) -> Body:
    half = rng.uniform(0.5, 0.6)
    depth = half + 0.55 * step(v, 0.35, 1.1) + 0.06 * v * v - np.abs(u)
    jaw = v - rng.uniform(-0.75, -0.6) + 0.35 * u * u
    tilts = rng.normal(0, 0.05, 3).tolist()
    creases = _total([line(v - at - 0.10 * u * u - tilt * u, 0.022) for at, tilt in zip((-0.25, 0.08, 0.3), tilts, strict=True)])
    tendon = line(np.abs(u) - (0.36 - 0.28 * np.clip(v + 0.4, 0, 1.1)), 0.06) * step(v, -0.3, 0.2)
    relief = rounded(depth, half) - 0.016 * creases + 0.03 * tendon - 0.16 * step(jaw, -0.02, 0.12)
    collar = v - 0.86 - rng.uniform(0, 0.08) + 0.35 * u * u
    layers = [
        Layer(0.45 * step(jaw, -0.04, 0.06) * step(jaw, 0.35, 0.05), PIGMENT),
        Layer(0.22 * creases, PIGMENT),
        _cloth(collar, rng),
    ]
    bare = (collar < -0.08) & (jaw > 0.1)
    return Body(depth, relief + 0.05 * step(collar, -0.01, 0.02), np.zeros_like(u), (u, np.ones_like(v)), bare, layers=layers)


def _trunk(u: Field, v: Field, rng: Rng, kind: str) -> Body:
    waist = rng.uniform(0.92, 1.15)
    depth = waist + (0.06 * v if kind == "chest" else 0.10 * v * v) - np.abs(u)
    relief, hair, bare = rounded(depth, 0.8), np.zeros_like(u), depth > 0
    if kind == "abdomen":
        navel = (0, rng.uniform(0.12, 0.32))
        belt = v - rng.uniform(0.78, 0.92) - 0.05 * u * u
        relief = relief - 0.07 * bump(u, v, navel, 0.05, 0.07) + 0.03 * bump(u, v, navel, 0.13, 0.14)
        relief = relief - 0.02 * line(u, 0.06) * step(v, navel[1] + 0.1, navel[1] - 0.5)
        layers = [Layer(0.8 * bump(u, v, navel, 0.04, 0.06), PIGMENT), _cloth(belt, rng)]
        bare = bare & (belt < -0.08) & (np.hypot(u, v - navel[1]) > 0.14)
        hair = 0.12 * line(u, 0.12) * (v > navel[1])
    elif kind == "back":
        spine = line(u, 0.07)
        blades = line(np.abs(u) - 0.52 + 0.25 * v, 0.09) * step(v, 0.25, -0.1)
        vertebrae = spine * (0.5 + 0.5 * np.cos(v * 22))
        relief = relief - 0.06 * line(u, 0.14) + 0.012 * vertebrae + 0.045 * blades
        layers = [Layer(0.22 * spine, PIGMENT), Layer(0.12 * blades, PIGMENT)]
    else:
        collarbone = line(v + 0.62 + 0.14 * np.abs(u), 0.055) * step(np.abs(u), 0.06, 0.14)
        furrow = line(u, 0.06) * step(v, -0.5, -0.2)
        breast = line(np.hypot(np.abs(u) - 0.45, v - 0.1) - 0.5, 0.13) * step(v, 0.2, 0.6)
        relief = relief + 0.04 * collarbone - 0.03 * furrow - 0.03 * breast
        layers = [Layer(0.2 * furrow + 0.12 * breast + 0.1 * collarbone, PIGMENT)]
        hair = 0.3 * bump(u, v, (0, 0.1), 0.4, 0.5)
    return Body(depth, relief, hair, (u, np.ones_like(v)), bare, strand=0.14, layers=layers)


def _arm(u: Field, v: Field, rng: Rng, kind: str) -> Body:
    axis = v - rng.uniform(-0.12, 0.12) * u * u
    if kind == "forearm":
        half = 0.50 - 0.13 * u + 0.05 * np.cos(3 * u)
        ridge = line(axis - 0.12, 0.05) * step(u, -0.6, 0.4)
        elbow, vein = line(u + 0.88, 0.02) + line(u + 0.80, 0.015), line(axis + 0.1 + 0.12 * np.sin(2.2 * u), 0.022)
        layers = [Layer(0.22 * elbow, PIGMENT), Layer(0.14 * vein, PIGMENT)]
        bare = u > -0.7
    else:
        half = 0.54 + 0.05 * np.cos(2.5 * u + rng.uniform(-0.5, 0.5))
        ridge = line(axis + 0.02, 0.09) * step(u, 0.5, -0.2)
        sleeve = u - rng.uniform(0.70, 0.85) - 0.06 * v
        layers = [_cloth(sleeve, rng)]
        bare = sleeve < -0.08
    depth = half - np.abs(axis)
    comb = (np.ones_like(u), 0.5 + v)
    return Body(depth, rounded(depth, 0.55) + 0.025 * ridge, np.full_like(u, 0.22), comb, bare, strand=0.13, layers=layers)


def _leg(u: Field, v: Field, rng: Rng, kind: str) -> Body:
    if kind == "lower leg":
        half = 0.62 - 0.16 * v + 0.07 * np.cos(2.6 * (v + 0.3)) * (1 + 0.5 * np.sign(u))  # the calf is fuller on one side
        shin = u + 0.10 - 0.05 * v
        ridge = 0.035 * line(shin, 0.07)
        layers = [Layer(0.10 * line(shin - 0.08, 0.05), PIGMENT)]
        bare, hair = v > -0.95, 0.42
        if rng.random() < 0.5:
            sock = v - rng.uniform(0.76, 0.88) - 0.05 * u * u
            ribs = 0.15 * (0.5 + 0.5 * np.cos(u * 55)) * step(sock, -0.01, 0.02)
            layers += [_cloth(sock, rng), Layer(ribs, _BLACK, "opaque")]
            bare = bare & (sock < -0.08)
    else:
        half = 0.86 - 0.14 * v
        knee = bump(u, v, (0.02, 0.86), 0.26, 0.2)
        ridge = 0.07 * knee - 0.04 * line(np.hypot(u, (v - 0.84) * 1.2) - 0.34, 0.10)
        layers = [Layer(0.22 * knee * (0.5 + 0.5 * np.cos(v * 48 + 3 * u)), PIGMENT)]
        bare, hair = v < 0.62, 0.25
    depth = half - np.abs(u)
    comb = (0.35 * u, np.ones_like(v))
    return Body(depth, rounded(depth, 0.68) + ridge, np.full_like(u, hair), comb, bare, layers=layers)


_FINGERS = (  # where each begins, how far its tip leans out and how far up it lies, and its radius
    (-0.34, 0.0, -0.17, -0.52, 0.095),
    (-0.12, -0.08, -0.06, -0.80, 0.105),
    (0.11, -0.08, 0.05, -0.86, 0.108),
    (0.32, 0.02, 0.16, -0.70, 0.10),
)


def _hand(u: Field, v: Field, rng: Rng, kind: str) -> Body:
    spread, tips, creases = rng.uniform(0.85, 1.3), [], []
    depth = capsule(u, v, ((-0.04, 0.22), (0.0, 0.52)), (0.44, 0.40))
    depth = merged(depth, capsule(u, v, ((0.02, 0.7), (0.02, 1.6)), (0.30, 0.34)), 0.18)
    for base_u, base_v, lean, tip_v, r in _FINGERS:
        tip = (base_u + lean * spread, tip_v + rng.uniform(-0.04, 0.04))
        depth = merged(depth, capsule(u, v, ((base_u, base_v), tip), (r + 0.012, r - 0.012)), 0.06)
        tips.append((tip, r))
        for t in (0.42, 0.72):
            at_u, at_v = base_u + t * (tip[0] - base_u), base_v + t * (tip[1] - base_v)
            creases.append((line(v - at_v, 0.014) + line(v - at_v - 0.035, 0.012)) * step(np.abs(u - at_u), 0.09, 0.05))
    thumb = (0.80, rng.uniform(-0.12, 0.08))
    depth = merged(depth, capsule(u, v, ((0.30, 0.48), thumb), (0.15, 0.105)), 0.12)
    tips.append((thumb, 0.11))
    knuckles = _total(creases)
    relief = rounded(depth, 0.17) - 0.008 * knuckles
    if kind == "back of hand":
        nails = _total([step(ellipse(u, v, (tu, tv - 0.02), 0.62 * r, 0.75 * r), -0.006, 0.012) for (tu, tv), r in tips])
        tendons = _total([line(u - c - 0.18 * c * (0.3 - v), 0.03) for c in (-0.3, -0.1, 0.1, 0.28)])
        relief = relief + 0.02 * tendons * step(v, -0.05, 0.05) * step(v, 0.5, 0.25) + 0.012 * nails
        layers = [Layer(0.28 * knuckles, PIGMENT), Layer(0.85 * nails, _NAIL, "tinted")]
        hair, bare = 0.10 * step(v, 0.0, 0.3), nails < 0.05
    else:
        life, head, heart = (
            line(np.hypot(u - 0.50, v - 0.42) - 0.36, 0.018),
            line(v - 0.22 - 0.25 * u - 0.2 * u * u, 0.016),
            line(v - 0.08 + 0.18 * u - 0.25 * u * u, 0.016),
        )
        lines = (life + head + heart) * step(depth, 0.02, 0.10) * step(v, -0.1, 0.0) * step(v, 0.85, 0.7)
        relief = relief - 0.015 * lines + 0.04 * bump(u, v, (0.26, 0.48), 0.2, 0.24)
        layers = [
            Layer(0.5 * step(depth, 0.0, 0.12), _PALE, "tinted"),
            Layer(0.30 * lines + 0.28 * knuckles, PIGMENT),
            Layer(0.3 * _total([bump(u, v, tip, 0.1, 0.13) for tip, _ in tips]), BLOOD),
        ]
        hair, bare = np.zeros_like(u), depth > 0
    return Body(depth, relief, hair, (u, np.ones_like(v)), bare & (v < 0.9), strand=0.08, layers=layers)


_TOES = ((-0.34, -0.66, 0.165), (-0.06, -0.76, 0.105), (0.14, -0.70, 0.098), (0.31, -0.59, 0.092), (0.45, -0.44, 0.088))


def _foot(u: Field, v: Field, rng: Rng, kind: str) -> Body:
    depth = capsule(u, v, ((0.02, -0.12), (0.06, 1.0)), (0.47, 0.36))
    tips = []
    for toe_u, toe_v, r in _TOES:
        tip = (toe_u * rng.uniform(0.97, 1.08), toe_v + rng.uniform(-0.03, 0.03))
        depth = merged(depth, capsule(u, v, ((toe_u * 0.9, -0.3), tip), (r * 0.9, r)), 0.05)
        tips.append((tip, r))
    relief = rounded(depth, 0.22)
    if kind == "top of foot":
        nails = _total([step(ellipse(u, v, (tu, tv - 0.25 * r), 0.6 * r, 0.5 * r), -0.006, 0.012) for (tu, tv), r in tips])
        rays = _total([line(u - 0.9 * tu * (0.75 - 0.55 * v), 0.03) for (tu, _), _ in tips])
        relief = relief + 0.022 * rays * step(v, -0.35, -0.15) * step(v, 0.5, 0.1) + 0.012 * nails
        relief = relief + 0.10 * bump(u, v, (0.05, 0.9), 0.4, 0.5)
        layers = [Layer(0.85 * nails, _NAIL, "tinted")]
        hair, bare = 0.08 * step(v, 0.0, 0.4), nails < 0.05
    else:
        lines = line(np.sin(v * 17 + 4 * u * u + rng.uniform(0, 6)), 0.09) * step(np.abs(v - 0.35), 0.4, 0.2)
        relief = relief - 0.10 * bump(u, v, (-0.30, 0.42), 0.26, 0.32) - 0.006 * lines
        ball, heel = bump(u, v, (-0.02, -0.14), 0.45, 0.2), bump(u, v, (0.06, 1.0), 0.3, 0.3)
        layers = [
            Layer(0.6 * step(depth, 0.0, 0.10), _PALE, "tinted"),
            Layer(0.32 * _total([bump(u, v, tip, 1.1 * r, 1.1 * r) for tip, r in tips]) + 0.3 * ball + 0.35 * heel, BLOOD),
            Layer(0.16 * lines, PIGMENT),
        ]
        hair, bare = np.zeros_like(u), depth > 0
    return Body(depth, relief, hair, (u, -np.ones_like(v)), bare & (v < 0.95), strand=0.07, layers=layers)


def _skin_fold(u: Field, v: Field, rng: Rng, kind: str) -> Body:
    slant, curve = rng.uniform(0.5, 0.9), rng.uniform(-0.25, 0.25)
    across = (v - slant * u - curve * u * u) / math.hypot(1, slant)
    crease = line(across, 0.035)
    relief = 0.34 * np.sqrt(np.abs(across) + 0.02) - 0.05 * crease
    layers = [Layer(0.42 * line(across, 0.22), BLOOD), Layer(0.40 * line(across, 0.12) + 0.4 * crease, PIGMENT)]
    bare = np.abs(across) > 0.02
    if kind == "axilla":
        wrinkles = _total([line(across - at - 0.05 * np.sin(4 * u), 0.012) for at in (-0.13, 0.11)])
        layers.append(Layer(0.2 * wrinkles, PIGMENT))
        hair = 0.75 * bump(u, v, (0.0, 0.0), 0.42, 0.42) * line(across, 0.22)
        comb = (0.4 * u + 0.3, np.ones_like(v))
    else:
        hem = -across - 0.42 - 0.25 * u
        layers.append(_cloth(hem, rng))
        bare = bare & (hem < -0.08)
        hair = 0.18 * line(across, 0.25)
        comb = (np.full_like(u, 0.8), np.full_like(v, 0.5))
    return Body(np.full_like(u, 3), relief, hair, comb, bare, strand=0.2, layers=layers)


BODIES: Mapping[str, Callable[[Field, Field, Rng, str], Body]] = {
    "scalp": _scalp,
    "face": _face,
    "neck": _neck,
    "trunk": _trunk,
    "arm": _arm,
    "hand": _hand,
    "leg": _leg,
    "foot": _foot,
    "skin fold": _skin_fold,
}
"""For each site: (u, v, rng, kind) -> Body at these scene coordinates; the generator decides proportions, not the view."""
