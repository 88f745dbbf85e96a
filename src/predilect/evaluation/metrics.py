"""Metrics of ranked lesions and of the body site, as functions of plain arrays.

Labels are int8: 1 present, 0 absent, -1 unknown. An unknown cell is not ranked. A number without anything to rest on is NaN
here; the result types in `scores` hold None in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Floats",
    "average_precision",
    "balanced_accuracy",
    "fold_mean_average_precision",
    "image_average_precision",
    "map_class",
    "map_image",
    "mean_defined",
    "ratio",
    "site_rank",
    "site_recall",
    "top_k",
]

Floats = NDArray[np.float64]


def average_precision(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Average precision of each class over the photographs whose label of that class is known (Eq. 9, inner sum).

    The sum over distinct scores t of (R_t - R_t+1) P_t, as `sklearn.metrics.average_precision_score` has it: equal scores
    are one threshold, whatever their order.

    Args:
        scores: (N, C), higher is more confident; any monotone scale.
        labels: (N, C) of 1, 0 or -1.
        weights: (N,) whole numbers >= 0, how often each photograph counts; None: once each.

    Returns:
        (C,) in [0, 1]; NaN where no positive is known.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        Ranked, the positives stand first and third: AP = (1/1 + 2/3) / 2. The second class has no known positive.

        >>> scores = [[0.9, 0.9], [0.8, 0.2], [0.7, 0.3]]
        >>> labels = [[1, 0], [0, -1], [1, 0]]
        >>> average_precision(scores, labels).round(4).tolist()
        [0.8333, nan]
    """
    ranked, known = _scores_and_labels(scores, labels)
    counts = np.ones(len(ranked), dtype=np.int64) if weights is None else _multiplicities(weights, len(ranked))
    columns = zip(ranked.T, known.T, strict=True)
    return np.array([_average_precision(column, label, counts) for column, label in columns], dtype=np.float64)


def map_class(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean over the classes with a known positive of their average precision (Eq. 9).

    Args:
        scores: (N, C).
        labels: (N, C) of 1, 0 or -1.
        weights: (N,) whole numbers >= 0, or None.

    Returns:
        In [0, 1]; NaN if no class has a known positive.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        >>> round(map_class([[0.9, 0.9], [0.8, 0.2], [0.7, 0.3]], [[1, 0], [0, -1], [1, 1]]), 4)
        0.6667
    """
    return float(mean_defined(average_precision(scores, labels, weights)))


def image_average_precision(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Average precision of each photograph over its classes whose label is known (Eq. 10, inner sum).

    Args:
        scores: (N, C), comparable between classes.
        labels: (N, C) of 1, 0 or -1.

    Returns:
        (N,) in [0, 1]; NaN where a photograph has no known positive.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        >>> image_average_precision([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3]], [[1, 0, 1], [0, 0, 0]]).round(4).tolist()
        [0.8333, nan]
    """
    ranked, known = _scores_and_labels(scores, labels)
    total = np.zeros(len(ranked))
    n_positive = np.zeros(len(ranked), dtype=np.int64)
    # AP is the mean over the positives of the precision at each one's own score: one pass per class over its positives only.
    for k in range(ranked.shape[1]):
        rows = np.flatnonzero(known[:, k] == 1)
        above = ranked[rows] >= ranked[rows, k, None]  # (n, C)
        labels_here = known[rows]
        hits = (above & (labels_here == 1)).sum(axis=1)
        total[rows] += hits / (above & (labels_here >= 0)).sum(axis=1)
        n_positive[rows] += 1
    return ratio(total, n_positive)


def map_image(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the photographs with a known positive of their average precision over classes (Eq. 10).

    Args:
        scores: (N, C), comparable between classes.
        labels: (N, C) of 1, 0 or -1.

    Returns:
        In [0, 1]; NaN if no photograph has a known positive.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.
    """
    return float(mean_defined(image_average_precision(scores, labels)))


def fold_mean_average_precision(scores: ArrayLike, labels: ArrayLike, folds: ArrayLike) -> float:
    """Mean average precision with folds kept apart: per class the mean over folds, then the mean over classes.

    A fold without a known positive of a class does not count for that class.

    Args:
        scores: (N, C).
        labels: (N, C) of 1, 0 or -1.
        folds: (N,) the fold in which each photograph was held out.

    Returns:
        In [0, 1]; NaN if no class has a known positive.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        >>> fold_mean_average_precision([[0.4], [0.6], [0.9], [0.1]], [[1], [0], [1], [0]], [0, 0, 1, 1])
        0.75
    """
    ranked, known = _scores_and_labels(scores, labels)
    fold_of = np.asarray(folds)
    if fold_of.shape != (len(ranked),):
        raise ValueError(f"folds have shape {fold_of.shape}, not {(len(ranked),)}")
    by_fold = np.array([average_precision(ranked[fold_of == fold], known[fold_of == fold]) for fold in np.unique(fold_of)])
    return float(mean_defined(mean_defined(by_fold, axis=0)))


def site_rank(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Rank of the true site among all sites; a tie counts against, so that equal scores for all sites win nothing.

    Args:
        scores: (N, S).
        labels: (N, S), each row one-hot or wholly -1.

    Returns:
        (N,) how many sites score at least as much as the true one, from 1 to S; 0 where the site is unknown.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        >>> site_rank([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]], [[0, 1, 0], [1, 0, 0], [-1, -1, -1]]).tolist()
        [2, 2, 0]
    """
    ranked, known = _scores_and_labels(scores, labels)
    rows, columns = np.nonzero(known == 1)
    if len(np.unique(rows)) != len(rows):
        raise ValueError("a photograph has more than one site")
    rank = np.zeros(len(ranked), dtype=np.int64)
    rank[rows] = (ranked[rows] >= ranked[rows, columns, None]).sum(axis=1)
    return rank


def top_k(scores: ArrayLike, labels: ArrayLike, k: int) -> float:
    """Share of the photographs with a known site whose true site ranks k-th or better (Figure 4); a tie counts against.

    Args:
        scores: (N, S).
        labels: (N, S), each row one-hot or wholly -1.
        k: At least 1.

    Returns:
        In [0, 1]; NaN if no site is known.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        >>> top_k([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]], [[1, 0, 0], [1, 0, 0]], k=1)
        0.5
    """
    rank = site_rank(scores, labels)
    known = rank > 0
    return float(mean_defined(np.where(known, rank <= k, np.nan)))


def site_recall(scores: ArrayLike, labels: ArrayLike, k: int) -> Floats:
    """Per site, the share of its photographs whose true site ranks k-th or better; a tie counts against.

    Args:
        scores: (N, S).
        labels: (N, S), each row one-hot or wholly -1.
        k: At least 1.

    Returns:
        (S,) in [0, 1]; NaN for a site without photographs.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.
    """
    hit = site_rank(scores, labels) <= k
    true = np.asarray(labels) == 1  # (N, S)
    return ratio((true & hit[:, None]).sum(axis=0), true.sum(axis=0))


def balanced_accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the sites with photographs of the share of them that is given that site first; a tie counts against.

    Args:
        scores: (N, S).
        labels: (N, S), each row one-hot or wholly -1.

    Returns:
        In [0, 1]; NaN if no site is known.

    Raises:
        ValueError: If shapes disagree or a value is not allowed.

    Examples:
        >>> balanced_accuracy([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], [[1, 0], [1, 0], [0, 1]])
        0.5
    """
    return float(mean_defined(site_recall(scores, labels, k=1)))


def mean_defined(values: Sequence[float] | NDArray[Any], axis: int | None = None) -> Floats:
    """Mean of the numbers that are not NaN; NaN where there is none.

    Examples:
        >>> mean_defined([0.5, float("nan"), 1.0]).item()
        0.75
    """
    array = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(array)
    return ratio(np.where(defined, array, 0.0).sum(axis=axis), defined.sum(axis=axis))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Quotient of two arrays that broadcast; NaN where the denominator is 0.

    Examples:
        >>> ratio([1, 0], [4, 0]).tolist()
        [0.25, nan]
    """
    above, below = np.broadcast_arrays(numerator, denominator)
    result = np.full(above.shape, np.nan)
    np.divide(above, below, out=result, where=below != 0, dtype=np.float64)
    return result


def _average_precision(scores: NDArray[Any], labels: NDArray[np.int8], weights: NDArray[np.int64]) -> float:
    ranked = np.flatnonzero((labels >= 0) & (weights > 0))
    ranked = ranked[np.argsort(-scores[ranked], kind="stable")]
    if not (labels[ranked] == 1).any():
        return float("nan")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[ranked]) != 0, True))
    above = np.cumsum(weights[ranked])[last_of_tie]
    hits = np.cumsum(weights[ranked] * labels[ranked])[last_of_tie]
    return float((np.diff(hits, prepend=0) * hits / above).sum() / hits[-1])


def _scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int8]]:
    ranked = np.asarray(scores)
    known = np.asarray(labels)
    if ranked.ndim != 2 or ranked.shape != known.shape:
        raise ValueError(f"scores have shape {ranked.shape} and labels {known.shape}; both must be (N, C)")
    if not np.isfinite(ranked).all():
        raise ValueError("a score is not finite")
    if ((known != 1) & (known != 0) & (known != -1)).any():
        raise ValueError("labels are 1, 0 or -1")
    return ranked, known.astype(np.int8, copy=False)


def _multiplicities(weights: ArrayLike, n: int) -> NDArray[np.int64]:
    counts = np.asarray(weights)
    if counts.shape != (n,) or (counts < 0).any() or (counts != np.floor(counts)).any():
        raise ValueError(f"weights are {n} whole numbers from 0 up")
    return counts.astype(np.int64)
