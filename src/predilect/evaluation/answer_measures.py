"""What decisions and sets get right, summed by group: as it stands, and in any resample of the groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from predilect.evaluation.answers import Answers
from predilect.evaluation.conformal import false_negative_losses
from predilect.evaluation.intervals import Counts, count_by_group
from predilect.evaluation.metrics import Floats, ratio

__all__ = ["DecisionCounts", "SetSums"]


@dataclass(frozen=True, eq=False, slots=True)
class DecisionCounts:
    """Photographs of one lesion by decision and truth.

    Attributes:
        sums: (4, G) sparse: found, false alarms, missed, rightly passed over.
    """

    sums: sparse.csr_array

    @property
    def n_decided(self) -> int:
        """Photographs that were decided on."""
        return int(self.sums.sum())

    @property
    def n_positive(self) -> int:
        """Those of them that show the lesion."""
        return int(self.sums[[0, 2]].sum())

    @property
    def n_groups(self) -> tuple[int, int]:
        """Groups with a photograph, decided on, that shows the lesion, and with one that does not."""
        of_group = self.sums.toarray() > 0
        return int((of_group[0] | of_group[2]).sum()), int((of_group[1] | of_group[3]).sum())

    @classmethod
    def of(cls, decided: NDArray[np.int8], labels: NDArray[np.int8], groups: NDArray[np.int64], n_groups: int) -> DecisionCounts:
        """Count, where there is a decision and the truth is known.

        Args:
            decided: (N,) of 1, 0 or -1.
            labels: (N,) of 1, 0 or -1.
            groups: (N,) from 0 to `n_groups` - 1.
            n_groups: G.
        """
        rows = np.flatnonzero((decided >= 0) & (labels >= 0))
        kind = np.array([[3, 2], [1, 0]])[decided[rows], labels[rows]]
        return cls(count_by_group(kind, groups[rows], (4, n_groups)))

    def resampled(self, multiplicities: Counts) -> Floats:
        """(4, b) sensitivity, specificity, precision and F1; NaN where undefined.

        Args:
            multiplicities: (G, b), how often each group was drawn.
        """
        hit, alarm, missed, passed = self.sums @ multiplicities
        pairs = ((hit, hit + missed), (passed, passed + alarm), (hit, hit + alarm), (2 * hit, 2 * hit + alarm + missed))
        return np.stack([ratio(above, below) for above, below in pairs])


@dataclass(frozen=True, eq=False, slots=True)
class SetSums:
    """The sets of all photographs of one seed.

    Attributes:
        sums: (6, G) sparse: loss, and 1, of groups with a lesion; lesions in sets, empty sets, unsure answers, photographs.
    """

    sums: sparse.csr_array

    @classmethod
    def of(
        cls, answers: Answers, labels: NDArray[np.int8], promised: NDArray[np.bool_], groups: NDArray[np.int64], n_groups: int
    ) -> SetSums:
        """Sum up.

        Args:
            answers: For N photographs.
            labels: (N, C) of 1, 0 or -1.
            promised: (C,) which lesions the sets promise something of.
            groups: (N,) from 0 to `n_groups` - 1.
            n_groups: G.

        Raises:
            ValueError: If the answers have no sets.
        """
        if answers.possible is None or answers.unsure is None:
            raise ValueError("the answers have no sets")
        judged, losses = false_negative_losses(answers.possible, labels, promised, groups)
        size = answers.possible.sum(axis=1)
        by_photograph = (size, size == 0, answers.unsure, np.ones(len(size)))
        values = np.concatenate([losses, np.ones(len(judged)), *by_photograph])
        columns = np.concatenate([judged, judged, np.tile(groups, 4)])
        rows = np.repeat(np.arange(6), [len(judged)] * 2 + [len(groups)] * 4)
        return cls(sparse.coo_array((values, (rows, columns)), shape=(6, n_groups)).tocsr())

    def resampled(self, multiplicities: Counts) -> Floats:
        """(4, b) miss rate, mean size, share of empty sets, share of unsure answers; NaN where undefined.

        Args:
            multiplicities: (G, b), how often each group was drawn.
        """
        loss, judged, size, empty, unsure, n = self.sums @ multiplicities
        return np.stack([ratio(loss, judged), ratio(size, n), ratio(empty, n), ratio(unsure, n)])
