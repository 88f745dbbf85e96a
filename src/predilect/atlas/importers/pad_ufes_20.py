"""PAD-UFES-20: 2,298 smartphone photographs of 1,641 lesions of 1,373 patients (Mendeley Data zr7vgbcyr2, CC BY 4.0)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from predilect.atlas.importers.imported import Imported, Source, check_cells, find_table, gather

__all__ = ["DIAGNOSES", "read"]

DIAGNOSES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")

_COLUMNS = ("patient_id", "lesion_id", "age", "gender", "fitspatrick", "region", "diagnostic", "img_id")

_SOURCE = Source(
    name="pad-ufes-20",
    title="PAD-UFES-20",
    licence="CC BY 4.0",
    credit="Pacheco et al., PAD-UFES-20: a skin lesion dataset composed of patient data and clinical images collected from "
    "smartphones, Data in Brief 32 (2020), doi:10.17632/zr7vgbcyr2",
    notes=("The six diagnoses stand in for lesion types, which the paper sets apart from diagnoses.",),
    assessed=frozenset(DIAGNOSES),
)


def read(root: Path) -> Imported:
    """Read PAD-UFES-20.

    Args:
        root: A folder that holds ``metadata.csv`` and the images, at any depth; images are found by stem, with any ending.

    Raises:
        AtlasError: If the table is missing or holds something else than published.
    """
    origin, table = find_table(root, "metadata.csv", _COLUMNS)
    diagnosis = pl.col("diagnostic")
    check_cells(table, "img_id", pl.col("img_id").is_not_null(), "is the name of an image", origin)
    check_cells(table, "diagnostic", diagnosis.is_in(DIAGNOSES).fill_null(value=False), f"are {', '.join(DIAGNOSES)}", origin)
    tone = pl.col("fitspatrick").cast(pl.Float64, strict=False)
    good = tone.is_in([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).fill_null(value=False) | pl.col("fitspatrick").is_null()
    check_cells(table, "fitspatrick", good, "are 1.0 to 6.0 and an empty cell", origin)
    cells = table.select(
        file_name="img_id",
        lesions="diagnostic",
        site="region",
        patient_id="patient_id",
        lesion_id="lesion_id",
        modality=pl.lit("clinical"),
        skin_tone=tone.cast(pl.Int64).cast(pl.String),
        skin_tone_scale=pl.when(tone.is_not_null()).then(pl.lit("fitzpatrick")),
        age="age",
        sex="gender",
        source=pl.lit(_SOURCE.name),
        license=pl.lit(_SOURCE.licence),
    )
    return gather(cells, root, origin, sources=[_SOURCE], taxonomy="pad-ufes-20")
