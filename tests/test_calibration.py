"""Calibration against scikit-learn and scipy, what it rests on, and that no fold sees its own labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from made_calibration import LESIONS, SITES, SPACE, made, relabelled, with_values
from predilect.errors import TableError
from predilect.evaluation.calibration import Calibration, Isotonic, LesionCalibration, Platt, SiteCalibration
from predilect.evaluation.calibration_fit import CrossFits, calibrate_out_of_fold, fit_calibration
from predilect.evaluation.calibration_methods import count_groups
from predilect.evaluation.metrics import average_precision
from predilect.evaluation.nesting import MatchedSeeds
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, check_matching

ONE = LabelSpace((Task("lesion", ("crust",)),))
SITE = LabelSpace((Task("site", SITES),))


@pytest.fixture(scope="module")
def tables():
    return made()


@pytest.fixture(scope="module")
def folded(tables):
    truth, predictions = tables
    return calibrate_out_of_fold(predictions, truth)


def fitted(scores, labels, groups=None):
    """The calibration of one lesion; each photograph its own group unless told otherwise."""
    scores, labels = np.asarray(scores, dtype=np.float32)[:, None], np.asarray(labels, dtype=np.int8)[:, None]
    groups = np.arange(len(scores)) if groups is None else groups
    return fit_calibration(ONE, {"lesion": scores}, {"lesion": labels}, groups).lesions[0]


def on_all(predictions, truth):
    return CrossFits(MatchedSeeds.of(predictions, truth)).without([])


def drawn(n, seed=0, *, stretch=2.0, decimals=7, shift=-0.5):
    random = np.random.default_rng(seed)
    z = random.normal(size=n) + shift
    return np.round(expit(stretch * z), decimals).astype(np.float32), (random.random(n) < expit(z)).astype(np.int8)


def fitted_site(scores, sites, n_groups=None):
    labels = np.eye(3, dtype=np.int8)[sites]
    groups = np.arange(len(scores)) % (n_groups or len(scores))
    return fit_calibration(SITE, {"site": scores.astype(np.float32)}, {"site": labels}, groups).site


# --- against scikit-learn and scipy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [7, 2])
def test_the_points_of_the_curve_are_the_centres_of_scikit_learns_steps(decimals):
    scores, labels = drawn(3_000, decimals=decimals)
    curve = fitted(scores, labels).curve
    bounds = 1 / (np.sum(labels == 0) + 2), (labels.sum() + 1) / (labels.sum() + 2)
    steps = IsotonicRegression(y_min=bounds[0], y_max=bounds[1]).fit(scores.astype(np.float64), labels).predict(scores)
    heights = np.unique(np.round(steps, 12))
    centres = np.array([scores[np.round(steps, 12) == height].astype(np.float64).mean() for height in heights])
    inner = (centres > 0) & (centres < 1)  # a step whose scores are all 0 stands at the end itself
    assert inner.sum() > 10
    assert curve.scores[1:-1] == pytest.approx(centres[inner], abs=1e-9)
    assert curve.probabilities[1:-1] == pytest.approx(heights[inner], abs=1e-9)


def test_the_curve_ends_halfway_to_certainty():
    scores, labels = drawn(2_000)
    curve = fitted(scores, labels).curve
    assert (curve.scores[0], curve.scores[-1]) == (0.0, 1.0)
    assert curve.probabilities[0] == pytest.approx(curve.probabilities[1] / 2)
    assert 1 - curve.probabilities[-1] == pytest.approx((1 - curve.probabilities[-2]) / 2)


def test_no_step_claims_more_than_the_groups_allow():
    # Perfectly separated: 300 groups say 0, 400 say 1, and neither is taken for certain.
    curve = fitted(np.r_[np.linspace(0.1, 0.2, 300), np.linspace(0.8, 0.9, 400)], np.r_[np.zeros(300), np.ones(400)]).curve
    assert curve.probabilities[1:-1] == pytest.approx([1 / 302, 401 / 402])


def test_platt_equals_scikit_learns_unpenalised_regression_on_platts_targets():
    scores, labels = drawn(900, shift=-3.5)
    n_positive, n_negative = labels.sum(), (labels == 0).sum()
    assert 10 <= n_positive < 200
    found = fitted(scores, labels).curve
    # A target between 0 and 1 is the same photograph twice, once with each label, weighted.
    target = np.where(labels == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    z = np.tile(logit(scores.astype(np.float64)), 2)[:, None]
    y, weight = np.repeat([1, 0], len(scores)), np.concatenate([target, 1 - target])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(z, y, sample_weight=weight)
    assert (found.intercept, found.slope) == pytest.approx((model.intercept_[0], model.coef_[0, 0]), abs=1e-4)
    assert found.apply(scores) == pytest.approx(model.predict_proba(z[: len(scores)])[:, 1], abs=1e-5)


def test_the_temperature_is_where_the_likelihood_is_flat():
    random = np.random.default_rng(4)
    z = 1.5 * random.normal(size=(800, 3))
    sites = (softmax(z, axis=1).cumsum(axis=1) < random.random((800, 1))).sum(axis=1)
    scores = softmax(3 * z, axis=1)

    def slope(cold):
        told = softmax(cold * np.log(scores), axis=1)
        return (np.log(scores)[np.arange(800), sites] - (told * np.log(scores)).sum(axis=1)).sum()

    found = fitted_site(scores, sites)
    assert found.temperature == pytest.approx(1 / brentq(slope, 0.01, 10), rel=1e-4)
    assert 2.5 < found.temperature < 3.6
    calibrated = Calibration((), found).apply({"site": scores.astype(np.float32)})["site"]
    assert calibrated == pytest.approx(softmax(np.log(scores) / found.temperature, axis=1), abs=1e-6)


# --- order ------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([30, 450]), st.sampled_from([2, 4]), st.sampled_from([-1, 1]))
def test_the_order_of_photographs_stays_whatever_the_labels(seed, n, decimals, sign):
    """Also where the network is wrong throughout, and where scores are exactly 0 or 1."""
    random = np.random.default_rng(seed)
    scores = np.clip(np.round(random.random(n) * 1.2 - 0.1, decimals), 0, 1)
    labels = random.random(n) < expit(sign * 5 * (scores - 0.5))
    curve = fitted(scores, labels).curve
    grid = np.unique(scores.astype(np.float32)).astype(np.float64)
    if curve is None:
        assert min(labels.sum(), (~labels).sum()) < 10
    else:
        told = curve.apply(grid)
        assert (np.diff(told) > 0).all()
        assert ((told > 0) & (told < 1)).all()


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_average_precision_stays_as_it_is(method):
    scores, labels = drawn(2_000 if method == "isotonic" else 150)
    lesion = fitted(scores, labels)
    assert lesion.method == method
    calibrated = Calibration((lesion,), None).apply({"lesion": scores[:, None]})["lesion"]
    assert not np.allclose(calibrated[:, 0], scores, atol=0.05)
    assert average_precision(calibrated, labels[:, None]) == pytest.approx(average_precision(scores[:, None], labels[:, None]))


def test_steps_would_have_lost_the_order():
    """What the curve is there for: scikit-learn's staircase turns most photographs into ties."""
    scores, labels = drawn(2_000)
    steps = IsotonicRegression().fit_transform(scores, labels)
    curve = fitted(scores, labels).curve.apply(scores)
    assert len(np.unique(steps)) < 60
    assert len(np.unique(curve)) == len(np.unique(scores))
    # In the middle both say the same of the same photographs, on average.
    assert curve.mean() == pytest.approx(steps.mean(), abs=0.01)


def test_sites_keep_their_order_and_sum_to_one(tables):
    truth, predictions = tables
    found = on_all(predictions, truth).apply({"site": predictions.scores["site"]})["site"]
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found.argsort(axis=1) == predictions.scores["site"].argsort(axis=1)).all()


# --- what it rests on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_positive", "n_negative", "method"),
    [(200, 200, "isotonic"), (199, 300, "platt"), (300, 199, "platt"), (10, 10, "platt"), (9, 300, "none"), (300, 9, "none")],
)
def test_the_method_follows_the_number_of_groups(n_positive, n_negative, method):
    groups = np.repeat(np.arange(n_positive + n_negative), 3)  # three photographs each, which add no group
    labels = np.repeat(np.r_[np.ones(n_positive), np.zeros(n_negative)], 3)
    found = fitted(np.random.default_rng(1).random(len(groups)), labels, groups)
    assert (found.method, found.n_positive_groups, found.n_negative_groups) == (method, n_positive, n_negative)


def test_a_group_may_be_positive_and_negative_and_unknown_ones_are_neither():
    assert count_groups(np.array([1, 0, -1, 1, -1]), np.array([7, 7, 7, 8, 9])) == (2, 1)


def test_unknown_labels_are_left_out():
    scores, labels = drawn(1_200)
    labels[::4] = -1
    found = fitted(scores, labels)
    assert found == fitted(np.where(labels == -1, 0.99, scores), labels)
    kept = labels >= 0
    assert found == fitted(scores[kept], labels[kept])


def test_machine_made_labels_are_calibrated_and_flagged(tables):
    truth, predictions = tables
    found = {item.name: item for item in on_all(predictions, truth).lesions}
    assert [item.method for item in found.values()] == ["isotonic", "platt", "none", "isotonic"]
    assert [item.machine_made for item in found.values()] == [False, False, False, True]


def test_a_lesion_without_enough_groups_keeps_its_scores(tables, folded):
    predictions = tables[1]
    rare = LESIONS.index("rare")
    assert all(calibration.lesions[rare].method == "none" for calibration in folded.by_fold.values())
    assert np.array_equal(folded.predictions.scores["lesion"][:, rare], predictions.scores["lesion"][:, rare])


def test_it_tells_of_which_classes_the_scores_stand():
    lesions = (LesionCalibration("papule", Platt(0.0, 1.0), 60, 60, False), LesionCalibration("crust", None, 3, 60, False))
    for temperature in (2.0, None):
        calibration = Calibration(lesions, SiteCalibration(("arm", "face"), temperature, 60))
        found = [calibration.covers(task, name) for task, name in (("lesion", "papule"), ("lesion", "crust"), ("site", "arm"))]
        assert found == [True, False, temperature is not None]


def test_a_class_of_one_value_is_not_calibrated():
    scores = np.linspace(0, 1, 500)
    for value in (0, 1, -1):
        assert fitted(scores, np.full(500, value)).method == "none"


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [400, 40])
def test_a_network_that_always_says_the_same_is_given_the_base_rate(score, n):
    labels = np.arange(n) % 2
    curve = fitted(np.full(n, score), labels).curve
    assert curve.apply(np.array([score]))[0] == pytest.approx(0.5, abs=0.01)


def test_platt_stays_finite_where_scores_separate_and_rising_where_they_mislead():
    labels = np.r_[np.zeros(15), np.ones(15)]
    apart = fitted(np.r_[np.full(15, 0.1), np.full(15, 0.9)], labels).curve
    assert apart.apply(np.array([0.1, 0.9])) == pytest.approx([1 / 17, 16 / 17], abs=1e-3)
    misled = fitted(np.linspace(0.99, 0.01, 30), labels).curve
    assert misled.slope == pytest.approx(0.01)
    assert misled.apply(np.array([0.01, 0.99])) == pytest.approx([0.5, 0.5], abs=0.03)


def test_certain_scores_are_within_reach():
    curve = Platt(0.0, 1.0)
    low, high = curve.apply(np.array([0.0, 1.0], dtype=np.float32))
    assert 0 < low < 1e-6
    assert 1 - 1e-6 < high < 1


@pytest.mark.parametrize(("n_groups", "sites", "method"), [(9, 3, "none"), (10, 3, "temperature"), (50, 1, "none")])
def test_the_temperature_asks_for_ten_groups_and_two_sites(n_groups, sites, method):
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    found = fitted_site(scores, np.arange(50) % sites, n_groups)
    assert (found.method, found.n_groups) == (method, n_groups)
    if method == "none":
        assert np.array_equal(Calibration((), found).apply({"site": scores})["site"], scores.astype(np.float32))


def test_a_site_score_that_ran_out_of_digits_has_a_calibration():
    scores = np.tile(np.array([[1.0, 0.0, 0.0]], dtype=np.float32), (30, 1))
    found = fitted_site(scores, np.arange(30) % 3)
    assert found.temperature == pytest.approx(20, rel=1e-3)
    assert np.isfinite(Calibration((), found).apply({"site": scores})["site"]).all()


# --- nesting ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(5))
def test_what_is_said_of_a_fold_never_depends_on_its_labels(tables, folded, fold):
    truth, predictions = tables
    matched = MatchedSeeds.of(predictions, truth)
    here = matched.rows(only=[fold])
    other = calibrate_out_of_fold(predictions, relabelled(truth, here))
    own = folded.predictions.folds == fold
    for task in ("lesion", "site"):
        assert np.array_equal(other.predictions.scores[task][own], folded.predictions.scores[task][own])
    assert other.by_fold[fold] == folded.by_fold[fold]
    # And the labels do matter elsewhere, or this would prove nothing.
    assert all(other.by_fold[k] != folded.by_fold[k] for k in range(5) if k != fold)


def test_each_fold_is_calibrated_by_the_others_all_seeds_pooled(tables, folded):
    truth, predictions = tables
    by_seed = {seed: check_matching(part, truth) for seed, part in predictions.by_seed().items()}
    rest = by_seed[1].folds != 3
    scores = {task: np.concatenate([part.scores[task][rest] for part in by_seed.values()]) for task in SPACE.names}
    values = {task: np.concatenate([truth.values[task][rest]] * 2) for task in SPACE.names}
    expected = fit_calibration(SPACE, scores, values, np.tile(truth.group_indices()[rest], 2))
    assert folded.by_fold[3] == expected
    found = folded.predictions.by_seed()[2]
    assert found.image_ids.tolist() == truth.image_ids.tolist()
    assert np.array_equal(found.scores["lesion"][~rest], expected.apply(by_seed[2].scores)["lesion"][~rest])


def test_scores_calibrated_within_the_other_folds_see_neither_fold(tables):
    truth, predictions = tables
    fits = CrossFits(MatchedSeeds.of(predictions, truth))
    rows = fits.matched.rows(without=[0])
    before = fits.nested(rows, left_out=[0])
    changed = np.concatenate([fits.matched.rows(only=[0]), fits.matched.rows(only=[1])])
    after = CrossFits(MatchedSeeds.of(predictions, relabelled(truth, changed))).nested(rows, left_out=[0])
    in_1 = fits.matched.folds[rows] == 1
    for seed in (1, 2):
        assert np.array_equal(before[seed]["lesion"][in_1], after[seed]["lesion"][in_1])
        assert not np.array_equal(before[seed]["lesion"][~in_1], after[seed]["lesion"][~in_1])


def test_the_order_of_rows_and_seeds_changes_nothing(tables, folded):
    truth, predictions = tables
    random = np.random.default_rng(2)
    found = calibrate_out_of_fold(predictions.take(random.permutation(len(predictions))), truth)
    assert found.by_fold == folded.by_fold
    assert np.array_equal(found.predictions.scores["lesion"], folded.predictions.scores["lesion"])


def test_tables_that_cannot_be_nested_are_refused(tables):
    truth, predictions = tables
    bare = Predictions(predictions.image_ids, SPACE, predictions.scores, None, predictions.seeds, "p.csv")
    with pytest.raises(TableError, match=r"p\.csv names no folds; at least 2 are needed"):
        calibrate_out_of_fold(bare, truth)
    assert on_all(bare, truth) == on_all(predictions, truth)
    one = Predictions(predictions.image_ids, SPACE, predictions.scores, np.zeros_like(predictions.folds), predictions.seeds)
    with pytest.raises(TableError, match="names one fold; at least 2"):
        calibrate_out_of_fold(one, truth)
    torn = Predictions(predictions.image_ids, SPACE, predictions.scores, np.arange(len(predictions)) % 2, predictions.seeds)
    with pytest.raises(TableError, match=r"held out in fold|of one group but lie in folds"):
        calibrate_out_of_fold(torn, truth)


def test_a_fold_whose_others_lack_positives_is_left_as_it_is(tables):
    truth, predictions = tables
    lesion = truth.values["lesion"].copy()
    folds = check_matching(predictions.by_seed()[1], truth).folds
    lesion[~np.isin(folds, [2, 3]) & (lesion[:, 0] == 1), 0] = 0  # all positives lie in folds 2 and 3
    found = calibrate_out_of_fold(predictions, with_values(truth, lesion=lesion))
    assert [found.by_fold[fold].lesions[0].method for fold in range(5)] == ["platt", "platt", "none", "none", "platt"]


# --- as JSON ----------------------------------------------------------------------------------------------------------------


def test_json_gives_back_the_same_calibration_and_the_same_scores(tables):
    truth, predictions = tables
    calibration = on_all(predictions, truth)
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert again == calibration
    for task, values in calibration.apply(predictions.scores).items():
        assert np.array_equal(again.apply(predictions.scores)[task], values)


GOOD = Calibration(
    (
        LesionCalibration("a", Isotonic((0.0, 0.5, 1.0), (0.1, 0.2, 0.6)), 300, 400, machine_made=False),
        LesionCalibration("b", Platt(-0.5, 0.8), 20, 700, machine_made=True),
        LesionCalibration("c", None, 3, 700, machine_made=False),
    ),
    SiteCalibration(("arm", "leg"), 1.5, 500),
)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("lesions", 0, "curve", "scores"), [0.0, 0.5, 0.9], "rise from 0 to 1"),
        (("lesions", 0, "curve", "scores"), [0.0, 1.0], "one for each probability"),
        (("lesions", 0, "curve", "probabilities"), [0.1, 0.3, 0.3], "probabilities of a curve rise"),
        (("lesions", 0, "curve", "probabilities"), [0.0, 0.3, 0.4], "lie between 0 and 1"),
        (("lesions", 0, "curve", "method"), "spline", "'isotonic', 'platt'"),
        (("lesions", 1, "curve", "slope"), 0.0, "greater than 0"),
        (("lesions", 1, "curve", "slope"), "0.8", "valid number"),
        (("lesions", 1, "curve", "extra"), 1, "Unexpected"),
        (("lesions", 1, "curve", "intercept"), float("inf"), "finite"),
        (("lesions", 2, "n_positive_groups"), -1, "greater than or equal to 0"),
        (("lesions", 2, "machine_made"), 1, "valid boolean"),
        (("site", "temperature"), -1.5, "greater than 0"),
        (("site",), "warm", "site"),
    ],
)
def test_json_that_was_not_written_so_is_refused_by_its_place(place, value, message):
    stored = GOOD.to_json()
    inner = stored
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.from_json(stored)
    assert str(caught.value).startswith(str(place[0]))
    assert "\n" not in str(caught.value)
    assert Calibration.from_json(GOOD.to_json()) == GOOD


def test_a_calibration_is_of_its_classes():
    lesions, sites = Task("lesion", ("a", "b", "c")), Task("site", ("arm", "leg"))
    GOOD.check_labels(LabelSpace((lesions, sites)))
    with pytest.raises(ValueError, match="of the site classes"):
        GOOD.check_labels(LabelSpace((lesions, Task("site", ("leg", "arm")))))
    with pytest.raises(ValueError, match="of the lesion classes"):
        GOOD.check_labels(LabelSpace((sites,)))
    with pytest.raises(ValueError, match=r"shape \(4, 2\); the calibration is of 3 classes"):
        GOOD.apply({"lesion": np.zeros((4, 2))})
