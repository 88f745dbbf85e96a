"""One step of a training: the optimiser, and what it does on one global batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from predilect.labels.tasks import SITE
from predilect.recipe import Recipe
from predilect.vision.losses import multitask_loss
from predilect.vision.network import Network, parameter_groups
from predilect.vision.transforms import normalise

__all__ = ["make_optimizer", "train_step"]


class _StepNetwork(Protocol):
    def __call__(self, images: Tensor) -> Any: ...


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over `parameter_groups`.

    Caffe multiplies the rate into its momentum buffer, PyTorch multiplies it onto the buffer: they agree while the rate is
    constant, and after a drop PyTorch's steps shrink at once where Caffe's old momentum fades over some ten iterations.
    """
    groups = parameter_groups(network, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def train_step(
    fabric: Fabric,
    network: Network,
    forward: _StepNetwork,
    optimizer: Any,
    parts: Sequence[tuple[Tensor, Tensor]],
    *,
    labels: dict[str, Tensor],
    batch_size: int,
    lesion_weights: Tensor | None = None,
    site_weight: float = 1.0,
) -> dict[str, Tensor]:
    """One optimiser step on one global batch.

    Args:
        fabric: Gives device, precision and the other devices.
        network: Gives mean and std.
        forward: The network as Fabric wrapped it.
        optimizer: The optimiser as Fabric wrapped it, its rates already set.
        parts: (images (B, 3, crop, crop) uint8, rows (B,)) of this device, one for each accumulated part.
        labels: ``{task: (N, C) int8}`` over all rows.
        batch_size: Photographs in the global batch.
        lesion_weights: (P,) on the device, what a present cell of each lesion counts; None: 1.
        site_weight: What the site's loss counts beside the lesions'.

    Returns:
        ``{task: loss}`` of this device's share, divided by the global batch; the site's without its weight.
    """
    preprocessing = network.preprocessing
    assert preprocessing.mean is not None
    assert preprocessing.std is not None
    sums: dict[str, Tensor] = {}
    optimizer.zero_grad()
    for number, (images, rows) in enumerate(parts):
        last = number == len(parts) - 1
        with fabric.no_backward_sync(forward, enabled=not last):  # type: ignore[arg-type]
            output = forward(normalise(images.to(fabric.device, non_blocking=True), preprocessing.mean, preprocessing.std))
            targets = {task: labels[task][rows].to(fabric.device) for task in output.logits}
            losses = multitask_loss(output.logits, targets, batch_size, lesion_weights)
            # Devices average their gradients; times their number makes it the sum that Eq. 3 asks for.
            counted = [loss * site_weight if task == SITE else loss for task, loss in losses.items()]
            fabric.backward(torch.stack(counted).sum() * fabric.world_size)
        for task, loss in losses.items():
            sums[task] = sums[task] + loss.detach() if task in sums else loss.detach()
    optimizer.step()
    return sums
