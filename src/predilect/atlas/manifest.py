"""Manifests: the table of photographs that a user writes, read strictly and written back.

A manifest is a ``.csv`` or ``.parquet`` file with one row per photograph; `docs/formats.md` holds the column contract. Rows are
counted from 1, the header not counted. Blanks around a cell are not part of it, and a cell of blanks is an empty one.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from predilect.atlas.photo import MODALITIES, PHOTO_SCHEMA, SKIN_TONE_SCALES
from predilect.errors import AtlasError, nearest
from predilect.files import replacing
from predilect.tables import read_csv

__all__ = ["MAX_AGE", "parse_photos", "read_manifest", "read_text_table", "write_manifest"]

MAX_AGE = 120
"""Years; an age beyond it is a slip of the pen, such as a year of birth."""

_NEAR = 0.78  # likeness from which a column is taken for a misspelt one of ours
_TERMS = ("lesions", "lesions_unknown", "site")
_STRINGS = tuple(name for name, dtype in PHOTO_SCHEMA.items() if dtype == pl.String)
_NOTHING_SEEN = "none"
_ALL_OTHERS = "*"


def read_manifest(path: Path) -> pl.DataFrame:
    """Read a manifest; no image file is looked for.

    Args:
        path: A ``.csv`` or ``.parquet`` file.

    Returns:
        N photographs with the columns of `PHOTO_SCHEMA`, then the manifest's other columns as they were.

    Raises:
        AtlasError: If the file cannot be read or a cell breaks the contract; names the file, the row, the column, the value
            found and the values allowed.
    """
    return parse_photos(_read_cells(path), str(path))


def write_manifest(frame: pl.DataFrame, path: Path) -> None:
    """Write photographs as a manifest, terms joined by ``;``, atomically; `read_manifest` gives the same table back.

    Args:
        frame: The columns of `PHOTO_SCHEMA`, then any others.
        path: A ``.csv`` or ``.parquet`` file; CSV holds no other columns of lists.

    Raises:
        ValueError: If a column of `PHOTO_SCHEMA` is missing or of another type.
        AtlasError: If a cell breaks the contract, or `path` has another ending.
    """
    wrong = [name for name, dtype in PHOTO_SCHEMA.items() if frame.schema.get(name) != dtype]
    if wrong:
        raise ValueError(f"not a table of photographs: columns {wrong} are missing or of another type")
    cells = frame.with_columns(_joined(frame[name], str(path)) for name in _TERMS)
    parse_photos(cells, str(path))
    if path.suffix == ".csv":
        with replacing(path) as temporary:
            cells.write_csv(temporary)
    elif path.suffix == ".parquet":
        with replacing(path) as temporary:
            cells.write_parquet(temporary)
    else:
        raise AtlasError(f"{path}: a manifest is a .csv or a .parquet file")


def read_text_table(path: Path) -> pl.DataFrame:
    """Read a CSV table with every cell as text, so that ids keep their zeros; an empty cell is null.

    Raises:
        AtlasError: If the file is missing, is not UTF-8 CSV, has a ragged row or names a column twice.
    """
    frame = read_csv(path, AtlasError)
    return frame.with_columns(_stripped(pl.col(name)) for name in frame.columns)


def parse_photos(cells: pl.DataFrame, origin: str) -> pl.DataFrame:
    """Check the cells of a manifest and give each column its type.

    Args:
        cells: One row per photograph; columns of strings, terms joined by ``;``. Lists of terms, a numeric `age` and integer ids
            (but for `image_id`) are taken too, since Parquet has them.
        origin: The file they come from, for messages.

    Returns:
        N photographs with the columns of `PHOTO_SCHEMA`, then the other columns as they were.

    Raises:
        AtlasError: If a cell breaks the contract.
    """
    _check_columns(cells, origin)
    present = {name: _as_text(cells[name], origin) for name in PHOTO_SCHEMA.names() if name in cells.columns}
    text = pl.DataFrame([present.get(name, pl.Series(name, [None] * cells.height, dtype=pl.String)) for name in PHOTO_SCHEMA])
    # "./a.jpg", as a listing writes it, and "x//a.jpg" are the same file as "a.jpg" and "x/a.jpg".
    text = text.with_columns(pl.col("file_name").str.replace_all(r"/(\./|/)+", "/").str.replace(r"^(\./)+", ""))
    _check_file_names(text, origin)
    text = text.with_columns(
        image_id=pl.coalesce("image_id", pl.col("file_name").str.extract(r"([^/]+?)(?:\.[^./]*)?$")),
        source=pl.col("source").fill_null("unnamed"),
    )
    _check_unique(text, "file_name", origin)  # first: equal names without ids would look like equal ids
    _check_unique(text, "image_id", origin)
    _check_choice(text, "modality", MODALITIES, origin)
    _check_choice(text, "skin_tone_scale", SKIN_TONE_SCALES, origin)
    _check_skin_tone(text, origin)
    photos = text.with_columns(_ages(text["age"], origin), *(_terms(text[name], origin) for name in _TERMS))
    _check_contradictions(photos, origin)
    carried = [name for name in cells.columns if name not in PHOTO_SCHEMA]
    return pl.concat([photos, cells.select(carried)], how="horizontal") if carried else photos


def _read_cells(path: Path) -> pl.DataFrame:
    if path.suffix == ".csv":
        return read_text_table(path)
    if path.suffix != ".parquet":
        raise AtlasError(f"{path}: a manifest is a .csv or a .parquet file")
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise AtlasError(f"{path}: there is no such file") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).splitlines() or ["it is damaged"])[0]
        raise AtlasError(f"{path} cannot be read as Parquet: {reason}") from error


def _refuse(cells: pl.Series, bad: pl.Series, allowed: str, origin: str) -> None:
    """Raise for the first bad cell; nothing happens where there is none."""
    rows = bad.fill_null(value=False).arg_true()
    if len(rows):
        row = int(rows[0])
        value = cells[row]
        found = repr(value.to_list() if isinstance(value, pl.Series) else value) if value is not None else "an empty cell"
        more = f" ({len(rows) - 1} more such rows)" if len(rows) > 1 else ""
        raise AtlasError(f"{origin}, row {row + 1}, column {cells.name!r}: found {found}, {allowed}{more}")


def _check_columns(cells: pl.DataFrame, origin: str) -> None:
    known = PHOTO_SCHEMA.names()
    by_shape = {_shape(name): name for name in known if name not in cells.columns}
    for name in cells.columns:
        # "Lesions", "lesoins" or "patient" would be carried along unread, and the labels or the groups in it lost without a word.
        if name in known:
            continue
        near = difflib.get_close_matches(_shape(name), by_shape, n=1, cutoff=_NEAR)
        if near:
            raise AtlasError(
                f"{origin}: column {name!r} must be written {by_shape[near[0]]!r}, or named so that it cannot be taken for it"
            )
    if "file_name" not in cells.columns:
        raise AtlasError(f"{origin}: there is no column 'file_name' among {_listed(cells.columns)}")
    if not {"lesions", "site"} & set(cells.columns):
        raise AtlasError(f"{origin}: there is neither a column 'lesions' nor a column 'site' among {_listed(cells.columns)}")
    if cells.is_empty():
        raise AtlasError(f"{origin}: the table has no rows")


def _shape(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum()).removesuffix("s").replace("licence", "license")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _stripped(cells: pl.Expr) -> pl.Expr:
    trimmed = cells.str.strip_chars()
    return pl.when(trimmed != "").then(trimmed).otherwise(None).name.keep()


def _as_text(series: pl.Series, origin: str) -> pl.Series:
    dtype = series.dtype
    if dtype == pl.String or isinstance(dtype, (pl.Categorical, pl.Enum, pl.Null)):
        return series.cast(pl.String).to_frame().select(_stripped(pl.col(series.name))).to_series()
    if series.name in _TERMS and dtype == pl.List(pl.String):
        return _joined(series, origin)
    if series.name == "age" and dtype.is_numeric():
        return series.cast(pl.Float64).fill_nan(None).cast(pl.String)
    if dtype.is_integer() and series.name not in {"image_id", "file_name", *_TERMS}:
        return series.cast(pl.String)
    allowed = "numbers" if series.name == "age" else "strings (so that '000655' stays)"
    raise AtlasError(f"{origin}: column {series.name!r} holds {dtype}, it must hold {allowed}")


def _joined(lists: pl.Series, origin: str) -> pl.Series:
    """Lists of terms as cells: joined by ``;``, an empty list as ``none`` for lesions and as an empty cell elsewhere."""
    broken = pl.element().is_null() | pl.element().str.contains(";", literal=True) | (pl.element().str.strip_chars() == "")
    held = lists.to_frame().select(pl.col(lists.name).list.eval(broken).list.any()).to_series()
    _refuse(lists, held, "each term is a name without ';'", origin)
    nothing = pl.lit(_NOTHING_SEEN if lists.name == "lesions" else None, dtype=pl.String)
    terms = pl.col(lists.name)
    cell = pl.when(terms.list.len() > 0).then(terms.list.join(";")).when(terms.is_not_null()).then(nothing)
    return lists.to_frame().select(cell.alias(lists.name)).to_series()


def _check_file_names(text: pl.DataFrame, origin: str) -> None:
    names = text["file_name"]
    _refuse(names, names.is_null(), "each row needs its image file", origin)
    _refuse(names, names.str.contains("\\", literal=True), "folders are written with '/'", origin)
    outside = names.str.contains(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)")
    _refuse(names, outside, "allowed is a path inside the manifest's folder, relative to it", origin)
    _refuse(names, names.str.contains(r"(^|/)\.?$"), "allowed is the path of a file", origin)
    _refuse(names, names.str.contains(r"[\x00-\x1f\x7f]"), "allowed is a name without control characters", origin)


def _check_unique(text: pl.DataFrame, column: str, origin: str) -> None:
    cells = text[column]
    repeated = cells.is_duplicated()
    if repeated.any():
        first = cells[int(repeated.arg_true()[0])]
        rows = [int(row) + 1 for row in (cells == first).arg_true()[:3]]
        remedy = {
            "file_name": ": each photograph has one row, so remove the others",
            "image_id": " (where the column is empty, it is the name of the file without its ending)",
        }
        raise AtlasError(
            f"{origin}, rows {' and '.join(map(str, rows))}: {column} {first!r} stands in each; it must be unique{remedy[column]}"
        )


def _check_choice(text: pl.DataFrame, column: str, allowed: Sequence[str], origin: str) -> None:
    cells = text[column]
    wrong = cells.is_not_null() & ~cells.is_in(list(allowed))
    if wrong.any():
        value = cells[int(wrong.arg_true()[0])]
        _refuse(cells, wrong, f"allowed {' or '.join(map(repr, allowed))} ({nearest(value, allowed)})", origin)


def _check_skin_tone(text: pl.DataFrame, origin: str) -> None:
    scale, tone = text["skin_tone_scale"], text["skin_tone"]
    _refuse(scale, scale.is_null() & tone.is_not_null(), f"a skin_tone needs its scale: {', '.join(SKIN_TONE_SCALES)}", origin)
    _refuse(tone, tone.is_null() & scale.is_not_null(), "a skin_tone_scale stands beside a skin_tone only", origin)


def _ages(cells: pl.Series, origin: str) -> pl.Series:
    ages = cells.cast(pl.Float64, strict=False)
    outside = ages.is_null() | ages.is_nan() | (ages < 0) | (ages > MAX_AGE)
    _refuse(cells, cells.is_not_null() & outside, f"allowed is a number of years from 0 to {MAX_AGE}", origin)
    return ages


def _terms(cells: pl.Series, origin: str) -> pl.Series:
    """Cells of terms as lists; a lesion cell of ``none`` is the empty list."""
    tidy = cells.str.replace_all(r"\s*;\s*", ";")
    _refuse(cells, tidy.str.contains(r"^;|;;|;$"), "a term between two ';' is empty", origin)
    none = tidy.str.contains(r"(?i)(^|;)none(;|$)")
    if cells.name == "lesions":
        _refuse(cells, none & tidy.str.contains(";"), f"{_NOTHING_SEEN!r} cannot stand with other terms", origin)
        _refuse(cells, none & (tidy != _NOTHING_SEEN), f"that nothing was seen is written {_NOTHING_SEEN!r}", origin)
    else:
        _refuse(cells, none, f"{_NOTHING_SEEN!r} is no term here; leave the cell empty", origin)
    star = tidy.str.contains(r"(^|;)\*(;|$)")
    if cells.name == "lesions_unknown":
        _refuse(cells, star & (tidy != _ALL_OTHERS), "'*' stands alone: all terms that are not in lesions", origin)
    else:
        _refuse(cells, star, "'*' is allowed in lesions_unknown only", origin)
    empty = pl.lit([], dtype=pl.List(pl.String))
    cell = pl.col(cells.name)
    return (
        tidy.to_frame()
        .select(pl.when(cell == _NOTHING_SEEN).then(empty).otherwise(cell.str.split(";")))
        .to_series()
        .alias(cells.name)
    )


def _check_contradictions(photos: pl.DataFrame, origin: str) -> None:
    seen, unknown = (pl.col(name).list.eval(pl.element().str.to_lowercase()) for name in ("lesions", "lesions_unknown"))
    both = photos.select(seen.list.set_intersection(unknown).list.len() > 0).to_series()
    _refuse(photos["lesions_unknown"], both, "a term cannot be seen (in lesions) and not assessed (here) at once", origin)
