"""An exported ResNet-50 in ONNX Runtime against the same bundle in eager PyTorch, both on the processor in fp32.

    .venv/bin/python -m pytest -o addopts= benchmarks/bench_onnx.py --benchmark-only

Each round is one batch of central squares at rest in memory, from uint8 pixels to probabilities, embedding and feature map: one square
for the latency, sixteen for the throughput. The two are timed in turn, so that both see the same machine; `ratio` in the extra columns
is the median over the rounds of PyTorch's time by ONNX Runtime's, and `largest_difference` that of any probability. The last group is
one whole photograph of 12 megapixels, scaled inside the graph. Alone on the machine, please; making the exports takes a minute before.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from predilect.bundle import write_bundle
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Recipe, system
from predilect.serving.export import export_onnx
from predilect.serving.onnx import OnnxRuntime
from predilect.serving.runtime import TorchRuntime
from predilect.training.crossval import Refit
from predilect.vision.network import build_network

LESIONS, SITES, ROUNDS = 25, 23, 10
LABELS = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES)))))


@pytest.fixture(scope="module", params=[224, 128])
def case(request, tmp_path_factory):
    crop = request.param
    test_side = crop * 256 // 224
    settings = (f"crop={crop}", f"jitter=[{test_side}, {2 * crop}]", f"test_side={test_side}", "views=center")
    recipe = Recipe.open("paper-mtl", ["weights=none", *(f"preprocessing.{setting}" for setting in settings)])
    network = build_network(LABELS, recipe, 1).eval()
    with torch.no_grad():  # untrained heads all but agree on every photograph: spread their scores
        for head in network.heads.values():
            head.weight.mul_(8)
    folder = tmp_path_factory.mktemp("bundles")
    bundle = write_bundle(folder / "bundle", Refit(system("mtl", recipe), network, {"sources": []}))
    export_onnx(bundle, folder / "model.onnx")
    torch_runtime = TorchRuntime(Fabric(accelerator="cpu", devices=1, precision="32-true"), bundle.network())
    return crop, torch_runtime, OnnxRuntime.open(folder / "model.onnx", bundle)


def drawn(n, height, width):
    rng = np.random.default_rng(0)
    areas = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((width, height)) for _ in range(n)]
    return np.stack([np.asarray(image) for image in areas])


def seconds(step):
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


@pytest.mark.benchmark(group="ONNX Runtime, ResNet-50")
@pytest.mark.parametrize("batch", [1, 16])
def test_squares(benchmark, case, batch):
    crop, in_torch, in_onnx = case
    side = in_torch.network.preprocessing.test_side
    squares = torch.from_numpy(drawn(batch, side, side)).permute(0, 3, 1, 2).contiguous()
    one, other = (runtime.observe(squares).scores for runtime in (in_torch, in_onnx))
    ratios = [seconds(lambda: in_torch.observe(squares)) / seconds(lambda: in_onnx.observe(squares)) for _ in range(ROUNDS)]
    benchmark.pedantic(in_onnx.observe, args=(squares,), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["crop"] = crop
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["photographs_per_second"] = round(batch / benchmark.stats.stats.median, 2)
    benchmark.extra_info["ratio"] = round(statistics.median(ratios), 2)
    benchmark.extra_info["largest_difference"] = f"{max(float((one[task] - other[task]).abs().max()) for task in one):.1e}"


@pytest.mark.benchmark(group="eager PyTorch, ResNet-50")
@pytest.mark.parametrize("batch", [1, 16])
def test_squares_in_eager_pytorch(benchmark, case, batch):
    crop, in_torch, _ = case
    side = in_torch.network.preprocessing.test_side
    squares = torch.from_numpy(drawn(batch, side, side)).permute(0, 3, 1, 2).contiguous()
    benchmark.pedantic(in_torch.observe, args=(squares,), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["crop"] = crop
    benchmark.extra_info["photographs_per_second"] = round(batch / benchmark.stats.stats.median, 2)


@pytest.mark.benchmark(group="ONNX Runtime, ResNet-50, a whole photograph of 12 megapixels")
def test_a_whole_photograph(benchmark, case):
    crop, _, in_onnx = case
    photograph = drawn(1, 3000, 4000)
    benchmark.pedantic(in_onnx.observe_photographs, args=(photograph,), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["crop"] = crop
