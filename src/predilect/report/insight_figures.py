"""Figures of attention and retrieval: are the maps true, do two heads look at the same places, are neighbours alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from predilect.evaluation.attention_scores import AttentionEvaluation, MapCurves, MeanCurve
from predilect.evaluation.group_means import GroupMean
from predilect.evaluation.retrieval_summary import RetrievalEvaluation
from predilect.report.insight_tables import CoincidenceRow, coincidence_rows
from predilect.report.insight_wording import MEASURE_TITLES, explained_heads
from predilect.report.rows import HEAD, Series, draw_dots, handles, legend, name_rows, row_height, score_axis
from predilect.report.style import DOUBLE_COLUMN, FAINT, INK, SERIES, SINGLE_COLUMN, new_figure, shortened
from predilect.report.wording import Estimate

__all__ = ["coincidence_figure", "faithfulness_figure", "retrieval_figure"]

# The network's own map stands out; the two that know nothing of it are told apart by their lines.
_LOOKS: Mapping[str, tuple[str, str, Literal["-", "--", ":"]]] = {
    "map": ("attention map", SERIES[0], "-"),
    "random": ("random map", FAINT, "--"),
    "gaussian": ("middle", INK, ":"),
}
_ACROSS = 2  # heads beside each other, each with two panels


def faithfulness_figure(attention: AttentionEvaluation) -> Figure:
    """Deletion and insertion curves of each head, with a 95 % band, beside those of maps that know nothing of the network.

    Raises:
        ValueError: If no head was checked.
    """
    heads = explained_heads(attention)
    if not heads:
        raise ValueError("no head's maps were checked")
    across = min(len(heads), _ACROSS)
    down = -(-len(heads) // across)
    figure = new_figure(SINGLE_COLUMN if across == 1 else DOUBLE_COLUMN, 8 + 46 * down)
    grid = figure.subplots(down, 2 * across, squeeze=False, sharex=True)
    for axes in grid.flat[2 * len(heads) :]:
        axes.set_visible(False)
    for k, (name, task, head) in enumerate(heads):
        pair = [grid[k // across, 2 * (k % across) + side] for side in (0, 1)]
        for axes, curve in zip(pair, ("deletion", "insertion"), strict=True):
            for kind, (_, color, line) in _LOOKS.items():
                values = getattr(head.perturbation.maps[kind], curve).value
                axes.plot(head.perturbation.shares, values, color=color, linestyle=line, linewidth=1.3)
            _band(axes, head.perturbation.shares, getattr(head.perturbation.maps["map"], curve))
            axes.set_xlim(0, 1)
            axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
            axes.tick_params(labelbottom=True)
            axes.grid(axis="y")
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.set_xlabel("share taken away" if curve == "deletion" else "share shown")
        # Both curves are probabilities of one class: the same scale tells that they share their ends.
        top = 1.06 * max(_highest(maps) for maps in head.perturbation.maps.values())
        for axes in pair:
            axes.set_ylim(0, top)
        pair[1].tick_params(labelleft=False)
        pair[0].set_title(f"{shortened(name, 20)}, {task}")
        pair[0].set_ylabel("probability")
    legend(
        figure, [Line2D([], [], color=color, linestyle=line, linewidth=1.3, label=label) for label, color, line in _LOOKS.values()]
    )
    return figure


def coincidence_figure(attention: AttentionEvaluation, order: Sequence[str]) -> Figure:
    """How much the maps of each lesion and of the site coincide, and what the lesion gained: three panels over the same rows.

    A filled dot in the first two is a lesion whose maps are nearly the same.

    Args:
        attention: At least one system with two heads.
        order: All systems of the report, which decides their colours.

    Raises:
        ValueError: If no system has two heads.
    """
    rows = coincidence_rows(attention)
    if not rows:
        raise ValueError("no system has maps of lesions and sites")
    systems = list(dict.fromkeys(row.system for row in rows))
    lesions = sorted(dict.fromkeys(row.lesion.lesion for row in rows), key=lambda name: -_mean_correlation(rows, name))
    found = {(row.system, row.lesion.lesion): row for row in rows}
    gains = any(row.gain is not None for row in rows)
    figure = new_figure(DOUBLE_COLUMN, HEAD + row_height(len(systems), lesions) * len(lesions))
    panels = figure.subplots(1, 3 if gains else 2, sharey=True)
    for axes, title in zip(
        panels, ("correlation of the two maps", "overlap of their top 20 %", "gain in average precision"), strict=False
    ):
        name_rows(axes, lesions)
        axes.set_xlabel(title)
    style = list(order).index
    for axes, field in zip(panels, ("correlation", "overlap"), strict=False):
        series = [
            Series(
                system,
                style(system),
                [
                    _estimate(getattr(found[system, name].lesion, field)) if (system, name) in found else Estimate(None)
                    for name in lesions
                ],
                [(system, name) in found and found[system, name].lesion.shortcut for name in lesions],
            )
            for system in systems
        ]
        draw_dots(axes, series)
    panels[0].set_xlim(-1, 1)
    panels[0].axvline(0, color=FAINT, linewidth=0.7, zorder=1.2)
    panels[1].set_xlim(0, 1)
    for chance in sorted({attention.systems[system].overlap_by_chance for system in systems}):  # as many as there are sizes of maps
        panels[1].axvline(chance, color=FAINT, linewidth=0.7, zorder=1.2)
    if gains:
        _gains(
            panels[2],
            [[found.get((system, name)) for name in lesions] for system in systems],
            [style(system) for system in systems],
        )
    solid = [Series(system, style(system), (), ()) for system in systems]
    legend(figure, [*handles(solid), Line2D([], [], color=FAINT, linewidth=0.7, label="no coincidence, chance, no gain")])
    return figure


def retrieval_figure(retrieval: RetrievalEvaluation, order: Sequence[str], width: float = SINGLE_COLUMN) -> Figure:
    """Each measure of retrieval by system with intervals; a grey tick is what a random order reaches.

    Args:
        retrieval: At least one system.
        order: All systems of the report, which decides their colours.
        width: In mm.
    """
    series = []
    for name, scores in retrieval.systems.items():
        measures = [getattr(scores, measure) for measure in MEASURE_TITLES]
        points = [Estimate(item.value, item.low, item.high) for item in measures]
        series.append(Series(name, list(order).index(name), points, [point.low is not None for point in points]))
    first = next(iter(retrieval.systems.values()))
    chance = [getattr(first, measure).chance for measure in MEASURE_TITLES]
    figure = new_figure(width, HEAD + row_height(len(series), list(MEASURE_TITLES.values())) * len(MEASURE_TITLES))
    axes = figure.add_subplot()
    name_rows(axes, list(MEASURE_TITLES.values()))
    draw_dots(axes, series)
    shown = [np.nan if value is None else value for value in chance]
    axes.plot(shown, np.arange(len(chance)), "|", color=FAINT, markersize=4.5, markeredgewidth=0.8, zorder=1.5)
    score_axis(axes, "score, from 0 to 1")
    random_order = Line2D([], [], color=FAINT, marker="|", linestyle="none", markersize=4.5, label="random order")
    legend(figure, [*handles(series), random_order])
    return figure


def _band(axes: Axes, shares: Sequence[float], curve: MeanCurve) -> None:
    """The intervals of the network's own map; those of the others would only hide how clear the paired differences are."""
    if curve.low is not None and curve.high is not None:
        axes.fill_between(shares, curve.low, curve.high, color=_LOOKS["map"][1], alpha=0.15, linewidth=0)


def _highest(maps: MapCurves) -> float:
    return max(max(curve.high or curve.value) for curve in (maps.deletion, maps.insertion))


def _mean_correlation(rows: Sequence[CoincidenceRow], lesion: str) -> float:
    values = [row.lesion.correlation.value for row in rows if row.lesion.lesion == lesion]
    return float(np.mean([value for value in values if value is not None]))


def _gains(axes: Axes, rows: Sequence[Sequence[CoincidenceRow | None]], styles: Sequence[int]) -> None:
    """The gain of each lesion, one series per system; an empty row where there is none."""
    series = []
    for style, of_system in zip(styles, rows, strict=True):
        gains = [None if row is None else row.gain for row in of_system]
        points = [Estimate(None) if gain is None else Estimate(gain.gain, gain.gain_low, gain.gain_high) for gain in gains]
        series.append(Series("", style, points, [True] * len(points)))
    axes.axvline(0, color=FAINT, linewidth=0.7, zorder=1.2)
    draw_dots(axes, series)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _estimate(mean: GroupMean) -> Estimate:
    return Estimate(mean.value, mean.low, mean.high)
