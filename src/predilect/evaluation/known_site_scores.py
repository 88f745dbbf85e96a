"""What knowing the site brings, in numbers: every system with and without it, on the photographs whose site is known.

Average precision judges the order of photographs, log-loss and the Brier score the probabilities themselves. A given site may mend
the probabilities and leave the order, since the photographs of one site all move alike but for what the image told.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, bootstrap_p, holm, percentile_interval, resample_groups
from predilect.evaluation.known_site import BASELINES, STATES, ConditionedSystem, KnownSiteTables
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats, mean_defined, ratio
from predilect.evaluation.scores import Comparison, LesionScores
from predilect.evaluation.summaries import Support
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Predictions, Truth

__all__ = ["LOSSES", "KnownSite", "KnownSiteSystem", "Losses", "SiteEffects", "score_known_site"]

LOSSES = ("log_loss", "brier")

_CERTAIN = 2.0**-24  # a probability is at least so far from 0 and 1: nothing said in float32 costs more than 17 nats


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Losses(_Result):
    """How far probabilities are from what was seen; lower is better, and each is least on average for the true probability.

    Attributes:
        log_loss: Mean of -log of the probability given to what was seen, in nats.
        log_loss_low: Lower end of the 95 % interval, a bootstrap over groups; None below 10 groups with a positive.
        log_loss_high: Upper end of it.
        brier: Mean squared difference of probability and label (Brier 1950).
        brier_low: Lower end of its interval.
        brier_high: Upper end of it.
    """

    log_loss: float | None
    log_loss_low: float | None
    log_loss_high: float | None
    brier: float | None
    brier_low: float | None
    brier_high: float | None


class KnownSiteSystem(_Result):
    """One system, or one state of it, on photographs of known site.

    Attributes:
        lesion: Average precision, as of any system, but on these photographs alone.
        mean: Mean over the lesions that have a known positive and that people labelled.
        per_class: Of each lesion, over the photographs whose label of it is known.
    """

    lesion: LesionScores
    mean: Losses
    per_class: dict[str, Losses]


class SiteEffects(_Result):
    """What the site does to each lesion in one system: the mean over folds of what was fitted without them.

    Attributes:
        lesions: Rows.
        sites: Columns.
        theta: Log-odds, shrunk; how a lesion becomes more likely at a site than the image alone made it.
        site_system: Whose site head told what the image shows; None where the shares of the sites stood in for one.
        head_weights: How much of what that head tells counted as known, in the fit for each fold, ascending; from 0 to 1.
        spreads: The prior standard deviation of theta in each; 0 where the site was of no use.
        recalibrations: That of a and b - 1; where it is not 0 a second calibration came with the site, and `<name> recalibrated` has
            one, too.
    """

    lesions: tuple[str, ...]
    sites: tuple[str, ...]
    theta: tuple[tuple[float, ...], ...]
    site_system: str | None
    head_weights: tuple[float, ...]
    spreads: tuple[float, ...]
    recalibrations: tuple[float, ...]


class KnownSite(_Result):
    """Everything that is measured of systems that are told the site.

    Attributes:
        n_images: Photographs of known site.
        n_groups: Their groups.
        systems: For each system ``<name>``, ``<name> calibrated``, ``<name> recalibrated`` and ``<name>+site``; then
            `known_site.BASELINES`.
        comparisons: Paired, on the same resamples. `metric` is `map_class`, `map_image`, `ap` of one lesion, or one of `LOSSES`, of
            one lesion or, where `class_name` is None, their mean; of losses a negative difference speaks for `system_a`.
        effects: By system.
        n_resamples: Behind each interval.
        n_resamples_p: Behind each p.
        resampling_seed: Of both.
    """

    n_images: int
    n_groups: int
    systems: dict[str, KnownSiteSystem]
    comparisons: Sequence[Comparison]
    effects: dict[str, SiteEffects]
    n_resamples: int
    n_resamples_p: int
    resampling_seed: int


def score_known_site(
    tables: KnownSiteTables,
    *,
    n_resamples: int = 1_000,
    n_resamples_p: int = 10_000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> KnownSite:
    """Score systems with and without the site, and compare them in pairs.

    Compared are, for each system, the one with the site against itself as it was, against itself calibrated, against itself
    recalibrated, which lacks nothing but the site, and against ``prevalence+site``; each later system with the site against each
    earlier one with it; and the two baselines.

    Args:
        tables: What `condition_on_site` returned.
        n_resamples: For intervals, at least 1.
        n_resamples_p: For p, at least 1.
        seed: Of the resampling.
        on_progress: Called with the resamples of average precision done so far and all there are.

    Raises:
        TableError: If folds differ between tables.
        ValueError: If a number of resamples is below 1.
    """
    shown: dict[str, Predictions] = {}
    for name, system in tables.systems.items():
        states = system.plain, system.calibrated, system.recalibrated, system.conditioned
        shown |= {f"{name}{state}": table for state, table in zip(STATES, states, strict=True)}
    shown |= tables.baselines
    pairs = []
    for name in tables.systems:
        *others, with_site = (f"{name}{state}" for state in STATES)
        pairs += [(with_site, other) for other in (*others, BASELINES[1])]
    pairs += [(f"{later}+site", f"{first}+site") for first, later in itertools.combinations(tables.systems, 2)]
    pairs.append((BASELINES[1], BASELINES[0]))
    ranked = evaluate(
        tables.truth, shown, n_resamples=n_resamples, n_resamples_p=n_resamples_p, seed=seed, pairs=pairs, on_progress=on_progress
    )
    lost = _Lost.of(tables.truth, shown, max(n_resamples, n_resamples_p), seed)
    systems = {}
    for k, name in enumerate(shown):
        lesion = ranked.systems[name].lesion
        assert lesion is not None
        classes = tables.truth.labels[LESION].classes
        systems[name] = KnownSiteSystem(
            lesion=lesion,
            mean=lost.losses(k, None, n_resamples),
            per_class={item: lost.losses(k, place, n_resamples) for place, item in enumerate(classes)},
        )
    of_losses = [row for pair in pairs for row in lost.compare(pair, list(shown), n_resamples, n_resamples_p)]
    return KnownSite(
        n_images=ranked.truth.n_images,
        n_groups=ranked.truth.n_groups,
        systems=systems,
        comparisons=[*(row for row in ranked.comparisons if row.metric != "map_class_fold_mean"), *of_losses],
        effects={name: _effects(system, tables.truth) for name, system in tables.systems.items()},
        n_resamples=n_resamples,
        n_resamples_p=n_resamples_p,
        resampling_seed=seed,
    )


def _effects(system: ConditionedSystem, truth: Truth) -> SiteEffects:
    priors = [system.priors[fold] for fold in sorted(system.priors)]
    theta = np.mean([prior.theta for prior in priors], axis=0)
    return SiteEffects(
        lesions=truth.labels[LESION].classes,
        sites=truth.labels[SITE].classes,
        theta=tuple(tuple(row) for row in theta.tolist()),
        site_system=system.site_system,
        head_weights=tuple(prior.head_weight for prior in priors),
        spreads=tuple(prior.spread for prior in priors),
        recalibrations=tuple(prior.recalibration for prior in priors),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Lost:
    """The losses of J systems for L lesions, as they are and in B resamples; the mean over lesions stands after the last.

    Attributes:
        support: Of the lesions.
        point: (J, 2, L + 1), of `LOSSES`, averaged over seeds.
        resamples: (J, 2, L + 1, B).
    """

    support: Support
    point: Floats
    resamples: Floats

    @classmethod
    def of(cls, truth: Truth, shown: Mapping[str, Predictions], n_resamples: int, seed: int) -> _Lost:
        labels, groups = truth.values[LESION], truth.group_indices()
        n_groups, n_lesions = int(groups.max()) + 1, labels.shape[1]
        cells = groups[:, None] * n_lesions + np.arange(n_lesions)

        def by_group(values: Floats) -> Floats:
            """(N, L) summed over the photographs of each group: (L, G)."""
            sums = np.bincount(cells.ravel(), values.ravel(), n_groups * n_lesions)
            return np.ascontiguousarray(sums.reshape(n_groups, n_lesions).T)

        lost = np.stack([by_group(loss) for table in shown.values() for loss in _losses(table, labels)])  # (2 J, L, G)
        lost = lost.reshape(len(shown), len(LOSSES), n_lesions, n_groups)
        known = by_group((labels >= 0).astype(np.float64))
        counted = counted_classes(truth.labels[LESION])
        averaged = counted & (labels == 1).any(axis=0)

        def means(multiplicities: Floats) -> Floats:
            per_class = ratio(lost @ multiplicities, known @ multiplicities)
            return np.concatenate([per_class, mean_defined(per_class[:, :, averaged], axis=2)[:, :, None]], axis=2)

        blocks = [means(drawn.astype(np.float64)) for drawn in resample_groups(n_groups, n_resamples, seed)]
        support = Support.of(truth.labels[LESION], labels, groups, counted)
        return cls(support, means(np.ones((n_groups, 1)))[..., 0], np.concatenate(blocks, axis=-1))

    def losses(self, system: int, lesion: int | None, n_resamples: int) -> Losses:
        place = (system, slice(None), -1 if lesion is None else lesion)
        numbers: dict[str, float | None] = {}
        for name, point, drawn in zip(LOSSES, self.point[place], self.resamples[place], strict=True):
            low, high, _ = self._interval(drawn[:n_resamples], lesion)
            numbers |= {name: _defined(point), f"{name}_low": low, f"{name}_high": high}
        return Losses(**numbers)

    def compare(self, pair: tuple[str, str], names: Sequence[str], n_resamples: int, n_resamples_p: int) -> list[Comparison]:
        a, b = (names.index(name) for name in pair)
        points, drawn = self.point[a] - self.point[b], self.resamples[a] - self.resamples[b]

        def row(k: int, lesion: int | None) -> Comparison:
            place = (k, -1 if lesion is None else lesion)
            low, high, n_defined = self._interval(drawn[place][:n_resamples], lesion)
            tested = low is not None and (lesion is None or bool(self.support.counted[lesion]))
            return Comparison(
                system_a=pair[0],
                system_b=pair[1],
                task=LESION,
                metric=LOSSES[k],
                class_name=None if lesion is None else self.support.task.classes[lesion],
                difference=_defined(points[place]),
                low=low,
                high=high,
                n_resamples_defined=n_defined,
                p=_defined(bootstrap_p(drawn[place][:n_resamples_p])) if tested else None,
                p_holm=None,
                fold_mean_difference=None,
            )

        rows = []
        for k in range(len(LOSSES)):
            of_lesions = [row(k, lesion) for lesion in range(len(self.support.task))]
            corrected = iter(holm([item.p for item in of_lesions if item.p is not None]))
            rows.append(row(k, None))
            rows += [item if item.p is None else item.model_copy(update={"p_holm": next(corrected)}) for item in of_lesions]
        return rows

    def _interval(self, drawn: Floats, lesion: int | None) -> tuple[float | None, float | None, int]:
        low, high, n_defined = percentile_interval(drawn)
        n_groups = self.support.n_groups if lesion is None else int(self.support.n_positive_groups[lesion])
        return (None, None, n_defined) if n_groups < MIN_POSITIVE_GROUPS else (_defined(low), _defined(high), n_defined)


def _losses(table: Predictions, labels: NDArray[np.int8]) -> tuple[Floats, Floats]:
    """(N, L) log-losses and squared differences, averaged over seeds; 0 where the label is unknown."""
    seeds = [part.scores[LESION].astype(np.float64) for part in table.by_seed().values()]
    present = labels == 1
    log_loss = np.mean([-np.log(np.clip(np.where(present, p, 1 - p), _CERTAIN, 1.0)) for p in seeds], axis=0)
    squared = np.mean([(p - present) ** 2 for p in seeds], axis=0)
    return np.where(labels >= 0, log_loss, 0.0), np.where(labels >= 0, squared, 0.0)


def _defined(value: float | np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
