"""Systems that are told the site, as rows for the page and as plain frames for other programs.

Losses differ by little from system to system, so they have four decimals where average precision has three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from predilect.evaluation.known_site_scores import LOSSES, KnownSite, KnownSiteSystem
from predilect.evaluation.scores import Comparison
from predilect.report.site_prior_figure import effect_lesions, told_and_not
from predilect.report.wording import UNDEFINED, Estimate, p_value

__all__ = [
    "KNOWN_SITE_METRICS",
    "KNOWN_SITE_TABLES",
    "Cell",
    "KnownSiteRow",
    "LesionEffectRow",
    "compared",
    "difference_cell",
    "difference_rows",
    "effect_rows",
    "known_site_frames",
    "shown_system",
    "system_rows",
]

KNOWN_SITE_TABLES = ("known_site", "known_site_comparisons", "site_effects")
"""File stems of the frames."""

KNOWN_SITE_METRICS = {
    "map_class": "mAP-class",
    "map_class_fold_mean": "mAP-class, fold mean",
    "map_image": "mAP-image",
    "log_loss": "log-loss",
    "brier": "Brier score",
}

_MINUS = "−"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as it is printed.

    Attributes:
        value: With its sign where it is a difference; a dash where it is undefined.
        interval: In brackets; empty where there is none.
        p: Of a difference that was tested; else empty.
    """

    value: str
    interval: str = ""
    p: str = ""


@dataclass(frozen=True, slots=True)
class KnownSiteRow:
    """A system, or a pair ``a − b``, with a cell for each of `KNOWN_SITE_METRICS`."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class LesionEffectRow:
    """One lesion in one system.

    Attributes:
        lesion: Its name.
        n_positive: Photographs of known site that show it.
        cells: AP of the system recalibrated, AP with the site, and the differences in AP and in log-loss, each p corrected by Holm.
        strongest: Where it becomes more likely and where less, such as ``hand × 1.14`` and ``trunk × 0.81``; empty where the site
            does nothing to it.
    """

    lesion: str
    n_positive: int
    cells: tuple[Cell, Cell, Cell, Cell]
    strongest: tuple[str, ...]


def shown_system(found: KnownSite) -> str:
    """The system whose lesions are shown one by one: the last that predicts the site itself, or else the last."""
    own = [name for name, effects in found.effects.items() if effects.site_system == name]
    return (own or list(found.effects))[-1]


def system_rows(found: KnownSite) -> list[KnownSiteRow]:
    """Each system as it is, calibrated, recalibrated and told the site; last those that saw no photograph."""
    return [
        KnownSiteRow(name, tuple(_estimate(metric, _number(system, metric)) for metric in KNOWN_SITE_METRICS))
        for name, system in found.systems.items()
    ]


def difference_rows(found: KnownSite) -> list[KnownSiteRow]:
    """Paired differences; for mAP-class the mean over folds stands beside it, without an interval of its own."""
    pairs = dict.fromkeys((item.system_a, item.system_b) for item in found.comparisons)
    rows = []
    for pair in pairs:
        cells = []
        for metric in KNOWN_SITE_METRICS:
            item = compared(found, pair, metric.removesuffix("_fold_mean"))
            cells.append(difference_cell(item) if metric == item.metric else Cell(_signed(metric, item.fold_mean_difference)))
        rows.append(KnownSiteRow(f"{pair[0]} {_MINUS} {pair[1]}", tuple(cells)))
    return rows


def effect_rows(found: KnownSite, system: str) -> list[LesionEffectRow]:
    """What the site does to each lesion that people labelled, those it moves most first."""
    pair = told_and_not(system)
    effects = found.effects[system]
    rows = []
    for name in effect_lesions(found, system):
        with_site, without = (found.systems[each].lesion.per_class[name] for each in pair)
        rows.append(
            LesionEffectRow(
                lesion=name,
                n_positive=with_site.n_positive,
                cells=(
                    _estimate("ap", Estimate(without.ap, without.ap_low, without.ap_high)),
                    _estimate("ap", Estimate(with_site.ap, with_site.ap_low, with_site.ap_high)),
                    difference_cell(compared(found, pair, "ap", name)),
                    difference_cell(compared(found, pair, "log_loss", name)),
                ),
                strongest=_strongest(effects.sites, effects.theta[effects.lesions.index(name)]),
            )
        )
    return rows


def known_site_frames(found: KnownSite) -> dict[str, pl.DataFrame]:
    """The same as plain frames, one row per number, by file stem."""
    records = [
        {"system": name, "lesion": lesion, "metric": metric, "value": each.value, "low": each.low, "high": each.high}
        for name, system in found.systems.items()
        for lesion, metric, each in _numbers(system)
        if each.value is not None
    ]
    effects = [
        {"system": name, "lesion": lesion, "site": site, "theta": theta}
        for name, each in found.effects.items()
        for lesion, row in zip(each.lesions, each.theta, strict=True)
        for site, theta in zip(each.sites, row, strict=True)
    ]
    comparisons = [item.model_dump() for item in found.comparisons]
    frames = [pl.DataFrame(rows, infer_schema_length=None) for rows in (records, comparisons, effects)]
    return dict(zip(KNOWN_SITE_TABLES, frames, strict=True))


def _numbers(system: KnownSiteSystem) -> Iterator[tuple[str | None, str, Estimate]]:
    for metric in KNOWN_SITE_METRICS:
        yield None, metric, _number(system, metric)
    for lesion, item in system.lesion.per_class.items():
        yield lesion, "ap", Estimate(item.ap, item.ap_low, item.ap_high)
        for metric in LOSSES:
            yield lesion, metric, _of(system.per_class[lesion], metric)


def _number(system: KnownSiteSystem, metric: str) -> Estimate:
    return _of(system.mean, metric) if metric in LOSSES else _of(system.lesion, metric)


def _of(scores: object, metric: str) -> Estimate:
    return Estimate(*(getattr(scores, f"{metric}{end}") for end in ("", "_low", "_high")))


def compared(found: KnownSite, pair: tuple[str, str], metric: str, lesion: str | None = None) -> Comparison:
    """One paired difference; `lesion` None is the mean over lesions."""
    wanted = (*pair, metric, lesion)
    return next(item for item in found.comparisons if (item.system_a, item.system_b, item.metric, item.class_name) == wanted)


def _printed(metric: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.{4 if metric in LOSSES else 3}f}".replace("-", _MINUS)


def _signed(metric: str, value: float | None) -> str:
    return UNDEFINED if value is None else _printed(metric, value, "+")


def _estimate(metric: str, item: Estimate) -> Cell:
    if item.value is None:
        return Cell(UNDEFINED)
    return Cell(_printed(metric, item.value), _interval(metric, item.low, item.high))


def difference_cell(item: Comparison) -> Cell:
    """A difference as it is printed, with the p of a lesion corrected by Holm."""
    p = item.p if item.class_name is None else item.p_holm
    tested = "" if p is None else p_value(p)
    return Cell(_signed(item.metric, item.difference), _interval(item.metric, item.low, item.high), tested)


def _interval(metric: str, low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_printed(metric, low)}, {_printed(metric, high)}]"


def _strongest(sites: tuple[str, ...], theta: tuple[float, ...]) -> tuple[str, ...]:
    ends = dict.fromkeys((int(np.argmax(theta)), int(np.argmin(theta))))
    return tuple(f"{sites[k]} × {np.exp(theta[k]):.2f}" for k in ends if theta[k] != 0)
