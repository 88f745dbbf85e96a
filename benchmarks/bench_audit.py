"""Looking for copies among made close-ups, as they are and all under one drape: time, memory, finds, and how they grow.

    make benchmarks            all benchmarks; this one alone:
    .venv/bin/python -m pytest -o addopts= benchmarks/bench_audit.py --benchmark-only
    .venv/bin/python benchmarks/bench_audit.py drape 300 600        a kind and its sizes, without the benchmark's frame

Each size runs once in a process of its own, so that its peak memory (GB, interpreter and libraries included) is its own. The
pictures are dark spots amid plain skin, alike from afar, so that the share of candidates among all pairs is as high as in a
collection of one kind; under the drape, an area of one colour that covers a third of each, nearly every pair is a candidate. They
are made, at the size of the fingerprints, when they are asked for, and need no decoder to speak of; so `fingerprint_s` is the cost
of making them, `search_s` that of comparing all pairs of fingerprints, and `compare_s` that of comparing candidates in detail. One
picture in a hundred is a copy of the one before, darker and encoded again, and every other one of them lacks 7 % of its height and
width too.

What must hold is asserted: no strangers are joined; without a drape every copy is found and every candidate compared; under it
every copy that lacks nothing is found, and no more than `MOST` candidates a picture are compared. `found_cropped` is the share of
the others that was found. `growth` is the exponent between the two largest sizes: 1 where ten times as many take ten times as long.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import resource
import sys
import time

import numpy as np
import pytest
from PIL import Image

SIZES = {"plain": (10_000, 30_000, 100_000), "drape": (1_000, 2_000, 5_000)}
COPIES = 100  # one photograph in so many is a copy of the one before
_WAVES = 40
_SIDE = 72
_DRAPE = np.add.outer(np.arange(_SIDE), np.arange(_SIDE)) < 0.8 * _SIDE


class CloseUps:
    """Encoded pictures by row; row k is made from its own random numbers, and a copy from those of row k - 1."""

    def __init__(self, n, kind):
        self._n, self._draped = n, kind == "drape"
        frequency = np.hypot(*np.meshgrid(np.arange(_WAVES), np.arange(_WAVES)))
        self._strength = 6 / np.maximum(frequency, 1) ** 1.5 + 0.35  # light that is uneven, and grain
        self._places = np.linspace(-1, 1, _SIDE)
        self._waves = np.cos(np.pi * np.arange(_WAVES)[:, None] * (self._places + 1) / 2)

    def __len__(self):
        return self._n

    def __getitem__(self, row):
        copy = is_copy(row)
        rng = np.random.default_rng(row - copy)
        y, x = self._places[:, None], self._places[None, :]
        high, wide = rng.uniform(0.15, 0.5, 2)
        spot = np.exp(-(((y - rng.normal(0, 0.1)) / high) ** 2 + ((x - rng.normal(0, 0.1)) / wide) ** 2))
        skin = self._waves.T @ (rng.normal(size=(_WAVES, _WAVES)) * self._strength) @ self._waves
        picture = 190 - rng.uniform(40, 120) * spot + skin
        if self._draped:
            picture[_DRAPE] = 60
        if copy:
            picture = 0.9 * (picture[3:70, 2:69] if is_cropped(row) else picture)
        target = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=70 if copy else 90)
        return target.getvalue()


def is_copy(row):
    return row % COPIES == COPIES - 1


def is_cropped(row):
    return row // COPIES % 2 == 1


def measure(kind, n, results=None):
    from predilect.atlas.candidates import MOST
    from predilect.atlas.near_duplicates import find_near_duplicates

    marks = {0: time.perf_counter()}

    def tell(done, total):
        marks.setdefault(3 * done // total, time.perf_counter())  # the first moment at which a third is done

    found = find_near_duplicates(CloseUps(n, kind), [str(row) for row in range(n)], on_progress=tell)
    pairs = set(found.pairs.select("first", "second").rows())
    copies = [row for row in range(n) if is_copy(row)]
    whole, cropped = ([row for row in copies if is_cropped(row) is asked] for asked in (False, True))
    took = np.diff([marks[third] for third in range(4)]).round(2).tolist()
    figures = dict(zip(("fingerprint_s", "search_s", "compare_s"), took, strict=True)) | {
        "candidates": found.n_candidates,
        "per_100000_pairs": round(found.n_candidates / math.comb(n, 2) * 1e5, 2),
        "crowded": len(found.crowded),
        "found_whole": _share(pairs, whole),
        "found_cropped": _share(pairs, cropped),
        "wrong": len(pairs - {(row - 1, row) for row in copies}),
        "peak_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    assert figures["wrong"] == 0, figures
    assert figures["found_whole"] == 1, figures
    assert found.n_candidates <= MOST * n, figures
    if kind == "plain":
        assert (figures["found_cropped"], figures["crowded"]) == (1, 0), figures
    elif n >= 10 * MOST:
        assert figures["crowded"] > n / 2, figures
    if results is not None:
        results.put(figures)
    return figures


def measured_alone(kind, n):
    """`measure` in a process of its own."""
    spawning = multiprocessing.get_context("spawn")
    results = spawning.Queue()
    process = spawning.Process(target=measure, args=(kind, n, results))
    process.start()
    while process.is_alive() and results.empty():
        time.sleep(0.1)
    assert not results.empty(), f"{kind}, {n}: what must hold does not"
    figures = results.get()
    process.join()
    return figures


def growth(figures):
    """The exponent of each part of the time between the two largest sizes."""
    (small, before), (large, after) = sorted(figures.items())[-2:]
    parts = ("fingerprint_s", "search_s", "compare_s")
    ratio = math.log(large / small)
    return {part: round(math.log(max(after[part], 0.01) / max(before[part], 0.01)) / ratio, 2) for part in parts}


def _share(pairs, copies):
    return round(sum((row - 1, row) in pairs for row in copies) / len(copies), 4) if copies else None


@pytest.mark.benchmark(group="audit: copies among n photographs")
@pytest.mark.parametrize("kind", SIZES)
def test_near_duplicates(benchmark, kind):
    figures = benchmark.pedantic(lambda: {n: measured_alone(kind, n) for n in SIZES[kind]}, rounds=1)
    benchmark.extra_info.update({f"{n:,}": each for n, each in figures.items()} | {"growth": growth(figures)})


if __name__ == "__main__":
    chosen, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
    by_size = {}
    for size in sizes:
        by_size[size] = measured_alone(chosen, size)
        print(size, by_size[size], flush=True)
    if len(sizes) > 1:
        print("growth", growth(by_size))
