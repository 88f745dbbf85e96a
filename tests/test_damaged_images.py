"""Packed images that a disk has damaged are named with what to do, before folds or trainings are made of them."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pytest

from made_close_ups import damage
from predilect.atlas.examine import examine
from predilect.atlas.folder import Atlas
from predilect.atlas.pack import PackedImages
from predilect.cli.data import split_atlas
from predilect.errors import AtlasError, RunError
from predilect.recipe import system
from predilect.training.devices import make_fabric
from predilect.training.start import start_run

MESSAGE = (
    r"images\.arrow: the packed image of 'p007' \(row 8, made from p007\.png\) is not what was packed: .*import the atlas again"
)


@pytest.fixture
def damaged(small_atlas, small_splits, tmp_path) -> Atlas:
    shutil.copytree(small_atlas.path, tmp_path / "atlas")
    damage(Atlas.open(tmp_path / "atlas"), "p007")
    return Atlas.open(tmp_path / "atlas")


def test_no_training_starts_and_no_folder_is_made(damaged, small_splits, small_recipe, tmp_path):
    fabric = make_fabric("fp32")
    chosen = [system("mtl", small_recipe)]
    with pytest.raises(RunError, match=MESSAGE):
        start_run(tmp_path / "run", damaged, small_splits, chosen, seeds=[1], folds=[0], fabric=fabric, command="c", resume=False)
    assert not (tmp_path / "run").exists()


def test_no_folds_are_made(damaged):
    before = (damaged.path / "splits.parquet").read_bytes()
    with pytest.raises(AtlasError, match=MESSAGE):
        split_atlas(damaged, folds=2)
    assert (damaged.path / "splits.parquet").read_bytes() == before


def test_no_folds_are_made_from_an_audit_that_is_older_than_the_damage(small_atlas, tmp_path):
    shutil.copytree(small_atlas.path, tmp_path / "atlas")
    atlas = Atlas.open(tmp_path / "atlas")
    examine(atlas).write(atlas.path / "audit.json")
    damage(atlas, "p007")
    with pytest.raises(AtlasError, match=MESSAGE):
        split_atlas(Atlas.open(atlas.path), folds=2)


def test_a_whole_atlas_passes_and_tells_how_far_it_is(small_atlas):
    told = []
    small_atlas.check_images(lambda *step: told.append(step))
    assert told == [(36, 36)]


def test_a_damaged_place_of_an_image_is_an_error_and_not_the_end_of_the_process(small_atlas, tmp_path):
    content = bytearray((small_atlas.path / "images.arrow").read_bytes())
    with pa.ipc.open_file(small_atlas.path / "images.arrow") as reader:
        offsets = reader.get_batch(0).column("image").buffers()[1].to_pybytes()
    place = content.index(offsets) + 8 * 5
    content[place : place + 8] = (2**40).to_bytes(8, "little")
    (tmp_path / "images.arrow").write_bytes(content)
    with pytest.raises(AtlasError, match=r"images\.arrow cannot be read as packed images: .*[Oo]ffset"):
        PackedImages(tmp_path / "images.arrow")
