"""What distances are usual, against a plain look at every pair of photographs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from predilect.evaluation.fitted_parts import Familiarity
from predilect.evaluation.novelty import fit_novelty
from predilect.insight.familiarity import familiarity_of, novelty_of_folds
from predilect.run import WEIGHTS_FILE, Run
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed

K = 5


@pytest.fixture(scope="module")
def folds(made_run):
    return TrainedFolds.of(made_run.run, made_run.atlas, made_run.splits)


def fifth_of_others(queries, own, answering, groups):
    """(Q,) Euclidean distances to the fifth nearest that is of another group."""
    apart = cdist(queries.astype(float), answering.astype(float))
    apart[own[:, None] == groups[None]] = np.inf
    return np.sort(apart, axis=1)[:, K - 1]


def test_held_out_photographs_are_held_against_those_that_their_network_was_fitted_on(folds, fabric):
    told, expected, of_groups = [], [], []
    found = novelty_of_folds(folds, "mtl", fabric=fabric, on_progress=lambda *steps: told.append(steps))
    groups = folds.truth.group_indices()
    total = 0
    for fold in range(3):
        learnt, tested = folds.fitted_on("mtl", fold), folds.tested(fold)
        assert not set(groups[learnt]) & set(groups[tested])
        assert len(learnt) == folds.run.fold_result("mtl", 1, fold)["n_train"] < len(folds.learnt(fold))
        network = folds.network("mtl", 1, fold)
        own, new = (embed(fabric, network, folds.atlas.images(), rows) for rows in (learnt, tested))
        usual = np.median(fifth_of_others(own, groups[learnt], own, groups[learnt]))
        expected.append(fifth_of_others(new, groups[tested], own, groups[learnt]) / usual)
        of_groups.append(groups[tested])
        total += len(learnt) + len(tested)
    wanted = fit_novelty(np.concatenate(expected), np.concatenate(of_groups))
    assert found.n_groups == wanted.n_groups == len(np.unique(groups))
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-4)
    assert found.beyond == wanted.beyond
    assert told[-1] == (total, total)


def test_the_scale_of_a_network_that_learnt_from_all_is_the_median_among_all(folds, fabric, made_run):
    novelty = novelty_of_folds(folds, "mtl", fabric=fabric)
    embeddings = embed(fabric, made_run.bundle.network(), folds.atlas.images(), np.arange(len(folds.atlas)))
    groups = folds.truth.group_indices()
    found = familiarity_of(novelty, embeddings, folds.truth)
    assert found == Familiarity(novelty, found.usual)
    assert found.usual == pytest.approx(np.median(fifth_of_others(embeddings, groups, embeddings, groups)), rel=1e-4)


def test_without_a_scale_there_is_a_reason(folds, fabric, monkeypatch):
    novelty = novelty_of_folds(folds, "mtl", fabric=fabric)
    assert "no difference" in familiarity_of(novelty, np.ones((len(folds.atlas), 4), dtype=np.float32), folds.truth)
    monkeypatch.setattr("predilect.insight.familiarity.NEAREST", 40)
    assert "too few groups" in novelty_of_folds(folds, "mtl", fabric=fabric)


def test_weights_that_were_removed_are_a_reason(folds, fabric, tmp_path):
    shutil.copytree(folds.run.path, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (run.fold_folder("mtl", 1, 1) / WEIGHTS_FILE).unlink()
    found = novelty_of_folds(TrainedFolds(run, folds.atlas, folds.truth, folds.folds), "mtl", fabric=fabric)
    assert found == "the weights of fold 1 are no longer in the run"
