"""What was found on the photographs of one fold by its own network, in a folder that is there as a whole or not at all.

<run>/insight/<system>/seed-<s>/fold-<k>/fold.json             of which weights, with which settings; checksums of the tables
<run>/insight/<system>/seed-<s>/fold-<k>/queries.parquet       what each tested photograph scored in retrieval
<run>/insight/<system>/seed-<s>/fold-<k>/coincidence.parquet   the maps of lesions against that of the site
<run>/insight/<system>/seed-<s>/fold-<k>/curves.parquet        deletion and insertion
<run>/insight/<system>/seed-<s>/fold-<k>/randomisation.parquet maps against those of random weights
<run>/insight/insight.json                                     all of them, summed up
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from predilect.errors import InsightError
from predilect.evaluation.insight import INSIGHT_FILE, Insight
from predilect.evaluation.retrieval import MEASURES, QueryScores
from predilect.files import checksum, is_sealed, read_json, replacing_folder, seal, write_json
from predilect.predictions import Truth
from predilect.tables import read_table, write_table

__all__ = [
    "TABLES",
    "FoldInsight",
    "fold_path",
    "insight_path",
    "query_frame",
    "query_scores",
    "read_fold",
    "shown_insight",
    "write_fold",
]

TABLES: Mapping[str, Mapping[str, pl.DataType]] = {
    "queries": {
        "image_id": pl.String(),
        **{name: pl.Float64() for name in MEASURES},
        **{f"chance/{name}": pl.Float64() for name in MEASURES},
    },
    "coincidence": {"image_id": pl.String(), "lesion": pl.String(), "correlation": pl.Float64(), "overlap": pl.Float64()},
    "curves": {
        "image_id": pl.String(),
        "task": pl.String(),
        "class": pl.String(),
        "map": pl.String(),
        "deletion": pl.List(pl.Float64()),
        "insertion": pl.List(pl.Float64()),
    },
    "randomisation": {
        "image_id": pl.String(),
        "task": pl.String(),
        "class": pl.String(),
        "rank_correlation": pl.Float64(),
        "unrelated": pl.Float64(),
    },
}
"""Columns of each table. A number that is not defined is null."""

_SCHEMA_VERSION = 1
_FILE = "fold.json"
_AGAIN = "remove its folder and give predilect explain again"


@dataclass(frozen=True, eq=False, slots=True)
class FoldInsight:
    """What was found on the photographs of one fold.

    Attributes:
        tables: By the names in `TABLES`, with those columns; empty ones have no row.
        method: How the maps were made; None where the network cannot be explained.
        cells: Rows and columns of the maps of the centre crop; None likewise.
        unexplained: Why the network cannot be explained; None where it can.
        images: Inputs that went through a network.
        seconds: What it took.
    """

    tables: Mapping[str, pl.DataFrame]
    method: Literal["cam", "grad-cam"] | None
    cells: tuple[int, int] | None
    unexplained: str | None
    images: int
    seconds: float


def insight_path(run: Path) -> Path:
    """Where all folds lie summed up."""
    return run / "insight" / INSIGHT_FILE


def shown_insight(run: Path, checksum: Callable[[str, int, int], str | None]) -> tuple[Insight | None, list[str]]:
    """What a report shows of a run's networks: what was found with the weights of now, or else why it is not shown.

    Args:
        run: The run folder.
        checksum: SHA-256 of the weights of a system, seed and fold; None where there are none.

    Returns:
        What was found, or None; and sentences for the reader.

    Raises:
        InsightError: If the file is damaged or was changed.
    """
    path = insight_path(run)
    if not path.is_file():
        return None, []
    insight = Insight.read(path)
    if insight.is_of(checksum):
        return insight, []
    return None, ["Attention and retrieval are not shown, for folds were trained anew since; predilect explain looks again."]


def fold_path(run: Path, system: str, seed: int, fold: int) -> Path:
    """Where a fold's tables lie."""
    return run / "insight" / system / f"seed-{seed}" / f"fold-{fold}"


def write_fold(path: Path, found: FoldInsight, settings: Mapping[str, Any]) -> None:
    """Write a fold's folder, in the place of what is there.

    Args:
        path: From `fold_path`.
        found: What to write.
        settings: What decides it, as JSON values: the checksum of the weights among them.

    Raises:
        DiskError: If it cannot be written.
    """
    with replacing_folder(path, replace=True) as folder:
        for name, schema in TABLES.items():
            write_table(
                found.tables[name].select(pl.col(column).cast(kind) for column, kind in schema.items()),
                folder / f"{name}.parquet",
                InsightError,
            )
        files = {f"{name}.parquet": checksum(folder / f"{name}.parquet") for name in TABLES}
        told = {
            "method": found.method,
            "cells": None if found.cells is None else list(found.cells),
            "unexplained": found.unexplained,
            "images": found.images,
            "seconds": found.seconds,
        }
        write_json(folder / _FILE, seal({"schema_version": _SCHEMA_VERSION, "settings": dict(settings), **told, "files": files}))


def read_fold(path: Path, settings: Mapping[str, Any]) -> FoldInsight | None:
    """Read a fold's folder.

    Args:
        path: From `fold_path`.
        settings: What decides what is looked for.

    Returns:
        What was found; None where nothing was looked for yet, or with other settings or weights.

    Raises:
        InsightError: If the folder is damaged, or was changed by hand.
    """
    if not (path / _FILE).is_file():
        return None
    info = read_json(path / _FILE, InsightError, _AGAIN)
    if info.get("schema_version") != _SCHEMA_VERSION:
        raise InsightError(
            f"{path / _FILE} has schema version {info.get('schema_version')!r}, allowed is {_SCHEMA_VERSION}; {_AGAIN}"
        )
    if not is_sealed(info):
        raise InsightError(f"{path / _FILE} is not what was written (its checksum differs); {_AGAIN}")
    if info["settings"] != dict(settings):
        return None
    for name, written in info["files"].items():
        if not (path / name).is_file():
            raise InsightError(f"{path / name}: there is no such file; {_AGAIN}")
        if checksum(path / name) != written:
            raise InsightError(f"{path / name} is not what was written (its checksum differs); {_AGAIN}")
    return FoldInsight(
        tables={name: read_table(path / f"{name}.parquet", InsightError) for name in TABLES},
        method=info["method"],
        cells=None if info["cells"] is None else cast("tuple[int, int]", tuple(info["cells"])),
        unexplained=info["unexplained"],
        images=info["images"],
        seconds=info["seconds"],
    )


def query_frame(scores: QueryScores, truth: Truth) -> pl.DataFrame:
    """Scores of queries as the table ``queries``.

    Args:
        scores: Of rows of `truth`.
        truth: Gives their ids.
    """
    columns = {
        **dict(zip(MEASURES, scores.values, strict=True)),
        **{f"chance/{name}": row for name, row in zip(MEASURES, scores.chance, strict=True)},
    }
    ids = pl.Series("image_id", truth.image_ids[scores.rows].tolist(), dtype=pl.String)
    return pl.DataFrame({"image_id": ids, **columns}).with_columns(pl.col(list(columns)).fill_nan(None))


def query_scores(table: pl.DataFrame, truth: Truth) -> QueryScores:
    """What `query_frame` made a table of.

    Args:
        table: ``queries`` of one or several folds of one system and seed.
        truth: Holds its photographs.
    """
    order = np.argsort(truth.image_ids, kind="stable")
    rows = order[np.searchsorted(truth.image_ids, np.array(table["image_id"].to_list(), dtype=np.str_), sorter=order)]
    values, chance = (
        np.stack([table[f"{prefix}{name}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in MEASURES])
        for prefix in ("", "chance/")
    )
    return QueryScores(rows, values, chance)
