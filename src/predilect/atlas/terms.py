"""The terms of one task that are found in a table of photographs, as numbers, and how they became its classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.errors import LabelError, nearest
from predilect.labels.rules import TermRules, term_key
from predilect.labels.taxonomy import Taxonomy

__all__ = ["ALL_TERMS", "Course", "Terms", "mentions", "read_terms", "too_rare"]

ALL_TERMS = "*"
"""In a list of terms that were not assessed: all that the photograph does not list."""

_TOO_RARE = "dropped: {!r} has {} images, fewer than {}"
_TOO_RARE_READ = re.compile(r"dropped: (?P<name>['\"].+['\"]) has (?P<n>\d+) images, fewer than \d+")

_LOG_SCHEMA = pl.Schema(
    {
        "task": pl.String(),
        "raw_term": pl.String(),
        "became": pl.String(),
        "reason": pl.String(),
        "origin": pl.String(),
        "n_images": pl.Int64(),
    }
)


@dataclass(frozen=True, eq=False, slots=True)
class Terms:
    """The K terms in play for one task, in sorted order.

    An array indexed by terms has K + 1 entries, the last of them -1: so -1, "no term", stays -1 through all of them.
    """

    names: tuple[str, ...]
    number: Mapping[str, int]  # of each name
    meaning: Mapping[str, int]  # of each raw term, -1 where the taxonomy does not know it
    kept: frozenset[str]  # names that the taxonomy does not know and lets be terms of their own

    def numbered(self, pairs: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of `row` and raw `term` as rows and term numbers (-1 unknown to the taxonomy), in order."""
        numbers = np.array([*self.meaning.values(), -1], dtype=np.int64)
        places = pairs["term"].cast(pl.Enum(list(self.meaning))).to_physical()
        return pairs["row"].to_numpy(), numbers[places.to_numpy()]

    def count(self, rows: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) on how many photographs each term is, given pairs of row and term; a pair may come twice."""
        size = max(len(self.names), 1)
        # Sorted rather than np.unique, which hashes and is many times slower on millions of integers.
        pairs = np.sort(rows[codes >= 0] * size + codes[codes >= 0])
        return np.bincount(pairs[np.diff(pairs, prepend=-1) > 0] % size, minlength=len(self.names))


@dataclass(frozen=True, eq=False, slots=True)
class Course:
    """How the terms of one task became its C classes."""

    taxonomy: Taxonomy
    rules: TermRules
    terms: Terms
    target: NDArray[np.int64]  # (K + 1,) the term that each became by drops, folding and merges
    counts: NDArray[np.int64]  # (K,) photographs of each target
    sizes: Mapping[str, int]  # of each sub-lesion, when it was decided whether it folds

    @property
    def classes(self) -> tuple[str, ...]:
        """The C targets that are on enough photographs, sorted."""
        return tuple(name for name, n in zip(self.terms.names, self.counts, strict=True) if n >= self.taxonomy.drop_below)

    @property
    def place(self) -> NDArray[np.int64]:
        """(K + 1,) class number of each target, -1 where it is too rare."""
        place = np.full(len(self.terms.names) + 1, -1)
        place[[self.terms.number[name] for name in self.classes]] = np.arange(len(self.classes))
        return place

    def parent(self, name: str) -> str | None:
        """The lesion that a sub-lesion folded into, None if it is no sub-lesion or stayed apart."""
        folded = self.sizes.get(name, np.inf) <= self.taxonomy.keep_above
        return self.taxonomy.lesion.parents[name] if folded else None

    def assessed(self, listed: Collection[str]) -> NDArray[np.bool_]:
        """(C,) whether a source that assesses the `listed` raw terms has assessed all that became the class."""
        direct = {self.terms.names[code] for code in (self.terms.meaning[raw] for raw in listed) if code >= 0}
        wholes = set(self.rules.merges) - set(self.rules.plain_terms)

        def covered(name: str) -> bool:
            parent = self.parent(name)
            return name in direct or (parent is not None and covered(parent))

        members: dict[str, list[str]] = {name: [] for name in self.classes}
        for name, target in zip(self.terms.names, self.target[:-1], strict=True):
            if target >= 0 and (became := self.terms.names[target]) in members and name not in wholes:
                members[became].append(name)
        # The name of a merge that is no term itself stands for all of its terms at once.
        known = [name in direct & wholes or (bool(parts) and all(map(covered, parts))) for name, parts in members.items()]
        return np.array(known, dtype=np.bool_)

    def reason(self, raw: str) -> str:
        """What happened to a raw term, step by step, in words."""
        code = self.terms.meaning[raw]
        if code < 0:
            return "dropped: the taxonomy does not know it"
        name = self.terms.names[code]
        steps = ["not in the taxonomy, kept"] if name in self.terms.kept else []
        if term_key(raw) != term_key(name):
            steps.append(f"alias of {name!r}")
        elif raw != name:
            steps.append(f"spelt {name!r}")
        if name in self.rules.drops:
            return "; ".join([*steps, f"dropped: {self.rules.drops[name]}"])
        limit = self.taxonomy.keep_above
        while (parent := self.parent(name)) is not None:
            steps.append(f"folds into {parent!r} ({self.sizes[name]} images, not more than {limit})")
            name = parent
        if name in self.sizes:
            steps.append(f"stays apart from {self.taxonomy.lesion.parents[name]!r} ({self.sizes[name]} images, more than {limit})")
        became = self.terms.names[self.target[code]]
        if became != name:
            steps.append(f"merged into {became!r}")
        if (n := self.counts[self.target[code]]) < self.taxonomy.drop_below:
            steps.append(_TOO_RARE.format(became, n, self.taxonomy.drop_below))
        return "; ".join(steps) or "kept"

    def log(
        self,
        present: pl.DataFrame,
        unassessed: Collection[str],
        notes: Sequence[tuple[pl.DataFrame, str]],
        machine: Collection[str],
    ) -> pl.DataFrame:
        """One row for each raw term that is `present` on photographs or listed there as not assessed, with `notes` on some."""
        counts = _images(present)
        noted = [(_images(pairs), text) for pairs, text in notes]
        classes = set(self.classes)
        rows = []
        for raw in sorted(counts.keys() | set(unassessed)):
            code = self.terms.meaning[raw]
            became = self.terms.names[code if self.target[code] < 0 else self.target[code]] if code >= 0 else None
            rows.append(
                {
                    "task": self.rules.task,
                    "raw_term": raw,
                    "became": became if became in classes else None,
                    "reason": "; ".join([self.reason(raw), *(text.format(n[raw]) for n, text in noted if raw in n)]),
                    "origin": "machine" if became in machine else "person",
                    "n_images": counts.get(raw, 0),
                }
            )
        return pl.DataFrame(rows, schema=_LOG_SCHEMA)


def too_rare(log: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Read in the log what was left out for being on too few photographs, though on some: photographs by class, by task."""
    found: dict[str, dict[str, int]] = {}
    for task, reason in log.select("task", "reason").iter_rows():
        if (told := _TOO_RARE_READ.search(reason)) and (n := int(told["n"])):
            found.setdefault(task, {})[ast.literal_eval(told["name"])] = n
    return found


def mentions(photos: pl.DataFrame, column: str) -> pl.DataFrame:
    """The lists of a column as pairs of `row` and `term`, in order."""
    pairs = photos.select(row=pl.int_range(pl.len(), dtype=pl.Int64), term=pl.col(column).cast(pl.List(pl.String)))
    return pairs.filter(pl.col("term").list.len() > 0).explode("term")


def read_terms(found: Sequence[pl.DataFrame], declared: Collection[str], rules: TermRules, origin: str) -> Terms:
    """Read every raw term by the taxonomy: those `found` on photographs, and those that sources are `declared` to assess."""
    pairs = pl.concat(found)
    if pairs["term"].null_count():
        row = pairs.filter(pl.col("term").is_null())["row"].min()
        raise LabelError(f"{origin}, row {1 + cast('int', row)}: a {rules.task} is missing within its list")
    lookup = rules.lookup()
    raw_terms = sorted({*pairs["term"].unique(), *declared})
    unknown = [raw for raw in raw_terms if term_key(raw) not in lookup]
    refused = unknown if rules.unknown_terms == "error" else [raw for raw in unknown if not _can_be_term(raw)]
    if refused:
        raise _refusal(refused, pairs, lookup, rules, origin)
    # Of several spellings the last in order is kept, which is the one in lower case: the same whatever the order of the rows.
    kept = {term_key(raw): raw.strip() for raw in sorted(unknown, key=str.strip)} if rules.unknown_terms == "keep" else {}
    names = tuple(sorted({*lookup.values(), *kept.values()}))
    number = {name: k for k, name in enumerate(names)}
    spelt = lookup | kept
    meaning = {raw: number[spelt[key]] if (key := term_key(raw)) in spelt else -1 for raw in raw_terms}
    return Terms(names, number, meaning, frozenset(kept.values()))


def _can_be_term(raw: str) -> bool:
    return term_key(raw) not in {"", "none", ALL_TERMS} and ";" not in raw and raw.strip().isprintable()


def _refusal(refused: Sequence[str], pairs: pl.DataFrame, lookup: Mapping[str, str], rules: TermRules, origin: str) -> LabelError:
    found = pairs.filter(pl.col("term").is_in(refused)).sort("row", maintain_order=True).head(1)
    raw, where = (refused[0], "") if found.is_empty() else (found["term"].item(), f", row {found['row'].item() + 1}")
    if not _can_be_term(raw):
        return LabelError(
            f"{origin}{where}: {raw!r} cannot be a {rules.task}: a term is not empty, not 'none' or '*', and holds no ';' and no control character"
        )
    near = nearest(raw.strip(), dict.fromkeys((*lookup.values(), *rules.aliases)))
    others = f" ({len(refused) - 1} more such terms)" if len(refused) > 1 else ""
    declared = "" if where else ", which a source is said to assess"
    return LabelError(f"{origin}{where}: the taxonomy does not know the {rules.task} {raw!r}{declared}: {near}{others}")


def _images(pairs: pl.DataFrame) -> dict[str, int]:
    """On how many photographs each raw term stands."""
    return dict(pairs.group_by("term").agg(pl.col("row").n_unique()).iter_rows())
