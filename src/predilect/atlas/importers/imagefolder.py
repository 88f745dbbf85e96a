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
    by_source = photos.group_by("source").agg(
        pl.col("license").drop_nulls().unique().sort(), pl.len(), nameless=pl.col("patient_id").null_count()
    )
    return [
        Source(
            name=name,
            title=name,
            licence="; ".join(held) or "not stated",
            credit=f"as listed in {origin.name}",
            notes=(_nameless_note(name, nameless, n),) if nameless else (),
        )
        for name, held, n, nameless in by_source.sort("source").iter_rows()
    ]


def _nameless_note(source: str, nameless: int, n: int) -> str:
    # A lesion or a consultation holds fewer photographs together than a person does, so naming one of them does not silence this.
    return (
        f"No patient_id stands on {nameless:,} of {n:,} photographs of {source!r}: each of them counts as its own group unless it "
        "shares a lesion or a consultation, so intervals may be too narrow and scores too high."
    )
