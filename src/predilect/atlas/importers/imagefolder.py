"""A folder of one's own: images and a manifest ``metadata.csv`` or ``metadata.parquet`` beside them (Hugging Face's ImageFolder)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from predilect.atlas.importers.imported import Imported, Source, gather
from predilect.atlas.manifest import read_manifest
from predilect.errors import AtlasError

__all__ = ["MANIFEST_NAMES", "read"]

MANIFEST_NAMES = ("metadata.csv", "metadata.parquet")


def read(root: Path) -> Imported:
    """Read a folder of images with a manifest.

    Args:
        root: The folder that holds one of `MANIFEST_NAMES`, or a manifest of any name; `file_name` is relative to its folder.

    Raises:
        AtlasError: If there is no manifest or more than one, or it breaks its contract.
    """
    origin = _manifest(root)
    photos = read_manifest(origin)
    return gather(photos, origin.parent, origin, sources=_sources(photos, origin), taxonomy="as-is")


def _manifest(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise AtlasError(f"{root}: there is no such folder or manifest")
    found = [root / name for name in MANIFEST_NAMES if (root / name).is_file()]
    if len(found) != 1:
        which = "holds both" if found else "holds neither"
        raise AtlasError(
            f"{root} {which} {' nor '.join(MANIFEST_NAMES) if not found else ' and '.join(MANIFEST_NAMES)}; it needs one"
        )
    return found[0]


def _sources(photos: pl.DataFrame, origin: Path) -> list[Source]:
    licences = photos.group_by("source").agg(pl.col("license").drop_nulls().unique().sort()).sort("source")
    return [
        Source(name=name, title=name, licence="; ".join(held) or "not stated", credit=f"as listed in {origin.name}")
        for name, held in licences.iter_rows()
    ]
