"""The tables of a report: rows for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich import box
from rich.table import Table

from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS
from predilect.evaluation.scores import Comparison, Evaluation, LesionScores, SiteScores, SystemScores
from predilect.labels.tasks import LESION, SITE
from predilect.report.published import Published
from predilect.report.wording import HEADLINE_METRICS, Estimate, interval, number

__all__ = [
    "ClassRow",
    "ClassTable",
    "HeadlineRow",
    "MeanRow",
    "ap_differences",
    "headline_table",
    "lesion_systems",
    "lesion_tables",
    "machine_table",
    "site_systems",
    "site_table",
    "terminal_tables",
]

_METRICS: dict[str, str] = {**HEADLINE_METRICS[LESION], **HEADLINE_METRICS[SITE]}
_LESION_MEANS = ("map_class", "map_class_fold_mean", "map_image")  # the foot of a table of lesions
_Pairs = tuple[tuple[str, str], ...]

_PAIRS_BESIDE_SCORES = 2  # more pairs of systems than this get tables of their own


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """One system, or one of its training seeds, with its headline numbers.

    Attributes:
        system: The system.
        seed: The training seed, or None for the mean over seeds, which alone has intervals.
        estimates: One per metric of `HEADLINE_METRICS`, lesion before site, in that order.
    """

    system: str
    seed: str | None
    estimates: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One lesion or site.

    Attributes:
        name: The class, whole.
        n_positive: Photographs known to show it.
        n_groups: Groups those photographs belong to.
        base_rate: Share of the photographs with a known label that show it; None where none is known.
        scores: One per system of the table.
        extra: A second score per system (top-3 of a site), or nothing.
        best: Systems whose score, as printed, is the highest of the row; empty where only one system has a score.
        differences: One per pair of the table; None where that pair was not compared.
        published: What the paper printed, one per system of the table; empty where the table has none of its columns.
    """

    name: str
    n_positive: int
    n_groups: int
    base_rate: float | None
    scores: tuple[Estimate, ...]
    extra: tuple[float | None, ...]
    best: frozenset[str]
    differences: tuple[Comparison | None, ...]
    published: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class MeanRow:
    """A number over all classes at the foot of a table; the fields are those of `ClassRow`.

    Attributes:
        name: What it is, and over how many.
    """

    name: str
    scores: tuple[Estimate, ...]
    extra: tuple[Estimate, ...]
    best: frozenset[str]
    differences: tuple[Comparison | None, ...]
    published: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Classes as rows; systems, then pairs of systems, as columns; means at the foot.

    `published` are the systems beside which the paper's numbers stand in a column of their own.
    """

    systems: tuple[str, ...]
    pairs: _Pairs
    rows: tuple[ClassRow, ...]
    means: tuple[MeanRow, ...] = ()
    published: frozenset[str] = frozenset()


def lesion_systems(evaluation: Evaluation) -> dict[str, LesionScores]:
    """The systems that predict lesions, with those scores."""
    return {name: system.lesion for name, system in evaluation.systems.items() if system.lesion is not None}


def site_systems(evaluation: Evaluation) -> dict[str, SiteScores]:
    """The systems that predict the site, with those scores."""
    return {name: system.site for name, system in evaluation.systems.items() if system.site is not None}


def ap_differences(evaluation: Evaluation) -> dict[tuple[str, str], dict[str, Comparison]]:
    """Per pair of systems, the comparison of each lesion's AP."""
    pairs: dict[tuple[str, str], dict[str, Comparison]] = {}
    for item in evaluation.comparisons:
        if item.metric == "ap" and item.class_name is not None:
            pairs.setdefault((item.system_a, item.system_b), {})[item.class_name] = item
    return pairs


def headline_table(evaluation: Evaluation, *, by_seed: bool = False) -> list[HeadlineRow]:
    """The headline numbers, a row per system.

    Args:
        evaluation: What was scored.
        by_seed: A row per system and training seed instead, without intervals.
    """
    if by_seed:
        return [
            HeadlineRow(name, seed, {metric: Estimate(getattr(scores, metric)) for metric in _METRICS})
            for name, system in evaluation.systems.items()
            for seed, scores in system.seeds.items()
        ]
    return [
        HeadlineRow(name, None, {metric: _headline(system, metric) for metric in _METRICS})
        for name, system in evaluation.systems.items()
    ]


def terminal_tables(evaluation: Evaluation) -> list[Table]:
    """The headline numbers for the terminal: a table per task, a row per system, so that any number of systems fits into eighty columns.

    Tasks, systems and metrics without a number are left out, and so is a mean over folds where there is one: it has no other number.
    """
    tables = []
    one_fold = evaluation.folds is not None and len(evaluation.folds.folds) == 1
    for task, metrics in HEADLINE_METRICS.items():
        rows = [row for row in headline_table(evaluation) if any(row.estimates[metric].value is not None for metric in metrics)]
        told = {metric: name for metric, name in metrics.items() if not (one_fold and metric == "map_class_fold_mean")}
        shown = {metric: name for metric, name in told.items() if any(row.estimates[metric].value is not None for row in rows)}
        if not rows:
            continue
        sure = any(row.estimates[metric].low is not None for row in rows for metric in shown)
        intervals = ", with 95 % intervals" if sure else f"; no intervals: fewer than {MIN_POSITIVE_GROUPS} groups"
        title = f"{task.capitalize()} scores of held-out photographs{intervals}"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("system", no_wrap=True)
        for name in shown.values():
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            cells = [row.estimates[metric] for metric in shown]
            table.add_row(row.system, *(f"{number(cell.value)}\n{interval(cell.low, cell.high)}".rstrip() for cell in cells))
        tables.append(table)
    return tables


def lesion_tables(evaluation: Evaluation, published: Published | None = None) -> list[ClassTable]:
    """The paper's Table 1: AP of each lesion by system, with paired differences.

    Args:
        evaluation: What was scored.
        published: The paper's own numbers. They have columns if it has at least one of the systems and one of the lesions.

    Returns:
        One table where at most two pairs of systems were compared; otherwise the scores first, then a table of differences per
        pair. Empty where no system predicts lesions. Machine-made lesions are in `machine_table`.
    """
    systems = tuple(lesion_systems(evaluation))
    pairs = tuple(ap_differences(evaluation))
    if not systems:
        return []
    alone = len(pairs) > _PAIRS_BESIDE_SCORES
    columns: list[tuple[tuple[str, ...], _Pairs]] = [(systems, () if alone else pairs)]
    columns += [((), (pair,)) for pair in pairs if alone]
    tables = [
        ClassTable(*each, _lesion_rows(evaluation, *each, machine_made=False), _lesion_means(evaluation, *each)) for each in columns
    ]
    return [tables[0] if published is None else _beside(evaluation, tables[0], published), *tables[1:]]


def machine_table(evaluation: Evaluation) -> ClassTable:
    """AP of the attributes that a model labelled; no rows where there are none."""
    systems = tuple(lesion_systems(evaluation))
    return ClassTable(systems, (), _lesion_rows(evaluation, systems, (), machine_made=True))


def site_table(evaluation: Evaluation) -> ClassTable:
    """Top-1 share of each body site by system, with top-3 as the extra; no rows where no system predicts the site."""
    scored = site_systems(evaluation)
    first = next(iter(scored.values())).per_class if scored else {}
    total = sum(item.n_images for item in first.values())
    rows = []
    for name, item in first.items():
        of_site = [scores.per_class[name] for scores in scored.values()]
        scores = tuple(Estimate(each.top1, each.top1_low, each.top1_high) for each in of_site)
        rows.append(
            ClassRow(
                name=name,
                n_positive=item.n_images,
                n_groups=item.n_groups,
                base_rate=item.n_images / total if total else None,
                scores=scores,
                extra=tuple(each.top3 for each in of_site),
                best=_best(scored, scores),
                differences=(),
            )
        )
    return ClassTable(tuple(scored), (), tuple(rows), _site_means(evaluation))


def _headline(system: SystemScores, metric: str) -> Estimate:
    scores = system.lesion if metric in HEADLINE_METRICS[LESION] else system.site
    if scores is None:
        return Estimate(None)
    return Estimate(*(getattr(scores, f"{metric}{end}") for end in ("", "_low", "_high")))


def _lesion_rows(evaluation: Evaluation, systems: tuple[str, ...], pairs: _Pairs, *, machine_made: bool) -> tuple[ClassRow, ...]:
    scored = lesion_systems(evaluation)
    differences = ap_differences(evaluation)
    first = next(iter(scored.values())).per_class if scored else {}
    rows = []
    for name, item in first.items():
        if item.machine_made != machine_made:
            continue
        of_lesion = [scored[system].per_class[name] for system in systems]
        scores = tuple(Estimate(each.ap, each.ap_low, each.ap_high) for each in of_lesion)
        rows.append(
            ClassRow(
                name=name,
                n_positive=item.n_positive,
                n_groups=item.n_positive_groups,
                base_rate=item.n_positive / item.n_known if item.n_known else None,
                scores=scores,
                extra=(),
                best=_best(systems, scores),
                differences=tuple(differences[pair].get(name) for pair in pairs),
            )
        )
    return tuple(rows)


def _beside(evaluation: Evaluation, table: ClassTable, published: Published) -> ClassTable:
    """The table with the paper's columns, or as it is where they would be empty."""
    rows = tuple(
        replace(row, published=tuple(published.lesion(system, row.name) for system in table.systems)) for row in table.rows
    )
    if all(value is None for row in rows for value in row.published):
        return table
    means = tuple(
        replace(row, published=tuple(published.mean(system, metric) for system in table.systems))
        for row, metric in zip(table.means, _lesion_metrics(evaluation), strict=True)
    )
    found = frozenset(system for system in table.systems if system in published.systems)
    return replace(table, rows=rows, means=means, published=found)


def _lesion_metrics(evaluation: Evaluation) -> list[str]:
    """The means in the foot of a table of lesions; the one over folds only where there are folds."""
    scored = lesion_systems(evaluation).values()
    return [
        metric for metric in _LESION_MEANS if any(getattr(scores, metric) is not None for scores in scored) or metric == "map_class"
    ]


def _lesion_means(evaluation: Evaluation, systems: tuple[str, ...], pairs: _Pairs) -> tuple[MeanRow, ...]:
    scored = lesion_systems(evaluation)
    first = next(iter(scored.values()))
    compared = {(item.system_a, item.system_b, item.metric): item for item in evaluation.comparisons if item.task == LESION}
    lesions, photographs = f"{first.n_classes_defined:,} lesions", f"{first.n_images_defined:,} photographs"
    rows = []
    for metric in _lesion_metrics(evaluation):
        over = photographs if metric == "map_image" else lesions
        scores = tuple(_headline(evaluation.systems[system], metric) for system in systems)
        differences = tuple(compared.get((*pair, metric)) for pair in pairs)
        rows.append(MeanRow(f"{_METRICS[metric]} ({over})", scores, (), _best(systems, scores), differences))
    return tuple(rows)


def _site_means(evaluation: Evaluation) -> tuple[MeanRow, ...]:
    systems = tuple(site_systems(evaluation))
    if not systems:
        return ()
    top1, top3, balanced = (
        tuple(_headline(evaluation.systems[system], metric) for system in systems) for metric in HEADLINE_METRICS[SITE]
    )
    return (
        MeanRow("all photographs", top1, top3, _best(systems, top1), ()),
        MeanRow("mean over sites (balanced accuracy)", balanced, (), _best(systems, balanced), ()),
    )


def _best(systems: Iterable[str], scores: tuple[Estimate, ...]) -> frozenset[str]:
    # Compared as printed, so that equal numbers on the page are never told apart by what the page does not show.
    printed = {system: f"{score.value:.3f}" for system, score in zip(systems, scores, strict=True) if score.value is not None}
    if len(printed) < 2:
        return frozenset()
    return frozenset(system for system, text in printed.items() if text == max(printed.values()))
