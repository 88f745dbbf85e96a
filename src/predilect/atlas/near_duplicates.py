"""Photographs that are copies of one another: encoded again, resized, cropped a little, brighter or darker, mirrored or turned.

Three steps. Files with the same bytes, or the same decoded pixels, are copies without a look; the first of them stands for all. Among
these, candidates are found in all pairs by their fingerprints (`predilect.atlas.candidates`). Each candidate is then
confirmed on its pixels (`predilect.atlas.alignment`).

Cost: decoding is linear in the N photographs. The search compares all pairs, so it grows with the square, but at a few machine
instructions a pair. Where all photographs show the same kind of thing, one pair in 14,000 is a candidate and takes about a
millisecond. Memory: two kilobytes a photograph. But k copies of one photograph whose pixels differ, such as k encodings, are
k (k - 1) / 2 pairs, each of which is looked at and listed: 1,000 take minutes, half a gigabyte, and 100 MB of `audit.json`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

__all__ = ["FLAT", "METHOD", "PAIRS_SCHEMA", "RESEMBLANCE", "confirm", "duplicate_clusters", "find_near_duplicates"]

# Without frames the candidates among 4,240 close-ups of skin that are no copies came up to 0.40 before parts were compared, too, and are
# lower since. With a black, white or coloured frame or a ruler on 30 of either kind of photograph, all pairs came up to 0.12.
RESEMBLANCE = 0.5
"""Of a confirmed pair, at least."""

METHOD = 2
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
"""Columns of a table of pairs; see `find_near_duplicates`."""

_BATCH = 128


def find_near_duplicates(
    images: Images, sha256: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None
) -> pl.DataFrame:
    """Find the pairs of photographs that are copies of one another.

    Args:
        images: N encoded images, such as `PackedImages`.
        sha256: (N,) of their bytes; those of equal bytes, and those of equal pixels, are paired with the first of them only.
        on_progress: Called with (steps done, steps) now and then; each photograph is two steps.

    Returns:
        One row per pair: `first` and `second` (rows, the smaller first), `kind` (``"file"``: the same bytes; ``"pixels"``: the same
        decoded pixels; ``"near"``), `distance` (see `predilect.atlas.candidates.differing_signs`; null where equality was enough, or
        all that was looked for), `resemblance` (in [-1, 1], likewise), `orientation` (place in
        `predilect.atlas.fingerprints.ORIENTATIONS`: how the first must be laid). Sorted.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(images) != len(sha256):
        raise ValueError(f"{len(images)} images, but {len(sha256)} hashes")
    tell = on_progress or _silently
    files = pl.DataFrame({"second": np.arange(len(sha256)), "sha256": pl.Series(sha256, dtype=pl.String)}).with_columns(
        first=pl.col("second").first().over("sha256")
    )
    rows = files.filter(pl.col("first") == pl.col("second"))["first"].to_numpy()
    steps = 2 * len(rows)
    prints = fingerprint(images, rows, on_progress=lambda done, _: tell(done, steps))
    repeated = files.filter(pl.col("first") != pl.col("second")).select("first", "second", kind=pl.lit("file"))
    equal = _same_pixels(images, rows, prints)
    parts = [repeated, equal]
    searched_for = (prints.contrast >= FLAT) & ~np.isin(rows, equal["second"].to_numpy())
    left_out = int((~searched_for).sum())
    rows, prints = rows[searched_for], prints.take(np.flatnonzero(searched_for))
    for candidates, searched in find_candidates(prints):
        copies = confirm(images, rows, prints, candidates)
        copies = copies.with_columns(distance=pl.Series(differing_signs(prints, copies)))
        parts.append(copies.with_columns(first=pl.Series(rows[copies["first"]]), second=pl.Series(rows[copies["second"]])))
        tell(steps // 2 + left_out + searched, steps)
    tell(steps, steps)
    found = pl.concat([pl.DataFrame(schema=PAIRS_SCHEMA), *parts], how="diagonal_relaxed")
    found = found.with_columns(pl.col("orientation").fill_null(0)).sort("resemblance", descending=True, nulls_last=True)
    return found.unique(("first", "second"), keep="first").sort("first", "second")


def confirm(images: Images, rows: NDArray[np.int64], prints: Fingerprints, candidates: pl.DataFrame) -> pl.DataFrame:
    """Keep those candidates that are copies by their pixels; only what passes at half resolution is decoded again.

    Args:
        images: Encoded images.
        rows: (M,) which of them the candidates are about.
        prints: Their fingerprints.
        candidates: `first` and `second`, places in `rows`, and `orientation`, as from `find_candidates`.

    Returns:
        Some rows of `candidates`, with `resemblance` and `kind` (``"near"``).
    """
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="confirm") as pool:
        looks = list(pool.map(partial(_resemblances, images, rows, prints), candidates.iter_slices(_BATCH)))
    resembling = np.concatenate([np.zeros(0), *looks])
    kept = candidates.with_columns(resemblance=pl.Series(resembling)).filter(resembling >= RESEMBLANCE)
    return kept.with_columns(kind=pl.lit("near"))


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


def _silently(_done: int, _total: int) -> None:
    """Tell nobody."""


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
