"""Batches of photographs whose every random choice belongs to (seed, epoch, row), whoever loads them and in whatever order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
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

_SECONDS_BETWEEN_LOOKS = 0.1


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
    return _loader(dataset, workers, pin=pin, batch_sampler=order)


def testing_loader(dataset: TestingPhotos, batch_size: int, workers: int, *, pin: bool) -> DataLoader[Any]:
    """A loader of (images (B, 3, test_side, test_side) uint8, rows (B,) int64) in the order of the data set's rows."""
    return _loader(dataset, workers, pin=pin, batch_size=batch_size)


def _loader(dataset: Dataset[Any], workers: int, *, pin: bool, **batches: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_belong_to_parent,
        **batches,
    )


def _belong_to_parent(_worker: int) -> None:
    """Let a loader process end with its parent and no sooner.

    Ctrl-C and a cluster's SIGTERM reach every process of a group, but it is for the parent to finish its step first and for the
    loaders to serve it until then; only its own SIGTERM ends them. Torch's own watch over the parent sees its death seconds later,
    and not at all if the parent was killed while this process started.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """Wait for the parent's SIGTERM or its death."""
    while sys.platform == "linux":
        received = signal.sigtimedwait({signal.SIGTERM}, _SECONDS_BETWEEN_LOOKS)
        if not parent.is_alive() or (received is not None and received.si_pid == parent.pid):
            os._exit(1)
