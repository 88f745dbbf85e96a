"""Looking for copies among 10,000, 30,000 and 100,000 made close-ups of which one in a hundred is a copy: time, memory, growth.

    make benchmarks            all benchmarks; this one alone:
    .venv/bin/python -m pytest -o addopts= benchmarks/bench_audit.py --benchmark-only
    .venv/bin/python benchmarks/bench_audit.py 10000        one size, without the benchmark's frame

Each size runs once in a process of its own, so that its peak memory (GB, interpreter and libraries included) is its own. The pictures are
dark spots amid plain skin, alike from afar, so that the share of candidates among all pairs is as high as in a collection of one
kind (measured on 4,240 close-ups of skin: 7 in 100,000). They are made, at the size of the fingerprints, when they are asked for, and
need no decoder to speak of; so `fingerprint_s` is the cost of making them, `search_s` that of comparing all pairs, and
`confirm_s` that of looking at the candidates. `found` is the share of the planted copies that were found, `wrong` counts the rest.
"""

from __future__ import annotations

import io
import multiprocessing
import resource
import sys
import time

import numpy as np
import polars as pl
import pytest
from PIL import Image

SIZES = (10_000, 30_000, 100_000)
_WAVES = 40
COPIES = 100  # one photograph in so many is a copy of the one before


class CloseUps:
    """Encoded pictures by row; row k is made from its own random numbers, and a copy from those of row k - 1."""

    def __init__(self, n):
        self._n = n
        frequency = np.hypot(*np.meshgrid(np.arange(_WAVES), np.arange(_WAVES)))
        self._strength = 6 / np.maximum(frequency, 1) ** 1.5 + 0.35  # light that is uneven, and grain
        self._places = np.linspace(-1, 1, 72)
        self._waves = np.cos(np.pi * np.arange(_WAVES)[:, None] * (self._places + 1) / 2)

    def __len__(self):
        return self._n

    def __getitem__(self, row):
        copy = row % COPIES == COPIES - 1
        rng = np.random.default_rng(row - copy)
        y, x = self._places[:, None], self._places[None, :]
        high, wide = rng.uniform(0.15, 0.5, 2)
        spot = np.exp(-(((y - rng.normal(0, 0.1)) / high) ** 2 + ((x - rng.normal(0, 0.1)) / wide) ** 2))
        skin = self._waves.T @ (rng.normal(size=(_WAVES, _WAVES)) * self._strength) @ self._waves
        picture = 190 - rng.uniform(40, 120) * spot + skin
        picture = 0.9 * picture[3:70, 2:69] if copy else picture
        target = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=70 if copy else 90)
        return target.getvalue()


def measure(n, results=None):
    from predilect.atlas.candidates import find_candidates
    from predilect.atlas.fingerprints import fingerprint
    from predilect.atlas.near_duplicates import confirm

    images, rows = CloseUps(n), np.arange(n)
    marks = [time.perf_counter()]
    prints = fingerprint(images, rows)
    marks.append(time.perf_counter())
    candidates = pl.concat([pairs for pairs, _ in find_candidates(prints)])
    marks.append(time.perf_counter())
    found = set(confirm(images, rows, prints, candidates).select("first", "second").rows())
    marks.append(time.perf_counter())
    planted = {(row - 1, row) for row in range(COPIES - 1, n, COPIES)}
    took = dict(zip(("fingerprint_s", "search_s", "confirm_s"), np.diff(marks).round(1).tolist(), strict=True))
    figures = took | {
        "candidates": candidates.height,
        "per_100000_pairs": round(candidates.height / (n * (n - 1) / 2) * 1e5, 2),
        "found": round(len(found & planted) / len(planted), 4),
        "wrong": len(found - planted),
        "peak_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    if results is not None:
        results.put(figures)
    return figures


@pytest.mark.benchmark(group="audit: copies among n photographs")
@pytest.mark.parametrize("n", SIZES)
def test_near_duplicates(benchmark, n):
    spawning = multiprocessing.get_context("spawn")
    results = spawning.Queue()

    def once():
        process = spawning.Process(target=measure, args=(n, results))
        process.start()
        figures = results.get()
        process.join()
        return figures

    benchmark.extra_info.update(benchmark.pedantic(once, rounds=1))


if __name__ == "__main__":
    print(measure(int(sys.argv[1])))
