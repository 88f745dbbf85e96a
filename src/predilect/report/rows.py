"""What the figures of rows are made of: named rows in bands, a dot and a whisker per series, numbers beside them, a legend above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from predilect.report.style import BAND, FAINT, MARKERS, PAPER, SERIES, name_ticks, room_for, shortened, wrapped
from predilect.report.wording import Estimate

__all__ = ["HEAD", "Series", "draw_dots", "handles", "legend", "name_rows", "number_column", "remark", "row_height", "score_axis"]

HEAD = 17.0
"""Height in mm of legend, axis labels and margins."""


@dataclass(frozen=True, slots=True)
class Series:
    """One system's points, one per row; a point that is not `solid` is drawn as an outline."""

    label: str
    style: int
    points: Sequence[Estimate]
    solid: Sequence[bool]


def row_height(n_series: int, names: Sequence[str]) -> float:
    """Height in mm of rows of these names that hold the dots of so many series."""
    return room_for(names, max(3.6, 1.4 + 1.35 * n_series))


def name_rows(axes: Axes, names: Sequence[str], last: int | None = None) -> None:
    """Name the rows from top to bottom, with a band behind every other one; `last` rows of space where panels must align."""
    name_ticks(axes.yaxis, [wrapped(name) for name in names])
    axes.set_ylim((last or len(names)) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.barh(np.arange(1, len(names), 2), 1, height=1, color=BAND, transform=axes.get_yaxis_transform(), zorder=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def draw_dots(axes: Axes, series: Sequence[Series]) -> None:
    """Draw each series beside the others in its rows; a dot at the end of the axis is whole."""
    step = min(0.26, 0.8 / len(series))
    for k, each in enumerate(series):
        color, marker = SERIES[each.style % len(SERIES)], MARKERS[each.style % len(MARKERS)]
        y = np.arange(len(each.points)) + (k - (len(series) - 1) / 2) * step
        value, low, high = np.array([(p.value, p.low, p.high) for p in each.points], dtype=float).T
        solid = np.array(each.solid)
        axes.hlines(y, low, high, color=color, linewidth=0.9, zorder=2)
        dot: dict[str, Any] = {"color": color, "marker": marker, "linestyle": "none", "markersize": 3.4, "markeredgewidth": 0.8}
        dot["clip_on"] = False
        for chosen, face in ((solid, color), (~solid, PAPER)):
            rows = chosen & ~np.isnan(value)
            if rows.any():  # no dots that are not clipped would lie everywhere for the layout
                axes.plot(value[rows], y[rows], markerfacecolor=face, zorder=3, **dot)


def number_column(axes: Axes, counts: Sequence[int | None], title: str) -> None:
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


def remark(axes: Axes, rows: Sequence[int], text: str) -> None:
    """Say in a row without a dot why there is none."""
    for row in rows:
        axes.text(0.99, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center_baseline", color=FAINT, fontsize=6)


def score_axis(axes: Axes, label: str) -> None:
    """Make the axis one of numbers in [0, 1]."""
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel(label)


def handles(series: Sequence[Series]) -> list[Line2D]:
    """Entries of a legend, one for each series."""
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


def legend(figure: Figure, entries: Sequence[Line2D | Patch]) -> None:
    """Write the legend above everything, in as many lines as it needs."""
    # Roughly what an entry takes at the legend's size; more entries than fit beside each other go into further lines.
    entry = 1.35 * (6 + max(len(str(handle.get_label())) for handle in entries))
    fitting = int(figure.get_figwidth() * 25.4 / entry)
    figure.legend(handles=list(entries), loc="outside upper right", ncols=max(1, min(len(entries), fitting)))
