"""Retrieval scores: against loops, scikit-learn and all orders there are; what is judged; intervals and paired differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, ndcg_score

from predilect.errors import InsightError
from predilect.evaluation import retrieval
from predilect.evaluation.intervals import percentile_interval, resample_groups
from predilect.evaluation.retrieval import MEASURES, QueryScores, ranked, score_queries
from predilect.evaluation.retrieval_summary import RetrievalEvaluation, evaluate_retrieval
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Truth

LESIONS, SITES = ("crust", "papule", "scale", "weak"), ("arm", "face", "leg")
SPACE = LabelSpace((Task("lesion", LESIONS, frozenset({"weak"})), Task("site", SITES)))
LESION_P, LESION_MAP, SITE_P, SITE_MAP, NDCG_5, NDCG = range(6)


def made_truth(lesions, sites, groups=None, space=SPACE):
    """Sites are numbers, -1 for unknown."""
    ids = np.array([f"p{k:04}" for k in range(len(lesions))])
    one_hot = np.where(np.asarray(sites)[:, None] < 0, -1, np.eye(3, dtype=np.int8)[sites])
    values = {"lesion": np.asarray(lesions, dtype=np.int8), "site": one_hot.astype(np.int8)}
    names = None if groups is None else np.array([f"g{group}" for group in groups])
    return Truth(ids, space, {name: values[name] for name in space.names}, names, pl.DataFrame())


def random_truth(random, n, n_groups, unknown=0.15):
    lesions = random.choice(np.array([-1, 0, 1], dtype=np.int8), (n, 4), p=[unknown, 0.6 - unknown, 0.4])
    return made_truth(lesions, random.integers(-1, 3, n), random.integers(0, n_groups, n))


def in_order(n_queries, n_gallery):
    """The gallery as it stands answers every query."""
    return [np.tile(np.arange(n_gallery), (n_queries, 1))]


def by_loops(truth, query, gallery):
    """The six measures of one query whose photographs answer in the given order, from their definitions."""
    found = []
    for task, names in (("lesion", LESIONS[:3]), ("site", SITES)):
        labels = truth.values[task]
        asked = [c for c in range(len(names)) if labels[query, c] == 1]
        gains = []
        for row in gallery:
            if truth.groups[row] == truth.groups[query] or any(labels[row, c] == -1 for c in asked):
                continue
            known = [c for c in range(len(names)) if labels[row, c] >= 0 and labels[query, c] >= 0]
            mine, other = ({c for c in known if labels[k, c] == 1} for k in (query, row))
            gains.append(len(mine & other) / len(mine | other) if mine | other else 0.0)
        found.append(of_gains(gains))
    (precision, map_r, ndcg_5, ndcg), site = found
    return [precision, map_r, site[0], site[1], ndcg_5, ndcg]


def of_gains(gains):
    relevant = [gain > 0 for gain in gains]
    r = sum(relevant)
    if not r:
        return [math.nan] * 4
    map_r = sum(sum(relevant[: k + 1]) / (k + 1) for k in range(r) if relevant[k]) / r

    def dcg(values):
        return sum(value / math.log2(k + 2) for k, value in enumerate(values))

    best = sorted(gains, reverse=True)
    top = relevant[:5]
    return [sum(top) / len(top), map_r, dcg(gains[:5]) / dcg(best[:5]), dcg(gains) / dcg(best)]


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), unknown=st.sampled_from([0.0, 0.15, 0.4]))
@settings(max_examples=50)
def test_scores_equal_their_definitions_in_loops(seed, n, unknown):
    random = np.random.default_rng(seed)
    truth = random_truth(random, n + 4, 6, unknown)
    queries, gallery = np.arange(n, n + 4), np.arange(n)
    order = np.stack([random.permutation(n) for _ in range(4)])
    found = score_queries(truth, queries, gallery, [order[:1], order[1:]])
    for q in range(4):
        assert found.values[:, q] == pytest.approx(by_loops(truth, queries[q], order[q]), nan_ok=True)
    assert np.array_equal(np.isnan(found.values), np.isnan(found.chance))
    assert np.nanmax(found.values, initial=0) <= 1 + 1e-12


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_chance_is_the_mean_over_all_orders(seed):
    random = np.random.default_rng(seed)
    orders = np.array(list(itertools.permutations(range(6))))
    # Six photographs that answer, and one query as often as there are orders.
    rows = np.append(np.arange(6), np.full(len(orders), 6))
    lesions = random.choice(np.array([-1, 0, 1], dtype=np.int8), (7, 4), p=[0.1, 0.4, 0.5])
    truth = made_truth(lesions[rows], random.integers(-1, 3, 7)[rows], random.integers(0, 5, 7)[rows])
    found = score_queries(truth, np.arange(6, len(rows)), np.arange(6), [orders])
    assert found.chance[:, 0] == pytest.approx(found.values.mean(axis=1), nan_ok=True)


def test_scikit_learn_gives_the_same_gains_and_precisions():
    random = np.random.default_rng(1)
    n = 60
    truth = random_truth(random, n + 1, 1000, unknown=0.0)
    truth.values["lesion"][n] = [1, 1, 0, 0]
    truth.values["site"][n] = [0, 1, 0]
    truth.values["site"][:n] = np.eye(3)[random.integers(0, 3, n)]
    order = random.permutation(n)
    found = score_queries(truth, np.array([n]), np.arange(n), [order[None]]).values[:, 0]
    lesions = truth.values["lesion"][:, :3] == 1
    gains = ((lesions & lesions[n]).sum(axis=1) / (lesions | lesions[n]).sum(axis=1))[order]
    nearness = -np.arange(n)
    assert found[NDCG_5] == pytest.approx(ndcg_score([gains], [nearness], k=5))
    assert found[NDCG] == pytest.approx(ndcg_score([gains], [nearness]))
    for place, relevant in ((LESION_MAP, gains > 0), (SITE_MAP, truth.values["site"][order, 1] == 1)):
        first = relevant[: relevant.sum()]  # MAP@R is the average precision of the first R, times their share of hits
        assert found[place] == pytest.approx(average_precision_score(first, nearness[: len(first)]) * first.mean())


def test_worked_by_hand():
    lesions = [[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0], [0, -1, 0, 0], [1, 1, 0, 0], [0, 1, 0, -1]]
    truth = made_truth(lesions, [0, 1, 0, -1, 2, 0, 0, 2], groups=[0, 1, 2, 3, 4, 5, 0, 6])
    found = score_queries(truth, np.array([0]), np.arange(1, 8), in_order(1, 7))
    # Passed over: 5, of which one lesion of the query is unknown, and 6, of its own group. Judged: 1, 2, 3, 4, 7.
    assert found.values[LESION_P, 0] == pytest.approx(3 / 5)
    assert found.values[LESION_MAP, 0] == pytest.approx((1 / 2) / 3)  # of the first three only the second is relevant
    discount = 1 / np.log2(np.arange(2, 7))
    best = np.array([2 / 3, 1 / 2, 1 / 2]) @ discount[:3]
    assert found.values[NDCG, 0] == pytest.approx((1 / 2 * discount[1] + 2 / 3 * discount[3] + 1 / 2 * discount[4]) / best)
    # Sites: 3 is unknown, 6 of its own group; judged are 1, 2, 4, 5, 7, relevant 2 and 5.
    assert found.values[SITE_P, 0] == pytest.approx(2 / 5)
    assert found.values[SITE_MAP, 0] == pytest.approx((1 / 2) / 2)
    assert found.chance[[LESION_P, SITE_P], 0] == pytest.approx([3 / 5, 2 / 5])


def test_what_has_no_relevant_photograph_has_no_score():
    lesions = [[0, 0, 0, 1], [-1, -1, -1, -1], [1, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]]
    truth = made_truth(lesions, [1, -1, 2, 0, 0], groups=[0, 1, 2, 2, 3])
    # Neither a lesion that only a model saw, nor unknown ones, nor one that only the own group has, nor another site.
    found = score_queries(truth, np.array([0, 1, 2]), np.array([3, 4]), in_order(3, 2))
    assert np.isnan(found.values).all()
    assert np.isnan(found.chance).all()


def test_a_system_of_lesions_only_has_no_score_of_sites():
    space = SPACE.restricted_to(["lesion"])
    truth = made_truth(np.ones((4, 4)), [0, 0, 0, 0], space=space)
    found = score_queries(truth, np.array([0]), np.array([1, 2, 3]), in_order(1, 3))
    assert np.isnan(found.values[[SITE_P, SITE_MAP]]).all()
    assert found.values[[LESION_P, LESION_MAP, NDCG_5, NDCG]] == pytest.approx(1)


def test_all_photographs_are_ordered_by_distance_then_id(monkeypatch):
    random = np.random.default_rng(2)
    gallery = np.concatenate([random.normal(size=(80, 6)), np.tile(random.normal(size=6), (40, 1))]).astype(np.float32)
    gallery = gallery[random.permutation(120)]
    queries = np.concatenate([random.normal(size=(9, 6)), gallery[:2]]).astype(np.float32)
    ids = np.array([f"p{k}" for k in random.permutation(120)])
    distances = cdist(queries.astype(np.float64), gallery.astype(np.float64))
    wanted = [sorted(range(120), key=lambda n: (row[n], ids[n])) for row in distances]
    for cells in (10**6, 500, 1):  # all queries at once, some, one by one
        monkeypatch.setattr(retrieval, "_CELLS_PER_BLOCK", cells)
        blocks = list(ranked(queries, gallery, ids))
        assert len(blocks) == {10**6: 1, 500: 3, 1: 11}[cells]
        assert np.concatenate(blocks).tolist() == wanted


def test_embeddings_that_cannot_be_ordered():
    good, ids = np.ones((3, 2), dtype=np.float32), np.array(["c", "b", "a"])
    broken = good.copy()
    broken[0, 0] = np.nan
    with pytest.raises(InsightError, match="embedding of query 1 is not finite"):
        next(ranked(broken, good, ids))
    with pytest.raises(InsightError, match="embedding of photograph 1 is not finite"):
        next(ranked(good, broken, ids))
    with pytest.raises(ValueError, match="do not fit"):
        next(ranked(good[:, :1], good, ids))


def test_an_order_must_be_of_all_queries_and_photographs():
    truth = random_truth(np.random.default_rng(0), 6, 3)
    queries, gallery = np.array([0, 1]), np.array([2, 3, 4])
    for order in (in_order(2, 2), in_order(3, 3), in_order(1, 3), []):
        with pytest.raises(ValueError, match="found"):
            score_queries(truth, queries, gallery, order)


def made_folds(truth, noise, seeds=(1, 2), folds=3):
    """Embeddings that follow the labels, the less the more noise; each fold's queries among the photographs of the others."""
    fold = truth.group_indices() % folds
    scores = {}
    for seed in seeds:
        random = np.random.default_rng(seed)
        parts = []
        for f in range(folds):
            seen = np.concatenate([truth.values["lesion"] == 1, 2.0 * (truth.values["site"] == 1)], axis=1)
            embeddings = (seen + noise * random.normal(size=seen.shape)).astype(np.float32)
            queries, gallery = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
            order = ranked(embeddings[queries], embeddings[gallery], truth.image_ids[gallery])
            parts.append(score_queries(truth, queries, gallery, order))
        scores[seed] = QueryScores.concatenate(parts)
    return scores


@pytest.fixture(scope="module")
def truth():
    return random_truth(np.random.default_rng(5), 150, 60)


@pytest.fixture(scope="module")
def systems(truth):
    return {"resnet": made_folds(truth, 2.0), "mtl": made_folds(truth, 0.6)}


@pytest.fixture(scope="module")
def evaluation(truth, systems):
    return evaluate_retrieval(truth, systems, n_resamples=40, n_resamples_p=60, seed=3)


def test_values_are_means_over_queries_then_seeds(truth, systems, evaluation):
    assert evaluation.n_queries == len(truth)
    for name, by_seed in systems.items():
        for k, measure in enumerate(MEASURES):
            found = getattr(evaluation.systems[name], measure)
            means = {str(seed): np.nanmean(scores.values[k]) for seed, scores in by_seed.items()}
            assert found.seeds == pytest.approx(means)
            assert found.value == pytest.approx(np.mean(list(means.values())))
            assert found.chance == pytest.approx(np.nanmean(by_seed[1].chance[k]))
            defined = ~np.isnan(by_seed[1].values[k])
            assert (found.n_queries, found.n_groups) == (defined.sum(), len(np.unique(truth.groups[defined])))
            assert found.low < found.value < found.high
            assert found.value > found.chance or name == "resnet"  # whose embeddings are nearly noise


def test_intervals_and_differences_equal_a_loop_that_repeats_queries(truth, systems, evaluation):
    groups = truth.group_indices()
    draws = np.concatenate(list(resample_groups(int(groups.max()) + 1, 60, 3)), axis=1).astype(int)
    again = {
        name: np.array(
            [
                np.mean([np.nanmean(scores.values[:, np.repeat(np.arange(150), drawn[groups])], axis=1) for scores in by_seed.values()], axis=0)
                for drawn in draws.T
            ]
        )
        for name, by_seed in systems.items()
    }  # fmt: skip
    difference = again["mtl"] - again["resnet"]
    assert [row.measure for row in evaluation.comparisons] == list(MEASURES)
    for k, row in enumerate(evaluation.comparisons):
        found = getattr(evaluation.systems["mtl"], row.measure)
        assert (found.low, found.high) == pytest.approx(percentile_interval(again["mtl"][:40, k])[:2])
        assert (row.system_a, row.system_b) == ("mtl", "resnet")
        assert (row.low, row.high) == pytest.approx(percentile_interval(difference[:40, k])[:2])
        values = [getattr(evaluation.systems[name], row.measure).value for name in ("mtl", "resnet")]
        assert row.difference == pytest.approx(values[0] - values[1])
        fewer = min((difference[:, k] <= 0).sum(), (difference[:, k] >= 0).sum())
        assert row.p == pytest.approx(min(1, 2 * (1 + fewer) / 61))


def test_a_system_against_itself_differs_by_nothing(truth, systems):
    one = systems["mtl"]
    found = evaluate_retrieval(truth, {"a": one, "b": one}, n_resamples=10, n_resamples_p=20)
    assert all((row.difference, row.low, row.high, row.p) == (0, 0, 0, 1) for row in found.comparisons)
    assert evaluate_retrieval(truth, {"a": one, "b": one}, pairs=[], n_resamples=10).comparisons == []


def test_below_ten_groups_there_is_no_interval():
    truth = random_truth(np.random.default_rng(6), 60, 9, unknown=0.0)
    found = evaluate_retrieval(truth, {"a": made_folds(truth, 1.0), "b": made_folds(truth, 2.0)}, n_resamples=10, n_resamples_p=10)
    assert found.systems["a"].lesion_map_at_r.value is not None
    assert found.systems["a"].lesion_map_at_r.low is None
    assert (found.comparisons[0].low, found.comparisons[0].p) == (None, None)
    assert found.comparisons[0].difference is not None


def test_the_result_is_json_without_nan_and_frozen(evaluation):
    assert RetrievalEvaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    with pytest.raises(ValidationError):
        evaluation.top = 3
    lesions = made_truth(np.eye(12, 4), [0] * 12, space=SPACE.restricted_to(["lesion"]))
    nothing = evaluate_retrieval(lesions, {"a": made_nothing(lesions)}, n_resamples=5).systems["a"].site_map_at_r
    assert (nothing.value, nothing.chance, nothing.n_queries, nothing.n_groups) == (None, None, 0, 0)


def made_nothing(truth):
    rows = np.arange(len(truth))
    return {1: QueryScores(rows, np.full((6, len(rows)), np.nan), np.full((6, len(rows)), np.nan))}


def test_misuse_of_the_summary(truth, systems):
    one = systems["mtl"]
    some = QueryScores(one[1].rows[1:], one[1].values[:, 1:], one[1].chance[:, 1:])
    easier = QueryScores(one[1].rows, one[1].values, one[1].chance / 2)
    for wrong in ({}, {"a": {}}, {"a": one, "b": {1: some}}, {"a": one, "b": {1: easier}}):
        with pytest.raises(ValueError):
            evaluate_retrieval(truth, wrong, n_resamples=2, n_resamples_p=2)
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_retrieval(truth, {"a": one}, n_resamples=0)
    with pytest.raises(ValueError, match="cannot compare 'c'"):
        evaluate_retrieval(truth, {"a": one}, pairs=[("a", "c")])
    with pytest.raises(ValueError, match="twice"):
        QueryScores.concatenate([some, some])
    with pytest.raises(ValueError, match="shape"):
        QueryScores(one[1].rows, one[1].values[:5], one[1].chance)
