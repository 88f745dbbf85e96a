"""Numbers and findings in words: how a report writes an interval, names a winner, and says what its numbers do not cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from predilect.evaluation.scores import Comparison, Evaluation, LesionClassScores, PredilectionGain
from predilect.labels.tasks import LESION, SITE

__all__ = [
    "HEADLINE_METRICS",
    "INTENDED_USE",
    "UNDEFINED",
    "Estimate",
    "Finding",
    "Verdict",
    "cautions",
    "disagree",
    "ensembles",
    "gain_findings",
    "interval",
    "listed",
    "many",
    "number",
    "other_data",
    "p_value",
    "reading_guide",
    "short",
    "shown_side",
    "signed",
    "verdicts",
    "weakened",
]

UNDEFINED = "—"

INTENDED_USE = (
    "For research on labelled photographs, for teaching, and for building and testing software. Not a medical device: not validated "
    "for diagnosis, triage or any decision about a person, and not to be used so."
)
"""What a trained network may be used for."""

HEADLINE_METRICS: Mapping[str, Mapping[str, str]] = {
    LESION: {"map_class": "mAP-class", "map_image": "mAP-image", "map_class_fold_mean": "mAP-class, fold mean"},
    SITE: {"top1": "top-1 accuracy", "top3": "top-3 accuracy", "balanced_accuracy": "balanced accuracy"},
}

_MINUS = "−"
_LEVEL = 0.05
"""A p below it speaks against chance."""
_RARE = 0.1
"""Of the photographs on which it was assessed, at most this share shows a rare lesion."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; None where the number, or the interval, is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence, and whether it claims something or says that nothing is shown."""

    sentence: str
    claimed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be said of one headline comparison.

    Attributes:
        comparison: The comparison judged.
        winner: The better system, or None where no winner is claimed.
        sentence: The finding in plain words, with the numbers it rests on.
    """

    comparison: Comparison
    winner: str | None
    sentence: str


def many(n: int, what: str) -> str:
    """How many of what, such as ``1 row`` and ``1,204 rows``; an English s makes the plural."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def number(value: float | None, digits: int = 3) -> str:
    """A score with three decimals, or a mean of counts with fewer; a dash where it is undefined."""
    return UNDEFINED if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def signed(value: float | None) -> str:
    """A difference with three decimals and its sign; a dash where it is undefined."""
    return UNDEFINED if value is None else f"{value:+.3f}".replace("-", _MINUS)


def short(value: float | None) -> str:
    """Three digits, or all of those before the point; a dash where it is undefined."""
    if value is None:
        return UNDEFINED
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval in brackets; nothing where there is none."""
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def p_value(p: float | None) -> str:
    """A p-value with three decimals, ``"< 0.001"`` below that, a dash where there is none."""
    if p is None:
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def shown_side(low: float | None, high: float | None, p: float | None) -> int:
    """On which side of 0 a difference is shown to lie: 1 or -1, or 0 where it is not shown.

    Its 95 % interval must exclude 0, and its p, where there is one, be below 0.05.
    """
    return 0 if disagree(low, high, p) else _side(low, high)


def disagree(low: float | None, high: float | None, p: float | None) -> bool:
    """Whether only one of a difference's interval and p speaks against chance."""
    return None not in {low, high, p} and (_side(low, high) != 0) != _below(p)


def _side(low: float | None, high: float | None) -> int:
    return _sign(low) if low is not None and high is not None and _sign(low) == _sign(high) else 0


def _below(p: float | None) -> bool:
    return p is not None and p < _LEVEL


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """Judge each headline comparison by the rules of the evaluation.

    A winner is claimed only where the 95 % interval of the paired difference lies wholly on one side of zero, p is below 0.05 and, for
    mAP-class, the mean over folds has the sign of the pooled difference; where no table has folds, the sentence says that this
    could not be checked. The fold mean is not judged a second time by itself.
    """
    headline = [item for item in evaluation.comparisons if item.class_name is None and item.metric != "map_class_fold_mean"]
    return [_verdict(item) for item in headline]


def _verdict(item: Comparison) -> Verdict:
    a, b = item.system_a, item.system_b
    metric = HEADLINE_METRICS[item.task][item.metric]
    if item.difference is None:
        return Verdict(item, None, f"{a} and {b} cannot be compared in {metric}: it is not defined for both.")
    if item.low is None or item.high is None:
        return Verdict(
            item,
            None,
            f"No winner is claimed between {a} and {b} in {metric}: "
            f"the difference of {signed(item.difference)} has no interval, for too few groups.",
        )
    numbers = f"{signed(item.difference)}, 95 % interval {number(item.low)} to {number(item.high)}"
    if item.p is not None:
        numbers += ", p " + (p_value(item.p) if item.p < 0.001 else f"= {p_value(item.p)}")
    side = _side(item.low, item.high)
    if side == 0:
        although = ", although p by itself speaks against chance" if _below(item.p) else ""
        return Verdict(
            item, None, f"No winner is claimed between {a} and {b} in {metric}: the interval includes 0{although} ({numbers})."
        )
    fold_mean = item.fold_mean_difference
    if _sign(item.difference) != side:
        # A percentile interval of a skewed bootstrap need not hold the estimate.
        return Verdict(
            item,
            None,
            f"No winner is claimed between {a} and {b} in {metric}: the difference and its interval disagree in sign ({numbers}).",
        )
    if fold_mean is not None and _sign(fold_mean) != side:
        return Verdict(
            item,
            None,
            f"No winner is claimed between {a} and {b} in {metric}: the pooled scores ({numbers}) and the mean over folds "
            f"({signed(fold_mean)}) disagree in sign.",
        )
    if disagree(item.low, item.high, item.p):
        return Verdict(
            item,
            None,
            f"No winner is claimed between {a} and {b} in {metric}: the interval excludes 0, but p does not speak against chance "
            f"({numbers}).",
        )
    winner, loser = (a, b) if side > 0 else (b, a)
    checked = ""
    if fold_mean is not None:
        checked = f"; the mean over folds agrees in sign ({signed(fold_mean)})"
    elif item.metric == "map_class":
        checked = "; without folds, the mean over folds could not be checked"
    return Verdict(item, winner, f"{winner} is better than {loser} in {metric} ({a} − {b}: {numbers}{checked}).")


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def cautions(evaluation: Evaluation) -> list[str]:
    """What a reader must know of these particular numbers before any of them."""
    truth = evaluation.truth
    found = []
    if not truth.grouped:
        found.append(
            "The truth table names no groups, so each photograph counted as its own group. If several photographs show the same "
            "person or lesion, the intervals are too narrow, and the scores too high where the folds were drawn that way too."
        )
    if truth.machine_made:
        place = "stay out of all means"
        if truth.machine_made_counted:
            place = "are counted in the means, as was asked for, which so tell also how well that model is copied,"
        found.append(
            f"A model, not a person, made the labels of {listed(truth.machine_made)}: they {place} and stand in a table of their own."
        )
    if evaluation.systems and all(len(system.seeds) == 1 for system in evaluation.systems.values()):
        found.append("Each system was trained with one seed only: how much training itself scatters is not seen here.")
    return found


def reading_guide(evaluation: Evaluation) -> list[str]:
    """How the numbers were made, and what they do not cover."""
    guide = [
        (
            "Average precision (AP) is that of the pooled, uncalibrated scores of photographs the system was not trained on, where "
            "folds were given. mAP-class is the mean over lesions that have a known positive, mAP-image the mean over photographs "
            "that do. Unknown labels are left out; they never count as absent."
        ),
        (
            f"Intervals are 95 % percentile intervals over {evaluation.n_resamples:,} resamples of whole groups (seed "
            f"{evaluation.resampling_seed}), the same resamples for all systems; for mAP-class and its fold mean moved so that the resamples’ mean lies at "
            "the estimate, since drawing with replacement raises AP. They cover the sampling of test groups, not "
            "training: the seeds are shown one by one instead."
        ),
        (
            f"p is two-sided, from {evaluation.n_resamples_p:,} resamples of the paired difference. Holm's correction runs over the "
            "lesions of a pair that have at least 10 positive groups; the p of headline metrics is not corrected."
        ),
        (
            "A winner is claimed only where the interval of the difference excludes 0, p is below 0.05 and, for mAP-class, the pooled "
            "difference and the mean over folds have the same sign. Near 0 interval and p, which come from different resamples, may "
            "disagree: then nothing is claimed. Bold in a table marks the highest number of a row and claims nothing."
        ),
    ]
    if _mostly_rare(evaluation):
        guide.append(
            "Most lesions here are rare, and over many rare lesions the 95 % interval of mAP-class covers less than its name: 87 % in "
            "simulated data of 25 lesions that 2 to 10 % of the photographs show, where the estimate itself is too high."
        )
    if evaluation.gains:
        guide.append(
            "Strength is how far a lesion's sites diverge from the base rates of all sites, in bits (Kullback-Leibler), less what sites permuted "
            "over groups give a lesion as rare. Gain and strength are resampled together. Noise on both sides draws their rank correlation "
            "towards 0, and its interval with it."
        )
    names = _names(evaluation)
    if names["undefined"]:
        guide.append(f"No AP, since no photograph is known to show it: {listed(names['undefined'])}.")
    if names["few"]:
        guide.append(f"AP without interval and p, for fewer than 10 positive groups: {listed(names['few'])}.")
    return guide


def ensembles(names: Sequence[str]) -> list[str]:
    """What the ensembles of a run are.

    Args:
        names: ``ensemble`` and ``ensemble-mean``, those that a report shows.
    """
    takes = {"ensemble": "the higher", "ensemble-mean": "the mean"}
    found = [f"{name} takes {takes[name]}" for name in names]
    if not found:
        return []
    first = f"Of the two scores that resnet and mtl give a photograph out of fold, {' and '.join(found)}, lesion by lesion."
    second = (
        "The paper's ensemble is below MTL for 7 of 25 lesions, so it cannot have been the better system for each lesion: that "
        "would be below neither."
    )
    return [f"{first} {second}"]


def gain_findings(pair: PredilectionGain) -> list[str]:
    """What one pair says of the paper's observation that lesions with a strong predilection gain more, and which ones do not gain."""
    r, low, high = pair.rank_correlation, pair.rank_correlation_low, pair.rank_correlation_high
    told = f"{pair.system_a} − {pair.system_b}, {many(len(pair.lesions), 'lesion')}"
    if r is None:
        first = f"{told}: the rank correlation of gain and strength is not defined."
    elif low is None or high is None:
        first = f"{told}: the rank correlation of gain and strength is {number(r)}, without an interval; nothing follows from it."
    else:
        numbers = f"(rank correlation {number(r)}, 95 % interval {number(low)} to {number(high)})"
        if low <= 0 <= high or _sign(r) != _sign(low):
            first = (
                f"{told}: it is not shown that lesions with a stronger predilection gain more, nor that they gain less {numbers}."
            )
        else:
            first = f"{told}: lesions with a stronger predilection gain {'more' if low > 0 else 'less'} {numbers}."
    found = [first, *weakened(r, low, high)]
    odd = [item.lesion for item in pair.lesions if item.strong_without_gain]
    if odd:
        return [*found, f"A strong predilection without gain, as alopecia had in the paper: {listed(odd)}."]
    return [*found, "No lesion had a strong predilection without gain, as alopecia had in the paper."]


def weakened(correlation: float | None, low: float | None, high: float | None) -> list[str]:
    """Why an interval may lie more towards 0 than its rank correlation: a sentence, where that is beyond the interval's middle half."""
    if correlation is None or low is None or high is None:
        return []
    side = _sign(correlation)
    beyond = side * (correlation - (low + high) / 2) > (high - low) / 4
    if not beyond or side * (low + high) < 0:  # noise weakens a correlation, and does not turn it round
        return []
    reason = "groups drawn anew add noise to both sides, which weakens a correlation, and one near its limit can only become weaker"
    return [f"The interval lies more towards 0 than the correlation: {reason}."]


def other_data(dataset: str, n_images: int, n_lesions: int) -> str:
    """That the paper's numbers, in grey, are those of other photographs."""
    return (
        f"Grey are the paper's own numbers, from another data set ({dataset}, {n_images:,} photographs, {n_lesions} lesions): they do "
        "not compare in height."
    )


def _per_class(evaluation: Evaluation) -> Mapping[str, LesionClassScores]:
    """The lesions as the first system with lesions has them; counts are those of all."""
    return next((system.lesion.per_class for system in evaluation.systems.values() if system.lesion is not None), {})


def _mostly_rare(evaluation: Evaluation) -> bool:
    """Whether of the lesions in mAP-class most, and at least five, are rare."""
    counted = [
        item
        for item in _per_class(evaluation).values()
        if item.ap is not None and (evaluation.truth.machine_made_counted or not item.machine_made)
    ]
    n_rare = sum(item.n_positive <= _RARE * item.n_known for item in counted)
    return n_rare >= 5 and 2 * n_rare > len(counted)


def _names(evaluation: Evaluation) -> dict[str, list[str]]:
    per_class = _per_class(evaluation)
    return {
        "undefined": [name for name, item in per_class.items() if item.ap is None],
        "few": [name for name, item in per_class.items() if item.ap is not None and item.ap_low is None],
    }


def listed(names: Sequence[str]) -> str:
    """Names with commas between them and an ``and`` before the last."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
