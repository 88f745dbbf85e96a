"""Scores of a trained network over many photographs; past this point scores are probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from predilect.atlas.pack import PackedImages
from predilect.training.data import TestingPhotos, default_workers, testing_loader
from predilect.vision.losses import multitask_loss, probabilities
from predilect.vision.network import Network
from predilect.vision.transforms import normalise, views

__all__ = ["Observation", "embed", "observe", "observe_batch", "only_looking", "predict", "predict_batch", "validation_losses"]

_MOST, _PIXELS_ON_A_PROCESSOR = 64, 2**19
"""Inputs in one pass: of more pixels the maps outgrow a processor's caches, and each input takes longer."""


class Observation(NamedTuple):
    """What a network makes of one batch, over the recipe's views.

    Attributes:
        scores: ``{task: (B, C) float32}`` probabilities, averaged over views; site rows sum to 1.
        embedding: (B, D) float32, what the heads see (pool5 of a ResNet), averaged over views.
        feature_map: (B, Dm, h, w) of the centre view; None where the backbone keeps none.
    """

    scores: dict[str, Tensor]
    embedding: Tensor
    feature_map: Tensor | None


@torch.no_grad()
def only_looking(fabric: Fabric, network: Network) -> Network:
    """Make a network ready that is to look at photographs and to learn no more: it says the same to the last bit, sooner.

    Where the backbone computes in bf16, autocast makes its copy of all weights for each pass, which for one photograph is half of the
    work. The convolutions keep that copy instead, if a pass with it gives the same numbers.

    Args:
        fabric: Gives device and precision.
        network: It is moved to the device and put into evaluation; its weights are not to be saved afterwards.

    Returns:
        The same network.
    """
    network.to(fabric.device).eval()
    if fabric.strategy.precision.precision != "bf16-mixed":
        return network
    side = network.preprocessing.crop
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(fabric.device)

    def look() -> Tensor:
        with fabric.autocast():
            return torch.cat(list(network(image).logits.values()), dim=1)

    convolutions = [module for module in network.backbone.modules() if isinstance(module, nn.Conv2d)]
    kept, before = [module.weight.data for module in convolutions], look()
    for module in convolutions:
        module.weight.data = module.weight.data.bfloat16()
    try:
        same = torch.equal(look(), before)
    except RuntimeError:  # a convolution behind the pooling, where nothing is cast
        same = False
    if not same:
        for module, weight in zip(convolutions, kept, strict=True):
            module.weight.data = weight
    return network


def _inputs_in_a_pass(fabric: Fabric, crop: int) -> int:
    """How many inputs of `crop` x `crop` pixels go through a network at once, so that each takes the least time; at least 1."""
    return max(1, min(_MOST, _PIXELS_ON_A_PROCESSOR // crop**2)) if fabric.device.type == "cpu" else _MOST


@torch.no_grad()
def observe_batch(fabric: Fabric, network: Network, images: Tensor) -> Observation:
    """Look once at one batch of central squares.

    Args:
        fabric: Gives device and precision.
        network: On that device, in evaluation.
        images: (B, 3, test_side, test_side) uint8.
    """
    preprocessing = network.preprocessing
    assert preprocessing.mean is not None
    assert preprocessing.std is not None
    crops = views(images.to(fabric.device), preprocessing)  # (V, B, 3, crop, crop)
    centre = (len(crops) - 1) // 2  # the only view, or the fifth of ten
    scores: dict[str, list[Tensor]] = {task: [] for task in network.labels.names}
    embeddings: list[Tensor] = []
    feature_map: Tensor | None = None
    # Small batches keep a device busy poorly: the views of a few photographs go through the network together.
    for part in torch.split(crops, max(1, _inputs_in_a_pass(fabric, preprocessing.crop) // len(images))):  # (v, B, 3, crop, crop)
        with fabric.autocast():
            output = network(normalise(part.flatten(0, 1), preprocessing.mean, preprocessing.std))
        place = centre - sum(map(len, embeddings))
        if output.feature_map is not None and 0 <= place < len(part):
            feature_map = output.feature_map[place * len(images) : (place + 1) * len(images)]
        embeddings.append(output.embedding.reshape(*part.shape[:2], -1))
        for task, values in probabilities(output.logits).items():
            scores[task].append(values.reshape(*part.shape[:2], -1))
    averaged = {task: torch.cat(values).mean(dim=0) for task, values in scores.items()}
    return Observation(averaged, torch.cat(embeddings).mean(dim=0), feature_map)


def predict_batch(fabric: Fabric, network: Network, images: Tensor) -> dict[str, Tensor]:
    """The probabilities alone of `observe_batch`."""
    return observe_batch(fabric, network, images).scores


def observe(
    fabric: Fabric, network: Network, images: PackedImages, rows: NDArray[np.int64]
) -> Iterator[tuple[Observation, NDArray[np.int64]]]:
    """Look once at each of some rows of a packed atlas, batch by batch; the network is put into evaluation on its device.

    Args:
        fabric: Gives device and precision.
        network: The trained network.
        images: The packed photographs.
        rows: (N,) which of them.

    Yields:
        What the network makes of the next B rows, and those rows (B,).
    """
    for batch, batch_rows in _evaluating(fabric, network, images, rows):
        yield observe_batch(fabric, network, batch), batch_rows.numpy()


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
    for seen, some in observe(fabric, network, images, rows):
        for task, scores in seen.scores.items():
            parts[task].append(scores.cpu())
        done += len(some)
        if on_progress is not None:
            on_progress(done, len(rows))
    return {task: torch.cat(scores).numpy() for task, scores in parts.items()}


def embed(
    fabric: Fabric,
    network: Network,
    images: PackedImages,
    rows: NDArray[np.int64],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Embeddings for rows of a packed atlas, as `observe_batch` has them.

    Args:
        fabric: Gives device and precision.
        network: The trained network.
        images: The packed photographs.
        rows: (N,) which of them, in the order of the result; at least one.
        on_progress: Told how many of N are done.

    Returns:
        (N, D) float32.
    """
    parts: list[Tensor] = []
    done = 0
    for seen, some in observe(fabric, network, images, rows):
        parts.append(seen.embedding.cpu())
        done += len(some)
        if on_progress is not None:
            on_progress(done, len(rows))
    return torch.cat(parts).numpy()


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
    photos, at_once = TestingPhotos(images, network.preprocessing, rows), _inputs_in_a_pass(fabric, network.preprocessing.crop)
    yield from testing_loader(photos, at_once, default_workers(fabric.device), pin=fabric.device.type == "cuda")
