"""What networks might show of themselves, made up for the tests of the report: beside `made_evaluation`, with its systems and lesions."""

from __future__ import annotations

import numpy as np

from made_evaluation import LESIONS
from predilect.evaluation.attention_scores import (
    AttentionEvaluation,
    Coincidence,
    CoincidenceGain,
    CurveComparison,
    HeadAttention,
    LesionCoincidence,
    LesionCoincidenceGain,
    MapCurves,
    MeanCurve,
    Perturbation,
    Randomisation,
    SystemAttention,
)
from predilect.evaluation.group_means import GroupMean, PairedDifference
from predilect.evaluation.insight import Insight, InsightCost
from predilect.evaluation.overlap import overlap_by_chance
from predilect.evaluation.retrieval import MEASURES
from predilect.evaluation.retrieval_summary import RetrievalComparison, RetrievalEvaluation, RetrievalMeasure, RetrievalScores

HEADS = {"resnet": ("lesion",), "resnet-site": ("site",), "mtl": ("lesion", "site")}
SHORTCUT, WITHOUT_INTERVAL = LESIONS[0], LESIONS[1]


def mean(value: float, half: float | None = 0.05, n: int = 100) -> GroupMean:
    ends = (None, None) if half is None else (value - half, value + half)
    return GroupMean(value=value, low=ends[0], high=ends[1], n_images=n, n_groups=9 if half is None else n - 5)


def made_curve(values: np.ndarray) -> MeanCurve:
    return MeanCurve(value=tuple(values.tolist()), low=tuple((values - 0.05).tolist()), high=tuple((values + 0.05).tolist()))


def made_insight(
    n_lesions: int = 12, systems: tuple[str, ...] = ("resnet", "resnet-site", "mtl"), *, checked: bool = True
) -> Insight:
    """Maps that are true but for the site's, whose middle is as good; alopecia is a shortcut, comedones have too few groups."""
    return Insight(
        command="predilect explain run atlas",
        weights={name: {"1": {"0": "0" * 64, "1": "1" * 64}} for name in systems},
        cost={name: InsightCost(seconds=12.5, images=4000) for name in systems},
        attention=AttentionEvaluation(
            systems={name: _system(HEADS[name], LESIONS[:n_lesions], checked=checked) for name in systems},
            unexplained={"alexnet": "the backbone AlexNet cannot be explained"},
            seeds=(1,),
            sample=100 if checked else 0,
            shortcut_correlation=0.8,
            shortcut_overlap=0.5,
            n_resamples=1000,
            n_resamples_p=10000,
            resampling_seed=0,
        ),
        retrieval=_retrieval(systems),
    )


def _system(tasks: tuple[str, ...], lesions: tuple[str, ...], *, checked: bool) -> SystemAttention:
    return SystemAttention(
        method="cam",
        cells=(4, 4),
        overlap_by_chance=overlap_by_chance(16),
        coincidence=_coincidence(lesions) if len(tasks) == 2 else None,
        heads={task: _head(task) for task in tasks if checked},
    )


def _coincidence(lesions: tuple[str, ...]) -> Coincidence:
    values = np.linspace(0.9, -0.7, len(lesions)).tolist()
    return Coincidence(
        correlation=mean(0.2),
        overlap=mean(0.3),
        lesions=tuple(
            LesionCoincidence(
                lesion=name,
                correlation=mean(value, None if name == WITHOUT_INTERVAL else 0.08),
                overlap=mean(max(0.02, 0.65 * value), None if name == WITHOUT_INTERVAL else 0.02),
                shortcut=name == SHORTCUT,
            )
            for name, value in zip(lesions, values, strict=True)
        ),
        gains=(
            CoincidenceGain(
                system_a="mtl",
                system_b="resnet",
                lesions=tuple(
                    LesionCoincidenceGain(
                        lesion=name,
                        gain=0.05 - 0.05 * value,
                        gain_low=-0.05 * value,
                        gain_high=0.1 - 0.05 * value,
                        correlation=value,
                    )
                    for name, value in zip(lesions, values, strict=True)
                    if name != WITHOUT_INTERVAL
                ),
                rank_correlation=-0.5,
                rank_correlation_low=-0.8,
                rank_correlation_high=-0.1,
                n_resamples_defined=1000,
            ),
        ),
    )


def _head(task: str) -> HeadAttention:
    shares = np.linspace(0, 1, 11)
    steep = {"map": 6.0, "random": 2.0, "gaussian": 6.0 if task == "site" else 4.0}
    falling = {kind: 0.2 + 0.5 * np.exp(-rate * shares) for kind, rate in steep.items()}
    maps = {
        kind: MapCurves(
            deletion=made_curve(curve),
            insertion=made_curve(0.9 - curve),
            deletion_area=mean(float(curve.mean())),
            insertion_area=mean(float(0.9 - curve.mean())),
        )
        for kind, curve in falling.items()
    }
    return HeadAttention(
        perturbation=Perturbation(
            shares=tuple(shares.tolist()),
            maps=maps,
            comparisons=tuple(
                CurveComparison(curve=curve, baseline=kind, difference=_difference(sign * (falling["map"] - falling[kind]).mean()))
                for curve, sign in (("deletion", 1), ("insertion", -1))
                for kind in ("random", "gaussian")
            ),
        ),
        randomisation=Randomisation(
            rank_correlation=mean(0.01), absolute=mean(0.31), unrelated=mean(0.1 if task == "site" else 0.3)
        ),
    )


def _difference(value: float) -> PairedDifference:
    return PairedDifference(
        difference=float(value), low=float(value) - 0.02, high=float(value) + 0.02, p=0.0002, n_images=100, n_groups=95
    )


def _retrieval(systems: tuple[str, ...]) -> RetrievalEvaluation:
    def measure(k: int, system: str) -> RetrievalMeasure:
        value = 0.4 + 0.05 * k + (0.1 if system == "mtl" and MEASURES[k].startswith("site") else 0.0)
        return RetrievalMeasure(
            value=value, low=value - 0.02, high=value + 0.02, n_resamples_defined=1000, chance=0.1 + 0.05 * k, n_queries=900,
            n_groups=400, seeds={"1": value},
        )  # fmt: skip

    scores = {name: RetrievalScores(**{field: measure(k, name) for k, field in enumerate(MEASURES)}) for name in systems}
    return RetrievalEvaluation(
        systems=scores,
        comparisons=[
            RetrievalComparison(
                system_a=later,
                system_b=first,
                measure=field,
                difference=(d := getattr(scores[later], field).value - getattr(scores[first], field).value),
                low=d - 0.02,
                high=d + 0.02,
                n_resamples_defined=1000,
                p=0.3 if abs(d) < 0.02 else 0.0002,
            )
            for i, later in enumerate(systems)
            for first in systems[:i]
            for field in MEASURES
        ],
        n_queries=900,
        n_groups=400,
        top=5,
        n_resamples=1000,
        n_resamples_p=10000,
        resampling_seed=0,
    )
