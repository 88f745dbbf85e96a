"""What a run is asked for: found out before anything is written, kept in ``run.json``, and the same whenever it is gone on with."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from predilect.atlas.audit import audit_of
from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits
from predilect.errors import PredilectError, RecipeError, RunError, SplitError
from predilect.files import checksum
from predilect.labels.tasks import LabelSpace
from predilect.recipe import Recipe, System
from predilect.run import ReportPlan, Run
from predilect.training.devices import describe_device
from predilect.training.identity import check_unfinished
from predilect.training.material import Material
from predilect.vision.network import build_network

__all__ = ["splits_hash", "start_run"]


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
    on_check: Callable[[int, int], None] | None = None,
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
        on_check: Told how many packed images, of how many, were compared with their checksums.

    Raises:
        RunError: If the folder cannot be used, the checkpoint of a training in it is lost, damaged or another's, or an image of
            the atlas is damaged.
        SplitError: If the folds belong to another atlas, or a training would have no known label to learn from or to be watched by.
        LabelError: If the atlas has no labels for a task of a system.
        RecipeError: If the network of a recipe cannot be made.
    """
    for fold in folds:
        if not (splits.folds == fold).any():
            raise SplitError(f"{atlas.path} has no fold {fold}: allowed are {', '.join(map(str, np.unique(splits.folds)))}")
    material = Material.of(atlas, splits)
    for item in systems:
        _try_out(material.truth.labels.restricted_to(item.tasks), item.recipe, fabric)
    _check_known_labels(material, systems, folds)
    asked_for = _asked_for(atlas, splits, systems, seeds=seeds, folds=folds, fabric=fabric, command=command)
    info = {**asked_for, "plan": (plan or ReportPlan()).record()}
    tested = np.flatnonzero(np.isin(material.folds, list(folds)))
    truth = material.truth.take(tested) if folds else None
    # The first process makes the folder; the others go on with it, or stop with its message.
    refusal = None
    if fabric.is_global_zero:
        try:
            goes_on = Run.goes_on(path, info, resume=resume)  # asked first, for it takes no time
            if goes_on:
                begun = Run.open(path)
                with begun.held():  # else a checkpoint could be replaced, or done with, while it is read
                    check_unfinished(begun, systems)  # now, and not hours later, when its training comes to its turn
            atlas.check_images(on_check)
            audit = None if goes_on else audit_of(atlas)  # a run that goes on has its own
            Run.start(path, info, truth, resume=resume, audit=audit)
        except PredilectError as error:
            refusal = str(error)
    refusal = fabric.broadcast(refusal)
    if refusal is not None:
        raise RunError(refusal)
    return Run.open(path)


def splits_hash(splits: Splits) -> str:
    """What identifies the folds in ``run.json``: the SHA-256, in hexadecimal, over their sorted rows."""
    rows = sorted(zip(splits.image_ids.tolist(), splits.groups.tolist(), splits.folds.tolist(), strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


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
        "splits_hash": splits_hash(splits),
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


def _try_out(labels: LabelSpace, recipe: Recipe, fabric: Fabric) -> None:
    """Make a system's network once and show it a blank batch as a training will, so that what cannot work fails before anything is written."""
    network = build_network(labels, recipe, 0).eval().to(fabric.device)
    crop = recipe.preprocessing.crop
    try:
        with torch.no_grad(), fabric.autocast():
            network(torch.zeros(2, 3, crop, crop, device=fabric.device))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"the backbone {recipe.backbone} cannot take crops of {crop} pixels: {reason}") from error


def _check_known_labels(material: Material, systems: Sequence[System], folds: Sequence[int]) -> None:
    """Refuse parts from which a system could not learn now, and not hours later, when the training comes to its turn."""
    by_share: dict[float, list[LabelSpace]] = {}  # slices of one share are the same, and take seconds in a large atlas
    for item in systems:
        by_share.setdefault(item.recipe.validation_share, []).append(material.truth.labels.restricted_to(item.tasks))
    for share, spaces in by_share.items():
        for held_out in folds or (None,):
            material.check(spaces, held_out, share)


def _versions() -> dict[str, str]:
    names = ("predilect", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
