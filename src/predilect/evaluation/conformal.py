"""Sets of lesions that cannot be excluded, with a bound on how much they miss.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", ICLR 2024) of the false-negative
rate: of the lesions that a photograph is known to show, the share that its set leaves out. The unit is the group, since photographs
of one patient are not exchangeable with those of another: a group's loss is that of one photograph drawn from it at random,
in expectation over that draw, so no dice decide the sets.

What is bounded is the *marginal* rate: over groups drawn like those it was fitted on, and over draws of those themselves. It may be
exceeded for one lesion, one site or one kind of patient, or in a clinic whose patients differ. The bound also wants the photographs
fitted on and those judged to be scored alike; with a bundle they are scored by the folds' networks and by the refit, so it is as
good as these are alike.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats
from predilect.labels.tasks import Task

__all__ = ["ConformalSets", "controlled_threshold", "false_negative_losses", "fit_conformal_sets", "groups_for"]


@dataclass(frozen=True, slots=True, config=STRICT)
class ConformalSets(Fitted):
    """All lesions with at least this probability.

    Attributes:
        lesions: Names, in class order.
        excluded: Those among them whose labels a model made: they are in no set, and nothing is promised of them.
        max_miss_rate: The bound on the expected false-negative rate, between 0 and 1.
        threshold: In [0, 1]; 0, which takes in every lesion, where the groups are too few for the bound.
        n_groups: Groups with a photograph known to show a lesion that is not excluded.
    """

    lesions: tuple[str, ...]
    excluded: tuple[str, ...]
    max_miss_rate: Annotated[float, Field(gt=0, lt=1)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    n_groups: Annotated[int, Field(ge=0)]

    def apply(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """The set of each photograph.

        Args:
            probabilities: (N, C) calibrated.

        Returns:
            (N, C), whether the lesion is in the set.

        Raises:
            ValueError: If there are not C lesions.
        """
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self.lesions):
            raise ValueError(f"probabilities have shape {probabilities.shape}; the sets are of {len(self.lesions)} lesions")
        return np.asarray((probabilities >= self.threshold) & self.promised)

    def unsure(self, decided: NDArray[np.int8], sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which answers are unsure: no lesion is decided to be present, and there are some that cannot be excluded.

        Args:
            decided: (N, C) of 1, 0 or -1, as thresholds decide; those of excluded lesions do not count.
            sets: (N, C), what `apply` returned.

        Returns:
            (N,).
        """
        return np.asarray(sets.any(axis=1) & ~((decided == 1) & self.promised).any(axis=1))

    def unreached(self) -> str | None:
        """A sentence where the groups are too few for the bound, so that no lesion is left out."""
        needed = groups_for(self.max_miss_rate)
        if self.n_groups >= needed or not self.promised.any():
            return None
        return (
            f"Nothing can be excluded: a bound of {100 * self.max_miss_rate:g} % takes {needed:,} groups that show a lesion, and there are "
            f"{self.n_groups:,}."
        )

    @property
    def promised(self) -> NDArray[np.bool_]:
        """(C,) which lesions are not excluded."""
        return np.array([name not in self.excluded for name in self.lesions])


def fit_conformal_sets(
    task: Task, probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int8], groups: NDArray[np.int64], max_miss_rate: float
) -> ConformalSets:
    """Choose the highest threshold whose sets keep the bound.

    Args:
        task: The lesions.
        probabilities: (N, C) calibrated, of photographs that the calibration was not fitted on.
        labels: (N, C) of 1, 0 or -1. A photograph counts by the lesions it is known to show; one that shows none has nothing to
            miss and does not count, so the bound is one on photographs with a lesion.
        groups: (N,) any numbers.
        max_miss_rate: The bound, between 0 and 1.
    """
    counted = counted_classes(task)
    rows, columns = np.nonzero((labels == 1) & counted)
    weights = _weights(rows, groups)
    n_groups = len(np.unique(groups[rows]))
    threshold = controlled_threshold(probabilities[rows, columns].astype(np.float64), weights, n_groups, max_miss_rate)
    return ConformalSets(
        lesions=task.classes,
        excluded=tuple(name for name in task.classes if name in task.machine),
        max_miss_rate=max_miss_rate,
        threshold=0.0 if threshold is None else threshold,
        n_groups=n_groups,
    )


def controlled_threshold(values: Floats, weights: Floats, n_groups: int, rate: float) -> float | None:
    """The highest t for which the weight of values below t is controlled: (that weight + 1) / (n + 1) is at most the rate.

    The 1 is the worst that the next group may lose, Angelopoulos et al., Eq. 4 with B = 1.

    Args:
        values: (M,).
        weights: (M,) that sum to 1 within each group, or less.
        n_groups: n.
        rate: Between 0 and 1.

    Returns:
        One of the values; None where even a weight of 0 is too much, below 1 / rate - 1 groups.

    Examples:
        Nine groups of one value each: one may lie below, for with a tenth to come that makes two in ten at worst.

        >>> controlled_threshold(np.arange(9.0), np.ones(9), 9, 0.2)
        1.0
    """
    allowed = rate * (n_groups + 1) - 1
    if allowed < 0 or not len(values):
        return None
    distinct, place = np.unique(values, return_inverse=True)
    below = np.cumsum(np.bincount(place, weights)) - np.bincount(place, weights)
    return float(distinct[np.flatnonzero(below <= allowed + 1e-9)[-1]])


def groups_for(rate: float) -> int:
    """How many groups it takes to promise of one more, drawn as they were, that it loses at most a share in expectation.

    A threshold below all that n groups have loses 1 / (n + 1) at worst; see `controlled_threshold`.

    Args:
        rate: The share, between 0 and 1.

    Examples:
        >>> groups_for(0.1), groups_for(1 - 0.999)
        (9, 999)
    """
    return math.ceil(1 / rate - 1 - 1e-6)


def false_negative_losses(
    sets: NDArray[np.bool_], labels: NDArray[np.int8], counted: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats]:
    """What each group loses: of the lesions that a random photograph of it shows, the expected share left out.

    Args:
        sets: (N, C).
        labels: (N, C) of 1, 0 or -1.
        counted: (C,) which lesions the sets promise something of.
        groups: (N,) any numbers.

    Returns:
        The groups that have a photograph with a lesion, and the loss of each, in [0, 1].
    """
    rows, columns = np.nonzero((labels == 1) & counted)
    of_group, place = np.unique(groups[rows], return_inverse=True)
    lost = np.where(sets[rows, columns], 0.0, _weights(rows, groups))
    return of_group, np.asarray(np.bincount(place, lost, len(of_group)), dtype=np.float64)


def _weights(rows: NDArray[np.int64], groups: NDArray[np.int64]) -> Floats:
    """For each known lesion of a photograph, 1 / (lesions of the photograph x photographs of the group that show any)."""
    photographs, place, n_lesions = np.unique(rows, return_inverse=True, return_counts=True)
    n_photographs = np.unique(groups[photographs], return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (n_lesions * n_photographs[2][n_photographs[1]])[place])
