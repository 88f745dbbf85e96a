"""What passes through a prediction: the question, the photograph, and what the network saw in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Photograph", "Question", "Scores", "Seen", "Wanted"]

Scores = Mapping[str, NDArray[np.float32]]
"""Probabilities by task."""


@dataclass(frozen=True, eq=False, slots=True)
class Photograph:
    """An upload that could be read.

    Attributes:
        name: As it was sent.
        square: (3, test_side, test_side) uint8, what the network's views are cut from.
        width: Of the upright photograph as packed in an atlas, in pixels.
        height: Likewise.
        uniform: Whether the square is of nearly one colour.
    """

    name: str
    square: Tensor
    width: int
    height: int
    uniform: bool


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
        every_site: Whether it is also wanted what each site, if it were given, would change.
    """

    site: str | None = None
    maps: Mapping[str, Sequence[str] | None] | None = None
    similar: Wanted | None = None
    every_site: bool = False
