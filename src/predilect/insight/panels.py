"""Attention of photographs as files: a panel for people (the paper's Figure 3, columns A to C), and each map for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from predilect.atlas.given import given_images
from predilect.atlas.jpeg import PreparedImage, prepare_image
from predilect.atlas.pack import MAX_SIDE
from predilect.errors import InsightError
from predilect.evaluation.calibration import Calibration
from predilect.files import replacing
from predilect.insight.attention import AttentionMap, Explainer
from predilect.report.attention_panel import ShownMap, attention_panel, fitted
from predilect.report.style import render_png, styled
from predilect.vision.transforms import decode

__all__ = ["find_photographs", "shown_map", "write_attention"]

_PANEL = ".attention.png"
_NOTE = "White lines enclose the highest fifth of each map."


def find_photographs(paths: Sequence[Path], out: Path) -> tuple[dict[str, Path], int]:
    """Image files, and those in folders at any depth, each with a name for what is written of it.

    Args:
        paths: As `given_images` takes them.
        out: Where something is to be written of them.

    Returns:
        Files by name, in order: the file's own without its ending, numbered where it comes again. And how many other things lie in
        the folders.

    Raises:
        AtlasError: If a folder cannot be read or holds no image, or a pattern fits nothing.
        InsightError: If what is written in `out` would lie among the photographs or replace one.
    """
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise InsightError(
                f"{out} lies in {path}, so that panels would be taken for photographs next time; choose another folder"
            )
    given = given_images(paths)
    files: dict[str, Path] = {}
    taken: set[str] = set()
    times: Counter[str] = Counter()
    for path in given.files:
        name = path.stem
        while name.casefold() in taken:  # some file systems do not tell a from A
            times[path.stem] += 1
            name = f"{path.stem}-{times[path.stem] + 1}"
        taken.add(name.casefold())
        files[name] = path
    whole = {path.resolve() for path in files.values()}  # a file has many spellings: a.jpg, ./a.jpg, /x/a.jpg
    for name, replaced in ((name, out / f"{name}{_PANEL}") for name in files):
        if replaced.resolve() in whole:
            raise InsightError(
                f"the panel of {files[name]} would replace the photograph {replaced}; choose another folder than {out}"
            )
    return files, given.n_others


def write_attention(
    explainer: Explainer,
    files: Mapping[str, Path],
    out: Path,
    wanted: Mapping[str, str | None],
    *,
    calibration: Calibration | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[AttentionMap, ...] | str]:
    """Write ``<name>.attention.png`` and, for each task, ``<name>.<task>.npy`` of each photograph.

    The array is (H, W) float32, the raw map at each pixel of the photograph as an atlas would pack it: upright, the shorter side at
    most `MAX_SIDE`. Nothing of the photograph's metadata is in either file.

    Args:
        explainer: Makes the maps.
        files: Image files by name.
        out: The folder; made if need be. What lies there under the same names is replaced.
        wanted: For each task the class, or None for the predicted one.
        calibration: See `Explainer.photograph`.
        on_progress: Told how many photographs are done.

    Returns:
        By name the maps, or the reason why the photograph cannot be used.

    Raises:
        LabelError: If the network has no such task or class.
        DiskError: If a file cannot be written.
    """
    asked_for = {task: None if name is None else (name,) for task, name in wanted.items()}
    results: dict[str, tuple[AttentionMap, ...] | str] = {}
    for name, path in files.items():
        image = prepare_image(path, MAX_SIDE)
        if isinstance(image, str):
            results[name] = image
        else:
            maps = tuple(found for (found,) in explainer.photograph(image.data, asked_for, calibration).values())
            _write(image, maps, out / name)
            results[name] = maps
        if on_progress is not None:
            on_progress(len(results), len(files))
    return results


def shown_map(found: AttentionMap, width: int, height: int) -> ShownMap:
    """A map over a photograph of so many pixels, ready to be drawn."""
    return ShownMap(found.task, found.name, found.probability, found.method, found.over(width, height), found.calibrated)


def _write(image: PreparedImage, maps: Sequence[AttentionMap], place: Path) -> None:
    size = fitted(image.width, image.height)
    photograph: NDArray[np.uint8] = np.asarray(decode(image.data, min(size)).resize(size, Image.Resampling.LANCZOS))
    with styled():
        png = render_png(attention_panel(photograph, [shown_map(found, *size) for found in maps], _NOTE))
    with replacing(place.with_name(f"{place.name}{_PANEL}")) as temporary:
        temporary.write_bytes(png)
    for found in maps:
        with replacing(place.with_name(f"{place.name}.{found.task}.npy")) as temporary:
            np.save(temporary, found.over(image.width, image.height), allow_pickle=False)
