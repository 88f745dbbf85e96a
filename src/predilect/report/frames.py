"""What a report shows as plain frames, one row per number, for spreadsheets and other programs."""

from __future__ import annotations

import polars as pl

from predilect.evaluation.scores import Evaluation, PredilectionMap
from predilect.report.calibration_tables import CALIBRATION_TABLES, calibration_frames
from predilect.report.insight_tables import INSIGHT_TABLES, insight_frames
from predilect.report.known_site_tables import KNOWN_SITE_TABLES, known_site_frames
from predilect.report.published import published_frame
from predilect.report.shown import Shown
from predilect.report.tables import headline_table, lesion_systems, site_systems

__all__ = ["TABLE_NAMES", "csv_tables"]

TABLE_NAMES = (
    *("headline", "lesions", "sites", "comparisons", "predilection", "gains", "folds", "curves", "published"),
    *KNOWN_SITE_TABLES,
    *CALIBRATION_TABLES,
    *INSIGHT_TABLES,
)


def csv_tables(shown: Shown) -> dict[str, pl.DataFrame]:
    """Everything a report shows as plain frames, one row per number, for a spreadsheet or another program.

    Returns:
        Frames by file stem; those that would be empty are absent.
    """
    evaluation = shown.evaluation
    frames = {
        "headline": pl.DataFrame(_headline_records(evaluation), infer_schema_length=None),
        "lesions": pl.DataFrame(
            [
                {"system": name, "lesion": lesion, **item.model_dump()}
                for name, scores in lesion_systems(evaluation).items()
                for lesion, item in scores.per_class.items()
            ],
            infer_schema_length=None,
        ),
        "sites": pl.DataFrame(
            [
                {"system": name, "site": site, **item.model_dump()}
                for name, scores in site_systems(evaluation).items()
                for site, item in scores.per_class.items()
            ],
            infer_schema_length=None,
        ),
        "comparisons": pl.DataFrame([item.model_dump() for item in evaluation.comparisons], infer_schema_length=None),
        "predilection": _predilection_frame(evaluation.predilection),
        "gains": pl.DataFrame(
            [
                {"system_a": pair.system_a, "system_b": pair.system_b, **item.model_dump()}
                for pair in evaluation.gains
                for item in pair.lesions
            ],
            infer_schema_length=None,
        ),
        "folds": _fold_frame(evaluation),
        "curves": pl.DataFrame() if shown.curves is None else shown.curves,
        "published": pl.DataFrame() if shown.published is None else published_frame(shown.published),
        **({} if shown.known_site is None else known_site_frames(shown.known_site)),
        **({} if shown.calibration is None else calibration_frames(shown.calibration)),
        **({} if shown.insight is None else insight_frames(shown.insight)),
    }
    return {name: frame for name, frame in frames.items() if frame.height}


def _headline_records(evaluation: Evaluation) -> list[dict[str, str | float | int | None]]:
    records: list[dict[str, str | float | int | None]] = []
    for row in [*headline_table(evaluation), *headline_table(evaluation, by_seed=True)]:
        for metric, estimate in row.estimates.items():
            if estimate.value is not None:
                bounds = {"low": estimate.low, "high": estimate.high}
                records.append({"system": row.system, "seed": row.seed, "metric": metric, "value": estimate.value, **bounds})
    return records


def _predilection_frame(found: PredilectionMap | None) -> pl.DataFrame:
    if found is None:
        return pl.DataFrame()
    return pl.DataFrame(
        [
            {
                "lesion": lesion,
                "site": site,
                "ratio": found.ratio[i][j],
                "lift": found.lift[i][j],
                "n_lesion": found.n_lesion[i],
                "n_site": found.n_site[j],
            }
            for i, lesion in enumerate(found.lesions)
            for j, site in enumerate(found.sites)
        ],
        infer_schema_length=None,
    )


def _fold_frame(evaluation: Evaluation) -> pl.DataFrame:
    balance = evaluation.folds
    if balance is None:
        return pl.DataFrame()
    counted = [("", "photographs", balance.n_images), ("", "groups", balance.n_groups)]
    counted += [(item.task, item.name, item.n_positive) for item in balance.classes]
    return pl.DataFrame(
        [
            {"task": task or None, "name": name, "fold": fold, "n": n}
            for task, name, counts in counted
            for fold, n in zip(balance.folds, counts, strict=True)
        ],
        infer_schema_length=None,
    )
