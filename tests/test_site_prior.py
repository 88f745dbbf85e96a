"""The site prior: what is fitted, against other implementations; what must not move; and how it is stored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from made_known_sites import SITES, drawn
from predilect.evaluation import site_prior_fit
from predilect.evaluation.site_prior import SitePrior
from predilect.evaluation.site_prior_fit import HEAD_WEIGHTS, RECALIBRATIONS, SPREADS, fit_site_prior, given_sites
from predilect.labels.tasks import LabelSpace, Task


def fit(found, rows=slice(None), *, head=True, **options):
    truth = found.truth
    scores = {"lesion": found.lesion_scores[rows]} | ({"site": found.told[rows]} if head else {})
    values = {task: labels[rows] for task, labels in truth.values.items()}
    return fit_site_prior(truth.labels, scores, values, truth.group_indices()[rows], **options)


def given_of(found):
    return found.truth.values["site"].argmax(axis=1)


@pytest.fixture(scope="module")
def moved():
    """Lesions that the site moves."""
    return drawn(n_groups=1000, strength=0.8)


@pytest.fixture(scope="module")
def prior(moved):
    return fit(moved)


@pytest.fixture
def only(monkeypatch):
    """Leave one setting to choose from."""

    def choose(*, recalibration=1.0, weight=1.0):
        monkeypatch.setattr(site_prior_fit, "RECALIBRATIONS", (recalibration,))
        monkeypatch.setattr(site_prior_fit, "HEAD_WEIGHTS", (weight,))

    return choose


def test_what_the_site_does_is_recovered(moved, prior):
    assert prior.head_weight == 1
    assert prior.spread >= 0.4
    error = np.array(prior.theta) - moved.theta
    assert np.sqrt((error**2).mean()) < 0.3 * moved.theta.std()
    assert np.corrcoef(np.ravel(prior.theta), moved.theta.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(prior.intercept, 0, atol=0.15)
    np.testing.assert_allclose(prior.slope, 1, atol=0.15)


def test_lesions_learnt_without_the_site_leave_nothing_to_count_twice(moved, prior):
    apart = fit(drawn(n_groups=1000, strength=0.8, weight=0.0))
    assert prior.head_weight == 1
    assert apart.head_weight == 0
    assert fit(moved, head=False).head_weight == 0


def excess_without_information(n_groups, seed):
    """How much is lost where the site says nothing: exact, since the probabilities before are the true ones. In nats, a lesion."""
    free = drawn(n_groups=n_groups, strength=0.0, seed=seed)
    true = free.lesion_scores.astype(float)
    applied = fit(free).apply(free.lesion_scores, free.told, given_of(free)).astype(float)
    return float((true * np.log(true / applied) + (1 - true) * np.log((1 - true) / (1 - applied))).mean())


def test_without_information_next_to_nothing_is_lost():
    assert np.mean([excess_without_information(300, seed) for seed in range(3)]) < 1e-3
    assert excess_without_information(1200, 0) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(("n_groups", "mean", "worst"), [(300, 6e-4, 5e-3), (1200, 1e-4, 1e-3)])
def test_the_harm_without_information_is_bounded(n_groups, mean, worst):
    """A run on two cores: mean 0.00045 and most 0.0043 with 300 groups, 0.00002 and 0.0007 with 1,200."""
    found = [excess_without_information(n_groups, seed) for seed in range(40)]
    assert np.mean(found) < mean, found
    assert np.max(found) < worst, found


def test_where_spreads_are_nothing_it_is_the_identity(only):
    found = drawn(n_groups=100, strength=0.8)
    assert fit(found, spreads=(0.0,)).theta == ((0.0,) * len(SITES),) * 4
    only(recalibration=0.0)
    prior = fit(found, spreads=(0.0,))
    assert (prior.intercept, prior.slope) == ((0.0,) * 4, (1.0,) * 4)
    np.testing.assert_array_equal(prior.apply(found.lesion_scores, found.told, given_of(found)), found.lesion_scores)


def test_probabilities_that_are_too_sure_are_recalibrated():
    free = drawn(n_groups=800, strength=0.0)
    sure = replace(free, lesion_scores=expit(2 * logit(free.lesion_scores)).astype(np.float32))
    found = fit(sure, spreads=(0.0,))
    assert found.recalibration > 0
    np.testing.assert_allclose(found.slope, 0.5, atol=0.1)


def test_below_ten_groups_of_either_kind_a_lesion_stays_as_it_is():
    found = drawn(n_groups=300, strength=0.8)
    labels, groups = found.truth.values["lesion"].copy(), found.truth.group_indices()
    with_first, without_second = np.unique(groups[labels[:, 0] == 1]), np.unique(groups[labels[:, 1] == 0])
    labels[(labels[:, 0] == 1) & np.isin(groups, with_first[9:]), 0] = 0
    labels[(labels[:, 1] == 0) & np.isin(groups, without_second[9:]), 1] = -1
    labels[(labels[:, 2] == 1) & np.isin(groups, np.unique(groups[labels[:, 2] == 1])[10:]), 2] = 0
    prior = fit(replace(found, truth=replace(found.truth, values=found.truth.values | {"lesion": labels})))
    for k in (0, 1):
        assert (prior.intercept[k], prior.slope[k], set(prior.theta[k])) == (0, 1, {0.0})
    assert any(prior.theta[2])
    applied = prior.apply(found.lesion_scores, found.told, given_of(found))
    np.testing.assert_array_equal(applied[:, :2], found.lesion_scores[:, :2])
    assert (applied[:, 2:] != found.lesion_scores[:, 2:]).all()


def written_out(parameters, z, present, news, recalibration, spread):
    """The loss of one lesion, as it stands in the documentation."""
    a, extra_slope, theta = parameters[0], parameters[1], parameters[2:]
    total = (a**2 + extra_slope**2) / (2 * recalibration**2) + (theta**2).sum() / (2 * spread**2)
    for odds, label, row in zip(z, present, news, strict=True):
        p = expit(a + (1 + extra_slope) * odds + row @ theta)
        total -= np.log(p if label else 1 - p)
    return total


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_the_fit_is_that_of_a_general_optimiser_on_the_loss_written_out(only, weight):
    only(recalibration=0.3, weight=weight)
    found = drawn(n_groups=120, n_lesions=2, strength=0.8)
    prior = fit(found, spreads=(0.4,))
    assert (prior.head_weight, prior.recalibration, prior.spread) == (weight, 0.3, 0.4)
    site = found.truth.values["site"]
    news = site - weight * found.told - (1 - weight) * site.mean(axis=0)
    for k in range(2):
        problem = logit(found.lesion_scores[:, k].astype(float)), found.truth.values["lesion"][:, k], news, 0.3, 0.4
        best = minimize(written_out, np.zeros(2 + len(SITES)), args=problem, method="BFGS", options={"gtol": 1e-5})
        np.testing.assert_allclose([prior.intercept[k], prior.slope[k] - 1, *prior.theta[k]], best.x, atol=2e-4)


def test_without_a_score_it_is_scikit_learns_ridge(only):
    # Where every score is 1/2 the slope has nothing to act on; features times their spreads bring all penalties to one strength.
    only(recalibration=1.0)
    found = drawn(n_groups=200, strength=0.8)
    prior = fit(replace(found, lesion_scores=np.full_like(found.lesion_scores, 0.5)), spreads=(0.8,))
    features = np.column_stack([np.ones(len(found.news)), 0.8 * found.news])
    for k in range(4):
        model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=1000)
        model.fit(features, found.truth.values["lesion"][:, k])
        np.testing.assert_allclose([prior.intercept[k], *prior.theta[k]], model.coef_[0] * [1, *(0.8,) * 4], atol=2e-5)
    np.testing.assert_allclose(prior.slope, 1, atol=1e-9)


def test_theta_of_a_lesion_sums_to_zero(prior):
    # News sum to 0, so a constant in theta costs and brings nothing.
    np.testing.assert_allclose(np.sum(prior.theta, axis=1), 0, atol=1e-5)


def test_unknown_labels_and_unknown_sites_do_not_enter(only):
    only()
    found = drawn(n_groups=250, strength=0.8, seed=5)
    random = np.random.default_rng(0)
    truth = found.truth
    unknown, off_site = random.random(len(truth)) < 0.2, random.random(len(truth)) < 0.2
    hidden = {task: labels.copy() for task, labels in truth.values.items()}
    hidden["lesion"][unknown, 0] = -1
    hidden["site"][off_site] = -1
    scores = found.lesion_scores.copy()
    scores[unknown, 0] = 0.999  # would count as an error if it counted
    masked = fit(replace(found, truth=replace(truth, values=hidden), lesion_scores=scores), spreads=(0.4,))
    kept = fit(found, np.flatnonzero(~off_site), spreads=(0.4,))
    alone = fit(found, np.flatnonzero(~off_site & ~unknown), spreads=(0.4,))
    assert masked.site_shares == kept.site_shares
    for k, expected in ((0, alone), (1, kept), (2, kept), (3, kept)):
        np.testing.assert_allclose(masked.theta[k], expected.theta[k], atol=1e-6)
        assert masked.intercept[k] == pytest.approx(expected.intercept[k], abs=1e-6)


def test_a_site_never_seen_has_no_effect_for_the_lesions_not_seen_there():
    found = drawn(n_groups=300, strength=0.8)
    labels, site = found.truth.values["lesion"].copy(), found.truth.values["site"]
    labels[site[:, 1] == 1, 0] = -1  # lesion 0 was never assessed at the second site
    truth = replace(found.truth, values=found.truth.values | {"lesion": labels})
    prior = fit(replace(found, truth=truth), site[:, 2] == 0)  # and nothing was photographed at the third
    theta = np.array(prior.theta)
    assert prior.site_shares[2] == 0
    assert (theta[:, 2] == 0).all()
    assert theta[0, 1] == 0
    assert (theta[1:, [0, 1, 3]] != 0).all()


def test_the_order_of_rows_and_seeds_under_each_other_change_next_to_nothing():
    found = drawn(n_groups=400, strength=0.8)
    prior = fit(found)
    shuffled = fit(found, np.random.default_rng(0).permutation(len(found.truth)))
    np.testing.assert_allclose(shuffled.theta, prior.theta, atol=1e-6)
    assert fit(found) == prior
    twice = fit(found, np.tile(np.arange(len(found.truth)), 2))
    assert twice.spread <= prior.spread
    assert twice.n_groups == prior.n_groups == 400
    np.testing.assert_allclose(twice.theta, prior.theta, atol=0.15)


def test_labels_that_a_model_made_choose_nothing():
    # The site moves the first lesion alone, and strongly.
    free, strong = drawn(n_groups=500, strength=0.0), drawn(n_groups=500, strength=1.5)
    labels = free.truth.values["lesion"].copy()
    labels[:, 0] = strong.truth.values["lesion"][:, 0]
    scores = free.lesion_scores.copy()
    scores[:, 0] = strong.lesion_scores[:, 0]

    def spread(machine):
        space = LabelSpace((Task("lesion", free.truth.labels["lesion"].classes, frozenset(machine)), free.truth.labels["site"]))
        values = {"lesion": labels, "site": strong.truth.values["site"]}
        return fit_site_prior(space, {"lesion": scores, "site": strong.told}, values, free.truth.group_indices())

    assert spread([]).spread >= 0.4
    assert spread(["lesion 0"]).spread <= 0.1
    nobody = spread(free.truth.labels["lesion"].classes)
    assert (nobody.spread, nobody.recalibration) == (SPREADS[0], RECALIBRATIONS[0])


def test_the_given_site_is_one_that_a_person_named():
    task = Task("site", ("a", "b", "c"), frozenset({"b"}))
    labels = np.array([[0, 0, 1], [0, 1, 0], [-1, -1, -1], [1, 0, 0]], dtype=np.int8)
    assert given_sites(task, labels).tolist() == [2, -1, -1, 0]


# --- applied ---------------------------------------------------------------------------------------------------------------


def made_prior(theta, *, weight=1.0, intercept=None, slope=None):
    theta = np.asarray(theta, dtype=float)
    n, s = theta.shape
    return SitePrior(
        lesions=tuple(f"l{k}" for k in range(n)),
        sites=tuple(f"s{k}" for k in range(s)),
        intercept=tuple(intercept or (0.0,) * n),
        slope=tuple(slope or (1.0,) * n),
        theta=tuple(tuple(row) for row in theta.tolist()),
        site_shares=(1 / s,) * s,
        head_weight=weight,
        recalibration=0.3,
        spread=0.4,
        n_groups=12,
    )


def test_the_formula_by_hand():
    prior = made_prior([[0.5, -0.1, -0.4]], intercept=(0.2,), slope=(0.9,))
    told = np.array([[0.6, 0.3, 0.1]])
    expected = expit(0.2 + 0.9 * logit(0.3) - 0.1 - (0.6 * 0.5 - 0.3 * 0.1 - 0.1 * 0.4))
    assert prior.apply(np.array([[0.3]]), told, np.array([1]))[0, 0] == pytest.approx(expected, abs=1e-7)
    blended = replace(prior, head_weight=0.25)
    before = 0.25 * told[0] + 0.75 / 3
    expected = expit(0.2 + 0.9 * logit(0.3) - 0.1 - before @ [0.5, -0.1, -0.4])
    assert blended.apply(np.array([[0.3]]), told, np.array([1]))[0, 0] == pytest.approx(expected, abs=1e-7)


SHARES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda parts: np.array(parts) / sum(parts))
EFFECTS = st.lists(st.floats(-2, 2), min_size=3, max_size=3)


@settings(max_examples=60)
@given(SHARES, EFFECTS, st.floats(0.05, 0.95))
def test_a_site_drawn_from_what_the_image_told_changes_nothing_on_average(told, theta, p):
    prior = made_prior([theta])
    applied = prior.apply(np.full((3, 1), p), np.tile(told, (3, 1)), np.arange(3))[:, 0]
    assert told @ logit(applied.astype(float)) == pytest.approx(logit(np.float32(p).astype(float)), abs=1e-4)


def test_a_site_that_the_image_told_for_certain_changes_nothing():
    prior = made_prior([[1.0, -0.3, -0.7]])
    told = np.eye(3)
    np.testing.assert_allclose(prior.apply(np.full((3, 1), 0.3), told, np.arange(3)), 0.3, rtol=1e-6)
    assert prior.apply(np.array([[0.3]]), told[:1], np.array([1]))[0, 0] < 0.15


def test_a_missing_site_leaves_the_scores_as_they_are():
    prior = made_prior([[1.0, -0.3, -0.7], [0.0, 0.0, 0.0]], intercept=(0.5, 0.0), slope=(2.0, 1.0))
    scores = np.array([[0.0, 1.0], [1e-30, 0.123456789], [0.3, 0.7]], dtype=np.float32)
    told = np.full((3, 3), 1 / 3)
    np.testing.assert_array_equal(prior.apply(scores, told, np.array([-1, -1, -1])), scores)
    applied = prior.apply(scores, told, np.array([-1, -1, 0]))
    np.testing.assert_array_equal(applied[:2], scores[:2])
    assert applied[2, 0] != scores[2, 0]
    np.testing.assert_array_equal(applied[:, 1], scores[:, 1])  # a lesion without effects


def test_without_a_site_head_the_shares_stand_in():
    prior = made_prior([[1.0, -0.3, -0.7]], weight=0.0)
    scores = np.array([[0.3]])
    expected = expit(logit(0.3) - 0.3)
    assert prior.apply(scores, None, np.array([1]))[0, 0] == pytest.approx(expected, abs=1e-7)
    assert prior.apply(scores, np.array([[0.0, 1.0, 0.0]]), np.array([1]))[0, 0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("scores", "told", "given_at"),
    [
        ([[0.3, 0.3]], [[1.0, 0.0, 0.0]], [0]),
        ([[1.3]], [[1.0, 0.0, 0.0]], [0]),
        ([[np.nan]], [[1.0, 0.0, 0.0]], [0]),
        ([[0.3]], [[1.0, 0.0]], [0]),
        ([[0.3]], [[0.5, 0.0, 0.0]], [0]),
        ([[0.3]], [[1.5, -0.5, 0.0]], [0]),
        ([[0.3]], [[1.0, 0.0, 0.0]], [3]),
        ([[0.3]], [[1.0, 0.0, 0.0]], [-2]),
        ([[0.3]], [[1.0, 0.0, 0.0]], [0, 1]),
        ([[0.3]], None, [0]),
    ],
)
def test_what_is_no_probability_or_no_site_is_refused(scores, told, given_at):
    with pytest.raises(ValueError, match=r"site|scores"):
        made_prior([[1.0, -0.3, -0.7]]).apply(np.array(scores), None if told is None else np.array(told), np.array(given_at))


def test_a_fit_needs_a_known_site():
    found = drawn(n_groups=30)
    nothing = replace(
        found, truth=replace(found.truth, values=found.truth.values | {"site": np.full((len(found.truth), 4), -1, np.int8)})
    )
    with pytest.raises(ValueError, match="0 photographs of known site"):
        fit(nothing)


# --- stored ----------------------------------------------------------------------------------------------------------------


def test_it_comes_back_from_json_to_the_last_digit(moved, prior):
    again = SitePrior.from_json(json.loads(json.dumps(prior.to_json())))
    assert again == prior
    given_at = given_of(moved)
    np.testing.assert_array_equal(
        again.apply(moved.lesion_scores, moved.told, given_at), prior.apply(moved.lesion_scores, moved.told, given_at)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("slope", [1.0]),
        ("theta", [[0.1, 0.2, 0.3]]),
        ("theta", [[0.1, 0.2], [0.1, 0.2]]),
        ("theta", [[0.1, 0.2, float("nan")], [0.0, 0.0, 0.0]]),
        ("theta", [[0.1, 0.2, "0.3"], [0.0, 0.0, 0.0]]),
        ("lesions", ["l0", "l0"]),
        ("sites", []),
        ("site_shares", [0.5, 0.6, -0.1]),
        ("site_shares", [0.5, 0.2, 0.2]),
        ("head_weight", 1.5),
        ("spread", -0.1),
        ("n_groups", 0),
        ("extra", 1),
        ("intercept", None),
    ],
)
def test_what_was_not_written_so_is_refused(key, value):
    stored = made_prior([[0.1, -0.1, 0.0], [0.0, 0.2, -0.2]]).to_json() | {key: value}
    if value is None:
        del stored[key]
    with pytest.raises(ValueError, match=r"\w"):
        SitePrior.from_json(stored)


def test_it_belongs_to_its_classes():
    prior = made_prior([[0.1, -0.1, 0.0]])
    lesion, site = Task("lesion", ("l0",)), Task("site", ("s0", "s1", "s2"))
    prior.check_labels(LabelSpace((lesion, site)))
    replace(prior, head_weight=0.0).check_labels(LabelSpace((lesion,)))
    for wrong in (LabelSpace((lesion,)), LabelSpace((site,)), LabelSpace((lesion, Task("site", ("s0", "s2", "s1"))))):
        with pytest.raises(ValueError, match="site prior"):
            prior.check_labels(wrong)


def test_what_may_be_chosen_begins_with_leaving_things_as_they_are():
    assert (SPREADS[0], RECALIBRATIONS[0], HEAD_WEIGHTS[0]) == (0, 0, 1)
