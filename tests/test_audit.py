"""The audit as a document: counts are right, it keeps to its schema, and damage is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest

from made_close_ups import damage
from predilect.atlas.audit import AUDIT_FILE, Audit, audit_of, audit_schema, pixel_hash
from predilect.atlas.candidates import MOST, Candidates, find_candidates
from predilect.atlas.examine import copies_of, examine
from predilect.atlas.fingerprints import Fingerprints
from predilect.atlas.folder import Atlas
from predilect.errors import AtlasError
from predilect.files import seal
from predilect.report.audit_page import write_audit_page


def only_the_nearest(prints: Fingerprints, **given: Any) -> Candidates:
    """The search among p0 to p5 and p7, had p2 and p4 too many candidates."""
    found = find_candidates(prints, **given)
    return Candidates(found.pairs, np.isin(np.arange(len(found.crowded)), [2, 4]))


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
    atlas = Atlas.open(folder)
    assert audit_of(atlas) == audit
    assert examine(atlas) == audit
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


def test_a_damaged_image_is_named_with_what_to_do(clinic):
    damage(clinic, "p3", "p6")
    message = (
        r"images\.arrow: the packed image of 'p3' \(row 4, made from p3\.jpg\) is not what was packed: .* in photos\.parquet, and so is 1 "
        r"more; restore the file from a copy, or import the atlas again"
    )
    for look in (examine, copies_of, Atlas.check_images):
        with pytest.raises(AtlasError, match=message):
            look(Atlas.open(clinic.path))


def test_images_are_checked_before_anything_is_looked_for(clinic):
    told = []
    examine(clinic, on_progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["checking the images", "looking for copies", "measuring sharpness"]
    assert ("checking the images", 8, 8) in told


def test_a_crowd_is_recorded_by_name(clinic, monkeypatch):
    monkeypatch.setattr("predilect.atlas.near_duplicates.find_candidates", only_the_nearest)
    audit = examine(clinic)
    assert audit.duplicates.most == MOST
    assert audit.duplicates.crowded == ("p2", "p4")
    assert copies_of(clinic).crowded == ("p2", "p4")
    assert audit.duplicates.n_candidates >= 1
    audit.write(clinic.path / AUDIT_FILE)
    monkeypatch.undo()
    assert copies_of(clinic).crowded == ("p2", "p4")  # as the audit has it
