"""From out-of-fold predictions to every number on their calibration: fitted on other folds, measured on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.answer_measures import DecisionCounts, SetSums
from predilect.evaluation.answers import MAX_MISS_RATE, AnswerRule, answer_rule, answers_out_of_fold
from predilect.evaluation.calibration import Calibration
from predilect.evaluation.calibration_fit import CrossFits
from predilect.evaluation.calibration_methods import count_groups
from predilect.evaluation.calibration_scores import (
    CalibrationEvaluation,
    LesionDecisions,
    MeanReliability,
    Reliability,
    SetScores,
    SystemCalibration,
)
from predilect.evaluation.decisions import Aim
from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS, Counts, resample_groups
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats, site_rank
from predilect.evaluation.nesting import MatchedSeeds
from predilect.evaluation.reliability import Drawn, Outcomes, Resampled, interval, moved_interval, resample, state
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Predictions, Truth

__all__ = ["evaluate_calibration"]


def evaluate_calibration(
    truth: Truth,
    systems: Mapping[str, Predictions],
    *,
    aim: Aim | None = None,
    max_miss_rate: float = MAX_MISS_RATE,
    n_resamples: int = 1_000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> CalibrationEvaluation:
    """Calibrate systems by the nesting rule, and measure what that does.

    All systems, seeds and sides are measured on the same resamples of groups.

    Args:
        truth: What is known of N photographs.
        systems: Each system's out-of-fold predictions of them, of one or several training seeds, with at least two folds.
        aim: Of the thresholds; None: the largest F1.
        max_miss_rate: Bound on the expected false-negative rate of the sets, between 0 and 1.
        n_resamples: For intervals, at least 1.
        seed: Of the resampling.
        on_progress: Called with the systems done so far and all there are.

    Raises:
        TableError: If there are fewer than two folds, a table does not match the truth, or a group lies in two folds.
        ValueError: If there is no system, or a number is out of its range.
    """
    if not systems or n_resamples < 1 or not 0 < max_miss_rate < 1:
        raise ValueError(f"found {len(systems)} systems, {n_resamples} resamples and a bound of {max_miss_rate}")
    n_groups = int(truth.group_indices().max()) + 1
    n_folds = 0
    found = {}
    if on_progress is not None:
        on_progress(0, len(systems))
    for name, predictions in systems.items():
        fits = CrossFits(MatchedSeeds.of(predictions, truth))
        n_folds = len(fits.matched.fold_numbers(at_least=2))
        found[name] = _System.of(fits, aim or Aim(), max_miss_rate, resample_groups(n_groups, n_resamples, seed)).scores()
        if on_progress is not None:
            on_progress(len(found), len(systems))
    return CalibrationEvaluation(
        systems=found,
        aim=str(aim or Aim()),
        max_miss_rate=max_miss_rate,
        n_images=len(truth),
        n_groups=n_groups,
        n_folds=n_folds,
        n_resamples=n_resamples,
        resampling_seed=seed,
    )


_Key = tuple[str, str, int | None]  # column, side, and seed; None: all seeds together
_BEFORE, _AFTER, _DECIDED, _SETS = "before", "after", "decided", "sets"
_ECE, _BRIER = 0, 1
_MIN_FOLDS_FOR_ANSWERS = 3  # thresholds and sets need two, and are reported on a third


@dataclass(frozen=True, eq=False, slots=True)
class _Class:
    """A lesion, or the site as a whole.

    Attributes:
        name: Of the lesion, or ``"site"``.
        column: ``lesion/<name>``, or ``"site"``.
        k: Place of the lesion on the class axis; None for the site.
        machine: Its labels were made by a model.
        rows: Photographs whose label is known; for the site, those whose site a person named.
        labels: (n,) of these: 1 or 0; for the site 1.
        enough: Whether there are groups enough for intervals.
    """

    name: str
    column: str
    k: int | None
    machine: bool
    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
    enough: bool

    @classmethod
    def all_of(cls, matched: MatchedSeeds) -> list[_Class]:
        found = []
        truth = matched.truth
        if LESION in matched.tasks:
            task = truth.labels[LESION]
            for k, (name, column, human) in enumerate(zip(task.classes, task.columns, counted_classes(task), strict=True)):
                rows = np.flatnonzero(truth.values[LESION][:, k] >= 0)
                labels = truth.values[LESION][rows, k]
                enough = min(count_groups(labels, matched.groups[rows])) >= MIN_POSITIVE_GROUPS
                found.append(cls(name, column, k, not human, rows, labels, enough))
        if SITE in matched.tasks:
            rows = np.flatnonzero((truth.values[SITE][:, counted_classes(truth.labels[SITE])] == 1).any(axis=1))
            labels = np.ones(len(rows), dtype=np.int8)
            enough = len(np.unique(matched.groups[rows])) >= MIN_POSITIVE_GROUPS
            found.append(cls(SITE, SITE, None, machine=False, rows=rows, labels=labels, enough=enough))
        return found

    def said(self, scores: Mapping[str, NDArray[np.float32]], truth: Truth) -> tuple[Floats, NDArray[np.bool_], Floats]:
        """Of the n photographs, what was said, whether it was true, and the squared distance of both."""
        if self.k is not None:
            p, true = scores[LESION][self.rows, self.k].astype(np.float64), self.labels == 1
            return p, true, (p - true) ** 2
        sites, labels = scores[SITE][self.rows].astype(np.float64), truth.values[SITE][self.rows]
        return sites.max(axis=1), site_rank(sites, labels) == 1, ((sites - labels) ** 2).sum(axis=1)

    def base_rate_brier(self, truth: Truth) -> float | None:
        """The Brier score of saying the same of every photograph: how often each thing is true."""
        if not len(self.rows):
            return None
        shares = self.labels.mean() if self.k is not None else truth.values[SITE][self.rows].mean(axis=0)
        return float(np.sum(shares * (1 - shares)))


@dataclass(frozen=True, eq=False, slots=True)
class _System:
    """One system with all that was measured of it.

    Attributes:
        fits: Its calibrations.
        rule: What a bundle would hold.
        classes: Lesions, then the site.
        pooled: By class and side, all seeds together.
        decided: Of lesions, by column, decisions with the first seed; which photographs are decided on is the same with all.
        drawn: All numbers, by class, side and seed.
    """

    fits: CrossFits
    rule: AnswerRule
    classes: list[_Class]
    pooled: Mapping[tuple[str, str], Outcomes]
    decided: Mapping[str, DecisionCounts]
    drawn: Mapping[_Key, Drawn]

    @classmethod
    def of(cls, fits: CrossFits, aim: Aim, max_miss_rate: float, blocks: Iterable[Counts]) -> _System:
        matched = fits.matched
        rule = answer_rule(fits, [], aim, max_miss_rate)
        classes = _Class.all_of(matched)
        n_groups = int(matched.groups.max()) + 1
        sides: dict[str, Mapping[int, Mapping[str, NDArray[np.float32]]]] = {
            _BEFORE: {seed: table.scores for seed, table in matched.tables.items()},
            _AFTER: fits.out_of_fold(matched.rows()),
        }
        measures: dict[_Key, Resampled] = {}
        pooled: dict[tuple[str, str], Outcomes] = {}
        counted: dict[str, DecisionCounts] = {}
        for each in classes:
            groups = matched.groups[each.rows]
            for side, by_seed in sides.items():
                said = {seed: each.said(scores, matched.truth) for seed, scores in by_seed.items()}
                for seed, parts in said.items():
                    measures[each.column, side, seed] = Outcomes.of(*parts, groups, n_groups)
                p, true, squares = (np.concatenate(parts) for parts in zip(*said.values(), strict=True))
                whole = Outcomes.of(p, true, squares, np.tile(groups, len(said)), n_groups)
                measures[each.column, side, None] = pooled[each.column, side] = whole
        if rule.sets is not None and len(matched.fold_numbers(at_least=2)) >= _MIN_FOLDS_FOR_ANSWERS:
            for seed, answers in answers_out_of_fold(fits, aim, max_miss_rate).items():
                labels = matched.truth.values[LESION]
                measures["", _SETS, seed] = SetSums.of(answers, labels, rule.sets.promised, matched.groups, n_groups)
                assert answers.decided is not None
                for each in classes:
                    if each.k is not None:
                        decided = answers.decided[:, each.k]
                        counts = DecisionCounts.of(decided, labels[:, each.k], matched.groups, n_groups)
                        measures[each.column, _DECIDED, seed] = counts
                        counted.setdefault(each.column, counts)
        return cls(fits, rule, classes, pooled, counted, resample(measures, blocks))

    def scores(self) -> SystemCalibration:
        """All of it as results."""
        reliability = {each.column: self._reliability(each) for each in self.classes}
        lesions = [each for each in self.classes if each.k is not None]
        return SystemCalibration(
            lesions={each.name: reliability[each.column] for each in lesions},
            mean=self._mean([each for each in lesions if each.enough and not each.machine]),
            site=reliability.get(SITE),
            decisions={each.name: self._decisions(each) for each in lesions} if self._has_answers else {},
            sets=self._sets() if self._has_answers else None,
        )

    @property
    def _has_answers(self) -> bool:
        return any(side == _SETS for _, side, _ in self.drawn)

    def _seeds(self, column: str, side: str) -> list[Drawn]:
        return [self.drawn[column, side, seed] for seed in self.fits.matched.tables]

    def _errors(self, column: str, side: str) -> Drawn:
        """Calibration error and Brier score, averaged over seeds."""
        return Drawn.mean([each.first(2) for each in self._seeds(column, side)])

    def _reliability(self, each: _Class) -> Reliability:
        truth = self.fits.matched.truth
        groups = self.fits.matched.groups[each.rows]
        before, after = (
            state(
                self._seeds(each.column, side),
                self.pooled[each.column, side],
                self.drawn[each.column, side, None],
                enough=each.enough,
            )
            for side in (_BEFORE, _AFTER)
        )
        change = self._errors(each.column, _AFTER) - self._errors(each.column, _BEFORE)
        fitted = self._method(self.rule.calibration, each)
        by_fold = [self.fits.without([fold]) for fold in self.fits.matched.fold_numbers(at_least=2)]
        return Reliability(
            method=fitted,
            n_folds_as_they_were=sum(self._method(calibration, each) == "none" for calibration in by_fold),
            machine_made=each.machine,
            n_known=len(each.rows),
            n_positive=int((each.labels == 1).sum()),
            n_positive_groups=len(np.unique(groups[each.labels == 1])),
            base_rate_brier=each.base_rate_brier(truth),
            before=before,
            after=after,
            ece_change=moved_interval(change, _ECE, enough=each.enough),
            brier_change=interval(change, _BRIER, enough=each.enough),
        )

    @staticmethod
    def _method(calibration: Calibration, each: _Class) -> str:
        if each.k is not None:
            return calibration.lesions[each.k].method
        assert calibration.site is not None
        return calibration.site.method

    def _mean(self, lesions: list[_Class]) -> MeanReliability | None:
        if not lesions:
            return None
        before, after = (Drawn.mean([self._errors(each.column, side) for each in lesions]) for side in (_BEFORE, _AFTER))
        change = after - before
        return MeanReliability(
            n_lesions=len(lesions),
            ece_before=moved_interval(before, _ECE, enough=True, least=0.0),
            ece_after=moved_interval(after, _ECE, enough=True, least=0.0),
            ece_change=moved_interval(change, _ECE, enough=True),
            brier_before=interval(before, _BRIER, enough=True),
            brier_after=interval(after, _BRIER, enough=True),
            brier_change=interval(change, _BRIER, enough=True),
        )

    def _decisions(self, each: _Class) -> LesionDecisions:
        assert self.rule.thresholds is not None
        assert each.k is not None
        drawn = Drawn.mean(self._seeds(each.column, _DECIDED))
        counts = self.decided[each.column]
        numbers = [interval(drawn, k, enough=min(counts.n_groups) >= MIN_POSITIVE_GROUPS) for k in range(4)]
        names = ("sensitivity", "specificity", "precision", "f1")
        return LesionDecisions(
            threshold=self.rule.thresholds.lesions[each.k].threshold,
            machine_made=each.machine,
            n_known=len(each.rows),
            n_decided=counts.n_decided,
            n_positive=int((each.labels == 1).sum()),
            n_positive_decided=counts.n_positive,
            **dict(zip(names, numbers, strict=True)),
        )

    def _sets(self) -> SetScores:
        sets = self.rule.sets
        assert sets is not None
        drawn = Drawn.mean(self._seeds("", _SETS))
        enough = sets.n_groups >= MIN_POSITIVE_GROUPS
        names = ("miss_rate", "mean_size", "share_empty", "share_unsure")
        numbers = {name: interval(drawn, k, enough=enough) for k, name in enumerate(names)}
        return SetScores(max_miss_rate=sets.max_miss_rate, threshold=sets.threshold, n_groups=sets.n_groups, **numbers)
