"""Calibration in words: what may be said of these numbers, and what they do not cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from predilect.evaluation.calibration_scores import CalibrationEvaluation, Number, Reliability, SetScores, SystemCalibration
from predilect.report.calibration_figure import common_lesions
from predilect.report.wording import Finding, listed, many, number, signed

__all__ = [
    "calibration_caption",
    "calibration_findings",
    "calibration_guide",
    "calibration_label",
    "calibration_method",
    "drawn_system",
]

_METHODS: Mapping[str, str] = {
    "isotonic": "isotonic",
    "platt": "Platt",
    "temperature": "temperature",
    "none": "none: too little to fit",
}


def drawn_system(evaluation: CalibrationEvaluation) -> str | None:
    """The system whose reliability diagrams a report shows: the last that has any and predicts the most tasks; None if none has."""
    drawn = [name for name, system in evaluation.systems.items() if common_lesions(system) or _has_site(system)]
    return max(reversed(drawn), key=lambda name: _n_tasks(evaluation.systems[name]), default=None)


def calibration_caption(evaluation: CalibrationEvaluation, system: str) -> str:
    """What the figure of one system shows and how to read it."""
    n = len(common_lesions(evaluation.systems[system]))
    lesions = f"the {n} lesions in most groups" if n > 1 else "the most common lesion"
    shown = listed([*([lesions] if n else []), *(["the site"] if _has_site(evaluation.systems[system]) else [])])
    return (
        f"Reliability of {system}, for {shown}: photographs in ten bins of equally many by their probability; for each bin, "
        "of how many it is true. On the diagonal probabilities mean what they say; below it the network is too sure of a lesion. Both axes "
        "run by the square root and end where the dots do. Whiskers are 95 % intervals over groups. ECE is the expected calibration error."
    )


def calibration_label(evaluation: CalibrationEvaluation, system: str) -> str:
    """The figure of one system for those who do not see it."""
    shown = evaluation.systems[system]
    said = [(name, shown.lesions[name]) for name in common_lesions(shown)]
    if shown.site is not None and _has_site(shown):
        said.append(("most probable site", shown.site))
    errors = ", ".join(f"{name} {number(item.before.ece.value)} and {number(item.after.ece.value)}" for name, item in said)
    return f"Expected calibration error of {system} before and after calibration: {errors}. The numbers are in the table of calibration."


def calibration_method(item: Reliability, n_folds: int) -> str:
    """How a lesion or the site is calibrated in a bundle, and in how many of the folds it was not for the report."""
    method = _METHODS[item.method]
    if item.n_folds_as_they_were and item.method != "none":
        return f"{method}; in {item.n_folds_as_they_were} of {many(n_folds, 'fold')} none"
    return method


def calibration_findings(evaluation: CalibrationEvaluation) -> list[Finding]:
    """What may be said of calibration and sets; a claim needs an interval that lies wholly on one side."""
    found = []
    for name, system in evaluation.systems.items():
        if system.mean is not None:
            found.append(_changed(f"{name}, mean over {system.mean.n_lesions} lesions", system.mean.ece_change))
        if system.site is not None and system.site.ece_change.value is not None:
            found.append(_changed(f"{name}, most probable site", system.site.ece_change))
        if system.sets is not None:
            found += list(_kept(name, system.sets))
        found += list(_as_they_were(name, system))
    return found


def calibration_guide(evaluation: CalibrationEvaluation) -> list[str]:
    """How the numbers were made, and what they do not cover."""
    guide = [
        (
            "Calibration: what is said of one fold was fitted on the others: isotonic from 200 positive and 200 negative groups of a lesion on, "
            "logistic (Platt) from 10 of each, one temperature for the site. A bundle's calibration is fitted on all folds: it comes from "
            "the folds' networks and is applied to another, of the same recipe. Machine-made labels are calibrated to the model that made them."
        ),
        (
            "The expected calibration error (ECE) is the mean distance of what is said from how often it is true, over ten bins of equally "
            "many photographs. It is above 0 by chance alone; by how much stands beside it. The Brier score is the mean squared distance, "
            "which also counts how well photographs are told apart; the base rate's is that of saying the same of every photograph. Average precision "
            "is that of uncalibrated scores everywhere: one calibration leaves the order of photographs as it is, but pooling folds with "
            "one each does not."
        ),
    ]
    if any(system.sets for system in evaluation.systems.values()):
        guide.append(
            f"Sets of lesions that cannot be excluded leave out at most {100 * evaluation.max_miss_rate:g} % of the lesions of a random photograph of a "
            "random group, in expectation (conformal risk control). That bound is marginal: single lesions, sites or kinds of patients may be "
            "above it, and so may another clinic's. An answer is unsure where no lesion is decided to be present while some cannot be excluded."
        )
    return guide


def _changed(what: str, change: Number) -> Finding:
    if change.low is None or change.high is None:
        return Finding(f"{what}: the change of the calibration error has no interval, for too few groups.", claimed=False)
    numbers = f"change {signed(change.value)}, 95 % interval {number(change.low)} to {number(change.high)}"
    if change.low <= 0 <= change.high:
        return Finding(f"{what}: it is not shown that calibration changes the calibration error ({numbers}).", claimed=False)
    return Finding(
        f"{what}: calibration {'lowers' if change.high < 0 else 'raises'} the calibration error ({numbers}).", claimed=True
    )


def _kept(name: str, sets: SetScores) -> Iterator[Finding]:
    if sets.miss_rate.value is None:
        return
    told = f"{name}: sets asked to leave out at most {100 * sets.max_miss_rate:g} % of a photograph's lesions"
    size = f"they hold {number(sets.mean_size.value, 1)} lesions on average, and {number(sets.share_unsure.value)} of the answers are unsure"
    if sets.miss_rate.low is None or sets.miss_rate.high is None:
        yield Finding(f"{told} leave out {number(sets.miss_rate.value)}, without an interval; {size}.", claimed=False)
        return
    numbers = f"{number(sets.miss_rate.value)}, 95 % interval {number(sets.miss_rate.low)} to {number(sets.miss_rate.high)}"
    if sets.miss_rate.low > sets.max_miss_rate:
        yield Finding(f"{told} leave out more ({numbers}); {size}.", claimed=True)
    else:
        yield Finding(f"{told} leave out {numbers}; {size}.", claimed=sets.miss_rate.high <= sets.max_miss_rate)


def _as_they_were(name: str, system: SystemCalibration) -> Iterator[Finding]:
    few = [lesion for lesion, item in system.lesions.items() if item.method == "none"]
    if few:
        yield Finding(f"{name}: scores stand as the network gave them, for too few groups, of {listed(few)}.", claimed=False)


def _has_site(system: SystemCalibration) -> bool:
    return system.site is not None and bool(system.site.after.bins)


def _n_tasks(system: SystemCalibration) -> int:
    return bool(common_lesions(system)) + _has_site(system)
