"""Eq. 1 and its lift, and the strength of predilection: worked by hand, against loops, and by simulation."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from predilect.evaluation import predilection
from predilect.evaluation.intervals import resample_groups
from predilect.evaluation.predilection import PredilectionStrength, permuted_sites, predilection_map
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Truth
from predilect.randomness import stream


def truth_of(lesions, sites, n_sites=2, groups=None):
    """A truth from lesion labels (N, P), site numbers, -1 for unknown, and group numbers."""
    lesions = np.array(lesions, dtype=np.int8)
    one_hot = np.array([[-1] * n_sites if s < 0 else [int(s == k) for k in range(n_sites)] for s in sites], dtype=np.int8)
    space = LabelSpace(
        (Task("lesion", tuple(f"l{k}" for k in range(lesions.shape[1]))), Task("site", tuple(f"s{k}" for k in range(n_sites))))
    )
    ids = np.array([f"i{k:05}" for k in range(len(lesions))])
    names = None if groups is None else np.array([f"g{k:04}" for k in groups])
    return Truth(ids, space, {"lesion": lesions, "site": one_hot}, names, pl.DataFrame())


def once(truth):
    """Each group drawn once."""
    return np.ones((truth.group_indices().max() + 1, 1), dtype=np.float32)


def grouped_truth(seed, *, shared, n_groups=500, rates=(0.03, 0.1, 0.3, 0.7), copies=30, n_sites=10):
    """Lesions without any predilection, of all rarities, on groups of one to three photographs.

    `shared` is the share of photographs that show the site of their group; a photograph of a group that has a lesion shows it
    mostly; every tenth label is unknown. Sites are as unequal as 1/1 to 1/Q.
    """
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), random.integers(1, 4, n_groups))
    n = len(groups)
    p = 1 / np.arange(1, n_sites + 1)
    of_group, own = (random.choice(n_sites, size, p=p / p.sum()) for size in (n_groups, n))
    sites = np.where(random.random(n) < shared, of_group[groups], own)
    has = random.random((n_groups, len(rates) * copies)) < np.repeat(rates, copies)
    lesions = (has[groups] & (random.random((n, has.shape[1])) < 0.7)).astype(np.int8)
    lesions[random.random(lesions.shape) < 0.1] = -1
    return truth_of(lesions, sites, n_sites, groups)


def test_eq_1_worked_by_hand():
    # Four photographs of site 0, two of site 1, one of unknown site. Lesion 0 is on three of site 0 and one of site 1; lesion 1
    # was not assessed on two of site 0, so its base rates are 2/4 and 2/4; lesion 2 is on the unknown site only.
    truth = truth_of(
        [[1, 1, 0], [1, 0, 0], [1, -1, 0], [0, -1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]],
        [0, 0, 0, 0, 1, 1, -1],
    )
    found = predilection_map(truth)
    assert found.lesions == ("l0", "l1", "l2")
    assert found.sites == ("s0", "s1")
    assert found.n_lesion == (4, 2, 0)
    assert found.n_site == (4, 2)
    assert found.ratio == ((3 / 4, 1 / 4), (1 / 2, 1 / 2), (None, None))
    assert found.lift[0] == pytest.approx(((3 / 4) / (4 / 6), (1 / 4) / (2 / 6)))
    assert found.lift[1] == pytest.approx((1.0, 1.0))
    assert found.lift[2] == (None, None)


def test_a_site_without_assessed_photographs_has_no_lift():
    found = predilection_map(truth_of([[1], [0], [-1]], [0, 0, 1]))
    assert found.ratio == ((1.0, 0.0),)
    assert found.lift == ((1.0, None),)


def test_the_map_equals_a_loop_over_photographs():
    random = np.random.default_rng(0)
    lesions = random.choice([-1, 0, 1], (200, 4))
    sites = random.integers(-1, 3, 200)
    found = predilection_map(truth_of(lesions, sites, n_sites=3))
    for i in range(4):
        with_lesion = [s for lesion, s in zip(lesions[:, i], sites, strict=True) if lesion == 1 and s >= 0]
        assessed = [s for lesion, s in zip(lesions[:, i], sites, strict=True) if lesion >= 0 and s >= 0]
        assert found.n_lesion[i] == len(with_lesion)
        for j in range(3):
            share = with_lesion.count(j) / len(with_lesion)
            assert found.ratio[i][j] == pytest.approx(share)
            assert found.lift[i][j] == pytest.approx(share / (assessed.count(j) / len(assessed)))
        assert sum(found.ratio[i]) == pytest.approx(1.0)


def test_both_tasks_are_needed():
    space = LabelSpace((Task("lesion", ("macule",)),))
    truth = Truth(np.array(["a"]), space, {"lesion": np.ones((1, 1), dtype=np.int8)}, None, pl.DataFrame())
    with pytest.raises(ValueError, match="need labels of lesion and site, found lesion"):
        predilection_map(truth)
    with pytest.raises(ValueError, match="need labels of lesion and site, found lesion"):
        PredilectionStrength.of(truth, np.array([0]), seed=0)


def test_the_divergence_worked_by_hand():
    # Lesion 0 is on both photographs of site 0 and nowhere else: log2(1 / (1/2)). Lesion 1 is on one of each site, as the base is.
    # Lesion 2 was not assessed on one of site 1: its base is 2/3 and 1/3. The photograph of unknown site counts nowhere.
    truth = truth_of([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 0, 1]], [0, 0, 1, 1, -1])
    measure = PredilectionStrength.of(truth, np.arange(3), seed=0, n_permutations=1)
    assert measure.raw(once(truth))[:, 0] == pytest.approx([1.0, 0.0, np.log2(3 / 2)])
    # The third photograph three times, the second and fourth never: base 1/4 and 3/4, lesion 1 likewise.
    drawn = np.array([[1], [0], [3], [0], [1]], dtype=np.float32)
    assert measure.raw(drawn)[:, 0] == pytest.approx([2.0, 0.0, 2.0])
    gone = np.array([[0], [0], [1], [1], [3]], dtype=np.float32)
    assert np.isnan(measure.raw(gone)[:, 0]).tolist() == [True, False, True]
    assert np.isnan(measure.corrected(gone)[:, 0]).tolist() == [True, False, True]


def test_the_divergence_is_the_mean_log_lift_of_the_map():
    truth = grouped_truth(1, shared=0.5, n_groups=60, rates=(0.4, 0.8), copies=2, n_sites=4)
    found = predilection_map(truth)
    expected = [
        sum(r * np.log2(lift) for r, lift in zip(*rows, strict=True) if r) for rows in zip(found.ratio, found.lift, strict=True)
    ]
    measure = PredilectionStrength.of(truth, np.arange(4), seed=0, n_permutations=1)
    assert measure.raw(once(truth))[:, 0] == pytest.approx(expected)


def test_strength_equals_a_loop_that_repeats_rows_and_permutes_under_the_same_repetition():
    truth = grouped_truth(2, shared=0.5, n_groups=60, rates=(0.4, 0.8), copies=2, n_sites=4)
    lesions = np.array([0, 2, 3])
    groups, labels, sites = truth.group_indices(), truth.values["lesion"], truth.values["site"].argmax(axis=1)
    blocks = np.concatenate(list(resample_groups(60, 5, 3)), axis=1)
    measure = PredilectionStrength.of(truth, lesions, seed=7, n_permutations=6)
    # Rows are in the order of groups and image_id here, which is that in which sites are permuted.
    permuted = [permuted_sites(sites, groups, stream(7, "sites over groups", k)) for k in range(6)]

    def divergence(sites, rows, lesion):
        label, site = labels[rows, lesion], sites[rows]
        return entropy(np.bincount(site[label == 1], minlength=4), np.bincount(site[label >= 0], minlength=4), base=2)

    for b in range(5):
        rows = np.repeat(np.arange(len(truth)), blocks[groups, b].astype(int))
        raw = [divergence(sites, rows, lesion) for lesion in lesions]
        null = [np.mean([divergence(other, rows, lesion) for other in permuted]) for lesion in lesions]
        assert measure.raw(blocks)[:, b] == pytest.approx(raw)
        assert measure.corrected(blocks)[:, b] == pytest.approx(np.subtract(raw, null))


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_without_predilection_strength_is_near_0_at_any_rarity_also_in_resamples(shared):
    truth = grouped_truth(0, shared=shared)
    measure = PredilectionStrength.of(truth, np.arange(120), seed=0, n_permutations=30)
    raw, strength = (values.reshape(4, 30) for values in (measure.raw(once(truth)), measure.corrected(once(truth))))
    assert (raw[0].mean() > 0.3) & (raw[0].mean() > 20 * raw[3].mean())  # rare lesions seem to have predilections
    error = strength.std(axis=1) / np.sqrt(30)
    assert (np.abs(strength.mean(axis=1)) < 3.5 * error).all()
    # A resample's raw divergence is more inflated than the table's; its own null takes that away too.
    drawn = next(resample_groups(500, 40, 0))
    raw_drawn, strength_drawn = (
        np.nanmean(values, axis=1).reshape(4, 30) for values in (measure.raw(drawn), measure.corrected(drawn))
    )
    assert (raw_drawn.mean(axis=1) > 1.3 * raw.mean(axis=1)).all()
    assert (np.abs(strength_drawn.mean(axis=1)) < 4 * error).all()


def test_photographs_of_one_group_do_not_count_as_independent():
    truth = grouped_truth(3, shared=1.0)
    apart = Truth(truth.image_ids, truth.labels, truth.values, None, truth.covariates)
    together, alone = (
        PredilectionStrength.of(table, np.arange(30, 60), seed=0, n_permutations=30).corrected(once(table))
        for table in (truth, apart)
    )
    assert alone.mean() > 5 * alone.std() / np.sqrt(30) > 0
    assert abs(together.mean()) < alone.mean() / 3


def test_a_planted_predilection_keeps_its_strength():
    random = np.random.default_rng(4)
    sites = random.integers(0, 4, 2_000)
    everywhere = random.random(2_000) < 0.2
    truth = truth_of(np.column_stack([(sites == 2) & everywhere, everywhere]), sites, 4)
    measure = PredilectionStrength.of(truth, np.array([0, 1]), seed=0)
    bound, free = measure.corrected(once(truth))[:, 0]
    assert bound == pytest.approx(2.0, abs=0.1)  # bits: one of four sites
    assert abs(free) < 0.02


def test_strength_depends_neither_on_the_order_of_rows_nor_on_threads(monkeypatch):
    truth = grouped_truth(5, shared=0.5, n_groups=80, copies=2)
    drawn = next(resample_groups(80, 5, 0))
    expected = PredilectionStrength.of(truth, np.arange(8), seed=1, n_permutations=10).corrected(drawn)
    shuffled = truth.take(np.random.default_rng(0).permutation(len(truth)))
    again = PredilectionStrength.of(shuffled, np.arange(8), seed=1, n_permutations=10)
    assert np.array_equal(again.corrected(drawn), expected, equal_nan=True)
    monkeypatch.setattr(predilection, "ThreadPoolExecutor", lambda: ThreadPoolExecutor(1))
    assert np.array_equal(again.corrected(drawn), expected, equal_nan=True)
    other = PredilectionStrength.of(truth, np.arange(8), seed=2, n_permutations=10).corrected(drawn)
    assert not np.array_equal(other, expected, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 2**32))
def test_each_group_takes_over_the_sites_of_one_alike(sizes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    # Each photograph's site is its own number, so that the one it came from can be told.
    found = permuted_sites(np.arange(len(groups)), groups, np.random.default_rng(seed))
    givers = []
    for k, size in enumerate(sizes):
        received = found[groups == k]
        assert len(set(groups[received])) == 1
        giver = int(groups[received[0]])
        givers.append(giver)
        if sizes.count(size) >= 10:
            assert sizes[giver] == size
        else:
            assert sizes[giver].bit_length() == size.bit_length()
        often = Counter(received.tolist())
        assert len(often) == min(size, sizes[giver])
        assert max(often.values()) - min(often.values()) <= 1
    assert sorted(givers) == list(range(len(sizes)))


def test_groups_and_sites_within_groups_are_shuffled_evenly():
    found = np.array([permuted_sites(np.arange(6), np.array([0, 0, 1, 1, 2, 2]), np.random.default_rng(k)) for k in range(600)])
    for photograph in range(6):
        assert np.bincount(found[:, photograph], minlength=6) == pytest.approx(100, abs=40)


@pytest.mark.parametrize(("sites", "lesions", "n"), [([-1, -1], [0], 5), ([0, 1], [], 5), ([0, 1], [0], 0)])
def test_nothing_to_measure_is_misuse(sites, lesions, n):
    with pytest.raises(ValueError, match="known sites"):
        PredilectionStrength.of(truth_of([[1], [0]], sites), np.array(lesions, dtype=np.int64), seed=0, n_permutations=n)
