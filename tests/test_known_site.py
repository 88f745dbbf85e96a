"""Systems with and without the site: nothing fitted on the fold it is reported on, a gain where there is one, and the numbers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss

from made_known_sites import drawn, folds_of, predictions_of
from predilect.errors import TableError
from predilect.evaluation import site_prior_fit
from predilect.evaluation.calibration_fit import calibrate_out_of_fold
from predilect.evaluation.intervals import percentile_interval, resample_groups
from predilect.evaluation.known_site import BASELINES, condition_on_site, site_prior_on_all
from predilect.evaluation.known_site_scores import KnownSite, score_known_site
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth, check_matching


def with_values(truth, **values):
    return replace(truth, values=truth.values | values)


def systems_of(found, **options):
    return {
        "resnet": predictions_of(found, ["lesion"], **options),
        "resnet-site": predictions_of(found, ["site"], **options),
        "mtl": predictions_of(found, **options),
    }


def scores_of(table):
    return {seed: part.scores["lesion"] for seed, part in table.by_seed().items()}


@pytest.fixture(scope="module")
def moved():
    found = drawn(n_groups=300, n_lesions=3, strength=1.5, seed=1)
    site = found.truth.values["site"].copy()
    site[::17] = -1
    return replace(found, truth=with_values(found.truth, site=site))


@pytest.fixture(scope="module")
def tables(moved):
    return condition_on_site(moved.truth, systems_of(moved, seeds=(1, 2)))


@pytest.fixture(scope="module")
def small():
    """Too few groups to fit anything, enough to see who is asked."""
    return drawn(n_groups=27, n_lesions=2)


@pytest.fixture(scope="module")
def scored(tables):
    return score_known_site(tables, n_resamples=200, n_resamples_p=200, seed=4)


def differences(found: KnownSite, a, b, metric, lesion=None):
    wanted = (a, b, metric, lesion)
    [item] = [x for x in found.comparisons if (x.system_a, x.system_b, x.metric, x.class_name) == wanted]
    return item


# --- nesting ---------------------------------------------------------------------------------------------------------------


def test_labels_of_a_fold_change_nothing_that_is_said_of_it(moved, tables):
    # Every lesion label of fold 1 is turned round; its sites are what is given, and stay.
    fold = folds_of(moved.truth)
    labels = moved.truth.values["lesion"].copy()
    labels[fold == 1] = 1 - labels[fold == 1]
    turned = condition_on_site(with_values(moved.truth, lesion=labels), systems_of(moved, seeds=(1, 2)))
    here = folds_of(moved.truth)[np.isin(moved.truth.image_ids, tables.truth.image_ids)] == 1
    for name in tables.systems:
        assert turned.systems[name].priors[1] == tables.systems[name].priors[1]
        for state in ("plain", "calibrated", "recalibrated", "conditioned"):
            before, after = (scores_of(getattr(each.systems[name], state)) for each in (tables, turned))
            for seed in (1, 2):
                np.testing.assert_array_equal(after[seed][here], before[seed][here])
                if state != "plain":
                    assert (after[seed][~here] != before[seed][~here]).any()
    for name in BASELINES:
        before, after = (scores_of(each.baselines[name])[0] for each in (tables, turned))
        np.testing.assert_array_equal(after[here], before[here])
        assert (after[~here] != before[~here]).all()


def test_what_is_calibrated_is_what_a_report_on_calibration_shows(moved, tables):
    whole = calibrate_out_of_fold(predictions_of(moved, seeds=(1, 2)), moved.truth).predictions
    for seed, scores in scores_of(tables.systems["mtl"].calibrated).items():
        np.testing.assert_array_equal(
            scores, check_matching(whole.by_seed()[seed].take(known_rows(moved)), tables.truth).scores["lesion"]
        )


def known_rows(found):
    return np.flatnonzero((found.truth.values["site"] == 1).any(axis=1))


def test_only_photographs_of_known_site_are_there_with_their_folds(moved, tables):
    rows = known_rows(moved)
    assert len(rows) < len(moved.truth)
    np.testing.assert_array_equal(tables.truth.image_ids, moved.truth.image_ids[rows])
    for name, system in tables.systems.items():
        raw = systems_of(moved, seeds=(1, 2))[name].by_seed()
        for state in (system.plain, system.calibrated, system.recalibrated, system.conditioned):
            assert state.labels.names == ("lesion",)
            np.testing.assert_array_equal(state.folds, np.tile(folds_of(moved.truth)[rows], 2))
        for seed, scores in scores_of(system.plain).items():
            np.testing.assert_array_equal(scores, raw[seed].scores["lesion"][rows])


def test_the_order_of_rows_changes_next_to_nothing():
    random = np.random.default_rng(0)
    moved = drawn(n_groups=90, n_lesions=1, strength=1.5)
    found, table = moved.truth, predictions_of(moved)
    before = condition_on_site(found, {"mtl": table})
    truth = found.take(random.permutation(len(found)))
    after = condition_on_site(truth, {"mtl": table.take(random.permutation(len(table)))})
    scores = check_matching(after.systems["mtl"].conditioned, before.truth).scores["lesion"]
    np.testing.assert_allclose(scores, before.systems["mtl"].conditioned.scores["lesion"], atol=1e-5)


def test_for_a_bundle_it_is_fitted_on_all(moved, tables):
    prior = site_prior_on_all(predictions_of(moved, seeds=(1, 2)), moved.truth)
    assert prior.n_groups == len(np.unique(tables.truth.groups))
    assert prior.n_groups > max(each.n_groups for each in tables.systems["mtl"].priors.values())
    assert np.corrcoef(np.ravel(prior.theta), moved.theta.ravel())[0, 1] > 0.9
    alone = site_prior_on_all(predictions_of(moved, ["lesion"]), moved.truth)
    assert alone.head_weight == 0
    with pytest.raises(ValueError, match="site prior needs"):
        site_prior_on_all(predictions_of(moved, ["site"]), moved.truth)
    with pytest.raises(TableError, match="at least 2"):
        site_prior_on_all(predictions_of(moved, n_folds=1), moved.truth)


# --- what is the site's and what a second calibration's ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def shifted():
    """Lesions that the site does not move, but that are far rarer where the site is known: the calibration of all is off there."""
    found = drawn(n_groups=400, n_lesions=2, strength=0.0, seed=6)
    random = np.random.default_rng(0)
    known = random.random(len(found.truth)) < 0.5
    labels, site = found.truth.values["lesion"].copy(), found.truth.values["site"].copy()
    labels[known] *= random.random((known.sum(), 2)) < 0.3
    site[~known] = -1
    return replace(found, truth=with_values(found.truth, lesion=labels, site=site))


def test_what_calibrating_once_more_gives_is_not_called_the_sites(shifted):
    tables = condition_on_site(shifted.truth, {"mtl": predictions_of(shifted)})
    system = tables.systems["mtl"]
    assert all(prior.recalibration > 0 for prior in system.priors.values())
    assert {prior.spread for prior in system.priors.values()} == {0}
    scored = score_known_site(tables, n_resamples=200, n_resamples_p=200)
    assert differences(scored, "mtl+site", "mtl calibrated", "log_loss").high < 0  # which no site gave
    assert differences(scored, "mtl+site", "mtl recalibrated", "log_loss").difference == 0
    np.testing.assert_array_equal(system.recalibrated.scores["lesion"], system.conditioned.scores["lesion"])


def test_recalibrated_is_fitted_as_with_the_site_but_for_the_site(moved, tables, monkeypatch):
    system, fold = tables.systems["mtl"], folds_of(moved.truth)[known_rows(moved)]
    for held_out, prior in system.priors.items():
        before, after = (scores_of(table)[1][fold == held_out] for table in (system.calibrated, system.recalibrated))
        assert (prior.recalibration == 0) == np.array_equal(before, after)
    # Where a and b are free it is a line in the log-odds of each lesion and fold, whatever the site.
    monkeypatch.setattr(site_prior_fit, "RECALIBRATIONS", (1.0,))
    freed = condition_on_site(moved.truth, {"mtl": predictions_of(moved)}).systems["mtl"]
    for held_out, k in itertools.product(range(3), range(3)):
        z, moved_z = (
            logit(scores_of(table)[1][fold == held_out, k].astype(float)) for table in (freed.calibrated, freed.recalibrated)
        )
        slope, intercept = np.polyfit(z, moved_z, 1)
        np.testing.assert_allclose(moved_z, intercept + slope * z, atol=1e-4)
        assert slope != 1
        # Fitted anew: not what is left of the fit with the site when its theta is taken away.
        prior = freed.priors[held_out]
        assert (intercept, slope) != pytest.approx((prior.intercept[k], prior.slope[k]), abs=1e-4)


# --- who tells the site ----------------------------------------------------------------------------------------------------


def test_the_site_is_told_by_the_system_itself_or_by_its_own_with_site(small, tables):
    assert {name: system.site_system for name, system in tables.systems.items()} == {"resnet": "resnet-site", "mtl": "mtl"}
    few = systems_of(small, seeds=(1, 2)) | {"resnet-site": predictions_of(small, ["site"], seeds=(1,))}
    for systems in (few, {"resnet": few["resnet"], "other-site": few["resnet-site"]}, {"resnet": few["resnet"]}):
        system = condition_on_site(small.truth, systems).systems["resnet"]
        assert system.site_system is None
        assert {prior.head_weight for prior in system.priors.values()} == {0}


def test_where_there_is_nothing_to_say_nothing_is_said(small):
    systems = systems_of(small)
    for task in ("lesion", "site"):
        truth = Truth(
            small.truth.image_ids,
            small.truth.labels.restricted_to([task]),
            {task: small.truth.values[task]},
            small.truth.groups,
            small.truth.covariates,
        )
        assert condition_on_site(truth, systems) is None
    assert condition_on_site(small.truth, {"resnet-site": systems["resnet-site"]}) is None
    assert condition_on_site(small.truth, systems_of(small, n_folds=2)) is None
    assert condition_on_site(small.truth, {"mtl": replace(systems["mtl"], folds=None)}) is None
    nowhere = np.full_like(small.truth.values["site"], -1)
    assert condition_on_site(with_values(small.truth, site=nowhere), systems) is None
    unfolded = systems | {"mtl": replace(systems["mtl"], folds=None)}
    assert list(condition_on_site(small.truth, unfolded).systems) == ["resnet"]


@pytest.mark.parametrize("name", ["prevalence", "mtl+site", "mtl calibrated", "mtl recalibrated"])
def test_a_name_that_is_given_here_is_refused(small, name):
    systems = systems_of(small) | {name: predictions_of(small, ["lesion"])}
    with pytest.raises(TableError, match=r"give it another"):
        condition_on_site(small.truth, systems)


# --- baselines -------------------------------------------------------------------------------------------------------------


def test_baselines_are_shares_of_the_other_folds():
    found = drawn(n_groups=1500, n_lesions=1, strength=1.2, seed=2)
    tables = condition_on_site(found.truth, {"mtl": predictions_of(found)})
    labels, site, fold = found.truth.values["lesion"], found.truth.values["site"].argmax(axis=1), folds_of(found.truth)
    plain, at_site = (scores_of(tables.baselines[name])[0] for name in BASELINES)
    for held_out, where in itertools.product(range(3), range(4)):
        rows, others = (fold == held_out) & (site == where), fold != held_out
        share = (labels[others].sum(axis=0) + 0.5) / (others.sum() + 1)
        np.testing.assert_allclose(plain[rows], np.tile(share, (rows.sum(), 1)), rtol=1e-6)
        assert (at_site[rows] == at_site[rows][0]).all()
        # With so many photographs little is left of the shrinking.
        there = labels[others & (site == where)]
        np.testing.assert_allclose(at_site[rows][0], there.mean(axis=0), atol=3 * np.sqrt(0.25 / len(there)))


# --- what it brings --------------------------------------------------------------------------------------------------------


def test_a_gain_is_found_where_the_site_moves_lesions(scored):
    for name in ("mtl", "resnet"):
        pair = (f"{name}+site", f"{name} recalibrated")
        for metric, better in (("map_class", 1), ("log_loss", -1), ("brier", -1)):
            item = differences(scored, *pair, metric)
            assert better * item.difference > 0
            assert better * item.low > 0
            assert better * item.high > 0
            assert item.p < 0.05
        assert differences(scored, pair[0], "prevalence+site", "log_loss").high < 0
    assert differences(scored, *reversed(BASELINES), "log_loss").high < 0


def test_no_gain_and_no_harm_where_it_does_not():
    found = drawn(n_groups=300, n_lesions=3, strength=0.0, seed=7)
    tables = condition_on_site(found.truth, {"mtl": predictions_of(found)})
    scored = score_known_site(tables, n_resamples=100, n_resamples_p=100)
    assert abs(differences(scored, "mtl+site", "mtl calibrated", "log_loss").difference) < 2e-3
    assert abs(differences(scored, "mtl+site", "mtl calibrated", "map_class").difference) < 1e-2


# --- the numbers -----------------------------------------------------------------------------------------------------------


def test_scores_are_scikit_learns(tables, scored):
    labels = tables.truth.values["lesion"]
    shown = {"mtl+site": tables.systems["mtl"].conditioned, "prevalence+site": tables.baselines["prevalence+site"]}
    for name, table in shown.items():
        seeds = [scores.astype(float) for scores in scores_of(table).values()]
        means = []
        for k, lesion in enumerate(tables.truth.labels["lesion"].classes):
            item = scored.systems[name].per_class[lesion]
            expected = np.mean([(log_loss(labels[:, k], p[:, k]), brier_score_loss(labels[:, k], p[:, k])) for p in seeds], axis=0)
            assert (item.log_loss, item.brier) == pytest.approx(expected, rel=1e-6)
            ap = np.mean([average_precision_score(labels[:, k], p[:, k]) for p in seeds])
            assert scored.systems[name].lesion.per_class[lesion].ap == pytest.approx(ap)
            means.append(expected)
        mean = scored.systems[name].mean
        assert (mean.log_loss, mean.brier) == pytest.approx(np.mean(means, axis=0), rel=1e-6)


def test_intervals_are_of_whole_groups_drawn_again(tables, scored):
    labels, group = tables.truth.values["lesion"], tables.truth.group_indices()
    drawn_groups = np.concatenate(list(resample_groups(group.max() + 1, 200, 4)), axis=1)

    def squared(table):
        return np.mean([(scores.astype(float) - labels) ** 2 for scores in scores_of(table).values()], axis=0)

    first, second = squared(tables.systems["mtl"].conditioned), squared(tables.systems["mtl"].calibrated)
    by_hand = np.array([np.average(first - second, axis=0, weights=drawn_groups[group, b]) for b in range(200)])
    for lesion, values in (("lesion 1", by_hand[:, 1]), (None, by_hand.mean(axis=1))):
        item = differences(scored, "mtl+site", "mtl calibrated", "brier", lesion)
        assert (item.low, item.high) == pytest.approx(percentile_interval(values)[:2], abs=1e-9)
        assert item.p == pytest.approx(min(1, 2 * (1 + min((values <= 0).sum(), (values >= 0).sum())) / 201))


def test_unknown_labels_are_left_out_and_machine_made_ones_out_of_means():
    found = drawn(n_groups=90, n_lesions=3, seed=3, machine=["lesion 2"])
    labels = found.truth.values["lesion"].copy()
    labels[::5, 0] = -1
    truth = with_values(found.truth, lesion=labels)
    tables = condition_on_site(truth, {"mtl": predictions_of(found)})
    scored = score_known_site(tables, n_resamples=20, n_resamples_p=20)
    system, known = scored.systems["mtl+site"], labels[:, 0] >= 0
    scores = scores_of(tables.systems["mtl"].conditioned)[1].astype(float)
    assert system.per_class["lesion 0"].log_loss == pytest.approx(log_loss(labels[known, 0], scores[known, 0]), rel=1e-6)
    human = [system.per_class[f"lesion {k}"].log_loss for k in (0, 1)]
    assert system.mean.log_loss == pytest.approx(np.mean(human))
    item = differences(scored, "mtl+site", "mtl calibrated", "log_loss", "lesion 2")
    assert item.low is not None
    assert (item.p, item.p_holm) == (None, None)


def test_few_groups_have_no_interval_and_certain_errors_a_bounded_loss():
    found = drawn(n_groups=60, n_lesions=2, seed=3)
    labels = found.truth.values["lesion"].copy()
    labels[:, 1] = 0
    labels[:4, 1] = 1
    sure = predictions_of(found)
    scores = sure.scores["lesion"].copy()
    scores[:, 1] = 1 - labels[:, 1]
    sure = replace(sure, scores=sure.scores | {"lesion": scores})
    scored = score_known_site(
        condition_on_site(with_values(found.truth, lesion=labels), {"mtl": sure}), n_resamples=20, n_resamples_p=20
    )
    item = scored.systems["mtl"].per_class["lesion 1"]
    assert item.log_loss == pytest.approx(24 * np.log(2))
    assert (item.log_loss_low, item.brier_high) == (None, None)
    rare = differences(scored, "mtl+site", "mtl", "log_loss", "lesion 1")
    assert (rare.difference, rare.low, rare.p) == (0, None, None)


def test_what_is_compared(scored, tables):
    pairs = list(dict.fromkeys((item.system_a, item.system_b) for item in scored.comparisons))
    assert pairs == [
        ("resnet+site", "resnet"),
        ("resnet+site", "resnet calibrated"),
        ("resnet+site", "resnet recalibrated"),
        ("resnet+site", "prevalence+site"),
        ("mtl+site", "mtl"),
        ("mtl+site", "mtl calibrated"),
        ("mtl+site", "mtl recalibrated"),
        ("mtl+site", "prevalence+site"),
        ("mtl+site", "resnet+site"),
        ("prevalence+site", "prevalence"),
    ]
    metrics = {(item.metric, item.class_name) for item in scored.comparisons if item.system_a == "mtl+site"}
    lesions = tables.truth.labels["lesion"].classes
    assert metrics == {(m, None) for m in ("map_class", "map_image", "log_loss", "brier")} | {
        (m, lesion) for m in ("ap", "log_loss", "brier") for lesion in lesions
    }
    for item in scored.comparisons:
        if item.class_name is not None and item.p is not None:
            assert item.p <= item.p_holm <= min(1, 3 * item.p) + 1e-12
        else:
            assert item.p_holm is None


def test_effects_are_the_mean_over_folds(tables, scored):
    effects = scored.effects["mtl"]
    priors = tables.systems["mtl"].priors
    np.testing.assert_allclose(effects.theta, np.mean([priors[fold].theta for fold in range(3)], axis=0))
    assert effects.head_weights == tuple(priors[fold].head_weight for fold in range(3))
    assert effects.spreads == tuple(priors[fold].spread for fold in range(3))
    assert effects.recalibrations == tuple(priors[fold].recalibration for fold in range(3))
    assert (scored.n_images, scored.n_groups) == (len(tables.truth), len(np.unique(tables.truth.groups)))


def test_it_is_json_without_nan(scored):
    text = scored.model_dump_json()
    assert "NaN" not in text
    assert KnownSite.model_validate(json.loads(text)).effects == scored.effects


def test_a_site_that_a_model_named_is_not_known(small):
    labels = small.truth.labels
    space = LabelSpace((labels["lesion"], Task("site", labels["site"].classes, frozenset({"hand"}))))
    tables = condition_on_site(replace(small.truth, labels=space), {"mtl": predictions_of(small)})
    hand = labels["site"].index("hand")
    assert not (tables.truth.values["site"][:, hand] == 1).any()
    assert isinstance(tables.systems["mtl"].conditioned, Predictions)
