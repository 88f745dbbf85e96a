"""From a truth table and systems' predictions to every number of the report: scores, intervals, comparisons, counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.gains import predilection_gains
from predilect.evaluation.intervals import Counts, resample_groups
from predilect.evaluation.measures import HEADLINES, LesionMeasures, Measures, Numbers, SiteMeasures, counted_classes
from predilect.evaluation.nesting import common_folds
from predilect.evaluation.predilection import predilection_map
from predilect.evaluation.scores import ClassBalance, Evaluation, FoldBalance, SystemScores, TruthSummary
from predilect.evaluation.summaries import Resampled, Support, compare, lesion_scores, seed_scores, site_scores
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Predictions, Truth, check_matching

__all__ = ["evaluate"]

Key = tuple[str, str]  # system, task


def evaluate(
    truth: Truth,
    systems: Mapping[str, Predictions],
    *,
    n_resamples: int = 1_000,
    n_resamples_p: int = 10_000,
    seed: int = 0,
    pairs: Sequence[tuple[str, str]] | None = None,
    count_machine_made: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score systems against the truth, with intervals, and compare them in pairs.

    Every system and seed is scored on the same resamples of groups. Where the truth names groups, no number depends on the order
    of rows in any table. Folds that any table names hold for all of them, so that the mean over folds is defined for each system.

    Args:
        truth: What is known of N photographs.
        systems: Each system's predictions of the same photographs, of one or several training seeds.
        n_resamples: For intervals, at least 1.
        n_resamples_p: For p, at least 1.
        seed: Of the resampling.
        pairs: (system, baseline) to compare in the tasks they share; None: each system with every one given before it.
        count_machine_made: Whether labels that a model made count in the headline numbers. Their classes have no p either way.
        on_progress: Called with the resamples done so far and all there are.

    Returns:
        Everything the report shows.

    Raises:
        TableError: If a table does not match the truth, folds differ between tables, a group lies in two folds, or a
            photograph of the tuning slice (fold -1) is scored.
        ValueError: If there is no system, a pair names an unknown one, or a number of resamples is below 1.
    """
    if not systems:
        raise ValueError("there is no system to evaluate")
    if min(n_resamples, n_resamples_p) < 1:
        raise ValueError(f"the numbers of resamples are at least 1, found {n_resamples} and {n_resamples_p}")
    compared = list(pairs) if pairs is not None else [(later, first) for first, later in itertools.combinations(systems, 2)]
    for name in itertools.chain.from_iterable(compared):
        if name not in systems:
            raise ValueError(f"cannot compare {name!r}, the systems are {', '.join(systems)}")
    matched = {name: {s: check_matching(part, truth) for s, part in table.by_seed().items()} for name, table in systems.items()}
    groups = truth.group_indices()
    counted = {task.name: counted_classes(task, machine_made=count_machine_made) for task in truth.labels.tasks}
    folds = common_folds([part for parts in matched.values() for part in parts.values()], groups)
    measures = {
        (name, task): {s: _measure(part, truth, task, groups, counted=counted[task], folds=folds) for s, part in parts.items()}
        for name, parts in matched.items()
        for task in next(iter(parts.values())).labels.names
    }
    contests = [(a, b, task) for a, b in compared for task in HEADLINES if {(a, task), (b, task)} <= measures.keys()]
    paired = {(name, task) for a, b, task in contests for name in (a, b)}
    n_groups = int(groups.max()) + 1
    total = max(n_resamples, n_resamples_p) if paired else n_resamples
    blocks = _counted_off(resample_groups(n_groups, total, seed), total, on_progress)
    scored = _resample(measures, paired, blocks, n_resamples)
    supports = {task.name: Support.of(task, truth.values[task.name], groups, counted[task.name]) for task in truth.labels.tasks}
    return Evaluation(
        truth=_summary(truth, n_groups, count_machine_made=count_machine_made),
        systems={name: _system_scores(name, list(parts), scored, supports, n_resamples) for name, parts in matched.items()},
        comparisons=[
            row
            for a, b, task in contests
            for row in compare((a, b), (scored[a, task], scored[b, task]), supports[task], n_resamples, n_resamples_p)
        ],
        predilection=predilection_map(truth) if {LESION, SITE} <= set(truth.labels.names) else None,
        gains=predilection_gains(truth, [(a, b) for a, b, task in contests if task == LESION], scored, n_resamples, seed),
        folds=None if folds is None else _fold_balance(truth, folds, groups),
        n_resamples=n_resamples,
        n_resamples_p=n_resamples_p,
        resampling_seed=seed,
    )


def _fold_balance(truth: Truth, folds: NDArray[np.int64], groups: NDArray[np.int64]) -> FoldBalance:
    numbers = np.unique(folds)
    return FoldBalance(
        folds=tuple(int(fold) for fold in numbers),
        n_images=tuple(int((folds == fold).sum()) for fold in numbers),
        n_groups=tuple(len(np.unique(groups[folds == fold])) for fold in numbers),
        classes=tuple(
            ClassBalance(task=task.name, name=name, n_positive=tuple(int(positive[folds == fold].sum()) for fold in numbers))
            for task in truth.labels.tasks
            for name, positive in zip(task.classes, (truth.values[task.name] == 1).T, strict=True)
        ),
    )


def _measure(
    predictions: Predictions,
    truth: Truth,
    task: str,
    groups: NDArray[np.int64],
    *,
    counted: NDArray[np.bool_],
    folds: NDArray[np.int64] | None,
) -> Measures:
    scores, labels = predictions.scores[task], truth.values[task]
    if task == LESION:
        return LesionMeasures.of(scores, labels, groups, counted, folds)
    return SiteMeasures.of(scores, labels, groups, counted)


def _resample(
    measures: Mapping[Key, Mapping[int, Measures]],
    paired: set[Key],
    blocks: Iterable[Counts],
    for_intervals: int,
) -> dict[Key, Resampled]:
    """Score everything on the first resamples, for intervals, and what is compared on the further ones that p needs."""
    parts: dict[Key, list[Numbers]] = {key: [] for key in measures}
    done = 0
    with ThreadPoolExecutor() as pool:  # numpy and scipy let other threads run while they count
        for multiplicities in blocks:
            compute = _with_fold_mean if done < for_intervals else _without_fold_mean
            keys = [key for key in measures if done < for_intervals or key in paired]
            jobs = {key: [pool.submit(compute, one, multiplicities) for one in measures[key].values()] for key in keys}
            for key, seeds in jobs.items():
                parts[key].append(_mean([job.result() for job in seeds]))
            done += multiplicities.shape[1]
    return {
        key: Resampled(
            by_seed=measures[key],
            resamples={name: np.concatenate([part[name] for part in of_key if name in part], axis=-1) for name in of_key[0]},
        )
        for key, of_key in parts.items()
    }


def _without_fold_mean(measures: Measures, multiplicities: Counts) -> Numbers:
    return measures.resampled(multiplicities)


def _with_fold_mean(measures: Measures, multiplicities: Counts) -> Numbers:
    numbers = measures.resampled(multiplicities)
    if isinstance(measures, LesionMeasures):
        numbers["map_class_fold_mean"] = measures.resampled_fold_mean(multiplicities)
    return numbers


def _counted_off(blocks: Iterable[Counts], total: int, on_progress: Callable[[int, int], None] | None) -> Iterator[Counts]:
    done = 0
    for block in blocks:
        yield block
        done += block.shape[1]
        if on_progress is not None:
            on_progress(done, total)


def _mean(seeds: Sequence[Numbers]) -> Numbers:
    return {name: np.mean([numbers[name] for numbers in seeds], axis=0) for name in seeds[0]}


def _system_scores(
    name: str, seeds: Sequence[int], scored: Mapping[Key, Resampled], supports: Mapping[str, Support], n_resamples: int
) -> SystemScores:
    tasks = {task: scored[name, task] for task in HEADLINES if (name, task) in scored}
    return SystemScores(
        lesion=lesion_scores(tasks[LESION], supports[LESION], n_resamples) if LESION in tasks else None,
        site=site_scores(tasks[SITE], supports[SITE], n_resamples) if SITE in tasks else None,
        seeds={str(seed): seed_scores(tasks, seed) for seed in seeds},
    )


def _summary(truth: Truth, n_groups: int, *, count_machine_made: bool) -> TruthSummary:
    known = {name: int((values >= 0).any(axis=1).sum()) for name, values in truth.values.items()}
    return TruthSummary(
        n_images=len(truth),
        n_groups=n_groups,
        grouped=truth.groups is not None,
        n_lesion_known=known.get(LESION, 0),
        n_site_known=known.get(SITE, 0),
        machine_made=tuple(name for task in truth.labels.tasks for name in task.classes if name in task.machine),
        machine_made_counted=count_machine_made,
    )
