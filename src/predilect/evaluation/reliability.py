"""How far probabilities are what they say: expected calibration error, Brier score and reliability diagrams, with intervals.

Photographs are put into 10 bins of equally many by their probability (Nixon et al., "Measuring Calibration in Deep Learning", 2019,
call it adaptive), since bins of equal width hold nearly all photographs of a rare lesion in the first. The bins stay as they are
when groups are resampled, so that a resample costs sums and no sorting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from predilect.evaluation.calibration_scores import Number, ReliabilityBin, ReliabilityState
from predilect.evaluation.intervals import Counts, percentile_interval
from predilect.evaluation.metrics import Floats, ratio

__all__ = ["N_BINS", "Drawn", "Outcomes", "Resampled", "interval", "moved_interval", "resample", "state"]

N_BINS = 10

Key = TypeVar("Key")

_SCATTER_TO_ERROR = float(np.sqrt(2 / np.pi))  # mean distance from 0 of a normal number, in standard deviations


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What was said of each photograph and what was true, summed by bin and group.

    Attributes:
        sums: (3 B + 1, G) sparse: photographs of each bin, their probabilities, their truths; and all squared distances.
        n_bins: B.
    """

    sums: sparse.csr_array
    n_bins: int

    @classmethod
    def of(
        cls,
        probabilities: NDArray[np.floating[Any]],
        true: NDArray[np.bool_],
        squares: Floats,
        groups: NDArray[np.int64],
        n_groups: int,
    ) -> Outcomes:
        """Sort photographs into bins.

        Args:
            probabilities: (n,).
            true: (n,).
            squares: (n,) squared distances of probability and truth.
            groups: (n,) from 0 to `n_groups` - 1.
            n_groups: G.
        """
        said = probabilities.astype(np.float64)
        edges = np.quantile(said, np.linspace(0, 1, N_BINS + 1)[1:-1]) if len(said) else np.array([])
        place = np.unique(np.searchsorted(edges, said), return_inverse=True)[1]  # ties leave bins empty: these go
        n_bins = int(place.max(initial=-1)) + 1
        rows = np.concatenate([place, place + n_bins, place + 2 * n_bins, np.full(len(said), 3 * n_bins)])
        values = np.concatenate([np.ones(len(said)), said, true, squares])
        shape = (3 * n_bins + 1, n_groups)
        return cls(sparse.coo_array((values, (rows, np.tile(groups, 4))), shape=shape).tocsr(), n_bins)

    def resampled(self, multiplicities: Counts) -> Floats:
        """All numbers in b resamples.

        Args:
            multiplicities: (G, b), how often each group was drawn.

        Returns:
            (2 + 2 B, b): calibration error, Brier score, each bin's signed part of the error, its frequency. NaN where nothing was
            drawn.
        """
        sums = self.sums @ multiplicities
        n, said, true = sums[:-1].reshape(3, self.n_bins, sums.shape[1])
        total = n.sum(axis=0)
        parts = ratio(said - true, np.broadcast_to(total, said.shape))
        error = np.where(total > 0, np.abs(parts).sum(axis=0), np.nan)
        return np.concatenate([[error, ratio(sums[-1], total)], parts, ratio(true, n)])

    def bins(self) -> tuple[Floats, Floats]:
        """(B,) photographs, and (B,) their mean probability."""
        sums = np.asarray(self.sums.sum(axis=1))
        return sums[: self.n_bins], sums[self.n_bins : 2 * self.n_bins] / sums[: self.n_bins]


class Resampled(Protocol):
    """Sums by group, from which numbers are made."""

    @property
    def sums(self) -> sparse.csr_array:
        """(R, G)."""

    def resampled(self, multiplicities: Counts) -> Floats:
        """(K, b) numbers in b resamples; `multiplicities` is (G, b)."""


@dataclass(frozen=True, eq=False, slots=True)
class Drawn:
    """K numbers: as they stand (K,), and in all resamples (K, B)."""

    point: Floats
    resamples: Floats

    @classmethod
    def mean(cls, parts: Sequence[Drawn]) -> Drawn:
        """The same numbers averaged, over seeds or over classes."""
        return cls(np.mean([each.point for each in parts], axis=0), np.mean([each.resamples for each in parts], axis=0))

    def __sub__(self, other: Drawn) -> Drawn:
        return Drawn(self.point - other.point, self.resamples - other.resamples)

    def first(self, k: int) -> Drawn:
        """The first k numbers."""
        return Drawn(self.point[:k], self.resamples[:k])


def resample(measures: Mapping[Key, Resampled], blocks: Iterable[Counts]) -> dict[Key, Drawn]:
    """Make all numbers on the same resamples.

    Args:
        measures: By any key.
        blocks: Of multiplicities, (G, b) each.
    """
    parts: dict[Key, list[Floats]] = {key: [] for key in measures}
    with ThreadPoolExecutor() as pool:  # numpy and scipy let other threads run while they count
        for multiplicities in blocks:
            jobs = {key: pool.submit(each.resampled, multiplicities) for key, each in measures.items()}
            for key, job in jobs.items():
                parts[key].append(job.result())
    once = {key: np.ones((each.sums.shape[1], 1), dtype=np.float32) for key, each in measures.items()}
    return {key: Drawn(each.resampled(once[key])[:, 0], np.concatenate(parts[key], axis=1)) for key, each in measures.items()}


def state(seeds: Sequence[Drawn], pooled: Outcomes, drawn: Drawn, *, enough: bool) -> ReliabilityState:
    """Put the numbers of one class together.

    Args:
        seeds: Of each training seed.
        pooled: All seeds together.
        drawn: The numbers of `pooled`.
        enough: Whether there are groups enough for intervals.
    """
    if not pooled.n_bins:
        return ReliabilityState(ece=Number(value=None), ece_by_chance=None, brier=Number(value=None), bins=())
    both = Drawn.mean([each.first(2) for each in seeds])
    scatter = [_SCATTER_TO_ERROR * np.nanstd(each.resamples[2 : 1 + len(each.point) // 2], axis=1).sum() for each in seeds]
    n, probabilities = pooled.bins()
    first = 2 + pooled.n_bins
    return ReliabilityState(
        ece=moved_interval(both, 0, enough=enough, least=0.0),
        ece_by_chance=float(np.mean(scatter)) if enough else None,
        brier=interval(both, 1, enough=enough),
        bins=tuple(
            ReliabilityBin(
                probability=float(probabilities[b]),
                frequency=interval(drawn, first + b, enough=enough),
                n=float(n[b] / len(seeds)),
            )
            for b in range(pooled.n_bins)
        ),
    )


def interval(drawn: Drawn, k: int, *, enough: bool) -> Number:
    """The k-th number with the middle 95 % of its resamples; None where it is not defined, or groups are not `enough`."""
    value = float(drawn.point[k])
    if np.isnan(value):
        return Number(value=None)
    low, high, n_defined = percentile_interval(drawn.resamples[k])
    return Number(value=value, low=low, high=high) if enough and n_defined else Number(value=value)


def moved_interval(drawn: Drawn, k: int, *, enough: bool, least: float = -1.0) -> Number:
    """The same, moved so that the mean of the resamples lies at the number, down to `least`.

    A calibration error is a mean of distances, which chance makes longer; drawing with replacement does so once more.
    """
    found = interval(drawn, k, enough=enough)
    if found.value is None or found.low is None or found.high is None:
        return found
    shift = found.value - float(np.nanmean(drawn.resamples[k]))
    return Number(value=found.value, low=max(least, found.low + shift), high=max(least, found.high + shift))
