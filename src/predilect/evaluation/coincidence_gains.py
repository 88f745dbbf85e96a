"""Per lesion, what learning the body site brought against how much the lesion's attention coincides with the site's.

The paper explains its alopecia, which has a strong predilection and no gain, by attention: the network looks at the scalp for
either. Here that explanation is a number with an interval: if it held in general, lesions whose two maps coincide would gain less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.evaluation.attention_scores import CoincidenceGain, LesionCoincidenceGain
from predilect.evaluation.gains import MIN_LESIONS, rank_correlation
from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, Counts, Ranking, percentile_interval, resample_groups
from predilect.evaluation.metrics import Floats, ratio
from predilect.labels.tasks import LESION
from predilect.predictions import Predictions, Truth, check_matching

__all__ = ["coincidence_gain"]


def coincidence_gain(
    truth: Truth,
    pair: tuple[str, str],
    predictions: Mapping[str, Predictions],
    coincidence: pl.DataFrame,
    *,
    n_resamples: int,
    seed: int,
) -> CoincidenceGain:
    """Set the gain of each lesion against the correlation of its map with the site's; both are resampled together, over groups.

    Args:
        truth: What is known of N photographs.
        pair: System and baseline.
        predictions: Of these two, with lesion scores of the N photographs, of one or several training seeds.
        coincidence: `image_id`, `lesion`, `correlation` (may be null): a row for each lesion that people labelled and a
            photograph shows.
        n_resamples: For intervals.
        seed: Of the resampling.

    Raises:
        TableError: If the predictions do not match the truth.
    """
    groups = truth.group_indices()
    n_groups = int(groups.max()) + 1
    sums, counts, lesions = _by_group(truth, coincidence.drop_nulls("correlation"), groups)
    columns = [truth.labels[LESION].index(name) for name in lesions]
    rankings = [_rankings(truth, predictions[name], columns, groups) for name in pair]

    def numbers(drawn: Counts) -> tuple[Floats, Floats]:
        """(E, b) gains, (E, b) mean correlations."""
        system, baseline = (_average_precision(seeds, drawn) for seeds in rankings)
        return system - baseline, ratio(sums @ drawn, counts @ drawn)

    gain, correlation = (side[:, 0] for side in numbers(np.ones((n_groups, 1), dtype=np.float32)))
    blocks = [numbers(drawn) for drawn in resample_groups(n_groups, n_resamples, seed)]
    gains, correlations = (np.concatenate(side, axis=1) for side in zip(*blocks, strict=True))
    enough = len(lesions) >= MIN_LESIONS
    rank = rank_correlation(gain[:, None], correlation[:, None])[0] if enough else np.nan
    low, high, n_defined = percentile_interval(rank_correlation(gains, correlations)) if enough else (np.nan, np.nan, 0)
    return CoincidenceGain(
        system_a=pair[0],
        system_b=pair[1],
        lesions=tuple(_lesion(name, float(gain[k]), gains[k], float(correlation[k])) for k, name in enumerate(lesions)),
        rank_correlation=_defined(rank),
        rank_correlation_low=_defined(low),
        rank_correlation_high=_defined(high),
        n_resamples_defined=n_defined,
    )


def _by_group(truth: Truth, coincidence: pl.DataFrame, groups: NDArray[np.int64]) -> tuple[Floats, Floats, list[str]]:
    """(E, G) sums of correlations and (E, G) how many, for the eligible lesions, and their names."""
    order = np.argsort(truth.image_ids, kind="stable")
    sums, counts, lesions = [], [], []
    n_groups = int(groups.max()) + 1
    for name in truth.labels[LESION].classes:
        rows = coincidence.filter(lesion=name)
        if not rows.height:
            continue
        ids = np.array(rows["image_id"].to_list(), dtype=np.str_)
        of_rows = groups[order[np.searchsorted(truth.image_ids, ids, sorter=order)]]
        if len(np.unique(of_rows)) >= MIN_POSITIVE_GROUPS:
            lesions.append(name)
            sums.append(np.bincount(of_rows, rows["correlation"].to_numpy(), n_groups))
            counts.append(np.bincount(of_rows, minlength=n_groups).astype(np.float64))
    shape = (len(lesions), n_groups)
    return np.reshape(sums, shape), np.reshape(counts, shape), lesions


def _rankings(truth: Truth, predictions: Predictions, columns: Sequence[int], groups: NDArray[np.int64]) -> list[list[Ranking]]:
    """For each training seed one ranking per lesion."""
    labels, n_groups = truth.values[LESION], int(groups.max()) + 1
    matched = [check_matching(part, truth).scores[LESION] for part in predictions.by_seed().values()]
    return [[Ranking.of(scores[:, k], labels[:, k], groups, n_groups) for k in columns] for scores in matched]


def _average_precision(seeds: Sequence[Sequence[Ranking]], drawn: Counts) -> Floats:
    """(E, b) average precision, averaged over seeds."""
    by_seed = [[ranking.average_precision(drawn) for ranking in rankings] for rankings in seeds]
    return np.reshape(np.mean(by_seed, axis=0), (len(seeds[0]), drawn.shape[1]))


def _lesion(name: str, gain: float, gains: Floats, correlation: float) -> LesionCoincidenceGain:
    low, high, _ = percentile_interval(gains)
    return LesionCoincidenceGain(lesion=name, gain=gain, gain_low=_defined(low), gain_high=_defined(high), correlation=correlation)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
