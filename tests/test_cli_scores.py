"""`predilect evaluate`: tables of any program in, scores out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from made_commands import leave, one_line
from predilect.errors import TableError
from predilect.predictions import Predictions, Truth

pytestmark = pytest.mark.usefixtures("without_figures")


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


def marked(place, folder: Path) -> tuple[Path, list[str]]:
    """The truth of the run with two lesions marked as machine-made and a note, and its lesions."""
    known = Truth.read(place.run / "truth.parquet")
    lesions = list(known.labels["lesion"].columns)
    noted = replace(Truth.read(place.run / "truth.parquet", lesions[:2]), notes=("Drawn by a program.",))
    noted.write(folder / "truth.parquet")
    return folder / "truth.parquet", [name.removeprefix("lesion/") for name in lesions]


def test_machine_made_labels_count_where_asked_for_and_that_is_said_first(place, tmp_path, capsys):
    truth, lesions = marked(place, tmp_path)
    given = ("evaluate", "--predictions", f"mtl={place.run / 'mtl'}", "--truth", truth, "--out")
    assert leave(*given, tmp_path / "without") == 0
    capsys.readouterr()
    assert leave(*given, tmp_path / "with", "--count-machine-made") == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("note "))
    assert lines[0] == "resampling"
    assert not [line for line in lines[:begin] if "mAP" in line]  # the tables come after
    first, second = lines[begin : begin + 2]
    assert first == "note      Drawn by a program."
    assert second.startswith(f"note      A model, not a person, made the labels of {lesions[0]} and {lesions[1]}: they are counted")
    without, counted = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("without", "with"))
    for report, n, is_counted in ((without, len(lesions) - 2, False), (counted, len(lesions), True)):
        scored = report["systems"]["mtl"]["lesion"]
        averages = [item["ap"] for item in scored["per_class"].values() if is_counted or not item["machine_made"]]
        assert scored["n_classes_defined"] == sum(value is not None for value in averages) <= n
        assert scored["map_class"] == pytest.approx(sum(averages) / n)
        assert [name for name, item in scored["per_class"].items() if item["machine_made"]] == lesions[:2]
        assert report["truth"]["machine_made"] == lesions[:2]
        assert report["truth"]["machine_made_counted"] is is_counted
        assert report["notes"][0] == "Drawn by a program."
        assert ("counted in the means" in report["notes"][1]) is is_counted
    assert "counted in the means above" in (tmp_path / "with" / "report.html").read_text()
    assert "counted in the means" not in (tmp_path / "without" / "report.html").read_text()


def test_counting_machine_made_labels_where_none_is_marked_is_an_error(place, tmp_path, capsys):
    table = f"mtl={place.run / 'mtl' / 'seed-1' / 'predictions.parquet'}"
    given = ("evaluate", "--predictions", table, "--truth", place.run / "truth.parquet", "--out", tmp_path / "scores")
    assert leave(*given, "--count-machine-made") == 1
    assert "marks no label as machine-made" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "scores").exists()


def test_the_folder_of_a_runs_system_gives_the_tables_of_all_its_seeds(place, tmp_path, capsys):
    table = Predictions.read(place.run / "mtl" / "seed-1" / "predictions.parquet")
    other = replace(table, seeds=table.seeds + 1)
    for seed, part in enumerate((table, other), start=1):
        part.write(tmp_path / "mtl" / f"seed-{seed}" / "predictions.parquet")
    given = ("evaluate", "--truth", place.run / "truth.parquet", "--out")
    assert leave(*given, tmp_path / "scores", "--predictions", f"mtl={tmp_path / 'mtl'}") == 0
    report = json.loads((tmp_path / "scores" / "report.json").read_text())
    assert list(report["systems"]["mtl"]["seeds"]) == ["1", "2"]
    assert report["provenance"]["predictions"] == {"mtl": "mtl"}
    shutil.copy(place.run / "resnet" / "seed-1" / "predictions.parquet", tmp_path / "mtl" / "seed-2")
    assert leave(*given, tmp_path / "other", "--predictions", f"mtl={tmp_path / 'mtl'}") == 1
    assert "seed-2/predictions.parquet has other label columns than" in one_line(capsys.readouterr().err)
    assert leave(*given, tmp_path / "other", "--predictions", f"mtl={tmp_path}") == 1
    assert "is a folder without seed-<number>/predictions.parquet" in one_line(capsys.readouterr().err)


def test_a_place_that_cannot_be_written_is_told_before_the_resampling(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("predilect.cli.scores.measure", lambda *_, **__: pytest.fail("minutes of work for nothing"))
    (tmp_path / "file").touch()
    table = f"mtl={place.run / 'mtl'}"
    assert (
        leave("evaluate", "--predictions", table, "--truth", place.run / "truth.parquet", "--out", tmp_path / "file" / "scores")
        == 1
    )
    assert f"cannot be written: {tmp_path / 'file'} is not a folder" in one_line(capsys.readouterr().err)


def test_no_folder_is_left_behind_where_the_tables_cannot_be_scored(place, tmp_path, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> NoReturn:
        raise TableError("of another atlas")

    monkeypatch.setattr("predilect.cli.scores.measure", refuse)
    table, out = f"mtl={place.run / 'mtl'}", tmp_path / "results" / "scores"
    assert leave("evaluate", "--predictions", table, "--truth", place.run / "truth.parquet", "--out", out) == 1
    assert one_line(capsys.readouterr().err) == "error of another atlas\n"
    assert list(tmp_path.iterdir()) == []
