"""`predilect predict` and `predilect evaluate`: photographs and tables of any program in, scores out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from made_commands import leave, one_line
from predilect.cli.scores import _image_ids
from predilect.predictions import Predictions, Truth

pytestmark = pytest.mark.usefixtures("without_figures")


def test_predict_shows_the_same_as_table_json_and_csv(place, tmp_path, capsys):
    photographs = [place.photographs / "p000.png", place.photographs / "p001.png"]
    bundle = place.run / "bundle"
    assert leave("predict", bundle, *photographs, "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["errors"] == {}
    scores = answer["predictions"][str(photographs[0])]
    assert sum(scores["site"].values()) == pytest.approx(1, abs=1e-5)

    assert leave("predict", bundle, *photographs, "--format", "csv") == 0
    (tmp_path / "p.csv").write_text(capsys.readouterr().out, encoding="utf-8")
    table = Predictions.read(tmp_path / "p.csv")
    assert table.image_ids.tolist() == ["p000", "p001"]
    assert table.scores["lesion"][0].tolist() == pytest.approx(list(scores["lesion"].values()), abs=1e-5)

    assert leave("predict", bundle, *photographs) == 0
    best = max(scores["site"], key=scores["site"].__getitem__)
    assert f"{scores['site'][best]:.2f} {best}" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_predict_names_a_broken_photograph_and_shows_the_others(place, tmp_path, capsys, form):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    assert leave("predict", place.run / "bundle", broken, place.photographs / "p000.png", "--format", form) == 1
    shown = capsys.readouterr()
    assert one_line(shown.err).startswith(f"error {broken}: ")
    assert "p000" in shown.out


def test_predictions_of_files_with_one_name_can_be_read_back(place, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(place.photographs / "p000.png", tmp_path / folder / "1.png")
    files = [tmp_path / folder / "1.png" for folder in ("a", "b")]
    assert leave("predict", place.run / "bundle", *files, "--format", "csv") == 0
    (tmp_path / "p.csv").write_text(capsys.readouterr().out, encoding="utf-8")
    assert Predictions.read(tmp_path / "p.csv").image_ids.tolist() == [str(file.with_suffix("")) for file in files]


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


def test_evaluate_scores_the_tables_of_any_program(place, tmp_path, capsys):
    out = tmp_path / "scores"
    files = [f"{name}={place.run / name / 'seed-1' / 'predictions.parquet'}" for name in ("resnet", "mtl")]
    arguments = ("evaluate", "--predictions", *files, "--truth", place.run / "truth.parquet", "--out", out)
    assert leave(*arguments) == 0
    assert f"report    {out / 'report.html'}" in capsys.readouterr().out
    assert str(place.root).encode() not in (out / "report.html").read_bytes()
    assert leave(*arguments) == 1
    assert "already exists" in one_line(capsys.readouterr().err)


def test_evaluate_repeats_what_the_sources_of_a_runs_truth_say(place, tmp_path):
    noted = replace(Truth.read(place.run / "truth.parquet"), notes=("Drawn by a program.",))
    noted.write(tmp_path / "truth.parquet")
    table = f"mtl={place.run / 'mtl' / 'seed-1' / 'predictions.parquet'}"
    assert leave("evaluate", "--predictions", table, "--truth", tmp_path / "truth.parquet", "--out", tmp_path / "scores") == 0
    assert json.loads((tmp_path / "scores" / "report.json").read_text())["notes"][0] == "Drawn by a program."
