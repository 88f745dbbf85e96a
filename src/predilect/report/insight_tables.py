"""Attention and retrieval as rows for the page and the terminal, and as plain frames for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from predilect.evaluation.attention_scores import (
    AttentionEvaluation,
    LesionCoincidence,
    LesionCoincidenceGain,
    MeanCurve,
    Perturbation,
)
from predilect.evaluation.attention_summary import MAP_KINDS
from predilect.evaluation.group_means import GroupMean
from predilect.evaluation.insight import Insight
from predilect.evaluation.retrieval_summary import RetrievalComparison, RetrievalEvaluation
from predilect.report.insight_wording import MEASURE_TITLES, explained_heads
from predilect.report.wording import Estimate

__all__ = [
    "INSIGHT_TABLES",
    "CoincidenceRow",
    "DifferenceRow",
    "MeasureRow",
    "MeasureTable",
    "attention_tables",
    "coincidence_rows",
    "insight_frames",
    "retrieval_differences",
    "retrieval_rows",
]

INSIGHT_TABLES = ("coincidence", "perturbation", "perturbation_comparisons", "randomisation", "retrieval", "retrieval_comparisons")
"""File stems of the frames."""


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A system, a head of it, or a random order, with its measures in the order of their titles."""

    name: str
    cells: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class MeasureTable:
    """What stands above a table, above its columns of measures, and in its rows, of which there is at least one."""

    title: str
    measures: tuple[str, ...]
    rows: tuple[MeasureRow, ...]


@dataclass(frozen=True, slots=True)
class CoincidenceRow:
    """One lesion of one system: how much its map and the site's coincide, and would by chance, and its gain against the first baseline, if any."""

    system: str
    lesion: LesionCoincidence
    overlap_by_chance: float
    gain: LesionCoincidenceGain | None


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A pair of systems, ``a − b``, with their differences in the order of `MEASURE_TITLES`."""

    name: str
    items: tuple[RetrievalComparison, ...]


def retrieval_rows(retrieval: RetrievalEvaluation) -> list[MeasureRow]:
    """The systems, and last what photographs in random order would reach."""
    scored = {name: [getattr(scores, measure) for measure in MEASURE_TITLES] for name, scores in retrieval.systems.items()}
    rows = [MeasureRow(name, tuple(Estimate(item.value, item.low, item.high) for item in items)) for name, items in scored.items()]
    first = next(iter(scored.values()))
    return [*rows, MeasureRow("random order", tuple(Estimate(item.chance) for item in first))]


def retrieval_differences(retrieval: RetrievalEvaluation) -> list[DifferenceRow]:
    """A row for each pair of systems that was compared."""
    found = {(item.system_a, item.system_b, item.measure): item for item in retrieval.comparisons}
    pairs = dict.fromkeys((a, b) for a, b, _ in found)
    return [DifferenceRow(f"{a} − {b}", tuple(found[a, b, measure] for measure in MEASURE_TITLES)) for a, b in pairs]


def attention_tables(attention: AttentionEvaluation) -> list[MeasureTable]:
    """In short what was measured of the maps: whether those of both heads coincide, and whether they are true; empty tables are left out."""
    coinciding = {name: system.coincidence for name, system in attention.systems.items() if system.coincidence is not None}
    heads = {f"{name}, {task}": head for name, task, head in explained_heads(attention)}
    areas = ("area", "− random", "− middle")
    found: Mapping[tuple[str, tuple[str, ...]], Mapping[str, tuple[Estimate, ...]]] = {
        ("maps of lesions and site", ("correlation", "overlap", "by chance")): {
            name: (_estimate(item.correlation), _estimate(item.overlap), Estimate(attention.systems[name].overlap_by_chance))
            for name, item in coinciding.items()
        },
        ("deletion, a small area for true maps", areas): {
            name: _areas(head.perturbation, "deletion") for name, head in heads.items()
        },
        ("insertion, a large area for true maps", areas): {
            name: _areas(head.perturbation, "insertion") for name, head in heads.items()
        },
        ("rank correlation without its sign", ("random weights", "other photographs")): {
            name: (_estimate(head.randomisation.absolute), _estimate(head.randomisation.unrelated)) for name, head in heads.items()
        },
    }
    return [
        MeasureTable(f"Attention: {title}", measures, tuple(MeasureRow(name, cells) for name, cells in rows.items()))
        for (title, measures), rows in found.items()
        if rows
    ]


def coincidence_rows(attention: AttentionEvaluation) -> list[CoincidenceRow]:
    """The lesions of each system with two heads, those whose maps coincide most first."""
    rows = []
    for name, system in attention.systems.items():
        if system.coincidence is None:
            continue
        gains = {item.lesion: item for pair in system.coincidence.gains[:1] for item in pair.lesions}
        lesions = [item for item in system.coincidence.lesions if item.correlation.value is not None]
        ranked = sorted(lesions, key=lambda item: -(item.correlation.value or 0.0))
        rows += [CoincidenceRow(name, item, system.overlap_by_chance, gains.get(item.lesion)) for item in ranked]
    return rows


def insight_frames(insight: Insight) -> dict[str, pl.DataFrame]:
    """One row per number or lesion, by the names in `INSIGHT_TABLES`; some may be empty."""
    attention, retrieval = insight.attention, insight.retrieval
    heads = explained_heads(attention)
    return {
        "coincidence": _frame(
            {
                "system": row.system,
                "lesion": row.lesion.lesion,
                **_flat("correlation", row.lesion.correlation.model_dump()),
                **_flat("overlap", row.lesion.overlap.model_dump()),
                "overlap_by_chance": row.overlap_by_chance,
                "shortcut": row.lesion.shortcut,
                "gain": None if row.gain is None else row.gain.gain,
                "gain_low": None if row.gain is None else row.gain.gain_low,
                "gain_high": None if row.gain is None else row.gain.gain_high,
            }
            for row in coincidence_rows(attention)
        ),
        "perturbation": _frame(
            {"system": name, "task": task, "map": kind, "curve": curve, "share": share, "value": value, "low": low, "high": high}
            for name, task, head in heads
            for kind in MAP_KINDS
            for curve, means in (
                ("deletion", head.perturbation.maps[kind].deletion),
                ("insertion", head.perturbation.maps[kind].insertion),
            )
            for share, value, low, high in zip(head.perturbation.shares, *_columns(means), strict=True)
        ),
        "perturbation_comparisons": _frame(
            {"system": name, "task": task, "curve": item.curve, "baseline": item.baseline, **item.difference.model_dump()}
            for name, task, head in heads
            for item in head.perturbation.comparisons
        ),
        "randomisation": _frame(
            {"system": name, "task": task, "measure": measure, **getattr(head.randomisation, measure).model_dump()}
            for name, task, head in heads
            for measure in ("rank_correlation", "absolute", "unrelated")
        ),
        "retrieval": _frame(
            {"system": name, "measure": measure, **getattr(scores, measure).model_dump(exclude={"seeds"})}
            for name, scores in retrieval.systems.items()
            for measure in MEASURE_TITLES
        ),
        "retrieval_comparisons": _frame(item.model_dump() for item in retrieval.comparisons),
    }


def _estimate(mean: GroupMean) -> Estimate:
    return Estimate(mean.value, mean.low, mean.high)


def _areas(found: Perturbation, curve: Literal["deletion", "insertion"]) -> tuple[Estimate, ...]:
    """Of a head's maps the area under a curve, and what it is above that of a random map and of the middle of the photograph."""
    maps = found.maps["map"]
    area = maps.deletion_area if curve == "deletion" else maps.insertion_area
    above = {item.baseline: item.difference for item in found.comparisons if item.curve == curve}
    differences = [above[kind] for kind in MAP_KINDS[1:]]
    return _estimate(area), *(Estimate(item.difference, item.low, item.high) for item in differences)


def _columns(curve: MeanCurve) -> tuple[Sequence[float | None], ...]:
    """Values and both ends of a curve; None for ends that it has not."""
    none = (None,) * len(curve.value)
    return curve.value, curve.low or none, curve.high or none


def _flat(name: str, mean: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """A mean's value under its own name, its other fields under that and theirs."""
    return {name if field == "value" else f"{name}_{field}": value for field, value in mean.items()}


def _frame(rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)
