"""One backbone, one linear head per task (the paper's Figure 2: two sibling fully connected layers on ResNet-50).

timm's and torchvision's ResNet-50 put the stride of a bottleneck on its 3x3 convolution ("v1.5"), the paper's Caffe model on the
first 1x1 ("v1"); weights of one kind do not fit the other, and v1.5 is the somewhat stronger of the two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import timm
import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import group_parameters
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import AlexNet_Weights, alexnet

from predilect.errors import RecipeError, nearest
from predilect.labels.tasks import LabelSpace
from predilect.randomness import stream_seed
from predilect.recipe import Preprocessing, Recipe

__all__ = ["ModelOutput", "Network", "assemble_network", "build_network", "parameter_groups"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# What fetching weights may end with. The hub's own error has that of its HTTP client among its bases, and the client differs from version to
# version: a proxy that refuses is told by the client's error alone.
_UNFETCHED: tuple[type[Exception], ...] = (
    OSError,
    RuntimeError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)


class ModelOutput(NamedTuple):
    """What a network says of a batch.

    Attributes:
        feature_map: (B, Dm, h, w), the last one before pooling; None where the backbone keeps none.
        embedding: (B, D) float32, what the heads see (pool5 of a ResNet).
        logits: ``{task: (B, C) float32}``.
    """

    feature_map: Tensor | None
    embedding: Tensor
    logits: dict[str, Tensor]


class Network(nn.Module):
    """A backbone and a linear head per task.

    Args:
        backbone: A timm model without classifier, or a module with the same `forward_features` and `forward_head`.
        width: D, the length of an embedding.
        labels: The tasks and classes of the heads.
        preprocessing: With mean and std filled in; how inputs must have been prepared.
        cam_exact: Whether an average-pooled feature map goes straight into the heads, so that class activation maps are exact.
        frozen_statistics: Whether batch normalisation keeps its loaded mean and variance in training; scales are trained still.
    """

    def __init__(
        self,
        backbone: Any,
        width: int,
        labels: LabelSpace,
        preprocessing: Preprocessing,
        *,
        cam_exact: bool,
        frozen_statistics: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict({task.name: nn.Linear(width, len(task)) for task in labels.tasks})
        self.labels = labels
        self.preprocessing = preprocessing
        self.cam_exact = cam_exact
        self.frozen_statistics = frozen_statistics
        # timm's Swin, MambaOut and a few others keep their channels last, and declare it.
        self._channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Switch between training and evaluation, leaving frozen batch statistics in evaluation."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and (self.frozen_statistics or not module.weight.requires_grad):
                module.eval()
        return self

    def forward_features(self, images: Tensor) -> Tensor:
        """The backbone up to its last feature map, or its tokens.

        Args:
            images: (B, 3, H, W) normalised.

        Returns:
            (B, Dm, h, w), however the backbone orders it; or (B, N, Dm) tokens.
        """
        features: Tensor = self.backbone.forward_features(images)
        return features.permute(0, 3, 1, 2) if self._channels_last and features.ndim == 4 else features

    def forward_head(self, features: Tensor) -> ModelOutput:
        """Pooling and heads, in fp32 whatever the backbone computed in: bf16 scores collapse into ties.

        Args:
            features: What `forward_features` returned.
        """
        ordered = features.permute(0, 2, 3, 1) if self._channels_last and features.ndim == 4 else features
        with torch.autocast(features.device.type, enabled=False):
            embedding: Tensor = self.backbone.forward_head(ordered.float(), pre_logits=True)
            logits = {task: head(embedding) for task, head in self.heads.items()}
        return ModelOutput(features if features.ndim == 4 else None, embedding, logits)

    def forward(self, images: Tensor) -> ModelOutput:
        """All tasks of a batch.

        Args:
            images: (B, 3, H, W) normalised.
        """
        return self.forward_head(self.forward_features(images))


class _AlexNet(nn.Module):
    """torchvision's AlexNet with timm's division into features and head."""

    def __init__(self) -> None:
        super().__init__()
        whole = alexnet()
        self.features, self.avgpool = whole.features, whole.avgpool
        self.classifier = whole.classifier[:-1]

    def forward_features(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images)
        return features

    def forward_head(self, features: Tensor, *, pre_logits: bool) -> Tensor:
        assert pre_logits
        embedding: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return embedding


def build_network(labels: LabelSpace, recipe: Recipe, seed: int) -> Network:
    """Make the network of a recipe, with its starting weights.

    Each head starts from a stream of its own, so another head changes nothing in it.

    Args:
        labels: The tasks to predict.
        recipe: Gives backbone, weights, preprocessing, batch normalisation and frozen stages.
        seed: Decides the heads, and the backbone where it starts from scratch.

    Raises:
        RecipeError: If there is no such backbone, its weights cannot be had or do not fit, or it has not so many stages.
    """
    # Some backbones draw their first weights from torch's global generator: lend it one, give it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "backbone"))
        network = assemble_network(labels, recipe)
    _load_weights(network.backbone, recipe)
    if recipe.frozen_stages:
        _freeze(network.backbone, recipe)
    for task, head in network.heads.items():
        assert isinstance(head, nn.Linear)
        _start_head(head, stream_seed(seed, f"{task} head"))
    return network


def assemble_network(labels: LabelSpace, recipe: Recipe) -> Network:
    """The network of a recipe with whatever weights its library gives it, for a checkpoint or a bundle to fill.

    Args:
        labels: The tasks to predict.
        recipe: Gives backbone, preprocessing and batch normalisation.

    Raises:
        RecipeError: If there is no such backbone, or no such weights of it as the name says behind a full stop.
    """
    backbone: Any
    if recipe.backbone == "alexnet":
        backbone, width, mean, std = _AlexNet(), 4096, _IMAGENET_MEAN, _IMAGENET_STD
    elif timm.is_model(recipe.backbone):
        _check_tag(recipe.backbone)
        backbone = timm.create_model(recipe.backbone, num_classes=0)
        width, mean, std = backbone.head_hidden_size, backbone.pretrained_cfg["mean"], backbone.pretrained_cfg["std"]
    else:
        known = ["alexnet", *timm.list_models()]
        raise RecipeError(f"there is no backbone {recipe.backbone!r} in timm: {nearest(recipe.backbone, known)}")
    preprocessing = recipe.preprocessing
    if preprocessing.mean is None:
        preprocessing = preprocessing.model_copy(update={"mean": tuple(mean), "std": tuple(std)})
    network = Network(
        backbone,
        width,
        labels,
        preprocessing,
        # In timm's ResNets nothing but average pooling stands between the last feature map and the heads.
        cam_exact=isinstance(backbone, ResNet),
        frozen_statistics=recipe.batchnorm == "frozen",
    )
    return network.to(memory_format=torch.channels_last)


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, object]]:
    """Parameters by learning-rate multiplier and weight decay, as an optimiser takes them.

    Caffe decays weights and biases alike (`decay_biases`); modern practice spares biases and normalisation scales.

    Args:
        network: The network.
        recipe: Gives `head_weight_rate`, `head_bias_rate`, `weight_decay` and `decay_biases`.

    Returns:
        Groups with `params`, `rate` (multiplier of the learning rate) and `weight_decay`, in a fixed order.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        in_head, is_weight = name.startswith("heads."), parameter.ndim > 1
        rate = (recipe.head_weight_rate if is_weight else recipe.head_bias_rate) if in_head else 1.0
        decay = recipe.weight_decay if is_weight or recipe.decay_biases else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "rate": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def _check_tag(name: str) -> None:
    """Make sure that timm knows the weights that a name such as ``resnet18.a1_in1k`` asks for, before it says so in its own way."""
    architecture, _, tag = name.partition(".")
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        raise RecipeError(f"there is no {name!r} in timm: {nearest(name, [architecture, *known])}")


def _load_weights(backbone: Any, recipe: Recipe) -> None:
    """Put the recipe's starting weights into the backbone; the classifier of the file is left out."""
    if recipe.weights == "none":
        return
    if recipe.weights == "pretrained":
        weights, origin = _hub_weights(recipe.backbone), f"the published weights of {recipe.backbone}"
    else:
        weights, origin = _file_weights(Path(recipe.weights)), recipe.weights
    classifier = "classifier.6" if recipe.backbone == "alexnet" else backbone.pretrained_cfg["classifier"]
    prefixes = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    weights = {name: value for name, value in weights.items() if not name.startswith(prefixes)}
    wanted = backbone.state_dict()
    faults = [
        *(f"{name} is missing" for name in wanted if name not in weights and not name.endswith("num_batches_tracked")),
        *(f"{name} is not part of it" for name in weights if name not in wanted),
        *(
            f"{name} has shape {tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            for name, value in weights.items()
            if name in wanted and value.shape != wanted[name].shape
        ),
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise RecipeError(f"{origin} do not fit the backbone {recipe.backbone}: {'; '.join(faults[:3])}{more}")
    backbone.load_state_dict({name: value.to(wanted[name].dtype) for name, value in weights.items()}, strict=False)


def _freeze(backbone: Any, recipe: Recipe) -> None:
    """Take the first stages out of the training: without gradients, and so with their batch statistics as loaded."""
    if isinstance(backbone, _AlexNet):
        raise RecipeError(f"frozen_stages = {recipe.frozen_stages}: alexnet has no stages; allowed is 0")
    stages = group_parameters(backbone, backbone.group_matcher(coarse=True))  # {number: names}
    if recipe.frozen_stages >= len(stages):
        raise RecipeError(f"frozen_stages = {recipe.frozen_stages}: {recipe.backbone} has {len(stages)}, allowed is less than that")
    parameters = dict(backbone.named_parameters())
    for number in sorted(stages)[: recipe.frozen_stages]:
        for name in stages[number]:
            parameters[name].requires_grad_(requires_grad=False)


def _file_weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".safetensors":
        raise RecipeError(f"weights = {str(path)!r}: allowed are 'pretrained', 'none' or the path of a .safetensors file")
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such weights file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeError(f"{path} is not a readable .safetensors file: {error}") from error


def _hub_weights(name: str) -> Mapping[str, Tensor]:
    unreached = None
    try:
        if name == "alexnet":
            weights: Mapping[str, Tensor] = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True, weights_only=True)
        else:
            unreached = _hub_unreached()
            with _hub_offline(offline=unreached is not None):
                weights = timm.create_model(name, pretrained=True).state_dict()
    except _UNFETCHED as error:
        # The hub then says only that the file is not among those fetched before.
        cause = unreached if unreached is not None and isinstance(error, LocalEntryNotFoundError) else error
        raise RecipeError(
            f"the published weights of {name} cannot be fetched ({_reason(cause)}); give a local file with "
            f"--weights {name}=FILE.safetensors, or start from random weights with --from-scratch"
        ) from error
    return weights


def _hub_unreached() -> Exception | None:
    """Ask the hub for anything, twice at most; None where it answers, whatever it says.

    Without a network, the hub's library tries each file of a model for half a minute, and tells of every try.
    """
    for wait in (1, 0):
        try:
            get_session().head(constants.ENDPOINT, timeout=constants.DEFAULT_REQUEST_TIMEOUT)
        except _UNFETCHED as error:
            unreached = error
            time.sleep(wait)
        else:
            return None
    return unreached


@contextmanager
def _hub_offline(*, offline: bool) -> Iterator[None]:
    """Whether the hub's library takes only what was fetched before; a user who asks for that by HF_HUB_OFFLINE has it anyway."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reason(error: BaseException) -> str:
    """The first sentence of what an error of fetching came from, without the number of the system's error."""
    root = error
    following: BaseException | None = error
    while following is not None:
        root = following if isinstance(following, _UNFETCHED) else root
        following = following.__cause__ or following.__context__
    told = root.strerror if isinstance(root, OSError) and isinstance(root.strerror, str) else str(root)
    return (told.splitlines() or [type(root).__name__])[0].split(". ")[0]


def _start_head(head: nn.Linear, seed: int) -> None:
    """Uniform in +-1/sqrt(D), biases zero."""
    bound = 1 / math.sqrt(head.in_features)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.zero_()
