"""The settings of a training and of its preprocessing, read strictly from TOML; there are no other settings objects."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from predilect.errors import RecipeError, nearest
from predilect.labels.tasks import LESION, SITE

__all__ = ["SYSTEMS", "Preprocessing", "Recipe", "System", "shipped_recipes", "system", "with_weights"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16, le=2048)]
Channels = tuple[float, float, float]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Preprocessing(_Settings):
    """How a photograph becomes the input of a network; it travels with the weights.

    Attributes:
        crop: Side of the square input, in pixels.
        jitter: In training the shorter side is scaled to a length drawn uniformly from this closed range, in pixels, and a
            crop is taken anywhere (the paper's scale jittering, after Simonyan and Zisserman 2014).
        flip: Whether training mirrors half of the photographs left to right.
        turn: Whether training turns them by a random multiple of 90 degrees; with `flip` that is every symmetry of the square.
        light: In training brightness and contrast are multiplied by numbers drawn uniformly from 1 - light to 1 + light, the same
            for red, green and blue, so that hues, which tell lesions apart, stay.
        test_side: In testing the shorter side is scaled to this, in pixels.
        views: In testing, the ``center`` crop, or Krizhevsky's ``ten-crop``: corners and centre of the central
            test_side x test_side square and their mirrors, probabilities averaged.
        mean: Subtracted from each channel of an image in [0, 1]; absent: as the backbone's weights were trained.
        std: Divides each channel after that; absent: as the backbone's weights were trained.
    """

    crop: Side = 224
    jitter: tuple[Side, Side] = (256, 480)
    flip: bool = True
    turn: bool = False
    light: Annotated[float, Field(ge=0, lt=1)] = 0.0
    test_side: Side = 256
    views: Literal["center", "ten-crop"] = "center"
    mean: Channels | None = None
    std: Channels | None = None

    @property
    def n_views(self) -> int:
        """How many inputs testing makes of a photograph."""
        return 10 if self.views == "ten-crop" else 1

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        if not self.crop <= self.jitter[0] <= self.jitter[1]:
            raise ValueError(f"jitter {list(self.jitter)} must be a range that starts at crop ({self.crop}) or above")
        if self.crop > self.test_side:
            raise ValueError(f"test_side {self.test_side} must be at least crop ({self.crop})")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all")
        return self


class Recipe(_Settings):
    """Everything that decides a training, apart from the atlas, the tasks and the seed.

    Attributes:
        name: Short name, for reports.
        description: What it is for, what it cost and what it gave.
        backbone: Any timm model name, or ``alexnet`` for torchvision's.
        weights: ``pretrained`` (from the hub of timm or torchvision), ``none`` (from scratch), or the path of a
            ``.safetensors`` file with the backbone's own keys.
        preprocessing: See `Preprocessing`.
        batch_size: Photographs in one optimiser step, over all devices and accumulated parts.
        accumulate: In how many equal parts a batch is computed on a device, to save memory.
        iterations: Optimiser steps at most.
        optimizer: ``sgd`` (with momentum) or ``adamw``.
        learning_rate: Of the backbone.
        momentum: Of SGD.
        weight_decay: The paper's gamma (Eq. 8), as the optimiser's weight decay.
        decay_biases: Whether biases and normalisation scales decay too, as Caffe has it.
        head_weight_rate: Learning-rate multiplier of the heads' weights.
        head_bias_rate: Learning-rate multiplier of the heads' biases.
        rarity_exponent: In training a present lesion of frequency f counts f^-a in the loss, rescaled so that all present lesions
            together count as before; 0 is the paper's unweighted loss. Validation losses are never weighted.
        site_weight: What the site's loss counts beside the lesions' in training; 1 is the paper's unweighted sum (Eq. 3).
        schedule: ``constant``, ``cosine`` (to zero at `iterations`) or ``plateau`` of the validation loss.
        warmup: Iterations over which the rate rises linearly from zero.
        plateau_factor: What a plateau multiplies the rate by.
        plateau_patience: Validations without improvement that make a plateau.
        plateau_threshold: Relative improvement that counts as one.
        plateaus: The plateau that ends the training.
        validate_every: Iterations between validations on the slice of the training groups.
        patience: Validations without improvement that end the training; 0: never.
        keep: Which weights are used: of the ``best`` validation, or the ``last``.
        validation_share: Share of the training photographs held out, by groups, for plateaus, patience and `keep`; 0 learns from
            all of them, where the recipe needs none of these.
        average_decay: Weights and batch statistics are averaged over the iterations with this exponential decay, and the average is
            what is validated and used (Polyak and Juditsky 1992); 0: the weights themselves.
        batchnorm: Whether the backbone's batch statistics are trained (``train``) or ``frozen`` as loaded.
        frozen_stages: So many of the backbone's stages, counted from the input with the stem as the first, stay wholly as loaded.
            The early stages cost most of a training step's time and change least.
        precision: Of the backbone: ``bf16``, ``fp32``, or ``auto``, which is bf16 where the device computes in it.
    """

    name: str
    description: str = ""
    backbone: str = "resnet50"
    weights: str = "pretrained"
    preprocessing: Preprocessing = Preprocessing()
    batch_size: Count = 20
    accumulate: Count = 1
    iterations: Count = 120_000
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.001
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-4
    decay_biases: bool = False
    head_weight_rate: Positive = 10.0
    head_bias_rate: Positive = 20.0
    rarity_exponent: Share = 0.0
    site_weight: Positive = 1.0
    schedule: Literal["constant", "cosine", "plateau"] = "plateau"
    warmup: Annotated[int, Field(ge=0)] = 0
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: Count = 5
    plateau_threshold: NotNegative = 1e-3
    plateaus: Count = 3
    validate_every: Count = 1000
    patience: Annotated[int, Field(ge=0)] = 0
    keep: Literal["best", "last"] = "best"
    validation_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batchnorm: Literal["train", "frozen"] = "train"
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} must divide batch_size {self.batch_size}")
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup {self.warmup} must be shorter than iterations {self.iterations}")
        if self.validation_share == 0 and (self.schedule == "plateau" or self.patience > 0 or self.keep == "best"):
            raise ValueError("validation_share 0 leaves nothing for schedule 'plateau', patience above 0 or keep 'best' to look at")
        if self.frozen_stages > 0 and self.weights == "none":
            raise ValueError(
                f"frozen_stages {self.frozen_stages} would keep random weights, for weights is 'none'; set frozen_stages=0"
            )
        return self

    @classmethod
    def open(cls, name_or_path: str, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe that is shipped with Predilect, or a file.

        Args:
            name_or_path: A name out of `shipped_recipes`, or the path of a ``.toml`` file.
            overrides: ``key=value`` settings that replace the file's, such as ``iterations=500`` or
                ``preprocessing.crop=128``; the value is TOML, a bare word is a string.

        Raises:
            RecipeError: If there is no such recipe, a key is unknown or a value is out of its range.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml":
            if not path.is_file():
                raise RecipeError(f"{path}: there is no such recipe file")
            try:
                text, origin = path.read_text(encoding="utf-8"), str(path)
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{path} cannot be read: {error}") from error
        else:
            shipped = shipped_recipes()
            if name_or_path not in shipped:
                raise RecipeError(f"there is no recipe {name_or_path!r}: {nearest(name_or_path, shipped)}")
            text = resources.files("predilect").joinpath("recipes", f"{name_or_path}.toml").read_text(encoding="utf-8")
            origin = f"recipe {name_or_path}"
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{origin} is not valid TOML: {error}") from error
        for override in overrides:
            _override(values, override)
        return cls.from_mapping(values, origin if not overrides else f"{origin} with --set {' '.join(overrides)}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], origin: str) -> Self:
        """Check plain values, as they come out of TOML or JSON.

        Raises:
            RecipeError: Naming `origin`, the key, the value found and what is allowed.
        """
        try:
            # Through JSON, where strictness lets a list stand for a tuple but no string for a number.
            return cls.model_validate_json(json.dumps(values, default=str))
        except ValidationError as error:
            raise RecipeError(f"{origin}: {_explain(error, cls)}") from error

    def record(self) -> dict[str, Any]:
        """The recipe as plain JSON values for a run or a bundle: a weights file by its name, for its path is the machine's own."""
        values = self.model_dump(mode="json")
        return {**values, "weights": Path(self.weights).name}

    def starting_from(self, weights: str) -> Self:
        """The same recipe with other starting weights.

        Raises:
            RecipeError: If it cannot start from these.
        """
        return self.from_mapping(
            {**self.model_dump(mode="json"), "weights": weights}, f"recipe {self.name} with weights = {weights!r}"
        )

    @property
    def weights_file(self) -> Path | None:
        """The local file of starting weights, if they come from one."""
        return None if self.weights in {"pretrained", "none"} else Path(self.weights)


@dataclass(frozen=True, slots=True)
class System:
    """One column of the paper's tables: a recipe together with the tasks it is trained on.

    Attributes:
        name: As in reports and run folders, such as ``mtl``.
        tasks: Task names, lesion before site.
        recipe: The recipe, with what the system itself fixes already put in.
    """

    name: str
    tasks: tuple[str, ...]
    recipe: Recipe


SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "resnet": (LESION,),
    "resnet-site": (SITE,),
    "mtl": (LESION, SITE),
    "alexnet": (LESION,),
    "mtl-scratch": (LESION, SITE),
}
"""The paper's systems and their tasks. `alexnet` brings its own backbone, `mtl-scratch` (footnote 1) random starting weights; for the
rest they take the recipe's."""


def system(name: str, recipe: Recipe) -> System:
    """Put a system together.

    Args:
        name: A key of `SYSTEMS`.
        recipe: The recipe; for ``alexnet`` its backbone is replaced, for ``mtl-scratch`` its starting weights.

    Raises:
        RecipeError: If there is no such system, or the recipe cannot start from random weights.
    """
    if name not in SYSTEMS:
        raise RecipeError(f"there is no system {name!r}: {nearest(name, SYSTEMS)}")
    if name == "alexnet":
        recipe = recipe.model_copy(update={"backbone": "alexnet"})
    if name == "mtl-scratch":
        recipe = recipe.starting_from("none")
    return System(name, SYSTEMS[name], recipe)


def with_weights(systems: Sequence[System], weights: Mapping[str, Path], *, from_scratch: bool) -> list[System]:
    """The systems with the starting weights that a user gives.

    Args:
        systems: With those of their recipes; `mtl-scratch` keeps its random ones.
        weights: Local files by the name of the backbone they are for, such as ``resnet50``.
        from_scratch: Whether all start from random weights instead.

    Raises:
        RecipeError: If a file is for a backbone that no system has, both are asked for, or a recipe cannot start from random
            weights.
    """
    if from_scratch and weights:
        raise RecipeError(f"--from-scratch and --weights {' '.join(weights)}: only one of them says where training starts")
    backbones = sorted({item.recipe.backbone for item in systems})
    for name, file in weights.items():
        if name not in backbones:
            raise RecipeError(f"--weights {name}={file}: no system here has this backbone; {nearest(name, backbones)}")
    start = dict.fromkeys(backbones, "none") if from_scratch else {name: str(file) for name, file in weights.items()}
    return [
        replace(item, recipe=item.recipe.starting_from(start[item.recipe.backbone]))
        if item.recipe.backbone in start and item.name != "mtl-scratch"
        else item
        for item in systems
    ]


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Predilect."""
    folder = resources.files("predilect").joinpath("recipes")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: write it as key=value, such as iterations=500")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override}: {part!r} holds no further keys")
    values[parts[-1]] = value


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault as one clause, with the nearest key for a misspelt one."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        for part in path[:-1]:
            annotation = model.model_fields[part].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
        within = [
            f"{name}.{path[-1]}"
            for name, field in model.model_fields.items()
            if isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
            and path[-1] in field.annotation.model_fields
        ]
        meant = f"did you mean {within[0]!r}?" if within else nearest(path[-1], model.model_fields)
        return f"unknown key {'.'.join(path)!r}: {meant}"
    if fault["type"] == "missing":
        return f"the key {'.'.join(path)!r} is missing"
    reason = fault["msg"].removeprefix("Value error, ")
    if not path or fault["type"] == "value_error":
        return reason
    return f"{'.'.join(path)} = {fault['input']!r}: {reason[0].lower()}{reason[1:]}"
