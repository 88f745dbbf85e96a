"""The results of looking at attention as types: what `report.json` holds under `attention`.

Every mean is over photographs, each of them averaged over training seeds first, with a 95 % interval over groups (see
`group_means.GroupMean`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from predilect.evaluation.group_means import GroupMean, PairedDifference

__all__ = [
    "AttentionEvaluation",
    "Coincidence",
    "CoincidenceGain",
    "CurveComparison",
    "HeadAttention",
    "LesionCoincidence",
    "LesionCoincidenceGain",
    "MapCurves",
    "MeanCurve",
    "Perturbation",
    "Randomisation",
    "SystemAttention",
]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LesionCoincidence(_Result):
    """How much the maps of a lesion and of the site coincide, over the tested photographs that are known to show the lesion.

    Attributes:
        lesion: The lesion.
        correlation: Pearson's, of the two maps over their cells.
        overlap: Intersection over union of the cells where each is highest, the top 20 %; for chance see
            `SystemAttention.overlap_by_chance`.
        shortcut: Whether the two maps are nearly the same, by the thresholds of the evaluation.
    """

    lesion: str
    correlation: GroupMean
    overlap: GroupMean
    shortcut: bool


class LesionCoincidenceGain(_Result):
    """A lesion's gain in average precision from learning the site, beside the correlation of its two maps."""

    lesion: str
    gain: float
    gain_low: float | None
    gain_high: float | None
    correlation: float


class CoincidenceGain(_Result):
    """Gain of each lesion against the coincidence of its maps.

    Attributes:
        system_a: The system with both heads.
        system_b: Its baseline, which predicts lesions only.
        lesions: Those that people labelled, shown by at least 10 groups with two maps that can be compared.
        rank_correlation: Spearman's, of gain and correlation over these lesions; None below four of them or where it is not
            defined.
        rank_correlation_low: Lower end of its 95 % interval; gain and correlation are resampled together.
        rank_correlation_high: Upper end.
        n_resamples_defined: In how many resamples it was defined.
    """

    system_a: str
    system_b: str
    lesions: tuple[LesionCoincidenceGain, ...]
    rank_correlation: float | None
    rank_correlation_low: float | None
    rank_correlation_high: float | None
    n_resamples_defined: int


class Coincidence(_Result):
    """The maps of lesions and sites of one system.

    Attributes:
        correlation: Over photographs, each with the mean of its lesions that people labelled.
        overlap: The same.
        lesions: One by one, those that no tested photograph shows left out.
        gains: Against each baseline of the run.
    """

    correlation: GroupMean
    overlap: GroupMean
    lesions: tuple[LesionCoincidence, ...]
    gains: tuple[CoincidenceGain, ...]


class MeanCurve(_Result):
    """A curve averaged over photographs, point by point.

    Attributes:
        value: (steps + 1,) the means.
        low: Lower ends of their 95 % intervals; None below 10 groups.
        high: Upper ends.
    """

    value: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None


class MapCurves(_Result):
    """The score of the predicted class while pixels go, and while they come, in the order of one kind of map.

    Attributes:
        deletion: The score at each of the shares that were replaced by the blurred photograph.
        insertion: The score with only that share shown.
        deletion_area: Area under the curve of each photograph; a true map has a small one.
        insertion_area: A true map has a large one.
    """

    deletion: MeanCurve
    insertion: MeanCurve
    deletion_area: GroupMean
    insertion_area: GroupMean


class CurveComparison(_Result):
    """The area under the curve of the map minus that of a baseline; a true map has less in deletion and more in insertion."""

    curve: Literal["deletion", "insertion"]
    baseline: str
    difference: PairedDifference


class Perturbation(_Result):
    """Deletion and insertion of one head.

    Attributes:
        shares: From 0 to 1, of pixels.
        maps: By ``map``, ``random`` and ``gaussian``.
        comparisons: Of the map with each of the other two.
    """

    shares: tuple[float, ...]
    maps: dict[str, MapCurves]
    comparisons: tuple[CurveComparison, ...]


class Randomisation(_Result):
    """Maps of the trained network against those of the same architecture with random weights, for the same class.

    Attributes:
        rank_correlation: Spearman's, over the cells.
        absolute: Its absolute value, since heads of random weights have random signs.
        unrelated: The absolute value between the trained network's maps of different photographs: what maps as coarse as these
            have in common by chance and by habit.
    """

    rank_correlation: GroupMean
    absolute: GroupMean
    unrelated: GroupMean


class HeadAttention(_Result):
    """What checks one head's maps, over a sample of tested photographs."""

    perturbation: Perturbation
    randomisation: Randomisation


class SystemAttention(_Result):
    """The attention of one system.

    Attributes:
        method: ``cam``, exact, or ``grad-cam``, an approximation.
        cells: Rows and columns of its maps of the centre crop.
        overlap_by_chance: Of the highest 20 % of so many cells in two maps that know nothing of each other, on average.
        coincidence: None without two heads, or where no photograph shows a lesion.
        heads: By task; none where no photograph was drawn.
    """

    method: Literal["cam", "grad-cam"]
    cells: tuple[int, int]
    overlap_by_chance: float
    coincidence: Coincidence | None
    heads: dict[str, HeadAttention]


class AttentionEvaluation(_Result):
    """Everything that is computed from the maps of one or more systems.

    Attributes:
        systems: Those that can be explained.
        unexplained: Why others cannot, by system.
        seeds: Training seeds.
        sample: How many tested photographs were drawn for the checks; the same ones for all systems and seeds.
        shortcut_correlation: From this mean correlation on, and
        shortcut_overlap: from this mean overlap on, two maps are nearly the same.
        n_resamples: Behind each interval.
        n_resamples_p: Behind each p.
        resampling_seed: Of both.
    """

    systems: dict[str, SystemAttention]
    unexplained: dict[str, str]
    seeds: tuple[int, ...]
    sample: int
    shortcut_correlation: float
    shortcut_overlap: float
    n_resamples: int
    n_resamples_p: int
    resampling_seed: int
