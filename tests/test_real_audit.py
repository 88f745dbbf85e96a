"""The audit of the public photographs for development: the pixel-identical pairs of MILK10k, found by an independent look too."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from made_close_ups import ALTERED, encoded
from predilect.atlas.build import build_atlas
from predilect.atlas.examine import examine
from predilect.atlas.folder import Atlas
from predilect.atlas.groups import connected_groups
from predilect.atlas.importers import SOURCES
from predilect.atlas.near_duplicates import find_near_duplicates
from predilect.labels.taxonomy import Taxonomy

DATA = Path(__file__).parents[1].parent / "shared" / "data"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="the development data are not at hand")]

# Known to be pixel-identical in the whole data set, under different lesion ids.
IDENTICAL = {
    ("ISIC_0185358", "ISIC_4303795"),
    ("ISIC_1599277", "ISIC_3846189"),
    ("ISIC_1643848", "ISIC_6221334"),
    ("ISIC_2252215", "ISIC_9766600"),
    ("ISIC_4823638", "ISIC_5997076"),
}
# Two shots of one lesion in the same breath, under different lesion ids: found here, and looked at.
SAME_LESION = {("ISIC_4371078", "ISIC_8749451"), ("ISIC_5031508", "ISIC_6455546")}


@pytest.fixture(scope="module")
def milk10k(tmp_path_factory) -> Atlas:
    imported = SOURCES["milk10k"](DATA / "milk10k", images="all")
    return build_atlas(imported, Taxonomy.preset("as-is"), tmp_path_factory.mktemp("milk10k") / "atlas")


def test_the_copies_in_milk10k_are_found_and_nothing_else(milk10k):
    atlas = milk10k
    names = set(atlas.photos["image_id"])
    at_hand = {pair for pair in IDENTICAL if names.issuperset(pair)}
    assert len(at_hand) >= 2
    audit = examine(atlas)
    found = {tuple(sorted((pair.first, pair.second))): pair.kind for pair in audit.duplicates.pairs}
    assert (
        {pair for pair, kind in found.items() if kind != "near"} == at_hand == _identical_by_their_pixels(DATA / "milk10k", atlas)
    )
    assert {pair for pair, kind in found.items() if kind == "near"} == SAME_LESION
    groups = dict(zip(atlas.photos["image_id"], connected_groups(atlas.photos, audit.clusters()), strict=True))
    apart = dict(zip(atlas.photos["image_id"], connected_groups(atlas.photos), strict=True))
    for first, second in found:
        assert groups[first] == groups[second]
        assert apart[first] != apart[second]
    assert audit.duplicates.n_joining == len(found) == audit.duplicates.n_across_lesions


def test_strangers_in_milk10k_stay_far_below_the_limit(milk10k, monkeypatch, capsys):
    """Prints how many of all pairs are candidates, and how much the most alike of those that are no copies resemble each other."""
    monkeypatch.setattr("predilect.atlas.near_duplicates.RESEMBLANCE", -1)  # all candidates are compared to the end and listed
    names = milk10k.photos["image_id"]
    with milk10k.images() as images:
        found = find_near_duplicates(images, milk10k.photos["sha256"].to_list())
    assert found.crowded.tolist() == []
    near = found.pairs.filter(pl.col("kind") == "near")
    strangers = [
        resemblance
        for first, second, resemblance in near.select("first", "second", "resemblance").rows()
        if tuple(sorted((names[first], names[second]))) not in SAME_LESION
    ]
    one_in = len(names) * (len(names) - 1) // 2 // found.n_candidates
    with capsys.disabled():
        sys.stdout.write(f"\n{len(names):,} photographs: {found.n_candidates:,} candidates, one pair in {one_in:,}; ")
        sys.stdout.write(f"strangers resemble each other by {max(strangers):.2f} at most\n")
    assert len(strangers) > 100
    assert max(strangers) < 0.3


def test_pad_ufes_20_holds_no_copies(tmp_path):
    imported = SOURCES["pad-ufes-20"](DATA / "pad-ufes-20")
    atlas = build_atlas(imported, Taxonomy.preset(imported.taxonomy), tmp_path / "atlas")
    assert examine(atlas).duplicates.pairs == ()
    assert _identical_by_their_pixels(imported.root, atlas) == set()


def test_altered_copies_of_close_ups_are_found(tmp_path, capsys):
    """Prints the recall by alteration; each close-up is looked for among all that were altered, too."""
    files = sorted((DATA / "milk10k").rglob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(files), 80, replace=False)
    originals = [Image.open(files[k]).convert("RGB") for k in chosen]
    encodings = [encoded(image) for image in originals] + [alter(image) for image in originals for alter in ALTERED.values()]
    pairs = find_near_duplicates(encodings, [str(k) for k in range(len(encodings))])
    found = set(pairs.pairs.select("first", "second").rows())
    first_copy = {name: len(originals) + place for place, name in enumerate(ALTERED)}
    recall = {
        name: np.mean([(k, start + k * len(ALTERED)) in found for k in range(len(originals))]) for name, start in first_copy.items()
    }
    source = [*range(len(originals)), *(k for k in range(len(originals)) for _ in ALTERED)]
    wrong = {(source[first], source[second]) for first, second in found if source[first] != source[second]}
    with capsys.disabled():
        lines = [f"{name:<34}{value:7.1%}" for name, value in recall.items()]
        sys.stdout.write("\n".join(["", *lines, f"wrong pairs of photographs: {len(wrong)}", ""]))
    assert not wrong
    assert min(recall.values()) >= 0.95


def _identical_by_their_pixels(root: Path, atlas) -> set[tuple[str, str]]:
    """Every file decoded in full, and its pixels hashed."""
    by_pixels: dict[tuple[tuple[int, ...], str], list[str]] = {}
    for image_id, file in atlas.photos.select("image_id", "file_name").rows():
        with Image.open(root / file) as image:
            pixels = np.asarray(image.convert("RGB"))
        by_pixels.setdefault((pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()), []).append(image_id)
    return {(min(same), other) for same in by_pixels.values() for other in same if other != min(same)}
