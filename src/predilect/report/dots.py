"""Figures of scores and counts: a row per class, and in it a dot and a whisker per system, or a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from predilect.evaluation.scores import Comparison, Evaluation
from predilect.report.style import (
    BAND,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    MARKERS,
    PAPER,
    RULE,
    SERIES,
    SINGLE_COLUMN,
    new_figure,
    shortened,
)
from predilect.report.tables import ap_differences, lesion_systems, site_systems
from predilect.report.wording import Estimate

__all__ = ["SIGNIFICANT", "counts_figure", "difference_figure", "lesion_figure", "ranked_lesions", "site_figure"]

SIGNIFICANT = 0.05  # Holm's p below it fills a dot of the differences

_HEAD = 17.0  # mm for legend, axis labels and margins


@dataclass(frozen=True, slots=True)
class _Series:
    """One system's points, one per row; a point that is not `solid` is drawn as an outline."""

    label: str
    style: int
    points: Sequence[Estimate]
    solid: Sequence[bool]


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
        series.append(_Series(system, _style(evaluation, system), points, [point.low is not None for point in points]))
    figure = new_figure(width, _HEAD + _row_height(len(series)) * (1 + len(names)))
    axes = figure.add_subplot()
    rows = ["mAP-class", *names]
    _rows(axes, rows)
    _dots(axes, series)
    chance = [first[name].n_positive / first[name].n_known if first[name].n_known else np.nan for name in names]
    axes.plot(chance, np.arange(1, len(rows)), "|", color=FAINT, markersize=4.5, markeredgewidth=0.8, zorder=1.5)
    axes.axhline(0.5, color=FAINT, linewidth=0.5)
    for label in axes.get_yticklabels()[:1]:
        label.set_fontweight("bold")
    _remark(axes, [row for row, name in enumerate(rows) if row and first[name].ap is None], "no known positive")
    _column(axes, [None, *(first[name].n_positive for name in names)], "n")
    _score_axis(axes, "average precision")
    random_order = Line2D([], [], color=FAINT, marker="|", linestyle="none", markersize=4.5, label="random order")
    _legend(figure, [*_handles(series), random_order])
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
    row = _row_height(len(lesion_systems(evaluation)) if across == 1 else 1)
    figure = new_figure(SINGLE_COLUMN if across == 1 else DOUBLE_COLUMN, down * (_HEAD + row * (1 + len(names))))
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
        _rows(axes, ["mAP-class", *names])
        for label in axes.get_yticklabels()[:1]:
            label.set_fontweight("bold")
        axes.axhline(0.5, color=FAINT, linewidth=0.5)
        axes.axvline(0, color=FAINT, linewidth=0.7, zorder=1.2)
        _dots(axes, [_Series(a, _style(evaluation, a), points, solid)])
        axes.set_title(_pair_title(a, b))
        axes.set_xlabel("difference in average precision")
        axes.tick_params(labelbottom=True)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.ticklabel_format(axis="x", useOffset=False)
        _remark(axes, [row for row, point in enumerate(points) if point.low is None and row], "too few groups")
    dot: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": "none", "markersize": 3.6}
    _legend(
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
        whole.append(_Series(system, style, points, [point.low is not None for point in points]))
        points = [Estimate(item.top1, item.top1_low, item.top1_high) for item in (scores.per_class[name] for name in names)]
        single.append(_Series(system, style, points, [point.low is not None for point in points]))
    height = _row_height(len(scored))
    figure = new_figure(width, _HEAD + 9 + height * (len(metrics) + len(names)))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[len(metrics), len(names)])
    for axes, rows, series, title in (
        (upper, list(metrics.values()), whole, "all sites"),
        (lower, names, single, "top-1, site by site"),
    ):
        _rows(axes, rows)
        _dots(axes, series)
        axes.set_title(title)
    _column(lower, [first[name].n_images for name in names], "n")
    _score_axis(lower, "share of photographs")
    upper.tick_params(axis="x", length=0)
    _legend(figure, _handles(whole))
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
    figure = new_figure(SINGLE_COLUMN if len(panels) == 1 else DOUBLE_COLUMN, _HEAD + 4 + 3.6 * longest)
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, counts) in zip(grid.flat, panels, strict=True):
        names = sorted(counts, key=lambda name: -counts[name][0])
        photographs, groups = np.array([counts[name] for name in names]).T
        rows = np.arange(len(names))
        axes.barh(rows, photographs, height=0.72, color=RULE)
        axes.barh(rows, groups, height=0.36, color=SERIES[0])
        _rows(axes, names, last=longest)
        axes.set_title(title)
        axes.set_xlabel("photographs")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _column(axes, photographs.tolist(), "n")
    _legend(figure, [Patch(color=RULE, label="photographs"), Patch(color=SERIES[0], label="groups")])
    return figure


def _mean_difference(evaluation: Evaluation, a: str, b: str) -> Comparison | None:
    wanted = (a, b, "map_class")
    return next((item for item in evaluation.comparisons if (item.system_a, item.system_b, item.metric) == wanted), None)


def _pair_title(a: str, b: str) -> str:
    return f"{a} − {b}" if len(a) + len(b) <= 22 else f"{shortened(a, 22)}\n− {shortened(b, 22)}"


def _style(evaluation: Evaluation, system: str) -> int:
    return list(evaluation.systems).index(system)


def _row_height(n_series: int) -> float:
    return max(3.6, 1.4 + 1.35 * n_series)


def _rows(axes: Axes, names: Sequence[str], last: int | None = None) -> None:
    """Name the rows from top to bottom, with a band behind every other one; `last` rows of space where panels must align."""
    axes.set_yticks(np.arange(len(names)), [shortened(name) for name in names])
    axes.set_ylim((last or len(names)) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.barh(np.arange(1, len(names), 2), 1, height=1, color=BAND, transform=axes.get_yaxis_transform(), zorder=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _dots(axes: Axes, series: Sequence[_Series]) -> None:
    step = min(0.26, 0.8 / len(series))
    for k, each in enumerate(series):
        color, marker = SERIES[each.style % len(SERIES)], MARKERS[each.style % len(MARKERS)]
        y = np.arange(len(each.points)) + (k - (len(series) - 1) / 2) * step
        value, low, high = np.array([(p.value, p.low, p.high) for p in each.points], dtype=float).T
        solid = np.array(each.solid)
        axes.hlines(y, low, high, color=color, linewidth=0.9, zorder=2)
        dot: dict[str, Any] = {"color": color, "marker": marker, "linestyle": "none", "markersize": 3.4, "markeredgewidth": 0.8}
        axes.plot(value[solid], y[solid], zorder=3, **dot)
        axes.plot(value[~solid], y[~solid], markerfacecolor=PAPER, zorder=3, **dot)


def _column(axes: Axes, counts: Sequence[int | None], title: str) -> None:
    """Numbers right of the rows, flush right."""
    texts = ["" if n is None else f"{n:,}" for n in counts]
    place: dict[str, Any] = {
        "xycoords": axes.get_yaxis_transform(),
        "xytext": (5 + 3.6 * max(len(text) for text in texts), 0),
        "textcoords": "offset points",
        "ha": "right",
        "color": FAINT,
        "fontsize": 6,
        "annotation_clip": False,
    }
    for row, text in enumerate(texts):
        axes.annotate(text, (1, row), va="center_baseline", **place)
    axes.annotate(title, (1, -0.6), va="bottom", style="italic", **place)


def _remark(axes: Axes, rows: Sequence[int], text: str) -> None:
    """Say in a row without a dot why there is none."""
    for row in rows:
        axes.text(0.99, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center_baseline", color=FAINT, fontsize=6)


def _score_axis(axes: Axes, label: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel(label)


def _handles(series: Sequence[_Series]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=SERIES[each.style % len(SERIES)],
            marker=MARKERS[each.style % len(MARKERS)],
            markersize=3.4,
            label=shortened(each.label),
        )
        for each in series
    ]


def _legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    # Roughly what an entry takes at the legend's size; more entries than fit beside each other go into further lines.
    entry = 1.35 * (6 + max(len(str(handle.get_label())) for handle in handles))
    fitting = int(figure.get_figwidth() * 25.4 / entry)
    figure.legend(handles=list(handles), loc="outside upper right", ncols=max(1, min(len(handles), fitting)))
