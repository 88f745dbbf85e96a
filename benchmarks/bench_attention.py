"""Both heads' attention maps against a plain forward pass of ResNet-50.

    .venv/bin/python -m pytest -o addopts= benchmarks/bench_attention.py --benchmark-only

Each round is one batch of 224-pixel inputs at rest in memory, once through the network without maps and once with the maps of the
most probable lesion and site; the two are timed in turn, now the one first and now the other, so that both see the same machine.
`cost` in the extra columns is the median of the rounds' ratios, less 1. It fails above 0.05, in the precision that training and
testing choose by themselves and, where that is bf16, in fp32 too. Alone on the machine, please.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from predilect.insight.attention import head_maps
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Recipe
from predilect.training.devices import make_fabric
from predilect.vision.network import build_network

BATCH, LESIONS, SITES, ROUNDS, PAIRS = 16, 25, 23, 10, 30
LARGEST_COST = 0.05
BACKBONE = "resnet50"
LABELS = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES)))))


@pytest.fixture(scope="module", params=["auto", "fp32"])
def case(request):
    fabric = make_fabric(request.param)
    if request.param == "auto" and fabric.strategy.precision.precision == "32-true":
        pytest.skip("this machine computes in fp32 by itself, which is the other case")
    network = build_network(LABELS, Recipe(name="benchmark", backbone=BACKBONE, weights="none"), 1).eval().to(fabric.device)
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return fabric, network, images.to(fabric.device, memory_format=torch.channels_last)


@torch.no_grad()
def plain(fabric, network, images):
    with fabric.autocast():
        logits = network(images).logits
    return {task: values.cpu() for task, values in logits.items()}


@torch.no_grad()
def with_maps(fabric, network, images):
    with fabric.autocast():
        output = network(images)
    best = {task: values.argmax(dim=1, keepdim=True) for task, values in output.logits.items()}
    maps = head_maps(network, output.feature_map, best)
    return {task: (values.cpu(), maps[task].cpu()) for task, values in output.logits.items()}


@pytest.mark.benchmark(group="attention, ResNet-50 at 224 px, batch 16")
def test_plain_forward(benchmark, case):
    benchmark.pedantic(plain, args=case, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["images_per_second"] = round(BATCH / benchmark.stats.stats.median, 2)


@pytest.mark.benchmark(group="attention, ResNet-50 at 224 px, batch 16")
def test_both_heads_maps(benchmark, case):
    seconds = {plain: [], with_maps: []}
    for step in seconds:  # to warm up
        step(*case)
    for k in range(PAIRS):
        for step in (plain, with_maps) if k % 2 else (with_maps, plain):
            begun = time.perf_counter()
            step(*case)
            seconds[step].append(time.perf_counter() - begun)
    benchmark.pedantic(with_maps, args=case, rounds=ROUNDS, warmup_rounds=1)
    ratios = [mapped / bare for bare, mapped in zip(seconds[plain], seconds[with_maps], strict=True)]
    cost = statistics.median(ratios) - 1
    benchmark.extra_info["images_per_second"] = round(BATCH / benchmark.stats.stats.median, 2)
    benchmark.extra_info["cost"] = round(cost, 4)
    benchmark.extra_info["precision"] = str(case[0].strategy.precision.precision)
    assert {task: tuple(maps.shape) for task, (_, maps) in with_maps(*case).items()} == dict.fromkeys(
        LABELS.names, (BATCH, 1, 7, 7)
    )
    assert cost <= LARGEST_COST
