"""What a system answers about a photograph: probabilities, decisions, what cannot be excluded, and whether it is unsure.

For a bundle, the calibration is fitted on the out-of-fold predictions of all photographs. Thresholds and sets are fitted on
probabilities calibrated by the nesting rule, since a calibration flatters the photographs that it was fitted on, and by the bundle's
methods, so that a threshold is of the scale that it is applied on. For reporting, all of this is done anew without fold f, the choice of
methods too, and what comes out answers for fold f.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from predilect.evaluation.calibration import Calibration
from predilect.evaluation.calibration_fit import CrossFits
from predilect.evaluation.conformal import ConformalSets, fit_conformal_sets
from predilect.evaluation.decisions import Aim, Thresholds, fit_thresholds
from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.nesting import MatchedSeeds
from predilect.labels.tasks import LESION, LabelSpace
from predilect.predictions import Predictions, Truth

__all__ = ["MAX_MISS_RATE", "MISS_RATES", "AnswerRule", "Answers", "answer_rule", "answers_out_of_fold", "fit_answer_rule"]

MAX_MISS_RATE = 0.1
MISS_RATES = (0.0001, 0.9)
"""Between them lies a bound that can be asked for: the first takes 9,999 groups, and by the second nearly all may be left out."""


@plain_dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What is said of N photographs.

    Attributes:
        probabilities: By task, (N, C).
        decided: (N, C) of 1 present, 0 absent, -1 not decided, by lesion; None without lesions.
        possible: (N, C), which lesions cannot be excluded; None without lesions.
        unsure: (N,), whether no lesion is decided to be present while some cannot be excluded; None without lesions.
    """

    probabilities: Mapping[str, NDArray[np.float32]]
    decided: NDArray[np.int8] | None
    possible: NDArray[np.bool_] | None
    unsure: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, config=STRICT)
class AnswerRule(Fitted):
    """Everything that turns a network's scores into answers.

    Attributes:
        calibration: Of scores.
        thresholds: On calibrated probabilities of lesions; None without lesions.
        sets: Likewise.

    Raises:
        ValueError: If the parts are not of the same lesions.
    """

    calibration: Calibration
    thresholds: Thresholds | None
    sets: ConformalSets | None

    def __post_init__(self) -> None:
        names = tuple(item.name for item in self.calibration.lesions)
        decided = () if self.thresholds is None else tuple(item.name for item in self.thresholds.lesions)
        if not names == decided == (() if self.sets is None else self.sets.lesions):
            raise ValueError("calibration, thresholds and sets must be of the same lesions in the same order")

    def check_labels(self, labels: LabelSpace) -> None:
        """Make sure that it was fitted for these classes in this order.

        Raises:
            ValueError: If not.
        """
        self.calibration.check_labels(labels)

    def apply(self, scores: Mapping[str, NDArray[np.floating[Any]]]) -> Answers:
        """Answer for what a network said.

        Args:
            scores: By task (N, C) as the network gives them, in class order; one task alone is allowed.

        Raises:
            ValueError: If a task was not fitted, or the classes are not as many.
        """
        return self.answer(self.calibration.apply(scores))

    def answer(self, probabilities: Mapping[str, NDArray[np.float32]]) -> Answers:
        """Answer for probabilities: calibrated ones, or those that a given site has changed after that.

        Args:
            probabilities: By task (N, C), in class order; one task alone is allowed.

        Raises:
            ValueError: If the lesions are not as many.
        """
        if LESION not in probabilities or self.thresholds is None or self.sets is None:
            return Answers(probabilities, None, None, None)
        decided = self.thresholds.apply(probabilities[LESION])
        possible = self.sets.apply(probabilities[LESION])
        return Answers(probabilities, decided, possible, self.sets.unsure(decided, possible))


def fit_answer_rule(
    predictions: Predictions, truth: Truth, *, aim: Aim | None = None, max_miss_rate: float = MAX_MISS_RATE
) -> AnswerRule:
    """Fit on out-of-fold predictions what a bundle needs.

    Args:
        predictions: Of one system, any number of seeds, with at least two folds.
        truth: Of the same photographs.
        aim: Of the thresholds; None: the largest F1.
        max_miss_rate: Bound on the expected false-negative rate of the sets, between 0 and 1.

    Raises:
        TableError: If there are fewer than two folds, the predictions do not match the truth, or a group lies in two folds.
    """
    fits = CrossFits(MatchedSeeds.of(predictions, truth))
    fits.matched.fold_numbers(at_least=2)
    return answer_rule(fits, [], aim or Aim(), max_miss_rate)


def answers_out_of_fold(fits: CrossFits, aim: Aim, max_miss_rate: float) -> dict[int, Answers]:
    """Answer for each fold by a rule fitted as a bundle's would be, on the other folds alone.

    Args:
        fits: Of one system with N photographs.
        aim: Of the thresholds.
        max_miss_rate: Of the sets.

    Returns:
        By seed, answers for the N photographs in the truth's order.

    Raises:
        TableError: If there are fewer than three folds: a rule needs two.
    """
    matched = fits.matched
    parts: dict[int, list[tuple[NDArray[np.int64], Answers]]] = {seed: [] for seed in matched.tables}
    for fold in matched.fold_numbers(at_least=3):
        rule, rows = answer_rule(fits, [fold], aim, max_miss_rate), matched.rows(only=[fold])
        for seed, table in matched.tables.items():
            parts[seed].append((rows, rule.apply({task: table.scores[task][rows] for task in matched.tasks})))
    return {seed: _joined(of_seed) for seed, of_seed in parts.items()}


def answer_rule(fits: CrossFits, left_out: Collection[int], aim: Aim, max_miss_rate: float) -> AnswerRule:
    """Fit a rule on the folds that are not left out, of which there must be two."""
    calibration = fits.without(left_out)
    if LESION not in fits.matched.tasks:
        return AnswerRule(calibration, None, None)
    rows = fits.matched.rows(without=left_out)
    by_seed = fits.nested(rows, left_out)
    probabilities = np.concatenate([scores[LESION] for scores in by_seed.values()])
    _, values, groups = fits.matched.pooled(rows)
    task = fits.matched.truth.labels[LESION]
    return AnswerRule(
        calibration,
        fit_thresholds(task, probabilities, values[LESION], groups, aim),
        fit_conformal_sets(task, probabilities, values[LESION], groups, max_miss_rate),
    )


def _joined(parts: list[tuple[NDArray[np.int64], Answers]]) -> Answers:
    """Answers for the folds, put into the order of rows."""
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    answers = [answer for _, answer in parts]

    def whole(pieces: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(pieces)[order]

    decided = [answer.decided for answer in answers if answer.decided is not None]
    possible = [answer.possible for answer in answers if answer.possible is not None]
    doubted = [answer.unsure for answer in answers if answer.unsure is not None]
    return Answers(
        {task: whole([answer.probabilities[task] for answer in answers]) for task in answers[0].probabilities},
        whole(decided) if decided else None,
        whole(possible) if possible else None,
        whole(doubted) if doubted else None,
    )
