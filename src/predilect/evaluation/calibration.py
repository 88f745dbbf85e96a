"""Scores into probabilities that mean what they say: per lesion by isotonic or logistic regression, the site by a temperature.

Every map keeps the order of photographs, so average precision stays what it was, but for scores closer than float32 tells apart.
A lesion with too few groups keeps its scores, and says so. How far a calibration can be believed is measured in
`predilect.evaluation.reliability`, on folds that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.special import expit, logit, softmax

from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.metrics import Floats
from predilect.labels.tasks import LESION, SITE, LabelSpace

__all__ = ["Calibration", "Isotonic", "LesionCalibration", "Platt", "SiteCalibration", "log_odds", "log_scores"]

_NEAREST_TO_CERTAIN = 2.0**-24  # scores nearer to 0 or 1 count as this far: float32 knows none between that and 1
_SMALLEST = float(np.finfo(np.float32).tiny)  # a site score that float32 has run out of digits for


@dataclass(frozen=True, slots=True, config=STRICT)
class Isotonic(Fitted):
    """A rising line through the centres of the blocks of an isotonic regression.

    The regression itself is a staircase: all scores of a step get one probability, and photographs that the network told apart
    are ties. So each block's probability is put at the mean of its scores, and between these points the line is straight. That is
    centred isotonic regression (Oron and Flournoy, "Centered Isotonic Regression", Statistics in Biopharmaceutical Research 2017),
    which usually errs less, too. Beyond the outermost centres, where it stays
    level in their article, the line goes on at half of the outermost probability towards score 0, and of what is missing to 1
    towards score 1.

    Attributes:
        scores: (M,) from 0 to 1, each above the one before.
        probabilities: (M,) strictly between 0 and 1, each above the one before.

    Raises:
        ValueError: If they are not so.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    method: Literal["isotonic"] = "isotonic"

    def __post_init__(self) -> None:
        x, y = np.array(self.scores), np.array(self.probabilities)
        if len(x) != len(y) or len(x) < 2 or x[0] != 0 or x[-1] != 1 or (np.diff(x) <= 0).any():
            raise ValueError("the scores of a curve rise from 0 to 1, one for each probability")
        if y[0] <= 0 or y[-1] >= 1 or (np.diff(y) <= 0).any():
            raise ValueError("the probabilities of a curve rise and lie between 0 and 1")

    def apply(self, scores: NDArray[np.floating[Any]]) -> Floats:
        """(N,) scores into probabilities."""
        return np.asarray(np.interp(scores, self.scores, self.probabilities))


@dataclass(frozen=True, slots=True, config=STRICT)
class Platt(Fitted):
    """logit p = intercept + slope logit s (Platt 1999, on the logit of a score s instead of an SVM's margin).

    Attributes:
        intercept: Any number.
        slope: Above 0, so that the order of photographs stays.
    """

    intercept: float
    slope: Annotated[float, Field(gt=0)]
    method: Literal["platt"] = "platt"

    def apply(self, scores: NDArray[np.floating[Any]]) -> Floats:
        """(N,) scores into probabilities."""
        return np.asarray(expit(self.intercept + self.slope * log_odds(scores)))


@dataclass(frozen=True, slots=True, config=STRICT)
class LesionCalibration(Fitted):
    """The calibration of one lesion, and what it rests on.

    Attributes:
        name: The lesion.
        curve: From score to probability; None where there are too few groups, and the score stands as the network gave it.
        n_positive_groups: Groups with a photograph known to show it.
        n_negative_groups: Groups with a photograph known not to.
        machine_made: Its labels were made by a model, so the probabilities are of what that model would say.
    """

    name: str
    curve: Annotated[Isotonic | Platt, Field(discriminator="method")] | None
    n_positive_groups: Annotated[int, Field(ge=0)]
    n_negative_groups: Annotated[int, Field(ge=0)]
    machine_made: bool

    @property
    def method(self) -> Literal["isotonic", "platt", "none"]:
        """How it was calibrated."""
        return "none" if self.curve is None else self.curve.method


@dataclass(frozen=True, slots=True, config=STRICT)
class SiteCalibration(Fitted):
    """The temperature T of the site's softmax: p_s ** (1 / T), scaled to sum to 1 (Guo et al. 2017).

    Attributes:
        sites: Their names.
        temperature: Above 1 the network was too sure, below 1 not sure enough; None where too few groups have a known site.
        n_groups: Groups with a photograph of known site, those aside whose site a model named.
    """

    sites: tuple[str, ...]
    temperature: Annotated[float, Field(gt=0)] | None
    n_groups: Annotated[int, Field(ge=0)]

    @property
    def method(self) -> Literal["temperature", "none"]:
        """How it was calibrated."""
        return "none" if self.temperature is None else "temperature"


@dataclass(frozen=True, slots=True, config=STRICT)
class Calibration(Fitted):
    """The calibration of one system.

    Attributes:
        lesions: In class order; empty if the system predicts none.
        site: None if it predicts no site.
    """

    lesions: tuple[LesionCalibration, ...]
    site: SiteCalibration | None

    def apply(self, scores: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, NDArray[np.float32]]:
        """Scores into probabilities.

        Args:
            scores: By task (N, C), in class order; one task alone is allowed.

        Raises:
            ValueError: If a task was not fitted, or the classes are not as many.
        """
        found = {}
        for task, values in scores.items():
            fitted = [item.name for item in self.lesions] if task == LESION else list(self.site.sites if self.site else ())
            if values.ndim != 2 or values.shape[1] != len(fitted):
                raise ValueError(f"{task} scores have shape {values.shape}; the calibration is of {len(fitted)} classes")
            found[task] = (self._lesions(values) if task == LESION else self._site(values)).astype(np.float32)
        return found

    def covers(self, task: str, name: str) -> bool:
        """Whether a class's score becomes a calibrated probability; with too few groups it stands as the network gave it."""
        if task == SITE:
            return self.site is not None and self.site.temperature is not None
        return any(item.name == name and item.curve is not None for item in self.lesions)

    def check_labels(self, labels: LabelSpace) -> None:
        """Make sure that it was fitted for these classes in this order.

        Raises:
            ValueError: If not.
        """
        fitted = {LESION: tuple(item.name for item in self.lesions), SITE: self.site.sites if self.site else ()}
        for task, names in fitted.items():
            wanted = labels[task].classes if task in labels else ()
            if names != wanted:
                raise ValueError(f"the calibration is of the {task} classes {list(names)}, where {list(wanted)} are predicted")

    def _lesions(self, scores: NDArray[np.floating[Any]]) -> Floats:
        columns = zip(self.lesions, scores.T.astype(np.float64), strict=True)
        return np.stack([column if item.curve is None else item.curve.apply(column) for item, column in columns], axis=1)

    def _site(self, scores: NDArray[np.floating[Any]]) -> Floats:
        if self.site is None or self.site.temperature is None:
            return scores.astype(np.float64)
        return np.asarray(softmax(log_scores(scores) / self.site.temperature, axis=1))


def log_odds(scores: NDArray[np.floating[Any]]) -> Floats:
    """Log-odds log(s / (1 - s)) of lesion scores s in [0, 1]; those that are certain count as nearly so."""
    return np.asarray(logit(np.clip(scores.astype(np.float64), _NEAREST_TO_CERTAIN, 1 - _NEAREST_TO_CERTAIN)))


def log_scores(scores: NDArray[np.floating[Any]]) -> Floats:
    """Logarithms of site scores in [0, 1], finite at 0."""
    return np.asarray(np.log(np.maximum(scores.astype(np.float64), _SMALLEST)))
