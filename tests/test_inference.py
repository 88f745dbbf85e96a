"""Ten crops, however they go through the network: the same scores, embeddings and feature map as one view after another."""

from __future__ import annotations

import pytest
import torch

from predilect.insight.attention import Explainer
from predilect.training import inference
from predilect.training.devices import make_fabric
from predilect.training.inference import observe_batch, only_looking
from predilect.vision.network import build_network
from predilect.vision.transforms import normalise, views


@pytest.mark.parametrize(("n", "passes"), [(1, [10]), (7, [63, 7]), (40, [40] * 10)])
@pytest.mark.parametrize("looking", ["ten-crop", "center"])
def test_views_that_go_through_the_network_together_say_what_each_says_alone(small_atlas, small_recipe, n, passes, looking):
    changes = {"test_side": 40, "views": looking}
    recipe = small_recipe.model_copy(update={"preprocessing": small_recipe.preprocessing.model_copy(update=changes)})
    network = build_network(small_atlas.labels, recipe, 1).eval()
    images = torch.randint(0, 256, (n, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    seen = []
    handle = network.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    observation = observe_batch(make_fabric("fp32"), network, images)
    handle.remove()
    assert seen == (passes if looking == "ten-crop" else [n])
    crops = views(images, network.preprocessing)
    with torch.no_grad():
        outputs = [network(normalise(crop, network.preprocessing.mean, network.preprocessing.std)) for crop in crops]
    lesions = sum(torch.sigmoid(output.logits["lesion"]) for output in outputs) / len(outputs)
    sites = sum(torch.softmax(output.logits["site"], dim=1) for output in outputs) / len(outputs)
    torch.testing.assert_close(observation.scores, {"lesion": lesions, "site": sites}, rtol=0, atol=1e-6)
    torch.testing.assert_close(observation.embedding, sum(output.embedding for output in outputs) / len(outputs))
    # The fifth of ten crops is the centre, upright.
    torch.testing.assert_close(observation.feature_map, outputs[4 if looking == "ten-crop" else 0].feature_map)


@pytest.mark.parametrize(("crop", "most"), [(32, 64), (128, 32), (224, 10), (1024, 1)])
def test_on_a_processor_a_pass_holds_fewer_inputs_the_larger_they_are(crop, most):
    assert inference._inputs_in_a_pass(make_fabric("fp32"), crop) == most


@pytest.mark.parametrize(("backbone", "kept"), [("resnet18", torch.bfloat16), ("mobilenetv3_small_050", torch.float32)])
def test_what_only_looks_keeps_its_weights_in_bf16_where_that_says_the_same_to_the_last_bit(
    small_atlas, small_recipe, backbone, kept
):
    recipe = small_recipe.model_copy(update={"backbone": backbone})
    network, fabric = build_network(small_atlas.labels, recipe, 1).eval(), make_fabric("bf16")
    side = network.preprocessing.test_side
    images = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = observe_batch(fabric, network, images)
    assert only_looking(fabric, network) is network
    # A MobileNet has a convolution behind the pooling, which computes in fp32.
    assert {module.weight.dtype for module in network.modules() if isinstance(module, torch.nn.Conv2d)} == {kept}
    torch.testing.assert_close(observe_batch(fabric, network, images), before, rtol=0, atol=0)


def test_what_only_looks_in_fp32_is_left_alone(small_atlas, small_recipe):
    network = build_network(small_atlas.labels, small_recipe, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    only_looking(make_fabric("fp32"), network)
    assert not network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto"])
def test_what_only_looks_can_be_explained_in_bf16(small_atlas, small_recipe, backbone):
    pytest.importorskip("captum")
    fabric = make_fabric("bf16")
    network = build_network(small_atlas.labels, small_recipe.model_copy(update={"backbone": backbone}), 1).eval()
    photograph = small_atlas.images()[0]
    wanted = {"lesion": None, "site": None}
    before = Explainer.of(fabric, network).photograph(photograph, wanted)
    after = Explainer.of(fabric, only_looking(fabric, network)).photograph(photograph, wanted)
    for task, (found,) in after.items():
        assert found.method == ("cam" if backbone == "resnet18" else "grad-cam")
        torch.testing.assert_close(found.cells, before[task][0].cells, rtol=0, atol=0)
