"""Whatever is fitted for use after a calibration is fitted on that calibration's own scale, however few groups show a lesion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from made_calibration import made
from predilect.evaluation import calibration_fit
from predilect.evaluation.answers import answer_rule, answers_out_of_fold, fit_answer_rule
from predilect.evaluation.calibration_fit import CrossFits
from predilect.evaluation.calibration_methods import Methods
from predilect.evaluation.decisions import Aim
from predilect.evaluation.evaluate_calibration import evaluate_calibration
from predilect.evaluation.known_site import site_prior_on_all
from predilect.evaluation.nesting import MatchedSeeds
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth

LABELS = LabelSpace((Task("lesion", ("rare",)), Task("site", ("arm", "face"))))
FOUND = Aim("sensitivity", 0.9)


def few(n_positive, n_folds, offset, *, n=600, places=None):
    """Photographs of which so many show the lesion, evenly over folds; the log-odds of scores are moved by `offset`."""
    random = np.random.default_rng(n_positive)
    shows = np.arange(n) < n_positive
    z = random.normal(size=n) + 3 * shows - 6
    site = (random.random(n) < np.where(shows, 0.8, 0.4)).astype(np.int8)
    folds = np.arange(n) % n_folds if places is None else places
    ids = np.array([f"{k:04}" for k in range(n)])
    values = {"lesion": shows[:, None].astype(np.int8), "site": np.stack([1 - site, site], axis=1)}
    labels = LABELS.restricted_to(["lesion"])
    predictions = Predictions(ids, labels, {"lesion": expit(z + offset).astype(np.float32)[:, None]}, folds)
    return Truth(ids, LABELS, values, None, pl.DataFrame()), predictions


def fits_of(truth, predictions):
    return CrossFits(MatchedSeeds.of(predictions, truth))


@pytest.mark.parametrize("n_folds", [3, 5])
@pytest.mark.parametrize("n_positive", [10, 11, 12])
def test_a_lesion_with_just_enough_groups_is_decided_as_it_was_asked_for(n_positive, n_folds):
    """A line through log-odds takes away what is added to all of them, so decisions and sets must not know of it."""
    answers = {}
    for offset in (0.0, 4.0):
        truth, predictions = few(n_positive, n_folds, offset)
        rule = fit_answer_rule(predictions, truth, aim=FOUND, max_miss_rate=0.2)
        assert [item.method for item in rule.calibration.lesions] == ["platt"]
        answers[offset] = rule.apply(predictions.scores)
        assert 0.8 <= answers[offset].decided[:n_positive, 0].mean() <= 1
        assert 0.7 <= answers[offset].possible[:n_positive, 0].mean() <= 1
        assert answers[offset].decided[n_positive:, 0].mean() < 0.2
    assert np.mean(answers[0.0].decided != answers[4.0].decided) < 0.005
    assert np.mean(answers[0.0].possible != answers[4.0].possible) < 0.005


@pytest.mark.parametrize("n_folds", [3, 5])
def test_a_site_prior_is_fitted_on_the_scale_that_it_is_applied_on(n_folds):
    one, other = (site_prior_on_all(*few(11, n_folds, offset)[::-1]) for offset in (0.0, 4.0))
    assert other.intercept == pytest.approx(one.intercept, abs=0.01)
    assert other.slope == pytest.approx(one.slope, abs=0.01)
    assert other.theta[0] == pytest.approx(one.theta[0], abs=0.01)


def test_a_nested_calibration_stays_isotonic_where_the_applied_one_is():
    truth, predictions = few(230, 5, 0.0)
    fits = fits_of(truth, predictions)
    nested = fits.nested(fits.matched.rows())
    for fold in range(5):
        rows = fits.matched.rows(without=[fold])
        pooled = fits.matched.pooled(rows)
        assert sum(pooled[1]["lesion"] == 1) < 200
        curve = calibration_fit.fit_calibration(LABELS.restricted_to(["lesion"]), *pooled, Methods(("isotonic",), None))
        here = fits.matched.rows(only=[fold])
        expected = curve.apply({"lesion": predictions.scores["lesion"][here]})["lesion"]
        assert np.array_equal(next(iter(nested.values()))["lesion"][here], expected)
    assert fits.without([]).lesions[0].method == "isotonic"
    assert fits.without([0]).lesions[0].method == "platt"  # what is reported of fold 0 knows of the others alone


def test_of_what_is_reported_on_a_fold_the_others_choose_the_methods():
    truth, predictions = few(13, 5, 4.0)  # folds 0, 1 and 2 hold three of them, the others two
    fits = fits_of(truth, predictions)
    methods = [fits.without([fold]).lesions[0].method for fold in range(5)]
    assert methods == ["platt"] * 5
    few_left = fits_of(*few(12, 5, 4.0))  # folds 0 and 1 hold three
    assert [few_left.without([fold]).lesions[0].method for fold in range(5)] == ["none", "none", "platt", "platt", "platt"]
    for fold in range(5):
        rule = answer_rule(few_left, [fold], FOUND, 0.1)
        assert (rule.thresholds.lesions[0].threshold is None) == (fold < 2)


def test_a_lesion_that_lies_in_one_fold_is_calibrated_nowhere():
    """Without that fold there is nothing to fit on, so its threshold could be of no other scale than that of the scores."""
    places = np.where(np.arange(600) < 7, 0, np.arange(600) % 5)
    truth, predictions = few(11, 5, 4.0, places=places)
    rule = fit_answer_rule(predictions, truth, aim=FOUND)
    assert (rule.calibration.lesions[0].method, rule.calibration.lesions[0].n_positive_groups) == ("none", 11)
    assert rule.thresholds.lesions[0].threshold > 0.2
    assert rule.apply(predictions.scores).decided[:11, 0].mean() >= 0.9


def test_methods_count_groups_and_the_fewest_that_a_fold_leaves():
    space = LABELS.restricted_to(["lesion"])

    def method(n_positive, places):
        label = (np.arange(len(places)) < n_positive).astype(np.int8)[:, None]
        return Methods.allowed_by(space, {"lesion": label}, np.arange(len(places)), np.asarray(places)).lesions[0]

    assert method(10, [0] * 5 + [1] * 5 + [0, 1] * 20) == "platt"
    assert method(10, [0] * 6 + [1] * 4 + [0, 1] * 20) == "none"
    assert method(11, [0] * 6 + [1] * 5 + [0, 1] * 20) == "platt"
    assert method(11, [7] * 51) == "platt"  # one fold: nothing is fitted without it
    assert method(200, [0] * 101 + [1] * 99 + [0, 1] * 200) == "platt"
    assert method(200, [0] * 100 + [1] * 100 + [0, 1] * 200) == "isotonic"


def test_a_temperature_needs_two_sites_without_any_one_fold():
    space = LABELS.restricted_to(["site"])
    folds = np.arange(40) % 2
    for site, method in ((folds, "none"), (np.arange(40) // 2 % 2, "temperature")):
        values = {"site": np.eye(2, dtype=np.int8)[site]}
        assert Methods.allowed_by(space, values, np.arange(40), folds).site == method
        assert Methods.allowed_by(space, values, np.arange(40)).site == "temperature"


def test_how_many_were_decided_stands_beside_what_was_reached():
    """With twelve positive groups two folds of five leave nine, and nothing is decided in these two."""
    truth, predictions = few(12, 5, 4.0)
    found = evaluate_calibration(truth, {"mtl": predictions}, aim=FOUND, n_resamples=5).systems["mtl"].decisions["rare"]
    decided = answers_out_of_fold(fits_of(truth, predictions), FOUND, 0.1)
    (answers,) = decided.values()
    assert (found.n_known, found.n_decided) == (600, (answers.decided >= 0).sum()) == (600, 360)
    assert (found.n_positive, found.n_positive_decided) == (12, 6)
    assert found.sensitivity.value == (answers.decided[:12, 0] == 1).sum() / 6
    assert found.sensitivity.low is None  # six groups are too few for an interval


def test_threads_that_ask_at_once_wait_for_one_fit(monkeypatch):
    truth, predictions = made(60, seeds=(1,), folds=3)
    fits = fits_of(truth, predictions)
    asked, fit = [], calibration_fit.fit_calibration

    def counted(*arguments):
        asked.append(arguments)
        return fit(*arguments)

    monkeypatch.setattr(calibration_fit, "fit_calibration", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fits.without([0]), range(64)))
    assert len(asked) == 1
    assert all(each is found[0] for each in found)
