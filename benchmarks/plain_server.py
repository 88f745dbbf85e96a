"""The handler that people write: FastAPI's own upload, PIL and torchvision transforms, the network, probabilities; no batches.

    .venv/bin/python benchmarks/plain_server.py BUNDLE PORT

What `bench_serving.py` measures `predilect serve` against.
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


def plain_app(bundle: Path) -> FastAPI:
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

    return app


if __name__ == "__main__":
    uvicorn.run(plain_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="error")
