"""Ten-crop testing against ten eager fp32 passes, in time and in what it changes in the scores.

    .venv/bin/python -m pytest -o addopts= benchmarks/bench_ten_crop.py --benchmark-only      time, of an untrained network
    .venv/bin/python benchmarks/bench_ten_crop.py RUN ATLAS [SYSTEM]                          scores, of a trained one

The plain way is the usual one: torchvision's TenCrop, each crop a pass of the timm ResNet-50 in fp32 and contiguous memory, the
probabilities averaged. A round is 16 photographs at rest in memory, all in one batch as in a cross-validation, or one after another
as they come to a service; rounds of both ways take turns, and medians are compared, on a machine that does nothing else. Beside the
table of times a line for each case tells the ratio, the largest difference in any score of both tasks, and the change in mAP-class
on labels drawn from the plain way's scores. The network is untrained, so these two tell of the arithmetic alone. Where ours
computes in bf16, all photographs at once must take at most 1 / 2.5 of the plain way's time; it fails otherwise.

What the arithmetic does to a trained network is for the second command to say. It takes a finished cross-validation, whose folds
still hold their weights, and its atlas; SYSTEM is the first of the run that has lesions. The network of the first seed and fold
scores the photographs that it was tested on in both ways, ours in the precision of its recipe. The largest difference in any score
is printed, and mAP-class and mAP-image in the plain way, in ours, and the change. Nothing is written.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import TenCrop

from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits
from predilect.errors import PredilectError
from predilect.evaluation.metrics import average_precision, map_class, map_image
from predilect.labels.tasks import LESION, LabelSpace, Task
from predilect.recipe import Recipe
from predilect.run import Run
from predilect.training.devices import make_fabric
from predilect.training.folds import TrainedFolds
from predilect.training.inference import predict_batch
from predilect.vision.network import build_network
from predilect.vision.transforms import central_square, normalise

LESIONS, SITES, PHOTOGRAPHS, ROUNDS = 25, 23, 16, 3
LEAST_RATIO = 2.5
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


@torch.no_grad()
def ten_passes(network, images):
    preprocessing = network.preprocessing
    sums = dict.fromkeys(network.labels.names, 0)
    for crop in TenCrop(preprocessing.crop)(images):
        logits = network(normalise(crop, preprocessing.mean, preprocessing.std).contiguous()).logits
        for task, values in logits.items():
            sums[task] = sums[task] + (torch.sigmoid(values) if task == LESION else torch.softmax(values, dim=1))
    return {task: total / 10 for task, total in sums.items()}


def scored(look, images, at_once):
    """The scores of all photographs, looked at so many at once, on the processor; that also waits for the device."""
    batches = [look(batch) for batch in images.split(at_once)]
    return {task: torch.cat([scores[task] for scores in batches]).cpu().numpy() for task in batches[0]}


def largest_difference(found, expected):
    return max(float(np.abs(found[task] - expected[task]).max()) for task in found)


@pytest.mark.parametrize("at_once", [PHOTOGRAPHS, 1], ids="{} at once".format)
@pytest.mark.benchmark(group="ten-crop, ResNet-50, 16 photographs")
def test_ten_crops(benchmark, case, at_once, capsys):
    network, fabric, images = case
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    seconds, expected = [], {}

    def plainly():
        begun = time.perf_counter()
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
        "largest_difference": f"{largest_difference(found, expected):.1e}",
        "change_in_map": f"{now - before:+.1e}",
    }
    benchmark.extra_info.update(told)
    with capsys.disabled():
        print(
            f"\ncrop {network.preprocessing.crop}, {at_once} at once:", ", ".join(f"{name} {value}" for name, value in told.items())
        )
    if told["precision"] == "bf16-mixed" and at_once == PHOTOGRAPHS:
        assert plain / ours >= LEAST_RATIO


def compare_trained(run_folder, atlas_folder, system=None):
    """What the second command prints, line by line."""
    atlas = Atlas.open(atlas_folder)
    folds = TrainedFolds.of(Run.open(run_folder), atlas, Splits.read(atlas_folder / "splits.parquet"))
    info = folds.run.info
    name = system or next((name for name, given in info["systems"].items() if LESION in given["tasks"]), None)
    if name is None:
        raise SystemExit(f"{run_folder}: no system of this run has lesions")
    seed, fold = info["seeds"][0], info["folds"][0]
    network, rows = folds.network(name, seed, fold), folds.tested(fold)
    if LESION not in network.labels.names:
        raise SystemExit(f"{name} has no lesions, so its scores have no mAP")
    fabric = make_fabric(folds.recipe(name).precision)
    # The run's own views may be another number: what is asked here is what ten crops cost in accuracy.
    network.preprocessing = network.preprocessing.model_copy(update={"views": "ten-crop"})
    network = network.to(fabric.device)
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    with atlas.images() as packed:
        squares = torch.from_numpy(np.stack([central_square(packed[row], network.preprocessing) for row in rows]))
    expected = scored(lambda batch: ten_passes(contiguous, batch.to(fabric.device)), squares, PHOTOGRAPHS)
    found = scored(lambda batch: predict_batch(fabric, network, batch), squares, PHOTOGRAPHS)
    yield f"{name} seed {seed} fold {fold}: {len(rows)} photographs, ours in {fabric.strategy.precision.precision}"
    yield f"largest difference in a score {largest_difference(found, expected):.1e}"
    labels = folds.truth.values[LESION][rows]
    for measure in (map_class, map_image):
        before, now = (measure(scores[LESION], labels) for scores in (expected, found))
        yield f"{measure.__name__} {before:.4f} plain, {now:.4f} ours, change {now - before:+.1e}"


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        raise SystemExit(f"usage: {sys.argv[0]} RUN ATLAS [SYSTEM]")
    try:
        for line in compare_trained(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]):
            print(line, flush=True)
    except PredilectError as error:
        raise SystemExit(f"error: {error}") from error
