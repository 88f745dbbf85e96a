"""The figures of a report: which there are, what they are called, and what they say to those who cannot see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from predilect.evaluation.scores import Evaluation, PredilectionMap
from predilect.report.curves import curves_figure
from predilect.report.dots import SIGNIFICANT, counts_figure, difference_figure, lesion_figure, site_figure
from predilect.report.gains_figure import gains_figure
from predilect.report.heatmaps import LIFT_LIMIT, balance_figure, predilection_figure
from predilect.report.style import Rendering, render, styled
from predilect.report.tables import ap_differences, lesion_systems, site_systems
from predilect.report.wording import gain_findings, number

__all__ = ["FIGURE_NAMES", "Drawing", "draw_all"]

_FEW = 10  # photographs below which a lift is not worth naming

FIGURE_NAMES = ("lesions", "differences", "sites", "predilection", "gains", "curves", "folds", "counts")


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure as it stands in a report.

    Attributes:
        name: File stem, one of `FIGURE_NAMES`.
        caption: What is drawn and how to read it; a sentence or more.
        label: What it shows, in words, for those who do not see it.
        rendering: Its files.
    """

    name: str
    caption: str
    label: str
    rendering: Rendering


def draw_all(evaluation: Evaluation, curves: pl.DataFrame | None = None) -> list[Drawing]:
    """Draw every figure that the evaluation has the numbers for, in the order of `FIGURE_NAMES`.

    Args:
        evaluation: What was scored.
        curves: Training curves, with the columns of `curves.CURVES_SCHEMA`.
    """
    with styled():
        return [Drawing(name, caption, label, render(draw())) for name, caption, label, draw in _plans(evaluation, curves)]


_Plan = tuple[str, str, str, Callable[[], Figure]]


def _plans(evaluation: Evaluation, curves: pl.DataFrame | None) -> Iterator[_Plan]:
    if lesion_systems(evaluation):
        yield (
            "lesions",
            (
                "Average precision of each lesion, with 95 % intervals; the highest on top. A grey tick marks what a random order "
                "would reach, an outlined dot an AP without interval; n counts the photographs that show the lesion."
            ),
            _lesion_label(evaluation),
            lambda: lesion_figure(evaluation),
        )
    if ap_differences(evaluation):
        yield (
            "differences",
            (
                "Paired differences in average precision, with 95 % intervals. A dot is filled where p, for lesions after Holm's "
                f"correction, is below {SIGNIFICANT:g}."
            ),
            _difference_label(evaluation),
            lambda: difference_figure(evaluation),
        )
    if site_systems(evaluation):
        yield (
            "sites",
            (
                "Body site: the share of photographs whose true site is ranked first (top-1) or among the first three (top-3), as in "
                "the paper's Figure 4, and the mean of the sites' top-1 (balanced); below, top-1 of each site. Whiskers are 95 % "
                "intervals, n counts photographs."
            ),
            _site_label(evaluation),
            lambda: site_figure(evaluation),
        )
    found = evaluation.predilection
    if found is not None and found.lesions and found.sites:
        yield (
            "predilection",
            (
                "Where lesions are found. Left, the correlation map (Eq. 1): of the photographs with a lesion, the share taken at each "
                "site; beside each lesion, how many those are. Right, the same divided by how often the site occurs at all, on a "
                f"logarithmic scale cut at {LIFT_LIMIT:g}: 1 is no predilection."
            ),
            _predilection_label(found),
            lambda: predilection_figure(found),
        )
    if evaluation.gains:
        yield (
            "gains",
            (
                "What learning the body site too does for each lesion: the gain in average precision against the strength of the "
                "lesion’s predilection, that is by how many bits its sites diverge from those of all photographs beyond what chance "
                "brings to a lesion as rare. Lines are 95 % intervals of both, from the same resamples of groups, as is that of the "
                "rank correlation. A diamond marks a strong predilection without gain, as the paper found for alopecia."
            ),
            _gains_label(evaluation),
            lambda: gains_figure(evaluation.gains),
        )
    if curves is not None and curves.height:
        yield (
            "curves",
            (
                f"{_losses(curves)} and the learning rate, thinned to a printed column. A thin line is one fold and seed; the "
                "thick one is their mean, drawn as far as all of them go. Losses of systems with different tasks do not compare."
            ),
            f"Loss curves of {', '.join(curves['system'].unique(maintain_order=True).to_list())}; the numbers are in tables/curves.csv.",
            lambda: curves_figure(curves),
        )
    if evaluation.folds is not None and evaluation.folds.classes:
        balance = evaluation.folds
        yield (
            "folds",
            "How many photographs of each class lie in each fold. White is as many as the fold's size lets expect, red more, blue less.",
            f"Counts of {len(balance.classes)} classes in {len(balance.folds)} folds; the numbers are in tables/folds.csv.",
            lambda: balance_figure(balance),
        )
    if lesion_systems(evaluation) or site_systems(evaluation):
        yield (
            "counts",
            "How many photographs, and how many groups of them, show each lesion and each body site.",
            f"Bars of the counts of {evaluation.truth.n_images:,} photographs; the numbers are in the tables above.",
            lambda: counts_figure(evaluation),
        )


def _losses(curves: pl.DataFrame) -> str:
    return (
        "Training and validation loss" if curves["loss_validation"].count() else "Training loss (nothing was held out to validate)"
    )


def _lesion_label(evaluation: Evaluation) -> str:
    means = ", ".join(f"{name} {number(scores.map_class)}" for name, scores in lesion_systems(evaluation).items())
    return f"Average precision by lesion and system. mAP-class: {means}. The numbers are in the table of lesions."


def _difference_label(evaluation: Evaluation) -> str:
    said = []
    for (a, b), items in ap_differences(evaluation).items():
        clear = [item for item in items.values() if item.p_holm is not None and item.p_holm < SIGNIFICANT]
        better = sum(item.difference is not None and item.difference > 0 for item in clear)
        said.append(f"{a} above {b} in {better} lesions and below in {len(clear) - better}, of {len(items)}")
    return f"Differences in average precision that stand after Holm's correction: {'; '.join(said)}."


def _site_label(evaluation: Evaluation) -> str:
    shares = ", ".join(
        f"{name} {number(scores.top1)} and {number(scores.top3)}" for name, scores in site_systems(evaluation).items()
    )
    return f"Top-1 and top-3 share of the body site: {shares}. The numbers are in the table of sites."


def _gains_label(evaluation: Evaluation) -> str:
    found = " ".join(sentence for pair in evaluation.gains for sentence in gain_findings(pair))
    return f"Gain against strength of predilection. {found} The numbers are in the table of gains."


def _predilection_label(found: PredilectionMap) -> str:
    lifted = [
        (value, lesion, site)
        for lesion, row, n in zip(found.lesions, found.lift, found.n_lesion, strict=True)
        for site, value in zip(found.sites, row, strict=True)
        if value is not None and n >= _FEW
    ]
    strongest = "; ".join(f"{lesion} at {site}, {value:.1f} times" for value, lesion, site in sorted(lifted, reverse=True)[:3])
    return f"Two maps of {len(found.lesions)} lesions by {len(found.sites)} sites. The highest lifts: {strongest or 'none'}."
