"""Ten-crop testing against ten eager fp32 passes, in time and in what it changes in the scores.

    .venv/bin/python -m pytest -o addopts= benchmarks/bench_ten_crop.py --benchmark-only

The plain way is the usual one: torchvision's TenCrop, each crop a pass of the timm ResNet-50 in fp32 and contiguous memory, the
probabilities averaged. Each round is one batch of photographs at rest in memory; compare medians, on a machine that does nothing
else. In the extra columns: photographs per second, and for ours the ratio to the plain way in the same run, the largest difference
in any score of both tasks and the change in mAP-class on labels drawn from the plain way's scores. The network is untrained, so these two tell of the
arithmetic; what it does to a trained network's mAP is for a run on photographs.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest
import torch
from torchvision.transforms import TenCrop

from predilect.evaluation.metrics import average_precision
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Recipe
from predilect.training.devices import make_fabric
from predilect.training.inference import predict_batch
from predilect.vision.network import build_network
from predilect.vision.transforms import normalise

LESIONS, SITES, BATCH, ROUNDS = 25, 23, 16, 3
LABELS = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES)))))


@pytest.fixture(scope="module", params=[224, 128])
def case(request):
    crop = request.param
    test_side = crop * 256 // 224
    settings = (
        f"preprocessing.crop={crop}",
        f"preprocessing.jitter=[{test_side}, {2 * crop}]",
        f"preprocessing.test_side={test_side}",
    )
    recipe = Recipe.open("paper-mtl", ["weights=none", *settings])
    fabric = make_fabric(recipe.precision)
    network = build_network(LABELS, recipe, 1).eval()
    with torch.no_grad():  # untrained heads all but agree on every photograph: spread their scores
        for head in network.heads.values():
            head.weight.mul_(8)
    coarse = torch.randint(0, 256, (BATCH, 3, 12, 12), generator=torch.Generator().manual_seed(0)).float()
    images = torch.nn.functional.interpolate(coarse, size=(test_side, test_side), mode="bicubic").clamp(0, 255).to(torch.uint8)
    return network.to(fabric.device), fabric, images


def plain(network, images):
    preprocessing = network.preprocessing
    crops = TenCrop(preprocessing.crop)(images)
    lesions = sites = 0
    for crop in crops:
        logits = network(normalise(crop, preprocessing.mean, preprocessing.std).contiguous()).logits
        lesions = lesions + torch.sigmoid(logits["lesion"])
        sites = sites + torch.softmax(logits["site"], dim=1)
    return {"lesion": lesions / len(crops), "site": sites / len(crops)}


@pytest.mark.benchmark(group="ten-crop, ResNet-50")
def test_ten_eager_passes(benchmark, case):
    network, fabric, images = case
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        benchmark.pedantic(lambda: plain(contiguous, images.to(fabric.device)), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["photographs_per_second"] = round(BATCH / benchmark.stats.stats.median, 2)


@pytest.mark.benchmark(group="ten-crop, ResNet-50")
def test_ours(benchmark, case):
    network, fabric, images = case
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    seconds = []
    with torch.no_grad():
        for _ in range(ROUNDS + 1):
            begun = time.perf_counter()
            expected = {task: scores.cpu().numpy() for task, scores in plain(contiguous, images.to(fabric.device)).items()}
            seconds.append(time.perf_counter() - begun)
    answer = benchmark.pedantic(lambda: predict_batch(fabric, network, images), rounds=ROUNDS, warmup_rounds=1)
    found = {task: scores.cpu().numpy() for task, scores in answer.items()}
    labels = (np.random.default_rng(0).random(expected["lesion"].shape) < expected["lesion"]).astype(np.int8)
    means = [float(np.nanmean(average_precision(scores["lesion"], labels))) for scores in (expected, found)]
    benchmark.extra_info["photographs_per_second"] = round(BATCH / benchmark.stats.stats.median, 2)
    benchmark.extra_info["ratio"] = round(float(np.median(seconds[1:])) / benchmark.stats.stats.median, 2)
    benchmark.extra_info["precision"] = str(fabric.strategy.precision.precision)
    benchmark.extra_info["largest_difference"] = f"{max(np.abs(found[task] - expected[task]).max() for task in found):.1e}"
    benchmark.extra_info["change_in_map"] = f"{means[1] - means[0]:+.1e}"
