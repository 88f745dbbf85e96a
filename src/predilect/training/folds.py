"""The folds of a finished cross-validation with their networks: which photographs each one tested, and which it learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits
from predilect.errors import RunError, nearest
from predilect.predictions import Truth
from predilect.recipe import Recipe
from predilect.run import Run
from predilect.training.checkpoint import load_tensors
from predilect.training.material import Material
from predilect.training.start import splits_hash
from predilect.vision.network import Network, assemble_network

__all__ = ["TrainedFolds"]


@dataclass(frozen=True, eq=False, slots=True)
class TrainedFolds:
    """A run, and the atlas that it was made with; made by `TrainedFolds.of`.

    Attributes:
        run: The cross-validation.
        atlas: Its N photographs.
        truth: What is known of them, with their groups, in the order of the atlas.
        folds: (N,) the fold in which each is held out.
    """

    run: Run
    atlas: Atlas
    truth: Truth
    folds: NDArray[np.int64]

    @classmethod
    def of(cls, run: Run, atlas: Atlas, splits: Splits) -> Self:
        """Put a run together with its atlas.

        Args:
            run: A cross-validation.
            atlas: The photographs that it was made with.
            splits: Their folds.

        Raises:
            RunError: If the run was made with another atlas or other folds, or held out no fold.
            SplitError: If the folds belong to another atlas.
        """
        if not run.info["folds"]:
            raise RunError(f"{run.path}: this run held out no fold, so that no network tested a photograph")
        if run.info["atlas_hash"] != atlas.content_hash:
            raise RunError(
                f"{run.path} was made with the atlas {run.info['atlas']!r} in another state than {atlas.path} (its hash is "
                f"{run.info['atlas_hash'][:12]!r}, that of this atlas {atlas.content_hash[:12]!r}); give the atlas it was made with"
            )
        splits = splits.check_for(np.array(atlas.photos["image_id"].to_list(), dtype=np.str_), atlas.content_hash)
        if run.info["splits_hash"] != splits_hash(splits):
            raise RunError(f"{run.path} was made with other folds than {splits.origin}: the atlas was split again since")
        return cls(run, atlas, atlas.truth(splits.groups), splits.folds)

    def tested(self, fold: int) -> NDArray[np.int64]:
        """(T,) rows of the photographs that are held out in a fold."""
        return np.flatnonzero(self.folds == fold)

    def learnt(self, fold: int) -> NDArray[np.int64]:
        """(M,) rows of all others: those learnt from, and the slice of them that watched the training."""
        return np.flatnonzero(self.folds != fold)

    def fitted_on(self, system: str, fold: int) -> NDArray[np.int64]:
        """(F,) rows that the weights of a fold were fitted on: those of `learnt` without that slice.

        Raises:
            RunError: If the run has no such system.
        """
        recipe = self.recipe(system)
        labels = self.truth.labels.restricted_to(self.run.info["systems"][system]["tasks"])
        return Material(self.atlas, self.truth, self.folds).training_data(labels, fold, recipe.validation_share).train_rows

    def recipe(self, system: str) -> Recipe:
        """The recipe of a system.

        Raises:
            RunError: If the run has no such system.
        """
        systems = self.run.info["systems"]
        if system not in systems:
            raise RunError(f"{self.run.path} trained no system {system!r}: {nearest(system, systems)}")
        return Recipe.from_mapping(systems[system]["recipe"], str(self.run.path / "run.json"))

    def check_seed(self, seed: int) -> None:
        """Refuse a seed that no training of the run had.

        Raises:
            RunError: If it is none of the run's.
        """
        seeds = self.run.info["seeds"]
        if seed not in seeds:
            raise RunError(f"{self.run.path} has no seed {seed}: allowed are {', '.join(map(str, seeds))}")

    def network(self, system: str, seed: int, fold: int) -> Network:
        """The network that tested a fold, in evaluation.

        Raises:
            RunError: If the run has no such system, seed or fold, the fold is not finished, or its weights are missing or changed.
        """
        recipe, info = self.recipe(system), self.run.info
        self.check_seed(seed)
        if fold not in info["folds"]:
            raise RunError(f"{self.run.path} tested no fold {fold}: allowed are {', '.join(map(str, info['folds']))}")
        weights = self.run.fold_weights(system, seed, fold)
        network = assemble_network(self.truth.labels.restricted_to(info["systems"][system]["tasks"]), recipe)
        try:
            network.load_state_dict(load_tensors(weights))
        except RuntimeError as error:  # torch lists every tensor
            raise RunError(f"{weights} does not fit the backbone {recipe.backbone} and the labels of {self.atlas.path}") from error
        return network.eval()
