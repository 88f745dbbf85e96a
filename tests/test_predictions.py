"""The tables of predictions and truth: golden examples of the formats, and each way of breaking the contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predilect.errors import TableError
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth, check_matching

GOLDEN = Path(__file__).parent / "golden"
SPACE = LabelSpace((Task("lesion", ("papule", "erosion/ulcer/atrophy")), Task("site", ("face", "hands"))))


def predictions(ids=("a", "b"), lesion=None, site=None, **columns):
    n = len(ids)
    lesion = np.full((n, 2), 0.5) if lesion is None else lesion
    site = np.full((n, 2), 0.5) if site is None else site
    scores = {"lesion": np.array(lesion, dtype=np.float32), "site": np.array(site, dtype=np.float32)}
    return Predictions(np.array(ids), SPACE, scores, **columns)


def truth(ids=("a", "b"), lesion=None, site=None, groups=None):
    n = len(ids)
    lesion = [[1, 0]] * n if lesion is None else lesion
    site = [[0, 1]] * n if site is None else site
    values = {"lesion": np.array(lesion, dtype=np.int8), "site": np.array(site, dtype=np.int8)}
    return Truth(np.array(ids), SPACE, values, groups, pl.DataFrame())


def written(folder, text, name="table.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- golden files: what other programs may write ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_golden_predictions_read(suffix):
    table = Predictions.read(GOLDEN / f"predictions.{suffix}")
    assert table.image_ids.tolist() == ["000655", "img-2", "img-3"] * 2
    assert table.labels == SPACE
    assert table.folds.tolist() == [0, 1, 1, 0, 1, 1]
    assert table.seeds.tolist() == [1, 1, 1, 2, 2, 2]
    assert table.scores["lesion"].dtype == np.float32
    assert table.scores["lesion"][:3].tolist() == [[np.float32(0.9), 0.125], [0.25, 0.5], [0.0, 1.0]]
    assert table.scores["site"][0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize(("suffix", "machine"), [("csv", set()), ("parquet", {"papule"})])
def test_the_golden_truth_reads(suffix, machine):
    table = Truth.read(GOLDEN / f"truth.{suffix}")
    assert table.image_ids.tolist() == ["000655", "img-2", "img-3"]
    assert table.values["lesion"].tolist() == [[1, 0], [0, -1], [0, 1]]
    assert table.values["site"].tolist() == [[1, 0], [-1, -1], [0, 1]]
    assert table.groups.tolist() == ["patient 1", "patient 2", "patient 2"]
    assert table.group_indices().tolist() == [0, 1, 1]
    assert table.labels["lesion"].machine == machine
    assert table.covariates["source"].to_list() == ["clinic", "clinic", "archive"]
    assert table.covariates["skin_tone"].to_list() == ["III", "III", None]


def test_csv_is_written_as_the_golden_files_are(tmp_path):
    for kind, name in ((Predictions, "predictions.csv"), (Truth, "truth.csv")):
        kind.read(GOLDEN / name).write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_parquet_keeps_everything(tmp_path):
    for kind, name in ((Predictions, "predictions.parquet"), (Truth, "truth.parquet")):
        kind.read(GOLDEN / name).write(tmp_path / name)
        assert pl.read_parquet(tmp_path / name).equals(pl.read_parquet(GOLDEN / name))
        assert pl.read_parquet_schema(tmp_path / name) == pl.read_parquet_schema(GOLDEN / name)
    assert Truth.read(tmp_path / "truth.parquet").labels["lesion"].machine == {"papule"}


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6))
def test_scores_survive_csv_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("scores") / "p.csv"
    ids = [f"{k}" for k in range(len(values))]
    table = predictions(ids, lesion=[[value, 1 - value] for value in values])
    table.write(path)
    assert np.array_equal(Predictions.read(path).scores["lesion"], table.scores["lesion"])


# --- what is refused when read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table cannot be read"),
        ("image_id,score\na,0.5\n", "no label column; they are named 'lesion/<name>' and 'site/<name>'"),
        ("image_id,lesions/a\nx,0.5\n", "unknown task 'lesions': did you mean 'lesion'"),
        ("image,lesion/a\nx,0.5\n", "there is no column 'image_id'"),
        ("image_id,lesion/a\n", "the table has no rows"),
        ("image_id,lesion/a\nx,0.5\n,0.5\n", "row 2: image_id is empty"),
        ("image_id,lesion/a\nx,0.5\ny,high\n", "row 2, column 'lesion/a': found 'high', allowed are probabilities"),
        ("image_id,lesion/a\nx,0.5\ny,\n", r"row 2 \(image_id 'y'\), column 'lesion/a': found an empty or undefined cell"),
        ("image_id,lesion/a\nx,NaN\n", "row 1 .* found an empty or undefined cell"),
        (
            "image_id,lesion/a\nx,1.5\n",
            r"row 1 \(image_id 'x'\), column 'lesion/a': found 1.5, allowed are probabilities in \[0, 1\]",
        ),
        ("image_id,lesion/a\nx,-2\n", "found -2, allowed"),
        ("image_id,lesion/a\nx,inf\n", "found inf, allowed"),
        ("image_id,site/a,site/b\nx,0.5,0.5\ny,0.5,0.4\n", r"row 2 \(image_id 'y'\): the site columns sum to 0.9, allowed is 1"),
        ("image_id,fold,lesion/a\nx,1.5,0.5\n", "row 1, column 'fold': found '1.5', allowed are whole numbers"),
        ("image_id,seed,lesion/a\nx,,0.5\n", "row 1: seed is empty"),
        ("image_id,lesion/a\nx,0.5\nx,0.6\n", "image_id 'x' stands in more than one row"),
        ("image_id,seed,lesion/a\nx,1,0.5\nx,1,0.6\n", "image_id 'x' of seed 1 stands in more than one row"),
    ],
)
def test_broken_predictions_are_refused_with_file_row_and_value(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(TableError, match=message) as caught:
        Predictions.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,lesion/a\nx,0.5\n", "row 1, column 'lesion/a': found '0.5', allowed are 1, 0 or an empty cell"),
        ("image_id,lesion/a\nx,1\ny,2\n", "row 2, column 'lesion/a': found 2, allowed are 1, 0 or an empty cell"),
        ("image_id,lesion/a\nx,-1\n", "row 1, column 'lesion/a': found -1, allowed are 1, 0 or an empty cell"),
        ("image_id,lesion/a\nx,yes\n", "found 'yes', allowed"),
        ("image_id,site/a,site/b\nx,1,1\n", r"row 1 \(image_id 'x'\): the site columns must hold one 1"),
        ("image_id,site/a,site/b\nx,0,0\n", "must hold one 1 and otherwise 0, or all be empty"),
        ("image_id,site/a,site/b\nx,1,\n", "must hold one 1 and otherwise 0, or all be empty"),
        ("image_id,group,lesion/a\nx,g,1\ny,,0\n", "row 2: group is empty"),
        ("image_id,lesion/a\nx,1\nx,0\n", "image_id 'x' stands in more than one row"),
    ],
)
def test_a_broken_truth_is_refused_with_file_row_and_value(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(TableError, match=message) as caught:
        Truth.read(path)
    assert str(path) in str(caught.value)


def test_image_ids_that_are_numbers_are_refused_since_their_zeros_are_lost(tmp_path):
    path = tmp_path / "p.parquet"
    pl.DataFrame({"image_id": [655], "lesion/a": [0.5]}).write_parquet(path)
    with pytest.raises(TableError, match="column 'image_id' holds Int64, it must hold strings"):
        Predictions.read(path)


def test_a_missing_file_another_ending_and_a_damaged_file(tmp_path):
    with pytest.raises(TableError, match=r"p\.csv: there is no such file"):
        Predictions.read(tmp_path / "p.csv")
    with pytest.raises(TableError, match=r"a table is a \.parquet or a \.csv file"):
        Predictions.read(tmp_path / "p.xlsx")
    with pytest.raises(TableError, match=r"p\.parquet: the table cannot be read"):
        Predictions.read(written(tmp_path, "not parquet", "p.parquet"))
    with pytest.raises(TableError, match=r"a table is a \.parquet or a \.csv file"):
        predictions().write(tmp_path / "p.txt")
    assert not (tmp_path / "p.txt").exists()


def test_machine_made_columns_can_be_named_when_reading_csv():
    table = Truth.read(GOLDEN / "truth.csv", machine=["lesion/papule"])
    assert table.labels["lesion"].machine == {"papule"}
    with pytest.raises(TableError, match="machine-made column 'lesion/papul' is not among the label columns"):
        Truth.read(GOLDEN / "truth.csv", machine=["lesion/papul"])


# --- misuse from Python ----------------------------------------------------------------------------------------------------


def test_shapes_that_disagree_are_value_errors():
    with pytest.raises(ValueError, match=r"lesion scores have shape \(2, 3\), not \(2, 2\)"):
        predictions(lesion=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"scores for \['lesion'\] but labels for \['lesion', 'site'\]"):
        Predictions(np.array(["a"]), SPACE, {"lesion": np.zeros((1, 2), dtype=np.float32)})
    with pytest.raises(ValueError, match=r"site labels have shape \(2, 1\)"):
        truth(site=[[1], [1]])
    with pytest.raises(ValueError, match="1 groups for 2 photographs"):
        truth(groups=np.array(["g"]))


# --- one seed, rows, folds -------------------------------------------------------------------------------------------------


def test_by_seed_and_take_and_concatenate():
    table = Predictions.read(GOLDEN / "predictions.csv")
    parts = table.by_seed()
    assert list(parts) == [1, 2]
    assert parts[2].image_ids.tolist() == ["000655", "img-2", "img-3"]
    assert parts[2].scores["lesion"][0].tolist() == [np.float32(0.8), 0.25]
    again = Predictions.concatenate([parts[1], parts[2]])
    assert again.to_frame().equals(table.to_frame())
    assert list(predictions().by_seed()) == [0]
    with pytest.raises(TableError, match="image_id '000655' of seed 1 stands in more than one row"):
        Predictions.concatenate([parts[1], parts[1]])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        Predictions.concatenate([])


def test_the_notes_of_sources_travel_with_a_parquet_table(tmp_path):
    noted = replace(truth(), notes=("Diagnoses stand in for lesion types.", "Drawn, not photographed."))
    assert noted.take(np.array([1])).notes == noted.notes
    for name, found in (("truth.parquet", noted.notes), ("truth.csv", ())):
        noted.write(tmp_path / name)
        assert Truth.read(tmp_path / name).notes == found
    truth().write(tmp_path / "plain.parquet")
    assert Truth.read(tmp_path / "plain.parquet").notes == ()


def test_photographs_without_groups_are_their_own():
    assert truth(ids=("b", "a", "c")).group_indices().tolist() == [0, 1, 2]


# --- predictions against truth ---------------------------------------------------------------------------------------------


def test_predictions_are_brought_into_the_order_of_the_truth():
    theirs = predictions(("b", "c", "a"), lesion=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], folds=np.array([1, 2, 0]))
    matched = check_matching(theirs, truth(("a", "b", "c")))
    assert matched.image_ids.tolist() == ["a", "b", "c"]
    assert matched.scores["lesion"][:, 0].tolist() == pytest.approx([0.5, 0.1, 0.3])
    assert matched.folds.tolist() == [0, 1, 2]


def test_classes_are_brought_into_the_order_of_the_truth_and_further_lesions_are_left_out():
    labels = LabelSpace((Task("lesion", ("cyst", "erosion/ulcer/atrophy", "papule")),))
    scores = {"lesion": np.array([[0.1, 0.2, 0.3]], dtype=np.float32)}
    matched = check_matching(Predictions(np.array(["a"]), labels, scores), truth(("a",)))
    assert matched.labels == SPACE.restricted_to(["lesion"])
    assert matched.scores["lesion"].tolist() == [[np.float32(0.3), np.float32(0.2)]]


def test_missing_and_further_photographs_are_errors():
    with pytest.raises(TableError, match=r"predictions has no row for image_id 'c' of truth, row 3 \(1 of 3 are missing\)"):
        check_matching(predictions(("a", "b")), truth(("a", "b", "c")))
    with pytest.raises(TableError, match=r"holds image_id 'c', which truth does not have \(1 such rows\)"):
        check_matching(predictions(("a", "b", "c")), truth(("a", "b")))


def test_a_truth_column_without_prediction_is_an_error():
    labels = LabelSpace((Task("lesion", ("papule",)),))
    table = Predictions(np.array(["a"]), labels, {"lesion": np.zeros((1, 1), dtype=np.float32)})
    with pytest.raises(TableError, match="has no column 'lesion/erosion/ulcer/atrophy', which truth has"):
        check_matching(table, truth(("a",)))


def test_a_site_that_the_truth_does_not_know_is_an_error_since_its_probability_would_be_lost():
    labels = LabelSpace((Task("site", ("face", "hands", "scalp")),))
    table = Predictions(np.array(["a"]), labels, {"site": np.array([[0.5, 0.25, 0.25]], dtype=np.float32)})
    with pytest.raises(TableError, match="has a column 'site/scalp', which truth does not have"):
        check_matching(table, truth(("a",)))


def test_no_task_in_common_is_an_error():
    labels = LabelSpace((Task("site", ("face", "hands")),))
    only_site = Predictions(np.array(["a"]), labels, {"site": np.array([[0.5, 0.5]], dtype=np.float32)})
    only_lesion = Truth(
        np.array(["a"]), SPACE.restricted_to(["lesion"]), {"lesion": np.zeros((1, 2), dtype=np.int8)}, None, pl.DataFrame()
    )
    with pytest.raises(TableError, match="predicts no task of"):
        check_matching(only_site, only_lesion)


@given(st.permutations(list("abcdefgh")), st.permutations(list("abcdefgh")))
def test_matching_finds_each_row(theirs, ours):
    value = {item: k / 8 for k, item in enumerate("abcdefgh")}
    table = predictions(theirs, lesion=[[value[item], 0] for item in theirs])
    matched = check_matching(table, truth(ours))
    assert matched.scores["lesion"][:, 0].tolist() == [value[item] for item in ours]


def test_what_is_known_to_be_there_is_told_from_what_is_not_known():
    labels = LabelSpace((Task("lesion", ("a", "b/c")), Task("site", ("x", "y"))))
    lesions, sites = np.array([[1, 1], [0, 0], [-1, 1], [-1, -1]], np.int8), np.array([[1, 0], [0, 1], [-1, -1], [1, 0]], np.int8)
    truth = Truth(np.array(list("1234")), labels, {"lesion": lesions, "site": sites}, None, pl.DataFrame())
    assert [truth.present("lesion", row) for row in range(4)] == [("a", "b/c"), (), ("b/c",), None]
    assert [truth.present("site", row) for row in range(4)] == [("x",), ("y",), None, ("x",)]
    alone = Truth(truth.image_ids, labels.restricted_to(["site"]), {"site": sites}, None, pl.DataFrame())
    assert alone.present("lesion", 0) is None


def test_folds_are_counted_as_they_are_named():
    def n_folds(folds):
        ids, labels = np.array(["a", "b", "c"]), LabelSpace((Task("lesion", ("crust",)),))
        return Predictions(ids, labels, {"lesion": np.full((3, 1), 0.5, dtype=np.float32)}, folds).n_folds

    assert [n_folds(folds) for folds in (None, np.array([4, 4, 4]), np.array([0, 7, 0]))] == [0, 1, 2]
