"""From a drawing's parameters to a picture: set up the camera, paint body and lesions, light, draw hair, and develop."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from predilect.atlas.painting.canvas import BLOOD, PIGMENT, Canvas, Color, Field, View, coordinates, mix, noise, step
from predilect.atlas.painting.drawing import Drawing, Retouch, Sitter
from predilect.atlas.painting.marks import MARKS
from predilect.atlas.painting.placing import Plan, measure, place
from predilect.atlas.painting.shapes import Body
from predilect.randomness import stream

__all__ = ["paint"]

_SKIN: tuple[Color, ...] = (
    (0.953, 0.832, 0.770),
    (0.938, 0.800, 0.718),
    (0.912, 0.758, 0.652),
    (0.868, 0.698, 0.566),
    (0.792, 0.606, 0.462),
    (0.676, 0.486, 0.350),
    (0.562, 0.388, 0.276),
    (0.448, 0.302, 0.218),
    (0.338, 0.228, 0.172),
    (0.258, 0.178, 0.142),
)
"""A painter's skin for each of the ten steps of the Monk Skin Tone scale, light to dark, warmer than the scale's swatches."""

_HAIR: tuple[Color, ...] = (
    (0.10, 0.08, 0.07),
    (0.20, 0.13, 0.09),
    (0.36, 0.23, 0.14),
    (0.70, 0.54, 0.32),
    (0.52, 0.25, 0.12),
    (0.62, 0.60, 0.58),
)
"""Black, dark brown, brown, fair, red, grey."""

_GREY = 5

_BACKDROPS: tuple[Color, ...] = (
    (0.33, 0.50, 0.56),
    (0.40, 0.54, 0.45),
    (0.62, 0.66, 0.70),
    (0.20, 0.24, 0.29),
    (0.76, 0.72, 0.66),
    (0.44, 0.42, 0.52),
)


def paint(drawing: Drawing, size: int) -> Image.Image:
    """Paint a drawing; the same drawing and size give the same picture, whatever was painted before.

    Args:
        drawing: What to paint.
        size: Height and width of the picture, in pixels; lesions are legible from about 64.

    Returns:
        A square RGB picture.

    Raises:
        ValueError: If `size` is below 16.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, not {size}")
    plan = place(drawing)
    rng = stream(drawing.view_seed, "view")
    canvas = Canvas(2 * size, _camera(drawing, plan, rng))  # twice the size, then halved: smooth edges
    body = measure(drawing, canvas.u, canvas.v)
    _lay_skin(canvas, body, drawing.sitter, rng)
    for order, (term, kind) in enumerate(MARKS.items()):
        if term in plan.marks:
            strokes = stream(drawing.scene_seed, "marks", order)
            for u, v, radius in plan.marks[term]:
                kind.paint(canvas, strokes, float(u), float(v), float(radius))
    _dress(canvas, body)
    _shadow_hair(canvas, drawing.sitter)
    lit = _light(canvas, body, rng)
    picture = Image.fromarray(_bytes(lit))
    _draw_hair(picture, canvas, body, drawing.sitter, rng)
    picture = picture.reduce(2)
    if drawing.retouch is not None:
        picture = _cut(picture, drawing.retouch)
    return _develop(picture, drawing, rng)


_TURN = {"arm": math.pi / 4, "skin fold": math.pi, "scalp": 0.5, "hand": 0.5, "leg": 0.3, "foot": 0.4}


def _camera(drawing: Drawing, plan: Plan, rng: np.random.Generator) -> View:
    """Look at the whole part of the body, or closely at the eruption."""
    angle = float(rng.uniform(-1, 1) * _TURN.get(drawing.site, 0.15))
    nearness = rng.uniform()
    mirrored = bool(rng.random() < 0.5)
    away = rng.normal(0, 0.06, 2)
    if drawing.close_up:
        u, v, zoom = plan.focus[0] + away[0], plan.focus[1] + away[1], 1.4 + 0.6 * nearness
    else:
        u, v, zoom = 0.3 * plan.focus[0] + away[0], 0.3 * plan.focus[1] + away[1], 0.88 + 0.27 * nearness
    return View(float(u), float(v), float(zoom), angle, mirrored)


def _lay_skin(canvas: Canvas, body: Body, sitter: Sitter, rng: np.random.Generator) -> None:
    """Skin with its mottling and pores, the body's own colours and relief."""
    shape = (canvas.side, canvas.side)
    whole = canvas.whole()
    undertone = (1 + 0.02 * sitter.warmth, 1, 1 - 0.05 * sitter.warmth)
    skin = np.array(_SKIN[sitter.tone - 1], np.float32) * np.array(undertone, np.float32)
    canvas.albedo[:] = skin[:, None, None]
    canvas.absorb(whole, np.clip(0.06 + 0.05 * noise(rng, 5, shape), 0, 1), BLOOD)
    canvas.absorb(whole, np.clip((0.02 + 0.05 * sitter.freckled) * noise(rng, 14, shape), 0, 1), PIGMENT)
    for layer in body.layers:
        if layer.kind == "absorbed":
            canvas.absorb(whole, layer.share, layer.color)
        elif layer.kind == "tinted":
            canvas.cover(whole, layer.share, mix(layer.color, skin, 0.45))
    canvas.relief[:] = body.relief + 0.0012 * noise(rng, 64, shape) + 0.002 * noise(rng, 22, shape)
    canvas.gloss[:] = 0.10
    canvas.hair[:] = body.hair


def _dress(canvas: Canvas, body: Body) -> None:
    """Lay over everything what no lesion can lie on: clothes, eyes."""
    for layer in body.layers:
        if layer.kind == "opaque":
            canvas.cover(canvas.whole(), layer.share, layer.color)
            canvas.relief += layer.share * (body.relief - canvas.relief)
            canvas.gloss *= 1 - 0.8 * layer.share
            canvas.hair *= 1 - layer.share


def _shadow_hair(canvas: Canvas, sitter: Sitter) -> None:
    """Darken the ground of thick hair: between its strands little skin shows."""
    thick = step(canvas.hair, 0.5, 1.0)
    canvas.cover(canvas.whole(), 0.6 * thick, mix(_HAIR[sitter.hair], (0.0, 0.0, 0.0), 0.25))


def _light(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """Soft light from above and the side, a sheen where the surface is wet, and a backdrop with a contact shadow."""
    bearing = rng.uniform(-2.6, -0.5)
    sun = np.array([np.cos(bearing) * 0.55, np.sin(bearing) * 0.55, 0.80])
    down, right = np.gradient(canvas.relief, 1 / canvas.scale)
    length = np.sqrt(1 + down**2 + right**2)

    def facing(direction: NDArray[np.float64]) -> Field:
        x, y, z = (direction / np.linalg.norm(direction)).tolist()
        shade: Field = np.clip((z - x * right - y * down) / length, 0, 1)
        return shade

    shade = 0.60 + 0.50 * facing(sun)
    sheen = 0.38 * canvas.gloss * facing(sun / np.linalg.norm(sun) + np.array([0, 0, 1.0])) ** 28
    backdrop = _BACKDROPS[int(rng.integers(len(_BACKDROPS)))]
    ground = (1 + 0.03 * noise(rng, 6, sheen.shape)) * (1 - 0.5 * np.exp(np.minimum(body.depth, 0) / 0.10))
    covered = step(body.depth, -0.7 / canvas.scale, 0.7 / canvas.scale)
    shade, sheen, ground = covered * shade, covered * sheen, (1 - covered) * ground
    return np.stack([plane * shade + sheen + color * ground for plane, color in zip(canvas.albedo, backdrop, strict=True)], axis=-1)


def _draw_hair(picture: Image.Image, canvas: Canvas, body: Body, sitter: Sitter, rng: np.random.Generator) -> None:
    """Draw each hair as a bent line from its root, where the density of hair lets one grow."""
    side = canvas.side
    zoom = 2 * canvas.scale / side
    trials = int(min(2400, 6000 / zoom**2))  # the nearer, the fewer hairs are in the frame
    roots = rng.uniform(0, side, (trials, 2))
    lot, lean = rng.uniform(size=trials), rng.normal(size=(trials, 2))
    tint = rng.uniform(0.75, 1.35, trials)
    cells = roots.astype(np.int64)
    density = canvas.hair[cells[:, 1], cells[:, 0]] * (body.depth[cells[:, 1], cells[:, 0]] > 0)
    sparse = density < 0.5  # on the body hair depends on the person, on the head it does not
    grows = lot < np.where(sparse, density * (0.25 + 0.75 * sitter.hairiness) * 0.6, density)
    roots, lean, tint, cells = roots[grows], lean[grows], tint[grows], cells[grows]
    comb = np.column_stack([field[cells[:, 1], cells[:, 0]] for field in body.comb]).astype(np.float64)
    comb /= np.linalg.norm(comb, axis=1, keepdims=True) + 1e-6
    along = canvas.to_pixels(comb + 0.22 * lean) * body.strand * (0.7 + 0.3 * tint)[:, None]
    aside = along[:, ::-1] * np.array([-1, 1]) * (0.12 + 0.35 * sitter.curl) * lean[:, :1]
    t = np.linspace(0, 1, 5)[:, None]
    strands = roots[:, None] + t * along[:, None] + t * (1 - t) * aside[:, None]
    thick = density[grows] >= 0.5
    body_hair = mix(_HAIR[1 if sitter.hair == _GREY else sitter.hair], (0.0, 0.0, 0.0), 0.1)
    ground = np.asarray(picture)[cells[:, 1], cells[:, 0]] / 255
    colors = np.where(thick[:, None], np.array(_HAIR[sitter.hair]) * tint[:, None], 0.6 * np.array(body_hair) + 0.4 * ground)
    shades = (255 * np.clip(colors, 0, 1)).astype(np.uint8)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(side * 0.0052 * min(1.5, zoom)))
    for strand, shade, full in zip(strands.reshape(len(strands), 10).tolist(), shades.tolist(), thick.tolist(), strict=True):
        pen.line(strand, fill=tuple(shade), width=width if full else max(1, width // 2))


def _cut(picture: Image.Image, retouch: Retouch) -> Image.Image:
    """Crop and scale back, as somebody does who saves a photograph again."""
    width, height = picture.size
    left, top = retouch.crop * retouch.left * width, retouch.crop * retouch.top * height
    box = (left, top, left + (1 - retouch.crop) * width, top + (1 - retouch.crop) * height)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _develop(picture: Image.Image, drawing: Drawing, rng: np.random.Generator) -> Image.Image:
    """What the camera adds: uneven light, a vignette, a white balance that is a little off, and grain."""
    pixels = np.asarray(picture, np.float32) / 255
    size = picture.width
    x, y = coordinates(size, 1.0)
    fall = rng.uniform(-0.06, 0.06, 2)
    vignette = 1 - np.float32(rng.uniform(0.08, 0.2)) * (x**2 + y**2) / 2
    exposure = rng.uniform(0.92, 1.08) * (1 if drawing.retouch is None else drawing.retouch.gain)
    balance = 1 + rng.normal(0, 0.018, 3)
    pixels = (
        pixels
        * (vignette * (1 + np.float32(fall[0]) * x + np.float32(fall[1]) * y))[..., None]
        * (exposure * balance).astype(np.float32)
    )
    pixels += np.float32(0.012) * noise(rng, min(size, 128), (size, size))[..., None]
    return Image.fromarray(_bytes(pixels))


def _bytes(pixels: Field) -> NDArray[np.uint8]:
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
