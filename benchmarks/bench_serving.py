"""A server under load, against the handler people write: latency with its parts, requests a second, and what four times as many do.

    .venv/bin/python benchmarks/bench_serving.py                                            all of it, some five minutes
    .venv/bin/python benchmarks/bench_serving.py --backbone resnet18 --indexed 500 --seconds 3        a look at whether it runs

The network has random weights, which cost as much as others. A request is one photograph of 683 x 512 pixels, answered with lesions, site,
the attention of both heads and its 5 nearest among 21,657 embeddings. The plain handler does less: FastAPI's own upload, PIL and torchvision
transforms, the same network, probabilities. Each server is a process of its own, and so is not the client: give the machine to it alone.

First one request after the other. Then as many clients as keep the server busy (closed loop); what they get through is the sustainable
rate. Then four times that rate, whatever becomes of the requests (open loop); memory is the server's resident size before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import polars as pl
from fastapi import UploadFile
from PIL import Image
from pydantic import TypeAdapter

LESIONS, SITES, CLIENTS, OVERLOAD, ROUNDS = 25, 23, 8, 4, 40
PATIENCE = 120
ASKED = {"with": "attention,similar"}


def make_bundle(folder: Path, backbone: str, n_indexed: int) -> Path:
    """A bundle of random weights with an index of random embeddings."""
    from predilect.bundle import write_bundle
    from predilect.insight.bundle_index import INDEX_FOLDER
    from predilect.insight.retrieval import EmbeddingIndex
    from predilect.labels.tasks import LabelSpace, Task
    from predilect.predictions import Truth
    from predilect.recipe import Recipe, system
    from predilect.training.crossval import Refit
    from predilect.vision.network import build_network

    labels = LabelSpace(
        (Task("lesion", tuple(f"l{k}" for k in range(LESIONS))), Task("site", tuple(f"s{k}" for k in range(SITES))))
    )
    chosen = system("mtl", Recipe(name="benchmark", backbone=backbone, weights="none"))
    network = build_network(labels, chosen.recipe, 1).eval()
    bundle = write_bundle(folder / "bundle", Refit(chosen, network, {"sources": [], "notes": []}))
    random = np.random.default_rng(0)
    embeddings = random.random((n_indexed, network.heads["lesion"].in_features), dtype=np.float32)
    values = {
        "lesion": (random.random((n_indexed, LESIONS)) < 0.1).astype(np.int8),
        "site": np.eye(SITES, dtype=np.int8)[random.integers(0, SITES, n_indexed)],
    }
    photos = Truth(np.array([f"{k:06}" for k in range(n_indexed)]), labels, values, None, pl.DataFrame())
    EmbeddingIndex(embeddings, photos, bundle.model, atlas="random").save(bundle.path / INDEX_FOLDER)
    return bundle.path


def photograph() -> bytes:
    """Detailed enough to weigh as much as a real one, about 150 kB."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(60, 220, (64, 86, 3), dtype=np.uint8)).resize((683, 512), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int16) + random.integers(-8, 9, (512, 683, 3))
    target = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=90)
    return target.getvalue()


def time_parts(bundle: Path, data: bytes) -> None:
    """What a request costs, step by step, without HTTP."""
    from predilect.bundle import Bundle
    from predilect.serving.answers import PhotographAnswer
    from predilect.serving.predictor import Predictor
    from predilect.serving.steps import Question, Wanted

    predictor, adapter = Predictor.open(Bundle.open(bundle)), TypeAdapter(PhotographAnswer)
    maps, similar = Question(maps={"lesion": None, "site": None}), Question(similar=Wanted(5))
    looked = predictor.prepare("p", data)
    (seen,) = predictor.observe([looked])
    answer = predictor.answer(looked, seen, Question(maps=maps.maps, similar=similar.similar))
    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: predictor.prepare("p", data),
        "network": lambda: predictor.observe([looked]),
        "probabilities": lambda: predictor.answer(looked, seen, Question()),
        "attention": lambda: predictor.answer(looked, seen, maps),
        "5 nearest": lambda: predictor.answer(looked, seen, similar),
        "JSON": lambda: adapter.dump_json(answer),
    }
    for name, part in parts.items():
        part()
        taken = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            part()
            taken.append(time.perf_counter() - begun)
        print(f"  {name:<14}{1000 * statistics.median(taken):8.1f} ms")


def plain_server(bundle: Path, port: int) -> None:
    """The handler that people write."""
    import torch
    import uvicorn
    from fastapi import FastAPI
    from torchvision import transforms

    from predilect.bundle import Bundle

    opened = Bundle.open(bundle)
    network, labels, taken = opened.network(), opened.labels, opened.preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize(taken.test_side),
            transforms.CenterCrop(taken.crop),
            transforms.ToTensor(),
            transforms.Normalize(taken.mean, taken.std),
        ]
    )
    app = FastAPI()

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/predict")
    def predict(files: UploadFile) -> dict[str, dict[str, float]]:
        image = transform(Image.open(files.file).convert("RGB"))
        with torch.no_grad():
            logits = network(image[None]).logits
        scores = {"lesion": logits["lesion"].sigmoid(), "site": logits["site"].softmax(dim=1)}
        return {task: dict(zip(labels[task].classes, values[0].tolist(), strict=True)) for task, values in scores.items()}

    uvicorn.run(app, port=port, log_level="error")


@contextmanager
def served(command: list[str], port: int) -> Iterator[tuple[str, int]]:
    """A server process that is ready: its address and process id."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as process:
        try:
            begun = time.monotonic()
            while True:
                try:
                    if httpx.get(f"{url}/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if time.monotonic() - begun > PATIENCE or process.poll() is not None:
                    raise SystemExit(f"{command} does not serve")
                time.sleep(0.1)
            yield url, process.pid
        finally:
            process.terminate()


async def ask(client: httpx.AsyncClient, data: bytes, found: list[tuple[int, float]]) -> None:
    begun = time.perf_counter()
    try:
        status = (await client.post("/v1/predict", files={"files": ("p.jpg", data)}, data=ASKED)).status_code
    except httpx.TransportError:  # the connection was closed without an answer
        status = 0
    found.append((status, time.perf_counter() - begun))


async def closed_loop(url: str, data: bytes, n_clients: int, seconds: float) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        until = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < until:
                await ask(client, data, found)

        await asyncio.gather(*(one() for _ in range(n_clients)))
    return found


async def open_loop(url: str, data: bytes, rate: float, seconds: float) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client, asyncio.TaskGroup() as group:
        begun = time.monotonic()
        for k in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + k / rate - time.monotonic()))
            group.create_task(ask(client, data, found))
    return found


def told(name: str, found: list[tuple[int, float]], seconds: float) -> float:
    """Print one line of numbers; returns answers a second."""
    taken = sorted(spent for status, spent in found if status == 200)
    rate = len(taken) / seconds
    p50, p95 = (1000 * taken[int(share * (len(taken) - 1))] if taken else float("nan") for share in (0.5, 0.95))
    statuses = ", ".join(f"{n} x {status}" for status, n in sorted(Counter(status for status, _ in found).items()))
    print(f"  {name:<14}{rate:8.1f} answers/s   p50 {p50:8.1f} ms   p95 {p95:8.1f} ms   {statuses}")
    return rate


def resident(pid: int) -> float:
    """Of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(url: str, pid: int, data: bytes, seconds: float) -> None:
    asyncio.run(closed_loop(url, data, 1, min(2.0, seconds)))
    told("one by one", asyncio.run(closed_loop(url, data, 1, seconds)), seconds)
    rate = told(f"{CLIENTS} clients", asyncio.run(closed_loop(url, data, CLIENTS, seconds)), seconds)
    held = [resident(pid)]
    for name in (f"{OVERLOAD} x the rate", "and once more"):
        begun = time.monotonic()
        found = asyncio.run(open_loop(url, data, OVERLOAD * rate, seconds))
        told(name, found, time.monotonic() - begun)
        held.append(resident(pid))
    print(f"  {'memory':<14}{held[0]:8.0f} MB before, {held[1]:.0f} MB after the first, {held[2]:.0f} MB after the second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--indexed", type=int, default=21_657)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--plain", type=Path, help="serve a bundle by the plain handler, for the benchmark itself")
    asked = parser.parse_args()
    if asked.plain is not None:
        plain_server(asked.plain, asked.port)
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle, data = make_bundle(Path(folder), asked.backbone, asked.indexed), photograph()
        print(f"{asked.backbone}, a photograph of {len(data) / 1000:.0f} kB, {asked.indexed:,} embeddings, {os.cpu_count()} cores")
        print("parts, median")
        time_parts(bundle, data)
        servers = {
            "predilect serve": ["-m", "predilect", "serve", str(bundle), "--port", str(asked.port)],
            "plain handler": [__file__, "--plain", str(bundle), "--port", str(asked.port)],
        }
        for name, command in servers.items():
            print(name)
            with served(command, asked.port) as (url, pid):
                load(url, pid, data, asked.seconds)


if __name__ == "__main__":
    main()
