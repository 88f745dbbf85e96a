"""The audit of an atlas as a document: `audit.json`, which `predilect.atlas.examine` makes and reports show.

A number that is not defined is null. Lists of ids are sorted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import ConfigDict, ValidationError

from predilect.atlas.audit_parts import (
    ClassCount,
    Duplicates,
    Missing,
    MissingByClass,
    Owners,
    Part,
    Quality,
    Rejected,
    Resolution,
)
from predilect.atlas.folder import Atlas
from predilect.errors import AtlasError
from predilect.files import is_sealed, read_json, seal, write_json

__all__ = [
    "AUDIT_FILE",
    "Audit",
    "audit_of",
    "audit_schema",
    "pixel_hash",
]

AUDIT_FILE = "audit.json"
_AGAIN = "make it again with: predilect audit ATLAS"

SCHEMA_VERSION = 1


class Audit(Part):
    """What `audit.json` holds.

    Attributes:
        schema_version: Raised when a field changes its meaning or goes.
        atlas: Name of the atlas folder.
        content_hash: Of the atlas as it was audited.
        pixel_hash: See `pixel_hash`: while it stays, so do the duplicates, whatever became of the labels.
        n_photographs: In the atlas.
        duplicates: Copies among them.
        classes: How often each class is there.
        missing: By source, the whole atlas first.
        missing_by_class: For each class.
        owners: Photographs per patient, per lesion and per group.
        resolution: Sizes.
        quality: Sharpness and light.
        rejected: What the import left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, title="Predilect audit")

    schema_version: Literal[1] = 1
    atlas: str
    content_hash: str
    pixel_hash: str
    n_photographs: int
    duplicates: Duplicates
    classes: tuple[ClassCount, ...]
    missing: tuple[Missing, ...]
    missing_by_class: tuple[MissingByClass, ...]
    owners: tuple[Owners, ...]
    resolution: Resolution
    quality: Quality
    rejected: Rejected

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an `audit.json`.

        Raises:
            AtlasError: If it is missing, damaged, changed by hand or of another schema version.
        """
        value = read_json(path, AtlasError, _AGAIN)
        if value.get("schema_version") != SCHEMA_VERSION:
            raise AtlasError(
                f"{path}: found schema_version {value.get('schema_version')!r}, this version of Predilect reads {SCHEMA_VERSION}; "
                f"{_AGAIN}"
            )
        if not is_sealed(value):
            raise AtlasError(f"{path} is not what was written (its sha256 does not fit its content); {_AGAIN}")
        try:
            return cls.model_validate({key: item for key, item in value.items() if key != "sha256"})
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise AtlasError(f"{path}: {where}: {problem['msg']}; {_AGAIN}") from error

    def write(self, path: Path) -> None:
        """Write it as JSON under a seal, atomically."""
        write_json(path, seal(self.model_dump(mode="json")))

    def clusters(self) -> pl.DataFrame:
        """Rows of `image_id` and `cluster`, as `predilect.atlas.splits.make_splits` takes them."""
        rows = [(image_id, cluster.cluster) for cluster in self.duplicates.clusters for image_id in cluster.image_ids]
        return pl.DataFrame(rows, schema={"image_id": pl.String, "cluster": pl.String}, orient="row")


def audit_of(atlas: Atlas) -> Audit | None:
    """The audit that lies in an atlas; None without one, or where photographs or labels have changed since.

    Raises:
        AtlasError: If it is damaged.
    """
    path = atlas.path / AUDIT_FILE
    audit = Audit.read(path) if path.is_file() else None
    return audit if audit is not None and audit.content_hash == atlas.content_hash else None


def pixel_hash(photos: pl.DataFrame) -> str:
    """What identifies the photographs of an atlas, whatever their labels.

    It is the SHA-256, in hexadecimal, of a line for each photograph: its id, a tab, the packed JPEG's SHA-256 and a line feed.

    Args:
        photos: N rows with `image_id` and `sha256`.
    """
    lines = photos.select(pl.format("{}\t{}\n", "image_id", "sha256")).to_series()
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def audit_schema() -> dict[str, Any]:
    """The JSON Schema of `audit.json`; a copy is stored in ``report/schemas/audit.schema.json``."""
    schema = Audit.model_json_schema(mode="serialization")
    schema["properties"]["sha256"] = {"description": "Seal over the rest", "pattern": "^[0-9a-f]{64}$", "type": "string"}
    schema["required"].append("sha256")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
