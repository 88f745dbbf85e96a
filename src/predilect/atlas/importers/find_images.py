"""Finding the image file of each row of a table, at any depth and with any ending, and saying why where that fails."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from predilect.errors import AtlasError
from predilect.files import checksum

__all__ = ["IMAGE_SUFFIXES", "Matches", "Walked", "match_images", "walk_files"]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
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


@dataclass(frozen=True)
class Walked:
    """What lies under a folder, hidden files and folders left out.

    Attributes:
        files: Sorted paths of the regular files, relative to the folder, with ``/``.
        odd: Sorted paths of all else that is no folder: links, pipes, sockets, devices.
        n_nameless: How many images have a path that is not UTF-8, which no table can hold.
    """

    files: list[str]
    odd: list[str]
    n_nameless: int


def match_images(names: pl.Series, root: Path) -> Matches:
    """Find the image file of each name under a folder.

    A file at exactly the named path is taken. Otherwise the ending may differ (``.png`` in the table, ``.jpg`` at hand), and so may
    the Unicode form of the name (archives made on a Mac take letters apart), and a name without a folder may lie at any depth; only
    files that no other row names exactly are looked at then. Several files with the same bytes count as one. Hidden files and folders
    (``.name``) are not looked at. A link is followed where a name leads through it, as long as it stays under the root.

    Args:
        names: (N,) distinct strings, paths relative to `root` with ``/``.
        root: The folder to search.

    Raises:
        AtlasError: If `root` is not a folder that can be read, or two names lead to one file.
    """
    walked = walk_files(root)
    found = _listing(walked.files)
    rows = names.alias("name").to_frame().with_row_index("i").with_columns(_parts("name"))
    linked = _through_links(rows, walked, root)
    exact = rows.join(found, left_on="name", right_on="file_name", how="semi").select("i", file_name="name", real="name")
    exact = pl.concat([exact, linked.filter(pl.col("reason").is_null()).select("i", "file_name", "real")])
    _check_one_row_each(exact, root)
    images = found.filter("image")
    rest = rows.join(exact, on="i", how="anti")
    free = images.join(exact, left_on="file_name", right_on="real", how="anti")
    bare = ~pl.col("name").str.contains("/", literal=True)
    by_stem = rest.filter(bare).join(free, on="stem", how="inner")
    by_path = rest.filter(~bare).join(free, on="trunk", how="inner")
    hits = pl.concat([by_stem.select("i", "file_name"), by_path.select("i", "file_name")]).sort("i", "file_name")
    listed = pl.concat([exact.select(file_name="real"), hits.select("file_name")]).unique()
    files = pl.concat([exact.select("i", "file_name", reason=pl.lit(None, dtype=pl.String)), _settled(hits, root)])
    refused = linked.filter(pl.col("reason").is_not_null()).select("i", refused="reason")
    missing = pl.lit("there is no image of that name in the folder")  # whose path is nobody else's business
    other_case = pl.concat_str(missing, pl.lit("; "), pl.col("alike"), pl.lit(" differs in capital and small letters"))
    files = (
        rows.select("i")
        .join(files, on="i", how="left", maintain_order="left")
        .join(refused, on="i", how="left", maintain_order="left")
        .join(_alike_but_for_case(rows, free), on="i", how="left", maintain_order="left")
        .select(
            "file_name", reason=pl.when(pl.col("file_name").is_null()).then(pl.coalesce("reason", "refused", other_case, missing))
        )
    )
    return Matches(files, images.join(listed, on="file_name", how="anti").height + walked.n_nameless)


def walk_files(root: Path) -> Walked:
    """All regular files under a folder; hidden ones are left out, and links are not followed, wherever they lead.

    Raises:
        AtlasError: If `root` is not a folder, or one in it cannot be read.
    """
    if not root.is_dir():
        raise AtlasError(f"{root}: there is no such folder")
    files: list[str] = []
    odd: list[str] = []
    n_nameless = 0
    waiting = [("", root)]
    while waiting:
        within, folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = within + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{name}/", Path(entry.path)))
                    elif not _is_text(name):
                        n_nameless += Path(name).suffix.lower() in IMAGE_SUFFIXES
                    elif entry.is_file(follow_symlinks=False):
                        files.append(name)
                    else:
                        odd.append(name)
        except OSError as error:
            raise AtlasError(f"{folder} cannot be read: {error.strerror}") from error
    return Walked(sorted(files), sorted(odd), n_nameless)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listing(names: list[str]) -> pl.DataFrame:
    """Files under the root: `file_name`, `trunk` (without its ending), `stem` (without its folder), `image`."""
    frame = pl.DataFrame({"file_name": names}, schema={"file_name": pl.String})
    suffix = pl.col("file_name").str.extract(r"(\.[^./]*)$").str.to_lowercase()
    return frame.with_columns(_parts("file_name")).with_columns(image=suffix.is_in(list(IMAGE_SUFFIXES)).fill_null(value=False))


def _through_links(rows: pl.DataFrame, walked: Walked, root: Path) -> pl.DataFrame:
    """What becomes of the names that lead to or through something other than folders and regular files.

    Returns:
        Columns `i`, `file_name`, `real` (path under the root of the file that a link leads to) and `reason` (why it is not taken).
    """
    schema = {"i": rows.schema["i"], "file_name": pl.String(), "real": pl.String(), "reason": pl.String()}
    if not walked.odd:
        return pl.DataFrame(schema=schema)
    odd, top = set(walked.odd), root.resolve()
    found = []
    for i, name in rows.select("i", "name").iter_rows():
        if name in odd or any(name[:at] in odd for at, letter in enumerate(name) if letter == "/"):
            real, reason = _real(root / name, top)
            found.append((i, name, real, reason))
    return pl.DataFrame(found, schema=schema, orient="row")


def _real(path: Path, top: Path) -> tuple[str | None, str | None]:
    """Where a path leads, relative to the resolved root, or why it is not taken."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a link to nowhere, or in a circle
        return None, "its path leads through a link to something that is not there"
    if not real.is_relative_to(top):
        return None, "its path leaves the folder through a link; copy the files into the folder, or import the one they lie in"
    if not real.is_file():
        return None, "it is a folder, a pipe, a socket or a device, not a file"
    return real.relative_to(top).as_posix(), None


def _check_one_row_each(exact: pl.DataFrame, root: Path) -> None:
    repeated = exact.filter(pl.col("real").is_duplicated()).sort("real", "i")
    if repeated.height:
        same = repeated.filter(pl.col("real") == repeated["real"][0])
        rows = " and ".join(f"row {i + 1} ({name!r})" for i, name in same.head(3).select("i", "file_name").iter_rows())
        raise AtlasError(f"{root}: {rows} name one file, {same['real'][0]!r}, through a link; each photograph has one row")


def _parts(column: str) -> list[pl.Expr]:
    trunk = pl.col(column).str.replace(r"([^/])\.[^./]*$", "$1").str.normalize("NFC")
    return [trunk.alias("trunk"), trunk.str.extract(r"([^/]*)$").alias("stem")]


def _alike_but_for_case(rows: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """The first image whose name is that of a row but for capital and small letters: columns `i` and `alike`."""
    bare = ~pl.col("name").str.contains("/", literal=True)
    wanted = rows.select("i", folded=pl.when(bare).then("stem").otherwise("trunk").str.to_lowercase())
    there = pl.concat([images.select("file_name", folded=pl.col(part).str.to_lowercase()) for part in ("stem", "trunk")])
    first = there.group_by("folded").agg(alike=pl.col("file_name").min())
    return wanted.join(first, on="folded", how="inner").select("i", "alike")


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
