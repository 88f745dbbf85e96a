"""Scores of a trained network over many photographs; past this point scores are probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from predilect.atlas.jpeg import prepare_image
from predilect.atlas.pack import MAX_SIDE, PackedImages
from predilect.training.data import TestingPhotos, default_workers, testing_loader
from predilect.vision.losses import multitask_loss, probabilities
from predilect.vision.network import Network
from predilect.vision.transforms import central_square, normalise, views

__all__ = ["predict", "predict_batch", "predict_files", "validation_losses"]

_BATCH = 64


@torch.no_grad()
def predict_batch(fabric: Fabric, network: Network, images: Tensor) -> dict[str, Tensor]:
    """Probabilities for one batch of central squares, averaged over the recipe's views.

    Args:
        fabric: Gives device and precision.
        network: On that device, in evaluation.
        images: (B, 3, test_side, test_side) uint8.

    Returns:
        ``{task: (B, C) float32}``; site rows sum to 1.
    """
    preprocessing = network.preprocessing
    assert preprocessing.mean is not None
    assert preprocessing.std is not None
    sums: dict[str, Tensor] = {}
    crops = views(images.to(fabric.device), preprocessing)  # (V, B, 3, crop, crop)
    for crop in crops:
        with fabric.autocast():
            output = network(normalise(crop, preprocessing.mean, preprocessing.std))
        for task, scores in probabilities(output.logits).items():
            sums[task] = sums[task] + scores if task in sums else scores
    return {task: total / len(crops) for task, total in sums.items()}


@torch.no_grad()
def predict(
    fabric: Fabric,
    network: Network,
    images: PackedImages,
    rows: NDArray[np.int64],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Probabilities for rows of a packed atlas.

    Args:
        fabric: Gives device and precision.
        network: The trained network.
        images: The packed photographs.
        rows: (N,) which of them, in the order of the result.
        on_progress: Told how many of N are done.

    Returns:
        ``{task: (N, C) float32}``.
    """
    parts: dict[str, list[Tensor]] = {task: [] for task in network.labels.names}
    done = 0
    for batch, _ in _evaluating(fabric, network, images, rows):
        for task, scores in predict_batch(fabric, network, batch).items():
            parts[task].append(scores.cpu())
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(rows))
    return {task: torch.cat(scores).numpy() for task, scores in parts.items()}


def predict_files(fabric: Fabric, network: Network, paths: Sequence[Path]) -> dict[Path, dict[str, NDArray[np.float32]] | str]:
    """Probabilities for image files, prepared exactly as an atlas packs them.

    Args:
        fabric: Gives device and precision.
        network: The trained network.
        paths: Image files of any kind.

    Returns:
        For each path ``{task: (C,) float32}``, or the reason why it cannot be used.
    """
    network.to(fabric.device).eval()
    results: dict[Path, dict[str, NDArray[np.float32]] | str] = {}
    for path in paths:
        image = prepare_image(path, MAX_SIDE)
        if isinstance(image, str):
            results[path] = image
            continue
        square = torch.from_numpy(central_square(image.data, network.preprocessing))
        scores = predict_batch(fabric, network, square[None])
        results[path] = {task: values[0].cpu().numpy() for task, values in scores.items()}
    return results


@torch.no_grad()
def validation_losses(
    fabric: Fabric, network: Network, images: PackedImages, rows: NDArray[np.int64], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """The data terms of Eq. 3 on held-out rows, seen once through the centre crop.

    Args:
        fabric: Gives device and precision.
        network: The network as trained so far; it is left in evaluation.
        images: The packed photographs.
        rows: (V,) rows, at least one.
        labels: ``{task: (N, C) int8}`` over all rows.

    Returns:
        ``{task: loss}``, each over V images.
    """
    center = network.preprocessing.model_copy(update={"views": "center"})
    assert center.mean is not None
    assert center.std is not None
    sums = dict.fromkeys(network.labels.names, 0.0)
    for batch, batch_rows in _evaluating(fabric, network, images, rows):
        crop = views(batch.to(fabric.device), center)[0]
        with fabric.autocast():
            output = network(normalise(crop, center.mean, center.std))
        targets = {task: labels[task][batch_rows].to(fabric.device) for task in output.logits}
        for task, loss in multitask_loss(output.logits, targets, len(rows)).items():
            sums[task] += float(loss)
    return sums


def _evaluating(fabric: Fabric, network: Network, images: PackedImages, rows: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of (images, rows), the network put into evaluation on its device."""
    network.to(fabric.device).eval()
    photos = TestingPhotos(images, network.preprocessing, rows)
    yield from testing_loader(photos, _BATCH, default_workers(fabric.device), pin=fabric.device.type == "cuda")
