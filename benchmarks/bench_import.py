"""Photographs packed per second, against the loop that a user's script does, over the same files.

    make benchmarks            all benchmarks; this one alone:
    .venv/bin/python -m pytest -o addopts= benchmarks/bench_import.py --benchmark-only -s

The loop opens each file, turns it upright by its EXIF, converts it to RGB, scales the shorter side to 512 and saves a JPEG of
quality 95; it drops no profile, checks nothing and writes single files. It runs in one thread, as such scripts do, and in as many
as ours. The photographs are made by code: smooth colours with grain, so that they weigh what a telephone's do.
`photographs_per_second` stands in the extra columns, and `-s` prints the ratios.

The tree is imported as the command does it, from its manifest to a finished atlas, and the loop goes through the same manifest and
passes over what it cannot open; `-k 200` takes the small tree alone.
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
from predilect.atlas.parts import remove_parts
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
TREES, ONE_BROKEN_IN = (200, 5000), 125

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
    names = [path.name for path in paths]
    packing = pack_images(names, names, out / "images.arrow", root=paths[0].parent, parts=out / "parts")
    remove_parts(out / "parts")  # for the next round
    assert packing.packed.height == len(paths)


WAYS = {"predilect": ours, "loop": looped, "loop in threads": looped_in_threads}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_packing(benchmark, files, tmp_path, kind, way):
    benchmark.group = kind
    benchmark.pedantic(WAYS[way], args=(files[kind], tmp_path), rounds=3)
    speeds[kind, way] = len(files[kind]) / benchmark.stats.stats.min
    benchmark.extra_info["photographs_per_second"] = round(speeds[kind, way], 1)
    if all((name, which) in speeds for name in KINDS for which in WAYS):
        print("\n\nphotographs per second")
        for name in KINDS:
            rates = [speeds[name, which] for which in WAYS]
            told = ", ".join(f"{which} {rate:.1f}" for which, rate in zip(WAYS, rates, strict=True))
            print(f"{name:28} {told}; ratio {rates[0] / rates[1]:.2f} and {rates[0] / rates[2]:.2f}")


@pytest.fixture(scope="module", params=TREES)
def tree(request, tmp_path_factory):
    """A folder of photographs with their manifest, one in 125 of them broken."""
    few = [encoded((640, 480), seed, quality=90, subsampling=2) for seed in range(8)]
    broken = [b"", b"<html>404</html>", few[0][:9000], few[1][:9000] + b"\xff\xd9"]
    root, rows = tmp_path_factory.mktemp("tree"), []
    for k in range(request.param):
        path = root / f"{k % 13}" / f"{k % 7}" / f"{k:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        number, rest = divmod(k, ONE_BROKEN_IN)
        path.write_bytes(few[k % len(few)] if rest else broken[number % len(broken)])
        rows.append({"file_name": path.relative_to(root).as_posix(), "lesions": "papule", "site": "arm"})
    pl.DataFrame(rows).write_csv(root / "metadata.csv")
    return root, len(rows), -(-len(rows) // ONE_BROKEN_IN)


def imported(root, n_broken, out):
    atlas = build_atlas(imagefolder.read(root), Taxonomy.preset("as-is"), out / "atlas", max_rejected=n_broken)
    return atlas.counts.rejected


def looped_over_the_manifest(root, _, out):
    skipped = 0
    for name in pl.read_csv(root / "metadata.csv")["file_name"]:
        try:
            loop_one(root / name, out)
        except OSError:
            skipped += 1
    return skipped


IMPORTS = {"predilect": imported, "loop": looped_over_the_manifest}


@pytest.mark.parametrize("way", IMPORTS)
def test_a_tree_of_photographs(benchmark, tree, tmp_path, way):
    root, n, n_broken = tree
    benchmark.group = f"import: a tree of {n:,} photographs, {n_broken} of them broken"
    skipped = benchmark.pedantic(IMPORTS[way], args=(root, n_broken, tmp_path), rounds=1)
    assert skipped == n_broken if way == "predilect" else skipped <= n_broken  # the loop takes what was cut and closed for whole
    speeds[benchmark.group, way] = n / benchmark.stats.stats.min
    benchmark.extra_info["photographs_per_second"] = round(speeds[benchmark.group, way], 1)
    rates = [speeds.get((benchmark.group, each)) for each in IMPORTS]
    if all(rates):
        print(f"\n\n{benchmark.group}: predilect {rates[0]:.1f} a second, loop {rates[1]:.1f}; ratio {rates[0] / rates[1]:.2f}")
