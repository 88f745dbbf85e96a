"""The whole evaluation against slow loops, and the rules it keeps: pairing, masking, folds, eligibility, machine-made labels."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from predilect.errors import TableError
from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.intervals import bootstrap_p, holm, percentile_interval, resample_groups
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth
from predilect.report.wording import verdicts

LESIONS = ("macule", "papule", "erosion/ulcer/atrophy", "scar", "erythema")
SITES = ("arm", "face", "scalp", "trunk")
SPACE = LabelSpace((Task("lesion", LESIONS, frozenset({"erythema"})), Task("site", SITES)))
N_GROUPS = 60


def made_truth(seed=0, space=SPACE):
    """Photographs in groups of one to three; `scar` on four groups only; unknown lesions and sites."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(N_GROUPS), random.integers(1, 4, N_GROUPS))
    n = len(group)
    lesions = (random.random((n, 5)) < [0.4, 0.3, 0.35, 0.0, 0.5]).astype(np.int8)
    lesions[np.isin(group, [3, 17, 30, 44]), 3] = 1
    lesions[random.random((n, 5)) < 0.1] = -1
    lesions[group == 3, 3] = 1
    sites = np.eye(4, dtype=np.int8)[random.integers(0, 4, n)]
    sites[random.random(n) < 0.1] = -1
    return Truth(
        image_ids=np.array([f"{k:06}" for k in range(n)]),
        labels=space,
        values={"lesion": lesions, "site": sites},
        groups=np.array([f"patient {k:02}" for k in group]),
        covariates=pl.DataFrame(),
    )


def folds_of(truth):
    return truth.group_indices() % 3


def made_system(truth, gain, *, seeds=(1,), tasks=("lesion", "site"), noise=0, folds=True):
    """Scores that follow the truth with the given gain; rounded, so that some are tied."""
    parts = []
    for seed in seeds:
        random = np.random.default_rng([seed, noise])
        scores = {}
        if "lesion" in tasks:
            z = random.normal(size=truth.values["lesion"].shape) + gain * (truth.values["lesion"] == 1)
            scores["lesion"] = np.round(1 / (1 + np.exp(-z)), 2).astype(np.float32)
        if "site" in tasks:
            z = np.exp(random.normal(size=truth.values["site"].shape) + gain * (truth.values["site"] == 1))
            scores["site"] = (z / z.sum(axis=1, keepdims=True)).astype(np.float32)
        parts.append(
            Predictions(
                image_ids=truth.image_ids,
                labels=truth.labels.restricted_to(tasks),
                scores=scores,
                folds=folds_of(truth) if folds else None,
                seeds=np.full(len(truth), seed),
            )
        )
    return Predictions.concatenate(parts)


def naive_ap(scores, labels):
    known = labels >= 0
    return average_precision_score(labels[known], scores[known]) if (labels[known] == 1).any() else np.nan


def naive_image_ap(truth, predictions):
    return np.array(
        [naive_ap(s, y) for s, y in zip(predictions.scores["lesion"][:, :4], truth.values["lesion"][:, :4], strict=True)]
    )


def naive_numbers(truth, predictions, image_ap, rows):
    """The headline numbers of one seed on the given rows (repeated at will), by loops."""
    lesions, scores = truth.values["lesion"][rows][:, :4], predictions.scores["lesion"][rows][:, :4]
    folds = predictions.folds[rows]
    ap = [naive_ap(scores[:, k], lesions[:, k]) for k in range(4)]
    by_fold = [
        [naive_ap(scores[folds == f, k], lesions[folds == f, k]) for f in range(3) if (lesions[folds == f, k] == 1).any()]
        for k in range(4)
    ]
    sites, site_scores = truth.values["site"][rows], predictions.scores["site"][rows]
    known = sites.max(axis=1) == 1
    rank = np.array([(s >= s[y.argmax()]).sum() for s, y in zip(site_scores[known], sites[known], strict=True)])
    site = sites[known].argmax(axis=1)
    recall = [np.mean(rank[site == j] == 1) for j in range(4) if (site == j).any()]
    return {
        "ap": ap,
        "map_class": np.nanmean(ap),
        "map_image": np.nanmean(image_ap[rows]),
        "map_class_fold_mean": np.mean([np.mean(values) for values in by_fold if values]),
        "top1": np.mean(rank == 1),
        "top3": np.mean(rank <= 3),
        "balanced_accuracy": np.mean(recall),
    }


@pytest.fixture(scope="module")
def truth():
    return made_truth()


@pytest.fixture(scope="module")
def systems(truth):
    return {
        "resnet": made_system(truth, 0.8, seeds=(1, 2), tasks=("lesion",)),
        "resnet-site": made_system(truth, 0.8, tasks=("site",), noise=1),
        "mtl": made_system(truth, 1.2, seeds=(1, 2), noise=2),
    }


@pytest.fixture(scope="module")
def evaluation(truth, systems):
    return evaluate(truth, systems, n_resamples=12, n_resamples_p=20, seed=5)


def test_all_numbers_equal_a_loop_that_repeats_rows(truth, systems, evaluation):
    seeds = systems["mtl"].by_seed()
    group = truth.group_indices()
    image_ap = {s: naive_image_ap(truth, part) for s, part in seeds.items()}
    once = {s: naive_numbers(truth, part, image_ap[s], np.arange(len(truth))) for s, part in seeds.items()}
    blocks = np.concatenate(list(resample_groups(N_GROUPS, 12, 5)), axis=1).astype(int)
    rows = [np.repeat(np.arange(len(truth)), blocks[group, b]) for b in range(12)]
    boot = [[naive_numbers(truth, part, image_ap[s], chosen) for s, part in seeds.items()] for chosen in rows]
    found = evaluation.systems["mtl"]
    for task, name in [(found.lesion, n) for n in ("map_class", "map_image", "map_class_fold_mean")] + [
        (found.site, n) for n in ("top1", "top3", "balanced_accuracy")
    ]:
        point = np.mean([numbers[name] for numbers in once.values()])
        assert getattr(task, name) == pytest.approx(point, abs=1e-9)
        for s, numbers in once.items():
            assert getattr(found.seeds[str(s)], name) == pytest.approx(numbers[name], abs=1e-9)
        values = np.array([np.mean([numbers[name] for numbers in per_seed]) for per_seed in boot])
        low, high, n_defined = percentile_interval(values, centre=point if name.startswith("map_class") else None)
        assert getattr(task, f"{name}_low") == pytest.approx(low, abs=1e-9)
        assert getattr(task, f"{name}_high") == pytest.approx(high, abs=1e-9)
        assert getattr(task, f"{name}_n_resamples_defined") == n_defined
    for k, lesion in enumerate(LESIONS[:3]):
        scores = found.lesion.per_class[lesion]
        assert scores.ap == pytest.approx(np.mean([numbers["ap"][k] for numbers in once.values()]), abs=1e-9)
        values = np.array([np.mean([numbers["ap"][k] for numbers in per_seed]) for per_seed in boot])
        assert (scores.ap_low, scores.ap_high) == pytest.approx(percentile_interval(values)[:2], abs=1e-9)


def test_comparisons_equal_a_loop_and_pair_the_resamples(truth, systems, evaluation):
    group = truth.group_indices()
    blocks = np.concatenate(list(resample_groups(N_GROUPS, 20, 5)), axis=1).astype(int)
    labels = truth.values["lesion"]
    differences = np.empty((3, 20))
    for b in range(20):
        rows = np.repeat(np.arange(len(truth)), blocks[group, b])
        for k in range(3):
            a, base = (
                np.mean([naive_ap(part.scores["lesion"][rows, k], labels[rows, k]) for part in systems[name].by_seed().values()])
                for name in ("mtl", "resnet")
            )
            differences[k, b] = a - base
    rows = {row.class_name: row for row in evaluation.comparisons if row.metric == "ap"}
    p = [bootstrap_p(d) for d in differences]
    for k, lesion in enumerate(LESIONS[:3]):
        row = rows[lesion]
        assert (row.system_a, row.system_b, row.task) == ("mtl", "resnet", "lesion")
        assert (row.low, row.high) == pytest.approx(percentile_interval(differences[k, :12])[:2], abs=1e-9)
        assert row.p == pytest.approx(p[k])
        assert row.p_holm == pytest.approx(holm(p)[k])
        points = [evaluation.systems[name].lesion.per_class[lesion].ap for name in ("mtl", "resnet")]
        assert row.difference == pytest.approx(points[0] - points[1])


def test_systems_are_compared_in_the_tasks_they_share_the_later_against_the_earlier(evaluation):
    found = {(row.system_a, row.system_b, row.task, row.metric) for row in evaluation.comparisons if row.metric != "ap"}
    assert found == {
        ("mtl", "resnet", "lesion", "map_class"),
        ("mtl", "resnet", "lesion", "map_image"),
        ("mtl", "resnet-site", "site", "top1"),
        ("mtl", "resnet-site", "site", "top3"),
        ("mtl", "resnet-site", "site", "balanced_accuracy"),
    }
    assert evaluation.systems["resnet"].site is None
    assert evaluation.systems["resnet-site"].lesion is None
    assert evaluation.systems["resnet-site"].seeds["1"].map_class is None


def test_the_difference_of_fold_means_stands_beside_map_class(evaluation):
    row = next(row for row in evaluation.comparisons if row.metric == "map_class")
    mtl, resnet = (evaluation.systems[name].lesion for name in ("mtl", "resnet"))
    assert row.fold_mean_difference == pytest.approx(mtl.map_class_fold_mean - resnet.map_class_fold_mean)
    assert all(other.fold_mean_difference is None for other in evaluation.comparisons if other is not row)


def test_a_class_with_few_positive_groups_has_a_number_but_no_interval_no_p_and_no_place_in_holms_family(evaluation):
    scar = evaluation.systems["mtl"].lesion.per_class["scar"]
    assert 0 < scar.n_positive_groups < 10
    assert scar.ap is not None
    assert scar.ap_low is None
    assert scar.ap_high is None
    row = next(row for row in evaluation.comparisons if row.class_name == "scar")
    assert row.difference is not None
    assert (row.low, row.high, row.p, row.p_holm) == (None, None, None, None)
    family = [row for row in evaluation.comparisons if row.p_holm is not None]
    assert {row.class_name for row in family} == set(LESIONS[:3])


def test_machine_made_lesions_have_a_row_but_count_nowhere(truth, systems, evaluation):
    lesion = evaluation.systems["mtl"].lesion
    assert lesion.per_class["erythema"].machine_made
    assert lesion.per_class["erythema"].ap is not None
    assert lesion.n_classes_defined == 4
    assert lesion.map_class == pytest.approx(np.mean([lesion.per_class[name].ap for name in LESIONS[:4]]))
    row = next(row for row in evaluation.comparisons if row.class_name == "erythema")
    assert row.low is not None
    assert (row.p, row.p_holm) == (None, None)
    assert evaluation.truth.machine_made == ("erythema",)
    by_hand = evaluate(made_truth(space=LabelSpace((Task("lesion", LESIONS), SPACE["site"]))), systems, n_resamples=1, pairs=[])
    assert by_hand.systems["mtl"].lesion.n_classes_defined == 5
    assert by_hand.systems["mtl"].lesion.map_image != lesion.map_image


def test_machine_made_lesions_count_where_asked_for_and_stay_marked_without_a_p(truth, systems):
    drawn = {"n_resamples": 200, "n_resamples_p": 200}
    asked = evaluate(truth, systems, **drawn, count_machine_made=True)
    unmarked = evaluate(made_truth(space=LabelSpace((Task("lesion", LESIONS), SPACE["site"]))), systems, **drawn)
    for name, system in asked.systems.items():
        if system.lesion is None:
            continue
        other = unmarked.systems[name].lesion
        marks = {lesion: item.machine_made for lesion, item in system.lesion.per_class.items()}
        assert marks == {lesion: lesion == "erythema" for lesion in LESIONS}
        plain = {lesion: item.model_copy(update={"machine_made": False}) for lesion, item in system.lesion.per_class.items()}
        assert system.lesion.model_copy(update={"per_class": plain}) == other
    assert (asked.truth.machine_made, asked.truth.machine_made_counted) == (("erythema",), True)
    without_p = {row.class_name for row in asked.comparisons if row.metric == "ap" and row.p is None}
    assert without_p == {"erythema", "scar"}
    headlines = [[row for row in each.comparisons if row.class_name is None] for each in (asked, unmarked)]
    assert headlines[0] == headlines[1]
    assert {item.lesion for pair in asked.gains for item in pair.lesions} <= {*LESIONS} - {"erythema"}


def test_counts(truth, evaluation):
    labels = truth.values["lesion"]
    found = evaluation.systems["resnet"].lesion
    for k, name in enumerate(LESIONS):
        assert found.per_class[name].n_positive == (labels[:, k] == 1).sum()
        assert found.per_class[name].n_known == (labels[:, k] >= 0).sum()
        assert found.per_class[name].n_positive_groups == len(set(truth.groups[labels[:, k] == 1]))
    assert found.n_images_defined == (labels[:, :4] == 1).any(axis=1).sum()
    sites = truth.values["site"]
    site = evaluation.systems["mtl"].site
    assert site.n_images_defined == (sites == 1).sum()
    assert site.per_class["face"].n_images == (sites[:, 1] == 1).sum()
    assert evaluation.truth.n_images == len(truth)
    assert evaluation.truth.n_groups == N_GROUPS
    assert evaluation.truth.grouped
    assert evaluation.truth.n_site_known == (sites == 1).sum()
    balance = evaluation.folds
    assert balance.folds == (0, 1, 2)
    assert sum(balance.n_images) == len(truth)
    assert balance.n_groups == (20, 20, 20)
    assert [row.name for row in balance.classes] == [*LESIONS, *SITES]
    assert balance.classes[0].n_positive == tuple((labels[folds_of(truth) == f, 0] == 1).sum() for f in range(3))
    assert evaluation.predilection.sites == SITES


def test_the_order_of_rows_in_any_table_does_not_matter(truth, systems, evaluation):
    random = np.random.default_rng(9)
    shuffled = {name: table.take(random.permutation(len(table))) for name, table in systems.items()}
    again = evaluate(truth.take(random.permutation(len(truth))), shuffled, n_resamples=12, n_resamples_p=20, seed=5)
    ours, theirs = (json.loads(result.model_dump_json()) for result in (evaluation, again))
    assert ours["folds"] == theirs["folds"]
    assert pytest.approx(_numbers(ours), abs=1e-9) == _numbers(theirs)


def _numbers(value):
    """All numbers of a JSON value, in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in _numbers(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def test_other_systems_do_not_change_a_systems_numbers(truth, systems, evaluation):
    alone = evaluate(truth, {"mtl": systems["mtl"]}, n_resamples=12, n_resamples_p=20, seed=5)
    assert alone.systems["mtl"] == evaluation.systems["mtl"]
    assert alone.comparisons == []


def test_a_system_compared_with_itself_differs_in_nothing(truth, systems):
    result = evaluate(truth, {"a": systems["mtl"], "b": systems["mtl"]}, n_resamples=20, n_resamples_p=20)
    assert len(result.comparisons) == 2 + 5 + 3
    for row in result.comparisons:
        assert row.difference == 0
        assert row.p in {1.0, None}


def test_the_better_system_wins_clearly(truth):
    result = evaluate(truth, {"resnet": made_system(truth, 0.2), "mtl": made_system(truth, 3.0, noise=1)}, n_resamples=200)
    row = next(row for row in result.comparisons if row.metric == "map_class")
    assert row.low > 0
    assert row.p == pytest.approx(2 / 10_001)


def test_pairs_can_be_chosen(truth, systems):
    result = evaluate(truth, systems, n_resamples=5, n_resamples_p=5, pairs=[("resnet", "mtl")])
    assert {(row.system_a, row.system_b) for row in result.comparisons} == {("resnet", "mtl")}
    with pytest.raises(ValueError, match="cannot compare 'vgg', the systems are resnet, resnet-site, mtl"):
        evaluate(truth, systems, pairs=[("vgg", "mtl")])


def test_without_groups_each_photograph_is_its_own(truth, systems):
    alone = Truth(truth.image_ids, truth.labels, truth.values, None, truth.covariates)
    result = evaluate(alone, {"mtl": systems["mtl"]}, n_resamples=5)
    assert not result.truth.grouped
    assert result.truth.n_groups == len(truth)


def test_without_folds_there_is_no_fold_mean(truth):
    tables = {"resnet": made_system(truth, 1, folds=False), "mtl": made_system(truth, 1, noise=1, folds=False)}
    result = evaluate(truth, tables, n_resamples=5, n_resamples_p=5)
    assert result.folds is None
    for system in result.systems.values():
        assert (system.lesion.map_class_fold_mean, system.lesion.map_class_fold_mean_low) == (None, None)
        assert system.lesion.map_class_fold_mean_n_resamples_defined == 0
    assert next(row for row in result.comparisons if row.metric == "map_class").fold_mean_difference is None


def test_folds_that_one_table_names_hold_for_all(truth):
    named = {"resnet": made_system(truth, 0.5), "mtl": made_system(truth, 3, noise=1)}
    bare = made_system(truth, 0.5, folds=False)
    shuffled = bare.take(np.random.default_rng(1).permutation(len(bare)))
    both = evaluate(truth, named, n_resamples=30, n_resamples_p=100)
    assert evaluate(truth, named | {"resnet": shuffled}, n_resamples=30, n_resamples_p=100) == both
    row = next(row for row in both.comparisons if row.metric == "map_class")
    assert row.fold_mean_difference is not None
    assert "the mean over folds agrees in sign" in verdicts(both)[0].sentence


def test_gain_stands_beside_predilection_for_the_system_that_learned_both_tasks(truth, evaluation):
    [gains] = evaluation.gains
    assert (gains.system_a, gains.system_b) == ("mtl", "resnet")
    assert [row.lesion for row in gains.lesions] == list(LESIONS[:3])  # scar is in four groups, erythema machine-made
    rows = {row.class_name: row for row in evaluation.comparisons if row.metric == "ap"}
    for gain in gains.lesions:
        row = rows[gain.lesion]
        assert (gain.gain, gain.gain_low, gain.gain_high) == (row.difference, row.low, row.high)


def test_progress_is_told_to_the_end(truth, systems):
    told = []
    evaluate(truth, systems, n_resamples=10, n_resamples_p=300, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (300, 300)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_nothing_known_is_null_everywhere_and_valid_json(truth, systems):
    blank = Truth(
        truth.image_ids, SPACE, {name: np.full_like(v, -1) for name, v in truth.values.items()}, truth.groups, truth.covariates
    )
    result = evaluate(blank, systems, n_resamples=5, n_resamples_p=5)
    assert result.systems["mtl"].lesion.map_class is None
    assert result.systems["mtl"].lesion.map_class_n_resamples_defined == 0
    assert result.systems["mtl"].site.top1 is None
    assert all(row.difference is None and row.p is None for row in result.comparisons)
    assert "NaN" not in result.model_dump_json()


def test_few_groups_give_no_interval_at_all(truth, systems):
    rows = np.flatnonzero(truth.group_indices() < 9)
    few = {"mtl": Predictions.concatenate([part.take(rows) for part in systems["mtl"].by_seed().values()])}
    result = evaluate(truth.take(rows), few, n_resamples=20)
    assert result.systems["mtl"].lesion.map_class is not None
    assert result.systems["mtl"].lesion.map_class_low is None
    assert result.systems["mtl"].site.top1_high is None


@pytest.mark.parametrize("n", [(0, 10), (10, 0)])
def test_numbers_of_resamples_are_at_least_one(truth, systems, n):
    with pytest.raises(ValueError, match="at least 1, found"):
        evaluate(truth, systems, n_resamples=n[0], n_resamples_p=n[1])


def test_there_must_be_a_system(truth):
    with pytest.raises(ValueError, match="no system"):
        evaluate(truth, {})


def with_folds(table, folds, origin):
    return Predictions(table.image_ids, table.labels, table.scores, folds, table.seeds, origin)


def test_folds_must_agree_between_systems_and_seeds(truth, systems):
    table = systems["resnet-site"]
    other = table.folds.copy()
    other[truth.group_indices() == 4] = 2
    row = int(np.flatnonzero(truth.group_indices() == 4)[0])
    message = f"other.csv: image_id '{row:06}' was held out in fold 2, but in fold 1 in"
    with pytest.raises(TableError, match=message):
        evaluate(truth, {"mtl": systems["mtl"], "other": with_folds(table, other, "other.csv")})


def test_a_group_in_two_folds_is_an_error(truth, systems):
    torn = systems["resnet-site"].folds.copy()
    group = truth.group_indices()
    rows = np.flatnonzero(np.bincount(group)[group] > 1)[:2]
    assert group[rows[0]] == group[rows[1]]
    torn[rows[1]] = (torn[rows[0]] + 1) % 3
    with pytest.raises(TableError, match=r"t\.csv: '\d+' and '\d+' are of one group but lie in folds \d and \d"):
        evaluate(truth, {"x": with_folds(systems["resnet-site"], torn, "t.csv")})


def test_the_tuning_slice_is_scored_alone_or_not_at_all(truth, systems):
    folds = systems["resnet-site"].folds - 1
    with pytest.raises(TableError, match=r"t\.csv: image_id '\d+' lies in fold -1; allowed are folds from 0, or the tuning slice"):
        evaluate(truth, {"x": with_folds(systems["resnet-site"], folds, "t.csv")})
    alone = with_folds(systems["resnet-site"], np.full_like(folds, -1), "t.csv")
    evaluation = evaluate(truth, {"x": alone}, n_resamples=20, n_resamples_p=20)
    assert evaluation.folds.folds == (-1,)
    assert (
        evaluation.systems["x"].site.top1
        == evaluate(truth, systems, n_resamples=20, n_resamples_p=20).systems["resnet-site"].site.top1
    )


def test_a_missing_photograph_is_an_error(truth, systems):
    table = systems["resnet-site"]
    with pytest.raises(TableError, match="has no row for image_id '000000'"):
        evaluate(truth, {"x": table.take(np.arange(1, len(table)))})
