"""What a report shows: numbers from the evaluation, and what else is known of the systems."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from predilect.evaluation.calibration_scores import CalibrationEvaluation
from predilect.evaluation.insight import Insight
from predilect.evaluation.known_site_scores import KnownSite
from predilect.evaluation.scores import Evaluation
from predilect.report.published import Published

__all__ = ["Shown"]


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """What there is to draw, to tabulate and to write about.

    Attributes:
        evaluation: What was scored.
        curves: Training curves, columns as in `curves.CURVES_SCHEMA`; None where there was no training.
        published: The paper's own numbers, or None.
        insight: What the networks show of themselves, or None.
        calibration: Whether probabilities mean what they say, or None.
        known_site: What knowing the site brings, or None.
    """

    evaluation: Evaluation
    curves: pl.DataFrame | None = None
    published: Published | None = None
    insight: Insight | None = None
    calibration: CalibrationEvaluation | None = None
    known_site: KnownSite | None = None
