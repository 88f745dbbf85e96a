"""What the golden examples hold, written out, and how the tests look at them."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

from predilect.labels.tasks import LabelSpace, Task

GOLDEN = Path(__file__).parent / "golden"
FORMATS = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")

IDS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007"]
GROUPS = ["0001", "0001", "0003", "0004", "0005", "0006", "0007"]
FOLDS = [0, 0, 1, 1, 1, 1, 0]
LABELS = LabelSpace(
    (
        Task("lesion", ("erosion/ulcer", "excoriation", "papule", "scale"), frozenset({"scale"})),
        Task("site", ("face", "forearm", "hand")),
    )
)
# -1: unknown. Rows are photographs, columns as in LABELS.
LESIONS = [[0, 1, 1, 0], [0, 0, 1, -1], [0, 0, 0, 0], [-1, -1, -1, -1], [-1, -1, 1, -1], [1, 0, 0, 1], [0, 0, 0, 0]]
SITES = [[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [-1, -1, -1], [-1, -1, -1], [0, 0, 1]]
# In the order of the file: fold 0, then fold 1.
PREDICTED = ["0001", "0002", "0007", "0003", "0004", "0005", "0006"]
RECIPE = {
    "name": "example",
    "description": "Three steps of a tiny network from scratch",
    "backbone": "test_resnet",
    "weights": "none",
    "preprocessing": {
        "crop": 32,
        "jitter": [32, 40],
        "flip": True,
        "turn": False,
        "light": 0.0,
        "test_side": 36,
        "views": "ten-crop",
        "mean": None,
        "std": None,
    },
    "batch_size": 4,
    "accumulate": 2,
    "iterations": 3,
    "optimizer": "sgd",
    "learning_rate": 0.002,
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "decay_biases": False,
    "head_weight_rate": 10.0,
    "head_bias_rate": 20.0,
    "rarity_exponent": 0.0,
    "site_weight": 1.0,
    "schedule": "plateau",
    "warmup": 0,
    "plateau_factor": 0.1,
    "plateau_patience": 1,
    "plateau_threshold": 0.9,
    "plateaus": 3,
    "validate_every": 1,
    "patience": 0,
    "keep": "last",
    "validation_share": 0.2,
    "average_decay": 0.0,
    "batchnorm": "train",
    "frozen_stages": 0,
    "precision": "fp32",
}
COMMAND = "predilect crossval atlas --systems mtl --recipe recipe.toml --out run"
SOURCES = [{"name": name, "licence": "CC0-1.0", "credit": "drawn by Predilect"} for name in ("archive", "clinic A")]
NOTES = [
    f"The photographs of {name} are drawn by a program and show nothing but the form of the files."
    for name in ("archive", "clinic A")
]
RANDOM = "From random weights, without ImageNet: mtl."
VERSIONED = ("python", "predilect", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def table(path: str) -> list[list[str]]:
    return list(csv.reader((GOLDEN / path).read_text(encoding="utf-8").splitlines()))


def leaves(value, where=""):
    """Each number, text and null of a JSON value by its path."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, item in items for path, leaf in leaves(item, f"{where}.{key}").items()}
    return {where: value}


def sealed(value: dict[str, object]) -> str:
    """The checksum of a JSON object as docs/formats.md describes it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
