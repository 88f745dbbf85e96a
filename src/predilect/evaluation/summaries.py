"""From points and resamples to the result types: the scores of a system, and the comparison of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, bootstrap_p, count_by_group, holm, percentile_interval
from predilect.evaluation.measures import HEADLINES, PER_CLASS, Measures, Numbers, SiteMeasures
from predilect.evaluation.metrics import Floats
from predilect.evaluation.scores import Comparison, LesionClassScores, LesionScores, SeedScores, SiteClassScores, SiteScores
from predilect.labels.tasks import LESION, SITE, Task

__all__ = ["Resampled", "Support", "compare", "lesion_scores", "seed_scores", "site_scores"]

_MEANS_OVER_CLASSES = ("map_class", "map_class_fold_mean")  # of average precision: their intervals are moved to the estimate


@dataclass(frozen=True, eq=False, slots=True)
class Support:
    """What the numbers of a task rest on.

    Attributes:
        task: Its classes.
        counted: (C,) which classes are in the headline numbers.
        n_known: (C,) photographs whose label of the class is known.
        n_positive: (C,) photographs of the class.
        n_positive_groups: (C,) groups with such a photograph.
        n_images: Photographs with a positive among the counted classes: those in headline numbers over images.
        n_groups: Groups with such a photograph.
    """

    task: Task
    counted: NDArray[np.bool_]
    n_known: NDArray[np.int64]
    n_positive: NDArray[np.int64]
    n_positive_groups: NDArray[np.int64]
    n_images: int
    n_groups: int

    @classmethod
    def of(cls, task: Task, labels: NDArray[np.int8], groups: NDArray[np.int64], counted: NDArray[np.bool_]) -> Support:
        """Count the labels of one task.

        Args:
            task: C classes.
            labels: (N, C) of 1, 0 or -1.
            groups: (N,) group numbers from 0.
            counted: (C,) which classes are in the headline numbers.
        """
        rows, classes = np.nonzero(labels == 1)
        by_group = count_by_group(classes, groups[rows], (labels.shape[1], int(groups.max()) + 1))
        in_headline = (labels[:, counted] == 1).any(axis=1)
        return cls(
            task=task,
            counted=counted,
            n_known=(labels >= 0).sum(axis=0),
            n_positive=(labels == 1).sum(axis=0),
            n_positive_groups=np.diff(by_group.indptr),
            n_images=int(in_headline.sum()),
            n_groups=len(np.unique(groups[in_headline])),
        )

    @property
    def n_classes(self) -> int:
        """Classes in the headline means: counted ones with a positive."""
        return int((self.n_positive[self.counted] > 0).sum())


@dataclass(frozen=True, eq=False, slots=True)
class Resampled:
    """One task of one system.

    Attributes:
        by_seed: The numbers of each training seed.
        resamples: The numbers in B resamples, averaged over seeds; `map_class_fold_mean` only in the first of them.
    """

    by_seed: Mapping[int, Measures]
    resamples: Numbers

    def point(self, name: str) -> Floats:
        """A number averaged over seeds."""
        return np.asarray(np.mean([measures.point[name] for measures in self.by_seed.values()], axis=0))


def seed_scores(tasks: Mapping[str, Resampled], seed: int) -> SeedScores:
    """The headline numbers of one seed."""
    numbers = dict.fromkeys(name for names in HEADLINES.values() for name in names)
    for task, scored in tasks.items():
        numbers.update({name: _defined(scored.by_seed[seed].point[name]) for name in HEADLINES[task]})
    return SeedScores(**numbers)


def lesion_scores(scored: Resampled, support: Support, n_resamples: int) -> LesionScores:
    """The lesion task of one system.

    Args:
        scored: Its numbers.
        support: Of the lesions.
        n_resamples: The first so many resamples make the intervals.
    """
    points = scored.point(PER_CLASS)
    per_class = {}
    for k, name in enumerate(support.task.classes):
        low, high, _ = _interval(scored.resamples[PER_CLASS][k, :n_resamples], int(support.n_positive_groups[k]))
        per_class[name] = LesionClassScores(
            ap=_defined(points[k]),
            ap_low=low,
            ap_high=high,
            n_positive=int(support.n_positive[k]),
            n_positive_groups=int(support.n_positive_groups[k]),
            n_known=int(support.n_known[k]),
            machine_made=name in support.task.machine,
        )
    return LesionScores(
        **_headlines(scored, LESION, support, n_resamples),
        n_classes_defined=support.n_classes,
        n_images_defined=support.n_images,
        per_class=per_class,
    )


def site_scores(scored: Resampled, support: Support, n_resamples: int) -> SiteScores:
    """The site task of one system.

    Args:
        scored: Its numbers.
        support: Of the sites.
        n_resamples: The first so many resamples make the intervals.
    """
    top1 = scored.point(PER_CLASS)
    top3 = np.mean([seed.per_class_top3 for seed in scored.by_seed.values() if isinstance(seed, SiteMeasures)], axis=0)
    per_class = {}
    for k, name in enumerate(support.task.classes):
        low, high, _ = _interval(scored.resamples[PER_CLASS][k, :n_resamples], int(support.n_positive_groups[k]))
        per_class[name] = SiteClassScores(
            top1=_defined(top1[k]),
            top1_low=low,
            top1_high=high,
            top3=_defined(top3[k]),
            n_images=int(support.n_positive[k]),
            n_groups=int(support.n_positive_groups[k]),
        )
    return SiteScores(
        **_headlines(scored, SITE, support, n_resamples),
        n_classes_defined=support.n_classes,
        n_images_defined=support.n_images,
        per_class=per_class,
    )


def compare(
    names: tuple[str, str], scored: tuple[Resampled, Resampled], support: Support, n_resamples: int, n_resamples_p: int
) -> list[Comparison]:
    """Compare two systems in one task: the headline numbers and, for lesions, the AP of each.

    A machine-made lesion has a difference and an interval, but no p: its labels prove nothing about either system.

    Args:
        names: System a and its baseline b; differences are a minus b.
        scored: Their numbers, on the same resamples.
        support: Of the task.
        n_resamples: The first so many resamples make the intervals.
        n_resamples_p: The first so many make p.
    """
    task = support.task.name

    def row(metric: str, n_groups: int, k: int | None = None) -> Comparison:
        cell = (PER_CLASS, k) if k is not None else (metric, ...)
        points = [system.point(cell[0])[cell[1]] for system in scored]
        first, second = (system.resamples[cell[0]][cell[1]] for system in scored)
        low, high, n_defined = _interval(first[:n_resamples] - second[:n_resamples], n_groups)
        tested = n_groups >= MIN_POSITIVE_GROUPS and (k is None or support.task.classes[k] not in support.task.machine)
        folds = [system.point("map_class_fold_mean") for system in scored] if metric == "map_class" else [np.nan, np.nan]
        return Comparison(
            system_a=names[0],
            system_b=names[1],
            task=task,
            metric=metric,
            class_name=None if k is None else support.task.classes[k],
            difference=_defined(points[0] - points[1]),
            low=low,
            high=high,
            n_resamples_defined=n_defined,
            p=_defined(bootstrap_p(first[:n_resamples_p] - second[:n_resamples_p])) if tested else None,
            p_holm=None,
            fold_mean_difference=_defined(folds[0] - folds[1]),
        )

    # The mean over folds has no row of its own: it stands beside map_class, as a check on the sign.
    headlines = [row(metric, support.n_groups) for metric in HEADLINES[task] if metric != "map_class_fold_mean"]
    if task != LESION:
        return headlines
    return headlines + _with_holm([row("ap", int(n), k) for k, n in enumerate(support.n_positive_groups)])


def _with_holm(rows: list[Comparison]) -> list[Comparison]:
    family = [row.p for row in rows if row.p is not None]
    corrected = iter(holm(family))
    return [row if row.p is None else row.model_copy(update={"p_holm": next(corrected)}) for row in rows]


def _headlines(scored: Resampled, task: str, support: Support, n_resamples: int) -> dict[str, float | int | None]:
    numbers: dict[str, float | int | None] = {}
    for name in HEADLINES[task]:
        point = scored.point(name)
        centre = float(point) if name in _MEANS_OVER_CLASSES else None
        low, high, n_defined = _interval(scored.resamples[name][:n_resamples], support.n_groups, centre)
        numbers |= {name: _defined(point), f"{name}_low": low, f"{name}_high": high}
        numbers[f"{name}_n_resamples_defined"] = n_defined
    return numbers


def _interval(values: Floats, n_groups: int, centre: float | None = None) -> tuple[float | None, float | None, int]:
    low, high, n_defined = percentile_interval(values, centre)
    if n_groups < MIN_POSITIVE_GROUPS:
        return None, None, n_defined
    return _defined(low), _defined(high), n_defined


def _defined(value: float | Floats) -> float | None:
    return None if np.isnan(value) else float(value)
