"""The page of cases (the paper's Figure 3): photographs with the attention of both heads, and their nearest neighbours in a frame."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from predilect.atlas.importers import Source
from predilect.files import write_text
from predilect.report.attention_panel import METHODS, TOP_SHARE, scale_colors
from predilect.report.environment import render_page

__all__ = ["CASES_PAGE", "Case", "CaseMap", "CaseNeighbour", "CasesPage", "Section", "write_cases_page"]

CASES_PAGE = "cases.html"
"""Name of the page in its folder."""


@dataclass(frozen=True, eq=False, slots=True)
class CaseMap:
    """The attention of one head.

    Attributes:
        task: ``lesion`` or ``site``.
        name: The class.
        known: Whether it is known to be there; else it is the predicted one.
        probability: Of the class.
        low: The lowest number of the map.
        high: The highest.
        picture: A JPEG of the map over the photograph.
    """

    task: str
    name: str
    known: bool
    probability: float
    low: float
    high: float
    picture: bytes


@dataclass(frozen=True, eq=False, slots=True)
class CaseNeighbour:
    """A photograph that the network holds to be alike.

    Attributes:
        image_id: Of the photograph.
        distance: To the query.
        lesions: Known to be on it; None where none was assessed.
        site: Where it was taken; None where that is not known.
        match: Whether it shares a lesion with the query: ``shared``, ``none``, or ``unknown`` where labels do not tell.
        shared: The lesions that it shares.
        same_site: Whether it shares the site.
        picture: A JPEG of it.
    """

    image_id: str
    distance: float
    lesions: tuple[str, ...] | None
    site: str | None
    match: Literal["shared", "none", "unknown"]
    shared: tuple[str, ...]
    same_site: bool
    picture: bytes


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """A tested photograph, seen by the network that did not learn from it.

    Attributes:
        image_id: Of the photograph.
        fold: In which it was held out.
        lesions: Known to be on it; None where none was assessed.
        site: Where it was taken; None where that is not known.
        predicted: For each task the most probable classes with their probabilities, first the highest.
        score: What its place among the worst goes by, in words; empty where that is not defined.
        maps: Of the heads, lesion before site; none where the network cannot be explained.
        neighbours: Nearest first.
        picture: A JPEG of it.
    """

    image_id: str
    fold: int
    lesions: tuple[str, ...] | None
    site: str | None
    predicted: Mapping[str, Sequence[tuple[str, float]]]
    score: str
    maps: tuple[CaseMap, ...]
    neighbours: tuple[CaseNeighbour, ...]
    picture: bytes


@dataclass(frozen=True, eq=False, slots=True)
class Section:
    """Cases that were chosen in one way.

    Attributes:
        title: Such as ``Worst``.
        sentence: How they were chosen.
        cases: At least one.
    """

    title: str
    sentence: str
    cases: tuple[Case, ...]


@dataclass(frozen=True, eq=False, slots=True)
class CasesPage:
    """What the page shows.

    Attributes:
        atlas: Name of the atlas whose photographs are shown.
        system: The system that saw them.
        seed: Of its training.
        method: How maps were made; None where there are none.
        unexplained: Why there are none; None where there are.
        sections: At least one.
        machine: Lesions that a model labelled, which decide nothing here.
        notes: What a reader must know of the sources.
        sources: Where the photographs come from, with licence and credit.
        provenance: What was run on what, for the record.
    """

    atlas: str
    system: str
    seed: int
    method: Literal["cam", "grad-cam"] | None
    unexplained: str | None
    sections: tuple[Section, ...]
    machine: frozenset[str]
    notes: tuple[str, ...]
    sources: tuple[Source, ...]
    provenance: Mapping[str, str]


def write_cases_page(page: CasesPage, out: Path) -> Path:
    """Write the page, as one file that asks for no other.

    Args:
        page: What to show.
        out: The folder; made if need be.

    Returns:
        The path of the page.

    Raises:
        DiskError: If it cannot be written.
    """
    path = out / CASES_PAGE
    html = render_page(
        "cases.html",
        page=page,
        method=None if page.method is None else METHODS[page.method],
        top=f"{100 * TOP_SHARE:.0f} %",
        scale=Markup(", ".join(scale_colors())),  # noqa: S704  colours of our own
        jpeg=lambda data: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
        listed=partial(_listed, machine=page.machine),
    )
    write_text(path, html)
    return path


def _listed(lesions: Sequence[str] | None, machine: Collection[str]) -> str:
    """Lesions as people say them, those that a model labelled with an asterisk."""
    if lesions is None:
        return "lesions not assessed"
    return ", ".join(f"{name}*" if name in machine else name for name in lesions) or "no lesion"
