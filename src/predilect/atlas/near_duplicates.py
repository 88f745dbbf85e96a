"""Photographs that are copies of one another: encoded again, resized, cropped a little, brighter or darker, mirrored or turned.

Three steps. Files with the same bytes, or the same decoded pixels, are copies without a look; the first of them stands for all.
Among these, candidates are found in all pairs by their fingerprints (`predilect.atlas.candidates`). Each candidate is then
confirmed on its pixels (`predilect.atlas.alignment`).

Cost: decoding is linear in the N photographs. The search compares all pairs, so it grows with the square, but at a few machine
instructions a pair. A candidate takes about a millisecond. Where all photographs show the same kind of thing, one pair in many
thousands is one; where many share a frame, nearly every pair. So of each photograph the `predilect.atlas.candidates.MOST` nearest
candidates are looked at: no more than MOST x N pairs in all, and as many in memory, beside two kilobytes a photograph. Photographs
with more are named in the result. A copy that lacks nothing is among the nearest in any frame; one that was cropped may not be,
where the moved edges of the frame weigh more than the skin. `benchmarks/bench_audit.py` measures all of this.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from predilect.atlas.alignment import resemblance_at_half, resemblance_in_full
from predilect.atlas.candidates import differing_signs, find_candidates
from predilect.atlas.fingerprints import WORKERS, Fingerprints, Images, fingerprint, oriented, thumbnails

__all__ = ["FLAT", "METHOD", "PAIRS_SCHEMA", "RESEMBLANCE", "NearDuplicates", "duplicate_clusters", "find_near_duplicates"]

# `scripts/test -m real tests/test_real_audit.py` prints how far below it the most alike of the close-ups of MILK10k stay that are
# no copies.
RESEMBLANCE = 0.5
"""Of a confirmed pair, at least."""

METHOD = 3
"""Version of the whole search; raised whenever it finds other copies in the same photographs by the same limits."""

FLAT = 2.0
"""Grey levels; where the luminance varies less, the fingerprint is noise, and only equal pixels make a copy."""

PAIRS_SCHEMA = pl.Schema(
    {
        "first": pl.Int64(),
        "second": pl.Int64(),
        "kind": pl.String(),
        "distance": pl.Int64(),
        "resemblance": pl.Float64(),
        "orientation": pl.Int64(),
    }
)
"""Columns of a table of pairs; see `NearDuplicates`."""

_BATCH = 128


@dataclass(frozen=True, eq=False, slots=True)
class NearDuplicates:
    """What the search found.

    Attributes:
        pairs: One row per pair: `first` and `second` (rows, the smaller first), `kind` (``"file"``: the same bytes; ``"pixels"``:
            the same decoded pixels; ``"near"``), `distance` (see `predilect.atlas.candidates.differing_signs`; null where equality
            was enough, or all that was looked for), `resemblance` (in [-1, 1], likewise), `orientation` (place in
            `predilect.atlas.fingerprints.ORIENTATIONS`: how the first must be laid). Sorted.
        n_candidates: Pairs whose pixels were compared, in one orientation or several.
        crowded: (C,) rows, ascending: photographs with more than `predilect.atlas.candidates.MOST` candidates, of which only the
            nearest were compared; copies among the others are not in `pairs`. Empty: all candidates were compared.
    """

    pairs: pl.DataFrame
    n_candidates: int
    crowded: NDArray[np.int64]


def find_near_duplicates(
    images: Images, sha256: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None
) -> NearDuplicates:
    """Find the pairs of photographs that are copies of one another.

    Args:
        images: N encoded images, such as `PackedImages`.
        sha256: (N,) of their bytes; those of equal bytes, and those of equal pixels, are paired with the first of them only.
        on_progress: Called with (steps done, steps) now and then; each of the photographs of different bytes is three steps: its
            fingerprint, its search, and its part of the comparisons.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(images) != len(sha256):
        raise ValueError(f"{len(images)} images, but {len(sha256)} hashes")
    files = pl.DataFrame({"second": np.arange(len(sha256)), "sha256": pl.Series(sha256, dtype=pl.String)}).with_columns(
        first=pl.col("second").first().over("sha256")
    )
    rows = files.filter(pl.col("first") == pl.col("second"))["first"].to_numpy()
    fingerprinting, searching, comparing = (_third(k, len(rows), on_progress) for k in range(3))
    prints = fingerprint(images, rows, on_progress=fingerprinting)
    repeated = files.filter(pl.col("first") != pl.col("second")).select("first", "second", kind=pl.lit("file"))
    equal = _same_pixels(images, rows, prints)
    searched_for = (prints.contrast >= FLAT) & ~np.isin(rows, equal["second"].to_numpy())
    rows, prints = rows[searched_for], prints.take(np.flatnonzero(searched_for))
    candidates = find_candidates(prints, on_progress=searching)
    copies = _confirmed(images, rows, prints, candidates.pairs, comparing)
    copies = copies.with_columns(
        distance=pl.Series(differing_signs(prints, copies)), **{name: rows[copies[name].to_numpy()] for name in ("first", "second")}
    )
    found = pl.concat([pl.DataFrame(schema=PAIRS_SCHEMA), repeated, equal, copies], how="diagonal_relaxed")
    found = found.with_columns(pl.col("orientation").fill_null(0)).sort("resemblance", descending=True, nulls_last=True)
    pairs = found.unique(("first", "second"), keep="first").sort("first", "second")
    return NearDuplicates(pairs, candidates.pairs.select("first", "second").n_unique(), rows[candidates.crowded])


def duplicate_clusters(pairs: pl.DataFrame, image_ids: Sequence[str]) -> pl.DataFrame:
    """Join pairs into clusters: the connected components.

    Args:
        pairs: Rows with `first` and `second`, places in `image_ids`.
        image_ids: (N,) of all photographs.

    Returns:
        Rows of `image_id` and `cluster` for the photographs that have a copy, as `predilect.atlas.splits.make_splits` takes them.
        A cluster is named by the smallest `image_id` in it.
    """
    n = len(image_ids)
    graph = coo_array((np.ones(pairs.height, dtype=np.int8), (pairs["first"].to_numpy(), pairs["second"].to_numpy())), shape=(n, n))
    _, component = connected_components(graph.tocsr(), directed=False)
    table = pl.DataFrame({"image_id": pl.Series(image_ids, dtype=pl.String), "component": component})
    return (
        table.filter(pl.len().over("component") > 1)
        .with_columns(cluster=pl.col("image_id").min().over("component"))
        .select("image_id", "cluster")
        .sort("cluster", "image_id")
    )


def _third(number: int, n: int, on_progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
    """Tells of one of three parts of the work, each `n` of `3 n` steps, however it counts."""

    def tell(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(number * n + (n * done // total if total else n), 3 * n)

    return tell


def _confirmed(
    images: Images, rows: NDArray[np.int64], prints: Fingerprints, candidates: pl.DataFrame, tell: Callable[[int, int], None]
) -> pl.DataFrame:
    """Those candidates that are copies by their pixels, with `resemblance` and `kind`; what fails at half resolution is not decoded."""
    found = [np.zeros(0)]
    done = 0
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="confirm") as pool:
        for part in pool.map(partial(_resemblances, images, rows, prints), candidates.iter_slices(_BATCH)):
            found.append(part)
            done += len(part)
            tell(done, candidates.height)
    tell(candidates.height, candidates.height)
    resemblance = pl.Series(np.concatenate(found))
    kept = candidates.with_columns(resemblance=resemblance).filter(resemblance >= RESEMBLANCE)
    return kept.with_columns(kind=pl.lit("near"))


def _resemblances(images: Images, rows: NDArray[np.int64], prints: Fingerprints, batch: pl.DataFrame) -> NDArray[np.float64]:
    """(P,) what `resemblance` would be, or what at half resolution is too little already."""
    first, second, orientations = (batch[column].to_numpy() for column in ("first", "second", "orientation"))
    found, pose = resemblance_at_half(_laid(prints.small[first], orientations), prints.small[second])
    left = np.flatnonzero(found >= RESEMBLANCE)
    if len(left):
        needed, place = np.unique(np.stack([first[left], second[left]]), return_inverse=True)
        a, b = thumbnails(images, rows[needed])[place.reshape(2, -1)]
        found[left] = np.minimum(found[left], resemblance_in_full(_laid(a, orientations[left]), b, pose[left]))
    return found


def _laid(pictures: NDArray[np.uint8], orientations: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Each picture in its own orientation."""
    laid = pictures.copy()
    for orientation in np.unique(orientations):
        chosen = orientations == orientation
        laid[chosen] = oriented(pictures[chosen], int(orientation))
    return laid


def _same_pixels(images: Images, rows: NDArray[np.int64], prints: Fingerprints) -> pl.DataFrame:
    """Pair photographs with the first of equal pixels; only those are decoded in full that are equal at a small size."""
    small = pl.Series([picture.tobytes() for picture in prints.small], dtype=pl.Binary)
    first_of: dict[tuple[tuple[int, ...], bytes], int] = {}
    found = []
    for row in rows[small.is_duplicated().to_numpy()].tolist():
        pixels = _pixels(images[row])
        first = first_of.setdefault((pixels.shape, hashlib.sha256(pixels.tobytes()).digest()), row)
        if first != row:
            found.append((first, row, "pixels"))
    return pl.DataFrame(found, schema={name: PAIRS_SCHEMA[name] for name in ("first", "second", "kind")}, orient="row")


def _pixels(data: memoryview) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
