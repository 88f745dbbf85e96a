"""Photographs packed per second, against the loop that a user's script does, over the same files.

    make benchmarks            all benchmarks; this one alone:
    .venv/bin/python -m pytest -o addopts= benchmarks/bench_import.py --benchmark-only -s

The loop opens each file, turns it upright by its EXIF, converts it to RGB, scales the shorter side to 512 and saves a JPEG of quality
95; it drops no profile, checks nothing and writes single files. It runs in one thread, as such scripts do, and in as many as ours.
The photographs are made by code: smooth colours with grain, so that they weigh what a telephone's do. `photographs_per_second` stands
in the extra columns, and `-s` prints the ratios.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageCms, ImageOps

from predilect.atlas.build import build_atlas
from predilect.atlas.importers import imagefolder
from predilect.atlas.pack import MAX_SIDE, pack_images
from predilect.labels.taxonomy import Taxonomy

KINDS = {
    # name: (width, height), files, JPEG options
    "12 megapixels, telephone": ((4032, 3024), 24, {"quality": 90, "subsampling": 2, "turned": True}),
    "12 megapixels, progressive": ((4032, 3024), 8, {"quality": 90, "subsampling": 2, "progressive": True}),
    "2 megapixels": ((1600, 1200), 96, {"quality": 90, "subsampling": 2}),
    "1 megapixel, PNG": ((1200, 900), 32, {"png": True}),
    "small, copied": ((600, 450), 384, {"quality": 90, "subsampling": 2}),
    "small, with sRGB profile": ((600, 450), 384, {"quality": 90, "subsampling": 2, "profile": True}),
}
N_TREE, N_BROKEN = 5000, 40

speeds: dict[tuple[str, str], float] = {}


def photograph(size, seed):
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(60, 220, (5, 7, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.effect_noise((size[0] // 2, size[1] // 2), 12).resize(size, Image.Resampling.BILINEAR)
    return Image.blend(smooth, Image.merge("RGB", [grain] * 3), 0.2)


def encoded(size, seed, *, turned=False, png=False, profile=False, **options):
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    target = io.BytesIO()
    if profile:
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photograph(size, seed).save(target, "PNG" if png else "JPEG", exif=exif, **options)
    return target.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("photographs"), {}
    for name, (size, n, options) in KINDS.items():
        few = [encoded(size, seed, **options) for seed in range(4)]
        made[name] = [root / f"{name} {k}.{'png' if options.get('png') else 'jpg'}" for k in range(n)]
        for k, path in enumerate(made[name]):
            path.write_bytes(few[k % len(few)])
    return made


def loop_one(path, out):
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    shrink = MAX_SIDE / min(image.size)
    if shrink < 1:
        image.thumbnail((round(image.width * shrink), round(image.height * shrink)), Image.Resampling.LANCZOS)
    image.save(out / f"{path.stem}.jpg", quality=95)


def looped(paths, out):
    for path in paths:
        loop_one(path, out)


def looped_in_threads(paths, out):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: loop_one(path, out), paths))


def ours(paths, out):
    packing = pack_images([path.stem for path in paths], paths, out / "images.arrow")
    assert packing.packed.height == len(paths)


WAYS = {"predilect": ours, "loop": looped, "loop in threads": looped_in_threads}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_packing(benchmark, files, tmp_path, kind, way):
    benchmark.group = kind
    benchmark.pedantic(WAYS[way], args=(files[kind], tmp_path), rounds=3)
    speeds[kind, way] = len(files[kind]) / benchmark.stats.stats.min
    benchmark.extra_info["photographs_per_second"] = round(speeds[kind, way], 1)
    if len(speeds) == len(KINDS) * len(WAYS):
        print("\n\nphotographs per second")
        for name in KINDS:
            rates = [speeds[name, which] for which in WAYS]
            told = ", ".join(f"{which} {rate:.1f}" for which, rate in zip(WAYS, rates, strict=True))
            print(f"{name:28} {told}; ratio {rates[0] / rates[1]:.2f} and {rates[0] / rates[2]:.2f}")


@pytest.mark.benchmark(group="import: a tree of 5,000 photographs, 40 of them broken")
def test_a_tree_of_photographs(benchmark, tmp_path):
    few = [encoded((640, 480), seed, quality=90, subsampling=2) for seed in range(8)]
    broken = [b"", b"<html>404</html>", few[0][:9000], few[1][:9000] + b"\xff\xd9"]
    rows = []
    for k in range(N_TREE):
        path = tmp_path / "source" / f"{k % 13}" / f"{k % 7}" / f"{k:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(broken[k % 4] if k % (N_TREE // N_BROKEN) == 0 else few[k % len(few)])
        rows.append({"file_name": path.relative_to(tmp_path / "source").as_posix(), "lesions": "papule", "site": "arm"})
    pl.DataFrame(rows).write_csv(tmp_path / "source" / "metadata.csv")

    def imported():
        source = imagefolder.read(tmp_path / "source")
        return build_atlas(source, Taxonomy.preset("as-is"), tmp_path / "atlas", max_rejected=N_BROKEN)

    atlas = benchmark.pedantic(imported, rounds=1)
    assert (atlas.counts.photos, atlas.counts.rejected) == (N_TREE - N_BROKEN, N_BROKEN)
    benchmark.extra_info["photographs_per_second"] = round(N_TREE / benchmark.stats.stats.min, 1)
