"""Thresholds against a search through all of them, what they aim at, and when nothing is decided."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import f1_score, precision_recall_curve

from predilect.evaluation.decisions import Aim, Thresholds, fit_thresholds
from predilect.labels.tasks import Task

TASK = Task("lesion", ("crust",))


def fitted(probabilities, labels, aim=None, groups=None):
    probabilities, labels = np.asarray(probabilities, dtype=np.float32), np.asarray(labels, dtype=np.int8)
    groups = np.arange(len(labels)) if groups is None else groups
    return fit_thresholds(TASK, probabilities[:, None], labels[:, None], groups, aim or Aim())


def drawn(seed, n=120, decimals=2):
    random = np.random.default_rng(seed)
    z = random.normal(size=n) - 1
    labels = (random.random(n) < expit(z)).astype(np.int8)
    labels[:10], labels[-10:] = 1, 0
    return np.round(expit(z + 0.5 * random.normal(size=n)), decimals), labels


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5]))
def test_no_threshold_has_a_larger_f1_and_no_higher_one_the_same(seed, decimals):
    probabilities, labels = drawn(seed, decimals=decimals)
    threshold = fitted(probabilities, labels).lesions[0].threshold
    precision, recall, steps = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    chosen = np.searchsorted(steps, threshold)  # the lowest score that is called present
    assert f1[chosen] == pytest.approx(f1.max())
    assert (f1[chosen + 1 :] < f1.max() - 1e-12).all()


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_a_sensitivity_is_reached_by_the_highest_threshold_that_does(seed, sensitivity):
    probabilities, labels = drawn(seed)
    threshold = fitted(probabilities, labels, Aim("sensitivity", sensitivity)).lesions[0].threshold
    _, recall, steps = precision_recall_curve(labels, probabilities)
    chosen = np.searchsorted(steps, threshold)
    assert recall[chosen] >= sensitivity - 1e-12
    assert (recall[chosen + 1 :] < sensitivity).all()


def test_of_calibrated_probabilities_the_best_threshold_is_half_the_best_f1():
    """Lipton, Elkan and Narayanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", 2014."""
    random = np.random.default_rng(3)
    probabilities = random.beta(1, 4, 60_000)
    labels = random.random(60_000) < probabilities
    threshold = fitted(probabilities, labels).lesions[0].threshold
    best = f1_score(labels, probabilities >= threshold)
    assert threshold == pytest.approx(best / 2, abs=0.03)
    assert f1_score(labels, probabilities >= best / 2) == pytest.approx(best, abs=0.002)


def test_a_threshold_lies_halfway_between_two_scores():
    probabilities = np.r_[np.full(10, 0.2), np.full(10, 0.8)]
    assert fitted(probabilities, np.r_[np.zeros(10), np.ones(10)]).lesions[0].threshold == pytest.approx(0.5)
    # Everything must be called present: halfway between the lowest score and 0.
    assert fitted(probabilities, np.r_[np.ones(10), np.zeros(10)], Aim("sensitivity", 0.99)).lesions[0].threshold == pytest.approx(
        0.1
    )


def test_unknown_labels_are_left_out():
    probabilities, labels = drawn(5)
    labels[20:60] = -1
    changed = np.where(labels == -1, 1 - probabilities, probabilities)
    assert fitted(probabilities, labels) == fitted(changed, labels)


@pytest.mark.parametrize(("n_positive", "n_negative", "decided"), [(10, 10, True), (9, 50, False), (50, 9, False)])
def test_below_ten_groups_nothing_is_decided(n_positive, n_negative, decided):
    labels = np.repeat(np.r_[np.ones(n_positive), np.zeros(n_negative)], 2)
    groups = np.repeat(np.arange(n_positive + n_negative), 2)
    found = fitted(np.linspace(1, 0, len(labels)), labels, groups=groups)
    item = found.lesions[0]
    assert (item.n_positive_groups, item.n_negative_groups) == (n_positive, n_negative)
    assert (item.threshold is not None) == decided
    assert set(found.apply(np.array([[0.0], [1.0]])).ravel().tolist()) == ({0, 1} if decided else {-1})


def test_machine_made_lesions_are_flagged():
    probabilities, labels = drawn(1)
    task = Task("lesion", ("crust", "by a model"), frozenset({"by a model"}))
    found = fit_thresholds(task, np.stack([probabilities] * 2, axis=1), np.stack([labels] * 2, axis=1), np.arange(120), Aim())
    assert [item.machine_made for item in found.lesions] == [False, True]
    assert found.lesions[0].threshold == found.lesions[1].threshold


def test_aims_are_read_as_they_are_written():
    assert Aim.parse("f1") == Aim()
    assert Aim.parse("sensitivity=0.9") == Aim("sensitivity", 0.9)
    for aim in (Aim(), Aim("sensitivity", 0.95)):
        assert Aim.parse(str(aim)) == aim
    for text in ("F1", "f1=0.9", "sensitivity", "sensitivity=", "sensitivity=90%", "specificity=0.9", ""):
        with pytest.raises(ValueError, match=r"^an aim is 'f1' or, for example, 'sensitivity=0\.9', found"):
            Aim.parse(text)
    with pytest.raises(ValueError, match="found nan"):
        Aim.parse("sensitivity=nan")
    for arguments in (("f1", 0.9), ("sensitivity", None)):
        with pytest.raises(ValueError, match="sensitivity"):
            Aim(*arguments)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.9999, 1.0, 1.2, 90.0])
def test_a_sensitivity_that_says_nothing_is_refused_with_what_is_allowed(share):
    said = rf"a sensitivity to aim at lies above 0\.1 and below 0\.9999, found {share}"
    with pytest.raises(ValueError, match=f"^{said}$"):
        Aim.parse(f"sensitivity={share}")


@pytest.mark.parametrize("share", [0.0, 1.2, 90.0])
def test_a_bundle_cannot_hold_a_sensitivity_that_is_no_share(share):
    assert Aim("sensitivity", 1.0).sensitivity == 1  # as one may hold that was made when it could be asked for
    with pytest.raises(ValueError, match=r"should be (greater than 0|less than or equal to 1)"):
        Aim("sensitivity", share)


@pytest.mark.parametrize(("sensitivity", "told"), [(0.9, False), (0.95, True), (0.999, True)])
def test_an_aim_that_so_few_groups_cannot_promise_is_told(sensitivity, told):
    task = Task("lesion", ("crust", "papule", "rare"))
    labels = np.zeros((200, 3), dtype=np.int8)
    labels[:12, 0] = labels[:18, 1] = labels[:9, 2] = 1  # in 9 groups, too few for any threshold
    probabilities = np.linspace(1, 0, 200)[:, None].repeat(3, axis=1)
    found = fit_thresholds(task, probabilities, labels, np.arange(200), Aim("sensitivity", sensitivity))
    needed = {0.95: 19, 0.999: 999}.get(sensitivity)
    sentence = (
        f"A sensitivity of {sensitivity:g} cannot be promised for 2 of the 2 that are decided on: it takes {needed} groups that show the lesion, and they "
        f"have 12 to 18."
    )
    assert found.unreached() == (sentence if told else None)
    assert fit_thresholds(task, probabilities, labels, np.arange(200), Aim()).unreached() is None


def test_one_group_more_and_the_aim_can_be_promised():
    for n, told in ((18, True), (19, False)):
        labels = np.r_[np.ones(n), np.zeros(30)]
        found = fitted(np.linspace(1, 0, n + 30), labels, Aim("sensitivity", 0.95))
        assert (found.unreached() is not None) == told


def test_json_gives_back_the_same_thresholds():
    probabilities, labels = drawn(2)
    found = fitted(probabilities, labels, Aim("sensitivity", 0.9))
    stored = json.loads(json.dumps(found.to_json()))
    assert Thresholds.from_json(stored) == found
    stored["lesions"][0]["threshold"] = 1.5
    with pytest.raises(ValueError, match=r"lesions\.0\.threshold: .*less than or equal to 1"):
        Thresholds.from_json(stored)


def test_thresholds_are_of_their_lesions():
    with pytest.raises(ValueError, match=r"shape \(3, 2\); the thresholds are of 1 lesions"):
        fitted(*drawn(0)).apply(np.zeros((3, 2)))
