"""Reading a table's columns so strictly that each bad cell is named, and writing a table by its ending, atomically."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from predilect.errors import PredilectError
from predilect.files import replacing

__all__ = ["number_column", "read_csv", "read_table", "string_column", "whole_number_column", "write_table"]

_SHOWN_LETTERS = 60
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


def read_table(path: Path, error: type[PredilectError]) -> pl.DataFrame:
    """Read a Parquet or CSV table; the columns of a CSV come as text.

    Args:
        path: A ``.parquet`` or ``.csv`` file.
        error: What to raise, by the kind of the table.

    Raises:
        PredilectError: Of the given kind, if the file is missing or damaged, or a CSV is not as `read_csv` wants it.
    """
    _check_ending(path, error)
    if not path.is_file():
        raise error(f"{path}: there is no such file")
    if path.suffix == ".csv":
        return read_csv(path, error)
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as cause:
        reason = (str(cause).splitlines() or ["it is empty or damaged"])[0]
        raise error(f"{path}: the table cannot be read: {reason}") from cause


def read_csv(path: Path, error: type[PredilectError]) -> pl.DataFrame:
    """Read a CSV table with every cell as text, so that ids keep their zeros; an empty cell is null, an empty line is no row.

    Args:
        path: A UTF-8 file with commas and one header line.
        error: What to raise, by the kind of the table.

    Raises:
        PredilectError: Of the given kind, if the file is missing, empty, not UTF-8 or separated by semicolons or tabs, names a column
            twice, or has a row with more or fewer cells than the header; names the row and its line.
    """
    header = _header(path, error)
    for name in header:
        if header.count(name) > 1:
            raise error(f"{path}: column {name!r} stands there more than once")
    try:
        table: Any = arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowException, OSError) as cause:
        reason = _uneven(path, header) or (str(cause).splitlines() or ["it is damaged"])[0]
        raise error(f"{path}: the table cannot be read as CSV: {reason}") from cause
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
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


def _header(path: Path, error: type[PredilectError]) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next((row for row in csv.reader(file) if row), None)
    except FileNotFoundError:
        raise error(f"{path}: there is no such file") from None
    except UnicodeDecodeError as cause:
        raise error(f"{path}: the table cannot be read as CSV: it is not UTF-8 text; save it as UTF-8") from cause
    except (csv.Error, OSError) as cause:
        raise error(f"{path}: the table cannot be read as CSV: {cause}") from cause
    if header is None:
        raise error(f"{path}: the table cannot be read as CSV: it is empty")
    for separator, name in _OTHER_SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise error(f"{path}: the table is separated by {name}; save it with commas")
    return header


def _uneven(path: Path, header: list[str]) -> str | None:
    """What is wrong with the first row that has more or fewer cells than the header; None if there is none.

    Only a file that could not be read comes here, so that a reader which tells lines apart may take its time.
    """
    n_columns = f"{len(header)} column" + ("s" if len(header) > 1 else "")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = ((cells, reader.line_num) for cells in reader if cells)
            for number, (cells, line) in enumerate(rows):
                if len(cells) != len(header):
                    found = ",".join(cells).replace("\n", " ")
                    found = found if len(found) <= _SHOWN_LETTERS else found[:_SHOWN_LETTERS] + "..."
                    n_cells = f"{len(cells)} cell" + ("s" if len(cells) > 1 else "")
                    return f"row {number} (line {line}) has {n_cells} where the header names {n_columns}: {found!r}"
    except UnicodeDecodeError:
        return "it is not UTF-8 text; save it as UTF-8"
    except csv.Error as cause:
        return str(cause)
    return None
