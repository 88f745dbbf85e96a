"""Importing, refining and splitting a manifest of 100,000 and of 1,000,000 rows without touching image files: time, memory, growth.

    make benchmarks            all benchmarks; this one alone:
    .venv/bin/python -m pytest -o addopts= benchmarks/bench_manifest.py --benchmark-only

Each size runs once in a process of its own, so that its peak memory is its own; the seconds of each part and the peak (GB,
interpreter and libraries included) stand in the extra columns.
"""

from __future__ import annotations

import multiprocessing
import resource
import time

import numpy as np
import polars as pl
import pytest

SIZES = (100_000, 1_000_000)
LESIONS, SITES, PER_PATIENT = 25, 23, 2.5


def write_manifest_of(n, path):
    """Photographs of n / 2.5 patients, one to three lesions each, some labels unknown."""
    rng = np.random.default_rng(0)
    names = np.array([f"lesion type {k:02}" for k in range(LESIONS)])
    weights = np.geomspace(1, 0.02, LESIONS)
    drawn = rng.choice(LESIONS, size=(n, 3), p=weights / weights.sum())
    count = rng.choice(4, size=n, p=[0.05, 0.65, 0.2, 0.1])
    lesions = [";".join(sorted(set(names[row[:c]]))) for row, c in zip(drawn, count, strict=True)]
    site = rng.integers(-1, SITES, n)
    pl.DataFrame(
        {
            "file_name": [f"{k // 1000}/{k:07}.jpg" for k in range(n)],
            "lesions": lesions,
            "lesions_unknown": np.where(rng.random(n) < 0.1, names[-1], ""),
            "site": np.where(site < 0, "", np.array([f"site {k:02}" for k in range(SITES)])[site]),
            "patient_id": [f"patient {k}" for k in rng.integers(0, int(n / PER_PATIENT), n)],
        }
    ).with_columns(
        lesions_unknown=pl.when(pl.col("lesions").str.contains(names[-1])).then(pl.lit("")).otherwise("lesions_unknown")
    ).write_csv(path)


def measure(path, results):
    from predilect.atlas.manifest import read_manifest
    from predilect.atlas.refine import refine
    from predilect.atlas.splits import make_splits
    from predilect.labels.taxonomy import Taxonomy

    marks = [time.perf_counter()]
    photos = read_manifest(path)
    marks.append(time.perf_counter())
    refined = refine(photos, Taxonomy.preset("as-is"), origin=str(path))
    marks.append(time.perf_counter())
    table = photos.hstack(refined.table.drop("image_id").get_columns())
    splits = make_splits(table, refined.labels.columns, folds=5, tuning=0.1, content_hash="benchmark")
    marks.append(time.perf_counter())
    assert len(splits) == photos.height
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    results.put((*np.diff(marks).round(2).tolist(), round(peak, 2)))


@pytest.mark.benchmark(group="manifest: read, refine, split")
@pytest.mark.parametrize("n", SIZES)
def test_manifest(benchmark, tmp_path, n):
    path = tmp_path / "metadata.csv"
    write_manifest_of(n, path)
    spawning = multiprocessing.get_context("spawn")
    results = spawning.Queue()

    def once():
        process = spawning.Process(target=measure, args=(path, results))
        process.start()
        found = results.get()
        process.join()
        return found

    found = benchmark.pedantic(once, rounds=1)
    benchmark.extra_info.update(dict(zip(("read_s", "refine_s", "split_s", "peak_GB"), found, strict=True)))
