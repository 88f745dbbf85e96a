"""The audit of an atlas as a document: `audit.json`, which `predilect.atlas.examine` makes and reports show.

A number that is not defined is null. Lists of ids are sorted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from predilect.atlas.folder import Atlas
from predilect.errors import AtlasError
from predilect.files import read_json, write_json

__all__ = [
    "AUDIT_FILE",
    "Audit",
    "ClassCount",
    "Cluster",
    "Conflict",
    "CopyPair",
    "Duplicates",
    "Missing",
    "MissingByClass",
    "Owners",
    "Quality",
    "Rejected",
    "Resolution",
    "Spread",
    "audit_of",
    "audit_schema",
    "pixel_hash",
]

AUDIT_FILE = "audit.json"

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CopyPair(_Part):
    """Two photographs that are copies.

    Attributes:
        first: An image id.
        second: Another.
        kind: ``file``: the packed files have the same bytes; ``pixels``: the same decoded pixels; ``near``: confirmed on aligned
            pixels.
        distance: Differing signs of the two 64-bit fingerprints; null where none was needed.
        resemblance: Correlation of the aligned detail, in [-1, 1]; null where none was needed.
        orientation: How the first must be laid to look like the second.
    """

    first: str
    second: str
    kind: Literal["file", "pixels", "near"]
    distance: int | None
    resemblance: float | None
    orientation: str


class Conflict(_Part):
    """A label on which the photographs of a cluster disagree.

    Attributes:
        task: ``lesion`` or ``site``.
        name: The class.
        present: Image ids that have it.
        absent: Image ids that are known not to have it.
    """

    task: str
    name: str
    present: tuple[str, ...]
    absent: tuple[str, ...]


class Cluster(_Part):
    """Photographs joined by being copies of each other, or of a common one.

    Attributes:
        cluster: Its name, the smallest image id in it.
        image_ids: Two or more.
        n_pairs: Confirmed pairs in it. Fewer than all pairs: the cluster is a chain, or has several files of the same bytes.
        sources: Names of the sources.
        n_patients: Patients named in it; ids count within a source.
        n_lesions: Lesions named in it; likewise.
        joins_groups: Whether no id says that these photographs belong together: only the pixels do.
        conflicts: Labels on which they disagree.
    """

    cluster: str
    image_ids: tuple[str, ...]
    n_pairs: int
    sources: tuple[str, ...]
    n_patients: int
    n_lesions: int
    joins_groups: bool
    conflicts: tuple[Conflict, ...]


class Duplicates(_Part):
    """Copies among the photographs.

    Attributes:
        radius: Most differing signs of a candidate.
        cosine: Least cosine between the fingerprints' coefficients of a candidate.
        resemblance: Least correlation of the aligned detail of a confirmed pair.
        flat: Standard deviation of the luminance, in grey levels, below which only equal pixels were looked for.
        pairs: Confirmed ones; of several files of the same bytes only the pairs with the first.
        clusters: First those whose labels disagree, then those that join what no id joins, then the largest.
        n_photographs: In any cluster.
        largest: Photographs in the largest cluster; 0 without one.
        n_across_patients: Clusters that name several patients.
        n_across_lesions: Clusters that name several lesions.
        n_across_sources: Clusters of several sources.
        n_joining: Clusters that join what no id joins.
        n_conflicting: Clusters whose labels disagree.
    """

    radius: int
    cosine: float
    resemblance: float
    flat: float
    pairs: tuple[CopyPair, ...]
    clusters: tuple[Cluster, ...]
    n_photographs: int
    largest: int
    n_across_patients: int
    n_across_lesions: int
    n_across_sources: int
    n_joining: int
    n_conflicting: int


class ClassCount(_Part):
    """How often a class is known to be there.

    Attributes:
        task: ``lesion`` or ``site``.
        name: The class.
        machine_made: Whether a model, not a person, said so.
        present: Photographs.
        absent: Photographs.
        unknown: Photographs.
        patients: Named patients with it; null where no photograph of the atlas names one.
        groups: Groups with it; photographs that share a patient, a lesion, a consultation or pixels are one group.
    """

    task: str
    name: str
    machine_made: bool
    present: int
    absent: int
    unknown: int
    patients: int | None
    groups: int


class Missing(_Part):
    """What is not known, by source.

    Attributes:
        source: Its name, or null for the whole atlas.
        n: Photographs.
        missing: Of each field, the photographs without it.
    """

    source: str | None
    n: int
    missing: dict[str, int]


class MissingByClass(_Part):
    """What is not known of the photographs that show a class.

    Attributes:
        task: ``lesion`` or ``site``.
        name: The class.
        n: Photographs that show it.
        missing: Of each field, those of them without it.
    """

    task: str
    name: str
    n: int
    missing: dict[str, int]


class Spread(_Part):
    """A distribution; all null where nothing was measured.

    Attributes:
        n: Values.
        minimum: The least.
        p05: What 5 % are below.
        median: The middle one.
        p95: What 95 % are below.
        maximum: The greatest.
        mean: Their mean.
    """

    n: int
    minimum: float | None
    p05: float | None
    median: float | None
    p95: float | None
    maximum: float | None
    mean: float | None


class Owners(_Part):
    """Photographs per patient, per lesion or per group.

    Attributes:
        what: ``patient``, ``lesion`` or ``group``.
        n_without: Photographs without one.
        per_owner: Distribution of photographs over those that are named.
        histogram: How many have 1, 2, 3, ... photographs: pairs of both, ascending.
    """

    what: Literal["patient", "lesion", "group"]
    n_without: int
    per_owner: Spread
    histogram: tuple[tuple[int, int], ...]


class Resolution(_Part):
    """Sizes of the packed photographs, in pixels; packing has scaled larger ones down.

    Attributes:
        width: Its distribution.
        height: Its distribution.
        shorter_side: Its distribution.
        crop: The usual input of a network.
        below_crop: Photographs with a shorter side below it.
    """

    width: Spread
    height: Spread
    shorter_side: Spread
    crop: int
    below_crop: tuple[str, ...]


class Quality(_Part):
    """Sharpness and light, for a person to look at the worst.

    Attributes:
        scale: The shorter side, in pixels, at which was measured.
        sharpness: Variance of the Laplacian of the luminance, in squared grey levels; photographs smaller than the scale are not
            measured.
        sharpness_limit: Below it a photograph is listed: three scaled median absolute deviations below the median, on a logarithmic
            scale. None where few were measured.
        blurred: Photographs below it, the least sharp first, with their sharpness.
        uniform_below: Standard deviation of the luminance, in grey levels.
        uniform: Photographs below it.
        dark_below: Luminance that 95 % of the pixels do not exceed, 0 to 255.
        dark: Photographs below it.
        overexposed_from: Share of the pixels with a luminance of 250 and more.
        overexposed: Photographs at or above it.
    """

    scale: int
    sharpness: Spread
    sharpness_limit: float | None
    blurred: tuple[tuple[str, float], ...]
    uniform_below: float
    uniform: tuple[str, ...]
    dark_below: float
    dark: tuple[str, ...]
    overexposed_from: float
    overexposed: tuple[str, ...]


class Rejected(_Part):
    """What the import left out.

    Attributes:
        rejected: Rows with a reason in ``rejected.csv``.
        excluded: Rows left out on purpose.
        unlisted: Image files that no row names.
        reasons: Each reason with its rows, the most frequent first.
    """

    rejected: int
    excluded: int
    unlisted: int
    reasons: tuple[tuple[str, int], ...]


class Audit(_Part):
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
            AtlasError: If it is missing, damaged or of another schema version.
        """
        value = read_json(path, AtlasError)
        if value.get("schema_version") != SCHEMA_VERSION:
            raise AtlasError(
                f"{path}: found schema_version {value.get('schema_version')!r}, this version of Predilect reads {SCHEMA_VERSION}; "
                f"audit again"
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise AtlasError(f"{path}: {where}: {problem['msg']}; audit again") from error

    def write(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))

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
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Audit.model_json_schema(mode="serialization")}
