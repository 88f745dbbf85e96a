"""The numbers of one system and one seed: as they stand, and in any resample of the groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from predilect.evaluation import metrics
from predilect.evaluation.intervals import Counts, Ranking, count_by_group
from predilect.evaluation.metrics import Floats
from predilect.labels.tasks import LESION, SITE, Task

__all__ = ["HEADLINES", "PER_CLASS", "LesionMeasures", "Measures", "Numbers", "SiteMeasures", "counted_classes"]

HEADLINES = {LESION: ("map_class", "map_image", "map_class_fold_mean"), SITE: ("top1", "top3", "balanced_accuracy")}
PER_CLASS = "per_class"

Numbers = dict[str, Floats]
"""By the names in `HEADLINES` and `PER_CLASS`: (), and (C,) per class; in b resamples (b,), and (C, b) per class."""


def counted_classes(task: Task, *, machine_made: bool = False) -> NDArray[np.bool_]:
    """(C,) which classes count in headline numbers: those whose labels no model made, and the others only if asked for."""
    return np.array([machine_made or name not in task.machine for name in task.classes])


@dataclass(frozen=True, eq=False, slots=True)
class LesionMeasures:
    """Average precision of every lesion, and its means (Eqs. 9 and 10).

    Attributes:
        point: `PER_CLASS` is the AP; see `HEADLINES` for the others.
        rankings: C of them.
        fold_rankings: F of C each; none without folds.
        images: (2, G) sparse: the sum over each group's photographs of their AP over classes, and how many have one.
        counted: (C,) which classes are in the means.
    """

    point: Numbers
    rankings: tuple[Ranking, ...]
    fold_rankings: tuple[tuple[Ranking, ...], ...]
    images: sparse.csr_array
    counted: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        labels: NDArray[np.int8],
        groups: NDArray[np.int64],
        counted: NDArray[np.bool_],
        folds: NDArray[np.int64] | None,
    ) -> LesionMeasures:
        """Measure one seed's predictions.

        Args:
            scores: (N, C) probabilities.
            labels: (N, C) of 1, 0 or -1.
            groups: (N,) group numbers from 0.
            counted: (C,) which classes are in the means.
            folds: (N,) or None.
        """
        n_groups = int(groups.max()) + 1
        human = scores[:, counted], labels[:, counted]
        per_class = metrics.average_precision(scores, labels)
        per_image = metrics.image_average_precision(*human)
        with_positive = np.flatnonzero(~np.isnan(per_image))
        fold_mean = np.nan if folds is None else metrics.fold_mean_average_precision(*human, folds)
        in_fold = [] if folds is None else [folds == fold for fold in np.unique(folds)]
        sums = np.concatenate([per_image[with_positive], np.ones(len(with_positive))])
        row = np.repeat([0, 1], len(with_positive))
        return cls(
            point={
                PER_CLASS: per_class,
                "map_class": metrics.mean_defined(per_class[counted]),
                "map_image": metrics.mean_defined(per_image),
                "map_class_fold_mean": np.array(fold_mean),
            },
            rankings=_rank(scores, labels, groups, n_groups),
            fold_rankings=tuple(_rank(scores[rows], labels[rows], groups[rows], n_groups) for rows in in_fold),
            images=sparse.coo_array((sums, (row, np.tile(groups[with_positive], 2))), shape=(2, n_groups)).tocsr(),
            counted=counted,
        )

    def resampled(self, multiplicities: Counts) -> Numbers:
        """The same numbers in b resamples, but for the mean over folds.

        Args:
            multiplicities: (G, b), how often each group was drawn.
        """
        per_class = np.stack([ranking.average_precision(multiplicities) for ranking in self.rankings])
        total, n_images = self.images @ multiplicities
        return {
            PER_CLASS: per_class,
            "map_class": metrics.mean_defined(per_class[self.counted], axis=0),
            "map_image": metrics.ratio(total, n_images),
        }

    def resampled_fold_mean(self, multiplicities: Counts) -> Floats:
        """`map_class_fold_mean` in b resamples: folds stay as they are, groups are drawn over the whole table.

        Args:
            multiplicities: (G, b), how often each group was drawn.

        Returns:
            (b,); NaN where there are no folds.
        """
        by_class = [
            metrics.mean_defined(np.stack([fold[k].average_precision(multiplicities) for fold in self.fold_rankings]), axis=0)
            for k in np.flatnonzero(self.counted)
            if self.fold_rankings
        ]
        if not by_class:
            return np.full(multiplicities.shape[1], np.nan)
        return metrics.mean_defined(np.stack(by_class), axis=0)


@dataclass(frozen=True, eq=False, slots=True)
class SiteMeasures:
    """Top-1 and top-3 over photographs, and per site.

    Attributes:
        point: `PER_CLASS` is each site's top-1; see `HEADLINES` for the others.
        per_class_top3: (C,) each site's top-3.
        known: (C, G) sparse: photographs of each site.
        first: (C, G) sparse: those of them that were given their site first.
        third: (C, G) sparse: those of them that were given it first to third.
        counted: (C,) which sites are in the headline numbers.
    """

    point: Numbers
    per_class_top3: Floats
    known: sparse.csr_array
    first: sparse.csr_array
    third: sparse.csr_array
    counted: NDArray[np.bool_]

    @classmethod
    def of(
        cls, scores: NDArray[np.float32], labels: NDArray[np.int8], groups: NDArray[np.int64], counted: NDArray[np.bool_]
    ) -> SiteMeasures:
        """Measure one seed's predictions.

        Args:
            scores: (N, C) probabilities.
            labels: (N, C), each row one-hot or wholly -1.
            groups: (N,) group numbers from 0.
            counted: (C,) which sites are in the headline numbers.
        """
        shape = (labels.shape[1], int(groups.max()) + 1)
        rank = metrics.site_rank(scores, labels)
        site = labels.argmax(axis=1)
        top1 = metrics.site_recall(scores, labels, k=1)
        headline = (rank > 0) & counted[site]
        return cls(
            point={
                PER_CLASS: top1,
                "top1": np.array(metrics.top_k(scores[headline], labels[headline], k=1)),
                "top3": np.array(metrics.top_k(scores[headline], labels[headline], k=3)),
                "balanced_accuracy": metrics.mean_defined(top1[counted]),
            },
            per_class_top3=metrics.site_recall(scores, labels, k=3),
            known=count_by_group(site[rank > 0], groups[rank > 0], shape),
            first=count_by_group(site[rank == 1], groups[rank == 1], shape),
            third=count_by_group(site[(rank > 0) & (rank <= 3)], groups[(rank > 0) & (rank <= 3)], shape),
            counted=counted,
        )

    def resampled(self, multiplicities: Counts) -> Numbers:
        """The same numbers in b resamples.

        Args:
            multiplicities: (G, b), how often each group was drawn.
        """
        known = self.known @ multiplicities  # (C, b)
        first = self.first @ multiplicities
        third = self.third @ multiplicities
        per_class = metrics.ratio(first, known)
        n_known = known[self.counted].sum(axis=0)
        return {
            PER_CLASS: per_class,
            "top1": metrics.ratio(first[self.counted].sum(axis=0), n_known),
            "top3": metrics.ratio(third[self.counted].sum(axis=0), n_known),
            "balanced_accuracy": metrics.mean_defined(per_class[self.counted], axis=0),
        }


Measures = LesionMeasures | SiteMeasures


def _rank(scores: NDArray[np.float32], labels: NDArray[np.int8], groups: NDArray[np.int64], n_groups: int) -> tuple[Ranking, ...]:
    return tuple(Ranking.of(scores[:, k], labels[:, k], groups, n_groups) for k in range(scores.shape[1]))
