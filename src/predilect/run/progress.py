"""How the trainings of a run went: their losses over the iterations, their time and their speed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

__all__ = ["curves", "spent"]

_SCHEMA = {
    "system": pl.String,
    "seed": pl.Int64,
    "fold": pl.Int64,
    "iteration": pl.Int64,
    "loss_train": pl.Float64,
    "loss_validation": pl.Float64,
    "learning_rate": pl.Float64,
}


def curves(logs: Iterable[tuple[tuple[str, int, int], Path]]) -> pl.DataFrame:
    """Losses over the iterations of trainings.

    Args:
        logs: (system, seed, fold) of each training, and its ``log.jsonl``.

    Returns:
        Rows in the order of the lines: system, seed, fold, iteration, loss_train, loss_validation (null where no validation was
        made), learning_rate.
    """
    rows = []
    for part, path in logs:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            rows.append((*part, entry["iteration"], entry["loss"], entry["validation_loss"], entry["learning_rate"]))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def spent(folds: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, float]:
    """What finished folds took, in sum.

    Args:
        folds: The ``result.json`` of each, and its batch size.

    Returns:
        ``trainings``, ``device_hours`` (training and testing) and ``images_per_second`` (photographs trained on, by the time of
        training with its validations; 0 without folds).
    """
    photographs = [result["iterations"] * batch_size for result, batch_size in folds]
    seconds = sum(n / result["images_per_second"] for n, (result, _) in zip(photographs, folds, strict=True))
    return {
        "trainings": len(folds),
        "device_hours": round(sum(result["seconds"] * result["devices"] for result, _ in folds) / 3600, 6),
        "images_per_second": round(sum(photographs) / seconds, 2) if seconds else 0.0,
    }
