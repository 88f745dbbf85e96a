"""Examine an atlas: copies, conflicts, gaps, counts, sizes, sharpness.

Cost: each photograph is read once and then decoded twice, at a small size. `predilect.atlas.near_duplicates` says what the search
for copies costs. The rest is counting, linear in photographs x classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from predilect.atlas.audit import AUDIT_FILE, Audit, pixel_hash
from predilect.atlas.audit_parts import Cluster, CopyPair, Duplicates
from predilect.atlas.candidates import COSINE, MOST, RADIUS
from predilect.atlas.fingerprints import ORIENTATION_NAMES
from predilect.atlas.folder import Atlas
from predilect.atlas.groups import connected_groups
from predilect.atlas.near_duplicates import FLAT, METHOD, RESEMBLANCE, NearDuplicates, duplicate_clusters, find_near_duplicates
from predilect.atlas.quality import measure_quality
from predilect.atlas.tallies import (
    class_counts,
    conflicts_of,
    missing_by_class,
    missing_by_source,
    photographs_per,
    quality_of,
    rejected_rows,
    resolution_of,
)
from predilect.errors import AtlasError

__all__ = ["Copies", "copies_of", "examine"]

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much of it is done."""

_SEARCH = {"method": METHOD, "radius": RADIUS, "cosine": COSINE, "resemblance": RESEMBLANCE, "flat": FLAT, "most": MOST}


@dataclass(frozen=True, eq=False, slots=True)
class Copies:
    """Which photographs of an atlas are copies.

    Attributes:
        clusters: Rows of `image_id` and `cluster`, as `predilect.atlas.splits.make_splits` takes them.
        crowded: Ids of the photographs that were compared with the nearest only of their look-alikes, so that copies of them may be
            missing; see `predilect.atlas.near_duplicates.NearDuplicates`.
    """

    clusters: pl.DataFrame
    crowded: tuple[str, ...]


def examine(atlas: Atlas, *, on_progress: OnProgress | None = None) -> Audit:
    """Audit an atlas.

    Args:
        atlas: It is only read.
        on_progress: Told how far the three passes over the photographs are.

    Raises:
        AtlasError: If the packed images cannot be read, or one is damaged.
    """
    photos = atlas.photos
    atlas.check_images(_named("checking the images", on_progress))
    with atlas.images() as images:
        found = find_near_duplicates(images, photos["sha256"].to_list(), on_progress=_named("looking for copies", on_progress))
        quality = measure_quality(images, on_progress=_named("measuring sharpness", on_progress))
    clusters = duplicate_clusters(found.pairs, photos["image_id"].to_list())
    groups = pl.Series("group", connected_groups(photos, clusters).tolist(), dtype=pl.String)
    return Audit(
        atlas=atlas.path.resolve().name,
        content_hash=atlas.content_hash,
        pixel_hash=pixel_hash(photos),
        n_photographs=photos.height,
        duplicates=_duplicates(atlas, found, clusters),
        classes=class_counts(photos, atlas.labels, groups),
        missing=missing_by_source(photos),
        missing_by_class=missing_by_class(photos, atlas.labels),
        owners=photographs_per(photos, groups),
        resolution=resolution_of(photos),
        quality=quality_of(photos["image_id"], quality),
        rejected=rejected_rows(atlas),
    )


def copies_of(atlas: Atlas, *, on_progress: OnProgress | None = None) -> Copies:
    """The copies among the photographs of an atlas: from its ``audit.json``, else looked for.

    An audit counts if it is of these photographs and was made by this method with these limits, whatever became of the labels.

    Args:
        atlas: It is only read.
        on_progress: Told how much is done, if they are looked for.

    Raises:
        AtlasError: If the packed images or the audit cannot be read, or an image is damaged.
    """
    atlas.check_images(_named("checking the images", on_progress))  # an audit may be older than the damage
    path = atlas.path / AUDIT_FILE
    if path.is_file():
        audit = Audit.read(path)
        made_by = audit.duplicates.model_dump(include=set(_SEARCH))
        if audit.pixel_hash == pixel_hash(atlas.photos) and made_by == _SEARCH:
            return Copies(audit.clusters(), audit.duplicates.crowded)
    names = atlas.photos["image_id"]
    with atlas.images() as images:
        found = find_near_duplicates(
            images, atlas.photos["sha256"].to_list(), on_progress=_named("looking for copies", on_progress)
        )
    return Copies(duplicate_clusters(found.pairs, names.to_list()), _crowded(names, found))


def _named(what: str, on_progress: OnProgress | None) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(what, done, total)


def _crowded(image_ids: pl.Series, found: NearDuplicates) -> tuple[str, ...]:
    return tuple(image_ids.gather(found.crowded).sort())


def _duplicates(atlas: Atlas, found: NearDuplicates, clusters: pl.DataFrame) -> Duplicates:
    names, pairs = atlas.photos["image_id"], found.pairs
    listed = pairs.with_columns(first=names.gather(pairs["first"]), second=names.gather(pairs["second"]))
    described = _clusters(atlas, listed, clusters)
    return Duplicates(
        **_SEARCH,
        n_candidates=found.n_candidates,
        crowded=_crowded(names, found),
        pairs=tuple(
            CopyPair.model_validate(row | {"orientation": ORIENTATION_NAMES[row["orientation"]]})
            for row in listed.sort("first", "second").iter_rows(named=True)
        ),
        clusters=described,
        n_photographs=clusters.height,
        largest=max((len(cluster.image_ids) for cluster in described), default=0),
        n_across_patients=sum(cluster.n_patients > 1 for cluster in described),
        n_across_lesions=sum(cluster.n_lesions > 1 for cluster in described),
        n_across_sources=sum(len(cluster.sources) > 1 for cluster in described),
        n_joining=sum(cluster.joins_groups for cluster in described),
        n_conflicting=sum(bool(cluster.conflicts) for cluster in described),
    )


def _clusters(atlas: Atlas, pairs: pl.DataFrame, clusters: pl.DataFrame) -> tuple[Cluster, ...]:
    by_ids = pl.Series("by_ids", connected_groups(atlas.photos).tolist(), dtype=pl.String)
    members = clusters.join(atlas.photos.with_columns(by_ids), on="image_id", how="left", maintain_order="left")
    if members["source"].null_count():
        raise AtlasError(f"{atlas.path}: a cluster names a photograph that the atlas lacks")
    n_pairs = dict(pairs.join(clusters, left_on="first", right_on="image_id").group_by("cluster").len().iter_rows())
    found = []
    for (name,), part in members.group_by("cluster", maintain_order=True):
        found.append(
            Cluster(
                cluster=str(name),
                image_ids=tuple(part["image_id"]),
                n_pairs=n_pairs[name],
                sources=tuple(part["source"].unique().sort()),
                n_patients=part.select("source", "patient_id").drop_nulls().n_unique(),
                n_lesions=part.select("source", "lesion_id").drop_nulls().n_unique(),
                joins_groups=part["by_ids"].n_unique() > 1,
                conflicts=conflicts_of(part, atlas.labels),
            )
        )
    return tuple(sorted(found, key=_urgency))


def _urgency(cluster: Cluster) -> tuple[bool, bool, int, str]:
    return not cluster.conflicts, not cluster.joins_groups, -len(cluster.image_ids), cluster.cluster
