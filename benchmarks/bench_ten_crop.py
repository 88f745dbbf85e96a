"""Ten-crop testing against ten eager fp32 passes, in time and in what it changes in the scores.

    .venv/bin/python -m pytest -o addopts= benchmarks/bench_ten_crop.py --benchmark-only

The plain way is the usual one: torchvision's TenCrop, each crop a pass of the timm ResNet-50 in fp32 and contiguous memory, the
probabilities averaged. Each round is one batch of photographs at rest in memory; compare medians, on a machine that does nothing
else. In the extra columns: photographs per second, and for ours the ratio to the plain way in the same run, the largest difference
in any score and the change in mAP-class on labels drawn from the plain way's scores.
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
    total = 0
    for crop in crops:
        total = total + torch.sigmoid(network(normalise(crop, preprocessing.mean, preprocessing.std).contiguous()).logits["lesion"])
    return total / len(crops)


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
    with torch.no_grad():
        plain(contiguous, images.to(fabric.device))
        begun = time.perf_counter()
        expected = plain(contiguous, images.to(fabric.device)).cpu().numpy()
        seconds = time.perf_counter() - begun
    found = (
        benchmark.pedantic(lambda: predict_batch(fabric, network, images), rounds=ROUNDS, warmup_rounds=1)["lesion"].cpu().numpy()
    )
    labels = (np.random.default_rng(0).random(expected.shape) < expected).astype(np.int8)
    means = [float(np.nanmean(average_precision(scores, labels))) for scores in (expected, found)]
    benchmark.extra_info["photographs_per_second"] = round(BATCH / benchmark.stats.stats.median, 2)
    benchmark.extra_info["ratio"] = round(seconds / benchmark.stats.stats.median, 2)
    benchmark.extra_info["precision"] = str(fabric.strategy.precision.precision)
    benchmark.extra_info["largest_difference"] = f"{np.abs(found - expected).max():.1e}"
    benchmark.extra_info["change_in_map"] = f"{means[1] - means[0]:+.1e}"
