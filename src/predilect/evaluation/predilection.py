"""Sites of predilection: which lesions are found on which body sites (Eq. 1, Figure 1), and how strongly each prefers some."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from predilect.evaluation.intervals import Counts, count_by_group
from predilect.evaluation.metrics import Floats, ratio
from predilect.evaluation.scores import PredilectionMap
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth
from predilect.randomness import stream

__all__ = ["N_PERMUTATIONS", "PredilectionStrength", "permuted_sites", "predilection_map"]

N_PERMUTATIONS = 100
"""Of sites over groups. The mean of so many misses the true one by a tenth of the spread of a single permutation."""

_ENOUGH_ALIKE = 10  # groups of one size that exchange sites among themselves only


def predilection_map(truth: Truth) -> PredilectionMap:
    """Count lesions by site: R_ij = |N_i and M_j| / |N_i| (Eq. 1), and its lift over the site's base rate.

    Only photographs whose site is known are counted. The base rate of a site is taken, lesion by lesion, over the photographs
    where that lesion's label is known too, so that a source which never assessed the lesion does not distort the lift.

    Args:
        truth: With both tasks.

    Returns:
        P lesions by Q sites.

    Raises:
        ValueError: If the truth lacks a task.
    """
    _require_both_tasks(truth)
    lesions = truth.values[LESION]  # (N, P)
    sites = (truth.values[SITE] == 1).astype(np.float64)  # (N, Q), a row of zeros where the site is unknown
    both = (lesions == 1).T.astype(np.float64) @ sites  # (P, Q)
    assessed = (lesions >= 0).T.astype(np.float64) @ sites
    n_lesion = both.sum(axis=1)
    share = ratio(both, n_lesion[:, None])
    base = ratio(assessed, assessed.sum(axis=1, keepdims=True))
    return PredilectionMap(
        lesions=truth.labels[LESION].classes,
        sites=truth.labels[SITE].classes,
        ratio=_rows(share),
        lift=_rows(ratio(share, base)),
        n_lesion=tuple(int(n) for n in n_lesion),
        n_site=tuple(int(n) for n in sites.sum(axis=0)),
    )


@dataclass(frozen=True, eq=False, slots=True)
class PredilectionStrength:
    """How far the sites of each lesion diverge from the base distribution, corrected for rarity, in any resample of groups.

    The raw divergence is that of Kullback and Leibler (1951), sum_j p_j log2(p_j / q_j) in bits: p is the site distribution of
    the photographs that show the lesion on a known site, q that of all photographs with a known site and a known label of the
    lesion. It is the mean of log2(lift) over the lesion's photographs, so it sums up a row of `predilection_map`; and it is
    always finite, since the first photographs are among the second. The Jensen-Shannon divergence ends at 1 bit and would press
    together the strongest predilections, which are the ones to be told apart.

    A lesion on n photographs diverges by chance alone, by about (Q - 1) / (2 n ln 2) bits for Q sites (Miller 1955), and by more
    where they are of few groups. The strength is therefore the raw divergence minus its mean over permutations of the sites
    over the groups (`permuted_sites`), which leave in place which lesions a photograph shows. Without predilection it is 0 on
    average however rare the lesion. A rare lesion that is bound to few sites owes less to chance than is taken away: its
    strength errs on the low side.

    Sites are exchanged among all groups, whichever lesions were assessed there: where sources differ in their sites and in what
    they assessed, a lesion's null holds the sites of both, and its strength errs on the low side again.

    In a resample a group counts as often as it was drawn, at its own sites and at those it takes over. Groups drawn twice raise
    both divergences alike, so each resample is measured against a null of its own.

    Cost: K permutations of N photographs are counted once, as sparse matrices (8 bytes times K times the labels present on known
    sites). Each resample then takes as many additions as they have entries, and K x P x Q logarithms. A thousand resamples of
    20,000 photographs, 25 lesions, 23 sites and 100 permutations take a few seconds.

    Attributes:
        observed: The sites as they are.
        permuted: K times the sites of other groups.
    """

    observed: _SiteCounts
    permuted: tuple[_SiteCounts, ...]

    @classmethod
    def of(cls, truth: Truth, lesions: NDArray[np.int64], *, seed: int, n_permutations: int = N_PERMUTATIONS) -> Self:
        """Count the lesions by site, as they are and permuted.

        Nothing depends on the order of rows where the truth names groups.

        Args:
            truth: With both tasks.
            lesions: (E,) positions of the lesions to measure, among the truth's.
            seed: Of the permutations, which have streams of their own.
            n_permutations: K, at least 1.

        Raises:
            ValueError: If the truth lacks a task, no photograph has a known site, or there is nothing to measure or permute.
        """
        _require_both_tasks(truth)
        groups = truth.group_indices()
        n_groups = int(groups.max()) + 1
        rows = np.flatnonzero((truth.values[SITE] == 1).any(axis=1))
        if not (len(rows) and len(lesions) and n_permutations > 0):
            raise ValueError(f"found {len(rows)} known sites, {len(lesions)} lesions and {n_permutations} permutations")
        rows = rows[np.lexsort((truth.image_ids[rows], groups[rows]))]
        groups = groups[rows]
        sites = truth.values[SITE][rows].argmax(axis=1)
        labels = truth.values[LESION][rows][:, lesions]
        # Lesions that were left unassessed on the same photographs share a base distribution: it is all minus those.
        unassessed, base_of = np.unique(labels == -1, axis=1, return_inverse=True)
        counted = np.column_stack([labels == 1, np.ones(len(rows), dtype=np.bool_), unassessed])  # (n, E + 1 + U)
        photograph, line = np.nonzero(counted)
        n_sites = len(truth.labels[SITE])

        def count(sites: NDArray[np.int64]) -> _SiteCounts:
            cell = line * n_sites + sites[photograph]
            by_group = count_by_group(cell, groups[photograph], (counted.shape[1] * n_sites, n_groups))
            return _SiteCounts(by_group, n_sites, base_of)

        streams = (stream(seed, "sites over groups", k) for k in range(n_permutations))
        return cls(observed=count(sites), permuted=tuple(count(permuted_sites(sites, groups, random)) for random in streams))

    def raw(self, multiplicities: Counts) -> Floats:
        """The divergence in b resamples, uncorrected.

        Args:
            multiplicities: (G, b), how often each group was drawn.

        Returns:
            (E, b) bits, at least 0; NaN where no photograph of the lesion was drawn.
        """
        return self.observed.divergence(multiplicities)

    def corrected(self, multiplicities: Counts) -> Floats:
        """The strength of predilection in b resamples: the raw divergence minus its mean over the permutations.

        Args:
            multiplicities: (G, b), how often each group was drawn.

        Returns:
            (E, b) bits, negative where chance alone would have brought more; NaN where no photograph of the lesion was drawn.
        """
        with ThreadPoolExecutor() as pool:  # numpy and scipy let other threads run while they count
            by_chance = list(pool.map(lambda counts: counts.divergence(multiplicities), self.permuted))
        excess: Floats = self.raw(multiplicities) - np.mean(by_chance, axis=0)
        return excess


@dataclass(frozen=True, eq=False, slots=True)
class _SiteCounts:
    """Photographs of each group by line and site.

    Attributes:
        by_group: (L * Q, G) sparse, for L = E + 1 + U lines of Q sites: photographs with each lesion, all photographs, and those
            on which a set of lesions was not assessed.
        n_sites: Q.
        base_of: (E,) which of the U sets each lesion belongs to.
    """

    by_group: sparse.csr_array
    n_sites: int
    base_of: NDArray[np.int64]

    def divergence(self, multiplicities: Counts) -> Floats:
        counts = (self.by_group @ multiplicities).astype(np.float64)
        counts = counts.reshape(-1, self.n_sites, multiplicities.shape[1])  # (L, Q, b)
        n_lesions = len(self.base_of)
        present, base = counts[:n_lesions], counts[n_lesions] - counts[n_lesions + 1 :]
        n_present = present.sum(axis=1)  # (E, b)
        log_base = _log2(base) - _log2(base.sum(axis=1))[:, None]  # (U, Q, b)
        total = (present * (_log2(present) - log_base[self.base_of])).sum(axis=1)
        return (ratio(total, n_present) - _log2(n_present)).clip(min=0.0)  # rounding may bring equal ones just below 0


def permuted_sites(sites: NDArray[np.int64], groups: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Let groups exchange their sites: each takes over those of another, or by chance its own, with as many photographs.

    A group's sites stay together, since photographs of one person often show one site, and fall at random to the photographs of
    the group that takes them over. Where fewer than 10 groups have as many photographs, groups of 2 to 3, 4 to 7, 8 to 15 and so
    on exchange among each other: one that receives too few sites uses them in turn, one that receives too many leaves some. A
    group that is alone in its class keeps its sites, and so speaks for a predilection only within itself.

    Args:
        sites: (n,) site numbers of photographs, those of one group next to each other.
        groups: (n,) group numbers, ascending.
        random: Where the permutation comes from.

    Returns:
        (n,) site numbers.
    """
    _, start, size = np.unique(groups, return_index=True, return_counts=True)
    n_groups = len(size)
    kind = np.where(np.bincount(size)[size] >= _ENOUGH_ALIKE, size, -np.frexp(size)[1])  # a size, or minus a power of two
    giver = np.empty(n_groups, dtype=np.int64)
    giver[np.argsort(kind, kind="stable")] = np.lexsort((random.random(n_groups), kind))
    shuffled = sites[np.lexsort((random.random(len(sites)), groups))]
    place = np.arange(len(sites)) - np.repeat(start, size)  # of each photograph in its group
    giver_of = np.repeat(giver, size)
    return shuffled[start[giver_of] + place % size[giver_of]]


def _log2(counts: Floats) -> Floats:
    """Of whole numbers; 0 for 0, where the logarithm is multiplied by 0."""
    return np.log2(np.maximum(counts, 1.0))


def _require_both_tasks(truth: Truth) -> None:
    if LESION not in truth.labels or SITE not in truth.labels:
        raise ValueError(f"sites of predilection need labels of {LESION} and {SITE}, found {', '.join(truth.labels.names)}")


def _rows(values: NDArray[np.float64]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in values)
