"""Intervals and paired tests by resampling groups, fast enough for tens of thousands of photographs and resamples.

Groups, not photographs, are drawn with replacement, since photographs of one patient are not independent. A resample is a
column of multiplicities, one per group; every system, seed and class is scored on the same columns. Average precision needs
only the counts at the scores of positives, and these are a sparse matrix times the multiplicities: the photographs are ranked
once, and no resample sorts or copies anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from predilect.evaluation.metrics import Floats, ratio

__all__ = [
    "MIN_POSITIVE_GROUPS",
    "Counts",
    "Ranking",
    "bootstrap_p",
    "count_by_group",
    "holm",
    "percentile_interval",
    "resample_groups",
]

MIN_POSITIVE_GROUPS = 10
"""Below so many groups with a positive there is no interval and no p: the few groups drawn say too little of the others."""

Counts = NDArray[np.float32]
"""Whole numbers; float32 holds them exactly up to 2**24 and is multiplied twice as fast as int32."""

_CELLS_PER_BLOCK = 1_400_000  # of multiplicities: few enough to stay in the processor's cache from class to class
_EXACT_IN_FLOAT32 = 2**22  # photographs; a resample may hold more than the table, but hardly four times as many


def resample_groups(n_groups: int, n_resamples: int, seed: int) -> Iterator[Counts]:
    """Draw groups with replacement, as many as there are, and count how often each was drawn.

    Resample r depends only on the seed, the number of groups and r: a longer run begins with a shorter one.

    Args:
        n_groups: G, at least 1.
        n_resamples: B, in all blocks together.
        seed: Of the random stream.

    Yields:
        Blocks (G, b) of multiplicities; each column sums to G, and the blocks' widths sum to B.

    Raises:
        ValueError: If there is no group.
    """
    if n_groups < 1:
        raise ValueError("there is no group to resample")
    random = np.random.default_rng(seed)
    width = int(np.clip(_CELLS_PER_BLOCK // n_groups, 8, 256))
    for start in range(0, n_resamples, width):
        drawn = np.empty((min(width, n_resamples - start), n_groups), dtype=np.float32)
        for row in drawn:
            row[:] = np.bincount(random.integers(0, n_groups, n_groups, dtype=np.int32), minlength=n_groups)
        yield np.ascontiguousarray(drawn.T)


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """One class's photographs, ranked once, so that average precision can be had for any multiplicities of the groups.

    Attributes:
        ranked: (T, G) sparse: photographs of each group that score at least the t-th highest distinct score of a positive
            and less than the one before it.
        positives: (T, G) sparse: the positives among them.
    """

    ranked: sparse.csr_array
    positives: sparse.csr_array

    @classmethod
    def of(cls, scores: NDArray[Any], labels: NDArray[np.int8], groups: NDArray[np.int64], n_groups: int) -> Ranking:
        """Rank the photographs of one class.

        Args:
            scores: (N,), higher is more confident.
            labels: (N,) of 1, 0 or -1; unknown photographs are not ranked.
            groups: (N,) group numbers from 0 to `n_groups` - 1.
            n_groups: G.
        """
        of_positives = np.sort(scores[labels == 1])
        thresholds = of_positives[np.diff(of_positives, prepend=-np.inf) > 0]
        # How many thresholds lie above the score; photographs below the last threshold never matter.
        place = len(thresholds) - np.searchsorted(thresholds, scores, side="right")
        matters = (labels >= 0) & (place < len(thresholds))
        shape = (len(thresholds), n_groups)
        return cls(
            ranked=count_by_group(place[matters], groups[matters], shape),
            positives=count_by_group(place[labels == 1], groups[labels == 1], shape),
        )

    def average_precision(self, multiplicities: Counts) -> Floats:
        """Average precision in each resample.

        Args:
            multiplicities: (G, b), how often each group was drawn.

        Returns:
            (b,); NaN where no positive was drawn.
        """
        found = self.positives @ multiplicities  # (T, b)
        if not len(found):
            return np.full(multiplicities.shape[1], np.nan)
        above = self.ranked @ multiplicities
        np.cumsum(above, axis=0, out=above)
        np.maximum(above, 1, out=above)  # nothing drawn so far: no hits either, and 0 / 1 adds nothing
        hits = np.cumsum(found, axis=0)
        precision = np.divide(hits, above, dtype=np.float64)
        gained = np.multiply(precision, found, out=precision).sum(axis=0)
        return ratio(gained, hits[-1])


def count_by_group(rows: NDArray[np.int64], groups: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_array:
    """Count how often each pair of row and group occurs.

    Args:
        rows: (N,) from 0 to R - 1.
        groups: (N,) from 0 to G - 1.
        shape: (R, G).

    Returns:
        (R, G) sparse whole numbers; times multiplicities (G, b) it is the counts in b resamples.
    """
    ones = np.ones(len(rows), dtype=np.float32 if len(rows) < _EXACT_IN_FLOAT32 else np.float64)
    return sparse.coo_array((ones, (rows, groups)), shape=shape).tocsr()


def percentile_interval(values: Floats, centre: float | None = None) -> tuple[float, float, int]:
    """The middle 95 % of a bootstrap distribution, as it is or moved so that its mean lies at the estimate.

    Average precision is too high in small samples, and drawing with replacement makes it so once more. For one class that is
    small beside the spread, but a mean over classes evens out the spread and not the excess: its interval must be moved
    back, or it may lie wholly above the estimate.

    Args:
        values: (B,); NaN where the number was not defined in a resample.
        centre: The estimate on the table itself, if the interval is to be moved there; its ends then stay within [0, 1].

    Returns:
        Lower end, upper end (both NaN if the number was never defined), and in how many resamples it was defined.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan"), 0
    low, high = np.quantile(defined, (0.025, 0.975))
    if centre is not None:
        low, high = np.clip(np.array([low, high]) + (centre - defined.mean()), 0.0, 1.0)
    return float(low), float(high), len(defined)


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p of no difference: min(1, 2 (1 + min(#d <= 0, #d >= 0)) / (B + 1)).

    Args:
        differences: (B,) paired differences, one per resample; NaN where undefined, which does not count for B.

    Returns:
        In (0, 1]; NaN if no difference is defined.

    Examples:
        Of nine resamples one is not above 0: p = 2 (1 + 1) / 10.

        >>> bootstrap_p(np.array([0.3, 0.2, 0.1, 0.4, -0.1, 0.2, 0.3, 0.1, 0.2]))
        0.4
    """
    n_defined = int((~np.isnan(differences)).sum())
    if not n_defined:
        return float("nan")
    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (n_defined + 1))


def holm(p: Sequence[float]) -> list[float]:
    """Correct a family of p-values by Holm's step-down method (Holm 1979), which holds under any dependence.

    Args:
        p: Each in [0, 1].

    Returns:
        The corrected values in the same order, each in [0, 1].

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    corrected = np.empty(len(values))
    corrected[order] = stepped
    return [float(value) for value in corrected]
