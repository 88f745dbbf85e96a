"""All that a report measures of tables of predictions: their scores, their calibration, and what knowing the site brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from predilect.evaluation.answers import MAX_MISS_RATE
from predilect.evaluation.calibration_scores import CalibrationEvaluation
from predilect.evaluation.decisions import Aim
from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.evaluate_calibration import evaluate_calibration
from predilect.evaluation.known_site import condition_on_site
from predilect.evaluation.known_site_scores import KnownSite, score_known_site
from predilect.evaluation.scores import Evaluation
from predilect.predictions import Predictions, Truth

__all__ = ["Measured", "Tell", "measure"]

Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

_FOLDS_TO_CALIBRATE = 2


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """What was measured.

    Attributes:
        evaluation: Scores of uncalibrated predictions.
        calibration: None where no table has two folds: what is reported on one is fitted on others.
        known_site: None where photographs of known site lie in fewer than three folds, or there are no lesions or no sites.
    """

    evaluation: Evaluation
    calibration: CalibrationEvaluation | None = None
    known_site: KnownSite | None = None


def measure(
    truth: Truth,
    predictions: Mapping[str, Predictions],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    calibrated: Sequence[str] | None = None,
    aim: Aim | None = None,
    max_miss_rate: float = MAX_MISS_RATE,
    count_machine_made: bool = False,
    n_resamples_p: int = 10_000,
    on_progress: Tell | None = None,
) -> Measured:
    """Measure all.

    The known site takes longest: for each system and fold some hundred fits on the others (see `site_prior_fit.fit_site_prior`).

    Args:
        truth: What is known of N photographs.
        predictions: Of each system, of one or several seeds.
        pairs: Of systems that are compared; None: each with every one before it.
        calibrated: Which systems are calibrated and told the site; None: all. Those whose tables name fewer than two folds are passed over.
        aim: Of the thresholds; None: the largest F1.
        max_miss_rate: Bound on the expected false-negative rate of the sets.
        count_machine_made: Whether machine-made labels count in the means, see `evaluate`.
        n_resamples_p: For p, at least 1.
        on_progress: See `Tell`.

    Raises:
        TableError: If tables do not match the truth or each other, a group lies in two folds, or a system has a name that is given to
            what is made of others.
    """

    def told(what: str) -> Callable[[int, int], None] | None:
        return None if on_progress is None else partial(on_progress, what)

    evaluation = evaluate(
        truth,
        predictions,
        n_resamples_p=n_resamples_p,
        pairs=pairs,
        count_machine_made=count_machine_made,
        on_progress=told("resampling"),
    )
    chosen = {name: predictions[name] for name in (predictions if calibrated is None else calibrated)}
    in_folds = {name: table for name, table in chosen.items() if table.n_folds >= _FOLDS_TO_CALIBRATE}
    if not in_folds:
        return Measured(evaluation)
    calibration = evaluate_calibration(
        truth, in_folds, aim=aim, max_miss_rate=max_miss_rate, on_progress=told("measuring calibrations")
    )
    tables = condition_on_site(truth, in_folds, on_progress=told("learning what sites do"))
    if tables is None:
        return Measured(evaluation, calibration)
    known_site = score_known_site(tables, n_resamples_p=n_resamples_p, on_progress=told("resampling, the site being known"))
    return Measured(evaluation, calibration, known_site)
