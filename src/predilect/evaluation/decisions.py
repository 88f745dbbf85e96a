"""From probabilities to decisions: one threshold per lesion, for an aim that is stated.

Thresholds are fitted on calibrated probabilities of photographs that neither the network nor the calibration was fitted on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from predilect.evaluation.calibration_methods import PLATT_GROUPS, count_groups
from predilect.evaluation.conformal import groups_for
from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats
from predilect.labels.tasks import Task

__all__ = ["SENSITIVITIES", "Aim", "LesionThreshold", "Thresholds", "fit_thresholds"]

SENSITIVITIES = (0.1, 0.9999)
"""Between them lies one that can be aimed at: at the first nearly all is missed, and the second takes 9,999 groups for each lesion."""


@dataclass(frozen=True, slots=True, config=STRICT)
class Aim(Fitted):
    """What thresholds are to achieve.

    Attributes:
        name: ``"f1"``: the largest F1, the harmonic mean of precision and sensitivity; ``"sensitivity"``: as few false alarms as go
            with finding a stated share of the photographs that show the lesion.
        sensitivity: That share, in (0, 1]; given exactly with ``"sensitivity"``.

    Raises:
        ValueError: If the share is missing or given with another aim.
    """

    name: Literal["f1", "sensitivity"] = "f1"
    sensitivity: Annotated[float, Field(gt=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if (self.name == "sensitivity") != (self.sensitivity is not None):
            raise ValueError("a sensitivity is given exactly where it is the aim")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an aim as a person writes it.

        Args:
            text: ``"f1"``, or a sensitivity such as ``"sensitivity=0.9"``.

        Raises:
            ValueError: If it is neither, or the sensitivity does not lie within `SENSITIVITIES`, without their ends.
        """
        if text == "f1":
            return cls()
        name, _, share = text.partition("=")
        try:
            sensitivity = float(share) if name == "sensitivity" else None
        except ValueError:
            sensitivity = None
        if sensitivity is None:
            raise ValueError(f"an aim is 'f1' or, for example, 'sensitivity=0.9', found {text!r}")
        low, high = SENSITIVITIES
        if not low < sensitivity < high:
            raise ValueError(f"a sensitivity to aim at lies above {low} and below {high}, found {sensitivity}")
        return cls("sensitivity", sensitivity)

    def __str__(self) -> str:
        return "f1" if self.sensitivity is None else f"sensitivity={self.sensitivity:g}"


@dataclass(frozen=True, slots=True, config=STRICT)
class LesionThreshold(Fitted):
    """From which probability a lesion counts as present.

    Attributes:
        name: The lesion.
        threshold: In [0, 1]; None where fewer than 10 groups show the lesion, or fewer than 10 do not: nothing is decided there.
        n_positive_groups: Groups with a photograph known to show it.
        n_negative_groups: Groups with a photograph known not to.
        machine_made: Its labels were made by a model, which the threshold follows.
    """

    name: str
    threshold: Annotated[float, Field(ge=0, le=1)] | None
    n_positive_groups: Annotated[int, Field(ge=0)]
    n_negative_groups: Annotated[int, Field(ge=0)]
    machine_made: bool


@dataclass(frozen=True, slots=True, config=STRICT)
class Thresholds(Fitted):
    """The thresholds of all lesions, in class order, and what they aim at."""

    aim: Aim
    lesions: tuple[LesionThreshold, ...]

    def apply(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.int8]:
        """Decide.

        Args:
            probabilities: (N, C) calibrated.

        Returns:
            (N, C): 1 present, 0 absent, -1 not decided.

        Raises:
            ValueError: If there are not C lesions.
        """
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self.lesions):
            raise ValueError(f"probabilities have shape {probabilities.shape}; the thresholds are of {len(self.lesions)} lesions")
        limits = np.array([np.nan if item.threshold is None else item.threshold for item in self.lesions])
        return np.where(np.isnan(limits), -1, probabilities >= limits).astype(np.int8)

    def unreached(self) -> str | None:
        """A sentence where groups are too few for the aim: to miss none of so few does not promise it. F1 promises nothing."""
        if self.aim.sensitivity is None:
            return None
        needed, decided = groups_for(1 - self.aim.sensitivity), [item for item in self.lesions if item.threshold is not None]
        few = sorted(item.n_positive_groups for item in decided if item.n_positive_groups < needed)
        if not few:
            return None
        found = f"{few[0]:,}" if few[0] == few[-1] else f"{few[0]:,} to {few[-1]:,}"
        return (
            f"A sensitivity of {self.aim.sensitivity:g} cannot be promised for {len(few)} of the {len(decided)} that are decided on: it takes {needed:,} groups that "
            f"show the lesion, and they have {found}."
        )


def fit_thresholds(
    task: Task, probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int8], groups: NDArray[np.int64], aim: Aim
) -> Thresholds:
    """Choose the threshold of each lesion.

    A threshold lies halfway between two scores, so that the last digits of a runtime decide nothing. Of several that reach the
    aim equally well the highest is taken, which raises the fewest alarms.

    Args:
        task: The lesions.
        probabilities: (N, C) calibrated, of photographs that the calibration was not fitted on.
        labels: (N, C) of 1, 0 or -1; an unknown label is left out.
        groups: (N,) any numbers.
        aim: What is to be achieved on these photographs.
    """
    lesions = []
    for k, (name, human) in enumerate(zip(task.classes, counted_classes(task), strict=True)):
        n_positive, n_negative = count_groups(labels[:, k], groups)
        threshold = None
        if min(n_positive, n_negative) >= PLATT_GROUPS:
            known = labels[:, k] >= 0
            threshold = _threshold(probabilities[known, k].astype(np.float64), labels[known, k] == 1, aim)
        lesions.append(LesionThreshold(name, threshold, n_positive, n_negative, not human))
    return Thresholds(aim, tuple(lesions))


def _threshold(probabilities: Floats, present: NDArray[np.bool_], aim: Aim) -> float:
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    last_of_tie = np.append(np.diff(ranked) != 0, True)
    found = np.cumsum(present[order])[last_of_tie]
    alarms = np.flatnonzero(last_of_tie) + 1
    n_positive = int(present.sum())
    if aim.sensitivity is None:
        best = int(np.argmax(2 * found / (alarms + n_positive)))
    else:
        best = int(np.argmax(found >= aim.sensitivity * n_positive - 1e-9))
    steps = np.append(ranked[last_of_tie], 0.0)
    return float((steps[best] + steps[best + 1]) / 2)
