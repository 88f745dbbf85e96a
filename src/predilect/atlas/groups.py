"""Which photographs belong together, and how such groups are dealt into parts that resemble each other.

Photographs of one person, of one lesion, or of nearly the same pixels are not independent: they stay on one side of every
split. Libraries stratify groups by one label or single rows by many; here groups are stratified by many labels at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from predilect.errors import SplitError

__all__ = ["clusters_joining", "connected_groups", "stratified_folds"]

_LINKS = ("patient_id", "lesion_id", "case_id")

# Costs are whole numbers in units of 1 / _SCALE of chi-square, so that ties are exact and splits the same on every machine.
_SCALE = 2**30
_BLOCK = 4096
_ATTEMPTS = 2**14
_PARTNERS = 32
_WORTHWHILE = 1e-6 * _SCALE  # above the rounding of the divisions by a share, so that the search ends
# A part without a class that it should have weighs more than any deviation that a sensible exchange could cause.
_MISSING = 2.0**30 * _SCALE


def connected_groups(photos: pl.DataFrame, near_duplicates: pl.DataFrame | None = None) -> NDArray[np.str_]:
    """Find the groups of photographs that must not be separated.

    Two photographs are linked if they share a patient, a lesion, a consultation (`case_id`: certainly one person) or a cluster
    of near-duplicates; groups are the connected components. Patient, lesion and case ids count within their `source` only;
    clusters link across sources. A null or empty id links nothing. Cost: linear in photographs and links.

    Args:
        photos: N rows with the columns `image_id`, `source`, `patient_id`, `lesion_id` and `case_id`.
        near_duplicates: Rows of `image_id` and `cluster`; a photograph may be in several clusters. None: not looked for.

    Returns:
        (N,) the name of each photograph's group: the smallest `image_id` in it, so that names do not depend on the order of
        the rows and tell nothing that the image ids do not.

    Raises:
        SplitError: If a near-duplicate is not a photograph of the table.
    """
    rows = photos.select("image_id", "source", *_LINKS).with_row_index("row")
    edges = [
        rows.filter(pl.col(key).is_not_null() & (pl.col(key) != "")).select("row", first=pl.col("row").first().over("source", key))
        for key in _LINKS
    ]
    if near_duplicates is not None:
        named = near_duplicates.select("image_id", "cluster").drop_nulls("cluster")
        found = named.join(rows, on="image_id", how="left", maintain_order="left")
        if found["row"].null_count():
            stranger = found.filter(pl.col("row").is_null())["image_id"][0]
            raise SplitError(
                f"the near-duplicates name image_id {stranger!r}, which is not among the photographs; audit them again"
            )
        edges.append(found.select("row", first=pl.col("row").first().over("cluster")))
    links = pl.concat(edges)
    ones = np.ones(links.height, dtype=np.int8)
    graph = coo_array((ones, (links["row"].to_numpy(), links["first"].to_numpy())), shape=(rows.height, rows.height))
    _, component = connected_components(graph.tocsr(), directed=False)
    smallest = rows.select(pl.col("image_id").min().over(pl.Series("component", component)))["image_id"]
    return np.array(smallest.to_list(), dtype=np.str_)


def clusters_joining(photos: pl.DataFrame, near_duplicates: pl.DataFrame) -> int:
    """Count the clusters of near-duplicates that join photographs which no id joins.

    Args:
        photos: As for `connected_groups`.
        near_duplicates: Rows of `image_id` and `cluster`; all of them in `photos`.
    """
    by_ids = photos.select("image_id", group=pl.Series(connected_groups(photos).tolist(), dtype=pl.String))
    spread = near_duplicates.drop_nulls("cluster").join(by_ids, on="image_id").group_by("cluster").agg(pl.col("group").n_unique())
    return int((spread["group"] > 1).sum())


def stratified_folds(
    labels: NDArray[np.int8], groups: NDArray[np.str_], proportions: Sequence[float], seed: int, *, note: str = ""
) -> NDArray[np.int64]:
    """Deal whole groups into parts that have the wanted share of the photographs, of each label and of what is known of it.

    Minimised is the chi-square sum over parts f and counts c (photographs; photographs with label l present; photographs with
    label l known) of (n_fc - p_f n_c)^2 / (p_f n_c), in which rare labels weigh as much as frequent ones. Groups are dealt one
    by one to the part where the sum grows least, those first that hold the most of what is rare (the idea of Sechidis et al.,
    "On the stratification of multi-label data", 2011, taken to groups). A bounded number of moves and exchanges then lowers
    the sum further and mends parts that lack a class they could have: where p_f times the number of groups with the class is
    at least 1, part f gets one of them, unless the labels are so entangled that the search finds no way.

    Cost: linear in photographs x labels + groups x labels x parts; the improvement takes constant time.

    Args:
        labels: (N, L) of 1 (present), 0 (absent) and -1 (unknown).
        groups: (N,) names of groups.
        proportions: (P,) wanted shares of the parts, each above 0, summing to 1.
        seed: Decides between equal groups; not negative.
        note: What the message of too few groups says behind the number of folds.

    Returns:
        (N,) part of each photograph, 0..P-1. It depends on the groups and their names, not on the order of the rows.

    Raises:
        SplitError: If there are fewer groups than parts, or a part would stay empty.
        ValueError: If shapes disagree or the proportions are not such.
    """
    shares = np.asarray(proportions, dtype=np.float64)
    if len(shares) == 0 or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"proportions must be above 0 and sum to 1; found {', '.join(f'{share:g}' for share in shares)}")
    if labels.ndim != 2 or groups.shape != labels.shape[:1]:
        raise ValueError(f"labels of shape {labels.shape} do not fit groups of shape {groups.shape}")
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < len(shares):
        raise SplitError(
            f"{len(shares)} folds{note} need at least {len(shares)} groups of photographs that share no patient, lesion, "
            f"consultation or copy; found {len(names)}: ask for fewer folds"
        )
    rng = np.random.default_rng(seed)
    deck = _shuffled_deck(_group_counts(labels, codes, len(names)), shares, rng)
    parts, totals = _deal(deck)
    _improve(deck, parts, totals, rng)
    if not totals[:, 0].all():
        share = shares[totals[:, 0] == 0][0]
        raise SplitError(
            f"a part with a share of {share:g} would hold no photograph: {len(names)} groups are too few for so small a share"
        )
    return parts[codes]


@dataclass(frozen=True, eq=False, slots=True)
class _Deck:
    """The groups to deal and what is wanted of the parts.

    Attributes:
        counts: (G, C) per group: photographs, then positives and known cells of each label.
        order: (G,) in which groups are dealt: first those that hold the most of what is rare, equal ones shuffled.
        weights: (C,) about _SCALE / the count's sum.
        shares: (P,) of the parts.
        needed: (P, C) how bad it is if the part has none of it: 0 or 1, and for photographs more than for all classes.
    """

    counts: NDArray[np.int32]
    order: NDArray[np.intp]
    weights: NDArray[np.int64]
    shares: NDArray[np.float64]
    needed: NDArray[np.int64]


def _group_counts(labels: NDArray[np.int8], codes: NDArray[np.intp], n_groups: int) -> NDArray[np.int32]:
    """(G, C) per group: photographs first, then positives and known cells per label; empty and repeated columns left out."""
    columns: dict[bytes, NDArray[np.int32]] = {}
    everything = np.ones(len(labels), dtype=np.bool_)
    for cells in (everything, *(cells for label in labels.T for cells in (label == 1, label >= 0))):
        column = np.bincount(codes[cells], minlength=n_groups).astype(np.int32)
        if column.any():
            columns.setdefault(hashlib.sha256(column.data).digest(), column)
    return np.stack(list(columns.values()), axis=1)


def _shuffled_deck(counts: NDArray[np.int32], shares: NDArray[np.float64], rng: np.random.Generator) -> _Deck:
    weights = np.maximum(1, _SCALE // counts.sum(axis=0, dtype=np.int64))
    burden = np.einsum("gc,gc,c->g", counts, counts, weights, dtype=np.int64)
    needed = (np.outer(shares, (counts > 0).sum(axis=0)) >= 1 - 1e-9).astype(np.int64)
    needed[:, 0] = counts.shape[1]
    return _Deck(counts, np.lexsort((rng.permutation(len(counts)), -burden)), weights, shares, needed)


def _deal(deck: _Deck) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put each group in turn where the chi-square sum grows least: (G,) parts, and (P, C) what they then hold."""
    parts = np.empty(len(deck.counts), dtype=np.int64)
    totals = np.zeros(deck.needed.shape, dtype=np.int64)
    for start in range(0, len(parts), _BLOCK):
        groups = deck.order[start : start + _BLOCK]
        block = deck.counts[groups].astype(np.int64)  # (B, C)
        weighted = block * deck.weights
        squares = (block * weighted).sum(axis=1)
        for group, row, weighted_row, square in zip(groups, block, weighted, squares, strict=True):
            # (n + x)^2 / p - n^2 / p; what is wanted cancels out, since every group goes somewhere.
            part = ((2 * (totals @ weighted_row) + square) / deck.shares).argmin()
            parts[group] = part
            totals[part] += row
    return parts, totals


def _improve(deck: _Deck, parts: NDArray[np.int64], totals: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Move groups to other parts, or exchange them with random partners, while that helps; changes `parts` and `totals`.

    Ends when a whole round over the groups bettered nothing, and after `_ATTEMPTS` groups at most: where there are more,
    dealing alone leaves deviations of a few photographs, and the groups that hold what is rare come first here too.
    """
    n_groups, n_parts = len(parts), len(totals)
    returned = np.zeros((n_parts + _PARTNERS, totals.shape[1]), dtype=np.int64)  # a mere move returns nothing
    since_change = 0
    for attempt in range(_ATTEMPTS):
        group = deck.order[attempt % n_groups]
        here = parts[group]
        partners = rng.integers(n_groups, size=_PARTNERS)
        returned[n_parts:] = deck.counts[partners]
        change = deck.counts[group] - returned  # (E, C)
        there = np.concatenate([np.arange(n_parts), parts[partners]])  # (E,)
        cost = _exchange_cost(deck, totals, change, here, there)
        best = int(cost.argmin())
        since_change += 1
        if cost[best] < -_WORTHWHILE:
            since_change = 0
            parts[group] = there[best]
            if best >= n_parts:
                parts[partners[best - n_parts]] = here
            totals[here] -= change[best]
            totals[there[best]] += change[best]
        if since_change == n_groups:
            break


def _exchange_cost(
    deck: _Deck, totals: NDArray[np.int64], change: NDArray[np.int64], here: np.int64, there: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(E,) by how much the sum and the penalty for missing classes grow if a row of `change` goes from `here` to `there`."""
    source, target = totals[here], totals[there]
    weighted = change * deck.weights
    square = (change * weighted).sum(axis=1)
    gained = (2 * (weighted * target).sum(axis=1) + square) / deck.shares[there]
    lost = (2 * (weighted @ source) - square) / deck.shares[here]
    missing_there = (deck.needed[there] * ((target + change == 0).astype(np.int64) - (target == 0))).sum(axis=1)
    missing_here = ((source == change).astype(np.int64) - (source == 0)) @ deck.needed[here]
    return np.where(there == here, 0.0, gained - lost + _MISSING * (missing_there + missing_here))
