"""Several photographs of one case answered as one: lesions by the highest probability, the site by the mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from predilect.evaluation.calibration import Platt
from predilect.evaluation.case import combine_case

probabilities = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(0, 1, width=32))


def test_a_lesion_that_one_photograph_shows_is_shown_by_the_case():
    found = combine_case({"lesion": np.array([[0.01, 0.4], [0.97, 0.2], [0.02, 0.3]])})
    np.testing.assert_allclose(found["lesion"], [[0.97, 0.4]], rtol=1e-6)


def test_a_photograph_that_shows_nothing_of_the_place_leaves_the_others_right():
    found = combine_case({"site": np.array([[0.9, 0.1, 0.0], [0.34, 0.33, 0.33]])})
    np.testing.assert_allclose(found["site"], [[0.62, 0.215, 0.165]], rtol=1e-6)


@given(probabilities)
def test_it_is_a_probability_again_and_a_single_photograph_stays_what_it_is(values):
    whole = {"lesion": values, "site": (values + 1) / (values + 1).sum(axis=1, keepdims=True)}
    found, alone = combine_case(whole), combine_case({task: rows[:1] for task, rows in whole.items()})
    assert (found["lesion"] >= values).all()
    assert found["lesion"].max() <= 1
    assert found["site"].sum() == pytest.approx(1, abs=1e-5)
    for task, rows in whole.items():
        assert found[task].shape == (1, 3)
        np.testing.assert_array_equal(alone[task], rows[:1].astype(np.float32))


@given(probabilities)
def test_the_order_of_calibrating_and_combining_is_all_one_for_lesions(values):
    curve = Platt(0.5, 0.8)
    after = combine_case({"lesion": curve.apply(values)})["lesion"]
    np.testing.assert_allclose(after, curve.apply(combine_case({"lesion": values})["lesion"]), rtol=1e-6)


def test_no_photograph_is_no_case():
    with pytest.raises(ValueError, match="at least one photograph"):
        combine_case({"lesion": np.zeros((0, 3))})
