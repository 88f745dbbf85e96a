"""Means over photographs, and paired differences of two numbers per photograph, with their uncertainty over groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, bootstrap_p, percentile_interval, resample_groups
from predilect.evaluation.metrics import Floats

__all__ = ["GroupMean", "PairedDifference", "group_mean", "paired_difference"]

Groups = Sequence[str] | NDArray[np.str_] | NDArray[np.int64]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GroupMean(_Result):
    """A mean over photographs.

    Attributes:
        value: None where there is no photograph.
        low: Lower end of its 95 % interval, a bootstrap over groups; None below `MIN_POSITIVE_GROUPS` groups.
        high: Upper end.
        n_images: Photographs.
        n_groups: Groups that they are of.
    """

    value: float | None
    low: float | None
    high: float | None
    n_images: int
    n_groups: int


class PairedDifference(_Result):
    """A mean difference over photographs.

    Attributes:
        difference: Mean of first minus second.
        low: Lower end of its 95 % interval; None below `MIN_POSITIVE_GROUPS` groups.
        high: Upper end.
        p: Two-sided, of no difference; None below so many groups.
        n_images: Photographs.
        n_groups: Groups.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    n_images: int
    n_groups: int


def group_mean(values: ArrayLike, groups: Groups, seed: int, *, n_resamples: int = 1_000) -> GroupMean:
    """The mean of a number per photograph, by resampling those groups that have one.

    Args:
        values: (N,); NaN where a photograph has none, which leaves it out.
        groups: (N,) the group of each.
        seed: Of the resampling.
        n_resamples: For the interval.

    Raises:
        ValueError: If lengths differ or a number is infinite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(groups) != len(numbers) or np.isinf(numbers).any():
        raise ValueError("values and groups must be equally long, and no value infinite")
    there = ~np.isnan(numbers)
    if not there.any():
        return GroupMean(value=None, low=None, high=None, n_images=0, n_groups=0)
    numbers = numbers[there]
    low, high, n_groups = None, None, len(np.unique(np.asarray(groups)[there]))
    if n_groups >= MIN_POSITIVE_GROUPS:
        low, high, _ = percentile_interval(_resampled(numbers, np.asarray(groups)[there], n_resamples, seed))
    return GroupMean(value=float(numbers.mean()), low=low, high=high, n_images=len(numbers), n_groups=n_groups)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    groups: Groups,
    seed: int,
    *,
    n_resamples: int = 1_000,
    n_resamples_p: int = 10_000,
) -> PairedDifference:
    """Compare two numbers per photograph, such as the areas under the curves of two maps, by resampling groups.

    Args:
        first: (N,) finite.
        second: (N,) finite, of the same photographs.
        groups: (N,) the group of each.
        seed: Of the resampling.
        n_resamples: For the interval.
        n_resamples_p: For p, at least `n_resamples`.

    Raises:
        ValueError: If lengths differ, nothing is given, or a number is not finite.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if differences.ndim != 1 or not len(differences) or len(groups) != len(differences) or not np.isfinite(differences).all():
        raise ValueError("first, second and groups must be equally long, not empty and finite")
    low = high = p = None
    n_groups = len(np.unique(np.asarray(groups)))
    if n_groups >= MIN_POSITIVE_GROUPS:
        means = _resampled(differences, np.asarray(groups), n_resamples_p, seed)
        low, high, _ = percentile_interval(means[:n_resamples])
        p = bootstrap_p(means)
    return PairedDifference(
        difference=float(differences.mean()), low=low, high=high, p=p, n_images=len(differences), n_groups=n_groups
    )


def _resampled(values: Floats, groups: NDArray[np.str_] | NDArray[np.int64], n_resamples: int, seed: int) -> Floats:
    """(B,) the mean in each resample of the groups."""
    group = np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(group, weights=values), np.bincount(group)
    return np.concatenate([(sums @ drawn) / (sizes @ drawn) for drawn in resample_groups(len(sizes), n_resamples, seed)])
