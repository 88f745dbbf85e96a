"""A trained network with everything it needs to be used, in one folder no part of which can execute code.

model.safetensors   weights
card.md             the model card, for people
bundle.json         schema version, checksums (its own too), labels, preprocessing, recipe, what was fitted, provenance, licences of the data
index/              embeddings of an atlas, where somebody has added them (see predilect.insight.bundle_index)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file

from predilect.errors import BundleError, LabelError, RecipeError, RunError
from predilect.evaluation.fitted_parts import PARTS, FittedParts
from predilect.files import checksum, is_sealed, read_json, replacing, replacing_folder, seal, write_json, write_text
from predilect.labels.tasks import LabelSpace
from predilect.recipe import Preprocessing, Recipe
from predilect.report.card import model_card
from predilect.report.card_scores import Tested
from predilect.training.checkpoint import load_tensors
from predilect.training.crossval import Refit
from predilect.vision.network import Network, assemble_network

__all__ = ["Bundle", "write_bundle"]

_SCHEMA_VERSION = 1
_MODEL = "model.safetensors"
_CARD = "card.md"
_KEYS = ("files", "system", "labels", "preprocessing", "recipe", *PARTS, "missing", "provenance", "licences")


class _Given(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Source(_Given):
    name: str
    licence: str
    credit: str


class _Provenance(_Given):
    sources: list[_Source]
    notes: list[str] = []
    command: str | None = None
    atlas: str | None = None
    atlas_hash: str | None = None
    splits_hash: str | None = None
    seed: int | None = None
    iterations: int | None = None
    n_images: int | None = None


class _Classes(_Given):
    classes: list[str]
    machine: list[str]


class _Info(_Given):
    """The form of `bundle.json`, but for what has checks of its own."""

    system: str
    labels: dict[str, _Classes]
    provenance: _Provenance
    licences: list[str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle whose files are as they were written.

    Attributes:
        path: The folder.
        model: What identifies its network: the SHA-256 of the weights file, in hexadecimal.
        system: The system's name, such as ``mtl``.
        labels: What it predicts.
        preprocessing: How a photograph becomes its input, with mean and std.
        recipe: How it was trained.
        fitted: What makes answers of its scores.
        provenance: Where it comes from.
        licences: Of the data it was trained on.
    """

    path: Path
    model: str
    system: str
    labels: LabelSpace
    preprocessing: Preprocessing
    recipe: Recipe
    fitted: FittedParts
    provenance: Mapping[str, Any]
    licences: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a bundle and check every file of it.

        Raises:
            BundleError: If it is no bundle, is of another schema version, or a file is missing or changed.
        """
        if not path.exists():
            raise BundleError(f"{path}: there is no such folder")
        if not (path / "bundle.json").is_file():
            raise BundleError(f"{path} is not a bundle: it holds no bundle.json")
        info = read_json(path / "bundle.json", BundleError, "copy the bundle again")
        if info.get("schema_version") != _SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {info.get('schema_version')!r}; this version of Predilect reads {_SCHEMA_VERSION}"
            )
        if not is_sealed(info):
            raise BundleError(f"{path}: bundle.json is not what was written (its checksum differs); copy the bundle again")
        missing = [key for key in _KEYS if key not in info]
        if missing:
            raise BundleError(
                f"{path / 'bundle.json'} has no {missing[0]!r}: another version of Predilect wrote it; make the bundle anew"
            )
        if not isinstance(info["files"], dict) or set(info["files"]) != {_MODEL, _CARD}:
            raise BundleError(f"{path / 'bundle.json'} must name two files, {_MODEL} and {_CARD}, with their checksums")
        for name, written in info["files"].items():
            if not (path / name).is_file():
                raise BundleError(f"{path}: {name} is missing")
            if checksum(path / name) != written:
                raise BundleError(f"{path}: {name} is not what was written (its checksum differs); copy the bundle again")
        try:
            _Info.model_validate_json(json.dumps(info))
            bundle = cls(
                path=path,
                model=info["files"][_MODEL],
                system=info["system"],
                labels=LabelSpace.from_json(info["labels"]),
                preprocessing=Preprocessing.model_validate_json(json.dumps(info["preprocessing"])),
                recipe=Recipe.from_mapping(info["recipe"], str(path / "bundle.json")),
                fitted=FittedParts.from_json(info),
                provenance=info["provenance"],
                licences=tuple(info["licences"]),
            )
            bundle.fitted.check_labels(bundle.labels)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"]) or "the preprocessing"
            raise BundleError(f"{path / 'bundle.json'} is damaged: {place}: {fault['msg']}") from error
        except (LabelError, RecipeError, ValueError) as error:
            raise BundleError(f"{path / 'bundle.json'} is damaged: {' '.join(str(error).split())}") from error
        if bundle.preprocessing.mean is None:
            raise BundleError(f"{path / 'bundle.json'} is damaged: its preprocessing has no mean and std")
        return bundle

    def network(self) -> Network:
        """The network with its weights, in evaluation.

        Raises:
            BundleError: If there is no such backbone, or the weights cannot be read or do not fit it.
        """
        try:
            network, weights = assemble_network(self.labels, self.recipe), load_tensors(self.path / _MODEL)
        except (RecipeError, RunError) as error:
            raise BundleError(f"{self.path} gives no network: {error}") from error
        wanted = network.state_dict()
        if weights.keys() != wanted.keys() or any(weights[name].shape != value.shape for name, value in wanted.items()):
            raise BundleError(f"{self.path}: {_MODEL} does not fit the backbone {self.recipe.backbone} and the labels")
        network.load_state_dict(weights)
        network.preprocessing = self.preprocessing
        return network.eval()


def write_bundle(path: Path, refit: Refit, fitted: FittedParts | None = None, tested: Tested | None = None) -> Bundle:
    """Write a bundle, all of it or nothing.

    Args:
        path: The folder to make; it must be absent or empty.
        refit: The trained system.
        fitted: What was fitted for it; None: nothing.
        tested: How its folds' networks did, for the model card; None where no fold was held out.

    Raises:
        PredilectError: If the folder exists or cannot be written to.
        ValueError: If what was fitted is of other classes.
    """
    network, fitted = refit.network, fitted or FittedParts()
    fitted.check_labels(network.labels)
    with replacing_folder(path) as folder:
        model, card = folder / _MODEL, folder / _CARD
        with replacing(model) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, temporary)
        info = {
            "system": refit.system.name,
            "labels": network.labels.to_json(),
            "preprocessing": network.preprocessing.model_dump(mode="json"),
            "recipe": refit.system.recipe.record(),
            **fitted.to_json(),
            "provenance": refit.provenance,
            "licences": sorted({source["licence"] for source in refit.provenance["sources"] if source["licence"]}),
        }
        write_text(card, model_card(info, fitted, tested))
        files = {item.name: checksum(item) for item in (model, card)}
        write_json(folder / "bundle.json", seal({"schema_version": _SCHEMA_VERSION, "files": files, **info}))
    return Bundle.open(path)
