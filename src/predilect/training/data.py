"""Batches of photographs whose every random choice belongs to (seed, epoch, row), whoever loads them and in whatever order."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from predilect.atlas.pack import PackedImages
from predilect.randomness import stream
from predilect.recipe import Preprocessing
from predilect.vision.transforms import central_square, train_crop

__all__ = ["BatchOrder", "TestingPhotos", "TrainingData", "TrainingPhotos", "default_workers", "testing_loader", "training_loader"]


@dataclass(frozen=True, eq=False, slots=True)
class TrainingData:
    """What one training learns from.

    Attributes:
        images: The packed photographs of the atlas; rows number them.
        labels: ``{task: (N, C) int8}`` over all rows: 1 present, 0 absent, -1 unknown.
        train_rows: (T,) rows to learn from.
        validation_rows: (V,) rows of other groups for plateaus and stopping; may be empty.
    """

    images: PackedImages
    labels: dict[str, Tensor]
    train_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]


class BatchOrder(Sampler[list[tuple[int, int]]]):
    """The batches of a training as lists of (epoch, row): one permutation of the rows after another, cut into batches.

    Args:
        rows: (T,) rows to learn from.
        batch_size: Photographs in a batch, over all devices.
        seed: The run's seed.
        iterations: The range of iterations to yield, so that a resumed training goes on where it was.
        parts: Each batch comes as so many parts of equal size (gradient accumulation).
        rank: This device among `world`.
        world: Devices that share each batch.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        iterations: range,
        *,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows, self.batch_size, self.seed, self.iterations = rows, batch_size, seed, iterations
        self.parts, self.rank, self.world = parts, rank, world

    def __len__(self) -> int:
        return len(self.iterations) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, self.rows
        part_size = self.batch_size // self.parts
        for iteration in self.iterations:
            batch = []
            for position in range(iteration * self.batch_size, (iteration + 1) * self.batch_size):
                if position // len(self.rows) != epoch:
                    epoch = position // len(self.rows)
                    order = stream(self.seed, "order", epoch).permutation(self.rows)
                batch.append((epoch, int(order[position % len(self.rows)])))
            for part in range(self.parts):
                yield batch[part * part_size : (part + 1) * part_size][self.rank :: self.world]


class TrainingPhotos(Dataset[tuple[Tensor, int]]):
    """Jittered crops, addressed by (epoch, row).

    Args:
        images: The packed photographs.
        preprocessing: How they are scaled, cropped and mirrored.
        seed: The run's seed.
    """

    def __init__(self, images: PackedImages, preprocessing: Preprocessing, seed: int) -> None:
        self.images, self.preprocessing, self.seed = images, preprocessing, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, row = key
        rng = stream(self.seed, "augmentation", epoch, row)
        return torch.from_numpy(train_crop(self.images[row], self.preprocessing, rng)), row


class TestingPhotos(Dataset[tuple[Tensor, int]]):
    """Central squares, addressed by position in `rows`.

    Args:
        images: The packed photographs.
        preprocessing: Gives `test_side`.
        rows: (T,) rows to look at, in order.
    """

    __test__ = False  # the name is no test's

    def __init__(self, images: PackedImages, preprocessing: Preprocessing, rows: NDArray[np.int64]) -> None:
        self.images, self.preprocessing, self.rows = images, preprocessing, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        row = int(self.rows[position])
        return torch.from_numpy(central_square(self.images[row], self.preprocessing)), row


def default_workers(device: torch.device) -> int:
    """Loader processes worth having: none where loading and computing share two cores, else one less than the cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 0 if device.type == "cpu" and cores <= 2 else min(8, cores - 1)


def training_loader(dataset: TrainingPhotos, order: BatchOrder, workers: int, *, pin: bool) -> DataLoader[Any]:
    """A loader of (images (B, 3, crop, crop) uint8, rows (B,) int64) in the given order."""
    return DataLoader(dataset, batch_sampler=order, num_workers=workers, pin_memory=pin, prefetch_factor=4 if workers else None)


def testing_loader(dataset: TestingPhotos, batch_size: int, workers: int, *, pin: bool) -> DataLoader[Any]:
    """A loader of (images (B, 3, test_side, test_side) uint8, rows (B,) int64) in the order of the data set's rows."""
    return DataLoader(dataset, batch_size=batch_size, num_workers=workers, pin_memory=pin, prefetch_factor=4 if workers else None)
