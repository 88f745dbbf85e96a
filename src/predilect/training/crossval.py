"""Folds x systems x seeds into a run folder: nothing finished is repeated, nothing of a test fold is seen in its training."""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.torch import save_file

from predilect.atlas.audit import audit_of
from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits, training_slice
from predilect.errors import DiskError, PredilectError, RecipeError, RunError, SplitError
from predilect.files import checksum, replacing
from predilect.labels.tasks import LabelSpace
from predilect.predictions import Predictions, Truth
from predilect.recipe import Recipe, System
from predilect.run import PREDICTIONS_FILE, STATE_FILE, WEIGHTS_FILE, ReportPlan, Run
from predilect.training.data import TrainingData
from predilect.training.devices import describe_device
from predilect.training.inference import predict
from predilect.training.loop import Progress, fit
from predilect.vision.network import Network, build_network

__all__ = ["OnFoldProgress", "Refit", "cross_validate", "refit", "start_run", "train_whole"]

OnFoldProgress = Callable[[str, int, int | None, Progress], None]
"""Told the system, the seed, the fold (None: all groups) and where the training stands."""


@dataclass(frozen=True, slots=True)
class Refit:
    """A system trained once more on all groups.

    Attributes:
        system: What was trained.
        network: With its final weights, in evaluation.
        provenance: Where it comes from, for the bundle.
        state: The last checkpoint, of no use once the bundle is written.
    """

    system: System
    network: Network
    provenance: Mapping[str, Any]
    state: Path


@dataclass(frozen=True, eq=False, slots=True)
class _Material:
    """An atlas and its folds in the same row order, as every training of a run needs them."""

    atlas: Atlas
    truth: Truth
    folds: NDArray[np.int64]
    stacked: NDArray[np.int8]  # all label columns, for the stratified slice

    @classmethod
    def of(cls, atlas: Atlas, splits: Splits) -> _Material:
        image_ids = np.array(atlas.photos["image_id"].to_list(), dtype=np.str_)
        splits = splits.check_for(image_ids, atlas.content_hash)
        truth = atlas.truth(splits.groups)
        stacked = np.concatenate([truth.values[name] for name in truth.labels.names], axis=1)
        return cls(atlas, truth, splits.folds, stacked)

    def training_data(self, labels: LabelSpace, held_out: int | None, share: float, seed: int) -> TrainingData:
        """Rows to learn from and to validate on, without the held-out fold; `seed` decides the slice, the same for all systems.

        Raises:
            SplitError: If a part holds no known label of these tasks, so that its loss would be 0 and say nothing.
        """
        rows = np.flatnonzero(self.folds != held_out) if held_out is not None else np.arange(len(self.folds))
        inside = np.zeros(len(rows), dtype=bool)
        if share > 0:
            assert self.truth.groups is not None
            inside = training_slice(self.stacked[rows], self.truth.groups[rows], fraction=share, seed=seed)
        for part, what in ((rows[~inside], "to learn from"), (rows[inside], "to watch the training")):
            if share > 0 and not any((self.truth.values[name][part] >= 0).any() for name in labels.names):
                raise SplitError(
                    f"{self.atlas.path}: of the {len(part)} photographs {what} without fold {held_out}, none has a known label of "
                    f"{' or '.join(labels.names)}; make fewer folds or another validation_share"
                )
        return TrainingData(
            images=self.atlas.images(),
            labels={name: torch.from_numpy(self.truth.values[name].copy()) for name in labels.names},
            train_rows=rows[~inside],
            validation_rows=rows[inside],
        )


def start_run(
    path: Path,
    atlas: Atlas,
    splits: Splits,
    systems: Sequence[System],
    *,
    seeds: Sequence[int],
    folds: Sequence[int],
    fabric: Fabric,
    command: str,
    resume: bool,
    plan: ReportPlan | None = None,
) -> Run:
    """Make or reopen the run folder of a cross-validation.

    Args:
        path: The folder.
        atlas: The photographs.
        splits: Their folds.
        systems: What to compare, each name once.
        seeds: Training seeds, each once.
        folds: Which folds are held out in turn and tested, -1 for the tuning slice; none: nothing is tested.
        fabric: The device, for the record.
        command: The command line, for the record.
        resume: Whether an existing run is gone on with.
        plan: What the report shows beside the systems; None: nothing.

    Raises:
        RunError: If the folder cannot be used.
        SplitError: If the folds belong to another atlas.
        LabelError: If the atlas has no labels for a task of a system.
        RecipeError: If the network of a recipe cannot be made.
    """
    for fold in folds:
        if not (splits.folds == fold).any():
            raise SplitError(f"{atlas.path} has no fold {fold}: allowed are {', '.join(map(str, np.unique(splits.folds)))}")
    material = _Material.of(atlas, splits)
    for item in systems:
        _try_out(material.truth.labels.restricted_to(item.tasks), item.recipe)
    asked_for = _asked_for(atlas, splits, systems, seeds=seeds, folds=folds, fabric=fabric, command=command)
    info = {**asked_for, "plan": (plan or ReportPlan()).record()}
    tested = np.flatnonzero(np.isin(material.folds, list(folds)))
    truth = material.truth.take(tested) if folds else None
    # The first process makes the folder; the others go on with it, or stop with its message.
    refusal = None
    if fabric.is_global_zero:
        try:
            audit = None if (path / "run.json").is_file() else audit_of(atlas)  # a run that goes on has its own
            Run.start(path, info, truth, resume=resume, audit=audit)
        except PredilectError as error:
            refusal = str(error)
    refusal = fabric.broadcast(refusal)
    if refusal is not None:
        raise RunError(refusal)
    return Run.open(path)


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
        run: The folder, from `start_run`.
        atlas: The photographs.
        splits: Their folds.
        systems: What to compare.
        fabric: Gives device and precision.
        on_progress: Told the system, seed, fold and where the training stands.

    Raises:
        RunError: If a training cannot go on.
    """
    material = _Material.of(atlas, splits)
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
    seed = run.info["seeds"][0]
    results = [run.fold_result(system.name, seed, fold) for fold in run.info["folds"]]
    finished = [result for result in results if result is not None]
    if len(finished) < len(results):
        raise RunError(f"{run.path}: {system.name} is not finished; go on with it by --resume before the refit")
    stop_at = round(statistics.median(result["chosen_iteration"] for result in finished))
    # Without validation there is no plateau to see: the rate falls where it fell in the folds, again by the median.
    counts = [len(result["drops"]) for result in finished]
    drops = [
        round(statistics.median(result["drops"][number] for result in finished if len(result["drops"]) > number))
        for number in range(round(statistics.median(counts)))
    ]
    drops = [drop for drop in drops if drop < stop_at]
    material = _Material.of(atlas, splits)
    return _train_whole(
        run, material, system, name="refit", share=0.0, schedule=(stop_at, drops), fabric=fabric, on_progress=on_progress
    )


def train_whole(
    run: Run, atlas: Atlas, splits: Splits, system: System, *, fabric: Fabric, on_progress: OnFoldProgress | None = None
) -> Refit:
    """Train a system on all groups but the validation slice, without testing it.

    Args:
        run: A run without folds, from `start_run`.
        atlas: The photographs.
        splits: Their groups.
        system: What to train; the run's first seed is used.
        fabric: Gives device and precision.
        on_progress: Told the system, seed, None for the fold, and where the training stands.

    Raises:
        RunError: If the training cannot go on.
    """
    material = _Material.of(atlas, splits)
    return _train_whole(
        run,
        material,
        system,
        name="all",
        share=system.recipe.validation_share,
        schedule=(None, None),
        fabric=fabric,
        on_progress=on_progress,
    )


def _asked_for(
    atlas: Atlas,
    splits: Splits,
    systems: Sequence[System],
    *,
    seeds: Sequence[int],
    folds: Sequence[int],
    fabric: Fabric,
    command: str,
) -> dict[str, Any]:
    """What ``run.json`` holds of a run that starts, as it will come back from the file."""
    info = {
        "command": command,
        "atlas": atlas.path.name,
        "systems": {item.name: {"tasks": item.tasks, "recipe": item.recipe.record()} for item in systems},
        "weights": {item.name: checksum(file) for item in systems if (file := item.recipe.weights_file) is not None},
        "precision": str(fabric.strategy.precision.precision),
        "seeds": list(seeds),
        "folds": list(folds),
        "atlas_hash": atlas.content_hash,
        "splits_hash": _splits_hash(splits),
        "notes": [*_random_start(systems), *dict.fromkeys(note for source in atlas.sources for note in source.notes)],
        "sources": [{"name": source.name, "licence": source.licence, "credit": source.credit} for source in atlas.sources],
        "versions": _versions(),
        "machine": describe_device(fabric),
    }
    return dict(json.loads(json.dumps(info)))  # tuples become lists


def _random_start(systems: Sequence[System]) -> list[str]:
    """What a reader must know of systems that did not start from weights of another task."""
    names = [item.name for item in systems if item.recipe.weights == "none"]
    return [f"From random weights, without ImageNet: {', '.join(names)}."] if names else []


def _try_out(labels: LabelSpace, recipe: Recipe) -> None:
    """Make a system's network once and show it a blank batch, so that what cannot work fails before anything is written."""
    network = build_network(labels, recipe, 0).eval()
    crop = recipe.preprocessing.crop
    try:
        with torch.no_grad():
            network(torch.zeros(2, 3, crop, crop))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"the backbone {recipe.backbone} cannot take crops of {crop} pixels: {reason}") from error


def _train_whole(
    run: Run,
    material: _Material,
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
    data = material.training_data(labels, None, share, 0)
    folder = run.seed_folder(system.name, seed) / name
    network = build_network(labels, system.recipe, seed)
    fitted = fit(
        fabric,
        network,
        data,
        system.recipe,
        seed=seed,
        folder=folder,
        identity=_identity(run.info, system, seed, [name, stop_at, drops]),
        drops=drops,
        stop_at=stop_at,
        on_progress=None if on_progress is None else _bound(on_progress, system.name, seed, None),
    )
    told = ("command", "atlas", "atlas_hash", "splits_hash", "sources", "notes", "versions", "machine")
    provenance = {**{key: run.info[key] for key in told}, "notes": run.notes()}
    trained = {"seed": seed, "iterations": fitted.chosen_iteration, "rate_drops": fitted.drops, "n_images": len(data.train_rows)}
    return Refit(system, network, {**provenance, **trained}, folder / STATE_FILE)


def _run_fold(
    run: Run,
    material: _Material,
    system: System,
    seed: int,
    fold: int,
    *,
    fabric: Fabric,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    folder = run.fold_folder(system.name, seed, fold)
    labels = material.truth.labels.restricted_to(system.tasks)
    data = material.training_data(labels, fold, system.recipe.validation_share, fold + 1)
    network = build_network(labels, system.recipe, seed)
    identity = _identity(run.info, system, seed, ["fold", fold])
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
        with replacing(folder / WEIGHTS_FILE) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, temporary)
        counts = {"n_train": len(data.train_rows), "n_validation": len(data.validation_rows), "n_test": len(test_rows)}
        seconds = round(fitted.seconds + time.perf_counter() - begun, 2)
        run.finish_fold(system.name, seed, fold, {**asdict(fitted), "seconds": seconds, "devices": fabric.world_size, **counts})
    fabric.barrier()


def _identity(info: Mapping[str, Any], system: System, seed: int, part: Sequence[Any]) -> str:
    """Hash of all that decides one training."""
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


def _splits_hash(splits: Splits) -> str:
    rows = sorted(zip(splits.image_ids.tolist(), splits.groups.tolist(), splits.folds.tolist(), strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _versions() -> dict[str, str]:
    names = ("predilect", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _bound(on_progress: OnFoldProgress, system: str, seed: int, fold: int | None) -> Callable[[Progress], None]:
    return lambda progress: on_progress(system, seed, fold, progress)
