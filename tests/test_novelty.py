"""Distances against those of held-out photographs: what is usual, from where on there is a warning, and how often it is false."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from predilect.evaluation.novelty import Novelty, fit_novelty, relative_distances


def patients(random, n_groups):
    """Groups that differ in how far they lie, of one to five photographs."""
    group = np.repeat(np.arange(n_groups), random.integers(1, 6, n_groups))
    return np.exp(0.5 * random.normal(size=n_groups)[group] + 0.3 * random.normal(size=len(group))), group


def test_one_photograph_each_gives_the_usual_conformal_p_value():
    far = np.random.default_rng(0).gamma(3, size=200)
    found = fit_novelty(far, np.arange(200), false_alarm_rate=0.05)
    # Rank from the top, the photograph itself counted among the reference.
    assert found.beyond_it(far)[far.argsort()[-50:]] == pytest.approx((rankdata(-far)[far.argsort()[-50:]] + 1) / 201, rel=0.03)
    assert found.beyond_it(np.array([0.0])) == [1.0]
    # 1 + 9 of 201 are not more than a twentieth; 1 + 10 are.
    assert found.threshold == np.sort(far)[-10]
    assert found.warns(far).sum() == 9


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1]))
def test_shares_count_each_group_by_its_photographs(seed, rate):
    far, group = patients(np.random.default_rng(seed), 80)
    found = fit_novelty(far, group, false_alarm_rate=rate)
    for distance in np.r_[far[:5], found.distances[-1]]:
        exact = (sum((far[group == g] >= distance).mean() for g in range(80)) + 1) / 81
        assert exact - 1e-9 <= found.beyond_it(np.array([distance]))[0] <= 1.08 * exact
    warned = sum((far[group == g] > found.threshold).mean() for g in range(80)) if found.threshold is not None else 0
    assert warned + 1 <= rate * 81 + 1e-9 or found.threshold is None


def test_copies_of_photographs_are_no_further_evidence():
    far, group = patients(np.random.default_rng(1), 50)
    assert fit_novelty(np.tile(far, 4), np.tile(group, 4)) == fit_novelty(far, group)


@pytest.mark.parametrize(("n", "warns"), [(98, False), (99, True)])
def test_too_few_groups_never_warn(n, warns):
    found = fit_novelty(np.arange(n, dtype=float), np.arange(n), false_alarm_rate=0.01)
    assert (found.threshold is not None) == warns
    assert found.warns(np.array([1e9]))[0] == warns
    assert not found.warns(np.array([float(n - 1)]))[0]


def test_what_is_stored_stays_small():
    found = fit_novelty(np.random.default_rng(0).gamma(3, size=50_000), np.arange(50_000))
    assert 200 < len(found.distances) <= 500
    assert found.warns(np.array([found.threshold, np.nextafter(found.threshold, 99)])).tolist() == [False, True]


def test_equal_distances_are_one_step():
    found = fit_novelty(np.array([0.0, 0.0, 2.0, 2.0]), np.arange(4), false_alarm_rate=0.5)
    assert found.distances == (0.0, 2.0)
    assert found.beyond == pytest.approx((1.0, 3 / 5))
    assert found.beyond_it(np.array([0.0, 1.0, 2.0, 3.0])) == pytest.approx([1.0, 1.0, 0.6, 0.6])


def test_json_gives_back_the_same():
    found = fit_novelty(*patients(np.random.default_rng(2), 300))
    stored = json.loads(json.dumps(found.to_json()))
    assert Novelty.from_json(stored) == found
    for key, value, message in (
        ("distances", stored["distances"][::-1], "distances rise and shares fall"),
        ("beyond", stored["beyond"][1:], "a share for each distance"),
        ("distances", [], "a share for each distance"),
        ("false_alarm_rate", 0.0, "greater than 0"),
        ("k", 0, "greater than or equal to 1"),
        ("threshold", -1.0, "greater than or equal to 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Novelty.from_json({**stored, key: value})


@pytest.mark.parametrize("far", [[], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_misuse(far):
    with pytest.raises(ValueError, match="finite numbers from 0 up"):
        fit_novelty(np.array(far), np.arange(len(far)))


def test_distances_in_multiples_of_the_usual_one():
    assert relative_distances(np.array([1.0, 4.0]), np.array([1.0, 2.0, 9.0])).tolist() == [0.5, 2.0]
    for of_training in ([], [0.0, 0.0, 3.0]):
        with pytest.raises(ValueError, match="no scale"):
            relative_distances(np.array([1.0]), np.array(of_training))


def test_new_patients_are_warned_of_as_rarely_as_was_promised():
    """One random photograph of each; both halves are drawn anew in each of 400 repetitions."""
    random = np.random.default_rng(5)
    rates = []
    for _ in range(400):
        far, group = patients(random, 160)
        new = group >= 60
        found = fit_novelty(far[~new], group[~new], false_alarm_rate=0.1)
        order = random.permutation(np.flatnonzero(new))
        one_each = order[np.unique(group[order], return_index=True)[1]]
        rates.append(found.warns(far[one_each]).mean())
    assert 0.06 < np.mean(rates) <= 0.1 + 2 * np.std(rates) / 20
