"""An exported ImageNet ResNet on real photographs: the same scores as PyTorch's, as they are and where they must be turned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from made_run import scores_of_files
from predilect.bundle import write_bundle
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Preprocessing, Recipe, system
from predilect.serving.export import TOLERANCE, export_onnx
from predilect.serving.onnx import OnnxRuntime
from predilect.serving.runtime import TorchRuntime
from predilect.training.crossval import Refit
from predilect.vision.network import build_network

SHARED = Path(__file__).parents[1].parent / "shared"
WEIGHTS = SHARED / "weights" / "resnet18.imagenet-pqf.safetensors"
PHOTOGRAPHS = [*sorted((SHARED / "data" / "pad-ufes-20" / "images").glob("*"))[:6]]
PHOTOGRAPHS += [path for folder in sorted((SHARED / "data" / "milk10k").glob("*Input/*"))[:6] for path in sorted(folder.glob("*"))]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not WEIGHTS.is_file() or not PHOTOGRAPHS, reason="no development data beside the checkout"),
]


def make_bundle(folder, precision):
    labels = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(8))), Task("site", tuple(f"s{k}" for k in range(5)))))
    recipe = Recipe(name="real", backbone="resnet18", weights=str(WEIGHTS), preprocessing=Preprocessing(), precision=precision)
    network = build_network(labels, recipe, 1).eval()
    with torch.no_grad():  # untrained heads all but agree on every photograph: spread their scores
        for head in network.heads.values():
            head.weight.mul_(20)
    return write_bundle(folder / "bundle", Refit(system("mtl", recipe), network, {"sources": []}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("real"), "fp32")


@pytest.fixture(scope="module")
def model(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "model.onnx"
    export_onnx(bundle, path)
    return path


def test_real_photographs_get_the_same_scores_turned_or_not(bundle, model, tmp_path):
    files = list(PHOTOGRAPHS)
    for path in PHOTOGRAPHS:
        exif = Image.Exif()
        exif[0x0112] = 8
        files.append(tmp_path / f"{path.stem}.jpg")
        Image.open(path).transpose(Image.Transpose.ROTATE_270).save(files[-1], quality=92, exif=exif)
    expected, found = (
        scores_of_files(runtime.observe, bundle.preprocessing, files)
        for runtime in (TorchRuntime.of(bundle), OnnxRuntime.open(model, bundle))
    )
    assert np.ptp([scores["lesion"] for scores in expected.values()], axis=0).max() > 0.2
    for path, scores in expected.items():
        for task, values in scores.items():
            assert np.abs(found[path][task] - values).max() < TOLERANCE


def test_whole_files_get_the_same_scores_without_predilect(bundle, model):
    """Those that Predilect keeps as they are and decodes at full scale."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    tasks = list(json.loads(session.get_modelmeta().custom_metadata_map["labels"]))
    expected = scores_of_files(TorchRuntime.of(bundle).observe, bundle.preprocessing, PHOTOGRAPHS)
    for path, scores in expected.items():
        found = session.run(tasks, {"photographs": np.asarray(Image.open(path).convert("RGB"))[None]})
        for task, values in zip(tasks, found, strict=True):
            assert np.abs(values[0] - scores[task]).max() < TOLERANCE


def test_a_network_in_bf16_says_what_the_model_says_but_for_its_rounding(bundle, model, tmp_path):
    """The model computes in fp32, to within `TOLERANCE` of PyTorch in fp32; bf16 keeps 8 binary digits in each layer of the backbone."""
    rounding = make_bundle(tmp_path, "bf16")
    expected, found = (
        scores_of_files(runtime.observe, bundle.preprocessing, PHOTOGRAPHS)
        for runtime in (OnnxRuntime.open(model, bundle), TorchRuntime.of(rounding))
    )
    distances = np.concatenate(
        [np.abs(found[path][task] - values) for path, scores in expected.items() for task, values in scores.items()]
    )
    assert TOLERANCE < distances.max() < 0.2  # heads that were spread by 20 spread the rounding, too
    assert np.median(distances) < 0.002
