"""Calibration error and Brier score against scikit-learn and loops, and what calibration does to systems made up for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score

from made_calibration import LESIONS, SPACE, made, relabelled, with_values
from predilect.errors import TableError
from predilect.evaluation.answers import AnswerRule, answers_out_of_fold, fit_answer_rule
from predilect.evaluation.calibration_fit import CrossFits, calibrate_out_of_fold
from predilect.evaluation.decisions import Aim
from predilect.evaluation.evaluate_calibration import evaluate_calibration
from predilect.evaluation.intervals import percentile_interval, resample_groups
from predilect.evaluation.nesting import MatchedSeeds
from predilect.evaluation.reliability import Drawn, Outcomes, moved_interval, resample, state
from predilect.predictions import Predictions, check_matching


@pytest.fixture(scope="module")
def tables():
    return made()


@pytest.fixture(scope="module")
def result(tables):
    truth, predictions = tables
    return evaluate_calibration(truth, {"mtl": predictions}, n_resamples=40, seed=3)


def sampled(seed, n=300, decimals=6):
    random = np.random.default_rng(seed)
    said = np.round(random.beta(1, 3, n), decimals)
    return said, random.random(n) < said**1.5, random.integers(0, 60, n)


def outcomes(said, true, groups):
    return Outcomes.of(said, true, (said - true) ** 2, groups, 60)


def ece_by_loops(said, true, edges):
    place = np.searchsorted(edges, said)
    return sum(abs(said[place == b].sum() - true[place == b].sum()) for b in np.unique(place)) / len(said)


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 6]))
def test_bins_and_scores_are_scikit_learns(seed, decimals):
    said, true, groups = sampled(seed, decimals=decimals)
    each = outcomes(said, true, groups)
    found = each.resampled(np.ones((60, 1), dtype=np.float32))[:, 0]
    frequency, probability = calibration_curve(true, said, n_bins=10, strategy="quantile")
    n, mean = each.bins()
    assert mean == pytest.approx(probability)
    assert found[2 + each.n_bins :] == pytest.approx(frequency)
    assert found[0] == pytest.approx((n * np.abs(frequency - probability)).sum() / 300)
    assert found[1] == pytest.approx(brier_score_loss(true, said))
    assert np.abs(found[2 : 2 + each.n_bins]).sum() == pytest.approx(found[0])


def test_the_bootstrap_equals_a_loop_that_repeats_rows():
    said, true, groups = sampled(1)
    drawn = np.concatenate(list(resample_groups(60, 20, 5)), axis=1)
    found = resample({"a": outcomes(said, true, groups)}, resample_groups(60, 20, 5))["a"]
    edges = np.quantile(said, np.linspace(0, 1, 11)[1:-1])
    assert found.resamples.shape == (2 + 2 * 10, 20)
    for b in range(20):
        rows = np.repeat(np.arange(300), drawn[groups, b].astype(int))
        assert found.resamples[0, b] == pytest.approx(ece_by_loops(said[rows], true[rows], edges), abs=1e-6)
        assert found.resamples[1, b] == pytest.approx(brier_score_loss(true[rows], said[rows]), abs=1e-6)
    assert found.point == pytest.approx(outcomes(said, true, groups).resampled(np.ones((60, 1)))[:, 0])


def test_nothing_known_is_nothing_measured():
    each = Outcomes.of(np.array([]), np.array([], dtype=bool), np.array([]), np.array([], dtype=np.int64), 60)
    assert each.n_bins == 0
    assert np.isnan(each.resampled(np.ones((60, 3)))).all()


def test_the_interval_of_an_error_is_moved_to_it():
    drawn = Drawn(np.array([0.02]), np.linspace(0.02, 0.06, 401)[None])
    found = moved_interval(drawn, 0, enough=True, least=0.0)
    low, high, _ = percentile_interval(drawn.resamples[0])
    assert (found.low, found.high) == pytest.approx((low - 0.02, high - 0.02))
    assert moved_interval(Drawn(np.array([0.005]), drawn.resamples), 0, enough=True, least=0.0).low == 0.0
    assert moved_interval(drawn, 0, enough=False).low is None


def test_the_error_of_right_probabilities_is_what_chance_makes_it():
    """`ece_by_chance` of probabilities from which the truth was drawn, group by group, against their error, over data sets."""
    errors, by_chance = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(100), 4)
        said = random.beta(1, 3, 100)[groups]
        true = random.random(100)[groups] < said  # a group shows it throughout or not at all
        each = Outcomes.of(said, true, (said - true) ** 2, groups, 100)
        drawn = resample({"a": each}, resample_groups(100, 100, seed))["a"]
        found = state([drawn], each, drawn, enough=True)
        errors.append(found.ece.value)
        by_chance.append(found.ece_by_chance)
    assert np.mean(by_chance) == pytest.approx(np.mean(errors), rel=0.1)
    assert np.mean(errors) > 0.05


def test_calibration_lowers_error_and_score_of_a_system_too_sure_of_itself(result):
    system = result.systems["mtl"]
    for name in ("common", "seldom", "by a model"):
        item = system.lesions[name]
        assert item.after.ece.value < 0.6 * item.before.ece.value
        assert item.ece_change.high < 0
        assert item.brier_change.high < 0
        assert item.after.brier.value < item.base_rate_brier
    assert system.site.ece_change.high < 0
    assert system.mean.n_lesions == 2  # neither the rare one nor the model's
    assert system.mean.ece_after.high < system.mean.ece_before.low


def test_points_are_means_over_seeds_of_what_scikit_learn_says(tables, result):
    truth, predictions = tables
    after = calibrate_out_of_fold(predictions, truth).predictions.by_seed()
    before = {seed: check_matching(part, truth) for seed, part in predictions.by_seed().items()}
    found = result.systems["mtl"].lesions["seldom"]
    known = truth.values["lesion"][:, 1] >= 0
    true = truth.values["lesion"][known, 1]
    for side, parts in (("before", before), ("after", after)):
        said = [part.scores["lesion"][known, 1].astype(np.float64) for part in parts.values()]
        state = getattr(found, side)
        assert state.brier.value == pytest.approx(np.mean([brier_score_loss(true, p) for p in said]))
        ece = [ece_by_loops(p, true, np.quantile(p, np.linspace(0, 1, 11)[1:-1])) for p in said]
        assert state.ece.value == pytest.approx(np.mean(ece))
        frequency, probability = calibration_curve(np.tile(true, 2), np.concatenate(said), n_bins=10, strategy="quantile")
        assert [each.probability for each in state.bins] == pytest.approx(probability)
        assert [each.frequency.value for each in state.bins] == pytest.approx(frequency)
        assert sum(each.n for each in state.bins) == pytest.approx(known.sum())
    assert found.ece_change.value == pytest.approx(found.after.ece.value - found.before.ece.value)


def test_the_site_is_judged_by_its_most_probable_one_and_its_brier_score_over_all(tables, result):
    truth, predictions = tables
    known = (truth.values["site"] == 1).any(axis=1)
    labels = truth.values["site"][known]
    parts = [check_matching(part, truth).scores["site"][known].astype(np.float64) for part in predictions.by_seed().values()]
    found = result.systems["mtl"].site
    brier = [brier_score_loss(labels, p / p.sum(axis=1, keepdims=True), scale_by_half=False) for p in parts]
    assert found.before.brier.value == pytest.approx(np.mean(brier), abs=1e-6)
    right = [(p.argmax(axis=1) == labels.argmax(axis=1)).mean() for p in parts]
    said = [(each.frequency.value, each.n) for each in found.before.bins]
    assert sum(value * n for value, n in said) / known.sum() == pytest.approx(np.mean(right))
    shares = labels.mean(axis=0)
    assert found.base_rate_brier == pytest.approx(1 - (shares**2).sum())
    assert (found.method, found.n_known) == ("temperature", known.sum())


def test_decisions_are_counted_as_scikit_learn_counts_them(tables, result):
    truth, predictions = tables
    answers = answers_out_of_fold(CrossFits(MatchedSeeds.of(predictions, truth)), Aim(), 0.1)
    known = truth.values["lesion"][:, 0] >= 0
    true = truth.values["lesion"][known, 0]
    decided = [each.decided[known, 0] for each in answers.values()]
    found = result.systems["mtl"].decisions["common"]
    for metric, score in (("sensitivity", recall_score), ("precision", precision_score), ("f1", f1_score)):
        assert getattr(found, metric).value == pytest.approx(np.mean([score(true, each) for each in decided]))
    assert found.specificity.value == pytest.approx(np.mean([recall_score(true, each, pos_label=0) for each in decided]))
    rare = result.systems["mtl"].decisions["rare"]
    assert (rare.threshold, rare.sensitivity.value) == (None, None)
    assert result.systems["mtl"].decisions["by a model"].machine_made


def test_sets_do_about_what_they_promise(tables, result):
    truth, predictions = tables
    sets = result.systems["mtl"].sets
    assert sets.miss_rate.low < 0.12
    assert 0.05 < sets.miss_rate.value < 0.13
    answers = answers_out_of_fold(CrossFits(MatchedSeeds.of(predictions, truth)), Aim(), 0.1).values()
    assert sets.mean_size.value == pytest.approx(np.mean([each.possible.sum(axis=1) for each in answers]))
    assert sets.share_unsure.value == pytest.approx(np.mean([each.unsure for each in answers]))
    assert sets.share_empty.value == pytest.approx(np.mean([~each.possible.any(axis=1) for each in answers]))
    shown = (truth.values["lesion"][:, :3] == 1).any(axis=1)
    assert sets.n_groups == len(set(truth.groups[shown]))


@pytest.mark.parametrize("fold", range(3))
def test_answers_for_a_fold_never_depend_on_its_labels(fold):
    truth, predictions = made(200, folds=3)
    fits = CrossFits(MatchedSeeds.of(predictions, truth))
    here = fits.matched.rows(only=[fold])
    rest = fits.matched.rows(without=[fold])
    before = answers_out_of_fold(fits, Aim(), 0.1)
    after = answers_out_of_fold(CrossFits(MatchedSeeds.of(predictions, relabelled(truth, here))), Aim(), 0.1)
    for seed in (1, 2):
        one, other = before[seed], after[seed]
        for a, b in (
            (one.probabilities["lesion"], other.probabilities["lesion"]),
            (one.probabilities["site"], other.probabilities["site"]),
            (one.decided, other.decided),
            (one.possible, other.possible),
            (one.unsure, other.unsure),
        ):
            assert np.array_equal(a[here], b[here])
        assert not np.array_equal(one.possible[rest], other.possible[rest])


def test_a_rule_for_a_bundle_applies_its_parts_and_comes_back_from_json(tables):
    truth, predictions = tables
    rule = fit_answer_rule(predictions, truth, aim=Aim("sensitivity", 0.9), max_miss_rate=0.2)
    answers = rule.apply({task: values[:50] for task, values in predictions.scores.items()})
    p = rule.calibration.apply({"lesion": predictions.scores["lesion"][:50]})["lesion"]
    assert np.array_equal(answers.decided, rule.thresholds.apply(p))
    assert np.array_equal(answers.possible, rule.sets.apply(p))
    assert np.array_equal(answers.unsure, rule.sets.unsure(answers.decided, answers.possible))
    assert set(answers.probabilities) == {"lesion", "site"}
    assert AnswerRule.from_json(rule.to_json()) == rule
    rule.check_labels(SPACE)
    with pytest.raises(ValueError, match="of the same lesions"):
        AnswerRule.from_json({**rule.to_json(), "sets": None})


def test_thresholds_and_sets_follow_probabilities_that_no_fold_calibrated_itself(tables):
    """Fitted on probabilities of its own making, a rule would promise more than it keeps."""
    truth, predictions = tables
    rule = fit_answer_rule(predictions, truth)
    nested = calibrate_out_of_fold(predictions, truth).predictions.scores["lesion"]
    own = rule.calibration.apply({"lesion": predictions.scores["lesion"]})["lesion"]
    assert rule.sets.threshold in nested[:, :3]
    assert not np.array_equal(nested, own)


def test_a_system_of_one_task_has_only_its_part():
    truth, predictions = made(200, seeds=(1,), folds=3)
    parts = {}
    for task in SPACE.names:
        scores = {task: predictions.scores[task]}
        parts[task] = Predictions(
            predictions.image_ids, SPACE.restricted_to([task]), scores, predictions.folds, predictions.seeds, task
        )
    found = evaluate_calibration(truth, parts, n_resamples=3).systems
    assert found["lesion"].site is None
    assert (found["site"].lesions, found["site"].mean, found["site"].decisions, found["site"].sets) == ({}, None, {}, None)
    both = evaluate_calibration(truth, {"mtl": predictions}, n_resamples=3).systems["mtl"]
    assert found["lesion"].lesions == both.lesions
    assert found["site"].site == both.site
    rule = fit_answer_rule(parts["site"], truth)
    assert rule.apply({"site": predictions.scores["site"][:3]}).unsure is None


def test_two_folds_are_calibrated_but_decide_nothing():
    truth, predictions = made(200, folds=2)
    found = evaluate_calibration(truth, {"mtl": predictions}, n_resamples=3)
    assert found.n_folds == 2
    assert found.systems["mtl"].mean is not None
    assert (found.systems["mtl"].decisions, found.systems["mtl"].sets) == ({}, None)
    with pytest.raises(TableError, match="names 2 folds; at least 3"):
        answers_out_of_fold(CrossFits(MatchedSeeds.of(predictions, truth)), Aim(), 0.1)


def test_few_groups_have_numbers_without_intervals(result):
    rare = result.systems["mtl"].lesions["rare"]
    assert (rare.method, rare.n_folds_as_they_were) == ("none", 5)
    assert rare.n_positive_groups < 10
    assert rare.before == rare.after
    assert rare.ece_change.value == 0
    assert (rare.before.ece.low, rare.before.ece_by_chance, rare.before.bins[0].frequency.low) == (None, None, None)


def test_a_lesion_of_which_nothing_is_known_has_no_numbers(tables):
    truth, predictions = tables
    lesion = truth.values["lesion"].copy()
    lesion[:, LESIONS.index("rare")] = -1
    found = evaluate_calibration(with_values(truth, lesion=lesion), {"mtl": predictions}, n_resamples=3)
    rare = found.systems["mtl"].lesions["rare"]
    assert (rare.n_known, rare.base_rate_brier, rare.before.ece.value, rare.before.bins) == (0, None, None, ())
    assert "NaN" not in found.model_dump_json()


def test_other_systems_and_the_order_of_rows_change_nothing(tables, result):
    truth, predictions = tables
    random = np.random.default_rng(1)
    shuffled = predictions.take(random.permutation(len(predictions)))
    other = evaluate_calibration(truth, {"other": made(sure=1.0)[1], "mtl": shuffled}, n_resamples=40, seed=3)
    assert other.systems["mtl"] == result.systems["mtl"]


def test_misuse(tables):
    truth, predictions = tables
    for arguments in ({"systems": {}}, {"n_resamples": 0}, {"max_miss_rate": 1.0}):
        with pytest.raises(ValueError, match="found"):
            evaluate_calibration(truth, **{"systems": {"mtl": predictions}, **arguments})
