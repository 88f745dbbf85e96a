"""What the API says of photographs, as frozen dataclasses; their JSON and the schemas in `openapi.json` are made of these very types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = [
    "DOCUMENTED",
    "Attention",
    "AttentionMapAnswer",
    "CaseAnswer",
    "Failure",
    "GivenSiteAnswer",
    "LesionAnswer",
    "Neighbour",
    "PhotographAnswer",
    "Predictions",
    "Probability",
    "Problem",
    "Region",
    "Similar",
    "SiteAnswer",
]

DOCUMENTED = ConfigDict(use_attribute_docstrings=True)
"""Of every type that the API says: what stands beneath a field describes it in the schema."""

Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=DOCUMENTED)
class Problem:
    """Why a request, or one photograph of it, has no answer (RFC 9457)."""

    type: str
    """Tells kinds of problems apart; `about:blank` where the status says all."""
    title: str
    """The kind of problem in a few words."""
    status: Annotated[int, Field(ge=400, le=599)]
    """The HTTP status."""
    detail: str
    """A sentence for a person: what was found, and what is allowed."""
    instance: str
    """The path that was asked; `#2` behind it is the second photograph of the request."""


@dataclass(frozen=True, config=DOCUMENTED)
class LesionAnswer:
    """What is said of one lesion."""

    name: str
    """The lesion."""
    probability: Probability
    """Calibrated where the bundle has a calibration, and with the given site taken into account."""
    score: Probability
    """What the network said, neither calibrated nor changed by a given site."""
    decision: bool | None
    """Whether the probability reaches the threshold, which was fitted on single photographs and without a given site; null where
    nothing is decided."""
    threshold: Probability | None
    """From which probability the lesion counts as present; null where there were too few cases to choose one."""


@dataclass(frozen=True, config=DOCUMENTED)
class SiteAnswer:
    """What is said of one body site."""

    name: str
    """The site."""
    probability: Probability
    """Calibrated where the bundle has a calibration; those of all sites sum to 1."""


@dataclass(frozen=True, config=DOCUMENTED)
class GivenSiteAnswer:
    """What is said once a site is given, as far as it changes."""

    given_site: str
    """The site."""
    lesions: list[LesionAnswer]
    """All lesions, the most probable first."""
    set: list[str] | None
    """Lesions that cannot be excluded; nothing is promised of them. Null where the bundle has no such sets."""
    unsure: bool | None
    """No lesion is decided to be present, while some cannot be excluded; null where the bundle cannot tell."""


@dataclass(frozen=True, config=DOCUMENTED)
class Region:
    """A part of a photograph, its edges as shares of width and height: 0 is left or top, 1 is right or bottom."""

    left: float
    """Of width."""
    top: float
    """Of height."""
    right: float
    """Of width."""
    bottom: float
    """Of height."""


@dataclass(frozen=True, config=DOCUMENTED)
class AttentionMapAnswer:
    """Where one head looked for one class."""

    task: Literal["lesion", "site"]
    """The head."""
    name: str
    """The class."""
    probability: Probability
    """Of the class, without a given site."""
    rows: list[float]
    """Where the centre of each row of cells lies: 0 at the photograph's upper edge, 1 at the lower one."""
    columns: list[float]
    """Where the centre of each column lies, from left to right."""
    cells: list[list[float]]
    """What speaks for the class, above 0, or against it, below 0; with the method `cam` their mean is the logit without its bias."""


@dataclass(frozen=True, config=DOCUMENTED)
class Attention:
    """Where the network looked."""

    method: Literal["cam", "grad-cam"]
    """Class activation maps, which are exact, or Grad-CAM's, an approximation."""
    width: int
    """Of the upright photograph as it was looked at, in pixels."""
    height: int
    """Of the same."""
    seen: Region
    """The part that the network saw in the centre view; outside of it there is no map."""
    maps: list[AttentionMapAnswer]
    """In the order asked for, lesions first."""


@dataclass(frozen=True, config=DOCUMENTED)
class Neighbour:
    """A photograph of the bundle's index."""

    image_id: str
    """Its name there."""
    distance: Annotated[float, Field(ge=0)]
    """Between embeddings."""
    lesions: list[str] | None
    """Those it is known to show; empty if it shows none, null if nothing is known."""
    site: str | None
    """Where on the body it was taken; null if that is not known."""
    source: str | None
    """The data set it comes from, whose credit `/v1/model` gives; null if that is not known."""
    photograph: str | None
    """A small version of it as a data URL; null where the index holds no photographs."""


@dataclass(frozen=True, config=DOCUMENTED)
class Similar:
    """The photographs of the index that the network finds most alike."""

    metric: Literal["euclidean"]
    """How distance is measured."""
    neighbours: list[Neighbour]
    """Nearest first; fewer than asked for where fewer pass the filters."""


@dataclass(frozen=True, config=DOCUMENTED)
class PhotographAnswer:
    """What is said of one photograph."""

    name: str
    """The file's name, as it was sent."""
    width: int
    """Of the upright photograph as it was looked at, in pixels: a shorter side above 512 was scaled down to it."""
    height: int
    """Of the same."""
    lesions: list[LesionAnswer]
    """All lesions, the most probable first; empty where the bundle predicts none."""
    site: list[SiteAnswer]
    """All sites, the most probable first; empty where the bundle predicts none. A given site changes nothing here."""
    given_site: str | None
    """The site that was given; null if none was."""
    lesions_without_site: list[LesionAnswer] | None
    """What `lesions` would be if no site had been given; null if none was."""
    set: list[str] | None
    """Lesions that cannot be excluded, by conformal risk control, of which `max_miss_rate` of `/v1/labels` says what they promise;
    null where the bundle has no such sets. Once a site is given nothing is promised of them."""
    unsure: bool | None
    """No lesion is decided to be present, while some cannot be excluded; null where the bundle cannot tell."""
    unfamiliar: bool | None
    """The photograph lies farther from all that the network learnt from than such photographs do; null where the bundle cannot tell."""
    unfamiliarity: Probability | None
    """The share of photographs of the same kind that lie nearer; null where the bundle cannot tell."""
    uniform: bool
    """The middle of the photograph, which the network looks at, is of nearly one colour, as behind a lens cap."""
    attention: Attention | None
    """Where the network looked, if that was asked for."""
    similar: Similar | None
    """The most alike photographs of the index, if they were asked for."""
    by_site: list[GivenSiteAnswer] | None
    """The answer for each site that may be given, in class order, if that was asked for: what asking once more with `site` would say."""


@dataclass(frozen=True, config=DOCUMENTED)
class CaseAnswer:
    """What is said of several photographs of one case together; `predilect predict --case` asks for it."""

    name: str
    """The folder that was given; `case` for files that were named one by one."""
    photographs: list[str]
    """Names of the photographs that could be read."""
    lesions: list[LesionAnswer]
    """Of each lesion the highest probability and the highest score among the photographs, the most probable lesion first."""
    site: list[SiteAnswer]
    """Of each site the mean of the photographs' probabilities, the most probable site first."""
    given_site: str | None
    """The site that was given; null if none was."""
    lesions_without_site: list[LesionAnswer] | None
    """What `lesions` would be if no site had been given; null if none was."""
    set: list[str] | None
    """Lesions that cannot be excluded on some photograph; null where the bundle has no such sets. Their bound was fitted on single
    photographs, and is not shown to hold of a case."""
    unsure: bool | None
    """No lesion is decided to be present, while some cannot be excluded; null where the bundle cannot tell."""
    unfamiliar: bool | None
    """Whether one of the photographs is unfamiliar; null where the bundle cannot tell."""
    uniform: bool
    """Whether the middle of one of the photographs is of nearly one colour."""


@dataclass(frozen=True, config=DOCUMENTED)
class Failure:
    """A photograph, one of several, that has no answer."""

    name: str
    """The file's name, as it was sent."""
    error: Problem
    """Why."""


@dataclass(frozen=True, config=DOCUMENTED)
class Predictions:
    """What is said of the photographs of a request."""

    model: str
    """What identifies the network: the SHA-256 of its weights."""
    results: list[PhotographAnswer | Failure]
    """One for each file, in the order sent."""
