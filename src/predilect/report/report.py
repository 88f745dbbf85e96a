"""The report of a run: `report.json` for programs, `report.html` for people, figures and tables for papers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from predilect.atlas.audit import Audit
from predilect.evaluation.attention_scores import AttentionEvaluation
from predilect.evaluation.calibration_scores import CalibrationEvaluation
from predilect.evaluation.insight import Insight
from predilect.evaluation.known_site_scores import KnownSite
from predilect.evaluation.retrieval_summary import RetrievalEvaluation
from predilect.evaluation.scores import (
    Comparison,
    Evaluation,
    FoldBalance,
    PredilectionGain,
    PredilectionMap,
    SystemScores,
    TruthSummary,
)
from predilect.files import replacing, write_json, write_text
from predilect.report import wording
from predilect.report.audit_page import AUDIT_PAGE, write_audit_page
from predilect.report.calibration_tables import calibration_rows, set_rows
from predilect.report.calibration_wording import calibration_findings, calibration_guide
from predilect.report.curves import check_curves
from predilect.report.environment import render_page
from predilect.report.figures import FIGURE_NAMES, Drawing, draw_all
from predilect.report.frames import TABLE_NAMES, csv_tables
from predilect.report.insight_tables import coincidence_rows, retrieval_differences, retrieval_rows
from predilect.report.insight_wording import (
    MEASURE_TITLES,
    attention_findings,
    chance_overlap,
    explained_heads,
    insight_guide,
    map_findings,
    retrieval_findings,
)
from predilect.report.known_site_wording import known_site_section
from predilect.report.published import Published, published_rows
from predilect.report.shown import Shown
from predilect.report.style import inline_svg, missing_glyphs
from predilect.report.tables import headline_table, lesion_tables, machine_table, site_table

__all__ = ["SCHEMA_VERSION", "Report", "ReportDocument", "build_report", "report_schema", "write_report"]

SCHEMA_VERSION = 1

# Keys that `report.json` has only where there are folds enough, or where networks were asked.
_OPTIONAL = ("known_site", "calibration", "attention", "retrieval")


class ReportDocument(BaseModel):
    """What `report.json` holds. A number that is not defined is null.

    Attributes:
        schema_version: Raised when a field changes its meaning or goes.
        title: Of the page.
        provenance: What ran: the command, the recipe, hashes, versions.
        notes: What a reader must know of these numbers.
        truth: What was scored.
        systems: Scores by system.
        comparisons: Paired differences between systems.
        predilection: Which lesions are found where; null without both tasks.
        gains: For each pair that asks it, gain by lesion against strength of predilection.
        folds: How classes fall into folds; null without folds.
        published: What the paper printed, measured on another data set; null unless asked for.
        known_site: What knowing the site brings to lesions; absent where photographs of known site lie in fewer than three folds.
        calibration: Whether probabilities mean what they say, before and after; absent with fewer than two folds.
        attention: Where the networks look; absent where nobody asked them.
        retrieval: How alike the photographs are that they put next to each other; absent likewise.
        n_resamples: Resamples behind each interval.
        n_resamples_p: Resamples behind each p.
        resampling_seed: Seed of both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, title="Predilect report")

    schema_version: Literal[1] = 1
    title: str
    provenance: dict[str, JsonValue]
    notes: tuple[str, ...]
    truth: TruthSummary
    systems: dict[str, SystemScores]
    comparisons: tuple[Comparison, ...]
    predilection: PredilectionMap | None
    gains: tuple[PredilectionGain, ...]
    folds: FoldBalance | None
    published: Published | None
    known_site: KnownSite | None = None
    calibration: CalibrationEvaluation | None = None
    attention: AttentionEvaluation | None = None
    retrieval: RetrievalEvaluation | None = None
    n_resamples: int = Field(ge=0)
    n_resamples_p: int = Field(ge=0)
    resampling_seed: int


@dataclass(frozen=True, slots=True)
class Report:
    """A report before it is written.

    Attributes:
        document: What goes into `report.json`.
        shown: The same numbers as they came from the evaluation, and what else is shown.
        audit: Of the atlas, or None.
    """

    document: ReportDocument
    shown: Shown
    audit: Audit | None = None


def build_report(
    evaluation: Evaluation,
    *,
    provenance: Mapping[str, JsonValue],
    curves: pl.DataFrame | None = None,
    notes: Sequence[str] = (),
    title: str = "Predilect report",
    audit: Audit | None = None,
    published: Published | None = None,
    insight: Insight | None = None,
    calibration: CalibrationEvaluation | None = None,
    known_site: KnownSite | None = None,
) -> Report:
    """Put an evaluation and what is known of its making together.

    Args:
        evaluation: What was scored; at least one system.
        provenance: Any JSON values. `command`, a string or a list of words, is shown as what to run again.
        curves: Training curves, columns as in `curves.CURVES_SCHEMA`; None where there was no training.
        notes: What a reader must know, such as that diagnoses stand in for lesion types; cautions that follow from the
            numbers are added.
        title: Of the page.
        audit: Of the atlas that was learnt from; None where there is none.
        published: The paper's own numbers, to stand beside those of the same system and lesion; None leaves them out.
        insight: What the networks show of themselves; None leaves it out.
        calibration: Whether probabilities mean what they say; None leaves it out.
        known_site: What knowing the site brings; None leaves it out.

    Raises:
        ValueError: If there is no system, the provenance is not JSON or holds a number that is not finite, or the curves do
            not have their columns.
    """
    if not evaluation.systems:
        raise ValueError("a report needs at least one system")
    document = ReportDocument(
        title=title,
        provenance=dict(provenance),
        notes=(*notes, *wording.cautions(evaluation), *_font_caution(evaluation)),
        truth=evaluation.truth,
        systems=evaluation.systems,
        comparisons=tuple(evaluation.comparisons),
        predilection=evaluation.predilection,
        gains=evaluation.gains,
        folds=evaluation.folds,
        published=published,
        known_site=known_site,
        calibration=calibration,
        attention=None if insight is None else insight.attention,
        retrieval=None if insight is None else insight.retrieval,
        n_resamples=evaluation.n_resamples,
        n_resamples_p=evaluation.n_resamples_p,
        resampling_seed=evaluation.resampling_seed,
    )
    checked = None if curves is None else check_curves(curves)
    return Report(document, Shown(evaluation, checked, published, insight, calibration, known_site), audit)


def write_report(report: Report, out: Path) -> Path:
    """Write `report.json`, `report.html`, `audit.html`, `figures/<name>.svg` and `.png`, and `tables/<name>.csv`.

    Each file is replaced as a whole, `report.json` last; figures, tables and an audit's page that an earlier report left there and this one does
    not have are removed. Nothing else in the folder is touched.

    Args:
        report: What `build_report` returned.
        out: The folder; made if need be.

    Returns:
        The path of `report.html`.

    Raises:
        PredilectError: If the folder cannot be written to.
    """
    drawings, tables = draw_all(report.shown), csv_tables(report.shown)
    figures = {name: out / "figures" / name for name in FIGURE_NAMES}
    for drawing in drawings:
        write_text(figures[drawing.name].with_suffix(".svg"), drawing.rendering.svg)
        with replacing(figures[drawing.name].with_suffix(".png")) as temporary:
            temporary.write_bytes(drawing.rendering.png)
    for name, frame in tables.items():
        write_text(out / "tables" / f"{name}.csv", frame.write_csv())
    drawn = {drawing.name for drawing in drawings}
    for stale in [path for name, path in figures.items() if name not in drawn]:
        stale.with_suffix(".svg").unlink(missing_ok=True)
        stale.with_suffix(".png").unlink(missing_ok=True)
    for name in set(TABLE_NAMES) - tables.keys():
        (out / "tables" / f"{name}.csv").unlink(missing_ok=True)
    if report.audit is None:
        (out / AUDIT_PAGE).unlink(missing_ok=True)
    else:
        write_audit_page(report.audit, out)
    page = out / "report.html"
    write_text(page, _page(report, drawings, sorted(tables)))
    absent = {name for name in _OPTIONAL if getattr(report.document, name) is None}
    write_json(out / "report.json", report.document.model_dump(mode="json", exclude=absent))
    return page


def report_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`; a copy is stored in `schemas/report.schema.json`."""
    schema = ReportDocument.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _font_caution(evaluation: Evaluation) -> list[str]:
    names = set(evaluation.systems)
    for system in evaluation.systems.values():
        names |= (system.lesion.per_class.keys() if system.lesion else set()) | (
            system.site.per_class.keys() if system.site else set()
        )
    missing = missing_glyphs(names)
    return [f"No font for figures on the machine that made them has {', '.join(missing)}: a box stands there."] if missing else []


def _page(report: Report, drawings: Sequence[Drawing], tables: Sequence[str]) -> str:
    shown = report.shown
    evaluation, published, insight, calibration = shown.evaluation, shown.published, shown.insight, shown.calibration
    provenance = dict(report.document.provenance)
    command = provenance.pop("command", None)
    return render_page(
        "report.html",
        document=report.document,
        provenance=provenance,
        command=shlex.join(str(word) for word in command) if isinstance(command, list) else command,
        seeds=sorted({seed for system in evaluation.systems.values() for seed in system.seeds}, key=lambda seed: (len(seed), seed)),
        metrics={name: title for titles in wording.HEADLINE_METRICS.values() for name, title in titles.items()},
        headline=headline_table(evaluation),
        by_seed=headline_table(evaluation, by_seed=True),
        verdicts=wording.verdicts(evaluation),
        lesion_tables=lesion_tables(evaluation, published),
        other_data=None if published is None else wording.other_data(published.dataset, published.n_images, published.n_lesions),
        published_rows=[] if published is None else published_rows(evaluation, published),
        machine=machine_table(evaluation),
        sites=site_table(evaluation),
        figures={each.name: (each, inline_svg(each.rendering.svg, each.name, each.label)) for each in drawings},
        tables=tables,
        guide=[
            *wording.reading_guide(evaluation),
            *([] if calibration is None else calibration_guide(calibration)),
            *([] if insight is None else insight_guide(insight)),
        ],
        known_site=None if shown.known_site is None else known_site_section(shown.known_site),
        calibration=None if calibration is None else calibration_rows(calibration),
        sets=[] if calibration is None else set_rows(calibration),
        calibration_findings=[] if calibration is None else calibration_findings(calibration),
        insight=insight,
        attention_findings=[] if insight is None else attention_findings(insight.attention),
        map_findings=[] if insight is None else map_findings(insight.attention),
        heads=[] if insight is None else explained_heads(insight.attention),
        coincidence=[] if insight is None else coincidence_rows(insight.attention),
        chance_overlap="" if insight is None else chance_overlap(insight.attention),
        retrieval_findings=[] if insight is None else retrieval_findings(insight.retrieval),
        retrieval_differences=[] if insight is None else retrieval_differences(insight.retrieval),
        retrieval_rows=[] if insight is None else retrieval_rows(insight.retrieval),
        measures=MEASURE_TITLES,
        audit_page=None if report.audit is None else AUDIT_PAGE,
    )
