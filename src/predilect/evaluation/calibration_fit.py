"""Fit calibrations: on all predictions for a bundle, and on the other folds for a report on one.

What is applied after a calibration, as thresholds are, is fitted on scores that were calibrated without one fold more, by the same
methods. Were the methods chosen anew there, a lesion with just enough groups would be calibrated here and not there, and its
threshold would be of another scale than the probabilities that it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import expit, log_softmax

from predilect.evaluation.calibration import Calibration, Isotonic, LesionCalibration, Platt, SiteCalibration, log_odds, log_scores
from predilect.evaluation.calibration_methods import LesionMethod, Methods, count_groups
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats
from predilect.evaluation.nesting import MatchedSeeds
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.predictions import Predictions, Truth

__all__ = [
    "CalibratedFolds",
    "CrossFits",
    "calibrate_out_of_fold",
    "fit_calibration",
]

_LEAST_SLOPE = 0.01  # of Platt's line: nearly flat, and still rising
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, eq=False, slots=True)
class CalibratedFolds:
    """Predictions calibrated by the nesting rule.

    Attributes:
        predictions: Of every seed; a photograph of fold f by a calibration fitted on the folds other than f.
        by_fold: These calibrations.
    """

    predictions: Predictions
    by_fold: Mapping[int, Calibration]


@dataclass(frozen=True, eq=False, slots=True)
class CrossFits:
    """Calibrations of one system, each fitted without some folds, and never twice; several threads may ask at once."""

    matched: MatchedSeeds
    _methods: dict[frozenset[int], Methods] = field(default_factory=dict, init=False)
    _fitted: dict[tuple[frozenset[int], Methods], Calibration] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def without(self, folds: Collection[int]) -> Calibration:
        """The calibration fitted on all photographs outside these folds, all seeds pooled."""
        return self._fit(frozenset(folds), self._allowed(frozenset(folds)))

    def nested(self, rows: NDArray[np.int64], left_out: Collection[int] = ()) -> dict[int, dict[str, NDArray[np.float32]]]:
        """Scores to fit on what is applied after `without(left_out)`: calibrated fold by fold, by the methods of that calibration.

        Each is calibrated on photographs neither of its own fold nor of those left out.

        Args:
            rows: n rows of the truth, of folds that are not left out.
            left_out: Folds.

        Returns:
            By seed and task, (n, C).
        """
        methods = self._allowed(frozenset(left_out))
        return self._by_fold(rows, lambda fold: self._fit(frozenset([*left_out, fold]), methods))

    def out_of_fold(self, rows: NDArray[np.int64]) -> dict[int, dict[str, NDArray[np.float32]]]:
        """Scores to report on: of each fold as `without` that fold calibrates them.

        Args:
            rows: n rows of the truth.

        Returns:
            By seed and task, (n, C).
        """
        return self._by_fold(rows, lambda fold: self.without([fold]))

    def _by_fold(self, rows: NDArray[np.int64], fitted: Callable[[int], Calibration]) -> dict[int, dict[str, NDArray[np.float32]]]:
        assert self.matched.folds is not None
        folds = self.matched.folds[rows]
        found = {seed: {task: part.scores[task][rows] for task in self.matched.tasks} for seed, part in self.matched.tables.items()}
        for fold in np.unique(folds):
            own = folds == fold
            calibration = fitted(int(fold))
            for scores in found.values():
                for task, values in calibration.apply({task: whole[own] for task, whole in scores.items()}).items():
                    scores[task][own] = values
        return found

    @property
    def _labels(self) -> LabelSpace:
        return self.matched.truth.labels.restricted_to(self.matched.tasks)

    def _allowed(self, folds: frozenset[int]) -> Methods:
        """By what methods all is fitted that serves photographs of these folds, or strangers' where there are none."""
        with self._lock:
            if folds not in self._methods:
                rows, matched = self.matched.rows(without=folds), self.matched
                values = {task: matched.truth.values[task][rows] for task in matched.tasks}
                of_rows = None if matched.folds is None else matched.folds[rows]
                self._methods[folds] = Methods.allowed_by(self._labels, values, matched.groups[rows], of_rows)
            return self._methods[folds]

    def _fit(self, folds: frozenset[int], methods: Methods) -> Calibration:
        with self._lock:  # a fit is short beside what other threads do with it
            key = folds, methods
            if key not in self._fitted:
                pooled = self.matched.pooled(self.matched.rows(without=folds))
                self._fitted[key] = fit_calibration(self._labels, *pooled, methods)
            return self._fitted[key]


def calibrate_out_of_fold(predictions: Predictions, truth: Truth) -> CalibratedFolds:
    """Calibrate predictions for reporting: those of fold f by what was fitted on the other folds.

    Args:
        predictions: Of one system, any number of seeds, with folds.
        truth: Of the same photographs.

    Returns:
        Calibrated predictions in the truth's order, seed by seed; tasks that the truth does not know are left out.

    Raises:
        TableError: If there are fewer than two folds, the predictions do not match the truth, or a group lies in two folds.
    """
    fits = CrossFits(MatchedSeeds.of(predictions, truth))
    folds = fits.matched.fold_numbers(at_least=2)
    scores = fits.out_of_fold(fits.matched.rows())
    tables = [replace(part, scores=scores[seed], origin=f"{part.origin}, calibrated") for seed, part in fits.matched.tables.items()]
    return CalibratedFolds(Predictions.concatenate(tables), {fold: fits.without([fold]) for fold in folds})


def fit_calibration(
    labels: LabelSpace,
    scores: Mapping[str, NDArray[np.floating[Any]]],
    values: Mapping[str, NDArray[np.int8]],
    groups: NDArray[np.int64],
    methods: Methods | None = None,
) -> Calibration:
    """Fit a calibration on scores of photographs that the network was not trained on.

    Args:
        labels: The tasks to calibrate.
        scores: By task, (N, C) probabilities as the network gives them.
        values: By task, (N, C) of 1, 0 or -1; an unknown label is left out.
        groups: (N,) any numbers; photographs of one group are not independent.
        methods: Of these tasks; None: what the groups allow.
    """
    methods = Methods.allowed_by(labels, values, groups) if methods is None else methods
    lesions: tuple[LesionCalibration, ...] = ()
    if LESION in labels:
        task = labels[LESION]
        columns = zip(task.classes, scores[LESION].T, values[LESION].T, counted_classes(task), methods.lesions, strict=True)
        lesions = tuple(_lesion(name, s, label, groups, method, machine=not human) for name, s, label, human, method in columns)
    site = None
    if SITE in labels:
        human = (values[SITE][:, counted_classes(labels[SITE])] == 1).any(axis=1)
        temperature = _temperature(scores[SITE][human], values[SITE][human]) if methods.site == "temperature" else None
        site = SiteCalibration(labels[SITE].classes, temperature, len(np.unique(groups[human])))
    return Calibration(lesions, site)


def _lesion(
    name: str,
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.int8],
    groups: NDArray[np.int64],
    method: LesionMethod,
    *,
    machine: bool,
) -> LesionCalibration:
    n_positive, n_negative = count_groups(labels, groups)
    known = labels >= 0
    s, y = scores[known].astype(np.float64), labels[known] == 1
    # Platt's targets, counted in groups: so many positives in a row do not prove that there are no others.
    bounds = 1 / (n_negative + 2), (n_positive + 1) / (n_positive + 2)
    curve: Isotonic | Platt | None = None
    if method == "isotonic":
        curve = _isotonic(s, y, bounds)
    elif method == "platt":
        curve = _platt(s, y, bounds)
    return LesionCalibration(name, curve, n_positive, n_negative, machine)


def _isotonic(scores: Floats, present: NDArray[np.bool_], bounds: tuple[float, float]) -> Isotonic:
    """Fit the curve; no block's probability goes beyond the bounds."""
    distinct, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    shares = np.bincount(place, present) / counts
    stairs = np.clip(isotonic_regression(shares, weights=counts).x, *bounds)
    heights, block = np.unique(stairs.round(12), return_inverse=True)  # equal shares may differ in their last digit
    centres = np.bincount(block, counts * distinct) / np.bincount(block, counts)
    inner = (centres > 0) & (centres < 1)
    x = np.concatenate([[0.0], centres[inner], [1.0]])
    ends = (heights[0] / 2 if centres[0] > 0 else heights[0], (1 + heights[-1]) / 2 if centres[-1] < 1 else heights[-1])
    y = np.concatenate([ends[:1], heights[inner], ends[1:]])
    return Isotonic(tuple(x.tolist()), tuple(y.tolist()))


def _platt(scores: Floats, present: NDArray[np.bool_], targets: tuple[float, float]) -> Platt:
    """Fit the line by maximum likelihood of Platt's targets, which keep it finite where scores separate the classes."""
    z, target = log_odds(scores), np.where(present, targets[1], targets[0])

    def loss(line: Floats) -> tuple[float, Floats]:
        told = line[0] + line[1] * z
        residual = expit(told) - target
        value = (np.logaddexp(0, told) - target * told).mean()
        return float(value), np.array([residual.mean(), (residual * z).mean()])

    found = minimize(
        loss,
        np.array([0.0, 1.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None), (_LEAST_SLOPE, None)],
        options={"ftol": 0.0, "gtol": 1e-9, "maxiter": 1_000},
    )
    return Platt(float(found.x[0]), float(found.x[1]))


def _temperature(scores: NDArray[np.floating[Any]], labels: NDArray[np.int8]) -> float:
    """Fit the site's temperature by maximum likelihood."""
    true = labels.argmax(axis=1)
    z = log_scores(scores)
    rows = np.arange(len(z))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(z * np.exp(-log_temperature), axis=1)[rows, true].mean())

    # Convex in 1 / T, so with one valley in log T too.
    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
