"""Everything that is fitted for a bundle on the out-of-fold predictions of its system, and why a part of it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Annotated, Any, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from predilect.evaluation.answers import MAX_MISS_RATE, AnswerRule, fit_answer_rule
from predilect.evaluation.calibration import Calibration
from predilect.evaluation.decisions import Aim
from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.known_site import site_prior_on_all
from predilect.evaluation.novelty import Novelty
from predilect.evaluation.site_prior import SitePrior
from predilect.evaluation.site_prior_fit import given_sites
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.predictions import Predictions, Truth

__all__ = ["PARTS", "Familiarity", "FittedParts", "fit_parts"]

PARTS = ("calibration", "site_prior", "novelty")
"""Names of the parts in `bundle.json`."""

_NOTHING = "nothing was fitted"
_WITHOUT = {
    "calibration": "Probabilities are not calibrated and nothing is decided",
    "site_prior": "A given site is not taken into account",
    "novelty": "There is no warning of photographs unlike those of the atlas",
}
_MISSING = "missing"
_FOLDS_NEEDED = 2


@dataclass(frozen=True, slots=True, config=STRICT)
class Familiarity(Fitted):
    """What tells whether a photograph is like those that a bundle's network learnt from, which its index must then hold.

    Attributes:
        novelty: What distances are usual, in multiples of `usual`.
        usual: The median distance of the network's own training photographs to their `novelty.k`-th neighbour, above 0; see
            `evaluation.novelty.relative_distances`.
    """

    novelty: Novelty
    usual: Annotated[float, Field(gt=0)]


@plain_dataclass(frozen=True, eq=False, slots=True)
class FittedParts:
    """What was fitted; a bundle without some of it answers null there.

    Attributes:
        rule: Turns scores into probabilities, decisions and sets.
        site_prior: What a given site does to lesions; it needs a rule.
        familiarity: Needs an index of the photographs that were learnt from.
        missing: For each part that is None, by its name in `PARTS`, why: a clause without a capital or a full stop.

    Raises:
        ValueError: If a reason is given for a part that is there, or for none of them, or a site prior has no rule.
    """

    rule: AnswerRule | None = None
    site_prior: SitePrior | None = None
    familiarity: Familiarity | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        absent = [name for name, part in self._parts().items() if part is None]
        if not self.missing.keys() <= set(absent):
            raise ValueError(f"reasons are given for {sorted(self.missing)}, where what is missing is {absent}")
        if self.site_prior is not None and self.rule is None:
            raise ValueError("a site prior is fitted on calibrated probabilities, and needs their rule")
        object.__setattr__(self, "missing", {name: self.missing.get(name, _NOTHING) for name in absent})

    @property
    def calibration(self) -> Calibration | None:
        """What makes probabilities of scores; None: nothing does."""
        return None if self.rule is None else self.rule.calibration

    def check_labels(self, labels: LabelSpace) -> None:
        """Make sure that all was fitted for these classes in this order.

        Raises:
            ValueError: If not.
        """
        if self.rule is not None:
            self.rule.check_labels(labels)
        if self.site_prior is not None:
            self.site_prior.check_labels(labels)

    def caveats(self) -> list[str]:
        """What the bundle cannot say and why, a sentence for each part that is missing."""
        return [f"{_WITHOUT[name]}: {why}." for name, why in self.missing.items()]

    def unreached(self) -> list[str]:
        """What was asked of thresholds and of sets, and would take more groups than there are, in a sentence each."""
        asked = () if self.rule is None else (self.rule.thresholds, self.rule.sets)
        found = [part.unreached() for part in asked if part is not None]
        return [sentence for sentence in found if sentence is not None]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values under the names in `PARTS`, null for a part that is missing, and ``missing`` with the reasons."""
        parts = {name: None if part is None else part.to_json() for name, part in self._parts().items()}
        return {**parts, _MISSING: dict(self.missing)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; other keys are passed over.

        Raises:
            ValueError: If a key is missing, a value is not allowed, or a part that is null has no reason; names the place.
        """
        for name in (*PARTS, _MISSING):
            if name not in value:
                raise ValueError(f"there is no {name!r}")
        missing, absent = value[_MISSING], {name for name in PARTS if value[name] is None}
        if not isinstance(missing, dict) or missing.keys() != absent or not all(isinstance(why, str) for why in missing.values()):
            raise ValueError(f"{_MISSING} must say why {' and '.join(sorted(absent)) or 'nothing'} is null, found {missing!r}")
        kinds: dict[str, type[Fitted]] = dict(zip(PARTS, (AnswerRule, SitePrior, Familiarity), strict=True))
        found: dict[str, Any] = {}
        for name, kind in kinds.items():
            try:
                found[name] = None if value[name] is None else kind.from_json(value[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(rule=found["calibration"], site_prior=found["site_prior"], familiarity=found["novelty"], missing=missing)

    def with_familiarity(self, found: Familiarity | str) -> Self:
        """The same with what tells strange photographs, or why there is no such thing: a clause."""
        missing = {name: why for name, why in self.missing.items() if name != "novelty"}
        if isinstance(found, str):
            return replace(self, familiarity=None, missing={**missing, "novelty": found})
        return replace(self, familiarity=found, missing=missing)

    def _parts(self) -> dict[str, Fitted | None]:
        return dict(zip(PARTS, (self.rule, self.site_prior, self.familiarity), strict=True))


def fit_parts(
    predictions: Predictions, truth: Truth, *, aim: Aim | None = None, max_miss_rate: float = MAX_MISS_RATE
) -> FittedParts:
    """Fit on out-of-fold predictions what a bundle holds, but for familiarity, which needs the networks.

    Args:
        predictions: Of one system, any number of seeds.
        truth: Of the same photographs.
        aim: Of the thresholds; None: the largest F1.
        max_miss_rate: Bound on the expected false-negative rate of the sets, between 0 and 1.

    Raises:
        TableError: If the predictions do not match the truth, seeds differ in their folds, or a group lies in two folds.
    """
    if predictions.n_folds < _FOLDS_NEEDED:
        few = f"photographs were held out in {predictions.n_folds or 'no'} fold, {_FOLDS_NEEDED} are needed"
        return FittedParts(missing={"calibration": few, "site_prior": few})
    rule = fit_answer_rule(predictions, truth, aim=aim, max_miss_rate=max_miss_rate)
    reason = None
    if LESION not in predictions.labels or LESION not in truth.labels:
        reason = "the system predicts no lesions"
    elif SITE not in truth.labels:
        reason = "the atlas names no body sites"
    elif not (given_sites(truth.labels[SITE], truth.values[SITE]) >= 0).any():
        reason = "no photograph has a body site that a person named"
    if reason is not None:
        return FittedParts(rule, missing={"site_prior": reason})
    return FittedParts(rule, site_prior_on_all(predictions, truth))
