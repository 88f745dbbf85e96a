"""`predilect predict`: photographs, folders, patterns and cases in; the same answers out as the API gives, in four forms."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from made_commands import leave, one_line
from made_run import scores_of_files
from made_serving import blank, fitted_parts, made_bundle, photograph, serving, upload
from predilect.bundle import write_bundle
from predilect.cli.predict import _image_ids, _possible
from predilect.evaluation.fitted_parts import FittedParts
from predilect.predictions import Predictions
from predilect.recipe import system
from predilect.serving.answers import CaseAnswer, LesionAnswer
from predilect.serving.predictor import Predictor
from predilect.training.crossval import Refit

FORMS = ("table", "json", "csv", "parquet")


@pytest.fixture(scope="module")
def bundle(made_run, tmp_path_factory):
    return made_bundle(made_run, tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two cases, with photographs of one name, and what is no photograph."""
    root = tmp_path_factory.mktemp("photographs")
    for seed, name in enumerate(("first/1.jpg", "first/2.jpg", "second/1.jpg", "loose.jpg")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(photograph(seed))
    (root / "second" / "broken.jpg").write_bytes(photograph()[:200])
    (root / "first" / "notes.txt").write_text("x", encoding="utf-8")
    return root


def answered(capsys, bundle, *arguments, code=0):
    assert leave("predict", bundle.path, *arguments, "--format", "json") == code
    return json.loads(capsys.readouterr().out)


def table_rows(path):
    return (pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)).rows(named=True)


@pytest.mark.parametrize(
    ("possible", "cell"),
    [
        (None, "—"),
        ([], "none"),
        (["a", "b"], "a\nb"),
        (["a", "b", "c"], "3 of 5; excluded: d, e"),
        (["a", "b", "c", "d", "e"], "all 5"),
    ],
)
def test_the_column_of_what_cannot_be_excluded_never_lists_the_excluded_alone(possible, cell):
    lesions = [LesionAnswer(name=name, probability=0.5, score=0.5, decision=None, threshold=None) for name in "abcde"]
    answer = CaseAnswer(
        name="case", photographs=[], lesions=lesions, site=[], given_site=None, lesions_without_site=None, set=possible, unsure=None,
        unfamiliar=None, uniform=False,
    )  # fmt: skip
    assert _possible(answer) == cell


@pytest.mark.parametrize("site", [None, "arm"])
def test_the_command_and_the_api_answer_the_same(bundle, photographs, capsys, site):
    files = [photographs / "first" / "1.jpg", photographs / "first" / "2.jpg"]
    options, data = ([], {}) if site is None else (["--site", site], {"site": site})
    said = answered(capsys, bundle, *files, *options)
    with serving(Predictor.open(bundle)) as client:
        expected = client.post("/v1/predict", files=upload(*(file.read_bytes() for file in files)), data=data).json()
    assert said["model"] == expected["model"]
    for mine, other, file in zip(said["results"], expected["results"], files, strict=True):
        assert mine == {**other, "name": str(file)}
    assert "cases" not in said
    (_, *rare) = bundle.labels["lesion"].classes
    assert said["notes"][0] == f"Too rare to be calibrated and decided on: {' and '.join(rare)}."


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], []),
        (["--site", "arm"], ["without a given site"]),
        (["--case"], ["on single photographs"]),
        (["--site", "arm", "--case"], ["without a given site", "on single photographs"]),
    ],
)
def test_for_what_thresholds_and_sets_were_not_fitted_is_noted(bundle, made_run, photographs, capsys, options, told):
    file = photographs / "loose.jpg"
    notes = [note for note in answered(capsys, bundle, file, *options)["notes"] if "not shown to hold" in note]
    assert len(notes) == len(told)
    assert all(words in note for words, note in zip(told, notes, strict=True))
    if "--site" not in options:  # nothing was fitted for this one, so nothing is promised either
        assert "not shown to hold" not in str(answered(capsys, made_run.bundle, file, *options)["notes"])


@pytest.mark.parametrize("tta", ["center", "ten-crop"])
def test_what_is_looked_at_may_be_chosen(bundle, photographs, capsys, tta):
    file = photographs / "loose.jpg"
    predictor = Predictor.open(bundle, views=tta)
    expected = scores_of_files(predictor.runtime.observe, predictor.bundle.preprocessing, [file])[file]
    said = answered(capsys, bundle, file, "--tta", tta)
    scores = {item["name"]: item["score"] for item in said["results"][0]["lesions"]}
    assert [scores[name] for name in bundle.labels["lesion"].classes] == pytest.approx(expected["lesion"].tolist(), abs=1e-6)
    other = tta != bundle.preprocessing.views
    assert any(f"not for {tta}" in note for note in said["notes"]) is other
    assert (said["results"][0]["unfamiliar"] is None) is other  # distances are those of the bundle's own views


def test_center_and_ten_crops_differ(bundle, photographs, capsys):
    first, second = (answered(capsys, bundle, photographs / "loose.jpg", "--tta", tta) for tta in ("center", "ten-crop"))
    assert first["results"][0]["lesions"] != second["results"][0]["lesions"]


def test_folders_and_patterns_and_a_broken_photograph(bundle, photographs, capsys):
    said = answered(capsys, bundle, photographs / "first", photographs / "sec*" / "*.jpg", code=1)
    names = [str(photographs / name) for name in ("first/1.jpg", "first/2.jpg", "second/1.jpg", "second/broken.jpg")]
    assert [row["name"] for row in said["results"]] == names
    assert [row["name"] for row in said["results"] if "error" in row] == names[-1:]
    assert said["notes"][-1] == "Passed over in the folders, as no images by their names: 1 other file."


@pytest.mark.parametrize("form", FORMS)
def test_a_broken_photograph_is_told_of_in_its_row_and_the_others_go_on(bundle, photographs, tmp_path, capsys, form):
    out = ["--out", tmp_path / f"p.{form}"] if form == "parquet" else []
    files = (photographs / "second" / "broken.jpg", photographs / "loose.jpg")
    assert leave("predict", bundle.path, *files, "--format", form, *out) == 1
    shown = capsys.readouterr()
    told = "".join(line for line in shown.err.splitlines(keepends=True) if not line.startswith("note "))
    reason = one_line(told).removeprefix(f"error {files[0]}: ").strip()
    assert reason
    if form == "json":
        first, second = json.loads(shown.out)["results"]
        assert first == {"name": str(files[0]), "error": reason}
        assert "error" not in second
    elif form == "table":
        words = " ".join(shown.out.split())
        assert "not read" in words
        assert reason not in words  # it is told once, where it may be of any length
        assert max(map(len, shown.out.splitlines())) <= 100
        assert "loose" in words
    else:
        table = pl.read_parquet(tmp_path / "p.parquet") if form == "parquet" else pl.read_csv(StringIO(shown.out))
        assert table["error"].to_list() == [reason, None]
        assert table.select(pl.col("^(lesion|site)/.*$").is_null()).rows() == [(True,) * 5, (False,) * 5]


def test_tables_hold_what_is_said_and_are_predictions(bundle, photographs, tmp_path, capsys):
    files = [photographs / name for name in ("first/1.jpg", "first/2.jpg", "second/1.jpg")]
    said = answered(capsys, bundle, *files, "--site", "arm")["results"]
    for form in ("csv", "parquet"):
        out = tmp_path / f"p.{form}"
        assert leave("predict", bundle.path, *files, "--site", "arm", "--format", form, "--out", out) == 0
        assert capsys.readouterr().out == f"answers   {out}\n"
        table = Predictions.read(out)
        assert table.labels.columns == bundle.labels.columns
        assert table.image_ids.tolist() == [str(file.with_suffix("")) for file in files]
        for k, row in enumerate(said):
            for task, key in (("lesion", "lesions"), ("site", "site")):
                probabilities = {item["name"]: item["probability"] for item in row[key]}
                expected = [probabilities[name] for name in bundle.labels[task].classes]
                assert table.scores[task][k].tolist() == pytest.approx(expected, abs=1e-6)
        for row, cell in zip(said, table_rows(out), strict=True):
            assert cell["name"] == row["name"]
            assert cell["given_site"] == "arm"
            assert (cell["set"] or "") == ";".join(row["set"])
            assert (cell["present"] or "") == ";".join(item["name"] for item in row["lesions"] if item["decision"])
            assert (cell["unsure"], cell["unfamiliar"]) == (row["unsure"], row["unfamiliar"])


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("case", [[], ["--case"]])
def test_a_table_tells_what_is_not_decided_and_not_calibrated_from_what_is_absent(
    bundle, photographs, tmp_path, capsys, form, case
):
    file, out = photographs / "loose.jpg", tmp_path / f"p.{form}"
    said = answered(capsys, bundle, file, *case)
    (row,) = said["cases" if case else "results"]
    known, *rare = bundle.labels["lesion"].classes
    assert leave("predict", bundle.path, file, *case, "--format", form, "--out", out) == 0
    cell = table_rows(out)[0]
    assert set(cell["not_decided"].split(";")) == {item["name"] for item in row["lesions"] if item["decision"] is None} == set(rare)
    assert set(cell["not_calibrated"].split(";")) == set(rare)
    assert known not in {*cell["not_decided"].split(";"), *cell["not_calibrated"].split(";")}
    assert cell["site_calibrated"] is True


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_of_a_bundle_without_calibration_says_so_of_each_class(made_run, photographs, tmp_path, capsys, form):
    out = tmp_path / f"p.{form}"
    files = (photographs / "loose.jpg", photographs / "second" / "broken.jpg")
    assert leave("predict", made_run.bundle.path, *files, "--format", form, "--out", out) == 1
    lesions = set(made_run.bundle.labels["lesion"].classes)
    cell, broken = table_rows(out)
    assert set(cell["not_decided"].split(";")) == set(cell["not_calibrated"].split(";")) == lesions
    assert (cell["present"], cell["site_calibrated"]) == (None, False)
    assert [broken[name] for name in ("not_decided", "not_calibrated", "site_calibrated")] == [None] * 3
    assert "note      Probabilities are not calibrated and nothing is decided" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_a_table_has_no_place_for_goes_to_standard_error(bundle, photographs, tmp_path, capsys, form):
    options = [photographs / "first", "--site", "arm", "--case"]
    notes = answered(capsys, bundle, *options)["notes"]
    assert len(notes) == 4
    out = ["--out", tmp_path / "p.parquet"] if form == "parquet" else []
    assert leave("predict", bundle.path, *options, "--format", form, *out) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [f"note      {note}" for note in notes]
    assert "note " not in shown.out  # where programs read


def test_a_site_that_is_not_calibrated_is_noted_and_marked(made_run, photographs, tmp_path, capsys):
    parts = fitted_parts(*(made_run.bundle.labels[task].classes for task in ("lesion", "site")), 1.0)
    calibration = parts.rule.calibration
    bare = replace(calibration, site=replace(calibration.site, temperature=None, n_groups=3))
    refit = Refit(system(made_run.bundle.system, made_run.bundle.recipe), made_run.bundle.network(), made_run.bundle.provenance)
    fitted = FittedParts(replace(parts.rule, calibration=bare), parts.site_prior)
    bundle = write_bundle(tmp_path / "bundle", refit, fitted)
    file, out = photographs / "loose.jpg", tmp_path / "p.parquet"
    assert (
        "The site's probabilities are not calibrated: too few groups have a known site." in answered(capsys, bundle, file)["notes"]
    )
    assert leave("predict", bundle.path, file, "--format", "parquet", "--out", out) == 0
    assert table_rows(out)[0]["site_calibrated"] is False


# --- cases -----------------------------------------------------------------------------------------------------------------


def test_photographs_of_a_case_are_answered_together(bundle, photographs, capsys):
    folders = [photographs / "first", photographs / "second"]
    said = answered(capsys, bundle, *folders, "--case", "--site", "arm", code=1)
    first, second = said["cases"]
    members = said["results"][:2]
    assert (first["name"], second["name"]) == tuple(map(str, folders))
    assert first["photographs"] == [row["name"] for row in members]
    assert second["photographs"] == [str(folders[1] / "1.jpg")]  # the broken one is told of, and left out
    (incomplete,) = [note for note in said["notes"] if "could not be read" in note]
    assert incomplete.startswith(f"Of {folders[1]}, 1 of 2 photographs could not be read")
    for key in ("lesions", "lesions_without_site"):
        by_name = [{item["name"]: item for item in row[key]} for row in members]
        for item in first[key]:
            of_all = [each[item["name"]] for each in by_name]
            assert item["probability"] == max(each["probability"] for each in of_all)
            assert item["score"] == max(each["score"] for each in of_all)
            assert item["decision"] == (None if item["threshold"] is None else item["probability"] >= item["threshold"])
    for item in first["site"]:
        of_all = [place["probability"] for row in members for place in row["site"] if place["name"] == item["name"]]
        assert item["probability"] == pytest.approx(np.mean(of_all), abs=1e-6)
    assert set(first["set"]) == {name for row in members for name in row["set"]}
    present = any(item["decision"] for item in first["lesions"])
    assert first["unsure"] is (bool(first["set"]) and not present)
    assert first["unfamiliar"] is any(row["unfamiliar"] for row in members)
    alone = said["results"][2]
    assert {key: second[key] for key in ("lesions", "site", "set", "unsure")} == {
        key: alone[key] for key in ("lesions", "site", "set", "unsure")
    }


def test_files_that_are_named_one_by_one_are_one_case(bundle, photographs, capsys):
    files = [photographs / "first" / "1.jpg", photographs / "loose.jpg"]
    (case,) = answered(capsys, bundle, *files, "--case")["cases"]
    assert (case["name"], case["photographs"], case["given_site"]) == ("case", [str(file) for file in files], None)
    assert case["lesions_without_site"] is None


@pytest.mark.parametrize("form", FORMS[:3])
def test_a_case_without_a_photograph_that_can_be_used_says_so(bundle, photographs, capsys, form):
    assert leave("predict", bundle.path, photographs / "second" / "broken.jpg", "--case", "--format", form) == 1
    assert "none of its photographs can be used" in " ".join(capsys.readouterr().out.split())


# --- words -----------------------------------------------------------------------------------------------------------------


def test_the_table_shows_what_was_decided_and_what_the_site_changed(bundle, photographs, capsys):
    known = bundle.labels["lesion"].classes[0]
    file = photographs / "loose.jpg"
    said = answered(capsys, bundle, file, "--site", "arm")["results"][0]
    assert leave("predict", bundle.path, file, "--site", "arm") == 0
    shown = " ".join(capsys.readouterr().out.split())
    before, after = ({item["name"]: item for item in said[key]}[known] for key in ("lesions_without_site", "lesions"))
    assert f"{after['probability']:.2f} ({before['probability']:.2f}) {known}" in shown
    assert "site given: arm" in shown
    assert ("present" in shown) is any(item["decision"] for item in said["lesions"])
    assert ("unlike the atlas" in shown) is said["unfamiliar"]


def test_a_photograph_of_one_colour_is_remarked_on(made_run, tmp_path, capsys):
    (tmp_path / "blank.jpg").write_bytes(blank(0))
    (tmp_path / "other.jpg").write_bytes(photograph())
    assert leave("predict", made_run.bundle.path, tmp_path) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if ".jpg" in line]
    assert ["nearly one colour" in row for row in rows] == [True, False]
    assert leave("predict", made_run.bundle.path, tmp_path, "--format", "csv") == 0
    assert pl.read_csv(StringIO(capsys.readouterr().out))["uniform"].to_list() == [True, False]
    said = answered(capsys, made_run.bundle, tmp_path, "--case")
    assert [row["uniform"] for row in (*said["results"], *said["cases"])] == [True, False, True]


def test_a_bundle_without_calibration_says_so(made_run, photographs, capsys):
    assert leave("predict", made_run.bundle.path, photographs / "loose.jpg") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Most probable, not calibrated" in shown
    assert "Probabilities are not calibrated and nothing is decided: nothing was fitted." in shown
    assert leave("predict", made_run.bundle.path, photographs / "loose.jpg", "--site", "arm") == 1
    assert "does not take a given site into account" in one_line(capsys.readouterr().err)


def test_a_site_that_is_unknown_is_named(bundle, photographs, capsys):
    assert leave("predict", bundle.path, photographs / "loose.jpg", "--site", "arms") == 1
    assert "did you mean 'arm'" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["a/1.jpg", "a/2.jpg"], ["1", "2"]),
        (["a/1.jpg", "b/1.jpg"], ["a/1", "b/1"]),
        (["a/1.jpg", "a/1.png", "b/1.jpg"], ["a/1.jpg", "a/1.png", "b/1.jpg"]),
        (["a/1.jpg", "a/1.jpg"], ["1"]),
    ],
)
def test_identifiers_are_as_short_as_they_can_be_and_differ(files, ids):
    assert list(_image_ids([Path(file) for file in files]).values()) == ids
