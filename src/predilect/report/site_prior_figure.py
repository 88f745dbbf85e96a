"""The figure of a given site: what each site does to each lesion, and what that brings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from predilect.evaluation.known_site_scores import KnownSite
from predilect.evaluation.scores import Comparison
from predilect.report.dots import SIGNIFICANT
from predilect.report.heatmaps import LABELLED_CELL, draw_cells, name_columns, plain_bar
from predilect.report.rows import Series, draw_dots, legend, name_rows, number_column, remark
from predilect.report.style import DOUBLE_COLUMN, FAINT, INK, name_ticks, new_figure, room_for, wrapped
from predilect.report.wording import Estimate

__all__ = ["effect_lesions", "site_prior_figure", "told_and_not"]

_HEAD = 54.0  # mm for legend, site names and the colour bar
_CELLS_WIDTH = 72.0  # mm of all columns of the heat map
_ENDS = (1.5, 2, 3, 5, 10, 20, 50)  # of the colour scale; none is nearer to 1, so that what is nothing looks like nothing
_THOUSANDTHS = 1000


def told_and_not(system: str) -> tuple[str, str]:
    """The pair whose difference is what the site gave to a system, and nothing else."""
    return f"{system}+site", f"{system} recalibrated"


def effect_lesions(found: KnownSite, system: str) -> list[str]:
    """The lesions whose labels people made, those that the site moves most first."""
    effects = found.effects[system]
    human = [name for name, item in found.systems[f"{system}+site"].lesion.per_class.items() if not item.machine_made]
    spread = {name: float(np.ptp(row)) for name, row in zip(effects.lesions, effects.theta, strict=True)}
    return sorted(human, key=lambda name: (-spread[name], -found.systems[f"{system}+site"].lesion.per_class[name].n_positive))


def site_prior_figure(found: KnownSite, system: str) -> Figure:
    """By what a given site multiplies the odds of each lesion, and beside it what that brings: average precision, and log-loss saved.

    Differences are those of ``<system>+site`` and ``<system> recalibrated``, with 95 % intervals; right of zero the site helps.

    Args:
        found: What was measured.
        system: Of the run, such as ``mtl``.

    Raises:
        ValueError: If there is no such system.
    """
    if system not in found.effects:
        raise ValueError(f"there is no system {system!r} here: {', '.join(found.effects)}")
    names = effect_lesions(found, system)
    effects = found.effects[system]
    theta = np.array([effects.theta[effects.lesions.index(name)] for name in names])
    width = _CELLS_WIDTH / len(effects.sites)
    figure = new_figure(DOUBLE_COLUMN, _HEAD + room_for(names, 4.4) * len(names))
    grid = figure.subplots(1, 3, sharey=True, width_ratios=[1.9, 1, 1])
    end = next((end for end in _ENDS if math.log(end) >= np.abs(theta).max()), _ENDS[-1])
    odds = [[_times(value) for value in row] for row in np.exp(theta)]
    texts = odds if width >= LABELLED_CELL else None
    for axes in grid[1:]:
        name_rows(axes, names)
    mesh = draw_cells(grid[0], theta, "lift", Normalize(-math.log(end), math.log(end)), texts=texts, width=width)
    name_ticks(grid[0].yaxis, [wrapped(name) for name in names])
    name_columns(grid[0], effects.sites, width)
    grid[0].set_title("factor on the lesion’s odds")
    bar = figure.colorbar(mesh, ax=grid[0], location="bottom", fraction=0.04, aspect=40, pad=0.02)
    plain_bar(bar)
    bar.set_ticks([-math.log(end), 0, math.log(end)], labels=[f"divided by {end:g}", "unchanged", f"times {end:g}"])
    compared = {
        (item.metric, item.class_name): item for item in found.comparisons if (item.system_a, item.system_b) == told_and_not(system)
    }
    _gains(grid[1], [compared["ap", name] for name in names], 1, "gain in average precision")
    _gains(grid[2], [compared["log_loss", name] for name in names], -_THOUSANDTHS, "log-loss saved,\nthousandths of a nat")
    number_column(grid[2], [found.systems[f"{system}+site"].lesion.per_class[name].n_positive for name in names], "n")
    dot = {"color": INK, "marker": "o", "linestyle": "none", "markersize": 3.6}
    legend(
        figure,
        [
            Line2D([], [], label=f"Holm’s p < {SIGNIFICANT:g}", **dot),  # type: ignore[arg-type]
            Line2D([], [], label="not significant", markerfacecolor="none", **dot),  # type: ignore[arg-type]
        ],
    )
    return figure


def _gains(axes: Axes, items: Sequence[Comparison], scale: float, label: str) -> None:
    points = []
    for item in items:
        ends = sorted(scale * value for value in (item.low, item.high) if value is not None)
        value = None if item.difference is None or not ends else scale * item.difference
        points.append(Estimate(value, *ends))
    solid = [item.p_holm is not None and item.p_holm < SIGNIFICANT for item in items]
    axes.axvline(0, color=FAINT, linewidth=0.7, zorder=1.2)
    draw_dots(axes, [Series(label, 0, points, solid)])
    remark(axes, [row for row, point in enumerate(points) if point.value is None], "too few groups")
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.tick_params(axis="y", labelleft=False)


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.0f}"
