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

_SHOWN = 3


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
        inodes: The number of each on its disk; two paths of one file have the same.
        odd: Sorted paths of all else that is no folder: links, pipes, sockets, devices.
        n_nameless: How many images have a path that is not UTF-8, which no table can hold.
    """

    files: list[str]
    inodes: list[int]
    odd: list[str]
    n_nameless: int


def match_images(names: pl.Series, root: Path, table: str) -> Matches:
    """Find the image file of each name under a folder.

    A file at exactly the named path is taken. Otherwise the ending may differ (``.png`` in the table, ``.jpg`` at hand), and so may
    the Unicode form of the name (archives made on a Mac take letters apart), and a name without a folder may lie at any depth; only
    files that no other row names exactly are taken then. Several files with the same bytes count as one. Hidden files and folders
    (``.name``) are not looked at. A link is followed where a name leads through it, as long as it stays under the root.

    Args:
        names: (N,) distinct strings, paths relative to `root` with ``/``.
        root: The folder to search.
        table: What the names were read from, for messages.

    Raises:
        AtlasError: If `root` is not a folder that can be read, or two names mean one file: both lead to it, or one does and it is
            all that the other can mean, in another ending, folder, Unicode form or case.
    """
    walked = walk_files(root)
    found = _listing(walked)
    rows = names.alias("name").to_frame().with_row_index("i").with_columns(_parts("name"))
    linked = _through_links(rows, walked, root)
    refused = linked.filter(pl.col("reason").is_not_null()).select("i", refused="reason")
    exact = rows.join(found, left_on="name", right_on="file_name", how="semi").select("i", file_name="name", real="name")
    exact = pl.concat([exact, linked.filter(pl.col("reason").is_null()).select("i", "file_name", "real")])
    images = found.filter("image")
    rest = rows.join(exact, on="i", how="anti")
    hits = _fitting(rest, images)
    free = hits.join(exact, left_on="file_name", right_on="real", how="anti")
    settled = _settled(free, root)
    # For these rows there is no file that is not another row's.
    lost = rest.join(free, on="i", how="anti").join(refused, on="i", how="anti")
    alike = _fitting(lost.join(hits, on="i", how="anti"), images, fold=True)
    meant = [exact.select("i", file_name="real"), settled.filter(pl.col("file_name").is_not_null()).select("i", "file_name")]
    meant += [_only(hits.join(lost, on="i", how="semi")), _only(alike)]
    _check_one_row_each(pl.concat(meant), names, found, root, table)
    listed = pl.concat([exact.select(file_name="real"), free.select("file_name")]).unique()
    hint = alike.join(listed, on="file_name", how="anti").group_by("i").agg(alike=pl.col("file_name").min())
    missing = pl.lit("there is no image of that name in the folder")  # whose path is nobody else's business
    other_case = pl.concat_str(missing, pl.lit("; "), pl.col("alike"), pl.lit(" differs in capital and small letters"))
    files = pl.concat([exact.select("i", "file_name", reason=pl.lit(None, dtype=pl.String)), settled])
    for more in (files, refused, hint):
        rows = rows.join(more, on="i", how="left", maintain_order="left")
    reason = pl.when(pl.col("file_name").is_null()).then(pl.coalesce("reason", "refused", other_case, missing))
    unlisted = images.join(listed, on="file_name", how="anti").height + walked.n_nameless
    return Matches(rows.select("file_name", reason=reason), unlisted)


def walk_files(root: Path) -> Walked:
    """All regular files under a folder; hidden ones are left out, and links are not followed, wherever they lead.

    Raises:
        AtlasError: If `root` is not a folder, or one in it cannot be read.
    """
    if not root.is_dir():
        raise AtlasError(f"{root}: there is no such folder")
    files: list[tuple[str, int]] = []
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
                        files.append((name, entry.inode()))
                    else:
                        odd.append(name)
        except OSError as error:
            raise AtlasError(f"{folder} cannot be read: {error.strerror}") from error
    files.sort()
    return Walked([name for name, _ in files], [inode for _, inode in files], sorted(odd), n_nameless)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listing(walked: Walked) -> pl.DataFrame:
    """Files under the root: `file_name`, `inode`, `trunk` (without its ending), `stem` (without its folder), `image`."""
    frame = pl.DataFrame({"file_name": walked.files, "inode": walked.inodes}, schema={"file_name": pl.String, "inode": pl.UInt64})
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


def _only(hits: pl.DataFrame) -> pl.DataFrame:
    """Of columns `i` and `file_name` the rows that have one file."""
    return hits.filter(pl.len().over("i") == 1).select("i", "file_name")


def _check_one_row_each(meant: pl.DataFrame, names: pl.Series, found: pl.DataFrame, root: Path, table: str) -> None:
    """Refuse two rows that mean one file: columns `i` and `file_name`."""
    # Paths of one number may still be files of two disks, which is asked where it matters.
    paths = meant.join(found.select("file_name", "inode"), on="file_name", how="left")
    linked = paths.filter(pl.col("inode").is_not_null() & (pl.col("file_name").n_unique().over("inode") > 1))
    files = linked["file_name"].unique().to_list()
    state = [f"{status.st_dev} {status.st_ino}" for status in ((root / file).stat() for file in files)]
    identity = pl.DataFrame({"file_name": files, "identity": state}, schema={"file_name": pl.String, "identity": pl.String})
    meant = meant.join(identity, on="file_name", how="left").with_columns(pl.coalesce("identity", "file_name")).sort("i")
    twice = meant.filter(pl.col("identity").is_duplicated())
    if twice.is_empty():
        return
    same = twice.filter(pl.col("identity") == twice["identity"][0])
    told = [f"row {i + 1} ({names[i]!r})" for i in same["i"].head(_SHOWN)]
    more = f" and {same.height - _SHOWN} more" if same.height > _SHOWN else ""
    absent = [names[i] for i in same["i"] if not (root / names[i]).exists()]
    remedy = f", or add {absent[0]!r}, which is not there" if absent else ""
    others = twice["identity"].n_unique() - 1
    raise AtlasError(
        f"{table}: {' and '.join(told)}{more} mean one file, {same['file_name'][0]!r}; each photograph has one row, so remove the others"
        f"{remedy}{f' ({others} more such files)' if others else ''}"
    )


def _parts(column: str) -> list[pl.Expr]:
    trunk = pl.col(column).str.replace(r"([^/])\.[^./]*$", "$1").str.normalize("NFC")
    return [trunk.alias("trunk"), trunk.str.extract(r"([^/]*)$").alias("stem")]


def _fitting(rows: pl.DataFrame, images: pl.DataFrame, *, fold: bool = False) -> pl.DataFrame:
    """The images that names mean, whatever their endings, and with `fold` their case: columns `i` and `file_name`, sorted."""
    bare = ~pl.col("name").str.contains("/", literal=True)
    if fold:
        rows, images = (frame.with_columns(pl.col("stem", "trunk").str.to_lowercase()) for frame in (rows, images))
    by_stem = rows.filter(bare).join(images, on="stem")
    by_path = rows.filter(~bare).join(images, on="trunk")
    return pl.concat([frame.select("i", "file_name") for frame in (by_stem, by_path)]).sort("i", "file_name")


def _settled(hits: pl.DataFrame, root: Path) -> pl.DataFrame:
    """One file or one reason for each row that some file fits: columns `i`, `file_name`, `reason`."""
    per_row = hits.group_by("i", maintain_order=True).agg("file_name")
    several = per_row.filter(pl.col("file_name").list.len() > 1)
    differing = [i for i, files in several.iter_rows() if not _same_content([root / file for file in files])]
    shown = pl.col("file_name").list.head(3).list.join(", ")
    return per_row.with_columns(
        reason=pl.when(pl.col("i").is_in(differing)).then(
            pl.format("{} different files fit: {}", pl.col("file_name").list.len(), shown)
        ),
        first=pl.col("file_name").list.first(),
    ).select("i", file_name=pl.when(pl.col("reason").is_null()).then("first"), reason="reason")


def _same_content(paths: list[Path]) -> bool:
    return len({path.stat().st_size for path in paths}) == 1 and len({checksum(path) for path in paths}) == 1
