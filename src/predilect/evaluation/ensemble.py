"""Ensembles: one table of lesion scores made of several systems'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.errors import TableError
from predilect.labels.tasks import LESION
from predilect.predictions import Predictions

__all__ = ["ensemble"]


def ensemble(members: Sequence[Predictions], rule: Literal["max", "mean"]) -> Predictions:
    """Combine the lesion scores of several systems, photograph by photograph and lesion by lesion.

    The paper's ensemble takes "the best evaluation scores of the two models for each image", here the larger of the two scores in
    each cell. It was not the better model for each class: in Table 1 the ensemble is below MTL for 7 of 25 lesions (comedones,
    erythema/erythroderm, hyperpigmented papule, macule, oozing, scar, squames/scales), which such a choice could never be. The
    mean is the usual rule.

    Sites are left out, since the paper's ensemble has none and only one of its members predicts them.

    Args:
        members: At least two, with the same lesion columns in the same order and the same photographs, seeds and folds; rows in
            any order.
        rule: ``"max"``, or ``"mean"`` with equal weights.

    Returns:
        The lesion task alone, with the rows of the first member in its order.

    Raises:
        TableError: If a member has no lesion scores, or members differ in lesion columns, photographs, seeds or folds.
        ValueError: If there are fewer than two members or the rule is another.
    """
    if len(members) < 2:
        raise ValueError(f"an ensemble has at least two members, found {len(members)}")
    if rule not in {"max", "mean"}:
        raise ValueError(f"the rule of an ensemble is 'max' or 'mean', found {rule!r}")
    first = members[0]
    for member in members:
        _check_lesions(first, member)
    scores = np.stack([member.scores[LESION][_rows_in_order_of(first, member)] for member in members])  # (M, N, C)
    combined = scores.max(axis=0) if rule == "max" else scores.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Predictions(
        image_ids=first.image_ids,
        labels=first.labels.restricted_to([LESION]),
        scores={LESION: combined},
        folds=first.folds,
        seeds=first.seeds,
        origin=f"the {rule} of {', '.join(member.origin for member in members)}",
    )


def _check_lesions(first: Predictions, member: Predictions) -> None:
    if LESION not in member.labels:
        raise TableError(f"{member.origin} has no lesion columns, which a member of an ensemble needs")
    ours, theirs = first.labels[LESION], member.labels[LESION]
    if len(ours) != len(theirs):
        raise TableError(
            f"{member.origin} has {len(theirs)} lesion columns and {first.origin} has {len(ours)}; they must be the same"
        )
    for k, (one, other) in enumerate(zip(ours.columns, theirs.columns, strict=True)):
        if one != other:
            raise TableError(
                f"{member.origin} has {other!r} as lesion column {k + 1}, where {first.origin} has {one!r}; members of an ensemble "
                f"must have the same lesions in the same order"
            )
    for name in sorted(ours.machine ^ theirs.machine):
        marked, plain = (first, member) if name in ours.machine else (member, first)
        raise TableError(f"lesion {name!r} is marked as machine-made in {marked.origin} but not in {plain.origin}")


def _rows_in_order_of(first: Predictions, member: Predictions) -> NDArray[np.int64]:
    """For each row of the first table, the member's row of the same photograph and seed, of which the folds are checked."""
    for column, one, other in (("folds", first.folds, member.folds), ("seeds", first.seeds, member.seeds)):
        if (one is None) != (other is None):
            having, lacking = (first, member) if other is None else (member, first)
            raise TableError(
                f"{having.origin} has {column} and {lacking.origin} has none; members of an ensemble must agree in them"
            )
    ours, theirs = _keys(first), _keys(member)
    joined = ours.join(theirs, on=["image_id", "seed"], how="left", maintain_order="left")
    missing = joined["row_right"].is_null()
    if missing.any():
        row = int(missing.arg_true()[0])
        raise TableError(
            f"{member.origin} has no row for {_named(first, row)} of {first.origin}, row {row + 1} "
            f"({int(missing.sum())} of {len(first)} are missing)"
        )
    if len(member) != len(first):
        extra = theirs.join(ours, on=["image_id", "seed"], how="anti", maintain_order="left")["row"]
        row = int(extra[0])
        raise TableError(
            f"{member.origin}, row {row + 1}, holds {_named(member, row)}, which {first.origin} does not have ({len(extra)} such rows)"
        )
    rows = joined["row_right"].to_numpy().astype(np.int64)
    if first.folds is not None and member.folds is not None and (first.folds != member.folds[rows]).any():
        row = int(np.flatnonzero(first.folds != member.folds[rows])[0])
        there = int(rows[row])
        raise TableError(
            f"{member.origin}, row {there + 1}: {_named(member, there)} was held out in fold {member.folds[there]}, but in fold "
            f"{first.folds[row]} in {first.origin}, row {row + 1}; members of an ensemble must come from the same folds"
        )
    return rows


def _keys(table: Predictions) -> pl.DataFrame:
    seeds = np.zeros(len(table), dtype=np.int64) if table.seeds is None else table.seeds
    return pl.DataFrame({"image_id": pl.Series(table.image_ids.tolist(), dtype=pl.String), "seed": seeds}).with_row_index("row")


def _named(table: Predictions, row: int) -> str:
    of_seed = "" if table.seeds is None else f" of seed {table.seeds[row]}"
    return f"image_id {str(table.image_ids[row])!r}{of_seed}"
