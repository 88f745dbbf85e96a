"""Counting what an atlas holds and what it lacks, part by part of an audit."""

from __future__ import annotations

import numpy as np
import polars as pl

from predilect.atlas.audit_parts import (
    ClassCount,
    Conflict,
    Missing,
    MissingByClass,
    Owners,
    Quality,
    Rejected,
    Resolution,
    Spread,
)
from predilect.atlas.folder import REJECTED, Atlas
from predilect.atlas.quality import QUALITY_SIDE, UNIFORM_BELOW
from predilect.errors import AtlasError
from predilect.labels.tasks import LabelSpace
from predilect.tables import read_table

__all__ = [
    "FIELDS",
    "class_counts",
    "conflicts_of",
    "missing_by_class",
    "missing_by_source",
    "photographs_per",
    "quality_of",
    "rejected_rows",
    "resolution_of",
    "spread",
]

FIELDS = ("lesions", "site", "patient_id", "lesion_id", "case_id", "modality", "skin_tone", "age", "sex", "license")
"""What may be missing of a photograph."""

_DARK_BELOW = 40.0  # the darkest skin of the drawn atlas reaches 53: what is flagged is light that fails, and no skin
_OVEREXPOSED_FROM = 0.1
_LEAST_MEASURED = 20  # photographs, below which their spread says little
_REASONS = 20


def class_counts(photos: pl.DataFrame, labels: LabelSpace, groups: pl.Series) -> tuple[ClassCount, ...]:
    """Count photographs, patients and groups of each class.

    Args:
        photos: N rows with the label columns, `source` and `patient_id`.
        labels: The classes.
        groups: (N,) names of groups.
    """
    named = photos.with_columns(group=groups, patient=_owner("patient_id"))
    has_patients = named["patient"].null_count() < named.height
    found = []
    for task in labels.tasks:
        for column, name in zip(task.columns, task.classes, strict=True):
            shown = named.filter(pl.col(column) == 1)
            known = named.height - named[column].null_count()
            found.append(
                ClassCount(
                    task=task.name,
                    name=name,
                    machine_made=name in task.machine,
                    present=shown.height,
                    absent=known - shown.height,
                    unknown=named.height - known,
                    patients=shown["patient"].drop_nulls().n_unique() if has_patients else None,
                    groups=shown["group"].n_unique(),
                )
            )
    return tuple(found)


def conflicts_of(members: pl.DataFrame, labels: LabelSpace) -> tuple[Conflict, ...]:
    """The classes that some photographs of a cluster are known to show, and others are known not to."""
    found = []
    for task in labels.tasks:
        for column, name in zip(task.columns, task.classes, strict=True):
            present, absent = (tuple(members.filter(pl.col(column) == value)["image_id"].sort()) for value in (1, 0))
            if present and absent:
                found.append(Conflict(task=task.name, name=name, present=present, absent=absent))
    return tuple(found)


def missing_by_source(photos: pl.DataFrame) -> tuple[Missing, ...]:
    """What is not known, of the whole atlas and of each source."""
    sources = sorted(photos["source"].unique())
    whole = Missing(source=None, n=photos.height, missing=_missing(photos))
    return (
        whole,
        *(
            Missing(source=source, n=part.height, missing=_missing(part))
            for source in sources
            if (part := photos.filter(pl.col("source") == source)).height
        ),
    )


def missing_by_class(photos: pl.DataFrame, labels: LabelSpace) -> tuple[MissingByClass, ...]:
    """What is not known of the photographs that show each class."""
    return tuple(
        MissingByClass(task=task.name, name=name, n=part.height, missing=_missing(part))
        for task in labels.tasks
        for column, name in zip(task.columns, task.classes, strict=True)
        for part in [photos.filter(pl.col(column) == 1)]
    )


def photographs_per(photos: pl.DataFrame, groups: pl.Series) -> tuple[Owners, ...]:
    """How many photographs there are of a patient, of a lesion and in a group."""
    named = photos.select(patient=_owner("patient_id"), lesion=_owner("lesion_id"), group=groups)
    found = []
    for what in ("patient", "lesion", "group"):
        counts = named.drop_nulls(what).group_by(what).len()["len"]
        histogram = counts.value_counts(name="n").sort("len")
        found.append(
            Owners(
                what=what,
                n_without=named[what].null_count(),
                per_owner=spread(counts),
                histogram=tuple((int(size), int(n)) for size, n in histogram.iter_rows()),
            )
        )
    return tuple(found)


def resolution_of(photos: pl.DataFrame) -> Resolution:
    """How large the photographs are."""
    shorter = photos.select(pl.min_horizontal("width", "height")).to_series()
    return Resolution(
        width=spread(photos["width"]),
        height=spread(photos["height"]),
        shorter_side=spread(shorter),
        crop=QUALITY_SIDE,
        below_crop=_listed(photos["image_id"], shorter < QUALITY_SIDE),
    )


def quality_of(image_ids: pl.Series, measured: pl.DataFrame) -> Quality:
    """Which photographs stand out as blurred, uniform, dark or overexposed.

    Args:
        image_ids: (N,) of the photographs.
        measured: What `predilect.atlas.quality.measure_quality` returned of them.
    """
    limit = _sharpness_limit(measured["sharpness"])
    blurred = measured.with_columns(image_id=image_ids).filter(pl.col("sharpness") < limit) if limit is not None else None
    rows = [] if blurred is None else blurred.sort("sharpness", "image_id").select("image_id", "sharpness").rows()
    return Quality(
        scale=QUALITY_SIDE,
        sharpness=spread(measured["sharpness"]),
        sharpness_limit=limit,
        blurred=tuple(rows),
        uniform_below=UNIFORM_BELOW,
        uniform=_listed(image_ids, measured["contrast"] < UNIFORM_BELOW),
        dark_below=_DARK_BELOW,
        dark=_listed(image_ids, measured["shadow"] < _DARK_BELOW),
        overexposed_from=_OVEREXPOSED_FROM,
        overexposed=_listed(image_ids, measured["glare"] >= _OVEREXPOSED_FROM),
    )


def rejected_rows(atlas: Atlas) -> Rejected:
    """What the import left out, and why.

    Raises:
        AtlasError: If ``rejected.csv`` cannot be read.
    """
    reasons = (
        read_table(atlas.path / REJECTED, AtlasError)["reason"]
        .value_counts(name="n")
        .sort(["n", "reason"], descending=[True, False])
    )
    rows = [(str(reason), int(n)) for reason, n in reasons.iter_rows()]
    rest = sum(n for _, n in rows[_REASONS:])
    return Rejected(
        rejected=atlas.counts.rejected,
        excluded=atlas.counts.excluded,
        unlisted=atlas.counts.unlisted,
        reasons=(*rows[:_REASONS], *([("other reasons", rest)] if rest else [])),
    )


def spread(values: pl.Series) -> Spread:
    """The distribution of values, nulls left out."""
    known = values.drop_nulls().cast(pl.Float64)
    if known.is_empty():
        return Spread(n=0, minimum=None, p05=None, median=None, p95=None, maximum=None, mean=None)
    quantiles = [float(known.quantile(share, "linear") or 0.0) for share in (0.0, 0.05, 0.5, 0.95, 1.0)]
    return Spread(
        n=len(known),
        **dict(zip(("minimum", "p05", "median", "p95", "maximum"), quantiles, strict=True)),
        mean=float(known.sum()) / len(known),
    )


def _sharpness_limit(sharpness: pl.Series) -> float | None:
    """Three scaled median absolute deviations below the median of the logarithms; None where few photographs were measured."""
    known = sharpness.drop_nulls()
    if len(known) < _LEAST_MEASURED:
        return None
    levels = np.log(np.maximum(known.to_numpy(), 1e-3))
    middle = np.median(levels)
    return float(np.exp(middle - 3 * 1.4826 * np.median(np.abs(levels - middle))))


def _missing(photos: pl.DataFrame) -> dict[str, int]:
    counts = photos.select(_absent(field).sum().alias(field) for field in FIELDS).row(0, named=True)
    return {field: int(n) for field, n in counts.items()}


def _absent(field: str) -> pl.Expr:
    if field == "lesions":
        return pl.col(field).is_null()  # an empty list is an answer
    if field == "site":
        return pl.col(field).is_null() | (pl.col(field).list.len() == 0)
    return pl.col(field).is_null()


def _owner(key: str) -> pl.Expr:
    """The id together with its source, within which it counts; null where there is none."""
    return pl.when(pl.col(key).is_not_null() & (pl.col(key) != "")).then(pl.struct("source", key))


def _listed(image_ids: pl.Series, chosen: pl.Series) -> tuple[str, ...]:
    return tuple(image_ids.filter(chosen.fill_null(value=False)).sort())
