"""Attention maps from the very pass that gave the probabilities: over what the network saw of a photograph, its centre view.

`predilect attend` makes maps of whole photographs, for which the network must look again; here it does not, so that all of an
answer is about the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from predilect.insight.attention import Explainer, head_maps
from predilect.labels.tasks import LESION
from predilect.recipe import Preprocessing
from predilect.serving.answers import Attention, AttentionMapAnswer, Region
from predilect.serving.steps import Photograph, Scores

__all__ = ["attention_of"]

_DIGITS = 5  # of a cell, behind the point


def attention_of(
    explainer: Explainer,
    photograph: Photograph,
    feature_map: Tensor,
    probabilities: Scores,
    wanted: Mapping[str, Sequence[str]],
) -> Attention:
    """Where the network looked for some classes.

    Args:
        explainer: Of the network.
        photograph: What it looked at.
        feature_map: (Dm, h, w) of the centre view.
        probabilities: (C,) by task.
        wanted: By task, names of classes.
    """
    labels, preprocessing = explainer.network.labels, explainer.network.preprocessing
    classes = {task: torch.tensor([[labels[task].index(name) for name in names]]) for task, names in wanted.items()}
    device = explainer.fabric.device
    maps = head_maps(explainer.network, feature_map[None].to(device), {task: item.to(device) for task, item in classes.items()})
    shorter = min(photograph.width, photograph.height)
    left, right = _seen(photograph.width, shorter, preprocessing)
    top, bottom = _seen(photograph.height, shorter, preprocessing)
    shares = [(np.arange(n) * explainer.stride + explainer.origin + 0.5) / preprocessing.crop for n in feature_map.shape[1:]]
    rows, columns = top + shares[0] * (bottom - top), left + shares[1] * (right - left)
    return Attention(
        explainer.method,
        photograph.width,
        photograph.height,
        Region(left, top, right, bottom),
        [
            AttentionMapAnswer(
                task="lesion" if task == LESION else "site",
                name=name,
                probability=float(probabilities[task][k]),
                rows=rows.tolist(),
                columns=columns.tolist(),
                cells=cells.astype(np.float64).round(_DIGITS).tolist(),
            )
            for task, names in wanted.items()
            for name, k, cells in zip(names, classes[task][0].tolist(), maps[task][0].cpu().numpy(), strict=True)
        ],
    )


def _seen(length: int, shorter: int, preprocessing: Preprocessing) -> tuple[float, float]:
    """From where to where the centre view reaches along an axis, as shares of it; see `vision.transforms.central_square`."""
    side, crop = preprocessing.test_side, preprocessing.crop
    scaled = max(side, round(length * side / shorter))
    start = (scaled - side) // 2 + round((side - crop) / 2)
    return start / scaled, (start + crop) / scaled
