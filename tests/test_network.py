from urllib.error import URLError

import httpx2
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torchvision.models import AlexNet_Weights, resnet18

from predilect.errors import RecipeError
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Preprocessing, Recipe
from predilect.vision.network import build_network, parameter_groups

BOTH = LabelSpace((Task("lesion", ("crust", "macule", "scale")), Task("site", ("arm", "face"))))
SMALL = Preprocessing(crop=32, jitter=(32, 40), test_side=32)


def recipe(backbone="test_resnet", **changes):
    return Recipe(name="r", backbone=backbone, weights=changes.pop("weights", "none"), preprocessing=SMALL, **changes)


def save_backbone(network, path):
    save_file({name: value.contiguous() for name, value in network.backbone.state_dict().items()}, path)


@pytest.mark.parametrize(
    ("backbone", "side", "width", "exact", "mapped"),
    [
        ("test_resnet", 32, 96, True, True),
        ("resnet18", 32, 512, True, True),
        ("test_convnext", 32, 64, False, True),
        ("test_vit", 160, 64, False, False),
        ("alexnet", 64, 4096, False, True),
    ],
)
def test_any_backbone_gives_the_same_kind_of_output(backbone, side, width, exact, mapped):
    network = build_network(BOTH, recipe(backbone), 1).eval()
    with torch.no_grad():
        output = network(torch.randn(2, 3, side, side))
    assert output.embedding.shape == (2, width)
    assert {task: tuple(values.shape) for task, values in output.logits.items()} == {"lesion": (2, 3), "site": (2, 2)}
    assert (output.feature_map is not None) == mapped
    assert network.cam_exact == exact
    assert network.preprocessing.mean is not None


def test_exact_networks_pool_their_feature_map_by_averaging():
    network = build_network(BOTH, recipe(), 1).eval()
    output = network(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(output.feature_map.mean(dim=(2, 3)), output.embedding)


def test_scores_are_fp32_although_the_backbone_computes_in_bf16():
    network = build_network(BOTH, recipe(), 1).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(2, 3, 32, 32))
    assert output.feature_map.dtype == torch.bfloat16
    assert output.embedding.dtype == torch.float32
    assert {values.dtype for values in output.logits.values()} == {torch.float32}


def test_the_site_head_changes_nothing_in_the_rest():
    alone = build_network(BOTH.restricted_to(["lesion"]), recipe(), 3).state_dict()
    both = build_network(BOTH, recipe(), 3).state_dict()
    assert set(both) - set(alone) == {"heads.site.weight", "heads.site.bias"}
    assert all(torch.equal(value, both[name]) for name, value in alone.items())


def test_the_seed_decides_the_start_and_leaves_torchs_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (build_network(BOTH, recipe(), seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["heads.site.weight"], other["heads.site.weight"])
    assert not torch.equal(first["backbone.conv1.0.weight"], other["backbone.conv1.0.weight"])


def test_local_weights_are_those_of_torchvision(tmp_path):
    torch.manual_seed(2)
    theirs = resnet18().eval()
    save_file(theirs.state_dict(), tmp_path / "r.safetensors")
    ours = build_network(BOTH, recipe("resnet18", weights=str(tmp_path / "r.safetensors")), 1).eval()
    images = torch.randn(2, 3, 64, 64)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(ours(images).embedding, theirs(images), rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_explained(tmp_path):
    state = resnet18().state_dict()
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    del state["bn1.bias"]
    save_file(state, tmp_path / "r.safetensors")
    with pytest.raises(
        RecipeError, match=r"r\.safetensors do not fit the backbone resnet18: bn1\.bias is missing; conv1\.weight has"
    ):
        build_network(BOTH, recipe("resnet18", weights=str(tmp_path / "r.safetensors")), 1)
    (tmp_path / "x.safetensors").write_bytes(b"nothing of the kind")
    for weights, message in [
        ("x.safetensors", "is not a readable"),
        ("y.safetensors", "no such weights file"),
        ("y.pth", "allowed are 'pretrained'"),
    ]:
        with pytest.raises(RecipeError, match=message):
            build_network(BOTH, recipe("resnet18", weights=str(tmp_path / weights)), 1)


made = timm.create_model


def failing(error):
    def fail(*_arguments, **_named):
        raise error

    return fail


class TestPublishedWeightsThatCannotBeFetched:
    def told(self, backbone):
        with pytest.raises(RecipeError) as error:
            build_network(BOTH, recipe(backbone, weights="pretrained"), 1)
        assert f"--weights {backbone}=FILE.safetensors" in str(error.value)
        assert "--from-scratch" in str(error.value)
        return str(error.value)

    @pytest.mark.parametrize("error", [httpx2.ProxyError("403 Forbidden"), httpx2.ConnectError("no route to host")])
    def test_from_the_hub(self, tmp_path, monkeypatch, error):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(httpx2.Client, "send", failing(error))
        monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the hub tries again, later and later
        assert "the published weights of resnet18 cannot be fetched (" in self.told("resnet18")

    def test_without_a_network_there_is_one_error_soon_and_no_report_of_tries(self, tmp_path, monkeypatch, caplog, capfd):
        waits, unnamed = [], httpx2.ConnectError("[Errno -2] Name or service not known")
        unnamed.__cause__ = OSError(-2, "Name or service not known")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", failing(unnamed))
        monkeypatch.setattr("time.sleep", waits.append)
        assert "cannot be fetched (Name or service not known); give a local file" in self.told("resnet18")
        assert sum(waits) <= 1
        assert (caplog.text, *capfd.readouterr()) == ("", "", "")
        assert not constants.HF_HUB_OFFLINE

    def test_a_hub_that_answers_is_asked_as_its_library_asks(self, monkeypatch):
        asked = []

        def answer(*_arguments, **_named):
            asked.append(constants.HF_HUB_OFFLINE)
            raise OSError("resnet18 has no file. Nothing else is said.\nNor here.")

        monkeypatch.setattr(httpx2.Client, "send", lambda _client, request, **_named: httpx2.Response(503, request=request))
        monkeypatch.setattr(timm, "create_model", lambda *a, **k: answer() if k.get("pretrained") else made(*a, **k))
        assert "cannot be fetched (resnet18 has no file); give" in self.told("resnet18")
        assert asked == [False]

    def test_from_elsewhere(self, monkeypatch):
        monkeypatch.setattr(AlexNet_Weights, "get_state_dict", failing(URLError("Tunnel connection failed: 403 Forbidden")))
        assert "Tunnel connection failed" in self.told("alexnet")


def test_an_unknown_backbone_gets_a_suggestion():
    with pytest.raises(RecipeError, match="did you mean 'resnet50'"):
        build_network(BOTH, recipe("resnet500"), 1)


def test_parameter_groups_hold_each_parameter_once_at_its_rate():
    settings = recipe(head_weight_rate=10.0, head_bias_rate=20.0, weight_decay=1e-4, decay_biases=False)
    network = build_network(BOTH, settings, 1)
    groups = parameter_groups(network, settings)
    seen = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(seen) == sorted(id(parameter) for parameter in network.parameters())
    found = {id(p): (group["rate"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found[id(network.heads["site"].weight)] == (10.0, 1e-4)
    assert found[id(network.heads["lesion"].bias)] == (20.0, 0.0)
    assert found[id(network.backbone.conv1[0].weight)] == (1.0, 1e-4)
    as_caffe = parameter_groups(network, settings.model_copy(update={"decay_biases": True}))
    assert {group["weight_decay"] for group in as_caffe} == {1e-4}


def test_frozen_statistics_stay_as_they_are_and_trained_ones_move():
    images = torch.randn(4, 3, 32, 32) + 3
    for batchnorm, moves in (("train", True), ("frozen", False)):
        network = build_network(BOTH, recipe(batchnorm=batchnorm), 1).train()
        before = {name: value.clone() for name, value in network.named_buffers()}
        network(images).logits["lesion"].sum().backward()
        moved = any(not torch.equal(value, before[name]) for name, value in network.named_buffers())
        assert moved == moves
        assert np.all([p.grad is not None for p in network.backbone.parameters() if p.ndim == 1])


def test_frozen_stages_stay_wholly_as_loaded(tmp_path):
    weights = tmp_path / "r.safetensors"
    save_backbone(build_network(BOTH, recipe(), 9), weights)
    network = build_network(BOTH, recipe(weights=str(weights), frozen_stages=2), 1).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups(network, recipe()), lr=0.1)
    network(torch.randn(4, 3, 32, 32)).logits["lesion"].square().sum().backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not [name for name in moved if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
    assert any(name.startswith("backbone.layer2") and name.endswith("running_mean") for name in moved)
    assert any(name.startswith("backbone.layer2") and name.endswith("weight") for name in moved)


@pytest.mark.parametrize(("backbone", "stages", "words"), [("test_resnet", 5, "has 5"), ("alexnet", 1, "has no stages")])
def test_more_frozen_stages_than_there_are_is_an_error(tmp_path, backbone, stages, words):
    weights = tmp_path / "r.safetensors"
    save_backbone(build_network(BOTH, recipe(backbone), 9), weights)
    with pytest.raises(RecipeError, match=words):
        build_network(BOTH, recipe(backbone, weights=str(weights), frozen_stages=stages), 1)
