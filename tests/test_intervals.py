"""The bootstrap against a loop that repeats rows and calls scikit-learn, and its coverage on simulated data sets."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from predilect.evaluation import intervals
from predilect.evaluation.intervals import Ranking, bootstrap_p, holm, percentile_interval, resample_groups
from predilect.evaluation.measures import PER_CLASS, LesionMeasures
from predilect.evaluation.metrics import average_precision


def drawn(n_groups, n_resamples, seed=0):
    return np.concatenate(list(resample_groups(n_groups, n_resamples, seed)), axis=1)


def one_class(random, n_groups=40, decimals=2):
    """Photographs in groups of one to four, some of unknown label, with tied scores."""
    groups = np.repeat(np.arange(n_groups), random.integers(1, 5, n_groups))
    labels = random.choice([-1, 0, 0, 0, 1], len(groups)).astype(np.int8)
    scores = np.round(random.random(len(groups)) + 0.4 * (labels == 1), decimals).astype(np.float32)
    return scores, labels, groups


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(intervals)
    assert result.attempted >= 2
    assert result.failed == 0


def test_each_resample_draws_as_many_groups_as_there_are():
    multiplicities = drawn(7, 600)
    assert multiplicities.shape == (7, 600)
    assert (multiplicities.sum(axis=0) == 7).all()
    assert multiplicities.mean() == 1.0
    # The number of times one group is drawn is binomial(7, 1/7): variance 6/7.
    assert multiplicities.var() == pytest.approx(6 / 7, abs=0.05)


def test_a_longer_run_begins_with_a_shorter_one_and_the_seed_matters():
    assert np.array_equal(drawn(50, 700)[:, :300], drawn(50, 300))
    assert not np.array_equal(drawn(50, 300, seed=1), drawn(50, 300, seed=0))


def test_no_group_cannot_be_resampled():
    with pytest.raises(ValueError, match="no group"):
        next(resample_groups(0, 10, 0))


@pytest.mark.parametrize("decimals", [1, 7])
def test_the_bootstrap_equals_a_loop_that_repeats_rows_and_calls_scikit_learn(decimals):
    random = np.random.default_rng(3)
    scores, labels, groups = one_class(random, decimals=decimals)
    multiplicities = drawn(40, 25)
    found = Ranking.of(scores, labels, groups, 40).average_precision(multiplicities)
    for b in range(25):
        # Whole groups are repeated: each photograph as often as its group was drawn.
        rows = np.repeat(np.arange(len(groups)), multiplicities[groups, b].astype(int))
        rows = rows[labels[rows] >= 0]
        assert found[b] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-9)


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_once_each_is_plain_average_precision(seed, decimals):
    scores, labels, groups = one_class(np.random.default_rng(seed), n_groups=6, decimals=decimals)
    found = Ranking.of(scores, labels, groups, 6).average_precision(np.ones((6, 1), dtype=np.float32))
    assert found == pytest.approx(average_precision(scores[:, None], labels[:, None]), abs=1e-9, nan_ok=True)


def test_a_class_is_undefined_where_no_positive_was_drawn():
    scores = np.array([0.9, 0.4, 0.1], dtype=np.float32)
    ranking = Ranking.of(scores, np.array([0, 1, 0], dtype=np.int8), np.arange(3), 3)
    found = ranking.average_precision(np.array([[1, 3, 0], [1, 0, 2], [1, 0, 1]], dtype=np.float32))
    assert found == pytest.approx([0.5, np.nan, 1.0], nan_ok=True)
    nothing = Ranking.of(scores, np.array([0, -1, 0], dtype=np.int8), np.arange(3), 3)
    assert np.isnan(nothing.average_precision(np.ones((3, 2), dtype=np.float32))).all()


def test_more_photographs_of_the_same_groups_do_not_narrow_the_interval():
    """Each photograph eight times over, in its own group, is no more evidence; as eight groups it would wrongly seem so."""
    random = np.random.default_rng(5)
    scores, labels, groups = one_class(random, n_groups=60)
    copies = np.tile(np.arange(len(groups)), 8)
    multiplicities = drawn(60, 200)
    once = Ranking.of(scores, labels, groups, 60).average_precision(multiplicities)
    often = Ranking.of(scores[copies], labels[copies], groups[copies], 60).average_precision(multiplicities)
    assert often == pytest.approx(once, abs=1e-9)
    alone = Ranking.of(scores[copies], labels[copies], np.arange(len(copies)), len(copies)).average_precision(
        drawn(len(copies), 200)
    )
    assert np.std(alone) < 0.5 * np.std(once)


def test_the_interval_is_the_middle_of_what_is_defined():
    values = np.append(np.arange(101) / 100, [np.nan, np.nan])
    assert percentile_interval(values) == pytest.approx((0.025, 0.975, 101))
    low, high, n_defined = percentile_interval(np.full(4, np.nan))
    assert np.isnan([low, high]).all()
    assert n_defined == 0


def test_the_interval_is_moved_to_a_centre_and_stays_within_bounds():
    values = np.linspace(0.4, 0.6, 1001)
    assert percentile_interval(values, centre=0.3) == pytest.approx((0.205, 0.395, 1001))
    assert percentile_interval(values, centre=0.95)[1] == 1.0


def test_p_worked_by_hand():
    assert bootstrap_p(np.array([0.1, 0.2, 0.3])) == 2 * 1 / 4  # none on the other side
    assert bootstrap_p(np.array([0.1, -0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 * 2 / 6)
    assert bootstrap_p(-np.array([0.1, -0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 * 2 / 6)
    assert bootstrap_p(np.array([0.1, 0.2, 0.3, np.nan])) == 2 * 1 / 4  # an undefined resample is none at all
    assert bootstrap_p(np.zeros(99)) == 1.0  # equal systems: every difference is on both sides
    assert np.isnan(bootstrap_p(np.array([np.nan])))


def test_the_smallest_p_is_set_by_the_number_of_resamples():
    assert bootstrap_p(np.ones(9_999)) == pytest.approx(2e-4)


def test_holm_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_no_correction_and_bonferroni(p):
    corrected = holm(p)
    assert all(raw <= new <= min(1, raw * len(p)) + 1e-12 for raw, new in zip(p, corrected, strict=True))
    in_order = [corrected[k] for k in np.argsort(p, kind="stable")]
    assert in_order == sorted(in_order)


# --- simulations ----------------------------------------------------------------------------------------------------------

PREVALENCES = np.geomspace(0.04, 0.3, 5)
MANY_RARE = np.geomspace(0.02, 0.1, 25)


def simulated(random, n_groups, gains=(1.5,), prevalences=PREVALENCES):
    """A data set of a known population: groups of 1-3 photographs that share most labels and part of the noise."""
    groups = np.repeat(np.arange(n_groups), random.integers(1, 4, n_groups))
    n, c = len(groups), len(prevalences)
    of_group = random.random((n_groups, c))[groups]
    labels = (np.where(random.random((n, c)) < 0.2, random.random((n, c)), of_group) < prevalences).astype(np.int8)
    shared = 0.7 * random.normal(size=(n_groups, c))[groups] + 0.5 * random.normal(size=(n, c))
    scores = [(gain * labels + shared + 0.5 * random.normal(size=(n, c))).astype(np.float32) for gain in gains]
    return scores, labels, groups


def resampled(scores, labels, groups, *, seed, folds=None, n_resamples=1_000):
    measures = LesionMeasures.of(scores, labels, groups, np.ones(labels.shape[1], dtype=bool), folds)
    blocks = list(resample_groups(int(groups.max()) + 1, n_resamples, seed))
    numbers = [measures.resampled(block) for block in blocks]
    joined = {name: np.concatenate([part[name] for part in numbers], axis=-1) for name in numbers[0]}
    if folds is not None:
        joined["map_class_fold_mean"] = np.concatenate([measures.resampled_fold_mean(block) for block in blocks])
    return measures.point, joined


@pytest.mark.slow
def test_intervals_cover_what_they_promise():
    """Nominal 95 %; 400 data sets of 300 groups (16 to 110 positive groups per class), so a standard error of 1.1 %.

    Measured: 93, 93, 96, 95 and 95 % for the classes from rare to common, 93 % for mAP-class, 94 % for the mean over folds.
    """
    random = np.random.default_rng(2024)
    (scores,), labels, _ = simulated(random, 150_000)
    true = average_precision(scores, labels)
    per_class, mean, fold_mean, fold_means = [], [], [], []
    for d in range(400):
        (scores,), labels, groups = simulated(random, 300)
        point, boot = resampled(scores, labels, groups, seed=d, folds=groups % 5)
        ends = np.array([percentile_interval(values)[:2] for values in boot[PER_CLASS]])
        per_class.append((ends[:, 0] <= true) & (true <= ends[:, 1]))
        low, high, _ = percentile_interval(boot["map_class"], centre=float(point["map_class"]))
        mean.append(low <= true.mean() <= high)
        fold_mean.append(percentile_interval(boot["map_class_fold_mean"], centre=float(point["map_class_fold_mean"]))[:2])
        fold_means.append(float(point["map_class_fold_mean"]))
    covered = np.mean(per_class, axis=0)
    # AP within small folds is too high by far, so its mean over folds is held against its own expectation.
    expected = np.mean(fold_means)
    covered_fold_mean = np.mean([low <= expected <= high for low, high in fold_mean])
    assert covered.min() >= 0.89
    assert covered.max() <= 0.985
    assert 0.91 <= np.mean(mean) <= 0.98
    assert 0.91 <= covered_fold_mean <= 0.98


@pytest.mark.slow
def test_with_many_rare_classes_the_moved_interval_covers_less_than_its_name_and_the_plain_one_far_less():
    """Nominal 95 %; 300 data sets of 1,500 groups and 25 classes (20 to 226 positive groups each), so a standard error of 2 %.

    Measured: 87 % for the interval of mAP-class, which is moved to the estimate, and 76 % for the percentile interval as it is.
    What is missing is the bias of the estimate itself: over these data sets it lies 0.008 above the truth, at a spread of 0.009.
    """
    random = np.random.default_rng(2025)
    (scores,), labels, _ = simulated(random, 100_000, prevalences=MANY_RARE)
    true = average_precision(scores, labels).mean()
    moved, plain = [], []
    for d in range(300):
        (scores,), labels, groups = simulated(random, 1_500, prevalences=MANY_RARE)
        point, boot = resampled(scores, labels, groups, seed=d, n_resamples=300)
        values = boot["map_class"]
        for covered, (low, high, _) in (
            (moved, percentile_interval(values, centre=float(point["map_class"]))),
            (plain, percentile_interval(values)),
        ):
            covered.append(low <= true <= high)
    assert 0.81 <= np.mean(moved) <= 0.93
    assert 0.68 <= np.mean(plain) <= np.mean(moved) - 0.05


@pytest.mark.slow
def test_equal_systems_are_found_different_as_rarely_as_promised():
    """At 0.05; measured: 3 % for mAP-class, 4 to 7 % for single lesions, 4.5 % for any of five lesions after Holm."""
    random = np.random.default_rng(7)
    p, q = [], []
    for d in range(400):
        (first, second), labels, groups = simulated(random, 300, gains=(1.5, 1.5))
        _, a = resampled(first, labels, groups, seed=d)
        _, b = resampled(second, labels, groups, seed=d)
        p.append(bootstrap_p(a["map_class"] - b["map_class"]))
        q.append([bootstrap_p(x - y) for x, y in zip(a[PER_CLASS], b[PER_CLASS], strict=True)])
    rate, rates = np.mean(np.array(p) < 0.05), np.mean(np.array(q) < 0.05, axis=0)
    family = np.mean([min(holm(values)) < 0.05 for values in q])
    assert 0.02 <= rate <= 0.09
    assert rates.max() <= 0.1
    assert family <= 0.09


@pytest.mark.slow
def test_a_real_difference_is_found():
    random = np.random.default_rng(8)
    p = []
    for d in range(60):
        (first, second), labels, groups = simulated(random, 300, gains=(2.5, 1.5))
        _, a = resampled(first, labels, groups, seed=d)
        _, b = resampled(second, labels, groups, seed=d)
        p.append(bootstrap_p(a["map_class"] - b["map_class"]))
    assert np.mean(np.array(p) < 0.05) >= 0.9
