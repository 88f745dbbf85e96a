"""What an importer hands on, and the steps that all importers share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.atlas.importers.find_images import match_images, walk_files
from predilect.atlas.manifest import parse_photos, read_text_table
from predilect.errors import AtlasError, nearest

__all__ = ["REJECTED_SCHEMA", "Imported", "Source", "check_cells", "find_table", "gather"]

REJECTED_SCHEMA = pl.Schema({"file": pl.String(), "row": pl.Int64(), "reason": pl.String()})
"""Columns of `rejected.csv`: the image file as the source names it, its row in the source's table, and why it was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set that photographs come from.

    Attributes:
        name: As in the photographs' `source`.
        title: Its full name.
        licence: The terms under which it is given.
        credit: Whom to name, and where it is found.
        notes: What a reader of results must know about it, a sentence each.
        assessed: The raw lesion terms that its annotators looked for; the others are unknown there. None means all.
    """

    name: str
    title: str
    licence: str
    credit: str
    notes: tuple[str, ...] = ()
    assessed: frozenset[str] | None = None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Imported:
    """Photographs with raw terms, as an importer found them.

    Attributes:
        photos: N photographs with the columns of `PHOTO_SCHEMA` and any others that were carried along; `file_name` is relative
            to `root`, and the file was there when it was looked for.
        rows: (N,) row of each photograph in the source's table, from 1, the header not counted.
        rejected: Rows without a usable image, with the columns of `REJECTED_SCHEMA`.
        n_excluded: Rows that were left out on purpose, such as those of another kind of image.
        n_unlisted: Images under `root` that no row of the table names.
        sources: Where the photographs come from; every `source` of the photographs is the name of one.
        taxonomy: The preset that fits the raw terms.
        origin: Path of the source's table.
        root: The folder that was imported.
    """

    photos: pl.DataFrame
    rows: NDArray[np.int64]
    rejected: pl.DataFrame
    n_excluded: int
    n_unlisted: int
    sources: tuple[Source, ...]
    taxonomy: str
    origin: str
    root: Path


def find_table(root: Path, name: str, columns: Collection[str]) -> tuple[Path, pl.DataFrame]:
    """Find a source's table by its name at any depth and read it as text.

    Args:
        root: The folder to search.
        name: The file's name.
        columns: Columns that must be there.

    Returns:
        The path, and the table with at least one row, every cell a string or null.

    Raises:
        AtlasError: If there is no such file or more than one, it cannot be read, or a column is missing.
    """
    paths = [root / path for path in walk_files(root).files if path.rpartition("/")[2] == name]
    if len(paths) != 1:
        found = f"it is there {len(paths)} times: {', '.join(map(str, paths[:3]))}" if paths else "it is not there"
        raise AtlasError(f"{root} must hold the table {name} once, at any depth; {found}")
    table = read_text_table(paths[0])
    for column in columns:
        if column not in table.columns:
            raise AtlasError(f"{paths[0]}: there is no column {column!r}: {nearest(column, table.columns)}")
    if table.is_empty():
        raise AtlasError(f"{paths[0]}: the table has no rows")
    return paths[0], table


def check_cells(table: pl.DataFrame, column: str, good: pl.Expr, allowed: str, origin: Path) -> None:
    """Hold the cells of a source's table to what the source publishes.

    Args:
        table: The source's table.
        column: The column to name.
        good: Whether a row is as it should be; null counts as good, so that an empty cell may stand.
        allowed: What would be right, for the message.
        origin: The table's file.

    Raises:
        AtlasError: If a row is not good; names the file, the row, the column and the value of the first.
    """
    bad = table.select(~good.fill_null(value=True)).to_series()
    if bad.any():
        row = int(bad.arg_true()[0])
        more = f" ({int(bad.sum()) - 1} more such rows)" if bad.sum() > 1 else ""
        raise AtlasError(f"{origin}, row {row + 1}, column {column!r}: found {table[column][row]!r}, allowed {allowed}{more}")


def gather(
    cells: pl.DataFrame, root: Path, origin: Path, *, sources: Sequence[Source], taxonomy: str, wanted: pl.Series | None = None
) -> Imported:
    """Check the photographs of a source and find their images.

    Args:
        cells: N rows in the form of a manifest, `file_name` as the source names it (relative to `root`).
        root: The folder with the images.
        origin: The source's table.
        sources: Where the photographs come from.
        taxonomy: The preset that fits the raw terms.
        wanted: (N,) booleans; rows to leave out on purpose are False. None wants all.

    Raises:
        AtlasError: If a cell breaks the contract of manifests, two rows mean one file, or `root` cannot be read.
    """
    photos = parse_photos(cells, str(origin))
    matches = match_images(photos["file_name"], root, str(origin))
    keep = np.ones(photos.height, dtype=bool) if wanted is None else wanted.to_numpy()
    found = matches.files["file_name"].is_not_null().to_numpy()
    admitted, refused = np.flatnonzero(keep & found), np.flatnonzero(keep & ~found)
    rejected = pl.DataFrame(
        {"file": photos["file_name"][refused], "row": refused + 1, "reason": matches.files["reason"][refused]},
        schema=REJECTED_SCHEMA,
    )
    return Imported(
        photos=photos.with_columns(matches.files["file_name"])[admitted],
        rows=admitted.astype(np.int64) + 1,
        rejected=rejected,
        n_excluded=int((~keep).sum()),
        n_unlisted=matches.n_unlisted,
        sources=tuple(sources),
        taxonomy=taxonomy,
        origin=str(origin),
        root=root,
    )
