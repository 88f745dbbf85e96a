"""Time of a bootstrap by groups over 21,657 photographs and 25 lesions, against the loop people write.

    make benchmarks            all benchmarks
    .venv/bin/python -m pytest -p benchmark benchmarks/bench_bootstrap.py --benchmark-only

The loop draws groups, repeats their rows and calls scikit-learn's `average_precision_score` for all classes; it is timed for three
resamples and scaled, which is exact enough since each costs the same. Ours is timed for all 1,000, the ranking included. Both start
from the same arrays and end with AP per class and resample. `seconds_per_1000_resamples` stands in the extra columns.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.intervals import Ranking, resample_groups
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth

PHOTOGRAPHS, LESIONS, SITES, GROUPS, RESAMPLES, LOOPED = 21_657, 25, 23, 10_000, 1_000, 3
PREVALENCES = np.geomspace(0.004, 0.2, LESIONS)  # 1.3 lesions a photograph; from 90 to 4,300 positives


def made_scores(rng, labels, gain):
    return (1 / (1 + np.exp(2 - gain * labels - rng.normal(size=labels.shape)))).astype(np.float32)


@pytest.fixture(scope="module")
def table():
    """Labels, scores and groups of 1 to 3 photographs on average."""
    rng = np.random.default_rng(0)
    labels = (rng.random((PHOTOGRAPHS, LESIONS)) < PREVALENCES).astype(np.int8)
    groups = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, PHOTOGRAPHS - GROUPS)])
    return made_scores(rng, labels, 1.5), labels, groups


def our_bootstrap(scores, labels, groups):
    rankings = [Ranking.of(scores[:, k], labels[:, k], groups, GROUPS) for k in range(LESIONS)]
    blocks = resample_groups(GROUPS, RESAMPLES, seed=0)
    return np.concatenate([[ranking.average_precision(block) for ranking in rankings] for block in blocks], axis=1)  # (C, B)


def looped_bootstrap(scores, labels, groups, multiplicities):
    """What people write, on given draws so that the results can be compared."""
    return np.array(
        [
            average_precision_score(labels[rows], scores[rows], average=None)
            for rows in (np.repeat(np.arange(len(groups)), drawn[groups]) for drawn in multiplicities)
        ]
    ).T


def test_our_bootstrap_of_1000_resamples(benchmark, table):
    found = benchmark.pedantic(our_bootstrap, args=table, rounds=3, warmup_rounds=1)
    benchmark.extra_info["seconds_per_1000_resamples"] = round(benchmark.stats.stats.median, 3)
    assert found.shape == (LESIONS, RESAMPLES)


def test_the_loop_with_scikit_learn(benchmark, table):
    draws = next(resample_groups(GROUPS, LOOPED, seed=0)).T.astype(int)
    found = benchmark.pedantic(looped_bootstrap, args=(*table, draws), rounds=3, warmup_rounds=1)
    benchmark.extra_info["seconds_per_1000_resamples"] = round(benchmark.stats.stats.median * RESAMPLES / LOOPED, 1)
    assert found == pytest.approx(our_bootstrap(*table)[:, :LOOPED], abs=1e-9)


def test_a_whole_evaluation_of_three_systems(benchmark, table):
    """Everything a report needs, both tasks, 5 folds: 1,000 resamples for intervals and 10,000 for p of three pairs."""
    rng = np.random.default_rng(1)
    _, lesions, groups = table
    sites = np.eye(SITES, dtype=np.int8)[rng.integers(0, SITES, PHOTOGRAPHS)]
    labels = LabelSpace(
        (Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES))))
    )
    ids = np.array([f"{k:05}" for k in range(PHOTOGRAPHS)])
    names = np.array([f"{group:05}" for group in groups])
    truth = Truth(ids, labels, {"lesion": lesions, "site": sites}, names, pl.DataFrame())

    def system(gain):
        weights = made_scores(rng, sites, gain)
        scores = {"lesion": made_scores(rng, lesions, gain), "site": weights / weights.sum(axis=1, keepdims=True)}
        return Predictions(ids, labels, scores, folds=groups % 5)

    systems = {f"system {k}": system(1.4 + 0.1 * k) for k in range(3)}
    result = benchmark.pedantic(evaluate, args=(truth, systems), rounds=1)
    assert len(result.comparisons) == 3 * (2 + LESIONS + 3)
