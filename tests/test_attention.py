import io
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from predilect.errors import InsightError, LabelError, UnexplainableError
from predilect.evaluation.calibration import Calibration, LesionCalibration, Platt, SiteCalibration
from predilect.insight.attention import AttentionMap, Explainer, attention, head_maps, whole_photograph
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Preprocessing, Recipe
from predilect.training.devices import make_fabric
from predilect.training.inference import predict_batch
from predilect.vision.network import Network, build_network
from predilect.vision.transforms import central_square

BOTH = LabelSpace((Task("lesion", ("crust", "macule", "scale")), Task("site", ("arm", "face"))))
SMALL = Preprocessing(crop=64, jitter=(72, 80), test_side=72)
MAXVIT = Preprocessing(crop=160, jitter=(160, 200), test_side=160)


def made_network(backbone="test_resnet", preprocessing=SMALL, labels=BOTH, seed=1):
    network = build_network(labels, Recipe(name="r", backbone=backbone, weights="none", preprocessing=preprocessing), seed).eval()
    if network.cam_exact:
        torch.manual_seed(seed)
        network.backbone.init_weights(zero_init_last=False)  # else the blocks of an untrained ResNet do nothing
    return network


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


@pytest.fixture(scope="module")
def explainer(fabric):
    return Explainer.of(fabric, made_network())


def jpeg(pixels):
    target = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(target, "JPEG", quality=95, subsampling=0)
    return target.getvalue()


def noise(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    return jpeg(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


class Scores(nn.Module):
    """A network as libraries expect it: images in, one tensor of logits out."""

    def __init__(self, network, task):
        super().__init__()
        self.network, self.task = network, task

    def forward(self, images):
        return self.network(images).logits[self.task]


class UnscaledGradCAM(GradCAM):
    def get_target_width_height(self, input_tensor):
        return None  # keep the cells


# --- the closed form


def test_by_hand():
    feature_map = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])  # (1, 2, 2, 2)
    head_weight = torch.tensor([[1.0, 0.0], [2.0, -10.0], [0.0, 1.0]])
    maps = attention(feature_map, head_weight, torch.tensor([[1, 2]]))
    assert maps.tolist() == [[[[2.0, -6.0], [6.0, 18.0]], [[0.0, 1.0], [0.0, -1.0]]]]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**16))
def test_each_image_has_the_classes_asked_of_it(n_images, n_classes, height, width, seed):
    rng = np.random.default_rng(seed)
    feature_map, weights = rng.normal(size=(n_images, 6, height, width)), rng.normal(size=(5, 6))
    classes = rng.integers(0, 5, size=(n_images, n_classes))
    maps = attention(torch.from_numpy(feature_map), torch.from_numpy(weights), torch.from_numpy(classes))
    for b in range(n_images):
        for k in range(n_classes):
            expected = np.tensordot(weights[classes[b, k]], feature_map[b], axes=1)
            np.testing.assert_allclose(maps[b, k].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_mean_of_a_map_is_the_logit_without_its_bias_for_both_heads():
    network = made_network()
    with torch.no_grad():
        for head in network.heads.values():
            head.bias.normal_()
        output = network(torch.randn(2, 3, 96, 160))
    classes = {"lesion": torch.tensor([[0, 1, 2], [2, 0, 1]]), "site": torch.tensor([[1], [0]])}
    maps = head_maps(network, output.feature_map, classes)
    for task, wanted in classes.items():
        expected = (output.logits[task] - network.heads[task].bias).gather(1, wanted)
        torch.testing.assert_close(maps[task].mean(dim=(2, 3)), expected, rtol=1e-4, atol=1e-5)
    assert not any(values.requires_grad for values in maps.values())


def test_bf16_features_make_fp32_maps():
    feature_map = torch.randn(1, 8, 3, 3).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        maps = attention(feature_map, torch.randn(4, 8), torch.tensor([[0]]))
    assert maps.dtype == torch.float32


@pytest.mark.parametrize(
    ("feature_map", "weights", "classes", "message"),
    [
        ((1, 8, 3, 3), (4, 7), [[0]], "do not fit"),
        ((8, 3, 3), (4, 8), [[0]], "do not fit"),
        ((1, 8, 3, 3), (4, 8), [0], r"classes are \(B, K\) with B = 1"),
        ((2, 8, 3, 3), (4, 8), [[0]], "with B = 2"),
        ((1, 8, 3, 3), (4, 8), [[-1]], "from 0 to 3"),
        ((1, 8, 3, 3), (4, 8), [[4]], "from 0 to 3"),
    ],
)
def test_misuse(feature_map, weights, classes, message):
    with pytest.raises(ValueError, match=message):
        attention(torch.zeros(feature_map), torch.zeros(weights), torch.tensor(classes))


# --- against pytorch-grad-cam


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("test_resnet", lambda backbone: backbone.layer4),
        ("resnet18", lambda backbone: backbone.layer4),
        ("test_convnext", lambda backbone: backbone.stages),
        ("test_mambaout", lambda backbone: backbone.stages),  # keeps its channels last
    ],
)
@pytest.mark.parametrize("task", ["lesion", "site"])
def test_as_pytorch_grad_cam_up_to_a_positive_factor(backbone, layer, task):
    network = made_network(backbone)
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        output = network(images)
        # Heads that see nothing in the mean feature give maps of both signs, of which the library's ReLU leaves something to
        # compare.
        mean = nn.functional.normalize(output.embedding, dim=1)
        network.heads[task].weight.sub_(network.heads[task].weight @ mean.T @ mean)
    wanted = torch.arange(len(BOTH[task]))[None]
    ours = head_maps(network, output.feature_map, {task: wanted})[task][0].numpy()
    to_places = (lambda values: values.permute(0, 3, 1, 2)) if backbone == "test_mambaout" else None
    with UnscaledGradCAM(Scores(network, task), [layer(network.backbone)], reshape_transform=to_places) as library:
        for k, values in enumerate(ours):
            assert values.min() < 0 < values.max()
            theirs = library(input_tensor=images, targets=[ClassifierOutputTarget(k)])[0]
            np.testing.assert_allclose(np.maximum(values, 0) / values.max(), theirs, rtol=1e-3, atol=1e-4)


def test_grad_cam_of_an_exact_network_is_its_class_activation_map():
    network = made_network()
    with torch.no_grad():
        feature_map = network(torch.randn(2, 3, 96, 64)).feature_map
    classes = {"lesion": torch.tensor([[0, 2], [1, 1]])}
    exact = head_maps(network, feature_map, classes)["lesion"]
    network.cam_exact = False
    by_gradient = head_maps(network, feature_map, classes)["lesion"]
    torch.testing.assert_close(by_gradient * feature_map[0, 0].numel(), exact, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# --- over whole photographs


@pytest.mark.parametrize(
    ("backbone", "origin"),
    [
        ("resnet18", 0.0),  # every strided layer is padded and odd: cell i is centred on pixel 32 i
        ("test_resnet", 14.0),  # its shortcuts average 2 x 2 at strides 4, 8 and 16: 2 + 4 + 8 pixels further on
        ("test_convnext", 15.5),  # patches of 32 pixels side by side
    ],
)
def test_where_the_first_cell_looks(fabric, backbone, origin):
    found = Explainer.of(fabric, made_network(backbone))
    assert found.stride == 32
    assert found.origin == pytest.approx(origin, abs=3)
    assert found.method == ("grad-cam" if backbone == "test_convnext" else "cam")


def planted(width, height, x, y, half):
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    pixels[y - half : y + half, x - half : x + half] = 250
    return jpeg(pixels)


@pytest.mark.parametrize(
    ("backbone", "size", "half"),
    [
        ("test_resnet", (340, 256), 16),
        ("test_resnet", (256, 340), 16),
        ("test_resnet", (256, 256), 16),
        ("test_convnext", (340, 256), 32),  # untrained it sees single cells only: the patch must fill one at any place
        ("test_convnext", (256, 340), 32),
        ("resnet18", (300, 256), 16),
    ],
)
def test_a_planted_patch_moves_the_maximum(fabric, backbone, size, half):
    """The head is given the direction in which a patch elsewhere, on a photograph of another shape, moves the features."""
    preprocessing = Preprocessing(crop=224, jitter=(256, 256), test_side=256)
    network = made_network(backbone, preprocessing)
    photos = [torch.from_numpy(whole_photograph(planted(288, 288, 144, 144, shown), preprocessing)) for shown in (0, half)]
    with torch.no_grad():
        flat, patched = network.forward_features(torch.stack(photos).float() / 64 - 2).mean(dim=(2, 3))
        network.heads["lesion"].weight[1] = patched - flat
    found = Explainer.of(fabric, network)
    width, height = size
    ground, *patched = (
        found.photograph(planted(width, height, 100 + 8 * k, 154 - 8 * k, shown), {"lesion": ("macule",)})["lesion"][0]
        for k, shown in [(0, 0), (0, half), (1, half), (2, half), (3, half)]  # all ways of lying over cells of 32 pixels
    )
    misses = []
    for k, item in enumerate(patched):
        raised = (item.over(width, height) - ground.over(width, height)).clip(min=0) ** 2
        row, column = np.unravel_index(np.argmax(raised), raised.shape)
        assert (
            max(abs(column - (100 + 8 * k)), abs(row - (154 - 8 * k))) <= 16 + half
        )  # the highest cell is one that the patch touches
        misses.append((np.average(np.arange(width), weights=raised.sum(axis=0)) - (100 + 8 * k),
                       np.average(np.arange(height), weights=raised.sum(axis=1)) - (154 - 8 * k)))  # fmt: skip
    # Maps that are drawn half a cell aside miss all of them to the same side.
    assert np.abs(np.mean(misses, axis=0)).max() < 7, misses


def test_the_map_lies_over_the_whole_photograph(explainer):
    for width, height in [(400, 100), (100, 400), (130, 100)]:
        found = explainer.photograph(noise(width, height), {"lesion": None})["lesion"][0]
        assert found.cells.dtype == np.float32
        assert found.cells.shape == (len(found.rows), len(found.columns))
        for centres, length in ((found.rows, height), (found.columns, width)):
            scaled = round(length * 72 / min(width, height))
            np.testing.assert_allclose(np.diff(centres), 32 / scaled)
            assert centres[0] < 32 / scaled
            assert centres[-1] > 1 - 32 / scaled
        assert found.over(width, height).shape == (height, width)


def test_the_maps_are_those_of_the_network_on_the_photograph(fabric):
    """On a photograph of 97 = 3 x 32 + 1 pixels nothing is scaled or added."""
    preprocessing = Preprocessing(crop=64, jitter=(97, 97), test_side=97)
    network = made_network(preprocessing=preprocessing)
    data = noise(129, 97)
    found = Explainer.of(fabric, network).photograph(data, {"lesion": ("scale", "crust"), "site": ("face",)})
    pixels = torch.from_numpy(np.asarray(Image.open(io.BytesIO(data))).copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.preprocessing.mean, network.preprocessing.std))
    with torch.no_grad():
        logits = network((pixels - mean) / std).logits
        logits = {task: values[0] - network.heads[task].bias for task, values in logits.items()}
    assert [item.name for item in found["lesion"]] == ["scale", "crust"]
    for task, k, item in [("lesion", 2, found["lesion"][0]), ("lesion", 0, found["lesion"][1]), ("site", 1, found["site"][0])]:
        assert item.cells.mean() == pytest.approx(float(logits[task][k]), rel=1e-3, abs=1e-5)
        assert item.task == task


def test_the_predicted_class_and_the_probabilities_are_those_of_testing(fabric):
    preprocessing = SMALL.model_copy(update={"views": "ten-crop"})
    found = Explainer.of(fabric, made_network(preprocessing=preprocessing))
    data = noise(120, 90)
    scores = predict_batch(fabric, found.network, torch.from_numpy(central_square(data, found.network.preprocessing))[None])
    maps = found.photograph(data, {"lesion": None, "site": BOTH["site"].classes})
    best = int(scores["lesion"][0].argmax())
    assert [(item.name, item.probability) for item in maps["lesion"]] == [
        (BOTH["lesion"].classes[best], pytest.approx(float(scores["lesion"][0, best])))
    ]
    assert sum(item.probability for item in maps["site"]) == pytest.approx(1)
    assert {item.method for item in (*maps["lesion"], *maps["site"])} == {"cam"}


def test_with_a_calibration_the_predicted_class_is_the_most_probable_one(explainer):
    """Which one that is, a calibration may change: each lesion has a curve of its own."""
    data = noise(120, 90)
    (plain,) = explainer.photograph(data, {"lesion": None})["lesion"]
    other = next(name for name in BOTH["lesion"].classes if name != plain.name)
    curves = {other: Platt(30.0, 1.0)}
    lesions = tuple(LesionCalibration(name, curves.get(name), 60, 60, False) for name in BOTH["lesion"].classes)
    calibration = Calibration(lesions, SiteCalibration(BOTH["site"].classes, 2.0, 60))
    found = explainer.photograph(data, {"lesion": None, "site": None}, calibration)
    assert [(item.name, item.calibrated) for item in found["lesion"]] == [(other, True)]
    assert found["lesion"][0].probability > 0.99
    assert found["site"][0].calibrated
    (rare,) = explainer.photograph(data, {"lesion": (plain.name,)}, calibration)["lesion"]
    assert (rare.probability, rare.calibrated, plain.calibrated) == (pytest.approx(plain.probability), False, False)
    np.testing.assert_allclose(rare.cells, plain.cells, atol=1e-6)


@pytest.mark.parametrize("size", [(90, 70), (64, 300), (40, 40), (600, 500)])
def test_the_central_square_is_the_middle_of_the_whole_photograph(size):
    data = noise(*size)
    whole, square = whole_photograph(data, SMALL), central_square(data, SMALL)
    assert min(whole.shape[1:]) == 72
    assert whole.shape[2] / whole.shape[1] == pytest.approx(size[0] / size[1], rel=0.02)
    top, left = ((length - 72) // 2 for length in whole.shape[1:])
    middle = whole[:, top : top + 72, left : left + 72]
    assert np.abs(middle.astype(int) - square).max() <= 2


def test_over_is_bilinear_between_centres_and_constant_beyond():
    item = AttentionMap(
        "lesion",
        "crust",
        0.5,
        "cam",
        np.array([[0, 4], [8, 12]], dtype=np.float32),
        np.array([0.25, 0.75]),
        np.array([0.125, 0.625]),
        calibrated=True,
    )
    # Columns of pixels at 1/8, 3/8, 5/8, 7/8; rows at 1/4 and 3/4.
    assert item.over(4, 2).tolist() == [[0, 2, 4, 4], [8, 10, 12, 12]]


# --- what cannot be explained


def test_a_map_with_its_channels_last_is_turned_to_the_order_of_all_others():
    network = made_network("test_mambaout")
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        output = network(images)
        tokens = network.backbone.forward_features(images)
        torch.testing.assert_close(output.embedding, network.backbone.forward_head(tokens, pre_logits=True), rtol=0, atol=0)
    assert tokens.shape == (2, 3, 4, 64)
    assert torch.equal(output.feature_map, tokens.permute(0, 3, 1, 2))


def small_swin():
    backbone = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=0,
        img_size=64,
        window_size=2,
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
    )
    preprocessing = SMALL.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)})
    return Network(backbone, backbone.head_hidden_size, BOTH, preprocessing, cam_exact=False, frozen_statistics=False).eval()


@pytest.mark.parametrize(
    ("make", "name"), [(small_swin, "SwinTransformer"), (lambda: made_network("test_maxvit", MAXVIT), "MaxxVit")]
)
def test_networks_for_one_size_are_refused_for_that_reason(fabric, make, name):
    network = make()
    side = network.preprocessing.crop
    with pytest.raises(UnexplainableError, match=f"the backbone {name} cannot be explained .* takes squares of {side} pixels only"):
        Explainer.of(fabric, network)


@pytest.mark.parametrize(
    ("backbone", "crop", "message"),
    [
        ("test_vit", 160, "the backbone VisionTransformer cannot be explained by attention maps: it ends in tokens"),
        ("alexnet", 64, "the backbone AlexNet cannot be explained by attention maps: its last layers weigh each place"),
    ],
)
def test_networks_without_maps_are_refused(fabric, backbone, crop, message):
    network = made_network(backbone, Preprocessing(crop=crop, jitter=(crop, crop), test_side=crop))
    with pytest.raises(InsightError, match=message):
        Explainer.of(fabric, network)


def test_a_missing_captum_is_named_and_exact_maps_do_without(fabric, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InsightError, match=r"needs the package captum: pip install 'predilect\[explain\]'"):
        Explainer.of(fabric, made_network("test_convnext"))
    assert Explainer.of(fabric, made_network()).method == "cam"


def test_unknown_tasks_and_classes_are_named(explainer):
    data = noise(80, 80)
    with pytest.raises(LabelError, match="unknown lesion 'crusts': did you mean 'crust'"):
        explainer.photograph(data, {"lesion": ("crusts",)})
    with pytest.raises(LabelError, match="there is no task 'sites' here: did you mean 'site'"):
        explainer.photograph(data, {"sites": None})
    with pytest.raises(ValueError, match="no class of the task 'site' is named"):
        explainer.photograph(data, {"site": ()})
