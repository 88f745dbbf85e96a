"""Folds x systems x seeds into a run folder: nothing finished is repeated, nothing of a test fold is seen in its training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from safetensors.torch import save_file

from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits
from predilect.errors import DiskError, RunError
from predilect.files import replacing
from predilect.predictions import Predictions
from predilect.recipe import System
from predilect.run import LOG_FILE, PREDICTIONS_FILE, STATE_FILE, WEIGHTS_FILE, Run
from predilect.run.finished import REFIT_FOLDER, RESULT_FILE, WHOLE_FOLDER, finish, read_result, weights_path
from predilect.training.checkpoint import load_tensors
from predilect.training.identity import fold_identity, refit_schedule, whole_identity
from predilect.training.inference import predict
from predilect.training.loop import fit
from predilect.training.material import Material
from predilect.training.trainer import Progress
from predilect.vision.network import Network, assemble_network, build_network

__all__ = ["OnFoldProgress", "Refit", "cross_validate", "refit", "train_whole"]

OnFoldProgress = Callable[[str, int, int | None, Progress], None]
"""Told the system, the seed, the fold (None: all groups) and where the training stands."""


@dataclass(frozen=True, slots=True)
class Refit:
    """A system trained once more on all groups.

    Attributes:
        system: What was trained.
        network: With its final weights, in evaluation.
        provenance: Where it comes from, for the bundle.
    """

    system: System
    network: Network
    provenance: Mapping[str, Any]


def cross_validate(
    run: Run,
    atlas: Atlas,
    splits: Splits,
    systems: Sequence[System],
    *,
    fabric: Fabric,
    on_progress: OnFoldProgress | None = None,
) -> None:
    """Train and predict every fold of every system and seed that is not finished yet.

    Args:
        run: The folder, from `predilect.training.start.start_run`.
        atlas: The photographs.
        splits: Their folds.
        systems: What to compare.
        fabric: Gives device and precision.
        on_progress: Told the system, seed, fold and where the training stands.

    Raises:
        RunError: If a training cannot go on.
    """
    material = Material.of(atlas, splits)
    for seed in run.info["seeds"]:
        for system in systems:
            for fold in run.info["folds"]:
                if run.fold_result(system.name, seed, fold) is None:
                    told = None if on_progress is None else _bound(on_progress, system.name, seed, fold)
                    _run_fold(run, material, system, seed, fold, fabric=fabric, on_progress=told)
            if fabric.is_global_zero:
                run.gather(system.name, seed)
            fabric.barrier()
        if fabric.is_global_zero:
            for name in run.plan.ensembles:
                run.gather(name, seed)


def refit(
    run: Run,
    atlas: Atlas,
    splits: Splits,
    system: System,
    *,
    fabric: Fabric,
    on_progress: OnFoldProgress | None = None,
) -> Refit:
    """Train a cross-validated system once more, on all groups, for the median of its folds' chosen iterations.

    What is finished is not trained again, unless its weights were removed or the folds have chosen otherwise since.

    Args:
        run: A finished cross-validation of the system.
        atlas: The photographs.
        splits: Their folds.
        system: What to train; the run's first seed is used.
        fabric: Gives device and precision.
        on_progress: Told the system, seed, None for the fold, and where the training stands.

    Raises:
        RunError: If the system's folds are not finished, or the training cannot go on.
    """
    schedule = refit_schedule(run, system.name)
    if schedule is None:
        raise RunError(f"{run.path}: {system.name} is not finished; go on with it by --resume before the refit")
    material = Material.of(atlas, splits)
    return _train_whole(
        run, material, system, name=REFIT_FOLDER, share=0.0, schedule=schedule, fabric=fabric, on_progress=on_progress
    )


def train_whole(
    run: Run, atlas: Atlas, splits: Splits, system: System, *, fabric: Fabric, on_progress: OnFoldProgress | None = None
) -> Refit:
    """Train a system on all groups but the validation slice, without testing it.

    Args:
        run: A run without folds, from `predilect.training.start.start_run`.
        atlas: The photographs.
        splits: Their groups.
        system: What to train; the run's first seed is used.
        fabric: Gives device and precision.
        on_progress: Told the system, seed, None for the fold, and where the training stands.

    Raises:
        RunError: If the training cannot go on.
    """
    material = Material.of(atlas, splits)
    return _train_whole(
        run,
        material,
        system,
        name=WHOLE_FOLDER,
        share=system.recipe.validation_share,
        schedule=(None, None),
        fabric=fabric,
        on_progress=on_progress,
    )


def _train_whole(
    run: Run,
    material: Material,
    system: System,
    *,
    name: str,
    share: float,
    schedule: tuple[int | None, Sequence[int] | None],
    fabric: Fabric,
    on_progress: OnFoldProgress | None,
) -> Refit:
    seed = run.info["seeds"][0]
    stop_at, drops = schedule
    labels = material.truth.labels.restricted_to(system.tasks)
    data = material.training_data(labels, None, share)
    folder = run.seed_folder(system.name, seed) / name
    identity = whole_identity(run.info, system, name, schedule)
    told_of = None if on_progress is None else _bound(on_progress, system.name, seed, None)
    result = read_result(folder)
    if result is not None and result["identity"] == identity and (folder / WEIGHTS_FILE).is_file():
        network = assemble_network(labels, system.recipe)
        network.load_state_dict(load_tensors(weights_path(folder)))
        network.eval()
    else:
        if fabric.is_global_zero and result is not None:
            # Its weights are gone, or the folds have chosen otherwise since. The result goes last: until then a kill leaves a
            # training that is done again, and never a log without a checkpoint, which would be taken for a lost one.
            for file in (STATE_FILE, LOG_FILE, RESULT_FILE):
                (folder / file).unlink(missing_ok=True)
        fabric.barrier()
        network = build_network(labels, system.recipe, seed)
        fitted = fit(
            fabric,
            network,
            data,
            system.recipe,
            seed=seed,
            folder=folder,
            identity=identity,
            drops=drops,
            stop_at=stop_at,
            on_progress=told_of,
        )
        result = {**asdict(fitted), "devices": fabric.world_size, "n_train": len(data.train_rows), "identity": identity}
        if fabric.is_global_zero:
            _write_weights(network, folder)
            finish(folder, result)
        fabric.barrier()
    return Refit(system, network, _provenance(run, seed, result))


def _provenance(run: Run, seed: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Where a network comes from that was trained on all groups, for its bundle."""
    told = ("command", "atlas", "atlas_hash", "splits_hash", "sources", "notes", "versions", "machine")
    trained = {"iterations": result["chosen_iteration"], "rate_drops": list(result["drops"]), "n_images": result["n_train"]}
    return {**{key: run.info[key] for key in told}, "notes": run.notes(), "seed": seed, **trained}


def _run_fold(
    run: Run,
    material: Material,
    system: System,
    seed: int,
    fold: int,
    *,
    fabric: Fabric,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    folder = run.fold_folder(system.name, seed, fold)
    labels = material.truth.labels.restricted_to(system.tasks)
    data = material.training_data(labels, fold, system.recipe.validation_share)
    network = build_network(labels, system.recipe, seed)
    identity = fold_identity(run.info, system, seed, fold)
    fitted = fit(fabric, network, data, system.recipe, seed=seed, folder=folder, identity=identity, on_progress=on_progress)
    if fabric.is_global_zero:
        begun = time.perf_counter()
        test_rows = np.flatnonzero(material.folds == fold)
        predictions = Predictions(
            image_ids=material.truth.image_ids[test_rows],
            labels=labels,
            scores=predict(fabric, network, data.images, test_rows),
            folds=np.full(len(test_rows), fold, dtype=np.int64),
            seeds=np.full(len(test_rows), seed, dtype=np.int64),
        )
        if not folder.is_dir():
            raise DiskError(folder, "it was removed, or its disk went away, while this training ran")
        predictions.write(folder / PREDICTIONS_FILE)
        _write_weights(network, folder)
        counts = {"n_train": len(data.train_rows), "n_validation": len(data.validation_rows), "n_test": len(test_rows)}
        seconds = round(fitted.seconds + time.perf_counter() - begun, 2)
        run.finish_fold(system.name, seed, fold, {**asdict(fitted), "seconds": seconds, "devices": fabric.world_size, **counts})
    fabric.barrier()


def _write_weights(network: Network, folder: Path) -> None:
    with replacing(folder / WEIGHTS_FILE) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, temporary)


def _bound(on_progress: OnFoldProgress, system: str, seed: int, fold: int | None) -> Callable[[Progress], None]:
    return lambda progress: on_progress(system, seed, fold, progress)
