"""A finished cross-validation of tiny networks on the small atlas, with its bundle, for what looks at trained networks."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from predilect.atlas.folder import Atlas
from predilect.atlas.jpeg import prepare_image
from predilect.atlas.pack import MAX_SIDE
from predilect.atlas.splits import Splits
from predilect.bundle import Bundle, write_bundle
from predilect.recipe import Preprocessing, Recipe, system
from predilect.run import Run
from predilect.training.crossval import cross_validate, refit
from predilect.training.devices import make_fabric
from predilect.training.inference import Observation
from predilect.training.start import start_run
from predilect.vision.transforms import central_square

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


def scores_of_files(
    look: Callable[[Tensor], Observation], preprocessing: Preprocessing, paths: Sequence[Path]
) -> dict[Path, dict[str, np.ndarray] | str]:
    """What a network says of image files, one at a time, each prepared as an atlas packs it; or why one cannot be used."""
    found: dict[Path, dict[str, np.ndarray] | str] = {}
    for path in paths:
        image = prepare_image(path, MAX_SIDE)
        if isinstance(image, str):
            found[path] = image
        else:
            seen = look(torch.from_numpy(central_square(image.data, preprocessing))[None])
            found[path] = {task: values[0].cpu().numpy() for task, values in seen.scores.items()}
    return found


def pixels(data: bytes | memoryview) -> np.ndarray:
    """(H, W, 3) of a JPEG or PNG."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
