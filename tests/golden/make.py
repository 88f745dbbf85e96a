"""Make the golden examples that Predilect writes itself, from those that a user writes.

By hand: `manifest.csv`, `taxonomy.toml` and `recipe.toml` here, and the tables `predictions` and `truth`. From the first three
this makes `manifest.parquet`, `atlas/`, `run/` and `bundle/`, with drawn photographs. Run it after a change of a format, and
look at what git says has changed:

    .venv/bin/python tests/golden/make.py

On one machine and with one set of libraries it gives the same bytes each time; the clock and the processor's name are stand-ins.
Elsewhere these may differ: the versions in `run.json`, `report.json` and `bundle.json`; JPEGs of another Pillow, and with them
`images.arrow` and the hashes; the scores, losses, maps and distances of another torch or processor; the bytes of Parquet files.

Left out for their size are the weights, and of the report all but `report.json`.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from predilect.atlas.audit import AUDIT_FILE
from predilect.atlas.build import build_atlas
from predilect.atlas.examine import copies_of, examine
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.manifest import read_manifest, write_manifest
from predilect.atlas.painting import Sitter
from predilect.atlas.photo import Photo
from predilect.atlas.splits import Splits, make_splits
from predilect.atlas.synthetic import Drawing, paint
from predilect.bundling import make_bundle
from predilect.insight.explain import explain_folds, summarise
from predilect.labels.taxonomy import Taxonomy
from predilect.recipe import Recipe, system
from predilect.run.insight import insight_path
from predilect.training.crossval import cross_validate, refit
from predilect.training.devices import make_fabric
from predilect.training.folds import TrainedFolds
from predilect.training.start import start_run

HERE = Path(__file__).resolve().parent
FOLDERS = ("atlas", "run", "bundle")

_SIDE = 40
_COMMAND = "predilect crossval atlas --systems mtl --recipe recipe.toml --out run"
_BUNDLE = "predilect bundle run atlas --system mtl --out bundle --index --photographs"
_EXPLAIN, _SAMPLE = "predilect explain run atlas --sample 2", 2
# What is drawn: part of the body, its kind, lesions. The last photograph of the manifest is missing, and so rejected.
_PICTURES = {
    "2023/0001.jpg": ("arm", "forearm", ("papule", "excoriation")),
    "2023/0002.jpg": ("arm", "forearm", ("papule",)),
    "2023/0003.jpg": ("face", "face", ()),
    "2023/0004.jpg": ("foot", "sole", ("plaque",)),
    "2023/0005.jpg": ("trunk", "chest", ("papule",)),
    "2023/0006.jpg": ("arm", "upper arm", ("erosion", "scale")),
    "2023/0007.jpg": ("hand", "back of hand", ()),
}


def make(out: Path) -> None:
    """Make the examples in a folder that holds none of them yet."""
    write_manifest(read_manifest(HERE / "manifest.csv"), out / "manifest.parquet")
    with tempfile.TemporaryDirectory() as name, chdir(name), _stand_ins():  # chdir: rejected.csv names the folder of photographs
        work, photographs = Path(name), Path("photographs")
        _draw(photographs)
        atlas = _make_atlas(photographs, out / "atlas")
        _train(atlas, work)
        examine(atlas).write(atlas.path / AUDIT_FILE)
        shutil.copytree(work / "run", out / "run", ignore=shutil.ignore_patterns(".lock", "checkpoint", "refit", "report"))
        for path in ("run/report/report.json", "bundle/bundle.json", "bundle/card.md"):
            (out / path).parent.mkdir(exist_ok=True)
            shutil.copy(work / path, out / path)
        shutil.copytree(work / "bundle" / "index", out / "bundle" / "index")


def _draw(folder: Path) -> None:
    for number, (name, (site, kind, lesions)) in enumerate(_PICTURES.items()):
        drawing = Drawing(
            photo=Photo(image_id=name, file_name=name),
            sitter=Sitter(tone=2 + number, warmth=0.2, hair=2, hairiness=0.3, curl=0.4, freckled=0.2),
            site=site,
            kind=kind,
            lesions=lesions,
            scene_seed=number,
            view_seed=number,
            close_up=number % 2 == 0,
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        paint(drawing, _SIDE).save(folder / name, quality=92, subsampling=0)
    shutil.copy(HERE / "manifest.csv", folder / "metadata.csv")


def _make_atlas(photographs: Path, out: Path) -> Atlas:
    imported = SOURCES["imagefolder"](photographs)
    note = "The photographs of {} are drawn by a program and show nothing but the form of the files."
    sources = tuple(
        replace(source, licence="CC0-1.0", credit="drawn by Predilect", notes=(note.format(source.name),))
        for source in imported.sources
    )
    atlas = build_atlas(replace(imported, sources=sources), Taxonomy.read(HERE / "taxonomy.toml"), out, max_rejected=1)
    copies = copies_of(atlas).clusters
    splits = make_splits(atlas.photos, atlas.labels.columns, folds=2, near_duplicates=copies, content_hash=atlas.content_hash)
    splits.write(atlas.path / "splits.parquet")
    return atlas


def _train(atlas: Atlas, work: Path) -> None:
    splits = Splits.read(atlas.path / "splits.parquet")
    mtl = system("mtl", Recipe.open(str(HERE / "recipe.toml")))
    fabric = make_fabric(mtl.recipe.precision)
    run = start_run(
        work / "run", atlas, splits, [mtl], seeds=[1], folds=range(splits.k), fabric=fabric, command=_COMMAND, resume=False
    )
    cross_validate(run, atlas, splits, [mtl], fabric=fabric)
    folds, trained = TrainedFolds.of(run, atlas, splits), refit(run, atlas, splits, mtl, fabric=fabric)
    make_bundle(work / "bundle", folds, trained, fabric=fabric, command=_BUNDLE, index=True, photographs=True)
    found = explain_folds(folds, ["mtl"], [1], sample=_SAMPLE, fabric=fabric)
    summarise(run, found, sample=_SAMPLE, command=_EXPLAIN).write(insight_path(run.path))
    run.report()


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Let neither the speed nor the name of this machine into the files."""
    torch.set_num_threads(1)
    clock = itertools.count(0.0, 0.25)
    with (
        mock.patch("time.perf_counter", side_effect=clock),
        mock.patch("predilect.training.devices._processor", return_value="a processor"),
    ):
        yield


if __name__ == "__main__":
    for folder in FOLDERS:
        shutil.rmtree(HERE / folder, ignore_errors=True)
    make(HERE)
