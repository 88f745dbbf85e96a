"""The folder of a cross-validation: what was run, what came out of each fold, and the report made from it.

run.json                                     what was asked for, and on what
truth.parquet                                what is known of the photographs that are tested
<system>/seed-<s>/fold-<k>/log.jsonl         losses and rates over the iterations
<system>/seed-<s>/fold-<k>/checkpoint/       state.safetensors while it trains, weights.safetensors when done
<system>/seed-<s>/fold-<k>/predictions.parquet
<system>/seed-<s>/fold-<k>/result.json       written last: the fold is done
<system>/seed-<s>/predictions.parquet        all folds, out of fold
report/                                      report.json, report.html, figures and tables
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from predilect.errors import RunError
from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.scores import Evaluation
from predilect.files import read_json, replacing_folder, write_json
from predilect.predictions import Predictions, Truth
from predilect.report.report import build_report, write_report

__all__ = ["Run"]

SCHEMA_VERSION = 1

# What must be the same for a run to be resumed; anything else (command line, versions, device) may differ.
_IDENTITY = ("systems", "weights", "precision", "seeds", "folds", "atlas_hash", "splits_hash")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder.

    Attributes:
        path: The folder.
        info: What ``run.json`` holds: systems with their tasks and recipes, seeds, folds, hashes, versions, device, notes.
    """

    path: Path
    info: Mapping[str, Any]

    @classmethod
    def start(cls, path: Path, info: Mapping[str, Any], truth: Truth | None, *, resume: bool) -> Self:
        """Make a new run folder, or go on with an existing one.

        Args:
            path: The folder.
            info: What ``run.json`` is to hold.
            truth: Labels of the photographs that will be tested; None where nothing is tested.
            resume: Whether an existing run of the same kind is gone on with.

        Raises:
            RunError: If the folder holds something else, or a run that was asked for differently.
        """
        existing = path / "run.json"
        if existing.is_file():
            if not resume:
                raise RunError(f"{path} already holds a run; add --resume to go on with it, or choose another folder")
            run = cls.open(path)
            for key in _IDENTITY:
                if run.info.get(key) != info[key]:
                    raise RunError(
                        f"{path} was started with other {key.replace('_', ' ')} ({_difference(run.info.get(key), info[key])}); "
                        f"resume with what it was started with, or choose another folder"
                    )
            return run
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise RunError(f"{path} already exists and is no run; choose another folder")
        with replacing_folder(path) as folder:
            if truth is not None:
                truth.write(folder / "truth.parquet")
            write_json(folder / "run.json", {"schema_version": SCHEMA_VERSION, **info})
        return cls(path, info)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run folder for reading.

        Raises:
            RunError: If it is not one, or is of another schema version.
        """
        if not (path / "run.json").is_file():
            raise RunError(f"{path} is not a run: it holds no run.json")
        info = read_json(path / "run.json", RunError)
        version = info.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise RunError(f"{path / 'run.json'} has schema version {version!r}, allowed is {SCHEMA_VERSION}")
        return cls(path, info)

    @property
    def systems(self) -> Sequence[str]:
        """Names of the systems, in the order asked for."""
        return list(self.info["systems"])

    def seed_folder(self, system: str, seed: int) -> Path:
        """Where one seed of one system lies."""
        return self.path / system / f"seed-{seed}"

    def fold_folder(self, system: str, seed: int, fold: int) -> Path:
        """Where one training lies."""
        return self.seed_folder(system, seed) / f"fold-{fold}"

    def fold_result(self, system: str, seed: int, fold: int) -> dict[str, Any] | None:
        """How a fold ended, or None while it has not."""
        path = self.fold_folder(system, seed, fold) / "result.json"
        return read_json(path, RunError) if path.is_file() else None

    def gather(self, system: str, seed: int) -> None:
        """Put the folds' predictions together into the seed's table.

        Raises:
            TableError: If a fold's predictions are missing or damaged.
        """
        folds = [Predictions.read(self.fold_folder(system, seed, fold) / "predictions.parquet") for fold in self.info["folds"]]
        Predictions.concatenate(folds).write(self.seed_folder(system, seed) / "predictions.parquet")

    def truth(self) -> Truth:
        """Labels of the photographs that are tested."""
        return Truth.read(self.path / "truth.parquet")

    def predictions(self) -> dict[str, Predictions]:
        """The out-of-fold predictions of each system, all its seeds in one table.

        Raises:
            RunError: If a system is not finished.
        """
        tables = {}
        for system in self.systems:
            parts = []
            for seed in self.info["seeds"]:
                path = self.seed_folder(system, seed) / "predictions.parquet"
                if not path.is_file():
                    raise RunError(f"{path} is missing: the run is not finished; go on with it by --resume")
                parts.append(Predictions.read(path))
            tables[system] = Predictions.concatenate(parts)
        return tables

    def curves(self) -> pl.DataFrame:
        """Losses over the iterations of every training: system, seed, fold, iteration, loss_train, loss_validation, learning_rate."""
        rows = []
        for system in self.systems:
            for seed in self.info["seeds"]:
                for fold in self.info["folds"]:
                    path = self.fold_folder(system, seed, fold) / "log.jsonl"
                    if not path.is_file():
                        continue
                    for line in path.read_text(encoding="utf-8").splitlines():
                        entry = json.loads(line)
                        rows.append(
                            (
                                system,
                                seed,
                                fold,
                                entry["iteration"],
                                entry["loss"],
                                entry["validation_loss"],
                                entry["learning_rate"],
                            )
                        )
        schema = {
            "system": pl.String,
            "seed": pl.Int64,
            "fold": pl.Int64,
            "iteration": pl.Int64,
            "loss_train": pl.Float64,
            "loss_validation": pl.Float64,
            "learning_rate": pl.Float64,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    def cost(self) -> dict[str, float]:
        """Device-hours of all finished folds, and their mean training speed in images per second."""
        results = [
            result
            for system in self.systems
            for seed in self.info["seeds"]
            for fold in self.info["folds"]
            if (result := self.fold_result(system, seed, fold)) is not None
        ]
        return {
            "device_hours": round(sum(result["seconds"] for result in results) / 3600, 6),
            "images_per_second": float(np.mean([result["images_per_second"] for result in results])) if results else 0.0,
        }

    def report(self, *, on_progress: Callable[[int, int], None] | None = None) -> Evaluation:
        """Evaluate the run and write its report into ``report/``.

        Args:
            on_progress: Told how much of the resampling is done.

        Raises:
            PredilectError: If the run is not finished or its tables are damaged.
        """
        evaluation = evaluate(self.truth(), self.predictions(), on_progress=on_progress)
        report = build_report(
            evaluation,
            provenance={**self.info, **self.cost()},
            curves=self.curves(),
            notes=self.info["notes"],
            title=f"{', '.join(self.systems)} on {self.info['atlas']}",
        )
        write_report(report, self.path / "report")
        return evaluation


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two JSON values differ, such as ``mtl.recipe.iterations 500, now 600``."""
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        key = next(key for key in before if before[key] != now[key])
        return _difference(before[key], now[key], f"{where}.{key}".lstrip("."))
    texts = [", ".join(value) if isinstance(value, dict) else json.dumps(value) for value in (before, now)]
    return f"{where} {texts[0]}, now {texts[1]}".lstrip()
