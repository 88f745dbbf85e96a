"""The photographs of an atlas with their labels and folds, and what of them one training learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits, training_slice
from predilect.errors import SplitError
from predilect.labels.tasks import LabelSpace
from predilect.predictions import Truth
from predilect.training.data import TrainingData

__all__ = ["Material"]


@dataclass(frozen=True, eq=False, slots=True)
class Material:
    """An atlas and its folds in the same row order, as every training of a run needs them.

    Attributes:
        atlas: The N photographs.
        truth: What is known of them, with their groups.
        folds: (N,) the fold in which each is held out, -1 for the tuning slice.
    """

    atlas: Atlas
    truth: Truth
    folds: NDArray[np.int64]

    @classmethod
    def of(cls, atlas: Atlas, splits: Splits) -> Self:
        """Put an atlas together with its folds.

        Raises:
            SplitError: If the folds belong to another atlas.
        """
        image_ids = np.array(atlas.photos["image_id"].to_list(), dtype=np.str_)
        splits = splits.check_for(image_ids, atlas.content_hash)
        return cls(atlas, atlas.truth(splits.groups), splits.folds)

    def fold_data(self, labels: LabelSpace, fold: int, share: float) -> TrainingData:
        """What the network that is tested on a fold learns from; see `training_data`."""
        return self.training_data(labels, fold, share, fold + 1)

    def training_data(self, labels: LabelSpace, held_out: int | None, share: float, seed: int) -> TrainingData:
        """Rows to learn from and to validate on, without the held-out fold.

        Args:
            labels: The tasks to learn.
            held_out: The fold that is tested, or None.
            share: Of the other photographs in the validation slice, in [0, 0.5).
            seed: Decides the slice, the same for all systems.

        Raises:
            SplitError: If a part holds no known label of these tasks, so that its loss would be 0 and say nothing.
        """
        rows = np.flatnonzero(self.folds != held_out) if held_out is not None else np.arange(len(self.folds))
        inside = np.zeros(len(rows), dtype=bool)
        if share > 0:
            assert self.truth.groups is not None
            balanced = np.concatenate([self.truth.values[name][rows] for name in self.truth.labels.names], axis=1)
            inside = training_slice(balanced, self.truth.groups[rows], fraction=share, seed=seed)
        parts = [(rows[~inside], "to learn from", "label some of them")]
        if share > 0:
            folds = "" if held_out is None else "make fewer folds or "
            parts.append((rows[inside], "to watch the training", f"{folds}take another validation_share"))
        without = "" if held_out is None else f" without fold {held_out}"
        for part, what, remedy in parts:
            if not any((self.truth.values[name][part] >= 0).any() for name in labels.names):
                raise SplitError(
                    f"{self.atlas.path}: of the {len(part)} photographs {what}{without}, none has a known label of "
                    f"{' or '.join(labels.names)}; {remedy}"
                )
        return TrainingData(
            images=self.atlas.images(),
            labels={name: torch.from_numpy(self.truth.values[name].copy()) for name in labels.names},
            train_rows=rows[~inside],
            validation_rows=rows[inside],
        )
