"""Figures of matrices: where lesions are found (Eq. 1, the paper's Figure 1), and how classes fall into the folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from predilect.evaluation.scores import ClassBalance, FoldBalance, PredilectionMap
from predilect.labels.tasks import LESION, SITE
from predilect.report.style import (
    DOUBLE_COLUMN,
    FAINT,
    PAPER,
    SINGLE_COLUMN,
    TWO_LINES,
    name_ticks,
    new_figure,
    room_for,
    shortened,
    wrapped,
)

__all__ = [
    "CELL_COLORS",
    "LABELLED_CELL",
    "LIFT_LIMIT",
    "balance_figure",
    "draw_cells",
    "name_columns",
    "plain_bar",
    "predilection_figure",
]

LIFT_LIMIT = 8.0  # lifts beyond it, or below its inverse, have the colour of the end of the scale

# Perceptually uniform for shares; for lifts diverging, safe for the colour-blind and white at the base rate. An odd number of
# steps has a middle, and few of them keep a colour bar of outlines small.
CELL_COLORS = {"share": mpl.colormaps["magma_r"].resampled(65), "lift": mpl.colormaps["RdBu_r"].resampled(65)}

LABELLED_CELL = 5.0  # mm from which a cell holds its number

_NAMES_WIDTH = 40.0  # mm beside the cells for class names
# Numbers on cells; unlike INK and PAPER they do not follow a page's theme, since the cells do not.
_ON_LIGHT, _ON_DARK = "#10131a", "#fafafa"
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_POINTS_PER_MM = 72 / 25.4
_DIGIT_WIDTH = 0.64  # em


def predilection_figure(found: PredilectionMap) -> Figure:
    """The correlation map of Eq. 1 and beside it the lift over the site's base rate; hatched where undefined.

    Cells hold their numbers where these fit. The lift has a logarithmic scale centred at 1.
    """
    width = (DOUBLE_COLUMN - _NAMES_WIDTH - 4) / 2 / max(len(found.sites), 1)
    height = float(np.clip(width, room_for(found.lesions, 3.3), 6.0))
    figure = new_figure(DOUBLE_COLUMN, 44 + height * len(found.lesions))
    left, right = figure.subplots(1, 2, sharey=True)
    ratio, lift = np.array(found.ratio, dtype=float), np.array(found.lift, dtype=float)
    # A lift of 0 lies below every finite limit of a logarithmic scale, so it takes the colour of the lower end.
    log_lift = np.log2(np.clip(lift, 1 / LIFT_LIMIT, LIFT_LIMIT))
    end = math.log2(LIFT_LIMIT)
    top = float(np.nanmax(ratio, initial=0.0)) or 1.0
    share_texts = [[_short(value) for value in row] for row in ratio]
    lift_texts = [[f"{value:.1f}" if value < 9.95 else f"{value:.0f}" for value in row] for row in lift]
    for axes, values, kind, norm, texts in (
        (left, ratio, "share", Normalize(0, top), share_texts),
        (right, log_lift, "lift", Normalize(-end, end), lift_texts),
    ):
        mesh = draw_cells(axes, values, kind, norm, texts=texts if width >= LABELLED_CELL else None, width=width)
        name_columns(axes, found.sites, width)
        bar = figure.colorbar(mesh, ax=axes, location="bottom", fraction=0.03, aspect=44, pad=0.02)
        plain_bar(bar)
        if kind == "lift":
            ticks = _lift_ticks()
            bar.set_ticks(list(ticks), labels=list(ticks.values()))
    name_ticks(left.yaxis, [f"{wrapped(name)} ({n:,})" for name, n in zip(found.lesions, found.n_lesion, strict=True)])
    left.set_title("share of the lesion's photographs at the site")
    right.set_title("lift over the site's base rate")
    if np.isnan(ratio).any() or np.isnan(lift).any():
        figure.legend(handles=[_hatched(xy=(0, 0), width=1, height=1, label="no photographs")], loc="outside upper right")
    return figure


def balance_figure(balance: FoldBalance) -> Figure:
    """How many photographs of each class lie in each fold; the colour tells how far that is from the fold's share of photographs.

    Raises:
        ValueError: If no class is counted.
    """
    panels = [
        (title, [item for item in balance.classes if item.task == task])
        for task, title in ((LESION, "lesions"), (SITE, "body sites"))
    ]
    panels = [(title, items) for title, items in panels if items]
    if not panels:
        raise ValueError("the balance counts no class")
    longest = max(len(items) for _, items in panels)
    width = (DOUBLE_COLUMN / 2 - _NAMES_WIDTH) / max(len(balance.folds), 1)
    figure = new_figure(
        SINGLE_COLUMN if len(panels) == 1 else DOUBLE_COLUMN, 31 + longest * room_for([item.name for item in balance.classes], 3.9)
    )
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, items) in zip(grid.flat, panels, strict=True):
        counts = np.array([item.n_positive for item in items])
        texts = [[f"{n}" for n in row] for row in counts]
        mesh = draw_cells(axes, _deviation(items, balance), "lift", Normalize(-1, 1), texts=texts, width=width)
        axes.set_ylim(longest - 0.5, -0.5)
        name_ticks(axes.yaxis, [wrapped(item.name) for item in items])
        names = ["tuning" if fold < 0 else f"{fold}" for fold in balance.folds]
        axes.set_xticks(np.arange(len(names)), [f"{name}\n{n:,}" for name, n in zip(names, balance.n_images, strict=True)])
        axes.set_xlabel("fold, and its photographs")
        axes.set_title(title)
    bar = figure.colorbar(mesh, ax=grid, location="bottom", fraction=0.02, aspect=70, shrink=0.6, pad=0.02)
    plain_bar(bar)
    bar.set_ticks([-1, 0, 1], labels=["half or less", "as expected of the fold's size", "double or more"])
    return figure


def _deviation(items: Sequence[ClassBalance], balance: FoldBalance) -> NDArray[np.float64]:
    """log2 of observed over expected counts, clipped to [-1, 1]; NaN for a class or a fold without photographs."""
    counts = np.array([item.n_positive for item in items], dtype=float)
    sizes = np.array(balance.n_images, dtype=float)
    expected = counts.sum(axis=1, keepdims=True) * (sizes / max(sizes.sum(), 1))
    ratio = np.divide(counts, expected, out=np.full_like(counts, np.nan), where=expected > 0)
    deviation: NDArray[np.float64] = np.log2(np.clip(ratio, 0.5, 2.0))
    return deviation


def _lift_ticks() -> dict[int, str]:
    """Positions on the log2 scale and their labels: ≤ 1/8, 1/4, ... ≥ 8."""
    end = round(math.log2(LIFT_LIMIT))
    labels = {tick: f"{2**tick}" if tick >= 0 else f"1/{2**-tick}" for tick in range(-end, end + 1)}
    return labels | {-end: f"≤ {labels[-end]}", end: f"≥ {labels[end]}"}


def draw_cells(
    axes: Axes, values: NDArray[np.float64], kind: str, norm: Normalize, *, texts: Sequence[Sequence[str]] | None, width: float
) -> QuadMesh:
    """Draw a matrix, its first row on top; NaN is hatched; `texts` stand in the cells, sized for cells `width` mm wide.

    Args:
        axes: Where; its limits become those of the matrix.
        values: (n, m).
        kind: One of `CELL_COLORS`.
        norm: From values to colours.
        texts: (n, m), or None.
        width: Of a cell in mm.
    """
    colors = CELL_COLORS[kind]
    n, m = values.shape
    masked = np.isnan(values)
    mesh = axes.pcolormesh(
        np.arange(m + 1) - 0.5,
        np.arange(n + 1) - 0.5,
        np.ma.array(values, mask=masked),
        cmap=colors,
        norm=norm,
        edgecolors=PAPER,
        linewidth=0.4,
    )
    for row in range(n):
        edges = np.flatnonzero(np.diff(masked[row], prepend=False, append=False))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            axes.add_patch(_hatched(xy=(start - 0.5, row - 0.5), width=stop - start, height=1))
    axes.set_ylim(n - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if texts is not None:
        longest = max(len(text) for row in texts for text in row)
        size = min(6.0, 0.88 * width * _POINTS_PER_MM / (_DIGIT_WIDTH * longest))
        luminance = colors(norm(values))[..., :3] ** 2.2 @ _LUMINANCE
        for i, j in np.argwhere(~masked):
            color = _ON_LIGHT if luminance[i, j] > 0.18 else _ON_DARK
            text = axes.text(j, i, texts[i][j], ha="center", va="center_baseline", fontsize=size, color=color)
            text.set_in_layout(False)  # it lies inside the axes; measuring hundreds of them is slow
    return mesh


def name_columns(axes: Axes, names: Sequence[str], width: float) -> None:
    """Write names beneath columns `width` mm wide, upright, on two lines where these are wide enough."""
    name_ticks(axes.xaxis, [(wrapped if width >= TWO_LINES else shortened)(name, 24) for name in names])
    axes.tick_params(axis="x", rotation=90)


def plain_bar(bar: Colorbar) -> None:
    """Take the frame off a colour bar and make it of outlines, like the rest of the figure."""
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set_rasterized(False)
    bar.solids.set_edgecolor("face")


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _hatched(**place: Any) -> Rectangle:
    return Rectangle(facecolor="none", edgecolor=FAINT, hatch="/////", linewidth=0.3, **place)
