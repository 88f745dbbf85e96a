import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import pearsonr, spearmanr
from torch.nn.modules.batchnorm import _BatchNorm

from predilect.insight.attention import Explainer
from predilect.insight.faithfulness import (
    BASELINES,
    Curves,
    blurred,
    centred_gaussian,
    correlation,
    deletion_insertion,
    overlap,
    photograph_curves,
    random_network,
    rank_similarity,
)
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Preprocessing, Recipe
from predilect.training.devices import make_fabric
from predilect.vision.network import build_network

SMALL = Preprocessing(crop=64, jitter=(72, 160), test_side=160)
MANY = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(40))), Task("site", ("arm", "face"))))
RECIPE = Recipe(name="r", backbone="test_resnet", weights="none", preprocessing=SMALL)


def photograph(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(target, "JPEG", quality=95)
    return target.getvalue()


def weighted_mean(weights):
    """A score that is a weighted mean of the pixels of the first channel."""
    share = torch.from_numpy(weights / weights.sum())
    return lambda images: (images[:, 0].double() * share).sum(dim=(1, 2))


# --- curves


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 2**16))
def test_the_curves_of_a_weighted_mean_are_sums_in_the_order_of_the_map(height, width, seed):
    rng = np.random.default_rng(seed)
    weights, values = rng.random((height, width)), rng.random((height, width))
    n = height * width
    curves = deletion_insertion(weighted_mean(weights), torch.ones(3, height, width), values, n, torch.zeros(3, 1, 1))
    taken = np.cumsum(weights.ravel()[np.argsort(-values.ravel())]) / weights.sum()
    np.testing.assert_allclose(curves.insertion, [0, *taken], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(curves.deletion, [1, *(1 - taken)], rtol=1e-6, atol=1e-7)
    best = deletion_insertion(weighted_mean(weights), torch.ones(3, height, width), weights, n, torch.zeros(3, 1, 1))
    assert best.deletion_area <= curves.deletion_area + 1e-9
    assert best.insertion_area >= curves.insertion_area - 1e-9


def test_a_map_that_points_at_all_the_score_looks_at_beats_the_baselines():
    weights = np.zeros((20, 30))
    weights[3:8, 4:10] = 1
    image, fill, score = torch.ones(3, 20, 30), torch.zeros(3, 20, 30), weighted_mean(weights)
    rng = np.random.default_rng(0)
    true = deletion_insertion(score, image, weights, 20, fill)
    for values in (centred_gaussian(20, 30), *(rng.random((20, 30)) for _ in range(10))):
        other = deletion_insertion(score, image, values, 20, fill)
        assert true.deletion_area < other.deletion_area - 0.2
        assert true.insertion_area > other.insertion_area + 0.2
    opposite = deletion_insertion(score, image, -weights, 20, fill)
    assert opposite.deletion_area > 0.9


def test_areas_by_hand():
    curves = Curves(deletion=np.array([1.0, 0.5, 0.0]), insertion=np.array([0.0, 1.0, 1.0]))
    assert (curves.deletion_area, curves.insertion_area) == (0.5, 0.75)


def test_only_the_order_of_a_map_counts_and_equal_values_do_not_go_from_the_top():
    weights = np.zeros((12, 12))
    weights[:6] = 1
    image, fill, score = torch.ones(3, 12, 12), torch.zeros(3, 1, 1), weighted_mean(weights)
    values = np.random.default_rng(1).random((12, 12))
    one, other = (deletion_insertion(score, image, item, 9, fill) for item in (values, np.exp(9 * values) - 4))
    assert np.array_equal(one.deletion, other.deletion)
    flat = deletion_insertion(score, image, np.zeros((12, 12)), 12, fill)
    assert flat.deletion_area == pytest.approx(0.5, abs=0.08)  # from the top it would be 0.25


def test_as_many_images_are_scored_as_said_and_both_curves_share_their_ends():
    seen = []

    def score(images):
        seen.extend(images)
        return images.mean(dim=(1, 2, 3))

    image, fill = torch.rand(3, 7, 9), torch.rand(3, 7, 9)
    curves = deletion_insertion(score, image, np.random.default_rng(0).random((7, 9)), 10, fill)
    assert len(seen) == 20
    assert curves.deletion[0] == curves.insertion[-1] == pytest.approx(float(image.mean()))
    assert curves.deletion[-1] == curves.insertion[0] == pytest.approx(float(fill.mean()))
    # What one curve shows, the other hides.
    np.testing.assert_allclose(curves.deletion + curves.insertion, float(image.mean() + fill.mean()), rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "steps", "message"),
    [
        (np.zeros((3, 4)), 2, r"a map \(3, 4\) does not lie over an image \(3, 4, 4\)"),
        (np.full((4, 4), np.nan), 2, "not finite"),
        (np.zeros((4, 4)), 0, "from 1 to the number of pixels, 16"),
        (np.zeros((4, 4)), 17, "from 1 to the number of pixels, 16"),
    ],
)
def test_misuse_of_curves(values, steps, message):
    with pytest.raises(ValueError, match=message):
        deletion_insertion(lambda images: images[:, 0, 0, 0], torch.zeros(3, 4, 4), values, steps, torch.zeros(3, 1, 1))


def test_the_gaussian_is_highest_in_the_middle_and_falls_with_the_sides():
    values = centred_gaussian(9, 21)
    assert values[4, 10] == values.max() == 1
    np.testing.assert_allclose(values, values[::-1, ::-1])
    assert values[4, 0] == pytest.approx(np.exp(-0.5 * ((10 / 21) / 0.25) ** 2))
    assert values[1, 10] == pytest.approx(np.exp(-0.5 * ((3 / 9) / 0.25) ** 2))


def test_blurring_leaves_large_shades_and_no_detail():
    rows = torch.linspace(0, 1, 60)[:, None].expand(60, 80)
    grain = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], size=(60, 80))).float()
    image = (rows + grain).expand(3, 60, 80)
    result = blurred(image, 6.0)
    assert result.shape == image.shape
    assert float((result - rows)[:, 15:-15].abs().max()) < 0.3
    assert blurred(image[:, :5, :4], 6.0).shape == (3, 5, 4)  # a filter longer than the image


def test_the_curves_of_a_photograph():
    fabric = make_fabric("fp32")
    network = build_network(MANY, RECIPE, 1)
    explainer = Explainer.of(fabric, network)
    data = photograph(200, 160)
    item = explainer.photograph(data, {"site": None})["site"][0]
    curves = photograph_curves(explainer, data, item, 5, seed=3)
    assert tuple(curves) == ("map", *BASELINES)
    for values in curves.values():
        assert values.deletion.shape == values.insertion.shape == (6,)
        assert values.deletion[0] == pytest.approx(curves["map"].deletion[0])
        assert values.deletion[-1] == pytest.approx(curves["map"].deletion[-1])
        assert 0 <= values.deletion.min() <= values.deletion.max() <= 1
    again = photograph_curves(explainer, data, item, 5, seed=3)
    other = photograph_curves(explainer, data, item, 5, seed=4)
    assert np.array_equal(again["random"].deletion, curves["random"].deletion)
    assert not np.array_equal(other["random"].deletion, curves["random"].deletion)


# --- maps against maps

MAPS = st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**16))


@given(MAPS)
def test_correlations_are_those_of_scipy(case):
    height, width, seed = case
    one, other = np.random.default_rng(seed).integers(0, 5, size=(2, 3, height, width)) + np.arange(width)
    for found, expected in ((correlation(one, other), pearsonr), (rank_similarity(one, other), spearmanr)):
        for k in range(3):
            if np.ptp(one[k]) and np.ptp(other[k]):
                assert found[k] == pytest.approx(expected(one[k].ravel(), other[k].ravel()).statistic, abs=1e-9)


@given(MAPS, st.floats(0.05, 0.95))
def test_overlap_is_that_of_sets(case, share):
    height, width, seed = case
    one, other = np.random.default_rng(seed).permuted(np.tile(np.arange(height * width), (2, 1)), axis=1)
    n = max(1, round(share * height * width))
    tops = [{int(place) for place in np.argsort(-values)[:n]} for values in (one, other)]
    found = overlap(one.reshape(height, width), other.reshape(height, width), share)
    assert found == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))


def test_overlap_by_hand_and_by_chance():
    one, other = np.zeros((10, 10)), np.zeros((10, 10))
    one[:2] = other[1:3] = 1
    assert overlap(one, one) == 1
    assert overlap(one, other) == pytest.approx(10 / 30)
    assert overlap(one, one[::-1]) == 0
    rng = np.random.default_rng(0)
    assert overlap(rng.random((500, 10, 10)), rng.random((500, 10, 10))).mean() == pytest.approx(0.2 / 1.8, abs=0.01)


def test_a_map_without_relief_is_like_no_other():
    flat, other = np.full((4, 4), 0.1), np.arange(16.0).reshape(4, 4)
    for measure in (correlation, rank_similarity, overlap):
        assert np.isnan(measure(flat, other))
        assert np.isnan(measure(flat, flat))
        assert measure(other, 3 * other + 1) == pytest.approx(1)


def test_misuse_of_comparisons():
    for measure in (correlation, rank_similarity, overlap):
        with pytest.raises(ValueError, match=r"maps \(2, 3\) and \(3, 2\) do not lie over the same places"):
            measure(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"share 1\.0 must be between 0 and 1"):
        overlap(np.zeros((2, 3)), np.zeros((2, 3)), 1.0)


def drawn_weights(network):
    """Parameters that come of a stream of random numbers: not those of a normalisation, nor biases, which begin with a constant."""
    normalising = {id(values) for module in network.modules() if isinstance(module, _BatchNorm) for values in module.parameters()}
    return {
        name: values for name, values in network.named_parameters() if id(values) not in normalising and not name.endswith(".bias")
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_the_random_network_has_no_weight_that_the_training_of_the_same_seed_started_from(seed):
    trained = build_network(MANY, RECIPE, 1)
    before = {name: values.clone() for name, values in trained.state_dict().items()}
    of_recipe = RECIPE.model_copy(update={"weights": "pretrained", "frozen_stages": 1})
    drawn = random_network(trained, of_recipe, seed)
    started = drawn_weights(build_network(MANY, RECIPE, seed))
    assert {"heads.lesion.weight", "heads.site.weight"} < set(started)
    assert len(started) > 10
    for name, values in drawn_weights(drawn).items():
        assert values.shape == started[name].shape
        assert (values == started[name]).double().mean() < 1e-3, name
        assert values.std() > 0, name
    scales = [module.weight for module in drawn.modules() if isinstance(module, _BatchNorm)]
    assert scales
    assert all((scale == 1).all() for scale in scales)
    assert all(torch.equal(values, before[name]) for name, values in trained.state_dict().items())
    again = random_network(trained, of_recipe, seed).state_dict()
    assert all(torch.equal(values, again[name]) for name, values in drawn.state_dict().items())


def test_networks_of_other_weights_have_other_maps():
    """The randomisation check: over many classes the maps of two random networks have nothing in common."""
    fabric = make_fabric("fp32")
    networks = [build_network(MANY, RECIPE, 1)]
    torch.manual_seed(0)
    networks[0].backbone.init_weights(zero_init_last=False)  # else its blocks would do nothing
    networks.append(random_network(networks[0], RECIPE, 1))
    assert networks[1].preprocessing == networks[0].preprocessing
    maps = []
    for network in networks:
        found = Explainer.of(fabric, network).photograph(photograph(240, 160), {"lesion": MANY["lesion"].classes})["lesion"]
        maps.append(np.stack([item.cells for item in found]))
    assert rank_similarity(maps[0], maps[0]) == pytest.approx(np.ones(40))
    assert abs(rank_similarity(maps[0], maps[1]).mean()) < 0.25
