"""What each fold of an atlas holds, counted for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from predilect.atlas.splits import TUNING, Splits, label_table
from predilect.labels.tasks import split_column

__all__ = ["balance_table"]


def balance_table(splits: Splits, photos: pl.DataFrame, label_columns: Sequence[str]) -> pl.DataFrame:
    """Count what each fold holds.

    Args:
        splits: The folds, in any order.
        photos: The atlas's table with its label columns.
        label_columns: The classes to count.

    Returns:
        Rows ``photographs``, ``groups``, ``<task> known`` (photographs with any known label of the task) and each label
        column; columns `label`, `total`, `groups` (how many groups the total comes from), ``tuning`` where there is such a
        slice, ``fold 0`` and on, and `largest_deviation`: the largest ``|count / mean - 1|`` over the k folds, null where
        they hold nothing.

    Raises:
        SplitError: If splits and table list different photographs.
        ValueError: If a label column is not in the table.
    """
    splits = splits.in_order_of(np.array(photos["image_id"].to_list(), dtype=np.str_))
    labels = label_table(photos, label_columns)
    tasks: dict[str, list[str]] = {}
    for column in label_columns:
        tasks.setdefault(split_column(column)[0], []).append(column)
    counted = {
        "photographs": pl.lit(True),
        **{f"{task} known": pl.any_horizontal(pl.col(columns).is_not_null()) for task, columns in tasks.items()},
        **{column: pl.col(column).fill_null(0) == 1 for column in label_columns},
    }
    cells = labels.select(**counted).with_columns(splits.to_frame().select("group", "fold"))
    by_fold = cells.group_by("fold").agg(pl.col("group").n_unique().alias("groups"), pl.col(list(counted)).sum()).sort("fold")
    with_any = cells.group_by("group").agg(pl.col(list(counted)).any()).drop("group").sum()
    support = {**with_any.row(0, named=True), "groups": len(set(splits.groups.tolist()))}
    rows = ["photographs", "groups", *(name for name in counted if name != "photographs")]
    folds = ["tuning" if fold == TUNING else f"fold {fold}" for fold in by_fold["fold"]]
    table = by_fold.select(pl.col(rows).cast(pl.Int64)).transpose(include_header=True, header_name="label", column_names=folds)
    tested = [fold for fold in folds if fold != "tuning"]
    mean = pl.mean_horizontal(tested)
    deviation = pl.max_horizontal((pl.col(fold) / mean - 1).abs() for fold in tested)
    return table.select(
        "label",
        pl.sum_horizontal(folds).alias("total"),
        pl.Series("groups", [support[name] for name in rows], dtype=pl.Int64),
        *folds,
        pl.when(mean > 0).then(deviation).alias("largest_deviation"),
    )
