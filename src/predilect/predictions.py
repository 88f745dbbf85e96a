"""Predictions and Truth: the two tables that everything after training reads, and that any other program may write.

Both are Parquet or CSV files whose label columns are named ``<task>/<class>``, split at the first slash. `docs/formats.md`
holds the contract; the checks here are that contract. `image_id` is always a string: ``000655`` keeps its zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.errors import LabelError, TableError
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.tables import number_column, read_table, string_column, whole_number_column, write_table

__all__ = ["COVARIATES", "SITE_SUM_TOLERANCE", "Predictions", "Truth", "check_matching"]

SITE_SUM_TOLERANCE = 1e-4
COVARIATES = ("skin_tone", "skin_tone_scale", "age", "sex", "source")

_MACHINE_KEY = "predilect.machine_made"
_NOTES_KEY = "predilect.notes"


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """What one system said of each photograph, as probabilities.

    Attributes:
        image_ids: (N,) strings; unique together with `seeds`.
        labels: The classes predicted; a task the system does not predict is absent.
        scores: ``{task: (N, C) float32}``, each in [0, 1]; the rows of the site sum to 1 within `SITE_SUM_TOLERANCE`.
        folds: (N,) int64, the fold each photograph was held out in, or None.
        seeds: (N,) int64, the training seed, or None.

    Raises:
        TableError: If a score is missing, not finite or out of range, a row is duplicated, or shapes disagree.
    """

    image_ids: NDArray[np.str_]
    labels: LabelSpace
    scores: Mapping[str, NDArray[np.float32]]
    folds: NDArray[np.int64] | None = None
    seeds: NDArray[np.int64] | None = None
    origin: str = "predictions"

    def __post_init__(self) -> None:
        n = len(self.image_ids)
        if n == 0:
            raise TableError(f"{self.origin}: the table has no rows")
        if set(self.scores) != set(self.labels.names):
            raise ValueError(f"scores for {sorted(self.scores)} but labels for {sorted(self.labels.names)}")
        for task in self.labels.tasks:
            values = self.scores[task.name]
            if values.shape != (n, len(task)):
                raise ValueError(f"{task.name} scores have shape {values.shape}, not {(n, len(task))}")
            bad = ~((values >= 0) & (values <= 1))
            if bad.any():
                row, column = (int(i) for i in np.argwhere(bad)[0])
                raise TableError(
                    f"{self.origin}, row {row + 1} (image_id {str(self.image_ids[row])!r}), column {task.columns[column]!r}: "
                    f"found {_shown(values[row, column])}, allowed are probabilities in [0, 1]"
                )
        if SITE in self.scores:
            sums = self.scores[SITE].sum(axis=1, dtype=np.float64)
            off = np.abs(sums - 1) > SITE_SUM_TOLERANCE
            if off.any():
                row = int(np.flatnonzero(off)[0])
                raise TableError(
                    f"{self.origin}, row {row + 1} (image_id {str(self.image_ids[row])!r}): the site columns sum to {sums[row]:.6g}, "
                    f"allowed is 1 +- {SITE_SUM_TOLERANCE:g}"
                )
        _require_unique(self.image_ids, self.seeds, self.origin)

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a predictions table.

        Args:
            path: A ``.parquet`` or ``.csv`` file.

        Raises:
            TableError: If the file cannot be read or breaks the contract.
        """
        frame = read_table(path, TableError)
        labels = _label_space(frame, path)
        scores = {task.name: _scores(frame, task.columns, path) for task in labels.tasks}
        return cls(
            image_ids=string_column(frame, "image_id", path, TableError),
            labels=labels,
            scores=scores,
            folds=_optional(frame, "fold", path),
            seeds=_optional(frame, "seed", path),
            origin=str(path),
        )

    def to_frame(self) -> pl.DataFrame:
        """The table as it is written: `image_id`, optional `fold` and `seed`, then one column per class."""
        columns: dict[str, Any] = {"image_id": pl.Series(self.image_ids.tolist(), dtype=pl.String)}
        if self.folds is not None:
            columns["fold"] = self.folds
        if self.seeds is not None:
            columns["seed"] = self.seeds
        for task in self.labels.tasks:
            for k, column in enumerate(task.columns):
                columns[column] = self.scores[task.name][:, k]
        return pl.DataFrame(columns)

    def write(self, path: Path) -> None:
        """Write the table as Parquet or CSV, by the ending of the path, atomically."""
        write_table(self.to_frame(), path, TableError)

    @property
    def n_folds(self) -> int:
        """How many folds are named; 0 where none are."""
        return 0 if self.folds is None else len(np.unique(self.folds))

    def by_seed(self) -> dict[int, Predictions]:
        """One table per training seed, seeds ascending; a table without seeds comes back whole, under 0."""
        if self.seeds is None:
            return {0: self}
        return {int(seed): self.take(np.flatnonzero(self.seeds == seed)) for seed in np.unique(self.seeds)}

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """The given rows, in the given order."""
        return Predictions(
            image_ids=self.image_ids[rows],
            labels=self.labels,
            scores={name: values[rows] for name, values in self.scores.items()},
            folds=None if self.folds is None else self.folds[rows],
            seeds=None if self.seeds is None else self.seeds[rows],
            origin=self.origin,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Put tables of the same label space under each other, as the folds of one cross-validation.

        Raises:
            ValueError: If there is no part, or label spaces differ.
            TableError: If a photograph comes twice.
        """
        if not parts:
            raise ValueError("there is nothing to concatenate")
        first = parts[0]
        if any(part.labels != first.labels for part in parts):
            raise ValueError("the parts have different label spaces")
        folds = [part.folds for part in parts if part.folds is not None]
        seeds = [part.seeds for part in parts if part.seeds is not None]
        return cls(
            image_ids=np.concatenate([part.image_ids for part in parts]),
            labels=first.labels,
            scores={name: np.concatenate([part.scores[name] for part in parts]) for name in first.labels.names},
            folds=np.concatenate(folds) if len(folds) == len(parts) else None,
            seeds=np.concatenate(seeds) if len(seeds) == len(parts) else None,
            origin=first.origin,
        )


@dataclass(frozen=True, eq=False, slots=True)
class Truth:
    """What is known of each photograph.

    Attributes:
        image_ids: (N,) unique strings.
        labels: The classes, with those whose labels a model made marked as such.
        values: ``{task: (N, C) int8}``: 1 present, 0 absent, -1 unknown. A site row is one-hot or wholly -1.
        groups: (N,) strings; photographs of one group are not independent. None: each photograph is its own group.
        covariates: N rows of those `COVARIATES` that are there, for subgroup tables.
        notes: What a reader of any number made from the table must know, such as that diagnoses stand in for lesion types.

    Raises:
        TableError: If a value is not allowed, a row is duplicated, or a site row is neither one-hot nor unknown.
    """

    image_ids: NDArray[np.str_]
    labels: LabelSpace
    values: Mapping[str, NDArray[np.int8]]
    groups: NDArray[np.str_] | None
    covariates: pl.DataFrame
    origin: str = "truth"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.image_ids)
        if n == 0:
            raise TableError(f"{self.origin}: the table has no rows")
        if set(self.values) != set(self.labels.names):
            raise ValueError(f"values for {sorted(self.values)} but labels for {sorted(self.labels.names)}")
        for task in self.labels.tasks:
            values = self.values[task.name]
            if values.shape != (n, len(task)):
                raise ValueError(f"{task.name} labels have shape {values.shape}, not {(n, len(task))}")
            bad = (values < -1) | (values > 1)
            if bad.any():
                row, column = (int(i) for i in np.argwhere(bad)[0])
                raise TableError(
                    f"{self.origin}, row {row + 1} (image_id {str(self.image_ids[row])!r}), column {task.columns[column]!r}: "
                    f"found {values[row, column]}, allowed are 1, 0 or empty"
                )
        if SITE in self.values:
            site = self.values[SITE]
            whole = (site == -1).all(axis=1) | ((site >= 0).all(axis=1) & (site.sum(axis=1) == 1))
            if not whole.all():
                row = int(np.flatnonzero(~whole)[0])
                raise TableError(
                    f"{self.origin}, row {row + 1} (image_id {str(self.image_ids[row])!r}): the site columns must hold one 1 and "
                    f"otherwise 0, or all be empty"
                )
        if self.groups is not None and len(self.groups) != n:
            raise ValueError(f"{len(self.groups)} groups for {n} photographs")
        if self.covariates.height != n and self.covariates.width:
            raise ValueError(f"{self.covariates.height} rows of covariates for {n} photographs")
        _require_unique(self.image_ids, None, self.origin)

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def read(cls, path: Path, machine: Sequence[str] = ()) -> Self:
        """Read a truth table.

        Args:
            path: A ``.parquet`` or ``.csv`` file.
            machine: Label columns whose labels a model made, beside those a Parquet file declares itself.

        Raises:
            TableError: If the file cannot be read or breaks the contract.
        """
        frame = read_table(path, TableError)
        stored = pl.read_parquet_metadata(path) if path.suffix == ".parquet" else {}
        declared = [*machine, *(column for column in stored.get(_MACHINE_KEY, "").split("\n") if column and column not in machine)]
        labels = _label_space(frame, path, declared)
        groups = None
        if "group" in frame.columns:
            groups = string_column(frame, "group", path, TableError)
        return cls(
            image_ids=string_column(frame, "image_id", path, TableError),
            labels=labels,
            values={task.name: _labels(frame, task.columns, path) for task in labels.tasks},
            groups=groups,
            covariates=frame.select([name for name in COVARIATES if name in frame.columns]),
            origin=str(path),
            notes=tuple(note for note in stored.get(_NOTES_KEY, "").split("\n") if note),
        )

    def to_frame(self) -> pl.DataFrame:
        """The table as it is written; an unknown cell is null."""
        columns: dict[str, Any] = {"image_id": pl.Series(self.image_ids.tolist(), dtype=pl.String)}
        if self.groups is not None:
            columns["group"] = pl.Series(self.groups.tolist(), dtype=pl.String)
        for task in self.labels.tasks:
            for k, column in enumerate(task.columns):
                columns[column] = pl.Series(self.values[task.name][:, k], dtype=pl.Int8)
        frame = pl.DataFrame(columns)
        cells = pl.col(self.labels.columns)
        frame = frame.with_columns(pl.when(cells >= 0).then(cells).otherwise(None).name.keep())
        return pl.concat([frame, self.covariates], how="horizontal") if self.covariates.width else frame

    def write(self, path: Path) -> None:
        """Write the table as Parquet or CSV, by the ending of the path, atomically."""
        machine = [f"{task.name}/{name}" for task in self.labels.tasks for name in task.classes if name in task.machine]
        told = {_MACHINE_KEY: "\n".join(machine), _NOTES_KEY: "\n".join(self.notes)}
        write_table(self.to_frame(), path, TableError, {key: value for key, value in told.items() if value})

    def take(self, rows: NDArray[np.int64]) -> Truth:
        """The given rows, in the given order."""
        return Truth(
            image_ids=self.image_ids[rows],
            labels=self.labels,
            values={name: values[rows] for name, values in self.values.items()},
            groups=None if self.groups is None else self.groups[rows],
            covariates=self.covariates[rows] if self.covariates.width else self.covariates,
            origin=self.origin,
            notes=self.notes,
        )

    def present(self, task: str, row: int) -> tuple[str, ...] | None:
        """The classes of a task that a photograph is known to show, in class order; None where nothing of the task is known of it."""
        if task not in self.labels or (self.values[task][row] == -1).all():
            return None
        return tuple(name for name, value in zip(self.labels[task].classes, self.values[task][row], strict=True) if value == 1)

    def group_indices(self) -> NDArray[np.int64]:
        """(N,) group numbers from 0, in order of the group names; each photograph its own where no groups are given."""
        if self.groups is None:
            return np.arange(len(self), dtype=np.int64)
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)


def check_matching(predictions: Predictions, truth: Truth) -> Predictions:
    """Bring one seed's predictions into the row order of the truth.

    Args:
        predictions: N rows of one seed, in any order.
        truth: N rows.

    Returns:
        The predictions with row i belonging to row i of the truth, and classes in the truth's order. Classes that the truth
        does not have are left out.

    Raises:
        TableError: If the sets of image_id differ, or a truth column of a predicted task has no prediction.
    """
    order = np.argsort(predictions.image_ids, kind="stable")
    place = np.searchsorted(predictions.image_ids, truth.image_ids, sorter=order).clip(max=len(order) - 1)
    rows = order[place]
    missing = predictions.image_ids[rows] != truth.image_ids
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise TableError(
            f"{predictions.origin} has no row for image_id {str(truth.image_ids[row])!r} of {truth.origin}, row {row + 1} "
            f"({int(missing.sum())} of {len(truth)} are missing)"
        )
    if len(predictions) != len(truth):
        extra = np.setdiff1d(predictions.image_ids, truth.image_ids)
        raise TableError(
            f"{predictions.origin} holds image_id {str(extra[0])!r}, which {truth.origin} does not have ({len(extra)} such rows)"
        )
    common = [name for name in truth.labels.names if name in predictions.labels]
    if not common:
        raise TableError(f"{predictions.origin} predicts no task of {truth.origin}")
    scores = {}
    for name in common:
        theirs = {item: k for k, item in enumerate(predictions.labels[name].classes)}
        for item in truth.labels[name].classes:
            if item not in theirs:
                raise TableError(f"{predictions.origin} has no column '{name}/{item}', which {truth.origin} has")
        extra_classes = len(theirs) - len(truth.labels[name])
        if name == SITE and extra_classes:
            unknown = next(item for item in theirs if item not in truth.labels[name].classes)
            raise TableError(f"{predictions.origin} has a column '{SITE}/{unknown}', which {truth.origin} does not have")
        scores[name] = predictions.scores[name][rows][:, [theirs[item] for item in truth.labels[name].classes]]
    return Predictions(
        image_ids=truth.image_ids,
        labels=truth.labels.restricted_to(common),
        scores=scores,
        folds=None if predictions.folds is None else predictions.folds[rows],
        seeds=None if predictions.seeds is None else predictions.seeds[rows],
        origin=predictions.origin,
    )


def _shown(value: np.float32) -> str:
    return "an empty or undefined cell" if np.isnan(value) else f"{value:g}"


def _require_unique(ids: NDArray[np.str_], seeds: NDArray[np.int64] | None, origin: str) -> None:
    keys = pl.DataFrame({"id": ids.tolist(), "seed": [0] * len(ids) if seeds is None else seeds.tolist()})
    repeated = keys.is_duplicated()
    if repeated.any():
        first = keys.row(int(repeated.arg_true()[0]), named=True)
        of_seed = "" if seeds is None else f" of seed {first['seed']}"
        raise TableError(f"{origin}: image_id {first['id']!r}{of_seed} stands in more than one row")


def _label_space(frame: pl.DataFrame, path: Path, machine: Sequence[str] = ()) -> LabelSpace:
    columns = [name for name in frame.columns if "/" in name]
    if not columns:
        raise TableError(f"{path}: no label column; they are named '{LESION}/<name>' and '{SITE}/<name>'")
    try:
        return LabelSpace.from_columns(columns, machine)
    except LabelError as error:
        raise TableError(f"{path}: {error}") from error


def _scores(frame: pl.DataFrame, columns: Sequence[str], path: Path) -> NDArray[np.float32]:
    parts = [
        number_column(frame, name, pl.Float32(), allowed="are probabilities in [0, 1]", path=path, error=TableError)
        for name in columns
    ]
    return np.column_stack([part.fill_null(float("nan")).to_numpy() for part in parts]).astype(np.float32, copy=False)


def _labels(frame: pl.DataFrame, columns: Sequence[str], path: Path) -> NDArray[np.int8]:
    parts = []
    for name in columns:
        numbers = number_column(frame, name, pl.Int8(), allowed="are 1, 0 or an empty cell", path=path, error=TableError)
        bad = (numbers < 0) | (numbers > 1)
        if bad.any():
            row = int(bad.fill_null(value=False).arg_true()[0])
            raise TableError(f"{path}, row {row + 1}, column {name!r}: found {numbers[row]}, allowed are 1, 0 or an empty cell")
        parts.append(numbers.fill_null(-1).to_numpy())
    return np.column_stack(parts).astype(np.int8, copy=False)


def _optional(frame: pl.DataFrame, column: str, path: Path) -> NDArray[np.int64] | None:
    return whole_number_column(frame, column, path, TableError) if column in frame.columns else None
