"""Which pairs of photographs are worth looking at: all pairs of fingerprints are compared, at a few machine instructions a pair."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.atlas.fingerprints import ORIENTATIONS, Fingerprints, oriented_coefficients

__all__ = ["COSINE", "RADIUS", "differing_signs", "find_candidates"]

# Measured on 4,240 close-ups of skin, 300 of them saved again at quality 30 to 75, halved, brightened and cropped by 2 to 8 %: the
# two limits let through 98 to 100 % of the copies and one in 14,000 of the other pairs; signs alone would let through one in 600.
RADIUS = 10
"""So many of the 64 signs of two candidates may differ."""

COSINE = 0.93
"""Between the coefficients of two candidates, at least."""

_BLOCK = 1024  # photographs; were all of them alike, so many times all would be held at once
_PAIRS = 1 << 16

# Which orientation undoes each: the turns by a quarter undo each other, the others themselves.
_INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])


def find_candidates(prints: Fingerprints) -> Iterator[tuple[pl.DataFrame, int]]:
    """Compare each picture, whole, with a little cut off and in the other orientations, with every other whole one.

    Cost: 13 N^2 comparisons of 64 bits.

    Args:
        prints: Of N photographs.

    Yields:
        For a block of photographs after the other, the pairs with them that were not met before (`first` < `second`, and the
        `orientation` in which the first is to be laid; sorted), and how many photographs have been searched for.
    """
    bits = np.packbits(prints.coefficients[:, 0] > 0, axis=-1)
    index = faiss.IndexBinaryFlat(8 * bits.shape[1])
    index.add(bits)
    met = np.zeros(0, dtype=np.int64)
    for start in range(0, len(bits), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(bits)))
        found = [_near(prints, index, block, part, 0) for part in range(prints.coefficients.shape[1])]
        found += [_near(prints, index, block, 0, orientation) for orientation in range(1, len(ORIENTATIONS))]
        pairs = pl.concat(found).unique().sort("first", "second", "orientation")
        keys = ((pairs["first"] * len(bits) + pairs["second"]) * len(ORIENTATIONS) + pairs["orientation"]).to_numpy()
        fresh = ~np.isin(keys, met)
        met = np.concatenate([met, keys[fresh]])
        yield pairs.filter(fresh), start + len(block)


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


def _near(
    prints: Fingerprints, index: faiss.IndexBinaryFlat, block: NDArray[np.int64], part: int, orientation: int
) -> pl.DataFrame:
    """The pairs in which one part of a photograph of the block, laid in some way, is near another whole one."""
    asked = oriented_coefficients(prints.coefficients[block, part], orientation)
    limits, _, second = index.range_search(np.packbits(asked > 0, axis=1), RADIUS + 1)  # it finds what is nearer than that
    place = np.repeat(np.arange(len(block)), np.diff(limits).astype(np.int64))
    near = np.zeros(len(place), dtype=np.bool_)
    for start in range(0, len(place), _PAIRS):
        some = slice(start, start + _PAIRS)
        pairs = asked[place[some]].astype(np.float32), prints.coefficients[second[some], 0].astype(np.float32)
        near[some] = np.einsum("pc,pc->p", *pairs) >= COSINE
    near &= block[place] != second
    first, second = block[place[near]], second[near]
    swapped = first > second
    return pl.DataFrame(
        {
            "first": np.where(swapped, second, first),
            "second": np.where(swapped, first, second),
            "orientation": np.where(swapped, _INVERSE[orientation], orientation),
        }
    )
