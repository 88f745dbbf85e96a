"""Which photographs make a batch, and who loads them."""

from __future__ import annotations

import numpy as np
import torch

from predilect.training import data as data_module
from predilect.training.data import BatchOrder, TrainingPhotos, training_loader


def test_batches_are_permutations_one_after_another():
    rows = np.array([3, 5, 8, 9, 11])
    order = [key for batch in BatchOrder(rows, 4, 1, range(5)) for key in batch]
    assert len(order) == 20
    for epoch in range(4):
        assert sorted(row for e, row in order if e == epoch) == rows.tolist()
    resumed = [key for batch in BatchOrder(rows, 4, 1, range(3, 5)) for key in batch]
    assert resumed == order[12:]
    shared = [list(BatchOrder(rows, 4, 1, range(5), parts=2, rank=rank, world=2)) for rank in (0, 1)]
    assert sorted(key for rank in shared for batch in rank for key in batch) == sorted(order)
    assert all(len(batch) == 1 for rank in shared for batch in rank)


def test_the_loader_gives_each_row_its_own_crop(small_atlas, small_recipe):
    photos = TrainingPhotos(small_atlas.images(), small_recipe.preprocessing, 1)
    order = BatchOrder(np.arange(6), 6, 1, range(2))
    batches = list(training_loader(photos, order, 0, pin=False))
    assert [images.shape for images, _ in batches] == [(6, 3, 32, 32)] * 2
    (first, rows), (second, later) = batches
    where = {int(row): k for k, row in enumerate(later)}
    assert sorted(rows.tolist()) == list(range(6))
    assert any(not torch.equal(first[k], second[where[int(row)]]) for k, row in enumerate(rows))


def test_two_shared_cores_get_no_loader_process(monkeypatch):
    monkeypatch.setattr(data_module.os, "sched_getaffinity", lambda _: {0, 1})
    assert data_module.default_workers(torch.device("cpu")) == 0
    assert data_module.default_workers(torch.device("cuda")) == 1
    monkeypatch.setattr(data_module.os, "sched_getaffinity", lambda _: set(range(16)))
    assert data_module.default_workers(torch.device("cpu")) == 8
