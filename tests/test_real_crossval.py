"""From the development photographs to a report, by the commands a user types; minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from predilect.cli import main

SHARED = Path(__file__).parents[1].parent / "shared"
WEIGHTS = SHARED / "weights" / "resnet18.imagenet-pqf.safetensors"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not WEIGHTS.is_file() or not (SHARED / "data" / "milk10k").is_dir(), reason="no development data beside the checkout"
    ),
]


@pytest.fixture(autouse=True)
def both_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code)


def test_milk10k_is_imported_cross_validated_and_reported(tmp_path, capsys):
    atlas, out = tmp_path / "milk10k", tmp_path / "run"
    assert run("import", "milk10k", SHARED / "data" / "milk10k", "--out", atlas, "--monet") == 0
    assert run("split", atlas, "--folds", "3", "--tuning", "0.2") == 0
    small = [
        "preprocessing.crop=64",
        "preprocessing.jitter=[72,96]",
        "preprocessing.test_side=72",
        "preprocessing.views=center",
        "iterations=80",
        "warmup=4",
        "validate_every=40",
    ]
    settings = [part for item in [*small, f"weights={WEIGHTS}"] for part in ("--set", item)]
    command = [
        "crossval",
        atlas,
        "--systems",
        "mtl",
        "--recipe",
        "quick-resnet18",
        "--out",
        out,
        "--refit",
        "mtl",
        *settings,
    ]
    assert run(*command) == 0
    report = json.loads((out / "report" / "report.json").read_text())
    lesion = report["systems"]["mtl"]["lesion"]
    # Each photograph shows one of ten diagnoses: a random order would give 0.1 on average. Far above it, the weights were loaded
    # and the labels are in their places.
    assert lesion["map_class_low"] > 0.15
    assert lesion["map_class_low"] < lesion["map_class"] < lesion["map_class_high"]
    assert {name for name, scores in lesion["per_class"].items() if scores["machine_made"]} == {
        "erythema",
        "pigmented",
        "ulceration/crust",
    }
    assert report["systems"]["mtl"]["site"]["top1"] > 0.4
    assert any("stand in for lesion types" in note for note in report["notes"])
    photograph = next((SHARED / "data" / "pad-ufes-20" / "images").glob("*.jpg"))
    capsys.readouterr()
    assert run("predict", out / "bundle", photograph, "--format", "json") == 0
    (answer,) = json.loads(capsys.readouterr().out)["results"]
    assert sum(item["probability"] for item in answer["site"]) == pytest.approx(1, abs=1e-4)
    assert run("crossval", *command[1:]) == 1
    assert "already holds a run" in capsys.readouterr().err
