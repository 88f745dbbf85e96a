"""Eq. 1 and its lift, worked by hand and against a loop."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from predilect.evaluation.predilection import predilection_map
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Truth


def truth_of(lesions, sites, n_sites=2):
    """A truth from lesion labels (N, P) and site numbers, -1 for unknown."""
    lesions = np.array(lesions, dtype=np.int8)
    one_hot = np.array([[-1] * n_sites if s < 0 else [int(s == k) for k in range(n_sites)] for s in sites], dtype=np.int8)
    space = LabelSpace(
        (Task("lesion", tuple(f"l{k}" for k in range(lesions.shape[1]))), Task("site", tuple(f"s{k}" for k in range(n_sites))))
    )
    ids = np.array([f"i{k}" for k in range(len(lesions))])
    return Truth(ids, space, {"lesion": lesions, "site": one_hot}, None, pl.DataFrame())


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
