"""Evaluations made up for the tests of the report: plausible numbers, long names, and every kind of hole in them."""

from __future__ import annotations

import numpy as np
import polars as pl

from predilect.evaluation.scores import (
    ClassBalance,
    Comparison,
    Evaluation,
    FoldBalance,
    LesionClassScores,
    LesionGain,
    LesionScores,
    PredilectionGain,
    PredilectionMap,
    SeedScores,
    SiteClassScores,
    SiteScores,
    SystemScores,
    TruthSummary,
)

LESIONS = (
    "alopecia",
    "comedones",
    "crust",
    "cyst",
    "edema",
    "erosion/ulcer/atrophy",
    "erythema/erythroderm",
    "erythematosquamous plaque",
    "erythematous papule",
    "erythematous plaque",
    "excoriation",
    "hyperkeratosis",
    "hyperpigmented papule",
    "hyperpigmented plaque",
    "macule",
    "nodule",
    "oozing",
    "other papule",
    "pearly papule",
    "other plaque",
    "scar",
    "squames/scales",
    "telangiectasis",
    "tumour",
    "vesicular/pustular",
)
SITES = (
    "scalp",
    "face",
    "ear",
    "eyelids and periorbital",
    "nose",
    "lips and oral mucosa",
    "neck",
    "chest",
    "abdomen",
    "back",
    "buttocks",
    "genitals",
    "groin",
    "axilla",
    "upper arm",
    "elbow",
    "forearm",
    "hands",
    "thigh",
    "knee",
    "lower leg",
    "ankle",
    "feet",
)
MACHINE = ("pigmented (by a model)", "erythema (by a model)")
METRICS = ("map_class", "map_image", "map_class_fold_mean")
SITE_METRICS = ("top1", "top3", "balanced_accuracy")


def made_evaluation(
    n_lesions: int = 25,
    n_sites: int = 23,
    *,
    systems: tuple[str, ...] = ("resnet", "resnet-site", "mtl"),
    seeds: int = 2,
    folds: int = 5,
) -> Evaluation:
    """An evaluation of three systems; the last lesion but one has no AP, the last no interval, and two are machine-made."""
    rng = np.random.default_rng(17)
    lesions, sites = LESIONS[:n_lesions], SITES[:n_sites]
    n_positive = {name: int(n) for name, n in zip(lesions, np.sort(rng.lognormal(6, 1, n_lesions))[::-1], strict=True)}
    n_positive[lesions[-2]], n_positive[lesions[-1]] = 0, 7
    n_positive |= dict.fromkeys(MACHINE, 900)
    base = {name: float(rng.uniform(0.35, 0.85)) for name in n_positive}
    n_site = {name: int(n) for name, n in zip(sites, rng.integers(60, 2000, n_sites), strict=True)}
    site_base = {name: float(rng.uniform(0.3, 0.8)) for name in sites}
    keys = [str(seed) for seed in range(1, seeds + 1)]
    scored = {}
    for k, system in enumerate(systems):
        lesion = None if system.endswith("-site") else _lesion(base, n_positive, 0.02 * k, rng)
        site = _site(site_base, n_site, 0.015 * k, rng) if system.startswith("mtl") or system.endswith("-site") else None
        scored[system] = SystemScores(lesion=lesion, site=site, seeds={key: _seed(lesion, site, rng) for key in keys})
    comparisons: list[Comparison] = []
    if {"mtl", "resnet"} <= scored.keys():
        comparisons += _lesion_comparisons(scored, "mtl", "resnet", rng)
    if {"mtl", "resnet-site"} <= scored.keys():
        comparisons += [_compared(scored, "mtl", "resnet-site", "site", metric) for metric in SITE_METRICS]
    return Evaluation(
        truth=TruthSummary(
            n_images=21657,
            n_groups=9214,
            grouped=True,
            n_lesion_known=21657,
            n_site_known=sum(n_site.values()),
            machine_made=MACHINE,
            machine_made_counted=False,
        ),
        systems=scored,
        comparisons=comparisons,
        predilection=_predilection(lesions, sites, n_positive, n_site, rng),
        folds=_folds(n_positive, n_site, folds, rng),
        gains=tuple(
            made_gain("mtl", baseline, lesions[:-2])
            for baseline in ("resnet", "alexnet")
            if {"mtl", baseline} <= scored.keys() and lesions[:-2]
        ),
        n_resamples=1000,
        n_resamples_p=10000,
        resampling_seed=0,
    )


def made_gain(a: str, b: str, lesions: tuple[str, ...]) -> PredilectionGain:
    """Gains that grow a little with the strength; alopecia, the first lesion, has the strongest predilection and no gain."""
    rng = np.random.default_rng(3)
    n_groups = np.sort(rng.lognormal(5.5, 1, len(lesions)).astype(int) + 10)[::-1]
    strength = np.concatenate([[1.9], rng.gamma(1.2, 0.25, len(lesions) - 1) - 0.05])
    gain = 0.01 + 0.03 * strength + rng.normal(0, 0.02, len(lesions))
    gain[0] = -0.002
    items = []
    for k, name in enumerate(lesions):
        half, wide = 0.5 / np.sqrt(n_groups[k]), 1.8 / np.sqrt(n_groups[k])
        items.append(
            LesionGain(
                lesion=name,
                gain=gain[k],
                gain_low=gain[k] - half,
                gain_high=gain[k] + half,
                strength=strength[k],
                strength_low=strength[k] - wide,
                strength_high=strength[k] + wide,
                raw_divergence=max(0.0, strength[k]) + 0.1,
                n_positive_groups=int(n_groups[k]),
                strong_without_gain=bool(gain[k] <= 0 and strength[k] >= np.median(strength) and strength[k] > wide),
            )
        )
    return PredilectionGain(
        system_a=a,
        system_b=b,
        lesions=tuple(items),
        rank_correlation=0.31,
        rank_correlation_low=-0.12,
        rank_correlation_high=0.64,
        n_resamples_defined=1000,
        n_permutations=1000,
    )


def made_curves(
    systems: tuple[str, ...] = ("resnet", "resnet-site", "mtl"), *, seeds: int = 2, folds: int = 5, steps: int = 400
) -> pl.DataFrame:
    """Losses that fall with noise, validated every tenth line; each fold stops at another iteration."""
    rng = np.random.default_rng(5)
    parts = []
    for system in systems:
        for seed in range(1, seeds + 1):
            for fold in range(folds):
                n = int(steps * rng.uniform(0.7, 1.0))
                iteration = np.arange(1, n + 1) * 50
                decay = np.exp(-iteration / 6000)
                train = 0.25 + 1.4 * decay + rng.normal(0, 0.05, n)
                validation = 0.45 + 1.1 * decay + rng.normal(0, 0.02, n) + iteration * 4e-6
                parts.append(
                    pl.DataFrame(
                        {
                            "system": [system] * n,
                            "seed": [seed] * n,
                            "fold": [fold] * n,
                            "iteration": iteration,
                            "loss_train": train,
                            "loss_validation": pl.Series(validation).scatter(np.flatnonzero(np.arange(n) % 10 != 9), None),
                            "learning_rate": np.where(iteration < n * 30, 1e-3, 1e-4),
                        }
                    )
                )
    return pl.concat(parts)


def _lesion(base: dict[str, float], n_positive: dict[str, int], gain: float, rng: np.random.Generator) -> LesionScores:
    per_class = {}
    for name, value in base.items():
        n = n_positive[name]
        ap = None if n == 0 else float(np.clip(value + gain + rng.normal(0, 0.015), 0.02, 0.98))
        half = 0.6 / np.sqrt(max(n, 1))
        whole = ap is not None and n >= 10
        per_class[name] = LesionClassScores(
            ap=ap,
            ap_low=max(0.0, ap - half) if whole else None,
            ap_high=min(1.0, ap + half) if whole else None,
            n_positive=n,
            n_positive_groups=int(n * 0.6),
            n_known=20000,
            machine_made=name in MACHINE,
        )
    mean = float(np.mean([item.ap for item in per_class.values() if item.ap is not None and not item.machine_made]))
    return LesionScores(
        map_class=mean,
        map_class_low=mean - 0.011,
        map_class_high=mean + 0.012,
        map_class_n_resamples_defined=1000,
        map_image=mean + 0.06,
        map_image_low=mean + 0.052,
        map_image_high=mean + 0.067,
        map_image_n_resamples_defined=1000,
        map_class_fold_mean=mean + 0.004,
        map_class_fold_mean_low=mean - 0.007,
        map_class_fold_mean_high=mean + 0.016,
        map_class_fold_mean_n_resamples_defined=1000,
        n_classes_defined=len(base) - 3,
        n_images_defined=20119,
        per_class=per_class,
    )


def _site(base: dict[str, float], n_site: dict[str, int], gain: float, rng: np.random.Generator) -> SiteScores:
    per_class = {}
    for name, value in base.items():
        top1 = float(np.clip(value + gain + rng.normal(0, 0.02), 0.0, 1.0))
        half = 0.9 / np.sqrt(n_site[name])
        per_class[name] = SiteClassScores(
            top1=top1,
            top1_low=max(0.0, top1 - half),
            top1_high=min(1.0, top1 + half),
            top3=min(1.0, top1 + 0.2),
            n_images=n_site[name],
            n_groups=int(n_site[name] * 0.6),
        )
    balanced = float(np.mean([item.top1 for item in per_class.values() if item.top1 is not None]))
    return SiteScores(
        top1=balanced + 0.05,
        top1_low=balanced + 0.04,
        top1_high=balanced + 0.06,
        top1_n_resamples_defined=1000,
        top3=balanced + 0.25,
        top3_low=balanced + 0.24,
        top3_high=balanced + 0.26,
        top3_n_resamples_defined=1000,
        balanced_accuracy=balanced,
        balanced_accuracy_low=balanced - 0.014,
        balanced_accuracy_high=balanced + 0.015,
        balanced_accuracy_n_resamples_defined=1000,
        n_classes_defined=len(base),
        n_images_defined=sum(n_site.values()),
        per_class=per_class,
    )


def _seed(lesion: LesionScores | None, site: SiteScores | None, rng: np.random.Generator) -> SeedScores:
    def near(scores: LesionScores | SiteScores | None, metric: str) -> float | None:
        value = None if scores is None else getattr(scores, metric)
        return None if value is None else value + float(rng.normal(0, 0.004))

    return SeedScores(
        **{metric: near(lesion, metric) for metric in METRICS},
        **{metric: near(site, metric) for metric in SITE_METRICS},
    )


def _compared(
    scored: dict[str, SystemScores], a: str, b: str, task: str, metric: str, *, fold_mean: float | None = None
) -> Comparison:
    difference = getattr(getattr(scored[a], task), metric) - getattr(getattr(scored[b], task), metric)
    return Comparison(
        system_a=a,
        system_b=b,
        task=task,
        metric=metric,
        class_name=None,
        difference=difference,
        low=difference - 0.012,
        high=difference + 0.012,
        n_resamples_defined=1000,
        p=0.0006 if difference > 0.02 else 0.031,
        p_holm=None,
        fold_mean_difference=fold_mean,
    )


def _lesion_comparisons(scored: dict[str, SystemScores], a: str, b: str, rng: np.random.Generator) -> list[Comparison]:
    comparisons = [
        _compared(scored, a, b, "lesion", "map_class", fold_mean=0.03),
        _compared(scored, a, b, "lesion", "map_image"),
        _compared(scored, a, b, "lesion", "map_class_fold_mean"),
    ]
    theirs, ours = scored[b].lesion, scored[a].lesion
    assert ours is not None
    assert theirs is not None
    for name, item in ours.per_class.items():
        base = theirs.per_class[name]
        difference = None if item.ap is None or base.ap is None else item.ap - base.ap
        half = 0.45 / np.sqrt(max(item.n_positive, 1))
        whole = difference is not None and item.n_positive >= 10
        p = float(np.clip(np.exp(-abs(difference) / half * 3), 0.0002, 1.0)) if whole else None
        comparisons.append(
            Comparison(
                system_a=a,
                system_b=b,
                task="lesion",
                metric="ap",
                class_name=name,
                difference=difference,
                low=difference - half if whole else None,
                high=difference + half if whole else None,
                n_resamples_defined=1000 if whole else 0,
                p=p,
                p_holm=None if p is None or name in MACHINE else min(1.0, p * 20),
                fold_mean_difference=None,
            )
        )
    return comparisons


def _predilection(
    lesions: tuple[str, ...], sites: tuple[str, ...], n_positive: dict[str, int], n_site: dict[str, int], rng: np.random.Generator
) -> PredilectionMap:
    share = np.array(list(n_site.values())) / sum(n_site.values())
    weights = share * np.exp(rng.normal(0, 1.1, (len(lesions), len(sites))))
    weights[:, 0] *= np.where(np.array(lesions) == "alopecia", 40, 0.4)
    weights[2, :] = np.where(np.arange(len(sites)) == 4, 0.0, weights[2, :])
    ratio = weights / weights.sum(axis=1, keepdims=True)
    lift = ratio / share

    def rows(values: np.ndarray) -> tuple[tuple[float | None, ...], ...]:
        return tuple(
            tuple(None if n_positive[name] == 0 else float(x) for x in row) for name, row in zip(lesions, values, strict=True)
        )

    return PredilectionMap(
        lesions=lesions,
        sites=sites,
        ratio=rows(ratio),
        lift=rows(lift),
        n_lesion=tuple(n_positive[name] for name in lesions),
        n_site=tuple(n_site.values()),
    )


def _folds(n_positive: dict[str, int], n_site: dict[str, int], folds: int, rng: np.random.Generator) -> FoldBalance:
    def spread(task: str, counts: dict[str, int]) -> list[ClassBalance]:
        return [
            ClassBalance(task=task, name=name, n_positive=tuple(int(x) for x in rng.multinomial(n, [1 / folds] * folds)))
            for name, n in counts.items()
        ]

    return FoldBalance(
        folds=tuple(range(folds)),
        n_images=tuple(int(x) for x in rng.multinomial(21657, [1 / folds] * folds)),
        n_groups=tuple(int(x) for x in rng.multinomial(9214, [1 / folds] * folds)),
        classes=tuple(spread("lesion", n_positive) + spread("site", n_site)),
    )
