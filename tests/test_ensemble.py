"""Ensembles against NumPy, their alignment, and every way in which members can fail to belong together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.errors import TableError
from predilect.evaluation.ensemble import ensemble
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions

LESION_TASK = Task("lesion", ("macule", "papule", "scar"))
LESIONS = LabelSpace((LESION_TASK,))
BOTH = LabelSpace((LESION_TASK, Task("site", ("arm", "face"))))
IDS = np.array(["a", "b", "c", "d"] * 2)
SEEDS = np.array([1] * 4 + [2] * 4)
FOLDS = np.array([0, 0, 1, 1] * 2)


def made(origin, *, labels=LESIONS, ids=IDS, seeds=SEEDS, folds=FOLDS, number=0):
    random = np.random.default_rng([number, len(ids)])
    scores = {}
    if "lesion" in labels:
        scores["lesion"] = random.random((len(ids), len(labels["lesion"])), dtype=np.float32)
    if "site" in labels:
        scores["site"] = np.tile(np.array([[0.25, 0.75]], dtype=np.float32), (len(ids), 1))
    return Predictions(ids, labels, scores, folds, seeds, origin)


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_the_rules_equal_numpys(rule):
    resnet, mtl = made("resnet.csv"), made("mtl.csv", labels=BOTH, number=1)
    found = ensemble([resnet, mtl], rule)
    both = np.stack([resnet.scores["lesion"], mtl.scores["lesion"]]).astype(np.float64)
    expected = {"max": both.max(axis=0), "mean": np.average(both, axis=0)}[rule]
    assert found.scores["lesion"].dtype == np.float32
    assert np.array_equal(found.scores["lesion"], expected.astype(np.float32))
    assert found.labels == LESIONS
    assert found.image_ids.tolist() == IDS.tolist()
    assert (found.seeds == SEEDS).all()
    assert (found.folds == FOLDS).all()
    assert found.origin == f"the {rule} of resnet.csv, mtl.csv"


def test_worked_by_hand():
    one, other = (
        Predictions(np.array(["x"]), LESIONS, {"lesion": np.array([row], dtype=np.float32)})
        for row in ([0.25, 0.5, 1.0], [0.75, 0.5, 0.0])
    )
    assert ensemble([one, other], "max").scores["lesion"].tolist() == [[0.75, 0.5, 1.0]]
    assert ensemble([one, other], "mean").scores["lesion"].tolist() == [[0.5, 0.5, 0.5]]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(8)), st.permutations(range(8)), st.sampled_from(["max", "mean"]))
def test_rows_are_matched_by_photograph_and_seed_whatever_their_order(one, other, rule):
    members = [made("a"), made("b", labels=BOTH, number=1), made("c", number=2)]
    expected = ensemble(members, rule)
    orders = [np.array(one), np.array(other), np.arange(8)]
    found = ensemble([member.take(order) for member, order in zip(members, orders, strict=True)], rule)
    assert found.image_ids.tolist() == IDS[orders[0]].tolist()
    assert (found.seeds == SEEDS[orders[0]]).all()
    assert np.array_equal(found.scores["lesion"], expected.scores["lesion"][orders[0]])


def test_tables_without_seeds_and_folds_are_matched_by_photograph():
    members = [made(name, ids=IDS[:4], seeds=None, folds=None, number=k) for k, name in enumerate("ab")]
    found = ensemble([members[0], members[1].take(np.array([3, 1, 0, 2]))], "max")
    assert np.array_equal(found.scores["lesion"], np.maximum(*(member.scores["lesion"] for member in members)))
    assert found.seeds is None
    assert found.folds is None


def test_misuse():
    with pytest.raises(ValueError, match="at least two members, found 1"):
        ensemble([made("a")], "max")
    with pytest.raises(ValueError, match="is 'max' or 'mean', found 'median'"):
        ensemble([made("a"), made("b")], "median")


def of_classes(*classes, machine=()):
    return LabelSpace((Task("lesion", classes, frozenset(machine)),))


SWAPPED = np.array([1, 1, 1, 1, 2, 2, 2, 3])
MOVED = np.array([0, 0, 1, 1, 0, 4, 1, 1])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made("b.csv", labels=BOTH.restricted_to(["site"])), r"b\.csv has no lesion columns"),
        (made("b.csv", labels=of_classes("macule", "papule")), r"b\.csv has 2 lesion columns and a\.csv has 3"),
        (
            made("b.csv", labels=of_classes("macule", "scar", "papule")),
            r"b\.csv has 'lesion/scar' as lesion column 2, where a\.csv has 'lesion/papule'",
        ),
        (
            made("b.csv", labels=of_classes("macule", "papule", "scar", machine=["scar"])),
            r"lesion 'scar' is marked as machine-made in b\.csv but not in a\.csv",
        ),
        (made("b.csv", seeds=None, ids=np.array(list("abcdefgh"))), r"a\.csv has seeds and b\.csv has none"),
        (made("b.csv", folds=None), r"a\.csv has folds and b\.csv has none"),
        (
            made("b.csv", seeds=SWAPPED),
            r"b\.csv has no row for image_id 'd' of seed 2 of a\.csv, row 8 \(1 of 8 are missing\)",
        ),
        (
            made("b.csv", ids=np.append(IDS, "e"), seeds=np.append(SEEDS, 2), folds=np.append(FOLDS, 0)),
            r"b\.csv, row 9, holds image_id 'e' of seed 2, which a\.csv does not have \(1 such rows\)",
        ),
        (
            made("b.csv", folds=MOVED).take(np.arange(8)[::-1]),
            r"b\.csv, row 3: image_id 'b' of seed 2 was held out in fold 4, but in fold 0 in a\.csv, row 6",
        ),
    ],
    ids=["no lesions", "fewer", "order", "machine", "seeds", "folds", "missing", "extra", "another fold"],
)
def test_members_that_do_not_belong_together_are_told_apart(other, message):
    with pytest.raises(TableError, match=message):
        ensemble([made("a.csv"), other], "max")
