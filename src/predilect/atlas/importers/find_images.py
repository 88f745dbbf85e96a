"""Finding the image file of each row of a table, at any depth and with any ending, and saying why where that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from predilect.errors import AtlasError
from predilect.files import checksum

__all__ = ["IMAGE_SUFFIXES", "Matches", "match_images", "walk_files"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings, in lower case, of the files that count as images."""


@dataclass(frozen=True)
class Matches:
    """Which image file belongs to each name.

    Attributes:
        files: N rows in the order of the names: `file_name` (relative to the root, with ``/``; null where there is none) and
            `reason` (why there is none; null where there is one).
        n_unlisted: Images under the root that fit no name.
    """

    files: pl.DataFrame
    n_unlisted: int


def match_images(names: pl.Series, root: Path) -> Matches:
    """Find the image file of each name under a folder.

    A file at exactly the named path is taken. Otherwise the ending may differ (``.png`` in the table, ``.jpg`` at hand), and a
    name without a folder may lie at any depth; only files that no other row names exactly are looked at then. Several files
    with the same bytes count as one. Hidden files and folders (``.name``) are not looked at.

    Args:
        names: (N,) distinct strings, paths relative to `root` with ``/``.
        root: The folder to search.

    Raises:
        AtlasError: If `root` is not a folder that can be read.
    """
    found = _listing(root)
    rows = names.alias("name").to_frame().with_row_index("i").with_columns(_parts("name"))
    exact = rows.join(found, left_on="name", right_on="file_name", how="semi").select("i", file_name="name")
    images = found.filter("image")
    rest = rows.join(exact, on="i", how="anti")
    free = images.join(exact, on="file_name", how="anti")
    bare = ~pl.col("name").str.contains("/", literal=True)
    by_stem = rest.filter(bare).join(free, on="stem", how="inner")
    by_path = rest.filter(~bare).join(free, on="trunk", how="inner")
    hits = pl.concat([by_stem.select("i", "file_name"), by_path.select("i", "file_name")]).sort("i", "file_name")
    listed = pl.concat([exact.select("file_name"), hits.select("file_name")]).unique()
    files = pl.concat([exact.with_columns(reason=pl.lit(None, dtype=pl.String)), _settled(hits, root)])
    missing = "there is no image of that name in the folder"  # whose path is nobody else's business
    files = (
        rows.select("i")
        .join(files, on="i", how="left", maintain_order="left")
        .select(
            "file_name",
            reason=pl.when(pl.col("file_name").is_null() & pl.col("reason").is_null()).then(pl.lit(missing)).otherwise("reason"),
        )
    )
    return Matches(files, images.join(listed, on="file_name", how="anti").height)


def walk_files(root: Path) -> Iterator[str]:
    """The paths of all files under a folder, relative to it and with ``/``; hidden ones are left out, links are followed.

    Raises:
        AtlasError: If `root` is not a folder, or one in it cannot be read.
    """
    if not root.is_dir():
        raise AtlasError(f"{root}: there is no such folder")

    def refuse(error: OSError) -> None:
        raise AtlasError(f"{error.filename} cannot be read: {error.strerror}") from error

    seen: set[tuple[int, int]] = set()  # data folders are often links; a link to a folder above must not go round for ever
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        within = Path(folder).relative_to(root).as_posix()
        for name in files:
            if not name.startswith("."):
                # A name that is not UTF-8 cannot stand in a table; it is counted among the unlisted.
                yield (name if within == "." else f"{within}/{name}").encode("utf-8", "replace").decode()


def _listing(root: Path) -> pl.DataFrame:
    """Every file under the root, sorted: `file_name`, `trunk` (without its ending), `stem` (without its folder), `image`."""
    names = sorted(walk_files(root))
    frame = pl.DataFrame({"file_name": names}, schema={"file_name": pl.String})
    suffix = pl.col("file_name").str.extract(r"(\.[^./]*)$").str.to_lowercase()
    return frame.with_columns(_parts("file_name")).with_columns(image=suffix.is_in(list(IMAGE_SUFFIXES)).fill_null(value=False))


def _parts(column: str) -> list[pl.Expr]:
    trunk = pl.col(column).str.replace(r"([^/])\.[^./]*$", "$1")
    return [trunk.alias("trunk"), trunk.str.extract(r"([^/]*)$").alias("stem")]


def _settled(hits: pl.DataFrame, root: Path) -> pl.DataFrame:
    """One file or one reason for each row that some file fits: columns `i`, `file_name`, `reason`."""
    per_row = hits.group_by("i", maintain_order=True).agg("file_name")
    several = per_row.filter(pl.col("file_name").list.len() > 1)
    differing = [i for i, files in several.iter_rows() if not _same_content([root / file for file in files])]
    shown = pl.col("file_name").list.head(3).list.join(", ")
    settled = per_row.with_columns(
        reason=pl.when(pl.col("i").is_in(differing)).then(
            pl.format("{} different files fit: {}", pl.col("file_name").list.len(), shown)
        ),
        first=pl.col("file_name").list.first(),
    ).select("i", file_name=pl.when(pl.col("reason").is_null()).then("first"), reason="reason")
    twice = pl.col("file_name").is_not_null() & pl.col("file_name").is_duplicated()
    return settled.select(
        "i",
        file_name=pl.when(~twice).then("file_name"),
        reason=pl.when(twice)
        .then(pl.format("the only image that fits, {}, fits another row too", "file_name"))
        .otherwise("reason"),
    )


def _same_content(paths: list[Path]) -> bool:
    return len({path.stat().st_size for path in paths}) == 1 and len({checksum(path) for path in paths}) == 1
