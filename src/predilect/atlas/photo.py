"""One photograph and what is known of it, and the table that holds many of them.

The table is what moves through the house (a million rows are no burden to it); a `Photo` is one row, checked when made, for
code that deals with single photographs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import polars as pl

__all__ = ["MODALITIES", "PHOTO_SCHEMA", "SKIN_TONE_SCALES", "Modality", "Photo", "SkinToneScale", "photo_table"]

Modality = Literal["clinical", "dermoscopic"]
SkinToneScale = Literal["fitzpatrick", "monk", "other"]
MODALITIES: tuple[str, ...] = get_args(Modality)
SKIN_TONE_SCALES: tuple[str, ...] = get_args(SkinToneScale)

PHOTO_SCHEMA = pl.Schema(
    {
        "image_id": pl.String(),
        "file_name": pl.String(),
        "lesions": pl.List(pl.String()),
        "lesions_unknown": pl.List(pl.String()),
        "site": pl.List(pl.String()),
        "patient_id": pl.String(),
        "lesion_id": pl.String(),
        "case_id": pl.String(),
        "modality": pl.String(),
        "skin_tone": pl.String(),
        "skin_tone_scale": pl.String(),
        "age": pl.Float64(),
        "sex": pl.String(),
        "source": pl.String(),
        "license": pl.String(),
    }
)
"""Columns of a table of photographs, raw terms as their source wrote them; see `Photo` for what each holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photograph with raw terms, as an importer found it.

    Attributes:
        image_id: Unique in its table.
        file_name: Path relative to the root that was imported, with ``/``.
        lesions: Raw lesion terms that were seen; ``()`` means looked for and none seen, None means not annotated.
        lesions_unknown: Raw terms that were not assessed here; ``("*",)`` is all that are not in `lesions`.
        site: Raw body sites; usually one, ``()`` or None where not annotated.
        patient_id: The person, unique within `source`.
        lesion_id: The lesion, unique within `source`; several photographs may show it.
        case_id: Photographs of one consultation.
        modality: ``"clinical"`` or ``"dermoscopic"``.
        skin_tone: Value on `skin_tone_scale`, as written by the source.
        skin_tone_scale: ``"fitzpatrick"``, ``"monk"`` or ``"other"``.
        age: In years.
        sex: As written by the source.
        source: The data set it comes from.
        license: The licence of this photograph.

    Raises:
        ValueError: If a required field is empty, or a value is not one of those allowed.
    """

    image_id: str
    file_name: str
    lesions: tuple[str, ...] | None = None
    lesions_unknown: tuple[str, ...] | None = None
    site: tuple[str, ...] | None = None
    patient_id: str | None = None
    lesion_id: str | None = None
    case_id: str | None = None
    modality: Modality | None = None
    skin_tone: str | None = None
    skin_tone_scale: SkinToneScale | None = None
    age: float | None = None
    sex: str | None = None
    source: str = "unnamed"
    license: str | None = None

    def __post_init__(self) -> None:
        if not self.image_id or not self.file_name or not self.source:
            raise ValueError("image_id, file_name and source must not be empty")
        if self.modality is not None and self.modality not in MODALITIES:
            raise ValueError(f"modality {self.modality!r} is not one of {MODALITIES}")
        if self.skin_tone_scale is not None and self.skin_tone_scale not in SKIN_TONE_SCALES:
            raise ValueError(f"skin_tone_scale {self.skin_tone_scale!r} is not one of {SKIN_TONE_SCALES}")
        if (self.skin_tone is None) != (self.skin_tone_scale is None):
            raise ValueError("skin_tone and skin_tone_scale are given together or not at all")
        for terms in (self.lesions, self.lesions_unknown, self.site):
            if terms and any(not term or ";" in term or term.lower() == "none" for term in terms):
                raise ValueError(f"terms are not empty, not 'none', and hold no ';': {terms}")


def photo_table(photos: Iterable[Photo]) -> pl.DataFrame:
    """The photographs as a table with the columns of `PHOTO_SCHEMA`."""
    assert [field.name for field in fields(Photo)] == PHOTO_SCHEMA.names()
    return pl.DataFrame([asdict(photo) for photo in photos], schema=PHOTO_SCHEMA)
