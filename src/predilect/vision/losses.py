"""The paper's losses, masked: an unknown label costs nothing and moves nothing.

Eq. 3 divides by the number of images N. With unknown labels N stays the number of images in the global batch, known or not, so that
the sum over parts of a batch, on one device or several, is exactly the loss of the whole. The L2 term (Eq. 8) is the optimiser's
weight decay.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from predilect.labels.tasks import LESION, SITE

__all__ = ["lesion_loss", "multitask_loss", "presence_weights", "probabilities", "site_loss"]


def lesion_loss(logits: Tensor, labels: Tensor, n_images: int, weights: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy summed over lesions and images (Eqs. 4 and 5), over N.

    Args:
        logits: (B, P) float32.
        labels: (B, P) int8: 1 present, 0 absent, -1 unknown.
        n_images: N, images in the global batch.
        weights: (P,) what a present cell of each lesion counts, from `presence_weights`; None: 1, as in the paper.

    Returns:
        A scalar; 0 for a batch of unknowns.
    """
    known = labels >= 0
    # Unknown cells are replaced before the loss, not multiplied away after it, so that not even an infinite logit reaches the sum.
    losses = F.binary_cross_entropy_with_logits(
        logits.where(known, 0.0), labels.clamp(min=0).to(logits.dtype), reduction="none", pos_weight=weights
    )
    return losses.where(known, 0.0).sum() / n_images


def site_loss(logits: Tensor, labels: Tensor, n_images: int) -> Tensor:
    """Softmax cross-entropy summed over images (Eqs. 6 and 7), over N.

    Args:
        logits: (B, Q) float32.
        labels: (B, Q) int8, one-hot, or wholly -1 where the site is unknown.
        n_images: N, images in the global batch.

    Returns:
        A scalar; 0 for a batch of unknowns.
    """
    known = labels.max(dim=1).values > 0  # (B,)
    target = labels.argmax(dim=1)
    losses = F.cross_entropy(logits.where(known[:, None], 0.0), target, reduction="none")
    return losses.where(known, 0.0).sum() / n_images


def presence_weights(labels: Tensor, exponent: float) -> Tensor:
    """What a present cell of each lesion counts in the loss: f^-exponent, f the lesion's frequency where it is known.

    The weights are scaled so that the present cells of all lesions together count as much as without weights: rare lesions gain
    what frequent ones give, and the balance between lesions and site stays.

    Args:
        labels: (N, P) int8 of the training photographs: 1 present, 0 absent, -1 unknown.
        exponent: 0 for equal weights, 1 for equal sums of all lesions, in [0, 1].

    Returns:
        (P,) float32; 1 for a lesion that is never present.
    """
    present = (labels == 1).sum(dim=0).double()
    known = (labels >= 0).sum(dim=0).double()
    seen = present > 0
    weights = torch.where(seen, present / known.clamp(min=1), 1.0) ** -exponent
    scale = present.sum() / (present * weights).sum().clamp(min=1)
    return torch.where(seen, weights * scale, 1.0).float()


def multitask_loss(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], n_images: int, lesion_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """The data terms of Eq. 3, one per task; their unweighted sum is minimised.

    Args:
        logits: ``{task: (B, C)}``.
        labels: ``{task: (B, C) int8}`` for at least the tasks of `logits`.
        n_images: N, images in the global batch.
        lesion_weights: (P,) see `lesion_loss`.
    """
    losses = {}
    for task, values in logits.items():
        if task == LESION:
            losses[task] = lesion_loss(values.float(), labels[task], n_images, lesion_weights)
        else:
            losses[task] = site_loss(values.float(), labels[task], n_images)
    return losses


def probabilities(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores from logits: a sigmoid per lesion (Eq. 4), a softmax over sites (Eq. 6), in fp32.

    Args:
        logits: ``{task: (B, C)}``.
    """
    activations = {LESION: torch.sigmoid, SITE: lambda values: torch.softmax(values, dim=1)}
    return {task: activations[task](values.float()) for task, values in logits.items()}
