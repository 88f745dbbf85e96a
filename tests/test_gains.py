"""Gain against predilection: rank correlation, joint resampling, eligibility, and what is named."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.gains import rank_correlation
from predilect.evaluation.intervals import percentile_interval, resample_groups
from predilect.evaluation.predilection import N_PERMUTATIONS, PredilectionStrength
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth

N_SITES = 5
BOUND = (1.0, 0.7, 1.0, 0.4, 0.0, 0.0)  # share of each lesion's groups that must show its own site
LESIONS = ("bound", "often", "like alopecia", "seldom", "free", "free without gain")
GAIN = (2.0, 1.2, 0.0, 0.6, 0.3, 0.0)


def made_truth(*, n_groups=150, machine=(), seed=0):
    """Groups of one to three photographs of one site; lesions that are partly bound to a site, and some unknown labels."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), random.integers(1, 4, n_groups))
    n = len(group)
    site_of = random.integers(0, N_SITES, n_groups)
    has = np.zeros((n_groups, len(LESIONS)), dtype=np.int8)
    for k, bound in enumerate(BOUND):
        tied = random.random(n_groups) < bound
        has[:, k] = (random.random(n_groups) < np.where(tied, 0.9, 0.25)) & (~tied | (site_of == k % N_SITES))
    lesions = has[group]
    lesions[random.random(lesions.shape) < 0.05] = -1
    sites = np.eye(N_SITES, dtype=np.int8)[site_of[group]]
    sites[random.random(n) < 0.05] = -1
    space = LabelSpace((Task("lesion", LESIONS, frozenset(machine)), Task("site", tuple(f"s{k}" for k in range(N_SITES)))))
    ids = np.array([f"{k:05}" for k in range(n)])
    return Truth(ids, space, {"lesion": lesions, "site": sites}, np.array([f"p{k:04}" for k in group]), pl.DataFrame())


def made_system(truth, boost, *, sites, seeds=(1, 2)):
    """Scores that follow the truth, better by `boost` per lesion; two systems differ in nothing else."""
    parts = []
    for seed in seeds:
        labels = truth.values["lesion"]
        z = np.random.default_rng(seed).normal(size=labels.shape) + (0.5 + np.asarray(boost)) * (labels == 1)
        scores = {"lesion": (1 / (1 + np.exp(-z))).astype(np.float32)}
        if sites:
            scores["site"] = np.full((len(truth), N_SITES), 1 / N_SITES, dtype=np.float32)
        space = truth.labels.restricted_to(scores)
        parts.append(Predictions(truth.image_ids, space, scores, None, np.full(len(truth), seed)))
    return Predictions.concatenate(parts)


@pytest.fixture(scope="module")
def truth():
    return made_truth()


@pytest.fixture(scope="module")
def systems(truth):
    return {"resnet": made_system(truth, np.zeros(6), sites=False), "mtl": made_system(truth, GAIN, sites=True)}


@pytest.fixture(scope="module")
def found(truth, systems):
    [gains] = evaluate(truth, systems, n_resamples=60, n_resamples_p=1, seed=3).gains
    return gains


def naive_gains(truth, systems, rows):
    """The difference in AP of each lesion on the given rows, repeated at will, by loops."""
    labels = truth.values["lesion"][rows]
    ap = {}
    for name, table in systems.items():
        by_seed = [part.scores["lesion"][rows] for part in table.by_seed().values()]
        ap[name] = [
            np.mean([average_precision_score(label[label >= 0], scores[label >= 0, k]) for scores in by_seed])
            for k, label in enumerate(labels.T)
        ]
    return np.subtract(ap["mtl"], ap["resnet"])


def test_gain_and_strength_are_of_the_same_resamples(truth, systems):
    # All lesions gain alike, so that their order changes from one resample to the next.
    systems = systems | {"mtl": made_system(truth, np.full(6, 0.4), sites=True)}
    [gains] = evaluate(truth, systems, n_resamples=12, n_resamples_p=20, seed=3).gains
    group = truth.group_indices()
    blocks = np.concatenate(list(resample_groups(150, 12, 3)), axis=1)
    measure = PredilectionStrength.of(truth, np.arange(6), seed=3)
    strength = measure.corrected(np.ones((150, 1), dtype=np.float32))[:, 0]
    strength_drawn = measure.corrected(blocks)
    gain = naive_gains(truth, systems, np.arange(len(truth)))
    drawn = [naive_gains(truth, systems, np.repeat(np.arange(len(truth)), blocks[group, b].astype(int))) for b in range(12)]
    correlations = np.array([spearmanr(drawn[b], strength_drawn[:, b]).statistic for b in range(12)])
    for k, row in enumerate(gains.lesions):
        assert row.lesion == LESIONS[k]
        assert row.gain == pytest.approx(gain[k], abs=1e-9)
        assert (row.gain_low, row.gain_high) == pytest.approx(percentile_interval(np.array(drawn)[:, k])[:2], abs=1e-9)
        assert row.strength == pytest.approx(strength[k])
        assert (row.strength_low, row.strength_high) == pytest.approx(percentile_interval(strength_drawn[k])[:2])
    assert gains.rank_correlation == pytest.approx(spearmanr(gain, strength).statistic)
    low, high, n_defined = percentile_interval(correlations)
    assert (gains.rank_correlation_low, gains.rank_correlation_high) == pytest.approx((low, high))
    assert gains.n_resamples_defined == n_defined == 12
    # Strengths of other resamples would give another interval.
    apart = [spearmanr(drawn[b], strength_drawn[:, b - 1]).statistic for b in range(12)]
    assert percentile_interval(np.array(apart))[:2] != pytest.approx((low, high))


def test_a_planted_relation_is_found(found):
    by_name = {row.lesion: row for row in found.lesions}
    assert (found.system_a, found.system_b, found.n_permutations) == ("mtl", "resnet", N_PERMUTATIONS)
    assert by_name["bound"].strength > by_name["often"].strength > by_name["seldom"].strength
    assert by_name["bound"].strength_low > 0.5
    for name in ("free", "free without gain"):
        assert by_name[name].strength_low < 0 < by_name[name].strength_high
        assert by_name[name].raw_divergence > 0
    assert -1 < found.rank_correlation_low < found.rank_correlation < found.rank_correlation_high < 1


def test_without_an_exception_the_correlation_is_clearly_positive(truth, systems):
    tables = systems | {"mtl": made_system(truth, (2.0, 1.2, 1.6, 0.6, 0.1, 0.1), sites=True)}
    [gains] = evaluate(truth, tables, n_resamples=60, n_resamples_p=1, seed=3).gains
    assert gains.rank_correlation > 0.8
    assert gains.rank_correlation_low > 0.4
    assert not any(row.strong_without_gain for row in gains.lesions)


def test_what_is_strong_and_gains_nothing_is_named(found):
    assert [row.lesion for row in found.lesions if row.strong_without_gain] == ["like alopecia"]
    without_gain = {row.lesion: row for row in found.lesions if row.gain <= 0}
    assert set(without_gain) == {"like alopecia", "free without gain"}
    assert without_gain["like alopecia"].gain_low == without_gain["like alopecia"].gain_high == 0


def test_groups_are_counted_where_the_site_is_known(truth, found):
    shown = (truth.values["lesion"] == 1) & (truth.values["site"] == 1).any(axis=1, keepdims=True)
    assert [row.n_positive_groups for row in found.lesions] == [len(set(truth.groups[column])) for column in shown.T]


def test_a_lesion_whose_sites_are_known_in_few_groups_is_not_eligible(truth, systems):
    sites = truth.values["site"].copy()
    labels = truth.values["lesion"]
    shown = np.unique(truth.groups[(labels[:, 0] == 1) & (sites == 1).any(axis=1)])
    sites[(labels[:, 0] == 1) & np.isin(truth.groups, shown[9:])] = -1
    few = Truth(truth.image_ids, truth.labels, {"lesion": labels, "site": sites}, truth.groups, truth.covariates)
    [gains] = evaluate(few, systems, n_resamples=3, n_resamples_p=1).gains
    assert [row.lesion for row in gains.lesions] == list(LESIONS[1:])


def test_below_four_lesions_there_is_no_correlation(systems):
    truth = made_truth(machine=LESIONS[3:])
    [gains] = evaluate(truth, systems, n_resamples=3, n_resamples_p=1).gains
    assert [row.lesion for row in gains.lesions] == list(LESIONS[:3])
    assert (gains.rank_correlation, gains.rank_correlation_low, gains.rank_correlation_high) == (None, None, None)
    assert gains.n_resamples_defined == 0
    assert evaluate(made_truth(machine=LESIONS), systems, n_resamples=3, n_resamples_p=1).gains == ()


def test_equal_gains_have_no_correlation(truth, systems):
    same = {"resnet": systems["resnet"], "mtl": made_system(truth, np.zeros(6), sites=True)}
    result = evaluate(truth, same, n_resamples=3, n_resamples_p=1)
    [gains] = result.gains
    assert gains.rank_correlation is None
    assert gains.rank_correlation_low is None
    assert gains.n_resamples_defined == 0
    assert {row.gain for row in gains.lesions} == {0.0}
    assert "NaN" not in result.model_dump_json()


def test_only_pairs_that_differ_in_having_learned_the_site_have_an_entry(truth, systems):
    tables = {**systems, "mtl-2": systems["mtl"], "ensemble": systems["resnet"]}
    result = evaluate(truth, tables, n_resamples=2, n_resamples_p=1)
    assert [(item.system_a, item.system_b) for item in result.gains] == [("mtl", "resnet"), ("mtl-2", "resnet")]
    chosen = evaluate(truth, tables, n_resamples=2, n_resamples_p=1, pairs=[("resnet", "mtl"), ("mtl", "ensemble")])
    assert [(item.system_a, item.system_b) for item in chosen.gains] == [("mtl", "ensemble")]
    lesions_only = Truth(
        truth.image_ids, truth.labels.restricted_to(["lesion"]), {"lesion": truth.values["lesion"]}, truth.groups, truth.covariates
    )
    assert evaluate(lesions_only, tables, n_resamples=2, n_resamples_p=1).gains == ()


def test_other_systems_and_the_order_of_rows_change_nothing(truth, systems, found):
    random = np.random.default_rng(1)
    shuffled = {name: table.take(random.permutation(len(table))) for name, table in systems.items()}
    tables = {"other": shuffled["resnet"], **shuffled}
    result = evaluate(truth.take(random.permutation(len(truth))), tables, n_resamples=60, n_resamples_p=80, seed=3)
    assert next(item for item in result.gains if item.system_b == "resnet") == found


COLUMNS = st.integers(2, 7).flatmap(lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n)] * 2))


@settings(max_examples=100, deadline=None)
@given(COLUMNS)
def test_the_rank_correlation_is_scipys(columns):
    first, second = (np.array(column, dtype=np.float64) for column in columns)
    [found] = rank_correlation(first[:, None], second[:, None])
    if len(set(columns[0])) == 1 or len(set(columns[1])) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_columns_are_correlated_apart_and_an_undefined_value_undoes_its_own_only():
    first = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, 3.0]])
    found = rank_correlation(first, np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]))
    assert found[0] == pytest.approx(-1)
    assert np.isnan(found[1])
