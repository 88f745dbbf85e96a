"""From a source's photographs with raw terms to an atlas folder, and to the same atlas under another taxonomy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from predilect.atlas.folder import (
    IMAGES,
    PACKED_COLUMNS,
    PHOTOS,
    REFINEMENT,
    REFINEMENT_FLAG,
    REJECTED,
    TAXONOMY,
    Atlas,
    Counts,
    describe,
)
from predilect.atlas.importers.imported import REJECTED_SCHEMA, Imported, Source
from predilect.atlas.pack import Packing, pack_images
from predilect.atlas.parts import has_parts, held, remove_parts
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.atlas.refine import Refined, refine
from predilect.errors import AtlasError, PredilectError, TooManyRejectedError
from predilect.files import check_place, replacing, replacing_folder, share_files
from predilect.labels.tasks import LESION, SITE
from predilect.labels.taxonomy import Taxonomy

__all__ = ["build_atlas", "packing_path", "rejected_path", "replay"]

_SHOWN_KINDS, _SHOWN_ROWS = 8, 3


def build_atlas(
    imported: Imported,
    taxonomy: Taxonomy,
    out: Path,
    *,
    max_rejected: int = 0,
    resume: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """Pack the images, refine the labels of those that could be packed, and write the atlas; all of it or nothing.

    What is packed is kept in `packing_path(out)` until the atlas is there, so that a process that is killed, or stopped by an
    error, loses little: the same call with `resume` goes on, and ends with the same atlas, byte for byte. Files that were changed
    meanwhile are packed again. Where it was killed when the atlas was in its place already, only what was left beside it is
    removed.

    Args:
        imported: What an importer found.
        taxonomy: How raw terms become classes.
        out: The folder to make; it must be absent or empty.
        max_rejected: So many rows may be left out because their image is missing or broken.
        resume: Go on with what such an import has packed before it was stopped; where there is nothing, start.
        on_progress: Called with (images done, images) while they are packed.

    Raises:
        TooManyRejectedError: If more rows than `max_rejected` are rejected. Nothing is left of the atlas; all reasons stand in the
            file `rejected_path(out)`. Rows whose image is missing are counted before any image is opened.
        AtlasError: If a carried column has a name of the atlas's own, or no photograph is left; if something is left of this import
            and `resume` is False, or of another one and it is True.
        LabelError: If a raw term is unknown; names its row in the source's table.
        PredilectError: If `out` exists, cannot be replaced or cannot be written.
        ValueError: If `max_rejected` is negative.
    """
    if max_rejected < 0:
        raise ValueError(f"max_rejected must not be negative, found {max_rejected}")
    check_place(out)
    _check_columns(imported)
    finished = resume and packing_path(out).exists() and _is_finished(imported, taxonomy, out)
    with held(packing_path(out)):
        if not finished:
            _build(imported, taxonomy, out, max_rejected=max_rejected, resume=resume, on_progress=on_progress)
        remove_parts(packing_path(out))  # now that the atlas is in its place
    rejected_path(out).unlink(missing_ok=True)  # of an import into the same folder that failed before
    return Atlas.open(out)


def replay(path: Path, taxonomy: Taxonomy) -> Atlas:
    """Refine an atlas anew under another taxonomy; its images and all other files stay as they are.

    Folds made before keep the hash of the atlas as it was, and are refused when they are used.

    Args:
        path: The atlas folder; it is replaced as a whole, or left as it was.
        taxonomy: How raw terms become classes.

    Raises:
        AtlasError: If there is no whole atlas at `path`.
        LabelError: If a raw term is unknown to the taxonomy.
        PredilectError: If the folder cannot be written.
    """
    check_place(path)
    atlas = Atlas.open(path)
    photos = atlas.raw()
    refined = refine(photos, taxonomy, assessed=_assessed(atlas.sources), origin=str(path / PHOTOS))
    with replacing_folder(path, replace=True) as folder:
        share_files(path, folder, but=(PHOTOS, TAXONOMY, REFINEMENT))  # images need not be copied
        _write(folder, photos, refined, taxonomy=taxonomy, sources=atlas.sources, counts=atlas.counts)
    return Atlas.open(path)


def packing_path(out: Path) -> Path:
    """Where an import into `out` keeps what it has packed until the atlas is there: ``.<out>-packing`` beside it."""
    target = out.resolve()
    return target.with_name(f".{target.name}-packing")


def rejected_path(out: Path) -> Path:
    """Where a failed import into `out` leaves the list of all rejected rows: ``<out>.rejected.csv``."""
    return out.with_name(out.name + ".rejected.csv")


def _check_columns(imported: Imported) -> None:
    own = {*PACKED_COLUMNS, REFINEMENT_FLAG}
    for name in imported.photos.columns:
        if name in own or name.startswith((f"{LESION}/", f"{SITE}/")):
            raise AtlasError(f"{imported.origin}: column {name!r} is one that the atlas makes itself; rename or remove it")


def _build(
    imported: Imported,
    taxonomy: Taxonomy,
    out: Path,
    *,
    max_rejected: int,
    resume: bool,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    with replacing_folder(out) as folder:
        _check_terms(imported, taxonomy)
        _check_rejected(imported.rejected, imported, out, max_rejected, when=", before any was opened")
        packing = pack_images(
            imported.photos["image_id"].to_list(),
            imported.photos["file_name"].to_list(),
            folder / IMAGES,
            root=imported.root,
            parts=packing_path(out),
            resume=resume,
            on_progress=on_progress,
        )
        rejected = pl.concat([imported.rejected, _broken(imported, packing)]).sort("row", maintain_order=True)
        _check_rejected(rejected, imported, out, max_rejected, kept=packing_path(out) if has_parts(packing_path(out)) else None)
        _write_packed(folder, imported, packing, rejected, taxonomy)


def _is_finished(imported: Imported, taxonomy: Taxonomy, out: Path) -> bool:
    """Whether the atlas of this import lies at `out` already: it was killed before it could clean up."""
    try:
        atlas = Atlas.open(out)
    except PredilectError:
        return False
    wanted, counts = set(imported.photos["image_id"]), atlas.counts
    return (
        wanted.issuperset(atlas.photos["image_id"])
        and counts.photos + counts.rejected == imported.photos.height + imported.rejected.height
        and (out / TAXONOMY).read_text(encoding="utf-8") == taxonomy.to_toml()
    )


def _check_terms(imported: Imported, taxonomy: Taxonomy) -> None:
    """Refine once before the long work, each photograph at its row in the source's table, so that an error can name it."""
    needed = imported.photos.select(PHOTO_SCHEMA.names()).with_columns(row=pl.Series(imported.rows))
    if needed.height:
        rows = pl.DataFrame({"row": pl.int_range(1, int(imported.rows.max()) + 1, eager=True)})
        refine(
            rows.join(needed, on="row", how="left", maintain_order="left"),
            taxonomy,
            assessed=_assessed(imported.sources),
            origin=imported.origin,
        )


def _check_rejected(
    rejected: pl.DataFrame, imported: Imported, out: Path, allowed: int, *, when: str = "", kept: Path | None = None
) -> None:
    if rejected.height <= allowed:
        return
    with replacing(rejected_path(out)) as temporary:
        rejected.write_csv(temporary)
    total = imported.photos.height + imported.rejected.height
    least = ", or more for what the rest may hold," if when else ""
    raise TooManyRejectedError(
        f"{imported.origin}: {rejected.height} of {total} rows are rejected for their images{when}, and {allowed} are allowed; nothing was "
        f"imported. {rejected_path(out)} lists them all; --max-rejected {rejected.height}{' --resume' if kept else ''}{least} goes "
        "on without them."
        + (f" What is packed of the others is kept in {kept} until then." if kept else "")
        + "".join(f"\n  {line}" for line in _reasons(rejected))
    )


def _reasons(rejected: pl.DataFrame) -> list[str]:
    """A line for each kind of reason, the most frequent first: how often, the reason, the first rows."""
    kinds = (
        rejected.with_columns(kind=pl.col("reason").str.extract(r"^(.*?)(?:: |$)"))
        .group_by("kind", maintain_order=True)
        .agg(
            pl.len(),
            rows=pl.format("row {}, {}", "row", "file").head(_SHOWN_ROWS),
            reason=pl.when(pl.col("reason").n_unique() == 1).then(pl.col("reason").first()),
        )
        .sort("len", descending=True, maintain_order=True)
    )
    lines = []
    for kind, n, rows, reason in kinds.head(_SHOWN_KINDS).iter_rows():
        more = f" and {n - _SHOWN_ROWS} more" if n > _SHOWN_ROWS else ""
        lines.append(f"{n} x {reason or kind}: {'; '.join(rows)}{more}")
    left = kinds["len"][_SHOWN_KINDS:].sum()
    return [*lines, f"and {left} for other reasons"] if left else lines


def _write_packed(folder: Path, imported: Imported, packing: Packing, rejected: pl.DataFrame, taxonomy: Taxonomy) -> None:
    """Write all but the images; plainly, since `replacing_folder` brings it to the disk before the atlas takes its place."""
    if packing.packed.is_empty():
        raise AtlasError(f"{imported.origin}: no photograph is left, {rejected.height} of its rows were rejected")
    photos = pl.concat([imported.photos[packing.packed["position"]], packing.packed.select(PACKED_COLUMNS)], how="horizontal")
    refined = refine(photos, taxonomy, assessed=_assessed(imported.sources), origin=imported.origin)
    rejected.write_csv(folder / REJECTED)
    counts = Counts(photos=photos.height, rejected=rejected.height, excluded=imported.n_excluded, unlisted=imported.n_unlisted)
    _write(folder, photos, refined, taxonomy=taxonomy, sources=imported.sources, counts=counts)


def _broken(imported: Imported, packing: Packing) -> pl.DataFrame:
    positions = packing.rejected["position"]
    return pl.DataFrame(
        {
            "file": imported.photos["file_name"][positions],
            "row": imported.rows[positions.to_numpy()],
            "reason": packing.rejected["reason"],
        },
        schema=REJECTED_SCHEMA,
    )


def _assessed(sources: Sequence[Source]) -> Mapping[str, frozenset[str]]:
    return {source.name: source.assessed for source in sources if source.assessed is not None}


def _write(
    folder: Path, photos: pl.DataFrame, refined: Refined, *, taxonomy: Taxonomy, sources: Sequence[Source], counts: Counts
) -> None:
    photos = pl.concat([photos, refined.table.drop("image_id")], how="horizontal")
    photos.write_parquet(folder / PHOTOS)
    (folder / TAXONOMY).write_text(taxonomy.to_toml(), encoding="utf-8")
    refined.log.write_csv(folder / REFINEMENT)
    describe(folder, photos, refined.labels, taxonomy=taxonomy.name, sources=sources, counts=counts)
