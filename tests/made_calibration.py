"""A truth and systems made up for the tests of calibration: scores that are too sure of themselves, and every kind of rarity."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import expit, softmax

from predilect.evaluation.evaluate_calibration import evaluate_calibration
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth

LESIONS = ("common", "seldom", "rare", "by a model")
SITES = ("arm", "face", "leg")
SPACE = LabelSpace((Task("lesion", LESIONS, frozenset({"by a model"})), Task("site", SITES)))
SHARES = (0.4, 0.1, 0.002, 0.4)
N_GROUPS = 600
"""Of `made`: 240, 60 and 9 positive groups or so."""


def made(n_groups=N_GROUPS, *, seeds=(1, 2), folds=5, seed=0, sure=2.0, unknown=0.05):
    """A truth of groups with one to three photographs, and one system whose log-odds are `sure` times what they should be."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), random.integers(1, 4, n_groups))
    n = len(group)
    labels, logits = [], []
    for share in SHARES:
        # Log-odds of the group and of the photograph; labels are drawn from them, so they are right before they are stretched.
        z = np.log(share / (1 - share)) + 1.2 * random.normal(size=n_groups)[group] + 0.8 * random.normal(size=n)
        labels.append(random.random(n) < expit(z))
        logits.append(z)
    lesion = np.stack(labels, axis=1).astype(np.int8)
    lesion[random.random(lesion.shape) < unknown] = -1
    of_site = 1.5 * random.normal(size=(n_groups, 3))[group]
    site_of = (softmax(of_site, axis=1).cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    site = np.eye(3, dtype=np.int8)[site_of]
    site[random.random(n) < unknown] = -1
    ids = np.array([f"{k:05}" for k in range(n)])
    truth = Truth(ids, SPACE, {"lesion": lesion, "site": site}, np.array([f"p{k:04}" for k in group]), pl.DataFrame())
    parts = []
    for number in seeds:
        noise = np.random.default_rng([seed, number])
        z = np.stack(logits, axis=1) + 0.3 * noise.normal(size=lesion.shape)
        scores = {"lesion": expit(sure * z).astype(np.float32), "site": softmax(sure * of_site, axis=1).astype(np.float32)}
        parts.append(Predictions(ids, SPACE, scores, group % folds, np.full(n, number)))
    return truth, Predictions.concatenate(parts)


def made_reliability():
    """What is measured of such a system; of few groups and few resamples, for a report."""
    truth, predictions = made(300, folds=3)
    return evaluate_calibration(truth, {"mtl": predictions}, n_resamples=20)


def with_values(truth, **values):
    """The same truth with other labels."""
    return Truth(truth.image_ids, truth.labels, {**truth.values, **values}, truth.groups, truth.covariates)


def relabelled(truth, rows, seed=1):
    """The same truth, whose labels in some rows are others, drawn at random."""
    random = np.random.default_rng(seed)
    lesion, site = truth.values["lesion"].copy(), truth.values["site"].copy()
    lesion[rows] = random.integers(-1, 2, (len(rows), lesion.shape[1]))
    site[rows] = np.eye(site.shape[1], dtype=np.int8)[random.integers(0, site.shape[1], len(rows))]
    return with_values(truth, lesion=lesion, site=site)
