"""How alike the photographs are that a network's embeddings put next to a query: scores and chance levels.

Each fold's own network embeds its queries and its training photographs; `ranked` orders these by distance, `score_queries` holds
the order against the labels, and `predilect.evaluation.retrieval_summary` sums up all folds, seeds and systems.

Who is judged: photographs of the query's own group never answer. A photograph is judged if all lesions that the query is known to
show are known of it, and else passed over as if it were not there: judging it where one of them is seen, but not where none is,
would count hits and leave out misses. It is relevant if it shows one of them. A query without a relevant photograph has no score.
Sites likewise. Classes whose labels a model made are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predilect.errors import InsightError
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats, ratio
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth

__all__ = ["MEASURES", "TOP", "QueryScores", "ranked", "score_queries"]

TOP = 5
"""Neighbours that are shown, as in the paper's Figure 3."""

MEASURES = ("lesion_precision_at_5", "lesion_map_at_r", "site_precision_at_5", "site_map_at_r", "ndcg_at_5", "ndcg")
"""Names of the measures, in the order of every axis; see `predilect.evaluation.retrieval_summary.RetrievalScores`."""

_CELLS_PER_BLOCK = 1_000_000  # pairs of query and photograph held at once: a dozen arrays of 8 bytes each


@dataclass(frozen=True, eq=False, slots=True)
class QueryScores:
    """What each query scored, with one system and seed.

    Attributes:
        rows: (Q,) of the truth, none twice.
        values: (6, Q) by `MEASURES`, in [0, 1]; NaN where the query has no relevant photograph.
        chance: (6, Q) the expectation of each under a random order.

    Raises:
        ValueError: If shapes disagree or a query stands there twice.
    """

    rows: NDArray[np.int64]
    values: Floats
    chance: Floats

    def __post_init__(self) -> None:
        shape = (len(MEASURES), len(self.rows))
        if self.values.shape != shape or self.chance.shape != shape:
            raise ValueError(f"scores must have the shape {shape}, found {self.values.shape} and {self.chance.shape}")
        if len(np.unique(self.rows)) != len(self.rows):
            raise ValueError("a query stands there twice")

    @classmethod
    def concatenate(cls, folds: Sequence[QueryScores]) -> QueryScores:
        """Put the folds of one cross-validation together, in the order of the truth.

        Raises:
            ValueError: If there is no fold, or a query is in two.
        """
        rows = np.concatenate([fold.rows for fold in folds])
        order = np.argsort(rows)
        values, chance = (np.concatenate(side, axis=1) for side in zip(*((f.values, f.chance) for f in folds), strict=True))
        return cls(rows[order], values[:, order], chance[:, order])


def ranked(queries: NDArray[np.float32], gallery: NDArray[np.float32], image_ids: NDArray[np.str_]) -> Iterator[NDArray[np.int64]]:
    """Order all photographs by their Euclidean distance to each query, as the paper does, some queries at a time.

    Distances are computed in float64 and compared at the precision of float32, so that equal embeddings tie; ties are ordered by
    image_id. Cost: Q x N x D multiplications and Q sorts of N; memory: N x D float64, and a million pairs at a time.
    7,000 queries among 14,000 photographs with 2,048 numbers are 2 x 10^11 multiplications, about a minute on two processor cores,
    and half a gigabyte; scoring them adds some ten seconds.

    Args:
        queries: (Q, D).
        gallery: (N, D).
        image_ids: (N,) unique, of the gallery.

    Yields:
        (b, N) positions in the gallery, nearest first, for the next b queries.

    Raises:
        InsightError: If an embedding is not finite.
        ValueError: If shapes disagree.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or len(gallery) != len(image_ids):
        raise ValueError(f"queries {queries.shape} do not fit a gallery {gallery.shape} with {len(image_ids)} ids")
    by_id = np.argsort(image_ids, kind="stable")
    _check_finite(queries, "query")
    _check_finite(gallery, "photograph")
    own, others = queries.astype(np.float64), gallery[by_id].astype(np.float64)
    squares = np.square(others).sum(axis=1)
    columns = np.arange(len(gallery), dtype=np.uint64)
    width = max(1, _CELLS_PER_BLOCK // len(gallery))
    for start in range(0, len(own), width):
        some = own[start : start + width]
        squared = np.square(some).sum(axis=1, keepdims=True) + squares - 2 * (some @ others.T)
        # The bits of floats that are not negative have the floats' order: one sort of whole numbers settles distance, then place.
        bits = np.maximum(squared, 0).astype(np.float32).view(np.uint32).astype(np.uint64)
        keys = np.sort((bits << np.uint64(32)) | columns, axis=1)
        yield by_id[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)]


def score_queries(
    truth: Truth, queries: NDArray[np.int64], gallery: NDArray[np.int64], order: Iterable[NDArray[np.int64]]
) -> QueryScores:
    """Hold the order in which photographs answer against the labels.

    Cost: a few passes and one sort over Q x N pairs, in the blocks that `order` comes in.

    Args:
        truth: What is known of each photograph.
        queries: (Q,) rows of it.
        gallery: (N,) rows of it, of the photographs that may answer.
        order: Blocks (b, N) of positions in `gallery`, each row a permutation, nearest first; Q rows in all, as from `ranked`.

    Raises:
        ValueError: If there are more or fewer rows, or one does not order the whole gallery.
    """
    groups = truth.group_indices()
    labels = {
        task.name: truth.values[task.name][:, counted_classes(task)] for task in truth.labels.tasks if counted_classes(task).any()
    }
    done, values, chance = 0, [np.empty((len(MEASURES), 0))], [np.empty((len(MEASURES), 0))]
    for block in order:
        some = queries[done : done + len(block)]
        if block.shape != (len(some), len(gallery)):
            raise ValueError(f"found an order of shape {block.shape} for {len(some)} queries and {len(gallery)} photographs")
        strangers = np.take_along_axis(groups[some][:, None] != groups[gallery], block, axis=1)
        lesion, site = (
            _scores(labels[task][some], labels[task][gallery], block, strangers)
            if task in labels
            else np.full((2, 4, len(some)), np.nan)
            for task in (LESION, SITE)
        )
        # Of the site a query shares all or nothing: its discounted gain says no more than the others.
        both = np.concatenate([lesion[:, :2], site[:, :2], lesion[:, 2:]], axis=1)
        values.append(both[0])
        chance.append(both[1])
        done += len(block)
    if done != len(queries):
        raise ValueError(f"found the order for {done} of {len(queries)} queries")
    return QueryScores(queries, np.concatenate(values, axis=1), np.concatenate(chance, axis=1))


def _check_finite(embeddings: NDArray[np.float32], of: str) -> None:
    for row in np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[:1]:
        raise InsightError(f"the embedding of {of} {row + 1} is not finite")


def _scores(queries: NDArray[np.int8], gallery: NDArray[np.int8], order: NDArray[np.int64], strangers: NDArray[np.bool_]) -> Floats:
    """Precision, MAP@R and both discounted gains, and their expectations under a random order.

    A random order of n photographs with R relevant ones puts one at rank i with probability R / n and another one before it at each
    rank with (R - 1) / (n - 1); so MAP@R is (H + (R - H) (R - 1) / (n - 1)) / n on average, with H = 1 + 1/2 + ... + 1/R.

    Args:
        queries: (b, C) of 1, 0 and -1.
        gallery: (N, C) likewise.
        order: (b, N) positions in the gallery, nearest first.
        strangers: (b, N) which of these are of other groups than the query.

    Returns:
        (2, 4, b); NaN where nothing is relevant.
    """
    wanted, present = (queries == 1).astype(np.float32), (gallery == 1).astype(np.float32).T
    known_union = wanted.sum(axis=1, keepdims=True) + (queries == 0).astype(np.float32) @ present
    unjudged = wanted @ (gallery == -1).astype(np.float32).T > 0
    judged = strangers & ~np.take_along_axis(unjudged, order, axis=1)
    jaccard = np.divide(wanted @ present, np.maximum(known_union, 1), dtype=np.float64)
    gain = np.where(judged, np.take_along_axis(jaccard, order, axis=1), 0.0)
    relevant = gain > 0
    n, n_relevant = judged.sum(axis=1), relevant.sum(axis=1)
    rank = np.cumsum(judged, axis=1)  # among those judged; from 1 where one was
    precision = np.cumsum(relevant, axis=1) / np.maximum(rank, 1)
    to_top = rank <= TOP
    discount = 1 / np.log2(np.arange(order.shape[1]) + 2)
    discounted = gain * discount[rank - 1]
    ideal = -np.sort(-gain, axis=1)
    best_top, best = ideal[:, :TOP] @ discount[:TOP], ideal @ discount
    harmonic = np.cumsum(1 / np.maximum(np.arange(len(discount) + 1), 1)) - 1
    expected_map = harmonic[n_relevant] + (n_relevant - harmonic[n_relevant]) * (n_relevant - 1) / np.maximum(n - 1, 1)
    discounts = np.concatenate([[0.0], np.cumsum(discount)])
    total = gain.sum(axis=1)
    n_top = np.minimum(n, TOP)
    values = (
        ((relevant & to_top).sum(axis=1), n_top),
        ((precision * (relevant & (rank <= n_relevant[:, None]))).sum(axis=1), n_relevant),
        ((discounted * to_top).sum(axis=1), best_top),
        (discounted.sum(axis=1), best),
    )
    chance = ((n_relevant, n), (expected_map, n), (total * discounts[n_top], n * best_top), (total * discounts[n], n * best))
    scored = np.array([[ratio(*pair) for pair in values], [ratio(*pair) for pair in chance]])
    scored[..., n_relevant == 0] = np.nan
    return scored
