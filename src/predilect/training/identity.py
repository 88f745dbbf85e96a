"""What decides a training, as a hash in its checkpoint: none is gone on from by another training, and that is found before anything is written."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from predilect.recipe import System
from predilect.run import STATE_FILE, Run
from predilect.run.finished import REFIT_FOLDER, RESULT_FILE, WHOLE_FOLDER
from predilect.training.checkpoint import lost_checkpoint, read_checkpoint

__all__ = ["check_unfinished", "fold_identity", "refit_schedule", "whole_identity"]


def fold_identity(info: Mapping[str, Any], system: System, seed: int, fold: int) -> str:
    """Hash of all that decides the training against one fold.

    Args:
        info: What ``run.json`` holds.
        system: With its recipe.
        seed: Of the training.
        fold: The one held out.

    Returns:
        A SHA-256 in hexadecimal.
    """
    return _identity(info, system, seed, ["fold", fold])


def whole_identity(info: Mapping[str, Any], system: System, name: str, schedule: tuple[int | None, Sequence[int] | None]) -> str:
    """Hash of all that decides a training on all groups, with the run's first seed.

    Args:
        info: What ``run.json`` holds.
        system: With its recipe.
        name: Of the folder that it lies in.
        schedule: After how many iterations it ends and the rate falls; None: as the recipe says.

    Returns:
        A SHA-256 in hexadecimal.
    """
    return _identity(info, system, info["seeds"][0], [name, *schedule])


def refit_schedule(run: Run, system: str) -> tuple[int, list[int]] | None:
    """After how many iterations a refit ends, and after which the rate falls: by the median of the folds with the first seed.

    Returns:
        None while a fold is not finished.

    Raises:
        RunError: If the file that says how a fold ended is damaged, or was changed.
    """
    results = [run.fold_result(system, run.info["seeds"][0], fold) for fold in run.info["folds"]]
    finished = [result for result in results if result is not None]
    if not finished or len(finished) < len(results):
        return None
    stop_at = round(statistics.median(result["chosen_iteration"] for result in finished))
    # Without validation there is no plateau to see: the rate falls where it fell in the folds, again by the median.
    counts = [len(result["drops"]) for result in finished]
    drops = [
        round(statistics.median(result["drops"][number] for result in finished if len(result["drops"]) > number))
        for number in range(round(statistics.median(counts)))
    ]
    return stop_at, [drop for drop in drops if drop < stop_at]


def check_unfinished(run: Run, systems: Sequence[System]) -> None:
    """Read the checkpoint of every training that has begun and not ended, which are few, as going on from it will.

    Args:
        run: A run to go on with; nothing in it is changed.
        systems: Those of the run.

    Raises:
        RunError: If a checkpoint was lost, is damaged, or belongs to another training.
    """
    for folder in run.without_checkpoint():
        raise lost_checkpoint(folder)
    for system in systems:
        for seed in run.info["seeds"]:
            for name, identity in _trainings(run, system, seed):
                folder = run.seed_folder(system.name, seed) / name
                if (folder / STATE_FILE).is_file() and not (folder / RESULT_FILE).is_file():
                    read_checkpoint(folder / STATE_FILE, identity)


def _trainings(run: Run, system: System, seed: int) -> Iterator[tuple[str, str | None]]:
    """The folder of each training that one seed of a system may have, and its identity, None where folds are yet to decide it."""
    for fold in run.info["folds"]:
        yield run.fold_folder(system.name, seed, fold).name, fold_identity(run.info, system, seed, fold)
    if seed == run.info["seeds"][0]:
        yield WHOLE_FOLDER, whole_identity(run.info, system, WHOLE_FOLDER, (None, None))
        schedule = refit_schedule(run, system.name)
        yield REFIT_FOLDER, None if schedule is None else whole_identity(run.info, system, REFIT_FOLDER, schedule)


def _identity(info: Mapping[str, Any], system: System, seed: int, part: Sequence[Any]) -> str:
    """The hash; `part` names the training within the run."""
    decisive = [
        info["atlas_hash"],
        info["splits_hash"],
        system.tasks,
        system.recipe.record(),
        info["weights"],
        info["precision"],
        seed,
        part,
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
