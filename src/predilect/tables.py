"""Reading a table's columns so strictly that each bad cell is named, and writing a table by its ending, atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.errors import PredilectError
from predilect.files import replacing

__all__ = ["number_column", "read_table", "string_column", "whole_number_column", "write_table"]


def read_table(path: Path, error: type[PredilectError]) -> pl.DataFrame:
    """Read a Parquet or CSV table; the columns of a CSV come as text.

    Args:
        path: A ``.parquet`` or ``.csv`` file.
        error: What to raise, by the kind of the table.

    Raises:
        PredilectError: Of the given kind, if the file is missing or damaged, or a column of a CSV stands there twice.
    """
    _check_ending(path, error)
    if not path.is_file():
        raise error(f"{path}: there is no such file")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        # All as text, so that image_id keeps its zeros. The header is read as a row first, since polars renames a repeated column.
        header = pl.read_csv(path, infer_schema=False, has_header=False, n_rows=1).row(0)
        repeated = [name for name in header if header.count(name) > 1]
        frame = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as cause:
        reason = (str(cause).splitlines() or ["it is empty or damaged"])[0]
        raise error(f"{path}: the table cannot be read: {reason}") from cause
    if repeated:
        raise error(f"{path}: column {repeated[0]!r} stands there more than once")
    return frame


def write_table(frame: pl.DataFrame, path: Path, error: type[PredilectError], metadata: Mapping[str, str] | None = None) -> None:
    """Write a table as Parquet or CSV, by the ending of the path, atomically.

    Args:
        frame: The table.
        path: A ``.parquet`` or ``.csv`` file.
        error: What to raise for another ending.
        metadata: For the header of a Parquet file; a CSV has none.

    Raises:
        PredilectError: Of the given kind for another ending; if the file cannot be written.
    """
    _check_ending(path, error)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            frame.write_csv(temporary)
        else:
            frame.write_parquet(temporary, metadata=dict(metadata) if metadata else None)


def string_column(frame: pl.DataFrame, column: str, path: Path, error: type[PredilectError]) -> NDArray[np.str_]:
    """A column of strings without an empty cell.

    Args:
        frame: N rows.
        column: Its name.
        path: The file, for messages.
        error: What to raise.

    Raises:
        PredilectError: Of the given kind, if the column is missing, holds something else, or has an empty cell.
    """
    if column not in frame.columns:
        raise error(f"{path}: there is no column {column!r}")
    series = frame[column]
    if series.dtype != pl.String:
        raise error(f"{path}: column {column!r} holds {series.dtype}, it must hold strings (so that '000655' stays)")
    empty = series.is_null() | (series == "")
    if empty.any():
        raise error(f"{path}, row {int(empty.arg_true()[0]) + 1}: {column} is empty")
    return np.array(series.to_list(), dtype=np.str_)


def number_column(
    frame: pl.DataFrame, column: str, dtype: pl.DataType, *, allowed: str, path: Path, error: type[PredilectError]
) -> pl.Series:
    """A column of numbers, or of text that holds numbers; an empty cell stays null.

    Args:
        frame: N rows.
        column: Its name; it must be there.
        dtype: The type wanted; for whole numbers a fraction is refused.
        allowed: What is allowed, for the message.
        path: The file, for messages.
        error: What to raise.

    Raises:
        PredilectError: Of the given kind, if a cell is no such number.
    """
    series = frame[column]
    numbers = series.cast(dtype, strict=False)
    lost = numbers.is_null() & series.is_not_null()
    if dtype.is_integer():
        exact = series.cast(pl.Float64, strict=False)
        numbers = exact.cast(dtype, strict=False)
        lost = series.is_not_null() & (exact.is_null() | numbers.is_null() | (exact != numbers.cast(pl.Float64)))
    if lost.any():
        row = int(lost.fill_null(value=True).arg_true()[0])
        raise error(f"{path}, row {row + 1}, column {column!r}: found {series[row]!r}, allowed {allowed}")
    return numbers


def whole_number_column(frame: pl.DataFrame, column: str, path: Path, error: type[PredilectError]) -> NDArray[np.int64]:
    """A column of whole numbers without an empty cell.

    Args:
        frame: N rows.
        column: Its name.
        path: The file, for messages.
        error: What to raise.

    Raises:
        PredilectError: Of the given kind, if the column is missing, or a cell is empty or no whole number.
    """
    if column not in frame.columns:
        raise error(f"{path}: there is no column {column!r}")
    numbers = number_column(frame, column, pl.Int64(), allowed="are whole numbers", path=path, error=error)
    if numbers.null_count():
        raise error(f"{path}, row {int(numbers.is_null().arg_true()[0]) + 1}: {column} is empty")
    return numbers.to_numpy()


def _check_ending(path: Path, error: type[PredilectError]) -> None:
    if path.suffix not in {".parquet", ".csv"}:
        raise error(f"{path}: a table is a .parquet or a .csv file")
