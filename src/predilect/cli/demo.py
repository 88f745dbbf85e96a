"""`predilect demo`: the whole path on drawn photographs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.build import build_atlas
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.synthetic import draw_atlas
from predilect.cli.data import split_atlas
from predilect.cli.show import Seed, console, counting
from predilect.cli.train import compare
from predilect.errors import PredilectError
from predilect.files import write_text
from predilect.labels.taxonomy import Taxonomy
from predilect.recipe import Recipe, system

__all__ = ["demo_command"]

_SYSTEMS = ("resnet", "resnet-site", "mtl")
_FOLDS = 3
_MARKER, _DRAWINGS, _ATLAS, _RUN = ".predilect-demo", "drawings", "drawn-atlas", "run"
_NOTE = "The photographs are drawn by a program: the scores show how things work and say nothing of medicine."


def demo_command(
    *,
    out: Path = Path("predilect-demo"),
    images: Annotated[int, Parameter(validator=Number(gte=60, lte=900))] = 900,
    seed: Seed = 1,
) -> None:
    """Walk the whole path, offline, in a few minutes: draw, import, split, train, compare, report, bundle.

    The photographs are drawn by the program. They show how things work and are no data; the scores say nothing of medicine.

    Example: `predilect demo`

    Args:
        out: The folder to make; an earlier demo in it is replaced, anything else is not.
        images: How many photographs to draw, 60 to 900.
        seed: Decides the drawings and the trainings.
    """
    from predilect.training.devices import make_fabric

    recipe = Recipe.open("demo")
    fabric = make_fabric(recipe.precision)
    if fabric.is_global_zero:
        _clear(out)
        _draw(out, images, seed)
    fabric.barrier()
    compare(
        Atlas.open(out / _ATLAS),
        [system(name, recipe) for name in _SYSTEMS],
        out / _RUN,
        seeds=[seed],
        folds=range(_FOLDS),
        fabric=fabric,
        refit_name="mtl",
        with_cases=True,  # drawn ones
    )
    console.print(_NOTE)


def _draw(out: Path, images: int, seed: int) -> None:
    """Draw the photographs, import them as anyone's would be, and split them."""
    with counting("drawing") as tell:
        drawings = draw_atlas(out / _DRAWINGS, n_images=images, seed=seed, on_progress=tell)
    with counting("packing") as tell:
        imported = SOURCES["imagefolder"](drawings)
        sources = tuple(replace(source, title="Drawn atlas", notes=(_NOTE,)) for source in imported.sources)
        taxonomy = Taxonomy.preset("drawn")
        atlas = build_atlas(replace(imported, sources=sources), taxonomy, out / _ATLAS, on_progress=tell)
    split_atlas(atlas, folds=_FOLDS)


def _clear(out: Path) -> None:
    """Make the folder, or empty it of an earlier demo; one that holds anything else, or that no demo made, is refused."""
    if out.is_symlink() or out.exists():
        found = {item.name for item in out.iterdir()} if out.is_dir() else None
        ours = found is not None and found <= {_MARKER, _DRAWINGS, _ATLAS, _RUN} and (not found or _MARKER in found)
        if not ours:
            raise PredilectError(f"{out} holds something else than an earlier demo; choose another folder with --out")
        for name in (_DRAWINGS, _ATLAS, _RUN):
            item = out / name
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink(missing_ok=True)  # of a link, the link and not what it points to
    write_text(out / _MARKER, "Made by predilect demo, which may empty this folder.\n")
