"""Which rows what is fitted on predictions may see: for reporting on fold f the other folds, for the bundle all.

The rule keeps the labels of fold f out of whatever is applied to fold f. The networks behind the scores of the other folds
learnt from fold f all the same, as those behind any cross-validation; a bundle's network stands to a stranger's photograph as a
fold's network to its own fold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predilect.errors import TableError
from predilect.predictions import Predictions, Truth, check_matching

__all__ = ["MatchedSeeds", "common_folds"]


@dataclass(frozen=True, eq=False, slots=True)
class MatchedSeeds:
    """One system's predictions of every training seed, row for row with the truth.

    Attributes:
        truth: N photographs.
        tables: By seed, N rows in the truth's order.
        groups: (N,) group numbers from 0.
        folds: (N,) or None.
    """

    truth: Truth
    tables: Mapping[int, Predictions]
    groups: NDArray[np.int64]
    folds: NDArray[np.int64] | None

    @classmethod
    def of(cls, predictions: Predictions, truth: Truth) -> MatchedSeeds:
        """Bring predictions into the order of the truth.

        Raises:
            TableError: If they do not match the truth, seeds differ in their folds, or a group lies in two folds.
        """
        tables = {seed: check_matching(part, truth) for seed, part in predictions.by_seed().items()}
        groups = truth.group_indices()
        return cls(truth, tables, groups, common_folds(list(tables.values()), groups))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are predicted and known."""
        return next(iter(self.tables.values())).labels.names

    def fold_numbers(self, at_least: int) -> list[int]:
        """The folds, ascending.

        Raises:
            TableError: If there are fewer than `at_least`, so that what is fitted for one of them would have to see it.
        """
        found = [] if self.folds is None else [int(fold) for fold in np.unique(self.folds)]
        if len(found) < at_least:
            origin = next(iter(self.tables.values())).origin
            many = {0: "no folds", 1: "one fold"}.get(len(found), f"{len(found)} folds")
            raise TableError(
                f"{origin} names {many}; at least {at_least} are needed, since what is reported on one fold is fitted on others"
            )
        return found

    def rows(self, *, without: Collection[int] = (), only: Collection[int] | None = None) -> NDArray[np.int64]:
        """Rows of the truth outside some folds, or in some only; without any argument all rows. A table without folds is one fold, 0."""
        folds = np.zeros(len(self.truth), dtype=np.int64) if self.folds is None else self.folds
        chosen = ~np.isin(folds, list(without))
        if only is not None:
            chosen &= np.isin(folds, list(only))
        return np.flatnonzero(chosen)

    def pooled(
        self, rows: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.int8]], NDArray[np.int64]]:
        """Some photographs of all seeds under each other, as if each seed had photographed anew.

        A bundle's network is one network. So what it will be used with is fitted on scores of single seeds and not on their
        mean, which is smoother and less sure of itself than any of them.

        Args:
            rows: n rows of the truth.

        Returns:
            Scores and labels by task, (S n, C) each, and groups (S n,), for S seeds.
        """
        parts = list(self.tables.values())
        scores = {task: np.concatenate([part.scores[task][rows] for part in parts]) for task in self.tasks}
        values = {task: np.tile(self.truth.values[task][rows], (len(parts), 1)) for task in self.tasks}
        return scores, values, np.tile(self.groups[rows], len(parts))


def common_folds(tables: Sequence[Predictions], groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The folds that all tables with folds agree on.

    Args:
        tables: Each with N rows in the truth's order.
        groups: (N,) group numbers.

    Returns:
        (N,); None where no table has any.

    Raises:
        TableError: If folds differ between tables, a group lies in two folds, or the tuning slice (-1) lies among other folds.
    """
    first: Predictions | None = None
    folds: NDArray[np.int64] | None = None
    for table in tables:
        if table.folds is None:
            continue
        if first is None or folds is None:
            first, folds = table, table.folds
        elif (table.folds != folds).any():
            row = int(np.flatnonzero(table.folds != folds)[0])
            raise TableError(
                f"{table.origin}: image_id {str(table.image_ids[row])!r} was held out in fold {table.folds[row]}, but in fold "
                f"{folds[row]} in {first.origin}; all systems and seeds must have been trained on the same folds"
            )
    if first is None or folds is None:
        return None
    # A table of the tuning slice alone is how a recipe is tried; among tested folds it would make a choice part of the result.
    if (folds < 0).any() and (folds != -1).any():
        row = int(np.flatnonzero(folds < 0)[0])
        raise TableError(
            f"{first.origin}: image_id {str(first.image_ids[row])!r} lies in fold {folds[row]}; allowed are folds from 0, or the "
            f"tuning slice (-1) alone"
        )
    order = np.lexsort((folds, groups))
    torn = np.flatnonzero((np.diff(groups[order]) == 0) & (np.diff(folds[order]) != 0))
    if len(torn):
        one, other = order[torn[0]], order[torn[0] + 1]
        raise TableError(
            f"{first.origin}: {str(first.image_ids[one])!r} and {str(first.image_ids[other])!r} are of one group but lie in folds "
            f"{folds[one]} and {folds[other]}; a group must lie in one fold, or training saw what was tested"
        )
    return folds
