"""The audit: copies are found and nothing else is, counts are right, and splits, runs and reports use what was found."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from made_evaluation import made_evaluation
from predilect.atlas import examine as examine_module
from predilect.atlas.alignment import halved, resemblance, resemblance_at_half, resemblance_in_full
from predilect.atlas.audit import AUDIT_FILE, Audit, audit_of, audit_schema, pixel_hash
from predilect.atlas.build import build_atlas, replay
from predilect.atlas.candidates import COSINE, RADIUS, differing_signs, find_candidates
from predilect.atlas.examine import examine, near_duplicate_clusters
from predilect.atlas.fingerprints import (
    SIDE,
    Fingerprints,
    fingerprint,
    oriented,
    oriented_coefficients,
    thumbnails,
)
from predilect.atlas.folder import Atlas
from predilect.atlas.groups import connected_groups
from predilect.atlas.importers import SOURCES
from predilect.atlas.near_duplicates import confirm, duplicate_clusters, find_near_duplicates
from predilect.atlas.quality import measure_quality
from predilect.atlas.splits import Splits, make_splits
from predilect.atlas.synthetic import draw_atlas, paint, sample_photos
from predilect.atlas.tallies import quality_of, spread
from predilect.cli import main
from predilect.cli.data import note_stale_audit, split_atlas, splits_of
from predilect.errors import AtlasError, RunError, SplitError
from predilect.files import seal
from predilect.labels.taxonomy import Taxonomy
from predilect.report.audit_page import audit_cautions, described, share, write_audit_page
from predilect.report.report import build_report, write_report
from predilect.run import Run

TAXONOMY = Taxonomy.from_toml(
    'schema_version = 1\nname = "t"\ndrop_below = 1\n[lesion]\nunknown_terms = "keep"\nmachine = ["scale"]\n[site]\nunknown_terms = "keep"\n',
    "t",
)


@cache
def skin(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """A made close-up: a dark spot amid plain skin, alike from afar whatever the seed, with grain and furrows of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    spot = np.exp(-(((y - rng.normal(0, 0.05)) / 0.25) ** 2 + ((x - rng.normal(0, 0.05)) / 0.25) ** 2) * rng.uniform(0.8, 1.2))
    furrows = gaussian_filter(rng.normal(size=(height, width)), 2.5)
    grey = 190 + 18 * x * rng.uniform(-1, 1) - 110 * spot + 9 * furrows / furrows.std() + rng.normal(0, 2, (height, width))
    return Image.fromarray(np.stack([grey, 0.8 * grey, 0.7 * grey], axis=2).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG", **({"quality": 92} | options))
    return target.getvalue()


def cropped(image: Image.Image, part: float, left: float = 0.7, top: float = 0.2) -> Image.Image:
    width, height = image.size
    x, y = left * part * width, top * part * height
    return image.crop((round(x), round(y), round(x + (1 - part) * width), round(y + (1 - part) * height)))


def brightened(image: Image.Image, gain: float) -> Image.Image:
    return image.point(lambda value: min(255, round(gain * value)))


ALTERED: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 30": lambda image: encoded(image, quality=30),
    "quality 60": lambda image: encoded(image, quality=60),
    "quality 95": lambda image: encoded(image, quality=95),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)),
    "2 % cut off": lambda image: encoded(cropped(image, 0.02)),
    "5 % cut off": lambda image: encoded(cropped(image, 0.05)),
    "5 % of another corner": lambda image: encoded(cropped(image, 0.05, 0, 1)),
    "15 % brighter": lambda image: encoded(brightened(image, 1.15)),
    "15 % darker": lambda image: encoded(brightened(image, 0.85)),
    "grey": lambda image: encoded(image.convert("L")),
    "5 % cut off, darker, quality 50": lambda image: encoded(brightened(cropped(image, 0.05), 0.88), quality=50),
    "mirrored": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "turned right": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_270)),
    "turned left": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_90)),
    "upside down": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_180)),
}


def search(files: list[bytes]) -> pl.DataFrame:
    names = [str(hash(data)) for data in files]
    return find_near_duplicates(files, names)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Atlas:
    """A drawn atlas of 200 photographs; five are near-duplicates, two of them under another patient."""
    folder = draw_atlas(tmp_path_factory.mktemp("drawn") / "drawings", n_images=200, size=96, seed=6)
    return build_atlas(SOURCES["imagefolder"](folder), Taxonomy.preset("drawn"), tmp_path_factory.mktemp("atlas") / "drawn")


@pytest.fixture
def clinic(tmp_path) -> Atlas:
    """Eight photographs of two sources: a copy under another label and patient, equal pixels under other bytes, a rejected row."""
    root = tmp_path / "photographs"
    root.mkdir()
    images = [skin(seed) for seed in range(8)]
    images[5] = cropped(images[0], 0.04)
    for k, image in enumerate(images):
        image.save(root / f"p{k}.jpg", quality=92)
    images[1].save(root / "p6.jpg", quality=92, progressive=True)
    (root / "p8.jpg").write_bytes(b"no image")
    Image.new("RGB", (200, 150), (120, 90, 80)).save(root / "p7.jpg")
    lines = [
        "p0.jpg,crust,arm,A,ann,40,female,I,fitzpatrick",
        "p1.jpg,crust;scale,arm,A,ann,40,female,I,fitzpatrick",
        "p2.jpg,scale,face,A,ben,,male,,",
        "p3.jpg,none,,A,ben,,male,,",
        "p4.jpg,,face,B,ben,60,,,",
        "p5.jpg,scale,arm,B,cat,61,,,",
        "p6.jpg,crust;scale,arm,A,ann,40,female,I,fitzpatrick",
        "p7.jpg,crust,arm,B,,,,,",
        "p8.jpg,crust,arm,B,,,,,",
    ]
    header = "file_name,lesions,site,source,patient_id,age,sex,skin_tone,skin_tone_scale"
    (root / "metadata.csv").write_text("\n".join([header, *lines]) + "\n")
    return build_atlas(SOURCES["imagefolder"](root), TAXONOMY, tmp_path / "clinic", max_rejected=1)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code)


# Fingerprints and candidates


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


def candidates_one_by_one(prints: Fingerprints) -> dict[tuple[int, int, int], int]:
    """The definition, pair by pair: any of six parts of one, or it in any orientation, near the whole of the other."""
    found: dict[tuple[int, int, int], int] = {}
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
                found[key] = min(found.get(key, 64), distance)
    return found


@pytest.mark.parametrize("seed", range(2))
def test_the_search_finds_what_comparing_all_pairs_finds(seed, monkeypatch):
    monkeypatch.setattr("predilect.atlas.candidates._BLOCK", 17)  # several blocks
    prints = random_fingerprints(44, seed)
    rows = [row for table, _ in find_candidates(prints) for row in table.select("first", "second", "orientation").rows()]
    distances = differing_signs(prints, pl.DataFrame(rows, schema=["first", "second", "orientation"], orient="row"))
    expected = candidates_one_by_one(prints)
    assert set(rows) == set(expected)
    assert all(distance <= expected[row] <= RADIUS for row, distance in zip(rows, distances.tolist(), strict=True))
    upright = [(prints.coefficients[i] > 0, prints.coefficients[j] > 0) for i, j, orientation in rows if orientation == 0]
    least = [min(*((part != b[0]).sum() for part in a), *((part != a[0]).sum() for part in b)) for a, b in upright]
    assert [distance for row, distance in zip(rows, distances.tolist(), strict=True) if row[2] == 0] == least
    assert len(rows) == len(expected) > 30
    assert {orientation for _, _, orientation in expected} == set(range(8))


# Confirmation


def test_resemblance_is_1_of_equal_pictures_and_near_0_of_others_that_look_alike_from_afar():
    pictures = thumbnails([encoded(skin(seed)) for seed in range(16)], np.arange(16))
    assert resemblance(pictures, pictures) == pytest.approx(np.ones(16), abs=1e-6)
    pairs = np.array(list(combinations(range(16), 2)))
    flat = pictures.reshape(16, -1).astype(float)
    assert np.median(np.corrcoef(flat)[tuple(pairs.T)]) > 0.6  # from afar
    assert resemblance(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).max() < 0.3


def test_resemblance_undoes_a_crop_and_a_change_of_light():
    files = [encoded(skin(seed)) for seed in range(8)]
    changed = [encoded(brightened(cropped(skin(seed), 0.07, seed / 8, 1 - seed / 8), 0.85)) for seed in range(8)]
    rows = np.arange(8)
    found = resemblance(thumbnails(files, rows), thumbnails(changed, rows))
    assert found.min() > 0.6
    assert resemblance(thumbnails(changed, rows), thumbnails(files, rows)) == pytest.approx(found, abs=0.15)


def test_a_picture_without_detail_resembles_nothing():
    plain = np.full((1, SIDE, SIDE), 128, dtype=np.uint8)
    assert resemblance(plain, plain) == 0
    assert resemblance(plain, thumbnails([encoded(skin(0))], np.arange(1))) == 0


def test_a_copy_passes_at_half_resolution_and_in_full():
    files = [encoded(skin(4)), encoded(cropped(skin(4), 0.05))]
    pictures = thumbnails(files, np.arange(2))
    first, second = pictures[:1], pictures[1:]
    half, pose = resemblance_at_half(halved(first), halved(second))
    full = resemblance_in_full(first, second, pose)
    assert resemblance(first, second) == min(half, full)
    assert min(half, full) > 0.6
    scale_y, shift_y, scale_x, shift_x = pose[0]  # 5 % are cut off, from the left 0.7 of it and from the top 0.2
    assert [scale_y, scale_x] == pytest.approx([1 / 0.95] * 2, abs=0.01)
    assert [shift_y, shift_x] == pytest.approx([0.6 * 0.05 / 0.95, -0.4 * 0.05 / 0.95], abs=0.01)


# The whole search


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
    assert sum(table.height for table, _ in find_candidates(prints)) > 10
    assert search(files).is_empty()


def test_the_first_of_many_equal_pictures_stands_for_all(monkeypatch):
    image = skin(2)
    files = [encoded(image, comment=f"{k}".encode()) for k in range(30)] + [encoded(image, quality=70)]
    looked_at = []
    monkeypatch.setattr(
        "predilect.atlas.near_duplicates.confirm", lambda *given: (looked_at.append(given[3].height), confirm(*given))[1]
    )
    pairs = search(files)
    assert pairs.select("first", "second", "kind").rows() == [
        *((0, k, "pixels") for k in range(1, 30)),
        (0, 30, "near"),
    ]
    assert sum(looked_at) == 1


FRAMES: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "a round field": lambda draw, _: field(draw, 14, 14, (0, 0, 0)),
    "a round field, moved": lambda draw, seed: field(draw, 10 + seed % 5, 10 + seed % 4, (0, 0, 0)),
    "a round field in blue": lambda draw, _: field(draw, 14, 14, (40, 80, 160)),
    "a black bar": lambda draw, _: draw.rectangle((20, 100, 268, 140), fill=(0, 0, 0)),
    "a white bar": lambda draw, _: draw.rectangle((20, 100, 268, 140), fill=(255, 255, 255)),
    "a letterbox": lambda draw, _: [draw.rectangle((0, top, 288, top + 40), fill=(0, 0, 0)) for top in (0, 248)],
    "a drape": lambda draw, _: draw.polygon([(0, 0), (288, 0), (288, 60), (70, 80), (50, 288), (0, 288)], fill=(70, 110, 170)),
    "a ruler": lambda draw, _: ruler(draw),
}


def field(draw: ImageDraw.ImageDraw, left: int, top: int, colour: tuple[int, int, int]) -> None:
    outside = Image.new("1", (288, 288), 1)
    ImageDraw.Draw(outside).ellipse((left, top, left + 260, top + 260), fill=0)
    draw.bitmap((0, 0), outside, fill=colour)


def ruler(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 238, 288, 288), fill=(235, 235, 228))
    for k in range(32):
        draw.line((9 * k, 238, 9 * k, 262 if k % 5 == 0 else 251), fill=(30, 30, 30), width=2)


def framed(name: str, seed: int) -> Image.Image:
    image = skin(seed, 288, 288).copy()
    FRAMES[name](ImageDraw.Draw(image), seed)
    return image


@pytest.mark.parametrize("name", FRAMES)
def test_different_photographs_in_one_frame_are_not_joined(name):
    pictures = thumbnails([encoded(framed(name, seed)) for seed in range(16)], np.arange(16))
    pairs = np.array(list(combinations(range(16), 2)))
    assert resemblance(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).max() < 0.3


@pytest.mark.parametrize("name", FRAMES)
def test_copies_of_framed_photographs_are_found(name):
    files = [encoded(framed(name, seed)) for seed in range(8)]
    names = ("quality 60", "15 % darker", "half the size", "mirrored")
    copies = [ALTERED[alteration](framed(name, seed)) for seed in range(8) for alteration in names]
    found = set(search([*files, *copies]).select("first", "second").rows())
    assert {(k, 8 + k * len(names) + place) for k in range(8) for place in range(len(names))} <= found
    source = [*range(8), *(k for k in range(8) for _ in names)]
    assert all(source[first] == source[second] for first, second in found)


def test_something_printed_in_one_corner_does_not_make_copies():
    printed = (np.random.default_rng(1).uniform(0, 1, (90, 90)) > 0.5).repeat(3, 0).repeat(3, 1)[:90, :90]
    images = [np.asarray(skin(seed, 288, 288)).copy() for seed in range(8)]
    for image in images:
        image[20:110, 190:280] = 60 + 150 * gaussian_filter(printed.astype(float), 1)[..., None]
    pictures = thumbnails([encoded(Image.fromarray(image)) for image in images], np.arange(8))
    pairs = np.array(list(combinations(range(8), 2)))
    assert resemblance(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).max() < 0.3


def test_like_black_frames_do_not_make_candidates_of_all():
    prints = fingerprint([encoded(framed("a round field", seed)) for seed in range(20)], np.arange(20))
    upright = [table.filter(pl.col("orientation") == 0).height for table, _ in find_candidates(prints)]
    assert sum(upright) < 190 / 2


def test_a_black_picture_keeps_its_fingerprint():
    image = brightened(skin(3), 0.08)
    found = fingerprint([encoded(image)], np.arange(1)).coefficients[0, 0].astype(float)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-2)


def test_progress_is_told_to_the_end_and_lengths_must_agree():
    told = []
    find_near_duplicates([encoded(skin(seed)) for seed in range(3)], ["a", "b", "c"], on_progress=lambda *step: told.append(step))
    assert told[-1] == (6, 6)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    with pytest.raises(ValueError, match="1 images, but 2 hashes"):
        find_near_duplicates([encoded(skin(0))], ["a", "b"])


def test_no_photograph_is_no_error():
    assert find_near_duplicates([], []).is_empty()
    assert duplicate_clusters(find_near_duplicates([], []), []).is_empty()


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


# The drawn atlas, and its splits


def test_the_planted_copies_are_found_and_nothing_else_but_views_of_one_eruption(drawn):
    with drawn.images() as images:
        pairs = find_near_duplicates(images, drawn.photos["sha256"].to_list())
    names, cases, patients = (drawn.photos[column] for column in ("image_id", "case_id", "patient_id"))
    found = set(zip(names.gather(pairs["first"]), names.gather(pairs["second"]), strict=True))
    copies = drawn.photos.drop_nulls("near_duplicate_of")
    planted = set(copies.select("near_duplicate_of", "image_id").rows())
    assert len(planted) == 5
    assert planted <= found
    crossing = [pair for pair in pairs.select("first", "second").rows() if patients[pair[0]] != patients[pair[1]]]
    assert len(crossing) == 2
    assert {(names[first], names[second]) for first, second in crossing} <= planted
    assert all(
        cases[first] == cases[second] for first, second in pairs.select("first", "second").rows() if (first, second) not in crossing
    )


def test_split_keeps_copies_together_without_being_asked(drawn, capsys):
    crossing = drawn.photos.join(
        drawn.photos.select(near_duplicate_of="image_id", owner="patient_id"), on="near_duplicate_of"
    ).filter(pl.col("patient_id") != pl.col("owner"))
    assert crossing.height == 2
    by_ids = dict(zip(drawn.photos["image_id"], connected_groups(drawn.photos), strict=True))
    assert run("split", drawn.path, "--folds", "3") == 0
    assert "2 that join what no id joins" in capsys.readouterr().out
    splits = Splits.read(drawn.path / "splits.parquet")
    assert splits.clusters_joined == 2
    assert splits.in_order_of(splits.image_ids[::-1]).clusters_joined == 2
    group = dict(zip(splits.image_ids.tolist(), splits.groups.tolist(), strict=True))
    for copy, original in crossing.select("image_id", "near_duplicate_of").rows():
        assert group[copy] == group[original]
        assert by_ids[copy] != by_ids[original]


def test_an_audit_is_used_again_for_the_same_photographs_whatever_their_labels(clinic, monkeypatch, capsys):
    expected = near_duplicate_clusters(clinic)
    assert run("audit", clinic.path) == 0
    assert audit_of(clinic) is not None
    relabelled = replay(clinic.path, Taxonomy.from_toml(TAXONOMY.to_toml().replace("drop_below = 1", "drop_below = 3"), "u"))
    assert relabelled.content_hash != clinic.content_hash
    assert audit_of(relabelled) is None
    monkeypatch.setattr(examine_module, "find_near_duplicates", lambda *_, **__: pytest.fail("looked again"))
    assert near_duplicate_clusters(relabelled).sort("image_id").equals(expected.sort("image_id"))
    capsys.readouterr()
    assert run("split", clinic.path, "--folds", "2") == 0
    assert "1 that join what no id joins" in capsys.readouterr().out
    audit = Audit.read(clinic.path / AUDIT_FILE)
    audit.model_copy(update={"pixel_hash": "of other photographs"}).write(clinic.path / AUDIT_FILE)
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        near_duplicate_clusters(relabelled)


@pytest.mark.parametrize(("key", "value"), [("method", 1), ("resemblance", 0.9), ("radius", 3), ("cosine", 0.5), ("flat", 7.0)])
def test_an_audit_by_another_search_decides_no_split(clinic, key, value):
    audit = examine(clinic)
    other = audit.duplicates.model_copy(update={key: value, "clusters": ()})
    audit.model_copy(update={"duplicates": other}).write(clinic.path / AUDIT_FILE)
    assert near_duplicate_clusters(clinic)["image_id"].to_list() == ["p0", "p5", "p1", "p6"]


def test_an_audit_that_was_edited_is_refused(clinic):
    examine(clinic).write(clinic.path / AUDIT_FILE)
    value = json.loads((clinic.path / AUDIT_FILE).read_text())
    value["duplicates"]["clusters"] = []
    (clinic.path / AUDIT_FILE).write_text(json.dumps(value))
    with pytest.raises(AtlasError, match=r"audit.json is not what was written .*; make it again with: predilect audit"):
        near_duplicate_clusters(clinic)


def test_a_huge_cluster_is_told_of_when_splitting(clinic, monkeypatch, capsys):
    split_atlas(clinic, folds=2)
    assert "largest cluster" not in capsys.readouterr().out
    monkeypatch.setattr("predilect.cli.data.LONG_CHAIN", 1)
    split_atlas(clinic, folds=2)
    out = capsys.readouterr().out
    assert "The largest cluster of copies, p0, has 2 photographs" in out
    assert f"predilect audit {clinic.path} lists them" in out


def test_a_stale_audit_is_told_of_before_a_run_and_not_when_it_goes_on(clinic, tmp_path, capsys):
    note_stale_audit(clinic, tmp_path)
    audit = examine(clinic)
    audit.write(clinic.path / AUDIT_FILE)
    note_stale_audit(clinic, tmp_path)
    assert capsys.readouterr().out == ""
    audit.model_copy(update={"content_hash": "of other labels"}).write(clinic.path / AUDIT_FILE)
    note_stale_audit(clinic, tmp_path)
    assert "the report will show no audit; predilect audit" in capsys.readouterr().out
    (tmp_path / "run.json").write_text("{}")
    (clinic.path / AUDIT_FILE).write_text("damaged")
    note_stale_audit(clinic, tmp_path)
    assert capsys.readouterr().out == ""


def test_splits_say_whether_copies_were_looked_for(clinic, tmp_path, capsys):
    without = make_splits(clinic.photos, clinic.labels.columns, folds=2, content_hash="h")
    without.write(tmp_path / "splits.parquet")
    assert Splits.read(tmp_path / "splits.parquet").clusters_joined is None
    make_splits(clinic.photos, clinic.labels.columns, folds=2, content_hash=clinic.content_hash).write(
        clinic.path / "splits.parquet"
    )
    splits_of(clinic)
    assert "was made without looking for copies" in capsys.readouterr().out
    without.to_frame().write_parquet(
        tmp_path / "bad.parquet",
        metadata={
            "predilect.schema_version": "1",
            "predilect.content_hash": "h",
            "predilect.seed": "0",
            "predilect.clusters_joined": "many",
        },
    )
    with pytest.raises(SplitError, match="'many', it must be a whole number"):
        Splits.read(tmp_path / "bad.parquet")


# The document


def test_the_audit_counts_what_is_there_and_what_is_not(clinic):
    audit = examine(clinic)
    assert audit.n_photographs == 8
    assert audit.content_hash == clinic.content_hash
    assert [cluster.image_ids for cluster in audit.duplicates.clusters] == [("p0", "p5"), ("p1", "p6")]
    across, within = audit.duplicates.clusters
    assert (across.n_patients, across.sources, across.joins_groups, across.n_lesions) == (2, ("A", "B"), True, 0)
    assert [(item.name, item.present, item.absent) for item in across.conflicts] == [
        ("crust", ("p0",), ("p5",)),
        ("scale", ("p5",), ("p0",)),
    ]
    assert (within.joins_groups, within.conflicts) == (False, ())
    assert [(pair.first, pair.second, pair.kind) for pair in audit.duplicates.pairs] == [
        ("p0", "p5", "near"),
        ("p1", "p6", "pixels"),
    ]
    copies = audit.duplicates
    assert (copies.n_joining, copies.n_conflicting, copies.n_across_sources, copies.n_across_patients) == (1, 1, 1, 1)
    classes = {item.name: (item.present, item.absent, item.unknown, item.patients, item.groups) for item in audit.classes}
    assert classes == {
        "crust": (4, 3, 1, 1, 2),  # ann, and p7 of nobody; p0 and p5 bring ann and cat into one group
        "scale": (4, 3, 1, 3, 2),
        "arm": (5, 2, 1, 2, 2),
        "face": (2, 5, 1, 2, 2),  # ben of source A is another than ben of source B
    }
    assert {item.name for item in audit.classes if item.machine_made} == {"scale"}
    assert [
        (item.source, item.n, item.missing["age"], item.missing["site"], item.missing["lesions"]) for item in audit.missing
    ] == [
        (None, 8, 3, 1, 1),
        ("A", 5, 2, 1, 0),
        ("B", 3, 1, 0, 1),
    ]
    crust = next(item for item in audit.missing_by_class if item.name == "crust")
    assert (crust.n, crust.missing["patient_id"], crust.missing["skin_tone"]) == (4, 1, 1)
    owners = {item.what: item for item in audit.owners}
    assert owners["patient"].histogram == ((1, 2), (2, 1), (3, 1))
    assert (owners["patient"].n_without, owners["lesion"].n_without, owners["lesion"].per_owner.mean) == (1, 8, None)
    assert sum(size * n for size, n in owners["group"].histogram) == 8
    assert audit.resolution.below_crop == ("p7",)
    assert audit.quality.uniform == ("p7",)
    assert (audit.quality.dark, audit.quality.overexposed, audit.quality.sharpness_limit) == ((), (), None)
    assert audit.rejected.rejected == 1
    assert audit.rejected.reasons[0][1] == 1


def test_the_audit_is_written_and_read_and_keeps_to_its_schema(clinic, tmp_path):
    audit = examine(clinic)
    audit.write(tmp_path / AUDIT_FILE)
    assert Audit.read(tmp_path / AUDIT_FILE) == audit
    value = json.loads((tmp_path / AUDIT_FILE).read_text())
    stored = Path(write_audit_page.__code__.co_filename).parent / "schemas" / "audit.schema.json"
    assert json.loads(stored.read_text()) == audit_schema()
    jsonschema.validate(value, audit_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value | {"surplus": 1}, audit_schema())
    (tmp_path / "later.json").write_text(json.dumps(value | {"schema_version": 2}))
    with pytest.raises(AtlasError, match=r"later.json: found schema_version 2, .* reads 1; make it again with: predilect audit"):
        Audit.read(tmp_path / "later.json")
    del value["duplicates"]["clusters"][0]["image_ids"], value["sha256"]
    (tmp_path / "damaged.json").write_text(json.dumps(seal(value)))
    with pytest.raises(AtlasError, match=r"damaged.json: duplicates.clusters.0.image_ids: Field required"):
        Audit.read(tmp_path / "damaged.json")


def test_the_golden_audit_reads_and_is_what_an_audit_finds_today():
    folder = Path(__file__).parent / "golden" / "atlas"
    audit = Audit.read(folder / AUDIT_FILE)
    assert audit_of(Atlas.open(folder)) == audit
    assert (audit.n_photographs, audit.duplicates.clusters, audit.rejected.rejected) == (7, (), 1)
    assert [(item.name, item.present, item.absent, item.unknown) for item in audit.classes if item.task == "lesion"] == [
        ("erosion/ulcer", 1, 4, 2),
        ("excoriation", 1, 4, 2),
        ("papule", 3, 3, 1),
        ("scale", 1, 3, 3),
    ]
    assert audit.missing[0].missing["lesions"] == 1


def test_the_pixel_hash_changes_with_pixels_and_order_and_not_with_labels(clinic):
    photos = clinic.photos
    assert pixel_hash(photos) == pixel_hash(photos.with_columns(pl.lit(1).alias("lesion/crust")))
    assert pixel_hash(photos) != pixel_hash(photos.reverse())
    assert pixel_hash(photos) != pixel_hash(photos.with_columns(sha256=pl.lit("0")))


def test_the_command_prints_aligned_tables_and_where_the_audit_is(clinic, capsys):
    assert run("audit", clinic.path) == 0
    out = capsys.readouterr().out
    for words in (
        "lesion/crust",
        "p0, p5",
        "patients, sources",
        "lesion/crust, lesion/scale",
        "2 clusters with 4 photographs",
        "1 row rejected",
        "Labels differ within 1 cluster of copies",
        str(clinic.path / AUDIT_FILE),
    ):
        assert words in out, words
    assert run("audit", clinic.path / "nowhere") == 1


# Sharpness and light


def test_blur_darkness_and_glare_are_told_from_ordinary_photographs():
    images = [skin(seed) for seed in range(40)]
    images[3] = Image.fromarray(gaussian_filter(np.asarray(images[3]), (4, 4, 0)))
    images[4] = brightened(images[4], 0.1)
    images[5] = brightened(images[5], 1.6)
    images[6] = images[6].resize((160, 120))
    files = [encoded(image) for image in images]
    measured = measure_quality(files)
    assert measured["sharpness"].null_count() == 1
    assert measured["sharpness"][6] is None
    names = pl.Series([f"i{k:02}" for k in range(40)])
    found = quality_of(names, measured)
    assert {name for name, _ in found.blurred} <= {"i03", "i04"}
    assert "i03" in {name for name, _ in found.blurred}
    assert found.dark == ("i04",)
    assert found.overexposed == ("i05",)
    assert found.sharpness.n == 39


def test_sharpness_does_not_depend_on_how_large_a_photograph_was_packed():
    large = skin(2, 448, 597)
    small = large.resize((round(597 / 2), 224), Image.Resampling.BOX)
    found = measure_quality([encoded(large, quality=98, subsampling=0), encoded(small, quality=98, subsampling=0)])["sharpness"]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_the_darkest_drawn_skin_is_not_called_dark():
    darkest = [drawing for drawing in sample_photos(200, 1) if drawing.sitter.tone == 10][:4]
    assert len(darkest) == 4
    measured = measure_quality([encoded(paint(drawing, 96)) for drawing in darkest])
    assert quality_of(pl.Series(["a", "b", "c", "d"]), measured).dark == ()


def test_a_spread_of_nothing_is_null():
    assert spread(pl.Series([None, None], dtype=pl.Float64)).model_dump() == {
        "n": 0, "minimum": None, "p05": None, "median": None, "p95": None, "maximum": None, "mean": None,
    }  # fmt: skip
    assert spread(pl.Series([1, 2, 9])).median == 2


# Run and report


def test_a_run_carries_the_audit_into_its_report(clinic, tmp_path, monkeypatch):
    audit = examine(clinic)
    started = Run.start(tmp_path / "run", {"systems": {}, "seeds": [], "folds": [], "plan": {}}, None, resume=False, audit=audit)
    opened = Run.open(started.path)
    assert opened.audit() == audit
    monkeypatch.setattr("predilect.report.report.draw_all", lambda evaluation, curves: [])  # takes long and is not the matter
    out = tmp_path / "report"
    page = write_report(build_report(made_evaluation(4, 3), provenance={}, audit=opened.audit()), out)
    assert 'href="audit.html"' in page.read_text()
    assert '<span class="id">p0</span>, <span class="id">p5</span>' in (out / "audit.html").read_text()
    write_report(build_report(made_evaluation(4, 3), provenance={}), out)
    assert not (out / "audit.html").exists()
    assert "audit.html" not in page.read_text()
    audit.model_copy(update={"n_photographs": 9}).write(started.path / AUDIT_FILE)
    with pytest.raises(RunError, match=r"audit.json is not what was written"):
        opened.audit()


def test_the_page_has_no_photograph_and_no_script_and_escapes_names(clinic, tmp_path):
    audit = examine(clinic)
    hostile = audit.model_copy(update={"atlas": "<script>alert(1)</script>"})
    page = write_audit_page(hostile, tmp_path).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "Content-Security-Policy" in page
    assert "&lt;script&gt;" in page
    for words in (
        "pixels alone",
        "a model",
        'lesion: crust (<span class="id">p0</span>; not <span class="id">p5</span>)',
        "0.5 on a pair counts",
    ):
        assert words in page, words


def test_words_of_the_audit():
    assert [share(*pair) for pair in ((0, 9), (1, 1000), (999, 1000), (9, 9), (1, 3), (0, 0))] == [
        "0 %",
        "<1 %",
        ">99 %",
        "100 %",
        "33 %",
        "—",
    ]


def test_cautions_follow_from_the_audit(clinic):
    audit = examine(clinic)
    found = " ".join(audit_cautions(audit))
    assert "12 % of the photographs name no patient" in found
    assert "A model, not a person, made the labels of scale" in found
    assert "fewer than 10 groups will have no interval: crust, arm, face" in found
    lines = dict(described(audit))
    assert lines["patients"].startswith("4: 1 to 3")
    assert lines["copies"] == "2 clusters with 4 photographs, the largest of 2; 1 pair with equal pixels, 1 nearly equal"
    chain = audit.model_copy(update={"duplicates": audit.duplicates.model_copy(update={"largest": 1000})})
    assert any("1,000 photographs: look at it" in caution for caution in audit_cautions(chain))
