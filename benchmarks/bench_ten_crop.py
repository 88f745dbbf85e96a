"""Ten-crop testing against ten eager fp32 passes, in time and in what it changes in the scores.

    .venv/bin/python -m pytest -o addopts= benchmarks/bench_ten_crop.py --benchmark-only

The plain way is the usual one: torchvision's TenCrop, each crop a pass of the timm ResNet-50 in fp32 and contiguous memory, the
probabilities averaged. A round is 16 photographs at rest in memory, all in one batch as in a cross-validation, or one after another
as they come to a service; rounds of both ways take turns, and medians are compared, on a machine that does nothing else. Beside the
table of times a line for each case tells the ratio, the largest difference in any score of both tasks, and the change in mAP-class
on labels drawn from the plain way's scores. The network is untrained, so these two tell of the arithmetic; what it does to a
trained network's mAP is for a run on photographs.
"""

from __future__ import annotations

import copy
import statistics
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

LESIONS, SITES, PHOTOGRAPHS, ROUNDS = 25, 23, 16, 3
LABELS = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES)))))


@pytest.fixture(scope="module", params=[224, 128], ids="crop {}".format)
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
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (PHOTOGRAPHS, 3, 12, 12), generator=generator).float()
    images = torch.nn.functional.interpolate(coarse, size=(test_side, test_side), mode="bicubic").clamp(0, 255).to(torch.uint8)
    return network.to(fabric.device), fabric, images


def ten_passes(network, images):
    preprocessing = network.preprocessing
    lesions = sites = 0
    for crop in TenCrop(preprocessing.crop)(images):
        logits = network(normalise(crop, preprocessing.mean, preprocessing.std).contiguous()).logits
        lesions = lesions + torch.sigmoid(logits["lesion"])
        sites = sites + torch.softmax(logits["site"], dim=1)
    return {"lesion": lesions / 10, "site": sites / 10}


def scored(look, images, at_once):
    """The scores of all photographs, looked at so many at once, on the processor; that also waits for the device."""
    batches = [look(batch) for batch in images.split(at_once)]
    return {task: torch.cat([scores[task] for scores in batches]).cpu().numpy() for task in batches[0]}


@pytest.mark.parametrize("at_once", [PHOTOGRAPHS, 1], ids="{} at once".format)
@pytest.mark.benchmark(group="ten-crop, ResNet-50, 16 photographs")
def test_ten_crops(benchmark, case, at_once, capsys):
    network, fabric, images = case
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    seconds, expected = [], {}

    def plainly():
        begun = time.perf_counter()
        with torch.no_grad():
            expected.update(scored(lambda batch: ten_passes(contiguous, batch.to(fabric.device)), images, at_once))
        seconds.append(time.perf_counter() - begun)

    found = benchmark.pedantic(
        lambda: scored(lambda batch: predict_batch(fabric, network, batch), images, at_once),
        setup=plainly,  # before each round
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    labels = (np.random.default_rng(0).random(expected["lesion"].shape) < expected["lesion"]).astype(np.int8)
    before, now = (float(np.nanmean(average_precision(scores["lesion"], labels))) for scores in (expected, found))
    plain, ours = statistics.median(seconds[1:]), benchmark.stats.stats.median
    told = {
        "precision": str(fabric.strategy.precision.precision),
        "plain_photographs_per_second": round(PHOTOGRAPHS / plain, 2),
        "photographs_per_second": round(PHOTOGRAPHS / ours, 2),
        "ratio": round(plain / ours, 2),
        "largest_difference": f"{max(np.abs(found[task] - expected[task]).max() for task in found):.1e}",
        "change_in_map": f"{now - before:+.1e}",
    }
    benchmark.extra_info.update(told)
    with capsys.disabled():
        print(
            f"\ncrop {network.preprocessing.crop}, {at_once} at once:", ", ".join(f"{name} {value}" for name, value in told.items())
        )
