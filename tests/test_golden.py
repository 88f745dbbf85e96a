"""The golden examples: each file format reads back as what stands here, and as docs/formats.md says, whatever the code becomes.

The golden predictions and truth are read in test_predictions.py, runs and bundles in test_golden_run.py, and schema versions in
test_golden_versions.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tomllib

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

from made_golden import (
    FOLDS,
    FORMATS,
    GOLDEN,
    GROUPS,
    IDS,
    LABELS,
    LESIONS,
    NOTES,
    RECIPE,
    SITES,
    read_json,
    table,
)
from predilect.atlas.folder import Atlas
from predilect.atlas.manifest import read_manifest
from predilect.atlas.splits import Splits
from predilect.errors import SplitError
from predilect.evaluation.evaluate import evaluate
from predilect.labels.taxonomy import Taxonomy
from predilect.predictions import Predictions, Truth
from predilect.recipe import Recipe

# --- what a user writes ------------------------------------------------------------------------------------------------------


def test_the_examples_are_small():
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 200_000


@pytest.mark.parametrize(("name", "whole"), [("manifest", False), ("predictions", True), ("truth", True)])
def test_the_tables_in_the_documentation_are_the_golden_ones(name, whole):
    text = (GOLDEN / f"{name}.csv").read_text(encoding="utf-8")
    header = text.splitlines()[0]
    (shown,) = [block for block in re.findall(r"```csv\n(.*?)```", FORMATS, re.DOTALL) if block.startswith(header)]
    assert shown == text if whole else text.startswith(shown)


def test_the_golden_tables_can_be_evaluated():
    evaluation = evaluate(
        Truth.read(GOLDEN / "truth.parquet"),
        {"any": Predictions.read(GOLDEN / "predictions.parquet")},
        n_resamples=1,
        n_resamples_p=1,
    )
    assert evaluation.truth.n_groups == 2
    assert evaluation.folds.n_groups == (1, 1)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_manifest_reads(suffix):
    photos = read_manifest(GOLDEN / f"manifest.{suffix}")
    assert photos.select("image_id", "file_name", "lesions", "lesions_unknown", "site").rows() == [
        ("0001", "2023/0001.jpg", ["papule", "excoriation"], None, ["forearm"]),
        ("0002", "2023/0002.jpg", ["papules"], ["scale"], ["Forearm"]),
        ("0003", "2023/0003.jpg", [], None, ["face"]),
        ("0004", "2023/0004.jpg", None, None, ["sole", "hand"]),
        ("0005", "2023/0005.jpg", ["flat papule"], ["*"], None),
        ("0006", "2023/0006.jpg", ["erosion", "scaling"], ["ulcer"], ["face", "forearm"]),
        ("0007", "2023/0007.jpg", ["artefact"], None, ["nails"]),
        ("0008", "2023/0008.jpg", ["plaque"], None, ["back"]),
    ]
    columns = "patient_id", "lesion_id", "case_id", "modality", "skin_tone", "skin_tone_scale", "age", "sex", "source", "license"
    assert photos.select(columns).rows() == [
        ("p-01", None, None, "clinical", "III", "fitzpatrick", 54.0, "female", "clinic A", None),
        ("p-01", None, None, "clinical", "III", "fitzpatrick", 54.0, "female", "clinic A", None),
        ("p-02", None, None, "clinical", None, None, 31.0, "male", "clinic A", None),
        ("p-03", None, None, None, None, None, None, None, "clinic A", None),
        ("p-04", "L-9", None, "dermoscopic", "II", "fitzpatrick", 67.0, None, "clinic A", None),
        ("p-05", "L-12", None, "clinical", "7", "monk", 45.0, "male", "archive", None),
        ("p-06", None, None, "clinical", "8", "monk", None, "female", "archive", None),
        ("p-06", None, None, "clinical", "8", "monk", None, "female", "archive", None),
    ]
    assert len(photos.columns) == 5 + len(columns)


@pytest.mark.parametrize("path", ["taxonomy.toml", "atlas/taxonomy.toml"])
def test_the_taxonomy_reads(path):
    assert Taxonomy.read(GOLDEN / path).model_dump(mode="json") == {
        "schema_version": 1,
        "name": "example",
        "description": "Terms of the example manifest",
        "drop_below": 1,
        "keep_above": 1000,
        "lesion": {
            "terms": ["papule", "flat papule", "plaque", "erosion", "ulcer", "scale", "excoriation", "artefact"],
            "unknown_terms": "error",
            "aliases": {"papules": "papule", "scaling": "scale"},
            "merges": {"erosion/ulcer": ["erosion", "ulcer"]},
            "drops": {"artefact": "not a lesion"},
            "parents": {"flat papule": "papule"},
            "machine": ["scale"],
        },
        "site": {
            "terms": ["hand", "nails", "face", "forearm", "back", "sole"],
            "unknown_terms": "error",
            "aliases": {},
            "merges": {"hand": ["nails"]},
            "drops": {},
            "several": "priority",
            "priority": ["hand"],
        },
    }


def test_the_taxonomy_of_an_atlas_has_every_key_written_out():
    written = tomllib.loads((GOLDEN / "atlas" / "taxonomy.toml").read_text(encoding="utf-8"))
    assert written == Taxonomy.read(GOLDEN / "taxonomy.toml").model_dump(mode="json")


def test_the_recipe_reads():
    assert Recipe.open(str(GOLDEN / "recipe.toml")).model_dump(mode="json") == RECIPE


# --- the atlas and its folds -------------------------------------------------------------------------------------------------


def test_the_atlas_opens():
    atlas = Atlas.open(GOLDEN / "atlas")
    assert atlas.photos["image_id"].to_list() == IDS
    assert atlas.labels == LABELS
    assert atlas.taxonomy == Taxonomy.read(GOLDEN / "taxonomy.toml")
    assert [(source.name, source.title, source.licence, source.credit, source.assessed) for source in atlas.sources] == [
        (name, name, "CC0-1.0", "drawn by Predilect", None) for name in ("archive", "clinic A")
    ]
    assert [note for source in atlas.sources for note in source.notes] == NOTES
    assert atlas.counts.model_dump() == {"photos": 7, "rejected": 1, "excluded": 0, "unlisted": 0}
    truth = atlas.truth(None)
    assert truth.values["lesion"].tolist() == LESIONS
    assert truth.values["site"].tolist() == SITES
    assert atlas.photos["refinement_flag"].to_list() == [None] * 5 + ["several sites", "lesions dropped"]


def test_the_photographs_of_the_atlas_are_those_of_the_manifest():
    photos, manifest = Atlas.open(GOLDEN / "atlas").photos, read_manifest(GOLDEN / "manifest.csv")
    assert_frame_equal(photos.select(manifest.columns), manifest.head(7))
    assert photos.columns[len(manifest.columns) :] == ["width", "height", "sha256", *LABELS.columns, "refinement_flag"]
    types = [photos.schema[name] for name in ("width", "height", "sha256", "lesion/papule", "refinement_flag")]
    assert types == [pl.Int32, pl.Int32, pl.String, pl.Int8, pl.String]


def test_the_description_of_the_atlas_keeps_its_form():
    description = read_json(GOLDEN / "atlas" / "atlas.json")
    assert list(description) == [
        "schema_version", "content_hash", "taxonomy", "labels", "sources", "counts", "sha256", "images_size",
    ]  # fmt: skip
    assert list(description["sources"][0]) == ["name", "title", "licence", "credit", "notes", "assessed"]
    assert description["taxonomy"] == "example"
    assert description["labels"] == {
        "lesion": {"classes": ["erosion/ulcer", "excoriation", "papule", "scale"], "machine": ["scale"]},
        "site": {"classes": ["face", "forearm", "hand"], "machine": []},
    }
    assert description["sha256"] == {
        name: hashlib.sha256((GOLDEN / "atlas" / name).read_bytes()).hexdigest()
        for name in ("photos.parquet", "taxonomy.toml", "refinement.csv", "rejected.csv")
    }
    assert description["images_size"] == (GOLDEN / "atlas" / "images.arrow").stat().st_size


def test_the_content_hash_is_made_as_documented():
    atlas = Atlas.open(GOLDEN / "atlas")
    labels = read_json(GOLDEN / "atlas" / "atlas.json")["labels"]
    rows = "".join(f"{name}\t{sha256}\n" for name, sha256 in atlas.photos.select("image_id", "sha256").iter_rows())
    cells = np.concatenate([LESIONS, SITES], axis=1).astype(np.int8)
    content = json.dumps(labels, separators=(",", ":"), ensure_ascii=False) + "\n" + rows
    assert atlas.content_hash == hashlib.sha256(content.encode() + cells.tobytes()).hexdigest()


def test_the_packed_images_are_the_photographs():
    atlas = Atlas.open(GOLDEN / "atlas")
    with atlas.images() as images:
        assert images.image_ids.tolist() == IDS
        for row, sha256 in enumerate(atlas.photos["sha256"]):
            assert hashlib.sha256(images[row]).hexdigest() == sha256
            with Image.open(io.BytesIO(images[row])) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 40))
    assert atlas.photos.select("width", "height").rows() == [(40, 40)] * 7
    with pa.memory_map(str(GOLDEN / "atlas" / "images.arrow")) as file:
        schema = pa.ipc.open_file(file).schema
    assert schema.equals(
        pa.schema(
            {"image_id": pa.string(), "image": pa.large_binary(), "width": pa.int32(), "height": pa.int32()},
            metadata={"predilect.schema_version": "1"},
        ),
        check_metadata=True,
    )


def test_the_log_of_refinement_and_the_rejected_rows_read():
    assert table("atlas/refinement.csv") == [
        ["task", "raw_term", "became", "reason", "origin", "n_images"],
        ["lesion", "artefact", "", "dropped: not a lesion", "person", "1"],
        ["lesion", "erosion", "erosion/ulcer", "merged into 'erosion/ulcer'", "person", "1"],
        ["lesion", "excoriation", "excoriation", "kept", "person", "1"],
        ["lesion", "flat papule", "papule", "folds into 'papule' (1 images, not more than 1000)", "person", "1"],
        ["lesion", "papule", "papule", "kept", "person", "1"],
        ["lesion", "papules", "papule", "alias of 'papule'", "person", "1"],
        ["lesion", "scale", "scale", "kept", "machine", "0"],
        ["lesion", "scaling", "scale", "alias of 'scale'", "machine", "1"],
        ["lesion", "ulcer", "erosion/ulcer", "merged into 'erosion/ulcer'", "person", "0"],
        ["site", "Forearm", "forearm", "spelt 'forearm'", "person", "1"],
        ["site", "face", "face", "kept; unknown on 1 images that show several sites", "person", "2"],
        ["site", "forearm", "forearm", "kept; unknown on 1 images that show several sites", "person", "2"],
        ["site", "hand", "hand", "kept", "person", "1"],
        ["site", "nails", "hand", "merged into 'hand'", "person", "1"],
        [
            "site", "sole", "",
            "dropped: 'sole' has 0 images, fewer than 1; another site is taken on 1 images that show several",
            "person", "1",
        ],
    ]  # fmt: skip
    assert table("atlas/rejected.csv") == [
        ["file", "row", "reason"],
        ["2023/0008.jpg", "8", "there is no image of that name in the folder"],
    ]


def test_the_splits_read_and_belong_to_the_atlas():
    atlas, splits = Atlas.open(GOLDEN / "atlas"), Splits.read(GOLDEN / "atlas" / "splits.parquet")
    assert splits.image_ids.tolist() == IDS
    assert splits.groups.tolist() == GROUPS
    assert splits.folds.tolist() == FOLDS
    assert (splits.k, splits.seed, splits.content_hash) == (2, 0, atlas.content_hash)
    ids = atlas.photos["image_id"].to_numpy().astype(np.str_)
    assert splits.check_for(ids[::-1], atlas.content_hash).folds.tolist() == FOLDS[::-1]
    with pytest.raises(SplitError, match="made for another atlas"):
        splits.check_for(ids, "0" * 64)
    assert pl.read_parquet_schema(GOLDEN / "atlas" / "splits.parquet") == {
        "image_id": pl.String, "group": pl.String, "fold": pl.Int64,
    }  # fmt: skip
