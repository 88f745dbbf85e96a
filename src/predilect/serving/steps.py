"""What passes through a prediction: the question, the photograph, what the network saw in it, and what was fitted to make answers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from predilect.evaluation.answers import AnswerRule
from predilect.evaluation.novelty import Novelty
from predilect.evaluation.site_prior import SitePrior

__all__ = ["Familiarity", "FittedParts", "Photograph", "Question", "Scores", "Seen", "Wanted"]

Scores = Mapping[str, NDArray[np.float32]]
"""Probabilities by task."""


@dataclass(frozen=True, eq=False, slots=True)
class Familiarity:
    """What tells whether a photograph is like those that the network learnt from, which the bundle's index must then hold.

    Attributes:
        novelty: What distances are usual, in multiples of `usual`.
        usual: The median distance of the network's own training photographs to their `novelty.k`-th neighbour, above 0; see
            `evaluation.novelty.relative_distances`.
    """

    novelty: Novelty
    usual: float


@dataclass(frozen=True, eq=False, slots=True)
class FittedParts:
    """What was fitted on the predictions of the folds; a bundle without some of it answers null there.

    Attributes:
        rule: Turns scores into probabilities, decisions and sets.
        site_prior: What a given site does to lesions; it needs a rule.
        familiarity: Needs an index of the photographs that were learnt from.
    """

    rule: AnswerRule | None = None
    site_prior: SitePrior | None = None
    familiarity: Familiarity | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Photograph:
    """An upload that could be read.

    Attributes:
        name: As it was sent.
        square: (3, test_side, test_side) uint8, what the network's views are cut from.
        width: Of the upright photograph as packed in an atlas, in pixels.
        height: Likewise.
    """

    name: str
    square: Tensor
    width: int
    height: int


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """What the network made of one photograph.

    Attributes:
        scores: (C,) by task, probabilities that are not calibrated.
        embedding: (D,) float32.
        feature_map: (Dm, h, w) of the centre view; None where it has none.
    """

    scores: Scores
    embedding: NDArray[np.float32]
    feature_map: Tensor | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which similar photographs are wanted.

    Attributes:
        k: How many, at least 1.
        lesion: Only those known to show it.
        site: Only those known to show it.
    """

    k: int
    lesion: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a photograph beside its lesions and its site.

    Attributes:
        site: Where it was taken; None: nobody says.
        maps: Of which classes of which tasks attention maps are wanted, None for the most probable one; tasks that the bundle does not
            predict are passed over where no class is named. None: no maps.
        similar: None: no similar photographs.
    """

    site: str | None = None
    maps: Mapping[str, Sequence[str] | None] | None = None
    similar: Wanted | None = None
