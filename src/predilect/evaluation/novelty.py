"""How far a photograph lies from those that a network learnt from, against photographs that it was not trained on.

A distance is that to the k-th nearest training embedding (Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest
Neighbors", ICML 2022). What a usual one is, the held-out photographs of a cross-validation tell: each was embedded by its fold's
network and looked up among that fold's training photographs, none of which is of its group. The same conformal argument as for sets
of lesions then bounds how many photographs like those are warned of; of how many strange ones it warns, it promises nothing.

Networks do not share a scale. So distances come in multiples of what is usual among a network's own training photographs,
see `relative_distances`.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from predilect.evaluation.conformal import controlled_threshold
from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.metrics import Floats

__all__ = ["FALSE_ALARM_RATE", "NEAREST", "Novelty", "fit_novelty", "relative_distances"]

NEAREST = 5
"""k: a single near photograph may be an accident, and rare lesions have few neighbours of their own."""

FALSE_ALARM_RATE = 0.01

_MAX_STEPS = 500  # of the stored distribution


@dataclass(frozen=True, slots=True, config=STRICT)
class Novelty(Fitted):
    """What distances are usual, and from where on there is a warning.

    Attributes:
        k: Which neighbour's distance is taken.
        distances: (M,) held-out distances, each above the one before.
        beyond: (M,) for each, the share of groups that lie at least as far, the photograph in question counted among them; each
            below the one before, between 0 and 1. A group counts by the share of its photographs.
        false_alarm_rate: At most this share of groups like those fitted on is warned of, in expectation, for a random photograph of
            each.
        threshold: There is a warning above this distance; None where the groups are too few for such a rate: then there is never
            one.
        n_groups: Groups fitted on.

    Raises:
        ValueError: If the values are not so.
    """

    k: Annotated[int, Field(ge=1)]
    distances: tuple[Annotated[float, Field(ge=0)], ...]
    beyond: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)]
    threshold: Annotated[float, Field(ge=0)] | None
    n_groups: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        if not self.distances or len(self.distances) != len(self.beyond):
            raise ValueError("there must be a share for each distance, and a distance")
        if (np.diff(self.distances) <= 0).any() or (np.diff(self.beyond) >= 0).any():
            raise ValueError("distances rise and shares fall")

    def beyond_it(self, distances: NDArray[np.floating[Any]]) -> Floats:
        """How usual distances are.

        Args:
            distances: (N,) made in the same way as those fitted on.

        Returns:
            (N,) in (0, 1]: the share of held-out groups that lie at least as far, the photograph in question counted among them.
            Between stored distances it is that of the next smaller one, so rather too high.
        """
        place = np.searchsorted(self.distances, distances, side="right")
        return np.concatenate([[1.0], self.beyond])[place]

    def warns(self, distances: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """(N,) of which photographs there is a warning."""
        return distances > (np.inf if self.threshold is None else self.threshold)


def fit_novelty(
    distances: NDArray[np.floating[Any]], groups: NDArray[np.int64], *, k: int = NEAREST, false_alarm_rate: float = FALSE_ALARM_RATE
) -> Novelty:
    """Learn what distances are usual.

    Args:
        distances: (N,) of held-out photographs to their k-th nearest training photograph, at least one; of several seeds under each
            other.
        groups: (N,) any numbers; a group counts once, each of its rows alike.
        k: Which neighbour's distance it is, for the record.
        false_alarm_rate: Between 0 and 1.

    Raises:
        ValueError: If there is no distance, or one is negative or not finite.
    """
    far = np.asarray(distances, dtype=np.float64)
    if not len(far) or far.shape != groups.shape or not (np.isfinite(far) & (far >= 0)).all():
        raise ValueError("distances are finite numbers from 0 up, at least one, and there is a group for each")
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n_groups = len(sizes)
    weights = 1 / sizes[group]
    steps, place = np.unique(far, return_inverse=True)
    beyond = (np.cumsum(np.bincount(place, weights)[::-1])[::-1] + 1) / (n_groups + 1)
    # Shares stored are a hundredth or two apart from each other in proportion, so that rare ones are as exact as common ones.
    wanted = np.searchsorted(-beyond, -np.geomspace(1, 1 / (n_groups + 1), _MAX_STEPS), side="right") - 1
    kept = np.unique(np.clip(wanted, 0, None))
    threshold = controlled_threshold(-far, weights, n_groups, false_alarm_rate)
    return Novelty(
        k=k,
        distances=tuple(steps[kept].tolist()),
        beyond=tuple(np.minimum(beyond[kept], 1.0).tolist()),
        false_alarm_rate=false_alarm_rate,
        threshold=None if threshold is None else -threshold,
        n_groups=n_groups,
    )


def relative_distances(distances: NDArray[np.floating[Any]], of_training: NDArray[np.floating[Any]]) -> Floats:
    """Distances in multiples of the median distance among a network's own training photographs.

    Args:
        distances: (N,) to the k-th nearest training photograph.
        of_training: (M,) the same of training photographs, each among those of other groups.

    Raises:
        ValueError: If there is no training photograph, or their median distance is 0.
    """
    usual = float(np.median(of_training)) if len(of_training) else 0.0
    if usual <= 0:
        raise ValueError("the training photographs lie at no distance from each other, so there is no scale")
    return np.asarray(distances, dtype=np.float64) / usual
