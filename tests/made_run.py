"""A finished cross-validation of tiny networks on the small atlas, with its bundle, for what looks at trained networks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits
from predilect.bundle import Bundle, write_bundle
from predilect.recipe import Recipe, system
from predilect.run import Run
from predilect.training.crossval import cross_validate, refit
from predilect.training.devices import make_fabric
from predilect.training.start import start_run

NAMES = ("resnet-site", "mtl")


@dataclass(frozen=True)
class MadeRun:
    """What there is after ``predilect crossval ATLAS --systems resnet-site,mtl --refit mtl``."""

    atlas: Atlas
    splits: Splits
    run: Run
    bundle: Bundle


def make_run(path: Path, atlas: Atlas, splits: Splits, recipe: Recipe, names: tuple[str, ...] = NAMES) -> MadeRun:
    """Train the systems on all folds with seed 1, and the last of them on all groups."""
    fabric = make_fabric("fp32")
    systems = [system(name, recipe) for name in names]
    run = start_run(
        path, atlas, splits, systems, seeds=[1], folds=range(splits.k), fabric=fabric, command="predilect crossval", resume=False
    )
    cross_validate(run, atlas, splits, systems, fabric=fabric)
    bundle = write_bundle(path / "bundle", refit(run, atlas, splits, systems[-1], fabric=fabric))
    return MadeRun(atlas, splits, run, bundle)


def pixels(data: bytes | memoryview) -> np.ndarray:
    """(H, W, 3) of a JPEG or PNG."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
