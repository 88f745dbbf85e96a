"""Figures of scores and counts: a row per class, and in it a dot and a whisker per system, or a bar."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from predilect.evaluation.scores import Comparison, Evaluation
from predilect.report.rows import (
    HEAD,
    Series,
    draw_dots,
    handles,
    legend,
    name_rows,
    number_column,
    remark,
    row_height,
    score_axis,
)
from predilect.report.style import DOUBLE_COLUMN, FAINT, INK, PAPER, RULE, SERIES, SINGLE_COLUMN, new_figure, shortened
from predilect.report.tables import ap_differences, lesion_systems, site_systems
from predilect.report.wording import Estimate

__all__ = ["SIGNIFICANT", "counts_figure", "difference_figure", "lesion_figure", "ranked_lesions", "site_figure"]

SIGNIFICANT = 0.05  # Holm's p below it fills a dot of the differences


def ranked_lesions(evaluation: Evaluation) -> list[str]:
    """Lesions that people labelled, the highest mean AP over systems first, those without AP last."""
    scored = list(lesion_systems(evaluation).values())
    if not scored:
        return []

    def rank(name: str) -> float:
        values = [ap for scores in scored if (ap := scores.per_class[name].ap) is not None]
        return -float(np.mean(values)) if values else 1.0

    return sorted((name for name, item in scored[0].per_class.items() if not item.machine_made), key=rank)


def lesion_figure(evaluation: Evaluation, width: float = SINGLE_COLUMN) -> Figure:
    """Average precision of each lesion by system with intervals, mAP-class on top (the paper's Table 1).

    A grey tick is the share of the known photographs that show the lesion: the AP of a random order. An outlined dot has no
    interval. Machine-made lesions are left out.

    Args:
        evaluation: At least one system must predict lesions.
        width: In mm.

    Raises:
        ValueError: If no system predicts lesions.
    """
    scored = lesion_systems(evaluation)
    if not scored:
        raise ValueError("no system of this evaluation predicts lesions")
    names = ranked_lesions(evaluation)
    first = next(iter(scored.values())).per_class
    series = []
    for system, scores in scored.items():
        points = [Estimate(scores.map_class, scores.map_class_low, scores.map_class_high)]
        points += [Estimate(item.ap, item.ap_low, item.ap_high) for item in (scores.per_class[name] for name in names)]
        series.append(Series(system, _style(evaluation, system), points, [point.low is not None for point in points]))
    figure = new_figure(width, HEAD + row_height(len(series), names) * (1 + len(names)))
    axes = figure.add_subplot()
    rows = ["mAP-class", *names]
    name_rows(axes, rows)
    draw_dots(axes, series)
    chance = [first[name].n_positive / first[name].n_known if first[name].n_known else np.nan for name in names]
    axes.plot(chance, np.arange(1, len(rows)), "|", color=FAINT, markersize=4.5, markeredgewidth=0.8, zorder=1.5)
    axes.axhline(0.5, color=FAINT, linewidth=0.5)
    for label in axes.get_yticklabels()[:1]:
        label.set_fontweight("bold")
    remark(axes, [row for row, name in enumerate(rows) if row and first[name].ap is None], "no known positive")
    number_column(axes, [None, *(first[name].n_positive for name in names)], "n")
    score_axis(axes, "average precision")
    random_order = Line2D([], [], color=FAINT, marker="|", linestyle="none", markersize=4.5, label="random order")
    legend(figure, [*handles(series), random_order])
    return figure


def difference_figure(evaluation: Evaluation) -> Figure:
    """Paired differences in AP, lesion by lesion, with intervals: a panel per pair of systems, rows as in `lesion_figure`.

    A filled dot has a p below `SIGNIFICANT`, that of a lesion after Holm's correction; a lesion without interval has no dot.

    Raises:
        ValueError: If no pair of systems was compared lesion by lesion.
    """
    pairs = ap_differences(evaluation)
    if not pairs:
        raise ValueError("this evaluation compares no lesions between systems")
    names = ranked_lesions(evaluation)
    across = min(len(pairs), 3)
    down = -(-len(pairs) // across)
    # Alone, it stands beside the figure of lesions, row by row.
    row = row_height(len(lesion_systems(evaluation)) if across == 1 else 1, names)
    figure = new_figure(SINGLE_COLUMN if across == 1 else DOUBLE_COLUMN, down * (HEAD + row * (1 + len(names))))
    grid = figure.subplots(down, across, squeeze=False, sharey=True, sharex=True)
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    for axes, ((a, b), found) in zip(grid.flat, pairs.items(), strict=False):
        items = [_mean_difference(evaluation, a, b), *(found.get(name) for name in names)]
        points = [
            Estimate(None) if item is None or item.low is None else Estimate(item.difference, item.low, item.high) for item in items
        ]
        tested = [None if item is None else item.p if item.class_name is None else item.p_holm for item in items]
        solid = [p is not None and p < SIGNIFICANT for p in tested]
        name_rows(axes, ["mAP-class", *names])
        for label in axes.get_yticklabels()[:1]:
            label.set_fontweight("bold")
        axes.axhline(0.5, color=FAINT, linewidth=0.5)
        axes.axvline(0, color=FAINT, linewidth=0.7, zorder=1.2)
        draw_dots(axes, [Series(a, _style(evaluation, a), points, solid)])
        axes.set_title(_pair_title(a, b))
        axes.set_xlabel("difference in average precision")
        axes.tick_params(labelbottom=True)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.ticklabel_format(axis="x", useOffset=False)
        remark(axes, [row for row, point in enumerate(points) if point.low is None and row], "too few groups")
    dot: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": "none", "markersize": 3.6}
    legend(
        figure,
        [
            Line2D([], [], label=f"p < {SIGNIFICANT:g} (lesions: Holm's)", **dot),
            Line2D([], [], label=f"≥ {SIGNIFICANT:g}", markerfacecolor=PAPER, **dot),
        ],
    )
    return figure


def site_figure(evaluation: Evaluation, width: float = SINGLE_COLUMN) -> Figure:
    """Top-1, top-3 and balanced accuracy of the body site by system (the paper's Figure 4), and top-1 of each site, with intervals.

    Raises:
        ValueError: If no system predicts the site.
    """
    scored = site_systems(evaluation)
    if not scored:
        raise ValueError("no system of this evaluation predicts the site")
    first = next(iter(scored.values())).per_class
    names = sorted(first, key=lambda name: -np.mean([scores.per_class[name].top1 or 0.0 for scores in scored.values()]))
    metrics = {"top1": "top-1", "top3": "top-3", "balanced_accuracy": "balanced"}
    whole, single = [], []
    for system, scores in scored.items():
        style = _style(evaluation, system)
        points = [Estimate(*(getattr(scores, f"{metric}{end}") for end in ("", "_low", "_high"))) for metric in metrics]
        whole.append(Series(system, style, points, [point.low is not None for point in points]))
        points = [Estimate(item.top1, item.top1_low, item.top1_high) for item in (scores.per_class[name] for name in names)]
        single.append(Series(system, style, points, [point.low is not None for point in points]))
    height = row_height(len(scored), names)
    figure = new_figure(width, HEAD + 9 + height * (len(metrics) + len(names)))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[len(metrics), len(names)])
    for axes, rows, series, title in (
        (upper, list(metrics.values()), whole, "all sites"),
        (lower, names, single, "top-1, site by site"),
    ):
        name_rows(axes, rows)
        draw_dots(axes, series)
        axes.set_title(title)
    number_column(lower, [first[name].n_images for name in names], "n")
    score_axis(lower, "share of photographs")
    upper.tick_params(axis="x", length=0)
    legend(figure, handles(whole))
    return figure


def counts_figure(evaluation: Evaluation) -> Figure:
    """How many photographs and groups show each lesion and each site that some system was scored on.

    Raises:
        ValueError: If nothing was scored.
    """
    panels: list[tuple[str, dict[str, tuple[int, int]]]] = []
    for lesion in list(lesion_systems(evaluation).values())[:1]:
        counts = {
            name: (item.n_positive, item.n_positive_groups) for name, item in lesion.per_class.items() if not item.machine_made
        }
        panels.append(("lesions", counts))
    for site in list(site_systems(evaluation).values())[:1]:
        counts = {name: (item.n_images, item.n_groups) for name, item in site.per_class.items()}
        panels.append(("body sites", counts))
    if not panels:
        raise ValueError("no system of this evaluation was scored")
    longest = max(len(counts) for _, counts in panels)
    figure = new_figure(
        SINGLE_COLUMN if len(panels) == 1 else DOUBLE_COLUMN,
        HEAD + 4 + longest * row_height(1, [name for _, counts in panels for name in counts]),
    )
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, counts) in zip(grid.flat, panels, strict=True):
        names = sorted(counts, key=lambda name: -counts[name][0])
        photographs, groups = np.array([counts[name] for name in names]).T
        rows = np.arange(len(names))
        axes.barh(rows, photographs, height=0.72, color=RULE)
        axes.barh(rows, groups, height=0.36, color=SERIES[0])
        name_rows(axes, names, last=longest)
        axes.set_title(title)
        axes.set_xlabel("photographs")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        number_column(axes, photographs.tolist(), "n")
    legend(figure, [Patch(color=RULE, label="photographs"), Patch(color=SERIES[0], label="groups")])
    return figure


def _mean_difference(evaluation: Evaluation, a: str, b: str) -> Comparison | None:
    wanted = (a, b, "map_class")
    return next((item for item in evaluation.comparisons if (item.system_a, item.system_b, item.metric) == wanted), None)


def _pair_title(a: str, b: str) -> str:
    return f"{a} − {b}" if len(a) + len(b) <= 22 else f"{shortened(a, 22)}\n− {shortened(b, 22)}"


def _style(evaluation: Evaluation, system: str) -> int:
    return list(evaluation.systems).index(system)
