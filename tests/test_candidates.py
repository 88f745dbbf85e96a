"""Fingerprints turn with their pictures, and the search among them finds what comparing all pairs finds, up to a stated bound."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.fft import dctn

from made_close_ups import brightened, encoded, framed, skin
from predilect.atlas.candidates import COSINE, RADIUS, differing_signs, find_candidates
from predilect.atlas.fingerprints import SIDE, Fingerprints, fingerprint, oriented, oriented_coefficients, thumbnails


def test_a_fingerprint_holds_the_low_end_of_the_cosine_transform():
    files = [encoded(skin(seed)) for seed in range(4)]
    found = fingerprint(files, np.arange(4)).coefficients[:, 0].astype(np.float64)
    frequencies = [(u, v) for u in range(11) for v in range(11) if 0 < u + v <= 10 and (u, v) != (5, 5)]
    for row, picture in enumerate(thumbnails(files, np.arange(4))):
        transform = dctn(picture.astype(np.float64))
        other = np.array([transform[u, v] for u, v in frequencies])
        assert found[row] @ other / np.linalg.norm(other) > 0.999


@pytest.mark.parametrize("orientation", range(8))
def test_the_fingerprint_of_a_turned_picture_is_the_turned_fingerprint(orientation):
    files = [encoded(skin(3))]
    turned = Image.fromarray(oriented(thumbnails(files, np.arange(1)), orientation)[0])
    lossless = io.BytesIO()
    turned.save(lossless, "PNG")
    expected = oriented_coefficients(fingerprint(files, np.arange(1)).coefficients[0, 0], orientation)
    found = fingerprint([lossless.getvalue()], np.arange(1)).coefficients[0, 0]
    assert np.allclose(found.astype(float), expected.astype(float), atol=2e-3)


def random_fingerprints(n: int, seed: int) -> Fingerprints:
    """Coefficients around a few common ones, so that there are pairs at every distance, and copies in every orientation."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(7, 1, 64))[rng.integers(0, 7, n)] + rng.uniform(0.02, 0.6, (n, 1, 1)) * rng.normal(
        size=(n, 6, 64)
    )
    coefficients /= np.linalg.norm(coefficients, axis=2, keepdims=True)
    coefficients = coefficients.astype(np.float16)
    for orientation in range(8):
        coefficients[orientation] = oriented_coefficients(coefficients[20], orientation)
    return Fingerprints(coefficients, np.full(n, 20, dtype=np.float32), np.zeros((n, SIDE // 2, SIDE // 2), dtype=np.uint8))


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate by the definition: in how many signs the two differ, at least, and the cosine from either side; -1 if not near."""

    distance: int
    cosines: tuple[float, float]


@cache
def candidates_one_by_one(n: int, seed: int) -> dict[tuple[int, int, int], Pair]:
    """The definition, pair by pair: any of six parts of one, or it in any orientation, near the whole of the other."""
    prints = random_fingerprints(n, seed)
    found: dict[tuple[int, int, int], Pair] = {}
    whole = prints.coefficients[:, 0]
    asked = [(part, 0) for part in range(6)] + [(0, orientation) for orientation in range(1, 8)]
    for i, j in ((i, j) for i in range(len(whole)) for j in range(len(whole)) if i != j):
        for part, orientation in asked:
            laid = oriented_coefficients(prints.coefficients[i, part], orientation)
            distance = int(((laid > 0) != (whole[j] > 0)).sum())
            cosine = float(laid.astype(np.float32) @ whole[j].astype(np.float32))
            if distance <= RADIUS and cosine >= COSINE:
                back = {5: 6, 6: 5}.get(orientation, orientation)
                key = (i, j, orientation) if i < j else (j, i, back)
                before = found.get(key, Pair(64, (-1.0, -1.0)))
                cosines = list(before.cosines)
                cosines[i > j] = max(cosines[i > j], cosine)
                found[key] = Pair(min(before.distance, distance), (cosines[0], cosines[1]))
    return found


SEARCHES = pytest.mark.parametrize("dense", [False, True], ids=["by signs", "by cosines"])


@SEARCHES
@pytest.mark.parametrize("seed", range(2))
def test_the_search_finds_what_comparing_all_pairs_finds(seed, dense, monkeypatch):
    monkeypatch.setattr("predilect.atlas.candidates._BLOCK", 17)  # several blocks
    monkeypatch.setattr("predilect.atlas.candidates._DENSE", -1 if dense else 1)
    prints = random_fingerprints(44, seed)
    found = find_candidates(prints)
    rows = found.pairs.select("first", "second", "orientation").rows()
    distances = differing_signs(prints, found.pairs).tolist()
    expected = candidates_one_by_one(44, seed)
    assert rows == sorted(expected)
    assert not found.crowded.any()
    assert all(distance <= expected[row].distance <= RADIUS for row, distance in zip(rows, distances, strict=True))
    upright = [(prints.coefficients[i] > 0, prints.coefficients[j] > 0) for i, j, orientation in rows if orientation == 0]
    least = [min(*((part != b[0]).sum() for part in a), *((part != a[0]).sum() for part in b)) for a, b in upright]
    assert [distance for row, distance in zip(rows, distances, strict=True) if row[2] == 0] == least
    assert len(rows) > 30
    assert {orientation for _, _, orientation in rows} == set(range(8))


@SEARCHES
@pytest.mark.parametrize("most", [1, 2, 5])
def test_of_one_photograph_the_nearest_candidates_are_kept_and_who_has_more_is_told(most, dense, monkeypatch):
    monkeypatch.setattr("predilect.atlas.candidates._BLOCK", 17)
    monkeypatch.setattr("predilect.atlas.candidates._DENSE", -1 if dense else 1)
    prints = random_fingerprints(44, 1)
    found = find_candidates(prints, most=most)
    kept = set(found.pairs.select("first", "second", "orientation").rows())
    expected = candidates_one_by_one(44, 1)
    own = [
        {
            key: pair.cosines[side]
            for key, pair in expected.items()
            for side in (0, 1)
            if key[side] == row and pair.cosines[side] > 0
        }
        for row in range(44)
    ]
    assert found.crowded.tolist() == [len(cosines) > most for cosines in own]
    assert 0 < found.crowded.sum() < 44
    assert len(kept) <= most * 44
    least = [sorted(cosines.values())[-most] if len(cosines) > most else 0.0 for cosines in own]
    rounding = 1e-6  # cosines that are equal by the definition may differ by it
    for key, pair in expected.items():
        margins = [pair.cosines[side] - least[key[side]] for side in (0, 1) if pair.cosines[side] > 0]
        assert key in kept or max(margins) <= rounding
        assert key not in kept or max(margins) >= -rounding
        assert key in kept or found.crowded[[key[0], key[1]]].any()


def test_a_search_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr("predilect.atlas.candidates._BLOCK", 17)
    told = []
    find_candidates(random_fingerprints(44, 0), on_progress=lambda *step: told.append(step))
    assert told == [(17, 44), (34, 44), (44, 44)]


def test_like_black_frames_do_not_make_candidates_of_all():
    prints = fingerprint([encoded(framed("a round field", seed)) for seed in range(20)], np.arange(20))
    upright = find_candidates(prints).pairs.filter(pl.col("orientation") == 0)
    assert upright.height < 190 / 2


def test_a_black_picture_keeps_its_fingerprint():
    image = brightened(skin(3), 0.08)
    found = fingerprint([encoded(image)], np.arange(1)).coefficients[0, 0].astype(float)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-2)
