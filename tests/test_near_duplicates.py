"""The search for copies as a whole: altered copies are found and strangers are not, and what was not compared is told."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from made_close_ups import ALTERED, FRAMES, encoded, framed, skin
from predilect.atlas.candidates import find_candidates
from predilect.atlas.fingerprints import fingerprint
from predilect.atlas.near_duplicates import NearDuplicates, duplicate_clusters, find_near_duplicates


def search(files: list[bytes]) -> pl.DataFrame:
    """The pairs, where all candidates were compared."""
    found = searched(files)
    assert found.crowded.tolist() == []
    return found.pairs


def searched(files: list[bytes]) -> NearDuplicates:
    return find_near_duplicates(files, [str(hash(data)) for data in files])


def test_altered_copies_are_found_among_photographs_that_look_alike():
    originals = [skin(seed) for seed in range(16)]
    files = [encoded(image) for image in originals] + [alter(originals[k]) for k in range(4) for alter in ALTERED.values()]
    pairs = search(files)
    found = {(first, second): orientation for first, second, orientation in pairs.select("first", "second", "orientation").rows()}
    recall = {}
    for place, name in enumerate(ALTERED):
        copies = [16 + k * len(ALTERED) + place for k in range(4)]
        recall[name] = sum((k, copy) in found for k, copy in enumerate(copies)) / 4
    assert min(recall.values()) == 1, recall
    source = [*range(16), *(k for k in range(4) for _ in ALTERED)]
    assert all(source[first] == source[second] for first, second in found)
    laid = dict(zip(ALTERED, (found[0, 16 + place] for place in range(len(ALTERED))), strict=True))
    assert [laid[name] for name in ("quality 30", "mirrored", "turned right", "turned left", "upside down")] == [0, 1, 5, 6, 3]


def test_equal_bytes_and_equal_pixels_are_told_apart():
    image = skin(1)
    same = encoded(image)
    files = [encoded(skin(0)), same, same, encoded(image, progressive=True), encoded(image, quality=80)]
    assert files[1] != files[3]
    with Image.open(io.BytesIO(files[1])) as first, Image.open(io.BytesIO(files[3])) as second:
        assert np.array_equal(np.asarray(first), np.asarray(second))
    pairs = search(files).select("first", "second", "kind").rows()
    assert pairs == [(1, 2, "file"), (1, 3, "pixels"), (1, 4, "near")]


def test_photographs_without_contrast_are_copies_only_if_their_pixels_are_equal():
    grey, darker = (Image.new("RGB", (80, 60), (value, value, value)) for value in (120, 119))
    files = [encoded(grey), encoded(darker), encoded(grey, optimize=True), encoded(grey.resize((60, 60))), encoded(skin(0))]
    assert search(files).select("first", "second", "kind").rows() == [(0, 2, "pixels")]


def test_plain_skin_that_hashes_alike_is_not_taken_for_copies():
    rng = np.random.default_rng(5)
    light = gaussian_filter(rng.normal(size=(240, 320)), 20)
    light *= 25 / light.std()  # of the room in which all were taken
    files = [
        encoded(
            Image.fromarray((160 + light + 25 * gaussian_filter(rng.normal(0, 4, light.shape), 2)).clip(0, 255).astype(np.uint8))
        )
        for _ in range(30)
    ]
    prints = fingerprint(files, np.arange(30))
    assert find_candidates(prints).pairs.height > 10
    assert search(files).is_empty()


def test_the_first_of_many_equal_pictures_stands_for_all():
    image = skin(2)
    files = [encoded(image, comment=f"{k}".encode()) for k in range(30)] + [encoded(image, quality=70)]
    found = searched(files)
    assert found.pairs.select("first", "second", "kind").rows() == [*((0, k, "pixels") for k in range(1, 30)), (0, 30, "near")]
    assert found.n_candidates == 1


@pytest.mark.parametrize("name", FRAMES)
def test_copies_of_framed_photographs_are_found(name):
    files = [encoded(framed(name, seed)) for seed in range(8)]
    names = ("quality 60", "15 % darker", "half the size", "mirrored")
    copies = [ALTERED[alteration](framed(name, seed)) for seed in range(8) for alteration in names]
    found = set(search([*files, *copies]).select("first", "second").rows())
    assert {(k, 8 + k * len(names) + place) for k in range(8) for place in range(len(names))} <= found
    source = [*range(8), *(k for k in range(8) for _ in names)]
    assert all(source[first] == source[second] for first, second in found)


def test_in_a_crowd_the_nearest_are_compared_and_who_is_in_it_is_told(monkeypatch):
    monkeypatch.setattr("predilect.atlas.near_duplicates.find_candidates", partial(find_candidates, most=3))
    originals = [skin(100, 240, 320), *(framed("a drape", seed) for seed in range(14))]
    names = ("quality 30", "15 % darker", "half the size", "mirrored")
    files = [encoded(image) for image in originals] + [ALTERED[name](image) for image in originals[1:3] for name in names]
    found = searched(files)
    copies = {(1 + k, len(originals) + k * len(names) + place) for k in range(2) for place in range(len(names))}
    pairs = set(found.pairs.select("first", "second").rows())
    clusters = duplicate_clusters(found.pairs, [f"i{row:02}" for row in range(len(files))])
    assert clusters["cluster"].value_counts(sort=True).rows() == [("i01", 5), ("i02", 5)]
    assert pairs & copies
    assert found.n_candidates <= 3 * len(files)
    assert found.crowded.tolist() == sorted(found.crowded.tolist())
    assert set(range(1, 15)) <= set(found.crowded.tolist())
    assert 0 not in found.crowded  # it resembles nothing
    monkeypatch.setattr("predilect.atlas.near_duplicates.find_candidates", find_candidates)
    whole = searched(files)
    assert (whole.crowded.tolist(), whole.n_candidates > 3 * len(files)) == ([], True)
    assert copies <= set(whole.pairs.select("first", "second").rows())


def test_rows_of_a_crowd_are_those_of_the_images_not_of_what_was_searched_for(monkeypatch):
    monkeypatch.setattr("predilect.atlas.near_duplicates.find_candidates", partial(find_candidates, most=2))
    first = encoded(skin(100))
    files = [first, first, encoded(Image.new("RGB", (80, 60))), *(encoded(framed("a drape", seed)) for seed in range(8))]
    crowded = searched(files).crowded.tolist()
    assert len(crowded) > 5
    assert set(crowded) <= set(range(3, 11))


def test_progress_is_told_to_the_end_and_lengths_must_agree():
    for files in ([encoded(skin(seed)) for seed in range(3)], [encoded(framed("a drape", seed)) for seed in range(8)], []):
        told: list[tuple[int, int]] = []
        find_near_duplicates(files, [str(k) for k in range(len(files))], on_progress=lambda *step, told=told: told.append(step))
        assert told[-1] == (3 * len(files), 3 * len(files))
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert {total for _, total in told} == {3 * len(files)}
    with pytest.raises(ValueError, match="1 images, but 2 hashes"):
        find_near_duplicates([encoded(skin(0))], ["a", "b"])


def test_no_photograph_is_no_error():
    found = find_near_duplicates([], [])
    assert (found.pairs.height, found.n_candidates, len(found.crowded)) == (0, 0, 0)
    assert duplicate_clusters(found.pairs, []).is_empty()


@given(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] < pair[1]), max_size=14))
def test_clusters_are_the_connected_components(pairs):
    table = pl.DataFrame(sorted(pairs), schema={"first": pl.Int64, "second": pl.Int64}, orient="row")
    names = [f"i{k:02}" for k in range(12)]
    clusters = {frozenset({k}) for k in range(12)}
    for first, second in pairs:
        joined = frozenset().union(*(cluster for cluster in clusters if {first, second} & cluster))
        clusters = {cluster for cluster in clusters if not cluster & joined} | {joined}
    expected = {(names[k], names[min(cluster)]) for cluster in clusters if len(cluster) > 1 for k in cluster}
    assert set(duplicate_clusters(table, names).rows()) == expected
