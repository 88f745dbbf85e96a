"""From what was found on each photograph's attention maps to the numbers of a report.

How maps are made and held against each other stands in `predilect.insight`; here are tables, a row for each map or pair of maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.evaluation.attention_scores import (
    AttentionEvaluation,
    Coincidence,
    CoincidenceGain,
    CurveComparison,
    HeadAttention,
    LesionCoincidence,
    MapCurves,
    MeanCurve,
    Perturbation,
    Randomisation,
    SystemAttention,
)
from predilect.evaluation.coincidence_gains import coincidence_gain
from predilect.evaluation.group_means import GroupMean, group_mean, paired_difference
from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats
from predilect.evaluation.overlap import overlap_by_chance
from predilect.labels.tasks import LESION
from predilect.predictions import Predictions, Truth

__all__ = ["MAP_KINDS", "SHORTCUT_CORRELATION", "SHORTCUT_OVERLAP", "MapTables", "evaluate_attention"]

SHORTCUT_CORRELATION = 0.8
"""Mean correlation from which on a lesion's and the site's map are nearly the same, if they overlap so much, too:"""

SHORTCUT_OVERLAP = 0.5
"""Mean overlap of their top 20 %; it is reached where two thirds of each other's highest cells are shared."""

MAP_KINDS = ("map", "random", "gaussian")
"""What orders the pixels in deletion and insertion: the network's own map, and the two that know nothing of it."""

_Curve = Literal["deletion", "insertion"]


@dataclass(frozen=True, eq=False, slots=True)
class MapTables:
    """What was found on the maps of one system, all its seeds and folds under each other.

    Attributes:
        method: How the maps were made.
        cells: Rows and columns of the maps of the centre crop.
        coincidence: `seed`, `image_id`, `lesion`, `correlation`, `overlap`: a row for each lesion that a tested photograph shows;
            null where a map is constant. No row without two heads.
        curves: `seed`, `image_id`, `task`, `map` (one of `MAP_KINDS`), `deletion` and `insertion` (lists, all of one length).
        randomisation: `seed`, `image_id`, `task`, `rank_correlation`, `unrelated`; null where a map is constant.
    """

    method: Literal["cam", "grad-cam"]
    cells: tuple[int, int]
    coincidence: pl.DataFrame
    curves: pl.DataFrame
    randomisation: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Resampling:
    """How intervals and p are made, and the group of each photograph."""

    groups: Mapping[str, int]
    n_resamples: int
    n_resamples_p: int
    seed: int

    def of(self, image_ids: pl.Series) -> NDArray[np.int64]:
        return np.array([self.groups[image_id] for image_id in image_ids.to_list()], dtype=np.int64)


def evaluate_attention(
    truth: Truth,
    systems: Mapping[str, MapTables],
    *,
    predictions: Mapping[str, Predictions],
    pairs: Sequence[tuple[str, str]],
    unexplained: Mapping[str, str],
    seeds: Sequence[int],
    sample: int,
    n_resamples: int = 1_000,
    n_resamples_p: int = 10_000,
    seed: int = 0,
) -> AttentionEvaluation:
    """Sum up the maps of each system, with intervals.

    Args:
        truth: What is known of the photographs, with their groups.
        systems: What was found, by system.
        predictions: Out of fold, of the systems in `pairs`.
        pairs: (system, baseline) whose gain in average precision is set against the coincidence of the system's maps.
        unexplained: Why other systems have no maps.
        seeds: Training seeds of the maps.
        sample: How many photographs were drawn for the checks.
        n_resamples: For intervals, at least 1.
        n_resamples_p: For p, at least `n_resamples`.
        seed: Of the resampling.
    """
    numbers = dict(zip(truth.image_ids.tolist(), truth.group_indices().tolist(), strict=True))
    resampling = _Resampling(numbers, n_resamples, n_resamples_p, seed)
    human = _human(truth)
    found = {}
    for name, tables in systems.items():
        by_lesion = tables.coincidence.group_by("lesion", "image_id", maintain_order=True).agg(
            pl.col("correlation", "overlap").mean()
        )
        counted = by_lesion.filter(pl.col("lesion").is_in(human))
        gains = [
            coincidence_gain(truth, (system, baseline), predictions, counted, n_resamples=n_resamples, seed=seed)
            for system, baseline in pairs
            if system == name
        ]
        found[name] = SystemAttention(
            method=tables.method,
            cells=tables.cells,
            overlap_by_chance=overlap_by_chance(tables.cells[0] * tables.cells[1]),
            coincidence=_coincidence(truth, by_lesion, gains, resampling) if by_lesion.height else None,
            heads={task: _head(tables, task, resampling) for task in tables.curves["task"].unique(maintain_order=True)},
        )
    return AttentionEvaluation(
        systems=found,
        unexplained=dict(unexplained),
        seeds=tuple(seeds),
        sample=sample,
        shortcut_correlation=SHORTCUT_CORRELATION,
        shortcut_overlap=SHORTCUT_OVERLAP,
        n_resamples=n_resamples,
        n_resamples_p=n_resamples_p,
        resampling_seed=seed,
    )


def _human(truth: Truth) -> list[str]:
    """The lesions that people labelled."""
    if LESION not in truth.labels:
        return []
    task = truth.labels[LESION]
    return [name for name, counted in zip(task.classes, counted_classes(task), strict=True) if counted]


def _coincidence(truth: Truth, by_lesion: pl.DataFrame, gains: Sequence[CoincidenceGain], resampling: _Resampling) -> Coincidence:
    """Sum up a row for each lesion of each photograph."""
    human = _human(truth)
    by_image = (
        by_lesion.filter(pl.col("lesion").is_in(human))
        .group_by("image_id", maintain_order=True)
        .agg(pl.col("correlation", "overlap").mean())
    )
    return Coincidence(
        correlation=_mean(by_image, "correlation", resampling),
        overlap=_mean(by_image, "overlap", resampling),
        lesions=tuple(
            _lesion(name, rows, resampling, counted=name in human)
            for name in truth.labels[LESION].classes
            if (rows := by_lesion.filter(lesion=name)).height
        ),
        gains=tuple(gains),
    )


def _lesion(name: str, rows: pl.DataFrame, resampling: _Resampling, *, counted: bool) -> LesionCoincidence:
    correlation, overlap = (_mean(rows, column, resampling) for column in ("correlation", "overlap"))
    same = (
        correlation.value is not None
        and overlap.value is not None
        and correlation.value >= SHORTCUT_CORRELATION
        and overlap.value >= SHORTCUT_OVERLAP
    )
    return LesionCoincidence(
        lesion=name,
        correlation=correlation,
        overlap=overlap,
        shortcut=counted and same and correlation.n_groups >= MIN_POSITIVE_GROUPS,
    )


def _mean(rows: pl.DataFrame, column: str, resampling: _Resampling) -> GroupMean:
    values = rows[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return group_mean(values, resampling.of(rows["image_id"]), resampling.seed, n_resamples=resampling.n_resamples)


def _head(tables: MapTables, task: str, resampling: _Resampling) -> HeadAttention:
    signed = tables.randomisation.filter(task=task)
    absolute = signed.with_columns(pl.col("rank_correlation", "unrelated").abs())
    by_image = [
        frame.group_by("image_id", maintain_order=True).agg(pl.col("rank_correlation", "unrelated").mean())
        for frame in (signed, absolute)
    ]
    return HeadAttention(
        perturbation=_perturbation(tables.curves.filter(task=task), resampling),
        randomisation=Randomisation(
            rank_correlation=_mean(by_image[0], "rank_correlation", resampling),
            absolute=_mean(by_image[1], "rank_correlation", resampling),
            unrelated=_mean(by_image[1], "unrelated", resampling),
        ),
    )


def _perturbation(curves: pl.DataFrame, resampling: _Resampling) -> Perturbation:
    ids = curves["image_id"].unique().sort()
    groups = resampling.of(ids)
    scores: dict[tuple[str, _Curve], Floats] = {
        (kind, curve): _by_image(curves.filter(map=kind), curve, ids) for kind in MAP_KINDS for curve in get_args(_Curve)
    }
    n_shares = next(iter(scores.values())).shape[1]
    areas = {key: np.trapezoid(values, dx=1 / (n_shares - 1), axis=1) for key, values in scores.items()}

    def mean(values: Floats) -> GroupMean:
        return group_mean(values, groups, resampling.seed, n_resamples=resampling.n_resamples)

    return Perturbation(
        shares=tuple(k / (n_shares - 1) for k in range(n_shares)),
        maps={
            kind: MapCurves(
                deletion=_curve([mean(column) for column in scores[kind, "deletion"].T]),
                insertion=_curve([mean(column) for column in scores[kind, "insertion"].T]),
                deletion_area=mean(areas[kind, "deletion"]),
                insertion_area=mean(areas[kind, "insertion"]),
            )
            for kind in MAP_KINDS
        },
        comparisons=tuple(
            CurveComparison(
                curve=curve,
                baseline=baseline,
                difference=paired_difference(
                    areas[MAP_KINDS[0], curve],
                    areas[baseline, curve],
                    groups,
                    resampling.seed,
                    n_resamples=resampling.n_resamples,
                    n_resamples_p=resampling.n_resamples_p,
                ),
            )
            for curve in get_args(_Curve)
            for baseline in MAP_KINDS[1:]
        ),
    )


def _curve(means: Sequence[GroupMean]) -> MeanCurve:
    """Means over the same photographs as one curve; all of them have an interval, or none has."""
    value, low, high = (
        tuple(end for mean in means if (end := getattr(mean, field)) is not None) for field in ("value", "low", "high")
    )
    return MeanCurve(value=value, low=low or None, high=high or None)


def _by_image(rows: pl.DataFrame, column: str, image_ids: pl.Series) -> Floats:
    """(N, steps + 1) the curves of each photograph, averaged over seeds, in the order of `image_ids`, which are sorted."""
    place = np.searchsorted(np.array(image_ids.to_list()), np.array(rows["image_id"].to_list()))
    values = np.array(rows[column].to_list(), dtype=np.float64)
    sums = np.zeros((len(image_ids), values.shape[1]))
    np.add.at(sums, place, values)
    return sums / np.bincount(place, minlength=len(image_ids))[:, None]
