"""HAM10000: 10,015 dermoscopic images of 7,470 lesions (Harvard Dataverse DBW86T, CC BY-NC 4.0)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from predilect.atlas.importers.imported import Imported, Source, check_cells, find_table, gather

__all__ = ["DIAGNOSES", "read"]

DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")

_COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex", "localization")
_UNKNOWN = "unknown"

_SOURCE = Source(
    name="ham10000",
    title="HAM10000",
    licence="CC BY-NC 4.0",
    credit="Tschandl, Rosendahl and Kittler, The HAM10000 dataset, a large collection of multi-source dermatoscopic images of "
    "common pigmented skin lesions, Scientific Data 5 (2018), doi:10.7910/DVN/DBW86T",
    notes=(
        "The seven diagnoses stand in for lesion types, which the paper sets apart from diagnoses.",
        "All images are dermoscopic: they show a lesion's structure and little of the body site around it.",
        "There is no patient id: the lesion is the group, so the intervals may be too narrow.",
    ),
    assessed=frozenset(DIAGNOSES),
)


def read(root: Path) -> Imported:
    """Read HAM10000.

    Args:
        root: A folder that holds ``HAM10000_metadata.csv`` and the images, at any depth (they come in two parts).

    Raises:
        AtlasError: If the table is missing or holds something else than published.
    """
    origin, table = find_table(root, "HAM10000_metadata.csv", _COLUMNS)
    check_cells(table, "image_id", pl.col("image_id").is_not_null(), "is the name of an image", origin)
    check_cells(table, "dx", pl.col("dx").is_in(DIAGNOSES).fill_null(value=False), f"are {', '.join(DIAGNOSES)}", origin)
    cells = table.select(
        file_name=pl.col("image_id") + ".jpg",
        lesions="dx",
        site=pl.when(pl.col("localization") != _UNKNOWN).then("localization"),
        lesion_id="lesion_id",
        modality=pl.lit("dermoscopic"),
        age="age",
        sex=pl.when(pl.col("sex") != _UNKNOWN).then("sex"),
        source=pl.lit(_SOURCE.name),
        license=pl.lit(_SOURCE.licence),
    )
    return gather(cells, root, origin, sources=[_SOURCE], taxonomy="ham10000")
