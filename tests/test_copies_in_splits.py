"""Copies stay in one fold, whether or not an atlas was audited, and whoever splits is told what was not looked at."""

from __future__ import annotations

import json

import polars as pl
import pytest

from made_close_ups import TAXONOMY
from predilect.atlas import examine as examine_module
from predilect.atlas.audit import AUDIT_FILE, Audit, audit_of
from predilect.atlas.build import build_atlas, replay
from predilect.atlas.examine import Copies, copies_of, examine
from predilect.atlas.folder import Atlas
from predilect.atlas.groups import connected_groups
from predilect.atlas.importers import SOURCES
from predilect.atlas.near_duplicates import find_near_duplicates
from predilect.atlas.splits import Splits, make_splits
from predilect.atlas.synthetic import draw_atlas
from predilect.cli import main
from predilect.cli.data import note_stale_audit, split_atlas, splits_of
from predilect.errors import AtlasError, SplitError
from predilect.labels.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Atlas:
    """A drawn atlas of 200 photographs; five are near-duplicates, two of them under another patient."""
    folder = draw_atlas(tmp_path_factory.mktemp("drawn") / "drawings", n_images=200, size=96, seed=6)
    return build_atlas(SOURCES["imagefolder"](folder), Taxonomy.preset("drawn"), tmp_path_factory.mktemp("atlas") / "drawn")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code)


def test_the_planted_copies_are_found_and_nothing_else_but_views_of_one_eruption(drawn):
    with drawn.images() as images:
        pairs = find_near_duplicates(images, drawn.photos["sha256"].to_list()).pairs
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
    expected = copies_of(clinic).clusters
    assert run("audit", clinic.path) == 0
    assert audit_of(clinic) is not None
    relabelled = replay(clinic.path, Taxonomy.from_toml(TAXONOMY.to_toml().replace("drop_below = 1", "drop_below = 3"), "u"))
    assert relabelled.content_hash != clinic.content_hash
    assert audit_of(relabelled) is None
    monkeypatch.setattr(examine_module, "find_near_duplicates", lambda *_, **__: pytest.fail("looked again"))
    assert copies_of(relabelled).clusters.sort("image_id").equals(expected.sort("image_id"))
    capsys.readouterr()
    assert run("split", clinic.path, "--folds", "2") == 0
    assert "1 that join what no id joins" in capsys.readouterr().out
    audit = Audit.read(clinic.path / AUDIT_FILE)
    audit.model_copy(update={"pixel_hash": "of other photographs"}).write(clinic.path / AUDIT_FILE)
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        copies_of(relabelled)


@pytest.mark.parametrize(
    ("key", "value"), [("method", 1), ("most", 3), ("resemblance", 0.9), ("radius", 3), ("cosine", 0.5), ("flat", 7.0)]
)
def test_an_audit_by_another_search_decides_no_split(clinic, key, value):
    audit = examine(clinic)
    other = audit.duplicates.model_copy(update={key: value, "clusters": ()})
    audit.model_copy(update={"duplicates": other}).write(clinic.path / AUDIT_FILE)
    assert copies_of(clinic).clusters["image_id"].to_list() == ["p0", "p5", "p1", "p6"]


def test_an_audit_that_was_edited_is_refused(clinic):
    examine(clinic).write(clinic.path / AUDIT_FILE)
    value = json.loads((clinic.path / AUDIT_FILE).read_text())
    value["duplicates"]["clusters"] = []
    (clinic.path / AUDIT_FILE).write_text(json.dumps(value))
    with pytest.raises(AtlasError, match=r"audit.json is not what was written .*; make it again with: predilect audit"):
        copies_of(clinic)


def test_a_huge_cluster_is_told_of_when_splitting(clinic, monkeypatch, capsys):
    split_atlas(clinic, folds=2)
    assert "largest cluster" not in capsys.readouterr().out
    monkeypatch.setattr("predilect.cli.data.LONG_CHAIN", 1)
    split_atlas(clinic, folds=2)
    out = capsys.readouterr().out
    assert "The largest cluster of copies, p0, has 2 photographs" in out
    assert f"predilect audit {clinic.path} lists them" in out


def test_whoever_splits_or_trains_is_told_what_was_not_compared(clinic, monkeypatch, capsys):
    looked = copies_of(clinic)
    monkeypatch.setattr("predilect.cli.data.copies_of", lambda *_, **__: Copies(looked.clusters, ("p2", "p4")))
    assert run("split", clinic.path, "--folds", "2") == 0
    note = "note      2 photographs have more than 100 look-alikes"
    assert capsys.readouterr().out.count(note) == 1
    splits = splits_of(clinic)
    assert (
        f"{note}, mirrored and turned ones counted, as in a common frame: only the nearest 100 were compared"
        in capsys.readouterr().out
    )
    assert splits.crowded == 2
    monkeypatch.undo()
    assert run("split", clinic.path, "--folds", "2") == 0
    assert splits_of(clinic).crowded == 0
    assert "look-alikes" not in capsys.readouterr().out


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
    known = {"predilect.schema_version": "1", "predilect.content_hash": "h", "predilect.seed": "0"}
    for key in ("predilect.clusters_joined", "predilect.crowded"):
        without.to_frame().write_parquet(tmp_path / "bad.parquet", metadata={**known, key: "many"})
        with pytest.raises(SplitError, match=f"'{key}' 'many', it must be a whole number"):
            Splits.read(tmp_path / "bad.parquet")
