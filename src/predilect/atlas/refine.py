"""Refinement: from the terms that sources wrote to the classes that a network learns, with a log of every decision.

The order, after the paper's Dataset section:

1. Raw terms are read by the taxonomy (aliases, spellings); terms it drops on purpose are left out.
2. A sub-lesion folds into its parent unless it is on more than `keep_above` photographs, those folded into it included.
3. Merges.
4. The single-site rule: a photograph has one site or none.
5. Classes on fewer than `drop_below` of the photographs given are left out, lesions and sites alike.

Unknown is never absent. A lesion class is 1 where one of its terms is present; else unknown where one of its terms was not
assessed; else 0. A term was not assessed where its photograph lists it as unknown, or where its source assesses neither it nor
a parent that it folded into. A sub-lesion that stays apart is not spoken for by its parent: neither is it assessed with the
parent, nor unknown with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.atlas.terms import ALL_TERMS, Course, Terms, mentions, read_terms
from predilect.errors import LabelError
from predilect.labels.rules import SiteRules, TermRules
from predilect.labels.tasks import LESION, SITE, LabelSpace, Task
from predilect.labels.taxonomy import Taxonomy

__all__ = ["LESIONS_DROPPED", "SEVERAL_SITES", "SITE_DROPPED", "Refined", "refine"]

LESIONS_DROPPED = "lesions dropped"
SEVERAL_SITES = "several sites"
SITE_DROPPED = "site dropped"

_NEEDED = ("image_id", "lesions", "lesions_unknown", "site", "source")


@dataclass(frozen=True, eq=False, slots=True)
class Refined:
    """What refinement makes of N photographs.

    Attributes:
        labels: The classes of each task that is left, sorted by name; machine-made ones are marked.
        table: N rows in the order given: `image_id`; a column ``lesion/<class>`` and ``site/<class>`` for every class, Int8,
            1 or 0 or null (a site row is one-hot or all null); `refinement_flag`, which of "lesions dropped" (something was
            seen, and no class is left for it), "several sites" and "site dropped" (either leaves the site unknown) hold,
            joined by "; ", or null.
        log: One row for each raw term of each task as it was written, sorted: `task`, `raw_term`, `became` (a class, or null
            if dropped), `reason` (the steps, in words), `origin` ("person", or "machine" if a model made the labels),
            `n_images` (photographs that list it as present).
    """

    labels: LabelSpace
    table: pl.DataFrame
    log: pl.DataFrame


def refine(
    photos: pl.DataFrame,
    taxonomy: Taxonomy,
    *,
    assessed: Mapping[str, Collection[str]] | None = None,
    origin: str = "the photographs",
) -> Refined:
    """Turn raw terms into classes.

    Args:
        photos: N rows with at least `image_id`, `lesions`, `lesions_unknown`, `site` and `source` of `PHOTO_SCHEMA`. A null list
            is not annotated, an empty one annotated with nothing seen.
        taxonomy: The rules.
        assessed: For a source, the raw lesion terms that it assesses; a source that is not named assesses everything.
        origin: What to call the photographs in error messages, such as the path of their manifest.

    Returns:
        Labels row by row, and the log. Nothing but the order of the table's rows depends on the order of `photos`.

    Raises:
        LabelError: If a term is unknown and the taxonomy makes that an error, cannot be a class name, or no class is left.
        ValueError: If `photos` lacks a column.
    """
    lacking = [name for name in _NEEDED if name not in photos.columns]
    if lacking:
        raise ValueError(f"photos lacks the columns {lacking}")
    lesions, lesion_cells, lesion_flags, lesion_log = _refine_lesions(photos, taxonomy, assessed or {}, origin)
    sites, site_cells, site_flags, site_log = _refine_sites(photos, taxonomy, origin)
    if not lesions and not sites:
        raise LabelError(
            f"{origin}: no lesion and no site of the {photos.height} photographs is left after taxonomy {taxonomy.name!r} "
            f"(drop_below = {taxonomy.drop_below})"
        )
    tasks = [Task(LESION, lesions, frozenset(taxonomy.lesion.machine) & frozenset(lesions))] if lesions else []
    tasks += [Task(SITE, sites)] if sites else []
    labels = LabelSpace(tuple(tasks))
    cells = dict(zip(labels.columns, (*lesion_cells, *site_cells), strict=True))
    flags = [pl.when(mask).then(pl.lit(text)) for text, mask in (lesion_flags | site_flags).items()]
    table = pl.concat(
        [
            photos.select("image_id"),
            pl.DataFrame(cells).select(pl.when(pl.all() >= 0).then(pl.all()).name.keep()),
            pl.select(refinement_flag=pl.concat_str(flags, separator="; ", ignore_nulls=True).replace("", None)),
        ],
        how="horizontal",
    )
    return Refined(labels, table, pl.concat([lesion_log, site_log]))


def _refine_lesions(
    photos: pl.DataFrame, taxonomy: Taxonomy, assessed: Mapping[str, Collection[str]], origin: str
) -> tuple[tuple[str, ...], NDArray[np.int8], dict[str, pl.Series], pl.DataFrame]:
    """Classes, (C, N) cells with -1 for unknown, flags and log."""
    rules = taxonomy.lesion
    seen = mentions(photos, "lesions")
    listed = mentions(photos, "lesions_unknown")
    unassessed = listed.filter(pl.col("term") != ALL_TERMS)
    terms = read_terms((seen, unassessed), [raw for group in assessed.values() for raw in group], rules, origin)
    rows, codes = terms.numbered(seen)
    target, sizes = _folded(_without_drops(terms, rules), terms, rows, codes, taxonomy)
    target = _merged(target, terms, rules)
    course = Course(taxonomy, rules, terms, target, terms.count(rows, target[codes]), sizes)
    place = course.place[target]  # (K + 1,) class number of each term

    cells = np.zeros((len(course.classes), photos.height), dtype=np.int8)
    cells[:, listed.filter(pl.col("term") == ALL_TERMS)["row"].to_numpy()] = -1
    _put(cells, place, *terms.numbered(unassessed), value=-1)
    for source, group in assessed.items():
        of_source = photos["source"].eq_missing(source).to_numpy()
        cells[np.ix_(~course.assessed(group), of_source)] = -1
    _put(cells, place, rows, codes, value=1)
    cells[:, photos["lesions"].is_null().to_numpy()] = -1

    lost = np.zeros(photos.height, dtype=np.bool_)
    lost[rows] = True
    lost[rows[place[codes] >= 0]] = False
    log = course.log(seen, unassessed["term"].unique().to_list(), (), rules.machine)
    return course.classes, cells, {LESIONS_DROPPED: pl.Series(lost)}, log


def _refine_sites(
    photos: pl.DataFrame, taxonomy: Taxonomy, origin: str
) -> tuple[tuple[str, ...], NDArray[np.int8], dict[str, pl.Series], pl.DataFrame]:
    """Classes, (C, N) cells with -1 for unknown, flags and log."""
    rules = taxonomy.site
    seen = mentions(photos, "site")
    terms = read_terms((seen,), (), rules, origin)
    rows, codes = terms.numbered(seen)
    target = _merged(_without_drops(terms, rules), terms, rules)
    chosen, several = _one_site(rows, target[codes], photos.height, terms, rules)
    course = Course(taxonomy, rules, terms, target, np.bincount(chosen[chosen >= 0], minlength=len(terms.names)), {})
    site = course.place[chosen]  # (N,) class number of each photograph

    cells = (np.arange(len(course.classes))[:, None] == site).astype(np.int8)
    cells[:, site < 0] = -1
    annotated = np.zeros(photos.height, dtype=np.bool_)
    annotated[rows] = True
    flags = {SEVERAL_SITES: pl.Series(several), SITE_DROPPED: pl.Series(annotated & ~several & (site < 0))}
    unclear = several[rows] & (target[codes] >= 0)
    outdone = (chosen[rows] >= 0) & (target[codes] >= 0) & (chosen[rows] != target[codes])
    notes = [(seen.filter(pl.Series(unclear)), "unknown on {} images that show several sites")]
    notes += [(seen.filter(pl.Series(outdone)), "another site is taken on {} images that show several")]
    return course.classes, cells, flags, course.log(seen, (), notes, ())


def _without_drops(terms: Terms, rules: TermRules) -> NDArray[np.int64]:
    """(K + 1,) each term itself, -1 where it is dropped on purpose."""
    target = np.append(np.arange(len(terms.names)), -1)
    target[[terms.number[name] for name in rules.drops]] = -1
    return target


def _folded(
    target: NDArray[np.int64], terms: Terms, rows: NDArray[np.int64], codes: NDArray[np.int64], taxonomy: Taxonomy
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Fold sub-lesions into their parents, those deepest in a family first; also the size each had when it was decided."""
    target = target.copy()
    depth = {name: len(taxonomy.lesion.ancestors(name)) for name in taxonomy.lesion.parents}
    sizes: dict[str, int] = {}
    for level in sorted(set(depth.values()), reverse=True):
        counts = terms.count(rows, target[codes])
        for name in (name for name in depth if depth[name] == level):
            sizes[name] = int(counts[terms.number[name]])
            if sizes[name] <= taxonomy.keep_above:
                target[target == terms.number[name]] = terms.number[taxonomy.lesion.parents[name]]
    return target, sizes


def _merged(target: NDArray[np.int64], terms: Terms, rules: TermRules) -> NDArray[np.int64]:
    """(K + 1,) what each term becomes by the merges, after what it has become already."""
    merge = np.append(np.arange(len(terms.names)), -1)
    for name, members in rules.merges.items():
        merge[[terms.number[member] for member in members]] = terms.number[name]
    return merge[target]


def _put(
    cells: NDArray[np.int8], place: NDArray[np.int64], rows: NDArray[np.int64], codes: NDArray[np.int64], *, value: int
) -> None:
    """Set the (C, N) cells that pairs of row and term speak of."""
    column = place[codes]
    cells[column[column >= 0], rows[column >= 0]] = value


def _one_site(
    rows: NDArray[np.int64], codes: NDArray[np.int64], n: int, terms: Terms, rules: SiteRules
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) the final site of each photograph or -1, and (n,) whether it is -1 because there were several."""
    rows, codes = rows[codes >= 0], codes[codes >= 0]
    chosen, several = np.full(n, -1), np.zeros(n, dtype=np.bool_)
    present, starts = np.unique(rows, return_index=True)
    chosen[present] = codes[starts]
    if rules.several == "first":
        return chosen, several
    several[rows[codes != chosen[rows]]] = True
    strongest = np.full(n, -1)
    if rules.several == "priority":
        by_rank = np.array([*(terms.number[name] for name in rules.priority), -1])
        rank = np.full(len(terms.names), len(rules.priority))
        rank[by_rank[:-1]] = np.arange(len(rules.priority))
        strongest[present] = by_rank[np.minimum.reduceat(rank[codes], starts)]
    chosen = np.where(several, strongest, chosen)
    return chosen, several & (chosen < 0)
