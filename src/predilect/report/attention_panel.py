"""Photographs with attention laid over them: as pixels for a page, and as a figure with scales (the paper's Figure 3, columns A to C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from predilect.report.style import DOUBLE_COLUMN, FAINT, INK, PNG_DPI, new_figure, shortened

__all__ = ["METHODS", "TOP_SHARE", "ShownMap", "attention_panel", "fitted", "overlaid", "scale_colors"]

TOP_SHARE = 0.2
"""The line on an overlay encloses this share of the photograph, where the map is highest."""

METHODS: Mapping[str, str] = {"cam": "class activation map", "grad-cam": "Grad-CAM, an approximation"}
"""What each method of an attention map is called."""

_UNITS: Mapping[str, str] = {"cam": "in logits", "grad-cam": "in units of its own"}

# Perceptually uniform, and told apart by the colour-blind. The photograph beneath is grey, so that every colour is the map's.
_COLORS = mpl.colormaps["viridis"]
_OPACITY = 0.55
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

# All in mm: the space at the edges, between columns, above and below the pictures, from a picture to its scale, and sizes.
_EDGE, _GAP, _ABOVE, _BELOW = 1.0, 4.0, 9.0, 13.0
_COLUMN = (DOUBLE_COLUMN - 2 * _EDGE - 2 * _GAP) / 3
_TALLEST = 110.0
_BAR_GAP, _BAR, _BAR_LEAST = 1.6, 1.8, 26.0
_MM_PER_INCH = 25.4


@dataclass(frozen=True, eq=False, slots=True)
class ShownMap:
    """An attention map over a photograph of H x W pixels, with what is to be said of it.

    Attributes:
        task: ``lesion`` or ``site``.
        name: The class.
        probability: Of the class, in [0, 1].
        method: How the map was made.
        values: (H, W), finite, of either sign.
        calibrated: Whether the probability is; else it is called a score.
    """

    task: str
    name: str
    probability: float
    method: Literal["cam", "grad-cam"]
    values: NDArray[np.float32]
    calibrated: bool


def overlaid(photograph: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A photograph in grey with a map in colours over it, and a white line around where the map is highest.

    Args:
        photograph: (H, W, 3) RGB.
        values: (H, W) finite; the scale runs from the lowest to the highest of them. A map that is the same everywhere has no line.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: If shapes do not fit.
    """
    if photograph.shape != (*values.shape, 3):
        raise ValueError(f"a map {values.shape} does not lie over a photograph {photograph.shape}")
    low, high = float(values.min()), float(values.max())
    colors = _COLORS((values - low) / (high - low or 1.0))[..., :3]
    grey = (photograph @ _LUMINANCE / 255)[..., None]
    blended = _OPACITY * colors + (1 - _OPACITY) * grey
    if high > low:
        least = np.quantile(values, 1 - TOP_SHARE)
        top = values >= least if least > low else values > low
        width = max(1, round(min(values.shape) / 150))
        blended[top & ~binary_erosion(top, iterations=width, border_value=1)] = 1.0
    pixels: NDArray[np.uint8] = np.rint(255 * blended).astype(np.uint8)
    return pixels


def fitted(width: int, height: int) -> tuple[int, int]:
    """The size in pixels at which a photograph stands in `attention_panel`; to be scaled to it before a map is laid over it.

    Args:
        width: Of the photograph, in any unit.
        height: In the same.
    """
    across, down = _size(width, height)
    return max(1, round(across / _MM_PER_INCH * PNG_DPI)), max(1, round(down / _MM_PER_INCH * PNG_DPI))


def attention_panel(photograph: NDArray[np.uint8], maps: Sequence[ShownMap], note: str = "") -> Figure:
    """A photograph and, beside it, each map over it with its scale. Call within `styled`.

    Args:
        photograph: (H, W, 3) RGB, of the size that `fitted` gives.
        maps: One or two.
        note: What else is to be said, beneath the photograph; lines are broken where it says so.
    """
    across, down = _size(photograph.shape[1], photograph.shape[0])
    n = 1 + len(maps)
    width, height = 2 * _EDGE + n * _COLUMN + (n - 1) * _GAP, _ABOVE + down + _BELOW
    figure = new_figure(width, height)
    figure.set_layout_engine(None)  # every place is given

    def place(column: int, below: float, size: tuple[float, float]) -> Axes:
        """Axes in a column, so many mm below the upper edge of the pictures."""
        left, bottom = _EDGE + column * (_COLUMN + _GAP), height - _ABOVE - below - size[1]
        return figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height))

    _picture(place(0, 0, (across, down)), photograph, "photograph", "")
    figure.text(_EDGE / width, (_BELOW - _BAR_GAP) / height, note, va="top", fontsize=6, color=FAINT, linespacing=1.4)
    for column, shown in enumerate(maps, start=1):
        what, rest = ("probability", "") if shown.calibrated else ("score", ", not calibrated")
        aside = f"{shown.task}, {what} {shown.probability:.2f}{rest}"
        _picture(place(column, 0, (across, down)), overlaid(photograph, shown.values), shortened(shown.name), aside)
        _scale(place(column, down + _BAR_GAP, (max(across, _BAR_LEAST), _BAR)), shown)
    return figure


def scale_colors(n: int = 9) -> list[str]:
    """Colours of the scale, n of them from the lowest to the highest, such as ``"#440154"``."""
    return [to_hex(color) for color in _COLORS(np.linspace(0, 1, n))]


def _size(width: int, height: int) -> tuple[float, float]:
    """Of a picture in mm, as wide as its column unless it is then too tall."""
    scale = min(_COLUMN / width, _TALLEST / height)
    return width * scale, height * scale


def _picture(axes: Axes, pixels: NDArray[np.uint8], title: str, aside: str) -> None:
    axes.imshow(pixels, aspect="auto")
    axes.set_axis_off()
    for text, points, weight, color in ((title, 12, "bold", INK), (aside, 3.5, "normal", FAINT)):
        axes.annotate(text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points", weight=weight, color=color)


def _scale(axes: Axes, shown: ShownMap) -> None:
    low, high = float(shown.values.min()), float(shown.values.max())
    top = high if high > low else low + 1
    bar = axes.figure.colorbar(ScalarMappable(Normalize(low, top), _COLORS), cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    marks = {low: f"{low:.2g}", high: f"{high:.2g}"}
    if low < 0 < high:
        apart = min(-low, high) > 0.15 * (high - low)  # else its number would touch another one
        marks[0.0] = "0" if apart else ""
    ticks = sorted(marks)
    bar.set_ticks(ticks, labels=[marks[tick].replace("-", "−") for tick in ticks])
    labels = bar.ax.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right" if high > low else "left")
    bar.set_label(f"{METHODS[shown.method]}, {_UNITS[shown.method]}", color=FAINT, loc="left", fontsize=6)
