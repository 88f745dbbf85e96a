"""By which method a lesion and the site are calibrated: what the numbers of groups allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS
from predilect.evaluation.measures import counted_classes
from predilect.labels.tasks import LESION, SITE, LabelSpace

__all__ = ["ISOTONIC_GROUPS", "PLATT_GROUPS", "LesionMethod", "Methods", "count_groups"]

LesionMethod = Literal["isotonic", "platt", "none"]

ISOTONIC_GROUPS = 200
"""From so many positive and as many negative groups on, a lesion's curve is isotonic: free in shape, and so in need of data."""

PLATT_GROUPS = MIN_POSITIVE_GROUPS
"""From so many of each on, it is logistic, with two parameters; below, there is none. The site's temperature asks for as many."""

_NESTED_SHARE = 0.5  # of these numbers that must be left without any one fold


@dataclass(frozen=True, slots=True)
class Methods:
    """How each lesion and the site are calibrated.

    Attributes:
        lesions: In class order.
        site: None if no site is calibrated.
    """

    lesions: tuple[LesionMethod, ...]
    site: Literal["temperature", "none"] | None

    @classmethod
    def allowed_by(
        cls,
        labels: LabelSpace,
        values: Mapping[str, NDArray[np.int8]],
        groups: NDArray[np.int64],
        folds: NDArray[np.int64] | None = None,
    ) -> Self:
        """What the numbers of groups allow; no score is looked at.

        Where there are folds, half as many groups must be left without any one of them. A calibration by the same method can then be
        fitted there, too.

        Args:
            labels: The tasks to calibrate.
            values: By task, (N, C) of 1, 0 or -1.
            groups: (N,) any numbers; photographs of a group lie in one fold.
            folds: (N,); None, or one fold alone: nothing is fitted without it.
        """
        places = np.zeros(len(groups), dtype=np.int64) if folds is None else np.unique(folds, return_inverse=True)[1]

        def enough(rows: NDArray[np.bool_], needed: int) -> bool:
            first = np.unique(groups[rows], return_index=True)[1]
            by_fold = np.bincount(places[rows][first], minlength=int(places.max(initial=0)) + 1)
            fewest = needed if len(by_fold) == 1 else by_fold.sum() - by_fold.max()
            return bool(by_fold.sum() >= needed and fewest >= _NESTED_SHARE * needed)

        lesions: list[LesionMethod] = []
        for column in values[LESION].T if LESION in labels else ():
            isotonic, platt = (
                enough(column == 1, needed) and enough(column == 0, needed) for needed in (ISOTONIC_GROUPS, PLATT_GROUPS)
            )
            lesions.append("isotonic" if isotonic else "platt" if platt else "none")
        if SITE not in labels:
            return cls(tuple(lesions), None)
        named = (values[SITE] == 1) & counted_classes(labels[SITE])
        human, site = named.any(axis=1), named.argmax(axis=1)
        n_folds = int(places.max(initial=0)) + 1
        fitted_on = [human & (places != fold) for fold in range(n_folds)] if n_folds > 1 else [human]
        told_apart = all(len(np.unique(site[rows])) > 1 for rows in fitted_on)
        return cls(tuple(lesions), "temperature" if enough(human, PLATT_GROUPS) and told_apart else "none")


def count_groups(labels: NDArray[np.int8], groups: NDArray[np.int64]) -> tuple[int, int]:
    """How many groups have a photograph known to show a class, and how many one known not to; a group may be among both.

    Args:
        labels: (N,) of 1, 0 or -1.
        groups: (N,) any numbers.
    """
    return len(np.unique(groups[labels == 1])), len(np.unique(groups[labels == 0]))
