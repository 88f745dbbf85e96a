"""The parts of an audit, as `audit.json` holds them: see `predilect.atlas.audit`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ClassCount",
    "Cluster",
    "Conflict",
    "CopyPair",
    "Duplicates",
    "Missing",
    "MissingByClass",
    "Owners",
    "Part",
    "Quality",
    "Rejected",
    "Resolution",
    "Spread",
]


class Part(BaseModel):
    """What they have in common: nothing may be changed, added, or not a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CopyPair(Part):
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


class Conflict(Part):
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


class Cluster(Part):
    """Photographs joined by being copies of each other, or of a common one.

    Attributes:
        cluster: Its name, the smallest image id in it.
        image_ids: Two or more.
        n_pairs: Confirmed pairs in it. Fewer than all pairs: the cluster is a chain, or has several files of the same bytes or
            pixels.
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


class Duplicates(Part):
    """Copies among the photographs.

    Attributes:
        method: Version of the search, `predilect.atlas.near_duplicates.METHOD`.
        radius: Most differing signs of a candidate.
        cosine: Least cosine between the fingerprints' coefficients of a candidate.
        resemblance: Least correlation of the aligned detail of a confirmed pair.
        flat: Standard deviation of the luminance, in grey levels, below which only equal pixels were looked for.
        most: Candidates of one photograph that were compared; of more, the nearest.
        n_candidates: Pairs that were compared.
        crowded: Photographs with more candidates than `most`: copies among those that were not compared are missing here. Empty
            where all were compared.
        pairs: Confirmed ones; of several files of the same bytes or pixels only the pairs with the first.
        clusters: First those whose labels disagree, then those that join what no id joins, then the largest.
        n_photographs: In any cluster.
        largest: Photographs in the largest cluster; 0 without one.
        n_across_patients: Clusters that name several patients.
        n_across_lesions: Clusters that name several lesions.
        n_across_sources: Clusters of several sources.
        n_joining: Clusters that join what no id joins.
        n_conflicting: Clusters whose labels disagree.
    """

    method: int
    radius: int
    cosine: float
    resemblance: float
    flat: float
    most: int
    n_candidates: int
    crowded: tuple[str, ...]
    pairs: tuple[CopyPair, ...]
    clusters: tuple[Cluster, ...]
    n_photographs: int
    largest: int
    n_across_patients: int
    n_across_lesions: int
    n_across_sources: int
    n_joining: int
    n_conflicting: int


class ClassCount(Part):
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


class Missing(Part):
    """What is not known, by source.

    Attributes:
        source: Its name, or null for the whole atlas.
        n: Photographs.
        missing: Of each field, the photographs without it.
    """

    source: str | None
    n: int
    missing: dict[str, int]


class MissingByClass(Part):
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


class Spread(Part):
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


class Owners(Part):
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


class Resolution(Part):
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


class Quality(Part):
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


class Rejected(Part):
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
