"""What the API says of a bundle and of itself, as `answers` holds what it says of photographs."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from predilect.serving.answers import DOCUMENTED, Probability

__all__ = ["Credit", "Health", "IndexedAtlas", "InputSize", "Labels", "LesionClass", "Model", "SiteClass"]


@dataclass(frozen=True, config=DOCUMENTED)
class LesionClass:
    """A lesion that the bundle knows."""

    name: str
    """The lesion."""
    machine_made: bool
    """Its labels were made by a model rather than by persons."""
    threshold: Probability | None
    """From which probability it counts as present; null where nothing is decided."""
    calibration: Literal["isotonic", "platt", "none"]
    """How its probability was calibrated."""


@dataclass(frozen=True, config=DOCUMENTED)
class SiteClass:
    """A body site that the bundle knows."""

    name: str
    """The site."""


@dataclass(frozen=True, config=DOCUMENTED)
class Labels:
    """What the bundle can say."""

    lesions: list[LesionClass]
    """In class order; empty where it predicts none."""
    sites: list[SiteClass]
    """Those that it predicts or that may be given, in class order."""
    site_calibration: Literal["temperature", "none"] | None
    """How the probabilities of the sites were calibrated; null where it predicts no site."""
    site_conditioning: bool
    """Whether a site may be given."""
    similar: bool
    """Whether it holds an index to look in."""
    attention: bool
    """Whether it can say where it looked."""
    no_attention_because: str | None
    """Why not; null where it can."""
    aim: str | None
    """What the thresholds aim at, such as `f1` or `sensitivity=0.9`; null without thresholds."""
    max_miss_rate: Probability | None
    """At most this share of the lesions on a photograph that shows some is missing from `set` on average over patients like those of its
    training; for one lesion, site or kind of patient it may be more. It was fitted on single photographs, by what the networks of the
    folds said of them, and without a given site: it is not shown to hold once one is given, nor of a case. Null without sets."""


@dataclass(frozen=True, config=DOCUMENTED)
class Credit:
    """A data set, its terms, and whom to name."""

    name: str
    """As `source` of a neighbour names it."""
    licence: str
    """The terms under which it is given."""
    credit: str
    """Whom to name."""


@dataclass(frozen=True, config=DOCUMENTED)
class InputSize:
    """What the network looks at."""

    crop: int
    """Side of its square input, in pixels."""
    test_side: int
    """To this the photograph's shorter side is scaled first, in pixels."""
    views: Literal["center", "ten-crop"]
    """The centre, or ten crops whose probabilities are averaged."""


@dataclass(frozen=True, config=DOCUMENTED)
class IndexedAtlas:
    """The photographs that similar ones are looked for among."""

    atlas: str
    """Its name."""
    n_photographs: int
    """How many they are."""
    sources: list[Credit]
    """Where they come from; whoever shows one of them must name its credit."""


@dataclass(frozen=True, config=DOCUMENTED)
class Model:
    """What the bundle is, where it comes from and what it is for."""

    system: str
    """The system's name, such as `mtl`."""
    model: str
    """What identifies the network: the SHA-256 of its weights."""
    backbone: str
    """The network's architecture."""
    recipe: str
    """Name of the recipe that it was trained by."""
    input: InputSize
    """What it looks at."""
    provenance: dict[str, str | int | None]
    """Of its training: `command`, `atlas`, `atlas_hash`, `splits_hash`, `seed`, `iterations`, `n_images`."""
    licences: list[str]
    """Of the photographs it was trained on."""
    sources: list[Credit]
    """Where these come from."""
    notes: list[str]
    """What a reader of its answers must know."""
    index: IndexedAtlas | None
    """Null where it holds none."""
    intended_use: str
    """What it may be used for."""
    version: str
    """Of Predilect."""


@dataclass(frozen=True, config=DOCUMENTED)
class Health:
    """The process runs."""

    status: Literal["ok"]
    """Always `ok`."""
