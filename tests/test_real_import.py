"""Import of the public photographs for development, which lie in a folder beside the checkout."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from predilect.atlas.build import build_atlas, replay
from predilect.atlas.importers import SOURCES
from predilect.labels.taxonomy import Taxonomy

DATA = Path(__file__).parents[1].parent / "shared" / "data"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="the development data are not at hand")]


def test_pad_ufes_20(tmp_path):
    imported = SOURCES["pad-ufes-20"](DATA / "pad-ufes-20")
    atlas = build_atlas(imported, Taxonomy.preset(imported.taxonomy), tmp_path / "atlas")
    assert atlas.counts.model_dump() == {"photos": 120, "rejected": 0, "excluded": 0, "unlisted": 0}
    assert atlas.photos["patient_id"].n_unique() == 90
    lesions = dict(zip(atlas.labels["lesion"].classes, atlas.truth(None).values["lesion"].sum(axis=0).tolist(), strict=True))
    assert lesions == {
        "actinic keratosis": 27, "basal cell carcinoma": 35, "nevus": 20, "seborrheic keratosis": 24, "squamous cell carcinoma": 13,
    }  # fmt: skip
    assert atlas.photos["skin_tone"].value_counts().sort("skin_tone").rows() == [
        (None, 46),
        ("1", 3),
        ("2", 49),
        ("3", 14),
        ("4", 8),
    ]


def test_milk10k(tmp_path):
    imported = SOURCES["milk10k"](DATA / "milk10k", monet=True)
    atlas = build_atlas(imported, Taxonomy.preset(imported.taxonomy), tmp_path / "atlas")
    assert atlas.counts.model_dump() == {"photos": 4240, "rejected": 0, "excluded": 300, "unlisted": 0}
    assert atlas.labels["lesion"].machine == {"ulceration/crust", "erythema", "pigmented"}
    assert atlas.photos["lesion/basal cell carcinoma"].sum() == 2054
    assert atlas.photos["site/trunk"].sum() == 1555
    assert {scale for scale in atlas.photos["skin_tone_scale"] if scale} == {"other"}
    images = atlas.images()
    for row in np.random.default_rng(0).integers(0, len(images), 50):
        with (
            Image.open(io.BytesIO(images[row])) as packed,
            Image.open(imported.root / atlas.photos["file_name"][int(row)]) as original,
        ):
            assert np.array_equal(np.asarray(packed), np.asarray(original.convert("RGB")))  # small enough: copied bit for bit
    assert replay(atlas.path, Taxonomy.preset("as-is")).photos["lesion/MEL"].sum() == 367


def test_the_skin_tone_scale_of_milk10k_runs_from_dark_to_light():
    """What the importer's docstring says, measured again: the border of a close-up is mostly skin."""
    photos = SOURCES["milk10k"](DATA / "milk10k").photos
    lightness = []
    for tone in "012345":
        files = photos.filter(photos["skin_tone"] == tone).sort("image_id")["file_name"].head(60)
        borders = []
        for file in files:
            with Image.open(DATA / "milk10k" / file) as image:
                grey = np.asarray(image.convert("L").resize((64, 64)), dtype=np.float64)
            grey[10:-10, 10:-10] = np.nan
            borders.append(np.nanmedian(grey))
        lightness.append(np.median(borders))
    assert lightness[0] < lightness[1] < lightness[2] < lightness[4] < lightness[5]
    assert lightness[5] > 1.5 * lightness[1]
