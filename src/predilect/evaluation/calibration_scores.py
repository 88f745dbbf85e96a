"""The results of calibration as types: what a report holds of probabilities, decisions and sets.

Everything is measured on folds that the calibration, thresholds and sets were not fitted on. A number that is not defined is None
(null in JSON), never NaN. Intervals are 95 % percentile intervals of a bootstrap over groups.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = [
    "CalibrationEvaluation",
    "LesionDecisions",
    "MeanReliability",
    "Number",
    "Reliability",
    "ReliabilityBin",
    "ReliabilityState",
    "SetScores",
    "SystemCalibration",
]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Number(_Result):
    """A number with its 95 % interval over groups; None where the number, or the interval, is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ReliabilityBin(_Result):
    """One point of a reliability diagram, all seeds together.

    Attributes:
        probability: Mean of what was said.
        frequency: Share of photographs of which it was true, with its interval.
        n: Photographs, on average over seeds.
    """

    probability: float
    frequency: Number
    n: float


class ReliabilityState(_Result):
    """Probabilities as they were, or as they are after calibration; numbers are averaged over seeds.

    Attributes:
        ece: Expected calibration error: mean over photographs of the distance between a bin's mean probability and the frequency in
            it. It is above 0 by chance alone; the interval is moved so that the mean of its resamples lies at the estimate.
        ece_by_chance: What it would be on average, were the probabilities right and the bins to scatter as they do.
        brier: Mean squared distance of probability and truth; of the site, summed over sites.
        bins: Of the reliability diagram.
    """

    ece: Number
    ece_by_chance: float | None
    brier: Number
    bins: tuple[ReliabilityBin, ...]


class Reliability(_Result):
    """One lesion, or the site, before and after calibration, on the same resamples.

    Attributes:
        method: Of the calibration fitted on all photographs: ``isotonic``, ``platt``, ``temperature`` or ``none``.
        n_folds_as_they_were: Folds whose others had too few groups, so that what is reported of them was not calibrated.
        machine_made: The labels were made by a model.
        n_known: Photographs whose label is known.
        n_positive: Those that show the lesion; of the site, all of them.
        n_positive_groups: Groups of these. Below 10, or below 10 groups without the lesion, there are no intervals.
        base_rate_brier: The Brier score of saying every photograph the share of positives.
        before: As the network said it.
        after: Calibrated on other folds.
        ece_change: After minus before; its interval is moved as those of both.
        brier_change: After minus before.
    """

    method: str
    n_folds_as_they_were: int
    machine_made: bool
    n_known: int
    n_positive: int
    n_positive_groups: int
    base_rate_brier: float | None
    before: ReliabilityState
    after: ReliabilityState
    ece_change: Number
    brier_change: Number


class MeanReliability(_Result):
    """Means over the lesions that persons labelled and that have intervals; see `Reliability`.

    Attributes:
        n_lesions: How many those are.
        ece_before: Of `ReliabilityState.ece`.
        ece_after: Likewise.
        ece_change: After minus before.
        brier_before: Of `ReliabilityState.brier`.
        brier_after: Likewise.
        brier_change: After minus before.
    """

    n_lesions: int
    ece_before: Number
    ece_after: Number
    ece_change: Number
    brier_before: Number
    brier_after: Number
    brier_change: Number


class LesionDecisions(_Result):
    """What the threshold of one lesion does, on folds other than those it was fitted on; averaged over seeds.

    Attributes:
        threshold: On the calibrated probability, fitted on all photographs; None: nothing is decided.
        machine_made: The labels were made by a model.
        n_known: Photographs whose label is known.
        n_decided: Those of them that were decided on. Fewer where the groups outside a fold were too few for a threshold: what follows
            is of the others alone.
        n_positive: Photographs that show the lesion.
        n_positive_decided: Those of them that were decided on.
        sensitivity: Of the photographs decided on that show the lesion, the share found. Below 10 groups of these, or of those that do
            not show it, there are no intervals.
        specificity: Of those that do not, the share passed over.
        precision: Of those found, the share that show it.
        f1: Harmonic mean of precision and sensitivity.
    """

    threshold: float | None
    machine_made: bool
    n_known: int
    n_decided: int
    n_positive: int
    n_positive_decided: int
    sensitivity: Number
    specificity: Number
    precision: Number
    f1: Number


class SetScores(_Result):
    """What the sets of lesions that cannot be excluded do, on folds other than those they were fitted on; averaged over seeds.

    Attributes:
        max_miss_rate: The bound that was asked for.
        threshold: On the calibrated probability, fitted on all photographs.
        n_groups: Groups with a photograph that shows a lesion.
        miss_rate: Mean over these groups: of the lesions that a random photograph of the group shows, the share left out.
        mean_size: Lesions in a set, mean over all photographs.
        share_empty: Of all photographs, those in which every lesion is excluded.
        share_unsure: Of all photographs, those in which none is decided to be present while some cannot be excluded.
    """

    max_miss_rate: float
    threshold: float
    n_groups: int
    miss_rate: Number
    mean_size: Number
    share_empty: Number
    share_unsure: Number


class SystemCalibration(_Result):
    """One system.

    Attributes:
        lesions: By name, in class order; empty if it predicts none.
        mean: Over lesions; None if none of them has intervals.
        site: Of the most probable site: how probable, and whether it was right, where a tie is not; None if it predicts no site.
        decisions: By lesion; empty with fewer than three folds, since thresholds need two and are reported on a third.
        sets: None with fewer than three folds.
    """

    lesions: dict[str, Reliability]
    mean: MeanReliability | None
    site: Reliability | None
    decisions: dict[str, LesionDecisions]
    sets: SetScores | None


class CalibrationEvaluation(_Result):
    """Everything that is measured of the calibration of one or more systems.

    Attributes:
        systems: By name.
        aim: Of the thresholds, such as ``f1`` or ``sensitivity=0.9``.
        max_miss_rate: Bound on the false-negative rate of the sets.
        n_images: Photographs.
        n_groups: Groups of them.
        n_folds: Folds.
        n_resamples: Behind each interval.
        resampling_seed: Of these.
    """

    systems: dict[str, SystemCalibration]
    aim: str
    max_miss_rate: float
    n_images: int
    n_groups: int
    n_folds: int
    n_resamples: int
    resampling_seed: int
