"""Folds that no group crosses: their table, its file, and how an atlas is split."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from made_groups import atlas, rare_labels
from predilect.atlas.groups import connected_groups
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.atlas.splits import TUNING, Splits, make_splits, training_slice
from predilect.errors import SplitError

HASH = "0123456789abcdef"


# Splits


def splits(**changes) -> Splits:
    values = {
        "image_ids": np.array(["a", "b", "c", "d"]),
        "groups": np.array(["a", "a", "c", "d"]),
        "folds": np.array([0, 0, 1, -1]),
        "content_hash": HASH,
        "seed": 3,
    }
    return Splits(**{**values, **changes})


def test_splits_know_their_folds():
    assert splits().k == 2
    assert len(splits()) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": np.array([0, 1, 1, -1])}, "group 'a' is in folds 0 and 1; the photographs of a group stay in one fold"),
        ({"folds": np.array([0, 0, 1, -2])}, "found fold -2; folds are numbered from 0, and -1 is the tuning slice"),
        ({"folds": np.array([0, 0, 0, -1])}, r"found 1 fold\(s\) to test on; cross-validation needs at least 2"),
        ({"folds": np.array([0, 0, 2, -1])}, "fold 1 holds no photograph, though there is a fold 2"),
        ({"image_ids": np.array(["a", "b", "b", "d"])}, "image_id 'b' stands in more than one row"),
    ],
)
def test_splits_that_cannot_be_are_refused(changes, message):
    with pytest.raises(SplitError, match=message):
        splits(**changes)


def test_splits_of_unequal_lengths_are_misuse():
    with pytest.raises(ValueError, match=r"4 image ids, but groups of shape \(4,\) and folds of shape \(3,\)"):
        splits(folds=np.array([0, 0, 1]))


def test_splits_survive_the_file(tmp_path):
    path = tmp_path / "deeper" / "splits.parquet"
    splits(image_ids=np.array(["000655", "b", "c", "d"])).write(path)
    back = Splits.read(path)
    assert pl.read_parquet(path).columns == ["image_id", "group", "fold"]
    assert back.image_ids.tolist() == ["000655", "b", "c", "d"]
    assert back.groups.tolist() == ["a", "a", "c", "d"]
    assert back.folds.tolist() == [0, 0, 1, -1]
    assert (back.content_hash, back.seed, back.origin) == (HASH, 3, str(path))


GOOD = {"image_id": ["a", "b"], "group": ["a", "b"], "fold": [0, 1]}
META = {"predilect.schema_version": "1", "predilect.content_hash": HASH, "predilect.seed": "0"}


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({}, {**META, "predilect.schema_version": "9"}, "found schema version '9' in the file's metadata, allowed is '1'"),
        ({}, {}, "found schema version none"),
        ({}, {**META, "predilect.seed": "x"}, "metadata must hold 'predilect.content_hash' and 'predilect.seed'"),
        ({"fold": [0, None]}, META, "row 2: fold is empty"),
        ({"fold": [0.0, 1.0]}, META, "column 'fold' holds Float64, it must hold whole numbers"),
        ({"group": ["a", ""]}, META, "row 2: group is empty"),
        ({"image_id": [1, 2]}, META, "column 'image_id' holds Int64, it must hold strings"),
        ({"group": None}, META, "there is no column 'group'"),
        ({"group": ["a", "a"]}, META, "group 'a' is in folds 0 and 1"),
    ],
)
def test_a_file_that_breaks_the_contract_is_named_with_what_is_wrong(tmp_path, columns, metadata, message):
    path = tmp_path / "splits.parquet"
    kept = {name: values for name, values in {**GOOD, **columns}.items() if values is not None}
    pl.DataFrame(kept).write_parquet(path, metadata=metadata)
    with pytest.raises(SplitError, match=message) as caught:
        Splits.read(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_or_damaged_file_is_an_error(tmp_path):
    with pytest.raises(SplitError, match="there is no such file"):
        Splits.read(tmp_path / "splits.parquet")
    (tmp_path / "splits.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(SplitError, match="the splits cannot be read"):
        Splits.read(tmp_path / "splits.parquet")


def test_splits_follow_the_order_of_their_atlas():
    ordered = splits().check_for(np.array(["d", "b", "a", "c"]), HASH)
    assert ordered.image_ids.tolist() == ["d", "b", "a", "c"]
    assert ordered.groups.tolist() == ["d", "a", "a", "c"]
    assert ordered.folds.tolist() == [-1, 0, 0, 1]


@pytest.mark.parametrize(
    ("image_ids", "content_hash", "message"),
    [
        (["a", "b", "c", "d"], "f" * 16, "made for another atlas or for an earlier state .* split the atlas again"),
        (["a", "b", "c", "e"], HASH, r"has no fold for image_id 'e' \(1 such photographs\)"),
        (["a", "b", "c"], HASH, r"lists image_id 'd', which the atlas lacks \(1 such rows\)"),
    ],
)
def test_splits_of_another_atlas_are_refused(image_ids, content_hash, message):
    with pytest.raises(SplitError, match=message):
        splits().check_for(np.array(image_ids), content_hash)


# The whole


def test_an_atlas_is_split_by_group_with_its_tuning_slice():
    table, columns = atlas(200)
    made = make_splits(table, columns, folds=4, tuning=0.2, seed=5, content_hash=HASH)
    assert made.k == 4
    assert made.image_ids.tolist() == table["image_id"].to_list()
    assert made.groups.tolist() == connected_groups(table).tolist()
    sizes = np.bincount(made.folds + 1) / len(made)
    assert sizes == pytest.approx([0.2] * 5, abs=0.01)
    assert (made.seed, made.content_hash) == (5, HASH)
    shuffled = table.sample(fraction=1, shuffle=True, seed=1)
    again = make_splits(shuffled, columns, folds=4, tuning=0.2, seed=5, content_hash=HASH)
    assert again.in_order_of(made.image_ids).folds.tolist() == made.folds.tolist()


def test_near_duplicates_of_two_patients_share_a_fold():
    table, columns = atlas()
    ends = [table["image_id"][0], table["image_id"][-1]]
    clusters = pl.DataFrame({"image_id": ends, "cluster": [0, 0]})
    made = make_splits(table, columns, near_duplicates=clusters, content_hash=HASH)
    assert made.groups[0] == made.groups[-1] == ends[0]
    assert made.folds[0] == made.folds[-1]
    assert TUNING not in made.folds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, r"found 1 fold\(s\), allowed are 2 or more"),
        ({"tuning": 1.0}, "found a tuning share of 1, allowed is from 0 to below 1"),
        ({"seed": -1}, "found seed -1"),
        ({"folds": 60, "tuning": 0.1}, r"61 folds \(the tuning slice is one\) need at least 61 groups .* found 60"),
        ({"folds": 61}, "61 folds need at least 61 groups .* found 60"),
    ],
)
def test_settings_that_cannot_be_met_are_errors(settings, message):
    table, columns = atlas(60)
    with pytest.raises(SplitError, match=message):
        make_splits(table, columns, **settings, content_hash=HASH)


def test_an_empty_atlas_cannot_be_split():
    with pytest.raises(SplitError, match="found 0"):
        make_splits(pl.DataFrame(schema={**PHOTO_SCHEMA, "lesion/scar": pl.Int8}), ["lesion/scar"], content_hash=HASH)


def test_a_label_column_that_is_not_there_is_misuse():
    table, columns = atlas()
    with pytest.raises(ValueError, match="no label column 'lesion/papul': did you mean 'lesion/papule'"):
        make_splits(table, ["lesion/papul", *columns], content_hash=HASH)


def test_the_training_slice_is_a_tenth_of_the_groups_with_all_classes():
    labels, groups = rare_labels(2)
    held = training_slice(labels, groups, seed=4)
    assert held.dtype == np.bool_
    assert held.mean() == pytest.approx(0.1, abs=0.01)
    assert not set(groups[held].tolist()) & set(groups[~held].tolist())
    for label in labels.T:
        if len(set(groups[label == 1].tolist())) >= 10:
            assert label[held].any()
    assert training_slice(labels, groups, seed=4).tolist() == held.tolist()
    assert training_slice(labels[:3], np.array(["a", "b", "b"])).tolist() in ([True, False, False], [False, True, True])
