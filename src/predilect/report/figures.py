"""The figures of a report: which there are, what they are called, and what they say to those who cannot see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from predilect.evaluation.scores import Evaluation, PredilectionMap
from predilect.report.calibration_figure import calibration_figure
from predilect.report.calibration_wording import calibration_caption, calibration_label, drawn_system
from predilect.report.curves import curves_figure
from predilect.report.dots import SIGNIFICANT, counts_figure, difference_figure, lesion_figure, site_figure
from predilect.report.gains_figure import gains_figure
from predilect.report.heatmaps import LIFT_LIMIT, balance_figure, predilection_figure
from predilect.report.insight_figures import coincidence_figure, faithfulness_figure, retrieval_figure
from predilect.report.insight_tables import coincidence_rows
from predilect.report.insight_wording import attention_label, coincidence_label, retrieval_label
from predilect.report.known_site_tables import shown_system
from predilect.report.known_site_wording import known_site_caption, known_site_label
from predilect.report.shown import Shown
from predilect.report.site_prior_figure import site_prior_figure
from predilect.report.style import Rendering, render, styled
from predilect.report.tables import ap_differences, lesion_systems, site_systems
from predilect.report.wording import gain_findings, number

__all__ = ["FIGURE_NAMES", "Drawing", "draw_all"]

_FEW = 10  # photographs below which a lift is not worth naming


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


@dataclass(frozen=True, slots=True)
class _Plan:
    """A figure before it is drawn; see `Drawing`."""

    caption: str
    label: str
    draw: Callable[[], Figure]


def _lesions(shown: Shown) -> _Plan | None:
    if not lesion_systems(shown.evaluation):
        return None
    caption = (
        "Average precision of each lesion, with 95 % intervals; the highest on top. A grey tick marks what a random order would reach, "
        "an outlined dot an AP without interval; n counts the photographs that show the lesion."
    )
    return _Plan(caption, _lesion_label(shown.evaluation), lambda: lesion_figure(shown.evaluation))


def _differences(shown: Shown) -> _Plan | None:
    if not ap_differences(shown.evaluation):
        return None
    caption = (
        "Paired differences in average precision, with 95 % intervals. A dot is filled where p, for lesions after Holm's correction, is "
        f"below {SIGNIFICANT:g}."
    )
    return _Plan(caption, _difference_label(shown.evaluation), lambda: difference_figure(shown.evaluation))


def _sites(shown: Shown) -> _Plan | None:
    if not site_systems(shown.evaluation):
        return None
    caption = (
        "Body site: the share of photographs whose true site is ranked first (top-1) or among the first three (top-3), as in the paper's "
        "Figure 4, and the mean of the sites' top-1 (balanced); below, top-1 of each site. Whiskers are 95 % intervals, n counts photographs."
    )
    return _Plan(caption, _site_label(shown.evaluation), lambda: site_figure(shown.evaluation))


def _predilection(shown: Shown) -> _Plan | None:
    found = shown.evaluation.predilection
    if found is None or not (found.lesions and found.sites):
        return None
    caption = (
        "Where lesions are found. Left, the correlation map (Eq. 1): of the photographs with a lesion, the share taken at each site; "
        "beside each lesion, how many those are. Right, the same divided by how often the site occurs at all, on a logarithmic scale cut "
        f"at {LIFT_LIMIT:g}: 1 is no predilection."
    )
    return _Plan(caption, _predilection_label(found), lambda: predilection_figure(found))


def _gains(shown: Shown) -> _Plan | None:
    if not shown.evaluation.gains:
        return None
    caption = (
        "What learning the body site too does for each lesion: the gain in average precision against the strength of the lesion’s "
        "predilection, that is by how many bits its sites diverge from those of all photographs beyond what chance brings to a lesion as "
        "rare. Lines are 95 % intervals of both, from the same resamples of groups, as is that of the rank correlation. A diamond marks a "
        "strong predilection without gain, as the paper found for alopecia."
    )
    return _Plan(caption, _gains_label(shown.evaluation), lambda: gains_figure(shown.evaluation.gains))


def _known_site(shown: Shown) -> _Plan | None:
    found = shown.known_site
    if found is None:
        return None
    system = shown_system(found)
    return _Plan(known_site_caption(system), known_site_label(found, system), lambda: site_prior_figure(found, system))


def _calibration(shown: Shown) -> _Plan | None:
    found = shown.calibration
    system = None if found is None else drawn_system(found)
    if found is None or system is None:
        return None
    drawn = found.systems[system]
    return _Plan(calibration_caption(found, system), calibration_label(found, system), lambda: calibration_figure(drawn))


def _curves(shown: Shown) -> _Plan | None:
    curves = shown.curves
    if curves is None or not curves.height:
        return None
    caption = (
        f"{_losses(curves)} and the learning rate, thinned to a printed column. A thin line is one fold and seed; the thick one is their "
        "mean, drawn as far as all of them go. Losses of systems with different tasks do not compare."
    )
    systems = ", ".join(curves["system"].unique(maintain_order=True).to_list())
    return _Plan(caption, f"Loss curves of {systems}; the numbers are in tables/curves.csv.", lambda: curves_figure(curves))


def _folds(shown: Shown) -> _Plan | None:
    balance = shown.evaluation.folds
    if balance is None or not balance.classes:
        return None
    caption = (
        "How many photographs of each class lie in each fold. White is as many as the fold's size lets expect, red more, blue less."
    )
    label = f"Counts of {len(balance.classes)} classes in {len(balance.folds)} folds; the numbers are in tables/folds.csv."
    return _Plan(caption, label, lambda: balance_figure(balance))


def _counts(shown: Shown) -> _Plan | None:
    evaluation = shown.evaluation
    if not (lesion_systems(evaluation) or site_systems(evaluation)):
        return None
    caption = "How many photographs, and how many groups of them, show each lesion and each body site."
    label = f"Bars of the counts of {evaluation.truth.n_images:,} photographs; the numbers are in the tables above."
    return _Plan(caption, label, lambda: counts_figure(evaluation))


def _faithfulness(shown: Shown) -> _Plan | None:
    if shown.insight is None or not any(system.heads for system in shown.insight.attention.systems.values()):
        return None
    attention = shown.insight.attention
    caption = (
        "Deletion and insertion: the mean probability of the predicted class while pixels are replaced by the blurred photograph (left), "
        "and while they are all that is shown (right), in the order of the attention map, of a random one as smooth, and of a Gaussian "
        "over the middle. The band is the 95 % interval of the attention map's; the paired differences stand in the table. A true map "
        "lies below the others on the left and above them on the right."
    )
    return _Plan(caption, attention_label(attention), lambda: faithfulness_figure(attention))


def _coincidence(shown: Shown) -> _Plan | None:
    if shown.insight is None or not coincidence_rows(shown.insight.attention):
        return None
    attention = shown.insight.attention
    caption = (
        "How much the maps of a lesion and of the body site coincide on the photographs that show it: their correlation, and the overlap "
        "of the fifth of the cells where each is highest (the grey line is chance); beside them the lesion's gain from learning the site. "
        "Whiskers are 95 % intervals over groups. A filled dot is a lesion whose two maps are nearly the same."
    )
    return _Plan(caption, coincidence_label(attention), lambda: coincidence_figure(attention, list(shown.evaluation.systems)))


def _retrieval(shown: Shown) -> _Plan | None:
    if shown.insight is None:
        return None
    retrieval = shown.insight.retrieval
    caption = (
        "How alike the nearest photographs are, with 95 % intervals over groups of queries. A grey tick marks what photographs in random "
        "order would reach."
    )
    return _Plan(caption, retrieval_label(retrieval), lambda: retrieval_figure(retrieval, list(shown.evaluation.systems)))


_FIGURES: Mapping[str, Callable[[Shown], _Plan | None]] = {
    "lesions": _lesions,
    "differences": _differences,
    "sites": _sites,
    "predilection": _predilection,
    "gains": _gains,
    "known_site": _known_site,
    "calibration": _calibration,
    "coincidence": _coincidence,
    "faithfulness": _faithfulness,
    "retrieval": _retrieval,
    "curves": _curves,
    "folds": _folds,
    "counts": _counts,
}

FIGURE_NAMES = tuple(_FIGURES)
"""File stems of all figures there may be, in the order of a report."""


def draw_all(shown: Shown) -> list[Drawing]:
    """Draw every figure that there are numbers for, in the order of `FIGURE_NAMES`."""
    drawings = []
    with styled():
        for name, plan_of in _FIGURES.items():
            plan = plan_of(shown)
            if plan is not None:
                drawings.append(Drawing(name, plan.caption, plan.label, render(plan.draw())))
    return drawings


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
