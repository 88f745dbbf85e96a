"""The handler that people write: FastAPI's own upload, PIL and torchvision transforms, the network, probabilities; no batches.

    .venv/bin/python benchmarks/plain_server.py BUNDLE PORT

What `bench_serving.py` measures `predilect serve` against. Its backbone computes in the precision of `predilect serve`, by autocast: bf16 where
the processor has instructions for it. So the two differ in what surrounds the network, and not in the numbers that it computes with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

from predilect.bundle import Bundle
from predilect.training.devices import make_fabric


def plain_app(bundle: Path) -> FastAPI:
    opened = Bundle.open(bundle)
    network, labels, taken = opened.network(), opened.labels, opened.preprocessing
    fabric = make_fabric(opened.recipe.precision)
    network = network.to(fabric.device)
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
        with torch.no_grad(), fabric.autocast():
            logits = network(image[None].to(fabric.device)).logits
        scores = {"lesion": logits["lesion"].sigmoid(), "site": logits["site"].softmax(dim=1)}
        return {task: dict(zip(labels[task].classes, values[0].tolist(), strict=True)) for task, values in scores.items()}

    return app


if __name__ == "__main__":
    uvicorn.run(plain_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="error")
