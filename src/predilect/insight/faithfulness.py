"""Whether an attention map is true: what becomes of the score without the places it points at, and of the map without training.

Deletion and insertion (Petsiuk et al. 2018, "RISE"): pixels are taken away, or brought back, in the map's order; a true map makes
the score fall fast, or rise fast. The comparison is with maps that know nothing of the network: a random one, and one that only
knows that photographers centre what they show. The randomisation check (Adebayo et al. 2018): a network with random weights must
give other maps, or the maps show the photograph and not what was learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms.v2 import functional as tv

from predilect.evaluation.metrics import Floats, ratio
from predilect.evaluation.overlap import TOP_SHARE, n_highest
from predilect.insight.attention import AttentionMap, Explainer, whole_photograph
from predilect.randomness import stream_seed
from predilect.recipe import Recipe
from predilect.vision.losses import probabilities
from predilect.vision.network import Network, build_network
from predilect.vision.transforms import normalise

__all__ = [
    "BASELINES",
    "RANDOM_WEIGHTS",
    "Curves",
    "blurred",
    "centred_gaussian",
    "correlation",
    "deletion_insertion",
    "overlap",
    "photograph_curves",
    "random_network",
    "rank_similarity",
]

BASELINES = ("random", "gaussian")
"""Maps that know nothing of the network, in the order of reports."""

RANDOM_WEIGHTS = "random network"
"""The stream that random weights are drawn from; what was found with those of another one is not what would be found now."""

_BATCH = 16  # images scored at once


@dataclass(frozen=True, eq=False, slots=True)
class Curves:
    """The score while pixels go, and while they come, in the order of a map.

    Attributes:
        deletion: (steps + 1,) the score with the highest 0, 1 / steps, ..., all of the pixels replaced by the fill.
        insertion: (steps + 1,) the score with only those pixels shown and the rest replaced.
    """

    deletion: Floats
    insertion: Floats

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve over shares from 0 to 1, by trapezoids; a true map has a small one."""
        return float(np.trapezoid(self.deletion, dx=1 / (len(self.deletion) - 1)))

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve over shares from 0 to 1, by trapezoids; a true map has a large one."""
        return float(np.trapezoid(self.insertion, dx=1 / (len(self.insertion) - 1)))


@torch.no_grad()
def deletion_insertion(
    score: Callable[[Tensor], Tensor], image: Tensor, attention_map: ArrayLike, steps: int, fill: Tensor, *, seed: int = 0
) -> Curves:
    """Deletion and insertion curves of a map (Petsiuk et al. 2018); 2 x steps images are scored.

    Args:
        score: (n, 3, H, W) network inputs to (n,) scores.
        image: (3, H, W) network input.
        attention_map: (H, W); only the order of its values counts.
        steps: Equal shares of the pixels that are taken away one after the other, at least 1.
        fill: (3, H, W), or what broadcasts to it, in the place of a pixel that is away, such as `blurred`.
        seed: Of the order among equal values; their order in the array would say "from the top".

    Raises:
        ValueError: If shapes do not fit, the map is not finite, or there are no or more steps than pixels.
    """
    values = np.asarray(attention_map)
    if image.ndim != 3 or values.shape != image.shape[1:]:
        raise ValueError(f"a map {values.shape} does not lie over an image {tuple(image.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("a map with values that are not finite has no order")
    if not 1 <= steps <= values.size:
        raise ValueError(f"steps {steps} must be from 1 to the number of pixels, {values.size}")
    order = np.lexsort((np.random.default_rng(seed).permutation(values.size), -values.ravel()))
    places = np.empty(values.size, dtype=np.int64)
    places[order] = np.arange(values.size)
    place = torch.from_numpy(places.reshape(values.shape)).to(image.device)
    fill = fill.expand_as(image)
    counts = np.rint(np.linspace(0, values.size, steps + 1)).astype(int).tolist()
    # Nothing deleted is all inserted and the other way round: the ends of the two curves are the same two images.
    jobs = [(n, fill, image) for n in counts] + [(n, image, fill) for n in counts[1:-1]]
    scores = []
    for start in range(0, len(jobs), _BATCH):
        images = [torch.where(place < n, first, rest) for n, first, rest in jobs[start : start + _BATCH]]
        scores.append(score(torch.stack(images)).double().cpu().numpy())
    found = np.concatenate(scores)
    deletion = found[: steps + 1]
    return Curves(deletion, np.concatenate([deletion[-1:], found[steps + 1 :], deletion[:1]]))


def photograph_curves(
    explainer: Explainer, data: bytes | memoryview, attention_map: AttentionMap, steps: int, seed: int
) -> dict[str, Curves]:
    """The curves of one photograph's map and of the baselines on the same whole photograph.

    The score is the probability of the map's class. Pixels that are away show the photograph blurred until only its large shades
    are left, which resembles the photographs that the network knows more than a plain colour does.

    Args:
        explainer: What made the map.
        data: The photograph's JPEG.
        attention_map: The map.
        steps: See `deletion_insertion`.
        seed: Of the random map; another one for each photograph. It is drawn on the cells of the map and as smooth between them,
            for scattered single pixels would disturb a network in other ways.

    Returns:
        By ``map`` and the names in `BASELINES`.
    """
    network, fabric = explainer.network, explainer.fabric
    mean, std = network.preprocessing.mean, network.preprocessing.std
    assert mean is not None
    assert std is not None
    image = normalise(torch.from_numpy(whole_photograph(data, network.preprocessing)).to(fabric.device)[None], mean, std)[0]
    height, width = image.shape[1:]
    column = network.labels[attention_map.task].index(attention_map.name)

    def score(images: Tensor) -> Tensor:
        with fabric.autocast():
            logits = network(images.contiguous(memory_format=torch.channels_last)).logits
        return probabilities(logits)[attention_map.task][:, column]

    cells = np.random.default_rng(seed).standard_normal(attention_map.cells.shape, dtype=np.float32)
    maps: dict[str, NDArray[Any]] = {
        "map": attention_map.over(width, height),
        "random": replace(attention_map, cells=cells).over(width, height),
        "gaussian": centred_gaussian(height, width),
    }
    fill = blurred(image, min(height, width) / 10)
    return {name: deletion_insertion(score, image, values, steps, fill, seed=seed) for name, values in maps.items()}


def centred_gaussian(height: int, width: int) -> Floats:
    """A Gaussian over the middle of an image, as long and as wide as the image is; only the order of its values is of use.

    Args:
        height: In pixels.
        width: In pixels.

    Returns:
        (height, width), 1 in the middle; the standard deviation is a quarter of the side.
    """
    down, across = (np.exp(-8 * ((np.arange(n) + 0.5) / n - 0.5) ** 2) for n in (height, width))
    return np.outer(down, across)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """An image without detail, to stand where pixels are taken away.

    Args:
        image: (3, H, W).
        sigma: Standard deviation of the Gaussian filter, in pixels.
    """
    # Two standard deviations to each side; the reflected border cannot be longer than the image.
    sizes = [2 * min(int(np.ceil(2 * sigma)), length - 1) + 1 for length in image.shape[:0:-1]]
    result: Tensor = tv.gaussian_blur(image, sizes, [sigma, sigma])
    return result


def random_network(network: Network, recipe: Recipe, seed: int) -> Network:
    """The same architecture, labels and preprocessing with random weights throughout, for the randomisation check.

    Args:
        network: The trained network; it stays as it is.
        recipe: Its recipe.
        seed: Of the weights. They are drawn from a stream of their own: the same seed's training started from other ones.
    """
    bare = recipe.model_copy(update={"weights": "none", "frozen_stages": 0})
    untrained = build_network(network.labels, bare, stream_seed(seed, RANDOM_WEIGHTS))
    untrained.preprocessing = network.preprocessing
    for module in untrained.modules():
        if isinstance(module, _BatchNorm):  # the blocks of a ResNet start with a last scale of zero and would do nothing
            nn.init.ones_(module.weight)
    return untrained.eval()


def correlation(first: ArrayLike, second: ArrayLike) -> Floats:
    """Pearson's correlation of two maps over their places.

    Args:
        first: (..., h, w).
        second: (..., h, w), over the same places.

    Returns:
        (...) in [-1, 1]; NaN where a map is constant.

    Raises:
        ValueError: If shapes differ.
    """
    one, other = _places(first, second)
    varied = ~((_spread(one) == 0) | (_spread(other) == 0))  # a constant minus its rounded mean need not be zero
    one, other = (values - values.mean(axis=-1, keepdims=True) for values in (one, other))
    products = ratio((one * other).sum(axis=-1), np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1)))
    return np.where(varied, np.clip(products, -1, 1), np.nan)


def rank_similarity(first: ArrayLike, second: ArrayLike) -> Floats:
    """Spearman's correlation of two maps over their places, such as those of a trained and of a random network (Adebayo et al. 2018).

    Args:
        first: (..., h, w).
        second: (..., h, w), over the same places.

    Returns:
        (...) in [-1, 1]; NaN where a map is constant.

    Raises:
        ValueError: If shapes differ.
    """
    one, other = (rankdata(values, axis=-1)[..., None] for values in _places(first, second))
    return correlation(one, other)


def overlap(first: ArrayLike, second: ArrayLike, share: float = TOP_SHARE) -> Floats:
    """Intersection over union of the places where two maps are highest.

    What two maps have that know nothing of each other, `evaluation.overlap.overlap_by_chance` tells.

    Args:
        first: (..., h, w).
        second: (..., h, w), over the same places.
        share: Of the places, in (0, 1); places as high as the last of them belong to them too.

    Returns:
        (...) in [0, 1]; NaN where a map is constant, for nothing is highest in it.

    Raises:
        ValueError: If shapes differ or the share is not between 0 and 1.
    """
    one, other = _places(first, second)
    n_top = n_highest(one.shape[-1], share)
    tops = [values >= np.sort(values, axis=-1)[..., -n_top, None] for values in (one, other)]
    shared = ratio((tops[0] & tops[1]).sum(axis=-1), (tops[0] | tops[1]).sum(axis=-1))
    return np.where((_spread(one) == 0) | (_spread(other) == 0), np.nan, shared)


def _places(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    """Both maps as (..., h w) float64."""
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if one.shape != other.shape or one.ndim < 2:
        raise ValueError(f"maps {one.shape} and {other.shape} do not lie over the same places")
    return one.reshape(*one.shape[:-2], -1), other.reshape(*other.shape[:-2], -1)


def _spread(values: Floats) -> Floats:
    return np.asarray(np.ptp(values, axis=-1))
