"""Calibration as rows for the page, and as plain frames for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from predilect.evaluation.calibration_scores import CalibrationEvaluation, MeanReliability, Number, Reliability
from predilect.labels.tasks import LESION, SITE
from predilect.report.calibration_wording import calibration_method
from predilect.report.wording import Estimate, many

__all__ = ["CALIBRATION_TABLES", "CalibrationRow", "SetRow", "calibration_frames", "calibration_rows", "set_rows"]

CALIBRATION_TABLES = ("calibration", "reliability", "decisions", "sets")
"""File stems of the frames."""

_SIDES = ("before", "after")


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """A lesion, the mean over lesions, or the site.

    Attributes:
        name: Of the class, whole; or what the mean is over.
        method: How it is calibrated in a bundle, and where it was not for the report; empty for the mean.
        n_groups: Positive groups; None for the mean.
        machine_made: The labels were made by a model.
        ece: Calibration error before, after, and the change.
        ece_by_chance: After calibration, what the error would be on average were the probabilities right; None for the mean.
        brier: Brier score before, after, and the change.
        base_rate_brier: The Brier score of saying the base rate; None for the mean.
    """

    name: str
    method: str
    n_groups: int | None
    machine_made: bool
    ece: tuple[Estimate, Estimate, Estimate]
    ece_by_chance: float | None
    brier: tuple[Estimate, Estimate, Estimate]
    base_rate_brier: float | None


@dataclass(frozen=True, slots=True)
class SetRow:
    """What the sets of one system promise and do."""

    system: str
    max_miss_rate: float
    miss_rate: Estimate
    mean_size: Estimate
    share_empty: Estimate
    share_unsure: Estimate
    n_groups: int


def calibration_rows(evaluation: CalibrationEvaluation) -> dict[str, list[CalibrationRow]]:
    """By system: lesions, those in most groups first and machine-made ones after the others; their mean; the site."""
    rows = {}
    for name, system in evaluation.systems.items():
        ranked = sorted(system.lesions.items(), key=lambda item: (item[1].machine_made, -item[1].n_positive_groups))
        found = [_row(lesion, item, evaluation.n_folds) for lesion, item in ranked]
        if system.mean is not None:
            found.append(_mean_row(system.mean))
        if system.site is not None:
            found.append(_row("most probable site", system.site, evaluation.n_folds))
        rows[name] = found
    return rows


def set_rows(evaluation: CalibrationEvaluation) -> list[SetRow]:
    """A row for each system that has sets."""
    return [
        SetRow(
            system=name,
            max_miss_rate=sets.max_miss_rate,
            miss_rate=_estimate(sets.miss_rate),
            mean_size=_estimate(sets.mean_size),
            share_empty=_estimate(sets.share_empty),
            share_unsure=_estimate(sets.share_unsure),
            n_groups=sets.n_groups,
        )
        for name, system in evaluation.systems.items()
        if (sets := system.sets) is not None
    ]


def calibration_frames(evaluation: CalibrationEvaluation) -> dict[str, pl.DataFrame]:
    """One row per number or class, by the names in `CALIBRATION_TABLES`; some may be empty."""
    classes = [
        (name, task, lesion, item)
        for name, system in evaluation.systems.items()
        for task, lesion, item in [
            *((LESION, lesion, item) for lesion, item in system.lesions.items()),
            *(((SITE, None, system.site),) if system.site is not None else ()),
        ]
    ]
    return {
        "calibration": _frame(
            {
                "system": name,
                "task": task,
                "class": lesion,
                **item.model_dump(exclude={"before", "after", "ece_change", "brier_change"}),
                **{key: value for side in _SIDES for key, value in _side(side, item).items()},
                **_flat("ece_change", item.ece_change),
                **_flat("brier_change", item.brier_change),
            }
            for name, task, lesion, item in classes
        ),
        "reliability": _frame(
            {
                "system": name,
                "task": task,
                "class": lesion,
                "side": side,
                "probability": each.probability,
                **_flat("frequency", each.frequency),
                "n": each.n,
            }
            for name, task, lesion, item in classes
            for side in _SIDES
            for each in getattr(item, side).bins
        ),
        "decisions": _frame(
            {
                "system": name,
                "lesion": lesion,
                "aim": evaluation.aim,
                "threshold": item.threshold,
                **item.model_dump(include={"machine_made", "n_known", "n_decided", "n_positive", "n_positive_decided"}),
                **{
                    key: value
                    for metric in ("sensitivity", "specificity", "precision", "f1")
                    for key, value in _flat(metric, getattr(item, metric)).items()
                },
            }
            for name, system in evaluation.systems.items()
            for lesion, item in system.decisions.items()
        ),
        "sets": _frame(
            {
                "system": name,
                **sets.model_dump(include={"max_miss_rate", "threshold", "n_groups"}),
                **{
                    key: value
                    for metric in ("miss_rate", "mean_size", "share_empty", "share_unsure")
                    for key, value in _flat(metric, getattr(sets, metric)).items()
                },
            }
            for name, system in evaluation.systems.items()
            if (sets := system.sets) is not None
        ),
    }


def _row(name: str, item: Reliability, n_folds: int) -> CalibrationRow:
    return CalibrationRow(
        name=name,
        method=calibration_method(item, n_folds),
        n_groups=item.n_positive_groups,
        machine_made=item.machine_made,
        ece=(_estimate(item.before.ece), _estimate(item.after.ece), _estimate(item.ece_change)),
        ece_by_chance=item.after.ece_by_chance,
        brier=(_estimate(item.before.brier), _estimate(item.after.brier), _estimate(item.brier_change)),
        base_rate_brier=item.base_rate_brier,
    )


def _mean_row(mean: MeanReliability) -> CalibrationRow:
    return CalibrationRow(
        name=f"mean over {many(mean.n_lesions, 'lesion')}",
        method="",
        n_groups=None,
        machine_made=False,
        ece=(_estimate(mean.ece_before), _estimate(mean.ece_after), _estimate(mean.ece_change)),
        ece_by_chance=None,
        brier=(_estimate(mean.brier_before), _estimate(mean.brier_after), _estimate(mean.brier_change)),
        base_rate_brier=None,
    )


def _side(side: str, item: Reliability) -> dict[str, float | None]:
    state = getattr(item, side)
    return {
        **_flat(f"ece_{side}", state.ece),
        f"ece_by_chance_{side}": state.ece_by_chance,
        **_flat(f"brier_{side}", state.brier),
    }


def _flat(name: str, found: Number) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _estimate(found: Number) -> Estimate:
    return Estimate(found.value, found.low, found.high)


def _frame(rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)
