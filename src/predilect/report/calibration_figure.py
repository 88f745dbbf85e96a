"""The figure of calibration: reliability diagrams of the common lesions and of the site, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from predilect.evaluation.calibration_scores import Reliability, ReliabilityBin, SystemCalibration
from predilect.report.style import DOUBLE_COLUMN, FAINT, MARKERS, PAPER, SERIES, SINGLE_COLUMN, new_figure, wrapped
from predilect.report.wording import number

__all__ = ["calibration_figure", "common_lesions"]

_ACROSS = 4  # panels beside each other
_LESIONS = 11  # with the site three full rows
_TITLE = 25  # characters of a line of a panel's title, at 6.5 points
_LOOKS = {"before": (SERIES[1], MARKERS[1]), "after": (SERIES[0], MARKERS[0])}
# Ends of the axes, the shortest that will do, and their ticks.
_AXES = {0.2: (0, 0.01, 0.05, 0.1, 0.2), 0.5: (0, 0.02, 0.1, 0.25, 0.5), 1.0: (0, 0.05, 0.2, 0.5, 1)}


def common_lesions(system: SystemCalibration) -> list[str]:
    """The lesions that are drawn: those in most groups, the most common first; with intervals, and labelled by persons."""
    drawn = [
        name
        for name, item in system.lesions.items()
        if not item.machine_made and item.after.ece.low is not None and item.after.bins
    ]
    return sorted(drawn, key=lambda name: -system.lesions[name].n_positive_groups)[:_LESIONS]


def calibration_figure(system: SystemCalibration) -> Figure:
    """How often what was said was true, against how probable it was said to be: a panel for each common lesion, and one for the site.

    Both axes run by the square root, so that small probabilities, where most photographs lie, have room; the diagonal stays a
    diagonal. Whiskers are 95 % intervals after calibration.

    Args:
        system: Lesions or the site, with at least one panel.

    Raises:
        ValueError: If there is nothing to draw.
    """
    panels = [(name, system.lesions[name]) for name in common_lesions(system)]
    if system.site is not None and system.site.after.bins:
        panels.append(("most probable site", system.site))
    if not panels:
        raise ValueError("no lesion of this system has groups enough for a reliability diagram, and it predicts no site")
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    width = DOUBLE_COLUMN if across > _ACROSS // 2 else SINGLE_COLUMN
    titles = [wrapped(name, _TITLE) for name, _ in panels]
    figure = new_figure(width, 12 + (width / across - 2 + 3 * any("\n" in title for title in titles)) * down)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, title, (_, item) in zip(grid.flat, titles, panels, strict=False):
        _draw(axes, item)
        axes.set_title(title, fontsize=6.5)
    figure.supxlabel("probability", fontsize=7)
    figure.supylabel("share of photographs of which it is true", fontsize=7)
    figure.legend(handles=[_handle(side) for side in _LOOKS], loc="outside upper right", ncols=2)
    return figure


def _draw(axes: Axes, item: Reliability) -> None:
    axes.set_xscale("function", functions=(_root, np.square))
    axes.set_yscale("function", functions=(_root, np.square))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.6, zorder=1)
    before, after = _points(item.before.bins), _points(item.after.bins)
    axes.vlines(after[0], after[2], after[3], color=_LOOKS["after"][0], linewidth=0.9, zorder=2)
    for k, (side, points) in enumerate((("before", before), ("after", after))):
        axes.plot(points[0], points[1], zorder=3 + k, clip_on=False, **_look(side))
    furthest = np.nanmax(np.concatenate([before[:2].ravel(), after.ravel()]))
    end, ticks = next((end, ticks) for end, ticks in _AXES.items() if furthest <= end)
    for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        limit(0, end)
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid()
    axes.set_aspect("equal")
    told = f"ECE {number(item.before.ece.value)} → {number(item.after.ece.value)}"
    axes.text(0.04, 0.96, told, transform=axes.transAxes, ha="left", va="top", fontsize=6)


def _points(bins: Sequence[ReliabilityBin]) -> NDArray[np.float64]:
    """(4, B): mean probability, frequency, and the frequency's interval; NaN where there is none."""
    rows = [(each.probability, each.frequency.value, each.frequency.low, each.frequency.high) for each in bins]
    return np.array(rows, dtype=float).reshape(-1, 4).T


def _look(side: str) -> dict[str, Any]:
    color, marker = _LOOKS[side]
    line: dict[str, Any] = {"color": color, "marker": marker, "linewidth": 0.5, "markersize": 3.0, "markeredgewidth": 0.8}
    return line if side == "after" else {**line, "markerfacecolor": PAPER}


def _handle(side: str) -> Line2D:
    return Line2D([], [], label="as the network says it" if side == "before" else "calibrated on other folds", **_look(side))


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.clip(values, 0, None))
