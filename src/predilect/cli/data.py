"""`predilect import`, `predilect refine` and `predilect split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.audit import AUDIT_FILE, audit_of
from predilect.atlas.balance import balance_table
from predilect.atlas.build import build_atlas, packing_path, replay
from predilect.atlas.candidates import MOST
from predilect.atlas.examine import copies_of
from predilect.atlas.folder import PACKED_COLUMNS, REFINEMENT, REFINEMENT_FLAG, TAXONOMY, Atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.parts import has_parts
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.atlas.splits import Splits, make_splits
from predilect.atlas.terms import too_rare
from predilect.cli.show import Seed, console, counting, counting_each, print_table
from predilect.errors import AtlasError, SplitError, nearest
from predilect.files import try_file
from predilect.labels.tasks import LESION
from predilect.labels.taxonomy import Taxonomy
from predilect.report.audit_page import LONG_CHAIN, crowding, few
from predilect.report.wording import many
from predilect.tables import read_csv

__all__ = ["SPLITS_FILE", "import_command", "note_stale_audit", "refine_command", "split_atlas", "split_command", "splits_of"]

SPLITS_FILE = "splits.parquet"

_SHOWN_DROPPED = 12
_SHORT = {"label": "", "largest_deviation": "worst"}


def import_command(
    source: str,
    root: Path,
    /,
    *,
    out: Path,
    taxonomy: str | None = None,
    max_rejected: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    images: Literal["close-up", "dermoscopic", "all"] | None = None,
    monet: Annotated[bool, Parameter(negative="")] = False,
    resume: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Read photographs with labels into an atlas: refined, packed, every rejected row explained.

    A folder of your own needs a metadata.csv beside the photographs; docs/formats.md lists its columns.

    Example: `predilect import imagefolder photographs/ --out atlases/clinic`

    Args:
        source: imagefolder, milk10k, pad-ufes-20 or ham10000.
        root: The folder that holds its tables and photographs.
        out: The atlas folder to make.
        taxonomy: A preset (as-is, milk10k, pad-ufes-20, ham10000, dermquest, drawn) or a .toml file; by default the source's own.
        max_rejected: How many rows may be left out because their photograph is missing or unreadable.
        images: Of milk10k: which kind of photograph; by default close-up.
        monet: Of milk10k: add three attributes that a model made, marked as machine-made.
        resume: Go on with an import into the same folder that was stopped; what was packed is not packed again.
    """
    if source not in SOURCES:
        raise AtlasError(f"there is no source {source!r}: {nearest(source, SOURCES)}")
    options = {**({"images": images} if images else {}), **({"monet": True} if monet else {})}
    if options and source != "milk10k":
        raise AtlasError(f"--{next(iter(options))} belongs to the source milk10k, not to {source}")
    imported = SOURCES[source](root, **options)
    chosen = Taxonomy.open(taxonomy or imported.taxonomy)
    left, finished = has_parts(packing_path(out)), (out / "atlas.json").exists() and packing_path(out).exists()
    with counting("packing") as tell:
        atlas = build_atlas(imported, chosen, out, max_rejected=max_rejected, resume=resume, on_progress=tell)
    if left and not resume:
        console.print("replaced  what was left of another import into this folder, which was stopped")
    if resume and finished:
        console.print("resume    the import was finished: only what it had left beside the atlas was removed")
    elif resume and not left:
        console.print("resume    there was nothing to resume: all of it was packed now")
    _print_atlas(atlas)


def refine_command(atlas: Path, /, *, taxonomy: str) -> None:
    """Refine the raw terms of an atlas again, with another taxonomy; its photographs stay as they are.

    What became of each raw term is in ATLAS/refinement.csv. Folds made before belong to the old labels: split again.

    Example: `predilect refine atlases/clinic --taxonomy my-terms.toml`

    Args:
        atlas: The atlas folder.
        taxonomy: A preset (as-is, milk10k, pad-ufes-20, ham10000, dermquest, drawn) or a .toml file.
    """
    _print_atlas(replay(atlas, Taxonomy.open(taxonomy)))


def split_command(
    atlas: Path,
    /,
    *,
    folds: Annotated[int, Parameter(validator=Number(gte=2))] = 5,
    tuning: Annotated[float, Parameter(validator=Number(gte=0, lt=1))] = 0.0,
    seed: Seed = 0,
) -> None:
    """Split an atlas into folds that no patient, lesion, consultation or copy crosses, balanced in every label.

    Copies of a photograph are taken from ATLAS/audit.json, or looked for where it has not been audited.

    Example: `predilect split atlases/clinic --folds 5 --tuning 0.1`

    Args:
        atlas: The atlas folder.
        folds: How many equal folds to test on.
        tuning: Share of the photographs set apart for choosing recipes (fold -1), never tested.
        seed: Decides between groups that are alike.
    """
    opened = Atlas.open(atlas)
    split_atlas(opened, folds=folds, tuning=tuning, seed=seed)
    splits = splits_of(opened)
    table = balance_table(splits, opened.photos, opened.labels.columns)
    rows = [
        ["—" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        for row in table.rows()
    ]
    print_table(
        "Folds: photographs in which each class is present, and the worst deviation from their mean",
        [_SHORT.get(name, name.removeprefix("fold ")) for name in table.columns],
        rows,
    )
    console.print(f"folds     {opened.path / SPLITS_FILE}")


def split_atlas(atlas: Atlas, *, folds: int, tuning: float = 0.0, seed: int = 0) -> Splits:
    """Split an atlas and keep the folds in its folder; say how many clusters of copies join what no id joins.

    Raises:
        AtlasError: If the packed images or an audit cannot be read.
        SplitError: If there are too few groups or a setting is out of its range.
        DiskError: If the folds cannot be written, which is tried before copies are looked for.
    """
    try_file(atlas.path / SPLITS_FILE)
    with counting_each() as tell:
        copies = copies_of(atlas, on_progress=tell)
    splits = make_splits(
        atlas.photos,
        atlas.labels.columns,
        folds=folds,
        tuning=tuning,
        seed=seed,
        near_duplicates=copies.clusters,
        crowded=len(copies.crowded),
        content_hash=atlas.content_hash,
    )
    splits.write(atlas.path / SPLITS_FILE)
    clusters = copies.clusters["cluster"].n_unique()
    console.print(
        f"copies    {many(clusters, 'cluster')} of copies with {many(copies.clusters.height, 'photograph')}; {splits.clusters_joined} that join what "
        f"no id joins",
    )
    _caution(atlas, copies.clusters)
    return splits


def note_stale_audit(atlas: Atlas, out: Path) -> None:
    """Say so where a run that starts now will show no audit, because the atlas was audited with other labels or photographs.

    Args:
        atlas: What is to be learnt from.
        out: The folder of the run; nothing is said of one that is there.

    Raises:
        AtlasError: If the audit is damaged.
    """
    path = atlas.path / AUDIT_FILE
    if path.is_file() and not (out / "run.json").exists() and audit_of(atlas) is None:
        console.print(
            f"note      {path} is of other labels or photographs, so the report will show no audit; predilect audit {atlas.path} "
            f"makes it anew",
        )


def splits_of(atlas: Atlas) -> Splits:
    """The folds of an atlas; says so where copies were not looked for when they were made, or not among all photographs.

    Raises:
        SplitError: If there are none, or they were made for other labels.
    """
    path = atlas.path / SPLITS_FILE
    if not path.is_file():
        raise SplitError(f"{atlas.path} has no folds yet; make them with: predilect split {atlas.path}")
    splits = Splits.read(path)
    if splits.clusters_joined is None:
        console.print(
            f"note      {path} was made without looking for copies, which may lie on both sides; predilect split {atlas.path} looks",
        )
    if splits.crowded:
        console.print(f"note      {crowding(splits.crowded, MOST)} They are named in audit.json: predilect audit {atlas.path}")
    return splits.check_for(np.array(atlas.photos["image_id"].to_list(), dtype=np.str_), atlas.content_hash)


def _caution(atlas: Atlas, copies: pl.DataFrame) -> None:
    """Name the largest cluster of copies where it is so large that it may hold no copies, but photographs in one frame."""
    sizes = copies.group_by("cluster").len().sort("len", "cluster", descending=[True, False])
    if sizes.height and sizes["len"][0] > LONG_CHAIN:
        audited = (atlas.path / AUDIT_FILE).is_file()
        where = f"they are listed in {atlas.path / AUDIT_FILE}" if audited else f"predilect audit {atlas.path} lists them"
        console.print(
            f"note      The largest cluster of copies, {sizes['cluster'][0]}, has {sizes['len'][0]:,} photographs, which all lie in one "
            f"fold; look at some of them, for something printed on all would join them too: {where}",
        )


def _print_atlas(atlas: Atlas) -> None:
    rows = []
    for task in atlas.labels.tasks:
        counts = atlas.photos.select(task.columns).sum().row(0)
        known = atlas.photos.select(task.columns).count().row(0)
        for name, present, assessed in zip(task.classes, counts, known, strict=True):
            rows.append([f"{task.name}/{name}", str(present or 0), str(assessed), "machine" if name in task.machine else ""])
    print_table("Labels", ["class", "present", "known", "made by"], rows)
    _print_dropped(atlas)
    for source in atlas.sources:
        for note in source.notes:
            console.print(f"note      {note}")
    own = {*PHOTO_SCHEMA.names(), *PACKED_COLUMNS, REFINEMENT_FLAG, *atlas.labels.columns}
    carried = [name for name in atlas.photos.columns if name not in own]
    if carried:
        console.print(f"carried   columns of the source that nothing here reads: {', '.join(carried)}")
    met = atlas.counts
    console.print(
        f"{many(met.photos, 'photograph')}; {many(met.rejected, 'row')} rejected, {met.excluded:,} of another kind left out, "
        f"{many(met.unlisted, 'image file')} named by no row",
    )
    if met.rejected:
        console.print(f"rejected  {atlas.path / 'rejected.csv'}")
    console.print(f"terms     {atlas.path / REFINEMENT}")
    console.print(f"atlas     {atlas.path}")


def _print_dropped(atlas: Atlas) -> None:
    """Name the lesions and sites that are on too few photographs to be learnt, the most frequent first."""
    named = []
    for task, classes in too_rare(read_csv(atlas.path / REFINEMENT, AtlasError)).items():
        most_first = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
        what = "lesion" if task == LESION else "site"
        names = few([f"{name} ({n})" for name, n in most_first], _SHOWN_DROPPED)
        named.append(f"{what if len(classes) == 1 else what + 's'} {names}")
    if named:
        least = Taxonomy.open(str(atlas.path / TAXONOMY)).drop_below
        console.print(
            f"dropped   {'; '.join(named)}: fewer than {many(least, 'photograph')}; {atlas.path / REFINEMENT} tells each term's way",
        )
