"""The rules of a taxonomy: what becomes of the terms of one task, checked for contradictions.

Terms are compared without regard to case and to blanks around them (and in Unicode's composed form); within the rules each term
is spelt in one way.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from predilect.errors import LabelError, nearest
from predilect.labels.tasks import LESION, SITE, Task

__all__ = ["LesionRules", "SeveralSites", "SiteRules", "TermRules", "UnknownTerms", "term_key"]

UnknownTerms = Literal["error", "keep", "drop"]
SeveralSites = Literal["unknown", "first", "priority"]


def term_key(term: str) -> str:
    """What two spellings of one term have in common: no blanks around it, one case, Unicode's composed form."""
    return unicodedata.normalize("NFC", term.strip()).casefold()


class TermRules(BaseModel, ABC):
    """What becomes of the terms of one task.

    Attributes:
        terms: The terms there are, as they are to be spelt. If any is given, every other table may speak of these only.
        unknown_terms: What a term that stands nowhere here is: an error, a term of its own, or left out.
        aliases: Other ways to write a term, to that term.
        merges: A final class, to the terms that become it. Its name may itself be a term.
        drops: Terms that are left out, to the reason why.

    Raises:
        LabelError: If the tables contradict each other; the message begins with the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: ClassVar[str]

    terms: tuple[str, ...] = ()
    unknown_terms: UnknownTerms = "error"
    aliases: Mapping[str, str] = Field(default_factory=dict)
    merges: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    drops: Mapping[str, str] = Field(default_factory=dict)

    @abstractmethod
    def _mentions(self) -> Iterator[tuple[str, str]]:
        """Pairs of (key, term) for the tables that only this task has."""

    def _all_mentions(self) -> Iterator[tuple[str, str]]:
        yield from ((f"aliases.{alias}", term) for alias, term in self.aliases.items())
        yield from ((f"merges.{name}", term) for name, members in self.merges.items() for term in members)
        yield from (("drops", term) for term in self.drops)
        yield from self._mentions()

    @property
    def plain_terms(self) -> tuple[str, ...]:
        """All terms that are named here, without those merges whose name is no term itself, such as ``erosion/ulcer``."""
        mentioned = (term for key, term in self._all_mentions() if term not in self.merges or key.startswith("merges."))
        return tuple(dict.fromkeys((*self.terms, *mentioned)))

    def lookup(self) -> dict[str, str]:
        """The term that each known spelling stands for, by its `term_key`; the names of merges are terms here too."""
        spelt = {term_key(term): term for term in (*self.plain_terms, *self.merges)}
        return spelt | {term_key(alias): term for alias, term in self.aliases.items()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_names()
        self._check_aliases()
        self._check_merges()
        self._check_drops()
        return self

    def _check_names(self) -> None:
        task = self.task
        spelt: dict[str, str] = {}
        for term in self.terms:
            if (key := term_key(term)) in spelt:
                raise LabelError(f"{task}.terms: {spelt[key]!r} and {term!r} are the same term")
            spelt[key] = term
        for key, name in (*(("merges", name) for name in self.merges), *self._all_mentions()):
            if self.terms and key != "merges" and name not in self.terms and name not in self.merges:
                raise LabelError(f"{task}.{key}: {name!r} is not in {task}.terms: {nearest(name, self.terms)}")
            other = spelt.setdefault(term_key(name), name)
            if other != name:
                raise LabelError(f"{task}.{key}: {name!r} and {other!r} are the same term, spell it in one way")
        if "*" in spelt:
            raise LabelError(f"{task}.terms: '*' cannot be a term, since it stands for all terms where unknown ones are listed")
        if spelt:
            try:
                Task(task, tuple(spelt.values()))
            except LabelError as error:
                raise LabelError(f"{task}.terms: {error}") from error

    def _check_aliases(self) -> None:
        terms = {term_key(name): name for name in (*self.plain_terms, *self.merges)}
        spelt: dict[str, str] = {}
        for alias in self.aliases:
            key = term_key(alias)
            if not key:
                raise LabelError(f"{self.task}.aliases: an alias is empty")
            if key in spelt:
                raise LabelError(f"{self.task}.aliases: {spelt[key]!r} and {alias!r} are the same alias")
            spelt[key] = alias
        for alias, term in self.aliases.items():
            if term_key(term) in spelt:
                raise LabelError(f"{self.task}.aliases.{alias}: {term!r} is an alias too, name the term it stands for")
            if (key := term_key(alias)) in terms:
                raise LabelError(f"{self.task}.aliases.{alias}: {terms[key]!r} is itself a term, so it can be no alias")

    def _check_merges(self) -> None:
        owner: dict[str, str] = {}
        for name, members in self.merges.items():
            if not members:
                raise LabelError(f"{self.task}.merges.{name}: no term is named")
            for term in members:
                if term in owner:
                    where = f"in both {owner[term]!r} and {name!r}" if owner[term] != name else f"twice in {name!r}"
                    raise LabelError(f"{self.task}.merges: {term!r} stands {where}")
                owner[term] = name
        for name in self.merges:
            if owner.get(name, name) != name:
                raise LabelError(f"{self.task}.merges.{owner[name]}: {name!r} is a merge too, name its terms instead")

    def _check_drops(self) -> None:
        for term, reason in self.drops.items():
            if not reason.strip():
                raise LabelError(f"{self.task}.drops.{term}: the reason is empty")
            for key, name in (*((f"merges.{name}", name) for name in self.merges), *self._all_mentions()):
                if name == term and key.startswith(("merges.", "parents.", "priority")):
                    raise LabelError(f"{self.task}.drops.{term}: {term!r} cannot be dropped, since {self.task}.{key} needs it")


class LesionRules(TermRules):
    """What becomes of lesion terms; see `TermRules`.

    Attributes:
        parents: A sub-lesion, to the lesion it folds into unless it has more than `keep_above` photographs.
        machine: Final classes whose labels a model made; they stay out of headline means.
    """

    task: ClassVar[str] = LESION

    parents: Mapping[str, str] = Field(default_factory=dict)
    machine: tuple[str, ...] = ()

    def _mentions(self) -> Iterator[tuple[str, str]]:
        for term, parent in self.parents.items():
            yield f"parents.{term}", term
            yield f"parents.{term}", parent
        yield from (("machine", name) for name in self.machine)

    def ancestors(self, term: str) -> tuple[str, ...]:
        """The lesions that a term belongs to, the nearest first."""
        chain: list[str] = []
        while (parent := self.parents.get(chain[-1] if chain else term)) is not None:
            chain.append(parent)
        return tuple(chain)

    @model_validator(mode="after")
    def _check_parents(self) -> Self:
        for start in self.parents:
            seen = [start]
            while (parent := self.parents.get(seen[-1])) is not None:
                if parent in seen:
                    raise LabelError(f"lesion.parents.{start}: {' -> '.join((*seen, parent))} is a circle")
                seen.append(parent)
        for term, parent in self.parents.items():
            for name in {term, parent} & set(self.merges):
                if name == term or name not in self.plain_terms:
                    raise LabelError(f"lesion.parents.{term}: {name!r} is a merge, which is made after sub-lesions are folded")
            if term in self.machine and parent not in self.machine:
                raise LabelError(
                    f"lesion.parents.{term}: a machine-made term cannot fold into {parent!r}, which is not machine-made"
                )
        _check_final(self, "machine", self.machine)
        return self


class SiteRules(TermRules):
    """What becomes of body sites; see `TermRules`. A photograph ends with one site or with none.

    Attributes:
        several: What a photograph with several final sites shows: ``"unknown"`` (not annotated), the ``"first"`` its source
            names, or by ``"priority"`` the one that stands first in `priority` (not annotated if none of them does).
        priority: Final sites, the strongest first.
    """

    task: ClassVar[str] = SITE

    several: SeveralSites = "unknown"
    priority: tuple[str, ...] = ()

    def _mentions(self) -> Iterator[tuple[str, str]]:
        yield from (("priority", name) for name in self.priority)

    @model_validator(mode="after")
    def _check_priority(self) -> Self:
        if (self.several == "priority") != bool(self.priority):
            raise LabelError("site.priority: it is given exactly when site.several is 'priority'")
        _check_final(self, "priority", self.priority)
        return self


def _check_final(rules: TermRules, key: str, names: tuple[str, ...]) -> None:
    merged = {term: name for name, members in rules.merges.items() for term in members}
    for place, name in enumerate(names):
        if name in names[:place]:
            raise LabelError(f"{rules.task}.{key}: {name!r} is named twice")
        if merged.get(name, name) != name:
            raise LabelError(f"{rules.task}.{key}: {name!r} becomes {merged[name]!r}, which is what must be named here")
