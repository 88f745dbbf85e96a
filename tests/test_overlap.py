"""Overlap by chance, against all ways there are."""

from __future__ import annotations

import doctest
from itertools import combinations, permutations

import numpy as np
import pytest

from predilect.evaluation import overlap as chance
from predilect.evaluation.overlap import n_highest, overlap_by_chance
from predilect.insight.faithfulness import overlap


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("n", range(1, 10))
def test_chance_is_the_mean_over_all_pairs_of_highest_places(n, share):
    sets = [set(places) for places in combinations(range(n), n_highest(n, share))]
    assert overlap_by_chance(n, share) == pytest.approx(np.mean([len(sets[0] & some) / len(sets[0] | some) for some in sets]))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 3), (1, 7), (2, 4)])
def test_chance_is_what_maps_in_every_order_overlap_by(height, width):
    n = height * width
    orders = np.array(list(permutations(range(n)))).reshape(-1, height, width)
    found = overlap(orders, np.broadcast_to(orders[0], orders.shape))
    assert found.mean() == pytest.approx(overlap_by_chance(n))


def test_of_few_cells_chance_is_more_than_of_many():
    assert overlap_by_chance(4) == 0.25
    assert overlap_by_chance(9) == pytest.approx(17 / 108)
    assert overlap_by_chance(10_000) == pytest.approx(0.2 / 1.8, abs=1e-4)


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(chance)
    assert result.attempted >= 2
    assert result.failed == 0


def test_misuse_of_overlap():
    with pytest.raises(ValueError, match="0 places"):
        overlap_by_chance(0)
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"must be between 0 and 1"):
            n_highest(4, share)
