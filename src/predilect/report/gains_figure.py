"""The figure of gains: does learning the body site help most where lesions have sites of predilection?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from predilect.evaluation.scores import LesionGain, PredilectionGain
from predilect.report.placing import place_names
from predilect.report.style import DOUBLE_COLUMN, FAINT, INK, MARKERS, PAPER, SERIES, SINGLE_COLUMN, new_figure, shortened, wrapped
from predilect.report.wording import interval, number

__all__ = ["gains_figure"]

Floats = NDArray[np.float64]

_POINTS_PER_INCH = 72
_ACROSS = 2  # panels beside each other
_MARKER = 3.4  # points
_AIR = 1.6  # points around a name
_HALO = 2.0  # points: a line behind a name leaves it free on both sides


def gains_figure(gains: Sequence[PredilectionGain]) -> Figure:
    """Each lesion's gain in AP against the strength of its predilection, both with 95 % intervals: a panel per pair of systems.

    Lesions stand by name at their dots, where there is room; those with a strong predilection and no gain, like the paper's
    alopecia, have a mark of their own. The rank correlation stands in the title.

    Args:
        gains: At least one pair with at least one lesion.

    Raises:
        ValueError: If there is no pair.
    """
    if not gains:
        raise ValueError("this evaluation holds no gains")
    across = min(len(gains), _ACROSS)
    down = -(-len(gains) // across)
    figure = new_figure(SINGLE_COLUMN if across == 1 else DOUBLE_COLUMN, 8 + 80 * down)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(gains) :]:
        axes.set_visible(False)
    for axes, pair in zip(grid.flat, gains, strict=False):
        _draw_pair(axes, pair)
    marked = any(item.strong_without_gain for pair in gains for item in pair.lesions)
    handles = [_handle(marked=False), _handle(marked=True)] if marked else [_handle(marked=False)]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)  # names are placed between dots, so these must have their final places
    for axes, pair in zip(grid.flat, gains, strict=False):
        _name_lesions(axes, pair.lesions)
    return figure


def _draw_pair(axes: Axes, pair: PredilectionGain) -> None:
    axes.axhline(0, color=FAINT, linewidth=0.6, zorder=1)
    axes.axvline(0, color=FAINT, linewidth=0.6, zorder=1)
    for marked in (False, True):
        chosen = [item for item in pair.lesions if item.strong_without_gain == marked]
        color, marker = _look(marked=marked)
        x, low_x, high_x, y, low_y, high_y = _numbers(chosen).T
        axes.hlines(y, low_x, high_x, color=color, linewidth=0.6, alpha=0.45, zorder=2)
        axes.vlines(x, low_y, high_y, color=color, linewidth=0.6, alpha=0.45, zorder=2)
        axes.plot(x, y, marker, color=color, markersize=_MARKER, markeredgewidth=0.5, markeredgecolor=PAPER, zorder=4)
    whole = _numbers(pair.lesions)
    for values, limit in ((whole[:, :3], axes.set_xlim), (whole[:, 3:], axes.set_ylim)):
        low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
        margin = 0.06 * (high - low) or 0.05
        limit(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("strength of predilection, bits")
    axes.set_ylabel("gain in average precision")
    correlation = "not defined"
    if pair.rank_correlation is not None:
        correlation = f"{number(pair.rank_correlation)} {interval(pair.rank_correlation_low, pair.rank_correlation_high)}".rstrip()
    axes.set_title(f"{shortened(pair.system_a, 22)} − {shortened(pair.system_b, 22)}\nrank correlation {correlation}")


def _numbers(lesions: Sequence[LesionGain]) -> Floats:
    """(n, 6): strength with its interval, gain with its interval; NaN where there is none."""
    rows = [(item.strength, item.strength_low, item.strength_high, item.gain, item.gain_low, item.gain_high) for item in lesions]
    return np.array(rows, dtype=float).reshape(-1, 6)


def _look(*, marked: bool) -> tuple[str, str]:
    return (SERIES[1], MARKERS[2]) if marked else (SERIES[0], MARKERS[0])


def _handle(*, marked: bool) -> Line2D:
    color, marker = _look(marked=marked)
    label = "strong predilection without gain" if marked else "lesion"
    return Line2D([], [], color=color, marker=marker, linestyle="none", markersize=_MARKER, label=label)


def _name_lesions(axes: Axes, lesions: Sequence[LesionGain]) -> None:
    """Write the lesions' names at their dots; where there is no room for all, the marked and the frequent ones keep theirs."""
    lesions = sorted(lesions, key=lambda item: (not item.strong_without_gain, -item.n_positive_groups))
    scale = _POINTS_PER_INCH / axes.figure.dpi
    numbers = _numbers(lesions)
    names = [_annotation(axes, item) for item in lesions]
    extents = [name.get_window_extent() for name in names]
    dots = axes.transData.transform(numbers[:, [0, 3]]) * scale
    sizes = np.array([(extent.width, extent.height) for extent in extents]) * scale + _AIR
    frame = np.array(axes.get_window_extent().extents) * scale
    zero = axes.transData.transform((0, 0)) * scale
    lines = [*_whiskers(axes, numbers) * scale, (frame[0], zero[1], frame[2], zero[1]), (zero[0], frame[1], zero[0], frame[3])]
    places = place_names(dots, sizes, _MARKER, np.array(lines), frame)
    for dot, name, item, place in zip(dots, names, lesions, places, strict=True):
        if place is None:
            name.remove()
            continue
        name.set_position(tuple(place.centre - dot))
        if place.joined:
            _join(axes, item, place.end - dot)


def _annotation(axes: Axes, item: LesionGain) -> Annotation:
    name = axes.annotate(
        wrapped(item.lesion),
        (item.strength, item.gain),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=5.5,
        linespacing=1.1,
        fontweight="bold" if item.strong_without_gain else "normal",
        color=INK,
        zorder=5,
        annotation_clip=False,
    )
    name.set_path_effects([patheffects.withStroke(linewidth=_HALO, foreground=PAPER)])
    name.set_in_layout(False)
    return name


def _join(axes: Axes, item: LesionGain, end: Floats) -> None:
    """A thin line from a dot to its name; `end` is in points from the dot."""
    line = axes.annotate(
        "",
        (item.strength, item.gain),
        xytext=(float(end[0]), float(end[1])),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.4, "shrinkA": 0, "shrinkB": _MARKER / 2},
        zorder=3,
        annotation_clip=False,
    )
    line.set_in_layout(False)


def _whiskers(axes: Axes, numbers: Floats) -> Floats:
    """(m, 4) in pixels: the whiskers as flat boxes x0, y0, x1, y1; those without interval left out."""
    x, low_x, high_x, y, low_y, high_y = numbers.T
    ends = np.concatenate([np.stack([low_x, y, high_x, y], axis=1), np.stack([x, low_y, x, high_y], axis=1)])
    ends = ends[~np.isnan(ends).any(axis=1)]
    corners: Floats = axes.transData.transform(ends.reshape(-1, 2)).reshape(-1, 4)
    return corners
