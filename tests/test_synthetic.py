import dataclasses
import itertools
from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pytest
from PIL import Image

from predilect.atlas.manifest import read_manifest
from predilect.atlas.painting import Retouch
from predilect.atlas.photo import photo_table
from predilect.atlas.planted import DISEASES, LESIONS, SITES, planted_predilection
from predilect.atlas.refine import refine
from predilect.atlas.synthetic import draw_atlas, paint, sample_photos
from predilect.labels.taxonomy import Taxonomy

CLASS_OF = {term: name for name, terms in LESIONS.items() for term in terms}


@pytest.fixture(scope="module")
def drawings():
    return sample_photos(900, seed=0)


@pytest.fixture(scope="module")
def refined(drawings):
    return refine(photo_table(drawing.photo for drawing in drawings), Taxonomy.preset("drawn"))


def difference(first, second):
    """Mean absolute difference of two pictures, in grey levels of 255."""
    return np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64)).mean()


def test_taxonomy_preset_knows_every_class_and_no_other(refined):
    assert refined.labels["lesion"].classes == tuple(LESIONS)
    assert refined.labels["site"].classes == tuple(SITES)


def test_refined_labels_are_what_was_drawn(drawings, refined):
    for drawing, row in zip(drawings, refined.table.iter_rows(named=True), strict=True):
        drawn = {CLASS_OF[term] for term in drawing.lesions}
        told = {name: row[f"lesion/{name}"] for name in LESIONS}
        assert all(value in {None, int(name in drawn)} for name, value in told.items())
        assert [site for site in SITES if row[f"site/{site}"]] in ([], [drawing.site])


def test_every_rule_of_the_taxonomy_is_at_work(refined):
    reasons = " ".join(refined.log["reason"])
    for rule in ("alias of", "folds into", "merged into", "kept"):
        assert rule in reasons


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_has_at_least_ten_patients_and_every_site_some(seed):
    patients = defaultdict(set)
    for drawing in sample_photos(900, seed):
        for name in {CLASS_OF[term] for term in drawing.lesions} | {drawing.site}:
            patients[name].add(drawing.photo.patient_id)
    assert set(patients) == {*LESIONS, *SITES}
    assert min(map(len, patients.values())) >= 10


def test_disease_tables_are_complete():
    for disease in DISEASES.values():
        assert sum(disease.sites.values()) == pytest.approx(1)
        assert disease.lesions.keys() <= CLASS_OF.keys()
        assert disease.sites.keys() <= SITES.keys()


def test_planted_matrix_by_hand():
    planted = planted_predilection()
    assert planted.shape == (15, 9)
    np.testing.assert_allclose(planted.sum(axis=1), 1)
    sites = list(SITES)
    row = planted[list(LESIONS).index("alopecia")]
    assert dict(zip(sites, row, strict=True))["scalp"] == pytest.approx(DISEASES["hair loss"].sites["scalp"])
    # Purpura comes with two diseases: weights 0.08 x 1 and 0.06 x 0.2.
    legs = (0.08 * DISEASES["vasculitis"].sites["leg"] + 0.06 * 0.2 * DISEASES["poor circulation"].sites["leg"]) / (
        0.08 + 0.06 * 0.2
    )
    assert planted[list(LESIONS).index("purpura"), sites.index("leg")] == pytest.approx(legs)


def test_planted_matrix_is_recovered_from_the_records_within_sampling_error():
    photos = photo_table(drawing.photo for drawing in sample_photos(10_000, seed=3) if drawing.near_duplicate_of is None)
    whole = Taxonomy.preset("drawn").model_copy(update={"keep_above": photos.height})  # so many red papules would stand apart
    table = refine(photos, whole).table.with_columns(photos["case_id"])
    planted = planted_predilection()
    for name, expected in zip(LESIONS, planted, strict=True):
        found = table.filter((pl.col(f"lesion/{name}") == 1) & pl.col("site/arm").is_not_null())
        ratio = found.select(f"site/{site}" for site in SITES).mean().to_numpy()[0]  # Eq. 1
        # Photographs of one patient agree, so only the patients' first diseases are independent: about 2.2 eruptions to one.
        independent = found["case_id"].n_unique() / 2.2
        error = np.sqrt(expected * (1 - expected) / independent)
        assert np.all(np.abs(ratio - expected) <= 4.5 * error + 1e-12), name


def test_sites_help_with_look_alikes():
    planted = dict(zip(LESIONS, planted_predilection(), strict=True))
    for first, second in (("macule", "purpura"), ("vesicle", "pustule"), ("scar", "excoriation"), ("papule", "nodule")):
        assert np.abs(planted[first] - planted[second]).sum() / 2 > 0.2  # total variation


def test_what_is_unknown(drawings):
    photos = [drawing.photo for drawing in drawings]
    assert sum(photo.lesions is None and drawing.lesions != () for photo, drawing in zip(photos, drawings, strict=True)) >= 15
    assert sum(photo.lesions == () for photo in photos) >= 15
    assert sum(photo.lesions_unknown == ("*",) for photo in photos) >= 5
    assert sum(photo.lesions_unknown not in {None, ("*",)} for photo in photos) >= 20
    assert 20 <= sum(photo.site is None for photo in photos) <= 100
    assert not any(photo.lesions is None and photo.site is None for photo in photos)
    hidden = [set(drawing.lesions) - set(drawing.photo.lesions or ()) for drawing in drawings if drawing.photo.lesions_unknown]
    assert any(hidden)  # not assessed does not mean absent


def test_patients_come_back_with_the_same_skin(drawings):
    own = [drawing for drawing in drawings if drawing.near_duplicate_of is None]
    photographs = Counter(drawing.photo.patient_id for drawing in own)
    assert len(photographs) > 200
    assert sum(n >= 2 for n in photographs.values()) > 0.5 * len(photographs)
    people = defaultdict(set)
    for drawing in own:
        people[drawing.photo.patient_id].add((drawing.sitter, drawing.photo.skin_tone, drawing.photo.age, drawing.photo.sex))
    assert {len(seen) for seen in people.values()} == {1}
    assert {drawing.photo.skin_tone for drawing in own} == {str(tone) for tone in range(1, 11)}
    assert max(Counter(drawing.photo.lesion_id for drawing in own if drawing.photo.lesion_id).values()) == 3
    assert max(len(drawing.lesions) for drawing in own) >= 4


def test_diseases_recur(drawings):
    def overlap(pairs):
        return np.mean([bool(set(a.lesions) & set(b.lesions)) for a, b in pairs])

    visits = {drawing.photo.case_id: drawing for drawing in drawings if drawing.lesions and drawing.near_duplicate_of is None}
    ordered = list(visits.values())
    same = [(a, b) for a, b in itertools.pairwise(ordered) if a.photo.patient_id == b.photo.patient_id]
    apart = [(a, b) for a, b in itertools.pairwise(ordered) if a.photo.patient_id != b.photo.patient_id]
    assert overlap(same) > overlap(apart) + 0.25


def test_near_duplicates_are_listed_and_look_like_their_originals(drawings):
    by_id = {drawing.photo.image_id: drawing for drawing in drawings}
    copies = [drawing for drawing in drawings if drawing.near_duplicate_of is not None]
    assert 15 <= len(copies) <= 30
    originals = [by_id[copy.near_duplicate_of] for copy in copies]
    assert not any(original.near_duplicate_of for original in originals)
    across = [copy.photo.patient_id != original.photo.patient_id for copy, original in zip(copies, originals, strict=True)]
    assert sum(across) == 2
    far = []
    for copy, original in zip(copies[:6], originals[:6], strict=True):
        assert (copy.photo.lesions, copy.photo.site) == (original.photo.lesions, original.photo.site)
        picture = paint(copy, 32)
        far.append(difference(picture, paint(drawings[0], 32)))
        assert 0.5 < difference(picture, paint(original, 32)) < 25
    assert np.mean(far) > 30


def test_the_same_seed_gives_the_same_drawings_and_another_seed_others():
    assert sample_photos(40, seed=5) == sample_photos(40, seed=5)
    assert sample_photos(40, seed=5) != sample_photos(40, seed=6)


def test_a_picture_does_not_depend_on_what_was_painted_before(drawings):
    chosen = drawings[:4]
    forwards = [paint(drawing, 32).tobytes() for drawing in chosen]
    backwards = [paint(drawing, 32).tobytes() for drawing in reversed(chosen)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(chosen)


@pytest.mark.parametrize("term", CLASS_OF)
def test_every_lesion_can_be_seen_where_it_was_drawn(drawings, term):
    # The most common sites of a lesion, without and with it: the rest of the drawing stays as it is.
    shown = [drawing for drawing in drawings if term in drawing.lesions and drawing.retouch is None][:4]
    for drawing in shown:
        without = dataclasses.replace(drawing, lesions=tuple(other for other in drawing.lesions if other != term))
        with_it = paint(drawing, 64)
        change = np.abs(np.asarray(with_it, np.float64) - np.asarray(paint(without, 64), np.float64)).max(axis=2)
        assert (change > 8).sum() >= 12, drawing.photo.image_id


@pytest.mark.parametrize(("site", "kind"), [(site, kind) for site, kinds in SITES.items() for kind in kinds])
@pytest.mark.parametrize("size", [16, 48])
def test_every_site_is_painted_at_every_size_with_skin_that_follows_the_tone(drawings, site, kind, size):
    template = dataclasses.replace(drawings[0], site=site, kind=kind, lesions=(), close_up=True, retouch=None)
    brightness = []
    for tone in (1, 10):
        picture = paint(dataclasses.replace(template, sitter=dataclasses.replace(template.sitter, tone=tone, hair=0)), size)
        assert picture.size == (size, size)
        assert picture.mode == "RGB"
        brightness.append(np.asarray(picture, np.float64).mean())
    assert brightness[0] > brightness[1]


def test_views_of_one_eruption_differ_and_share_the_eruption(drawings):
    first = next(d for d in drawings if "crust" in d.lesions and d.site == "trunk")
    second = dataclasses.replace(first, view_seed=first.view_seed ^ 1)
    assert difference(paint(first, 48), paint(second, 48)) > 1
    assert first.scene_seed == second.scene_seed


def test_retouching_crops_and_brightens(drawings):
    original = dataclasses.replace(drawings[0], retouch=None)
    brighter = dataclasses.replace(original, retouch=Retouch(crop=0.0, left=0.0, top=0.0, gain=1.1))
    assert np.asarray(paint(brighter, 48)).mean() > np.asarray(paint(original, 48)).mean() + 3


@pytest.mark.parametrize(("n_images", "size"), [(0, 64), (4, 15)])
def test_numbers_too_small_are_refused(n_images, size, tmp_path):
    with pytest.raises(ValueError, match="at least"):
        draw_atlas(tmp_path / "atlas", n_images=n_images, size=size)
    assert not (tmp_path / "atlas").exists()


def test_drawn_folder(tmp_path):
    seen = []
    out = draw_atlas(tmp_path / "a", n_images=24, size=40, seed=7, on_progress=lambda done, total: seen.append((done, total)))
    assert out == tmp_path / "a"
    assert seen == [(done, 24) for done in range(1, 25)]
    photos = read_manifest(out / "metadata.csv")
    drawings = sample_photos(24, seed=7)
    assert photos.drop("near_duplicate_of").equals(photo_table(drawing.photo for drawing in drawings))
    assert photos["near_duplicate_of"].to_list() == [drawing.near_duplicate_of for drawing in drawings]
    assert photos["near_duplicate_of"].null_count() == 23
    assert set(photos["license"]) == {"CC0-1.0"}
    assert set(photos["source"]) == {"drawn"}
    pictures = []
    for name in photos["file_name"]:
        with Image.open(out / name) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (40, 40), "RGB")
            pictures.append(np.asarray(picture, np.float64))
    assert len({picture.tobytes() for picture in pictures}) == 24
    assert min(picture.std() for picture in pictures) > 3  # none is blank

    again = draw_atlas(tmp_path / "b", n_images=24, size=40, seed=7)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert len(files) == 25
    assert all((out / path).read_bytes() == (again / path).read_bytes() for path in files)
