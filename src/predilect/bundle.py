"""A trained network with everything it needs to be used, in one folder no part of which can execute code.

model.safetensors   weights
bundle.json         schema version, checksums (its own too), labels, preprocessing, recipe, calibration, provenance, licences of the data
index/              embeddings of an atlas, where somebody has added them (see predilect.insight.bundle_index)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors.torch import save_file

from predilect.errors import BundleError, LabelError, RecipeError
from predilect.files import checksum, is_sealed, read_json, replacing, replacing_folder, seal, write_json
from predilect.labels.tasks import LabelSpace
from predilect.recipe import Preprocessing, Recipe
from predilect.training.checkpoint import load_tensors
from predilect.training.crossval import Refit
from predilect.vision.network import Network, assemble_network

__all__ = ["Bundle", "write_bundle"]

_SCHEMA_VERSION = 1
_MODEL = "model.safetensors"
_KEYS = ("files", "system", "labels", "preprocessing", "recipe", "calibration", "provenance", "licences")


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
        provenance: Where it comes from.
        licences: Of the data it was trained on.
    """

    path: Path
    model: str
    system: str
    labels: LabelSpace
    preprocessing: Preprocessing
    recipe: Recipe
    provenance: Mapping[str, Any]
    licences: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a bundle and check every file of it.

        Raises:
            BundleError: If it is no bundle, is of another schema version, or a file is missing or changed.
        """
        if not (path / "bundle.json").is_file():
            raise BundleError(f"{path} is not a bundle: it holds no bundle.json")
        info = read_json(path / "bundle.json", BundleError)
        if info.get("schema_version") != _SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {info.get('schema_version')!r}; this version of Predilect reads {_SCHEMA_VERSION}"
            )
        if not is_sealed(info):
            raise BundleError(f"{path}: bundle.json is not what was written (its checksum differs); copy the bundle again")
        missing = [key for key in _KEYS if key not in info]
        if missing:
            raise BundleError(f"{path / 'bundle.json'} has no {missing[0]!r}")
        if not isinstance(info["files"], dict) or set(info["files"]) != {_MODEL}:
            raise BundleError(f"{path / 'bundle.json'} must name one file, {_MODEL}, with its checksum")
        if not (path / _MODEL).is_file():
            raise BundleError(f"{path}: {_MODEL} is missing")
        if checksum(path / _MODEL) != info["files"][_MODEL]:
            raise BundleError(f"{path}: {_MODEL} is not what was written (its checksum differs); copy the bundle again")
        try:
            bundle = cls(
                path=path,
                model=info["files"][_MODEL],
                system=info["system"],
                labels=LabelSpace.from_json(info["labels"]),
                preprocessing=Preprocessing.model_validate_json(json.dumps(info["preprocessing"])),
                recipe=Recipe.from_mapping(info["recipe"], str(path / "bundle.json")),
                provenance=info["provenance"],
                licences=tuple(info["licences"]),
            )
        except (LabelError, RecipeError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path / 'bundle.json'} is damaged: {error}") from error
        if bundle.preprocessing.mean is None:
            raise BundleError(f"{path / 'bundle.json'} is damaged: its preprocessing has no mean and std")
        return bundle

    def network(self) -> Network:
        """The network with its weights, in evaluation.

        Raises:
            BundleError: If the weights do not fit the recipe.
        """
        network = assemble_network(self.labels, self.recipe)
        weights = load_tensors(self.path / _MODEL)
        wanted = network.state_dict()
        if weights.keys() != wanted.keys() or any(weights[name].shape != value.shape for name, value in wanted.items()):
            raise BundleError(f"{self.path}: {_MODEL} does not fit the backbone {self.recipe.backbone} and the labels")
        network.load_state_dict(weights)
        network.preprocessing = self.preprocessing
        return network.eval()


def write_bundle(path: Path, refit: Refit) -> Bundle:
    """Write a bundle, all of it or nothing; then the training's checkpoint is of no more use and is removed.

    Args:
        path: The folder to make; it must be absent or empty.
        refit: The trained system.

    Raises:
        PredilectError: If the folder exists or cannot be written to.
    """
    network = refit.network
    with replacing_folder(path) as folder:
        model = folder / _MODEL
        with replacing(model) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, temporary)
        licences = sorted({source["licence"] for source in refit.provenance["sources"] if source["licence"]})
        info = {
            "schema_version": _SCHEMA_VERSION,
            "files": {model.name: checksum(model)},
            "system": refit.system.name,
            "labels": network.labels.to_json(),
            "preprocessing": network.preprocessing.model_dump(mode="json"),
            "recipe": refit.system.recipe.record(),
            "calibration": None,
            "provenance": refit.provenance,
            "licences": licences,
        }
        write_json(folder / "bundle.json", seal(info))
    refit.state.unlink(missing_ok=True)
    return Bundle.open(path)
