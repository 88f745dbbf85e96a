"""Which pairs of photographs are worth looking at: all pairs of fingerprints are compared, at a few machine instructions a pair.

Photographs that share a frame, such as a drape, a ruler or a printed name, are candidates of each other though they share nothing
else; with N of them that would be N^2 / 2 pairs to look at. So of one photograph the `MOST` nearest candidates are kept, and which
photographs have more is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.atlas.fingerprints import ORIENTATIONS, Fingerprints, oriented_coefficients

__all__ = ["COSINE", "MOST", "RADIUS", "Candidates", "differing_signs", "find_candidates"]

# Signs alone let through many pairs of strangers, and cosines alone take a product of each pair: the signs go first. What both let
# through of copies and of strangers, `scripts/test -m real tests/test_real_audit.py` prints.
RADIUS = 10
"""So many of the 64 signs of two candidates may differ."""

COSINE = 0.93
"""Between the coefficients of two candidates, at least."""

MOST = 100
"""Candidates of one photograph, each another one in some orientation, that are kept; of more, the nearest."""

_BLOCK = 1024  # photographs
_HELD = 1 << 24  # pairs that are compared at once
_PAIRS = 1 << 16
_DENSE = 1 / 32  # share of near pairs from which on it is faster to compute the cosines of all
_SAMPLE = 2048

_PAIR = {"first": pl.Int64(), "second": pl.Int64(), "orientation": pl.Int64()}

# Which orientation undoes each: the turns by a quarter undo each other, the others themselves.
_INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])


@dataclass(frozen=True, eq=False, slots=True)
class Candidates:
    """Pairs worth looking at, among N photographs.

    Attributes:
        pairs: One row per pair: `first` < `second`, and the `orientation` in which the first is to be laid. Sorted.
        crowded: (N,) True where a photograph has more candidates than were kept: any pair that was left out has such a photograph.
    """

    pairs: pl.DataFrame
    crowded: NDArray[np.bool_]


def find_candidates(prints: Fingerprints, *, most: int = MOST, on_progress: Callable[[int, int], None] | None = None) -> Candidates:
    """Compare each picture, whole, with a little cut off and in the other orientations, with every other whole one.

    A candidate of a photograph is another one, in an orientation, that is near to any of these. Of each photograph the `most`
    nearest by their cosine are kept, and a pair is kept if either photograph of it keeps it.

    Cost: 13 N^2 comparisons of 64 bits, and 13 N^2 cosines where most pairs are near. No more than `most` x N pairs are kept.

    Args:
        prints: Of N photographs.
        most: Candidates of one photograph that are kept.
        on_progress: Called with (photographs searched for, N) now and then.
    """
    n = len(prints.contrast)
    search = _Search.among(prints, most)
    kept = [pl.DataFrame(schema=_PAIR)]
    crowded = np.zeros(n, dtype=np.bool_)
    size = max(1, min(_BLOCK, _HELD // max(1, n)))
    for start in range(0, n, size):
        block = np.arange(start, min(start + size, n))
        parts = [search.near(block, part, 0) for part in range(prints.coefficients.shape[1])]
        parts += [search.near(block, 0, orientation) for orientation in range(1, len(ORIENTATIONS))]
        found = pl.concat(parts).group_by("asked", "other", "orientation").agg(pl.col("cosine").max())
        found = found.sort("asked", "cosine", "other", "orientation", descending=[False, True, False, False])
        place = pl.int_range(pl.len()).over("asked")
        crowded[found.filter(place == most)["asked"].to_numpy()] = True
        kept.append(_ordered(found.filter(place < most)))
        if on_progress is not None:
            on_progress(start + len(block), n)
    return Candidates(pl.concat(kept).unique().sort("first", "second", "orientation"), crowded)


def differing_signs(prints: Fingerprints, pairs: pl.DataFrame) -> NDArray[np.int64]:
    """(P,) in how many of 64 signs the candidates differ, at least: whole against whole, or part against whole where upright."""
    places = [pairs[column].to_numpy() for column in ("first", "second")]
    orientations = pairs["orientation"].to_numpy()
    least = np.full(pairs.height, 64, dtype=np.int64)
    for orientation in np.unique(orientations):
        rows = orientations == orientation
        first, second = (prints.coefficients[place[rows]] for place in places)  # (P, 6, 64)
        laid = oriented_coefficients(first, int(orientation)) > 0
        if orientation == 0:
            ways = [(laid != (second[:, :1] > 0)), ((second > 0) != laid[:, :1])]
        else:
            ways = [laid[:, :1] != (second[:, :1] > 0)]
        least[rows] = np.concatenate(ways, axis=1).sum(axis=2).min(axis=1, initial=64)
    return least


@dataclass(frozen=True, eq=False, slots=True)
class _Search:
    """Finds what is near, among N photographs.

    Attributes:
        prints: Their fingerprints.
        whole: (N, 64) coefficients of the whole pictures.
        index: Their signs.
        dense: Whether many pairs are near.
        most: See `find_candidates`.
    """

    prints: Fingerprints
    whole: NDArray[np.float32]
    index: faiss.IndexBinaryFlat
    dense: bool
    most: int

    @classmethod
    def among(cls, prints: Fingerprints, most: int) -> Self:
        whole = prints.coefficients[:, 0].astype(np.float32)
        index = faiss.IndexBinaryFlat(whole.shape[1])
        index.add(_signs(whole))
        sample = whole[:: max(1, len(whole) // _SAMPLE)]
        near = np.count_nonzero(sample @ sample.T >= COSINE) - len(sample)
        return cls(prints, whole, index, bool(near > _DENSE * len(sample) ** 2), most)

    def near(self, block: NDArray[np.int64], part: int, orientation: int) -> pl.DataFrame:
        """What a part of each photograph of the block, laid in some way, is near to; at least its `most` nearest."""
        asked = oriented_coefficients(self.prints.coefficients[block, part], orientation).astype(np.float32)
        place, other, cosine = self._by_cosines(asked) if self.dense else self._by_signs(asked)
        found = pl.DataFrame({"asked": block[place], "other": other, "cosine": cosine})
        return found.filter(pl.col("asked") != pl.col("other")).with_columns(orientation=pl.lit(orientation, dtype=pl.Int64))

    def _by_signs(self, asked: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """(P,) places in `asked` and in `whole` and the cosines of all that are near."""
        limits, _, other = self.index.range_search(_signs(asked), RADIUS + 1)  # it finds what is nearer than that
        place = np.repeat(np.arange(len(asked)), np.diff(limits).astype(np.int64))
        cosine = np.empty(len(place), dtype=np.float32)
        for start in range(0, len(place), _PAIRS):
            some = slice(start, start + _PAIRS)
            cosine[some] = np.einsum("pc,pc->p", asked[place[some]], self.whole[other[some]])
        near = cosine >= COSINE
        return place[near], other[near], cosine[near]

    def _by_cosines(self, asked: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The same; of each of `asked` the nearest only, two more than `most`: itself, and one that tells that there are more."""
        cosines = asked @ self.whole.T  # (B, N)
        ours, theirs = (_signs(each).view(np.uint64) for each in (asked, self.whole))
        cosines[np.bitwise_count(ours ^ theirs.T) > RADIUS] = -1
        least = np.full((len(asked), 1), COSINE, dtype=np.float32)
        if (surplus := cosines.shape[1] - self.most - 2) > 0:
            least = np.maximum(least, np.partition(cosines, surplus, axis=1)[:, surplus, None])
        place, other = np.nonzero(cosines >= least)
        return place, other, cosines[place, other]


def _signs(coefficients: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 8) 64 signs in bytes."""
    return np.ascontiguousarray(np.packbits(coefficients > 0, axis=1))


def _ordered(found: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the smaller place first, and the orientation of that one."""
    asked, other, orientation = (found[name].to_numpy() for name in ("asked", "other", "orientation"))
    swapped = asked > other
    return pl.DataFrame(
        {
            "first": np.where(swapped, other, asked),
            "second": np.where(swapped, asked, other),
            "orientation": np.where(swapped, _INVERSE[orientation], orientation),
        },
        schema=_PAIR,
    )
