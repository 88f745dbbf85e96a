"""The nearest of N vectors: exactly as float64 has it, or among the cells that lie nearest to the query.

faiss looks for candidates, and what it finds is ranked again in float64. For a query or a few it reads the vectors in one byte per
dimension, which a processor gets from memory four times as fast as float32. Whether that, or float32, can have missed one is not left
to chance: the error of either has a bound, and a query for which the candidates' margin is smaller is answered the longer way, from
bytes by float32, from float32 by float64 throughout.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from predilect.randomness import stream, stream_seed

__all__ = [
    "MARGIN",
    "MIN_VECTORS",
    "RECALL_AT",
    "Cells",
    "Exclusion",
    "Found",
    "Metric",
    "Space",
    "distances_to",
    "lengths",
    "make_cells",
]

Metric = Literal["euclidean", "cosine"]

Found = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Distances and positions, (Q, k) each, nearest first."""

MARGIN = 64
"""So many candidates more than are asked for are ranked again."""

RECALL_AT = 5
"""Recall is the share of so many exact neighbours that are found among as many."""

MIN_VECTORS = 2_000
"""So many vectors are enough to be divided among cells."""

_BLOCK = 1024  # vectors whose float64 differences are held at once
_MANY = 20  # queries from which on faiss multiplies matrices, which is faster than reading bytes for each of them
_TINY = float(np.finfo(np.float32).tiny)  # what a product may lose that is smaller
_FEW_VALUES = 2**23  # float32 of this many numbers are read in some milliseconds
_POINTS_PER_CELL = 64  # that k-means learns from; more move the cells little and take longer
_SAMPLED = 200  # vectors on which recall is measured

_faiss: Any = faiss  # its stubs know neither the Python constructors nor what the factory makes


@dataclass(frozen=True, eq=False, slots=True)
class Exclusion:
    """Which vectors may not answer which query.

    Attributes:
        codes: (N,) numbers of the vectors' groups.
        own: (Q,) the group whose vectors do not answer, -1 for none.
    """

    codes: NDArray[np.int64]
    own: NDArray[np.int64]

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q,) how many of some vectors do not answer each query."""
        size = np.bincount(self.codes[rows], minlength=int(self.codes.max()) + 1)
        return np.where(self.own >= 0, size[self.own], 0)


@dataclass(frozen=True, eq=False, slots=True)
class Cells:
    """N vectors divided among cells, of which a query visits only the nearest: an inverted file (Sivic and Zisserman 2003).

    Attributes:
        index: The inverted file, with vectors in one byte per dimension.
        metric: Of the space that it was made for.
        n_probed: Cells that a query visits.
        recall: Share of the exact `RECALL_AT` neighbours that were found, over a sample of the vectors.
    """

    index: Any
    metric: Metric
    n_probed: int
    recall: float

    def candidates(
        self, queries: NDArray[np.float32], n: int, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Squared distances, about, and positions of n vectors near each query, -1 where fewer are found, (Q, n) each."""
        chosen = np.zeros(self.index.ntotal, dtype=np.bool_)
        chosen[rows] = True
        selector = None if chosen.all() else _faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
        squared, found = self.index.search(queries, n, params=_faiss.SearchParametersIVF(nprobe=self.n_probed, sel=selector))
        return squared, found


@dataclass(frozen=True, eq=False, slots=True)
class Codes:
    """N vectors in one byte per dimension, between the least and the largest value there.

    Attributes:
        index: Of faiss.
        error: No vector lies farther than this from what its bytes are taken for.
    """

    index: Any
    error: float

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Codes:
        """Make them of (N, D) vectors; takes as long as some exact searches, and N x D bytes."""
        index = _faiss.IndexScalarQuantizer(vectors.shape[1], _faiss.ScalarQuantizer.QT_8bit)
        index.train(vectors)
        index.add(vectors)
        moved = np.empty(len(vectors), dtype=np.float32)
        for start in range(0, len(vectors), _BLOCK):
            some = slice(start, min(start + _BLOCK, len(vectors)))
            difference = vectors[some] - index.reconstruct_n(start, some.stop - start)
            moved[some] = np.einsum("nd,nd->n", difference, difference)
        low, high = vectors.min(axis=0).astype(np.float64), vectors.max(axis=0).astype(np.float64)
        # What stands for a byte is rounded where it is read, here and in the search, by some parts in 2^24 of the range; so are sums.
        rounding = 8 * 2.0**-24 * float(np.sqrt(np.square(np.abs(low) + (high - low)).sum()))
        farthest = float(moved.max()) * (1 + 2 * _rounding(vectors.shape[1])) + vectors.shape[1] * _TINY
        return cls(index, math.sqrt(farthest) + rounding)

    def candidates(
        self, queries: NDArray[np.float32], n: int, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Squared distances to what the bytes are taken for, and positions, of the n nearest by these, (Q, n) each."""
        chosen = np.zeros(self.index.ntotal, dtype=np.bool_)
        chosen[rows] = True
        selector = _faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
        squared, found = self.index.search(queries, n, params=_faiss.SearchParameters(sel=selector))
        return squared, found


@dataclass(frozen=True, eq=False, slots=True)
class Space:
    """N vectors under one metric.

    Attributes:
        vectors: (N, D) float32, finite; for cosine none of length 0.
        searched: (N, D) float32: the same; for cosine scaled to length 1, where Euclidean distances have the same order.
        tie_order: (N,) whole numbers; of vectors at the same distance the one with the smaller number comes first.
        metric: ``"euclidean"``, or ``"cosine"``: 1 minus the cosine of the angle.
        longest: Length of the longest of `searched`.
    """

    vectors: NDArray[np.float32]
    searched: NDArray[np.float32]
    tie_order: NDArray[np.int64]
    metric: Metric
    longest: float
    _made: list[Codes] = field(default_factory=list)  # what `_codes` made, once

    @classmethod
    def of(cls, vectors: NDArray[np.float32], tie_order: NDArray[np.int64], metric: Metric) -> Space:
        """Make ready to search; for cosine this copies the vectors once."""
        length = lengths(vectors)
        searched = vectors if metric == "euclidean" else _scaled(vectors, length)
        return cls(vectors, searched, tie_order, metric, float(length.max()) if metric == "euclidean" else 1.0)

    def _codes(self) -> Codes | None:
        """Of `searched`, made when they are first asked for, a quarter of its memory; None where float32 is read as soon."""
        if self.searched.size < _FEW_VALUES:
            return None
        if not self._made:
            self._made.append(Codes.of(self.searched))
        return self._made[0]

    def nearest(
        self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64], exclusion: Exclusion, cells: Cells | None = None
    ) -> Found:
        """The k nearest of each query, ranked in float64, ties by `tie_order`.

        Without cells the answer is that of a search in float64 throughout, however many vectors are equal. Cost: M x D
        multiplications a query, and D for each candidate. Where more than `MARGIN` vectors lie within the error of the bytes of the
        k-th, M x D in float32, of a copy of the M vectors where they are not all; where they lie within the rounding error of that,
        such as so many copies of one photograph, M x D in float64, about ten times as long.

        Args:
            queries: (Q, D), finite; for cosine none of length 0.
            k: From 1 to the number of vectors that may answer, for each query.
            rows: (M,) positions of the vectors to search, ascending.
            exclusion: Which of them do not answer.
            cells: Where to look for candidates; a query that finds fewer than k there is searched exactly. None: everywhere.
        """
        codes = self._codes() if cells is None and len(queries) < _MANY else None
        ways: list[Cells | Codes | None] = [cells] if cells is not None else [None] if codes is None else [codes, None]
        distances, positions = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
        unsure = np.arange(len(queries))
        for way in ways:
            if len(unsure):
                some = Exclusion(exclusion.codes, exclusion.own[unsure])
                distances[unsure], positions[unsure], sure = self._tried(way, queries[unsure], k, rows, some)
                unsure = unsure[~sure]
        for q in unsure:
            distances[q], positions[q] = self._ranked(queries[q], rows[exclusion.codes[rows] != exclusion.own[q]], k)
        return distances, positions

    def _tried(
        self, way: Cells | Codes | None, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64], exclusion: Exclusion
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
        """The k nearest among candidates found in one way (None: by float32), and of which queries they are the nearest of all.

        With cells these are the queries for which k were found.
        """
        asked = queries if self.metric == "euclidean" else _scaled(queries, lengths(queries))
        n = min(k + MARGIN + int(exclusion.counts(rows).max()), len(rows))
        squared, found = way.candidates(asked, n, rows) if isinstance(way, Cells) else self._shared_out(way, asked, n, rows)
        length, error = lengths(asked), way.error if isinstance(way, Codes) else 0.0
        distances, positions = np.zeros((len(queries), k)), np.zeros((len(queries), k), dtype=np.int64)
        sure = np.zeros(len(queries), dtype=np.bool_)
        for q, query in enumerate(queries):
            answering = found[q][(found[q] >= 0) & (exclusion.codes[found[q]] != exclusion.own[q])]
            distance, best = self._ranked(query, answering, k)
            if len(best) == k:
                all_seen = n == len(rows) and bool((found[q] >= 0).all())
                distances[q], positions[q] = distance, best
                sure[q] = isinstance(way, Cells) or all_seen or self._none_missed(distance[-1], squared[q, -1], length[q], error)
        return distances, positions, sure

    def _shared_out(
        self, codes: Codes | None, queries: NDArray[np.float32], n: int, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Squared distances and positions of the n nearest by codes, or by float32, -1 for distances that overflow.

        Fewer queries than threads share out the vectors among these.
        """
        n_parts = max(1, min(faiss.omp_get_max_threads() // len(queries), len(rows) // n))
        whole = len(rows) == len(self.searched)

        def search(part: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            if n_parts > 1:
                faiss.omp_set_num_threads(1)  # of this thread; a team of its own would only wait
            if codes is not None:
                return codes.candidates(queries, min(n, len(part)), part)
            vectors = self.searched[part[0] : part[-1] + 1] if whole else self.searched[part]
            squared, places = faiss.knn(queries, vectors, min(n, len(part)))
            return squared, np.where(places >= 0, part[places], -1)

        with ThreadPoolExecutor(n_parts, thread_name_prefix="nearest") as pool:
            squared, found = (
                np.concatenate(side, axis=1) for side in zip(*pool.map(search, np.array_split(rows, n_parts)), strict=True)
            )
        order = np.argsort(squared, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(squared, order, axis=1), np.take_along_axis(found, order, axis=1)

    def _none_missed(self, kth: float, beyond: float, length: float, error: float) -> bool:
        """Whether no vector that was put at a squared distance of `beyond` or more can be nearer than the k-th found.

        However the squared distance is expanded, the sizes of what is summed add up to at most the square of the two lengths together
        (see `_rounding`). Beyond that a vector may be nearer by as much as its bytes moved it, `error`.
        """
        rounding = _rounding(self.vectors.shape[1])
        largest = (length + self.longest + error) ** 2
        if not largest <= np.finfo(np.float32).max / 4:  # the products might overflow
            return False
        least = beyond - rounding * largest - self.vectors.shape[1] * _TINY
        return bool((kth if self.metric == "euclidean" else math.sqrt(2 * kth)) < math.sqrt(max(least, 0.0)) - error)

    def _ranked(self, query: NDArray[np.float32], positions: NDArray[np.int64], k: int) -> Found:
        """The k nearest among some vectors, or all of them if they are fewer."""
        distance = np.empty(len(positions))
        for start in range(0, len(positions), _BLOCK):
            some = slice(start, start + _BLOCK)
            distance[some] = distances_to(query, self.vectors[positions[some]], self.metric)
        order = np.lexsort((self.tie_order[positions], distance))[:k]
        return distance[order], positions[order]


def make_cells(space: Space, codes: NDArray[np.int64], *, recall: float, seed: int) -> Cells:
    """Divide the vectors among cells, and let queries visit as many cells as the wanted recall takes.

    Recall is measured against exact search on 200 of the vectors themselves, which those of their own group do not answer. Cost:
    k-means with 10 rounds over 64 vectors for each of sqrt(N) cells, N^1.5 x D multiplications to divide the vectors, and the
    searches. Memory: N x D bytes.

    Args:
        space: At least 2,000 vectors, so that k-means has enough of them.
        codes: (N,) numbers of the vectors' groups.
        recall: Wanted share, in (0, 1]; reached unless one byte per dimension is too coarse, which `Cells.recall` then shows.
        seed: Of k-means and of the sample.

    Raises:
        ValueError: If there are fewer vectors, or no group leaves `RECALL_AT` others.
    """
    n_vectors, n_dimensions = space.searched.shape
    if n_vectors < MIN_VECTORS:
        raise ValueError(f"cells need at least {MIN_VECTORS:,} vectors, found {n_vectors}")
    n_cells = math.isqrt(n_vectors)
    index = _faiss.index_factory(n_dimensions, f"IVF{n_cells},SQ8")
    index.cp.seed = stream_seed(seed, "cells") % 2**31
    index.cp.max_points_per_centroid = _POINTS_PER_CELL
    index.train(space.searched)
    index.add(space.searched)
    rows = np.arange(n_vectors)
    answered = rows[n_vectors - np.bincount(codes)[codes] >= RECALL_AT]
    if not len(answered):
        raise ValueError(f"recall cannot be measured: no group leaves {RECALL_AT} vectors of others")
    sample = stream(seed, "recall").permutation(answered)[:_SAMPLED]
    asked = space.vectors[sample], RECALL_AT, rows, Exclusion(codes, codes[sample])
    exact = space.nearest(*asked)[1]
    cells = Cells(index, space.metric, 0, 0.0)
    while cells.recall < recall and cells.n_probed < n_cells:
        cells = replace(cells, n_probed=min(max(1, 2 * cells.n_probed), n_cells))
        found = space.nearest(*asked, cells)[1]
        cells = replace(cells, recall=float((found[:, :, None] == exact[:, None]).any(axis=2).mean()))
    return cells


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) Euclidean lengths of (N, D) vectors."""
    starts = range(0, len(vectors), _BLOCK)
    parts = [_square_sums(vectors[start : start + _BLOCK].astype(np.float64)) for start in starts]
    return np.asarray(np.sqrt(np.concatenate(parts)))


def distances_to(query: NDArray[np.float32], vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """(N,) distances of (N, D) vectors to one (D,), in float64; equal vectors are at equal distances."""
    if metric == "euclidean":
        return np.asarray(np.sqrt(_square_sums(np.subtract(vectors, query, dtype=np.float64))))
    sizes = np.sqrt(_square_sums(vectors.astype(np.float64))) * np.sqrt(_square_sums(query[None].astype(np.float64)))
    return np.asarray(np.maximum(1 - np.multiply(vectors, query, dtype=np.float64).sum(axis=1) / sizes, 0.0))


def _rounding(n_dimensions: int) -> float:
    """A bound of what a float32 sum of D products errs by, as a share of the sum of their sizes; infinite for very large D.

    In whatever order they are added it is m u / (1 - m u), for m a little above D and u = 2^-24 (Higham, "Accuracy and Stability of
    Numerical Algorithms", section 3.1).
    """
    summed = (n_dimensions + 16) * 2.0**-24
    return summed / (1 - summed) if summed < 0.5 else math.inf


def _square_sums(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) squared lengths; the vectors are overwritten. Summed row by row, so that equal rows have equal sums to the last bit."""
    return np.asarray(np.square(vectors, out=vectors).sum(axis=1))


def _scaled(vectors: NDArray[np.float32], length: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled = np.empty_like(vectors)
    for start in range(0, len(vectors), _BLOCK):
        some = slice(start, start + _BLOCK)
        scaled[some] = vectors[some] / length[some, None]
    return scaled
