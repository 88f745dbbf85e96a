"""`predilect demo`: the whole path on drawn photographs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from predilect.atlas.build import build_atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.synthetic import draw_atlas
from predilect.cli.data import split_atlas
from predilect.cli.show import console, counting
from predilect.cli.train import compare
from predilect.errors import PredilectError
from predilect.labels.taxonomy import Taxonomy
from predilect.recipe import Recipe, system

__all__ = ["demo_command"]

_SYSTEMS = ("resnet", "resnet-site", "mtl")
_FOLDS = 3
_NOTE = "The photographs are drawn by a program: the scores show how things work and say nothing of medicine."


def demo_command(*, out: Path = Path("predilect-demo"), images: int = 900, seed: int = 1) -> None:
    """Walk the whole path, offline, in a few minutes: draw, import, split, train, compare, report, bundle.

    The photographs are drawn by the program. They show how things work and are no data; the scores say nothing of medicine.

    Example: `predilect demo`

    Args:
        out: The folder to make; an earlier demo in it is replaced, anything else is not.
        images: How many photographs to draw, at most 900.
        seed: Decides the drawings and the trainings.
    """
    if not 60 <= images <= 900:
        raise PredilectError(f"--images {images}: allowed are 60 to 900")
    _clear(out)
    with counting("drawing") as tell:
        drawings = draw_atlas(out / "drawings", n_images=images, seed=seed, on_progress=tell)
    with counting("packing") as tell:
        imported = SOURCES["imagefolder"](drawings)
        sources = tuple(replace(source, title="Drawn atlas", notes=(_NOTE,)) for source in imported.sources)
        taxonomy = Taxonomy.preset("drawn")
        atlas = build_atlas(replace(imported, sources=sources), taxonomy, out / "drawn-atlas", on_progress=tell)
    split_atlas(atlas, folds=_FOLDS)
    recipe = Recipe.open("demo")
    compare(
        atlas,
        [system(name, recipe) for name in _SYSTEMS],
        out / "run",
        seeds=[seed],
        folds=range(_FOLDS),
        refit_name="mtl",
    )
    console.print(_NOTE, markup=False)


def _clear(out: Path) -> None:
    """Remove an earlier demo, and refuse a folder that holds anything else."""
    if not out.exists():
        return
    if not out.is_dir() or {item.name for item in out.iterdir()} - {"drawings", "drawn-atlas", "run"}:
        raise PredilectError(f"{out} holds something else than an earlier demo; choose another folder with --out")
    for item in out.iterdir():
        shutil.rmtree(item)
