"""MILK10k: 5,240 lesions, each with a clinical close-up and a dermoscopic image (ISIC Archive, doi:10.34970/648456).

Skin tone: the publisher's scale runs from 0 (very dark) to 5 (very light), made so as not to be mistaken for Fitzpatrick's types
(challenge.isic-archive.com/landing/milk10k). The photographs agree: the median lightness CIE L* of the borders of up to 120
close-ups per class is 37, 43, 56, 56, 66 and 73 for classes 0 to 5, and the median individual typology angle -33, -20, 15, 14,
43 and 56 degrees (Spearman's rho of class and L* over the 570: 0.78). So it is the opposite of Fitzpatrick's direction, and its
name here is ``other``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from predilect.atlas.importers.imported import Imported, Source, check_cells, find_table, gather

__all__ = ["DIAGNOSES", "MACHINE_TERMS", "MONET_THRESHOLD", "read"]

DIAGNOSES = ("AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC")
MACHINE_TERMS = ("MONET_ulceration_crust", "MONET_erythema", "MONET_pigmented")
"""Raw terms made from the scores of a model, MONET, of which the tables hold seven; the others are no lesions."""

MONET_THRESHOLD = 0.5

_METADATA = "MILK10k_Training_Metadata.csv"
_TRUTH = "MILK10k_Training_GroundTruth.csv"
_KINDS = {"close-up": "clinical: close-up", "dermoscopic": "dermoscopic"}
_COLUMNS = ("lesion_id", "image_type", "isic_id", "copyright_license", "age_approx", "sex", "skin_tone_class", "site")

_NOTES = (
    "The eleven diagnoses stand in for lesion types, which the paper sets apart from diagnoses.",
    "There is no patient id: the lesion is the group, so the intervals may be too narrow.",
    "Skin tone runs from 0 (very dark) to 5 (very light), against the direction of Fitzpatrick's types.",
)
_MACHINE_NOTE = "The attributes MONET_* are scores of a model, MONET (Kim et al., Nature Medicine 2024), thresholded at 0.5: machine-made labels."


def read(root: Path, *, images: Literal["close-up", "dermoscopic", "all"] = "close-up", monet: bool = False) -> Imported:
    """Read the MILK10k training set.

    Args:
        root: A folder that holds both tables and the images, at any depth.
        images: Which kind of image to take; the others are excluded, not rejected.
        monet: Whether to add the machine-made raw terms `MACHINE_TERMS` where their score is at least `MONET_THRESHOLD`.

    Raises:
        AtlasError: If a table is missing or holds something else than published.
        ValueError: If `images` is none of the three.
    """
    if images not in (*_KINDS, "all"):
        raise ValueError(f"images must be 'close-up', 'dermoscopic' or 'all', not {images!r}")
    origin, table = find_table(root, _METADATA, (*_COLUMNS, *(MACHINE_TERMS if monet else ())))
    table = table.with_row_index("row").join(_diagnoses(root), on="lesion_id", how="left", maintain_order="left")
    check_cells(table, "isic_id", pl.col("isic_id").is_not_null(), "is the name of an image", origin)
    check_cells(
        table, "image_type", pl.col("image_type").is_in(list(_KINDS.values())).fill_null(value=False), _either(_KINDS), origin
    )
    check_cells(table, "skin_tone_class", pl.col("skin_tone_class").is_in(list("012345")), "is 0 to 5", origin)
    machine = MACHINE_TERMS if monet else ()
    for term in machine:
        check_cells(
            table, term, pl.col(term).cast(pl.Float64, strict=False).is_between(0, 1).fill_null(value=False), "is a score", origin
        )
    seen = [pl.when(pl.col(term).cast(pl.Float64) >= MONET_THRESHOLD).then(pl.lit(term)) for term in machine]
    diagnosed = pl.col("diagnosis").is_not_null()
    unknown = pl.lit(";".join(DIAGNOSES) if monet else None, dtype=pl.String)
    terms = pl.concat_str("diagnosis", *seen, separator=";", ignore_nulls=True)
    cells = table.select(
        file_name=pl.col("isic_id") + ".jpg",
        # Where there is no diagnosis, none of the codes was assessed; machine-made terms are known all the same.
        lesions=pl.when(terms != "").then(terms).when(pl.lit(monet)).then(pl.lit("none")),
        lesions_unknown=pl.when(~diagnosed).then(unknown),
        site="site",
        lesion_id="lesion_id",
        modality=pl.when(pl.col("image_type") == "dermoscopic").then(pl.lit("dermoscopic")).otherwise(pl.lit("clinical")),
        skin_tone="skin_tone_class",
        skin_tone_scale=pl.when(pl.col("skin_tone_class").is_not_null()).then(pl.lit("other")),
        age="age_approx",
        sex="sex",
        source=pl.lit("milk10k"),
        license="copyright_license",
    )
    wanted = None if images == "all" else table["image_type"] == _KINDS[images]
    source = Source(
        name="milk10k",
        title="MILK10k training set",
        licence="CC BY-NC 4.0",
        credit="MILK study team. MILK10k. ISIC Archive, 2025. doi:10.34970/648456",
        notes=(*_NOTES, _MACHINE_NOTE) if monet else _NOTES,
        assessed=frozenset((*DIAGNOSES, *machine)),
    )
    return gather(cells, root, origin, sources=[source], taxonomy="milk10k", wanted=wanted)


def _diagnoses(root: Path) -> pl.DataFrame:
    """The one-hot truth as columns `lesion_id` and `diagnosis`."""
    origin, truth = find_table(root, _TRUTH, ("lesion_id", *DIAGNOSES))
    check_cells(truth, "lesion_id", pl.col("lesion_id").is_first_distinct(), "is each lesion once", origin)
    for code in DIAGNOSES:
        cell = pl.col(code).cast(pl.Float64, strict=False)
        check_cells(truth, code, cell.is_in([0.0, 1.0]).fill_null(value=False), "are 0.0 and 1.0", origin)
    ones = pl.sum_horizontal(pl.col(*DIAGNOSES).cast(pl.Float64))
    check_cells(truth, "lesion_id", ones == 1, "is a lesion with exactly one diagnosis in its row", origin)
    named = [pl.when(pl.col(code).cast(pl.Float64) == 1).then(pl.lit(code)) for code in DIAGNOSES]
    return truth.select("lesion_id", diagnosis=pl.coalesce(*named))


def _either(kinds: dict[str, str]) -> str:
    return "are " + " and ".join(map(repr, kinds.values()))
