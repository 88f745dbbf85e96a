"""The results of an evaluation as types: what `report.json` holds under `systems`, `comparisons`, `predilection`, `gains` and `folds`.

A number that is not defined is None (null in JSON), never NaN. Intervals are 95 % percentile intervals of a bootstrap over
groups, for `map_class` and `map_class_fold_mean` moved so that the mean of the resamples lies at the estimate (see
`intervals.percentile_interval`); `..._n_resamples_defined` says in how many resamples the number was defined. Below 10 groups
with a positive (for a headline number: with any) there is no interval and no p.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ClassBalance",
    "Comparison",
    "Evaluation",
    "FoldBalance",
    "LesionClassScores",
    "LesionGain",
    "LesionScores",
    "PredilectionGain",
    "PredilectionMap",
    "SeedScores",
    "SiteClassScores",
    "SiteScores",
    "SystemScores",
    "TruthSummary",
]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LesionClassScores(_Result):
    """One lesion: average precision, and how many photographs and groups it rests on.

    The interval is None below 10 positive groups. `machine_made` classes stay out of every mean unless
    `TruthSummary.machine_made_counted`.
    """

    ap: float | None
    ap_low: float | None
    ap_high: float | None
    n_positive: int
    n_positive_groups: int
    n_known: int
    machine_made: bool


class LesionScores(_Result):
    """The lesion task of one system, averaged over its seeds.

    `map_class` is Eq. 9 on the pooled out-of-fold scores, `map_image` Eq. 10; `map_class_fold_mean` averages AP over folds
    before classes and is None where no table of the evaluation has folds.
    """

    map_class: float | None
    map_class_low: float | None
    map_class_high: float | None
    map_class_n_resamples_defined: int
    map_image: float | None
    map_image_low: float | None
    map_image_high: float | None
    map_image_n_resamples_defined: int
    map_class_fold_mean: float | None
    map_class_fold_mean_low: float | None
    map_class_fold_mean_high: float | None
    map_class_fold_mean_n_resamples_defined: int
    n_classes_defined: int
    n_images_defined: int
    per_class: dict[str, LesionClassScores]


class SiteClassScores(_Result):
    """One body site: the share of its photographs that were given it first, and first to third."""

    top1: float | None
    top1_low: float | None
    top1_high: float | None
    top3: float | None
    n_images: int
    n_groups: int


class SiteScores(_Result):
    """The site task of one system, averaged over its seeds; `balanced_accuracy` is the mean of the sites' top-1."""

    top1: float | None
    top1_low: float | None
    top1_high: float | None
    top1_n_resamples_defined: int
    top3: float | None
    top3_low: float | None
    top3_high: float | None
    top3_n_resamples_defined: int
    balanced_accuracy: float | None
    balanced_accuracy_low: float | None
    balanced_accuracy_high: float | None
    balanced_accuracy_n_resamples_defined: int
    n_classes_defined: int
    n_images_defined: int
    per_class: dict[str, SiteClassScores]


class SeedScores(_Result):
    """The headline numbers of one training seed; None where the system does not predict the task."""

    map_class: float | None
    map_image: float | None
    map_class_fold_mean: float | None
    top1: float | None
    top3: float | None
    balanced_accuracy: float | None


class SystemScores(_Result):
    """All scores of one system; `seeds` is keyed by the seed as a string."""

    lesion: LesionScores | None
    site: SiteScores | None
    seeds: dict[str, SeedScores]


class Comparison(_Result):
    """A paired difference between two systems, `system_a` minus `system_b`, on the same resamples of groups.

    Attributes:
        system_a: The one with the larger name in the claim, such as ``mtl``.
        system_b: Its baseline, such as ``resnet``.
        task: ``"lesion"`` or ``"site"``.
        metric: A headline metric's name, or ``"ap"`` of one lesion.
        class_name: The lesion where `metric` is ``"ap"``, else None.
        difference: In the metric's units, averaged over seeds.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        n_resamples_defined: In how many of the interval's resamples both sides were defined.
        p: Two-sided, min(1, 2 (1 + min(#d<=0, #d>=0)) / (B + 1)); None below 10 positive groups and for machine-made lesions.
        p_holm: `p` corrected by Holm over the eligible lesions of this pair; None for headline metrics.
        fold_mean_difference: The same difference in the mean over folds, for `map_class` only. Where its sign differs from
            that of `difference`, no winner is claimed.
    """

    system_a: str
    system_b: str
    task: str
    metric: str
    class_name: str | None
    difference: float | None
    low: float | None
    high: float | None
    n_resamples_defined: int
    p: float | None
    p_holm: float | None
    fold_mean_difference: float | None


class PredilectionMap(_Result):
    """Which lesions are found where (Eq. 1), over photographs whose site is known.

    Attributes:
        lesions: Rows.
        sites: Columns.
        ratio: R_ij, the share of the photographs with lesion i that show site j; None in a row without photographs.
        lift: R_ij divided by the share of site j among all photographs with a known site and this lesion's label known.
        n_lesion: Photographs with lesion i present and the site known.
        n_site: Photographs of site j.
    """

    lesions: tuple[str, ...]
    sites: tuple[str, ...]
    ratio: tuple[tuple[float | None, ...], ...]
    lift: tuple[tuple[float | None, ...], ...]
    n_lesion: tuple[int, ...]
    n_site: tuple[int, ...]


class LesionGain(_Result):
    """What learning the body site too did for one lesion, beside how strongly the lesion prefers certain sites.

    Attributes:
        lesion: Its name.
        gain: AP of `PredilectionGain.system_a` minus that of `system_b`, averaged over seeds.
        gain_low: Lower end of the 95 % interval; None if undefined in every resample, as for the other ends.
        gain_high: Upper end of it.
        strength: Divergence of the lesion's sites from the base distribution, in bits, in excess of what chance alone brings to
            a lesion as rare (see `predilection.PredilectionStrength`); about 0 without predilection, and then often below.
        strength_low: Lower end of the 95 % interval, on the same resamples as the gain's.
        strength_high: Upper end of it.
        raw_divergence: The divergence before the correction, in bits, at least 0.
        n_positive_groups: Groups with a photograph that shows the lesion on a known site, at least 10.
        strong_without_gain: The lesion is like the paper's alopecia: `strength_low` is above 0, `strength` is at or above the
            median of the pair's lesions, and `gain` is not above 0. It is the estimate that is judged, as the paper does; the
            interval says how sure it is.
    """

    lesion: str
    gain: float
    gain_low: float | None
    gain_high: float | None
    strength: float
    strength_low: float | None
    strength_high: float | None
    raw_divergence: float
    n_positive_groups: int
    strong_without_gain: bool


class PredilectionGain(_Result):
    """Whether lesions with sites of predilection gain more when the body site is learned too, as the paper reads its Table 1.

    Attributes:
        system_a: The one that predicts lesions and sites, such as ``mtl``.
        system_b: Its baseline, which predicts lesions only, such as ``resnet``.
        lesions: In class order, those whose labels persons made and that at least 10 groups show on a known site.
        rank_correlation: Spearman's, between `gain` and `strength` over `lesions`; None below 4 lesions, and where all gains or
            all strengths are equal.
        rank_correlation_low: Lower end of the 95 % interval: the correlation within each resample of groups.
        rank_correlation_high: Upper end of it.
        n_resamples_defined: In how many of the interval's resamples the correlation was defined.
        n_permutations: Of sites over groups, behind each strength.
    """

    system_a: str
    system_b: str
    lesions: tuple[LesionGain, ...]
    rank_correlation: float | None
    rank_correlation_low: float | None
    rank_correlation_high: float | None
    n_resamples_defined: int
    n_permutations: int


class ClassBalance(_Result):
    """How often one class is present in each fold, in the order of `FoldBalance.folds`."""

    task: str
    name: str
    n_positive: tuple[int, ...]


class FoldBalance(_Result):
    """How photographs, groups and classes fall into the folds."""

    folds: tuple[int, ...]
    n_images: tuple[int, ...]
    n_groups: tuple[int, ...]
    classes: tuple[ClassBalance, ...]


class TruthSummary(_Result):
    """What was scored: how many photographs and groups, and how much is known of each task.

    `grouped` is False where the truth names no groups and each photograph counted as its own. `machine_made_counted` is True where
    the classes in `machine_made` were counted in the headline numbers, which only who asks for it gets.
    """

    n_images: int
    n_groups: int
    grouped: bool
    n_lesion_known: int
    n_site_known: int
    machine_made: tuple[str, ...]
    machine_made_counted: bool


class Evaluation(_Result):
    """Everything that is computed from a truth table and the predictions of one or more systems.

    `gains` has one entry for each compared pair whose first system predicts lesions and sites and whose second predicts lesions
    only, if any lesion is eligible.
    """

    truth: TruthSummary
    systems: dict[str, SystemScores]
    comparisons: Sequence[Comparison]
    predilection: PredilectionMap | None
    gains: tuple[PredilectionGain, ...] = ()
    folds: FoldBalance | None
    n_resamples: int
    n_resamples_p: int
    resampling_seed: int
