"""Per lesion, what learning the body site brought against how strongly the lesion prefers certain sites.

The paper reads off its Table 1 that lesions with a strong predilection gain most, with alopecia as the exception. Here both sides
are numbers with intervals, and their rank correlation has one too: gain and strength are resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, percentile_interval, resample_groups
from predilect.evaluation.measures import PER_CLASS, counted_classes
from predilect.evaluation.metrics import Floats, ratio
from predilect.evaluation.predilection import N_PERMUTATIONS, PredilectionStrength
from predilect.evaluation.scores import LesionGain, PredilectionGain
from predilect.evaluation.summaries import Resampled
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth

__all__ = ["MIN_LESIONS", "predilection_gains", "rank_correlation"]

MIN_LESIONS = 4
"""Below so many lesions there is no correlation: three can be ordered in six ways only."""


def predilection_gains(
    truth: Truth,
    pairs: Sequence[tuple[str, str]],
    scored: Mapping[tuple[str, str], Resampled],
    n_resamples: int,
    seed: int,
) -> tuple[PredilectionGain, ...]:
    """Set the gain of each lesion against its strength of predilection, for pairs that differ in having learned the site.

    Args:
        truth: What is known.
        pairs: (system, baseline), each with lesion scores. Left out are those in which the system does not predict the site
            or the baseline does too.
        scored: By system and task, on the resamples of `resample_groups(G, ..., seed)`.
        n_resamples: The first so many of them make the intervals.
        seed: Of the resampling; the same groups are drawn again for the strength.

    Returns:
        One entry for each pair that is left; none if no lesion is eligible: made by persons, and present on a known site in at
        least 10 groups.
    """
    chosen = [(a, b) for a, b in pairs if (a, SITE) in scored and (b, SITE) not in scored]
    if not chosen:
        return ()
    groups = truth.group_indices()
    n_groups = int(groups.max()) + 1
    lesions, n_positive_groups = _eligible(truth, groups)
    if not len(lesions):
        return ()
    measure = PredilectionStrength.of(truth, lesions, seed=seed)
    once = np.ones((n_groups, 1), dtype=np.float32)
    strength = measure.corrected(once)[:, 0]
    drawn = np.concatenate([measure.corrected(block) for block in resample_groups(n_groups, n_resamples, seed)], axis=1)
    names = [truth.labels[LESION].classes[k] for k in lesions]
    facts = list(zip(names, measure.raw(once)[:, 0].tolist(), n_positive_groups.tolist(), strict=True))
    return tuple(_of_pair(pair, facts, _gain(pair, scored, lesions, n_resamples), (strength, drawn)) for pair in chosen)


def rank_correlation(first: Floats, second: Floats) -> Floats:
    """Spearman's rank correlation within each column; equal values share their mean rank.

    Args:
        first: (E, b).
        second: (E, b).

    Returns:
        (b,) in [-1, 1]; NaN where a value is NaN or all values of one side are equal.

    Examples:
        >>> rank_correlation(np.array([[0.1], [0.2], [0.4]]), np.array([[5.0], [7.0], [6.0]])).tolist()
        [0.5]
    """
    one, other = _centred_ranks(first), _centred_ranks(second)
    return ratio((one * other).sum(axis=0), np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0)))


def _centred_ranks(values: Floats) -> Floats:
    """Twice the rank minus twice the mean rank: how many values of the column are smaller, minus how many are larger."""
    return np.asarray(np.sign(values[:, None] - values[None]).sum(axis=1))


def _eligible(truth: Truth, groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the eligible lesions, and the number of groups that show each on a known site."""
    shown = (truth.values[LESION] == 1) & (truth.values[SITE] == 1).any(axis=1, keepdims=True)  # (N, P)
    n_groups = np.array([len(np.unique(groups[column])) for column in shown.T])
    lesions = np.flatnonzero(counted_classes(truth.labels[LESION]) & (n_groups >= MIN_POSITIVE_GROUPS))
    return lesions, n_groups[lesions]


def _gain(
    pair: tuple[str, str], scored: Mapping[tuple[str, str], Resampled], lesions: NDArray[np.int64], n_resamples: int
) -> tuple[Floats, Floats]:
    """The pair's difference in average precision, (E,), and in each resample, (E, B)."""
    system, baseline = (scored[name, LESION] for name in pair)
    resampled = system.resamples[PER_CLASS] - baseline.resamples[PER_CLASS]
    return (system.point(PER_CLASS) - baseline.point(PER_CLASS))[lesions], resampled[lesions, :n_resamples]


def _of_pair(
    pair: tuple[str, str],
    facts: Sequence[tuple[str, float, int]],
    gain: tuple[Floats, Floats],
    strength: tuple[Floats, Floats],
) -> PredilectionGain:
    """Put one pair's entry together.

    Args:
        pair: System and baseline.
        facts: Name, raw divergence and number of positive groups of each of E lesions.
        gain: Of each lesion (E,), and in each resample (E, B).
        strength: The same.
    """
    median = np.median(strength[0])
    rows = []
    for k, (name, raw, n_groups) in enumerate(facts):
        gain_low, gain_high, _ = _interval(gain[1][k])
        strength_low, strength_high, _ = _interval(strength[1][k])
        strong = strength_low is not None and strength_low > 0 and strength[0][k] >= median
        rows.append(
            LesionGain(
                lesion=name,
                gain=float(gain[0][k]),
                gain_low=gain_low,
                gain_high=gain_high,
                strength=float(strength[0][k]),
                strength_low=strength_low,
                strength_high=strength_high,
                raw_divergence=raw,
                n_positive_groups=n_groups,
                strong_without_gain=bool(strong and gain[0][k] <= 0),
            )
        )
    enough = len(rows) >= MIN_LESIONS
    rank = rank_correlation(gain[0][:, None], strength[0][:, None])[0] if enough else np.nan
    low, high, n_defined = _interval(rank_correlation(*(side[1] for side in (gain, strength)))) if enough else (None, None, 0)
    return PredilectionGain(
        system_a=pair[0],
        system_b=pair[1],
        lesions=tuple(rows),
        rank_correlation=None if np.isnan(rank) else float(rank),
        rank_correlation_low=low,
        rank_correlation_high=high,
        n_resamples_defined=n_defined,
        n_permutations=N_PERMUTATIONS,
    )


def _interval(values: Floats) -> tuple[float | None, float | None, int]:
    low, high, n_defined = percentile_interval(values)
    return (low, high, n_defined) if n_defined else (None, None, 0)
