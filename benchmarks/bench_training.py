"""Training speed from a packed atlas, against the loop people write and against the step alone.

    make benchmarks            all benchmarks; this one alone:
    .venv/bin/python -m pytest -o addopts= benchmarks/bench_training.py --benchmark-only

The plain loop is the usual one: the same timm ResNet-50 in fp32 and contiguous memory, PIL and torchvision transforms on image
files, a DataLoader, the same losses and optimiser. Each round is one optimiser step on 20 photographs; compare medians, on a
machine that does nothing else. `images_per_second` stands in the extra columns. Where ours computes in bf16, a step from the packed
atlas must take at most half the time of the plain loop's, which is measured before it; it fails otherwise.
"""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from predilect.atlas.pack import PackedImages, pack_images
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Recipe
from predilect.training.data import BatchOrder, TrainingPhotos, default_workers, training_loader
from predilect.training.devices import make_fabric
from predilect.training.step import make_optimizer, train_step
from predilect.vision.network import build_network

BATCH, LESIONS, SITES, PHOTOGRAPHS, ROUNDS = 20, 25, 23, 40, 6
LEAST_RATIO = 2
LABELS = LabelSpace((Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES)))))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs of 683 x 512 pixels, detailed enough to weigh as much as real ones (about 150 kB)."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    paths = []
    for k in range(PHOTOGRAPHS):
        coarse = Image.fromarray(rng.integers(60, 220, size=(64, 86, 3), dtype=np.uint8)).resize(
            (683, 512), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse).astype(np.int16) + rng.integers(-8, 9, size=(512, 683, 3))
        target = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=90)
        paths.append(folder / f"{k}.jpg")
        paths[-1].write_bytes(target.getvalue())
    return paths


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(1)
    lesions = (rng.random((PHOTOGRAPHS, LESIONS)) < 0.1).astype(np.int8)
    sites = np.eye(SITES, dtype=np.int8)[rng.integers(0, SITES, PHOTOGRAPHS)]
    return {"lesion": torch.from_numpy(lesions), "site": torch.from_numpy(sites)}


@pytest.fixture(scope="module")
def medians():
    """Seconds of a step by the kind of loop, for the tests that follow."""
    return {}


class Plain(Dataset):
    def __init__(self, paths, labels):
        self.paths, self.labels = paths, labels
        self.crop = transforms.Compose(
            [transforms.RandomCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
             transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        )  # fmt: skip

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, k):
        image = Image.open(self.paths[k]).convert("RGB")
        image = transforms.functional.resize(image, int(torch.randint(256, 481, ())))
        return self.crop(image), self.labels["lesion"][k].float(), self.labels["site"][k].argmax()


class PlainNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model("resnet50", num_classes=0)
        self.lesion, self.site = nn.Linear(2048, LESIONS), nn.Linear(2048, SITES)

    def forward(self, x):
        embedding = self.backbone(x)
        return self.lesion(embedding), self.site(embedding)


def pack(files, folder):
    ids, names = [path.stem for path in files], [path.name for path in files]
    pack_images(ids, names, folder / "images.arrow", root=files[0].parent, parts=folder / "parts")


def repeated(loader):
    return itertools.chain.from_iterable(itertools.repeat(loader))


def measure(benchmark, step):
    benchmark.pedantic(step, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["images_per_second"] = round(BATCH / benchmark.stats.stats.median, 2)


@pytest.mark.benchmark(group="training, ResNet-50 at 224 px, batch 20")
def test_plain_loop(benchmark, files, labels, medians):
    network = PlainNetwork().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    workers = default_workers(device)
    batches = repeated(
        DataLoader(Plain(files, labels), batch_size=BATCH, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda")
    )

    def step():
        images, lesions, sites = (item.to(device) for item in next(batches))
        lesion, site = network(images)
        loss = nn.functional.binary_cross_entropy_with_logits(lesion, lesions, reduction="sum") / BATCH
        loss = loss + nn.functional.cross_entropy(site, sites)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    measure(benchmark, step)
    medians["plain"] = benchmark.stats.stats.median


def our_step(labels, parts):
    recipe = Recipe(name="benchmark", backbone="resnet50", weights="none", batch_size=BATCH)
    fabric = make_fabric(recipe.precision)
    network = build_network(LABELS, recipe, 1)
    forward, optimizer = fabric.setup(network, make_optimizer(network, recipe))
    network.train()

    def step():
        losses = train_step(fabric, network, forward, optimizer, [next(parts)], labels=labels, batch_size=BATCH)
        return sum(float(loss) for loss in losses.values())

    return step, recipe, fabric


@pytest.mark.benchmark(group="training, ResNet-50 at 224 px, batch 20")
def test_from_the_packed_atlas(benchmark, files, labels, medians, tmp_path):
    pack(files, tmp_path)
    recipe = Recipe(name="benchmark")
    photos = TrainingPhotos(
        PackedImages(tmp_path / "images.arrow"),
        build_network(LABELS, Recipe(name="n", backbone="test_resnet", weights="none"), 1).preprocessing,
        1,
    )
    fabric = make_fabric("auto")
    order = BatchOrder(np.arange(len(files)), recipe.batch_size, 1, range(1000))
    parts = iter(training_loader(photos, order, default_workers(fabric.device), pin=fabric.device.type == "cuda"))
    step, _, fabric = our_step(labels, parts)
    measure(benchmark, step)
    precision = str(fabric.strategy.precision.precision)
    benchmark.extra_info["precision"] = precision
    if "plain" in medians:
        benchmark.extra_info["ratio"] = round(medians["plain"] / benchmark.stats.stats.median, 2)
    if precision == "bf16-mixed":
        assert "plain" in medians, "the plain loop was not measured: run the whole file"
        assert medians["plain"] / benchmark.stats.stats.median >= LEAST_RATIO


@pytest.mark.benchmark(group="loading 20 photographs in one process")
def test_loading_alone(benchmark, files, tmp_path):
    """Decoding, jittering, cropping and stacking, without a network: what the packed atlas adds to a step at most."""
    pack(files, tmp_path)
    photos = TrainingPhotos(PackedImages(tmp_path / "images.arrow"), Recipe(name="benchmark").preprocessing, 1)
    batches = iter(training_loader(photos, BatchOrder(np.arange(len(files)), BATCH, 1, range(1000)), 0, pin=False))
    benchmark.pedantic(lambda: next(batches), rounds=20, warmup_rounds=2)
    benchmark.extra_info["ms_per_image"] = round(benchmark.stats.stats.median / BATCH * 1000, 2)


@pytest.mark.benchmark(group="training, ResNet-50 at 224 px, batch 20")
def test_from_memory(benchmark, labels):
    images = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    step, _, _ = our_step(labels, itertools.repeat((images, torch.arange(BATCH))))
    measure(benchmark, step)
