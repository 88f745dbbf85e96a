"""Trainings of the small atlas, and what to compare of them."""

from __future__ import annotations

import json

import numpy as np
import torch

from predilect.training.data import TrainingData
from predilect.training.loop import fit
from predilect.vision.network import build_network

ALL = ("lesion", "site")


def training_data(atlas, tasks=ALL, n_train=24, n_validation=12):
    truth = atlas.truth(None)
    return TrainingData(
        images=atlas.images(),
        labels={task: torch.from_numpy(truth.values[task].copy()) for task in tasks},
        train_rows=np.arange(n_train),
        validation_rows=np.arange(n_train, n_train + n_validation),
    )


def train(fabric, atlas, recipe, folder, *, tasks=ALL, seed=1, identity="i", dropout=0.0, **options):
    network = build_network(atlas.labels.restricted_to(tasks), recipe, seed)
    network.backbone.drop_rate = dropout
    data = options.pop("data", None) or training_data(atlas, tasks)
    fitted = fit(fabric, network, data, recipe, seed=seed, folder=folder, identity=identity, **options)
    return network, fitted


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def log_lines(folder):
    """The log without what depends on the clock."""
    return [
        {key: value for key, value in json.loads(line).items() if key != "images_per_second"}
        for line in (folder / "log.jsonl").read_text().splitlines()
    ]
