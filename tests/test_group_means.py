import numpy as np
import pytest

from predilect.evaluation.group_means import group_mean, paired_difference


def test_a_paired_difference_rests_on_groups():
    """Photographs of a patient that say the same again make nothing surer."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 1, size=60), rng.normal(0, 1, size=60)
    groups = np.arange(60)
    once = paired_difference(first, second, groups, 1, n_resamples=400, n_resamples_p=400)
    thrice = paired_difference(np.tile(first, 3), np.tile(second, 3), np.tile(groups, 3), 1, n_resamples=400, n_resamples_p=400)
    assert (once.n_images, once.n_groups, thrice.n_images, thrice.n_groups) == (60, 60, 180, 60)
    assert (thrice.low, thrice.high, thrice.p) == pytest.approx((once.low, once.high, once.p))
    assert once.difference == pytest.approx((first - second).mean())
    error = (first - second).std() / np.sqrt(60)
    assert (once.low, once.high) == pytest.approx((once.difference - 1.96 * error, once.difference + 1.96 * error), abs=0.1)
    swapped = paired_difference(second, first, groups, 1, n_resamples=400, n_resamples_p=400)
    assert (swapped.difference, swapped.low) == pytest.approx((-once.difference, -once.high))


def test_a_clear_difference_has_a_small_p_and_none_has_a_large_one():
    rng = np.random.default_rng(1)
    noise, groups = rng.normal(0, 0.1, size=80), [f"g{k // 2}" for k in range(80)]
    clear = paired_difference(noise - 0.5, np.zeros(80), groups, 0, n_resamples=200, n_resamples_p=1000)
    assert clear.high < 0
    assert clear.p == pytest.approx(2 / 1001)
    none = paired_difference(noise - noise.mean(), np.zeros(80), groups, 0, n_resamples=200, n_resamples_p=1000)
    assert none.low < 0 < none.high
    assert none.p > 0.5


def test_few_groups_have_a_difference_only():
    result = paired_difference([1.0] * 30, [0.0] * 30, np.arange(30) % 9, 0)
    assert (result.difference, result.low, result.high, result.p, result.n_groups) == (1.0, None, None, None, 9)


@pytest.mark.parametrize("first", [[], [1.0], [1.0, np.nan]])
def test_misuse_of_paired_differences(first):
    with pytest.raises(ValueError, match="equally long, not empty and finite"):
        paired_difference(first, np.zeros(len(first)), ["a", "b"], 0)


# --- one number per photograph


def test_a_mean_rests_on_groups_and_leaves_out_what_is_not_there():
    rng = np.random.default_rng(3)
    values, groups = rng.normal(2, 1, size=90), np.arange(90)
    whole = group_mean(values, groups, 0)
    holes = np.concatenate([values, np.full(40, np.nan)])
    assert group_mean(holes, np.concatenate([groups, np.full(40, 500)]), 0) == whole
    error = values.std() / np.sqrt(90)
    assert (whole.value, whole.n_images, whole.n_groups) == (pytest.approx(values.mean()), 90, 90)
    assert (whole.low, whole.high) == pytest.approx((whole.value - 1.96 * error, whole.value + 1.96 * error), abs=0.06)
    thrice = group_mean(np.tile(values, 3), np.tile(groups, 3), 0)
    assert (thrice.low, thrice.high) == pytest.approx((whole.low, whole.high))
    # Of ten groups that are each of one mind, a resample is one of ten values: the interval is as wide as those.
    clumped = group_mean(np.repeat(np.arange(10.0), 9), np.repeat(np.arange(10), 9), 0)
    assert clumped.high - clumped.low > 3 * (whole.high - whole.low)


def test_few_groups_have_a_mean_only_and_none_has_nothing():
    few = group_mean([1.0, 2.0] * 9, ["a", "b", "c"] * 6, 0)
    assert (few.value, few.low, few.high, few.n_images, few.n_groups) == (1.5, None, None, 18, 3)
    none = group_mean([np.nan, np.nan], ["a", "b"], 0)
    assert (none.value, none.low, none.high, none.n_images, none.n_groups) == (None, None, None, 0, 0)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.inf]])
def test_misuse_of_means(values):
    with pytest.raises(ValueError, match="equally long, and no value infinite"):
        group_mean(values, ["a", "b"], 0)
