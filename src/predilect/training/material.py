"""The photographs of an atlas with their labels and folds, and what of them one training learns from."""

from __future__ import annotations

from collections.abc import Sequence
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

    def check(self, spaces: Sequence[LabelSpace], held_out: int | None, share: float) -> None:
        """Refuse, without opening an image, what `training_data` would refuse for any of these label spaces.

        Raises:
            SplitError: If a part holds no known label of the tasks of one of them.
        """
        train_rows, validation_rows = self._sliced(held_out, share)
        for labels in spaces:
            self._check_known(labels, held_out, train_rows, validation_rows if share > 0 else None)

    def training_data(self, labels: LabelSpace, held_out: int | None, share: float) -> TrainingData:
        """Rows to learn from and to validate on, without the held-out fold.

        Args:
            labels: The tasks to learn.
            held_out: The fold that is tested, or None.
            share: Of the other photographs in the validation slice, in [0, 0.5); which they are, the fold decides, for all systems and seeds.

        Raises:
            SplitError: If a part holds no known label of these tasks, so that its loss would be 0 and say nothing.
        """
        train_rows, validation_rows = self._sliced(held_out, share)
        self._check_known(labels, held_out, train_rows, validation_rows if share > 0 else None)
        return TrainingData(
            images=self.atlas.images(),
            labels={name: torch.from_numpy(self.truth.values[name].copy()) for name in labels.names},
            train_rows=train_rows,
            validation_rows=validation_rows,
        )

    def _sliced(self, held_out: int | None, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to learn from, and those of the validation slice, without the held-out fold."""
        rows = np.flatnonzero(self.folds != held_out) if held_out is not None else np.arange(len(self.folds))
        inside = np.zeros(len(rows), dtype=bool)
        if share > 0:
            assert self.truth.groups is not None
            balanced = np.concatenate([self.truth.values[name][rows] for name in self.truth.labels.names], axis=1)
            seed = 0 if held_out is None else held_out + 1
            inside = training_slice(balanced, self.truth.groups[rows], fraction=share, seed=seed)
        return rows[~inside], rows[inside]

    def _check_known(
        self,
        labels: LabelSpace,
        held_out: int | None,
        train_rows: NDArray[np.int64],
        validation_rows: NDArray[np.int64] | None,
    ) -> None:
        parts = [(train_rows, "to learn from", "label some of them")]
        if validation_rows is not None:
            folds = "" if held_out is None else "make fewer folds or "
            parts.append((validation_rows, "to watch the training", f"{folds}take another validation_share"))
        without = "" if held_out is None else f" without fold {held_out}"
        for part, what, remedy in parts:
            if not any((self.truth.values[name][part] >= 0).any() for name in labels.names):
                raise SplitError(
                    f"{self.atlas.path}: of the {len(part)} photographs {what}{without}, none has a known label of "
                    f"{' or '.join(labels.names)}; {remedy}"
                )
