"""Retrieval scores of whole systems, with chance levels, intervals and paired differences.

What is scored stands in `predilect.evaluation.retrieval`.

Groups of queries are drawn with replacement, since photographs of one patient are not independent; the photographs that may answer
stay as they are. So the intervals cover the sampling of queries, not that of an atlas to answer from, nor training.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, bootstrap_p, percentile_interval, resample_groups
from predilect.evaluation.metrics import Floats, mean_defined, ratio
from predilect.evaluation.retrieval import MEASURES, TOP, QueryScores
from predilect.predictions import Truth

__all__ = ["RetrievalComparison", "RetrievalEvaluation", "RetrievalMeasure", "RetrievalScores", "evaluate_retrieval"]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RetrievalMeasure(_Result):
    """One measure of one system, over the queries that have a relevant photograph; None where there is none.

    Attributes:
        value: Mean over queries, averaged over seeds; in [0, 1].
        low: Lower end of the 95 % interval, a bootstrap over groups of queries; None below 10 groups.
        high: Upper end of it.
        n_resamples_defined: In how many resamples there was a query with a relevant photograph.
        chance: What photographs in random order score on average: the exact expectation for each query, averaged alike.
        n_queries: Queries with a relevant photograph.
        n_groups: Groups that they are of.
        seeds: `value` of each training seed, keyed by the seed as a string.
    """

    value: float | None
    low: float | None
    high: float | None
    n_resamples_defined: int
    chance: float | None
    n_queries: int
    n_groups: int
    seeds: dict[str, float | None]


class RetrievalScores(_Result):
    """All measures of one system.

    Attributes:
        lesion_precision_at_5: Of the first 5 photographs judged (all, if fewer), the share that shows a lesion of the query.
        lesion_map_at_r: MAP@R (Musgrave, Belongie and Lim, "A Metric Learning Reality Check", 2020): with R relevant photographs,
            the sum over the relevant ones among the first R of the precision up to each, divided by R.
        site_precision_at_5: As `lesion_precision_at_5`, of photographs of the query's site.
        site_map_at_r: As `lesion_map_at_r`.
        ndcg_at_5: Normalised discounted cumulative gain of the first 5 (Jarvelin and Kekalainen 2002; discount 1 / log2(rank + 1)).
            The gain is the Jaccard index of the two photographs' lesions, over the classes that are known of both.
        ndcg: The same over all photographs judged.
    """

    lesion_precision_at_5: RetrievalMeasure
    lesion_map_at_r: RetrievalMeasure
    site_precision_at_5: RetrievalMeasure
    site_map_at_r: RetrievalMeasure
    ndcg_at_5: RetrievalMeasure
    ndcg: RetrievalMeasure


class RetrievalComparison(_Result):
    """A paired difference between two systems, `system_a` minus `system_b`, on the same queries and resamples of their groups.

    Attributes:
        system_a: The one with the claim, such as ``mtl``.
        system_b: Its baseline, such as ``resnet``.
        measure: One of `MEASURES`.
        difference: Averaged over seeds.
        low: Lower end of the 95 % interval; None below 10 groups, as are `high` and `p`.
        high: Upper end of it.
        n_resamples_defined: In how many of the interval's resamples it was defined.
        p: Two-sided, see `intervals.bootstrap_p`.
    """

    system_a: str
    system_b: str
    measure: str
    difference: float | None
    low: float | None
    high: float | None
    n_resamples_defined: int
    p: float | None


class RetrievalEvaluation(_Result):
    """Everything that is computed from the query scores of one or more systems; `top` is how many neighbours are shown."""

    systems: dict[str, RetrievalScores]
    comparisons: Sequence[RetrievalComparison]
    n_queries: int
    n_groups: int
    top: int
    n_resamples: int
    n_resamples_p: int
    resampling_seed: int


def evaluate_retrieval(
    truth: Truth,
    systems: Mapping[str, Mapping[int, QueryScores]],
    *,
    n_resamples: int = 1_000,
    n_resamples_p: int = 10_000,
    seed: int = 0,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> RetrievalEvaluation:
    """Sum up the queries of each system, with intervals, and compare systems in pairs.

    Groups of queries are resampled, the same for all systems and seeds; what may answer stays as it is.

    Args:
        truth: What is known of each photograph.
        systems: Each system's scores by training seed, all of the same queries and galleries.
        n_resamples: For intervals, at least 1.
        n_resamples_p: For p, at least 1.
        seed: Of the resampling.
        pairs: (system, baseline) to compare; None: each system with every one given before it.

    Raises:
        ValueError: If there is no system or seed, a pair names an unknown one, queries or galleries differ, or a number of
            resamples is below 1.
    """
    if not systems or not all(systems.values()):
        raise ValueError("each system needs the scores of a seed, and there must be a system")
    if min(n_resamples, n_resamples_p) < 1:
        raise ValueError(f"the numbers of resamples are at least 1, found {n_resamples} and {n_resamples_p}")
    compared = list(pairs) if pairs is not None else [(later, first) for first, later in itertools.combinations(systems, 2)]
    for name in itertools.chain.from_iterable(compared):
        if name not in systems:
            raise ValueError(f"cannot compare {name!r}, the systems are {', '.join(systems)}")
    first = next(iter(next(iter(systems.values())).values()))
    for scores in itertools.chain.from_iterable(by_seed.values() for by_seed in systems.values()):
        same = np.array_equal(scores.rows, first.rows) and np.allclose(scores.chance, first.chance, equal_nan=True)
        if not same:
            raise ValueError("all systems and seeds must be scored on the same queries among the same photographs")
    groups = np.unique(truth.group_indices()[first.rows], return_inverse=True)[1]
    total = max(n_resamples, n_resamples_p) if compared else n_resamples
    summary = _Summary.of(systems, groups, total, (n_resamples, n_resamples_p), seed)
    return RetrievalEvaluation(
        systems={
            name: RetrievalScores(**{measure: summary.measure(name, k) for k, measure in enumerate(MEASURES)}) for name in systems
        },
        comparisons=[summary.comparison(a, b, k) for a, b in compared for k in range(len(MEASURES))],
        n_queries=len(first.rows),
        n_groups=int(groups.max()) + 1,
        top=TOP,
        n_resamples=n_resamples,
        n_resamples_p=n_resamples_p,
        resampling_seed=seed,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Summary:
    """What the results are made from.

    Attributes:
        seeds: By system and seed, (6,) means over queries.
        resamples: By system, (6, B) the means in each resample, averaged over seeds.
        chance: (6,).
        n_queries: (6,) with a relevant photograph.
        n_groups: (6,) that these are of.
        used: How many resamples make intervals, and how many p.
    """

    seeds: Mapping[str, Mapping[int, Floats]]
    resamples: Mapping[str, Floats]
    chance: Floats
    n_queries: NDArray[np.int64]
    n_groups: NDArray[np.int64]
    used: tuple[int, int]

    @classmethod
    def of(
        cls,
        systems: Mapping[str, Mapping[int, QueryScores]],
        groups: NDArray[np.int64],
        n_resamples: int,
        used: tuple[int, int],
        seed: int,
    ) -> _Summary:
        chance = next(iter(next(iter(systems.values())).values())).chance
        n_groups = int(groups.max()) + 1
        defined = ~np.isnan(chance)  # (6, Q), the same for all
        queries = np.stack([np.bincount(groups, row, n_groups) for row in defined])  # (6, G)
        sums = {}
        for name, by_seed in systems.items():
            mean = np.where(defined, np.mean([scores.values for scores in by_seed.values()], axis=0), 0.0)
            sums[name] = np.stack([np.bincount(groups, row, n_groups) for row in mean])
        blocks: dict[str, list[Floats]] = {name: [] for name in systems}
        for drawn in resample_groups(n_groups, n_resamples, seed):
            n_drawn = queries @ drawn
            for name, total in sums.items():
                blocks[name].append(ratio(total @ drawn, n_drawn))
        return cls(
            seeds={
                name: {seed: mean_defined(scores.values, axis=1) for seed, scores in by_seed.items()}
                for name, by_seed in systems.items()
            },
            resamples={name: np.concatenate(parts, axis=1) for name, parts in blocks.items()},
            chance=mean_defined(chance, axis=1),
            n_queries=defined.sum(axis=1),
            n_groups=(queries > 0).sum(axis=1),
            used=used,
        )

    def measure(self, system: str, k: int) -> RetrievalMeasure:
        low, high, n_defined = self._interval(self.resamples[system][k], k)
        return RetrievalMeasure(
            value=_defined(self._value(system, k)),
            low=low,
            high=high,
            n_resamples_defined=n_defined,
            chance=_defined(self.chance[k]),
            n_queries=int(self.n_queries[k]),
            n_groups=int(self.n_groups[k]),
            seeds={str(seed): _defined(means[k]) for seed, means in self.seeds[system].items()},
        )

    def comparison(self, system: str, baseline: str, k: int) -> RetrievalComparison:
        resamples = self.resamples[system][k] - self.resamples[baseline][k]
        low, high, n_defined = self._interval(resamples, k)
        tested = self.n_groups[k] >= MIN_POSITIVE_GROUPS
        return RetrievalComparison(
            system_a=system,
            system_b=baseline,
            measure=MEASURES[k],
            difference=_defined(self._value(system, k) - self._value(baseline, k)),
            low=low,
            high=high,
            n_resamples_defined=n_defined,
            p=_defined(bootstrap_p(resamples[: self.used[1]])) if tested else None,
        )

    def _value(self, system: str, k: int) -> float:
        return float(np.mean([means[k] for means in self.seeds[system].values()]))

    def _interval(self, resamples: Floats, k: int) -> tuple[float | None, float | None, int]:
        low, high, n_defined = percentile_interval(resamples[: self.used[0]])
        return (_defined(low), _defined(high), n_defined) if self.n_groups[k] >= MIN_POSITIVE_GROUPS else (None, None, n_defined)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
