"""Metrics against worked examples, scikit-learn and properties that hold whatever the scores."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from predilect.evaluation import metrics

TOLERANCE = 1e-9


@st.composite
def tables(draw, *, known_only=False, max_classes=5):
    """Scores on a coarse grid, so that ties abound, and labels with unknown cells."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, max_classes)))
    scores = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])))
    labels = draw(hnp.arrays(np.int8, shape, elements=st.integers(0 if known_only else -1, 1)))
    return scores, labels


def one_hot(sites, n_sites):
    labels = np.zeros((len(sites), n_sites), dtype=np.int8)
    labels[np.arange(len(sites)), sites] = 1
    return labels


def naive_average_precision(scores, labels, weights=None):
    known = labels >= 0
    if not (labels[known] == 1).any() or (weights is not None and not (weights * (labels == 1)).any()):
        return np.nan
    return average_precision_score(labels[known], scores[known], sample_weight=None if weights is None else weights[known])


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(metrics)
    assert result.attempted >= 9
    assert result.failed == 0


def test_eq_9_worked_by_hand():
    # Class 0: positives at ranks 1 and 3: (1/1 + 2/3) / 2 = 5/6. Class 1: the one positive at rank 4: 1/4.
    scores = np.array([[0.9, 0.9], [0.8, 0.8], [0.7, 0.7], [0.6, 0.6]])
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 1]])
    assert metrics.average_precision(scores, labels) == pytest.approx([5 / 6, 1 / 4], abs=TOLERANCE)
    assert metrics.map_class(scores, labels) == pytest.approx((5 / 6 + 1 / 4) / 2, abs=TOLERANCE)


def test_eq_10_worked_by_hand():
    # Photograph 0: positives at ranks 2 and 3 of its classes: (1/2 + 2/3) / 2 = 7/12. Photograph 1: rank 1: 1.
    # Photograph 2 has nothing and does not count. Photograph 3: its best class is unknown, so its positive ranks first.
    scores = np.array([[0.9, 0.8, 0.7], [0.1, 0.9, 0.3], [0.5, 0.4, 0.3], [0.9, 0.5, 0.1]])
    labels = np.array([[0, 1, 1], [0, 1, 0], [0, 0, 0], [-1, 1, 0]])
    assert metrics.image_average_precision(scores, labels) == pytest.approx([7 / 12, 1, np.nan, 1], abs=TOLERANCE, nan_ok=True)
    assert metrics.map_image(scores, labels) == pytest.approx((7 / 12 + 1 + 1) / 3, abs=TOLERANCE)


def test_equal_scores_are_one_threshold():
    assert metrics.average_precision([[0.5], [0.5], [0.5], [0.5]], [[1], [0], [0], [1]]).tolist() == [0.5]
    assert metrics.map_image([[0.5, 0.5, 0.5, 0.5]], [[1, 0, 0, 0]]) == 0.25


def test_unknown_cells_are_not_ranked():
    scores = np.array([[0.9], [0.8], [0.7]])
    assert metrics.average_precision(scores, [[-1], [1], [0]]).tolist() == [1.0]
    assert metrics.average_precision(scores, [[0], [1], [0]]).tolist() == [0.5]


@given(tables())
def test_average_precision_agrees_with_scikit_learn_class_by_class(table):
    scores, labels = table
    expected = [naive_average_precision(scores[:, k], labels[:, k]) for k in range(scores.shape[1])]
    assert metrics.average_precision(scores, labels) == pytest.approx(expected, abs=TOLERANCE, nan_ok=True)


@given(tables(), st.data())
def test_weights_are_repeated_photographs(table, data):
    scores, labels = table
    weights = data.draw(hnp.arrays(np.int64, len(scores), elements=st.integers(0, 3)))
    repeated = np.repeat(np.arange(len(scores)), weights)
    found = metrics.average_precision(scores, labels, weights)
    expected = [naive_average_precision(scores[:, k], labels[:, k], weights) for k in range(scores.shape[1])]
    assert found == pytest.approx(expected, abs=TOLERANCE, nan_ok=True)
    if len(repeated):
        assert found == pytest.approx(metrics.average_precision(scores[repeated], labels[repeated]), abs=TOLERANCE, nan_ok=True)


@given(tables())
def test_image_average_precision_is_average_precision_along_the_other_axis(table):
    scores, labels = table
    found = metrics.image_average_precision(scores, labels)
    assert found == pytest.approx(metrics.average_precision(scores.T, labels.T), abs=TOLERANCE, nan_ok=True)


@pytest.mark.parametrize("decimals", [1, 7])
def test_means_equal_scikit_learns_where_all_is_known(decimals):
    random = np.random.default_rng(0)
    labels = (random.random((400, 9)) < 0.2).astype(np.int8)
    labels[np.arange(400), random.integers(0, 9, 400)] = 1  # scikit-learn's `samples` wants a positive in each row
    scores = np.round(random.random((400, 9)) + 0.3 * labels, decimals)
    assert metrics.map_class(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=TOLERANCE)
    samples = average_precision_score(labels, scores, average="samples")
    assert metrics.map_image(scores, labels) == pytest.approx(samples, abs=TOLERANCE)


def test_site_metrics_equal_scikit_learns_where_nothing_is_tied():
    random = np.random.default_rng(1)
    sites = random.integers(0, 6, 500)
    scores = random.dirichlet(np.ones(6), 500) + 0.3 * one_hot(sites, 6)
    labels = one_hot(sites, 6)
    for k in (1, 3):
        assert metrics.top_k(scores, labels, k) == pytest.approx(top_k_accuracy_score(sites, scores, k=k), abs=TOLERANCE)
    expected = balanced_accuracy_score(sites, scores.argmax(axis=1))
    assert metrics.balanced_accuracy(scores, labels) == pytest.approx(expected, abs=TOLERANCE)


def test_site_recall_by_site():
    scores = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
    labels = one_hot([0, 0, 1], 3)
    assert metrics.site_recall(scores, labels, k=1) == pytest.approx([0.5, 0.0, np.nan], nan_ok=True)
    assert metrics.site_recall(scores, labels, k=2) == pytest.approx([0.5, 1.0, np.nan], nan_ok=True)


def test_a_tie_counts_against_the_site():
    even = np.full((4, 3), 1 / 3)
    labels = one_hot([0, 1, 2, 0], 3)
    assert metrics.top_k(even, labels, 1) == 0.0
    assert metrics.top_k(even, labels, 2) == 0.0
    assert metrics.top_k(even, labels, 3) == 1.0


def test_a_photograph_of_unknown_site_does_not_count():
    scores = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert metrics.top_k(scores, [[1, 0], [-1, -1]], 1) == 1.0
    assert np.isnan(metrics.top_k(scores, [[-1, -1], [-1, -1]], 1))
    assert np.isnan(metrics.balanced_accuracy(scores, [[-1, -1], [-1, -1]]))


def test_the_fold_mean_leaves_out_folds_without_a_positive_and_averages_folds_before_classes():
    scores = np.array([[0.9, 0.2], [0.8, 0.1], [0.7, 0.9], [0.6, 0.8], [0.5, 0.3]])
    labels = np.array([[0, 1], [1, 0], [0, 0], [1, 1], [0, 0]])
    folds = np.array([0, 0, 1, 1, 2])
    # Class 0: fold 0 has 1/2, fold 1 has 1/2, fold 2 nothing. Class 1: 1 and 1/2. Pooled, class 1 would have (1/2 + 2/4) / 2.
    assert metrics.fold_mean_average_precision(scores, labels, folds) == pytest.approx((0.5 + 0.75) / 2, abs=TOLERANCE)


@given(tables())
def test_one_fold_is_the_pooled_mean(table):
    scores, labels = table
    found = metrics.fold_mean_average_precision(scores, labels, np.full(len(scores), 3))
    assert found == pytest.approx(metrics.map_class(scores, labels), abs=TOLERANCE, nan_ok=True)


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_photographs_and_classes_does_not_matter(table, shuffler):
    scores, labels = table
    rows, columns = list(range(scores.shape[0])), list(range(scores.shape[1]))
    shuffler.shuffle(rows)
    shuffler.shuffle(columns)
    grid = np.ix_(rows, columns)
    found = metrics.average_precision(scores[grid], labels[grid])
    assert found == pytest.approx(metrics.average_precision(scores, labels)[columns], abs=TOLERANCE, nan_ok=True)
    images = metrics.image_average_precision(scores[grid], labels[grid])
    assert images == pytest.approx(metrics.image_average_precision(scores, labels)[rows], abs=TOLERANCE, nan_ok=True)


@given(tables())
def test_only_the_order_of_scores_matters(table):
    scores, labels = table
    stretched = np.exp(3 * scores.astype(np.float64)) - 7
    assert np.array_equal(metrics.average_precision(stretched, labels), metrics.average_precision(scores, labels), equal_nan=True)
    assert np.array_equal(
        metrics.image_average_precision(stretched, labels), metrics.image_average_precision(scores, labels), equal_nan=True
    )


@given(tables(), st.integers(-1, 0))
def test_without_a_known_positive_nothing_is_defined(table, value):
    scores, labels = table
    nothing = np.full_like(labels, value)
    assert np.isnan(metrics.average_precision(scores, nothing)).all()
    assert np.isnan(metrics.map_class(scores, nothing))
    assert np.isnan(metrics.map_image(scores, nothing))
    assert np.isnan(metrics.fold_mean_average_precision(scores, nothing, np.zeros(len(scores))))


@given(tables(known_only=True))
def test_a_perfect_ranking_has_average_precision_one_and_chance_has_the_prevalence(table):
    _, labels = table
    defined = (labels == 1).any(axis=0)
    assert metrics.average_precision(labels.astype(float), labels)[defined] == pytest.approx(1.0)
    constant = metrics.average_precision(np.zeros(labels.shape), labels)[defined]
    assert constant == pytest.approx(labels.mean(axis=0)[defined])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.average_precision([[0.5]], [[1, 0]]), r"scores have shape \(1, 1\) and labels \(1, 2\)"),
        (lambda: metrics.average_precision([0.5], [1]), r"both must be \(N, C\)"),
        (lambda: metrics.average_precision([[np.nan]], [[1]]), "not finite"),
        (lambda: metrics.average_precision([[0.5]], [[2]]), "labels are 1, 0 or -1"),
        (lambda: metrics.average_precision([[0.5]], [[1]], [0.5]), "whole numbers"),
        (lambda: metrics.average_precision([[0.5]], [[1]], [-1]), "whole numbers"),
        (lambda: metrics.fold_mean_average_precision([[0.5]], [[1]], [0, 1]), r"folds have shape \(2,\)"),
        (lambda: metrics.site_rank([[0.5, 0.5]], [[1, 1]]), "more than one site"),
    ],
)
def test_misuse_is_a_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
