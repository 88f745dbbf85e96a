"""What the networks of a finished cross-validation show of themselves, each on the photographs that it did not learn from.

Every network looks once at every photograph of the atlas: at those of its fold for embeddings and maps, at the others for the
embeddings that answer. Deletion, insertion and randomisation, which need many passes, take a sample, the same one for all systems
and seeds. What was found in a fold is kept in the run, so that nothing finished is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import polars as pl
from lightning_fabric import Fabric
from numpy.typing import NDArray

from predilect.evaluation.attention_summary import MapTables, evaluate_attention
from predilect.evaluation.insight import Insight, InsightCost
from predilect.evaluation.retrieval import QueryScores
from predilect.evaluation.retrieval_summary import evaluate_retrieval
from predilect.insight.faithfulness import RANDOM_WEIGHTS
from predilect.insight.one_fold import STEPS, Fold, Part, explain_fold, n_inputs
from predilect.labels.tasks import LESION, SITE
from predilect.randomness import stream
from predilect.run import Run
from predilect.run.insight import FoldInsight, fold_path, query_scores, read_fold, write_fold
from predilect.training.folds import TrainedFolds

__all__ = ["explain_folds", "sampled_rows", "summarise"]


def explain_folds(
    folds: TrainedFolds,
    systems: Sequence[str],
    seeds: Sequence[int],
    *,
    sample: int,
    fabric: Fabric,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[Part, FoldInsight]:
    """Look at the photographs of an atlas with each network of a run that has not done so yet.

    Cost for each network: a forward pass over the atlas (for each of the recipe's views), and for each sampled photograph of its
    fold 60 inputs more for each head.

    Args:
        folds: The run and its atlas.
        systems: Names of trained systems.
        seeds: Training seeds of the run.
        sample: How many tested photographs are drawn for deletion, insertion and randomisation.
        fabric: Gives device and precision.
        on_progress: Told how many inputs went through networks, those of finished folds too, and about how many will.

    Returns:
        What was found, now or before, by system, seed and fold.

    Raises:
        RunError: If a network is not there, or its weights are missing or changed.
        InsightError: If what was found before is damaged, an embedding is not finite, or captum is needed and missing.
        DiskError: If the run cannot be written to.
    """
    parts = [(system, seed, fold) for system in systems for seed in seeds for fold in folds.run.info["folds"]]
    sampled = sampled_rows(folds, sample)
    settings = {
        part: {"weights": folds.run.weights_checksum(*part), "sample": sample, "steps": STEPS, "random_weights": RANDOM_WEIGHTS}
        for part in parts
    }
    found = {part: read_fold(fold_path(folds.run.path, *part), settings[part]) for part in parts}
    for part in parts:
        if found[part] is None:
            folds.run.fold_weights(*part)  # all of them, before hours of work on the first
    expected = {part: _expected(folds, part, sampled) for part in parts}
    with folds.atlas.images() as images:
        for part in parts:
            if found[part] is None:
                tell = _counting_on(*_standing(found, expected), on_progress)
                known = explain_fold(Fold.of(folds, part, fabric, images, sampled), tell)
                write_fold(fold_path(folds.run.path, *part), known, settings[part])
                found[part] = known
                if on_progress is not None:  # a network without maps took fewer
                    on_progress(*_standing(found, expected))
    return {part: known for part, known in found.items() if known is not None}


def sampled_rows(folds: TrainedFolds, sample: int) -> NDArray[np.int64]:
    """(n,) rows of the tested photographs that are drawn for the checks, ascending; all of them where there are no more."""
    tested = np.flatnonzero(np.isin(folds.folds, folds.run.info["folds"]))
    drawn = stream(0, "explained photographs").choice(tested, size=min(sample, len(tested)), replace=False)
    return np.sort(drawn)


def summarise(run: Run, found: Mapping[Part, FoldInsight], *, sample: int, command: str) -> Insight:
    """Sum up what was found in all folds, with intervals, and compare systems in pairs; gains are those of the same seeds.

    Args:
        run: The cross-validation, finished.
        found: What `explain_folds` returned.
        sample: How many photographs were to be drawn.
        command: For the record.

    Raises:
        RunError: If a fold with predictions that are needed is not finished, or a file of it was changed.
    """
    truth = run.truth()
    systems, seeds = list(dict.fromkeys(name for name, _, _ in found)), list(dict.fromkeys(seed for _, seed, _ in found))
    by_system = {name: {part: fold for part, fold in found.items() if part[0] == name} for name in systems}
    pairs = [(a, b) for a, b in run.compared if a in systems and b in systems]
    scores = {
        name: {
            seed: QueryScores.concatenate(
                [query_scores(fold.tables["queries"], truth) for part, fold in parts.items() if part[1] == seed]
            )
            for seed in seeds
        }
        for name, parts in by_system.items()
    }
    explained = {name: parts for name, parts in by_system.items() if _reason(parts) is None}
    taught = [pair for pair in run.compared if pair[0] in explained and _teaches_the_site(run, *pair)]
    return Insight(
        command=command,
        weights={
            name: {
                str(seed): {str(fold): str(run.weights_checksum(name, seed, fold)) for fold in run.info["folds"]} for seed in seeds
            }
            for name in systems
        },
        cost={
            name: InsightCost(
                seconds=round(sum(fold.seconds for fold in parts.values()), 2), images=sum(fold.images for fold in parts.values())
            )
            for name, parts in by_system.items()
        },
        attention=evaluate_attention(
            truth,
            {name: _map_tables(parts) for name, parts in explained.items()},
            predictions={name: run.system_predictions(name, seeds) for name in dict.fromkeys(chain.from_iterable(taught))},
            pairs=taught,
            unexplained={name: reason for name, parts in by_system.items() if (reason := _reason(parts)) is not None},
            seeds=seeds,
            sample=min(sample, len(truth)),
        ),
        retrieval=evaluate_retrieval(truth, scores, pairs=pairs),
    )


def _expected(folds: TrainedFolds, part: Part, sampled: NDArray[np.int64]) -> int:
    """How many inputs will go through the network of a part, if it can be explained."""
    system, _, fold = part
    n_views, n_sampled = folds.recipe(system).preprocessing.n_views, int((folds.folds[sampled] == fold).sum())
    return n_inputs(n_views, len(folds.folds), n_sampled, len(folds.run.info["systems"][system]["tasks"]))


def _standing(found: Mapping[Part, FoldInsight | None], expected: Mapping[Part, int]) -> tuple[int, int]:
    """How many inputs went through networks, and how many will have in all."""
    done = sum(known.images for known in found.values() if known is not None)
    return done, done + sum(n for part, n in expected.items() if found[part] is None)


def _counting_on(before: int, total: int, on_progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """What one fold tells, as a step of the whole."""
    done = before

    def tell(n: int) -> None:
        nonlocal done
        done += n
        if on_progress is not None:
            on_progress(done, total)

    return tell


def _reason(parts: Mapping[Part, FoldInsight]) -> str | None:
    """Why a system has no maps."""
    return next((fold.unexplained for fold in parts.values() if fold.unexplained is not None), None)


def _teaches_the_site(run: Run, system: str, baseline: str) -> bool:
    """Whether two systems differ in having learned the site too."""
    asked_for = run.info["systems"]
    if system not in asked_for or baseline not in asked_for:
        return False
    return set(asked_for[system]["tasks"]) == {LESION, SITE} and asked_for[baseline]["tasks"] == [LESION]


def _map_tables(parts: Mapping[Part, FoldInsight]) -> MapTables:
    first = next(iter(parts.values()))
    assert first.method is not None
    assert first.cells is not None

    def whole(name: str) -> pl.DataFrame:
        return pl.concat(list(_with_seeds(parts, name)))

    return MapTables(first.method, first.cells, whole("coincidence"), whole("curves"), whole("randomisation"))


def _with_seeds(parts: Mapping[Part, FoldInsight], name: str) -> Iterator[pl.DataFrame]:
    for (_, seed, _), fold in parts.items():
        yield fold.tables[name].with_columns(seed=pl.lit(seed, dtype=pl.Int64))
