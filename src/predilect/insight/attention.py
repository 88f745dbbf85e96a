"""Where on a photograph each head looks: class activation maps (Zhou et al. 2015), the paper's "image attention".

Where a feature map is averaged over its places and goes straight into a linear head, the logit is the mean over places of the
head's weights times the features there, plus a bias. That product is the map: exact, for all classes of all heads from one forward
pass. Where something stands between pooling and head (ConvNeXt normalises), Grad-CAM (Selvaraju et al. 2017) takes the head's
gradient for its weights; it equals the class activation map, up to a positive factor, where the latter is exact.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from predilect.errors import InsightError, UnexplainableError
from predilect.evaluation.calibration import Calibration
from predilect.recipe import Preprocessing
from predilect.training.inference import predict_batch
from predilect.vision.network import Network
from predilect.vision.transforms import central_square, decode, normalise

__all__ = ["AttentionMap", "Explainer", "Method", "attention", "head_maps", "whole_photograph"]

Method = Literal["cam", "grad-cam"]


@torch.no_grad()
def attention(feature_map: Tensor, head_weight: Tensor, classes: Tensor) -> Tensor:
    """Class activation maps in closed form (Zhou et al. 2015, Eq. 2): weights of the head times features, place by place.

    Args:
        feature_map: (B, Dm, h, w), the last one before average pooling.
        head_weight: (C, Dm) of the linear head.
        classes: (B, K) int64, the classes wanted of each image, from 0 to C - 1.

    Returns:
        (B, K, h, w) float32, of either sign; the mean over places is the logit without its bias.

    Raises:
        ValueError: If shapes do not fit or a class is not one of the head's.
    """
    if feature_map.ndim != 4 or head_weight.ndim != 2 or feature_map.shape[1] != head_weight.shape[1]:
        raise ValueError(f"a feature map {tuple(feature_map.shape)} and head weights {tuple(head_weight.shape)} do not fit")
    if classes.ndim != 2 or len(classes) != len(feature_map):
        raise ValueError(f"classes are (B, K) with B = {len(feature_map)}, not {tuple(classes.shape)}")
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < len(head_weight):
        raise ValueError(f"classes are numbered from 0 to {len(head_weight) - 1}")
    with torch.autocast(feature_map.device.type, enabled=False):
        weights = head_weight.float()[classes]  # (B, K, Dm)
        maps = torch.bmm(weights, feature_map.float().flatten(2))  # (B, K, h w)
    return maps.reshape(*classes.shape, *feature_map.shape[2:])


def head_maps(network: Network, feature_map: Tensor, classes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The maps of several heads from one feature map; the backbone is not run again, for Grad-CAM neither.

    Args:
        network: In evaluation; one that `Explainer.of` accepts.
        feature_map: (B, Dm, h, w) from its `forward`.
        classes: ``{task: (B, K) int64}``.

    Returns:
        ``{task: (B, K, h, w) float32}``: class activation maps where the network is `cam_exact`, else Grad-CAM's without its final
        ReLU, so that in either a negative place speaks against the class.

    Raises:
        InsightError: If Grad-CAM is needed and captum is not installed.
    """
    make = _class_activation if network.cam_exact else _grad_cam
    return {task: make(network, feature_map, task, wanted) for task, wanted in classes.items()}


@dataclass(frozen=True, eq=False, slots=True)
class AttentionMap:
    """Where one head looked for one class, over a whole photograph.

    Attributes:
        task: The head.
        name: The class.
        probability: Of the class, from the recipe's own views as `training.inference` scores them. These see the central square
            only; the map covers the whole photograph.
        method: ``cam``, exact, or ``grad-cam``, an approximation.
        cells: (h, w) float32, of either sign.
        rows: (h,) where the centre of each row of cells lies, from 0 at the photograph's upper edge to 1 at the lower one; those
            at the ends may lie outside.
        columns: (w,) the same from left to right.
        calibrated: Whether the probability is; else it is the network's score.
    """

    task: str
    name: str
    probability: float
    method: Method
    cells: NDArray[np.float32]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    calibrated: bool

    def over(self, width: int, height: int) -> NDArray[np.float32]:
        """The map at each pixel of the photograph, at whatever size: bilinear between the centres of cells, constant beyond them.

        Args:
            width: In pixels.
            height: In pixels.

        Returns:
            (height, width) float32.
        """
        down, across = _interpolation(self.rows, height), _interpolation(self.columns, width)
        return (down @ self.cells @ across.T).astype(np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Explainer:
    """A network with what its maps need that does not depend on the photograph; made by `Explainer.of`.

    Attributes:
        fabric: Gives device and precision.
        network: On that device, in evaluation.
        method: How its maps are made.
        stride: Pixels from one cell of its feature map to the next.
        origin: Where the centre of the first cell lies, in pixels from the centre of the first pixel.
    """

    fabric: Fabric
    network: Network
    method: Method
    stride: int
    origin: float

    @classmethod
    def of(cls, fabric: Fabric, network: Network) -> Self:
        """Find out how a network can be explained; it takes some forward passes, so do it once for many photographs.

        Args:
            fabric: Gives device and precision.
            network: A trained network; it is moved to the device and put into evaluation.

        Raises:
            UnexplainableError: If its backbone has no feature map, weighs the places of it one by one, or takes one size of input only.
            InsightError: If captum is needed and missing.
        """
        network.to(fabric.device).eval()
        method: Method = "cam" if network.cam_exact else "grad-cam"
        with fabric.autocast():
            if method == "grad-cam":
                _check_averages_places(network, fabric.device)
                _check_takes_any_shape(network, fabric.device)
                _layer_grad_cam()
            stride = int(network.backbone.feature_info[-1]["reduction"])
            return cls(fabric, network, method, stride, _first_centre(network, stride, fabric.device))

    def photograph(
        self, data: bytes | memoryview, wanted: Mapping[str, Sequence[str] | None], calibration: Calibration | None = None
    ) -> dict[str, tuple[AttentionMap, ...]]:
        """Maps over a whole photograph, whatever its shape, from one pass through the convolutions.

        The shorter side is scaled to the recipe's `test_side`, the scale on which the network is tested. The borders are continued
        to one pixel more than a multiple of the stride, where neither kind of strided layer (those that pad and those that drop an
        incomplete patch) leaves an edge without a cell.

        Args:
            data: An upright RGB JPEG, as packed.
            wanted: For each task the classes to be mapped, or None for the one predicted (of lesions: the most probable one).
            calibration: What makes probabilities of the network's scores; None: the scores stand.

        Returns:
            For each task one map per class, in the order asked for.

        Raises:
            LabelError: If the network has no such task or class.
            ValueError: If a task is named with an empty list of classes, or the calibration is of other classes.
        """
        network, preprocessing = self.network, self.network.preprocessing
        square = torch.from_numpy(central_square(data, preprocessing))
        scores = {task: values.cpu().numpy() for task, values in predict_batch(self.fabric, network, square[None]).items()}
        probabilities = scores if calibration is None else calibration.apply(scores)  # (1, C)
        names = {task: self._names(task, chosen, probabilities) for task, chosen in wanted.items()}
        classes = {
            task: torch.tensor([[network.labels[task].index(name) for name in chosen]], device=self.fabric.device)
            for task, chosen in names.items()
        }
        image = torch.from_numpy(whole_photograph(data, preprocessing)).to(self.fabric.device)
        assert preprocessing.mean is not None
        assert preprocessing.std is not None
        (top, bottom), (left, right) = (_margins(length, self.stride) for length in image.shape[1:])
        pixels = normalise(image[None], preprocessing.mean, preprocessing.std)
        with torch.no_grad(), self.fabric.autocast():
            feature_map = network.forward_features(F.pad(pixels, (left, right, top, bottom), mode="replicate"))
        rows, columns = (
            (np.arange(n_cells) * self.stride + self.origin - margin + 0.5) / length
            for n_cells, margin, length in zip(feature_map.shape[2:], (top, left), image.shape[1:], strict=True)
        )
        return {
            task: tuple(
                AttentionMap(
                    task,
                    name,
                    float(probabilities[task][0, k]),
                    self.method,
                    cells,
                    rows,
                    columns,
                    calibrated=calibration is not None and calibration.covers(task, name),
                )
                for name, k, cells in zip(names[task], classes[task][0].tolist(), maps[0].cpu().numpy(), strict=True)
            )
            for task, maps in head_maps(network, feature_map, classes).items()
        }

    def _names(self, task: str, chosen: Sequence[str] | None, probabilities: Mapping[str, NDArray[np.float32]]) -> tuple[str, ...]:
        known = self.network.labels[task].classes
        if chosen is None:
            return (known[int(probabilities[task].argmax())],)
        if not chosen:
            raise ValueError(f"no class of the task {task!r} is named; None asks for the predicted one")
        return tuple(chosen)


def whole_photograph(data: bytes | memoryview, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """A photograph with its shorter side scaled to `test_side` and nothing cut off; `central_square` is the middle of it.

    Args:
        data: An upright RGB JPEG.
        preprocessing: Gives `test_side`.

    Returns:
        (3, H, W) uint8, RGB, with min(H, W) = test_side.
    """
    side = preprocessing.test_side
    image = decode(data, side)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class _TaskHead(nn.Module):
    """A feature map to one task's logits, with the feature map as a layer of its own for captum to look at."""

    def __init__(self, network: Network, task: str) -> None:
        super().__init__()
        self.network, self.task, self.places = network, task, nn.Identity()

    def forward(self, feature_map: Tensor) -> Tensor:
        return self.network.forward_head(self.places(feature_map)).logits[self.task]


def _class_activation(network: Network, feature_map: Tensor, task: str, classes: Tensor) -> Tensor:
    head = network.heads[task]
    assert isinstance(head, nn.Linear)
    return attention(feature_map, head.weight, classes)


def _grad_cam(network: Network, feature_map: Tensor, task: str, classes: Tensor) -> Tensor:
    head = _TaskHead(network, task)
    n_images, n_classes = classes.shape
    with torch.enable_grad():
        features = feature_map.detach().float().repeat_interleave(n_classes, dim=0).requires_grad_()
        maps: Tensor = _layer_grad_cam()(head, head.places).attribute(features, target=classes.flatten())  # (B K, 1, h, w)
    return maps.detach().reshape(n_images, n_classes, *maps.shape[2:])


def _layer_grad_cam() -> Any:
    try:
        return importlib.import_module("captum.attr").LayerGradCam
    except ModuleNotFoundError as error:
        raise InsightError(
            "this network is explained by Grad-CAM, which needs the package captum: pip install 'predilect[explain]'"
        ) from error


@torch.no_grad()
def _check_averages_places(network: Network, device: torch.device) -> None:
    """Refuse a network whose head does not treat all places of a feature map alike, for then no weights per channel say where it looked.

    Whether it does is asked of the network itself: exchanging places must not change what the head sees.
    """
    name = type(network.backbone).__name__.lstrip("_")
    side = network.preprocessing.crop
    found = network(torch.zeros(1, 3, side, side, device=device)).feature_map
    if found is None:
        raise UnexplainableError(
            f"the backbone {name} cannot be explained by attention maps: it ends in tokens that have seen the whole photograph, "
            f"not in a feature map whose places lie over places of it"
        )
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, found.shape[1], max(2, found.shape[2]), max(2, found.shape[3]), generator=generator).to(device)
    one, other = (network.forward_head(item).embedding for item in (features, features.flip(2, 3)))
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
        raise UnexplainableError(
            f"the backbone {name} cannot be explained by attention maps: its last layers weigh each place of the feature map "
            f"by itself instead of averaging over places"
        )


@torch.no_grad()
def _check_takes_any_shape(network: Network, device: torch.device) -> None:
    """Refuse a network that only takes the size it was made for, for a map lies over a whole photograph.

    Windows of attention and biases by relative place are laid out for one size; what a network says of another differs from one to
    the next, so it is asked.
    """
    side = network.preprocessing.crop
    stride = int(network.backbone.feature_info[-1]["reduction"])
    try:
        network.forward_features(torch.zeros(1, 3, side + stride, side + 2 * stride, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UnexplainableError(
            f"the backbone {type(network.backbone).__name__} cannot be explained by attention maps: it takes squares of {side} pixels "
            f"only, and a map covers the whole photograph, whatever its shape"
        ) from error


@torch.no_grad()
def _first_centre(network: Network, stride: int, device: torch.device) -> float:
    """Where the first cell of a feature map looks, in pixels from the centre of the first pixel, measured on planted patches.

    Half a cell is at stake, and the architecture alone does not tell: the layers of a ResNet centre cell i on pixel `stride` i, and
    training shifts where their weights look, while patches as ConvNeXt takes them have their centres (stride - 1) / 2 further on. So four patches of noise are put on a flat ground, mirrored
    about its middle; by that symmetry the centroid of what they change, on average, lies where the cells see the middle, however
    far they look.
    """
    middle, half = 4 * stride, stride // 2
    generator = torch.Generator().manual_seed(0)
    noise = F.interpolate(torch.randn(4, 3, 8, 8, generator=generator), size=2 * half, mode="bilinear").mul(1.5)
    canvas = torch.zeros(5, 3, 2 * middle + 1, 2 * middle + 1)  # the first stays flat
    for image, patch, (up, left) in zip(canvas[1:], noise, itertools.product((-1, 1), repeat=2), strict=True):
        y, x = middle + round(0.95 * up * stride), middle + round(1.4 * left * stride)
        image[:, y - half : y + half, x - half : x + half] = patch  # its centre is at (y - 0.5, x - 0.5)
    flat, *planted = network.forward_features(canvas.to(device, memory_format=torch.channels_last)).double()
    changed = (torch.stack(planted) - flat).square().sum(dim=1)  # (4, h, w)
    shares = changed / changed.sum(dim=(1, 2), keepdim=True)
    centroids = [
        (shares.sum(dim=axis) * torch.arange(shares.shape[3 - axis], device=device)).sum(dim=1).mean().item() for axis in (1, 2)
    ]
    return middle - 0.5 - stride * float(np.mean(centroids))


def _margins(length: int, stride: int) -> tuple[int, int]:
    """What to add before and after, in pixels, to reach one more than a multiple of the stride."""
    missing = (1 - length) % stride
    return missing // 2, missing - missing // 2


def _interpolation(centres: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(n, m): n pixels across [0, 1] as weighted means of values at m increasing centres."""
    pixels = (np.arange(n) + 0.5) / n
    return np.stack([np.interp(pixels, centres, basis) for basis in np.eye(len(centres))], axis=1)
